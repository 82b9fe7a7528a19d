//! The strict reading of a chunked request body's framing, while its bytes pass on to Pingora's lenient one.
//!
//! Pingora takes a bare LF in an extension and spaces after a size. It frames the body anew on its way
//! upstream, so nothing is smuggled past us; but what stands before us may read such a body otherwise
//! (threats.md D4). Nothing is copied or held here: lines are walked byte by byte, data is skipped by count.

use thiserror::Error;

use crate::head::is_token;

/// Hexadecimal digits of a chunk size: less than 2^60 bytes.
const MAX_DIGITS: u8 = 15;
/// Bytes that all extensions and trailers of one body may take (RFC 9112 section 7.1.1 asks for a bound).
const MAX_ASIDE: u16 = 8 * 1024;

/// Where a chunked body leaves the one form that RFC 9112 section 7.1 gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum ChunkError {
    #[error("a chunk size is not 1 to {MAX_DIGITS} hexadecimal digits")]
    Size,
    #[error("a chunk extension is malformed")]
    Extension,
    #[error("a line of the chunked body does not end with CRLF")]
    LineEnd,
    #[error("a chunk is not followed by CRLF")]
    DataEnd,
    #[error("a trailer field is malformed")]
    Trailer,
    #[error("chunk extensions and trailers are longer than {MAX_ASIDE} bytes")]
    TooLong,
    #[error("bytes follow the last chunk")]
    AfterEnd,
}

/// How far into a chunked body its bytes have been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunks {
    state: State,
    /// The size of the chunk whose line is being read.
    size: u64,
    /// What extensions and trailers took so far.
    aside: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a chunk's size, after this many digits.
    Size(u8),
    /// In the name of an extension; whether it has begun.
    Name(bool),
    /// Right behind the `=` of an extension.
    ValueStart,
    /// In the value of an extension that is a token.
    Value,
    /// In a quoted value.
    Quoted,
    /// Behind a backslash in a quoted value.
    Escaped,
    /// Behind the closing quote.
    Unquoted,
    /// Behind the CR of a size line.
    SizeLf,
    /// In data, with this much of it to come.
    Data(u64),
    /// Behind the data, before its CR.
    DataCr,
    DataLf,
    /// At the start of a line behind the last chunk.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    /// Behind the whole body.
    End,
    Broken(ChunkError),
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            state: State::Size(0),
            size: 0,
            aside: 0,
        }
    }
}

