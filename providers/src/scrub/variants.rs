//! The encodings in which a server may give a secret back: threats.md, section C.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use zeroize::Zeroizing;

type Variant = Zeroizing<Vec<u8>>;

/// Every variant of a secret, each once. The raw form is the first.
pub(super) fn of(secret: &[u8]) -> Vec<Variant> {
    let mut variants = vec![
        Zeroizing::new(secret.to_vec()),
        Zeroizing::new(secret.iter().rev().copied().collect()),
        // Header names are lower-cased on their way.
        Zeroizing::new(secret.to_ascii_lowercase()),
    ];
    variants.extend(base64(secret));
    variants.extend([
        hex(secret, Case::Lower),
        hex(secret, Case::Upper),
        utf16(secret),
    ]);
    variants.extend(percent(secret));
    variants.extend(json(secret));
    variants.extend(html(secret));
    variants.push(quoted_printable(secret));
    let mut unique: Vec<Variant> = Vec::with_capacity(variants.len());
    for variant in variants {
        if !unique.contains(&variant) {
            unique.push(variant);
        }
    }
    unique
}

/// Base64 with both alphabets, wherever the secret stands in what was encoded: only the characters that do not depend
/// on what is before and after it.
fn base64(secret: &[u8]) -> impl Iterator<Item = Variant> {
    let at = move |alphabet: &Alphabet, before: usize| {
        let mut input = Zeroizing::new(vec![0; before]);
        input.extend_from_slice(secret);
        let mut text = Zeroizing::new(
            GeneralPurpose::new(alphabet, NO_PAD)
                .encode(&*input)
                .into_bytes(),
        );
        text.truncate(input.len() * 8 / 6);
        Zeroizing::new(text[(before * 8).div_ceil(6)..].to_vec())
    };
    (0..3).flat_map(move |before| [at(&STANDARD, before), at(&URL_SAFE, before)])
}

fn hex(secret: &[u8], case: Case) -> Variant {
    each(secret, |out, byte| case.hex(out, "", byte))
}

/// UTF-16, of which both byte orders hold the same core: a zero between every two bytes.
fn utf16(secret: &[u8]) -> Variant {
    let mut core = each(secret, |out, byte| out.extend([byte, 0]));
    core.pop();
    core
}

