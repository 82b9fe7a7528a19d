//! AWS Signature Version 4: the agent's scope is read, checked and signed again with the real keys.

mod action;
pub(crate) mod endpoint;
mod presigned;
mod s3;
mod scope;
mod streamed;

use std::fmt;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningParams,
    SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::{v4, v4a};
use aws_smithy_runtime_api::client::identity::Identity;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

pub use self::action::{Asking, may_mint, may_mint_by, needs_body};
pub use self::endpoint::{SignedAt, takes_encoded_slash};
pub use self::presigned::Presigned;
pub use self::s3::object_key;
pub use self::scope::{AgentScope, Algorithm, Payload};
pub use self::streamed::{
    LONGEST_SIGNED_CHUNK, Streamed, StreamedBody, StreamedError, StreamedForm,
};

use self::endpoint::{Endpoint, Region};
use self::streamed::ChunkSigner;
use super::header::sensitive;
use super::{PrepareError, Secrets};
use crate::exchange::Session;
use crate::host::Authority;
use crate::template::SigV4Keys;

/// What takes the body's place in the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadHash {
    /// No body.
    Empty,
    /// `UNSIGNED-PAYLOAD`.
    Unsigned,
    /// A SHA-256.
    Sha256([u8; 32]),
}

/// Why a request cannot be signed. Each text names the next action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigV4Refusal {
    /// No signature at all.
    #[error(
        "the request has no AWS signature to take region and service from; let the SDK sign it with the placeholder keys"
    )]
    Missing,
    /// The signature stands in the query, and the grant does not say that it may.
    #[error(
        "presigned URLs are outside the grant; send a request signed in its Authorization header, or ask for a grant \
         with `aws.presigned`"
    )]
    Presigned,
    /// The signature in the query is not good now.
    #[error(
        "the presigned URL is not good at this time; sign it again, with a clock that is right"
    )]
    PresignedTime,
    /// The request names its action twice, or so that two readers may read it in two ways.
    #[error(
        "the request names its AWS action in two ways, or in one that can be read in two; name it once, as SDKs do"
    )]
    TwoActions,
    /// The action hands out credentials, and the grant does not name it.
    #[error("{action} hands out new credentials; ask for a grant whose `aws.actions` name it")]
    Mints {
        /// `sts:AssumeRole`.
        action: String,
    },
    /// A streamed payload of another form or service than Amazon S3's three.
    #[error(
        "a payload streamed as {0} is not supported here; send it whole, or to Amazon S3 as \
         STREAMING-AWS4-HMAC-SHA256-PAYLOAD or STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    )]
    Chunked(String),
    /// Another algorithm than those of versions 4 and 4A.
    #[error(
        "the signature algorithm `{0}` is not supported here; sign with AWS4-HMAC-SHA256 or AWS4-ECDSA-P256-SHA256"
    )]
    Algorithm(String),
    /// The Authorization header cannot be read.
    #[error("the AWS Authorization header is malformed: {0}; let the SDK sign the request")]
    Malformed(&'static str),
    /// The scope and the host disagree.
    #[error(
        "the request is signed for {asked}, and {host} is {expected}; configure the SDK's region and endpoint to agree"
    )]
    Mismatch {
        /// `region us-east-1`.
        asked: String,
        /// The host.
        host: String,
        /// `region eu-west-1`.
        expected: String,
    },
    /// A region or a service that the set or the grant does not include.
    #[error(
        "{what} `{asked}` is outside this set (allowed: {allowed}); ask for one that includes it"
    )]
    NotAllowed {
        /// `region` or `service`.
        what: &'static str,
        /// What the request asked for.
        asked: String,
        /// What is allowed.
        allowed: String,
    },
    /// The body is needed and was not hashed.
    #[error(
        "the body must be hashed before it is signed; send it with a Content-Length of at most {limit} bytes or declare UNSIGNED-PAYLOAD"
    )]
    BodyTooLarge {
        /// The bound in bytes.
        limit: usize,
    },
    /// The request's parts cannot be signed (a header that is not text).
    #[error("the request cannot be signed: {0}")]
    Unsignable(&'static str),
}

