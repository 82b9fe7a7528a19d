//! Requests to providers as calls of the API: the same steps, the same record and the same refusals as through the injector.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::{Access, Reply, Stack};

const RACERS: usize = 20;

/// The call for one path of Stripe's, with the lease in these fields.
fn call(lease: &Value, path: &str) -> Value {
    let mut body = lease.clone();
    body["target"] = json!({ "method": "GET", "url": format!("https://api.stripe.com{path}") });
    body
}

/// A request lease, by its id.
async fn request_lease_id(stack: &Stack, access: &Access) -> String {
    let body = json!({ "secret_set_id": access.set, "agent_id": access.agent, "kind": "request" });
    let minted = stack.admin().post("/v1/vault/leases", &body).await;
    let minted = minted.expect_status(201).json();
    stack.watch_token(minted["token"].as_str().unwrap());
    minted["lease_id"].as_str().unwrap().to_owned()
}

async fn proxied(stack: &Stack, key: &str, body: &Value) -> Reply {
    stack.api(key).post("/v1/vault/proxy", body).await
}

#[tokio::test]
async fn an_agent_names_its_lease_and_the_provider_gets_the_key() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let lease = request_lease_id(&stack, &access).await;
    let mut body = json!({ "lease_id": lease });
    body["target"] = json!({
        "method": "POST", "url": "https://api.stripe.com/v1/own?limit=3",
        "headers": { "X-Own": "mine", "Authorization": "Bearer sk_agents_own", "X-Forwarded-For": "10.0.0.1" },
        "body": { "amount": 100 },
    });

    let reply = proxied(&stack, &access.agent_key, &body).await;

    let answer = reply.expect_status(200).json();
    assert_eq!(answer["status"], 200);
    assert_eq!(answer["body_encoding"], "text");
    let told: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(told["ok"], true);
    let sent = stack.upstream.last();
    assert_eq!(
        (sent.method.as_str(), sent.target.as_str()),
        ("POST", "/v1/own?limit=3")
    );
    assert_eq!(
        sent.field("authorization"),
        format!("Bearer {}", access.secret.text())
    );
    assert_eq!(sent.field("x-own"), "mine");
    assert_eq!(sent.field("content-type"), "application/json");
    assert_eq!(sent.body(), br#"{"amount":100}"#);
    assert!(sent.fields("proxy-authorization").is_empty());
    assert!(sent.fields("x-forwarded-for").is_empty());
    proxied(
        &stack,
        &access.agent_key,
        &call(&json!({ "lease_id": lease }), "/v1/charges"),
    )
    .await
    .expect_problem(403, "lease_consumed");
    stack.finish().await;
}

#[tokio::test]
async fn a_lease_is_used_by_its_token_or_as_the_credential_itself() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    for (key, lease) in [
        (&access.agent_key, json!({ "lease_token": token })),
        (&access.agent_key, json!({ "request_lease_token": token })),
        (&stack.admin_key, json!({ "lease_token": token })),
        (&token, json!({})),
    ] {
        let reply = proxied(&stack, key, &call(&lease, "/v1/balance")).await;
        assert_eq!(reply.expect_status(200).json()["status"], 200);
    }
    let both = json!({ "lease_id": "lse_x", "lease_token": token });
    proxied(&stack, &access.agent_key, &call(&both, "/v1/balance"))
        .await
        .expect_status(400);
    let none = call(&json!({}), "/v1/balance");
    proxied(&stack, &access.agent_key, &none)
        .await
        .expect_problem(401, "lease_missing");
    proxied(&stack, "", &none).await.expect_status(401);
    assert_eq!(stack.upstream.count(), 4);
    stack.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_20_racers_by_one_lease_exactly_one_reaches_the_upstream() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let lease = request_lease_id(&stack, &access).await;
    let body = call(&json!({ "lease_id": lease }), "/v1/charges");
    let tries = (0..RACERS).map(|_| {
        let (api, body) = (stack.api(&access.agent_key), body.clone());
        tokio::spawn(async move { api.post("/v1/vault/proxy", &body).await })
    });
    let tries: Vec<_> = tries.collect();
    let mut won = 0;
    for reply in tries {
        let reply = reply.await.unwrap();
        if reply.status == 200 {
            won += 1;
        } else {
            reply.expect_problem(403, "lease_consumed");
        }
    }
    assert_eq!((won, stack.upstream.count()), (1, 1));
    stack.finish().await;
}

