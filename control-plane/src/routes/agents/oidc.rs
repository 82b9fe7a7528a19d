//! The identity provider of an agent, as it is asked for and shown.

use axum::http::Uri;
use store::AgentOidc;

use crate::AppState;
use crate::error::ApiError;
use crate::oidc::Issuer;
use crate::text::is_label;

/// Reads an agent's provider from issuer, client id and audience; `None` where nothing is said of one.
///
/// Whether it answers is not looked at: it may not be up yet.
pub(super) fn read(
    state: &AppState,
    [issuer, client_id, audience]: [&Option<String>; 3],
) -> Result<Option<AgentOidc>, ApiError> {
    if [issuer, client_id, audience]
        .iter()
        .all(|text| text.is_none())
    {
        return Ok(None);
    }
    let issuer = issuer.as_deref().ok_or_else(|| missing("oidc_issuer"))?;
    let client_id = client_id.clone().ok_or_else(|| missing("oidc_client_id"))?;
    check_name("oidc_client_id", Some(&client_id))?;
    check_audience(audience.as_ref())?;
    let issuer = Issuer::parse(issuer).map_err(|error| ApiError::invalid("oidc_issuer", error))?;
    let uri: Uri = issuer.document().parse().map_err(ApiError::internal)?;
    let admitted = state.outbound.admit(&uri);
    admitted.map_err(|error| ApiError::invalid("oidc_issuer", error))?;
    Ok(Some(AgentOidc {
        issuer: issuer.as_str().to_owned(),
        client_id,
        audience: audience.clone(),
    }))
}

/// Refuses an audience that no provider would have a name for.
pub(super) fn check_audience(audience: Option<&String>) -> Result<(), ApiError> {
    check_name("oidc_audience", audience)
}

fn check_name(field: &str, text: Option<&String>) -> Result<(), ApiError> {
    if text.is_none_or(|text| is_label(text, MAX_NAME)) {
        return Ok(());
    }
    Err(ApiError::invalid(
        field,
        format_args!("must be 1 to {MAX_NAME} characters and no control characters"),
    ))
}

/// Issuer, client id and audience as they are shown.
pub(super) fn shown(oidc: Option<AgentOidc>) -> (Option<String>, Option<String>, Option<String>) {
    match oidc {
        Some(oidc) => (Some(oidc.issuer), Some(oidc.client_id), oidc.audience),
        None => (None, None, None),
    }
}

fn missing(field: &str) -> ApiError {
    let rule = "is missing; name an agent's provider by oidc_issuer and oidc_client_id together";
    ApiError::invalid(field, rule)
}

const MAX_NAME: usize = 255;
