//! The tickets of the services that one is signed in at, kept for the commands that follow.

use std::{
    collections::BTreeMap,
    env, fmt,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{connection::ServerUrl, failure::Failure};

const ENV_TICKET: &str = "SUPOS_AUTH_TICKET";

/// A ticket: whoever holds it is the user. Fit for a header and a cookie; never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Ticket(String);

/// The text cannot be a ticket.
#[derive(Debug, Error)]
#[error("the ticket holds characters that no ticket has")]
pub(crate) struct NoTicket;

impl Ticket {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Ticket {
    type Error = NoTicket;

    fn try_from(text: String) -> Result<Self, NoTicket> {
        // The characters that RFC 6265 lets a cookie have; anything else would end the cookie or the header early.
        let allowed = |byte: u8| byte.is_ascii_graphic() && !br#"",;\"#.contains(&byte);
        if text.is_empty() || !text.bytes().all(allowed) { Err(NoTicket) } else { Ok(Self(text)) }
    }
}

impl FromStr for Ticket {
    type Err = NoTicket;

    fn from_str(text: &str) -> Result<Self, NoTicket> {
        Self::try_from(text.to_owned())
    }
}

impl From<Ticket> for String {
    fn from(ticket: Ticket) -> Self {
        ticket.0
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(..)")
    }
}

/// Who is signed in at a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignedIn {
    pub(crate) user_name: String,
    pub(crate) ticket: Ticket,
}

/// The ticket that the environment gives, which goes before the kept one.
pub(crate) fn from_environment() -> Result<Option<Ticket>, Failure> {
    match env::var(ENV_TICKET) {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|error: NoTicket| Failure::usage(format!("{ENV_TICKET}: {error}"))),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::usage(format!("{ENV_TICKET}: {NoTicket}"))),
    }
}

/// The ticket to show to a service: the environment's, else the kept one.
pub(crate) fn current(server: &ServerUrl) -> Result<Option<Ticket>, Failure> {
    match from_environment()? {
        Some(ticket) => Ok(Some(ticket)),
        None => Ok(TicketFile::of_this_user()?.get(server)?.map(|signed_in| signed_in.ticket)),
    }
}

/// The file that tickets are kept in, by service. Only its owner can read it.
#[derive(Debug)]
pub(crate) struct TicketFile {
    directory: PathBuf,
}

type Tickets = BTreeMap<String, SignedIn>;

impl TicketFile {
    /// The file of the person who runs the command.
    pub(crate) fn of_this_user() -> Result<Self, Failure> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        absolute("XDG_CONFIG_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".config")))
            .map(|config| Self::in_directory(config.join("supos-auth")))
            .ok_or_else(|| {
                Failure::new("there is no home directory to keep tickets in").hint(format!("Set HOME, or give the ticket as {ENV_TICKET}."))
            })
    }

    fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.join("tickets.json")
    }

    /// Who is signed in at the service.
    pub(crate) fn get(&self, server: &ServerUrl) -> Result<Option<SignedIn>, Failure> {
        Ok(self.read()?.remove(server.as_str()))
    }

    /// Makes sure that a ticket can be kept.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        self.change(|_| ())
    }

    /// Keeps a ticket, in place of an older one for the same service.
    pub(crate) fn put(&self, server: &ServerUrl, signed_in: SignedIn) -> Result<(), Failure> {
        self.change(|tickets| {
            tickets.insert(server.as_str().to_owned(), signed_in);
        })
    }

    /// Forgets the ticket for the service.
    pub(crate) fn remove(&self, server: &ServerUrl) -> Result<(), Failure> {
        self.change(|tickets| {
            tickets.remove(server.as_str());
        })
    }

    fn read(&self) -> Result<Tickets, Failure> {
        let path = self.path();
        match fs::read(&path) {
            // serde_json's own text may quote what it found, and that may be a ticket.
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| {
                Failure::new(format!("{} is not a file of tickets", path.display()))
                    .hint("Remove it and sign in again: `supos-auth login`.")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Tickets::new()),
            Err(error) => Err(Failure::from_io(format_args!("read {}", path.display()), &error)),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Tickets)) -> Result<(), Failure> {
        let failure = |error| {
            Failure::from_io(format_args!("write {}", self.path().display()), &error)
                .hint("Name a folder that tickets can be kept in, as XDG_CONFIG_HOME.")
        };
        self.make_directory().map_err(failure)?;
        // Two commands that sign in at two services at once must both leave their ticket.
        let lock = private().write(true).create(true).truncate(false).open(self.directory.join("tickets.lock")).map_err(failure)?;
        lock.lock().map_err(failure)?;
        let mut tickets = self.read()?;
        change(&mut tickets);
        self.write(&tickets).map_err(failure)
    }

    fn make_directory(&self) -> io::Result<()> {
        if let Some(parent) = self.directory.parent() {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::set_permissions(&self.directory, Permissions::from_mode(0o700))
            }
            result => result,
        }
    }

    /// Writes a new file and puts it into the old one's place, so that there is a whole one at any time.
    fn write(&self, tickets: &Tickets) -> io::Result<()> {
        let temporary = self.directory.join(format!("tickets.{}.tmp", process::id()));
        remove_if_there(&temporary)?;
        let mut file = private().write(true).create_new(true).open(&temporary)?;
        let written = serde_json::to_vec_pretty(tickets)
            .map_err(io::Error::from)
            .and_then(|json| file.write_all(&json))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, self.path()))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        if written.is_err() {
            remove_if_there(&temporary)?;
        }
        written
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed_in(user_name: &str) -> SignedIn {
        SignedIn { user_name: user_name.to_owned(), ticket: format!("ticket-of-{user_name}").parse().unwrap() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keeps_and_forgets_by_service() {
        let home = tempfile::tempdir().unwrap();
        let file = TicketFile::in_directory(home.path().join("deep/supos-auth"));
        let (here, there): (ServerUrl, ServerUrl) = ("http://127.0.0.1:50051".parse().unwrap(), "https://auth.example".parse().unwrap());
        assert_eq!(file.get(&here).unwrap(), None);
        file.put(&here, signed_in("a")).unwrap();
        file.put(&there, signed_in("b")).unwrap();
        file.put(&here, signed_in("c")).unwrap();
        assert_eq!(file.get(&here).unwrap(), Some(signed_in("c")));
        file.remove(&here).unwrap();
        assert_eq!(file.get(&here).unwrap(), None);
        assert_eq!(file.get(&there).unwrap(), Some(signed_in("b")));
    }

    #[test]
    fn only_the_owner_can_read() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("supos-auth");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("tickets.json"), "{}").unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let file = TicketFile::in_directory(directory.clone());
        file.put(&"http://a".parse().unwrap(), signed_in("a")).unwrap();
        assert_eq!((mode(&directory), mode(&file.path())), (0o700, 0o600));
        let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
    }

    #[test]
    fn a_broken_file_is_told_without_its_content() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("tickets.json"), r#"{"http://a": "secret-ticket"}"#).unwrap();
        let failure = TicketFile::in_directory(home.path().to_owned()).get(&"http://a".parse().unwrap()).unwrap_err().to_string();
        assert!(failure.contains("not a file of tickets") && !failure.contains("secret-ticket"), "{failure}");
    }

    #[test]
    fn a_ticket_fits_a_header_and_a_cookie() {
        assert!("Zm9v-_.~=+/".parse::<Ticket>().is_ok());
        for text in ["", "a b", "a;b", "a,b", "a\"b", "a\\b", "a\nb", "é"] {
            assert!(text.parse::<Ticket>().is_err(), "{text:?}");
        }
        assert_eq!(format!("{:?}", signed_in("a").ticket), "Ticket(..)");
    }
}
