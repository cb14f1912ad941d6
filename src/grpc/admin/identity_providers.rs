//! `supos.auth.admin.v1.IdentityProviderService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{administered, masked, page_size, page_token, pb, read_page_token, resource, user_id};
use crate::{
    core::{
        Core, Error, Problem,
        authorities::{AuthoritySpec, NewAuthority, Registrar},
        ids::AuthorityId,
        model::{Authority, LinkOrigin},
        secret::Secret,
    },
    grpc::{convert::timestamp, gate::Gate},
    store::{Linked, LinksOf},
};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Gate);

/// The authority that `identityProviders/{id}` or `identityProviders/~{display_name}` names.
async fn authority_id(core: &Core, field: &'static str, name: &str) -> Result<AuthorityId, Error> {
    let id = resource(field, "identityProviders", name)?;
    match id.strip_prefix('~') {
        Some(name) => Ok(core.store.authority_named(name, core.now()).await?.ok_or(Error::NotFound("authority"))?.id),
        None => id.parse().map_err(|_| Error::NotFound("authority")),
    }
}

fn message(core: &Core, authority: Authority) -> pb::IdentityProvider {
    let (pending_until, pending_from) = match authority.pending {
        Some(pending) => (Some(timestamp(pending.expires_at)), pending.network),
        None => (None, String::new()),
    };
    pb::IdentityProvider {
        name: format!("identityProviders/{}", authority.id),
        display_name: authority.name,
        client_id: authority.client_id,
        authorization_uri: authority.authorization_uri,
        token_uri: authority.token_uri,
        userinfo_uri: authority.userinfo_uri,
        logout_uri: authority.logout_uri,
        enabled: Some(authority.enabled),
        link_by_name: Some(authority.link_by_name),
        create_users: authority.create_users,
        pending_until,
        pending_from,
        redirect_uri: core.third_party_redirect_uri(),
        create_time: Some(timestamp(authority.created_at)),
        update_time: Some(timestamp(authority.updated_at)),
    }
}

fn spec(asked: pb::IdentityProvider) -> AuthoritySpec {
    AuthoritySpec {
        display_name: asked.display_name,
        client_id: asked.client_id,
        authorization_uri: asked.authorization_uri,
        token_uri: asked.token_uri,
        userinfo_uri: asked.userinfo_uri,
        logout_uri: asked.logout_uri,
        link_by_name: asked.link_by_name.unwrap_or(true),
        create_users: asked.create_users,
    }
}

/// The error with the field where the request has it.
fn placed(error: Error) -> Error {
    match error {
        Error::Parameter { ref name, .. } if name != "client_secret" => error.within("identity_provider"),
        other => other,
    }
}

async fn create_identity_provider(
    core: Arc<Core>,
    request: pb::CreateIdentityProviderRequest,
) -> Result<pb::CreateIdentityProviderResponse, Error> {
    let asked = request.identity_provider.ok_or_else(|| Error::parameter("identity_provider", Problem::Missing))?;
    let enabled = asked.enabled.unwrap_or(true);
    let new = NewAuthority { enabled, client_secret: Secret::new(request.client_secret), spec: spec(asked) };
    let made = core.register_authority(new, Registrar::Entitled).await.map_err(placed)?;
    Ok(pb::CreateIdentityProviderResponse { identity_provider: Some(message(&core, made)) })
}

async fn get_identity_provider(core: Arc<Core>, request: pb::GetIdentityProviderRequest) -> Result<pb::GetIdentityProviderResponse, Error> {
    let id = authority_id(&core, "name", &request.name).await?;
    let authority = core.store.authority(id, core.now()).await?.ok_or(Error::NotFound("authority"))?;
    Ok(pb::GetIdentityProviderResponse { identity_provider: Some(message(&core, authority)) })
}

