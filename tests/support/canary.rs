//! Canaries: secrets made for one test, and the search for them in any encoding that could carry them out.

use std::io::Read as _;

use aho_corasick::AhoCorasick;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// What AWS puts into its secret keys too: these are spelled differently in URLs, JSON, HTML and base64.
const LETTERS_AND_SYMBOLS: &[u8] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/+/+/+";
/// A part of a secret this long is a leak too.
const FRAGMENT: usize = 22;
/// Compressed data is searched up to this size.
const INFLATED_MAX: u64 = 4 << 20;

/// A secret that exists only in one test.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Canary(String);

impl std::fmt::Debug for Canary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Canary(..)")
    }
}

impl Canary {
    /// `prefix` and 44 random letters and digits.
    pub(crate) fn new(prefix: &str) -> Self {
        Self(format!("{prefix}{}", random_text(44, LETTERS)))
    }

    /// `prefix` and 44 random letters, digits, slashes and plus signs.
    pub(crate) fn with_symbols(prefix: &str) -> Self {
        Self(format!("{prefix}{}", random_text(44, LETTERS_AND_SYMBOLS)))
    }

    /// A text that is secret in the same way, such as a lease token.
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// `count` characters of `alphabet` from the system's generator.
pub(crate) fn random_text(count: usize, alphabet: &[u8]) -> String {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).expect("the system's generator works");
    bytes
        .iter()
        .map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()]))
        .collect()
}

/// Every spelling of some secrets, ready to be searched for.
pub(crate) struct Spellings {
    search: AhoCorasick,
    names: Vec<String>,
}

impl Spellings {
    pub(crate) fn of(secrets: &[Canary]) -> Self {
        let mut patterns = Vec::new();
        let mut names = Vec::new();
        for (index, secret) in secrets.iter().enumerate() {
            for (name, spelling) in spellings(secret.bytes()) {
                names.push(format!("secret {index} in {name}"));
                patterns.push(spelling);
            }
        }
        let search = AhoCorasick::new(&patterns).expect("the patterns are few and short");
        Self { search, names }
    }

    /// The first spelling found in `haystack` or in a gzip stream within it, and where.
    pub(crate) fn find(&self, haystack: &[u8]) -> Option<String> {
        self.find_plain(haystack).or_else(|| {
            gzip_starts(haystack).find_map(|at| {
                let inflated = inflate(&haystack[at..]);
                self.find_plain(&inflated)
                    .map(|found| format!("{found} of a gzip stream at {at}"))
            })
        })
    }

    fn find_plain(&self, haystack: &[u8]) -> Option<String> {
        let found = self.search.find(haystack)?;
        let name = &self.names[found.pattern().as_usize()];
        let line_start = haystack[..found.start()]
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let from = line_start.max(found.start().saturating_sub(160));
        let before = String::from_utf8_lossy(&haystack[from..found.start()]).into_owned();
        Some(format!("{name} at byte {} after {before:?}", found.start()))
    }
}

/// The secret as it may be spelled, each with a name for the report.
fn spellings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![
        ("plain text", secret.to_vec()),
        ("hex", hex::encode(secret).into_bytes()),
        ("upper-case hex", hex::encode_upper(secret).into_bytes()),
        ("percent-encoding", percent(secret, |_| true, false)),
        (
            "lower-case percent-encoding",
            percent(secret, |_| true, true),
        ),
        ("reverse", secret.iter().rev().copied().collect()),
        (
            "UTF-16LE",
            secret.iter().flat_map(|byte| [*byte, 0]).collect(),
        ),
        (
            "UTF-16BE",
            secret.iter().flat_map(|byte| [0, *byte]).collect(),
        ),
        (
            "JSON escapes",
            secret
                .iter()
                .flat_map(|byte| format!("\\u00{byte:02x}").into_bytes())
                .collect(),
        ),
        (
            "HTML entities",
            secret
                .iter()
                .flat_map(|byte| format!("&#{byte};").into_bytes())
                .collect(),
        ),
    ];
    let symbols = |byte: u8| !byte.is_ascii_alphanumeric() && !b"-_.~".contains(&byte);
    if secret.iter().any(|byte| symbols(*byte)) {
        all.push(("percent-encoded symbols", percent(secret, symbols, false)));
        all.push((
            "lower-case percent-encoded symbols",
            percent(secret, symbols, true),
        ));
        all.push((
            "JSON with escaped slashes",
            String::from_utf8_lossy(secret)
                .replace('/', "\\/")
                .into_bytes(),
        ));
    }
    for alignment in 0..3 {
        all.push((
            "base64",
            aligned_base64(secret, alignment, &STANDARD_NO_PAD),
        ));
        all.push((
            "base64url",
            aligned_base64(secret, alignment, &URL_SAFE_NO_PAD),
        ));
    }
    if secret.len() >= 2 * FRAGMENT {
        let middle = secret.len() / 2;
        all.push((
            "its second half",
            secret[secret.len() - FRAGMENT..].to_vec(),
        ));
        all.push((
            "its middle",
            secret[middle - FRAGMENT / 2..middle + FRAGMENT / 2].to_vec(),
        ));
    }
    all
}

