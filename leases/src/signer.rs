//! Minting with a root key that never leaves its provider: the library builds, the provider signs.
//!
//! Biscuit's library signs with key pairs in memory only. The authority block does not depend on its root key but for the
//! signature over it, so the block is built under a key that is thrown away, and its signature is replaced.

use biscuit_auth::{KeyPair, format::schema};
use prost::Message as _;
use zeroize::Zeroizing;

use crate::{
    mint::{MintError, MintRequest, Minted, build, canonical, check_bindings, construct},
    revocation::RevocationId,
    root_key::{RootPublicKey, RootPublicKeys},
    token::Token,
    verify::verify,
};

/// Signs by a root key that lives elsewhere, as in an HSM.
pub trait RootSigner: Send + Sync {
    /// Why a signature could not be made.
    type Error;

    /// The public half of the key that signs, and its id.
    fn public(&self) -> RootPublicKey;

    /// Signs by pure Ed25519 (RFC 8032 section 5.1.6): 64 bytes over the message as it is.
    fn sign(
        &self,
        message: &[u8],
    ) -> impl Future<Output = Result<[u8; SIGNATURE], Self::Error>> + Send;
}

/// Bytes of an Ed25519 signature.
pub const SIGNATURE: usize = 64;

/// Why a lease is not minted by a [`RootSigner`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintWithError<E> {
    /// What was asked for cannot be minted.
    #[error(transparent)]
    Refused(#[from] MintError),
    /// The signer failed; another try may help.
    #[error("the root key could not sign")]
    Signer(#[source] E),
    /// What the signer gave is no signature by the key that it names.
    #[error(
        "the signature is not by root key {0}; see that its key provider holds the key of this id"
    )]
    WrongKey(u32),
}

/// Mints a lease by a root key that lives elsewhere. It differs in nothing from one that [`crate::mint()`] makes.
///
/// The lease is verified before it is given out, so a signer that holds another key is found here and not by an agent.
///
/// # Errors
/// [`MintWithError`]; nothing is minted then.
/// Spec: <https://github.com/eclipse-biscuit/biscuit/blob/main/SPECIFICATIONS.md>, section on signature payloads.
pub async fn mint_with<S: RootSigner>(
    signer: &S,
    request: &MintRequest,
) -> Result<Minted, MintWithError<S::Error>> {
    let request = canonical(request)?;
    check_bindings(&request.bindings)?;
    let root = signer.public();
    let mut container = unsigned(&request, root.id())?;
    let payload = authority_payload(&container.authority)?;
    let signature = signer.sign(&payload).await.map_err(MintWithError::Signer)?;
    container.authority.signature = signature.to_vec();
    let bytes = Zeroizing::new(container.encode_to_vec());
    let token = Token::of_lease(&bytes)?;
    verify(&token.present(), &RootPublicKeys::new(vec![root]))
        .map_err(|_| MintWithError::WrongKey(root.id()))?;
    let revocation_id = RevocationId::from_bytes(&signature).map_err(build)?;
    Ok(Minted {
        token,
        revocation_id,
        expires_at: request.expires_at,
    })
}

/// The container with everything but the root key's signature.
fn unsigned(request: &MintRequest, root_key_id: u32) -> Result<schema::Biscuit, MintError> {
    let biscuit = construct(request, root_key_id, &KeyPair::new())?;
    let bytes = Zeroizing::new(biscuit.to_vec().map_err(build)?);
    schema::Biscuit::decode(bytes.as_slice()).map_err(build)
}

