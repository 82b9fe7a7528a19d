//! Identity keys of agents: made with the agent, sealed in a vault of the service's own, rotated by people, read by nobody whom
//! no person lets.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::SecretKey;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::pkcs8::DecodePrivateKey as _;
use serde_json::{Value, json};
use ssh_key::PrivateKey;
use store::Role;
use vault::KeyWrapper;

use crate::doubles::Distant;
use crate::support::{Base, Setup, Who, World, holder, person};

const VAULT: &str = "/v1/vaults/__agent-keys";
const OWN_VAULT: &str = "/v1/org/agent-keys-vault";

fn private(agent: &str, key: &str) -> String {
    format!("{VAULT}/secrets/agents/{agent}/{key}/private_key")
}

async fn shown(world: &World, agent: &str) -> Value {
    let path = format!("/v1/agents/{agent}");
    world.get(&path, &world.home.admin).await.ok(200)
}

/// The raw public halves of the private ones that a person reads.
async fn publics(world: &World, agent: &str) -> (String, String) {
    let read = |key: &'static str| async move {
        let path = private(agent, key);
        world.get(&path, &world.home.admin).await.ok(200)
    };
    let ssh = read("ssh").await;
    assert_eq!(ssh["type"], "ssh_key");
    let ssh = PrivateKey::from_openssh(ssh["value"].as_str().unwrap()).unwrap();
    let ssh = ssh.public_key().key_data().ed25519().unwrap().0;
    let ecdh = read("ecdh").await;
    assert_eq!(ecdh["type"], "private_key");
    let ecdh = SecretKey::from_pkcs8_pem(ecdh["value"].as_str().unwrap()).unwrap();
    let ecdh = ecdh.public_key().to_encoded_point(false);
    (STANDARD.encode(ssh), STANDARD.encode(ecdh.as_bytes()))
}

async fn count(world: &World, path: &str, field: &str) -> usize {
    let page = world.get(path, &world.home.admin).await.ok(200);
    page[field].as_array().unwrap().len()
}

#[tokio::test]
async fn an_agent_comes_with_keys_whose_private_halves_lie_sealed_in_the_services_vault() {
    for base in [Base::File, Base::Postgres] {
        let world = World::of(Setup {
            base,
            ..Setup::default()
        })
        .await;
        let admin = &world.home.admin;
        let detail = world.get(OWN_VAULT, admin).await.refused(404, "not_found");
        assert!(detail.contains("first agent"), "{detail}");
        let made = world.post("/v1/agents", admin, json!({"name": "bot"}));
        let made = made.await.ok(201);
        let id = made["agent"]["id"].as_str().unwrap();
        let (ssh, ecdh) = publics(&world, id).await;
        assert_eq!(made["agent"]["ssh_public_key"], ssh.as_str());
        assert_eq!(made["agent"]["ecdh_public_key"], ecdh.as_str());
        assert_eq!(shown(&world, id).await, made["agent"]);
        let key = holder(made["api_key"].as_str().unwrap());
        let own = world.get("/v1/agents/me", &key).await.ok(200);
        assert_eq!(own["ssh_public_key"], ssh.as_str());

        let vault = world.get(OWN_VAULT, admin).await.ok(200);
        assert_eq!(vault["name"], "__agent-keys");
        assert_eq!(vault["created_by_type"], "system");
        assert_eq!(vault["is_default"], false);
        assert_eq!(world.get(VAULT, admin).await.ok(200), vault);
        let listed = world.get("/v1/vaults", admin).await.ok(200);
        assert!(listed["vaults"].as_array().unwrap().contains(&vault));
        // One vault for all agents, and one of its own for each organisation.
        world.agent(admin, "second").await;
        assert_eq!(count(&world, "/v1/vaults", "vaults").await, 2);
        assert_eq!(
            count(&world, &format!("{VAULT}/secrets"), "secrets").await,
            4
        );
        let stranger = &world.other.admin;
        world
            .get(OWN_VAULT, stranger)
            .await
            .refused(404, "not_found");
        world
            .get(&private(id, "ssh"), stranger)
            .await
            .refused(404, "not_found");
    }
}

#[tokio::test]
async fn an_agent_that_a_person_approves_has_keys_too() {
    let world = World::new().await;
    let (_, ada) = world.person("ada@example.org", "member").await;
    let asked = json!({"name": "bot", "human_email": "ada@example.org"});
    let asked = world.post("/v1/agents/enroll", &Who(None), asked).await;
    // Nothing is made for who waits.
    let admin = &world.home.admin;
    world.get(OWN_VAULT, admin).await.refused(404, "not_found");
    let approve = asked.field("/approval_url");
    let missing = "/v1/agents/enrolments/enr_01ARZ3NDEKTSV4RRFFQ69G5FAV/approve";
    world
        .post(missing, &ada, json!({}))
        .await
        .refused(404, "not_found");
    let made = world.post(&approve, &ada, json!({})).await.ok(200);
    let id = made["agent"]["id"].as_str().unwrap();
    let (ssh, ecdh) = publics(&world, id).await;
    assert_eq!(made["agent"]["ssh_public_key"], ssh.as_str());
    assert_eq!(made["agent"]["ecdh_public_key"], ecdh.as_str());
}

