//! The whole URL table.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, patch, post, put};
use tower_http::catch_panic::CatchPanicLayer;

use crate::routes::{
    agents, approvals, audit, auth, bindings, grants, keys, kill_switch, leases, org, policies,
    providers, proxy, secret_sets, secrets, security, shares, system, usage, vaults, webhooks,
};
use crate::{AppState, held_lease, idempotency, meter, middleware, pace, problem};

/// Puts the table and its layers together; the numbers are those of `middleware.rs`.
pub(crate) fn build(state: AppState) -> Router {
    let authenticated = authenticated()
        .route_layer(from_fn_with_state(share(&state), idempotency::once)) // 6
        .route_layer(from_fn(middleware::read_body)) // 5
        .route_layer(from_fn_with_state(share(&state), meter::count)) // 4b
        .route_layer(from_fn_with_state(share(&state), crate::auth::authenticate)); // 4
    let under_lease = under_lease()
        .route("/v1/vault/proxy/request", post(proxy::profile::handle))
        .route_layer(from_fn(middleware::read_body)) // 5
        .route_layer(from_fn_with_state(share(&state), held_lease::authenticate)); // 4
    let table = public()
        .merge(under_lease)
        .merge(by_own_credential().route_layer(from_fn(middleware::read_small_body))) // 5
        .merge(authenticated);
    dressed(table, state)
}

/// The table of an injector's API: what is open to everybody, and what it opens for a control plane that may not.
pub(crate) fn build_injector(state: AppState) -> Router {
    let under_lease = under_lease()
        .route_layer(from_fn(middleware::read_handed_on)) // 5
        .route_layer(from_fn_with_state(
            share(&state),
            held_lease::authenticate_bearer,
        )); // 4
    let table = Router::new()
        .route("/metrics", get(system::metrics::handle))
        .route("/v1/ca.pem", get(system::ca::handle))
        .route("/v1/health", get(system::health::handle))
        .route("/v1/health/hsm", get(system::health::handle_hsm))
        .route("/health/ready", get(system::health::handle_ready))
        .route("/v1/problems/{code}", get(problem::describe))
        .merge(under_lease)
        .merge(vouched().route_layer(from_fn(middleware::read_small_body))) // 5
        .merge(export().route_layer(from_fn(middleware::read_small_body))); // 5
    dressed(table, state)
}

/// What a control plane asks of an injector under a voucher, and nobody else may.
fn vouched() -> Router<AppState> {
    Router::new().route(secrets::open::PATH, post(secrets::open::handle))
}

/// The layers that every answer passes.
fn dressed(table: Router<AppState>, state: AppState) -> Router {
    table
        .fallback(middleware::no_such_path)
        .method_not_allowed_fallback(middleware::no_such_method)
        // The layers numbered 5 bound every body that is read; axum's own bound of 2 MiB would refuse what they let through.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn(middleware::no_head)) // 3b
        .layer(from_fn_with_state(share(&state), middleware::admit)) // 3
        .layer(from_fn_with_state(share(&state), pace::keep)) // 2b
        .layer(CatchPanicLayer::custom(middleware::panicked)) // 2
        .layer(from_fn_with_state(share(&state), middleware::observe)) // 1
        .with_state(state)
}

fn share(state: &AppState) -> AppState {
    AppState::clone(state)
}

/// Open to everybody.
fn public() -> Router<AppState> {
    Router::new()
        .route("/openapi.json", get(system::openapi::handle))
        .route("/metrics", get(system::metrics::handle))
        .route("/v1/ca.pem", get(system::ca::handle))
        .route("/v1/health", get(system::health::handle))
        .route("/v1/health/hsm", get(system::health::handle_hsm))
        .route("/health/ready", get(system::health::handle_ready))
        .route("/v1/problems/{code}", get(problem::describe))
}

