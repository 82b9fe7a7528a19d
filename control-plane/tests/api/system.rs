//! Health, certificate, metrics, description, explanation.

use std::net::SocketAddr;

use axum::extract::ConnectInfo;
use axum::http::Method;
use serde_json::json;

use crate::support::{World, nobody, request};

#[tokio::test]
async fn a_healthy_service_says_so_to_anybody() {
    let world = World::new().await;
    assert_eq!(
        world.get("/v1/health", &nobody()).await.ok(200),
        json!({"status": "ok", "degraded": []})
    );
    assert_eq!(
        world.get("/v1/health/hsm", &nobody()).await.ok(200),
        json!({"status": "ok", "provider": "software", "wrap": true, "unwrap": true, "sign": true})
    );
}

#[tokio::test]
async fn a_missing_key_is_named_as_degraded() {
    let world = World::new().await;
    std::fs::remove_dir_all(world.dir.path().join("keys")).unwrap();
    let answer = world.get("/v1/health", &nobody()).await.ok(200);
    assert_eq!(answer, json!({"status": "degraded", "degraded": ["keys"]}));
    assert_eq!(
        world.get("/v1/health/hsm", &nobody()).await.ok(503)["status"],
        "unavailable"
    );
}

#[tokio::test]
async fn the_certificate_is_public() {
    let world = World::new().await;
    let answer = world.get("/v1/ca.pem", &nobody()).await;
    assert_eq!(answer.headers["content-type"], "application/x-pem-file");
    assert!(answer.text.starts_with("-----BEGIN CERTIFICATE-----"));
}

