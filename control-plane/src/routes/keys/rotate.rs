//! `POST /v1/keys/rotate`

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use store::rotations::RotationKind;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{RotationView, check_admin, check_still, find_vault, kek_of, start};
use crate::AppState;
use crate::auth::Person;
use crate::ca::{self, CA_OVERLAP};
use crate::error::ApiError;
use crate::extract::OptionalJson;
use crate::keys::{CA, JWT, LEASE_ROOT, OVERLAP};
use crate::problem::{Code, Problem};
use crate::timestamp::Timestamp;

/// What to rotate: the KEK of a vault, or a key of the service.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotate {
    /// A vault's id or name; the default vault when left out.
    vault: Option<String>,
    /// `lease-root`, `jwt` or `ca`, in the place of a vault.
    key: Option<String>,
}

/// What was begun.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rotated {
    /// The work in the background, of a vault's KEK.
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<RotationView>,
    /// The new version, of a key of the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<NewVersion>,
}

/// A new version of a key of the service.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewVersion {
    name: &'static str,
    version: u64,
    /// From when it signs; until then the one before it does. What that one signed stays good until it ends.
    signs_from: Timestamp,
}

/// Makes a new version of a vault's KEK and wraps all its data keys anew in the background, or makes a new key of the service.
#[utoipa::path(post, path = "/v1/keys/rotate", tag = "keys", operation_id = "rotateKey", request_body = Option<Rotate>,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 202, body = Rotated), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    OptionalJson(body): OptionalJson<Rotate>,
) -> Result<(StatusCode, axum::Json<Rotated>), ApiError> {
    check_admin(&person)?;
    let rotated = match (body.vault, body.key) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "key",
                "goes without `vault`; name one of the two",
            ));
        }
        (vault, None) => rotate_kek(&state, &person, vault.as_deref()).await?,
        (None, Some(key)) => rotate_key(&state, &person, &key).await?,
    };
    Ok((StatusCode::ACCEPTED, axum::Json(rotated)))
}

async fn rotate_kek(
    state: &AppState,
    person: &Person,
    named: Option<&str>,
) -> Result<Rotated, ApiError> {
    let vault = find_vault(state, &person.org, named).await?;
    check_still(state, &vault).await?;
    let kek = kek_of(&vault)?;
    let version = state.vault.wrapper().rotate_kek(&kek).await?;
    let rotation = start(state, &vault, RotationKind::Rewrap, version, &person.actor).await?;
    Ok(Rotated {
        rotation: Some(rotation.into()),
        key: None,
    })
}

async fn rotate_key(state: &AppState, person: &Person, key: &str) -> Result<Rotated, ApiError> {
    if person.org != state.home_org {
        let detail = "the keys of the service belong to the organisation that runs it; ask one of its admins";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    let minting = state.minting()?;
    let (chest, actor, now) = (&state.chest, &person.actor, state.clock.now());
    let new = |name, version, signs_from: OffsetDateTime| Rotated {
        rotation: None,
        key: Some(NewVersion {
            name,
            version,
            signs_from: signs_from.into(),
        }),
    };
    match key {
        LEASE_ROOT => {
            let version = minting.keys.rotate(chest, actor, now).await?;
            Ok(new(LEASE_ROOT, version, now + OVERLAP))
        }
        JWT => {
            let version = minting.jwt.rotate(chest, actor, now).await?;
            Ok(new(JWT, version, now + OVERLAP))
        }
        CA => {
            let maker = minting.ca.as_ref().ok_or_else(|| {
                ApiError::invalid(
                    "key",
                    "this process makes no certificate authorities; ask a control plane that does",
                )
            })?;
            let version = ca::add(chest, maker.as_ref(), actor, now).await?;
            Ok(new(CA, version, now + CA_OVERLAP))
        }
        _ => Err(ApiError::invalid("key", "must be lease-root, jwt or ca")),
    }
}
