//! Reading and canonicalisation, against cases that were made elsewhere and against whatever comes to mind.

use proptest::{prelude::*, sample::select};

use super::*;

#[path = "../../tests/vectors/sign.rs"]
mod vectors;

const TOKEN_V281: &str = "/open-api/supos/auth/v2/code/accessToken";
const USERNAME: &str = "/open-api/supos/auth/v2/username";

fn canonical(method: &str, target: &str, content_type: &str, headers: &[(&str, &str)]) -> Result<Canonical, Error> {
    Canonical::of_request(&Request { method, target, content_type, headers })
}

fn get(path: &str, query: &str) -> Result<String, Error> {
    canonical("GET", &format!("{path}?{query}"), "", &[]).map(|canonical| canonical.text(Form::Usual).to_string())
}

fn line_of(query: &str) -> Result<String, Error> {
    get(USERNAME, query).map(|text| text.split('\n').nth(3).unwrap().to_owned())
}

#[test]
fn every_worked_case_comes_out_byte_for_byte() {
    let vectors = vectors::vectors();
    assert!(vectors.len() >= 13);
    for vector in vectors {
        let target = vector.target();
        let headers: Vec<(&str, &str)> = vector.x_mc_headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let canonical = canonical(&vector.method, &target, &vector.content_type, &headers).unwrap();
        let form = [Form::Usual, Form::App].into_iter().find(|form| **canonical.text(*form) == *vector.canonical);
        let form = form.unwrap_or_else(|| panic!("{}: {:?}", vector.name, canonical.text(Form::Usual)));
        let signature = canonical.signature(&Secret::new(vector.sk), form);
        assert_eq!(format!("Sign {}-{signature}", vector.ak), vector.authorization, "{}", vector.name);
    }
}

#[test]
fn the_line_of_a_query_has_lower_case_names_in_order_and_decoded_values() {
    for (query, line) in [
        ("", ""),
        ("&&", ""),
        ("b=2&a=1", "a=1&b=2"),
        ("B=2&a=1", "a=1&b=2"),
        ("z=1&Z=2&z=3", "z=3"),
        ("a", "a="),
        ("a=", "a="),
        ("=a", "=a"),
        ("a=b=c", "a=b=c"),
        ("a=+%2B%20", "a= + "),
        ("%61=%E5%BC%A0", "a=张"),
        ("Ä=1&ä=2", "Ä=1&ä=2"),
        ("a.b=1&a=2&a-b=3&a_b=4", "a=2&a-b=3&a.b=1&a_b=4"),
        ("n=a%26b%3Dc", "n=a&b=c"),
        ("access_token=x", "access_token=x"),
    ] {
        assert_eq!(line_of(query).as_deref(), Ok(line), "{query}");
    }
}

#[test]
fn what_could_be_another_request_is_refused_with_the_name_of_the_parameter() {
    let refused = |error: Result<String, Error>| match error {
        Err(Error::Parameter { name, problem }) => (name, problem),
        other => panic!("it is taken: {other:?}"),
    };
    for (query, name, problem) in [
        ("x=%0A", "query", Problem::Malformed),
        ("x%0A=1", "query", Problem::Malformed),
        ("x=%7F", "query", Problem::Malformed),
        ("x=%C2%85", "query", Problem::Malformed),
        ("accessToken=a%00", "accessToken", Problem::Malformed),
        ("a%26b=1", "query", Problem::Ambiguous),
        ("a%3Db=1", "query", Problem::Ambiguous),
        ("a%3D=1", "query", Problem::Ambiguous),
        ("ACCESSTOKEN=1", "accessToken", Problem::Ambiguous),
        ("Access_Token=1", "accessToken", Problem::Ambiguous),
        // The line of `a=1&accesstoken=T`.
        ("a=1%26accesstoken%3DT", "query", Problem::Ambiguous),
        ("a=1%26access_token%3DT", "query", Problem::Ambiguous),
        ("a=1%26accesstoken%3DT&b=2", "query", Problem::Ambiguous),
        // The line of `a=1&accesstoken=X%26accesstoken%3DT`, and that of `a=1&accesstoken=T%26aa%3D2`.
        ("a=1%26accesstoken%3DX&accessToken=T", "query", Problem::Ambiguous),
        ("a=1%26accesstoken%3DT&aa=2", "query", Problem::Ambiguous),
        ("x=%zz", "query", Problem::Malformed),
        ("x=%ff", "query", Problem::Malformed),
    ] {
        assert_eq!(refused(line_of(query)), (name.to_owned(), problem), "{query}");
    }
    // `granttype` sorts after `code`, and before nothing else that is there.
    assert_eq!(refused(get(TOKEN_V281, "appid=a&code=C%26granttype%3Dx")), ("code".into(), Problem::Ambiguous));
    assert_eq!(refused(get(TOKEN_V281, "appid=a%26code%3DC&grantType=x")), ("appid".into(), Problem::Ambiguous));
    // The line of `appid=a&grantType=x%26code%3DC%26granttype%3Dy`, and that of `code=C%26zz%3D1&grantType=x`.
    assert_eq!(refused(get(TOKEN_V281, "appid=a%26granttype%3Dx&code=C&grantType=y")), ("appid".into(), Problem::Ambiguous));
    assert_eq!(refused(get(TOKEN_V281, "code=C&zz=1%26granttype%3Dx")), ("query".into(), Problem::Ambiguous));
}

