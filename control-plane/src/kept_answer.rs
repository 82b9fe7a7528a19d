//! Answers that are kept for a repeated request, readable by the credential that got them and by nothing else.
//!
//! An answer may show a key or a lease. The database has only digests of credentials, so whoever reads it cannot open what is
//! kept; and no key provider is asked, so a plane that may not unwrap can repeat its answers too.
//!
//! AES-256-GCM under `HMAC-SHA256(credential, label, slot)`, where the slot names organisation, principal, key and status.
//! Layout: nonce 12, ciphertext, tag 16. Spec: SP 800-38D; RFC 2104.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use hmac::{Hmac, Mac};
use leases::id::OrgId;
use sha2::Sha256;
use zeroize::Zeroizing;

/// What an answer is for. It opens for the same and for nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'a> {
    pub(crate) org: &'a OrgId,
    pub(crate) principal: &'a str,
    pub(crate) key: &'a str,
    pub(crate) status: u16,
}

impl Slot<'_> {
    /// Seals an answer for whoever shows this credential again.
    pub(crate) fn seal(&self, credential: &str, answer: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE] = crate::context::random();
        let mut sealed = Vec::with_capacity(NONCE + answer.len() + TAG);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(answer);
        let tag = self
            .cipher(credential)
            .encrypt_inout_detached((&nonce).into(), &[], (&mut sealed[NONCE..]).into())
            .expect("an answer is far below GCM's 64 GiB");
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// Opens what [`Self::seal`] made; `None` with another credential, or if a byte differs.
    pub(crate) fn open(&self, credential: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let (answer, tag) = rest.split_last_chunk::<TAG>()?;
        let mut answer = Zeroizing::new(answer.to_vec());
        let opened = self.cipher(credential).decrypt_inout_detached(
            nonce.into(),
            &[],
            answer.as_mut_slice().into(),
            tag.into(),
        );
        opened.ok().map(|()| answer)
    }

    fn cipher(&self, credential: &str) -> Aes256Gcm {
        // Credentials have at least 256 random bits, or are signed tokens with a random id.
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(credential.as_bytes())
            .expect("HMAC takes a key of any length");
        let status = self.status.to_be_bytes();
        let parts: [&[u8]; 5] = [
            LABEL,
            self.org.as_str().as_bytes(),
            self.principal.as_bytes(),
            self.key.as_bytes(),
            &status,
        ];
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let key: Zeroizing<[u8; 32]> = Zeroizing::new(mac.finalize().into_bytes().into());
        Aes256Gcm::new((&*key).into())
    }
}

const LABEL: &[u8] = b"claviger kept answer v1";
const NONCE: usize = 12;
const TAG: usize = 16;

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn an_answer_opens_for_its_own_slot_and_credential_alone() {
        let org = OrgId::new(datetime!(2026-11-22 07:00 UTC));
        let slot = Slot {
            org: &org,
            principal: "usr_1",
            key: "k",
            status: 201,
        };
        let sealed = slot.seal("1ck_one", b"the answer");
        assert_eq!(
            slot.open("1ck_one", &sealed).unwrap().as_slice(),
            b"the answer"
        );
        assert!(slot.open("1ck_two", &sealed).is_none());
        for other in [
            Slot {
                principal: "usr_2",
                ..slot
            },
            Slot { key: "l", ..slot },
            Slot {
                status: 200,
                ..slot
            },
        ] {
            assert!(other.open("1ck_one", &sealed).is_none());
        }
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(slot.open("1ck_one", &changed).is_none(), "byte {index}");
        }
        assert!(slot.open("1ck_one", &sealed[..20]).is_none());
    }
}
