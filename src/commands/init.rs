//! `init`: the configuration of an installation, written before its first start.

use std::path::Path;

use serde_json::json;
use toml::{Table, Value};
use vault::keys::pkcs11::Pkcs11Error;
use vault::keys::pkcs11::softhsm::{self, SoftHsm};

use super::Context;
use crate::config::{self, KeyProvider, Loaded};
use crate::data_dir::write_private;
use crate::failure::Failure;
use crate::hardening;

/// Write DIR/claviger.toml: which database, and who holds the keys
///
/// Without a key provider of its own an installation seals with keys in files of this machine, and needs no `init`: `claviger
/// serve` makes all it needs. What is given here is checked as `claviger config check` does, and nothing is overwritten.
#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
#[command(after_help = "\
Examples:
  claviger init --key-provider pkcs11 --softhsm
  claviger init --key-provider pkcs11 --pkcs11-module /usr/lib/libCryptoki2.so --pkcs11-token claviger --pin-file /etc/claviger/pin
  claviger init --key-provider gcp-kms --kms-key-ring projects/PROJECT/locations/LOCATION/keyRings/RING")]
pub(crate) struct Args {
    /// Who holds the keys that seal the vaults: software, pkcs11 or gcp-kms
    #[arg(long, value_name = "NAME", value_parser = config::checked("keys.provider"))]
    key_provider: Option<String>,
    /// Make a SoftHSM2 token in the data directory, for a trial: its keys lie in files of this machine
    #[arg(long, conflicts_with_all = ["pkcs11_module", "pkcs11_token", "pin_file"])]
    softhsm: bool,
    /// The PKCS#11 module: a shared library of the token's maker
    #[arg(long, value_name = "FILE", value_parser = config::checked("keys.pkcs11_module"))]
    pkcs11_module: Option<String>,
    /// The token's label
    #[arg(long, value_name = "LABEL", value_parser = config::checked("keys.pkcs11_token"))]
    pkcs11_token: Option<String>,
    /// A file with the token's user PIN
    #[arg(long, value_name = "FILE", value_parser = config::checked("keys.pkcs11_pin_file"))]
    pin_file: Option<String>,
    /// The key ring in Cloud KMS
    #[arg(long, value_name = "NAME", value_parser = config::checked("keys.gcp_kms_key_ring"))]
    kms_key_ring: Option<String>,
    /// Another address of the Cloud KMS API
    #[arg(long, value_name = "URL", value_parser = config::checked("keys.gcp_kms_endpoint"))]
    kms_endpoint: Option<String>,
    // A URL may carry a password, and clap repeats what it refuses.
    /// The database: sqlite:PATH, or postgres://USER@HOST/NAME
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// A file with the database's password, which then need not stand in the URL
    #[arg(long, value_name = "FILE", value_parser = config::checked("database.password_file"))]
    database_password_file: Option<String>,
}

pub(crate) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    for refusal in hardening::harden() {
        context.output.say(format!("note: {refusal}"));
    }
    let data = context.connection.data_dir()?;
    data.create()?;
    let _held = data.hold()?;
    let path = data.path().join("claviger.toml");
    if path.exists() {
        return Err(Failure::new(format!("{} exists already", path.display()))
            .hint("edit it and run `claviger config check`, or name another directory with --data DIR")
            .into());
    }
    let mut settings = args.settings();
    if args.softhsm {
        settings.extend(softhsm(args, data.path())?);
    }
    if settings.is_empty() {
        return Err(Failure::new("nothing to write: no setting is given")
            .usage()
            .hint("`claviger serve` needs no init; see `claviger init --help` for what can be set")
            .into());
    }
    let text = written(&settings);
    // The same check that a start does, so that what is written is taken.
    Loaded::from_sources(Some((&path, &text)), &[], &Vec::new())
        .map_err(|mistakes| config::report(&mistakes))?;
    write_private(&path, text.as_bytes())?;
    context.output.done(
        &json!({ "config": path }),
        format!("wrote {}; start with `claviger serve`", path.display()),
    );
    Ok(())
}

/// A setting by its key, and its value.
type Settings = Vec<(&'static str, Value)>;

impl Args {
    fn settings(&self) -> Settings {
        let given = [
            ("database.url", &self.database),
            ("database.password_file", &self.database_password_file),
            ("keys.provider", &self.key_provider),
            ("keys.pkcs11_module", &self.pkcs11_module),
            ("keys.pkcs11_token", &self.pkcs11_token),
            ("keys.pkcs11_pin_file", &self.pin_file),
            ("keys.gcp_kms_key_ring", &self.kms_key_ring),
            ("keys.gcp_kms_endpoint", &self.kms_endpoint),
        ];
        given
            .into_iter()
            .filter_map(|(key, value)| Some((key, Value::String(value.clone()?))))
            .collect()
    }
}

/// Makes a `SoftHSM` token in the data directory, and gives the settings that open it.
fn softhsm(args: &Args, data: &Path) -> anyhow::Result<Settings> {
    if args.key_provider.as_deref() != Some(KeyProvider::Pkcs11.name()) {
        return Err(
            Failure::new("--softhsm makes a token for the key provider pkcs11")
                .usage()
                .hint("claviger init --key-provider pkcs11 --softhsm")
                .into(),
        );
    }
    let failed = |error: Pkcs11Error| {
        Failure::new(error.to_string()).hint(
            "install SoftHSM2 (Debian: apt-get install softhsm2), or name another module with --pkcs11-module",
        )
    };
    let token = SoftHsm::prepare(data).map_err(failed)?;
    // The module reads its environment once, so this process may be replaced by itself here.
    softhsm::enter(&token.conf())?;
    token.initialise().map_err(failed)?;
    let text = |path: &Path| Value::String(path.display().to_string());
    Ok(vec![
        ("keys.pkcs11_module", text(token.module())),
        (
            "keys.pkcs11_token",
            Value::String(softhsm::TOKEN_LABEL.to_owned()),
        ),
        ("keys.pkcs11_pin_file", text(&token.user_pin())),
    ])
}

/// The settings as TOML, by section.
fn written(settings: &Settings) -> String {
    let mut sections = Table::new();
    for (key, value) in settings {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let fields = sections
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(fields) = fields {
            fields.insert(name.to_owned(), value.clone());
        }
    }
    sections.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_by_section() {
        let text = written(&vec![
            ("keys.provider", Value::String("pkcs11".into())),
            ("database.url", Value::String("postgres://db/x".into())),
        ]);
        let path = Path::new("claviger.toml");
        let loaded = Loaded::from_sources(Some((path, &text)), &[], &Vec::new()).unwrap();
        assert_eq!(loaded.config.keys.provider.name(), "pkcs11");
    }
}
