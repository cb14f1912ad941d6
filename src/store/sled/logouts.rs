//! Calls that are owed to apps.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;

use super::{
    SledStore, keys,
    txn::{Txn, decode, get, unavailable},
    writer::Owed,
};
use crate::{
    core::{
        Error,
        clock::Timestamp,
        ids::{AppId, LogoutId},
        logouts::{Outcome, OwedLogout, SHOWN_FOR},
        model::{App, Family, Session},
    },
    store::{After, LogoutStore},
};

/// How many calls one step gives up.
const GIVE_UP_BATCH: usize = 256;

/// How many calls a store owes when it is opened.
pub(super) fn count(tree: &sled::Tree) -> Result<Owed, Error> {
    let mut count = 0;
    for key in tree.scan_prefix(keys::OWED).keys() {
        key.map_err(unavailable)?;
        count += 1;
    }
    Ok(Owed { count: AtomicI64::new(count), ..Owed::default() })
}

/// The calls that come to be owed because a session ends.
pub(super) struct Owing<'a> {
    session: &'a Session,
    now: Timestamp,
    apps: HashMap<AppId, Option<App>>,
    /// An app that has several families of the session is told once at each address.
    told: HashSet<(AppId, String)>,
}

impl<'a> Owing<'a> {
    pub(super) fn new(session: &'a Session, now: Timestamp) -> Self {
        Self { session, now, apps: HashMap::new(), told: HashSet::new() }
    }

    /// Owes the app of a family its call. A record that cannot be read must not keep the session from being ended.
    pub(super) fn note(&mut self, txn: &mut Txn<'_>, family: &[u8]) -> Result<(), Error> {
        let family: Family = match txn.get(family) {
            Ok(Some(family)) => family,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::error!(session = %self.session.id, "an app is not told that a session has ended: {error}");
                return Ok(());
            }
        };
        if !self.apps.contains_key(&family.app) {
            let app = txn.get(&keys::app(&family.app)).unwrap_or_else(|error| {
                tracing::error!(app = %family.app, session = %self.session.id, "an app is not told that a session has ended: {error}");
                None
            });
            self.apps.insert(family.app.clone(), app);
        }
        let Some(Some(app)) = self.apps.get(&family.app) else { return Ok(()) };
        let Some(owed) = OwedLogout::new(app, &family, self.session, self.now)? else { return Ok(()) };
        if self.told.insert((owed.app.clone(), owed.uri.clone())) {
            put_owed(txn, &owed)?;
        }
        Ok(())
    }
}

/// Owes a call.
pub(super) fn put_owed(txn: &mut Txn<'_>, owed: &OwedLogout) -> Result<(), Error> {
    txn.put_raw(&keys::turn(owed), Vec::new());
    txn.put(&keys::owed(owed.id), owed)?;
    txn.owed += 1;
    Ok(())
}

/// Takes a call from those that are owed.
fn take(txn: &mut Txn<'_>, owed: &OwedLogout) {
    txn.remove(&keys::turn(owed));
    txn.remove(&keys::owed(owed.id));
    txn.owed -= 1;
}

fn give_up(txn: &mut Txn<'_>, mut owed: OwedLogout, at: Timestamp) -> Result<(), Error> {
    take(txn, &owed);
    owed.given_up_at = Some(at);
    put_given_up(txn, &owed)
}

/// Keeps a call that was given up, to be shown.
pub(super) fn put_given_up(txn: &mut Txn<'_>, given_up: &OwedLogout) -> Result<(), Error> {
    let key = keys::given_up(given_up.id);
    txn.put_raw(&keys::expiry(given_up.given_up_at.unwrap_or_default().after(SHOWN_FOR), &key), Vec::new());
    txn.put(&key, given_up)
}

