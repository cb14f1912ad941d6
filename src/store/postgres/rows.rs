//! How records stand in columns. What is written here as a list of columns is read and written in that order everywhere.

use std::error::Error as StdError;

use tokio_postgres::types::{FromSql, IsNull, Json, ToSql, Type, private::BytesMut};

use super::database::Columns;
use crate::{
    core::{
        Error,
        clock::Timestamp,
        ids::{AppId, AuthorityId, FamilyId, Incarnation, LogoutId, SessionId, UserId},
        logouts::{Lane, OwedLogout},
        model::{App, AppSecret, Authority, Code, Family, Link, LinkOrigin, Pending, Session, SigningKey, User},
        rights::{Right, Rights},
        seal::Sealed,
        secret::BearerHash,
    },
    store::{Identity, Origin},
};

type SqlError = Box<dyn StdError + Sync + Send>;

/// Values that are bytes in a column.
macro_rules! bytes {
    ($($name:ty: $bytes:ident => $made:expr),* $(,)?) => {$(
        impl ToSql for $name {
            fn to_sql(&self, column: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
                let bytes: &[u8] = self.as_bytes();
                bytes.to_sql(column, out)
            }

            fn accepts(column: &Type) -> bool {
                <&[u8] as ToSql>::accepts(column)
            }

            tokio_postgres::types::to_sql_checked!();
        }

        impl<'a> FromSql<'a> for $name {
            fn from_sql(column: &Type, raw: &'a [u8]) -> Result<Self, SqlError> {
                let $bytes = <&[u8]>::from_sql(column, raw)?;
                Ok($made)
            }

            fn accepts(column: &Type) -> bool {
                <&[u8] as FromSql>::accepts(column)
            }
        }
    )*};
}

bytes! {
    UserId: bytes => Self::from_bytes(bytes.try_into()?),
    SessionId: bytes => Self::from_bytes(bytes.try_into()?),
    Incarnation: bytes => Self::from_bytes(bytes.try_into()?),
    LogoutId: bytes => Self::from_bytes(bytes.try_into()?),
    AuthorityId: bytes => Self::from_bytes(bytes.try_into()?),
    BearerHash: bytes => Self::from_bytes(bytes.try_into()?),
    Sealed: bytes => Self::from_bytes(bytes.to_vec()),
}

impl ToSql for Timestamp {
    fn to_sql(&self, column: &Type, out: &mut BytesMut) -> Result<IsNull, SqlError> {
        i64::try_from(self.millis()).unwrap_or(i64::MAX).to_sql(column, out)
    }

    fn accepts(column: &Type) -> bool {
        <i64 as ToSql>::accepts(column)
    }

    tokio_postgres::types::to_sql_checked!();
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(column: &Type, raw: &'a [u8]) -> Result<Self, SqlError> {
        Ok(Self::from_millis(i64::from_sql(column, raw)?.try_into()?))
    }

    fn accepts(column: &Type) -> bool {
        <i64 as FromSql>::accepts(column)
    }
}

/// The values of a record's columns.
pub(super) struct Values<'a>(Vec<Box<dyn ToSql + Send + Sync + 'a>>);

impl Values<'_> {
    /// As a statement takes them.
    pub(super) fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.0.iter().map(|value| value.as_ref() as _).collect()
    }
}

macro_rules! values {
    ($($value:expr),* $(,)?) => {
        Values(vec![$(Box::new($value)),*])
    };
}

fn unreadable(what: &str) -> Error {
    Error::StoreUnavailable(format!("a record cannot be read: {what}"))
}

fn app_id(text: &str) -> Result<AppId, Error> {
    AppId::new(text).ok_or_else(|| unreadable("an app's id"))
}

/// A number that is smaller here than a column can hold.
fn small<T: TryFrom<i64>>(number: i64) -> Result<T, Error> {
    T::try_from(number).map_err(|_| unreadable("a number"))
}

fn free_text(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| unreadable("a text"))
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The columns of an app.
macro_rules! app_columns {
    () => {
        "a.id, a.incarnation, a.display_name, a.redirect_uris, a.logout_uris, a.enabled, a.refresh_requires_app_credential, a.secrets, \
         a.created_at, a.updated_at, a.rights, a.signature_requires_date"
    };
}

