//! Policies: what agents get, what people lose, and that each change is in force for the next request.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::Method;
use serde_json::{Value, json};
use store::Role;

use crate::support::{Answer, CANARY, Who, World, nobody, person, request};

struct Scene {
    world: World,
    vault: String,
    agent_id: String,
    agent: Who,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let admin = world.home.admin.clone();
        let vault = world
            .post("/v1/vaults", &admin, json!({"name": "v"}))
            .await
            .field("/id");
        let (agent_id, agent) = world.agent(&admin, "bot").await;
        let scene = Self {
            world,
            vault: format!("/v1/vaults/{vault}"),
            agent_id,
            agent,
        };
        for path in ["a/b", "a/prod/c", "z"] {
            scene.put(path, &admin).await.ok(201);
        }
        scene
    }

    async fn put(&self, path: &str, who: &Who) -> Answer {
        let path = format!("{}/secrets/{path}", self.vault);
        self.world.put(&path, who, json!({"value": CANARY})).await
    }

    async fn read(&self, path: &str) -> Answer {
        let path = format!("{}/secrets/{path}", self.vault);
        self.world.get(&path, &self.agent).await
    }

    async fn policy(&self, more: Value) -> Answer {
        let mut body = json!({
            "principal_type": "agent", "principal_id": self.agent_id,
            "secret_path_pattern": "a/**", "permissions": ["read"],
        });
        let fields = body.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let path = format!("{}/policies", self.vault);
        self.world.post(&path, &self.world.home.admin, body).await
    }
}

