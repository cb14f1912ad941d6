//! What the storage interface promises, one check for each promise. A check fails by panicking.

pub(crate) mod apps;
pub(crate) mod authorities;
pub(crate) mod codes;
pub(crate) mod logouts;
pub(crate) mod races;
pub(crate) mod random;
pub(crate) mod refresh;
pub(crate) mod sessions;
pub(crate) mod transfer;
pub(crate) mod upkeep;
pub(crate) mod users;

use std::pin::Pin;

use crate::database::Db;

/// Something that a store promises.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Db) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}
