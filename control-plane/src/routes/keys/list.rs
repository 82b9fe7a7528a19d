//! `GET /v1/keys`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use store::Vault as VaultRow;
use store::rotations::{Rotation, RotationState};
use utoipa::ToSchema;
use vault::KekVersion;

use super::{RotationView, kek_of};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::keys::{CA, JWT, LEASE_ROOT, Place};
use crate::timestamp::Timestamp;

/// All keys that one may know of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Keys {
    vaults: Vec<VaultKeys>,
    /// The keys of the service; only for the organisation that runs it.
    #[serde(rename = "signing_keys")]
    service: Vec<SigningKeyView>,
    /// The last rotations, newest first.
    rotations: Vec<RotationView>,
}

/// What seals a vault.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VaultKeys {
    vault_id: String,
    vault: String,
    /// `software`, `pkcs11` or `gcp-kms`.
    provider: String,
    kek: String,
    /// The version that wraps; absent when the provider does not answer.
    current: Option<u64>,
    versions: Vec<KekVersionView>,
    /// The rotation that runs.
    rotation: Option<RotationView>,
    /// Why the provider does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// One version of a KEK.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KekVersionView {
    version: u64,
    /// `enabled`, `disabled` or `destroyed`.
    state: &'static str,
    /// Absent where the provider does not know.
    created_at: Option<Timestamp>,
    /// How it wraps, such as `AES-256-GCM`.
    mechanism: &'static str,
}

/// One version of a key of the service.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SigningKeyView {
    /// `lease-root`, `jwt` or `ca`.
    name: &'static str,
    version: u64,
    /// `sealed` in the database, or the key provider that it never leaves.
    r#where: String,
    created_at: Timestamp,
    /// When the next version was made.
    retired_at: Option<Timestamp>,
    /// Whether this is the version that signs now.
    signs: bool,
}

impl From<KekVersion> for KekVersionView {
    fn from(version: KekVersion) -> Self {
        Self {
            version: version.number,
            state: version.state.as_str(),
            created_at: version.created_at.map(Timestamp::from),
            mechanism: version.mechanism,
        }
    }
}

/// Lists what seals the vaults and what signs, with their versions. No key is shown, not even a public one.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", operation_id = "listKeys", responses((status = 200, body = Keys)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
) -> Result<Json<Keys>, ApiError> {
    let rotations = state.store.rotations().list(&person.org).await?;
    let mut vaults = Vec::new();
    for vault in state.store.vaults().list(&person.org).await? {
        vaults.push(describe(&state, vault, &rotations).await?);
    }
    let mut service = Vec::new();
    if person.org == state.home_org {
        for name in [LEASE_ROOT, JWT, CA] {
            service.extend(versions(&state, name).await?);
        }
    }
    Ok(Json(Keys {
        vaults,
        service,
        rotations: rotations.into_iter().map(RotationView::from).collect(),
    }))
}

async fn describe(
    state: &AppState,
    vault: VaultRow,
    rotations: &[Rotation],
) -> Result<VaultKeys, ApiError> {
    let kek = kek_of(&vault)?;
    let asking = state.vault.wrapper().describe(&kek);
    let answer = tokio::time::timeout(vault::KEY_DEADLINE, asking).await;
    let (current, versions, error) = match answer {
        Ok(Ok(info)) => (Some(info.current), info.versions, None),
        Ok(Err(error)) => (None, Vec::new(), Some(error.to_string())),
        Err(_) => (
            None,
            Vec::new(),
            Some("it did not answer in time".to_owned()),
        ),
    };
    let running = rotations
        .iter()
        .find(|one| one.vault == vault.id && one.state == RotationState::Running);
    Ok(VaultKeys {
        vault_id: vault.id.to_string(),
        vault: vault.name,
        provider: provider_of(kek.as_str()).to_owned(),
        kek: kek.to_string(),
        current,
        versions: versions.into_iter().map(KekVersionView::from).collect(),
        rotation: running.cloned().map(RotationView::from),
        error,
    })
}

/// A KEK's id begins with its provider.
fn provider_of(kek: &str) -> &str {
    kek.split(':').next().unwrap_or(kek)
}

async fn versions(state: &AppState, name: &'static str) -> Result<Vec<SigningKeyView>, ApiError> {
    let minting = state.minting()?;
    let signing = match name {
        LEASE_ROOT => Some(minting.keys.minting_version()),
        JWT => Some(minting.jwt.signing_version()),
        _ => crate::ca::signing_version(&state.chest, state.clock.now()).await?,
    };
    let rows = state.chest.rows(name).await?;
    let view = |row: store::SealedKey| {
        // A certificate lies where other keys have their public half: its key is always sealed.
        let place = Place::read(&row.public).filter(|_| name != CA);
        SigningKeyView {
            name,
            version: row.version,
            r#where: place
                .map_or("sealed", |(place, _)| place.as_str())
                .to_owned(),
            created_at: row.created_at.into(),
            retired_at: row.retired_at.map(Timestamp::from),
            signs: signing == Some(row.version),
        }
    };
    Ok(rows.into_iter().map(view).collect())
}
