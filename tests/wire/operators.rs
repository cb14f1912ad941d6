//! What an operator may rely on: an empty store becomes a working service by the command line alone, and its keys are his.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use supos_auth::grpc::pb::supos::auth::v2::{AuthorizeRequest, SignInRequest, TokenRequest, auth_service_client::AuthServiceClient};
use tempfile::TempDir;
use tonic::{Code, Request, transport::Endpoint};

use crate::harness::{
    App, native, now,
    process::{Log, Process},
    sign::signed,
    tools,
};

const BINARY: &str = env!("CARGO_BIN_EXE_supos-auth");

/// A folder with a master key, and a service that is no demo.
struct Site {
    folder: TempDir,
    log: Log,
    service: Option<Process>,
    server: String,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
        let site = Self { folder, log: Log::default(), service: None, server: String::new() };
        fs::write(site.master_key(), [7; 32]).expect("a key can be written");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn master_key(&self) -> PathBuf {
        self.path("master-key")
    }

    fn write(&self, name: &str, content: &str) -> String {
        fs::write(self.path(name), content).expect("a file can be written");
        self.path(name).display().to_string()
    }

    fn serve_arguments(&self, more: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            ["serve", "--ops-listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"].map(OsString::from).into();
        arguments.push(self.path("data").into());
        if !more.contains(&"--grpc-listen") {
            arguments.extend(["--grpc-listen", "127.0.0.1:0"].map(OsString::from));
        }
        arguments.extend(more.iter().map(OsString::from));
        arguments
    }

