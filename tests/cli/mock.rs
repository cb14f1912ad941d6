//! A service that answers as the real one does, as far as the command line can see, and remembers what it was asked.

pub(crate) mod apps;

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use supos_auth::grpc::pb::supos::auth::{
    admin::v1::{
        ChangePasswordRequest, ChangePasswordResponse, CreateAppRequest, CreateUserRequest, CreateUserResponse, DeleteUserRequest,
        DeleteUserResponse, DisableUserRequest, DisableUserResponse, EnableUserRequest, EnableUserResponse, GetUserRequest,
        GetUserResponse, ImportUsersRequest, ImportUsersResponse, ListUsersRequest, ListUsersResponse, ResetPasswordRequest,
        ResetPasswordResponse, SetPasswordRequest, SetPasswordResponse, UpdateAppRequest, UpdateUserRequest, UpdateUserResponse, User,
        app_service_server::AppServiceServer,
        import_users_request::Step,
        user_service_server::{UserService, UserServiceServer},
    },
    v2::{
        AuthorizeRequest, AuthorizeResponse, CompleteThirdPartySignInRequest, CompleteThirdPartySignInResponse,
        CreateIdentityProviderRequest, CreateIdentityProviderResponse, GetJwksRequest, GetJwksResponse, SignInRequest, SignInResponse,
        SignOutRequest, SignOutResponse, TokenRequest, TokenResponse,
        auth_service_server::{AuthService, AuthServiceServer},
    },
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Code, Request, Response, Status, Streaming, async_trait, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

pub(crate) const TICKET: &str = "ticket-of-admin";
pub(crate) const OLD_PASSWORD: &str = "old-password-1";
pub(crate) const ONE_TIME_PASSWORD: &str = "one-time-password";
/// How many users there are.
pub(crate) const USERS: usize = 1201;

/// What the service has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) password: String,
    pub(crate) password_expired: bool,
    pub(crate) page_sizes: Vec<i32>,
    pub(crate) signed_out_with: Vec<String>,
    pub(crate) deleted: Vec<String>,
    pub(crate) updated: Vec<UpdateUserRequest>,
    pub(crate) made_users: Vec<CreateUserRequest>,
    pub(crate) made_apps: Vec<CreateAppRequest>,
    pub(crate) updated_apps: Vec<UpdateAppRequest>,
    pub(crate) imported: Vec<CreateUserRequest>,
    pub(crate) dry_runs: usize,
    /// Imports whose request stream broke off.
    pub(crate) broken_imports: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Mock {
    seen: Arc<Mutex<Seen>>,
    address: SocketAddr,
}

impl Mock {
    /// Starts the service on a port of its own.
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let seen = Seen { password: OLD_PASSWORD.to_owned(), ..Seen::default() };
        let mock = Self { seen: Arc::new(Mutex::new(seen)), address };
        let (auth, users) = (AuthServiceServer::new(mock.clone()), UserServiceServer::new(mock.clone()));
        let apps = AppServiceServer::new(mock.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let incoming = TcpListenerStream::new(TcpListener::from_std(listener).expect("a listener"));
                let (reporter, health) = tonic_health::server::health_reporter();
                reporter.set_not_serving::<UserServiceServer<Self>>().await;
                Server::builder()
                    .add_service(auth)
                    .add_service(users)
                    .add_service(apps)
                    .add_service(health)
                    .serve_with_incoming(incoming)
                    .await
            })
        });
        mock
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic")
    }

    fn check_ticket<T>(request: &Request<T>) -> Result<(), Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if authorization == Some(&format!("Ticket {TICKET}")) { Ok(()) } else { Err(Status::unauthenticated("the ticket is not good")) }
    }
}

fn refusal(code: Code, message: &str, reason: &str) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, "supos-auth", HashMap::new()))
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(""))
}

#[async_trait]
impl AuthService for Mock {
    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let request = request.into_inner();
        let seen = self.seen();
        if request.user_name != "admin" || request.password != seen.password {
            return Err(refusal(Code::Unauthenticated, "wrong user name or password", "WRONG_PASSWORD"));
        }
        if seen.password_expired {
            return Err(refusal(Code::PermissionDenied, "the password has to be changed first", "PASSWORD_CHANGE_REQUIRED"));
        }
        Ok(Response::new(SignInResponse { ticket: TICKET.to_owned(), username: request.user_name, ..SignInResponse::default() }))
    }

    async fn sign_out(&self, request: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        let cookie = request.metadata().get("cookie").and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.seen().signed_out_with.push(cookie.to_owned());
        Ok(Response::new(SignOutResponse::default()))
    }

    async fn token(&self, _: Request<TokenRequest>) -> Result<Response<TokenResponse>, Status> {
        not_here()
    }

    async fn create_identity_provider(
        &self,
        _: Request<CreateIdentityProviderRequest>,
    ) -> Result<Response<CreateIdentityProviderResponse>, Status> {
        not_here()
    }

    async fn authorize(&self, _: Request<AuthorizeRequest>) -> Result<Response<AuthorizeResponse>, Status> {
        not_here()
    }

    async fn complete_third_party_sign_in(
        &self,
        _: Request<CompleteThirdPartySignInRequest>,
    ) -> Result<Response<CompleteThirdPartySignInResponse>, Status> {
        not_here()
    }

    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<GetJwksResponse>, Status> {
        not_here()
    }
}

