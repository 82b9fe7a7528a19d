//! `query`: a parameter whose value is a key, and taking out those that the agent brought.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str};
use zeroize::Zeroizing;

/// `name=value` with the value percent-encoded.
pub(super) fn pair(name: &str, value: &[u8]) -> Zeroizing<String> {
    // Three bytes for each at most, so that the buffer does not grow and leave a copy behind.
    let mut pair = Zeroizing::new(String::with_capacity(name.len() + 1 + value.len() * 3));
    pair.push_str(name);
    pair.push('=');
    pair.extend(percent_encoding::percent_encode(value, RESERVED));
    pair
}

/// The query without the parameters named in `strip` and with `add` at its end; `None` if nothing changes, empty if
/// nothing is left.
///
/// What stays, stays byte by byte and in its order.
pub(super) fn rewrite<'a>(
    query: Option<&str>,
    strip: &[String],
    add: impl Iterator<Item = &'a str>,
) -> Option<Zeroizing<String>> {
    let original = query.unwrap_or_default();
    let kept = without(original, strip);
    let add: Vec<&str> = add.collect();
    if add.is_empty() && kept.is_none() {
        return None;
    }
    let kept = kept.as_deref().unwrap_or(original);
    let kept = Some(kept).filter(|kept| !kept.is_empty());
    Some(Zeroizing::new(
        kept.into_iter().chain(add).collect::<Vec<_>>().join("&"),
    ))
}

/// A query or form without the pairs of these names; `None` if it has none of them. Pairs end at `&`, to some servers also at
/// `;`.
pub(super) fn without(pairs: &str, names: &[impl AsRef<str>]) -> Option<String> {
    let mut kept = String::with_capacity(pairs.len());
    let (mut has_kept, mut has_left_out) = (false, false);
    let mut before = None;
    for piece in pairs.split_inclusive(['&', ';']) {
        let pair = piece.strip_suffix(['&', ';']).unwrap_or(piece);
        if names.iter().any(|name| is_named(pair, name.as_ref())) {
            has_left_out = true;
        } else {
            kept.extend(before.filter(|_| has_kept));
            kept.push_str(pair);
            has_kept = true;
        }
        before = piece[pair.len()..].chars().next();
    }
    if let Some(last) = before.filter(|_| has_kept) {
        kept.push(last);
    }
    has_left_out.then_some(kept)
}

/// Whether a pair's name is `name` once decoded, as the most lenient server reads it: `+` is a space, case counts as little as
/// spaces around it, and it ends with a zero or the brackets of PHP's arrays.
fn is_named(pair: &str, name: &str) -> bool {
    let found = pair.split('=').next().unwrap_or_default().replace('+', " ");
    let decoded = percent_decode_str(&found).decode_utf8_lossy();
    let base = decoded.split(['[', '\0']).next().unwrap_or_default();
    base.trim().eq_ignore_ascii_case(name)
}

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_left_out_however_they_end_and_are_spelt() {
        for (query, kept) in [
            ("key=x", ""),
            ("a=1&key=x", "a=1"),
            ("key=x&a=1", "a=1"),
            ("a=1;key=x", "a=1"),
            ("a=1;key=x&b=2", "a=1&b=2"),
            ("key=x;a=1&b=2;c", "a=1&b=2;c"),
            ("a&&key=x&b&", "a&&b&"),
            (
                "key=1;KEY=2&%6Bey=3&key%00=4&key%00x=5&key[]=6&+key=7&key%20=8&a=9",
                "a=9",
            ),
        ] {
            let without = without(query, &["key"]);
            assert_eq!(without.as_deref(), Some(kept), "{query}");
        }
        for query in [
            "",
            "a=1",
            "a=1;b=key",
            "keys=1;monkey=2",
            "a=key=x",
            "x%00key=1",
            ";&;",
        ] {
            assert_eq!(without(query, &["key"]), None, "{query}");
        }
    }
}
