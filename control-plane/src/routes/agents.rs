//! Agents: who may hold leases.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod rotate_key;
pub(crate) mod update;

use leases::id::AgentId;
use serde::Serialize;
use store::Agent;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::problem::Code;
use crate::text::{excerpt, is_label};
use crate::timestamp::Timestamp;

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentView {
    #[schema(value_type = String, example = "agt_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: AgentId,
    name: String,
    description: Option<String>,
    /// An inactive agent gets no lease, and its leases are refused.
    is_active: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// When a lease of it was last used.
    last_used_at: Option<Timestamp>,
}

impl From<Agent> for AgentView {
    fn from(agent: Agent) -> Self {
        Self {
            id: agent.id,
            name: agent.name,
            description: agent.description,
            is_active: agent.is_active,
            created_at: agent.created_at.into(),
            updated_at: agent.updated_at.into(),
            last_used_at: agent.last_used_at.map(Timestamp),
        }
    }
}

/// An agent with its key, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentWithKey {
    agent: AgentView,
    /// `ocv_...`: shown once, kept as a hash.
    api_key: String,
}

impl Drop for AgentWithKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.api_key);
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if is_label(name, MAX_NAME) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "name",
        format_args!("must be 1 to {MAX_NAME} characters and no control characters"),
    ))
}

fn check_description(description: Option<&str>) -> Result<(), ApiError> {
    if description.is_none_or(|text| text.is_empty() || is_label(text, MAX_DESCRIPTION)) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "description",
        format_args!("must be at most {MAX_DESCRIPTION} characters and no control characters"),
    ))
}

fn name_taken(name: &str) -> ApiError {
    let detail = format!(
        "an agent named {} exists; choose another name, or use that agent",
        excerpt(name)
    );
    ApiError::new(Code::NameTaken, detail)
}

const MAX_NAME: usize = 128;
const MAX_DESCRIPTION: usize = 1024;
