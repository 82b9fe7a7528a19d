//! Opening a secret for a control plane that may not: of an injector's API alone, and under a control plane's voucher alone.

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use http_body_util::BodyExt;
use leases::id::{OrgId, VaultId};
use leases::secret_path::SecretPath;
use serde::{Deserialize, Serialize};
use store::{Actor, ActorKind, NewEvent};
use vault::{RowBinding, Secret};

use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Json;
use crate::forward;
use crate::plaintext::{self, Plaintext};

/// A version of a secret, whose read the control plane has decided, counted and recorded.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenRow {
    pub(crate) org: OrgId,
    pub(crate) vault: VaultId,
    pub(crate) path: String,
    pub(crate) version: u64,
}

/// Its value, as it is given to the control plane.
#[derive(Serialize)]
struct Given {
    value: Plaintext,
}

/// Its value, as the control plane reads it.
#[derive(Deserialize)]
pub(crate) struct OpenedRow {
    pub(crate) value: Secret,
}

/// Opens one version of one secret. It is on record in this process's own stream first, whatever the control plane wrote in its own.
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // `middleware::read_small_body` has bounded it already.
    let body = body.collect().await.map_err(ApiError::internal)?.to_bytes();
    let context = forward::vouched(&state, context, PATH, (&parts.headers, &body))?;
    let request = Request::from_parts(parts, Body::from(body));
    let Json(row) = Json::<OpenRow>::from_request(request, &state).await?;
    let not_found = || ApiError::not_found("secret", &row.path);
    let path = SecretPath::parse(&row.path).map_err(|_| not_found())?;
    let secrets = state.store.secrets();
    let sealed = secrets
        .sealed(&row.org, &row.vault, &path, row.version)
        .await?;
    let sealed = sealed.ok_or_else(not_found)?;
    let event = NewEvent {
        action: "secret.open",
        vault_id: Some(row.vault.clone()),
        keys: vec![row.path.clone()],
        secret_version: Some(row.version),
        ..NewEvent::default()
    };
    let actor = Actor {
        kind: ActorKind::System,
        id: "control-plane".to_owned(),
        client_ip: context.client_ip,
        request_id: Some(context.id),
    };
    state.store.audit().append(&row.org, event, &actor).await?;
    let binding = RowBinding {
        org: row.org.as_str(),
        vault: row.vault.as_str(),
        path: path.as_str(),
        version: row.version,
    };
    let value = Plaintext(state.vault.open(&sealed, &binding).await?);
    let capacity = 64 + value.json_len();
    plaintext::respond(&Given { value }, capacity)
}

/// The path of this call.
pub(crate) const PATH: &str = "/v1/internal/open-secret";