#[async_trait]
impl UserService for Mock {
    async fn create_user(&self, request: Request<CreateUserRequest>) -> Result<Response<CreateUserResponse>, Status> {
        Self::check_ticket(&request)?;
        let request = request.into_inner();
        self.seen().made_users.push(request.clone());
        let one_time_password = if request.password.is_empty() { ONE_TIME_PASSWORD.to_owned() } else { String::new() };
        Ok(Response::new(CreateUserResponse { user: request.user, one_time_password }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        Self::check_ticket(&request)?;
        Err(refusal(Code::NotFound, &format!("there is no {}", request.get_ref().name), "USER_UNKNOWN"))
    }

    async fn list_users(&self, request: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        Self::check_ticket(&request)?;
        let request = request.into_inner();
        self.seen().page_sizes.push(request.page_size);
        let start = request.page_token.parse().unwrap_or(0);
        let end = USERS.min(start + usize::try_from(request.page_size).expect("a page size"));
        let users = (start..end).map(|number| User { user_name: format!("user-{number}"), ..User::default() }).collect();
        Ok(Response::new(ListUsersResponse { users, next_page_token: if end < USERS { end.to_string() } else { String::new() } }))
    }

    async fn update_user(&self, request: Request<UpdateUserRequest>) -> Result<Response<UpdateUserResponse>, Status> {
        Self::check_ticket(&request)?;
        let request = request.into_inner();
        self.seen().updated.push(request.clone());
        Ok(Response::new(UpdateUserResponse { user: request.user }))
    }

    async fn delete_user(&self, request: Request<DeleteUserRequest>) -> Result<Response<DeleteUserResponse>, Status> {
        Self::check_ticket(&request)?;
        self.seen().deleted.push(request.into_inner().name);
        Ok(Response::new(DeleteUserResponse {}))
    }

    async fn enable_user(&self, _: Request<EnableUserRequest>) -> Result<Response<EnableUserResponse>, Status> {
        not_here()
    }

    async fn disable_user(&self, _: Request<DisableUserRequest>) -> Result<Response<DisableUserResponse>, Status> {
        not_here()
    }

    async fn set_password(&self, _: Request<SetPasswordRequest>) -> Result<Response<SetPasswordResponse>, Status> {
        Err(refusal(Code::PermissionDenied, "only an administrator may do this", "NOT_ALLOWED"))
    }

    async fn reset_password(&self, request: Request<ResetPasswordRequest>) -> Result<Response<ResetPasswordResponse>, Status> {
        Self::check_ticket(&request)?;
        Ok(Response::new(ResetPasswordResponse { one_time_password: ONE_TIME_PASSWORD.to_owned() }))
    }

    async fn change_password(&self, request: Request<ChangePasswordRequest>) -> Result<Response<ChangePasswordResponse>, Status> {
        let mut seen = self.seen();
        let by_ticket = request.get_ref().user_name.is_empty() && Self::check_ticket(&request).is_ok();
        let request = request.into_inner();
        if (request.user_name != "admin" && !by_ticket) || request.current_password != seen.password {
            return Err(refusal(Code::Unauthenticated, "wrong user name or password", "WRONG_PASSWORD"));
        }
        seen.password = request.new_password;
        seen.password_expired = false;
        Ok(Response::new(ChangePasswordResponse {}))
    }

    type ImportUsersStream = Pin<Box<dyn Stream<Item = Result<ImportUsersResponse, Status>> + Send>>;

    async fn import_users(&self, request: Request<Streaming<ImportUsersRequest>>) -> Result<Response<Self::ImportUsersStream>, Status> {
        Self::check_ticket(&request)?;
        // One slot: whoever does not read the answers makes the service wait.
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(self.clone().import(request.into_inner(), answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

impl Mock {
    /// Answers each user. Refuses a user named `taken` without reading on.
    async fn import(self, mut steps: Streaming<ImportUsersRequest>, answers: mpsc::Sender<Result<ImportUsersResponse, Status>>) {
        let mut validate_only = false;
        let mut users: Vec<CreateUserRequest> = Vec::new();
        loop {
            match steps.message().await {
                Ok(Some(ImportUsersRequest { step: Some(Step::Options(options)) })) => validate_only = options.validate_only,
                Ok(Some(ImportUsersRequest { step: Some(Step::User(user)) })) => {
                    if user.user.as_ref().is_some_and(|user| user.user_name == "taken") {
                        let field = format!("steps[{}].user.user.user_name", users.len());
                        let details = ErrorDetails::with_bad_request_violation(field, "exists already");
                        let _ = answers.send(Err(Status::with_error_details(Code::AlreadyExists, "a user exists already", details))).await;
                        return;
                    }
                    users.push(user);
                    let checked = i64::try_from(users.len()).expect("a number");
                    let _ = answers.send(Ok(ImportUsersResponse { checked, stored: 0 })).await;
                }
                Ok(Some(ImportUsersRequest { step: None })) => unreachable!("the command line sends no empty step"),
                Ok(None) => break,
                Err(_) => {
                    self.seen().broken_imports += 1;
                    return;
                }
            }
        }
        let checked = i64::try_from(users.len()).expect("a number");
        let stored = if validate_only { 0 } else { checked };
        {
            let mut seen = self.seen();
            seen.dry_runs += usize::from(validate_only);
            if !validate_only {
                seen.imported.extend(users);
            }
        }
        let _ = answers.send(Ok(ImportUsersResponse { checked, stored })).await;
    }
}
