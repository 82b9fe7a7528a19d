//! `GET /v1/audit/verify`

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use store::audit::{PutBack, RolledBack};
use store::{BadRecord, StreamReport, VerifyReport};
use utoipa::{IntoParams, ToSchema};

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Params;
use crate::timestamp::Timestamp;

/// What a look at the whole chain found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VerifyAnswer {
    intact: bool,
    /// The same as `intact`, as the seeds' clients read it.
    chain_valid: bool,
    /// Records before the first bad one of each stream.
    events_verified: u64,
    /// All records.
    events_checked: u64,
    /// The first bad record, where it still is one.
    broken_at_event_id: Option<String>,
    scheme: Scheme,
    /// The first bad record of all streams.
    first_bad: Option<BadView>,
    streams: Vec<StreamView>,
    /// The key that signed the checkpoint, hex.
    checkpoint_key: Option<String>,
    /// Secret sets that lie below a version that the chain recorded.
    rolled_back: Vec<RolledBackView>,
    /// Secrets by path and policies of this organisation whose rows are other than the chain recorded.
    put_back: Vec<PutBackView>,
}

/// How the chain is made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Scheme {
    algorithm: &'static str,
    chain_structure: &'static str,
    hash_field: &'static str,
    link_field: &'static str,
}

const SCHEME: Scheme = Scheme {
    algorithm: "SHA-256",
    chain_structure: "a chain for each writing node, heads signed with Ed25519",
    hash_field: "hash",
    link_field: "prev_hash",
};

/// What the seeds' clients send along. The whole chain is verified, whatever they name.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyQuery {
    /// A time (RFC 3339); narrows nothing.
    #[serde(rename = "from")]
    #[param(required = false, value_type = Option<String>)]
    _from: Option<Timestamp>,
    /// A time (RFC 3339); narrows nothing.
    #[serde(rename = "to")]
    #[param(required = false, value_type = Option<String>)]
    _to: Option<Timestamp>,
    /// Narrows nothing.
    #[serde(rename = "limit")]
    #[param(maximum = 4_294_967_295_u64, required = false)]
    _limit: Option<u32>,
}

/// A secret by path or a policy whose rows were put back, or written, behind the service's back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PutBackView {
    /// `secret` or `policy`.
    kind: &'static str,
    vault_id: String,
    /// The secret's path, or the policy's id.
    name: String,
    why: String,
}

impl From<PutBack> for PutBackView {
    fn from(found: PutBack) -> Self {
        Self {
            kind: found.kind,
            vault_id: found.vault_id,
            name: found.name,
            why: found.why,
        }
    }
}

/// A secret set whose rows were put back behind the service's back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RolledBackView {
    secret_set_id: String,
    /// The highest version that the chain recorded.
    recorded: u64,
    /// The version in the database.
    stored: u64,
}

impl From<RolledBack> for RolledBackView {
    fn from(found: RolledBack) -> Self {
        Self {
            secret_set_id: found.secret_set_id,
            recorded: found.recorded,
            stored: found.stored,
        }
    }
}

/// A record that is not as it was written.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BadView {
    stream: String,
    seq: u64,
    /// `edited`, `missing`, `out_of_order`, `truncated`, `column_differs`, `rewritten`, `bad_signature` or `unanchored`.
    reason: &'static str,
    why: String,
}

/// One stream of the chain.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StreamView {
    stream: String,
    events: u64,
    head_seq: u64,
    head_hash: String,
    /// The signed head.
    checkpoint_seq: Option<u64>,
    first_bad: Option<BadView>,
}

impl From<BadRecord> for BadView {
    fn from(bad: BadRecord) -> Self {
        Self {
            stream: bad.stream,
            seq: bad.seq,
            reason: bad.reason.as_str(),
            why: bad.why,
        }
    }
}

impl From<StreamReport> for StreamView {
    fn from(report: StreamReport) -> Self {
        Self {
            stream: report.stream,
            events: report.events,
            head_seq: report.head_seq,
            head_hash: report.head_hash,
            checkpoint_seq: report.checkpoint_seq,
            first_bad: report.first_bad.map(BadView::from),
        }
    }
}

/// The records of a stream that stand before its first bad one.
fn verified(report: &StreamReport) -> u64 {
    let bad = report.first_bad.as_ref();
    bad.map_or(report.events, |bad| {
        report.events.min(bad.seq.saturating_sub(1))
    })
}

impl VerifyAnswer {
    fn new(report: VerifyReport, broken_at_event_id: Option<String>) -> Self {
        Self {
            intact: report.is_intact(),
            chain_valid: report.is_intact(),
            events_verified: report.streams.iter().map(verified).sum(),
            events_checked: report.streams.iter().map(|stream| stream.events).sum(),
            broken_at_event_id,
            scheme: SCHEME,
            first_bad: report.first_bad.map(BadView::from),
            streams: report.streams.into_iter().map(StreamView::from).collect(),
            checkpoint_key: report.checkpoint_key,
            rolled_back: report
                .rolled_back
                .into_iter()
                .map(RolledBackView::from)
                .collect(),
            put_back: report.put_back.into_iter().map(PutBackView::from).collect(),
        }
    }
}

/// Verifies the audit chain against memory and its signed heads. A broken chain is an answer, not an error.
#[utoipa::path(get, path = "/v1/audit/verify", tag = "audit", operation_id = "verifyAudit", params(VerifyQuery), responses((status = 200, body = VerifyAnswer)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    _query: Params<VerifyQuery>,
) -> Result<Json<VerifyAnswer>, ApiError> {
    let mut report = state.store.audit().verify().await?;
    // Paths and policies of others are none of the caller's business.
    report
        .put_back
        .retain(|found| found.org_id == person.org.as_str());
    let mut broken_at = None;
    if let Some(bad) = &report.first_bad {
        broken_at = state.store.audit().id_of_bad(&person.org, bad).await?;
        tracing::error!(
            audit.stream = bad.stream,
            audit.seq = bad.seq,
            "the audit chain is not as it was written"
        );
    }
    Ok(Json(VerifyAnswer::new(report, broken_at)))
}
