//! Redirect URIs: which are taken, which match, and how an answer is put into one (docs/api.md, "Redirect URIs").

use url::Url;

/// The longest redirect URI that is taken, in bytes.
pub const MAX_REDIRECT_URI: usize = 2048;

/// A redirect URI as an app has registered it.
#[derive(Debug)]
enum Entry {
    Exact,
    /// Scheme, host, port and the path up to the `*`.
    Prefix(Url),
}

/// Whether the app may register `entry`.
#[must_use]
pub fn may_register(entry: &str) -> bool {
    entry.len() <= MAX_REDIRECT_URI && parse_entry(entry).is_some()
}

/// Whether a URI is an http or https URL.
#[must_use]
pub fn is_web(uri: &str) -> bool {
    parse(uri).is_some_and(|url| matches!(url.scheme(), "http" | "https"))
}

fn parse_entry(entry: &str) -> Option<Entry> {
    match entry.strip_suffix('*') {
        // The path has to have a `/` of its own in front of the `*`, or the `*` would stand for the end of a host.
        Some(prefix) => {
            let url = parse(prefix)?;
            let is_web = matches!(url.scheme(), "http" | "https");
            (is_web && prefix.ends_with('/') && !prefix.contains(['*', '?', '#']) && url.path().ends_with('/'))
                .then_some(Entry::Prefix(url))
        }
        None if entry.contains(['*', '#']) => None,
        None => parse(entry).map(|_| Entry::Exact),
    }
}

/// Parses a URL that hides nothing: what a browser makes of it is what is compared.
pub(super) fn parse(text: &str) -> Option<Url> {
    if text.len() > MAX_REDIRECT_URI || text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return None;
    }
    let (scheme, rest) = text.split_once(':')?;
    // `https:evil` and `https:/evil` are absolute URLs to a browser; `javascript:` and its like run what follows.
    if !rest.starts_with("//")
        || rest.starts_with("///")
        || matches!(scheme.to_ascii_lowercase().as_str(), "javascript" | "data" | "vbscript" | "file" | "blob" | "about")
    {
        return None;
    }
    // User-info, empty or not: `http://good@evil`.
    let authority = &rest[2..rest[2..].find(['/', '?', '#']).map_or(rest.len(), |end| end + 2)];
    if authority.is_empty() || authority.contains(['@', '%']) {
        return None;
    }
    let path = &rest[2 + authority.len()..];
    let path = &path[..path.find(['?', '#']).unwrap_or(path.len())];
    if hides_a_step(path) {
        return None;
    }
    let url = Url::parse(text).ok()?;
    (url.has_host() && url.username().is_empty() && url.password().is_none() && !url.cannot_be_a_base()).then_some(url)
}

/// Whether a path has a step up or down in it, spelt out or encoded once or more, or an encoded separator.
fn hides_a_step(path: &str) -> bool {
    let path = unfolded(&path.to_ascii_lowercase());
    if path.contains("%2e") || path.contains("%2f") || path.contains("%5c") || path.contains('\\') {
        return true;
    }
    // `..;x=1` is `..` to servers that know path parameters.
    path.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

/// A path whose `%25` are `%`, however often they are encoded: `%252e` is `%2e` to whoever decodes twice.
fn unfolded(path: &str) -> String {
    let mut pieces = path.split('%');
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |path, piece| path + "%" + piece.trim_start_matches("25"))
}

/// A redirect URI that somebody asks for. It is parsed once, however many entries it is compared with: it may be anybody's, and looked for
/// among those of all apps.
#[derive(Debug)]
pub struct Asked<'a> {
    without_fragment: &'a str,
    url: Url,
}

impl<'a> Asked<'a> {
    /// Reads one; none: it matches nothing.
    #[must_use]
    pub fn read(redirect_uri: &'a str) -> Option<Self> {
        Some(Self { without_fragment: without_fragment(redirect_uri), url: parse(redirect_uri)? })
    }

    /// Whether it matches one of those that an app has registered.
    #[must_use]
    pub fn matches(&self, registered: &[String]) -> bool {
        registered.iter().any(|entry| {
            // Without a `*` only the text counts, and this one is read already.
            if !entry.contains('*') {
                return self.without_fragment == entry;
            }
            let Some(Entry::Prefix(prefix)) = parse_entry(entry) else { return false };
            self.url.scheme() == prefix.scheme()
                && self.url.host() == prefix.host()
                && self.url.port_or_known_default() == prefix.port_or_known_default()
                && self.url.path().starts_with(prefix.path())
        })
    }
}

/// Scheme, host and port of a redirect URI.
#[must_use]
pub fn origin(redirect_uri: &str) -> String {
    parse(redirect_uri).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

fn without_fragment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(before, _)| before)
}

