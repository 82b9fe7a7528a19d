//! JSON Web Tokens that we sign ourselves (RFC 7519, JWS compact form of RFC 7515), as assertions or as tokens.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use time::OffsetDateTime;
use vault::Secret;
use zeroize::Zeroizing;

use super::{Inputs, MadeKey, Maker, RecipeError, text_keys};
use crate::template::Text;

/// The signatures of RFC 7518, section 3.1, and RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
    Hs256,
}

/// A stored key that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SigningKey {
    pub(crate) algorithm: Algorithm,
    /// The key that holds it: PEM, or for HS256 the shared secret as it is.
    pub(crate) key: String,
    /// The `kid` of the header.
    pub(crate) id: Option<Text>,
}

/// A JWT with declared claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SelfSigned {
    pub(crate) key: SigningKey,
    pub(crate) issuer: Option<Text>,
    pub(crate) subject: Option<Text>,
    pub(crate) audience: Option<Text>,
    pub(crate) scope: Option<Text>,
    /// How long it is valid, in seconds.
    pub(crate) seconds: u32,
}

/// The claims of one token. `iat`, `exp` and, if it is to be unique, `jti` are added.
pub(super) struct Claims<'a> {
    pub(super) issuer: Option<&'a str>,
    pub(super) subject: Option<&'a str>,
    pub(super) audience: Option<&'a str>,
    pub(super) scope: Option<&'a str>,
    pub(super) is_unique: bool,
    pub(super) lifetime: time::Duration,
}

/// How far a token is dated back, for a maker whose clock is behind.
pub(super) const BACKDATE: time::Duration = time::Duration::seconds(30);

impl Algorithm {
    const fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
            Self::Hs256 => "HS256",
        }
    }
}

impl SelfSigned {
    pub(super) fn inputs(&self) -> Vec<&str> {
        let texts = [&self.issuer, &self.subject, &self.audience, &self.scope];
        let mut keys = text_keys(texts.into_iter().flatten());
        keys.extend(self.key.inputs());
        keys
    }

    /// The token; `None` if a key of it is not at hand.
    pub(super) fn sign(
        &self,
        maker: &Maker<'_, impl Inputs>,
        now: OffsetDateTime,
    ) -> Result<Option<Zeroizing<String>>, RecipeError> {
        let fill = |text: &Option<Text>| maker.fill_optional(text.as_ref());
        let (issuer, subject) = (fill(&self.issuer)?, fill(&self.subject)?);
        let (audience, scope) = (fill(&self.audience)?, fill(&self.scope)?);
        // A subject or scope may be optional; who issues for whom may not.
        let is_short = (self.issuer.is_some() && issuer.is_none())
            || (self.audience.is_some() && audience.is_none());
        if is_short {
            return Ok(None);
        }
        let text = |text: &'_ Option<Zeroizing<String>>| text.as_ref().map(|text| text.to_string());
        let (issuer, subject, audience, scope) =
            (text(&issuer), text(&subject), text(&audience), text(&scope));
        let claims = Claims {
            issuer: issuer.as_deref(),
            subject: subject.as_deref(),
            audience: audience.as_deref(),
            scope: scope.as_deref(),
            is_unique: true,
            lifetime: time::Duration::seconds(self.seconds.into()),
        };
        self.key.sign(maker, &claims, now)
    }

    /// The token as a key of its own.
    pub(super) fn make(
        &self,
        maker: &Maker<'_, impl Inputs>,
        now: OffsetDateTime,
    ) -> Result<Option<MadeKey>, RecipeError> {
        Ok(self.sign(maker, now)?.map(|jwt| MadeKey {
            value: Secret::from(Zeroizing::new(jwt.as_bytes().to_vec())),
            // Renewed with half of its time left: signing costs next to nothing.
            lifetime: Duration::from_secs(u64::from(self.seconds) / 2),
            rotated: None,
        }))
    }
}

