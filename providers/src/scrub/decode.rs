//! Compressed bodies to identity as they stream, bounded in window and ratio.

use std::fmt;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Operation};

/// Why a compressed body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// An encoding that is not known, or more than one.
    #[error(
        "the content encoding `{0}` is not supported; ask the upstream for identity, gzip, deflate, br or zstd"
    )]
    Unsupported(String),
    /// More than 200 bytes from one after the first MiB, or more than 8 MiB from one part.
    #[error(
        "the body expands more than 200 times, or by more than 8 MiB at once; it is refused as a decompression bomb: ask the upstream for identity"
    )]
    Ratio,
    /// A window of more than 8 MiB.
    #[error("the body needs a window of more than 8 MiB; ask the upstream for another encoding")]
    Window,
    /// Not what the encoding says, or cut short.
    #[error("the body is not valid {0}, or cut short; ask the upstream for identity")]
    Corrupt(&'static str),
}

/// Turns one compressed body into identity, chunk by chunk.
///
/// gzip (RFC 1952, with members in a row), deflate (RFC 1950, and RFC 1951 as many servers send it), br (RFC 7932),
/// zstd (RFC 8878).
pub struct BodyDecoder {
    encoding: Encoding,
    state: State,
    taken: u64,
    given: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

enum State {
    /// Fewer than two bytes were read: these choose between zlib and raw deflate, and show brotli's window.
    Start(Vec<u8>),
    Running(Box<dyn Decode>),
    /// An error was returned, or the body was finished.
    Done,
}

/// One running decompression.
trait Decode: Send + Sync {
    /// Takes all of `piece` and writes all that it yields.
    fn write(&mut self, piece: &[u8], out: &mut Sink) -> io::Result<()>;

    /// Writes the rest; fails unless the stream is complete.
    fn finish(&mut self, out: &mut Sink) -> io::Result<()>;
}

/// Takes what a decoder yields and stops it when that is too much.
#[derive(Default)]
struct Sink {
    out: Vec<u8>,
    /// How many bytes may still be written.
    left: u64,
    is_full: bool,
}

impl BodyDecoder {
    /// The decoder of a `Content-Encoding`; `None` for identity, where there is nothing to decode.
    ///
    /// # Errors
    /// [`DecodeError::Unsupported`] for an unknown encoding, and for more than one: no client needs stacked encodings.
    pub fn for_encoding(content_encoding: &str) -> Option<Result<Self, DecodeError>> {
        let names = content_encoding.split(',').map(str::trim);
        let mut names =
            names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"));
        let name = names.next()?.to_ascii_lowercase();
        let encoding = match name.as_str() {
            _ if names.next().is_some() => None,
            "gzip" | "x-gzip" => Some(Encoding::Gzip),
            "deflate" => Some(Encoding::Deflate),
            "br" => Some(Encoding::Brotli),
            "zstd" => Some(Encoding::Zstd),
            _ => None,
        };
        let unsupported = || {
            DecodeError::Unsupported(
                content_encoding
                    .chars()
                    .take(60)
                    .flat_map(char::escape_debug)
                    .collect(),
            )
        };
        Some(encoding.map(Self::new).ok_or_else(unsupported))
    }

