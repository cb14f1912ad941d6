//! One line of an import file: what it may hold, and where it is wrong.
//!
//! Nothing here repeats a value of the file: it may be a password.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, error::Category};

use crate::cli::text::printable;

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    field: Option<String>,
    what: String,
}

impl Mistake {
    fn of_line(what: impl Into<String>) -> Self {
        Self { field: None, what: what.into() }
    }

    pub(super) fn of_field(field: &str, what: impl Into<String>) -> Self {
        Self { field: Some(printable(field).replace('\n', "\\n")), what: what.into() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.field.as_ref().map_or(Ok(()), |field| write!(f, "{field}: "))?;
        f.write_str(&self.what)
    }
}

/// The fields of a line, to be taken one by one.
#[derive(Debug)]
pub(crate) struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// Reads a line that may hold the known fields, each at most once.
    pub(super) fn parse(line: &[u8], known: &[&str]) -> Result<Self, Mistake> {
        let Object(fields) = serde_json::from_slice(line).map_err(|error| match error.classify() {
            Category::Syntax => Mistake::of_line(format!("not JSON, at character {}", error.column())),
            Category::Eof => Mistake::of_line("not JSON: the object has no end"),
            Category::Data | Category::Io => Mistake::of_line("not a JSON object"),
        })?;
        let fields = fields.map_err(|field| Mistake::of_field(&field, "is given twice"))?;
        match fields.keys().find(|field| !known.contains(&field.as_str())) {
            Some(field) => Err(Mistake::of_field(field, format!("unknown field; there are {}", known.join(", ")))),
            None => Ok(Self(fields)),
        }
    }

    /// A field's value; null counts as absent, as proto3 JSON has it.
    fn take(&mut self, field: &str) -> Option<Value> {
        self.0.remove(field).filter(|value| !value.is_null())
    }

    fn take_as<T>(&mut self, field: &str, what: &str, convert: impl FnOnce(Value) -> Option<T>) -> Result<Option<T>, Mistake> {
        self.take(field).map(|value| convert(value).ok_or_else(|| Mistake::of_field(field, format!("must be {what}")))).transpose()
    }

    pub(super) fn text(&mut self, field: &str) -> Result<String, Mistake> {
        Ok(self.take_as(field, "a string", into_text)?.unwrap_or_default())
    }

    pub(super) fn required_text(&mut self, field: &str) -> Result<String, Mistake> {
        match self.text(field)? {
            text if text.is_empty() => Err(Mistake::of_field(field, "is required")),
            text => Ok(text),
        }
    }

    pub(super) fn texts(&mut self, field: &str) -> Result<Vec<String>, Mistake> {
        let texts = self.take_as(field, "an array of strings", |value| match value {
            Value::Array(values) => values.into_iter().map(into_text).collect(),
            _ => None,
        })?;
        Ok(texts.unwrap_or_default())
    }

    pub(super) fn required_texts(&mut self, field: &str) -> Result<Vec<String>, Mistake> {
        match self.texts(field)? {
            texts if texts.is_empty() => Err(Mistake::of_field(field, "is required")),
            texts => Ok(texts),
        }
    }

    pub(super) fn flag_or(&mut self, field: &str, default: bool) -> Result<bool, Mistake> {
        Ok(self.take_as(field, "true or false", |value| value.as_bool())?.unwrap_or(default))
    }

    pub(super) fn small_number(&mut self, field: &str) -> Result<i32, Mistake> {
        let number =
            self.take_as(field, "a whole number from 0 to 255", |value| value.as_u64().and_then(|number| u8::try_from(number).ok()))?;
        Ok(number.map(i32::from).unwrap_or_default())
    }
}

fn into_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// A JSON object, or the name that stands in it twice: of two values, none must be dropped silently.
struct Object(Result<BTreeMap<String, Value>, String>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = BTreeMap::new();
                let mut twice = None;
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    match fields.entry(name) {
                        Entry::Vacant(entry) => drop(entry.insert(value)),
                        Entry::Occupied(entry) => drop(twice.get_or_insert_with(|| entry.key().clone())),
                    }
                }
                Ok(Object(twice.map_or(Ok(fields), Err)))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Takes `steps[N].app.redirect_uris[0]` apart: the step, and the field as the file writes it (`redirectUris[0]`).
pub(super) fn step_of(path: &str) -> Option<(usize, String)> {
    let (number, rest) = path.strip_prefix("steps[")?.split_once(']')?;
    let step = number.parse().ok()?;
    let mut field = rest.trim_start_matches('.');
    // The file's objects are flat; in the request they are an app or a user within the step.
    while let Some(("app" | "user", rest)) = field.split_once('.') {
        field = rest;
    }
    Some((step, if matches!(field, "" | "app" | "user") { "line".to_owned() } else { lower_camel_case(field) }))
}

