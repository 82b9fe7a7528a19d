//! What `claviger run` keeps out of its program's hands, and what it does for it meanwhile.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::sdk::{environment, script};
use crate::support::stack::Ran;
use crate::support::{Stack, wait};

pub(crate) const SET: &str = "stripe/test/stripe-bot";

/// Runs a shell script below `claviger run`.
pub(crate) async fn shell(stack: &Stack, options: &[&str], text: &str) -> Ran {
    let arguments = [&["run", "--set", SET], options, &["--", "sh", "-c", text]].concat();
    stack.cli(&arguments).await
}

/// What a file of the program says, once it says something.
pub(crate) async fn said(path: &Path) -> String {
    wait::until("the program's line", async || {
        let text = std::fs::read_to_string(path).ok()?;
        text.ends_with('\n').then(|| text.trim().to_owned())
    })
    .await
}

/// The leases by which requests were used, in the audit trail.
async fn leases_used(stack: &Stack) -> BTreeSet<String> {
    let events = stack.events().await;
    let used = events.iter().filter(|event| event["action"] == "lease.use");
    used.map(|event| event["lease_id"].as_str().unwrap().to_owned())
        .collect()
}

/// Speaks to a proxy as a program of another process tree would.
async fn ask(stack: &Stack, address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = wait::within("an answer", stream.read(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer[..read.unwrap()]).into_owned();
    stack.seen.record(answer.as_bytes());
    answer
}

#[tokio::test]
async fn the_programs_port_serves_the_program_and_nobody_else() {
    let stack = Stack::start().await;
    stack.stripe().await;
    let (told, stop) = (
        stack.home.path().join("told"),
        stack.home.path().join("stop"),
    );
    let script = format!(
        "echo $HTTPS_PROXY > {}; while [ ! -e {} ]; do sleep 0.05; done; curl -sS https://api.stripe.com/v1/balance",
        told.display(),
        stop.display()
    );

    let strangers = async {
        let proxy = said(&told).await;
        let address = proxy.strip_prefix("http://").unwrap().to_owned();
        for request in [
            "CONNECT api.stripe.com:443 HTTP/1.1\r\nHost: api.stripe.com:443\r\n\r\n",
            "GET http://api.stripe.com/ HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ] {
            let answer = ask(&stack, &address, request).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
            assert!(answer.contains("grant_denied"), "{answer}");
        }
        std::fs::write(&stop, "").unwrap();
    };
    let (ran, ()) = tokio::join!(shell(&stack, &[], &script), strangers);

    ran.expect_success();
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn what_the_program_leaves_behind_still_belongs_to_it() {
    let stack = Stack::start().await;
    stack.stripe().await;
    let done = stack.home.path().join("done");
    // The middle shell ends at once, so the last one has lost its parent.
    let script = format!(
        "(setsid sh -c 'sleep 0.2; curl -sS -o /dev/null -w \"%{{http_code}}\\n\" https://api.stripe.com/v1/balance > {0}' &) ; \
         while [ ! -s {0} ]; do sleep 0.05; done; cat {0}",
        done.display()
    );

    let ran = shell(&stack, &[], &script).await.expect_success();

    assert_eq!(ran.stdout.trim(), "200", "{ran:#?}");
    stack.finish().await;
}

#[tokio::test]
async fn a_lease_is_renewed_ahead_of_its_end_and_a_busy_connection_does_not_notice() {
    let stack = Stack::start().await;
    stack.stripe().await;
    let stop = stack.home.path().join("stop");
    let stop_at = stop.display().to_string();
    let arguments = [
        "run",
        "--set",
        SET,
        "--ttl",
        "8s",
        "--",
        &environment("CLAVIGER_TEST_PYTHON"),
        &script("session_loop.py"),
        &stop_at,
    ];

    let mut program = Box::pin(stack.cli(&arguments));
    let third = wait::until_after(
        Duration::from_mins(1),
        "the use of a third lease",
        async || (leases_used(&stack).await.len() >= 3).then_some(()),
    );
    tokio::select! {
        ran = &mut program => panic!("it ended too early: {ran:#?}"),
        () = third => std::fs::write(&stop, "").unwrap(),
    }
    let ran = program.await;

    let ran = ran.expect_success();
    assert!(ran.stdout.contains("session: ok"), "{ran:#?}");
    for lease in leases_used(&stack).await {
        let shown = stack.lease(&lease).await;
        let ended = shown["expires_at"].as_str().unwrap() < now(&stack).await.as_str();
        assert!(ended || !shown["revoked_at"].is_null(), "{shown}");
    }
    stack.finish().await;
}

/// The server's clock, as its newest event tells it.
async fn now(stack: &Stack) -> String {
    let events = stack.events().await;
    let last = events
        .iter()
        .filter_map(|event| event["created_at"].as_str());
    last.max().unwrap().to_owned()
}

#[tokio::test]
async fn a_refusal_at_the_door_is_no_question_for_a_password() {
    let stack = Stack::start().await;
    stack.stripe().await;
    let (told, stop) = (
        stack.home.path().join("told"),
        stack.home.path().join("stop"),
    );
    let script = format!(
        "curl -sS -o /dev/null https://api.stripe.com/v1/balance; echo ready > {}; \
         while [ ! -e {} ]; do sleep 0.05; done; \
         curl -s -o /dev/null -w '%{{http_connect}}' https://api.stripe.com/v1/balance",
        told.display(),
        stop.display()
    );

    let revoking = async {
        said(&told).await;
        for lease in leases_used(&stack).await {
            let path = format!("/v1/vault/leases/{lease}");
            stack.admin().delete(&path).await.expect_status(204);
        }
        std::fs::write(&stop, "").unwrap();
    };
    let (ran, ()) = tokio::join!(shell(&stack, &[], &script), revoking);

    assert_eq!(ran.stdout.trim(), "403", "{ran:#?}");
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn cleartext_is_refused_by_the_injector_and_not_carried_past_it() {
    let stack = Stack::start().await;
    stack.stripe().await;

    let ran = shell(&stack, &[], "curl -sS http://api.stripe.com/v1/balance").await;

    assert!(ran.stdout.contains("plaintext_denied"), "{ran:#?}");
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn learning_names_the_least_grant_for_what_was_done_and_tried() {
    let stack = Stack::start().await;
    stack
        .stripe_with(&json!({ "constraints": { "paths": ["/v1/balance"] } }))
        .await;
    let script = "curl -sS https://api.stripe.com/v1/balance; curl -sS -X POST https://api.stripe.com/v1/charges -d a=b; \
                  curl -s https://other.example/; true";

    let ran = shell(&stack, &["--learn"], script).await.expect_success();

    for part in [
        "used 1 times and refused 1 times",
        "--host api.stripe.com --method GET,POST --path /v1/balance --path /v1/charges",
        "other.example was refused",
        "then: claviger grant revoke",
    ] {
        assert!(ran.stderr.contains(part), "{part} is missing: {ran:#?}");
    }
    stack.finish().await;
}

#[tokio::test]
async fn run_says_when_its_program_could_read_the_administrators_key() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;

    let ran = stack
        .cli(&[
            "run",
            "--data",
            &stack.data.display().to_string(),
            "--set",
            SET,
            "--",
            "true",
        ])
        .await
        .expect_success();
    assert!(ran.stderr.contains("admin.key"), "{ran:#?}");

    let mut command = stack.command(&["run", "--set", SET, "--", "true"]);
    command
        .env_remove("CLAVIGER_KEY_FILE")
        .env("CLAVIGER_KEY", &access.agent_key);
    let ran = stack.run(command).await.expect_success();
    assert!(!ran.stderr.contains("admin.key"), "{ran:#?}");
    stack.finish().await;
}
