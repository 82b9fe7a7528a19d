//! `member`, `ip-rule`: who belongs to the organization, and from where it is called.

use std::path::PathBuf;

use clap::Subcommand;
use leases::id::OrgId;
use serde_json::{Value, json};

use super::Context;
use super::serve::plant;
use crate::client::{Client, segment, text};
use crate::failure::Failure;
use crate::prompt;

/// Members: the people of your organization
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the members
    #[command(visible_alias = "ls", after_help = "Example:\n  claviger member list")]
    List,
    /// Invite somebody; prints the token that accepts, once. No mail is sent: pass it on
    #[command(
        after_help = "Example:\n  claviger member invite ada@example.org --role member > invitation"
    )]
    Invite {
        /// The email that the person will sign in with
        email: String,
        /// owner, admin, member or auditor
        #[arg(long, default_value = "member")]
        role: String,
    },
    /// List the invitations that can still be accepted
    #[command(after_help = "Example:\n  claviger member invitations")]
    Invitations,
    /// End an invitation at once
    #[command(after_help = "Example:\n  claviger member uninvite inv_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Uninvite {
        /// The invitation's id
        id: String,
    },
    /// Accept an invitation: choose a password, then sign in with `claviger login --email`
    #[command(after_help = "Example:\n  claviger member accept --token-file invitation")]
    Accept {
        /// A file that holds the invitation's token; - for standard input
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// A file that holds the password that you choose; - for standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// What you like to be called
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// Give a member another role; the member's sign-ins end
    #[command(after_help = "Example:\n  claviger member role ada@example.org auditor")]
    Role {
        /// The member's email, name or id
        member: String,
        /// owner, admin, member or auditor
        role: String,
    },
    /// Remove a member: password, keys and sign-ins end at once
    #[command(after_help = "Example:\n  claviger member remove ada@example.org")]
    Remove {
        /// The member's email, name or id
        member: String,
    },
}

/// Address rules: from which networks your organization's people and agents may call the API
#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
pub(crate) enum IpRuleCommand {
    /// List the rules
    #[command(visible_alias = "ls", after_help = "Example:\n  claviger ip-rule list")]
    List,
    /// Allow a network, and with it none but those that are allowed
    #[command(after_help = "Example:\n  claviger ip-rule allow 192.0.2.0/24 --description office")]
    Allow(IpRuleArgs),
    /// Block a network, whatever allows it
    #[command(after_help = "Example:\n  claviger ip-rule block 198.51.100.0/24")]
    Block(IpRuleArgs),
    /// Remove a rule
    #[command(after_help = "Example:\n  claviger ip-rule remove ipr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Remove {
        /// The rule's id
        id: String,
        /// Also if that shuts you out
        #[arg(long)]
        force: bool,
    },
    /// Remove all rules on the server's own machine, when they shut everybody out; it asks the database and not the API
    ///
    /// Stop the server first where the database is a file. The trail says that an operator did it, and what the rules were.
    #[command(after_help = "\
