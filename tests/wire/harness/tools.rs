//! The programs and libraries that the tests need beside the service.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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

/// libfaketime, which gives one process a clock of its own: `FAKETIME_LIB`, else the one that `make tools` fetched, else the system's.
pub(crate) fn faketime() -> PathBuf {
    let fetched = root().join(".tools/venv/lib");
    let folders = [fetched.as_path(), Path::new("/usr/lib"), Path::new("/usr/lib64"), Path::new("/usr/local/lib")];
    named("FAKETIME_LIB")
        .or_else(|| folders.iter().find_map(|folder| find(folder, "libfaketime.so.1", 6)))
        .unwrap_or_else(|| panic!("libfaketime is not there: run `make tools`, or name it in FAKETIME_LIB"))
}

fn named(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(variable).filter(|value| !value.is_empty())?);
    assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
    Some(path)
}

fn find(folder: &Path, name: &str, depth: usize) -> Option<PathBuf> {
    let here = folder.join(name);
    if here.is_file() {
        return Some(here);
    }
    if depth == 0 {
        return None;
    }
    let mut folders: Vec<PathBuf> = folder.read_dir().ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.iter().find_map(|inner| find(inner, name, depth - 1))
}
