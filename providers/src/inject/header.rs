//! `header`: a field whose value holds a key.

use http::HeaderValue;
use zeroize::Zeroizing;

use super::{PrepareError, Secrets};
use crate::template::{Piece, Text};

/// The text with every `${KEY}` filled; `None` if a key is not at hand.
///
/// # Errors
/// [`PrepareError::BadValue`] if a key's value cannot stand in `slot`.
pub(super) fn render(
    text: &Text,
    slot: &str,
    secrets: &Secrets,
    check: fn(&[u8]) -> Option<&'static str>,
) -> Result<Option<Zeroizing<Vec<u8>>>, PrepareError> {
    let mut parts = Vec::with_capacity(text.pieces().len());
    for piece in text.pieces() {
        parts.push(match piece {
            Piece::Literal(text) => text.as_bytes(),
            Piece::Key(key) => match secrets.get(key) {
                None => return Ok(None),
                Some(value) => match check(value) {
                    None => value,
                    Some(why) => {
                        return Err(PrepareError::BadValue {
                            key: key.clone(),
                            slot: slot.to_owned(),
                            why,
                        });
                    }
                },
            },
        });
    }
    // `concat` sizes its buffer once, so no half-filled copy is left behind.
    Ok(Some(Zeroizing::new(parts.concat())))
}

/// A value whose memory is zeroized with its last clone, marked so that no Debug prints it.
///
/// # Panics
/// If the bytes are no field value, which [`why_not_a_field_value`] refuses before.
pub(super) fn sensitive(bytes: Zeroizing<Vec<u8>>) -> HeaderValue {
    let shared = bytes::Bytes::from_owner(bytes);
    let mut value = HeaderValue::from_maybe_shared(shared)
        .expect("templates and values hold visible ASCII alone");
    value.set_sensitive(true);
    value
}

/// Why a key's value cannot stand in a header (RFC 9110, section 5.5), if it cannot.
pub(super) fn why_not_a_field_value(value: &[u8]) -> Option<&'static str> {
    match value {
        [] => Some("it is empty"),
        [b' ', ..] | [.., b' '] => Some("it begins or ends with a space"),
        _ if value.iter().any(|byte| matches!(byte, b'\r' | b'\n')) => {
            Some("it holds a line break")
        }
        _ if !value.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
            Some("it holds a control character or non-ASCII text")
        }
        _ => None,
    }
}
