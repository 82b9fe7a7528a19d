//! Provider templates: where credentials go and how requests carry them.

pub(crate) mod create;
pub(crate) mod get;
pub(crate) mod list;

use std::collections::BTreeMap;

use providers::{Inject, KeyUse, Template};
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
}

impl From<&Template> for ProviderView {
    fn from(template: &Template) -> Self {
        let hosts = template.hosts().iter();
        let slots = template.injections().iter();
        Self {
            name: template.name().to_owned(),
            docs: template.docs().to_owned(),
            hosts: hosts
                .map(|rule| {
                    format!(
                        "{}://{}:{}",
                        rule.scheme().as_str(),
                        rule.pattern(),
                        rule.port()
                    )
                })
                .collect(),
            keys: template.keys().clone(),
            env: template.env().clone(),
            inject: slots.map(|injection| slot(&injection.inject)).collect(),
        }
    }
}

fn slot(inject: &Inject) -> String {
    match inject {
        Inject::Header { name, .. } => format!("header {name}"),
        Inject::Basic { .. } => "basic".to_owned(),
        Inject::Query { name, .. } => format!("query {name}"),
        Inject::SigV4(_) => "sigv4".to_owned(),
    }
}
