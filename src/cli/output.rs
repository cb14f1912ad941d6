//! Prints answers: tables for people, JSON for programs.

use std::io::{self, Write as _};

use clap::ValueEnum;
use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use super::{failure::Failure, text::printable};

/// How answers are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table, for people.
    #[default]
    Table,
    /// The API's JSON, for programs: one object, or one array of a whole list.
    Json,
}

/// Something that can be printed: its JSON is the API's, its table says the same in words.
pub(crate) trait Record: Serialize {
    /// The details that a list shows as columns.
    const COLUMNS: &'static [&'static str];

    /// Every detail, with what it is called. Several values of one detail stand in lines.
    fn details(&self) -> Vec<(&'static str, String)>;
}

/// A secret that the service made and shows this once.
#[derive(Debug)]
pub(crate) enum Issued {
    /// The secret of an app.
    Secret(String),
    /// A one-time password.
    OneTimePassword(String),
}

impl Issued {
    /// The app's secret, if the service made one.
    pub(crate) fn secret(secret: String) -> Option<Self> {
        (!secret.is_empty()).then_some(Self::Secret(secret))
    }

    /// The one-time password, if the service made one.
    pub(crate) fn one_time_password(password: String) -> Option<Self> {
        (!password.is_empty()).then_some(Self::OneTimePassword(password))
    }

    fn sentence(&self) -> String {
        match self {
            Self::Secret(secret) => format!("Secret, shown this once: {}\n", printable(secret)),
            Self::OneTimePassword(password) => {
                format!("One-time password, shown this once, to be changed at the first sign-in: {}\n", printable(password))
            }
        }
    }
}

/// An object with the secret that was made for it, as one JSON object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WithIssued<'a, R> {
    #[serde(flatten)]
    record: R,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    one_time_password: Option<&'a str>,
}

impl<'a, R> WithIssued<'a, R> {
    fn new(record: R, issued: Option<&'a Issued>) -> Self {
        let (secret, one_time_password) = match issued {
            Some(Issued::Secret(secret)) => (Some(secret.as_str()), None),
            Some(Issued::OneTimePassword(password)) => (None, Some(password.as_str())),
            None => (None, None),
        };
        Self { record, secret, one_time_password }
    }
}

/// The JSON of an answer that holds nothing.
#[derive(Serialize)]
struct Empty {}

/// Prints to standard output in the format that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints a list.
    pub(crate) fn list<R: Record>(self, records: &[R]) -> Result<(), Failure> {
        self.print(&records, || list_table(records))
    }

    /// Prints a list whose table has other rows than the list has objects.
    pub(crate) fn list_in_rows<R: Record>(self, objects: &impl Serialize, rows: &[R]) -> Result<(), Failure> {
        self.print(objects, || list_table(rows))
    }

    /// Prints one object.
    pub(crate) fn object<R: Record>(self, record: &R) -> Result<(), Failure> {
        self.made(record, None)
    }

    /// Prints an object that was made, and the secret that the service made for it.
    pub(crate) fn made<R: Record>(self, record: &R, issued: Option<&Issued>) -> Result<(), Failure> {
        self.print(&WithIssued::new(record, issued), || object_table(record) + &issued.map(Issued::sentence).unwrap_or_default())
    }

    /// Prints a secret that the service made for something that exists.
    pub(crate) fn issued(self, issued: &Issued) -> Result<(), Failure> {
        self.print(&WithIssued::new(Empty {}, Some(issued)), || issued.sentence())
    }

    /// Says that something without an answer is done; an empty object in JSON.
    pub(crate) fn done(self, sentence: &str) -> Result<(), Failure> {
        self.summary(&Empty {}, sentence)
    }

    /// Prints a sentence, or what it says as JSON.
    pub(crate) fn summary(self, json: &impl Serialize, sentence: &str) -> Result<(), Failure> {
        self.print(json, || format!("{}\n", printable(sentence)))
    }

    fn print(self, json: &impl Serialize, table: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = match self.format {
            Format::Table => table(),
            Format::Json => json_text(json)?,
        };
        let mut stdout = io::stdout().lock();
        unless_closed(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
    }
}

/// A reader who has seen enough (`… | head`) is no failure.
pub(crate) fn unless_closed(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::from_io("write the output", &error)),
        _ => Ok(()),
    }
}

fn json_text(json: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(json).map_err(|error| Failure::from_error("cannot write the output", &error))?;
    Ok(text + "\n")
}

fn list_table<R: Record>(records: &[R]) -> String {
    let mut table = plain_table();
    table.set_header(R::COLUMNS.iter().map(|column| column.to_uppercase()));
    for record in records {
        let details = record.details();
        table.add_row(R::COLUMNS.iter().map(|column| {
            let detail = details.iter().find(|(name, _)| name == column);
            detail.map(|(_, value)| first_of(value)).unwrap_or_default()
        }));
    }
    text_of(&table)
}

/// The first value of a detail, and how many more there are.
fn first_of(values: &str) -> String {
    let (first, rest) = values.split_once('\n').unwrap_or((values, ""));
    match rest.lines().count() {
        0 => printable(first).into_owned(),
        more => format!("{} (+{more})", printable(first)),
    }
}

fn object_table<R: Record>(record: &R) -> String {
    let mut table = plain_table();
    for (name, value) in record.details() {
        table.add_row([format!("{name}:"), printable(&value).into_owned()]);
    }
    text_of(&table)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}

/// The lines of a table, without the blanks around the cells at both ends.
fn text_of(table: &Table) -> String {
    table.lines().fold(String::new(), |mut text, line| {
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Thing {
        app_id: &'static str,
        uris: Vec<&'static str>,
    }

    impl Record for Thing {
        const COLUMNS: &'static [&'static str] = &["id", "URIs"];

        fn details(&self) -> Vec<(&'static str, String)> {
            vec![("id", self.app_id.to_owned()), ("hidden", "x".to_owned()), ("URIs", self.uris.join("\n"))]
        }
    }

    fn things() -> [Thing; 3] {
        [
            Thing { app_id: "a", uris: vec!["http://a/", "http://b/"] },
            Thing { app_id: "longer", uris: vec!["http://c/"] },
            Thing { app_id: "\u{1b}c", uris: vec![] },
        ]
    }

    #[test]
    fn a_list_is_an_aligned_table() {
        assert_eq!(list_table(&things()), "ID       URIS\na        http://a/ (+1)\nlonger   http://c/\n\\u{1b}c\n");
        assert_eq!(list_table::<Thing>(&[]), "ID  URIS\n");
    }

    #[test]
    fn an_object_shows_every_detail() {
        assert_eq!(object_table(&things()[0]), "id:      a\nhidden:  x\nURIs:    http://a/\n         http://b/\n");
    }

    #[test]
    fn a_secret_stands_beside_the_fields() {
        let secret = Issued::secret("s3".to_owned()).unwrap();
        let json: serde_json::Value = serde_json::to_value(WithIssued::new(&things()[1], Some(&secret))).unwrap();
        assert_eq!(json, serde_json::json!({"appId": "longer", "uris": ["http://c/"], "secret": "s3"}));
        let password = Issued::one_time_password("p".to_owned()).unwrap();
        assert_eq!(json_text(&WithIssued::new(Empty {}, Some(&password))).unwrap(), "{\n  \"oneTimePassword\": \"p\"\n}\n");
        assert!(Issued::secret(String::new()).is_none());
        assert_eq!(json_text(&Empty {}).unwrap(), "{}\n");
        assert!(secret.sentence().contains("shown this once: s3"));
    }
}
