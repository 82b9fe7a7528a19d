//! OpenAPI 3.1 of this API, made from the handlers' own annotations.

mod refusals;
pub(crate) mod shapes;

use std::sync::LazyLock;

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi, PathItem, Paths};
use utoipa::{Modify, OpenApi as _};

use self::refusals::Refusals;
use crate::problem::{self, Problem};
use crate::routes::{
    agents, approvals, audit, auth, bindings, grants, keys, kill_switch, leases, org, policies,
    providers, proxy, secret_sets, secrets, security, shares, system, usage, vaults, webhooks,
};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Claviger", description = "A credential-injection proxy with lease tokens: agents use your keys and never hold them.", license(name = "Apache-2.0", identifier = "Apache-2.0")),
    paths(
        system::openapi::handle, system::metrics::handle, system::ca::handle, system::health::handle, system::health::handle_ready, system::health::handle_hsm, problem::describe,
        auth::agent_token::handle, leases::export::handle,
        agents::list::handle, agents::create::handle, agents::get::handle, agents::update::handle, agents::update::handle_put, agents::delete::handle, agents::rotate_key::handle,
        agents::me::handle, agents::batch_delete::handle, agents::rotate_identity_keys::handle, org::agent_keys_vault::handle,
        agents::enroll::handle, agents::enrolments::list, agents::enrolments::approve, agents::enrolments::reject,
        secret_sets::list::handle, secret_sets::create::handle, secret_sets::import::handle, secret_sets::get::handle, secret_sets::update::handle,
        secret_sets::delete::handle, secret_sets::versions::handle, secret_sets::rollback::handle,
        grants::list::handle, grants::create::handle, grants::get::handle, grants::revoke::handle,
        bindings::list::handle, bindings::create::handle, bindings::get::handle, bindings::update::handle, bindings::delete::handle,
        bindings::rotate::handle, bindings::test::handle, bindings::execute::handle, bindings::executions::handle, leases::evaluate::handle,
        proxy::call::handle, proxy::profile::handle, leases::workflow::handle, leases::mint_request::handle, leases::read::handle,
        leases::list::handle, leases::create::handle, leases::revoke_token::handle, leases::get::handle, leases::revoke::handle,
        audit::events::handle_alias, audit::events::handle, audit::verify::handle, audit::export::handle, audit::tail::handle,
        providers::list::handle, providers::create::handle, providers::get::handle, system::explain::handle, system::injector::handle,
        vaults::list::handle, vaults::create::handle, vaults::get::handle, vaults::delete::handle,
        secrets::list::handle, secrets::put::handle, secrets::get::handle, secrets::delete::handle, secrets::restore::handle,
        secrets::versions::handle, secrets::version::handle, secrets::disable::handle, secrets::disable::handle_alias, secrets::rotate::handle,
        usage::get::handle, usage::billing::handle,
        shares::create::handle, shares::open::handle, shares::access::handle, shares::get::handle, shares::outbound::handle,
        shares::inbound::handle, shares::accept::handle, shares::decline::handle, shares::revoke::handle,
        policies::list::handle, policies::create::handle, policies::update::handle, policies::delete::handle, policies::explain::handle,
        keys::list::handle, keys::rotate::handle, keys::migrate::handle, keys::rotation::handle,
        approvals::list::handle, approvals::ask::handle, approvals::get::handle, approvals::decide::handle, approvals::approve::handle, approvals::deny::handle,
        kill_switch::status::handle, kill_switch::minting::handle, kill_switch::revoke_all::handle,
        auth::token::handle, auth::sign_out::handle, auth::sign_up::handle, auth::key_token::handle, auth::accept_invitation::handle,
        auth::me::get, auth::me::update, auth::change_password::handle, auth::api_keys::list, auth::api_keys::create, auth::api_keys::revoke,
        auth::mfa::setup, auth::mfa::enable, auth::mfa::disable, auth::mfa::verify,
        auth::device::code, auth::device::token, auth::device::approve,
        auth::oidc::start::handle, auth::oidc::start::in_browser, auth::oidc::callback::handle, auth::oidc::callback::in_browser,
        auth::oidc::google::handle, auth::oidc::link::handle, auth::oidc::link::unlink,
        org::members::list, org::members::update, org::members::remove,
        org::invitations::list, org::invitations::create, org::invitations::revoke,
        security::ip_rules::list, security::ip_rules::create, security::ip_rules::delete,
        webhooks::list::handle, webhooks::create::handle, webhooks::get::handle, webhooks::update::handle, webhooks::delete::handle,
        webhooks::rotate_secret::handle, webhooks::test::handle, webhooks::deliveries::handle,
    ),
    components(schemas(Problem, audit::Format)),
    security(("key" = []), ("clawb" = [])),
    modifiers(&Credentials, &Refusals),
)]
struct Api;

