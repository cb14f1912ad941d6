//! `supos-auth app`: apps and their secrets.

use std::path::PathBuf;

use clap::{ArgAction, ArgGroup, Args, Subcommand};
use prost_types::FieldMask;

use super::{
    AdminArgs,
    connection::Admin,
    failure::Failure,
    import::{self, ImportArgs},
    input::{self, Consent},
    names::{self, AppArg},
    output::Issued,
    pages::{self, LimitArg, Page},
    views::{App, AppSecret, AppUsage, Received as _},
};
use crate::{core::rights::Right, grpc::pb::supos::auth::admin::v1 as pb};

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// Make an app with its first secret.
    Create(CreateArgs),
    /// Show one app.
    Get(AppArg),
    /// List apps by id.
    List(LimitArg),
    /// List what apps still do that they should do no more: deprecated operations, and signatures without a date.
    Usage(LimitArg),
    /// Change an app; what is not given stays as it is.
    Update(UpdateArgs),
    /// Delete an app; its codes and tokens stop working at once.
    Delete(DeleteArgs),
    /// Let a disabled app work again.
    Enable(AppArg),
    /// Stop an app: its credentials, codes and tokens are refused while it is disabled.
    Disable(AppArg),
    /// Add and remove secrets: add the second, change the app over, remove the first.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Make many apps from a file: all of them, or none.
    #[command(after_help = import::APP_FORMAT)]
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The app's id; without it, the service makes one.
    #[arg(default_value = "", hide_default_value = true)]
    app_id: String,
    /// A file with a secret that the app has already, or - for standard input; without it, the service makes one.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// What people call the app.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    display_name: String,
    /// Where codes may be sent: an absolute URL, or `scheme://host[:port]/…*`. Give it again for each further one.
    #[arg(long = "redirect-uri", value_name = "URI", required = true)]
    redirect_uris: Vec<String>,
    /// Where the app may be told that a session has ended. Give it again for each further one.
    #[arg(long = "logout-uri", value_name = "URI")]
    logout_uris: Vec<String>,
    /// An access token is not enough to refresh: the app has to show its own credential.
    #[arg(long)]
    refresh_requires_app_credential: bool,
    #[command(flatten)]
    rights: FirstRights,
    /// Whether each signature over HTTP has to have an X-MC-Date, and works once.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_value = "false", hide_default_value = true, default_missing_value = "true", action = ArgAction::Set)]
    signature_requires_date: bool,
    /// Make it disabled.
    #[arg(long)]
    disabled: bool,
}

