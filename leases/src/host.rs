//! Host patterns, matched label by label, so that no prefix or suffix of a name passes for the name.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::form::Form;

/// The most characters of a host name (RFC 1035 section 2.3.4, without the final dot).
pub const MAX_HOST_CHARS: usize = 253;
/// The most characters of one label (RFC 1035 section 2.3.4).
const MAX_LABEL_CHARS: usize = 63;

/// The ports that a pattern without a port stands for.
const DEFAULT_PORTS: [u16; 2] = [443, 80];

/// How a request reaches its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// TLS.
    Https,
    /// Cleartext: only a grant that says so lets a credential out.
    Http,
}

impl Scheme {
    /// `https` or `http`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    /// The port of a URL that names none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

/// Why a text is no host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No characters, or an empty label.
    #[error("host `{0}` has an empty label; write it without a leading, trailing or double dot")]
    EmptyLabel(String),
    /// Too many characters, as a whole or in a label.
    #[error("host `{0}` is too long: at most {MAX_HOST_CHARS} characters, 63 in a label")]
    TooLong(String),
    /// A character that no canonical host name has.
    #[error(
        "host `{host}` holds `{found}`: write lower-case letters, digits and `-`, names of other scripts as `xn--…`"
    )]
    Character {
        /// The text.
        host: String,
        /// The character.
        found: char,
    },
    /// A label that begins or ends with `-`.
    #[error("host `{0}` has a label that begins or ends with `-`")]
    Hyphen(String),
    /// `*` beside other characters, or as the last label.
    #[error("host `{0}`: `*` and `**` stand for whole labels, and the last label is a name")]
    Wildcard(String),
    /// `*` or `**` alone.
    #[error("host `{0}` is every host; name the hosts that are meant")]
    Any(String),
    /// A port that is not a decimal number from 1 to 65535.
    #[error("host `{0}` has a port that is not a number from 1 to 65535 without leading zeros")]
    Port(String),
    /// An address in another spelling than its canonical one.
    #[error(
        "host `{0}` is an address, but not in its one spelling (like 192.0.2.1 or [2001:db8::1])"
    )]
    Address(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Label {
    /// `*`: one label.
    One,
    /// `**`: one or more labels.
    Many,
    Name(Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Shape {
    /// Every host.
    Any,
    /// One name or address; an IPv6 address without brackets.
    Exact(Box<str>),
    /// A name with wildcards.
    Labels(Box<[Label]>),
}

/// Hosts that a lease, a grant or a template may reach, with their port.
///
/// Grammar: a canonical lower-case name (A-labels), in which `*` stands for exactly one label and `**` for one or more;
/// or an IPv4 address, or an IPv6 address in brackets; then `:` and a port, or none for the scheme's own port (443 for
/// https, 80 for http). `*.github.com` is not `github.com`. Names of other scripts come here already converted (UTS 46).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    shape: Shape,
    port: Option<u16>,
    text: Arc<str>,
}

impl HostPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`HostError`] for what the grammar does not hold, and for `*` or `**` alone.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let pattern = Self::parse_any(text)?;
        match pattern.shape {
            Shape::Any => Err(HostError::Any(text.to_owned())),
            Shape::Exact(_) | Shape::Labels(_) => Ok(pattern),
        }
    }

    /// Reads a pattern; `*` or `**` alone is taken and means every host.
    ///
    /// # Errors
    /// [`HostError`] for what the grammar does not hold.
    pub fn parse_any(text: &str) -> Result<Self, HostError> {
        let (host, port) = split_port(text)?;
        let shape = match host {
            "*" | "**" => Shape::Any,
            _ => parse_shape(host, text)?,
        };
        Ok(Self::new(shape, port))
    }

    fn new(shape: Shape, port: Option<u16>) -> Self {
        let host = match &shape {
            Shape::Any => "**".to_owned(),
            Shape::Exact(name) if name.contains(':') => format!("[{name}]"),
            Shape::Exact(name) => name.to_string(),
            Shape::Labels(labels) => join(labels, |label| match label {
                Label::One => "*".to_owned(),
                Label::Many => "**".to_owned(),
                Label::Name(name) => name.to_string(),
            }),
        };
        let text = port.map_or(host.clone(), |port| format!("{host}:{port}"));
        Self {
            shape,
            port,
            text: text.into(),
        }
    }

    /// Whether a request by TLS to this host and port is meant. An IPv6 address may come with or without brackets.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        self.matches_by(Scheme::Https, host, port)
    }

    /// Whether a request by this scheme to this host and port is meant.
    pub fn matches_by(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        port == self.port.unwrap_or(scheme.default_port()) && self.matches_name(host)
    }

    /// Whether the host is meant, on whatever port.
    pub fn matches_name(&self, host: &str) -> bool {
        let host = without_brackets(host);
        match &self.shape {
            Shape::Any => true,
            Shape::Exact(name) => **name == *host,
            Shape::Labels(labels) => !host.contains(':') && match_labels(labels, host),
        }
    }

    /// Whether some host and port is meant by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.ports()
            .any(|port| other.ports().any(|other| port == other))
            && match (&self.shape, &other.shape) {
                (Shape::Any, _) | (_, Shape::Any) => true,
                (Shape::Exact(name), _) => other.matches_name(name),
                (_, Shape::Exact(name)) => self.matches_name(name),
                (Shape::Labels(left), Shape::Labels(right)) => intersect(left, right),
            }
    }

    /// Whether all that `other` means is meant by this one. It may say no where the answer is yes, never the reverse.
    pub fn covers(&self, other: &Self) -> bool {
        self.port == other.port
            && match (&self.shape, &other.shape) {
                (Shape::Any, _) => true,
                (_, Shape::Any) => false,
                (_, Shape::Exact(name)) => self.matches_name(name),
                (left, right) if left == right => true,
                (Shape::Labels(left), Shape::Labels(right)) => match left.split_first() {
                    Some((Label::Many, rest)) => right.len() > rest.len() && right.ends_with(rest),
                    _ => false,
                },
                (Shape::Exact(_), Shape::Labels(_)) => false,
            }
    }

    /// How closely the pattern says what it means: the more, the more specific.
    pub fn specificity(&self) -> (usize, usize) {
        match &self.shape {
            Shape::Any => (0, 0),
            Shape::Exact(name) => (usize::MAX, name.len()),
            Shape::Labels(labels) => {
                let names = labels
                    .iter()
                    .filter(|label| matches!(label, Label::Name(_)));
                (names.count(), labels.len())
            }
        }
    }

    /// The port, if the pattern names one.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The one host that is meant, without brackets, if there are no wildcards.
    pub fn exact(&self) -> Option<&str> {
        match &self.shape {
            Shape::Exact(name) => Some(name),
            Shape::Any | Shape::Labels(_) => None,
        }
    }

    /// The pattern in its one spelling.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The ports by which the pattern can be reached.
    fn ports(&self) -> impl Iterator<Item = u16> {
        let defaults: &[u16] = if self.port.is_none() {
            &DEFAULT_PORTS
        } else {
            &[]
        };
        self.port.into_iter().chain(defaults.iter().copied())
    }

    /// The pattern as Datalog tests it, without its port.
    pub(crate) fn form(&self) -> Form {
        match &self.shape {
            Shape::Any => Form::Under(String::new()),
            Shape::Exact(name) => Form::Is(name.to_string()),
            Shape::Labels(labels) => match labels.split_first() {
                Some((Label::Many, rest)) if rest.iter().all(|l| matches!(l, Label::Name(_))) => {
                    Form::Under(format!(".{}", join(rest, label_regex).replace('\\', "")))
                }
                _ => Form::Like(format!("^{}$", regex_of(labels))),
            },
        }
    }

    /// The pattern whose [`Self::form`] this is. Port 0 is none.
    pub(crate) fn from_form(form: &Form, port: u16) -> Option<Self> {
        let text = match form {
            Form::Is(name) if name.contains(':') => format!("[{name}]"),
            Form::Is(name) => name.clone(),
            Form::Under(suffix) => format!("**{suffix}"),
            Form::Like(regex) => regex
                .strip_prefix('^')?
                .strip_suffix('$')?
                .replace(r"[^.]+(?:\.[^.]+)*", "**")
                .replace("[^.]+", "*")
                .replace(r"\.", "."),
        };
        let port = (port != 0).then_some(port);
        let pattern = Self::new(Self::parse_any(&text).ok()?.shape, port);
        (pattern.form() == *form).then_some(pattern)
    }
}

