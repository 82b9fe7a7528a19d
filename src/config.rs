//! What a server is told: defaults, one TOML file, `CLAVIGER_` variables and options, in this order.
//!
//! Every setting stands once, in [`SETTINGS`], with its parser; each source gives it text, so a mistake reads the same
//! wherever it was made, and all of them are reported together.

mod oidc;
mod telling;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_plane::{RedirectUrl, SignUp};
use ipnet::IpNet;
use proxy::Limits;
use reqwest::Url;
use serde_json::{Map, Value, json};
use store::Location;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::data_dir::DataDir;
use crate::failure::Failure;
use crate::telemetry::LogFormat;
use crate::units::{self, Resolve};

use self::oidc::Oidc;
pub(crate) use self::telling::{Audit, CheckpointUrl, Telemetry, Webhooks};

/// The whole configuration of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) database: Database,
    pub(crate) ledger: Ledger,
    pub(crate) network: Network,
    pub(crate) providers: Providers,
    pub(crate) cache: Cache,
    pub(crate) keys: Keys,
    pub(crate) people: People,
    pub(crate) audit: Audit,
    pub(crate) telemetry: Telemetry,
    pub(crate) webhooks: Webhooks,
    pub(crate) oidc: Oidc,
    /// `[limits]`: what may be under way in this process, for all and for each agent and org.
    pub(crate) limits: Limits,
    pub(crate) api: Api,
    pub(crate) quotas: Quotas,
    pub(crate) log: Log,
}

/// `[server]`: where it lives and listens.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) data: Option<PathBuf>,
    /// This process in the audit streams; none given means a name made once for the data directory.
    pub(crate) node: Option<String>,
    pub(crate) api: SocketAddr,
    pub(crate) proxy: SocketAddr,
    /// Threads for requests; none given means one a core.
    pub(crate) workers: Option<usize>,
    /// How long requests in flight may go on after a stop was asked for.
    pub(crate) drain: Duration,
    /// The certificate that the API shows, and its key, PEM. With one, agents may authenticate by certificates of their own.
    pub(crate) api_tls_certificate: Option<PathBuf>,
    pub(crate) api_tls_key: Option<PathBuf>,
    /// The certificate that the injector shows under its own name, and its key, PEM.
    pub(crate) proxy_tls_certificate: Option<PathBuf>,
    pub(crate) proxy_tls_key: Option<PathBuf>,
    /// Names and addresses of the injector, for a certificate of the CA that agents trust anyway.
    pub(crate) proxy_tls_names: Vec<String>,
    /// Lifts the refusal to listen for leases beyond loopback in cleartext.
    pub(crate) allow_plaintext_listener: bool,
    /// APIs of injectors, to which a control plane that cannot open passes what has to be opened.
    pub(crate) injectors: Vec<Url>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            data: None,
            node: None,
            // Loopback: leases and keys cross these two in cleartext.
            api: SocketAddr::from(([127, 0, 0, 1], 8181)),
            proxy: SocketAddr::from(([127, 0, 0, 1], 8182)),
            workers: None,
            // Process managers commonly kill after 30 s or later.
            drain: Duration::from_secs(30),
            api_tls_certificate: None,
            api_tls_key: None,
            proxy_tls_certificate: None,
            proxy_tls_key: None,
            proxy_tls_names: Vec::new(),
            allow_plaintext_listener: false,
            injectors: Vec::new(),
        }
    }
}

/// `[database]`: where it is; none given means `claviger.db` in the data directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Database {
    pub(crate) location: Option<Location>,
    /// Holds the password that the URL leaves out.
    pub(crate) password_file: Option<PathBuf>,
}

/// `[ledger]`: how a use is committed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) durability: Durability,
}

/// What a committed use survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Durability {
    /// A power cut: each commit is synced before anything is sent.
    #[default]
    Synced,
    /// The end of the process alone. For measurements.
    Committed,
}

/// `[network]`: how providers are reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    pub(crate) upstream_ca: Option<PathBuf>,
    pub(crate) resolve: Vec<Resolve>,
    /// A proxy of the network by which providers are reached, but for those that `resolve` names.
    pub(crate) upstream_proxy: Option<Url>,
    /// Holds the password for it.
    pub(crate) upstream_proxy_password_file: Option<PathBuf>,
    pub(crate) allow_address: Vec<IpNet>,
}

/// `[providers]`: templates beside the built-in ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Providers {
    pub(crate) dir: Option<PathBuf>,
}

/// `[cache]`: opened secrets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cache {
    pub(crate) ttl: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        // Long enough to spare the key provider a busy agent's requests, short enough that a disabled key bites soon.
        Self {
            ttl: Duration::from_secs(30),
        }
    }
}

/// `[keys]`: who holds the keys that seal the vaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    pub(crate) provider: KeyProvider,
    /// Providers that are opened beside it, to open what they have sealed: while an installation moves.
    pub(crate) also: Vec<KeyProvider>,
    /// Where `software` keeps its files; none given means `keys` in the data directory. Nodes with one database share it.
    pub(crate) dir: Option<PathBuf>,
    /// Protects the files of `software`.
    pub(crate) passphrase_file: Option<PathBuf>,
    pub(crate) pkcs11: Pkcs11,
    pub(crate) gcp_kms: GcpKms,
}

/// Who may hold keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum KeyProvider {
    /// Files of this machine.
    #[default]
    Software,
    /// A token behind a PKCS#11 module.
    Pkcs11,
    /// Google Cloud KMS.
    GcpKms,
}

impl KeyProvider {
    /// As the configuration and the ids of keys name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Pkcs11 => "pkcs11",
            Self::GcpKms => "gcp-kms",
        }
    }
}

/// `[keys]`, for `pkcs11`: the module, its token, and where the PIN is. The PIN itself is in no setting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pkcs11 {
    pub(crate) module: Option<PathBuf>,
    pub(crate) token: Option<String>,
    pub(crate) slot: Option<u64>,
    pub(crate) pin_file: Option<PathBuf>,
    pub(crate) sessions: Option<usize>,
}

/// `[keys]`, for `gcp-kms`.
#[derive(Clone, Debug, Default)]
pub(crate) struct GcpKms {
    pub(crate) key_ring: Option<String>,
    pub(crate) endpoint: Option<Url>,
    pub(crate) credentials_file: Option<PathBuf>,
}

