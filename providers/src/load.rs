//! TOML to [`Template`], with every mistake of a file reported at once.

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
    /// The slots.
    pub inject: Vec<CustomInject>,
    /// Variable to key: what `run` sets to a placeholder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// One slot of a [`CustomSpec`]: exactly one of `header` (with `value`), `basic`, `query` (with `value`) and `sigv4`.
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
    /// The hosts that the slot is filled on; empty is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The paths that the slot is filled on; empty is all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
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
    /// The regions that may be signed for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// The services that may be signed for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

/// Reads one template.
///
/// # Errors
/// Every mistake of the file, not only the first.
pub fn parse_template(file: &str, text: &str) -> Result<Template, TemplateErrors> {
    let _ = (file, text);
    unimplemented!()
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
        let _ = (set, keys.into_iter().count());
        unimplemented!()
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
