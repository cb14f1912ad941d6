//! Apps and users.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;

use super::{SledStore, authorities, keys, sessions, txn::Txn};
use crate::{
    core::{
        Error,
        clock::Timestamp,
        ids::{AppId, UserId},
        model::{App, User},
        usage::AppUsage,
    },
    store::{After, AppStore, Change, Kept, NewPassword, UsageStore, UserStore},
};

#[async_trait]
impl AppStore for SledStore {
    async fn create_apps(&self, apps: Vec<App>) -> Result<(), Error> {
        self.run(move |txn| {
            let mut seen = std::collections::HashSet::new();
            for (index, app) in apps.iter().enumerate() {
                let at = keys::app(&app.id);
                if txn.has(&at)? || !seen.insert(&app.id) {
                    return Err(Error::AlreadyExists { name: format!("steps[{index}].app.app_id") });
                }
                txn.put(&at, app)?;
            }
            Ok(())
        })
        .await
    }

    async fn app(&self, id: &AppId) -> Result<Option<Arc<App>>, Error> {
        self.read(&keys::app(id))
    }

    async fn apps(&self, after: After<AppId>, limit: usize) -> Result<Vec<App>, Error> {
        let apps = self.list(keys::APPS, after.map(|id| keys::app(&id)), limit).await?;
        Ok(apps.into_iter().map(|(_, app)| app).collect())
    }

    async fn update_app(&self, id: &AppId, change: Change<App>) -> Result<App, Error> {
        let at = keys::app(id);
        self.run(move |txn| {
            let mut app: App = txn.get(&at)?.ok_or(Error::NotFound("app"))?;
            change(&mut app)?;
            txn.put(&at, &app)?;
            Ok(app)
        })
        .await
    }