/// What brings its own credential: a key, a password, a code, an invitation, a provider's word, a lease, or a link.
fn by_own_credential() -> Router<AppState> {
    export()
        .route("/v1/agents/enroll", post(agents::enroll::handle))
        .route("/v1/auth/agent-token", post(auth::agent_token::handle))
        .route("/v1/auth/api-key-token", post(auth::key_token::handle))
        .route("/v1/auth/token", post(auth::token::handle))
        .route("/v1/auth/signup", post(auth::sign_up::handle))
        .route(
            "/v1/auth/accept-invitation",
            post(auth::accept_invitation::handle),
        )
        .route("/v1/auth/mfa/verify", post(auth::mfa::verify))
        .route("/v1/auth/device/code", post(auth::device::code))
        .route("/v1/auth/device/token", post(auth::device::token))
        .route("/v1/share/{id}", get(shares::open::handle))
        .route("/v1/shares/{id}/access", post(shares::access::handle))
        .route("/v1/auth/oidc/start", post(auth::oidc::start::handle))
        .route("/v1/auth/oidc/start", get(auth::oidc::start::in_browser))
        .route("/v1/auth/oidc/callback", post(auth::oidc::callback::handle))
        .route(
            "/v1/auth/oidc/callback",
            get(auth::oidc::callback::in_browser),
        )
        .route("/v1/auth/google", post(auth::oidc::google::handle))
}

/// What takes a lease. Every plane that may open has it.
fn export() -> Router<AppState> {
    Router::new().route("/v1/vault/export", post(leases::export::handle))
}

/// What is done under a lease, which may be the call's own credential. Repeating it is another use, whatever key it has.
fn under_lease() -> Router<AppState> {
    Router::new()
        .route(proxy::call::PATH, post(proxy::call::handle))
        .route("/v1/vault/secrets/read", post(leases::read::handle))
}

/// The agents themselves, and where their identity keys lie.
fn agent_table() -> Router<AppState> {
    Router::new()
        .route("/v1/agents", get(agents::list::handle))
        .route("/v1/agents", post(agents::create::handle))
        .route("/v1/agents/me", get(agents::me::handle))
        .route("/v1/agents/enrolments", get(agents::enrolments::list))
        .route(
            "/v1/agents/enrolments/{id}/approve",
            post(agents::enrolments::approve),
        )
        .route(
            "/v1/agents/enrolments/{id}/reject",
            post(agents::enrolments::reject),
        )
        .route(
            "/v1/agents/batch-delete",
            post(agents::batch_delete::handle),
        )
        .route("/v1/agents/{id}", get(agents::get::handle))
        .route("/v1/agents/{id}", patch(agents::update::handle))
        .route("/v1/agents/{id}", put(agents::update::handle_put))
        .route("/v1/agents/{id}", delete(agents::delete::handle))
        .route(
            "/v1/agents/{id}/rotate-key",
            post(agents::rotate_key::handle),
        )
        .route(
            "/v1/agents/{id}/rotate-identity-keys",
            post(agents::rotate_identity_keys::handle),
        )
        .route(
            "/v1/org/agent-keys-vault",
            get(org::agent_keys_vault::handle),
        )
}

