//! A person at a real browser.

use serde_json::Value;

use crate::harness::{
    App, World,
    browser::{Browser, is_there},
    site::Site,
    world::encode,
};

const PHONE: (u32, u32) = (500, 900);
const DESKTOP: (u32, u32) = (1280, 800);

/// An app that is really there, and the site where it is.
async fn app(world: &World) -> (App, Site) {
    let site = Site::open("127.0.0.1", "<!doctype html><title>the app</title><h1>the app</h1>").await;
    let (redirect, logout) = (format!("{}/*", site.origin), format!("{}/logout", site.origin));
    let app = world
        .app_with(|app| {
            app.redirect_uris = vec![redirect];
            app.logout_uris = vec![logout.clone()];
        })
        .await;
    (App { redirect: format!("{}/home?tab=2#part", site.origin), logout, ..app }, site)
}

fn start(world: &World, app: &App) -> String {
    let target =
        format!("/inter-api/auth/v1/oauth2/authorize?responseType=code&appid={}&redirectUri={}&state=s", app.id, encode(&app.redirect));
    world.url(&target)
}

async fn sign_in(browser: &Browser, name: &str, password: &str) {
    browser.fill("#userName", name).await;
    browser.fill("#password", password).await;
    browser.click("button[type=submit]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_with_and_without_scripts_and_the_next_app_asks_for_no_password() {
    if !is_there() {
        return;
    }
    let world = World::shared().await;
    let user = world.user().await;
    for (scripts, (width, height)) in [(true, DESKTOP), (false, PHONE)] {
        let ((first, site), (second, other)) = (app(&world).await, app(&world).await);
        let browser = Browser::open(width, height, scripts).await;
        browser.go(&start(&world, &first)).await;
        assert_eq!(browser.text("h1").await, "Sign in");
        assert!(browser.text("main").await.contains(&first.id), "it says what app asks");
        // What a screen reader says of the fields.
        assert_eq!((browser.spoken("#userName").await, browser.spoken("#password").await), ("User name".into(), "Password".into()));
        sign_in(&browser, &user.name, "not the password").await;
        assert_eq!(browser.text("[role=alert]").await, "The user name or the password is wrong.");
        sign_in(&browser, &user.name, &user.password).await;
        let url = browser.await_url(&site.origin).await;
        assert!(url.starts_with(&format!("{}/home?tab=2&code=", site.origin)) && url.ends_with("&state=s#part"), "{url}");
        assert_eq!(browser.text("h1").await, "the app");
        assert!(site.asked().iter().any(|asked| asked.method == "GET" && asked.target.starts_with("/home?tab=2&code=")));

        browser.go(&start(&world, &second)).await;
        browser.await_url(&other.origin).await;

        browser.go(&world.url("/inter-api/auth/logout")).await;
        assert_eq!(browser.text("h1").await, "You are signed out");
        assert!(browser.cookie("suposTicket").await.is_none());
        browser.go(&start(&world, &first)).await;
        assert_eq!(browser.text("h1").await, "Sign in");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a57_the_pages_show_in_nobodys_frame_load_nothing_from_elsewhere_and_run_no_script() {
    if !is_there() {
        return;
    }
    let world = World::shared().await;
    let browser = Browser::open(DESKTOP.0, DESKTOP.1, true).await;
    let app = world.app_with(|app| app.display_name = "<script>alert(1)</script><img src=x onerror=alert(1)>".into()).await;
    browser.go(&start(&world, &app)).await;
    assert_eq!(browser.text("h1").await, "Sign in");
    assert!(!browser.has_dialog().await);
    let loaded = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)").await;
    let origin = world.url("");
    let loaded: Vec<&str> = loaded.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(!loaded.is_empty() && loaded.iter().all(|name| name.starts_with(&origin)), "{loaded:?}");
    let cookie = browser.cookie("suposSignIn").await.expect("a cookie");
    assert_eq!((&cookie["httpOnly"], &cookie["sameSite"]), (&true.into(), &"Lax".into()));
    assert_eq!(browser.run("return document.cookie").await, "");

    let site = Site::open("127.0.0.1", "<!doctype html><iframe></iframe>").await;
    browser.go(&site.origin).await;
    browser.run(&format!("document.querySelector('iframe').src = '{}'", world.url("/inter-api/auth/sign-in"))).await;
    // The frame has something else in it once the browser has refused to show the page.
    let refused = "return document.querySelector('iframe').contentDocument === null";
    let deadline = std::time::Instant::now() + crate::harness::process::PATIENCE;
    while browser.run(refused).await != true && std::time::Instant::now() < deadline {
        crate::harness::process::pause();
    }
    browser.enter_frame().await;
    assert!(!browser.has("#userName").await, "the sign-in page shows in a frame");
}
