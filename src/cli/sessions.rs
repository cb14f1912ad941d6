//! `supos-auth session`: who is signed in.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    AdminArgs,
    connection::Admin,
    failure::Failure,
    names::{self, UserName},
    pages::{self, LimitArg, Page},
    text::count,
    views::{LogoutDelivery, Session},
};
use crate::grpc::pb::supos::auth::admin::v1 as pb;

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List live sessions.
    List(ListArgs),
    /// End a session; its codes and tokens, for every app, stop working at once.
    End(EndArgs),
    /// End all sessions of a user.
    EndAll(EndAllArgs),
    /// List the calls that tell apps that a session has ended, and that have not been delivered, the oldest first.
    Logouts(LogoutsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only the sessions of this user: a user's name, or users/ID.
    #[arg(long, value_name = "NAME")]
    user: Option<UserName>,
    #[command(flatten)]
    limit: LimitArg,
}

#[derive(Debug, Args)]
pub(crate) struct EndArgs {
    /// The session's id, as `session list` shows it.
    session_id: String,
}

#[derive(Debug, Args)]
pub(crate) struct EndAllArgs {
    /// The user whose sessions end: a user's name, or users/ID.
    #[arg(long, value_name = "NAME")]
    user: UserName,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutsArgs {
    /// Only the calls to this app.
    #[arg(long, value_name = "APP_ID")]
    app: Option<String>,
    /// Those that are not tried any more, instead of those that are owed; they are shown for three days.
    #[arg(long)]
    given_up: bool,
    #[command(flatten)]
    limit: LimitArg,
}

/// The JSON of how many sessions were ended.
#[derive(Serialize)]
struct Ended {
    ended: i32,
}

/// Runs a command about sessions.
pub(crate) async fn run(args: &AdminArgs, command: SessionCommand) -> Result<(), Failure> {
    let output = args.output();
    let admin = args.sign_on().await?;
    match command {
        SessionCommand::List(list_args) => output.list(&list(&admin, list_args).await?),
        SessionCommand::Logouts(logouts_args) => output.list(&logouts(&admin, logouts_args).await?),
        SessionCommand::End(EndArgs { session_id }) => {
            admin.call(admin.sessions().end_session(pb::EndSessionRequest { name: names::session(&session_id) })).await?;
            output.done(&format!("ended the session {session_id}"))
        }
        SessionCommand::EndAll(EndAllArgs { user }) => {
            let ended = admin.call(admin.sessions().end_user_sessions(pb::EndUserSessionsRequest { user: user.0 })).await?.ended;
            output.summary(&Ended { ended }, &format!("ended {}", count(u64::try_from(ended).unwrap_or_default(), "session")))
        }
    }
}

async fn list(admin: &Admin, args: ListArgs) -> Result<Vec<Session>, Failure> {
    let user = args.user.map(|user| user.0).unwrap_or_default();
    pages::read_all(&args.limit, async |page_size, page_token| {
        let request = pb::ListSessionsRequest { page_size, page_token, user: user.clone() };
        let page = admin.call(admin.sessions().list_sessions(request)).await?;
        Ok::<_, Failure>(Page { items: page.sessions.into_iter().map(Session::from).collect(), next_page_token: page.next_page_token })
    })
    .await
}

async fn logouts(admin: &Admin, args: LogoutsArgs) -> Result<Vec<LogoutDelivery>, Failure> {
    let app = args.app.as_deref().map(names::app).unwrap_or_default();
    let state = if args.given_up { pb::LogoutDeliveryState::GivenUp } else { pb::LogoutDeliveryState::Owed };
    pages::read_all(&args.limit, async |page_size, page_token| {
        let request = pb::ListLogoutDeliveriesRequest { page_size, page_token, app: app.clone(), state: state.into() };
        let page = admin.call(admin.sessions().list_logout_deliveries(request)).await?;
        Ok::<_, Failure>(Page {
            items: page.logout_deliveries.into_iter().map(LogoutDelivery::from).collect(),
            next_page_token: page.next_page_token,
        })
    })
    .await
}