#[tokio::test]
async fn what_the_injector_refuses_is_refused_here_with_the_same_code() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&json!({ "constraints": { "paths": ["/v1/**"], "methods": ["GET"] } }))
        .await;
    let (token, id) = stack.workflow_lease_with_id(&access).await;
    let ask = async |target: Value| {
        let body = json!({ "lease_token": token, "target": target });
        proxied(&stack, &access.agent_key, &body).await
    };
    let wrong_host = ask(json!({ "url": "https://api.openai.com/v1/models" })).await;
    wrong_host.expect_problem(403, "grant_denied");
    ask(json!({ "url": "https://api.stripe.com/v2/x" }))
        .await
        .expect_problem(403, "grant_denied");
    ask(json!({ "url": "https://api.stripe.com/v1/x", "method": "POST" }))
        .await
        .expect_problem(403, "grant_denied");
    ask(json!({ "url": "http://api.stripe.com/v1/x" }))
        .await
        .expect_problem(403, "plaintext_denied");
    ask(json!({ "url": "https://api.stripe.com/v1/x", "headers": { "Host": "api.openai.com" } }))
        .await
        .expect_problem(421, "authority_mismatch");
    ask(json!({ "url": "https://api.stripe.com/v1/../x" }))
        .await
        .expect_problem(400, "ambiguous_request");
    ask(json!({ "url": "https://api.stripe.com/v1/x", "headers": { "Upgrade": "websocket" } }))
        .await
        .expect_problem(403, "upgrade_denied");
    ask(json!({ "url": "https://api.stripe.com/v1/x", "method": "CONNECT" }))
        .await
        .expect_problem(405, "method_not_allowed");
    assert_eq!(stack.upstream.count(), 0);
    ask(json!({ "url": "https://api.stripe.com/v1/x" }))
        .await
        .expect_status(200);

    let lease = format!("/v1/vault/leases/{id}");
    stack.admin().delete(&lease).await.expect_status(204);
    ask(json!({ "url": "https://api.stripe.com/v1/x" }))
        .await
        .expect_problem(403, "lease_revoked");
    let by_id = call(&json!({ "lease_id": id }), "/v1/x");
    proxied(&stack, &access.agent_key, &by_id)
        .await
        .expect_problem(403, "lease_revoked");
    let forged = call(&json!({ "lease_token": format!("{token}A") }), "/v1/x");
    proxied(&stack, &access.agent_key, &forged)
        .await
        .expect_problem(401, "lease_invalid");
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_lease_of_another_agent_is_like_one_that_never_was() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let (token, id) = stack.workflow_lease_with_id(&access).await;
    let (_, other) = stack.agent("other").await;
    proxied(&stack, &other, &call(&json!({ "lease_id": id }), "/v1/x"))
        .await
        .expect_problem(404, "not_found");
    proxied(
        &stack,
        &other,
        &call(&json!({ "lease_token": token }), "/v1/x"),
    )
    .await
    .expect_problem(401, "lease_invalid");
    for id in ["lse_01K3ABCDEFGHJKMNPQRSTVWXYZ", "ls_789"] {
        proxied(
            &stack,
            &access.agent_key,
            &call(&json!({ "lease_id": id }), "/v1/x"),
        )
        .await
        .expect_problem(404, "not_found");
    }
    proxied(
        &stack,
        &access.agent_key,
        &call(&json!({ "lease_id": 789 }), "/v1/x"),
    )
    .await
    .expect_problem(404, "not_found");
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn the_callers_own_address_decides_and_is_on_record() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&json!({ "constraints": { "cidrs": ["127.0.0.7/32"] } }))
        .await;
    let token = stack.workflow_lease(&access).await;
    let mut body = call(&json!({ "lease_token": token }), "/v1/balance");
    body["target"]["headers"] =
        json!({ "X-Forwarded-For": "127.0.0.7", "Forwarded": "for=127.0.0.7" });

    proxied(&stack, &access.agent_key, &body)
        .await
        .expect_problem(403, "grant_denied");
    let api = stack.api(&access.agent_key).from([127, 0, 0, 7]);
    let reply = api.post("/v1/vault/proxy", &body).await.expect_status(200);

    let id = reply.field("x-request-id").unwrap();
    let events = stack.events().await;
    let used = events
        .iter()
        .find(|event| event["action"] == "lease.use")
        .unwrap();
    assert_eq!(used["client_ip"], "127.0.0.7");
    assert_eq!(used["request_id"], id);
    let refused = events
        .iter()
        .find(|event| event["action"] == "lease.refuse")
        .unwrap();
    assert_eq!(refused["client_ip"], "127.0.0.1");
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn inner_addresses_are_closed_here_as_well() {
    let stack = Stack::builder()
        .without_loopback()
        .resolve("api.openai.com", "169.254.169.254:443")
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    proxied(&stack, &token, &call(&json!({}), "/v1/x"))
        .await
        .expect_problem(403, "destination_blocked");
    for url in [
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://localhost/",
        "https://2130706433/",
        "https://api.openai.com/v1/models",
    ] {
        let body = json!({ "target": { "url": url } });
        let reply = proxied(&stack, &token, &body).await;
        assert!(matches!(reply.status, 400 | 403), "{url}: {}", reply.text());
    }
    assert_eq!(stack.upstream.connections(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn what_a_provider_gives_back_is_scrubbed_in_the_answer() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    for path in [
        "/echo",
        "/gzip-echo",
        "/reflect/plain",
        "/reflect/base64",
        "/reflect/json",
        "/split-reflect",
        "/reflect-in-two",
    ] {
        let reply = proxied(&stack, &token, &call(&json!({}), path)).await;
        assert!(!reply.text().contains(access.secret.text()), "{path}");
    }
    let echoed = proxied(&stack, &token, &call(&json!({}), "/echo")).await;
    let answer = echoed.expect_status(200).json();
    let field = answer["headers"]["x-echo-authorization"].as_str().unwrap();
    assert!(field.ends_with('*'), "{field}");
    assert!(answer["headers"].get("transfer-encoding").is_none());
    stack.finish().await;
}

#[tokio::test]
async fn answers_are_bounded_redirects_stay_answers_and_bytes_are_base64() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let ask = async |path: &str| proxied(&stack, &token, &call(&json!({}), path)).await;

    let redirect = ask("/redirect/evil.example/")
        .await
        .expect_status(200)
        .json();
    assert_eq!(redirect["status"], 302);
    assert_eq!(redirect["headers"]["location"], "https://evil.example/");
    let bytes = ask("/bytes/1000").await.expect_status(200).json();
    assert_eq!(bytes["body_encoding"], "base64");
    let failed = ask("/status/500").await.expect_status(200).json();
    assert_eq!(failed["status"], 500);
    ask("/close-midway")
        .await
        .expect_problem(502, "upstream_protocol");
    ask("/garbage")
        .await
        .expect_problem(502, "upstream_protocol");
    let mut hangs = call(&json!({}), "/hang");
    hangs["target"]["timeout_ms"] = json!(300);
    proxied(&stack, &token, &hangs)
        .await
        .expect_problem(504, "upstream_timeout");
    ask("/bytes/5000001")
        .await
        .expect_problem(502, "answer_too_large");
    stack.finish().await;
}

#[tokio::test]
async fn an_injection_that_is_written_out_must_be_the_templates() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let ask = async |injection: Value| {
        let mut body = call(&json!({}), "/echo");
        body["injection"] = injection;
        proxied(&stack, &token, &body).await
    };
    let good = json!({ "type": "header", "header": "Authorization", "format": "Bearer ${STRIPE_SECRET_KEY}" });
    ask(good).await.expect_status(200);
    for elsewhere in [
        json!({ "type": "header", "header": "X-Debug", "format": "${STRIPE_SECRET_KEY}" }),
        json!({ "type": "header", "header": "Authorization", "format": "Bearer ${STRIPE_WEBHOOK_SECRET}" }),
        json!({ "type": "header", "header": "Authorization", "format": "Token ${STRIPE_SECRET_KEY}" }),
    ] {
        let refused = ask(elsewhere).await.expect_problem(403, "injection_denied");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("Bearer ${STRIPE_SECRET_KEY}"), "{detail}");
    }
    ask(json!({ "type": "query", "header": "a", "format": "b" }))
        .await
        .expect_status(400);
    ask(json!({ "type": "header" })).await.expect_status(400);
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

