//! Third-party authorities, and who their users are here.

use async_trait::async_trait;

use super::{SledStore, accounts, keys, sessions, txn::Txn};
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

/// An authority that is there.
fn read(txn: &Txn<'_>, id: AuthorityId, now: Timestamp) -> Result<Option<Authority>, Error> {
    Ok(txn.get::<Authority>(&keys::authority(id))?.filter(|authority| authority.is_there(now)))
}

/// Removes links of an authority, `most` at the most, and gives their number.
fn remove_links(txn: &mut Txn<'_>, authority: AuthorityId, most: usize) -> Result<usize, Error> {
    let mut number = 0;
    for key in txn.keys(&keys::links_of_authority(authority)).take(most) {
        let key = key?;
        if let (Some((_, subject)), Some(link)) = (keys::linked_at_end(&key, 1), txn.get::<Link>(&key)?) {
            txn.remove(&keys::link_of_user(link.user, authority, &subject));
        }
        txn.remove(&key);
        number += 1;
    }
    Ok(number)
}

fn remove_record(txn: &mut Txn<'_>, authority: &Authority) {
    txn.remove(&keys::pending(authority.id));
    txn.remove(&keys::authority_name(&authority.name));
    txn.remove(&keys::authority(authority.id));
}

/// Removes an authority that waits: it has no more links than administrators have made one by one.
fn remove(txn: &mut Txn<'_>, authority: &Authority) -> Result<(), Error> {
    remove_links(txn, authority.id, usize::MAX)?;
    remove_record(txn, authority);
    Ok(())
}

/// Removes an authority; where it has more links than may go in one step, some of them, and gives false. It is off then, so that nobody
/// signs in by it and is linked anew.
pub(super) fn remove_some(txn: &mut Txn<'_>, mut authority: Authority) -> Result<bool, Error> {
    let is_whole = remove_links(txn, authority.id, ENDED_AT_ONCE)? < ENDED_AT_ONCE;
    if is_whole {
        remove_record(txn, &authority);
    } else {
        authority.enabled = false;
        txn.put(&keys::authority(authority.id), &authority)?;
    }
    Ok(is_whole)
}

/// Removes an authority that nobody has enabled in time.
pub(super) fn expire(txn: &mut Txn<'_>, key: &[u8], now: Timestamp) -> Result<(), Error> {
    match txn.get::<Authority>(key)? {
        Some(authority) if !authority.is_there(now) => remove(txn, &authority),
        _ => Ok(()),
    }
}

/// Removes links of a user, as many as may go in one step, and says whether those were all.
pub(super) fn forget_some(txn: &mut Txn<'_>, user: UserId) -> Result<bool, Error> {
    let mut number = 0;
    for key in txn.keys(&keys::links_of_user(user)).take(ENDED_AT_ONCE) {
        let key = key?;
        number += 1;
        if let Some((authority, subject)) = keys::linked_at_end(&key, 17) {
            txn.remove(&keys::link(authority, &subject));
        }
        txn.remove(&key);
    }
    Ok(number < ENDED_AT_ONCE)
}

pub(super) fn put_link(txn: &mut Txn<'_>, authority: AuthorityId, subject: &str, link: &Link) -> Result<(), Error> {
    txn.put_raw(&keys::link_of_user(link.user, authority, subject), Vec::new());
    txn.put(&keys::link(authority, subject), link)
}

/// The authorities that wait for an administrator. What has waited too long goes, and makes room.
fn pending(txn: &mut Txn<'_>, now: Timestamp) -> Result<Vec<Authority>, Error> {
    let mut pending = Vec::new();
    for key in txn.keys(keys::PENDING) {
        let Some(id) = keys::authority_at_end(&key?) else { continue };
        match txn.get::<Authority>(&keys::authority(id))? {
            Some(authority) if authority.is_there(now) => pending.push(authority),
            Some(authority) => remove(txn, &authority)?,
            None => txn.remove(&keys::pending(id)),
        }
    }
    Ok(pending)
}

