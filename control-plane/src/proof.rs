//! Proofs of possession (DPoP, RFC 9449): a token that is bound to a key is worth nothing without a fresh signature by it.

use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use leases::id::AgentId;
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::NonceUse;
use time::OffsetDateTime;

use crate::AppState;
use crate::ed25519;
use crate::error::ApiError;
use crate::problem::Code;
use crate::sender::Sender;

/// The public key of somebody's proofs.
pub(crate) struct ProofKey {
    verifying: DecodingKey,
    algorithm: Algorithm,
    thumbprint: String,
}

impl ProofKey {
    /// Reads a public key as a JWK: P-256 (for ES256) or Ed25519 (for EdDSA), and no private half beside it.
    ///
    /// Members that say nothing of the key (`key_ops`, `ext`, `kid`) are passed over, as RFC 7517, section 4 wants.
    pub(crate) fn parse(jwk: &Value) -> Option<Self> {
        let jwk = jwk.as_object()?;
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        // A private half, or a secret of both sides, that has crossed the network proves nothing.
        if ["d", "k", "p", "q"]
            .iter()
            .any(|name| jwk.contains_key(*name))
        {
            return None;
        }
        let (kind, curve, x) = (text("kty")?, text("crv")?, text("x")?);
        let point = coordinate(x)?;
        // What is hashed is RFC 7638, section 3.2: the required members alone, in the order of their names.
        let (verifying, algorithm, members) = match (kind, curve) {
            ("EC", "P-256") => {
                let y = text("y").filter(|y| coordinate(y).is_some())?;
                let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
                let verifying = DecodingKey::from_ec_components(x, y).ok()?;
                (verifying, Algorithm::ES256, members)
            }
            ("OKP", "Ed25519") => {
                ed25519::key(&point)?;
                let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
                let verifying = DecodingKey::from_ed_components(x).ok()?;
                (verifying, Algorithm::EdDSA, members)
            }
            _ => return None,
        };
        let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(members));
        Some(Self {
            verifying,
            algorithm,
            thumbprint,
        })
    }

    /// The key's SHA-256 thumbprint (RFC 7638), as `cnf.jkt` has it.
    pub(crate) fn thumbprint(&self) -> &str {
        &self.thumbprint
    }
}

/// 32 bytes in base64url without padding, in the one spelling: a second one would have another thumbprint.
fn coordinate(text: &str) -> Option<[u8; 32]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

/// A proof whose signature, times and claims fit a request. It counts once it was taken.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Proof {
    /// Of the key that it carries.
    pub(crate) thumbprint: String,
    jti: String,
    until: OffsetDateTime,
}

/// Why a proof proves nothing. All of it is in what the caller sent itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProofError {
    #[error("the token is bound to a key; send one `DPoP` header with a fresh proof by that key")]
    Missing,
    #[error(
        "the `DPoP` header must be a JWT of type dpop+jwt, signed with ES256 or EdDSA by the public key in its `jwk`"
    )]
    Malformed,
    #[error(
        "the proof is by another key than the one that the token is bound to; sign with that one"
    )]
    OtherKey,
    #[error("the proof's `htm` and `htu` must be this request's method and address")]
    OtherRequest,
    #[error(
        "the proof's `iat` is more than 5 minutes from the server's time; set the clock and sign again"
    )]
    Untimely,
    #[error("the proof's `ath` is not of this token; with `Authorization: DPoP` it must be there")]
    OtherToken,
    #[error("the proof was used before; sign a new one, with its own `jti`, for each request")]
    Seen,
    #[error("more proofs are in keeping for this agent than may be; wait a minute")]
    TooMany,
}

impl From<ProofError> for ApiError {
    fn from(error: ProofError) -> Self {
        let code = match error {
            ProofError::TooMany => Code::RateLimited,
            ProofError::Missing
            | ProofError::Malformed
            | ProofError::OtherKey
            | ProofError::OtherRequest
            | ProofError::Untimely
            | ProofError::OtherToken
            | ProofError::Seen => Code::InvalidDpopProof,
        };
        Self::new(code, error.to_string())
    }
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    iat: i64,
    #[serde(default)]
    ath: Option<String>,
}

/// The token that a proof goes with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) token: &'a str,
    /// Whether it came as `Authorization: DPoP`, where RFC 9449, section 7.1 demands `ath`. The seeds' clients send `Bearer`,
    /// and proofs without it.
    pub(crate) by_dpop: bool,
}

/// Whether a request has anything that would be a proof.
pub(crate) fn is_there(headers: &HeaderMap) -> bool {
    headers.contains_key(HEADER)
}

