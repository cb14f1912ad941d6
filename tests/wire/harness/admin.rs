//! The admin API, as far as the tests need it.

use supos_auth::grpc::pb::supos::auth::admin::v1::{
    App as AdminApp, CreateAppRequest, CreateUserRequest, DisableUserRequest, User as AdminUser, app_service_client::AppServiceClient,
    identity_provider_service_client::IdentityProviderServiceClient, session_service_client::SessionServiceClient,
    signing_key_service_client::SigningKeyServiceClient, user_service_client::UserServiceClient,
};
use tonic::Request;

use super::{
    call::{Call, Op, Via, Who},
    native,
    sign::Signed,
    world::{App, User, World, unique},
};

impl World {
    /// The administrator of the demo seed.
    pub(crate) async fn admin(&self) -> Who {
        let ticket = self.admin.get_or_init(|| async {
            let call = Call::new(Op::SignIn).with("userName", "admin").with("password", "admin-password");
            self.call(Via::Native, &call).await.text_of("ticket")
        });
        Who::authorization(&format!("Ticket {}", ticket.await))
    }

    /// A request by the administrator.
    pub(crate) async fn as_admin<T>(&self, message: T) -> Request<T> {
        native::request(message, &self.admin().await)
    }

    pub(crate) fn apps(&self) -> AppServiceClient<Signed> {
        AppServiceClient::new(self.signed())
    }

    pub(crate) fn users(&self) -> UserServiceClient<Signed> {
        UserServiceClient::new(self.signed())
    }

    pub(crate) fn authorities(&self) -> IdentityProviderServiceClient<Signed> {
        IdentityProviderServiceClient::new(self.signed())
    }

    pub(crate) fn sessions(&self) -> SessionServiceClient<Signed> {
        SessionServiceClient::new(self.signed())
    }

    pub(crate) fn signing_keys(&self) -> SigningKeyServiceClient<Signed> {
        SigningKeyServiceClient::new(self.signed())
    }

    /// A new app.
    pub(crate) async fn app(&self) -> App {
        self.app_with(|_| {}).await
    }

    /// A new app with redirect and logout URIs of its own, changed by `change`.
    pub(crate) async fn app_with(&self, change: impl FnOnce(&mut AdminApp)) -> App {
        let id = unique("app");
        let origin = format!("https://{id}.invalid");
        let (redirect, logout) = (format!("{origin}/callback"), format!("{origin}/logout"));
        let mut app = AdminApp {
            app_id: id.clone(),
            display_name: format!("The app {id}"),
            redirect_uris: vec![redirect.clone()],
            logout_uris: vec![logout.clone()],
            ..Default::default()
        };
        change(&mut app);
        let id = app.app_id.clone();
        let request = self.as_admin(CreateAppRequest { app: Some(app), secret: String::new() }).await;
        let secret = self.apps().create_app(request).await.expect("an app can be made").into_inner().secret;
        self.remember([("secret", secret.clone())]);
        App { id, secret, redirect, logout }
    }

    /// A new user.
    pub(crate) async fn user(&self) -> User {
        self.user_with(|_| {}).await
    }

    /// A new user, changed by `change`.
    pub(crate) async fn user_with(&self, change: impl FnOnce(&mut AdminUser)) -> User {
        let name = unique("user");
        let password = format!("the password of {name}");
        let mut user = AdminUser {
            user_name: name.clone(),
            person_code: format!("P-{name}"),
            company_code: format!("C-{name}"),
            ..Default::default()
        };
        change(&mut user);
        let name = user.user_name.clone();
        let request = self.as_admin(CreateUserRequest { user: Some(user), password: password.clone(), password_hash: String::new() }).await;
        let made = self.users().create_user(request).await.expect("a user can be made").into_inner().user.expect("the user that was made");
        self.remember([("password", password.clone())]);
        User { id: made.user_id, name, password }
    }

    pub(crate) async fn disable_user(&self, user: &User) {
        let request = self.as_admin(DisableUserRequest { name: format!("users/{}", user.id) }).await;
        self.users().disable_user(request).await.expect("a user can be disabled");
    }
}
