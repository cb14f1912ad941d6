//! The rows: a call each, and the refusal that it gets.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{App, Call, Case, Fixture, Op, Who, authorize, exchange, refresh, unique, valid};

pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) call: Call,
    /// The refusal; two where the contract leaves open which.
    pub(super) cases: &'static [Case],
    /// The parameter that the message names.
    pub(super) parameter: Option<&'static str>,
}

const PARAMETER: &[Case] = &[Case::Parameter];
const GRANT: &[Case] = &[Case::Grant];
const CALLER: &[Case] = &[Case::Caller];
/// A good credential of the wrong kind: whether that is no caller or one who may not, the contract does not say.
const NOT_HIM: &[Case] = &[Case::Caller, Case::Forbidden];

fn row(what: &'static str, call: Call, cases: &'static [Case]) -> Row {
    Row { what, call, cases, parameter: None }
}

pub(super) fn rows(fixture: &Fixture) -> Vec<Row> {
    [parameters(fixture), apps_and_redirects(fixture), grants(fixture), callers(fixture), sign_ins(fixture)].into_iter().flatten().collect()
}

/// A good call of each operation, and what it cannot do without.
fn good(fixture: &Fixture) -> Vec<(Call, &'static [&'static str])> {
    let ticket = Who::ticket(&fixture.ticket);
    let app = fixture.app.who();
    let access = fixture.tokens.access.as_str();
    vec![
        (exchange(Op::TokenV2, &fixture.app, &fixture.code), &["grantType", "code", "logoutUri"]),
        (exchange(Op::TokenV1, &fixture.app, &fixture.code), &["grantType", "code", "logoutUri"]),
        (exchange(Op::ExchangeV281, &fixture.app, &fixture.code), &["grantType", "appid", "code"]),
        (refresh(Op::TokenV2, &fixture.tokens.refresh).by(app.clone()), &["grantType", "refreshToken"]),
        (refresh(Op::TokenV1, &fixture.tokens.refresh).by(app.clone()), &["grantType", "refreshToken"]),
        (refresh(Op::RefreshV281, &fixture.tokens.refresh).by(app.clone()), &["refreshToken"]),
        (authorize(Op::AuthorizeV281, &fixture.app).by(ticket.clone()), &["responseType", "appid", "redirectUri", "state"]),
        (authorize(Op::Authorize, &fixture.app).by(ticket), &["responseType", "redirectUri", "state"]),
        (Call::new(Op::Username).with("accessToken", access).by(app.clone()), &["accessToken"]),
        (Call::new(Op::SignOutV281).with("accessToken", access).by(app), &["accessToken"]),
        (Call::new(Op::SignIn).with("userName", &fixture.user.name).with("password", &fixture.user.password), &["userName", "password"]),
    ]
}

fn parameters(fixture: &Fixture) -> Vec<Row> {
    let mut rows = Vec::new();
    for (call, required) in good(fixture) {
        for name in required {
            let of = |what, value| Row { what, call: call.clone().but(name, value), cases: PARAMETER, parameter: Some(name) };
            rows.extend([of("a required parameter is missing", None), of("a required parameter is empty", Some(""))]);
        }
    }
    rows.push(row("a token is empty", valid("").by(fixture.app.who()), PARAMETER));
    for op in Op::EXCHANGES {
        for value in [
            "password",
            "client_credentials",
            "implicit",
            "AUTHORIZATION_CODE",
            "authorization_code ",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
        ] {
            let call = exchange(op, &fixture.app, &fixture.code).but("grantType", Some(value));
            rows.push(Row { what: "a grant type that is not offered", call, cases: PARAMETER, parameter: Some("grantType") });
        }
    }
    let call = exchange(Op::ExchangeV281, &fixture.app, &fixture.code).but("grantType", Some("refresh_token"));
    rows.push(Row { what: "a grant type of another operation", call, cases: PARAMETER, parameter: Some("grantType") });
    for op in Op::AUTHORIZES {
        for value in ["token", "id_token", "code token", "CODE", "none"] {
            let call = authorize(op, &fixture.app).but("responseType", Some(value)).by(Who::ticket(&fixture.ticket));
            rows.push(Row { what: "a response type that is not offered", call, cases: PARAMETER, parameter: Some("responseType") });
        }
        let call = authorize(op, &fixture.app).with("scope", "word ".repeat(205)).by(Who::ticket(&fixture.ticket));
        rows.push(Row { what: "a scope over 1 KiB", call, cases: PARAMETER, parameter: Some("scope") });
    }
    rows
}

