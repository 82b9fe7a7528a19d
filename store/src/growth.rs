//! No statement of the request path, and none of a list, reads a whole table that grows.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ::leases::RevocationId;
use ::leases::clock::ManualClock;
use ::leases::id::{OrgId, ShareId, UserId};
use ::leases::scope::Kind;
use ::leases::secret_path::SecretPath;
use test_postgres::Server;

use crate::approvals::{ApprovalStatus, Verdict};
use crate::consents::Question;
use crate::ledger::Holding;
use crate::testing::*;
use crate::{
    Actor, EventFilter, Location, NewEvent, NewSecret, NewShare, NewUser, PageRequest, Rate,
    Recipient, Role, SessionRef, Spend, User,
};

/// Tables that grow with the installation or with time.
const GROWING: [&str; 19] = [
    "agent_creators",
    "agents",
    "approvals",
    "audit_events",
    "budgets",
    "consents",
    "grants",
    "idempotency_keys",
    "leases",
    "policies",
    "rate_windows",
    "revoked_blocks",
    "secret_set_versions",
    "secret_sets",
    "secret_versions",
    "secrets",
    "shares",
    "user_keys",
    "users",
];

/// Rows enough that reading all of them would never be the planner's choice for want of better.
const ROWS: u32 = 20_000;

fn fill(tenant: &Tenant) -> String {
    let (org, vault, agent, set) = (&tenant.org, &tenant.vault, &tenant.agent, &tenant.set);
    let grant = &tenant.grant;
    let id = |prefix: &str| format!("'{prefix}_01' || lpad(i::text, 24, '0')");
    let rows = format!("FROM generate_series(1, {ROWS}) i");
    let mut sql = String::new();
    for statement in [
        format!(
            "users SELECT {}, '{org}', 'user ' || i, 'member', 0 {rows}",
            id("usr")
        ),
        format!(
            "user_keys SELECT sha256(('u' || i)::bytea), '{org}', {}, 0 {rows}",
            id("usr")
        ),
        format!(
            "agents SELECT {}, '{org}', 'agent ' || i, NULL, sha256(i::text::bytea), 1, 0, 0 {rows}",
            id("agt")
        ),
        format!("secrets SELECT '{org}', '{vault}', 'stripe/prod/s' || i || '/K', 1, 0 {rows}"),
        format!(
            "secret_versions SELECT '{org}', '{vault}', 'stripe/prod/s' || i || '/K', 1, '\\x00', 0, {} {rows}",
            id("sec")
        ),
        format!(
            "secret_sets SELECT {}, '{org}', '{vault}', 'stripe', 'prod', 's' || i, 1, 0, 0 {rows}",
            id("set")
        ),
        format!(
            "secret_set_versions SELECT {}, 1, '{org}', '{{\"K\":1}}', NULL, 0, 'x' {rows}",
            id("set")
        ),
        format!(
            "grants SELECT {}, '{org}', CASE WHEN i % 2 = 0 THEN '{agent}' ELSE {} END, {}, '[]', '\"*\"', '{{}}', \
             NULL, NULL, NULL, 'x', 0 {rows}",
            id("grt"),
            id("agt"),
            id("set")
        ),
        format!(
            "policies SELECT {}, '{org}', '{vault}', 'agent', {}, '**', '[\"read\"]', 'allow', 0, '{{}}', '[]', NULL, \
             'x', 0, 0 {rows}",
            id("pol"),
            id("agt")
        ),
        format!(
            "agent_creators SELECT {}, '{org}', {} {rows}",
            id("agt"),
            id("usr")
        ),
        format!(
            "shares SELECT {}, '{org}', {}, '{vault}', 'p', 1, CASE WHEN i % 2 = 0 THEN 'user' ELSE 'external_email' END, \
             CASE WHEN i % 2 = 0 THEN {} ELSE NULL END, CASE WHEN i % 2 = 0 THEN NULL ELSE i || '@example.org' END, \
             sha256(i::text::bytea), NULL, 0, '[]', NULL, 0, {}, 'user', i, 9000000000000 {rows}",
            id("shr"),
            id("sec"),
            id("usr"),
            id("usr")
        ),
        format!("rate_windows SELECT {}, 0, 0 {rows}", id("grt")),
        format!(
            "approvals SELECT {}, '{org}', '{agent}', '{grant}', '{set}', {}, sha256(i::text::bytea), \
             CASE WHEN i % 100 = 0 THEN 'pending' ELSE 'consumed' END, 'GET', 'https', 'h', 443, '/', NULL, '\\x00', 0, 0, 0, 0 \
             {rows}",
            id("apr"),
            id("lse")
        ),
        format!(
            "consents SELECT {}, '{org}', '{agent}', 'agent', 'a', 't', 'i', 's', NULL, \
             CASE WHEN i % 100 = 0 THEN 'pending' ELSE 'rejected' END, 0, 0 {rows}",
            id("apr")
        ),
        format!(
            "budgets SELECT {}, NULL, NULL, NULL, 0, 0, 0, 0, 0 {rows}",
            id("grt")
        ),
        format!(
            "leases SELECT {}, '{org}', {}, 'workflow', 'proxy_use', '[[\"{set}\",\"{grant}\"]]', 0, 0, NULL, 0, \
             sha512(i::text::bytea) {rows}",
            id("lse"),
            id("agt")
        ),
        format!(
            "revoked_blocks SELECT sha512(i::text::bytea), '{org}', {}, 0, 9000000000000 {rows}",
            id("lse")
        ),
        format!(
            "idempotency_keys SELECT '{org}', 'p', 'k' || i, '\\x00', 200, NULL, 9000000000000 {rows}"
        ),
        format!(
            "audit_events SELECT (77::bigint << 40) + i, '{org}', 0, 'lease.use', NULL, NULL, NULL, '\\x00', \
             '\\x00', '{{}}' FROM generate_series(1, 10 * {ROWS}) i"
        ),
    ] {
        let _ = writeln!(sql, "INSERT INTO {statement};");
    }
    sql
}

