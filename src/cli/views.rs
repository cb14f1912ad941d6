//! The API's objects as they are printed: JSON as proto3 JSON has it (every field, but for a time that is not set), tables in words.

use prost_types::Timestamp;
use serde::Serialize;

use super::{apps::rights_that_need_a_date, failure::Failure, names, output::Record};
use crate::grpc::pb::supos::auth::admin::v1 as pb;

/// Takes an object out of an answer that must hold it.
pub(crate) trait Received<M>: From<M> {
    fn received(message: Option<M>) -> Result<Self, Failure> {
        message.map(Self::from).ok_or_else(|| Failure::new("the service's answer lacks what was asked for"))
    }
}

impl<M, V: From<M>> Received<M> for V {}

/// An RFC 3339 time, or none.
pub(crate) type Time = Option<String>;

pub(crate) fn time(time: Option<Timestamp>) -> Time {
    time.map(|time| time.to_string())
}

/// A time for people: whole seconds.
pub(crate) fn shown(time: &Time) -> String {
    let text = time.as_deref().unwrap_or_default();
    text.split_once('.').map_or_else(|| text.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

pub(crate) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// An app.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are the API's")]
pub(crate) struct App {
    name: String,
    app_id: String,
    display_name: String,
    redirect_uris: Vec<String>,
    logout_uris: Vec<String>,
    enabled: bool,
    refresh_requires_app_credential: bool,
    secrets: Vec<AppSecret>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_time: Time,
    rights: Vec<String>,
    signature_requires_date: bool,
}

impl App {
    /// The rights that it cannot use as long as its signatures need no date, for people to read.
    pub(crate) fn rights_out_of_reach(&self) -> Option<String> {
        let rights = rights_that_need_a_date(&self.rights);
        (!self.signature_requires_date && !rights.is_empty()).then(|| rights.join(" and "))
    }
}

impl From<pb::App> for App {
    fn from(app: pb::App) -> Self {
        Self {
            name: app.name,
            app_id: app.app_id,
            display_name: app.display_name,
            redirect_uris: app.redirect_uris,
            logout_uris: app.logout_uris,
            enabled: app.enabled.unwrap_or_default(),
            refresh_requires_app_credential: app.refresh_requires_app_credential,
            secrets: app.secrets.into_iter().map(AppSecret::from).collect(),
            create_time: time(app.create_time),
            update_time: time(app.update_time),
            rights: app.rights,
            signature_requires_date: app.signature_requires_date,
        }
    }
}

impl Record for App {
    const COLUMNS: &'static [&'static str] = &["app id", "display name", "enabled", "rights", "secrets", "redirect URIs", "changed"];

    fn details(&self) -> Vec<(&'static str, String)> {
        let secrets: Vec<String> = self.secrets.iter().map(AppSecret::in_words).collect();
        vec![
            ("app id", self.app_id.clone()),
            ("display name", self.display_name.clone()),
            ("enabled", yes_no(self.enabled)),
            ("redirect URIs", self.redirect_uris.join("\n")),
            ("logout URIs", self.logout_uris.join("\n")),
            ("refresh needs the app's credential", yes_no(self.refresh_requires_app_credential)),
            ("rights", self.rights.join("\n")),
            ("signature needs a date", yes_no(self.signature_requires_date)),
            ("secrets", secrets.join("\n")),
            ("made", shown(&self.create_time)),
            ("changed", shown(&self.update_time)),
        ]
    }
}

/// A secret of an app, without its value.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppSecret {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Time,
    short: bool,
}

impl AppSecret {
    /// The secret's id, and that it is short, which people should see in every list.
    fn in_words(&self) -> String {
        format!("{}{}", names::id(&self.name), if self.short { ", short: replace it" } else { "" })
    }
}

impl From<pb::AppSecret> for AppSecret {
    fn from(secret: pb::AppSecret) -> Self {
        Self { name: secret.name, create_time: time(secret.create_time), short: secret.short }
    }
}

impl Record for AppSecret {
    const COLUMNS: &'static [&'static str] = &["secret id", "added"];

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![("secret id", self.in_words()), ("added", shown(&self.create_time))]
    }
}

