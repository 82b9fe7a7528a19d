use http::HeaderValue;
use proptest::prelude::*;

use super::*;

/// The key and the time of the documentation's worked examples.
fn signer(seed: &str) -> ChunkSigner {
    let time = time::macros::datetime!(2013-05-24 00:00:00 UTC);
    let derived = aws_sigv4::sign::v4::generate_signing_key(
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        time.into(),
        "us-east-1",
        "s3",
    );
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(derived.as_ref());
    ChunkSigner {
        key,
        date_time: "20130524T000000Z".to_owned(),
        scope: "20130524/us-east-1/s3/aws4_request".to_owned(),
        previous: seed.to_owned(),
    }
}

const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
const TRAILER_SEED: &str = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
const CRC32C: &str = "x-amz-checksum-crc32c";

fn declared(form: StreamedForm, decoded_length: u64) -> Streamed {
    let trailers = if form.has_trailer() {
        vec![CRC32C.to_owned()]
    } else {
        vec![]
    };
    Streamed {
        form,
        decoded_length,
        trailers,
    }
}

fn signed(length: u64) -> StreamedBody {
    StreamedBody::new(declared(StreamedForm::Signed, length), Some(signer(SEED)))
}

fn signed_trailer(length: u64) -> StreamedBody {
    let declared = declared(StreamedForm::SignedTrailer, length);
    StreamedBody::new(declared, Some(signer(TRAILER_SEED)))
}

fn unsigned(length: u64) -> StreamedBody {
    StreamedBody::new(declared(StreamedForm::UnsignedTrailer, length), None)
}

fn chunk(size: usize, signature: &str) -> String {
    format!(
        "{size:x};chunk-signature={signature}\r\n{}{}",
        "a".repeat(size),
        if size == 0 { "" } else { "\r\n" }
    )
}

fn whole(mut body: StreamedBody, bytes: &[u8]) -> Result<Vec<u8>, StreamedError> {
    pieces(&mut body, [bytes])
}

fn pieces<'b>(
    body: &mut StreamedBody,
    pieces: impl IntoIterator<Item = &'b [u8]>,
) -> Result<Vec<u8>, StreamedError> {
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&body.push(piece)?);
    }
    out.extend_from_slice(&body.finish()?);
    Ok(out)
}

const DUMMY: &str = "DUMMYDUMMYDUMMY0";

fn dummy() -> String {
    "0".repeat(SIGNATURE)
}

#[test]
fn the_worked_example_is_signed_as_documented() {
    let body = |signatures: [&str; 3]| {
        chunk(65536, signatures[0]) + &chunk(1024, signatures[1]) + &chunk(0, signatures[2]) + CRLF
    };
    let agent = body([&dummy(), &dummy(), &dummy()]);
    let expected = body([
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ]);
    assert_eq!(agent.len(), 66824);
    let sent = whole(signed(66560), agent.as_bytes()).unwrap();
    assert!(sent == expected.as_bytes());
}

#[test]
fn the_worked_example_with_a_trailer_is_signed_as_documented() {
    let body = |signatures: [&str; 4], end: &str| {
        let chunks =
            chunk(65536, signatures[0]) + &chunk(1024, signatures[1]) + &chunk(0, signatures[2]);
        format!(
            "{chunks}{CRC32C}:sOO8/Q=={end}x-amz-trailer-signature:{}\r\n\r\n",
            signatures[3]
        )
    };
    let signatures = [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
        "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
    ];
    let none = dummy();
    for end in [CRLF, "\n\r\n"] {
        let agent = body([&none; 4], end);
        let sent = whole(signed_trailer(66560), agent.as_bytes()).unwrap();
        assert!(sent == body(signatures, end).as_bytes(), "{end:?}");
    }
}

