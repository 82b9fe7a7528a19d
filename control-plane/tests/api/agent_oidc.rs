//! Agents that show a token of their own identity provider in the place of a key.

use std::time::Duration;

use ::leases::clock::Clock as _;
use serde_json::{Value, json};

use crate::bound_tokens::{self, Prover, call};
use crate::flaws::forgeries;
use crate::identity_provider::{IdentityProvider, SigningKey};
use crate::oidc::{here, patient};
use crate::support::{Answer, NOBODY, Setup, Who, World, holder};

const SERVICE: &str = "ci@clients";

async fn world() -> World {
    World::of(Setup {
        outbound: here(),
        limits: patient(),
        ..Setup::default()
    })
    .await
}

/// What a person asks for.
fn wanted(name: &str, issuer: &str) -> Value {
    json!({"name": name, "auth_method": "oidc_client_credentials", "oidc_issuer": issuer, "oidc_client_id": SERVICE})
}

async fn agent(world: &World, provider: &IdentityProvider) -> String {
    let body = wanted("ci", &provider.issuer);
    let made = world.post("/v1/agents", &world.home.admin, body).await;
    made.ok(201)["agent"]["id"].as_str().unwrap().to_owned()
}

/// What the provider says of the client: an access token (RFC 9068).
fn claims(world: &World, provider: &IdentityProvider) -> Value {
    let now = world.clock.now().unix_timestamp();
    json!({"iss": provider.issuer, "aud": "claviger", "sub": "a-service-account", "azp": SERVICE, "client_id": SERVICE,
           "iat": now, "nbf": now, "exp": now + 3600, "jti": "x", "scope": "anything"})
}

async fn exchange(world: &World, agent: &str, token: &str) -> Answer {
    let body = json!({"agent_id": agent, "oidc_token": token});
    world.post("/v1/auth/agent-token", &NOBODY, body).await
}

async fn leases(world: &World, agent: &Who) -> Answer {
    world.get("/v1/vault/leases", agent).await
}

fn masked(answer: &Answer) -> Value {
    let mut body = answer.json();
    body["instance"] = json!(null);
    body
}

#[tokio::test]
async fn an_agent_has_no_key_and_exchanges_its_providers_token() {
    let (world, provider) = (world().await, IdentityProvider::start().await);
    let owner = &world.home.admin;
    let made = world.post("/v1/agents", owner, wanted("ci", &provider.issuer));
    let made = made.await.ok(201);
    assert!(made.get("api_key").is_none(), "{made}");
    let agent = &made["agent"];
    assert_eq!(agent["auth_method"], "oidc_client_credentials");
    assert_eq!(agent["oidc_issuer"], provider.issuer);
    assert_eq!(agent["oidc_client_id"], SERVICE);
    assert!(agent.get("oidc_audience").is_none());
    // Nobody was asked for it yet.
    assert_eq!(provider.asked(), Vec::<String>::new());
    let id = agent["id"].as_str().unwrap();
    let token = provider.key.sign(&claims(&world, &provider));
    let answer = exchange(&world, id, &token).await;
    assert_eq!(answer.json()["expires_in"], 900);
    assert_eq!(answer.json()["agent_id"], id);
    let bearer = holder(answer.field("/access_token"));
    leases(&world, &bearer).await.ok(200);
    // The provider's own token is no token of ours.
    let own = holder(&*token);
    leases(&world, &own).await.refused(401, "unauthenticated");
    let events = world.events("?action=auth.success").await;
    assert!(
        events.iter().any(|event| event["agent_id"] == id),
        "{events:?}"
    );
    // There is no key to renew.
    let path = format!("/v1/agents/{id}/rotate-key");
    let refused = world.post(&path, owner, json!({})).await;
    let detail = refused.refused(409, "wrong_auth_method");
    assert!(detail.contains("oidc_client_credentials"), "{detail}");
    // And it ends as every agent does, at once.
    let path = format!("/v1/agents/{id}");
    let stop = world.patch(&path, owner, json!({"is_active": false})).await;
    stop.ok(200);
    leases(&world, &bearer)
        .await
        .refused(401, "unauthenticated");
    exchange(&world, id, &token)
        .await
        .refused(401, "unauthenticated");
    world.delete(&path, owner).await.ok(204);
    exchange(&world, id, &token)
        .await
        .refused(401, "unauthenticated");
    // An agent with a key says so.
    let (key_agent, _) = world.agent(owner, "bot").await;
    let shown = world.get(&format!("/v1/agents/{key_agent}"), owner).await;
    assert_eq!(shown.json()["auth_method"], "api_key");
}