/// What the root key signs: the block and the key that it hands on to, laid out as the block's version says.
fn authority_payload(authority: &schema::SignedBlock) -> Result<Vec<u8>, MintError> {
    let algorithm = authority.next_key.algorithm.to_le_bytes();
    let version = authority.version.unwrap_or(0);
    let version_bytes = version.to_le_bytes();
    let (block, next_key) = (&authority.block, &authority.next_key.key);
    let parts: &[&[u8]] = match version {
        0 => &[block, &algorithm, next_key],
        1 => &[
            b"\0BLOCK\0\0VERSION\0",
            &version_bytes,
            b"\0PAYLOAD\0",
            block,
            b"\0ALGORITHM\0",
            &algorithm,
            b"\0NEXTKEY\0",
            next_key,
        ],
        _ => {
            return Err(build(format_args!(
                "blocks of version {version} are not known here"
            )));
        }
    };
    Ok(parts.concat())
}

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use biscuit_auth::Biscuit;

    use super::*;
    use crate::{
        Narrowing, RootKeyPair, Scope, authorize,
        fixtures::{NOW, keys, mint_request, narrowed, request, root, scope, stripe},
        mint,
    };

    /// A signer that stands for an HSM: `names` is what it says to hold, `holds` what it signs by.
    struct InMemory {
        names: RootPublicKey,
        holds: RootKeyPair,
    }

    impl InMemory {
        fn good() -> Self {
            Self {
                names: root().public(),
                holds: root(),
            }
        }
    }

    impl RootSigner for InMemory {
        type Error = std::convert::Infallible;

        fn public(&self) -> RootPublicKey {
            self.names
        }

        fn sign(
            &self,
            message: &[u8],
        ) -> impl Future<Output = Result<[u8; SIGNATURE], Self::Error>> + Send {
            let signature = self.holds.pair().sign(message).unwrap();
            ready(Ok(signature.to_bytes().try_into().unwrap()))
        }
    }

    struct Away;

    impl RootSigner for Away {
        type Error = &'static str;

        fn public(&self) -> RootPublicKey {
            root().public()
        }

        fn sign(
            &self,
            _: &[u8],
        ) -> impl Future<Output = Result<[u8; SIGNATURE], Self::Error>> + Send {
            ready(Err("away"))
        }
    }

    /// The value of a future that never waits.
    fn now<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => panic!("the signer of these tests does not wait"),
        }
    }

    #[test]
    fn a_lease_of_a_signer_is_one_like_any_other() {
        let asked = mint_request(vec![stripe(scope(
            r#"{"hosts": ["api.stripe.com"], "methods": ["GET"], "paths": ["/v1/**"]}"#,
        ))]);
        let signed = now(mint_with(&InMemory::good(), &asked)).unwrap();
        let usual = mint(&root(), &asked).unwrap();

        let [signed_lease, usual_lease] = [&signed, &usual]
            .map(|minted| std::sync::Arc::new(verify(&minted.token.present(), &keys()).unwrap()));
        assert_eq!(signed_lease.bindings(), usual_lease.bindings());
        assert_eq!(signed_lease.expires_at(), usual_lease.expires_at());
        assert_eq!(signed_lease.revocation_ids(), [signed.revocation_id]);
        assert_eq!(signed.expires_at, usual.expires_at);
        assert_eq!(signed.token.as_str().len(), usual.token.as_str().len());
        authorize(&signed_lease, &request(), NOW).unwrap();
    }

    #[test]
    fn the_librarys_own_verifier_takes_it() {
        let minted = now(mint_with(
            &InMemory::good(),
            &mint_request(vec![stripe(Scope::default())]),
        ))
        .unwrap();
        let bytes = minted.token.present().bytes().to_vec();
        let biscuit = Biscuit::from(&bytes, &keys()).unwrap();
        assert_eq!(biscuit.root_key_id(), Some(1));
        assert_eq!(biscuit.to_vec().unwrap(), bytes, "it has the one encoding");
        Biscuit::from(
            &bytes,
            &RootPublicKeys::new(vec![RootKeyPair::generate(1).public()]),
        )
        .unwrap_err();
    }

    #[test]
    fn it_can_be_narrowed() {
        let minted = now(mint_with(
            &InMemory::good(),
            &mint_request(vec![stripe(Scope::default())]),
        ))
        .unwrap();
        let narrowing = Narrowing {
            methods: vec!["POST".to_owned()],
            ..Narrowing::default()
        };
        let lease = verify(&narrowed(&minted.token, &narrowing).present(), &keys()).unwrap();
        assert_eq!(lease.block_count(), 2);
        authorize(&std::sync::Arc::new(lease), &request(), NOW).unwrap_err();
    }

    #[test]
    fn a_signer_with_another_key_is_found_out() {
        let wrong = InMemory {
            names: root().public(),
            holds: RootKeyPair::generate(1),
        };
        let error = now(mint_with(
            &wrong,
            &mint_request(vec![stripe(Scope::default())]),
        ));
        assert_eq!(error.unwrap_err(), MintWithError::WrongKey(1));
    }

    #[test]
    fn a_signer_that_is_away_mints_nothing() {
        let error = now(mint_with(
            &Away,
            &mint_request(vec![stripe(Scope::default())]),
        ));
        assert_eq!(error.unwrap_err(), MintWithError::Signer("away"));
    }

    #[test]
    fn what_cannot_be_minted_is_not_signed() {
        let error = now(mint_with(&Away, &mint_request(vec![])));
        assert_eq!(
            error.unwrap_err(),
            MintWithError::Refused(MintError::NoBinding)
        );
    }

    #[test]
    fn both_layouts_of_what_is_signed_are_the_librarys() {
        let asked = canonical(&mint_request(vec![stripe(Scope::default())])).unwrap();
        for version in [None, Some(1)] {
            let mut container = unsigned(&asked, 1).unwrap();
            container.authority.version = version;
            let payload = authority_payload(&container.authority).unwrap();
            container.authority.signature =
                root().pair().sign(&payload).unwrap().to_bytes().to_vec();
            Biscuit::from(container.encode_to_vec(), &keys()).unwrap();
        }
        let mut unknown = unsigned(&asked, 1).unwrap().authority;
        unknown.version = Some(2);
        authority_payload(&unknown).unwrap_err();
    }
}
