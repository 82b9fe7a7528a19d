//! Short-lived tokens of agents and people: JWT (RFC 7519) signed by Ed25519 (RFC 8037).

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use leases::id::{AgentId, KeyId, OrgId, UserId};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::Actor;
use time::OffsetDateTime;
use vault::KeyError;
use zeroize::{Zeroize, Zeroizing};

use crate::keys::{JWT, KeyChest, KeyChestError, Published, Signers, Signing, SigningKey, rings};

/// The public halves of the keys that sign agents' tokens: all that it takes to verify one.
///
/// A key's id (`kid`) is derived from its public half.
pub struct JwtVerifier {
    published: Published,
    keys: RwLock<Arc<[VerifyingKey]>>,
    /// Ids of the vouchers that were taken, and when each has ended for everybody.
    taken: Mutex<HashMap<String, OffsetDateTime>>,
}

/// The keys that sign agents' tokens: what signs, beside what verifies.
#[derive(Debug)]
pub struct JwtKeys {
    verifier: Arc<JwtVerifier>,
    signing: Signing,
}

/// One public half.
struct VerifyingKey {
    kid: String,
    key: DecodingKey,
}

/// A token whose signature, times and claims hold. Whether it was ended early, the store says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifiedToken {
    pub(crate) subject: Subject,
    /// Its own id.
    pub(crate) jti: String,
    /// When it ends by itself.
    pub(crate) ends: OffsetDateTime,
}

/// Whose a token is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Agent(AgentToken),
    Person(PersonToken),
}

/// What an agent's token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentToken {
    pub(crate) org: OrgId,
    pub(crate) agent: AgentId,
    /// The agent's epoch that it was made in: it ends with it.
    pub(crate) epoch: u64,
    /// What it is bound to.
    pub(crate) confirmation: Option<Confirmation>,
}

/// What a token is bound to (`cnf`, RFC 7800): whoever shows the one proves to hold the other. What is not known here makes
/// the token nobody's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmation {
    /// The thumbprint of the key of the holder's proofs (RFC 9449, section 6.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jkt: Option<String>,
    /// SHA-256 of the holder's certificate in base64url (RFC 8705, section 3.1).
    #[serde(default, rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<String>,
}

impl Confirmation {
    /// As `x5t#S256` has a certificate's digest.
    pub(crate) fn of_certificate(fingerprint: &[u8; 32]) -> String {
        URL_SAFE_NO_PAD.encode(fingerprint)
    }
}

/// What a person's token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PersonToken {
    pub(crate) org: OrgId,
    pub(crate) user: UserId,
    /// The session epoch that it was made in: it ends with it.
    pub(crate) epoch: u64,
    /// The personal key that it was exchanged for: it ends with it.
    pub(crate) key: Option<KeyId>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    org: OrgId,
    vault_ids: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    /// Of a person's token alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<KeyId>,
    /// Of an agent's token alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// What the service itself asserts towards an injector: that it looked at a request, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forwarded {
    /// SHA-256 of the request's path, credential and body, so that this goes with one request alone.
    pub(crate) request: String,
    /// Who sent the request to the control plane.
    pub(crate) client_ip: Option<IpAddr>,
    /// By which id the control plane knows the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ForwardedClaims {
    iss: String,
    aud: String,
    jti: String,
    nbf: i64,
    exp: i64,
    #[serde(flatten)]
    forwarded: Forwarded,
}

impl JwtVerifier {
    /// The verifier of a chest.
    ///
    /// # Errors
    /// [`KeyChestError`]; [`KeyChestError::Missing`] until a control plane has made the keys.
    pub async fn load(chest: &KeyChest, now: OffsetDateTime) -> Result<Self, KeyChestError> {
        Ok(Self::load_with(chest, None, now).await?.0)
    }

    async fn load_with(
        chest: &KeyChest,
        signers: Option<&Signers>,
        now: OffsetDateTime,
    ) -> Result<(Self, u64), KeyChestError> {
        let published = Published::new(JWT, MAX_TOKEN_LIFETIME);
        let period = published.period(chest, signers, now).await?;
        let keys = RwLock::new(verifying_keys(&period.verifying));
        let verifier = Self {
            published,
            keys,
            taken: Mutex::default(),
        };
        Ok((verifier, period.signing))
    }

