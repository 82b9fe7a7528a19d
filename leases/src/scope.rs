//! What may be leased: kinds, actions, keys, and the limits on hosts, methods, paths, clients and time.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use crate::{
    approval::ApprovalRule,
    aws::AwsScope,
    github::{GithubLevel, GithubScope},
    glob::{GlobError, PathGlob},
    host::{HostError, HostPattern, Scheme},
    window::{TimeOfDay, TimeWindow, Weekday, WindowError, Zone},
};

/// How often a lease may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Once.
    Request,
    /// Many times within its limits.
    Workflow,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Request, Self::Workflow];

    /// The name in JSON and in tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Workflow => "workflow",
        }
    }
}

/// What a grant or a lease lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Have requests injected.
    ProxyUse,
    /// Mint leases that are used many times.
    MintWorkflowLease,
    /// Get the plaintext.
    ExportPlaintext,
    /// Read.
    Read,
    /// Write.
    Write,
    /// Delete.
    Delete,
}

impl Action {
    const ALL: [Self; 6] = [
        Self::ProxyUse,
        Self::MintWorkflowLease,
        Self::ExportPlaintext,
        Self::Read,
        Self::Write,
        Self::Delete,
    ];

    /// The name in JSON and in tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProxyUse => "proxy_use",
            Self::MintWorkflowLease => "mint_workflow_lease",
            Self::ExportPlaintext => "export_plaintext",
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
        }
    }
}

/// A word that names no member of a closed list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no {what}; known are {known}")]
pub struct UnknownName {
    what: &'static str,
    found: String,
    known: String,
}

macro_rules! names {
    ($($name:ident, $what:literal;)*) => {$(
        impl FromStr for $name {
            type Err = UnknownName;

            fn from_str(text: &str) -> Result<Self, UnknownName> {
                Self::ALL.into_iter().find(|known| known.as_str() == text).ok_or_else(|| UnknownName {
                    what: $what,
                    found: text.to_owned(),
                    known: Self::ALL.map(Self::as_str).join(", "),
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

names! {
    Kind, "kind of lease";
    Action, "action";
}

/// Which keys of a secret set a grant or a lease covers: `"*"` or a list in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Keys {
    /// All of them, also those that the set gets later.
    All,
    /// These.
    Only(Vec<String>),
}

impl Keys {
    /// Whether the key is covered.
    pub fn allows(&self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.iter().any(|known| known == key),
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Only(keys) => f.write_str(&keys.join(", ")),
        }
    }
}

impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("*"),
            Self::Only(keys) => keys.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "keys are \"*\" or a list of names")]
        enum Form {
            Word(String),
            List(Vec<String>),
        }
        match Form::deserialize(deserializer)? {
            Form::Word(word) if word == "*" => Ok(Self::All),
            Form::Word(word) => Err(de::Error::custom(format!(
                "keys are \"*\" or a list of names, not the word `{word}`"
            ))),
            Form::List(keys) => Ok(Self::Only(keys)),
        }
    }
}

/// The methods that a scope may name: RFC 9110, PATCH (RFC 5789), QUERY, and `WebDAV` (RFC 4918, 3253, 5323).
const METHODS: [&str; 17] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
];

/// A method that a scope may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MethodName(&'static str);

/// Why a text is no method that a scope may name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// TRACE and CONNECT: the first reflects credentials, the second opens a tunnel in the tunnel.
    #[error("method {0} is never allowed")]
    Never(String),
    /// A known method in another case; methods are case-sensitive (RFC 9110 section 9.1).
    #[error("method `{0}` is written in upper case")]
    Case(String),
    /// Any other text.
    #[error("`{0}` is no method that is known here")]
    Unknown(String),
}

impl MethodName {
    /// Reads a method.
    ///
    /// # Errors
    /// [`MethodError`] for TRACE and CONNECT, for lower case, and for a method that is not known here.
    pub fn parse(text: &str) -> Result<Self, MethodError> {
        if let Some(known) = METHODS.into_iter().find(|known| *known == text) {
            return Ok(Self(known));
        }
        let upper = text.to_ascii_uppercase();
        if is_forbidden_method(&upper) {
            Err(MethodError::Never(upper))
        } else if METHODS.contains(&upper.as_str()) {
            Err(MethodError::Case(text.to_owned()))
        } else {
            Err(MethodError::Unknown(text.to_owned()))
        }
    }

    /// The method.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Methods that no lease covers.
pub(crate) fn is_forbidden_method(method: &str) -> bool {
    matches!(method, "TRACE" | "CONNECT" | "TRACK")
}

/// The limits of a grant, and the `constraints` object of the API. An empty list is no limit.
///
/// JSON: `{hosts[], methods[], paths[], cidrs[], time_window, cleartext, aws, github, approval}`, each optional, no other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// Hosts, within those of the set's template.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "hosts")]
    pub hosts: Vec<HostPattern>,
    /// Methods, as [`MethodName`] reads them.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "methods")]
    pub methods: Vec<String>,
    /// Paths.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "paths")]
    pub paths: Vec<PathGlob>,
    /// Networks of the client.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "cidrs")]
    pub cidrs: Vec<IpNet>,
    /// When.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "time_window"
    )]
    pub time_window: Option<TimeWindow>,
    /// Whether the credential may leave without TLS.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cleartext: bool,
    /// What is asked of AWS, for sets that sign.
    #[serde(skip_serializing_if = "AwsScope::is_default")]
    pub aws: AwsScope,
    /// What waits for a person.
    #[serde(
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::approval::read"
    )]
    pub approval: Option<ApprovalRule>,
    /// What tokens of a GitHub App may do, for sets that make them.
    #[serde(skip_serializing_if = "GithubScope::is_default")]
    pub github: GithubScope,
}