#[test]
fn an_ampersand_that_hides_nothing_passes() {
    for query in [
        "accessToken=a%26b%3Dc",
        "b=1%26accesstoken%3DT",
        "accessToken=a%26accesstoken%3Db",
        "a=1%26Accesstoken%3DT",
        "a=accesstoken%3DT",
        "a=1%26accesstokens%3DT",
    ] {
        assert!(line_of(query).is_ok(), "{query}");
    }
    // `appid` sorts before `logouturi`, so no request has this line with `appid` behind it.
    assert!(get(TOKEN_V281, "code=C&logoutUri=http%3A%2F%2Fa%2F%3Fx%26appid%3D1").is_ok());
}

#[test]
fn headers_are_signed_whatever_their_case_and_a_second_or_ambiguous_one_is_refused() {
    let with = |headers: &[(&str, &str)]| canonical("GET", USERNAME, "", headers).map(|it| it.text(Form::App).to_string());
    assert_eq!(
        with(&[("X-MC-Type", "b c"), ("accept", "x"), ("x-Mc-Date", "张:,"), ("xmc", "y")]).unwrap().lines().last(),
        Some("x-mc-date:张:,;x-mc-type:b c")
    );
    for headers in [&[("X-MC-A", "1"), ("x-mc-a", "1")][..], &[("X-MC-A", "1;x-mc-b:2")], &[("X-MC-A", "1\t2")], &[("X-MC-A", "\u{85}")]] {
        assert!(matches!(with(headers), Err(Error::Parameter { .. })), "{headers:?}");
    }
    let not_text = [("x-mc-a", &b"\xff"[..])];
    assert!(Canonical::new(None, "GET", USERNAME, "", &Query::default(), not_text).is_err());
    assert!(canonical("GET", USERNAME, "application/json,text/plain", &[]).is_err(), "two content types");
}

#[test]
fn what_is_shown_holds_no_secret_is_one_line_and_no_longer_than_2_kib() {
    let token = "eyJ0eXAi.eyJpc3Mi.c2ln";
    let path = format!("/open-api/supos/auth/v2/{token}/valid");
    let shown = canonical("GET", &path, "a\tb\\c", &[("X-MC-Type", "openAPI")]).unwrap().masked();
    assert_eq!(shown, format!("GET\\n/open-api/supos/auth/v2/{}/valid\\na\\tb\\\\c\\n\\nx-mc-type:openAPI\\n", fingerprint(token)));
    let query =
        "grantType=authorization_code&code=SECRET1&refresh_token=SECRET2&state=SECRET3&accessToken=SECRET4&x=shown&password=SECRET5";
    let shown = canonical("GET", &format!("{TOKEN_V281}?{query}"), "", &[]).unwrap().masked();
    assert!(!shown.contains("SECRET") && shown.contains("&x=shown"), "{shown}");
    assert!(shown.contains(&format!("code={}", fingerprint("SECRET1"))), "{shown}");
    // printf SECRET1 | sha256sum
    assert_eq!(fingerprint("SECRET1").len(), "sha256:".len() + 16 + ":7".len());
    let long = format!("{USERNAME}?x={}", "张".repeat(3000));
    let shown = canonical("GET", &long, "", &[]).unwrap().masked();
    assert!((MAX_SHOWN - 3..=MAX_SHOWN).contains(&shown.len()) && !shown.contains('\n'));
    assert!(!format!("{:?}", canonical("GET", &path, "", &[]).unwrap()).contains(token));
}

