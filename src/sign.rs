//! Sign: how an app signs a call with its secret (docs/api.md, "Sign"). What is signed, for whoever signs and for the service, which
//! checks it; nothing here knows an app or a store.
//!
//! ```
//! use supos_auth::{core::secret::Secret, sign};
//!
//! let request = sign::Request {
//!     method: "POST",
//!     target: "/open-api/auth/v2/oauth2/token",
//!     content_type: "application/json",
//!     headers: &[],
//! };
//! let header = sign::authorization(&request, "demo-app", &Secret::new("demo-secret"))?;
//! assert!(header.starts_with("Sign demo-app-"));
//! # Ok::<(), supos_auth::core::Error>(())
//! ```

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
};
use percent_encoding::percent_decode_str;
use prost_types::Timestamp as CivilTime;

use crate::{
    core::{
        Error, Problem,
        clock::Timestamp,
        secret::{Secret, Wiped, wiped},
    },
    dialect::operation::{Operation, is_name, snake_case},
};

/// The content type that a native gRPC call signs.
pub const GRPC: &str = "application/grpc";
/// The header with the date of a signature.
pub const DATE: &str = "x-mc-date";
/// The header that tells two equal calls of one second apart.
pub const NONCE: &str = "x-mc-nonce";
/// What the names of the signed headers begin with.
const PREFIX: &str = "x-mc-";
/// The most bytes of a canonical string that are shown.
const MAX_SHOWN: usize = 2048;
/// The parameters whose values are not shown, folded as names are told apart: those of the interface that are secret, and what somebody
/// may send by mistake.
const HIDDEN: [&str; 10] = ["code", "accesstoken", "refreshtoken", "state", "token", "ticket", "password", "clientsecret", "secret", "sk"];

/// A query, read as a form is: names and values in order, decoded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, Wiped)>);

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Decodes `%XX` and UTF-8.
///
/// # Errors
/// [`Error::Parameter`] with the name `what`.
pub fn decode(text: &str, what: &str) -> Result<Wiped, Error> {
    let malformed = || Error::parameter(what, Problem::Malformed);
    let whole = text.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()));
    if !whole {
        return Err(malformed());
    }
    percent_decode_str(text).decode_utf8().map(wiped).map_err(|_| malformed())
}

impl Query {
    /// Reads a query as it was sent: cut at `&`, empty pieces dropped, each cut at its first `=`; `+` is a space, then `%XX`, then UTF-8.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the name `query`.
    pub fn read(sent: &str) -> Result<Self, Error> {
        let decode = |text: &str| decode(&text.replace('+', " "), "query");
        let piece = |piece: &str| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            Ok((decode(name)?.to_string(), decode(value)?))
        };
        sent.split('&').filter(|piece| !piece.is_empty()).map(piece).collect::<Result<_, Error>>().map(Self)
    }

    /// The names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Wiped)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The line that is signed, as names and values: names in lower case, by name, of a name that is given twice the last value.
    ///
    /// Two requests that an operation reads different parameters of must not have the same line, so one that could be read in two ways is
    /// refused.
    fn line(&self, operation: Option<&Operation>) -> Result<Vec<(String, &Wiped)>, Error> {
        let mut line: BTreeMap<String, &Wiped> = BTreeMap::new();
        for (name, value) in self.iter() {
            let parameter = operation.and_then(|operation| operation.parameter(name));
            let shown = parameter.unwrap_or("query");
            if name.chars().chain(value.chars()).any(char::is_control) {
                return Err(Error::parameter(shown, Problem::Malformed));
            }
            // A name in another case would be another parameter, or none, under the same line.
            let misspelt = parameter.is_some_and(|parameter| !is_name(name, parameter));
            if misspelt || name.contains(['&', '=']) {
                return Err(Error::parameter(shown, Problem::Ambiguous));
            }
            line.insert(name.to_ascii_lowercase(), value);
        }
        let line: Vec<_> = line.into_iter().collect();
        let Some(operation) = operation.filter(|_| !line.is_empty()) else { return Ok(line) };
        let parameters: Vec<String> = operation.parameters.iter().flat_map(|name| [name.to_ascii_lowercase(), snake_case(name)]).collect();
        // The same text is another request's line where a value, read on, is a parameter that sorts after what it would follow there: the
        // parameter before it. Names that the operation does not know may all be part of that one's value.
        let mut since = line.first().map(|(name, _)| name.as_str()).unwrap_or_default();
        for (name, value) in &line {
            if parameters.contains(name) {
                since = name;
            }
            if parameters.iter().any(|parameter| parameter.as_str() > since && value.contains(&format!("&{parameter}="))) {
                return Err(Error::parameter(operation.parameter(name).unwrap_or("query"), Problem::Ambiguous));
            }
        }
        Ok(line)
    }
}

