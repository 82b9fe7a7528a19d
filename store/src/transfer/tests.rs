use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use ::leases::RevocationId;
use ::leases::id::{AgentId, BindingId, OrgId, VaultId, WebhookId};
use ::leases::policy::{Conditions, Effect, PathPattern, Permission, Rule};
use ::leases::scope::Kind as LeaseKind;
use serde_json::json;
use test_postgres::{Database, Server};

use super::*;
use crate::audit::verify_offline;
use crate::consents::Question;
use crate::testing::*;
use crate::{
    AgentOidc, AgentSettings, Allowances, AuthMethod, Delivery, Identified, IdentityKeys,
    IdentityPlace, IpRuleKind, NewAccount, NewAgent, NewBinding, NewDeviceLogin, NewEnrolment,
    NewIdentity, NewInvitation, NewIpRule, NewOidcLogin, NewPolicy, NewSealedKey, NewShare,
    NewUser, NewWebhook, OfflineOptions, PageRequest, PasswordDigest, PolicyPrincipal, Rate,
    Recipient, Role, RotationKind, Spend,
};

/// A store with rows in every table, two organisations in each, closed.
async fn full() -> (World, [Tenant; 2]) {
    let world = World::new().await;
    world.sign();
    let mut tenants = Vec::new();
    for name in ["one", "other"] {
        let tenant = tenant(&world.store, name).await;
        fill(&world, &tenant).await;
        tenants.push(tenant);
    }
    world.store.close().await;
    (world, tenants.try_into().unwrap())
}

/// What agents leave behind.
async fn fill_agents(store: &Store, tenant: &Tenant) {
    let digest = key_hash(tenant.org.as_str());
    let until = START + Duration::from_mins(5);
    let nonces = store.nonces();
    nonces.take(&tenant.agent, &digest, until).await.unwrap();
    let new = NewEnrolment {
        name: "enrolled".to_owned(),
        description: None,
        email: format!("nobody@{}", tenant.org),
        source: [192, 0, 2, 7].into(),
    };
    let enrolments = store.enrolments();
    enrolments.begin(new, &tenant.org, &person()).await.unwrap();
}

/// A name by which an agent sends.
async fn fill_bindings(store: &Store, tenant: &Tenant) {
    let binding = NewBinding {
        id: BindingId::new(START),
        agent_id: tenant.agent.clone(),
        name: "payments".to_owned(),
        kind: "http".to_owned(),
        config: json!({"base_url": "https://api.example.org"}),
        guardrails: json!({}),
        set: tenant.set.clone(),
        grant: tenant.grant.clone(),
        source: None,
    };
    let bindings = store.bindings();
    let org = &tenant.org;
    bindings.create(org, binding, &person()).await.unwrap();
}

async fn fill_policies(store: &Store, tenant: &Tenant) {
    let org = &tenant.org;
    let rule = Rule {
        pattern: PathPattern::default(),
        permissions: vec![Permission::Read],
        effect: Effect::Allow,
        priority: 1,
        conditions: Conditions::default(),
        environments: vec!["prod".to_owned()],
        expires_at: Some(START),
    };
    let policy = NewPolicy {
        principal: PolicyPrincipal::Agent(tenant.agent.clone()),
        rule,
    };
    store
        .policies()
        .create(org, &tenant.vault, policy, &person())
        .await
        .unwrap();
}

