//! Vaults, secrets by their paths, and policies: a program that has to hold a value gets that one, as often as it may, and every time
//! on record.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::Stack;
use crate::support::canary::Canary;

/// Stores a value by the command line, which takes it from a file.
async fn put(stack: &Stack, path: &str, value: &Canary, more: &[&str]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{}\n", value.text())).unwrap();
    let file = file.path().to_str().unwrap();
    let mut arguments = vec!["secret", "put", path, "--file", file];
    arguments.extend(more);
    stack.cli(&arguments).await.expect_success();
}

/// What a command prints that is asked for a value: it is not among what the leak sweep reads.
pub(crate) async fn revealed(stack: &Stack, arguments: &[&str]) -> String {
    let mut command = stack.command(arguments);
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn an_agent_gets_one_secret_by_a_policy_as_often_as_it_may_and_no_other() {
    let mut stack = Stack::start().await;
    let (key, other) = (stack.secret("key-"), stack.secret("key-"));
    let payments = ["--vault", "payments"];
    stack
        .cli(&[
            "vault",
            "create",
            "payments",
            "--description",
            "deploy keys",
        ])
        .await
        .expect_success();
    let thrice = [
        "--vault",
        "payments",
        "--type",
        "api_key",
        "--max-reads",
        "3",
    ];
    put(&stack, "deploy/api-key", &key, &thrice).await;
    put(&stack, "root/api-key", &other, &payments).await;

    // Shown without its value; revealed when asked.
    let shown = stack
        .cli(&["secret", "get", "deploy/api-key", "--vault", "payments"])
        .await;
    let shown = shown.expect_success().stdout;
    assert!(
        shown.contains("api_key") && !shown.contains(key.text()),
        "{shown}"
    );
    let reveal = [
        "secret",
        "get",
        "deploy/api-key",
        "--vault",
        "payments",
        "--reveal",
    ];
    assert_eq!(revealed(&stack, &reveal).await.trim_end(), key.text());

    // Nothing without a policy, and then what the policy says.
    let (agent, agent_key) = stack.agent("deployer").await;
    let secret = "/v1/vaults/payments/secrets/deploy/api-key";
    let bot = stack.api(&agent_key);
    bot.get(secret).await.expect_status(404);
    let policy = [
        "policy",
        "create",
        "--json",
        "--vault",
        "payments",
        "--agent",
        "deployer",
        "--path",
        "deploy/**",
        "--permissions",
        "read",
    ];
    let made = stack.cli(&policy).await.expect_success();
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    assert_eq!(made["export"], true);
    let read = bot.reveal(secret).await.expect_status(200);
    assert_eq!(read.json()["value"], key.text());
    assert_eq!(read.field("cache-control"), Some("no-store"));
    let outside = "/v1/vaults/payments/secrets/root/api-key";
    bot.get(outside).await.expect_status(403);
    bot.put(secret, &json!({ "value": "mine" }))
        .await
        .expect_status(403);
    let explain = [
        "policy", "explain", "--vault", "payments", "--agent", "deployer", "--path",
    ];
    stack
        .cli(&[&explain[..], &["deploy/api-key"]].concat())
        .await
        .expect_success();
    let refused = stack.cli(&[&explain[..], &["root/api-key"]].concat()).await;
    assert_eq!(refused.status, Some(1));
    assert!(
        refused.stderr.contains("hint: claviger policy create"),
        "{refused:?}"
    );

    // Counts and policies outlive the server.
    stack.stop().await;
    stack.start_again().await;
    let bot = stack.api(&agent_key);
    bot.reveal(secret).await.expect_status(200);
    let gone = bot.get(secret).await.expect_status(410);
    assert_eq!(gone.json()["error"], "secret_gone");
    let path = format!(
        "/v1/vaults/payments/policies/{}",
        made["id"].as_str().unwrap()
    );
    stack.admin().delete(&path).await.expect_status(204);
    bot.get(secret).await.expect_status(404);

    let events = stack.events().await;
    let reads: Vec<&Value> = events
        .iter()
        .filter(|event| event["action"] == "secret.read" && event["decision"] == "allow")
        .collect();
    assert_eq!(reads.len(), 3);
    let by_agent = reads
        .iter()
        .filter(|event| event["agent_id"] == agent.as_str());
    assert_eq!(by_agent.clone().count(), 2);
    assert!(
        by_agent
            .clone()
            .all(|event| event["policy_id"] == made["id"])
    );
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn a_secret_is_replaced_disabled_deleted_and_restored_by_the_command_line() {
    let stack = Stack::start().await;
    let (first, second) = (stack.secret("one-"), stack.secret("two-"));
    put(&stack, "db/password", &first, &["--type", "password"]).await;
    put(&stack, "db/password", &second, &["--type", "password"]).await;
    let reveal = ["secret", "get", "db/password", "--reveal"];
    assert_eq!(revealed(&stack, &reveal).await.trim_end(), second.text());
    stack
        .cli(&["secret", "disable", "db/password", "2"])
        .await
        .expect_success();
    assert_eq!(revealed(&stack, &reveal).await.trim_end(), first.text());
    stack
        .cli(&[
            "secret",
            "rotate",
            "db/password",
            "--length",
            "40",
            "--charset",
            "alphanumeric",
        ])
        .await
        .expect_success();
    assert_eq!(revealed(&stack, &reveal).await.trim_end().len(), 40);
    let versions = stack
        .cli(&["secret", "versions", "db/password", "--json"])
        .await;
    let versions: Value = serde_json::from_str(&versions.expect_success().stdout).unwrap();
    assert_eq!(versions["versions"].as_array().unwrap().len(), 3);

    stack
        .cli(&["secret", "delete", "db/password"])
        .await
        .expect_success();
    let gone = stack.cli(&reveal).await;
    assert_eq!(gone.status, Some(1));
    assert!(
        gone.stderr.contains("deleted") && gone.stderr.contains("hint:"),
        "{gone:?}"
    );
    stack
        .cli(&["secret", "restore", "db/password"])
        .await
        .expect_success();
    let listed = stack.cli(&["secret", "list", "db/"]).await.expect_success();
    assert!(listed.stdout.contains("db/password"), "{listed:?}");

    // A value has no place on the command line, and a set's entry none in this view.
    let argument = stack
        .cli(&["secret", "put", "db/password", "hunter2"])
        .await;
    assert_eq!(argument.status, Some(2));
    let empty = stack.cli(&["secret", "put", "db/password"]).await;
    assert_eq!(empty.status, Some(1));
    assert!(empty.stderr.contains("empty"), "{empty:?}");
    stack.stripe().await;
    let entry = [
        "secret",
        "get",
        "stripe/test/stripe-bot/STRIPE_SECRET_KEY",
        "--reveal",
    ];
    let refused = stack.cli(&entry).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("export_plaintext"), "{refused:?}");
    let missing = stack.cli(&["secret", "get", "none"]).await;
    assert_eq!(missing.status, Some(1));
    assert!(
        missing.stderr.contains("hint: `claviger secret list`"),
        "{missing:?}"
    );
    let refused = stack.cli(&["vault", "delete", "default"]).await;
    assert_eq!(refused.status, Some(1));
    stack.finish_without_traffic().await;
}
