//! `account`, `mfa`, `personal-key`: a person's own account.

use std::path::PathBuf;

use clap::Subcommand;
use leases::clock::{Clock as _, SystemClock};
use serde_json::json;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::Context;
use super::login::at_provider;
use crate::client::{segment, text};
use crate::loopback::Loopback;
use crate::prompt;
use crate::units::Moment;

/// Your own account: its email, its password, and who you are to the identity provider
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sign up: an organisation of your own, where the server is open for it
    #[command(
        after_help = "Example:\n  claviger account create ada@example.org --name 'Ada Lovelace'"
    )]
    Create {
        /// The email that you will sign in with
        email: String,
        /// How you are called
        #[arg(long)]
        name: Option<String>,
        /// A file that holds the password; - for standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Choose the email that you sign in with
    #[command(after_help = "Example:\n  claviger account email ada@example.org")]
    Email {
        /// The email
        email: String,
        /// A file that holds your password, if you have one; - for standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Choose a password; every earlier sign-in ends
    #[command(
        after_help = "Examples:\n  claviger account password\n  claviger account password --new-password-file - < password"
    )]
    Password {
        /// A file that holds your password as it is, if you have one; - for standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// A file that holds the new one; - for standard input
        #[arg(long, value_name = "FILE")]
        new_password_file: Option<PathBuf>,
    },
    /// Let yourself at the identity provider sign in to your account from now on, with `claviger login --oidc`
    #[command(after_help = "Example:\n  claviger account link")]
    Link {
        /// A file that holds your password, if you have one; - for standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Let nobody at an identity provider sign in to your account any more
    #[command(after_help = "Example:\n  claviger account unlink")]
    Unlink,
}

/// Your second factor: codes of an authenticator
#[derive(Debug, Subcommand)]
pub(crate) enum MfaCommand {
    /// Make a secret for your authenticator; `mfa enable` with a first code follows
    #[command(after_help = "Example:\n  claviger mfa setup")]
    Setup,
    /// Ask for a code at every sign-in from now on; prints eight recovery codes, once
    #[command(after_help = "Example:\n  claviger mfa enable 081804")]
    Enable {
        /// A code that the authenticator shows
        code: String,
    },
    /// Ask for no more codes
    #[command(after_help = "Example:\n  claviger mfa disable 081804")]
    Disable {
        /// A code that the authenticator shows, or a recovery code
        code: String,
    },
}

/// Your own keys, beside the keys of the service (`claviger keys`)
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key of yours; it is printed once
    #[command(
        after_help = "Example:\n  claviger personal-key create laptop --expires 30d > laptop.key"
    )]
    Create {
        /// What you call it
        name: String,
        /// When it ends by itself: 8h, 30d, or a date [default: never]
        #[arg(long, value_name = "WHEN")]
        expires: Option<Moment>,
        /// It reads, and changes nothing
        #[arg(long)]
        read_only: bool,
    },
    /// List your keys
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  claviger personal-key list"
    )]
    List,
    /// End a key of yours at once
    #[command(
        after_help = "Example:\n  claviger personal-key revoke key_01K3ABCDEFGHJKMNPQRSTVWXYZ"
    )]
    Revoke {
        /// The key's id
        id: String,
    },
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    if let Command::Create {
        email,
        name,
        password_file,
    } = command
    {
        return sign_up(context, &email, name.as_deref(), password_file).await;
    }
    let client = context.connection.client().await?;
    let me = client.get("/v1/auth/me").await?;
    let has_password = text(&me, "auth_method") == "password";
    let current = |file: Option<PathBuf>| -> anyhow::Result<Option<Zeroizing<String>>> {
        let asks = has_password || file.is_some();
        asks.then(|| prompt::secret("your password as it is", file.as_deref()))
            .transpose()
    };
    match command {
        // Answered above.
        Command::Create { .. } => {}
        Command::Email {
            email,
            password_file,
        } => {
            let mut body = json!({ "email": email });
            if let Some(password) = current(password_file)? {
                body["current_password"] = json!(password.as_str());
            }
            let answer = client.patch("/v1/auth/me", &body).await?;
            let email = crate::output::clean(text(&answer, "email"));
            context
                .output
                .done(&answer, format!("you sign in as {email} from now on"));
        }
        Command::Password {
            password_file,
            new_password_file,
        } => {
            let mut body = json!({});
            if let Some(password) = current(password_file)? {
                body["current_password"] = json!(password.as_str());
            }
            let new = prompt::secret("your new password", new_password_file.as_deref())?;
            body["new_password"] = json!(new.as_str());
            client.post("/v1/auth/change-password", &body).await?;
            context.output.done(
                &json!({ "changed": true }),
                "changed the password; every earlier sign-in has ended",
            );
        }
        Command::Link { password_file } => {
            let loopback = Loopback::bind().await?;
            let mut body = json!({ "redirect_uri": loopback.redirect_uri() });
            if let Some(password) = current(password_file)? {
                body["current_password"] = json!(password.as_str());
            }
            let begun = client.post("/v1/auth/oidc/link", &body).await?;
            let nobody = context.connection.nobody()?;
            // The session that comes with it is not needed: whoever asks is signed in.
            at_provider(context, &nobody, loopback, &begun).await?;
            context.output.done(
                &json!({ "linked": true }),
                "linked; `claviger login --oidc` signs in to this account from now on",
            );
        }
        Command::Unlink => {
            client.delete("/v1/auth/oidc/link").await?;
            context.output.done(
                &json!({ "unlinked": true }),
                "unlinked; nobody at an identity provider signs in to this account any more, and whoever was signed in signs in again",
            );
        }
    }
    Ok(())
}

