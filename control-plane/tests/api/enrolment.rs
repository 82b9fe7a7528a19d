//! Agents that ask for themselves: the same answer for every email, few of them, and a person decides.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{Request, header};
use serde_json::{Value, json};

use crate::support::{Answer, Base, Setup, Who, World, holder, nobody};

const ENROLL: &str = "/v1/agents/enroll";
const ENROLMENTS: &str = "/v1/agents/enrolments";

/// Asks from an address of this last byte.
async fn ask(world: &World, from: u8, name: &str, email: &str) -> Answer {
    let body =
        json!({"name": name, "human_email": email, "description": "pays", "of": "the seeds"});
    let mut request = Request::post(ENROLL)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let peer = SocketAddr::from(([198, 51, 100, from], 4711));
    request.extensions_mut().insert(ConnectInfo(peer));
    world.send(request).await
}

fn shape(answer: Value) -> Value {
    let mut answer = answer;
    for field in ["enrolment_id", "approval_url"] {
        let text = answer[field].as_str().unwrap();
        assert!(text.contains("enr_"), "{text}");
        answer[field] = json!("redacted");
    }
    answer
}

async fn listed(world: &World, who: &Who) -> Vec<Value> {
    let page = world.get(ENROLMENTS, who).await.ok(200);
    page["enrolments"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_person_who_was_named_approves_and_gets_the_key() {
    for base in [Base::File, Base::Postgres] {
        let world = World::of(Setup {
            base,
            ..Setup::default()
        })
        .await;
        let (id, ada) = world.person("ada@example.org", "member").await;
        let (_, bob) = world.person("bob@example.org", "member").await;
        let asked = ask(&world, 1, "bot", " Ada@Example.org").await.ok(201);
        assert_eq!(asked["agent_id"], json!(null));
        let enrolment = asked["enrolment_id"].as_str().unwrap();
        let approve = asked["approval_url"].as_str().unwrap();
        let waiting = listed(&world, &ada).await;
        assert_eq!(waiting.len(), 1);
        let of = |field: &str| waiting[0][field].clone();
        assert_eq!(
            (of("id"), of("status")),
            (json!(enrolment), json!("pending"))
        );
        assert_eq!(
            (of("user_id"), of("client_ip")),
            (json!(id), json!("198.51.100.1"))
        );
        // To everybody else it is not there.
        assert!(listed(&world, &bob).await.is_empty());
        assert!(listed(&world, &world.other.admin).await.is_empty());
        for stranger in [&bob, &world.other.admin] {
            for action in ["approve", "reject"] {
                let path = format!("{ENROLMENTS}/{enrolment}/{action}");
                let refused = world.post(&path, stranger, json!({})).await;
                refused.refused(404, "not_found");
            }
        }
        let refused = world.post(approve, &nobody(), json!({})).await;
        refused.refused(401, "unauthenticated");
        let made = world.post(approve, &ada, json!({})).await.ok(200);
        assert_eq!(made["agent"]["name"], "bot");
        assert_eq!(made["agent"]["description"], "pays");
        let key = holder(made["api_key"].as_str().unwrap());
        world.get("/v1/vault/leases", &key).await.ok(200);
        let settled = listed(&world, &ada).await;
        assert_eq!(settled[0]["agent_id"], made["agent"]["id"]);
        for action in ["approve", "reject"] {
            let path = format!("{ENROLMENTS}/{enrolment}/{action}");
            let refused = world.post(&path, &ada, json!({})).await;
            refused.refused(409, "enrolment_settled");
        }
        // Agents decide nothing.
        let refused = world.get(ENROLMENTS, &key).await;
        refused.refused(403, "forbidden");
        let trail = world.events("").await;
        let told = |action: &str| trail.iter().any(|event| event["action"] == action);
        assert!(told("agent.enroll") && told("agent.enroll_approve") && told("agent.create"));
    }
}

#[tokio::test]
async fn an_admin_decides_for_everybody_and_may_choose_another_name() {
    let world = World::new().await;
    let admin = &world.home.admin;
    world.person("ada@example.org", "member").await;
    world.agent(admin, "bot").await;
    let asked = ask(&world, 1, "bot", "ada@example.org").await;
    let approve = asked.field("/approval_url");
    let refused = world.post(&approve, admin, json!({})).await;
    refused.refused(409, "name_taken");
    let refused = world.post(&approve, admin, json!({"name": ""})).await;
    refused.refused(400, "invalid_request");
    let refused = world.post(&approve, admin, json!({"role": "x"})).await;
    refused.refused(400, "unknown_field");
    let made = world.post(&approve, admin, json!({"name": "bot-2"})).await;
    assert_eq!(made.ok(200)["agent"]["name"], "bot-2");
}

#[tokio::test]
async fn an_enrolment_is_turned_away_or_ends_by_itself() {
    let world = World::new().await;
    let (_, ada) = world.person("ada@example.org", "member").await;
    let asked = ask(&world, 1, "bot", "ada@example.org").await;
    let reject = asked.field("/approval_url").replace("approve", "reject");
    world.post(&reject, &ada, json!({})).await.ok(204);
    assert_eq!(listed(&world, &ada).await[0]["status"], "rejected");
    world.clock.advance(Duration::from_mins(10));
    let later = ask(&world, 1, "bot", "ada@example.org").await;
    let approve = later.field("/approval_url");
    world.clock.advance(Duration::from_hours(7 * 24));
    // A token of a quarter of an hour has ended too.
    let admin = &world.home.admin;
    assert!(listed(&world, admin).await.is_empty());
    let refused = world.post(&approve, admin, json!({})).await;
    refused.refused(404, "not_found");
}

#[tokio::test]
async fn the_answer_is_the_same_whether_or_not_the_email_is_somebodys() {
    let world = World::new().await;
    let (_, ada) = world.person("ada@example.org", "member").await;
    let known = ask(&world, 1, "bot", "ada@example.org").await;
    let unknown = ask(&world, 2, "bot", "eve@example.org").await;
    assert_eq!(known.status, unknown.status);
    let names = |answer: &Answer| {
        let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(names(&known), names(&unknown));
    assert_eq!(known.text.len(), unknown.text.len());
    let nothing = unknown.field("/approval_url");
    assert_eq!(shape(known.ok(201)), shape(unknown.ok(201)));
    // So is the one to who asks again.
    let known = ask(&world, 3, "bot", "ada@example.org").await;
    let unknown = ask(&world, 4, "bot", "eve@example.org").await;
    assert_eq!(known.headers["retry-after"], unknown.headers["retry-after"]);
    assert_eq!(
        known.refused(429, "rate_limited"),
        unknown.refused(429, "rate_limited")
    );
    assert_eq!(listed(&world, &ada).await.len(), 1);
    assert_eq!(listed(&world, &world.home.admin).await.len(), 1);
    let refused = world.post(&nothing, &world.home.admin, json!({})).await;
    refused.refused(404, "not_found");
}

#[tokio::test]
async fn an_email_is_asked_once_in_ten_minutes_from_wherever() {
    let mut world = World::new().await;
    ask(&world, 1, "bot", "ada@example.org").await.ok(201);
    let again = ask(&world, 2, "bot", "ADA@example.org").await;
    assert_eq!(again.headers["retry-after"], "600");
    again.refused(429, "rate_limited");
    // The limit is the database's: another node keeps it.
    let plane = world
        .plane(&world.vault, control_plane::Signers::default(), Vec::new())
        .await;
    world.through(&plane);
    let again = ask(&world, 3, "bot", "ada@example.org").await;
    again.refused(429, "rate_limited");
    world.clock.advance(Duration::from_mins(10));
    ask(&world, 3, "bot", "ada@example.org").await.ok(201);
}

#[tokio::test]
async fn an_address_asks_five_times_at_once_and_then_once_a_second() {
    let world = World::new().await;
    for number in 0..5 {
        let email = format!("p{number}@example.org");
        ask(&world, 1, "bot", &email).await.ok(201);
    }
    let refused = ask(&world, 1, "bot", "p5@example.org").await;
    assert_eq!(refused.headers["retry-after"], "1");
    refused.refused(429, "rate_limited");
    ask(&world, 2, "bot", "p6@example.org").await.ok(201);
    world.clock.advance(Duration::from_secs(1));
    ask(&world, 1, "bot", "p5@example.org").await.ok(201);
    let refused = ask(&world, 1, "bot", "p7@example.org").await;
    refused.refused(429, "rate_limited");
}

#[tokio::test]
async fn what_is_no_name_or_email_is_refused_before_anybody_is_looked_for() {
    let world = World::new().await;
    for (body, field) in [
        (json!({"name": "", "human_email": "a@b.org"}), "name"),
        (json!({"name": "a\nb", "human_email": "a@b.org"}), "name"),
        (
            json!({"name": "bot", "human_email": "nobody"}),
            "human_email",
        ),
        (json!({"name": "bot", "human_email": ""}), "human_email"),
        (
            json!({"name": "bot", "human_email": "a@b.org", "description": "x".repeat(1025)}),
            "description",
        ),
    ] {
        let refused = world.post(ENROLL, &nobody(), body).await;
        let detail = refused.refused(400, "invalid_request");
        assert!(detail.starts_with(&format!("{field}: ")), "{detail}");
    }
}
