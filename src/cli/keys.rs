//! `supos-auth key`: signing keys over the API, and the master key of a stopped service.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    AdminArgs,
    connection::Admin,
    failure::Failure,
    names,
    output::{Format, Output},
    pages::{self, LimitArg, Page},
    views::{Received as _, SigningKey},
};
use crate::{app, config::LocalStoreArgs, grpc::pb::supos::auth::admin::v1 as pb};

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    #[command(flatten)]
    Signing(SigningKeyCommand),
    /// Change the master key that protects the store of a stopped service.
    ///
    /// The master key protects the secrets in the store. This works on the store itself: stop the service first, and start it with the new
    /// key. With a database, services that run go on, and need the new key when they start next. It has nothing to do with the signing keys that `list`, `add` and `retire` are about.
    Rewrap(RewrapArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SigningKeyCommand {
    /// List the keys that tokens are signed with, the oldest first.
    List(ListArgs),
    /// Add a signing key: it is published now, and signs once every consumer can have fetched it.
    Add(AdminArgs),
    /// Have a signing key sign no more; it stays published until the last token that it signed has expired.
    Retire(RetireArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    limit: LimitArg,
}

#[derive(Debug, Args)]
pub(crate) struct RetireArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The key's id, as `key list` shows it. Write `signingKeys/ID` for one that begins with a dash, as some that were made earlier do.
    kid: String,
}

#[derive(Debug, Args)]
pub(crate) struct RewrapArgs {
    #[command(flatten)]
    store: LocalStoreArgs,
    /// The file with the master key that is in force.
    #[arg(long, value_name = "FILE")]
    master_key_file: PathBuf,
    /// The file with the master key that takes over.
    #[arg(long, value_name = "FILE")]
    new_master_key_file: PathBuf,
}

/// Runs a command about signing keys.
pub(crate) async fn run(command: SigningKeyCommand) -> Result<(), Failure> {
    match command {
        SigningKeyCommand::List(ListArgs { admin: args, limit }) => args.output().list(&list(&args.sign_on().await?, &limit).await?),
        SigningKeyCommand::Add(args) => {
            let admin = args.sign_on().await?;
            let added = admin.call(admin.signing_keys().add_signing_key(pb::AddSigningKeyRequest {})).await?;
            args.output().object(&SigningKey::received(added.signing_key)?)
        }
        SigningKeyCommand::Retire(RetireArgs { admin: args, kid }) => {
            let admin = args.sign_on().await?;
            let request = pb::RetireSigningKeyRequest { name: names::signing_key(&kid) };
            let retired = admin.call(admin.signing_keys().retire_signing_key(request)).await?;
            args.output().object(&SigningKey::received(retired.signing_key)?)
        }
    }
}

async fn list(admin: &Admin, limit: &LimitArg) -> Result<Vec<SigningKey>, Failure> {
    pages::read_all(limit, async |page_size, page_token| {
        let page = admin.call(admin.signing_keys().list_signing_keys(pb::ListSigningKeysRequest { page_size, page_token })).await?;
        Ok::<_, Failure>(Page {
            items: page.signing_keys.into_iter().map(SigningKey::from).collect(),
            next_page_token: page.next_page_token,
        })
    })
    .await
}

/// Changes the master key of a stopped service.
pub(crate) fn rewrap(args: &RewrapArgs) -> Result<(), Failure> {
    let place = args.store.named().map_err(Failure::usage)?;
    let shown = place.to_string();
    app::rewrap_master_key(place, &args.master_key_file, &args.new_master_key_file)
        .map_err(|error| Failure::from_error("the master key was not changed", &*error))?;
    Output::new(Format::Table).done(&format!("{shown} is under the new master key: start the service with it"))
}
