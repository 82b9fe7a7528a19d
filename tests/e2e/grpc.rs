//! gRPC by its own clients in two languages, through CONNECT: four kinds of calls, trailers, failures, deadlines, cancelling.

use crate::support::{Stack, wait};

use super::sdk::{environment, script};

/// The calls of one client. Two of them it gives up.
const CALLS: usize = 8;

async fn calls(client: &str, options: &[&str]) {
    let stack = Stack::builder().upstream_alpn(&[b"h2"]).start().await;
    let access = stack.stripe().await;
    let (program, name) = match client {
        "python" => (environment("CLAVIGER_TEST_PYTHON"), "grpc_client.py"),
        _ => ("node".to_owned(), "grpc_client.cjs"),
    };
    let run = ["run", "--set", "stripe/test/stripe-bot"];
    let script = script(name);
    let mut command = stack.command(&[&run[..], options, &["--", &program, &script]].concat());
    if client == "node" {
        command.env("NODE_PATH", environment("CLAVIGER_TEST_NODE_MODULES"));
    }
    let ran = stack.run(command).await.expect_success();

    let masked = "*".repeat(access.secret.text().len());
    for line in [
        &format!("trailer: Bearer {masked}"),
        &format!("masked: your key is Bearer {masked}"),
        "grpc: ok",
    ] {
        assert!(ran.stdout.contains(line), "{line} in {ran:#?}");
    }
    let requests = stack.upstream.requests();
    assert_eq!(requests.len(), CALLS);
    for request in &requests {
        assert_eq!(request.version, "HTTP/2");
        assert_eq!(request.field("te"), "trailers");
        assert_eq!(request.field("content-type"), "application/grpc");
        assert_eq!(request.field("grpc-accept-encoding"), "identity");
        assert_eq!(
            request.field("authorization"),
            format!("Bearer {}", access.secret.text())
        );
    }
    // The provider hears that a call was given up, by the deadline or by its caller.
    wait::until("the ends of both calls", async || {
        (stack.upstream.open_calls() == 0).then_some(())
    })
    .await;
    // Node ends its side of a call before it resets it, so what it gave up looks whole, too.
    if client == "python" {
        let complete = requests.iter().filter(|request| request.is_complete());
        assert_eq!(complete.count(), CALLS - 2);
    }
    stack.finish().await;
}

#[tokio::test]
async fn python() {
    calls("python", &[]).await;
}

#[tokio::test]
async fn python_with_the_lease_in_its_environment() {
    calls("python", &["--lease-in-env"]).await;
}

#[tokio::test]
async fn node() {
    calls("node", &[]).await;
}

#[tokio::test]
async fn node_with_the_lease_in_its_environment() {
    calls("node", &["--lease-in-env"]).await;
}
