//! Webhooks and the collector of logs: who is told what, in which order, how often, and who never is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::leases::clock::Clock as _;
use ::providers::address::{AddressPolicy, Override};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_plane::{CollectorOptions, ControlPlane, DeliveryOptions, OutboundOptions, Signers};
use hmac::{Hmac, Mac as _};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost_otlp::Message as _;
use serde_json::{Value, json};
use sha2::Sha256;
use store::Role;

use crate::support::{Base, CANARY, Setup, World, person};

/// A delivery as its receiver sees it.
#[derive(Debug, Clone)]
struct Taken {
    headers: HeaderMap,
    body: Bytes,
}

impl Taken {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether one of the signatures is by this secret, as Standard Webhooks says.
    fn is_signed_by(&self, secret: &str) -> bool {
        let key = STANDARD
            .decode(secret.strip_prefix("whsec_").unwrap())
            .unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        for part in [
            self.header("webhook-id"),
            ".",
            self.header("webhook-timestamp"),
            ".",
        ] {
            mac.update(part.as_bytes());
        }
        mac.update(&self.body);
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.header("webhook-signature")
            .split(' ')
            .any(|one| one == expected)
    }
}

/// What a receiver answers.
#[derive(Debug, Clone, Copy)]
enum Says {
    Status(u16),
    RedirectTo(&'static str),
    Nothing,
}

#[derive(Clone, Default)]
struct Receiver {
    port: u16,
    taken: Arc<Mutex<Vec<Taken>>>,
    /// Before these are used up it answers with them, and then with 204.
    says: Arc<Mutex<VecDeque<Says>>>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            port: listener.local_addr().unwrap().port(),
            ..Self::default()
        };
        let app = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        receiver
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook?canary={CANARY}", self.port)
    }

    fn say(&self, says: impl IntoIterator<Item = Says>) {
        self.says.lock().unwrap().extend(says);
    }

    fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    fn actions(&self) -> Vec<String> {
        let types = self
            .taken()
            .into_iter()
            .map(|taken| taken.json()["type"].as_str().unwrap().to_owned());
        types.collect()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    receiver.taken.lock().unwrap().push(Taken { headers, body });
    let says = receiver.says.lock().unwrap().pop_front();
    match says.unwrap_or(Says::Status(204)) {
        Says::Status(status) => (StatusCode::from_u16(status).unwrap(), CANARY).into_response(),
        Says::RedirectTo(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Says::Nothing => std::future::pending().await,
    }
}

/// Loopback is allowed, and a name that anybody could have leads to a private network.
fn outbound() -> OutboundOptions {
    OutboundOptions {
        policy: AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new()),
        overrides: vec![Override {
            host: "rebound.example.org".to_owned(),
            port: 443,
            address: "10.0.0.7:443".parse().unwrap(),
        }],
        ..OutboundOptions::default()
    }
}

async fn world() -> World {
    World::of(Setup {
        outbound: outbound(),
        ..Setup::default()
    })
    .await
}

impl World {
    /// Makes a webhook; gives its id and secret.
    async fn webhook(&self, url: &str, events: &[&str]) -> (String, String) {
        let body = json!({"url": url, "events": events});
        let made = self.post("/v1/webhooks", &self.home.admin, body).await;
        let secret = made.field("/secret");
        let made = made.ok(201);
        (made["webhook"]["id"].as_str().unwrap().to_owned(), secret)
    }

    async fn shown(&self, id: &str) -> Value {
        let path = format!("/v1/webhooks/{id}");
        self.get(&path, &self.home.admin).await.ok(200)
    }

    async fn deliveries(&self, id: &str) -> Vec<Value> {
        let path = format!("/v1/webhooks/{id}/deliveries");
        let list = self.get(&path, &self.home.admin).await.ok(200);
        list["deliveries"].as_array().unwrap().clone()
    }

    async fn deliver(&self) {
        ControlPlane::deliver_once(&self.state).await.unwrap();
    }

    async fn make_agents(&self, names: &[&str]) {
        for name in names {
            self.agent(&self.home.admin, name).await;
        }
    }
}

