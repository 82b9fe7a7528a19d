//! Who holds the keys: the configured key providers, opened.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use control_plane::Signers;
use vault::keys::KeySigner;
use vault::keys::gcp_kms::{Credentials, GcpKmsKeys, GcpKmsOptions};
use vault::keys::pkcs11::softhsm;
use vault::keys::pkcs11::{PinSource, Pkcs11Keys, Pkcs11Options, TokenRef};
use vault::keys::providers::Providers;
use vault::keys::software::{Protection, SoftwareKeys};
use vault::{KEY_DEADLINE, KeyWrapper, Secret, Vault};
use zeroize::Zeroizing;

use super::metered::KeyMetrics;
use super::plant::chain;
use crate::config::{Config, KeyProvider};
use crate::data_dir::DataDir;
use crate::failure::Failure;

/// Systemd's directory of credentials, one file each (systemd.exec(5), `LoadCredential=`).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// The credential that holds the PIN where no file is named.
const PIN_CREDENTIAL: &str = "pkcs11-pin";

/// Where a `SoftHSM` token lies in the data directory, its module finds it by the environment, which is given to this process
/// here: by starting it anew. Call it before threads start and before anything is locked.
pub(super) fn enter_token(config: &Config) -> anyhow::Result<()> {
    let keys = &config.keys;
    if keys.provider != KeyProvider::Pkcs11 && !keys.also.contains(&KeyProvider::Pkcs11) {
        return Ok(());
    }
    let data = DataDir::or_default(config.server.data.clone())?;
    let conf = data.path().join("softhsm/softhsm2.conf");
    if conf.exists() && std::env::var_os(softhsm::CONF_VARIABLE).is_none() {
        softhsm::enter(&conf).context("cannot start anew for the SoftHSM token")?;
    }
    Ok(())
}

/// The key providers of an installation.
pub(crate) struct Custody {
    pub(crate) vault: Vault,
    /// Where signing keys are made and live.
    pub(crate) signers: Signers,
}

struct Opened {
    wrapper: Arc<dyn KeyWrapper>,
    signer: Option<Arc<dyn KeySigner>>,
}

impl Custody {
    /// Opens the provider that seals, and those beside it that only open what they have sealed.
    ///
    /// # Errors
    /// A [`Failure`] that names the setting to look at.
    pub(crate) async fn open(
        config: &Config,
        data: &DataDir,
        metrics: &KeyMetrics,
    ) -> Result<Self, Failure> {
        let keys = &config.keys;
        let primary = open(keys.provider, config, data).await?;
        let (mut others, mut other_signers) = (Vec::new(), Vec::new());
        for also in &keys.also {
            if *also != keys.provider {
                let opened = open(*also, config, data).await?;
                others.push(metrics.count(opened.wrapper));
                other_signers.extend(opened.signer);
            }
        }
        let wrapper = metrics.count(primary.wrapper);
        let wrapper = if others.is_empty() {
            wrapper
        } else {
            Arc::new(Providers::new(wrapper, others))
        };
        Ok(Self {
            vault: Vault::new(wrapper),
            signers: Signers::new(primary.signer, other_signers),
        })
    }
}

async fn open(provider: KeyProvider, config: &Config, data: &DataDir) -> Result<Opened, Failure> {
    match provider {
        KeyProvider::Software => software(config, data),
        KeyProvider::Pkcs11 => pkcs11(config).await,
        KeyProvider::GcpKms => gcp_kms(config).await,
    }
}

fn software(config: &Config, data: &DataDir) -> Result<Opened, Failure> {
    let protection = match &config.keys.passphrase_file {
        None => Protection::File,
        Some(file) => Protection::Passphrase(read_secret(
            file,
            "passphrase",
            "name a readable file with --passphrase-file FILE",
        )?),
    };
    let dir = config.keys.dir.clone().unwrap_or_else(|| data.keys());
    let keys = SoftwareKeys::open(&dir, protection).map_err(|error| {
        unavailable(
            &error,
            "the key directory belongs to this user alone: files 0600, directory 0700",
        )
    })?;
    Ok(Opened {
        wrapper: Arc::new(keys),
        signer: None,
    })
}

