//! What an answer's media type says of how its body may be read.

use http::header::CONTENT_TYPE;
use pingora::http::ResponseHeader;
use providers::scrub::Depth;

/// How far a body that turns out to be compressed is read; `None` for types whose data is compressed by nature.
///
/// A text that is compressed without saying so is a server's mistake, and is read to its end. Anything else may be a
/// download of any size, which must arrive as it is: of it the beginning is read, which an error page does not exceed.
pub(super) fn depth(head: &ResponseHeader) -> Option<Depth> {
    let Some(kind) = essence(head) else {
        return Some(Depth::Whole);
    };
    let of = |families: &[&str]| families.iter().any(|family| kind.starts_with(family));
    let named = |names: &[&str]| names.iter().any(|name| kind.contains(name));
    if of(&["image/", "audio/", "video/", "font/", "application/grpc"]) || named(COMPRESSED) {
        None
    } else if of(&["text/"]) || named(TEXT) {
        Some(Depth::Whole)
    } else {
        Some(Depth::Beginning)
    }
}

/// The forms in which gRPC streams its messages.
pub(super) enum Grpc {
    Binary,
    /// gRPC-Web for browsers of old.
    Base64,
}

/// Whether, and how, it is gRPC, whose messages are waited for one by one.
pub(super) fn grpc(head: &ResponseHeader) -> Option<Grpc> {
    let kind = essence(head)?;
    if kind.starts_with("application/grpc-web-text") {
        return Some(Grpc::Base64);
    }
    kind.starts_with("application/grpc").then_some(Grpc::Binary)
}

/// The type without its parameters, in lower case (RFC 9110, section 8.3.1).
fn essence(head: &ResponseHeader) -> Option<String> {
    let kind = head.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = kind.split(';').next().unwrap_or_default().trim();
    Some(essence.to_ascii_lowercase())
}

/// Parts of the names of archives' and compressed files' types.
const COMPRESSED: &[&str] = &[
    "gzip", "zstd", "zlib", "zip", "tgz", "gtar", "x-tar", "compress",
];

/// Parts of the names of texts' types outside `text/`.
const TEXT: &[&str] = &["json", "xml", "javascript", "urlencoded", "yaml", "toml"];
