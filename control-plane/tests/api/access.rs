//! Who may do what: every route against every kind of caller, and every id against another organisation.

use axum::http::Method;
use serde_json::{Value, json};

use store::Role;

use crate::support::{NOBODY, World, nobody, person, request};

/// Routes that an agent may use for itself; the others are for people.
const FOR_AGENTS: [(&str, &str); 39] = [
    OWN_AGENT,
    // Where it sends its requests.
    ("GET", "/v1/injector"),
    ("GET", "/v1/approvals"),
    ("GET", "/v1/approvals/{id}"),
    ("POST", "/v1/approvals/request"),
    ("GET", "/v1/vault/leases"),
    ("POST", "/v1/vault/leases"),
    ("POST", "/v1/vault/leases/revoke"),
    ("GET", "/v1/vault/leases/{id}"),
    ("DELETE", "/v1/vault/leases/{id}"),
    // What it shares with the person who made it, and what is shared with it: `shares.rs`.
    ("POST", "/v1/secrets/{secret_id}/share"),
    ("DELETE", "/v1/share/{id}"),
    ("GET", "/v1/shares/outbound"),
    ("GET", "/v1/shares/inbound"),
    ("GET", "/v1/shares/{id}"),
    ("POST", "/v1/shares/{id}/accept"),
    ("POST", "/v1/shares/{id}/decline"),
    ("POST", "/v1/vault/leases/workflow"),
    ("POST", "/v1/vault/leases/request/mint"),
    ("POST", "/v1/vault/policy/eval"),
    // Under a lease.
    ("POST", "/v1/vault/proxy"),
    ("POST", "/v1/vault/proxy/request"),
    ("POST", "/v1/vault/secrets/read"),
    // Its own.
    ("GET", "/v1/agents/{id}/bindings"),
    ("GET", "/v1/agents/{id}/bindings/{binding}"),
    ("POST", "/v1/agents/{id}/execute"),
    ("GET", "/v1/agents/{id}/executions"),
    // As policies let it: `vaults_matrix.rs`.
    ("GET", "/v1/vaults"),
    ("GET", "/v1/vaults/{vault_id}"),
    ("GET", "/v1/vaults/{vault_id}/secrets"),
    ("GET", "/v1/vaults/{vault_id}/secrets/{path}"),
    ("PUT", "/v1/vaults/{vault_id}/secrets/{path}"),
    ("DELETE", "/v1/vaults/{vault_id}/secrets/{path}"),
    ("POST", "/v1/vaults/{vault_id}/secret-restore/{path}"),
    ("POST", "/v1/vaults/{vault_id}/secret-rotate/{path}"),
    ("GET", "/v1/vaults/{vault_id}/secret-versions/{path}"),
    (
        "GET",
        "/v1/vaults/{vault_id}/secret-version/{path}/{version}",
    ),
    (
        "POST",
        "/v1/vaults/{vault_id}/secret-version-disable/{path}/{version}",
    ),
    (
        "POST",
        "/v1/vaults/{vault_id}/secret-version/{path}/{version}/disable",
    ),
];

/// Shows an agent to itself, and nothing to a person.
const OWN_AGENT: (&str, &str) = ("GET", "/v1/agents/me");

/// Routes for those who manage people, and say where the trail is told to.
const FOR_MANAGERS: [(&str, &str); 15] = [
    ("PATCH", "/v1/org/members/{id}"),
    ("DELETE", "/v1/org/members/{id}"),
    ("GET", "/v1/org/invitations"),
    ("POST", "/v1/org/invitations"),
    ("DELETE", "/v1/org/invitations/{id}"),
    ("POST", "/v1/security/ip-rules"),
    ("DELETE", "/v1/security/ip-rules/{id}"),
    ("GET", "/v1/webhooks"),
    ("POST", "/v1/webhooks"),
    ("GET", "/v1/webhooks/{id}"),
    ("PATCH", "/v1/webhooks/{id}"),
    ("DELETE", "/v1/webhooks/{id}"),
    ("POST", "/v1/webhooks/{id}/rotate-secret"),
    ("POST", "/v1/webhooks/{id}/test"),
    ("GET", "/v1/webhooks/{id}/deliveries"),
];

/// Ends the credential that it comes with, an agent's too.
const SIGN_OUT: (&str, &str) = ("DELETE", "/v1/auth/token");