fn lower_camel_case(text: &str) -> String {
    let mut after_underscore = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '_' {
            after_underscore = true;
        } else {
            out.push(if after_underscore { c.to_ascii_uppercase() } else { c });
            after_underscore = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["userName", "password", "accountType", "enabled", "uris"];

    fn mistake(line: &str) -> String {
        let mistake = Fields::parse(line.as_bytes(), KNOWN).and_then(|mut fields| {
            fields.required_text("userName")?;
            fields.text("password")?;
            fields.small_number("accountType")?;
            fields.flag_or("enabled", true)?;
            fields.required_texts("uris")
        });
        mistake.unwrap_err().to_string()
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (line, expected) in [
            (r#"{"userNam": "a"}"#, "userNam: unknown field; there are userName, password, accountType, enabled, uris"),
            (r#"{"UserName": "a"}"#, "UserName: unknown field; there are userName, password, accountType, enabled, uris"),
            (r#"{"userName": "a", "userName": "b"}"#, "userName: is given twice"),
            (r"{}", "userName: is required"),
            (r#"{"userName": ""}"#, "userName: is required"),
            (r#"{"userName": null}"#, "userName: is required"),
            (r#"{"userName": 7}"#, "userName: must be a string"),
            (r#"{"userName": "a", "accountType": 256}"#, "accountType: must be a whole number from 0 to 255"),
            (r#"{"userName": "a", "accountType": -1}"#, "accountType: must be a whole number from 0 to 255"),
            (r#"{"userName": "a", "accountType": 1.5}"#, "accountType: must be a whole number from 0 to 255"),
            (r#"{"userName": "a", "accountType": "1"}"#, "accountType: must be a whole number from 0 to 255"),
            (r#"{"userName": "a", "enabled": "yes"}"#, "enabled: must be true or false"),
            (r#"{"userName": "a", "uris": "b"}"#, "uris: must be an array of strings"),
            (r#"{"userName": "a", "uris": ["b", 1]}"#, "uris: must be an array of strings"),
            (r#"{"userName": "a", "uris": []}"#, "uris: is required"),
            ("{\"\\u001b\": 1}", "\\u{1b}: unknown field; there are userName, password, accountType, enabled, uris"),
            (r#"{"userName": "a""#, "not JSON: the object has no end"),
            (r#"{"userName": "a"} x"#, "not JSON, at character 19"),
            (r#"{"userName": "a",}"#, "not JSON, at character 18"),
            (r#"["a"]"#, "not a JSON object"),
            (r#""a""#, "not a JSON object"),
        ] {
            assert_eq!(mistake(line), expected, "{line}");
        }
        assert!(mistake("\u{feff}{}").starts_with("not JSON"));
        assert!(Fields::parse(b"{\"userName\": \"\xff\"}", KNOWN).is_err());
    }

    #[test]
    fn never_repeats_a_value() {
        for line in
            [r#""hunter2""#, r#"{"password": {"hunter2": 1}}"#, r#"{"userName": ["hunter2"]}"#, r#"{"userName": "a", "password": hunter2}"#]
        {
            assert!(!mistake(line).contains("hunter2"), "{line}");
        }
    }

    #[test]
    fn takes_good_values_and_defaults() {
        let mut fields =
            Fields::parse(br#"{"userName": "a", "accountType": 1, "enabled": false, "uris": ["x"], "password": null}"#, KNOWN).unwrap();
        assert_eq!(fields.required_text("userName").unwrap(), "a");
        assert_eq!(fields.text("password").unwrap(), "");
        assert_eq!(fields.small_number("accountType").unwrap(), 1);
        assert_eq!(fields.texts("uris").unwrap(), ["x"]);
        assert!(!fields.flag_or("enabled", true).unwrap());
        assert!(Fields::parse(b"{}", KNOWN).unwrap().flag_or("enabled", true).unwrap());
    }

    #[test]
    fn a_step_is_a_line_of_the_file() {
        let step = |path| step_of(path).map(|(step, field)| format!("{step} {field}"));
        assert_eq!(step("steps[0].app.app.redirect_uris[1]").as_deref(), Some("0 redirectUris[1]"));
        assert_eq!(step("steps[12].user.user_name").as_deref(), Some("12 userName"));
        assert_eq!(step("steps[12].user.password_hash").as_deref(), Some("12 passwordHash"));
        assert_eq!(step("steps[3].app_id").as_deref(), Some("3 appId"));
        assert_eq!(step("steps[3]").as_deref(), Some("3 line"));
        assert_eq!(step("steps[3].user").as_deref(), Some("3 line"));
        assert_eq!(step("options.validate_only"), None);
        assert_eq!(step("steps[x].user"), None);
    }
}
