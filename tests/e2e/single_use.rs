//! A request lease is used once, however many try at once and however its text is dressed up.

use std::time::Duration;

use leases::{Narrowing, PresentedToken, attenuate};

use crate::support::tunnel::{expect_one_winner, race};
use crate::support::{Reply, Stack};

const RACERS: usize = 64;

/// Races one request in a tunnel by each of these leases.
async fn race_all(stack: &Stack, tokens: &[String]) -> Vec<Reply> {
    let mut tunnels = Vec::new();
    for token in tokens {
        tunnels.push(stack.tunnel("api.stripe.com", token).await);
    }
    race(tunnels, "/v1/charges").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_racers_on_one_request_lease_exactly_one_reaches_the_upstream() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.request_lease(&access).await;

    let replies = race_all(&stack, &vec![token; RACERS]).await;

    expect_one_winner(replies);
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_of_one_request_lease_share_its_one_use() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.request_lease(&access).await;
    let parent = PresentedToken::parse(&token).unwrap();
    let children: Vec<String> = (0..8)
        .map(|number| {
            let narrowing = Narrowing {
                expires_at: Some(
                    time::OffsetDateTime::now_utc() + Duration::from_secs(30 + number),
                ),
                ..Narrowing::default()
            };
            attenuate(&parent, &narrowing, time::OffsetDateTime::now_utc())
                .unwrap()
                .as_str()
                .to_owned()
        })
        .collect();
    for child in &children {
        assert_ne!(*child, token);
        stack.watch_token(child);
    }

    let replies = race_all(&stack, &children).await;

    expect_one_winner(replies);
    assert_eq!(stack.upstream.count(), 1);
    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_refusal(403, "lease_consumed");
    stack.finish().await;
}

#[tokio::test]
async fn a_use_that_fails_at_the_upstream_is_a_use() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.request_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    tunnel.get("/status/500").await.expect_status(500);
    tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(403, "lease_consumed");

    stack.finish().await;
}