async fn fill(world: &World, tenant: &Tenant) {
    let (store, org) = (&world.store, &tenant.org);
    let user = NewUser {
        name: "ada \u{1F511} \"quoted\"".to_owned(),
        role: Role::Admin,
    };
    let user = store.users().create(org, user, &person()).await.unwrap();
    let key = key_hash(org.as_str());
    store
        .users()
        .add_key(org, &user.id, &key, &person())
        .await
        .unwrap();
    fill_people(world, tenant).await;
    fill_workload(world, tenant).await;
    update_set(store, tenant, &["STRIPE_SECRET_KEY", "A"]).await;
    let gone = create_set(store, org, "gone", &["B"]).await;
    store
        .secret_sets()
        .delete(org, &gone.id, &person())
        .await
        .unwrap();
    let key = NewSealedKey {
        kek_id: None,
        name: "jwt".to_owned(),
        version: 1,
        sealed: (0..=255).collect(),
        public: Vec::new(),
    };
    store.sealed_keys().put(org, key, &person()).await.unwrap();
    let keys = store.idempotency();
    keys.begin(org, "usr_a", "k", &[1; 32]).await.unwrap();
    keys.finish(org, "usr_a", "k", 201, b"sealed answer")
        .await
        .unwrap();
    fill_policies(store, tenant).await;
    fill_agents(store, tenant).await;
    let rate = Rate {
        requests: 9,
        per_seconds: 60,
    };
    let grant = grant(store, org, &tenant.agent, &tenant.set, None, Some(rate)).await;
    let rated = Tenant {
        grant: grant.id,
        ..tenant.clone()
    };
    let spend = Spend {
        tokens: Some(9),
        usd_micros: None,
        per_seconds: None,
    };
    grant_with(store, tenant, spend).await;
    fill_bindings(store, &rated).await;
    let request = rated.lease(store, LeaseKind::Workflow).await;
    let recorded = store.ledger().record_use(request.clone()).await.unwrap();
    store.ledger().record_outcome(outcome(&request, &recorded));
    let block = RevocationId::from_bytes(&key_hash(org.as_str()).repeat(2));
    store
        .leases()
        .revoke_block(
            org,
            &request.lease,
            &block.unwrap(),
            request.expires_at,
            &person(),
        )
        .await
        .unwrap();
    for is_paused in [true, false] {
        store
            .kill_switch()
            .set_minting(org, Some(&tenant.agent), is_paused, "drill", &person())
            .await
            .unwrap();
    }
    let asked = tenant.asked("/v1/refunds", b"");
    store.approvals().ask(org, &asked, &person()).await.unwrap();
    let question = Question {
        action: "deploy".to_owned(),
        target_type: "service".to_owned(),
        target_id: "web".to_owned(),
        summary: "put it live".to_owned(),
        reason: None,
    };
    let consents = store.consents();
    consents.ask(org, question, &person()).await.unwrap();
    store
        .rotations()
        .start(org, &tenant.vault, RotationKind::Rewrap, 2, &person())
        .await
        .unwrap();
    fill_webhooks(store, org).await;
}

async fn fill_webhooks(store: &crate::Store, org: &OrgId) {
    let id = WebhookId::new(START);
    let new = NewWebhook {
        secret: NewSealedKey {
            name: crate::webhooks::secret_name(&id),
            version: 1,
            sealed: b"sealed".to_vec(),
            public: Vec::new(),
            kek_id: None,
        },
        id,
        url: "https://hooks.example.org/".to_owned(),
        events: vec!["*".to_owned()],
        description: None,
    };
    let made = store.webhooks().create(org, new, &person()).await.unwrap();
    let delivery = Delivery {
        number: 1,
        event_id: "evt_1".to_owned(),
        action: "webhook.create".to_owned(),
        attempts: 1,
        attempted_at: START,
        duration_ms: 5,
        status: None,
        error: Some("no connection".to_owned()),
    };
    let sinks = store.sinks();
    assert!(sinks.claim(&made.sink).await.unwrap());
    let moved = sinks.advance(&made.sink, &made.sink, &[delivery]).await;
    assert!(moved.unwrap());
}

