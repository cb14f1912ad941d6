//! What can be imported, and the requests that its lines become.

use tonic::{Response, Status, Streaming};

use super::{
    line::{Fields, Mistake},
    steps::Steps,
};
use crate::{
    cli::{apps::rights_that_need_a_date, connection::Admin},
    grpc::pb::supos::auth::admin::v1::{
        self as pb, CreateAppRequest, CreateUserRequest, ImportAppsRequest, ImportAppsResponse, ImportOptions, ImportUsersRequest,
        ImportUsersResponse, import_apps_request::Step as AppStep, import_users_request::Step as UserStep,
    },
};

/// A kind of thing that can be imported.
pub(crate) trait Kind: 'static {
    /// One of it.
    const ONE: &'static str;
    /// The field of a line that must differ from every other line's.
    const ID: &'static str;
    /// The fields that a line may have.
    const FIELDS: &'static [&'static str];
    /// What those still need that came without a secret.
    const WITHOUT_SECRET: &'static str;
    /// A message of the call.
    type Request: Send + 'static;
    /// An answer of the call.
    type Answer: Into<Checked>;

    /// The first message.
    fn options(validate_only: bool) -> Self::Request;

    /// The message of one line.
    fn parse(fields: Fields) -> Result<Item<Self::Request>, Mistake>;

    /// Starts the call.
    async fn call(admin: &Admin, steps: Steps<Self::Request>) -> Result<Response<Streaming<Self::Answer>>, Status>;
}

/// A line that is well.
#[derive(Debug)]
pub(crate) struct Item<R> {
    pub(super) id: String,
    pub(super) has_secret: bool,
    /// Whether it is an app with rights that its signatures do not carry.
    pub(super) has_rights_out_of_reach: bool,
    pub(super) request: R,
}

/// How far the service has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Checked {
    pub(super) checked: u64,
    pub(super) stored: u64,
}

/// Apps.
pub(crate) struct Apps;

impl Kind for Apps {
    const ONE: &'static str = "app";
    const ID: &'static str = "appId";
    const FIELDS: &'static [&'static str] = &[
        "appId",
        "secret",
        "displayName",
        "redirectUris",
        "logoutUris",
        "refreshRequiresAppCredential",
        "enabled",
        "rights",
        "signatureRequiresDate",
    ];
    const WITHOUT_SECRET: &'static str = "in the file had no secret: make one that you can see with `supos-auth app secret add`";
    type Request = ImportAppsRequest;
    type Answer = ImportAppsResponse;

    fn options(validate_only: bool) -> ImportAppsRequest {
        ImportAppsRequest { step: Some(AppStep::Options(ImportOptions { validate_only })) }
    }

    fn parse(mut fields: Fields) -> Result<Item<ImportAppsRequest>, Mistake> {
        let app = pb::App {
            app_id: fields.required_text("appId")?,
            display_name: fields.text("displayName")?,
            redirect_uris: fields.required_texts("redirectUris")?,
            logout_uris: fields.texts("logoutUris")?,
            enabled: Some(fields.flag_or("enabled", true)?),
            refresh_requires_app_credential: fields.flag_or("refreshRequiresAppCredential", false)?,
            rights: fields.texts("rights")?,
            signature_requires_date: fields.flag_or("signatureRequiresDate", false)?,
            ..pb::App::default()
        };
        let secret = fields.text("secret")?;
        Ok(Item {
            id: app.app_id.clone(),
            has_secret: !secret.is_empty(),
            has_rights_out_of_reach: !app.signature_requires_date && !rights_that_need_a_date(&app.rights).is_empty(),
            request: ImportAppsRequest { step: Some(AppStep::App(CreateAppRequest { app: Some(app), secret })) },
        })
    }

    async fn call(admin: &Admin, steps: Steps<ImportAppsRequest>) -> Result<Response<Streaming<ImportAppsResponse>>, Status> {
        admin.apps().import_apps(steps).await
    }
}

/// Users.
pub(crate) struct Users;

impl Kind for Users {
    const ONE: &'static str = "user";
    const ID: &'static str = "userName";
    const FIELDS: &'static [&'static str] =
        &["userName", "password", "passwordHash", "personCode", "companyCode", "accountType", "enabled", "rights"];
    const WITHOUT_SECRET: &'static str = "in the file had no password: let them in with `supos-auth user reset-password`";
    type Request = ImportUsersRequest;
    type Answer = ImportUsersResponse;

    fn options(validate_only: bool) -> ImportUsersRequest {
        ImportUsersRequest { step: Some(UserStep::Options(ImportOptions { validate_only })) }
    }

    fn parse(mut fields: Fields) -> Result<Item<ImportUsersRequest>, Mistake> {
        let user = pb::User {
            user_name: fields.required_text("userName")?,
            person_code: fields.text("personCode")?,
            company_code: fields.text("companyCode")?,
            account_type: fields.small_number("accountType")?,
            rights: fields.texts("rights")?,
            enabled: Some(fields.flag_or("enabled", true)?),
            ..pb::User::default()
        };
        let password = fields.text("password")?;
        let password_hash = fields.text("passwordHash")?;
        if !password.is_empty() && !password_hash.is_empty() {
            return Err(Mistake::of_field("passwordHash", "stands beside password; give one of the two"));
        }
        Ok(Item {
            id: user.user_name.clone(),
            has_secret: !password.is_empty() || !password_hash.is_empty(),
            has_rights_out_of_reach: false,
            request: ImportUsersRequest { step: Some(UserStep::User(CreateUserRequest { user: Some(user), password, password_hash })) },
        })
    }

    async fn call(admin: &Admin, steps: Steps<ImportUsersRequest>) -> Result<Response<Streaming<ImportUsersResponse>>, Status> {
        admin.users().import_users(steps).await
    }
}