fn apps_and_redirects(fixture: &Fixture) -> Vec<Row> {
    let mut rows = Vec::new();
    for op in Op::AUTHORIZES {
        let call = authorize(op, &fixture.app).by(Who::ticket(&fixture.ticket));
        rows.extend([
            row("an app that is not there", call.clone().but("appid", Some(&unique("no-such-app"))), PARAMETER),
            row("an app that is disabled", authorize(op, &fixture.disabled_app).by(Who::ticket(&fixture.ticket)), PARAMETER),
            row("another app's redirect URI", call.clone().but("redirectUri", Some(&fixture.other_app.redirect)), PARAMETER),
            row("a redirect URI that nobody registered", call.clone().but("redirectUri", Some("https://evil.invalid/callback")), PARAMETER),
            row("no URL at all", call.clone().but("redirectUri", Some("callback-page")), PARAMETER),
        ]);
    }
    let no_app = authorize(Op::Authorize, &fixture.app).but("appid", None).but("redirectUri", Some("https://evil.invalid/callback"));
    rows.push(row("no app has this redirect URI", no_app.by(Who::ticket(&fixture.ticket)), PARAMETER));
    let other_id = exchange(Op::ExchangeV281, &fixture.app, &fixture.code).but("appid", Some(&fixture.other_app.id));
    rows.push(row("appid is not the app that calls", other_id, PARAMETER));
    rows
}

fn grants(fixture: &Fixture) -> Vec<Row> {
    let mut rows = Vec::new();
    for op in Op::EXCHANGES {
        let of = |what, code: &str| row(what, exchange(op, &fixture.app, code), GRANT);
        rows.extend([
            of("an unknown code", "no-such-code"),
            of("a used code", &fixture.used_code),
            of("a code of another app", &fixture.other_app_code),
            of("a code of a session that has ended", &fixture.ended_code),
            of("a code of 8 KiB", &"x".repeat(8 * 1024)),
        ]);
    }
    for op in Op::REFRESHES {
        let of = |what, token: &str| row(what, refresh(op, token).by(fixture.app.who()), GRANT);
        rows.extend([
            of("an unknown refresh token", "no-such-refresh-token"),
            of("a refresh token of another app", &fixture.other_app_tokens.refresh),
            of("a refresh token whose successor was used", &fixture.replaced_refresh_token),
            of("a refresh token of a session that has ended", &fixture.ended_tokens.refresh),
        ]);
        let by = |what, who| row(what, refresh(op, &fixture.tokens.refresh).by(who), GRANT);
        rows.extend([
            by("another app refreshes", fixture.other_app.who()),
            by("the token of another app of the session refreshes", Who::bearer(&fixture.other_app_tokens.access)),
            by("the token of another user refreshes", Who::bearer(&fixture.other_user_tokens.access)),
        ]);
    }
    for op in [Op::Username, Op::SignOutV281] {
        let of = |what, token: &str, who| row(what, Call::new(op).with("accessToken", token).by(who), GRANT);
        rows.extend([
            of("an unknown token", "no-such-token", fixture.app.who()),
            of("a forged token", &fixture.forged_access_token, fixture.app.who()),
            of("a token given to another app", &fixture.tokens.access, fixture.other_app.who()),
            of("a token of another user", &fixture.other_user_tokens.access, Who::bearer(&fixture.tokens.access)),
            of("a token of another user, by ticket", &fixture.other_user_tokens.access, Who::ticket(&fixture.ticket)),
        ]);
    }
    let ended = Call::new(Op::Username).with("accessToken", &fixture.ended_tokens.access).by(fixture.app.who());
    rows.push(row("a token of a session that has ended", ended, GRANT));
    rows
}

