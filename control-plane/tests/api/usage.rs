//! What an organisation may have, what it is told of it, and how many requests one address may send.

use std::time::Duration;

use axum::http::{Method, header};
use control_plane::Limits;
use futures::future::join_all;
use serde_json::{Value, json};
use store::{Actor, Allowance, Allowances, Quota};

use crate::support::{Base, NOBODY, Setup, World, request};

async fn on(base: Base) -> World {
    World::of(Setup {
        base,
        ..Setup::default()
    })
    .await
}

fn allow(world: &World, quota: Quota) {
    world.store.quotas().set_default(quota);
}

#[tokio::test]
async fn of_many_who_race_for_the_last_places_as_many_win_as_there_are() {
    for base in [Base::File, Base::Postgres] {
        let world = on(base).await;
        allow(
            &world,
            Quota {
                vaults: Some(3),
                secrets: Some(4),
                agents: Some(5),
                requests_per_month: None,
            },
        );
        let admin = &world.home.admin;
        let race = async |method: Method, path: &str, limit: usize, what: &str| {
            let tries = (0..12).map(|nth| {
                let name = format!("n{nth}");
                let path = path.replace("{name}", &name);
                let body = json!({"name": name, "value": "v"});
                let body = if method == Method::PUT {
                    json!({"value": "v"})
                } else {
                    let mut body = body;
                    body.as_object_mut().unwrap().remove("value");
                    body
                };
                let asked = request(method.clone(), &path, admin, Some(body));
                world.send(asked)
            });
            let answers = join_all(tries).await;
            let made = answers.iter().filter(|answer| answer.status == 201);
            assert_eq!(made.count(), limit, "{what}");
            for refused in answers.into_iter().filter(|answer| answer.status != 201) {
                let detail = refused.refused(403, "resource_limit_exceeded");
                assert!(detail.contains(what), "{detail}");
            }
        };
        race(Method::POST, "/v1/vaults", 3, "Vault limit").await;
        race(Method::POST, "/v1/agents", 5, "Agent limit").await;
        let secrets = "/v1/vaults/default/secrets/{name}";
        race(Method::PUT, secrets, 4, "Secret limit").await;
        let set = json!({"provider": "stripe", "environment": "prod", "name": "x", "entries": {"STRIPE_SECRET_KEY": "sk_test_123"}});
        let refused = world
            .post("/v1/vault/secret-sets", admin, set.clone())
            .await;
        let detail = refused.refused(403, "resource_limit_exceeded");
        assert!(detail.contains("Secret limit"), "{detail}");
        let usage = world.get("/v1/usage", admin).await.ok(200);
        for (what, used) in [("vaults", 3), ("secrets", 4), ("agents", 5)] {
            let expected = json!({"used": used, "limit": used, "percent": 100});
            assert_eq!(usage[what], expected, "{what}");
        }
        // What is given up makes room, and another organisation has places of its own.
        let gone = "/v1/vaults/default/secrets/n0";
        let existing = world.get("/v1/vaults/default/secrets", admin).await.ok(200);
        let path = existing["secrets"][0]["path"].as_str().unwrap();
        let path = gone.replace("n0", path);
        world.delete(&path, admin).await.ok(204);
        world
            .post("/v1/vault/secret-sets", admin, set)
            .await
            .ok(201);
        let other = &world.other.admin;
        world
            .post("/v1/agents", other, json!({"name": "x"}))
            .await
            .ok(201);
    }
}

#[tokio::test]
async fn a_repeated_request_takes_one_place_and_counts_once() {
    let world = World::new().await;
    allow(
        &world,
        Quota {
            agents: Some(1),
            requests_per_month: Some(1000),
            ..Quota::default()
        },
    );
    let mut used = Vec::new();
    for _ in 0..3 {
        let body = json!({"name": "bot"});
        let mut again = request(Method::POST, "/v1/agents", &world.home.admin, Some(body));
        let key = "idempotency-key".parse::<header::HeaderName>().unwrap();
        again.headers_mut().insert(key, "once".parse().unwrap());
        world.send(again).await.ok(201);
        let usage = world.get("/v1/usage", &world.home.admin).await.ok(200);
        assert_eq!(usage["agents"]["used"], 1);
        used.push(usage["requests"]["used"].as_u64().unwrap());
    }
    // The look itself counts.
    assert_eq!(used, [2, 3, 4]);
}

