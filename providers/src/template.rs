//! A provider as typed data: where its credentials may go, and in which slots of a request.
//!
//! A [`Template`] is only made by [`crate::load`], so holding one means that it has no mistakes.

use std::collections::BTreeMap;
use std::fmt;

use http::HeaderName;

use crate::deny::Denial;
use crate::exchange::Recipe;
use crate::host::{HostRule, Scheme};
use crate::usage::Format;

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
    pub(crate) passes_cookies: bool,
    pub(crate) recipes: Vec<Recipe>,
    pub(crate) injections: Vec<Injection>,
    pub(crate) denials: Vec<Denial>,
    pub(crate) presets: BTreeMap<String, Preset>,
    pub(crate) usage: Option<Format>,
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
    /// A part of one path segment: Telegram's `/bot${TELEGRAM_BOT_TOKEN}/sendMessage`.
    Path(PathSlot),
    /// One cookie; the agent's others stay.
    Cookie {
        /// The cookie's name.
        name: String,
        /// Its value.
        value: Text,
    },
    /// A field of a form in the body, `application/x-www-form-urlencoded`.
    Form {
        /// The field's name.
        name: String,
        /// Its value, percent-encoded when it is set.
        value: Text,
    },
    /// A member of a JSON object in the body.
    Json {
        /// Where it stands.
        pointer: JsonPointer,
        /// Its value, set as a string.
        value: Text,
    },
    /// The certificate by which we authenticate in the TLS handshake with the provider.
    ClientCertificate(ClientCertificateKeys),
    /// A keyed hash over declared parts of the request, in a header.
    Hmac(HmacSignature),
}

/// What is signed by a keyed hash, and where the signature stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacSignature {
    /// The name of the key that signs. It never travels.
    pub(crate) key: String,
    pub(crate) over: Vec<HmacPiece>,
    pub(crate) header: HeaderName,
    /// What stands before the signature.
    pub(crate) prefix: String,
    pub(crate) encoding: HmacEncoding,
    /// SHA-512 instead of SHA-256.
    pub(crate) is_sha512: bool,
    pub(crate) time: HmacTime,
    /// Where the time that is signed is sent.
    pub(crate) time_header: Option<HeaderName>,
}

/// A part of what is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HmacPiece {
    Literal(String),
    Method,
    Host,
    Path,
    Query,
    /// Path and query, as on the wire.
    Target,
    Time,
    Body,
    /// In lower-case hex.
    BodySha256,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HmacEncoding {
    Hex,
    Base64,
}

/// The unit of the time since 1970 that is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HmacTime {
    Seconds,
    Milliseconds,
}

/// The keys of a client certificate, both in PEM (RFC 7468).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificateKeys {
    /// The name of the key that holds the certificate, and behind it the chain.
    pub certificate: String,
    /// The name of the key that holds the private key. It never travels.
    pub key: String,
}

/// A path of which one segment holds a credential.
///
/// Written as `/bot${KEY}/**`: segments are literal, `*` is one whole segment, `**` at the end is any number of them, and in
/// one segment stands one `${KEY}`, which may have literal text around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSlot {
    pub(crate) before: Vec<PathPiece>,
    pub(crate) prefix: String,
    pub(crate) key: String,
    pub(crate) suffix: String,
    pub(crate) after: Vec<PathPiece>,
    /// Whether it ends in `**`.
    pub(crate) is_open: bool,
}

/// A segment of a [`PathSlot`] beside the one with the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathPiece {
    Literal(String),
    Any,
}

/// The place of a member in a JSON document (RFC 6901), through objects alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPointer(pub(crate) Vec<String>);

/// The keys that sign, and what they may sign for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigV4Keys {
    /// The name of the key that holds the access key id.
    pub access_key_id: String,
    /// The name of the key that holds the secret access key. It never travels.
    pub secret_access_key: String,
    /// The name of the key that holds a session token.
    pub session_token: Option<String>,
    /// The name of the made key that holds the session of a role. Where the set says a role, it signs in place of the others.
    pub session: Option<String>,
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

    /// How keys are made that no set holds.
    pub fn recipes(&self) -> &[Recipe] {
        &self.recipes
    }

    /// The stored keys behind a key: those that it is made of, or itself.
    pub(crate) fn stored<'a>(&'a self, key: &'a str) -> Vec<&'a str> {
        let made = self.recipes.iter().find(|recipe| recipe.key() == key);
        made.map_or_else(|| vec![key], Recipe::inputs)
    }

    /// Names of the stored keys that some slot uses, sorted: those that a request may be sent with, or with what is made of
    /// them.
    pub fn sent_keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self
            .injections
            .iter()
            .flat_map(|injection| injection.inject.keys())
            .flat_map(|key| self.stored(key))
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

    /// Whether cookies pass between the agent and the provider. Where they do not, the agent's stay here and the provider's
    /// are not handed on: a session that the provider opened for our credential would outlive the lease (threats.md C20).
    pub const fn passes_cookies(&self) -> bool {
        self.passes_cookies
    }

    /// The presets by name.
    pub fn presets(&self) -> &BTreeMap<String, Preset> {
        &self.presets
    }

    /// How its answers tell what they cost in tokens, if they do.
    pub const fn usage(&self) -> Option<Format> {
        self.usage
    }

    /// Whether requests are signed for AWS.
    pub fn signs(&self) -> bool {
        let signs = |injection: &Injection| matches!(injection.inject, Inject::SigV4(_));
        self.injections.iter().any(signs)
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

    /// The path as policy and audit see it: with `*` for the text in a slot. `None` where the path has no slot.
    pub fn mask_path(&self, host: &str, path: &str) -> Option<String> {
        self.injections.iter().find_map(|injection| {
            let Inject::Path(slot) = &injection.inject else {
                return None;
            };
            let is_on_host = injection.hosts.is_empty()
                || injection.hosts.iter().any(|rule| rule.matches_name(host));
            is_on_host.then(|| slot.fill(path, "*")).flatten()
        })
    }

    /// Whether a credential stands in some path.
    pub fn has_path_slot(&self) -> bool {
        let is_path = |injection: &Injection| matches!(injection.inject, Inject::Path(_));
        self.injections.iter().any(is_path)
    }

    /// Every header that holds a credential at this provider: filled, or taken from the agent, or both.
    pub fn secret_slots(&self) -> Vec<HeaderName> {
        crate::inject::slots(self)
    }

    /// Whether a header is such a slot, or a twin of one. What an agent sends there never goes on.
    pub fn is_slot(&self, header_name: &str) -> bool {
        crate::inject::is_slot(&self.secret_slots(), header_name)
    }
}

