//! One delivery to a webhook: a POST that is signed as Standard Webhooks says.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use leases::id::{EventId, OrgId, WebhookId};
use serde::Serialize;
use sha2::Sha256;
use store::webhooks::secret_name;
use store::{Event, NewSealedKey, Webhook};
use vault::Secret;
use zeroize::Zeroizing;

use super::Failed;
use crate::AppState;
use crate::error::ApiError;
use crate::keys::{KeyChest, KeyChestError, NewKey};
use crate::outbound::Bounds;

/// Which actions a webhook is told of: `*`, `lease.*` or `lease.use`.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(String);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`ApiError::invalid`] with its rule.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let is_word = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let words = text.strip_suffix(".*").unwrap_or(text);
        if text == "*" || (text.len() <= MAX_PATTERN && words.split('.').all(is_word)) {
            return Ok(Self(text.to_owned()));
        }
        let rule = "must be actions as the trail names them: `lease.use`, all that begin alike as `lease.*`, or `*` for all";
        Err(ApiError::invalid("events", rule))
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// Whether a pattern covers an action.
pub(super) fn matches(pattern: &str, action: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => action.starts_with(begin),
        None => action == pattern,
    }
}

/// What a webhook's deliveries are signed with: 32 random bytes, written `whsec_` and base64.
pub(crate) struct SigningSecret(Zeroizing<[u8; 32]>);

impl SigningSecret {
    /// Makes a secret, and its seal as the next version of the webhook's, which is stored with the webhook.
    ///
    /// # Errors
    /// [`KeyChestError`].
    pub(crate) async fn make(
        state: &AppState,
        org: &OrgId,
        id: &WebhookId,
    ) -> Result<(Self, NewSealedKey), KeyChestError> {
        let secret = Self(Zeroizing::new(crate::context::random()));
        let chest = KeyChest::of(&state.store, &state.vault, org).await?;
        let new = NewKey {
            secret: Secret::new(secret.0.to_vec()),
            public: Vec::new(),
        };
        let sealed = chest.seal_next(&secret_name(id), &new).await?;
        Ok((secret, sealed))
    }

    /// As it is shown, once.
    pub(crate) fn reveal(&self) -> String {
        let encoded = Zeroizing::new(STANDARD.encode(self.0.as_slice()));
        format!("whsec_{}", encoded.as_str())
    }
}

/// The secrets that a delivery is signed with: the present one, and those that it replaced within the last day, so that a
/// receiver may change over at any time of that day.
///
/// # Errors
/// [`KeyChestError`].
pub(crate) async fn secrets(
    state: &AppState,
    org: &OrgId,
    id: &WebhookId,
    version: u64,
) -> Result<Vec<Secret>, KeyChestError> {
    let chest = KeyChest::of(&state.store, &state.vault, org).await?;
    let since = state.clock.now() - OVERLAP;
    let rows = chest
        .rows(&secret_name(id))
        .await?
        .into_iter()
        .filter(|row| {
            row.version == version
                || (row.version < version && row.retired_at.is_none_or(|retired| retired > since))
        });
    let mut secrets = Vec::new();
    for row in rows.take(MAX_SECRETS) {
        secrets.push(chest.open(row).await?.secret);
    }
    Ok(secrets)
}

/// A webhook and what its deliveries are signed with.
pub(super) struct Signed {
    pub(super) webhook: Webhook,
    pub(super) secrets: Vec<Secret>,
}

/// The body of a delivery.
#[derive(Serialize)]
struct Message<'a, T> {
    r#type: &'a str,
    timestamp: &'a str,
    data: &'a T,
}

impl Signed {
    /// Posts an event. Gives the status that was answered.
    pub(super) async fn attempt(&self, state: &AppState, event: &Event) -> Result<u16, Failed> {
        let message = Message {
            r#type: &event.action,
            timestamp: &event.created_at,
            data: event,
        };
        post(
            state,
            &self.webhook.url,
            (&event.id, &message),
            &self.secrets,
        )
        .await
    }
}

/// Posts an event that is none, to see whether the receiver takes it.
///
/// # Errors
/// [`ApiError`] when it cannot be signed.
pub(crate) async fn attempt_test(
    state: &AppState,
    webhook: &Webhook,
) -> Result<Result<u16, Failed>, ApiError> {
    #[derive(Serialize)]
    struct Data<'a> {
        webhook_id: &'a str,
    }
    let secrets = secrets(state, &webhook.org, &webhook.id, webhook.secret_version).await?;
    let now = state.clock.now();
    let id = EventId::new(now);
    let timestamp = crate::timestamp::format(now);
    let data = Data {
        webhook_id: webhook.id.as_str(),
    };
    let message = Message {
        r#type: "webhook.test",
        timestamp: &timestamp,
        data: &data,
    };
    Ok(post(state, &webhook.url, (id.as_str(), &message), &secrets).await)
}

