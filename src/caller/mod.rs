//! Who is calling: the credentials of a request become one [`Caller`], once, before an operation runs. An operation only says what it
//! needs of him. Nothing else checks a credential.

mod cookies;
mod refusals;
mod sign;

use std::{fmt, net::IpAddr, sync::Arc};

use aws_lc_rs::constant_time;
use http::{HeaderMap, HeaderValue, header};

use self::sign::SignedBy;
pub use self::{cookies::Cookies, refusals::Refusals, sign::Unspent};
use crate::{
    core::{
        Core, Error, Problem,
        authorities::Registrar,
        ids::AppId,
        inspect::Asker,
        model::{Grant, SignedIn, User},
        rights::Right,
        secret::Secret,
        throttle::Source,
    },
    dialect::operation::Operation,
    issuer::Presented,
    sign::Query,
    store::{OneUse, Refresher},
};

/// Somebody of whom nothing is known, for the log.
pub const NOBODY: &str = "nobody";
/// The cookie that a ticket travels in.
pub const TICKET_COOKIE: &str = "suposTicket";
/// The cookie by which a browser is known.
pub const BROWSER_COOKIE: &str = "suposBrowser";
/// How many cookies of one name are looked at: each costs a look into the store, and who sends them need be nobody.
const MAX_COOKIES: usize = 8;
/// The cookie of a browser that has begun to sign in at a third-party authority.
pub const BINDING_COOKIE: &str = "suposThird";
/// The header that deployed clients put an access token in, beside a signature.
const TOKEN_HEADER: &str = "token";

/// A call, as far as it says who makes it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// `/package.Service/Method`.
    pub rpc: &'static str,
    /// The headers, or metadata.
    pub headers: &'a HeaderMap,
    /// The HTTP call that Envoy made this one of; none: it is native gRPC.
    pub original: Option<OriginalCall<'a>>,
    /// Where it comes from.
    pub address: Option<IpAddr>,
    /// What may be in its `authorization`.
    pub schemes: Schemes,
    /// Scheme, host and port of the public URL, as a browser writes them.
    pub public_origin: &'a str,
}

/// An HTTP call as it was sent to Envoy.
#[derive(Clone, Copy, Debug)]
pub struct OriginalCall<'a> {
    /// The operation that its method and path are bound to.
    pub operation: &'static Operation,
    /// The method, in capitals.
    pub method: &'a str,
    /// The path as sent, without the query.
    pub path: &'a str,
    /// The query.
    pub query: &'a Query,
}

/// What counts in the `authorization` of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schemes {
    /// Sign and Bearer: the interface's operations. A ticket travels in its cookie.
    Interface,
    /// Bearer and Ticket: the admin API, which takes no Sign.
    Admin,
}

/// What a request shows of who sends it.
#[derive(Debug, Default)]
struct Credentials {
    authorization: Option<Authorization>,
    /// The access token beside a signature.
    token: Option<InHeader>,
    tickets: Vec<Secret>,
    browsers: Vec<Secret>,
    bindings: Vec<Secret>,
}

/// A token in the header that it came in. Callers send one with each call, so it is not copied.
struct InHeader {
    header: HeaderValue,
    /// Where it begins, and where it ends.
    at: (usize, usize),
}

impl fmt::Debug for InHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InHeader(…)")
    }
}

impl InHeader {
    /// This part of what the header says.
    fn part(header: &HeaderValue, part: &str) -> Self {
        let begin = part.as_ptr().addr().saturating_sub(header.as_bytes().as_ptr().addr());
        Self { header: header.clone(), at: (begin, begin + part.len()) }
    }

