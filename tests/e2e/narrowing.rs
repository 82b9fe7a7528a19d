//! A holder narrows his lease offline; a child can never do more than its parent, nor outlive it.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::support::stack::Ran;
use crate::support::tunnel::basic;
use crate::support::{Stack, wait};

/// `claviger lease narrow` with the token on stdin: no server, no key.
pub(crate) async fn narrow(stack: &Stack, token: &str, options: &[&str]) -> String {
    let ran = narrow_to_end(stack, token, options).await.expect_success();
    let child = ran.stdout.trim().to_owned();
    assert!(child.starts_with("clv_"), "{child:?}");
    stack.watch_token(&child);
    child
}

async fn narrow_to_end(stack: &Stack, token: &str, options: &[&str]) -> Ran {
    let mut command = crate::support::stack::binary(stack.home.path());
    command
        .args(["lease", "narrow"])
        .args(options)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(format!("{token}\n").as_bytes())
        .await
        .unwrap();
    drop(stdin);
    let output = wait::within("lease narrow", child.wait_with_output())
        .await
        .unwrap();
    Ran {
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[tokio::test]
async fn a_child_narrowed_to_a_method_and_path_does_that_and_nothing_else() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let child = narrow(
        &stack,
        &token,
        &["--method", "GET", "--path", "/v1/balance"],
    )
    .await;
    let mut tunnel = stack.tunnel("api.stripe.com", &child).await;

    tunnel.get("/v1/balance").await.expect_status(200);
    tunnel
        .get("/v1/charges")
        .await
        .expect_refusal(403, "lease_scope");
    tunnel
        .request("POST", "/v1/balance", &[], b"x")
        .await
        .unwrap()
        .expect_refusal(403, "lease_scope");

    assert_eq!(stack.upstream.count(), 1);
    stack
        .get("api.stripe.com", "/v1/charges", &token)
        .await
        .expect_status(200);
    stack.finish().await;
}

#[tokio::test]
async fn a_child_narrowed_to_a_host_is_refused_at_connect_to_others() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let child = narrow(&stack, &token, &["--host", "files.stripe.com"]).await;

    stack
        .get("files.stripe.com", "/v1/files", &child)
        .await
        .expect_status(200);
    let (reply, _) = stack.connect("api.stripe.com:443", &basic(&child)).await;

    reply.expect_refusal(403, "lease_scope");
    stack.finish().await;
}

#[tokio::test]
async fn a_child_cannot_widen_what_its_parent_left() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&json!({ "constraints": { "paths": ["/v1/charges/**"] } }))
        .await;
    let token = stack.workflow_lease(&access).await;
    let child = narrow(&stack, &token, &["--path", "/v1/charges/a/**"]).await;
    let grandchild = narrow(
        &stack,
        &child,
        &[
            "--path",
            "/v1/**",
            "--host",
            "api.openai.com",
            "--host",
            "api.stripe.com",
        ],
    )
    .await;
    let mut tunnel = stack.tunnel("api.stripe.com", &grandchild).await;

    tunnel.get("/v1/charges/a/1").await.expect_status(200);
    tunnel
        .get("/v1/charges/b/1")
        .await
        .expect_refusal(403, "lease_scope");
    tunnel.get("/v1/balance").await.expect_status(403);
    let (reply, _) = stack
        .connect("api.openai.com:443", &basic(&grandchild))
        .await;
    reply.expect_refusal(403, "grant_denied");

    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_childs_passed_expiry_is_lease_expired_while_its_parent_goes_on() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let child = narrow(&stack, &token, &["--ttl", "1s"]).await;

    let refusal = wait::until("the child to expire", async || {
        let (reply, _) = stack.connect("api.stripe.com:443", &basic(&child)).await;
        (reply.status != 200).then_some(reply)
    })
    .await;

    assert_eq!(refusal.code(), "lease_expired", "{}", refusal.text());
    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);
    stack.finish().await;
}

#[tokio::test]
async fn revoking_a_parent_revokes_its_children() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let (token, lease) = stack.workflow_lease_with_id(&access).await;
    let child = narrow(&stack, &token, &["--method", "GET"]).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &child).await;
    tunnel.get("/v1/balance").await.expect_status(200);

    stack
        .admin()
        .delete(&format!("/v1/vault/leases/{lease}"))
        .await
        .expect_status(204);

    tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(403, "lease_revoked");
    let (reply, _) = stack.connect("api.stripe.com:443", &basic(&child)).await;
    reply.expect_refusal(407, "lease_revoked");
    stack.finish().await;
}

#[tokio::test]
async fn revoking_a_child_by_its_token_leaves_parent_and_siblings() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let child = narrow(&stack, &token, &["--method", "GET"]).await;
    let grandchild = narrow(&stack, &child, &["--path", "/v1/**"]).await;
    let sibling = narrow(&stack, &token, &["--path", "/v1/**"]).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &grandchild).await;
    tunnel.get("/v1/balance").await.expect_status(200);

    let reply = stack
        .admin()
        .post("/v1/vault/leases/revoke", &json!({ "token": child }))
        .await;
    assert_eq!(reply.status / 100, 2, "{}", reply.text());

    tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(403, "lease_revoked");
    for gone in [&child, &grandchild] {
        let (reply, _) = stack.connect("api.stripe.com:443", &basic(gone)).await;
        reply.expect_refusal(407, "lease_revoked");
    }
    for alive in [&token, &sibling] {
        stack
            .get("api.stripe.com", "/v1/balance", alive)
            .await
            .expect_status(200);
    }
    stack.finish().await;
}

#[tokio::test]
async fn no_more_than_eight_blocks_are_taken() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let mut token = stack.workflow_lease(&access).await;

    let refused = 'deepest: {
        for _ in 0..16 {
            let ran = narrow_to_end(&stack, &token, &["--method", "GET"]).await;
            if ran.status != Some(0) {
                break 'deepest ran;
            }
            token = ran.stdout.trim().to_owned();
            stack.watch_token(&token);
        }
        panic!("sixteen blocks were taken");
    };

    assert_eq!(refused.status, Some(1), "{refused:?}");
    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);
    stack.finish().await;
}
