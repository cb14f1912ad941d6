//! `supos.auth.admin.v1.AppService`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::{administered, import, masked, page_size, page_token, pb, read_page_token, resource};
use crate::{
    core::{
        Core, Error, Problem,
        apps::{AppSpec, NewApp},
        ids::AppId,
        model::{App, AppSecret},
        rights::Rights,
        secret::Secret,
        usage::{AppUsage, Count},
    },
    grpc::{convert::timestamp, gate::Gate},
};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Gate);

fn app_id(field: &'static str, name: &str) -> Result<AppId, Error> {
    AppId::new(resource(field, "apps", name)?).ok_or(Error::NotFound("app"))
}

fn given(secret: String) -> Option<Secret> {
    Some(Secret::new(secret)).filter(|secret| !secret.expose().is_empty())
}

fn shown(secret: Option<Secret>) -> String {
    secret.map(|secret| secret.expose().to_owned()).unwrap_or_default()
}

fn spec(app: pb::App) -> Result<AppSpec, Error> {
    Ok(AppSpec {
        display_name: app.display_name,
        redirect_uris: app.redirect_uris,
        logout_uris: app.logout_uris,
        refresh_requires_app_credential: app.refresh_requires_app_credential,
        rights: Rights::of_names(app.rights.iter().map(String::as_str)).map_err(|error| error.within("app"))?,
        signature_requires_date: app.signature_requires_date,
    })
}

/// The app that a request wants made.
pub(super) fn new_app(request: pb::CreateAppRequest) -> Result<NewApp, Error> {
    let app = request.app.ok_or_else(|| Error::parameter("app", Problem::Missing))?;
    Ok(NewApp {
        enabled: app.enabled.unwrap_or(true),
        id: Some(app.app_id.clone()).filter(|id| !id.is_empty()),
        secret: given(request.secret),
        spec: spec(app)?,
    })
}

fn secret_message(app: &AppId, secret: &AppSecret) -> pb::AppSecret {
    pb::AppSecret {
        name: format!("apps/{app}/secrets/{}", secret.id),
        create_time: Some(timestamp(secret.created_at)),
        short: secret.short,
    }
}

fn message(app: App) -> pb::App {
    pb::App {
        name: format!("apps/{}", app.id),
        secrets: app.secrets.iter().map(|secret| secret_message(&app.id, secret)).collect(),
        app_id: app.id.to_string(),
        display_name: app.display_name,
        redirect_uris: app.redirect_uris,
        logout_uris: app.logout_uris,
        enabled: Some(app.enabled),
        refresh_requires_app_credential: app.refresh_requires_app_credential,
        create_time: Some(timestamp(app.created_at)),
        update_time: Some(timestamp(app.updated_at)),
        rights: app.rights.names().map(str::to_owned).collect(),
        signature_requires_date: app.signature_requires_date,
    }
}

async fn set_enabled(core: Arc<Core>, name: String, enabled: bool) -> Result<Option<pb::App>, Error> {
    let app = core
        .update_app(&app_id("name", &name)?, move |app| {
            app.enabled = enabled;
            Ok(())
        })
        .await?;
    Ok(Some(message(app)))
}

async fn create_app(core: Arc<Core>, request: pb::CreateAppRequest) -> Result<pb::CreateAppResponse, Error> {
    let (app, secret) = core.create_app(new_app(request)?).await?;
    Ok(pb::CreateAppResponse { app: Some(message(app)), secret: shown(secret) })
}

async fn get_app(core: Arc<Core>, request: pb::GetAppRequest) -> Result<pb::GetAppResponse, Error> {
    let app = core.store.app(&app_id("name", &request.name)?).await?.ok_or(Error::NotFound("app"))?;
    Ok(pb::GetAppResponse { app: Some(message(Arc::unwrap_or_clone(app))) })
}

fn app_page_token(token: &str) -> Result<Option<AppId>, Error> {
    let malformed = || Error::parameter("page_token", Problem::Malformed);
    read_page_token(token)?.map(|id| AppId::new(&id).ok_or_else(malformed)).transpose()
}

async fn list_apps(core: Arc<Core>, request: pb::ListAppsRequest) -> Result<pb::ListAppsResponse, Error> {
    let size = page_size(request.page_size)?;
    let after = app_page_token(&request.page_token)?;
    let mut apps = core.store.apps(after, size + 1).await?;
    let more = apps.len() > size;
    apps.truncate(size);
    let next_page_token = apps.last().filter(|_| more).map(|app| page_token(app.id.as_str())).unwrap_or_default();
    Ok(pb::ListAppsResponse { apps: apps.into_iter().map(message).collect(), next_page_token })
}

