//! `Idempotency-Key`: a repeated POST has one effect and gets the first answer again.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use store::Idempotency;
use zeroize::Zeroizing;

use crate::AppState;
use crate::auth::{self, Caller};
use crate::error::ApiError;
use crate::kept_answer::Slot;
use crate::middleware::MAX_BODY;
use crate::problem::Code;

/// 6. Answers a repeated request from the first one's answer.
///
/// Only what succeeded is kept, for 24 h, and sealed: it may show a key or a lease once, and the database must not hold those.
pub(crate) async fn once(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    // A client that goes away in the middle must not leave the effect without its answer.
    let work = tokio::spawn(async move { replay_or_run(&state, request, next).await });
    match work.await {
        Ok(answer) => answer.unwrap_or_else(IntoResponse::into_response),
        Err(error) => ApiError::internal(error).into_response(),
    }
}

async fn replay_or_run(
    state: &AppState,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let key = read_key(request.headers())?;
    let Some(caller) = request.extensions().get::<Caller>().cloned() else {
        return Ok(next.run(request).await);
    };
    let credential = auth::secret_of(request.headers());
    let (request, hash) = digest(request).await?;
    let claim = Claim {
        state,
        caller,
        key,
        credential,
    };
    match claim.begin(&hash).await? {
        Idempotency::Fresh => claim.run(request, next).await,
        Idempotency::Replay { status, body } => claim.replay(status, &body),
        Idempotency::Conflict => {
            let detail = "this Idempotency-Key came with another request before; use a fresh key for a new request";
            Err(ApiError::new(Code::IdempotencyConflict, detail))
        }
        Idempotency::InProgress => {
            let detail = "the first request with this Idempotency-Key is still running; repeat it in a second";
            Err(ApiError::new(Code::IdempotencyConflict, detail))
        }
    }
}

fn read_key(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut values = headers.get_all(HEADER).iter();
    let key = values
        .next()
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let good =
        (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if good && values.next().is_none() {
        return Ok(key.to_owned());
    }
    Err(ApiError::invalid(
        "Idempotency-Key",
        format_args!("must be one value of 1 to {MAX_KEY} visible ASCII characters"),
    ))
}

/// What the request asks for; the body is in one piece already (see `middleware::read_body`).
async fn digest(request: Request) -> Result<(Request, [u8; 32]), ApiError> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(ApiError::internal)?.to_bytes();
    let mut hash = Sha256::new();
    for part in [
        parts.method.as_str().as_bytes(),
        parts.uri.path().as_bytes(),
        &body,
    ] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Ok((
        Request::from_parts(parts, Body::from(body)),
        hash.finalize().into(),
    ))
}

/// A key in its principal's own name space.
struct Claim<'a> {
    state: &'a AppState,
    caller: Caller,
    key: String,
    /// Only whoever shows it again may read the answer.
    credential: Zeroizing<String>,
}

impl Claim<'_> {
    async fn begin(&self, hash: &[u8; 32]) -> Result<Idempotency, ApiError> {
        let keys = self.state.store.idempotency();
        Ok(keys
            .begin(
                self.caller.org(),
                self.caller.principal.id(),
                &self.key,
                hash,
            )
            .await?)
    }

    async fn run(&self, request: Request, next: Next) -> Result<Response, ApiError> {
        let response = next.run(request).await;
        if !response.status().is_success() {
            self.give_back().await;
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(ApiError::internal)?.to_bytes();
        if let Err(error) = self.keep(parts.status, &body).await {
            // The effect stands, so its answer is given; a repetition will be told that the first is still running.
            tracing::error!(error = ?error, "an answer was not kept for its Idempotency-Key");
        }
        Ok(Response::from_parts(parts, Body::from(body)))
    }

    async fn give_back(&self) {
        let keys = self.state.store.idempotency();
        if let Err(error) = keys
            .abandon(self.caller.org(), self.caller.principal.id(), &self.key)
            .await
        {
            tracing::warn!(error = %error, "an Idempotency-Key was not given back; it is free in a minute");
        }
    }

    async fn keep(&self, status: StatusCode, body: &Bytes) -> Result<(), ApiError> {
        let status = status.as_u16();
        debug_assert!(body.len() < MAX_BODY, "answers are small");
        let sealed = self.slot(status).seal(&self.credential, body);
        let keys = self.state.store.idempotency();
        Ok(keys
            .finish(
                self.caller.org(),
                self.caller.principal.id(),
                &self.key,
                status,
                &sealed,
            )
            .await?)
    }

    fn replay(&self, status: u16, sealed: &[u8]) -> Result<Response, ApiError> {
        let Some(body) = self.slot(status).open(&self.credential, sealed) else {
            let detail = "the request with this Idempotency-Key was done under another key or token of yours, which alone can read its answer again; list what there is";
            return Err(ApiError::new(Code::IdempotencyConflict, detail));
        };
        let status = StatusCode::from_u16(status).map_err(ApiError::internal)?;
        let mut response = (status, Bytes::from_owner(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
        Ok(response)
    }

    fn slot(&self, status: u16) -> Slot<'_> {
        Slot {
            org: self.caller.org(),
            principal: self.caller.principal.id(),
            key: &self.key,
            status,
        }
    }
}

const HEADER: &str = "idempotency-key";
const MAX_KEY: usize = 255;