#[tokio::test]
async fn a_webhook_is_told_what_it_asked_for_in_order_signed_and_once() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let (id, secret) = world.webhook(&receiver.url(), &["agent.*"]).await;
    assert!(secret.starts_with("whsec_") && secret.len() == 6 + 44);
    world.make_agents(&["a", "b", "c"]).await;
    // What another organisation does is none of its business.
    world.agent(&world.other.admin, "theirs").await;
    world.deliver().await;
    world.deliver().await;
    assert_eq!(receiver.actions(), ["agent.create"; 3]);
    let mut events = world.events("?action=agent.create").await;
    events.sort_by_key(|event| event["seq"].as_u64());
    for (taken, event) in receiver.taken().iter().zip(&events) {
        assert!(taken.is_signed_by(&secret));
        let body = taken.json();
        assert_eq!(&body["data"], event);
        assert_eq!(taken.header("webhook-id"), event["id"]);
        assert_eq!(body["timestamp"], event["created_at"]);
        assert_eq!(taken.header("content-type"), "application/json");
        let sent: i64 = taken.header("webhook-timestamp").parse().unwrap();
        assert_eq!(sent, world.clock.now().unix_timestamp());
    }
    let shown = world.shown(&id).await;
    assert_eq!(
        (&shown["delivered"], &shown["failed_attempts"]),
        (&json!(3), &json!(0))
    );
    let deliveries = world.deliveries(&id).await;
    assert_eq!(deliveries.len(), 3);
    assert_eq!(deliveries[0]["number"], 3);
    assert!(
        deliveries
            .iter()
            .all(|one| one["delivered"] == true && one["status"] == 204)
    );
    assert!(
        receiver
            .taken()
            .iter()
            .all(|taken| !String::from_utf8_lossy(&taken.body).contains(CANARY))
    );
}

#[tokio::test]
async fn the_secret_is_shown_once_and_kept_sealed() {
    let world = world().await;
    let (id, secret) = world.webhook("https://hooks.example.org/", &["*"]).await;
    let bare = secret.strip_prefix("whsec_").unwrap().to_owned();
    let key = STANDARD.decode(&bare).unwrap();
    for path in [
        format!("/v1/webhooks/{id}"),
        "/v1/webhooks".to_owned(),
        "/v1/audit/events".to_owned(),
    ] {
        let shown = world.get(&path, &world.home.admin).await;
        assert!(!shown.text.contains(&bare), "{path}");
    }
    for file in std::fs::read_dir(world.dir.path()).unwrap().flatten() {
        if file.path().is_file() {
            let bytes = std::fs::read(file.path()).unwrap();
            let holds = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
            assert!(!holds(&key) && !holds(bare.as_bytes()), "{:?}", file.path());
        }
    }
    let gone = world
        .delete(&format!("/v1/webhooks/{id}"), &world.home.admin)
        .await;
    gone.ok(204);
    let name = format!("webhook/{id}");
    let left = world
        .store
        .sealed_keys()
        .versions(&world.home.org, &name)
        .await
        .unwrap();
    assert!(left.is_empty());
}

#[tokio::test]
async fn urls_that_lead_where_nobody_may_send_this_plane_are_refused() {
    let world = World::new().await;
    for url in [
        "https://127.0.0.1/hook",
        "https://[::1]/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/",
        "https://10.0.0.1/",
        "https://[::ffff:10.0.0.1]/",
        "https://192.168.1.1:8443/",
        "http://hooks.example.org/",
        "http://127.0.0.1:9/",
        "https://user:secret@hooks.example.org/",
        "https://hooks.example.org/#part",
        "ftp://hooks.example.org/",
        "hooks.example.org",
        "",
    ] {
        let body = json!({"url": url, "events": ["*"]});
        let refused = world.post("/v1/webhooks", &world.home.admin, body).await;
        let detail = refused.refused(400, "invalid_request");
        assert!(
            detail.starts_with("url: ") && !detail.contains("secret"),
            "{url}: {detail}"
        );
    }
    let (id, _) = world.webhook("https://hooks.example.org/", &["*"]).await;
    let patch = json!({"url": "https://10.0.0.1/"});
    let refused = world
        .patch(&format!("/v1/webhooks/{id}"), &world.home.admin, patch)
        .await;
    refused.refused(400, "invalid_request");
    assert_eq!(world.shown(&id).await["url"], "https://hooks.example.org/");
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_or_a_private_network_is_not_dialled() {
    let world = world().await;
    // An operator's own rule is known before anything is sent.
    let body = json!({"url": "https://rebound.example.org/", "events": ["*"]});
    let refused = world
        .post("/v1/webhooks", &world.home.admin, body)
        .await
        .refused(400, "invalid_request");
    assert!(refused.contains("leads to a private network"), "{refused}");
    // Of any other name nobody knows where it leads until it is dialled.
    let world = World::new().await;
    let (id, _) = world
        .webhook("https://localhost/hook", &["webhook.create"])
        .await;
    world.deliver().await;
    let shown = world.shown(&id).await;
    let error = shown["last_error"].as_str().unwrap();
    assert!(error.contains("`localhost` leads to"), "{error}");
    let deliveries = world.deliveries(&id).await;
    assert_eq!(
        (&deliveries[0]["delivered"], &deliveries[0]["status"]),
        (&json!(false), &Value::Null)
    );
    let tested = format!("/v1/webhooks/{id}/test");
    let tested = world.post(&tested, &world.home.admin, json!({})).await;
    assert_eq!(tested.ok(200)["delivered"], false);
}

#[tokio::test]
async fn a_redirect_is_not_followed_wherever_it_leads() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let target = Receiver::start().await;
    let to: &'static str = Box::leak(target.url().into_boxed_str());
    receiver.say([Says::RedirectTo("https://10.0.0.7/"), Says::RedirectTo(to)]);
    let (id, _) = world.webhook(&receiver.url(), &["webhook.create"]).await;
    world.deliver().await;
    let shown = world.shown(&id).await;
    let error = shown["last_error"].as_str().unwrap();
    assert!(
        error.contains("it answered 302") && !error.contains("10.0.0.7"),
        "{error}"
    );
    world.clock.advance(Duration::from_mins(1));
    world.deliver().await;
    assert_eq!(receiver.taken().len(), 2);
    assert!(target.taken().is_empty());
}

