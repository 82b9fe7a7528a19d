//! TLS of the API's own listener, with client certificates for agents that authenticate by one.
//!
//! Any certificate is taken at the handshake whose key the client proves to hold and whose dates hold: who signed it says
//! nothing here, for an agent is known by the fingerprint that a person registered.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::sender::ClientCertificate;

/// The certificate that the API shows, in PEM. Both files are read again within five seconds after one changes.
#[derive(Debug)]
pub struct ApiTls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

/// What the files held when they could last be used.
#[derive(Debug)]
struct Current {
    digest: [u8; 32],
    settings: Arc<ServerConfig>,
}

/// Why the API has no certificate to show.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiTlsError {
    /// A file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file has no certificate in it.
    #[error(
        "{path} holds no certificate in PEM; name the file with the API's own certificate and those that lead to its root"
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The file has no private key in it.
    #[error("{path} holds no private key in PEM that can be used; encrypted keys are not read")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key were not accepted together.
    #[error("the certificate in {certificate} cannot be used with the key in {key}")]
    Pair {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

impl ApiTls {
    /// Reads the files: the chain, the API's own certificate first, and its private key.
    ///
    /// # Errors
    /// [`ApiTlsError`].
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, ApiTlsError> {
        let current = Pair::read(&certificate, &key)?.current(&certificate, &key)?;
        Ok(Self {
            certificate,
            key,
            current: RwLock::new(current),
        })
    }

    /// The settings for the next handshake.
    pub(crate) fn settings(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().settings)
    }

    /// Reads the files again and again; what cannot be used is told once, and what stands serves on.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_told = false;
        loop {
            look.tick().await;
            let shared = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || shared.renew()).await {
                Ok(Ok(is_new)) => {
                    is_told = false;
                    if is_new {
                        tracing::info!("the API shows a new certificate");
                    }
                }
                // One file may be replaced before the other.
                Ok(Err(error)) if !is_told => {
                    is_told = true;
                    let cause = std::error::Error::source(&error).map(tracing::field::display);
                    tracing::error!(%error, cause, "the API keeps its old certificate");
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    /// Takes up what changed; whether anything did.
    fn renew(&self) -> Result<bool, ApiTlsError> {
        let pair = Pair::read(&self.certificate, &self.key)?;
        if pair.digest() == self.current.read().digest {
            return Ok(false);
        }
        let current = pair.current(&self.certificate, &self.key)?;
        *self.current.write() = current;
        Ok(true)
    }
}

/// The bytes of both files.
struct Pair {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Pair {
    fn read(certificate: &Path, key: &Path) -> Result<Self, ApiTlsError> {
        Ok(Self {
            certificate: read(certificate)?,
            key: read(key)?.into(),
        })
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update(self.certificate.len().to_be_bytes())
            .chain_update(&self.certificate)
            .chain_update(&*self.key)
            .finalize()
            .into()
    }

    fn current(&self, certificate: &Path, key: &Path) -> Result<Current, ApiTlsError> {
        let unusable = |source| ApiTlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .filter_map(Result::ok)
            .collect();
        if chain.is_empty() {
            let path = certificate.to_owned();
            return Err(ApiTlsError::NoCertificate { path });
        }
        let private = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| ApiTlsError::NoKey {
            path: key.to_owned(),
        })?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(AnyProven::new(&provider));
        let mut settings = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, private)
            .map_err(unusable)?;
        settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Each connection proves its certificate itself: a session that is taken up again would stand for a proof of before.
        settings.session_storage = Arc::new(NoServerSessionStorage {});
        settings.send_tls13_tickets = 0;
        Ok(Current {
            digest: self.digest(),
            settings: Arc::new(settings),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ApiTlsError> {
    fs::read(path).map_err(|source| ApiTlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Takes a client without a certificate, and one with any certificate that is within its dates and whose key it holds.
#[derive(Debug)]
struct AnyProven {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyProven {
    fn new(provider: &CryptoProvider) -> Self {
        Self {
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ClientCertVerifier for AnyProven {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No hints: clients offer whichever certificate they were given.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let certificate =
            ClientCertificate::read(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let at = OffsetDateTime::from_unix_timestamp(seconds);
        if at.is_ok_and(|at| certificate.is_valid(at)) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::Expired.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// From one look at the files to the next.
const LOOK: Duration = Duration::from_secs(5);
