//! `secret`: single secrets by their paths in a vault.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use leases::clock::{Clock as _, SystemClock};
use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;

use super::Context;
use super::set::{read_file, read_stdin, without_line_end};
use super::vault::path_of as vault_path;
use crate::client::{Client, segment, text};
use crate::failure::Failure;
use crate::units::Moment;

/// Secrets: single values by their paths in a vault
///
/// What the injector is to send belongs into a set (`claviger set`): its values never leave. Secrets by their paths are for what a
/// program has to read itself.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store a secret, or its next version; the value comes from standard input or a file
    #[command(after_help = "\
Examples:
  claviger secret put deploy/ssh-key --type ssh_key --file id_ed25519
  pass show db | claviger secret put db/password --vault payments --type password --expires 30d")]
    Put(Box<Put>),
    /// Show a secret without its value; with --reveal its value alone
    #[command(after_help = "\
Examples:
  claviger secret get db/password
  claviger secret get db/password --vault payments --reveal | psql-login")]
    Get {
        #[command(flatten)]
        place: Place,
        /// Print the value, which counts as a read and is on record
        #[arg(long)]
        reveal: bool,
        /// The version to reveal [default: the newest that is not disabled]
        #[arg(long, value_name = "N", requires = "reveal")]
        version: Option<u64>,
    },
    /// List the secrets of a vault without their values
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  claviger secret list deploy/ --vault payments"
    )]
    List {
        /// Those whose path begins so
        prefix: Option<String>,
        /// The vault's name or id
        #[arg(long, default_value = "default")]
        vault: String,
    },
    /// Delete a secret; `restore` brings it back
    #[command(after_help = "Example:\n  claviger secret delete db/password")]
    Delete {
        #[command(flatten)]
        place: Place,
    },
    /// Take the deletion of a secret back
    #[command(after_help = "Example:\n  claviger secret restore db/password")]
    Restore {
        #[command(flatten)]
        place: Place,
    },
    /// List the versions of a secret without their values
    #[command(after_help = "Example:\n  claviger secret versions db/password")]
    Versions {
        #[command(flatten)]
        place: Place,
    },
    /// End one version of a secret; the newest of the others is then read
    #[command(after_help = "Example:\n  claviger secret disable db/password 3")]
    Disable {
        #[command(flatten)]
        place: Place,
        /// The version
        version: u64,
    },
    /// Have the server give a secret a random value, which nobody is shown
    #[command(
        after_help = "Example:\n  claviger secret rotate db/password --length 40 --charset alphanumeric"
    )]
    Rotate {
        #[command(flatten)]
        place: Place,
        /// Characters, 8 to 1024
        #[arg(long, default_value_t = 32)]
        length: usize,
        /// Which characters
        #[arg(long, value_enum, default_value = "hex")]
        charset: Charset,
    },
}

/// A secret.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The secret's path, as payments/api-key
    path: String,
    /// The vault's name or id
    #[arg(long, default_value = "default")]
    vault: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Put {
    #[command(flatten)]
    place: Place,
    /// A file that holds the value [default: standard input]; a line end at its end is left out
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[arg(
        long = "type",
        default_value = "generic",
        value_name = "TYPE",
        help = "generic, password, api_key, certificate, private_key, ssh_key, env, file, note or env_bundle"
    )]
    kind: String,
    /// A JSON object that is shown with the secret
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// When it ends: 8h, 30d, or a date [default: never]
    #[arg(long, value_name = "WHEN")]
    expires: Option<Moment>,
    /// How often it may be read [default: any number of times]
    #[arg(long, value_name = "N")]
    max_reads: Option<u64>,
}

/// The characters of a value that the server makes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Charset {
    Hex,
    Base64,
    Alphanumeric,
    Ascii,
}

impl Charset {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
            Self::Alphanumeric => "alphanumeric",
            Self::Ascii => "ascii",
        }
    }
}

impl Place {
    /// The secret's path.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Where the API does `operation` to the secret; `rest` stands behind its path.
    fn at(&self, operation: &str, rest: &str) -> String {
        let (vault, path) = (vault_path(&self.vault), segment(&self.path));
        format!("{vault}/{operation}/{path}{rest}")
    }
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    // What is written wrongly is told before a server is asked.
    let prepared = match &command {
        Command::Put(put) => Some(body(put)?),
        _ => None,
    };
    let client = context.connection.client().await?;
    let output = context.output;
    match command {
        Command::Put(put) => {
            let body = prepared.unwrap_or_default();
            let answer = client.put(&put.place.at("secrets", ""), &body).await?;
            let sentence = format!("stored {} version {}", put.place.path, answer["version"]);
            output.done(&answer, sentence);
        }
        Command::Get {
            place,
            reveal: true,
            version,
        } => reveal(context, &client, &place, version).await?,
        Command::Get { place, .. } => output.fields(&find(&client, &place).await?),
        Command::List { prefix, vault } => {
            let prefix =
                prefix.map_or_else(String::new, |text| format!("?prefix={}", segment(&text)));
            let path = format!("{}/secrets{prefix}", vault_path(&vault));
            let secrets = client.all(&path, "secrets").await?;
            output.list("secrets", &COLUMNS, &secrets);
        }
        Command::Delete { place } => {
            client.delete(&place.at("secrets", "")).await?;
            let sentence = format!(
                "deleted {0}; `claviger secret restore {0}` brings it back",
                place.path
            );
            output.done(&json!({ "deleted": place.path }), sentence);
        }
        Command::Restore { place } => {
            let answer = client
                .post(&place.at("secret-restore", ""), &json!({}))
                .await?;
            let sentence = format!(
                "{} is there again, as version {}",
                place.path, answer["version"]
            );
            output.done(&answer, sentence);
        }
        Command::Versions { place } => {
            let versions = client
                .all(&place.at("secret-versions", ""), "versions")
                .await?;
            output.list("versions", &VERSION_COLUMNS, &versions);
        }
        Command::Disable { place, version } => {
            let path = place.at("secret-version-disable", &format!("/{version}"));
            client.post(&path, &json!({})).await?;
            let sentence = format!("disabled version {version} of {}", place.path);
            output.done(
                &json!({ "disabled": place.path, "version": version }),
                sentence,
            );
        }
        Command::Rotate {
            place,
            length,
            charset,
        } => {
            let body = json!({ "length": length, "charset": charset.as_str() });
            let answer = client.post(&place.at("secret-rotate", ""), &body).await?;
            let sentence = format!(
                "{} has a new value, version {}",
                place.path, answer["version"]
            );
            output.done(&answer, sentence);
        }
    }
    Ok(())
}

