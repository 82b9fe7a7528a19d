//! The REST API as its clients meet it: one form of error, one effect a key, and agents are not people.

use serde_json::{Value, json};

use crate::support::Stack;

#[tokio::test]
async fn every_error_is_problem_json_with_a_code() {
    let stack = Stack::start().await;
    let admin = stack.admin();
    let missing = "/v1/vault/secret-sets/set_00000000000000000000000000";

    for (reply, status) in [
        (admin.get("/v1/nowhere").await, 404),
        (admin.get(missing).await, 404),
        (admin.delete(missing).await, 404),
        (admin.delete("/v1/health").await, 405),
        (
            admin
                .post("/v1/agents", &json!({ "name": "x".repeat(6 << 20) }))
                .await,
            413,
        ),
        (stack.api("").get("/v1/agents").await, 401),
        (stack.api("1ck_wrong").get("/v1/agents").await, 401),
    ] {
        assert_eq!(reply.status, status, "{}", reply.text());
        assert_eq!(
            reply.field("content-type"),
            Some("application/problem+json"),
            "{}",
            reply.text()
        );
        let problem = reply.json();
        for member in ["type", "title", "detail", "instance", "error"] {
            assert!(
                problem[member].is_string(),
                "{member} is missing: {problem}"
            );
        }
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_field_that_could_widen_a_grant_is_refused_by_name() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;

    let grant = json!({
        "agent_id": access.agent, "secret_set_id": access.set, "constraints": { "pathz": ["/v1/**"] },
    });
    let reply = stack
        .admin()
        .post("/v1/vault/grants", &grant)
        .await
        .expect_status(400);
    assert!(reply.text().contains("pathz"), "{}", reply.text());
    let lease = json!({ "secret_set_id": access.set, "agent_id": access.agent, "ttl": 5 });
    let reply = stack
        .admin()
        .post("/v1/vault/leases", &lease)
        .await
        .expect_status(400);
    assert!(reply.text().contains("ttl"), "{}", reply.text());

    stack.finish().await;
}

#[tokio::test]
async fn a_lifetime_out_of_bounds_is_refused_or_cut() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;

    for ttl in [json!(0), json!(-5), json!(i64::MAX), json!("60")] {
        let body =
            json!({ "secret_set_id": access.set, "agent_id": access.agent, "ttl_seconds": ttl });
        let reply = stack.admin().post("/v1/vault/leases", &body).await;
        assert!(
            matches!(reply.status, 400 | 422),
            "{ttl}: {} {}",
            reply.status,
            reply.text()
        );
    }
    let body = json!({ "secret_set_id": access.set, "agent_id": access.agent, "ttl_seconds": 901 });
    let reply = stack.admin().post("/v1/vault/leases", &body).await;
    assert!(matches!(reply.status, 400 | 422), "{}", reply.text());

    stack.finish().await;
}

#[tokio::test]
async fn a_taken_name_is_409() {
    let stack = Stack::start().await;
    stack.stripe().await;
    let secret = stack.secret("sk_live_");
    let body = json!({
        "provider": "stripe", "environment": "test", "name": "stripe-bot",
        "entries": { "STRIPE_SECRET_KEY": secret.text() },
    });

    stack
        .admin()
        .post("/v1/vault/secret-sets", &body)
        .await
        .expect_status(409);

    stack.finish().await;
}

#[tokio::test]
async fn an_agent_mints_for_itself_and_does_nothing_else() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let (other, _) = stack.agent("other").await;
    let token = stack
        .api("")
        .post(
            "/v1/auth/agent-token",
            &json!({ "api_key": access.agent_key }),
        )
        .await;
    let token = token.expect_status(200).json();
    assert_eq!(token["agent_id"], access.agent.as_str());
    let jwt = token["access_token"].as_str().unwrap();
    stack.watch_token(jwt);
    let agent = stack.api(jwt);

    let minted = agent
        .post("/v1/vault/leases", &json!({ "secret_set_id": access.set }))
        .await
        .expect_status(201)
        .json();
    let lease = minted["token"].as_str().unwrap();
    stack.watch_token(lease);
    stack
        .get("api.stripe.com", "/v1/balance", lease)
        .await
        .expect_status(200);

    let for_another = json!({ "secret_set_id": access.set, "agent_id": other });
    let own_grant = json!({ "agent_id": access.agent, "secret_set_id": access.set, "allowed_actions": ["export_plaintext"] });
    for reply in [
        agent.post("/v1/vault/leases", &for_another).await,
        agent.post("/v1/vault/grants", &own_grant).await,
        agent.post("/v1/agents", &json!({ "name": "more" })).await,
        agent.delete(&format!("/v1/agents/{other}")).await,
        agent
            .delete(&format!("/v1/vault/secret-sets/{}", access.set))
            .await,
        agent.get("/v1/audit/export").await,
    ] {
        assert!(
            matches!(reply.status, 403 | 404),
            "{} {}",
            reply.status,
            reply.text()
        );
    }
    stack
        .api("")
        .post("/v1/auth/agent-token", &json!({ "api_key": "ocv_wrong" }))
        .await
        .expect_status(401);
    stack.finish().await;
}

#[tokio::test]
async fn sets_whose_hosts_overlap_are_not_bound_in_one_lease() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let secret = stack.secret("sk_live_");
    let second = stack
        .put_set(
            "stripe",
            "second",
            &json!({ "STRIPE_SECRET_KEY": secret.text() }),
        )
        .await;
    stack.grant(&access.agent, &second, &json!({})).await;

    let body = json!({ "secret_set_ids": [access.set, second], "agent_id": access.agent });
    let reply = stack.admin().post("/v1/vault/leases", &body).await;

    assert!(
        matches!(reply.status, 400 | 409 | 422),
        "{} {}",
        reply.status,
        reply.text()
    );
    assert!(reply.text().contains("api.stripe.com"), "{}", reply.text());
    stack.finish().await;
}

#[tokio::test]
async fn lists_are_paged_and_named_after_their_resource() {
    let stack = Stack::start().await;
    for number in 0..5 {
        stack.agent(&format!("agent-{number}")).await;
    }
    let mut seen = Vec::new();
    let mut path = "/v1/agents?limit=2".to_owned();
    loop {
        let page = stack.admin().get(&path).await.expect_status(200).json();
        let agents = page["agents"].as_array().unwrap();
        assert!(agents.len() <= 2);
        seen.extend(agents.iter().map(|agent| agent["id"].clone()));
        let Value::String(cursor) = &page["next_cursor"] else {
            break;
        };
        path = format!("/v1/agents?limit=2&cursor={cursor}");
    }
    seen.sort_by_key(ToString::to_string);
    seen.dedup();

    assert_eq!(seen.len(), 5);
    stack.finish().await;
}

#[tokio::test]
async fn what_is_public_names_nothing() {
    let stack = Stack::start().await;
    stack.stripe().await;

    let health = stack.api("").get("/v1/health").await.expect_status(200);
    assert_eq!(health.json()["status"], "ok", "{}", health.text());
    let openapi = stack
        .api("")
        .get("/openapi.json")
        .await
        .expect_status(200)
        .json();
    assert!(
        openapi["openapi"].as_str().unwrap().starts_with("3.1"),
        "{openapi}"
    );
    for path in [
        "/v1/vault/secret-sets",
        "/v1/vault/grants",
        "/v1/vault/leases",
        "/v1/audit/events",
        "/v1/agents",
    ] {
        stack.api("").get(path).await.expect_status(401);
        assert!(
            openapi["paths"][path].is_object(),
            "{path} is not described"
        );
    }

    stack.finish().await;
}
