//! Who holds the keys of an installation under test.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::node::binary;
use super::wait;

/// Who holds the keys.
#[derive(Debug, Clone)]
pub(crate) enum Custody {
    /// Files in a directory that all nodes share.
    Software,
    /// A `SoftHSM` token that all nodes share.
    SoftHsm,
    /// Cloud KMS at this URL.
    Kms(String),
}

/// The key ring of the tests.
const KEY_RING: &str = "projects/test/locations/global/keyRings/claviger";

impl Custody {
    /// The settings that let every node below `home` use the same keys, which are made here where they lie in files.
    pub(crate) async fn variables(&self, home: &Path) -> Vec<(String, String)> {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        match self {
            Self::Software => {
                let keys = home.join("keys");
                let made = std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&keys);
                made.expect("the directory is ours");
                vec![
                    set("CLAVIGER_KEY_PROVIDER", "software"),
                    set("CLAVIGER_KEYS_DIR", &keys.display().to_string()),
                ]
            }
            Self::SoftHsm => {
                let dir = home.join("token");
                init_token(home, &dir).await;
                token_variables(&dir)
            }
            Self::Kms(url) => vec![
                set("CLAVIGER_KEY_PROVIDER", "gcp-kms"),
                set("CLAVIGER_GCP_KMS_KEY_RING", KEY_RING),
                set("CLAVIGER_GCP_KMS_ENDPOINT", url),
            ],
        }
    }
}

/// Makes a token and the settings for it in the data directory `dir`, as an operator does for a trial.
pub(crate) async fn init_token(home: &Path, dir: &Path) {
    let mut init = binary(home);
    init.args(["init", "--key-provider", "pkcs11", "--softhsm", "--data"])
        .arg(dir);
    let made = wait::within("a token", init.output()).await;
    let made = made.expect("the binary starts");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

/// What `init` wrote into `dir`, for nodes whose data directories are elsewhere.
fn token_variables(dir: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(dir.join("claviger.toml")).expect("init writes it");
    let written: toml::Table = text.parse().expect("init writes TOML");
    let keys = written["keys"].as_table().expect("the keys are a section");
    let mut variables: Vec<(String, String)> = keys
        .iter()
        .map(|(name, value)| {
            let name = match name.as_str() {
                "provider" => "CLAVIGER_KEY_PROVIDER".to_owned(),
                name => format!("CLAVIGER_{}", name.to_uppercase()),
            };
            (name, value.as_str().expect("a text").to_owned())
        })
        .collect();
    let conf = dir.join("softhsm/softhsm2.conf").display().to_string();
    variables.push(("SOFTHSM2_CONF".to_owned(), conf));
    variables
}

/// Writes a new file that only this user can read.
pub(crate) fn private_file(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .expect("the directory is ours");
}
