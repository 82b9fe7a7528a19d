//! `path`: a segment of the path that holds a key.

use zeroize::Zeroizing;

use super::{PrepareError, Secrets};
use crate::template::PathSlot;

/// The key's value as it stands in the segment; `None` if it is not at hand.
///
/// # Errors
/// [`PrepareError::BadValue`] if the value would end the segment or be read as something else than text.
pub(super) fn render(
    slot: &PathSlot,
    secrets: &Secrets,
) -> Result<Option<Zeroizing<String>>, PrepareError> {
    let Some(value) = secrets.get(&slot.key) else {
        return Ok(None);
    };
    let bad = |why| PrepareError::BadValue {
        key: slot.key.clone(),
        slot: format!("the path `{slot}`"),
        why,
    };
    if let Some(why) = why_not_in_a_segment(value) {
        return Err(bad(why));
    }
    let text = std::str::from_utf8(value).map_err(|_| bad("it is not visible ASCII"))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// RFC 3986, section 3.3: what a segment holds without an escape. An escaped slash or a dot segment is read in two ways.
fn why_not_in_a_segment(value: &[u8]) -> Option<&'static str> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(byte);
    match value {
        [] => Some("it is empty"),
        b"." | b".." => Some("it is a dot segment"),
        _ if !value.iter().all(plain) => {
            Some("it holds a character that a path segment cannot hold")
        }
        _ => None,
    }
}
