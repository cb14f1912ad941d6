//! The admin API (docs/administration.md): one file for each service.

mod apps;
mod backups;
mod identity_providers;
mod import;
mod sessions;
mod signing_keys;
mod users;

/// Implements a service whose methods are functions of the same names, for administrators alone; what follows the braces is added as it
/// stands.
macro_rules! administered {
    ($service:path, $prefix:literal, {
        $($method:ident($request:ident) -> $response:ident = $name:literal;)*
    } $($rest:tt)*) => {
        #[tonic::async_trait]
        impl $service for Service {
            $(
                async fn $method(&self, request: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                    self.0.administer(concat!($prefix, $name), request, $method).await
                }
            )*
            $($rest)*
        }
    };
}
use administered;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tonic::service::RoutesBuilder;

use super::{gate::Gate, pb::supos::auth::admin::v1 as pb};
use crate::core::{Core, Error, Problem, ids::UserId};

/// How long whoever imports may send nothing, and whoever takes a backup leave a piece of it waiting: nobody else can take one meanwhile.
const SILENCE: Duration = Duration::from_secs(30);

/// A page has so many items when the caller does not say.
const DEFAULT_PAGE: usize = 50;
/// The most items of a page.
const MAX_PAGE: usize = 1000;

/// The names of the services, for health.
pub const SERVICES: [&str; 6] = [
    "supos.auth.admin.v1.IdentityProviderService",
    "supos.auth.admin.v1.AppService",
    "supos.auth.admin.v1.UserService",
    "supos.auth.admin.v1.SessionService",
    "supos.auth.admin.v1.SigningKeyService",
    "supos.auth.admin.v1.BackupService",
];

/// Adds the services of the admin API.
pub fn add_to(routes: &mut RoutesBuilder, gate: &Gate) {
    routes
        .add_service(pb::app_service_server::AppServiceServer::new(apps::Service(gate.clone())))
        .add_service(pb::identity_provider_service_server::IdentityProviderServiceServer::new(identity_providers::Service(gate.clone())))
        .add_service(pb::user_service_server::UserServiceServer::new(users::Service(gate.clone())))
        .add_service(pb::session_service_server::SessionServiceServer::new(sessions::Service(gate.clone())))
        .add_service(pb::signing_key_service_server::SigningKeyServiceServer::new(signing_keys::Service(gate.clone())))
        .add_service(pb::backup_service_server::BackupServiceServer::new(backups::Service(gate.clone())));
}

/// What is behind a collection's name in a resource name.
fn resource<'a>(field: &'static str, collection: &str, name: &'a str) -> Result<&'a str, Error> {
    if name.is_empty() {
        return Err(Error::parameter(field, Problem::Missing));
    }
    name.strip_prefix(collection).and_then(|rest| rest.strip_prefix('/')).ok_or_else(|| Error::parameter(field, Problem::Malformed))
}

/// The user that `users/{user_id}` or `users/~{user_name}` names.
async fn user_id(core: &Core, field: &'static str, name: &str) -> Result<UserId, Error> {
    let id = resource(field, "users", name)?;
    match id.strip_prefix('~') {
        Some(user_name) => Ok(core.store.user_named(user_name).await?.ok_or(Error::NotFound("user"))?.id),
        None => id.parse().map_err(|_| Error::NotFound("user")),
    }
}

/// How many items a caller wants.
fn page_size(asked: i32) -> Result<usize, Error> {
    match usize::try_from(asked) {
        Ok(0) => Ok(DEFAULT_PAGE),
        Ok(size) => Ok(size.min(MAX_PAGE)),
        Err(_) => Err(Error::parameter("page_size", Problem::NotAllowed)),
    }
}

/// Where the page after this one begins.
fn page_token(last: &str) -> String {
    URL_SAFE_NO_PAD.encode(last)
}

/// Where a page begins: after this.
fn read_page_token(token: &str) -> Result<Option<String>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    // Nothing that is listed has a NUL in its name, and PostgreSQL takes none.
    bytes.filter(|last| !last.contains('\0')).map(Some).ok_or_else(|| Error::parameter("page_token", Problem::Malformed))
}

/// The fields that a mask names, if it may name them.
fn masked<'a>(mask: Option<&'a prost_types::FieldMask>, known: &[&str]) -> Result<Vec<&'a str>, Error> {
    let paths = mask.map(|mask| mask.paths.as_slice()).unwrap_or_default();
    if paths.is_empty() {
        return Err(Error::parameter("update_mask", Problem::Missing));
    }
    if paths.iter().any(|path| !known.contains(&path.as_str())) {
        return Err(Error::parameter("update_mask", Problem::NotAllowed));
    }
    Ok(paths.iter().map(String::as_str).collect())
}
