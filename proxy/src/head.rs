//! The one strict reading of a request head, before any other parser may be lenient with it.
//!
//! Pingora and `httparse` repair or drop what RFC 9112 leaves open (a bare LF, a Content-Length beside a
//! Transfer-Encoding, an escaped request target). What was repaired is not what policy saw, so such a
//! head is refused here from its raw bytes. This module also reads the proxy's own CONNECT.

use memchr::{memchr, memchr_iter, memmem};
use thiserror::Error;

/// The most bytes a request head may have, request line included.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// The most header fields a request may have.
pub(crate) const MAX_FIELDS: usize = 100;
/// The most bytes a request target may have.
pub(crate) const MAX_TARGET: usize = 16 * 1024;

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum HeadError {
    #[error("the request line is malformed")]
    RequestLine,
    #[error("the HTTP version is not 1.0 or 1.1")]
    Version,
    #[error("a line does not end with CRLF")]
    LineEnd,
    #[error("a header field is folded over two lines")]
    Folded,
    #[error("a header name is malformed")]
    Name,
    #[error("a header value holds a control character")]
    Value,
    #[error("Content-Length is malformed or given twice")]
    ContentLength,
    #[error("Transfer-Encoding is not exactly `chunked`")]
    TransferEncoding,
    #[error("Content-Length and Transfer-Encoding are both given")]
    BothLengths,
    #[error(
        "a field reads like Content-Length or Transfer-Encoding to servers that take `_` for `-`"
    )]
    FramingTwin,
    #[error("an HTTP/1.0 body has no Content-Length")]
    Undelimited,
    #[error("Host is missing or given twice")]
    Host,
    #[error("the request target is longer than {MAX_TARGET} bytes")]
    TargetTooLong,
    #[error("the header fields are more than {MAX_FIELDS} or larger than {MAX_HEAD} bytes")]
    TooLarge,
}

/// The length of the head at the start of `bytes`, its blank line included, once it is whole.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// Whether what was read of a head has a line that ends with LF or CR alone: its end may never come.
pub(crate) fn has_bare_line_end(bytes: &[u8]) -> bool {
    let bare_lf = memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r');
    let bare_cr =
        memchr_iter(b'\r', bytes).any(|at| bytes.get(at + 1).is_some_and(|next| *next != b'\n'));
    bare_lf || bare_cr
}

/// The parts of a request head that the injector's door decides on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) host: Option<&'a str>,
    pub(crate) has_body: bool,
    /// How far the bytes of this request reach.
    pub(crate) framing: Framing,
    line: &'a [u8],
    fields: &'a [u8],
}

impl<'a> Head<'a> {
    /// Reads a whole head strictly: RFC 9112 without any of its leniencies.
    pub(crate) fn parse(head: &'a [u8]) -> Result<Self, HeadError> {
        if head.len() > MAX_HEAD {
            return Err(HeadError::TooLarge);
        }
        let (line, fields) = split_line(head)?;
        let (method, target) = request_line(line)?;
        let mut seen = Lengths::default();
        let mut host = None;
        let mut is_upgrade = false;
        let mut count = 0;
        for field in Fields(fields) {
            let (name, value) = field?;
            count += 1;
            if count > MAX_FIELDS {
                return Err(HeadError::TooLarge);
            }
            seen.note(name, value)?;
            if name.eq_ignore_ascii_case(b"host") && host.replace(text(value)?).is_some() {
                return Err(HeadError::Host);
            }
            is_upgrade |= name.eq_ignore_ascii_case(b"upgrade");
        }
        seen.check(line.ends_with(b"1.0"), method)?;
        Ok(Self {
            method,
            target,
            host,
            has_body: seen.chunked || seen.length.is_some_and(|length| length > 0),
            framing: seen.framing(is_upgrade),
            line,
            fields,
        })
    }

    /// The same head with another Host.
    pub(crate) fn with_host(&self, host: &str) -> Vec<u8> {
        let mut head = Vec::with_capacity(self.line.len() + self.fields.len() + host.len() + 8);
        head.extend_from_slice(self.line);
        head.extend_from_slice(b"\r\n");
        for (name, value) in Fields(self.fields).filter_map(Result::ok) {
            let is_host = name.eq_ignore_ascii_case(b"host");
            let value = if is_host { host.as_bytes() } else { value };
            for part in [name, b": ", value, b"\r\n"] {
                head.extend_from_slice(part);
            }
        }
        head.extend_from_slice(b"\r\n");
        head
    }

