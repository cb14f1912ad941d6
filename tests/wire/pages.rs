//! The pages, as HTTP shows them: who may sign in by them, where they lead, and what they never do.

use supos_auth::grpc::pb::supos::auth::admin::v1::{
    CreateIdentityProviderRequest, DisableIdentityProviderRequest, EnableUserRequest, IdentityProvider, ResetPasswordRequest,
};

use crate::harness::{
    App, Setup, User, World,
    visitor::{Seen, Visitor},
    world::{encode, with_another_end},
};

const SIGN_IN: &str = "/inter-api/auth/sign-in";
const PASSWORD: &str = "/inter-api/auth/password";
const SIGN_OUT: &str = "/inter-api/auth/logout";
const AUTHORIZE: [&str; 2] = ["/inter-api/auth/v1/oauth2/authorize", "/open-api/supos/auth/v2/code/authorize"];

/// The URL that an app sends a browser to.
fn asked(path: &str, app: &App, redirect: &str, state: &str) -> String {
    format!("{path}?responseType=code&appid={}&redirectUri={}&state={}", app.id, encode(redirect), encode(state))
}

fn start(app: &App) -> String {
    asked(AUTHORIZE[0], app, &app.redirect, "s")
}

/// Every page has these headers.
#[track_caller]
fn assert_safe(page: &Seen) {
    let policy = page.header("content-security-policy");
    for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("script-src") && !policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-frame-options", "DENY"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(page.header(name), value, "{name}");
    }
    assert!(page.header("content-type").starts_with("text/html"), "{}", page.header("content-type"));
    let text = page.text.to_ascii_lowercase();
    for active in ["<script", "<style", " style=\"", "src=\"http", "href=\"http", "href=\"javascript"] {
        assert!(!text.contains(active), "{active}: {text}");
    }
}

/// Comes to the sign-in page by way of the app.
async fn come(world: &World, visitor: &mut Visitor, target: &str) -> Seen {
    let sent = visitor.get(world, target).await;
    assert_eq!(sent.status, 302, "{}", sent.text);
    let page = visitor.get(world, sent.location()).await;
    assert_eq!((page.status, page.heading()), (200, "Sign in"));
    assert_safe(&page);
    page
}

async fn send(world: &World, visitor: &mut Visitor, page: &Seen, name: &str, password: &str) -> Seen {
    visitor.post(world, SIGN_IN, &[("form", &page.form()), ("userName", name), ("password", password)]).await
}

#[tokio::test]
async fn a_browser_is_sent_to_sign_in_and_lands_in_the_app_with_query_and_fragment_and_a_code() {
    let world = World::shared().await;
    let user = world.user().await;
    for path in AUTHORIZE {
        let app = world.app_with(|app| app.redirect_uris = vec![format!("{}/*", app.redirect_uris[0])]).await;
        let redirect = format!("{}/page?a=1&b=%20#part", app.redirect);
        let target = asked(path, &app, &redirect, "a b&<>\"'%0a+张");
        let mut visitor = Visitor::default();
        let page = come(&world, &mut visitor, &target).await;
        assert!(page.text.contains(&format!("The app {}", app.id)), "it says what app asks: {}", page.text);
        assert!(page.text.contains(&format!("{}.invalid", app.id)), "and where one goes: {}", page.text);
        let wrong = send(&world, &mut visitor, &page, &user.name, "wrong").await;
        assert_eq!((wrong.status, wrong.alert()), (401, "The user name or the password is wrong."));
        assert!(wrong.headers.get("www-authenticate").is_none(), "a browser would ask for a password by itself");
        assert!(wrong.text.contains(&format!("value=\"{}\"", user.name)), "the name stays");
        assert_safe(&wrong);
        let done = send(&world, &mut visitor, &wrong, &user.name, &user.password).await;
        assert_eq!(done.status, 303);
        assert_eq!(done.location(), target);
        let back = visitor.get(&world, done.location()).await;
        assert_eq!(back.status, 302);
        let json: serde_json::Value = serde_json::from_str(&back.text).expect("the answer has a JSON body");
        let location = back.location();
        let code = json["code"].as_str().expect("a code");
        assert_eq!(location, format!("{}/page?a=1&b=%20&code={code}&state=a+b%26%3C%3E%22%27%250a%2B%E5%BC%A0#part", app.redirect));
        assert_eq!(json["message"], "OK");
        assert_eq!(back.header("deprecation").is_empty(), path == AUTHORIZE[0]);
        // The next app needs no password.
        let second = world.app().await;
        assert!(visitor.get(&world, &start(&second)).await.location().starts_with(&second.redirect));
    }
}

