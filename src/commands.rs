//! The command line: one module a command, and what they share.

mod account;
mod agent;
mod approval;
mod audit;
mod binding;
mod ca;
mod completions;
mod config_check;
#[cfg(test)]
mod coverage;
mod demo;
mod doctor;
mod env;
mod execute;
mod explain;
mod grant;
mod init;
mod keys;
mod kill_switch;
mod lease;
mod login;
mod member;
mod migrate;
mod policy;
mod providers;
mod run;
mod secret;
mod serve;
mod set;
mod share;
mod transfer;
mod usage;
mod vault;
mod webhook;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::serve::Role;
use crate::client::Connection;
use crate::output::Output;

/// Agents use your credentials; they never hold them.
///
/// A credential-injection forward proxy with lease tokens: a server keeps your keys, an agent gets a short lease,
/// and the key is put into the agent's request on its way to the provider. Every use is recorded first.
#[derive(Debug, Parser)]
#[command(
    name = "claviger",
    version,
    max_term_width = 110,
    after_help = "\
Examples:
  claviger demo                                      the whole story in under a minute
  claviger serve                                     both planes on this machine
  claviger set put openai/dev/me OPENAI_API_KEY=-    store a key, read from standard input
  claviger agent create bot
  claviger grant create --agent bot --set openai/dev/me --actions proxy_use,mint_workflow_lease
  claviger run --set openai/dev/me -- python agent.py"
)]
pub(crate) struct Cli {
    /// Speak JSON: results on stdout, one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(flatten)]
    connection: Connection,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run both planes in one process: the REST API and the injector
    ///
    /// The first start makes all it needs in the data directory: a database, keys, a CA, and your key in DIR/admin.key. One line on
    /// stdout, `ready api=… proxy=… ca=… data=…`, says that both answer. SIGTERM and Ctrl-C drain and stop.
    ///
    /// Each option is also a key of the configuration file and a CLAVIGER_ variable; `claviger config check` shows all of them.
    #[command(after_help = "\
Examples:
  claviger serve
  claviger serve --data /var/lib/claviger --config /etc/claviger/claviger.toml
  claviger serve --api 127.0.0.1:0 --proxy 127.0.0.1:0 --json")]
    Serve(serve::Args),
    /// Run the control plane alone: it stores, grants and mints
    ///
    /// Any number of control planes and injectors share one Postgres database. The first control plane makes the installation.
    /// The options are those of `claviger serve`; those of the injector have no effect here.
    #[command(after_help = "\
Examples:
  claviger control-plane --database postgres://claviger_control_plane@db.internal/claviger --api 127.0.0.1:8181")]
    ControlPlane(serve::Args),
    /// Run the injector alone: it takes what agents send, and cannot mint
    ///
    /// Any number of control planes and injectors share one Postgres database. Its API tells health and metrics, and answers
    /// for control planes that cannot open secrets. The options are those of `claviger serve`.
    #[command(after_help = "\
Examples:
  claviger injector --database postgres://claviger_injector@db.internal/claviger --proxy 127.0.0.1:8182 --api 127.0.0.1:8183")]
    Injector(serve::Args),
    Init(init::Args),
    Demo(demo::Args),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger set put openai/dev/me OPENAI_API_KEY=-"
    )]
    Set(set::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger agent create billing-bot > billing-bot.key"
    )]
    Agent(agent::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger grant create --agent billing-bot --set stripe/prod/billing --expires 8h"
    )]
    Grant(grant::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  LEASE=$(claviger lease mint --agent billing-bot --set stripe/prod/billing)"
    )]
    Lease(lease::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger approval list --status pending"
    )]
    Approval(approval::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger binding create billing --agent bot --base-url https://api.example.org --file key"
    )]
    Binding(binding::Command),
    #[command(subcommand, after_help = "Example:\n  claviger vault create payments")]
    Vault(vault::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger secret put deploy/ssh-key --vault payments --file id_ed25519"
    )]
    Secret(secret::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger env run --prefix web/dev -- ./server"
    )]
    Env(env::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger policy create --vault payments --agent bot --path 'deploy/**' --permissions read"
    )]
    Policy(policy::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger share create db/password --user ada@example.org --expires 1d"
    )]
    Share(share::Command),
    Usage(usage::UsageArgs),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger quota set --agents 10 --secrets 500"
    )]
    Quota(usage::Command),
    Execute(execute::Args),
    Run(run::Args),
    #[command(
        subcommand,
        after_help = "Example:
  claviger providers list"
    )]
    Providers(providers::Command),
    #[command(
        subcommand,
        after_help = "Example:
  claviger audit list"
    )]
    Audit(audit::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger webhook create https://hooks.example.org/claviger --event 'lease.*'"
    )]
    Webhook(webhook::Command),
    Ca(ca::Args),
    #[command(subcommand, after_help = "Example:\n  claviger keys list")]
    Keys(keys::Command),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger kill-switch revoke-all --reason 'a laptop was stolen'"
    )]
    KillSwitch(kill_switch::Command),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Whoami(login::WhoamiArgs),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger account email ada@example.org"
    )]
    Account(account::Command),
    #[command(subcommand, after_help = "Example:\n  claviger mfa setup")]
    Mfa(account::MfaCommand),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger personal-key create laptop > laptop.key"
    )]
    PersonalKey(account::KeyCommand),
    #[command(
        subcommand,
        after_help = "Example:\n  claviger member invite ada@example.org --role member > invitation"
    )]
    Member(member::Command),
    #[command(subcommand, after_help = "Example:\n  claviger ip-rule list")]
    IpRule(member::IpRuleCommand),
    Migrate(migrate::Args),
    ExportDatabase(transfer::ExportArgs),
    ImportDatabase(transfer::ImportArgs),
    Doctor(doctor::Args),
    Explain(explain::Args),
    #[command(subcommand, after_help = "Example:\n  claviger config check")]
    Config(config_check::Command),
    Completions(completions::Args),
}