/// Operations that need no principal, on paths whose others do.
const OPEN_OPERATIONS: [(&str, &str); 2] = [("POST", "/v1/auth/token"), ("GET", "/v1/share/{id}")];

/// Routes that need no principal: public, or with a credential of their own.
const OPEN: [&str; 20] = [
    "/v1/agents/enroll",
    "/v1/shares/{id}/access",
    "/v1/auth/accept-invitation",
    "/v1/auth/api-key-token",
    "/v1/auth/device/code",
    "/v1/auth/device/token",
    "/v1/auth/google",
    "/v1/auth/mfa/verify",
    "/v1/auth/oidc/callback",
    "/v1/auth/oidc/start",
    "/v1/auth/signup",
    "/openapi.json",
    "/metrics",
    "/v1/ca.pem",
    "/health/ready",
    "/v1/health",
    "/v1/health/hsm",
    "/v1/problems/{code}",
    "/v1/auth/agent-token",
    "/v1/vault/export",
];

/// A path with something in the place of each name.
fn filled(template: &str, id: &str) -> String {
    let names = [
        "{name}",
        "{vault_id}",
        "{path}",
        "{policy_id}",
        "{secret_id}",
        "{binding}",
    ];
    let path = names
        .iter()
        .fold(template.replace("{id}", id), |path, name| {
            path.replace(name, "x")
        });
    path.replace("{version}", "1")
}

/// Every operation of the API but the open ones.
fn operations() -> Vec<(Method, String)> {
    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    let paths = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(path, _)| !OPEN.contains(&path.as_str()));
    let all = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(move |method| (method.to_uppercase(), path.clone()))
    });
    let private =
        all.filter(|(method, path)| !OPEN_OPERATIONS.contains(&(method.as_str(), path.as_str())));
    private
        .map(|(method, path)| (method.parse().unwrap(), path))
        .collect()
}