    /// The values of every field called `name`, in order.
    pub(crate) fn values(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        Fields(self.fields)
            .filter_map(Result::ok)
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }
}

/// How far the bytes of a request reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The body has so many bytes.
    Length(u64),
    /// The body ends with its last chunk.
    Chunked,
    /// To the connection's end: it may become another protocol's.
    Open,
}

/// Whether a field is read as one that frames the message where `_` is taken for `-`.
pub(crate) fn is_framing_twin(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"content_length") || name.eq_ignore_ascii_case(b"transfer_encoding")
}

/// A body's length in its one plain spelling: digits alone, and no zero before them, which some would read as octal.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    let is_plain = match value {
        [] => false,
        [b'0', rest @ ..] => rest.is_empty(),
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    is_plain.then(|| text(value).ok()?.parse().ok()).flatten()
}

/// What a head says of its body's length.
#[derive(Default)]
struct Lengths {
    length: Option<u64>,
    chunked: bool,
}

impl Lengths {
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = content_length(value);
            if self.length.is_some() || length.is_none() {
                return Err(HeadError::ContentLength);
            }
            self.length = length;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadError::TransferEncoding);
            }
            self.chunked = true;
        } else if is_framing_twin(name) {
            return Err(HeadError::FramingTwin);
        }
        Ok(())
    }

    fn framing(&self, is_upgrade: bool) -> Framing {
        match self.length {
            _ if is_upgrade => Framing::Open,
            _ if self.chunked => Framing::Chunked,
            length => Framing::Length(length.unwrap_or(0)),
        }
    }

    fn check(&self, http_10: bool, method: &str) -> Result<(), HeadError> {
        if self.chunked && self.length.is_some() {
            return Err(HeadError::BothLengths);
        }
        if self.chunked && http_10 {
            return Err(HeadError::TransferEncoding);
        }
        // It would end with the connection, and so could an answer never be awaited.
        if http_10 && self.length.is_none() && matches!(method, "POST" | "PUT" | "PATCH") {
            return Err(HeadError::Undelimited);
        }
        Ok(())
    }
}

/// `METHOD SP target SP HTTP/1.x`, single spaces, visible ASCII only.
fn request_line(line: &[u8]) -> Result<(&str, &str), HeadError> {
    let line = text(line).map_err(|_| HeadError::RequestLine)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadError::RequestLine);
    };
    if method.is_empty() || !method.bytes().all(is_token) || target.is_empty() {
        return Err(HeadError::RequestLine);
    }
    if target.len() > MAX_TARGET {
        return Err(HeadError::TargetTooLong);
    }
    // RFC 3986 has no place for these, and a fragment is never sent.
    let is_odd =
        |b: u8| !b.is_ascii_graphic() || matches!(b, b'<' | b'>' | b'"' | b'`' | b'#' | b'\\');
    if target.bytes().any(is_odd) {
        return Err(HeadError::RequestLine);
    }
    match version {
        "HTTP/1.1" | "HTTP/1.0" => Ok((method, target)),
        _ => Err(HeadError::Version),
    }
}

/// The field lines of a head up to its blank line.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), HeadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (line, rest) = match split_line(self.0) {
            Ok(split) => split,
            Err(error) => {
                self.0 = b"\r\n";
                return Some(Err(error));
            }
        };
        if line.is_empty() {
            return None;
        }
        self.0 = rest;
        Some(field(line))
    }
}

fn field(line: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(HeadError::Folded);
    }
    let colon = memchr(b':', line).ok_or(HeadError::Name)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(HeadError::Name);
    }
    // obs-text is let through: names of files travel in it, and no rule reads it.
    if value.iter().any(|&b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return Err(HeadError::Value);
    }
    Ok((name, value.trim_ascii()))
}

/// The first line without its CRLF, and the rest.
fn split_line(bytes: &[u8]) -> Result<(&[u8], &[u8]), HeadError> {
    let lf = memchr(b'\n', bytes).ok_or(HeadError::LineEnd)?;
    let line = bytes[..lf].strip_suffix(b"\r").ok_or(HeadError::LineEnd)?;
    if memchr(b'\r', line).is_some() {
        return Err(HeadError::LineEnd);
    }
    Ok((line, &bytes[lf + 1..]))
}