/// `[people]`: how people come to have accounts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct People {
    pub(crate) sign_up: SignUp,
}

/// `[limits]`, for the API: requests of one address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Api {
    /// In a second; none for any number.
    pub(crate) requests_per_second: Option<NonZeroU32>,
    /// At once, after it was quiet.
    pub(crate) request_burst: NonZeroU32,
    /// Somebody chose the number: then it holds for loopback too.
    pub(crate) is_chosen: bool,
}

impl Default for Api {
    fn default() -> Self {
        let limits = control_plane::Limits::default();
        Self {
            requests_per_second: limits.requests_per_second,
            request_burst: limits.request_burst,
            is_chosen: false,
        }
    }
}

/// `[quotas]`: what an organization may have of which `claviger quota` says nothing else; none for any number.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quotas {
    pub(crate) vaults: Option<NonZeroU32>,
    pub(crate) secrets: Option<NonZeroU32>,
    pub(crate) agents: Option<NonZeroU32>,
    pub(crate) requests_per_month: Option<NonZeroU32>,
}

impl Quotas {
    /// As the store takes it.
    pub(crate) fn of_store(self) -> store::Quota {
        let count = |most: Option<NonZeroU32>| most.map(|most| most.get().into());
        store::Quota {
            vaults: count(self.vaults),
            secrets: count(self.secrets),
            agents: count(self.agents),
            requests_per_month: count(self.requests_per_month),
        }
    }
}

/// `[log]`: what is logged and how.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        // Pingora tells its own lifecycle at info; a line a request from us is enough. Cryptoki calls each mechanism of a token
        // that it does not know an error.
        Self {
            level: "info,pingora=warn,pingora_core=warn,pingora_proxy=warn,cryptoki=off".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// Where a value came from, for messages and for `config check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Variable(String),
    Option(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Option(name) => f.write_str(name),
        }
    }
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) origin: Origin,
    pub(crate) message: String,
}

/// Values from the command line, by setting; they win over every other source.
pub(crate) type Overrides = Vec<(&'static str, &'static str, Vec<String>)>;

/// A configuration whose every value is known to parse, and where each came from.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    origins: Vec<(&'static str, Origin)>,
}

struct Setting {
    key: &'static str,
    variable: &'static str,
    shape: Shape,
    set: fn(&mut Config, &[&str]) -> Result<(), String>,
    show: fn(&Config) -> Value,
}

/// How a setting is written in TOML.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Integer,
    Boolean,
    List,
}