/// The redirect URI with `code` and `state` in its query. A `code` and a `state` that it has already are taken out, everything else
/// stays as it is, byte for byte; the fragment stays last.
#[must_use]
pub fn with_answer(redirect_uri: &str, code: &str, state: &str) -> String {
    let (before, fragment) = redirect_uri.split_once('#').map_or((redirect_uri, None), |(before, fragment)| (before, Some(fragment)));
    let (base, query) = before.split_once('?').unwrap_or((before, ""));
    let kept = query.split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
        let name = percent_encoding::percent_decode_str(&name).decode_utf8_lossy().into_owned();
        !pair.is_empty() && name != "code" && name != "state"
    });
    let mut query: Vec<String> = kept.map(str::to_owned).collect();
    query.push(url::form_urlencoded::Serializer::new(String::new()).append_pair("code", code).append_pair("state", state).finish());
    // A location is ASCII: what is not is encoded as a browser would.
    let location = format!("{base}?{}{}", query.join("&"), fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default());
    percent_encoding::utf8_percent_encode(&location, percent_encoding::CONTROLS).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(entry: &str, asked: &str) -> bool {
        Asked::read(asked).is_some_and(|asked| asked.matches(&[entry.to_owned()]))
    }

    #[test]
    fn an_exact_entry_matches_itself_whatever_the_fragment() {
        let entry = "https://app.example/cb?x=1";
        assert!(matched(entry, "https://app.example/cb?x=1"));
        assert!(matched(entry, "https://app.example/cb?x=1#/home"));
        for other in
            ["https://app.example/cb", "https://app.example/cb?x=1&y=2", "https://app.example/CB?x=1", "https://APP.example/cb?x=1"]
        {
            assert!(!matched(entry, other), "{other}");
        }
    }

    #[test]
    fn a_prefix_entry_matches_what_is_below_it_on_the_same_origin() {
        let entry = "http://app.example/a/*";
        for below in [
            "http://app.example/a/",
            "http://app.example/a/b?x=*",
            "http://app.example:80/a/b#f",
            "HTTP://APP.example/a/b",
            "http://app.example/a/b?u=http://x@y/../z\u{e9}",
        ] {
            assert!(matched(entry, below), "{below}");
        }
        for outside in [
            "https://app.example/a/b",
            "http://app.example:81/a/b",
            "http://app.example/ab",
            "http://app.example/a",
            "http://app.example/a/../b",
            "http://app.example/a/%2e%2e/b",
            "http://app.example/a/%252e%252e/b",
            "http://app.example/a/..;/b",
            "http://app.example/a/b%2fc",
            "http://app.example/a/b%5cc",
            "http://app.example/a\\b",
            "http://app.example@evil.example/a/b",
            "http://@app.example/a/b",
            "http://evil.example/a/b",
            "http://app.example.evil.example/a/b",
            "http://app.example%2eevil/a/b",
            "http:/app.example/a/b",
            "http:app.example/a/b",
            "http:///app.example/a/b",
            "//app.example/a/b",
            "/a/b",
            "http://app.example/a/\tb",
            "http://app.example/a/b\n",
            " http://app.example/a/b",
            "javascript://app.example/a/%0aalert(1)",
            "",
        ] {
            assert!(!matched(entry, outside), "{outside}");
        }
    }

    #[test]
    fn a_step_is_found_however_often_it_is_encoded() {
        for times in [0, 1, 2, 7, 500] {
            let percent = format!("%{}", "25".repeat(times));
            for hidden in [format!("/{percent}2e{percent}2e/"), format!("/a{percent}2Fb"), format!("/{percent}5c")] {
                assert!(hides_a_step(&hidden), "{hidden}");
            }
            for honest in [format!("/a{percent}"), format!("/a{percent}20b"), format!("/{percent}225")] {
                assert!(!hides_a_step(&honest), "{honest}");
            }
        }
        for (path, expected) in [("", ""), ("a%2525b%25%252", "a%b%%2"), ("%2%2525", "%2%"), ("25%32", "25%32")] {
            assert_eq!(unfolded(path), expected);
        }
    }

    #[test]
    fn an_entry_whose_star_could_leave_the_host_or_the_path_is_not_taken() {
        for bad in [
            "http://app.example*",
            "http://*/",
            "http://*.example/*",
            "http://app.example/a*",
            "http://app.example:8*/",
            "https://*",
            "*",
            "http://app.example/*/b/*",
            "http://app.example/?x=/*",
            "http://app.example/#/*",
            "http://u@app.example/*",
            "javascript://x/*",
            "data:text/html,x",
            "app/cb",
            "http://app.example/cb#f",
        ] {
            assert!(!may_register(bad), "{bad}");
        }
        for good in ["http://app.example/*", "https://app.example:8443/a/b/*", "http://127.0.0.1:9998/callback", "com.example.app://cb/x"] {
            assert!(may_register(good), "{good}");
        }
    }

    #[test]
    fn the_answer_goes_into_the_query_and_leaves_the_rest_alone() {
        let cases = [
            ("http://a/cb", "http://a/cb?code=C&state=S"),
            ("http://a/cb?", "http://a/cb?code=C&state=S"),
            ("http://a/cb?x=%20+&y", "http://a/cb?x=%20+&y&code=C&state=S"),
            ("http://a/cb?code=old&x=1&state=old&c%6fde=old#/route?code=1", "http://a/cb?x=1&code=C&state=S#/route?code=1"),
            ("http://a/cb?barcode=1", "http://a/cb?barcode=1&code=C&state=S"),
            ("http://a/\u{e9}", "http://a/%C3%A9?code=C&state=S"),
        ];
        for (given, expected) in cases {
            assert_eq!(with_answer(given, "C", "S"), expected);
        }
        assert_eq!(with_answer("http://a/", "C", "a&b=\r\n<"), "http://a/?code=C&state=a%26b%3D%0D%0A%3C");
    }
}
