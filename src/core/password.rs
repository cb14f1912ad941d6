//! Passwords: Argon2id, on threads of its own, as many as there are cores, which make way for those that serve calls.

use std::{
    hint::black_box,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    Error, Problem,
    secret::{Secret, random_bytes},
};

/// OWASP's parameters: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// The most that a hash made elsewhere may ask for, so that checking it cannot be used to wear the service out.
const MAX_MEMORY_KIB: u32 = 64 * 1024;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 4;
/// How many may wait for each that is being hashed. More are told to come back.
const QUEUE_PER_CORE: usize = 64;
/// How many more of those who are known.
const KNOWN_QUEUE_PER_CORE: usize = 16;
/// The longest password, in bytes.
pub const MAX_LENGTH: usize = 1024;

/// Who waits in which queue, so that whoever floods the service with guesses keeps nobody out of his own browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Anybody.
    Anybody,
    /// Those who come from where they are known, and administrators who are signed in.
    Known,
}

/// The longest password, in bytes, that is compared with common ones.
const MAX_LOOKED_AT: usize = 64;
/// The power of ten of the guesses that a password has to stand: more than the list of common ones has with its variations.
const MIN_GUESSES_LOG10: f64 = 6.0;
/// The words of this service that somebody who guesses tries first.
const PRODUCT: [&str; 2] = ["supos", "supos-auth"];

/// By how much the threads that hash are less urgent than those that serve calls (`nice`): while both have work, hashing gets a tenth of
/// the time, so that a flood of sign-ins delays nothing else, and a flood of anything else stops no sign-in.
const NICE: i32 = 10;

/// After how long without hashing its memory is given back: longer than the second for which the allocator keeps whatever was freed.
const REST: Duration = Duration::from_secs(2);
/// What is large to the allocator, in bytes. It is not written to, so it takes no memory.
const LARGE: usize = 64 * 1024 * 1024;

/// Something to do on a thread that hashes.
type Work = Box<dyn FnOnce() + Send>;

/// Hashes and checks passwords.
#[derive(Debug)]
pub struct Hasher {
    threads: mpsc::Sender<Work>,
    cores: Arc<Semaphore>,
    places: Arc<Semaphore>,
    known_places: Arc<Semaphore>,
    /// The hash of no password that anybody knows: what an unknown user's is checked against, so that he takes as long as a known one.
    nobody: String,
}

fn argon2() -> Result<Argon2<'static>, Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &Secret) -> Result<String, Error> {
    let hash: PasswordHash = argon2()?.hash_password(password.expose().as_bytes()).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(hash.to_string())
}

fn verify(password: &Secret, hash: &str) -> Result<bool, Error> {
    let hash = PasswordHash::new(hash).map_err(|_| Error::StoreUnavailable("a password hash cannot be read".into()))?;
    Ok(argon2()?.verify_password(password.expose().as_bytes(), &hash).is_ok())
}

/// Does what comes, until nothing more can, and says each time that it is done.
fn hash_what_comes(queue: &Mutex<mpsc::Receiver<Work>>, done: &mpsc::SyncSender<()>) {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::warn!("hashing passwords is as urgent as serving calls: {error}");
    }
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(work) = next else { return };
        // Its caller sees that nobody answers him.
        let _ = catch_unwind(AssertUnwindSafe(work));
        // When it has not been heard of the last time, it is heard of both.
        let _ = done.try_send(());
    }
}

/// Gives the memory of hashing back once nobody has hashed for a while. The allocator keeps what was freed, and looks at what it has kept only
/// when something large is freed again.
fn give_memory_back(done: &mpsc::Receiver<()>) {
    while done.recv().is_ok() {
        while done.recv_timeout(REST).is_ok() {}
        let mut large = Vec::<u8>::new();
        // Where there is not even room to ask for it, nothing is lost but that.
        let _ = large.try_reserve_exact(LARGE);
        drop(black_box(large));
    }
}

