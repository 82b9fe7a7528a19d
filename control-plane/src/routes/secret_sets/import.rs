//! `POST /v1/vault/secret-sets/import`

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;
use vault::Secret;

use super::{SecretSetView, SetName, store_new};
use crate::AppState;
use crate::auth::Person;
use crate::entries::parse_dotenv;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::Problem;

/// A set to be made of a `.env` text; further fields of the seeds' clients are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ImportSecretSet {
    /// The template's name, or `custom`.
    #[schema(
        example = "stripe",
        pattern = "^[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$"
    )]
    provider: String,
    #[schema(
        example = "prod",
        pattern = "^[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$"
    )]
    environment: String,
    #[schema(
        example = "billing-bot",
        pattern = "^[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$"
    )]
    name: String,
    /// `KEY=VALUE` lines; `export`, `#` comments and quotes are understood.
    #[schema(value_type = String, example = "STRIPE_SECRET_KEY='sk_test_1'")]
    dotenv: Secret,
    /// `{hosts[], inject[]}` of a `custom` set.
    #[schema(value_type = Option<Object>)]
    custom: Option<Value>,
}

/// Stores a secret set from a `.env` text.
#[utoipa::path(post, path = "/v1/vault/secret-sets/import", tag = "secret sets", operation_id = "importSecretSet", request_body = ImportSecretSet,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = SecretSetView), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Json(body): Json<ImportSecretSet>,
) -> Result<(StatusCode, axum::Json<SecretSetView>), ApiError> {
    let name = SetName::check(body.provider, body.environment, body.name)?;
    let entries = parse_dotenv(&body.dotenv)?;
    let set = store_new(&state, &person, name, entries, body.custom).await?;
    Ok((StatusCode::CREATED, axum::Json(set)))
}