/// The host as policy sees it: an IPv6 address without its brackets.
pub(crate) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), HostError> {
    let end = text.find(']').map_or(0, |at| at + 1);
    let Some((host, port)) = text[end..].split_once(':').map(|(rest, port)| {
        let host = &text[..end + rest.len()];
        (host, port)
    }) else {
        return Ok((text, None));
    };
    // `u16::from_str` takes `+443` and `0443` too.
    let is_canonical = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if is_canonical => Ok((host, Some(port))),
        _ => Err(HostError::Port(text.to_owned())),
    }
}

fn parse_shape(host: &str, text: &str) -> Result<Shape, HostError> {
    if host.starts_with('[') || host.ends_with(']') {
        let address = without_brackets(host);
        return match address.parse::<Ipv6Addr>() {
            Ok(parsed) if parsed.to_string() == address => Ok(Shape::Exact(address.into())),
            _ => Err(HostError::Address(text.to_owned())),
        };
    }
    if host.len() > MAX_HOST_CHARS {
        return Err(HostError::TooLong(text.to_owned()));
    }
    let labels = host
        .split('.')
        .map(|label| parse_label(label, text))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(Label::Name(last)) = labels.last() else {
        return Err(HostError::Wildcard(text.to_owned()));
    };
    // A name whose last label is a number is an address to every resolver (WHATWG URL, "ends in a number").
    if last.bytes().all(|byte| byte.is_ascii_digit()) || is_hexadecimal(last) {
        return match host.parse::<IpAddr>() {
            Ok(address) if address.to_string() == host => Ok(Shape::Exact(host.into())),
            _ => Err(HostError::Address(text.to_owned())),
        };
    }
    if labels.iter().all(|label| matches!(label, Label::Name(_))) {
        Ok(Shape::Exact(host.into()))
    } else {
        Ok(Shape::Labels(labels.into()))
    }
}

