//! Payloads that are streamed in AWS's own chunks (`aws-chunked`): each chunk is signed anew as it passes.
//!
//! ```text
//! 10000;chunk-signature=<64 hex>\r\n<65536 bytes>\r\n          signed; unsigned: 10000\r\n<65536 bytes>\r\n
//! 0;chunk-signature=<64 hex>\r\n\r\n                            the last chunk
//! 0;chunk-signature=<64 hex>\r\nx-amz-checksum-crc32c:<base64>\r\nx-amz-trailer-signature:<64 hex>\r\n\r\n
//! ```
//!
//! A signature stands before the data that it signs, so one signed chunk is held at a time, and nothing else. The last
//! chunk leaves only after the whole body was read to its proper end: without it the provider stores nothing.
//!
//! Spec: <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html>

use std::fmt;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::SigV4Refusal;
use super::scope::{one, shown};

/// The longest chunk that is signed, in bytes: it is held until its signature is known. SDKs send 64 KiB to 1 MiB.
pub const LONGEST_SIGNED_CHUNK: usize = 1024 * 1024;

/// Which of the streamed forms `x-amz-content-sha256` declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamedForm {
    /// Every chunk is signed.
    Signed,
    /// Every chunk and the trailer are signed.
    SignedTrailer,
    /// Nothing is signed but the head; a checksum trails.
    UnsignedTrailer,
}

/// What a head says of its streamed payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streamed {
    /// The form.
    pub form: StreamedForm,
    /// The length of the data without its framing, in bytes.
    pub decoded_length: u64,
    /// The lower-case names of the trailer's fields.
    pub trailers: Vec<String>,
}

/// Why a streamed payload is not what its head and the grammar say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamedError {
    /// The line before a chunk's data.
    #[error("a chunk's size line is malformed")]
    SizeLine,
    /// A signed chunk that is too long to be held.
    #[error("a signed chunk is longer than {LONGEST_SIGNED_CHUNK} bytes")]
    ChunkTooLong,
    /// Data without its CRLF.
    #[error("a chunk's data is not followed by CRLF")]
    DataEnd,
    /// More or less data than declared.
    #[error("the chunks do not hold what x-amz-decoded-content-length says")]
    Length,
    /// The lines after the last chunk.
    #[error("what follows the last chunk is not the trailer that x-amz-trailer declares")]
    Trailer,
    /// The body ended in the midst of it.
    #[error("the body ended before its last chunk")]
    Truncated,
}

/// The key and the running signature of one streamed payload.
pub(super) struct ChunkSigner {
    pub(super) key: Zeroizing<[u8; 32]>,
    /// `20130524T000000Z`.
    pub(super) date_time: String,
    /// `20130524/us-east-1/s3/aws4_request`.
    pub(super) scope: String,
    /// The signature before: the request's own for the first chunk.
    pub(super) previous: String,
}

/// A streamed payload on its way: bytes of the agent in, bytes for the provider out, of the same length.
///
/// At most [`LONGEST_SIGNED_CHUNK`] bytes and one input are held.
pub struct StreamedBody {
    declared: Streamed,
    /// None if the form has no chunk signatures.
    signer: Option<ChunkSigner>,
    state: State,
    /// What may leave, and behind `settled` a chunk whose signature is not known yet.
    out: BytesMut,
    settled: usize,
    /// Where the signature of the chunk under way stands.
    signature_at: usize,
    hash: Sha256,
    /// The data of all chunks so far.
    decoded: u64,
    /// The line under way, then the last chunk and all that follows it.
    aside: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    SizeLine,
    /// In data, with this much of it to come.
    Data(usize),
    DataCr,
    DataLf,
    /// Behind the last chunk's line, which is this long.
    Last(usize),
    Broken(StreamedError),
}

impl StreamedForm {
    const ALL: [Self; 3] = [Self::Signed, Self::SignedTrailer, Self::UnsignedTrailer];

