//! The REST API from the outside: `app()` with requests in, answers out, on a real store and real keys in a temporary directory.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails its test"
)]

mod access;
mod agents;
mod audit;
mod auth;
mod bootstrap;
mod export;
mod grants;
mod idempotency;
mod leases;
mod problems;
mod providers;
mod secret_sets;
mod story;
mod support;
mod system;