const SETTINGS: &[Setting] = &[
    Setting {
        key: "server.data",
        variable: "CLAVIGER_DATA",
        shape: Shape::Text,
        set: |config, text| path(text).map(|data| config.server.data = Some(data)),
        show: |config| shown(config.server.data.as_deref().map(Path::display)),
    },
    Setting {
        key: "server.node",
        variable: "CLAVIGER_NODE",
        shape: Shape::Text,
        set: |config, text| node(text).map(|node| config.server.node = Some(node)),
        show: |config| json!(config.server.node),
    },
    Setting {
        key: "server.api",
        variable: "CLAVIGER_API",
        shape: Shape::Text,
        set: |config, text| address(text).map(|api| config.server.api = api),
        show: |config| json!(config.server.api),
    },
    Setting {
        key: "server.proxy",
        variable: "CLAVIGER_PROXY",
        shape: Shape::Text,
        set: |config, text| address(text).map(|proxy| config.server.proxy = proxy),
        show: |config| json!(config.server.proxy),
    },
    Setting {
        key: "server.workers",
        variable: "CLAVIGER_WORKERS",
        shape: Shape::Integer,
        set: |config, text| workers(text).map(|workers| config.server.workers = Some(workers)),
        show: |config| json!(config.server.workers),
    },
    Setting {
        key: "server.drain",
        variable: "CLAVIGER_DRAIN",
        shape: Shape::Text,
        set: |config, text| duration(text).map(|drain| config.server.drain = drain),
        show: |config| span(config.server.drain),
    },
    Setting {
        key: "server.api_tls_certificate",
        variable: "CLAVIGER_API_TLS_CERTIFICATE",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.server.api_tls_certificate = Some(file)),
        show: |config| {
            shown(
                config
                    .server
                    .api_tls_certificate
                    .as_deref()
                    .map(Path::display),
            )
        },
    },
    Setting {
        key: "server.api_tls_key",
        variable: "CLAVIGER_API_TLS_KEY",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.server.api_tls_key = Some(file)),
        show: |config| shown(config.server.api_tls_key.as_deref().map(Path::display)),
    },
    Setting {
        key: "server.proxy_tls_certificate",
        variable: "CLAVIGER_PROXY_TLS_CERTIFICATE",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.server.proxy_tls_certificate = Some(file)),
        show: |config| {
            shown(
                config
                    .server
                    .proxy_tls_certificate
                    .as_deref()
                    .map(Path::display),
            )
        },
    },
    Setting {
        key: "server.proxy_tls_key",
        variable: "CLAVIGER_PROXY_TLS_KEY",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.server.proxy_tls_key = Some(file)),
        show: |config| shown(config.server.proxy_tls_key.as_deref().map(Path::display)),
    },
    Setting {
        key: "server.proxy_tls_names",
        variable: "CLAVIGER_PROXY_TLS_NAMES",
        shape: Shape::List,
        set: |config, items| {
            each(items, tls_name).map(|names| config.server.proxy_tls_names = names)
        },
        show: |config| json!(config.server.proxy_tls_names),
    },
    Setting {
        key: "server.allow_plaintext_listener",
        variable: "CLAVIGER_ALLOW_PLAINTEXT_LISTENER",
        shape: Shape::Boolean,
        set: |config, text| {
            boolean(text).map(|allow| config.server.allow_plaintext_listener = allow)
        },
        show: |config| json!(config.server.allow_plaintext_listener),
    },
    Setting {
        key: "server.injectors",
        variable: "CLAVIGER_INJECTORS",
        shape: Shape::List,
        set: |config, items| each(items, url).map(|urls| config.server.injectors = urls),
        show: |config| json!(texts(&config.server.injectors)),
    },
    Setting {
        key: "database.url",
        variable: "CLAVIGER_DATABASE",
        shape: Shape::Text,
        set: |config, text| {
            database(text).map(|location| config.database.location = Some(location))
        },
        show: |config| shown(config.database.location.as_ref()),
    },
    Setting {
        key: "database.password_file",
        variable: "CLAVIGER_DATABASE_PASSWORD_FILE",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.database.password_file = Some(file)),
        show: |config| shown(config.database.password_file.as_deref().map(Path::display)),
    },
    Setting {
        key: "ledger.durability",
        variable: "CLAVIGER_LEDGER_DURABILITY",
        shape: Shape::Text,
        set: |config, text| {
            durability(text).map(|durability| config.ledger.durability = durability)
        },
        show: |config| match config.ledger.durability {
            Durability::Synced => json!("synced"),
            Durability::Committed => json!("committed"),
        },
    },
    Setting {
        key: "network.upstream_ca",
        variable: "CLAVIGER_UPSTREAM_CA",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.network.upstream_ca = Some(file)),
        show: |config| shown(config.network.upstream_ca.as_deref().map(Path::display)),
    },
    Setting {
        key: "network.resolve",
        variable: "CLAVIGER_RESOLVE",
        shape: Shape::List,
        set: |config, items| {
            each(items, str::parse).map(|resolve| config.network.resolve = resolve)
        },
        show: |config| json!(texts(&config.network.resolve)),
    },
    Setting {
        key: "network.upstream_proxy",
        variable: "CLAVIGER_UPSTREAM_PROXY",
        shape: Shape::Text,
        set: |config, text| {
            upstream_proxy(text).map(|proxy| config.network.upstream_proxy = Some(proxy))
        },
        show: |config| shown(config.network.upstream_proxy.as_ref()),
    },
    Setting {
        key: "network.upstream_proxy_password_file",
        variable: "CLAVIGER_UPSTREAM_PROXY_PASSWORD_FILE",
        shape: Shape::Text,
        set: |config, text| {
            path(text).map(|file| config.network.upstream_proxy_password_file = Some(file))
        },
        show: |config| {
            shown(
                config
                    .network
                    .upstream_proxy_password_file
                    .as_deref()
                    .map(Path::display),
            )
        },
    },
    Setting {
        key: "network.allow_address",
        variable: "CLAVIGER_ALLOW_ADDRESS",
        shape: Shape::List,
        set: |config, items| each(items, network).map(|allow| config.network.allow_address = allow),
        show: |config| json!(config.network.allow_address),
    },
    Setting {
        key: "providers.dir",
        variable: "CLAVIGER_PROVIDERS",
        shape: Shape::Text,
        set: |config, text| path(text).map(|dir| config.providers.dir = Some(dir)),
        show: |config| shown(config.providers.dir.as_deref().map(Path::display)),
    },
    Setting {
        key: "cache.ttl",
        variable: "CLAVIGER_CACHE_TTL",
        shape: Shape::Text,
        set: |config, text| cache_ttl(text).map(|ttl| config.cache.ttl = ttl),
        show: |config| span(config.cache.ttl),
    },
    Setting {
        key: "keys.provider",
        variable: "CLAVIGER_KEY_PROVIDER",
        shape: Shape::Text,
        set: |config, text| {
            one(text)
                .and_then(key_provider)
                .map(|provider| config.keys.provider = provider)
        },
        show: |config| json!(config.keys.provider.name()),
    },
    Setting {
        key: "keys.also",
        variable: "CLAVIGER_KEYS_ALSO",
        shape: Shape::List,
        set: |config, items| each(items, key_provider).map(|also| config.keys.also = also),
        show: |config| {
            let names = config.keys.also.iter().map(|provider| provider.name());
            json!(names.collect::<Vec<_>>())
        },
    },
    Setting {
        key: "keys.pkcs11_module",
        variable: "CLAVIGER_PKCS11_MODULE",
        shape: Shape::Text,
        set: |config, text| path(text).map(|module| config.keys.pkcs11.module = Some(module)),
        show: |config| shown(config.keys.pkcs11.module.as_deref().map(Path::display)),
    },
    Setting {
        key: "keys.pkcs11_token",
        variable: "CLAVIGER_PKCS11_TOKEN",
        shape: Shape::Text,
        set: |config, text| {
            one(text).map(|label| config.keys.pkcs11.token = Some(label.to_owned()))
        },
        show: |config| json!(config.keys.pkcs11.token),
    },
    Setting {
        key: "keys.pkcs11_slot",
        variable: "CLAVIGER_PKCS11_SLOT",
        shape: Shape::Integer,
        set: |config, text| slot(text).map(|slot| config.keys.pkcs11.slot = Some(slot)),
        show: |config| json!(config.keys.pkcs11.slot),
    },
    Setting {
        key: "keys.pkcs11_pin_file",
        variable: "CLAVIGER_PKCS11_PIN_FILE",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.keys.pkcs11.pin_file = Some(file)),
        show: |config| shown(config.keys.pkcs11.pin_file.as_deref().map(Path::display)),
    },
    Setting {
        key: "keys.pkcs11_sessions",
        variable: "CLAVIGER_PKCS11_SESSIONS",
        shape: Shape::Integer,
        set: |config, text| {
            sessions(text).map(|sessions| config.keys.pkcs11.sessions = Some(sessions))
        },
        show: |config| json!(config.keys.pkcs11.sessions),
    },
    Setting {
        key: "keys.gcp_kms_key_ring",
        variable: "CLAVIGER_GCP_KMS_KEY_RING",
        shape: Shape::Text,
        set: |config, text| key_ring(text).map(|ring| config.keys.gcp_kms.key_ring = Some(ring)),
        show: |config| json!(config.keys.gcp_kms.key_ring),
    },
    Setting {
        key: "keys.gcp_kms_endpoint",
        variable: "CLAVIGER_GCP_KMS_ENDPOINT",
        shape: Shape::Text,
        set: |config, text| {
            one(text)
                .and_then(url)
                .map(|endpoint| config.keys.gcp_kms.endpoint = Some(endpoint))
        },
        show: |config| shown(config.keys.gcp_kms.endpoint.as_ref()),
    },
    Setting {
        key: "keys.gcp_kms_credentials_file",
        variable: "CLAVIGER_GCP_KMS_CREDENTIALS_FILE",
        shape: Shape::Text,
        set: |config, text| {
            path(text).map(|file| config.keys.gcp_kms.credentials_file = Some(file))
        },
        show: |config| {
            shown(
                config
                    .keys
                    .gcp_kms
                    .credentials_file
                    .as_deref()
                    .map(Path::display),
            )
        },
    },
    Setting {
        key: "keys.dir",
        variable: "CLAVIGER_KEYS_DIR",
        shape: Shape::Text,
        set: |config, text| path(text).map(|dir| config.keys.dir = Some(dir)),
        show: |config| shown(config.keys.dir.as_deref().map(Path::display)),
    },
    Setting {
        key: "keys.passphrase_file",
        variable: "CLAVIGER_PASSPHRASE_FILE",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.keys.passphrase_file = Some(file)),
        show: |config| shown(config.keys.passphrase_file.as_deref().map(Path::display)),
    },
    Setting {
        key: "limits.connections",
        variable: "CLAVIGER_LIMITS_CONNECTIONS",
        shape: Shape::Integer,
        set: |config, text| {
            count(text).map(|count| config.limits.connections = count.get() as usize)
        },
        show: |config| json!(config.limits.connections),
    },
    Setting {
        key: "limits.requests",
        variable: "CLAVIGER_LIMITS_REQUESTS",
        shape: Shape::Integer,
        set: |config, text| count(text).map(|count| config.limits.requests = count.get()),
        show: |config| json!(config.limits.requests),
    },
    Setting {
        key: "limits.tunnels_per_agent",
        variable: "CLAVIGER_LIMITS_TUNNELS_PER_AGENT",
        shape: Shape::Integer,
        set: |config, text| count(text).map(|count| config.limits.agent.tunnels = Some(count)),
        show: |config| json!(config.limits.agent.tunnels),
    },
    Setting {
        key: "limits.tunnels_per_org",
        variable: "CLAVIGER_LIMITS_TUNNELS_PER_ORG",
        shape: Shape::Integer,
        set: |config, text| count(text).map(|count| config.limits.org.tunnels = Some(count)),
        show: |config| json!(config.limits.org.tunnels),
    },
    Setting {
        key: "limits.requests_per_agent",
        variable: "CLAVIGER_LIMITS_REQUESTS_PER_AGENT",
        shape: Shape::Integer,
        set: |config, text| count(text).map(|count| config.limits.agent.requests = Some(count)),
        show: |config| json!(config.limits.agent.requests),
    },
    Setting {
        key: "limits.requests_per_org",
        variable: "CLAVIGER_LIMITS_REQUESTS_PER_ORG",
        shape: Shape::Integer,
        set: |config, text| count(text).map(|count| config.limits.org.requests = Some(count)),
        show: |config| json!(config.limits.org.requests),
    },
    Setting {
        key: "limits.bytes_per_second_per_agent",
        variable: "CLAVIGER_LIMITS_BYTES_PER_SECOND_PER_AGENT",
        shape: Shape::Integer,
        set: |config, text| {
            count(text).map(|count| config.limits.agent.bytes_per_second = Some(count))
        },
        show: |config| json!(config.limits.agent.bytes_per_second),
    },
    Setting {
        key: "limits.bytes_per_second_per_org",
        variable: "CLAVIGER_LIMITS_BYTES_PER_SECOND_PER_ORG",
        shape: Shape::Integer,
        set: |config, text| {
            count(text).map(|count| config.limits.org.bytes_per_second = Some(count))
        },
        show: |config| json!(config.limits.org.bytes_per_second),
    },
    Setting {
        key: "limits.least_bytes_per_second",
        variable: "CLAVIGER_LIMITS_LEAST_BYTES_PER_SECOND",
        shape: Shape::Integer,
        set: |config, text| {
            count_or_none(text).map(|count| config.limits.least_rate.bytes_per_second = count)
        },
        show: |config| {
            json!(
                config
                    .limits
                    .least_rate
                    .bytes_per_second
                    .map_or(0, NonZeroU32::get)
            )
        },
    },
    Setting {
        key: "limits.least_rate_over",
        variable: "CLAVIGER_LIMITS_LEAST_RATE_OVER",
        shape: Shape::Text,
        set: |config, text| rate_time(text).map(|over| config.limits.least_rate.over = over),
        show: |config| span(config.limits.least_rate.over),
    },
    Setting {
        key: "limits.api_requests_per_second",
        variable: "CLAVIGER_LIMITS_API_REQUESTS_PER_SECOND",
        shape: Shape::Integer,
        set: |config, text| {
            config.api.requests_per_second = count_or_none(text)?;
            config.api.is_chosen = true;
            Ok(())
        },
        show: |config| none_as_0(config.api.requests_per_second),
    },
    Setting {
        key: "limits.api_request_burst",
        variable: "CLAVIGER_LIMITS_API_REQUEST_BURST",
        shape: Shape::Integer,
        set: |config, text| count(text).map(|count| config.api.request_burst = count),
        show: |config| json!(config.api.request_burst),
    },
    Setting {
        key: "quotas.vaults",
        variable: "CLAVIGER_QUOTAS_VAULTS",
        shape: Shape::Integer,
        set: |config, text| count_or_none(text).map(|count| config.quotas.vaults = count),
        show: |config| none_as_0(config.quotas.vaults),
    },
    Setting {
        key: "quotas.secrets",
        variable: "CLAVIGER_QUOTAS_SECRETS",
        shape: Shape::Integer,
        set: |config, text| count_or_none(text).map(|count| config.quotas.secrets = count),
        show: |config| none_as_0(config.quotas.secrets),
    },
    Setting {
        key: "quotas.agents",
        variable: "CLAVIGER_QUOTAS_AGENTS",
        shape: Shape::Integer,
        set: |config, text| count_or_none(text).map(|count| config.quotas.agents = count),
        show: |config| none_as_0(config.quotas.agents),
    },
    Setting {
        key: "quotas.requests_per_month",
        variable: "CLAVIGER_QUOTAS_REQUESTS_PER_MONTH",
        shape: Shape::Integer,
        set: |config, text| {
            count_or_none(text).map(|count| config.quotas.requests_per_month = count)
        },
        show: |config| none_as_0(config.quotas.requests_per_month),
    },
    Setting {
        key: "people.sign_up",
        variable: "CLAVIGER_SIGN_UP",
        shape: Shape::Text,
        set: |config, text| sign_up(text).map(|sign_up| config.people.sign_up = sign_up),
        show: |config| match config.people.sign_up {
            SignUp::Closed => json!("closed"),
            SignUp::Open => json!("open"),
        },
    },
    Setting {
        key: "audit.checkpoint_file",
        variable: "CLAVIGER_AUDIT_CHECKPOINT_FILE",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.audit.checkpoint_file = Some(file)),
        show: |config| shown(config.audit.checkpoint_file.as_deref().map(Path::display)),
    },
    Setting {
        key: "audit.checkpoint_url",
        variable: "CLAVIGER_AUDIT_CHECKPOINT_URL",
        shape: Shape::Text,
        set: |config, text| {
            telling::checkpoint_url(text).map(|url| config.audit.checkpoint_url = Some(url))
        },
        show: |config| {
            shown(
                config
                    .audit
                    .checkpoint_url
                    .as_ref()
                    .map(CheckpointUrl::shown),
            )
        },
    },
    Setting {
        key: "audit.checkpoint_token_file",
        variable: "CLAVIGER_AUDIT_CHECKPOINT_TOKEN_FILE",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.audit.checkpoint_token_file = Some(file)),
        show: |config| {
            let file = config.audit.checkpoint_token_file.as_deref();
            shown(file.map(Path::display))
        },
    },
    Setting {
        key: "audit.checkpoint_credentials_file",
        variable: "CLAVIGER_AUDIT_CHECKPOINT_CREDENTIALS_FILE",
        shape: Shape::Text,
        set: |config, text| {
            path(text).map(|file| config.audit.checkpoint_credentials_file = Some(file))
        },
        show: |config| {
            let file = config.audit.checkpoint_credentials_file.as_deref();
            shown(file.map(Path::display))
        },
    },
    Setting {
        key: "audit.checkpoint_region",
        variable: "CLAVIGER_AUDIT_CHECKPOINT_REGION",
        shape: Shape::Text,
        set: |config, text| {
            telling::region(text).map(|region| config.audit.checkpoint_region = region)
        },
        show: |config| json!(config.audit.checkpoint_region),
    },
    Setting {
        key: "audit.checkpoint_endpoint",
        variable: "CLAVIGER_AUDIT_CHECKPOINT_ENDPOINT",
        shape: Shape::Text,
        set: |config, text| {
            one(text)
                .and_then(url)
                .map(|endpoint| config.audit.checkpoint_endpoint = Some(endpoint))
        },
        show: |config| shown(config.audit.checkpoint_endpoint.as_ref()),
    },
    Setting {
        key: "audit.checkpoint_every",
        variable: "CLAVIGER_AUDIT_CHECKPOINT_EVERY",
        shape: Shape::Text,
        set: |config, text| {
            telling::checkpoint_every(text).map(|every| config.audit.checkpoint_every = every)
        },
        show: |config| span(config.audit.checkpoint_every),
    },
    Setting {
        key: "telemetry.endpoint",
        variable: "CLAVIGER_TELEMETRY_ENDPOINT",
        shape: Shape::Text,
        set: |config, text| {
            one(text)
                .and_then(url)
                .map(|endpoint| config.telemetry.endpoint = Some(endpoint))
        },
        show: |config| shown(config.telemetry.endpoint.as_ref()),
    },
    Setting {
        key: "telemetry.headers_file",
        variable: "CLAVIGER_TELEMETRY_HEADERS_FILE",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.telemetry.headers_file = Some(file)),
        show: |config| shown(config.telemetry.headers_file.as_deref().map(Path::display)),
    },
    Setting {
        key: "webhooks.give_up_after",
        variable: "CLAVIGER_WEBHOOKS_GIVE_UP_AFTER",
        shape: Shape::Text,
        set: |config, text| {
            telling::give_up_after(text).map(|after| config.webhooks.give_up_after = after)
        },
        show: |config| span(config.webhooks.give_up_after),
    },
    Setting {
        key: "oidc.issuer",
        variable: "CLAVIGER_OIDC_ISSUER",
        shape: Shape::Text,
        set: |config, text| oidc::issuer(text).map(|issuer| config.oidc.issuer = Some(issuer)),
        show: |config| shown(config.oidc.issuer.as_ref()),
    },
    Setting {
        key: "oidc.client_id",
        variable: "CLAVIGER_OIDC_CLIENT_ID",
        shape: Shape::Text,
        set: |config, text| oidc::client_id(text).map(|id| config.oidc.client_id = Some(id)),
        show: |config| json!(config.oidc.client_id),
    },
    Setting {
        key: "oidc.client_secret_file",
        variable: "CLAVIGER_OIDC_CLIENT_SECRET_FILE",
        shape: Shape::Text,
        set: |config, text| path(text).map(|file| config.oidc.client_secret_file = Some(file)),
        show: |config| shown(config.oidc.client_secret_file.as_deref().map(Path::display)),
    },
    Setting {
        key: "oidc.redirect_url",
        variable: "CLAVIGER_OIDC_REDIRECT_URL",
        shape: Shape::Text,
        set: |config, text| {
            oidc::redirect_url(text).map(|url| config.oidc.redirect_url = Some(url))
        },
        show: |config| json!(config.oidc.redirect_url.as_ref().map(RedirectUrl::as_str)),
    },
    Setting {
        key: "oidc.allowed_domains",
        variable: "CLAVIGER_OIDC_ALLOWED_DOMAINS",
        shape: Shape::List,
        set: |config, items| {
            each(items, oidc::domain).map(|domains| config.oidc.allowed_domains = domains)
        },
        show: |config| json!(config.oidc.allowed_domains),
    },
    Setting {
        key: "oidc.allowed_emails",
        variable: "CLAVIGER_OIDC_ALLOWED_EMAILS",
        shape: Shape::List,
        set: |config, items| {
            each(items, oidc::email).map(|emails| config.oidc.allowed_emails = emails)
        },
        show: |config| json!(config.oidc.allowed_emails),
    },
    Setting {
        key: "oidc.sign_up",
        variable: "CLAVIGER_OIDC_SIGN_UP",
        shape: Shape::Text,
        set: |config, text| oidc::sign_up(text).map(|sign_up| config.oidc.sign_up = sign_up),
        show: |config| json!(oidc::sign_up_word(config.oidc.sign_up)),
    },
    Setting {
        key: "log.level",
        variable: "CLAVIGER_LOG",
        shape: Shape::Text,
        set: |config, text| level(text).map(|level| config.log.level = level),
        show: |config| json!(config.log.level),
    },
    Setting {
        key: "log.format",
        variable: "CLAVIGER_LOG_FORMAT",
        shape: Shape::Text,
        set: |config, text| log_format(text).map(|format| config.log.format = format),
        show: |config| match config.log.format {
            LogFormat::Text => json!("text"),
            LogFormat::Json => json!("json"),
        },
    },
];

