//! The layers around every route, outermost first; `router.rs` puts them on.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tracing::Instrument;
use zeroize::{Zeroize, Zeroizing};

use crate::AppState;
use crate::context::RequestContext;
use crate::error::{ApiError, Cause};
use crate::problem::{Code, Problem};

/// 1. Gives the request its id, its log line and its numbers, and the answer its common headers.
///
/// Outermost, so that no answer leaves without them, whoever made it.
pub(crate) async fn observe(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let context = RequestContext::of(&request);
    let method = request.method().clone();
    // The template of the path, never the path itself: it is a label.
    let matched = request
        .extensions()
        .get::<MatchedPath>()
        .map(|path| path.as_str().to_owned());
    let route = matched.unwrap_or_else(|| "unmatched".to_owned());
    let span = tracing::info_span!("api", request.id = %context.id, http.request.method = %method, http.route = %route, principal.id = tracing::field::Empty);
    request.extensions_mut().insert(context.clone());

    let started = state.clock.now();
    let response = next.run(request).instrument(span.clone()).await;
    let took = Duration::try_from(state.clock.now() - started).unwrap_or_default();

    state
        .metrics
        .answered(&route, &method, response.status(), took);
    span.in_scope(|| log(&method, &route, &response, took));
    dress(response, &context)
}

fn log(method: &Method, route: &str, response: &Response, took: Duration) {
    let status = response.status().as_u16();
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let error = response
        .extensions()
        .get::<Problem>()
        .map_or("", |problem| problem.error.as_str());
    let cause = response.extensions().get::<Cause>();
    if response.status().is_server_error() {
        let cause = cause.map_or_else(
            || "no cause recorded".to_owned(),
            |cause| chain(cause.as_ref()),
        );
        tracing::error!(
            http.response.status_code = status,
            duration_ms,
            error,
            cause,
            "failed {method} {route}: {error}"
        );
    } else if status >= 400 {
        tracing::info!(
            http.response.status_code = status,
            duration_ms,
            error,
            "refused {method} {route}: {error}"
        );
    } else {
        tracing::info!(
            http.response.status_code = status,
            duration_ms,
            "answered {method} {route}"
        );
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Adds `instance` to a problem, and to every answer what browsers and caches must know.
fn dress(response: Response, context: &RequestContext) -> Response {
    let mut response = match response.extensions().get::<Problem>().cloned() {
        Some(problem) => with_instance(response, problem, context),
        None => response,
    };
    let headers = response.headers_mut();
    for (name, value) in FIXED_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(&context.id) {
        headers.insert("x-request-id", id);
    }
    response
}

fn with_instance(response: Response, mut problem: Problem, context: &RequestContext) -> Response {
    problem.instance = format!("urn:uuid:{}", context.id);
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let body = serde_json::to_vec(&problem).expect("a problem has only strings and a number");
    Response::from_parts(parts, Body::from(body))
}

/// 2. Turns a panic into a problem; the panic hook has logged it.
pub(crate) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::internal(std::io::Error::other("a handler panicked")).into_response()
}

/// 3. Bounds how many requests are in work, so that bodies of 5 MB each cannot fill the memory.
pub(crate) async fn admit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Ok(_permit) = Arc::clone(&state.admission).try_acquire_owned() else {
        let detail =
            "more requests are in work than this server takes at once; try again in a second";
        return ApiError::new(Code::Overloaded, detail).into_response();
    };
    next.run(request).await
}

/// 3b. Takes HEAD only where everybody may ask.
///
/// Elsewhere a GET may open, count and record, and whoever asks for the head of its answer gets nothing for it: a read would be
/// used up, or a use be on record that was none.
pub(crate) async fn no_head(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    match route {
        Some(route) if request.method() == Method::HEAD && !TAKE_HEAD.contains(&route.as_str()) => {
            no_such_method(Method::HEAD, Some(route)).await
        }
        _ => next.run(request).await,
    }
}

/// 5. Reads the body within its bound and time into memory that is wiped afterwards.
///
/// Behind authentication: a stranger's body is not read at all, unless it comes with a signature over it.
pub(crate) async fn read_body(request: Request, next: Next) -> Response {
    read_at_most(MAX_BODY, request, next).await
}

/// 5. The same for what a control plane hands on: it may have written as base64 what came to it as text.
pub(crate) async fn read_handed_on(request: Request, next: Next) -> Response {
    read_at_most(2 * MAX_BODY, request, next).await
}

