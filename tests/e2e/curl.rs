//! curl as people call it, by the variables that `run` sets and by hand.

use tokio::process::Command;

use crate::support::Stack;

#[tokio::test]
async fn curl_with_the_proxy_url_and_the_ca_by_hand() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    for options in [
        &["--http1.1"][..],
        &["--http2"],
        &["--http2", "-d", "amount=5"],
        &["-I"],
    ] {
        let mut curl = Command::new("curl");
        curl.args([
            "-sS",
            "--fail",
            "--proxy",
            &format!("http://lease:{token}@{}", stack.proxy_addr),
            "--cacert",
        ])
        .arg(&stack.ca)
        .args(options)
        .arg("https://api.stripe.com/v1/balance");
        stack.run(curl).await.expect_success();
        assert_eq!(
            stack.upstream.last().field("authorization"),
            format!("Bearer {}", access.secret.text())
        );
    }
    stack.finish().await;
}

#[tokio::test]
async fn curl_tries_again_after_a_407_when_it_is_told_to_find_the_scheme() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.request_lease(&access).await;

    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--fail",
        "--proxy-anyauth",
        "--proxy",
        &format!("http://{}", stack.proxy_addr),
    ])
    .args(["--proxy-user", &format!("lease:{token}"), "--cacert"])
    .arg(&stack.ca)
    .arg("https://api.stripe.com/v1/balance");
    stack.run(curl).await.expect_success();

    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn several_sets_in_one_run_go_each_to_its_host() {
    let stack = Stack::start().await;
    let stripe = stack.stripe().await;
    let secret = stack.secret("sk-");
    let set = stack
        .put_set(
            "openai",
            "brain",
            &serde_json::json!({ "OPENAI_API_KEY": secret.text() }),
        )
        .await;
    stack
        .grant(&stripe.agent, &set, &serde_json::json!({}))
        .await;

    let script =
        "curl -sS --fail https://api.stripe.com/v1/balance https://api.openai.com/v1/models";
    stack
        .cli(&[
            "run",
            "--set",
            "stripe/test/stripe-bot",
            "--set",
            "openai/test/brain",
            "--",
            "sh",
            "-c",
            script,
        ])
        .await
        .expect_success();

    let by_host = |host: &str| {
        stack
            .upstream
            .requests()
            .into_iter()
            .find(|request| request.authority == host)
            .unwrap()
    };
    assert_eq!(
        by_host("api.stripe.com").field("authorization"),
        format!("Bearer {}", stripe.secret.text())
    );
    assert_eq!(
        by_host("api.openai.com").field("authorization"),
        format!("Bearer {}", secret.text())
    );
    stack.finish().await;
}
