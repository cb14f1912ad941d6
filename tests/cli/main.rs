//! The command line as people and scripts use it: the real binary against a service that remembers what it was asked.

mod mock;
mod rights;
mod sign;

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use self::mock::{Mock, OLD_PASSWORD, ONE_TIME_PASSWORD, Seen, TICKET, USERS};

/// A person with a home directory, and the service that he works with.
struct Person {
    home: TempDir,
    mock: Mock,
}

/// What a command said.
#[derive(Debug)]
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).expect("JSON")
    }
}

impl Person {
    fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a directory"), mock: Mock::start() }
    }

    /// Somebody whose ticket is in the environment.
    fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, &[("SUPOS_AUTH_TICKET", TICKET)], "")
    }

    fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)], stdin: &str) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_supos-auth"))
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("SUPOS_AUTH_SERVER", self.mock.url())
            .envs(environment.iter().copied())
            .current_dir(self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        // A command that does not read its input may be gone already.
        let _ = child.stdin.take().expect("stdin").write_all(stdin.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().expect("the binary ends");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Said { code: status.code().expect("an exit code"), stdout: text(stdout), stderr: text(stderr) }
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.home.path().join(name), content).expect("a file");
    }

    fn tickets(&self) -> Value {
        let path = self.home.path().join(".config/supos-auth/tickets.json");
        serde_json::from_slice(&fs::read(path).expect("the tickets")).expect("JSON")
    }
}

/// The lines of so many users.
fn user_lines(number: usize) -> String {
    let lines: Vec<String> =
        (0..number).map(|number| format!("{{\"userName\": \"user-{number}\", \"password\": \"twelve letters\"}}\n")).collect();
    lines.concat()
}

#[test]
fn signing_in_keeps_a_ticket_until_signing_out() {
    let person = Person::new();
    let said = person.run_with(&["login", "--user", "admin", "--password-file", "-"], &[], &format!("{OLD_PASSWORD}\n"));
    assert_eq!((said.code, said.stdout), (0, format!("signed in at {} as admin\n", person.mock.url())), "{}", said.stderr);
    assert_eq!(person.tickets(), json!({person.mock.url(): {"userName": "admin", "ticket": TICKET}}));
    assert_eq!(person.run_with(&["user", "list", "--limit", "1"], &[], "").code, 0);
    assert_eq!(person.run_with(&["logout"], &[], "").code, 0);
    assert_eq!(person.mock.seen().signed_out_with, [format!("suposTicket={TICKET}")]);
    assert_eq!(person.tickets(), json!({}));
    let said = person.run_with(&["user", "list"], &[], "");
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("you are not signed in") && said.stderr.contains("supos-auth login"), "{}", said.stderr);
}

#[test]
fn a_password_that_must_be_changed_is_changed_first() {
    let person = Person::new();
    person.mock.seen().password_expired = true;
    let login = ["login", "--user", "admin", "--password-file", "-"];
    let said = person.run_with(&login, &[], OLD_PASSWORD);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("--new-password-file"), "{}", said.stderr);
    person.write("new", "new-password-1\n");
    let said = person.run_with(&[&login[..], &["--new-password-file", "new"]].concat(), &[], OLD_PASSWORD);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(person.mock.seen().password, "new-password-1");
}

#[test]
fn where_no_ticket_can_be_kept_nobody_signs_in_and_no_password_is_changed() {
    let person = Person::new();
    person.mock.seen().password_expired = true;
    person.write("new", "new-password-1\n");
    person.write("no-folder", "");
    let nowhere = person.home.path().join("no-folder").display().to_string();
    let login = ["login", "--user", "admin", "--password-file", "-", "--new-password-file", "new"];
    let said = person.run_with(&login, &[("XDG_CONFIG_HOME", &nowhere)], OLD_PASSWORD);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("no-folder/supos-auth/tickets.json") && said.stderr.contains("XDG_CONFIG_HOME"), "{}", said.stderr);
    assert_eq!(person.mock.seen().password, OLD_PASSWORD);
}

#[test]
fn ones_own_password_can_be_changed_with_and_without_a_ticket() {
    let person = Person::new();
    person.write("second", "second-password");
    let change = ["user", "change-password", "--password-file", "-", "--new-password-file", "second"];
    let said = person.run_with(&change, &[("SUPOS_AUTH_TICKET", TICKET)], OLD_PASSWORD);
    assert_eq!(said.code, 0, "{}", said.stderr);
    person.write("second", "third-password");
    let said = person.run_with(&[&change[..], &["--user", "admin"]].concat(), &[], "second-password");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(person.mock.seen().password, "third-password");
    let said = person.run_with(&change, &[("SUPOS_AUTH_TICKET", TICKET)], "wrong-password");
    assert_eq!((said.code, said.stderr.contains("If the current password is right, sign in again")), (1, true), "{}", said.stderr);
}

