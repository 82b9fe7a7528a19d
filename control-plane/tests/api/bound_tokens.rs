//! Agents' tokens that are worth nothing alone: bound to a key of proofs or to a client certificate, to vaults and to an end.

use std::num::NonZeroU32;
use std::time::Duration;

use ::leases::clock::Clock as _;
use axum::body::Body;
use axum::http::{Method, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control_plane::{Limits, TlsPeer};
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Answer, Who, World, holder, nobody, request};

const LEASES: &str = "/v1/vault/leases";
const TOKEN: &str = "/v1/auth/agent-token";
const HTU: &str = "https://claviger.example/v1/vault/leases";

async fn patient() -> World {
    World::with(Limits {
        auth_failure_burst: NonZeroU32::new(200).unwrap(),
        ..Limits::default()
    })
    .await
}

/// A key that signs proofs.
pub(crate) struct Prover {
    algorithm: Algorithm,
    signing: EncodingKey,
    pub(crate) jwk: Value,
}

impl Prover {
    pub(crate) fn p256() -> Self {
        let pair = KeyPair::generate().unwrap();
        let point = pair.public_key_raw();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        Self {
            algorithm: Algorithm::ES256,
            signing: EncodingKey::from_ec_der(&pair.serialize_der()),
            // As the browsers' WebCrypto exports it.
            jwk: json!({"kty": "EC", "crv": "P-256", "x": part(&point[1..33]), "y": part(&point[33..]), "ext": true, "key_ops": ["verify"]}),
        }
    }