#[tokio::test]
async fn what_fails_is_tried_again_under_the_same_id_and_nothing_overtakes_it() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let (id, secret) = world.webhook(&receiver.url(), &["agent.create"]).await;
    world.make_agents(&["a", "b"]).await;
    receiver.say([Says::Status(500), Says::Status(503)]);
    world.deliver().await;
    assert_eq!(receiver.taken().len(), 1);
    let shown = world.shown(&id).await;
    assert_eq!(
        (&shown["failed_attempts"], &shown["last_error"]),
        (&json!(1), &json!("it answered 500"))
    );
    assert!(shown["next_attempt_at"].is_string() && shown["failing_since"].is_string());
    // Not before its time.
    world.deliver().await;
    assert_eq!(receiver.taken().len(), 1);
    world.clock.advance(Duration::from_secs(5));
    world.deliver().await;
    world.clock.advance(Duration::from_secs(10));
    world.deliver().await;
    let taken = receiver.taken();
    let ids: Vec<&str> = taken
        .iter()
        .map(|taken| taken.header("webhook-id"))
        .collect();
    assert_eq!(ids.len(), 4);
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3]);
    assert!(taken.iter().all(|taken| taken.is_signed_by(&secret)));
    // Each attempt has a time of its own, so that a receiver may refuse old ones.
    assert_ne!(
        taken[0].header("webhook-timestamp"),
        taken[2].header("webhook-timestamp")
    );
    let deliveries = world.deliveries(&id).await;
    assert_eq!(
        (&deliveries[1]["attempts"], &deliveries[1]["delivered"]),
        (&json!(3), &json!(true))
    );
    assert_eq!(world.shown(&id).await["failed_attempts"], 0);
}

#[tokio::test]
async fn a_webhook_that_fails_for_days_is_given_up_on_record_and_goes_on_where_it_was() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let watching = Receiver::start().await;
    let (id, _) = world.webhook(&receiver.url(), &["agent.create"]).await;
    let (watch, _) = world.webhook(&watching.url(), &["*"]).await;
    world.make_agents(&["a"]).await;
    receiver.say([Says::Status(500); 200]);
    for _ in 0..150 {
        world.deliver().await;
        world.clock.advance(Duration::from_hours(1));
    }
    let shown = world.shown(&id).await;
    assert_eq!(shown["is_active"], false);
    let reason = shown["disabled_reason"].as_str().unwrap();
    assert!(
        reason.contains("over 72 h failed; the last: it answered 500"),
        "{reason}"
    );
    let attempts = receiver.taken().len();
    // Doubling waits at first, one an hour later, and none after the third day.
    assert!((72..=85).contains(&attempts), "{attempts}");
    let events = world.events("?action=webhook.disabled").await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0]["actor_type"], &events[0]["keys"][0]),
        (&json!("system"), &json!(id))
    );
    assert_eq!(events[0]["reason"], reason);
    // No webhook is told of what telling recorded.
    assert!(
        !watching
            .actions()
            .iter()
            .any(|action| action == "webhook.disabled")
    );
    assert_eq!(world.shown(&watch).await["is_active"], true);

    receiver.says.lock().unwrap().clear();
    let patch = json!({"is_active": true});
    let resumed = world
        .patch(&format!("/v1/webhooks/{id}"), &world.home.admin, patch)
        .await;
    assert_eq!(resumed.ok(200)["disabled_reason"], Value::Null);
    world.make_agents(&["b"]).await;
    world.deliver().await;
    assert_eq!(receiver.taken().len(), attempts + 2);
}

