//! Third-party authorities, and who their users are here.

use std::slice;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    PostgresStore, accounts,
    database::{Columns, Failure, Txn, transact},
    lock,
    rows::{authority_columns, authority_values, link_columns, link_origin, read_authority, read_link, read_user, user_columns},
    sessions, wait_for_what_is_there,
};
use crate::{
    core::{
        Error,
        clock::Timestamp,
        ids::{AuthorityId, UserId},
        model::{Authority, Link, LinkOrigin, Pending, User},
    },
    store::{
        After, Arrival, AuthorityStore, Change, ENDED_AT_ONCE, Linked, LinksOf,
        rules::{make_room, recognise},
    },
};

/// How many links go in one step.
#[expect(clippy::cast_possible_wrap, reason = "it is a small number")]
const AT_ONCE: i64 = ENDED_AT_ONCE as i64;

/// How often a row is waited for that those hold who are on their way, each time for as long as anybody waits for a lock.
const WAITS: u32 = 4;

/// Whether an authority is there: one that no administrator has enabled in time is not.
macro_rules! is_there {
    ($now:literal) => {
        concat!("(i.pending_until IS NULL OR i.pending_until > ", $now, ")")
    };
}

/// An authority that is there, which nobody else changes, deletes or links somebody to from then on. Sign-ins go on: they would be too many to wait
/// for. (A new name has to wait for them all the same, as it does for a moment without any.)
async fn lock_authority(txn: &Txn<'_>, id: AuthorityId, now: Timestamp) -> Result<Option<Authority>, Failure> {
    let sql = concat!("SELECT ", authority_columns!(), " FROM authorities i WHERE i.id = $1 AND ", is_there!("$2"), " FOR NO KEY UPDATE");
    let row = txn.query_opt(sql, &[&id, &now]).await?;
    Ok(row.map(|row| read_authority(&mut Columns::of(&row))).transpose()?)
}

async fn remove(txn: &Txn<'_>, id: AuthorityId) -> Result<(), Failure> {
    txn.execute("DELETE FROM authorities WHERE id = $1", &[&id]).await?;
    Ok(())
}

/// Removes an authority that is off; where it has more links than may go in one step, some of them, and gives false.
async fn remove_some(txn: &Txn<'_>, id: AuthorityId) -> Result<bool, Failure> {
    let sql = "DELETE FROM links WHERE authority_id = $1 AND subject IN \
               (SELECT subject FROM links WHERE authority_id = $1 ORDER BY subject LIMIT $2)";
    txn.execute(sql, &[&id, &AT_ONCE]).await?;
    let is_whole = txn.query_opt("SELECT 1 FROM links WHERE authority_id = $1 LIMIT 1", &[&id]).await?.is_none();
    if is_whole {
        remove(txn, id).await?;
    }
    Ok(is_whole)
}

pub(super) async fn put(txn: &Txn<'_>, authority: &Authority) -> Result<(), Failure> {
    let sql = "INSERT INTO authorities (id, name, client_id, client_secret, authorization_uri, token_uri, userinfo_uri, logout_uri, \
               enabled, pending_until, pending_network, link_by_name, create_users, created_at, updated_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    txn.execute(sql, &authority_values(authority).params()).await?;
    Ok(())
}

/// Says who a user of an authority is here, anew where it was said before.
pub(super) async fn put_link(txn: &Txn<'_>, authority: AuthorityId, subject: &str, link: &Link) -> Result<(), Failure> {
    let sql = "INSERT INTO links (authority_id, subject, user_id, origin, created_at) VALUES ($1, $2, $3, $4, $5) \
               ON CONFLICT (authority_id, subject) DO UPDATE SET user_id = $3, origin = $4, created_at = $5";
    txn.execute(sql, &[&authority, &subject, &link.user, &link_origin(link.origin), &link.created_at]).await?;
    Ok(())
}

/// Says it for the first time. Where somebody else has said it meanwhile the step is run again, and finds that.
async fn add_link(txn: &Txn<'_>, authority: AuthorityId, subject: &str, link: &Link) -> Result<(), Failure> {
    let sql = "INSERT INTO links (authority_id, subject, user_id, origin, created_at) VALUES ($1, $2, $3, $4, $5)";
    txn.execute(sql, &[&authority, &subject, &link.user, &link_origin(link.origin), &link.created_at]).await?;
    Ok(())
}

