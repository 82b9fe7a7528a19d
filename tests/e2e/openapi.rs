//! The API against its own description: Schemathesis makes requests of every kind out of `/openapi.json`, as each kind of caller, and
//! holds every answer against what the description promises. `tests/openapi/schemathesis.toml` says what it checks.
//!
//! It takes the operations from the description, so a new route is checked as soon as it is described. `tests/run` makes its
//! environment and names it in `CLAVIGER_TEST_SCHEMATHESIS`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use super::sdk::environment;
use crate::support::{Access, Stack};

/// Operations that may end the caller's own access, after which every answer would be the same refusal. They have a story of
/// their own.
const SHUT_OUT: [&str; 4] = ["signOut", "revokeApiKey", "createIpRule", "deleteIpRule"];

/// Checks the operations that `select` leaves, with this key.
async fn check(stack: &Stack, key: &str, access: &Access, select: &[&str]) {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/openapi");
    let lease = export_lease(stack, access).await;
    let mut command = Command::new(environment("CLAVIGER_TEST_SCHEMATHESIS"));
    command
        .arg("--config-file")
        .arg(place.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{}/openapi.json", stack.api_addr))
        .args(select)
        .env("PYTHONPATH", &place)
        .env("CLAVIGER_TEST_KEY", key)
        .env("CLAVIGER_TEST_LEASE", lease)
        .current_dir(stack.home.path())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(BOUND, command.output())
        .await
        .expect("the checks end in time")
        .expect("Schemathesis starts");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Excludes what is in `SHUT_OUT`, and asks for good and bad requests alike.
async fn check_all(stack: &Stack, key: &str, access: &Access, still_good: &str) {
    let select: Vec<&str> = SHUT_OUT
        .iter()
        .flat_map(|operation| ["--exclude-operation-id", operation])
        .collect();
    check(stack, key, access, &select).await;
    let reply = stack.api(key).get(still_good).await;
    assert_eq!(
        reply.status, 200,
        "an operation ended the caller's own access, so that those after it were not checked; it belongs into SHUT_OUT"
    );
}

/// A lease whose holder may read the set's values, many times.
async fn export_lease(stack: &Stack, access: &Access) -> String {
    stack
        .mint(&json!({
            "secret_set_id": access.set, "agent_id": access.agent, "kind": "workflow", "action": "export_plaintext",
            "ttl_seconds": 3600,
        }))
        .await
}

/// A server with something of each kind, and an agent that may do all that agents may.
async fn furnished() -> (Stack, Access) {
    let stack = Stack::builder().log("info").start().await;
    let actions =
        json!({ "allowed_actions": ["proxy_use", "mint_workflow_lease", "export_plaintext"] });
    let access = stack.stripe_with(&actions).await;
    let admin = stack.admin();
    let vault = json!({ "name": "checked" });
    admin.post("/v1/vaults", &vault).await.expect_status(201);
    let secret = json!({ "value": stack.secret("key-").text() });
    let place = "/v1/vaults/checked/secrets/deploy/key";
    admin.put(place, &secret).await.expect_status(201);
    let policy = json!({
        "principal_type": "agent", "principal_id": access.agent, "secret_path_pattern": "**", "permissions": ["read", "write", "delete"],
    });
    let policies = "/v1/vaults/checked/policies";
    admin.post(policies, &policy).await.expect_status(201);
    (stack, access)
}

#[tokio::test]
async fn as_an_owner() {
    let (stack, access) = furnished().await;
    let key = stack.admin_key.clone();
    check_all(&stack, &key, &access, "/v1/auth/me").await;
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn as_an_auditor() {
    let (stack, access) = furnished().await;
    let made = stack
        .cli(&["personal-key", "create", "reader", "--read-only"])
        .await
        .expect_success();
    let key = made.stdout.trim();
    stack.watch_token(key);
    check_all(&stack, key, &access, "/v1/auth/me").await;
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn as_an_agent() {
    let (stack, access) = furnished().await;
    check_all(&stack, &access.agent_key, &access, "/v1/vaults").await;
    stack.finish_without_traffic().await;
}

/// Afterwards nobody may be left who could be asked for the trail.
#[tokio::test]
async fn where_the_caller_ends_its_own_access() {
    for operation in SHUT_OUT {
        let (stack, access) = furnished().await;
        let key = stack.admin_key.clone();
        check(
            &stack,
            &key,
            &access,
            &["--include-operation-id", operation],
        )
        .await;
        stack.finish_shut_out().await;
    }
}

/// Far more than a run takes on a machine with nothing else to do.
const BOUND: Duration = Duration::from_secs(200);