#[tokio::test]
async fn people_rotate_the_keys_and_agents_do_not() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let (id, agent) = world.agent(admin, "bot").await;
    let before = shown(&world, &id).await;
    let rotate = format!("/v1/agents/{id}/rotate-identity-keys");
    let auditor = person(&world.store, &world.home.org, "auditor", Role::Auditor).await;
    for who in [&agent, &auditor] {
        world
            .post(&rotate, who, json!({}))
            .await
            .refused(403, "forbidden");
    }
    world
        .post(&rotate, &world.other.admin, json!({}))
        .await
        .refused(404, "not_found");
    assert_eq!(shown(&world, &id).await, before);

    let rotated = world.post(&rotate, admin, json!({})).await.ok(200);
    assert_eq!(shown(&world, &id).await, rotated);
    for key in ["ssh_public_key", "ecdh_public_key"] {
        assert_ne!(rotated[key], before[key]);
    }
    let (ssh, ecdh) = publics(&world, &id).await;
    assert_eq!(rotated["ssh_public_key"], ssh.as_str());
    assert_eq!(rotated["ecdh_public_key"], ecdh.as_str());
    // What was sealed to the old keys can still be opened by whoever may read them.
    let old = format!("{VAULT}/secret-version/agents/{id}/ssh/private_key/1");
    let old = world.get(&old, admin).await.ok(200);
    let old = PrivateKey::from_openssh(old["value"].as_str().unwrap()).unwrap();
    let old = old.public_key().key_data().ed25519().unwrap().0;
    assert_eq!(before["ssh_public_key"], STANDARD.encode(old));
    // What the agent authenticates by is another thing.
    world.get("/v1/agents/me", &agent).await.ok(200);
    let told = world
        .events("?action=agent.rotate_identity_keys")
        .await
        .len();
    assert_eq!(told, 1);
}

#[tokio::test]
async fn an_agent_reads_its_own_keys_only_as_a_policy_lets_it() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let (id, agent) = world.agent(admin, "bot").await;
    let (other, _) = world.agent(admin, "other").await;
    for path in [VAULT.to_owned(), private(&id, "ssh"), private(&id, "ecdh")] {
        world.get(&path, &agent).await.refused(404, "not_found");
    }
    let listed = world.get("/v1/vaults", &agent).await.ok(200);
    assert_eq!(listed["vaults"], json!([]));
    let policy = json!({
        "principal_type": "agent", "principal_id": id,
        "secret_path_pattern": format!("agents/{id}/**"), "permissions": ["read", "write", "delete"],
    });
    let policies = format!("{VAULT}/policies");
    let policy = world.post(&policies, admin, policy).await.ok(201);
    assert_eq!(policy["export"], true);
    world.get(&private(&id, "ssh"), &agent).await.ok(200);
    world
        .get(&private(&other, "ssh"), &agent)
        .await
        .refused(403, "policy_denied");
    // Whatever the policy says, it writes nothing there.
    let value = json!({"value": "mine"});
    world
        .put(&private(&id, "ssh"), &agent, value)
        .await
        .refused(409, "vault_reserved");
    world
        .delete(&private(&id, "ssh"), &agent)
        .await
        .refused(409, "vault_reserved");
    // One that is bound to other vaults does not reach this one.
    let default = world.get("/v1/vaults/default", admin).await.field("/id");
    world
        .patch(
            &format!("/v1/agents/{id}"),
            admin,
            json!({"vault_ids": [default]}),
        )
        .await
        .ok(200);
    let refused = world.get(&private(&id, "ssh"), &agent).await;
    assert_eq!(refused.status.as_u16(), 403, "{}", refused.text);
}

#[tokio::test]
async fn nobody_makes_deletes_or_writes_to_the_vault() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let named = json!({"name": "__agent-keys"});
    world
        .post("/v1/vaults", admin, named.clone())
        .await
        .refused(409, "vault_reserved");
    let (id, _) = world.agent(admin, "bot").await;
    world
        .post("/v1/vaults", admin, named)
        .await
        .refused(409, "vault_reserved");
    world
        .delete(VAULT, admin)
        .await
        .refused(409, "vault_reserved");
    let before = publics(&world, &id).await;
    for path in [private(&id, "ssh"), format!("{VAULT}/secrets/mine")] {
        let value = json!({"value": "mine"});
        let detail = world.put(&path, admin, value).await;
        let detail = detail.refused(409, "vault_reserved");
        assert!(detail.contains("rotate-identity-keys"), "{detail}");
    }
    world
        .delete(&private(&id, "ssh"), admin)
        .await
        .refused(409, "vault_reserved");
    let secret = format!("agents/{id}/ssh/private_key");
    for path in [
        format!("{VAULT}/secret-rotate/{secret}"),
        format!("{VAULT}/secret-restore/{secret}"),
        format!("{VAULT}/secret-version-disable/{secret}/1"),
    ] {
        world
            .post(&path, admin, json!({}))
            .await
            .refused(409, "vault_reserved");
    }
    assert_eq!(publics(&world, &id).await, before);
}

