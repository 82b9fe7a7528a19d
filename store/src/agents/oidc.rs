//! Where the tokens of an agent come from that has no key.

use crate::StoreError;
use crate::db::Row;

/// The identity provider of an agent, and what the agent is to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentOidc {
    /// The provider's issuer, letter by letter as its tokens name it.
    pub issuer: String,
    /// The agent's client there.
    pub client_id: String,
    /// For whom its tokens are made; none means the audience of the installation.
    pub audience: Option<String>,
}

/// Reads it off an agent's row; `None` for an agent of another method.
pub(super) fn read(row: &Row) -> Result<Option<AgentOidc>, StoreError> {
    let issuer: Option<String> = row.try_get("oidc_issuer")?;
    let client_id: Option<String> = row.try_get("oidc_client_id")?;
    match (issuer, client_id) {
        (None, None) => Ok(None),
        (Some(issuer), Some(client_id)) => Ok(Some(AgentOidc {
            issuer,
            client_id,
            audience: row.try_get("oidc_audience")?,
        })),
        _ => Err(StoreError::Corrupt { what: "agent" }),
    }
}
