//! TLS with the proxy itself (`https://` proxies), for agents that reach it over a network: a lease may not cross one in
//! cleartext (threats.md D24).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leases::clock::Clock;
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;

use super::ca::Authority;
use super::leaf::{KEPT, LeafError, Leaves};

/// From one look at the files to the next.
const LOOK: Duration = Duration::from_secs(5);

/// The certificate that the proxy shows under its own name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerTls {
    /// The operator's own, in PEM. Both files are read again within five seconds after one changes.
    Files {
        /// The chain, the proxy's own certificate first.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// One of our authority, which agents trust for their tunnels anyway, under these names and addresses.
    Own {
        /// DNS names and IP addresses by which agents reach the proxy.
        names: Vec<String>,
    },
}

/// Why the proxy has no certificate of its own.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenerTlsError {
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
        "{path} holds no certificate in PEM; name the file with the proxy's own certificate and those that lead to its root"
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
    /// Our authority could not make one.
    #[error("no certificate could be made for the proxy's own names")]
    Own(#[from] LeafError),
}

/// The TLS settings of the listener, renewed while it runs.
#[derive(Debug)]
pub(crate) struct ListenerSettings {
    source: ListenerTls,
    leaves: Arc<Leaves>,
    current: RwLock<Arc<ServerConfig>>,
}

/// What the settings were last made of.
#[derive(Debug, Clone)]
enum Seen {
    /// A digest of both files.
    Files([u8; 32]),
    /// Who signed the leaf, and when.
    Own(Arc<Authority>, OffsetDateTime),
}

impl ListenerSettings {
    /// Makes the first settings, and what keeps them fresh for as long as it is polled.
    pub(crate) fn load(
        source: ListenerTls,
        leaves: Arc<Leaves>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Arc<Self>, impl Future<Output = ()>), ListenerTlsError> {
        let (settings, seen) = make(&source, &leaves, clock.now())?;
        let listener = Arc::new(Self {
            source,
            leaves,
            current: RwLock::new(Arc::new(settings)),
        });
        let fresh = Arc::clone(&listener).keep_fresh(seen, clock);
        Ok((listener, fresh))
    }

