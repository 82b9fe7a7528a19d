//! Grants: made, listed, revoked; a mistyped limit never widens one.

use serde_json::{Value, json};

use crate::support::World;

#[tokio::test]
async fn a_grant_has_the_defaults_of_the_contract() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let shown = world
        .get(
            &format!("/v1/vault/grants/{}", granted.grant_id),
            &world.home.admin,
        )
        .await
        .ok(200);
    assert_eq!(shown["allowed_actions"], json!(["proxy_use"]));
    assert_eq!(shown["allowed_keys"], "*");
    assert_eq!(shown["constraints"], json!({}));
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["expires_at"], Value::Null);
}

#[tokio::test]
async fn all_limits_are_kept() {
    let world = World::new().await;
    let constraints = json!({
        "hosts": ["api.stripe.com"], "methods": ["GET", "POST"], "paths": ["/v1/charges/*"], "cidrs": ["192.0.2.0/24"],
        "time_window": {"after": "08:00", "before": "20:00", "timezone": "UTC"}, "rate": {"requests": 60, "per_seconds": 60},
    });
    let more = json!({"allowed_actions": ["export_plaintext", "proxy_use"], "allowed_keys": ["STRIPE_SECRET_KEY"], "expires_at": "2026-11-22T15:00:00Z", "constraints": constraints});
    let granted = world.granted(more).await;
    let shown = world
        .get(
            &format!("/v1/vault/grants/{}", granted.grant_id),
            &world.home.admin,
        )
        .await
        .ok(200);
    for field in ["hosts", "methods", "paths", "cidrs", "rate"] {
        assert_eq!(shown["constraints"][field], constraints[field], "{field}");
    }
    assert_eq!(shown["constraints"]["time_window"]["after"], "08:00");
    assert_eq!(shown["allowed_keys"], json!(["STRIPE_SECRET_KEY"]));
    assert_eq!(shown["expires_at"], "2026-11-22T15:00:00.000Z");
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_name_at_every_level() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    for (more, field) in [
        (json!({"allowed_key": ["A"]}), "allowed_key"),
        (json!({"constraints": {"host": ["api.stripe.com"]}}), "host"),
        (
            json!({"constraints": {"rate": {"requests": 1, "per_seconds": 1, "burst": 1}}}),
            "burst",
        ),
        (
            json!({"constraints": {"spend": {"tokens": 1, "eur": "1"}}}),
            "eur",
        ),
        (json!({"org_id": "org_x"}), "org_id"),
    ] {
        let mut body = json!({"agent_id": granted.agent_id, "secret_set_id": granted.set_id});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let detail = world
            .post("/v1/vault/grants", &world.home.admin, body)
            .await
            .refused(400, "unknown_field");
        assert!(detail.contains(&format!("`{field}`")), "{detail}");
    }
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    for more in [
        json!({"allowed_actions": []}),
        json!({"allowed_actions": ["proxy_use", "root"]}),
        json!({"allowed_keys": []}),
        json!({"allowed_keys": "STRIPE_SECRET_KEY"}),
        json!({"allowed_keys": ["a b"]}),
        json!({"expires_at": "2026-11-22T07:00:00Z"}),
        json!({"expires_at": "tomorrow"}),
        json!({"constraints": {"hosts": ["*"]}}),
        json!({"constraints": {"methods": ["TRACE"]}}),
        json!({"constraints": {"paths": ["v1"]}}),
        json!({"constraints": {"cidrs": ["300.0.0.0/8"]}}),
        json!({"constraints": {"rate": {"requests": 0, "per_seconds": 60}}}),
        json!({"constraints": {"spend": {"per_seconds": 60}}}),
        json!({"constraints": {"spend": {"usd": 25}}}),
        json!({"constraints": {"spend": {"tokens": 1}}}),
        json!({"constraints": []}),
    ] {
        let mut body = json!({"agent_id": granted.agent_id, "secret_set_id": granted.set_id});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        world
            .post("/v1/vault/grants", &world.home.admin, body)
            .await
            .refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn an_agent_or_set_of_nobody_or_of_others_is_not_found() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (foreign_agent, _) = world.agent(&world.other.admin, "theirs").await;
    let foreign_set = world.stripe_set(&world.other.admin, "theirs").await;
    for (agent, set) in [
        (foreign_agent.as_str(), granted.set_id.as_str()),
        (granted.agent_id.as_str(), foreign_set.as_str()),
        ("agt_01ARZ3NDEKTSV4RRFFQ69G5FAV", granted.set_id.as_str()),
        (granted.agent_id.as_str(), "nonsense"),
    ] {
        let body = json!({"agent_id": agent, "secret_set_id": set});
        world
            .post("/v1/vault/grants", &world.home.admin, body)
            .await
            .refused(404, "not_found");
    }
}

#[tokio::test]
async fn what_will_match_nothing_is_warned_about() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let body = json!({"agent_id": granted.agent_id, "secret_set_id": granted.set_id, "allowed_keys": ["NOT_THERE"], "constraints": {"hosts": ["api.example.org"]}});
    let made = world
        .post("/v1/vault/grants", &world.home.admin, body)
        .await
        .ok(201);
    let warnings = made["warnings"].to_string();
    assert!(
        warnings.contains("NOT_THERE")
            && warnings.contains("api.example.org is no host of provider stripe"),
        "{warnings}"
    );
}

