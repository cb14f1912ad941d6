//! `supos-auth health`: whether a running service is ready, for people and for what supervises it.

use std::time::Duration;

use clap::Args;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{
    connection::{Connection, ServerArgs},
    failure::Failure,
    output::{Format, Output},
};

/// Supervisors ask often and want to know soon.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// The part of the service to ask about, as `supos.auth.v2.AuthService`; without it, the whole of it.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
}

/// Prints the status of the service.
pub(crate) async fn run(args: &HealthArgs) -> Result<(), Failure> {
    let connection = Connection::open_within(&args.server, TIMEOUT).await?;
    let request = HealthCheckRequest { service: args.service.clone() };
    let answer =
        connection.call(HealthClient::new(connection.channel.clone()).check(request)).await.map_err(|refusal| match refusal.code() {
            Code::NotFound => Failure::new(format!("the service at {} has no part of that name", connection.server)),
            _ => refusal.into(),
        })?;
    let status = answer.status();
    Output::new(Format::Table).done(status.as_str_name())?;
    match status {
        ServingStatus::Serving => Ok(()),
        _ => Err(Failure::new(format!("the service at {} is not ready", connection.server))),
    }
}
