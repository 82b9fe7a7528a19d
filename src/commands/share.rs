//! `share`: one version of a secret for a person, an agent, an email, or whoever has a link.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use leases::clock::{Clock as _, SystemClock};
use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::Context;
use super::member;
use super::secret::{Place, find as find_secret};
use crate::client::{Client, segment, text};
use crate::failure::Failure;
use crate::prompt;
use crate::units::Moment;

/// Shares: one version of a secret for somebody else, as often and as long as you say
///
/// Whoever opens a share holds the value: it is an export, and each one is on record. What an agent only has to use belongs behind a
/// grant instead (`claviger grant create`), where it never holds it.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Share the newest version of a secret
    ///
    /// With --link and --email a link goes to stdout, which is shown this once: whoever has it may open the share, with --email
    /// only together with an account of that email. The others are found by their id.
    #[command(after_help = "\
Examples:
  claviger share create db/password --user ada@example.org --expires 1d
  claviger share create db/password --vault payments --link --expires 1h --max-reads 1 --passphrase-file words.txt
  claviger share create ci/token --agent deployer --expires 8h --export
  CLAVIGER_KEY_FILE=bot.key claviger share create found/token --creator --expires 7d")]
    Create(Box<Create>),
    /// List what you shared, or what was shared with you
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  claviger share list\n  claviger share list --inbound"
    )]
    List {
        /// What was shared with you and can still be accepted or opened
        #[arg(long, conflicts_with = "all")]
        inbound: bool,
        /// What everybody in your organization shared, for owners and admins
        #[arg(long)]
        all: bool,
    },
    /// Show a share without its value
    #[command(after_help = "Example:\n  claviger share show shr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Show {
        /// The share's id
        id: String,
    },
    /// Accept what was shared with you; until then it does not open
    #[command(after_help = "\
Examples:
  claviger share accept shr_01K3ABCDEFGHJKMNPQRSTVWXYZ
  claviger share accept - < link.txt")]
    Accept {
        /// The share's id, or - for a link on standard input
        share: String,
    },
    /// Decline what was shared with you: it opens no more
    #[command(after_help = "Example:\n  claviger share decline shr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Decline {
        /// The share's id
        id: String,
    },
    /// End a share at once
    #[command(after_help = "Example:\n  claviger share revoke shr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Revoke {
        /// The share's id
        id: String,
    },
    /// Print a shared value, which counts and is on record
    #[command(after_help = "\
Examples:
  claviger share open shr_01K3ABCDEFGHJKMNPQRSTVWXYZ
  claviger share open - --passphrase-file words.txt < link.txt")]
    Open {
        /// The share's id, or - for a link on standard input
        share: String,
        /// A file that holds the passphrase
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    recipient: Recipient,
    /// When it ends: 8h, 30d, or a date, at most 90 days ahead
    #[arg(long, value_name = "WHEN")]
    expires: Moment,
    /// How often it opens [default: any number of times]
    #[arg(long, value_name = "N")]
    max_reads: Option<u64>,
    /// A file that holds a passphrase to be asked for, or - for standard input; tell it by another way than the link
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// A network or address from which it opens; repeatable [default: everywhere]
    #[arg(long, value_name = "CIDR")]
    cidr: Vec<String>,
    /// Say that the plaintext is to leave: needed for an agent, and for an entry of a secret set
    #[arg(long)]
    export: bool,
}

/// For whom.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Recipient {
    /// A member of your organization, by id, email or name
    #[arg(long, value_name = "MEMBER")]
    user: Option<String>,
    /// An agent, by id or name; with --export
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Whoever has this email, also outside of your organization
    #[arg(long, value_name = "EMAIL")]
    email: Option<String>,
    /// Whoever has the link
    #[arg(long)]
    link: bool,
    /// The person who made you, with an agent's key
    #[arg(long)]
    creator: bool,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let output = context.output;
    let client = || context.connection.client();
    match command {
        Command::Create(create) => run_create(context, &create).await?,
        Command::List { inbound, all } => {
            let path = match (inbound, all) {
                (true, _) => "/v1/shares/inbound",
                (false, true) => "/v1/shares/outbound?all=true",
                (false, false) => "/v1/shares/outbound",
            };
            let shares = client().await?.all(path, "shares").await?;
            output.list("shares", &COLUMNS, &shares);
        }
        Command::Show { id } => {
            let path = format!("/v1/shares/{}", segment(&id));
            output.fields(&client().await?.get(&path).await?);
        }
        Command::Accept { share } => {
            let named = named(context, &share)?;
            let path = format!("/v1/shares/{}/accept", segment(&named));
            client().await?.post(&path, &json!({})).await?;
            let sentence = "accepted; `claviger share open` prints the value";
            output.done(&json!({ "accepted": true }), sentence);
        }
        Command::Decline { id } => {
            let path = format!("/v1/shares/{}/decline", segment(&id));
            client().await?.post(&path, &json!({})).await?;
            output.done(&json!({ "declined": id }), format!("declined {id}"));
        }
        Command::Revoke { id } => {
            let path = format!("/v1/share/{}", segment(&id));
            client().await?.delete(&path).await?;
            output.done(&json!({ "revoked": id }), format!("revoked {id}"));
        }
        Command::Open {
            share,
            passphrase_file,
        } => open(context, &share, passphrase_file.as_deref()).await?,
    }
    Ok(())
}