#[tokio::test]
async fn what_an_app_asks_for_wrongly_is_said_before_anybody_signs_in_and_never_redirected() {
    let world = World::shared().await;
    let app = world.app().await;
    let (_, ticket) = world.signed_in().await;
    let mut visitors = [Visitor::default(), Visitor::default()];
    visitors[1].cookies.insert("suposTicket".into(), ticket);
    for visitor in &mut visitors {
        for path in AUTHORIZE {
            for (target, names) in [
                (asked(path, &app, "https://evil.invalid/", "s"), "redirectUri"),
                (asked(path, &App { id: "no-such-app".into(), ..app.clone() }, &app.redirect, "s"), "appid"),
                (asked(path, &app, &app.redirect, ""), "state"),
                (format!("{}&state=x", start(&app).replace(AUTHORIZE[0], path)), "state"),
                (start(&app).replace(AUTHORIZE[0], path).replace("=code", "=token"), "responseType"),
                (path.to_owned(), if path == AUTHORIZE[0] { "responseType" } else { "appid" }),
            ] {
                let page = visitor.get(&world, &target).await;
                assert_eq!((page.status, page.heading()), (400, "This did not work"), "{target}");
                assert!(page.alert().to_lowercase().contains(&names.to_lowercase()), "{target}: {}", page.alert());
                assert!(page.header("location").is_empty() && page.headers.get("set-cookie").is_none());
                assert_safe(&page);
            }
        }
    }
}

#[tokio::test]
async fn a55_nobody_signs_in_by_a_form_that_was_given_to_another_browser() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, user) = (world.app().await, world.user().await);
    let mut visitor = Visitor::default();
    let page = come(&world, &mut visitor, &start(&app)).await;
    let fields = |form: &str| vec![("form", form.to_owned()), ("userName", user.name.clone()), ("password", user.password.clone())];
    let post = async |world: &World, visitor: &Visitor, fields: &[(&str, String)]| {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        visitor.clone().post(world, SIGN_IN, &fields).await
    };
    let mut other = Visitor::default();
    let others = come(&world, &mut other, &start(&app)).await;
    let form = page.form();
    let changed = with_another_end(&form);
    let way_back = visitor.get(&world, &start(&app)).await.location().split_once('=').expect("it is sealed").1.to_owned();
    for (what, visitor, form) in [
        ("no form", &visitor, ""),
        ("a made-up form", &visitor, "x"),
        ("a changed form", &visitor, changed.as_str()),
        ("another browser's form", &visitor, &others.form()),
        ("no cookie", &Visitor::default(), &form),
        ("something else that is sealed", &visitor, &way_back),
    ] {
        let seen = post(&world, visitor, &fields(form)).await;
        assert_eq!((seen.status, seen.heading()), (400, "This page has expired"), "{what}");
        assert!(seen.headers.get("set-cookie").is_none(), "{what}");
        assert_safe(&seen);
    }
    for site in ["cross-site", "same-site"] {
        let elsewhere = Visitor { headers: vec![("sec-fetch-site", site.into())], ..visitor.clone() };
        let seen = post(&world, &elsewhere, &fields(&form)).await;
        assert_eq!(seen.status, 403, "{site}");
        assert!(seen.headers.get("set-cookie").is_none(), "{site}");
    }
    // A browser says nothing else over plain http. That of a page without referrers is `null`, whoever's page it is.
    for origin in ["https://evil.invalid", "http://127.0.0.1:1", "null"] {
        let elsewhere = Visitor { headers: vec![("origin", origin.into())], ..visitor.clone() };
        let seen = post(&world, &elsewhere, &fields(&form)).await;
        assert_eq!(seen.status, 403, "{origin}");
        assert!(seen.headers.get("set-cookie").is_none(), "{origin}");
    }
    let ours = Visitor { headers: vec![("origin", world.url("").trim_end_matches('/').into())], ..visitor.clone() };
    assert_eq!(post(&world, &ours, &fields(&form)).await.status, 303);
    for kind in ["application/json", "text/plain", "multipart/form-data; boundary=x"] {
        let request = world.http.post(world.url(SIGN_IN)).header("content-type", kind).body("form=x");
        assert_eq!(request.send().await.expect("an answer").status(), 400, "{kind}");
    }
    world.step(31 * 60);
    let late = post(&world, &visitor, &fields(&form)).await;
    assert_eq!((late.status, late.heading()), (400, "This page has expired"));
    assert!(late.text.contains("Start again") && late.text.contains(AUTHORIZE[0]), "it says how to go on: {}", late.text);
    let late = visitor.get(&world, &format!("{SIGN_IN}?continue={way_back}")).await;
    assert_eq!((late.status, late.heading()), (400, "This page has expired"));
}

