//! TOML to [`Template`], with every mistake of a file reported at once.

mod check;
mod read;
mod rules;

use std::collections::BTreeMap;
use std::fmt;

use crate::template::Template;

/// One mistake in a template, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The file, as the caller named it.
    pub file: String,
    /// The line, from 1. It is 0 where there is no file, as in a `custom` set.
    pub line: usize,
    /// The field: `inject[1].value`.
    pub field: String,
    /// What is wrong, and the next action.
    pub message: String,
}

/// Every mistake of one or more templates, in the order of the files. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateErrors(pub Vec<Mistake>);

/// What a `custom` set carries instead of a template's name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomSpec {
    /// `[https://|http://]host[:port]`, as in a template.
    pub hosts: Vec<String>,
    /// How keys are made of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub make: Vec<CustomMake>,
    /// The slots.
    pub inject: Vec<CustomInject>,
    /// Variable to key: what `run` sets to a placeholder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// `pass`, which it is unless said, or `drop`: whether cookies pass between the agent and the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookies: Option<String>,
}

/// One slot of a [`CustomSpec`]: exactly one of `header`, `query`, `cookie`, `form` and `json` (each with `value`), `basic`,
/// `path`, `client_certificate` and `sigv4`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomInject {
    /// A header's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The value of the header or of the parameter: `Bearer ${MY_KEY}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// User and password of HTTP Basic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<CustomBasic>,
    /// A query parameter's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// AWS Signature Version 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigv4: Option<CustomSigV4>,
    /// A path with a key in one segment: `/bot${MY_KEY}/**`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A cookie's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// The name of a form's field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<String>,
    /// The place of a JSON member: `/auth/token` (RFC 6901).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<String>,
    /// Certificate and key of the TLS handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<CustomCertificate>,
    /// A keyed hash over parts of the request: `key`, `over`, `header`, and `prefix`, `encoding`, `algorithm`, `time`,
    /// `time_header` where the vendor wants them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<BTreeMap<String, String>>,
    /// The hosts that the slot is filled on; empty is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The paths that the slot is filled on; empty is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

/// One recipe of a [`CustomSpec`]: `key`, `grant`, and the fields that the grant takes, each a text; `parameters` are further
/// fields of the question to the token endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CustomMake {
    /// Further fields of the question.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The fields by name.
    #[serde(flatten)]
    pub fields: BTreeMap<String, String>,
}

/// `basic` of a [`CustomInject`].
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomBasic {
    /// The user, with `${KEY}` references.
    pub user: String,
    /// The password, with `${KEY}` references.
    pub password: String,
}

/// `client_certificate` of a [`CustomInject`]. Both are references to keys in PEM: `${TLS_CERTIFICATE}`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomCertificate {
    /// The certificate, and behind it the chain.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// `sigv4` of a [`CustomInject`]. The first three are references: `${AWS_ACCESS_KEY_ID}`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomSigV4 {
    /// The access key id.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
    /// The session token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
    /// The session of a role, which `make` makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The regions that may be signed for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// The services that may be signed for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

/// Reads one template.
///
/// `file` is what mistakes are reported under; nothing is opened.
///
/// # Errors
/// Every mistake of the file, not only the first.
pub fn parse_template(file: &str, text: &str) -> Result<Template, TemplateErrors> {
    let mut report = Report::new(file);
    let raw = read::template(text, &mut report);
    // What is wrong with a part of a file that could not be read would only mislead.
    let template = raw.map(|raw| check::template(&raw, Origin::File, &mut report));
    report.finish(template)
}

impl CustomSpec {
    /// The template of a `custom` set named `set` that holds `keys`. A key to which no slot refers is never sent.
    ///
    /// # Errors
    /// Every mistake, with the field that it stands in.
    pub fn to_template<'a>(
        &self,
        set: &str,
        keys: impl IntoIterator<Item = &'a str>,
    ) -> Result<Template, TemplateErrors> {
        let mut report = Report::new(set);
        let raw = read::custom(self, keys);
        let template = check::template(&raw, Origin::Set, &mut report);
        report.finish(Some(template))
    }
}

/// Where a template stands, which decides how it may be named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    File,
    Set,
}

