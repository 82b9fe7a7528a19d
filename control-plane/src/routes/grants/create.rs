//! `POST /v1/vault/grants`

use axum::extract::State;
use axum::http::StatusCode;
use leases::id::{AgentId, SetId};
use leases::scope::{Action, AwsScope, HostPattern, Keys, PathGlob, Scope};
use providers::exchange::Recipe;
use providers::inject::sigv4;
use providers::{Denial, Template};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::{CreateGrantError, NewGrant, Rate, SecretSet, Spend};
use utoipa::ToSchema;

use super::{GrantView, preset, spend};
use crate::AppState;
use crate::auth::Person;
use crate::entries::{MAX_ENTRIES, check_key};
use crate::error::ApiError;
use crate::extract::Json;
use crate::openapi::shapes;
use crate::problem::{Code, Problem};
use crate::templates;
use crate::timestamp::Timestamp;

/// A grant to be made. An unknown field is refused: a mistyped limit would widen access.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateGrant {
    #[schema(value_type = String)]
    agent_id: String,
    #[schema(value_type = String)]
    secret_set_id: String,
    /// `proxy_use` (the default), `mint_workflow_lease`, `export_plaintext`, `read`, `write`, `delete`.
    #[serde(default = "proxy_use")]
    #[schema(value_type = Option<Vec<String>>)]
    allowed_actions: Vec<Action>,
    /// `"*"` (the default) or a list of names.
    #[serde(default = "all_keys")]
    #[schema(schema_with = shapes::keys)]
    allowed_keys: Keys,
    expires_at: Option<Timestamp>,
    /// `{preset, hosts[], methods[], paths[], cidrs[], time_window, rate{requests, per_seconds},
    /// spend{tokens, usd, per_seconds}, cleartext,
    /// aws{services[], regions[], buckets[], actions[], presigned}, github{repositories[], permissions{}}, approval}`,
    /// the last of which is `true` or `{methods[], ttl_seconds, pending_seconds}`. A preset of the
    /// provider's template stands for its limits; what else is given must lie within them.
    #[schema(value_type = Option<Object>)]
    constraints: Option<Map<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimit {
    requests: u32,
    per_seconds: u32,
}

/// The grant, and what may be a mistake in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedGrant {
    #[serde(flatten)]
    grant: GrantView,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Lets an agent use a secret set.
#[utoipa::path(post, path = "/v1/vault/grants", tag = "grants", operation_id = "createGrant", request_body = CreateGrant,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = CreatedGrant), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Json(body): Json<CreateGrant>,
) -> Result<(StatusCode, axum::Json<CreatedGrant>), ApiError> {
    let mut new = check(body, &state)?;
    let set = state
        .store
        .secret_sets()
        .get(&person.org, &new.secret_set_id)
        .await?;
    let set = set.ok_or_else(|| ApiError::not_found("secret set", new.secret_set_id.as_str()))?;
    if let Some(name) = &new.preset {
        let template = templates::of_set(&state, &set)?;
        new.constraints = preset::apply(&template, name, new.constraints)?;
    }
    if new.spend.is_some() {
        spend::check(&new, templates::of_set(&state, &set)?.as_ref())?;
    }
    check_github(&state, &set, &new.constraints)?;
    let warnings = warnings(&state, &set, &new);
    let grant = state
        .store
        .grants()
        .create(&person.org, new, &person.actor)
        .await
        .map_err(|error| match error {
            CreateGrantError::NoAgent(id) => ApiError::not_found("agent", id.as_str()),
            CreateGrantError::NoSet(id) => ApiError::not_found("secret set", id.as_str()),
            other => other.into(),
        })?;
    let grant = GrantView::new(grant, state.clock.now());
    Ok((
        StatusCode::CREATED,
        axum::Json(CreatedGrant { grant, warnings }),
    ))
}

fn check(body: CreateGrant, state: &AppState) -> Result<NewGrant, ApiError> {
    let agent_id =
        AgentId::parse(&body.agent_id).map_err(|_| ApiError::not_found("agent", &body.agent_id))?;
    let secret_set_id = SetId::parse(&body.secret_set_id)
        .map_err(|_| ApiError::not_found("secret set", &body.secret_set_id))?;
    let mut allowed_actions = body.allowed_actions;
    allowed_actions.sort_unstable();
    allowed_actions.dedup();
    if allowed_actions.is_empty() {
        return Err(ApiError::invalid(
            "allowed_actions",
            "is empty, so the grant would allow nothing; name one, such as proxy_use",
        ));
    }
    check_keys(&body.allowed_keys)?;
    let expires_at = body.expires_at.map(|end| end.0);
    if expires_at.is_some_and(|end| end <= state.clock.now()) {
        return Err(ApiError::invalid(
            "expires_at",
            "has passed; name a time to come, or leave it out",
        ));
    }
    let limits = read_constraints(body.constraints.unwrap_or_default())?;
    check_approval(&limits.scope, &allowed_actions)?;
    Ok(NewGrant {
        agent_id,
        secret_set_id,
        allowed_actions,
        allowed_keys: body.allowed_keys,
        expires_at,
        constraints: limits.scope,
        preset: limits.preset,
        rate: limits.rate,
        spend: limits.spend,
    })
}

