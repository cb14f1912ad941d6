//! Failures, counted by all replicas together, by the database's clock.

use std::time::Duration;

use async_trait::async_trait;

use super::{
    PostgresStore,
    database::{Columns, Failure as Undone, Txn, transact},
};
use crate::core::{
    Error,
    throttle::{Counts, Failure, Place, too_many},
};

/// How much of a note's lifetime goes by before a replica that sees the same again writes it anew: a right signature is to cost no statement.
const ANEW_AFTER: u32 = 24;

/// Longer than a statement can have waited for others that count at the same place. By its own time, which is that of its beginning, there may be more left
/// then than there can be.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The time, in milliseconds, the same throughout a statement.
macro_rules! now {
    () => {
        "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS bigint)"
    };
}

/// Where a place is in the table. A note has a row of its own: only whoever has shown what is right leaves one.
fn number(place: Place) -> i64 {
    if place.kind.is_note() { place.number.cast_signed() } else { i64::try_from(place.slot()).unwrap_or_default() }
}

fn millis(duration: Duration) -> i64 {
    // A time of which so much is taken away is still a number.
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

/// Counts one more failure, and says whether it was not too much: the rule of `Pace::after_one_more`.
async fn count_one(txn: &Txn<'_>, failure: &Failure) -> Result<bool, Undone> {
    let sql = concat!(
        "INSERT INTO counts AS c (place, until) VALUES ($1, ",
        now!(),
        " + $2) ON CONFLICT (place) DO UPDATE SET until = $2 + CASE WHEN c.until BETWEEN ",
        now!(),
        " AND ",
        now!(),
        " + $3 THEN c.until ELSE ",
        now!(),
        " END WHERE c.until NOT BETWEEN ",
        now!(),
        " + $3 - $2 + 1 AND ",
        now!(),
        " + $3 + $4"
    );
    let (every, most) = (millis(failure.pace.every), millis(failure.pace.most));
    Ok(txn.execute(sql, &[&number(failure.place), &every, &most, &millis(LONGEST_WAIT)]).await? == 1)
}

#[async_trait]
impl Counts for PostgresStore {
    async fn left(&self, places: &[Place]) -> Result<Vec<Duration>, Error> {
        let sql = concat!("SELECT place, until - ", now!(), " FROM counts WHERE place = ANY($1)");
        let numbers: Vec<i64> = places.iter().map(|place| number(*place)).collect();
        let mut left = vec![Duration::ZERO; places.len()];
        for row in self.database.query(sql, &[&numbers]).await? {
            let mut columns = Columns::of(&row);
            let (number, millis): (i64, i64) = (columns.next()?, columns.next()?);
            for (other, left) in numbers.iter().zip(&mut left) {
                if *other == number {
                    *left = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
                }
            }
        }
        Ok(left)
    }

    async fn count(&self, failures: &[Failure]) -> Result<(), Error> {
        // In one order, so that no two steps wait for each other.
        let mut ordered: Vec<&Failure> = failures.iter().collect();
        ordered.sort_by_key(|failure| number(failure.place));
        transact!(self.database, async |txn| {
            for failure in &ordered {
                if !count_one(txn, failure).await? {
                    // By then one has come back, and what was counted before is undone.
                    return Err(too_many(failure.pace.every).into());
                }
            }
            Ok(())
        })
        .await
    }

    async fn take_back(&self, what: &[(Place, Duration)]) -> Result<(), Error> {
        let sql = concat!(
            "WITH held AS (SELECT c.place, w.less FROM counts c JOIN unnest($1::bigint[], $2::bigint[]) AS w (place, less) \
             ON w.place = c.place ORDER BY c.place FOR UPDATE OF c) \
             UPDATE counts c SET until = GREATEST(c.until - held.less, ",
            now!(),
            ") FROM held WHERE c.place = held.place"
        );
        let (places, less): (Vec<i64>, Vec<i64>) = what.iter().map(|(place, less)| (number(*place), millis(*less))).unzip();
        self.database.query(sql, &[&places, &less]).await.map(|_| ())
    }

    async fn note(&self, place: Place, lifetime: Duration) -> Result<bool, Error> {
        if !self.noted.left_at(place).is_zero() {
            return Ok(true);
        }
        let sql = concat!(
            "WITH before AS (SELECT until FROM counts WHERE place = $1) INSERT INTO counts AS c (place, until) VALUES ($1, ",
            now!(),
            " + $2) ON CONFLICT (place) DO UPDATE SET until = GREATEST(c.until, excluded.until) \
             RETURNING COALESCE((SELECT until > ",
            now!(),
            " FROM before), false)"
        );
        let row = self.database.query_opt(sql, &[&number(place), &millis(lifetime)]).await?;
        self.noted.set(place, lifetime / ANEW_AFTER);
        row.as_ref().map_or(Ok(false), |row| Columns::of(row).next())
    }
}
