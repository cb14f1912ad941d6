//! Apps and users.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use serde::Serialize;

use super::{
    PostgresStore, authorities,
    database::{Columns, Failure, Txn, transact},
    lock,
    rows::{
        administers, app_columns, app_values, column, known_rights, read_app, read_user, rights_and_unknown, user_columns, user_values,
    },
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

/// How many records one statement makes.
const MADE_AT_ONCE: usize = 1000;

/// A column of lists, each of them one text: an array of lists cannot be taken apart row by row, and CockroachDB has no arrays of JSON.
fn lists<'a, R, T: Serialize>(records: &'a [R], value: impl Fn(&'a R) -> T) -> Result<Vec<String>, Error> {
    let written = |record| serde_json::to_string(&value(record));
    records.iter().map(written).collect::<Result<_, _>>().map_err(|error| Error::Internal(format!("a list cannot be written: {error}")))
}

/// Makes apps whose ids nobody has. Many take a few statements, so that all of them are made in the time that one step has.
pub(super) async fn put_apps(txn: &Txn<'_>, apps: &[App]) -> Result<(), Failure> {
    let sql = "INSERT INTO apps (id, incarnation, display_name, redirect_uris, logout_uris, enabled, refresh_requires_app_credential, \
               secrets, created_at, updated_at, rights, signature_requires_date) \
               SELECT n.id, n.incarnation, n.name, ARRAY(SELECT jsonb_array_elements_text(CAST(n.redirect_uris AS jsonb))), \
               ARRAY(SELECT jsonb_array_elements_text(CAST(n.logout_uris AS jsonb))), n.enabled, n.requires, CAST(n.secrets AS jsonb), \
               n.created_at, n.updated_at, ARRAY(SELECT jsonb_array_elements_text(CAST(n.rights AS jsonb))), n.dated \
               FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::bool[], $7::bool[], $8::text[], \
               $9::bigint[], $10::bigint[], $11::text[], $12::bool[]) \
               AS n (id, incarnation, name, redirect_uris, logout_uris, enabled, requires, secrets, created_at, updated_at, rights, dated)";
    for apps in apps.chunks(MADE_AT_ONCE) {
        txn.execute(
            sql,
            &[
                &column(apps, |app| app.id.as_str()),
                &column(apps, |app| &app.incarnation),
                &column(apps, |app| app.display_name.as_str()),
                &lists(apps, |app| &app.redirect_uris)?,
                &lists(apps, |app| &app.logout_uris)?,
                &column(apps, |app| app.enabled),
                &column(apps, |app| app.refresh_requires_app_credential),
                &lists(apps, |app| &app.secrets)?,
                &column(apps, |app| app.created_at),
                &column(apps, |app| app.updated_at),
                &lists(apps, |app| app.rights.names().collect::<Vec<_>>())?,
                &column(apps, |app| app.signature_requires_date),
            ],
        )
        .await?;
    }
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
            put_apps(txn, &apps).await
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
            let write = concat!(
                "UPDATE apps SET incarnation = $2, display_name = $3, redirect_uris = $4, logout_uris = $5, enabled = $6, \
                 refresh_requires_app_credential = $7, secrets = $8, created_at = $9, updated_at = $10, rights = ",
                rights_and_unknown!("$11", "$13"),
                ", signature_requires_date = $12 WHERE id = $1"
            );
            txn.execute(write, &[app_values(&app).params(), vec![&known_rights()]].concat()).await?;
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

/// Adds to what is known of apps, each of them once.
pub(super) async fn put_usage(txn: &Txn<'_>, usage: &BTreeMap<AppId, AppUsage>) -> Result<(), Failure> {
    // In one order, so that no two replicas wait for one another. An app may be gone: then nothing is added.
    let sql = "INSERT INTO app_usage (app, operation, times, last_at) \
               SELECT a.id, n.operation, n.times, n.last_at \
               FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS n (app, operation, times, last_at) \
               JOIN apps a ON a.id = n.app ORDER BY a.id, n.operation FOR SHARE OF a \
               ON CONFLICT (app, operation) DO UPDATE SET times = app_usage.times + excluded.times, \
               last_at = GREATEST(app_usage.last_at, excluded.last_at)";
    let mut counts = Vec::new();
    for (app, usage) in usage {
        let undated = (usage.undated.times > 0).then_some((UNDATED, usage.undated));
        let deprecated = usage.deprecated.iter().map(|(operation, count)| (operation.as_str(), *count));
        counts.extend(deprecated.chain(undated).map(|(operation, count)| (app, operation, count)));
    }
    txn.execute(
        sql,
        &[
            &column(&counts, |(app, ..)| app.as_str()),
            &column(&counts, |(_, operation, _)| *operation),
            &column(&counts, |(.., count)| i64::try_from(count.times).unwrap_or(i64::MAX)),
            &column(&counts, |(.., count)| count.last_at),
        ],
    )
    .await?;
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
    async fn add_usage(&self, usage: Vec<(AppId, AppUsage)>) -> Result<(), Error> {
        let mut apps: BTreeMap<AppId, AppUsage> = BTreeMap::new();
        for (app, counted) in usage {
            apps.entry(app).or_default().add(counted);
        }
        transact!(self.database, async |txn| put_usage(txn, &apps).await).await
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
    let sql = concat!(
        "UPDATE users SET name = $2, person_code = $3, company_code = $4, account_type = $5, enabled = $6, password_hash = $7, \
         password_change_required = $8, created_at = $9, updated_at = $10, rights = ",
        rights_and_unknown!("$11", "$13"),
        ", administrator = $12 WHERE id = $1"
    );
    txn.execute(sql, &[user_values(user).params(), vec![&known_rights()]].concat()).await?;
    Ok(())
}

/// Makes users whose names nobody has, as [`put_apps`] does.
pub(super) async fn put_users(txn: &Txn<'_>, users: &[User]) -> Result<(), Failure> {
    let sql = "INSERT INTO users (id, name, person_code, company_code, account_type, enabled, password_hash, password_change_required, \
               created_at, updated_at, rights, administrator) \
               SELECT n.id, n.name, n.person_code, n.company_code, n.account_type, n.enabled, n.password_hash, n.change_required, \
               n.created_at, n.updated_at, ARRAY(SELECT jsonb_array_elements_text(CAST(n.rights AS jsonb))), n.administrator \
               FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bool[], $7::text[], $8::bool[], \
               $9::bigint[], $10::bigint[], $11::text[], $12::bool[]) \
               AS n (id, name, person_code, company_code, account_type, enabled, password_hash, change_required, created_at, updated_at, \
               rights, administrator)";
    for users in users.chunks(MADE_AT_ONCE) {
        txn.execute(
            sql,
            &[
                &column(users, |user| &user.id),
                &column(users, |user| user.name.as_str()),
                &column(users, |user| user.person_code.as_str()),
                &column(users, |user| user.company_code.as_str()),
                &column(users, |user| i64::from(user.account_type)),
                &column(users, |user| user.enabled),
                &column(users, |user| user.password_hash.as_deref()),
                &column(users, |user| user.password_change_required),
                &column(users, |user| user.created_at),
                &column(users, |user| user.updated_at),
                &lists(users, |user| user.rights.names().collect::<Vec<_>>())?,
                &column(users, administers),
            ],
        )
        .await?;
    }
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
            put_users(txn, &users).await
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
                let is_done = !ended.has_more && !ended.leaves_some && authorities::remove_links_of(txn, id).await?;
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
