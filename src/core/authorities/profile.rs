//! What authorities say, read strictly: whatever is not as it has to be is an error, with words for the log that hold nothing of it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{MAX_SUBJECT, calls::Reply, composed};
use crate::core::{secret::Secret, users::check_text};

/// The token that came for a code.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) access_token: Secret,
    /// Who has signed in, as the ID token says that came with it. It is not trusted, and has to agree.
    pub(super) id_token_subject: Option<String>,
}

/// Who has signed in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Profile {
    /// Who that is at the authority.
    pub(super) subject: String,
    /// His name there, if a user of ours could have it.
    pub(super) name: Option<String>,
}

// Equal names in one object are refused by these, and types that are not those of the fields.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    token_type: Option<String>,
    id_token: Option<String>,
}

#[derive(Deserialize)]
struct IdToken {
    sub: String,
    aud: Option<Value>,
}

#[derive(Deserialize)]
struct UserAnswer {
    sub: String,
    preferred_username: Option<Value>,
    username: Option<Value>,
    user_name: Option<Value>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// The body of a reply that says that all is well.
fn body<T: DeserializeOwned>(reply: &Reply) -> Result<T, String> {
    let body = reply.body.as_deref().ok_or("its answer is too long, or did not end in time")?;
    if reply.status != 200 {
        // Only a word that could be an OAuth error code: anything else may hold what was sent.
        let is_code = |code: &String| code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let code = serde_json::from_slice::<Refusal>(body).ok().map(|refusal| refusal.error).filter(is_code);
        return Err(format!("it answers {}{}", reply.status, code.map(|code| format!(", {code}")).unwrap_or_default()));
    }
    serde_json::from_slice(body).map_err(|_| "its answer is not the JSON object that it has to be".to_owned())
}

/// Reads the answer of a token call.
pub(super) fn token(reply: &Reply, client_id: &str) -> Result<Token, String> {
    let answer: TokenAnswer = body(reply)?;
    if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("its token is no Bearer token".to_owned());
    }
    // It goes into a header.
    if answer.access_token.is_empty() || !answer.access_token.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return Err("its token is empty, or has characters that no token has".to_owned());
    }
    let id_token_subject = answer.id_token.map(|id_token| id_token_subject(&id_token, client_id)).transpose()?;
    Ok(Token { access_token: Secret::new(answer.access_token), id_token_subject })
}

/// The subject of an ID token. Its signature is not checked, and nothing hangs on it: it came from the authority itself, and the user call
/// says who has signed in.
fn id_token_subject(token: &str, client_id: &str) -> Result<String, String> {
    let parts: Vec<&str> = token.split('.').collect();
    let &[_, claims, _] = parts.as_slice() else { return Err("its ID token is no JWT".to_owned()) };
    let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| "its ID token is no JWT")?;
    let claims: IdToken = serde_json::from_slice(&claims).map_err(|_| "its ID token does not say whose it is")?;
    let is_ours = match claims.aud {
        None => true,
        Some(Value::String(audience)) => audience == client_id,
        Some(Value::Array(audiences)) => audiences.iter().any(|audience| audience == client_id),
        Some(_) => false,
    };
    if is_ours { Ok(claims.sub) } else { Err("its ID token is for somebody else".to_owned()) }
}

/// Reads the answer of a user call.
pub(super) fn profile(reply: &Reply, id_token_subject: Option<&str>) -> Result<Profile, String> {
    let answer: UserAnswer = body(reply)?;
    let subject = answer.sub;
    if subject.is_empty() || subject.len() > MAX_SUBJECT || subject.chars().any(char::is_control) {
        return Err("its `sub` is empty, longer than 256 bytes, or has control characters".to_owned());
    }
    if id_token_subject.is_some_and(|other| other != subject) {
        return Err("its ID token and its answer name different users".to_owned());
    }
    let said = [answer.preferred_username, answer.username, answer.user_name].into_iter().flatten();
    // The first that is there counts, good or not: nobody chooses among several.
    let name = said.map(|name| name.as_str().map(str::to_owned)).find(|name| name.as_deref() != Some(""));
    let name = name.unwrap_or_else(|| Some(subject.clone()));
    Ok(Profile { name: name.and_then(|name| user_name(&name)), subject })
}