#[tokio::test]
async fn an_agent_reads_by_policy_alone_and_each_read_is_on_record() {
    let scene = Scene::new().await;
    scene.read("a/b").await.refused(404, "not_found");
    let policy = scene.policy(json!({})).await.ok(201);
    assert_eq!(policy["export"], true);
    assert_eq!(policy["effect"], "allow");
    assert_eq!(policy["priority"], 0);
    assert_eq!(policy["status"], "active");
    let key = scene.agent.0.clone().unwrap();
    let token = json!({"api_key": key});
    let token = scene
        .world
        .post("/v1/auth/agent-token", &nobody(), token)
        .await
        .ok(200);
    assert_eq!(
        token["vault_ids"][1],
        scene.vault.rsplit('/').next().unwrap()
    );
    let read = scene.read("a/b").await;
    assert_eq!(read.headers["cache-control"], "no-store");
    assert_eq!(read.ok(200)["value"], CANARY);
    // What is there and what is not look alike outside of its paths.
    for path in ["z", "never/was"] {
        let detail = scene.read(path).await.refused(403, "policy_denied");
        assert!(detail.contains(path), "{detail}");
    }
    scene.read("a/never").await.refused(404, "not_found");
    scene
        .put("a/b", &scene.agent)
        .await
        .refused(403, "policy_denied");
    let listed = scene
        .world
        .get(&format!("{}/secrets", scene.vault), &scene.agent)
        .await
        .ok(200);
    let seen: Vec<&Value> = listed["secrets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|secret| &secret["path"])
        .collect();
    assert_eq!(seen, ["a/b", "a/prod/c"]);
    let reads = scene.world.events("?action=secret.read").await;
    let allowed: Vec<&Value> = reads
        .iter()
        .filter(|event| event["decision"] == "allow")
        .collect();
    assert_eq!(allowed.len(), 1);
    assert_eq!(allowed[0]["agent_id"], scene.agent_id.as_str());
    assert_eq!(allowed[0]["policy_id"], policy["id"]);
    assert_eq!(allowed[0]["keys"], json!(["a/b"]));
    assert_eq!(allowed[0]["secret_version"], 1);
    let denied = reads.iter().filter(|event| event["decision"] == "deny");
    assert_eq!(denied.count(), 2);
}

#[tokio::test]
async fn a_change_is_in_force_for_the_next_request() {
    let scene = Scene::new().await;
    let id = scene.policy(json!({})).await.field("/id");
    let path = format!("{}/policies/{id}", scene.vault);
    let admin = &scene.world.home.admin;
    scene.read("a/b").await.ok(200);
    let change = async |body: Value| scene.world.put(&path, admin, body).await.ok(200);
    change(json!({"effect": "deny"})).await;
    let detail = scene.read("a/b").await.refused(403, "policy_denied");
    assert!(detail.contains(&id), "{detail}");
    change(json!({"effect": "allow", "permissions": ["write"]})).await;
    scene.read("a/b").await.refused(403, "policy_denied");
    scene.put("a/b", &scene.agent).await.ok(201);
    change(json!({"permissions": ["read"], "expires_at": "2026-11-22T08:00:00Z"})).await;
    scene.read("a/b").await.ok(200);
    scene.world.clock.advance(Duration::from_hours(1));
    scene.read("a/b").await.refused(403, "policy_denied");
    let listed = scene
        .world
        .get(&format!("{}/policies", scene.vault), admin)
        .await
        .ok(200);
    assert_eq!(listed["policies"][0]["status"], "expired");
    change(json!({"expires_at": null})).await;
    scene.read("a/b").await.ok(200);
    scene.world.delete(&path, admin).await.ok(204);
    scene.read("a/b").await.refused(404, "not_found");
    scene
        .world
        .delete(&path, admin)
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn each_permission_is_its_own() {
    let scene = Scene::new().await;
    let agent = &scene.agent;
    let id = scene
        .policy(json!({"permissions": ["rotate"]}))
        .await
        .field("/id");
    let rotate = format!("{}/secret-rotate/a/b", scene.vault);
    scene.world.post(&rotate, agent, json!({})).await.ok(201);
    scene.put("a/b", agent).await.refused(403, "policy_denied");
    let secret = format!("{}/secrets/a/b", scene.vault);
    scene
        .world
        .delete(&secret, agent)
        .await
        .refused(403, "policy_denied");
    let policy = format!("{}/policies/{id}", scene.vault);
    let admin = &scene.world.home.admin;
    let delete = json!({"permissions": ["delete"]});
    scene.world.put(&policy, admin, delete).await.ok(200);
    scene
        .world
        .post(&rotate, agent, json!({}))
        .await
        .refused(403, "policy_denied");
    scene.world.delete(&secret, agent).await.ok(204);
    let restore = format!("{}/secret-restore/a/b", scene.vault);
    scene
        .world
        .post(&restore, agent, json!({}))
        .await
        .refused(403, "policy_denied");
    let write = json!({"permissions": ["write"]});
    scene.world.put(&policy, admin, write).await.ok(200);
    scene.world.post(&restore, agent, json!({})).await.ok(200);
    scene.world.post(&rotate, agent, json!({})).await.ok(201);
    scene.read("a/b").await.refused(403, "policy_denied");
}

#[tokio::test]
async fn networks_times_and_environments_narrow_a_policy() {
    let scene = Scene::new().await;
    let from = async |address: [u8; 4], path: &str| {
        let path = format!("{}/secrets/{path}", scene.vault);
        let mut request = request(Method::GET, &path, &scene.agent, None);
        request
            .extensions_mut()
            .insert(ConnectInfo(SocketAddr::from((address, 4711))));
        scene.world.send(request).await.status.as_u16()
    };
    let conditions = json!({
        "ip_allowlist": ["10.0.0.0/8"],
        "time_window": {"after": "08:00", "before": "20:00", "timezone": "Europe/Berlin", "days": ["sun"]},
    });
    let id = scene
        .policy(json!({"conditions": conditions, "environment_in": ["prod"]}))
        .await
        .field("/id");
    // Sunday, 08:00 in Berlin.
    assert_eq!(from([10, 1, 2, 3], "a/prod/c").await, 200);
    assert_eq!(from([192, 0, 2, 1], "a/prod/c").await, 403);
    assert_eq!(from([10, 1, 2, 3], "a/b").await, 403);
    scene.world.clock.advance(Duration::from_hours(12));
    assert_eq!(from([10, 1, 2, 3], "a/prod/c").await, 403);
    scene.world.clock.advance(Duration::from_hours(12));
    assert_eq!(from([10, 1, 2, 3], "a/prod/c").await, 403);
    let path = format!("{}/policies/{id}", scene.vault);
    let body = json!({"conditions": {}, "environment_in": []});
    let changed = scene.world.put(&path, &scene.world.home.admin, body).await;
    assert_eq!(changed.ok(200)["conditions"], json!({}));
    assert_eq!(from([192, 0, 2, 1], "a/b").await, 200);
}

#[tokio::test]
async fn a_denial_takes_from_people_and_an_auditor_gets_nothing_by_a_policy() {
    let scene = Scene::new().await;
    let (world, admin) = (&scene.world, &scene.world.home.admin);
    let member = person(&world.store, &world.home.org, "member", Role::Member).await;
    let auditor = person(&world.store, &world.home.org, "auditor", Role::Auditor).await;
    let people = world
        .store
        .users()
        .list(&world.home.org, &store::PageRequest::default())
        .await
        .unwrap()
        .items;
    let id_of = |name: &str| {
        let user = people.iter().find(|user| user.name == name).unwrap();
        user.id.to_string()
    };
    let path = format!("{}/secrets/a/b", scene.vault);
    world.get(&path, &member).await.ok(200);
    let deny = json!({"principal_type": "user", "principal_id": id_of("member"), "effect": "deny", "secret_path_pattern": "**"});
    let made = scene.policy(deny).await.ok(201);
    assert_eq!(made["export"], false);
    world
        .get(&path, &member)
        .await
        .refused(403, "policy_denied");
    scene.put("a/b", &member).await.ok(201);
    let except = json!({"principal_type": "user", "principal_id": id_of("member"), "priority": 1});
    scene.policy(except).await.ok(201);
    world.get(&path, &member).await.ok(200);
    let allow = json!({"principal_type": "user", "principal_id": id_of("auditor"), "priority": 9});
    scene.policy(allow).await.ok(201);
    let answer = world.get(&path, &auditor).await;
    assert!(!answer.text.contains(CANARY));
    answer.refused(403, "forbidden");
    world
        .get(&format!("{}/secrets", scene.vault), &auditor)
        .await
        .ok(200);
    // The admin is moved by neither.
    world.get(&path, admin).await.ok(200);
}

#[tokio::test]
async fn what_the_seeds_clients_send_is_taken_and_what_would_widen_access_is_not() {
    let scene = Scene::new().await;
    let sdk = json!({"policy_schema_version": 1, "effect": "allow", "priority": 0, "attribute_conditions": {}, "tx_conditions": null});
    scene.policy(sdk).await.ok(201);
    for bad in [
        json!({"permissions": []}),
        json!({"permissions": ["admin"]}),
        json!({"permissions": "read"}),
        json!({"effect": "maybe"}),
        json!({"priority": 1.5}),
        json!({"priority": 3_000_000_000_u64}),
        json!({"secret_path_pattern": "/a"}),
        json!({"secret_path_pattern": "a/../b"}),
        json!({"secret_path_pattern": "[a-z]"}),
        json!({"secret_path_pattern": "***"}),
        json!({"secret_path_pattern": ""}),
        json!({"principal_type": "everybody"}),
        json!({"conditions": {"ip_allowlist": ["everywhere"]}}),
        json!({"conditions": {"time_window": {"after": "08:00", "before": "20:00", "timezone": "Nowhere/None"}}}),
        json!({"expires_at": "2020-01-01T00:00:00Z"}),
        json!({"policy_schema_version": 2}),
        json!({"attribute_conditions": {"team": "x"}}),
        json!({"consensus_trigger": {"quorum": 2}}),
        json!({"environment_in": ["a/b"]}),
    ] {
        scene
            .policy(bad.clone())
            .await
            .refused(400, "invalid_request");
    }
    for unknown in [
        json!({"condition": {}}),
        json!({"conditions": {"ip_allow_list": []}}),
        json!({"environments": ["prod"]}),
        json!({"org_id": "org_x"}),
        json!({"export": false}),
    ] {
        scene.policy(unknown).await.refused(400, "unknown_field");
    }
    for missing in [
        json!({"principal_id": "agt_01ARZ3NDEKTSV4RRFFQ69G5FAV"}),
        json!({"principal_id": "nobody"}),
        json!({"principal_type": "user"}),
    ] {
        scene.policy(missing).await.refused(404, "not_found");
    }
    let (foreign, _) = scene.world.agent(&scene.world.other.admin, "foreign").await;
    scene
        .policy(json!({"principal_id": foreign}))
        .await
        .refused(404, "not_found");
}

#[tokio::test]
async fn an_explanation_names_the_policy_that_decides_and_why_the_others_do_not() {
    let scene = Scene::new().await;
    let allow = scene.policy(json!({})).await.field("/id");
    let deny = scene
        .policy(json!({"effect": "deny", "secret_path_pattern": "a/prod/*"}))
        .await
        .field("/id");
    let ask = async |more: Value| {
        let vault = scene.vault.rsplit('/').next().unwrap();
        let mut body = json!({"vault_id": vault, "path": "a/b", "permission": "read", "principal_id": scene.agent_id});
        let fields = body.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let admin = &scene.world.home.admin;
        scene.world.post("/v1/policies/explain", admin, body).await
    };
    let explained = ask(json!({})).await.ok(200);
    assert_eq!(explained["decision"], "allow");
    assert_eq!(explained["policy_id"], allow.as_str());
    let weighed = explained["policies"].as_array().unwrap();
    assert_eq!(weighed.len(), 2);
    let other = weighed.iter().find(|one| one["policy_id"] == deny.as_str());
    assert_eq!(
        other.unwrap()["reason"],
        "its pattern does not match the path"
    );
    let explained = ask(json!({"path": "a/prod/c"})).await.ok(200);
    assert_eq!(explained["decision"], "deny");
    assert_eq!(explained["policy_id"], deny.as_str());
    let explained = ask(json!({"path": "z"})).await.ok(200);
    assert_eq!(
        (&explained["decision"], &explained["policy_id"]),
        (&json!("deny"), &Value::Null)
    );
    // It says what a request meets, each time.
    for path in ["a/b", "a/prod/c", "z"] {
        let explained = ask(json!({"path": path})).await.ok(200);
        let status = scene.read(path).await.status.as_u16();
        assert_eq!(explained["decision"] == "allow", status == 200, "{path}");
    }
    ask(json!({"path": "../a"}))
        .await
        .refused(400, "invalid_request");
    ask(json!({"principal_id": "agt_01ARZ3NDEKTSV4RRFFQ69G5FAV"}))
        .await
        .refused(404, "not_found");
    ask(json!({"vault_id": "none"}))
        .await
        .refused(404, "not_found");
    ask(json!({"pathh": "a"}))
        .await
        .refused(400, "unknown_field");
}

#[tokio::test]
async fn an_agent_manages_no_policy_and_cannot_give_itself_one() {
    let scene = Scene::new().await;
    let everything =
        json!({"permissions": ["read", "write", "delete", "rotate"], "secret_path_pattern": "**"});
    let id = scene.policy(everything).await.field("/id");
    let body =
        json!({"principal_type": "agent", "principal_id": scene.agent_id, "permissions": ["read"]});
    let policies = format!("{}/policies", scene.vault);
    let own = format!("{policies}/{id}");
    let agent = &scene.agent;
    for answer in [
        scene.world.post(&policies, agent, body).await,
        scene.world.get(&policies, agent).await,
        scene.world.put(&own, agent, json!({"priority": 9})).await,
        scene.world.delete(&own, agent).await,
        scene
            .world
            .post("/v1/policies/explain", agent, json!({}))
            .await,
    ] {
        answer.refused(403, "forbidden");
    }
}

#[tokio::test]
async fn a_policy_that_somebody_wrote_into_the_database_is_found_and_told_to_its_organisation_alone()
 {
    let scene = Scene::new().await;
    let id = scene.policy(json!({})).await.field("/id");
    let world = &scene.world;
    let verify = async |who: &Who| world.get("/v1/audit/verify", who).await.ok(200);
    assert_eq!(verify(&world.home.admin).await["intact"], true);
    let database = rusqlite::Connection::open(world.dir.path().join("claviger.db")).unwrap();
    let wider = "UPDATE policies SET path_pattern = '**'";
    assert_eq!(database.execute(wider, []).unwrap(), 1);
    let found = verify(&world.home.admin).await;
    assert_eq!(
        (&found["intact"], &found["first_bad"]),
        (&json!(false), &Value::Null)
    );
    let row = &found["put_back"][0];
    assert_eq!((&row["kind"], &row["name"]), (&json!("policy"), &json!(id)));
    let told = verify(&world.other.admin).await;
    assert_eq!(
        (&told["put_back"], &told["intact"]),
        (&json!([]), &json!(true))
    );
}
