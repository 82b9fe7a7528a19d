//! Identity keys of agents: made here, their private halves sealed before anything is stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leases::id::{AgentId, OrgId, VaultId};
use p256::SecretKey;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::pkcs8::EncodePrivateKey as _;
use ssh_key::private::{Ed25519Keypair, KeypairData, PrivateKey};
use store::{IdentityKeys, IdentityPlace, NewIdentity};
use vault::{KekId, RowBinding, Secret};
use zeroize::Zeroizing;

use crate::AppState;
use crate::error::ApiError;
use crate::problem::Code;

/// How often keys are made again when the place that they were sealed for moved: other first agents, or a rotation of the vault's
/// key, came between.
pub(crate) const ATTEMPTS: usize = 5;

/// Makes an agent's next identity keys and seals them for where they will lie. Nothing is stored: a key provider that does not seal
/// leaves nothing behind.
///
/// The key of a vault that is still to be made is made first, as for every vault. If the agent is then not made, the key stays
/// without a vault; that can happen before an organisation's first agent alone.
pub(crate) async fn seal(
    state: &AppState,
    org: &OrgId,
    agent: &AgentId,
) -> Result<NewIdentity, ApiError> {
    let place = state.store.agents().identity_place(org, agent).await?;
    let place = match place {
        Some(place) => place,
        None => first_place(state, agent).await?,
    };
    let pairs = Pairs::generate(agent)?;
    let (ssh_path, ecdh_path) = (place.ssh_path(), place.ecdh_path());
    let kek = KekId::parse(&place.kek_id).map_err(ApiError::internal)?;
    let [ssh_row, ecdh_row] = [&ssh_path, &ecdh_path].map(|path| RowBinding {
        org: org.as_str(),
        vault: place.vault.as_str(),
        path: path.as_str(),
        version: place.version,
    });
    let ssh_sealed = state.vault.seal(&kek, &pairs.ssh, &ssh_row).await?;
    let ecdh_sealed = state.vault.seal(&kek, &pairs.ecdh, &ecdh_row).await?;
    Ok(NewIdentity {
        public: pairs.public,
        ssh_sealed,
        ecdh_sealed,
        place,
    })
}

async fn first_place(state: &AppState, agent: &AgentId) -> Result<IdentityPlace, ApiError> {
    let vault = VaultId::new(state.clock.now());
    let kek = state.vault.wrapper().create_kek(vault.as_str()).await;
    let kek = kek.map_err(|error| {
        let detail = "the key provider made no key for the vault of agents' identity keys, which an organisation's first agent needs; look at GET /v1/health/hsm, and let a control plane make keys at least until then";
        ApiError::new(Code::KeyUnavailable, detail).because(error)
    })?;
    Ok(IdentityPlace {
        agent: agent.clone(),
        vault,
        kek_id: kek.to_string(),
        version: 1,
    })
}

/// The public halves as an agent's record shows them: base64 of the raw 32 bytes, and of the 65 bytes of an uncompressed point.
pub(crate) fn shown(public: Option<IdentityKeys>) -> (Option<String>, Option<String>) {
    let keys = public.map(|keys| (STANDARD.encode(keys.ssh), STANDARD.encode(keys.ecdh)));
    keys.unzip()
}

/// Two key pairs, the private halves as texts that other programs read.
struct Pairs {
    public: IdentityKeys,
    /// OpenSSH's format, unencrypted, with the agent's id as its comment.
    ssh: Secret,
    /// PKCS #8 (RFC 5958) in PEM.
    ecdh: Secret,
}

impl Pairs {
    fn generate(agent: &AgentId) -> Result<Self, ApiError> {
        let pair = Ed25519Keypair::from_seed(&*random()?);
        let ssh_public = pair.public.0;
        let private = PrivateKey::new(KeypairData::Ed25519(pair), agent.as_str());
        let private = private.map_err(ApiError::internal)?;
        let mut ssh = private
            .to_openssh(ssh_key::LineEnding::LF)
            .map_err(ApiError::internal)?;

        let pair = p256_key()?;
        let ecdh_public = pair.public_key().to_encoded_point(false);
        let ecdh_public = ecdh_public.as_bytes().try_into();
        let mut ecdh = pair
            .to_pkcs8_pem(p256::pkcs8::LineEnding::LF)
            .map_err(ApiError::internal)?;
        Ok(Self {
            public: IdentityKeys {
                ssh: ssh_public,
                ecdh: ecdh_public.map_err(ApiError::internal)?,
            },
            ssh: std::mem::take(&mut *ssh).into(),
            ecdh: std::mem::take(&mut *ecdh).into(),
        })
    }
}

/// A private key of P-256. Of random numbers one in 2^32 is none (SEC 1, 3.2.1): another is drawn then.
fn p256_key() -> Result<SecretKey, ApiError> {
    loop {
        let drawn = random()?;
        if let Ok(key) = SecretKey::from_slice(&*drawn) {
            return Ok(key);
        }
    }
}

fn random() -> Result<Zeroizing<[u8; 32]>, ApiError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes)
        .map_err(|error| ApiError::internal(std::io::Error::other(error.to_string())))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use p256::pkcs8::DecodePrivateKey as _;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn what_is_private_belongs_to_what_is_public() {
        let agent = AgentId::new(datetime!(2026-11-22 07:00 UTC));
        let pairs = Pairs::generate(&agent).unwrap();
        let ssh = PrivateKey::from_openssh(pairs.ssh.expose()).unwrap();
        assert!(!ssh.is_encrypted());
        assert_eq!(ssh.comment(), agent.as_str());
        let public = ssh.public_key().key_data().ed25519().unwrap();
        assert_eq!(public.0, pairs.public.ssh);
        let ecdh = SecretKey::from_pkcs8_pem(pairs.ecdh.expose_str().unwrap()).unwrap();
        let point = ecdh.public_key().to_encoded_point(false);
        assert_eq!(point.as_bytes(), pairs.public.ecdh);
        assert_eq!(pairs.public.ecdh[0], 4);
    }

    #[test]
    fn no_two_agents_have_the_same_keys() {
        let agent = AgentId::new(datetime!(2026-11-22 07:00 UTC));
        let [one, other] = [0; 2].map(|_| Pairs::generate(&agent).unwrap().public);
        assert_ne!(one.ssh, other.ssh);
        assert_ne!(one.ecdh, other.ecdh);
    }
}