async fn fill_people(world: &World, tenant: &Tenant) {
    let (store, org, actor) = (&world.store, &tenant.org, person());
    let hash = |what: &str| key_hash(&format!("{org} {what}"));
    let owner = NewAccount {
        email: format!("ada@{org}.example").to_lowercase(),
        display_name: None,
        role: Role::Owner,
        password: PasswordDigest("$argon2id$".to_owned()),
    };
    let owner = store.credentials().create(org, owner, &actor).await;
    let owner = owner.unwrap().id;
    let until = START + Duration::from_mins(1);
    let sessions = store.sessions();
    let jti = format!("jti of {org}");
    sessions.revoke(org, &jti, until, &actor).await.unwrap();
    let invitation = NewInvitation {
        email: "grace@example.org".to_owned(),
        role: Role::Member,
        token_hash: hash("invitation"),
        expires_at: until,
    };
    let invitations = store.invitations();
    let made = invitations.create(org, invitation, &owner, &actor).await;
    made.unwrap();
    let entries = store
        .secrets()
        .list(org, &tenant.vault, "", &PageRequest::default())
        .await;
    let share = NewShare {
        secret: entries.unwrap().items[0].id.clone(),
        recipient: Recipient::Email("grace@example.org".to_owned()),
        link_hash: Some(hash("link")),
        passphrase: Some(PasswordDigest("$argon2id$".to_owned())),
        networks: vec!["192.0.2.0/24".to_owned()],
        max_accesses: Some(5),
        expires_at: until,
    };
    store.shares().create(org, share, &actor).await.unwrap();
    let quotas = store.quotas();
    let allowed = quotas.allow(org, Allowances::default(), &actor).await;
    assert!(allowed.unwrap());
    let counted = store.requests().admit(org, false).await.unwrap();
    counted.unwrap();
    store.requests().flush().await.unwrap();
    let rule = NewIpRule {
        kind: IpRuleKind::Block,
        cidr: "192.0.2.0/24".to_owned(),
        description: String::new(),
    };
    let made = store.ip_rules().create(org, rule, &actor, |_| true).await;
    made.unwrap();
    let factors = store.second_factors();
    assert!(factors.set_up(org, &owner, 1, &actor).await.unwrap());
    let codes = [hash("recovery")];
    let enabled = factors
        .take_step(org, &owner, (1, 7), Some(&codes), &actor)
        .await;
    assert!(enabled.unwrap());
    let device = NewDeviceLogin {
        device_hash: hash("device"),
        user_code: org.to_string(),
        lifetime: Duration::from_mins(10),
        interval: Duration::from_secs(5),
    };
    assert!(store.device_logins().begin(device).await.unwrap());
    let who = Identified {
        issuer: "https://id.example.org".to_owned(),
        subject: org.to_string(),
        email: None,
    };
    let linked = store.identities().link(org, &owner, &who, &actor).await;
    linked.unwrap();
    let login = NewOidcLogin {
        flow_hash: hash("flow"),
        redirect_uri: "http://127.0.0.1:7/callback".to_owned(),
        lifetime: Duration::from_mins(10),
        link_to: Some((org.clone(), owner)),
    };
    let logins = store.oidc_logins();
    assert!(logins.begin(login).await.unwrap());
    assert!(logins.take_token(&hash("token"), until).await.unwrap());
}

async fn fill_workload(world: &World, tenant: &Tenant) {
    let agent = NewAgent {
        name: "ci".to_owned(),
        settings: AgentSettings {
            auth_method: AuthMethod::OidcClientCredentials,
            oidc: Some(AgentOidc {
                issuer: "https://id.example.org".to_owned(),
                client_id: "ci".to_owned(),
                audience: None,
            }),
            ..AgentSettings::default()
        },
        identity: Some(NewIdentity {
            place: IdentityPlace {
                agent: AgentId::new(START),
                vault: VaultId::new(START),
                kek_id: "kek".to_owned(),
                version: 1,
            },
            public: IdentityKeys {
                ssh: [7; 32],
                ecdh: [7; 65],
            },
            ssh_sealed: b"sealed".to_vec(),
            ecdh_sealed: b"sealed".to_vec(),
        }),
        ..NewAgent::default()
    };
    let agents = world.store.agents();
    agents.create(&tenant.org, agent, &person()).await.unwrap();
}

fn file(world: &World, name: &str) -> PathBuf {
    world.directory.path().join(name)
}

async fn export(world: &World, name: &str) -> TransferCounts {
    export_database(&world.location(), &world.checkpoint(), &file(world, name))
        .await
        .unwrap()
}

fn location(database: &Database<'_>) -> Location {
    Location::parse(&database.url()).unwrap()
}

#[tokio::test]
async fn every_row_arrives_as_it_was_and_the_trail_verifies_there() {
    let (world, tenants) = full().await;
    let exported = export(&world, "export").await;
    assert!(
        exported.tables.iter().all(|(_, rows)| *rows > 0),
        "{exported:?}"
    );
    assert_eq!(exported.of("orgs"), 2);
    let database = Server::shared().database();
    let into = location(&database);
    let checkpoint = file(&world, "moved.checkpoint");
    let imported = import_database(&file(&world, "export"), &into, &checkpoint).await;
    assert_eq!(imported.unwrap(), exported);
    assert_eq!(
        fs::read(&checkpoint).unwrap(),
        fs::read(world.checkpoint()).unwrap()
    );
    let report = verify_offline(&into, &checkpoint, &OfflineOptions::default())
        .await
        .unwrap();
    assert!(report.is_intact(), "{report:?}");
    assert!(
        report
            .streams
            .iter()
            .all(|stream| stream.checkpoint_seq == Some(stream.events))
    );
    // Exported from there, it is the same file again.
    export_database(&into, &checkpoint, &file(&world, "again"))
        .await
        .unwrap();
    let (first, again) = (file(&world, "export"), file(&world, "again"));
    assert!(fs::read(first).unwrap() == fs::read(again).unwrap());
    // And it is in working order: the trail goes on.
    let directory = tempfile::tempdir().unwrap();
    let store = open_at(into, &directory, &world.clock).await;
    for tenant in &tenants {
        let contents = store
            .secret_sets()
            .contents(&tenant.org, &tenant.set, 2)
            .await;
        assert_eq!(contents.unwrap().unwrap().entries.len(), 2);
        let new = new_agent("later", tenant.org.as_str());
        let agents = store.agents();
        agents.create(&tenant.org, new, &person()).await.unwrap();
    }
    assert!(store.audit().verify().await.unwrap().is_intact());
    store.close().await;
}

