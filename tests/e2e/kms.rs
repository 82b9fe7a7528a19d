//! Keys in Cloud KMS: the whole job is done with them, and where the service does not open a secret nothing is sent.

use std::time::{Duration, Instant};

use kms_double::{Action, Call, KmsDouble, VersionState};
use serde_json::json;

use crate::support::tunnel::Tunnel;
use crate::support::{Access, Custody, Fleet, wait};

const HOST: &str = "api.stripe.com";
/// How long opened secrets are kept in these stories.
const TTL: Duration = Duration::from_secs(2);
/// The deadline of a key provider is 2 s; the rest is room for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(4);
/// After denied or broken credentials a new client is made 2 s later at the earliest.
const BACK_WITHIN: Duration = Duration::from_secs(20);

async fn fleet(double: &KmsDouble) -> Fleet<'static> {
    Fleet::builder()
        .nodes(1, 2)
        .custody(Custody::Kms(double.endpoint()))
        .argument(format!("--cache-ttl={}s", TTL.as_secs()))
        .start()
        .await
}

/// The full name of the first version of the key that seals the default vault.
async fn key_version(fleet: &Fleet<'_>, double: &KmsDouble) -> String {
    let keys = fleet
        .admin()
        .get("/v1/keys")
        .await
        .expect_status(200)
        .json();
    assert_eq!(keys["vaults"][0]["provider"], "gcp-kms", "{keys}");
    let vault = keys["vaults"][0]["vault_id"].as_str().unwrap().to_owned();
    let encrypted = double.requests().into_iter().rev();
    let mut names = encrypted
        .filter(|request| request.call == Call::Encrypt)
        .filter_map(|request| {
            let key = request.name.split("/cryptoKeyVersions/").next()?;
            key.ends_with(&vault).then(|| key.to_owned())
        });
    let key = names.next().expect("something was sealed");
    format!("{key}/cryptoKeyVersions/1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_job_is_done_with_keys_in_cloud_kms() {
    let double = KmsDouble::start().unwrap();
    let fleet = fleet(&double).await;
    let access = fleet.stripe().await;
    let single = fleet.request_lease(&access).await;
    let many = fleet.workflow_lease(&access).await;

    let other = fleet.by(0, 1);
    other
        .get(HOST, "/v1/balance", &single)
        .await
        .expect_status(200);
    let reply = fleet.attempt(HOST, "/v1/balance", &single).await;
    reply.expect_refusal(403, "lease_consumed");
    for injector in 0..fleet.injectors() {
        let ends = fleet.by(0, injector);
        ends.get(HOST, "/v1/balance", &many)
            .await
            .expect_status(200);
        let sent = fleet.upstream.last().field("authorization");
        assert_eq!(sent, format!("Bearer {}", access.secret.text()));
    }
    let login = json!({ "api_key": access.agent_key });
    let reply = fleet.api("").post("/v1/auth/agent-token", &login).await;
    let token = reply.expect_status(200).json();
    fleet.watch_token(token["access_token"].as_str().unwrap());

    let keys = fleet
        .admin()
        .get("/v1/keys")
        .await
        .expect_status(200)
        .json();
    assert_eq!(keys["vaults"][0]["provider"], "gcp-kms", "{keys}");
    let jwt = keys["signing_keys"].as_array().unwrap().iter();
    for key in jwt.filter(|key| key["name"] == "jwt") {
        assert_eq!(key["where"], "gcp-kms", "{key}");
    }
    let ran = fleet.admin().post("/v1/keys/rotate", &json!({})).await;
    let id = ran.expect_status(202).json()["rotation"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    wait::until_after(Duration::from_mins(1), "the rotation", async || {
        let path = format!("/v1/keys/rotations/{id}");
        let rotation = fleet.admin().get(&path).await.expect_status(200).json();
        (rotation["state"] == "done").then_some(())
    })
    .await;
    other
        .get(HOST, "/v1/balance", &many)
        .await
        .expect_status(200);
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_cloud_kms_does_not_open_a_secret_nothing_is_sent_and_all_heals_by_itself() {
    let double = KmsDouble::start().unwrap();
    let fleet = fleet(&double).await;
    let access = fleet.stripe().await;
    let token = fleet.workflow_lease(&access).await;
    let version = key_version(&fleet, &double).await;
    let mut tunnels = Vec::new();
    for injector in 0..fleet.injectors() {
        let mut tunnel = fleet.by(0, injector).tunnel(HOST, &token).await;
        tunnel.get("/v1/balance").await.expect_status(200);
        tunnels.push(tunnel);
    }

    double.down().await;
    closed(&fleet, &mut tunnels).await;
    double.up().unwrap();
    open_again(&mut tunnels).await;

    let faults = [
        Action::Deny,
        Action::DamageAnswer,
        Action::DamageChecksum,
        Action::OmitChecksum,
        Action::Garbage,
        Action::Delay(Duration::from_secs(30)),
        Action::Status(http::StatusCode::TOO_MANY_REQUESTS),
    ];
    for fault in faults {
        double.fault(Call::Decrypt, fault);
        closed(&fleet, &mut tunnels).await;
        double.clear();
        open_again(&mut tunnels).await;
    }
    for state in [VersionState::Disabled, VersionState::Destroyed] {
        double.set_state(&version, state).unwrap();
        closed(&fleet, &mut tunnels).await;
        double.set_state(&version, VersionState::Enabled).unwrap();
        open_again(&mut tunnels).await;
    }
    fleet.finish().await;
}

/// Cached secrets are sent for their time, and then nothing is, and every refusal comes soon.
async fn closed(fleet: &Fleet<'_>, tunnels: &mut [Tunnel]) {
    let gone = Instant::now();
    for tunnel in &mut *tunnels {
        wait::until("a refusal for want of the key", async || {
            let asked = Instant::now();
            let reply = tunnel.get("/v1/balance").await;
            assert!(asked.elapsed() < REFUSED_WITHIN, "{:?}", asked.elapsed());
            if reply.status == 200 {
                return None;
            }
            reply.expect_refusal(503, "key_unavailable");
            Some(())
        })
        .await;
    }
    assert!(
        gone.elapsed() < TTL + 2 * REFUSED_WITHIN,
        "{:?}",
        gone.elapsed()
    );
    let sent = fleet.upstream.count();
    for tunnel in tunnels {
        let asked = Instant::now();
        let reply = tunnel.get("/v1/balance").await;
        reply.expect_refusal(503, "key_unavailable");
        assert!(asked.elapsed() < REFUSED_WITHIN, "{:?}", asked.elapsed());
    }
    assert_eq!(fleet.upstream.count(), sent);
}

async fn open_again(tunnels: &mut [Tunnel]) {
    for tunnel in tunnels {
        wait::until_after(BACK_WITHIN, "a use after the key is back", async || {
            let reply = tunnel.get("/v1/balance").await;
            (reply.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_may_not_open_stores_grants_mints_and_leaves_exports_to_an_injector() {
    let double = KmsDouble::start().unwrap();
    let mut fleet = fleet(&double).await;
    // The same keys for a caller who may not decrypt.
    let limited = double.beside().unwrap();
    limited.fault(Call::Decrypt, Action::Deny);
    let injectors: Vec<String> = fleet.nodes[1..]
        .iter()
        .map(|node| format!("http://{}", node.api))
        .collect();
    fleet
        .add_control_plane(vec![
            ("CLAVIGER_GCP_KMS_ENDPOINT".to_owned(), limited.endpoint()),
            ("CLAVIGER_INJECTORS".to_owned(), injectors.join(",")),
        ])
        .await;
    // It alone is left.
    fleet.control_plane(0).stop().await;
    let ends = fleet.by(1, 0);
    let rights = ends
        .admin()
        .get("/v1/health/hsm")
        .await
        .expect_status(200)
        .json();
    assert_eq!(
        (&rights["wrap"], &rights["unwrap"]),
        (&json!(true), &json!(false)),
        "{rights}"
    );

    let actions =
        json!({ "allowed_actions": ["proxy_use", "mint_workflow_lease", "export_plaintext"] });
    let access: Access = ends.stripe_with(&actions).await;
    let lease = ends.request_lease(&access).await;
    for injector in 0..fleet.injectors() {
        let many = ends.workflow_lease(&access).await;
        let through = fleet.by(1, injector);
        through
            .get(HOST, "/v1/balance", &many)
            .await
            .expect_status(200);
    }
    ends.get(HOST, "/v1/balance", &lease)
        .await
        .expect_status(200);
    let sent = fleet.upstream.last().field("authorization");
    assert_eq!(sent, format!("Bearer {}", access.secret.text()));

    let body = json!({
        "secret_set_id": access.set, "agent_id": access.agent, "action": "export_plaintext", "kind": "request",
    });
    let export = ends.mint(&body).await;
    let keys = json!({ "keys": ["STRIPE_SECRET_KEY"] });
    let reply = ends.api(&export).export(&keys).await.expect_status(200);
    let secrets = json!({ "STRIPE_SECRET_KEY": access.secret.text() });
    assert!(reply.json()["secrets"] == secrets, "another value came out");
    ends.api(&export).export(&keys).await.expect_status(403);
    let asked = limited.requests();
    assert!(asked.iter().any(|request| request.call == Call::Encrypt));

    fleet.control_plane(0).start_again().await;
    fleet.finish().await;
}
