//! `agent`: who may be granted something.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use leases::clock::{Clock as _, SystemClock};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use time::format_description::well_known::Rfc3339;

use super::Context;
use crate::client::{Client, segment, text};
use crate::failure::Failure;
use crate::units::{self, Moment};

/// Agents: programs that may be granted the use of secret sets
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an agent; its key is printed once
    ///
    /// With --public-key, --cert or --oidc-issuer it authenticates by that, and has no key: its id is printed.
    #[command(after_help = "\
Examples:
  claviger agent create billing-bot > billing-bot.key
  claviger agent create signer --public-key '2fi7...='
  claviger agent create tls-bot --cert bot.crt --token-ttl 5m
  claviger agent create ci --auth oidc --oidc-issuer https://id.example.org --oidc-client-id ci")]
    Create(Create),
    /// Change an agent: what it is called, how it authenticates, what bounds it
    #[command(after_help = "\
Examples:
  claviger agent update billing-bot --cert new.crt
  claviger agent update billing-bot --vault payments --expires 30d
  claviger agent update ci --oidc-audience vault")]
    Update(Update),
    /// Stop an agent: its key, tokens and leases are refused until it is resumed
    #[command(
        visible_alias = "stop",
        after_help = "Example:\n  claviger agent deactivate billing-bot"
    )]
    Deactivate {
        /// The agent's name or id
        agent: String,
    },
    /// Let a stopped agent go on; its tokens from before stay ended
    #[command(
        visible_alias = "resume",
        after_help = "Example:\n  claviger agent activate billing-bot"
    )]
    Activate {
        /// The agent's name or id
        agent: String,
    },
    /// List the agents
    #[command(visible_alias = "ls", after_help = "Example:\n  claviger agent list")]
    List,
    /// Show an agent
    #[command(after_help = "Example:\n  claviger agent show billing-bot")]
    Show {
        /// The agent's name or id
        agent: String,
    },
    /// Give an agent a new key; the old one ends at once, and the agent's tokens and leases with it
    #[command(after_help = "Example:\n  claviger agent rotate-key billing-bot > billing-bot.key")]
    RotateKey {
        /// The agent's name or id
        agent: String,
    },
    /// Give an agent new identity keys: the SSH and ECDH keys by which others know it
    ///
    /// The private halves are secrets of the vault __agent-keys. Those before stay readable there as earlier versions.
    #[command(after_help = "\
Examples:
  claviger agent rotate-identity-keys billing-bot
  claviger secret get agents/AGENT_ID/ssh/private_key --vault __agent-keys --reveal > id_ed25519")]
    RotateIdentityKeys {
        /// The agent's name or id
        agent: String,
    },
    /// Ask a person for an agent of one's own; needs no key
    #[command(after_help = "Example:\n  claviger agent enroll billing-bot --email ada@example.org")]
    Enroll {
        /// What the agent calls itself
        name: String,
        /// The email of the person who decides, and who gets the agent's key
        #[arg(long)]
        email: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
    },
    /// List the agents that asked for themselves and wait for you, or for anybody if you are an admin
    #[command(after_help = "Example:\n  claviger agent enrolments")]
    Enrolments,
    /// Make an agent of an enrolment; its key is printed once
    #[command(
        after_help = "Example:\n  claviger agent approve enr_01K3ABCDEFGHJKMNPQRSTVWXYZ > billing-bot.key"
    )]
    Approve {
        /// The enrolment's id
        id: String,
        /// Another name than the one that it asked for
        #[arg(long)]
        name: Option<String>,
    },
    /// Turn an enrolment away
    #[command(after_help = "Example:\n  claviger agent reject enr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Reject {
        /// The enrolment's id
        id: String,
    },
    /// End agents: their keys, tokens and leases stop at once
    #[command(
        visible_alias = "delete",
        after_help = "Example:\n  claviger agent revoke billing-bot"
    )]
    Revoke {
        /// The agents' names or ids
        #[arg(required = true, num_args = 1..=500)]
        agents: Vec<String>,
    },
}

/// An agent to be made.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// A name, unique in your organization
    name: String,
    /// What it is for
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

