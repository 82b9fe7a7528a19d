//! AWS Signature Version 4: the agent's scope is read, checked and signed again with the real keys.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};
use time::{Date, OffsetDateTime};

/// What an agent's own (dummy) signature says that it wants to sign for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentScope {
    /// The date of the agent's scope. It is not used: our own clock signs.
    pub date: Date,
    /// `us-east-1`.
    pub region: String,
    /// `s3`.
    pub service: String,
    /// The lower-case names that the agent signed.
    pub signed_headers: Vec<String>,
    /// How the body enters the signature.
    pub payload: Payload,
}

/// How the agent's request says that its body enters the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// `UNSIGNED-PAYLOAD`: kept as declared.
    Unsigned,
    /// A SHA-256 in `x-amz-content-sha256` that the upstream checks (Amazon S3): kept as declared.
    Declared(String),
    /// The body must be hashed.
    Hash,
}

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
    /// The signature stands in the query.
    #[error(
        "presigned URLs are not supported here; send a request signed in its Authorization header"
    )]
    Presigned,
    /// The body is signed in chunks.
    #[error(
        "a body signed in chunks ({0}) is not supported here; turn chunked payload signing off in the SDK"
    )]
    Chunked(String),
    /// Signature Version 4A, or another algorithm.
    #[error("the signature algorithm `{0}` is not supported here; sign with AWS4-HMAC-SHA256")]
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

/// The keys of one set version, ready to sign.
pub struct SigV4 {
    _private: (),
}

impl AgentScope {
    /// Reads the scope of the agent's request, before its slots are stripped.
    ///
    /// # Errors
    /// [`SigV4Refusal`]: missing, presigned, chunked, 4A or malformed.
    pub fn read(headers: &HeaderMap, path_and_query: &str) -> Result<Self, SigV4Refusal> {
        let _ = (headers, path_and_query);
        unimplemented!()
    }

    /// Whether the body must be hashed before the head can be sent.
    pub fn needs_body(&self) -> bool {
        self.payload == Payload::Hash
    }
}

impl SigV4 {
    /// Checks the agent's scope against the host, the template and the set.
    ///
    /// `host` is canonical.
    ///
    /// # Errors
    /// [`SigV4Refusal::Mismatch`] or [`SigV4Refusal::NotAllowed`].
    pub fn check(&self, scope: &AgentScope, host: &str) -> Result<(), SigV4Refusal> {
        let _ = (scope, host);
        unimplemented!()
    }

    /// Checks the scope as [`SigV4::check`] does and signs: the headers to set, after the slots were stripped.
    ///
    /// # Errors
    /// [`SigV4Refusal`].
    /// Spec: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
    pub fn sign(
        &self,
        request: &Signable<'_>,
        scope: &AgentScope,
        now: OffsetDateTime,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, SigV4Refusal> {
        let _ = (request, scope, now);
        unimplemented!()
    }
}

impl fmt::Debug for SigV4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigV4(..)")
    }
}