    fn expose(&self) -> &str {
        let bytes = self.header.as_bytes().get(self.at.0..self.at.1).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Whether it is this one, in a time that depends on their lengths alone.
    fn matches(&self, other: &str) -> bool {
        constant_time::verify_slices_are_equal(self.expose().as_bytes(), other.as_bytes()).is_ok()
    }
}

#[derive(Debug)]
enum Authorization {
    Sign(sign::Credential),
    Bearer(InHeader),
    Ticket(Secret),
    Unknown,
}

impl Credentials {
    fn read(headers: &HeaderMap) -> Result<Self, Error> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let authorization = match (values.next(), values.next()) {
            (None, _) => None,
            // Envoy joins two headers with a comma.
            (Some(value), None) if !value.as_bytes().contains(&b',') => Some(Authorization::read(value)),
            _ => return Err(Error::parameter("authorization", Problem::Ambiguous)),
        };
        let token = match authorization {
            Some(Authorization::Sign(_) | Authorization::Bearer(_)) => read_token(headers)?,
            // By itself it is no credential.
            _ => None,
        };
        if let (Some(Authorization::Bearer(bearer)), Some(token)) = (&authorization, &token)
            && !bearer.matches(token.expose())
        {
            return Err(Error::parameter(TOKEN_HEADER, Problem::Ambiguous));
        }
        let mut tickets: Vec<Secret> = Vec::new();
        for ticket in cookies(headers, TICKET_COOKIE).take(MAX_COOKIES) {
            if !tickets.iter().any(|known| known.matches(ticket.as_bytes())) {
                tickets.push(Secret::new(ticket));
            }
        }
        let some = |name| cookies(headers, name).take(MAX_COOKIES).map(Secret::new).collect();
        let (browsers, bindings) = (some(BROWSER_COOKIE), some(BINDING_COOKIE));
        Ok(Self { authorization, token, tickets, browsers, bindings })
    }
}

/// The values of a cookie.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    // In bytes: another application's cookie may be no text at all.
    let all = headers.get_all(header::COOKIE).into_iter().flat_map(|cookies| cookies.as_bytes().split(|&byte| byte == b';'));
    let named = all.filter_map(move |cookie| cookie.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    named.filter_map(|value| std::str::from_utf8(value).ok())
}

/// The access token beside a signature: the token alone, or as it stands in an `Authorization: Bearer`.
fn read_token(headers: &HeaderMap) -> Result<Option<InHeader>, Error> {
    let mut values = headers.get_all(TOKEN_HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(header), None) => {
            let value = header.to_str().unwrap_or_default().trim_matches(' ');
            let token = match value.split_once(' ') {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_matches(' '),
                _ => value,
            };
            Ok(Some(token).filter(|token| !token.is_empty()).map(|token| InHeader::part(header, token)))
        }
        _ => Err(Error::parameter(TOKEN_HEADER, Problem::Twice)),
    }
}

impl Authorization {
    fn read(header: &HeaderValue) -> Self {
        let value = header.to_str().unwrap_or_default();
        let (scheme, credential) = value.split_once(' ').unwrap_or((value, ""));
        let credential = credential.trim_matches(' ');
        if scheme.eq_ignore_ascii_case("sign") {
            Self::Sign(sign::read(credential))
        } else if scheme.eq_ignore_ascii_case("bearer") {
            Self::Bearer(InHeader::part(header, credential))
        } else if scheme.eq_ignore_ascii_case("ticket") {
            Self::Ticket(Secret::new(credential))
        } else {
            Self::Unknown
        }
    }
}

/// A bearer access token, good or not.
#[derive(Debug)]
pub struct Bearer {
    token: InHeader,
    presented: Option<Arc<Presented>>,
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
    app: Option<SignedBy>,
    bearer: Option<Bearer>,
    tickets: Vec<SignedIn>,
    /// He showed a ticket, dead or alive.
    showed_ticket: bool,
    /// He showed a credential of a kind that does not count, or that was wrong.
    refused: bool,
    page: Page,
    source: Source,
    bindings: Vec<Secret>,
}

impl Bearer {
    async fn read(core: &Core, token: InHeader) -> Result<Self, Error> {
        let presented = core.read_token(token.expose()).await?;
        let grant = match &presented {
            Some(presented) => core.inspect(presented).await?,
            None => None,
        };
        Ok(Self { token, presented, grant })
    }
}