#[tokio::test]
async fn an_agents_keys_are_gone_with_it() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let (first, _) = world.agent(admin, "first").await;
    let (second, _) = world.agent(admin, "second").await;
    let (third, _) = world.agent(admin, "third").await;
    world
        .delete(&format!("/v1/agents/{first}"), admin)
        .await
        .ok(204);
    let both = json!({"agent_ids": [second]});
    world
        .post("/v1/agents/batch-delete", admin, both)
        .await
        .ok(200);
    for gone in [&first, &second] {
        for key in ["ssh", "ecdh"] {
            world
                .get(&private(gone, key), admin)
                .await
                .refused(410, "secret_gone");
        }
        world
            .post(
                &format!("/v1/agents/{gone}/rotate-identity-keys"),
                admin,
                json!({}),
            )
            .await
            .refused(404, "not_found");
    }
    publics(&world, &third).await;
}

#[tokio::test]
async fn without_the_key_provider_there_is_no_agent_and_nothing_of_one() {
    let distant = Distant::new("distant");
    let world = World::of(Setup {
        wrapper: Some(Arc::clone(&distant) as Arc<dyn KeyWrapper>),
        ..Setup::default()
    })
    .await;
    let admin = &world.home.admin;
    let bot = json!({"name": "bot"});
    distant.away.store(true, Ordering::SeqCst);
    world
        .post("/v1/agents", admin, bot.clone())
        .await
        .refused(503, "key_unavailable");
    assert_eq!(count(&world, "/v1/agents", "agents").await, 0);
    world.get(OWN_VAULT, admin).await.refused(404, "not_found");
    distant.away.store(false, Ordering::SeqCst);
    let made = world.post("/v1/agents", admin, bot).await.ok(201);
    let id = made["agent"]["id"].as_str().unwrap();

    // With the vault there, it is the seal that fails.
    distant.away.store(true, Ordering::SeqCst);
    let second = world.post("/v1/agents", admin, json!({"name": "second"}));
    second.await.refused(503, "key_unavailable");
    let rotate = format!("/v1/agents/{id}/rotate-identity-keys");
    world
        .post(&rotate, admin, json!({}))
        .await
        .refused(503, "key_unavailable");
    distant.away.store(false, Ordering::SeqCst);
    assert_eq!(count(&world, "/v1/agents", "agents").await, 1);
    assert_eq!(shown(&world, id).await, made["agent"]);
    assert_eq!(
        count(&world, &format!("{VAULT}/secrets"), "secrets").await,
        2
    );
}

#[tokio::test]
async fn first_agents_that_race_share_one_vault() {
    let world = World::new().await;
    let names: Vec<String> = (0..4).map(|nth| format!("bot-{nth}")).collect();
    let made = names.iter().map(|name| {
        let body = json!({"name": name});
        world.post("/v1/agents", &world.home.admin, body)
    });
    for made in futures::future::join_all(made).await {
        let made = made.ok(201);
        let (ssh, _) = publics(&world, made["agent"]["id"].as_str().unwrap()).await;
        assert_eq!(made["agent"]["ssh_public_key"], ssh.as_str());
    }
    assert_eq!(count(&world, "/v1/vaults", "vaults").await, 2);
}

#[tokio::test]
async fn a_private_key_is_in_no_answer_and_no_row_but_its_seal() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let (id, _) = world.agent(admin, "bot").await;
    let rotate = format!("/v1/agents/{id}/rotate-identity-keys");
    world.post(&rotate, admin, json!({})).await.ok(200);
    let trail = world.get("/v1/audit/export", admin).await.text;
    let answers = world.seen.lock().unwrap().join("\n") + &trail;
    assert!(!answers.contains("PRIVATE KEY"));
    let ssh = world.get(&private(&id, "ssh"), admin).await.ok(200);
    let ssh = PrivateKey::from_openssh(ssh["value"].as_str().unwrap()).unwrap();
    let seed = ssh.key_data().ed25519().unwrap().private.to_bytes();
    let mut database = Vec::new();
    for file in ["claviger.db", "claviger.db-wal"] {
        database.extend(std::fs::read(world.dir.path().join(file)).unwrap_or_default());
    }
    let holds = |needle: &[u8]| database.windows(needle.len()).any(|at| at == needle);
    // The search finds what is there.
    let public = ssh.public_key().key_data().ed25519().unwrap().0;
    assert!(holds(&public));
    for needle in [&seed[..], STANDARD.encode(seed).as_bytes(), b"PRIVATE KEY"] {
        assert!(!holds(needle));
    }
}