    fn ed25519() -> Self {
        let pair = SigningKey::from_bytes(&[7; 32]);
        let document = pair.to_pkcs8_der().unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.verifying_key().to_bytes());
        Self {
            algorithm: Algorithm::EdDSA,
            signing: EncodingKey::from_ed_der(document.as_bytes()),
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": x}),
        }
    }

    fn head(&self) -> Value {
        let algorithm = format!("{:?}", self.algorithm);
        json!({"typ": "dpop+jwt", "alg": algorithm, "jwk": self.jwk})
    }

    fn sign(&self, head: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(head), part(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.signing, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    pub(crate) fn proof(&self, claims: &Value) -> String {
        self.sign(&self.head(), claims)
    }
}

pub(crate) fn claims(world: &World, jti: &str) -> Value {
    json!({"jti": jti, "htm": "GET", "htu": HTU, "iat": world.clock.now().unix_timestamp()})
}

/// A call with a token and a proof, at the address of [`HTU`].
pub(crate) fn call(path: &str, scheme: &str, token: &str, proof: Option<&str>) -> Request<Body> {
    let mut request = Request::get(path)
        .header("host", "claviger.example")
        .header("authorization", format!("{scheme} {token}"));
    if let Some(proof) = proof {
        request = request.header("DPoP", proof);
    }
    request.body(Body::empty()).unwrap()
}

/// A token that is bound to the prover's key.
async fn bound(world: &World, prover: &Prover) -> String {
    let (_, key) = world.agent(&world.home.admin, "bot").await;
    let body = json!({"api_key": key.0, "dpop_jwk": prover.jwk});
    let answer = world.post(TOKEN, &nobody(), body).await.ok(200);
    assert_eq!(answer["token_type"], "DPoP");
    answer["access_token"].as_str().unwrap().to_owned()
}

fn part_of(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn a_bound_token_is_good_with_a_fresh_proof_for_each_request() {
    for prover in [Prover::p256(), Prover::ed25519()] {
        let world = patient().await;
        let token = bound(&world, &prover).await;
        let proof = prover.proof(&claims(&world, "1"));
        // The seeds' clients say Bearer, and prove no `ath`.
        let good = call(LEASES, "Bearer", &token, Some(&proof));
        world.send(good).await.ok(200);
        let again = call(LEASES, "Bearer", &token, Some(&proof));
        let refused = world.send(again).await;
        assert!(
            refused.headers["www-authenticate"]
                .to_str()
                .unwrap()
                .starts_with("DPoP ")
        );
        let detail = refused.refused(401, "invalid_dpop_proof");
        assert!(detail.contains("used before"), "{detail}");
        // RFC 9449 says DPoP, with the token's digest in the proof.
        let mut strict = claims(&world, "2");
        let refused = prover.proof(&strict);
        let refused = world
            .send(call(LEASES, "DPoP", &token, Some(&refused)))
            .await;
        refused.refused(401, "invalid_dpop_proof");
        strict["ath"] = json!(URL_SAFE_NO_PAD.encode(Sha256::digest(&token)));
        let proof = prover.proof(&strict);
        let query = format!("{LEASES}?limit=1");
        world
            .send(call(&query, "DPoP", &token, Some(&proof)))
            .await
            .ok(200);
    }
}

#[tokio::test]
async fn a_bound_token_alone_is_refused() {
    let world = patient().await;
    let token = bound(&world, &Prover::p256()).await;
    for request in [
        call(LEASES, "Bearer", &token, None),
        call(LEASES, "DPoP", &token, None),
        Request::get(LEASES)
            .header("x-clawb-api-key", &token)
            .body(Body::empty())
            .unwrap(),
    ] {
        let refused = world.send(request).await;
        refused.refused(401, "invalid_dpop_proof");
    }
    let refused = world.post(LEASES, &holder(&token), json!({})).await;
    refused.refused(401, "invalid_dpop_proof");
    let refused = world.delete("/v1/auth/token", &holder(token)).await;
    refused.refused(401, "invalid_dpop_proof");
}

#[tokio::test]
async fn a_proof_that_does_not_fit_in_any_part_is_refused() {
    let world = patient().await;
    let (prover, other) = (Prover::p256(), Prover::p256());
    let token = bound(&world, &prover).await;
    let now = world.clock.now().unix_timestamp();
    let mut wrong = vec![("another key", other.proof(&claims(&world, "k")))];
    for (name, value) in [
        ("htm", json!("POST")),
        ("htm", json!("get")),
        ("htu", json!("https://claviger.example/v1/agents")),
        ("htu", json!("https://other.example/v1/vault/leases")),
        (
            "htu",
            json!("https://claviger.example:8443/v1/vault/leases"),
        ),
        (
            "htu",
            json!("https://claviger.example@other.example/v1/vault/leases"),
        ),
        ("htu", json!("ftp://claviger.example/v1/vault/leases")),
        ("htu", json!("/v1/vault/leases")),
        ("htu", json!("\u{1F511}")),
        ("iat", json!(now - 301)),
        ("iat", json!(now + 301)),
        ("iat", json!(i64::MAX)),
        ("iat", json!("now")),
        ("jti", json!("")),
        ("jti", json!("x".repeat(257))),
        ("jti", json!(7)),
        ("ath", json!("")),
        (
            "ath",
            json!(URL_SAFE_NO_PAD.encode(Sha256::digest("other"))),
        ),
    ] {
        let mut claims = claims(&world, &format!("{name}-{value:.20}"));
        claims[name] = value;
        wrong.push((name, prover.proof(&claims)));
    }
    for name in ["jti", "htm", "htu", "iat"] {
        let mut claims = claims(&world, name);
        claims.as_object_mut().unwrap().remove(name);
        wrong.push((name, prover.proof(&claims)));
    }
    let mut private = prover.jwk.clone();
    private["d"] = json!("AAAA");
    for (name, value) in [
        ("typ", json!("JWT")),
        ("typ", json!(null)),
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("EdDSA")),
        ("jwk", json!(null)),
        ("jwk", other.jwk.clone()),
        ("jwk", private),
        ("jwk", json!({"kty": "oct", "k": "AAAA"})),
        ("crit", json!(["exp"])),
    ] {
        let mut head = prover.head();
        head[name] = value;
        wrong.push((name, prover.sign(&head, &claims(&world, "head"))));
    }
    let good = prover.proof(&claims(&world, "changed"));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    wrong.push(("signature", format!("{message}.{first}{}", &signature[1..])));
    wrong.push(("signature", format!("{message}.")));
    wrong.push(("empty", String::new()));
    wrong.push(("long", "a".repeat(5000)));
    for (what, proof) in wrong {
        let answer = world
            .send(call(LEASES, "Bearer", &token, Some(&proof)))
            .await;
        assert_eq!(answer.status, 401, "{what}: {proof} {}", answer.text);
        answer.refused(401, "invalid_dpop_proof");
    }
    let mut twice = call(LEASES, "Bearer", &token, Some(&good));
    twice.headers_mut().append("dpop", good.parse().unwrap());
    world.send(twice).await.refused(401, "invalid_dpop_proof");
    // None of them has used its jti up.
    for jti in ["changed", "head"] {
        let proof = prover.proof(&claims(&world, jti));
        world
            .send(call(LEASES, "Bearer", &token, Some(&proof)))
            .await
            .ok(200);
    }
}

#[tokio::test]
async fn a_token_that_is_not_bound_is_no_dpop_token() {
    let world = World::new().await;
    let (_, key) = world.agent(&world.home.admin, "bot").await;
    let answer = world
        .post(TOKEN, &nobody(), json!({"api_key": key.0}))
        .await;
    let token = answer.field("/access_token");
    assert_eq!(part_of(&token).get("cnf"), None);
    let refused = world.send(call(LEASES, "DPoP", &token, None)).await;
    refused.refused(401, "unauthenticated");
    // A proof that nothing asks for harms nobody.
    let proof = Prover::p256().proof(&claims(&world, "1"));
    world
        .send(call(LEASES, "Bearer", &token, Some(&proof)))
        .await
        .ok(200);
}

#[tokio::test]
async fn a_token_is_bound_by_a_proof_as_the_rfc_has_it() {
    let world = patient().await;
    let (prover, other) = (Prover::p256(), Prover::p256());
    let (_, key) = world.agent(&world.home.admin, "bot").await;
    let exchange = async |proof: &str, jwk: Option<&Value>| {
        let body = json!({"api_key": key.0, "dpop_jwk": jwk});
        let mut request = request(Method::POST, TOKEN, &nobody(), Some(body));
        let headers = request.headers_mut();
        headers.insert("host", "claviger.example".parse().unwrap());
        headers.insert("dpop", proof.parse().unwrap());
        world.send(request).await
    };
    let mut asks = claims(&world, "ask");
    asks["htm"] = json!("POST");
    asks["htu"] = json!("https://claviger.example/v1/auth/agent-token");
    let proof = prover.proof(&asks);
    let refused = exchange(&proof, Some(&other.jwk)).await;
    refused.refused(401, "invalid_dpop_proof");
    let token = exchange(&proof, None).await.ok(200);
    assert_eq!(token["token_type"], "DPoP");
    let again = exchange(&proof, Some(&prover.jwk)).await;
    again.refused(401, "invalid_dpop_proof");
    let token = token["access_token"].as_str().unwrap();
    let proof = prover.proof(&claims(&world, "use"));
    world
        .send(call(LEASES, "Bearer", token, Some(&proof)))
        .await
        .ok(200);
    let elsewhere = prover.proof(&claims(&world, "elsewhere"));
    exchange(&elsewhere, None)
        .await
        .refused(401, "invalid_dpop_proof");
}

#[tokio::test]
async fn a_key_that_cannot_be_bound_to_is_refused() {
    let world = World::new().await;
    let (_, key) = world.agent(&world.home.admin, "bot").await;
    let mut private = Prover::p256().jwk;
    private["d"] = json!("AAAA");
    let weak =
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"});
    for jwk in [
        json!({"of": "the seeds"}),
        json!("x"),
        json!([]),
        json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "oct", "k": "AQAB"}),
        private,
        weak,
    ] {
        let body = json!({"api_key": key.0, "dpop_jwk": jwk});
        let refused = world.post(TOKEN, &nobody(), body).await;
        let detail = refused.refused(400, "invalid_request");
        assert!(detail.starts_with("dpop_jwk: "), "{detail}");
    }
}

