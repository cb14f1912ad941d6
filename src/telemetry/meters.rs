//! What is counted at each call. To find a counter by its labels takes longer than a good part of a call does, so each thread looks it up
//! once.

use std::{cell::RefCell, collections::HashMap, time::Duration};

use ::metrics::{Counter, Histogram, counter, histogram};

use crate::core::ids::AppId;

/// By operation and outcome.
type Calls = HashMap<(&'static str, &'static str), (Counter, Histogram)>;

thread_local! {
    static CALLS: RefCell<Calls> = RefCell::default();
    /// By what it is that is counted, and app.
    static OF_APPS: RefCell<HashMap<&'static str, HashMap<AppId, Counter>>> = RefCell::default();
}

/// Counts a call that was answered.
pub fn count_call(operation: &'static str, outcome: &'static str, took: Duration) {
    CALLS.with_borrow_mut(|calls| {
        let (answered, duration) = calls.entry((operation, outcome)).or_insert_with(|| {
            let answered = counter!("supos_auth_requests_total", "operation" => operation, "outcome" => outcome);
            (answered, histogram!("supos_auth_request_duration_seconds", "operation" => operation))
        });
        answered.increment(1);
        duration.record(took.as_secs_f64());
    });
}

/// Counts a call of a deprecated operation by an app.
pub fn count_deprecated(operation: &'static str, app: &AppId) {
    count_of_app(operation, app, || counter!("supos_auth_deprecated_calls_total", "operation" => operation, "app" => app.to_string()));
}

/// Counts a signature of an app that was taken without a date.
pub fn count_undated(app: &AppId) {
    count_of_app("undated", app, || counter!("supos_auth_undated_signatures_total", "app" => app.to_string()));
}

fn count_of_app(what: &'static str, app: &AppId, find: impl FnOnce() -> Counter) {
    OF_APPS.with_borrow_mut(|meters| {
        let apps = meters.entry(what).or_default();
        if let Some(known) = apps.get(app) {
            known.increment(1);
        } else {
            let found = find();
            found.increment(1);
            apps.insert(app.clone(), found);
        }
    });
}
