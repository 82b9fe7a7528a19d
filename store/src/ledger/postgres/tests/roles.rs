//! The database roles of `examples/postgres/roles.sql`.

use std::sync::Arc;

use ::leases::clock::SystemClock;
use ::leases::id::WebhookId;
use ::leases::scope::Kind;
use test_postgres::{Database, Server};

use super::{lasting_lease, open_node, request_leases, use_on, verify};
use crate::approvals::Verdict;
use crate::testing::*;
use crate::webhooks::secret_name;
use crate::{
    ApprovedUse, CheckpointSigner, Location, NewSealedKey, NewWebhook, Outcome, Spend, Store,
    UseRefusal, UseRequest,
};

/// The same database as another role.
fn as_role(database: &Database<'_>, role: &str) -> String {
    database.url().replacen(
        &format!("//{}:", test_postgres::USER),
        &format!("//{role}:"),
        1,
    )
}

/// A database of that server with the schema and the roles.
async fn with_roles(server: &Server) -> Database<'_> {
    const ROLES: &str = include_str!("../../../../../examples/postgres/roles.sql");
    let database = server.database();
    database.admin(ROLES);
    for role in ["owner", "control_plane", "injector"] {
        let password = test_postgres::PASSWORD;
        database.admin(&format!("ALTER ROLE claviger_{role} PASSWORD '{password}'"));
    }
    let owner = Location::parse(&as_role(&database, "claviger_owner")).unwrap();
    Store::migrate(&owner).await.unwrap();
    database.admin(ROLES);
    database
}

async fn client_of(url: &str) -> tokio_postgres::Client {
    let Location::Postgres(url) = Location::parse(url).unwrap() else {
        panic!("a URL of Postgres");
    };
    crate::postgres::connect(&url).await.unwrap()
}

#[tokio::test]
async fn a_nodes_name_and_streams_stay_with_the_role_that_began_it() {
    let server = Server::start();
    let database = with_roles(&server).await;
    let directory = tempfile::tempdir().unwrap();
    // A command of the owner's comes first, and takes the name from nobody.
    let url = as_role(&database, "claviger_owner");
    let owner = open_node(&url, &directory, "control", Arc::new(SystemClock)).await;
    owner.close().await;
    let url = as_role(&database, "claviger_control_plane");
    let control = open_node(&url, &directory, "control", Arc::new(SystemClock)).await;
    let one = tenant(&control, "one").await;
    let run = database.admin("SELECT run FROM nodes WHERE name = 'control'");
    let run = run.trim();
    let next = "(SELECT number << 40 | 1000 FROM audit_streams WHERE stream = 'control/control')";
    let next = database.admin(&format!("SELECT {next}"));
    let next = next.trim();
    let injector = client_of(&as_role(&database, "claviger_injector")).await;
    let append = format!(
        "SELECT audit_append('{run}', {next}, '{}', 1, 'secret_set.create', NULL, NULL, NULL, '', '', '{{}}')",
        one.org
    );
    for (forged, code) in [
        ("SELECT node_begin('control', 'EVIL')".to_owned(), "42501"),
        (append, "CV001"),
        (
            "SELECT node_begin_epoch('control', 'EVIL', 'EVIL', 1, '{}', '{}', '{}', '{}', '{}')"
                .to_owned(),
            "CV001",
        ),
    ] {
        let refused = injector.batch_execute(&forged).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), code, "{forged}");
    }
    let resumed = format!("SELECT * FROM ledger_resume('control', '{run}', 2, '{run}.9', 1, '')");
    assert!(
        injector
            .query_typed(&resumed, &[])
            .await
            .unwrap()
            .is_empty()
    );
    // It is still the control plane's, over a restart too.
    create_set(&control, &one.org, "later", &["A"]).await;
    control.close().await;
    let control = open_node(&url, &directory, "control", Arc::new(SystemClock)).await;
    assert!(verify(&control).await.is_intact());
    control.close().await;
}

/// The control plane sets a budget, and the injector holds uses to it.
async fn a_budget_is_held(control: &Store, injector: &Store, one: &Tenant) {
    let spend = Spend {
        tokens: Some(1),
        usd_micros: None,
        per_seconds: None,
    };
    let budgeted = Tenant {
        grant: grant_with(control, one, spend).await,
        ..one.clone()
    };
    let budgeted = lasting_lease(control, &budgeted).await;
    let held = injector
        .ledger()
        .record_use(budgeted.clone())
        .await
        .unwrap();
    injector.ledger().record_outcome(Outcome {
        spent: held.hold().map(|hold| hold.spent(1, 0, 0)),
        ..outcome(&budgeted, &held)
    });
    assert!(matches!(
        use_on(injector, &budgeted).await,
        Err(UseRefusal::SpendExceeded(_))
    ));
}

