use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use proptest::prelude::*;

use super::*;

const KEY: &[u8] = b"sk-clv/Canary+9=\"<&'>\\x_0123456789";

fn scrubber(secrets: &[&[u8]]) -> Arc<Scrubber> {
    Arc::new(Scrubber::new(secrets.iter().copied()))
}

fn stream(scrubber: &Arc<Scrubber>, chunks: &[&[u8]]) -> Vec<u8> {
    let mut stream = scrubber.stream();
    let mut out: Vec<u8> = chunks
        .iter()
        .flat_map(|chunk| stream.push(Bytes::copy_from_slice(chunk)))
        .collect();
    out.extend_from_slice(&stream.finish());
    out
}

/// What the scrubber must do, without its search: every byte of every occurrence of every variant.
fn oracle(secrets: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut out = body.to_vec();
    for variant in secrets.iter().flat_map(|secret| variants::of(secret)) {
        for at in 0..body.len() {
            if body[at..].starts_with(&variant) {
                out[at..at + variant.len()].fill(b'*');
            }
        }
    }
    out
}

#[test]
fn a_reflected_secret_is_replaced_and_the_length_stays() {
    let scrubber = scrubber(&[KEY]);
    let body = [b"{\"authorization\": \"Bearer ", KEY, b"\"}"].concat();
    let clean = scrubber.header(&body).unwrap();
    assert_eq!(clean.len(), body.len());
    assert_eq!(
        clean,
        [
            b"{\"authorization\": \"Bearer ",
            &vec![b'*'; KEY.len()][..],
            b"\"}"
        ]
        .concat()
    );
    assert_eq!(scrubber.header(b"nothing to see"), None);
}

/// What usual encoders make of [`KEY`].
fn encodings() -> Vec<(&'static str, Vec<u8>)> {
    let text = std::str::from_utf8(KEY).unwrap();
    vec![
        ("raw", KEY.to_vec()),
        ("reversed", KEY.iter().rev().copied().collect()),
        ("hex", hex::encode(KEY).into_bytes()),
        ("HEX", hex::encode_upper(KEY).into_bytes()),
        (
            "json",
            serde_json::to_string(text)
                .unwrap()
                .trim_matches('"')
                .into(),
        ),
        (
            "json of PHP",
            serde_json::to_string(text)
                .unwrap()
                .trim_matches('"')
                .replace('/', "\\/")
                .into(),
        ),
        (
            "json of Go",
            br#"sk-clv/Canary+9=\"\u003c\u0026'\u003e\\x_0123456789"#.to_vec(),
        ),
        (
            "json of .NET",
            br"sk-clv/Canary\u002B9=\u0022\u003C\u0026\u0027\u003E\\x_0123456789".to_vec(),
        ),
        (
            "html of Python",
            b"sk-clv/Canary+9=&quot;&lt;&amp;&#x27;&gt;\\x_0123456789".to_vec(),
        ),
        (
            "html of Go",
            b"sk-clv/Canary+9=&#34;&lt;&amp;&#39;&gt;\\x_0123456789".to_vec(),
        ),
        (
            "html of Mustache",
            b"sk-clv&#x2F;Canary+9&#x3D;&quot;&lt;&amp;&#39;&gt;\\x_0123456789".to_vec(),
        ),
        (
            "html decimal",
            KEY.iter()
                .flat_map(|b| format!("&#{b};").into_bytes())
                .collect(),
        ),
        (
            "html hex",
            KEY.iter()
                .flat_map(|b| format!("&#x{b:x};").into_bytes())
                .collect(),
        ),
        (
            "unicode escapes",
            KEY.iter()
                .flat_map(|b| format!("\\u00{b:02x}").into_bytes())
                .collect(),
        ),
        (
            "percent",
            b"sk-clv%2FCanary%2B9%3D%22%3C%26%27%3E%5Cx_0123456789".to_vec(),
        ),
        (
            "percent of JavaScript",
            b"sk-clv%2FCanary%2B9%3D%22%3C%26'%3E%5Cx_0123456789".to_vec(),
        ),
        (
            "percent lower",
            b"sk-clv%2fCanary%2b9%3d%22%3c%26%27%3e%5cx_0123456789".to_vec(),
        ),
        (
            "percent double",
            b"sk-clv%252FCanary%252B9%253D%2522%253C%2526%2527%253E%255Cx_0123456789".to_vec(),
        ),
        (
            "percent of every byte",
            KEY.iter()
                .flat_map(|b| format!("%{b:02X}").into_bytes())
                .collect(),
        ),
        (
            "quoted-printable",
            b"sk-clv/Canary+9=3D\"<&'>\\x_0123456789".to_vec(),
        ),
        (
            "utf-16le",
            text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        ),
        (
            "utf-16be",
            text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        ),
    ]
}

