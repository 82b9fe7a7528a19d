//! What Amazon S3 would make of a body in AWS's own chunks: its data by digest, its chunks' signatures, its trailer.
//!
//! Written for the tests alone and from the documentation, so that it owes nothing to the injector's own reader.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// One chunk as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    signature: Option<String>,
    sha256: String,
}

/// A body in chunks, so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chunked {
    chunks: Vec<Chunk>,
    /// The size line under way; behind the last chunk, all that follows it.
    text: Vec<u8>,
    /// Data and CRLF of the chunk under way, yet to come.
    left: u64,
    is_last: bool,
    chunk: Sha256,
    all: Sha256,
    length: u64,
}

impl Chunked {
    pub(super) fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.is_last {
                self.text.extend_from_slice(bytes);
                return;
            }
            if self.left > 0 {
                bytes = self.data(bytes);
                continue;
            }
            self.text.push(bytes[0]);
            bytes = &bytes[1..];
            if self.text.ends_with(b"\r\n") {
                self.begin();
            }
        }
    }

    fn begin(&mut self) {
        let text = std::mem::take(&mut self.text);
        let line = std::str::from_utf8(&text[..text.len() - 2]).expect("a size line is ASCII");
        let (size, signature) = match line.split_once(";chunk-signature=") {
            Some((size, signature)) => (size, Some(signature.to_owned())),
            None => (line, None),
        };
        let size = u64::from_str_radix(size, 16).expect("a size in hexadecimal digits");
        self.chunks.push(Chunk {
            signature,
            sha256: hex::encode(Sha256::digest([])),
        });
        self.is_last = size == 0;
        self.left = if size == 0 { 0 } else { size + 2 };
    }

    fn data<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let data = usize::try_from(self.left.saturating_sub(2))
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.chunk.update(&bytes[..data]);
        self.all.update(&bytes[..data]);
        self.length += data as u64;
        self.left -= data as u64;
        let rest = &bytes[data..];
        let end = usize::try_from(self.left.min(2))
            .expect("at most two")
            .min(rest.len());
        if self.left <= 2 && end > 0 {
            let expected = &b"\r\n"[2 - usize::try_from(self.left).expect("at most two")..];
            assert_eq!(&rest[..end], &expected[..end], "data ends with CRLF");
            self.left -= end as u64;
            if self.left == 0 {
                let last = self.chunks.last_mut().expect("its chunk began");
                last.sha256 = hex::encode(self.chunk.finalize_reset());
            }
            return &rest[end..];
        }
        rest
    }

    /// The hexadecimal SHA-256 of the data without its framing.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(self.all.clone().finalize())
    }

    /// How much data there is without its framing.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Whether the last chunk came: without it nothing is stored.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_last && self.text.ends_with(b"\r\n")
    }

    /// The lines behind the last chunk.
    pub(crate) fn trailer(&self) -> Vec<(String, String)> {
        let text = String::from_utf8_lossy(&self.text);
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect()
    }

    /// Checks every signature, from the request's own on.
    ///
    /// `scope` is `DATE/REGION/SERVICE/aws4_request`.
    #[track_caller]
    pub(crate) fn expect_signed(&self, secret: &str, date_time: &str, scope: &str, seed: &str) {
        let key = scope
            .split('/')
            .fold(format!("AWS4{secret}").into_bytes(), |key, word| {
                hmac(&key, word)
            });
        let mut previous = seed.to_owned();
        let empty = hex::encode(Sha256::digest([]));
        let mut sign = |name: &str, hashes: &str| {
            let text =
                format!("AWS4-HMAC-SHA256-{name}\n{date_time}\n{scope}\n{previous}\n{hashes}");
            previous = hex::encode(hmac(&key, &text));
            previous.clone()
        };
        for (at, chunk) in self.chunks.iter().enumerate() {
            let expected = sign("PAYLOAD", &format!("{empty}\n{}", chunk.sha256));
            assert_eq!(chunk.signature.as_ref(), Some(&expected), "chunk {at}");
        }
        let mut trailer = self.trailer();
        let Some((_, signature)) = trailer.pop() else {
            return;
        };
        let lines: Vec<String> = trailer
            .iter()
            .map(|(name, value)| format!("{name}:{}\n", value.trim()))
            .collect();
        let expected = sign("TRAILER", &hex::encode(Sha256::digest(lines.concat())));
        assert_eq!(signature, expected, "the trailer");
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