/// The name of a user of ours that an authority's user has.
fn user_name(name: &str) -> Option<String> {
    let name = composed(name);
    // Where two mail addresses are read from one name, two sides can read different ones.
    let is_plain = !name.is_empty() && name.matches('@').count() < 2;
    (is_plain && check_text("name", &name).is_ok()).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status, body: Some(body.as_bytes().to_vec()) }
    }

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn a_token_is_read_and_nonsense_is_not() {
        for (good, subject) in [
            (json!({"access_token": "t"}), None),
            (json!({"access_token": "t", "token_type": "bEaReR", "expires_in": "x", "more": {"a": []}}), None),
            (json!({"access_token": "t", "token_type": null, "id_token": null}), None),
            (json!({"access_token": "t", "id_token": jwt(&json!({"sub": "1"}))}), Some("1")),
            (json!({"access_token": "t", "id_token": jwt(&json!({"sub": "1", "aud": "me"}))}), Some("1")),
            (json!({"access_token": "t", "id_token": jwt(&json!({"sub": "1", "aud": ["x", "me"]}))}), Some("1")),
        ] {
            let token = token(&reply(200, &good.to_string()), "me").unwrap();
            assert_eq!((token.access_token.expose(), token.id_token_subject.as_deref()), ("t", subject), "{good}");
        }
        let mut bad: Vec<String> = [
            json!({}),
            json!([]),
            json!("t"),
            json!({"access_token": ""}),
            json!({"access_token": 1}),
            json!({"access_token": null}),
            json!({"access_token": "a b"}),
            json!({"access_token": "a\r\nx: y"}),
            json!({"access_token": "t", "token_type": "mac"}),
            json!({"access_token": "t", "token_type": 1}),
            json!({"access_token": "t", "id_token": "x"}),
            json!({"access_token": "t", "id_token": "a.b.c"}),
            json!({"access_token": "t", "id_token": "a.b.c.d.e"}),
            json!({"access_token": "t", "id_token": jwt(&json!({}))}),
            json!({"access_token": "t", "id_token": jwt(&json!({"sub": 1}))}),
            json!({"access_token": "t", "id_token": jwt(&json!({"sub": "1", "aud": "you"}))}),
            json!({"access_token": "t", "id_token": jwt(&json!({"sub": "1", "aud": []}))}),
            json!({"error": "invalid_grant"}),
        ]
        .map(|bad| bad.to_string())
        .into();
        bad.extend(["", "<html>", "{", r#"{"access_token":"t"} x"#, r#"{"access_token":"t","access_token":"u"}"#].map(str::to_owned));
        bad.extend(["access_token=t".to_owned(), "[".repeat(60_000)]);
        for bad in bad {
            assert!(token(&reply(200, &bad), "me").is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_whole_200_is_an_answer_and_only_the_word_of_an_error_is_logged() {
        let good = json!({"access_token": "t", "sub": "1"}).to_string();
        for status in [201, 204, 301, 302, 307, 400, 401, 403, 404, 429, 500, 503] {
            assert!(token(&reply(status, &good), "me").is_err() && profile(&reply(status, &good), None).is_err(), "{status}");
        }
        assert!(profile(&Reply { status: 200, body: None }, None).is_err());
        let words = |body: &str| token(&reply(400, body), "me").unwrap_err();
        assert_eq!(words(r#"{"error":"invalid_grant","error_description":"secret"}"#), "it answers 400, invalid_grant");
        assert_eq!(words(r#"{"error":"code abc is \n bad"}"#), "it answers 400");
        assert_eq!(words("secret"), "it answers 400");
    }

    #[test]
    fn a_user_is_named_by_the_first_name_that_is_there() {
        let read = |answer: &Value| profile(&reply(200, &answer.to_string()), None).map(|profile| profile.name);
        for (answer, name) in [
            (json!({"sub": "1", "preferred_username": "a", "username": "b", "user_name": "c"}), Some("a")),
            (json!({"sub": "1", "preferred_username": null, "username": "b", "user_name": "c"}), Some("b")),
            (json!({"sub": "1", "preferred_username": "", "user_name": "c"}), Some("c")),
            (json!({"sub": "1", "name": "x", "email": "y"}), Some("1")),
            (json!({"sub": "1", "preferred_username": "Zhang San"}), Some("Zhang San")),
            (json!({"sub": "1", "preferred_username": "u\u{308}"}), Some("\u{fc}")),
            (json!({"sub": "1", "preferred_username": "a@b.c"}), Some("a@b.c")),
            // No user of ours could have these names, and no other one stands for them.
            (json!({"sub": "1", "preferred_username": "a@b@c", "username": "b"}), None),
            (json!({"sub": "1", "preferred_username": "a\u{0}", "username": "b"}), None),
            (json!({"sub": "1", "preferred_username": "x".repeat(129), "username": "b"}), None),
            (json!({"sub": "1", "preferred_username": 1, "username": "b"}), None),
            (json!({"sub": "1", "preferred_username": ["a"]}), None),
        ] {
            assert_eq!(read(&answer), Ok(name.map(str::to_owned)), "{answer}");
        }
    }

    #[test]
    fn a_subject_is_a_text_of_a_decent_length() {
        let read = |body: &str| profile(&reply(200, body), None).map(|profile| profile.subject);
        assert_eq!(read(&json!({"sub": "x".repeat(256)}).to_string()), Ok("x".repeat(256)));
        for bad in [
            json!({}),
            json!({"sub": null}),
            json!({"sub": ""}),
            json!({"sub": 1}),
            json!({"sub": ["1"]}),
            json!({"sub": "a\nb"}),
            json!({"sub": "x".repeat(257)}),
        ] {
            assert!(read(&bad.to_string()).is_err(), "{bad}");
        }
        assert!(read(r#"{"sub":"a","sub":"b"}"#).is_err());
        let answer = reply(200, r#"{"sub":"a"}"#);
        assert!(profile(&answer, Some("a")).is_ok() && profile(&answer, Some("b")).is_err());
    }
}
