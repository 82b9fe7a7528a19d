//! Step 3: from the token that came with a request to a verified lease.
//!
//! A token's signatures are checked once and the result is kept by the token's digest; whether the lease
//! still stands is asked of the ledger, at the door and again in every use's own transaction.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leases::root_key::RootPublicKeys;
use leases::token::PresentedToken;
use leases::verify::{VerifiedLease, verify};
use moka::sync::Cache;
use tokio::sync::watch;

use crate::meter::WrongLeases;
use crate::refuse::{Code, Refusal};

/// How many verified leases are kept. Each remembers some decisions, so an agent that narrows without end is bounded.
const CAPACITY: u64 = 2_000;
/// How long one is kept after its last use.
const IDLE: Duration = Duration::from_mins(15);

/// Verified leases by the digest of their token.
#[derive(Debug)]
pub(crate) struct Authenticator {
    keys: watch::Receiver<RootPublicKeys>,
    verified: Cache<[u8; 32], Arc<VerifiedLease>>,
    wrong: WrongLeases,
}

impl Authenticator {
    pub(crate) fn new(keys: watch::Receiver<RootPublicKeys>) -> Self {
        Self {
            keys,
            verified: Cache::builder()
                .max_capacity(CAPACITY)
                .time_to_idle(IDLE)
                .build(),
            wrong: WrongLeases::new(),
        }
    }

    /// Checks the token's form, signatures and blocks. One answer for all that can be wrong with it, and 429 for a source
    /// that was wrong too often; leases that were seen before are not held up by that.
    pub(crate) fn verify(
        &self,
        token: &str,
        client: IpAddr,
    ) -> Result<Arc<VerifiedLease>, Refusal> {
        let token = PresentedToken::parse(token);
        if let Ok(token) = &token
            && let Some(lease) = self.verified.get(&token.digest())
        {
            return self.check_root_key(&lease).map(|()| lease);
        }
        if let Some(wait) = self.wrong.shut_out(client) {
            return Err(too_many(wait));
        }
        let verified = token
            .map_err(|_| invalid())
            .and_then(|token| self.verify_anew(&token));
        verified.inspect_err(|_| self.wrong.note(client))
    }

    fn verify_anew(&self, token: &PresentedToken) -> Result<Arc<VerifiedLease>, Refusal> {
        let keys = self.keys.borrow().clone();
        let lease = Arc::new(verify(token, &keys).map_err(|error| {
            tracing::debug!(reason = %error, "a lease was not accepted");
            invalid()
        })?);
        self.verified.insert(token.digest(), Arc::clone(&lease));
        Ok(lease)
    }

    /// Refuses a lease whose root key was retired since it was verified.
    pub(crate) fn check_root_key(&self, lease: &VerifiedLease) -> Result<(), Refusal> {
        if self.keys.borrow().holds(lease.root_key()) {
            return Ok(());
        }
        tracing::debug!(lease.id = %lease.lease(), "the root key of a lease was retired");
        Err(invalid())
    }
}

/// The lease in `Proxy-Authorization`: `Bearer <token>`, or `Basic` with the token as its password.
pub(crate) fn proxy_token<'a>(
    mut fields: impl Iterator<Item = &'a [u8]>,
) -> Result<String, Refusal> {
    let field = fields.next().ok_or_else(missing)?;
    if fields.next().is_some() {
        return Err(invalid());
    }
    let field = std::str::from_utf8(field).map_err(|_| invalid())?;
    let (scheme, rest) = field.split_once(' ').ok_or_else(invalid)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(invalid());
    }
    let pair = STANDARD.decode(rest).map_err(|_| invalid())?;
    let pair = String::from_utf8(pair).map_err(|_| invalid())?;
    let (user, password) = pair.split_once(':').ok_or_else(invalid)?;
    // `http://TOKEN@host` puts the token into the user's place, with an empty password.
    Ok(if password.is_empty() { user } else { password }.to_owned())
}

pub(crate) fn missing() -> Refusal {
    Refusal::new(
        Code::LeaseMissing,
        "send a lease: HTTPS_PROXY=http://lease:<token>@host:port, or the gateway form; mint one with `claviger lease mint`",
    )
}

pub(crate) fn invalid() -> Refusal {
    Refusal::new(
        Code::LeaseInvalid,
        "this lease is malformed or was not issued here; mint a new one with `claviger lease mint`",
    )
}

fn too_many(wait: Duration) -> Refusal {
    Refusal {
        retry_after: Some(wait),
        ..Refusal::new(
            Code::RateLimited,
            "too many leases that came from this address were wrong; wait as Retry-After says",
        )
    }
}

