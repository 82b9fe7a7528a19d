//! The providers' own SDKs and the languages' own clients, below `claviger run`, unchanged.
//!
//! `tests/run` makes their environments and names them in `CLAVIGER_TEST_PYTHON` and `CLAVIGER_TEST_NODE_MODULES`.

use std::path::PathBuf;

use serde_json::json;

use crate::support::stack::Ran;
use crate::support::{Access, Stack};

pub(crate) fn script(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sdk")
        .join(name)
        .display()
        .to_string()
}

pub(crate) fn environment(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set; hint: start these tests by tests/run e2e")
    })
}

pub(crate) async fn python(stack: &Stack, set: &str, name: &str) -> Ran {
    let python = environment("CLAVIGER_TEST_PYTHON");
    stack
        .cli(&["run", "--set", set, "--", &python, &script(name)])
        .await
        .expect_success()
}

pub(crate) async fn node(stack: &Stack, set: &str, name: &str) -> Ran {
    let modules = environment("CLAVIGER_TEST_NODE_MODULES");
    let node = format!("{modules}/.bin/node");
    let mut command = stack.command(&["run", "--set", set, "--", &node, &script(name)]);
    command.env("NODE_PATH", modules);
    stack.run(command).await.expect_success()
}

pub(crate) async fn openai(stack: &Stack) -> Access {
    let secret = stack.secret("sk-proj-");
    let entries = json!({ "OPENAI_API_KEY": secret.text(), "OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj_1" });
    stack.access("openai", &entries, &secret, &json!({})).await
}

/// Checks the credential of every request that reached the upstream.
pub(crate) fn expect_injected(stack: &Stack, access: &Access, at_least: usize) {
    let requests = stack.upstream.requests();
    assert!(requests.len() >= at_least, "{}", requests.len());
    for request in requests {
        assert_eq!(
            request.field("authorization"),
            format!("Bearer {}", access.secret.text())
        );
    }
}

#[tokio::test]
async fn python_requests() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;

    let ran = python(&stack, "stripe/test/stripe-bot", "requests_client.py").await;

    assert!(ran.stdout.contains("requests: ok"), "{ran:#?}");
    expect_injected(&stack, &access, 2);
    stack.finish().await;
}

#[tokio::test]
async fn the_python_openai_sdk_with_and_without_streaming() {
    let stack = Stack::start().await;
    let access = openai(&stack).await;

    let ran = python(&stack, "openai/test/openai-bot", "openai_client.py").await;

    assert!(
        ran.stdout.contains("whole: hello from upstream"),
        "{ran:#?}"
    );
    assert!(
        ran.stdout.contains("streamed: hello from upstream"),
        "{ran:#?}"
    );
    expect_injected(&stack, &access, 2);
    assert_eq!(stack.upstream.last().field("openai-organization"), "org-1");
    assert_eq!(stack.upstream.last().field("openai-project"), "proj_1");
    stack.finish().await;
}

#[tokio::test]
async fn the_python_stripe_sdk() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;

    let ran = python(&stack, "stripe/test/stripe-bot", "stripe_client.py").await;

    assert!(ran.stdout.contains("charge: ch_1 4200"), "{ran:#?}");
    expect_injected(&stack, &access, 1);
    stack.finish().await;
}

#[tokio::test]
async fn node_fetch() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;

    let ran = node(&stack, "stripe/test/stripe-bot", "fetch_client.cjs").await;

    assert!(ran.stdout.contains("fetch: ok"), "{ran:#?}");
    expect_injected(&stack, &access, 2);
    stack.finish().await;
}

#[tokio::test]
async fn the_node_openai_sdk_with_and_without_streaming() {
    let stack = Stack::start().await;
    let access = openai(&stack).await;

    let ran = node(&stack, "openai/test/openai-bot", "openai_client.cjs").await;

    assert!(
        ran.stdout.contains("whole: hello from upstream"),
        "{ran:#?}"
    );
    assert!(
        ran.stdout.contains("streamed: hello from upstream"),
        "{ran:#?}"
    );
    expect_injected(&stack, &access, 2);
    stack.finish().await;
}
