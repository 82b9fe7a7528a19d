//! Leases: minted within grants, listed, revoked whole and by block.

use ::leases::attenuate::{Narrowing, attenuate};
use ::leases::clock::Clock;
use ::leases::token::PresentedToken;
use ::leases::verify::verify;
use serde_json::json;
use std::time::Duration;

use crate::support::{Granted, START, World};

#[tokio::test]
async fn an_agent_mints_a_request_lease_of_a_minute() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let made = world
        .post(
            "/v1/vault/leases",
            &granted.agent,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .ok(201);
    assert_eq!(made["kind"], "request");
    assert_eq!(made["action"], "proxy_use");
    assert_eq!(made["expires_at"], "2026-11-22T07:01:00.000Z");
    assert_eq!(made["agent_id"], granted.agent_id.as_str());
    let bound = &made["constraints"]["secret_sets"][0];
    assert_eq!(bound["grant_id"], granted.grant_id.as_str());
    assert!(
        bound["hosts"].to_string().contains("api.stripe.com"),
        "{bound}"
    );

    let token = PresentedToken::parse(made["token"].as_str().unwrap()).unwrap();
    let lease = verify(&token, &world.keys.public()).unwrap();
    assert_eq!(lease.org(), &world.home.org);
    assert_eq!(lease.agent().as_str(), granted.agent_id);
    assert_eq!(lease.lease().as_str(), made["lease_id"]);
    assert_eq!(lease.bindings()[0].set.as_str(), granted.set_id);
    assert_eq!(lease.effective_expiry(), START + Duration::from_mins(1));
}

#[tokio::test]
async fn sets_are_named_by_id_by_ids_and_by_path() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    for body in [
        json!({"secret_set_id": granted.set_id}),
        json!({"secret_set_ids": [granted.set_id]}),
        json!({"secret_set": "stripe/prod/billing-bot"}),
        json!({"secret_set": ["stripe/prod/billing-bot"]}),
    ] {
        world
            .post("/v1/vault/leases", &granted.agent, body)
            .await
            .ok(201);
    }
    for body in [json!({}), json!({"secret_set_ids": []})] {
        world
            .post("/v1/vault/leases", &granted.agent, body)
            .await
            .refused(400, "invalid_request");
    }
    for body in [
        json!({"secret_set": "stripe/prod/none"}),
        json!({"secret_set_id": "set_01ARZ3NDEKTSV4RRFFQ69G5FAV"}),
        json!({"secret_set_id": "x"}),
    ] {
        world
            .post("/v1/vault/leases", &granted.agent, body)
            .await
            .refused(404, "not_found");
    }
    world
        .post(
            "/v1/vault/leases",
            &granted.agent,
            json!({"secret_set": "stripe/prod"}),
        )
        .await
        .refused(400, "invalid_request");
}

#[tokio::test]
async fn a_person_names_the_agent() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let body = json!({"secret_set_id": granted.set_id, "agent_id": granted.agent_id});
    world
        .post("/v1/vault/leases", &world.home.admin, body)
        .await
        .ok(201);
    let detail = world
        .post(
            "/v1/vault/leases",
            &world.home.admin,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .refused(400, "invalid_request");
    assert!(detail.starts_with("agent_id"), "{detail}");
    let body =
        json!({"secret_set_id": granted.set_id, "agent_id": "agt_01ARZ3NDEKTSV4RRFFQ69G5FAV"});
    world
        .post("/v1/vault/leases", &world.home.admin, body)
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn an_agent_mints_for_itself_alone() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (_, second) = world.agent(&world.home.admin, "second").await;
    let own = json!({"secret_set_id": granted.set_id, "agent_id": granted.agent_id});
    world
        .post("/v1/vault/leases", &granted.agent, own.clone())
        .await
        .ok(201);
    world
        .post("/v1/vault/leases", &second, own)
        .await
        .refused(403, "forbidden");
    let detail = world
        .post(
            "/v1/vault/leases",
            &second,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .refused(403, "grant_denied");
    assert!(
        detail.contains("holds no active grant") && detail.contains("POST /v1/vault/grants"),
        "{detail}"
    );
    let denied = world.events("?action=lease.mint").await.pop().unwrap();
    assert_eq!(
        (&denied["decision"], &denied["error"]),
        (&json!("deny"), &json!("grant_denied"))
    );
    assert_eq!(denied["secret_set_id"], granted.set_id.as_str());
}

#[tokio::test]
async fn lifetimes_keep_within_kind_and_grant() {
    let world = World::new().await;
    let more = json!({"allowed_actions": ["proxy_use", "mint_workflow_lease"], "expires_at": "2026-11-22T07:10:00Z"});
    let granted = world.granted(more).await;
    let mint = |kind: &'static str, ttl: serde_json::Value| {
        let body = json!({"secret_set_id": granted.set_id, "kind": kind, "ttl_seconds": ttl});
        let agent = granted.agent.clone();
        let world = &world;
        async move { world.post("/v1/vault/leases", &agent, body).await }
    };
    for (kind, ttl) in [
        ("request", 0),
        ("request", -1),
        ("request", 901),
        ("request", i64::MAX),
        ("workflow", 86_401),
        ("workflow", i64::MIN),
    ] {
        mint(kind, json!(ttl)).await.refused(422, "invalid_ttl");
    }
    for ttl in [json!("60"), json!(60.5), json!(1e30), json!([60])] {
        mint("request", ttl).await.refused(400, "invalid_request");
    }
    assert_eq!(
        mint("request", json!(5)).await.ok(201)["expires_at"],
        "2026-11-22T07:00:05.000Z"
    );
    assert_eq!(
        mint("request", json!(900)).await.ok(201)["expires_at"],
        "2026-11-22T07:10:00.000Z"
    );
    assert_eq!(
        mint("workflow", json!(86_400)).await.ok(201)["expires_at"],
        "2026-11-22T07:10:00.000Z"
    );
}