/// The variable that Rust programs commonly take their log filter from; `CLAVIGER_LOG` wins over it.
const RUST_LOG: &str = "RUST_LOG";
/// Where programs commonly take their collector from (OpenTelemetry's specification); `CLAVIGER_TELEMETRY_ENDPOINT` wins over it.
const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Variables of others that are taken, and the settings that they stand for.
const COMMON: [(&str, &str); 2] = [
    (RUST_LOG, "log.level"),
    (OTLP_ENDPOINT, "telemetry.endpoint"),
];

/// Longest name of a node in bytes.
const MAX_NODE: usize = 64;

/// How much of an unknown name a message repeats.
const MAX_QUOTED: usize = 60;

impl Loaded {
    /// Puts the sources on top of each other. `variables` is the environment.
    ///
    /// # Errors
    /// Every [`Mistake`] of every source, in the order of the sources.
    pub(crate) fn from_sources(
        file: Option<(&Path, &str)>,
        variables: &[(String, String)],
        overrides: &Overrides,
    ) -> Result<Self, Vec<Mistake>> {
        let mut loaded = Self {
            config: Config::default(),
            origins: Vec::new(),
        };
        let mut mistakes = Vec::new();
        if let Some((path, text)) = file {
            loaded.read_file(path, text, &mut mistakes);
        }
        loaded.read_variables(variables, &mut mistakes);
        for (key, option, values) in overrides.iter().filter(|(_, _, values)| !values.is_empty()) {
            loaded.set(key, values, Origin::Option(option), &mut mistakes);
        }
        // Where a value is wrong, what it belongs with is not asked for yet.
        if mistakes.is_empty()
            && let Some((key, problem)) = loaded.config.oidc.mistake()
        {
            mistakes.push(Mistake {
                origin: loaded.origin(key),
                message: format!("{key} {problem}"),
            });
        }
        if mistakes.is_empty() {
            Ok(loaded)
        } else {
            Err(mistakes)
        }
    }

