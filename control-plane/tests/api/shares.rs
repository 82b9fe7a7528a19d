//! Shares: for whom they open, how often, how long, and what everybody else is told.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::http::{Method, header};
use control_plane::{Limits, PeopleOptions, SignUp};
use futures::future::join_all;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::people::id_of;
use crate::support::{
    Answer, Base, CANARY, NOBODY, PASSWORD, Setup, Who, World, holder, nobody, request,
};

/// A world in which a thousand shares may fail to open before an address is held back.
async fn world() -> World {
    on(Base::File).await
}

async fn on(base: Base) -> World {
    World::of(Setup {
        base,
        limits: Limits {
            auth_failure_burst: 1000.try_into().unwrap(),
            ..Limits::default()
        },
        people: Some(PeopleOptions {
            sign_up: SignUp::Open,
            sign_in_burst: 1000.try_into().unwrap(),
            ..PeopleOptions::default()
        }),
        ..Setup::default()
    })
    .await
}

/// In so many minutes.
fn soon(world: &World, minutes: u64) -> String {
    use ::leases::clock::Clock as _;
    let at = world.clock.now() + Duration::from_mins(minutes);
    at.format(&Rfc3339).unwrap()
}

/// Stores the canary; the version's id.
async fn secret(world: &World, path: &str) -> String {
    let path = format!("/v1/vaults/default/secrets/{path}");
    let body = json!({"type": "api_key", "value": CANARY});
    world.put(&path, &world.home.admin, body).await.field("/id")
}

/// Asks for a share, of an hour unless `more` says otherwise.
async fn ask(world: &World, who: &Who, secret: &str, more: Value) -> Answer {
    let mut body = json!({"expires_at": soon(world, 60)});
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let path = format!("/v1/secrets/{secret}/share");
    world.post(&path, who, body).await
}

/// A share of the home organisation with a link; what the link says and the share's id.
async fn link(world: &World, more: Value) -> (String, String) {
    let secret = secret(world, "shared/key").await;
    let mut body = json!({"recipient_type": "anyone_with_link"});
    let fields = body.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let made = ask(world, &world.home.admin, &secret, body).await;
    (made.field("/id"), made.field("/share_id"))
}

/// The id of a share, for other tests.
pub(crate) async fn shared(world: &World) -> String {
    link(world, json!({})).await.1
}

async fn open(world: &World, id: &str, who: &Who) -> Answer {
    world.get(&format!("/v1/share/{id}"), who).await
}

async fn access(world: &World, id: &str, passphrase: &str) -> Answer {
    let path = format!("/v1/shares/{id}/access");
    world
        .post(&path, &NOBODY, json!({"passphrase": passphrase}))
        .await
}

/// Settles a share by `accept` or `decline`.
async fn settle(world: &World, id: &str, how: &str, who: &Who) -> Answer {
    let path = format!("/v1/shares/{id}/{how}");
    world.send(request(Method::POST, &path, who, None)).await
}

/// What everybody is told for whom a share does not open.
async fn closed(world: &World) -> String {
    let unknown = format!("share_{}", "A".repeat(43));
    open(world, &unknown, &NOBODY)
        .await
        .refused(404, "not_found")
}