fn text(bytes: &[u8]) -> Result<&str, HeadError> {
    std::str::from_utf8(bytes).map_err(|_| HeadError::Value)
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "the loop ends at 255")]
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Head<'_>, HeadError> {
        Head::parse(head.as_bytes())
    }

    #[test]
    fn an_ordinary_head_is_read() {
        let head =
            parse("GET /v1 HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\nx-a:  2 \r\n\r\n").unwrap();
        assert_eq!(
            (head.method, head.target, head.host),
            ("GET", "/v1", Some("a.example"))
        );
        assert!(!head.has_body);
        assert_eq!(
            head.values("x-a").collect::<Vec<_>>(),
            [b"1".as_slice(), b"2"]
        );
    }

    #[test]
    fn every_leniency_is_refused() {
        let cases = [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", HeadError::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", HeadError::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", HeadError::LineEnd),
            ("GET  / HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET / HTTP/1.1 \r\n\r\n", HeadError::RequestLine),
            ("GET\t/ HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET /\u{e9} HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("G\"T / HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET /<a> HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET /a#b HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET /\u{7f} HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            (" / HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET  HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            ("GET / HTTP/1.1 x\r\n\r\n", HeadError::RequestLine),
            ("GET / HTTP/1.2\r\n\r\n", HeadError::Version),
            ("GET / HTTP/2.0\r\n\r\n", HeadError::Version),
            ("GET / HTTP/1.1\r\nA: 1\r\n b\r\n\r\n", HeadError::Folded),
            ("GET / HTTP/1.1\r\nA : 1\r\n\r\n", HeadError::Name),
            ("GET / HTTP/1.1\r\n: 1\r\n\r\n", HeadError::Name),
            ("GET / HTTP/1.1\r\nA\r\n\r\n", HeadError::Name),
            ("GET / HTTP/1.1\r\nA: \u{1}\r\n\r\n", HeadError::Value),
            ("GET / HTTP/1.1\r\nA: \u{7f}\r\n\r\n", HeadError::Value),
            ("GET / HTTP/1.1\r\nA(: 1\r\n\r\n", HeadError::Name),
            ("GET / HTTP/1.1\r\n\tA: 1\r\n\r\n", HeadError::Folded),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
                HeadError::Host,
            ),
        ];
        for (head, error) in cases {
            assert_eq!(parse(head), Err(error), "{head:?}");
        }
    }

    #[test]
    fn every_odd_body_length_is_refused() {
        for value in [
            "+5",
            "0x5",
            "5,5",
            "5, 6",
            "",
            "-1",
            "18446744073709551616",
            "5 5",
            "00",
            "005",
        ] {
            let head = format!("POST / HTTP/1.1\r\nContent-Length: {value}\r\n\r\n");
            assert_eq!(parse(&head), Err(HeadError::ContentLength), "{value:?}");
        }
        let twice = "POST / HTTP/1.1\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(parse(twice), Err(HeadError::ContentLength));
        for value in [
            "identity",
            "chunked, identity",
            "gzip, chunked",
            "xchunked",
            "chunked;a",
            "",
        ] {
            let head = format!("POST / HTTP/1.1\r\nTransfer-Encoding: {value}\r\n\r\n");
            assert_eq!(parse(&head), Err(HeadError::TransferEncoding), "{value:?}");
        }
        let both = "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(both), Err(HeadError::BothLengths));
        let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(parse(old), Err(HeadError::TransferEncoding));
        let endless = "POST / HTTP/1.0\r\nHost: a\r\n\r\n";
        assert_eq!(parse(endless), Err(HeadError::Undelimited));
        for twin in [
            "Transfer_Encoding: chunked",
            "content_length: 9",
            "Transfer-Encoding_: x",
        ] {
            let head = format!("POST / HTTP/1.1\r\nContent-Length: 5\r\n{twin}\r\n\r\n");
            let is_twin = !twin.contains("-E");
            assert_eq!(parse(&head).is_err(), is_twin, "{twin}");
        }
    }

    #[test]
    fn a_body_that_ends_with_the_connection_is_refused() {
        for (head, checked) in [
            ("POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\n", None),
            ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("GET / HTTP/1.0\r\n\r\n", None),
            ("GET / HTTP/1.0\r\nContent-Length: 5\r\n\r\n", None),
            ("PUT / HTTP/1.0\r\n\r\n", Some(HeadError::Undelimited)),
            ("PATCH / HTTP/1.0\r\n\r\n", Some(HeadError::Undelimited)),
        ] {
            assert_eq!(parse(head).err(), checked, "{head:?}");
        }
    }

    #[test]
    fn a_head_tells_whether_a_body_follows() {
        for (fields, has_body) in [
            ("", false),
            ("Content-Length: 0\r\n", false),
            ("Content-Length: 1\r\n", true),
            ("Transfer-Encoding: chunked\r\n", true),
            ("X-Content-Length: 1\r\n", false),
        ] {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(parse(&head).unwrap().has_body, has_body, "{fields:?}");
        }
    }

    #[test]
    fn another_host_takes_the_place_of_the_first_and_all_else_stays() {
        let head = "GET /v1 HTTP/1.1\r\nX-A: 1\r\nhost: a.example\r\nX-B:\r\n\r\n";
        let other = parse(head).unwrap().with_host("b.example");
        let expected = "GET /v1 HTTP/1.1\r\nX-A: 1\r\nhost: b.example\r\nX-B: \r\n\r\n";
        assert_eq!(String::from_utf8(other).unwrap(), expected);
    }

    #[test]
    fn a_head_ends_behind_its_blank_line() {
        for (bytes, end) in [
            ("", None),
            ("GET / HTTP/1.1\r\n", None),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r", None),
            ("GET / HTTP/1.1\r\n\r\n", Some(18)),
            ("GET / HTTP/1.1\r\n\r\nbody\r\n\r\n", Some(18)),
        ] {
            assert_eq!(end_of_head(bytes.as_bytes()), end, "{bytes:?}");
        }
    }

    #[test]
    fn a_line_that_ends_oddly_is_seen_before_the_head_is_whole() {
        for odd in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "\n",
            "GET / HTTP/1.1\rHost: a",
            "GET / HTTP/1.1\r\r\n",
            "GET / HTTP/1.1\r\nHost: a\n",
        ] {
            assert!(has_bare_line_end(odd.as_bytes()), "{odd:?}");
        }
        for begun in [
            "GET / HTTP/1.1\r",
            "GET / HTTP/1.1\r\nHost: a",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "",
        ] {
            assert!(!has_bare_line_end(begun.as_bytes()), "{begun:?}");
        }
    }

    #[test]
    fn a_head_says_how_far_its_request_reaches() {
        let framing = |fields: &str| {
            let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            parse(&head).unwrap().framing
        };
        assert_eq!(framing("Content-Length: 7\r\n"), Framing::Length(7));
        assert_eq!(framing(""), Framing::Length(0));
        assert_eq!(framing("Transfer-Encoding: chunked\r\n"), Framing::Chunked);
        assert_eq!(framing("Upgrade: websocket\r\n"), Framing::Open);
        let both = "Content-Length: 7\r\nUpgrade: websocket\r\n";
        assert_eq!(framing(both), Framing::Open);
        assert_eq!(framing("Upgrade: h2c\r\nX-A: 1\r\n"), Framing::Open);
    }

    #[test]
    fn bounds_hold() {
        let longest = "a".repeat(16_383);
        assert!(
            parse(&format!(
                "GET /{longest} HTTP/1.1\r\nHost: a.example\r\n\r\n"
            ))
            .is_ok()
        );
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(16_384));
        assert_eq!(parse(&long), Err(HeadError::TargetTooLong));
        let many = format!(
            "GET / HTTP/1.1\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_FIELDS + 1)
        );
        assert_eq!(parse(&many), Err(HeadError::TooLarge));
        let most = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS));
        assert!(parse(&most).is_ok());
        let of_length = |length: usize| {
            let rest = "GET / HTTP/1.1\r\na: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(length - rest))
        };
        assert!(parse(&of_length(65_536)).is_ok());
        assert_eq!(parse(&of_length(65_537)), Err(HeadError::TooLarge));
    }
}