pub(super) fn read_app(columns: &mut Columns<'_>) -> Result<App, Error> {
    Ok(App {
        id: app_id(columns.next()?)?,
        incarnation: columns.next()?,
        display_name: columns.next()?,
        redirect_uris: columns.next()?,
        logout_uris: columns.next()?,
        enabled: columns.next()?,
        refresh_requires_app_credential: columns.next()?,
        secrets: columns.next::<Json<Vec<AppSecret>>>()?.0,
        created_at: columns.next()?,
        updated_at: columns.next()?,
        rights: read_rights(columns)?,
        signature_requires_date: columns.next()?,
    })
}

/// The values of an app's columns.
pub(super) fn app_values(app: &App) -> Values<'_> {
    let rights: Vec<&str> = app.rights.names().collect();
    let secrets = Json(&app.secrets);
    values![
        app.id.as_str(),
        &app.incarnation,
        &app.display_name,
        &app.redirect_uris,
        &app.logout_uris,
        &app.enabled,
        &app.refresh_requires_app_credential,
        secrets,
        &app.created_at,
        &app.updated_at,
        rights,
        &app.signature_requires_date,
    ]
}

/// A column of some records.
pub(super) fn column<'a, R, T>(records: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    records.iter().map(value).collect()
}

/// What stands in the place of the rights that a row is to have: these, and those in it that a newer version beside this one has given.
macro_rules! rights_and_unknown {
    ($rights:literal, $known:literal) => {
        concat!("CAST(", $rights, " AS text[]) || ARRAY(SELECT r FROM unnest(rights) AS r WHERE r <> ALL (CAST(", $known, " AS text[])))")
    };
}

/// The names of the rights that there are here.
pub(super) fn known_rights() -> Vec<&'static str> {
    Right::ALL.into_iter().map(Right::name).collect()
}

fn read_rights(columns: &mut Columns<'_>) -> Result<Rights, Error> {
    Ok(Rights::known(columns.next::<Vec<&str>>()?))
}

/// The columns of a user.
macro_rules! user_columns {
    () => {
        "u.id, u.name, u.person_code, u.company_code, u.account_type, u.enabled, u.password_hash, u.password_change_required, \
         u.created_at, u.updated_at, u.rights"
    };
}

pub(super) fn read_user(columns: &mut Columns<'_>) -> Result<User, Error> {
    Ok(User {
        id: columns.next()?,
        name: columns.next()?,
        person_code: columns.next()?,
        company_code: columns.next()?,
        account_type: small(columns.next()?)?,
        enabled: columns.next()?,
        password_hash: columns.next()?,
        password_change_required: columns.next()?,
        created_at: columns.next()?,
        updated_at: columns.next()?,
        rights: read_rights(columns)?,
    })
}

/// The values of a user's columns, and whether he is an enabled administrator.
pub(super) fn user_values(user: &User) -> Values<'_> {
    let rights: Vec<&str> = user.rights.names().collect();
    values![
        &user.id,
        &user.name,
        &user.person_code,
        &user.company_code,
        i64::from(user.account_type),
        &user.enabled,
        &user.password_hash,
        &user.password_change_required,
        &user.created_at,
        &user.updated_at,
        rights,
        administers(user),
    ]
}

/// Whether he counts among those of whom one has to be left.
pub(super) fn administers(user: &User) -> bool {
    user.enabled && user.is_administrator()
}

/// The columns of a session.
macro_rules! session_columns {
    () => {
        "s.id, s.user_id, s.ticket, s.created_at, s.last_used_at, s.expires_at, s.idle_lifetime, s.next_family, s.authority_id"
    };
}

pub(super) fn read_session(columns: &mut Columns<'_>) -> Result<Session, Error> {
    Ok(Session {
        id: columns.next()?,
        user: columns.next()?,
        ticket: columns.next()?,
        created_at: columns.next()?,
        last_used_at: columns.next()?,
        expires_at: columns.next()?,
        idle_lifetime: std::time::Duration::from_millis(small(columns.next()?)?),
        next_family: small(columns.next()?)?,
        authority: columns.next()?,
    })
}

/// The values of a session's columns, and when to see whether it has ended.
pub(super) fn session_values(session: &Session) -> Values<'_> {
    values![
        &session.id,
        &session.user,
        &session.ticket,
        &session.created_at,
        &session.last_used_at,
        &session.expires_at,
        millis(session.idle_lifetime),
        i64::from(session.next_family),
        &session.authority,
        session.ends_at(),
    ]
}

