//! Audit events: their fields, and their one canonical text.

use std::net::IpAddr;

use ::leases::id::{AgentId, GrantId, LeaseId, SetId, UseId};
use serde::{Deserialize, Serialize};

/// Whether what an event tells was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It was done.
    #[default]
    Allow,
    /// It was refused.
    Deny,
}

impl Decision {
    /// The word in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// An event as it is read back: the fields of the contract, absent ones left out of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its id, `evt_…`.
    pub id: String,
    /// The chain that it belongs to, `<node>/ledger` or `<node>/control`.
    pub stream: String,
    /// Its place in the chain, from 1 up without a gap.
    pub seq: u64,
    /// Hash of the record before it, lower-case hex; 64 zeros for the first.
    #[serde(default)]
    pub prev_hash: String,
    /// SHA-256 over the bytes of `prev_hash` and the stored body, lower-case hex.
    #[serde(default)]
    pub hash: String,
    /// RFC 3339 with milliseconds and `Z`.
    pub created_at: String,
    /// The organisation.
    pub org_id: String,
    /// What happened, e.g. `lease.use`.
    pub action: String,
    /// Whether it was allowed.
    pub decision: Decision,
    /// The refusal's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// `user`, `agent` or `system`.
    pub actor_type: String,
    /// Who did it.
    pub actor_id: String,
    /// The agent concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The lease concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_id: Option<String>,
    /// The grant concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_id: Option<String>,
    /// The secret set concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_set_id: Option<String>,
    /// The set's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<u64>,
    /// Names of the entries concerned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Joins a use with its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub use_id: Option<String>,
    /// The request, as logs and problem bodies name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ip: Option<String>,
    /// HTTP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// `https` or `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// The host asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The address dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The path without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Status of the provider's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Bytes of body sent to the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_up: Option<u64>,
    /// Bytes of body received from the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_down: Option<u64>,
    /// From the use's record to the end of the answer, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How often the provider was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
}

/// An event to be appended; who did it comes from the [`Actor`](crate::Actor).
#[derive(Debug, Clone, Default)]
pub struct NewEvent {
    /// What happened, e.g. `auth.failure`.
    pub action: &'static str,
    /// Whether it was allowed.
    pub decision: Decision,
    /// The refusal's code.
    pub error: Option<String>,
    /// The agent concerned.
    pub agent_id: Option<AgentId>,
    /// The lease concerned.
    pub lease_id: Option<LeaseId>,
    /// The grant concerned.
    pub grant_id: Option<GrantId>,
    /// The secret set concerned.
    pub secret_set_id: Option<SetId>,
    /// The set's version.
    pub secret_version: Option<u64>,
    /// Names of the entries concerned.
    pub keys: Vec<String>,
    /// Joins a use with its outcome.
    pub use_id: Option<UseId>,
    /// HTTP method.
    pub method: Option<String>,
    /// `https` or `http`.
    pub scheme: Option<&'static str>,
    /// The host asked for.
    pub host: Option<String>,
    /// The port asked for.
    pub port: Option<u16>,
    /// The address dialled.
    pub address: Option<IpAddr>,
    /// The path without its query.
    pub path: Option<String>,
}