async fn run_create(context: &Context, create: &Create) -> anyhow::Result<()> {
    let passphrase = create.passphrase_file.as_deref();
    let passphrase = passphrase
        .map(|file| prompt::secret("passphrase", Some(file)))
        .transpose()?;
    let client = context.connection.client().await?;
    let secret = find_secret(&client, &create.place).await?;
    let mut body = create.recipient.fields(&client).await?;
    let end = create.expires.from(SystemClock.now()).format(&Rfc3339)?;
    body.insert("expires_at".to_owned(), json!(end));
    body.insert("max_access_count".to_owned(), json!(create.max_reads));
    body.insert("ip_allowlist".to_owned(), json!(create.cidr));
    if let Some(passphrase) = passphrase {
        body.insert("passphrase".to_owned(), json!(*passphrase));
    }
    if create.export {
        let permissions = json!(["read", "export_plaintext"]);
        body.insert("permissions".to_owned(), permissions);
    }
    let path = format!("/v1/secrets/{}/share", segment(text(&secret, "id")));
    let made = client.post(&path, &Value::Object(body)).await?;
    let (base, _) = context.connection.server()?;
    let path = text(&made, "share_url");
    let has_link = create.recipient.link || create.recipient.email.is_some();
    context.output.note(format!(
        "shared {} until {} as {}, which is an export{}",
        create.place.path(),
        text(&made, "expires_at"),
        text(&made, "share_id"),
        if has_link {
            "; this link is shown this once:"
        } else {
            ""
        }
    ));
    let shown = if has_link {
        format!("{base}{path}")
    } else {
        text(&made, "share_id").to_owned()
    };
    context.output.done(&made, shown);
    Ok(())
}

impl Recipient {
    /// Whom the API is told.
    async fn fields(&self, client: &Client) -> anyhow::Result<Map<String, Value>> {
        let fields = match self {
            Self {
                user: Some(user), ..
            } => {
                let id = member::id_of(client, user).await?;
                json!({ "recipient_type": "user", "recipient_id": id })
            }
            Self {
                agent: Some(agent), ..
            } => {
                let found = client.agent(agent).await?;
                json!({ "recipient_type": "agent", "recipient_id": found["id"] })
            }
            Self {
                email: Some(email), ..
            } => json!({ "recipient_type": "external_email", "email": email }),
            Self { creator: true, .. } => json!({ "recipient_type": "creator" }),
            Self { .. } => json!({ "recipient_type": "anyone_with_link" }),
        };
        Ok(fields.as_object().cloned().unwrap_or_default())
    }
}

async fn open(context: &Context, share: &str, passphrase: Option<&Path>) -> anyhow::Result<()> {
    let named = named(context, share)?;
    let mut body = json!({});
    if let Some(file) = passphrase {
        let passphrase = prompt::secret("passphrase", Some(file))?;
        body["passphrase"] = json!(*passphrase);
    }
    let path = format!("/v1/shares/{}/access", segment(&named));
    // A link opens for whoever has it, also without a key.
    let opened = match context.connection.key() {
        Err(_) if share == "-" => context.connection.nobody()?.ask(&path, &body).await?,
        _ => {
            let client = context.connection.client().await?;
            client.post(&path, &body).await?
        }
    };
    if context.output.is_json() {
        context.output.value(&opened);
    } else {
        context.output.say(text(&opened, "value"));
    }
    Ok(())
}

/// A share as the API takes it: the id as it is, or for `-` what a link on standard input says.
fn named(context: &Context, share: &str) -> anyhow::Result<Zeroizing<String>> {
    if share == "-" {
        let link = prompt::secret("link", Some(Path::new("-")))?;
        let (base, _) = context.connection.server()?;
        return Ok(of_link(&link, &base)?);
    }
    if share.starts_with("shr_") {
        return Ok(Zeroizing::new(share.to_owned()));
    }
    // Not repeated: it may be a link.
    let failure = Failure::new(
        "this is no id of a share, which is written like shr_01K3ABCDEFGHJKMNPQRSTVWXYZ",
    );
    let hint = "pipe a link in and write `-`: others can read what stands in a command line";
    Err(failure.hint(hint).usage().into())
}

/// What a link says. It is for the server that it names and for no other.
fn of_link(link: &str, base: &str) -> Result<Zeroizing<String>, Failure> {
    let link = link.trim();
    let (server, says) = link.rsplit_once('/').unwrap_or(("", link));
    let server = server.trim_end_matches("/v1/share");
    if !says.starts_with("share_") {
        return Err(Failure::new("this is no link of a share")
            .hint("give the line that `claviger share create` printed")
            .usage());
    }
    if server.contains("://") && server != base {
        return Err(
            Failure::new("the link is another server's than the one that is set")
                .hint("set --url to the server that the link begins with"),
        );
    }
    Ok(Zeroizing::new(says.to_owned()))
}

const COLUMNS: [(&str, &str); 8] = [
    ("ID", "id"),
    ("PATH", "secret_path"),
    ("FOR", "recipient_type"),
    ("EXPORT", "export"),
    ("OPENED", "access_count"),
    ("AT MOST", "max_access_count"),
    ("ACCEPTED", "is_accepted"),
    ("EXPIRES", "expires_at"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_for_the_server_that_it_names() {
        let base = "http://127.0.0.1:8181";
        for link in [
            "http://127.0.0.1:8181/v1/share/share_abc\n",
            "/v1/share/share_abc",
            "share_abc",
        ] {
            assert_eq!(*of_link(link, base).unwrap(), "share_abc", "{link}");
        }
        let elsewhere = of_link("https://vault.example/v1/share/share_abc", base);
        assert!(elsewhere.unwrap_err().to_string().contains("another"));
        for bad in ["", "shr_x", "https://vault.example/", "/v1/share/"] {
            let refused = of_link(bad, base).unwrap_err();
            assert!(refused.is_usage(), "{bad}");
        }
    }
}
