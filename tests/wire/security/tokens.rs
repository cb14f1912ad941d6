//! Tokens, codes and tickets as values: unguessable, exact, and judged by one function.

use std::collections::{BTreeSet, HashSet};

use crate::harness::{App, Call, Case, Op, Tokens, Via, Who, World, authorize, exchange, refresh, spelt, valid};

/// Checks that an access token of a session or family that has ended is good nowhere.
async fn assert_dead_everywhere(world: &World, app: &App, tokens: &Tokens) {
    for via in Via::BOTH {
        let bearer = Who::bearer(&tokens.access);
        assert!(!world.call(via, &valid(&tokens.access).by(app.who())).await.valid());
        assert!(!world.call(via, &valid(&tokens.access).by(bearer.clone())).await.valid());
        world.call(via, &Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who())).await.refused(Case::Grant);
        world.call(via, &Call::new(Op::Username).with("accessToken", &tokens.access).by(bearer.clone())).await.refused(Case::Caller);
        for op in Op::AUTHORIZES {
            world.call(via, &authorize(op, app).by(bearer.clone())).await.refused(Case::Caller);
        }
        for op in Op::REFRESHES {
            world.call(via, &refresh(op, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
            let by_bearer = world.call(via, &refresh(op, &tokens.refresh).by(bearer.clone())).await;
            by_bearer.refused_as_one_of(&[Case::Grant, Case::Caller]);
        }
    }
}

#[tokio::test]
async fn a36_a_token_that_has_ended_is_good_nowhere_at_once() {
    let world = World::shared().await;
    let app = world.app().await;
    for end in [Op::SignOut, Op::SignOutV281] {
        for via in Via::BOTH {
            let (_, ticket) = world.signed_in().await;
            let tokens = world.tokens(&app, &ticket).await;
            // It was seen to be good, so whatever remembers good signatures knows it.
            for _ in 0..3 {
                assert!(world.is_valid(&app, &tokens.access).await);
            }
            let call = match end {
                Op::SignOut => Call::new(end).by(Who::ticket(&ticket)),
                _ => Call::new(end).with("accessToken", &tokens.access).by(app.who()),
            };
            world.call(via, &call).await.ok();
            assert_dead_everywhere(&world, &app, &tokens).await;
        }
    }
}

#[tokio::test]
async fn a40_codes_tickets_and_refresh_tokens_are_long_and_random() {
    const SAMPLES: usize = 300;
    let world = World::shared().await;
    let (app, (user, ticket)) = (world.app().await, world.signed_in().await);
    let (mut codes, mut refresh_tokens, mut tickets) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..SAMPLES {
        let code = world.code(&app, Who::ticket(&ticket)).await;
        refresh_tokens.push(world.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.tokens().refresh);
        codes.push(code);
        // Each costs the time of a password check.
        if index % 10 == 0 {
            tickets.push(world.sign_in(&user).await);
        }
    }
    for (what, samples) in [("code", &codes), ("refresh token", &refresh_tokens), ("ticket", &tickets)] {
        let distinct: HashSet<&String> = samples.iter().collect();
        assert_eq!(distinct.len(), samples.len(), "{what}: all are different");
        assert!(samples.iter().all(|sample| sample.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))), "{what}");
        // Places that vary, at the 5 bits that a character of any such alphabet has at least where it takes 20 values or more.
        let length = samples.iter().map(String::len).min().expect("samples");
        let wanted = if samples.len() > 100 { 20 } else { 12 };
        let varied = (0..length)
            .filter(|place| samples.iter().map(|sample| sample.as_bytes()[*place]).collect::<BTreeSet<u8>>().len() >= wanted)
            .count();
        let bits = varied * if wanted == 20 { 5 } else { 4 };
        let hexadecimal = samples.iter().all(|sample| sample.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(bits >= 128 || (hexadecimal && length >= 32), "{what}: {varied} of {length} places vary");
        // No two share more than chance allows, in order of issue least of all.
        for pair in samples.windows(2) {
            let same = pair[0].bytes().zip(pair[1].bytes()).filter(|(a, b)| a == b).count();
            assert!(same < length / 2, "{what}: two in a row have {same} of {length} places in common");
        }
    }
}

