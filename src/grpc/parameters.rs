//! The parameters of a call, read once (docs/api.md, "Parameters").
//!
//! Over HTTP they are read from the query, path and body as they were sent, not from the transcoded message: a transcoder silently takes
//! the last of two equal names, and lets a query override a path. Where the message says otherwise the call is refused.

use std::{fmt, net::IpAddr};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::pb;
use crate::{
    core::{
        Error, Problem,
        secret::{Secret, Wiped, wiped},
    },
    dialect::operation::{Operation, is_name},
    sign::{self, Query},
};

/// The request message of an operation.
pub trait Request {
    /// Its texts, by JSON name.
    fn texts(&self) -> Vec<(&'static str, &str)>;

    /// The same, taken out of it.
    fn into_texts(self) -> Vec<(&'static str, String)>;

    /// What in it is true or false, by JSON name.
    fn flags(&self) -> Vec<(&'static str, bool)>;

    /// The JSON body that came over HTTP.
    fn json(&self) -> Option<&pb::google::api::HttpBody>;
}

include!(concat!(env!("OUT_DIR"), "/requests.rs"));

/// An HTTP call as it was sent to Envoy.
#[derive(Clone, Debug)]
pub struct Original {
    /// The operation that its method and path are bound to.
    pub operation: &'static Operation,
    /// The client's address, as Envoy vouches for it.
    pub address: Option<IpAddr>,
    /// The method, in capitals.
    pub method: String,
    /// The path as sent, without the query.
    pub path: Wiped,
    /// The query. What is signed and what operations read come of this one reading.
    pub query: Query,
    /// The path's parameters, decoded: field names and values.
    segments: Vec<(&'static str, Wiped)>,
}

/// The parameters of a call by their JSON names. An empty one is as one that is not there. What is true or false is the word for it.
#[derive(Default)]
pub struct Parameters(Vec<(&'static str, Wiped)>);

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Original {
    /// Reads an HTTP call of `operation` from its path and query as they were sent.
    ///
    /// # Errors
    /// [`Error::NotOffered`] when the path is not bound to the operation; [`Error::Parameter`] with the name `path` or `query` when it
    /// cannot be decoded.
    pub fn read(operation: &'static Operation, method: &str, path_and_query: &str) -> Result<Self, Error> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let segments = operation
            .bound(method, path)
            .ok_or(Error::NotOffered)?
            .into_iter()
            .map(|(field, value)| {
                let value = sign::decode(value, "path")?;
                // No token has one, and it would be a line of its own wherever it is written.
                let has_control =
                    if value.is_ascii() { value.bytes().any(|byte| byte.is_ascii_control()) } else { value.chars().any(char::is_control) };
                if has_control { Err(Error::parameter("path", Problem::Malformed)) } else { Ok((field, value)) }
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            operation,
            address: None,
            method: method.to_owned(),
            path: Wiped::new(path.into()),
            query: Query::read(query)?,
            segments,
        })
    }
}

impl Parameters {
    /// The parameters of a native gRPC call.
    #[must_use]
    pub fn of_message<R: Request>(message: R) -> Self {
        let flags = message.flags().into_iter().map(|(name, value)| (name, wiped(value.to_string())));
        let flags: Vec<_> = flags.collect();
        let texts = message.into_texts().into_iter().map(|(name, value)| (name, wiped(value)));
        Self(texts.chain(flags).collect())
    }

    /// The parameters of an HTTP call.
    ///
    /// # Errors
    /// [`Error::Parameter`] when a parameter is given twice or in two places, is no text, or the body is no JSON object.
    pub fn of_http<R: Request>(original: &Original, message: &R) -> Result<Self, Error> {
        let operation = original.operation;
        let known = |name: &str| operation.parameter(name);
        if let Some(body) = message.json() {
            if let Some(parameter) = original.query.iter().find_map(|(name, _)| known(name)) {
                return Err(Error::parameter(parameter, Problem::Ambiguous));
            }
            return Body { operation }.read(&body.data).map(Self);
        }
        let found = Self::of_query(original)?;
        for (name, transcoded) in message.texts() {
            if found.optional(name).unwrap_or_default() != transcoded {
                return Err(Error::parameter(name, Problem::Ambiguous));
            }
        }
        for (name, transcoded) in message.flags() {
            if found.flag(name)? != transcoded {
                return Err(Error::parameter(name, Problem::Ambiguous));
            }
        }
        Ok(found)
    }

    /// The parameters in the path and query of an HTTP call that was not transcoded.
    ///
    /// # Errors
    /// [`Error::Parameter`] when a parameter is given twice or in two places.
    pub fn of_query(original: &Original) -> Result<Self, Error> {
        let known = |name: &str| original.operation.parameter(name);
        let mut found: Vec<(&'static str, Option<Wiped>)> = Vec::new();
        for (field, value) in &original.segments {
            found.extend(known(field).map(|parameter| (parameter, Some(value.clone()))));
        }
        for (name, value) in original.query.iter() {
            let Some(parameter) = known(name) else { continue };
            if found.iter().any(|(other, _)| *other == parameter) {
                return Err(Error::parameter(parameter, Problem::Twice));
            }
            // Another case is another name, but for being given twice.
            found.push((parameter, is_name(name, parameter).then(|| value.clone())));
        }
        Ok(Self(found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()))
    }

    /// A parameter, if it is there and not empty.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref()).filter(|value| !value.is_empty())
    }

    /// A parameter that has to be there.
    ///
    /// # Errors
    /// [`Error::Parameter`] when it is not there, or empty.
    pub fn required(&self, name: &'static str) -> Result<&str, Error> {
        self.optional(name).ok_or_else(|| Error::parameter(name, Problem::Missing))
    }

    /// A secret parameter that has to be there.
    ///
    /// # Errors
    /// As [`Parameters::required`].
    pub fn secret(&self, name: &'static str) -> Result<Secret, Error> {
        self.required(name).map(Secret::new)
    }

    /// A parameter that is true or false, and false when it is not there.
    ///
    /// # Errors
    /// [`Error::Parameter`] when it is something else.
    pub fn flag(&self, name: &'static str) -> Result<bool, Error> {
        match self.optional(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Error::parameter(name, Problem::Malformed)),
        }
    }

    /// A parameter that has to be this word.
    ///
    /// # Errors
    /// [`Error::Parameter`] when it is not there, or another word.
    pub fn exactly(&self, name: &'static str, word: &str) -> Result<(), Error> {
        if self.required(name)? == word { Ok(()) } else { Err(Error::parameter(name, Problem::NotAllowed)) }
    }
}

type Texts = Vec<(&'static str, Wiped)>;

/// Reads the JSON body of an operation: one object, no parameter twice, each of its own type; what is not known is passed over.
#[derive(Clone, Copy)]
struct Body {
    operation: &'static Operation,
}

/// What is wrong with a body, kept beside serde's own error, which would quote the input.
#[derive(Default)]
struct Fault(Option<Error>);

impl Body {
    fn read(self, body: &[u8]) -> Result<Texts, Error> {
        if body.is_empty() {
            return Ok(Texts::new());
        }
        // What is passed over is not read: that it is no text would go unseen.
        let body = std::str::from_utf8(body).map_err(|_| Error::parameter("body", Problem::Malformed))?;
        let mut fault = Fault::default();
        let mut deserializer = serde_json::Deserializer::from_str(body);
        let read = Object { operation: self.operation, fault: &mut fault }.deserialize(&mut deserializer);
        let read = read.and_then(|texts| deserializer.end().map(|()| texts));
        read.map_err(|_| fault.0.unwrap_or_else(|| Error::parameter("body", Problem::Malformed)))
    }
}

struct Object<'a> {
    operation: &'static Operation,
    fault: &'a mut Fault,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Texts;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Texts, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
        let mut texts = Texts::new();
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let Some(parameter) = self.operation.parameter(&name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let mut fail = |problem| {
                self.fault.0 = Some(Error::parameter(parameter, problem));
                serde::de::Error::custom("refused")
            };
            if seen.contains(&parameter) {
                return Err(fail(Problem::Twice));
            }
            seen.push(parameter);
            // Another case is another name, but for being given twice.
            if !is_name(&name, parameter) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let is_flag = self.operation.flags.contains(&parameter);
            let text = match map.next_value::<serde_json::Value>()? {
                serde_json::Value::Null => continue,
                serde_json::Value::String(text) if !is_flag => text,
                serde_json::Value::Bool(flag) if is_flag => flag.to_string(),
                _ => return Err(fail(Problem::Malformed)),
            };
            texts.push((parameter, wiped(text)));
        }
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::grpc::pb::{google::api::HttpBody, supos::auth};

    const TOKEN: &str = "/supos.auth.v2.AuthService/Token";
    const USERNAME: &str = "/supos.auth.v281.AuthService/GetUsername";
    const VALID: &str = "/supos.auth.v281.AuthService/ValidateToken";

    fn operation(rpc: &str) -> &'static Operation {
        Operation::of_rpc(rpc).unwrap()
    }

    fn username(query: &str, transcoded: &str) -> Result<Option<String>, Error> {
        let path = format!("/open-api/supos/auth/v2/username?{query}");
        let original = Original::read(operation(USERNAME), "GET", &path)?;
        let message = auth::v281::GetUsernameRequest { access_token: transcoded.to_owned() };
        let parameters = Parameters::of_http(&original, &message)?;
        Ok(parameters.optional("accessToken").map(str::to_owned))
    }

    #[test]
    fn a_query_is_read_as_a_form_is() {
        for (query, value) in [
            ("accessToken=a", "a"),
            ("access_token=a", "a"),
            ("&&x&accessToken=a+b%2Bc%20d&&", "a b+c d"),
            ("accessToken=a=b", "a=b"),
            ("%61ccessToken=%E5%BC%A0", "张"),
            ("accessToken=%", ""),
            ("accessToken=%zz", ""),
            ("x=%ff", ""),
            ("x=%E5%BC", ""),
        ] {
            let read = username(query, value);
            if value.is_empty() {
                assert_eq!(read, Err(Error::parameter("query", Problem::Malformed)), "{query}");
            } else {
                assert_eq!(read, Ok(Some(value.to_owned())), "{query}");
            }
        }
    }

    #[test]
    fn a_parameter_that_is_known_is_given_once() {
        for query in
            ["accessToken=a&accessToken=a", "accessToken=a&access_token=", "accessToken=a&ACCESSTOKEN=b", "a_ccesstoken&accessToken=a"]
        {
            assert_eq!(username(query, "a"), Err(Error::parameter("accessToken", Problem::Twice)), "{query}");
        }
        assert_eq!(username("z=1&accessToken=a&z=2", "a"), Ok(Some("a".into())));
    }

    #[test]
    fn what_the_message_says_otherwise_is_refused() {
        assert_eq!(username("accessToken=a", "b"), Err(Error::parameter("accessToken", Problem::Ambiguous)));
        assert_eq!(username("", "b"), Err(Error::parameter("accessToken", Problem::Ambiguous)));
        assert_eq!(username("ACCESSTOKEN=b", ""), Ok(None));
    }

    #[test]
    fn a_path_parameter_is_not_overridden() {
        let original = |path: &str| Original::read(operation(VALID), "GET", path).unwrap();
        let message = auth::v281::ValidateTokenRequest { access_token: "A".into() };
        let read = |path: &str| Parameters::of_http(&original(path), &message);
        assert_eq!(read("/open-api/supos/auth/v2/A/valid").unwrap().required("accessToken").unwrap(), "A");
        for query in ["accessToken=B", "accessToken=A", "access_token=", "ACCESS_TOKEN"] {
            assert!(read(&format!("/open-api/supos/auth/v2/A/valid?{query}")).is_err(), "{query}");
        }
    }

    fn body(json: impl AsRef<[u8]>) -> Result<Parameters, Error> {
        let original = Original::read(operation(TOKEN), "POST", "/auth/v2/oauth2/token?x=1").unwrap();
        let json = HttpBody { data: json.as_ref().to_vec(), ..HttpBody::default() };
        Parameters::of_http(&original, &auth::v2::TokenRequest { json: Some(json), ..Default::default() })
    }

    #[test]
    fn a_body_is_one_object_of_texts() {
        let read = body(r#"{"grantType":"a","x":[1,{"code":2}],"logout_uri":"b","code":null}"#).unwrap();
        assert_eq!((read.optional("grantType"), read.optional("logoutUri"), read.optional("code")), (Some("a"), Some("b"), None));
        for unknown in ["", r#"{"Code":5}"#, r#"{"CODE":"a"}"#, r#"{"cODE":{"code":"a"}}"#] {
            assert!(body(unknown).unwrap().optional("code").is_none(), "{unknown}");
        }
        for (json, name) in [
            (r#"{"code":1}"#, "code"),
            (r#"{"code":["a"]}"#, "code"),
            (r#"{"code":"a","code":"a"}"#, "code"),
            (r#"{"code":"a","\u0063ode":"b"}"#, "code"),
            (r#"{"grantType":"a","grant_type":"a"}"#, "grantType"),
            (r#"{"grantType":"a","GRANTTYPE":null}"#, "grantType"),
            (r#"{"Code":5,"code":"a"}"#, "code"),
            ("[]", "body"),
            ("null", "body"),
            ("{", "body"),
            (r#"{"code":"a"} x"#, "body"),
            ("{'code':'a'}", "body"),
            ("\u{feff}{}", "body"),
        ] {
            let Err(Error::Parameter { name: refused, .. }) = body(json) else { panic!("{json} is taken") };
            assert_eq!(refused, name, "{json}");
        }
        assert_eq!(body(b"{\"x\":\"\xff\"}").err(), Some(Error::parameter("body", Problem::Malformed)));
        // What is not known is passed over without recursion; what is known is not followed down.
        let deep = |name: &str| format!("{{\"{name}\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(body(deep("x")).is_ok());
        assert!(body(deep("code")).is_err());
    }

    #[test]
    fn what_is_true_or_false_is_no_text_and_what_is_text_is_neither() {
        let rpc = "/supos.auth.v2.AuthService/CreateIdentityProvider";
        let original = Original::read(operation(rpc), "POST", "/auth/v2/oauth2/identity/provider/instances").unwrap();
        let read = |json: &str| {
            let json = Some(HttpBody { data: json.as_bytes().to_vec(), ..HttpBody::default() });
            let message = auth::v2::CreateIdentityProviderRequest { json, ..Default::default() };
            Parameters::of_http(&original, &message)?.flag("enabled")
        };
        for (json, expected) in
            [("{}", false), (r#"{"enabled":null}"#, false), (r#"{"enabled":false}"#, false), (r#"{"enabled":true}"#, true)]
        {
            assert_eq!(read(json), Ok(expected), "{json}");
        }
        for (json, name) in [
            (r#"{"enabled":"true"}"#, "enabled"),
            (r#"{"enabled":""}"#, "enabled"),
            (r#"{"enabled":1}"#, "enabled"),
            (r#"{"enabled":[true]}"#, "enabled"),
            (r#"{"clientName":true}"#, "clientName"),
        ] {
            assert_eq!(read(json), Err(Error::parameter(name, Problem::Malformed)), "{json}");
        }
        assert_eq!(read(r#"{"enabled":true,"Enabled":false}"#), Err(Error::parameter("enabled", Problem::Twice)));
        let native = auth::v2::CreateIdentityProviderRequest { enabled: true, ..Default::default() };
        assert_eq!(Parameters::of_message(native).flag("enabled"), Ok(true));
    }

    #[test]
    fn a_query_does_not_fill_what_the_body_has_to() {
        for query in ["code=a", "grant_type=", "LOGOUTURI=x"] {
            let original = Original::read(operation(TOKEN), "POST", &format!("/auth/v2/oauth2/token?{query}")).unwrap();
            let message = auth::v2::TokenRequest { json: Some(HttpBody::default()), ..Default::default() };
            assert!(Parameters::of_http(&original, &message).is_err(), "{query}");
        }
    }

    proptest! {
        #[test]
        fn any_value_reads_back_from_its_encoding(value in ".*") {
            let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("accessToken", &value).finish();
            prop_assert_eq!(username(&query, &value), Ok(Some(value).filter(|value| !value.is_empty())));
        }

        #[test]
        fn any_query_and_any_body_is_read_or_refused(query in ".*", json in ".*") {
            let _ = username(&query, "");
            let _ = body(&json);
        }
    }
}
