//! Who belongs to an organisation, who may change that, and from where they call.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Method, Request};
use serde_json::{Value, json};

use crate::people::id_of;
use crate::support::{NOBODY, PASSWORD, World, holder, request};

#[tokio::test]
async fn an_invitation_is_accepted_once_by_whoever_has_its_token() {
    let world = World::new().await;
    let owner = &world.home.admin;
    let body = json!({"email": "Ada@Example.org", "role": "member"});
    let made = world.post("/v1/org/invitations", owner, body).await.ok(201);
    assert_eq!(made["invitation"]["email"], "ada@example.org");
    assert_eq!(made["invitation"]["role"], "member");
    let token = made["token"].as_str().unwrap();
    let listed = world.get("/v1/org/invitations", owner).await;
    assert!(!listed.text.contains(token));
    assert_eq!(listed.ok(200)["invitations"][0], made["invitation"]);
    let accept = |password: &str| {
        let body = json!({"token": token, "password": password, "display_name": "Ada"});
        world.post("/v1/auth/accept-invitation", &NOBODY, body)
    };
    // A weak password uses nothing up.
    accept("weak").await.refused(400, "weak_password");
    let ada = holder(accept(PASSWORD).await.field("/access_token"));
    let me = world.get("/v1/auth/me", &ada).await.ok(200);
    assert_eq!(me["role"], "member");
    assert_eq!(me["email"], "ada@example.org");
    assert_eq!(me["org_id"], world.home.org.as_str());
    accept(PASSWORD).await.refused(401, "unauthenticated");
    let listed = world.get("/v1/org/invitations", owner).await.ok(200);
    assert_eq!(listed["invitations"], json!([]));
    let again = json!({"email": "ada@example.org", "role": "admin"});
    let again = world.post("/v1/org/invitations", owner, again).await;
    again.refused(409, "name_taken");
}