#[tokio::test]
async fn a_workflow_lease_and_an_export_lease_need_their_own_actions() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let body = json!({"secret_set_id": granted.set_id, "kind": "workflow"});
    let detail = world
        .post("/v1/vault/leases", &granted.agent, body)
        .await
        .refused(403, "grant_denied");
    assert!(detail.contains("mint_workflow_lease"), "{detail}");
    let body = json!({"secret_set_id": granted.set_id, "action": "export_plaintext"});
    let detail = world
        .post("/v1/vault/leases", &granted.agent, body)
        .await
        .refused(403, "grant_denied");
    assert!(detail.contains("export_plaintext"), "{detail}");
    for (field, value) in [
        ("kind", "forever"),
        ("action", "read"),
        ("action", "mint_workflow_lease"),
    ] {
        let body = json!({"secret_set_id": granted.set_id, field: value});
        world
            .post("/v1/vault/leases", &granted.agent, body)
            .await
            .refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn keys_narrow_and_never_widen() {
    let world = World::new().await;
    let granted = world
        .granted(json!({"allowed_keys": ["STRIPE_SECRET_KEY"]}))
        .await;
    let mint = |keys: serde_json::Value| {
        let body = json!({"secret_set_id": granted.set_id, "keys": keys});
        let (world, agent) = (&world, granted.agent.clone());
        async move { world.post("/v1/vault/leases", &agent, body).await }
    };
    assert_eq!(
        mint(json!("*")).await.ok(201)["constraints"]["secret_sets"][0]["keys"],
        json!(["STRIPE_SECRET_KEY"])
    );
    mint(json!(["STRIPE_SECRET_KEY"])).await.ok(201);
    mint(json!(["STRIPE_ACCOUNT_ID"]))
        .await
        .refused(403, "grant_denied");
    mint(json!([])).await.refused(400, "invalid_request");
}

#[tokio::test]
async fn an_unknown_field_is_refused_by_name() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let body = json!({"secret_set_id": granted.set_id, "ttl": 5});
    let detail = world
        .post("/v1/vault/leases", &granted.agent, body)
        .await
        .refused(400, "unknown_field");
    assert!(
        detail.contains("`ttl`") && detail.contains("ttl_seconds"),
        "{detail}"
    );
}

#[tokio::test]
async fn two_sets_for_one_host_are_ambiguous() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let second = world.stripe_set(&world.home.admin, "second").await;
    world
        .grant(&world.home.admin, &granted.agent_id, &second, json!({}))
        .await;
    let body = json!({"secret_set_ids": [granted.set_id, second]});
    let detail = world
        .post("/v1/vault/leases", &granted.agent, body)
        .await
        .refused(422, "ambiguous_hosts");
    assert!(detail.contains("stripe.com"), "{detail}");
}

