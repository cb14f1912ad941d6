//! `supos.auth.admin.v1.SessionService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{administered, page_size, page_token, pb, read_page_token, resource, user_id};
use crate::{
    core::{
        Core, Error, Problem,
        ids::{AppId, SessionId},
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
        user_name: user.name,
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
    if core.store.end_session(id).await? { Ok(pb::EndSessionResponse {}) } else { Err(Error::NotFound("session")) }
}

async fn end_user_sessions(core: Arc<Core>, request: pb::EndUserSessionsRequest) -> Result<pb::EndUserSessionsResponse, Error> {
    let user = user_id(&core, "user", &request.user).await?;
    let ended = core.store.end_sessions_of(user).await?;
    Ok(pb::EndUserSessionsResponse { ended: i32::try_from(ended).unwrap_or(i32::MAX) })
}

administered! {
    pb::session_service_server::SessionService, "/supos.auth.admin.v1.SessionService/", {
        list_sessions(ListSessionsRequest) -> ListSessionsResponse = "ListSessions";
        end_session(EndSessionRequest) -> EndSessionResponse = "EndSession";
        end_user_sessions(EndUserSessionsRequest) -> EndUserSessionsResponse = "EndUserSessions";
    }
}
