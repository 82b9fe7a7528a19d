//! The audit trail: complete, readable, and `audit verify` names the first record that somebody touched.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::stack::Ran;
use crate::support::{Access, Stack};

const REQUESTS: usize = 6;

/// A stack with some uses in its trail.
async fn with_a_trail() -> (Stack, Access) {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    for _ in 0..REQUESTS {
        tunnel.get("/v1/balance").await.expect_status(200);
    }
    (stack, access)
}

/// `claviger audit verify` without a server, on the data as it lies there.
async fn verify(stack: &Stack) -> Ran {
    let mut command = crate::support::stack::binary(stack.home.path());
    command
        .args(["audit", "verify", "--json", "--data"])
        .arg(&stack.data);
    stack.run(command).await
}

fn database(data: &Path) -> Connection {
    let connection = Connection::open(data.join("claviger.db")).unwrap();
    connection
        .busy_timeout(std::time::Duration::from_secs(5))
        .unwrap();
    connection
}

/// Where the uses stand in the table, and their stream and number, in order.
fn uses(connection: &Connection) -> Vec<Place> {
    let sql = "SELECT position, json_extract(body, '$.stream'), json_extract(body, '$.seq') FROM audit_events \
               WHERE action = 'lease.use' ORDER BY position";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        Ok(Place {
            position: row.get(0)?,
            stream: row.get(1)?,
            seq: row.get(2)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// Where a record stands.
#[derive(Debug, Clone)]
struct Place {
    position: i64,
    stream: String,
    seq: i64,
}

/// The database without what keeps careless hands off the trail: an attacker with the file has neither.
fn unguarded(data: &Path) -> Connection {
    let connection = database(data);
    let triggers: Vec<String> = {
        let mut statement = connection
            .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_events'")
            .unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    for trigger in triggers {
        connection
            .execute_batch(&format!("DROP TRIGGER \"{trigger}\""))
            .unwrap();
    }
    connection
}

/// Stops the server, when all is as it should be, lets `touch` at the database, and checks that `verify` names the record that it gives back.
async fn expect_found(touch: impl FnOnce(&Connection, &[Place]) -> Place) {
    let (mut stack, _) = with_a_trail().await;
    stack.check_and_stop().await;
    verify(&stack).await.expect_success();
    let connection = unguarded(&stack.data);
    let uses = uses(&connection);
    assert_eq!(uses.len(), REQUESTS);

    let bad = touch(&connection, &uses);
    drop(connection);

    let ran = verify(&stack).await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    let report: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:#?}"));
    expect_named(&report, &bad);
}

#[track_caller]
fn expect_named(report: &Value, bad: &Place) {
    assert_eq!(
        report["first_bad"]["stream"],
        bad.stream.as_str(),
        "{report}"
    );
    assert_eq!(report["first_bad"]["seq"], bad.seq, "{report}");
}

/// Replaces a text in the body of one record.
fn edit(connection: &Connection, place: &Place, from: &str, to: &str) {
    let sql = "UPDATE audit_events SET body = replace(body, ?1, ?2) WHERE position = ?3";
    assert_eq!(
        connection.execute(sql, (from, to, place.position)).unwrap(),
        1
    );
}

#[tokio::test]
async fn an_edited_record_is_named() {
    expect_found(|connection, uses| {
        edit(connection, &uses[2], "/v1/balance", "/v1/nothing");
        uses[2].clone()
    })
    .await;
}

#[tokio::test]
async fn an_edited_column_is_named() {
    expect_found(|connection, uses| {
        let sql = "UPDATE audit_events SET agent_id = 'agt_00000000000000000000000000' WHERE position = ?1";
        assert_eq!(connection.execute(sql, [uses[3].position]).unwrap(), 1);
        uses[3].clone()
    })
    .await;
}

#[tokio::test]
async fn a_deleted_record_is_named() {
    expect_found(|connection, uses| {
        connection
            .execute(
                "DELETE FROM audit_events WHERE position = ?1",
                [uses[2].position],
            )
            .unwrap();
        uses[2].clone()
    })
    .await;
}

#[tokio::test]
async fn swapped_records_are_named() {
    expect_found(|connection, uses| {
        let (first, second) = (uses[1].position, uses[3].position);
        let renumber = |from: i64, to: i64| {
            connection
                .execute(
                    "UPDATE audit_events SET position = ?1 WHERE position = ?2",
                    (to, from),
                )
                .unwrap();
        };
        renumber(first, -1);
        renumber(second, first);
        renumber(-1, second);
        uses[1].clone()
    })
    .await;
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_named() {
    expect_found(|connection, uses| {
        let cut = &uses[REQUESTS - 2];
        let next_stream = ((cut.position >> 40) + 1) << 40;
        let sql = "DELETE FROM audit_events WHERE position >= ?1 AND position < ?2";
        connection
            .execute(sql, (cut.position, next_stream))
            .unwrap();
        cut.clone()
    })
    .await;
}

#[tokio::test]
async fn a_record_edited_under_a_running_server_is_named() {
    let (stack, _) = with_a_trail().await;
    let connection = unguarded(&stack.data);
    let bad = uses(&connection)[1].clone();
    edit(&connection, &bad, "127.0.0.1", "192.0.2.1");

    let report = stack
        .admin()
        .get("/v1/audit/verify")
        .await
        .expect_status(200)
        .json();

    expect_named(&report, &bad);
    // As it was before, the trail passes the checks again.
    edit(&connection, &bad, "192.0.2.1", "127.0.0.1");
    stack.finish().await;
}

#[tokio::test]
async fn no_route_changes_the_trail() {
    let (stack, _) = with_a_trail().await;
    let before = stack.events().await.len();
    let id = stack.events().await[0]["id"].as_str().unwrap().to_owned();

    for path in [
        "/v1/audit/events".to_owned(),
        format!("/v1/audit/events/{id}"),
        "/v1/vault/audit".to_owned(),
    ] {
        for status in [
            stack.admin().delete(&path).await.status,
            stack.admin().put(&path, &json!({})).await.status,
            stack.admin().post(&path, &json!({})).await.status,
        ] {
            assert!(matches!(status, 404 | 405), "{path}: {status}");
        }
    }

    assert!(stack.events().await.len() >= before);
    stack.finish().await;
}

#[tokio::test]
async fn a_use_and_its_outcome_say_who_what_and_how_it_ended() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let (token, lease) = stack.workflow_lease_with_id(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel
        .request("POST", "/v1/charges?expand=all", &[], b"amount=100")
        .await
        .unwrap()
        .expect_status(200);

    let events = crate::support::wait::until("the outcome", async || {
        let events = stack.events().await;
        events
            .iter()
            .any(|event| event["action"] == "lease.outcome")
            .then_some(events)
    })
    .await;
    let find = |action: &str| {
        events
            .iter()
            .find(|event| event["action"] == action)
            .unwrap()
    };
    let (recorded, outcome) = (find("lease.use"), find("lease.outcome"));
    for (name, value) in [
        ("decision", json!("allow")),
        ("agent_id", json!(access.agent)),
        ("lease_id", json!(lease)),
        ("grant_id", json!(access.grant)),
        ("secret_set_id", json!(access.set)),
        ("secret_version", json!(1)),
        ("keys", json!(["STRIPE_SECRET_KEY"])),
        ("client_ip", json!("127.0.0.1")),
        ("method", json!("POST")),
        ("scheme", json!("https")),
        ("host", json!("api.stripe.com")),
        ("port", json!(443)),
        ("path", json!("/v1/charges")),
    ] {
        assert_eq!(recorded[name], value, "{name} in {recorded}");
    }
    for name in [
        "id",
        "stream",
        "seq",
        "prev_hash",
        "hash",
        "created_at",
        "use_id",
        "request_id",
    ] {
        assert!(!recorded[name].is_null(), "{name} is missing in {recorded}");
    }
    assert_eq!(outcome["use_id"], recorded["use_id"]);
    assert_eq!(outcome["status"], 200, "{outcome}");
    assert!(outcome["bytes_up"].as_u64() >= Some(10), "{outcome}");
    assert!(outcome["bytes_down"].as_u64() > Some(0), "{outcome}");
    assert!(outcome["duration_ms"].is_u64(), "{outcome}");
    assert_eq!(outcome["attempts"], 1, "{outcome}");
    stack.finish().await;
}

#[tokio::test]
async fn the_trail_is_read_by_filters_and_pages() {
    let (stack, access) = with_a_trail().await;

    let page = stack
        .admin()
        .get(&format!(
            "/v1/audit/events?action=lease.use&agent_id={}&limit=4",
            access.agent
        ))
        .await;
    let page = page.expect_status(200).json();
    assert_eq!(page["events"].as_array().unwrap().len(), 4, "{page}");
    let cursor = page["next_cursor"].as_str().unwrap();
    let path = format!(
        "/v1/audit/events?action=lease.use&agent_id={}&limit=4&cursor={cursor}",
        access.agent
    );
    let rest = stack.admin().get(&path).await.expect_status(200).json();
    assert_eq!(
        rest["events"].as_array().unwrap().len(),
        REQUESTS - 4,
        "{rest}"
    );
    assert!(rest["next_cursor"].is_null(), "{rest}");
    let none = stack
        .admin()
        .get("/v1/vault/audit?agent_id=agt_00000000000000000000000000")
        .await
        .expect_status(200);
    assert_eq!(none.json()["events"], json!([]));

    let listed = stack
        .cli(&["audit", "list", "--json"])
        .await
        .expect_success();
    assert!(listed.stdout.contains("lease.use"), "{listed:#?}");
    let exported = stack.cli(&["audit", "export"]).await.expect_success();
    assert!(
        exported.stdout.lines().count() >= 2 * REQUESTS,
        "{exported:#?}"
    );
    stack.cli(&["audit", "verify"]).await.expect_success();
    stack.finish().await;
}

#[tokio::test]
async fn a_tail_shows_a_use_as_it_comes() {
    let (stack, access) = with_a_trail().await;
    let mut tail = stack
        .command(&["audit", "tail", "--action", "lease.use", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(30), lines.next_line());
        let line = line.await.expect("a line within 30 s").unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    for _ in 0..REQUESTS {
        assert_eq!(next().await["path"], "/v1/balance");
    }

    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel.get("/v1/charges").await.expect_status(200);
    assert_eq!(next().await["path"], "/v1/charges");
    tail.kill().await.unwrap();
    stack.finish().await;
}