    /// Reads the file that `--config` or `CLAVIGER_CONFIG` names, else `claviger.toml` in the data directory if it exists.
    ///
    /// # Errors
    /// A [`Failure`] that lists every mistake, or says why the file cannot be read.
    pub(crate) fn read(file: Option<&Path>, overrides: &Overrides) -> anyhow::Result<Self> {
        let variables = environment();
        let file = match file {
            Some(path) => Some((path.to_owned(), read_text(path)?)),
            None => implied_file(&variables, overrides)?,
        };
        let borrowed = file
            .as_ref()
            .map(|(path, text)| (path.as_path(), text.as_str()));
        Self::from_sources(borrowed, &variables, overrides)
            .map_err(|mistakes| report(&mistakes).into())
    }

    /// The effective configuration by section, with each value's origin. It holds names of files, never a secret.
    pub(crate) fn effective(&self) -> Value {
        let mut sections = Map::new();
        for setting in SETTINGS {
            let (section, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
            let entry = json!({ "value": (setting.show)(&self.config), "origin": self.origin(setting.key).to_string() });
            if let Value::Object(fields) = sections.entry(section).or_insert_with(|| json!({})) {
                fields.insert(name.to_owned(), entry);
            }
        }
        Value::Object(sections)
    }

    /// Where a database password was given that other processes can read, if one was: the command line, or the environment.
    pub(crate) fn exposed_password(&self) -> Option<Origin> {
        let has_password = matches!(&self.config.database.location, Some(Location::Postgres(url)) if url.has_password());
        let origin = self.origin("database.url");
        let is_exposed = matches!(origin, Origin::Option(_) | Origin::Variable(_));
        (has_password && is_exposed).then_some(origin)
    }

    fn origin(&self, key: &str) -> Origin {
        let found = self.origins.iter().rev().find(|(of, _)| *of == key);
        found.map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    fn read_file(&mut self, path: &Path, text: &str, mistakes: &mut Vec<Mistake>) {
        let origin = |at: usize| Origin::File {
            path: path.to_owned(),
            line: line(text, at),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        mistakes.extend(errors.iter().map(|error| Mistake {
            origin: origin(error.span().map_or(0, |span| span.start)),
            message: error.message().to_owned(),
        }));
        for (section, content) in table.get_ref() {
            let at = section.span().start;
            let Some(fields) = content
                .get_ref()
                .as_table()
                .filter(|_| is_section(section.get_ref()))
            else {
                mistakes.push(Mistake {
                    origin: origin(at),
                    message: unknown_section(section.get_ref()),
                });
                continue;
            };
            for (name, value) in fields {
                let origin = origin(name.span().start);
                let key = format!("{}.{}", section.get_ref(), name.get_ref());
                match setting(&key) {
                    None => mistakes.push(Mistake {
                        origin,
                        message: unknown(&key),
                    }),
                    Some(setting) => match written(setting.shape, value) {
                        Ok(values) => self.set(setting.key, &values, origin, mistakes),
                        Err(message) => mistakes.push(Mistake {
                            origin,
                            message: format!("{key} {message}"),
                        }),
                    },
                }
            }
        }
        mistakes.sort_by_key(|mistake| match mistake.origin {
            Origin::File { line, .. } => line,
            _ => 0,
        });
    }

    fn read_variables(&mut self, variables: &[(String, String)], mistakes: &mut Vec<Mistake>) {
        for (name, value) in variables {
            let Some(path) = name.strip_prefix("CLAVIGER__") else {
                continue;
            };
            let origin = Origin::Variable(name.clone());
            let key = path.to_ascii_lowercase().replacen("__", ".", 1);
            match setting(&key) {
                Some(setting) => {
                    self.set(setting.key, &split(setting.shape, value), origin, mistakes);
                }
                None => mistakes.push(Mistake {
                    origin,
                    message: unknown(&key),
                }),
            }
        }
        for (common, key) in COMMON {
            let found = variables
                .iter()
                .find(|(name, value)| name == common && !value.is_empty());
            if let Some((_, value)) = found {
                let origin = Origin::Variable(common.to_owned());
                self.set(key, std::slice::from_ref(value), origin, mistakes);
            }
        }
        for setting in SETTINGS {
            if let Some((_, value)) = variables.iter().find(|(name, _)| name == setting.variable) {
                let origin = Origin::Variable(setting.variable.to_owned());
                self.set(setting.key, &split(setting.shape, value), origin, mistakes);
            }
        }
    }

    fn set(&mut self, key: &str, values: &[String], origin: Origin, mistakes: &mut Vec<Mistake>) {
        let Some(setting) = setting(key) else { return };
        let borrowed: Vec<&str> = values.iter().map(String::as_str).collect();
        match (setting.set)(&mut self.config, &borrowed) {
            Ok(()) => self.origins.push((setting.key, origin)),
            Err(message) => mistakes.push(Mistake {
                origin,
                message: format!("{key}: {message}"),
            }),
        }
    }
}

/// A parser for clap that takes what the setting takes, so that a mistake in an option is a usage error.
pub(crate) fn checked(
    key: &'static str,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| match setting(key) {
        Some(setting) => (setting.set)(&mut Config::default(), &[text]).map(|()| text.to_owned()),
        None => Err(unknown(key)),
    }
}

/// All mistakes as one failure.
pub(crate) fn report(mistakes: &[Mistake]) -> Failure {
    let lines: Vec<String> = mistakes
        .iter()
        .map(|mistake| format!("{}: {}", mistake.origin, mistake.message))
        .collect();
    let reason = match lines.as_slice() {
        [line] => line.clone(),
        lines => format!(
            "the configuration has {} mistakes\n  {}",
            lines.len(),
            lines.join("\n  ")
        ),
    };
    Failure::new(reason)
        .code("config_invalid")
        .hint("`claviger config check` shows the settings and where each comes from")
}

/// The environment's variables of ours that are text; others are nobody's configuration.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| {
            name.starts_with("CLAVIGER_") || COMMON.iter().any(|(common, _)| name == common)
        })
        .collect()
}

