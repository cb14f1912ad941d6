//! `supos-auth login` and `supos-auth logout`.

use std::path::{Path, PathBuf};

use clap::Args;
use tonic::Request;

use super::{
    connection::{Connection, ServerArgs, secret_metadata},
    failure::Failure,
    input::{self, PasswordSource},
    output::{Format, Output},
    refusal::Refusal,
    text::printable,
    tickets::{self, SignedIn, TicketFile},
};
use crate::grpc::pb::supos::auth::{
    admin::v1::{ChangePasswordRequest, user_service_client::UserServiceClient},
    v2::{SignInRequest, SignInResponse, SignOutRequest, auth_service_client::AuthServiceClient},
};

/// The reason of the refusal when a password has to be changed before it is good for signing in.
const PASSWORD_CHANGE_REQUIRED: &str = "PASSWORD_CHANGE_REQUIRED";

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The user's name; without it, it is asked for.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A file with the password, or - for standard input; without it, it is asked for.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A file with a new password, for when the service wants it changed; without it, it is asked for.
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    #[command(flatten)]
    server: ServerArgs,
}

/// Signs in and keeps the ticket.
pub(crate) async fn login(args: &LoginArgs) -> Result<(), Failure> {
    input::at_most_one_from_stdin(&[args.password_file.as_deref(), args.new_password_file.as_deref()])?;
    let file = TicketFile::of_this_user()?;
    // A password that is good once would be gone, and with it the session.
    file.prepare()?;
    let server = &args.server.server;
    let connection = Connection::open(&args.server).await?;
    if !server.is_private() {
        eprintln!("warning: the password goes to {server} unencrypted; use https where others can listen");
    }
    let user_name = user_name(args)?;
    let prompt = format!("Password of {} at {server}: ", printable(&user_name));
    let password = PasswordSource { file: args.password_file.as_deref(), option: "--password-file", prompt: &prompt }.read()?;

    let answer = match sign_in(&connection, &user_name, &password).await {
        Err(refusal) if refusal.reason().as_deref() == Some(PASSWORD_CHANGE_REQUIRED) => {
            eprintln!("The password has to be changed before it is good for signing in.");
            let new_password = new_password(args.new_password_file.as_deref()).read_new()?;
            change_password(&connection, &user_name, &password, &new_password).await?;
            sign_in(&connection, &user_name, &new_password).await
        }
        answer => answer,
    }
    .map_err(Refusal::without_advice_to_sign_in)?;

    let ticket =
        answer.ticket.parse().map_err(|error| Failure::from_error("the service's answer is of no use", &error as &tickets::NoTicket))?;
    file.put(server, SignedIn { user_name: answer.username.clone(), ticket })?;
    if tickets::from_environment()?.is_some() {
        eprintln!("warning: SUPOS_AUTH_TICKET is set, and goes before the ticket of this sign-in");
    }
    Output::new(Format::Table).done(&format!("signed in at {server} as {}", answer.username))
}

fn user_name(args: &LoginArgs) -> Result<String, Failure> {
    let name = match &args.user {
        Some(name) => name.clone(),
        None if input::has_terminal() => input::ask("User name:")?,
        None => return Err(Failure::usage("there is no terminal to ask for the user's name at").hint("Give it with --user NAME.")),
    };
    if name.is_empty() { Err(Failure::usage("the user's name is empty")) } else { Ok(name) }
}

/// Where a new password comes from.
pub(crate) fn new_password(file: Option<&Path>) -> PasswordSource<'_> {
    PasswordSource { file, option: "--new-password-file", prompt: "New password (12 characters or more): " }
}

async fn sign_in(connection: &Connection, user_name: &str, password: &str) -> Result<SignInResponse, Refusal> {
    let request = SignInRequest { user_name: user_name.to_owned(), password: password.to_owned(), json: None };
    connection.call(AuthServiceClient::new(connection.channel.clone()).sign_in(request)).await
}

/// Changes a password with no session, which the current password makes up for.
pub(crate) async fn change_password(connection: &Connection, user_name: &str, current: &str, new: &str) -> Result<(), Failure> {
    let request = ChangePasswordRequest {
        user_name: user_name.to_owned(),
        current_password: current.to_owned(),
        new_password: new.to_owned(),
        keep_other_sessions: false,
    };
    let answer = connection.call(UserServiceClient::new(connection.channel.clone()).change_password(request)).await;
    answer.map(|_| ()).map_err(Refusal::without_advice_to_sign_in)
}

/// Ends the session and forgets the ticket.
pub(crate) async fn logout(args: &LogoutArgs) -> Result<(), Failure> {
    let server = &args.server.server;
    let output = Output::new(Format::Table);
    let from_environment = tickets::from_environment()?;
    let Some(ticket) = tickets::current(server)? else {
        return output.done(&format!("you were not signed in at {server}"));
    };
    let connection = Connection::open(&args.server).await?;
    let mut request = Request::new(SignOutRequest::default());
    request.metadata_mut().insert("cookie", secret_metadata("suposTicket=", &ticket)?);
    // The ticket is kept when this fails, so that the session can still be ended.
    connection.call(AuthServiceClient::new(connection.channel.clone()).sign_out(request)).await?;
    if from_environment.is_none() {
        TicketFile::of_this_user()?.remove(server)?;
    }
    output.done(&format!("signed out at {server}"))
}
