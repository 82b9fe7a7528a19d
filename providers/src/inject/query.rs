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
    let kept: Vec<&str> = original
        .split('&')
        .filter(|pair| !is_named(pair, strip))
        .collect();
    let add: Vec<&str> = add.collect();
    if add.is_empty() && kept.len() == original.split('&').count() {
        return None;
    }
    let kept = if kept == [""] { Vec::new() } else { kept };
    Some(Zeroizing::new([kept, add].concat().join("&")))
}

/// Whether a pair's name is one of `names` once decoded. Case does not count: some providers take `Key` for `key`.
fn is_named(pair: &str, names: &[String]) -> bool {
    let name = pair.split('=').next().unwrap_or_default();
    let decoded = percent_decode_str(name).map(|byte| byte.to_ascii_lowercase());
    names.iter().any(|other| {
        decoded
            .clone()
            .eq(other.bytes().map(|byte| byte.to_ascii_lowercase()))
    })
}

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
