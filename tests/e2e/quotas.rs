//! Quotas: an operator says how much an organization may have; people see how it stands, and nobody inside of it gets more.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::Stack;

/// What the command line tells of the organization's use.
async fn usage(stack: &Stack) -> Value {
    let ran = stack.cli(&["--json", "usage"]).await.expect_success();
    serde_json::from_str(&ran.stdout).unwrap()
}

#[tokio::test]
async fn a_quota_holds_until_the_operator_gives_more_and_outlives_the_server() {
    let mut stack = Stack::builder()
        .variable("CLAVIGER_QUOTAS_AGENTS", "2")
        .variable("CLAVIGER_QUOTAS_VAULTS", "1")
        .start()
        .await;
    let access = stack.stripe().await;
    stack.agent("second").await;
    let full = stack.cli(&["agent", "create", "third"]).await;
    assert_eq!(full.status, Some(1));
    assert!(full.stderr.contains("Agent limit"), "{full:?}");
    assert!(full.stderr.contains("hint: `claviger usage`"), "{full:?}");
    stack
        .cli(&["vault", "create", "one"])
        .await
        .expect_success();
    let full = stack.cli(&["vault", "create", "two"]).await;
    assert!(full.stderr.contains("Vault limit"), "{full:?}");
    let told = usage(&stack).await;
    assert_eq!(
        told["agents"],
        json!({"used": 2, "limit": 2, "percent": 100})
    );
    assert_eq!(told["secrets"]["limit"], Value::Null);
    let shown = stack.cli(&["usage"]).await.expect_success();
    assert!(shown.stdout.contains("requests this month"), "{shown:?}");

    // A use of a lease counts as a request, and what was counted is there after a restart.
    let token = stack.workflow_lease(&access).await;
    let before = usage(&stack).await["requests"]["used"].as_u64().unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--fail", "--proxy"])
        .arg(format!("http://lease:{token}@{}", stack.proxy_addr))
        .arg("--cacert")
        .arg(&stack.ca)
        .arg("https://api.stripe.com/v1/balance");
    stack.run(curl).await.expect_success();
    let after = usage(&stack).await["requests"]["used"].as_u64().unwrap();
    // The use, and the second look itself.
    assert_eq!(after, before + 2);

    // The operator's command is for who has the database; a file is one process's.
    let set = ["quota", "set", "--agents", "3", "--requests-per-month"];
    let limit = (after + 2).to_string();
    let set = [&set[..], &[limit.as_str()]].concat();
    let data = ["--data", stack.data.to_str().unwrap()].map(str::to_owned);
    let offline = |arguments: &[&str]| {
        let mut command = stack.command(arguments);
        // The injector's URL to programs is a server's own address to a server.
        command.args(&data).env_remove("CLAVIGER_PROXY");
        command
    };
    let busy = stack.run(offline(&set)).await;
    assert_eq!(busy.status, Some(1));
    assert!(busy.stderr.contains("stop it first"), "{busy:?}");
    let (said, shown, none) = (
        offline(&set),
        offline(&["quota", "show", "--json"]),
        offline(&["quota", "set"]),
    );
    stack.stop().await;
    stack.run(said).await.expect_success();
    let shown = stack.run(shown).await.expect_success();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["agents"], 3);
    assert_eq!(shown["vaults"], "default");
    assert_eq!(stack.run(none).await.status, Some(2));
    stack.start_again().await;
    stack.agent("third").await;
    let told = usage(&stack).await;
    assert_eq!(told["requests"]["used"], after + 2);

    // The month is used up: nothing is minted, and revoking works.
    let mint = json!({"agent_id": access.agent, "secret_set_id": access.set});
    let refused = stack.admin().post("/v1/vault/leases", &mint).await;
    let refused = refused.expect_status(403);
    assert_eq!(refused.field("x-ratelimit-requests-percent"), Some("100"));
    assert_eq!(refused.json()["error"], "resource_limit_exceeded");
    // Nor is a lease used that was minted before.
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--proxy"])
        .arg(format!("http://lease:{token}@{}", stack.proxy_addr))
        .arg("--cacert")
        .arg(&stack.ca)
        .arg("https://api.stripe.com/v1/balance");
    let refused = stack.run(curl).await.expect_success();
    assert!(refused.stdout.contains("Request limit"), "{refused:?}");
    let grant = format!("/v1/vault/grants/{}", access.grant);
    stack.admin().delete(&grant).await.expect_status(204);
    stack.finish().await;
}

#[tokio::test]
async fn an_address_has_a_burst_of_requests_and_then_waits() {
    let stack = Stack::builder()
        .variable("CLAVIGER_LIMITS_API_REQUESTS_PER_SECOND", "50")
        .variable("CLAVIGER_LIMITS_API_REQUEST_BURST", "60")
        .start()
        .await;
    let admin = stack.admin();
    let flood = (0..200).map(|_| admin.get("/v1/agents"));
    let answers = futures::future::join_all(flood).await;
    let (refused, answered): (Vec<_>, Vec<_>) =
        answers.iter().partition(|answer| answer.status == 429);
    assert!(
        answered.len() >= 60 && refused.len() >= 20,
        "{}",
        refused.len()
    );
    assert!(answered.iter().all(|answer| answer.status == 200));
    let longest = refused.iter().map(|answer| answer.retry_after()).max();
    admin.get("/v1/health").await.expect_status(200);
    // Room comes back by the clock, when the answers said.
    tokio::time::sleep(longest.unwrap()).await;
    admin.get("/v1/agents").await.expect_status(200);
    stack.finish_without_traffic().await;
}
