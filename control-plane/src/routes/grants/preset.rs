//! A preset of the provider's template as a grant's own limits.

use leases::scope::{HostPattern, PathGlob, Scope};
use providers::{Preset, Template};

use crate::error::ApiError;
use crate::templates;
use crate::text::excerpt;

/// The limits of a grant that names a preset: the preset's, where the grant says nothing of its own.
///
/// They are written into the grant, so a template that changes later changes no grant.
pub(super) fn apply(template: &Template, name: &str, own: Scope) -> Result<Scope, ApiError> {
    let preset = template.presets().get(name);
    let preset = preset.ok_or_else(|| unknown(template, name))?;
    let limits = limits(preset, &own)?;
    let merged = Scope {
        hosts: or(own.hosts, &limits.hosts),
        methods: or(own.methods, &limits.methods),
        paths: or(own.paths, &limits.paths),
        ..own
    };
    if merged.narrows(&limits) {
        return Ok(merged);
    }
    let problem = format_args!(
        "`{name}` does not allow all of the hosts, methods and paths beside it; leave out what lies outside of it, or the preset"
    );
    Err(ApiError::invalid("constraints.preset", problem))
}

/// What the preset limits; what it says nothing of, it leaves as the grant has it.
fn limits(preset: &Preset, own: &Scope) -> Result<Scope, ApiError> {
    let paths = preset.paths.iter().map(|path| PathGlob::parse(path));
    Ok(Scope {
        hosts: preset
            .hosts
            .iter()
            .filter_map(templates::host)
            .collect::<Vec<HostPattern>>(),
        methods: preset.methods.clone(),
        paths: paths
            .collect::<Result<_, _>>()
            .map_err(ApiError::internal)?,
        ..own.clone()
    })
}

fn or<T: Clone>(own: Vec<T>, preset: &[T]) -> Vec<T> {
    if own.is_empty() { preset.to_vec() } else { own }
}

fn unknown(template: &Template, name: &str) -> ApiError {
    let known: Vec<&str> = template.presets().keys().map(String::as_str).collect();
    let known = if known.is_empty() {
        "it has none, so write the limits out".to_owned()
    } else {
        format!("known are {}", known.join(", "))
    };
    let problem = format_args!(
        "`{}` is no preset of provider {}; {known}",
        excerpt(name),
        template.name()
    );
    ApiError::invalid("constraints.preset", problem)
}

#[cfg(test)]
mod tests {
    use leases::id::{AgentId, GrantId, LeaseId, OrgId, SetId};
    use leases::mint::{Binding, MintRequest, mint};
    use leases::root_key::RootKeyPair;
    use leases::scope::{Action, Keys, Kind};
    use providers::{Catalog, parse_template};
    use serde_json::json;
    use time::{Duration, OffsetDateTime};

    use super::*;

    fn template() -> Template {
        let text = r#"
name  = "acme"
hosts = ["api.acme.example", "files.acme.example"]
keys  = { ACME_KEY = "required" }
inject = [{ header = "x-key", value = "${ACME_KEY}" }]

[presets.read-only]
about   = "Reads"
methods = ["GET", "HEAD"]
hosts   = ["api.acme.example"]
"#;
        parse_template("acme.toml", text).unwrap()
    }

    fn applied(own: serde_json::Value) -> Result<serde_json::Value, String> {
        let own = serde_json::from_value(own).unwrap();
        let scope = apply(&template(), "read-only", own);
        scope
            .map(|scope| serde_json::to_value(scope).unwrap())
            .map_err(|error| error.detail().to_owned())
    }

    #[test]
    fn a_preset_stands_for_its_limits() {
        let plain = json!({ "hosts": ["api.acme.example"], "methods": ["GET", "HEAD"] });
        assert_eq!(applied(json!({})).unwrap(), plain);
        let own = json!({ "methods": ["GET"], "paths": ["/v1/**"] });
        let narrowed =
            json!({ "hosts": ["api.acme.example"], "methods": ["GET"], "paths": ["/v1/**"] });
        assert_eq!(applied(own).unwrap(), narrowed);
    }

    #[test]
    fn what_lies_outside_of_a_preset_is_refused() {
        for own in [
            json!({ "methods": ["POST"] }),
            json!({ "methods": ["GET", "POST"] }),
            json!({ "hosts": ["files.acme.example"] }),
        ] {
            let detail = applied(own).expect_err("refused");
            assert!(
                detail.contains("`read-only` does not allow all"),
                "{detail}"
            );
        }
    }

    #[test]
    fn a_lease_has_room_for_every_built_in_preset() {
        let root = RootKeyPair::generate(1);
        let now = OffsetDateTime::UNIX_EPOCH;
        for template in Catalog::builtin().iter() {
            for name in template.presets().keys() {
                let binding = Binding {
                    set: SetId::new(now),
                    grant: GrantId::new(now),
                    provider: template.name().to_owned(),
                    hosts: templates::hosts(template),
                    keys: Keys::All,
                    scope: apply(template, name, Scope::default()).unwrap(),
                };
                let request = MintRequest {
                    org: OrgId::new(now),
                    agent: AgentId::new(now),
                    lease: LeaseId::new(now),
                    kind: Kind::Workflow,
                    action: Action::ProxyUse,
                    bindings: vec![binding],
                    issued_at: now,
                    expires_at: now + Duration::HOUR,
                };
                let minted = mint(&root, &request);
                assert!(minted.is_ok(), "{} {name}: {minted:?}", template.name());
            }
        }
    }

    #[test]
    fn an_unknown_preset_is_refused_with_the_known_ones() {
        let error = apply(&template(), "no-admin", Scope::default()).unwrap_err();
        assert!(
            error.detail().contains("known are read-only"),
            "{}",
            error.detail()
        );
    }
}