/// The request as it will be sent, without the agent's signature fields.
#[derive(Debug, Clone, Copy)]
pub struct Signable<'a> {
    /// The method.
    pub method: &'a str,
    /// The Host header or `:authority` that is sent: without the port where it is the scheme's own.
    pub host: &'a str,
    /// The path with its query, as sent.
    pub path_and_query: &'a str,
    /// The headers as sent; of these host, content-type and every `x-amz-*` are signed.
    pub headers: &'a HeaderMap,
    /// What takes the body's place.
    pub payload: &'a PayloadHash,
}

/// What a signature adds to a request.
#[derive(Debug)]
pub struct Signed {
    /// The headers to set, marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the body has to pass through, if it is streamed in AWS's own chunks.
    pub body: Option<StreamedBody>,
}

/// The keys of one set version, ready to sign.
pub struct SigV4 {
    identity: Identity,
    /// What the template lists; empty is what the host says.
    regions: Vec<String>,
    services: Vec<String>,
    /// What the set's own region key lists; empty is all.
    set_regions: Vec<String>,
}

impl PayloadHash {
    /// The hash of a whole body.
    pub fn of(body: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(body).into())
    }
}

impl SigV4 {
    pub(crate) fn prepare(keys: &SigV4Keys, secrets: &Secrets) -> Result<Self, PrepareError> {
        let text = |key: &String| -> Result<Option<&str>, PrepareError> {
            let Some(value) = secrets.get(key) else {
                return Ok(None);
            };
            let bad = |why| PrepareError::BadValue {
                key: key.clone(),
                slot: "an AWS signature".to_owned(),
                why,
            };
            if let Some(why) = super::header::why_not_a_field_value(value) {
                return Err(bad(why));
            }
            if value.iter().any(|byte| matches!(byte, b' ' | b'/' | b','))
                && key == &keys.access_key_id
            {
                return Err(bad("it holds a blank, a comma or a slash"));
            }
            str::from_utf8(value)
                .map(Some)
                .map_err(|_| bad("it is not text"))
        };
        let session = keys.session.as_ref().and_then(|key| secrets.get(key));
        let credentials = if let Some(packed) = session {
            session_credentials(packed)
        } else {
            let must = |key| -> Result<&str, PrepareError> {
                Ok(text(key)?.expect("the key is required, so the set holds it"))
            };
            let (id, secret) = (must(&keys.access_key_id)?, must(&keys.secret_access_key)?);
            let token = keys.session_token.as_ref().map(text).transpose()?.flatten();
            Credentials::new(id, secret, token.map(str::to_owned), None, "claviger")
        };
        let regions = keys
            .region
            .as_ref()
            .map(text)
            .transpose()?
            .flatten()
            .unwrap_or_default();
        Ok(Self {
            regions: keys.regions.clone(),
            services: keys.services.clone(),
            set_regions: regions
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            ..Self::of(credentials)
        })
    }

    /// A key that signs whatever AWS's hosts say.
    pub(crate) fn of(credentials: Credentials) -> Self {
        Self {
            identity: credentials.into(),
            regions: Vec::new(),
            services: Vec::new(),
            set_regions: Vec::new(),
        }
    }

    /// Checks the agent's scope against the host, the template and the set.
    ///
    /// `host` is canonical.
    ///
    /// # Errors
    /// [`SigV4Refusal::Mismatch`] or [`SigV4Refusal::NotAllowed`].
    pub fn check(&self, scope: &AgentScope, host: &str) -> Result<(), SigV4Refusal> {
        let (mut is_regional, mut own) = (true, None);
        if let Some(endpoint) = Endpoint::of(host) {
            let mismatch = |what: &str, asked: &str, expected: &str| SigV4Refusal::Mismatch {
                asked: format!("{what} {asked}"),
                host: host.to_owned(),
                expected: format!("{what} {expected}"),
            };
            if !endpoint.is_signed_as(&scope.service) {
                return Err(mismatch("service", &scope.service, &endpoint.services()));
            }
            if let Region::Named(region) | Region::Global(region) = endpoint.region {
                let is_other = |asked: &&String| asked.as_str() != region && asked.as_str() != "*";
                if let Some(asked) = scope.regions.iter().find(is_other) {
                    return Err(mismatch("region", asked, region));
                }
                own = Some(region);
            }
            // A global endpoint's region is only a word in the signature, so a set for one region may use it.
            is_regional = !matches!(endpoint.region, Region::Global(_));
        } else if self.regions.is_empty() || self.services.is_empty() {
            // A customer's server at AWS, since the loader refuses other hosts: nothing would bind the signature.
            return Err(SigV4Refusal::Unsignable(
                "its host names no AWS service; send it to the service's own endpoint",
            ));
        }
        allowed("service", &scope.service, &self.services)?;
        let asked = scope.regions.iter().map(String::as_str);
        for region in own.into_iter().chain(asked.filter(|_| own.is_none())) {
            allowed("region", region, &self.regions)?;
            if is_regional {
                allowed("region", region, &self.set_regions)?;
            }
        }
        Ok(())
    }

