//! A provider as typed data: where its credentials may go, and in which slots of a request.
//!
//! A [`Template`] is only made by [`crate::load`], so holding one means that it has no mistakes.

use std::collections::BTreeMap;

use http::HeaderName;

use crate::deny::Denial;
use crate::host::{HostRule, Scheme};

/// How a key of a secret set may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyUse {
    /// The set must hold it, and it travels to the provider.
    Required,
    /// It travels when the set holds it; what needs it is left out otherwise.
    Optional,
    /// It is stored and exported beside the others and never travels (a webhook's signing secret).
    NeverSent,
}

/// A provider: its hosts, its keys, and how a request to it carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(crate) name: String,
    pub(crate) docs: String,
    pub(crate) hosts: Vec<HostRule>,
    pub(crate) keys: BTreeMap<String, KeyUse>,
    pub(crate) identifiers: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) placeholders: BTreeMap<String, String>,
    pub(crate) strip: Vec<HeaderName>,
    pub(crate) strip_query: Vec<String>,
    pub(crate) encoded_slash: bool,
    pub(crate) injections: Vec<Injection>,
    pub(crate) denials: Vec<Denial>,
    pub(crate) presets: BTreeMap<String, Preset>,
}

/// Limits that a grant can name instead of writing them out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preset {
    /// What it is for, in a sentence.
    pub about: String,
    /// Hosts; empty is no limit.
    pub hosts: Vec<HostRule>,
    /// Methods; empty is no limit.
    pub methods: Vec<String>,
    /// Path globs as a grant has them; empty is no limit.
    pub paths: Vec<String>,
}

/// One slot of a request, and when it is filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// What is set.
    pub inject: Inject,
    /// The hosts it is set on; empty is every host of the template.
    pub hosts: Vec<HostRule>,
    /// The paths it is set on; empty is every path.
    pub paths: Vec<PathPattern>,
}

/// The ways in which a credential enters a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inject {
    /// A header field: `authorization: Bearer ${KEY}`.
    Header {
        /// The field's name.
        name: HeaderName,
        /// Its value.
        value: Text,
    },
    /// HTTP Basic, RFC 7617: `authorization: Basic base64(user:password)`.
    Basic {
        /// The user, in which a colon cannot stand.
        user: Text,
        /// The password.
        password: Text,
    },
    /// A query parameter, for providers that take nothing else.
    Query {
        /// The parameter's name.
        name: String,
        /// Its value, percent-encoded when it is set.
        value: Text,
    },
    /// AWS Signature Version 4 in the `authorization` header.
    SigV4(SigV4Keys),
}

/// The keys that sign, and what they may sign for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigV4Keys {
    /// The name of the key that holds the access key id.
    pub access_key_id: String,
    /// The name of the key that holds the secret access key. It never travels.
    pub secret_access_key: String,
    /// The name of the key that holds a session token.
    pub session_token: Option<String>,
    /// The name of the key that holds the regions, comma-separated, that the set may sign for.
    pub region: Option<String>,
    /// The regions that the template may sign for; empty is what the host says.
    pub regions: Vec<String>,
    /// The services that the template may sign for; empty is what the host says.
    pub services: Vec<String>,
}

/// Text with `${KEY}` references, parsed once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub(crate) Vec<Piece>);

/// A part of a [`Text`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Sent as it stands.
    Literal(String),
    /// Replaced by the value of the named key.
    Key(String),
}

/// A path with `*` for one whole segment and `**` for any number of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern(pub(crate) String);

impl Template {
    /// The name that sets are filed under: `stripe`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the vendor describes its authentication.
    pub fn docs(&self) -> &str {
        &self.docs
    }

    /// Where the credentials may go, and nowhere else.
    pub fn hosts(&self) -> &[HostRule] {
        &self.hosts
    }

    /// Every key that the template knows, with its use.
    pub fn keys(&self) -> &BTreeMap<String, KeyUse> {
        &self.keys
    }