/// A certificate that is its own root.
fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    change(&mut params);
    let pair = KeyPair::generate().unwrap();
    params.self_signed(&pair).unwrap().der().to_vec()
}

/// The request as it arrives over a connection with this certificate.
async fn over(world: &World, certificate: Option<&[u8]>, mut request: Request<Body>) -> Answer {
    let peer = TlsPeer::new(certificate).unwrap();
    request.extensions_mut().insert(peer);
    world.send(request).await
}

fn exchange(agent: &str) -> Request<Body> {
    request(
        Method::POST,
        TOKEN,
        &nobody(),
        Some(json!({"agent_id": agent})),
    )
}

async fn register(world: &World, name: &str, der: &[u8]) -> String {
    let fingerprint = hex::encode_upper(Sha256::digest(der));
    let body = json!({"name": name, "auth_method": "mtls", "client_cert_fingerprint": fingerprint});
    let made = world.post("/v1/agents", &world.home.admin, body).await;
    let made = made.ok(201);
    assert_eq!(made.get("api_key"), None);
    assert_eq!(
        made["agent"]["client_cert_fingerprint"],
        json!(fingerprint.to_lowercase())
    );
    made["agent"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_certificate_is_exchanged_for_a_token_that_is_bound_to_it() {
    let world = patient().await;
    let (own, other) = (certificate(|_| {}), certificate(|_| {}));
    let agent = register(&world, "tls", &own).await;
    let answer = over(&world, Some(&own), exchange(&agent)).await.ok(200);
    assert_eq!(answer["agent_id"], json!(agent));
    let token = answer["access_token"].as_str().unwrap().to_owned();
    let digest = URL_SAFE_NO_PAD.encode(Sha256::digest(&own));
    assert_eq!(part_of(&token)["cnf"], json!({"x5t#S256": digest}));
    let listed = || request(Method::GET, LEASES, &holder(&token), None);
    over(&world, Some(&own), listed()).await.ok(200);
    for refused in [
        over(&world, Some(&other), listed()).await,
        over(&world, None, listed()).await,
        world.send(listed()).await,
    ] {
        refused.refused(401, "certificate_required");
    }
    // No header stands for a certificate.
    let mut claimed = listed();
    for name in [
        "x-client-cert",
        "x-forwarded-client-cert",
        "x-ssl-client-sha256",
    ] {
        let value = hex::encode(Sha256::digest(&own)).parse().unwrap();
        claimed.headers_mut().insert(name, value);
    }
    let refused = world.send(claimed).await;
    refused.refused(401, "certificate_required");
}

#[tokio::test]
async fn only_the_registered_certificate_within_its_dates_is_exchanged() {
    let world = patient().await;
    let (own, other) = (certificate(|_| {}), certificate(|_| {}));
    let agent = register(&world, "tls", &own).await;
    let (keyed, _) = world.agent(&world.home.admin, "keyed").await;
    let short = certificate(|params| {
        params.not_before = rcgen::date_time_ymd(2026, 11, 21);
        params.not_after = rcgen::date_time_ymd(2026, 11, 23);
    });
    let brief = register(&world, "brief", &short).await;
    let answer = over(&world, Some(&short), exchange(&brief)).await.ok(200);
    let token = answer["access_token"].as_str().unwrap().to_owned();

    let mut texts = Vec::new();
    for refused in [
        over(&world, Some(&other), exchange(&agent)).await,
        over(&world, None, exchange(&agent)).await,
        world.send(exchange(&agent)).await,
        over(&world, Some(&own), exchange(&keyed)).await,
        over(&world, Some(&own), exchange(&brief)).await,
        over(
            &world,
            Some(&own),
            exchange("agt_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        )
        .await,
        over(&world, Some(&own), exchange("x")).await,
    ] {
        let mut body = refused.json();
        body["instance"] = json!(null);
        texts.push(body.to_string());
        refused.refused(401, "unauthenticated");
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");

    // A connection may live longer than its certificate.
    world.clock.advance(Duration::from_hours(24));
    let refused = over(&world, Some(&short), exchange(&brief)).await;
    refused.refused(401, "unauthenticated");
    let listed = request(Method::GET, LEASES, &holder(token), None);
    let refused = over(&world, Some(&short), listed).await;
    refused.refused(401, "unauthenticated");
}

#[tokio::test]
async fn another_certificate_ends_what_the_one_before_got() {
    let world = patient().await;
    let (old, new) = (certificate(|_| {}), certificate(|_| {}));
    let agent = register(&world, "tls", &old).await;
    let answer = over(&world, Some(&old), exchange(&agent)).await;
    let token = holder(answer.field("/access_token"));
    let change = json!({"client_cert_fingerprint": hex::encode(Sha256::digest(&new))});
    let path = format!("/v1/agents/{agent}");
    world.patch(&path, &world.home.admin, change).await.ok(200);
    let listed = request(Method::GET, LEASES, &token, None);
    let refused = over(&world, Some(&old), listed).await;
    refused.refused(401, "unauthenticated");
    let refused = over(&world, Some(&old), exchange(&agent)).await;
    refused.refused(401, "unauthenticated");
    over(&world, Some(&new), exchange(&agent)).await.ok(200);
}

async fn token_of(world: &World, key: &Who) -> (Who, u64) {
    let answer = world
        .post(TOKEN, &nobody(), json!({"api_key": key.0}))
        .await;
    let lives = answer.json()["expires_in"].as_u64().unwrap();
    (holder(answer.field("/access_token")), lives)
}

#[tokio::test]
async fn a_token_lives_as_long_as_its_agent_says_and_no_longer_than_it() {
    let world = patient().await;
    let admin = &world.home.admin;
    let body =
        json!({"name": "short", "token_ttl_seconds": 60, "expires_at": "2026-11-22T07:10:00Z"});
    let made = world.post("/v1/agents", admin, body).await.ok(201);
    assert_eq!(made["agent"]["token_ttl_seconds"], 60);
    assert_eq!(made["agent"]["expires_at"], "2026-11-22T07:10:00.000Z");
    let path = format!("/v1/agents/{}", made["agent"]["id"].as_str().unwrap());
    let key = holder(made["api_key"].as_str().unwrap());
    let (token, lives) = token_of(&world, &key).await;
    assert_eq!(lives, 60);
    world.clock.advance(Duration::from_secs(59));
    world.get(LEASES, &token).await.ok(200);
    world.clock.advance(Duration::from_secs(1));
    world
        .get(LEASES, &token)
        .await
        .refused(401, "unauthenticated");

    let change = json!({"token_ttl_seconds": 3600});
    world.patch(&path, admin, change).await.ok(200);
    let (token, lives) = token_of(&world, &key).await;
    assert_eq!(lives, 540);
    world.clock.advance(Duration::from_mins(9));
    for gone in [&token, &key] {
        world
            .get(LEASES, gone)
            .await
            .refused(401, "unauthenticated");
    }
    let refused = world
        .post(TOKEN, &nobody(), json!({"api_key": key.0}))
        .await;
    refused.refused(401, "unauthenticated");

    let change = json!({"token_ttl_seconds": null, "expires_at": null});
    let patched = world.patch(&path, admin, change).await.ok(200);
    assert_eq!(patched["token_ttl_seconds"], 900);
    assert_eq!(token_of(&world, &key).await.1, 900);
}

#[tokio::test]
async fn tokens_end_with_the_key_and_with_a_stop_for_good() {
    let world = patient().await;
    let admin = &world.home.admin;
    let (id, key) = world.agent(admin, "bot").await;
    let path = format!("/v1/agents/{id}");
    let (token, _) = token_of(&world, &key).await;
    world.get(LEASES, &token).await.ok(200);
    let rotate = format!("{path}/rotate-key");
    let rotated = world.post(&rotate, admin, json!({})).await;
    let key = holder(rotated.field("/api_key"));
    world
        .get(LEASES, &token)
        .await
        .refused(401, "unauthenticated");

    let (token, _) = token_of(&world, &key).await;
    for is_active in [false, true] {
        let change = json!({"is_active": is_active});
        world.patch(&path, admin, change).await.ok(200);
        world
            .get(LEASES, &token)
            .await
            .refused(401, "unauthenticated");
    }
    let (token, _) = token_of(&world, &key).await;
    world.get(LEASES, &token).await.ok(200);
}

#[tokio::test]
async fn a_bound_agent_reaches_nothing_beyond_its_vaults() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let vault = world.post("/v1/vaults", admin, json!({"name": "payments"}));
    let vault = vault.await.field("/id");
    let other = world.post("/v1/vaults", admin, json!({"name": "other"}));
    let other = other.await.field("/id");
    let granted = world.granted(json!({})).await;
    let path = format!("/v1/agents/{}", granted.agent_id);
    for id in [&vault, &other] {
        let secret = format!("/v1/vaults/{id}/secrets/deploy/key");
        let body = json!({"value": "x", "type": "generic"});
        world.put(&secret, admin, body).await.ok(201);
        let policy = json!({"secret_path_pattern": "**", "principal_type": "agent", "principal_id": granted.agent_id, "permissions": ["read"]});
        let policies = format!("/v1/vaults/{id}/policies");
        world.post(&policies, admin, policy).await.ok(201);
        world.get(&secret, &granted.agent).await.ok(200);
    }
    let mint = json!({"secret_set_id": granted.set_id});
    let (lease, _) = world.lease(&granted.agent, mint.clone()).await;
    let change = json!({"vault_ids": [vault]});
    let patched = world.patch(&path, admin, change).await.ok(200);
    assert_eq!(patched["vault_ids"], json!([vault]));

    let body = json!({"api_key": granted.agent.0});
    let answer = world.post(TOKEN, &nobody(), body).await.ok(200);
    assert_eq!(answer["vault_ids"], json!([vault]));
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(part_of(token)["vault_ids"], json!([vault]));
    for who in [&granted.agent, &holder(token)] {
        let listed = world.get("/v1/vaults", who).await.ok(200);
        assert_eq!(listed["vaults"].as_array().unwrap().len(), 1);
        world
            .get(&format!("/v1/vaults/{vault}/secrets/deploy/key"), who)
            .await
            .ok(200);
        // One that is there and one that is not are answered alike.
        for beyond in [
            other.as_str(),
            "other",
            "nowhere",
            "vlt_01ARZ3NDEKTSV4RRFFQ69G5FAV",
        ] {
            let secret = format!("/v1/vaults/{beyond}/secrets/deploy/key");
            world.get(&secret, who).await.refused(403, "forbidden");
        }
        let refused = world.post(LEASES, who, mint.clone()).await;
        refused.refused(403, "forbidden");
    }
    // A person cannot lead it out either, and what it held is over.
    let mut by_person = mint.clone();
    by_person["agent_id"] = json!(granted.agent_id);
    let refused = world.post(LEASES, admin, by_person).await;
    refused.refused(403, "forbidden");
    let lease = world.get(&format!("{LEASES}/{lease}"), admin).await.ok(200);
    assert!(lease["revoked_at"].is_string(), "{lease}");
    world
        .patch(&path, admin, json!({"vault_ids": null}))
        .await
        .ok(200);
    world.lease(&granted.agent, mint).await;

    let strange = world.post("/v1/vaults", &world.other.admin, json!({"name": "theirs"}));
    let change = json!({"vault_ids": [strange.await.field("/id")]});
    world
        .patch(&path, admin, change)
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn many_agents_are_deleted_at_once() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let (one, key) = world.agent(admin, "one").await;
    let (two, _) = world.agent(admin, "two").await;
    let (theirs, their_key) = world.agent(&world.other.admin, "theirs").await;
    let (token, _) = token_of(&world, &key).await;
    let path = "/v1/agents/batch-delete";
    let body = json!({"agent_ids": [one, two, one, theirs, "nobody"]});
    let refused = world.post(path, &key, body.clone()).await;
    refused.refused(403, "forbidden");
    let answer = world.post(path, admin, body).await.ok(200);
    assert_eq!(answer["deleted"], 2);
    assert_eq!(answer["not_found"].as_array().unwrap().len(), 2);
    for gone in [&key, &token] {
        world
            .get(LEASES, gone)
            .await
            .refused(401, "unauthenticated");
    }
    world.get(LEASES, &their_key).await.ok(200);
    for ids in [vec![], vec!["x"; 501]] {
        let refused = world.post(path, admin, json!({"agent_ids": ids})).await;
        refused.refused(400, "invalid_request");
    }
    let deleted = world.events("").await;
    let deleted = deleted
        .iter()
        .filter(|event| event["action"] == "agent.delete");
    assert_eq!(deleted.count(), 2);
}

#[tokio::test]
async fn an_agent_sees_itself() {
    let world = World::new().await;
    let (id, key) = world.agent(&world.home.admin, "bot").await;
    let me = world.get("/v1/agents/me", &key).await.ok(200);
    assert_eq!(
        (&me["id"], &me["auth_method"]),
        (&json!(id), &json!("api_key"))
    );
    let refused = world.get("/v1/agents/me", &world.home.admin).await;
    refused.refused(403, "forbidden");
}