/// What to change of an agent.
#[derive(Debug, clap::Args)]
pub(crate) struct Update {
    /// The agent's name or id
    agent: String,
    /// A new name
    #[arg(long)]
    name: Option<String>,
    /// What it is for; an empty text removes it
    #[arg(long)]
    description: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Let it authenticate by a key again; `claviger agent rotate-key` gives it one
    #[arg(long, conflicts_with_all = ["auth", "means", "oidc_client_id", "oidc_audience"])]
    api_key: bool,
    /// Lift the bound to vaults
    #[arg(long, conflicts_with = "vault")]
    any_vault: bool,
    /// Lift its end
    #[arg(long, conflicts_with = "expires")]
    never_expires: bool,
}

/// How an agent authenticates, and the bounds of what it gets by that.
#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// By what it authenticates; needs no saying beside what that takes
    #[arg(long, value_enum)]
    auth: Option<Auth>,
    /// The Ed25519 key by which it signs requests itself: 32 bytes in base64
    #[arg(long, value_name = "BASE64", group = "means")]
    public_key: Option<String>,
    /// The client certificate by which it authenticates, PEM
    #[arg(long, value_name = "FILE", group = "means")]
    cert: Option<PathBuf>,
    /// The SHA-256 of that certificate instead, as `openssl x509 -noout -fingerprint -sha256` prints it
    #[arg(long, value_name = "SHA256", group = "means")]
    fingerprint: Option<String>,
    /// The identity provider whose tokens it shows, as those name it
    #[arg(
        long,
        value_name = "URL",
        group = "means",
        required_if_eq("auth", "oidc"),
        requires = "oidc_client_id"
    )]
    oidc_issuer: Option<String>,
    /// What it is to that provider: its client id there, or its subject where the tokens name no client
    #[arg(long, value_name = "ID", requires = "oidc_issuer")]
    oidc_client_id: Option<String>,
    /// For whom the provider makes its tokens [default: claviger]; an empty text puts the default back
    #[arg(long, value_name = "AUDIENCE")]
    oidc_audience: Option<String>,
    /// How long its tokens live: 1m to 1h [default: 15m]
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    token_ttl: Option<Duration>,
    /// Bind it to this vault: beyond those named it reaches nothing; repeatable
    #[arg(long, value_name = "VAULT")]
    vault: Vec<String>,
    /// When it ends by itself: after so long, or at a time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    expires: Option<Moment>,
}

/// By what an agent authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Auth {
    /// A key that is shown once
    ApiKey,
    /// A client certificate
    Mtls,
    /// Tokens of an identity provider of its own (client credentials)
    Oidc,
    /// An Ed25519 signature on each request
    SignedRequest,
}

impl Auth {
    /// As the API names it.
    const fn method(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Mtls => "mtls",
            Self::Oidc => "oidc_client_credentials",
            Self::SignedRequest => "signed_request",
        }
    }
}

impl Settings {
    /// As the API takes them.
    async fn body(&self, client: &Client) -> anyhow::Result<Map<String, Value>> {
        let mut body = Map::new();
        if let Some(key) = &self.public_key {
            body.insert(
                "auth_method".to_owned(),
                json!(Auth::SignedRequest.method()),
            );
            body.insert("public_key".to_owned(), json!(key));
        }
        let read = self.cert.as_deref().map(fingerprint).transpose()?;
        if let Some(digest) = read.as_ref().or(self.fingerprint.as_ref()) {
            // openssl prints `sha256 Fingerprint=AB:CD:...`.
            let digest = digest.rsplit('=').next().unwrap_or(digest);
            body.insert("auth_method".to_owned(), json!(Auth::Mtls.method()));
            body.insert("client_cert_fingerprint".to_owned(), json!(digest));
        }
        if let Some(issuer) = &self.oidc_issuer {
            body.insert("auth_method".to_owned(), json!(Auth::Oidc.method()));
            body.insert("oidc_issuer".to_owned(), json!(issuer));
            body.insert("oidc_client_id".to_owned(), json!(self.oidc_client_id));
        }
        if let Some(audience) = &self.oidc_audience {
            let audience = Some(audience).filter(|audience| !audience.is_empty());
            body.insert("oidc_audience".to_owned(), json!(audience));
        }
        // Where it is not what the rest goes with, the API says so.
        if let Some(auth) = self.auth {
            body.insert("auth_method".to_owned(), json!(auth.method()));
        }
        if let Some(ttl) = self.token_ttl {
            body.insert("token_ttl_seconds".to_owned(), json!(ttl.as_secs()));
        }
        if !self.vault.is_empty() {
            let mut ids = Vec::with_capacity(self.vault.len());
            for vault in &self.vault {
                let found = client
                    .get(&format!("/v1/vaults/{}", segment(vault)))
                    .await?;
                ids.push(text(&found, "id").to_owned());
            }
            body.insert("vault_ids".to_owned(), json!(ids));
        }
        if let Some(expires) = self.expires {
            let end = expires.from(SystemClock.now()).format(&Rfc3339)?;
            body.insert("expires_at".to_owned(), json!(end));
        }
        Ok(body)
    }
}

