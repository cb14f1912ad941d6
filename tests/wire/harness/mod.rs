//! The service and Envoy as real processes, and clients that speak to them.

pub(crate) mod admin;
pub(crate) mod browser;
pub(crate) mod call;
pub(crate) mod clock;
pub(crate) mod native;
pub(crate) mod pair;
pub(crate) mod process;
pub(crate) mod provider;
pub(crate) mod raw;
pub(crate) mod refusal;
pub(crate) mod sign;
pub(crate) mod sink;
pub(crate) mod site;
pub(crate) mod tools;
pub(crate) mod visitor;
pub(crate) mod world;

pub(crate) use call::{Call, Op, Reply, Status, Tokens, Via, Who};
pub(crate) use pair::{Pair, Setup};
pub(crate) use refusal::Case;
pub(crate) use world::{App, User, World, authorize, exchange, refresh, unique, valid};

/// The true time, in seconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "the tests compare the service's clock with the true one")]
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_secs()).expect("it is long before the end of time")
}

/// Whether as many tries were looked at as are free, and no more than have come back since: one each time `every` goes by.
pub(crate) fn is_about(free: usize, looked_at: usize, every: std::time::Duration, since: std::time::Instant) -> bool {
    let come_back = since.elapsed().as_millis() / every.as_millis();
    (free..=free.saturating_add(usize::try_from(come_back).unwrap_or(usize::MAX))).contains(&looked_at)
}

/// A part of a JWT that nobody has checked: 0 is the header, 1 the claims.
pub(crate) fn jwt_part(token: &str, part: usize) -> serde_json::Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let part = token.split('.').nth(part).expect("a JWT has three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("a part of a JWT is base64url")).expect("a part of a JWT is JSON")
}

/// A text with each byte written in another way.
pub(crate) fn spelt(text: &str, spell: impl Fn(u8) -> String) -> String {
    text.bytes().map(spell).collect::<Vec<String>>().concat()
}

/// The token with another signature of the same form.
pub(crate) fn forged(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').expect("a JWT has three parts");
    let first = if signature.starts_with('A') { "B" } else { "A" };
    format!("{signed}.{first}{}", &signature[1..])
}

/// The claims of an access token.
pub(crate) fn claims(token: &str) -> serde_json::Value {
    jwt_part(token, 1)
}