#[tokio::test]
async fn every_invitation_that_cannot_be_accepted_gets_the_same_answer() {
    let world = World::new().await;
    let owner = &world.home.admin;
    let (admin_id, admin) = world.person("admin@example.org", "admin").await;
    let invite = async |who, email: &str, role: &str| {
        let body = json!({"email": email, "role": role});
        let made = world.post("/v1/org/invitations", who, body).await.ok(201);
        let id = made["invitation"]["id"].as_str().unwrap().to_owned();
        (id, made["token"].as_str().unwrap().to_owned())
    };
    let (revoked, one) = invite(owner, "one@example.org", "member").await;
    let path = format!("/v1/org/invitations/{revoked}");
    world.delete(&path, owner).await.ok(204);
    world.delete(&path, owner).await.refused(404, "not_found");
    let (_, replaced) = invite(owner, "two@example.org", "member").await;
    invite(owner, "two@example.org", "auditor").await;
    // Whoever invited may not give that role any more.
    let (_, demoted) = invite(&admin, "three@example.org", "admin").await;
    let path = format!("/v1/org/members/{admin_id}");
    let body = json!({"role": "member"});
    world.patch(&path, owner, body).await.ok(200);
    // Somebody of another organisation has the email.
    let body = json!({"email": "taken@example.org"});
    let other = &world.other.admin;
    world.patch("/v1/auth/me", other, body).await.ok(200);
    let (_, taken) = invite(owner, "taken@example.org", "member").await;
    let (_, late) = invite(owner, "late@example.org", "member").await;
    let unknown = format!("invite_{}", "A".repeat(43));
    let mut answers = Vec::new();
    let mut accept = async |token: &str| {
        let body = json!({"token": token, "password": PASSWORD});
        let answer = world
            .post("/v1/auth/accept-invitation", &NOBODY, body)
            .await;
        let mut text = answer.json();
        text["instance"] = json!(null);
        answers.push(text);
        answer.refused(401, "unauthenticated");
    };
    for token in [&one, &replaced, &demoted, &taken, &unknown, "x"] {
        accept(token).await;
    }
    world.clock.advance(Duration::from_hours(7 * 24));
    accept(&late).await;
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn nobody_raises_anybody_above_themselves() {
    let world = World::new().await;
    let owner = &world.home.admin;
    let owner_id = id_of(&world, owner).await;
    let (admin_id, admin) = world.person("admin@example.org", "admin").await;
    let (member_id, member) = world.person("member@example.org", "member").await;
    let set = async |who, id: &str, role: &str| {
        let path = format!("/v1/org/members/{id}");
        world.patch(&path, who, json!({"role": role})).await
    };
    let invite = async |who, role: &str| {
        let body = json!({"email": "new@example.org", "role": role});
        world.post("/v1/org/invitations", who, body).await
    };
    for refused in [
        set(&admin, &member_id, "owner").await,
        set(&admin, &admin_id, "owner").await,
        set(&admin, &admin_id, "member").await,
        set(&admin, &owner_id, "member").await,
        set(&member, &member_id, "admin").await,
        set(&member, &admin_id, "auditor").await,
        set(owner, &owner_id, "member").await,
        invite(&admin, "owner").await,
        invite(&member, "member").await,
        world
            .delete(&format!("/v1/org/members/{owner_id}"), &admin)
            .await,
        world
            .delete(&format!("/v1/org/members/{admin_id}"), &member)
            .await,
    ] {
        refused.refused(403, "forbidden");
    }
    let refused = set(owner, &member_id, "root").await;
    refused.refused(400, "invalid_request");
    let both = json!({"role": "admin", "org_id": world.other.org});
    let path = format!("/v1/org/members/{member_id}");
    let refused = world.patch(&path, owner, both).await;
    refused.refused(400, "unknown_field");
    assert_eq!(
        set(&admin, &member_id, "auditor").await.ok(200)["role"],
        "auditor"
    );
    invite(&admin, "admin").await.ok(201);
}

#[tokio::test]
async fn a_change_of_role_ends_the_sessions_and_holds_for_keys_at_once() {
    let world = World::new().await;
    let owner = &world.home.admin;
    let (id, session) = world.person("ada@example.org", "admin").await;
    let key = world.post("/v1/auth/api-keys", &session, json!({"name": "k"}));
    let key = holder(key.await.field("/api_key"));
    world.get("/v1/org/invitations", &key).await.ok(200);
    let path = format!("/v1/org/members/{id}");
    let body = json!({"role": "member"});
    world.patch(&path, owner, body.clone()).await.ok(200);
    let refused = world.get("/v1/auth/me", &session).await;
    refused.refused(401, "unauthenticated");
    let refused = world.get("/v1/org/invitations", &key).await;
    refused.refused(403, "forbidden");
    // The same role again ends nothing.
    let token = world.post("/v1/auth/api-key-token", &NOBODY, json!({"api_key": key.0}));
    let token = holder(token.await.field("/access_token"));
    world.patch(&path, owner, body).await.ok(200);
    world.get("/v1/auth/me", &token).await.ok(200);
}

#[tokio::test]
async fn there_is_always_an_owner() {
    let world = World::new().await;
    let owner = &world.home.admin;
    let owner_id = id_of(&world, owner).await;
    let path = format!("/v1/org/members/{owner_id}");
    world.delete(&path, owner).await.refused(403, "last_owner");
    let (second_id, second) = world.person("second@example.org", "owner").await;
    // Two owners who demote each other at once leave one.
    let body = json!({"role": "member"});
    let other = format!("/v1/org/members/{second_id}");
    let (one, two) = tokio::join!(
        world.patch(&other, owner, body.clone()),
        world.patch(&path, &second, body)
    );
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert!(matches!(statuses, [200, 401 | 403]), "{statuses:?}");
    let members = world.get("/v1/org/members", owner).await.ok(200);
    let owners = members["members"].as_array().unwrap().iter();
    assert_eq!(owners.filter(|member| member["role"] == "owner").count(), 1);
}

#[tokio::test]
async fn whoever_is_removed_is_out_at_once_and_leaves_the_email() {
    let world = World::new().await;
    let owner = &world.home.admin;
    let (id, session) = world.person("ada@example.org", "admin").await;
    let key = world.post("/v1/auth/api-keys", &session, json!({"name": "k"}));
    let key = holder(key.await.field("/api_key"));
    let path = format!("/v1/org/members/{id}");
    world.delete(&path, owner).await.ok(204);
    world.delete(&path, owner).await.refused(404, "not_found");
    for ended in [&session, &key] {
        let refused = world.get("/v1/auth/me", ended).await;
        refused.refused(401, "unauthenticated");
    }
    let body = json!({"email": "ada@example.org", "password": PASSWORD});
    let refused = world.post("/v1/auth/token", &NOBODY, body).await;
    refused.refused(401, "unauthenticated");
    let members = world.get("/v1/org/members", owner).await;
    assert!(!members.text.contains("ada@example.org"));
    let (again, _) = world.person("ada@example.org", "member").await;
    assert_ne!(again, id);
}

fn from(address: &str, request: Request<Body>) -> Request<Body> {
    let mut request = request;
    let peer = SocketAddr::from((address.parse::<std::net::IpAddr>().unwrap(), 4711));
    request.extensions_mut().insert(ConnectInfo(peer));
    request
}

#[tokio::test]
async fn address_rules_hold_for_every_call_and_headers_change_nothing() {
    let world = World::new().await;
    let owner = &world.home.admin;
    let (_, agent) = world.agent(owner, "bot").await;
    let (_, ada) = world.person("ada@example.org", "member").await;
    let body = json!({"rule_type": "allow", "cidr": "192.0.2.0/24", "description": "office"});
    let rule = world
        .post("/v1/security/ip-rules", owner, body)
        .await
        .ok(201);
    assert_eq!(rule["cidr"], "192.0.2.0/24");
    world.get("/v1/auth/me", owner).await.ok(200);
    let ask = |address: &'static str, method: Method, path: &'static str, who, body| {
        let mut request = request(method, path, who, body);
        for name in ["x-forwarded-for", "x-real-ip", "forwarded"] {
            request
                .headers_mut()
                .insert(name, "192.0.2.7".parse().unwrap());
        }
        world.send(from(address, request))
    };
    for outside in ["198.51.100.1", "2001:db8::1", "::ffff:198.51.100.1"] {
        for who in [owner, &ada] {
            let refused = ask(outside, Method::GET, "/v1/auth/me", who, None).await;
            refused.refused(403, "address_denied");
        }
        let refused = ask(outside, Method::GET, "/v1/vault/leases", &agent, None).await;
        refused.refused(403, "address_denied");
        for (path, body) in [
            ("/v1/auth/agent-token", json!({"api_key": agent.0})),
            ("/v1/auth/api-key-token", json!({"api_key": owner.0})),
        ] {
            let refused = ask(outside, Method::POST, path, &NOBODY, Some(body)).await;
            refused.refused(403, "address_denied");
        }
        // Whether a password is right, nobody learns from there.
        let mut answers = Vec::new();
        for password in [PASSWORD, "Wrong-horse7battery"] {
            let body = json!({"email": "ada@example.org", "password": password});
            let refused = ask(outside, Method::POST, "/v1/auth/token", &NOBODY, Some(body)).await;
            let mut answer = refused.json();
            answer["instance"] = json!(null);
            answers.push(answer);
            refused.refused(401, "unauthenticated");
        }
        assert_eq!(answers[0], answers[1]);
        // A bad credential is a bad credential from anywhere.
        let refused = ask(outside, Method::GET, "/v1/auth/me", &NOBODY, None).await;
        refused.refused(401, "unauthenticated");
    }
    let inside = ask("::ffff:192.0.2.9", Method::GET, "/v1/auth/me", owner, None).await;
    inside.ok(200);
    // Another organisation has rules of its own.
    let other = &world.other.admin;
    let free = ask(
        "198.51.100.1",
        Method::GET,
        "/v1/security/ip-rules",
        other,
        None,
    )
    .await;
    assert_eq!(free.ok(200)["ip_rules"], json!([]));
    let denied = world.events("?action=auth.failure").await;
    assert!(
        denied
            .iter()
            .any(|event| event["error"] == "address_denied")
    );
}

#[tokio::test]
async fn a_rule_that_would_shut_its_maker_out_needs_force() {
    let world = World::new().await;
    let owner = &world.home.admin;
    let add = |body: Value| world.post("/v1/security/ip-rules", owner, body);
    for body in [
        json!({"rule_type": "block", "cidr": "192.0.2.7"}),
        json!({"rule_type": "deny", "cidr": "192.0.2.0/24"}),
        json!({"rule_type": "allow", "cidr": "198.51.100.0/24"}),
        json!({"rule_type": "block", "cidr": "0.0.0.0/0"}),
    ] {
        add(body).await.refused(409, "would_shut_out");
    }
    for (body, code) in [
        (
            json!({"rule_type": "maybe", "cidr": "192.0.2.0/24"}),
            "invalid_request",
        ),
        (
            json!({"rule_type": "allow", "cidr": "192.0.2.0/33"}),
            "invalid_request",
        ),
        (
            json!({"rule_type": "allow", "cidr": "everywhere"}),
            "invalid_request",
        ),
        (
            json!({"rule_type": "allow", "cidr": "192.0.2.0/24", "applies_to": "agents"}),
            "unknown_field",
        ),
    ] {
        add(body).await.refused(400, code);
    }
    let own = json!({"rule_type": "allow", "cidr": "192.0.2.7/24"});
    let own = add(own).await.ok(201);
    assert_eq!(
        own["cidr"], "192.0.2.0/24",
        "what lies below the mask is left out"
    );
    add(json!({"rule_type": "allow", "cidr": "198.51.100.0/24"}))
        .await
        .ok(201);
    let path = format!("/v1/security/ip-rules/{}", own["id"].as_str().unwrap());
    world
        .delete(&path, owner)
        .await
        .refused(409, "would_shut_out");
    let forced = format!("{path}?force=true");
    world.delete(&forced, owner).await.ok(204);
    world
        .get("/v1/auth/me", owner)
        .await
        .refused(403, "address_denied");
}