/// What every command gets beside its own arguments.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) connection: Connection,
    pub(crate) output: Output,
}

/// Runs the command; its exit code is 0 unless the command passes on another's.
pub(crate) fn dispatch(cli: Cli, output: Output) -> anyhow::Result<ExitCode> {
    let context = Context {
        connection: cli.connection,
        output,
    };
    match cli.command {
        Command::Serve(args) => serve::run(&context, &args, Role::Both).map(done),
        Command::ControlPlane(args) => serve::run(&context, &args, Role::ControlPlane).map(done),
        Command::Injector(args) => serve::run(&context, &args, Role::Injector).map(done),
        Command::Init(args) => init::run(&context, &args).map(done),
        Command::Demo(args) => block_on(demo::run(&context, &args)).map(done),
        Command::Set(command) => block_on(set::run(&context, command)).map(done),
        Command::Agent(command) => block_on(agent::run(&context, command)).map(done),
        Command::Grant(command) => block_on(grant::run(&context, command)).map(done),
        Command::Lease(command) => block_on(lease::run(&context, command)).map(done),
        Command::Approval(command) => block_on(approval::run(&context, command)).map(done),
        Command::Binding(command) => block_on(binding::run(&context, command)).map(done),
        Command::Vault(command) => block_on(vault::run(&context, command)).map(done),
        Command::Secret(command) => block_on(secret::run(&context, command)).map(done),
        Command::Env(command) => env::run(&context, command),
        Command::Policy(command) => block_on(policy::run(&context, command)).map(done),
        Command::Share(command) => block_on(share::run(&context, command)).map(done),
        Command::Usage(args) => block_on(usage::show(&context, &args)).map(done),
        Command::Quota(command) => block_on(usage::quota(&context, command)).map(done),
        Command::Execute(args) => block_on(execute::run(&context, &args)).map(done),
        Command::Run(args) => run::run(&context, &args),
        Command::Providers(command) => block_on(providers::run(&context, command)).map(done),
        Command::Audit(command) => block_on(audit::run(&context, command)).map(done),
        Command::Webhook(command) => block_on(webhook::run(&context, command)).map(done),
        Command::Ca(args) => block_on(ca::run(&context, &args)).map(done),
        Command::Keys(command) => block_on(keys::run(&context, command)).map(done),
        Command::KillSwitch(command) => block_on(kill_switch::run(&context, command)).map(done),
        Command::Login(args) => block_on(login::login(&context, &args)).map(done),
        Command::Logout(args) => block_on(login::logout(&context, &args)).map(done),
        Command::Whoami(args) => block_on(login::whoami(&context, &args)).map(done),
        Command::Account(command) => block_on(account::run(&context, command)).map(done),
        Command::Mfa(command) => block_on(account::mfa(&context, command)).map(done),
        Command::PersonalKey(command) => {
            block_on(account::personal_key(&context, command)).map(done)
        }
        Command::Member(command) => block_on(member::run(&context, command)).map(done),
        Command::IpRule(command) => block_on(member::ip_rule(&context, command)).map(done),
        Command::Migrate(args) => block_on(migrate::run(&context, &args)).map(done),
        Command::ExportDatabase(args) => block_on(transfer::export(&context, &args)).map(done),
        Command::ImportDatabase(args) => block_on(transfer::import(&context, &args)).map(done),
        Command::Doctor(args) => block_on(doctor::run(&context, &args)).map(done),
        Command::Explain(args) => block_on(explain::run(&context, &args)).map(done),
        Command::Config(command) => config_check::run(&context, &command).map(done),
        Command::Completions(args) => {
            completions::run(&context, &args);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// Runs a command's future on this thread.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            let subcommands: Vec<_> = command
                .get_subcommands()
                .filter(|command| !command.is_hide_set())
                .collect();
            let example = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            if !example.contains("Example") {
                missing.push(path.clone());
            }
            for command in subcommands {
                check(command, &path, missing);
            }
        }
        let mut missing = Vec::new();
        check(&Cli::command(), "", &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn the_help_names_the_commands_of_the_contract() {
        let command = Cli::command();
        let names: Vec<&str> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        for name in [
            "serve",
            "control-plane",
            "injector",
            "demo",
            "set",
            "agent",
            "approval",
            "grant",
            "lease",
            "binding",
            "vault",
            "secret",
            "env",
            "policy",
            "share",
            "usage",
            "quota",
            "execute",
            "run",
            "providers",
            "audit",
            "ca",
            "keys",
            "kill-switch",
            "migrate",
            "export-database",
            "import-database",
            "init",
            "doctor",
            "explain",
            "config",
            "completions",
            "login",
            "logout",
            "whoami",
            "account",
            "mfa",
            "personal-key",
            "member",
            "ip-rule",
            "webhook",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }
}
