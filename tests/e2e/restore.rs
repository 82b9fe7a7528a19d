//! Yesterday's database put back: no lease of before opens anything, and everything that can say so does.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::stack::Ran;
use crate::support::tunnel::basic;
use crate::support::{Access, Stack};

/// A stack that has stopped in the state that its backup holds.
struct Story {
    stack: Stack,
    access: Access,
    backup: tempfile::TempDir,
    single: String,
    workflow: String,
    lease: String,
}

/// Copies the files of a directory that are there.
fn copy(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        let (from, to) = (from.join(name), to.join(name));
        let _ = std::fs::remove_file(&to);
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

const DATABASE: &[&str] = &["claviger.db", "claviger.db-wal", "claviger.db-shm"];
const WITH_CHECKPOINT: &[&str] = &[
    "claviger.db",
    "claviger.db-wal",
    "claviger.db-shm",
    "audit.checkpoint",
];

impl Story {
    /// Makes two leases, backs the data up, uses the one and revokes the other, and stops.
    async fn begin() -> Self {
        let mut stack = Stack::start().await;
        let access = stack.stripe().await;
        let single = stack.long_request_lease(&access).await;
        let (workflow, lease) = stack.workflow_lease_with_id(&access).await;
        let backup = tempfile::tempdir().unwrap();
        stack.stop().await;
        copy(&stack.data, backup.path(), WITH_CHECKPOINT);
        stack.start_again().await;
        for token in [&single, &workflow] {
            stack
                .get("api.stripe.com", "/v1/balance", token)
                .await
                .expect_status(200);
        }
        stack
            .admin()
            .delete(&format!("/v1/vault/leases/{lease}"))
            .await
            .expect_status(204);
        stack.stop().await;
        Self {
            stack,
            access,
            backup,
            single,
            workflow,
            lease,
        }
    }

    fn put_back(&self, names: &[&str]) {
        copy(self.backup.path(), &self.stack.data, names);
    }

    /// No lease of before opens anything, and each place says why; a new one does.
    async fn expect_all_ended(&self) {
        let reached = self.stack.upstream.count();
        for token in [&self.single, &self.workflow] {
            let (reply, _) = self
                .stack
                .connect("api.stripe.com:443", &basic(token))
                .await;
            reply.expect_refusal(407, "lease_revoked");
        }
        assert_eq!(self.stack.upstream.count(), reached);
        let lease = self.stack.lease(&self.lease).await;
        assert!(lease["revoked_at"].is_string(), "{lease}");
        let fresh = self.stack.request_lease(&self.access).await;
        self.stack
            .get("api.stripe.com", "/v1/balance", &fresh)
            .await
            .expect_status(200);
    }

    async fn health(&self) -> Value {
        let reply = self.stack.admin().get("/v1/health").await;
        reply.expect_status(200).json()
    }

    async fn events(&self) -> Vec<Value> {
        let mut events = self.stack.events().await;
        events.retain(|event| event["action"] == "restore.epoch");
        events
    }

    /// A command on the data, without a server.
    async fn offline(&self, arguments: &[&str]) -> Ran {
        let mut command = crate::support::stack::binary(self.stack.home.path());
        command
            .args(arguments)
            .args(["--json", "--data"])
            .arg(&self.stack.data);
        self.stack.run(command).await
    }
}

fn checkpoint(data: &Path) -> PathBuf {
    data.join("audit.checkpoint")
}

#[tokio::test]
async fn a_database_of_yesterday_revives_no_lease_and_the_loss_stays_to_be_seen() {
    let mut story = Story::begin().await;
    story.put_back(DATABASE);
    story.stack.start_again().await;

    story.expect_all_ended().await;
    let health = story.health().await;
    assert_eq!(health["status"], "degraded", "{health}");
    assert_eq!(health["degraded"], json!(["restore"]), "{health}");
    assert!(health["restored_to"].is_string(), "{health}");
    let metrics = story.stack.admin().get("/metrics").await;
    let metrics = metrics.expect_status(200).text();
    assert!(metrics.lines().any(|line| line == "restore_epoch 1"));
    let told = story.events().await;
    assert_eq!(told.len(), 2, "{told:?}");
    for event in &told {
        assert_eq!(event["actor_type"], "system", "{event}");
        let seq = |name: &str| event[name].as_u64().unwrap();
        assert!(seq("found_seq") < seq("signed_seq"), "{event}");
        assert_eq!(seq("seq"), seq("signed_seq") + 1, "{event}");
    }
    let report = story.stack.admin().get("/v1/audit/verify").await;
    let report = report.expect_status(200).json();
    assert_eq!(report["intact"], false, "{report}");
    assert_eq!(report["first_bad"]["reason"], "missing", "{report}");
    let first = told
        .iter()
        .find(|event| event["stream"] == report["first_bad"]["stream"])
        .unwrap();
    assert_eq!(
        report["first_bad"]["seq"].as_u64(),
        first["found_seq"].as_u64().map(|seq| seq + 1)
    );

    // The next start finds nothing new, and what ended stays ended.
    story.stack.stop().await;
    let ran = story.offline(&["audit", "verify"]).await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    assert!(ran.stdout.contains("missing"), "{ran:#?}");
    story.stack.start_again().await;
    assert_eq!(story.health().await["status"], "ok");
    assert_eq!(story.events().await.len(), 2);
    story.expect_all_ended().await;
    story.stack.finish_after_restore().await;
}

#[tokio::test]
async fn a_database_put_back_together_with_its_signed_heads_takes_a_command() {
    let mut story = Story::begin().await;
    story.put_back(WITH_CHECKPOINT);
    let ran = story
        .offline(&["migrate", "--restored"])
        .await
        .expect_success();
    let done: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(done["revoked_leases"], 2, "{ran:#?}");
    story.stack.start_again().await;
    story.expect_all_ended().await;
    assert_eq!(story.events().await.len(), 1);
    let report = story.stack.admin().get("/v1/audit/verify").await;
    assert_eq!(report.expect_status(200).json()["intact"], true);
    story.stack.finish_after_restore().await;
}

#[tokio::test]
async fn signed_heads_that_are_gone_are_a_finding_and_end_leases_too() {
    let mut story = Story::begin().await;
    story.offline(&["audit", "verify"]).await.expect_success();
    story.put_back(DATABASE);
    std::fs::remove_file(checkpoint(&story.stack.data)).unwrap();
    let ran = story.offline(&["audit", "verify"]).await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    assert!(ran.stdout.contains("unanchored"), "{ran:#?}");
    assert!(ran.stderr.contains("no signed head is at hand"), "{ran:#?}");
    assert!(ran.stderr.contains("hint"), "{ran:#?}");
    story.stack.start_again().await;
    story.expect_all_ended().await;
    assert_eq!(story.health().await["degraded"], json!(["restore"]));
    story.stack.finish_after_restore().await;
}