impl Injection {
    /// Whether the slot is filled on this host and path.
    pub fn applies(&self, host: &str, path: &str) -> bool {
        (self.hosts.is_empty() || self.hosts.iter().any(|rule| rule.matches_name(host)))
            && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }

    /// Whether a key's value stands in a header field as it was stored.
    pub fn carries_whole(&self, key: &str) -> bool {
        match &self.inject {
            Inject::Header { value, .. } | Inject::Cookie { value, .. } => {
                value.keys().any(|known| known == key)
            }
            _ => false,
        }
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

impl PathSlot {
    /// The path with its slot's text replaced; `None` if it is another path.
    pub(crate) fn fill(&self, path: &str, text: &str) -> Option<String> {
        let (before, after) = self.split(path)?;
        let length =
            before.len() + self.prefix.len() + text.len() + self.suffix.len() + after.len();
        let mut filled = String::with_capacity(length);
        for part in [before, &self.prefix, text, &self.suffix, after] {
            filled.push_str(part);
        }
        Some(filled)
    }

    /// What stands before and behind the segment with the key, slashes included.
    fn split<'p>(&self, path: &'p str) -> Option<(&'p str, &'p str)> {
        let mut rest = path.strip_prefix('/')?;
        for piece in &self.before {
            let (segment, behind) = rest.split_once('/')?;
            if !piece.matches(segment) {
                return None;
            }
            rest = behind;
        }
        let start = path.len() - rest.len();
        let end = rest.find('/').unwrap_or(rest.len());
        let inner = rest[..end].strip_prefix(self.prefix.as_str())?;
        inner.strip_suffix(self.suffix.as_str())?;
        let behind = &rest[end..];
        self.matches_after(behind).then(|| (&path[..start], behind))
    }

    fn matches_after(&self, behind: &str) -> bool {
        let mut segments = behind.split('/').skip(1);
        self.after.iter().all(|piece| {
            segments
                .next()
                .is_some_and(|segment| piece.matches(segment))
        }) && (self.is_open || segments.next().is_none())
    }
}

impl fmt::Display for PathSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.before {
            write!(f, "/{piece}")?;
        }
        write!(f, "/{}${{{}}}{}", self.prefix, self.key, self.suffix)?;
        for piece in &self.after {
            write!(f, "/{piece}")?;
        }
        f.write_str(if self.is_open { "/**" } else { "" })
    }
}

impl PathPiece {
    fn matches(&self, segment: &str) -> bool {
        match self {
            Self::Literal(text) => text == segment,
            Self::Any => !segment.is_empty(),
        }
    }
}

impl fmt::Display for PathPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => f.write_str(text),
            Self::Any => f.write_str("*"),
        }
    }
}

impl JsonPointer {
    /// The names of the members on the way, the last one's at the end. Never empty.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.0 {
            write!(f, "/{}", name.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
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
            ("/a/**/a/b", "/a/b"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    fn telegram() -> PathSlot {
        PathSlot {
            before: Vec::new(),
            prefix: "bot".to_owned(),
            key: "TOKEN".to_owned(),
            suffix: String::new(),
            after: Vec::new(),
            is_open: true,
        }
    }

    #[test]
    fn a_path_slot_takes_any_text_of_its_segment_and_no_other_segment() {
        let slot = telegram();
        assert_eq!(slot.to_string(), "/bot${TOKEN}/**");
        for (path, filled) in [
            ("/botclaviger:x/getMe", Some("/bot*/getMe")),
            ("/bot/getMe", Some("/bot*/getMe")),
            ("/bot1", Some("/bot*")),
            ("/bot1/a/b/", Some("/bot*/a/b/")),
            ("/Bot1/getMe", None),
            ("/file/bot1/x", None),
            ("/", None),
            ("*", None),
        ] {
            assert_eq!(slot.fill(path, "*").as_deref(), filled, "{path}");
        }
    }

    #[test]
    fn a_path_slot_counts_the_segments_around_it() {
        let slot = PathSlot {
            before: vec![PathPiece::Literal("file".to_owned()), PathPiece::Any],
            prefix: "k-".to_owned(),
            suffix: ".json".to_owned(),
            after: vec![PathPiece::Any],
            is_open: false,
            ..telegram()
        };
        assert_eq!(slot.to_string(), "/file/*/k-${TOKEN}.json/*");
        for (path, filled) in [
            ("/file/a/k-x.json/b", Some("/file/a/k-*.json/b")),
            ("/file/a/k-x.json", None),
            ("/file/a/k-x.json/b/c", None),
            ("/file/a/k-x/b", None),
            ("/file/k-x.json/b", None),
        ] {
            assert_eq!(slot.fill(path, "*").as_deref(), filled, "{path}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_the_product_of_the_segments() {
        let pattern = "/**/a".repeat(30) + "/b";
        assert!(!matches(&pattern, &"/a".repeat(4000)));
    }
}
