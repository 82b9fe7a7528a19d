//! What a binding's `config` and `guardrails` mean in the terms of a secret set and a grant.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::Uri;
use leases::scope::Scope;
use providers::HostRule;
use providers::load::{CustomBasic, CustomInject, CustomSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Rate;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::injector::MAX_WAIT;

/// Where a binding leads, and how its credential travels. An unknown field is refused: a mistyped limit would widen access.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// `https://`, a host, and perhaps the path below which everything lies.
    #[schema(example = "https://api.example.org/v1")]
    pub(super) base_url: String,
    pub(super) auth_type: AuthType,
    /// With `header`: the field; `X-API-Key` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    header_name: Option<String>,
    /// With `query`: the parameter; `api_key` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    query_param: Option<String>,
    /// Beside the host of `base_url`: names, or `*.example.org`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_hosts: Vec<String>,
    /// Whole paths as they are sent; a `*` at the end stands for everything that may follow. All below `base_url` when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_paths: Vec<String>,
    /// At most 60000.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

/// How a credential travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthType {
    /// `Authorization: Bearer ...`
    Bearer,
    /// HTTP Basic (RFC 7617).
    Basic,
    /// A header field of its own.
    Header,
    /// A query parameter.
    Query,
}

/// What limits a binding further. An unknown field is refused: a mistyped limit would widen access.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Guardrails {
    /// Of the binding's hosts, these alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_hosts: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_methods: Vec<String>,
    /// Networks that the agent calls from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_cidrs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_requests_per_minute: Option<u32>,
    /// At most 60000.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_duration_ms: Option<u64>,
}

/// What both mean.
#[derive(Debug)]
pub(super) struct Limits {
    /// Of the set: hosts and injection.
    pub(super) custom: Value,
    /// Of the grant.
    pub(super) scope: Scope,
    pub(super) rate: Option<Rate>,
}

impl Limits {
    pub(super) fn read(config: &Config, guardrails: &Guardrails) -> Result<Self, ApiError> {
        let base = Base::parse(&config.base_url)?;
        let hosts = config.hosts(&base);
        let spec = CustomSpec {
            hosts,
            make: Vec::new(),
            inject: vec![config.slot()],
            env: BTreeMap::new(),
            cookies: None,
        };
        wait(config, guardrails)?;
        let rate = match guardrails.max_requests_per_minute {
            Some(0) => {
                return Err(ApiError::invalid(
                    "guardrails.max_requests_per_minute",
                    "must be 1 or more; to stop a binding send `is_active: false`",
                ));
            }
            requests => requests.map(|requests| Rate {
                requests,
                per_seconds: 60,
            }),
        };
        let paths = if config.allowed_paths.is_empty() {
            base.paths()
        } else {
            config
                .allowed_paths
                .iter()
                .flat_map(|path| globs(path))
                .collect()
        };
        let scope = json!({
            "hosts": guardrails.allowed_hosts,
            "methods": guardrails.allowed_methods,
            "cidrs": guardrails.allowed_cidrs,
            "paths": paths,
        });
        let scope: Scope = serde_json::from_value(scope)
            .map_err(|error| ApiError::invalid("config or guardrails", error))?;
        Ok(Self {
            custom: serde_json::to_value(&spec).map_err(ApiError::internal)?,
            scope,
            rate,
        })
    }
}

/// How long a request by a binding may take: the shorter of what its parts say.
pub(super) fn wait(config: &Config, guardrails: &Guardrails) -> Result<Duration, ApiError> {
    let mut wait = MAX_WAIT;
    for (field, given) in [
        ("config.timeout_ms", config.timeout_ms),
        ("guardrails.max_duration_ms", guardrails.max_duration_ms),
    ] {
        let Some(given) = given.map(Duration::from_millis) else {
            continue;
        };
        if given.is_zero() || given > MAX_WAIT {
            let problem = format_args!("must be 1 to {}", MAX_WAIT.as_millis());
            return Err(ApiError::invalid(field, problem));
        }
        wait = wait.min(given);
    }
    Ok(wait)
}

impl Config {
    /// The host of `base_url` and those beside it, each once: clients name it again.
    fn hosts(&self, base: &Base) -> Vec<String> {
        let mut hosts = vec![base.authority.clone()];
        let same = |a: &str, b: &str| match (HostRule::parse(a), HostRule::parse(b)) {
            (Ok(a), Ok(b)) => a == b,
            // The template's reader says what is wrong with it.
            _ => false,
        };
        for host in &self.allowed_hosts {
            if !hosts.iter().any(|known| same(known, host)) {
                hosts.push(host.clone());
            }
        }
        hosts
    }