fn percent(secret: &[u8], escape: impl Fn(u8) -> bool, lower: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(secret.len() * 3);
    for byte in secret {
        if !escape(*byte) {
            out.push(*byte);
        } else if lower {
            out.extend_from_slice(format!("%{byte:02x}").as_bytes());
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    out
}

/// The characters of base64 that depend on the secret alone when it starts at `alignment` bytes modulo 3.
fn aligned_base64(secret: &[u8], alignment: usize, engine: &impl base64::Engine) -> Vec<u8> {
    let mut padded = vec![0; alignment];
    padded.extend_from_slice(secret);
    let encoded = engine.encode(&padded).into_bytes();
    let first = [0, 2, 3][alignment];
    let last = padded.len() / 3 * 4;
    encoded[first..last].to_vec()
}

fn gzip_starts(haystack: &[u8]) -> impl Iterator<Item = usize> + '_ {
    const MAGIC: [u8; 3] = [0x1f, 0x8b, 0x08];
    haystack
        .windows(MAGIC.len())
        .enumerate()
        .filter(|(_, window)| *window == MAGIC)
        .map(|(at, _)| at)
}

fn inflate(stream: &[u8]) -> Vec<u8> {
    let mut inflated = Vec::new();
    // A stream that is cut off or is none at all gives what could be read of it.
    let _ = flate2::read::GzDecoder::new(stream)
        .take(INFLATED_MAX)
        .read_to_end(&mut inflated);
    inflated
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{Canary, Spellings};
    use base64::Engine as _;

    fn found(haystack: &[u8], canary: &Canary) -> bool {
        Spellings::of(std::slice::from_ref(canary))
            .find(haystack)
            .is_some()
    }

    #[test]
    fn the_sweep_finds_a_canary_in_every_base64_alignment() {
        let canary = Canary::new("sk_");
        for prefix in ["", "u", "us", "user:"] {
            for engine in [
                base64::engine::general_purpose::STANDARD,
                base64::engine::general_purpose::URL_SAFE,
            ] {
                let encoded = engine.encode(format!("{prefix}{}\n", canary.text()));
                assert!(
                    found(format!("x{encoded}y").as_bytes(), &canary),
                    "{prefix:?}"
                );
            }
        }
    }

    #[test]
    fn the_sweep_finds_a_canary_in_hex_percent_reverse_wide_and_gzip() {
        let canary = Canary::with_symbols("sk_");
        let reversed: String = canary.text().chars().rev().collect();
        let mut gzip =
            flate2::write::GzEncoder::new(b"before".to_vec(), flate2::Compression::best());
        gzip.write_all(format!("head {} tail", canary.text()).as_bytes())
            .unwrap();
        let wide: Vec<u8> = canary
            .text()
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for haystack in [
            hex::encode(canary.bytes()).into_bytes(),
            hex::encode_upper(canary.bytes()).into_bytes(),
            reversed.into_bytes(),
            wide,
            gzip.finish().unwrap(),
            canary.bytes()[20..].to_vec(),
        ] {
            assert!(
                found(&haystack, &canary),
                "{:?}",
                String::from_utf8_lossy(&haystack)
            );
        }
    }

    #[test]
    fn the_sweep_finds_nothing_where_nothing_is() {
        let canary = Canary::new("sk_");
        let other = Canary::new("sk_");
        assert!(!found(other.bytes(), &canary));
        assert!(!found(&canary.bytes()[..12], &canary));
    }
}