    /// The value of `x-amz-content-sha256`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            Self::SignedTrailer => "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            Self::UnsignedTrailer => "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        }
    }

    /// Whether each chunk carries a signature.
    pub const fn is_signed(self) -> bool {
        !matches!(self, Self::UnsignedTrailer)
    }

    const fn has_trailer(self) -> bool {
        !matches!(self, Self::Signed)
    }
}

impl Streamed {
    /// Reads what the head says beside the form's name in `x-amz-content-sha256`.
    pub(super) fn read(name: &str, headers: &HeaderMap) -> Result<Self, SigV4Refusal> {
        let form = StreamedForm::ALL
            .into_iter()
            .find(|form| form.as_str() == name)
            .ok_or_else(|| SigV4Refusal::Chunked(shown(name)))?;
        let length = one(
            headers,
            HeaderName::from_static("x-amz-decoded-content-length"),
            "x-amz-decoded-content-length stands twice",
        )?;
        let decoded_length = length
            .filter(|digits| digits.len() <= 15 && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .ok_or(SigV4Refusal::Malformed(
                "x-amz-decoded-content-length is not a number of bytes",
            ))?;
        let names = one(
            headers,
            HeaderName::from_static("x-amz-trailer"),
            "x-amz-trailer stands twice",
        )?;
        let trailers: Vec<String> = names
            .into_iter()
            .flat_map(|names| names.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .collect();
        let is_repeated = trailers
            .iter()
            .enumerate()
            .any(|(at, name)| trailers[..at].contains(name));
        if trailers.is_empty() == form.has_trailer()
            || is_repeated
            || trailers.iter().any(|name| !is_checksum(name))
        {
            return Err(SigV4Refusal::Malformed(
                "x-amz-trailer does not name the checksums that the payload's form trails",
            ));
        }
        Ok(Self {
            form,
            decoded_length,
            trailers,
        })
    }
}

/// A trailer may carry a checksum of the data and nothing else: whatever else changes a request stands in its signed head.
fn is_checksum(name: &str) -> bool {
    name.strip_prefix("x-amz-checksum-").is_some_and(|which| {
        (1..=20).contains(&which.len()) && which.bytes().all(|b| b.is_ascii_alphanumeric())
    })
}

impl ChunkSigner {
    fn sign(&mut self, algorithm: &str, hashes: &str) -> &str {
        let Self {
            date_time,
            scope,
            previous,
            ..
        } = self;
        let to_sign = format!("{algorithm}\n{date_time}\n{scope}\n{previous}\n{hashes}");
        self.previous = aws_sigv4::sign::v4::calculate_signature(*self.key, to_sign.as_bytes());
        &self.previous
    }

    fn sign_chunk(&mut self, hash: &[u8]) -> &str {
        self.sign(
            "AWS4-HMAC-SHA256-PAYLOAD",
            &format!("{EMPTY_SHA256}\n{}", hex::encode(hash)),
        )
    }

    fn sign_trailer(&mut self, canonical: &str) -> &str {
        let hash = hex::encode(Sha256::digest(canonical));
        self.sign("AWS4-HMAC-SHA256-TRAILER", &hash)
    }
}

impl StreamedBody {
    /// `signer` is there for the forms that sign chunks.
    pub(super) fn new(declared: Streamed, signer: Option<ChunkSigner>) -> Self {
        Self {
            declared,
            signer,
            state: State::SizeLine,
            out: BytesMut::new(),
            settled: 0,
            signature_at: 0,
            hash: Sha256::new(),
            decoded: 0,
            aside: Vec::new(),
        }
    }

    /// Takes the next bytes of the agent's body and gives those that may leave; maybe none.
    ///
    /// # Errors
    /// [`StreamedError`], which stays: the request must be ended.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Bytes, StreamedError> {
        match self.read(bytes) {
            Ok(()) => {
                let settled = std::mem::take(&mut self.settled);
                self.signature_at = self.signature_at.saturating_sub(settled);
                Ok(self.out.split_to(settled).freeze())
            }
            Err(error) => {
                self.state = State::Broken(error);
                Err(error)
            }
        }
    }

    /// Takes the end of the agent's body and gives the last chunk with its trailer.
    ///
    /// # Errors
    /// [`StreamedError`]: the body is not whole, and must not become so at the provider.
    pub fn finish(&mut self) -> Result<Bytes, StreamedError> {
        let line = match self.state {
            State::Last(line) => line,
            State::Broken(error) => return Err(error),
            State::SizeLine | State::Data(_) | State::DataCr | State::DataLf => {
                return Err(StreamedError::Truncated);
            }
        };
        self.state = State::Broken(StreamedError::Truncated);
        let mut last = std::mem::take(&mut self.aside);
        if let Some(signer) = &mut self.signer {
            let signature = signer.sign_chunk(&Sha256::digest([]));
            let end = line - CRLF.len();
            last[end - SIGNATURE..end].copy_from_slice(signature.as_bytes());
        }
        let trailer = std::str::from_utf8(&last[line..]).map_err(|_| StreamedError::Trailer)?;
        if !self.declared.form.has_trailer() {
            return if trailer == CRLF {
                Ok(last.into())
            } else {
                Err(StreamedError::Trailer)
            };
        }
        let canonical = canonical_trailer(trailer, &self.declared)?;
        if let Some(signer) = &mut self.signer {
            let end = last.len() - 2 * CRLF.len();
            let signature = signer.sign_trailer(&canonical);
            last[end - SIGNATURE..end].copy_from_slice(signature.as_bytes());
        }
        Ok(last.into())
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), StreamedError> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::SizeLine => self.read_size_line(bytes)?,
                State::Data(left) => self.read_data(bytes, left),
                State::DataCr if bytes[0] == b'\r' => {
                    self.state = State::DataLf;
                    &bytes[1..]
                }
                State::DataLf if bytes[0] == b'\n' => {
                    self.end_chunk();
                    &bytes[1..]
                }
                State::DataCr | State::DataLf => return Err(StreamedError::DataEnd),
                State::Last(_) => {
                    if self.aside.len() + bytes.len() > LONGEST_ASIDE {
                        return Err(StreamedError::Trailer);
                    }
                    self.aside.extend_from_slice(bytes);
                    &[]
                }
                State::Broken(error) => return Err(error),
            };
        }
        Ok(())
    }

    fn read_size_line<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], StreamedError> {
        let room = LONGEST_LINE - self.aside.len();
        let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        if end > room {
            return Err(StreamedError::SizeLine);
        }
        self.aside.extend_from_slice(&bytes[..end]);
        if self.aside.last() == Some(&b'\n') {
            self.begin_chunk()?;
        }
        Ok(&bytes[end..])
    }

    fn begin_chunk(&mut self) -> Result<(), StreamedError> {
        let size = size_of(&self.aside, self.signer.is_some()).ok_or(StreamedError::SizeLine)?;
        if size == 0 {
            if self.decoded != self.declared.decoded_length {
                return Err(StreamedError::Length);
            }
            self.state = State::Last(self.aside.len());
            return Ok(());
        }
        if self.declared.decoded_length - self.decoded < size {
            return Err(StreamedError::Length);
        }
        let length = usize::try_from(size).map_err(|_| StreamedError::ChunkTooLong)?;
        if self.signer.is_some() && length > LONGEST_SIGNED_CHUNK {
            return Err(StreamedError::ChunkTooLong);
        }
        self.decoded += size;
        self.out.reserve(LONGEST_LINE + length.min(RESERVED));
        self.out.extend_from_slice(&self.aside);
        self.aside.clear();
        self.signature_at = self.out.len().saturating_sub(SIGNATURE + CRLF.len());
        self.settle_unsigned();
        self.state = State::Data(length);
        Ok(())
    }

    fn read_data<'b>(&mut self, bytes: &'b [u8], left: usize) -> &'b [u8] {
        let (data, rest) = bytes.split_at(left.min(bytes.len()));
        if self.signer.is_some() {
            self.hash.update(data);
        }
        self.out.extend_from_slice(data);
        self.settle_unsigned();
        self.state = match left - data.len() {
            0 => State::DataCr,
            left => State::Data(left),
        };
        rest
    }

    /// What no signature is waited for may leave.
    fn settle_unsigned(&mut self) {
        if self.signer.is_none() {
            self.settled = self.out.len();
        }
    }

    fn end_chunk(&mut self) {
        if let Some(signer) = &mut self.signer {
            let signature = signer.sign_chunk(&self.hash.finalize_reset());
            self.out[self.signature_at..self.signature_at + SIGNATURE]
                .copy_from_slice(signature.as_bytes());
        }
        self.out.extend_from_slice(CRLF.as_bytes());
        self.settled = self.out.len();
        self.state = State::SizeLine;
    }
}