impl Hasher {
    /// Takes as many cores as it may use.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine has no randomness to give, or no threads.
    pub fn new(cores: usize) -> Result<Self, Error> {
        // No password is known that has this hash, and none need be.
        let random = |bytes: &[u8]| STANDARD_NO_PAD.encode(bytes);
        let (salt, output) = (random(&random_bytes::<16>()?), random(&random_bytes::<32>()?));
        let nobody = format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${output}");
        let permits = |number| Arc::new(Semaphore::new(number));
        let (places, known_places) = (permits(cores * QUEUE_PER_CORE), permits(cores * KNOWN_QUEUE_PER_CORE));
        let (threads, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        let (done, finished) = mpsc::sync_channel(1);
        let start = |name: &str, work: Work| {
            let started = thread::Builder::new().name(name.into()).spawn(work);
            started.map_err(|error| Error::Internal(format!("a thread cannot be started: {error}")))
        };
        for _ in 0..cores {
            let (queue, done) = (Arc::clone(&queue), done.clone());
            start("hash", Box::new(move || hash_what_comes(&queue, &done)))?;
        }
        start("hash-rest", Box::new(move || give_memory_back(&finished)))?;
        Ok(Self { threads, cores: permits(cores), places, known_places, nobody })
    }

    /// Waits for a core.
    async fn turn(&self, lane: Lane) -> Result<Turn, Error> {
        let busy = |_| Error::Busy { retry_after: Duration::from_secs(2) };
        let places = match lane {
            Lane::Anybody => &self.places,
            Lane::Known => &self.known_places,
        };
        let place = Arc::clone(places).try_acquire_owned().map_err(busy)?;
        let core = Arc::clone(&self.cores).acquire_owned().await.map_err(|error| Error::Internal(error.to_string()))?;
        Ok(Turn { threads: self.threads.clone(), _place: place, _core: core })
    }

    /// The hash of a password, as a PHC string.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many wait already.
    pub async fn hash(&self, password: Secret) -> Result<String, Error> {
        self.turn(Lane::Known).await?.work(move || hash(&password)).await
    }

    /// The hash of a password that somebody chose, unless it is among those that are tried first. To find that out takes up to a tenth of a
    /// second, so it is done where hashing is.
    ///
    /// # Errors
    /// [`Error::Parameter`] with that name; [`Error::Busy`] when too many wait already.
    pub async fn hash_chosen(&self, name: &'static str, password: Secret, context: Vec<String>) -> Result<String, Error> {
        let work = move || {
            check_common(name, &password, &context)?;
            hash(&password)
        };
        self.turn(Lane::Known).await?.work(work).await
    }

    /// Whether a password is the one that was hashed. With no hash it takes as long and is false. `begin` is run when its turn has come,
    /// and may call it off; `was_right` when the password is right, also where nobody waits for the answer any more.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many wait already; [`Error::StoreUnavailable`] when the hash cannot be read; whatever `begin` refuses with.
    pub async fn verify(
        &self,
        password: Secret,
        hash: Option<String>,
        lane: Lane,
        begin: impl Future<Output = Result<(), Error>>,
        was_right: impl Future<Output = ()> + Send + 'static,
    ) -> Result<bool, Error> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let turn = self.turn(lane).await?;
        begin.await?;
        let verified = tokio::spawn(async move {
            let right = turn.work(move || verify(&password, &hash)).await? && known;
            if right {
                was_right.await;
            }
            Ok(right)
        });
        verified.await.map_err(|error| Error::Internal(error.to_string()))?
    }
}

/// A place in the queue, and a core.
struct Turn {
    threads: mpsc::Sender<Work>,
    _place: OwnedSemaphorePermit,
    _core: OwnedSemaphorePermit,
}

