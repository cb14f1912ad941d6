//! `supos.auth.admin.v1.UserService`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::{administered, import, masked, page_size, page_token, pb, read_page_token, user_id};
use crate::{
    caller::Caller,
    core::{
        Core, Error, Problem,
        ids::UserId,
        model::User,
        rights::Rights,
        secret::Secret,
        users::{NewCredential, NewUser, PasswordOwner, UserSpec},
    },
    grpc::{convert::timestamp, gate::Gate},
};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Gate);

fn spec(user: &pb::User) -> Result<UserSpec, Error> {
    Ok(UserSpec {
        person_code: user.person_code.clone(),
        company_code: user.company_code.clone(),
        account_type: user.account_type,
        rights: Rights::of_names(user.rights.iter().map(String::as_str)).map_err(|error| error.within("user"))?,
    })
}

/// The user that a request wants made. `otherwise` is how he proves who he is when the request does not say.
pub(super) fn new_user(request: pb::CreateUserRequest, otherwise: NewCredential) -> Result<NewUser, Error> {
    let user = request.user.ok_or_else(|| Error::parameter("user", Problem::Missing))?;
    let credential = match (request.password, request.password_hash) {
        (password, hash) if hash.is_empty() && password.is_empty() => otherwise,
        (password, hash) if hash.is_empty() => NewCredential::Password(Secret::new(password)),
        (password, hash) if password.is_empty() => NewCredential::Hash(hash),
        _ => return Err(Error::parameter("password_hash", Problem::Ambiguous)),
    };
    Ok(NewUser { spec: spec(&user)?, name: user.user_name, credential, enabled: user.enabled.unwrap_or(true) })
}

fn message(user: User) -> pb::User {
    pb::User {
        name: format!("users/{}", user.id),
        user_id: user.id.to_string(),
        user_name: user.name,
        person_code: user.person_code,
        company_code: user.company_code,
        account_type: user.account_type.into(),
        enabled: Some(user.enabled),
        password_change_required: user.password_change_required,
        create_time: Some(timestamp(user.created_at)),
        update_time: Some(timestamp(user.updated_at)),
        rights: user.rights.names().map(str::to_owned).collect(),
    }
}

async fn id_of(core: &Core, name: &str) -> Result<UserId, Error> {
    user_id(core, "name", name).await
}

async fn set_enabled(core: Arc<Core>, name: String, enabled: bool) -> Result<Option<pb::User>, Error> {
    let id = id_of(&core, &name).await?;
    let user = core
        .update_user(id, move |user| {
            user.enabled = enabled;
            Ok(())
        })
        .await?;
    Ok(Some(message(user)))
}

async fn create_user(core: Arc<Core>, request: pb::CreateUserRequest) -> Result<pb::CreateUserResponse, Error> {
    let one_time = Secret::random()?;
    let new = new_user(request, NewCredential::OneTime(one_time.clone()))?;
    let made = matches!(new.credential, NewCredential::OneTime(_));
    let user = core.create_user(new).await?;
    let one_time_password = if made { one_time.expose().to_owned() } else { String::new() };
    Ok(pb::CreateUserResponse { user: Some(message(user)), one_time_password })
}

async fn get_user(core: Arc<Core>, request: pb::GetUserRequest) -> Result<pb::GetUserResponse, Error> {
    let user = core.store.user(id_of(&core, &request.name).await?).await?.ok_or(Error::NotFound("user"))?;
    Ok(pb::GetUserResponse { user: Some(message(user)) })
}

async fn list_users(core: Arc<Core>, request: pb::ListUsersRequest) -> Result<pb::ListUsersResponse, Error> {
    let size = page_size(request.page_size)?;
    let mut users = core.store.users(read_page_token(&request.page_token)?, size + 1).await?;
    let more = users.len() > size;
    users.truncate(size);
    let next_page_token = users.last().filter(|_| more).map(|user| page_token(&user.name)).unwrap_or_default();
    Ok(pb::ListUsersResponse { users: users.into_iter().map(message).collect(), next_page_token })
}

