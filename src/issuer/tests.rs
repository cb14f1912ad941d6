use super::*;
use crate::core::{ids::Incarnation, model::User, rights::Rights, seal::MasterKey};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn grant() -> Grant {
    let (user, session) = (UserId::random().unwrap(), SessionId::random().unwrap());
    Grant {
        family_id: FamilyId { session, number: 7 },
        family: Arc::new(Family {
            app: AppId::new("shop").unwrap(),
            incarnation: Incarnation::random().unwrap(),
            scope: "read write".into(),
            logout_uri: String::new(),
            redirect_origin: String::new(),
            generation: 3,
            rotated_at: NOW,
        }),
        session: Arc::new(Session {
            id: session,
            user,
            ticket: BearerHash::of_ticket("t"),
            created_at: NOW,
            last_used_at: NOW,
            expires_at: NOW.after(Duration::from_hours(24)),
            idle_lifetime: Duration::from_hours(2),
            next_family: 8,
            authority: None,
        }),
        user: Arc::new(User {
            id: user,
            name: "ann".into(),
            person_code: String::new(),
            company_code: String::new(),
            account_type: 0,
            enabled: true,
            password_hash: None,
            password_change_required: false,
            created_at: NOW,
            updated_at: NOW,
            rights: Rights::default(),
        }),
    }
}

fn issuer(keys: &[SigningKey], vault: &Vault) -> Issuer {
    let issuer = Issuer::new("https://auth.example/".into(), Duration::from_hours(1));
    issuer.set_keys(keys, vault).unwrap();
    issuer
}

fn vault() -> Vault {
    Vault::create(&MasterKey::new([7; 32])).unwrap().0
}

#[test]
fn a_token_is_read_alike_by_who_made_it_and_by_who_has_to_check_it() {
    let vault = vault();
    let keys = [generate(&vault, NOW, Duration::ZERO).unwrap()];
    let (maker, checker) = (issuer(&keys, &vault), issuer(&keys, &vault));
    let token = maker.mint(&grant(), NOW).unwrap().token;
    let read = maker.read(token.expose()).unwrap();
    assert_eq!((read.family.number, read.app.as_str(), read.is_current(NOW)), (7, "shop", true));
    for _ in 0..2 {
        assert_eq!(checker.read(token.expose()).as_deref(), Some(&*read));
    }
}

#[test]
fn a_token_that_is_known_makes_no_other_spelling_of_it_good() {
    let vault = vault();
    let issuer = issuer(&[generate(&vault, NOW, Duration::ZERO).unwrap()], &vault);
    let token = issuer.mint(&grant(), NOW).unwrap().token.expose().to_owned();
    assert!(issuer.read(&token).is_some());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for other in [format!("{signed}."), format!("{signed}.{}", &signature[1..]), format!("{token} "), token.to_uppercase()] {
        assert!(issuer.read(&other).is_none(), "{other}");
    }
}

#[test]
fn a_token_that_is_known_ends_with_its_key() {
    let vault = vault();
    let key = generate(&vault, NOW, Duration::ZERO).unwrap();
    let issuer = issuer(std::slice::from_ref(&key), &vault);
    let token = issuer.mint(&grant(), NOW).unwrap().token;
    assert!(issuer.read(token.expose()).unwrap().is_current(NOW.after(Duration::from_mins(30))));

    let expires_at = Some(NOW.after(Duration::from_mins(10)));
    let retired = SigningKey { retired_at: Some(NOW), expires_at, ..key.clone() };
    issuer.set_keys(&[retired], &vault).unwrap();
    assert!(!issuer.read(token.expose()).unwrap().is_current(NOW.after(Duration::from_mins(30))), "it expires with its key");

    // What a key seems to have signed after it was retired, somebody else has signed with it.
    let stolen = SigningKey { retired_at: Some(Timestamp::from_millis(NOW.millis() - 3_600_000)), expires_at, ..key };
    issuer.set_keys(&[stolen], &vault).unwrap();
    assert!(issuer.read(token.expose()).is_none());

    issuer.set_keys(&[generate(&vault, NOW, Duration::ZERO).unwrap()], &vault).unwrap();
    assert!(issuer.read(token.expose()).is_none(), "no key is known that has signed it");
}

#[test]
fn a_keys_id_can_be_typed_after_a_command() {
    let vault = vault();
    for _ in 0..500 {
        let kid = generate(&vault, NOW, Duration::ZERO).unwrap().kid;
        assert!(!kid.starts_with('-'), "`key retire {kid}` reads it as an option");
    }
}