#[tokio::test]
async fn its_token_is_bound_to_a_key_like_any_agents() {
    let (world, provider) = (world().await, IdentityProvider::start().await);
    let id = agent(&world, &provider).await;
    let prover = Prover::p256();
    let shown = provider.key.sign(&claims(&world, &provider));
    let body = json!({"agent_id": id, "oidc_token": shown, "dpop_jwk": prover.jwk});
    let answer = world.post("/v1/auth/agent-token", &NOBODY, body).await;
    assert_eq!(answer.field("/token_type"), "DPoP");
    let token = answer.field("/access_token");
    leases(&world, &holder(&*token))
        .await
        .refused(401, "invalid_dpop_proof");
    let proof = prover.proof(&bound_tokens::claims(&world, "1"));
    let request = call("/v1/vault/leases", "Bearer", &token, Some(&proof));
    world.send(request).await.ok(200);
}

#[tokio::test]
async fn another_provider_and_another_method_end_what_was_exchanged() {
    let (world, provider) = (world().await, IdentityProvider::start().await);
    let owner = &world.home.admin;
    let (id, key) = world.agent(owner, "bot").await;
    let path = format!("/v1/agents/{id}");
    let mut body = wanted("ci", &provider.issuer);
    for alone in ["oidc_issuer", "oidc_client_id", "oidc_audience"] {
        let one = json!({"auth_method": body["auth_method"], alone: "https://id.example.org"});
        let refused = world.patch(&path, owner, one).await;
        refused.refused(400, "invalid_request");
    }
    let bare = json!({"auth_method": body["auth_method"]});
    let refused = world.patch(&path, owner, bare).await;
    let detail = refused.refused(400, "invalid_request");
    assert!(detail.starts_with("oidc_issuer"), "{detail}");
    let unlike = json!({"oidc_issuer": provider.issuer, "oidc_client_id": SERVICE});
    let refused = world.patch(&path, owner, unlike).await;
    refused.refused(400, "invalid_request");
    leases(&world, &key).await.ok(200);

    let changed = world.patch(&path, owner, body.clone()).await.ok(200);
    assert_eq!(changed["oidc_client_id"], SERVICE);
    leases(&world, &key).await.refused(401, "unauthenticated");
    let shown = provider.key.sign(&claims(&world, &provider));
    let token = exchange(&world, &id, &shown).await.field("/access_token");
    leases(&world, &holder(&*token)).await.ok(200);

    // Another audience alone, which ends what was exchanged as well, and the usual one again.
    let change = async |audience: Value| {
        let body = json!({ "oidc_audience": audience });
        world.patch(&path, owner, body).await.ok(200)
    };
    assert_eq!(change(json!("vault")).await["oidc_audience"], "vault");
    let ended = leases(&world, &holder(&*token)).await;
    ended.refused(401, "unauthenticated");
    let refused = exchange(&world, &id, &shown).await;
    refused.refused(401, "unauthenticated");
    let usual = change(Value::Null).await;
    assert!(usual.get("oidc_audience").is_none(), "{usual}");
    assert_eq!(usual["oidc_client_id"], SERVICE);
    let long = json!({ "oidc_audience": "x".repeat(256) });
    let refused = world.patch(&path, owner, long).await;
    refused.refused(400, "invalid_request");
    let token = exchange(&world, &id, &shown).await.field("/access_token");
    leases(&world, &holder(&*token)).await.ok(200);

    body["oidc_client_id"] = json!("other");
    let changed = world.patch(&path, owner, body).await.ok(200);
    assert_eq!(changed["oidc_client_id"], "other");
    leases(&world, &holder(&*token))
        .await
        .refused(401, "unauthenticated");
    exchange(&world, &id, &shown)
        .await
        .refused(401, "unauthenticated");
    let back = json!({"auth_method": "api_key"});
    let back = world.patch(&path, owner, back).await.ok(200);
    assert!(back.get("oidc_issuer").is_none(), "{back}");
    let superfluous = json!({ "oidc_audience": "vault" });
    let refused = world.patch(&path, owner, superfluous).await;
    refused.refused(400, "invalid_request");
}

