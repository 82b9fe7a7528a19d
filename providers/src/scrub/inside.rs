//! Looks into bodies that are compressed without saying so, and passes them on as they came.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::decode::{BodyDecoder, DecodeError, Encoding};
use super::{ScrubStream, Scrubber};

/// Reads a body that declares no content encoding and begins like gzip, zlib or zstd. brotli has no such beginning.
///
/// Nothing can be masked within compressed bytes, so a secret in them ends the body. All other bodies pass unchanged,
/// and those that begin otherwise without a copy. The last 256 KiB of a body that is read are held back.
pub struct Inside {
    state: State,
    depth: Depth,
    scrubber: Arc<Scrubber>,
}

/// How far a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// To its end. One that cannot be read within the bounds of [`BodyDecoder`] is refused.
    Whole,
    /// The first MiB of what it unpacks to, or less where the bounds are met before. The rest passes unread.
    Beginning,
}

/// Why a compressed body does not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InsideError {
    /// It holds a secret.
    #[error("the compressed body holds the credential, which cannot be masked there")]
    Reflected,
    /// Its window or its ratio is out of bounds.
    #[error("the body is compressed without declaring it, and cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
}

enum State {
    /// Fewer bytes than tell; they may begin like a compressed body.
    First(Vec<u8>),
    Reading(Box<Reading>),
    /// It is not compressed, or was read far enough.
    Passing,
}

struct Reading {
    decoder: BodyDecoder,
    stream: ScrubStream,
    /// How much it unpacked to.
    read: u64,
    held: VecDeque<Bytes>,
    held_length: usize,
}

/// Whether a body must be read further.
enum Progress {
    Reading,
    Enough,
}

impl Inside {
    /// Starts a body.
    pub fn new(scrubber: &Arc<Scrubber>, depth: Depth) -> Self {
        Self {
            state: State::First(Vec::new()),
            depth,
            scrubber: Arc::clone(scrubber),
        }
    }

    /// Takes the next chunk and returns what can be sent now.
    ///
    /// # Errors
    /// [`InsideError`]; nothing more of the body may be sent.
    pub fn push(&mut self, chunk: Bytes) -> Result<Bytes, InsideError> {
        match &mut self.state {
            State::Passing => Ok(chunk),
            State::First(first) => {
                let chunk = if first.is_empty() {
                    chunk
                } else {
                    first.extend_from_slice(&chunk);
                    std::mem::take(first).into()
                };
                self.begin(chunk)
            }
            State::Reading(_) => self.read(chunk),
        }
    }

    /// Whether the next part is unpacked.
    #[must_use]
    pub fn is_reading(&self) -> bool {
        matches!(self.state, State::Reading(_))
    }

    /// The rest, at the end of the body.
    ///
    /// # Errors
    /// [`InsideError`]; nothing more of the body may be sent.
    pub fn finish(&mut self) -> Result<Bytes, InsideError> {
        match std::mem::replace(&mut self.state, State::Passing) {
            State::Passing => Ok(Bytes::new()),
            State::First(first) => Ok(first.into()),
            State::Reading(mut reading) => {
                let (plain, error) = reading.decoder.decode_rest();
                reading.scan(plain, error, self.depth)?;
                reading.scan_rest()?;
                Ok(reading.release(0))
            }
        }
    }

    fn begin(&mut self, chunk: Bytes) -> Result<Bytes, InsideError> {
        match sniff(&chunk) {
            Beginning::Plain => {
                self.state = State::Passing;
                Ok(chunk)
            }
            Beginning::Short => {
                self.state = State::First(chunk.into());
                Ok(Bytes::new())
            }
            Beginning::Compressed(encoding) => {
                self.state = State::Reading(Box::new(Reading {
                    decoder: BodyDecoder::new(encoding),
                    stream: self.scrubber.stream(),
                    read: 0,
                    held: VecDeque::new(),
                    held_length: 0,
                }));
                self.read(chunk)
            }
        }
    }

    fn read(&mut self, chunk: Bytes) -> Result<Bytes, InsideError> {
        let State::Reading(reading) = &mut self.state else {
            return Ok(chunk);
        };
        let mut progress = Progress::Reading;
        for piece in chunk.chunks(PIECE) {
            let (plain, error) = reading.decoder.decode(piece);
            progress = reading.scan(plain, error, self.depth)?;
            if let Progress::Enough = progress {
                break;
            }
        }
        reading.held_length += chunk.len();
        reading.held.push_back(chunk);
        Ok(match progress {
            Progress::Reading => reading.release(HELD),
            Progress::Enough => {
                let rest = reading.release(0);
                self.state = State::Passing;
                rest
            }
        })
    }
}

impl Reading {
    fn scan(
        &mut self,
        plain: Bytes,
        error: Option<DecodeError>,
        depth: Depth,
    ) -> Result<Progress, InsideError> {
        self.read += plain.len() as u64;
        self.stream.push(plain);
        if self.stream.reflections() > 0 {
            return Err(InsideError::Reflected);
        }
        match error {
            None if depth == Depth::Beginning && self.read > BEGINNING => Ok(Progress::Enough),
            None => Ok(Progress::Reading),
            // No reader gets further, or it never was what it began like.
            Some(DecodeError::Corrupt(_)) => {
                self.scan_rest()?;
                Ok(Progress::Enough)
            }
            Some(error) => match depth {
                Depth::Whole => Err(error.into()),
                Depth::Beginning => Ok(Progress::Enough),
            },
        }
    }

    fn scan_rest(&mut self) -> Result<(), InsideError> {
        self.stream.finish();
        match self.stream.reflections() {
            0 => Ok(()),
            _ => Err(InsideError::Reflected),
        }
    }

    /// All but the last `keep` bytes, in whole chunks.
    fn release(&mut self, keep: usize) -> Bytes {
        let mut released = Vec::new();
        while let Some(first) = self.held.front() {
            if self.held_length - first.len() < keep {
                break;
            }
            self.held_length -= first.len();
            released.extend(self.held.pop_front());
        }
        match released.len() {
            1 => released.swap_remove(0),
            _ => released.concat().into(),
        }
    }
}

enum Beginning {
    Compressed(Encoding),
    Plain,
    /// The first bytes of a compressed body, but too few to tell.
    Short,
}

/// gzip: RFC 1952, section 2.3.1, of which all use method 8. zstd: RFC 8878, sections 3.1.1 and 3.1.2. zlib: RFC 1950,
/// section 2.2, with the window of 32 KiB that all write.
fn sniff(first: &[u8]) -> Beginning {
    match first {
        [0x1f, 0x8b, 0x08, ..] => Beginning::Compressed(Encoding::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Beginning::Compressed(Encoding::Zstd)
        }
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Beginning::Compressed(Encoding::Deflate),
        []
        | [0x1f | 0x28 | 0x78 | 0x50..=0x5f]
        | [0x1f, 0x8b]
        | [0x28, 0xb5]
        | [0x28, 0xb5, 0x2f]
        | [0x50..=0x5f, 0x2a]
        | [0x50..=0x5f, 0x2a, 0x4d] => Beginning::Short,
        _ => Beginning::Plain,
    }
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside")
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

/// What is held back: a block of zstd is read as a whole and takes at most 128 KiB, and a secret may stand in two.
const HELD: usize = 256 * 1024;
/// How much is unpacked at once, so that little of what it unpacks to is held in memory.
const PIECE: usize = 4 * 1024;
/// What [`Depth::Beginning`] reads, unpacked.
const BEGINNING: u64 = 1024 * 1024;

#[cfg(test)]
mod tests;