#[tokio::test]
async fn several_sets_make_one_lease() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let body = json!({"provider": "openai", "environment": "prod", "name": "x", "entries": {"OPENAI_API_KEY": "sk-0123456789abcdef"}});
    let openai = world
        .post("/v1/vault/secret-sets", &world.home.admin, body)
        .await
        .field("/id");
    world
        .grant(&world.home.admin, &granted.agent_id, &openai, json!({}))
        .await;
    let body = json!({"secret_set_ids": [granted.set_id], "secret_set": "openai/prod/x"});
    let made = world
        .post("/v1/vault/leases", &granted.agent, body)
        .await
        .ok(201);
    assert_eq!(
        made["constraints"]["secret_sets"].as_array().unwrap().len(),
        2
    );
}

#[tokio::test]
async fn of_several_grants_the_one_that_ends_last_and_allows_it_is_taken() {
    let world = World::new().await;
    let granted = world
        .granted(json!({"expires_at": "2026-11-22T07:00:30Z"}))
        .await;
    let longer = world
        .grant(
            &world.home.admin,
            &granted.agent_id,
            &granted.set_id,
            json!({"expires_at": "2026-11-22T08:00:00Z"}),
        )
        .await;
    world
        .grant(
            &world.home.admin,
            &granted.agent_id,
            &granted.set_id,
            json!({"allowed_actions": ["export_plaintext"]}),
        )
        .await;
    let made = world
        .post(
            "/v1/vault/leases",
            &granted.agent,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .ok(201);
    assert_eq!(
        made["constraints"]["secret_sets"][0]["grant_id"],
        longer.as_str()
    );
    let body = json!({"secret_set_id": granted.set_id, "grant_ids": [granted.grant_id]});
    let made = world
        .post("/v1/vault/leases", &granted.agent, body)
        .await
        .ok(201);
    assert_eq!(made["expires_at"], "2026-11-22T07:00:30.000Z");
}

/// The grant that a lease is minted from when none is named.
async fn taken(world: &World, granted: &Granted, body: serde_json::Value) -> String {
    let mut wish = json!({"secret_set_id": granted.set_id});
    let wish_fields = wish.as_object_mut().unwrap();
    wish_fields.extend(body.as_object().unwrap().clone());
    world
        .post("/v1/vault/leases", &granted.agent, wish)
        .await
        .field("/constraints/secret_sets/0/grant_id")
}

/// Threats B20: a grant adds to what an agent may do, whatever it looks like.
#[tokio::test]
async fn another_grant_takes_nothing_away() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    for more in [
        json!({"constraints": {"hosts": ["example.com"]}}),
        json!({"constraints": {"hosts": ["files.stripe.com"]}}),
        json!({"constraints": {"methods": ["GET"], "paths": ["/v1/balance"]}}),
        json!({"constraints": {"cidrs": ["198.51.100.0/24"]}}),
        json!({"constraints": {"rate": {"requests": 1, "per_seconds": 60}}}),
        json!({"constraints": {"approval": true}}),
        json!({"allowed_keys": ["STRIPE_ACCOUNT_ID"]}),
        json!({"allowed_actions": ["proxy_use", "mint_workflow_lease"], "constraints": {"methods": ["GET"]}}),
    ] {
        world.clock.advance(Duration::from_secs(1));
        world
            .grant(
                &world.home.admin,
                &granted.agent_id,
                &granted.set_id,
                more.clone(),
            )
            .await;
        assert_eq!(
            taken(&world, &granted, json!({})).await,
            granted.grant_id,
            "{more}"
        );
    }
}

#[tokio::test]
async fn a_later_grant_that_allows_all_that_an_earlier_one_does_is_taken() {
    let world = World::new().await;
    let granted = world
        .granted(json!({"allowed_keys": ["STRIPE_SECRET_KEY"], "constraints": {"methods": ["GET"], "rate": {"requests": 5, "per_seconds": 60}}}))
        .await;
    for more in [
        json!({"allowed_keys": ["STRIPE_SECRET_KEY"], "constraints": {"methods": ["GET"], "rate": {"requests": 6, "per_seconds": 60}}}),
        json!({"constraints": {"methods": ["GET", "POST"], "rate": {"requests": 6, "per_seconds": 30}}}),
        json!({"expires_at": "2026-11-22T12:00:00Z"}),
    ] {
        world.clock.advance(Duration::from_secs(1));
        let wider = world
            .grant(
                &world.home.admin,
                &granted.agent_id,
                &granted.set_id,
                more.clone(),
            )
            .await;
        assert_eq!(taken(&world, &granted, json!({})).await, wider, "{more}");
        // Named, the narrower one is still there to mint from.
        let named = json!({"grant_ids": [granted.grant_id]});
        assert_eq!(taken(&world, &granted, named).await, granted.grant_id);
    }
}