/// What is approved is one request. An export hands the value out, for any number of them.
fn check_approval(scope: &Scope, actions: &[Action]) -> Result<(), ApiError> {
    if scope.approval.is_none() || !actions.contains(&Action::ExportPlaintext) {
        return Ok(());
    }
    let problem = "does not go with the action export_plaintext, which nobody could hold to one request; leave out one of the two";
    Err(ApiError::invalid("constraints.approval", problem))
}

fn check_keys(keys: &Keys) -> Result<(), ApiError> {
    let Keys::Only(names) = keys else {
        return Ok(());
    };
    if names.is_empty() || names.len() > MAX_ENTRIES {
        return Err(ApiError::invalid(
            "allowed_keys",
            format_args!("must be \"*\" or 1 to {MAX_ENTRIES} names"),
        ));
    }
    names
        .iter()
        .try_for_each(|name| check_key("allowed_keys", name))
}

/// What `constraints` holds.
#[derive(Debug)]
struct Limits {
    scope: Scope,
    preset: Option<String>,
    rate: Option<Rate>,
    spend: Option<Spend>,
}

/// The contract puts `rate` and `spend` among the constraints; they are no part of a token's scope, because a count lives in the ledger alone.
/// Nor is `preset`, which is a name for limits.
fn read_constraints(mut constraints: Map<String, Value>) -> Result<Limits, ApiError> {
    let preset = match constraints.remove("preset") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => {
            let problem = "must be the name of one preset; GET /v1/providers/{name} lists them";
            return Err(ApiError::invalid("constraints.preset", problem));
        }
    };
    let rate = match constraints.remove("rate") {
        None | Some(Value::Null) => None,
        Some(rate) => Some(read_rate(rate)?),
    };
    let spend = match constraints.remove("spend") {
        None | Some(Value::Null) => None,
        Some(spend) => Some(spend::read(spend)?),
    };
    constraints.retain(|_, value| !value.is_null());
    check_lists(&constraints)?;
    let scope = serde_json::from_value(Value::Object(constraints)).map_err(|error| {
        let text = error.to_string();
        if text.starts_with("unknown field") {
            // The scope knows nothing of those that were taken out before.
            let detail = format!("constraints: {text}, `rate`, `spend`, `preset`");
            return ApiError::new(Code::UnknownField, detail);
        }
        ApiError::invalid("constraints", text)
    })?;
    Ok(Limits {
        scope,
        preset,
        rate,
        spend,
    })
}

/// An empty list would mean no limit, where its writer may have meant that nothing is allowed.
fn check_lists(constraints: &Map<String, Value>) -> Result<(), ApiError> {
    let mut lists = constraints.iter();
    match lists.find(|(_, value)| value.as_array().is_some_and(Vec::is_empty)) {
        None => Ok(()),
        Some((name, _)) => Err(ApiError::invalid(
            &format!("constraints.{name}"),
            "is empty and so would limit nothing; leave it out for no limit, or name what is allowed",
        )),
    }
}

fn read_rate(rate: Value) -> Result<Rate, ApiError> {
    let rate: RateLimit = serde_json::from_value(rate).map_err(|error| {
        let text = error.to_string();
        let code = if text.starts_with("unknown field") {
            Code::UnknownField
        } else {
            Code::InvalidRequest
        };
        ApiError::new(code, format!("constraints.rate: {text}"))
    })?;
    if rate.requests == 0 || rate.per_seconds == 0 || rate.per_seconds > MAX_WINDOW {
        let problem = format!("requests must be at least 1 and per_seconds 1 to {MAX_WINDOW}");
        return Err(ApiError::invalid("constraints.rate", problem));
    }
    Ok(Rate {
        requests: rate.requests,
        per_seconds: rate.per_seconds,
    })
}

/// Limits on an app's tokens hold where the set makes them; elsewhere they would bound nothing.
fn check_github(state: &AppState, set: &SecretSet, scope: &Scope) -> Result<(), ApiError> {
    if scope.github.is_default() {
        return Ok(());
    }
    let template = templates::of_set(state, set)?;
    if template.recipes().iter().any(Recipe::is_of_github) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "constraints.github",
        format_args!(
            "limits the tokens of a GitHub App, and {} makes none; store the app in a set of github-app",
            set.provider
        ),
    ))
}

