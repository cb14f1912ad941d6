//! Rights of apps and users, and what apps still do.

use serde_json::json;

use super::{
    Person,
    mock::apps::{APP_SECRET, BUSY_APPS},
};

const NOTE: &str = "note: a signature without a date does not carry";

#[test]
fn an_app_is_made_with_the_rights_it_was_given() {
    let person = Person::new();
    let create = ["app", "create", "shop", "--redirect-uri", "https://shop.example/*"];
    let said = person.run(&[&create[..], &["--right", "tokens.inspect", "--right", "sessions.end", "--output", "json"]].concat());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let app = said.json();
    assert_eq!(
        (&app["rights"], &app["signatureRequiresDate"], &app["secret"]),
        (&json!(["tokens.inspect", "sessions.end"]), &json!(false), &json!(APP_SECRET))
    );
    let said = person.run(&[&create[..], &["--right", "admin", "--signature-requires-date"]].concat());
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    for (what, value) in [("rights:", "admin"), ("signature needs a date:", "yes")] {
        assert!(said.stdout.lines().any(|line| line.starts_with(what) && line.ends_with(value)), "{}", said.stdout);
    }
    assert_eq!(person.run(&[&create[..], &["--no-rights", "--signature-requires-date", "false"]].concat()).code, 0);
    let made = person.mock.seen().made_apps.pop().and_then(|request| request.app).expect("an app");
    assert!(made.rights.is_empty() && !made.signature_requires_date);
    assert_eq!(person.run(&[&create[..], &["--no-rights", "--right", "admin"]].concat()).code, 2);
}

#[test]
fn who_gives_a_right_that_an_undated_signature_does_not_carry_is_told() {
    let person = Person::new();
    let create = ["app", "create", "shop", "--redirect-uri", "https://shop.example/*", "--right"];
    let said = person.run(&[&create[..], &["admin"]].concat());
    assert_eq!((said.code, said.stderr), (0, format!("{NOTE} admin: see --signature-requires-date\n")));
    let said = person.run(&["app", "update", "shop", "--right", "identity_providers.write", "--right", "admin"]);
    assert_eq!((said.code, said.stderr), (0, format!("{NOTE} admin and identity_providers.write: see --signature-requires-date\n")));
    assert_eq!(person.run(&["app", "update", "shop", "--right", "admin", "--signature-requires-date"]).stderr, "");
    person.write("apps.jsonl", r#"{"appId": "a", "redirectUris": ["https://a.example/*"], "rights": ["admin"]}"#);
    let said = person.run(&["app", "import", "apps.jsonl"]);
    assert!(said.stderr.contains("1 app in the file had rights that a signature without a date does not carry"), "{}", said.stderr);
}

#[test]
fn an_update_changes_rights_alone_when_they_are_given() {
    let person = Person::new();
    for (arguments, paths) in [
        (&["--display-name", "x"][..], &["display_name"][..]),
        (&["--right", "sessions.end"], &["rights"]),
        (&["--no-rights"], &["rights"]),
        (&["--signature-requires-date"], &["signature_requires_date"]),
        (&["--signature-requires-date", "false", "--no-rights"], &["rights", "signature_requires_date"]),
    ] {
        assert_eq!(person.run(&[&["app", "update", "shop"], arguments].concat()).code, 0, "{arguments:?}");
        let updated = person.mock.seen().updated_apps.pop().expect("an update");
        assert_eq!(updated.update_mask.expect("a mask").paths, paths);
    }
    for (arguments, rights) in [(&["--right", "sessions.end"][..], &["sessions.end"][..]), (&["--no-rights"], &[])] {
        assert_eq!(person.run(&[&["user", "update", "a"], arguments].concat()).code, 0, "{arguments:?}");
        let updated = person.mock.seen().updated.pop().expect("an update");
        assert_eq!(
            (updated.user.expect("a user").rights, updated.update_mask.expect("a mask").paths),
            (rights.iter().map(|&right| right.to_owned()).collect(), vec!["rights".to_owned()])
        );
    }
}

#[test]
fn a_user_is_made_with_the_rights_he_was_given() {
    let person = Person::new();
    let user = person.run(&["user", "create", "zhang.san", "--right", "tokens.inspect", "--output", "json"]).json();
    assert_eq!(user["rights"], json!(["tokens.inspect"]));
    assert_eq!(person.run(&["user", "create", "li.si", "--no-rights"]).code, 0);
    let made = person.mock.seen().made_users.pop().and_then(|request| request.user).expect("a user");
    assert_eq!((made.user_name.as_str(), made.rights.len()), ("li.si", 0));
}

#[test]
fn imported_lines_may_have_rights() {
    let person = Person::new();
    person.write(
        "apps.jsonl",
        r#"{"appId": "a", "redirectUris": ["https://a.example/*"], "rights": ["admin"], "signatureRequiresDate": true, "secret": "s"}"#,
    );
    let said = person.run(&["app", "import", "apps.jsonl"]);
    assert_eq!((said.code, said.stdout.as_str(), said.stderr.as_str()), (0, "imported 1 app\n", ""));
    let made = person.mock.seen().made_apps.pop().and_then(|request| request.app).expect("an app");
    assert!(made.rights == ["admin"] && made.signature_requires_date);
    person.write("users.jsonl", "{\"userName\": \"a\", \"password\": \"twelve letters\", \"rights\": [\"sessions.end\"]}\n");
    assert_eq!(person.run(&["user", "import", "users.jsonl"]).code, 0);
    let made = person.mock.seen().imported.pop().and_then(|request| request.user).expect("a user");
    assert_eq!(made.rights, ["sessions.end"]);
}

#[test]
fn what_apps_still_do_is_a_row_for_each_thing_and_json_for_each_app() {
    let person = Person::new();
    let said = person.run(&["app", "usage", "--limit", "2"]);
    let rows: Vec<Vec<&str>> =
        said.stdout.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["APP ID", "WHAT", "TIMES", "LAST"],
            vec!["app-0", "v281.SignOut", "7", "2023-11-14T22:13:20Z"],
            vec!["app-0", "signature without a date", "9"],
            vec!["app-1", "signature without a date", "9"],
        ],
        "{}",
        said.stderr
    );
    let all = person.run(&["app", "usage", "-o", "json"]).json();
    assert_eq!(all.as_array().map(Vec::len), Some(BUSY_APPS));
    assert_eq!(
        all[0],
        json!({
            "app": "apps/app-0", "undatedSignatures": "9",
            "deprecatedCalls": [{"operation": "v281.SignOut", "calls": "7", "lastCallTime": "2023-11-14T22:13:20Z"}],
        })
    );
}