impl Chunks {
    /// Reads the next bytes of the body.
    ///
    /// An error stays: nothing behind it can be told apart any more.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<(), ChunkError> {
        while let [byte, rest @ ..] = bytes {
            if let State::Data(left) = self.state {
                let here = left.min(bytes.len() as u64);
                self.state = if here == left {
                    State::DataCr
                } else {
                    State::Data(left - here)
                };
                bytes = &bytes[usize::try_from(here).expect("not more than there are")..];
                continue;
            }
            match self.step(*byte) {
                Ok(next) => self.state = next,
                Err(error) => {
                    self.state = State::Broken(error);
                    return Err(error);
                }
            }
            bytes = rest;
        }
        match self.state {
            State::Broken(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether the body came to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::End
    }

    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        use State::{
            Broken, Data, DataCr, DataLf, End, EndLf, Escaped, Name, Quoted, Size, SizeLf, Trailer,
            TrailerLf, TrailerName, TrailerValue, Unquoted, Value, ValueStart,
        };
        let state = self.state;
        match (state, byte) {
            (Size(digits @ 0..MAX_DIGITS), b) if b.is_ascii_hexdigit() => {
                let digit = char::from(b).to_digit(16).unwrap_or(0);
                self.size = self.size << 4 | u64::from(digit);
                Ok(Size(digits + 1))
            }
            (Size(1..) | Value | Unquoted | Name(true), b'\r') => Ok(SizeLf),
            (Size(1..) | Value | Unquoted | Name(true), b';') => self.aside(Name(false)),
            (Size(1..), b'\n') => Err(ChunkError::LineEnd),
            (Size(_), _) => Err(ChunkError::Size),
            (Name(true), b'=') => self.aside(ValueStart),
            (Name(_), b) if is_token(b) => self.aside(Name(true)),
            (ValueStart, b'"') => self.aside(Quoted),
            (ValueStart | Value, b) if is_token(b) => self.aside(Value),
            (Quoted, b'"') => self.aside(Unquoted),
            (Quoted, b'\\') => self.aside(Escaped),
            (Quoted, b) if is_text(b) => self.aside(Quoted),
            (Escaped, b) if is_text(b) => self.aside(Quoted),
            (Name(_) | ValueStart | Value | Quoted | Escaped | Unquoted, b) => {
                Err(if matches!(b, b'\r' | b'\n') {
                    ChunkError::LineEnd
                } else {
                    ChunkError::Extension
                })
            }
            (SizeLf, b'\n') => Ok(match std::mem::take(&mut self.size) {
                0 => Trailer,
                size => Data(size),
            }),
            (DataCr, b'\r') => Ok(DataLf),
            (DataLf, b'\n') => Ok(Size(0)),
            (DataCr | DataLf, _) => Err(ChunkError::DataEnd),
            (Trailer, b'\r') => Ok(EndLf),
            (Trailer | TrailerName, b) if is_token(b) => self.aside(TrailerName),
            (TrailerName, b':') => self.aside(TrailerValue),
            (TrailerValue, b'\r') => Ok(TrailerLf),
            (TrailerValue, b) if is_text(b) => self.aside(TrailerValue),
            (TrailerLf, b'\n') => Ok(Trailer),
            (EndLf, b'\n') => Ok(End),
            (SizeLf | TrailerLf | EndLf, _)
            | (Trailer | TrailerName | TrailerValue, b'\r' | b'\n') => Err(ChunkError::LineEnd),
            (Trailer | TrailerName | TrailerValue, _) => Err(ChunkError::Trailer),
            (End, _) => Err(ChunkError::AfterEnd),
            (Broken(error), _) => Err(error),
            (Data(_), _) => unreachable!("data is skipped by count"),
        }
    }

    /// Counts a byte that is neither size nor data.
    fn aside(&mut self, next: State) -> Result<State, ChunkError> {
        if self.aside == MAX_ASIDE {
            return Err(ChunkError::TooLong);
        }
        self.aside += 1;
        Ok(next)
    }
}