Examples:
  claviger ip-rule clear --data /var/lib/claviger
  claviger ip-rule clear --database postgres://claviger_control_plane@db.internal/claviger")]
    Clear {
        // A URL may carry a password, and clap repeats what it refuses.
        /// The database: sqlite:PATH or postgres://USER@HOST/NAME [default: DIR/claviger.db] [env: CLAVIGER_DATABASE]
        #[arg(long, value_name = "URL")]
        database: Option<String>,
        /// The organization [default: the first one]
        #[arg(long, value_name = "ID")]
        org: Option<OrgId>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct IpRuleArgs {
    /// A network, or one address
    cidr: String,
    /// What it is for
    #[arg(long)]
    description: Option<String>,
    /// Also if that shuts you out
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let client = || context.connection.client();
    let output = context.output;
    match command {
        Command::List => {
            let members = client().await?.all(MEMBERS, "members").await?;
            let columns = [
                ("ID", "id"),
                ("NAME", "name"),
                ("EMAIL", "email"),
                ("ROLE", "role"),
                ("SINCE", "created_at"),
            ];
            output.list("members", &columns, &members);
        }
        Command::Invite { email, role } => {
            let body = json!({ "email": email, "role": role });
            let answer = client().await?.post(INVITATIONS, &body).await?;
            output.note(format!(
                "invited {email} as {role} until {}; `claviger member accept` takes this token, which is shown this once:",
                text(&answer["invitation"], "expires_at")
            ));
            output.done(&answer, text(&answer, "token"));
        }
        Command::Invitations => {
            let invitations = client().await?.all(INVITATIONS, "invitations").await?;
            let columns = [
                ("ID", "id"),
                ("EMAIL", "email"),
                ("ROLE", "role"),
                ("EXPIRES", "expires_at"),
            ];
            output.list("invitations", &columns, &invitations);
        }
        Command::Uninvite { id } => {
            let path = format!("{INVITATIONS}/{}", segment(&id));
            client().await?.delete(&path).await?;
            output.done(&json!({ "revoked": id }), format!("ended invitation {id}"));
        }
        Command::Role { member, role } => {
            let client = client().await?;
            let path = path_of(&client, &member).await?;
            let answer = client.patch(&path, &json!({ "role": role })).await?;
            output.done(&answer, format!("{member} is {role} from now on"));
        }
        Command::Remove { member } => {
            let client = client().await?;
            client.delete(&path_of(&client, &member).await?).await?;
            output.done(
                &json!({ "removed": member }),
                format!("removed member {member}"),
            );
        }
        // Asked by somebody who has no key yet.
        Command::Accept {
            token_file,
            password_file,
            name,
        } => accept(context, token_file, password_file, name).await?,
    }
    Ok(())
}

pub(crate) async fn ip_rule(context: &Context, command: IpRuleCommand) -> anyhow::Result<()> {
    if let IpRuleCommand::Clear { database, org } = &command {
        return clear(context, database.as_deref(), org.as_ref()).await;
    }
    let client = context.connection.client().await?;
    let output = context.output;
    match command {
        IpRuleCommand::List => {
            let rules = client.all(IP_RULES, "ip_rules").await?;
            let columns = [
                ("ID", "id"),
                ("TYPE", "rule_type"),
                ("NETWORK", "cidr"),
                ("DESCRIPTION", "description"),
            ];
            output.list("ip_rules", &columns, &rules);
        }
        IpRuleCommand::Allow(args) => add(context, &client, "allow", args).await?,
        IpRuleCommand::Block(args) => add(context, &client, "block", args).await?,
        IpRuleCommand::Remove { id, force } => {
            let path = format!("{IP_RULES}/{}?force={force}", segment(&id));
            client.delete(&path).await?;
            output.done(&json!({ "removed": id }), format!("removed rule {id}"));
        }
        // Above: no server is asked.
        IpRuleCommand::Clear { .. } => {}
    }
    Ok(())
}

async fn clear(
    context: &Context,
    database: Option<&str>,
    org: Option<&OrgId>,
) -> anyhow::Result<()> {
    let (org, cleared) = plant::clear_ip_rules(context, (database, org)).await?;
    context.output.done(
        &json!({ "org_id": org, "cleared": cleared }),
        format!("removed {cleared} address rules of {org}; every address may call again"),
    );
    Ok(())
}

async fn add(
    context: &Context,
    client: &Client,
    kind: &str,
    args: IpRuleArgs,
) -> anyhow::Result<()> {
    let body = json!({
        "rule_type": kind,
        "cidr": args.cidr,
        "description": args.description,
        "force": args.force,
    });
    let answer = client.post(IP_RULES, &body).await?;
    let sentence = format!("{kind} {} ({})", text(&answer, "cidr"), text(&answer, "id"));
    context.output.done(&answer, sentence);
    Ok(())
}

async fn accept(
    context: &Context,
    token_file: Option<PathBuf>,
    password_file: Option<PathBuf>,
    name: Option<String>,
) -> anyhow::Result<()> {
    let both = [&token_file, &password_file];
    let stdin =
        |file: &&&Option<PathBuf>| file.as_deref().is_some_and(|file| file.as_os_str() == "-");
    if both.iter().filter(stdin).count() > 1 {
        return Err(
            Failure::new("token and password cannot both come on standard input")
                .hint("give one of them in a file")
                .usage()
                .into(),
        );
    }
    let token = prompt::secret("invitation's token", token_file.as_deref())?;
    let password = prompt::secret("password that you choose", password_file.as_deref())?;
    let body = json!({
        "token": token.as_str(),
        "password": password.as_str(),
        "display_name": name,
    });
    let nobody = context.connection.nobody()?;
    nobody.ask("/v1/auth/accept-invitation", &body).await?;
    context.output.done(
        &json!({ "accepted": true }),
        "accepted; sign in with `claviger login --email`",
    );
    Ok(())
}

async fn path_of(client: &Client, member: &str) -> anyhow::Result<String> {
    let id = id_of(client, member).await?;
    Ok(format!("{MEMBERS}/{}", segment(&id)))
}

/// The id of a member, by that id, the email or the name.
pub(super) async fn id_of(client: &Client, member: &str) -> anyhow::Result<String> {
    if member.starts_with("usr_") {
        return Ok(member.to_owned());
    }
    let found = client.all(MEMBERS, "members").await?;
    let wanted = member.trim().to_lowercase();
    let is_it = |user: &&Value| text(user, "email") == wanted || text(user, "name") == member;
    let user = found.iter().find(is_it).ok_or_else(|| {
        Failure::new(format!(
            "there is no member `{}`",
            crate::output::clean(member)
        ))
        .code("not_found")
        .hint("`claviger member list` shows those there are")
    })?;
    Ok(text(user, "id").to_owned())
}

const MEMBERS: &str = "/v1/org/members";
const INVITATIONS: &str = "/v1/org/invitations";
const IP_RULES: &str = "/v1/security/ip-rules";
