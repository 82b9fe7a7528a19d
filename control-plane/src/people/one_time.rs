//! Secrets that are shown once and kept as a hash: invitations, device codes, links of shares, sign-ins that have begun.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// What a one-time secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Invitation,
    Device,
    Share,
    SignIn,
}

impl Purpose {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Invitation => "invite_",
            Self::Device => "device_",
            Self::Share => "share_",
            Self::SignIn => "signin_",
        }
    }
}

/// A secret of 256 random bits, in base64url after its prefix.
pub(crate) struct OneTime(Zeroizing<String>);

impl OneTime {
    pub(crate) fn generate(purpose: Purpose) -> Self {
        let random = Zeroizing::new(crate::context::random::<32>());
        let mut text = Zeroizing::new(String::with_capacity(CHARS));
        text.push_str(purpose.prefix());
        URL_SAFE_NO_PAD.encode_string(random.as_slice(), &mut text);
        Self(text)
    }

    /// The secret itself, for the one answer that shows it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored: there is nothing to guess from, so a plain hash is enough.
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }
}

impl fmt::Debug for OneTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OneTime(..)")
    }
}

/// The hash of what somebody presented; `None` if it has another shape or spelling.
pub(crate) fn presented(purpose: Purpose, text: &str) -> Option<[u8; 32]> {
    let encoded = text.strip_prefix(purpose.prefix())?;
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map(Zeroizing::new).ok()?;
    (bytes.len() == 32).then(|| Sha256::digest(text.as_bytes()).into())
}

const CHARS: usize = 7 + 43;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_recognised_for_its_purpose_alone() {
        let made = OneTime::generate(Purpose::Invitation);
        assert_eq!(made.reveal().len(), CHARS);
        assert_eq!(
            presented(Purpose::Invitation, made.reveal()),
            Some(made.hash())
        );
        assert_eq!(presented(Purpose::Device, made.reveal()), None);
        assert_eq!(presented(Purpose::Invitation, &made.reveal()[..49]), None);
        assert_eq!(format!("{made:?}"), "OneTime(..)");
    }
}
