//! Takes injected secrets out of responses, in the encodings in which servers reflect them.
//!
//! Every byte that belongs to an occurrence is replaced by `*`, so that lengths stay and the result does not depend on
//! how a body was cut into chunks. The searcher knows only the first bytes of each spelling. Where they stand, the text
//! is read through its escapes and compared with the secret, which lies in memory that is zeroized.

mod decode;
mod escapes;
mod inside;
mod openings;
mod variants;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind, packed};
use bytes::Bytes;
use zeroize::{Zeroize as _, Zeroizing};

use escapes::Spelling;
use openings::Opening;
use variants::Variant;

pub use decode::{BodyDecoder, DecodeError};
pub use inside::{Depth, Inside, InsideError};

/// Finds the secrets that were injected, in every encoding that it knows. Thread-safe, opaque.
pub struct Scrubber {
    finder: Finder,
    variants: Vec<Variant>,
    /// Sorted.
    openings: Vec<Opening>,
    /// By opening: the places of the variants that a text may spell which begins so.
    by_opening: Vec<Vec<usize>>,
    longest: usize,
}

/// A body that is scrubbed as it streams.
pub struct ScrubStream {
    scrubber: Arc<Scrubber>,
    /// The end of what was pushed, which may begin a secret; as it came.
    held: Zeroizing<Vec<u8>>,
    /// How many bytes of `held` belong to a secret that began before it.
    masked: usize,
    reflections: usize,
}

enum Finder {
    Nothing,
    /// SIMD search (Teddy); it takes at most 64 patterns, and is several times faster than the automaton.
    Packed(packed::Searcher),
    Automaton(AhoCorasick),
}

/// What is known of a buffer.
struct Scan {
    /// The secrets that begin before `settled`.
    found: Vec<Range<usize>>,
    /// Where the first partial match begins that the next chunk may complete; else the length.
    settled: usize,
}

impl Scrubber {
    /// A scrubber of these values. What is shorter than [`SHORTEST`] bytes is left out: it would damage harmless bodies.
    ///
    /// # Panics
    /// Never: every variant of [`SHORTEST`] bytes is longer than what the search looks for.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let variants: Vec<Variant> = secrets
            .into_iter()
            .filter(|secret| secret.len() >= SHORTEST)
            .flat_map(variants::of)
            .collect();
        let mut by_opening: BTreeMap<Opening, Vec<usize>> = BTreeMap::new();
        for (place, variant) in variants.iter().enumerate() {
            for opening in openings::of(variant) {
                let bucket = by_opening.entry(opening).or_default();
                if bucket.last() != Some(&place) {
                    bucket.push(place);
                }
            }
        }
        let (openings, by_opening): (Vec<_>, Vec<_>) = by_opening.into_iter().unzip();
        let longest = variants.iter().map(Variant::longest).max().unwrap_or(0);
        Self {
            finder: Finder::new(&openings),
            variants,
            openings,
            by_opening,
            longest,
        }
    }

    /// Whether it looks for nothing.
    pub fn is_empty(&self) -> bool {
        self.variants.is_empty()
    }

    /// The length of the longest spelling in bytes: 25 for each byte of a secret, as `&amp;#x0000073;` behind a break
    /// between two fields of an event. A stream holds back less than that.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The value with every secret in it replaced by as many `*`; `None` if it holds none.
    pub fn header(&self, value: &[u8]) -> Option<Vec<u8>> {
        // No variant is shorter than its secret, and most values of headers are.
        if value.len() < SHORTEST {
            return None;
        }
        let found = self.scan(value, End::Final).found;
        (!found.is_empty()).then(|| {
            let mut scrubbed = value.to_vec();
            mask(&mut scrubbed, &found);
            scrubbed
        })
    }

    /// Whether a header's name holds a secret. Names come in any case.
    pub fn is_in_name(&self, name: &[u8]) -> bool {
        self.variants.iter().any(|variant| {
            name.windows(variant.bytes.len())
                .any(|window| window.eq_ignore_ascii_case(&variant.bytes))
        })
    }

    /// Starts a body.
    pub fn stream(self: &Arc<Self>) -> ScrubStream {
        ScrubStream {
            scrubber: Arc::clone(self),
            held: Zeroizing::default(),
            masked: 0,
            reflections: 0,
        }
    }

    fn scan(&self, buffer: &[u8], end: End) -> Scan {
        let mut scan = Scan {
            found: Vec::new(),
            settled: buffer.len(),
        };
        let mut from = 0;
        while let Some((index, at)) = self.finder.find(buffer, from) {
            self.compare(buffer, index, at, end, &mut scan);
            if at > scan.settled {
                break;
            }
            from = at + 1;
        }
        if let End::Open = end {
            let last = buffer.len().saturating_sub(openings::LENGTH - 1);
            let tail = (last..buffer.len()).find(|&at| self.may_open(&buffer[at..]));
            scan.settled = scan.settled.min(tail.unwrap_or(buffer.len()));
        }
        scan.found.retain(|range| range.start < scan.settled);
        scan
    }

    /// Whether an opening begins with `tail`, which is shorter than one.
    fn may_open(&self, tail: &[u8]) -> bool {
        let place = self
            .openings
            .partition_point(|opening| &opening[..tail.len()] < tail);
        self.openings
            .get(place)
            .is_some_and(|opening| opening.starts_with(tail))
    }

    /// Compares what follows `at` with the variants that have an opening.
    fn compare(&self, buffer: &[u8], index: usize, at: usize, end: End, scan: &mut Scan) {
        let mut longest = 0;
        for variant in self.by_opening[index]
            .iter()
            .map(|&place| &self.variants[place])
        {
            for escapes in variant.escapes {
                match escapes.read(&variant.bytes, &buffer[at..], end) {
                    Spelling::Whole(length) => longest = longest.max(length),
                    Spelling::Beginning => scan.settled = scan.settled.min(at),
                    Spelling::Other => {}
                }
            }
        }
        if longest > 0 {
            scan.found.push(at..at + longest);
        }
    }
}

