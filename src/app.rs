//! Builds the service and runs it.

use std::{error::Error, path::Path};

use crate::config::ServeArgs;

/// Runs the service until it is told to stop.
///
/// # Errors
///
/// When the service cannot start.
#[expect(clippy::unused_async, reason = "a placeholder")]
pub async fn serve(_args: ServeArgs) -> Result<(), Box<dyn Error + Send + Sync>> {
    Err("not there yet".into())
}

/// Seals what is stored in `data_dir` with another master key.
///
/// # Errors
///
/// When a key or the store cannot be read or written.
pub fn rewrap_master_key(_data_dir: &Path, _old: &Path, _new: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    Err("not there yet".into())
}
