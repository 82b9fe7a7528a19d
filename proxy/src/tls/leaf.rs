//! Leaf certificates and the TLS settings of a tunnel, kept for each host that a lease opened.
//!
//! One ECDSA P-256 key serves all leaves of a process. A leaf names exactly one DNS name or one IP
//! address, the one that CONNECT asked for, and lives at most a day; its settings are dropped well before.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration as StdDuration;

use moka::sync::Cache;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use tokio::sync::watch;

use super::ca::{Authority, BACKDATE};

/// How long a leaf is valid: at most 24 hours, its backdating included.
const VALIDITY: Duration = Duration::hours(23);
/// How long a leaf is served before a new one is minted.
pub(crate) const KEPT: StdDuration = StdDuration::from_hours(12);
/// How many hosts' settings are kept, about 11 KiB each.
const CAPACITY: u64 = 2048;

/// Why a leaf cannot be made.
#[derive(Debug, Error)]
pub enum LeafError {
    /// The certificate library refused.
    #[error("the leaf certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused what was made.
    #[error("the leaf certificate was not accepted")]
    Tls(#[from] rustls::Error),
}

/// Mints leaves and keeps their TLS settings.
#[derive(Debug)]
pub(crate) struct Leaves {
    authority: watch::Receiver<Arc<Authority>>,
    key: KeyPair,
    kept: Cache<Arc<str>, Kept>,
}

/// The settings for a host, and whose leaf is in them.
#[derive(Debug, Clone)]
struct Kept {
    authority: Arc<Authority>,
    settings: Arc<ServerConfig>,
}

impl Leaves {
    pub(crate) fn new(authority: watch::Receiver<Arc<Authority>>) -> Result<Self, LeafError> {
        Ok(Self {
            authority,
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            kept: Cache::builder()
                .max_capacity(CAPACITY)
                .time_to_live(KEPT)
                .build(),
        })
    }

    /// The TLS settings for `host`, which a verified lease has named.
    pub(crate) fn settings(
        &self,
        host: &Arc<str>,
        now: OffsetDateTime,
    ) -> Result<Arc<ServerConfig>, LeafError> {
        let authority = self.authority();
        // After the authority was rotated, leaves of the last one are served no longer: its time to be trusted is running out.
        if let Some(kept) = self.kept.get(host)
            && Arc::ptr_eq(&kept.authority, &authority)
        {
            return Ok(kept.settings);
        }
        let settings = Arc::new(self.mint(host, &authority, now)?);
        let kept = Kept {
            authority,
            settings: Arc::clone(&settings),
        };
        self.kept.insert(Arc::clone(host), kept);
        Ok(settings)
    }

    /// The authority that signs now.
    pub(crate) fn authority(&self) -> Arc<Authority> {
        Arc::clone(&self.authority.borrow())
    }

    /// The TLS settings of the proxy itself under these names and addresses.
    pub(crate) fn of_listener(
        &self,
        names: &[String],
        authority: &Authority,
        now: OffsetDateTime,
    ) -> Result<ServerConfig, LeafError> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.signed(&names, authority, now)
    }

    fn mint(
        &self,
        host: &str,
        authority: &Authority,
        now: OffsetDateTime,
    ) -> Result<ServerConfig, LeafError> {
        let mut settings = self.signed(&[host], authority, now)?;
        settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(settings)
    }

    fn signed(
        &self,
        names: &[&str],
        authority: &Authority,
        now: OffsetDateTime,
    ) -> Result<ServerConfig, LeafError> {
        let certificate = self.certificate(names, authority, now)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        Ok(ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?)
    }

    fn certificate(
        &self,
        names: &[&str],
        authority: &Authority,
        now: OffsetDateTime,
    ) -> Result<CertificateDer<'static>, LeafError> {
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial());
        params.distinguished_name = DistinguishedName::new();
        // The common name is bounded to 64 bytes (RFC 5280 appendix A.1); the name that counts is the SAN.
        if let Some(name) = names.first().filter(|name| name.len() <= 64) {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        for name in names {
            params.subject_alt_names.push(match IpAddr::from_str(name) {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into()?),
            });
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACKDATE;
        params.not_after = now + VALIDITY;
        Ok(params.signed_by(&self.key, authority.issuer())?.into())
    }
}

/// A random serial of 127 bits, positive (RFC 5280 section 4.1.2.2): no two leaves share one.
fn serial() -> SerialNumber {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system has a source of random bytes");
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use leases::clock::{Clock as _, SystemClock};
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-22 12:00 UTC);

    fn authority(name: &str) -> (Arc<Authority>, String) {
        let new = Authority::generate(name, NOW).unwrap();
        let loaded = Authority::load(&new.certificate_pem, &new.key).unwrap();
        (Arc::new(loaded), new.certificate_pem)
    }

    /// Whether a client that trusts `ca` alone completes a handshake with these settings.
    fn is_trusted(settings: &Arc<ServerConfig>, ca: &str) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
            .unwrap();
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "api.example.com".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(settings)).unwrap();
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        true
    }

    #[test]
    fn another_authority_signs_the_next_leaf_of_a_host_that_is_kept() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ((first, first_pem), (second, second_pem)) = (authority("one"), authority("two"));
        let signing = watch::Sender::new(first);
        let leaves = Leaves::new(signing.subscribe()).unwrap();
        let host: Arc<str> = "api.example.com".into();
        let now = SystemClock.now();

        let before = leaves.settings(&host, now).unwrap();
        assert!(Arc::ptr_eq(&before, &leaves.settings(&host, now).unwrap()));
        signing.send_replace(second);
        let after = leaves.settings(&host, now).unwrap();

        assert!(is_trusted(&before, &first_pem) && !is_trusted(&before, &second_pem));
        assert!(is_trusted(&after, &second_pem) && !is_trusted(&after, &first_pem));
    }
}
