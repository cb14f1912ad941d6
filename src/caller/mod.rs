//! Who is calling: the credentials of a request become one [`Caller`], once, before an operation runs. An operation only says what it
//! needs of him. Nothing else checks a credential.

mod basic;

use std::fmt;

use http::{HeaderMap, header};

use crate::{
    core::{
        Core, Error, Problem,
        ids::AppId,
        inspect::Asker,
        model::{App, Grant, SignedIn, User},
        secret::Secret,
    },
    issuer::Presented,
    store::Refresher,
};

/// The cookie that a ticket travels in.
pub const TICKET_COOKIE: &str = "suposTicket";

/// What a request shows of who sends it.
#[derive(Debug, Default)]
struct Credentials {
    authorization: Option<Authorization>,
    tickets: Vec<Secret>,
}

#[derive(Debug)]
enum Authorization {
    Basic(basic::Credential),
    Bearer(Secret),
    Ticket(Secret),
    Unknown,
}

/// Whether a ticket counts in the `authorization` of a request: for the admin service alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketScheme {
    /// It does not: a ticket travels in its cookie.
    Cookie,
    /// It does.
    Authorization,
}

impl Credentials {
    fn read(headers: &HeaderMap) -> Result<Self, Error> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let authorization = match (values.next(), values.next()) {
            (None, _) => None,
            // Envoy joins two headers with a comma.
            (Some(value), None) if !value.as_bytes().contains(&b',') => Some(Authorization::read(value.to_str().unwrap_or_default())),
            _ => return Err(Error::parameter("authorization", Problem::Ambiguous)),
        };
        let mut tickets: Vec<Secret> = Vec::new();
        for cookies in headers.get_all(header::COOKIE) {
            // In bytes: another application's cookie may be no text at all.
            for cookie in cookies.as_bytes().split(|&byte| byte == b';') {
                let ticket = cookie.trim_ascii().strip_prefix(TICKET_COOKIE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
                if let Some(ticket) = ticket.and_then(|ticket| std::str::from_utf8(ticket).ok())
                    && !tickets.iter().any(|known| known.matches(ticket.as_bytes()))
                {
                    tickets.push(Secret::new(ticket));
                }
            }
        }
        Ok(Self { authorization, tickets })
    }
}

impl Authorization {
    fn read(value: &str) -> Self {
        let (scheme, credential) = value.split_once(' ').unwrap_or((value, ""));
        let credential = credential.trim_matches(' ');
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => basic::read(credential).map_or(Self::Unknown, Self::Basic),
            "bearer" => Self::Bearer(Secret::new(credential)),
            "ticket" => Self::Ticket(Secret::new(credential)),
            _ => Self::Unknown,
        }
    }
}

/// A bearer access token, good or not.
#[derive(Debug)]
pub struct Bearer {
    token: Secret,
    presented: Option<Presented>,
    grant: Option<Grant>,
}

/// A user who is known, and by what.
#[derive(Debug)]
pub struct KnownUser<'a> {
    /// His session, and himself.
    pub signed_in: SignedIn,
    /// The app whose access token he is known by; none: by his ticket.
    pub by_token_of: Option<&'a AppId>,
}

/// Who is calling.
#[derive(Debug)]
pub struct Caller {
    app: Option<App>,
    bearer: Option<Bearer>,
    tickets: Vec<SignedIn>,
    /// He showed a ticket, dead or alive.
    showed_ticket: bool,
    /// He showed a credential of a kind that does not count, or that was wrong.
    refused: bool,
    /// A browser sent this on behalf of a page of another site.
    cross_site: bool,
}