#[tokio::test]
async fn no_statement_reads_a_whole_table_that_grows() {
    let server = Server::start_with(&[("log_min_messages", "log"), ("fsync", "off")]);
    let database = server.database();
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let location = Location::parse(&database.url()).unwrap();
    let store = open_at(location, &directory, &clock).await;
    let one = tenant(&store, "one").await;
    let other = tenant(&store, "other").await;
    store.close().await;
    set_database_clock(&database, START);
    database.admin(&fill(&one));
    let name = database.name();
    database.admin(&format!(
        "ANALYZE; \
         ALTER DATABASE {name} SET session_preload_libraries = 'auto_explain'; \
         ALTER DATABASE {name} SET auto_explain.log_min_duration = 0; \
         ALTER DATABASE {name} SET auto_explain.log_nested_statements = on"
    ));
    let location = Location::parse(&database.url()).unwrap();
    let store = open_at(location, &directory, &clock).await;
    // What a start reads is not a request's, and comes before.
    let started = server.log().len();
    for tenant in [&one, &other] {
        ask(&store, tenant).await;
        change(&store, tenant).await;
        use_leases(&store, tenant).await;
    }
    store.close().await;
    let plans = &server.log()[started..];
    assert!(
        plans.matches("Query Text:").count() > 100,
        "plans are logged"
    );
    let reads_whole = |line: &str| {
        // Without a column it is asked whether there is any row, and one is enough.
        !line.contains("width=0)")
            && GROWING
                .iter()
                .any(|table| line.contains(&format!("Seq Scan on {table} ")))
    };
    let whole: Vec<&str> = plans
        .split("Query Text:")
        .filter(|plan| plan.lines().any(reads_whole))
        .collect();
    assert!(whole.is_empty(), "{}", whole.join("\n---\n"));
}