    /// Takes up what was rotated, and lets go of what has ended.
    ///
    /// # Errors
    /// [`KeyChestError`]; the keys are then as before.
    pub async fn reload(&self, chest: &KeyChest, now: OffsetDateTime) -> Result<(), KeyChestError> {
        self.reload_with(chest, None, now).await.map(|_| ())
    }

    async fn reload_with(
        &self,
        chest: &KeyChest,
        signers: Option<&Signers>,
        now: OffsetDateTime,
    ) -> Result<u64, KeyChestError> {
        let period = self.published.period(chest, signers, now).await?;
        *self.keys.write() = verifying_keys(&period.verifying);
        Ok(period.signing)
    }

    /// Verifies a token: `EdDSA` alone, our key, issuer, audience, and the times by the given clock.
    ///
    /// `None` says nothing of the reason: to a caller all of them are one.
    pub(crate) fn verify(&self, token: &str, now: OffsetDateTime) -> Option<VerifiedToken> {
        self.verify_for(AUDIENCE, token, now)
    }

    /// Verifies what [`JwtKeys::issue_mfa`] made: it is no token of the API, and none of those is one of these.
    pub(crate) fn verify_mfa(&self, token: &str, now: OffsetDateTime) -> Option<PersonToken> {
        match self.verify_for(MFA_AUDIENCE, token, now)?.subject {
            Subject::Person(person) => Some(person),
            Subject::Agent(_) => None,
        }
    }

    fn verify_for(
        &self,
        audience: &str,
        token: &str,
        now: OffsetDateTime,
    ) -> Option<VerifiedToken> {
        let claims: Claims = self.decode(token, audience, &["sub"])?;
        let lives = is_live(claims.nbf, claims.exp, now) && claims.iat <= now.unix_timestamp();
        if !lives {
            return None;
        }
        Some(VerifiedToken {
            ends: OffsetDateTime::from_unix_timestamp(claims.exp).ok()?,
            jti: claims.jti.clone(),
            subject: claims.subject()?,
        })
    }

    /// Verifies what [`JwtKeys::vouch`] made for this request, and takes it once: whoever saw it pass cannot send it again.
    pub(crate) fn take_forwarded(
        &self,
        token: &str,
        request: &str,
        now: OffsetDateTime,
    ) -> Option<Forwarded> {
        let claims: ForwardedClaims = self.decode(token, FORWARDED_AUDIENCE, &[])?;
        let begin = OffsetDateTime::from_unix_timestamp(claims.nbf).ok()? - FORWARDED_SKEW;
        let end = OffsetDateTime::from_unix_timestamp(claims.exp).ok()? + FORWARDED_SKEW;
        if now < begin || end <= now || claims.forwarded.request != request {
            return None;
        }
        let mut seen = self.taken.lock();
        seen.retain(|_, end| now < *end);
        let is_new = seen.insert(claims.jti, end).is_none();
        is_new.then_some(claims.forwarded)
    }

    fn decode<T: DeserializeOwned>(&self, token: &str, audience: &str, also: &[&str]) -> Option<T> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let found = jsonwebtoken::decode_header(token).ok()?;
        let keys = Arc::clone(&self.keys.read());
        // Only what `sign` writes: no `jwk`, `jku` or `x5u` that brings its own key, no `crit` that would have to be understood.
        let key = keys.iter().find(|key| found == header(&key.kid))?;
        let validation = validation(audience, also);
        let decoded = jsonwebtoken::decode::<T>(token, &key.key, &validation);
        decoded.ok().map(|decoded| decoded.claims)
    }
}

impl JwtKeys {
    /// The keys of a chest, with a first one when there is none.
    ///
    /// # Errors
    /// [`KeyChestError`].
    pub async fn load_or_create(
        chest: &KeyChest,
        signers: &Signers,
        now: OffsetDateTime,
    ) -> Result<Self, KeyChestError> {
        rings::ensure(chest, JWT, signers).await?;
        let (verifier, version) = JwtVerifier::load_with(chest, Some(signers), now).await?;
        let signing = Signing::load(JWT, version, chest, signers.clone()).await?;
        Ok(Self {
            verifier: Arc::new(verifier),
            signing,
        })
    }

    /// Takes up what was rotated here or elsewhere.
    ///
    /// # Errors
    /// [`KeyChestError`]; what could not be taken up is as before.
    pub async fn reload(&self, chest: &KeyChest, now: OffsetDateTime) -> Result<(), KeyChestError> {
        let signers = self.signing.signers();
        let version = self.verifier.reload_with(chest, Some(signers), now).await?;
        self.signing.follow(version, chest).await
    }