/// Two hundred values that are nearly the good one.
fn mutations(good: &str) -> Vec<String> {
    let length = good.len();
    let mut mutations = Vec::new();
    for step in 0..60 {
        mutations.push(good[..step * (length - 1) / 60].to_owned());
        mutations.push(good[1 + step * (length - 1) / 60..].to_owned());
    }
    for step in 0..60 {
        let place = step * (length - 1) / 59;
        let mut bytes = good.as_bytes().to_vec();
        bytes[place] = match bytes[place] {
            b'.' => b',',
            letter if letter.is_ascii_lowercase() => letter.to_ascii_uppercase(),
            letter if letter.is_ascii_uppercase() => letter.to_ascii_lowercase(),
            b'9' => b'0',
            digit if digit.is_ascii_digit() => digit + 1,
            _ => b'A',
        };
        mutations.push(String::from_utf8(bytes).expect("ASCII"));
    }
    for tail in ["=", "==", "A", "AA", ".", "-", "%00", "\\0", "/", "?", "#", ";", ",", "'", "\"", "+", "~", "!", "*"] {
        mutations.push(format!("{good}{tail}"));
        mutations.push(format!("{tail}{good}"));
    }
    mutations.extend([
        good.to_ascii_uppercase(),
        good.to_ascii_lowercase(),
        good.chars().rev().collect(),
        good.repeat(2),
        good.replace(['-', '_'], "+"),
    ]);
    mutations.extend([
        good.replace('-', "+").replace('_', "/"),
        format!("{}={}", &good[..4], &good[4..]),
        spelt(good, |byte| format!("{byte:02x}")),
    ]);
    // The last character of base64url has bits to spare: another one may decode to the same bytes.
    let last = good.chars().last().expect("a character");
    let alphabet = ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['-', '_']);
    mutations.extend(alphabet.filter(|other| *other != last).map(|other| format!("{}{other}", &good[..length - 1])));
    mutations.retain(|mutation| mutation != good && !mutation.is_empty());
    mutations
}

/// What only a body, a message or an encoded query can carry.
fn mutations_with_white_space(good: &str) -> Vec<String> {
    let odd = [" ", "\t", "\n", "\r\n", "\0", "\u{a0}", "\u{feff}", "\u{200b}", "é", "．"];
    odd.iter().flat_map(|odd| [format!("{good}{odd}"), format!("{odd}{good}"), format!("{}{odd}{}", &good[..9], &good[9..])]).collect()
}

#[tokio::test]
async fn a41_what_is_nearly_a_token_is_none() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let all = |good: &str| [mutations(good), mutations_with_white_space(good)].concat();

    let near = all(&tokens.access);
    assert!(near.len() >= 200);
    for (index, near) in near.iter().enumerate() {
        let reply = world.call(Via::BOTH[index % 2], &valid(near).by(app.who())).await;
        assert!(!reply.is_ok() || reply.body["valid"] == false, "{near:?}: {}", reply.text);
        let reply = world.call(Via::BOTH[(index + 1) % 2], &Call::new(Op::Username).with("accessToken", near).by(app.who())).await;
        assert!(!reply.is_ok(), "{near:?}: {}", reply.text);
    }
    for (index, near) in mutations(&tokens.access).iter().enumerate() {
        let reply = world.call(Via::BOTH[index % 2], &authorize(Op::Authorize, &app).by(Who::bearer(near))).await;
        assert!(!reply.is_ok(), "Bearer {near:?}: {}", reply.text);
    }
    for (index, near) in all(&code).iter().enumerate() {
        let reply = world.call(Via::BOTH[index % 2], &exchange(Op::EXCHANGES[index % 3], &app, near)).await;
        assert!(!reply.is_ok(), "{near:?}: {}", reply.text);
    }
    for (index, near) in all(&tokens.refresh).iter().enumerate() {
        let reply = world.call(Via::BOTH[index % 2], &refresh(Op::REFRESHES[index % 3], near).by(app.who())).await;
        assert!(!reply.is_ok(), "{near:?}: {}", reply.text);
    }
    // A ";" ends a cookie, and quotes and blanks around it are no part of it: those are the good ticket.
    for (index, near) in mutations(&ticket).iter().filter(|near| !near.contains([';', '"', ' '])).enumerate() {
        let reply = world.call(Via::BOTH[index % 2], &authorize(Op::Authorize, &app).by(Who::ticket(near))).await;
        assert!(!reply.is_ok(), "{near:?}: {}", reply.text);
    }

    assert!(world.is_valid(&app, &tokens.access).await);
    world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.ok();
    world.call(Via::Envoy, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.ok();
    world.call(Via::Envoy, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.ok();
}
