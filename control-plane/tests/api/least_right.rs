//! A control plane that may seal and not open: everything but opening works, and an injector answers that.

use std::net::TcpListener;
use std::sync::Arc;

use ::leases::clock::{Clock, ManualClock};
use ::providers::Catalog;
use axum::http::{HeaderValue, Method};
use control_plane::{
    ControlPlane, InjectorParts, InjectorUrl, JwtVerifier, Limits, Metrics, Signers, VerifyingRing,
    injector_api, serve,
};
use serde_json::json;
use tokio::sync::watch;
use vault::Vault;

use crate::doubles::{MemorySigner, WrapOnly};
use crate::support::{CANARY, START, Setup, World, holder, request};

/// A world whose API is a control plane that may only wrap, and the injector that it asks.
struct Parted {
    world: World,
    address: String,
    stop: watch::Sender<bool>,
}

async fn parted(with_injector: bool) -> Parted {
    // The HTTP client of the tests and of the plane wants one; main installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let signer = MemorySigner::new("gcp-kms");
    let signers = Signers::new(Some(signer), Vec::new());
    let mut world = World::of(Setup {
        signers: signers.clone(),
        ..Setup::default()
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let injector = InjectorUrl::parse(&address, false).unwrap();
    let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&world.clock);
    let roots = VerifyingRing::load(&world.chest, START).await.unwrap();
    let tokens = JwtVerifier::load(&world.chest, START).await.unwrap();
    let state = ControlPlane::of_injector(InjectorParts {
        store: world.store.clone(),
        vault: world.vault.clone(),
        catalog: watch::Sender::new(Arc::new(Catalog::builtin())),
        clock,
        roots: Arc::new(roots),
        tokens: Arc::new(tokens),
        chest: world.chest.clone(),
        ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
        metrics: Metrics::new(prometheus::Registry::new()).unwrap(),
        limits: Limits::default(),
    });
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(listener, injector_api(state), None, stopped));
    let limited = Vault::new(Arc::new(WrapOnly(Arc::clone(world.vault.wrapper()))));
    let asked = with_injector
        .then(|| injector.clone())
        .into_iter()
        .collect();
    let plane = world.plane(&limited, signers, asked).await;
    world.through(&plane);
    Parted {
        world,
        address,
        stop,
    }
}

#[tokio::test]
async fn it_stores_grants_mints_and_lists_and_an_injector_opens() {
    let Parted {
        world, stop: _stop, ..
    } = parted(true).await;
    let rights = world.get("/v1/health/hsm", &crate::support::nobody()).await;
    let rights = rights.ok(200);
    assert_eq!(rights["wrap"], true);
    assert_eq!(rights["unwrap"], false);
    assert_eq!(rights["sign"], true);
    // The grant is for the caller's network: it is the caller's address that counts, not the control plane's.
    let granted = world
        .granted(json!({"allowed_actions": ["proxy_use", "export_plaintext"], "constraints": {"cidrs": ["192.0.2.0/24"]}}))
        .await;
    let body = json!({"secret_set_id": granted.set_id, "action": "export_plaintext"});
    let (lease_id, token) = world.lease(&granted.agent, body).await;
    let lease = holder(token);
    let exported = world
        .post(
            "/v1/vault/export",
            &lease,
            json!({"keys": ["STRIPE_SECRET_KEY"]}),
        )
        .await;
    assert_eq!(exported.headers["content-type"], "application/json");
    assert_eq!(exported.headers["cache-control"], "no-store");
    assert_eq!(
        exported.ok(200),
        json!({"secrets": {"STRIPE_SECRET_KEY": CANARY}})
    );
    let used = world
        .post("/v1/vault/export", &lease, json!({}))
        .await
        .refused(403, "lease_consumed");
    assert!(used.contains(&lease_id));
    let events = world.events(&format!("?lease_id={lease_id}")).await;
    let exports: Vec<_> = events
        .iter()
        .filter(|event| event["action"] == "secret.export")
        .collect();
    assert_eq!(exports.len(), 1);
    assert_eq!(exports[0]["client_ip"], "192.0.2.7");
}

