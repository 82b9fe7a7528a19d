//! What the seeds' clients say of an agent beside what is kept of one here.
//!
//! Their bodies carry switches and limits of services that are not part of this one. A switch that is off and a list that is
//! empty ask for nothing, so they are taken; what asks for more is refused, for an agent that was to be held to it would not be.

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::Code;

/// A body without the fields that ask for nothing.
#[derive(Debug)]
pub(crate) struct AgentBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for AgentBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Json(mut body) = Json::<Map<String, Value>>::from_request(request, state).await?;
        let foreign: Vec<String> = body
            .keys()
            .filter(|name| why_foreign(name).is_some())
            .cloned()
            .collect();
        for name in foreign {
            check(&name, &body.remove(&name).unwrap_or_default())?;
        }
        let body = serde_json::to_vec(&body).map_err(ApiError::internal)?;
        crate::json::parse(&body).map(Self)
    }
}

fn check(name: &str, value: &Value) -> Result<(), ApiError> {
    let why = why_foreign(name).unwrap_or_default();
    if asks_for_nothing(value) {
        return Ok(());
    }
    Err(ApiError::new(Code::UnknownField, format!("{name}: {why}")))
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(asks_for_nothing),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Why a field of the seeds' clients cannot be kept, and what to do instead.
fn why_foreign(name: &str) -> Option<&'static str> {
    match name {
        "scopes" => Some(
            "are not kept here, and an agent could do more than they say; leave them out: grants and policies say what it may, and vault_ids bind it to vaults",
        ),
        "intents_api_enabled" | "per_chain_guardrails" | "raw_signing_enabled" => Some(NO_CHAINS),
        "shroud_enabled" | "shroud_config" => Some(
            "asks for a look into prompts, which there is none of here; leave it out, and limit the agent by its grants",
        ),
        "execution_intents_enabled" | "execution_guardrails" | "execution_require_tee" => Some(
            "is not kept with an agent; leave it out, and give the agent bindings with their guardrails (POST /v1/agents/{id}/bindings)",
        ),
        _ if name.starts_with("tx_") && is_plain(name) => Some(NO_CHAINS),
        _ => None,
    }
}

/// Whether a name may stand in a refusal as it is.
fn is_plain(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    name.len() <= 64 && name.bytes().all(is_plain)
}

const NO_CHAINS: &str =
    "asks for the signing of transactions, which there is none of here; leave it out";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_off_or_empty_asks_for_nothing() {
        for nothing in [
            json!(null),
            json!(false),
            json!([]),
            json!({}),
            json!({"a": {"b": []}}),
        ] {
            assert!(asks_for_nothing(&nothing), "{nothing}");
        }
        for something in [
            json!(true),
            json!(0),
            json!(""),
            json!(["x"]),
            json!({"a": 1}),
        ] {
            assert!(!asks_for_nothing(&something), "{something}");
        }
    }
}