/// The description.
pub fn document() -> OpenApi {
    Api::openapi()
}

/// The description as JSON with a final line break, as it is committed and served.
///
/// # Panics
/// Never: the description has only strings and numbers.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document())
        .expect("the description has only strings and numbers");
    text.push('\n');
    text
}

/// The methods that a route takes, as `Allow` lists them. A wildcard at the end of `route` stands for every described path that
/// begins alike.
pub(crate) fn methods(route: &str) -> Vec<&'static str> {
    static PATHS: LazyLock<Paths> = LazyLock::new(|| document().paths);
    let found = PATHS.paths.iter().filter(|(path, _)| {
        route
            .split_once("{*")
            .map_or(path.as_str() == route, |(start, _)| path.starts_with(start))
    });
    let has = |wanted: fn(&PathItem) -> bool| found.clone().any(|(_, item)| wanted(item));
    let all = [
        ("GET", has(|item| item.get.is_some())),
        ("POST", has(|item| item.post.is_some())),
        ("PUT", has(|item| item.put.is_some())),
        ("PATCH", has(|item| item.patch.is_some())),
        ("DELETE", has(|item| item.delete.is_some())),
    ];
    all.into_iter()
        .filter_map(|(method, taken)| taken.then_some(method))
        .collect()
}

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, api: &mut OpenApi) {
        let components = api.components.get_or_insert_with(Default::default);
        let bearer = |description: &str| {
            let scheme = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some(description))
                .build();
            SecurityScheme::Http(scheme)
        };
        let key = bearer(
            "A personal key (1ck_...), an agent's key (ocv_...) or a token of POST /v1/auth/token or /v1/auth/agent-token.",
        );
        components.add_security_scheme("key", key);
        components.add_security_scheme(
            "lease",
            bearer("A lease (clv_...) for what the call does: `export_plaintext`, or `proxy_use` for a request to a provider."),
        );
        let alias =
            ApiKeyValue::with_description("X-Clawb-Api-Key", "The same key by Clawb's name.");
        components.add_security_scheme("clawb", SecurityScheme::ApiKey(ApiKey::Header(alias)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_description_is_the_one_of_this_code() {
        let committed = include_str!("../openapi.json");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        if text() != committed {
            let fresh = format!("{path}.new");
            std::fs::write(&fresh, text()).unwrap();
            panic!(
                "openapi.json is not what the code says; review {fresh} and put it in its place"
            );
        }
    }

    #[test]
    fn it_is_openapi_3_1_and_every_operation_has_an_id_of_its_own() {
        let document: serde_json::Value = serde_json::from_str(&text()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let mut ids = std::collections::BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                assert!(
                    ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                    "{operation}"
                );
            }
        }
        assert!(ids.len() >= 35);
    }

    #[test]
    fn the_methods_of_a_route_are_those_that_are_described() {
        assert_eq!(methods("/v1/agents"), ["GET", "POST"]);
        assert_eq!(
            methods("/v1/vaults/{vault_id}/secrets/{*path}"),
            ["GET", "PUT", "DELETE"]
        );
        assert_eq!(methods("/v1/nowhere"), Vec::<&str>::new());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(document: &serde_json::Value, value: &serde_json::Value) {
            if let Some(place) = value["$ref"].as_str() {
                assert!(document.pointer(&place[1..]).is_some(), "{place}");
            }
            let fields = value.as_object().into_iter().flat_map(|map| map.values());
            for inner in fields.chain(value.as_array().into_iter().flatten()) {
                check(document, inner);
            }
        }
        let document: serde_json::Value = serde_json::from_str(&text()).unwrap();
        check(&document, &document);
    }

    #[test]
    fn every_refusal_is_described_and_is_a_problem() {
        let document: serde_json::Value = serde_json::from_str(&text()).unwrap();
        let paths = document["paths"].as_object().unwrap();
        let all = paths.iter().flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(move |(method, operation)| (format!("{method} {path}"), operation))
        });
        for (name, operation) in all {
            let responses = operation["responses"].as_object().unwrap();
            assert!(!responses.contains_key("default"), "{name}");
            for status in ["500", "503"] {
                assert!(responses.contains_key(status), "{name} {status}");
            }
            let is_private = operation.get("security").is_none();
            for status in ["401", "403", "429"] {
                assert!(
                    !is_private || responses.contains_key(status),
                    "{name} {status}"
                );
            }
            for (status, response) in responses
                .iter()
                .filter(|(status, _)| status.as_str() >= "4")
            {
                let place = response["$ref"].as_str().map(|place| &place[1..]);
                let response = place.map_or(response, |place| document.pointer(place).unwrap());
                assert!(
                    response["content"]["application/problem+json"].is_object(),
                    "{name} {status}"
                );
            }
        }
    }
}