#[test]
fn a_date_reads_back_and_only_in_its_one_form() {
    let now = Timestamp::from_millis(1_795_316_645_000);
    assert_eq!(date(now), "20261122T030405Z");
    assert_eq!(read_date("20261122T030405Z"), Some(now));
    assert_eq!(read_date("20240229T235959Z"), Some(Timestamp::from_millis(1_709_251_199_000)));
    for wrong in [
        "",
        "20261122T030405",
        "20261122T030405z",
        "20261122t030405Z",
        "2026-11-22T03:04:05Z",
        "20261122T030405+0800Z",
        "20261322T030405Z",
        "20260229T030405Z",
        "20261122T240405Z",
        "20261122T030460Z",
        "19691231T235959Z",
        " 20261122T03040Z",
        "+2261122T030405Z",
        "２0261122T0304Z",
        "1795316645",
    ] {
        assert_eq!(read_date(wrong), None, "{wrong}");
    }
}

/// Names and values that meet all rules but that of hidden parameters.
fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = "[a-zA-Z0-9_.~ é张+%;/-]{0,6}";
    proptest::collection::vec((name, "[^\\p{Cc}]{0,8}"), 0..6)
}

fn encoded(pairs: &[(String, String)]) -> String {
    url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

proptest! {
    #[test]
    fn any_target_and_header_is_read_or_refused(method in "[A-Za-z]{0,6}", target in ".*", content_type in ".*", name in ".{0,9}", value in ".*") {
        let header = (format!("X-MC-{name}"), value);
        let _ = canonical(&method, &target, &content_type, &[(header.0.as_str(), header.1.as_str())]).map(|it| it.masked());
    }

    #[test]
    fn the_order_of_different_names_does_not_matter(pairs in pairs(), seed in any::<prop::sample::Index>()) {
        let mut unique = pairs;
        unique.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        unique.dedup_by_key(|(name, _)| name.to_ascii_lowercase());
        let mut turned = unique.clone();
        if !turned.is_empty() {
            let middle = seed.index(turned.len());
            turned.rotate_left(middle);
        }
        prop_assert_eq!(line_of(&encoded(&unique)), line_of(&encoded(&turned)));
    }

    #[test]
    fn every_way_to_write_a_value_has_one_line(value in "[^\\p{Cc}]{0,12}") {
        let percent = value.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<String>>().concat();
        let lower = percent.to_ascii_lowercase();
        let plus = encoded(&[("x".to_owned(), value)]);
        let line = line_of(&plus);
        prop_assert_eq!(&line, &line_of(&format!("x={percent}")));
        prop_assert_eq!(&line, &line_of(&format!("&x={lower}&")));
    }
}

proptest! {
    // One pair in a thousand shows what is missing.
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn two_requests_of_one_text_have_the_same_parameters(
        pieces in proptest::collection::vec((select(&PIECES[..]), "[x=]{0,2}"), 1..8), cuts in any::<[[bool; 8]; 2]>(),
    ) {
        let text: Vec<String> = pieces.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let text = text.join("&");
        let [one, other] = cuts.map(|cuts| read_as(&text, cuts));
        let has_text = |query: &str| get(TOKEN_V281, query).is_ok_and(|signed| signed.split('\n').nth(3) == Some(text.as_str()));
        if has_text(&one) && has_text(&other) {
            prop_assert_eq!(parameters(&one), parameters(&other), "{} and {}", one, other);
        }
    }
}

/// What the line of a query is made of: parameters of operation 5, and names that it does not know, before, between and after them.
const PIECES: [&str; 10] = ["a", "appid", "b", "code", "d", "grant_type", "granttype", "logout_uri", "logouturi", "z"];

/// The query that has this text as its line when only some of the `&` are between two names, and the others part of a value.
fn read_as(text: &str, cuts: [bool; 8]) -> String {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for (piece, cut) in text.split('&').zip(cuts) {
        match pairs.last_mut().filter(|_| !cut) {
            Some((_, value)) => value.extend(["&", piece]),
            None => {
                let (name, value) = piece.split_once('=').unwrap();
                let name = Operation::of_http("GET", TOKEN_V281)
                    .and_then(|operation| operation.parameter(name).filter(|_| !name.contains('_')))
                    .unwrap_or(name);
                pairs.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    encoded(&pairs)
}

/// The parameters that an operation finds in a query, and how their values begin: a name that it does not know may end a value, which an
/// honest `&` in one cannot be told from.
fn parameters(query: &str) -> Vec<(String, String)> {
    let operation = Operation::of_http("GET", TOKEN_V281).unwrap();
    let query = Query::read(query).unwrap();
    let known = query.iter().filter(|(name, _)| operation.parameter(name).is_some());
    known.map(|(name, value)| (name.to_owned(), value.split('&').next().unwrap_or_default().to_owned())).collect()
}