/// The mistakes so far.
struct Report {
    file: String,
    mistakes: Vec<Mistake>,
}

/// Where something is written.
#[derive(Debug, Clone, Default)]
struct Place {
    line: usize,
    field: String,
}

/// Something that is written somewhere.
#[derive(Debug, Clone, Default)]
struct At<T> {
    value: T,
    place: Place,
}

/// A template as it is written: the right types in the right fields, not checked any further.
#[derive(Debug, Default)]
struct RawTemplate {
    name: Option<At<String>>,
    docs: Option<At<String>>,
    hosts: Option<At<Vec<At<String>>>>,
    keys: Option<At<Vec<Entry>>>,
    identifiers: Vec<At<String>>,
    env: Vec<Entry>,
    placeholders: Vec<Entry>,
    strip: Vec<At<String>>,
    strip_query: Vec<At<String>>,
    encoded_slash: bool,
    cookies: Option<At<String>>,
    make: Vec<RawMake>,
    inject: Vec<RawInject>,
    deny: Vec<rules::RawDenial>,
    presets: Vec<rules::RawPreset>,
    usage: Option<At<String>>,
    place: Place,
}

/// A table of texts, by field.
#[derive(Debug, Default)]
struct RawTexts {
    texts: Vec<(&'static str, At<String>)>,
    place: Place,
}

impl RawTexts {
    fn get(&self, name: &str) -> Option<&At<String>> {
        let mut texts = self.texts.iter();
        texts
            .find(|(other, _)| *other == name)
            .map(|(_, text)| text)
    }
}

/// A `[[make]]`: its texts by field, and its parameters.
#[derive(Debug, Default)]
struct RawMake {
    texts: Vec<(&'static str, At<String>)>,
    parameters: Vec<Entry>,
    place: Place,
}

/// `NAME = "text"` in a table.
type Entry = (At<String>, At<String>);

#[derive(Debug, Default)]
struct RawInject {
    header: Option<At<String>>,
    value: Option<At<String>>,
    basic: Option<At<RawBasic>>,
    query: Option<At<String>>,
    sigv4: Option<At<RawSigV4>>,
    path: Option<At<String>>,
    cookie: Option<At<String>>,
    form: Option<At<String>>,
    json: Option<At<String>>,
    client_certificate: Option<At<RawCertificate>>,
    hmac: Option<RawTexts>,
    hosts: Vec<At<String>>,
    paths: Vec<At<String>>,
    place: Place,
}

#[derive(Debug, Default)]
struct RawBasic {
    user: Option<At<String>>,
    password: Option<At<String>>,
}

#[derive(Debug, Default)]
struct RawCertificate {
    certificate: Option<At<String>>,
    key: Option<At<String>>,
}

#[derive(Debug, Default)]
struct RawSigV4 {
    access_key_id: Option<At<String>>,
    secret_access_key: Option<At<String>>,
    session_token: Option<At<String>>,
    session: Option<At<String>>,
    region: Option<At<String>>,
    regions: Vec<At<String>>,
    services: Vec<At<String>>,
}

impl Report {
    fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            mistakes: Vec::new(),
        }
    }

    fn add(&mut self, place: &Place, message: impl Into<String>) {
        let (line, field) = (place.line, place.field.clone());
        self.mistakes.push(Mistake {
            file: self.file.clone(),
            line,
            field,
            message: message.into(),
        });
    }

    fn finish(mut self, template: Option<Template>) -> Result<Template, TemplateErrors> {
        match template {
            Some(template) if self.mistakes.is_empty() => Ok(template),
            _ => {
                self.mistakes.sort_by_key(|mistake| mistake.line);
                self.mistakes.dedup();
                Err(TemplateErrors(self.mistakes))
            }
        }
    }
}

impl Place {
    fn new(line: usize, field: impl Into<String>) -> Self {
        Self {
            line,
            field: field.into(),
        }
    }
}

impl<T> At<T> {
    fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}: {}", self.file, self.field, self.message),
            line => write!(f, "{}:{line}: {}: {}", self.file, self.field, self.message),
        }
    }
}

impl fmt::Display for TemplateErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for TemplateErrors {}

#[cfg(test)]
mod tests;