    /// The settings for the next handshake.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read())
    }

    async fn keep_fresh(self: Arc<Self>, mut seen: Seen, clock: Arc<dyn Clock>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_told = false;
        loop {
            look.tick().await;
            let (listener, last, now) = (Arc::clone(&self), seen.clone(), clock.now());
            let renewed = tokio::task::spawn_blocking(move || listener.renewed(&last, now)).await;
            match renewed {
                Ok(Ok(None)) => is_told = false,
                Ok(Ok(Some((settings, at)))) => {
                    *self.current.write() = Arc::new(settings);
                    (seen, is_told) = (at, false);
                    tracing::info!("the proxy shows a new certificate");
                }
                // One file may be replaced before the other; what stands serves on.
                Ok(Err(error)) if !is_told => {
                    is_told = true;
                    let cause = std::error::Error::source(&error).map(tracing::field::display);
                    tracing::error!(%error, cause, "the proxy keeps its old certificate");
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    /// New settings, if what they are made of changed or aged.
    fn renewed(
        &self,
        seen: &Seen,
        now: OffsetDateTime,
    ) -> Result<Option<(ServerConfig, Seen)>, ListenerTlsError> {
        match (&self.source, seen) {
            (ListenerTls::Own { .. }, Seen::Own(by, at))
                if now - *at < KEPT && Arc::ptr_eq(by, &self.leaves.authority()) =>
            {
                return Ok(None);
            }
            (ListenerTls::Files { certificate, key }, Seen::Files(digest))
                if Pair::read(certificate, key)?.digest() == *digest =>
            {
                return Ok(None);
            }
            _ => {}
        }
        make(&self.source, &self.leaves, now).map(Some)
    }
}

fn make(
    source: &ListenerTls,
    leaves: &Leaves,
    now: OffsetDateTime,
) -> Result<(ServerConfig, Seen), ListenerTlsError> {
    let (mut settings, seen) = match source {
        ListenerTls::Own { names } => {
            let authority = leaves.authority();
            let settings = leaves.of_listener(names, &authority, now)?;
            (settings, Seen::Own(authority, now))
        }
        ListenerTls::Files { certificate, key } => {
            let pair = Pair::read(certificate, key)?;
            let seen = Seen::Files(pair.digest());
            (pair.settings(certificate, key)?, seen)
        }
    };
    // CONNECT is read as HTTP/1.1 alone; a client that asks for HTTP/2 with a proxy takes this as well.
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((settings, seen))
}

/// The bytes of both files.
struct Pair {
    certificate: Vec<u8>,
    key: zeroize::Zeroizing<Vec<u8>>,
}

impl Pair {
    fn read(certificate: &Path, key: &Path) -> Result<Self, ListenerTlsError> {
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

    fn settings(&self, certificate: &Path, key: &Path) -> Result<ServerConfig, ListenerTlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .filter_map(Result::ok)
            .collect();
        if chain.is_empty() {
            return Err(ListenerTlsError::NoCertificate {
                path: certificate.to_owned(),
            });
        }
        let private =
            PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| ListenerTlsError::NoKey {
                path: key.to_owned(),
            })?;
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|source| ListenerTlsError::Pair {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                source,
            })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ListenerTlsError> {
    fs::read(path).map_err(|source| ListenerTlsError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Once;

    use rcgen::KeyPair;
    use tokio::sync::watch;

    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-22 12:00 UTC);

    fn authority() -> Arc<Authority> {
        let new = Authority::generate("test", NOW).unwrap();
        Arc::new(Authority::load(&new.certificate_pem, &new.key).unwrap())
    }

    fn leaves() -> Arc<Leaves> {
        with_authority().1
    }

    fn with_authority() -> (watch::Sender<Arc<Authority>>, Arc<Leaves>) {
        static CRYPTO: Once = Once::new();
        CRYPTO.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let sender = watch::Sender::new(authority());
        let leaves = Leaves::new(sender.subscribe()).unwrap();
        (sender, Arc::new(leaves))
    }

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["proxy.example".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn files(dir: &Path) -> ListenerTls {
        ListenerTls::Files {
            certificate: dir.join("tls.crt"),
            key: dir.join("tls.key"),
        }
    }

    fn write(dir: &Path, certificate: &str, key: &str) {
        fs::write(dir.join("tls.crt"), certificate).unwrap();
        fs::write(dir.join("tls.key"), key).unwrap();
    }

    fn listener(source: ListenerTls, leaves: Arc<Leaves>) -> (ListenerSettings, Seen) {
        let (settings, seen) = make(&source, &leaves, NOW).unwrap();
        let current = RwLock::new(Arc::new(settings));
        let listener = ListenerSettings {
            source,
            leaves,
            current,
        };
        (listener, seen)
    }

    #[test]
    fn changed_files_are_read_again_and_unchanged_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = pair();
        write(dir.path(), &certificate, &key);
        let (listener, seen) = listener(files(dir.path()), leaves());
        assert!(listener.renewed(&seen, NOW).unwrap().is_none());
        let (certificate, key) = pair();
        write(dir.path(), &certificate, &key);
        let (_, again) = listener.renewed(&seen, NOW).unwrap().unwrap();
        assert!(listener.renewed(&again, NOW).unwrap().is_none());
    }

    #[test]
    fn our_own_leaf_is_renewed_long_before_it_ends_and_with_its_authority() {
        let names = vec!["proxy.example".to_owned(), "192.0.2.7".to_owned()];
        let (rotation, leaves) = with_authority();
        let (listener, seen) = listener(ListenerTls::Own { names }, leaves);
        let later = |hours| NOW + time::Duration::hours(hours);
        assert!(listener.renewed(&seen, later(11)).unwrap().is_none());
        assert!(listener.renewed(&seen, later(12)).unwrap().is_some());
        rotation.send_replace(authority());
        assert!(listener.renewed(&seen, NOW).unwrap().is_some());
    }

    #[test]
    fn a_pair_that_cannot_be_used_is_told_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let make = || {
            make(&files(dir.path()), &leaves(), NOW)
                .map(|_| ())
                .unwrap_err()
        };
        assert!(make().to_string().ends_with("tls.crt cannot be read"));
        let ((certificate, key), (_, other)) = (pair(), pair());
        write(dir.path(), "nothing", &key);
        assert!(matches!(make(), ListenerTlsError::NoCertificate { .. }));
        write(dir.path(), &certificate, "nothing");
        assert!(matches!(make(), ListenerTlsError::NoKey { .. }));
        write(dir.path(), &certificate, &other);
        assert!(matches!(make(), ListenerTlsError::Pair { .. }));
    }
}