#[tokio::test]
async fn nobody_gets_in_anywhere() {
    let world = World::with(control_plane::Limits {
        auth_failure_burst: 1000.try_into().unwrap(),
        ..Default::default()
    })
    .await;
    let operations = operations();
    assert!(operations.len() >= 30);
    for (method, path) in operations {
        let path = filled(&path, "x");
        world
            .send(request(method, &path, &nobody(), Some(json!({}))))
            .await
            .refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn an_agent_gets_in_only_where_its_leases_are() {
    let world = World::new().await;
    let (_, key) = world.agent(&world.home.admin, "bot").await;
    let token = world
        .post("/v1/auth/agent-token", &nobody(), json!({"api_key": key.0}))
        .await
        .field("/access_token");
    for agent in [key, crate::support::holder(token)] {
        for (method, path) in operations() {
            if (method.as_str(), path.as_str()) == SIGN_OUT {
                continue;
            }
            let allowed = FOR_AGENTS.contains(&(method.as_str(), path.as_str()));
            let target = filled(&path, "lse_01ARZ3NDEKTSV4RRFFQ69G5FAV");
            let answer = world
                .send(request(method.clone(), &target, &agent, Some(json!({}))))
                .await;
            if allowed {
                assert!(
                    !matches!(answer.status.as_u16(), 401 | 403),
                    "{method} {path}: {}",
                    answer.text
                );
            } else {
                answer.refused(403, "forbidden");
            }
        }
    }
}

#[tokio::test]
async fn a_person_gets_in_everywhere() {
    let world = World::new().await;
    for (method, path) in operations() {
        if (method.as_str(), path.as_str()) == OWN_AGENT {
            continue;
        }
        let query = if path == "/v1/explain" {
            "?url=https://api.stripe.com/"
        } else {
            ""
        };
        let target = format!("{}{query}", filled(&path, "x"));
        let answer = world
            .send(request(
                method.clone(),
                &target,
                &world.home.admin,
                Some(json!({})),
            ))
            .await;
        assert!(
            matches!(answer.status.as_u16(), 200 | 202 | 400 | 404),
            "{method} {path}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn of_people_each_gets_in_where_the_role_does() {
    let world = World::new().await;
    let mut roles = Vec::new();
    for role in [Role::Auditor, Role::Member, Role::Admin, Role::Owner] {
        let key = person(
            &world.store,
            &world.home.org,
            &format!("the {}", role.as_str()),
            role,
        )
        .await;
        let token = world.post("/v1/auth/api-key-token", &NOBODY, json!({"api_key": key.0}));
        let token = crate::support::holder(token.await.field("/access_token"));
        roles.push((role, key));
        roles.push((role, token));
    }
    let concern_people = |path: &str| {
        let prefixes = ["/v1/auth/", "/v1/org/", "/v1/security/", "/v1/webhooks"];
        prefixes.iter().any(|prefix| path.starts_with(prefix))
    };
    let operations = operations()
        .into_iter()
        .filter(|(_, path)| concern_people(path));
    let mut seen = 0;
    for (method, path) in operations {
        let operation = (method.as_str(), path.as_str());
        if operation == SIGN_OUT {
            continue;
        }
        seen += 1;
        for (role, who) in &roles {
            let allowed = role.is_admin() || !FOR_MANAGERS.contains(&operation);
            let target = path.replace("{id}", "x");
            let answer = world
                .send(request(method.clone(), &target, who, Some(json!({}))))
                .await;
            if allowed {
                assert!(
                    matches!(answer.status.as_u16(), 200 | 400 | 404 | 409),
                    "{role:?} {method} {path}: {}",
                    answer.text
                );
            } else {
                answer.refused(403, "forbidden");
            }
        }
    }
    assert_eq!(seen, 30);
}

/// A body that calls of bindings take, for an agent that is not the caller's.
fn of_bindings(method: &Method, template: &str) -> Option<Value> {
    let is_create = *method == Method::POST && template == "/v1/agents/{id}/bindings";
    Some(match template {
        _ if is_create => json!({
            "name": "x", "binding_type": "http", "credential": "tok_0123456789",
            "config": {"base_url": "https://api.example.org", "auth_type": "bearer"},
        }),
        "/v1/agents/{id}/execute" => json!({"binding": "x", "params": {}}),
        template if template.ends_with("/rotate-credential") => json!({"credential": "x"}),
        template if template.contains("/bindings") => json!({}),
        _ => return None,
    })
}

#[tokio::test]
async fn another_organisations_ids_are_like_none_at_all() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (lease_id, _) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    let owner = &world.home.admin;
    let made = async |path: &str, body: Value, pointer: &str| {
        world.post(path, owner, body).await.field(pointer)
    };
    let key_id = made("/v1/auth/api-keys", json!({"name": "k"}), "/key/id").await;
    let invited = json!({"email": "a@example.org", "role": "member"});
    let invitation_id = made("/v1/org/invitations", invited, "/invitation/id").await;
    let rule = json!({"rule_type": "allow", "cidr": "192.0.2.0/24"});
    let rule_id = made("/v1/security/ip-rules", rule, "/id").await;
    let hook = json!({"url": "https://hooks.example.org/", "events": ["*"]});
    let webhook_id = made("/v1/webhooks", hook, "/webhook/id").await;
    let member_id = world.get("/v1/auth/me", owner).await.field("/id");
    let share_id = crate::shares::shared(&world).await;
    let things = [
        ("/v1/auth/api-keys/", &key_id),
        ("/v1/org/invitations/", &invitation_id),
        ("/v1/security/ip-rules/", &rule_id),
        ("/v1/org/members/", &member_id),
        ("/v1/webhooks/", &webhook_id),
        ("/v1/share/", &share_id),
        ("/v1/shares/", &share_id),
        ("/v1/agents/", &granted.agent_id),
        ("/v1/vault/secret-sets/", &granted.set_id),
        ("/v1/vault/grants/", &granted.grant_id),
        ("/v1/vault/leases/", &lease_id),
    ];
    for (path, id) in things {
        let operations = operations()
            .into_iter()
            .filter(|(_, template)| template.starts_with(&format!("{path}{{id}}")));
        for (method, template) in operations {
            let body = json!({"entries": {"STRIPE_SECRET_KEY": "stolen-0123456789"}, "version": 1});
            let body = if template == "/v1/webhooks/{id}" {
                json!({"description": "x"})
            } else {
                body
            };
            let body = if template == "/v1/agents/{id}" {
                json!({"name": "x"})
            } else {
                body
            };
            let body = if template == "/v1/org/members/{id}" {
                json!({"role": "member"})
            } else {
                body
            };
            let body = if template.ends_with("rollback") {
                json!({"version": 1})
            } else {
                body
            };
            let body = of_bindings(&method, &template).unwrap_or(body);
            let foreign = world
                .send(request(
                    method.clone(),
                    &filled(&template, id),
                    &world.other.admin,
                    Some(body.clone()),
                ))
                .await;
            let mut prefix = id.split('_').next().unwrap().to_owned();
            prefix.push_str("_01ARZ3NDEKTSV4RRFFQ69G5FAV");
            let missing = world
                .send(request(
                    method.clone(),
                    &filled(&template, &prefix),
                    &world.other.admin,
                    Some(body),
                ))
                .await;
            let mask = |text: String, id: &str| text.replace(id, "ID");
            assert_eq!(
                mask(foreign.refused(404, "not_found"), id),
                mask(missing.refused(404, "not_found"), &prefix),
                "{method} {template}"
            );
        }
    }
    // Nothing of it was changed.
    let set = world
        .get(
            &format!("/v1/vault/secret-sets/{}", granted.set_id),
            &world.home.admin,
        )
        .await
        .ok(200);
    assert_eq!(set["version"], 1);
    assert_eq!(
        world
            .get(&format!("/v1/vault/leases/{lease_id}"), &world.home.admin)
            .await
            .ok(200)["status"],
        "active"
    );
}

/// Paths with an id of a thing, and the test that asks for it from another organisation. A new resource gets a line here with its test.
const FOREIGN_IDS: [(&str, &str); 17] = [
    (
        "/v1/agents/",
        "another_organisations_ids_are_like_none_at_all",
    ),
    ("/v1/approvals/", "approvals.rs"),
    (
        "/v1/auth/api-keys/",
        "another_organisations_ids_are_like_none_at_all",
    ),
    ("/v1/keys/rotations/", "keys.rs"),
    (
        "/v1/org/invitations/",
        "another_organisations_ids_are_like_none_at_all",
    ),
    (
        "/v1/org/members/",
        "another_organisations_ids_are_like_none_at_all",
    ),
    ("/v1/problems/", "the same for everybody"),
    ("/v1/providers/", "the same for everybody"),
    ("/v1/secrets/", "shares.rs"),
    (
        "/v1/security/ip-rules/",
        "another_organisations_ids_are_like_none_at_all",
    ),
    (
        "/v1/share/",
        "another_organisations_ids_are_like_none_at_all",
    ),
    (
        "/v1/shares/",
        "another_organisations_ids_are_like_none_at_all",
    ),
    (
        "/v1/vault/grants/",
        "another_organisations_ids_are_like_none_at_all",
    ),
    (
        "/v1/vault/leases/",
        "another_organisations_ids_are_like_none_at_all",
    ),
    (
        "/v1/vault/secret-sets/",
        "another_organisations_ids_are_like_none_at_all",
    ),
    ("/v1/vaults/", "vaults_matrix.rs"),
    (
        "/v1/webhooks/",
        "another_organisations_ids_are_like_none_at_all",
    ),
];

#[test]
fn every_path_with_an_id_is_asked_for_from_another_organisation() {
    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    let paths = document["paths"].as_object().unwrap().keys();
    let with_id: Vec<&String> = paths.filter(|path| path.contains('{')).collect();
    for path in &with_id {
        let known = FOREIGN_IDS.iter().any(|(start, _)| path.starts_with(start));
        assert!(
            known,
            "nobody asks for {path} from another organisation; write that test and name it in FOREIGN_IDS"
        );
    }
    assert!(with_id.len() > 25);
}

#[tokio::test]
async fn lists_of_one_organisation_hold_nothing_of_another() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    for (path, list) in [
        ("/v1/agents", "agents"),
        ("/v1/vault/secret-sets", "secret_sets"),
        ("/v1/vault/grants", "grants"),
        ("/v1/vault/leases", "leases"),
    ] {
        let page = world.get(path, &world.other.admin).await.ok(200);
        assert_eq!(page[list], json!([]), "{path}");
    }
}

#[tokio::test]
async fn an_agent_of_another_organisation_mints_nothing_here() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (_, foreign) = world.agent(&world.other.admin, "bot").await;
    world
        .post(
            "/v1/vault/leases",
            &foreign,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .refused(404, "not_found");
    let body = json!({"secret_set_id": granted.set_id, "agent_id": granted.agent_id});
    world
        .post("/v1/vault/leases", &world.other.admin, body)
        .await
        .refused(404, "not_found");
}
