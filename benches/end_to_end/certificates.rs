//! Throw-away certificates, ECDSA P-256 as Claviger's own, in files that every part can be pointed at.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::HOST;

/// Writes `NAME-ca.pem`, `NAME.pem` and `NAME.key`: a root, and its leaf for [`HOST`].
pub(crate) fn generate(dir: &Path, name: &str) -> anyhow::Result<()> {
    let mut root = CertificateParams::default();
    root.distinguished_name
        .push(DnType::CommonName, format!("benchmark {name}"));
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = CertifiedIssuer::self_signed(root, key()?)?;

    let mut leaf = CertificateParams::new([HOST.to_owned()])?;
    leaf.use_authority_key_identifier_extension = true;
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let leaf_key = key()?;
    let leaf = leaf.signed_by(&leaf_key, &root)?;

    write(dir, &format!("{name}-ca.pem"), &root.pem())?;
    write(dir, &format!("{name}.pem"), &leaf.pem())?;
    write(dir, &format!("{name}.key"), &leaf_key.serialize_pem())?;
    Ok(())
}

fn key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    std::fs::write(dir.join(name), text)
}

/// The server's side with the leaf of `dir` and `name`.
pub(crate) fn server(dir: &Path, name: &str, alpn: &[&[u8]]) -> anyhow::Result<Arc<ServerConfig>> {
    let file = |suffix| dir.join(format!("{name}.{suffix}"));
    let certificate = CertificateDer::from_pem_file(file("pem")).context("the certificate")?;
    let key = PrivateKeyDer::from_pem_file(file("key")).context("its key")?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The client's side. It never resumes a session: each new connection pays for a full handshake.
pub(crate) fn client(ca: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(ca).with_context(|| ca.display().to_string())?
    {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