#[test]
fn every_usual_encoding_is_found() {
    let scrubber = scrubber(&[KEY]);
    for (name, encoded) in encodings() {
        let clean = scrubber
            .header(&[b"a ", &encoded[..], b" b"].concat())
            .unwrap_or_else(|| panic!("{name}"));
        let left = clean
            .iter()
            .filter(|byte| ![b'*', 0].contains(byte))
            .count();
        assert_eq!(left, 4, "{name}: {}", String::from_utf8_lossy(&clean));
    }
}

#[test]
fn base64_is_found_at_every_alignment_and_in_both_alphabets() {
    let scrubber = scrubber(&[KEY]);
    for before in ["", "u", "us", "use", "x-access-token:"] {
        for after in ["", "z", "zz"] {
            let input = [before.as_bytes(), KEY, after.as_bytes()].concat();
            for encoded in [
                STANDARD.encode(&input),
                STANDARD_NO_PAD.encode(&input),
                URL_SAFE.encode(&input),
            ] {
                let clean = String::from_utf8(scrubber.header(encoded.as_bytes()).expect(&encoded))
                    .unwrap();
                let stars = clean.matches('*').count();
                assert!(stars >= KEY.len() * 8 / 6 - 3, "{before} {after}: {clean}");
            }
        }
    }
}

#[test]
fn a_short_value_is_left_alone() {
    let scrubber = scrubber(&[b"fifteen-bytes-x"]);
    assert!(scrubber.is_empty());
    assert_eq!(scrubber.header(b"fifteen-bytes-x"), None);
    assert_eq!(
        stream(&scrubber, &[b"fifteen-", b"bytes-x"]),
        b"fifteen-bytes-x"
    );
}

#[test]
fn a_part_of_a_secret_is_left_alone() {
    let scrubber = scrubber(&[KEY]);
    assert_eq!(scrubber.header(&KEY[..KEY.len() - 1]), None);
    assert_eq!(
        stream(&scrubber, &[&KEY[..KEY.len() - 1]]),
        &KEY[..KEY.len() - 1]
    );
}

#[test]
fn a_secret_is_found_when_it_is_cut_anywhere() {
    let scrubber = scrubber(&[KEY]);
    let body = [b"data: ", KEY, b"\n\n"].concat();
    for cut in 0..body.len() {
        let out = stream(&scrubber, &[&body[..cut], &body[cut..]]);
        assert_eq!(out, oracle(&[KEY], &body), "cut at {cut}");
    }
    let bytes: Vec<&[u8]> = body.chunks(1).collect();
    assert_eq!(stream(&scrubber, &bytes), oracle(&[KEY], &body));
}

#[test]
fn a_chunk_without_a_secret_passes_without_a_copy() {
    let mut stream = scrubber(&[KEY]).stream();
    let chunk = Bytes::from_static(b"data: {\"delta\": \"Hello\"}\n\n");
    let passed = stream.push(chunk.clone());
    assert_eq!(passed.as_ptr(), chunk.as_ptr());
    assert_eq!(passed, chunk);
    assert!(stream.finish().is_empty());
    assert_eq!(stream.reflections(), 0);
}

