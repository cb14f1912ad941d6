//! No secret stays where it can be found: in the data, the logs, the metrics, the errors.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use crate::harness::{App, Call, Op, Setup, Via, Who, World, authorize, exchange, raw, refresh, spelt, unique, valid};

/// Finds any of many secrets, as they are and in the usual encodings, in one pass.
struct Scanner {
    /// Needles by their first eight bytes.
    needles: HashMap<[u8; 8], Vec<(String, Vec<u8>)>>,
}

impl Scanner {
    fn new(secrets: &[(&'static str, String)]) -> Self {
        let mut needles: HashMap<[u8; 8], Vec<(String, Vec<u8>)>> = HashMap::new();
        let distinct: HashSet<&(&'static str, String)> = secrets.iter().filter(|(_, secret)| secret.len() >= 8).collect();
        for (kind, secret) in distinct {
            for (encoding, needle) in encodings(secret) {
                if let Some(start) = needle.first_chunk::<8>() {
                    needles.entry(*start).or_default().push((format!("{kind} ({encoding})"), needle));
                }
            }
        }
        Self { needles }
    }

    fn found_in(&self, place: &str, haystack: &[u8]) -> Vec<String> {
        let starts =
            haystack.windows(8).enumerate().filter_map(|(at, start)| Some((at, self.needles.get::<[u8; 8]>(start.try_into().ok()?)?)));
        starts
            .flat_map(|(at, needles)| needles.iter().filter(move |(_, needle)| haystack[at..].starts_with(needle)))
            .map(|(what, _)| format!("{what} in {place}"))
            .collect()
    }
}

fn encodings(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let hex = spelt(secret, |byte| format!("{byte:02x}"));
    let mut encodings = vec![("raw", secret.as_bytes().to_vec()), ("hex", hex.to_uppercase().into_bytes()), ("hex", hex.into_bytes())];
    for (offset, skip) in [(0, 0), (1, 2), (2, 3)] {
        // Base64 of the secret as it looks in the middle of something longer: without the characters that its neighbours share.
        let padded = [vec![0; offset], secret.as_bytes().to_vec()].concat();
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            encodings.push(("base64", encoded.as_bytes()[skip..encoded.len() - 2].to_vec()));
        }
    }
    // A token is base64url already: its parts are secrets on their own, the signature most of all.
    if let Some((_, signature)) = secret.rsplit_once('.').filter(|_| secret.starts_with("eyJ")) {
        encodings.push(("signature", signature.as_bytes().to_vec()));
    }
    encodings
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = folder.read_dir().expect("the folder can be read").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).filter(|path| path.is_file()).collect()
}

/// Calls every operation, well and badly, with secrets in their places and out of them.
async fn be_busy(world: &World) -> Vec<String> {
    let mut errors = Vec::new();
    let app = world.app().await;
    let chosen = App {
        secret: "demo-secret".to_owned(),
        id: "demo-app".to_owned(),
        redirect: "http://127.0.0.1:9999/cb".to_owned(),
        logout: "http://127.0.0.1:9999/logout".to_owned(),
    };
    world.remember([
        ("secret", chosen.secret.clone()),
        ("password", "admin-password".to_owned()),
        ("password", "demo-password".to_owned()),
    ]);
    for via in Via::BOTH {
        let (user, ticket) = world.signed_in().await;
        for (authorize_op, (exchange_op, refresh_op)) in
            Op::AUTHORIZES.into_iter().cycle().zip(Op::EXCHANGES.into_iter().zip(Op::REFRESHES))
        {
            for app in [&app, &chosen] {
                let code = world.call(via, &authorize(authorize_op, app).by(Who::ticket(&ticket))).await.text_of("code");
                let first = world.call(via, &exchange(exchange_op, app, &code)).await.tokens();
                let second = world.call(via, &refresh(refresh_op, &first.refresh).by(app.who())).await.tokens();
                world.call(via, &refresh(refresh_op, &first.refresh).by(Who::bearer(&second.access))).await.ok();
                world.call(via, &valid(&second.access).by(app.who())).await.ok();
                world.call(via, &Call::new(Op::Username).with("accessToken", &second.access).by(Who::ticket(&ticket))).await.ok();
                world.call(via, &Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password)).await.ok();
                errors.extend(
                    misuse(
                        world,
                        via,
                        app,
                        &[code, first.refresh, second.access, ticket.clone(), app.secret.clone(), user.password.clone()],
                    )
                    .await,
                );
            }
        }
        world.call(via, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
    }
    errors
}

/// Shows every secret where it does not belong, and gives the answers.
async fn misuse(world: &World, via: Via, app: &App, secrets: &[String]) -> Vec<String> {
    let mut errors = Vec::new();
    for secret in secrets {
        // An access key each, for the log tells no more than one refused signature of one key in a while.
        let stranger = || App::signing(&unique("stranger"), secret);
        let calls = [
            exchange(Op::TokenV2, app, secret).but("grantType", Some(secret)),
            exchange(Op::ExchangeV281, app, "no-such-code").but("appid", Some(secret)),
            exchange(Op::TokenV1, app, "no-such-code").but("logoutUri", Some(&format!("http://elsewhere.invalid/{secret}"))),
            refresh(Op::RefreshV281, &format!("{secret}x")).by(app.who()),
            authorize(Op::Authorize, app)
                .but("redirectUri", Some(&format!("https://elsewhere.invalid/?x={secret}")))
                .by(Who::ticket(&format!("{secret}x"))),
            authorize(Op::AuthorizeV281, app).but("appid", Some(secret)).but("state", Some(secret)).by(Who::bearer(&format!("{secret}x"))),
            Call::new(Op::Username).with("accessToken", format!("{secret}x")).by(App::signing(secret, secret)),
            Call { who: stranger(), ..exchange(Op::ExchangeV281, app, secret).with("state", secret) },
            refresh(Op::RefreshV281, secret).by(stranger()),
            Call::new(Op::SignOutV281).with("accessToken", secret).by(stranger()),
            valid(secret).by(stranger()),
            valid("x").by(Who::authorization(&format!("Sign {}-{secret}", app.id))),
            Call::new(Op::SignIn).with("userName", secret).with("password", secret),
            valid(&format!("{secret}x")).by(Who::authorization(&format!("Digest {secret}"))),
        ];
        for call in &calls {
            let reply = world.call(via, call).await;
            if !reply.is_ok() {
                errors.push(format!("{} {:?}", reply.text, reply.headers));
            }
        }
    }
    errors
}

/// The same at the public port alone: paths, bodies and headers that Envoy itself refuses.
fn misuse_the_public_port(world: &World, secrets: &[(&'static str, String)]) -> Vec<String> {
    let mut errors = Vec::new();
    for (_, secret) in secrets.iter().step_by(9) {
        let secret: String = secret.replace(' ', "");
        for (method, target) in [
            ("GET", format!("/{secret}")),
            ("HEAD", format!("/open-api/supos/auth/v2/{secret}/valid")),
            ("POST", format!("/open-api/supos/auth/v2/{secret}/valid?x={secret}")),
        ] {
            let referer = format!("referer: https://app.invalid/?code={secret}");
            let agent = format!("user-agent: {secret}\t\"}}{{\" {secret}");
            let type_ = format!("content-type: {secret}/json");
            let answer = raw::request(world.http(), method, &target, &[&referer, &agent, &type_, "content-length: 0"], b"");
            errors.push(answer.text());
        }
    }
    errors
}

#[tokio::test]
async fn h16_no_secret_is_left_in_the_data_the_logs_the_metrics_or_the_errors() {
    let mut world = World::own(Setup::default()).await;
    let mut errors = be_busy(&world).await;
    errors.extend(misuse_the_public_port(&world, &world.secrets()));
    let metrics = raw::request(world.ops(), "GET", "/metrics", &[], b"");
    assert_eq!(metrics.status(), Some(200));
    // What Envoy has not yet written to its log it writes by the time it has served this.
    let last = unique("the-last-request");
    world.http.get(world.url("/oauth2/jwks")).header("x-request-id", &last).send().await.expect("an answer");
    let id = world.http.get(world.url("/oauth2/jwks")).send().await.expect("an answer").headers()["x-request-id"]
        .to_str()
        .expect("an id")
        .to_owned();
    world.envoy_log.wait_for(0, |line| line.contains(&id).then_some(())).expect("Envoy logs every request with its id");
    world.terminate();

    let secrets = world.secrets();
    let kinds: HashSet<&str> = secrets.iter().map(|(kind, _)| *kind).collect();
    for kind in ["accessToken", "refreshToken", "code", "ticket", "password", "secret", "signature", "browser"] {
        assert!(kinds.contains(kind), "no {kind} was handed out");
    }
    let scanner = Scanner::new(&secrets);
    let sentinel = format!("xx{}xx", secrets[0].1);
    assert!(!scanner.found_in("a test of the scanner", sentinel.as_bytes()).is_empty());

    let (service_log, envoy_log) = (world.service_log.since(0), world.envoy_log.since(0));
    assert!(service_log.len() > 50 && envoy_log.len() > 50, "both have logged: {} and {} lines", service_log.len(), envoy_log.len());
    let mut found = scanner.found_in("the service's log", service_log.join("\n").as_bytes());
    found.extend(scanner.found_in("Envoy's log", envoy_log.join("\n").as_bytes()));
    found.extend(scanner.found_in("the metrics", &metrics.0));
    for error in &errors {
        found.extend(scanner.found_in("an answer to an error", error.as_bytes()));
    }
    let data = files(&world.data());
    assert!(!data.is_empty());
    for file in data {
        found.extend(scanner.found_in(&file.display().to_string(), &fs::read(&file).expect("a file of the service's")));
    }
    found.sort();
    found.dedup();
    assert!(found.is_empty(), "{}", found.join("\n"));

    // And one event is one line, whatever the names in it.
    let broken: Vec<&String> = service_log.iter().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_err()).collect();
    assert!(broken.is_empty(), "{broken:?}");
}
