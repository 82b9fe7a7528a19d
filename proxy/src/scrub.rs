//! Step 9: nothing of the credential comes back, in headers, trailers or bodies.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use providers::inject::Plan;
use providers::scrub::{BodyDecoder, SHORTEST, ScrubStream, Scrubber};

use crate::messages::{Framing, MessageError, Messages};
use crate::refuse::{Code, Refusal};

/// Fields of the provider's connection, which are not the agent's.
const HOP_BY_HOP: [&str; 6] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-connection",
    "proxy-status",
    "alt-svc",
];

/// The scanning of one response.
pub(crate) struct ResponseScrub {
    body: Option<Body>,
    decoder: Option<BodyDecoder>,
    in_headers: usize,
}

/// How a body is scanned.
enum Body {
    /// As one text: its end is held back while that may begin the credential.
    Whole(ScrubStream),
    /// Message by message, since the next is sent when this one has arrived.
    Messages(Messages),
    /// Part by part as they come, where messages cannot be told apart and nothing may wait.
    Parts(ScrubStream),
}

impl std::fmt::Debug for ResponseScrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseScrub").finish_non_exhaustive()
    }
}

impl ResponseScrub {
    /// Cleans a response's head and decides how its body is scanned.
    pub(crate) fn begin(
        head: &mut ResponseHeader,
        plan: &Plan,
        is_upgrade: bool,
        has_body: bool,
    ) -> Result<Self, Refusal> {
        for name in HOP_BY_HOP {
            head.remove_header(name);
        }
        let scrubber = plan.scrubber();
        // The reason phrase is free text of the provider's, and nothing reads it (RFC 9112 section 4).
        head.set_reason_phrase(None)
            .expect("no phrase is always accepted");
        let in_headers = clean_head(head, scrubber);
        if scrubber.is_empty() || !has_body {
            return Ok(Self {
                body: None,
                decoder: None,
                in_headers,
            });
        }
        // What SigV4 sends stays out of the body's reach, and stored objects must arrive as they are stored.
        let decoder = if is_upgrade || plan.sigv4().is_some() {
            None
        } else {
            decoder(head)?
        };
        Ok(Self {
            body: Some(Body::of(head, scrubber, is_upgrade)),
            decoder,
            in_headers,
        })
    }

    /// Scans the next part of the body. `None` when nothing of it can be passed on yet.
    pub(crate) fn body(
        &mut self,
        chunk: Option<Bytes>,
        end: bool,
    ) -> Result<Option<Bytes>, Refusal> {
        let Some(body) = &mut self.body else {
            return Ok(chunk);
        };
        let chunk = match (&mut self.decoder, chunk) {
            (Some(decoder), Some(chunk)) => {
                Some(decoder.push(&chunk).map_err(|error| undecodable(&error))?)
            }
            (_, chunk) => chunk,
        };
        let mut out = chunk.map(|chunk| body.push(chunk)).transpose()?;
        if end {
            if let Some(decoder) = &mut self.decoder {
                let rest = decoder.finish().map_err(|error| undecodable(&error))?;
                out = Some(join(out, body.push(rest)?));
            }
            out = Some(join(out, body.finish()));
        }
        Ok(out.filter(|bytes| !bytes.is_empty()))
    }

    /// What was held back, for an answer that ends in trailers instead of a last part.
    pub(crate) fn rest(&mut self) -> Option<Bytes> {
        let rest = self.body.as_mut()?.finish();
        (!rest.is_empty()).then_some(rest)
    }

    /// How often the credential was found and masked.
    pub(crate) fn reflections(&self) -> usize {
        self.in_headers + self.body.as_ref().map_or(0, Body::reflections)
    }
}

impl Body {
    fn of(head: &ResponseHeader, scrubber: &Arc<Scrubber>, is_upgrade: bool) -> Self {
        if is_upgrade {
            return Self::Messages(Messages::new(Framing::WebSocket, scrubber));
        }
        match grpc(head) {
            None => Self::Whole(scrubber.stream()),
            Some(Grpc::Binary) => Self::Messages(Messages::new(Framing::Grpc, scrubber)),
            Some(Grpc::Base64) => Self::Parts(scrubber.stream()),
        }
    }

    fn push(&mut self, bytes: Bytes) -> Result<Bytes, Refusal> {
        match self {
            Self::Whole(stream) => Ok(stream.push(bytes)),
            Self::Messages(messages) => messages.push(bytes).map_err(unreadable),
            Self::Parts(stream) => {
                let part = stream.push(bytes);
                Ok(join(Some(part), stream.finish()))
            }
        }
    }