#[tokio::test]
async fn without_an_injector_it_says_what_is_missing() {
    let Parted {
        world, stop: _stop, ..
    } = parted(false).await;
    let granted = world
        .granted(json!({"allowed_actions": ["export_plaintext"]}))
        .await;
    let body = json!({"secret_set_id": granted.set_id, "action": "export_plaintext"});
    let (_, token) = world.lease(&granted.agent, body).await;
    let detail = world
        .post("/v1/vault/export", &holder(token), json!({}))
        .await
        .refused(503, "key_unavailable");
    assert!(detail.contains("injector_url"), "{detail}");
}

#[tokio::test]
async fn a_repeated_request_is_answered_without_opening_anything() {
    let Parted {
        world, stop: _stop, ..
    } = parted(true).await;
    let make = async || {
        let body = json!({"name": "bot"});
        let mut request = request(Method::POST, "/v1/agents", &world.home.admin, Some(body));
        let key = HeaderValue::from_static("key-1");
        request.headers_mut().insert("idempotency-key", key);
        world.send(request).await
    };
    let first = make().await.ok(201);
    let again = make().await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.ok(201), first);
}

#[tokio::test]
async fn an_injector_believes_a_control_plane_alone_about_an_address() {
    let Parted {
        world,
        address,
        stop: _stop,
    } = parted(true).await;
    let granted = world
        .granted(json!({"allowed_actions": ["export_plaintext"], "constraints": {"cidrs": ["192.0.2.0/24"]}}))
        .await;
    let body = json!({"secret_set_id": granted.set_id, "action": "export_plaintext"});
    let (_, token) = world.lease(&granted.agent, body).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = |voucher: Option<&str>| {
        let mut request = http
            .post(format!("{address}/v1/vault/export"))
            .bearer_auth(&token);
        if let Some(voucher) = voucher {
            request = request.header("claviger-forwarded", voucher);
        }
        request.send()
    };
    let direct = ask(None).await.unwrap();
    assert_eq!(direct.status().as_u16(), 403, "{:?}", direct.text().await);
    for forged in ["x", "e30.e30.AAAA", &"a".repeat(5000)] {
        let refused = ask(Some(forged)).await.unwrap();
        assert_eq!(refused.status().as_u16(), 400, "{forged}");
    }
}

#[tokio::test]
async fn an_injectors_api_has_no_call_that_mints_or_manages() {
    let Parted {
        world: _world,
        address,
        stop: _stop,
    } = parted(true).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in [
        "/v1/agents",
        "/v1/vault/leases",
        "/v1/keys",
        "/v1/auth/agent-token",
    ] {
        let answer = http.post(format!("{address}{path}")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 404, "{path}");
    }
    for path in ["/v1/health", "/v1/health/hsm", "/v1/ca.pem", "/metrics"] {
        let answer = http.get(format!("{address}{path}")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
    }
}

#[tokio::test]
async fn it_stores_secrets_by_their_paths_and_counts_no_read_that_it_cannot_answer() {
    let Parted {
        world, stop: _stop, ..
    } = parted(true).await;
    let admin = &world.home.admin;
    let path = "/v1/vaults/default/secrets/a/b";
    let body = json!({"value": CANARY, "max_access_count": 1});
    world.put(path, admin, body).await.ok(201);
    let rotate = "/v1/vaults/default/secret-rotate/a/b";
    world.post(rotate, admin, json!({})).await.ok(201);
    let refused = world.get(path, admin).await;
    let detail = refused.refused(503, "key_unavailable");
    assert!(detail.contains("may unwrap"), "{detail}");
    let listed = world.get("/v1/vaults/default/secrets", admin).await;
    assert_eq!(listed.ok(200)["secrets"][0]["access_count"], 0);
    assert!(world.events("?action=secret.read").await.is_empty());
}
