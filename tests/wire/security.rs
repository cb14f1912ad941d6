//! The rows of docs/security.md. The name of a test begins with its row.

mod clients;
mod codes;
mod disabled;
mod edge;
mod forgeries;
mod forging;
mod kinds;
mod limits;
mod load;
mod races;
mod refresh;
mod scan;
mod sessions;
mod signatures;
mod storage;
mod tokens;
