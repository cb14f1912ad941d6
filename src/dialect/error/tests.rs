//! The table as `docs/errors.md` has it, and as it was promised.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use tonic::Code;

use super::*;
use crate::grpc::status::{Reader, status};

/// One example of every cause. A new variant does not compile until it has one.
macro_rules! examples {
    ($of:ident, $type:ty, $($pattern:pat => $example:expr,)*) => {
        fn $of() -> Vec<$type> {
            // Never called: it is here for its `match`, which has no `_` arm.
            let _ = |value: &$type| match value { $($pattern => (),)* };
            let examples = vec![$({
                let example = $example;
                assert!(matches!(example, $pattern), "{example:?} is an example of another variant");
                example
            }),*];
            examples
        }
    };
}

examples! { every_error, Error,
    Error::Parameter { .. } => Error::parameter("PARAMETER", Problem::Missing),
    Error::UnknownApp => Error::UnknownApp,
    Error::NoSingleApp => Error::NoSingleApp,
    Error::RedirectMismatch => Error::RedirectMismatch,
    Error::CodeRefused => Error::CodeRefused,
    Error::CodeReplayed => Error::CodeReplayed,
    Error::RefreshTokenRefused => Error::RefreshTokenRefused,
    Error::RefreshTokenReplayed => Error::RefreshTokenReplayed,
    Error::AccessTokenRefused => Error::AccessTokenRefused,
    Error::CredentialRequired => Error::CredentialRequired,
    Error::CredentialRefused => Error::CredentialRefused,
    Error::NotAllowed => Error::NotAllowed,
    Error::WrongPassword => Error::WrongPassword,
    Error::UserDisabled => Error::UserDisabled,
    Error::PasswordChangeRequired => Error::PasswordChangeRequired,
    Error::NotFound(_) => Error::NotFound("THING"),
    Error::AlreadyExists { .. } => Error::AlreadyExists { name: "FIELD".into() },
    Error::AuthorityExists => Error::AuthorityExists,
    Error::AuthorityOff => Error::AuthorityOff,
    Error::StateRefused => Error::StateRefused,
    Error::AuthorityDenied => Error::AuthorityDenied,
    Error::AuthorityTokenFailed(_) => Error::AuthorityTokenFailed("for the log alone".into()),
    Error::AuthorityUserFailed(_) => Error::AuthorityUserFailed("for the log alone".into()),
    Error::AuthorityUserUnknown => Error::AuthorityUserUnknown,
    Error::Precondition(_) => Error::Precondition("WHY"),
    Error::NotOffered => Error::NotOffered,
    Error::TooManyTries { .. } => Error::TooManyTries { retry_after: Duration::from_secs(1) },
    Error::Busy { .. } => Error::Busy { retry_after: Duration::from_secs(1) },
    Error::StoreUnavailable(_) => Error::StoreUnavailable("for the log alone".into()),
    Error::Timeout => Error::Timeout,
    Error::Internal(_) => Error::Internal("for the log alone".into()),
}

examples! { every_problem, Problem,
    Problem::Missing => Problem::Missing,
    Problem::Twice => Problem::Twice,
    Problem::Malformed => Problem::Malformed,
    Problem::NotAllowed => Problem::NotAllowed,
    Problem::TooLong => Problem::TooLong,
    Problem::TooShort => Problem::TooShort,
    Problem::TooCommon => Problem::TooCommon,
    Problem::Ambiguous => Problem::Ambiguous,
}

/// The HTTP status that Envoy's transcoder makes of a gRPC status.
const fn http(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::ResourceExhausted => 429,
        Code::Cancelled => 499,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::DeadlineExceeded => 504,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    }
}

const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What a caller of one generation sees: the HTTP status, the gRPC status and the number.
type Seen = (u16, Code, u32);