async fn pkcs11(config: &Config) -> Result<Opened, Failure> {
    let settings = &config.keys.pkcs11;
    let hint = "`claviger init --key-provider pkcs11` writes these settings; `--softhsm` also makes a token for a trial";
    let missing = |what: &str| {
        Failure::new(format!("the key provider pkcs11 lacks {what}"))
            .code("config_invalid")
            .hint(hint)
    };
    let module = settings
        .module
        .clone()
        .ok_or_else(|| missing("its module: keys.pkcs11_module"))?;
    let token = match (&settings.token, settings.slot) {
        (Some(label), None) => TokenRef::Label(label.clone()),
        (None, Some(slot)) => TokenRef::Slot(slot),
        (None, None) => return Err(missing("its token: keys.pkcs11_token or keys.pkcs11_slot")),
        (Some(_), Some(_)) => {
            return Err(Failure::new(
                "keys.pkcs11_token and keys.pkcs11_slot are both set; one names the token",
            )
            .code("config_invalid")
            .hint("leave one of them out; a label stays the same where slots are renumbered"));
        }
    };
    let pin = match &settings.pin_file {
        Some(file) => PinSource::File(file.clone()),
        None => pin_credential().ok_or_else(|| {
            missing("the token's PIN: keys.pkcs11_pin_file, or systemd's credential `pkcs11-pin`")
        })?,
    };
    let mut options = Pkcs11Options::new(module, token, pin);
    if let Some(sessions) = settings.sessions {
        options.sessions = sessions;
    }
    let keys = Pkcs11Keys::open(options).await.map_err(|error| {
        unavailable(
            &error,
            "check keys.pkcs11_module, the token and its PIN; `pkcs11-tool --module MODULE --list-slots` shows what the module sees",
        )
    })?;
    let signer = keys.signer();
    Ok(Opened {
        wrapper: keys,
        signer,
    })
}

/// The PIN as systemd hands it over.
fn pin_credential() -> Option<PinSource> {
    let directory = PathBuf::from(std::env::var_os(CREDENTIALS)?);
    let name = PIN_CREDENTIAL.to_owned();
    directory
        .join(&name)
        .exists()
        .then_some(PinSource::Credential { directory, name })
}

async fn gcp_kms(config: &Config) -> Result<Opened, Failure> {
    let settings = &config.keys.gcp_kms;
    let key_ring = settings.key_ring.clone().ok_or_else(|| {
        Failure::new("the key provider gcp-kms lacks its key ring: keys.gcp_kms_key_ring")
            .code("config_invalid")
            .hint("`claviger init --key-provider gcp-kms --kms-key-ring NAME` writes it")
    })?;
    let credentials = match &settings.credentials_file {
        Some(file) => Credentials::File(file.clone()),
        // A double of the service on this machine asks for none, and nothing else is reached in cleartext.
        None if settings
            .endpoint
            .as_ref()
            .is_some_and(|url| url.scheme() == "http") =>
        {
            Credentials::Anonymous
        }
        None => Credentials::ApplicationDefault,
    };
    let options = GcpKmsOptions {
        key_ring,
        endpoint: settings.endpoint.as_ref().map(ToString::to_string),
        credentials,
        deadline: KEY_DEADLINE,
    };
    let keys = GcpKmsKeys::open(options)
        .await
        .map_err(|error| unavailable(&error, "check keys.gcp_kms_key_ring and the credentials"))?;
    let signer = keys.signer();
    Ok(Opened {
        wrapper: keys,
        signer,
    })
}

fn unavailable(error: &dyn std::error::Error, hint: &str) -> Failure {
    Failure::new(chain(error))
        .code("key_unavailable")
        .hint(hint)
}

/// Reads a secret of one line from a file that nobody else can read. `what` names it in messages.
pub(super) fn read_secret(file: &Path, what: &str, hint: &str) -> Result<Secret, Failure> {
    let failure = |error: std::io::Error| {
        Failure::new(format!(
            "cannot read the {what} in {}: {error}",
            file.display()
        ))
        .hint(hint)
    };
    let mode = std::fs::metadata(file)
        .map_err(failure)?
        .permissions()
        .mode();
    // In systemd's directory the group bits stand for the unit's access list.
    let is_credential = std::env::var_os(CREDENTIALS).is_some_and(|dir| file.starts_with(dir));
    let others = if is_credential { 0o007 } else { 0o077 };
    if mode & others != 0 {
        return Err(Failure::new(format!(
            "{} is readable by others (mode {:04o})",
            file.display(),
            mode & 0o7777
        ))
        .hint(format!("run `chmod 600 {}`", file.display())));
    }
    let text = Zeroizing::new(std::fs::read(file).map_err(failure)?);
    let end = text
        .iter()
        .rposition(|byte| !b"\r\n".contains(byte))
        .map_or(0, |last| last + 1);
    if end == 0 {
        return Err(
            Failure::new(format!("the {what} in {} is empty", file.display()))
                .hint(format!("write the {what} into it, on one line")),
        );
    }
    Ok(Secret::new(text[..end].to_vec()))
}
