//! A request lease is used once, however many try at once and however its text is dressed up.

use std::sync::Arc;
use std::time::Duration;

use leases::{Narrowing, PresentedToken, attenuate};
use tokio::sync::Barrier;

use crate::support::{Reply, Stack};

const RACERS: usize = 64;

/// Sends one request in each tunnel at the same moment and gives back every reply.
async fn race(stack: &Stack, tokens: &[String]) -> Vec<Reply> {
    let barrier = Arc::new(Barrier::new(tokens.len()));
    let mut racers = Vec::new();
    for token in tokens {
        let mut tunnel = stack.tunnel("api.stripe.com", token).await;
        let barrier = Arc::clone(&barrier);
        racers.push(tokio::spawn(async move {
            barrier.wait().await;
            tunnel
                .request("POST", "/v1/charges", &[], b"amount=1")
                .await
                .unwrap()
        }));
    }
    let mut replies = Vec::new();
    for racer in racers {
        replies.push(racer.await.unwrap());
    }
    replies
}

/// Checks that exactly one of `replies` came from the upstream and that all others are `lease_consumed`.
fn expect_one_winner(replies: Vec<Reply>) {
    let (winners, losers): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!(winners.len(), 1);
    for loser in losers {
        loser.expect_refusal(403, "lease_consumed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_racers_on_one_request_lease_exactly_one_reaches_the_upstream() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.request_lease(&access).await;

    let replies = race(&stack, &vec![token; RACERS]).await;

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

    let replies = race(&stack, &children).await;

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
