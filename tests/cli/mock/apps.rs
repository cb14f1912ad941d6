//! The apps of the mock.

use std::pin::Pin;

use supos_auth::grpc::pb::supos::auth::admin::v1::{
    AddAppSecretRequest, AddAppSecretResponse, AppUsage, CreateAppRequest, CreateAppResponse, DeleteAppRequest, DeleteAppResponse,
    DeprecatedCalls, DisableAppRequest, DisableAppResponse, EnableAppRequest, EnableAppResponse, GetAppRequest, GetAppResponse,
    ImportAppsRequest, ImportAppsResponse, ListAppUsageRequest, ListAppUsageResponse, ListAppsRequest, ListAppsResponse,
    RemoveAppSecretRequest, RemoveAppSecretResponse, UpdateAppRequest, UpdateAppResponse, app_service_server::AppService,
    import_apps_request::Step,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Mock, not_here};

/// How many apps do what they should do no more.
pub(crate) const BUSY_APPS: usize = 501;
/// The secret of an app that comes with none.
pub(crate) const APP_SECRET: &str = "secret-of-the-service";

#[async_trait]
impl AppService for Mock {
    async fn create_app(&self, request: Request<CreateAppRequest>) -> Result<Response<CreateAppResponse>, Status> {
        Self::check_ticket(&request)?;
        let request = request.into_inner();
        self.seen().made_apps.push(request.clone());
        let secret = if request.secret.is_empty() { APP_SECRET.to_owned() } else { String::new() };
        Ok(Response::new(CreateAppResponse { app: request.app, secret }))
    }

    async fn update_app(&self, request: Request<UpdateAppRequest>) -> Result<Response<UpdateAppResponse>, Status> {
        Self::check_ticket(&request)?;
        let request = request.into_inner();
        self.seen().updated_apps.push(request.clone());
        Ok(Response::new(UpdateAppResponse { app: request.app }))
    }

    /// The first app does two things, each other one signs without a date.
    async fn list_app_usage(&self, request: Request<ListAppUsageRequest>) -> Result<Response<ListAppUsageResponse>, Status> {
        Self::check_ticket(&request)?;
        let request = request.into_inner();
        let start = request.page_token.parse().unwrap_or(0);
        let end = BUSY_APPS.min(start + usize::try_from(request.page_size).expect("a page size"));
        let usage = |number: usize| AppUsage {
            app: format!("apps/app-{number}"),
            deprecated_calls: if number > 0 {
                Vec::new()
            } else {
                let last_call_time = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 });
                vec![DeprecatedCalls { operation: "v281.SignOut".to_owned(), calls: 7, last_call_time }]
            },
            undated_signatures: 9,
            last_undated_signature_time: None,
        };
        let next_page_token = if end < BUSY_APPS { end.to_string() } else { String::new() };
        Ok(Response::new(ListAppUsageResponse { app_usage: (start..end).map(usage).collect(), next_page_token }))
    }

    async fn get_app(&self, _: Request<GetAppRequest>) -> Result<Response<GetAppResponse>, Status> {
        not_here()
    }

    async fn list_apps(&self, _: Request<ListAppsRequest>) -> Result<Response<ListAppsResponse>, Status> {
        not_here()
    }

    async fn delete_app(&self, _: Request<DeleteAppRequest>) -> Result<Response<DeleteAppResponse>, Status> {
        not_here()
    }

    async fn enable_app(&self, _: Request<EnableAppRequest>) -> Result<Response<EnableAppResponse>, Status> {
        not_here()
    }

    async fn disable_app(&self, _: Request<DisableAppRequest>) -> Result<Response<DisableAppResponse>, Status> {
        not_here()
    }

    async fn add_app_secret(&self, _: Request<AddAppSecretRequest>) -> Result<Response<AddAppSecretResponse>, Status> {
        not_here()
    }

    async fn remove_app_secret(&self, _: Request<RemoveAppSecretRequest>) -> Result<Response<RemoveAppSecretResponse>, Status> {
        not_here()
    }

    type ImportAppsStream = Pin<Box<dyn Stream<Item = Result<ImportAppsResponse, Status>> + Send>>;

    /// Takes every app, and answers at the end.
    async fn import_apps(&self, request: Request<Streaming<ImportAppsRequest>>) -> Result<Response<Self::ImportAppsStream>, Status> {
        Self::check_ticket(&request)?;
        let mut steps = request.into_inner();
        let mut made = Vec::new();
        while let Some(ImportAppsRequest { step }) = steps.message().await? {
            if let Some(Step::App(app)) = step {
                made.push(app);
            }
        }
        let number = i64::try_from(made.len()).expect("a number");
        self.seen().made_apps.extend(made);
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(ImportAppsResponse { checked: number, stored: number })))))
    }
}