const COLUMNS: [(&str, &str); 6] = [
    ("PATH", "path"),
    ("TYPE", "type"),
    ("VERSION", "version"),
    ("SET", "secret_set"),
    ("READS", "access_count"),
    ("EXPIRES", "expires_at"),
];
const VERSION_COLUMNS: [(&str, &str); 6] = [
    ("VERSION", "version"),
    ("TYPE", "type"),
    ("DISABLED", "is_disabled"),
    ("READS", "access_count"),
    ("EXPIRES", "expires_at"),
    ("CREATED", "created_at"),
];

fn body(put: &Put) -> anyhow::Result<Value> {
    let value = match &put.file {
        Some(path) => read_file(path)?,
        None => read_stdin()?,
    };
    let value = without_line_end(&value);
    if value.is_empty() {
        let failure = Failure::new("the value is empty");
        return Err(failure
            .hint("pipe it in, or name a file with --file")
            .into());
    }
    let mut body = Map::new();
    body.insert("type".to_owned(), json!(put.kind));
    body.insert("value".to_owned(), json!(value));
    if let Some(text) = &put.metadata {
        body.insert("metadata".to_owned(), metadata(text)?);
    }
    if let Some(end) = put.expires {
        let end = end.from(SystemClock.now()).format(&Rfc3339)?;
        body.insert("expires_at".to_owned(), json!(end));
    }
    if let Some(most) = put.max_reads {
        body.insert("max_access_count".to_owned(), json!(most));
    }
    Ok(Value::Object(body))
}

fn metadata(text: &str) -> Result<Value, Failure> {
    let read: Option<Map<String, Value>> = serde_json::from_str(text).ok();
    read.map(Value::Object).ok_or_else(|| {
        Failure::new("--metadata is no JSON object")
            .hint(r#"write it like --metadata '{"team": "payments"}'"#)
            .usage()
    })
}

/// A secret without its value: the list has it, and reads nothing.
pub(super) async fn find(client: &Client, place: &Place) -> anyhow::Result<Value> {
    let list = format!(
        "{}/secrets?prefix={}",
        vault_path(&place.vault),
        segment(&place.path)
    );
    let found = client.all(&list, "secrets").await?;
    let found = found
        .into_iter()
        .find(|secret| text(secret, "path") == place.path);
    found.ok_or_else(|| {
        Failure::new(format!(
            "there is no secret {} in vault {}",
            crate::output::clean(&place.path),
            crate::output::clean(&place.vault)
        ))
        .code("not_found")
        .hint("`claviger secret list` shows those there are; `claviger secret put` stores one")
        .into()
    })
}

async fn reveal(
    context: &Context,
    client: &Client,
    place: &Place,
    version: Option<u64>,
) -> anyhow::Result<()> {
    let path = match version {
        None => place.at("secrets", ""),
        Some(version) => place.at("secret-version", &format!("/{version}")),
    };
    let answer = client.get(&path).await?;
    if context.output.is_json() {
        context.output.value(&answer);
    } else {
        context.output.say(text(&answer, "value"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Place {
        Place {
            path: path.to_owned(),
            vault: "team a".to_owned(),
        }
    }

    #[test]
    fn a_path_is_one_segment_of_the_url_and_cannot_leave_it() {
        assert_eq!(
            place("a/b").at("secret-version", "/3"),
            "/v1/vaults/team%20a/secret-version/a%2Fb/3"
        );
        assert_eq!(
            place("../../agents?x").at("secrets", ""),
            "/v1/vaults/team%20a/secrets/..%2F..%2Fagents%3Fx"
        );
    }

    #[test]
    fn metadata_is_an_object() {
        assert_eq!(metadata(r#"{"a": 1}"#).unwrap(), json!({"a": 1}));
        for bad in ["", "[]", "1", "{", "\"x\""] {
            assert!(metadata(bad).unwrap_err().is_usage(), "{bad}");
        }
    }

    #[test]
    fn a_value_comes_from_a_file_without_its_last_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "two\nlines\n").unwrap();
        let put = Put {
            place: place("a"),
            file: Some(file.path().to_owned()),
            kind: "note".to_owned(),
            metadata: None,
            expires: None,
            max_reads: Some(3),
        };
        let expected = json!({ "type": "note", "value": "two\nlines", "max_access_count": 3 });
        assert_eq!(body(&put).unwrap(), expected);
        std::fs::write(file.path(), "\n").unwrap();
        assert!(body(&put).unwrap_err().to_string().contains("empty"));
    }
}