impl From<ImportAppsResponse> for Checked {
    fn from(answer: ImportAppsResponse) -> Self {
        Self::from_numbers(answer.checked, answer.stored)
    }
}

impl From<ImportUsersResponse> for Checked {
    fn from(answer: ImportUsersResponse) -> Self {
        Self::from_numbers(answer.checked, answer.stored)
    }
}

impl Checked {
    fn from_numbers(checked: i64, stored: i64) -> Self {
        let number = |number| u64::try_from(number).unwrap_or_default();
        Self { checked: number(checked), stored: number(stored) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<K: Kind>(line: &str) -> Result<Item<K::Request>, Mistake> {
        Fields::parse(line.as_bytes(), K::FIELDS).and_then(K::parse)
    }

    #[test]
    fn an_app_line_becomes_a_request() {
        let line = r#"{"appId": "shop", "secret": "s", "displayName": "Shop", "redirectUris": ["https://a/*"], "logoutUris": ["https://a/out"],
            "refreshRequiresAppCredential": true, "enabled": false, "rights": ["admin"], "signatureRequiresDate": true}"#;
        let app = pb::App {
            app_id: "shop".to_owned(),
            display_name: "Shop".to_owned(),
            redirect_uris: vec!["https://a/*".to_owned()],
            logout_uris: vec!["https://a/out".to_owned()],
            refresh_requires_app_credential: true,
            enabled: Some(false),
            rights: vec!["admin".to_owned()],
            signature_requires_date: true,
            ..pb::App::default()
        };
        let request = CreateAppRequest { app: Some(app), secret: "s".to_owned() };
        let item = parse::<Apps>(line).unwrap();
        assert_eq!(item.request, ImportAppsRequest { step: Some(AppStep::App(request)) });
        assert!(item.has_secret && item.id == "shop" && !item.has_rights_out_of_reach);
        let without_date = |right: &str| format!(r#"{{"appId": "shop", "redirectUris": ["https://a/*"], "rights": ["{right}"]}}"#);
        assert!(parse::<Apps>(&without_date("admin")).unwrap().has_rights_out_of_reach);
        assert!(!parse::<Apps>(&without_date("sessions.end")).unwrap().has_rights_out_of_reach);
    }

    #[test]
    fn a_user_line_becomes_a_request() {
        let line = r#"{"userName": "a", "passwordHash": "$argon2id$", "personCode": "P", "companyCode": "C", "accountType": 1,
            "rights": ["sessions.end"]}"#;
        let user = pb::User {
            user_name: "a".to_owned(),
            person_code: "P".to_owned(),
            company_code: "C".to_owned(),
            account_type: 1,
            enabled: Some(true),
            rights: vec!["sessions.end".to_owned()],
            ..pb::User::default()
        };
        let request = CreateUserRequest { user: Some(user), password: String::new(), password_hash: "$argon2id$".to_owned() };
        let item = parse::<Users>(line).unwrap();
        assert_eq!(item.request, ImportUsersRequest { step: Some(UserStep::User(request)) });
        assert!(!parse::<Users>(r#"{"userName": "a"}"#).unwrap().has_secret);
    }

    #[test]
    fn every_field_is_known_and_read() {
        assert_eq!(parse::<Apps>(r#"{"appId": "a"}"#).unwrap_err().to_string(), "redirectUris: is required");
        assert_eq!(
            parse::<Users>(r#"{"userName": "a", "password": "b", "passwordHash": "c"}"#).unwrap_err().to_string(),
            "passwordHash: stands beside password; give one of the two"
        );
        let app = r#"{"appId": "a", "redirectUris": ["b"]"#;
        for field in &Apps::FIELDS[1..] {
            let line = if *field == "redirectUris" {
                r#"{"appId": "a", "redirectUris": {}}"#.to_owned()
            } else {
                format!("{app}, \"{field}\": {{}}}}")
            };
            assert!(parse::<Apps>(&line).unwrap_err().to_string().starts_with(&format!("{field}: must be ")), "{field}");
        }
        for field in &Users::FIELDS[1..] {
            let line = format!("{{\"userName\": \"a\", \"{field}\": {{}}}}");
            assert!(parse::<Users>(&line).unwrap_err().to_string().starts_with(&format!("{field}: must be ")), "{field}");
        }
    }
}
