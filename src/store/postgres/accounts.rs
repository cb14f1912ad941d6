//! Apps and users.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;

use super::{
    PostgresStore,
    database::{Columns, Failure, Txn, transact},
    lock,
    rows::{administers, app_columns, app_values, read_app, read_user, user_columns, user_values},
    sessions,
};
use crate::{
    core::{
        Error,
        clock::Timestamp,
        ids::{AppId, UserId},
        model::{App, User},
        usage::{AppUsage, Count},
    },
    store::{After, AppStore, Change, Kept, NewPassword, UsageStore, UserStore},
};

/// The most rows that a listing asks for.
fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) async fn put_app(txn: &Txn<'_>, app: &App) -> Result<(), Failure> {
    let sql = "INSERT INTO apps (id, incarnation, display_name, redirect_uris, logout_uris, enabled, refresh_requires_app_credential, \
               secrets, created_at, updated_at, rights, signature_requires_date) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    txn.execute(sql, &app_values(app).params()).await?;
    Ok(())
}

/// The first of some names that is taken, or is among them twice.
async fn first_taken(txn: &Txn<'_>, sql: &str, names: &[&str]) -> Result<Option<usize>, Failure> {
    let rows = txn.query(sql, &[&names]).await?;
    let mut taken = HashSet::new();
    for row in &rows {
        taken.insert(Columns::of(row).next::<String>()?);
    }
    Ok(names.iter().position(|name| !taken.insert((*name).to_owned())))
}

#[async_trait]
impl AppStore for PostgresStore {
    async fn create_apps(&self, apps: Vec<App>) -> Result<(), Error> {
        let ids: Vec<&str> = apps.iter().map(|app| app.id.as_str()).collect();
        transact!(self.database, async |txn| {
            if let Some(index) = first_taken(txn, "SELECT id FROM apps WHERE id = ANY($1)", &ids).await? {
                return Err(Error::AlreadyExists { name: format!("steps[{index}].app.app_id") }.into());
            }
            for app in &apps {
                put_app(txn, app).await?;
            }
            Ok(())
        })
        .await
    }

    async fn app(&self, id: &AppId) -> Result<Option<Arc<App>>, Error> {
        let sql = concat!("SELECT ", app_columns!(), " FROM apps a WHERE a.id = $1");
        let row = self.database.query_opt(sql, &[&id.as_str()]).await?;
        row.map(|row| read_app(&mut Columns::of(&row)).map(Arc::new)).transpose()
    }

    async fn apps(&self, after: After<AppId>, limit: usize) -> Result<Vec<App>, Error> {
        let sql = concat!("SELECT ", app_columns!(), " FROM apps a WHERE a.id > $1 ORDER BY a.id LIMIT $2");
        let begin = after.as_ref().map_or("", AppId::as_str);
        let rows = self.database.query(sql, &[&begin, &at_most(limit)]).await?;
        rows.iter().map(|row| read_app(&mut Columns::of(row))).collect()
    }

    async fn update_app(&self, id: &AppId, change: Change<App>) -> Result<App, Error> {
        transact!(self.database, async |txn| {
            let read = concat!("SELECT ", app_columns!(), " FROM apps a WHERE a.id = $1 FOR UPDATE");
            let row = txn.query_opt(read, &[&id.as_str()]).await?.ok_or(Error::NotFound("app"))?;
            let mut app = read_app(&mut Columns::of(&row))?;
            change(&mut app)?;
            let write = "UPDATE apps SET incarnation = $2, display_name = $3, redirect_uris = $4, logout_uris = $5, enabled = $6, \
                             refresh_requires_app_credential = $7, secrets = $8, created_at = $9, updated_at = $10, rights = $11, \
                             signature_requires_date = $12 WHERE id = $1";
            txn.execute(write, &app_values(&app).params()).await?;
            Ok(app)
        })
        .await
    }

    async fn delete_app(&self, id: &AppId) -> Result<(), Error> {
        let deleted = self.database.query_opt("DELETE FROM apps WHERE id = $1 RETURNING 1", &[&id.as_str()]).await?;
        deleted.map(|_| ()).ok_or(Error::NotFound("app"))
    }
}

/// What stands for signatures without a checked date, where the name of an operation would be.
const UNDATED: &str = "";

