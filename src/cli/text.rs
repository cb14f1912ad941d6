//! Small rules about text.

use std::borrow::Cow;

/// Text from elsewhere that is safe to print: control characters are escaped, so that nothing stored at the service can steer a
/// terminal. Line ends stay where the caller put several lines together.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && c != '\n';
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .fold(String::with_capacity(text.len() + 8), |mut safe, c| {
            if harmful(c) {
                safe.extend(c.escape_default());
            } else {
                safe.push(c);
            }
            safe
        })
        .into()
}

/// `1 app`, `2 apps`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("\u{1b}[31mred\u{7}"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(printable("张三\nsecond"), "张三\nsecond");
    }

    #[test]
    fn counts_in_words() {
        assert_eq!([count(0, "app"), count(1, "app"), count(2, "app")], ["0 apps", "1 app", "2 apps"]);
    }
}