async fn update_user(core: Arc<Core>, request: pb::UpdateUserRequest) -> Result<pb::UpdateUserResponse, Error> {
    let user = request.user.ok_or_else(|| Error::parameter("user", Problem::Missing))?;
    let known = ["person_code", "company_code", "account_type", "rights"];
    let paths: Vec<String> = masked(request.update_mask.as_ref(), &known)?.into_iter().map(str::to_owned).collect();
    let id = user_id(&core, "user.name", &user.name).await?;
    let asked = spec(&user)?;
    let updated = core
        .update_user(id, move |user| {
            let has = |path: &str| paths.iter().any(|asked| asked == path);
            let mut new = UserSpec {
                person_code: user.person_code.clone(),
                company_code: user.company_code.clone(),
                account_type: user.account_type.into(),
                rights: user.rights.clone(),
            };
            let UserSpec { person_code, company_code, account_type, rights } = asked.clone();
            if has("person_code") {
                new.person_code = person_code;
            }
            if has("company_code") {
                new.company_code = company_code;
            }
            if has("account_type") {
                new.account_type = account_type;
            }
            if has("rights") {
                new.rights = rights;
            }
            user.account_type = new.check().map_err(|error| error.within("user"))?;
            user.person_code = new.person_code;
            user.company_code = new.company_code;
            user.rights = new.rights;
            Ok(())
        })
        .await?;
    Ok(pb::UpdateUserResponse { user: Some(message(updated)) })
}

async fn delete_user(core: Arc<Core>, request: pb::DeleteUserRequest) -> Result<pb::DeleteUserResponse, Error> {
    core.store.delete_user(id_of(&core, &request.name).await?, core.now()).await?;
    Ok(pb::DeleteUserResponse {})
}

async fn enable_user(core: Arc<Core>, request: pb::EnableUserRequest) -> Result<pb::EnableUserResponse, Error> {
    Ok(pb::EnableUserResponse { user: set_enabled(core, request.name, true).await? })
}

async fn disable_user(core: Arc<Core>, request: pb::DisableUserRequest) -> Result<pb::DisableUserResponse, Error> {
    Ok(pb::DisableUserResponse { user: set_enabled(core, request.name, false).await? })
}

async fn set_password(core: Arc<Core>, request: pb::SetPasswordRequest) -> Result<pb::SetPasswordResponse, Error> {
    core.set_password(id_of(&core, &request.name).await?, Secret::new(request.password)).await?;
    Ok(pb::SetPasswordResponse {})
}

async fn reset_password(core: Arc<Core>, request: pb::ResetPasswordRequest) -> Result<pb::ResetPasswordResponse, Error> {
    let password = core.reset_password(id_of(&core, &request.name).await?).await?;
    Ok(pb::ResetPasswordResponse { one_time_password: password.expose().to_owned() })
}

/// For any user: whoever shows no session shows his name and the password that is in force.
async fn change_own_password(core: &Core, caller: &Caller, request: pb::ChangePasswordRequest) -> Result<(), Error> {
    let owner = match caller.user() {
        Ok(known) => PasswordOwner::InSession(known.signed_in.user.id, known.signed_in.session.id),
        Err(Error::CredentialRequired) if request.user_name.is_empty() => return Err(Error::parameter("user_name", Problem::Missing)),
        Err(Error::CredentialRequired) => PasswordOwner::Named(request.user_name),
        Err(error) => return Err(error),
    };
    if request.current_password.is_empty() {
        return Err(Error::parameter("current_password", Problem::Missing));
    }
    let (current, new) = (Secret::new(request.current_password), Secret::new(request.new_password));
    core.change_password(owner, current, new, request.keep_other_sessions, caller.source()).await
}

administered! {
    pb::user_service_server::UserService, "/supos.auth.admin.v1.UserService/", {
        create_user(CreateUserRequest) -> CreateUserResponse = "CreateUser";
        get_user(GetUserRequest) -> GetUserResponse = "GetUser";
        list_users(ListUsersRequest) -> ListUsersResponse = "ListUsers";
        update_user(UpdateUserRequest) -> UpdateUserResponse = "UpdateUser";
        delete_user(DeleteUserRequest) -> DeleteUserResponse = "DeleteUser";
        enable_user(EnableUserRequest) -> EnableUserResponse = "EnableUser";
        disable_user(DisableUserRequest) -> DisableUserResponse = "DisableUser";
        set_password(SetPasswordRequest) -> SetPasswordResponse = "SetPassword";
        reset_password(ResetPasswordRequest) -> ResetPasswordResponse = "ResetPassword";
    }

    async fn change_password(&self, request: Request<pb::ChangePasswordRequest>) -> Result<Response<pb::ChangePasswordResponse>, Status> {
        let work = async |core: Arc<Core>, caller: Caller, request| {
            change_own_password(&core, &caller, request).await?;
            Ok(pb::ChangePasswordResponse {})
        };
        self.0.serve_admin("/supos.auth.admin.v1.UserService/ChangePassword", request, work).await
    }

    type ImportUsersStream = import::Progress<pb::ImportUsersResponse>;

    async fn import_users(&self, request: Request<Streaming<pb::ImportUsersRequest>>) -> Result<Response<Self::ImportUsersStream>, Status> {
        import::serve::<import::Users>(&self.0, "/supos.auth.admin.v1.UserService/ImportUsers", request).await
    }
}