/// What a quoted value or a trailer's value may hold.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<bool, ChunkError> {
        let mut chunks = Chunks::default();
        chunks.read(body.as_bytes()).map(|()| chunks.is_done())
    }

    #[test]
    fn proper_bodies_are_read_to_their_end() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n",
            "2\r\n\r\n\r\n0\r\n\r\n",
            "1;a\r\nx\r\n1;a=b;c=\"d \\\"e;\"\r\ny\r\n0;z\r\n\r\n",
            "0\r\nDigest: a=b\r\nX-Empty:\r\n\r\n",
        ] {
            assert_eq!(read(body), Ok(true), "{body:?}");
        }
    }

    #[test]
    fn a_chunk_is_as_long_as_its_digits_say() {
        for size in [1, 15, 16, 0x1a, 0x3f0, 0x1001, 0x1_2345] {
            let body = |size: usize| format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
            assert_eq!(read(&body(size)), Ok(true), "{size:x}");
            let longer = body(size).replacen('x', "xx", 1);
            assert_eq!(read(&longer), Err(ChunkError::DataEnd), "{size:x}");
        }
    }

    #[test]
    fn a_body_may_stop_anywhere_and_go_on() {
        let body = b"5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\n";
        for cut in 0..body.len() {
            let mut chunks = Chunks::default();
            chunks.read(&body[..cut]).unwrap();
            assert!(!chunks.is_done(), "{cut}");
            chunks.read(&body[cut..]).unwrap();
            assert!(chunks.is_done(), "{cut}");
        }
    }

    #[test]
    fn every_leniency_is_refused() {
        let cases = [
            ("\r\n", ChunkError::Size),
            (" 5\r\n", ChunkError::Size),
            ("5 \r\n", ChunkError::Size),
            ("5\t\r\n", ChunkError::Size),
            ("5 ;a\r\n", ChunkError::Size),
            ("0x5\r\n", ChunkError::Size),
            ("+5\r\n", ChunkError::Size),
            ("-5\r\n", ChunkError::Size),
            ("1_0\r\n", ChunkError::Size),
            ("5g\r\n", ChunkError::Size),
            ("\u{ff15}\r\n", ChunkError::Size),
            ("1000000000000000\r\n", ChunkError::Size),
            ("ffffffffffffffff5\r\n", ChunkError::Size),
            ("0000000000000005\r\n", ChunkError::Size),
            ("5\nhello", ChunkError::LineEnd),
            ("5\rhello", ChunkError::LineEnd),
            ("5\r\r\nhello", ChunkError::LineEnd),
            ("5;a\nhello", ChunkError::LineEnd),
            ("5;a\rhello", ChunkError::LineEnd),
            ("5;\r\nhello", ChunkError::LineEnd),
            ("5;a=\r\nhello", ChunkError::LineEnd),
            ("5;a=\"b\r\n\"\r\nhello", ChunkError::LineEnd),
            ("5;a =b\r\n", ChunkError::Extension),
            ("5; a\r\n", ChunkError::Extension),
            ("5;a=\"b\"c\r\n", ChunkError::Extension),
            ("5;a=\"\u{1}\"\r\n", ChunkError::Extension),
            ("5;a=\"\\\u{1}\"\r\n", ChunkError::Extension),
            ("5\r\nhello0\r\n\r\n", ChunkError::DataEnd),
            ("5\r\nhello\n0\r\n\r\n", ChunkError::DataEnd),
            ("5\r\nhello\r0\r\n\r\n", ChunkError::DataEnd),
            ("5\r\nhello!\r\n0\r\n\r\n", ChunkError::DataEnd),
            ("0\r\n\n", ChunkError::LineEnd),
            ("0\r\n\rx", ChunkError::LineEnd),
            ("0\r\nX\r\n\r\n", ChunkError::LineEnd),
            ("0\r\nX: y\n\r\n", ChunkError::LineEnd),
            ("0\r\nX : y\r\n\r\n", ChunkError::Trailer),
            ("0\r\nX: y\r\n folded\r\n\r\n", ChunkError::Trailer),
            ("0\r\nX: \u{0}\r\n\r\n", ChunkError::Trailer),
            ("0\r\n: y\r\n\r\n", ChunkError::Trailer),
            ("0\r\n\r\nGET", ChunkError::AfterEnd),
        ];
        for (body, error) in cases {
            assert_eq!(read(body), Err(error), "{body:?}");
        }
    }

    #[test]
    fn an_error_stays() {
        let mut chunks = Chunks::default();
        chunks.read(b"x").unwrap_err();
        assert_eq!(chunks.read(b"5\r\nhello\r\n"), Err(ChunkError::Size));
        assert_eq!(chunks.read(b""), Err(ChunkError::Size));
    }

    #[test]
    fn extensions_and_trailers_are_bounded_together() {
        let half = usize::from(MAX_ASIDE) / 2;
        let fits = format!(
            "1;{}\r\nx\r\n0;{}\r\n\r\n",
            "a".repeat(half - 1),
            "b".repeat(half - 1)
        );
        assert_eq!(read(&fits), Ok(true));
        let trailer = format!(
            "1;{}\r\nx\r\n0\r\nX:{}\r\n\r\n",
            "a".repeat(half),
            "b".repeat(half)
        );
        assert_eq!(read(&trailer), Err(ChunkError::TooLong));
    }
}
