//! An upgrade: the database of an earlier release is migrated, and what lay in it is served on.

use std::path::Path;

use rusqlite::Connection;
use serde_json::json;

use crate::support::Stack;

const HOST: &str = "api.stripe.com";

/// The schema of the release before agents signed requests, people came by identity providers, and there were bindings, shares,
/// webhooks and quotas.
const EARLIER: [&str; 6] = [
    include_str!("../../migrations/sqlite/0001_schema.sql"),
    include_str!("../../migrations/sqlite/0002_rotations.sql"),
    include_str!("../../migrations/sqlite/0003_spend.sql"),
    include_str!("../../migrations/sqlite/0004_approvals.sql"),
    include_str!("../../migrations/sqlite/0005_people.sql"),
    include_str!("../../migrations/sqlite/0006_vaults.sql"),
];

/// Puts the database back to what that release would have made of its rows: its tables, with the columns that they had.
fn turn_back(database: &Path) {
    let earlier = database.with_extension("earlier");
    let connection = Connection::open(&earlier).unwrap();
    for statements in EARLIER {
        connection.execute_batch(statements).unwrap();
    }
    let now = database.display().to_string();
    let attach = format!("PRAGMA foreign_keys = OFF; ATTACH '{now}' AS now;");
    connection.execute_batch(&attach).unwrap();
    let texts = |query: &str| -> Vec<String> {
        let mut statement = connection.prepare(query).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    // How the migrations are noted is no migration's.
    let noted = "SELECT sql FROM now.sqlite_master WHERE name = '_sqlx_migrations'";
    connection.execute_batch(&texts(noted).concat()).unwrap();
    let tables = texts(
        "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    );
    for table in tables {
        let columns = texts(&format!(
            "SELECT name FROM main.pragma_table_info('{table}')"
        ));
        let columns = columns.join(", ");
        let copy = format!(
            "DELETE FROM main.{table}; INSERT INTO main.{table} ({columns}) SELECT {columns} FROM now.{table}"
        );
        connection.execute_batch(&copy).unwrap();
    }
    let settle = format!(
        "DELETE FROM main._sqlx_migrations WHERE version > {}; DETACH now; PRAGMA journal_mode = WAL;",
        EARLIER.len()
    );
    connection.execute_batch(&settle).unwrap();
    drop(connection);
    for ending in ["db-wal", "db-shm"] {
        let _ = std::fs::remove_file(database.with_extension(ending));
    }
    let permissions = std::fs::metadata(database).unwrap().permissions();
    std::fs::set_permissions(&earlier, permissions).unwrap();
    std::fs::rename(&earlier, database).unwrap();
}

#[tokio::test]
async fn what_an_earlier_release_stored_is_migrated_and_served() {
    let mut stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let single = stack.request_lease(&access).await;
    stack
        .get(HOST, "/v1/balance", &token)
        .await
        .expect_status(200);
    stack
        .get(HOST, "/v1/balance", &single)
        .await
        .expect_status(200);
    let by_path = stack.secret("key-");
    let put = json!({ "value": by_path.text() });
    let path = "/v1/vaults/default/secrets/db/password";
    stack.admin().put(path, &put).await.expect_status(201);
    stack.stop().await;

    turn_back(&stack.data.join("claviger.db"));
    let old = Connection::open(stack.data.join("claviger.db")).unwrap();
    let later =
        "SELECT COUNT(*) FROM sqlite_master WHERE name IN ('bindings', 'shares', 'webhooks')";
    let later: i64 = old.query_row(later, [], |row| row.get(0)).unwrap();
    assert_eq!(later, 0);
    drop(old);
    let mut command = crate::support::stack::binary(stack.home.path());
    command.args(["migrate", "--data"]).arg(&stack.data);
    stack.run(command).await.expect_success();
    stack.start_again().await;

    // Leases verify and open what was sealed, and one that was used stays used.
    stack
        .get(HOST, "/v1/balance", &token)
        .await
        .expect_status(200);
    let sent = stack.upstream.last().field("authorization");
    assert_eq!(sent, format!("Bearer {}", access.secret.text()));
    let again = stack.attempt(HOST, "/v1/balance", &single).await;
    again.expect_refusal(403, "lease_consumed");
    let read = stack.admin().reveal(path).await.expect_status(200);
    assert_eq!(read.json()["value"], by_path.text());
    // Who was there is known by the key of before, and has what came with the upgrade.
    let lease = json!({ "secret_set_id": access.set });
    let own = stack.api(&access.agent_key);
    let minted = own.post("/v1/vault/leases", &lease).await;
    let minted = minted.expect_status(201).json();
    stack.watch_token(minted["token"].as_str().unwrap());
    let shown = own.get("/v1/agents/me").await.expect_status(200).json();
    assert_eq!(shown["auth_method"], "api_key");
    let binding = json!({ "name": "api", "binding_type": "http", "credential": stack.secret("tok_").text(),
        "config": { "base_url": "https://api.notion.com", "auth_type": "bearer" } });
    let bindings = format!("/v1/agents/{}/bindings", access.agent);
    let made = stack.admin().post(&bindings, &binding).await;
    made.expect_status(201);
    let verified = stack.cli(&["audit", "verify"]).await;
    verified.expect_success();
    stack.finish().await;
}
