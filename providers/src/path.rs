//! Paths and queries that two programs could read in two ways (threats.md B5-B8).

use crate::inject::sigv4;

/// What is odd about a path or a query, as the end of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OddPath(&'static str);

impl OddPath {
    /// The same.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// What an escaped slash is refused with, where the template does not take one.
pub const ENCODED_SLASH: &str =
    "the path holds an escaped slash (%2F), which servers read in two ways";

/// Refuses a path, as it is sent and without its query, that a server may read otherwise than the policy does. Says whether it
/// holds `%2F` that is for the template to allow ([`Template::allows_encoded_slash`](crate::Template::allows_encoded_slash)).
///
/// What AWS's services read in one way passes there: `%2F` as part of a segment, at all but Amazon S3
/// ([`sigv4::takes_encoded_slash`]), and keys of Amazon S3 that hold percent-escapes as text, since S3 decodes a path once.
///
/// # Errors
/// [`OddPath`]: nothing is repaired.
pub fn check(path: &str, host: &str) -> Result<bool, OddPath> {
    let bytes = path.as_bytes();
    if path == "*" {
        return Ok(false);
    }
    if bytes.first() != Some(&b'/') {
        return Err(OddPath("the path does not begin with a slash"));
    }
    if !bytes.iter().all(u8::is_ascii_graphic) {
        return Err(OddPath("the path holds bytes that must be percent-encoded"));
    }
    if memchr::memchr3(b'\\', b'#', b'"', bytes).is_some() {
        return Err(OddPath("the path holds a backslash, a quote or a fragment"));
    }
    let has_escapes = memchr::memchr(b'%', bytes).is_some();
    let has_encoded_slash = has_escapes && check_escapes(path, host)?;
    if has_encoded_slash {
        let separated = path.replace("%2f", "/").replace("%2F", "/");
        if sigv4::takes_encoded_slash(host) {
            // An ARN or a name that ends or begins with a slash, or holds two, has no empty segment here.
            check_no_empty(path)?;
            check_no_dots(&separated)?;
            return Ok(false);
        }
        check_segments(&separated)?;
    } else if check_segments(path).is_err() {
        check_key(path, host)?;
    }
    Ok(has_encoded_slash)
}

/// A path with odd segments is one thing to all readers at Amazon S3 alone, which takes a key as it stands, with as many `..`
/// as segments before them (`AmazonS3/latest/userguide/object-keys.html`). Escaped dots are odd there, too.
fn check_key(path: &str, host: &str) -> Result<(), OddPath> {
    let Some(key) = sigv4::object_key(host, path) else {
        return check_segments(path);
    };
    let mut depth = 0_u32;
    for segment in key.split('/') {
        depth = match segment {
            "" | "." => Some(depth),
            ".." => depth.checked_sub(1),
            plain => check_segments(plain).ok().map(|()| depth + 1),
        }
        .ok_or(OddPath(
            "the key's dot segments lead out of it, or are escaped",
        ))?;
    }
    Ok(())
}

/// `..;` with each character escaped, in bytes, and one more, by which a longer name is told.
const LONGEST_DOTS: usize = 10;

/// No segment may be empty, but the last, nor `.` or `..`, however its dots are written.
fn check_segments(path: &str) -> Result<(), OddPath> {
    check_no_empty(path)?;
    check_no_dots(path)
}

fn check_no_empty(path: &str) -> Result<(), OddPath> {
    if memchr::memmem::find(path.as_bytes(), b"//").is_some() {
        return Err(OddPath("the path holds an empty segment (`//`)"));
    }
    Ok(())
}

fn check_no_dots(path: &str) -> Result<(), OddPath> {
    for segment in path.split('/') {
        if !segment.starts_with(['.', '%']) {
            continue;
        }
        // A server may cut path parameters off before it resolves dots, and the escapes before either.
        let start = segment.get(..LONGEST_DOTS).unwrap_or(segment);
        let start = start
            .to_ascii_lowercase()
            .replace("%2e", ".")
            .replace("%3b", ";");
        let name = start.split(';').next().unwrap_or(&start);
        if matches!(name, "." | "..") {
            return Err(OddPath(
                "the path holds a dot segment; send the path it resolves to",
            ));
        }
    }
    Ok(())
}

/// Percent-escapes must decode to UTF-8 text without backslashes, controls or, but in keys of Amazon S3, further escapes. Says
/// whether one is a slash.
fn check_escapes(path: &str, host: &str) -> Result<bool, OddPath> {
    let bytes = path.as_bytes();
    let mut at = 0;
    let mut has_slash = false;
    while let Some(found) = memchr::memchr(b'%', &bytes[at..]) {
        let start = at + found;
        let byte = bytes
            .get(start + 1..start + 3)
            .and_then(|digits| hex_byte(digits[0], digits[1]))
            .ok_or(OddPath("the path holds a malformed percent-escape"))?;
        if byte < 0x20 || byte == 0x7f || byte == b'\\' {
            return Err(OddPath(
                "the path holds an escaped backslash or control character",
            ));
        }
        has_slash |= byte == b'/';
        at = start + 3;
    }
    let decoded = percent_encoding::percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| OddPath("the path does not decode to UTF-8"))?;
    if has_escape(decoded.as_bytes()) && sigv4::object_key(host, path).is_none() {
        return Err(OddPath("the path is percent-encoded twice"));
    }
    Ok(has_slash)
}

