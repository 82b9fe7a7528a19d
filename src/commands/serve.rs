//! `serve`: both planes in one process.

pub(crate) mod plant;

use std::path::PathBuf;

use super::Context;
use crate::config::{self, Overrides};

/// Run both planes in one process: the REST API and the injector
///
/// The first start makes all it needs in the data directory: a database, keys, a CA, and your key in DIR/admin.key. One line on
/// stdout, `ready api=… proxy=… ca=… data=…`, says that both answer. SIGTERM and Ctrl-C drain and stop.
///
/// Each option is also a key of the configuration file and a CLAVIGER_ variable; `claviger config check` shows all of them.
#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
#[command(after_help = "\
Examples:
  claviger serve
  claviger serve --data /var/lib/claviger --config /etc/claviger/claviger.toml
  claviger serve --api 127.0.0.1:0 --proxy 127.0.0.1:0 --json")]
pub(crate) struct Args {
    /// The configuration [default: claviger.toml in the data directory, if there is one] [env: CLAVIGER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the API listens; port 0 takes a free one [default: 127.0.0.1:8181] [env: CLAVIGER_API]
    #[arg(long, value_name = "ADDR", value_parser = config::checked("server.api"))]
    api: Option<String>,
    /// Where the injector listens; port 0 takes a free one [default: 127.0.0.1:8182] [env: CLAVIGER_PROXY]
    #[arg(long, value_name = "ADDR", value_parser = config::checked("server.proxy"))]
    proxy: Option<String>,
    /// The database: sqlite:PATH [default: DIR/claviger.db] [env: CLAVIGER_DATABASE]
    #[arg(long, value_name = "URL", value_parser = config::checked("database.url"))]
    database: Option<String>,
    /// PEM certificates trusted beside the public roots when dialling providers [env: CLAVIGER_UPSTREAM_CA]
    #[arg(long, value_name = "FILE", value_parser = config::checked("network.upstream_ca"))]
    upstream_ca: Option<String>,
    /// Where to dial a name; name, SNI and verification stay; repeatable [env: CLAVIGER_RESOLVE]
    #[arg(long, value_name = "HOST:PORT=IP:PORT", value_parser = config::checked("network.resolve"))]
    resolve: Vec<String>,
    /// A network that may be dialled although it is private; repeatable [env: CLAVIGER_ALLOW_ADDRESS]
    #[arg(long, value_name = "CIDR", value_parser = config::checked("network.allow_address"))]
    allow_address: Vec<String>,
    /// A directory of provider templates beside the built-in ones [env: CLAVIGER_PROVIDERS]
    #[arg(long, value_name = "DIR", value_parser = config::checked("providers.dir"))]
    providers: Option<String>,
    /// How long an opened secret is kept: at most 60s, 0s opens it on every use [default: 30s] [env: CLAVIGER_CACHE_TTL]
    #[arg(long, value_name = "TIME", value_parser = config::checked("cache.ttl"))]
    cache_ttl: Option<String>,
    /// Threads for requests [default: one a core] [env: CLAVIGER_WORKERS]
    #[arg(long, value_name = "N", value_parser = config::checked("server.workers"))]
    workers: Option<String>,
    /// How long requests in flight may go on after a stop was asked for [default: 30s] [env: CLAVIGER_DRAIN]
    #[arg(long, value_name = "TIME", value_parser = config::checked("server.drain"))]
    drain: Option<String>,
    /// Listen for leases in cleartext beyond loopback [env: CLAVIGER_ALLOW_PLAINTEXT_LISTENER]
    #[arg(long)]
    allow_plaintext_listener: bool,
    /// A file with the passphrase that protects the software keys [env: CLAVIGER_PASSPHRASE_FILE]
    #[arg(long, value_name = "FILE", value_parser = config::checked("keys.passphrase_file"))]
    passphrase_file: Option<String>,
    /// `synced`, or `committed` for measurements: a power cut may lose records [default: synced] [env: CLAVIGER_LEDGER_DURABILITY]
    #[arg(long, value_name = "LEVEL", hide = true, value_parser = config::checked("ledger.durability"))]
    ledger_durability: Option<String>,
    /// What is logged, in RUST_LOG's language [default: info] [env: CLAVIGER_LOG, RUST_LOG]
    #[arg(long, value_name = "FILTER", value_parser = config::checked("log.level"))]
    log: Option<String>,
    /// How a log line looks: text or json [default: text] [env: CLAVIGER_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", value_parser = config::checked("log.format"))]
    log_format: Option<String>,
}

impl Args {
    /// The options as the configuration takes them.
    fn overrides(&self, context: &Context) -> Overrides {
        let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        let data = context
            .connection
            .data
            .as_ref()
            .map(|data| data.display().to_string());
        vec![
            ("server.data", "--data", one(&data)),
            ("server.api", "--api", one(&self.api)),
            ("server.proxy", "--proxy", one(&self.proxy)),
            ("server.workers", "--workers", one(&self.workers)),
            ("server.drain", "--drain", one(&self.drain)),
            (
                "server.allow_plaintext_listener",
                "--allow-plaintext-listener",
                self.allow_plaintext_listener
                    .then(|| "true".to_owned())
                    .into_iter()
                    .collect(),
            ),
            ("database.url", "--database", one(&self.database)),
            (
                "ledger.durability",
                "--ledger-durability",
                one(&self.ledger_durability),
            ),
            (
                "network.upstream_ca",
                "--upstream-ca",
                one(&self.upstream_ca),
            ),
            ("network.resolve", "--resolve", self.resolve.clone()),
            (
                "network.allow_address",
                "--allow-address",
                self.allow_address.clone(),
            ),
            ("providers.dir", "--providers", one(&self.providers)),
            ("cache.ttl", "--cache-ttl", one(&self.cache_ttl)),
            (
                "keys.passphrase_file",
                "--passphrase-file",
                one(&self.passphrase_file),
            ),
            ("log.level", "--log", one(&self.log)),
            ("log.format", "--log-format", one(&self.log_format)),
        ]
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let loaded = config::Loaded::read(args.config.as_deref(), &args.overrides(context))?;
    let _ = loaded.config;
    anyhow::bail!("both planes are not wired yet")
}
