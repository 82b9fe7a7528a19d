//! How commands find what they need by an address and a key alone, and say so when they do not.

use serde_json::{Value, json};

use crate::support::Stack;

const BALANCE: &str = "https://api.stripe.com/v1/balance";

/// A command that knows the API's address and a key, and nothing else of the server.
fn elsewhere(stack: &Stack, arguments: &[&str]) -> tokio::process::Command {
    let mut command = stack.command(arguments);
    command
        .env("CLAVIGER_KEY", &stack.admin_key)
        .env_remove("CLAVIGER_KEY_FILE")
        .env_remove("CLAVIGER_PROXY");
    command
}

#[tokio::test]
async fn address_and_key_are_enough_to_find_the_injector() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let run = ["run", "--set", "stripe/test/stripe-bot", "--"];
    let curl = [&run[..], &["curl", "-sS", "--fail", BALANCE]].concat();
    stack.run(elsewhere(&stack, &curl)).await.expect_success();
    assert_eq!(
        stack.upstream.last().field("authorization"),
        format!("Bearer {}", access.secret.text())
    );
    let doctor = stack.run(elsewhere(&stack, &["doctor", "--json"])).await;
    let found: Value = serde_json::from_str(&doctor.stdout).unwrap();
    let probes = found["probes"].as_array().unwrap();
    let injector = probes.iter().find(|probe| probe["probe"] == "injector");
    assert_eq!(injector.unwrap()["state"], "ok", "{found}");
    stack.finish().await;
}

#[tokio::test]
async fn without_an_injector_the_program_does_not_start() {
    let stack = Stack::start().await;
    stack.stripe().await;
    // Taken and let go again, so that nobody answers there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = free.local_addr().unwrap().to_string();
    drop(free);
    let run = [
        "run",
        "--set",
        "stripe/test/stripe-bot",
        "--proxy",
        &nowhere,
    ];
    let ran = stack
        .run(elsewhere(
            &stack,
            &[&run[..], &["--", "echo", "started"]].concat(),
        ))
        .await;
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains(&nowhere), "{ran:?}");
    assert!(ran.stderr.contains("hint: name it with --proxy"), "{ran:?}");
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn a_dash_is_standard_output() {
    let stack = Stack::start().await;
    let value = stack.secret("key-");
    let body = json!({ "value": value.text() });
    stack
        .admin()
        .put("/v1/vaults/default/secrets/web/PLAIN", &body)
        .await
        .expect_status(201);
    let place = tempfile::tempdir().unwrap();
    let pull = [
        "env", "pull", "--prefix", "web", "--format", "json", "--output", "-",
    ];
    let mut command = stack.command(&pull);
    command.current_dir(place.path());
    // Not by `stack.run`, which takes what is printed for seen by an agent.
    let output = command.output().await.unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        document["PLAIN"] == value.text(),
        "the value as it was stored"
    );
    assert!(!place.path().join("-").exists());
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn a_command_line_that_is_wrong_is_told_as_json_where_that_was_asked_for() {
    let stack = Stack::start().await;
    let ran = stack.cli(&["--json", "lease", "mint", "--sett", "x"]).await;
    assert_eq!(ran.status, Some(2), "{ran:?}");
    let told: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(told["error"], "usage");
    assert!(
        told["detail"].as_str().unwrap().contains("--sett"),
        "{told}"
    );
    let plain = stack.cli(&["lease", "mint", "--sett", "x"]).await;
    assert_eq!(plain.status, Some(2));
    assert!(plain.stderr.contains("Usage:"), "{plain:?}");
    stack.finish_without_traffic().await;
}
