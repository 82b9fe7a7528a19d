//! `GET /v1/vaults/{vault_id}/secrets`

use axum::Json;
use axum::extract::State;
use leases::secret_path::MAX_PATH_BYTES;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::SecretView;
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Id, Params, WidePaging};
use crate::vault_access::VaultAccess;

/// Which secrets.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SecretFilter {
    /// Those whose path begins so.
    #[param(required = false)]
    prefix: Option<String>,
}

/// A page of secrets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SecretList {
    secrets: Vec<SecretView>,
    next_cursor: Option<String>,
}

/// Lists secrets in the order of their paths, without values and without the deleted; an agent sees those that it may read. A page may be
/// short although more follow. It counts no read.
#[utoipa::path(get, path = "/v1/vaults/{vault_id}/secrets", tag = "secrets", operation_id = "listSecrets",
    params(("vault_id" = String, Path), SecretFilter, WidePaging), responses((status = 200, body = SecretList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
    Params(filter): Params<SecretFilter>,
    Params(paging): Params<WidePaging>,
) -> Result<Json<SecretList>, ApiError> {
    let prefix = filter.prefix.unwrap_or_default();
    check_prefix(&prefix)?;
    let access = VaultAccess::find(&state, &caller, &id.0).await?;
    let secrets = state.store.secrets();
    let page = secrets
        .list(caller.org(), &access.vault.id, &prefix, &paging.request()?)
        .await?;
    let seen = page.items.into_iter();
    let seen = seen.filter(|version| access.sees(&version.path));
    Ok(Json(SecretList {
        secrets: seen.map(SecretView::from).collect(),
        next_cursor: page.next_cursor,
    }))
}

/// Refuses what no path begins with.
fn check_prefix(prefix: &str) -> Result<(), ApiError> {
    let is_path_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/');
    if prefix.len() <= MAX_PATH_BYTES && prefix.bytes().all(is_path_byte) {
        return Ok(());
    }
    let rule = format_args!(
        "must be at most {MAX_PATH_BYTES} characters of A-Z, a-z, 0-9, `_`, `-` and `/`"
    );
    Err(ApiError::invalid("prefix", rule))
}
