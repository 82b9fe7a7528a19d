//! Small rules on text: how input is quoted back, which names are names.

/// Quotes input in an error: short, printable, on one line.
pub(crate) fn excerpt(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_EXCERPT)
        .flat_map(char::escape_default)
        .collect();
    if text.chars().nth(MAX_EXCERPT).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// A segment of `provider/environment/name`: it becomes part of a path, so it holds nothing that a path gives a meaning to.
pub(crate) fn is_segment(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    (1..=MAX_SEGMENT).contains(&bytes.len())
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// What [`is_segment`] asks for, in words.
pub(crate) const SEGMENT_RULE: &str =
    "1 to 64 characters of A-Z, a-z, 0-9, `-` and `_`, the first and last a letter or digit";

/// The name of an entry: what environments take as a variable's name.
pub(crate) fn is_key(text: &str) -> bool {
    let bytes = text.as_bytes();
    let head = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    (1..=MAX_KEY).contains(&bytes.len())
        && bytes.first().is_some_and(head)
        && bytes.iter().all(|byte| head(byte) || byte.is_ascii_digit())
}

/// What [`is_key`] asks for, in words.
pub(crate) const KEY_RULE: &str =
    "1 to 128 characters of A-Z, a-z, 0-9 and `_`, not starting with a digit";

/// Free text of people: bounded and without control characters, so that it forges no line of a log.
pub(crate) fn is_label(text: &str, max_chars: usize) -> bool {
    !text.trim().is_empty()
        && text.chars().count() <= max_chars
        && !text.chars().any(char::is_control)
}

const MAX_EXCERPT: usize = 80;
const MAX_SEGMENT: usize = 64;
const MAX_KEY: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_printable() {
        assert_eq!(excerpt("a\r\nb\u{1b}[31m"), "`a\\r\\nb\\u{1b}[31m`");
        assert_eq!(
            excerpt(&"x".repeat(100)),
            format!("`{}...`", "x".repeat(80))
        );
    }

    #[test]
    fn segments_hold_nothing_that_a_path_gives_a_meaning_to() {
        for good in ["stripe", "billing-bot", "a", "v2_1", "PROD"] {
            assert!(is_segment(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a.b",
            "-a",
            "a-",
            "a b",
            "ä",
            "a%2e",
            "a\0",
            &"x".repeat(65),
        ] {
            assert!(!is_segment(bad), "{bad}");
        }
    }

    #[test]
    fn keys_are_names_of_variables() {
        for good in ["STRIPE_SECRET_KEY", "_x", "a1"] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", "1A", "A-B", "A B", "A=B", "Ä", &"K".repeat(129)] {
            assert!(!is_key(bad), "{bad}");
        }
    }

    #[test]
    fn labels_have_no_control_characters() {
        assert!(is_label("Billing bot \u{1f916}", 100));
        for bad in ["", "  ", "a\nb", "a\u{1b}b", "long"] {
            assert!(!is_label(bad, 3), "{bad:?}");
        }
    }
}
