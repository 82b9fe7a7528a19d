//! Refusals of the protocol itself: every one a problem with a stable code.

use axum::body::Body;
use axum::http::{Method, Request, header};
use control_plane::Limits;
use control_plane::problem::Code;
use serde_json::{Value, json};

use crate::support::{Answer, World, nobody, request};

async fn post_raw(
    world: &World,
    path: &str,
    content_type: Option<&str>,
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::post(path).header(
        header::AUTHORIZATION,
        format!("Bearer {}", world.home.admin.0.as_ref().unwrap()),
    );
    if let Some(value) = content_type {
        request = request.header(header::CONTENT_TYPE, value);
    }
    world.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn a_path_that_does_not_exist_is_a_problem() {
    let world = World::new().await;
    for path in [
        "/",
        "/v1",
        "/v1/agents/",
        "/v1//agents",
        "/V1/agents",
        "/v1/agents/x/y",
        "/v1/orgs/../agents",
        "/v1/%2e%2e/agents",
        "/v1/agents%2Fx",
        "/v1/agents;x",
        "/v1/agents.",
    ] {
        world
            .get(path, &world.home.admin)
            .await
            .refused(404, "not_found");
    }
}

#[tokio::test]
async fn an_odd_id_is_one_that_does_not_exist() {
    let world = World::new().await;
    for id in [
        "x",
        "..",
        "%00",
        "%ff",
        "agt_01ARZ3NDEKTSV4RRFFQ69G5FAV%20",
        "agt_01arz3ndektsv4rrffq69g5fav",
        "' OR 1=1 --".replace(' ', "%20").as_str(),
        &"a".repeat(4000),
    ] {
        let answer = world
            .get(&format!("/v1/agents/{id}"), &world.home.admin)
            .await;
        assert!(
            answer.text.len() < 700,
            "a refusal does not repeat much: {}",
            answer.text.len()
        );
        answer.refused(404, "not_found");
    }
}

#[tokio::test]
async fn a_method_that_a_path_does_not_take_is_a_problem_with_allow() {
    let world = World::new().await;
    let answer = world.delete("/v1/agents", &world.home.admin).await;
    let allow = answer.headers[header::ALLOW].to_str().unwrap().to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    answer.refused(405, "method_not_allowed");
    for method in ["TRACE", "OPTIONS", "BREW"] {
        let answer = world
            .send(request(
                method.parse().unwrap(),
                "/v1/vault/leases",
                &world.home.admin,
                None,
            ))
            .await;
        answer.refused(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn head_is_taken_only_where_everybody_may_ask() {
    let world = World::new().await;
    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    // Links of shares and answers of identity providers are open too, and used up by being read.
    let takes_head = [
        "/openapi.json",
        "/metrics",
        "/v1/ca.pem",
        "/health/ready",
        "/v1/health",
        "/v1/health/hsm",
        "/v1/problems/{code}",
    ];
    for (path, item) in document["paths"].as_object().unwrap() {
        if item.get("get").is_none() {
            continue;
        }
        let open = takes_head.contains(&path.as_str());
        let filled = path.replace(['{', '}'], "");
        let head = request(Method::HEAD, &filled, &world.home.admin, None);
        let answer = world.send(head).await;
        if open {
            assert_ne!(answer.status, 405, "{path}");
            continue;
        }
        assert_eq!(answer.status, 405, "{path}");
        let allow = answer.headers[header::ALLOW].to_str().unwrap();
        assert!(
            allow.contains("GET") && !allow.contains("HEAD"),
            "{path} {allow}"
        );
    }
}

/// Up to its last byte the bound is the call's own, and no smaller one of the framework's.
#[tokio::test]
async fn a_body_up_to_the_bound_is_read() {
    let world = World::new().await;
    for size in [2_097_152, 2_097_153, 5_000_000] {
        let object = json!({"name": format!("of-{size}")}).to_string();
        let body = object.clone() + &" ".repeat(size - object.len());
        post_raw(&world, "/v1/agents", Some("application/json"), body)
            .await
            .ok(201);
    }
}

#[tokio::test]
async fn a_body_over_five_megabytes_is_a_problem() {
    let world = World::new().await;
    let body = format!("{{\"name\": \"{}\"}}", "x".repeat(5_000_000));
    post_raw(&world, "/v1/agents", Some("application/json"), body)
        .await
        .refused(413, "body_too_large");
    let endless = Body::from_stream(futures::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 4096]))
    }));
    post_raw(&world, "/v1/agents", Some("application/json"), endless)
        .await
        .refused(413, "body_too_large");
    let body = format!("{{\"api_key\": \"{}\"}}", "x".repeat(100_000));
    post_raw(
        &world,
        "/v1/auth/agent-token",
        Some("application/json"),
        body,
    )
    .await
    .refused(413, "body_too_large");
}

#[tokio::test]
async fn a_body_that_is_not_json_by_its_own_word_is_a_problem() {
    let world = World::new().await;
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
    ] {
        post_raw(&world, "/v1/agents", content_type, "{\"name\": \"x\"}")
            .await
            .refused(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_is_a_problem() {
    let world = World::new().await;
    let deep = format!("{{\"name\": {}", "[".repeat(100_000));
    let wide = format!("{{\"name\": [{}1]}}", "1,".repeat(200_000));
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"{} {}".to_vec(),
        b"\xff\xfe{}".to_vec(),
        br#"{"name": "a", "name": "b"}"#.to_vec(),
        br#"{"name": "\ud800"}"#.to_vec(),
        br"{'name': 'a'}".to_vec(),
        deep.into_bytes(),
        wide.into_bytes(),
    ];
    for body in bodies {
        post_raw(&world, "/v1/agents", Some("application/json"), body)
            .await
            .refused(400, "invalid_json");
    }
}

#[tokio::test]
async fn every_answer_has_the_headers_that_browsers_and_caches_need() {
    let world = World::new().await;
    for answer in [
        world.get("/v1/health", &nobody()).await,
        world.get("/nowhere", &nobody()).await,
        world.get("/v1/agents", &world.home.admin).await,
    ] {
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers["x-frame-options"], "DENY");
        assert!(
            answer.headers["content-security-policy"]
                .to_str()
                .unwrap()
                .starts_with("default-src 'none'")
        );
        assert!(answer.headers.contains_key("x-request-id"));
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn more_than_fits_is_turned_away() {
    let world = World::with(Limits {
        in_work: 0,
        ..Limits::default()
    })
    .await;
    world
        .get("/v1/agents", &world.home.admin)
        .await
        .refused(503, "overloaded");
}

#[tokio::test]
async fn every_code_has_its_page() {
    let world = World::new().await;
    for code in Code::ALL {
        let page = world
            .get(&format!("/v1/problems/{}", code.as_str()), &nobody())
            .await
            .ok(200);
        assert_eq!(page["error"], code.as_str());
        assert_eq!(page["status"], json!(code.status().as_u16()));
    }
    world
        .get("/v1/problems/no_such_code", &nobody())
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let world = World::new().await;
    let answer = world
        .send(request(Method::HEAD, "/v1/health", &nobody(), None))
        .await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
}
