//! What the repository says of itself.

/// The versions that first were without a known hole that our callers could reach.
const FIRST_GOOD: [(&str, [u32; 3]); 6] = [
    ("h2", [0, 4, 16]),
    ("tonic", [0, 12, 3]),
    ("crossbeam-epoch", [0, 9, 20]),
    ("jsonwebtoken", [10, 3, 0]),
    ("rustls", [0, 23, 18]),
    ("hyper", [1, 0, 0]),
];

fn locked() -> Vec<(String, [u32; 3])> {
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).expect("Cargo.lock is there");
    let value =
        |block: &str, key: &str| block.lines().find_map(|line| line.strip_prefix(key)).map(|text| text.trim_matches('"').to_owned());
    lock.split("[[package]]")
        .filter_map(|block| {
            let version = value(block, "version = ")?;
            let mut numbers = version.split(['.', '-', '+']).map_while(|number| number.parse().ok());
            Some((value(block, "name = ")?, [numbers.next()?, numbers.next()?, numbers.next()?]))
        })
        .collect()
}

/// `docker compose --profile postgres up` starts all there is.
#[test]
fn what_docker_compose_starts_can_stand_side_by_side() {
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docker-compose.yml")).expect("docker-compose.yml is there");
    let (_, services) = file.split_once("\nservices:\n").expect("it has services");
    let services: Vec<&str> = services.split("\n\n").filter(|block| block.starts_with("  ") && !block.starts_with("   ")).collect();
    assert_eq!(services.len(), 6, "{services:#?}");
    // What one takes over of another is not among these lines, so each says its own.
    for (what, number) in [("- 127.0.0.1:", 2), ("- --data-dir=", 3), ("- --edge-listen=", 3)] {
        let lines = services.iter().flat_map(|service| service.lines()).filter_map(|line| line.trim().strip_prefix(what));
        let said: Vec<&str> = lines.map(|rest| rest.split(" #").next().unwrap_or_default()).collect();
        let different: std::collections::BTreeSet<&str> = said.iter().copied().collect();
        assert_eq!((said.len(), different.len()), (number, number), "{what}: {said:?}");
    }
}

#[test]
fn h28_no_version_of_a_library_has_a_known_hole() {
    let locked = locked();
    for (name, first_good) in FIRST_GOOD {
        let versions: Vec<_> = locked.iter().filter(|(locked, _)| locked == name).collect();
        assert!(!versions.is_empty(), "{name} is not in Cargo.lock: drop it here");
        for (_, version) in versions {
            assert!(*version >= first_good, "{name} {version:?} has a known hole, {first_good:?} has not");
        }
    }
}

#[test]
fn h27_the_jwt_library_has_one_crypto_backend_and_it_is_not_the_one_with_the_rsa_hole() {
    assert!(!locked().iter().any(|(name, _)| name == "rsa"), "the crate rsa has a timing hole with no fix (RUSTSEC-2023-0071)");
}

fn sources(folder: &std::path::Path, all: &mut String) {
    for entry in folder.read_dir().expect("a folder of this repository").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&std::fs::read_to_string(&path).expect("a source is text"));
        }
    }
}

#[test]
fn every_test_that_the_security_table_names_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    sources(&root.join("src"), &mut all);
    sources(&root.join("tests"), &mut all);
    let table = std::fs::read_to_string(root.join("docs/security.md")).expect("docs/security.md is there");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| row")).collect();
    assert!(rows.len() > 40, "the table has {} rows", rows.len());
    for row in rows {
        let tests = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "a row without a test: {row}");
        for test in named {
            assert!(all.contains(&format!("fn {test}(")), "docs/security.md names {test}, and there is no such test");
        }
    }
}
