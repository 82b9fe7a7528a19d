//! What a request says of its sender beside the credential: where it goes, and what the connection proves.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What TLS says of a connection: in the extensions of each request that came over it.
///
/// The server of [`crate::serve`] puts it there, and nothing else does: no header stands for it.
#[derive(Debug, Clone)]
pub struct TlsPeer(Option<Arc<ClientCertificate>>);

/// A certificate whose key the client of a connection has proven to hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// SHA-256 of its DER.
    pub(crate) fingerprint: [u8; 32],
    not_before: i64,
    not_after: i64,
}

/// Why bytes are no certificate.
#[derive(Debug, thiserror::Error)]
#[error("the client's certificate cannot be read")]
pub struct NotACertificate;

impl TlsPeer {
    /// The peer of a connection by TLS, with the certificate, in DER, whose key it has proven to hold.
    ///
    /// # Errors
    /// [`NotACertificate`].
    pub fn new(certificate: Option<&[u8]>) -> Result<Self, NotACertificate> {
        let certificate = certificate.map(ClientCertificate::read).transpose()?;
        Ok(Self(certificate.map(Arc::new)))
    }
}

impl ClientCertificate {
    /// Reads a certificate in DER, and nothing behind it.
    pub(crate) fn read(der: &[u8]) -> Result<Self, NotACertificate> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NotACertificate)?;
        if !rest.is_empty() {
            return Err(NotACertificate);
        }
        let validity = certificate.validity();
        Ok(Self {
            fingerprint: Sha256::digest(der).into(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// Whether it is within its dates.
    pub(crate) fn is_valid(&self, now: OffsetDateTime) -> bool {
        (self.not_before..=self.not_after).contains(&now.unix_timestamp())
    }
}

/// What a request says of its sender beside the credential.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    tls: Option<TlsPeer>,
}

impl Sender {
    pub(crate) fn of(parts: &Parts) -> Self {
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            tls: parts.extensions.get().cloned(),
        }
    }

    /// Whether the request came by TLS that ends here.
    pub(crate) fn is_by_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The certificate of the connection.
    pub(crate) fn certificate(&self) -> Option<&ClientCertificate> {
        self.tls.as_ref().and_then(|TlsPeer(of)| of.as_deref())
    }
}

impl<S: Sync> FromRequestParts<S> for Sender {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}