async fn update_app(core: Arc<Core>, request: pb::UpdateAppRequest) -> Result<pb::UpdateAppResponse, Error> {
    let app = request.app.ok_or_else(|| Error::parameter("app", Problem::Missing))?;
    let id = app_id("app.name", &app.name)?;
    let known = ["display_name", "redirect_uris", "logout_uris", "refresh_requires_app_credential", "rights", "signature_requires_date"];
    let paths: Vec<String> = masked(request.update_mask.as_ref(), &known)?.into_iter().map(str::to_owned).collect();
    let asked = spec(app)?;
    let change = move |app: &mut App| {
        let has = |path: &str| paths.iter().any(|asked| asked == path);
        let (mut new, asked) = (AppSpec::of(app), asked.clone());
        if has("display_name") {
            new.display_name = asked.display_name;
        }
        if has("redirect_uris") {
            new.redirect_uris = asked.redirect_uris;
        }
        if has("logout_uris") {
            new.logout_uris = asked.logout_uris;
        }
        if has("refresh_requires_app_credential") {
            new.refresh_requires_app_credential = asked.refresh_requires_app_credential;
        }
        if has("rights") {
            new.rights = asked.rights;
        }
        if has("signature_requires_date") {
            new.signature_requires_date = asked.signature_requires_date;
        }
        new.apply(app).map_err(|error| error.within("app"))
    };
    let updated = core.update_app(&id, change).await?;
    Ok(pb::UpdateAppResponse { app: Some(message(updated)) })
}

async fn delete_app(core: Arc<Core>, request: pb::DeleteAppRequest) -> Result<pb::DeleteAppResponse, Error> {
    core.store.delete_app(&app_id("name", &request.name)?).await?;
    Ok(pb::DeleteAppResponse {})
}

async fn enable_app(core: Arc<Core>, request: pb::EnableAppRequest) -> Result<pb::EnableAppResponse, Error> {
    Ok(pb::EnableAppResponse { app: set_enabled(core, request.name, true).await? })
}

async fn disable_app(core: Arc<Core>, request: pb::DisableAppRequest) -> Result<pb::DisableAppResponse, Error> {
    Ok(pb::DisableAppResponse { app: set_enabled(core, request.name, false).await? })
}

async fn add_app_secret(core: Arc<Core>, request: pb::AddAppSecretRequest) -> Result<pb::AddAppSecretResponse, Error> {
    let id = app_id("app", &request.app)?;
    let (added, made) = core.add_app_secret(&id, given(request.secret)).await?;
    Ok(pb::AddAppSecretResponse { app_secret: Some(secret_message(&id, &added)), secret: shown(made) })
}

async fn remove_app_secret(core: Arc<Core>, request: pb::RemoveAppSecretRequest) -> Result<pb::RemoveAppSecretResponse, Error> {
    let path = resource("name", "apps", &request.name)?;
    let (app, secret) = path.rsplit_once("/secrets/").ok_or_else(|| Error::parameter("name", Problem::Malformed))?;
    let app = AppId::new(app).ok_or(Error::NotFound("app"))?;
    core.remove_app_secret(&app, secret.parse().map_err(|_| Error::NotFound("secret"))?).await?;
    Ok(pb::RemoveAppSecretResponse {})
}

fn usage_message((app, usage): (AppId, AppUsage)) -> pb::AppUsage {
    let number = |times: u64| i64::try_from(times).unwrap_or(i64::MAX);
    let calls = |(operation, count): (String, Count)| pb::DeprecatedCalls {
        operation,
        calls: number(count.times),
        last_call_time: Some(timestamp(count.last_at)),
    };
    pb::AppUsage {
        app: format!("apps/{app}"),
        deprecated_calls: usage.deprecated.into_iter().map(calls).collect(),
        undated_signatures: number(usage.undated.times),
        last_undated_signature_time: (usage.undated.times > 0).then(|| timestamp(usage.undated.last_at)),
    }
}

async fn list_app_usage(core: Arc<Core>, request: pb::ListAppUsageRequest) -> Result<pb::ListAppUsageResponse, Error> {
    let size = page_size(request.page_size)?;
    let after = app_page_token(&request.page_token)?;
    core.store_usage().await?;
    let mut usage = core.store.usage(after, size + 1).await?;
    let more = usage.len() > size;
    usage.truncate(size);
    let next_page_token = usage.last().filter(|_| more).map(|(app, _)| page_token(app.as_str())).unwrap_or_default();
    Ok(pb::ListAppUsageResponse { app_usage: usage.into_iter().map(usage_message).collect(), next_page_token })
}

administered! {
    pb::app_service_server::AppService, "/supos.auth.admin.v1.AppService/", {
        create_app(CreateAppRequest) -> CreateAppResponse = "CreateApp";
        get_app(GetAppRequest) -> GetAppResponse = "GetApp";
        list_apps(ListAppsRequest) -> ListAppsResponse = "ListApps";
        update_app(UpdateAppRequest) -> UpdateAppResponse = "UpdateApp";
        delete_app(DeleteAppRequest) -> DeleteAppResponse = "DeleteApp";
        enable_app(EnableAppRequest) -> EnableAppResponse = "EnableApp";
        disable_app(DisableAppRequest) -> DisableAppResponse = "DisableApp";
        add_app_secret(AddAppSecretRequest) -> AddAppSecretResponse = "AddAppSecret";
        remove_app_secret(RemoveAppSecretRequest) -> RemoveAppSecretResponse = "RemoveAppSecret";
        list_app_usage(ListAppUsageRequest) -> ListAppUsageResponse = "ListAppUsage";
    }

    type ImportAppsStream = import::Progress<pb::ImportAppsResponse>;

    async fn import_apps(&self, request: Request<Streaming<pb::ImportAppsRequest>>) -> Result<Response<Self::ImportAppsStream>, Status> {
        import::serve::<import::Apps>(&self.0, "/supos.auth.admin.v1.AppService/ImportApps", request).await
    }
}
