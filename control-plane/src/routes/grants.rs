//! Grants: a person's standing permission for an agent to use a secret set.

pub(crate) mod create;
pub(crate) mod get;
pub(crate) mod list;
mod preset;
pub(crate) mod revoke;
pub(crate) mod spend;

use leases::id::{AgentId, GrantId, SetId};
use leases::scope::{Action, Keys, Scope};
use serde::Serialize;
use store::{Grant, Rate};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::openapi::shapes;
use crate::timestamp::Timestamp;
use spend::SpendView;

/// A grant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantView {
    #[schema(value_type = String, example = "grt_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: GrantId,
    #[schema(value_type = String)]
    agent_id: AgentId,
    #[schema(value_type = String)]
    secret_set_id: SetId,
    #[schema(value_type = Vec<String>)]
    allowed_actions: Vec<Action>,
    /// `"*"` or a list of names.
    #[schema(schema_with = shapes::keys)]
    allowed_keys: Keys,
    constraints: ConstraintsView,
    expires_at: Option<Timestamp>,
    created_by: String,
    created_at: Timestamp,
    revoked_at: Option<Timestamp>,
    /// `active`, `expired` or `revoked`.
    status: &'static str,
}

/// Limits of a grant; an absent one does not limit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConstraintsView {
    /// `{hosts[], methods[], paths[], cidrs[], time_window, cleartext, aws{services[], regions[], buckets[], actions[], presigned},
    /// github{repositories[], permissions{}}}`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    scope: Scope,
    /// The template's preset whose limits are among these.
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    rate: Option<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spend: Option<SpendView>,
}

impl GrantView {
    fn new(grant: Grant, now: OffsetDateTime) -> Self {
        let expired = grant.expires_at.is_some_and(|end| end <= now);
        Self {
            status: match (grant.revoked_at, expired) {
                (Some(_), _) => "revoked",
                (None, true) => "expired",
                (None, false) => "active",
            },
            id: grant.id,
            agent_id: grant.agent_id,
            secret_set_id: grant.secret_set_id,
            allowed_actions: grant.allowed_actions,
            allowed_keys: grant.allowed_keys,
            constraints: ConstraintsView {
                scope: grant.constraints,
                preset: grant.preset,
                rate: grant.rate,
                spend: grant.spend.map(SpendView::from),
            },
            expires_at: grant.expires_at.map(Timestamp),
            created_by: grant.created_by,
            created_at: grant.created_at.into(),
            revoked_at: grant.revoked_at.map(Timestamp),
        }
    }
}
