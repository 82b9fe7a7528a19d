//! `GET /v1/health` and `GET /v1/health/hsm`: what load balancers ask. Public, so it names parts and no things.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use store::Restored;
use utoipa::ToSchema;

use crate::AppState;
use crate::timestamp;

/// How the service fares.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok` or `degraded`.
    status: &'static str,
    /// What is degraded: `store`, `ledger`, `keys`, `clock`, `restore`.
    degraded: Vec<&'static str>,
    /// With `restore`, until the next start: the database was put back to its state of about this time (RFC 3339).
    /// Leases were revoked; revocations of agents, grants and keys since then have to be made again. `unknown` if no
    /// record is left that would tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_to: Option<String>,
}

/// How the key provider fares.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyHealth {
    /// `ok` or `unavailable`.
    status: &'static str,
    /// `software`, `pkcs11` or `gcp-kms`.
    provider: &'static str,
    /// Whether this node may seal: store secrets.
    wrap: bool,
    /// Whether this node may open: inject and export.
    unwrap: bool,
    /// Whether this node has the means to mint leases and tokens.
    sign: bool,
}

/// Says what is degraded. 503 when nothing can be recorded, for then nothing is injected.
#[utoipa::path(get, path = "/v1/health", tag = "system", operation_id = "health", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(crate) async fn handle(State(state): State<AppState>) -> (StatusCode, Json<Health>) {
    let store = state.store.check().await.is_ok();
    // An idle ledger knows of its last batch only, which may have failed long ago.
    state.store.ledger().probe().await;
    let health = state.store.ledger().health();
    let ledger = health.last_error.is_none();
    let keys = state.keys_answer().await;
    let clock = state.store.clock_behind() <= MAX_CLOCK_BEHIND;
    let parts = [
        ("store", store),
        ("ledger", ledger),
        ("keys", keys),
        ("clock", clock),
        ("restore", health.restored.is_none()),
    ];
    let degraded: Vec<&str> = parts
        .into_iter()
        .filter(|(_, good)| !good)
        .map(|(name, _)| name)
        .collect();
    let status = if store && ledger {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let word = if degraded.is_empty() {
        "ok"
    } else {
        "degraded"
    };
    (
        status,
        Json(Health {
            status: word,
            degraded,
            restored_to: health.restored.as_ref().map(restored_to),
        }),
    )
}

/// The same, where probes of the seeds' services look for it.
#[utoipa::path(get, path = "/health/ready", tag = "system", operation_id = "ready", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(crate) async fn handle_ready(state: State<AppState>) -> (StatusCode, Json<Health>) {
    handle(state).await
}

fn restored_to(restored: &Restored) -> String {
    restored
        .restored_to
        .map_or_else(|| "unknown".to_owned(), timestamp::format)
}

/// Says whether the key provider answers, and what it lets this node do.
#[utoipa::path(get, path = "/v1/health/hsm", tag = "system", operation_id = "healthHsm", security(()),
    responses((status = 200, body = KeyHealth), (status = 503, body = KeyHealth)))]
pub(crate) async fn handle_hsm(State(state): State<AppState>) -> (StatusCode, Json<KeyHealth>) {
    let answers = state.keys_answer().await;
    let rights = state.rights().await;
    let (code, status) = if answers {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    let health = KeyHealth {
        status,
        provider: state.vault.wrapper().provider(),
        wrap: rights.wrap,
        unwrap: rights.unwrap,
        sign: state.minting.is_some(),
    };
    (code, Json(health))
}

const MAX_CLOCK_BEHIND: std::time::Duration = std::time::Duration::from_secs(30);
