//! The keys of the service: what seals the vaults and what signs, and their rotation.

pub(crate) mod list;
pub(crate) mod migrate;
pub(crate) mod rotate;
pub(crate) mod rotation;

use leases::id::OrgId;
use serde::Serialize;
use store::rotations::{Rotation, RotationKind, StartRotationError};
use store::{Actor, Vault as VaultRow};
use utoipa::ToSchema;
use vault::KekId;

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::problem::Code;
use crate::timestamp::Timestamp;

/// A rotation of a vault's KEK.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RotationView {
    id: String,
    vault_id: String,
    /// `rewrap` under a new version, or `migrate` to another provider.
    kind: &'static str,
    /// The KEK that values go to, of a migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// The version that values are to be under.
    target_version: u64,
    /// `running`, `done`, or `incomplete` when it ended and some seals did not open: the old key has to stay for those.
    state: &'static str,
    /// Seals looked at.
    done: u64,
    /// Seals there were at the start.
    total: u64,
    /// Seals that did not open and are under the old key still, of a rotation that has ended.
    skipped: u64,
    started_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl From<Rotation> for RotationView {
    fn from(rotation: Rotation) -> Self {
        let (kind, to) = match rotation.kind {
            RotationKind::Rewrap => ("rewrap", None),
            RotationKind::Migrate { to } => ("migrate", Some(to)),
        };
        Self {
            id: rotation.id,
            vault_id: rotation.vault.to_string(),
            kind,
            to,
            target_version: rotation.target_version,
            state: rotation.state.as_str(),
            done: rotation.done.min(rotation.total),
            total: rotation.total,
            skipped: rotation.skipped,
            started_at: rotation.started_at.into(),
            finished_at: rotation.finished_at.map(Timestamp::from),
        }
    }
}

/// Keys are for an organisation's admins.
fn check_admin(person: &Person) -> Result<(), ApiError> {
    if person.is_admin {
        return Ok(());
    }
    let detail = "keys are rotated by an admin of the organisation; ask one";
    Err(ApiError::new(Code::Forbidden, detail))
}

/// A vault by its id or name; the default one when none is named.
async fn find_vault(
    state: &AppState,
    org: &OrgId,
    named: Option<&str>,
) -> Result<VaultRow, ApiError> {
    let named = named.unwrap_or("default");
    let all = state.store.vaults().list(org).await?;
    all.into_iter()
        .find(|vault| vault.id.as_str() == named || vault.name == named)
        .ok_or_else(|| ApiError::not_found("vault", named))
}

fn kek_of(vault: &VaultRow) -> Result<KekId, ApiError> {
    KekId::parse(&vault.kek_id).map_err(ApiError::internal)
}

/// Refuses while a rotation of the vault runs: a version would be made that nothing waits for.
async fn check_still(state: &AppState, vault: &VaultRow) -> Result<(), ApiError> {
    let running = state.store.rotations().running().await?;
    match running.into_iter().find(|one| one.vault == vault.id) {
        Some(rotation) => Err(runs(&rotation)),
        None => Ok(()),
    }
}

async fn start(
    state: &AppState,
    vault: &VaultRow,
    kind: RotationKind,
    target_version: u64,
    actor: &Actor,
) -> Result<Rotation, ApiError> {
    let rotations = state.store.rotations();
    let started = rotations
        .start(&vault.org, &vault.id, kind, target_version, actor)
        .await;
    let rotation = started.map_err(|error| match error {
        StartRotationError::Running(rotation) => runs(&rotation),
        StartRotationError::NoVault(id) => ApiError::not_found("vault", id.as_str()),
        StartRotationError::Store(error) => error.into(),
        other => ApiError::internal(other),
    })?;
    state.rotation_wanted.notify_one();
    Ok(rotation)
}

fn runs(rotation: &Rotation) -> ApiError {
    let detail = format!(
        "rotation {0} of this vault runs; look at GET /v1/keys/rotations/{0} and ask again when it is done",
        rotation.id
    );
    ApiError::new(Code::RotationRunning, detail)
}