impl Caller {
    /// Finds out who sent a request with these headers.
    ///
    /// # Errors
    /// [`Error::Parameter`] when it shows several credentials in one place; [`Error::StoreUnavailable`].
    pub async fn identify(core: &Core, headers: &HeaderMap, public_origin: &str, scheme: TicketScheme) -> Result<Self, Error> {
        let credentials = Credentials::read(headers)?;
        let mut caller = Self {
            app: None,
            bearer: None,
            tickets: Vec::new(),
            showed_ticket: false,
            refused: false,
            cross_site: is_cross_site(headers, public_origin),
        };
        let mut tickets = credentials.tickets;
        match credentials.authorization {
            None => {}
            Some(Authorization::Basic(credential)) => {
                caller.app = basic::verify(core, &credential).await?;
                caller.refused = caller.app.is_none();
            }
            Some(Authorization::Bearer(token)) => {
                let presented = core.issuer.read(token.expose());
                let grant = match &presented {
                    Some(presented) => core.inspect(presented).await?,
                    None => None,
                };
                caller.refused = grant.is_none();
                caller.bearer = Some(Bearer { token, presented, grant });
            }
            Some(Authorization::Ticket(ticket)) if scheme == TicketScheme::Authorization => tickets = vec![ticket],
            Some(Authorization::Ticket(_) | Authorization::Unknown) => caller.refused = true,
        }
        caller.showed_ticket = !tickets.is_empty();
        for ticket in &tickets {
            // A dead ticket counts as none.
            if let Some(signed_in) = core.session_of_ticket(ticket.expose()).await? {
                caller.tickets.push(signed_in);
            }
        }
        Ok(caller)
    }

    fn no_credential(&self) -> Error {
        if self.refused { Error::CredentialRefused } else { Error::CredentialRequired }
    }

    /// The app that has shown its credential.
    ///
    /// # Errors
    /// [`Error::CredentialRequired`], [`Error::CredentialRefused`].
    pub fn app(&self) -> Result<&App, Error> {
        self.app.as_ref().ok_or_else(|| self.no_credential())
    }

    /// The user who is signed in with a ticket, if one is.
    ///
    /// # Errors
    /// [`Error::Parameter`] when there are two tickets, of different sessions.
    pub fn ticket(&self) -> Result<Option<&SignedIn>, Error> {
        match self.tickets.as_slice() {
            [] => Ok(None),
            [signed_in] => Ok(Some(signed_in)),
            _ => Err(Error::parameter(TICKET_COOKIE, Problem::Ambiguous)),
        }
    }

    /// The user: by his ticket, else by an access token.
    ///
    /// # Errors
    /// [`Error::CredentialRequired`], [`Error::CredentialRefused`]; [`Error::Parameter`] when there are two tickets.
    pub fn user(&self) -> Result<KnownUser<'_>, Error> {
        if let Some(signed_in) = self.ticket()? {
            return Ok(KnownUser { signed_in: signed_in.clone(), by_token_of: None });
        }
        let grant = self.bearer.as_ref().and_then(|bearer| bearer.grant.as_ref()).ok_or_else(|| self.no_credential())?;
        let signed_in = SignedIn { session: grant.session.clone(), user: grant.user.clone() };
        Ok(KnownUser { signed_in, by_token_of: Some(&grant.family.app) })
    }

    /// The administrator.
    ///
    /// # Errors
    /// As [`Caller::user`]; [`Error::NotAllowed`] for any other user.
    pub fn administrator(&self) -> Result<User, Error> {
        let user = self.user()?.signed_in.user;
        if user.is_administrator() { Ok(user) } else { Err(Error::NotAllowed) }
    }

    /// Whoever asks about a token: the app, else the user.
    ///
    /// # Errors
    /// As [`Caller::user`].
    pub fn asker(&self) -> Result<Asker, Error> {
        if let Some(app) = &self.app {
            return Ok(Asker::App(app.id.clone()));
        }
        if self.refused {
            return Err(Error::CredentialRefused);
        }
        // A token that is shown counts before a cookie that the browser adds by itself.
        match self.bearer.as_ref().and_then(|bearer| bearer.grant.as_ref()) {
            Some(grant) => Ok(Asker::Session(grant.session.id)),
            None => self.user().map(|user| Asker::Session(user.signed_in.session.id)),
        }
    }

    /// Whoever wants to end a session. A page of another site cannot have a browser do it with the user's cookie.
    ///
    /// # Errors
    /// As [`Caller::asker`]; [`Error::NotAllowed`].
    pub fn ender(&self) -> Result<Asker, Error> {
        let asker = self.asker()?;
        let by_cookie = self.app.is_none() && self.bearer.is_none();
        if by_cookie && self.cross_site { Err(Error::NotAllowed) } else { Ok(asker) }
    }

    /// The session that a browser's ticket names, to be ended.
    ///
    /// # Errors
    /// [`Error::Parameter`] when there are two; [`Error::NotAllowed`] when a page of another site asks.
    pub fn ending(&self) -> Result<Option<&SignedIn>, Error> {
        match self.ticket()? {
            Some(_) if self.cross_site => Err(Error::NotAllowed),
            other => Ok(other),
        }
    }

    /// Whether he showed a ticket, dead or alive.
    #[must_use]
    pub const fn showed_ticket(&self) -> bool {
        self.showed_ticket
    }

    /// Who uses a refresh token: the app, or whoever holds an access token, which may have expired.
    ///
    /// # Errors
    /// [`Error::CredentialRequired`], [`Error::CredentialRefused`].
    pub fn refresher(&self) -> Result<Refresher, Error> {
        if let Some(app) = &self.app {
            return Ok(Refresher::App(app.id.clone()));
        }
        let presented = self.bearer.as_ref().and_then(|bearer| bearer.presented.as_ref());
        presented.map(|token| Refresher::Family(token.family)).ok_or_else(|| self.no_credential())
    }

    /// Whether the bearer token is, byte for byte, this one; then it is credential enough to ask about itself.
    #[must_use]
    pub fn shows(&self, access_token: &str) -> bool {
        self.bearer.as_ref().is_some_and(|bearer| bearer.token.matches(access_token.as_bytes()))
    }

    /// Whether the bearer token is good.
    #[must_use]
    pub fn bearer_is_good(&self) -> bool {
        self.bearer.as_ref().is_some_and(|bearer| bearer.grant.is_some())
    }

    /// What the bearer token says, if we signed it, whatever has become of it.
    #[must_use]
    pub fn presented(&self) -> Option<&Presented> {
        self.bearer.as_ref()?.presented.as_ref()
    }
}