#[test]
fn an_unsigned_payload_passes_byte_for_byte() {
    for text in [
        "5\r\nhello\r\n6\r\n world\r\n0\r\nx-amz-checksum-crc32c:yZRlqg==\r\n\r\n",
        "b\r\nhello world\r\n0\r\nx-amz-checksum-crc32c:yZRlqg==\n\r\n",
        "B\r\nhello world\r\n0\r\nX-Amz-Checksum-Crc32c: yZRlqg==\r\n\r\n",
    ] {
        let sent = whole(unsigned(11), text.as_bytes()).unwrap();
        assert_eq!(sent, text.as_bytes());
    }
}

#[test]
fn the_last_chunk_waits_for_the_end_of_the_body() {
    let mut body = unsigned(5);
    let sent = body
        .push(b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32c:mnG7TA==\r\n\r\n")
        .unwrap();
    assert_eq!(&sent[..], b"5\r\nhello\r\n");
    let last = body.finish().unwrap();
    assert_eq!(&last[..], b"0\r\nx-amz-checksum-crc32c:mnG7TA==\r\n\r\n");
    assert_eq!(body.finish(), Err(StreamedError::Truncated));
}

#[test]
fn a_signed_chunk_waits_for_its_signature_alone() {
    let mut body = signed(2048);
    let text = chunk(1024, &dummy());
    let (start, end) = text.split_at(1000);
    assert!(body.push(start.as_bytes()).unwrap().is_empty());
    assert_eq!(body.push(end.as_bytes()).unwrap().len(), text.len());
    assert!(body.push(start.as_bytes()).unwrap().is_empty());
}

#[test]
fn what_is_held_is_bounded() {
    let long = format!(
        "{:x};chunk-signature={}\r\n",
        LONGEST_SIGNED_CHUNK + 1,
        dummy()
    );
    let refused = whole(signed(u64::MAX >> 8), long.as_bytes());
    assert_eq!(refused, Err(StreamedError::ChunkTooLong));

    let mut body = unsigned(1 << 40);
    body.push(b"ffffffff\r\n").unwrap();
    let piece = vec![0; 1 << 20];
    for _ in 0..16 {
        assert_eq!(body.push(&piece).unwrap().len(), piece.len());
        assert!(body.out.is_empty());
    }

    let mut body = unsigned(0);
    body.push(b"0\r\n").unwrap();
    assert_eq!(
        body.push(&[b'a'; LONGEST_ASIDE]),
        Err(StreamedError::Trailer)
    );
}

#[test]
fn every_departure_from_the_grammar_ends_the_request() {
    use StreamedError::{DataEnd, Length, SizeLine, Trailer, Truncated};
    let sum = "x-amz-checksum-crc32c:mnG7TA==\r\n";
    let cases = [
        (String::new(), Truncated),
        ("5".into(), Truncated),
        ("5\r\nhel".into(), Truncated),
        ("5\r\nhello".into(), Truncated),
        ("5\r\nhello\r".into(), Truncated),
        ("5\r\nhello\r\n".into(), Truncated),
        ("\r\n".into(), SizeLine),
        ("05\r\nhello\r\n".into(), SizeLine),
        ("00\r\n".into(), SizeLine),
        ("0x5\r\nhello\r\n".into(), SizeLine),
        ("+5\r\nhello\r\n".into(), SizeLine),
        (" 5\r\nhello\r\n".into(), SizeLine),
        ("5 \r\nhello\r\n".into(), SizeLine),
        ("5\nhello\r\n".into(), SizeLine),
        ("5;\r\nhello\r\n".into(), SizeLine),
        (
            format!("5;chunk-signature={}\r\nhello\r\n", dummy()),
            SizeLine,
        ),
        ("5".repeat(200), SizeLine),
        ("5\r\nhello\n".into(), DataEnd),
        ("5\r\nhello0\r\n".into(), DataEnd),
        ("5\r\nhello\r0\r\n".into(), DataEnd),
        ("4\r\nhell\r\n0\r\n".into(), Length),
        ("6\r\nhello!\r\n".into(), Length),
        ("5\r\nhello\r\n1\r\n!".into(), Length),
        ("5\r\nhello\r\n0\r\n".into(), Trailer),
        ("5\r\nhello\r\n0\r\n\r\n".into(), Trailer),
        (format!("5\r\nhello\r\n0\r\n{sum}"), Trailer),
        (format!("5\r\nhello\r\n0\r\n{sum}\r\n\r\n"), Trailer),
        (format!("5\r\nhello\r\n0\r\n{sum}{sum}\r\n"), Trailer),
        (
            format!("5\r\nhello\r\n0\r\n{sum}x-amz-acl:public-read\r\n\r\n"),
            Trailer,
        ),
        (
            format!(
                "5\r\nhello\r\n0\r\n{sum}x-amz-trailer-signature:{}\r\n\r\n",
                dummy()
            ),
            Trailer,
        ),
        (
            "5\r\nhello\r\n0\r\nx-amz-checksum-sha1:aa\r\n\r\n".into(),
            Trailer,
        ),
        (
            "5\r\nhello\r\n0\r\nx-amz-checksum-crc32c:\r\n\r\n".into(),
            Trailer,
        ),
        (
            "5\r\nhello\r\n0\r\nx-amz-checksum-crc32c:a b\r\n\r\n".into(),
            Trailer,
        ),
        (
            "5\r\nhello\r\n0\r\nx-amz-checksum-crc32c:ab\r\r\n\r\n".into(),
            Trailer,
        ),
        (
            "5\r\nhello\r\n0\r\nx-amz-checksum-crc32c:\u{e9}\r\n\r\n".into(),
            Trailer,
        ),
    ];
    for (text, error) in cases {
        assert_eq!(whole(unsigned(5), text.as_bytes()), Err(error), "{text:?}");
    }
}

#[test]
fn every_departure_of_a_signed_payload_ends_the_request() {
    use StreamedError::{SizeLine, Trailer};
    let (none, short) = (dummy(), DUMMY);
    let hello = format!("5;chunk-signature={none}\r\nhello\r\n");
    let last = format!("0;chunk-signature={none}\r\n");
    for (text, error) in [
        ("5\r\nhello\r\n".to_owned(), SizeLine),
        (format!("5;chunk-signature={short}\r\n"), SizeLine),
        (format!("5;Chunk-Signature={none}\r\n"), SizeLine),
        (format!("5; chunk-signature={none}\r\n"), SizeLine),
        (format!("5;chunk-signature={none};x=y\r\n"), SizeLine),
        (
            format!("5;chunk-signature={}\r\n", "g".repeat(SIGNATURE)),
            SizeLine,
        ),
        (format!("{hello}{last}"), Trailer),
        (format!("{hello}{last}\r\n\r\n"), Trailer),
        (format!("{hello}{last}GET / HTTP/1.1\r\n"), Trailer),
    ] {
        assert_eq!(whole(signed(5), text.as_bytes()), Err(error), "{text:?}");
    }
    let (start, sum) = (format!("{hello}{last}"), "x-amz-checksum-crc32c:mnG7TA==");
    let sign = format!("x-amz-trailer-signature:{none}\r\n");
    for text in [
        format!("{start}{sum}\r\n\r\n"),
        format!("{start}{sum}\r\n{sign}"),
        format!("{start}{sum}\r\n\r\n{sign}\r\n"),
        format!("{start}{sum}{sign}\r\n"),
        format!("{start}{sign}\r\n"),
        format!("{start}{sum}\r\n{sign}{sign}\r\n"),
        format!("{start}{sum}\r\nx-amz-trailer-signature:{short}\r\n\r\n"),
    ] {
        let sent = whole(signed_trailer(5), text.as_bytes());
        assert_eq!(sent, Err(Trailer), "{text:?}");
    }
}

#[test]
fn an_error_stays() {
    let mut body = unsigned(5);
    assert_eq!(body.push(b"x\r\n"), Err(StreamedError::SizeLine));
    assert_eq!(body.push(b"5\r\nhello\r\n"), Err(StreamedError::SizeLine));
    assert_eq!(body.finish(), Err(StreamedError::SizeLine));
}

#[test]
fn debug_shows_no_key() {
    let body = signed(5);
    let text = format!("{body:?}");
    assert!(!text.contains(SEED) && text.contains("SizeLine"), "{text}");
}

fn head(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

#[test]
fn a_head_declares_length_and_trailer() {
    const LENGTH: &str = "x-amz-decoded-content-length";
    let form = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let read = |pairs: &[(&'static str, &str)]| Streamed::read(form, &head(pairs));
    let good = read(&[(LENGTH, "5"), ("x-amz-trailer", "x-amz-checksum-crc32c")]).unwrap();
    assert_eq!(good, declared(StreamedForm::UnsignedTrailer, 5));
    for pairs in [
        &[("x-amz-trailer", CRC32C)][..],
        &[(LENGTH, "5")],
        &[(LENGTH, "-5"), ("x-amz-trailer", CRC32C)],
        &[(LENGTH, "5, 5"), ("x-amz-trailer", CRC32C)],
        &[(LENGTH, "5"), (LENGTH, "5"), ("x-amz-trailer", CRC32C)],
        &[(LENGTH, "9999999999999999"), ("x-amz-trailer", CRC32C)],
        &[(LENGTH, "5"), ("x-amz-trailer", "")],
        &[(LENGTH, "5"), ("x-amz-trailer", "x-amz-acl")],
        &[(LENGTH, "5"), ("x-amz-trailer", "x-amz-checksum-")],
        &[
            (LENGTH, "5"),
            (
                "x-amz-trailer",
                "x-amz-checksum-crc32c, x-amz-checksum-crc32c",
            ),
        ],
    ] {
        assert!(
            matches!(read(pairs), Err(SigV4Refusal::Malformed(_))),
            "{pairs:?}"
        );
    }
    let with_trailer = head(&[(LENGTH, "5"), ("x-amz-trailer", CRC32C)]);
    let signed = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
    assert!(Streamed::read(signed, &with_trailer).is_err());
    for form in [
        "STREAMING-AWS4-HMAC-SHA256-EVENTS",
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
        "STREAMING-",
    ] {
        let refusal = Streamed::read(form, &with_trailer).unwrap_err();
        assert_eq!(refusal, SigV4Refusal::Chunked(form.to_owned()));
    }
}

proptest! {
    #[test]
    fn cuts_change_nothing(
        sizes in proptest::collection::vec(1_usize..3000, 0..6),
        mut cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        form in 0..3_usize,
    ) {
        let form = StreamedForm::ALL[form];
        let length = sizes.iter().sum::<usize>() as u64;
        let line = |size: usize| if form.is_signed() {
            format!("{size:x};chunk-signature={}\r\n", dummy())
        } else {
            format!("{size:x}\r\n")
        };
        let mut text: String = sizes.iter().map(|size| line(*size) + &"b".repeat(*size) + CRLF).collect();
        text += &line(0);
        if form.has_trailer() {
            text += "x-amz-checksum-crc32c:AAAAAA==\r\n";
        }
        if form == StreamedForm::SignedTrailer {
            text = [text, format!("x-amz-trailer-signature:{}\r\n", dummy())].concat();
        }
        text += CRLF;
        let body = || {
            let signer = form.is_signed().then(|| signer(SEED));
            StreamedBody::new(declared(form, length), signer)
        };
        let at_once = whole(body(), text.as_bytes()).unwrap();
        prop_assert_eq!(at_once.len(), text.len());
        let mut ends: Vec<usize> = cuts.drain(..).map(|cut| cut.index(text.len())).collect();
        ends.push(text.len());
        ends.sort_unstable();
        let mut start = 0;
        let parts = ends.iter().map(|end| {
            let part = &text.as_bytes()[start..*end];
            start = *end;
            part
        });
        prop_assert_eq!(pieces(&mut body(), parts).unwrap(), at_once);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), length in 0..20_u64) {
        let _ = whole(signed(length), &bytes);
        let _ = whole(unsigned(length), &bytes);
    }
}