    /// Keys that name an account and open nothing (`TWILIO_ACCOUNT_SID`). They stand in the provider's own
    /// answers by design, so responses are not scrubbed of them.
    pub fn identifiers(&self) -> &[String] {
        &self.identifiers
    }

    /// The environment variables by which the provider's own tools take a key: variable to key.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// Names of the keys that some slot uses, sorted: those that a request may be sent with.
    pub fn sent_keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self
            .injections
            .iter()
            .flat_map(|injection| injection.inject.keys())
            .map(str::to_owned)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Whether `%2F` may stand in a path: in the provider's API it is part of a segment and never a separator
    /// (GitLab's `/projects/group%2Fproject`). Everywhere else it is refused, since servers differ.
    pub fn allows_encoded_slash(&self) -> bool {
        self.encoded_slash
    }

    /// The presets by name.
    pub fn presets(&self) -> &BTreeMap<String, Preset> {
        &self.presets
    }

    /// What is set in a request, in the order of the file.
    pub fn injections(&self) -> &[Injection] {
        &self.injections
    }

    /// The rule by which this template sends credentials to an endpoint, if it does at all.
    ///
    /// `host` is canonical, as [`crate::Host`] makes it.
    pub fn endpoint(&self, scheme: Scheme, host: &str, port: u16) -> Option<&HostRule> {
        self.hosts
            .iter()
            .find(|rule| rule.matches(scheme, host, port))
    }

    /// Every header that holds a credential at this provider: filled, or taken from the agent, or both.
    pub fn secret_slots(&self) -> Vec<HeaderName> {
        crate::inject::slots(self)
    }
}

impl Injection {
    /// Whether the slot is filled on this host and path.
    pub fn applies(&self, host: &str, path: &str) -> bool {
        (self.hosts.is_empty() || self.hosts.iter().any(|rule| rule.matches_name(host)))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }
}

impl Text {
    /// The pieces in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// The keys that it refers to.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Key(name) => Some(name.as_str()),
            Piece::Literal(_) => None,
        })
    }
}

impl PathPattern {
    /// Whether a path (without its query) is meant.
    ///
    /// Time is bounded by the product of the segments of both, whatever they hold.
    pub fn matches(&self, path: &str) -> bool {
        let pattern: Vec<&str> = self.0.split('/').collect();
        let path: Vec<&str> = path.split('/').collect();
        let (mut p, mut s, mut retry) = (0, 0, None);
        while s < path.len() {
            match pattern.get(p) {
                Some(&"**") => {
                    retry = Some((p, s));
                    p += 1;
                }
                Some(&segment) if segment == path[s] || (segment == "*" && !path[s].is_empty()) => {
                    p += 1;
                    s += 1;
                }
                _ => match retry {
                    Some((star, from)) => {
                        retry = Some((star, from + 1));
                        p = star + 1;
                        s = from + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|segment| *segment == "**")
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern(pattern.to_owned()).matches(path)
    }

    #[test]
    fn a_path_pattern_matches_whole_segments() {
        for (pattern, path) in [
            ("/v1/charges", "/v1/charges"),
            ("/v1/*", "/v1/charges"),
            ("/api/**", "/api/v4/projects"),
            ("/api/**", "/api/"),
            ("/**/info/refs", "/o/r.git/info/refs"),
            ("/**/info/refs", "/a/b/c/info/refs"),
            ("/**/info/lfs/**", "/o/r.git/info/lfs/objects/batch"),
            ("/**", "/"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/v1/*", "/v1/charges/ch_1"),
            ("/v1/*", "/v1/"),
            ("/v1/charges", "/v1/charges/"),
            ("/v1/charges", "/V1/charges"),
            ("/api/**", "/apiary"),
            ("/**/info/refs", "/o/r.git/info/refs/x"),
            ("/**/info/refs", "/o/r.git/git-upload-pack"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_the_product_of_the_segments() {
        let pattern = "/**/a".repeat(30) + "/b";
        assert!(!matches(&pattern, &"/a".repeat(4000)));
    }
}