/// A request to sign.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The HTTP method. A native gRPC call is `POST`.
    pub method: &'a str,
    /// The path and query, exactly as they are sent. Of a native gRPC call `/package.Service/Method`.
    pub target: &'a str,
    /// The `Content-Type`, exactly as it is sent; empty when none is. Of a native gRPC call [`GRPC`].
    pub content_type: &'a str,
    /// The headers; those whose names begin with `X-MC-` are signed.
    pub headers: &'a [(&'a str, &'a str)],
}

/// The `Authorization` header of a request that the app `ak` signs with its secret `sk`.
///
/// # Errors
/// [`Error::Parameter`] when the service would refuse the request, whoever signs it.
pub fn authorization(request: &Request<'_>, ak: &str, sk: &Secret) -> Result<String, Error> {
    let signature = Canonical::of_request(request)?.signature(sk, Form::Usual);
    Ok(format!("Sign {ak}-{signature}"))
}

/// The date of a signature, as `X-MC-Date` has it: `yyyyMMddTHHmmssZ`, UTC.
#[must_use]
pub fn date(now: Timestamp) -> String {
    let seconds = i64::try_from(now.seconds()).unwrap_or(i64::MAX);
    CivilTime { seconds, nanos: 0 }.to_string().replace(['-', ':'], "")
}

/// Reads what [`date`] writes.
#[must_use]
pub fn read_date(text: &str) -> Option<Timestamp> {
    let digits = |range: std::ops::Range<usize>| -> Option<u8> {
        let text = text.get(range)?;
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    };
    if text.len() != 16 || text.get(8..9)? != "T" || text.get(15..)? != "Z" {
        return None;
    }
    let year = i64::from(digits(0..2)?) * 100 + i64::from(digits(2..4)?);
    let [month, day, hour, minute, second] = [digits(4..6)?, digits(6..8)?, digits(9..11)?, digits(11..13)?, digits(13..15)?];
    let read = CivilTime::date_time(year, month, day, hour, minute, second).ok()?;
    let read = Timestamp::from_millis(u64::try_from(read.seconds).ok()?.checked_mul(1000)?);
    // The library takes a 60th second for the next minute.
    (date(read) == text).then_some(read)
}

/// Which of the two strings is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Six lines, the last of them empty.
    Usual,
    /// Five lines and nothing after, as deployed app clients sign.
    App,
}

/// What is signed of a request.
#[derive(Clone)]
pub struct Canonical {
    method: String,
    path: Wiped,
    content_type: String,
    query: Vec<(String, Wiped)>,
    headers: Vec<(String, String)>,
    operation: Option<&'static Operation>,
}

impl fmt::Debug for Canonical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Canonical").field(&self.masked()).finish()
    }
}

impl Canonical {
    /// What is signed of a request.
    ///
    /// # Errors
    /// [`Error::Parameter`] when the request could be taken for another one.
    pub fn of_request(request: &Request<'_>) -> Result<Self, Error> {
        let (path, query) = request.target.split_once('?').unwrap_or((request.target, ""));
        let headers = request.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let method = request.method.to_ascii_uppercase();
        Self::new(Operation::of_http(&method, path), &method, path, request.content_type, &Query::read(query)?, headers)
    }