impl SigningKey {
    pub(super) fn inputs(&self) -> Vec<&str> {
        let id = self.id.iter().flat_map(Text::keys);
        id.chain([self.key.as_str()]).collect()
    }

    /// Signs the claims; `None` if the key is not at hand.
    pub(super) fn sign(
        &self,
        maker: &Maker<'_, impl Inputs>,
        claims: &Claims<'_>,
        now: OffsetDateTime,
    ) -> Result<Option<Zeroizing<String>>, RecipeError> {
        let Some(key) = maker.secret(&self.key) else {
            return Ok(None);
        };
        let id = maker.fill_optional(self.id.as_ref())?;
        let id = id.as_ref().map(|id| id.as_str());
        compact(self.algorithm, key.expose(), id, claims, now)
            .map(Some)
            .map_err(|why| maker.bad(&self.key, why))
    }
}

/// The compact form: header, claims and signature in base64url, joined by dots.
///
/// # Errors
/// What is wrong with the key.
pub(super) fn compact(
    algorithm: Algorithm,
    key: &[u8],
    key_id: Option<&str>,
    claims: &Claims<'_>,
    now: OffsetDateTime,
) -> Result<Zeroizing<String>, &'static str> {
    let mut header = json!({ "alg": algorithm.name(), "typ": "JWT" });
    if let Some(id) = key_id {
        header["kid"] = id.into();
    }
    let issued = (now - BACKDATE).unix_timestamp();
    let mut body = json!({ "iat": issued, "exp": (now + claims.lifetime).unix_timestamp() });
    for (name, value) in [
        ("iss", claims.issuer),
        ("sub", claims.subject),
        ("aud", claims.audience),
        ("scope", claims.scope),
    ] {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    if claims.is_unique {
        let mut id = [0; 16];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| "the system gives no random numbers")?;
        body["jti"] = URL_SAFE_NO_PAD.encode(id).into();
    }
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = [encode(&header), encode(&body)].join(".");
    let signature = URL_SAFE_NO_PAD.encode(sign(algorithm, key, signed.as_bytes())?);
    Ok(Zeroizing::new([signed, signature].join(".")))
}

const NOT_PEM: &str = "it is not a private key in PEM without a passphrase";

fn sign(algorithm: Algorithm, key: &[u8], message: &[u8]) -> Result<Vec<u8>, &'static str> {
    let random = SystemRandom::new();
    if algorithm == Algorithm::Hs256 {
        if key.len() < 32 {
            return Err("it is shorter than the 32 bytes that HS256 needs (RFC 7518, section 3.2)");
        }
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
        return Ok(ring::hmac::sign(&key, message).as_ref().to_vec());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| NOT_PEM)?;
    match (algorithm, &key) {
        (Algorithm::Rs256, PrivateKeyDer::Pkcs8(_) | PrivateKeyDer::Pkcs1(_)) => {
            let pair = match &key {
                PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
                other => RsaKeyPair::from_pkcs8(other.secret_der()),
            };
            let pair = pair.map_err(|_| "it is not an RSA key of 2048 to 4096 bits")?;
            let mut signature = vec![0; pair.public().modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                .map_err(|_| "it does not sign")?;
            Ok(signature)
        }
        (Algorithm::Es256, PrivateKeyDer::Pkcs8(der)) => {
            let alg = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let pair = EcdsaKeyPair::from_pkcs8(alg, der.secret_pkcs8_der(), &random)
                .map_err(|_| "it is not a P-256 key")?;
            let signature = pair
                .sign(&random, message)
                .map_err(|_| "it does not sign")?;
            Ok(signature.as_ref().to_vec())
        }
        (Algorithm::EdDsa, PrivateKeyDer::Pkcs8(der)) => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
                .map_err(|_| "it is not an Ed25519 key")?;
            Ok(pair.sign(message).as_ref().to_vec())
        }
        _ => Err(
            "it is not PKCS #8 (`BEGIN PRIVATE KEY`); convert it with `openssl pkcs8 -topk8 -nocrypt`",
        ),
    }
}