#[async_trait]
impl LogoutStore for SledStore {
    async fn due_logouts(&self, per_lane: usize, now: Timestamp) -> Result<Vec<OwedLogout>, Error> {
        let tree = self.tree();
        let scan = move || {
            let mut due = Vec::new();
            let mut begin = keys::QUEUE.to_vec();
            // From lane to lane, and in each no further than to what is due: a lane with very many calls costs no more than one with few.
            while let Some(first) = tree.range(begin.as_slice()..).keys().next() {
                let first = first.map_err(unavailable)?;
                let Some((lane, _)) = keys::read_turn(&first).filter(|_| first.starts_with(keys::QUEUE)) else { break };
                let end = keys::turns_after(lane, now);
                for turn in tree.range(first.as_ref()..).keys().take(per_lane) {
                    let turn = turn.map_err(unavailable)?;
                    if turn.as_ref() >= end.as_slice() {
                        break;
                    }
                    let id = keys::read_turn(&turn).map(|(_, id)| id);
                    // One that was settled meanwhile is gone.
                    let owed = id.map(|id| get::<OwedLogout>(&tree, &keys::owed(id))).transpose();
                    match owed {
                        Ok(owed) => due.extend(owed.flatten()),
                        Err(error) => tracing::error!("a call that is owed to an app is passed over: {error}"),
                    }
                }
                begin = keys::lane_after(lane);
            }
            Ok(due)
        };
        tokio::task::spawn_blocking(scan).await.map_err(|error| Error::Internal(error.to_string()))?
    }

    async fn take_logout(&self, owed: &OwedLogout, _: Timestamp) -> Result<bool, Error> {
        // One process has the store, and knows what it is trying. The step that owes it may not be on disk yet, and an app that was told of a
        // sign-out that a power cut undoes would be told wrongly: an answer of the writer comes after all that was written before.
        let at = keys::owed(owed.id);
        self.writer.run_in_turn(move |txn| txn.has(&at)).await
    }

    async fn settle_logout(&self, id: LogoutId, outcome: Outcome) -> Result<(), Error> {
        self.run(move |txn| {
            let at = keys::owed(id);
            let Some(mut owed) = txn.get::<OwedLogout>(&at)? else { return Ok(()) };
            match outcome {
                Outcome::Settled => take(txn, &owed),
                Outcome::GivenUp { error, at } => {
                    owed.note_error(&error);
                    give_up(txn, owed, at)?;
                }
                Outcome::Again { error, at: next } => {
                    txn.remove(&keys::turn(&owed));
                    owed.note_error(&error);
                    owed.tries = owed.tries.saturating_add(1);
                    owed.next_try_at = next;
                    txn.put_raw(&keys::turn(&owed), Vec::new());
                    txn.put(&at, &owed)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn give_up_logouts(&self, now: Timestamp) -> Result<Vec<OwedLogout>, Error> {
        // Nearly always there is nothing to do, which needs no step. The ids are in the order of time. What cannot be read is passed over.
        let mut oldest = None;
        for value in self.tree().scan_prefix(keys::OWED).values() {
            oldest = decode::<OwedLogout>(&value.map_err(unavailable)?).ok();
            if oldest.is_some() {
                break;
            }
        }
        if !oldest.is_some_and(|oldest| oldest.is_too_old(now)) {
            return Ok(Vec::new());
        }
        self.run(move |txn| {
            let mut given_up = Vec::new();
            for key in txn.keys(keys::OWED) {
                match txn.get::<OwedLogout>(&key?) {
                    Ok(Some(owed)) if owed.is_too_old(now) && given_up.len() < GIVE_UP_BATCH => {
                        give_up(txn, owed.clone(), now)?;
                        given_up.push(owed);
                    }
                    Ok(_) => break,
                    Err(error) => tracing::error!("a call that is owed to an app cannot be given up: {error}"),
                }
            }
            Ok(given_up)
        })
        .await
    }

    async fn logouts(&self, given_up: bool, app: Option<AppId>, after: After<LogoutId>, limit: usize) -> Result<Vec<OwedLogout>, Error> {
        let tree = self.tree();
        let scan = move || {
            let (prefix, key): (_, fn(LogoutId) -> Vec<u8>) =
                if given_up { (keys::GIVEN_UP, keys::given_up) } else { (keys::OWED, keys::owed) };
            let begin = std::ops::Bound::Excluded(after.map_or_else(|| prefix.to_vec(), key));
            tree.range::<Vec<u8>, _>((begin, std::ops::Bound::Unbounded))
                .take_while(|entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
                .map(|entry| entry.map_err(unavailable).and_then(|(_, value)| decode::<OwedLogout>(&value)))
                .filter(|owed| owed.as_ref().map_or(true, |owed| app.as_ref().is_none_or(|app| owed.app == *app)))
                .take(limit)
                .collect()
        };
        tokio::task::spawn_blocking(scan).await.map_err(|error| Error::Internal(error.to_string()))?
    }

    async fn owed_logouts(&self) -> Result<u64, Error> {
        Ok(u64::try_from(self.writer.owed.count.load(Ordering::Relaxed)).unwrap_or(0))
    }

    async fn logouts_owed(&self) {
        self.writer.owed.more.notified().await;
    }
}