/// People, and agents where the handler takes a `Caller`.
fn authenticated() -> Router<AppState> {
    agent_table()
        .route("/v1/vault/secret-sets", get(secret_sets::list::handle))
        .route("/v1/vault/secret-sets", post(secret_sets::create::handle))
        .route(
            "/v1/vault/secret-sets/import",
            post(secret_sets::import::handle),
        )
        .route("/v1/vault/secret-sets/{id}", get(secret_sets::get::handle))
        .route(
            "/v1/vault/secret-sets/{id}",
            put(secret_sets::update::handle),
        )
        .route(
            "/v1/vault/secret-sets/{id}",
            delete(secret_sets::delete::handle),
        )
        .route(
            "/v1/vault/secret-sets/{id}/versions",
            get(secret_sets::versions::handle),
        )
        .route(
            "/v1/vault/secret-sets/{id}/rollback",
            post(secret_sets::rollback::handle),
        )
        .route("/v1/vault/grants", get(grants::list::handle))
        .route("/v1/vault/grants", post(grants::create::handle))
        .route("/v1/vault/grants/{id}", get(grants::get::handle))
        .route("/v1/vault/grants/{id}", delete(grants::revoke::handle))
        .route("/v1/vault/leases", get(leases::list::handle))
        .route("/v1/vault/leases", post(leases::create::handle))
        .route(
            "/v1/vault/leases/revoke",
            post(leases::revoke_token::handle),
        )
        .route("/v1/vault/leases/workflow", post(leases::workflow::handle))
        .route(
            "/v1/vault/leases/request/mint",
            post(leases::mint_request::handle),
        )
        .route("/v1/vault/leases/{id}", get(leases::get::handle))
        .route("/v1/vault/leases/{id}", delete(leases::revoke::handle))
        .route("/v1/vault/audit", get(audit::events::handle_alias))
        .route("/v1/audit/events", get(audit::events::handle))
        .route("/v1/audit/verify", get(audit::verify::handle))
        .route("/v1/audit/export", get(audit::export::handle))
        .route("/v1/audit/tail", get(audit::tail::handle))
        .route("/v1/providers", get(providers::list::handle))
        .route("/v1/providers", post(providers::create::handle))
        .route("/v1/providers/{name}", get(providers::get::handle))
        .route("/v1/keys", get(keys::list::handle))
        .route("/v1/keys/migrate", post(keys::migrate::handle))
        .route("/v1/keys/rotate", post(keys::rotate::handle))
        .route("/v1/keys/rotations/{id}", get(keys::rotation::handle))
        .route("/v1/usage", get(usage::get::handle))
        .route("/v1/billing/usage", get(usage::billing::handle))
        .route("/v1/explain", get(system::explain::handle))
        .route("/v1/injector", get(system::injector::handle))
        .route("/v1/approvals", get(approvals::list::handle))
        .route("/v1/approvals/request", post(approvals::ask::handle))
        .route("/v1/approvals/{id}", get(approvals::get::handle))
        .route("/v1/approvals/{id}/decide", post(approvals::decide::handle))
        .route(
            "/v1/approvals/{id}/approve",
            post(approvals::approve::handle),
        )
        .route("/v1/approvals/{id}/deny", post(approvals::deny::handle))
        .route(
            "/v1/identity/kill-switch/status",
            get(kill_switch::status::handle),
        )
        .route(
            "/v1/identity/kill-switch/minting",
            post(kill_switch::minting::handle),
        )
        .route(
            "/v1/identity/kill-switch/revoke-all",
            post(kill_switch::revoke_all::handle),
        )
        .merge(vaults_and_policies())
        .merge(sharing())
        .merge(bound())
        .merge(people())
        .merge(webhook_table())
}

/// Where the trail is told to.
fn webhook_table() -> Router<AppState> {
    Router::new()
        .route("/v1/webhooks", get(webhooks::list::handle))
        .route("/v1/webhooks", post(webhooks::create::handle))
        .route("/v1/webhooks/{id}", get(webhooks::get::handle))
        .route("/v1/webhooks/{id}", patch(webhooks::update::handle))
        .route("/v1/webhooks/{id}", delete(webhooks::delete::handle))
        .route(
            "/v1/webhooks/{id}/rotate-secret",
            post(webhooks::rotate_secret::handle),
        )
        .route("/v1/webhooks/{id}/test", post(webhooks::test::handle))
        .route(
            "/v1/webhooks/{id}/deliveries",
            get(webhooks::deliveries::handle),
        )
}

/// What an agent sends by a name. Repeating it is another use, whatever key it has; that a binding is made twice, the key prevents.
fn bound() -> Router<AppState> {
    Router::new()
        .route("/v1/agents/{id}/bindings", get(bindings::list::handle))
        .route("/v1/agents/{id}/bindings", post(bindings::create::handle))
        .route(
            "/v1/agents/{id}/bindings/{binding}",
            get(bindings::get::handle),
        )
        .route(
            "/v1/agents/{id}/bindings/{binding}",
            patch(bindings::update::handle),
        )
        .route(
            "/v1/agents/{id}/bindings/{binding}",
            delete(bindings::delete::handle),
        )
        .route(
            "/v1/agents/{id}/bindings/{binding}/rotate-credential",
            post(bindings::rotate::handle),
        )
        .route(
            "/v1/agents/{id}/bindings/{binding}/test",
            post(bindings::test::handle),
        )
        .route("/v1/agents/{id}/execute", post(bindings::execute::handle))
        .route(
            "/v1/agents/{id}/executions",
            get(bindings::executions::handle),
        )
        .route("/v1/vault/policy/eval", post(leases::evaluate::handle))
}