/// Removes links of a user, as many as may go in one step, and says whether those were all.
pub(super) async fn remove_links_of(txn: &Txn<'_>, user: UserId) -> Result<bool, Failure> {
    let sql = "DELETE FROM links WHERE (authority_id, subject) IN \
               (SELECT authority_id, subject FROM links WHERE user_id = $1 ORDER BY authority_id, subject LIMIT $2)";
    txn.execute(sql, &[&user, &AT_ONCE]).await?;
    Ok(txn.query_opt("SELECT 1 FROM links WHERE user_id = $1 LIMIT 1", &[&user]).await?.is_none())
}

/// Has those go that have waited too long.
async fn expire(txn: &Txn<'_>, now: Timestamp) -> Result<(), Failure> {
    txn.execute("DELETE FROM authorities WHERE pending_until <= $1", &[&now]).await?;
    Ok(())
}

async fn has_name(txn: &Txn<'_>, name: &str) -> Result<Option<Authority>, Failure> {
    let sql = concat!("SELECT ", authority_columns!(), " FROM authorities i WHERE i.name = $1");
    let row = txn.query_opt(sql, &[&name]).await?;
    Ok(row.map(|row| read_authority(&mut Columns::of(&row))).transpose()?)
}

/// What waits for an administrator.
const PENDING: &str = "SELECT pending_until, pending_network FROM authorities WHERE pending_until > $1";

fn read_pending(rows: &[Row]) -> Result<Vec<Pending>, Error> {
    let read = |row| {
        let mut columns = Columns::of(row);
        Ok(Pending { expires_at: columns.next()?, network: columns.next()? })
    };
    rows.iter().map(read).collect()
}

async fn register(txn: &Txn<'_>, authority: &Authority, now: Timestamp) -> Result<(), Failure> {
    // Two that register at the same time would each count without the other.
    lock(txn, "authorities").await?;
    expire(txn, now).await?;
    match has_name(txn, &authority.name).await? {
        Some(other) if authority.pending.is_none() && other.pending.is_some() => remove(txn, other.id).await?,
        Some(_) => return Err(Error::AuthorityExists.into()),
        None => {}
    }
    if let Some(waits) = &authority.pending {
        make_room(&read_pending(&txn.query(PENDING, &[&now]).await?)?, &waits.network, now)?;
    }
    put(txn, authority).await
}

/// A user, who is neither changed nor deleted before the transaction ends.
async fn hold_user(txn: &Txn<'_>, id: UserId) -> Result<Option<User>, Failure> {
    let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = $1 FOR SHARE");
    let row = txn.query_opt(sql, &[&id]).await?;
    Ok(row.map(|row| read_user(&mut Columns::of(&row))).transpose()?)
}

/// A link, which nobody changes or removes before the transaction ends.
async fn lock_link(txn: &Txn<'_>, authority: AuthorityId, subject: &str) -> Result<Option<Link>, Failure> {
    let sql = concat!("SELECT ", link_columns!(), " FROM links b WHERE b.authority_id = $1 AND b.subject = $2 FOR UPDATE");
    let row = txn.query_opt(sql, &[&authority, &subject]).await?;
    Ok(row.map(|row| read_link(&mut Columns::of(&row))).transpose()?)
}

async fn link(txn: &Txn<'_>, authority: AuthorityId, subject: &str) -> Result<Option<Link>, Failure> {
    let sql = concat!("SELECT ", link_columns!(), " FROM links b WHERE b.authority_id = $1 AND b.subject = $2");
    let row = txn.query_opt(sql, &[&authority, &subject]).await?;
    Ok(row.map(|row| read_link(&mut Columns::of(&row))).transpose()?)
}