async fn sign_up(
    context: &Context,
    email: &str,
    name: Option<&str>,
    password_file: Option<PathBuf>,
) -> anyhow::Result<()> {
    let client = context.connection.nobody()?;
    let password = prompt::secret("your password", password_file.as_deref())?;
    let body = json!({ "email": email, "password": password.as_str(), "display_name": name });
    let answer = client.ask("/v1/auth/signup", &body).await?;
    let email = crate::output::clean(text(&answer, "email"));
    let sentence = format!(
        "signed up as {email}, unless that was taken; `claviger login --email {email}` tells"
    );
    context.output.done(&answer, sentence);
    Ok(())
}

pub(crate) async fn mfa(context: &Context, command: MfaCommand) -> anyhow::Result<()> {
    let client = context.connection.client().await?;
    match command {
        MfaCommand::Setup => {
            let answer = client.post("/v1/auth/mfa/totp/setup", &json!({})).await?;
            context.output.note(
                "enter this in your authenticator, then run `claviger mfa enable` with a code that it shows:",
            );
            context.output.fields(&answer);
        }
        MfaCommand::Enable { code } => {
            let body = json!({ "code": code });
            let answer = client.post("/v1/auth/mfa/totp/enable", &body).await?;
            context.output.note(
                "a code is asked for from now on; keep these for the day the authenticator is gone, each is good once:",
            );
            let codes = answer["recovery_codes"].as_array().into_iter().flatten();
            let codes: Vec<&str> = codes.filter_map(serde_json::Value::as_str).collect();
            context.output.done(&answer, codes.join("\n"));
        }
        MfaCommand::Disable { code } => {
            let body = json!({ "code": code });
            let answer = client.post("/v1/auth/mfa/totp/disable", &body).await?;
            context.output.done(&answer, "no more codes are asked for");
        }
    }
    Ok(())
}

pub(crate) async fn personal_key(context: &Context, command: KeyCommand) -> anyhow::Result<()> {
    let client = context.connection.client().await?;
    match command {
        KeyCommand::Create {
            name,
            expires,
            read_only,
        } => {
            let scopes = if read_only { ["read"] } else { ["*"] };
            let now = SystemClock.now();
            let expires = expires.map(|expires| expires.from(now).format(&Rfc3339));
            let body =
                json!({ "name": name, "scopes": scopes, "expires_at": expires.transpose()? });
            let answer = client.post("/v1/auth/api-keys", &body).await?;
            context.output.note(format!(
                "made the key {name} ({}); it is shown this once:",
                text(&answer["key"], "id")
            ));
            context.output.done(&answer, text(&answer, "api_key"));
        }
        KeyCommand::List => {
            let keys = client.all("/v1/auth/api-keys", "keys").await?;
            let columns = [
                ("ID", "id"),
                ("NAME", "name"),
                ("BEGINS", "key_prefix"),
                ("SCOPES", "scopes"),
                ("ACTIVE", "is_active"),
                ("EXPIRES", "expires_at"),
                ("LAST USED", "last_used_at"),
            ];
            context.output.list("keys", &columns, &keys);
        }
        KeyCommand::Revoke { id } => {
            let path = format!("/v1/auth/api-keys/{}", segment(&id));
            client.delete(&path).await?;
            context
                .output
                .done(&json!({ "revoked": id }), format!("revoked the key {id}"));
        }
    }
    Ok(())
}
