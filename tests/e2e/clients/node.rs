//! Node's clients and SDKs, on a Node that heeds proxy variables.

use tokio::process::Command;

use super::Language::Node;
use super::{ANTHROPIC, BOTH_WAYS, GITHUB, STRIPE};
use crate::sdk::{environment, expect_injected, openai, script};
use crate::support::Stack;

#[tokio::test]
async fn undici_on_its_global_dispatcher() {
    STRIPE
        .is_called(Node, "undici_client.cjs", 2, &["undici: ok"])
        .await;
}

#[tokio::test]
async fn axios() {
    STRIPE
        .is_called(Node, "axios_client.cjs", 2, &["axios: ok"])
        .await;
}

#[tokio::test]
async fn the_stripe_sdk_by_fetch() {
    STRIPE
        .is_called(Node, "stripe_client.cjs", 1, &["charge: ch_1 4200"])
        .await;
}

#[tokio::test]
async fn the_anthropic_sdk_with_and_without_streaming() {
    ANTHROPIC
        .is_called(Node, "anthropic_client.cjs", 2, &BOTH_WAYS)
        .await;
}

#[tokio::test]
async fn octokit_page_by_page() {
    let said = ["issues: 1, 2", "opened: it still squeaks"];
    GITHUB.is_called(Node, "octokit_client.cjs", 3, &said).await;
}

#[tokio::test]
async fn a_node_that_heeds_no_proxy_uses_the_gateway_form() {
    let stack = Stack::start().await;
    let access = openai(&stack).await;
    let lease = stack.workflow_lease(&access).await;
    let gateway = format!("http://{}/gateway/openai/v1", stack.proxy_addr);

    let modules = environment("CLAVIGER_TEST_NODE_MODULES");
    let mut command = Command::new(format!("{modules}/.bin/node"));
    command
        .arg(script("openai_client.cjs"))
        .env("NODE_PATH", modules)
        .env("OPENAI_BASE_URL", gateway)
        .env("OPENAI_API_KEY", lease);
    let ran = stack.run(command).await.expect_success();

    assert!(ran.stdout.contains(BOTH_WAYS[1]), "{ran:#?}");
    expect_injected(&stack, &access, 2);
    stack.finish().await;
}
