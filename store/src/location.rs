//! Where the database is: a SQLite file, or a Postgres server by its URL.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// Where a store keeps its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file on this machine, for one process.
    Sqlite(PathBuf),
    /// A server, for any number of processes.
    Postgres(PostgresUrl),
}

/// A Postgres server, database and user, and how TLS to it is verified.
///
/// Neither `Debug` nor `Display` shows the password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    config: Box<Config>,
    tls: Tls,
}

/// Whether a connection is encrypted, and by whose word the server is who it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tls {
    /// In the clear: through a unix socket or on this machine alone.
    Off,
    /// Chain and name are verified against the system's roots.
    SystemRoots,
    /// Chain and name are verified against the roots in this PEM file.
    RootsIn(PathBuf),
}

/// Why a text names no database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocationError {
    /// Nothing is named.
    #[error("the database is empty; give a file or a URL: postgres://user@host/database")]
    Empty,
    /// A URL of another database.
    #[error("{scheme}:// is no database that is supported; use postgres:// or sqlite:")]
    Scheme {
        /// What stands before `://`.
        scheme: String,
    },
    /// Not a Postgres URL.
    #[error("the Postgres URL cannot be read: {reason}")]
    Url {
        /// What is wrong, without the URL, which may hold a password.
        reason: String,
    },
    /// A parameter that is not supported here.
    #[error("the Postgres URL has a parameter that is not supported; supported are {known}", known = PARAMETERS.join(", "))]
    Parameter,
    /// Another database host would be spoken to in the clear.
    #[error(
        "sslmode=disable sends passwords and secrets to {host} in the clear; leave sslmode out, and name the server's CA by sslrootcert=FILE if it is your own"
    )]
    InTheClear {
        /// The host that is not this machine.
        host: String,
    },
    /// A mode that encrypts without knowing to whom.
    #[error(
        "sslmode={mode} does not verify the server; use sslmode=verify-full, with sslrootcert=FILE if the server's CA is your own"
    )]
    Unverified {
        /// The mode asked for.
        mode: &'static str,
    },
    /// No mode of that name.
    #[error("sslmode is verify-full or disable")]
    Mode,
}

/// What a URL may say after `?`. The first two are read here, the rest by the client.
const PARAMETERS: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "host",
    "hostaddr",
    "port",
    "user",
    "password",
    "dbname",
    "application_name",
    "connect_timeout",
    "channel_binding",
];
/// How long one attempt to connect may take, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long what was sent may stay unanswered by the other machine before the connection counts as dead.
const PEER_SILENCE: Duration = Duration::from_secs(5);

impl Location {
    /// Reads `postgres://…`, `postgresql://…`, `sqlite:…` or the path of a file.
    ///
    /// # Errors
    /// [`LocationError`].
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        if text.is_empty() {
            return Err(LocationError::Empty);
        }
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(LocationError::Empty),
                path => Ok(Self::Sqlite(path.into())),
            };
        }
        match text.split_once("://") {
            None => Ok(Self::Sqlite(text.into())),
            Some(("postgres" | "postgresql", _)) => text.parse().map(Self::Postgres),
            Some((scheme, _)) => Err(LocationError::Scheme {
                scheme: scheme.to_owned(),
            }),
        }
    }

    /// The file, if it is one.
    pub fn as_file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        Self::parse(text)
    }
}

impl FromStr for PostgresUrl {
    type Err = LocationError;

    /// Reads `postgres://user:password@host:port/database?parameters`.
    ///
    /// Without `sslmode`, TLS is verified in full (`verify-full`) unless every host is this
    /// machine. `sslrootcert` names a PEM file of roots; without it, or as `system`, the system's
    /// are taken.
    fn from_str(text: &str) -> Result<Self, LocationError> {
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let mut mode = None;
        let mut roots = None;
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "sslmode" => mode = Some(value),
                "sslrootcert" => roots = Some(decoded(value)?),
                name if PARAMETERS.contains(&name) => rest.push(parameter),
                _ => return Err(LocationError::Parameter),
            }
        }
        let mut config: Config = format!("{base}?{}", rest.join("&"))
            .parse()
            .map_err(|error| LocationError::Url {
                reason: reason(&error),
            })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(LocationError::Url {
                reason: "it names no host".to_owned(),
            });
        }
        let tls = tls(&config, mode, roots)?;
        config.ssl_mode(match tls {
            Tls::Off => SslMode::Disable,
            Tls::SystemRoots | Tls::RootsIn(_) => SslMode::Require,
        });
        // After a failover the old primary may come back as a replica, which knows less.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.keepalives_idle(PEER_SILENCE);
        config.tcp_user_timeout(PEER_SILENCE);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("claviger");
        }
        Ok(Self {
            config: Box::new(config),
            tls,
        })
    }
}

impl PostgresUrl {
    /// The same server with a password that came by another way than the URL, such as a file.
    #[must_use]
    pub fn with_password(mut self, password: &[u8]) -> Self {
        self.config.password(password);
        self
    }