#[tokio::test]
async fn a_months_requests_are_told_warned_of_and_refused_above_the_limit() {
    for base in [Base::File, Base::Postgres] {
        let world = on(base).await;
        let (_, agent) = world.agent(&world.home.admin, "bot").await;
        allow(
            &world,
            Quota {
                requests_per_month: Some(10),
                ..Quota::default()
            },
        );
        world.store.requests().flush().await.unwrap();
        let admin = &world.home.admin;
        let mut warned = 0;
        let mut told = Vec::new();
        for _ in 0..9 {
            let answer = world.get("/v1/agents", admin).await;
            told.push(answer.headers["x-ratelimit-requests-used"].clone());
            assert_eq!(answer.headers["x-ratelimit-requests-limit"], "10");
            assert!(answer.headers.contains_key("x-ratelimit-requests-percent"));
            warned += usize::from(answer.headers.contains_key("x-quota-warning"));
            answer.ok(200);
        }
        assert_eq!(
            (&told[0], &told[8]),
            (&"2".parse().unwrap(), &"10".parse().unwrap())
        );
        assert_eq!(warned, 2);
        let refused = world.get("/v1/agents", admin).await;
        assert_eq!(refused.headers["x-ratelimit-requests-percent"], "100");
        let detail = refused.refused(403, "resource_limit_exceeded");
        assert!(detail.contains("Request limit"), "{detail}");
        // An agent's calls are the organisation's.
        let mint = world.post("/v1/vault/leases", &agent, json!({})).await;
        mint.refused(403, "resource_limit_exceeded");
        // How it stands is shown, and what is given is taken away, all the same.
        let billing = world.get("/v1/billing/usage", admin).await.ok(200);
        assert_eq!(billing["billing_tier"], "self_hosted");
        assert_eq!(billing["free_tier_limit"], 10);
        assert!(billing["current_month"]["total_requests"].as_u64() >= Some(10));
        let usage = world.get("/v1/usage", admin).await.ok(200);
        assert_eq!(usage["requests"]["limit"], 10);
        let revoke = json!({"reason": "drill"});
        let path = "/v1/identity/kill-switch/revoke-all";
        world.post(path, admin, revoke).await.ok(200);
        // Another organisation's month is its own.
        world.get("/v1/agents", &world.other.admin).await.ok(200);
        // The operator gives more; nobody else can.
        let more = Allowances {
            requests_per_month: Allowance::AtMost(100),
            ..Allowances::default()
        };
        let quotas = world.store.quotas();
        let operator = Actor::system("operator");
        quotas
            .allow(&world.home.org, more, &operator)
            .await
            .unwrap();
        world.store.requests().flush().await.unwrap();
        world.get("/v1/agents", admin).await.ok(200);
        world.clock.advance(Duration::from_hours(24 * 40));
        let usage = world.get("/v1/usage", admin).await.ok(200);
        assert_eq!(usage["requests"]["used"], 1);
    }
}

#[tokio::test]
async fn without_a_limit_nothing_is_told() {
    let world = World::new().await;
    let answer = world.get("/v1/agents", &world.home.admin).await;
    assert!(
        answer
            .headers
            .keys()
            .all(|name| !name.as_str().starts_with("x-ratelimit"))
    );
    let usage = world.get("/v1/usage", &world.home.admin).await.ok(200);
    let unlimited = json!({"used": 2, "limit": Value::Null, "percent": Value::Null});
    assert_eq!(usage["requests"], unlimited);
    assert_eq!(usage["requests_reset_at"], "2026-12-01T00:00:00.000Z");
    let billing = world.get("/v1/billing/usage", &world.home.admin).await;
    assert_eq!(billing.ok(200)["free_tier_limit"], Value::Null);
}

#[tokio::test]
async fn an_address_that_sends_too_many_requests_has_to_wait() {
    let world = World::of(Setup {
        paced: true,
        limits: Limits {
            requests_per_second: 1.try_into().ok(),
            request_burst: 4.try_into().unwrap(),
            paces_loopback: true,
            ..Limits::default()
        },
        ..Setup::default()
    })
    .await;
    for _ in 0..4 {
        world.get("/v1/agents", &world.home.admin).await.ok(200);
    }
    // A good key does not help, nor a path that is open or not there; health is answered.
    for path in ["/v1/agents", "/openapi.json", "/v1/share/x", "/nowhere"] {
        let refused = world.get(path, &world.home.admin).await;
        refused.refused(429, "rate_limited");
    }
    world.get("/v1/health", &NOBODY).await.ok(200);
    assert_eq!(Limits::default().requests_per_second.unwrap().get(), 100);
    assert_eq!(Limits::default().request_burst.get(), 200);
}
