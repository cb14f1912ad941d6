//! A backup of a service at work, and a service on what was restored from it.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use supos_auth::grpc::pb::supos::auth::admin::v1::{TakeBackupRequest, backup_service_client::BackupServiceClient};
use tempfile::TempDir;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::harness::{
    App, Call, Op, Who, authorize, exchange, native, now,
    process::{Log, Process},
    refresh,
    sign::{Signed, signed},
    tools, valid,
};

const BINARY: &str = env!("CARGO_BIN_EXE_supos-auth");

/// A folder with a master key, and demo services whose data is in it.
struct Site {
    folder: TempDir,
    log: Log,
}

/// A running service.
struct Service {
    process: Process,
    server: String,
    channel: Channel,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
        let site = Self { folder, log: Log::default() };
        fs::write(site.path("master-key"), [7; 32]).expect("written");
        fs::write(site.path("password"), "admin-password").expect("written");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Starts the demo on the data in `data`. To be called inside a runtime, which the channel needs.
    fn start(&self, data: &str) -> Service {
        let arguments = ["serve", "--dev", "--ops-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0", "--log-format", "json"];
        let paths = ["--data-dir", &self.text(data), "--master-key-file", &self.text("master-key")].map(OsString::from);
        let mark = self.log.mark();
        let arguments = arguments.map(OsString::from).into_iter().chain(paths).collect();
        let process = Process::start(BINARY.as_ref(), self.folder.path(), arguments, &[], &self.log);
        let address = self.log.wait_for(mark, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening" && line["listener"] == "grpc").then(|| line["address"].as_str().map(str::to_owned))?
        });
        let ready = self.log.wait_for(mark, |line| line.contains("\"ready\"").then_some(()));
        assert!(ready.is_some(), "the service does not start: {}", self.log.since(mark).join("\n"));
        let server = format!("http://{}", address.expect("an address"));
        let channel = Endpoint::from_shared(server.clone()).expect("an address").connect_lazy();
        Service { process, server, channel }
    }

    fn run(&self, service: Option<&Service>, arguments: &[&str]) -> Output {
        let mut command = tools::that_ends();
        command.args(arguments).env("XDG_CONFIG_HOME", self.path("config")).env_remove("SUPOS_AUTH_TICKET").stdin(Stdio::null());
        if let Some(service) = service {
            command.env("SUPOS_AUTH_SERVER", &service.server);
        }
        command.output().expect("the command runs")
    }

    fn ok(&self, service: Option<&Service>, arguments: &[&str]) -> String {
        let output = self.run(service, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn fails(&self, service: Option<&Service>, arguments: &[&str]) -> String {
        let output = self.run(service, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).expect("text")
    }

    fn log_in(&self, service: &Service) {
        self.ok(Some(service), &["login", "--user", "admin", "--password-file", &self.text("password")]);
    }

    /// What is in the folder beside what the test has put there.
    fn others(&self) -> Vec<String> {
        let names = self.folder.path().read_dir().expect("a folder").flatten();
        let mut names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !["master-key", "password", "config", "data", "data.master-key"].contains(&name.as_str()));
        names.sort();
        names
    }
}

fn app() -> App {
    App {
        id: "demo-app".into(),
        secret: "demo-secret".into(),
        redirect: "http://127.0.0.1:9999/in".into(),
        logout: "http://127.0.0.1:9999/logout".into(),
    }
}

fn connection(service: &Service) -> Signed {
    signed(service.channel.clone(), now())
}

async fn sign_in(service: &Service) -> String {
    let call = Call::new(Op::SignIn).with("userName", "demo").with("password", "demo-password");
    native::call(connection(service), &call).await.text_of("ticket")
}

async fn code(service: &Service, ticket: &str) -> String {
    native::call(connection(service), &authorize(Op::Authorize, &app()).by(Who::ticket(ticket))).await.text_of("code")
}

async fn is_valid(service: &Service, access_token: &str) -> bool {
    native::call(connection(service), &valid(access_token).by(app().who())).await.valid()
}

