//! English, and Chinese for whoever prefers it.

/// The language of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// Chinese.
    Chinese,
}

impl Language {
    /// What the `accept-language` header of a call prefers.
    #[must_use]
    pub fn of_headers(headers: &http::HeaderMap) -> Self {
        headers.get(http::header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).map_or(Self::English, Self::preferred)
    }

    /// What an `Accept-Language` header prefers (RFC 9110 section 12.5.4): Chinese when it is named and English is not named with a
    /// higher weight or, at the same weight, before it.
    #[must_use]
    pub fn preferred(accept_language: &str) -> Self {
        let mut best = (Self::English, 0);
        for range in accept_language.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1000), weight).unwrap_or(0);
            let language = match tag.split('-').next() {
                Some("zh") => Self::Chinese,
                Some("en" | "*") => Self::English,
                _ => continue,
            };
            if weight > best.1 {
                best = (language, weight);
            }
        }
        best.0
    }
}

/// A weight in thousandths.
fn weight(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chinese_is_for_whoever_prefers_it() {
        for (header, language) in [
            ("", Language::English),
            ("zh", Language::Chinese),
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Chinese),
            ("en-US,en;q=0.9,zh;q=0.8", Language::English),
            ("en;q=0.5, zh-TW;q=0.51", Language::Chinese),
            ("fr, zh;q=0.1", Language::Chinese),
            ("fr", Language::English),
            ("zh;q=0", Language::English),
            ("zh;q=2", Language::English),
            ("*", Language::English),
            ("zhx", Language::English),
        ] {
            assert_eq!(Language::preferred(header), language, "{header}");
        }
    }
}