    /// Whether it names a password.
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// What the client connects by.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// How the connection is protected.
    pub(crate) const fn tls(&self) -> &Tls {
        &self.tls
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{user}@")?;
        }
        let ports = self.config.get_ports();
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match host {
                Host::Tcp(name) => f.write_str(name)?,
                Host::Unix(path) => path.display().fmt(f)?,
            }
            if let Some(port) = ports.get(index).or_else(|| ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// What the client says of a text, without the text.
fn reason(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn decoded(value: &str) -> Result<String, LocationError> {
    percent_encoding::percent_decode_str(value)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| LocationError::Url {
            reason: "sslrootcert is no text".to_owned(),
        })
}

fn tls(config: &Config, mode: Option<&str>, roots: Option<String>) -> Result<Tls, LocationError> {
    let verified = match roots {
        Some(path) if path != "system" => Tls::RootsIn(path.into()),
        _ => Tls::SystemRoots,
    };
    let elsewhere = elsewhere(config);
    match (mode, elsewhere) {
        (Some("verify-full"), _) | (None, Some(_)) => Ok(verified),
        (None | Some("disable"), None) => Ok(Tls::Off),
        (Some("disable"), Some(host)) => Err(LocationError::InTheClear { host }),
        (Some(mode), _) => Err(["allow", "prefer", "require", "verify-ca"]
            .into_iter()
            .find(|known| *known == mode)
            .map_or(LocationError::Mode, |mode| LocationError::Unverified {
                mode,
            })),
    }
}

/// The first host that is not this machine.
fn elsewhere(config: &Config) -> Option<String> {
    let is_here = |name: &str| {
        name == "localhost"
            || name
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    };
    // An address is dialled in the place of its host's name.
    if let Some(address) = config
        .get_hostaddrs()
        .iter()
        .find(|address| !address.is_loopback())
    {
        return Some(address.to_string());
    }
    if !config.get_hostaddrs().is_empty() {
        return None;
    }
    config.get_hosts().iter().find_map(|host| match host {
        Host::Tcp(name) if !is_here(name) => Some(name.clone()),
        Host::Tcp(_) | Host::Unix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres(text: &str) -> PostgresUrl {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_and_a_sqlite_url_name_a_file() {
        for text in [
            "/var/lib/a.db",
            "sqlite:///var/lib/a.db",
            "sqlite:/var/lib/a.db",
        ] {
            let location = Location::parse(text).unwrap();
            assert_eq!(location.as_file(), Some(Path::new("/var/lib/a.db")));
        }
    }

    #[test]
    fn other_databases_and_nothing_are_refused() {
        assert_eq!(Location::parse(""), Err(LocationError::Empty));
        assert_eq!(Location::parse("sqlite://"), Err(LocationError::Empty));
        let refused = Location::parse("mysql://root@host/db").unwrap_err();
        assert!(matches!(refused, LocationError::Scheme { scheme } if scheme == "mysql"));
    }

    #[test]
    fn another_host_is_verified_and_this_machine_is_spoken_to_in_the_clear() {
        let tls = |text: &str| postgres(text).tls;
        assert_eq!(tls("postgres://a@db.example.com/c"), Tls::SystemRoots);
        assert_eq!(tls("postgresql://a@10.0.0.1/c"), Tls::SystemRoots);
        let own = tls("postgres://a@db.example.com/c?sslrootcert=%2Fetc%2Fca.pem");
        assert_eq!(own, Tls::RootsIn("/etc/ca.pem".into()));
        for here in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            assert_eq!(tls(&format!("postgres://a@{here}/c")), Tls::Off, "{here}");
        }
        let asked = tls("postgres://a@localhost/c?sslmode=verify-full");
        assert_eq!(asked, Tls::SystemRoots);
        // One host of several that is elsewhere is enough.
        assert_eq!(tls("postgres://a@localhost,db/c"), Tls::SystemRoots);
        let dialled = tls("postgres://a@localhost/c?hostaddr=10.0.0.1");
        assert_eq!(dialled, Tls::SystemRoots);
    }

    #[test]
    fn what_does_not_verify_another_host_is_refused_with_a_hint() {
        let refused = |mode: &str| {
            Location::parse(&format!("postgres://a:hunter2@db/c?sslmode={mode}")).unwrap_err()
        };
        let clear = refused("disable");
        assert!(matches!(&clear, LocationError::InTheClear { host } if host == "db"));
        assert!(clear.to_string().contains("sslrootcert"));
        for mode in ["allow", "prefer", "require", "verify-ca"] {
            assert_eq!(refused(mode), LocationError::Unverified { mode });
        }
        assert_eq!(refused("hunter2"), LocationError::Mode);
    }

    #[test]
    fn no_password_is_shown_whether_the_url_is_good_or_not() {
        let url = postgres("postgres://ada:hunter2@db:6432/claviger");
        assert!(url.has_password());
        assert_eq!(url.to_string(), "postgres://ada@db:6432/claviger");
        assert!(!format!("{url:?}").contains("hunter2"));
        for bad in [
            "postgres://ada:hunter2@db:port/claviger",
            "postgres://ada:hunter2@/claviger",
            "postgres://ada:x?hunter2=y@db/claviger",
            "postgres://ada:hunter2@db/claviger?connect_timeout=hunter2",
        ] {
            let refused = Location::parse(bad).unwrap_err();
            assert!(
                !format!("{refused} {refused:?}").contains("hunter2"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_password_may_come_by_another_way() {
        let url = postgres("postgres://ada@db/claviger");
        assert!(!url.has_password());
        assert!(url.with_password(b"hunter2").has_password());
    }
}
