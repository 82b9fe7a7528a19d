//! The two checks themselves: each must fail where there is something to find.

use std::sync::Arc;

use crate::support::{Stack, Upstream};

#[tokio::test]
#[should_panic(expected = "the story ends without its two checks")]
async fn a_story_that_leaves_them_out_fails() {
    let stack = Stack::start().await;
    stack.stripe().await;
}

#[tokio::test]
#[should_panic(expected = "a secret is in what the agents received")]
async fn the_sweep_fails_when_an_agent_has_received_a_secret() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let reply = stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);

    stack
        .seen
        .record(&[&reply.body, access.secret.bytes()].concat());

    stack.finish().await;
}

#[tokio::test]
#[should_panic(expected = "a secret is in")]
async fn the_sweep_fails_when_a_file_of_the_data_directory_holds_a_secret() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;

    std::fs::write(stack.data.join("note"), hex::encode(access.secret.bytes())).unwrap();

    stack.finish().await;
}

#[tokio::test]
#[should_panic(expected = "1 at the upstream, 0 recorded")]
async fn reconciling_fails_when_a_request_has_no_record() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;

    // Straight to the upstream, as a faulty injector would without asking its ledger.
    let mut roots = tempfile::NamedTempFile::new().unwrap();
    std::io::Write::write_all(&mut roots, stack.upstream.ca_pem().as_bytes()).unwrap();
    let mut curl = tokio::process::Command::new("curl");
    curl.args(["-sS", "--fail", "--noproxy", "*", "--cacert"])
        .arg(roots.path())
        .args([
            "--resolve",
            &format!("api.stripe.com:{}:127.0.0.1", stack.upstream.addr.port()),
        ])
        .args([
            "-H",
            &format!("Authorization: Bearer {}", access.secret.text()),
        ])
        .arg(format!(
            "https://api.stripe.com:{}/v1/balance",
            stack.upstream.addr.port()
        ));
    assert!(curl.status().await.unwrap().success());

    stack.finish().await;
}

#[tokio::test]
#[should_panic(expected = "1 recorded as sent, 0 at the upstream")]
async fn reconciling_fails_when_a_recorded_request_went_elsewhere() {
    let mut stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);

    stack.ends.upstream = Arc::new(Upstream::start(&["api.stripe.com"]).await);

    stack.finish().await;
}