/// The size that a whole size line says, if the line is one: lower or upper case digits without zeros before them.
fn size_of(line: &[u8], is_signed: bool) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix(CRLF)?;
    let digits = if is_signed {
        let (digits, signature) = line.split_once(";chunk-signature=")?;
        is_signature(signature).then_some(digits)?
    } else {
        line
    };
    let is_plain = (1..=12).contains(&digits.len())
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        && (digits == "0" || !digits.starts_with('0'));
    is_plain
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

fn is_signature(text: &str) -> bool {
    text.len() == SIGNATURE && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The trailer's fields as they are signed, if the text is exactly the declared ones, their signature where the form has
/// one, and the end. A line ends with CRLF, or as AWS's own examples and `MinIO`'s client write it: a field's with LF, and
/// the list of fields with CRLF.
fn canonical_trailer(text: &str, declared: &Streamed) -> Result<String, StreamedError> {
    let fields = split_trailer(text, declared.form.is_signed()).ok_or(StreamedError::Trailer)?;
    let mut found = Vec::new();
    for line in fields.lines() {
        let (name, value) = line.split_once(':').ok_or(StreamedError::Trailer)?;
        let (name, value) = (name.to_ascii_lowercase(), value.trim_matches(' '));
        let is_sum = !value.is_empty()
            && value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+/=-".contains(&b));
        let is_new = found.iter().all(|(other, _)| *other != name);
        if !is_sum || !is_new || !declared.trailers.contains(&name) {
            return Err(StreamedError::Trailer);
        }
        found.push((name, value));
    }
    if found.len() != declared.trailers.len() {
        return Err(StreamedError::Trailer);
    }
    found.sort_unstable();
    let lines: Vec<String> = found
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    Ok(lines.concat())
}

/// The lines of the fields alone, each with its end.
fn split_trailer(text: &str, is_signed: bool) -> Option<&str> {
    let text = text.strip_suffix(CRLF)?;
    let fields = if is_signed {
        let (fields, signature) = text
            .strip_suffix(CRLF)?
            .rsplit_once("x-amz-trailer-signature:")?;
        is_signature(signature).then_some(fields)?
    } else {
        text
    };
    // Fields that end with LF alone are closed by one CRLF, which in the unsigned form is the trailer's own.
    let closed = fields
        .strip_suffix(CRLF)
        .filter(|fields| is_signed && fields.ends_with('\n') && !fields.ends_with(CRLF));
    let fields = closed.unwrap_or(fields);
    fields.ends_with('\n').then_some(fields)
}

impl fmt::Debug for StreamedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamedBody")
            .field("declared", &self.declared)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

const CRLF: &str = "\r\n";
/// The length of a signature in hexadecimal digits.
const SIGNATURE: usize = 64;
/// The longest size line: 12 digits, the signature with its name, CRLF.
const LONGEST_LINE: usize = 12 + ";chunk-signature=".len() + SIGNATURE + CRLF.len();
/// What is reserved for a chunk ahead of its data.
const RESERVED: usize = 128 * 1024;
/// What the last chunk's line and the trailer may take.
const LONGEST_ASIDE: usize = 2048;
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[cfg(test)]
mod tests;