/// What the control plane reads for a request.
async fn ask(store: &crate::Store, tenant: &Tenant) {
    let org = &tenant.org;
    let name = org.as_str();
    let page = PageRequest::default();
    // Who asks.
    store.personal_keys().find(&key_hash(name)).await.unwrap();
    store
        .agents()
        .find_by_key_hash(&key_hash(name))
        .await
        .unwrap();
    store
        .idempotency()
        .begin(org, "p", name, &[1; 32])
        .await
        .unwrap();
    store
        .idempotency()
        .finish(org, "p", name, 200, b"")
        .await
        .unwrap();
    let credentials = store.credentials();
    credentials.find("ada@example.org").await.unwrap();
    let user = UserId::new(START);
    let session = SessionRef {
        org,
        user: &user,
        jti: name,
        epoch: 0,
        key: None,
    };
    store.sessions().find(session).await.unwrap();
    store.ip_rules().list(org).await.unwrap();
    let keys = store.personal_keys();
    keys.list(org, &user, &page).await.unwrap();
    // Lists and look-ups.
    store.users().list(org, &page).await.unwrap();
    store.agents().list(org, &page).await.unwrap();
    store.agents().get(org, &tenant.agent).await.unwrap();
    store.agents().get_by_name(org, "builder").await.unwrap();
    let sets = store.secret_sets();
    sets.list(org, &page).await.unwrap();
    sets.get(org, &tenant.set).await.unwrap();
    sets.get_by_name(org, "stripe", "prod", "bot")
        .await
        .unwrap();
    sets.versions(org, &tenant.set).await.unwrap();
    sets.contents(org, &tenant.set, 1).await.unwrap().unwrap();
    store.grants().list(org, &page).await.unwrap();
    store
        .grants()
        .find_for(org, &tenant.agent, &tenant.set, START)
        .await
        .unwrap();
    store.leases().list(org, None, &page).await.unwrap();
    store
        .leases()
        .list(org, Some(&tenant.agent), &page)
        .await
        .unwrap();
    store
        .seals()
        .page(org, &tenant.vault, None, 64)
        .await
        .unwrap();
    let (secrets, at) = (
        store.secrets(),
        SecretPath::parse("stripe/prod/s7/K").unwrap(),
    );
    let vault = store.vaults().get(org, "default").await.unwrap().unwrap();
    secrets.next_version(org, &vault, &at).await.unwrap();
    secrets.head(org, &vault.id, &at).await.unwrap();
    secrets
        .list(org, &vault.id, "stripe/prod/s1", &page)
        .await
        .unwrap();
    secrets.versions(org, &vault.id, &at, &page).await.unwrap();
    let policies = store.policies();
    let agent = tenant.agent.as_str();
    policies.list(org, &vault.id, &page).await.unwrap();
    policies.find_for(org, &vault.id, agent).await.unwrap();
    policies.vaults_of(org, agent).await.unwrap();
    let shares = store.shares();
    shares.outbound(org, None, &page).await.unwrap();
    shares
        .outbound(org, Some(user.as_str()), &page)
        .await
        .unwrap();
    shares.inbound(user.as_str(), &page).await.unwrap();
    shares.find_by_link(&[1; 32]).await.unwrap();
    let share = ShareId::new(START);
    shares.get(org, &share).await.unwrap();
    shares.get_for(user.as_str(), &share).await.unwrap();
    store.agents().creator(org, &tenant.agent).await.unwrap();
    let filter = EventFilter {
        agent_id: Some(tenant.agent.clone()),
        ..EventFilter::default()
    };
    store.audit().list(org, &filter, &page).await.unwrap();
}

/// What it changes.
async fn change(store: &crate::Store, tenant: &Tenant) {
    let (org, actor) = (&tenant.org, person());
    let name = org.as_str();
    let sets = store.secret_sets();
    update_set(store, tenant, &["STRIPE_SECRET_KEY"]).await;
    let gone = create_set(store, org, "gone", &["B"]).await;
    sets.delete(org, &gone.id, &actor).await.unwrap();
    let vault = store.vaults().get(org, "default").await.unwrap().unwrap();
    let (secrets, at) = (store.secrets(), SecretPath::parse("grown/a").unwrap());
    let new = NewSecret {
        place: secrets.next_version(org, &vault, &at).await.unwrap(),
        sealed: b"sealed".to_vec(),
        kind: "generic".to_owned(),
        metadata: None,
        rotation_policy: None,
        expires_at: None,
        max_reads: None,
    };
    secrets.put(org, new, "secret.write", &actor).await.unwrap();
    let event = NewEvent {
        action: "secret.read",
        ..NewEvent::default()
    };
    secrets
        .take_read(org, &vault.id, &at, None, event, &actor)
        .await
        .unwrap();
    share(store, org, &at).await;
    secrets
        .disable(org, &vault.id, &at, 1, &actor)
        .await
        .unwrap();
    secrets.delete(org, &vault.id, &at, &actor).await.unwrap();
    secrets.restore(org, &vault.id, &at, &actor).await.unwrap();
    let new = new_agent("new", &format!("{name} new"));
    let made = store.agents().create(org, new, &actor).await.unwrap();
    store.agents().delete(org, &made.id, &actor).await.unwrap();
    let switch = store.kill_switch();
    for is_paused in [true, false] {
        switch
            .set_minting(org, None, is_paused, "drill", &actor)
            .await
            .unwrap();
    }
    switch.status(org).await.unwrap();
    approve(store, tenant).await;
}

