//! How parameters are read from queries and JSON bodies: what is ignored, what is ambiguous, what is malformed.

use serde_json::{Value, json};

use crate::harness::{App, Call, Case, Op, Reply, Status, Tokens, User, Via, Who, World, authorize, exchange, spelt, valid, world::query};

/// A good HTTP call of an operation that takes a query: its path, its query and its caller.
struct QueryCall {
    op: Op,
    call: Call,
}

impl QueryCall {
    async fn send(&self, world: &World, extra: &str) -> Reply {
        let target = format!("{}?{}{extra}", self.op.path(), query(&self.call.parameters));
        world.get(self.op, &target, &self.call.who).await
    }
}

struct Parties {
    app: App,
    user: User,
    ticket: String,
    tokens: Tokens,
}

impl Parties {
    async fn new(world: &World) -> Self {
        let (app, user, ticket, tokens) = world.family().await;
        Self { app, user, ticket, tokens }
    }

    async fn query_calls(&self, world: &World) -> Vec<QueryCall> {
        let code = world.code(&self.app, Who::ticket(&self.ticket)).await;
        [
            authorize(Op::AuthorizeV281, &self.app).by(Who::ticket(&self.ticket)),
            exchange(Op::ExchangeV281, &self.app, &code),
            Call::new(Op::RefreshV281).with("refreshToken", &self.tokens.refresh).by(self.app.who()),
            Call::new(Op::Username).with("accessToken", &self.tokens.access).by(self.app.who()),
            authorize(Op::Authorize, &self.app).by(Who::ticket(&self.ticket)),
            Call::new(Op::SignOutV281).with("accessToken", &self.tokens.access).by(self.app.who()),
        ]
        .map(|call| QueryCall { op: call.op, call })
        .into()
    }

    async fn body_calls(&self, world: &World) -> Vec<Call> {
        let code = world.code(&self.app, Who::ticket(&self.ticket)).await;
        vec![
            exchange(Op::TokenV2, &self.app, &code),
            exchange(Op::TokenV1, &self.app, &world.code(&self.app, Who::ticket(&self.ticket)).await),
            Call::new(Op::SignIn).with("userName", &self.user.name).with("password", &self.user.password),
        ]
    }
}

/// The name as deployed clients misspell it: snake case, capitals, an underscore where none should be.
fn spellings(name: &str) -> Vec<String> {
    let snake: String =
        name.chars().flat_map(|c| if c.is_ascii_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] }).collect();
    vec![name.to_owned(), snake, name.to_ascii_uppercase(), name.to_ascii_lowercase(), format!("_{name}")]
}

#[tokio::test]
async fn unknown_parameters_are_ignored_in_queries() {
    let world = World::shared().await;
    for call in Parties::new(&world).await.query_calls(&world).await {
        let extra = "&unknown=1&unknown=2&_t=1700000000&x[]=%2B&=nameless&lonely&&nested.name=y";
        call.send(&world, extra).await.ok();
    }
}

#[tokio::test]
async fn unknown_fields_are_ignored_in_json() {
    let world = World::shared().await;
    for call in Parties::new(&world).await.body_calls(&world).await {
        let mut body = call.json();
        body["unknown"] = json!({"deep": [1, 2.5, null, {"code": "not the code"}], "grantType": true});
        body["x"] = json!([[[]]]);
        body["nothing"] = Value::Null;
        // In another case it is another name.
        body["RefreshToken"] = json!(5);
        body["json"] = json!({"content_type": "application/json", "data": "e30="});
        let target = format!("{}?unknown=1&unknown=2", call.op.path());
        world.post(call.op, &target, body.to_string(), &call.who).await.ok();
    }
}

#[tokio::test]
async fn a_known_parameter_given_twice_is_refused_in_queries_however_it_is_spelt() {
    let world = World::shared().await;
    let parties = Parties::new(&world).await;
    for call in parties.query_calls(&world).await {
        let optional = if call.op == Op::ExchangeV281 { vec![] } else { vec![("scope", "one".to_owned()), ("scope", "two".to_owned())] };
        for (name, value) in &call.call.parameters {
            for spelling in spellings(name) {
                for value in [value.as_str(), "", "another"] {
                    let reply = call.send(&world, &format!("&{}", query(&[(&spelling, value.to_owned())]))).await;
                    reply.refused(Case::Parameter);
                    reply.echoes_nothing_of(&call.call);
                }
            }
            // Encoded, it is the same name.
            let encoded = spelt(name, |byte| format!("%{byte:02x}"));
            call.send(&world, &format!("&{encoded}=x")).await.refused(Case::Parameter);
        }
        if Op::AUTHORIZES.contains(&call.op) {
            call.send(&world, &format!("&{}", query(&optional))).await.refused(Case::Parameter);
        }
    }
    assert!(world.is_valid(&parties.app, &parties.tokens.access).await, "a refused call had an effect");
}