impl Caller {
    /// Finds out who makes a call. A signature that works once is given besides: it is not used up yet.
    ///
    /// # Errors
    /// [`Error::Parameter`] when it shows several credentials in one place, or what it signs could be taken for another call;
    /// [`Error::TooManyTries`]; [`Error::StoreUnavailable`].
    pub async fn identify(core: &Core, refusals: &Refusals, call: &Call<'_>) -> Result<(Self, Option<Unspent>), Error> {
        let credentials = Credentials::read(call.headers)?;
        // A page elsewhere on the site can set another cookie of that name, which makes the browser's own no less good.
        let browser = credentials.browsers.iter().find_map(|browser| core.browser(browser.expose()));
        let mut caller = Self {
            app: None,
            bearer: None,
            tickets: Vec::new(),
            showed_ticket: false,
            refused: false,
            page: page_behind(call.headers, call.public_origin),
            source: Source { address: call.address, browser },
            bindings: credentials.bindings,
        };
        let mut unspent = None;
        let mut tickets = credentials.tickets;
        match (credentials.authorization, call.schemes) {
            (None, _) => {}
            (Some(Authorization::Sign(credential)), Schemes::Interface) => {
                match sign::verify(core, refusals, &credential, call, &caller.source).await? {
                    Some((signed, once)) => (caller.app, unspent) = (Some(signed), once),
                    None => caller.refused = true,
                }
            }
            (Some(Authorization::Bearer(token)), _) => {
                let bearer = Bearer::read(core, token).await?;
                caller.refused = bearer.grant.is_none();
                caller.bearer = Some(bearer);
            }
            (Some(Authorization::Ticket(ticket)), Schemes::Admin) => tickets = vec![ticket],
            (Some(_), _) => caller.refused = true,
        }
        if let (Some(signed), Some(token)) = (&caller.app, credentials.token) {
            let bearer = Bearer::read(core, token).await?;
            match &bearer.presented {
                // One that has expired adds nothing, and takes nothing from the signature: clients send it along when they refresh.
                Some(presented) if presented.app == signed.app.id => {
                    if bearer.grant.is_some() {
                        caller.bearer = Some(bearer);
                    }
                }
                _ => {
                    caller.app = None;
                    caller.refused = true;
                    // It says nothing of who calls. Of itself it may be asked still: clients that ask whether a token is good send it here, too.
                    caller.bearer = Some(Bearer { token: bearer.token, presented: None, grant: None });
                }
            }
        }
        caller.showed_ticket = !tickets.is_empty();
        for ticket in &tickets {
            // A dead ticket counts as none.
            if let Some(signed_in) = core.session_of_ticket(ticket.expose()).await? {
                caller.tickets.push(signed_in);
            }
        }
        Ok((caller, unspent))
    }

    /// Refuses what he has signed, and what he has shown beside it: the signature was used before.
    pub fn refuse_signature(&mut self) {
        (self.app, self.bearer, self.refused) = (None, None, true);
    }

    /// What his credential is used up by, for the step that is done by it: gives it once, where it works once.
    #[must_use]
    pub fn take_use(&self) -> Option<OneUse> {
        self.app.as_ref()?.once.take()
    }

    const fn is_cross_site(&self) -> bool {
        matches!(self.page, Page::Elsewhere)
    }

    /// Whether no page but one of ours can have sent this. Who is signed in by a form is as much as who is signed out, so pages of the same
    /// site are not let, either.
    #[must_use]
    pub const fn is_from_our_page(&self) -> bool {
        matches!(self.page, Page::Ours)
    }

    /// Where the call comes from.
    #[must_use]
    pub const fn source(&self) -> &Source {
        &self.source
    }

    /// What the browser shows that it was given when it began to sign in at an authority. A page elsewhere on the site can set another
    /// cookie of that name, which makes the browser's own no less good.
    #[must_use]
    pub fn bindings(&self) -> &[Secret] {
        &self.bindings
    }

    fn grant(&self) -> Option<&Grant> {
        self.bearer.as_ref()?.grant.as_ref()
    }

    /// Whether he has a right: as an app that has signed, or as a user. A signature with no date that was checked carries only those that
    /// are harmless in the hands of whoever has read it.
    #[must_use]
    pub fn has(&self, right: Right) -> bool {
        let app = self.app.as_ref().is_some_and(|signed| {
            let rights = &signed.app.rights;
            if signed.dated { rights.include(right) } else { rights.without_date().include(right) }
        });
        let user = match self.grant() {
            Some(grant) => Some(&grant.user),
            None => self.tickets.first().map(|signed_in| &signed_in.user),
        };
        app || user.is_some_and(|user| user.has(right))
    }

    /// The app behind the call: the one that has signed, else the one that the bearer token was given to, if we have given it.
    #[must_use]
    pub fn behind(&self) -> Option<&AppId> {
        self.app.as_ref().map(|signed| &signed.app.id).or_else(|| self.presented().map(|token| &token.app))
    }

    fn no_credential(&self) -> Error {
        if self.refused { Error::CredentialRefused } else { Error::CredentialRequired }
    }

