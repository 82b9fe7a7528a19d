//! Our own certificate in the handshake with a provider (mutual TLS, RFC 8446 section 4.4.2).

use std::fmt;
use std::sync::Arc;

use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::CertKey;
use providers::inject::ClientCertificate;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The certificates of a chain, the leaf included: far above what an authority issues.
const LONGEST_CHAIN: usize = 10;

/// Why a set's certificate and key cannot authenticate us.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ClientCertificateError {
    #[error(
        "the client certificate is not PEM, or no X.509 certificate; store the certificate and its chain as PEM"
    )]
    Certificate,
    #[error(
        "the private key is not PEM of PKCS #8, PKCS #1 or SEC 1, without a passphrase; store it as such"
    )]
    Key,
    #[error("the client certificate and the private key do not belong together; store both again")]
    Mismatch,
}

/// A certificate with its private key, ready for handshakes. The library that holds the key does not zeroize it.
pub(crate) struct ClientIdentity {
    pair: Arc<CertKey>,
    /// Keeps connections under it apart from all others.
    group: u64,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

impl ClientIdentity {
    /// Reads a set's certificate and key. `group` tells apart sets and their versions: Pingora's pool knows certificates
    /// by their serial numbers alone, which two authorities may give twice.
    pub(crate) fn read(
        stored: &ClientCertificate,
        group: u64,
    ) -> Result<Self, ClientCertificateError> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(stored.certificate.expose())
                .collect::<Result<_, _>>()
                .map_err(|_| ClientCertificateError::Certificate)?;
        let is_readable = |der: &CertificateDer<'_>| X509Certificate::from_der(der).is_ok();
        if !(1..=LONGEST_CHAIN).contains(&chain.len()) || !chain.iter().all(is_readable) {
            return Err(ClientCertificateError::Certificate);
        }
        let key = PrivateKeyDer::from_pem_slice(stored.key.expose())
            .map_err(|_| ClientCertificateError::Key)?;
        let key_bytes = key.secret_der().to_vec();
        let provider = rustls::crypto::ring::default_provider();
        let signer = provider
            .key_provider
            .load_private_key(key)
            .map_err(|_| ClientCertificateError::Key)?;
        let certificates = chain.iter().map(|der| der.to_vec()).collect();
        CertifiedKey::new(chain, signer)
            .keys_match()
            .map_err(|_| ClientCertificateError::Mismatch)?;
        Ok(Self {
            pair: Arc::new(CertKey::new(certificates, key_bytes)),
            group,
        })
    }

    /// Presents the certificate on connections to this peer, and on none that was made without it.
    pub(crate) fn present(&self, peer: &mut HttpPeer) {
        peer.client_cert_key = Some(Arc::clone(&self.pair));
        peer.group_key ^= self.group;
    }
}

#[cfg(test)]
mod tests {
    use vault::Secret;

    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["client".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn read(certificate: &str, key: &str) -> Result<ClientIdentity, ClientCertificateError> {
        let secret = |text: &str| Arc::new(Secret::from(text.to_owned()));
        let stored = ClientCertificate {
            certificate: secret(certificate),
            key: secret(key),
        };
        ClientIdentity::read(&stored, 7)
    }

    #[test]
    fn a_certificate_and_its_key_are_read() {
        let (certificate, key) = pair();
        let identity = read(&certificate, &key).unwrap();
        assert!(!format!("{identity:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_cannot_authenticate_is_refused_and_said_why() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        for (certificate, key, error) in [
            (
                "nonsense",
                key.as_str(),
                ClientCertificateError::Certificate,
            ),
            ("", &key, ClientCertificateError::Certificate),
            (&*certificate, "nonsense", ClientCertificateError::Key),
            (&*certificate, &*certificate, ClientCertificateError::Key),
            (&*certificate, &*other, ClientCertificateError::Mismatch),
        ] {
            assert_eq!(read(certificate, key).unwrap_err(), error);
        }
    }
}
