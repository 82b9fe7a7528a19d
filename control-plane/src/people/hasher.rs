//! Argon2id beside the runtime: a few passwords at once, a short queue, and the same work whether there is anything to compare.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use store::PasswordDigest;
use tokio::sync::Semaphore;
use vault::Secret;
use zeroize::Zeroizing;

use super::password::prepare;
use crate::error::ApiError;
use crate::problem::Code;

/// Hashes and verifies passwords.
pub(crate) struct Hasher {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Hasher {
    pub(crate) fn new(at_once: usize) -> Self {
        let at_once = at_once.max(1);
        Self {
            places: Arc::new(Semaphore::new(at_once * QUEUE)),
            turns: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// The digest of a new password, which was checked.
    ///
    /// # Errors
    /// [`Code::RateLimited`] when the queue is full.
    pub(crate) async fn hash(&self, password: &Secret) -> Result<PasswordDigest, ApiError> {
        let prepared = prepare(password);
        let prepared = prepared.ok_or_else(|| {
            ApiError::invalid("password", "is too long; at most 128 characters are taken")
        })?;
        let salt = crate::context::random::<16>();
        let made = self.work(move || digest(&prepared, &salt)).await?;
        made.map(PasswordDigest)
            .map_err(|error| ApiError::internal(std::io::Error::other(error.to_string())))
    }

    /// Whether it is the password. Without a digest the same work is done, and the answer is no.
    ///
    /// # Errors
    /// [`Code::RateLimited`] when the queue is full.
    pub(crate) async fn verify(
        &self,
        password: &Secret,
        digest: Option<&PasswordDigest>,
    ) -> Result<bool, ApiError> {
        let prepared = prepare(password);
        let can_be = prepared.is_some() && digest.is_some();
        let prepared = prepared.unwrap_or_default();
        let digest = digest.map_or_else(|| NOBODYS.to_owned(), |digest| digest.0.clone());
        let is_it = self.work(move || matches(&prepared, &digest)).await?;
        Ok(is_it && can_be)
    }

    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let detail =
                "more people sign in than passwords can be checked at once; try again in a second";
            return Err(ApiError::new(Code::RateLimited, detail));
        };
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(ApiError::internal)?;
        let job = move || {
            // Held to the end of the work, also when its request goes away.
            let _held = (place, turn);
            job()
        };
        tokio::task::spawn_blocking(job)
            .await
            .map_err(ApiError::internal)
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Hasher(..)")
    }
}

fn digest(
    password: &Zeroizing<String>,
    salt: &[u8; 16],
) -> Result<String, argon2::password_hash::Error> {
    let salt = SaltString::encode_b64(salt)?;
    let hash = argon2()?.hash_password(password.as_bytes(), &salt)?;
    Ok(hash.to_string())
}

fn matches(password: &Zeroizing<String>, digest: &str) -> bool {
    let (Ok(parsed), Ok(argon2)) = (PasswordHash::new(digest), argon2()) else {
        return false;
    };
    argon2.verify_password(password.as_bytes(), &parsed).is_ok()
}

/// OWASP's first choice where memory is scarce: argon2id, 19 MiB, two passes, one lane.
fn argon2() -> Result<Argon2<'static>, argon2::password_hash::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Those who wait, for each that is at work: about a second of waiting at most.
const QUEUE: usize = 16;
/// What is compared with where there is nobody, of the same cost.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdA$bm9ib2R5IGhhcyB0aGlzIHBhc3N3b3JkLCBub2JvZHk";

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec())
    }

    #[tokio::test]
    async fn a_password_matches_its_digest_alone() {
        let hasher = Hasher::new(1);
        let digest = hasher.hash(&secret("Zq8$wR2!mK5@")).await.unwrap();
        assert!(digest.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_ne!(digest, hasher.hash(&secret("Zq8$wR2!mK5@")).await.unwrap());
        for (text, is_it) in [("Zq8$wR2!mK5@", true), ("Zq8$wR2!mK5", false), ("", false)] {
            let verified = hasher.verify(&secret(text), Some(&digest)).await;
            assert_eq!(verified.unwrap(), is_it, "{text}");
        }
        let long = secret(&"x".repeat(100_000));
        assert!(!hasher.verify(&long, Some(&digest)).await.unwrap());
    }

    #[tokio::test]
    async fn nobodys_digest_is_well_formed_and_matches_nothing() {
        let parsed = PasswordHash::new(NOBODYS).unwrap();
        assert_eq!(parsed.hash.unwrap().len(), 32);
        let of = Params::try_from(&parsed).unwrap();
        assert_eq!(
            (of.m_cost(), of.t_cost(), of.p_cost()),
            (MEMORY_KIB, PASSES, LANES)
        );
        let hasher = Hasher::new(1);
        assert!(!hasher.verify(&secret("x"), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_full_queue_is_429_and_empties_again() {
        let hasher = Hasher::new(1);
        let all = Arc::clone(&hasher.places).acquire_many_owned(16).await;
        let refused = hasher.verify(&secret("x"), None).await.unwrap_err();
        assert_eq!(refused.code(), Code::RateLimited);
        drop(all);
        hasher.verify(&secret("x"), None).await.unwrap();
    }

    #[test]
    fn a_digest_is_never_shown() {
        let shown = format!("{:?}", PasswordDigest(NOBODYS.to_owned()));
        assert_eq!(shown, "PasswordDigest(..)");
    }
}