/// The columns of a family, an ended one included, but for what it is keyed by.
macro_rules! family_columns {
    () => {
        "f.app, f.incarnation, f.scope, f.logout_uri, f.redirect_origin, f.generation, f.rotated_at"
    };
}

pub(super) fn read_family(columns: &mut Columns<'_>) -> Result<Family, Error> {
    Ok(Family {
        app: app_id(columns.next()?)?,
        incarnation: columns.next()?,
        scope: free_text(columns.next()?)?,
        logout_uri: free_text(columns.next()?)?,
        redirect_origin: columns.next()?,
        generation: small(columns.next()?)?,
        rotated_at: columns.next()?,
    })
}

/// The values of a family's columns, behind those of its key.
pub(super) fn family_values<'a>(session: &'a SessionId, in_session: impl ToSql + Send + Sync + 'a, family: &'a Family) -> Values<'a> {
    values![
        session,
        in_session,
        family.app.as_str(),
        &family.incarnation,
        family.scope.as_bytes(),
        family.logout_uri.as_bytes(),
        &family.redirect_origin,
        i64::from(family.generation),
        &family.rotated_at,
    ]
}

/// The hash by which families are told apart whose apps would not be told alike.
pub(super) fn told_by(family: &Family) -> BearerHash {
    BearerHash::of_logout(family.app.as_str(), family.incarnation.as_bytes(), &family.redirect_origin, &family.logout_uri)
}

/// The columns of a code, but for its hash.
macro_rules! code_columns {
    () => {
        "c.app, c.incarnation, c.session_id, c.redirect_uri, c.scope, c.expires_at, c.used, c.kept_until"
    };
}

pub(super) fn read_code(columns: &mut Columns<'_>) -> Result<Code, Error> {
    let (app, incarnation) = (app_id(columns.next()?)?, columns.next()?);
    let session = columns.next()?;
    let (redirect_uri, scope, expires_at) = (columns.next()?, free_text(columns.next()?)?, columns.next()?);
    let used = columns.next::<Option<i64>>()?.map(small).transpose()?.map(|number| FamilyId { session, number });
    Ok(Code { app, incarnation, session, redirect_uri, scope, expires_at, used, kept_until: columns.next()? })
}

/// The values of a code's columns, behind its hash.
pub(super) fn code_values<'a>(hash: &'a BearerHash, code: &'a Code) -> Values<'a> {
    values![
        hash,
        code.app.as_str(),
        &code.incarnation,
        &code.session,
        &code.redirect_uri,
        code.scope.as_bytes(),
        &code.expires_at,
        code.used.map(|family| i64::from(family.number)),
        &code.kept_until,
    ]
}

/// The columns of a call that is or was owed.
macro_rules! logout_columns {
    () => {
        "l.id, l.app, l.incarnation, l.uri, l.user_id, l.session_id, l.created_at, l.next_try_at, l.tries, l.last_error, l.given_up_at"
    };
}

pub(super) fn read_logout(columns: &mut Columns<'_>) -> Result<OwedLogout, Error> {
    Ok(OwedLogout {
        id: columns.next()?,
        app: app_id(columns.next()?)?,
        incarnation: columns.next()?,
        uri: columns.next()?,
        user: columns.next()?,
        session: columns.next()?,
        created_at: columns.next()?,
        next_try_at: columns.next()?,
        tries: small(columns.next()?)?,
        last_error: columns.next()?,
        given_up_at: columns.next()?,
    })
}

/// The values of a call's columns, and its lane.
pub(super) fn logout_values(owed: &OwedLogout) -> Values<'_> {
    let lane: Lane = owed.lane();
    values![
        &owed.id,
        owed.app.as_str(),
        &owed.incarnation,
        &owed.uri,
        &owed.user,
        &owed.session,
        &owed.created_at,
        &owed.next_try_at,
        i64::from(owed.tries),
        &owed.last_error,
        &owed.given_up_at,
        lane.as_bytes().to_vec(),
    ]
}

/// The columns of a signing key.
macro_rules! signing_key_columns {
    () => {
        "k.kid, k.sealed, k.x, k.y, k.created_at, k.activates_at, k.retired_at, k.expires_at, k.forgotten_at"
    };
}

