//! Export: the one way out for a value, once, recorded, under its own kind of lease.

use ::leases::attenuate::{Narrowing, attenuate};
use ::leases::clock::Clock;
use ::leases::token::PresentedToken;
use serde_json::{Value, json};
use std::time::Duration;

use crate::support::{CANARY, Granted, Who, World, holder, nobody};

async fn exporter(world: &World) -> Granted {
    world
        .granted(json!({"allowed_actions": ["proxy_use", "export_plaintext"]}))
        .await
}

async fn export_lease(world: &World, granted: &Granted) -> (String, Who) {
    let body = json!({"secret_set_id": granted.set_id, "action": "export_plaintext"});
    let (id, token) = world.lease(&granted.agent, body).await;
    (id, holder(token))
}

async fn export(world: &World, lease: &Who, body: Value) -> crate::support::Answer {
    world.post("/v1/vault/export", lease, body).await
}

#[tokio::test]
async fn a_request_lease_exports_once() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let (id, lease) = export_lease(&world, &granted).await;
    let answer = export(&world, &lease, json!({"keys": ["STRIPE_SECRET_KEY"]})).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(
        answer.ok(200),
        json!({"secrets": {"STRIPE_SECRET_KEY": CANARY}})
    );
    let detail = export(&world, &lease, json!({}))
        .await
        .refused(403, "lease_consumed");
    assert!(detail.contains(&id), "{detail}");
}

#[tokio::test]
async fn without_keys_all_are_given() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let (_, lease) = export_lease(&world, &granted).await;
    let exported = world
        .send(crate::support::request(
            axum::http::Method::POST,
            "/v1/vault/export",
            &lease,
            None,
        ))
        .await
        .ok(200);
    assert_eq!(exported["secrets"], json!({"STRIPE_SECRET_KEY": CANARY}));
}

/// A list that a filter left empty asks for nothing, and must not be answered with everything.
#[tokio::test]
async fn an_empty_list_of_keys_is_refused_and_uses_nothing_up() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let (_, lease) = export_lease(&world, &granted).await;
    let read = json!({"secret_set_id": granted.set_id, "keys": []});
    for (path, body) in [
        ("/v1/vault/export", json!({"keys": []})),
        ("/v1/vault/secrets/read", read),
    ] {
        let answer = world.post(path, &lease, body).await;
        let detail = answer.refused(400, "invalid_request");
        assert!(
            detail.starts_with("keys: expected a list of one name or more"),
            "{detail}"
        );
    }
    export(&world, &lease, json!({})).await.ok(200);
}

/// What no request carries is exported as the rest is: a webhook's secret is of use to its holder alone.
#[tokio::test]
async fn keys_that_are_never_sent_are_exported() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let entries = json!({"entries": {"STRIPE_WEBHOOK_SECRET": "whsec_0123456789abcdef"}});
    let path = format!("/v1/vault/secret-sets/{}", granted.set_id);
    world.put(&path, &world.home.admin, entries).await.ok(200);
    let (_, lease) = export_lease(&world, &granted).await;
    let exported = export(&world, &lease, json!({})).await.ok(200);
    assert_eq!(exported["secrets"].as_object().unwrap().len(), 2);
    assert_eq!(
        exported["secrets"]["STRIPE_WEBHOOK_SECRET"],
        "whsec_0123456789abcdef"
    );
}

#[tokio::test]
async fn of_many_at_once_one_gets_the_value() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let (_, lease) = export_lease(&world, &granted).await;
    let tries = (0..16).map(|_| export(&world, &lease, json!({})));
    let answers = futures::future::join_all(tries).await;
    let given = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(given, 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 || answer.json()["error"] == "lease_consumed")
    );
}

#[tokio::test]
async fn an_export_is_recorded_as_use_export_and_outcome() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let (id, lease) = export_lease(&world, &granted).await;
    export(&world, &lease, json!({})).await.ok(200);
    // The outcome is queued and committed within about 20 ms.
    let mut events = Vec::new();
    for _ in 0..100 {
        events = world.events(&format!("?lease_id={id}")).await;
        if events
            .iter()
            .any(|event| event["action"] == "lease.outcome")
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let find = |action: &str| {
        events
            .iter()
            .find(|event| event["action"] == action)
            .unwrap_or_else(|| panic!("no {action}: {events:?}"))
    };
    let (used, exported, outcome) = (
        find("lease.use"),
        find("secret.export"),
        find("lease.outcome"),
    );
    assert_eq!(exported["keys"], json!(["STRIPE_SECRET_KEY"]));
    assert_eq!(exported["secret_version"], 1);
    assert_eq!(used["use_id"], exported["use_id"]);
    assert_eq!(used["use_id"], outcome["use_id"]);
    // It goes to no host.
    for field in ["scheme", "host", "port"] {
        assert_eq!(used[field], Value::Null, "{field}");
    }
    assert_eq!(outcome["status"], 200);
}

#[tokio::test]
async fn a_lease_for_the_injector_exports_nothing() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let (id, token) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    export(&world, &holder(token), json!({}))
        .await
        .refused(403, "export_denied");
    let refusals = world
        .events(&format!("?lease_id={id}&action=lease.refuse"))
        .await;
    assert_eq!(refusals[0]["error"], "export_denied");
}

#[tokio::test]
async fn a_key_outside_the_lease_is_not_given_and_does_not_use_it_up() {
    let world = World::new().await;
    let granted = world
        .granted(
            json!({"allowed_actions": ["export_plaintext"], "allowed_keys": ["STRIPE_SECRET_KEY"]}),
        )
        .await;
    let (_, lease) = export_lease(&world, &granted).await;
    export(&world, &lease, json!({"keys": ["STRIPE_ACCOUNT_ID"]}))
        .await
        .refused(403, "grant_denied");
    export(&world, &lease, json!({"keys": ["STRIPE_SECRET_KEY"]}))
        .await
        .ok(200);
}