    /// A URL by which the binding can be tried: `base_url`, or where that is no allowed path, a path that is.
    pub(super) fn trial(&self) -> Result<String, ApiError> {
        let base = Base::parse(&self.base_url)?;
        let allowed = Limits::read(self, &Guardrails::default())?.scope.paths;
        let takes = |path: &String| allowed.iter().any(|glob| glob.matches(path));
        if allowed.is_empty() || takes(&base.path) {
            return Ok(self.base_url.clone());
        }
        let plain = self
            .allowed_paths
            .iter()
            .map(|path| path.trim_end_matches('*').to_owned())
            .filter(|path| !path.contains('*'));
        let filled = self
            .allowed_paths
            .iter()
            .map(|path| path.replace("**", "*").replace('*', "-"));
        let path = plain.chain(filled).find(takes);
        Ok(path.map_or_else(
            || self.base_url.clone(),
            |path| format!("https://{}{path}", base.authority),
        ))
    }

    /// The slot of the credential.
    fn slot(&self) -> CustomInject {
        let whole = format!("${{{CREDENTIAL}}}");
        match self.auth_type {
            AuthType::Bearer => CustomInject {
                header: Some("authorization".to_owned()),
                value: Some(format!("Bearer {whole}")),
                ..CustomInject::default()
            },
            AuthType::Header => CustomInject {
                header: Some(
                    self.header_name
                        .clone()
                        .unwrap_or_else(|| "x-api-key".to_owned()),
                ),
                value: Some(whole),
                ..CustomInject::default()
            },
            AuthType::Query => CustomInject {
                query: Some(
                    self.query_param
                        .clone()
                        .unwrap_or_else(|| "api_key".to_owned()),
                ),
                value: Some(whole),
                ..CustomInject::default()
            },
            AuthType::Basic => CustomInject {
                basic: Some(CustomBasic {
                    user: format!("${{{USERNAME}}}"),
                    password: format!("${{{PASSWORD}}}"),
                }),
                ..CustomInject::default()
            },
        }
    }

    /// The URL of a path below `base_url`.
    pub(super) fn below(&self, path: &str) -> String {
        let base = self.base_url.trim_end_matches('/');
        match path.strip_prefix('/') {
            None if path.is_empty() => self.base_url.clone(),
            Some(rest) => format!("{base}/{rest}"),
            None => format!("{base}/{path}"),
        }
    }
}

/// The parts of `base_url`.
struct Base {
    authority: String,
    path: String,
}

impl Base {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let invalid = |problem: &str| ApiError::invalid("config.base_url", problem);
        let url: Uri = text
            .parse()
            .map_err(|_| invalid("is no URL; write it like https://api.example.org/v1"))?;
        let authority = url.authority().map(|name| name.as_str().to_owned());
        let authority = authority.filter(|name| !name.contains('@'));
        let (Some("https"), Some(authority)) = (url.scheme_str(), authority) else {
            return Err(invalid("must be https:// and a host, without a user"));
        };
        if url.query().is_some() || text.contains('#') {
            return Err(invalid("must have no query and no fragment"));
        }
        Ok(Self {
            authority,
            path: url.path().trim_end_matches('/').to_owned(),
        })
    }

    /// All below it; no limit where that is everything.
    fn paths(&self) -> Vec<String> {
        if self.path.is_empty() {
            Vec::new()
        } else {
            vec![format!("{}/**", self.path)]
        }
    }
}

/// A path with a `*` at its end, as grants have it: there `*` ends with its segment.
fn globs(path: &str) -> Vec<String> {
    if path == "*" || path == "/*" {
        return vec!["/**".to_owned()];
    }
    if path.ends_with('*') && !path.ends_with("**") {
        return vec![format!("{path}/**")];
    }
    vec![path.to_owned()]
}

