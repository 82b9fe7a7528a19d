//! A control plane that may seal and not open: everything but opening works, and an injector answers that.

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::leases::clock::{Clock, ManualClock};
use ::providers::Catalog;
use axum::http::{HeaderValue, Method, Request, Response, header};
use control_plane::{
    ControlPlane, Inject, InjectorParts, InjectorUrl, JwtVerifier, Limits, Metrics, Signers,
    VerifyingRing, injector_api, serve,
};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use vault::Vault;

use crate::doubles::{MemorySigner, WrapOnly};
use crate::support::{CANARY, START, Setup, World, holder, request};

/// An injector that answers with what it is told beside a request, and of it.
#[derive(Debug)]
struct Mirror;

impl Inject for Mirror {
    fn connect(
        &self,
        client: IpAddr,
        request_id: &str,
        masked: &Arc<AtomicUsize>,
    ) -> Option<DuplexStream> {
        masked.store(2, Ordering::Relaxed);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let request_id = request_id.to_owned();
        let answer = service_fn(move |request: Request<Incoming>| {
            let told = json!({
                "client": client.to_string(), "request_id": request_id, "target": request.uri().to_string(),
                "has_lease": request.headers().contains_key(header::PROXY_AUTHORIZATION),
            });
            async move { Ok::<_, Infallible>(Response::new(told.to_string())) }
        });
        let serving = hyper::server::conn::http1::Builder::new();
        tokio::spawn(serving.serve_connection(TokioIo::new(theirs), answer));
        Some(ours)
    }
}

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
        inject: Some(Arc::new(Mirror)),
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
async fn it_stores_secrets_by_their_paths_and_an_injector_opens_what_it_counts() {
    let Parted {
        world,
        address,
        stop: _stop,
    } = parted(true).await;
    let admin = &world.home.admin;
    let path = "/v1/vaults/default/secrets/a/b";
    let body = json!({"value": CANARY, "max_access_count": 1});
    world.put(path, admin, body).await.ok(201);
    let read = world.get(path, admin).await.ok(200);
    assert_eq!(read["value"], CANARY);
    world.get(path, admin).await.refused(410, "secret_gone");
    let reads = world.events("?action=secret.read").await;
    let opened = world.events("?action=secret.open").await;
    assert_eq!((reads.len(), opened.len()), (1, 1));
    assert_eq!(opened[0]["request_id"], reads[0]["request_id"]);
    assert_eq!(opened[0]["client_ip"], "192.0.2.7");

    // Nobody but a control plane is answered there, whatever else they hold.
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let row =
        json!({"org": world.home.org, "vault": read["vault_id"], "path": "a/b", "version": 1});
    let ask = async |voucher: Option<&str>| {
        let mut request = http
            .post(format!("{address}/v1/internal/open-secret"))
            .bearer_auth(admin.0.clone().unwrap())
            .json(&row);
        if let Some(voucher) = voucher {
            request = request.header("claviger-forwarded", voucher);
        }
        request.send().await.unwrap()
    };
    assert_eq!(ask(None).await.status(), 401);
    assert_eq!(ask(Some("e30.e30.AAAA")).await.status(), 400);
    assert_eq!(world.events("?action=secret.open").await.len(), 1);
    let served_here = world
        .post("/v1/internal/open-secret", admin, row.clone())
        .await;
    served_here.refused(404, "not_found");
}

#[tokio::test]
async fn without_an_injector_no_read_is_counted_that_nobody_could_answer() {
    let Parted {
        world, stop: _stop, ..
    } = parted(false).await;
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

/// A call for a path of Stripe's.
fn call(lease_id: &str) -> serde_json::Value {
    json!({"lease_id": lease_id, "target": {"url": "https://api.stripe.com/v1/charges?a=b", "body": "x=\u{e4}"}})
}

#[tokio::test]
async fn requests_to_providers_are_handed_to_an_injector_with_their_callers_address() {
    let Parted {
        world, stop: _stop, ..
    } = parted(true).await;
    let granted = world.granted(json!({})).await;
    let body = json!({"secret_set_id": granted.set_id});
    let (lease_id, token) = world.lease(&granted.agent, body).await;
    let answer = world
        .post("/v1/vault/proxy", &granted.agent, call(&lease_id))
        .await;
    let request_id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
    let answer = answer.ok(200);
    assert_eq!(answer["redactions_applied"], 2);
    let told: serde_json::Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!(
        told,
        json!({"client": "192.0.2.7", "request_id": request_id, "target": "https://api.stripe.com/v1/charges?a=b", "has_lease": true})
    );
    let borne = call(&lease_id);
    world
        .post("/v1/vault/proxy", &holder(token), borne)
        .await
        .ok(200);
}

#[tokio::test]
async fn without_an_injector_nothing_is_sent_to_a_provider() {
    let Parted {
        world, stop: _stop, ..
    } = parted(false).await;
    let granted = world.granted(json!({})).await;
    let body = json!({"secret_set_id": granted.set_id});
    let (lease_id, _) = world.lease(&granted.agent, body).await;
    let detail = world
        .post("/v1/vault/proxy", &granted.agent, call(&lease_id))
        .await
        .refused(503, "injector_unavailable");
    assert!(detail.contains("server.injectors"), "{detail}");
}

#[tokio::test]
async fn an_injectors_api_takes_leases_alone_and_no_vouchers_of_strangers() {
    let Parted {
        world,
        address,
        stop: _stop,
    } = parted(true).await;
    let granted = world.granted(json!({})).await;
    let body = json!({"secret_set_id": granted.set_id});
    let (lease_id, token) = world.lease(&granted.agent, body).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |credential: &str, voucher: Option<&str>| {
        let mut request = http
            .post(format!("{address}/v1/vault/proxy"))
            .bearer_auth(credential)
            .json(&json!({"target": {"url": "https://api.stripe.com/"}}));
        if let Some(voucher) = voucher {
            request = request.header("claviger-forwarded", voucher);
        }
        request.send().await.unwrap()
    };
    let direct: serde_json::Value = ask(&token, None).await.json().await.unwrap();
    let told: serde_json::Value = serde_json::from_str(direct["body"].as_str().unwrap()).unwrap();
    assert_eq!(told["client"], "127.0.0.1", "its own peer's");
    assert_eq!(ask(&token, Some("e30.e30.AAAA")).await.status(), 400);
    assert_eq!(ask(&lease_id, None).await.status(), 401);
    let key = world.home.admin.0.clone().unwrap();
    assert_eq!(ask(&key, None).await.status(), 401);
}
