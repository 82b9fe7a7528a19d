//! Many nodes on one database act as one: what is used, revoked or counted on one of them is so on all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::fleet::Load;
use crate::support::tunnel::{Tunnel, expect_one_winner, race};
use crate::support::{Access, Ends, Fleet, chance, soak, wait};

const HOST: &str = "api.stripe.com";
const RACERS: usize = 64;

/// One tunnel through each injector, in which one request has passed.
async fn in_use_everywhere(fleet: &Fleet<'_>, token: &str) -> Vec<Tunnel> {
    let mut tunnels = Vec::new();
    for injector in 0..fleet.injectors() {
        let mut tunnel = fleet.by(0, injector).tunnel(HOST, token).await;
        tunnel.get("/v1/balance").await.expect_status(200);
        tunnels.push(tunnel);
    }
    tunnels
}

/// The next request in each tunnel is refused with this code.
async fn expect_refused_everywhere(tunnels: &mut [Tunnel], code: &str) {
    for tunnel in tunnels {
        tunnel.get("/v1/balance").await.expect_refusal(403, code);
    }
}

async fn health(ends: &Ends, path: &str) -> Value {
    ends.admin().get(path).await.expect_status(200).json()
}

#[tokio::test]
async fn what_one_control_plane_makes_is_used_through_every_injector() {
    let fleet = Fleet::builder().nodes(2, 2).start().await;
    let (one, other) = (fleet.by(0, 0), fleet.by(1, 1));

    let secret = one.secret("sk_live_");
    let entries = json!({ "STRIPE_SECRET_KEY": secret.text() });
    let set = other.put_set("stripe", "shared", &entries).await;
    let (agent, agent_key) = one.agent("bot").await;
    let grant = other.grant(&agent, &set, &json!({})).await;
    let access = Access {
        set,
        agent,
        agent_key,
        grant,
        secret,
    };
    let single = one.request_lease(&access).await;
    let many = one.workflow_lease(&access).await;

    other
        .get(HOST, "/v1/balance", &single)
        .await
        .expect_status(200);
    let reply = one.attempt(HOST, "/v1/balance", &single).await;
    reply.expect_refusal(403, "lease_consumed");
    for injector in 0..2 {
        let ends = fleet.by(0, injector);
        ends.get(HOST, "/v1/balance", &many)
            .await
            .expect_status(200);
    }
    let received = fleet.upstream.last().field("authorization");
    assert_eq!(received, format!("Bearer {}", access.secret.text()));
    assert_eq!(fleet.upstream.count(), 3);

    for (number, node) in fleet.nodes.iter().enumerate() {
        let ends = fleet.ends().at(node);
        assert_eq!(health(&ends, "/v1/health").await["status"], "ok");
        let keys = health(&ends, "/v1/health/hsm").await;
        assert_eq!(keys["sign"], json!(number < 2), "node {number}: {keys}");
    }
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_racers_on_four_injectors_exactly_one_uses_a_request_lease() {
    let leases = soak(1_000, 4);
    let fleet = Fleet::builder().nodes(1, 4).log("info").start().await;
    let access = fleet.stripe().await;

    for number in 0..leases {
        let token = fleet.request_lease(&access).await;
        let mut tunnels = Vec::new();
        for racer in 0..RACERS {
            let ends = fleet.by(0, racer % fleet.injectors());
            tunnels.push(ends.tunnel(HOST, &token).await);
        }
        expect_one_winner(race(tunnels, &format!("/v1/charges/{number}")).await);
    }

    assert_eq!(fleet.upstream.count(), leases);
    fleet.finish().await;
}

#[tokio::test]
async fn a_revocation_on_one_control_plane_holds_at_the_next_request_on_every_injector() {
    let fleet = Fleet::builder().nodes(2, 3).start().await;
    let other = fleet.by(1, 0);
    let access = fleet.stripe().await;

    let (token, lease) = fleet.workflow_lease_with_id(&access).await;
    let mut tunnels = in_use_everywhere(&fleet, &token).await;
    let path = format!("/v1/vault/leases/{lease}");
    other.admin().delete(&path).await.expect_status(204);
    expect_refused_everywhere(&mut tunnels, "lease_revoked").await;

    let token = fleet.workflow_lease(&access).await;
    let mut tunnels = in_use_everywhere(&fleet, &token).await;
    let agent = format!("/v1/agents/{}", access.agent);
    for active in [false, true] {
        let body = json!({ "is_active": active });
        other.admin().patch(&agent, &body).await.expect_status(200);
        if active {
            for tunnel in &mut tunnels {
                tunnel.get("/v1/balance").await.expect_status(200);
            }
        } else {
            expect_refused_everywhere(&mut tunnels, "grant_denied").await;
        }
    }

    let path = format!("/v1/vault/grants/{}", access.grant);
    other.admin().delete(&path).await.expect_status(204);
    expect_refused_everywhere(&mut tunnels, "grant_denied").await;

    assert_eq!(fleet.upstream.count(), 3 + 3 + 3);
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_exact_over_all_injectors() {
    const ALLOWED: usize = 20;
    let fleet = Fleet::builder().nodes(1, 3).log("info").start().await;
    let rate = json!({ "constraints": { "rate": { "requests": ALLOWED, "per_seconds": 3_600 } } });
    let access = fleet.stripe_with(&rate).await;
    let token = fleet.workflow_lease(&access).await;
    let mut tunnels = Vec::new();
    for client in 0..3 * ALLOWED {
        let ends = fleet.by(0, client % fleet.injectors());
        tunnels.push(ends.tunnel(HOST, &token).await);
    }

    let (passed, refused): (Vec<_>, Vec<_>) = race(tunnels, "/v1/charges")
        .await
        .into_iter()
        .partition(|reply| reply.status == 200);

    assert_eq!(passed.len(), ALLOWED);
    for reply in refused {
        reply.expect_refusal(429, "rate_limited");
    }
    assert_eq!(fleet.upstream.count(), ALLOWED);
    fleet.finish().await;
}

/// How often each path stands at the upstream, of those that belong to one lease for one request.
fn single_uses(fleet: &Fleet<'_>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in fleet.upstream.requests() {
        if request.path().starts_with("/v1/single/") {
            *counts.entry(request.path().to_owned()).or_default() += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn injectors_killed_under_load_lose_no_record_and_use_no_lease_twice() {
    let rounds = soak(500, 10);
    let mut fleet = Fleet::builder().nodes(1, 3).log("info").start().await;
    let access = fleet.stripe().await;
    let token = fleet.workflow_lease(&access).await;

    for round in 0..rounds {
        let load = Load::start(&fleet, &token, 2).await;
        let single = fleet.request_lease(&access).await;
        let path = format!("/v1/single/{round}");
        let mut tunnels = Vec::new();
        for racer in 0..2 * fleet.injectors() {
            let ends = fleet.by(0, racer % fleet.injectors());
            tunnels.push(ends.tunnel(HOST, &single).await);
        }
        let before = fleet.upstream.count();
        fleet.upstream.reached(before + 1 + chance(40)).await;
        let racers = tokio::spawn(race_through_a_kill(tunnels, path.clone()));
        let victim = chance(fleet.injectors());
        fleet.injector(victim).kill().await;
        let won = racers.await.unwrap();
        assert!(won <= 1, "round {round}: {won} racers used one lease");
        let load = load.end().await;
        assert!(load.passed > 0, "round {round}: no traffic");
        load.expect_no_refusals();
        fleet.injector(victim).start_again().await;

        let reached = single_uses(&fleet).contains_key(&path);
        let ends = fleet.by(0, round % fleet.injectors());
        let reply = ends.attempt(HOST, &path, &single).await;
        if reached {
            reply.expect_refusal(403, "lease_consumed");
        } else {
            // Whether the one use was committed before the kill or none was is open; a second one is not.
            assert!(reply.status == 200 || reply.code() == "lease_consumed");
        }
        if (round + 1) % soak(100, 10) == 0 {
            fleet.every_stream_verifies().await;
        }
    }

    let twice = single_uses(&fleet)
        .into_iter()
        .find(|(_, count)| *count > 1);
    assert_eq!(twice, None, "a lease for one request was used twice");
    assert!(single_uses(&fleet).values().all(|count| *count == 1));
    fleet.finish_after_crash().await;
}

/// Races as [`race`] does while an injector may be killed; gives how many got an answer of the upstream.
async fn race_through_a_kill(tunnels: Vec<Tunnel>, path: String) -> usize {
    let path: Arc<str> = path.into();
    let racers: Vec<_> = tunnels
        .into_iter()
        .map(|mut tunnel| {
            let path = Arc::clone(&path);
            tokio::spawn(async move {
                let reply = tunnel.request("POST", &path, &[], b"amount=1").await;
                match reply {
                    Ok(reply) if reply.status == 200 => true,
                    Ok(reply) => {
                        reply.expect_refusal(403, "lease_consumed");
                        false
                    }
                    // This one went through the injector that was killed.
                    Err(_) => false,
                }
            })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        won += usize::from(racer.await.unwrap());
    }
    won
}

#[tokio::test]
async fn traffic_goes_on_while_every_control_plane_is_dead() {
    let mut fleet = Fleet::builder().nodes(2, 2).start().await;
    let access = fleet.stripe().await;
    let token = fleet.workflow_lease(&access).await;
    let single = fleet.request_lease(&access).await;
    let mut tunnels = in_use_everywhere(&fleet, &token).await;

    for number in 0..2 {
        fleet.control_plane(number).kill().await;
    }
    for tunnel in &mut tunnels {
        tunnel.get("/v1/balance").await.expect_status(200);
    }
    let other = fleet.by(0, 1);
    other
        .get(HOST, "/v1/balance", &token)
        .await
        .expect_status(200);
    other
        .get(HOST, "/v1/balance", &single)
        .await
        .expect_status(200);
    let reply = fleet.attempt(HOST, "/v1/balance", &single).await;
    reply.expect_refusal(403, "lease_consumed");
    let node = fleet.injector(0).api;
    let ends = Ends {
        api_addr: node,
        ..fleet.ends()
    };
    assert_eq!(health(&ends, "/v1/health").await["status"], "ok");

    for number in 0..2 {
        fleet.control_plane(number).start_again().await;
    }
    fleet.ends().request_lease(&access).await;
    fleet.finish().await;
}

#[tokio::test]
async fn a_stopping_injector_lets_requests_end_and_leaves_the_rest_to_others() {
    let mut fleet = Fleet::builder().nodes(2, 2).start().await;
    let access = fleet.stripe().await;
    let token = fleet.workflow_lease(&access).await;
    let body = fleet.upstream.stream("slow");
    let mut tunnel = fleet.tunnel(HOST, &token).await;
    tunnel.send("GET", "/stream/slow", &[], b"").await.unwrap();
    body.send("first ".into()).await.unwrap();
    let (head, mut framing) = tunnel.wire.open("GET").await.unwrap();
    assert_eq!(head.status, 200);
    let mut text = Vec::new();

    let process = fleet.injector(0).process.take().unwrap();
    let stopping = tokio::spawn(process.stop());
    let proxy = fleet.proxy_addr;
    wait::until("the injector to accept no more", async || {
        let dialled = tokio::net::TcpStream::connect(proxy).await;
        dialled.is_err().then_some(())
    })
    .await;
    let other = fleet.by(0, 1);
    other
        .get(HOST, "/v1/balance", &token)
        .await
        .expect_status(200);
    body.send("second".into()).await.unwrap();
    drop(body);
    while let Some(piece) = tunnel.wire.piece(&mut framing).await.unwrap() {
        text.extend_from_slice(&piece);
    }
    assert_eq!(String::from_utf8_lossy(&text), "first second");
    drop(tunnel);
    stopping.await.unwrap();

    fleet.control_plane(1).stop().await;
    fleet.ends().workflow_lease(&access).await;
    fleet.control_plane(1).start_again().await;
    fleet.injector(0).start_again().await;
    let ends = fleet.ends();
    ends.get(HOST, "/v1/balance", &token)
        .await
        .expect_status(200);
    fleet.finish().await;
}