    /// The app that has signed.
    ///
    /// # Errors
    /// [`Error::CredentialRequired`], [`Error::CredentialRefused`].
    pub fn app(&self) -> Result<&AppId, Error> {
        self.app.as_ref().map(|signed| &signed.app.id).ok_or_else(|| self.no_credential())
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
        let grant = self.grant().ok_or_else(|| self.no_credential())?;
        let signed_in = SignedIn { session: grant.session.clone(), user: grant.user.clone() };
        Ok(KnownUser { signed_in, by_token_of: Some(&grant.family.app) })
    }

    /// The administrator.
    ///
    /// # Errors
    /// As [`Caller::user`]; [`Error::NotAllowed`] for any other user.
    pub fn administrator(&self) -> Result<Arc<User>, Error> {
        let user = self.user()?.signed_in.user;
        if user.is_administrator() { Ok(user) } else { Err(Error::NotAllowed) }
    }

    /// Whether he is the administrator still, for what goes on long after he was let in: whoever has his ticket or token by then may do no
    /// more than with a new call.
    ///
    /// # Errors
    /// As [`Caller::administrator`]; [`Error::CredentialRefused`] when his session or token has ended; [`Error::StoreUnavailable`].
    pub async fn still_administrator(&self, core: &Core) -> Result<(), Error> {
        let known = self.user()?;
        let user = match self.presented().filter(|_| known.by_token_of.is_some()) {
            Some(token) => core.inspect(token).await?.map(|grant| grant.user),
            None => core.store.session_of_ticket(&known.signed_in.session.ticket, core.now()).await?.map(|signed_in| signed_in.user),
        };
        if user.ok_or(Error::CredentialRefused)?.is_administrator() { Ok(()) } else { Err(Error::NotAllowed) }
    }

    /// Whoever asks about a token: an app, a user, or both. `right` lets him ask about all.
    ///
    /// # Errors
    /// As [`Caller::user`].
    pub fn asker(&self, right: Right) -> Result<Asker, Error> {
        let app = self.app.as_ref().map(|signed| signed.app.id.clone());
        if app.is_none() && self.refused {
            return Err(Error::CredentialRefused);
        }
        // A token that is shown counts before a cookie that the browser adds by itself.
        let session = match self.grant() {
            Some(grant) => Some(grant.session.id),
            None => self.ticket()?.map(|signed_in| signed_in.session.id),
        };
        if app.is_none() && session.is_none() {
            return Err(Error::CredentialRequired);
        }
        Ok(Asker { app, session, any: self.has(right) })
    }

    /// Whoever wants to end a session. A page of another site cannot have a browser do it with the user's cookie.
    ///
    /// # Errors
    /// As [`Caller::asker`]; [`Error::NotAllowed`].
    pub fn ender(&self) -> Result<Asker, Error> {
        let asker = self.asker(Right::SessionsEnd)?;
        let by_cookie = self.app.is_none() && self.bearer.is_none();
        if by_cookie && self.is_cross_site() { Err(Error::NotAllowed) } else { Ok(asker) }
    }

    /// Whoever registers an authority. Where `anybody` is false, somebody of whom nothing is known may not.
    ///
    /// # Errors
    /// [`Error::CredentialRequired`], [`Error::CredentialRefused`]; [`Error::Parameter`] when there are two tickets; [`Error::NotAllowed`]
    /// when a page of another site has a browser do it with the user's cookie.
    pub fn registrar(&self, anybody: bool) -> Result<Registrar<'_>, Error> {
        // Whoever shows a credential means to be known by it.
        if self.refused {
            return Err(Error::CredentialRefused);
        }
        let ticket = self.ticket()?;
        let shows_more = self.app.is_some() || self.bearer.is_some();
        if !shows_more && ticket.is_some() && self.is_cross_site() {
            return Err(Error::NotAllowed);
        }
        if self.has(Right::IdentityProvidersWrite) {
            return Ok(Registrar::Entitled);
        }
        if shows_more || ticket.is_some() || anybody { Ok(Registrar::Other(&self.source)) } else { Err(Error::CredentialRequired) }
    }

    /// The session that a browser's ticket names, to be ended.
    ///
    /// # Errors
    /// [`Error::Parameter`] when there are two; [`Error::NotAllowed`] when a page of another site asks.
    pub fn ending(&self) -> Result<Option<&SignedIn>, Error> {
        match self.ticket()? {
            Some(_) if self.is_cross_site() => Err(Error::NotAllowed),
            other => Ok(other),
        }
    }

    /// Whether a cookie of his may be taken from him: a page of another site can send a browser here without its cookies.
    #[must_use]
    pub const fn may_lose_ticket(&self) -> bool {
        self.showed_ticket || !self.is_cross_site()
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
        if let Some(signed) = &self.app {
            return Ok(Refresher::App(signed.app.id.clone()));
        }
        let presented = self.bearer.as_ref().and_then(|bearer| bearer.presented.as_ref());
        presented.map(|token| Refresher::Family(token.family)).ok_or_else(|| self.no_credential())
    }

    /// Whether the bearer token is, byte for byte, this one; then it is credential enough to ask about itself.
    #[must_use]
    pub fn shows(&self, access_token: &str) -> bool {
        self.bearer.as_ref().is_some_and(|bearer| bearer.token.matches(access_token))
    }

    /// Whether the bearer token is good.
    #[must_use]
    pub fn bearer_is_good(&self) -> bool {
        self.bearer.as_ref().is_some_and(|bearer| bearer.grant.is_some())
    }

    /// What the bearer token says, if we signed it, whatever has become of it.
    #[must_use]
    pub fn presented(&self) -> Option<&Arc<Presented>> {
        self.bearer.as_ref()?.presented.as_ref()
    }
}

