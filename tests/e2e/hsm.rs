//! Keys in a token behind PKCS#11: the whole job is done with them, and without the token nothing opens.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;
use vault::envelope::Envelope;

use crate::support::custody::{init_token, private_file};
use crate::support::tunnel::Tunnel;
use crate::support::{Access, Stack, wait};

const HOST: &str = "api.stripe.com";
/// How long opened secrets are kept in these stories.
const TTL: Duration = Duration::from_secs(3);
/// The deadline of a key provider is 2 s; the rest is room for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(4);

async fn with_token() -> Stack {
    Stack::builder()
        .token()
        .argument(format!("--cache-ttl={}s", TTL.as_secs()))
        .start()
        .await
}

#[tokio::test]
async fn the_whole_job_is_done_with_keys_in_a_token() {
    let mut stack = with_token().await;
    let actions =
        json!({ "allowed_actions": ["proxy_use", "mint_workflow_lease", "export_plaintext"] });
    let access = stack.stripe_with(&actions).await;
    let single = stack.request_lease(&access).await;

    stack
        .get(HOST, "/v1/balance", &single)
        .await
        .expect_status(200);
    let sent = stack.upstream.last().field("authorization");
    assert_eq!(sent, format!("Bearer {}", access.secret.text()));
    let reply = stack.attempt(HOST, "/v1/balance", &single).await;
    reply.expect_refusal(403, "lease_consumed");

    let key = json!({ "api_key": access.agent_key });
    let reply = stack.api("").post("/v1/auth/agent-token", &key).await;
    let token = reply.expect_status(200).json();
    stack.watch_token(token["access_token"].as_str().unwrap());

    let new = stack.secret("sk_live_");
    let place = format!("/v1/vault/secret-sets/{}", access.set);
    let entries = json!({ "entries": { "STRIPE_SECRET_KEY": new.text() } });
    stack.admin().put(&place, &entries).await.expect_status(200);
    let many = stack.workflow_lease(&access).await;
    stack
        .get(HOST, "/v1/balance", &many)
        .await
        .expect_status(200);
    let sent = stack.upstream.last().field("authorization");
    assert_eq!(sent, format!("Bearer {}", new.text()));
    let rollback = format!("{place}/rollback");
    let reply = stack
        .admin()
        .post(&rollback, &json!({ "version": 1 }))
        .await;
    reply.expect_status(200);

    let keys = stack
        .admin()
        .get("/v1/keys")
        .await
        .expect_status(200)
        .json();
    assert_eq!(keys["vaults"][0]["provider"], "pkcs11", "{keys}");
    for key in keys["signing_keys"].as_array().unwrap() {
        let place = if key["name"] == "ca" {
            "sealed"
        } else {
            "pkcs11"
        };
        assert_eq!(key["where"], place, "{key}");
    }
    assert!(!stack.data.join("keys").exists(), "no key lies in a file");

    stack.stop().await;
    stack.start_again().await;
    stack
        .get(HOST, "/v1/balance", &many)
        .await
        .expect_status(200);
    let sent = stack.upstream.last().field("authorization");
    assert_eq!(sent, format!("Bearer {}", access.secret.text()));
    stack.finish().await;
}

#[tokio::test]
async fn a_copy_of_everything_but_the_token_opens_nothing() {
    let mut stack = with_token().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    stack
        .get(HOST, "/v1/balance", &token)
        .await
        .expect_status(200);
    stack.stop().await;

    let bare = stack.home.path().join("bare");
    copy(&stack.data, &bare, &stack.data, &bare);
    empty(&bare.join("softhsm/tokens"));
    let mut launch = stack.node.launch.moved(&stack.data, &bare);
    let said = launch.fails().await;
    assert!(said.contains("no token with label"), "{said}");

    // Another token by the same name, with the same PINs.
    let other = stack.home.path().join("other");
    let softhsm = other.join("softhsm");
    std::fs::create_dir_all(&softhsm).unwrap();
    private(&other);
    private(&softhsm);
    for pin in ["user-pin", "so-pin"] {
        let pin_of_ours = std::fs::read(stack.data.join("softhsm").join(pin)).unwrap();
        private_file(&softhsm.join(pin), &pin_of_ours);
    }
    init_token(stack.home.path(), &other).await;
    let refilled = stack.home.path().join("refilled");
    copy(&stack.data, &refilled, &stack.data, &refilled);
    empty(&refilled.join("softhsm/tokens"));
    copy(
        &softhsm.join("tokens"),
        &refilled.join("softhsm/tokens"),
        &other,
        &refilled,
    );
    let mut launch = stack.node.launch.moved(&stack.data, &refilled);
    let said = launch.fails().await;
    assert!(said.contains("does not open; restore the keys"), "{said}");

    for output in [&bare, &refilled] {
        let output = output.with_extension("out");
        for file in std::fs::read_dir(&output).unwrap() {
            let text = std::fs::read(file.unwrap().path()).unwrap();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(!text.contains(access.secret.text()));
            assert!(!text.contains(&pin(&stack.data)), "the PIN is in a log");
        }
    }
    assert_eq!(stack.upstream.count(), 1);
    stack.start_again().await;
    stack
        .get(HOST, "/v1/balance", &token)
        .await
        .expect_status(200);
    stack.finish().await;
}