#[tokio::test]
async fn grants_are_listed_by_agent_and_set() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (second, _) = world.agent(&world.home.admin, "second").await;
    world
        .grant(&world.home.admin, &second, &granted.set_id, json!({}))
        .await;
    let count = async |query: &str| {
        world
            .get(&format!("/v1/vault/grants{query}"), &world.home.admin)
            .await
            .ok(200)["grants"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count("").await, 2);
    assert_eq!(count(&format!("?agent_id={second}")).await, 1);
    assert_eq!(
        count(&format!("?secret_set_id={}", granted.set_id)).await,
        2
    );
    assert_eq!(count("?agent_id=agt_nobody").await, 0);
}

#[tokio::test]
async fn a_revoked_grant_mints_nothing_and_stays_visible() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let path = format!("/v1/vault/grants/{}", granted.grant_id);
    world.delete(&path, &world.home.admin).await.ok(204);
    world.delete(&path, &world.home.admin).await.ok(204);
    let shown = world.get(&path, &world.home.admin).await.ok(200);
    assert_eq!(shown["status"], "revoked");
    world
        .post(
            "/v1/vault/leases",
            &granted.agent,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .refused(403, "grant_denied");
}

#[tokio::test]
async fn a_filter_that_is_misspelt_is_refused() {
    let world = World::new().await;
    for path in [
        "/v1/vault/grants",
        "/v1/vault/leases",
        "/v1/vault/secret-sets",
    ] {
        for query in ["agentid=x", "limit=5&agent-id=x"] {
            let answer = world
                .get(&format!("{path}?{query}"), &world.home.admin)
                .await;
            answer.refused(400, "unknown_field");
        }
        world
            .get(&format!("{path}?limit=5"), &world.home.admin)
            .await
            .ok(200);
    }
}

#[tokio::test]
async fn a_misspelt_constraint_is_told_all_that_there_are() {
    let world = World::new().await;
    let (agent, _) = world.agent(&world.home.admin, "bot").await;
    let set = world.stripe_set(&world.home.admin, "x").await;
    let body = json!({"agent_id": agent, "secret_set_id": set, "constraints": {"rates": 5}});
    let detail = world
        .post("/v1/vault/grants", &world.home.admin, body)
        .await
        .refused(400, "unknown_field");
    for field in ["`hosts`", "`rate`", "`spend`", "`preset`"] {
        assert!(detail.contains(field), "{detail}");
    }
}