#[tokio::test]
async fn forged_and_foreign_tokens_are_refused_alike_and_nobody_else_is_asked() {
    let (world, provider) = (world().await, IdentityProvider::start().await);
    let elsewhere = IdentityProvider::start().await;
    let id = agent(&world, &provider).await;
    let good = claims(&world, &provider);
    let mut tokens = forgeries(&provider.key, &good, &elsewhere.issuer);
    let mut changed = |name: &'static str, change: &dyn Fn(&mut Value)| {
        let mut claims = good.clone();
        change(&mut claims);
        tokens.push((name, provider.key.sign(&claims)));
    };
    changed("another client", &|claims| {
        claims["client_id"] = json!("other");
    });
    changed("another client by a vendor's name", &|claims| {
        claims["cid"] = json!("other");
    });
    changed("another client by another vendor's", &|claims| {
        claims["appid"] = json!("other");
    });
    changed("a person's sign-in", &|claims| claims["nonce"] = json!("n"));
    changed("no client but a subject", &|claims| {
        let fields = claims.as_object_mut().unwrap();
        fields.remove("azp");
        fields.remove("client_id");
    });
    let mut answers = Vec::new();
    for (name, token) in tokens {
        let refused = exchange(&world, &id, &token).await;
        assert_eq!(refused.status, 401, "{name}: {}", refused.text);
        answers.push(masked(&refused));
    }
    // A good token for nobody, for somebody else, and a key of nobody.
    let token = provider.key.sign(&good);
    let (other, _) = world.agent(&world.home.admin, "bot").await;
    for agent in ["", "agt_x", "agt_01K3ABCDEFGHJKMNPQRSTVWXYZ", &other] {
        answers.push(masked(&exchange(&world, agent, &token).await));
    }
    let unnamed = json!({"oidc_token": token});
    answers.push(masked(
        &world.post("/v1/auth/agent-token", &NOBODY, unnamed).await,
    ));
    let key = json!({"agent_id": id, "api_key": "ocv_x"});
    answers.push(masked(
        &world.post("/v1/auth/agent-token", &NOBODY, key).await,
    ));
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
    assert_eq!(elsewhere.asked(), Vec::<String>::new());
    exchange(&world, &id, &token).await.ok(200);
    // The trail says what was wrong, and holds no token.
    let events = world.events("?action=auth.failure").await;
    let text = format!("{events:?}");
    assert!(
        text.contains("its algorithm is not taken") || text.contains("it is no JWT"),
        "{text}"
    );
    assert!(!text.contains("eyJ"), "{text}");
}

