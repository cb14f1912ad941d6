//! The programs and libraries that the tests need beside the service.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::process::PATIENCE;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// supos-auth, which is ended (exit code 124) where it serves though it should have refused to.
pub(crate) fn that_ends() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after", "10"]).arg(PATIENCE.as_secs().to_string()).arg(env!("CARGO_BIN_EXE_supos-auth"));
    command
}

/// Envoy: `ENVOY`, else the one that `make tools` fetched, else the one on the `PATH`.
pub(crate) fn envoy() -> PathBuf {
    let on_the_path =
        || env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|folder| folder.join("envoy")).find(|path| path.is_file());
    named("ENVOY")
        .or_else(|| Some(root().join(".tools/envoy")).filter(|path| path.is_file()))
        .or_else(on_the_path)
        .unwrap_or_else(|| panic!("Envoy is not there: run `make tools`, or name one in ENVOY"))
}

/// The Python of the tests: `PYTHON`, else the one that `make tools` made.
pub(crate) fn python() -> PathBuf {
    let made = || Some(root().join(".tools/venv/bin/python")).filter(|path| path.is_file());
    named("PYTHON").or_else(made).unwrap_or_else(|| panic!("the Python of the tests is not there: run `make tools`, or name one in PYTHON"))
}

/// A library to preload (`LD_PRELOAD`), compiled from its source, a file of the tests.
pub(crate) fn preloaded(source: &str) -> PathBuf {
    let source = root().join("tests").join(source);
    let name = source.file_stem().expect("a source has a name").to_string_lossy();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (fresh, library) = (folder.join(format!("{name}.{}.so", std::process::id())), folder.join(format!("{name}.so")));
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let warnings = ["-Wall", "-Wextra", "-Werror"];
    let output = Command::new(&compiler)
        .args(warnings)
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([&fresh, &source])
        .args(["-ldl", "-pthread"])
        .output();
    let output = output.unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    // Another process may be loading the one that is there.
    fs::rename(&fresh, &library).expect("the library can be put in its place");
    library
}

fn named(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(variable).filter(|value| !value.is_empty())?);
    assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
    Some(path)
}
