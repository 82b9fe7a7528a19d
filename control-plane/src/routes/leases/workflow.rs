//! `POST /v1/vault/leases/workflow`

use axum::extract::State;
use axum::http::StatusCode;
use leases::scope::Kind;
use serde::Serialize;
use utoipa::ToSchema;
use zeroize::Zeroize;

use super::create::{self, CreateLease, CreatedLease};
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::Problem;

/// A new workflow lease.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedWorkflow {
    ok: bool,
    #[serde(flatten)]
    lease: CreatedLease,
    /// The same as `token`, by Clawb's name.
    workflow_lease_token: String,
}

impl Drop for CreatedWorkflow {
    fn drop(&mut self) {
        self.workflow_lease_token.zeroize();
    }
}

/// Mints a workflow lease, from which request leases are minted.
#[utoipa::path(post, path = "/v1/vault/leases/workflow", tag = "leases", operation_id = "createWorkflowLease", request_body = CreateLease,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = CreatedWorkflow), (status = 403, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Json(mut body): Json<CreateLease>,
) -> Result<(StatusCode, axum::Json<CreatedWorkflow>), ApiError> {
    match body.kind {
        None | Some(Kind::Workflow) => body.kind = Some(Kind::Workflow),
        Some(Kind::Request) => {
            return Err(ApiError::invalid(
                "kind",
                "is workflow here; mint a request lease with POST /v1/vault/leases",
            ));
        }
    }
    let lease = create::mint(&state, &caller, body).await?;
    let answer = CreatedWorkflow {
        ok: true,
        workflow_lease_token: lease.token.clone(),
        lease,
    };
    Ok((StatusCode::CREATED, axum::Json(answer)))
}