#[tokio::test]
async fn a54_signing_in_makes_a_new_ticket_and_what_the_browser_was_before_is_worthless() {
    let world = World::shared().await;
    let (app, user) = (world.app().await, world.user().await);
    let mut visitor = Visitor::default();
    visitor.cookies.insert("suposTicket".into(), "chosen-by-somebody-else".into());
    let page = come(&world, &mut visitor, &start(&app)).await;
    let form = page.form();
    let done = send(&world, &mut visitor, &page, &user.name, &user.password).await;
    assert_eq!(done.status, 303);
    let ticket = visitor.cookies["suposTicket"].clone();
    assert!(ticket.len() == 43 && ticket != "chosen-by-somebody-else");
    assert!(!visitor.cookies.contains_key("suposSignIn"), "it is taken away");
    let cookies: Vec<&str> = done.headers.get_all("set-cookie").iter().filter_map(|cookie| cookie.to_str().ok()).collect();
    for cookie in &cookies {
        assert!(cookie.contains("; HttpOnly; SameSite=Lax") && !cookie.contains("Domain"), "{cookie}");
    }
    // The form was good for the browser that it was given to, as it was then.
    let again = visitor.post(&world, SIGN_IN, &[("form", &form), ("userName", &user.name), ("password", &user.password)]).await;
    assert_eq!(again.heading(), "This page has expired");
    assert_eq!(visitor.cookies["suposTicket"], ticket);
}