/// Whether a text that was decoded would change if it were decoded again: its percent sign or its digits may have been escaped.
fn has_escape(decoded: &[u8]) -> bool {
    memchr::memchr_iter(b'%', decoded).any(|at| {
        decoded
            .get(at + 1..at + 3)
            .is_some_and(|digits| hex_byte(digits[0], digits[1]).is_some())
    })
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

/// A query is forwarded as it is; only what is no query at all is refused.
///
/// # Errors
/// [`OddPath`].
pub fn check_query(query: &str) -> Result<(), OddPath> {
    if query.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Ok(());
    }
    Err(OddPath(
        "the query holds bytes that must be percent-encoded",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_programs_read_in_two_ways_is_odd() {
        for path in [
            "/..",
            "/a/%2e%2E/b",
            "/%zz",
            "/%252e",
            "/a\\b",
            "//a",
            "/a;x/..;y",
            "a",
        ] {
            assert!(check(path, "api.example.com").is_err(), "{path}");
        }
        assert_eq!(check("/v1/a%2fb", "api.example.com"), Ok(true));
        let doubled = check("/v1/a%2F%2Fb", "api.example.com");
        assert!(doubled.is_err(), "{doubled:?}");
        assert_eq!(check("/v1/a", "api.example.com"), Ok(false));
        assert!(check_query("a=b c").is_err());
        assert!(check_query("a=b%20c").is_ok());
    }

    #[test]
    fn an_escaped_slash_is_part_of_a_name_at_aws() {
        let bedrock = "bedrock-runtime.us-east-1.amazonaws.com";
        for path in [
            "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fabc/invoke",
            "/topics/%2Fa%2F%2Fb%2F",
        ] {
            assert_eq!(check(path, bedrock), Ok(false), "{path}");
        }
        for path in [
            "/model/a%2F..%2Fb",
            "/model/%2e%2E%2fb",
            "/model//a%2Fb",
            "/model/a%252Fb",
            "/model/a%5Cb%2Fc",
        ] {
            assert!(check(path, bedrock).is_err(), "{path}");
        }
        for host in ["data.s3.amazonaws.com", "s3.us-east-1.amazonaws.com"] {
            assert_eq!(check("/data/a%2Fb", host), Ok(true), "{host}");
        }
    }

    #[test]
    fn a_key_of_s3_may_hold_escapes_as_text() {
        for path in [
            "/data/ts=2020%252000%253A00",
            "/data/%252e%252E",
            "/data/%252F",
        ] {
            for host in ["data.s3.amazonaws.com", "s3.us-east-1.amazonaws.com"] {
                assert_eq!(check(path, host), Ok(false), "{host}{path}");
            }
            for host in ["sqs.us-east-1.amazonaws.com", "api.example.com"] {
                assert!(check(path, host).is_err(), "{host}{path}");
            }
        }
        let regional = "s3.us-east-1.amazonaws.com";
        for path in [
            "/d%2561ta/key",
            "/data/%2525/%2e%2e",
            "/data/%2525%5C",
            "/data/%2525%00",
            "/data/%2525%09",
        ] {
            assert!(check(path, regional).is_err(), "{path}");
        }
        assert_eq!(check("/data/%2525%2Fa", regional), Ok(true));
    }
}
