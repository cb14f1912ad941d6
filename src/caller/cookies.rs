//! The cookies that a browser gets. They have no `Domain`, no script reads them, and where the public URL is https they are for https alone.

use super::{BINDING_COOKIE, BROWSER_COOKIE, TICKET_COOKIE};
use crate::core::{authorities::dance, browser};

/// Makes cookies.
#[derive(Clone, Copy, Debug)]
pub struct Cookies {
    /// Whether they are for https alone.
    pub secure: bool,
}

impl Cookies {
    fn holding(self, name: &str, value: &str, path: &str) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{name}={value}; Path={path}; HttpOnly; SameSite=Lax{secure}")
    }

    /// The ticket. It ends with the browser.
    #[must_use]
    pub fn of_ticket(self, ticket: &str) -> String {
        self.holding(TICKET_COOKIE, ticket, "/")
    }

    /// Takes the ticket away.
    #[must_use]
    pub fn without_ticket(self) -> String {
        format!("{}; Max-Age=0", self.of_ticket(""))
    }

    /// What the browser is known by from now on. It survives a sign-out, and signs nobody in.
    #[must_use]
    pub fn of_browser(self, browser: &str) -> String {
        format!("{}; Max-Age={}", self.holding(BROWSER_COOKIE, browser, "/"), browser::LIFETIME.as_secs())
    }

    /// What the browser shows when it comes back from an authority. It ends by itself and not with a sign-in: another tab may be at an
    /// authority still, and by itself it is good for nothing.
    #[must_use]
    pub fn of_binding(self, binding: &str) -> String {
        format!("{}; Max-Age={}", self.holding(BINDING_COOKIE, binding, "/"), dance::STATE_LIFETIME.as_secs())
    }

    /// Something that only our own pages need, as long as the browser is open.
    #[must_use]
    pub fn of_pages(self, name: &str, value: &str) -> String {
        self.holding(name, value, "/inter-api/auth")
    }
}
