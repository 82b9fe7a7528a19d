//! A lease's text form: `clv_` and the Biscuit in base64url without padding, in its one spelling.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What every lease begins with.
pub const PREFIX: &str = "clv_";

/// The most bytes that a lease's Biscuit may have: 4 KiB.
pub const MAX_BYTES: usize = 4096;

/// The most characters of a lease: the prefix and [`MAX_BYTES`] in base64url.
pub const MAX_CHARS: usize = PREFIX.len() + MAX_BYTES.div_ceil(3) * 4;

/// Why a text is no lease. To the caller all of them are `lease_invalid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin with `clv_`.
    #[error("a lease begins with `clv_`")]
    Prefix,
    /// It is longer than a lease can be.
    #[error("a lease has at most {MAX_BYTES} bytes")]
    TooLong,
    /// It is not base64url without padding, or not its one spelling.
    #[error("after `clv_` a lease is base64url without padding, in its one spelling")]
    Encoding,
}

/// A lease as it came from outside: of the right shape, and nothing more is known of it.
///
/// `Debug` shows a digest's first bytes. The text is overwritten when it is dropped.
#[derive(Clone)]
pub struct PresentedToken {
    text: Zeroizing<String>,
    bytes: Zeroizing<Vec<u8>>,
}

impl PresentedToken {
    /// Reads a lease's text form.
    ///
    /// One token has one text: no padding, no other alphabet, no white space, no other case of the prefix, and no set
    /// bits after the last byte. Otherwise one lease could stand in two places under two digests.
    ///
    /// # Errors
    /// [`TokenError`] for any other text.
    /// Spec: base64url, RFC 4648 section 5; canonical encoding, section 3.5.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if text.len() > MAX_CHARS {
            return Err(TokenError::TooLong);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(encoded)
            .map(Zeroizing::new)
            .map_err(|_| TokenError::Encoding)?;
        if bytes.is_empty() {
            return Err(TokenError::Encoding);
        }
        if bytes.len() > MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        Ok(Self {
            text: Zeroizing::new(text.to_owned()),
            bytes,
        })
    }

    /// The lease itself. Whoever holds it may use it: never log it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// SHA-256 of the text: a key for caches that is not the lease.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for PresentedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresentedToken({})", hex::encode(&self.digest()[..4]))
    }
}

/// A lease that was minted or narrowed here.
///
/// `Debug` is opaque, there is no `Display`, and the text is overwritten when it is dropped.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, TokenError> {
        if bytes.len() > MAX_BYTES {
            return Err(TokenError::TooLong);
        }
        let mut text = Zeroizing::new(String::with_capacity(MAX_CHARS));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        Ok(Self(text))
    }

    /// The lease itself. Whoever holds it may use it: never log it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same lease, as if it had come from outside.
    ///
    /// # Panics
    /// Never: the text was made here.
    pub fn present(&self) -> PresentedToken {
        PresentedToken::parse(&self.0).expect("a token made here has the one spelling")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_spelling_is_read() {
        let token = PresentedToken::parse("clv_AAH_").unwrap();
        assert_eq!(token.bytes(), [0, 1, 255]);
        assert_eq!(token.as_str(), "clv_AAH_");
        assert_eq!(
            Token::from_bytes(&[0, 1, 255]).unwrap().as_str(),
            "clv_AAH_"
        );
    }

    #[test]
    fn every_other_spelling_is_refused() {
        for (text, error) in [
            ("", TokenError::Prefix),
            ("AAH_", TokenError::Prefix),
            ("CLV_AAH_", TokenError::Prefix),
            (" clv_AAH_", TokenError::Prefix),
            ("clv-AAH_", TokenError::Prefix),
            ("clv_", TokenError::Encoding),
            ("clv_AAH_ ", TokenError::Encoding),
            ("clv_AA\nH_", TokenError::Encoding),
            ("clv_AAH/", TokenError::Encoding),
            ("clv_AAE=", TokenError::Encoding),
            ("clv_A", TokenError::Encoding),
            // The same byte as `AA`, with bits set after it.
            ("clv_AB", TokenError::Encoding),
            ("clv_AAÄ_", TokenError::Encoding),
        ] {
            assert_eq!(PresentedToken::parse(text).unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn four_kibibytes_are_taken_and_one_byte_more_is_not() {
        let longest = Token::from_bytes(&[7; MAX_BYTES]).unwrap();
        assert_eq!(longest.present().bytes().len(), MAX_BYTES);
        assert_eq!(
            Token::from_bytes(&[7; MAX_BYTES + 1]).unwrap_err(),
            TokenError::TooLong
        );
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([7; MAX_BYTES + 1]));
        assert_eq!(
            PresentedToken::parse(&text).unwrap_err(),
            TokenError::TooLong
        );
        let text = format!("{PREFIX}{}", "A".repeat(1 << 20));
        assert_eq!(
            PresentedToken::parse(&text).unwrap_err(),
            TokenError::TooLong
        );
    }

    #[test]
    fn debug_never_shows_the_lease() {
        let token = Token::from_bytes(b"a secret of some length").unwrap();
        let encoded = token.as_str().trim_start_matches(PREFIX);
        assert!(!format!("{token:?}").contains(&encoded[..8]));
        assert!(!format!("{:?}", token.present()).contains(&encoded[..8]));
    }

    #[test]
    fn the_digest_is_of_the_text() {
        let digest = PresentedToken::parse("clv_AAH_").unwrap().digest();
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(b"clv_AAH_")));
    }
}
