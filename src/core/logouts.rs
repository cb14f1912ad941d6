//! Telling apps that a session has ended (docs/api.md, "Sign-out"): whom, where, and how often it is tried.
//!
//! The store owes the calls from the very step that ends the session. Who makes them is not decided here.

use std::{fmt, time::Duration};

use aws_lc_rs::digest;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;
use url::{Position, Url};

use super::{
    Core, Error,
    clock::Timestamp,
    ids::{AppId, Incarnation, LogoutId, SessionId, UserId},
    model::{App, Family, Session},
    redirect,
    secret::{BearerHash, Secret, random_bytes},
};

/// How long a call is tried.
pub const GIVE_UP_AFTER: Duration = Duration::from_hours(24);
/// How long operators can see a call that was given up: longer than a weekend.
pub const SHOWN_FOR: Duration = Duration::from_hours(72);
/// About how long after the first try the second one is made. Each further one waits twice as long.
const FIRST_DELAY: Duration = Duration::from_secs(2);
/// How long it is between two tries at the most.
const MAX_DELAY: Duration = Duration::from_mins(30);
/// The longest address that is called, in bytes: it is kept in a record.
const MAX_ADDRESS: usize = 2048;
/// The longest error that is kept, in bytes.
const MAX_ERROR: usize = 256;
/// The most characters of a `logoutUri` that are logged.
const MAX_LOGGED: usize = 200;

/// Why a `logoutUri` is kept for the log and never called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum Uncallable {
    /// It is no URL, also when it is read beside the redirect URI.
    #[error("it is no URL")]
    Malformed,
    /// It is longer than is kept.
    #[error("it is too long")]
    TooLong,
    /// It is of another scheme than http and https.
    #[error("it is not http or https")]
    NotWeb,
    /// It has a user name or a password in it.
    #[error("it has user-info in it")]
    UserInfo,
    /// It is on an origin that none of the app's redirect and logout URIs is on.
    #[error("it is not on an origin that the app has registered")]
    OtherOrigin,
}

/// Where an app wants to be told: what it said, resolved against the origin of the redirect URI. Whatever it said is judged by what a
/// client makes of it: `//evil`, `/\evil`, `https:evil` and their like lead to another origin only once they are resolved.
///
/// # Errors
/// [`Uncallable`] says why it is never called.
pub fn address(app: &App, redirect_origin: &str, said: &str) -> Result<Url, Uncallable> {
    let base = Url::parse(redirect_origin).ok();
    let mut url = Url::options().base_url(base.as_ref()).parse(said).map_err(|_| Uncallable::Malformed)?;
    url.set_fragment(None);
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Uncallable::NotWeb);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Uncallable::UserInfo);
    }
    let origin = url.origin().ascii_serialization();
    let registered = |entry: &String| redirect::origin(entry.strip_suffix('*').unwrap_or(entry)) == origin;
    if !app.redirect_uris.iter().chain(&app.logout_uris).any(registered) {
        return Err(Uncallable::OtherOrigin);
    }
    if url.as_str().len() > MAX_ADDRESS { Err(Uncallable::TooLong) } else { Ok(url) }
}

/// An address as it may be logged and shown: a query or user-info can hold secrets of the app.
#[must_use]
pub fn shown(said: &str) -> String {
    let kept = match Url::parse(said) {
        Ok(url) if url.has_host() => format!("{}{}", &url[..Position::BeforeUsername], &url[Position::BeforeHost..Position::AfterPath]),
        _ => {
            let kept = said.split(['?', '#']).next().unwrap_or_default();
            kept.rsplit_once('@').map_or_else(|| kept.to_owned(), |(_, rest)| format!("…@{rest}"))
        }
    };
    kept.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).take(MAX_LOGGED).collect()
}

/// A call that is owed to an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedLogout {
    /// Its id, and the `jti` of each token that it is tried with.
    pub id: LogoutId,
    /// The app.
    pub app: AppId,
    /// Which life of the app.
    pub incarnation: Incarnation,
    /// Where it is told.
    pub uri: String,
    /// Whose session has ended.
    pub user: UserId,
    /// Which session has ended.
    pub session: SessionId,
    /// When it ended.
    pub created_at: Timestamp,
    /// When the call is tried next.
    pub next_try_at: Timestamp,
    /// How often it was tried.
    pub tries: u32,
    /// How the last try went, in words; empty before the first.
    pub last_error: String,
    /// When it was given up; none: it was not.
    pub given_up_at: Option<Timestamp>,
}

