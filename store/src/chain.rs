//! The hash chain's arithmetic: positions, links, and the heads that its writers hold in memory.

use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Bits of a position that count records; those above number the stream.
const SEQ_BITS: u32 = 40;

/// The end of a chain: how many records it has and the last one's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) seq: u64,
    pub(crate) hash: [u8; 32],
}

impl Link {
    /// Of a chain without records.
    pub(crate) const START: Self = Self {
        seq: 0,
        hash: [0; 32],
    };

    /// The link after this one, whose record is `body`.
    pub(crate) fn next(&self, body: &str) -> Self {
        Self {
            seq: self.seq + 1,
            hash: hash(&self.hash, body),
        }
    }
}

/// `SHA-256(prev_hash || body)`.
pub(crate) fn hash(prev: &[u8], body: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(prev)
        .chain_update(body)
        .finalize()
        .into()
}

/// A stream: its name and the number that its records' positions begin with.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) number: i64,
    pub(crate) name: Arc<str>,
}

impl Stream {
    /// Where the record `seq` lies.
    pub(crate) fn position(&self, seq: u64) -> i64 {
        (self.number << SEQ_BITS) | seq.cast_signed()
    }

    /// The place in the chain of the record at `position`.
    pub(crate) fn seq(position: i64) -> u64 {
        (position & ((1 << SEQ_BITS) - 1)).cast_unsigned()
    }

    /// The number of the stream whose record lies at `position`.
    pub(crate) const fn number_of(position: i64) -> i64 {
        position >> SEQ_BITS
    }

    /// Whether a record at `position` is one of this stream.
    pub(crate) const fn holds(&self, position: i64) -> bool {
        Self::number_of(position) == self.number
    }

    /// Just below the first record.
    pub(crate) fn floor(&self) -> i64 {
        self.position(0)
    }

    /// Just above the last possible record.
    pub(crate) const fn ceiling(&self) -> i64 {
        (self.number + 1) << SEQ_BITS
    }
}

/// The heads of this process's streams, as their writers last committed them.
///
/// Verification and the checkpoint read them here and never from the table, whose tail anyone
/// with the file could cut.
#[derive(Debug)]
pub(crate) struct Heads {
    pub(crate) control: Head,
    pub(crate) ledger: Head,
}

/// One stream and its head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) stream: Stream,
    link: Mutex<Link>,
}

impl Head {
    pub(crate) const fn new(stream: Stream, link: Link) -> Self {
        Self {
            stream,
            link: Mutex::new(link),
        }
    }

    pub(crate) fn get(&self) -> Link {
        *self.link.lock()
    }

    pub(crate) fn set(&self, link: Link) {
        *self.link.lock() = link;
    }
}

impl Heads {
    pub(crate) fn each(&self) -> [&Head; 2] {
        [&self.control, &self.ledger]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_gives_stream_and_seq_back() {
        let stream = Stream {
            number: 3,
            name: "n/ledger".into(),
        };
        let position = stream.position(77);
        assert_eq!(Stream::seq(position), 77);
        assert!(stream.floor() < position && position < stream.ceiling());
    }

    #[test]
    fn every_record_changes_the_hash_of_all_that_follow() {
        let one = Link::START.next("a").next("b");
        let other = Link::START.next("A").next("b");
        assert_eq!(one.seq, 2);
        assert_ne!(one.hash, other.hash);
    }
}