    /// What is signed of a request whose parts are at hand: the operation that it is bound to, its method in capitals, its path as sent, its
    /// content type, its query and all its headers.
    ///
    /// # Errors
    /// As [`Canonical::of_request`].
    pub fn new<'a>(
        operation: Option<&'static Operation>,
        method: &str,
        path: &str,
        content_type: &str,
        query: &Query,
        headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, Error> {
        // Envoy joins two with a comma.
        if content_type.contains(',') {
            return Err(Error::parameter("Content-Type", Problem::Ambiguous));
        }
        let query = query.line(operation)?.into_iter().map(|(name, value)| (name, value.clone())).collect();
        let mut signed: Vec<(String, String)> = Vec::new();
        for (name, value) in headers {
            if !name.get(..PREFIX.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(PREFIX)) {
                continue;
            }
            let name = name.to_ascii_lowercase();
            // Other headers' names are the caller's own words, which an answer does not repeat.
            let shown = if name == DATE || name == NONCE { name.as_str() } else { "X-MC-" };
            let value = std::str::from_utf8(value).ok().filter(|value| !value.contains(';') && !value.chars().any(char::is_control));
            let value = value.ok_or_else(|| Error::parameter(shown, Problem::Malformed))?;
            if signed.iter().any(|(known, _)| *known == name) {
                return Err(Error::parameter(shown, Problem::Twice));
            }
            signed.push((name, value.to_owned()));
        }
        signed.sort();
        let (method, content_type, path) = (method.to_owned(), content_type.to_owned(), Wiped::new(path.into()));
        Ok(Self { method, path, content_type, query, headers: signed, operation })
    }

    /// The value of a signed header, whose name is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The text that is signed. It may hold tokens: keep it out of logs.
    #[must_use]
    pub fn text(&self, form: Form) -> Wiped {
        let mut text = self.lines(&self.path, |_, value| value.to_owned());
        if form == Form::Usual {
            text.push('\n');
        }
        wiped(text)
    }

    /// Lines 1 to 5.
    fn lines(&self, path: &str, shown: impl Fn(&str, &str) -> String) -> String {
        let query: Vec<String> = self.query.iter().map(|(name, value)| format!("{name}={}", shown(name, value))).collect();
        let headers: Vec<String> = self.headers.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        [&self.method, path, &self.content_type, &query.join("&"), &headers.join(";")].join("\n")
    }

    /// The text of [`Form::Usual`] as logs have it: in one line, control characters escaped, at most 2 KiB; for each secret value, and the
    /// token in a path, `sha256:` with 16 hexadecimal digits of its SHA-256, and its length in bytes.
    #[must_use]
    pub fn masked(&self) -> String {
        let segments = self.operation.and_then(|operation| operation.bound(&self.method, &self.path)).unwrap_or_default();
        let is_hidden = |segment: &str| !segment.is_empty() && segments.iter().any(|(_, hidden)| *hidden == segment);
        let path: Vec<String> =
            self.path.split('/').map(|part| if is_hidden(part) { fingerprint(part) } else { part.to_owned() }).collect();
        let lines = self.lines(&path.join("/"), |name, value| {
            if HIDDEN.contains(&name.replace('_', "").as_str()) { fingerprint(value) } else { value.to_owned() }
        });
        let mut shown = String::with_capacity(lines.len() + 16);
        for c in lines.chars().chain(['\n']) {
            if c == '\\' || c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
        }
        let mut end = shown.len().min(MAX_SHOWN);
        while !shown.is_char_boundary(end) {
            end -= 1;
        }
        shown.truncate(end);
        shown
    }

    /// The signature: HMAC-SHA256 in lower-case hexadecimal digits.
    #[must_use]
    pub fn signature(&self, sk: &Secret, form: Form) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, sk.expose().as_bytes());
        hex(hmac::sign(&key, self.text(form).as_bytes()).as_ref())
    }
}

/// What stands for a secret where people read it.
pub(crate) fn fingerprint(value: &str) -> String {
    let digest = digest(&SHA256, value.as_bytes());
    format!("sha256:{}:{}", hex(digest.as_ref().get(..8).unwrap_or_default()), value.len())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