async fn post(
    state: &AppState,
    url: &str,
    (id, message): (&str, &impl Serialize),
    secrets: &[Secret],
) -> Result<u16, Failed> {
    let body = serde_json::to_vec(message).map_err(|_| unsendable())?;
    let uri: Uri = url.parse().map_err(|_| unsendable())?;
    // Of this attempt, not of the event: receivers refuse what is older than some minutes.
    let timestamp = state.clock.now().unix_timestamp().to_string();
    let signature = signature(secrets, id, &timestamp, &body);
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    for (name, value) in [
        ("webhook-id", id),
        ("webhook-timestamp", &timestamp),
        ("webhook-signature", &signature),
    ] {
        headers.insert(
            name,
            HeaderValue::from_str(value).map_err(|_| unsendable())?,
        );
    }
    let answer = state.outbound.send(request, Bounds::default()).await;
    let answer = answer.map_err(|error| Failed {
        status: None,
        error: error.to_string(),
        retry_after: None,
        is_gone: false,
    })?;
    judge(answer.status().as_u16(), answer.headers())
}

/// Whether an answer says that the event was taken. Nothing of it is told but its status.
pub(super) fn judge(status: u16, headers: &HeaderMap) -> Result<u16, Failed> {
    let error = match status {
        200..=299 => return Ok(status),
        300..=399 => format!(
            "it answered {status}, and redirects are not followed; name the URL that it leads to"
        ),
        _ => format!("it answered {status}"),
    };
    let retry_after = headers.get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    Err(Failed {
        status: Some(status),
        error,
        retry_after: retry_after.map(Duration::from_secs),
        is_gone: status == 410,
    })
}

fn unsendable() -> Failed {
    Failed {
        status: None,
        error: "the URL is none that can be asked".to_owned(),
        retry_after: None,
        is_gone: false,
    }
}

/// One signature for each secret, as Standard Webhooks says: `v1,` and the base64 of HMAC-SHA256 over id, timestamp and body.
fn signature(secrets: &[Secret], id: &str, timestamp: &str, body: &[u8]) -> String {
    let signatures = secrets.iter().map(|secret| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose())
            .expect("HMAC takes a key of any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

/// For so long a secret that was replaced signs along.
const OVERLAP: Duration = Duration::from_hours(24);
const MAX_SECRETS: usize = 3;
const MAX_PATTERN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_signed_as_the_specification_says() {
        // The example of Standard Webhooks' own libraries.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(
            &[Secret::new(secret)],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_signs() {
        let secrets = [Secret::new(vec![1]), Secret::new(vec![2])];
        let signed = signature(&secrets, "evt_1", "0", b"{}");
        let parts: Vec<&str> = signed.split(' ').collect();
        assert_eq!(parts.len(), 2);
        assert_ne!(parts[0], parts[1]);
        assert!(parts.iter().all(|part| part.starts_with("v1,")));
    }

    #[test]
    fn patterns_cover_what_they_say() {
        for (pattern, covered, not_covered) in [
            ("*", "lease.use", ""),
            ("lease.*", "lease.use", "leases.use"),
            ("lease.use", "lease.use", "lease.used"),
            (
                "webhook.rotate_secret",
                "webhook.rotate_secret",
                "webhook.rotate",
            ),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().into_text(), pattern);
            assert!(matches(pattern, covered), "{pattern}");
            assert!(
                not_covered.is_empty() || !matches(pattern, not_covered),
                "{pattern}"
            );
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        let long = "a".repeat(65);
        for text in [
            "",
            ".",
            "lease",
            "lease.",
            ".use",
            "lease.**",
            "le*",
            "*.use",
            "Lease.use",
            "lease .use",
            "lease.use\n",
            &long,
        ] {
            if text == "lease" {
                // One word is an action as good as any.
                Pattern::parse(text).unwrap();
            } else {
                Pattern::parse(text).expect_err(text);
            }
        }
    }

    #[test]
    fn only_success_is_success_and_no_answer_is_repeated() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        headers.insert("x-secret", HeaderValue::from_static("canary"));
        for status in [200, 202, 204] {
            assert_eq!(judge(status, &headers).unwrap(), status);
        }
        for status in [301, 308, 400, 401, 410, 429, 500, 503] {
            let failed = judge(status, &headers).unwrap_err();
            assert_eq!(
                (failed.status, failed.is_gone),
                (Some(status), status == 410)
            );
            assert_eq!(failed.retry_after, Some(Duration::from_secs(7)));
            assert!(!failed.error.contains("canary"));
        }
    }
}