#[tokio::test]
async fn a_grant_that_cannot_be_used_gives_way_to_one_that_can() {
    let world = World::new().await;
    let granted = world
        .granted(json!({"constraints": {"hosts": ["example.com"]}}))
        .await;
    let detail = world
        .post(
            "/v1/vault/leases",
            &granted.agent,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .refused(403, "grant_denied");
    assert!(
        detail.contains("example.com") && detail.contains("api.stripe.com"),
        "{detail}"
    );
    // Closed at this time, then open: each of them does more than the one before.
    for constraints in [
        json!({"time_window": {"after": "01:00", "before": "02:00", "timezone": "UTC"}}),
        json!({"methods": ["GET"]}),
    ] {
        world.clock.advance(Duration::from_secs(1));
        let more = json!({"constraints": constraints});
        let usable = world
            .grant(&world.home.admin, &granted.agent_id, &granted.set_id, more)
            .await;
        assert_eq!(taken(&world, &granted, json!({})).await, usable);
    }
}

/// What a set is called and holds, an agent without a grant on it does not learn from a refusal.
#[tokio::test]
async fn an_agent_without_a_grant_learns_nothing_of_a_set() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (_, stranger) = world.agent(&world.home.admin, "stranger").await;
    let mut answers = Vec::new();
    for more in [
        json!({}),
        json!({"environment": "prod"}),
        json!({"environment": "dev"}),
        json!({"provider": "stripe"}),
        json!({"provider": "openai"}),
        json!({"keys": ["STRIPE_SECRET_KEY"]}),
        json!({"keys": ["NONE"]}),
    ] {
        let mut question = json!({"secret_set_id": granted.set_id, "action": "proxy_use"});
        let fields = question.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let answer = world
            .post("/v1/vault/policy/eval", &stranger, question)
            .await;
        answers.push(answer.ok(200).to_string());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].contains("holds no active grant"), "{answers:?}");
    let detail = world
        .post(
            "/v1/vault/leases",
            &stranger,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .refused(403, "grant_denied");
    assert!(!detail.contains("stripe"), "{detail}");
    assert!(detail.contains(&granted.set_id), "{detail}");
}

