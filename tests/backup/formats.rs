//! Backups and stores of other versions.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;
use supos_auth::{
    backup::{self, Unusable},
    core::{clock::Timestamp, secret::BearerHash},
    store::{OneUse, ReplayStore as _, SessionStore as _, record::Record, sled::SledStore},
};
use tempfile::TempDir;

use crate::stores;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// A store that the last version with format 1 has written, with a record of each kind.
pub(crate) fn store_of_format_1(folder: &Path) -> SledStore {
    let to = folder.join("store");
    fs::create_dir(&to).expect("a folder");
    for name in ["conf", "db"] {
        fs::copy(Path::new(DATA).join("store-format-1").join(name), to.join(name)).expect("copied");
    }
    SledStore::open(folder).expect("it opens")
}

pub(crate) fn lines(records: &[Record]) -> String {
    records.iter().map(|record| serde_json::to_string(record).expect("JSON") + "\n").collect()
}

#[tokio::test]
async fn a_store_of_format_1_is_opened_with_all_that_it_holds() {
    let folder = TempDir::new().expect("a folder");
    let store = store_of_format_1(folder.path());
    let records = stores::export(&store).await;
    let expected = Path::new(DATA).join("store-format-1.jsonl");
    let found = lines(&records);
    let known = fs::read_to_string(&expected).unwrap_or_default();
    assert_eq!(found, known, "if that is right, raise the formats (src/core/model.rs), and write it to {}", expected.display());

    let now = Timestamp::from_millis(1_700_000_100_000);
    assert!(store.session_of_ticket(&BearerHash::of_ticket("ticket-b1"), now).await.expect("read").is_some());
    assert!(!store.use_once(OneUse { hash: BearerHash::of_sign_in("once"), until: now }).await.expect("read"), "what was used up stays so");
}

/// The names of all fields, those inside others, too.
fn fields(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            into.extend(object.keys().cloned());
            object.values().for_each(|inside| fields(inside, into));
        }
        Value::Array(array) => array.iter().for_each(|inside| fields(inside, into)),
        _ => {}
    }
}

#[tokio::test]
async fn every_field_of_a_backup_is_in_its_documentation() {
    let folder = TempDir::new().expect("a folder");
    let file = String::from_utf8(stores::take(&store_of_format_1(folder.path())).await).expect("text");
    let documentation = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/backup.md")).expect("it is there");
    for line in file.lines() {
        let record: Value = serde_json::from_str(line).expect("JSON");
        let kind = record["kind"].as_str().expect("a kind");
        let rows: String = documentation.lines().filter(|row| row.starts_with('|') && row.contains(&format!("`{kind}`"))).collect();
        let mut names = BTreeSet::new();
        fields(&record, &mut names);
        // What apps do that is deprecated goes by the operation's name, times have parts, and an ended family is as a family.
        for name in
            names.iter().filter(|name| !["kind", "secs", "nanos"].contains(&name.as_str()) && !name.contains('.') && kind != "ended_family")
        {
            assert!(rows.contains(&format!("`{name}`")), "{name} of {kind}");
        }
    }
}

#[tokio::test]
async fn what_a_backup_holds_comes_back_record_for_record() {
    let (first, second) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = store_of_format_1(first.path());
    let file = stores::take(&store).await;
    let summary = backup::check(file.as_slice(), |_, _| {}).expect("a backup");
    assert_eq!(summary.kinds.len(), 14, "a record of each kind: {:?}", summary.kinds);
    let other = SledStore::open(second.path()).expect("a store");
    stores::put(&file, &other).await;
    assert_eq!(lines(&stores::export(&other).await), lines(&stores::export(&store).await));
}

#[tokio::test]
async fn a_backup_that_was_changed_cut_or_written_by_a_newer_version_is_refused() {
    let folder = TempDir::new().expect("a folder");
    let file = stores::take(&store_of_format_1(folder.path())).await;
    let text = String::from_utf8(file.clone()).expect("text");
    let check = |file: &[u8]| backup::check(file, |_, _| {}).expect_err("it is refused");
    for end in [file.len() - 1, file.len() / 2, file.len() / 3, text.find('\n').expect("lines") + 1] {
        assert!(matches!(check(&file[..end]), Unusable::Cut(_)), "cut after {end} bytes");
    }
    let trailer = text.trim_end().rfind('\n').expect("lines") + 1;
    assert!(matches!(check(&file[..trailer]), Unusable::Cut(_)), "without its last line");
    for at in (0..file.len()).step_by(97) {
        let mut changed = file.clone();
        changed[at] ^= 1;
        check(&changed);
    }
    let without_one: String = text
        .split_inclusive('\n')
        .filter(|line| !line.contains("\"user-"))
        .enumerate()
        .filter(|(at, _)| *at != 3)
        .map(|(_, line)| line)
        .collect();
    assert!(matches!(check(without_one.as_bytes()), Unusable::Checksum));
    assert!(matches!(check(&[file.as_slice(), b"more\n"].concat()), Unusable::Damaged { .. }));
    let newer = text.replacen("\"format\":1", "\"format\":2", 1).replacen("\"version\":\"", "\"version\":\"9.", 1);
    let refused = check(newer.as_bytes()).to_string();
    assert!(refused.contains("format 2") && refused.contains("supos-auth 9."), "{refused}");
    for other in ["", "{}\n", "PK\u{3}\u{4}", "{\"kind\":\"app\",\"format\":1,\"version\":\"1\"}\n"] {
        assert!(matches!(check(other.as_bytes()), Unusable::NoBackup), "{other:?}");
    }
}