#[tokio::test]
async fn a_known_field_given_twice_is_refused_in_json_however_it_is_spelt() {
    let world = World::shared().await;
    for call in Parties::new(&world).await.body_calls(&world).await {
        let body = call.json().to_string();
        for (name, value) in &call.parameters {
            for spelling in spellings(name) {
                for value in [json!(value), json!(""), json!("another"), Value::Null] {
                    let twice = format!("{},{}:{value}}}", body.strip_suffix('}').expect("an object"), json!(spelling));
                    let reply = world.post(call.op, call.op.path(), twice, &call.who).await;
                    reply.refused(Case::Parameter);
                    reply.echoes_nothing_of(&call);
                }
            }
            let escaped = spelt(name, |byte| format!("\\u{byte:04x}"));
            let twice = format!("{},\"{escaped}\":\"x\"}}", body.strip_suffix('}').expect("an object"));
            world.post(call.op, call.op.path(), twice, &call.who).await.refused(Case::Parameter);
        }
        world.post(call.op, call.op.path(), body, &call.who).await.ok();
    }
}

#[tokio::test]
async fn a_query_parameter_that_a_json_operation_knows_is_refused() {
    let world = World::shared().await;
    for call in Parties::new(&world).await.body_calls(&world).await {
        for (name, value) in &call.parameters {
            for spelling in spellings(name) {
                for value in [value.as_str(), ""] {
                    let target = format!("{}?{}", call.op.path(), query(&[(&spelling, value.to_owned())]));
                    let reply = world.post(call.op, &target, call.json().to_string(), &call.who).await;
                    reply.refused(Case::Parameter);
                    let without = call.clone().but(name, None).json().to_string();
                    world.post(call.op, &target, without, &call.who).await.refused(Case::Parameter);
                }
            }
        }
        world.call(Via::Envoy, &call).await.ok();
    }
}

#[tokio::test]
async fn a_query_is_read_as_a_form_is() {
    let world = World::shared().await;
    let parties = Parties::new(&world).await;
    let who = Who::ticket(&parties.ticket);
    for op in Op::AUTHORIZES {
        let base = format!("{}?responseType=code&appid={}&redirectUri={}", op.path(), parties.app.id, parties.app.redirect);
        for (raw, expected) in [
            ("a+b", "a b"),
            ("a%20b%2Bc", "a b+c"),
            ("a=b==", "a=b=="),
            ("%E4%BD%A0%e5%a5%bd", "你好"),
            ("a;b", "a;b"),
            ("a?b/c:d@e", "a?b/c:d@e"),
            ("%26x%3Dy", "&x=y"),
        ] {
            let reply = world.get(op, &format!("{base}&state={raw}"), &who).await;
            reply.ok();
            let location = url::Url::parse(reply.header("location").expect("a location")).expect("a URL");
            let state = location.query_pairs().find(|(name, _)| name == "state").map(|(_, value)| value.into_owned());
            assert_eq!(state.as_deref(), Some(expected), "state={raw}");
        }
        world.get(op, &format!("{base}&&&state=x&"), &who).await.ok();
        world
            .get(
                op,
                &format!("{}?%72esponseType=code&app%69d={}&redirectUri={}&state=x", op.path(), parties.app.id, parties.app.redirect),
                &who,
            )
            .await
            .ok();
    }
}

