//! What binds a sign-in to whoever began it: one secret, which the browser or the terminal holds.
//!
//! State, nonce and the verifier of PKCE are derived from it, so that the database has nothing but its hash, and whoever reads
//! there can neither finish a sign-in nor redeem its code.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use vault::Secret;
use zeroize::Zeroizing;

use crate::people::one_time::{self, OneTime, Purpose};

/// A sign-in in the hands of whoever began it.
pub(crate) struct Flow {
    text: Zeroizing<String>,
    hash: [u8; 32],
}

impl Flow {
    pub(crate) fn generate() -> Self {
        let made = OneTime::generate(Purpose::SignIn);
        Self {
            hash: made.hash(),
            text: Zeroizing::new(made.reveal().to_owned()),
        }
    }

    /// What somebody presents; `None` if it has another shape or spelling.
    pub(crate) fn presented(text: &str) -> Option<Self> {
        Some(Self {
            hash: one_time::presented(Purpose::SignIn, text)?,
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// The secret itself, for the one answer that shows it.
    pub(crate) fn reveal(&self) -> &str {
        &self.text
    }

    /// What is stored.
    pub(crate) fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// What the provider gives back beside its answer (RFC 6749, section 10.12).
    pub(crate) fn state(&self) -> Zeroizing<String> {
        self.derive(b"state")
    }

    /// Whether an answer is this sign-in's.
    pub(crate) fn is_state(&self, state: &Secret) -> bool {
        Secret::new(self.state().as_bytes().to_vec()) == *state
    }

    /// What the provider writes into the token of this sign-in.
    pub(crate) fn nonce(&self) -> Zeroizing<String> {
        self.derive(b"nonce")
    }

    /// What redeems the code (RFC 7636, section 4.1).
    pub(crate) fn verifier(&self) -> Zeroizing<String> {
        self.derive(b"verifier")
    }

    /// What the provider is shown of [`Self::verifier`]: `S256`.
    pub(crate) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier().as_bytes()))
    }

    fn derive(&self, what: &[u8]) -> Zeroizing<String> {
        let mac = Hmac::<Sha256>::new_from_slice(self.text.as_bytes());
        let mut mac = mac.expect("HMAC takes a key of any length");
        mac.update(what);
        Zeroizing::new(URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_the_secret_finds_what_was_derived_from_it() {
        let flow = Flow::generate();
        let again = Flow::presented(flow.reveal()).unwrap();
        assert_eq!(again.hash(), flow.hash());
        assert_eq!(again.verifier(), flow.verifier());
        assert!(again.is_state(&Secret::new(flow.state().as_bytes().to_vec())));
        let other = Flow::generate();
        assert!(!other.is_state(&Secret::new(flow.state().as_bytes().to_vec())));
        let derived = [flow.state(), flow.nonce(), flow.verifier()];
        assert!(derived.iter().all(|text| text.len() == 43));
        assert!(derived[0] != derived[1] && derived[1] != derived[2]);
        assert!(Flow::presented("device_x").is_none());
        assert!(Flow::presented(&flow.reveal()[..49]).is_none());
    }
}
