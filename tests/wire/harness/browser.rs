//! A real browser: Chromium, driven over the protocol of W3C's web driver.

use std::time::Instant;

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{Log, PATIENCE, Process, pause};

/// A window of Chromium. It and its driver go when it is dropped.
pub(crate) struct Browser {
    client: Client,
    session: String,
    _driver: Process,
    folder: TempDir,
}

/// Whether the tests with a browser are run. `BROWSER=none` leaves them out, and says so where it is set: in scripts/test.
pub(crate) fn is_there() -> bool {
    std::env::var("BROWSER").as_deref() != Ok("none")
}

impl Browser {
    /// Opens a window of this size, with or without scripts.
    pub(crate) async fn open(width: u32, height: u32, scripts: bool) -> Self {
        Self::open_with(width, height, scripts, "--lang=en").await
    }

    /// The same, with an argument of the test's own.
    pub(crate) async fn open_with(width: u32, height: u32, scripts: bool, argument: &str) -> Self {
        let (folder, log) = (TempDir::with_prefix("supos-auth-browser-").expect("a folder"), Log::default());
        let driver = Process::start("chromedriver".as_ref(), folder.path(), vec!["--port=0".into()], &[], &log);
        let started =
            |line: &str| line.split_once("successfully on port ").and_then(|(_, port)| port.trim_end_matches('.').parse::<u16>().ok());
        let port = log.wait_for(0, started).expect("chromedriver says where it listens");
        let client = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        let arguments = json!([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--lang=en",
            argument,
            format!("--window-size={width},{height}"),
            format!("--user-data-dir={}", folder.path().join("profile").display()),
        ]);
        let preferences = json!({"profile.managed_default_content_settings.javascript": if scripts { 1 } else { 2 }});
        let options = json!({"args": arguments, "prefs": preferences});
        let capabilities = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}});
        let made = client.post(format!("http://127.0.0.1:{port}/session")).json(&capabilities).send().await.expect("a session");
        let made: Value = made.json().await.expect("JSON");
        let id = made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {made}")).to_owned();
        Self { client, session: format!("http://127.0.0.1:{port}/session/{id}"), _driver: driver, folder }
    }

    async fn call(&self, command: &str, body: Option<Value>) -> Result<Value, Value> {
        let url = format!("{}/{command}", self.session);
        let request = body.map_or_else(|| self.client.get(&url), |body| self.client.post(&url).json(&body));
        let answer: Value = request.send().await.expect("the driver answers").json().await.expect("JSON");
        if answer["value"].get("error").is_some() { Err(answer["value"].clone()) } else { Ok(answer["value"].clone()) }
    }

    /// Goes to a page, and waits until it is there.
    pub(crate) async fn go(&self, url: &str) {
        self.call("url", Some(json!({"url": url}))).await.unwrap_or_else(|error| panic!("{url} cannot be opened: {error}"));
    }

    /// Where it is.
    pub(crate) async fn url(&self) -> String {
        self.call("url", None).await.expect("it is somewhere").as_str().expect("a text").to_owned()
    }

    async fn find(&self, css: &str) -> Option<String> {
        let found = self.call("element", Some(json!({"using": "css selector", "value": css}))).await.ok()?;
        found.as_object()?.values().next()?.as_str().map(str::to_owned)
    }

    /// Whether there is such an element.
    pub(crate) async fn has(&self, css: &str) -> bool {
        self.find(css).await.is_some()
    }

    /// The text of an element, waiting for it to be there.
    pub(crate) async fn text(&self, css: &str) -> String {
        let element = self.await_element(css).await;
        self.call(&format!("element/{element}/text"), None).await.expect("a text").as_str().expect("a text").to_owned()
    }

    /// The name that a screen reader says.
    pub(crate) async fn spoken(&self, css: &str) -> String {
        let element = self.await_element(css).await;
        self.call(&format!("element/{element}/computedlabel"), None).await.expect("a label").as_str().expect("a text").to_owned()
    }

    /// Types into a field.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let element = self.await_element(css).await;
        self.call(&format!("element/{element}/clear"), Some(json!({}))).await.expect("it can be cleared");
        self.call(&format!("element/{element}/value"), Some(json!({"text": text}))).await.expect("it can be filled");
    }

    pub(crate) async fn click(&self, css: &str) {
        let element = self.await_element(css).await;
        self.call(&format!("element/{element}/click"), Some(json!({}))).await.expect("it can be clicked");
    }

    /// Waits until it is at a URL that begins so, and gives the URL.
    pub(crate) async fn await_url(&self, beginning: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let url = self.url().await;
            if url.starts_with(beginning) {
                return url;
            }
            assert!(Instant::now() < deadline, "it is at {url}, not at {beginning}");
            pause();
        }
    }

    async fn await_element(&self, css: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(element) = self.find(css).await {
                return element;
            }
            assert!(Instant::now() < deadline, "there is no {css} at {}", self.url().await);
            pause();
        }
    }

    /// The value of a script, in a page of the test's own.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.call("execute/sync", Some(json!({"script": script, "args": []}))).await.expect("a script")
    }

    /// Whether a script has opened a dialog.
    pub(crate) async fn has_dialog(&self) -> bool {
        self.call("alert/text", None).await.is_ok()
    }

    /// The cookies that the page may have, by name, each with all that the browser knows of it.
    pub(crate) async fn cookie(&self, name: &str) -> Option<Value> {
        self.call(&format!("cookie/{name}"), None).await.ok()
    }

    /// Looks into the first frame of the page.
    pub(crate) async fn enter_frame(&self) {
        self.call("frame", Some(json!({"id": 0}))).await.expect("there is a frame");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver is killed after this, and Chromium must not stay: its processes are found by their folder.
        let folder = self.folder.path().display().to_string();
        let _ = std::process::Command::new("pkill").args(["-KILL", "-f", &folder]).status();
    }
}