/// What is shared of a secret, and what becomes of it.
async fn share(store: &crate::Store, org: &OrgId, at: &SecretPath) {
    let owner = NewUser {
        name: "sharer".to_owned(),
        role: Role::Member,
    };
    let owner = store.users().create(org, owner, &person()).await.unwrap();
    let actor = Actor {
        id: owner.id.to_string(),
        ..person()
    };
    let vault = store.vaults().get(org, "default").await.unwrap().unwrap();
    let head = store.secrets().head(org, &vault.id, at).await.unwrap();
    let new = NewShare {
        secret: head.unwrap().current.unwrap().id,
        recipient: Recipient::Email(format!("{}@example.org", owner.id)),
        link_hash: None,
        passphrase: None,
        networks: Vec::new(),
        max_accesses: None,
        expires_at: START + Duration::from_hours(1),
    };
    let shares = store.shares();
    let made = shares.create(org, new, &actor).await.unwrap();
    let reader = User {
        email: made.recipient.email().map(str::to_owned),
        ..owner
    };
    shares.claim(&reader, &actor).await.unwrap();
    let id = reader.id.as_str();
    shares.is_vouched(&made, &reader.id).await.unwrap();
    assert!(shares.accept(&made, id, &actor).await.unwrap());
    assert!(shares.count_try(&made).await.unwrap());
    assert!(shares.open(&made, None, &actor).await.unwrap().is_some());
    shares.revoke(org, &made.id, None, &actor).await.unwrap();
}

/// What is asked of people, and what they do.
async fn approve(store: &crate::Store, tenant: &Tenant) {
    let (org, actor, page) = (&tenant.org, person(), PageRequest::default());
    let approvals = store.approvals();
    let asked = tenant.asked("/v1/refunds", b"");
    let one = approvals.ask(org, &asked, &actor).await.unwrap();
    approvals.ask(org, &asked, &actor).await.unwrap();
    approvals.get(org, None, &one.id).await.unwrap().unwrap();
    for status in [None, Some(ApprovalStatus::Pending)] {
        for agent in [None, Some(&tenant.agent)] {
            approvals.list(org, agent, status, &page).await.unwrap();
        }
    }
    approvals
        .decide(org, &one.id, Verdict::Approve, None, &actor)
        .await
        .unwrap()
        .unwrap();
    let consents = store.consents();
    let question = Question {
        action: "deploy".to_owned(),
        target_type: "service".to_owned(),
        target_id: "web".to_owned(),
        summary: "put it live".to_owned(),
        reason: None,
    };
    let one = consents.ask(org, question, &actor).await.unwrap();
    consents.get(org, None, &one.id).await.unwrap().unwrap();
    for status in [None, Some(ApprovalStatus::Pending)] {
        for agent in [None, Some(&tenant.agent)] {
            consents.list(org, agent, status, &page).await.unwrap();
        }
    }
    let decided = consents.decide(org, &one.id, Verdict::Approve, None, &actor);
    decided.await.unwrap().unwrap();
}

/// What an injector asks and writes for uses, and what ends them.
async fn use_leases(store: &crate::Store, tenant: &Tenant) {
    let (org, actor) = (&tenant.org, person());
    let rate = Rate {
        requests: 9,
        per_seconds: 60,
    };
    let rated = grant(store, org, &tenant.agent, &tenant.set, None, Some(rate)).await;
    let rated = Tenant {
        grant: rated.id,
        ..tenant.clone()
    };
    for kind in [Kind::Request, Kind::Workflow] {
        let request = rated.lease(store, kind).await;
        let holding = Holding {
            org,
            lease: &request.lease,
            agent: &request.agent,
            grant: Some(&request.grant),
            set: Some(&request.set),
            revocation_ids: &request.revocation_ids,
        };
        store.ledger().standing(&holding).await.unwrap();
        let used = store.ledger().record_use(request.clone()).await.unwrap();
        store.ledger().record_outcome(outcome(&request, &used));
        let block = RevocationId::from_bytes(&[kind.as_str().as_bytes()[0]; 64]).unwrap();
        let until = request.expires_at;
        store
            .leases()
            .revoke_block(org, &request.lease, &block, until, &actor)
            .await
            .unwrap();
        store.leases().is_block_revoked(org, &block).await.unwrap();
        store
            .leases()
            .revoke(org, &request.lease, &actor)
            .await
            .unwrap();
    }
    store
        .grants()
        .revoke(org, &rated.grant, &actor)
        .await
        .unwrap();
    let spend = Spend {
        tokens: Some(9),
        usd_micros: None,
        per_seconds: Some(60),
    };
    let budgeted = Tenant {
        grant: grant_with(store, tenant, spend).await,
        ..tenant.clone()
    };
    let request = budgeted.lease(store, Kind::Workflow).await;
    let used = store.ledger().record_use(request.clone()).await.unwrap();
    store.ledger().record_outcome(outcome(&request, &used));
    let told = store.grants().spent(org, &budgeted.grant, START).await;
    assert!(told.unwrap().is_some());
}