#[test]
fn refusals_are_told_in_words_and_without_secrets() {
    let person = Person::new();
    let said = person.run_with(&["login", "--user", "admin", "--password-file", "-"], &[], "hunter2hunter2");
    assert_eq!((said.code, said.stderr.as_str()), (1, "error: wrong user name or password\n"));
    let said = person.run(&["user", "get", "nobody"]);
    assert_eq!((said.code, said.stderr.as_str()), (1, "error: there is no users/~nobody\n"));
    let said = person.run(&["app", "list"]);
    assert!(said.stderr.contains("does not know this operation"), "{}", said.stderr);
    let said = person.run_with(&["user", "set-password", "a", "--password-file", "-"], &[("SUPOS_AUTH_TICKET", TICKET)], "hunter2hunter2");
    assert!(said.code == 1 && said.stderr.contains("only an administrator") && !said.stderr.contains("hunter2"), "{}", said.stderr);
    let said = person.run_with(&["user", "list"], &[("SUPOS_AUTH_TICKET", "another")], "");
    assert!(said.code == 1 && said.stderr.contains("supos-auth login") && !said.stderr.contains("another\n"), "{}", said.stderr);
    let said = person.run(&["--server", "http://127.0.0.1:1", "user", "list"]);
    assert_eq!(said.code, 2);
    let said = person.run(&["user", "list", "--server", "http://127.0.0.1:1"]);
    assert!(said.code == 1 && said.stderr.contains("http://127.0.0.1:1 cannot be reached: connection refused\nIs"), "{}", said.stderr);
}

#[test]
fn a_service_that_does_not_answer_is_given_up() {
    let person = Person::new();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let said = person.run(&["user", "list", "--server", &url, "--timeout", "1"]);
    assert!(said.code == 1 && said.stderr.contains("no answer within 1 s"), "{}", said.stderr);
}

#[test]
fn lists_are_complete_or_as_long_as_wanted() {
    let person = Person::new();
    let users = person.run(&["user", "list", "--output", "json"]).json();
    assert_eq!(users.as_array().map(Vec::len), Some(USERS));
    assert_eq!(users[0]["userName"], "user-0");
    assert_eq!(person.run(&["user", "-o", "json", "list", "--limit", "3"]).json().as_array().map(Vec::len), Some(3));
    assert_eq!(person.mock.seen().page_sizes, [500, 500, 500, 3]);
    let table = person.run(&["user", "list", "--limit", "1"]).stdout;
    assert!(table.starts_with("USER NAME") && table.lines().count() == 2 && !table.contains('\u{1b}'), "{table}");
}

#[test]
fn what_the_service_makes_is_shown_once() {
    let person = Person::new();
    let said = person.run(&["user", "create", "zhang.san", "--account-type", "1"]);
    assert!(
        said.code == 0 && said.stdout.contains(&format!("shown this once, to be changed at the first sign-in: {ONE_TIME_PASSWORD}\n")),
        "{said:?}"
    );
    let user = person.run(&["user", "create", "zhang.san", "--output", "json"]).json();
    assert_eq!(
        (&user["userName"], &user["enabled"], &user["oneTimePassword"]),
        (&json!("zhang.san"), &json!(true), &json!(ONE_TIME_PASSWORD))
    );
    let with_password = ["user", "create", "li.si", "--password-file", "-", "--disabled", "--output", "json"];
    let user = person.run_with(&with_password, &[("SUPOS_AUTH_TICKET", TICKET)], "twelve letters").json();
    assert_eq!((user.get("oneTimePassword"), &user["enabled"]), (None, &json!(false)));
    assert_eq!(person.run(&["user", "reset-password", "a", "-o", "json"]).json(), json!({"oneTimePassword": ONE_TIME_PASSWORD}));
}

