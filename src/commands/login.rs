//! `login`, `logout`, `whoami`: a person at this terminal.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Context;
use crate::client::{Caller, Client, text};
use crate::failure::Failure;
use crate::logins::Logins;
use crate::loopback::Loopback;
use crate::prompt;

/// Sign in as a person: with a password, by the installation's identity provider, or by somebody who is signed in elsewhere
///
/// What is kept is a key of a day, for its owner alone, in the user's configuration directory. It is used where neither
/// CLAVIGER_KEY nor CLAVIGER_KEY_FILE is set and no admin.key of a server on this machine applies.
#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
#[command(
    group(clap::ArgGroup::new("first_factor").args(["email", "oidc"])),
    after_help = "\
Examples:
  claviger login --oidc                 # shows a page of the identity provider
  claviger login --email ada@example.org
  claviger login --email ada@example.org --password-file - < password
  claviger login                        # shows a code for …
  claviger login --approve WDJB-MJHT    # … somebody who is signed in"
)]
pub(crate) struct LoginArgs {
    /// Sign in with this email; the password is asked for, never taken from the command line
    #[arg(long, value_name = "EMAIL")]
    email: Option<String>,
    /// A file that holds the password, - for standard input
    #[arg(long, value_name = "FILE", requires = "email")]
    password_file: Option<PathBuf>,
    /// Sign in by the identity provider, in a browser on this machine
    #[arg(long)]
    oidc: bool,
    /// A code of the second factor; it is asked for when there is a terminal
    #[arg(long, value_name = "CODE", requires = "first_factor")]
    code: Option<String>,
    /// Let the terminal that shows this code in, as yourself
    #[arg(long, value_name = "CODE", conflicts_with = "first_factor")]
    approve: Option<String>,
}

/// End the sign-in of this terminal
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  claviger logout")]
pub(crate) struct LogoutArgs {}

/// Show whose key or sign-in the commands act with
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  claviger whoami")]
pub(crate) struct WhoamiArgs {}

pub(crate) async fn login(context: &Context, args: &LoginArgs) -> anyhow::Result<()> {
    if let Some(code) = &args.approve {
        let client = context.connection.client().await?;
        let body = json!({ "user_code": code });
        let answer = client.post("/v1/auth/device/approve", &body).await?;
        context.output.done(&answer, "let the device in");
        return Ok(());
    }
    let (url, _) = context.connection.server()?;
    let nobody = context.connection.nobody()?;
    let key = match &args.email {
        Some(email) => by_password(&nobody, email, args).await?,
        None if args.oidc => by_provider(context, &nobody, args).await?,
        None => by_somebody_else(context, &nobody).await?,
    };
    let me = Client::new(url.clone(), key.clone(), None).await?;
    let me = me.get("/v1/auth/me").await?;
    let path = Logins::read()?.keep(&url, &key)?;
    let name = [text(&me, "email"), text(&me, "name")];
    let name = name.into_iter().find(|name| !name.is_empty());
    let name = crate::output::clean(name.unwrap_or("you"));
    context.output.done(
        &json!({ "url": url, "account": me, "file": path }),
        format!("signed in to {url} as {name}, for a day"),
    );
    Ok(())
}

pub(crate) async fn logout(context: &Context, _: &LogoutArgs) -> anyhow::Result<()> {
    let (url, _) = context.connection.server()?;
    let logins = Logins::read()?;
    let Some(login) = logins.of(&url) else {
        return Err(Failure::new(format!("nobody is signed in to {url}"))
            .code("not_signed_in")
            .hint("`claviger login` signs in; CLAVIGER_URL says where")
            .into());
    };
    let key = Zeroizing::new(login.key.clone());
    let client = Client::new(url.clone(), key, None).await?;
    // The file first: whatever the server says, this terminal is out.
    logins.forget(&url)?;
    let ended = client.delete("/v1/auth/token").await;
    if let Err(error) = ended {
        context
            .output
            .warn(format!("the server did not end the sign-in: {error:#}"));
    }
    context.output.done(
        &json!({ "signed_out": url }),
        format!("signed out of {url}"),
    );
    Ok(())
}

pub(crate) async fn whoami(context: &Context, _: &WhoamiArgs) -> anyhow::Result<()> {
    let client = context.connection.client().await?;
    if client.caller() == Caller::Agent {
        return Err(Failure::new("this is an agent's key, and no person's")
            .code("agent")
            .hint("`claviger lease list` shows what the agent holds; give a person's key, or `claviger login`")
            .into());
    }
    context.output.fields(&client.get("/v1/auth/me").await?);
    Ok(())
}