#[tokio::test]
async fn too_many_tries_and_disabled_users_are_told_so_on_the_page() {
    let world = World::own(Setup::default().argument("--failures-per-name", "2")).await;
    let (app, user) = (world.app().await, world.user().await);
    let mut visitor = Visitor::default();
    let mut page = come(&world, &mut visitor, &start(&app)).await;
    for _ in 0..2 {
        page = send(&world, &mut visitor, &page, &user.name, "wrong").await;
    }
    page = send(&world, &mut visitor, &page, &user.name, &user.password).await;
    assert_eq!(page.status, 429);
    assert!(page.alert().starts_with("Too many tries") && page.alert().contains("Try again in 5 min."), "{}", page.alert());
    assert!(page.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
    let disabled = world.user().await;
    world.disable_user(&disabled).await;
    page = send(&world, &mut visitor, &page, &disabled.name, &disabled.password).await;
    assert_eq!((page.status, page.alert()), (403, "The user is locked or disabled."));
    let request = world.as_admin(EnableUserRequest { name: format!("users/{}", disabled.id) }).await;
    world.users().enable_user(request).await.expect("he can be enabled");
    for (name, password, says) in [("", "x", "userName"), (disabled.name.as_str(), "", "password")] {
        let seen = send(&world, &mut visitor, &page, name, password).await;
        assert_eq!(seen.status, 400);
        assert!(seen.alert().starts_with(says), "{}", seen.alert());
    }
    assert_eq!(send(&world, &mut visitor, &page, &disabled.name, &disabled.password).await.status, 303);
}

#[tokio::test]
async fn pages_are_chinese_for_who_prefers_it() {
    let world = World::shared().await;
    let app = world.app().await;
    let mut visitor = Visitor { headers: vec![("accept-language", "zh-CN,zh;q=0.9,en;q=0.8".into())], ..Visitor::default() };
    let sent = visitor.get(&world, &start(&app)).await.location().to_owned();
    let page = visitor.get(&world, &sent).await;
    assert!(page.text.contains("<html lang=\"zh-CN\">") && page.heading() == "登录", "{}", page.text);
    let wrong = send(&world, &mut visitor, &page, "nobody", "wrong").await;
    assert_eq!(wrong.alert(), "用户名或密码错误。");
    let bad = visitor.get(&world, &asked(AUTHORIZE[0], &app, "https://evil.invalid/", "s")).await;
    assert!(bad.alert().contains("redirectUri未在应用中登记"), "{}", bad.alert());
}

async fn change(world: &World, visitor: &mut Visitor, page: &Seen, current: &str, new: [&str; 2]) -> Seen {
    let fields =
        [("form", &*page.form()), ("currentPassword", current), ("newPassword", new[0]), ("repeatedPassword", new[1]), ("endOthers", "1")];
    visitor.post(world, PASSWORD, &fields).await
}

#[tokio::test]
async fn a_password_that_an_administrator_has_set_has_to_be_changed_on_the_way_in() {
    let world = World::shared().await;
    let (app, user) = (world.app().await, world.user().await);
    let request = world.as_admin(ResetPasswordRequest { name: format!("users/{}", user.id) }).await;
    let one_time = world.users().reset_password(request).await.expect("it can be reset").into_inner().one_time_password;
    let mut visitor = Visitor::default();
    let page = come(&world, &mut visitor, &start(&app)).await;
    let page = send(&world, &mut visitor, &page, &user.name, &one_time).await;
    assert_eq!((page.status, page.heading()), (200, "Change password"));
    assert!(page.text.contains("set by an administrator") && !visitor.cookies.contains_key("suposTicket"), "{}", page.text);
    assert_safe(&page);
    let new = "a password of his own";
    for (current, new, says) in [
        (&*one_time, [new, "another"], "The two new passwords differ."),
        (&*one_time, ["short", "short"], "The new password is too short or too long."),
        (&*one_time, ["password1234", "password1234"], "The new password is among those that are tried first. Choose another one."),
        (&*one_time, [&*one_time, &*one_time], "The new password has to differ from the current one."),
        ("wrong", [new, new], "The user name or the password is wrong."),
    ] {
        let seen = change(&world, &mut visitor, &page, current, new).await;
        assert!(seen.status >= 400 && seen.alert() == says, "{} {}", seen.status, seen.alert());
        assert!(!visitor.cookies.contains_key("suposTicket"));
    }
    let done = change(&world, &mut visitor, &page, &one_time, [new, new]).await;
    assert_eq!((done.status, done.location()), (303, &*start(&app)));
    assert!(visitor.get(&world, done.location()).await.location().starts_with(&app.redirect));
    let user = User { password: new.into(), ..user };
    world.sign_in(&user).await;
}

#[tokio::test]
async fn a_user_changes_his_password_and_is_signed_out_elsewhere_alone() {
    let world = World::shared().await;
    let (user, elsewhere) = world.signed_in().await;
    let mut visitor = Visitor::default();
    let sent = visitor.get(&world, PASSWORD).await;
    let page = visitor.get(&world, sent.location()).await;
    let done = send(&world, &mut visitor, &page, &user.name, &user.password).await;
    assert_eq!((done.status, done.location()), (303, PASSWORD));
    let page = visitor.get(&world, PASSWORD).await;
    assert_eq!(page.heading(), "Change password");
    assert_safe(&page);
    let new = "another password of his";
    let done = change(&world, &mut visitor, &page, &user.password, [new, new]).await;
    assert_eq!((done.status, done.text.contains("Your password was changed.")), (200, true));
    assert_eq!(visitor.get(&world, PASSWORD).await.heading(), "Change password", "this session goes on");
    let mut other = Visitor::default();
    other.cookies.insert("suposTicket".into(), elsewhere);
    assert_eq!(other.get(&world, PASSWORD).await.status, 303, "that one has ended");
}

#[tokio::test]
async fn signing_out_shows_a_page_and_takes_a_click_when_another_site_leads_there() {
    let world = World::shared().await;
    let (_, ticket) = world.signed_in().await;
    let mut visitor = Visitor::default();
    visitor.cookies.insert("suposTicket".into(), ticket);
    let mut led = Visitor { headers: vec![("sec-fetch-site", "cross-site".into())], ..visitor.clone() };
    let asks = led.get(&world, SIGN_OUT).await;
    assert_eq!((asks.status, asks.heading()), (200, "Sign out"));
    assert!(asks.text.contains("<button") && led.cookies.contains_key("suposTicket"));
    assert_safe(&asks);
    assert_eq!(visitor.get(&world, PASSWORD).await.status, 200, "nothing has ended");
    let mut clicked = Visitor { headers: vec![("sec-fetch-site", "same-origin".into())], ..visitor.clone() };
    let done = clicked.get(&world, SIGN_OUT).await;
    assert_eq!((done.status, done.heading()), (200, "You are signed out"));
    assert!(!clicked.cookies.contains_key("suposTicket"));
    assert_safe(&done);
    assert_eq!(visitor.get(&world, PASSWORD).await.status, 303, "it has ended");
    // Nobody is signed in: the same page, whoever leads there.
    assert_eq!(Visitor::default().get(&world, SIGN_OUT).await.heading(), "You are signed out");
}

#[tokio::test]
async fn a_page_blames_another_site_for_nothing_else() {
    let world = World::shared().await;
    let (_, _, _, tokens) = world.family().await;
    let other = world.app().await;
    let mut visitor = Visitor { headers: vec![("authorization", format!("Bearer {}", tokens.access))], ..Visitor::default() };
    let refused = visitor.get(&world, &start(&other)).await;
    assert_eq!((refused.status, refused.heading()), (403, "This did not work"));
    assert!(!refused.text.contains("another site"), "{}", refused.text);
    assert_safe(&refused);
    let (_, ticket) = world.signed_in().await;
    let mut loaded =
        Visitor { headers: vec![("sec-fetch-site", "same-site".into()), ("sec-fetch-dest", "image".into())], ..Visitor::default() };
    loaded.cookies.insert("suposTicket".into(), ticket);
    let refused = loaded.get(&world, SIGN_OUT).await;
    assert_eq!(refused.status, 403);
    assert!(refused.text.contains("another site"), "{}", refused.text);
}

#[tokio::test]
async fn a49_what_a_page_merely_loads_signs_nobody_out() {
    let world = World::shared().await;
    let (_, ticket) = world.signed_in().await;
    let mut visitor = Visitor::default();
    visitor.cookies.insert("suposTicket".into(), ticket);
    for (site, kind) in [("same-site", "image"), ("same-origin", "script"), ("same-site", "style"), ("none", "object")] {
        for accept in ["image/avif,*/*", "text/html"] {
            let request = world.http.get(world.url(SIGN_OUT)).header("accept", accept);
            let request = request.header("sec-fetch-site", site).header("sec-fetch-dest", kind);
            let request = request.header("cookie", format!("suposTicket={}", visitor.cookies["suposTicket"]));
            assert_eq!(request.send().await.expect("an answer").status(), 403, "{site} {kind} {accept}");
        }
    }
    assert_eq!(visitor.get(&world, PASSWORD).await.status, 200, "he is signed in");
}

#[tokio::test]
async fn an_authority_that_is_down_denies_or_is_off_is_a_page_that_says_so() {
    let world = World::own(Setup::default()).await;
    let app = world.app().await;
    // A port that nobody listens on any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let message = CreateIdentityProviderRequest {
        identity_provider: Some(IdentityProvider {
            display_name: "<Plant>".into(),
            client_id: "us".into(),
            authorization_uri: "https://plant.invalid/authorize?x=1".into(),
            token_uri: format!("http://127.0.0.1:{port}/token"),
            userinfo_uri: format!("http://127.0.0.1:{port}/user"),
            logout_uri: "https://plant.invalid/logout".into(),
            ..Default::default()
        }),
        client_secret: "secret".into(),
    };
    let made = world.authorities().create_identity_provider(world.as_admin(message).await).await.expect("it can be registered");
    let name = made.into_inner().identity_provider.expect("an authority").name;
    let id = name.rsplit('/').next().expect("an id");
    let mut visitor = Visitor::default();
    let page = come(&world, &mut visitor, &start(&app)).await;
    assert!(page.text.contains("Sign in with &#60;Plant&#62;"), "{}", page.text);
    let away = async |visitor: &mut Visitor, id: &str| visitor.post(&world, SIGN_IN, &[("form", &page.form()), ("authority", id)]).await;
    for (query, status, says) in [
        ("code=x", 502, "the authority gave no token".to_owned()),
        ("error=access_denied", 403, "the authority did not sign the user in".to_owned()),
        ("", 400, "code".to_owned()),
    ] {
        let sent = away(&mut visitor, id).await;
        assert_eq!(sent.status, 303, "{}", sent.text);
        let location = url::Url::parse(sent.location()).expect("a URL");
        assert!(location.as_str().starts_with("https://plant.invalid/authorize?x=1&"), "{location}");
        let state = location.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
        let back = format!("/inter-api/auth/v1/third/authorize?protocolType=bluetron&state={}&{query}", encode(&state));
        let seen = visitor.clone().get(&world, &back).await;
        assert_eq!(seen.status, status, "{}", seen.text);
        assert!(seen.alert().to_lowercase().contains(&says.to_lowercase()), "{}", seen.alert());
        assert!(
            seen.text.contains("Start again") && seen.headers.get_all("set-cookie").iter().all(|it| !it.as_bytes().starts_with(b"suposT")),
            "no ticket, and nothing taken from another tab that is away"
        );
        assert_safe(&seen);
        // Without the cookie of the browser that began, it is nobody's.
        let seen = Visitor::default().get(&world, &back).await;
        assert_eq!(seen.status, 400, "{}", seen.text);
    }
    // The longest state, in letters of three bytes, goes there and back as a short one does.
    let target = asked(AUTHORIZE[0], &app, &app.redirect, &"张".repeat(1365));
    let page = come(&world, &mut visitor, &target).await;
    let sent = visitor.post(&world, SIGN_IN, &[("form", &page.form()), ("authority", id)]).await;
    let location = url::Url::parse(sent.location()).expect("a URL");
    let state = location.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
    let back = format!("/inter-api/auth/v1/third/authorize?protocolType=bluetron&state={}&error=access_denied", encode(&state));
    assert_eq!(visitor.get(&world, &back).await.status, 403);
    for wrong in ["x", "00000000000000000000000000000000"] {
        let seen = away(&mut visitor, wrong).await;
        assert_eq!(seen.status, 400, "{}", seen.text);
    }
    let request = world.as_admin(DisableIdentityProviderRequest { name: name.clone() }).await;
    world.authorities().disable_identity_provider(request).await.expect("it can be disabled");
    assert_eq!(away(&mut visitor, id).await.status, 400);
    assert!(!visitor.get(&world, SIGN_IN).await.text.contains("Plant"));
}

