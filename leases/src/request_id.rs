//! The id of one request, as answers, logs and the audit trail name it.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use time::OffsetDateTime;
use ulid::Ulid;

/// A fresh request id, for either plane: a UUID whose first 48 bits are the time in milliseconds, so that ids sort by time.
///
/// It opens nothing, so it spares the operating system's random bytes: a keyed hash of a counter is unique and not to be
/// guessed. Spec: version 8 of a UUID, RFC 9562 section 5.8.
pub fn request_id(now: OffsetDateTime) -> String {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random = u128::from(SEED.hash_one(count)) << 16 | u128::from(count & 0xffff);
    let milliseconds = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    let value = Ulid::from_parts(milliseconds, random).0;
    // The bits of version and variant.
    let value = value & !(0xf000 << 64) & !(0b11 << 62) | (0x8000 << 64) | (0b10 << 62);
    hyphenated(value)
}

/// The 8-4-4-4-12 form of RFC 9562 section 4.
fn hyphenated(value: u128) -> String {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(36);
    for (index, byte) in value.to_be_bytes().into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_has_the_form_of_a_uuid() {
        let text = hyphenated(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(text, "01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn request_ids_begin_with_their_time_in_milliseconds() {
        let now = time::macros::datetime!(2026-11-22 12:00:00.123 UTC);
        let milliseconds = now.unix_timestamp() * 1_000 + 123;
        let begun = request_id(now)[..13].replace('-', "");
        assert_eq!(begun, format!("{milliseconds:012x}"));
    }

    #[test]
    fn request_ids_are_uuids_and_differ() {
        let now = time::macros::datetime!(2026-11-22 12:00 UTC);
        let (one, other) = (request_id(now), request_id(now));
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'8');
    }
}
