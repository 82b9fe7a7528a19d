//! Short-lived tokens of agents: JWT (RFC 7519) signed by Ed25519 (RFC 8037).

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use leases::id::{AgentId, OrgId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

/// The key that signs agents' tokens.
///
/// Its id (`kid`) is derived from the public half, so that a rotated key needs no counter.
pub struct JwtKey {
    kid: String,
    signing: EncodingKey,
    verifying: DecodingKey,
}

/// What a token says once it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentToken {
    pub(crate) org: OrgId,
    pub(crate) agent: AgentId,
}

/// Bytes that are no Ed25519 key.
#[derive(Debug, thiserror::Error)]
#[error("the token signing key is not a 32-byte Ed25519 key")]
pub struct JwtKeyError;

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    org: OrgId,
    vault_ids: Vec<String>,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

impl JwtKey {
    /// Makes the 32 secret bytes of a new key.
    pub fn generate() -> Zeroizing<Vec<u8>> {
        Zeroizing::new(crate::context::random::<32>().to_vec())
    }

    /// Takes a key's 32 secret bytes.
    ///
    /// # Errors
    /// [`JwtKeyError`] if there are not 32 of them.
    pub fn from_secret_bytes(bytes: &[u8]) -> Result<Self, JwtKeyError> {
        let secret: Zeroizing<[u8; 32]> =
            Zeroizing::new(bytes.try_into().map_err(|_| JwtKeyError)?);
        let key = SigningKey::from_bytes(&secret);
        let document = key.to_pkcs8_der().map_err(|_| JwtKeyError)?;
        let public = key.verifying_key().to_bytes();
        Ok(Self {
            kid: URL_SAFE_NO_PAD.encode(&Sha256::digest(public)[..12]),
            signing: EncodingKey::from_ed_der(document.as_bytes()),
            verifying: DecodingKey::from_ed_der(&public),
        })
    }

    /// Signs a token for an agent; it lives [`TOKEN_LIFETIME`].
    pub(crate) fn issue(
        &self,
        agent: &AgentToken,
        vault_ids: Vec<String>,
        now: OffsetDateTime,
    ) -> Zeroizing<String> {
        let header = Header {
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        let iat = now.unix_timestamp();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: format!("agent:{}", agent.agent),
            org: agent.org.clone(),
            vault_ids,
            jti: hex::encode(crate::context::random::<16>()),
            iat,
            nbf: iat,
            exp: iat + TOKEN_LIFETIME.as_secs().cast_signed(),
        };
        let token = jsonwebtoken::encode(&header, &claims, &self.signing);
        Zeroizing::new(token.expect("an Ed25519 key signs claims of strings and numbers"))
    }

    /// Verifies a token: `EdDSA` alone, our key, issuer, audience, and the times by the given clock.
    ///
    /// `None` says nothing of the reason: to a caller all of them are one.
    pub(crate) fn verify(&self, token: &str, now: OffsetDateTime) -> Option<AgentToken> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        // Only what `issue` writes: no `jwk`, `jku` or `x5u` that brings its own key, no `crit` that would have to be understood.
        let expected = Header {
            kid: Some(self.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        if header != expected {
            return None;
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &validation())
            .ok()?
            .claims;
        let now = now.unix_timestamp();
        let lives = claims.nbf <= now && now < claims.exp && claims.iat <= now;
        let agent = AgentId::parse(claims.sub.strip_prefix("agent:")?).ok()?;
        lives.then_some(AgentToken {
            org: claims.org,
            agent,
        })
    }
}

/// The library checks signature, algorithm, issuer and audience; the times are checked above, by the clock that was passed in.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    validation.validate_exp = false;
    validation
}