/// The user whom an authority has signed in; whoever he was not linked to before, he is now.
async fn find(txn: &Txn<'_>, arrival: &Arrival) -> Result<User, Failure> {
    let now = arrival.session.created_at;
    // It is not deleted before the transaction ends. It may be changed: whoever switches it off waits for those who are on their way then.
    let sql = concat!(
        "SELECT ",
        authority_columns!(),
        " FROM authorities i WHERE i.id = $1 AND ",
        is_there!("$2"),
        " AND i.enabled FOR KEY SHARE"
    );
    let row = txn.query_opt(sql, &[&arrival.authority, &now]).await?;
    let authority = row.map(|row| read_authority(&mut Columns::of(&row))).transpose()?;
    let link = link(txn, arrival.authority, &arrival.subject).await?;
    let user = match (&link, &arrival.name) {
        (Some(link), _) => hold_user(txn, link.user).await?,
        (None, Some(name)) => {
            let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.name = $1 FOR SHARE");
            let row = txn.query_opt(sql, &[name]).await?;
            row.map(|row| read_user(&mut Columns::of(&row))).transpose()?
        }
        (None, None) => None,
    };
    let (user, origin) = recognise(arrival, authority, link, user)?;
    if let Some(origin) = origin {
        if origin == LinkOrigin::Creation {
            accounts::put_users(txn, slice::from_ref(&user)).await?;
        }
        add_link(txn, arrival.authority, &arrival.subject, &Link { user: user.id, origin, created_at: now }).await?;
    }
    Ok(user)
}

#[async_trait]
impl AuthorityStore for PostgresStore {
    async fn register_authority(&self, authority: Authority, now: Timestamp) -> Result<(), Error> {
        if let Some(waits) = &authority.pending {
            // Nearly always one more that comes from nobody is refused, and is to keep no administrator waiting for that.
            if self.authority_named(&authority.name, now).await?.is_some() {
                return Err(Error::AuthorityExists);
            }
            make_room(&read_pending(&self.database.query(PENDING, &[&now]).await?)?, &waits.network, now)?;
        }
        transact!(self.database, async |txn| register(txn, &authority, now).await).await
    }

    async fn authority(&self, id: AuthorityId, now: Timestamp) -> Result<Option<Authority>, Error> {
        let sql = concat!("SELECT ", authority_columns!(), " FROM authorities i WHERE i.id = $1 AND ", is_there!("$2"));
        let row = self.database.query_opt(sql, &[&id, &now]).await?;
        row.map(|row| read_authority(&mut Columns::of(&row))).transpose()
    }

    async fn authority_named(&self, name: &str, now: Timestamp) -> Result<Option<Authority>, Error> {
        if name.contains('\0') {
            return Ok(None);
        }
        let sql = concat!("SELECT ", authority_columns!(), " FROM authorities i WHERE i.name = $1 AND ", is_there!("$2"));
        let row = self.database.query_opt(sql, &[&name, &now]).await?;
        row.map(|row| read_authority(&mut Columns::of(&row))).transpose()
    }

