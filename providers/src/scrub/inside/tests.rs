use std::io::Write as _;

use super::*;

const KEY: &[u8] = b"sk_live_4eC39HqLyjWDarjtT1zdp7dc";

fn compress(format: &str, body: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match format {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        "zlib" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::encode_all(body, 3).unwrap(),
    }
}

const FORMATS: [&str; 3] = ["gzip", "zlib", "zstd"];

fn pass(depth: Depth, body: &[u8], chunk: usize) -> Result<Vec<u8>, InsideError> {
    let scrubber = Arc::new(Scrubber::new([KEY]));
    let mut inside = Inside::new(&scrubber, depth);
    let mut out = Vec::new();
    for chunk in body.chunks(chunk) {
        out.extend_from_slice(&inside.push(Bytes::copy_from_slice(chunk))?);
    }
    out.extend_from_slice(&inside.finish()?);
    Ok(out)
}

#[test]
fn a_compressed_body_without_the_secret_passes_unchanged() {
    let plain: Vec<u8> = (0..600_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect();
    for format in FORMATS {
        let body = compress(format, &plain);
        for depth in [Depth::Whole, Depth::Beginning] {
            assert_eq!(pass(depth, &body, 16_000).unwrap(), body, "{format}");
        }
        let small = compress(format, b"nothing to see");
        assert_eq!(pass(Depth::Whole, &small, 1).unwrap(), small, "{format}");
    }
}

#[test]
fn a_secret_inside_ends_the_body_before_a_byte_of_it_left() {
    for format in FORMATS {
        let body = compress(format, &[b"your key is ", KEY, b", keep it"].concat());
        for chunk in [1, 7, 1000] {
            let scrubber = Arc::new(Scrubber::new([KEY]));
            let mut inside = Inside::new(&scrubber, Depth::Beginning);
            let (mut sent, mut failed) = (0, false);
            for chunk in body.chunks(chunk) {
                match inside.push(Bytes::copy_from_slice(chunk)) {
                    Ok(passed) => sent += passed.len(),
                    Err(error) => {
                        assert_eq!(error, InsideError::Reflected);
                        failed = true;
                        break;
                    }
                }
            }
            assert!(failed || inside.finish() == Err(InsideError::Reflected));
            assert_eq!(sent, 0, "{format}");
        }
    }
}

#[test]
fn a_secret_before_garbage_or_a_missing_end_is_found() {
    for format in FORMATS {
        let body = compress(format, &[b"your key is ", KEY, b"."].concat());
        let garbage = [&body[..], b"garbage"].concat();
        for chunk in [1, 1000] {
            assert_eq!(
                pass(Depth::Whole, &garbage, chunk),
                Err(InsideError::Reflected),
                "{format}"
            );
        }
    }
    for format in ["gzip", "zlib"] {
        let body = compress(format, &[b"your key is ", KEY, b"."].concat());
        let cut = &body[..body.len() - 4];
        assert_eq!(
            pass(Depth::Whole, cut, 1000),
            Err(InsideError::Reflected),
            "{format}"
        );
    }
}

#[test]
fn what_only_begins_like_a_compressed_body_passes() {
    let bodies: [&[u8]; 8] = [
        b"x",
        b"x^2 + y^2 = z^2, as everybody knows since a long time ago",
        b"Plain text",
        b"P*M\x18",
        b"\x1f\x8b\x08 is how gzip begins",
        b"\x28\xb5\x2f\xfd is how zstd begins",
        b"\x1f",
        b"",
    ];
    for body in bodies {
        for chunk in [1, 2, 1000] {
            assert_eq!(pass(Depth::Whole, body, chunk).unwrap(), body);
        }
    }
}

#[test]
fn only_what_is_compressed_is_unpacked() {
    let scrubber = Arc::new(Scrubber::new([KEY]));
    let bodies = FORMATS.map(|format| (compress(format, b"nothing to see"), true));
    for (body, is_reading) in bodies
        .into_iter()
        .chain([(b"nothing to see".to_vec(), false)])
    {
        let mut inside = Inside::new(&scrubber, Depth::Whole);
        assert!(!inside.is_reading(), "nothing has come yet");
        inside.push(Bytes::copy_from_slice(&body[..10])).unwrap();
        assert_eq!(inside.is_reading(), is_reading, "{body:?}");
    }
}

#[test]
fn a_secret_before_a_mistake_is_found_too() {
    let text = [b"key: ".as_slice(), KEY].concat();
    let mut body = compress("gzip", &text);
    // The checksum behind the text (RFC 1952, section 2.3.1).
    let place = body.len() - 8;
    body[place] ^= 1;
    for depth in [Depth::Whole, Depth::Beginning] {
        for chunk in [1, body.len()] {
            let read = pass(depth, &body, chunk);
            assert_eq!(read, Err(InsideError::Reflected), "{depth:?} {chunk}");
        }
    }
}

#[test]
fn a_body_that_begins_otherwise_passes_without_a_copy() {
    let scrubber = Arc::new(Scrubber::new([KEY]));
    let mut inside = Inside::new(&scrubber, Depth::Whole);
    let chunk = Bytes::from_static(b"data: hello\n\n");
    assert_eq!(inside.push(chunk.clone()).unwrap().as_ptr(), chunk.as_ptr());
}

#[test]
fn a_bomb_is_refused_as_a_text_and_passes_as_a_download() {
    let bomb = compress("zstd", &vec![0; 64 << 20]);
    assert_eq!(
        pass(Depth::Whole, &bomb, 16_000),
        Err(InsideError::Unreadable(DecodeError::Ratio))
    );
    assert_eq!(pass(Depth::Beginning, &bomb, 16_000).unwrap(), bomb);
}

#[test]
fn no_more_than_the_window_is_held_back() {
    let plain: Vec<u8> = (0..600_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect();
    let body = compress("gzip", &plain);
    let scrubber = Arc::new(Scrubber::new([KEY]));
    let mut inside = Inside::new(&scrubber, Depth::Whole);
    let (mut taken, mut sent) = (0, 0);
    for chunk in body.chunks(16_000) {
        taken += chunk.len();
        sent += inside.push(Bytes::copy_from_slice(chunk)).unwrap().len();
        assert!(taken - sent <= HELD + 16_000);
    }
    assert!(sent > 0);
}
