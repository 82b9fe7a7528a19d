//! Signing keys in Cloud KMS.

use ed25519_dalek::{Signature, VerifyingKey};
use http::StatusCode;

use super::*;

async fn signer(double: &KmsDouble) -> Arc<dyn KeySigner> {
    open(double).await.signer().unwrap()
}

#[tokio::test]
async fn a_signature_holds_under_the_public_key() {
    let double = KmsDouble::start().unwrap();
    let signer = signer(&double).await;
    let public = signer.create_signing_key("jwt", 1).await.unwrap();
    let signature = signer.sign("jwt", 1, b"header.payload").await.unwrap();
    VerifyingKey::from_bytes(&public)
        .unwrap()
        .verify_strict(b"header.payload", &Signature::from_bytes(&signature))
        .unwrap();
    assert_eq!(signer.create_signing_key("jwt", 1).await.unwrap(), public);
    let next = signer.create_signing_key("jwt", 2).await.unwrap();
    assert_ne!(next, public);
    assert_eq!(signer.provider(), "gcp-kms");
}

#[tokio::test]
async fn a_key_that_is_still_being_made_is_waited_for() {
    let double = KmsDouble::start().unwrap();
    double.generate_after(2);
    let signer = signer(&double).await;
    signer.create_signing_key("jwt", 1).await.unwrap();
    signer.sign("jwt", 1, b"").await.unwrap();
}

#[tokio::test]
async fn an_unknown_key_signs_nothing() {
    let double = KmsDouble::start().unwrap();
    let signer = signer(&double).await;
    signer.create_signing_key("jwt", 1).await.unwrap();
    for (name, version) in [("jwt", 2), ("lease-root", 1)] {
        let refused = signer.sign(name, version, b"m").await;
        let unknown = matches!(refused, Err(KeyError::UnknownSigningKey { .. }));
        assert!(unknown, "{refused:?}");
    }
    for bad in ["", "a/b", &"a".repeat(60)] {
        let refused = signer.create_signing_key(bad, 1).await;
        assert!(matches!(refused, Err(KeyError::BadName { .. })), "{bad:?}");
    }
}

#[tokio::test]
async fn a_fault_gives_no_signature() {
    let double = KmsDouble::start().unwrap();
    let signer = signer(&double).await;
    signer.create_signing_key("jwt", 1).await.unwrap();
    // The first answer, which a replay repeats, signs this.
    signer.sign("jwt", 1, b"first").await.unwrap();
    let other = format!("{KEY_RING}/cryptoKeys/sign-jwt-v2");
    let faults = [
        Action::DamageAnswer,
        Action::DamageChecksum,
        Action::OmitChecksum,
        Action::DenyChecksum,
        Action::DamageRequest,
        Action::NameVersion(2),
        Action::NameKey(other),
        Action::Replay,
        Action::HangUp,
        Action::Status(StatusCode::TOO_MANY_REQUESTS),
    ];
    for fault in faults {
        double.forget();
        double.fault(Call::AsymmetricSign, fault.clone());
        let refused = signer.sign("jwt", 1, b"second").await;
        assert!(is_unavailable(&refused), "{fault:?}: {refused:?}");
        assert_eq!(double.count(Call::AsymmetricSign), 2, "{fault:?}");
        double.clear();
    }
    double.forget();
    double.fault(Call::AsymmetricSign, Action::Deny);
    let refused = text(&signer.sign("jwt", 1, b"second").await);
    assert!(refused.contains("signerVerifier"), "{refused}");
    assert_eq!(double.count(Call::AsymmetricSign), 1);
    double.clear();
    signer.sign("jwt", 1, b"second").await.unwrap();
}

#[tokio::test]
async fn a_public_key_is_checked() {
    let double = KmsDouble::start().unwrap();
    signer(&double)
        .await
        .create_signing_key("jwt", 1)
        .await
        .unwrap();
    for fault in [
        Action::DamageAnswer,
        Action::DamageChecksum,
        Action::OmitChecksum,
        Action::NameVersion(2),
    ] {
        double.forget();
        double.fault(Call::GetPublicKey, fault.clone());
        let refused = signer(&double).await.sign("jwt", 1, b"m").await;
        assert!(is_unavailable(&refused), "{fault:?}: {refused:?}");
        assert_eq!(double.count(Call::GetPublicKey), 2, "{fault:?}");
        double.clear();
    }
}

#[tokio::test]
async fn a_disabled_key_signs_nothing_and_says_so() {
    let double = KmsDouble::start().unwrap();
    let signer = signer(&double).await;
    signer.create_signing_key("jwt", 1).await.unwrap();
    let version = format!("{KEY_RING}/cryptoKeys/sign-jwt-v1/cryptoKeyVersions/1");
    double.set_state(&version, VersionState::Disabled).unwrap();
    let refused = text(&signer.sign("jwt", 1, b"m").await);
    assert!(refused.contains("DISABLED"), "{refused}");
    // It is not taken for one that is still being made.
    double.forget();
    text(&open(&double).await.create_signing_key("jwt", 1).await);
    assert_eq!(double.count(Call::GetCryptoKeyVersion), 1);
}