fn implied_file(
    variables: &[(String, String)],
    overrides: &Overrides,
) -> anyhow::Result<Option<(PathBuf, String)>> {
    let variable = |wanted: &str| {
        variables
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| PathBuf::from(value))
    };
    if let Some(path) = variable("CLAVIGER_CONFIG") {
        let text = read_text(&path)?;
        return Ok(Some((path, text)));
    }
    let given = overrides
        .iter()
        .find(|(key, _, _)| *key == "server.data")
        .and_then(|(_, _, values)| values.first());
    let data = DataDir::or_default(
        given
            .map(PathBuf::from)
            .or_else(|| variable("CLAVIGER_DATA")),
    )?;
    let path = data.path().join("claviger.toml");
    if !path.is_file() {
        return Ok(None);
    }
    let text = read_text(&path)?;
    Ok(Some((path, text)))
}

fn read_text(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!(
            "cannot read the configuration {}: {error}",
            path.display()
        ))
        .hint("name a readable TOML file with --config FILE, or leave the option out")
    })
}

fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

fn is_section(name: &str) -> bool {
    SETTINGS.iter().any(|setting| {
        setting
            .key
            .split_once('.')
            .is_some_and(|(section, _)| section == name)
    })
}

fn unknown_section(name: &str) -> String {
    let mut sections: Vec<&str> = SETTINGS
        .iter()
        .filter_map(|setting| setting.key.split_once('.'))
        .map(|(section, _)| section)
        .collect();
    sections.dedup();
    format!(
        "`{}` is no section; there are: {}",
        quoted(name),
        sections.join(", ")
    )
}