/// The SHA-256 of a certificate's DER.
fn fingerprint(file: &Path) -> anyhow::Result<String> {
    let unusable = |problem: String| {
        Failure::new(format!("{}: {problem}", file.display()))
            .code("certificate")
            .hint("name a file with the agent's own certificate in PEM first")
    };
    let pem = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let der = CertificateDer::from_pem_slice(&pem).map_err(|error| unusable(error.to_string()))?;
    Ok(hex::encode(Sha256::digest(der)))
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    if let Command::Enroll {
        name,
        email,
        description,
    } = &command
    {
        let asked = json!({ "name": name, "human_email": email, "description": description });
        return enroll(context, &asked).await;
    }
    let client = context.connection.client().await?;
    match command {
        Command::Enroll { .. } => {}
        Command::Enrolments => enrolments(context, &client).await?,
        Command::Approve { id, name } => approve(context, &client, &id, name).await?,
        Command::Reject { id } => {
            let path = format!("/v1/agents/enrolments/{}/reject", segment(&id));
            client.post(&path, &json!({})).await?;
            let done = json!({ "rejected": id });
            context.output.done(&done, format!("turned {id} away"));
        }
        Command::Create(new) => create(context, &client, new).await?,
        Command::Update(change) => update(context, &client, change).await?,
        Command::Deactivate { agent } => set_active(context, &client, &agent, false).await?,
        Command::Activate { agent } => set_active(context, &client, &agent, true).await?,
        Command::List => {
            let agents = client.all("/v1/agents", "agents").await?;
            let columns = [
                ("ID", "id"),
                ("NAME", "name"),
                ("ACTIVE", "is_active"),
                ("BY", "auth_method"),
                ("CREATED", "created_at"),
                ("LAST USED", "last_used_at"),
            ];
            context.output.list("agents", &columns, &agents);
        }
        Command::Show { agent } => context.output.fields(&client.agent(&agent).await?),
        Command::RotateKey { agent } => {
            let answer = client
                .post(
                    &format!("{}/rotate-key", path_of(&client, &agent).await?),
                    &json!({}),
                )
                .await?;
            context.output.note(format!(
                "the old key of {agent} has ended; the new one is shown this once:"
            ));
            context.output.done(&answer, text(&answer, "api_key"));
        }
        Command::RotateIdentityKeys { agent } => {
            let path = path_of(&client, &agent).await?;
            let path = format!("{path}/rotate-identity-keys");
            let rotated = client.post(&path, &json!({})).await?;
            context.output.note(format!(
                "agent {agent} has new identity keys; tell those who know it by the old ones:"
            ));
            context.output.fields(&rotated);
        }
        Command::Revoke { agents } => revoke(context, &client, &agents).await?,
    }
    Ok(())
}