/// The password becomes a session.
async fn by_password(
    nobody: &Client,
    email: &str,
    args: &LoginArgs,
) -> anyhow::Result<Zeroizing<String>> {
    let password = prompt::secret("password", args.password_file.as_deref())?;
    let body = json!({ "email": email, "password": password.as_str() });
    let answer = nobody.ask("/v1/auth/token", &body).await?;
    kept_key(nobody, answer, args).await
}

/// The identity provider's answer comes back to this machine, and becomes a session.
async fn by_provider(
    context: &Context,
    nobody: &Client,
    args: &LoginArgs,
) -> anyhow::Result<Zeroizing<String>> {
    let loopback = Loopback::bind().await?;
    let body = json!({ "redirect_uri": loopback.redirect_uri() });
    let begun = nobody.ask("/v1/auth/oidc/start", &body).await?;
    let answer = at_provider(context, nobody, loopback, &begun).await?;
    kept_key(nobody, answer, args).await
}

/// Shows the provider's page, waits for its answer, and brings it to the server.
pub(super) async fn at_provider(
    context: &Context,
    nobody: &Client,
    loopback: Loopback,
    begun: &Value,
) -> anyhow::Result<Value> {
    let page = text(begun, "authorization_url");
    // Not through `note`: whoever reads JSON needs the page too.
    context.output.warn(format!(
        "open this page in a browser on this machine to sign in: {}",
        crate::output::clean(page)
    ));
    let state = reqwest::Url::parse(page).ok().and_then(|page| {
        let mut pairs = page.query_pairs();
        let state = pairs.find(|(name, _)| name == "state")?;
        Some(Zeroizing::new(state.1.into_owned()))
    });
    let state = state.context("the server began a sign-in without a state")?;
    let waits = begun["expires_in"].as_u64().unwrap_or(600).clamp(1, 3600);
    let answered = loopback.answer(&state, Duration::from_secs(waits)).await?;
    let body = json!({
        "flow": text(begun, "flow"),
        "code": answered.code(),
        "state": state.as_str(),
        "iss": answered.iss,
    });
    nobody.ask("/v1/auth/oidc/callback", &body).await
}

/// The answer to a first factor becomes a session, with a code where one is asked for, and the session a key that is kept: it lets
/// this terminal in as it would another, and ends.
async fn kept_key(
    nobody: &Client,
    mut answer: Value,
    args: &LoginArgs,
) -> anyhow::Result<Zeroizing<String>> {
    if answer["mfa_required"] == Value::Bool(true) {
        let code = match &args.code {
            Some(code) => Zeroizing::new(code.clone()),
            None => prompt::secret("code of your second factor", None)?,
        };
        let body = json!({ "mfa_token": text(&answer, "mfa_token"), "code": code.as_str() });
        answer = nobody.ask("/v1/auth/mfa/verify", &body).await?;
    }
    let session = Zeroizing::new(text(&answer, "access_token").to_owned());
    let session = nobody.as_holder_of(session);
    let device = nobody.ask("/v1/auth/device/code", &json!({})).await?;
    let body = json!({ "user_code": text(&device, "user_code") });
    session.post("/v1/auth/device/approve", &body).await?;
    let body = json!({ "device_code": text(&device, "device_code") });
    let let_in = nobody.ask("/v1/auth/device/token", &body).await?;
    session.delete("/v1/auth/token").await?;
    Ok(Zeroizing::new(text(&let_in, "access_token").to_owned()))
}

/// Shows a code and asks until somebody has decided (RFC 8628, section 3.4).
async fn by_somebody_else(context: &Context, nobody: &Client) -> anyhow::Result<Zeroizing<String>> {
    let device = nobody.ask("/v1/auth/device/code", &json!({})).await?;
    let user_code = crate::output::clean(text(&device, "user_code"));
    // Not through `note`: whoever reads JSON needs the code too.
    context.output.warn(format!(
        "waiting for somebody who is signed in to run `claviger login --approve {user_code}`"
    ));
    let seconds = |name: &str, or: u64| device[name].as_u64().unwrap_or(or).clamp(1, 3600);
    let ends = Instant::now() + Duration::from_secs(seconds("expires_in", 600));
    let mut interval = Duration::from_secs(seconds("interval", 5));
    let body = json!({ "device_code": text(&device, "device_code") });
    while Instant::now() < ends {
        tokio::time::sleep(interval).await;
        let answer = nobody.ask("/v1/auth/device/token", &body).await;
        let error = match answer {
            Ok(answer) => return Ok(Zeroizing::new(text(&answer, "access_token").to_owned())),
            Err(error) => error,
        };
        match error
            .downcast_ref::<Failure>()
            .and_then(Failure::error_code)
        {
            Some("authorization_pending") => {}
            Some("slow_down") => interval += Duration::from_secs(5),
            _ => return Err(error),
        }
    }
    Err(Failure::new("nobody let this terminal in")
        .code("expired_token")
        .hint("run `claviger login` again")
        .into())
}
