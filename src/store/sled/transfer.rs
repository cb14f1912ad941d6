//! Moving records out of a store and into one.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{
    SledStore, accounts, authorities, keys, logouts, sessions,
    snapshot::Snapshot,
    txn::{Txn, decode, unavailable},
};
use crate::{
    core::{Error, ids::FamilyId},
    store::{TRANSFER_BATCH, Transfer, record::Record},
};

/// The record under a key.
fn record(key: &[u8], value: &[u8]) -> Result<Record, Error> {
    let read = || -> Result<Option<Record>, Error> {
        Ok(Some(match key.split_at_checked(1).map(|(kind, _)| kind) {
            Some(keys::APPS) => Record::App(decode(value)?),
            Some(keys::USAGE) => {
                let Some(app) = keys::app_of_usage(key) else { return Ok(None) };
                Record::AppUsage { app, usage: decode(value)? }
            }
            Some(keys::USERS) => Record::User(decode(value)?),
            Some(keys::SIGNING_KEYS) => Record::SigningKey(decode(value)?),
            Some(keys::AUTHORITIES) => Record::Authority(decode(value)?),
            Some(keys::LINKS) => {
                let Some((authority, subject)) = keys::linked_at_end(key, 1) else { return Ok(None) };
                Record::Link { authority, subject, link: decode(value)? }
            }
            Some(keys::SESSIONS) => Record::Session(decode(value)?),
            Some(keys::FAMILIES) => {
                let Some(id) = keys::read_family(key) else { return Ok(None) };
                Record::family(id, decode(value)?)
            }
            Some(keys::ENDED_FAMILIES) => {
                let Some(session) = keys::session_of_ended_family(key) else { return Ok(None) };
                Record::EndedFamily { session, family: decode(value)? }
            }
            Some(keys::CODES) => {
                let Some(hash) = keys::hash_at_end(key) else { return Ok(None) };
                Record::Code { hash, code: decode(value)? }
            }
            Some(keys::USED) => {
                let Some(hash) = keys::hash_at_end(key) else { return Ok(None) };
                Record::UsedUp { hash, until: decode(value)? }
            }
            Some(keys::OWED) => Record::OwedLogout(decode(value)?),
            Some(keys::GIVEN_UP) => Record::GivenUpLogout(decode(value)?),
            _ if key == keys::IDENTITY => Record::Identity(decode(value)?),
            _ => return Ok(None),
        }))
    };
    read()?.ok_or_else(|| Error::StoreUnavailable("a record has a key that cannot be read".into()))
}

/// Puts a record and what leads to it.
fn put(txn: &mut Txn<'_>, record: Record) -> Result<(), Error> {
    match record {
        Record::App(app) => txn.put(&keys::app(&app.id), &app),
        Record::AppUsage { app, usage } => txn.put(&keys::usage(&app), &usage),
        Record::User(user) => accounts::create_user(txn, &user),
        Record::SigningKey(key) => txn.put(&keys::signing_key(&key.kid), &key),
        Record::Authority(authority) => authorities::put(txn, &authority),
        Record::Link { authority, subject, link } => authorities::put_link(txn, authority, &subject, &link),
        Record::Session(session) => sessions::open(txn, &session),
        Record::Family { session, number, family } => txn.put(&keys::family(FamilyId { session, number }), &family),
        Record::EndedFamily { session, family } => txn.put(&keys::ended_family(session, &family), &family),
        Record::Code { hash, code } => sessions::put_code(txn, &hash, &code),
        Record::UsedUp { hash, until } => sessions::put_used(txn, &hash, until),
        Record::OwedLogout(owed) => logouts::put_owed(txn, &owed),
        Record::GivenUpLogout(given_up) => logouts::put_given_up(txn, &given_up),
        Record::Identity(identity) => txn.put(keys::IDENTITY, &identity),
    }
}

#[async_trait]
impl Transfer for SledStore {
    async fn export(&self, records: mpsc::Sender<Vec<Record>>) -> Result<(), Error> {
        let snapshots = Arc::clone(&self.writer.beside.snapshots);
        // Between two steps, and after everything before it is on disk.
        let snapshot: Snapshot = self.writer.run_in_turn(move |_| snapshots.take()).await?;
        let tree = self.tree();
        let scan = move || {
            while let Some(read) = snapshot.read(&tree, TRANSFER_BATCH)? {
                let batch = read.iter().map(|(key, value)| record(key, value)).collect::<Result<Vec<_>, _>>()?;
                for batch in batch.chunks(TRANSFER_BATCH).filter(|batch| !batch.is_empty()) {
                    records.blocking_send(batch.to_vec()).map_err(|_| Error::Internal("nobody receives the records any more".into()))?;
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(scan).await.map_err(|error| Error::Internal(error.to_string()))?
    }

    async fn is_empty(&self) -> Result<bool, Error> {
        let own = [keys::FORMAT, keys::LATEST, keys::PROBE, keys::STEP];
        for key in self.tree().iter().keys() {
            if !own.contains(&key.map_err(unavailable)?.as_ref()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn import(&self, records: Vec<Record>) -> Result<(), Error> {
        self.run(move |txn| records.into_iter().try_for_each(|record| put(txn, record))).await
    }
}
