//! The built product, end to end: each module is a story told by the binary, a recording upstream and real clients.
//!
//! Every story of a `Stack` or a `Fleet` ends with `finish`, which compares the ledger with what the upstream received and then
//! looks for the story's secrets wherever they could have leaked. Without it the story fails.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::disallowed_methods,
    reason = "the clients and the tests live in real time"
)]

#[path = "../support/mod.rs"]
mod support;

mod address;
mod agent_auth;
mod approvals;
mod audit;
mod aws_bounds;
mod aws_chunks;
mod aws_clients;
mod aws_copies;
mod bindings;
mod carriers;
mod checks;
mod clients;
mod crash;
mod curl;
mod demo;
mod door;
mod elsewhere;
mod environments;
mod export;
mod failure;
mod forgery;
mod framing;
mod git;
mod github_apps;
mod grpc;
mod h2_hostile;
mod hsm;
mod http2;
mod identity_keys;
mod kill_switch;
mod kms;
mod limits;
mod matrix;
mod memory;
mod mfa;
mod minting;
mod narrowing;
mod nodes;
mod oidc;
mod openapi;
mod outage;
mod people;
mod permission;
mod protocol;
mod providers;
mod proxied;
mod proxy_tls;
mod quotas;
mod reaching;
mod readme;
mod reflection;
mod rest;
mod restore;
mod revocation;
mod roles;
mod rotation;
mod sdk;
mod shares;
mod sigv4;
mod single_use;
mod slow;
mod smuggling;
mod socks;
mod spend;
mod streaming;
mod stripping;
mod templates;
mod tokens;
mod upgrade;
mod upstream_proxy;
mod vaults;
mod webhooks;
mod websocket;
mod wrapped;