pub(super) async fn put_usage(txn: &Txn<'_>, app: &AppId, usage: &AppUsage) -> Result<(), Failure> {
    // The app may be gone: then nothing is added.
    let sql = "INSERT INTO app_usage (app, operation, times, last_at) SELECT a.id, $2, $3, $4 FROM apps a WHERE a.id = $1 FOR SHARE \
               ON CONFLICT (app, operation) DO UPDATE SET times = app_usage.times + excluded.times, \
               last_at = GREATEST(app_usage.last_at, excluded.last_at)";
    let undated = (usage.undated.times > 0).then_some((UNDATED, usage.undated));
    let deprecated = usage.deprecated.iter().map(|(operation, count)| (operation.as_str(), *count));
    for (operation, count) in deprecated.chain(undated) {
        let times = i64::try_from(count.times).unwrap_or(i64::MAX);
        txn.execute(sql, &[&app.as_str(), &operation, &times, &count.last_at]).await?;
    }
    Ok(())
}

/// One count of an app.
pub(super) fn read_usage(columns: &mut Columns<'_>) -> Result<(AppId, AppUsage), Error> {
    let app = AppId::new(columns.next()?).ok_or_else(|| Error::StoreUnavailable("a record cannot be read: an app's id".into()))?;
    let operation: String = columns.next()?;
    let count = Count { times: u64::try_from(columns.next::<i64>()?).unwrap_or(0), last_at: columns.next()? };
    let usage = if operation == UNDATED {
        AppUsage { undated: count, ..AppUsage::default() }
    } else {
        AppUsage { deprecated: [(operation, count)].into(), ..AppUsage::default() }
    };
    Ok((app, usage))
}

#[async_trait]
impl UsageStore for PostgresStore {
    async fn add_usage(&self, mut usage: Vec<(AppId, AppUsage)>) -> Result<(), Error> {
        // In one order, so that no two replicas wait for one another.
        usage.sort_by(|(a, _), (b, _)| a.cmp(b));
        transact!(self.database, async |txn| {
            for (app, counted) in &usage {
                put_usage(txn, app, counted).await?;
            }
            Ok(())
        })
        .await
    }

    async fn usage(&self, after: After<AppId>, limit: usize) -> Result<Vec<(AppId, AppUsage)>, Error> {
        let sql = "SELECT app, operation, times, last_at FROM app_usage WHERE app IN \
                   (SELECT DISTINCT app FROM app_usage WHERE app > $1 ORDER BY app LIMIT $2) ORDER BY app";
        let begin = after.as_ref().map_or("", AppId::as_str);
        let mut usage: Vec<(AppId, AppUsage)> = Vec::new();
        for row in &self.database.query(sql, &[&begin, &at_most(limit)]).await? {
            let (app, added) = read_usage(&mut Columns::of(row))?;
            match usage.last_mut().filter(|(last, _)| *last == app) {
                Some((_, known)) => known.add(added),
                None => usage.push((app, added)),
            }
        }
        Ok(usage)
    }
}

/// The user of this id, whose row is locked from then on.
async fn lock_user(txn: &Txn<'_>, id: UserId) -> Result<User, Failure> {
    let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = $1 FOR UPDATE");
    let row = txn.query_opt(sql, &[&id]).await?.ok_or(Error::NotFound("user"))?;
    Ok(read_user(&mut Columns::of(&row))?)
}

/// Refuses when the last administrator would cease to be one. `before` is how the user is, `stays` whether he goes on being one.
async fn keep_an_administrator(txn: &Txn<'_>, before: &User, stays: bool) -> Result<(), Failure> {
    if !administers(before) || stays {
        return Ok(());
    }
    // Two that cease at the same time would each see the other.
    lock(txn, "administrators").await?;
    if txn.query("SELECT id FROM users WHERE administrator LIMIT 2", &[]).await?.len() < 2 {
        return Err(Error::Precondition("no administrator would be left: make another one first").into());
    }
    Ok(())
}

async fn write_user(txn: &Txn<'_>, user: &User) -> Result<(), Failure> {
    let sql = "UPDATE users SET name = $2, person_code = $3, company_code = $4, account_type = $5, enabled = $6, password_hash = $7, \
               password_change_required = $8, created_at = $9, updated_at = $10, rights = $11, administrator = $12 WHERE id = $1";
    txn.execute(sql, &user_values(user).params()).await?;
    Ok(())
}

