//! Every route of vaults, secrets and policies against every kind of caller.

use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::{Value, json};
use store::Role;

use crate::support::{Answer, CANARY, Who, World, nobody, person, request};

/// What a route lets its caller do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// For people alone.
    Manage,
    /// Everybody sees their own part.
    Overview,
    /// That the vault is there.
    Vault,
    /// What is known of a secret.
    View,
    /// Its value.
    Read,
    /// A change of it.
    Change,
}

/// Method, path as in `openapi.json`, body, what succeeds, and its kind.
type Operation = (&'static str, &'static str, &'static str, u16, Kind);

const POLICY: &str =
    r#"{"principal_type": "agent", "principal_id": "AGENT", "permissions": ["write"]}"#;
const QUESTION: &str =
    r#"{"vault_id": "VAULT", "path": "m/x", "permission": "read", "principal_id": "AGENT"}"#;

#[rustfmt::skip]
const OPERATIONS: [Operation; 19] = [
    ("GET", "/v1/vaults", "", 200, Kind::Overview),
    ("POST", "/v1/vaults", r#"{"name": "NEW"}"#, 201, Kind::Manage),
    ("GET", "/v1/vaults/{vault_id}", "", 200, Kind::Vault),
    ("DELETE", "/v1/vaults/{vault_id}", "", 204, Kind::Manage),
    ("GET", "/v1/vaults/{vault_id}/secrets", "", 200, Kind::Vault),
    ("GET", "/v1/vaults/{vault_id}/secrets/{path}", "", 200, Kind::Read),
    ("PUT", "/v1/vaults/{vault_id}/secrets/{path}", r#"{"value": "another"}"#, 201, Kind::Change),
    ("DELETE", "/v1/vaults/{vault_id}/secrets/{path}", "", 204, Kind::Change),
    ("POST", "/v1/vaults/{vault_id}/secret-restore/{path}", "", 200, Kind::Change),
    ("POST", "/v1/vaults/{vault_id}/secret-rotate/{path}", "{}", 201, Kind::Change),
    ("GET", "/v1/vaults/{vault_id}/secret-versions/{path}", "", 200, Kind::View),
    ("GET", "/v1/vaults/{vault_id}/secret-version/{path}/{version}", "", 200, Kind::Read),
    ("POST", "/v1/vaults/{vault_id}/secret-version-disable/{path}/{version}", "", 204, Kind::Change),
    ("POST", "/v1/vaults/{vault_id}/secret-version/{path}/{version}/disable", "", 204, Kind::Change),
    ("GET", "/v1/vaults/{vault_id}/policies", "", 200, Kind::Manage),
    ("POST", "/v1/vaults/{vault_id}/policies", POLICY, 201, Kind::Manage),
    ("PUT", "/v1/vaults/{vault_id}/policies/{policy_id}", r#"{"priority": 1}"#, 200, Kind::Manage),
    ("DELETE", "/v1/vaults/{vault_id}/policies/{policy_id}", "", 204, Kind::Manage),
    ("POST", "/v1/policies/explain", QUESTION, 200, Kind::Manage),
];

/// The path and the body of an operation with what they name.
fn filled(
    operation: &Operation,
    vault: &str,
    policy: &str,
    agent: &str,
) -> (String, Option<Value>) {
    let (_, path, body, _, _) = operation;
    let path = path
        .replace("{vault_id}", vault)
        .replace("{path}", "m/x")
        .replace("{version}", "1")
        .replace("{policy_id}", policy);
    let body = body.replace("AGENT", agent).replace("VAULT", vault);
    let body = body.replace("NEW", &format!("beside {vault}"));
    (path, serde_json::from_str(&body).ok())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Nobody,
    AgentWithoutPolicy,
    AgentWithPolicy,
    AgentWithPolicyElsewhere,
    Auditor,
    Member,
    Admin,
    OtherOrganisation,
}

const CALLERS: [Caller; 8] = [
    Caller::Nobody,
    Caller::AgentWithoutPolicy,
    Caller::AgentWithPolicy,
    Caller::AgentWithPolicyElsewhere,
    Caller::Auditor,
    Caller::Member,
    Caller::Admin,
    Caller::OtherOrganisation,
];

/// What must come of it: a status, and the code of a refusal.
fn expected(caller: Caller, operation: &Operation) -> (u16, &'static str) {
    let (method, path, _, success, kind) = operation;
    let good = (*success, "");
    let forbidden = (403, "forbidden");
    let is_agent = matches!(
        caller,
        Caller::AgentWithoutPolicy | Caller::AgentWithPolicy | Caller::AgentWithPolicyElsewhere
    );
    if is_agent && *kind == Kind::Manage {
        return forbidden;
    }
    if *path == "/v1/vaults" && (is_agent || caller == Caller::OtherOrganisation) {
        return good;
    }
    match caller {
        Caller::Nobody => (401, "unauthenticated"),
        Caller::OtherOrganisation | Caller::AgentWithoutPolicy => (404, "not_found"),
        Caller::Auditor if *method != "GET" || *kind == Kind::Read => forbidden,
        Caller::AgentWithPolicyElsewhere if *kind != Kind::Vault => (403, "policy_denied"),
        Caller::Auditor
        | Caller::Member
        | Caller::Admin
        | Caller::AgentWithPolicy
        | Caller::AgentWithPolicyElsewhere => good,
    }
}

struct Scene {
    world: World,
    with_policy: (String, Who),
    elsewhere: (String, Who),
    without: Who,
    auditor: Who,
    member: Who,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let admin = &world.home.admin;
        let with_policy = world.agent(admin, "with").await;
        let elsewhere = world.agent(admin, "elsewhere").await;
        let (_, without) = world.agent(admin, "without").await;
        let auditor = person(&world.store, &world.home.org, "auditor", Role::Auditor).await;
        let member = person(&world.store, &world.home.org, "member", Role::Member).await;
        Self {
            world,
            with_policy,
            elsewhere,
            without,
            auditor,
            member,
        }
    }

    fn credential(&self, caller: Caller) -> Who {
        match caller {
            Caller::Nobody => nobody(),
            Caller::AgentWithoutPolicy => self.without.clone(),
            Caller::AgentWithPolicy => self.with_policy.1.clone(),
            Caller::AgentWithPolicyElsewhere => self.elsewhere.1.clone(),
            Caller::Auditor => self.auditor.clone(),
            Caller::Member => self.member.clone(),
            Caller::Admin => self.world.home.admin.clone(),
            Caller::OtherOrganisation => self.world.other.admin.clone(),
        }
    }

    /// A vault of its own with a secret and policies, so that no call finds what another one left.
    async fn vault(&self, name: &str) -> (String, String) {
        let (world, admin) = (&self.world, &self.world.home.admin);
        let vault = world
            .post("/v1/vaults", admin, json!({"name": name}))
            .await
            .field("/id");
        let secret = format!("/v1/vaults/{vault}/secrets/m/x");
        let body = json!({"value": CANARY, "type": "api_key"});
        world.put(&secret, admin, body).await.ok(201);
        let policies = format!("/v1/vaults/{vault}/policies");
        let everything = json!(["read", "write", "delete", "rotate"]);
        let mut id = String::new();
        for (agent, pattern) in [(&self.elsewhere.0, "n/**"), (&self.with_policy.0, "m/**")] {
            let body = json!({"principal_type": "agent", "principal_id": agent, "secret_path_pattern": pattern, "permissions": everything});
            id = world.post(&policies, admin, body).await.field("/id");
        }
        (vault, id)
    }

    async fn ask(&self, caller: Caller, operation: &Operation, name: &str) -> Answer {
        let (vault, policy) = self.vault(name).await;
        let (path, body) = filled(operation, &vault, &policy, &self.with_policy.0);
        let method: Method = operation.0.parse().unwrap();
        let request = request(method, &path, &self.credential(caller), body);
        self.world.send(request).await
    }
}

#[test]
fn the_matrix_has_every_operation_of_the_description() {
    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if path.starts_with("/v1/vaults") || path.starts_with("/v1/policies") {
            let methods = item.as_object().unwrap().keys();
            described.extend(methods.map(|method| (method.to_uppercase(), path.clone())));
        }
    }
    let held = OPERATIONS.into_iter();
    let held: BTreeSet<_> = held
        .map(|(method, path, ..)| (method.to_owned(), path.to_owned()))
        .collect();
    assert_eq!(held, described);
}

#[tokio::test]
async fn every_caller_gets_what_is_theirs_and_no_more() {
    let scene = Scene::new().await;
    let mut number = 0;
    for operation in OPERATIONS {
        for caller in CALLERS {
            number += 1;
            let answer = scene.ask(caller, &operation, &format!("v{number}")).await;
            let (status, code) = expected(caller, &operation);
            let what = format!(
                "{caller:?} {} {}: {}",
                operation.0, operation.1, answer.text
            );
            assert_eq!(answer.status, status, "{what}");
            // Values go to whom they may, and nowhere else.
            let shows = answer.text.contains(CANARY);
            assert_eq!(shows, operation.4 == Kind::Read && status == 200, "{what}");
            if !code.is_empty() {
                answer.refused(status, code);
            }
        }
    }
    let trail = scene.world.events("").await;
    assert!(
        trail
            .iter()
            .all(|event| !event.to_string().contains(CANARY))
    );
}

#[tokio::test]
async fn lists_hold_what_is_the_callers_own() {
    let scene = Scene::new().await;
    let (vault, _) = scene.vault("v").await;
    let list = async |caller, path: &str, field: &str| {
        let answer = scene.world.get(path, &scene.credential(caller)).await;
        answer.ok(200)[field].as_array().unwrap().len()
    };
    for (caller, vaults, secrets) in [
        // The default vault, the one of agents' identity keys, and `v`.
        (Caller::Admin, 3, Some(1)),
        (Caller::Auditor, 3, Some(1)),
        (Caller::AgentWithPolicy, 1, Some(1)),
        (Caller::AgentWithPolicyElsewhere, 1, Some(0)),
        (Caller::AgentWithoutPolicy, 0, None),
        (Caller::OtherOrganisation, 1, None),
    ] {
        assert_eq!(
            list(caller, "/v1/vaults", "vaults").await,
            vaults,
            "{caller:?}"
        );
        if let Some(secrets) = secrets {
            let path = format!("/v1/vaults/{vault}/secrets");
            assert_eq!(list(caller, &path, "secrets").await, secrets, "{caller:?}");
        }
    }
}

#[tokio::test]
async fn what_is_anothers_answers_like_what_never_was() {
    let scene = Scene::new().await;
    let (vault, policy) = scene.vault("v").await;
    let other = &scene.world.other.admin;
    let never = "vlt_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    for operation in OPERATIONS {
        let (method, template, _, _, kind) = operation;
        if template == "/v1/vaults" || kind == Kind::Overview {
            continue;
        }
        let mut details = Vec::new();
        for id in [vault.as_str(), never] {
            let (path, body) = filled(&operation, id, &policy, &scene.with_policy.0);
            let request = request(method.parse().unwrap(), &path, other, body);
            let detail = scene.world.send(request).await.refused(404, "not_found");
            details.push(detail.replace(id, "ID"));
        }
        assert_eq!(details[0], details[1], "{method} {template}");
    }
    // A policy of one vault is none of another.
    let (second, _) = scene.vault("w").await;
    let path = format!("/v1/vaults/{second}/policies/{policy}");
    let admin = &scene.world.home.admin;
    scene
        .world
        .delete(&path, admin)
        .await
        .refused(404, "not_found");
    scene
        .world
        .put(&path, admin, json!({"priority": 9}))
        .await
        .refused(404, "not_found");
}
