//! The first bytes of every spelling of a secret, for the search.

use super::escapes::names;
use super::variants::{Reading, Variant};

/// How much of a spelling the searcher knows: as much as Teddy looks at. An escape shows at most two characters of the
/// secret there.
pub(super) const LENGTH: usize = 4;

pub(super) type Opening = [u8; LENGTH];

/// The openings of a variant, some of them more than once.
pub(super) fn of(variant: &Variant) -> Vec<Opening> {
    let start = *variant
        .bytes
        .first_chunk::<LENGTH>()
        .expect("a variant is longer than its opening");
    let mut openings = vec![start];
    match variant.reading {
        Reading::Literal => {}
        Reading::Encoded => {
            for places in selections(start) {
                openings.extend(FORMS_OF_ENCODED.map(|form| spell(start, places, &form)));
            }
        }
        Reading::Secret => {
            openings.extend(soft_breaks(start));
            for places in selections(start).chain([[true; LENGTH]]) {
                openings.extend(FORMS.map(|form| spell(start, places, &form)));
                openings.extend(named(start, places));
            }
        }
    }
    openings
}

/// By names of HTML's. Only the first escaped byte can still differ: its name fills the opening.
fn named(start: Opening, escaped: [bool; LENGTH]) -> impl Iterator<Item = Opening> {
    let first = start.into_iter().zip(escaped).find(|(_, escaped)| *escaped);
    let names = first.into_iter().flat_map(|(byte, _)| names(byte));
    names.map(move |name| {
        spell(start, escaped, &|out, _| {
            out.extend_from_slice(format!("&{name};").as_bytes());
        })
    })
}

/// Which of the first bytes are escaped: every selection of those that some encoder escapes.
fn selections(start: Opening) -> impl Iterator<Item = [bool; LENGTH]> {
    let special = start.map(|byte| !byte.is_ascii_alphanumeric());
    (1_u8..1 << LENGTH)
        .map(|bits| std::array::from_fn(|place| bits >> place & 1 == 1))
        .filter(move |places: &[bool; LENGTH]| {
            places
                .iter()
                .zip(special)
                .all(|(&escaped, special)| special || !escaped)
        })
}

/// RFC 2045, section 6.7: a line may be broken anywhere.
fn soft_breaks(start: Opening) -> impl Iterator<Item = Opening> {
    (1..LENGTH).flat_map(move |place| {
        ["=\n", "=\r\n"].map(|ending| {
            let (before, behind) = start.split_at(place);
            let broken = [before, ending.as_bytes(), behind].concat();
            *broken.first_chunk().expect("it is longer than before")
        })
    })
}

fn spell(start: Opening, escaped: [bool; LENGTH], form: &dyn Fn(&mut Vec<u8>, u8)) -> Opening {
    let mut out = Vec::new();
    for (byte, escaped) in start.into_iter().zip(escaped) {
        if escaped {
            form(&mut out, byte);
        } else {
            out.push(byte);
        }
    }
    *out.first_chunk().expect("no form is shorter than its byte")
}

type Form = fn(&mut Vec<u8>, u8);

/// What [`Escapes`](super::escapes::Escapes) reads, as far as its first four bytes differ.
const FORMS: [Form; 24] = [
    |out, byte| lower(out, "%", byte),
    |out, byte| upper(out, "%", byte),
    |out, byte| lower(out, "%25", byte),
    |out, byte| lower(out, "%2525", byte),
    |out, byte| lower(out, "%25%", byte),
    |out, byte| lower(out, r"\u00", byte),
    |out, byte| lower(out, r"\\u00", byte),
    |out, byte| lower(out, r"\\\u00", byte),
    |out, byte| lower(out, r"\x", byte),
    |out, byte| upper(out, r"\x", byte),
    |out, byte| lower(out, r"\\x", byte),
    |out, byte| short(out, r"\", byte),
    |out, byte| short(out, r"\\", byte),
    |out, byte| short(out, r"\\\", byte),
    |out, byte| out.extend_from_slice(format!("&#{byte};").as_bytes()),
    |out, byte| out.extend_from_slice(format!("&#0{byte};").as_bytes()),
    |out, byte| out.extend_from_slice(format!("&#00{byte};").as_bytes()),
    |out, byte| lower(out, "&#x", byte),
    |out, byte| lower(out, "&#x0", byte),
    |out, byte| lower(out, "&#X", byte),
    |out, byte| lower(out, "&#X0", byte),
    |out, byte| lower(out, "&amp;#x", byte),
    |out, byte| lower(out, "=", byte),
    |out, byte| upper(out, "=", byte),
];

/// Letters and digits of what is encoded already are escaped by nobody.
const FORMS_OF_ENCODED: [Form; 4] = [
    |out, byte| lower(out, "%", byte),
    |out, byte| upper(out, "%", byte),
    |out, byte| short(out, r"\", byte),
    |out, byte| lower(out, "&#x", byte),
];

fn lower(out: &mut Vec<u8>, before: &str, byte: u8) {
    out.extend_from_slice(format!("{before}{byte:02x}").as_bytes());
}

fn upper(out: &mut Vec<u8>, before: &str, byte: u8) {
    out.extend_from_slice(format!("{before}{byte:02X}").as_bytes());
}

/// JSON's short escapes.
fn short(out: &mut Vec<u8>, before: &str, byte: u8) {
    let letter = match byte {
        b'/' | b'"' | b'\'' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => return out.push(byte),
    };
    out.extend_from_slice(before.as_bytes());
    out.push(letter);
}