    pub(super) fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            state: State::Start(Vec::new()),
            taken: 0,
            given: 0,
        }
    }

    /// Decodes a chunk: everything that it yields, at once.
    ///
    /// # Errors
    /// [`DecodeError`]; the body must not be used further.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Bytes, DecodeError> {
        let (plain, error) = self.decode(chunk);
        error.map_or(Ok(plain), Err)
    }

    /// The rest, at the end of the body.
    ///
    /// # Errors
    /// [`DecodeError::Corrupt`] if the body is cut short. A body of no bytes at all (the answer to HEAD) is none.
    pub fn finish(&mut self) -> Result<Bytes, DecodeError> {
        let (plain, error) = self.decode_rest();
        error.map_or(Ok(plain), Err)
    }

    /// What a chunk yields, also where it ends in an error.
    pub(super) fn decode(&mut self, chunk: &[u8]) -> (Bytes, Option<DecodeError>) {
        let mut out = Vec::new();
        // A bomb is noticed by its first piece, not by all that a chunk of it would yield.
        let mut pieces = chunk.chunks(PIECE);
        let error = pieces.find_map(|piece| self.decode_piece(piece, &mut out));
        (out.into(), error)
    }

    fn decode_piece(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Option<DecodeError> {
        self.taken += piece.len() as u64;
        if let State::Start(first) = &mut self.state {
            first.extend_from_slice(piece);
            if first.len() < 2 {
                return None;
            }
            let first = std::mem::take(first);
            return self.start(&first, out, |decode, sink| decode.write(&first, sink));
        }
        self.run(out, |decode, sink| decode.write(piece, sink))
    }

    /// The rest, also where it ends in an error.
    pub(super) fn decode_rest(&mut self) -> (Bytes, Option<DecodeError>) {
        if self.taken == 0 {
            return (Bytes::new(), None);
        }
        let mut out = Vec::new();
        let error = if let State::Start(first) = &mut self.state {
            let first = std::mem::take(first);
            self.start(&first, &mut out, |decode, sink| {
                decode
                    .write(&first, sink)
                    .and_then(|()| decode.finish(sink))
            })
        } else {
            self.run(&mut out, |decode, sink| decode.finish(sink))
        };
        self.state = State::Done;
        (out.into(), error)
    }

    fn start(
        &mut self,
        first: &[u8],
        out: &mut Vec<u8>,
        step: impl FnOnce(&mut dyn Decode, &mut Sink) -> io::Result<()>,
    ) -> Option<DecodeError> {
        match self.encoding.start(first) {
            Ok(decode) => {
                self.state = State::Running(decode);
                self.run(out, step)
            }
            Err(error) => {
                self.state = State::Done;
                Some(error)
            }
        }
    }

    fn run(
        &mut self,
        out: &mut Vec<u8>,
        step: impl FnOnce(&mut dyn Decode, &mut Sink) -> io::Result<()>,
    ) -> Option<DecodeError> {
        let State::Running(mut decode) = std::mem::replace(&mut self.state, State::Done) else {
            return Some(DecodeError::Corrupt(self.encoding.name()));
        };
        let before = out.len() as u64;
        let allowed = self.taken.saturating_mul(RATIO).max(FREE);
        let left = allowed.saturating_sub(self.given);
        let mut sink = Sink {
            left: left.min(PART.saturating_sub(before)),
            out: std::mem::take(out),
            is_full: false,
        };
        let result = step(decode.as_mut(), &mut sink);
        *out = sink.out;
        self.given += out.len() as u64 - before;
        match result {
            _ if sink.is_full => Some(DecodeError::Ratio),
            Err(error) => Some(self.encoding.refuse(&error)),
            Ok(()) => {
                self.state = State::Running(decode);
                None
            }
        }
    }
}