/// What an app still does that it should do no more. Counts are strings, as proto3 JSON has numbers of 64 bits.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppUsage {
    app: String,
    deprecated_calls: Vec<DeprecatedCalls>,
    undated_signatures: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_undated_signature_time: Time,
}

/// An app's calls of one deprecated operation.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeprecatedCalls {
    operation: String,
    calls: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_call_time: Time,
}

impl From<pb::AppUsage> for AppUsage {
    fn from(usage: pb::AppUsage) -> Self {
        let deprecated_calls = usage.deprecated_calls.into_iter().map(|calls| DeprecatedCalls {
            operation: calls.operation,
            calls: calls.calls.to_string(),
            last_call_time: time(calls.last_call_time),
        });
        Self {
            app: usage.app,
            deprecated_calls: deprecated_calls.collect(),
            undated_signatures: usage.undated_signatures.to_string(),
            last_undated_signature_time: time(usage.last_undated_signature_time),
        }
    }
}

impl AppUsage {
    /// One row for each thing that the app does.
    pub(crate) fn rows(&self) -> Vec<UsageRow> {
        let row = |what: &str, times: &str, last: &Time| UsageRow {
            app_id: self.app.strip_prefix("apps/").unwrap_or(&self.app).to_owned(),
            what: what.to_owned(),
            times: times.to_owned(),
            last: shown(last),
        };
        let mut rows: Vec<UsageRow> =
            self.deprecated_calls.iter().map(|calls| row(&calls.operation, &calls.calls, &calls.last_call_time)).collect();
        if self.undated_signatures != "0" {
            rows.push(row("signature without a date", &self.undated_signatures, &self.last_undated_signature_time));
        }
        rows
    }
}

/// One thing that an app does, for people.
#[derive(Debug, Serialize)]
pub(crate) struct UsageRow {
    app_id: String,
    what: String,
    times: String,
    last: String,
}

impl Record for UsageRow {
    const COLUMNS: &'static [&'static str] = &["app id", "what", "times", "last"];

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![("app id", self.app_id.clone()), ("what", self.what.clone()), ("times", self.times.clone()), ("last", self.last.clone())]
    }
}

/// A user.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are the API's")]
pub(crate) struct User {
    name: String,
    user_id: String,
    user_name: String,
    person_code: String,
    company_code: String,
    account_type: i32,
    enabled: bool,
    password_change_required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_time: Time,
    rights: Vec<String>,
}

impl From<pb::User> for User {
    fn from(user: pb::User) -> Self {
        Self {
            name: user.name,
            user_id: user.user_id,
            user_name: user.user_name,
            person_code: user.person_code,
            company_code: user.company_code,
            account_type: user.account_type,
            enabled: user.enabled.unwrap_or_default(),
            password_change_required: user.password_change_required,
            create_time: time(user.create_time),
            update_time: time(user.update_time),
            rights: user.rights,
        }
    }
}

impl Record for User {
    const COLUMNS: &'static [&'static str] =
        &["user name", "user id", "person code", "company code", "account type", "rights", "enabled", "password"];

    fn details(&self) -> Vec<(&'static str, String)> {
        let account_type = if self.account_type == 1 { "1 (administrator)".to_owned() } else { self.account_type.to_string() };
        vec![
            ("user name", self.user_name.clone()),
            ("user id", self.user_id.clone()),
            ("person code", self.person_code.clone()),
            ("company code", self.company_code.clone()),
            ("account type", account_type),
            ("rights", self.rights.join("\n")),
            ("enabled", yes_no(self.enabled)),
            ("password", if self.password_change_required { "must be changed" } else { "" }.to_owned()),
            ("made", shown(&self.create_time)),
            ("changed", shown(&self.update_time)),
        ]
    }
}

/// A session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Session {
    name: String,
    user: String,
    user_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Time,
    apps: Vec<String>,
}

impl From<pb::Session> for Session {
    fn from(session: pb::Session) -> Self {
        Self {
            name: session.name,
            user: session.user,
            user_name: session.user_name,
            create_time: time(session.create_time),
            last_used_time: time(session.last_used_time),
            expire_time: time(session.expire_time),
            apps: session.apps,
        }
    }
}