/// The key of a credential that is one text.
pub(super) const CREDENTIAL: &str = "CREDENTIAL";
pub(super) const USERNAME: &str = "USERNAME";
pub(super) const PASSWORD: &str = "PASSWORD";

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(config: Value, guardrails: Value) -> Result<Limits, String> {
        let config: Config = serde_json::from_value(config).map_err(|error| error.to_string())?;
        let guardrails: Guardrails =
            serde_json::from_value(guardrails).map_err(|error| error.to_string())?;
        Limits::read(&config, &guardrails).map_err(|error| error.detail().to_owned())
    }

    #[test]
    fn a_binding_covers_what_lies_below_its_url() {
        let read = limits(
            json!({"base_url": "https://api.example.org/v1/", "auth_type": "bearer"}),
            json!({"max_requests_per_minute": 10, "allowed_methods": ["GET"]}),
        )
        .unwrap();
        assert_eq!(read.custom["hosts"], json!(["api.example.org"]));
        assert_eq!(
            read.custom["inject"],
            json!([{"header": "authorization", "value": "Bearer ${CREDENTIAL}"}])
        );
        assert_eq!(
            serde_json::to_value(&read.scope).unwrap(),
            json!({"methods": ["GET"], "paths": ["/v1/**"]})
        );
        assert_eq!(
            read.rate.map(|rate| (rate.requests, rate.per_seconds)),
            Some((10, 60))
        );
    }

    #[test]
    fn the_host_of_the_url_may_be_named_again() {
        let config = json!({"base_url": "https://api.example.org/v1", "auth_type": "bearer",
            "allowed_hosts": ["API.example.org", "api.example.org:443", "files.example.org", "files.example.org"]});
        let read = limits(config, json!({})).unwrap();
        assert_eq!(
            read.custom["hosts"],
            json!(["api.example.org", "files.example.org"])
        );
    }

    #[test]
    fn a_trial_asks_for_an_allowed_path() {
        let trial = |base: &str, paths: Value| {
            let config = json!({"base_url": base, "auth_type": "bearer", "allowed_paths": paths});
            let config: Config = serde_json::from_value(config).unwrap();
            config.trial().unwrap()
        };
        let base = "https://a.example/v1";
        assert_eq!(trial(base, json!([])), base);
        assert_eq!(trial(base, json!(["/v1", "/x"])), base);
        assert_eq!(
            trial(base, json!(["/v1/charges"])),
            "https://a.example/v1/charges"
        );
        assert_eq!(trial(base, json!(["/v1/cha*"])), "https://a.example/v1/cha");
        let deep = trial(base, json!(["/v2/*/balance"]));
        assert_eq!(deep, "https://a.example/v2/-/balance");
    }

    #[test]
    fn a_star_at_the_end_of_a_path_stands_for_what_may_follow() {
        let scope = |paths: Value| {
            let config = json!({"base_url": "https://a.example", "auth_type": "query", "allowed_paths": paths});
            serde_json::to_value(limits(config, json!({})).unwrap().scope).unwrap()["paths"].clone()
        };
        assert_eq!(
            scope(json!(["/v1/*", "/a/cha*", "/exact", "/deep/**"])),
            json!(["/v1/*/**", "/a/cha*/**", "/exact", "/deep/**"])
        );
        assert_eq!(scope(json!(["/*"])), json!(["/**"]));
    }

    #[test]
    fn what_is_no_url_or_no_limit_is_refused_by_its_field() {
        let base = |url: &str| limits(json!({"base_url": url, "auth_type": "bearer"}), json!({}));
        for url in [
            "http://a.example",
            "https://u:p@a.example",
            "https://a.example/?x",
            "https://a.example/#x",
            "a.example",
            "",
        ] {
            assert!(
                base(url).unwrap_err().starts_with("config.base_url"),
                "{url}"
            );
        }
        let good = json!({"base_url": "https://a.example", "auth_type": "header"});
        for guardrails in [
            json!({"max_requests_per_minute": 0}),
            json!({"max_duration_ms": 0}),
            json!({"max_duration_ms": 60_001}),
            json!({"allowed_methods": ["CONNECT"]}),
            json!({"allowed_hosts": ["*"]}),
            json!({"alowed_methods": ["GET"]}),
        ] {
            limits(good.clone(), guardrails.clone()).expect_err(&guardrails.to_string());
        }
        let mistyped =
            json!({"base_url": "https://a.example", "auth_type": "bearer", "alowed_paths": []});
        limits(mistyped, json!({})).expect_err("unknown field");
        limits(
            json!({"base_url": "https://a.example", "auth_type": "oauth"}),
            json!({}),
        )
        .expect_err("unknown scheme");
    }
}
