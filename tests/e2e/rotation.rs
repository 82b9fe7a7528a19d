//! Keys are rotated and moved while everything goes on: no secret is lost, no lease is refused.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::canary::Canary;
use crate::support::fleet::Load;
use crate::support::{Access, Custody, Ends, Fleet, Stack, chance, soak, wait};

const HOST: &str = "api.stripe.com";
/// The most that one set may have.
const KEYS_OF_A_SET: usize = 200;
/// A rotation waits 10 s for writers, and goes on 4 s after its control plane was killed.
fn rotated_within() -> Duration {
    Duration::from_mins(soak(30, 2))
}

/// A new signing key is known for 30 s before it signs.
const SIGNS_WITHIN: Duration = Duration::from_mins(1);

const EXPORTING: [&str; 2] = ["proxy_use", "export_plaintext"];

/// Sets with many secrets each, and the agent that may export them.
struct Hoard {
    agent: String,
    sets: Vec<(String, Vec<(String, String)>)>,
}

impl Hoard {
    async fn store(ends: &Ends, secrets: usize) -> Self {
        let (agent, _) = ends.agent("keeper").await;
        // What all of them start with is what the leak sweep looks for: a search for each would take longer than the story.
        let start_of_all = ends.secret("hoard_");
        let mut sets = Vec::new();
        for start in (0..secrets).step_by(KEYS_OF_A_SET) {
            let count = KEYS_OF_A_SET.min(secrets - start);
            let values: Vec<_> = (0..count)
                .map(|number| {
                    let value = format!("{}-{}", start_of_all.text(), start + number);
                    (format!("KEY_{number}"), value)
                })
                .collect();
            let entries: serde_json::Map<_, _> = values
                .iter()
                .map(|(name, value)| (name.clone(), json!(value)))
                .collect();
            let name = format!("hoard-{start}");
            let set = ends.put_set("stripe", &name, &json!(entries)).await;
            let actions = json!({ "allowed_actions": EXPORTING });
            ends.grant(&agent, &set, &actions).await;
            sets.push((set, values));
        }
        Self { agent, sets }
    }

    /// Every secret comes out as it was put in.
    async fn expect_readable(&self, ends: &Ends) {
        for (set, values) in &self.sets {
            let body = json!({
                "secret_set_id": set, "agent_id": self.agent, "action": "export_plaintext", "kind": "request",
            });
            let lease = ends.mint(&body).await;
            let reply = ends.api(&lease).export(&json!({})).await;
            let secrets = reply.expect_status(200).json();
            for (name, value) in values {
                assert!(
                    secrets["secrets"][name] == value.as_str(),
                    "{name} of {set}"
                );
            }
        }
    }
}

/// A grant for the one key that is injected, so that a request opens no more than it needs.
async fn stripe(ends: &Ends) -> Access {
    ends.stripe_with(&json!({ "allowed_keys": ["STRIPE_SECRET_KEY"] }))
        .await
}

async fn rotation(ends: &Ends, id: &str) -> Value {
    let path = format!("/v1/keys/rotations/{id}");
    ends.admin().get(&path).await.expect_status(200).json()
}

/// Begins what is asked for at `path`; gives the rotation's id.
async fn begin(ends: &Ends, path: &str, body: &Value) -> String {
    let begun = ends.admin().post(path, body).await.expect_status(202);
    let id = begun.json()["rotation"]["id"].as_str().map(str::to_owned);
    id.expect("a rotation has an id")
}

async fn until_reached(ends: &Ends, id: &str, point: usize) {
    let what = "a point of the rotation";
    wait::polled(rotated_within(), wait::POLL, what, async || {
        let done = rotation(ends, id).await["done"].as_u64().unwrap();
        (done >= point as u64).then_some(())
    })
    .await;
}

async fn until_done(ends: &Ends, id: &str) -> Value {
    wait::until_after(rotated_within(), "the rotation to be done", async || {
        let rotation = rotation(ends, id).await;
        (rotation["state"] == "done").then_some(rotation)
    })
    .await
}

/// The version of the service's key `name` that signs now.
async fn signing(ends: &Ends, name: &str) -> Value {
    let keys = ends.admin().get("/v1/keys").await.expect_status(200).json();
    let all = keys["signing_keys"].as_array().unwrap();
    let signs = all
        .iter()
        .find(|key| key["name"] == name && key["signs"] == true);
    signs
        .unwrap_or_else(|| panic!("no {name} signs: {keys}"))
        .clone()
}