    /// Makes a new key, which signs after [`crate::keys::OVERLAP`]. Tokens of the one before it stay good until they end.
    ///
    /// # Errors
    /// [`KeyChestError`]; the keys are then as before.
    pub async fn rotate(
        &self,
        chest: &KeyChest,
        actor: &Actor,
        now: OffsetDateTime,
    ) -> Result<u64, KeyChestError> {
        let signers = self.signing.signers();
        let version = chest.make_signing_key(JWT, signers, actor).await?;
        chest.publish(JWT, signers).await?;
        self.reload(chest, now).await?;
        Ok(version)
    }

    /// What verifies.
    pub fn verifier(&self) -> &Arc<JwtVerifier> {
        &self.verifier
    }

    /// Whether the key that signs lives where a new one would be made.
    pub(crate) fn lives_in_primary(&self) -> bool {
        self.signing.lives_in_primary()
    }

    /// The version that signs now.
    pub(crate) fn signing_version(&self) -> u64 {
        self.signing.key().version()
    }

    /// Signs a token for an agent; it lives at most [`MAX_TOKEN_LIFETIME`].
    pub(crate) async fn issue(
        &self,
        agent: &AgentToken,
        vault_ids: Vec<String>,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Result<Zeroizing<String>, KeyError> {
        let subject = format!("agent:{}", agent.agent);
        let lifetime = lifetime.min(MAX_TOKEN_LIFETIME);
        let claims = Claims {
            vault_ids,
            epoch: Some(agent.epoch),
            cnf: agent.confirmation.clone(),
            ..Claims::new(AUDIENCE, subject, &agent.org, lifetime, now)
        };
        sign(&self.signing.key(), &claims).await
    }

    /// Signs a token for a person; it lives [`TOKEN_LIFETIME`].
    pub(crate) async fn issue_person(
        &self,
        person: &PersonToken,
        now: OffsetDateTime,
    ) -> Result<Zeroizing<String>, KeyError> {
        let claims = person.claims(AUDIENCE, TOKEN_LIFETIME, now);
        sign(&self.signing.key(), &claims).await
    }

    /// Signs what stands for a right password until the code comes; it lives [`MFA_LIFETIME`].
    pub(crate) async fn issue_mfa(
        &self,
        person: &PersonToken,
        now: OffsetDateTime,
    ) -> Result<Zeroizing<String>, KeyError> {
        let claims = person.claims(MFA_AUDIENCE, MFA_LIFETIME, now);
        sign(&self.signing.key(), &claims).await
    }

    /// Vouches towards an injector for a request that is handed on.
    pub(crate) async fn vouch(
        &self,
        forwarded: Forwarded,
        now: OffsetDateTime,
    ) -> Result<Zeroizing<String>, KeyError> {
        let nbf = now.unix_timestamp();
        let claims = ForwardedClaims {
            iss: ISSUER.to_owned(),
            aud: FORWARDED_AUDIENCE.to_owned(),
            jti: hex::encode(crate::context::random::<16>()),
            nbf,
            exp: nbf + FORWARDED_LIFETIME.as_secs().cast_signed(),
            forwarded,
        };
        sign(&self.signing.key(), &claims).await
    }
}

impl Claims {
    fn new(
        audience: &str,
        subject: String,
        org: &OrgId,
        lifetime: Duration,
        now: OffsetDateTime,
    ) -> Self {
        let iat = now.unix_timestamp();
        Self {
            iss: ISSUER.to_owned(),
            aud: audience.to_owned(),
            sub: subject,
            org: org.clone(),
            vault_ids: Vec::new(),
            epoch: None,
            key: None,
            cnf: None,
            jti: hex::encode(crate::context::random::<16>()),
            iat,
            nbf: iat,
            exp: iat + lifetime.as_secs().cast_signed(),
        }
    }