fn register(txn: &mut Txn<'_>, authority: &Authority, now: Timestamp) -> Result<(), Error> {
    let waiting = pending(txn, now)?;
    let name = keys::authority_name(&authority.name);
    if let Some(id) = txn.get::<AuthorityId>(&name)? {
        match read(txn, id, now)? {
            Some(other) if authority.pending.is_none() && other.pending.is_some() => remove(txn, &other)?,
            Some(_) => return Err(Error::AuthorityExists),
            None => {}
        }
    }
    if let Some(waits) = &authority.pending {
        let waiting: Vec<Pending> = waiting.into_iter().filter_map(|authority| authority.pending).collect();
        make_room(&waiting, &waits.network, now)?;
    }
    put(txn, authority)
}

/// Keeps a new authority.
pub(super) fn put(txn: &mut Txn<'_>, authority: &Authority) -> Result<(), Error> {
    if let Some(waits) = &authority.pending {
        txn.put_raw(&keys::expiry(waits.expires_at, &keys::authority(authority.id)), Vec::new());
        txn.put_raw(&keys::pending(authority.id), Vec::new());
    }
    txn.put(&keys::authority_name(&authority.name), &authority.id)?;
    txn.put(&keys::authority(authority.id), authority)
}

/// The user whom an authority has signed in; whoever he was not linked to before, he is now.
fn find(txn: &mut Txn<'_>, arrival: &Arrival) -> Result<User, Error> {
    let now = arrival.session.created_at;
    let authority = read(txn, arrival.authority, now)?;
    let link = txn.get::<Link>(&keys::link(arrival.authority, &arrival.subject))?;
    let id = match (&link, &arrival.name) {
        (Some(link), _) => Some(link.user),
        (None, Some(name)) => txn.get::<UserId>(&keys::user_name(name))?,
        (None, None) => None,
    };
    let user = id.map(|id| txn.get::<User>(&keys::user(id))).transpose()?.flatten();
    let (user, origin) = recognise(arrival, authority, link, user)?;
    if let Some(origin) = origin {
        if origin == LinkOrigin::Creation {
            accounts::create_user(txn, &user)?;
        }
        put_link(txn, arrival.authority, &arrival.subject, &Link { user: user.id, origin, created_at: now })?;
    }
    Ok(user)
}

#[async_trait]
impl AuthorityStore for SledStore {
    async fn register_authority(&self, authority: Authority, now: Timestamp) -> Result<(), Error> {
        self.run(move |txn| register(txn, &authority, now)).await
    }

    async fn authority(&self, id: AuthorityId, now: Timestamp) -> Result<Option<Authority>, Error> {
        Ok(self.get::<Authority>(&keys::authority(id))?.filter(|authority| authority.is_there(now)))
    }

    async fn authority_named(&self, name: &str, now: Timestamp) -> Result<Option<Authority>, Error> {
        match self.get::<AuthorityId>(&keys::authority_name(name))? {
            Some(id) => self.authority(id, now).await,
            None => Ok(None),
        }
    }

    async fn authorities(&self, after: After<String>, limit: usize, now: Timestamp) -> Result<Vec<Authority>, Error> {
        let mut after = after.map(|name| keys::authority_name(&name));
        let mut authorities = Vec::new();
        loop {
            let ids = self.list::<AuthorityId>(keys::AUTHORITY_NAMES, after, limit).await?;
            for (_, id) in &ids {
                // One that was deleted between the two reads, or has waited too long, is not listed.
                authorities.extend(self.authority(*id, now).await?);
            }
            after = ids.last().map(|(name, _)| name.clone());
            if authorities.len() >= limit || after.is_none() {
                authorities.truncate(limit);
                return Ok(authorities);
            }
        }
    }