#[tokio::test]
async fn a_query_that_is_no_text_is_refused_and_so_is_a_name() {
    let world = World::shared().await;
    let parties = Parties::new(&world).await;
    for bad in ["%", "%z", "%zz", "%4", "%ff", "%C3%28", "%ED%A0%80", "%F8%88%80%80%80", "%C0%AF"] {
        for call in parties.query_calls(&world).await {
            call.send(&world, &format!("&unknown={bad}")).await.refused(Case::Parameter);
            call.send(&world, &format!("&{bad}=unknown")).await.refused(Case::Parameter);
            let (name, value) = &call.call.parameters[0];
            let spoilt = Call { parameters: call.call.parameters[1..].to_vec(), ..call.call.clone() };
            let first = if spoilt.parameters.is_empty() { "?" } else { "&" };
            let target = format!("{}?{}", call.op.path(), query(&spoilt.parameters)).trim_end_matches('?').to_owned();
            world.get(call.op, &format!("{target}{first}{name}={value}{bad}"), &call.call.who).await.refused(Case::Parameter);
        }
        for call in parties.body_calls(&world).await {
            let target = format!("{}?unknown={bad}", call.op.path());
            world.post(call.op, &target, call.json().to_string(), &call.who).await.refused(Case::Parameter);
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused_and_not_quoted() {
    let world = World::shared().await;
    let secret = "a-secret-that-must-not-come-back";
    // Instead of the body.
    let bodies: Vec<Vec<u8>> = vec![
        b" \n".to_vec(),
        b"null".to_vec(),
        b"true".to_vec(),
        b"7".to_vec(),
        format!("\"{secret}\"").into_bytes(),
        format!("[\"{secret}\"]").into_bytes(),
        format!("[{{\"userName\":\"{secret}\"}}]").into_bytes(),
        format!("userName={secret}&password={secret}&grantType={secret}").into_bytes(),
        b"\xef\xbb\xbf{}".to_vec(),
    ];
    // Behind the last field of a body that is whole without it.
    let ends: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        format!("}} {secret}").into_bytes(),
        b"}{}".to_vec(),
        format!(",'unknown':'{secret}'}}").into_bytes(),
        format!(",unknown:\"{secret}\"}}").into_bytes(),
        b",}".to_vec(),
        format!(",\"unknown\":\"{secret}\n\"}}").into_bytes(),
        format!(",\"unknown\":\"{secret}\\x\"}}").into_bytes(),
        [format!(",\"unknown\":\"{secret}").into_bytes(), b"\xff\"}".to_vec()].concat(),
        b",\"unknown\":\"\xc0\xaf\"}".to_vec(),
        b",\"unknown\":1e}".to_vec(),
        b",\"unknown\":NaN}".to_vec(),
        b",\"unknown\":01}".to_vec(),
    ];
    for call in Parties::new(&world).await.body_calls(&world).await {
        let whole = open(&call);
        let (name, _) = call.parameters[0];
        let half = format!("{},\"{name}\":\"{secret}\\ud800\"}}", open(&call.clone().but(name, None)));
        let ended = ends.iter().map(|end| [whole.as_bytes(), end].concat());
        for body in bodies.iter().cloned().chain(ended).chain([half.into_bytes()]) {
            let reply = world.post(call.op, call.op.path(), body.clone(), &call.who).await;
            assert!(reply.check_refusal(Case::Parameter).is_ok(), "{}: {:?} {}", String::from_utf8_lossy(&body), reply.status, reply.text);
            reply.names("body");
            assert!(!reply.text.contains(secret), "{}", reply.text);
        }
        // None is as one without fields.
        world.post(call.op, call.op.path(), "", &call.who).await.refused(Case::Parameter);
        // The same call is good with a good body: it was the body that was refused.
        world.call(Via::Envoy, &call).await.ok();
    }
}

/// The body of a call, up to its last field.
fn open(call: &Call) -> String {
    let body = call.json().to_string();
    body.strip_suffix('}').expect("an object").to_owned()
}

#[tokio::test]
async fn a_known_field_that_is_no_text_is_refused() {
    let world = World::shared().await;
    for call in Parties::new(&world).await.body_calls(&world).await {
        for (name, _) in &call.parameters {
            for value in [json!(7), json!(1.5), json!(true), Value::Null, json!([]), json!(["x"]), json!({}), json!({"value": "x"})] {
                let mut body = call.json();
                body[*name] = value;
                let reply = world.post(call.op, call.op.path(), body.to_string(), &call.who).await;
                reply.refused(Case::Parameter);
                reply.names(name);
            }
        }
    }
}

#[tokio::test]
async fn json_within_json_within_json_is_refused_or_passed_over_and_brings_nobody_down() {
    let world = World::shared().await;
    for call in Parties::new(&world).await.body_calls(&world).await {
        let whole = open(&call);
        let (name, _) = call.parameters[0];
        let without = open(&call.clone().but(name, None));
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for depth in [200, 10_000] {
                let (nested, closed) = (open.repeat(depth), close.repeat(depth));
                for body in [
                    format!("{whole},\"unknown\":{nested}"),
                    format!("{whole},\"unknown\":{nested}0{closed}"),
                    format!("{without},\"{name}\":{nested}0{closed}}}"),
                    format!("[{nested}0{closed}]"),
                    nested.clone(),
                ] {
                    let reply = world.post(call.op, call.op.path(), body, &call.who).await;
                    reply.refused(Case::Parameter);
                    reply.names("body");
                }
            }
        }
        let (nested, closed) = ("{\"a\":".repeat(10_000), "}".repeat(10_000));
        let body = format!("{whole},\"unknown\":{nested}0{closed}}}");
        world.post(call.op, call.op.path(), body, &call.who).await.ok();
    }
}

#[tokio::test]
async fn the_longest_honest_values_pass() {
    let world = World::shared().await;
    let parties = Parties::new(&world).await;
    let (state, scope) = ("s".repeat(2048), "w".repeat(1024));
    for via in Via::BOTH {
        for op in Op::AUTHORIZES {
            let call = authorize(op, &parties.app).but("state", Some(&state)).with("scope", &scope).by(Who::ticket(&parties.ticket));
            let code = world.call(via, &call).await.text_of("code");
            world.call(via, &exchange(Op::TokenV2, &parties.app, &code)).await.ok();
        }
    }
    let unknown = "x".repeat(8 * 1024);
    let reply = world.call(Via::Envoy, &valid(&unknown).by(parties.app.who())).await;
    assert_eq!((reply.status, reply.valid()), (Status::Http(200), false));
}

#[tokio::test]
async fn sign_in_takes_names_and_passwords_of_any_letters() {
    let world = World::shared().await;
    let user = world.user_with(|user| user.user_name = "用户 \"ü\" \\ <b>".to_owned()).await;
    for via in Via::BOTH {
        let reply = world.call(via, &Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password)).await;
        assert_eq!(reply.ok()["username"], user.name.as_str());
    }
}