/// Calls that wait for one another: those to one app at one origin. What is slow or dead there delays nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane([u8; 16]);

impl Lane {
    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// How many addresses are known to be callable at the most.
const CALLABLE: usize = 1024;

/// What apps have left lately that may be called, and as of which change of the app: to judge it anew at each exchange takes longer than
/// much else of it.
pub struct CallableUris(Cache<BearerHash, Timestamp>);

impl Default for CallableUris {
    fn default() -> Self {
        Self(Cache::new(CALLABLE))
    }
}

impl fmt::Debug for CallableUris {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallableUris(…)")
    }
}

/// What became of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The app was told, or is not there any more.
    Settled,
    /// It is tried again.
    Again {
        /// What went wrong, in words.
        error: String,
        /// When to try again.
        at: Timestamp,
    },
    /// It is not tried again.
    GivenUp {
        /// What went wrong, in words.
        error: String,
        /// When it was given up.
        at: Timestamp,
    },
}

/// What is to be done about a call that is due.
#[derive(Clone, Debug)]
pub enum Due {
    /// Send it.
    Call {
        /// Where.
        url: Url,
        /// With this `logout_token`.
        token: Secret,
    },
    /// Nothing: the app was deleted.
    AppDeleted,
    /// Nothing: the address is none of the app's any more.
    Uncallable(Uncallable),
}

impl OwedLogout {
    /// The call that `app` is owed now that `session` has ended, if it left an address that may be called.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine has no randomness to give.
    pub fn new(app: &App, family: &Family, session: &Session, now: Timestamp) -> Result<Option<Self>, Error> {
        if family.logout_uri.is_empty() || family.app != app.id || family.incarnation != app.incarnation {
            return Ok(None);
        }
        let Ok(url) = address(app, &family.redirect_origin, &family.logout_uri) else { return Ok(None) };
        Ok(Some(Self {
            id: LogoutId::at(now)?,
            app: app.id.clone(),
            incarnation: app.incarnation,
            uri: url.into(),
            user: session.user,
            session: session.id,
            created_at: now,
            next_try_at: now,
            tries: 0,
            last_error: String::new(),
            given_up_at: None,
        }))
    }

    /// Which calls it waits for.
    #[must_use]
    pub fn lane(&self) -> Lane {
        let origin = Url::parse(&self.uri).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
        let hash = digest::digest(&digest::SHA256, format!("{}\n{origin}", self.app).as_bytes());
        let mut lane = [0; 16];
        lane.copy_from_slice(&hash.as_ref()[..16]);
        Lane(lane)
    }

    /// Whether it has been owed for so long that it is given up.
    #[must_use]
    pub fn is_too_old(&self, now: Timestamp) -> bool {
        self.created_at.after(GIVE_UP_AFTER) <= now
    }

    /// Notes what went wrong.
    pub fn note_error(&mut self, error: &str) {
        self.last_error = error.chars().filter(|char| !char.is_control()).collect();
        self.last_error.truncate(self.last_error.floor_char_boundary(MAX_ERROR));
    }

    /// When to try again after a failure.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine has no randomness to give.
    pub fn retry_at(&self, now: Timestamp) -> Result<Timestamp, Error> {
        Ok(now.after(backoff(self.tries, MAX_DELAY)?).min(self.created_at.after(GIVE_UP_AFTER)))
    }
}

/// How long to wait after so many failures before the one that has just happened: twice as long each time, up to `most`; and between half
/// of that and all of it, so that many who failed together do not come back together.
///
/// # Errors
/// [`Error::Internal`] when the machine has no randomness to give.
pub fn backoff(failures: u32, most: Duration) -> Result<Duration, Error> {
    let whole = FIRST_DELAY.saturating_mul(1 << failures.min(16)).min(most);
    let half = whole / 2;
    Ok(half + half.mul_f64(f64::from(u16::from_be_bytes(random_bytes()?)) / f64::from(u16::MAX)))
}