    /// Whose it is. Claims that only the other kind has make it neither's.
    fn subject(self) -> Option<Subject> {
        match (self.sub.split_once(':')?, self.epoch, self.key, self.cnf) {
            (("agent", id), epoch, None, confirmation) => Some(Subject::Agent(AgentToken {
                org: self.org,
                agent: AgentId::parse(id).ok()?,
                // Those of a version before this one were of the first epoch and said nothing of it.
                epoch: epoch.unwrap_or(0),
                confirmation,
            })),
            (("user", id), Some(epoch), key, None) => Some(Subject::Person(PersonToken {
                org: self.org,
                user: UserId::parse(id).ok()?,
                epoch,
                key,
            })),
            _ => None,
        }
    }
}

impl PersonToken {
    fn claims(&self, audience: &str, lifetime: Duration, now: OffsetDateTime) -> Claims {
        Claims {
            epoch: Some(self.epoch),
            key: self.key.clone(),
            ..Claims::new(
                audience,
                format!("user:{}", self.user),
                &self.org,
                lifetime,
                now,
            )
        }
    }
}

/// Signs claims wherever the key lives: the library writes header and claims, the key signs what RFC 7515, section 5.1 says.
async fn sign<T: Serialize>(key: &SigningKey, claims: &T) -> Result<Zeroizing<String>, KeyError> {
    let part = |json: serde_json::Result<Vec<u8>>| {
        URL_SAFE_NO_PAD.encode(json.expect("strings and numbers always have a JSON form"))
    };
    let head = part(serde_json::to_vec(&header(&kid(&key.public()))));
    let body = part(serde_json::to_vec(claims));
    let mut token = Zeroizing::new(format!("{head}.{body}"));
    let signature = key.sign(token.as_bytes()).await?;
    // Room for all of it, so that no copy is left behind.
    let mut whole = Zeroizing::new(String::with_capacity(token.len() + 1 + 86));
    whole.push_str(&token);
    whole.push('.');
    whole.push_str(&URL_SAFE_NO_PAD.encode(signature));
    token.zeroize();
    Ok(whole)
}

fn header(kid: &str) -> Header {
    Header {
        kid: Some(kid.to_owned()),
        ..Header::new(Algorithm::EdDSA)
    }
}

fn kid(public: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(public)[..12])
}

fn verifying_keys(publics: &[(u64, [u8; 32])]) -> Arc<[VerifyingKey]> {
    let key = |(_, public): &(u64, [u8; 32])| VerifyingKey {
        kid: kid(public),
        key: DecodingKey::from_ed_der(public),
    };
    publics.iter().map(key).collect()
}

fn is_live(nbf: i64, exp: i64, now: OffsetDateTime) -> bool {
    let now = now.unix_timestamp();
    nbf <= now && now < exp
}

/// The library checks signature, algorithm, issuer and audience; the times are checked above, by the clock that was passed in.
fn validation(audience: &str, also: &[&str]) -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[audience]);
    let always = ["exp", "nbf", "iss", "aud"];
    let required: Vec<&str> = always.iter().chain(also).copied().collect();
    validation.set_required_spec_claims(&required);
    validation.validate_exp = false;
    validation
}

impl fmt::Debug for JwtVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = Arc::clone(&self.keys.read());
        let kids: Vec<&str> = keys.iter().map(|key| key.kid.as_str()).collect();
        formatter
            .debug_struct("JwtVerifier")
            .field("kids", &kids)
            .finish_non_exhaustive()
    }
}

/// How long a token lives unless its agent has a lifetime of its own; clients of the seeds renew 60 s before its end.
pub(crate) const TOKEN_LIFETIME: Duration = Duration::from_mins(15);
/// The least and the most that an agent's own lifetime may be.
pub(crate) const MIN_TOKEN_LIFETIME: Duration = Duration::from_mins(1);
pub(crate) const MAX_TOKEN_LIFETIME: Duration = Duration::from_hours(1);
/// How long a right password waits for its code.
pub(crate) const MFA_LIFETIME: Duration = Duration::from_mins(5);
const ISSUER: &str = "claviger";
const AUDIENCE: &str = "claviger-api";
const MFA_AUDIENCE: &str = "claviger-mfa";
const FORWARDED_AUDIENCE: &str = "claviger-injector";
/// A request that is handed on arrives at once.
const FORWARDED_LIFETIME: Duration = Duration::from_secs(10);
/// How far the clocks of two machines may differ.
const FORWARDED_SKEW: Duration = Duration::from_secs(30);
const MAX_TOKEN: usize = 4096;

