//! However a body is cut, the stream gives what the whole would give, at the same length and without the secret.
#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use providers::Scrubber;

const SECRET: &[u8] = b"abababab/\"<&abab";

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (body, cuts) = input;
    // The secret stands where the input says 0xff, so that the fuzzer need not spell it.
    let body: Vec<u8> =
        body.iter().flat_map(|byte| if *byte == 0xff { SECRET.to_vec() } else { vec![*byte] }).collect();
    let scrubber = Arc::new(Scrubber::new([SECRET]));
    let whole = scrubber.header(&body).unwrap_or_else(|| body.clone());
    assert!(!whole.windows(SECRET.len()).any(|window| window == SECRET));

    let mut stream = scrubber.stream();
    let (mut out, mut rest, mut taken) = (Vec::new(), &body[..], 0);
    for cut in cuts.iter().chain(std::iter::repeat(&255)) {
        if rest.is_empty() {
            break;
        }
        let (chunk, after) = rest.split_at((usize::from(*cut) + 1).min(rest.len()));
        out.extend_from_slice(&stream.push(Bytes::copy_from_slice(chunk)));
        taken += chunk.len();
        assert!(taken - out.len() < scrubber.longest());
        rest = after;
    }
    out.extend_from_slice(&stream.finish());
    assert_eq!(out, whole);
});
