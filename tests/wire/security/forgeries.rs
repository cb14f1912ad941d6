//! Forged tokens, at every place that takes a token.

use supos_auth::grpc::pb::supos::auth::admin::v1::ListUsersRequest;

use super::forging::{Forger, Forgery};
use crate::harness::{App, Call, Case, Op, Setup, Tokens, Via, Who, World, authorize, exchange, jwt_part, native, refresh, valid};

async fn forger(world: &World, genuine: &str) -> Forger {
    let keys = world.call(Via::Native, &Call::new(Op::Jwks)).await;
    Forger::new(genuine, &keys.ok()["keys"])
}

/// Shows a forged token wherever a token is taken. Nothing but a refusal may come back.
async fn refused_everywhere(world: &World, app: &App, tokens: &Tokens, forgeries: &[Forgery]) {
    let mut wrong = Vec::new();
    for (index, (what, forged)) in forgeries.iter().enumerate() {
        let bearer = Who::bearer(forged);
        // A comma in the header may be two headers that Envoy has joined, and is refused for that.
        let joined = forged.contains(',');
        let no_caller: &[Case] = if joined { &[Case::Parameter] } else { &[Case::Caller] };
        let as_bearer: [(Call, &[Case]); 5] = [
            (Call::new(Op::Username).with("accessToken", forged).by(bearer.clone()), no_caller),
            (Call::new(Op::SignOutV281).with("accessToken", forged).by(bearer.clone()), no_caller),
            (authorize(Op::Authorize, app).by(bearer.clone()), no_caller),
            (refresh(Op::TokenV2, &tokens.refresh).by(bearer.clone()), no_caller),
            (valid(&tokens.access).by(bearer.clone()), no_caller),
        ];
        let as_parameter: [(Call, &[Case]); 2] = [
            (Call::new(Op::Username).with("accessToken", forged).by(app.who()), &[Case::Grant]),
            (Call::new(Op::SignOutV281).with("accessToken", forged).by(app.who()), &[Case::Grant]),
        ];
        // Both surfaces judge by one function; each forgery goes to one of them, and the first of each kind to both.
        for via in if index == 0 { Via::BOTH.to_vec() } else { vec![Via::BOTH[index % 2]] } {
            for (call, cases) in as_bearer.iter().chain(&as_parameter) {
                let reply = world.call(via, call).await;
                if cases.iter().all(|case| reply.check_refusal(*case).is_err()) {
                    wrong.push(format!("{what}, operation {:?} {via:?}: {:?} {}", call.op, reply.status, reply.text));
                }
            }
            for who in if joined { vec![app.who()] } else { vec![app.who(), bearer.clone()] } {
                let reply = world.call(via, &valid(forged).by(who)).await;
                if !reply.is_ok() || reply.body["valid"] != false {
                    wrong.push(format!("{what}, operation 8 {via:?}: {:?} {}", reply.status, reply.text));
                }
            }
        }
        let admin = world.users().list_users(native::request(ListUsersRequest::default(), &bearer)).await;
        let refused = if joined { tonic::Code::InvalidArgument } else { tonic::Code::Unauthenticated };
        if admin.err().map(|status| status.code()) != Some(refused) {
            wrong.push(format!("{what}: the admin API"));
        }
    }
    assert!(wrong.is_empty(), "{} forgeries were taken:\n{}", wrong.len(), wrong.join("\n"));
    assert!(world.is_valid(app, &tokens.access).await, "a forged token ended the genuine one");
    world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.ok();
}

#[tokio::test]
async fn a33_no_signature_and_no_other_algorithm() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    refused_everywhere(&world, &app, &tokens, &forger(&world, &tokens.access).await.unsigned()).await;
}

#[tokio::test]
async fn a33_the_published_key_is_no_secret_to_sign_with() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    refused_everywhere(&world, &app, &tokens, &forger(&world, &tokens.access).await.keyed_with_what_is_public()).await;
}

#[tokio::test]
async fn a33_a_token_cannot_bring_or_name_its_own_key() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    refused_everywhere(&world, &app, &tokens, &forger(&world, &tokens.access).await.with_a_key_of_its_own()).await;
}

#[tokio::test]
async fn a33_the_signature_covers_header_and_claims() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    refused_everywhere(&world, &app, &tokens, &forger(&world, &tokens.access).await.tampered()).await;
}

#[tokio::test]
async fn a33_an_administrators_token_cannot_be_forged_either() {
    let world = World::shared().await;
    let app = world.app().await;
    let admin = world.user_with(|user| user.account_type = 1).await;
    let tokens = world.tokens(&app, &world.sign_in(&admin).await).await;
    let genuine = native::request(ListUsersRequest::default(), &Who::bearer(&tokens.access));
    world.users().list_users(genuine).await.expect("an administrator's token opens the admin API");
    let forger = forger(&world, &tokens.access).await;
    let some: Vec<Forgery> =
        [forger.unsigned(), forger.keyed_with_what_is_public(), forger.with_a_key_of_its_own()].into_iter().flatten().step_by(4).collect();
    refused_everywhere(&world, &app, &tokens, &some).await;
}

#[tokio::test]
async fn a41_a_token_is_three_parts_of_canonical_base64url() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    refused_everywhere(&world, &app, &tokens, &forger(&world, &tokens.access).await.misshapen()).await;
}

#[tokio::test]
async fn h27_b5_claims_of_the_wrong_type_are_refused() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    refused_everywhere(&world, &app, &tokens, &forger(&world, &tokens.access).await.mistyped()).await;
}

#[tokio::test]
async fn a34_only_an_access_token_is_an_access_token() {
    let world = World::shared().await;
    let (app, user, ticket, tokens) = world.family().await;
    let header = jwt_part(&tokens.access, 0);
    assert_eq!(header["typ"], "at+jwt");
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let others = [
        ("a refresh token", &tokens.refresh),
        ("a code", &code),
        ("a ticket", &ticket),
        ("an app secret", &app.secret),
        ("a password", &user.password),
        ("a user id", &user.id),
    ];
    let others: Vec<Forgery> = others.map(|(what, secret)| (what.to_owned(), secret.clone())).into();
    refused_everywhere(&world, &app, &tokens, &others).await;
    world.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.ok();
}

#[tokio::test]
async fn a35_a_token_of_another_issuer_and_audience_is_refused_though_our_key_signed_it() {
    let mut world = World::own(Setup::default()).await;
    let (app, _, ticket, before) = world.family().await;
    world.restart_with(crate::harness::Pair::terminate, |setup| setup.public_url = Some("https://auth.invalid".to_owned()));
    let now = world.tokens(&app, &ticket).await;
    assert_eq!(jwt_part(&now.access, 0)["kid"], jwt_part(&before.access, 0)["kid"], "the key is the same");
    refused_everywhere(&world, &app, &now, &[("a token of the former public URL".to_owned(), before.access)]).await;
}
