//! `hmac`: a keyed hash over declared parts of the request (RFC 2104), in a header.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use ring::{digest, hmac};
use time::OffsetDateTime;
use vault::Secret;
use zeroize::Zeroizing;

use super::{Secrets, header};
use crate::template::{HmacEncoding, HmacPiece, HmacSignature, HmacTime};

/// A request about to leave, as its signature covers it.
#[derive(Debug, Clone, Copy)]
pub struct HmacRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The host, as Host carries it.
    pub host: &'a str,
    /// The path without its query.
    pub path: &'a str,
    /// The query without its question mark.
    pub query: Option<&'a str>,
    /// The whole body; empty if there is none.
    pub body: &'a [u8],
}

/// A key that signs requests, with what it signs.
pub(super) struct Signer {
    signature: HmacSignature,
    key: Arc<Secret>,
}

impl Signer {
    /// `None` if the key is not at hand.
    pub(super) fn of(signature: &HmacSignature, secrets: &Secrets) -> Option<Self> {
        Some(Self {
            signature: signature.clone(),
            key: Arc::clone(secrets.0.get(&signature.key)?),
        })
    }

    /// Whether the body is part of what is signed.
    pub(super) fn reads_body(&self) -> bool {
        let reads = |piece: &HmacPiece| matches!(piece, HmacPiece::Body | HmacPiece::BodySha256);
        self.signature.over.iter().any(reads)
    }

    /// The header with the signature, and the one with the time if there is one.
    pub(super) fn sign(
        &self,
        request: &HmacRequest<'_>,
        now: OffsetDateTime,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let time = match self.signature.time {
            HmacTime::Seconds => now.unix_timestamp().to_string(),
            HmacTime::Milliseconds => (now.unix_timestamp_nanos() / 1_000_000).to_string(),
        };
        let algorithm = if self.signature.is_sha512 {
            hmac::HMAC_SHA512
        } else {
            hmac::HMAC_SHA256
        };
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, self.key.expose()));
        for piece in &self.signature.over {
            match piece {
                HmacPiece::Literal(text) => context.update(text.as_bytes()),
                HmacPiece::Method => context.update(request.method.as_bytes()),
                HmacPiece::Host => context.update(request.host.as_bytes()),
                HmacPiece::Path => context.update(request.path.as_bytes()),
                HmacPiece::Query => context.update(request.query.unwrap_or_default().as_bytes()),
                HmacPiece::Target => {
                    context.update(request.path.as_bytes());
                    if let Some(query) = request.query {
                        context.update(b"?");
                        context.update(query.as_bytes());
                    }
                }
                HmacPiece::Time => context.update(time.as_bytes()),
                HmacPiece::Body => context.update(request.body),
                HmacPiece::BodySha256 => {
                    let hash = digest::digest(&digest::SHA256, request.body);
                    context.update(hex::encode(hash).as_bytes());
                }
            }
        }
        let tag = context.sign();
        let text = match self.signature.encoding {
            HmacEncoding::Hex => hex::encode(tag),
            HmacEncoding::Base64 => STANDARD.encode(tag),
        };
        let value = Zeroizing::new(
            [self.signature.prefix.as_str(), &text]
                .concat()
                .into_bytes(),
        );
        let mut headers = vec![(self.signature.header.clone(), header::sensitive(value))];
        if let Some(name) = &self.signature.time_header {
            let time = HeaderValue::try_from(time).expect("digits are visible ASCII");
            headers.push((name.clone(), time));
        }
        headers
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use time::macros::datetime;

    use super::*;

    fn signed(signature: &HmacSignature, key: &str) -> Vec<(String, String)> {
        let secret = Arc::new(Secret::from(key.to_owned()));
        let secrets = Secrets(BTreeMap::from([("K".to_owned(), secret)]));
        let request = HmacRequest {
            method: "POST",
            host: "api.example",
            path: "/v1/orders",
            query: Some("a=b"),
            body: b"{}",
        };
        let signer = Signer::of(signature, &secrets).unwrap();
        signer
            .sign(&request, datetime!(2026-11-22 08:00 UTC))
            .into_iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect()
    }

    fn signature(over: Vec<HmacPiece>) -> HmacSignature {
        HmacSignature {
            key: "K".to_owned(),
            over,
            header: HeaderName::from_static("x-sign"),
            prefix: String::new(),
            encoding: HmacEncoding::Hex,
            is_sha512: false,
            time: HmacTime::Seconds,
            time_header: None,
        }
    }

    /// RFC 4231, section 4.3: test case 2.
    #[test]
    fn the_known_answers_of_rfc_4231_come_out() {
        let text = HmacPiece::Literal("what do ya want for nothing?".to_owned());
        let hex = signed(&signature(vec![text.clone()]), "Jefe");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex, [("x-sign".to_owned(), expected.to_owned())]);
        let long = HmacSignature {
            is_sha512: true,
            ..signature(vec![text])
        };
        assert!(
            signed(&long, "Jefe")[0]
                .1
                .starts_with("164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554")
        );
    }

    #[test]
    fn every_piece_stands_for_its_part_of_the_request() {
        use HmacPiece::{Body, BodySha256, Host, Literal, Method, Path, Query, Target, Time};
        let all = vec![Time, Method, Host, Path, Query, Target, Body, BodySha256];
        let empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        let text = format!("1795334400POSTapi.example/v1/ordersa=b/v1/orders?a=b{{}}{empty}");
        let written = signed(&signature(vec![Literal(text)]), "key");
        assert_eq!(signed(&signature(all), "key"), written);
    }

    #[test]
    fn the_time_is_sent_as_it_is_signed() {
        let timed = HmacSignature {
            time: HmacTime::Milliseconds,
            time_header: Some(HeaderName::from_static("x-time")),
            prefix: "v1=".to_owned(),
            encoding: HmacEncoding::Base64,
            ..signature(vec![HmacPiece::Time])
        };
        let headers = signed(&timed, "key");
        assert_eq!(
            headers[1],
            ("x-time".to_owned(), "1795334400000".to_owned())
        );
        assert!(headers[0].1.starts_with("v1=") && headers[0].1.ends_with('='));
    }
}
