//! An OpenID provider that is not ours: the Python package `oidc-provider-mock`.

use std::ffi::OsString;

use super::{
    process::{Log, Process},
    tools,
};

/// A provider that runs until this is dropped.
pub(crate) struct Provider {
    _process: Process,
    _folder: tempfile::TempDir,
    /// Where it is: `http://127.0.0.1:12345`.
    pub(crate) url: String,
}

impl Provider {
    /// Starts one on a free port.
    pub(crate) fn start() -> Self {
        let (log, folder) = (Log::default(), tempfile::TempDir::new().expect("a folder"));
        let arguments: Vec<OsString> = ["-m", "oidc_provider_mock", "--port", "0"].map(OsString::from).into();
        let process = Process::start(tools::python().as_os_str(), folder.path(), arguments, &[], &log);
        let url = log.wait_for(0, |line| Some(line.split_once("running on ")?.1.split_whitespace().next()?.to_owned()));
        let url = url.unwrap_or_else(|| panic!("the provider does not start:\n{}", log.since(0).join("\n")));
        Self { _process: process, _folder: folder, url }
    }
}
