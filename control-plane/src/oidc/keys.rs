//! The keys that a provider publishes (RFC 7517): those that verify signatures, and no others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// A public key.
pub(crate) struct Key {
    kid: Option<String>,
    kind: Kind,
    /// The one algorithm that its publisher means it for.
    algorithm: Option<Algorithm>,
    pub(super) verifies: DecodingKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The keys of a document. Those of other kinds, uses and sizes are left out, above all secret ones: a provider may publish
/// keys for much else. `None` if it is no such document.
pub(crate) fn read(document: &[u8]) -> Option<Vec<Key>> {
    let set: KeySet = serde_json::from_slice(document).ok()?;
    let keys = set.keys.into_iter().take(MAX_KEYS);
    let keys = keys.filter_map(|key| Key::read(serde_json::from_value(key).ok()?));
    Some(keys.collect())
}

/// Asymmetric, and none that anybody advises against (RFC 8725, section 3.2).
pub(crate) fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" | "Ed25519" => Algorithm::EdDSA,
        _ => return None,
    })
}

impl Key {
    fn read(jwk: Jwk) -> Option<Self> {
        let is_for_signatures = jwk.r#use.as_deref().is_none_or(|used| used == "sig")
            && jwk
                .key_ops
                .is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !is_for_signatures || jwk.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID) {
            return None;
        }
        let algorithm = match jwk.alg.as_deref() {
            None => None,
            Some(name) => Some(algorithm(name)?),
        };
        let (kind, verifies) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => (Kind::Rsa, rsa(&jwk.n?, &jwk.e?)?),
            ("EC", Some("P-256")) => (Kind::P256, point(&jwk.x?, &jwk.y?, 32)?),
            ("EC", Some("P-384")) => (Kind::P384, point(&jwk.x?, &jwk.y?, 48)?),
            ("OKP", Some("Ed25519")) => {
                let x = bytes(&jwk.x?).filter(|x| x.len() == 32)?;
                (Kind::Ed25519, DecodingKey::from_ed_der(&x))
            }
            _ => return None,
        };
        let key = Self {
            kid: jwk.kid,
            kind,
            algorithm: None,
            verifies,
        };
        let is_consistent = algorithm.is_none_or(|algorithm| key.takes(algorithm));
        is_consistent.then_some(Self { algorithm, ..key })
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether it verifies signatures of this algorithm: what a token asks for never decides how a key is used.
    pub(crate) fn takes(&self, algorithm: Algorithm) -> bool {
        let kind = match algorithm {
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => Kind::Rsa,
            Algorithm::ES256 => Kind::P256,
            Algorithm::ES384 => Kind::P384,
            Algorithm::EdDSA => Kind::Ed25519,
            _ => return false,
        };
        self.kind == kind && self.algorithm.is_none_or(|meant| meant == algorithm)
    }
}

/// 2048 bits is the least that is safe, 4096 the most that the library takes; an exponent is small.
fn rsa(n: &str, e: &str) -> Option<DecodingKey> {
    let (n, e) = (bytes(n)?, bytes(e)?);
    let bits = n.iter().skip_while(|byte| **byte == 0);
    let bits = bits.count() * 8;
    let is_odd = e.last().is_some_and(|last| last % 2 == 1);
    let is_more_than_one = e.iter().any(|byte| *byte > 1) || e.len() > 1 && e[0] > 0;
    let is_good = (2048..=4096).contains(&bits) && e.len() <= 4 && is_odd && is_more_than_one;
    is_good.then(|| DecodingKey::from_rsa_raw_components(&n, &e))
}

fn point(x: &str, y: &str, size: usize) -> Option<DecodingKey> {
    let is_good = bytes(x)?.len() == size && bytes(y)?.len() == size;
    is_good
        .then(|| DecodingKey::from_ec_components(x, y).ok())
        .flatten()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Large providers have about ten.
const MAX_KEYS: usize = 64;
const MAX_KID: usize = 256;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(bytes: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xc3; bytes])
    }

    fn read_one(key: &Value) -> Option<Key> {
        let document = json!({ "keys": [key] }).to_string();
        read(document.as_bytes()).unwrap().pop()
    }

    #[test]
    fn keys_of_every_taken_kind_serve_their_own_algorithms() {
        let rsa = json!({"kty": "RSA", "n": text(256), "e": "AQAB"});
        let p256 = json!({"kty": "EC", "crv": "P-256", "x": text(32), "y": text(32)});
        let p384 = json!({"kty": "EC", "crv": "P-384", "x": text(48), "y": text(48)});
        let ed25519 = json!({"kty": "OKP", "crv": "Ed25519", "x": text(32)});
        let all = ["RS256", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"];
        for (key, own) in [
            (rsa, &["RS256", "PS512"][..]),
            (p256, &["ES256"]),
            (p384, &["ES384"]),
            (ed25519, &["EdDSA", "Ed25519"]),
        ] {
            let key = read_one(&key).unwrap();
            let fits = |name: &&str| key.takes(algorithm(name).unwrap());
            let found: Vec<&str> = all.iter().copied().filter(fits).collect();
            assert_eq!(found, own);
        }
        for symmetric in ["HS256", "HS512", "none", "ES256K", ""] {
            assert_eq!(algorithm(symmetric), None, "{symmetric}");
        }
    }

    #[test]
    fn keys_of_other_kinds_uses_and_sizes_are_left_out() {
        let rsa = |bytes: usize, e: &str| json!({"kty": "RSA", "n": text(bytes), "e": e});
        let with = |name: &str, value: Value| {
            let mut key = rsa(256, "AQAB");
            key[name] = value;
            key
        };
        for bad in [
            rsa(128, "AQAB"),
            rsa(1024, "AQAB"),
            rsa(256, "AQ"),
            rsa(256, "AAE"),
            rsa(256, "Ag"),
            rsa(256, ""),
            rsa(256, "AQAAAAAB"),
            rsa(256, "AQAB="),
            with("use", json!("enc")),
            with("key_ops", json!(["sign"])),
            with("alg", json!("HS256")),
            with("alg", json!("ES256")),
            with("kty", json!("oct")),
            with("kid", json!("x".repeat(257))),
            with("n", json!(null)),
            json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}),
            json!({"kty": "EC", "crv": "P-256", "x": text(31), "y": text(32)}),
            json!({"kty": "EC", "crv": "secp256k1", "x": text(32), "y": text(32)}),
            json!({"kty": "OKP", "crv": "X25519", "x": text(32)}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": text(33)}),
            json!("key"),
        ] {
            assert!(read_one(&bad).is_none(), "{bad}");
        }
        assert!(read_one(&with("key_ops", json!(["verify"]))).is_some());
        assert!(read(b"{}").is_none());
        assert!(read(b"<html>").is_none());
        let many = json!({ "keys": vec![rsa(256, "AQAB"); 100] }).to_string();
        assert_eq!(read(many.as_bytes()).unwrap().len(), MAX_KEYS);
    }
}
