//! Verifying a provider's token: its key and its algorithm are chosen here, and nothing in the token is believed before.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use serde::de::IgnoredAny;
use time::{Duration, OffsetDateTime};
use vault::Secret;

use super::discovery::Provider;
use super::{Claims, Issuer, keys};

/// Why a token is refused: for the record alone, since to a caller all of these are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenError {
    Malformed,
    Algorithm,
    Critical,
    Key,
    Signature,
    Claims,
    Issuer,
    Audience,
    Party,
    Expired,
    Early,
    Nonce,
}

impl TokenError {
    /// The sentence of the record.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "a provider's token was refused: it is no JWT, or too long",
            Self::Algorithm => "a provider's token was refused: its algorithm is not taken",
            Self::Critical => "a provider's token was refused: its header asks for an extension",
            Self::Key => {
                "a provider's token was refused: its key is none that the provider publishes"
            }
            Self::Signature => "a provider's token was refused: its signature is not the key's",
            Self::Claims => "a provider's token was refused: a claim is missing or malformed",
            Self::Issuer => "a provider's token was refused: another issuer made it",
            Self::Audience => "a provider's token was refused: it is for another audience",
            Self::Party => "a provider's token was refused: it was given to another client",
            Self::Expired => "a provider's token was refused: it has expired",
            Self::Early => "a provider's token was refused: it is from the future",
            Self::Nonce => "a provider's token was refused: it is of another sign-in",
        }
    }
}

/// What a token's header says, as far as it is looked at. Where a key is (`jku`, `x5u`, `jwk`, `x5c`) is not: a key is the
/// provider's own or none.
#[derive(Debug)]
pub(crate) struct Head {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
}

#[derive(Deserialize)]
struct RawHead {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// What must hold of a token beside its signature and its times.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected<'a> {
    /// It is for this client, of the sign-in that this nonce binds; without one, of none.
    SignIn {
        issuer: &'a Issuer,
        client_id: &'a str,
        nonce: Option<&'a str>,
    },
    /// It was given to this client for this audience, and to no person's sign-in.
    Client {
        issuer: &'a Issuer,
        client_id: &'a str,
        audience: &'a str,
    },
}

/// Reads the header of a token, before anybody is asked for its key.
pub(crate) fn head(token: &str) -> Result<Head, TokenError> {
    let parts: Vec<&str> = token.splitn(4, '.').collect();
    if token.len() > MAX_TOKEN || parts.len() != 3 || parts.iter().any(|part| part.is_empty()) {
        return Err(TokenError::Malformed);
    }
    let head = URL_SAFE_NO_PAD.decode(parts[0]);
    let head = head.map_err(|_| TokenError::Malformed)?;
    let head: RawHead = serde_json::from_slice(&head).map_err(|_| TokenError::Malformed)?;
    if head.crit.is_some() {
        return Err(TokenError::Critical);
    }
    let algorithm = keys::algorithm(&head.alg).ok_or(TokenError::Algorithm)?;
    Ok(Head {
        kid: head.kid,
        algorithm,
    })
}

/// Verifies a token against the keys of its provider.
///
/// # Errors
/// [`TokenError`].
pub(crate) fn verify(
    provider: &Provider,
    token: &str,
    expected: Expected<'_>,
    now: OffsetDateTime,
) -> Result<Claims, TokenError> {
    let head = head(token)?;
    let key = provider.key(&head).ok_or(TokenError::Key)?;
    // Signature and algorithm alone: everything else is checked below, by the clock that was passed in.
    let mut validation = Validation::new(head.algorithm);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let decoded = jsonwebtoken::decode::<Claims>(token, &key.verifies, &validation);
    let claims = decoded.map_err(|error| match error.kind() {
        jsonwebtoken::errors::ErrorKind::Json(_) => TokenError::Claims,
        _ => TokenError::Signature,
    })?;
    check(&claims.claims, expected, now)?;
    Ok(claims.claims)
}

fn check(claims: &Claims, expected: Expected<'_>, now: OffsetDateTime) -> Result<(), TokenError> {
    let (issuer, is_audience, is_party, is_nonce) = match expected {
        Expected::SignIn {
            issuer,
            client_id,
            nonce,
        } => (
            issuer,
            claims.aud.holds(client_id),
            // OpenID Connect Core 1.0, section 3.1.3.7: whoever shares an audience names the party.
            match &claims.azp {
                Some(azp) => azp == client_id,
                None => !claims.aud.is_shared(),
            },
            same(nonce, claims.nonce.as_deref()),
        ),
        Expected::Client {
            issuer,
            client_id,
            audience,
        } => (
            issuer,
            claims.aud.holds(audience),
            claims.is_of_client(client_id),
            // A nonce is of a person's sign-in, which stands for no agent.
            claims.nonce.is_none(),
        ),
    };
    let holds = |holds: bool, error| if holds { Ok(()) } else { Err(error) };
    holds(claims.iss == issuer.as_str(), TokenError::Issuer)?;
    holds(is_audience, TokenError::Audience)?;
    holds(is_party, TokenError::Party)?;
    holds(is_nonce, TokenError::Nonce)?;
    let is_subject = (1..=MAX_SUBJECT).contains(&claims.sub.len());
    holds(is_subject, TokenError::Claims)?;
    let made = claims.iat.ok_or(TokenError::Claims)?;
    let (now, skew) = (now.unix_timestamp(), SKEW.whole_seconds());
    let begins = claims.nbf.unwrap_or(made).max(made);
    holds(begins <= now + skew, TokenError::Early)?;
    holds(now < claims.exp.saturating_add(skew), TokenError::Expired)?;
    // A token that outlives a day is a key, and nobody ends it.
    let is_old = now.saturating_sub(made) > MAX_AGE.whole_seconds() + skew;
    holds(!is_old, TokenError::Expired)
}

fn same(expected: Option<&str>, found: Option<&str>) -> bool {
    match (expected, found) {
        (Some(expected), Some(found)) => {
            let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
            secret(expected) == secret(found)
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Tokens of large providers, with lists of groups, have some kilobytes.
const MAX_TOKEN: usize = 16 * 1024;
/// OpenID Connect Core 1.0, section 2.
const MAX_SUBJECT: usize = 255;
/// How far the clocks of two machines may differ.
pub(crate) const SKEW: Duration = Duration::seconds(60);
const MAX_AGE: Duration = Duration::days(1);