impl Encoding {
    fn start(self, first: &[u8]) -> Result<Box<dyn Decode>, DecodeError> {
        Ok(match self {
            Self::Gzip => Box::new(Gzip(MultiGzDecoder::new(Sink::default()))),
            Self::Deflate => Box::new(Inflate {
                inner: Decompress::new(is_zlib(first)),
                is_complete: false,
            }),
            Self::Brotli if !is_brotli_window_bounded(first) => return Err(DecodeError::Window),
            Self::Brotli => Box::new(Brotli(brotli::DecompressorWriter::new(
                Sink::default(),
                BUFFER,
            ))),
            Self::Zstd => {
                let inner = zstd::stream::raw::Decoder::new().and_then(|mut decoder| {
                    decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
                    Ok(decoder)
                });
                Box::new(Zstd {
                    inner: inner.map_err(|_| DecodeError::Corrupt("zstd"))?,
                    is_complete: false,
                })
            }
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    /// zstd names its reasons by text alone.
    fn refuse(self, error: &io::Error) -> DecodeError {
        match self {
            Self::Zstd if error.to_string().contains("too much memory") => DecodeError::Window,
            _ => DecodeError::Corrupt(self.name()),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            self.is_full = true;
            return Err(io::ErrorKind::QuotaExceeded.into());
        };
        self.left = left;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Gzip(MultiGzDecoder<Sink>);

impl Decode for Gzip {
    fn write(&mut self, piece: &[u8], out: &mut Sink) -> io::Result<()> {
        std::mem::swap(self.0.get_mut(), out);
        let written = self.0.write_all(piece);
        // What stands before an error is yielded too.
        let flushed = self.0.flush();
        let result = written.and(flushed);
        std::mem::swap(self.0.get_mut(), out);
        result
    }

    fn finish(&mut self, out: &mut Sink) -> io::Result<()> {
        std::mem::swap(self.0.get_mut(), out);
        let result = self.0.try_finish();
        std::mem::swap(self.0.get_mut(), out);
        result
    }
}

struct Brotli(brotli::DecompressorWriter<Sink>);

impl Decode for Brotli {
    fn write(&mut self, piece: &[u8], out: &mut Sink) -> io::Result<()> {
        std::mem::swap(self.0.get_mut(), out);
        let written = self.0.write_all(piece);
        // What stands before an error is yielded too.
        let flushed = self.0.flush();
        let result = written.and(flushed);
        std::mem::swap(self.0.get_mut(), out);
        result
    }

    fn finish(&mut self, out: &mut Sink) -> io::Result<()> {
        std::mem::swap(self.0.get_mut(), out);
        let result = self.0.close();
        std::mem::swap(self.0.get_mut(), out);
        result
    }
}

struct Inflate {
    inner: Decompress,
    is_complete: bool,
}

impl Decode for Inflate {
    fn write(&mut self, mut piece: &[u8], out: &mut Sink) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.is_complete {
                return if piece.is_empty() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::InvalidData.into())
                };
            }
            let (read, written) = (self.inner.total_in(), self.inner.total_out());
            let status = self
                .inner
                .decompress(piece, &mut buffer, FlushDecompress::None);
            let read = cast(self.inner.total_in() - read);
            let written = cast(self.inner.total_out() - written);
            piece = &piece[read..];
            out.write_all(&buffer[..written])?;
            self.is_complete = status? == Status::StreamEnd;
            if read == 0 && written == 0 && !self.is_complete {
                return if piece.is_empty() {
                    Ok(())
                } else {
                    Err(io::ErrorKind::InvalidData.into())
                };
            }
        }
    }

    fn finish(&mut self, _: &mut Sink) -> io::Result<()> {
        if self.is_complete {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

struct Zstd {
    inner: zstd::stream::raw::Decoder<'static>,
    is_complete: bool,
}

impl Decode for Zstd {
    fn write(&mut self, mut piece: &[u8], out: &mut Sink) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let status = self.inner.run_on_buffers(piece, &mut buffer)?;
            piece = &piece[status.bytes_read..];
            out.write_all(&buffer[..status.bytes_written])?;
            if status.bytes_read > 0 || status.bytes_written > 0 {
                self.is_complete = status.remaining == 0;
            }
            if piece.is_empty() && status.bytes_written < buffer.len() {
                return Ok(());
            }
        }
    }

    fn finish(&mut self, _: &mut Sink) -> io::Result<()> {
        if self.is_complete {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// RFC 1950, section 2.2: compression method 8 and a check of both bytes. Some servers send RFC 1951 under this name.
fn is_zlib(first: &[u8]) -> bool {
    matches!(first, [method, flags, ..] if method & 15 == 8 && u16::from_be_bytes([*method, *flags]) % 31 == 0)
}

/// RFC 7932, section 9.1: the first bits hold the window's size. Fifteen is 16 MiB, and seventeen in seven bits was
/// reserved and is the large-window extension now.
fn is_brotli_window_bounded(first: &[u8]) -> bool {
    first
        .first()
        .is_none_or(|bits| bits & 0x0f != 0x0f && bits & 0x7f != 0x11)
}

/// Both counts are lengths of slices here.
fn cast(count: u64) -> usize {
    usize::try_from(count).expect("no more than a slice holds")
}

impl fmt::Debug for BodyDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyDecoder")
            .field("encoding", &self.encoding.name())
            .finish_non_exhaustive()
    }
}

/// What one decoding step yields at most, in bytes.
const BUFFER: usize = 32 * 1024;
/// 2^23 bytes, 8 MiB.
const WINDOW_LOG: u32 = 23;
/// Bytes that one byte may yield: as many as Apache's `mod_deflate` lets pass.
const RATIO: u64 = 200;
/// Bytes that any body may yield, whatever its ratio.
const FREE: u64 = 1024 * 1024;
/// Bytes that one part may yield, whatever came before it: it is passed on in one piece.
const PART: u64 = 8 * 1024 * 1024;
/// How many bytes are taken before the bounds are looked at.
const PIECE: usize = 4 * 1024;

#[cfg(test)]
mod tests;