async fn create(context: &Context, client: &Client, new: Create) -> anyhow::Result<()> {
    let Create {
        name,
        description,
        settings,
    } = new;
    let mut body = settings.body(client).await?;
    body.insert("name".to_owned(), json!(name));
    body.insert("description".to_owned(), json!(description));
    let answer = client.post("/v1/agents", &Value::Object(body)).await?;
    let id = text(&answer["agent"], "id");
    if answer.get("api_key").is_some() {
        context.output.note(format!(
            "made agent {name} ({id}); its key is shown this once:"
        ));
        context.output.done(&answer, text(&answer, "api_key"));
    } else {
        let method = text(&answer["agent"], "auth_method");
        context.output.note(format!(
            "made agent {name}, which authenticates by {method} under its id:"
        ));
        context.output.done(&answer, id);
    }
    Ok(())
}

async fn update(context: &Context, client: &Client, change: Update) -> anyhow::Result<()> {
    let mut body = change.settings.body(client).await?;
    let mut put = |field: &str, value: Value| body.insert(field.to_owned(), value);
    if let Some(name) = change.name {
        put("name", json!(name));
    }
    if let Some(description) = change.description {
        let text = (!description.is_empty()).then_some(description);
        put("description", json!(text));
    }
    if change.api_key {
        put("auth_method", json!("api_key"));
    }
    if change.any_vault {
        put("vault_ids", Value::Null);
    }
    if change.never_expires {
        put("expires_at", Value::Null);
    }
    let path = path_of(client, &change.agent).await?;
    let changed = client.patch(&path, &Value::Object(body)).await?;
    context.output.fields(&changed);
    Ok(())
}

/// Asks without any key.
async fn enroll(context: &Context, asked: &Value) -> anyhow::Result<()> {
    let nobody = context.connection.nobody()?;
    let answer = nobody.ask("/v1/agents/enroll", asked).await?;
    let said = text(&answer, "message").to_owned();
    context.output.done(&answer, said);
    Ok(())
}

async fn enrolments(context: &Context, client: &Client) -> anyhow::Result<()> {
    let found = client.all("/v1/agents/enrolments", "enrolments").await?;
    let columns = [
        ("ID", "id"),
        ("NAME", "name"),
        ("STATUS", "status"),
        ("FROM", "client_ip"),
        ("ASKED", "created_at"),
        ("UNTIL", "expires_at"),
    ];
    context.output.list("enrolments", &columns, &found);
    Ok(())
}

async fn approve(
    context: &Context,
    client: &Client,
    id: &str,
    name: Option<String>,
) -> anyhow::Result<()> {
    let path = format!("/v1/agents/enrolments/{}/approve", segment(id));
    let answer = client.post(&path, &json!({ "name": name })).await?;
    let agent = &answer["agent"];
    context.output.note(format!(
        "made agent {} ({}); its key is shown this once, hand it over:",
        text(agent, "name"),
        text(agent, "id")
    ));
    context.output.done(&answer, text(&answer, "api_key"));
    Ok(())
}

async fn set_active(
    context: &Context,
    client: &Client,
    agent: &str,
    is_active: bool,
) -> anyhow::Result<()> {
    let path = path_of(client, agent).await?;
    let body = json!({ "is_active": is_active });
    let changed = client.patch(&path, &body).await?;
    let word = if is_active { "active" } else { "stopped" };
    context
        .output
        .done(&changed, format!("agent {agent} is {word}"));
    Ok(())
}

/// One by its own call, several by one.
async fn revoke(context: &Context, client: &Client, agents: &[String]) -> anyhow::Result<()> {
    let revoked = json!({ "revoked": agents });
    let said = format!("revoked agent {}", agents.join(", "));
    if let [agent] = agents {
        client.delete(&path_of(client, agent).await?).await?;
        context.output.done(&json!({ "revoked": agent }), said);
        return Ok(());
    }
    let mut ids = Vec::with_capacity(agents.len());
    for agent in agents {
        ids.push(text(&client.agent(agent).await?, "id").to_owned());
    }
    let body = json!({ "agent_ids": ids });
    client.post("/v1/agents/batch-delete", &body).await?;
    context.output.done(&revoked, said);
    Ok(())
}

async fn path_of(client: &Client, agent: &str) -> anyhow::Result<String> {
    Ok(format!(
        "/v1/agents/{}",
        segment(text(&client.agent(agent).await?, "id"))
    ))
}