async fn until_signing(ends: &Ends, name: &str, fits: impl Fn(&Value) -> bool) {
    let what = format!("the new {name} key to sign");
    wait::until_after(SIGNS_WITHIN, &what, async || {
        fits(&signing(ends, name).await).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_whose_control_plane_is_killed_loses_no_secret_and_refuses_nobody() {
    let secrets = soak(10_000, 300);
    let mut kills = soak(50, 5);
    let mut fleet = Fleet::builder()
        .nodes(1, 2)
        .log("info")
        .variable("CLAVIGER_CACHE_TTL", "0s")
        .start()
        .await;
    let hoard = Hoard::store(&fleet, secrets).await;
    let access = stripe(&fleet).await;
    let token = fleet.workflow_lease(&access).await;
    let load = Load::trickle(&fleet, &token).await;

    let mut rotations = 0;
    while kills > 0 {
        let id = begin(&fleet.ends(), "/v1/keys/rotate", &json!({})).await;
        rotations += 1;
        // At random points of it, the wait for writers at its end among them.
        let mut points: Vec<_> = (0..kills.min(5)).map(|_| chance(secrets + 1)).collect();
        points.sort_unstable();
        for point in points {
            until_reached(&fleet.ends(), &id, point).await;
            fleet.control_plane(0).kill().await;
            fleet.control_plane(0).start_again().await;
            kills -= 1;
        }
        let done = until_done(&fleet.ends(), &id).await;
        assert_eq!(done["done"], done["total"], "{done}");
        assert!(done["total"].as_u64().unwrap() > secrets as u64, "{done}");
    }

    let told = load.end().await;
    told.expect_no_refusals();
    assert_eq!(told.broken, 0, "{told:?}");
    let keys = fleet.ends().admin().get("/v1/keys").await.json();
    assert_eq!(keys["vaults"][0]["current"], json!(1 + rotations), "{keys}");
    hoard.expect_readable(&fleet.ends()).await;

    // Nothing is left under an older version: without them all opens as well.
    let dir = fleet.home.path().join("keys");
    let newest = format!(".v{}.kek", 1 + rotations);
    for file in std::fs::read_dir(&dir).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if Path::new(name).extension().is_some_and(|ext| ext == "kek") && !name.ends_with(&newest) {
            std::fs::remove_file(&path).unwrap();
        }
    }
    hoard.expect_readable(&fleet.ends()).await;
    fleet
        .ends()
        .get(HOST, "/v1/balance", &token)
        .await
        .expect_status(200);
    fleet.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_signing_keys_refuse_no_lease_and_no_token_of_the_old_ones() {
    let fleet = Fleet::builder().nodes(2, 2).log("info").start().await;
    let ends = fleet.ends();
    let access = stripe(&ends).await;
    let body = json!({ "api_key": access.agent_key });
    let log_in = async || {
        let reply = ends.api("").post("/v1/auth/agent-token", &body).await;
        let token = reply.expect_status(200).json()["access_token"]
            .as_str()
            .map(str::to_owned);
        let token = token.unwrap();
        ends.watch_token(&token);
        token
    };
    let old_lease = fleet.workflow_lease(&access).await;
    let unused = fleet.request_lease(&access).await;
    let old_token = log_in().await;
    let load = Load::trickle(&fleet, &old_lease).await;

    // One control plane is asked, and all nodes follow.
    let other = fleet.by(1, 1);
    for key in ["lease-root", "jwt", "ca"] {
        let body = json!({ "key": key });
        let reply = other.admin().post("/v1/keys/rotate", &body).await;
        assert_eq!(reply.expect_status(202).json()["key"]["version"], 2);
    }
    for key in ["lease-root", "jwt"] {
        for control_plane in 0..2 {
            let ends = fleet.by(control_plane, 0);
            until_signing(&ends, key, |signs| signs["version"] == 2).await;
        }
    }
    let bundle = ends
        .admin()
        .get("/v1/ca.pem")
        .await
        .expect_status(200)
        .text();
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2, "{bundle}");

    let told = load.end().await;
    told.expect_no_refusals();
    assert_eq!(told.broken, 0, "{told:?}");
    let new_lease = fleet.workflow_lease(&access).await;
    let new_token = log_in().await;
    for injector in 0..fleet.injectors() {
        let ends = fleet.by(0, injector);
        for lease in [&old_lease, &new_lease] {
            ends.get(HOST, "/v1/balance", lease)
                .await
                .expect_status(200);
        }
    }
    other
        .get(HOST, "/v1/balance", &unused)
        .await
        .expect_status(200);
    let key_of = |lease: &str| root_key_id(lease);
    assert_ne!(key_of(&old_lease), key_of(&new_lease));
    for token in [&old_token, &new_token] {
        for control_plane in 0..2 {
            let ends = fleet.by(control_plane, 0);
            let body = json!({ "secret_set_id": access.set });
            let minted = ends.api(token).post("/v1/vault/leases", &body).await;
            let minted = minted.expect_status(201).json();
            ends.watch_token(minted["token"].as_str().unwrap());
        }
    }
    fleet.finish().await;
}

/// Which root key a lease names.
fn root_key_id(lease: &str) -> Option<u32> {
    use base64::Engine as _;
    let text = lease.strip_prefix("clv_").unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .unwrap();
    biscuit_auth::UnverifiedBiscuit::from(bytes)
        .unwrap()
        .root_key_id()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installation_moves_into_a_token_and_back_and_loses_nothing() {
    let mut fleet = Fleet::builder()
        .nodes(1, 1)
        .log("info")
        .variable("CLAVIGER_CACHE_TTL", "0s")
        .start()
        .await;
    let hoard = Hoard::store(&fleet, soak(2_000, 100)).await;
    let access = stripe(&fleet).await;
    let lease = fleet.workflow_lease(&access).await;
    let first = access.secret.clone();
    let second = fleet.secret("sk_live_");
    put(&fleet.ends(), &access, &second).await;
    let home = fleet.home.path().to_owned();
    let software = Custody::Software.variables(&home).await;
    let token = Custody::SoftHsm.variables(&home).await;
    let also = |name: &str| vec![("CLAVIGER_KEYS_ALSO".to_owned(), name.to_owned())];

    let to_token = [token.clone(), also("software")].concat();
    move_to(&mut fleet, "pkcs11", &to_token, &lease).await;
    // From here on the files are not needed.
    let (keys, aside) = (home.join("keys"), home.join("keys-aside"));
    std::fs::rename(&keys, &aside).unwrap();
    fleet.restart_with(&also("pkcs11")).await;
    expect_sent(&fleet.ends(), &lease, &second).await;
    hoard.expect_readable(&fleet.ends()).await;
    roll_back(&fleet.ends(), &access, 1).await;
    expect_sent(&fleet.ends(), &lease, &first).await;

    std::fs::rename(&aside, &keys).unwrap();
    let to_files = [software.clone(), also("pkcs11")].concat();
    move_to(&mut fleet, "software", &to_files, &lease).await;
    let (tokens, away) = (
        home.join("token/softhsm/tokens"),
        home.join("token/softhsm/tokens-aside"),
    );
    std::fs::rename(&tokens, &away).unwrap();
    fleet.restart_with(&also("software")).await;
    expect_sent(&fleet.ends(), &lease, &first).await;
    hoard.expect_readable(&fleet.ends()).await;
    roll_back(&fleet.ends(), &access, 2).await;
    expect_sent(&fleet.ends(), &lease, &second).await;
    let third = fleet.secret("sk_live_");
    put(&fleet.ends(), &access, &third).await;
    expect_sent(&fleet.ends(), &lease, &third).await;
    fleet.ends().request_lease(&access).await;
    fleet.finish().await;
}

/// Starts every node with these providers, and moves to the first of them under load.
async fn move_to(fleet: &mut Fleet<'_>, to: &str, variables: &[(String, String)], lease: &str) {
    fleet.restart_with(variables).await;
    let ends = fleet.ends();
    let load = Load::trickle(fleet, lease).await;
    let id = begin(&ends, "/v1/keys/migrate", &json!({ "to": to })).await;
    until_done(&ends, &id).await;
    for key in ["lease-root", "jwt"] {
        let place = if to == "software" { "sealed" } else { to };
        until_signing(&ends, key, |signs| signs["where"] == place).await;
    }
    let told = load.end().await;
    told.expect_no_refusals();
    assert_eq!(told.broken, 0, "{told:?}");
    let keys = ends.admin().get("/v1/keys").await.expect_status(200).json();
    assert_eq!(keys["vaults"][0]["provider"], to, "{keys}");
}

async fn put(ends: &Ends, access: &Access, secret: &Canary) {
    let path = format!("/v1/vault/secret-sets/{}", access.set);
    let entries = json!({ "entries": { "STRIPE_SECRET_KEY": secret.text() } });
    ends.admin().put(&path, &entries).await.expect_status(200);
}

async fn roll_back(ends: &Ends, access: &Access, version: u64) {
    let path = format!("/v1/vault/secret-sets/{}/rollback", access.set);
    let body = json!({ "version": version });
    ends.admin().post(&path, &body).await.expect_status(200);
}

async fn expect_sent(ends: &Ends, lease: &str, secret: &Canary) {
    ends.get(HOST, "/v1/balance", lease)
        .await
        .expect_status(200);
    let sent = ends.upstream.last().field("authorization");
    assert!(
        sent == format!("Bearer {}", secret.text()),
        "another version was sent"
    );
}

#[tokio::test]
async fn the_command_line_rotates_and_waits() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    let ran = stack
        .cli(&["keys", "rotate", "--json"])
        .await
        .expect_success();
    let rotated: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(rotated["rotation"]["state"], "done", "{rotated}");
    assert_eq!(rotated["rotation"]["target_version"], 2, "{rotated}");

    stack
        .get(HOST, "/v1/balance", &token)
        .await
        .expect_status(200);
    stack.finish().await;
}