/// Makes a user whose name nobody has.
pub(super) async fn put_user(txn: &Txn<'_>, user: &User) -> Result<(), Failure> {
    let sql = "INSERT INTO users (id, name, person_code, company_code, account_type, enabled, password_hash, password_change_required, \
               created_at, updated_at, rights, administrator) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    txn.execute(sql, &user_values(user).params()).await?;
    Ok(())
}

#[async_trait]
impl UserStore for PostgresStore {
    async fn create_users(&self, users: Vec<User>) -> Result<(), Error> {
        let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
        transact!(self.database, async |txn| {
            if let Some(index) = first_taken(txn, "SELECT name FROM users WHERE name = ANY($1)", &names).await? {
                return Err(Error::AlreadyExists { name: format!("steps[{index}].user.user_name") }.into());
            }
            for user in &users {
                put_user(txn, user).await?;
            }
            Ok(())
        })
        .await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, Error> {
        let row = self.database.query_opt(concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = $1"), &[&id]).await?;
        row.map(|row| read_user(&mut Columns::of(&row))).transpose()
    }

    async fn user_named(&self, name: &str) -> Result<Option<User>, Error> {
        if name.contains('\0') {
            // Nobody's name has one, and the database would take the whole statement for malformed.
            return Ok(None);
        }
        let row = self.database.query_opt(concat!("SELECT ", user_columns!(), " FROM users u WHERE u.name = $1"), &[&name]).await?;
        row.map(|row| read_user(&mut Columns::of(&row))).transpose()
    }

    async fn users(&self, after: After<String>, limit: usize) -> Result<Vec<User>, Error> {
        let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.name > $1 ORDER BY u.name LIMIT $2");
        let rows = self.database.query(sql, &[&after.unwrap_or_default(), &at_most(limit)]).await?;
        rows.iter().map(|row| read_user(&mut Columns::of(row))).collect()
    }

    async fn update_user(&self, id: UserId, change: Change<User>, now: Timestamp) -> Result<User, Error> {
        let step = async || {
            transact!(self.database, async |txn| {
                let before = lock_user(txn, id).await?;
                let mut user = before.clone();
                change(&mut user)?;
                keep_an_administrator(txn, &before, administers(&user)).await?;
                // Whoever disabled him may have been cut short.
                let ends = !before.enabled || !user.enabled;
                let has_more = ends && sessions::end_all(txn, id, Kept::None, now).await?.has_more;
                // He is disabled before his sessions have ended, and enabled only after.
                let is_changed = !has_more || !user.enabled;
                if is_changed {
                    write_user(txn, &user).await?;
                }
                Ok((user, has_more, is_changed))
            })
            .await
        };
        loop {
            let (user, has_more, is_changed) = step().await?;
            if has_more {
                self.end_all(id, Kept::None, now).await?;
            }
            if is_changed {
                return Ok(user);
            }
        }
    }

    async fn delete_user(&self, id: UserId, now: Timestamp) -> Result<(), Error> {
        let step = async || {
            transact!(self.database, async |txn| {
                let mut user = lock_user(txn, id).await?;
                keep_an_administrator(txn, &user, false).await?;
                let ended = sessions::end_all(txn, id, Kept::None, now).await?;
                let is_done = !ended.has_more && !ended.leaves_some;
                if is_done {
                    txn.execute("DELETE FROM users WHERE id = $1", &[&id]).await?;
                } else {
                    // A session has a user, as long as anything is left of it.
                    user.enabled = false;
                    write_user(txn, &user).await?;
                }
                Ok(is_done)
            })
            .await
        };
        while !step().await? {}
        Ok(())
    }

    async fn set_password(&self, id: UserId, password: NewPassword, now: Timestamp) -> Result<User, Error> {
        let step = async || {
            transact!(self.database, async |txn| {
                let mut user = lock_user(txn, id).await?;
                if password.replaces.is_some() && password.replaces != user.password_hash {
                    return Err(Error::WrongPassword.into());
                }
                // The password is not in force before the last of them can end with it: who is cut short can do it again.
                if sessions::end_all(txn, id, password.keep, now).await?.has_more {
                    return Ok(None);
                }
                user.password_hash = Some(password.hash.clone());
                user.password_change_required = password.change_required;
                user.updated_at = now;
                write_user(txn, &user).await?;
                Ok(Some(user))
            })
            .await
        };
        loop {
            if let Some(user) = step().await? {
                return Ok(user);
            }
        }
    }
}
