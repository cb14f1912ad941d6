//! Somebody at a browser, as far as HTTP shows: keeps cookies, reads forms, follows no redirect by itself.

use std::collections::BTreeMap;

use reqwest::{RequestBuilder, header::HeaderMap};

use super::world::{World, query};

/// A browser without a screen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Visitor {
    pub(crate) cookies: BTreeMap<String, String>,
    /// Headers that it sends beside its own.
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// What it sees.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Where it is sent on to.
    #[track_caller]
    pub(crate) fn location(&self) -> &str {
        assert!((300..400).contains(&self.status), "no redirect: {} {}", self.status, self.text);
        self.header("location")
    }

    /// The value of the sealed field of the first form.
    #[track_caller]
    pub(crate) fn form(&self) -> String {
        self.text.split_once("name=\"form\" value=\"").and_then(|(_, rest)| rest.split('"').next()).expect("a form").to_owned()
    }

    /// What the page says in its heading.
    pub(crate) fn heading(&self) -> &str {
        self.text.split_once("<h1>").and_then(|(_, rest)| rest.split("</h1>").next()).unwrap_or_default()
    }

    /// What the page warns of.
    pub(crate) fn alert(&self) -> &str {
        let (_, rest) = self.text.split_once("role=\"alert\"").unwrap_or_default();
        rest.split_once('>').and_then(|(_, rest)| rest.split('<').next()).unwrap_or_default()
    }
}

impl Visitor {
    pub(crate) async fn get(&mut self, world: &World, target: &str) -> Seen {
        self.send(world.http.get(world.url(target))).await
    }

    pub(crate) async fn post(&mut self, world: &World, target: &str, fields: &[(&str, &str)]) -> Seen {
        let fields: Vec<(&str, String)> = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let request = world.http.post(world.url(target)).header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(query(&fields))).await
    }

    async fn send(&mut self, request: RequestBuilder) -> Seen {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = request.header("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        let request = self.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        let response = request.send().await.expect("an answer");
        for cookie in response.headers().get_all("set-cookie") {
            let cookie = cookie.to_str().expect("a cookie is text");
            let (name, value) = cookie.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie has a name");
            if cookie.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Seen { status, headers, text: response.text().await.expect("a body") }
    }
}