    fn start(&mut self) {
        let key = self.master_key().display().to_string();
        let mark = self.log.mark();
        let process =
            Process::start(BINARY.as_ref(), self.folder.path(), self.serve_arguments(&["--master-key-file", &key]), &[], &self.log);
        self.service = Some(process);
        let address = self.log.wait_for(mark, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening" && line["listener"] == "grpc").then(|| line["address"].as_str().map(str::to_owned))?
        });
        let address = address.unwrap_or_else(|| panic!("the service does not listen: {}", self.log.since(mark).join("\n")));
        self.server = format!("http://{address}");
        let ready = self.log.wait_for(mark, |line| line.contains("\"ready\"").then_some(()));
        assert!(ready.is_some(), "the service is not ready: {}", self.log.since(mark).join("\n"));
    }

    fn stop(&mut self) {
        let status = self.service.take().expect("it runs").terminate();
        assert!(status.success(), "{status}");
    }

    /// Runs a command against the service.
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY)
            .args(arguments)
            .env("SUPOS_AUTH_SERVER", &self.server)
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env_remove("SUPOS_AUTH_TICKET")
            .stdin(Stdio::null())
            .output()
            .expect("the command runs")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [arguments, &["--output", "json"]].concat();
        serde_json::from_str(&self.ok(&arguments)).expect("JSON")
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).expect("text")
    }

    /// Signs in as the first administrator, who changes his one-time password.
    fn log_in(&self) {
        let initial = self.path("data/initial-admin-password").display().to_string();
        let new = self.write("admin-password", "a password of my own");
        self.ok(&["login", "--user", "admin", "--password-file", &initial, "--new-password-file", &new]);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

fn serve_refuses(site: &Site, more: &[&str]) -> String {
    let output = tools::that_ends().args(site.serve_arguments(more)).output().expect("the binary runs");
    assert!(matches!(output.status.code(), Some(1 | 2)), "{output:?}");
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[tokio::test]
async fn an_empty_store_becomes_a_working_app_by_the_command_line_alone() {
    let mut site = Site::new();
    site.start();
    let initial = site.path("data/initial-admin-password");
    assert_eq!(mode(&initial), 0o600);
    assert_eq!(mode(&site.path("data")), 0o700);
    let one_time = fs::read_to_string(&initial).expect("the password");
    let log = site.log.since(0).join("\n");
    assert!(log.contains("initial-admin-password"), "the log says where it is");
    assert!(!log.contains(one_time.trim()), "and not what it is");
    site.ok(&["health"]);
    assert!(site.fails(&["app", "list"]).contains("login"), "who is not signed in is told how");

    site.log_in();
    assert!(!initial.exists(), "the one-time password was changed, and its file is gone");
    let app = site.json(&["app", "create", "shop", "--redirect-uri", "https://shop.example/callback"]);
    let secret = app["secret"].as_str().expect("the secret is shown once");
    assert_eq!(secret.len(), 43);
    assert!(site.json(&["app", "get", "shop"]).get("secret").is_none());
    let password = site.write("password", "correct horse battery");
    site.json(&["user", "create", "zhang.san", "--password-file", &password, "--person-code", "P7"]);

    let channel = Endpoint::from_shared(site.server.clone()).expect("an address").connect().await.expect("it listens");
    let mut service = AuthServiceClient::new(signed(channel, now()));
    let user = SignInRequest { user_name: "zhang.san".into(), password: "correct horse battery".into(), json: None };
    let ticket = service.sign_in(user).await.expect("he signs in").into_inner().ticket;
    let mut request = Request::new(AuthorizeRequest {
        response_type: "code".into(),
        redirect_uri: "https://shop.example/callback".into(),
        state: "s".into(),
        ..AuthorizeRequest::default()
    });
    request.metadata_mut().insert("cookie", format!("suposTicket={ticket}").parse().expect("a header"));
    let code = service.authorize(request).await.expect("he lets the app in").into_inner().code;
    let message = TokenRequest { grant_type: "authorization_code".into(), code, logout_uri: "/logout".into(), ..TokenRequest::default() };
    let tokens =
        service.token(native::request(message, &App::signing("shop", secret))).await.expect("the app gets its tokens").into_inner();
    assert_eq!((tokens.username.as_str(), tokens.person_code.as_str()), ("zhang.san", "P7"));

    let sessions = site.json(&["session", "list", "--user", "zhang.san"]);
    assert_eq!(sessions[0]["apps"], json!(["apps/shop"]), "{sessions}");
    site.ok(&["session", "end-all", "--user", "zhang.san"]);
    assert_eq!(site.json(&["session", "list", "--user", "zhang.san"]), json!([]));
    site.ok(&["logout"]);
    assert!(site.fails(&["user", "list"]).contains("login"));
}

#[test]
fn a_secret_is_replaced_with_no_outage_and_a_short_one_is_flagged() {
    let mut site = Site::new();
    site.start();
    site.log_in();
    let short = site.write("secret", "short\n");
    site.ok(&["app", "create", "old", "--secret-file", &short, "--redirect-uri", "https://old.example/*"]);
    assert_eq!(site.json(&["app", "get", "old"])["secrets"][0]["short"], true);
    assert!(site.ok(&["app", "list"]).contains("short"));
    let added = site.json(&["app", "secret", "add", "old"]);
    assert!(added["secret"].is_string());
    assert!(site.fails(&["app", "secret", "add", "old"]).contains("two live secrets"));
    let secrets = site.json(&["app", "get", "old"])["secrets"].clone();
    let first = secrets[0]["name"].as_str().expect("a name").rsplit('/').next().expect("an id").to_owned();
    site.ok(&["app", "secret", "remove", "old", &first, "--yes"]);
    assert_eq!(site.json(&["app", "get", "old"])["secrets"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_import_is_whole_or_nothing_and_names_the_line_that_is_wrong() {
    let mut site = Site::new();
    site.start();
    site.log_in();
    let apps = site.write(
        "apps.jsonl",
        "{\"appId\":\"a1\",\"secret\":\"a-secret-that-exists\",\"redirectUris\":[\"https://a1.example/*\"]}\n\n\
         {\"appId\":\"a2\",\"secret\":\"s\",\"redirectUris\":[\"https://a2.example*\"]}\n",
    );
    let refused = site.fails(&["app", "import", &apps]);
    assert!(refused.contains("apps.jsonl:3") && refused.contains("redirectUris"), "{refused}");
    assert_eq!(site.json(&["app", "list"]), json!([]));

    let users = site.write(
        "users.jsonl",
        "{\"userName\":\"u1\",\"password\":\"correct horse battery\"}\n{\"userName\":\"u2\",\"companyCode\":\"C2\",\"enabled\":false}\n",
    );
    site.ok(&["user", "import", &users, "--dry-run"]);
    assert_eq!(site.json(&["user", "list"]).as_array().map(Vec::len), Some(1), "a dry run stores nothing");
    site.ok(&["user", "import", &users]);
    assert_eq!(site.json(&["user", "get", "u2"])["enabled"], false);
    let again = site.fails(&["user", "import", &users]);
    assert!(again.contains("users.jsonl:1") && again.contains("userName"), "{again}");
}

#[test]
fn the_last_administrator_stays() {
    let mut site = Site::new();
    site.start();
    site.log_in();
    for command in
        [&["user", "disable", "admin"][..], &["user", "delete", "admin", "--yes"], &["user", "update", "admin", "--account-type", "0"]]
    {
        assert!(site.fails(command).contains("no administrator would be left"), "{command:?}");
    }
}

#[test]
fn signing_keys_come_and_go_by_the_command_line() {
    let mut site = Site::new();
    site.start();
    site.log_in();
    let first = site.json(&["key", "list"])[0]["kid"].as_str().expect("a key").to_owned();
    assert!(site.fails(&["key", "retire", &first]).contains("no other key could sign"));
    let added = site.json(&["key", "add"]);
    assert_eq!(site.json(&["key", "list"]).as_array().map(Vec::len), Some(2));
    assert!(added["activateTime"].is_string());
}

#[test]
fn without_a_master_key_the_service_says_how_to_make_one() {
    let site = Site::new();
    assert!(serve_refuses(&site, &[]).contains("head -c 32 /dev/urandom"));
    let short = site.write("short-key", "not 32 bytes");
    assert!(serve_refuses(&site, &["--master-key-file", &short]).contains("exactly 32 bytes"));
    let missing = serve_refuses(&site, &["--master-key-file", "/nowhere"]);
    assert!(missing.contains("/nowhere") && missing.contains("Put back") && missing.contains("head -c 32 /dev/urandom"), "{missing}");
}

#[test]
fn a_store_opens_under_its_own_master_key_and_rewrap_changes_it() {
    let mut site = Site::new();
    site.start();
    site.log_in();
    site.ok(&["app", "create", "shop", "--redirect-uri", "https://shop.example/*"]);
    let data = site.path("data").display().to_string();
    let old = site.master_key().display().to_string();
    let new = site.path("new-key").display().to_string();
    fs::write(&new, [9; 32]).expect("a key can be written");

    let busy = site.fails(&["key", "rewrap", "--data-dir", &data, "--master-key-file", &old, "--new-master-key-file", &new]);
    assert!(busy.contains("another supos-auth"), "{busy}");
    site.stop();
    let wrong = site.fails(&["key", "rewrap", "--data-dir", &data, "--master-key-file", &new, "--new-master-key-file", &old]);
    assert!(wrong.contains("not the one"), "{wrong}");
    site.ok(&["key", "rewrap", "--data-dir", &data, "--master-key-file", &old, "--new-master-key-file", &new]);
    assert!(serve_refuses(&site, &["--master-key-file", &old]).contains("not the one"));
    fs::copy(&new, &old).expect("a key can be copied");
    site.start();
    let password = site.path("admin-password").display().to_string();
    site.ok(&["login", "--user", "admin", "--password-file", &password]);
    assert_eq!(site.json(&["app", "list"])[0]["appId"], "shop");
}

#[test]
fn the_admin_api_is_not_served_in_the_clear_beyond_loopback_unless_told_to() {
    let site = Site::new();
    let key = site.master_key().display().to_string();
    let refused = serve_refuses(&site, &["--master-key-file", &key, "--grpc-listen", "0.0.0.0:0"]);
    assert!(refused.contains("--grpc-tls-cert") && refused.contains("--admin-without-tls"), "{refused}");
    assert!(!site.path("data").exists(), "nothing is touched");
}

#[tokio::test]
async fn without_the_admin_api_there_is_none() {
    let mut site = Site::new();
    let key = site.master_key().display().to_string();
    let mark = site.log.mark();
    site.service = Some(Process::start(
        BINARY.as_ref(),
        site.folder.path(),
        site.serve_arguments(&["--master-key-file", &key, "--no-admin"]),
        &[],
        &site.log,
    ));
    let address = site.log.wait_for(mark, |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["listener"] == "grpc").then(|| line["address"].as_str().map(str::to_owned))?
    });
    let server = format!("http://{}", address.expect("it listens"));
    let mut users =
        supos_auth::grpc::pb::supos::auth::admin::v1::user_service_client::UserServiceClient::connect(server).await.expect("it listens");
    let refused = users.list_users(supos_auth::grpc::pb::supos::auth::admin::v1::ListUsersRequest::default()).await;
    assert_eq!(refused.map_err(|status| status.code()).err(), Some(Code::Unimplemented));
}

#[tokio::test]
async fn who_watches_health_is_told_that_the_service_stops() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

    let mut site = Site::new();
    site.start();
    let channel = Endpoint::from_shared(site.server.clone()).expect("an address").connect().await.expect("it listens");
    let mut health = HealthClient::new(channel);
    for service in ["", "supos.auth.v2.AuthService", "supos.auth.admin.v1.UserService"] {
        let status = health.check(HealthCheckRequest { service: service.to_owned() }).await.expect("a status").into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service}");
    }
    let mut watch = health.watch(HealthCheckRequest { service: String::new() }).await.expect("a watch").into_inner();
    let next = watch.message().await.expect("a status").expect("a status").status();
    assert_eq!(next, ServingStatus::Serving);
    let stopped = tokio::task::spawn_blocking(move || site.stop());
    let next = watch.message().await.expect("a status").expect("a status").status();
    assert_eq!(next, ServingStatus::NotServing);
    stopped.await.expect("it stops, and the watch does not hold it");
}
