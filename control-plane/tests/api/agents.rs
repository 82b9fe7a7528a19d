//! Agents: made, shown, changed, stopped, deleted.

use serde_json::json;

use crate::support::World;

#[tokio::test]
async fn an_agent_is_made_with_a_key_that_is_shown_once() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let made = world
        .post(
            "/v1/agents",
            admin,
            json!({"name": "billing-bot", "description": "pays"}),
        )
        .await
        .ok(201);
    assert_eq!(made["agent"]["name"], "billing-bot");
    assert_eq!(made["agent"]["is_active"], true);
    assert_eq!(made["agent"]["created_at"], "2026-11-22T07:00:00.000Z");
    let key = made["api_key"].as_str().unwrap();
    assert!(key.starts_with("ocv_") && key.len() == 47);

    let id = made["agent"]["id"].as_str().unwrap();
    let shown = world.get(&format!("/v1/agents/{id}"), admin).await;
    assert!(!shown.text.contains("ocv_"));
    assert_eq!(shown.ok(200)["description"], "pays");
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused() {
    let world = World::new().await;
    world.agent(&world.home.admin, "bot").await;
    let detail = world
        .post("/v1/agents", &world.home.admin, json!({"name": "bot"}))
        .await
        .refused(409, "name_taken");
    assert!(detail.contains("`bot`"), "{detail}");
    // Another organisation has names of its own.
    world
        .post("/v1/agents", &world.other.admin, json!({"name": "bot"}))
        .await
        .ok(201);
}

#[tokio::test]
async fn a_field_that_does_not_exist_is_refused_by_name() {
    let world = World::new().await;
    for field in ["org_id", "is_active", "role", "id"] {
        let detail = world
            .post(
                "/v1/agents",
                &world.home.admin,
                json!({"name": "bot", field: true}),
            )
            .await
            .refused(400, "unknown_field");
        assert!(detail.contains(field), "{detail}");
    }
}

#[tokio::test]
async fn names_that_would_forge_a_log_line_are_refused() {
    let world = World::new().await;
    for name in ["", "  ", "a\nb", "a\u{1b}[31m", &"x".repeat(129)] {
        let detail = world
            .post("/v1/agents", &world.home.admin, json!({"name": name}))
            .await
            .refused(400, "invalid_request");
        assert!(detail.starts_with("name: "), "{detail}");
    }
}

#[tokio::test]
async fn an_agent_is_changed_and_its_description_removed() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let made = world
        .post(
            "/v1/agents",
            admin,
            json!({"name": "bot", "description": "old"}),
        )
        .await;
    let path = format!("/v1/agents/{}", made.field("/agent/id"));
    let changed = world
        .patch(&path, admin, json!({"name": "new", "is_active": false}))
        .await
        .ok(200);
    assert_eq!(
        (
            &changed["name"],
            &changed["description"],
            &changed["is_active"]
        ),
        (&json!("new"), &json!("old"), &json!(false))
    );
    let changed = world
        .patch(&path, admin, json!({"description": null}))
        .await
        .ok(200);
    assert_eq!(changed["description"], json!(null));
    world.agent(admin, "other").await;
    world
        .patch(&path, admin, json!({"name": "other"}))
        .await
        .refused(409, "name_taken");
}