#[tokio::test]
async fn the_subject_stands_for_a_client_that_has_no_other_name_and_an_audience_is_always_checked()
{
    let (world, provider) = (world().await, IdentityProvider::start().await);
    let owner = &world.home.admin;
    let mut body = wanted("workload", &provider.issuer);
    body["oidc_client_id"] = json!("system:serviceaccount:ci:runner");
    body["audience"] = json!("https://keys.example.org");
    let made = world.post("/v1/agents", owner, body).await.ok(201);
    assert_eq!(made["agent"]["oidc_audience"], "https://keys.example.org");
    let id = made["agent"]["id"].as_str().unwrap();
    let by = async |audience: Value, subject: &str| {
        let now = world.clock.now().unix_timestamp();
        let claims = json!({"iss": provider.issuer, "aud": audience, "sub": subject, "iat": now, "exp": now + 600});
        exchange(&world, id, &provider.key.sign(&claims)).await
    };
    let own = "system:serviceaccount:ci:runner";
    by(json!(["https://keys.example.org", "other"]), own)
        .await
        .ok(200);
    for (audience, subject) in [
        (json!("claviger"), own),
        (json!("https://keys.example.org/"), own),
        (
            json!("https://keys.example.org"),
            "system:serviceaccount:ci:other",
        ),
    ] {
        by(audience, subject).await.refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_silent_provider_is_a_503_and_an_invented_key_is_not_sought_again_and_again() {
    let (world, provider) = (world().await, IdentityProvider::start().await);
    let id = agent(&world, &provider).await;
    let token = provider.key.sign(&claims(&world, &provider));
    provider.is_down(true);
    for _ in 0..3 {
        let refused = exchange(&world, &id, &token).await;
        let detail = refused.refused(503, "identity_provider_unavailable");
        assert!(!detail.contains(&provider.issuer), "{detail}");
    }
    assert_eq!(provider.asked().len(), 1);
    // Garbage is garbage without anybody being asked.
    exchange(&world, &id, "a.b.c")
        .await
        .refused(401, "unauthenticated");
    provider.is_down(false);
    world.clock.advance(Duration::from_secs(30));
    exchange(&world, &id, &token).await.ok(200);
    let before = provider.asked().len();
    for index in 0..5 {
        let invented = SigningKey::new(&format!("invented-{index}"));
        let token = invented.sign(&claims(&world, &provider));
        exchange(&world, &id, &token)
            .await
            .refused(401, "unauthenticated");
    }
    assert_eq!(provider.asked().len(), before);
}

#[tokio::test]
async fn what_is_not_whole_or_leads_where_nobody_may_send_us_makes_no_agent() {
    let world = world().await;
    let owner = &world.home.admin;
    let good = "https://id.example.org";
    let with = |field: &str, value: Value| {
        let mut body = wanted("ci", good);
        body[field] = value;
        body
    };
    for (body, field) in [
        (with("oidc_issuer", json!(null)), "oidc_issuer"),
        (with("oidc_client_id", json!(null)), "oidc_client_id"),
        (with("oidc_client_id", json!("")), "oidc_client_id"),
        (with("oidc_client_id", json!("a\nb")), "oidc_client_id"),
        (with("oidc_audience", json!("")), "oidc_audience"),
        (with("auth_method", json!("api_key")), "auth_method"),
        (with("auth_method", json!(null)), "auth_method"),
        (with("auth_method", json!("telepathy")), "auth_method"),
        (with("oidc_issuer", json!("id.example.org")), "oidc_issuer"),
        (
            with("oidc_issuer", json!("http://id.example.org")),
            "oidc_issuer",
        ),
        (
            with("oidc_issuer", json!("https://a:b@id.example.org")),
            "oidc_issuer",
        ),
        (
            with("oidc_issuer", json!("https://169.254.169.254")),
            "oidc_issuer",
        ),
        (
            with("oidc_issuer", json!("https://10.0.0.1/realms/a")),
            "oidc_issuer",
        ),
        (
            with("oidc_issuer", json!("https://[fd00:ec2::254]")),
            "oidc_issuer",
        ),
        (
            with("oidc_issuer", json!("file:///etc/passwd")),
            "oidc_issuer",
        ),
    ] {
        let refused = world.post("/v1/agents", owner, body.clone()).await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text);
        assert!(
            refused.field("/detail").starts_with(field),
            "{}",
            refused.text
        );
    }
    let unknown = with("oidc_jwks", json!("x"));
    let refused = world.post("/v1/agents", owner, unknown).await;
    refused.refused(400, "unknown_field");
    let none = world.get("/v1/agents", owner).await.ok(200);
    assert_eq!(none["agents"], json!([]));
    // A key and a token at once are neither, and nothing is nothing.
    for body in [
        json!({}),
        json!({"api_key": "ocv_x", "oidc_token": "a.b.c"}),
    ] {
        let refused = world.post("/v1/auth/agent-token", &NOBODY, body).await;
        refused.refused(400, "invalid_request");
    }
}