pub(super) fn read_signing_key(columns: &mut Columns<'_>) -> Result<SigningKey, Error> {
    Ok(SigningKey {
        kid: columns.next()?,
        sealed: columns.next()?,
        x: columns.next()?,
        y: columns.next()?,
        created_at: columns.next()?,
        activates_at: columns.next()?,
        retired_at: columns.next()?,
        expires_at: columns.next()?,
        forgotten_at: columns.next()?,
    })
}

/// The values of a key's columns.
pub(super) fn signing_key_values(key: &SigningKey) -> Values<'_> {
    values![&key.kid, &key.sealed, &key.x, &key.y, &key.created_at, &key.activates_at, &key.retired_at, &key.expires_at, &key.forgotten_at,]
}

/// The columns of an authority.
macro_rules! authority_columns {
    () => {
        "i.id, i.name, i.client_id, i.client_secret, i.authorization_uri, i.token_uri, i.userinfo_uri, i.logout_uri, i.enabled, \
         i.pending_until, i.pending_network, i.link_by_name, i.create_users, i.created_at, i.updated_at"
    };
}

pub(super) fn read_authority(columns: &mut Columns<'_>) -> Result<Authority, Error> {
    Ok(Authority {
        id: columns.next()?,
        name: columns.next()?,
        client_id: columns.next()?,
        client_secret: columns.next()?,
        authorization_uri: columns.next()?,
        token_uri: columns.next()?,
        userinfo_uri: columns.next()?,
        logout_uri: columns.next()?,
        enabled: columns.next()?,
        pending: {
            let (expires_at, network) = (columns.next::<Option<_>>()?, columns.next::<Option<String>>()?);
            expires_at.map(|expires_at| Pending { expires_at, network: network.unwrap_or_default() })
        },
        link_by_name: columns.next()?,
        create_users: columns.next()?,
        created_at: columns.next()?,
        updated_at: columns.next()?,
    })
}

/// The values of an authority's columns.
pub(super) fn authority_values(authority: &Authority) -> Values<'_> {
    let pending = authority.pending.as_ref();
    values![
        &authority.id,
        &authority.name,
        &authority.client_id,
        &authority.client_secret,
        &authority.authorization_uri,
        &authority.token_uri,
        &authority.userinfo_uri,
        &authority.logout_uri,
        &authority.enabled,
        pending.map(|pending| pending.expires_at),
        pending.map(|pending| pending.network.as_str()),
        &authority.link_by_name,
        &authority.create_users,
        &authority.created_at,
        &authority.updated_at,
    ]
}

/// The columns of a link, but for what it is keyed by.
macro_rules! link_columns {
    () => {
        "b.user_id, b.origin, b.created_at"
    };
}

const LINK_ORIGINS: [(LinkOrigin, &str); 3] =
    [(LinkOrigin::Name, "name"), (LinkOrigin::Creation, "creation"), (LinkOrigin::Administrator, "administrator")];

pub(super) fn link_origin(origin: LinkOrigin) -> &'static str {
    LINK_ORIGINS.iter().find(|(known, _)| *known == origin).map_or("", |(_, word)| word)
}

pub(super) fn read_link(columns: &mut Columns<'_>) -> Result<Link, Error> {
    let (user, word, created_at) = (columns.next()?, columns.next::<&str>()?, columns.next()?);
    let origin = LINK_ORIGINS.iter().find(|(_, known)| *known == word).ok_or_else(|| unreadable("the origin of a link"))?.0;
    Ok(Link { user, origin, created_at })
}

const ORIGINS: [(Origin, &str); 2] = [(Origin::Demo, "demo"), (Origin::Production, "production")];

pub(super) fn origin(origin: Origin) -> &'static str {
    ORIGINS.iter().find(|(known, _)| *known == origin).map_or("", |(_, word)| word)
}

pub(super) fn read_identity(columns: &mut Columns<'_>) -> Result<Identity, Error> {
    let word: &str = columns.next()?;
    let origin = ORIGINS.iter().find(|(_, known)| *known == word).ok_or_else(|| unreadable("what the store was made for"))?.0;
    Ok(Identity { origin, root: columns.next()? })
}

pub(super) use {
    app_columns, authority_columns, code_columns, family_columns, link_columns, logout_columns, rights_and_unknown, session_columns,
    signing_key_columns, user_columns,
};