    async fn update_authority(&self, id: AuthorityId, change: Change<Authority>, now: Timestamp) -> Result<Authority, Error> {
        self.run(move |txn| {
            let before = read(txn, id, now)?.ok_or(Error::NotFound("authority"))?;
            let mut authority = before.clone();
            change(&mut authority)?;
            if authority.name != before.name {
                // What has waited too long lets go of its name.
                pending(txn, now)?;
                let name = keys::authority_name(&authority.name);
                let other = txn.get::<AuthorityId>(&name)?.map(|other| read(txn, other, now)).transpose()?.flatten();
                if other.is_some() {
                    return Err(Error::AuthorityExists);
                }
                txn.remove(&keys::authority_name(&before.name));
                txn.put(&name, &id)?;
            }
            if authority.pending.is_none() {
                txn.remove(&keys::pending(id));
            }
            txn.put(&keys::authority(id), &authority)?;
            Ok(authority)
        })
        .await
    }

    async fn delete_authority(&self, id: AuthorityId, now: Timestamp) -> Result<(), Error> {
        let step = move |txn: &mut Txn<'_>| read(txn, id, now)?.map(|authority| remove_some(txn, authority)).transpose();
        let mut is_whole = self.run(step).await?.ok_or(Error::NotFound("authority"))?;
        while !is_whole {
            // Somebody else may have removed what was left.
            is_whole = self.run(step).await?.unwrap_or(true);
        }
        Ok(())
    }

    async fn link_user(&self, authority: AuthorityId, subject: String, link: Link) -> Result<Linked, Error> {
        self.run(move |txn| {
            read(txn, authority, link.created_at)?.ok_or(Error::NotFound("authority"))?;
            let user: User = txn.get(&keys::user(link.user))?.ok_or(Error::NotFound("user"))?;
            match txn.get::<Link>(&keys::link(authority, &subject))? {
                Some(known) if known.user != link.user => return Err(Error::AlreadyExists { name: "subject".into() }),
                _ => put_link(txn, authority, &subject, &link)?,
            }
            Ok(Linked { authority, subject, user, link })
        })
        .await
    }

    async fn unlink_user(&self, authority: AuthorityId, subject: String) -> Result<(), Error> {
        self.run(move |txn| {
            let at = keys::link(authority, &subject);
            let link: Link = txn.get(&at)?.ok_or(Error::NotFound("link"))?;
            txn.remove(&keys::link_of_user(link.user, authority, &subject));
            txn.remove(&at);
            Ok(())
        })
        .await
    }

    async fn links(&self, of: LinksOf, after: After<(AuthorityId, String)>, limit: usize) -> Result<Vec<Linked>, Error> {
        let prefix = match of {
            LinksOf::Authority(authority) => keys::links_of_authority(authority),
            LinksOf::User(user) => keys::links_of_user(user),
        };
        let begin = after.map_or_else(
            || prefix.clone(),
            |(authority, subject)| match of {
                LinksOf::Authority(_) => keys::link(authority, &subject),
                LinksOf::User(user) => keys::link_of_user(user, authority, &subject),
            },
        );
        // What is before the authority's id in the key.
        let before = if matches!(of, LinksOf::Authority(_)) { 1 } else { 17 };
        let tree = self.tree();
        let scan = move || {
            let range = (std::ops::Bound::Excluded(begin), std::ops::Bound::Unbounded);
            let mut links = Vec::new();
            for key in tree.range::<Vec<u8>, _>(range).keys() {
                let key = key.map_err(super::unavailable)?;
                let Some((authority, subject)) = keys::linked_at_end(&key, before).filter(|_| key.starts_with(&prefix)) else { break };
                // What was removed between the reads is not listed.
                let Some(link) = super::get::<Link>(&tree, &keys::link(authority, &subject))? else { continue };
                let Some(user) = super::get::<User>(&tree, &keys::user(link.user))? else { continue };
                links.push(Linked { authority, subject, user, link });
                if links.len() == limit {
                    break;
                }
            }
            Ok(links)
        };
        tokio::task::spawn_blocking(scan).await.map_err(|error| Error::Internal(error.to_string()))?
    }

    async fn open_session_of(&self, arrival: Arrival) -> Result<User, Error> {
        self.run(move |txn| {
            let user = find(txn, &arrival)?;
            if !user.enabled {
                return Err(Error::UserDisabled);
            }
            let mut session = arrival.session;
            session.user = user.id;
            session.authority = Some(arrival.authority);
            sessions::open(txn, &session)?;
            Ok(user)
        })
        .await
    }
}
