//! `supos-auth user`: users and their passwords.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use tonic::Code;

use super::{
    AdminArgs,
    apps::field_mask,
    connection::{Admin, Connection},
    failure::Failure,
    import::{self, ImportArgs},
    input::{self, Consent, PasswordSource},
    names::{UserArg, UserName},
    output::Issued,
    pages::{self, LimitArg, Page},
    sign_in,
    views::{Received as _, User},
};
use crate::grpc::pb::supos::auth::admin::v1 as pb;

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Make a user.
    Create(CreateArgs),
    /// Show one user.
    Get(UserArg),
    /// List users by name.
    List(LimitArg),
    /// Change a user; what is not given stays as it is.
    Update(UpdateArgs),
    /// Delete a user and end his sessions.
    Delete(DeleteArgs),
    /// Let a disabled user sign in again.
    Enable(UserArg),
    /// End the sessions of a user, who cannot sign in any more.
    Disable(UserArg),
    /// Give a user a password and end his sessions.
    SetPassword(SetPasswordArgs),
    /// Give a user a one-time password, which he has to change when he signs in, and end his sessions.
    ResetPassword(UserArg),
    /// Change one's own password.
    ChangePassword(ChangePasswordArgs),
    /// Make many users from a file: all of them, or none.
    #[command(after_help = import::USER_FORMAT)]
    Import(ImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The name that the user signs in with.
    user_name: String,
    /// A file with the password, or - for standard input; without it and a hash, the service makes a one-time password.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A file with the Argon2id hash of the password ($argon2id$v=19$…), or - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "password_file")]
    password_hash_file: Option<PathBuf>,
    /// The code of the person whose account this is.
    #[arg(long, value_name = "CODE", default_value = "", hide_default_value = true)]
    person_code: String,
    /// The code of the company that the person belongs to.
    #[arg(long, value_name = "CODE", default_value = "", hide_default_value = true)]
    company_code: String,
    /// The kind of account: 1 is an administrator, 0 anybody else.
    #[arg(long, value_name = "0..255", default_value_t)]
    account_type: u8,
    /// What the user may do beyond what every user may: `admin`, `identity_providers.write`, `tokens.inspect`, `sessions.end`. Give
    /// it again for each further right.
    #[arg(long = "right", value_name = "NAME")]
    rights: Vec<String>,
    /// Give him no right, which is how a user is made.
    #[arg(long, conflicts_with = "rights")]
    no_rights: bool,
    /// Make him disabled.
    #[arg(long)]
    disabled: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    user: UserArg,
    /// The code of the person whose account this is.
    #[arg(long, value_name = "CODE", group = "change")]
    person_code: Option<String>,
    /// The code of the company that the person belongs to.
    #[arg(long, value_name = "CODE", group = "change")]
    company_code: Option<String>,
    /// The kind of account: 1 is an administrator, 0 anybody else.
    #[arg(long, value_name = "0..255", group = "change")]
    account_type: Option<u8>,
    /// What the user may do beyond what every user may, in place of all that stood there: `admin`, `identity_providers.write`,
    /// `tokens.inspect`, `sessions.end`. Give it again for each further right.
    #[arg(long = "right", value_name = "NAME", group = "change")]
    rights: Vec<String>,
    /// Take every right away.
    #[arg(long, group = "change", conflicts_with = "rights")]
    no_rights: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    user: UserArg,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
pub(crate) struct SetPasswordArgs {
    #[command(flatten)]
    user: UserArg,
    /// A file with the new password, or - for standard input; without it, it is asked for.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ChangePasswordArgs {
    /// Whose password it is; without it, that of whoever is signed in. With it, nobody has to be signed in.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A file with the current password, or - for standard input; without it, it is asked for.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A file with the new password, or - for standard input; without it, it is asked for.
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// Let the other sessions go on.
    #[arg(long, conflicts_with = "user")]
    keep_other_sessions: bool,
}

/// Runs a command about users.
pub(crate) async fn run(args: &AdminArgs, command: UserCommand) -> Result<(), Failure> {
    let output = args.output();
    match command {
        UserCommand::Create(create) => {
            let request = create.into_request()?;
            let admin = args.sign_on().await?;
            let made = admin.call(admin.users().create_user(request)).await?;
            output.made(&User::received(made.user)?, Issued::one_time_password(made.one_time_password).as_ref())
        }
        UserCommand::Get(UserArg { user }) => {
            let admin = args.sign_on().await?;
            let got = admin.call(admin.users().get_user(pb::GetUserRequest { name: user.0 })).await?;
            output.object(&User::received(got.user)?)
        }
        UserCommand::List(limit) => output.list(&list(&args.sign_on().await?, &limit).await?),
        UserCommand::Update(update) => {
            let admin = args.sign_on().await?;
            let updated = admin.call(admin.users().update_user(update.into_request())).await?;
            output.object(&User::received(updated.user)?)
        }
        UserCommand::Delete(DeleteArgs { user: UserArg { user }, consent }) => {
            consent.obtain(&format!("Delete the user {}? His sessions end at once.", user.shown()))?;
            let admin = args.sign_on().await?;
            admin.call(admin.users().delete_user(pb::DeleteUserRequest { name: user.0.clone() })).await?;
            output.done(&format!("deleted the user {}", user.shown()))
        }
        UserCommand::Enable(UserArg { user }) => {
            let admin = args.sign_on().await?;
            let enabled = admin.call(admin.users().enable_user(pb::EnableUserRequest { name: user.0 })).await?;
            output.object(&User::received(enabled.user)?)
        }
        UserCommand::Disable(UserArg { user }) => {
            let admin = args.sign_on().await?;
            let disabled = admin.call(admin.users().disable_user(pb::DisableUserRequest { name: user.0 })).await?;
            output.object(&User::received(disabled.user)?)
        }
        UserCommand::SetPassword(set) => set_password(args, set).await,
        UserCommand::ResetPassword(UserArg { user }) => reset_password(args, user).await,
        UserCommand::ChangePassword(change) => change_password(args, change).await,
        UserCommand::Import(import) => import::run::<import::Users>(args, &import).await,
    }
}

async fn set_password(args: &AdminArgs, set: SetPasswordArgs) -> Result<(), Failure> {
    let user = set.user.user;
    let prompt = format!("New password of {} (12 characters or more): ", user.shown());
    let admin = args.sign_on().await?;
    let password = PasswordSource { file: set.password_file.as_deref(), option: "--password-file", prompt: &prompt }.read_new()?;
    admin.call(admin.users().set_password(pb::SetPasswordRequest { name: user.0.clone(), password })).await?;
    args.output().done(&format!("set the password of {} and ended his sessions", user.shown()))
}

async fn reset_password(args: &AdminArgs, user: UserName) -> Result<(), Failure> {
    let admin = args.sign_on().await?;
    let reset = admin.call(admin.users().reset_password(pb::ResetPasswordRequest { name: user.0 })).await?;
    match Issued::one_time_password(reset.one_time_password) {
        Some(issued) => args.output().issued(&issued),
        None => Err(Failure::new("the service's answer lacks the one-time password")),
    }
}

async fn change_password(args: &AdminArgs, change: ChangePasswordArgs) -> Result<(), Failure> {
    let (current_file, new_file) = (change.password_file.as_deref(), change.new_password_file.as_deref());
    input::at_most_one_from_stdin(&[current_file, new_file])?;
    let read_passwords = || {
        let current = PasswordSource { file: current_file, option: "--password-file", prompt: "Current password: " }.read()?;
        Ok::<_, Failure>((current, sign_in::new_password(new_file).read_new()?))
    };
    // Connecting comes first: nobody should type passwords for a service that is not there.
    if let Some(user_name) = change.user {
        let connection = Connection::open(&args.server).await?;
        let (current, new) = read_passwords()?;
        sign_in::change_password(&connection, &user_name, &current, &new).await?;
    } else {
        let admin = args.sign_on().await?;
        let (current_password, new_password) = read_passwords()?;
        let keep_other_sessions = change.keep_other_sessions;
        let request = pb::ChangePasswordRequest { user_name: String::new(), current_password, new_password, keep_other_sessions };
        admin.call(admin.users().change_password(request)).await.map_err(|refusal| match refusal.code() {
            // It may be the ticket that has ended, or the current password that is wrong.
            Code::Unauthenticated => {
                refusal.without_advice_to_sign_in().hint("If the current password is right, sign in again: `supos-auth login`.")
            }
            _ => refusal.into(),
        })?;
    }
    args.output().done("the password is changed")
}

async fn list(admin: &Admin, limit: &LimitArg) -> Result<Vec<User>, Failure> {
    pages::read_all(limit, async |page_size, page_token| {
        let page = admin.call(admin.users().list_users(pb::ListUsersRequest { page_size, page_token })).await?;
        Ok::<_, Failure>(Page { items: page.users.into_iter().map(User::from).collect(), next_page_token: page.next_page_token })
    })
    .await
}

impl CreateArgs {
    fn into_request(self) -> Result<pb::CreateUserRequest, Failure> {
        let read = |file: Option<PathBuf>| file.as_deref().map(input::secret_from).transpose().map(Option::unwrap_or_default);
        let user = pb::User {
            user_name: self.user_name,
            person_code: self.person_code,
            company_code: self.company_code,
            account_type: i32::from(self.account_type),
            rights: self.rights,
            enabled: Some(!self.disabled),
            ..pb::User::default()
        };
        Ok(pb::CreateUserRequest { user: Some(user), password: read(self.password_file)?, password_hash: read(self.password_hash_file)? })
    }
}

impl UpdateArgs {
    /// The new values, and the mask that names them.
    fn into_request(self) -> pb::UpdateUserRequest {
        let named = [
            ("person_code", self.person_code.is_some()),
            ("company_code", self.company_code.is_some()),
            ("account_type", self.account_type.is_some()),
            ("rights", !self.rights.is_empty() || self.no_rights),
        ];
        let user = pb::User {
            name: self.user.user.0,
            person_code: self.person_code.unwrap_or_default(),
            company_code: self.company_code.unwrap_or_default(),
            account_type: self.account_type.map(i32::from).unwrap_or_default(),
            rights: self.rights,
            ..pb::User::default()
        };
        pb::UpdateUserRequest { user: Some(user), update_mask: Some(field_mask(&named)) }
    }
}