    fn finish(&mut self) -> Bytes {
        match self {
            Self::Whole(stream) | Self::Parts(stream) => stream.finish(),
            Self::Messages(messages) => messages.finish(),
        }
    }

    fn reflections(&self) -> usize {
        match self {
            Self::Whole(stream) | Self::Parts(stream) => stream.reflections(),
            Self::Messages(messages) => messages.reflections(),
        }
    }
}

/// Masks the credential in header values; names and counts stay.
pub(crate) fn clean_fields(fields: &mut HeaderMap, scrubber: &Scrubber) -> usize {
    if scrubber.is_empty() {
        return 0;
    }
    let named = named_after(fields, scrubber);
    let mut found = named.len();
    for name in named {
        fields.remove(name);
    }
    for value in fields.values_mut() {
        if let Some(clean) = scrubber.header(value.as_bytes()) {
            *value =
                HeaderValue::from_bytes(&clean).unwrap_or_else(|_| HeaderValue::from_static("*"));
            found += 1;
        }
    }
    found
}

fn clean_head(head: &mut ResponseHeader, scrubber: &Scrubber) -> usize {
    if scrubber.is_empty() {
        return 0;
    }
    let named = named_after(&head.headers, scrubber);
    for name in &named {
        head.remove_header(name);
    }
    let dirty: Vec<_> = head
        .headers
        .iter()
        .filter(|(_, value)| scrubber.header(value.as_bytes()).is_some())
        .map(|(name, _)| name.clone())
        .collect();
    for name in &dirty {
        let values: Vec<_> = head.headers.get_all(name).iter().cloned().collect();
        head.remove_header(name);
        for value in values {
            let clean = scrubber.header(value.as_bytes());
            let value = clean.map_or(value, |clean| {
                HeaderValue::from_bytes(&clean).unwrap_or_else(|_| HeaderValue::from_static("*"))
            });
            head.append_header(name.clone(), value)
                .expect("a typed name and value are always accepted");
        }
    }
    named.len() + dirty.len()
}

/// Fields whose very name holds the credential.
fn named_after(fields: &HeaderMap, scrubber: &Scrubber) -> Vec<HeaderName> {
    fields
        .keys()
        .filter(|name| {
            name.as_str().len() >= SHORTEST && scrubber.header(name.as_str().as_bytes()).is_some()
        })
        .cloned()
        .collect()
}

/// The forms in which gRPC streams its messages.
enum Grpc {
    Binary,
    /// gRPC-Web for browsers of old.
    Base64,
}

fn grpc(head: &ResponseHeader) -> Option<Grpc> {
    let kind = head.headers.get(CONTENT_TYPE)?.as_bytes();
    if kind.starts_with(b"application/grpc-web-text") {
        return Some(Grpc::Base64);
    }
    kind.starts_with(b"application/grpc")
        .then_some(Grpc::Binary)
}

/// The decoder for a body that came encoded although `identity` was asked for; the head then says that it is plain.
fn decoder(head: &mut ResponseHeader) -> Result<Option<BodyDecoder>, Refusal> {
    let mut encodings = head.headers.get_all(CONTENT_ENCODING).iter();
    let Some(encoding) = encodings.next() else {
        return Ok(None);
    };
    let text = encoding.to_str().unwrap_or("?").trim().to_ascii_lowercase();
    if encodings.next().is_some() {
        return Err(unknown_encoding());
    }
    if text == "identity" || text.is_empty() {
        return Ok(None);
    }
    let decoder = BodyDecoder::for_encoding(&text)
        .ok_or_else(unknown_encoding)?
        .map_err(|error| undecodable(&error))?;
    head.remove_header(&CONTENT_ENCODING);
    head.remove_header(&CONTENT_LENGTH);
    if head.version == http::Version::HTTP_11 {
        head.insert_header(TRANSFER_ENCODING, "chunked")
            .expect("a typed name and value are always accepted");
    }
    Ok(Some(decoder))
}

fn join(first: Option<Bytes>, second: Bytes) -> Bytes {
    match first {
        Some(first) if second.is_empty() => first,
        Some(first) if !first.is_empty() => [first, second].concat().into(),
        _ => second,
    }
}

fn unknown_encoding() -> Refusal {
    Refusal::new(
        Code::UpstreamProtocol,
        "the provider answered in an encoding that cannot be scanned for the credential; the answer is withheld",
    )
}

fn unreadable(error: MessageError) -> Refusal {
    Refusal::new(
        Code::UpstreamProtocol,
        format!(
            "the provider's stream cannot be scanned for the credential: {error}; its rest is withheld"
        ),
    )
}

fn undecodable(error: &impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Code::UpstreamProtocol,
        format!("the provider's encoded answer could not be scanned: {error}"),
    )
}
