//! The audit trail, read.

mod csv;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod tail;
pub(crate) mod verify;

pub(crate) use tail::MAX_TAILS;

use leases::id::{AgentId, LeaseId, SetId};
use serde::Deserialize;
use store::{EventFilter, PageRequest};
use utoipa::{IntoParams, ToSchema};

use crate::error::ApiError;
use crate::extract::Paging;
use crate::timestamp::Timestamp;

/// Which events. An unknown parameter is refused: a mistyped filter would show more than was meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventQuery {
    #[param(required = false)]
    secret_set_id: Option<String>,
    #[param(required = false)]
    agent_id: Option<String>,
    #[param(required = false)]
    lease_id: Option<String>,
    /// Who did it: a user's or an agent's id.
    #[param(required = false)]
    actor_id: Option<String>,
    /// What it was done to, by the id: of an agent, a set, a grant, a lease, a vault, a policy or an approval.
    #[param(required = false)]
    resource_id: Option<String>,
    /// Such as `lease.use`.
    #[param(required = false)]
    action: Option<String>,
    /// Not before this time (RFC 3339).
    #[param(required = false, value_type = Option<String>)]
    from: Option<Timestamp>,
    /// Before this time (RFC 3339).
    #[param(required = false, value_type = Option<String>)]
    to: Option<Timestamp>,
    /// Items of one page: default 50, at most 200 (more is taken as 200).
    #[param(
        minimum = 1,
        maximum = 4_294_967_295_u64,
        default = 50,
        required = false
    )]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
    /// Events to leave out, at most 10000, as the seeds' clients turn pages; `cursor` costs less.
    #[param(maximum = 10_000, required = false)]
    offset: Option<u32>,
    /// Of an export: `ndjson` (the default) or `csv`.
    #[param(required = false)]
    format: Option<Format>,
}

const MAX_OFFSET: u32 = 10_000;

/// How an export is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    #[default]
    Ndjson,
    Csv,
}

impl EventQuery {
    fn split(self) -> Result<(EventFilter, PageRequest), ApiError> {
        if self.offset > Some(MAX_OFFSET) {
            let rule = format_args!("must be at most {MAX_OFFSET}; turn pages by `cursor`");
            return Err(ApiError::invalid("offset", rule));
        }
        let filter = EventFilter {
            secret_set_id: parse("secret_set_id", self.secret_set_id.as_deref(), SetId::parse)?,
            agent_id: parse("agent_id", self.agent_id.as_deref(), AgentId::parse)?,
            lease_id: parse("lease_id", self.lease_id.as_deref(), LeaseId::parse)?,
            action: self.action,
            actor_id: self.actor_id,
            field: self.resource_id.as_deref().map(resource).transpose()?,
            from: self.from.map(|time| time.0),
            to: self.to.map(|time| time.0),
        };
        let page = Paging::new(self.limit, self.cursor).request()?;
        Ok((filter, page))
    }
}

/// The field of a record in which a resource's id stands.
fn resource(id: &str) -> Result<(&'static str, String), ApiError> {
    let field = match id.split_once('_').map(|(kind, _)| kind) {
        Some("agt") => "agent_id",
        Some("set") => "secret_set_id",
        Some("grt") => "grant_id",
        Some("lse") => "lease_id",
        Some("vlt") => "vault_id",
        Some("pol") => "policy_id",
        Some("apr") => "approval_id",
        _ => {
            let rule = "must be the id of an agent, a secret set, a grant, a lease, a vault, a policy or an approval";
            return Err(ApiError::invalid("resource_id", rule));
        }
    };
    Ok((field, id.to_owned()))
}

fn parse<T, E: std::fmt::Display>(
    field: &str,
    text: Option<&str>,
    read: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, ApiError> {
    text.map(|text| read(text).map_err(|error| ApiError::invalid(field, error)))
        .transpose()
}
