//! `POST /v1/keys/migrate`

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use store::rotations::RotationKind;
use utoipa::ToSchema;

use super::{RotationView, check_admin, check_still, find_vault, kek_of, start};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::{Code, Problem};

/// Where to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Migrate {
    /// `pkcs11`, `gcp-kms` or `software`: the server's key provider, beside which it has the one to move from.
    to: String,
    /// A vault's id or name; the default vault when left out.
    vault: Option<String>,
}

/// The work in the background.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Migrating {
    rotation: RotationView,
}

/// Moves a vault to another key provider: new values are sealed there at once, and all others follow in the background.
///
/// With the default vault of the organisation that runs the service its signing keys move too: new ones are made there.
#[utoipa::path(post, path = "/v1/keys/migrate", tag = "keys", operation_id = "migrateKeys", request_body = Migrate,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 202, body = Migrating), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Json(body): Json<Migrate>,
) -> Result<(StatusCode, axum::Json<Migrating>), ApiError> {
    check_admin(&person)?;
    let vault = find_vault(&state, &person.org, body.vault.as_deref()).await?;
    check_providers(&state, &body.to)?;
    let from = kek_of(&vault)?;
    if from.as_str().split(':').next() == Some(&body.to) {
        let detail = format!(
            "vault {} is sealed by {} already; there is nothing to move",
            vault.name, body.to
        );
        return Err(ApiError::new(Code::Conflict, detail));
    }
    check_still(&state, &vault).await?;
    // That both are here: what is sealed now can be opened, and what comes can be sealed.
    let wrapper = state.vault.wrapper();
    wrapper.describe(&from).await.map_err(|error| {
        let detail = format!(
            "this server does not reach {from}, by which the vault is sealed now; configure that provider beside {}",
            body.to
        );
        ApiError::new(Code::ProviderNotConfigured, detail).because(error)
    })?;
    let to = wrapper.create_kek(vault.id.as_str()).await?;
    let version = wrapper.current_version(&to).await?;
    let kind = RotationKind::Migrate { to: to.to_string() };
    let rotation = start(&state, &vault, kind, version, &person.actor).await?;
    if person.org == state.home_org && vault.name == "default" {
        move_signing_keys(&state, &person).await?;
    }
    let rotation = rotation.into();
    Ok((StatusCode::ACCEPTED, axum::Json(Migrating { rotation })))
}

/// New KEKs are made by the primary provider, so that is where to.
fn check_providers(state: &AppState, to: &str) -> Result<(), ApiError> {
    if !PROVIDERS.contains(&to) {
        let problem = format!("must be one of {}", PROVIDERS.join(", "));
        return Err(ApiError::invalid("to", problem));
    }
    let primary = state.vault.wrapper().provider();
    if primary == to {
        return Ok(());
    }
    let detail = format!(
        "this server's key provider is {primary}; start every node with {to} as its provider and {primary} beside it (`keys.provider`, `keys.also`), then ask again"
    );
    Err(ApiError::new(Code::ProviderNotConfigured, detail))
}

/// Signing keys that live elsewhere than new ones would are replaced. What the old ones signed stays good.
async fn move_signing_keys(state: &AppState, person: &Person) -> Result<(), ApiError> {
    let minting = state.minting()?;
    let (chest, actor, now) = (&state.chest, &person.actor, state.clock.now());
    if !minting.keys.lives_in_primary() {
        minting.keys.rotate(chest, actor, now).await?;
    }
    if !minting.jwt.lives_in_primary() {
        minting.jwt.rotate(chest, actor, now).await?;
    }
    Ok(())
}

const PROVIDERS: [&str; 3] = ["software", "pkcs11", "gcp-kms"];