#[tokio::test]
async fn an_expired_grant_and_an_inactive_agent_mint_nothing() {
    let world = World::new().await;
    let granted = world
        .granted(json!({"expires_at": "2026-11-22T07:10:00Z"}))
        .await;
    world.clock.advance(Duration::from_mins(10));
    world
        .post(
            "/v1/vault/leases",
            &granted.agent,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .refused(403, "grant_denied");
    world
        .patch(
            &format!("/v1/agents/{}", granted.agent_id),
            &world.home.admin,
            json!({"is_active": false}),
        )
        .await
        .ok(200);
    world
        .post(
            "/v1/vault/leases",
            &granted.agent,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .refused(401, "unauthenticated");
    let body = json!({"secret_set_id": granted.set_id, "agent_id": granted.agent_id});
    world
        .post("/v1/vault/leases", &world.home.admin, body)
        .await
        .refused(403, "grant_denied");
}

#[tokio::test]
async fn a_clock_that_stepped_back_mints_nothing() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    world.clock.set(START - Duration::from_hours(1));
    world
        .post(
            "/v1/vault/leases",
            &granted.agent,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .refused(503, "clock_behind");
}

#[tokio::test]
async fn an_agent_sees_and_ends_its_own_leases_only() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (second_id, second) = world.agent(&world.home.admin, "second").await;
    world
        .grant(&world.home.admin, &second_id, &granted.set_id, json!({}))
        .await;
    let body = json!({"secret_set_id": granted.set_id});
    let (own, token) = world.lease(&granted.agent, body.clone()).await;
    world.lease(&second, body).await;

    let listed = world.get("/v1/vault/leases", &granted.agent).await.ok(200);
    assert_eq!(listed["leases"].as_array().unwrap().len(), 1);
    assert_eq!(listed["leases"][0]["lease_id"], own.as_str());
    // A filter does not widen what an agent sees.
    let asked = world
        .get(
            &format!("/v1/vault/leases?agent_id={second_id}"),
            &granted.agent,
        )
        .await
        .ok(200);
    assert_eq!(asked["leases"][0]["lease_id"], own.as_str());
    assert_eq!(
        world
            .get("/v1/vault/leases", &world.home.admin)
            .await
            .ok(200)["leases"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let path = format!("/v1/vault/leases/{own}");
    assert_eq!(
        world.get(&path, &granted.agent).await.ok(200)["status"],
        "active"
    );
    world.get(&path, &second).await.refused(404, "not_found");
    world.delete(&path, &second).await.refused(404, "not_found");
    world
        .post("/v1/vault/leases/revoke", &second, json!({"token": token}))
        .await
        .refused(400, "invalid_request");
    world.delete(&path, &granted.agent).await.ok(204);
    assert_eq!(
        world.get(&path, &granted.agent).await.ok(200)["status"],
        "revoked"
    );
}

#[tokio::test]
async fn the_status_of_a_lease_follows_its_time() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (id, _) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(
        world
            .get(&format!("/v1/vault/leases/{id}"), &granted.agent)
            .await
            .ok(200)["status"],
        "expired"
    );
}

#[tokio::test]
async fn a_token_is_revoked_by_its_last_block() {
    let world = World::new().await;
    let granted = world
        .granted(json!({"allowed_actions": ["proxy_use", "mint_workflow_lease"]}))
        .await;
    let body = json!({"secret_set_id": granted.set_id, "kind": "workflow", "ttl_seconds": 600});
    let (id, token) = world.lease(&granted.agent, body).await;
    let narrowing = Narrowing {
        expires_at: Some(world.clock.now() + Duration::from_secs(30)),
        ..Narrowing::default()
    };
    let child = attenuate(
        &PresentedToken::parse(&token).unwrap(),
        &narrowing,
        world.clock.now(),
    )
    .unwrap();

    let revoked = world
        .post(
            "/v1/vault/leases/revoke",
            &granted.agent,
            json!({"token": child.as_str()}),
        )
        .await
        .ok(200);
    assert_eq!(
        (&revoked["lease_id"], &revoked["block"]),
        (&json!(id), &json!(1))
    );
    let path = format!("/v1/vault/leases/{id}");
    assert_eq!(
        world.get(&path, &granted.agent).await.ok(200)["status"],
        "active"
    );
    let last = *verify(&child.present(), &world.keys.public())
        .unwrap()
        .revocation_ids()
        .last()
        .unwrap();
    assert!(
        world
            .store
            .leases()
            .is_block_revoked(&world.home.org, &last)
            .await
            .unwrap()
    );

    let revoked = world
        .post(
            "/v1/vault/leases/revoke",
            &granted.agent,
            json!({"token": token}),
        )
        .await
        .ok(200);
    assert_eq!(revoked["block"], 0);
    assert_eq!(
        world.get(&path, &granted.agent).await.ok(200)["status"],
        "revoked"
    );
}

#[tokio::test]
async fn a_token_that_is_none_or_of_others_is_not_revoked() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (_, token) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    let mut forged = token.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for text in ["", "clv_", "x", forged.as_str()] {
        let answer = world
            .post(
                "/v1/vault/leases/revoke",
                &world.home.admin,
                json!({"token": text}),
            )
            .await;
        answer.refused(400, "invalid_request");
    }
    world
        .post(
            "/v1/vault/leases/revoke",
            &world.other.admin,
            json!({"token": token}),
        )
        .await
        .refused(400, "invalid_request");
}

#[tokio::test]
async fn leases_of_earlier_root_keys_stay_good_until_they_end() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let lease = json!({"secret_set_id": granted.set_id});
    let (_, token) = world.lease(&granted.agent, lease.clone()).await;
    let first = PresentedToken::parse(&token).unwrap();
    let actor = store::Actor::system("test");
    let mut watching = world.keys.subscribe();

    let rotated = world.keys.rotate(&world.chest, &actor, START).await;
    assert_eq!(rotated.unwrap(), 2);
    assert!(
        watching.has_changed().unwrap(),
        "verifiers learn of it at once"
    );
    verify(&first, &watching.borrow_and_update().clone()).unwrap();
    world.lease(&granted.agent, lease.clone()).await;
    assert_eq!(world.keys.minting_version(), 1, "it does not mint yet");

    world.clock.advance(control_plane::keys::OVERLAP);
    world.follow().await;
    assert_eq!(world.keys.minting_version(), 2);
    world.lease(&granted.agent, lease).await;

    let now = world.clock.now();
    world.keys.rotate(&world.chest, &actor, now).await.unwrap();
    verify(&first, &world.keys.public()).unwrap();
    // A day later nothing that the first key signed can live.
    world.clock.advance(Duration::from_hours(25));
    world.follow().await;
    assert!(verify(&first, &world.keys.public()).is_err());
}