impl Record for Session {
    const COLUMNS: &'static [&'static str] = &["session id", "user name", "signed in", "last used", "ends", "apps"];

    fn details(&self) -> Vec<(&'static str, String)> {
        let apps: Vec<&str> = self.apps.iter().map(|app| app.strip_prefix("apps/").unwrap_or(app)).collect();
        vec![
            ("session id", names::id(&self.name).to_owned()),
            ("user name", self.user_name.clone()),
            ("signed in", shown(&self.create_time)),
            ("last used", shown(&self.last_used_time)),
            ("ends", shown(&self.expire_time)),
            ("apps", apps.join("\n")),
        ]
    }
}

/// A call that tells an app that a session has ended, and that has not been delivered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogoutDelivery {
    name: String,
    app: String,
    uri: String,
    user: String,
    session: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Time,
    tries: i32,
    last_error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_try_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    give_up_time: Time,
}

impl From<pb::LogoutDelivery> for LogoutDelivery {
    fn from(delivery: pb::LogoutDelivery) -> Self {
        Self {
            state: delivery.state().as_str_name(),
            name: delivery.name,
            app: delivery.app,
            uri: delivery.uri,
            user: delivery.user,
            session: delivery.session,
            create_time: time(delivery.create_time),
            tries: delivery.tries,
            last_error: delivery.last_error,
            next_try_time: time(delivery.next_try_time),
            give_up_time: time(delivery.give_up_time),
        }
    }
}

impl Record for LogoutDelivery {
    const COLUMNS: &'static [&'static str] = &["app", "address", "session id", "ended", "tries", "last error", "next try"];

    fn details(&self) -> Vec<(&'static str, String)> {
        let next = match &self.give_up_time {
            Some(_) => format!("given up {}", shown(&self.give_up_time)),
            None => shown(&self.next_try_time),
        };
        vec![
            ("jti", names::id(&self.name).to_owned()),
            // An app's id may hold a slash.
            ("app", self.app.strip_prefix("apps/").unwrap_or(&self.app).to_owned()),
            ("address", self.uri.clone()),
            ("user id", names::id(&self.user).to_owned()),
            ("session id", names::id(&self.session).to_owned()),
            ("ended", shown(&self.create_time)),
            ("tries", self.tries.to_string()),
            ("last error", self.last_error.clone()),
            ("next try", next),
        ]
    }
}

/// A key that tokens are signed with.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SigningKey {
    name: String,
    kid: String,
    algorithm: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    activate_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    retire_time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Time,
}

impl From<pb::SigningKey> for SigningKey {
    fn from(key: pb::SigningKey) -> Self {
        Self {
            state: key.state().as_str_name(),
            name: key.name,
            kid: key.kid,
            algorithm: key.algorithm,
            create_time: time(key.create_time),
            activate_time: time(key.activate_time),
            retire_time: time(key.retire_time),
            expire_time: time(key.expire_time),
        }
    }
}