#[tokio::test]
async fn an_authority_is_offered_however_many_that_are_off_stand_before_it() {
    let world = World::own(Setup::default()).await;
    for number in 0..=200 {
        let last = number == 200;
        let message = CreateIdentityProviderRequest {
            identity_provider: Some(IdentityProvider {
                display_name: if last { "the last".into() } else { format!("off {number:03}") },
                client_id: "us".into(),
                authorization_uri: "https://plant.invalid/authorize".into(),
                token_uri: "https://plant.invalid/token".into(),
                userinfo_uri: "https://plant.invalid/user".into(),
                logout_uri: "https://plant.invalid/logout".into(),
                enabled: Some(last),
                ..Default::default()
            }),
            client_secret: "secret".into(),
        };
        world.authorities().create_identity_provider(world.as_admin(message).await).await.expect("it can be registered");
    }
    let page = Visitor::default().get(&world, SIGN_IN).await;
    assert!(page.text.contains("Sign in with the last") && !page.text.contains("off 0"), "{}", page.text);
}

#[tokio::test]
async fn a58_what_others_wrote_is_shown_as_text() {
    let world = World::shared().await;
    let payloads = [
        "<script>alert(1)</script>",
        "\"><script>alert(1)</script>",
        "'><img src=x onerror=alert(1)>",
        "</title><svg/onload=alert(1)>",
        "javascript:alert(1)",
        "{{7*7}}",
        "${7*7}",
        "<a href=javascript:alert(1)>",
        "\" autofocus onfocus=alert(1) x=\"",
        "&#60;script&#62;",
        "<!--",
        "]]>",
        "\u{202e}<b>",
        "<iframe srcdoc='<script>alert(1)</script>'>",
    ];
    for payload in payloads {
        let app = world.app_with(|app| app.display_name = payload.to_owned()).await;
        let mut visitor = Visitor::default();
        let page = come(&world, &mut visitor, &asked(AUTHORIZE[0], &app, &app.redirect, payload)).await;
        let wrong = send(&world, &mut visitor, &page, payload, payload).await;
        for seen in [&page, &wrong] {
            for tag in ["<script", "<img src=x", "<svg/", "<a href=javascript", "<iframe", "onfocus=alert(1) x=\"\"", "<b>"] {
                assert!(!seen.text.contains(tag), "{payload}: {}", seen.text);
            }
        }
        let bad = visitor.get(&world, &asked(AUTHORIZE[0], &app, payload, payload)).await;
        assert_eq!(bad.status, 400);
        assert!(!bad.text.contains(payload) || payload == "]]>", "{payload} comes back: {}", bad.text);
    }
}

