//! The template behind a secret set: from the catalog by its provider's name, or made of what a `custom` set carries.

use std::sync::Arc;

use leases::scope::HostPattern;
use providers::{Catalog, CustomSpec, HostRule, Template, TemplateErrors};
use serde_json::Value;
use store::SecretSet;

use crate::AppState;
use crate::error::ApiError;
use crate::problem::Code;
use crate::text::excerpt;

/// The provider whose sets carry their own hosts and injections.
pub(crate) const CUSTOM: &str = "custom";

/// The template that a set's requests are injected by.
pub(crate) fn of_set(state: &AppState, set: &SecretSet) -> Result<Arc<Template>, ApiError> {
    let spec = set.custom.clone().map(read_spec).transpose()?;
    resolve(
        &state.catalog(),
        &set.provider,
        &set.name,
        spec.as_ref(),
        &set.keys,
    )
}

/// The template of a provider's name, with `custom` for a set of this name and keys.
pub(crate) fn resolve(
    catalog: &Catalog,
    provider: &str,
    name: &str,
    custom: Option<&CustomSpec>,
    keys: &[String],
) -> Result<Arc<Template>, ApiError> {
    match (provider, custom) {
        (CUSTOM, Some(spec)) => {
            let template = spec.to_template(name, keys.iter().map(String::as_str));
            template
                .map(Arc::new)
                .map_err(|errors| invalid("custom", &errors))
        }
        (CUSTOM, None) => Err(ApiError::invalid(
            "custom",
            "is missing; a custom set says its own hosts[] and inject[]",
        )),
        (_, Some(_)) => {
            let problem = format_args!(
                "is for provider `custom` alone; {} has a template of its own",
                excerpt(provider)
            );
            Err(ApiError::invalid("custom", problem))
        }
        (_, None) => catalog
            .get(provider)
            .ok_or_else(|| unknown(catalog, provider)),
    }
}

/// Reads a `custom` field. An unknown field in it could send a credential elsewhere than was meant.
pub(crate) fn read_spec(custom: Value) -> Result<CustomSpec, ApiError> {
    serde_json::from_value(custom).map_err(|error| {
        let text = error.to_string();
        let code = if text.starts_with("unknown field") {
            Code::UnknownField
        } else {
            Code::InvalidRequest
        };
        ApiError::new(code, format!("custom: {text}"))
    })
}

/// All mistakes of a template in one text.
pub(crate) fn invalid(field: &str, errors: &TemplateErrors) -> ApiError {
    ApiError::new(Code::InvalidTemplate, format!("{field}: {errors}"))
}

fn unknown(catalog: &Catalog, provider: &str) -> ApiError {
    let known: Vec<&str> = catalog.iter().map(|template| template.name()).collect();
    let detail = format!(
        "no template is named {}; known are {}; for any other API use provider `custom` with hosts and inject, or add a template with POST /v1/providers",
        excerpt(provider),
        known.join(", ")
    );
    ApiError::new(Code::UnknownProvider, detail)
}

/// Where a template may send, as a lease says it.
pub(crate) fn hosts(template: &Template) -> Vec<HostPattern> {
    template.hosts().iter().filter_map(host).collect()
}

/// A host of a template, as a lease or a grant says it.
pub(crate) fn host(rule: &HostRule) -> Option<HostPattern> {
    let name = rule.pattern();
    let name = if name.contains(':') {
        format!("[{name}]")
    } else {
        name
    };
    let own_port = rule.port() == rule.scheme().default_port();
    let text = if own_port {
        name
    } else {
        format!("{name}:{}", rule.port())
    };
    // Both crates read the same grammar; a pattern that one refuses is left out, which allows less.
    HostPattern::parse(&text).ok()
}