#[tokio::test]
async fn without_its_token_a_server_goes_on_for_the_cache_ttl_and_no_longer_and_heals_by_itself() {
    let stack = with_token().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;
    tunnel.get("/v1/balance").await.expect_status(200);
    let (tokens, aside) = (
        stack.data.join("softhsm/tokens"),
        stack.data.join("softhsm/tokens-aside"),
    );

    std::fs::rename(&tokens, &aside).unwrap();
    let gone = Instant::now();
    until_refused(&mut tunnel).await;
    let served = gone.elapsed();
    assert!(
        served < TTL + REFUSED_WITHIN,
        "served for {served:?} without the token"
    );
    let sent = stack.upstream.count();
    for _ in 0..5 {
        refused(&mut tunnel).await;
    }
    let entries = json!({ "entries": { "STRIPE_SECRET_KEY": stack.secret("sk_live_").text() } });
    let place = format!("/v1/vault/secret-sets/{}", access.set);
    let asked = Instant::now();
    let reply = stack.admin().put(&place, &entries).await;
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "key_unavailable")
    );
    assert!(asked.elapsed() < REFUSED_WITHIN, "{:?}", asked.elapsed());
    let health = stack
        .admin()
        .get("/v1/health")
        .await
        .expect_status(200)
        .json();
    assert_eq!(health["degraded"], json!(["keys"]), "{health}");
    stack.admin().get("/v1/health/hsm").await.expect_status(503);
    assert_eq!(stack.upstream.count(), sent);

    std::fs::rename(&aside, &tokens).unwrap();
    wait::until("the token to be found again", async || {
        let reply = tunnel.get("/v1/balance").await;
        (reply.status == 200).then_some(())
    })
    .await;
    stack.admin().put(&place, &entries).await.expect_status(200);
    stack.finish().await;
}