#[tokio::test]
async fn an_operator_chooses_the_name_and_the_logo_and_files_may_be_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let logo = folder.path().join("logo.png");
    std::fs::write(&logo, b"\x89PNG picture").expect("a file");
    let setup = Setup::default().argument("--product-name", "Plant <7>").argument("--logo-file", logo.to_str().expect("a path"));
    let world = World::own(setup).await;
    let mut visitor = Visitor::default();
    let page = visitor.get(&world, SIGN_IN).await;
    assert!(page.text.contains("Plant &#60;7&#62;"), "{}", page.text);
    let path = |mark: &str| page.text.split_once(mark).and_then(|(_, rest)| rest.split('"').next()).expect("a path").to_owned();
    for (mark, kind) in [("<img src=\"", "image/png"), ("<link rel=\"stylesheet\" href=\"", "text/css; charset=utf-8")] {
        let file = visitor.get(&world, &path(mark)).await;
        assert_eq!((file.status, file.header("content-type")), (200, kind));
        assert!(file.header("cache-control").contains("immutable"));
    }
    for other in ["/inter-api/auth/assets/nothing", "/inter-api/auth/assets/..%2fdata", "/inter-api/auth/assets/"] {
        assert!(visitor.get(&world, other).await.status >= 400, "{other}");
    }
    let already = visitor.get(&world, SIGN_IN).await;
    assert_eq!(already.heading(), "Sign in");
}