impl Record for SigningKey {
    const COLUMNS: &'static [&'static str] = &["kid", "algorithm", "state", "made", "signs from", "retired", "goes"];

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("kid", self.kid.clone()),
            ("algorithm", self.algorithm.clone()),
            ("state", self.state.trim_start_matches("SIGNING_KEY_STATE_").to_ascii_lowercase()),
            ("made", shown(&self.create_time)),
            ("signs from", shown(&self.activate_time)),
            ("retired", shown(&self.retire_time)),
            ("goes", shown(&self.expire_time)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;

    fn at(seconds: i64, nanos: i32) -> Timestamp {
        Timestamp { seconds, nanos }
    }

    #[test]
    fn an_app_is_printed_as_the_api_has_it() {
        let app = App::from(pb::App {
            name: "apps/shop".to_owned(),
            app_id: "shop".to_owned(),
            display_name: "Shop".to_owned(),
            redirect_uris: vec!["https://shop.example/cb".to_owned()],
            logout_uris: vec!["https://shop.example/out".to_owned()],
            enabled: Some(true),
            refresh_requires_app_credential: true,
            secrets: vec![pb::AppSecret { name: "apps/shop/secrets/1".to_owned(), create_time: Some(at(0, 0)), short: true }],
            create_time: Some(at(1_700_000_000, 123_000_000)),
            update_time: None,
            rights: vec!["admin".to_owned(), "tokens.inspect".to_owned()],
            signature_requires_date: true,
        });
        assert_eq!(
            to_value(&app).unwrap(),
            json!({
                "name": "apps/shop", "appId": "shop", "displayName": "Shop", "redirectUris": ["https://shop.example/cb"],
                "logoutUris": ["https://shop.example/out"], "enabled": true, "refreshRequiresAppCredential": true,
                "secrets": [{"name": "apps/shop/secrets/1", "createTime": "1970-01-01T00:00:00Z", "short": true}],
                "createTime": "2023-11-14T22:13:20.123Z", "rights": ["admin", "tokens.inspect"], "signatureRequiresDate": true,
            })
        );
        let details = app.details();
        assert!(details.contains(&("secrets", "1, short: replace it".to_owned())), "{details:?}");
        assert!(details.contains(&("made", "2023-11-14T22:13:20Z".to_owned())), "{details:?}");
        assert!(details.contains(&("rights", "admin\ntokens.inspect".to_owned())), "{details:?}");
        assert!(details.contains(&("signature needs a date", "yes".to_owned())), "{details:?}");
    }

    #[test]
    fn rights_that_need_a_date_are_out_of_reach_without_one() {
        let out_of_reach = |rights: &[&str], signature_requires_date| {
            let rights = rights.iter().map(|right| (*right).to_owned()).collect();
            App::from(pb::App { rights, signature_requires_date, ..pb::App::default() }).rights_out_of_reach()
        };
        assert_eq!(out_of_reach(&["tokens.inspect", "codes.any_app"], false), None);
        assert_eq!(out_of_reach(&["tokens.inspect", "admin"], false).as_deref(), Some("admin"));
        assert_eq!(out_of_reach(&["identity_providers.write", "admin"], false).as_deref(), Some("admin and identity_providers.write"));
        assert_eq!(out_of_reach(&["admin"], true), None);
    }

    #[test]
    fn what_an_app_still_does_has_a_row_for_each_thing() {
        let calls = |operation: &str, calls| pb::DeprecatedCalls { operation: operation.to_owned(), calls, last_call_time: Some(at(1, 5)) };
        let usage = AppUsage::from(pb::AppUsage {
            app: "apps/a/b".to_owned(),
            deprecated_calls: vec![calls("v1.Token", 2), calls("v281.SignOut", 1)],
            undated_signatures: 3,
            last_undated_signature_time: Some(at(2, 0)),
        });
        assert_eq!(
            to_value(&usage).unwrap(),
            json!({
                "app": "apps/a/b", "undatedSignatures": "3", "lastUndatedSignatureTime": "1970-01-01T00:00:02Z",
                "deprecatedCalls": [
                    {"operation": "v1.Token", "calls": "2", "lastCallTime": "1970-01-01T00:00:01.000000005Z"},
                    {"operation": "v281.SignOut", "calls": "1", "lastCallTime": "1970-01-01T00:00:01.000000005Z"},
                ],
            })
        );
        let rows: Vec<[String; 4]> = usage.rows().into_iter().map(|row| [row.app_id, row.what, row.times, row.last]).collect();
        assert_eq!(
            rows,
            [
                ["a/b", "v1.Token", "2", "1970-01-01T00:00:01Z"],
                ["a/b", "v281.SignOut", "1", "1970-01-01T00:00:01Z"],
                ["a/b", "signature without a date", "3", "1970-01-01T00:00:02Z"],
            ]
        );
        assert!(AppUsage::from(pb::AppUsage::default()).rows().is_empty());
    }

    #[test]
    fn a_user_is_printed_with_every_default() {
        let user =
            User::from(pb::User { user_name: "a".to_owned(), account_type: 1, password_change_required: true, ..pb::User::default() });
        assert_eq!(
            to_value(&user).unwrap(),
            json!({
                "name": "", "userId": "", "userName": "a", "personCode": "", "companyCode": "", "accountType": 1, "enabled": false,
                "passwordChangeRequired": true, "rights": [],
            })
        );
        assert!(user.details().contains(&("account type", "1 (administrator)".to_owned())));
        assert!(user.details().contains(&("password", "must be changed".to_owned())));
    }

    #[test]
    fn sessions_and_keys_are_printed_as_the_api_has_them() {
        let session = Session::from(pb::Session {
            name: "sessions/s".to_owned(),
            user: "users/u".to_owned(),
            user_name: "a".to_owned(),
            create_time: Some(at(1, 0)),
            last_used_time: Some(at(2, 0)),
            expire_time: Some(at(3, 0)),
            apps: vec!["apps/a/b".to_owned()],
        });
        assert_eq!(
            to_value(&session).unwrap(),
            json!({
                "name": "sessions/s", "user": "users/u", "userName": "a", "createTime": "1970-01-01T00:00:01Z",
                "lastUsedTime": "1970-01-01T00:00:02Z", "expireTime": "1970-01-01T00:00:03Z", "apps": ["apps/a/b"],
            })
        );
        assert!(session.details().contains(&("apps", "a/b".to_owned())));
        let key = SigningKey::from(pb::SigningKey {
            name: "signingKeys/k".to_owned(),
            kid: "k".to_owned(),
            algorithm: "ES256".to_owned(),
            state: pb::SigningKeyState::Active.into(),
            create_time: Some(at(1, 0)),
            activate_time: Some(at(2, 0)),
            retire_time: Some(at(3, 0)),
            expire_time: Some(at(4, 0)),
        });
        assert_eq!(
            to_value(&key).unwrap(),
            json!({
                "name": "signingKeys/k", "kid": "k", "algorithm": "ES256", "state": "SIGNING_KEY_STATE_ACTIVE",
                "createTime": "1970-01-01T00:00:01Z", "activateTime": "1970-01-01T00:00:02Z",
                "retireTime": "1970-01-01T00:00:03Z", "expireTime": "1970-01-01T00:00:04Z",
            })
        );
        assert!(key.details().contains(&("state", "active".to_owned())));
    }

    #[test]
    fn calls_that_are_owed_are_printed_as_the_api_has_them() {
        let owed = pb::LogoutDelivery {
            name: "logoutDeliveries/j".to_owned(),
            app: "apps/a/b".to_owned(),
            uri: "http://a/out".to_owned(),
            user: "users/u".to_owned(),
            session: "sessions/s".to_owned(),
            state: pb::LogoutDeliveryState::Owed.into(),
            create_time: Some(at(1, 0)),
            tries: 2,
            last_error: "no answer within 5 s".to_owned(),
            next_try_time: Some(at(2, 0)),
            give_up_time: None,
        };
        let delivery = LogoutDelivery::from(owed.clone());
        assert_eq!(
            to_value(&delivery).unwrap(),
            json!({
                "name": "logoutDeliveries/j", "app": "apps/a/b", "uri": "http://a/out", "user": "users/u", "session": "sessions/s",
                "state": "LOGOUT_DELIVERY_STATE_OWED", "createTime": "1970-01-01T00:00:01Z", "tries": 2,
                "lastError": "no answer within 5 s", "nextTryTime": "1970-01-01T00:00:02Z",
            })
        );
        assert!(delivery.details().contains(&("app", "a/b".to_owned())));
        let given_up = LogoutDelivery::from(pb::LogoutDelivery { next_try_time: None, give_up_time: Some(at(3, 0)), ..owed });
        assert!(given_up.details().contains(&("next try", "given up 1970-01-01T00:00:03Z".to_owned())));
    }

    #[test]
    fn every_column_is_a_detail() {
        fn check<R: Record>(record: &R) {
            let details = record.details();
            for column in R::COLUMNS {
                assert!(details.iter().any(|(name, _)| name == column), "{column}");
            }
        }
        check(&App::from(pb::App::default()));
        check(&AppSecret::from(pb::AppSecret::default()));
        check(&UsageRow { app_id: String::new(), what: String::new(), times: String::new(), last: String::new() });
        check(&User::from(pb::User::default()));
        check(&Session::from(pb::Session::default()));
        check(&LogoutDelivery::from(pb::LogoutDelivery::default()));
        check(&SigningKey::from(pb::SigningKey::default()));
    }
}