    /// Checks the scope as [`SigV4::check`] does and signs: the headers to set, after the slots were stripped.
    ///
    /// The payload of `request` counts only if [`AgentScope::needs_body`]. Time is that of `now`, never the agent's.
    ///
    /// # Errors
    /// [`SigV4Refusal`].
    /// Spec: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
    pub fn sign(
        &self,
        request: &Signable<'_>,
        scope: &AgentScope,
        now: OffsetDateTime,
    ) -> Result<Signed, SigV4Refusal> {
        let host = Authority::parse(request.host)
            .map_err(|_| SigV4Refusal::Unsignable("its host is not canonical"))?;
        self.check(scope, host.host.as_str())?;
        self.sign_checked(request, scope, now)
    }

    fn sign_checked(
        &self,
        request: &Signable<'_>,
        scope: &AgentScope,
        now: OffsetDateTime,
    ) -> Result<Signed, SigV4Refusal> {
        let body = body(&scope.payload, request.payload)?;
        let mut settings = SigningSettings::default();
        // What the agent declared is signed as a header, as every x-amz-* is; S3 wants it on every request.
        if is_s3(&scope.service)
            || request.headers.contains_key(CONTENT_SHA256)
            || scope.payload == Payload::Unsigned
        {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        if is_s3(&scope.service) {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        let parameters = self.parameters(scope, now, settings);
        let uri = format!("https://{}{}", request.host, request.path_and_query);
        let headers = signed(request)?;
        let signable = SignableRequest::new(request.method, uri, headers.into_iter(), body)
            .map_err(|_| SigV4Refusal::Unsignable("its path is not a URI's"))?;
        let (instructions, signature) = sign(signable, &parameters)
            .map_err(|_| SigV4Refusal::Unsignable("a header of it is malformed"))?
            .into_parts();
        let header = |(name, value): (&str, &str)| {
            let name =
                HeaderName::from_bytes(name.as_bytes()).expect("the signer writes header names");
            (name, sensitive(Zeroizing::new(value.as_bytes().to_vec())))
        };
        let body = match &scope.payload {
            Payload::Streamed(declared) => {
                let signer = declared
                    .form
                    .is_signed()
                    .then(|| self.chunk_signer(scope, now, signature));
                Some(StreamedBody::new(declared.clone(), signer))
            }
            Payload::Unsigned | Payload::Declared(_) | Payload::Hash => None,
        };
        Ok(Signed {
            headers: instructions.headers().map(header).collect(),
            body,
        })
    }

    fn parameters<'p>(
        &'p self,
        scope: &'p AgentScope,
        now: OffsetDateTime,
        settings: SigningSettings,
    ) -> SigningParams<'p> {
        match scope.algorithm {
            Algorithm::V4 => v4::SigningParams::builder()
                .identity(&self.identity)
                .region(scope.region())
                .name(&scope.service)
                .time(now.into())
                .settings(settings)
                .build()
                .expect("every parameter is given")
                .into(),
            Algorithm::V4a => v4a::SigningParams::builder()
                .identity(&self.identity)
                .region_set(&scope.region_set)
                .name(&scope.service)
                .time(now.into())
                .settings(settings)
                .build()
                .expect("every parameter is given")
                .into(),
        }
    }