#[tokio::test]
async fn a_rotated_key_ends_the_old_one() {
    let world = World::new().await;
    let (id, old) = world.agent(&world.home.admin, "bot").await;
    world.get("/v1/vault/leases", &old).await.ok(200);
    let fresh = world
        .post(
            &format!("/v1/agents/{id}/rotate-key"),
            &world.home.admin,
            json!({}),
        )
        .await;
    let fresh = crate::support::holder(fresh.field("/api_key"));
    world.get("/v1/vault/leases", &fresh).await.ok(200);
    world
        .get("/v1/vault/leases", &old)
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_deleted_agent_is_gone_and_its_name_is_free() {
    let world = World::new().await;
    let (id, key) = world.agent(&world.home.admin, "bot").await;
    world
        .delete(&format!("/v1/agents/{id}"), &world.home.admin)
        .await
        .ok(204);
    world
        .get("/v1/vault/leases", &key)
        .await
        .refused(401, "unauthenticated");
    world
        .get(&format!("/v1/agents/{id}"), &world.home.admin)
        .await
        .refused(404, "not_found");
    world
        .delete(&format!("/v1/agents/{id}"), &world.home.admin)
        .await
        .refused(404, "not_found");
    world.agent(&world.home.admin, "bot").await;
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let world = World::new().await;
    for number in 0..5 {
        world
            .agent(&world.home.admin, &format!("bot-{number}"))
            .await;
    }
    let mut names = Vec::new();
    let mut path = "/v1/agents?limit=2".to_owned();
    loop {
        let page = world.get(&path, &world.home.admin).await.ok(200);
        let agents = page["agents"].as_array().unwrap();
        assert!(agents.len() <= 2);
        names.extend(
            agents
                .iter()
                .map(|agent| agent["name"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/agents?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    names.sort();
    assert_eq!(names, ["bot-0", "bot-1", "bot-2", "bot-3", "bot-4"]);
}

#[tokio::test]
async fn a_limit_of_nothing_and_a_foreign_cursor_are_refused() {
    let world = World::new().await;
    for query in [
        "limit=0",
        "limit=-1",
        "limit=x",
        "cursor=%27%20OR%201=1",
        "limit=1&limit=2",
    ] {
        world
            .get(&format!("/v1/agents?{query}"), &world.home.admin)
            .await
            .refused(400, "invalid_request");
    }
    world
        .get("/v1/agents?limit=1000000000", &world.home.admin)
        .await
        .ok(200);
}

/// The seeds' clients send the switches of services that are not part of this one.
#[tokio::test]
async fn a_switch_that_is_off_is_taken_and_one_that_is_on_is_refused() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let off = json!({"name": "bot", "scopes": [], "intents_api_enabled": false, "shroud_enabled": false,
        "shroud_config": {}, "execution_intents_enabled": false, "execution_guardrails": null,
        "tx_allowed_chains": [], "tx_max_value_eth": null, "per_chain_guardrails": {}});
    let made = world.post("/v1/agents", admin, off.clone()).await.ok(201);
    let id = made["agent"]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/agents/{id}");
    world.patch(&path, admin, off).await.ok(200);
    for (field, value) in [
        ("scopes", json!(["vaults:read"])),
        ("intents_api_enabled", json!(true)),
        ("shroud_enabled", json!(true)),
        ("shroud_config", json!({"pii_policy": "block"})),
        ("execution_intents_enabled", json!(true)),
        ("tx_daily_limit_eth", json!("0.1")),
        ("tx_to_allowlist", json!(["0x0"])),
    ] {
        for answer in [
            world
                .post("/v1/agents", admin, json!({"name": "other", field: value}))
                .await,
            world.patch(&path, admin, json!({field: value})).await,
        ] {
            let detail = answer.refused(400, "unknown_field");
            assert!(detail.starts_with(field), "{detail}");
            assert!(detail.contains("leave"), "{detail}");
        }
    }
    world
        .post("/v1/agents", admin, json!({"name": "x", "org_id": false}))
        .await
        .refused(400, "unknown_field");
}

#[tokio::test]
async fn put_changes_what_it_names_as_patch_does() {
    let world = World::new().await;
    let (id, _) = world.agent(&world.home.admin, "bot").await;
    let path = format!("/v1/agents/{id}");
    let changed = world
        .put(&path, &world.home.admin, json!({"description": "pays"}))
        .await
        .ok(200);
    assert_eq!(
        (&changed["description"], &changed["name"]),
        (&json!("pays"), &json!("bot"))
    );
    world
        .put(&path, &world.home.admin, json!({"role": "x"}))
        .await
        .refused(400, "unknown_field");
}

#[tokio::test]
async fn an_agent_reads_of_itself_what_the_seeds_clients_look_for() {
    let world = World::new().await;
    let (_, agent) = world.agent(&world.home.admin, "bot").await;
    let me = world.get("/v1/agents/me", &agent).await.ok(200);
    assert_eq!(me["org_id"], world.home.org.as_str());
    assert_eq!(me["scopes"], json!([]));
    assert_eq!(me["intents_api_enabled"], false);
    for field in ["created_by", "last_active_at", "expires_at"] {
        assert!(me.as_object().unwrap().contains_key(field), "{field}");
    }
}