impl Turn {
    /// Hashes. Both are kept until it is done: whoever asked may go, and the hashing goes on all the same.
    async fn work<T: Send + 'static>(self, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let stopped = || Error::Internal("hashing has stopped".into());
        let (reply, answer) = oneshot::channel();
        let threads = self.threads.clone();
        let held = move || {
            let _turn = self;
            // Whoever asked may have gone.
            let _ = reply.send(work());
        };
        threads.send(Box::new(held)).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// Checks a password that somebody chose. Only its length counts (NIST SP 800-63B section 5.1.1.2).
///
/// # Errors
/// [`Error::Parameter`] with that name.
pub fn check(name: &str, password: &Secret, min_length: usize) -> Result<(), Error> {
    let problem = match password.expose() {
        "" => Problem::Missing,
        text if text.len() > MAX_LENGTH => Problem::TooLong,
        text if text.chars().count() < min_length => Problem::TooShort,
        _ => return Ok(()),
    };
    Err(Error::parameter(name, problem))
}

/// Checks that a password that somebody chose is not among those that are tried first: some 30,000 common ones and the words of `context`,
/// also turned round, repeated, spelt with digits or with a few more characters (NIST SP 800-63B section 5.1.1.2).
///
/// # Errors
/// [`Error::Parameter`] with that name.
fn check_common(name: &str, password: &Secret, context: &[String]) -> Result<(), Error> {
    // A longer one is guarded by its length, and would take long to look at.
    if password.expose().len() > MAX_LOOKED_AT {
        return Ok(());
    }
    let context: Vec<&str> = context.iter().map(String::as_str).chain(PRODUCT).filter(|word| !word.is_empty()).collect();
    let guesses = zxcvbn::zxcvbn(password.expose(), &context).guesses_log10();
    if guesses < MIN_GUESSES_LOG10 { Err(Error::parameter(name, Problem::TooCommon)) } else { Ok(()) }
}

/// Checks a hash that was made elsewhere. It has to ask for no less work than ours: it would be quicker to guess, and whose it is could be told
/// by how soon a wrong password is refused.
///
/// # Errors
/// [`Error::Parameter`] with that name when it is no Argon2id hash, or asks for too little work or too much.
pub fn check_hash(name: &str, hash: &str) -> Result<(), Error> {
    let malformed = || Error::parameter(name, Problem::Malformed);
    let parsed = PasswordHash::new(hash).map_err(|_| malformed())?;
    let params = Params::try_from(&parsed).map_err(|_| malformed())?;
    if parsed.algorithm.as_str() != "argon2id" || parsed.hash.is_none() || parsed.salt.is_none() || hash.len() > 256 {
        return Err(malformed());
    }
    let is_fit = (MEMORY_KIB..=MAX_MEMORY_KIB).contains(&params.m_cost())
        && (PASSES..=MAX_PASSES).contains(&params.t_cost())
        && (LANES..=MAX_LANES).contains(&params.p_cost());
    if is_fit { Ok(()) } else { Err(Error::parameter(name, Problem::NotAllowed)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_right_only_against_its_own_hash() {
        let hasher = Hasher::new(2).unwrap();
        let hash = hasher.hash(Secret::new("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        let right =
            async |password, hash| hasher.verify(Secret::new(password), hash, Lane::Anybody, async { Ok(()) }, async {}).await.unwrap();
        assert!(right("correct horse", Some(hash.clone())).await);
        assert!(!right("correct horse ", Some(hash)).await);
        assert!(!right("correct horse", None).await);
    }

    #[test]
    fn a61_what_is_tried_first_is_no_password_and_what_is_merely_simple_is_one() {
        for common in [
            "password1234",
            "passwordpassword",
            "123456789012",
            "qwertyuiop12",
            "P@ssw0rd1234",
            "drowssap1234",
            "iloveyou1234",
            "aaaaaaaaaaaa",
            "abcdefghijkl",
            "letmeinletmein",
            "zhang.san2026",
            "ZHANG.SAN1234",
            "zhang.sanzhang.san",
            "supossupos12",
        ] {
            assert!(check_common("p", &Secret::new(common), &["zhang.san".to_owned(), "P0001".to_owned()]).is_err(), "{common}");
        }
        for fine in ["correct horse battery", "我的工厂密码很长很长", "three plain words", "kX9$mQ2#vL7!", &"a".repeat(65)] {
            assert!(check_common("p", &Secret::new(fine), &["zhang.san".to_owned(), String::new()]).is_ok(), "{fine}");
        }
    }

    #[test]
    fn a_hash_made_elsewhere_is_taken_when_it_is_argon2id_and_no_less_work_than_ours_and_not_too_much() {
        let salt_and_hash = "c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b2dWRWJTmaaJObG3Yfw5Q1cV0U";
        for good in ["m=19456,t=2,p=1", "m=65536,t=10,p=4"] {
            assert_eq!(check_hash("h", &format!("$argon2id$v=19${good}${salt_and_hash}")), Ok(()), "{good}");
        }
        for weak in ["m=8,t=1,p=1", "m=19455,t=2,p=1", "m=65536,t=1,p=1"] {
            let checked = check_hash("h", &format!("$argon2id$v=19${weak}${salt_and_hash}"));
            assert_eq!(checked, Err(Error::parameter("h", Problem::NotAllowed)), "{weak}");
        }
        for bad in [
            format!("$argon2i$v=19$m=19456,t=2,p=1${salt_and_hash}"),
            format!("$argon2id$v=19$m=1048576,t=2,p=1${salt_and_hash}"),
            format!("$argon2id$v=19$m=19456,t=1000,p=1${salt_and_hash}"),
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA".to_owned(),
            "$2b$12$abcdefghijklmnopqrstuv".to_owned(),
            String::new(),
        ] {
            assert!(check_hash("h", &bad).is_err(), "{bad}");
        }
    }
}