/// The injector asks, and only the control plane decides.
async fn an_approval_is_given_and_used(
    control: &Store,
    injector: &Store,
    one: &Tenant,
    workflow: &UseRequest,
) {
    let asked = one.asked("/v1/refunds", b"");
    let asked = injector.approvals().ask(&one.org, &asked, &person()).await;
    let asked = asked.unwrap().id;
    let approvals = injector.approvals();
    let own = approvals
        .decide(&one.org, &asked, Verdict::Approve, None, &person())
        .await;
    assert!(own.is_err(), "{own:?}");
    let approvals = control.approvals();
    let approved = approvals
        .decide(&one.org, &asked, Verdict::Approve, None, &person())
        .await;
    let approved = UseRequest {
        approval: Some(ApprovedUse {
            id: asked,
            expires_at: approved.unwrap().unwrap().expires_at,
        }),
        ..workflow.clone()
    };
    use_on(injector, &approved).await.unwrap();
    assert_eq!(
        use_on(injector, &approved).await,
        Err(UseRefusal::ApprovalGone)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_tells_its_part_of_the_story_and_can_do_nothing_else() {
    let server = Server::start();
    let database = with_roles(&server).await;
    let directory = tempfile::tempdir().unwrap();
    let clock = || Arc::new(SystemClock);
    let url = as_role(&database, "claviger_control_plane");
    let control = open_node(&url, &directory, "control", clock()).await;
    let url = as_role(&database, "claviger_injector");
    let injector = open_node(&url, &directory, "injector", clock()).await;
    let one = tenant(&control, "one").await;
    let workflow = lasting_lease(&control, &one).await;
    let single = request_leases(&database, &workflow, 1).remove(0);
    use_on(&injector, &single).await.unwrap();
    assert_eq!(
        use_on(&injector, &single).await,
        Err(UseRefusal::LeaseConsumed)
    );
    a_budget_is_held(&control, &injector, &one).await;
    let recorded = injector
        .ledger()
        .record_use(workflow.clone())
        .await
        .unwrap();
    injector
        .ledger()
        .record_outcome(outcome(&workflow, &recorded));
    let event = crate::NewEvent {
        action: "auth.failure",
        ..crate::NewEvent::default()
    };
    injector
        .audit()
        .append(&one.org, event, &person())
        .await
        .unwrap();
    let sets = injector.secret_sets();
    assert!(
        sets.contents(&one.org, &one.set, 1)
            .await
            .unwrap()
            .is_some()
    );
    let minted = injector
        .leases()
        .create(&one.org, one.new_lease(Kind::Workflow), &person())
        .await;
    assert!(minted.is_err(), "{minted:?}");
    an_approval_is_given_and_used(&control, &injector, &one, &workflow).await;
    control
        .leases()
        .revoke(&one.org, &workflow.lease, &person())
        .await
        .unwrap();
    assert!(matches!(
        use_on(&injector, &workflow).await,
        Err(UseRefusal::LeaseRevoked { .. })
    ));
    assert!(control.nodes().list().await.unwrap().len() == 2);
    assert!(verify(&control).await.is_intact());
    control.close().await;
    injector.close().await;
    assert_denied(
        &database,
        "claviger_injector",
        NOBODY.iter().chain(&NO_INJECTOR),
    )
    .await;
    assert_denied(
        &database,
        "claviger_control_plane",
        NOBODY.iter().chain(&NO_CONTROL_PLANE),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_injector_that_was_given_the_right_stores_rotated_tokens_and_sees_its_own_claims_alone()
{
    let server = Server::start();
    let database = with_roles(&server).await;
    database.admin(include_str!(
        "../../../../../examples/postgres/rotating-tokens.sql"
    ));
    let directory = tempfile::tempdir().unwrap();
    let clock = || Arc::new(SystemClock);
    let url = as_role(&database, "claviger_control_plane");
    let control = open_node(&url, &directory, "control", clock()).await;
    let url = as_role(&database, "claviger_injector");
    let injector = open_node(&url, &directory, "injector", clock()).await;
    let one = tenant(&control, "one").await;

    let theirs = control
        .idempotency()
        .begin(&one.org, "usr_1", "k", &[0; 32])
        .await;
    assert_eq!(theirs.unwrap(), crate::Idempotency::Fresh);
    let claims = injector.idempotency();
    for expected in [crate::Idempotency::Fresh, crate::Idempotency::InProgress] {
        let claimed = claims.begin(&one.org, "injector", "make", &[0; 32]).await;
        assert_eq!(claimed.unwrap(), expected);
    }
    let seen = client_of(&url)
        .await
        .query_typed("SELECT principal FROM idempotency_keys", &[])
        .await
        .unwrap();
    assert_eq!(seen.len(), 1, "the control plane's own are not shown");

    let sets = injector.secret_sets();
    let set = sets.get(&one.org, &one.set).await.unwrap().unwrap();
    let keys = [set.keys[0].clone(), "MADE".to_owned()];
    let next = sets
        .next_versions(&one.org, &set.provider, &set.environment, &set.name, &keys)
        .await
        .unwrap();
    let put = next.entries.into_iter().map(|(key, (path, version))| {
        let bytes = vec![1];
        (
            key,
            crate::Sealed {
                path,
                version,
                bytes,
            },
        )
    });
    let change = crate::SetChange {
        put: put.collect(),
        ..crate::SetChange::default()
    };
    let actor = crate::Actor::system("injector");
    let stored = sets.update(&one.org, &one.set, change, &actor).await;
    assert_eq!(stored.unwrap().unwrap().version, set.version + 1);
    claims.abandon(&one.org, "injector", "make").await.unwrap();
    assert!(verify(&control).await.is_intact());
    control.close().await;
    injector.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_injector_begins_an_epoch_without_a_right_to_the_leases() {
    let server = Server::start();
    let database = with_roles(&server).await;
    let directory = tempfile::tempdir().unwrap();
    let clock = || Arc::new(SystemClock);
    let url = as_role(&database, "claviger_control_plane");
    let control = open_node(&url, &directory, "control", clock()).await;
    let one = tenant(&control, "one").await;
    let workflow = lasting_lease(&control, &one).await;
    let url = as_role(&database, "claviger_injector");
    let injector = open_node(&url, &directory, "injector", clock()).await;
    injector
        .audit()
        .start_checkpoints(CheckpointSigner::from_seed(&[7; 32]));
    use_on(&injector, &workflow).await.unwrap();
    injector.close().await;
    database.admin("DELETE FROM audit_events WHERE action = 'lease.use'");
    let injector = open_node(&url, &directory, "injector", clock()).await;
    assert_eq!(injector.restored().unwrap().ended_leases, 1);
    assert!(matches!(
        use_on(&injector, &workflow).await,
        Err(UseRefusal::LeaseRevoked { .. })
    ));
    // By hand it takes the control plane's rights.
    let fresh = lasting_lease(&control, &one).await;
    use_on(&injector, &fresh).await.unwrap();
    assert_eq!(control.begin_epoch(&person()).await.unwrap(), 1);
    assert!(matches!(
        use_on(&injector, &fresh).await,
        Err(UseRefusal::LeaseRevoked { .. })
    ));
    assert!(injector.begin_epoch(&person()).await.is_err());
    control.close().await;
    injector.close().await;
}

/// What no listening process may do.
const NOBODY: [&str; 15] = [
    "SELECT run FROM nodes",
    "SELECT writer FROM audit_streams",
    "UPDATE audit_events SET body = ''",
    "DELETE FROM audit_events",
    "INSERT INTO audit_events SELECT * FROM audit_events",
    "TRUNCATE audit_events",
    "UPDATE audit_streams SET writer = ''",
    "UPDATE leases SET uses = 0",
    "UPDATE rate_windows SET used = 0",
    "DELETE FROM rate_windows",
    "UPDATE budgets SET tokens = 0",
    "DELETE FROM budgets",
    "UPDATE ledger_changes SET number = 7",
    "CREATE TABLE mine (a INT)",
    "SELECT audit_stream_take('x', 'y')",
];
/// What is for the control plane alone.
const NO_INJECTOR: [&str; 17] = [
    "INSERT INTO leases SELECT * FROM leases",
    "INSERT INTO grants SELECT * FROM grants",
    "INSERT INTO budgets SELECT * FROM budgets",
    "SELECT * FROM budgets",
    "UPDATE grants SET revoked_at = NULL",
    "UPDATE leases SET revoked_at = NULL",
    "UPDATE agents SET is_active = 1",
    "DELETE FROM revoked_blocks",
    "UPDATE secret_versions SET sealed = ''",
    "DELETE FROM secret_versions",
    "INSERT INTO sealed_keys VALUES ('org', 'jwt', 1, '', '', 1)",
    "SELECT * FROM audit_events",
    "SELECT * FROM idempotency_keys",
    "SELECT ledger_changing()",
    "UPDATE approvals SET status = 'approved'",
    "INSERT INTO approvals SELECT 'apr_1', org_id, agent_id, grant_id, secret_set_id, lease_id, digest, 'approved', method, \
     scheme, host, port, path, query_sha256, body_sha256, body_bytes, ttl_ms, created_at, expires_at FROM approvals",
    "UPDATE kill_switches SET cut_off = 0",
];
/// What is for injectors alone.
const NO_CONTROL_PLANE: [&str; 5] = [
    "SELECT ledger_commit(1, '', 1, 1, 1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', 1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
    "SELECT ledger_commit_approved(1, '', 1, 1, 1, '{}', '{}', '{}', '{}', '{}', '{}', '{}', 1, '{}', '{}', '{}', '{}', '{}', '{}', \
     '{}', '{}', '{}')",
    "SELECT node_silence('injector', 1)",
    "INSERT INTO approvals SELECT * FROM approvals",
    "SELECT ledger_spend(1, '', '[]', '[]')",
];

/// Each of these statements is refused for want of the right, and for no other reason.
async fn assert_denied<'a>(
    database: &Database<'_>,
    role: &str,
    statements: impl Iterator<Item = &'a &'a str>,
) {
    let client = client_of(&as_role(database, role)).await;
    for statement in statements {
        let refused = client.batch_execute(statement).await;
        let code = refused.as_ref().err().and_then(tokio_postgres::Error::code);
        let denied = tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE;
        assert_eq!(code, Some(&denied), "{role}: {statement}: {refused:?}");
    }
}

#[tokio::test]
async fn a_control_plane_tells_webhooks_and_deletes_no_other_key_and_no_young_approval() {
    let server = Server::start();
    let database = with_roles(&server).await;
    let directory = tempfile::tempdir().unwrap();
    let url = as_role(&database, "claviger_control_plane");
    let control = open_node(&url, &directory, "control", Arc::new(SystemClock)).await;
    let one = tenant(&control, "one").await;
    let key = |name: &str| NewSealedKey {
        kek_id: None,
        name: name.to_owned(),
        version: 1,
        sealed: b"sealed".to_vec(),
        public: Vec::new(),
    };
    let id = WebhookId::new(START);
    let keys = control.sealed_keys();
    let root = key("lease-root");
    keys.put(&one.org, root, &person()).await.unwrap();
    let new = NewWebhook {
        secret: key(&secret_name(&id)),
        id: id.clone(),
        url: "https://hooks.example.org/".to_owned(),
        events: vec!["*".to_owned()],
        description: None,
    };
    let (webhooks, sinks) = (control.webhooks(), control.sinks());
    let made = webhooks.create(&one.org, new, &person()).await.unwrap();
    assert!(sinks.claim(&made.sink).await.unwrap());
    assert!(sinks.advance(&made.sink, &made.sink, &[]).await.unwrap());
    let injector = client_of(&as_role(&database, "claviger_injector")).await;
    let held = "SELECT COUNT(*) FROM sealed_keys WHERE name LIKE 'webhook/%'";
    let seen: i64 = injector.query_one(held, &[]).await.unwrap().get(0);
    assert_eq!(seen, 0);
    let url_of = "SELECT url FROM webhooks";
    assert_eq!(
        injector
            .batch_execute(url_of)
            .await
            .unwrap_err()
            .code()
            .unwrap()
            .code(),
        "42501"
    );
    assert!(webhooks.delete(&one.org, &id, &person()).await.unwrap());
    let sets = control.secret_sets();
    assert!(sets.purge(&one.org, &one.set, &person()).await.unwrap());
    // By the owner of the schema: this plane asks for none.
    let asking = "INSERT INTO approvals SELECT 'apr_' || expires_at, org_id, agent_id, id, secret_set_id, '', \
        ''::BYTEA, 'pending', '', '', '', 1, '', NULL, ''::BYTEA, 0, 0, 0, expires_at, NULL, NULL, NULL, NULL \
        FROM (SELECT g.org_id, g.agent_id, g.id, g.secret_set_id, e.expires_at FROM grants g, \
            (VALUES (5), (9000000000000)) AS e (expires_at)) AS all_grants";
    database.admin(asking);
    let plane = client_of(&url).await;
    for (table, left) in [
        ("sealed_keys", "lease-root"),
        ("approvals", "apr_9000000000000"),
    ] {
        plane
            .batch_execute(&format!("DELETE FROM {table}"))
            .await
            .unwrap();
        let column = if table == "approvals" { "id" } else { "name" };
        let found = database.admin(&format!(
            "SELECT {column} FROM {table} WHERE {column} NOT LIKE 'audit%'"
        ));
        assert_eq!(found.trim(), left);
    }
    control.close().await;
}