#[tokio::test]
async fn a_link_gives_the_value_to_anybody_as_often_as_it_may() {
    let world = world().await;
    let (id, share_id) = link(&world, json!({"max_access_count": 2})).await;
    assert!(id.starts_with("share_") && id.len() == 49, "{id}");
    for count in [1, 2] {
        let opened = open(&world, &id, &NOBODY).await;
        assert_eq!(opened.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(opened.headers[header::REFERRER_POLICY], "no-referrer");
        let opened = opened.ok(200);
        assert_eq!(opened["value"], CANARY);
        assert_eq!(opened["path"], "shared/key");
        assert_eq!(opened["type"], "api_key");
        assert_eq!(opened["access_count"], count);
        assert_eq!(opened["max_access_count"], 2);
        assert_eq!(opened["id"], share_id);
    }
    let detail = open(&world, &id, &NOBODY).await.refused(404, "not_found");
    assert_eq!(detail, closed(&world).await);
    // By its id it opens for nobody, not even for its maker.
    let by_id = open(&world, &share_id, &world.home.admin).await;
    assert_eq!(by_id.refused(404, "not_found"), detail);
    let shown = world
        .get(&format!("/v1/shares/{share_id}"), &world.home.admin)
        .await;
    assert!(!shown.text.contains(&id) && !shown.text.contains(CANARY));
    let shown = shown.ok(200);
    assert_eq!(shown["access_count"], 2);
    assert_eq!(shown["export"], true);
    let listed = world.get("/v1/shares/outbound", &world.home.admin).await;
    assert!(!listed.text.contains(&id));
    assert_eq!(listed.ok(200)["shares"], json!([shown]));
}

#[tokio::test]
async fn of_50_who_open_a_link_at_once_one_gets_the_value() {
    for base in [Base::File, Base::Postgres] {
        let world = on(base).await;
        let (id, _) = link(&world, json!({"max_access_count": 1})).await;
        let answers = join_all((0..50).map(|_| open(&world, &id, &NOBODY))).await;
        let got = answers
            .iter()
            .filter(|answer| answer.status == 200 && answer.text.contains(CANARY));
        assert_eq!(got.count(), 1);
        let others = answers.iter().filter(|answer| answer.status == 404);
        assert_eq!(others.count(), 49);
    }
}

#[tokio::test]
async fn whatever_keeps_a_share_closed_the_answer_is_one() {
    let world = world().await;
    let admin = &world.home.admin;
    let same = closed(&world).await;
    let check = async |id: &str| {
        let answer = open(&world, id, &NOBODY).await.refused(404, "not_found");
        assert_eq!(answer, same);
        let answer = access(&world, id, "a wrong passphrase").await;
        assert_eq!(answer.refused(404, "not_found"), same);
    };
    let (revoked, _) = link(&world, json!({})).await;
    open(&world, &revoked, &NOBODY).await.ok(200);
    let path = format!("/v1/share/{revoked}");
    world.delete(&path, admin).await.ok(204);
    world.delete(&path, admin).await.refused(404, "not_found");
    check(&revoked).await;
    let (elsewhere, _) = link(&world, json!({"ip_allowlist": ["198.51.100.0/24"]})).await;
    check(&elsewhere).await;
    let mut from_there = request(
        Method::GET,
        &format!("/v1/share/{elsewhere}"),
        &NOBODY,
        None,
    );
    let peer = SocketAddr::from(([198, 51, 100, 9], 4711));
    from_there.extensions_mut().insert(ConnectInfo(peer));
    world.send(from_there).await.ok(200);
    let (locked, _) = link(&world, json!({"passphrase": "open sesame"})).await;
    check(&locked).await;
    let (ended, _) = link(&world, json!({"expires_at": soon(&world, 5)})).await;
    open(&world, &ended, &NOBODY).await.ok(200);
    let (gone, _) = link(&world, json!({})).await;
    let path = "/v1/vaults/default/secrets/shared/key";
    world.delete(path, admin).await.ok(204);
    check(&gone).await;
    world.clock.advance(Duration::from_mins(5));
    check(&ended).await;
    for odd in ["x", "share_", "shr_01ARZ3NDEKTSV4RRFFQ69G5FAV", "share_%00"] {
        check(odd).await;
    }
    // Nothing of it is in the trail but that it happened, and why.
    let events = world.events("?action=secret.export").await;
    let told: Vec<&str> = events
        .iter()
        .filter_map(|event| event["error"].as_str())
        .collect();
    for reason in ["share_revoked", "share_address", "share_passphrase"] {
        assert!(told.contains(&reason), "{told:?}");
    }
    let all = world.events("").await;
    let all = serde_json::to_string(&all).unwrap();
    for secret in [&revoked, &elsewhere, &locked, &ended, &gone] {
        assert!(!all.contains(secret.as_str()));
    }
    assert!(!all.contains("sesame") && !all.contains(CANARY));
}

#[tokio::test]
async fn a_head_uses_nothing_up() {
    let world = world().await;
    let (id, share_id) = link(&world, json!({"max_access_count": 1})).await;
    let path = format!("/v1/share/{id}");
    let head = request(Method::HEAD, &path, &NOBODY, None);
    assert_eq!(world.send(head).await.status, 405);
    let path = format!("/v1/shares/{share_id}");
    let shown = world.get(&path, &world.home.admin).await.ok(200);
    assert_eq!(shown["access_count"], 0);
}

#[tokio::test]
async fn a_passphrase_is_tried_ten_times_and_then_never_again() {
    for base in [Base::File, Base::Postgres] {
        let world = on(base).await;
        let (id, share_id) = link(&world, json!({"passphrase": "open sesame"})).await;
        let path = format!("/v1/shares/{share_id}");
        let shown = world.get(&path, &world.home.admin).await.ok(200);
        assert_eq!(shown["has_passphrase"], true);
        for _ in 0..9 {
            access(&world, &id, "guess").await.refused(404, "not_found");
        }
        let opened = access(&world, &id, "open sesame").await.ok(200);
        assert_eq!(opened["value"], CANARY);
        // A right one gives the tries back; ten wrong ones take the share away, also from who knows it.
        for _ in 0..10 {
            access(&world, &id, "guess").await.refused(404, "not_found");
        }
        let late = access(&world, &id, "open sesame").await;
        assert_eq!(late.refused(404, "not_found"), closed(&world).await);
    }
}

#[tokio::test]
async fn a_passphrase_that_was_not_asked_for_does_no_harm() {
    let world = world().await;
    let (id, _) = link(&world, json!({})).await;
    access(&world, &id, "for nothing").await.ok(200);
    let path = format!("/v1/shares/{id}/access");
    let bare = request(Method::POST, &path, &NOBODY, None);
    world.send(bare).await.ok(200);
}

#[tokio::test]
async fn passphrases_from_one_address_are_limited_and_so_are_shares_that_do_not_open() {
    let world = World::of(Setup {
        limits: Limits {
            auth_failure_burst: 3.try_into().unwrap(),
            ..Limits::default()
        },
        people: Some(PeopleOptions {
            sign_in_burst: 2.try_into().unwrap(),
            ..PeopleOptions::default()
        }),
        ..Setup::default()
    })
    .await;
    let (id, _) = link(&world, json!({"passphrase": "open sesame"})).await;
    for _ in 0..2 {
        access(&world, &id, "open sesame").await.ok(200);
    }
    access(&world, &id, "open sesame")
        .await
        .refused(429, "rate_limited");
    for _ in 0..3 {
        open(&world, &id, &NOBODY).await.refused(404, "not_found");
    }
    open(&world, &id, &NOBODY)
        .await
        .refused(429, "rate_limited");
    // Nobody who may open one is held back by it.
    let (free, _) = link(&world, json!({})).await;
    open(&world, &free, &NOBODY).await.ok(200);
}

#[tokio::test]
async fn an_organisation_makes_ten_shares_a_minute() {
    for base in [Base::File, Base::Postgres] {
        let world = on(base).await;
        let secret = secret(&world, "k").await;
        let body = json!({"recipient_type": "anyone_with_link"});
        let admin = &world.home.admin;
        let all = join_all((0..25).map(|_| ask(&world, admin, &secret, body.clone()))).await;
        let made = all.iter().filter(|answer| answer.status == 201);
        assert_eq!(made.count(), 10);
        for refused in all.into_iter().filter(|answer| answer.status != 201) {
            let wait = refused.headers[header::RETRY_AFTER].to_str().unwrap();
            assert!((50..=60).contains(&wait.parse::<u64>().unwrap()), "{wait}");
            refused.refused(429, "rate_limited");
        }
        world.clock.advance(Duration::from_secs(61));
        ask(&world, admin, &secret, body).await.ok(201);
    }
}

#[tokio::test]
async fn a_repeated_creation_makes_one_share_and_shows_its_link_again() {
    let world = world().await;
    let secret = secret(&world, "k").await;
    let body = json!({"recipient_type": "anyone_with_link", "expires_at": soon(&world, 9)});
    let path = format!("/v1/secrets/{secret}/share");
    let again = || {
        let mut request = request(Method::POST, &path, &world.home.admin, Some(body.clone()));
        let key = "idempotency-key".parse::<header::HeaderName>().unwrap();
        request.headers_mut().insert(key, "once".parse().unwrap());
        world.send(request)
    };
    let first = again().await.ok(201);
    assert_eq!(again().await.ok(201), first);
    let listed = world.get("/v1/shares/outbound", &world.home.admin).await;
    assert_eq!(listed.ok(200)["shares"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_person_accepts_opens_and_declines_and_nobody_else_sees_it() {
    let world = world().await;
    let (bob_id, bob) = world.person("bob@example.org", "member").await;
    let (_, eve) = world.person("eve@example.org", "member").await;
    let admin = &world.home.admin;
    let secret = secret(&world, "k").await;
    let body = json!({"recipient_type": "user", "recipient_id": bob_id});
    let made = ask(&world, admin, &secret, body).await.ok(201);
    let id = made["id"].as_str().unwrap();
    assert_eq!(made["share_url"], format!("/v1/share/{id}"));
    let same = closed(&world).await;
    open(&world, id, &bob).await.refused(404, "not_found");
    for other in [&eve, admin, &world.other.admin, &NOBODY] {
        assert_eq!(
            open(&world, id, other).await.refused(404, "not_found"),
            same
        );
    }
    for other in [&eve, admin, &world.other.admin] {
        settle(&world, id, "accept", other)
            .await
            .refused(404, "not_found");
        settle(&world, id, "decline", other)
            .await
            .refused(404, "not_found");
    }
    let inbound = world.get("/v1/shares/inbound", &bob).await.ok(200);
    assert_eq!(inbound["shares"][0]["secret_path"], "k");
    assert_eq!(inbound["shares"][0]["is_accepted"], false);
    settle(&world, id, "accept", &bob).await.ok(204);
    settle(&world, id, "accept", &bob).await.ok(204);
    assert_eq!(open(&world, id, &bob).await.ok(200)["value"], CANARY);
    for other in [&eve, admin, &world.other.admin, &NOBODY] {
        assert_eq!(
            open(&world, id, other).await.refused(404, "not_found"),
            same
        );
    }
    let path = format!("/v1/shares/{id}");
    world.get(&path, &bob).await.ok(200);
    world.get(&path, &eve).await.refused(404, "not_found");
    world
        .delete(&format!("/v1/share/{id}"), &bob)
        .await
        .refused(404, "not_found");
    world
        .delete(&format!("/v1/share/{id}"), &eve)
        .await
        .refused(404, "not_found");
    let inbound = world.get("/v1/shares/inbound", &eve).await.ok(200);
    assert_eq!(inbound["shares"], json!([]));
    settle(&world, id, "decline", &bob).await.ok(204);
    open(&world, id, &bob).await.refused(404, "not_found");
    let opened = world.events("?action=secret.export").await;
    let opened: Vec<&Value> = opened
        .iter()
        .filter(|event| event["decision"] == "allow")
        .collect();
    assert_eq!(opened.len(), 1);
    assert_eq!(opened[0]["actor_id"], bob_id);
    assert_eq!(opened[0]["keys"], json!(["k", id]));
    // A bad credential is a bad credential here too.
    let bad = holder("1ck_bad");
    open(&world, id, &bad).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn only_who_may_read_a_secret_may_share_it() {
    let world = world().await;
    let (eve_id, eve) = world.person("eve@example.org", "member").await;
    let (_, auditor) = world.person("auditor@example.org", "auditor").await;
    let secret = secret(&world, "team/key").await;
    let body = json!({"recipient_type": "anyone_with_link"});
    let refused = ask(&world, &auditor, &secret, body.clone()).await;
    refused.refused(403, "forbidden");
    let foreign = ask(&world, &world.other.admin, &secret, body.clone()).await;
    foreign.refused(404, "not_found");
    let made = ask(&world, &eve, &secret, body.clone()).await.ok(201);
    let link = made["id"].as_str().unwrap();
    open(&world, link, &NOBODY).await.ok(200);
    // What a policy takes from its maker it takes from the share.
    let policy = json!({"secret_path_pattern": "team/**", "principal_type": "user", "principal_id": eve_id,
        "permissions": ["read"], "effect": "deny"});
    let path = "/v1/vaults/default/policies";
    world.post(path, &world.home.admin, policy).await.ok(201);
    ask(&world, &eve, &secret, body.clone())
        .await
        .refused(403, "policy_denied");
    open(&world, link, &NOBODY).await.refused(404, "not_found");
    // And from whom it is shared with.
    let to_eve = json!({"recipient_type": "user", "recipient_id": eve_id});
    let made = ask(&world, &world.home.admin, &secret, to_eve)
        .await
        .ok(201);
    let id = made["id"].as_str().unwrap();
    settle(&world, id, "accept", &eve).await.ok(204);
    open(&world, id, &eve).await.refused(404, "not_found");
    // An auditor opens nothing.
    let auditor_id = id_of(&world, &auditor).await;
    let to_auditor = json!({"recipient_type": "user", "recipient_id": auditor_id});
    let made = ask(&world, &world.home.admin, &secret, to_auditor)
        .await
        .ok(201);
    let id = made["id"].as_str().unwrap();
    open(&world, id, &auditor).await.refused(403, "forbidden");
}

#[tokio::test]
async fn an_agent_shares_what_it_may_read_with_its_creator_alone() {
    let world = world().await;
    let (bob_id, bob) = world.person("bob@example.org", "member").await;
    let (agent_id, agent) = world.agent(&bob, "bot").await;
    let secret = secret(&world, "found/key").await;
    let creator = json!({"recipient_type": "creator"});
    // To an agent without a policy there is no such secret.
    let refused = ask(&world, &agent, &secret, creator.clone()).await;
    let unknown = refused.refused(404, "not_found");
    assert!(!unknown.contains("found/key"));
    let policy = json!({"secret_path_pattern": "found/*", "principal_type": "agent", "principal_id": agent_id, "permissions": ["read"]});
    let path = "/v1/vaults/default/policies";
    let policy = world
        .post(path, &world.home.admin, policy)
        .await
        .field("/id");
    for other in [
        json!({"recipient_type": "anyone_with_link"}),
        json!({"recipient_type": "user", "recipient_id": bob_id}),
        json!({"recipient_type": "agent", "recipient_id": agent_id}),
        json!({"recipient_type": "external_email", "email": "x@example.org"}),
    ] {
        ask(&world, &agent, &secret, other)
            .await
            .refused(403, "forbidden");
    }
    let made = ask(&world, &agent, &secret, creator.clone()).await.ok(201);
    assert_eq!(made["recipient_id"], bob_id);
    let id = made["id"].as_str().unwrap();
    settle(&world, id, "accept", &agent)
        .await
        .refused(404, "not_found");
    settle(&world, id, "accept", &bob).await.ok(204);
    assert_eq!(open(&world, id, &bob).await.ok(200)["value"], CANARY);
    let outbound = world.get("/v1/shares/outbound", &agent).await.ok(200);
    assert_eq!(outbound["shares"][0]["id"], id);
    // Without its policy, what it shared is closed.
    let path = format!("/v1/vaults/default/policies/{policy}");
    world.delete(&path, &world.home.admin).await.ok(204);
    open(&world, id, &bob).await.refused(404, "not_found");
    // A person is no agent.
    let person = ask(&world, &bob, &secret, creator).await;
    person.refused(400, "invalid_request");
}

#[tokio::test]
async fn a_share_to_an_agent_is_an_export_and_has_to_say_so() {
    let world = world().await;
    let (agent_id, agent) = world.agent(&world.home.admin, "bot").await;
    let secret = secret(&world, "k").await;
    let admin = &world.home.admin;
    let body = json!({"recipient_type": "agent", "recipient_id": agent_id});
    let refused = ask(&world, admin, &secret, body.clone()).await;
    let detail = refused.refused(403, "export_denied");
    assert!(detail.contains("export_plaintext"), "{detail}");
    let mut body = body;
    body["permissions"] = json!(["read", "export_plaintext"]);
    let made = ask(&world, admin, &secret, body).await.ok(201);
    assert_eq!(made["export"], true);
    let id = made["id"].as_str().unwrap();
    let inbound = world.get("/v1/shares/inbound", &agent).await.ok(200);
    assert_eq!(inbound["shares"][0]["export"], true);
    open(&world, id, &agent).await.refused(404, "not_found");
    settle(&world, id, "accept", &agent).await.ok(204);
    assert_eq!(open(&world, id, &agent).await.ok(200)["value"], CANARY);
    let events = world.events("?action=secret.export").await;
    let opened = events.iter().find(|event| event["decision"] == "allow");
    assert_eq!(opened.unwrap()["agent_id"], agent_id);
}

#[tokio::test]
async fn an_entry_of_a_set_is_shared_by_people_who_say_that_it_is_an_export() {
    let world = world().await;
    let admin = &world.home.admin;
    let set = world.stripe_set(admin, "billing").await;
    let listed = world
        .get(
            "/v1/vaults/default/secrets?prefix=stripe/prod/billing",
            admin,
        )
        .await;
    let secret = listed.field("/secrets/0/id");
    let mut body = json!({"recipient_type": "anyone_with_link"});
    let refused = ask(&world, admin, &secret, body.clone()).await;
    refused.refused(403, "export_denied");
    body["permissions"] = json!(["export_plaintext"]);
    let made = ask(&world, admin, &secret, body).await.ok(201);
    let link = made["id"].as_str().unwrap();
    assert_eq!(open(&world, link, &NOBODY).await.ok(200)["value"], CANARY);
    // An agent that reads the path by a policy still shares no entry.
    let (agent_id, agent) = world.agent(admin, "bot").await;
    let policy =
        json!({"principal_type": "agent", "principal_id": agent_id, "permissions": ["read"]});
    let path = "/v1/vaults/default/policies";
    world.post(path, admin, policy).await.ok(201);
    let creator = json!({"recipient_type": "creator", "permissions": ["export_plaintext"]});
    let refused = ask(&world, &agent, &secret, creator).await;
    refused.refused(403, "export_denied");
    let path = format!("/v1/vault/secret-sets/{set}");
    world.delete(&path, admin).await.ok(204);
    open(&world, link, &NOBODY).await.refused(404, "not_found");
}

#[tokio::test]
async fn every_version_is_shared_by_its_own_id() {
    let world = world().await;
    let first = secret(&world, "k").await;
    let body = json!({"value": "the second value"});
    let path = "/v1/vaults/default/secrets/k";
    let second = world.put(path, &world.home.admin, body).await.field("/id");
    for (id, version, value) in [(first, 1, CANARY), (second, 2, "the second value")] {
        let body = json!({"recipient_type": "anyone_with_link"});
        let made = ask(&world, &world.home.admin, &id, body).await;
        let opened = open(&world, &made.field("/id"), &NOBODY).await.ok(200);
        assert_eq!(
            (&opened["version"], &opened["value"]),
            (&json!(version), &json!(value))
        );
    }
}

#[tokio::test]
async fn what_is_shared_with_an_email_waits_for_whoever_signs_in_with_it() {
    let world = world().await;
    let secret = secret(&world, "k").await;
    let to = |email: &str| json!({"recipient_type": "external_email", "email": email});
    let admin = &world.home.admin;
    let made = ask(&world, admin, &secret, to("Bob@Example.org"))
        .await
        .ok(201);
    assert_eq!(made["recipient_email"], "bob@example.org");
    let id = made["id"].as_str().unwrap();
    let link = made["share_url"].as_str().unwrap();
    let link = link.strip_prefix("/v1/share/").unwrap();
    assert!(id.starts_with("shr_") && link.starts_with("share_"));
    // The link alone opens nothing.
    open(&world, link, &NOBODY).await.refused(404, "not_found");

    // Somebody signs up with that email: it is theirs, but only the link shows that they read the mailbox.
    let sign_up = async |email: &str| {
        let body = json!({"email": email, "password": PASSWORD});
        world
            .post("/v1/auth/signup", &NOBODY, body.clone())
            .await
            .ok(201);
        let token = world.post("/v1/auth/token", &NOBODY, body).await;
        holder(token.field("/access_token"))
    };
    let bob = sign_up("bob@example.org").await;
    let eve = sign_up("eve@example.org").await;
    let inbound = world.get("/v1/shares/inbound", &bob).await.ok(200);
    assert_eq!(inbound["shares"][0]["id"], id);
    assert_eq!(inbound["shares"][0]["secret_path"], Value::Null);
    assert_eq!(inbound["shares"][0]["recipient_email"], "bob@example.org");
    let others = world.get("/v1/shares/inbound", &eve).await.ok(200);
    assert_eq!(others["shares"], json!([]));
    settle(&world, id, "accept", &bob)
        .await
        .refused(403, "forbidden");
    settle(&world, link, "accept", &eve)
        .await
        .refused(404, "not_found");
    open(&world, link, &bob).await.refused(404, "not_found");
    settle(&world, link, "accept", &bob).await.ok(204);
    assert_eq!(open(&world, id, &bob).await.ok(200)["value"], CANARY);
    assert_eq!(open(&world, link, &bob).await.ok(200)["value"], CANARY);
    for other in [&eve, &NOBODY, admin] {
        open(&world, link, other).await.refused(404, "not_found");
    }
    let actions = world.events("").await;
    let of_share = actions
        .iter()
        .filter(|event| event["keys"] == json!(["k", id]))
        .map(|event| event["action"].as_str().unwrap());
    let of_share: Vec<&str> = of_share.collect();
    for action in [
        "share.create",
        "share.claim",
        "share.accept",
        "secret.export",
    ] {
        assert!(of_share.contains(&action), "{of_share:?}");
    }

    // Whom the organisation itself invited by the email needs no link.
    let made = ask(&world, admin, &secret, to("carol@example.org")).await;
    let id = made.field("/id");
    let (_, carol) = world.person("carol@example.org", "member").await;
    settle(&world, &id, "accept", &carol).await.ok(204);
    open(&world, &id, &carol).await.ok(200);
    // Who took an email for themselves does.
    let made = ask(&world, admin, &secret, to("dave@example.org")).await;
    let id = made.field("/id");
    let patch = json!({"email": "dave@example.org", "current_password": PASSWORD});
    world.patch("/v1/auth/me", &carol, patch).await.ok(200);
    settle(&world, &id, "accept", &carol).await;
    open(&world, &id, &carol).await.refused(404, "not_found");
}

#[tokio::test]
async fn what_is_no_share_is_not_made() {
    let world = world().await;
    let secret = secret(&world, "k").await;
    let admin = &world.home.admin;
    let link = json!({"recipient_type": "anyone_with_link"});
    for (more, names) in [
        (json!({"recipient_type": "everybody"}), "recipient_type"),
        (json!({"recipient_type": "user"}), "recipient_id"),
        (json!({"recipient_type": "external_email"}), "email"),
        (
            json!({"recipient_type": "external_email", "email": "no"}),
            "email",
        ),
        (json!({"recipient_id": "usr_x"}), "recipient_id"),
        (json!({"email": "a@example.org"}), "email"),
        (json!({"expires_at": "2026-11-22T06:59:59Z"}), "expires_at"),
        (json!({"expires_at": "2027-11-22T07:00:00Z"}), "expires_at"),
        (json!({"expires_at": "tomorrow"}), "expires_at"),
        (json!({"passphrase": "short"}), "passphrase"),
        (json!({"passphrase": "x".repeat(129)}), "passphrase"),
        (json!({"ip_allowlist": ["here"]}), "ip_allowlist"),
        (
            json!({"ip_allowlist": (vec!["10.0.0.0/8"; 65])}),
            "ip_allowlist",
        ),
        (json!({"permissions": ["write"]}), "permissions"),
        (json!({"max_access_count": -1}), "max_access_count"),
    ] {
        let mut body = link.clone();
        let fields = body.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let refused = ask(&world, admin, &secret, body).await;
        let detail = refused.refused(400, "invalid_request");
        assert!(detail.contains(names), "{more}: {detail}");
    }
    let mut typo = link.clone();
    typo["max_acess_count"] = json!(1);
    ask(&world, admin, &secret, typo)
        .await
        .refused(400, "unknown_field");
    let path = format!("/v1/secrets/{secret}/share");
    let endless = world.post(&path, admin, link.clone()).await;
    endless.refused(400, "invalid_request");
    let unknown = "sec_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    ask(&world, admin, unknown, link)
        .await
        .refused(404, "not_found");
    let nobody_there =
        json!({"recipient_type": "user", "recipient_id": "usr_01ARZ3NDEKTSV4RRFFQ69G5FAV"});
    ask(&world, admin, &secret, nobody_there)
        .await
        .refused(404, "not_found");
    ask(&world, &nobody(), &secret, json!({}))
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test]
async fn admins_see_and_end_what_everybody_shared() {
    let world = world().await;
    let (_, eve) = world.person("eve@example.org", "member").await;
    let secret = secret(&world, "k").await;
    let body = json!({"recipient_type": "anyone_with_link"});
    let made = ask(&world, &eve, &secret, body).await.ok(201);
    let id = made["share_id"].as_str().unwrap();
    let admin = &world.home.admin;
    let mine = world.get("/v1/shares/outbound", admin).await.ok(200);
    assert_eq!(mine["shares"], json!([]));
    let all = world
        .get("/v1/shares/outbound?all=true", admin)
        .await
        .ok(200);
    assert_eq!(all["shares"][0]["id"], id);
    let refused = world.get("/v1/shares/outbound?all=true", &eve).await;
    refused.refused(403, "forbidden");
    world
        .delete(&format!("/v1/share/{id}"), admin)
        .await
        .ok(204);
    let shown = world.get(&format!("/v1/shares/{id}"), &eve).await.ok(200);
    assert_eq!(shown["is_revoked"], true);
}
