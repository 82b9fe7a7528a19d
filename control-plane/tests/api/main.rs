//! The REST API from the outside: `app()` with requests in, answers out, on a real store and real keys in a temporary directory.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

mod access;
mod agent_keys;
mod agent_oidc;
mod agents;
mod approvals;
mod audit;
mod auth;
mod bootstrap;
mod bound_tokens;
mod doubles;
mod enrolment;
mod export;
mod flaws;
mod grants;
mod hostile;
mod idempotency;
mod identity_provider;
mod keys;
mod kill_switch;
mod leases;
mod least_right;
mod members;
mod mfa;
mod oidc;
mod path_secrets;
mod people;
mod policies;
mod problems;
mod providers;
mod secret_sets;
mod shares;
mod signed_requests;
mod story;
mod support;
mod system;
mod usage;
mod vaults;
mod vaults_matrix;
mod webhooks;