#[tokio::test]
async fn an_installation_can_move_back_into_a_file() {
    let (world, _) = full().await;
    let exported = export(&world, "export").await;
    let back = Location::Sqlite(file(&world, "back.db"));
    let checkpoint = file(&world, "back.checkpoint");
    let imported = import_database(&file(&world, "export"), &back, &checkpoint).await;
    assert_eq!(imported.unwrap(), exported);
    export_database(&back, &checkpoint, &file(&world, "again"))
        .await
        .unwrap();
    let (first, again) = (file(&world, "export"), file(&world, "again"));
    assert!(fs::read(first).unwrap() == fs::read(again).unwrap());
}

#[tokio::test]
async fn an_export_is_its_owners_alone_and_replaces_nothing() {
    let (world, _) = full().await;
    export(&world, "export").await;
    let mode = fs::metadata(file(&world, "export"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(file(&world, "export")).unwrap();
    let again = export_database(
        &world.location(),
        &world.checkpoint(),
        &file(&world, "export"),
    )
    .await;
    assert!(matches!(again, Err(TransferError::File { .. })));
    assert!(fs::read(file(&world, "export")).unwrap() == before);
    let nowhere = Location::Sqlite(file(&world, "none.db"));
    let refused = export_database(&nowhere, &world.checkpoint(), &file(&world, "other")).await;
    assert!(matches!(refused, Err(TransferError::File { .. })));
    assert!(!file(&world, "none.db").exists());
}

#[tokio::test]
async fn a_database_that_a_server_has_open_is_not_exported() {
    let world = World::new().await;
    tenant(&world.store, "one").await;
    let refused = export_database(
        &world.location(),
        &world.checkpoint(),
        &file(&world, "export"),
    )
    .await;
    assert!(matches!(
        refused,
        Err(TransferError::Open(OpenError::InUse { .. }))
    ));
    assert!(!file(&world, "export").exists());
}

#[tokio::test]
async fn a_database_that_a_node_runs_on_is_not_exported_until_it_has_ended() {
    let world = World::on_postgres().await;
    let refused = export_database(
        &world.location(),
        &world.checkpoint(),
        &file(&world, "export"),
    )
    .await;
    let refused = refused.unwrap_err();
    assert!(
        matches!(&refused, TransferError::Running { node, .. } if node == "local"),
        "{refused:?}"
    );
    assert!(!file(&world, "export").exists());
    world.store.close().await;
    export(&world, "export").await;
    // Nor after a crash, until it has been silent for a minute.
    world.tamper("UPDATE nodes SET ended_at = NULL");
    let again = export_database(
        &world.location(),
        &world.checkpoint(),
        &file(&world, "again"),
    )
    .await;
    assert!(matches!(again, Err(TransferError::Running { .. })));
    world.tamper("UPDATE nodes SET heartbeat = heartbeat - 61000");
    export(&world, "again").await;
}

#[tokio::test]
async fn a_lease_that_had_not_ended_is_revoked_by_the_import() {
    let world = World::new().await;
    let one = tenant(&world.store, "one").await;
    let now = SystemClock.now();
    let mut good = one.new_lease(LeaseKind::Request);
    good.expires_at = now + std::time::Duration::from_hours(1);
    let good = world
        .store
        .leases()
        .create(&one.org, good, &person())
        .await
        .unwrap();
    let mut ended = one.new_lease(LeaseKind::Request);
    ended.expires_at = now - std::time::Duration::from_secs(1);
    let ended = world
        .store
        .leases()
        .create(&one.org, ended, &person())
        .await
        .unwrap();
    world.store.close().await;
    export(&world, "export").await;
    let database = Server::shared().database();
    let back = Location::Sqlite(file(&world, "back.db"));
    for (into, checkpoint) in [(location(&database), "a"), (back, "b")] {
        let (from, checkpoint) = (file(&world, "export"), file(&world, checkpoint));
        let imported = import_database(&from, &into, &checkpoint).await.unwrap();
        assert_eq!(imported.revoked_leases, 1);
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(::leases::clock::ManualClock::new(now));
        let store = open_at(into, &directory, &clock).await;
        let refused = store.ledger().record_use(one.use_of(&good)).await;
        assert!(
            matches!(refused, Err(crate::UseRefusal::LeaseRevoked { .. })),
            "{refused:?}"
        );
        let found = store.leases().get(&one.org, &ended.id).await.unwrap();
        assert_eq!(found.unwrap().revoked_at, None);
        store.close().await;
    }
}

#[tokio::test]
async fn only_an_empty_database_takes_an_import() {
    let (world, _) = full().await;
    export(&world, "export").await;
    let (clean, used) = (World::on_postgres().await, World::on_postgres().await);
    tenant(&used.store, "theirs").await;
    // One that a server has opened has its streams, if nothing else.
    for (target, first) in [(&used, "orgs"), (&clean, "ledger_state")] {
        let before = target
            .postgres
            .as_ref()
            .unwrap()
            .admin("SELECT COUNT(*) FROM audit_events");
        let into = target.location();
        let refused = import_database(&file(&world, "export"), &into, &file(&world, "c")).await;
        let refused = refused.unwrap_err();
        assert!(
            matches!(&refused, TransferError::NotEmpty { table, .. } if *table == first),
            "{refused:?}"
        );
        assert!(!refused.to_string().contains(test_postgres::PASSWORD));
        let after = target
            .postgres
            .as_ref()
            .unwrap()
            .admin("SELECT COUNT(*) FROM audit_events");
        assert_eq!(before, after);
    }
    assert!(!file(&world, "c").exists());
}

#[tokio::test]
async fn a_file_that_is_not_whole_changes_nothing() {
    let (world, _) = full().await;
    export(&world, "export").await;
    let whole = fs::read_to_string(file(&world, "export")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let without_last = lines[..lines.len() - 1].join("\n") + "\n";
    let last = lines.len() - 1;
    // The last of the trail, which no other row refers to.
    let without_one = [&lines[..last - 1], &lines[last..]].concat().join("\n") + "\n";
    let damaged = [
        ("an edit", whole.replacen("builder", "bu1lder", 1)),
        ("no end", without_last),
        ("half a line", whole[..whole.len() - 10].to_owned()),
        ("a row less", without_one),
        ("more after the end", format!("{whole}{}\n", lines[3])),
        ("another format", whole.replacen("export", "report", 1)),
        (
            "another table",
            whole.replacen("[\"users\"", "[\"pg_authid\"", 2),
        ),
        ("nothing", String::new()),
    ];
    let database = Server::shared().database();
    let into = location(&database);
    for (what, text) in damaged {
        let path = file(&world, "damaged");
        fs::write(&path, text).unwrap();
        let refused = import_database(&path, &into, &file(&world, "c")).await;
        assert!(
            matches!(refused, Err(TransferError::Damaged { .. })),
            "{what}: {refused:?}"
        );
        let rows = database
            .admin("SELECT (SELECT COUNT(*) FROM orgs) + (SELECT COUNT(*) FROM audit_events)");
        assert_eq!(rows.trim(), "0", "{what}");
    }
    import_database(&file(&world, "export"), &into, &file(&world, "c"))
        .await
        .unwrap();
}

#[tokio::test]
async fn no_table_and_no_column_is_left_behind() {
    let world = World::new().await;
    let intruder = world.intruder();
    let mut query = intruder
        .prepare(
            "SELECT m.name || '.' || c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE '_sqlx_%'",
        )
        .unwrap();
    let sqlite: BTreeSet<String> = query
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let moved: BTreeSet<String> = TABLES
        .iter()
        .flat_map(|table| {
            table
                .columns
                .iter()
                .map(|(column, _)| format!("{}.{column}", table.name))
        })
        .collect();
    assert_eq!(sqlite, moved);
    let database = Server::shared().database();
    Store::migrate(&location(&database)).await.unwrap();
    let columns = database.admin(
        "SELECT table_name || '.' || column_name FROM information_schema.columns \
         WHERE table_schema = 'public' AND table_name NOT IN \
         ('schema_migrations', 'ledger_changes', 'nodes')",
    );
    // Of a run of a process, not of the installation.
    let only_there = [
        "audit_streams.writer",
        "audit_streams.owner",
        "audit_streams.time_seen",
    ];
    let postgres: BTreeSet<String> = columns
        .lines()
        .filter(|column| !only_there.contains(column))
        .map(str::to_owned)
        .collect();
    assert_eq!(postgres, moved);
}