async fn list_identity_providers(
    core: Arc<Core>,
    request: pb::ListIdentityProvidersRequest,
) -> Result<pb::ListIdentityProvidersResponse, Error> {
    let size = page_size(request.page_size)?;
    let mut authorities = core.store.authorities(read_page_token(&request.page_token)?, size + 1, core.now()).await?;
    let more = authorities.len() > size;
    authorities.truncate(size);
    let next_page_token = authorities.last().filter(|_| more).map(|authority| page_token(&authority.name)).unwrap_or_default();
    let identity_providers = authorities.into_iter().map(|authority| message(&core, authority)).collect();
    Ok(pb::ListIdentityProvidersResponse { identity_providers, next_page_token })
}

async fn update_identity_provider(
    core: Arc<Core>,
    request: pb::UpdateIdentityProviderRequest,
) -> Result<pb::UpdateIdentityProviderResponse, Error> {
    let asked = request.identity_provider.ok_or_else(|| Error::parameter("identity_provider", Problem::Missing))?;
    let secret = Some(Secret::new(request.client_secret)).filter(|secret| !secret.expose().is_empty());
    let known =
        ["display_name", "client_id", "authorization_uri", "token_uri", "userinfo_uri", "logout_uri", "link_by_name", "create_users"];
    let is_empty = request.update_mask.as_ref().is_none_or(|mask| mask.paths.is_empty());
    let paths = if is_empty && secret.is_some() { Vec::new() } else { masked(request.update_mask.as_ref(), &known)? };
    let id = authority_id(&core, "identity_provider.name", &asked.name).await?;
    let asked = spec(asked);
    let change = |spec: &mut AuthoritySpec| {
        for path in &paths {
            match *path {
                "display_name" => spec.display_name.clone_from(&asked.display_name),
                "client_id" => spec.client_id.clone_from(&asked.client_id),
                "authorization_uri" => spec.authorization_uri.clone_from(&asked.authorization_uri),
                "token_uri" => spec.token_uri.clone_from(&asked.token_uri),
                "userinfo_uri" => spec.userinfo_uri.clone_from(&asked.userinfo_uri),
                "logout_uri" => spec.logout_uri.clone_from(&asked.logout_uri),
                "link_by_name" => spec.link_by_name = asked.link_by_name,
                _ => spec.create_users = asked.create_users,
            }
        }
    };
    let updated = core.update_authority(id, secret, change).await.map_err(placed)?;
    Ok(pb::UpdateIdentityProviderResponse { identity_provider: Some(message(&core, updated)) })
}

async fn delete_identity_provider(
    core: Arc<Core>,
    request: pb::DeleteIdentityProviderRequest,
) -> Result<pb::DeleteIdentityProviderResponse, Error> {
    let id = authority_id(&core, "name", &request.name).await?;
    core.store.delete_authority(id, core.now()).await?;
    Ok(pb::DeleteIdentityProviderResponse {})
}

async fn set_enabled(core: &Core, name: &str, enabled: bool) -> Result<Option<pb::IdentityProvider>, Error> {
    let id = authority_id(core, "name", name).await?;
    Ok(Some(message(core, core.set_authority_enabled(id, enabled).await?)))
}

async fn enable_identity_provider(
    core: Arc<Core>,
    request: pb::EnableIdentityProviderRequest,
) -> Result<pb::EnableIdentityProviderResponse, Error> {
    Ok(pb::EnableIdentityProviderResponse { identity_provider: set_enabled(&core, &request.name, true).await? })
}

async fn disable_identity_provider(
    core: Arc<Core>,
    request: pb::DisableIdentityProviderRequest,
) -> Result<pb::DisableIdentityProviderResponse, Error> {
    Ok(pb::DisableIdentityProviderResponse { identity_provider: set_enabled(&core, &request.name, false).await? })
}