impl ScrubStream {
    /// Takes the next chunk and returns what can be sent now: all of it, unless its end may begin a secret.
    /// Lengths stay: a secret is replaced by as many `*`. A chunk without a secret passes without a copy.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.scrubber.is_empty() || chunk.is_empty() {
            return chunk;
        }
        if !self.held.is_empty() {
            let mut buffer = std::mem::take(&mut *self.held);
            buffer.extend_from_slice(&chunk);
            return self.settle(buffer, End::Open);
        }
        let scan = self.scrubber.scan(&chunk, End::Open);
        if scan.found.is_empty() {
            self.held.extend_from_slice(&chunk[scan.settled..]);
            return chunk.slice(..scan.settled);
        }
        self.settle(chunk.to_vec(), End::Open)
    }

    /// The rest, at the end of the body.
    pub fn finish(&mut self) -> Bytes {
        let buffer = std::mem::take(&mut *self.held);
        self.settle(buffer, End::Final)
    }

    /// How many secrets were found so far.
    pub fn reflections(&self) -> usize {
        self.reflections
    }

    /// Masks what is found in the buffer, keeps its unsettled end and returns the rest.
    fn settle(&mut self, mut buffer: Vec<u8>, end: End) -> Bytes {
        let Scan { found, settled } = self.scrubber.scan(&buffer, end);
        self.reflections += found.len();
        self.held.extend_from_slice(&buffer[settled..]);
        let masked_to = found
            .iter()
            .map(|range| range.end)
            .max()
            .unwrap_or(0)
            .max(self.masked);
        let earlier = 0..self.masked.min(buffer.len());
        mask(&mut buffer, &found);
        mask(&mut buffer, &[earlier]);
        self.masked = masked_to.saturating_sub(settled);
        // What is held is not masked yet, so no second copy of it stays behind.
        buffer[settled..].zeroize();
        buffer.truncate(settled);
        buffer.into()
    }
}

impl Finder {
    fn new(openings: &[Opening]) -> Self {
        if openings.is_empty() {
            return Self::Nothing;
        }
        // `None` where the processor has no vector instructions for it, or there are too many patterns.
        if let Some(searcher) = packed::Config::new().builder().extend(openings).build() {
            return Self::Packed(searcher);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .build(openings);
        Self::Automaton(automaton.expect("a few short patterns fit an automaton"))
    }

    /// The first opening at or after `from`, and where it begins.
    fn find(&self, buffer: &[u8], from: usize) -> Option<(usize, usize)> {
        if from >= buffer.len() {
            return None;
        }
        let found = match self {
            Self::Nothing => None,
            Self::Packed(searcher) => searcher.find_in(buffer, (from..buffer.len()).into()),
            Self::Automaton(automaton) => {
                automaton.find(aho_corasick::Input::new(buffer).range(from..))
            }
        };
        found.map(|found| (found.pattern().as_usize(), found.start()))
    }
}

/// Whether more of the body may follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Final,
}

fn mask(buffer: &mut [u8], ranges: &[Range<usize>]) {
    for range in ranges {
        buffer[range.clone()].fill(b'*');
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber")
            .field("variants", &self.variants.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ScrubStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScrubStream")
            .field("reflections", &self.reflections)
            .finish_non_exhaustive()
    }
}

/// The shortest value that is looked for, in bytes.
pub const SHORTEST: usize = 16;

#[cfg(test)]
mod tests;
