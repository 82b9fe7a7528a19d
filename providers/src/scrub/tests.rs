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

/// What the scrubber must do, without its search: every byte of every spelling of every variant. A spelling whose first
/// four bytes are written in two ways at once is no encoder's, and is not looked for.
fn oracle(secrets: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut out = body.to_vec();
    for variant in secrets.iter().flat_map(|secret| variants::of(secret)) {
        let openings = openings::of(&variant);
        let begins = |at: &usize| {
            openings
                .iter()
                .any(|opening| body[*at..].starts_with(opening))
        };
        for at in (0..body.len()).filter(begins) {
            for escapes in variant.escapes {
                let spelling = escapes.read(&variant.bytes, &body[at..], End::Final);
                if let Spelling::Whole(length) = spelling {
                    out[at..at + length].fill(b'*');
                }
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
#[expect(clippy::too_many_lines, reason = "a table")]
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
            "double percent of every byte",
            each_byte(|b| format!("%25{b:02x}")),
        ),
        (
            "DOUBLE percent of every byte",
            each_byte(|b| format!("%25{b:02X}")),
        ),
        (
            "percent of every byte of percent",
            each_byte(|b| {
                format!("%{b:02X}")
                    .bytes()
                    .map(|b| format!("%{b:02x}"))
                    .collect::<Vec<_>>()
                    .concat()
            }),
        ),
        (
            "triple percent of what is reserved",
            specials(|b| format!("%2525{b:02X}")),
        ),
        ("html without semicolons", each_byte(|b| format!("&#{b}"))),
        ("html capital X", each_byte(|b| format!("&#X{b:X};"))),
        ("html padded", each_byte(|b| format!("&#{b:05};"))),
        ("html hex padded", each_byte(|b| format!("&#x{b:06x};"))),
        ("html escaped twice", each_byte(|b| format!("&amp;#x{b:x};"))),
        (
            "html by names",
            b"sk&hyphen;clv&sol;Canary&plus;9&equals;&quot;&lt;&amp;&apos;&gt;&bsol;x&lowbar;0123456789"
                .to_vec(),
        ),
        (
            "html by names, once more",
            b"sk&amp;dash;clv&amp;sol;Canary&amp;plus;9&amp;equals;&amp;quot;&amp;lt;&amp;amp;&amp;apos;&amp;gt;&amp;bsol;x&amp;UnderBar;0123456789"
                .to_vec(),
        ),
        ("UNICODE escapes", each_byte(|b| format!("\\u00{b:02X}"))),
        (
            "unicode escapes in a JSON string of JSON",
            each_byte(|b| format!("\\\\u00{b:02x}")),
        ),
        ("hex escapes", each_byte(|b| format!("\\x{b:02x}"))),
        (
            "JSON in a string of JSON",
            br#"sk-clv\\/Canary+9=\\\"<&'>\\\\x_0123456789"#.to_vec(),
        ),
        ("quoted-printable of all", each_byte(|b| format!("={b:02X}"))),
        (
            "quoted-printable of all in lower case",
            each_byte(|b| format!("={b:02x}")),
        ),
        (
            "quoted-printable of what is special",
            specials(|b| format!("={b:02X}")),
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

fn each_byte(spell: impl Fn(u8) -> String) -> Vec<u8> {
    KEY.iter().flat_map(|&b| spell(b).into_bytes()).collect()
}

fn specials(spell: impl Fn(u8) -> String) -> Vec<u8> {
    let spelled = |&b: &u8| {
        if b.is_ascii_alphanumeric() {
            vec![b]
        } else {
            spell(b).into_bytes()
        }
    };
    KEY.iter().flat_map(spelled).collect()
}

#[test]
fn every_encoding_is_found_when_it_is_cut_anywhere() {
    let scrubber = scrubber(&[KEY]);
    for (name, encoded) in encodings() {
        let body = [b"a ", &encoded[..], b" b"].concat();
        let whole = scrubber.header(&body).expect(name);
        for cut in 0..body.len() {
            let out = stream(&scrubber, &[&body[..cut], &body[cut..]]);
            assert_eq!(out, whole, "{name} cut at {cut}");
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(stream(&scrubber, &bytes), whole, "{name} byte by byte");
    }
}

#[test]
fn a_soft_line_break_anywhere_in_the_secret_is_read_over() {
    for key in [KEY, b"abcdefghij0123456789"] {
        let scrubber = scrubber(&[key]);
        for ending in ["=\n", "=\r\n"] {
            for place in 1..key.len() {
                let broken = [&key[..place], ending.as_bytes(), &key[place..]].concat();
                let escaped = String::from_utf8(broken).unwrap().replace("9=\"", "9=3D\"");
                let clean = scrubber.header(escaped.as_bytes()).unwrap();
                assert!(
                    clean.iter().all(|&byte| byte == b'*'),
                    "{place}: {}",
                    String::from_utf8_lossy(&clean)
                );
            }
        }
    }
}

#[test]
fn a_secret_in_two_data_fields_of_events_is_found() {
    let scrubber = scrubber(&[KEY]);
    for between in [
        "\ndata: ",
        "\ndata:",
        "\r\ndata: ",
        "\n\ndata: ",
        "\r\n\r\ndata: ",
    ] {
        for place in 4..KEY.len() {
            let body = [
                b"data: ",
                &KEY[..place],
                between.as_bytes(),
                &KEY[place..],
                b"\n\n",
            ]
            .concat();
            let whole = scrubber.header(&body).expect(between);
            assert_eq!(&whole[..6], b"data: ");
            assert!(
                whole[6..body.len() - 2].iter().all(|&byte| byte == b'*'),
                "{between:?} {place}"
            );
            let bytes: Vec<&[u8]> = body.chunks(1).collect();
            assert_eq!(stream(&scrubber, &bytes), whole);
        }
    }
}

#[test]
fn an_event_does_not_wait_for_the_next_one() {
    let scrubber = scrubber(&[KEY]);
    for event in [
        "data: yes\n\n",
        "data: sk\n\n",
        "data: 100%\n\n",
        "data: a \\\n\n",
    ] {
        let mut stream = scrubber.stream();
        assert_eq!(
            &stream.push(Bytes::from_static(event.as_bytes()))[..],
            event.as_bytes()
        );
    }
}

#[test]
fn what_encodes_another_value_is_left_alone() {
    let scrubber = scrubber(&[KEY]);
    let last = KEY.len() - 1;
    for (name, mut encoded) in encodings() {
        encoded.truncate(encoded.len() - 11);
        assert_eq!(scrubber.header(&encoded), None, "{name}");
    }
    let other = [&KEY[..last], b"8"].concat();
    assert_eq!(scrubber.header(&other), None);
}

#[test]
fn escapes_of_encoded_secrets_are_read_too() {
    let key = b"\xfb\xff\xbe?>~ab0123456789?>?>".as_slice();
    let scrubber = scrubber(&[key]);
    let text = STANDARD.encode(key);
    assert!(text.contains('/') && text.contains('+'));
    for escaped in [
        text.replace('/', "\\/"),
        text.replace('+', "%2B").replace('/', "%2F"),
        text.replace('+', "%2b").replace('/', "%2f"),
        text.replace('/', "&#x2F;"),
    ] {
        let clean = scrubber.header(escaped.as_bytes()).expect(&escaped);
        assert!(clean.iter().filter(|&&byte| byte != b'*').count() < 4);
    }
}

#[test]
fn a_name_that_holds_the_secret_is_known_in_any_case() {
    let key = b"sk_live_4eC39HqLyjWDarjtT1zdp7dc";
    let scrubber = scrubber(&[key]);
    let text = std::str::from_utf8(key).unwrap();
    for name in [
        format!("x-{text}"),
        format!("X-{}-own", text.to_ascii_uppercase()),
        format!("x-{}", text.to_ascii_lowercase()),
        format!("x-{}", hex::encode(key)),
        STANDARD_NO_PAD.encode(key),
    ] {
        assert!(scrubber.is_in_name(name.as_bytes()), "{name}");
    }
    assert!(!scrubber.is_in_name(b"access-control-allow-credentials"));
    assert!(!scrubber.is_in_name(&text.as_bytes()[1..]));
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
    let sets: [&[&[u8]]; 3] = [
        &[
            b"0123456789abcdef0123456789abcdef",
            b"fedcba9876543210fedcba9876543210fedcba98",
        ],
        &[b"sk_live_4eC39HqLyjWDarjtT1zdp7dc"],
        &[b"sk-proj-abcdefghijklmnopqrstuvwxyz0123456789"],
    ];
    for keys in sets {
        let scrubber = scrubber(keys);
        assert!(scrubber.openings.len() <= 64, "{}", scrubber.openings.len());
        if cfg!(all(target_arch = "x86_64", target_feature = "sse2"))
            && std::arch::is_x86_feature_detected!("ssse3")
        {
            assert!(matches!(scrubber.finder, Finder::Packed(_)));
        }
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

/// How many [`spellings`] there are.
const SPELLINGS: usize = 9;

fn spellings(secret: &[u8]) -> [Vec<u8>; SPELLINGS] {
    let each = |spell: &dyn Fn(u8) -> String| -> Vec<u8> {
        secret.iter().flat_map(|&b| spell(b).into_bytes()).collect()
    };
    [
        secret.to_vec(),
        each(&|b| format!("%{b:02x}")),
        each(&|b| format!("%25{b:02X}")),
        each(&|b| format!("&#{b};")),
        each(&|b| format!("={b:02X}")),
        each(&|b| format!("\\u00{b:02x}")),
        hex::encode(secret).into_bytes(),
        STANDARD.encode(secret).into_bytes(),
        [&secret[..9], b"=\r\n", &secret[9..]].concat(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Secrets of two letters overlap themselves and each other in every way.
    #[test]
    fn a_stream_equals_the_whole_however_it_is_cut(
        secrets in prop::collection::vec("[ab]{16,18}", 1..3),
        pieces in prop::collection::vec((0..SPELLINGS, "[ab]{0,20}"), 0..8),
        cuts in prop::collection::vec(1..40_usize, 1..60),
    ) {
        let secrets: Vec<&[u8]> = secrets.iter().map(String::as_bytes).collect();
        let mut body = Vec::new();
        for (choice, filler) in &pieces {
            let variant = &spellings(secrets[choice % secrets.len()])[*choice];
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
        prop_assert_eq!(&out, &scrubber.header(&body).unwrap_or_else(|| body.clone()));
        prop_assert_eq!(out, oracle(&secrets, &body));
    }

    #[test]
    fn anything_that_holds_no_variant_passes_unchanged(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
        let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(stream(&scrubber(&[KEY]), &chunks), chunks.concat());
    }
}
