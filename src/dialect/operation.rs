//! The operations that have an HTTP binding, as the protos say it.

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// `/package.Service/Method`.
    pub rpc: &'static str,
    /// The short name that operators know it by: `v281.SignOut`.
    pub name: &'static str,
    /// Its HTTP methods and paths.
    pub bindings: &'static [Binding],
    /// The JSON names of its parameters.
    pub parameters: &'static [&'static str],
    /// Those of them that are true or false; the others are texts.
    pub flags: &'static [&'static str],
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

impl Operation {
    /// The operation of a gRPC method.
    #[must_use]
    pub fn of_rpc(path: &str) -> Option<&'static Self> {
        OPERATIONS.iter().find(|operation| operation.rpc == path)
    }

    /// The operation that an HTTP method and path are bound to.
    #[must_use]
    pub fn of_http(method: &str, path: &str) -> Option<&'static Self> {
        OPERATIONS.iter().find(|operation| operation.bound(method, path).is_some())
    }

    /// The name of the parameter that `name` spells, in whatever way: names are told apart without case and underscores.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&'static str> {
        self.parameters.iter().copied().find(|parameter| folded(parameter).eq(folded(name)))
    }

    /// The segments of `path` that stand for parameters, as they were sent, when `method` and `path` are bound to this operation.
    #[must_use]
    pub fn bound<'a>(&self, method: &str, path: &'a str) -> Option<Vec<(&'static str, &'a str)>> {
        self.bindings.iter().filter(|binding| binding.method == method).find_map(|binding| {
            let mut captured = Vec::new();
            // `/x/` is transcoded like `/x`.
            let mut given = path.strip_suffix('/').unwrap_or(path).split('/');
            for expected in binding.path.split('/') {
                let given = given.next()?;
                match expected.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                    Some(field) => captured.push((field, given)),
                    None if given == expected => {}
                    None => return None,
                }
            }
            given.next().is_none().then_some(captured)
        })
    }
}

/// A name without what names are not told apart by.
fn folded(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(|&byte| byte != b'_').map(|byte| byte.to_ascii_lowercase())
}

/// Whether `name` is how a parameter is written: its JSON name, or its name in the proto.
#[must_use]
pub fn is_name(name: &str, parameter: &str) -> bool {
    name == parameter || snake_case(parameter) == name
}

/// The name of a parameter in the proto, from its JSON name.
#[must_use]
pub fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_bound_to_its_own_paths_alone() {
        let valid = Operation::of_rpc("/supos.auth.v281.AuthService/ValidateToken").unwrap();
        assert_eq!(valid.bound("GET", "/open-api/supos/auth/v2/a.b/valid"), Some(vec![("access_token", "a.b")]));
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
