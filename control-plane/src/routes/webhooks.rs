//! Webhooks: where an organisation has its audit trail told to.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod deliveries;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod rotate_secret;
pub(crate) mod test;
pub(crate) mod update;

use axum::http::Uri;
use leases::id::{OrgId, WebhookId};
use serde::Serialize;
use store::Webhook;
use utoipa::ToSchema;
use zeroize::Zeroize as _;

use crate::AppState;
use crate::deliver::Pattern;
use crate::error::ApiError;
use crate::extract::Id;
use crate::text::is_label;
use crate::timestamp::Timestamp;

/// A webhook, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookView {
    #[schema(value_type = String, example = "whk_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: WebhookId,
    url: String,
    /// Patterns of the actions that it is told of.
    events: Vec<String>,
    description: Option<String>,
    /// Whether it is told anything.
    is_active: bool,
    /// Why it is told nothing any more, when it was given up: `is_active: true` goes on where it was.
    disabled_reason: Option<String>,
    /// The version of its signing secret.
    secret_version: u64,
    created_by: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// How many events it took.
    delivered: u64,
    last_delivered_at: Option<Timestamp>,
    /// Attempts that failed since the last success.
    failed_attempts: u64,
    failing_since: Option<Timestamp>,
    /// When the next attempt is made, after a failed one.
    next_attempt_at: Option<Timestamp>,
    last_error: Option<String>,
}

impl From<Webhook> for WebhookView {
    fn from(webhook: Webhook) -> Self {
        let sink = webhook.sink;
        let is_waiting = webhook.is_active && sink.attempts > 0;
        Self {
            id: webhook.id,
            url: webhook.url,
            events: webhook.events,
            description: webhook.description,
            is_active: webhook.is_active,
            disabled_reason: webhook.disabled_reason,
            secret_version: webhook.secret_version,
            created_by: webhook.created_by,
            created_at: webhook.created_at.into(),
            updated_at: webhook.updated_at.into(),
            delivered: sink.delivered,
            last_delivered_at: sink.delivered_at.map(Timestamp),
            failed_attempts: sink.attempts,
            failing_since: sink.failing_since.map(Timestamp),
            next_attempt_at: is_waiting.then(|| sink.retry_at.into()),
            last_error: sink.error,
        }
    }
}

/// A webhook with its signing secret, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct WebhookWithSecret {
    webhook: WebhookView,
    /// `whsec_...`: shown once, kept sealed. Deliveries are signed with it as Standard Webhooks says.
    secret: String,
}

impl Drop for WebhookWithSecret {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// A webhook of an organisation.
async fn find(state: &AppState, org: &OrgId, id: &Id) -> Result<Webhook, ApiError> {
    let webhooks = state.store.webhooks();
    let webhook = webhooks.get(org, &id.parse("webhook")?).await?;
    webhook.ok_or_else(|| missing(id))
}

fn missing(id: &Id) -> ApiError {
    ApiError::not_found("webhook", &id.0)
}

/// Takes a URL that this plane may ask, as far as it alone tells: where its name leads is looked at when it is asked.
fn check_url(state: &AppState, text: &str) -> Result<(), ApiError> {
    let uri = text.parse::<Uri>().ok();
    let uri = uri.filter(|_| text.len() <= MAX_URL && !text.contains('#'));
    let Some(uri) = uri else {
        let rule = format_args!("must be a URL of at most {MAX_URL} bytes without a fragment");
        return Err(ApiError::invalid("url", rule));
    };
    let admitted = state.outbound.admit(&uri);
    admitted.map_err(|error| ApiError::invalid("url", error))
}

fn check_events(events: &[String]) -> Result<Vec<String>, ApiError> {
    if events.is_empty() || events.len() > MAX_PATTERNS {
        let rule = format_args!("must be 1 to {MAX_PATTERNS} patterns; `*` is told of everything");
        return Err(ApiError::invalid("events", rule));
    }
    let patterns = events.iter().map(|text| Pattern::parse(text));
    patterns.map(|pattern| Ok(pattern?.into_text())).collect()
}

fn check_description(description: Option<&str>) -> Result<(), ApiError> {
    if description.is_none_or(|text| text.is_empty() || is_label(text, MAX_DESCRIPTION)) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "description",
        format_args!("must be at most {MAX_DESCRIPTION} characters and no control characters"),
    ))
}

const MAX_URL: usize = 2048;
const MAX_PATTERNS: usize = 32;
const MAX_DESCRIPTION: usize = 1024;