#[cfg(test)]
mod tests {
    use ed25519_dalek::pkcs8::EncodePrivateKey;
    use futures::FutureExt;
    use jsonwebtoken::EncodingKey;
    use jsonwebtoken::jwk::Jwk;
    use serde_json::{Value, json};
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-22 07:00 UTC);

    /// The key of these secret bytes, as verifier and as the reference library's signer.
    struct Pair {
        verifier: JwtVerifier,
        kid: String,
        signing: SigningKey,
        reference: EncodingKey,
    }

    impl Pair {
        fn of(seed: [u8; 32]) -> Self {
            let key = ed25519_dalek::SigningKey::from_bytes(&seed);
            let public = key.verifying_key().to_bytes();
            let document = key.to_pkcs8_der().unwrap();
            Self {
                verifier: JwtVerifier {
                    published: Published::new(JWT, TOKEN_LIFETIME),
                    keys: RwLock::new(verifying_keys(&[(1, public)])),
                    taken: Mutex::default(),
                },
                kid: kid(&public),
                signing: SigningKey::opened(JWT, 1, key),
                reference: EncodingKey::from_ed_der(document.as_bytes()),
            }
        }

        fn verify(&self, token: &str, now: OffsetDateTime) -> Option<AgentToken> {
            match self.verifier.verify(token, now)?.subject {
                Subject::Agent(agent) => Some(agent),
                Subject::Person(person) => panic!("no agent: {person:?}"),
            }
        }

        fn issue(agent: &AgentToken, vault_ids: Vec<String>, now: OffsetDateTime) -> String {
            let keys = JwtKeys {
                verifier: Arc::new(Self::of([7; 32]).verifier),
                signing: Signing::of(SigningKey::opened(
                    JWT,
                    1,
                    ed25519_dalek::SigningKey::from_bytes(&[7; 32]),
                )),
            };
            let token = keys
                .issue(agent, vault_ids, TOKEN_LIFETIME, now)
                .now_or_never()
                .unwrap();
            token.unwrap().to_string()
        }
    }

    fn key() -> Pair {
        Pair::of([7; 32])
    }

    fn agent() -> AgentToken {
        AgentToken {
            org: OrgId::new(NOW),
            agent: AgentId::new(NOW),
            epoch: 2,
            confirmation: None,
        }
    }

    fn claims() -> Value {
        let now = NOW.unix_timestamp();
        json!({"iss": ISSUER, "aud": AUDIENCE, "sub": format!("agent:{}", agent().agent), "org": agent().org, "vault_ids": [],
               "jti": "x", "iat": now, "nbf": now, "exp": now + 900})
    }

    fn header(key: &Pair) -> Header {
        Header {
            kid: Some(key.kid.clone()),
            ..Header::new(Algorithm::EdDSA)
        }
    }

    fn signed(header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &key().reference).unwrap()
    }

    #[test]
    fn a_token_that_was_issued_is_verified_until_its_end() {
        let agent = agent();
        let token = Pair::issue(&agent, vec!["vlt_x".to_owned()], NOW);
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
        let public = ed25519_dalek::SigningKey::from_bytes(&[7; 32])
            .verifying_key()
            .to_bytes();
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
        let public = ed25519_dalek::SigningKey::from_bytes(&[7; 32])
            .verifying_key()
            .to_bytes();
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
        let token = Pair::issue(&agent(), vec![], NOW);
        let other = Pair::of([8; 32]);
        assert_eq!(other.verify(&token, NOW), None);
        for index in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(key().verify(&changed, NOW), None, "byte {index}");
        }
        assert_eq!(key().verify(&"a".repeat(MAX_TOKEN + 1), NOW), None);
    }

    fn person() -> PersonToken {
        PersonToken {
            org: OrgId::new(NOW),
            user: UserId::new(NOW),
            epoch: 3,
            key: Some(KeyId::new(NOW)),
        }
    }

    fn keys() -> JwtKeys {
        JwtKeys {
            verifier: Arc::new(key().verifier),
            signing: Signing::of(key().signing),
        }
    }

    #[test]
    fn a_persons_token_is_the_persons_until_its_end() {
        let person = person();
        let token = keys().issue_person(&person, NOW).now_or_never().unwrap();
        let token = token.unwrap();
        let verified = key().verifier.verify(&token, NOW).unwrap();
        assert_eq!(verified.subject, Subject::Person(person));
        assert_eq!(verified.ends, NOW + TOKEN_LIFETIME);
        let end = NOW + TOKEN_LIFETIME;
        assert_eq!(key().verifier.verify(&token, end), None);
        assert_eq!(key().verifier.verify_mfa(&token, NOW), None);
    }

    #[test]
    fn what_waits_for_a_code_opens_nothing() {
        let person = person();
        let ticket = keys().issue_mfa(&person, NOW).now_or_never().unwrap();
        let ticket = ticket.unwrap();
        assert_eq!(key().verifier.verify(&ticket, NOW), None);
        assert_eq!(key().verifier.verify_mfa(&ticket, NOW), Some(person));
        let end = NOW + MFA_LIFETIME;
        assert_eq!(key().verifier.verify_mfa(&ticket, end), None);
    }

    #[test]
    fn a_token_is_an_agents_or_a_persons_and_never_both() {
        let user = UserId::new(NOW);
        let agent = AgentId::new(NOW);
        for (sub, epoch) in [
            (format!("agent:{agent}"), json!(-1)),
            (format!("user:{user}"), json!(null)),
            (format!("agent:{user}"), json!(null)),
            (format!("user:{agent}"), json!(0)),
            (format!("user:{user}"), json!(-1)),
            (format!("admin:{user}"), json!(0)),
            (user.to_string(), json!(0)),
        ] {
            let mut claims = claims();
            claims["sub"] = json!(sub);
            claims["epoch"] = epoch;
            let token = signed(&header(&key()), &claims);
            assert_eq!(key().verifier.verify(&token, NOW), None, "{sub}");
        }
    }

    #[test]
    fn what_a_token_is_bound_to_is_read_back_and_what_is_not_known_makes_it_nobodys() {
        let bound = AgentToken {
            confirmation: Some(Confirmation {
                jkt: Some("thumbprint".to_owned()),
                certificate: Some("digest".to_owned()),
            }),
            ..agent()
        };
        let token = Pair::issue(&bound, vec![], NOW);
        assert_eq!(key().verify(&token, NOW), Some(bound));
        for cnf in [json!({"jku": "https://example.org"}), json!("x"), json!(7)] {
            let mut claims = claims();
            claims["cnf"] = cnf.clone();
            let token = signed(&header(&key()), &claims);
            assert_eq!(key().verifier.verify(&token, NOW), None, "{cnf}");
        }
        let mut person = claims();
        person["sub"] = json!(format!("user:{}", UserId::new(NOW)));
        person["epoch"] = json!(0);
        person["cnf"] = json!({"jkt": "thumbprint"});
        let token = signed(&header(&key()), &person);
        assert_eq!(key().verifier.verify(&token, NOW), None);
    }

    #[test]
    fn an_agents_own_lifetime_has_a_bound() {
        let lives = |lifetime: Duration| {
            let token = keys().issue(&agent(), vec![], lifetime, NOW).now_or_never();
            key()
                .verifier
                .verify(&token.unwrap().unwrap(), NOW)
                .unwrap()
                .ends
                - NOW
        };
        assert_eq!(lives(Duration::from_mins(5)), Duration::from_mins(5));
        assert_eq!(lives(Duration::from_hours(9)), MAX_TOKEN_LIFETIME);
    }

    #[test]
    fn a_voucher_is_taken_once_for_its_request_while_it_lives() {
        let forwarded = Forwarded {
            request: "digest".to_owned(),
            client_ip: None,
            request_id: None,
        };
        let vouch = || {
            let voucher = keys().vouch(forwarded.clone(), NOW).now_or_never();
            voucher.unwrap().unwrap()
        };
        let late = NOW + FORWARDED_LIFETIME + FORWARDED_SKEW;
        let early = NOW - FORWARDED_SKEW - Duration::from_secs(1);
        let injector = key().verifier;
        let voucher = vouch();
        for now in [late, early] {
            assert_eq!(injector.take_forwarded(&voucher, "digest", now), None);
        }
        assert_eq!(injector.take_forwarded(&voucher, "other", NOW), None);
        let taken = injector.take_forwarded(&voucher, "digest", NOW);
        assert_eq!(taken.as_ref(), Some(&forwarded));
        let end = late - Duration::from_secs(1);
        for now in [NOW, end] {
            assert_eq!(injector.take_forwarded(&voucher, "digest", now), None);
        }
        let next = injector.take_forwarded(&vouch(), "digest", end);
        assert_eq!(next, Some(forwarded));
    }

    #[test]
    fn debug_shows_the_key_id_alone() {
        assert!(format!("{:?}", key().verifier).starts_with("JwtVerifier { kids: "));
        assert_eq!(
            format!("{:?}", key().signing),
            "SigningKey { name: \"jwt\", version: 1, .. }"
        );
    }
}