    async fn delete_app(&self, id: &AppId) -> Result<(), Error> {
        let (at, usage) = (keys::app(id), keys::usage(id));
        self.run(move |txn| {
            if !txn.has(&at)? {
                return Err(Error::NotFound("app"));
            }
            txn.remove(&at);
            txn.remove(&usage);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl UsageStore for SledStore {
    async fn add_usage(&self, usage: Vec<(AppId, AppUsage)>) -> Result<(), Error> {
        // A step does not see what it has put: what is added to one app is added up before.
        let mut added: BTreeMap<AppId, AppUsage> = BTreeMap::new();
        for (app, counted) in usage {
            added.entry(app).or_default().add(counted);
        }
        self.run(move |txn| {
            for (app, counted) in added {
                if txn.has(&keys::app(&app))? {
                    let at = keys::usage(&app);
                    let mut known: AppUsage = txn.get(&at)?.unwrap_or_default();
                    known.add(counted);
                    txn.put(&at, &known)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn usage(&self, after: After<AppId>, limit: usize) -> Result<Vec<(AppId, AppUsage)>, Error> {
        let usage = self.list(keys::USAGE, after.map(|id| keys::usage(&id)), limit).await?;
        Ok(usage.into_iter().filter_map(|(key, usage)| keys::app_of_usage(&key).map(|app| (app, usage))).collect())
    }
}

/// Notes whether a user is an enabled administrator. The last one cannot cease to be one.
fn note_administrator(txn: &mut Txn<'_>, user: &User, deleted: bool) -> Result<(), Error> {
    let at = keys::administrator(user.id);
    if user.enabled && user.is_administrator() && !deleted {
        txn.put_raw(&at, Vec::new());
    } else if txn.has(&at)? {
        if txn.keys(keys::ADMINISTRATORS).take(2).count() < 2 {
            return Err(Error::Precondition("no administrator would be left: make another one first"));
        }
        txn.remove(&at);
    }
    Ok(())
}

/// Makes a user whose name nobody has.
pub(super) fn create_user(txn: &mut Txn<'_>, user: &User) -> Result<(), Error> {
    txn.put(&keys::user(user.id), user)?;
    txn.put(&keys::user_name(&user.name), &user.id)?;
    note_administrator(txn, user, false)
}

#[async_trait]
impl UserStore for SledStore {
    async fn create_users(&self, users: Vec<User>) -> Result<(), Error> {
        self.run(move |txn| {
            let mut seen = std::collections::HashSet::new();
            for (index, user) in users.iter().enumerate() {
                let name = keys::user_name(&user.name);
                if txn.has(&name)? || !seen.insert(&user.name) {
                    return Err(Error::AlreadyExists { name: format!("steps[{index}].user.user_name") });
                }
                create_user(txn, user)?;
            }
            Ok(())
        })
        .await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, Error> {
        self.get(&keys::user(id))
    }

    async fn user_named(&self, name: &str) -> Result<Option<User>, Error> {
        match self.get::<UserId>(&keys::user_name(name))? {
            Some(id) => self.user(id).await,
            None => Ok(None),
        }
    }

    async fn users(&self, after: After<String>, limit: usize) -> Result<Vec<User>, Error> {
        let ids = self.list::<UserId>(keys::USER_NAMES, after.map(|name| keys::user_name(&name)), limit).await?;
        let users: Vec<Option<User>> = ids.into_iter().map(|(_, id)| self.get(&keys::user(id))).collect::<Result<_, _>>()?;
        // One that was deleted between the two reads is not listed.
        Ok(users.into_iter().flatten().collect())
    }

    async fn update_user(&self, id: UserId, change: Change<User>, now: Timestamp) -> Result<User, Error> {
        let change = Arc::new(change);
        loop {
            let change = Arc::clone(&change);
            let step = move |txn: &mut Txn<'_>| {
                let at = keys::user(id);
                let mut user: User = txn.get(&at)?.ok_or(Error::NotFound("user"))?;
                // Whoever disabled him may have been cut short.
                let was_disabled = !user.enabled;
                change(&mut user)?;
                let has_more = (was_disabled || !user.enabled) && sessions::end_all(txn, id, Kept::None, now)?.has_more;
                // He is disabled before his sessions have ended, and enabled only after.
                let is_changed = !has_more || !user.enabled;
                if is_changed {
                    note_administrator(txn, &user, false)?;
                    txn.put(&at, &user)?;
                }
                Ok((user, has_more, is_changed))
            };
            let (user, has_more, is_changed) = self.run(step).await?;
            if has_more {
                self.end_all(id, Kept::None, now).await?;
            }
            if is_changed {
                return Ok(user);
            }
        }
    }

    async fn delete_user(&self, id: UserId, now: Timestamp) -> Result<(), Error> {
        let step = move |txn: &mut Txn<'_>| {
            let at = keys::user(id);
            let mut user: User = txn.get(&at)?.ok_or(Error::NotFound("user"))?;
            note_administrator(txn, &user, true)?;
            let ended = sessions::end_all(txn, id, Kept::None, now)?;
            let is_done = !ended.has_more && !ended.leaves_some && authorities::forget_some(txn, id)?;
            if is_done {
                txn.remove(&keys::user_name(&user.name));
                txn.remove(&at);
            } else {
                // A session has a user, as long as anything is left of it.
                user.enabled = false;
                txn.put(&at, &user)?;
            }
            Ok(is_done)
        };
        while !self.run(step).await? {}
        Ok(())
    }

    async fn set_password(&self, id: UserId, password: NewPassword, now: Timestamp) -> Result<User, Error> {
        let password = Arc::new(password);
        loop {
            let password = Arc::clone(&password);
            let step = move |txn: &mut Txn<'_>| {
                let at = keys::user(id);
                let mut user: User = txn.get(&at)?.ok_or(Error::NotFound("user"))?;
                if password.replaces.is_some() && password.replaces != user.password_hash {
                    return Err(Error::WrongPassword);
                }
                // The password is not in force before the last of them can end with it: who is cut short can do it again.
                if sessions::end_all(txn, id, password.keep, now)?.has_more {
                    return Ok(None);
                }
                user.password_hash = Some(password.hash.clone());
                user.password_change_required = password.change_required;
                user.updated_at = now;
                txn.put(&at, &user)?;
                Ok(Some(user))
            };
            if let Some(user) = self.run(step).await? {
                return Ok(user);
            }
        }
    }
}