#[tokio::test]
async fn no_lease_and_no_good_lease_are_told_apart_from_others_by_401() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let (_, lease) = export_lease(&world, &granted).await;
    export(&world, &nobody(), json!({}))
        .await
        .refused(401, "lease_missing");
    let mut forged = lease.0.unwrap().into_bytes();
    forged[100] = if forged[100] == b'A' { b'B' } else { b'A' };
    for bad in [
        String::from_utf8(forged).unwrap(),
        "clv_".to_owned(),
        "x".to_owned(),
        granted.agent.0.unwrap(),
    ] {
        export(&world, &holder(bad), json!({}))
            .await
            .refused(401, "lease_invalid");
    }
}

#[tokio::test]
async fn expired_revoked_and_disabled_leases_export_nothing() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let (id, lease) = export_lease(&world, &granted).await;
    world
        .delete(&format!("/v1/vault/leases/{id}"), &world.home.admin)
        .await
        .ok(204);
    export(&world, &lease, json!({}))
        .await
        .refused(403, "lease_revoked");

    let (_, lease) = export_lease(&world, &granted).await;
    world.clock.advance(Duration::from_mins(1));
    export(&world, &lease, json!({}))
        .await
        .refused(403, "lease_expired");

    let (_, lease) = export_lease(&world, &granted).await;
    world
        .delete(
            &format!("/v1/vault/grants/{}", granted.grant_id),
            &world.home.admin,
        )
        .await
        .ok(204);
    export(&world, &lease, json!({}))
        .await
        .refused(403, "grant_denied");
}

#[tokio::test]
async fn a_lease_narrowed_to_requests_exports_nothing_and_one_narrowed_in_time_does() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let (_, lease) = export_lease(&world, &granted).await;
    let token = PresentedToken::parse(lease.0.as_deref().unwrap()).unwrap();
    let narrow = |narrowing: Narrowing| {
        holder(
            attenuate(&token, &narrowing, world.clock.now())
                .unwrap()
                .as_str(),
        )
    };
    let to_get = narrow(Narrowing {
        methods: vec!["GET".to_owned()],
        ..Narrowing::default()
    });
    export(&world, &to_get, json!({}))
        .await
        .refused(403, "lease_scope");
    let end = world.clock.now() + Duration::from_secs(30);
    let shorter = narrow(Narrowing {
        expires_at: Some(end),
        ..Narrowing::default()
    });
    export(&world, &shorter, json!({})).await.ok(200);
    // The child used up the one use of both.
    export(&world, &lease, json!({}))
        .await
        .refused(403, "lease_consumed");
}

#[tokio::test]
async fn networks_and_times_of_the_grant_hold_for_exports_too() {
    let world = World::new().await;
    for constraints in [
        json!({"cidrs": ["10.0.0.0/8"]}),
        json!({"time_window": {"after": "08:00", "before": "20:00", "timezone": "UTC"}}),
    ] {
        let (agent_id, agent) = world
            .agent(&world.home.admin, &constraints.to_string())
            .await;
        let set_id = match world
            .get("/v1/vault/secret-sets", &world.home.admin)
            .await
            .ok(200)["secret_sets"][0]["id"]
            .as_str()
        {
            Some(id) => id.to_owned(),
            None => world.stripe_set(&world.home.admin, "billing").await,
        };
        let more = json!({"allowed_actions": ["export_plaintext"], "constraints": constraints});
        let grant_id = world
            .grant(&world.home.admin, &agent_id, &set_id, more)
            .await;
        let (_, lease) = export_lease(
            &world,
            &Granted {
                agent_id,
                agent,
                set_id,
                grant_id,
            },
        )
        .await;
        export(&world, &lease, json!({}))
            .await
            .refused(403, "grant_denied");
    }
}

#[tokio::test]
async fn an_unknown_field_is_refused() {
    let world = World::new().await;
    let granted = exporter(&world).await;
    let (_, lease) = export_lease(&world, &granted).await;
    export(&world, &lease, json!({"key": ["STRIPE_SECRET_KEY"]}))
        .await
        .refused(400, "unknown_field");
}

#[tokio::test]
async fn a_workflow_lease_exports_the_version_of_the_moment() {
    let world = World::new().await;
    let granted = world
        .granted(json!({"allowed_actions": ["export_plaintext", "mint_workflow_lease"]}))
        .await;
    let body =
        json!({"secret_set_id": granted.set_id, "action": "export_plaintext", "kind": "workflow"});
    let (_, token) = world.lease(&granted.agent, body).await;
    let lease = holder(token);
    export(&world, &lease, json!({})).await.ok(200);
    let path = format!("/v1/vault/secret-sets/{}", granted.set_id);
    world
        .put(
            &path,
            &world.home.admin,
            json!({"entries": {"STRIPE_SECRET_KEY": "sk_live_rotated_0123456789"}}),
        )
        .await
        .ok(200);
    assert_eq!(
        export(&world, &lease, json!({})).await.ok(200)["secrets"]["STRIPE_SECRET_KEY"],
        "sk_live_rotated_0123456789"
    );
    world
        .post(
            &format!("{path}/rollback"),
            &world.home.admin,
            json!({"version": 1}),
        )
        .await
        .ok(200);
    assert_eq!(
        export(&world, &lease, json!({})).await.ok(200)["secrets"]["STRIPE_SECRET_KEY"],
        CANARY
    );
}