/// Vaults, the secrets in them by their paths, and who may: `{*path}` is a path with slashes, `{*version}` one with a version behind it.
fn vaults_and_policies() -> Router<AppState> {
    Router::new()
        .route("/v1/vaults", get(vaults::list::handle))
        .route("/v1/vaults", post(vaults::create::handle))
        .route("/v1/vaults/{vault_id}", get(vaults::get::handle))
        .route("/v1/vaults/{vault_id}", delete(vaults::delete::handle))
        .route("/v1/vaults/{vault_id}/secrets", get(secrets::list::handle))
        .route(
            "/v1/vaults/{vault_id}/secrets/{*path}",
            get(secrets::get::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/secrets/{*path}",
            put(secrets::put::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/secrets/{*path}",
            delete(secrets::delete::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/secret-restore/{*path}",
            post(secrets::restore::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/secret-rotate/{*path}",
            post(secrets::rotate::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/secret-versions/{*path}",
            get(secrets::versions::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/secret-version/{*version}",
            get(secrets::version::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/secret-version/{*version}",
            post(secrets::disable::handle_alias),
        )
        .route(
            "/v1/vaults/{vault_id}/secret-version-disable/{*version}",
            post(secrets::disable::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/policies",
            get(policies::list::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/policies",
            post(policies::create::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/policies/{policy_id}",
            put(policies::update::handle),
        )
        .route(
            "/v1/vaults/{vault_id}/policies/{policy_id}",
            delete(policies::delete::handle),
        )
        .route("/v1/policies/explain", post(policies::explain::handle))
}

/// What is shared with whom. Opening a share is in [`by_own_credential`].
fn sharing() -> Router<AppState> {
    Router::new()
        .route(
            "/v1/secrets/{secret_id}/share",
            post(shares::create::handle),
        )
        .route("/v1/share/{id}", delete(shares::revoke::handle))
        .route("/v1/shares/outbound", get(shares::outbound::handle))
        .route("/v1/shares/inbound", get(shares::inbound::handle))
        .route("/v1/shares/{id}", get(shares::get::handle))
        .route("/v1/shares/{id}/accept", post(shares::accept::handle))
        .route("/v1/shares/{id}/decline", post(shares::decline::handle))
}

/// People's own accounts, and who manages people.
fn people() -> Router<AppState> {
    Router::new()
        .route("/v1/auth/token", delete(auth::sign_out::handle))
        .route("/v1/auth/me", get(auth::me::get))
        .route("/v1/auth/me", patch(auth::me::update))
        .route(
            "/v1/auth/change-password",
            post(auth::change_password::handle),
        )
        .route("/v1/auth/api-keys", get(auth::api_keys::list))
        .route("/v1/auth/api-keys", post(auth::api_keys::create))
        .route("/v1/auth/api-keys/{id}", delete(auth::api_keys::revoke))
        .route("/v1/auth/mfa/totp/setup", post(auth::mfa::setup))
        .route("/v1/auth/mfa/totp/enable", post(auth::mfa::enable))
        .route("/v1/auth/mfa/totp/disable", post(auth::mfa::disable))
        .route("/v1/auth/device/approve", post(auth::device::approve))
        .route("/v1/auth/oidc/link", post(auth::oidc::link::handle))
        .route("/v1/auth/oidc/link", delete(auth::oidc::link::unlink))
        .route("/v1/org/members", get(org::members::list))
        .route("/v1/org/members/{id}", patch(org::members::update))
        .route("/v1/org/members/{id}", delete(org::members::remove))
        .route("/v1/org/invitations", get(org::invitations::list))
        .route("/v1/org/invitations", post(org::invitations::create))
        .route("/v1/org/invitations/{id}", delete(org::invitations::revoke))
        .route("/v1/security/ip-rules", get(security::ip_rules::list))
        .route("/v1/security/ip-rules", post(security::ip_rules::create))
        .route(
            "/v1/security/ip-rules/{id}",
            delete(security::ip_rules::delete),
        )
}