fn is_hexadecimal(label: &str) -> bool {
    label
        .strip_prefix("0x")
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn parse_label(label: &str, text: &str) -> Result<Label, HostError> {
    match label {
        "" => return Err(HostError::EmptyLabel(text.to_owned())),
        "*" => return Ok(Label::One),
        "**" => return Ok(Label::Many),
        _ => {}
    }
    if label.contains('*') {
        return Err(HostError::Wildcard(text.to_owned()));
    }
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(found) = label.chars().find(|c| !is_allowed(*c)) {
        return Err(HostError::Character {
            host: text.to_owned(),
            found,
        });
    }
    if label.len() > MAX_LABEL_CHARS {
        return Err(HostError::TooLong(text.to_owned()));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(HostError::Hyphen(text.to_owned()));
    }
    Ok(Label::Name(label.into()))
}

/// Whether the labels mean the host. Greedy, with one step back to the last `**`: at most labels times labels.
fn match_labels(pattern: &[Label], host: &str) -> bool {
    let mut rest = host;
    let mut at = 0;
    // Where to go on after the last `**`, and the labels that it has not taken yet.
    let mut retry: Option<(usize, &str)> = None;
    loop {
        let (label, after) = match rest.split_once('.') {
            Some((label, after)) => (label, Some(after)),
            None => (rest, None),
        };
        if label.is_empty() {
            return false;
        }
        let is_last = after.is_none();
        let matched = match pattern.get(at) {
            Some(Label::One) => true,
            Some(Label::Many) => {
                retry = after.map(|after| (at + 1, after));
                true
            }
            Some(Label::Name(name)) => **name == *label,
            None => false,
        };
        if matched && (is_last == (at + 1 == pattern.len())) {
            if is_last {
                return true;
            }
            at += 1;
            rest = after.unwrap_or_default();
        } else if let Some((next, after)) = retry {
            at = next;
            rest = after;
            retry = after.split_once('.').map(|(_, after)| (next, after));
        } else {
            return false;
        }
    }
}

/// Whether some name has both shapes.
fn intersect(left: &[Label], right: &[Label]) -> bool {
    // `reach[j]` says whether what is left of `left` and `right[j..]` have a name in common, with one row a label.
    #[derive(Clone, Copy)]
    enum Step<'a> {
        One,
        /// Zero or more labels.
        Star,
        Name(&'a str),
    }
    fn steps(labels: &[Label]) -> Vec<Step<'_>> {
        labels
            .iter()
            .flat_map(|label| match label {
                Label::One => vec![Step::One],
                Label::Many => vec![Step::One, Step::Star],
                Label::Name(name) => vec![Step::Name(name)],
            })
            .collect()
    }
    let (left, right) = (steps(left), steps(right));
    let mut reach = vec![vec![false; right.len() + 1]; left.len() + 1];
    for i in (0..=left.len()).rev() {
        for j in (0..=right.len()).rev() {
            reach[i][j] = match (left.get(i), right.get(j)) {
                (None, None) => true,
                (Some(Step::Star), other) => {
                    reach[i + 1][j] || (other.is_some() && reach[i][j + 1])
                }
                (other, Some(Step::Star)) => {
                    reach[i][j + 1] || (other.is_some() && reach[i + 1][j])
                }
                (None, _) | (_, None) => false,
                (Some(Step::Name(left)), Some(Step::Name(right))) if left != right => false,
                (Some(Step::Name(_) | Step::One), Some(Step::Name(_) | Step::One)) => {
                    reach[i + 1][j + 1]
                }
            };
        }
    }
    reach[0][0]
}

fn join(labels: &[Label], write: impl Fn(&Label) -> String) -> String {
    labels.iter().map(write).collect::<Vec<_>>().join(".")
}

fn label_regex(label: &Label) -> String {
    match label {
        Label::One => "[^.]+".to_owned(),
        Label::Many => r"[^.]+(?:\.[^.]+)*".to_owned(),
        Label::Name(name) => name.to_string(),
    }
}

fn regex_of(labels: &[Label]) -> String {
    labels
        .iter()
        .map(label_regex)
        .collect::<Vec<_>>()
        .join(r"\.")
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostPattern({})", self.text)
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        Self::parse(text)
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
