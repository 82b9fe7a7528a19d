//! Vaults: named containers of secrets, each under its own key.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;

use leases::id::VaultId;
use serde::Serialize;
use store::Vault;
use utoipa::ToSchema;

use crate::timestamp::Timestamp;

/// A vault.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VaultView {
    #[schema(value_type = String, example = "vlt_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: VaultId,
    name: String,
    description: String,
    /// Whether it is the one that always exists, in which secret sets lie.
    is_default: bool,
    /// Id of the person who made it; absent for those that the service makes.
    created_by: Option<String>,
    /// `user`, or `system` for the default vault and `__agent-keys`.
    created_by_type: String,
    created_at: Timestamp,
    /// Always false: no client holds a key of its own to a vault.
    cmek_enabled: bool,
    cmek_fingerprint: Option<String>,
}

impl From<Vault> for VaultView {
    fn from(vault: Vault) -> Self {
        Self {
            is_default: vault.is_default(),
            id: vault.id,
            name: vault.name,
            description: vault.description.unwrap_or_default(),
            created_by: vault.created_by,
            created_by_type: vault.created_by_type.unwrap_or_else(|| "system".to_owned()),
            created_at: vault.created_at.into(),
            cmek_enabled: false,
            cmek_fingerprint: None,
        }
    }
}