fn seen(error: &Error, dialect: Dialect) -> Seen {
    let over_http = status(error, dialect, Reader::Envoy, Language::English);
    // Envoy's status filter heeds the service's word.
    let said = over_http.metadata().get("x-http-status").map(|status| status.to_str().unwrap().parse().unwrap());
    let row = row_of(error, dialect);
    (said.unwrap_or(http(over_http.code())), row.code, row.number)
}

/// The causes by reason, in the order of the table.
fn by_reason() -> Vec<(&'static str, Vec<Error>)> {
    let mut reasons: Vec<(&'static str, Vec<Error>)> = Vec::new();
    for error in every_error() {
        let reason = row_of(&error, Dialect::Current).reason;
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, errors)) => errors.push(error),
            None => reasons.push((reason, vec![error])),
        }
    }
    reasons
}

fn texts(error: &Error) -> [String; 2] {
    [Language::English, Language::Chinese].map(|language| text_of(error, language))
}

fn cells(error: &Error, dialect: Dialect) -> String {
    let (http, code, number) = seen(error, dialect);
    format!("{http} | `{}` | {number}", name(code))
}

#[test]
fn the_table_is_docs_errors() {
    let mut made = String::from(
        "\n## Reasons\n\n\
         | reason | HTTP | gRPC | `code` | HTTP, 4-9 | gRPC, 4-9 | `code`, 4-9 | English | Chinese |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for (reason, errors) in by_reason() {
        // Causes that share a reason are told alike: what differs is for the log.
        for other in &errors {
            assert_eq!((seen(other, Dialect::Current), texts(other)), (seen(&errors[0], Dialect::Current), texts(&errors[0])), "{reason}");
            assert_eq!(seen(other, Dialect::V281), seen(&errors[0], Dialect::V281), "{reason}");
        }
        assert_eq!(seen(&errors[0], Dialect::Admin), seen(&errors[0], Dialect::Current), "{reason}: the admin API has the current numbers");
        let [english, chinese] = texts(&errors[0]);
        let (current, v281) = (cells(&errors[0], Dialect::Current), cells(&errors[0], Dialect::V281));
        writeln!(made, "| `{reason}` | {current} | {v281} | {english} | {chinese} |").unwrap();
    }
    made.push_str("\n## What can be wrong with a parameter\n\n| English | Chinese |\n|---|---|\n");
    for problem in every_problem() {
        let [english, chinese] = texts(&Error::parameter("PARAMETER", problem));
        writeln!(made, "| {english} | {chinese} |").unwrap();
    }
    made.push_str("\n## What Envoy says by itself\n\n| HTTP | `code` | English | Chinese |\n|---|---|---|---|\n");
    for ((http, number), [english, chinese]) in envoy() {
        let english = english.unwrap();
        writeln!(made, "| {http} | {number} | {english} | {} |", chinese.as_ref().unwrap_or(&english)).unwrap();
    }
    made.push('\n');
    crate::documents::check("docs/errors.md", &made);
}

/// The bodies of `local_reply_config` in Envoy's configuration, by status and number: the English text, and the Chinese one if there is one.
fn envoy() -> BTreeMap<(String, u32), [Option<String>; 2]> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/envoy.yaml");
    let yaml = std::fs::read_to_string(file).unwrap();
    let mappers = yaml.split_once("  mappers:\n").unwrap().1.split_once("# --- Access log").unwrap().0;
    let mut replies: BTreeMap<(String, u32), [Option<String>; 2]> = BTreeMap::new();
    for mapper in mappers.split("- filter:").skip(1) {
        let after = |mark: &str| mapper.split_once(mark).map(|(_, rest)| rest);
        let word = |text: &str| text.chars().take_while(char::is_ascii_alphanumeric).collect::<String>();
        // A status is named where it is first matched, and later on by its anchor.
        let matched = word(after("local_reply.s").or_else(|| after("*s")).unwrap());
        let answered = match matched.as_str() {
            "4xx" => "400 and others".to_owned(),
            "5xx" => "500 and others".to_owned(),
            _ => after("status_code: ").map_or(matched, word),
        };
        let body = after("json_format: { code: ").unwrap();
        let number = word(body).parse().unwrap();
        let text = body.split('"').nth(1).unwrap().to_owned();
        let is_chinese = mapper.contains("*zh") || mapper.contains("&zh");
        replies.entry((answered, number)).or_default()[usize::from(is_chinese)] = Some(text);
    }
    replies
}