#[cfg(test)]
mod tests {
    use leases::{RootKeyPair, mint};

    use super::*;
    use crate::fixtures::mint_request;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn minted(root: &RootKeyPair) -> String {
        let minted = mint(root, &mint_request()).unwrap();
        minted.token.as_str().to_owned()
    }

    #[test]
    fn a_rotation_refuses_no_lease_and_a_retired_key_takes_its_leases_with_it() {
        let (old, new) = (RootKeyPair::generate(1), RootKeyPair::generate(2));
        let (keys, receiver) = watch::channel(RootPublicKeys::new(vec![old.public()]));
        let authenticator = Authenticator::new(receiver);
        let (kept, unseen, fresh) = (minted(&old), minted(&old), minted(&new));
        let held = authenticator.verify(&kept, HERE).unwrap();

        keys.send_replace(RootPublicKeys::new(vec![new.public(), old.public()]));
        for token in [&kept, &unseen, &fresh] {
            authenticator.verify(token, HERE).unwrap();
        }
        authenticator.check_root_key(&held).unwrap();

        keys.send_replace(RootPublicKeys::new(vec![new.public()]));
        for token in [&kept, &unseen] {
            let refusal = authenticator.verify(token, HERE).unwrap_err();
            assert_eq!(refusal.code, Code::LeaseInvalid);
        }
        let refusal = authenticator.check_root_key(&held).unwrap_err();
        assert_eq!(refusal.code, Code::LeaseInvalid, "in an open tunnel, too");
        authenticator.verify(&fresh, HERE).unwrap();
    }

    #[test]
    fn another_key_under_the_same_id_takes_no_kept_lease() {
        let (one, other) = (RootKeyPair::generate(1), RootKeyPair::generate(1));
        let (keys, receiver) = watch::channel(RootPublicKeys::new(vec![one.public()]));
        let authenticator = Authenticator::new(receiver);
        let token = minted(&one);
        authenticator.verify(&token, HERE).unwrap();

        keys.send_replace(RootPublicKeys::new(vec![other.public()]));

        authenticator.verify(&token, HERE).unwrap_err();
    }

    #[test]
    fn a_source_that_guesses_is_shut_out_and_neither_others_nor_known_leases_are() {
        let root = RootKeyPair::generate(1);
        let (_keys, receiver) = watch::channel(RootPublicKeys::new(vec![root.public()]));
        let authenticator = Authenticator::new(receiver);
        let (known, fresh) = (minted(&root), minted(&root));
        authenticator.verify(&known, HERE).unwrap();

        let guess = |number: u32| authenticator.verify(&format!("clv_{number}"), HERE);
        let shut = (0..20_000)
            .find_map(|number| {
                guess(number)
                    .err()
                    .filter(|refusal| refusal.code == Code::RateLimited)
            })
            .unwrap();
        assert!(shut.retry_after.is_some());

        authenticator.verify(&known, HERE).unwrap();
        let elsewhere = "192.0.2.7".parse().unwrap();
        authenticator.verify(&fresh, elsewhere).unwrap();
        let wrong = authenticator.verify("clv_x", elsewhere).unwrap_err();
        assert_eq!(wrong.code, Code::LeaseInvalid);
    }

    fn token(field: &str) -> Result<String, Code> {
        proxy_token([field.as_bytes()].into_iter()).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_lease_is_found_in_every_form() {
        assert_eq!(token("Bearer clv_x").unwrap(), "clv_x");
        assert_eq!(token("bearer clv_x").unwrap(), "clv_x");
        assert_eq!(
            token(&format!("Basic {}", STANDARD.encode("lease:clv_x"))).unwrap(),
            "clv_x"
        );
        assert_eq!(
            token(&format!("Basic {}", STANDARD.encode("clv_x:"))).unwrap(),
            "clv_x"
        );
    }

    #[test]
    fn malformed_fields_are_invalid_and_none_is_missing() {
        for field in ["clv_x", "Digest a=b", "Basic !!", "Basic bm9jb2xvbg", ""] {
            assert_eq!(token(field).unwrap_err(), Code::LeaseInvalid, "{field}");
        }
        let two = [b"Bearer a".as_slice(), b"Bearer b"];
        assert_eq!(
            proxy_token(two.into_iter()).unwrap_err().code,
            Code::LeaseInvalid
        );
        assert_eq!(
            proxy_token(std::iter::empty()).unwrap_err().code,
            Code::LeaseMissing
        );
    }
}