    /// Signs on from the request's own signature.
    fn chunk_signer(&self, scope: &AgentScope, now: OffsetDateTime, seed: String) -> ChunkSigner {
        let credentials = self.credentials();
        let date = now.date();
        let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
        let date = format!("{year:04}{month:02}{day:02}");
        let (hour, minute, second) = now.to_hms();
        ChunkSigner {
            key: signing_key(credentials, scope, now),
            date_time: format!("{date}T{hour:02}{minute:02}{second:02}Z"),
            scope: format!("{date}/{}/{}/aws4_request", scope.region(), scope.service),
            previous: seed,
        }
    }

    fn credentials(&self) -> &Credentials {
        self.identity
            .data()
            .expect("the identity is made of credentials")
    }
}

/// The agent's own fields that are taken out and set again.
pub(crate) const SLOTS: [&str; 5] = [
    "authorization",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-s3session-token",
    REGION_SET,
];

/// The longest body that is hashed, in bytes.
pub const LONGEST_HASHED_BODY: usize = 8 * 1024 * 1024;

const REGION_SET: &str = "x-amz-region-set";
const CONTENT_SHA256: &str = "x-amz-content-sha256";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// The credentials in a made key.
fn session_credentials(packed: &[u8]) -> Credentials {
    let session = Session::read(packed).expect("only the reading of an answer makes such a key");
    let token = Some(session.token.to_owned());
    let (id, secret) = (session.access_key_id, session.secret_access_key);
    Credentials::new(id, secret, token, None, "claviger")
}

fn signing_key(
    credentials: &Credentials,
    scope: &AgentScope,
    now: OffsetDateTime,
) -> Zeroizing<[u8; 32]> {
    let secret = credentials.secret_access_key();
    let derived = v4::generate_signing_key(secret, now.into(), scope.region(), &scope.service);
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(derived.as_ref());
    key
}

/// The headers that enter the signature: host, content-type and every `x-amz-*`, but those that the signer sets.
/// More could be changed on the way (RFC 9110 lets proxies do so), and AWS asks for no more.
fn signed<'a>(request: &Signable<'a>) -> Result<Vec<(&'a str, &'a str)>, SigV4Refusal> {
    let enters = |name: &str| {
        let is_set_again = name == CONTENT_SHA256 || SLOTS.contains(&name);
        name == "content-type" || (name.starts_with("x-amz-") && !is_set_again)
    };
    let mut headers = vec![("host", request.host)];
    for (name, value) in request
        .headers
        .iter()
        .filter(|(name, _)| enters(name.as_str()))
    {
        let value = value
            .to_str()
            .map_err(|_| SigV4Refusal::Unsignable("a header to be signed is not ASCII text"))?;
        headers.push((name.as_str(), value));
    }
    Ok(headers)
}

fn body(declared: &Payload, read: &PayloadHash) -> Result<SignableBody<'static>, SigV4Refusal> {
    match (declared, read) {
        (Payload::Unsigned, _) => Ok(SignableBody::UnsignedPayload),
        (Payload::Declared(hash), _) => Ok(SignableBody::Precomputed(hash.clone())),
        (Payload::Streamed(declared), _) => {
            Ok(SignableBody::Precomputed(declared.form.as_str().to_owned()))
        }
        (Payload::Hash, PayloadHash::Empty) => Ok(SignableBody::empty()),
        (Payload::Hash, PayloadHash::Sha256(hash)) => {
            Ok(SignableBody::Precomputed(hex::encode(hash)))
        }
        (Payload::Hash, PayloadHash::Unsigned) => {
            Err(SigV4Refusal::Unsignable("its body was not hashed"))
        }
    }
}

fn allowed(what: &'static str, asked: &str, list: &[String]) -> Result<(), SigV4Refusal> {
    if list.is_empty() || list.iter().any(|name| name == asked) {
        return Ok(());
    }
    Err(SigV4Refusal::NotAllowed {
        what,
        asked: asked.to_owned(),
        allowed: list.join(", "),
    })
}

/// Whether a service keeps objects in buckets: Amazon S3 and its kin.
pub fn has_buckets(service: &str) -> bool {
    is_s3(service)
}

/// Amazon S3 and its kin encode paths once, keep them as they are, and check the declared hash of the body.
fn is_s3(service: &str) -> bool {
    matches!(
        service,
        "s3" | "s3express" | "s3-outposts" | "s3-object-lambda"
    )
}

impl fmt::Debug for SigV4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigV4")
            .field("regions", &self.set_regions)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
