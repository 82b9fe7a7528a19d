//! The trust that a wrapped program is given: the system's roots and our CA, as PEM and as a Java trust store.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p12_keystore::{Certificate, KeyStore, KeyStoreEntry};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// The trust store's password. It protects nothing, the certificates are public; Java asks for one.
pub(crate) const STORE_PASSWORD: &str = "changeit";

/// Where the files of one run stand.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// Our CA, and what `NODE_EXTRA_CA_CERTS` named before: Node adds it to its own roots.
    pub(crate) extra: PathBuf,
    /// The system's roots and our CA.
    pub(crate) bundle: PathBuf,
    /// The same as PKCS#12, for Java.
    pub(crate) store: PathBuf,
    /// The user's settings for wget, which reads no variable for its roots, and the bundle among them.
    pub(crate) wgetrc: PathBuf,
}

/// The user's own files, in whose place the program finds ours.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inherited {
    /// PEM that programs trust besides the system's roots.
    pub(crate) roots: Option<PathBuf>,
    /// wget's settings.
    pub(crate) wgetrc: Option<PathBuf>,
}

impl Inherited {
    /// As this process's own environment names them.
    pub(crate) fn of_this_process() -> Self {
        let named = |name| std::env::var_os(name).map(PathBuf::from);
        Self {
            roots: named("NODE_EXTRA_CA_CERTS"),
            wgetrc: named("WGETRC").or_else(|| Some(dirs::home_dir()?.join(".wgetrc"))),
        }
    }
}

/// Writes the files into `dir`.
///
/// # Errors
/// A CA that is no PEM certificate; a directory that cannot be written.
pub(crate) fn write(dir: &Path, ca_pem: &str, inherited: &Inherited) -> anyhow::Result<Trust> {
    let ca = certificates(ca_pem.as_bytes());
    anyhow::ensure!(!ca.is_empty(), "the CA holds no PEM certificate");
    // A file that is gone or odd was no help to the program before either.
    let read = |path: &Option<PathBuf>| path.as_ref().and_then(|path| fs::read(path).ok());
    let also = read(&inherited.roots)
        .map(|pem| certificates(&pem))
        .unwrap_or_default();
    let extra: Vec<_> = ca.into_iter().chain(also).collect();
    let mut all = rustls_native_certs::load_native_certs().certs;
    all.extend(extra.iter().cloned());

    let trust = Trust {
        extra: dir.join("ca.pem"),
        bundle: dir.join("bundle.pem"),
        store: dir.join("trust.p12"),
        wgetrc: dir.join("wgetrc"),
    };
    let put = |path: &Path, content: &[u8]| {
        fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    put(&trust.extra, pem(&extra).as_bytes())?;
    put(&trust.bundle, pem(&all).as_bytes())?;
    put(&trust.store, &store(&all)?)?;
    let mut wgetrc = read(&inherited.wgetrc).unwrap_or_default();
    // The last word counts.
    wgetrc.extend(format!("\nca_certificate = {}\n", trust.bundle.display()).into_bytes());
    put(&trust.wgetrc, &wgetrc)?;
    Ok(trust)
}

/// Every root that a provider's certificate may chain to, as PEM: this machine's, and `extra` beside them.
///
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` do not count: who can set a variable of the server must not choose whom it trusts.
pub(crate) fn upstream_roots(extra: Option<&[u8]>) -> String {
    let is_overridden = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    let mut roots = if is_overridden {
        let found = SYSTEM_BUNDLES
            .iter()
            .map(Path::new)
            .find(|path| path.is_file());
        found
            .map(|path| rustls_native_certs::load_certs_from_paths(Some(path), None).certs)
            .unwrap_or_default()
    } else {
        rustls_native_certs::load_native_certs().certs
    };
    roots.extend(extra.map(certificates).unwrap_or_default());
    pem(&roots)
}

/// Where the distributions keep their bundle.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(crate) fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem)
        .filter_map(Result::ok)
        .collect()
}

fn pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut out = String::new();
    for certificate in certificates {
        out.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(certificate);
        for start in (0..encoded.len()).step_by(64) {
            out.push_str(&encoded[start..encoded.len().min(start + 64)]);
            out.push('\n');
        }
        out.push_str("-----END CERTIFICATE-----\n");
    }
    out
}

fn store(certificates: &[CertificateDer<'_>]) -> anyhow::Result<Vec<u8>> {
    let mut store = KeyStore::new();
    for (number, der) in certificates.iter().enumerate() {
        // A root that this parser does not take would fail in Java as well; the others must not suffer.
        if let Ok(certificate) = Certificate::from_der(der) {
            store.add_entry(
                &format!("root-{number}"),
                KeyStoreEntry::Certificate(certificate),
            );
        }
    }
    // The store is read at every start of a JVM and keeps no secret: few rounds are enough.
    let writer = store
        .writer(STORE_PASSWORD)
        .encryption_iterations(2_048)
        .mac_iterations(2_048);
    writer
        .write()
        .context("the Java trust store cannot be built")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn the_bundle_and_the_store_hold_the_systems_roots_and_ours() {
        let dir = tempfile::tempdir().unwrap();
        let before = dir.path().join("before.pem");
        fs::write(&before, ca()).unwrap();
        let ours = ca();
        let inherited = Inherited {
            roots: Some(before),
            wgetrc: None,
        };
        let trust = write(dir.path(), &ours, &inherited).unwrap();

        let extra = certificates(&fs::read(&trust.extra).unwrap());
        let bundle = certificates(&fs::read(&trust.bundle).unwrap());
        assert_eq!(extra.len(), 2);
        assert_eq!(extra[0], certificates(ours.as_bytes())[0]);
        assert!(bundle.ends_with(&extra));
        let store =
            KeyStore::from_pkcs12(&fs::read(&trust.store).unwrap(), STORE_PASSWORD).unwrap();
        assert_eq!(store.entries_count(), bundle.len());
    }

    #[test]
    fn a_ca_without_a_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), "no pem", &Inherited::default()).is_err());
    }

    #[test]
    fn wget_keeps_its_settings_and_gets_the_bundle_behind() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join(".wgetrc");
        fs::write(&own, "tries = 2\nca_certificate = /own.pem").unwrap();
        let inherited = Inherited {
            roots: None,
            wgetrc: Some(own),
        };
        let trust = write(dir.path(), &ca(), &inherited).unwrap();

        let wgetrc = fs::read_to_string(&trust.wgetrc).unwrap();
        let bundle = trust.bundle.display();
        assert_eq!(
            wgetrc,
            format!("tries = 2\nca_certificate = /own.pem\nca_certificate = {bundle}\n")
        );
    }
}