impl fmt::Display for Caller {
    /// Who it is, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.app, self.grant(), self.tickets.first()) {
            (Some(signed), Some(grant), _) => write!(f, "app {} for user {}", signed.app.id.as_str().escape_default(), grant.user.id),
            (Some(signed), None, _) => write!(f, "app {}", signed.app.id.as_str().escape_default()),
            (None, Some(grant), _) => write!(f, "user {} by token", grant.user.id),
            (None, None, Some(signed_in)) => write!(f, "user {}", signed_in.user.id),
            (None, None, None) => f.write_str(NOBODY),
        }
    }
}

/// Whose page has a browser send a request. What is no browser says nothing, and may be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Ours,
    /// Apps on other ports and names of the site, which sign their users out here.
    SameSite,
    Elsewhere,
}

/// Whose page a browser says is behind a request.
fn page_behind(headers: &HeaderMap, public_origin: &str) -> Page {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
    // What a page merely loads does nothing, whoever's page it is: a picture whose address is ours is nobody's will.
    if text("sec-fetch-dest").is_some_and(|kind| !["document", "iframe", "frame", "empty"].contains(&kind.as_str())) {
        return Page::Elsewhere;
    }
    match text("sec-fetch-site").as_deref() {
        Some("same-origin" | "none") => Page::Ours,
        Some("same-site") => Page::SameSite,
        Some(_) => Page::Elsewhere,
        // Over plain http browsers say nothing else, but to the machine itself.
        None if text("origin").is_some_and(|origin| origin != public_origin.to_ascii_lowercase()) => Page::Elsewhere,
        None => Page::Ours,
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
        let many: Vec<String> = (0..1000).map(|number| format!("suposTicket={number}")).collect();
        assert_eq!(
            Credentials::read(&headers(&[("cookie", &many.join(";"))])).unwrap().tickets.len(),
            MAX_COOKIES,
            "so many are looked up"
        );
        let mut beside = HeaderMap::new();
        beside.append("cookie", http::HeaderValue::from_bytes(b"name=\xe5\xbc\xa0\xff; suposTicket=good").unwrap());
        assert_eq!(Credentials::read(&beside).unwrap().tickets.len(), 1, "beside a cookie that is no text");
    }

    #[test]
    fn a_page_of_another_site_is_told_by_what_the_browser_says() {
        let origin = "https://auth.example";
        for (pairs, page) in [
            (&[][..], Page::Ours),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.example")], Page::Ours),
            (&[("sec-fetch-site", "none")], Page::Ours),
            (&[("sec-fetch-site", "cross-site")], Page::Elsewhere),
            (&[("sec-fetch-site", "same-site")], Page::SameSite),
            (&[("origin", "https://auth.example")], Page::Ours),
            (&[("origin", "https://auth.example.evil")], Page::Elsewhere),
            (&[("origin", "null")], Page::Elsewhere),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-dest", "image")], Page::Elsewhere),
            (&[("sec-fetch-site", "same-site"), ("sec-fetch-dest", "script")], Page::Elsewhere),
            (&[("sec-fetch-site", "same-site"), ("sec-fetch-dest", "empty")], Page::SameSite),
            (&[("sec-fetch-site", "none"), ("sec-fetch-dest", "document")], Page::Ours),
        ] {
            assert_eq!(page_behind(&headers(pairs), origin), page, "{pairs:?}");
        }
    }
}