#[tokio::test]
async fn metrics_are_open_to_this_machine_and_to_people() {
    let world = World::new().await;
    world.get("/v1/no/such/path", &nobody()).await;
    world
        .get("/metrics", &nobody())
        .await
        .refused(401, "unauthenticated");
    let (_, agent) = world.agent(&world.home.admin, "bot").await;
    world
        .get("/metrics", &agent)
        .await
        .refused(401, "unauthenticated");
    let text = world.get("/metrics", &world.home.admin).await.text;
    assert!(
        text.contains(
            r#"api_requests_total{kind="none",method="POST",route="/v1/agents",status="2xx"} 1"#
        ),
        "{text}"
    );
    assert!(
        text.contains(r#"route="unmatched""#) && !text.contains("no/such"),
        "{text}"
    );
    let mut local = request(Method::GET, "/metrics", &nobody(), None);
    local
        .extensions_mut()
        .insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
    assert_eq!(world.send(local).await.status, 200);
}

#[tokio::test]
async fn the_description_names_only_what_exists_and_all_of_it() {
    let world = World::new().await;
    let document = world.get("/openapi.json", &nobody()).await.ok(200);
    let committed: serde_json::Value =
        serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    assert_eq!(document, committed);
    for (path, item) in document["paths"].as_object().unwrap() {
        let path = path
            .replace("{id}", "x")
            .replace("{name}", "x")
            .replace("{code}", "not_found");
        for method in item.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let answer = world
                .send(request(method.clone(), &path, &nobody(), None))
                .await;
            // The route is there, and says that it is of no use without an identity provider.
            if answer.text.contains("oidc_not_configured") {
                continue;
            }
            assert!(
                !matches!(answer.status.as_u16(), 404 | 405),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    let router = include_str!("../../src/router.rs");
    for line in router
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\""))
    {
        let path = line.split('"').next().unwrap();
        assert!(
            document["paths"].get(path).is_some(),
            "{path} is not described"
        );
    }
}

#[tokio::test]
async fn an_explanation_names_set_grant_and_template() {
    let world = World::new().await;
    let granted = world
        .granted(json!({"constraints": {"methods": ["GET"]}}))
        .await;
    let explain = async |query: &str| {
        world
            .get(&format!("/v1/explain?{query}"), &world.home.admin)
            .await
    };
    let answer = explain("url=https://api.stripe.com/v1/charges%3Fa=b&agent=billing-bot")
        .await
        .ok(200);
    assert_eq!(answer["decision"], "allow", "{answer}");
    assert_eq!(
        answer["candidates"][0]["grant_id"],
        granted.grant_id.as_str()
    );
    assert_eq!(
        answer["candidates"][0]["secret_set"],
        "stripe/prod/billing-bot"
    );
    assert_eq!(answer["templates"], json!(["stripe"]));
    assert_eq!(answer["path"], "/v1/charges");

    let answer = explain(&format!(
        "url=https://api.stripe.com/v1/charges&method=POST&agent={}",
        granted.agent_id
    ))
    .await
    .ok(200);
    assert_eq!(answer["decision"], "deny");
    assert!(
        answer["reason"].as_str().unwrap().contains("method"),
        "{answer}"
    );

    // What the injector refuses whatever a grant says.
    for (query, why) in [
        ("&method=get", "method_not_allowed: get is not proxied"),
        ("&method=TRACE", "method_not_allowed: TRACE is not proxied"),
        (
            "%3F_method=DELETE",
            "ambiguous_request: the query names another method",
        ),
        (
            "%3FX-HTTP-Method-Override=DELETE",
            "ambiguous_request: the query names another method",
        ),
    ] {
        let query = format!("url=https://api.stripe.com/v1/charges{query}");
        let answer = explain(&query).await.ok(200);
        assert_eq!(answer["decision"], "deny", "{answer}");
        let reason = answer["reason"].as_str().unwrap();
        assert!(reason.starts_with(why), "{reason}");
    }
    let answer = explain("url=https://api.stripe.com/v1/charges%3F_method=get").await;
    assert_eq!(answer.ok(200)["decision"], "allow");

    let answer = explain("url=https://api.example.org/").await.ok(200);
    assert_eq!(
        (&answer["decision"], &answer["candidates"]),
        (&json!("deny"), &json!([]))
    );

    let answer = explain("url=http://api.stripe.com/v1/charges")
        .await
        .ok(200);
    assert_eq!(answer["decision"], "deny");
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_refused() {
    let world = World::new().await;
    for query in [
        "url=ftp://x",
        "url=api.stripe.com",
        "url=",
        "url=https://127.1/",
        "method=GET",
        "url=https://x.example/&client_ip=x",
    ] {
        world
            .get(&format!("/v1/explain?{query}"), &world.home.admin)
            .await
            .refused(400, "invalid_request");
    }
    world
        .get(
            "/v1/explain?url=https://x.example/&agent=nobody",
            &world.home.admin,
        )
        .await
        .refused(404, "not_found");
    world
        .get(
            "/v1/explain?url=https://x.example/&agnt=x",
            &world.home.admin,
        )
        .await
        .refused(400, "unknown_field");
}

/// What is explained is what a lease that names no grant is minted from.
#[tokio::test]
async fn the_grant_that_leases_are_minted_from_decides() {
    let world = World::new().await;
    let granted = world
        .granted(json!({"constraints": {"methods": ["GET"]}}))
        .await;
    world.clock.advance(std::time::Duration::from_secs(1));
    let more = json!({"allowed_actions": ["proxy_use", "mint_workflow_lease"], "constraints": {"methods": ["POST"]}});
    let second = world
        .grant(&world.home.admin, &granted.agent_id, &granted.set_id, more)
        .await;
    let explain = async |method: &str| {
        let query = format!("/v1/explain?method={method}&url=https://api.stripe.com/v1/charges");
        world.get(&query, &world.home.admin).await.ok(200)
    };
    let answer = explain("GET").await;
    assert_eq!(answer["decision"], "allow");
    assert_eq!(
        answer["candidates"][0]["minted_unnamed"],
        json!(["request"])
    );
    let answer = explain("POST").await;
    assert_eq!(answer["decision"], "allow");
    assert_eq!(
        answer["candidates"][1]["minted_unnamed"],
        json!(["workflow"])
    );

    world.clock.advance(std::time::Duration::from_secs(1));
    let more = json!({"constraints": {"methods": ["DELETE"]}});
    let third = world
        .grant(&world.home.admin, &granted.agent_id, &granted.set_id, more)
        .await;
    let answer = explain("DELETE").await;
    assert_eq!(answer["decision"], "deny");
    let reason = answer["reason"].as_str().unwrap();
    assert!(
        reason.contains(&third) && reason.contains("--grant"),
        "{reason}"
    );
    assert!(!reason.contains(&second), "{reason}");
}

#[tokio::test]
async fn a_target_that_the_injector_refuses_is_not_explained_as_allowed() {
    let world = World::new().await;
    world.granted(json!({})).await;
    let explain = async |url: &str| {
        let query = format!("/v1/explain?url={url}");
        world.get(&query, &world.home.admin).await.ok(200)
    };
    for path in [
        "/v1/charges/a%252fb",
        "/v1/..",
        "/%25zz",
        "/%25252e",
        "/a%5Cb",
        "//a",
        "/a?b%20c",
    ] {
        let answer = explain(&format!("https://api.stripe.com{path}")).await;
        assert_eq!(answer["decision"], "deny", "{path}");
        let reason = answer["reason"].as_str().unwrap();
        assert!(
            reason.starts_with("ambiguous_request: "),
            "{path}: {reason}"
        );
    }
    let answer = explain("http://api.stripe.com/v1/charges").await;
    assert_eq!(answer["decision"], "deny");
    assert_eq!(answer["templates"], json!(["stripe"]));
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.starts_with("plaintext_denied: "), "{reason}");
    let answer = explain("http://api.openai.com/").await;
    assert!(
        answer["reason"]
            .as_str()
            .unwrap()
            .starts_with("plaintext_denied: ")
    );
    assert_eq!(explain("HTTPS://API.stripe.com").await["decision"], "allow");
}
