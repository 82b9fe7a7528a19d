//! `POST /v1/auth/api-keys`, `GET /v1/auth/api-keys`, `DELETE /v1/auth/api-keys/{id}`

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use leases::id::KeyId;
use serde::{Deserialize, Serialize};
use store::{NewPersonalKey, PersonalKey};
use time::OffsetDateTime;
use utoipa::ToSchema;
use zeroize::Zeroize;

use super::check_label;
use crate::AppState;
use crate::api_key::{ApiKey, KeyHolder};
use crate::auth::unauthenticated;
use crate::error::ApiError;
use crate::extract::{Id, Json, Paging, Params};
use crate::people::myself::Myself;
use crate::problem::Problem;
use crate::timestamp::Timestamp;

/// A personal key, without the key itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyView {
    #[schema(value_type = String, example = "key_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: KeyId,
    name: String,
    /// Its first characters.
    key_prefix: String,
    /// `*`: all that its owner may do; `read`: it changes nothing.
    scopes: [&'static str; 1],
    /// False once it has ended.
    is_active: bool,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    /// To the hour.
    last_used_at: Option<Timestamp>,
}

impl KeyView {
    fn of(key: PersonalKey, now: OffsetDateTime) -> Self {
        let is_active = key.revoked_at.is_none() && key.expires_at.is_none_or(|end| now < end);
        Self {
            id: key.id,
            name: key.name,
            key_prefix: key.prefix,
            scopes: [if key.reads_only { "read" } else { "*" }],
            is_active,
            created_at: key.created_at.into(),
            expires_at: key.expires_at.map(Timestamp),
            last_used_at: key.last_used_at.map(Timestamp),
        }
    }
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateKey {
    /// 1 to 128 characters.
    name: String,
    /// `["*"]`, as when it is left out, or `["read"]`.
    scopes: Option<Vec<String>>,
    /// When it ends by itself.
    expires_at: Option<Timestamp>,
}

/// A key, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewKey {
    key: KeyView,
    /// `1ck_...`: shown once, kept as a hash.
    api_key: String,
}

impl Drop for NewKey {
    fn drop(&mut self) {
        self.api_key.zeroize();
    }
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    keys: Vec<KeyView>,
    next_cursor: Option<String>,
}

/// Makes a key of the caller's own and shows it, once.
#[utoipa::path(post, path = "/v1/auth/api-keys", tag = "auth", operation_id = "createApiKey", request_body = CreateKey,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = NewKey), (status = 400, body = Problem)))]
pub(crate) async fn create(
    State(state): State<AppState>,
    myself: Myself,
    Json(body): Json<CreateKey>,
) -> Result<(StatusCode, Answer<NewKey>), ApiError> {
    check_label("name", Some(&body.name))?;
    let now = state.clock.now();
    if body.expires_at.is_some_and(|end| end.0 <= now) {
        return Err(ApiError::invalid(
            "expires_at",
            "is in the past; leave it out or name a later time",
        ));
    }
    let key = ApiKey::generate(KeyHolder::Person);
    let new = NewPersonalKey {
        hash: key.hash(),
        name: body.name,
        prefix: key.prefix().to_owned(),
        reads_only: reads_only(body.scopes.as_deref())?,
        expires_at: body.expires_at.map(|end| end.0),
        is_session: false,
    };
    let keys = state.store.personal_keys();
    let made = keys
        .create(&myself.org, &myself.id, new, &myself.actor)
        .await?;
    let made = made.ok_or_else(unauthenticated)?;
    let answer = NewKey {
        key: KeyView::of(made, now),
        api_key: key.reveal().to_owned(),
    };
    Ok((StatusCode::CREATED, Answer(answer)))
}

/// Lists the caller's own keys in the order they were made.
#[utoipa::path(get, path = "/v1/auth/api-keys", tag = "auth", operation_id = "listApiKeys", params(Paging),
    responses((status = 200, body = KeyList)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    myself: Myself,
    Params(paging): Params<Paging>,
) -> Result<Answer<KeyList>, ApiError> {
    let keys = state.store.personal_keys();
    let page = keys
        .list(&myself.org, &myself.id, &paging.request()?)
        .await?;
    let now = state.clock.now();
    Ok(Answer(KeyList {
        keys: page
            .items
            .into_iter()
            .map(|key| KeyView::of(key, now))
            .collect(),
        next_cursor: page.next_cursor,
    }))
}

/// Ends one of the caller's own keys at once, with the tokens that it was exchanged for.
#[utoipa::path(delete, path = "/v1/auth/api-keys/{id}", tag = "auth", operation_id = "revokeApiKey",
    params(("id" = String, Path)), responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn revoke(
    State(state): State<AppState>,
    myself: Myself,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let keys = state.store.personal_keys();
    let existed = keys
        .revoke(&myself.org, &myself.id, &id.parse("key")?, &myself.actor)
        .await?;
    if existed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("key", &id.0))
    }
}

/// A scope that is not known is refused: taken for another, it would open more than was asked for.
fn reads_only(scopes: Option<&[String]>) -> Result<bool, ApiError> {
    let Some(scopes) = scopes else {
        return Ok(false);
    };
    match scopes {
        [one] if one == "*" => Ok(false),
        [one] if one == "read" => Ok(true),
        _ => Err(ApiError::invalid(
            "scopes",
            "must be [\"*\"] or [\"read\"]; left out, the key may do what its owner may",
        )),
    }
}
