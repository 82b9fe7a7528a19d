//! Provider templates: where credentials go and how requests carry them.

pub(crate) mod create;
pub(crate) mod get;
pub(crate) mod list;

use std::collections::BTreeMap;

use providers::{Denial, HostRule, Inject, KeyUse, Preset, Template};
use serde::Serialize;
use utoipa::ToSchema;

/// A provider template.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProviderView {
    /// What secret sets are filed under.
    #[schema(example = "stripe")]
    name: String,
    /// Where the vendor describes its authentication.
    docs: String,
    /// Where credentials may go: `https://api.stripe.com:443`.
    hosts: Vec<String>,
    /// Key to `required`, `optional` or `never_sent`.
    #[schema(value_type = BTreeMap<String, String>)]
    keys: BTreeMap<String, KeyUse>,
    /// Environment variable to key: what `claviger run` sets to a placeholder.
    env: BTreeMap<String, String>,
    /// The slots that are filled: `header authorization`, `basic`, `query key`, `sigv4`.
    inject: Vec<String>,
    /// `drop` or `pass`: what becomes of the agent's cookies and of those that the provider sets.
    cookies: &'static str,
    /// Endpoints that hand out new credentials, refused unless a grant names them.
    deny: Vec<DenialView>,
    /// Limits that a grant can name.
    presets: BTreeMap<String, PresetView>,
    /// How its answers tell tokens, which `constraints.spend` of a grant counts: `openai`, `anthropic` …
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
}

/// Endpoints that are refused unless a grant's paths name them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DenialView {
    /// What they do.
    #[schema(example = "makes API keys")]
    why: String,
    /// Empty is every host of the template.
    hosts: Vec<String>,
    /// Empty is every method.
    methods: Vec<String>,
    /// Whether a grant that limits its paths must list the method, too; one that limits none is not bound by it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    by_method: bool,
    paths: Vec<String>,
}

/// Limits that a grant can name by `constraints.preset`; an empty list is no limit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PresetView {
    /// What it is for.
    about: String,
    hosts: Vec<String>,
    methods: Vec<String>,
    paths: Vec<String>,
}

impl From<&Template> for ProviderView {
    fn from(template: &Template) -> Self {
        let slots = template.injections().iter();
        let presets = template.presets().iter();
        let presets = presets.map(|(name, preset)| (name.clone(), PresetView::from(preset)));
        Self {
            name: template.name().to_owned(),
            docs: template.docs().to_owned(),
            hosts: hosts(template.hosts()),
            keys: template.keys().clone(),
            env: template.env().clone(),
            inject: slots.map(|injection| slot(&injection.inject)).collect(),
            cookies: if template.passes_cookies() {
                "pass"
            } else {
                "drop"
            },
            deny: template.denials().iter().map(DenialView::from).collect(),
            presets: presets.collect(),
            usage: template.usage().map(|format| format.to_string()),
        }
    }
}

/// A template as the API shows it, for those who have one without a server.
///
/// # Panics
/// Never: names and texts are JSON.
pub fn provider_view(template: &Template) -> serde_json::Value {
    serde_json::to_value(ProviderView::from(template)).expect("names and texts are JSON")
}

impl From<&Denial> for DenialView {
    fn from(denial: &Denial) -> Self {
        let paths = denial.paths().iter();
        Self {
            why: denial.why().to_owned(),
            hosts: hosts(denial.hosts()),
            methods: denial.methods().to_vec(),
            by_method: denial.is_by_method(),
            paths: paths.map(|path| path.as_str().to_owned()).collect(),
        }
    }
}

impl From<&Preset> for PresetView {
    fn from(preset: &Preset) -> Self {
        Self {
            about: preset.about.clone(),
            hosts: hosts(&preset.hosts),
            methods: preset.methods.clone(),
            paths: preset.paths.clone(),
        }
    }
}

fn hosts(rules: &[HostRule]) -> Vec<String> {
    let text = |rule: &HostRule| {
        let (scheme, port) = (rule.scheme().as_str(), rule.port());
        format!("{scheme}://{}:{port}", rule.pattern())
    };
    rules.iter().map(text).collect()
}

fn slot(inject: &Inject) -> String {
    match inject {
        Inject::Header { name, .. } => format!("header {name}"),
        Inject::Basic { .. } => "basic".to_owned(),
        Inject::Query { name, .. } => format!("query {name}"),
        Inject::SigV4(_) => "sigv4".to_owned(),
        Inject::Path(slot) => format!("path {slot}"),
        Inject::Cookie { name, .. } => format!("cookie {name}"),
        Inject::Form { name, .. } => format!("form {name}"),
        Inject::Json { pointer, .. } => format!("json {pointer}"),
        Inject::ClientCertificate(_) => "client certificate".to_owned(),
        Inject::Hmac(_) => "hmac".to_owned(),
    }
}
