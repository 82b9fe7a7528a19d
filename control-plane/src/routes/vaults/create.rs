//! `POST /v1/vaults`

use axum::extract::State;
use axum::http::StatusCode;
use leases::id::VaultId;
use serde::Deserialize;
use store::vaults::is_reserved;
use store::{CreateVaultError, NamedVault, NewVault};
use utoipa::ToSchema;

use super::VaultView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::Problem;
use crate::text::is_label;

/// A vault to be made; further fields of the seeds' clients are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct CreateVault {
    /// Unique in the organisation.
    #[schema(example = "payments", min_length = 1, max_length = 100)]
    name: String,
    #[serde(default)]
    description: Option<String>,
}

/// Makes a vault with a key of its own in the key provider.
#[utoipa::path(post, path = "/v1/vaults", tag = "vaults", operation_id = "createVault", request_body = CreateVault,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = VaultView), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Json(body): Json<CreateVault>,
) -> Result<(StatusCode, axum::Json<VaultView>), ApiError> {
    let description = body.description.filter(|text| !text.is_empty());
    check(&body.name, description.as_deref())?;
    let vaults = state.store.vaults();
    // Asked before a key is made: a key without a vault harms nobody and helps nobody either.
    if vaults.get(&person.org, &body.name).await?.is_some() {
        return Err(CreateVaultError::NameTaken.into());
    }
    let id = VaultId::new(state.clock.now());
    // The key first: a vault row without a key could never be written to.
    let kek = state.vault.wrapper().create_kek(id.as_str()).await?;
    let new = NamedVault {
        vault: NewVault {
            id,
            kek_id: kek.to_string(),
        },
        name: body.name,
        description,
    };
    let made = vaults.create(&person.org, new, &person.actor).await?;
    Ok((StatusCode::CREATED, axum::Json(made.into())))
}

fn check(name: &str, description: Option<&str>) -> Result<(), ApiError> {
    if !is_label(name, MAX_NAME) || name.trim() != name {
        let rule = format_args!(
            "must be 1 to {MAX_NAME} characters without control characters or white space at its ends"
        );
        return Err(ApiError::invalid("name", rule));
    }
    // Vaults are named by id or name, and nobody's name may stand for another's id.
    if name.to_ascii_lowercase().starts_with(VaultId::PREFIX) {
        let rule = format_args!("must not begin with {}, as ids do", VaultId::PREFIX);
        return Err(ApiError::invalid("name", rule));
    }
    if is_reserved(name) {
        return Err(CreateVaultError::Reserved.into());
    }
    if description.is_some_and(|text| !is_label(text, MAX_DESCRIPTION)) {
        let rule =
            format_args!("must be at most {MAX_DESCRIPTION} characters without control characters");
        return Err(ApiError::invalid("description", rule));
    }
    Ok(())
}

const MAX_NAME: usize = 100;
const MAX_DESCRIPTION: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    #[test]
    fn a_name_is_a_label_that_is_no_id() {
        for good in ["payments", "Team A (prod)", "__own", "\u{1F511}"] {
            check(good, None).unwrap();
        }
        for bad in ["", " ", " a", "a\n", "vlt_x", "VLT_01K3", &"x".repeat(101)] {
            assert!(check(bad, None).is_err(), "{bad:?}");
        }
        for reserved in ["__agent-keys", "__AGENT-keys"] {
            let refused = check(reserved, None).unwrap_err();
            assert_eq!(refused.code(), Code::VaultReserved);
        }
        check("a", Some("what it is for")).unwrap();
        assert!(check("a", Some("a\u{1b}[31m")).is_err());
    }
}
