//! Step 9: nothing of the credential comes back, in headers, trailers or bodies.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use providers::inject::Plan;
use providers::scrub::{BodyDecoder, Inside, InsideError, ScrubStream, Scrubber};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::messages::{Framing, MessageError, Messages};
use crate::refuse::{Code, Refusal};

mod media;

/// The scanning of one response.
pub(crate) struct ResponseScrub {
    body: Option<Body>,
    decoder: Option<BodyDecoder>,
    inside: Option<Inside>,
    /// In the head, in the trailers, and inside of a compressed body.
    found: usize,
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
        let scrubber = plan.scrubber();
        // The reason phrase is free text of the provider's, and nothing reads it (RFC 9112 section 4).
        head.set_reason_phrase(None)
            .expect("no phrase is always accepted");
        let in_headers = clean_head(head, scrubber);
        if scrubber.is_empty() || !has_body {
            return Ok(Self {
                body: None,
                decoder: None,
                inside: None,
                found: in_headers,
            });
        }
        // What SigV4 sends stays out of the body's reach, and stored objects must arrive as they are stored.
        let is_as_stored = is_upgrade || plan.sigv4().is_some();
        let decoder = if is_as_stored { None } else { decoder(head)? };
        let depth = if is_as_stored {
            None
        } else {
            media::depth(head)
        };
        Ok(Self {
            body: Some(Body::of(head, scrubber, is_upgrade)),
            decoder,
            inside: depth.map(|depth| Inside::new(scrubber, depth)),
            found: in_headers,
        })
    }

    /// Scans the next part of the body. `None` when nothing of it can be passed on yet.
    pub(crate) fn body(
        &mut self,
        chunk: Option<Bytes>,
        end: bool,
    ) -> Result<Option<Bytes>, Refusal> {
        let is_unpacked = self.inside.as_ref().is_some_and(Inside::is_reading);
        let may_grow = self.decoder.is_some() || is_unpacked;
        if may_grow
            && chunk
                .as_ref()
                .is_some_and(|chunk| chunk.len() >= MAY_BE_LONG)
        {
            return aside(|| self.scan(chunk, end));
        }
        self.scan(chunk, end)
    }

    fn scan(&mut self, chunk: Option<Bytes>, end: bool) -> Result<Option<Bytes>, Refusal> {
        let Some(scan) = &mut self.body else {
            return Ok(chunk);
        };
        let mut body = chunk;
        if let Some(decoder) = &mut self.decoder {
            let plain = body.map(|chunk| decoder.push(&chunk)).transpose();
            body = plain.map_err(|error| undecodable(&error))?;
            if end {
                let rest = decoder.finish().map_err(|error| undecodable(&error))?;
                body = Some(join(body, rest));
                // Trailers may ask for the rest once more.
                self.decoder = None;
            }
        }
        if let Some(inside) = &mut self.inside {
            body = look_inside(inside, body, end).map_err(|error| {
                self.found += usize::from(error == InsideError::Reflected);
                undecodable(&error)
            })?;
        }
        let mut out = body.map(|chunk| scan.push(chunk)).transpose()?;
        if end {
            out = Some(join(out, scan.finish()));
        }
        Ok(out.filter(|bytes| !bytes.is_empty()))
    }

    /// What was held back, for an answer that ends in trailers instead of a last part.
    pub(crate) fn rest(&mut self) -> Result<Option<Bytes>, Refusal> {
        self.body(None, true)
    }

    /// Adds what was masked elsewhere in the answer.
    pub(crate) fn count(&mut self, found: usize) {
        self.found += found;
    }

    /// How often the credential was found and masked.
    pub(crate) fn reflections(&self) -> usize {
        self.found + self.body.as_ref().map_or(0, Body::reflections)
    }
}