fn link_message(linked: Linked) -> pb::Link {
    let Linked { authority, subject, user, link } = linked;
    let origin = match link.origin {
        LinkOrigin::Name => pb::LinkOrigin::Name,
        LinkOrigin::Creation => pb::LinkOrigin::Creation,
        LinkOrigin::Administrator => pb::LinkOrigin::Administrator,
    };
    pb::Link {
        identity_provider: format!("identityProviders/{authority}"),
        subject,
        user: format!("users/{}", user.id),
        user_name: user.name,
        origin: origin.into(),
        create_time: Some(timestamp(link.created_at)),
    }
}

async fn link_user(core: Arc<Core>, request: pb::LinkUserRequest) -> Result<pb::LinkUserResponse, Error> {
    let authority = authority_id(&core, "identity_provider", &request.identity_provider).await?;
    let user = user_id(&core, "user", &request.user).await?;
    let linked = core.link_user(authority, request.subject, user).await?;
    Ok(pb::LinkUserResponse { link: Some(link_message(linked)) })
}

async fn unlink_user(core: Arc<Core>, request: pb::UnlinkUserRequest) -> Result<pb::UnlinkUserResponse, Error> {
    let authority = authority_id(&core, "identity_provider", &request.identity_provider).await?;
    core.store.unlink_user(authority, request.subject).await?;
    Ok(pb::UnlinkUserResponse {})
}

async fn list_links(core: Arc<Core>, request: pb::ListLinksRequest) -> Result<pb::ListLinksResponse, Error> {
    let size = page_size(request.page_size)?;
    let of = match (request.identity_provider.as_str(), request.user.as_str()) {
        ("", "") => return Err(Error::parameter("identity_provider", Problem::Missing)),
        (authority, "") => LinksOf::Authority(authority_id(&core, "identity_provider", authority).await?),
        ("", user) => LinksOf::User(user_id(&core, "user", user).await?),
        _ => return Err(Error::parameter("user", Problem::Ambiguous)),
    };
    let malformed = || Error::parameter("page_token", Problem::Malformed);
    let read = |token: String| {
        let (authority, subject) = token.split_once(' ').ok_or_else(malformed)?;
        Ok((authority.parse::<AuthorityId>().map_err(|_| malformed())?, subject.to_owned()))
    };
    let after = read_page_token(&request.page_token)?.map(read).transpose()?;
    let mut links = core.store.links(of, after, size + 1).await?;
    let more = links.len() > size;
    links.truncate(size);
    let last = links.last().filter(|_| more);
    let next_page_token = last.map(|last| page_token(&format!("{} {}", last.authority, last.subject))).unwrap_or_default();
    Ok(pb::ListLinksResponse { links: links.into_iter().map(link_message).collect(), next_page_token })
}

administered! {
    pb::identity_provider_service_server::IdentityProviderService, "/supos.auth.admin.v1.IdentityProviderService/", {
        create_identity_provider(CreateIdentityProviderRequest) -> CreateIdentityProviderResponse = "CreateIdentityProvider";
        get_identity_provider(GetIdentityProviderRequest) -> GetIdentityProviderResponse = "GetIdentityProvider";
        list_identity_providers(ListIdentityProvidersRequest) -> ListIdentityProvidersResponse = "ListIdentityProviders";
        update_identity_provider(UpdateIdentityProviderRequest) -> UpdateIdentityProviderResponse = "UpdateIdentityProvider";
        delete_identity_provider(DeleteIdentityProviderRequest) -> DeleteIdentityProviderResponse = "DeleteIdentityProvider";
        enable_identity_provider(EnableIdentityProviderRequest) -> EnableIdentityProviderResponse = "EnableIdentityProvider";
        disable_identity_provider(DisableIdentityProviderRequest) -> DisableIdentityProviderResponse = "DisableIdentityProvider";
        link_user(LinkUserRequest) -> LinkUserResponse = "LinkUser";
        unlink_user(UnlinkUserRequest) -> UnlinkUserResponse = "UnlinkUser";
        list_links(ListLinksRequest) -> ListLinksResponse = "ListLinks";
    }
}
