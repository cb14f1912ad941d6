//! Sign: what a signature opens, and what it does not.

use supos_auth::{
    core::clock::Timestamp,
    sign::{self, DATE, GRPC, NONCE},
};

use crate::harness::{App, Call, Case, Op, Setup, Via, Who, World, exchange, pair::Pair, unique, valid, world::encode};

const VALIDATE: &str = "/supos.auth.v281.AuthService/ValidateToken";

/// A way to write an access key and a signature.
type Spelling = fn(&str, &str) -> String;
/// Headers to sign.
type Headers = Vec<(&'static str, String)>;

/// The date of a signature that is made so many seconds from now.
fn date(world: &World, seconds: i64) -> String {
    sign::date(Timestamp::from_millis(u64::try_from(world.now() + seconds).expect("a time") * 1000))
}

/// What makes a native signature a good one.
fn fresh(world: &World) -> Headers {
    vec![(DATE, date(world, 0)), (NONCE, unique("nonce"))]
}

/// The signature of a native call, made by hand.
fn native_signature(app: &App, method: &str, headers: &Headers) -> String {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    app.who().signers[0].authorization(&sign::Request { method: "POST", target: method, content_type: GRPC, headers: &headers })
}

/// Who signs a native call by hand, with these headers.
fn natively(app: &App, headers: Headers) -> Who {
    Who::authorization(&native_signature(app, VALIDATE, &headers)).and(Who::headers(headers))
}

#[tokio::test]
async fn a18_a_signature_opens_the_request_it_was_made_for_and_no_other() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    let tokens = world.tokens(&app, &ticket).await;
    let path = Op::Username.path();
    let target = format!("{path}?accessToken={}&x=1", encode(&tokens.access));
    let right = app.signature("GET", &target, "");
    for same in [target.clone(), format!("{path}?x=1&accessToken={}", tokens.access), format!("{target}&&"), target.replace("x=1", "X=%31")]
    {
        world.get(Op::Username, &same, &Who::authorization(&right)).await.ok();
    }
    for (what, other) in [
        ("another method", app.signature("POST", &target, "")),
        ("another path", app.signature("GET", &target.replace(path, Op::SignOutV281.path()), "")),
        ("the path with a slash", app.signature("GET", &target.replace('?', "/?"), "")),
        ("the path alone", app.signature("GET", path, "")),
        ("another value", app.signature("GET", &format!("{target}2"), "")),
        ("one parameter more", app.signature("GET", &format!("{target}&y=2"), "")),
        ("one parameter less", app.signature("GET", target.trim_end_matches("&x=1"), "")),
        ("a content type", app.signature("GET", &target, "application/json")),
        ("the gRPC method behind it", app.signature("POST", "/supos.auth.v281.AuthService/GetUsername", GRPC)),
    ] {
        let reply = world.get(Op::Username, &target, &Who::authorization(&other)).await;
        assert_eq!(reply.check_refusal(Case::Caller), Ok(()), "{what}");
    }
    let with_a_header = Who::authorization(&right).and(Who::headers(vec![("x-mc-anything", "1".to_owned())]));
    world.get(Op::Username, &target, &with_a_header).await.refused(Case::Caller);

    // Two paths of one operation are two requests.
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let signature = app.signature("POST", Op::TokenV2.path(), "application/json");
    let redeem = Call { who: Who::authorization(&signature), ..exchange(Op::TokenV2, &app, &code) };
    world.call(Via::Envoy, &redeem.clone().at_path(1)).await.refused(Case::Caller);
    world.call(Via::Envoy, &redeem).await.ok();
}

