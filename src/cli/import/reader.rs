//! Reads an import file line by line. Runs on a thread of its own, as a file or a pipe may keep it waiting.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Write as _,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

use tokio::sync::mpsc;

use super::{
    kinds::Kind,
    line::{Fields, Mistake},
    steps::{Place, Step},
};
use crate::cli::{
    failure::Failure,
    text::{count, printable},
};

/// No object that the service takes is longer.
const MAX_LINE_BYTES: u64 = 1024 * 1024;
/// After so many mistakes the person has enough to do.
const MAX_MISTAKES: usize = 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file that is to be imported.
pub(super) struct Source {
    name: String,
    bytes: Option<u64>,
    lines: Box<dyn BufRead + Send>,
}

/// What a good file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) lines: u64,
    pub(super) without_secret: u64,
    /// Apps with rights that their signatures do not carry.
    pub(super) with_rights_out_of_reach: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let name = printable(&path.display().to_string()).into_owned();
        if path == Path::new("-") {
            return Ok(Self { name: "standard input".to_owned(), bytes: None, lines: Box::new(BufReader::new(io::stdin())) });
        }
        let failure = |error| Failure::from_io(format_args!("read {name}"), &error);
        let file = File::open(path).map_err(failure)?;
        let metadata = file.metadata().map_err(failure)?;
        // A pipe has no size.
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { name, bytes, lines: Box::new(BufReader::new(file)) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How long the file is, when that is known.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }
}

/// What the reader says when nobody takes its lines any more: the call has ended, and its answer says why.
pub(super) const ENDED_EARLY: &str = "the service ended the import before the last line";

/// Reads the file to its end and hands over each line. After the first mistake it only looks for further ones.
pub(super) fn read<K: Kind>(mut source: Source, to_call: &mpsc::Sender<Step<K::Request>>) -> Result<Summary, Failure> {
    let mut summary = Summary::default();
    let mut mistakes = Mistakes::new(&source.name);
    let mut line_of_id = HashMap::new();
    let mut place = Place { line: 0, offset: 0 };
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = source.lines.by_ref().take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut line);
        let length = read.map_err(|error| Failure::from_io(format_args!("read {}", source.name), &error))? as u64;
        if length == 0 {
            break;
        }
        place = Place { line: place.line + 1, offset: place.offset + length };
        if length > MAX_LINE_BYTES {
            mistakes.add(place.line, &Mistake::of_field("line", "is longer than 1 MiB"));
            break;
        }
        let text = if place.line == 1 { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line) } else { &line }.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let item = match Fields::parse(text, K::FIELDS).and_then(K::parse) {
            Ok(item) => item,
            Err(mistake) => {
                mistakes.add(place.line, &mistake);
                continue;
            }
        };
        match line_of_id.entry(item.id) {
            Entry::Occupied(first) => {
                mistakes.add(place.line, &Mistake::of_field(K::ID, format!("is that of line {}, too", first.get())));
                continue;
            }
            Entry::Vacant(entry) => drop(entry.insert(place.line)),
        }
        summary.lines += 1;
        summary.without_secret += u64::from(!item.has_secret);
        summary.with_rights_out_of_reach += u64::from(item.has_rights_out_of_reach);
        if mistakes.is_empty() {
            hand_over(to_call, Step::Line { place, request: item.request })?;
        }
    }
    mistakes.into_result()?;
    hand_over(to_call, Step::End)?;
    Ok(summary)
}

fn hand_over<R>(to_call: &mpsc::Sender<Step<R>>, step: Step<R>) -> Result<(), Failure> {
    to_call.blocking_send(step).map_err(|_| Failure::new(ENDED_EARLY))
}

/// What is wrong with the file.
struct Mistakes<'a> {
    file: &'a str,
    number: usize,
    text: String,
}

impl<'a> Mistakes<'a> {
    fn new(file: &'a str) -> Self {
        Self { file, number: 0, text: String::new() }
    }

    fn is_empty(&self) -> bool {
        self.number == 0
    }

    fn add(&mut self, line: u64, mistake: &Mistake) {
        self.number += 1;
        if self.number <= MAX_MISTAKES {
            // Writing to a string cannot fail.
            let _ = write!(self.text, "\n{}:{line}: {mistake}", self.file);
        }
    }

    fn into_result(self) -> Result<(), Failure> {
        if self.is_empty() {
            return Ok(());
        }
        let more = self.number.saturating_sub(MAX_MISTAKES);
        let rest = if more == 0 { String::new() } else { format!("\nand {more} more") };
        Err(Failure::new(format!("nothing was imported: there {}{}{rest}", is_count(self.number), self.text)))
    }
}

fn is_count(number: usize) -> String {
    format!("{} {}", if number == 1 { "is" } else { "are" }, count(number as u64, "mistake"))
}

#[cfg(test)]
mod tests {
    use super::{super::kinds::Users, *};

    /// Reads a file of users; gives the lines handed over, whether the end was, and the result.
    fn read_users(text: &[u8]) -> (Vec<u64>, bool, Result<Summary, String>) {
        let source = Source { name: "f".to_owned(), bytes: None, lines: Box::new(io::Cursor::new(text.to_vec())) };
        let (to_call, mut from_reader) = mpsc::channel(64);
        let result = read::<Users>(source, &to_call).map_err(|failure| failure.to_string());
        drop(to_call);
        let (mut lines, mut ended) = (Vec::new(), false);
        while let Some(step) = from_reader.blocking_recv() {
            match step {
                Step::Line { place, .. } => lines.push(place.line),
                Step::End => ended = true,
            }
        }
        (lines, ended, result)
    }

    #[test]
    fn blank_lines_do_not_count() {
        let text = b"\xef\xbb\xbf{\"userName\": \"a\"}\r\n\n  \t\n{\"userName\": \"b\", \"password\": \"twelve letters\"}";
        assert_eq!(read_users(text), (vec![1, 4], true, Ok(Summary { lines: 2, without_secret: 1, with_rights_out_of_reach: 0 })));
        assert_eq!(read_users(b""), (vec![], true, Ok(Summary::default())));
    }

    #[test]
    fn every_mistake_is_told_and_the_end_is_not() {
        let text = b"{\"userName\": \"a\"}\n{\"user\": 1}\n\n{\"userName\": \"b\"}\n{\"userName\": \"a\"}\nx\n";
        let (lines, ended, result) = read_users(text);
        assert_eq!((lines, ended), (vec![1], false));
        let known = Users::FIELDS.join(", ");
        assert_eq!(
            result.unwrap_err(),
            format!(
                "nothing was imported: there are 3 mistakes\nf:2: user: unknown field; there are {known}\nf:5: userName: is that of line 1, too\n\
                 f:6: not JSON, at character 1"
            )
        );
    }

    #[test]
    fn a_hopeless_file_does_not_flood() {
        let failure = read_users(&b"x\n".repeat(1000)).2.unwrap_err();
        assert_eq!(failure.lines().count(), 22);
        assert!(failure.starts_with("nothing was imported: there are 1000 mistakes\n") && failure.ends_with("\nand 980 more"));
    }

    #[test]
    fn an_endless_line_is_not_read() {
        let (_, ended, result) = read_users(&vec![b' '; 3 << 20]);
        assert_eq!(
            (ended, result.unwrap_err().as_str()),
            (false, "nothing was imported: there is 1 mistake\nf:1: line: is longer than 1 MiB")
        );
    }
}
