//! What every operation may answer beside what it is asked for: described once, so that a new route need not think of it.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use utoipa::Modify;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{
    Content, ContentBuilder, ObjectBuilder, OpenApi, PathItem, Ref, RefOr, Response,
    ResponseBuilder, Responses, Schema, Type,
};

use crate::problem::{Code, Problem};

/// Describes the refusals of the layers and extractors for every operation, by what it takes; a handler's own annotation names
/// what only that handler refuses.
///
/// There is no `default`: a status that an operation does not name is a mistake, of the description or of the operation.
pub(super) struct Refusals;

impl Modify for Refusals {
    fn modify(&self, api: &mut OpenApi) {
        let components = api.components.get_or_insert_with(Default::default);
        for status in statuses() {
            components
                .responses
                .insert(name(status), RefOr::T(described(status)));
        }
        for item in api.paths.paths.values_mut() {
            for (writes, operation) in operations(item) {
                describe(writes, operation);
            }
        }
    }
}

/// Each operation, and whether it may change something.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    let all = [
        (false, &mut item.get),
        (true, &mut item.put),
        (true, &mut item.post),
        (true, &mut item.patch),
        (true, &mut item.delete),
    ];
    all.into_iter()
        .filter_map(|(writes, operation)| operation.as_mut().map(|operation| (writes, operation)))
}

fn describe(writes: bool, operation: &mut Operation) {
    let parameters = operation.parameters.iter_mut().flatten();
    for parameter in parameters {
        if let RefOr::T(parameter) = parameter
            && parameter.name == IDEMPOTENCY_KEY
        {
            parameter.schema = Some(idempotency_key());
        }
    }
    let shared = shared_by(writes, operation);
    for (status, response) in &mut operation.responses.responses {
        if status.starts_with(['4', '5']) {
            as_problem(status, response);
        }
    }
    for status in shared {
        add(&mut operation.responses, status);
    }
}

/// The statuses that do not depend on the handler.
fn shared_by(writes: bool, operation: &Operation) -> BTreeSet<StatusCode> {
    let taken = |wanted: &dyn Fn(&ParameterIn, &str) -> bool| {
        let mut parameters = operation.parameters.iter().flatten();
        parameters.any(|parameter| {
            matches!(parameter, RefOr::T(found) if wanted(&found.parameter_in, &found.name))
        })
    };
    let has_body = operation.request_body.is_some();
    // The middleware turns away what is too much, and whatever fails is one of these two.
    let mut shared = BTreeSet::from([
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
    ]);
    if !is_open(operation) {
        shared.extend([
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::TOO_MANY_REQUESTS,
        ]);
    }
    if has_body {
        shared.extend([
            StatusCode::BAD_REQUEST,
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ]);
    }
    // An id of another shape is one that does not exist; the path of a secret has rules of its own.
    if taken(&|place, name| !matches!(place, ParameterIn::Path) || name == "path") {
        shared.insert(StatusCode::BAD_REQUEST);
    }
    if taken(&|place, _| matches!(place, ParameterIn::Path)) {
        shared.insert(StatusCode::NOT_FOUND);
    }
    // Somebody else may change the same thing, or use the same Idempotency-Key.
    if writes {
        shared.insert(StatusCode::CONFLICT);
    }
    shared
}

/// Whether nothing is asked of the caller: neither a credential in the head nor one in the body.
fn is_open(operation: &Operation) -> bool {
    let security = operation.security.as_deref().unwrap_or_default();
    let asks_for_none = security
        .iter()
        .any(|requirement| requirement == &SecurityRequirement::default());
    asks_for_none && operation.request_body.is_none()
}

/// Takes what a handler says of a refusal: the shared description where it says `Problem` and no more.
fn as_problem(status: &str, response: &mut RefOr<Response>) {
    let RefOr::T(own) = response else { return };
    let Some(body) = own.content.get("application/json") else {
        return;
    };
    if !matches!(body, RefOr::T(body) if is_problem(body)) {
        return;
    }
    if own.description.is_empty() {
        *response = shared_response(status);
    } else if let Some(body) = own.content.shift_remove("application/json") {
        own.content.insert(Problem::MEDIA_TYPE.to_owned(), body);
    }
}

/// Adds a refusal to what the operation names; where a handler has a body of its own for the status, as health has, both are named.
fn add(responses: &mut Responses, status: StatusCode) {
    let text = status.as_str();
    match responses.responses.get_mut(text) {
        Some(RefOr::T(own)) => {
            let media_type = Problem::MEDIA_TYPE.to_owned();
            own.content
                .entry(media_type)
                .or_insert_with(|| RefOr::T(problem()));
        }
        Some(_) => {}
        None => {
            responses
                .responses
                .insert(text.to_owned(), shared_response(text));
        }
    }
}

fn shared_response(status: &str) -> RefOr<Response> {
    let status = StatusCode::from_bytes(status.as_bytes()).unwrap_or_default();
    RefOr::Ref(Ref::from_response_name(name(status)))
}

/// Every status that a problem has.
fn statuses() -> BTreeSet<StatusCode> {
    Code::ALL.iter().map(|code| code.status()).collect()
}

/// `NotFound` for 404.
fn name(status: StatusCode) -> String {
    status
        .canonical_reason()
        .unwrap_or_default()
        .replace(' ', "")
}

/// The codes of a status, each with its title; `GET /v1/problems/{code}` has more.
fn described(status: StatusCode) -> Response {
    let codes: Vec<String> = Code::ALL
        .iter()
        .filter(|code| code.status() == status)
        .map(|code| format!("`{}`: {}.", code.as_str(), code.title()))
        .collect();
    let response = ResponseBuilder::new()
        .description(codes.join(" "))
        .content(Problem::MEDIA_TYPE, problem());
    let header = match status {
        StatusCode::UNAUTHORIZED => ("WWW-Authenticate", Type::String, "RFC 6750, section 3"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            ("Retry-After", Type::Integer, "Seconds")
        }
        _ => return response.build(),
    };
    let (header, kind, description) = header;
    let schema = ObjectBuilder::new().schema_type(kind).build();
    let built = HeaderBuilder::new()
        .schema(Some(schema))
        .description(Some(description))
        .build();
    response.header(header, built).build()
}

/// What `idempotency::once` takes.
fn idempotency_key() -> RefOr<Schema> {
    let key = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[!-~]{1,255}$"));
    RefOr::T(Schema::Object(key.build()))
}

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

fn problem() -> Content {
    ContentBuilder::new()
        .schema(Some(RefOr::Ref(Ref::from_schema_name("Problem"))))
        .build()
}

fn is_problem(content: &Content) -> bool {
    matches!(&content.schema, Some(RefOr::Ref(schema)) if schema.ref_location.ends_with("/Problem"))
}