#[tokio::test]
async fn a18_a_signature_is_lower_case_hexadecimal_digits_after_the_last_hyphen() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    let call = valid(&tokens.access);
    let target = call.op.path().replace("{accessToken}", &encode(&tokens.access));
    let spellings: [(bool, Spelling); 17] = [
        (true, |ak, signature| format!("Sign {ak}-{signature}")),
        (true, |ak, signature| format!("sign {ak}-{signature}")),
        (true, |ak, signature| format!("SIGN   {ak}-{signature}")),
        (false, |ak, signature| format!("Sign {ak}-{}", signature.to_ascii_uppercase())),
        (false, |ak, signature| format!("Sign {ak}-{}", &signature[..62])),
        (false, |ak, signature| format!("Sign {ak}-{}", &signature[..63])),
        (false, |ak, signature| format!("Sign {ak}-{signature}00")),
        (false, |ak, signature| format!("Sign {ak}-0x{signature}")),
        (false, |ak, signature| format!("Sign {ak}-{signature}-")),
        (false, |ak, signature| format!("Sign {ak} - {signature}")),
        (false, |ak, signature| format!("Sign {ak}{signature}")),
        (false, |ak, signature| format!("Sign {ak}:{signature}")),
        (false, |ak, signature| format!("Sign {signature}-{ak}")),
        (false, |_, signature| format!("Sign -{signature}")),
        (false, |_, signature| format!("Sign {signature}")),
        (false, |ak, signature| format!("Sign\t{ak}-{signature}")),
        (false, |ak, signature| format!("{ak}-{signature}")),
    ];
    for (good, spell) in spellings {
        for via in Via::BOTH {
            let headers = fresh(&world);
            let right = match via {
                Via::Envoy => app.signature("GET", &target, ""),
                Via::Native => native_signature(&app, VALIDATE, &headers),
            };
            let (_, signature) = right.rsplit_once('-').expect("a hyphen");
            let shown = spell(&app.id, signature);
            let headers = if via == Via::Native { headers } else { Vec::new() };
            let reply = world.call(via, &call.clone().by(Who::authorization(&shown)).by(Who::headers(headers))).await;
            if good {
                assert!(reply.valid(), "{shown}");
            } else {
                assert_eq!(reply.check_refusal(Case::Caller), Ok(()), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn a18_over_grpc_a_signature_has_a_date_and_a_nonce_and_works_once() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    let call = valid(&tokens.access);
    let nonce = || (NONCE, unique("nonce"));
    for seconds in [0, -240, 240] {
        let who = natively(&app, vec![(DATE, date(&world, seconds)), nonce()]);
        assert!(world.call(Via::Native, &call.clone().by(who.clone())).await.valid());
        world.call(Via::Native, &call.clone().by(who)).await.refused(Case::Caller);
    }
    let now = date(&world, 0);
    for (what, headers) in [
        ("no nonce", vec![(DATE, now.clone())]),
        ("an empty nonce", vec![(DATE, now.clone()), (NONCE, String::new())]),
        ("no date", vec![nonce()]),
        ("nothing", vec![]),
        ("a date that has passed", vec![(DATE, date(&world, -360)), nonce()]),
        ("a date that is to come", vec![(DATE, date(&world, 360)), nonce()]),
        ("a date in small letters", vec![(DATE, now.to_ascii_lowercase()), nonce()]),
        ("a date of another time zone", vec![(DATE, now.replace('Z', "+0000")), nonce()]),
        ("seconds", vec![(DATE, world.now().to_string()), nonce()]),
        ("no date at all", vec![(DATE, "now".to_owned()), nonce()]),
    ] {
        let reply = world.call(Via::Native, &call.clone().by(natively(&app, headers))).await;
        assert_eq!(reply.check_refusal(Case::Caller), Ok(()), "{what}");
    }
    for (what, signature) in [
        ("another nonce", native_signature(&app, VALIDATE, &fresh(&world))),
        (
            "another method",
            native_signature(&app, "/supos.auth.v281.AuthService/GetUsername", &vec![(DATE, now.clone()), (NONCE, "n".into())]),
        ),
        ("the request over HTTP", app.signature("GET", &call.op.path().replace("{accessToken}", &encode(&tokens.access)), "")),
    ] {
        let who = Who::authorization(&signature).and(Who::headers(vec![(DATE, now.clone()), (NONCE, "n".to_owned())]));
        let reply = world.call(Via::Native, &call.clone().by(who)).await;
        assert_eq!(reply.check_refusal(Case::Caller), Ok(()), "{what}");
    }
    let twice = natively(&app, fresh(&world)).and(Who::headers(vec![nonce()]));
    world.call(Via::Native, &call.by(twice)).await.refused(Case::Parameter);
}

#[tokio::test]
async fn a18_a_signature_that_was_used_stays_so_when_the_service_is_killed_or_the_clock_set_back() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, _, _, tokens) = world.family().await;
    let used = valid(&tokens.access).by(natively(&app, fresh(&world)));
    assert!(world.call(Via::Native, &used).await.valid());
    world.restart(Pair::kill);
    world.call(Via::Native, &used).await.refused(Case::Caller);
    world.step(590);
    // It is taken no more by then, and is not forgotten yet.
    assert!(world.is_valid(&app, &tokens.access).await);
    world.step(-590);
    world.call(Via::Native, &used).await.refused(Case::Caller);
}