#[test]
fn only_what_may_begin_a_secret_is_held_back() {
    let mut stream = scrubber(&[KEY]).stream();
    assert_eq!(
        &stream.push(Bytes::from_static(b"Bearer sk-clv/Can"))[..],
        b"Bearer "
    );
    assert_eq!(
        &stream.push(Bytes::from_static(b"nery"))[..],
        b"sk-clv/Cannery"
    );
    assert_eq!(stream.reflections(), 0);
    assert_eq!(&stream.push(Bytes::from_static(b"sk"))[..], b"");
    assert_eq!(&stream.finish()[..], b"sk");
}

#[test]
fn reflections_are_counted_once() {
    let mut stream = scrubber(&[KEY]).stream();
    for part in [&KEY[..9], &KEY[9..], b" and ", KEY, b"."] {
        stream.push(Bytes::copy_from_slice(part));
    }
    stream.finish();
    assert_eq!(stream.reflections(), 2);
}

#[test]
fn debug_shows_nothing_of_a_secret() {
    let scrubber = scrubber(&[KEY]);
    let mut stream = scrubber.stream();
    stream.push(Bytes::copy_from_slice(&KEY[..20]));
    for text in [format!("{scrubber:?}"), format!("{stream:?}")] {
        assert!(!text.contains("sk-clv") && !text.contains("115"), "{text}");
    }
}

#[test]
fn a_usual_set_fits_the_vector_search() {
    let keys: [&[u8]; 2] = [
        b"0123456789abcdef0123456789abcdef",
        b"fedcba9876543210fedcba9876543210fedcba98",
    ];
    let scrubber = scrubber(&keys);
    assert!(scrubber.prefixes.len() <= 64, "{}", scrubber.prefixes.len());
    if cfg!(all(target_arch = "x86_64", target_feature = "sse2"))
        && std::arch::is_x86_feature_detected!("ssse3")
    {
        assert!(matches!(scrubber.finder, Finder::Packed(_)));
    }
}

#[test]
fn many_secrets_are_found_too() {
    let keys: Vec<String> = (0..40)
        .map(|n| format!("{n:02}-secret-of-a-large-set"))
        .collect();
    let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    let scrubber = scrubber(&keys);
    let body = keys.join(&b"; "[..]);
    assert_eq!(stream(&scrubber, &[&body]), oracle(&keys, &body));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Secrets of two letters overlap themselves and each other in every way.
    #[test]
    fn a_stream_equals_the_whole_however_it_is_cut(
        secrets in prop::collection::vec("[ab]{16,18}", 1..3),
        pieces in prop::collection::vec((0..6_usize, "[ab]{0,20}"), 0..8),
        cuts in prop::collection::vec(1..40_usize, 1..60),
    ) {
        let secrets: Vec<&[u8]> = secrets.iter().map(String::as_bytes).collect();
        let mut body = Vec::new();
        for (choice, filler) in &pieces {
            let variants = variants::of(secrets[choice % secrets.len()]);
            let variant = &variants[choice * 3 % variants.len()];
            body.extend_from_slice(variant);
            if choice % 2 == 0 {
                body.extend_from_slice(filler.as_bytes());
            } else {
                body.extend_from_slice(&variant[..variant.len() / 2]);
            }
        }
        let scrubber = scrubber(&secrets);
        let mut stream = scrubber.stream();
        let (mut out, mut rest, mut taken) = (Vec::new(), &body[..], 0);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            out.extend_from_slice(&stream.push(Bytes::copy_from_slice(chunk)));
            taken += chunk.len();
            prop_assert!(taken - out.len() < scrubber.longest());
            rest = after;
        }
        out.extend_from_slice(&stream.finish());
        prop_assert_eq!(out, oracle(&secrets, &body));
    }

    #[test]
    fn anything_that_holds_no_variant_passes_unchanged(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(stream(&scrubber(&[KEY]), &chunks), chunks.concat());
    }
}