fn unknown(key: &str) -> String {
    let section = key.split_once('.').map_or(key, |(section, _)| section);
    let siblings: Vec<&str> = SETTINGS
        .iter()
        .map(|setting| setting.key)
        .filter(|known| known.split_once('.').is_some_and(|(of, _)| of == section))
        .collect();
    if siblings.is_empty() {
        return unknown_section(section);
    }
    format!(
        "`{}` is no setting; there are: {}",
        quoted(key),
        siblings.join(", ")
    )
}

fn quoted(text: &str) -> String {
    crate::output::clean(&text.chars().take(MAX_QUOTED).collect::<String>())
}

fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// The value's text, if it is written as the setting's shape wants it.
fn written(shape: Shape, value: &Spanned<DeValue<'_>>) -> Result<Vec<String>, String> {
    let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
    let value = value.get_ref();
    match shape {
        Shape::Text => text(value).map(|text| vec![text]).ok_or("takes a string"),
        Shape::Integer => value
            .as_integer()
            .map(|number| vec![number.as_str().to_owned()])
            .ok_or("takes a whole number"),
        Shape::Boolean => value
            .as_bool()
            .map(|flag| vec![flag.to_string()])
            .ok_or("takes true or false"),
        Shape::List => value
            .as_array()
            .and_then(|items| {
                items
                    .iter()
                    .map(|item| text(item.get_ref()))
                    .collect::<Option<Vec<_>>>()
            })
            .ok_or("takes a list of strings"),
    }
    .map_err(|message| format!("{message}, not {}", value.type_str()))
}

/// A variable holds a list with commas between its items.
fn split(shape: Shape, value: &str) -> Vec<String> {
    match shape {
        Shape::List => value
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(str::to_owned)
            .collect(),
        Shape::Text | Shape::Integer | Shape::Boolean => vec![value.to_owned()],
    }
}

fn one<'a>(values: &[&'a str]) -> Result<&'a str, String> {
    match values {
        [value] => Ok(value),
        _ => Err("takes one value".to_owned()),
    }
}

fn each<T>(items: &[&str], parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    items.iter().map(|item| parse(item)).collect()
}