    async fn authorities(&self, after: After<String>, limit: usize, now: Timestamp) -> Result<Vec<Authority>, Error> {
        let sql = concat!(
            "SELECT ",
            authority_columns!(),
            " FROM authorities i WHERE i.name > $1 AND ",
            is_there!("$2"),
            " ORDER BY i.name LIMIT $3"
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.database.query(sql, &[&after.unwrap_or_default(), &now, &limit]).await?;
        rows.iter().map(|row| read_authority(&mut Columns::of(row))).collect()
    }

    async fn update_authority(&self, id: AuthorityId, change: Change<Authority>, now: Timestamp) -> Result<Authority, Error> {
        let changed = transact!(self.database, async |txn| {
            // As registering does: it may free a name, and take one.
            lock(txn, "authorities").await?;
            let before = lock_authority(txn, id, now).await?.ok_or(Error::NotFound("authority"))?;
            let mut authority = before.clone();
            change(&mut authority)?;
            if authority.name != before.name {
                expire(txn, now).await?;
                if has_name(txn, &authority.name).await?.is_some() {
                    return Err(Error::AuthorityExists.into());
                }
            }
            let sql = "UPDATE authorities SET name = $2, client_id = $3, client_secret = $4, authorization_uri = $5, token_uri = $6, \
                           userinfo_uri = $7, logout_uri = $8, enabled = $9, pending_until = $10, pending_network = $11, \
                           link_by_name = $12, create_users = $13, created_at = $14, updated_at = $15 WHERE id = $1";
            txn.execute(sql, &authority_values(&authority).params()).await?;
            Ok(authority)
        })
        .await?;
        if !changed.enabled {
            // Those who were on their way in by it are in, or will not be. From now on it lets nobody begin, so there is an end to them.
            let mut waits = 0;
            while let Err(error) = self.database.query_opt("SELECT 1 FROM authorities WHERE id = $1 FOR UPDATE", &[&id]).await {
                waits += 1;
                if waits == WAITS || !matches!(error, Error::Busy { .. }) {
                    return Err(error);
                }
            }
        }
        Ok(changed)
    }

    async fn delete_authority(&self, id: AuthorityId, now: Timestamp) -> Result<(), Error> {
        // First it goes off: nobody signs in by it and is linked anew, and nobody who does has to be waited for again and again.
        let sql = concat!("UPDATE authorities i SET enabled = false WHERE i.id = $1 AND ", is_there!("$2"), " RETURNING 1");
        self.database.query_opt(sql, &[&id, &now]).await?.ok_or(Error::NotFound("authority"))?;
        let step = async || {
            transact!(self.database, async |txn| match lock_authority(txn, id, now).await? {
                Some(_) => remove_some(txn, id).await,
                // Somebody else has removed what was left.
                None => wait_for_what_is_there(txn).await.map(|()| true),
            })
            .await
        };
        while !step().await? {}
        Ok(())
    }

    async fn link_user(&self, authority: AuthorityId, subject: String, new: Link) -> Result<Linked, Error> {
        transact!(self.database, async |txn| {
            lock_authority(txn, authority, new.created_at).await?.ok_or(Error::NotFound("authority"))?;
            let user = hold_user(txn, new.user).await?.ok_or(Error::NotFound("user"))?;
            match lock_link(txn, authority, &subject).await? {
                Some(known) if known.user != new.user => return Err(Error::AlreadyExists { name: "subject".into() }.into()),
                Some(_) => put_link(txn, authority, &subject, &new).await?,
                None => add_link(txn, authority, &subject, &new).await?,
            }
            Ok(Linked { authority, subject: subject.clone(), user, link: new.clone() })
        })
        .await
    }

    async fn unlink_user(&self, authority: AuthorityId, subject: String) -> Result<(), Error> {
        if subject.contains('\0') {
            return Err(Error::NotFound("link"));
        }
        let sql = "DELETE FROM links WHERE authority_id = $1 AND subject = $2 RETURNING 1";
        let deleted = self.database.query_opt(sql, &[&authority, &subject]).await?;
        deleted.map(|_| ()).ok_or(Error::NotFound("link"))
    }

    async fn links(&self, of: LinksOf, after: After<(AuthorityId, String)>, limit: usize) -> Result<Vec<Linked>, Error> {
        let select = concat!(
            "SELECT b.authority_id, b.subject, ",
            link_columns!(),
            ", ",
            user_columns!(),
            " FROM links b JOIN users u ON u.id = b.user_id"
        );
        let (sql, key): (_, Vec<u8>) = match of {
            LinksOf::Authority(authority) => (
                format!("{select} WHERE b.authority_id = $1 AND (b.authority_id, b.subject) > ($2, $3) ORDER BY b.subject LIMIT $4"),
                authority.as_bytes().to_vec(),
            ),
            LinksOf::User(user) => (
                format!(
                    "{select} WHERE b.user_id = $1 AND (b.authority_id, b.subject) > ($2, $3) ORDER BY b.authority_id, b.subject LIMIT $4"
                ),
                user.as_bytes().to_vec(),
            ),
        };
        let (begin, subject) = after.map_or_else(|| (Vec::new(), String::new()), |(id, subject)| (id.as_bytes().to_vec(), subject));
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.database.query(&sql, &[&key, &begin, &subject, &limit]).await?;
        let read = |row| {
            let mut columns = Columns::of(row);
            let (authority, subject, link) = (columns.next()?, columns.next()?, read_link(&mut columns)?);
            Ok(Linked { authority, subject, link, user: read_user(&mut columns)? })
        };
        rows.iter().map(read).collect()
    }

    async fn open_session_of(&self, arrival: Arrival) -> Result<User, Error> {
        transact!(self.database, async |txn| {
            let user = find(txn, &arrival).await?;
            if !user.enabled {
                return Err(Error::UserDisabled.into());
            }
            let mut session = arrival.session.clone();
            session.user = user.id;
            session.authority = Some(arrival.authority);
            sessions::open(txn, &session).await?;
            Ok(user)
        })
        .await
    }
}
