//! Leases: short-lived tokens minted from grants.

pub(crate) mod choice;
pub(crate) mod create;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod mint_request;
pub(crate) mod read;
pub(crate) mod revoke;
pub(crate) mod revoke_token;
pub(crate) mod workflow;

use leases::id::{AgentId, GrantId, LeaseId, SetId};
use leases::scope::{Action, Kind};
use serde::Serialize;
use store::LeaseRecord;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Id;
use crate::timestamp::Timestamp;

/// What is known of a lease; its token is kept nowhere.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LeaseView {
    #[schema(value_type = String, example = "lse_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    lease_id: LeaseId,
    #[schema(value_type = String)]
    agent_id: AgentId,
    /// `request` (used once) or `workflow`.
    #[schema(value_type = String)]
    kind: Kind,
    #[schema(value_type = String)]
    action: Action,
    secret_sets: Vec<LeasedSet>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    revoked_at: Option<Timestamp>,
    uses: u64,
    /// The workflow lease that it was minted from, with which it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    workflow_lease_id: Option<LeaseId>,
    /// `active`, `used`, `expired` or `revoked`.
    status: &'static str,
}

/// A set that a lease opens, and by which grant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LeasedSet {
    #[schema(value_type = String)]
    secret_set_id: SetId,
    #[schema(value_type = String)]
    grant_id: GrantId,
}

impl LeaseView {
    fn new(lease: LeaseRecord, now: OffsetDateTime) -> Self {
        let sets = lease.sets.into_iter();
        Self {
            status: match (lease.revoked_at, lease.kind) {
                (Some(_), _) => "revoked",
                (None, Kind::Request) if lease.uses > 0 => "used",
                (None, _) if lease.expires_at <= now => "expired",
                (None, _) => "active",
            },
            lease_id: lease.id,
            agent_id: lease.agent_id,
            kind: lease.kind,
            action: lease.action,
            secret_sets: sets
                .map(|(secret_set_id, grant_id)| LeasedSet {
                    secret_set_id,
                    grant_id,
                })
                .collect(),
            issued_at: lease.issued_at.into(),
            expires_at: lease.expires_at.into(),
            revoked_at: lease.revoked_at.map(Timestamp),
            uses: lease.uses,
            workflow_lease_id: lease.parent,
        }
    }
}

/// A lease that the caller may see: an agent sees its own, and another's is like one that never was.
async fn find(state: &AppState, caller: &Caller, id: &Id) -> Result<LeaseRecord, ApiError> {
    let lease = state
        .store
        .leases()
        .get(caller.org(), &id.parse("lease")?)
        .await?;
    let visible = lease.filter(|lease| caller.agent().is_none_or(|agent| *agent == lease.agent_id));
    visible.ok_or_else(|| ApiError::not_found("lease", &id.0))
}
