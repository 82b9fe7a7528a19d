//! The provider against the double, by the official client, over a socket.

mod credentials;
mod faults;
mod rotation;
mod signing;

use kms_double::{Action, Call, KmsDouble, VersionState};

use super::*;
use crate::{
    RowBinding, Secret, Vault,
    keys::{KekState, conformance},
};

const KEY_RING: &str = "projects/p/locations/europe-west3/keyRings/claviger";
const AAD: &[u8] = b"org/vault/path/1";

/// A double and a provider that has a KEK in it.
struct Rig {
    double: KmsDouble,
    keys: Arc<GcpKmsKeys>,
    kek: KekId,
}

impl Rig {
    async fn new() -> Self {
        let double = KmsDouble::start().unwrap();
        let keys = open(&double).await;
        let kek = keys.create_kek("vlt_a").await.unwrap();
        // The version is known and the connection stands, so that counts are those of one operation.
        let dek = Dek::generate().unwrap();
        keys.wrap(&kek, &dek, AAD).await.unwrap();
        double.forget();
        Self { double, keys, kek }
    }

    async fn wrap(&self) -> Result<Vec<u8>, KeyError> {
        let dek = Dek::generate().unwrap();
        self.keys.wrap(&self.kek, &dek, AAD).await
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<Dek, KeyError> {
        self.keys.unwrap(&self.kek, wrapped, AAD).await
    }

    fn version(&self, number: u32) -> String {
        version_name(&self.keys.key_of(&self.kek).unwrap(), number)
    }
}

fn options(double: &KmsDouble) -> GcpKmsOptions {
    GcpKmsOptions {
        endpoint: Some(double.endpoint()),
        credentials: Credentials::Anonymous,
        ..GcpKmsOptions::new(KEY_RING)
    }
}

async fn open(double: &KmsDouble) -> Arc<GcpKmsKeys> {
    GcpKmsKeys::open(options(double)).await.unwrap()
}

fn is_unavailable<T>(result: &Result<T, KeyError>) -> bool {
    matches!(
        result,
        Err(KeyError::Unavailable {
            provider: PROVIDER,
            ..
        })
    )
}

fn is_denied<T>(result: &Result<T, KeyError>) -> bool {
    matches!(
        result,
        Err(KeyError::Denied {
            provider: PROVIDER,
            ..
        })
    )
}

fn is_tampered<T>(result: &Result<T, KeyError>) -> bool {
    matches!(result, Err(KeyError::Tampered { .. }))
}

fn is_unknown<T>(result: &Result<T, KeyError>) -> bool {
    matches!(result, Err(KeyError::UnknownKek { .. }))
}

fn text<T>(result: &Result<T, KeyError>) -> String {
    result.as_ref().err().expect("a refusal").to_string()
}

#[tokio::test]
async fn the_conformance_story_holds() {
    let rig = Rig::new().await;
    conformance::holds(rig.keys).await;
}

#[tokio::test]
async fn key_ring_and_key_are_made_once() {
    let double = KmsDouble::start().unwrap();
    let keys = open(&double).await;
    let kek = keys.create_kek("vlt_a").await.unwrap();
    assert_eq!(kek.as_str(), "gcp-kms:vlt_a");
    assert_eq!(keys.create_kek("vlt_a").await.unwrap(), kek);
    assert_eq!(open(&double).await.create_kek("vlt_a").await.unwrap(), kek);
    assert_eq!(double.count(Call::CreateKeyRing), 1);
    // The first found no key ring.
    assert_eq!(double.count(Call::CreateCryptoKey), 2);
    let requests = double.requests();
    let made = requests
        .iter()
        .rfind(|request| request.call == Call::CreateCryptoKey)
        .unwrap();
    assert_eq!(made.name, KEY_RING);
    assert_eq!(made.query["cryptoKeyId"], "kek-vlt_a");
}

#[tokio::test]
async fn a_kek_that_another_node_makes_meanwhile_is_found() {
    let double = KmsDouble::start().unwrap();
    let (a, b) = (open(&double).await, open(&double).await);
    let both = tokio::join!(a.create_kek("vlt_a"), b.create_kek("vlt_a"));
    assert_eq!(both.0.unwrap(), both.1.unwrap());
}

#[tokio::test]
async fn a_vaults_name_has_to_fit_a_keys_id() {
    let double = KmsDouble::start().unwrap();
    let keys = open(&double).await;
    keys.create_kek(&"a".repeat(59)).await.unwrap();
    for bad in ["", "a b", "a/b", "../a", &"a".repeat(60)] {
        let refused = keys.create_kek(bad).await;
        assert!(matches!(refused, Err(KeyError::BadName { .. })), "{bad:?}");
    }
}

#[tokio::test]
async fn a_missing_key_ring_that_may_not_be_made_is_named() {
    let double = KmsDouble::start().unwrap();
    double.fault(Call::CreateKeyRing, Action::Deny);
    let keys = open(&double).await;
    let refused = text(&keys.create_kek("vlt_a").await);
    assert!(
        refused.contains("gcloud kms keyrings create claviger --location europe-west3"),
        "{refused}"
    );
    assert_eq!(text(&keys.check().await), refused);
    assert_eq!(double.count(Call::CreateKeyRing), 1);
}

#[tokio::test]
async fn a_key_that_may_be_used_and_not_looked_at_is_found() {
    let rig = Rig::new().await;
    rig.double.fault(Call::GetCryptoKey, Action::Deny);
    let keys = open(&rig.double).await;
    assert_eq!(keys.create_kek("vlt_a").await.unwrap(), rig.kek);
    let dek = Dek::generate().unwrap();
    keys.wrap(&rig.kek, &dek, AAD).await.unwrap();
}

#[tokio::test]
async fn a_key_of_another_purpose_is_not_a_kek() {
    let double = KmsDouble::start().unwrap();
    let keys = open(&double).await;
    let template = CryptoKey::new()
        .set_purpose(CryptoKeyPurpose::AsymmetricSign)
        .set_version_template(
            CryptoKeyVersionTemplate::new().set_algorithm(CryptoKeyVersionAlgorithm::EcSignEd25519),
        );
    keys.find_or_create("kek-vlt_a", &template).await.unwrap();
    let refused = keys.create_kek("vlt_a").await;
    assert!(is_denied(&refused), "{refused:?}");
}

#[tokio::test]
async fn a_dek_opens_under_its_kek_and_for_its_row_only() {
    let rig = Rig::new().await;
    let dek = Dek::generate().unwrap();
    let wrapped = rig.keys.wrap(&rig.kek, &dek, AAD).await.unwrap();
    assert_eq!(rig.unwrap(&wrapped).await.unwrap().expose(), dek.expose());
    let other_row = rig.keys.unwrap(&rig.kek, &wrapped, b"another row").await;
    assert!(is_tampered(&other_row), "{other_row:?}");
    let other = rig.keys.create_kek("vlt_b").await.unwrap();
    let other_kek = rig.keys.unwrap(&other, &wrapped, AAD).await;
    assert!(is_tampered(&other_kek), "{other_kek:?}");
    for foreign in ["gcp-kms:vlt_c", "software:vlt_a", "gcp-kms", "gcp-kms:../x"] {
        let kek = KekId::parse(foreign).unwrap();
        let unknown = rig.keys.unwrap(&kek, &wrapped, AAD).await;
        assert!(is_unknown(&unknown), "{foreign}: {unknown:?}");
        let unknown = rig.keys.wrap(&kek, &dek, AAD).await;
        assert!(is_unknown(&unknown), "{foreign}: {unknown:?}");
    }
}

#[tokio::test]
async fn no_altered_byte_of_a_wrapped_dek_opens() {
    let rig = Rig::new().await;
    let wrapped = rig.wrap().await.unwrap();
    for place in 0..wrapped.len() {
        let mut altered = wrapped.clone();
        altered[place] ^= 1;
        let refused = rig.unwrap(&altered).await;
        assert!(is_tampered(&refused), "byte {place}: {refused:?}");
    }
    for len in [0, 1, 5, 6, wrapped.len() - 1] {
        let refused = rig.unwrap(&wrapped[..len]).await;
        assert!(is_tampered(&refused), "length {len}: {refused:?}");
    }
}

#[tokio::test]
async fn requests_carry_the_aad_and_checksums() {
    let rig = Rig::new().await;
    let wrapped = rig.wrap().await.unwrap();
    rig.unwrap(&wrapped).await.unwrap();
    let requests = rig.double.requests();
    let [wrap, unwrap] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert_eq!((wrap.call, &wrap.name), (Call::Encrypt, &rig.version(1)));
    let sums = ["plaintextCrc32c", "additionalAuthenticatedDataCrc32c"];
    assert!(
        sums.iter().all(|sum| wrap.body[sum].is_string()),
        "{wrap:?}"
    );
    assert_eq!(unwrap.call, Call::Decrypt);
    let sums = ["ciphertextCrc32c", "additionalAuthenticatedDataCrc32c"];
    assert!(
        sums.iter().all(|sum| unwrap.body[sum].is_string()),
        "{unwrap:?}"
    );
    let aad = "additionalAuthenticatedData";
    assert!(wrap.body[aad].is_string());
    assert_eq!(wrap.body[aad], unwrap.body[aad]);
}

#[tokio::test]
async fn a_secret_is_sealed_and_opened() {
    let rig = Rig::new().await;
    let vault = Vault::new(Arc::clone(&rig.keys) as Arc<dyn KeyWrapper>);
    let row = RowBinding {
        org: "org_a",
        vault: "vlt_a",
        path: "stripe/prod/key",
        version: 1,
    };
    let secret = Secret::from("sk_live_1".to_owned());
    let sealed = vault.seal(&rig.kek, &secret, &row).await.unwrap();
    assert_eq!(vault.open(&sealed, &row).await.unwrap(), secret);
}

#[tokio::test]
async fn options_that_cannot_work_are_refused_at_once() {
    let double = KmsDouble::start().unwrap();
    let with = |change: fn(&mut GcpKmsOptions)| {
        let mut options = options(&double);
        change(&mut options);
        GcpKmsKeys::open(options)
    };
    let ring = with(|options| options.key_ring = "claviger".into()).await;
    assert!(text(&ring).contains("projects/P/locations/L/keyRings/R"));
    let clear = with(|options| options.endpoint = Some("http://10.0.0.1".into())).await;
    assert!(text(&clear).contains("https"));
    let anonymous = with(|options| options.endpoint = None).await;
    assert!(text(&anonymous).contains("configure credentials"));
    assert_eq!(double.requests().len(), 0);
}