/// What is no danger and yet may not be what was meant.
fn warnings(state: &AppState, set: &SecretSet, new: &NewGrant) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Keys::Only(names) = &new.allowed_keys {
        let missing = names.iter().filter(|name| !set.keys.contains(name));
        warnings.extend(missing.map(|name| format!("the set has no key {name} yet")));
    }
    if let Ok(template) = templates::of_set(state, set) {
        let served = templates::hosts(&template);
        let unserved = |host: &&HostPattern| !served.iter().any(|pattern| pattern.overlaps(host));
        let hosts = new.constraints.hosts.iter().filter(unserved);
        warnings.extend(hosts.map(|host| {
            format!(
                "{host} is no host of provider {}: nothing will match it",
                set.provider
            )
        }));
        warnings.extend(new.constraints.paths.iter().filter_map(|glob| {
            let denial = named_denial(&template, glob)?;
            Some(format!(
                "{glob} names an endpoint that {}: no lease bounds what it hands to the agent",
                denial.why()
            ))
        }));
        if !new.constraints.aws.is_default() && !template.signs() {
            warnings.push(format!(
                "provider {} signs nothing for AWS: constraints.aws limits nothing",
                set.provider
            ));
        }
    }
    warnings.extend(spend::warnings(new, &state.catalog(), &set.provider));
    warnings.extend(mintable(&new.constraints.aws));
    warnings
}

/// What of the named AWS actions hands out credentials.
fn mintable(aws: &AwsScope) -> impl Iterator<Item = String> {
    let mints = |pattern: &&String| {
        let (service, name) = pattern.split_once(':').unwrap_or((pattern, ""));
        sigv4::may_mint_by(service, name)
    };
    aws.actions.iter().filter(mints).map(|pattern| {
        format!("{pattern} names actions that hand out new credentials: no lease bounds what they hand to the agent")
    })
}

/// The denial that a path lifts.
fn named_denial<'t>(template: &'t Template, glob: &PathGlob) -> Option<&'t Denial> {
    template.denials().iter().find(|denial| {
        let mut paths = denial.paths().iter();
        paths.any(|path| path.holds(glob.as_str()))
    })
}

fn proxy_use() -> Vec<Action> {
    vec![Action::ProxyUse]
}

fn all_keys() -> Keys {
    Keys::All
}

/// A year: the ledger keeps a window's count as long.
pub(super) const MAX_WINDOW: u32 = 366 * 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<(Scope, Option<Rate>), (Code, String)> {
        let Value::Object(map) = value else {
            unreachable!("tests give objects")
        };
        let limits = read_constraints(map);
        limits
            .map(|limits| (limits.scope, limits.rate))
            .map_err(|error| (error.code(), error.detail().to_owned()))
    }

    #[test]
    fn constraints_are_read_with_their_rate() {
        let (scope, rate) = read(json!({"hosts": ["api.stripe.com"], "methods": ["GET"], "rate": {"requests": 60, "per_seconds": 60}})).unwrap();
        assert_eq!(scope.hosts.len(), 1);
        assert_eq!(
            rate,
            Some(Rate {
                requests: 60,
                per_seconds: 60
            })
        );
        assert!(
            read(json!({"time_window": null, "rate": null}))
                .unwrap()
                .0
                .is_unlimited()
        );
    }

    #[test]
    fn an_empty_list_is_refused_by_name() {
        for name in ["hosts", "methods", "paths", "cidrs"] {
            let (_, detail) = read(json!({ name: [] })).expect_err(name);
            assert!(detail.contains(name), "{detail}");
        }
    }

    #[test]
    fn an_unknown_limit_is_refused_by_name() {
        for (value, name) in [
            (json!({"host": ["a"]}), "`host`"),
            (
                json!({"rate": {"requests": 1, "per_seconds": 1, "burst": 2}}),
                "`burst`",
            ),
        ] {
            let (code, detail) = read(value).expect_err(name);
            assert_eq!(code, Code::UnknownField);
            assert!(detail.contains(name), "{detail}");
        }
    }

    #[test]
    fn a_rate_that_counts_nothing_is_refused() {
        for rate in [
            json!({"requests": 0, "per_seconds": 1}),
            json!({"requests": 1, "per_seconds": 0}),
            json!({"requests": -1, "per_seconds": 1}),
            json!({"requests": 1}),
        ] {
            assert_eq!(
                read(json!({"rate": rate})).expect_err("refused").0,
                Code::InvalidRequest
            );
        }
    }

    #[test]
    fn a_pattern_that_means_every_host_is_refused() {
        for host in ["*", "**", "", "https://x", "a b"] {
            let (_, detail) = read(json!({"hosts": [host]})).expect_err(host);
            assert!(detail.contains("hosts[0]"), "{detail}");
        }
    }
}
