//! Python's clients and SDKs.

use tokio::process::Command;

use super::Language::Python;
use super::{ANTHROPIC, BOTH_WAYS, GEMINI, GITHUB, SLACK, STRIPE};
use crate::sdk::{environment, expect_injected, script};
use crate::support::Stack;

#[tokio::test]
async fn httpx_over_both_protocols() {
    STRIPE
        .is_called(Python, "httpx_client.py", 6, &["httpx: ok"])
        .await;
}

#[tokio::test]
async fn aiohttp() {
    STRIPE
        .is_called(Python, "aiohttp_client.py", 2, &["aiohttp: ok"])
        .await;
}

#[tokio::test]
async fn the_standard_librarys_urllib() {
    STRIPE
        .is_called(Python, "urllib_client.py", 1, &["urllib: ok"])
        .await;
}

#[tokio::test]
async fn urllib3_with_the_proxy_of_the_environment() {
    STRIPE
        .is_called(Python, "urllib3_client.py", 2, &["urllib3: ok"])
        .await;
}

#[tokio::test]
async fn the_anthropic_sdk_with_and_without_streaming() {
    ANTHROPIC
        .is_called(Python, "anthropic_client.py", 2, &BOTH_WAYS)
        .await;
}

#[tokio::test]
async fn pygithub_page_by_page() {
    let said = ["issues: [1, 2]", "opened: it still squeaks"];
    GITHUB.is_called(Python, "github_client.py", 4, &said).await;
}

#[tokio::test]
async fn the_google_genai_sdk_with_and_without_streaming() {
    let said = [&BOTH_WAYS[..], &["awaited: hello from upstream"]].concat();
    GEMINI.is_called(Python, "gemini_client.py", 3, &said).await;
}

#[tokio::test]
async fn the_slack_sdk() {
    let said = ["posted: C1 hello & welcome", "awaited: hello & again"];
    SLACK.is_called(Python, "slack_client.py", 3, &said).await;
}

#[tokio::test]
async fn what_reads_no_environment_uses_the_gateway_form() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let lease = stack.workflow_lease(&access).await;

    let mut command = Command::new(environment("CLAVIGER_TEST_PYTHON"));
    let gateway = format!("http://{}/gateway/stripe", stack.proxy_addr);
    command
        .arg(script("gateway_client.py"))
        .args([gateway, lease]);
    let ran = stack.run(command).await.expect_success();

    for said in ["urllib3 and aiohttp: ok", "charge: ch_1 4200"] {
        assert!(ran.stdout.contains(said), "{ran:#?}");
    }
    expect_injected(&stack, &access, 3);
    stack.finish().await;
}
