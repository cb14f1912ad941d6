//! The operations that have an HTTP binding, as the protos say it.

use super::pb;

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// `/package.Service/Method`.
    pub rpc: &'static str,
    /// Its HTTP methods and paths.
    pub bindings: &'static [Binding],
    /// The JSON names of its parameters.
    pub parameters: &'static [&'static str],
    /// Whether callers should use another one.
    pub deprecated: bool,
}

/// An HTTP method and a path.
#[derive(Debug)]
pub struct Binding {
    /// The HTTP method.
    pub method: &'static str,
    /// The path; `{field_name}` stands for one segment.
    pub path: &'static str,
}

/// All operations.
pub static OPERATIONS: &[Operation] = include!(concat!(env!("OUT_DIR"), "/operations.rs"));

/// The request message of an operation.
pub trait Request {
    /// Its texts, by JSON name.
    fn texts(&self) -> Vec<(&'static str, &str)>;

    /// The JSON body that came over HTTP.
    fn json(&self) -> Option<&pb::google::api::HttpBody>;
}

include!(concat!(env!("OUT_DIR"), "/requests.rs"));

impl Operation {
    /// The operation of a gRPC method.
    #[must_use]
    pub fn of_rpc(path: &str) -> Option<&'static Self> {
        OPERATIONS.iter().find(|operation| operation.rpc == path)
    }

    /// The segments of `path` that stand for parameters, as they were sent, when `method` and `path` are bound to this operation.
    #[must_use]
    pub fn bound(&self, method: &str, path: &str) -> Option<Vec<(&'static str, String)>> {
        self.bindings.iter().filter(|binding| binding.method == method).find_map(|binding| {
            let mut captured = Vec::new();
            // `/x/` is transcoded like `/x`.
            let mut given = path.strip_suffix('/').unwrap_or(path).split('/');
            for expected in binding.path.split('/') {
                let given = given.next()?;
                match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                    Some(field) => captured.push((field, given.to_owned())),
                    None if given == expected => {}
                    None => return None,
                }
            }
            given.next().is_none().then_some(captured)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_bound_to_its_own_paths_alone() {
        let valid = Operation::of_rpc("/supos.auth.v281.AuthService/ValidateToken").unwrap();
        assert_eq!(valid.bound("GET", "/open-api/supos/auth/v2/a.b/valid"), Some(vec![("access_token", "a.b".to_owned())]));
        assert!(valid.bound("POST", "/open-api/supos/auth/v2/a.b/valid").is_none());
        assert!(valid.bound("GET", "/open-api/supos/auth/v2/a/b/valid").is_none());
        assert!(valid.bound("GET", "/open-api/supos/auth/v2/username").is_none());
    }

    #[test]
    fn every_documented_path_is_there_once() {
        let mut paths: Vec<(&str, &str)> = OPERATIONS.iter().flat_map(|o| o.bindings).map(|b| (b.method, b.path)).collect();
        assert_eq!(paths.len(), 18);
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), 18);
    }
}