/// Sends requests until one is refused for want of a key; no answer takes long.
async fn until_refused(tunnel: &mut Tunnel) {
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

async fn refused(tunnel: &mut Tunnel) {
    let asked = Instant::now();
    let reply = tunnel.get("/v1/balance").await;
    assert!(asked.elapsed() < REFUSED_WITHIN, "{:?}", asked.elapsed());
    reply.expect_refusal(503, "key_unavailable");
}

#[tokio::test]
async fn what_was_swapped_in_the_database_does_not_open() {
    let stack = Stack::builder()
        .token()
        .argument("--cache-ttl=0s")
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let secret = stack.secret("sk_live_");
    let entries = json!({ "STRIPE_SECRET_KEY": secret.text() });
    stack.put_set("stripe", "other", &entries).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;
    tunnel.get("/v1/balance").await.expect_status(200);
    let rows = Rows::open(&stack.data, &access);
    let (ours, others) = (rows.sealed(&rows.ours), rows.sealed(&rows.others));

    // The other secret's ciphertext in this row; its wrapped DEK before this ciphertext, and the other way round.
    let spliced = |dek: &[u8], data: &[u8]| {
        let (dek, data) = (
            Envelope::decode(dek).unwrap(),
            Envelope::decode(data).unwrap(),
        );
        data.rewrapped(dek.wrapped_dek()).unwrap()
    };
    for swapped in [
        others.clone(),
        spliced(&others, &ours),
        spliced(&ours, &others),
    ] {
        rows.put(&rows.ours, &swapped);
        refused(&mut tunnel).await;
        rows.put(&rows.ours, &ours);
        tunnel.get("/v1/balance").await.expect_status(200);
    }

    // The rows themselves trade places.
    rows.trade_places();
    refused(&mut tunnel).await;
    rows.trade_places();
    tunnel.get("/v1/balance").await.expect_status(200);

    for request in stack.upstream.requests() {
        let sent = request.field("authorization");
        assert_eq!(sent, format!("Bearer {}", access.secret.text()));
    }
    assert_eq!(stack.upstream.count(), 5);
    stack.finish().await;
}

/// The sealed rows of two secrets, as whoever can write the database sees them.
struct Rows {
    connection: Connection,
    ours: String,
    others: String,
}

impl Rows {
    fn open(data: &Path, access: &Access) -> Self {
        let connection = Connection::open(data.join("claviger.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        let path = |matches: &str| -> String {
            let sql = format!(
                "SELECT v.path FROM secret_versions v WHERE v.path LIKE 'stripe/%' AND v.path {matches} LIKE '%/other/%'"
            );
            connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        let (ours, others) = (path("NOT"), path(""));
        assert!(ours.contains("stripe-bot"), "{ours} is not of {access:?}");
        Self {
            connection,
            ours,
            others,
        }
    }

    fn sealed(&self, path: &str) -> Vec<u8> {
        let sql = "SELECT sealed FROM secret_versions WHERE path = ?1";
        self.connection
            .query_row(sql, [path], |row| row.get(0))
            .unwrap()
    }

    fn put(&self, path: &str, sealed: &[u8]) {
        let sql = "UPDATE secret_versions SET sealed = ?2 WHERE path = ?1";
        assert_eq!(self.connection.execute(sql, (path, sealed)).unwrap(), 1);
    }

    fn trade_places(&self) {
        self.connection
            .pragma_update(None, "foreign_keys", false)
            .unwrap();
        let sql = "UPDATE secret_versions SET path = ?2 WHERE path = ?1";
        for (from, to) in [
            (self.ours.as_str(), "aside"),
            (&self.others, &self.ours),
            ("aside", &self.others),
        ] {
            assert_eq!(self.connection.execute(sql, [from, to]).unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn a_wrong_pin_ends_the_start_with_a_reason_and_does_not_lock_the_token() {
    let mut stack = with_token().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    stack.stop().await;
    let file = stack.data.join("softhsm/user-pin");
    let right = std::fs::read(&file).unwrap();

    // SoftHSM remembers that the last login failed, so the second start meets a token that warns.
    for _ in 0..2 {
        std::fs::write(&file, "not-the-pin\n").unwrap();
        let said = stack.node.launch.fails().await;
        assert!(said.contains("refuses the PIN"), "{said}");
        assert!(said.contains("hint:"), "{said}");
        assert!(!said.contains("not-the-pin"), "{said}");
    }
    std::fs::write(&file, right).unwrap();

    stack.start_again().await;
    stack
        .get(HOST, "/v1/balance", &token)
        .await
        .expect_status(200);
    stack.finish().await;
}

fn pin(data: &Path) -> String {
    let text = std::fs::read_to_string(data.join("softhsm/user-pin")).unwrap();
    text.trim().to_owned()
}

fn private(dir: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).unwrap();
}

fn empty(dir: &Path) {
    std::fs::remove_dir_all(dir).unwrap();
    std::fs::create_dir(dir).unwrap();
    private(dir);
}

/// Copies a directory with its modes; where its files of settings name `old`, the copy names `new`.
fn copy(from: &Path, to: &Path, old: &Path, new: &Path) {
    std::fs::create_dir_all(to).unwrap();
    private(to);
    for entry in std::fs::read_dir(from).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target, old, new);
            continue;
        }
        std::fs::copy(&path, &target).unwrap();
        let settings = ["toml", "conf"];
        if path
            .extension()
            .is_some_and(|ext| settings.iter().any(|name| ext == *name))
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace(old.to_str().unwrap(), new.to_str().unwrap());
            std::fs::write(&target, text).unwrap();
        }
    }
}