#[test]
fn an_update_names_what_it_changes() {
    let person = Person::new();
    assert_eq!(person.run(&["user", "update", "a"]).code, 2);
    let said = person.run(&["user", "update", "users/7", "--person-code", "", "--account-type", "0"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let updated = person.mock.seen().updated.pop().expect("an update");
    assert_eq!(updated.user.expect("a user").name, "users/7");
    assert_eq!(updated.update_mask.expect("a mask").paths, ["person_code", "account_type"]);
}

#[test]
fn nothing_is_deleted_without_consent() {
    let person = Person::new();
    let said = person.run_with(&["user", "delete", "a"], &[("SUPOS_AUTH_TICKET", TICKET)], "y\n");
    assert!(said.code == 2 && said.stderr.contains("--yes"), "{}", said.stderr);
    assert!(person.mock.seen().deleted.is_empty());
    assert_eq!(person.run(&["user", "delete", "a", "--yes"]).stdout, "deleted the user a\n");
    assert_eq!(person.run(&["user", "delete", "users/7", "--yes", "-o", "json"]).stdout, "{}\n");
    assert_eq!(person.mock.seen().deleted, ["users/~a", "users/7"]);
}

#[test]
fn a_file_is_imported_as_a_whole() {
    let person = Person::new();
    person.write("users.jsonl", &user_lines(20_000).replace('\n', "\n\n"));
    let said = person.run(&["user", "import", "users.jsonl", "--dry-run"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "users.jsonl is good: 20000 users would be imported\n"), "{}", said.stderr);
    assert!(matches!(&*person.mock.seen(), Seen { dry_runs: 1, imported, .. } if imported.is_empty()));
    let said = person.run(&["user", "import", "users.jsonl"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "imported 20000 users\n"), "{}", said.stderr);
    let seen = person.mock.seen();
    assert_eq!(seen.imported.len(), 20_000);
    assert!(seen.imported[19_999].user.as_ref().is_some_and(|user| user.user_name == "user-19999" && user.enabled()));
}

#[test]
fn a_small_import_says_what_comes_next() {
    let person = Person::new();
    let said = person.run_with(&["user", "import", "-", "-o", "json"], &[("SUPOS_AUTH_TICKET", TICKET)], "{\"userName\": \"a\"}");
    assert_eq!((said.code, said.json()), (0, json!({"checked": 1, "stored": 1})), "{}", said.stderr);
    assert!(said.stderr.contains("1 user in the file had no password"), "{}", said.stderr);
}

#[test]
fn a_mistake_in_the_file_stores_nothing() {
    let person = Person::new();
    person.write("users.jsonl", "{\"userName\": \"a\"}\n{\"userName\": \"b\", \"pasword\": \"hunter2hunter2\"}\n{\"userName\": \"a\"}\n");
    let said = person.run(&["user", "import", "users.jsonl"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("\nusers.jsonl:2: pasword: unknown field; there are "), "{}", said.stderr);
    assert!(said.stderr.contains("\nusers.jsonl:3: userName: is that of line 1, too\n"), "{}", said.stderr);
    assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
    assert!(person.mock.seen().imported.is_empty());
}

#[test]
fn a_late_mistake_breaks_the_call_off_and_does_not_end_it() {
    let person = Person::new();
    person.write("users.jsonl", &(user_lines(5_000) + "{\"userName\": "));
    let said = person.run(&["user", "import", "users.jsonl"]);
    assert_eq!(said.stderr, "error: nothing was imported: there is 1 mistake\nusers.jsonl:5001: not JSON: the object has no end\n");
    let start = Instant::now();
    while person.mock.seen().broken_imports == 0 && start.elapsed() < Duration::from_secs(10) {
        std::thread::yield_now();
    }
    assert!(matches!(&*person.mock.seen(), Seen { broken_imports: 1, imported, .. } if imported.is_empty()));
}

#[test]
fn the_line_that_the_service_refuses_is_named() {
    let person = Person::new();
    // The service refuses early and reads no further, while the file is far longer than what fits into any buffer.
    let rest = user_lines(50_000);
    person.write("users.jsonl", &format!("{{\"userName\": \"a\"}}\n\n\n{{\"userName\": \"taken\"}}\n{rest}"));
    let said = person.run(&["user", "import", "users.jsonl"]);
    assert_eq!(said.stderr, "error: nothing was imported: the service found 1 mistake\nusers.jsonl:4: userName: exists already\n");
    assert_eq!(said.code, 1);
    let said = person.run_with(&["user", "import", "users.jsonl"], &[("SUPOS_AUTH_TICKET", "another")], "");
    assert_eq!(said.stderr, "error: the ticket is not good\nSign in: `supos-auth login`.\n");
}

#[test]
fn health_succeeds_only_when_serving() {
    let person = Person::new();
    let said = person.run(&["health"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "SERVING\n"));
    let said = person.run(&["health", "--service", "supos.auth.admin.v1.UserService"]);
    assert_eq!((said.code, said.stdout.as_str()), (1, "NOT_SERVING\n"));
    assert_eq!(person.run(&["health", "--service", "nothing"]).code, 1);
    assert_eq!(person.run(&["health", "--server", "http://127.0.0.1:1"]).code, 1);
}

#[test]
fn the_descriptor_is_written_as_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_supos-auth")).arg("descriptor").output().expect("the binary runs");
    assert!(output.status.success());
    assert_eq!(output.stdout, supos_auth::grpc::pb::DESCRIPTOR);
}

#[test]
fn help_and_usage() {
    let person = Person::new();
    let help = person.run(&["--help"]);
    assert!(help.code == 0 && help.stdout.contains("Examples:") && help.stdout.contains("Exit codes:"));
    assert!(person.run(&["key", "rewrap", "--help"]).stdout.contains("a stopped service"));
    assert_eq!(person.run(&["user", "lst"]).code, 2);
    assert_eq!(person.run(&["login", "--user", "a", "--password-file", "-", "--new-password-file", "-"]).code, 2);
    assert_eq!(person.run(&["user", "list", "--ca-file", "x"]).code, 2);
}
