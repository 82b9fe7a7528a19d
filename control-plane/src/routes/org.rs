//! An organisation: its people, who belongs to it with which role and who is invited, and the vault of its agents' identity keys.

pub(crate) mod agent_keys_vault;
pub(crate) mod invitations;
pub(crate) mod members;

use store::Role;

use crate::error::ApiError;

/// Reads a role's word.
fn role(text: &str) -> Result<Role, ApiError> {
    Role::parse(text)
        .ok_or_else(|| ApiError::invalid("role", "must be owner, admin, member or auditor"))
}