/// A workflow lease of Clawb's shape, and the agent who holds it.
async fn workflow(stack: &Stack, grant: &Value, body: &Value) -> (Access, String, String) {
    let access = stack.stripe_with(grant).await;
    let mut wish = body.clone();
    wish["secret_set_id"] = json!(access.set);
    let agent = stack.api(&access.agent_key);
    let made = agent.post("/v1/vault/leases/workflow", &wish).await;
    let made = made.expect_status(201).json();
    let token = made["workflow_lease_token"].as_str().unwrap().to_owned();
    stack.watch_token(&token);
    assert_eq!(made["kind"], "workflow");
    (access, token, made["lease_id"].as_str().unwrap().to_owned())
}

async fn mint(stack: &Stack, key: &str, body: &Value) -> Reply {
    let reply = stack
        .api(key)
        .post("/v1/vault/leases/request/mint", body)
        .await;
    if reply.status == 201 {
        stack.watch_token(reply.json()["request_lease_token"].as_str().unwrap());
    }
    reply
}

#[tokio::test]
async fn a_workflow_lease_mints_request_leases_that_end_with_it() {
    let stack = Stack::start().await;
    let (access, workflow, id) =
        workflow(&stack, &json!({}), &json!({ "ttl_seconds": 3600 })).await;
    let wish = json!({ "workflow_lease_token": workflow, "secret_set_id": access.set, "action": "proxy_use", "ttl_seconds": 900 });
    let mut leases = Vec::new();
    for _ in 0..3 {
        let minted = mint(&stack, &access.agent_key, &wish)
            .await
            .expect_status(201)
            .json();
        assert_eq!(minted["kind"], "request");
        assert_eq!(minted["workflow_lease_id"], id.as_str());
        leases.push(minted);
    }
    let request = |lease: &Value| {
        json!({
            "request_lease_token": lease["request_lease_token"], "secret_set_id": access.set, "profile": "stripe",
            "environment": "test", "request": { "method": "GET", "url": "https://api.stripe.com/v1/balance" },
        })
    };
    let agent = stack.api(&access.agent_key);
    let answer = agent
        .post("/v1/vault/proxy/request", &request(&leases[0]))
        .await;
    assert_eq!(answer.expect_status(200).json()["status"], 200);
    agent
        .post("/v1/vault/proxy/request", &request(&leases[0]))
        .await
        .expect_problem(403, "lease_consumed");
    for (field, value, code) in [
        ("profile", json!("openai"), "injection_denied"),
        ("environment", json!("prod"), "grant_denied"),
        ("secret_set_id", json!(42), "grant_denied"),
    ] {
        let mut wrong = request(&leases[1]);
        wrong[field] = value;
        let refused = agent.post("/v1/vault/proxy/request", &wrong).await;
        refused.expect_problem(403, code);
    }

    let path = format!("/v1/vault/leases/{id}");
    stack.admin().delete(&path).await.expect_status(204);
    agent
        .post("/v1/vault/proxy/request", &request(&leases[1]))
        .await
        .expect_problem(403, "lease_revoked");
    let shown = stack.lease(leases[2]["lease_id"].as_str().unwrap()).await;
    assert_eq!(shown["status"], "revoked");
    assert_eq!(shown["workflow_lease_id"], id.as_str());
    mint(&stack, &access.agent_key, &wish)
        .await
        .expect_problem(403, "lease_revoked");
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_lease_minted_from_another_is_never_wider_nor_longer() {
    let stack = Stack::start().await;
    let grant =
        json!({ "allowed_keys": ["STRIPE_SECRET_KEY"], "constraints": { "paths": ["/v1/**"] } });
    let (access, workflow, _) = workflow(&stack, &grant, &json!({ "ttl_seconds": 30 })).await;
    let wish = |more: &Value| {
        let mut wish = json!({ "workflow_lease_token": workflow, "secret_set_id": access.set });
        for (name, value) in more.as_object().unwrap() {
            wish[name] = value.clone();
        }
        wish
    };
    let agent = &access.agent_key;
    let minted = mint(&stack, agent, &wish(&json!({ "ttl_seconds": 900 }))).await;
    let minted = minted.expect_status(201).json();
    let workflow_ends =
        stack.admin().get("/v1/vault/leases").await.json()["leases"][0]["expires_at"].clone();
    assert_eq!(minted["expires_at"], workflow_ends);
    assert_eq!(
        minted["constraints"]["secret_sets"][0]["constraints"]["paths"],
        json!(["/v1/**"])
    );
    for (more, code) in [
        (json!({ "action": "export" }), "grant_denied"),
        (json!({ "keys": ["STRIPE_ACCOUNT_ID"] }), "grant_denied"),
        (
            json!({ "secret_set_id": "set_01K3ABCDEFGHJKMNPQRSTVWXYZ" }),
            "grant_denied",
        ),
        (json!({ "secret_set_id": 7 }), "grant_denied"),
    ] {
        mint(&stack, agent, &wish(&more))
            .await
            .expect_problem(403, code);
    }
    mint(&stack, agent, &wish(&json!({ "ttl_seconds": 901 })))
        .await
        .expect_problem(422, "invalid_ttl");
    mint(&stack, agent, &wish(&json!({ "keys": [] })))
        .await
        .expect_status(400);
    mint(&stack, agent, &wish(&json!({ "action": "anything" })))
        .await
        .expect_status(400);
    let request = stack.request_lease(&access).await;
    mint(
        &stack,
        agent,
        &wish(&json!({ "workflow_lease_token": request })),
    )
    .await
    .expect_problem(403, "grant_denied");
    let narrowed = narrowed(&workflow);
    stack.watch_token(&narrowed);
    mint(
        &stack,
        agent,
        &wish(&json!({ "workflow_lease_token": narrowed })),
    )
    .await
    .expect_problem(403, "lease_scope");
    let (_, other) = stack.agent("other").await;
    mint(&stack, &other, &wish(&json!({})))
        .await
        .expect_problem(401, "lease_invalid");
    stack.finish().await;
}

fn narrowed(token: &str) -> String {
    let parent = leases::PresentedToken::parse(token).unwrap();
    let narrowing = leases::Narrowing {
        methods: vec!["GET".to_owned()],
        ..leases::Narrowing::default()
    };
    let now = time::OffsetDateTime::now_utc();
    let narrowed = leases::attenuate(&parent, &narrowing, now).unwrap();
    narrowed.as_str().to_owned()
}

#[tokio::test]
async fn secrets_are_read_by_an_export_lease_alone() {
    let stack = Stack::start().await;
    let grant =
        json!({ "allowed_actions": ["proxy_use", "export_plaintext", "mint_workflow_lease"] });
    let wish = json!({ "action": "export_plaintext" });
    let (access, workflow, _) = workflow(&stack, &grant, &wish).await;
    let minted = mint(
        &stack,
        &access.agent_key,
        &json!({ "workflow_lease_token": workflow, "secret_set_id": access.set, "action": "export" }),
    )
    .await
    .expect_status(201)
    .json();
    let agent = stack.api(&access.agent_key);
    let body = |token: &Value| json!({ "request_lease_token": token, "secret_set_id": access.set, "keys": ["STRIPE_SECRET_KEY"], "environment": "test" });
    let token = &minted["request_lease_token"];
    let mut wrong = body(token);
    wrong["environment"] = json!("prod");
    let refused = agent.call_secretly("/v1/vault/secrets/read", &wrong).await;
    refused.expect_problem(403, "grant_denied");
    let read = agent
        .call_secretly("/v1/vault/secrets/read", &body(token))
        .await;
    assert_eq!(
        read.expect_status(200).json(),
        json!({ "ok": true, "secrets": { "STRIPE_SECRET_KEY": access.secret.text() } })
    );
    let again = agent
        .call_secretly("/v1/vault/secrets/read", &body(token))
        .await;
    again.expect_problem(403, "lease_consumed");
    let proxying = json!(stack.request_lease(&access).await);
    let refused = agent
        .call_secretly("/v1/vault/secrets/read", &body(&proxying))
        .await;
    refused.expect_problem(403, "export_denied");
    let exports = stack.events().await;
    let exports = exports
        .iter()
        .filter(|event| event["action"] == "secret.export");
    assert_eq!(exports.count(), 1);
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn an_agent_asks_what_its_grants_allow_and_nothing_is_done_by_it() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&json!({ "allowed_actions": ["proxy_use"] }))
        .await;
    let own = stack.api(&access.agent_key);
    let ask = async |api: &Api, more: Value| {
        let mut body = json!({ "secret_set_id": access.set, "action": "proxy_use" });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        api.post("/v1/vault/policy/eval", &body).await
    };
    let allowed = async |more: Value| {
        let told = ask(&own, more).await.expect_status(200).json();
        assert_eq!(
            told["decision"],
            if told["ok"] == true { "allow" } else { "deny" }
        );
        assert!(!told["reason"].as_str().unwrap().is_empty());
        (told["ok"].clone(), told["grant_id"].clone())
    };
    let yes = (json!(true), json!(access.grant));
    let no = (json!(false), Value::Null);
    for (more, answer) in [
        (json!({}), &yes),
        (json!({ "action": "proxy" }), &yes),
        (
            json!({ "keys": ["STRIPE_SECRET_KEY"], "provider": "stripe", "environment": "test" }),
            &yes,
        ),
        (json!({ "action": "export" }), &no),
        (json!({ "action": "mint_workflow_lease" }), &no),
        (json!({ "keys": ["NOT_THERE"] }), &no),
        (json!({ "provider": "openai" }), &no),
        (json!({ "environment": "prod" }), &no),
    ] {
        assert_eq!(allowed(more.clone()).await, *answer, "{more}");
    }
    let admin = stack.admin();
    let told = ask(&admin, json!({ "agent_id": access.agent })).await;
    assert_eq!(told.expect_status(200).json()["ok"], true);
    ask(&admin, json!({}))
        .await
        .expect_problem(400, "invalid_request");
    let (_, other) = stack.agent("other").await;
    let told = ask(&stack.api(&other), json!({})).await;
    assert_eq!(told.expect_status(200).json()["ok"], false);
    ask(&own, json!({ "action": "anything" }))
        .await
        .expect_status(400);

    // An answer is as good as the grants are when it is given.
    let grant = format!("/v1/vault/grants/{}", access.grant);
    admin.delete(&grant).await.expect_status(204);
    assert_eq!(allowed(json!({})).await, no);
    let events = stack.events().await;
    let done = events
        .iter()
        .filter_map(|event| event["action"].as_str())
        .filter(|action| {
            action.starts_with("lease.") || ["secret.read", "secret.export"].contains(action)
        });
    assert_eq!(done.count(), 0, "{events:?}");
    stack.finish_without_traffic().await;
}