#[tokio::test]
async fn a_receiver_that_says_gone_is_told_no_more() {
    let world = world().await;
    let receiver = Receiver::start().await;
    receiver.say([Says::Status(410)]);
    let (id, _) = world.webhook(&receiver.url(), &["*"]).await;
    world.deliver().await;
    let shown = world.shown(&id).await;
    assert_eq!(
        (&shown["is_active"], &shown["disabled_reason"]),
        (&json!(false), &json!("it answered 410 Gone"))
    );
    world.make_agents(&["a"]).await;
    world.deliver().await;
    assert_eq!(receiver.taken().len(), 1);
}

#[tokio::test]
async fn a_slow_receiver_keeps_no_other_waiting() {
    let world = Arc::new(world().await);
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    slow.say([Says::Nothing]);
    world.webhook(&slow.url(), &["agent.create"]).await;
    world.webhook(&quick.url(), &["agent.create"]).await;
    world.make_agents(&["a", "b", "c"]).await;
    let telling = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.deliver().await })
    };
    tokio::time::timeout(Duration::from_secs(8), async {
        while quick.taken().len() < 3 || slow.taken().is_empty() {
            tokio::task::yield_now().await;
        }
        // Changes go on meanwhile.
        world.make_agents(&["d"]).await;
    })
    .await
    .unwrap();
    assert_eq!(slow.taken().len(), 1);
    telling.abort();
}

#[tokio::test]
async fn for_a_day_after_a_rotation_both_secrets_sign() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let (id, old) = world.webhook(&receiver.url(), &["agent.create"]).await;
    world.clock.advance(Duration::from_mins(1));
    let rotated = world
        .post(
            &format!("/v1/webhooks/{id}/rotate-secret"),
            &world.home.admin,
            json!({}),
        )
        .await;
    let new = rotated.field("/secret");
    assert_ne!(old, new);
    assert_eq!(rotated.ok(200)["webhook"]["secret_version"], 2);
    world.make_agents(&["a"]).await;
    world.deliver().await;
    world.clock.advance(Duration::from_hours(24));
    world.make_agents(&["b"]).await;
    world.deliver().await;
    let taken = receiver.taken();
    assert!(taken[0].is_signed_by(&old) && taken[0].is_signed_by(&new));
    assert!(!taken[1].is_signed_by(&old) && taken[1].is_signed_by(&new));
    assert_eq!(world.events("?action=webhook.rotate_secret").await.len(), 1);
}

#[tokio::test]
async fn a_test_is_signed_and_none_of_the_trail() {
    let world = world().await;
    let receiver = Receiver::start().await;
    let (id, secret) = world.webhook(&receiver.url(), &["agent.create"]).await;
    receiver.say([Says::Status(204), Says::Status(500)]);
    let path = format!("/v1/webhooks/{id}/test");
    let good = world
        .post(&path, &world.home.admin, json!({}))
        .await
        .ok(200);
    assert_eq!(
        (&good["delivered"], &good["status"]),
        (&json!(true), &json!(204))
    );
    let bad = world.post(&path, &world.home.admin, json!({})).await;
    assert!(!bad.text.contains(CANARY), "{}", bad.text);
    assert_eq!(bad.ok(200)["error"], "it answered 500");
    let taken = receiver.taken();
    assert!(taken[0].is_signed_by(&secret));
    assert_eq!(taken[0].json()["type"], "webhook.test");
    assert_eq!(taken[0].json()["data"], json!({"webhook_id": id}));
    let shown = world.shown(&id).await;
    assert_eq!(
        (&shown["delivered"], &shown["failed_attempts"]),
        (&json!(0), &json!(0))
    );
    assert!(world.deliveries(&id).await.is_empty());
}