impl Core {
    /// Says in the log what an app left as its `logoutUri` where that is never called.
    pub(super) async fn note_logout_uri(&self, family: &Family, session: SessionId) {
        if family.logout_uri.is_empty() {
            return;
        }
        // The code is used up by now: nothing that happens here makes the exchange fail.
        let Ok(Some(app)) = self.store.app(&family.app).await else { return };
        let what = BearerHash::of_logout(app.id.as_str(), app.incarnation.as_bytes(), &family.redirect_origin, &family.logout_uri);
        if self.callable.0.get(&what) == Some(app.updated_at) {
            return;
        }
        match address(&app, &family.redirect_origin, &family.logout_uri) {
            Ok(_) => self.callable.0.insert(what, app.updated_at),
            Err(reason) => {
                let said = shown(&family.logout_uri);
                tracing::info!(app = %app.id, %session, logout_uri = ?said, %reason, "an app's logoutUri is never called");
            }
        }
    }

    /// What is to be done about a call that is due. The app is looked at again: it may have been changed or deleted since.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`]; [`Error::Internal`] when no key may sign now.
    pub async fn due_logout(&self, owed: &OwedLogout) -> Result<Due, Error> {
        let app = self.store.app(&owed.app).await?.filter(|app| app.incarnation == owed.incarnation);
        let Some(app) = app else { return Ok(Due::AppDeleted) };
        match address(&app, "", &owed.uri) {
            Ok(url) => {
                self.keep_signing_keys().await?;
                Ok(Due::Call { url, token: self.issuer.mint_logout(owed, self.now())? })
            }
            Err(reason) => Ok(Due::Uncallable(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::rights::Rights;

    fn app() -> App {
        App {
            id: AppId::new("shop").unwrap(),
            incarnation: Incarnation::random().unwrap(),
            display_name: String::new(),
            redirect_uris: vec!["http://good.example:8080/a/*".into(), "com.example.app://cb/x".into(), "https://10.1.2.3/cb".into()],
            logout_uris: vec!["https://out.example/logout".into()],
            enabled: true,
            refresh_requires_app_credential: false,
            secrets: Vec::new(),
            created_at: Timestamp::from_millis(0),
            updated_at: Timestamp::from_millis(0),
            rights: Rights::default(),
            signature_requires_date: false,
        }
    }

    const ORIGIN: &str = "http://good.example:8080";

    fn called(said: &str) -> Result<String, Uncallable> {
        address(&app(), ORIGIN, said).map(String::from)
    }

    #[test]
    fn what_an_app_says_is_resolved_against_the_origin_of_its_redirect_uri() {
        let cases = [
            ("/logout", "http://good.example:8080/logout"),
            ("logout", "http://good.example:8080/logout"),
            ("/a/../b?x=1#f", "http://good.example:8080/b?x=1"),
            ("?x=1", "http://good.example:8080/?x=1"),
            ("http://good.example:8080/other", "http://good.example:8080/other"),
            ("HTTP://GOOD.example:8080/other", "http://good.example:8080/other"),
            ("https://out.example/elsewhere", "https://out.example/elsewhere"),
            ("https://10.1.2.3:443/x", "https://10.1.2.3/x"),
            ("  /spaces  ", "http://good.example:8080/spaces"),
        ];
        for (said, expected) in cases {
            assert_eq!(called(said).as_deref(), Ok(expected), "{said:?}");
        }
        assert_eq!(address(&app(), "null", "https://out.example/x").map(String::from).as_deref(), Ok("https://out.example/x"));
        assert_eq!(address(&app(), "null", "/x"), Err(Uncallable::Malformed), "an app's own scheme has no origin to resolve against");
    }

    #[test]
    fn an_address_that_is_elsewhere_once_it_is_resolved_is_never_called() {
        for said in [
            "//evil.example/x",
            "/\\evil.example/x",
            "\\\\evil.example/x",
            "\\/evil.example",
            "https:evil.example",
            "https:/evil.example",
            "https:///evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "\t//evil.example",
            "ht\ntp://evil.example",
            " //evil.example",
            "http://good.example.evil.example:8080/",
            "http://good.example/",
            "https://good.example:8080/",
            "http://evil.example\\@good.example:8080/",
            "http://evil.example#@good.example:8080/",
            "http://evil.example?@good.example:8080/",
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://2130706433/",
            "http://com.example.app/",
        ] {
            assert_eq!(called(said), Err(Uncallable::OtherOrigin), "{said:?}");
        }
        for said in ["http://evil.example@good.example:8080/", "http://u:p@good.example:8080/"] {
            assert_eq!(called(said), Err(Uncallable::UserInfo), "{said:?}");
        }
        for said in ["file:///etc/passwd", "gopher://good.example/", "unix:/x", "javascript:alert(1)", "com.example.app://cb/x", "data:,x"]
        {
            assert_eq!(called(said), Err(Uncallable::NotWeb), "{said:?}");
        }
        for said in ["http://", "http://[fe80::1%25lo]/", "https://a b/"] {
            assert_eq!(called(said), Err(Uncallable::Malformed), "{said:?}");
        }
        assert_eq!(called(&format!("/{}", "x".repeat(3000))), Err(Uncallable::TooLong));
    }

    #[test]
    fn what_is_logged_of_an_address_has_no_secret_and_no_line_of_its_own() {
        assert_eq!(shown("https://u:p@h/x?token=1#f"), "https://h/x");
        assert_eq!(shown("https://h/@x"), "https://h/@x");
        assert_eq!(shown("//u:p@h/x?token=1#f"), "…@h/x");
        assert_eq!(shown("a\r\nb\u{1b}[31m"), "a\u{fffd}\u{fffd}b\u{fffd}[31m");
        assert_eq!(shown(&"x".repeat(5000)).len(), MAX_LOGGED);
    }

    #[test]
    fn tries_are_further_and_further_apart_and_end_after_a_day() {
        for failures in 0..40 {
            let whole = (2_u64 << failures.min(20)).min(1800);
            for _ in 0..20 {
                let delay = backoff(failures, MAX_DELAY).unwrap();
                assert!(delay >= Duration::from_secs(whole) / 2 && delay <= Duration::from_secs(whole), "{failures}: {delay:?}");
            }
        }
        let now = Timestamp::from_millis(1_800_000_000_000);
        let id = LogoutId::at(now).unwrap();
        let mut owed = OwedLogout {
            id,
            app: app().id,
            incarnation: app().incarnation,
            uri: "https://out.example/".into(),
            user: UserId::random().unwrap(),
            session: SessionId::random().unwrap(),
            created_at: now,
            next_try_at: now,
            tries: 60,
            last_error: String::new(),
            given_up_at: None,
        };
        let end = now.after(GIVE_UP_AFTER);
        assert_eq!(owed.retry_at(now.after(GIVE_UP_AFTER.checked_sub(Duration::from_secs(1)).unwrap())).unwrap(), end);
        assert!(owed.is_too_old(end) && !owed.is_too_old(now));
        owed.note_error(&"\u{1f512}\n".repeat(5000));
        assert!(owed.last_error.len() <= MAX_ERROR && !owed.last_error.contains('\n'));
    }

    #[test]
    fn calls_to_another_origin_or_of_another_app_do_not_wait_for_each_other() {
        let now = Timestamp::from_millis(0);
        let owed = |app: &str, uri: &str| OwedLogout {
            id: LogoutId::at(now).unwrap(),
            app: AppId::new(app).unwrap(),
            incarnation: Incarnation::from_bytes([0; 16]),
            uri: uri.to_owned(),
            user: UserId::from_bytes([0; 16]),
            session: SessionId::from_bytes([0; 16]),
            created_at: now,
            next_try_at: now,
            tries: 0,
            last_error: String::new(),
            given_up_at: None,
        };
        let lane = |app, uri| owed(app, uri).lane();
        assert_eq!(lane("a", "http://h/x"), lane("a", "http://h:80/y?z"));
        assert_ne!(lane("a", "http://h/x"), lane("b", "http://h/x"));
        assert_ne!(lane("a", "http://h/x"), lane("a", "http://h:81/x"));
    }
}