fn callers(fixture: &Fixture) -> Vec<Row> {
    let app = &fixture.app;
    let signs = |target| Who::authorization(&app.signature("GET", target, ""));
    let mut strangers = vec![
        ("nobody", Who::nobody()),
        ("a wrong secret", App::signing(&app.id, "not-the-secret")),
        ("no secret", App::signing(&app.id, "")),
        ("another app's secret", App::signing(&app.id, &fixture.other_app.secret)),
        ("an app that is not there", App::signing(&unique("no-such-app"), &app.secret)),
        ("an app that is disabled", fixture.disabled_app.who()),
        ("the signature of another request", signs("/open-api/supos/auth/v2/elsewhere")),
        ("no signature", Who::authorization(&format!("Sign {}-", app.id))),
        ("no hyphen", Who::authorization(&format!("Sign {}", "0".repeat(64)))),
        ("a signature that is no hexadecimal number", Who::authorization(&format!("Sign {}-{}", app.id, "z".repeat(64)))),
        ("a signature that is too short", Who::authorization(&format!("Sign {}-{}", app.id, "0".repeat(62)))),
        ("the secret instead of a signature", Who::authorization(&format!("Sign {}-{}", app.id, app.secret))),
        ("HTTP Basic", Who::authorization(&format!("Basic {}", STANDARD.encode(format!("{}:{}", app.id, app.secret))))),
        ("a scheme that nobody knows", Who::authorization("Digest username=whoever")),
        ("a scheme alone", Who::authorization("Sign")),
        ("a forged token", Who::bearer(&fixture.forged_access_token)),
        ("no token", Who::bearer("no-such-token")),
        ("a refresh token as an access token", Who::bearer(&fixture.tokens.refresh)),
        ("a ticket as an access token", Who::bearer(&fixture.ticket)),
    ];
    let mut rows = Vec::new();
    for (call, _) in good(fixture).into_iter().filter(|(call, _)| call.op != Op::SignIn) {
        // The one who is known by the cookie has no need of a good credential besides.
        let asked = call.clone();
        rows.extend(strangers.iter().map(|(what, who)| row(what, Call { who: who.clone(), ..asked.clone() }, CALLER)));
    }
    strangers.push(("a token of a session that has ended", Who::bearer(&fixture.ended_tokens.access)));
    let asked = valid(&fixture.tokens.access);
    rows.extend(strangers.iter().map(|(what, who)| row(what, asked.clone().by(who.clone()), CALLER)));

    for op in Op::EXCHANGES {
        let call = Call { who: Who::nobody(), ..exchange(op, app, &fixture.code) };
        rows.push(row("a user redeems a code by his token", call.clone().by(Who::bearer(&fixture.tokens.access)), NOT_HIM));
        rows.push(row("a user redeems a code by his ticket", call.by(Who::ticket(&fixture.ticket)), NOT_HIM));
    }
    for op in Op::REFRESHES {
        rows.push(row("a ticket refreshes", refresh(op, &fixture.tokens.refresh).by(Who::ticket(&fixture.ticket)), NOT_HIM));
    }
    for op in Op::AUTHORIZES {
        let call = authorize(op, app);
        rows.extend([
            row("an app asks for a code", call.clone().by(app.who()), NOT_HIM),
            row("a ticket that is not there", call.clone().by(Who::ticket("no-such-ticket")), CALLER),
            row("a ticket of a session that has ended", call.clone().by(Who::ticket(&fixture.ended_ticket)), CALLER),
            row("a token of a session that has ended", call.clone().by(Who::bearer(&fixture.ended_tokens.access)), CALLER),
            row("a Bearer makes a code for another app", call.by(Who::bearer(&fixture.other_app_tokens.access)), &[Case::Forbidden]),
        ]);
    }
    rows
}

fn sign_ins(fixture: &Fixture) -> Vec<Row> {
    let call = |name: &str, password: &str| Call::new(Op::SignIn).with("userName", name).with("password", password);
    vec![
        row("a wrong password", call(&fixture.user.name, "not the password"), &[Case::Password]),
        row("a user who is not there", call(&unique("nobody"), &fixture.user.password), &[Case::Password]),
        row("a disabled user with his password", call(&fixture.disabled_user.name, &fixture.disabled_user.password), &[Case::Disabled]),
        row("a disabled user with a wrong password", call(&fixture.disabled_user.name, "not the password"), &[Case::Password]),
        row("the name in capitals", call(&fixture.user.name.to_uppercase(), &fixture.user.password), &[Case::Password]),
        row("the password in capitals", call(&fixture.user.name, &fixture.user.password.to_uppercase()), &[Case::Password]),
    ]
}