#[tokio::test]
async fn what_is_no_webhook_is_refused() {
    let world = World::new().await;
    let url = "https://hooks.example.org/";
    for (body, named) in [
        (json!({"url": url, "events": []}), "events"),
        (json!({"url": url, "events": ["lease."]}), "events"),
        (json!({"url": url, "events": vec!["*"; 33]}), "events"),
        (
            json!({"url": url, "events": ["*"], "description": "\u{7}"}),
            "description",
        ),
        (
            json!({"url": format!("{url}{}", "x".repeat(2048)), "events": ["*"]}),
            "url",
        ),
    ] {
        let refused = world.post("/v1/webhooks", &world.home.admin, body).await;
        let detail = refused.refused(400, "invalid_request");
        assert!(detail.starts_with(named), "{detail}");
    }
    let body = json!({"url": url, "events": ["*"], "secret": "mine"});
    let refused = world.post("/v1/webhooks", &world.home.admin, body).await;
    refused.refused(400, "unknown_field");
    for _ in 0..50 {
        world.webhook(url, &["*"]).await;
    }
    let body = json!({"url": url, "events": ["*"]});
    let refused = world.post("/v1/webhooks", &world.home.admin, body).await;
    let detail = refused.refused(400, "invalid_request");
    assert!(detail.contains("50 webhooks already"), "{detail}");
    let member = person(&world.store, &world.home.org, "mo", Role::Member).await;
    let refused = world.get("/v1/webhooks", &member).await;
    refused.refused(403, "forbidden");
}

#[tokio::test]
async fn of_two_planes_one_tells_and_after_its_end_the_other_goes_on() {
    let world = World::of(Setup {
        base: Base::Postgres,
        outbound: outbound(),
        ..Setup::default()
    })
    .await;
    let receiver = Receiver::start().await;
    world.webhook(&receiver.url(), &["agent.create"]).await;
    let second = world
        .plane_with(
            "second",
            &world.vault,
            Signers::default(),
            (Vec::new(), outbound()),
        )
        .await;
    for round in 0..5 {
        world
            .make_agents(&[&format!("a{round}"), &format!("b{round}")])
            .await;
        let (one, other) = tokio::join!(
            ControlPlane::deliver_once(&world.state),
            ControlPlane::deliver_once(&second.state)
        );
        one.unwrap();
        other.unwrap();
    }
    assert_eq!(receiver.taken().len(), 10);
    // The one that told is gone: the other waits for its claim to end.
    world.make_agents(&["late"]).await;
    world.clock.advance(Duration::from_mins(2));
    ControlPlane::deliver_once(&second.state).await.unwrap();
    ControlPlane::deliver_once(&world.state).await.unwrap();
    let mut ids: Vec<String> = receiver
        .taken()
        .iter()
        .map(|taken| taken.header("webhook-id").to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), receiver.taken().len()), (11, 11));
}

#[tokio::test]
async fn a_collector_gets_the_trail_of_all_as_otlp_logs_and_misses_nothing() {
    let collector = Receiver::start().await;
    let world = World::of(Setup {
        outbound: outbound(),
        delivery: DeliveryOptions {
            collector: Some(CollectorOptions {
                url: format!("http://127.0.0.1:{}/v1/logs", collector.port)
                    .parse()
                    .unwrap(),
                headers: vec![(
                    "x-api-key".parse().unwrap(),
                    "for the collector".parse().unwrap(),
                )],
            }),
            ..DeliveryOptions::default()
        },
        ..Setup::default()
    })
    .await;
    // It begins with what is recorded from its first look on.
    world.deliver().await;
    assert!(collector.taken().is_empty());
    world.make_agents(&["a"]).await;
    world.agent(&world.other.admin, "theirs").await;
    collector.say([Says::Status(503)]);
    world.deliver().await;
    world.make_agents(&["b"]).await;
    world.deliver().await;
    assert_eq!(collector.taken().len(), 1);
    world.clock.advance(Duration::from_secs(10));
    world.deliver().await;
    world.deliver().await;
    let taken = collector.taken();
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[1].header("content-type"), "application/x-protobuf");
    assert_eq!(taken[1].header("x-api-key"), "for the collector");
    let request = ExportLogsServiceRequest::decode(taken[1].body.clone()).unwrap();
    let records = &request.resource_logs[0].scope_logs[0].log_records;
    let names: Vec<&str> = records
        .iter()
        .map(|record| record.event_name.as_str())
        .collect();
    let made = names
        .iter()
        .filter(|name| **name == "claviger.agent.create")
        .count();
    assert_eq!(made, 3, "{names:?}");
}