impl Proof {
    /// Verifies the proof of a request, as RFC 9449, section 4.3 lists the checks; `shown` is none where a token is asked for.
    pub(crate) fn verify(
        sender: &Sender,
        shown: Option<Shown<'_>>,
        now: OffsetDateTime,
    ) -> Result<Self, ProofError> {
        let mut headers = sender.headers.get_all(HEADER).iter();
        let text = headers.next().ok_or(ProofError::Missing)?;
        let text = text.to_str().map_err(|_| ProofError::Malformed)?;
        if headers.next().is_some() || text.len() > MAX_PROOF {
            return Err(ProofError::Malformed);
        }
        let key = key_of(text).ok_or(ProofError::Malformed)?;
        let claims = claims_of(text, &key).ok_or(ProofError::Malformed)?;
        let at = OffsetDateTime::from_unix_timestamp(claims.iat);
        let at = at.map_err(|_| ProofError::Untimely)?;
        if (now - at).unsigned_abs() > WINDOW {
            return Err(ProofError::Untimely);
        }
        if claims.htm != sender.method.as_str() || !is_target(&claims.htu, sender) {
            return Err(ProofError::OtherRequest);
        }
        if !is_of_token(claims.ath.as_deref(), shown) {
            return Err(ProofError::OtherToken);
        }
        Ok(Self {
            thumbprint: key.thumbprint,
            jti: claims.jti,
            until: at + WINDOW,
        })
    }

    /// Takes the proof for an agent: whoever sends it again, to whichever node, is refused.
    pub(crate) async fn take(self, state: &AppState, agent: &AgentId) -> Result<(), ApiError> {
        let digest = Sha256::new()
            .chain_update("dpop\0")
            .chain_update(&self.thumbprint)
            .chain_update([0])
            .chain_update(&self.jti);
        let digest = digest.finalize().into();
        match state
            .store
            .nonces()
            .take(agent, &digest, self.until)
            .await?
        {
            NonceUse::Fresh => Ok(()),
            NonceUse::Seen => Err(ProofError::Seen.into()),
            NonceUse::TooMany => Err(ProofError::TooMany.into()),
        }
    }
}

/// The key in the head of a proof, if head and key are what a proof has.
fn key_of(text: &str) -> Option<ProofKey> {
    let head = URL_SAFE_NO_PAD.decode(text.split('.').next()?).ok()?;
    let head: Value = serde_json::from_slice(&head).ok()?;
    let key = ProofKey::parse(head.get("jwk")?)?;
    let says = |name: &str, value: &str| head.get(name).and_then(Value::as_str) == Some(value);
    let algorithm = if key.algorithm == Algorithm::ES256 {
        "ES256"
    } else {
        "EdDSA"
    };
    // Nothing that would have to be understood (RFC 7515, section 4.1.11) is.
    let is_proof = says("typ", "dpop+jwt") && says("alg", algorithm) && head.get("crit").is_none();
    is_proof.then_some(key)
}

/// The library checks the signature; times and target are checked by the caller.
fn claims_of(text: &str, key: &ProofKey) -> Option<Claims> {
    let mut validation = Validation::new(key.algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let decoded = jsonwebtoken::decode::<Claims>(text, &key.verifying, &validation);
    let claims = decoded.ok()?.claims;
    (1..=MAX_JTI).contains(&claims.jti.len()).then_some(claims)
}

/// Whether `htu` is the request's address, without query and fragment (RFC 9449, section 4.3, check 9).
///
/// Whether TLS ended before this server it cannot know, so over a connection in cleartext either scheme is good.
fn is_target(htu: &str, sender: &Sender) -> bool {
    let Ok(claimed) = Url::parse(htu) else {
        return false;
    };
    let scheme = claimed.scheme();
    let Some(real) = address(scheme, sender) else {
        return false;
    };
    let fits = scheme == "https" || scheme == "http" && !sender.is_by_tls();
    fits && claimed.username().is_empty()
        && claimed.password().is_none()
        && claimed.host() == real.host()
        && claimed.port() == real.port()
        && without_prefix(claimed.path()) == without_prefix(real.path())
}

/// The request's own address under a scheme, so that a port that is usual there counts as none.
fn address(scheme: &str, sender: &Sender) -> Option<Url> {
    let authority = match sender.uri.authority() {
        Some(authority) => authority.as_str(),
        None => sender.headers.get("host")?.to_str().ok()?,
    };
    let path = sender.uri.path();
    Url::parse(&format!("{scheme}://{authority}{path}")).ok()
}

/// What a server before this one may have taken off: the base of Clawb's addresses.
pub(crate) fn without_prefix(path: &str) -> &str {
    path.strip_prefix("/api")
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path)
}

fn is_of_token(ath: Option<&str>, shown: Option<Shown<'_>>) -> bool {
    match (ath, shown) {
        (Some(ath), Some(shown)) => {
            ath == URL_SAFE_NO_PAD.encode(Sha256::digest(shown.token.as_bytes()))
        }
        (None, Some(shown)) => !shown.by_dpop,
        (_, None) => true,
    }
}

/// The header of RFC 9449, section 4.1.
const HEADER: &str = "dpop";
/// How far a proof's time may be from ours, and so how long it is remembered.
const WINDOW: Duration = Duration::from_mins(5);
const MAX_PROOF: usize = 4096;
const MAX_JTI: usize = 256;
