//! The settings of the service.

/// What `supos-auth serve` takes.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {}