/// 5b. The same for calls that need only a few names.
pub(crate) async fn read_small_body(request: Request, next: Next) -> Response {
    read_at_most(MAX_SMALL_BODY, request, next).await
}

async fn read_at_most(limit: usize, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match read_in_time(body, limit).await {
        Ok(body) => {
            parts.headers.remove(header::TRANSFER_ENCODING);
            next.run(Request::from_parts(parts, Body::from(body))).await
        }
        Err(error) => error.into_response(),
    }
}

/// Reads a body within its bound and time.
pub(crate) async fn read_in_time(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(BODY_DEADLINE, collect(body, limit)).await;
    read.unwrap_or_else(|_| {
        let detail = format!(
            "the body did not arrive within {} s; send it again",
            BODY_DEADLINE.as_secs()
        );
        Err(ApiError::new(Code::RequestTimeout, detail))
    })
}

/// Collects a body into one buffer that wipes itself, and wipes the pieces where they are ours alone.
pub(crate) async fn collect(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut buffer = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::new(Code::InvalidRequest, "the body broke off; send it again").because(error)
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if buffer.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        append(&mut buffer, &data);
        if let Ok(mut data) = data.try_into_mut() {
            data.as_mut().zeroize();
        }
    }
    Ok(Bytes::from_owner(buffer))
}

/// Grows by copying into a new buffer: `Vec` would leave the old one behind unwiped.
fn append(buffer: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    let needed = buffer.len() + data.len();
    if needed > buffer.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(data);
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(
        Code::BodyTooLarge,
        format!("the body is larger than {limit} bytes, the bound of this call; send less"),
    )
}

/// A path that exists nowhere.
pub(crate) async fn no_such_path(request: Request) -> ApiError {
    let path = crate::text::excerpt(request.uri().path());
    ApiError::new(
        Code::NotFound,
        format!("there is no path {path}; GET /openapi.json lists them"),
    )
}

/// A path that exists, but not for this method.
pub(crate) async fn no_such_method(method: Method, route: Option<MatchedPath>) -> Response {
    let route = route.map_or_else(String::new, |route| route.as_str().to_owned());
    let method = crate::text::excerpt(method.as_str());
    let detail = format!("{route} does not take {method}; the Allow header lists what it takes");
    let mut response = ApiError::new(Code::MethodNotAllowed, detail).into_response();
    if let Ok(allow) = HeaderValue::from_str(&allow(&route)) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn allow(route: &str) -> String {
    let mut methods = crate::openapi::methods(route);
    if TAKE_HEAD.contains(&route) {
        methods.push("HEAD");
    }
    methods.join(", ")
}

/// 5 MB, as the seeds' service documents it.
pub(crate) const MAX_BODY: usize = 5_000_000;
const MAX_SMALL_BODY: usize = 64 * 1024;
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Requests in work at once: together with [`MAX_BODY`] the bound of the memory that bodies take.
pub(crate) const MAX_IN_WORK: usize = 256;

/// What is open to everybody and the same for all: monitors ask with HEAD.
const TAKE_HEAD: [&str; 7] = [
    "/health/ready",
    "/openapi.json",
    "/metrics",
    "/v1/ca.pem",
    "/v1/health",
    "/v1/health/hsm",
    "/v1/problems/{code}",
];

const FIXED_HEADERS: [(&str, &str); 6] = [
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_up_to_the_bound_is_read_and_one_above_is_not() {
        assert_eq!(collect(Body::from("12345"), 5).await.unwrap(), "12345");
        let error = collect(Body::from("123456"), 5)
            .await
            .expect_err("too large");
        assert_eq!(error.code(), Code::BodyTooLarge);
    }

    #[test]
    fn a_buffer_grows_without_losing_a_byte() {
        let mut buffer = Zeroizing::new(Vec::new());
        for _ in 0..100 {
            append(&mut buffer, b"abc");
        }
        assert_eq!(buffer.len(), 300);
        assert!(buffer.chunks(3).all(|part| part == b"abc"));
    }

    #[test]
    fn a_chain_of_causes_is_one_line() {
        let inner = std::io::Error::other("inner");
        assert_eq!(chain(&ApiErrorCause(inner)), "outer: inner");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct ApiErrorCause(#[source] std::io::Error);
}
