//! `basic`: HTTP Basic authentication, RFC 7617.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{PrepareError, Secrets, header};
use crate::template::Text;

/// `base64(user:password)`; `None` if a key is not at hand.
///
/// # Errors
/// [`PrepareError::BadValue`] if a value holds control characters, or the user a colon.
pub(super) fn render(
    user: &Text,
    password: &Text,
    secrets: &Secrets,
) -> Result<Option<Zeroizing<Vec<u8>>>, PrepareError> {
    let user = header::render(user, "the user of HTTP Basic", secrets, why_not_a_user)?;
    let password = header::render(
        password,
        "the password of HTTP Basic",
        secrets,
        why_not_a_password,
    )?;
    let (Some(user), Some(password)) = (user, password) else {
        return Ok(None);
    };
    let pair = Zeroizing::new([&user[..], b":", &password[..]].concat());
    let mut encoded = Zeroizing::new(vec![0; pair.len().div_ceil(3) * 4]);
    STANDARD
        .encode_slice(&*pair, &mut encoded)
        .expect("the buffer has the encoded length");
    Ok(Some(encoded))
}

/// The field value of what [`render`] made.
pub(super) fn field_value(encoded: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([b"Basic ", encoded].concat())
}

fn why_not_a_user(value: &[u8]) -> Option<&'static str> {
    if value.contains(&b':') {
        Some("it holds a colon")
    } else {
        why_not_a_password(value)
    }
}

/// RFC 7617, section 2: neither half holds control characters.
fn why_not_a_password(value: &[u8]) -> Option<&'static str> {
    match value {
        [] => Some("it is empty"),
        _ if value.iter().any(u8::is_ascii_control) => {
            Some("it holds a line break or another control character")
        }
        _ => None,
    }
}
