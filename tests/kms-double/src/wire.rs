//! The API's JSON: errors, enumerations, bytes, checksums.

use base64::{Engine, engine::general_purpose::STANDARD};
use crc::{CRC_32_ISCSI, Crc};
use http::StatusCode;
use serde_json::{Value, json};

/// CRC32C, RFC 3720 section 12.1.
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// An error as the service answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) http: StatusCode,
    pub(crate) status: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    fn new(http: StatusCode, status: &'static str, message: impl Into<String>) -> Self {
        Self {
            http,
            status,
            message: message.into(),
        }
    }

    pub(crate) fn not_found(name: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            format!("{name} not found."),
        )
    }

    pub(crate) fn exists(name: &str) -> Self {
        let message = format!("{name} already exists.");
        Self::new(StatusCode::CONFLICT, "ALREADY_EXISTS", message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
    }

    pub(crate) fn precondition(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "FAILED_PRECONDITION", message)
    }

    pub(crate) fn denied(permission: &str, name: &str) -> Self {
        let message =
            format!("Permission '{permission}' denied on resource '{name}' (or it may not exist).");
        Self::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message)
    }

    pub(crate) fn unauthenticated() -> Self {
        let message = "Request had invalid authentication credentials.";
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message)
    }

    /// The error of an HTTP status, as Google's front end names it.
    pub(crate) fn of_status(http: StatusCode) -> Self {
        let status = match http.as_u16() {
            400 => "INVALID_ARGUMENT",
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            409 => "ABORTED",
            429 => "RESOURCE_EXHAUSTED",
            499 => "CANCELLED",
            500 => "INTERNAL",
            501 => "UNIMPLEMENTED",
            503 => "UNAVAILABLE",
            504 => "DEADLINE_EXCEEDED",
            _ => "UNKNOWN",
        };
        Self::new(http, status, format!("{status} on demand"))
    }

    pub(crate) fn body(&self) -> Value {
        json!({ "error": {
            "code": self.http.as_u16(),
            "message": self.message,
            "status": self.status,
        }})
    }
}

pub(crate) fn crc32c(bytes: &[u8]) -> i64 {
    i64::from(CRC32C.checksum(bytes))
}

/// `int64` is a string in proto3's JSON.
pub(crate) fn int64(number: i64) -> Value {
    Value::String(number.to_string())
}

pub(crate) fn encode(bytes: &[u8]) -> Value {
    Value::String(STANDARD.encode(bytes))
}

/// A field of bytes; absent means empty.
pub(crate) fn bytes_field(body: &Value, field: &str) -> Result<Vec<u8>, Refusal> {
    let invalid = || Refusal::invalid(format!("{field} is not base64"));
    match body.get(field) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) => STANDARD.decode(text).map_err(|_| invalid()),
        Some(_) => Err(invalid()),
    }
}

/// An `Int64Value` field.
pub(crate) fn int64_field(body: &Value, field: &str) -> Option<i64> {
    match body.get(field)? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_i64(),
        _ => None,
    }
}

/// A field of bytes with its checksum: the bytes, and whether a checksum came with them. A wrong one is refused.
pub(crate) fn checked_field(
    body: &Value,
    field: &str,
    checksum: &str,
) -> Result<(Vec<u8>, bool), Refusal> {
    let bytes = bytes_field(body, field)?;
    match int64_field(body, checksum) {
        None => Ok((bytes, false)),
        Some(sum) if sum == crc32c(&bytes) => Ok((bytes, true)),
        Some(_) => Err(Refusal::invalid(format!(
            "The checksum in field {} did not match the data in field {}.",
            snake_case(checksum),
            snake_case(field)
        ))),
    }
}

/// An enumeration's value, given by number or by name.
pub(crate) fn enum_field(body: &Value, field: &str, names: &[(i64, &str)]) -> i64 {
    match body.get(field) {
        Some(Value::Number(number)) => number.as_i64().unwrap_or(0),
        Some(Value::String(text)) => names
            .iter()
            .find(|(_, name)| name == text)
            .map_or(0, |(number, _)| *number),
        _ => 0,
    }
}

fn snake_case(field: &str) -> String {
    let mut text = String::new();
    for letter in field.chars() {
        if letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