/// The numbers that the interface has published, by case: what callers have written programs for. They are written down here once more,
/// so that a change to the table above is seen for what it is.
#[test]
fn the_numbers_are_those_that_were_published() {
    let parameter = [(400, Code::InvalidArgument, 100_106_500), (400, Code::InvalidArgument, 800_003)];
    let token = [(401, Code::Unauthenticated, 100_106_403), (400, Code::InvalidArgument, 800_003)];
    let everywhere = |http, code, number| [(http, code, number); 2];
    let published: [(&[&str], [Seen; 2]); 18] = [
        (&["AUTHORITY_EXISTS"], everywhere(409, Code::AlreadyExists, 100_106_700)),
        (&["AUTHORITY_TOKEN_FAILED"], everywhere(502, Code::Unavailable, 100_106_701)),
        (&["AUTHORITY_USER_FAILED"], everywhere(502, Code::Unavailable, 100_106_702)),
        (&["AUTHORITY_USER_UNKNOWN"], everywhere(403, Code::PermissionDenied, 100_106_703)),
        (&["AUTHORITY_OFF"], everywhere(400, Code::FailedPrecondition, 100_106_704)),
        (&["STATE_REFUSED"], parameter),
        (&["INVALID_PARAMETER"], parameter),
        (&["UNKNOWN_APP", "NO_SINGLE_APP", "REDIRECT_URI_MISMATCH"], parameter),
        (&["CODE_REFUSED"], token),
        (&["REFRESH_TOKEN_REFUSED", "ACCESS_TOKEN_REFUSED"], token),
        (&["CREDENTIAL_REQUIRED", "CREDENTIAL_REFUSED"], everywhere(401, Code::Unauthenticated, 100_106_401)),
        (&["NOT_ALLOWED", "AUTHORITY_DENIED"], everywhere(403, Code::PermissionDenied, 100_106_402)),
        (&["WRONG_PASSWORD"], everywhere(401, Code::Unauthenticated, 100_106_211)),
        (&["USER_DISABLED", "PASSWORD_CHANGE_REQUIRED"], everywhere(403, Code::PermissionDenied, 100_106_008)),
        (&["TOO_MANY_TRIES"], everywhere(429, Code::ResourceExhausted, 100_106_429)),
        (&["BUSY", "STORE_UNAVAILABLE"], everywhere(503, Code::Unavailable, 100_106_503)),
        (&["TIMEOUT"], everywhere(504, Code::DeadlineExceeded, 100_106_504)),
        (&["INTERNAL"], everywhere(500, Code::Internal, 100_106_999)),
    ];
    // The interface has no numbers for these: they are the admin API's, and that of an operation that is not offered.
    let ours = ["NOT_FOUND", "ALREADY_EXISTS", "PRECONDITION_FAILED", "NOT_OFFERED"];
    for (reason, errors) in by_reason() {
        let row = published.iter().find(|(reasons, _)| reasons.contains(&reason));
        assert!(row.is_some() || ours.contains(&reason), "{reason} is neither published nor ours alone");
        for error in errors {
            if let Some((_, [current, v281])) = row {
                assert_eq!(seen(&error, Dialect::Current), *current, "{reason}");
                assert_eq!(seen(&error, Dialect::V281), *v281, "{reason}");
            }
        }
    }
}

#[test]
fn no_text_has_what_is_for_the_log_alone() {
    for error in every_error() {
        assert!(texts(&error).iter().all(|text| !text.contains("for the log")), "{error:?}");
    }
}