/// What is not unreserved (RFC 3986, section 2.3), once and twice, and every byte.
fn percent(secret: &[u8]) -> impl Iterator<Item = Variant> {
    let reserved = |byte: u8| !(byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    // JavaScript's encodeURIComponent leaves these alone too.
    let component = move |byte: u8| reserved(byte) && !b"!'()*".contains(&byte);
    [Case::Lower, Case::Upper]
        .into_iter()
        .flat_map(move |case| {
            [
                each(secret, |out, byte| {
                    escape(out, byte, reserved(byte), |out| case.hex(out, "%", byte));
                }),
                each(secret, |out, byte| {
                    escape(out, byte, component(byte), |out| case.hex(out, "%", byte));
                }),
                each(secret, |out, byte| {
                    escape(out, byte, reserved(byte), |out| case.hex(out, "%25", byte));
                }),
                each(secret, |out, byte| case.hex(out, "%", byte)),
            ]
        })
}

/// JSON strings (RFC 8259, section 7), with what encoders escape beyond need.
fn json(secret: &[u8]) -> impl Iterator<Item = Variant> {
    let short = |out: &mut Vec<u8>, byte: u8| {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    };
    let solidus = move |out: &mut Vec<u8>, byte: u8| {
        if byte == b'/' {
            out.push(b'\\');
        }
        short(out, byte);
    };
    let plain = [each(secret, short), each(secret, solidus)];
    let escaped = [Case::Lower, Case::Upper]
        .into_iter()
        .flat_map(move |case| {
            [
                // Go, Rails and PHP's JSON_HEX family; .NET escapes `+` and quotes as well.
                each(secret, |out, byte| match byte {
                    b'<' | b'>' | b'&' => case.hex(out, "\\u00", byte),
                    _ => short(out, byte),
                }),
                each(secret, |out, byte| match byte {
                    b'<' | b'>' | b'&' | b'\'' | b'"' | b'+' | b'`' => case.hex(out, "\\u00", byte),
                    _ => short(out, byte),
                }),
                each(secret, |out, byte| match byte {
                    b'<' | b'>' | b'&' | b'\'' | b'"' | b'+' | b'=' | b'/' | b'\\' => {
                        case.hex(out, "\\u00", byte);
                    }
                    _ => out.push(byte),
                }),
                each(secret, |out, byte| case.hex(out, "\\u00", byte)),
            ]
        });
    plain.into_iter().chain(escaped)
}

/// HTML character references: named, as the usual escapers write them, and every byte as a number.
fn html(secret: &[u8]) -> impl Iterator<Item = Variant> {
    // Quotes by Python and Mustache, by Go, by PHP and by lodash.
    let quotes: [(&str, &str); 4] = [
        ("&quot;", "&#x27;"),
        ("&#34;", "&#39;"),
        ("&quot;", "&#039;"),
        ("&quot;", "&#39;"),
    ];
    let named = quotes.into_iter().flat_map(move |(double, single)| {
        let entity = move |byte: u8| match byte {
            b'&' => Some("&amp;"),
            b'<' => Some("&lt;"),
            b'>' => Some("&gt;"),
            b'"' => Some(double),
            b'\'' => Some(single),
            _ => None,
        };
        let mustache = move |byte: u8| match byte {
            b'/' => Some("&#x2F;"),
            b'=' => Some("&#x3D;"),
            b'`' => Some("&#x60;"),
            _ => entity(byte),
        };
        [
            each(secret, |out, byte| named(out, byte, entity(byte))),
            each(secret, |out, byte| named(out, byte, mustache(byte))),
        ]
    });
    let mut number = String::new();
    let decimal = each(secret, |out, byte| {
        number.clear();
        write!(number, "&#{byte};").expect("a String takes everything");
        out.extend_from_slice(number.as_bytes());
    });
    let hexadecimal = [Case::Lower, Case::Upper].map(|case| {
        each(secret, |out, byte| {
            case.hex(out, "&#x", byte);
            out.push(b';');
        })
    });
    named.chain([decimal]).chain(hexadecimal)
}

/// RFC 2045, section 6.7, without line breaks, which would cut it anywhere.
fn quoted_printable(secret: &[u8]) -> Variant {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'=';
    each(secret, |out, byte| {
        escape(out, byte, !plain(byte), |out| {
            Case::Upper.hex(out, "=", byte);
        });
    })
}

fn named(out: &mut Vec<u8>, byte: u8, entity: Option<&str>) {
    match entity {
        Some(entity) => out.extend_from_slice(entity.as_bytes()),
        None => out.push(byte),
    }
}

fn escape(out: &mut Vec<u8>, byte: u8, needed: bool, escaped: impl FnOnce(&mut Vec<u8>)) {
    if needed {
        escaped(out);
    } else {
        out.push(byte);
    }
}

/// The longest form of a byte here is `\u00xx` or `&#xxx;`, so the buffer never grows and leaves no copy behind.
fn each(secret: &[u8], mut encode: impl FnMut(&mut Vec<u8>, u8)) -> Variant {
    let mut out = Zeroizing::new(Vec::with_capacity(secret.len() * 6));
    for &byte in secret {
        encode(&mut out, byte);
    }
    out
}

#[derive(Clone, Copy)]
enum Case {
    Lower,
    Upper,
}

impl Case {
    fn hex(self, out: &mut Vec<u8>, before: &str, byte: u8) {
        let digits = match self {
            Self::Lower => b"0123456789abcdef",
            Self::Upper => b"0123456789ABCDEF",
        };
        out.extend_from_slice(before.as_bytes());
        out.extend([
            digits[usize::from(byte >> 4)],
            digits[usize::from(byte & 15)],
        ]);
    }
}
