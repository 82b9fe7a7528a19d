//! `cookie`: one cookie of a request (RFC 6265, section 4.2); the agent's others stay.

use http::HeaderValue;
use percent_encoding::percent_decode;
use zeroize::Zeroizing;

use super::header;

/// What becomes of a request's Cookie fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cookies {
    /// They stay as they are.
    Unchanged,
    /// This one stands in their place.
    Set(HeaderValue),
    /// None is left.
    Removed,
}

/// Takes the cookies named in `strip` out of the agent's fields and adds ours, each as `name=value`.
pub(super) fn rewrite<'a>(
    fields: impl Iterator<Item = &'a [u8]>,
    strip: &[String],
    add: impl Iterator<Item = &'a [u8]>,
) -> Cookies {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut is_changed = false;
    for pair in fields.flat_map(|field| field.split(|byte| *byte == b';')) {
        let pair = pair.trim_ascii();
        if strip.iter().any(|name| is_named(pair, name)) {
            is_changed = true;
        } else if !pair.is_empty() {
            kept.push(pair);
        }
    }
    let count = kept.len();
    kept.extend(add);
    if kept.len() == count && !is_changed {
        return Cookies::Unchanged;
    }
    if kept.is_empty() {
        return Cookies::Removed;
    }
    // `join` sizes its buffer once, so no half-filled copy is left behind.
    Cookies::Set(header::sensitive(Zeroizing::new(kept.join(&b"; "[..]))))
}

/// Whether a Set-Cookie field sets one of these.
pub(super) fn is_one_of(field: &[u8], names: &[String]) -> bool {
    let pair = field.split(|byte| *byte == b';').next().unwrap_or_default();
    names.iter().any(|name| is_named(pair.trim_ascii(), name))
}

/// Whether some server reads the pair's name as `name`: escapes, case, and `.` for `_` (PHP) do not count.
fn is_named(pair: &[u8], name: &str) -> bool {
    let plain = |byte: u8| match byte {
        b'.' | b' ' => b'_',
        other => other.to_ascii_lowercase(),
    };
    let found = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    percent_decode(found.trim_ascii_end())
        .map(plain)
        .eq(name.bytes().map(plain))
}

/// Why a key's value cannot be a cookie's (`cookie-octet` of RFC 6265, section 4.1.1), if it cannot.
pub(super) fn why_not_a_cookie_value(value: &[u8]) -> Option<&'static str> {
    let is_octet =
        |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';' | b'\\');
    match value {
        [] => Some("it is empty"),
        _ if !value.iter().all(is_octet) => {
            Some("it holds a space, a quote, a comma, a semicolon, a backslash or non-ASCII text")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(fields: &[&str], add: &[&str]) -> Option<String> {
        let strip = ["session".to_owned()];
        let fields = fields.iter().map(|field| field.as_bytes());
        match rewrite(fields, &strip, add.iter().map(|pair| pair.as_bytes())) {
            Cookies::Unchanged => None,
            Cookies::Removed => Some(String::new()),
            Cookies::Set(value) => {
                assert!(value.is_sensitive());
                Some(value.to_str().unwrap().to_owned())
            }
        }
    }

    #[test]
    fn the_agents_cookie_of_that_name_goes_and_the_others_stay() {
        for (fields, after) in [
            (&["a=1; session=x; b=2"][..], "a=1; b=2; session=KEY"),
            (&["session=x", "session=y; a=1"], "a=1; session=KEY"),
            (&["SESSION=x; s%65ssion=y;a=1;"], "a=1; session=KEY"),
            (&["session"], "session=KEY"),
            (&[], "session=KEY"),
        ] {
            assert_eq!(rewritten(fields, &["session=KEY"]).as_deref(), Some(after));
        }
    }

    #[test]
    fn without_a_key_the_slot_is_emptied_all_the_same() {
        assert_eq!(rewritten(&["session=x"], &[]).as_deref(), Some(""));
        assert_eq!(rewritten(&["a=1;b=2"], &[]), None);
    }

    #[test]
    fn a_set_cookie_is_told_by_its_name_alone() {
        let names = ["session".to_owned()];
        for field in ["session=x; Path=/", " Session = x", "s%65ssion=", "session"] {
            assert!(is_one_of(field.as_bytes(), &names), "{field}");
        }
        for field in ["theme=session; session=x", "sessions=1", ""] {
            assert!(!is_one_of(field.as_bytes(), &names), "{field}");
        }
    }

    #[test]
    fn a_value_that_would_end_the_cookie_is_none() {
        for value in [&b""[..], b"a;b", b"a b", b"a\"", b"a,b", b"a\\b", b"a\r\nb"] {
            assert!(why_not_a_cookie_value(value).is_some());
        }
        assert_eq!(why_not_a_cookie_value(b"s%3Aabc.DEF/+="), None);
    }
}
