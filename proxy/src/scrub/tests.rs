use providers::Catalog;

use super::*;
use crate::fixtures::plan;

const SECRET: &str = "sk_live_0123456789abcdef";

fn cleaned(values: &[&str]) -> Vec<String> {
    let mut fields = HeaderMap::new();
    for value in values {
        fields.append("x-echo", HeaderValue::from_str(value).unwrap());
    }
    clean_fields(&mut fields, &Scrubber::new([SECRET.as_bytes()]));
    let values = fields.get_all("x-echo").iter();
    values
        .map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

/// An answer, as the provider begins it.
fn answer(fields: &[(&'static str, &str)]) -> ResponseHeader {
    let mut head = ResponseHeader::build(200, None).unwrap();
    for (name, value) in fields {
        head.append_header(*name, *value).unwrap();
    }
    head
}

fn stripe() -> Plan {
    let template = Catalog::builtin().get("stripe").unwrap();
    plan(&template, &[("STRIPE_SECRET_KEY", SECRET)])
}

/// What the agent gets of a body that comes in such parts, and how often the credential stood in the answer.
fn passed(
    head: &mut ResponseHeader,
    plan: &Plan,
    is_upgrade: bool,
    parts: &[&[u8]],
) -> (Result<Vec<u8>, Code>, usize) {
    let mut scrub = match ResponseScrub::begin(head, plan, is_upgrade, true) {
        Ok(scrub) => scrub,
        Err(refusal) => return (Err(refusal.code), 0),
    };
    let mut body = Vec::new();
    let parts = parts.iter().map(|part| Some(Bytes::copy_from_slice(part)));
    for part in parts.chain([None]) {
        let end = part.is_none();
        match scrub.body(part, end) {
            Ok(part) => body.extend(part.unwrap_or_default()),
            Err(refusal) => return (Err(refusal.code), scrub.reflections()),
        }
    }
    (Ok(body), scrub.reflections())
}

#[test]
fn a_body_passes_but_for_the_credential_plain_and_compressed() {
    let body = format!("a {SECRET} b");
    let masked = format!("a {} b", "*".repeat(SECRET.len()));
    let packed = zstd(&body);
    for (encoding, body, is_decoded) in [
        (None, body.as_bytes(), false),
        (Some("identity"), body.as_bytes(), false),
        (Some(""), body.as_bytes(), false),
        (Some("zstd"), &packed, true),
    ] {
        let (front, back) = body.split_at(12);
        let mut head = answer(&[("content-type", "text/plain"), ("content-length", "9")]);
        if let Some(encoding) = encoding {
            head.insert_header(CONTENT_ENCODING, encoding).unwrap();
        }
        let (passed, found) = passed(&mut head, &stripe(), false, &[front, back]);
        assert_eq!(passed.unwrap(), masked.as_bytes(), "{encoding:?}");
        assert_eq!(found, 1, "{encoding:?}");
        let declared = |name: &HeaderName| head.headers.contains_key(name);
        let still_encoded = encoding.is_some() && !is_decoded;
        assert_eq!(declared(&CONTENT_ENCODING), still_encoded, "{encoding:?}");
        assert_eq!(declared(&CONTENT_LENGTH), !is_decoded, "{encoding:?}");
        assert_eq!(declared(&TRANSFER_ENCODING), is_decoded, "{encoding:?}");
    }
}

#[test]
fn over_http2_no_transfer_encoding_is_declared() {
    let mut head = answer(&[("content-encoding", "zstd")]);
    head.set_version(http::Version::HTTP_2);
    let (body, _) = passed(&mut head, &stripe(), false, &[&zstd("plain")]);
    assert_eq!(body.unwrap(), b"plain");
    assert!(head.headers.is_empty(), "{:?}", head.headers);
}

#[test]
fn what_cannot_be_read_for_the_credential_is_withheld() {
    let inside = zstd(&format!("a {SECRET} b"));
    // A window of 2^41 bytes (RFC 8878 section 3.1.1.1.2).
    let huge = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0x00, 0x00];
    let (zstd, text) = (("content-encoding", "zstd"), ("content-type", "text/plain"));
    for (fields, body, found) in [
        (&[("content-encoding", "br, gzip")][..], &b"x"[..], 0),
        (&[("content-encoding", "rot13")], b"x", 0),
        (&[zstd, zstd], b"x", 0),
        (&[zstd], b"not zstd", 0),
        (&[zstd], &inside[..20], 0),
        (&[text], &inside, 1),
        (&[text], &huge, 0),
        (
            &[("content-type", "application/grpc")],
            &[1, 0, 0, 0, 1, 0],
            0,
        ),
    ] {
        let mut head = answer(fields);
        let withheld = passed(&mut head, &stripe(), false, &[body]);
        assert_eq!(
            withheld,
            (Err(Code::UpstreamProtocol), found),
            "{fields:?} {body:?}"
        );
    }
}

#[test]
fn a_stored_object_arrives_as_it_is_stored() {
    let aws = Catalog::builtin().get("aws").unwrap();
    let secrets = [
        ("AWS_ACCESS_KEY_ID", "AKIAREAL000000000000"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
    ];
    let with_session = [&secrets[..], &[("AWS_SESSION_TOKEN", "session-0123456789")]].concat();
    for plan in [plan(&aws, &secrets), plan(&aws, &with_session)] {
        for encoding in ["gzip", "rot13"] {
            let mut head = answer(&[("content-encoding", encoding), ("content-length", "6")]);
            let (body, _) = passed(&mut head, &plan, false, &[b"abc", b"def"]);
            assert_eq!(body.unwrap(), b"abcdef");
            assert_eq!(head.headers["content-encoding"], encoding);
            assert_eq!(head.headers["content-length"], "6");
        }
    }
}

#[test]
fn an_answer_without_a_body_keeps_what_its_head_says_of_one() {
    let mut head = answer(&[("content-encoding", "gzip"), ("x-echo", SECRET)]);
    let scrub = ResponseScrub::begin(&mut head, &stripe(), false, false).unwrap();
    assert_eq!(head.headers["content-encoding"], "gzip");
    assert_eq!(head.headers["x-echo"], "*".repeat(SECRET.len()));
    assert_eq!(scrub.reflections(), 1);
}

#[test]
fn messages_do_not_wait_for_what_follows_and_all_masks_are_counted() {
    let tempting = &SECRET[..20];
    // What stands before the length, in one byte, of a message of each kind.
    for (media, is_upgrade, prefix) in [
        ("application/grpc", false, Some(&[0, 0, 0, 0][..])),
        ("application/grpc-web-text", false, None),
        ("text/plain", true, Some(&[0x81])),
    ] {
        let framed = |text: &str| {
            let length = u8::try_from(text.len()).unwrap();
            let head = prefix.map_or_else(Vec::new, |prefix| [prefix, &[length]].concat());
            [&head, text.as_bytes()].concat()
        };
        let mut head = answer(&[("content-type", media), ("x-echo", SECRET)]);
        let mut scrub = ResponseScrub::begin(&mut head, &stripe(), is_upgrade, true).unwrap();
        let mut pass = |text: &str| {
            let part = scrub.body(Some(framed(text).into()), false);
            part.unwrap().unwrap_or_default()
        };
        assert_eq!(pass(tempting), framed(tempting), "{media}");
        assert_eq!(pass(SECRET), framed(&"*".repeat(SECRET.len())), "{media}");
        assert_eq!(scrub.rest().unwrap(), None, "{media}");
        scrub.count(2);
        assert_eq!(
            scrub.reflections(),
            4,
            "{media}: in its head, its body and two trailers"
        );
    }
}

#[test]
fn the_end_that_was_held_back_comes_with_the_rest() {
    let mut head = answer(&[("content-type", "text/plain")]);
    let mut scrub = ResponseScrub::begin(&mut head, &stripe(), false, true).unwrap();
    let tempting = format!("a {}", &SECRET[..20]);
    let begun = scrub.body(Some(tempting.clone().into()), false).unwrap();
    let rest = scrub.rest().unwrap().unwrap();
    assert_eq!(
        [begun.unwrap_or_default(), rest].concat(),
        tempting.as_bytes()
    );
    assert_eq!(scrub.rest().unwrap(), None);
    assert_eq!(scrub.reflections(), 0);
}

#[test]
fn a_field_named_after_the_credential_is_dropped() {
    let mut fields = HeaderMap::new();
    fields.append(SECRET, HeaderValue::from_static("1"));
    fields.append("x-echo", HeaderValue::from_static(SECRET));
    fields.append("x-kept", HeaderValue::from_static("1"));
    let scrubber = Scrubber::new([SECRET.as_bytes()]);
    assert_eq!(clean_fields(&mut fields, &scrubber), 2);
    let value = |name: &str| fields.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(value(SECRET), None);
    assert_eq!(value("x-echo"), Some(&*"*".repeat(SECRET.len())));
    assert_eq!(value("x-kept"), Some("1"));
    assert_eq!(clean_fields(&mut fields, &Scrubber::new([])), 0);
}

/// One raw block (RFC 8878 sections 3.1.1 and 3.1.1.2).
fn zstd(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap();
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, length];
    let block = (u32::from(length) << 3) | 1;
    frame.extend_from_slice(&block.to_le_bytes()[..3]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[test]
fn a_credential_that_was_folded_is_masked() {
    let (start, end) = SECRET.split_at(9);
    let masked = format!("Bearer {} {};", "*".repeat(9), "*".repeat(15));
    assert_eq!(cleaned(&[&format!("Bearer {start} {end};")]), [masked]);
    let letters: Vec<String> = SECRET.chars().map(String::from).collect();
    let masked = vec!["*"; SECRET.len()].join(" ");
    assert_eq!(cleaned(&[&letters.join(" ")]), [masked]);
    let twice = format!("{SECRET}, {start}\t{end}");
    let masked = format!("{}, {}\t{}", "*".repeat(24), "*".repeat(9), "*".repeat(15));
    assert_eq!(cleaned(&[&twice]), [masked]);
    let parts = [
        format!("a {}", &start[..4]),
        format!("{} {end} b", &start[4..]),
    ];
    let masked = [
        format!("a {}", "*".repeat(4)),
        format!("{} {} b", "*".repeat(5), "*".repeat(15)),
    ];
    assert_eq!(cleaned(&parts.each_ref().map(String::as_str)), masked);
}

#[test]
fn other_values_stay_as_they_are() {
    for value in ["Sun, 22 Nov 2026 23:17:42 GMT", "sk_live_ 0123 4567", "  "] {
        assert_eq!(cleaned(&[value]), [value]);
    }
}