impl Scope {
    /// The most entries of one list.
    pub const MAX_ENTRIES: usize = 64;

    /// Whether nothing is limited, and nothing but TLS is let through.
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// Whether all that this scope allows is allowed by `parent`.
    ///
    /// It looks at the patterns and not at all that they match, so it may say no where the answer is yes, never the
    /// reverse.
    pub fn narrows(&self, parent: &Self) -> bool {
        within(&self.hosts, &parent.hosts, |parent, host| {
            parent.covers(host)
        }) && within(&self.methods, &parent.methods, |parent, method| {
            parent == method
        }) && within(&self.paths, &parent.paths, |parent, path| {
            parent.covers(path)
        }) && within(&self.cidrs, &parent.cidrs, |parent, net| {
            crate::net::canonical(*parent).contains(&crate::net::canonical(*net))
        }) && (parent.time_window.is_none() || self.time_window == parent.time_window)
            && (parent.cleartext || !self.cleartext)
            && self.aws.narrows(&parent.aws)
            && parent.approval.as_ref().is_none_or(|parent| {
                let own = self.approval.as_ref();
                own.is_some_and(|own| own.narrows(parent))
            })
            && self.github.narrows(&parent.github)
    }

    /// Whether its networks take a request from this client.
    pub fn takes_client(&self, client: IpAddr) -> bool {
        self.cidrs.is_empty()
            || self
                .cidrs
                .iter()
                .any(|net| crate::net::contains(net, client))
    }

    /// Checks what the types do not: methods and the lengths of lists.
    pub(crate) fn check(&self) -> Result<(), ScopeError> {
        for method in &self.methods {
            MethodName::parse(method)?;
        }
        for (field, length) in [
            ("hosts", self.hosts.len()),
            ("methods", self.methods.len()),
            ("paths", self.paths.len()),
            ("cidrs", self.cidrs.len()),
        ] {
            if length > Self::MAX_ENTRIES {
                return Err(ScopeError::TooMany { field });
            }
        }
        Ok(())
    }
}

/// Why a scope is none, beyond what its fields' types say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// A method that a scope may not name.
    #[error("methods: {0}")]
    Method(#[from] MethodError),
    /// A list that is too long.
    #[error("{field}: at most {} entries", Scope::MAX_ENTRIES)]
    TooMany {
        /// The list.
        field: &'static str,
    },
}

/// Whether every child is covered by some parent. No parents are no limit, and no children then are wider than some.
fn within<T>(children: &[T], parents: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    parents.is_empty()
        || (!children.is_empty()
            && children
                .iter()
                .all(|child| parents.iter().any(|parent| covers(parent, child))))
}

/// Reads a list of texts, and says the field and the entry of the first mistake.
fn list<'de, D, T, E>(
    deserializer: D,
    field: &'static str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    E: fmt::Display,
{
    let texts = Vec::<String>::deserialize(deserializer)
        .map_err(|error| de::Error::custom(format_args!("{field}: {error}")))?;
    if texts.len() > Scope::MAX_ENTRIES {
        return Err(de::Error::custom(ScopeError::TooMany { field }));
    }
    texts
        .iter()
        .enumerate()
        .map(|(at, text)| {
            parse(text).map_err(|error| de::Error::custom(format_args!("{field}[{at}]: {error}")))
        })
        .collect()
}

fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HostPattern>, D::Error> {
    list(deserializer, "hosts", HostPattern::parse)
}

fn methods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    list(deserializer, "methods", |text| {
        MethodName::parse(text).map(|method| method.as_str().to_owned())
    })
}

fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathGlob>, D::Error> {
    list(deserializer, "paths", PathGlob::parse)
}

fn cidrs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    list(deserializer, "cidrs", parse_cidr)
}

fn time_window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TimeWindow>, D::Error> {
    Option::deserialize(deserializer)
        .map_err(|error: D::Error| de::Error::custom(format_args!("time_window: {error}")))
}

/// Reads a network, `10.0.0.0/8`, or an address, which is a network of one.
///
/// # Errors
/// A text that says so, also where bits stand after the network's length.
pub fn parse_cidr(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .parse()
        .or_else(|_| {
            text.parse()
                .map(|address: std::net::IpAddr| IpNet::from(address))
        })
        .map_err(|_| {
            format!("`{text}` is no network; write it like 10.0.0.0/8 or 2001:db8::/32")
        })?;
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!(
            "`{text}` has bits set after its length; did you mean {}?",
            net.trunc()
        ))
    }
}

#[cfg(test)]
mod tests;
