//! `supos.auth.admin.v1.SessionService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{administered, page_size, page_token, pb, read_page_token, resource, user_id};
use crate::{
    core::{
        Core, Error, Problem,
        ids::{AppId, LogoutId, SessionId},
        logouts::{self, OwedLogout},
        model::SignedIn,
    },
    grpc::{convert::timestamp, gate::Gate},
};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Gate);

fn message((signed_in, apps): (SignedIn, Vec<AppId>)) -> pb::Session {
    let SignedIn { session, user } = signed_in;
    pb::Session {
        name: format!("sessions/{}", session.id),
        user: format!("users/{}", user.id),
        user_name: user.name.clone(),
        create_time: Some(timestamp(session.created_at)),
        last_used_time: Some(timestamp(session.last_used_at)),
        expire_time: Some(timestamp(session.ends_at())),
        apps: apps.iter().map(|app| format!("apps/{app}")).collect(),
    }
}

async fn list_sessions(core: Arc<Core>, request: pb::ListSessionsRequest) -> Result<pb::ListSessionsResponse, Error> {
    let size = page_size(request.page_size)?;
    let after = match read_page_token(&request.page_token)? {
        Some(id) => Some(id.parse::<SessionId>().map_err(|_| Error::parameter("page_token", Problem::Malformed))?),
        None => None,
    };
    let user = if request.user.is_empty() { None } else { Some(user_id(&core, "user", &request.user).await?) };
    let page = core.store.sessions(user, after, size, core.now()).await?;
    Ok(pb::ListSessionsResponse {
        sessions: page.sessions.into_iter().map(message).collect(),
        next_page_token: page.next.map(|id| page_token(&id.to_string())).unwrap_or_default(),
    })
}

async fn end_session(core: Arc<Core>, request: pb::EndSessionRequest) -> Result<pb::EndSessionResponse, Error> {
    let id: SessionId = resource("name", "sessions", &request.name)?.parse().map_err(|_| Error::NotFound("session"))?;
    if core.store.end_session(id, core.now()).await? { Ok(pb::EndSessionResponse {}) } else { Err(Error::NotFound("session")) }
}

async fn end_user_sessions(core: Arc<Core>, request: pb::EndUserSessionsRequest) -> Result<pb::EndUserSessionsResponse, Error> {
    let user = user_id(&core, "user", &request.user).await?;
    let ended = core.store.end_sessions_of(user, core.now()).await?;
    Ok(pb::EndUserSessionsResponse { ended: i32::try_from(ended).unwrap_or(i32::MAX) })
}

fn delivery(owed: OwedLogout) -> pb::LogoutDelivery {
    let state = if owed.given_up_at.is_some() { pb::LogoutDeliveryState::GivenUp } else { pb::LogoutDeliveryState::Owed };
    pb::LogoutDelivery {
        name: format!("logoutDeliveries/{}", owed.id),
        app: format!("apps/{}", owed.app),
        uri: logouts::shown(&owed.uri),
        user: format!("users/{}", owed.user),
        session: format!("sessions/{}", owed.session),
        state: state.into(),
        create_time: Some(timestamp(owed.created_at)),
        tries: i32::try_from(owed.tries).unwrap_or(i32::MAX),
        last_error: owed.last_error,
        next_try_time: owed.given_up_at.is_none().then(|| timestamp(owed.next_try_at)),
        give_up_time: owed.given_up_at.map(timestamp),
    }
}

async fn list_logout_deliveries(
    core: Arc<Core>,
    request: pb::ListLogoutDeliveriesRequest,
) -> Result<pb::ListLogoutDeliveriesResponse, Error> {
    let size = page_size(request.page_size)?;
    let after = match read_page_token(&request.page_token)? {
        Some(id) => Some(id.parse::<LogoutId>().map_err(|_| Error::parameter("page_token", Problem::Malformed))?),
        None => None,
    };
    let app = match request.app.as_str() {
        "" => None,
        name => Some(AppId::new(resource("app", "apps", name)?).ok_or(Error::NotFound("app"))?),
    };
    let given_up = match pb::LogoutDeliveryState::try_from(request.state) {
        Ok(pb::LogoutDeliveryState::Unspecified | pb::LogoutDeliveryState::Owed) => false,
        Ok(pb::LogoutDeliveryState::GivenUp) => true,
        Err(_) => return Err(Error::parameter("state", Problem::NotAllowed)),
    };
    let mut found = core.store.logouts(given_up, app, after, size + 1).await?;
    let more = found.len() > size;
    found.truncate(size);
    let next_page_token = found.last().filter(|_| more).map(|last| page_token(&last.id.to_string())).unwrap_or_default();
    Ok(pb::ListLogoutDeliveriesResponse { logout_deliveries: found.into_iter().map(delivery).collect(), next_page_token })
}

administered! {
    pb::session_service_server::SessionService, "/supos.auth.admin.v1.SessionService/", {
        list_sessions(ListSessionsRequest) -> ListSessionsResponse = "ListSessions";
        end_session(EndSessionRequest) -> EndSessionResponse = "EndSession";
        end_user_sessions(EndUserSessionsRequest) -> EndUserSessionsResponse = "EndUserSessions";
        list_logout_deliveries(ListLogoutDeliveriesRequest) -> ListLogoutDeliveriesResponse = "ListLogoutDeliveries";
    }
}