impl fmt::Debug for JwtKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JwtKey")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// How long a token lives; clients of the seeds renew 60 s before its end.
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_mins(15);
const ISSUER: &str = "claviger";
const AUDIENCE: &str = "claviger-api";
const MAX_TOKEN: usize = 4096;

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::Jwk;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 07:00 UTC);

    fn key() -> JwtKey {
        JwtKey::from_secret_bytes(&[7; 32]).unwrap()
    }

    fn agent() -> AgentToken {
        AgentToken {
            org: OrgId::new(NOW),
            agent: AgentId::new(NOW),
        }
    }

    fn claims() -> Value {
        let now = NOW.unix_timestamp();
        json!({"iss": ISSUER, "aud": AUDIENCE, "sub": format!("agent:{}", agent().agent), "org": agent().org, "vault_ids": [],
               "jti": "x", "iat": now, "nbf": now, "exp": now + 900})
    }

    fn header(key: &JwtKey) -> Header {
        Header {
            kid: Some(key.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        }
    }

    fn signed(header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &key().signing).unwrap()
    }

    #[test]
    fn a_token_that_was_issued_is_verified_until_its_end() {
        let agent = agent();
        let token = key().issue(&agent, vec!["vlt_x".to_owned()], NOW);
        assert_eq!(key().verify(&token, NOW), Some(agent.clone()));
        assert_eq!(
            key().verify(&token, NOW + Duration::from_secs(899)),
            Some(agent)
        );
        assert_eq!(key().verify(&token, NOW + TOKEN_LIFETIME), None);
        assert_eq!(key().verify(&token, NOW - Duration::from_secs(1)), None);
    }

    #[test]
    fn the_reference_claims_are_accepted() {
        assert!(
            key()
                .verify(&signed(&header(&key()), &claims()), NOW)
                .is_some()
        );
    }

    #[test]
    fn a_missing_or_wrong_claim_is_refused() {
        for name in ["iss", "aud", "sub", "org", "iat", "nbf", "exp"] {
            let mut missing = claims();
            missing.as_object_mut().unwrap().remove(name);
            assert_eq!(
                key().verify(&signed(&header(&key()), &missing), NOW),
                None,
                "without {name}"
            );
            for wrong in [
                json!("other"),
                json!(null),
                json!(["claviger", "other"]),
                json!(i64::MAX),
                json!(-1),
            ] {
                let mut claims = claims();
                if wrong == json!(-1) && matches!(name, "nbf" | "iat")
                    || wrong == json!(i64::MAX) && name == "exp"
                {
                    continue;
                }
                claims[name] = wrong.clone();
                assert_eq!(
                    key().verify(&signed(&header(&key()), &claims), NOW),
                    None,
                    "{name} = {wrong}"
                );
            }
        }
    }

    #[test]
    fn another_algorithm_or_none_is_refused() {
        let public = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        let confused = Header {
            kid: Some(key().kid),
            ..Header::new(Algorithm::HS256)
        };
        let token =
            jsonwebtoken::encode(&confused, &claims(), &EncodingKey::from_secret(&public)).unwrap();
        assert_eq!(key().verify(&token, NOW), None);
        for alg in ["none", "None", "NONE", ""] {
            let header = URL_SAFE_NO_PAD
                .encode(json!({"alg": alg, "typ": "JWT", "kid": key().kid}).to_string());
            let body = URL_SAFE_NO_PAD.encode(claims().to_string());
            assert_eq!(key().verify(&format!("{header}.{body}."), NOW), None);
        }
    }

    #[test]
    fn an_unknown_kid_or_a_key_in_the_header_is_refused() {
        for kid in [
            None,
            Some("../../etc/passwd".to_owned()),
            Some("' OR 1=1".to_owned()),
        ] {
            let header = Header {
                kid,
                ..Header::new(Algorithm::EdDSA)
            };
            assert_eq!(key().verify(&signed(&header, &claims()), NOW), None);
        }
        let public = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        let own = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(public)});
        let own: Jwk = serde_json::from_value(own).unwrap();
        for header in [
            Header {
                jwk: Some(own),
                ..header(&key())
            },
            Header {
                jku: Some("https://example.org".to_owned()),
                ..header(&key())
            },
            Header {
                x5u: Some("https://example.org".to_owned()),
                ..header(&key())
            },
            Header {
                crit: Some(vec!["exp".to_owned()]),
                ..header(&key())
            },
        ] {
            assert_eq!(key().verify(&signed(&header, &claims()), NOW), None);
        }
    }

    #[test]
    fn another_key_or_a_changed_byte_is_refused() {
        let token = key().issue(&agent(), vec![], NOW);
        let other = JwtKey::from_secret_bytes(&[8; 32]).unwrap();
        assert_eq!(other.verify(&token, NOW), None);
        for index in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(key().verify(&changed, NOW), None, "byte {index}");
        }
        assert_eq!(key().verify(&"a".repeat(MAX_TOKEN + 1), NOW), None);
    }

    #[test]
    fn debug_shows_the_key_id_alone() {
        assert!(format!("{:?}", key()).starts_with("JwtKey { kid: "));
    }
}