impl Body {
    fn of(head: &ResponseHeader, scrubber: &Arc<Scrubber>, is_upgrade: bool) -> Self {
        if is_upgrade {
            return Self::Messages(Messages::new(Framing::WebSocket, scrubber));
        }
        match media::grpc(head) {
            None => Self::Whole(scrubber.stream()),
            Some(media::Grpc::Binary) => Self::Messages(Messages::new(Framing::Grpc, scrubber)),
            Some(media::Grpc::Base64) => Self::Parts(scrubber.stream()),
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

/// Does what may take some time, a part of a body that grows a thousandfold, while others do this worker's other work.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    let runtime = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match runtime {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// How many bytes of a compressed body may unpack to more than a moment's work.
const MAY_BE_LONG: usize = 1024;

/// Masks the credential in header values, and drops fields that are named after it.
pub(crate) fn clean_fields(fields: &mut HeaderMap, scrubber: &Scrubber) -> usize {
    let dirty = dirty(fields, scrubber);
    for (name, values) in &dirty {
        fields.remove(name);
        for value in values {
            fields.append(name, value.clone());
        }
    }
    dirty.len()
}

fn clean_head(head: &mut ResponseHeader, scrubber: &Scrubber) -> usize {
    let dirty = dirty(&head.headers, scrubber);
    for (name, values) in &dirty {
        head.remove_header(name);
        for value in values {
            head.append_header(name.clone(), value.clone())
                .expect("a typed name and value are always accepted");
        }
    }
    dirty.len()
}

/// The fields that hold the credential, with what may be left of their values: nothing where their name holds it.
fn dirty(fields: &HeaderMap, scrubber: &Scrubber) -> Vec<(HeaderName, Vec<HeaderValue>)> {
    if scrubber.is_empty() {
        return Vec::new();
    }
    fields
        .keys()
        .filter_map(|name| {
            let values = if scrubber.is_in_name(name.as_str().as_bytes()) {
                Vec::new()
            } else {
                clean_values(fields, name, scrubber)?
            };
            Some((name.clone(), values))
        })
        .collect()
}

/// The values of one name without the credential; `None` if it is not in them. A server may have split it over two
/// fields, so they are read in one piece.
fn clean_values(
    fields: &HeaderMap,
    name: &HeaderName,
    scrubber: &Scrubber,
) -> Option<Vec<HeaderValue>> {
    let mut values = fields.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_none() {
        return clean_value(first.as_bytes(), scrubber).map(|clean| vec![field_value(&clean)]);
    }
    let values = || fields.get_all(name).iter().map(HeaderValue::as_bytes);
    let clean = clean_value(&values().collect::<Vec<_>>().concat(), scrubber)?;
    let mut rest = &clean[..];
    let cleaned = values().map(|value| {
        let (value, behind) = rest.split_at(value.len());
        rest = behind;
        field_value(value)
    });
    Some(cleaned.collect())
}

/// A value without the credential; `None` if it does not hold it. Pingora puts a space in place of each fold over two lines
/// (RFC 9112 section 5.2), so the value is also read without its spaces.
fn clean_value(value: &[u8], scrubber: &Scrubber) -> Option<Vec<u8>> {
    let clean = scrubber.header(value);
    let read = clean.as_deref().unwrap_or(value);
    unfolded(read, scrubber).or(clean)
}

fn unfolded(value: &[u8], scrubber: &Scrubber) -> Option<Vec<u8>> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    if !value.iter().any(is_space) {
        return None;
    }
    let dense: Vec<u8> = value
        .iter()
        .copied()
        .filter(|byte| !is_space(byte))
        .collect();
    let mut dense = scrubber.header(&dense)?.into_iter();
    let spread = |byte: &u8| {
        if is_space(byte) {
            Some(*byte)
        } else {
            dense.next()
        }
    };
    Some(value.iter().filter_map(spread).collect())
}

fn field_value(clean: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(clean).unwrap_or_else(|_| HeaderValue::from_static("*"))
}

fn look_inside(
    inside: &mut Inside,
    chunk: Option<Bytes>,
    end: bool,
) -> Result<Option<Bytes>, InsideError> {
    let passed = chunk.map(|chunk| inside.push(chunk)).transpose()?;
    if !end {
        return Ok(passed);
    }
    Ok(Some(join(passed, inside.finish()?)))
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
        format!("the provider's encoded answer could not be passed on: {error}"),
    )
}

#[cfg(test)]
mod tests;