/// What one caller was given, the newest last.
#[derive(Default)]
struct Given {
    /// Each code, and the access token that it was redeemed for.
    codes: Vec<(String, String)>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_out_before_a_backup_is_good_after_a_restore() {
    let site = Site::new();
    let service = site.start("data");
    site.log_in(&service);
    let ticket = sign_in(&service).await;
    let ended = sign_in(&service).await;
    let unused = code(&service, &ticket).await;
    let used = code(&service, &ticket).await;
    let tokens = native::call(connection(&service), &exchange(Op::TokenV2, &app(), &used)).await.tokens();
    let newer = native::call(connection(&service), &refresh(Op::TokenV2, &tokens.refresh).by(app().who())).await.tokens();
    assert!(native::call(connection(&service), &Call::new(Op::SignOut).by(Who::ticket(&ended))).await.is_ok());

    // Others go on meanwhile, and are told no while the backup is taken no more than before.
    let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let given = Arc::new(Mutex::new(Given::default()));
    let load = {
        let (stop, rounds, given, ticket) = (Arc::clone(&stop), Arc::clone(&rounds), Arc::clone(&given), ticket.clone());
        let channel = service.channel.clone();
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let code = native::call(signed(channel.clone(), now()), &authorize(Op::Authorize, &app()).by(Who::ticket(&ticket))).await;
                let code = code.text_of("code");
                let tokens = native::call(signed(channel.clone(), now()), &exchange(Op::TokenV2, &app(), &code)).await.tokens();
                given.lock().expect("a lock").codes.push((code, tokens.access));
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    while rounds.load(Ordering::Relaxed) < 5 {
        tokio::task::yield_now().await;
    }
    let before = given.lock().expect("a lock").codes.len();
    let (file, said) = tokio::task::block_in_place(|| {
        let file = site.text("backup.jsonl");
        let said = site.ok(Some(&service), &["backup", &file, "--output", "json"]);
        (file, serde_json::from_str::<Value>(&said).expect("JSON"))
    });
    stop.store(true, Ordering::Relaxed);
    load.await.expect("nobody was refused");
    assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    assert_eq!(site.others(), ["backup.jsonl"], "nothing else is left");
    let text = fs::read_to_string(&file).expect("text");
    assert_eq!(said["records"].as_u64().map(|records| records + 2), Some(text.lines().count() as u64));
    assert!(text.lines().next().is_some_and(|header| header.contains("the master key is not in this file")));
    let who = |line: &str| (line.contains("a backup was taken") && line.contains("\"caller\":\"user usr_")).then_some(());
    assert!(site.log.wait_for(0, who).is_some(), "it is logged who took it");
    for secret in ["demo-secret", "demo-password", "admin-password", &ticket, &tokens.access, &newer.refresh, &unused] {
        assert!(!text.contains(secret), "the backup holds a secret in the clear");
    }

    // What happens after the backup did not happen there.
    assert!(native::call(connection(&service), &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.is_ok());
    assert!(service.process.terminate().success());
    let said = site.ok(None, &["restore", &file, "--data-dir", &site.text("restored")]);
    assert!(said.contains("start the service with the master key"), "{said}");
    let service = site.start("restored");
    assert!(is_valid(&service, &newer.access).await, "a token is good");
    let next = native::call(connection(&service), &refresh(Op::TokenV2, &newer.refresh).by(app().who())).await;
    assert!(is_valid(&service, &next.tokens().access).await, "a refresh token is good, and signing keys and the app's secret are there");
    assert!(native::call(connection(&service), &exchange(Op::TokenV2, &app(), &unused)).await.is_ok(), "a code that was not used is good");
    assert!(
        native::call(connection(&service), &authorize(Op::Authorize, &app()).by(Who::ticket(&ticket))).await.is_ok(),
        "a ticket is good"
    );
    let signed_out = native::call(connection(&service), &authorize(Op::Authorize, &app()).by(Who::ticket(&ended))).await;
    assert!(!signed_out.is_ok(), "who had signed out is signed out");
    assert!(!sign_in(&service).await.is_empty(), "a password is right");
    let codes = std::mem::take(&mut given.lock().expect("a lock").codes);
    for (code, access) in codes.into_iter().take(before) {
        assert!(is_valid(&service, &access).await, "a token that was given out before the backup began is good");
        assert!(!native::call(connection(&service), &exchange(Op::TokenV2, &app(), &code)).await.is_ok(), "a used code is used");
        assert!(!is_valid(&service, &access).await, "and its second use is known for one");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_a_code_that_was_redeemed_after_a_backup_are_never_good_again() {
    let site = Site::new();
    let service = site.start("data");
    site.log_in(&service);
    let ticket = sign_in(&service).await;
    let file = site.text("backup.jsonl");
    site.ok(Some(&service), &["backup", &file]);
    // What is stolen is ended by a second use of its code.
    let stolen_code = code(&service, &ticket).await;
    let stolen = native::call(connection(&service), &exchange(Op::TokenV2, &app(), &stolen_code)).await.tokens();
    assert!(!native::call(connection(&service), &exchange(Op::TokenV2, &app(), &stolen_code)).await.is_ok());
    assert!(!is_valid(&service, &stolen.access).await);
    assert!(service.process.terminate().success());

    site.ok(None, &["restore", &file, "--data-dir", &site.text("restored")]);
    let service = site.start("restored");
    let fresh = code(&service, &ticket).await;
    let fresh = native::call(connection(&service), &exchange(Op::TokenV2, &app(), &fresh)).await.tokens();
    assert!(is_valid(&service, &fresh.access).await);
    assert!(!is_valid(&service, &stolen.access).await, "it has come back to life");
    let refreshed = native::call(connection(&service), &refresh(Op::TokenV2, &stolen.refresh).by(app().who())).await;
    assert!(!refreshed.is_ok(), "it has come back to life");
    assert!(is_valid(&service, &fresh.access).await, "it ends what is good");
}

#[tokio::test]
async fn only_administrators_take_backups_and_nothing_is_left_of_one_that_was_refused() {
    let site = Site::new();
    let service = site.start("data");
    let file = site.text("backup.jsonl");
    let refused = site.fails(Some(&service), &["backup", &file]);
    assert!(refused.contains("not signed in"), "{refused}");
    let ticket = sign_in(&service).await;
    for (who, expected) in [
        (Who::nobody(), Code::Unauthenticated),
        (Who::authorization(&format!("Ticket {ticket}")), Code::PermissionDenied),
        (app().who(), Code::Unauthenticated),
    ] {
        let mut client = BackupServiceClient::new(connection(&service));
        let refused = client.take_backup(native::request(TakeBackupRequest {}, &who)).await.expect_err("it is refused");
        assert_eq!(refused.code(), expected, "{refused:?}");
    }
    assert_eq!(site.others(), [""; 0]);

    site.log_in(&service);
    fs::write(&file, "mine").expect("written");
    assert!(site.fails(Some(&service), &["backup", &file]).contains("is there already"));
    assert_eq!(fs::read_to_string(&file).expect("text"), "mine");
    fs::remove_file(&file).expect("removed");
    assert!(site.fails(Some(&service), &["backup", &site.text("no/such/folder")]).contains("No such file"));
    assert!(site.fails(None, &["backup", "--data-dir", &site.text("data"), &file]).contains("another supos-auth has"));
    assert!(service.process.terminate().success());
    assert_eq!(site.others(), [""; 0]);
    assert!(site.ok(None, &["backup", "--data-dir", &site.text("data"), &file]).contains("records"), "a stopped service's store, too");
    assert!(site.fails(None, &["backup", "--data-dir", &site.text("nowhere"), &site.text("other")]).contains("there is no store in"));
    assert_eq!(site.others(), ["backup.jsonl"]);
}

#[tokio::test]
async fn commands_that_ask_no_service_work_on_the_store_that_the_command_line_names_and_say_which() {
    let site = Site::new();
    let service = site.start("data");
    site.log_in(&service);
    let said = site.ok(Some(&service), &["backup", &site.text("asked")]);
    assert!(said.contains(&format!("of the service at {}", service.server)), "{said}");
    let (data, key) = (site.text("data"), site.text("master-key"));
    let url = "postgres://u:hunter2@127.0.0.1:1/nowhere";
    fs::write(site.path("database"), url).expect("written");
    // The database is asked, which is not there, and not the service, which is.
    for store in [["--store", url], ["--store-file", &site.text("database")]] {
        let refused = site.fails(Some(&service), &["backup", store[0], store[1], &site.text("file")]);
        assert!(refused.contains("the database nowhere at 127.0.0.1:1"), "{refused}");
        for both in
            [vec!["backup", "x"], vec!["restore", "x"], vec!["key", "rewrap", "--master-key-file", &key, "--new-master-key-file", &key]]
        {
            let output = site.run(None, &[&both[..], &["--data-dir", &data], &store].concat());
            assert_eq!(output.status.code(), Some(2), "{both:?}");
            assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be used with"), "{both:?}");
        }
    }
    assert!(service.process.terminate().success());
    // What the environment says is a service's.
    let run = |arguments: &[&str]| {
        let output =
            Command::new(BINARY).args(arguments).env("SUPOS_AUTH_STORE", url).stdin(Stdio::null()).output().expect("the command runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let said = run(&["backup", "--data-dir", &data, &site.text("read")]);
    assert!(said.contains(&format!("of {data}")), "{said}");
    let said = run(&["restore", &site.text("read"), "--data-dir", &site.text("restored")]);
    assert!(said.contains(&site.text("restored")), "{said}");
    let said = run(&["key", "rewrap", "--data-dir", &site.text("restored"), "--master-key-file", &key, "--new-master-key-file", &key]);
    assert!(said.contains(&site.text("restored")), "{said}");
    for unsaid in [vec!["restore", &site.text("read")], vec!["key", "rewrap", "--master-key-file", &key, "--new-master-key-file", &key]] {
        let output = site.run(None, &unsaid);
        assert_eq!(output.status.code(), Some(2), "{unsaid:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("say which store: --data-dir"), "{unsaid:?}");
    }
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_with_what_to_do() {
    let site = Site::new();
    assert!(site.start("data").process.terminate().success());
    let newer = || {
        let db = sled::Config::new().path(site.path("data/store")).open()?;
        // 99, as MessagePack has it.
        db.insert("mformat", &[99])?;
        db.flush().map(drop)
    };
    // Whoever had it lets go of it a moment after it is gone.
    while newer().is_err() {
        tokio::task::yield_now().await;
    }
    let (data, key, file) = (site.text("data"), site.text("master-key"), site.text("file"));
    let listen = ["--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
    for command in [
        [&["serve", "--dev", "--data-dir", &data, "--master-key-file", &key], &listen[..]].concat(),
        vec!["backup", "--data-dir", &data, &file],
        vec!["key", "rewrap", "--data-dir", &data, "--master-key-file", &key, "--new-master-key-file", &key],
    ] {
        let refused = site.fails(None, &command);
        assert!(refused.contains("format 99") && refused.contains("run the version that wrote it"), "{command:?}: {refused}");
    }
    assert_eq!(site.others(), [""; 0]);
}

#[tokio::test]
async fn a_backup_is_a_file_and_is_restored_from_one() {
    let site = Site::new();
    assert!(site.start("data").process.terminate().success());
    let (data, file, restored) = (site.text("data"), site.text("file"), site.text("restored"));
    let output = site.run(None, &["backup", "--data-dir", &data, "-"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("a backup is a file"), "{output:?}");
    assert!(!Path::new("-").exists());
    site.ok(None, &["backup", "--data-dir", &data, &file]);
    let mut command = Command::new(BINARY);
    command.args(["restore", "/dev/stdin", "--data-dir", &restored]);
    let mut piped = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command runs");
    let whole = fs::read(&file).expect("bytes");
    // It may not be read.
    let _ = piped.stdin.take().expect("a pipe").write_all(&whole);
    let output = piped.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is read twice"), "{output:?}");
    assert!(!site.path("restored").exists(), "nothing is made");
}

#[tokio::test]
async fn what_is_left_of_a_restore_that_was_killed_keeps_a_service_from_beginning_anew_and_does_not_stop_the_next_one() {
    let site = Site::new();
    let store = crate::stores::open(&site.path("large"), 20_000).await;
    let (file, restored) = (site.text("file"), site.text("restored"));
    fs::write(&file, crate::stores::take(&*store).await).expect("written");
    // One that was quicker than whoever kills it is no matter.
    let is_killed = (0..20).any(|_| {
        let mut command = Command::new(BINARY);
        let command = command.args(["restore", &file, "--data-dir", &restored]).stdin(Stdio::null()).stderr(Stdio::null());
        let mut killed = command.spawn().expect("the command runs");
        while !site.path("restored/restore.unfinished/store/db").exists() && killed.try_wait().expect("a child").is_none() {}
        killed.kill().expect("a child");
        killed.wait().expect("it ends");
        let is_killed = !site.path("restored/store").exists();
        if !is_killed {
            fs::remove_dir_all(site.path("restored")).expect("removed");
        }
        is_killed
    });
    assert!(is_killed, "a restore that was killed");
    let key = site.text("master-key");
    let start =
        ["serve", "--data-dir", &restored, "--master-key-file", &key, "--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
    let refused = site.fails(None, &start);
    assert!(refused.contains("was broken off or failed: give it again"), "{refused}");
    site.ok(None, &["restore", &file, "--data-dir", &restored]);
    assert!(!site.path("restored/restore.unfinished").exists());
}

#[tokio::test]
async fn a_backup_that_is_told_to_stop_leaves_nothing() {
    let site = Site::new();
    let store = crate::stores::open(&site.path("large"), 20_000).await;
    drop(store);
    for signal in ["-TERM", "-INT"] {
        let mut command = Command::new(BINARY);
        command.args(["backup", "--data-dir", &site.text("large"), &site.text("file")]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut running = command.spawn().expect("the command runs");
        let mut ended = None;
        while ended.is_none() && !site.others().iter().any(|name| name.starts_with("file")) {
            ended = running.try_wait().expect("it runs");
            tokio::task::yield_now().await;
        }
        if ended.is_none() {
            assert!(Command::new("kill").args([signal, &running.id().to_string()]).status().expect("kill").success());
        }
        let output = running.wait_with_output().expect("it ends");
        // What is all there when it is told to is finished.
        let is_done = output.status.success();
        assert_eq!(site.others(), if is_done { vec!["file", "large"] } else { vec!["large"] }, "{signal}");
        assert!(is_done || String::from_utf8_lossy(&output.stderr).contains("interrupted: there is no backup"), "{signal}: {output:?}");
        let _ = fs::remove_file(site.path("file"));
    }
}

#[tokio::test]
async fn root_leaves_no_files_in_the_folder_of_a_service_that_cannot_read_them() {
    if fs::metadata("/proc/self").expect("Linux says so").uid() != 0 {
        println!("left out: whoever runs this cannot give a folder away");
        return;
    }
    let site = Site::new();
    assert!(site.start("data").process.terminate().success());
    let (data, file, key) = (site.text("data"), site.text("file"), site.text("master-key"));
    site.ok(None, &["backup", "--data-dir", &data, &file]);
    fs::create_dir(site.path("restored")).expect("made");
    fs::create_dir(site.path("parent")).expect("made");
    for folder in ["data/store", "restored", "parent"] {
        if std::os::unix::fs::chown(site.path(folder), Some(12345), None).is_err() {
            println!("left out: this root cannot give a folder away");
            return;
        }
    }
    for command in [
        vec!["backup", "--data-dir", &data, &site.text("other")],
        vec!["restore", &file, "--data-dir", &site.text("restored")],
        vec!["restore", &file, "--data-dir", &site.text("parent/not-there/data")],
        vec!["key", "rewrap", "--data-dir", &data, "--master-key-file", &key, "--new-master-key-file", &key],
    ] {
        let refused = site.fails(None, &command);
        assert!(refused.contains("belongs to user 12345") && refused.contains("sudo -u"), "{refused}");
    }
    for folder in ["restored", "parent"] {
        assert_eq!(site.path(folder).read_dir().expect("a folder").count(), 0);
    }
    assert_eq!(site.others(), ["file", "parent", "restored"]);
}

#[tokio::test]
async fn a_restore_makes_a_whole_store_or_none() {
    let site = Site::new();
    let service = site.start("data");
    site.log_in(&service);
    let file = site.text("backup.jsonl");
    site.ok(Some(&service), &["backup", &file]);
    assert!(service.process.terminate().success());

    let whole = fs::read(&file).expect("bytes");
    let restored = site.text("restored");
    let mut changed = whole.clone();
    let at = changed.windows(10).position(|part| part == b"\"demo-app\"").expect("the app");
    changed[at + 1] ^= 1;
    for (bad, what) in [(&whole[..whole.len() / 2], "cut off"), (&changed, "damaged"), (b"{}\n", "no backup"), (b"", "no backup")] {
        let path = site.text("bad");
        fs::write(&path, bad).expect("written");
        let refused = site.fails(None, &["restore", &path, "--data-dir", &restored]);
        assert!(refused.contains("the backup was not restored") && refused.contains(what), "{refused}");
        assert!(!site.path("restored").exists(), "nothing is made");
    }
    let refused = site.fails(None, &["restore", &file, "--data-dir", &site.text("data")]);
    assert!(refused.contains("there is a store") && refused.contains("already"), "{refused}");

    // One that was killed leaves what the next one clears away.
    let left = site.path("restored/restore.unfinished/store");
    fs::create_dir_all(&left).expect("made");
    fs::write(left.join("db"), [1; 1000]).expect("written");
    site.ok(None, &["restore", &file, "--data-dir", &restored]);
    let mut names: Vec<_> = site.path("restored").read_dir().expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["lock", "store"]);

    fs::write(site.path("master-key"), [8; 32]).expect("written");
    let key = site.text("master-key");
    let refused = site.fails(
        None,
        &[
            "serve",
            "--dev",
            "--data-dir",
            &restored,
            "--master-key-file",
            &key,
            "--grpc-listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
        ],
    );
    assert!(refused.contains("not the one that this store is sealed under"), "{refused}");
}
