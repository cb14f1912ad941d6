//! What a person has to say while a command runs: secrets and confirmations.

use std::{
    fs::File,
    io::{self, BufRead as _, IsTerminal as _, Read, Write as _},
    path::Path,
};

use clap::Args;

use super::failure::Failure;

/// No secret is longer; a bigger file is a mistake.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
const STDIN: &str = "-";

/// Whether somebody is there to be asked.
pub(crate) fn has_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Reads a secret from a file, or from standard input when the path is `-`. One line end at its end does not count.
pub(crate) fn secret_from(path: &Path) -> Result<String, Failure> {
    let read = if path == Path::new(STDIN) { read_secret(io::stdin().lock()) } else { File::open(path).and_then(read_secret) };
    let name = if path == Path::new(STDIN) { "standard input".to_owned() } else { path.display().to_string() };
    let secret = read.map_err(|error| Failure::from_io(format_args!("read the secret from {name}"), &error))?;
    if secret.is_empty() { Err(Failure::new(format!("{name} holds no secret: it is empty"))) } else { Ok(secret) }
}

fn read_secret(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(io::Error::other("it is too long for a secret"));
    }
    let mut secret = String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))?;
    if secret.ends_with('\n') {
        secret.pop();
        if secret.ends_with('\r') {
            secret.pop();
        }
    }
    Ok(secret)
}

/// Refuses to read two secrets from standard input, where the first would swallow the second.
pub(crate) fn at_most_one_from_stdin(paths: &[Option<&Path>]) -> Result<(), Failure> {
    if paths.iter().filter(|path| **path == Some(Path::new(STDIN))).count() > 1 {
        return Err(Failure::usage("only one secret can come from standard input").hint("Give a file for the other one."));
    }
    Ok(())
}

/// Where a password comes from: a file, or the person at the terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PasswordSource<'a> {
    /// The file, when one was given.
    pub(crate) file: Option<&'a Path>,
    /// The option that gives the file, for the message when there is neither.
    pub(crate) option: &'static str,
    /// What to ask at the terminal.
    pub(crate) prompt: &'a str,
}

impl PasswordSource<'_> {
    /// Gives a password that exists.
    pub(crate) fn read(&self) -> Result<String, Failure> {
        self.read_or(ask_secretly)
    }

    /// Gives a password that is new; it is asked for twice, because nobody sees what he types.
    pub(crate) fn read_new(&self) -> Result<String, Failure> {
        self.read_or(|prompt| {
            loop {
                let password = ask_secretly(prompt)?;
                if password == ask_secretly("Once more: ")? {
                    return Ok(password);
                }
                eprintln!("The two differ.");
            }
        })
    }

    fn read_or(&self, ask: impl Fn(&str) -> Result<String, Failure>) -> Result<String, Failure> {
        match self.file {
            Some(file) => secret_from(file),
            None if has_terminal() => ask(self.prompt),
            None => Err(Failure::usage("there is no terminal to ask for a password at")
                .hint(format!("Give it with {} FILE, where - is standard input.", self.option))),
        }
    }
}

fn ask_secretly(prompt: &str) -> Result<String, Failure> {
    let answer = rpassword::prompt_password(prompt).map_err(|error| Failure::from_io("read from the terminal", &error))?;
    if answer.is_empty() { Err(Failure::new("nothing was typed")) } else { Ok(answer) }
}

/// Asks a question at the terminal.
pub(crate) fn ask(question: &str) -> Result<String, Failure> {
    let failure = |error| Failure::from_io("read from the terminal", &error);
    let mut answer = String::new();
    eprint!("{question} ");
    io::stderr().flush().map_err(failure)?;
    io::stdin().lock().read_line(&mut answer).map_err(failure)?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// The consent to something that cannot be undone.
#[derive(Debug, Args)]
pub(crate) struct Consent {
    /// Do it without asking.
    #[arg(long, short)]
    yes: bool,
}

impl Consent {
    /// Goes on when the person wants to.
    pub(crate) fn obtain(&self, question: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !has_terminal() {
            return Err(Failure::usage("there is no terminal to ask for a confirmation at").hint("Give --yes to go on without asking."));
        }
        match ask(&format!("{question} [y/N]"))?.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::new("nothing was done")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_cut() {
        for (bytes, secret) in [
            (&b"abc"[..], "abc"),
            (b"abc\n", "abc"),
            (b"abc\r\n", "abc"),
            (b"abc\n\n", "abc\n"),
            (b" abc \n", " abc "),
            (b"abc\r", "abc\r"),
            (b"\n", ""),
        ] {
            assert_eq!(read_secret(bytes).unwrap(), secret);
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        assert!(read_secret(&b"\xff\xfe"[..]).is_err());
        assert!(read_secret(&vec![b'a'; 70_000][..]).is_err());
        assert!(secret_from(Path::new("/nonexistent/secret")).is_err());
        assert!(secret_from(Path::new("/dev/null")).unwrap_err().to_string().contains("empty"));
    }

    #[test]
    fn stdin_is_read_once() {
        let stdin = Some(Path::new("-"));
        assert!(at_most_one_from_stdin(&[stdin, None, Some(Path::new("a"))]).is_ok());
        assert!(at_most_one_from_stdin(&[stdin, stdin]).unwrap_err().is_usage());
    }
}
