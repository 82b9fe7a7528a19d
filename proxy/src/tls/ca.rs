//! The certificate authority whose leaves agents see inside their tunnels.
//!
//! One self-signed ECDSA P-256 certificate an installation: `CA:TRUE`, path length 0, critical, for
//! signing leaves only (RFC 5280 sections 4.2.1.3 and 4.2.1.9). Its key is a secret like any other: the
//! caller seals it and hands it back at start.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use vault::Secret;

/// How long a new authority is valid.
const VALIDITY: Duration = Duration::days(5 * 365);
/// How far back validity starts, for agents whose clock is behind.
pub(crate) const BACKDATE: Duration = Duration::minutes(5);

/// A new authority: its certificate for agents to trust, and its key for the vault to seal.
#[derive(Debug)]
pub struct NewAuthority {
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS #8 DER.
    pub key: Secret,
}

/// Why an authority cannot be made or loaded.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The certificate library refused.
    #[error("the CA certificate or key was not accepted")]
    Certificate(#[from] rcgen::Error),
    /// The PEM text holds no certificate.
    #[error("the CA certificate is not PEM")]
    Pem(#[from] rustls_pki_types::pem::Error),
    /// The key does not belong to the certificate.
    #[error("the CA key does not belong to the CA certificate")]
    KeyMismatch,
}

/// The authority that signs leaves.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl Authority {
    /// Makes a new authority, valid from shortly before `now`.
    ///
    /// # Errors
    /// [`AuthorityError::Certificate`] when the certificate library refuses.
    pub fn generate(name: &str, now: OffsetDateTime) -> Result<NewAuthority, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Claviger");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - BACKDATE;
        params.not_after = now + VALIDITY;
        let certificate = params.self_signed(&key)?;
        Ok(NewAuthority {
            certificate_pem: certificate.pem(),
            key: Secret::new(key.serialize_der()),
        })
    }

    /// Loads an authority from its certificate and its opened key.
    ///
    /// # Errors
    /// [`AuthorityError`] when either is malformed or the two do not belong together.
    pub fn load(certificate_pem: &str, key: &Secret) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())?;
        let key = KeyPair::try_from(key.expose())?;
        if memchr::memmem::find(&certificate, key.public_key_raw()).is_none() {
            return Err(AuthorityError::KeyMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self {
            issuer,
            certificate_pem: certificate_pem.to_owned(),
        })
    }

    /// The certificate that agents trust, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-22 12:00 UTC);

    #[test]
    fn a_generated_authority_loads_again() {
        let new = Authority::generate("test", NOW).unwrap();
        let loaded = Authority::load(&new.certificate_pem, &new.key).unwrap();
        assert_eq!(loaded.certificate_pem(), new.certificate_pem);
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let (one, other) = (
            Authority::generate("a", NOW).unwrap(),
            Authority::generate("b", NOW).unwrap(),
        );
        let error = Authority::load(&one.certificate_pem, &other.key).unwrap_err();
        assert!(matches!(error, AuthorityError::KeyMismatch));
    }
}
