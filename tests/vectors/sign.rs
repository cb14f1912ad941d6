//! The worked cases of Sign in `sign.json`, which were made elsewhere. For every kind of test that goes through them.

use std::collections::BTreeMap;

/// A request, and what its signature is.
#[derive(serde::Deserialize)]
pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) ak: String,
    pub(crate) sk: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) wire_query: String,
    pub(crate) content_type: String,
    pub(crate) x_mc_headers: BTreeMap<String, String>,
    pub(crate) canonical: String,
    pub(crate) authorization: String,
}

impl Vector {
    /// The path and query as they are sent.
    pub(crate) fn target(&self) -> String {
        if self.wire_query.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, self.wire_query) }
    }
}

/// All of them.
pub(crate) fn vectors() -> Vec<Vector> {
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("sign.json")).expect("the cases are JSON");
    assert!(vectors.len() >= 13);
    vectors
}