impl fmt::Display for Caller {
    /// Who it is, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grant = self.bearer.as_ref().and_then(|bearer| bearer.grant.as_ref());
        match (&self.app, grant, self.tickets.first()) {
            (Some(app), ..) => write!(f, "app {}", app.id.as_str().escape_default()),
            (None, Some(grant), _) => write!(f, "user {} by token", grant.user.id),
            (None, None, Some(signed_in)) => write!(f, "user {}", signed_in.user.id),
            (None, None, None) => f.write_str("nobody"),
        }
    }
}

/// Whether a browser says that a page of another site is behind this request. Pages of the same site are let: apps on other ports and
/// names of it sign their users out here. What is no browser says nothing.
fn is_cross_site(headers: &HeaderMap, public_origin: &str) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
    match text("sec-fetch-site").as_deref() {
        Some("same-origin" | "same-site" | "none") => false,
        Some(_) => true,
        None => text("origin").is_some_and(|origin| origin != public_origin.to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn two_authorizations_are_refused_however_they_arrive() {
        for pairs in [&[("authorization", "Bearer a"), ("authorization", "Bearer a")][..], &[("authorization", "Bearer a,Bearer b")]] {
            assert!(Credentials::read(&headers(pairs)).is_err());
        }
    }

    #[test]
    fn every_cookie_header_is_read_and_equal_tickets_count_once() {
        let read =
            Credentials::read(&headers(&[("cookie", "a=b; suposTicket=one"), ("cookie", "suposTicket=two;suposTicket=one")])).unwrap();
        let tickets: Vec<&str> = read.tickets.iter().map(Secret::expose).collect();
        assert_eq!(tickets, ["one", "two"]);
        assert!(Credentials::read(&headers(&[("cookie", "supoSTicket=x; xsuposTicket=y")])).unwrap().tickets.is_empty());
        let mut beside = HeaderMap::new();
        beside.append("cookie", http::HeaderValue::from_bytes(b"name=\xe5\xbc\xa0\xff; suposTicket=good").unwrap());
        assert_eq!(Credentials::read(&beside).unwrap().tickets.len(), 1, "beside a cookie that is no text");
    }

    #[test]
    fn a_page_of_another_site_is_told_by_what_the_browser_says() {
        let origin = "https://auth.example";
        for (pairs, cross_site) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("origin", "https://auth.example")], false),
            (&[("origin", "https://auth.example.evil")], true),
            (&[("origin", "null")], true),
        ] {
            assert_eq!(is_cross_site(&headers(pairs), origin), cross_site, "{pairs:?}");
        }
    }
}