/// The rights of an app that is made.
#[derive(Debug, Args)]
struct FirstRights {
    /// What the app may do beyond what every app may: `admin`, `identity_providers.write`, `tokens.inspect`, `sessions.end`,
    /// `codes.any_app`. Give it again for each further right.
    #[arg(long = "right", value_name = "NAME")]
    rights: Vec<String>,
    /// Give it no right, which is how an app is made.
    #[arg(long, conflicts_with = "rights")]
    no_rights: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    app: AppArg,
    /// What people call the app.
    #[arg(long, value_name = "NAME", group = "change")]
    display_name: Option<String>,
    /// Where codes may be sent, in place of all that stood there. Give it again for each further one.
    #[arg(long = "redirect-uri", value_name = "URI", group = "change")]
    redirect_uris: Vec<String>,
    /// Where the app may be told that a session has ended, in place of all that stood there.
    #[arg(long = "logout-uri", value_name = "URI", group = "change")]
    logout_uris: Vec<String>,
    /// Take every logout URI away.
    #[arg(long, group = "change", conflicts_with = "logout_uris")]
    no_logout_uris: bool,
    /// Whether the app has to show its own credential to refresh.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, group = "change")]
    refresh_requires_app_credential: Option<bool>,
    /// What the app may do beyond what every app may, in place of all that stood there: `admin`, `identity_providers.write`,
    /// `tokens.inspect`, `sessions.end`, `codes.any_app`. Give it again for each further right.
    #[arg(long = "right", value_name = "NAME", group = "change")]
    rights: Vec<String>,
    /// Take every right away.
    #[arg(long, group = "change", conflicts_with = "rights")]
    no_rights: bool,
    /// Whether each signature over HTTP has to have an X-MC-Date, and works once.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, group = "change")]
    signature_requires_date: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    app: AppArg,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Give an app its second secret.
    Add(AddSecretArgs),
    /// Take a secret from an app; the last one cannot be taken.
    Remove(RemoveSecretArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AddSecretArgs {
    #[command(flatten)]
    app: AppArg,
    /// A file with a secret that the app has already, or - for standard input; without it, the service makes one.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveSecretArgs {
    #[command(flatten)]
    app: AppArg,
    /// The secret's id, as `app get` shows it.
    secret_id: String,
    #[command(flatten)]
    consent: Consent,
}

/// Runs a command about apps.
pub(crate) async fn run(args: &AdminArgs, command: AppCommand) -> Result<(), Failure> {
    let output = args.output();
    match command {
        AppCommand::Create(create) => {
            let request = create.into_request()?;
            let admin = args.sign_on().await?;
            let made = admin.call(admin.apps().create_app(request)).await?;
            let app = App::received(made.app)?;
            output.made(&app, Issued::secret(made.secret).as_ref())?;
            note_rights_without_date(&app);
            Ok(())
        }
        AppCommand::Get(AppArg { app_id }) => {
            let admin = args.sign_on().await?;
            let got = admin.call(admin.apps().get_app(pb::GetAppRequest { name: names::app(&app_id) })).await?;
            output.object(&App::received(got.app)?)
        }
        AppCommand::List(limit) => output.list(&list(&args.sign_on().await?, &limit).await?),
        AppCommand::Usage(limit) => {
            let usage = usage(&args.sign_on().await?, &limit).await?;
            output.list_in_rows(&usage, &usage.iter().flat_map(AppUsage::rows).collect::<Vec<_>>())
        }
        AppCommand::Update(update) => {
            let is_about_rights = !update.rights.is_empty() || update.signature_requires_date.is_some();
            let admin = args.sign_on().await?;
            let updated = admin.call(admin.apps().update_app(update.into_request())).await?;
            let app = App::received(updated.app)?;
            output.object(&app)?;
            if is_about_rights {
                note_rights_without_date(&app);
            }
            Ok(())
        }
        AppCommand::Delete(DeleteArgs { app: AppArg { app_id }, consent }) => {
            consent.obtain(&format!("Delete the app {app_id}? Its codes and tokens stop working at once."))?;
            let admin = args.sign_on().await?;
            admin.call(admin.apps().delete_app(pb::DeleteAppRequest { name: names::app(&app_id) })).await?;
            output.done(&format!("deleted the app {app_id}"))
        }
        AppCommand::Enable(AppArg { app_id }) => {
            let admin = args.sign_on().await?;
            let enabled = admin.call(admin.apps().enable_app(pb::EnableAppRequest { name: names::app(&app_id) })).await?;
            output.object(&App::received(enabled.app)?)
        }
        AppCommand::Disable(AppArg { app_id }) => {
            let admin = args.sign_on().await?;
            let disabled = admin.call(admin.apps().disable_app(pb::DisableAppRequest { name: names::app(&app_id) })).await?;
            output.object(&App::received(disabled.app)?)
        }
        AppCommand::Secret(command) => run_secret(args, command).await,
        AppCommand::Import(import) => import::run::<import::Apps>(args, &import).await,
    }
}

async fn run_secret(args: &AdminArgs, command: SecretCommand) -> Result<(), Failure> {
    let output = args.output();
    match command {
        SecretCommand::Add(AddSecretArgs { app: AppArg { app_id }, secret_file }) => {
            let secret = secret_file.as_deref().map(input::secret_from).transpose()?.unwrap_or_default();
            let admin = args.sign_on().await?;
            let request = pb::AddAppSecretRequest { app: names::app(&app_id), secret };
            let added = admin.call(admin.apps().add_app_secret(request)).await?;
            output.made(&AppSecret::received(added.app_secret)?, Issued::secret(added.secret).as_ref())
        }
        SecretCommand::Remove(RemoveSecretArgs { app: AppArg { app_id }, secret_id, consent }) => {
            consent.obtain(&format!("Remove the secret {secret_id} of the app {app_id}? What signs with it is refused at once."))?;
            let admin = args.sign_on().await?;
            let request = pb::RemoveAppSecretRequest { name: names::app_secret(&app_id, &secret_id) };
            admin.call(admin.apps().remove_app_secret(request)).await?;
            output.done(&format!("removed the secret {secret_id} of the app {app_id}"))
        }
    }
}

async fn list(admin: &Admin, limit: &LimitArg) -> Result<Vec<App>, Failure> {
    pages::read_all(limit, async |page_size, page_token| {
        let page = admin.call(admin.apps().list_apps(pb::ListAppsRequest { page_size, page_token })).await?;
        Ok::<_, Failure>(Page { items: page.apps.into_iter().map(App::from).collect(), next_page_token: page.next_page_token })
    })
    .await
}

async fn usage(admin: &Admin, limit: &LimitArg) -> Result<Vec<AppUsage>, Failure> {
    pages::read_all(limit, async |page_size, page_token| {
        let page = admin.call(admin.apps().list_app_usage(pb::ListAppUsageRequest { page_size, page_token })).await?;
        Ok::<_, Failure>(Page { items: page.app_usage.into_iter().map(AppUsage::from).collect(), next_page_token: page.next_page_token })
    })
    .await
}

/// Which of these rights a signature without a date does not carry.
pub(crate) fn rights_that_need_a_date(rights: &[String]) -> Vec<&'static str> {
    Right::ALL
        .into_iter()
        .filter(|right| right.needs_date())
        .map(Right::name)
        .filter(|name| rights.iter().any(|right| right == name))
        .collect()
}

fn note_rights_without_date(app: &App) {
    if let Some(rights) = app.rights_out_of_reach() {
        eprintln!("note: a signature without a date does not carry {rights}: see --signature-requires-date");
    }
}

impl CreateArgs {
    fn into_request(self) -> Result<pb::CreateAppRequest, Failure> {
        let secret = self.secret_file.as_deref().map(input::secret_from).transpose()?.unwrap_or_default();
        let app = pb::App {
            app_id: self.app_id,
            display_name: self.display_name,
            redirect_uris: self.redirect_uris,
            logout_uris: self.logout_uris,
            enabled: Some(!self.disabled),
            refresh_requires_app_credential: self.refresh_requires_app_credential,
            rights: self.rights.rights,
            signature_requires_date: self.signature_requires_date,
            ..pb::App::default()
        };
        Ok(pb::CreateAppRequest { app: Some(app), secret })
    }
}

impl UpdateArgs {
    /// The new values, and the mask that names them.
    fn into_request(self) -> pb::UpdateAppRequest {
        let named = [
            ("display_name", self.display_name.is_some()),
            ("redirect_uris", !self.redirect_uris.is_empty()),
            ("logout_uris", !self.logout_uris.is_empty() || self.no_logout_uris),
            ("refresh_requires_app_credential", self.refresh_requires_app_credential.is_some()),
            ("rights", !self.rights.is_empty() || self.no_rights),
            ("signature_requires_date", self.signature_requires_date.is_some()),
        ];
        let app = pb::App {
            name: names::app(&self.app.app_id),
            display_name: self.display_name.unwrap_or_default(),
            redirect_uris: self.redirect_uris,
            logout_uris: self.logout_uris,
            refresh_requires_app_credential: self.refresh_requires_app_credential.unwrap_or_default(),
            rights: self.rights,
            signature_requires_date: self.signature_requires_date.unwrap_or_default(),
            ..pb::App::default()
        };
        pb::UpdateAppRequest { app: Some(app), update_mask: Some(field_mask(&named)) }
    }
}

/// A mask of the fields that are to be changed.
pub(crate) fn field_mask(fields: &[(&str, bool)]) -> FieldMask {
    FieldMask { paths: fields.iter().filter(|(_, is_given)| *is_given).map(|(field, _)| (*field).to_owned()).collect() }
}