fn path(values: &[&str]) -> Result<PathBuf, String> {
    match one(values)? {
        "" => Err("an empty path names nothing".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

fn address(values: &[&str]) -> Result<SocketAddr, String> {
    let text = one(values)?;
    text.parse()
        .map_err(|_| format!("`{text}` is no address and port, as 127.0.0.1:8181 or [::1]:8181"))
}

fn workers(values: &[&str]) -> Result<usize, String> {
    let text = one(values)?;
    match text.parse() {
        Ok(workers @ 1..=1024) => Ok(workers),
        _ => Err(format!("`{text}` is no number of threads from 1 to 1024")),
    }
}

fn count(values: &[&str]) -> Result<NonZeroU32, String> {
    let text = one(values)?;
    text.parse()
        .map_err(|_| format!("`{text}` is no number from 1 to {}", u32::MAX))
}

/// A count, or 0 for none.
fn count_or_none(values: &[&str]) -> Result<Option<NonZeroU32>, String> {
    match one(values)? {
        "0" => Ok(None),
        _ => count(values).map(Some),
    }
}

/// What [`count_or_none`] reads, as it is written.
fn none_as_0(count: Option<NonZeroU32>) -> Value {
    json!(count.map_or(0, NonZeroU32::get))
}

fn rate_time(values: &[&str]) -> Result<Duration, String> {
    match duration(values)? {
        over if !(Duration::from_secs(1)..=Duration::from_mins(10)).contains(&over) => {
            Err("is 1s to 10m".to_owned())
        }
        over => Ok(over),
    }
}

fn duration(values: &[&str]) -> Result<Duration, String> {
    units::duration(one(values)?)
}

fn cache_ttl(values: &[&str]) -> Result<Duration, String> {
    match duration(values)? {
        // A disabled or destroyed key has to stop injections within this time.
        ttl if ttl > Duration::from_mins(1) => {
            Err("is at most 60s; 0s opens the secret on every use".to_owned())
        }
        ttl => Ok(ttl),
    }
}

fn boolean(values: &[&str]) -> Result<bool, String> {
    match one(values)? {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        text => Err(format!("`{text}` is neither true nor false")),
    }
}

fn database(values: &[&str]) -> Result<Location, String> {
    let text = one(values)?;
    let file = text
        .strip_prefix("sqlite:")
        .filter(|rest| !rest.starts_with("//"));
    // A URL may carry a password, so no message repeats it.
    Location::parse(file.unwrap_or(text)).map_err(|error| error.to_string())
}

fn node(values: &[&str]) -> Result<String, String> {
    let text = one(values)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=MAX_NODE).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "takes 1 to {MAX_NODE} of the characters A-Z a-z 0-9 - _ ."
        ))
    }
}

fn url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        _ => Err("is no URL, as https://10.0.0.7:8181".to_owned()),
    }
}

fn upstream_proxy(values: &[&str]) -> Result<Url, String> {
    // It may carry a password, so no message repeats it.
    let shape = "is no URL of a proxy, as http://proxy.corp.example:3128 or http://USER@proxy.corp.example:3128";
    let url = Url::parse(one(values)?).map_err(|_| shape.to_owned())?;
    if url.password().is_some() {
        return Err(
            "carries a password, which others can read; give it as network.upstream_proxy_password_file"
                .to_owned(),
        );
    }
    let is_plain = url.scheme() == "http"
        && url.has_host()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    if is_plain {
        Ok(url)
    } else {
        Err(shape.to_owned())
    }
}

fn tls_name(text: &str) -> Result<String, String> {
    rustls::pki_types::ServerName::try_from(text)
        .map(|_| text.to_owned())
        .map_err(|_| format!("`{text}` is no name or address that a certificate can carry"))
}

fn key_provider(text: &str) -> Result<KeyProvider, String> {
    [
        KeyProvider::Software,
        KeyProvider::Pkcs11,
        KeyProvider::GcpKms,
    ]
    .into_iter()
    .find(|provider| provider.name() == text)
    .ok_or_else(|| format!("`{text}` is neither software, pkcs11 nor gcp-kms"))
}

fn slot(values: &[&str]) -> Result<u64, String> {
    let text = one(values)?;
    text.parse()
        .map_err(|_| format!("`{text}` is no number of a slot"))
}

fn sessions(values: &[&str]) -> Result<usize, String> {
    let text = one(values)?;
    match text.parse() {
        Ok(sessions @ 1..=64) => Ok(sessions),
        _ => Err(format!("`{text}` is no number of sessions from 1 to 64")),
    }
}

fn key_ring(values: &[&str]) -> Result<String, String> {
    let text = one(values)?;
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        ["projects", p, "locations", l, "keyRings", r]
            if !(p.is_empty() || l.is_empty() || r.is_empty()) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "`{text}` is no key ring, as projects/PROJECT/locations/LOCATION/keyRings/RING"
        )),
    }
}

fn durability(values: &[&str]) -> Result<Durability, String> {
    match one(values)? {
        "synced" => Ok(Durability::Synced),
        "committed" => Ok(Durability::Committed),
        text => Err(format!("`{text}` is neither synced nor committed")),
    }
}

fn sign_up(values: &[&str]) -> Result<SignUp, String> {
    match one(values)? {
        "closed" => Ok(SignUp::Closed),
        "open" => Ok(SignUp::Open),
        text => Err(format!("`{text}` is neither closed nor open")),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("`{text}` is no network, as 10.0.0.0/8 or fd00::/8"))
}

fn level(values: &[&str]) -> Result<String, String> {
    let text = one(values)?;
    tracing_subscriber::EnvFilter::try_new(text).map_err(|error| {
        format!("`{text}` is no log filter ({error}), as info or info,proxy=debug")
    })?;
    Ok(text.to_owned())
}

fn log_format(values: &[&str]) -> Result<LogFormat, String> {
    match one(values)? {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        text => Err(format!("`{text}` is neither text nor json")),
    }
}

fn texts(values: &[impl fmt::Display]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn shown(value: Option<impl fmt::Display>) -> Value {
    value.map_or(Value::Null, |value| Value::String(value.to_string()))
}

fn span(duration: Duration) -> Value {
    Value::String(humantime::format_duration(duration).to_string())
}

#[cfg(test)]
mod tests;
