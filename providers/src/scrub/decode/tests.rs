use super::*;

const ENCODINGS: [&str; 5] = ["gzip", "deflate", "raw", "br", "zstd"];

fn compress(encoding: &str, body: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match encoding {
        "gzip" => written(flate2::write::GzEncoder::new(Vec::new(), level), body)
            .finish()
            .unwrap(),
        "deflate" => written(flate2::write::ZlibEncoder::new(Vec::new(), level), body)
            .finish()
            .unwrap(),
        "raw" => written(flate2::write::DeflateEncoder::new(Vec::new(), level), body)
            .finish()
            .unwrap(),
        "br" => brotli_with_window(body, 22),
        "zstd" => zstd::encode_all(body, 3).unwrap(),
        other => panic!("{other}"),
    }
}

fn written<W: Write>(mut writer: W, body: &[u8]) -> W {
    writer.write_all(body).unwrap();
    writer
}

fn brotli_with_window(body: &[u8], log: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = brotli::CompressorWriter::new(&mut out, 4096, 5, log);
    w.write_all(body).unwrap();
    drop(w);
    out
}

fn decoder(encoding: &str) -> BodyDecoder {
    BodyDecoder::for_encoding(if encoding == "raw" {
        "deflate"
    } else {
        encoding
    })
    .unwrap()
    .unwrap()
}

fn decode(encoding: &str, compressed: &[u8], chunk: usize) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = decoder(encoding);
    let mut out = Vec::new();
    for chunk in compressed.chunks(chunk) {
        out.extend_from_slice(&decoder.push(chunk)?);
    }
    out.extend_from_slice(&decoder.finish()?);
    Ok(out)
}

fn body() -> Vec<u8> {
    (0..40_000_u32)
        .flat_map(|n| {
            (n.wrapping_mul(2_654_435_761) >> 20)
                .to_string()
                .into_bytes()
        })
        .collect()
}

#[test]
fn every_encoding_reads_back_whatever_the_chunks() {
    for encoding in ENCODINGS {
        for body in [body(), b"x".to_vec(), Vec::new()] {
            let compressed = compress(encoding, &body);
            for chunk in [1, 7, 4096, usize::MAX] {
                assert_eq!(
                    decode(encoding, &compressed, chunk).unwrap(),
                    body,
                    "{encoding} by {chunk}"
                );
            }
        }
    }
}

#[test]
fn what_was_flushed_passes_at_once() {
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    w.write_all(b"data: one\n\n").unwrap();
    w.flush().unwrap();
    assert_eq!(
        &decoder("gzip").push(w.get_ref()).unwrap()[..],
        b"data: one\n\n"
    );
}

#[test]
fn gzip_members_and_zstd_frames_in_a_row_are_one_body() {
    for encoding in ["gzip", "zstd"] {
        let both = [compress(encoding, b"one "), compress(encoding, b"two")].concat();
        assert_eq!(
            decode(encoding, &both, 3).unwrap(),
            b"one two",
            "{encoding}"
        );
    }
}

#[test]
fn a_body_that_is_cut_short_is_refused() {
    for encoding in ENCODINGS {
        let compressed = compress(encoding, &body());
        for kept in [1, compressed.len() / 2, compressed.len() - 1] {
            let error = decode(encoding, &compressed[..kept], 4096).unwrap_err();
            assert!(
                matches!(error, DecodeError::Corrupt(_)),
                "{encoding} to {kept}: {error:?}"
            );
        }
    }
}

#[test]
fn a_body_that_is_not_what_it_says_is_refused() {
    for encoding in ["gzip", "deflate", "br", "zstd"] {
        let error = decode(
            encoding,
            b"{\"plain\": \"json\", \"of\": [1, 2, 3, 4]}",
            4096,
        )
        .unwrap_err();
        assert!(
            matches!(error, DecodeError::Corrupt(_)),
            "{encoding}: {error:?}"
        );
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    for encoding in ENCODINGS {
        let mut compressed = compress(encoding, b"body");
        compressed.extend_from_slice(b"and more than that");
        assert!(decode(encoding, &compressed, 4096).is_err(), "{encoding}");
    }
}

#[test]
fn a_bomb_is_refused_and_a_high_ratio_in_a_small_body_is_not() {
    let zeros = vec![0; 64 * 1024 * 1024];
    for encoding in ["gzip", "br", "zstd"] {
        let compressed = compress(encoding, &zeros);
        // Deflate itself ends at 1032:1.
        assert_eq!(
            decode(encoding, &compressed, 4096).unwrap_err(),
            DecodeError::Ratio,
            "{encoding}"
        );
        let small = compress(encoding, &zeros[..1024 * 1024]);
        assert_eq!(
            decode(encoding, &small, 4096).unwrap().len(),
            1024 * 1024,
            "{encoding}"
        );
    }
}

#[test]
fn a_bomb_behind_an_honest_body_yields_no_more_than_a_part_may() {
    let honest: Vec<u8> = (0..1_000_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect();
    let body = [&honest[..], &vec![0; 64 * 1024 * 1024]].concat();
    for encoding in ["gzip", "br", "zstd"] {
        let compressed = compress(encoding, &body);
        let (front, bomb) = compressed.split_at(compress(encoding, &honest).len() - 1024);
        let mut decoder = decoder(encoding);
        for part in front.chunks(64 * 1024) {
            decoder.push(part).unwrap();
        }
        let (yielded, error) = decoder.decode(bomb);
        assert_eq!(error, Some(DecodeError::Ratio), "{encoding}");
        assert!(
            yielded.len() as u64 <= PART,
            "{encoding}: {}",
            yielded.len()
        );
        assert!(decoder.push(b"more").is_err(), "{encoding}");
    }
}

#[test]
fn a_window_over_8_mib_is_refused() {
    assert_eq!(
        decode("br", &brotli_with_window(&body(), 24), 4096).unwrap_err(),
        DecodeError::Window
    );
    assert!(decode("br", &brotli_with_window(&body(), 23), 4096).is_ok());
    let mut w = zstd::Encoder::new(Vec::new(), 1).unwrap();
    w.window_log(27).unwrap();
    w.write_all(&body()).unwrap();
    assert_eq!(
        decode("zstd", &w.finish().unwrap(), 4096).unwrap_err(),
        DecodeError::Window
    );
}

#[test]
fn identity_needs_no_decoder_and_unknown_or_stacked_encodings_are_refused() {
    for encoding in ["", "identity", " Identity ", "identity, identity"] {
        assert!(BodyDecoder::for_encoding(encoding).is_none(), "{encoding}");
    }
    assert!(BodyDecoder::for_encoding("X-GZIP").unwrap().is_ok());
    for encoding in ["compress", "gzip, br", "gzip,gzip", "x", "zstd;q=1"] {
        assert!(
            matches!(
                BodyDecoder::for_encoding(encoding),
                Some(Err(DecodeError::Unsupported(_)))
            ),
            "{encoding}"
        );
    }
}

#[test]
fn an_empty_body_is_none_and_a_finished_decoder_takes_nothing() {
    assert!(decoder("gzip").finish().unwrap().is_empty());
    let mut used = decoder("zstd");
    used.push(&compress("zstd", b"x")).unwrap();
    used.finish().unwrap();
    assert!(used.push(b"more").is_err());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(
        encoding in 0..4_usize,
        start in proptest::sample::select(vec![&b"\x1f\x8b\x08\x00"[..], b"\x28\xb5\x2f\xfd", b"\x78\x9c", b"\x0b", b""]),
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
    ) {
        let _ = decode(["gzip", "deflate", "br", "zstd"][encoding], &[start, &bytes].concat(), 64);
    }
}
