//! Credentials that are made, not stored: asked for once, renewed ahead of their end, never seen by an agent, and when the
//! token endpoint fails, a clear refusal and a recorded outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::Mac as _;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::support::canary::Canary;
use crate::support::token_endpoint::{Said, TokenEndpoint};
use crate::support::tunnel::race;
use crate::support::upstream::digest_of;
use crate::support::{Access, Ends, Fleet, Reply, Stack, wait};

const API: &str = "api.example-vendor.com";
const AUTH: &str = "auth.example-vendor.com";

/// A set whose token is made of a client's id and secret.
struct Scene {
    stack: Stack,
    access: Access,
    token: String,
    secret: Canary,
}

impl Scene {
    async fn start(make: Value, more: Value) -> Self {
        let stack = Stack::builder()
            .host(API)
            .token_endpoint(AUTH)
            .start()
            .await;
        let secret = stack.secret("cs_");
        let mut recipe = json!({
            "key": "ACCESS_TOKEN", "grant": "client_credentials", "url": format!("https://{AUTH}/oauth/token"),
            "client_id": "${CLIENT_ID}", "client_secret": "${CLIENT_SECRET}",
        });
        merge(&mut recipe, make);
        let spec = json!({
            "hosts": [API],
            "make": [recipe],
            "inject": [{ "header": "authorization", "value": "Bearer ${ACCESS_TOKEN}" }],
        });
        let mut entries = json!({ "CLIENT_ID": "billing-bot", "CLIENT_SECRET": secret.text() });
        merge(&mut entries, more);
        let access = stack
            .custom_access("vendor", &entries, &spec, &secret)
            .await;
        let token = stack.workflow_lease(&access).await;
        Self {
            stack,
            access,
            token,
            secret,
        }
    }

    async fn usual() -> Self {
        Self::start(json!({}), json!({})).await
    }

    /// Makes a new version of the set, with the same secret.
    async fn store_again(&self) {
        let path = format!("/v1/vault/secret-sets/{}", self.access.set);
        let entries = json!({ "entries": { "CLIENT_SECRET": self.secret.text() } });
        let stored = self.stack.admin().put(&path, &entries).await;
        stored.expect_status(200);
    }

    /// The events of a making.
    async fn makings(&self) -> Vec<Value> {
        let events = self.stack.events().await;
        events
            .into_iter()
            .filter(|event| event["action"] == "credential.make")
            .collect()
    }
}

/// Sets the members of `more`; `null` removes one.
fn merge(object: &mut Value, more: Value) {
    let Value::Object(more) = more else {
        panic!("an object")
    };
    let object = object.as_object_mut().expect("an object");
    for (name, value) in more {
        if value.is_null() {
            object.remove(&name);
        } else {
            object.insert(name, value);
        }
    }
}

#[tokio::test]
async fn sixty_four_uses_at_once_ask_for_one_token() {
    let scene = Scene::usual().await;
    let stack = &scene.stack;
    let made = stack.secret("at_");
    let answer = json!({ "access_token": made.text(), "token_type": "Bearer", "expires_in": 3600 });
    // Late enough that all of them wait for it.
    stack
        .tokens()
        .says(Said::Late(Duration::from_millis(300), answer));

    let mut tunnels = Vec::new();
    for _ in 0..64 {
        tunnels.push(stack.tunnel(API, &scene.token).await);
    }
    for reply in race(tunnels, "/upload").await {
        reply.expect_status(200);
    }

    let asked = stack.tokens().asked();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].head.starts_with("POST /oauth/token HTTP/1.1\r\n"),
        "{}",
        asked[0].head
    );
    assert_eq!(asked[0].field("host"), Some(AUTH));
    assert_eq!(asked[0].body, "grant_type=client_credentials");
    let pair = STANDARD.encode(format!("billing-bot:{}", scene.secret.text()));
    assert_eq!(
        asked[0].field("authorization"),
        Some(&*format!("Basic {pair}"))
    );
    for request in stack.upstream.requests() {
        assert_eq!(
            request.field("authorization"),
            format!("Bearer {}", made.text())
        );
    }
    let makings = scene.makings().await;
    assert_eq!(makings.len(), 1, "{makings:#?}");
    assert_eq!(
        makings[0]["keys"],
        json!(["CLIENT_ID", "CLIENT_SECRET", "ACCESS_TOKEN"])
    );
    assert_eq!(makings[0]["host"], AUTH);
    assert_eq!(makings[0]["path"], "/oauth/token");
    assert_eq!(makings[0]["secret_set_id"], scene.access.set);
    scene.stack.finish().await;
}

#[tokio::test]
async fn neither_the_made_token_nor_what_it_is_made_of_comes_back() {
    let scene = Scene::usual().await;
    let stack = &scene.stack;
    let made = stack.secret("at_");
    stack.tokens().says(Said::token(made.text(), 3600));
    let mut tunnel = stack.tunnel(API, &scene.token).await;

    let reply = tunnel.get("/echo").await.expect_status(200);
    assert!(reply.text().contains("Bearer ****"), "{}", reply.text());
    for form in ["base64", "hex", "percent", "json"] {
        let reply = tunnel
            .get(&format!("/reflect/{form}"))
            .await
            .expect_status(200);
        assert!(reply.text().contains("****"), "{form}: {}", reply.text());
    }
    // A vendor that knows the client's secret may show that, too.
    let shown = format!("X-Secret: {}", scene.secret.text());
    let reply = tunnel
        .request("GET", "/echo", &[&shown], b"")
        .await
        .unwrap();
    assert!(
        !reply.text().contains(scene.secret.text()),
        "{}",
        reply.text()
    );
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end() {
    let scene = Scene::usual().await;
    let stack = &scene.stack;
    let tokens: Arc<Vec<Canary>> = Arc::new((0..40).map(|_| stack.secret("at_")).collect());
    let given = Arc::clone(&tokens);
    let mut next = 0;
    stack.tokens().answers(move |_| {
        next += 1;
        Said::token(given[next - 1].text(), 8)
    });
    let mut tunnel = stack.tunnel(API, &scene.token).await;

    wait::until("a third token", async || {
        tunnel.get("/upload").await.expect_status(200);
        (stack.tokens().asked().len() >= 3).then_some(())
    })
    .await;

    let asked = stack.tokens().asked();
    for pair in asked.windows(2) {
        let between = pair[1].at - pair[0].at;
        assert!(between < Duration::from_secs(8), "{between:?}");
    }
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_token_that_the_provider_turns_down_is_given_up() {
    let scene = Scene::usual().await;
    let stack = &scene.stack;
    let (first, second) = (stack.secret("at_"), stack.secret("at_"));
    let texts = [first.text().to_owned(), second.text().to_owned()];
    let mut texts = texts.into_iter();
    stack.tokens().answers(move |_| {
        let text = texts.next();
        text.map_or(Said::Json(500, json!({})), |text| Said::token(&text, 3600))
    });
    let mut tunnel = stack.tunnel(API, &scene.token).await;

    // A provider that takes no token at all is asked twice, and its own answer reaches the agent.
    wait::until("another token", async || {
        tunnel.get("/status/401").await.expect_status(401);
        tunnel.get("/upload").await.expect_status(200);
        (stack.tokens().asked().len() == 2).then_some(())
    })
    .await;
    tunnel.get("/upload").await.expect_status(200);
    let bearer = stack.upstream.last().field("authorization");
    assert_eq!(bearer, format!("Bearer {}", second.text()));
    scene.stack.finish().await;
}

/// Two tokens, of which the provider takes the second alone, and the path under which it says so.
fn first_is_turned_down(stack: &Stack) -> (Canary, Canary, String) {
    let (first, second) = (stack.secret("at_"), stack.secret("at_"));
    let texts = [first.text().to_owned(), second.text().to_owned()];
    let mut texts = texts.into_iter();
    stack.tokens().answers(move |_| {
        let text = texts.next();
        text.map_or(Said::Json(500, json!({})), |text| Said::token(&text, 3600))
    });
    let path = format!(
        "/turned-down/{}",
        digest_of(&format!("Bearer {}", first.text()))
    );
    (first, second, path)
}

#[tokio::test]
async fn a_401_to_a_made_token_is_answered_by_a_second_use_with_a_new_one() {
    let scene = Scene::usual().await;
    let stack = &scene.stack;
    let (first, second, path) = first_is_turned_down(stack);
    let mut tunnel = stack.tunnel(API, &scene.token).await;

    // While the token is young it is not its age that the provider minds: the 401 is the agent's.
    tunnel.get(&path).await.expect_status(401);
    wait::until("the token may be given up", async || {
        let reply = tunnel.get(&path).await;
        (reply.status == 200).then_some(())
    })
    .await;

    let sent = stack.upstream.requests();
    let bearers: Vec<String> = sent
        .iter()
        .map(|sent| sent.field("authorization"))
        .collect();
    let (last, earlier) = bearers.split_last().unwrap();
    assert_eq!(*last, format!("Bearer {}", second.text()));
    assert!(
        earlier
            .iter()
            .all(|bearer| *bearer == format!("Bearer {}", first.text()))
    );
    let statuses = wait::until("the outcome", async || {
        let events = stack.events().await;
        let of =
            |action: &'static str| events.iter().filter(move |event| event["action"] == action);
        assert_eq!(of("lease.use").count(), sent.len());
        let twice = &of("lease.use").next_back().unwrap()["request_id"];
        let uses = of("lease.use").filter(|used| used["request_id"] == *twice);
        assert_eq!(uses.count(), 2);
        let outcomes = of("lease.outcome").filter(|outcome| outcome["request_id"] == *twice);
        let statuses: Vec<Value> = outcomes.map(|outcome| outcome["status"].clone()).collect();
        (statuses.len() == 2).then_some(statuses)
    })
    .await;
    assert_eq!(statuses, [401, 200]);
    scene.stack.finish().await;
}

#[tokio::test]
async fn what_may_be_sent_once_alone_gets_the_401() {
    let post = async {
        let scene = Scene::usual().await;
        let (_, _, path) = first_is_turned_down(&scene.stack);
        let tunnel = Mutex::new(scene.stack.tunnel(API, &scene.token).await);
        expect_one_send_each(&scene.stack, async || {
            let mut tunnel = tunnel.lock().await;
            tunnel.request("POST", &path, &[], b"{}").await.unwrap()
        })
        .await;
        scene.stack.finish().await;
    };
    let by_request_leases = async {
        let scene = Scene::usual().await;
        let (_, _, path) = first_is_turned_down(&scene.stack);
        expect_one_send_each(&scene.stack, async || {
            let lease = scene.stack.request_lease(&scene.access).await;
            scene.stack.tunnel(API, &lease).await.get(&path).await
        })
        .await;
        scene.stack.finish().await;
    };
    tokio::join!(post, by_request_leases);
}

/// Asks until the provider takes the token: each 401 is the agent's, and what it asked was sent once.
async fn expect_one_send_each(stack: &Stack, ask: impl AsyncFn() -> Reply) {
    let asked = AtomicUsize::new(0);
    wait::until("a new token", async || {
        let status = ask().await.status;
        assert!(matches!(status, 200 | 401), "{status}");
        let asked = asked.fetch_add(1, Ordering::Relaxed) + 1;
        assert_eq!(stack.upstream.count(), asked);
        (status == 200).then_some(())
    })
    .await;
    assert_eq!(stack.tokens().asked().len(), 2);
}

#[tokio::test]
async fn wrong_answers_are_clear_refusals_with_a_recorded_outcome() {
    let scene = Scene::usual().await;
    let stack = &scene.stack;
    let leaked = stack.secret("leaked_");
    let page = |status: &str, more: &str, body: &str| {
        let length = body.len();
        Said::Raw(
            format!("HTTP/1.1 {status}\r\n{more}content-length: {length}\r\n\r\n{body}")
                .into_bytes(),
        )
    };
    let html = format!("<html>{}</html>", leaked.text());
    let denied = json!({ "error": "invalid_client", "error_description": leaked.text() });
    let huge = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(200 * 1024));
    let other = json!({ "access_token": leaked.text(), "token_type": "DPoP" });
    let cases = [
        (
            page("200 OK", "content-type: text/html\r\n", &html),
            "not the JSON of a token",
        ),
        (page("500 Oops", "", &html), "status 500"),
        (page("200 OK", "", &huge), "longer than 65536 bytes"),
        (
            page("302 Found", "location: https://evil.example/\r\n", ""),
            "a redirect (status 302)",
        ),
        (
            Said::Json(401, denied),
            "refuses the stored credential (invalid_client)",
        ),
        (Said::Json(200, other), "another kind than `Bearer`"),
        (Said::Raw(Vec::new()), "did not answer with proper HTTP"),
        (
            Said::Raw(b"220 mail.example ESMTP\r\n\r\n".to_vec()),
            "did not answer with proper HTTP",
        ),
    ];
    let count = cases.len();
    for (said, why) in cases {
        stack.tokens().says(said);
        // An endpoint that failed is left alone for a while, but not for another version of the set.
        scene.store_again().await;
        let mut tunnel = stack.tunnel(API, &scene.token).await;
        let reply = tunnel.get("/upload").await;
        let problem = reply.json();
        assert!(reply.field("retry-after").is_some());
        reply.expect_refusal(503, "key_unavailable");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains(AUTH) && detail.contains(why),
            "{why}: {detail}"
        );
    }
    assert_eq!(stack.upstream.count(), 0);
    wait::until("an outcome for every use", async || {
        let events = stack.events().await;
        let outcomes = events.iter().filter(|event| {
            event["action"] == "lease.outcome" && event["error"] == "key_unavailable"
        });
        (outcomes.count() == count).then_some(())
    })
    .await;
    let failures = scene.makings().await;
    let failures = failures.iter().filter(|event| event["decision"] == "deny");
    assert_eq!(failures.count(), count);

    // And when it answers again, so do we.
    let made = stack.secret("at_");
    stack.tokens().says(Said::token(made.text(), 3600));
    scene.store_again().await;
    let mut tunnel = stack.tunnel(API, &scene.token).await;
    tunnel.get("/upload").await.expect_status(200);
    scene.stack.finish().await;
}

#[tokio::test]
async fn an_endpoint_that_failed_is_left_alone_for_as_long_as_it_says() {
    let scene = Scene::usual().await;
    let stack = &scene.stack;
    let busy = b"HTTP/1.1 429 Busy\r\nretry-after: 60\r\ncontent-length: 2\r\n\r\n{}";
    stack.tokens().says(Said::Raw(busy.to_vec()));
    let mut tunnel = stack.tunnel(API, &scene.token).await;
    for attempt in 0..20 {
        let reply = tunnel.get("/upload").await;
        let wait: u64 = reply.field("retry-after").unwrap().parse().unwrap();
        assert!((30..=60).contains(&wait), "{attempt}: {wait}");
        let reply = reply.expect_refusal(503, "key_unavailable");
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("status 429"), "{detail}");
        assert_eq!(
            detail.contains("is asked again in"),
            attempt > 0,
            "{detail}"
        );
        assert!(!detail.contains("mint a new one"), "{detail}");
    }
    assert_eq!(stack.tokens().asked().len(), 1);

    // A lease for one request has had it.
    let single = stack.long_request_lease(&scene.access).await;
    let reply = stack.get(API, "/upload", &single).await;
    let reply = reply.expect_refusal(503, "key_unavailable");
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("is used up by this, so mint a new one"),
        "{detail}"
    );
    let again = stack.get(API, "/upload", &single).await;
    again.expect_refusal(403, "lease_consumed");
    assert_eq!(stack.tokens().asked().len(), 1);

    // An operator who stores the credential again waits for nothing.
    let made = stack.secret("at_");
    stack.tokens().says(Said::token(made.text(), 3600));
    scene.store_again().await;
    tunnel.get("/upload").await.expect_status(200);
    assert_eq!(stack.tokens().asked().len(), 2);
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_token_endpoint_that_says_nothing_is_given_up_in_time() {
    let scene = Scene::usual().await;
    scene.stack.tokens().says(Said::Silence);
    let mut tunnel = scene.stack.tunnel(API, &scene.token).await;
    let reply = tunnel.get("/upload").await;
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    reply.expect_refusal(503, "key_unavailable");
    assert!(detail.contains("did not answer in 10 seconds"), "{detail}");
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_token_endpoint_is_held_to_the_address_policy_and_to_tls() {
    let stack = Stack::builder()
        .host(API)
        .token_endpoint(AUTH)
        .resolve("metadata.example-vendor.com", "169.254.169.254:443")
        .host("untrusted.example-vendor.com")
        .certificate_without("untrusted.example-vendor.com")
        .start()
        .await;
    for (host, status, code) in [
        ("metadata.example-vendor.com", 403, "destination_blocked"),
        ("untrusted.example-vendor.com", 503, "key_unavailable"),
    ] {
        let secret = stack.secret("cs_");
        let spec = json!({
            "hosts": [API],
            "make": [{ "key": "TOKEN", "grant": "client_credentials", "url": format!("https://{host}/t"),
                       "client_id": "me", "client_secret": "${CLIENT_SECRET}" }],
            "inject": [{ "header": "authorization", "value": "Bearer ${TOKEN}" }],
        });
        let entries = json!({ "CLIENT_SECRET": secret.text() });
        let name = host.split('.').next().unwrap();
        let access = stack.custom_access(name, &entries, &spec, &secret).await;
        let token = stack.workflow_lease(&access).await;
        let mut tunnel = stack.tunnel(API, &token).await;
        tunnel.get("/upload").await.expect_refusal(status, code);
    }
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_token_signed_by_ourselves_needs_nobody() {
    let stack = Stack::builder().host(API).start().await;
    let secret = stack.secret("hs_");
    let spec = json!({
        "hosts": [API],
        "make": [{ "key": "JWT", "grant": "jwt", "algorithm": "HS256", "private_key": "${SHARED}",
                   "issuer": "billing-bot", "audience": "vendor", "ttl": "60s" }],
        "inject": [{ "header": "authorization", "value": "Bearer ${JWT}" }],
    });
    let entries = json!({ "SHARED": secret.text() });
    let access = stack
        .custom_access("signer", &entries, &spec, &secret)
        .await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel(API, &token).await;
    stack.mark("Bearer eyJ");
    let reply = tunnel.get("/echo").await.expect_status(200);

    let bearer = stack.upstream.last().field("authorization");
    let jwt = bearer.strip_prefix("Bearer ").unwrap();
    stack.watch(Canary::of(jwt));
    assert!(!reply.text().contains(jwt));
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.bytes()).unwrap();
    mac.update(signed.as_bytes());
    mac.verify_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap())
        .unwrap();
    let claims = URL_SAFE_NO_PAD
        .decode(signed.split_once('.').unwrap().1)
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&json!("billing-bot"), &json!("vendor"))
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_grant_without_a_part_of_what_narrows_a_token_gets_no_broader_one() {
    let make = json!({ "scope": "${SCOPE}" });
    let scene = Scene::start(make, json!({ "SCOPE": "read" })).await;
    let stack = &scene.stack;
    let issued = stack.secret("at_");
    stack.tokens().says(Said::token(issued.text(), 3600));
    let (agent, _) = stack.agent("narrowed").await;
    let keys = json!({ "allowed_keys": ["CLIENT_ID", "CLIENT_SECRET"] });
    stack.grant(&agent, &scene.access.set, &keys).await;
    let body = json!({ "secret_set_id": scene.access.set, "agent_id": agent, "kind": "workflow" });
    let token = stack.mint(&body).await;
    let mut tunnel = stack.tunnel(API, &token).await;
    let reply = tunnel.get("/upload").await;
    let detail = reply.json()["detail"].as_str().unwrap().to_owned();
    reply.expect_refusal(403, "grant_denied");
    assert!(detail.contains("`SCOPE`"), "{detail}");
    assert!(stack.tokens().asked().is_empty());

    let mut tunnel = stack.tunnel(API, &scene.token).await;
    tunnel.get("/upload").await.expect_status(200);
    assert_eq!(stack.tokens().asked()[0].form("scope"), Some("read"));
    scene.stack.finish().await;
}

/// Makes the token endpoint rotate refresh tokens: each is good once, as vendors that watch for theft have it. Gives the pairs
/// of access and refresh tokens that it hands out, one after the other.
fn rotating(
    ends: &Ends,
    endpoint: &TokenEndpoint,
    first: &Canary,
    seconds: u64,
) -> Arc<Vec<(Canary, Canary)>> {
    let pairs: Vec<_> = (0..20)
        .map(|_| (ends.secret("at_"), ends.secret("rt_")))
        .collect();
    let pairs = Arc::new(pairs);
    let given = Arc::clone(&pairs);
    let mut good = first.text().to_owned();
    let mut next = 0;
    endpoint.answers(move |asked| {
        if asked.form("refresh_token") != Some(&*good) {
            return Said::Json(400, json!({ "error": "invalid_grant" }));
        }
        let (access, refresh) = &given[next];
        next += 1;
        good = refresh.text().to_owned();
        Said::Json(
            200,
            json!({ "access_token": access.text(), "token_type": "Bearer", "expires_in": seconds, "refresh_token": good }),
        )
    });
    pairs
}

async fn refreshing() -> (Scene, Canary) {
    let first = Canary::new("rt_");
    let make = json!({ "grant": "refresh_token", "refresh_token": "${REFRESH_TOKEN}" });
    let scene = Scene::start(make, json!({ "REFRESH_TOKEN": first.text() })).await;
    scene.stack.watch(first.clone());
    (scene, first)
}

#[tokio::test]
async fn a_rotated_refresh_token_survives_kill_9_and_is_used_next() {
    let (mut scene, first) = refreshing().await;
    let pairs = rotating(&scene.stack, scene.stack.tokens(), &first, 8);
    let mut tunnel = scene.stack.tunnel(API, &scene.token).await;
    tunnel.get("/upload").await.expect_status(200);
    let bearer = scene.stack.upstream.last().field("authorization");
    assert_eq!(bearer, format!("Bearer {}", pairs[0].0.text()));

    scene.stack.kill().await;
    scene.stack.start_again().await;
    let stack = &scene.stack;
    // What was made lies in the store: nobody is asked again while it lasts, and then with the new refresh token.
    wait::until("a second token", async || {
        let mut tunnel = stack.tunnel(API, &scene.token).await;
        tunnel.get("/upload").await.expect_status(200);
        (stack.tokens().asked().len() >= 2).then_some(())
    })
    .await;
    let asked = stack.tokens().asked();
    assert_eq!(asked[0].form("refresh_token"), Some(first.text()));
    assert_eq!(asked[1].form("refresh_token"), Some(pairs[0].1.text()));
    // The second was asked for ahead of need, beside the request.
    wait::until("the set's third version", async || {
        let path = format!("/v1/vault/secret-sets/{}", scene.access.set);
        let set = stack.admin().get(&path).await.expect_status(200).json();
        (set["version"].as_u64().unwrap() >= 3).then_some(())
    })
    .await;
    scene.stack.finish_after_crash().await;
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_refresh_loses_no_token() {
    let (mut scene, first) = refreshing().await;
    let (access, refresh) = (scene.stack.secret("at_"), scene.stack.secret("rt_"));
    let answer = json!({ "access_token": access.text(), "token_type": "Bearer", "expires_in": 3600, "refresh_token": refresh.text() });
    // The first question is never answered before the process is dead.
    scene.stack.tokens().says(Said::Silence);
    let mut tunnel = scene.stack.tunnel(API, &scene.token).await;
    tunnel.send("GET", "/upload", &[], b"").await.unwrap();
    wait::until("the question", async || {
        (scene.stack.tokens().asked().len() == 1).then_some(())
    })
    .await;
    scene.stack.kill().await;
    scene.stack.tokens().says(Said::Json(200, answer));
    scene.stack.start_again().await;

    // The dead process's claim ends by itself; until then the answer is to try again.
    let stack = &scene.stack;
    let deadline = std::time::Instant::now() + Duration::from_secs(100);
    loop {
        let mut tunnel = stack.tunnel(API, &scene.token).await;
        let reply = tunnel.get("/upload").await;
        if reply.status == 200 {
            break;
        }
        reply.expect_refusal(503, "key_unavailable");
        assert!(
            std::time::Instant::now() < deadline,
            "the claim of a dead process ends"
        );
    }
    assert_eq!(
        stack.tokens().asked()[1].form("refresh_token"),
        Some(first.text())
    );
    scene.stack.finish_after_crash().await;
}

#[tokio::test]
async fn many_uses_at_once_rotate_a_refresh_token_once() {
    let (scene, first) = refreshing().await;
    let stack = &scene.stack;
    rotating(stack, stack.tokens(), &first, 3600);
    let mut tunnels = Vec::new();
    for _ in 0..32 {
        tunnels.push(stack.tunnel(API, &scene.token).await);
    }
    for reply in race(tunnels, "/upload").await {
        reply.expect_status(200);
    }
    assert_eq!(stack.tokens().asked().len(), 1);
    // A later use finds the new version of the set, with the token beside it.
    let mut tunnel = stack.tunnel(API, &scene.token).await;
    tunnel.get("/upload").await.expect_status(200);
    assert_eq!(stack.tokens().asked().len(), 1);
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_refresh_token_that_an_operator_stores_anew_takes_over_at_once() {
    let (scene, first) = refreshing().await;
    let stack = &scene.stack;
    rotating(stack, stack.tokens(), &first, 3600);
    let mut tunnel = stack.tunnel(API, &scene.token).await;
    tunnel.get("/upload").await.expect_status(200);

    let other = stack.secret("rt_");
    let pairs = rotating(stack, stack.tokens(), &other, 3600);
    let body = json!({ "entries": { "REFRESH_TOKEN": other.text() } });
    let path = format!("/v1/vault/secret-sets/{}", scene.access.set);
    stack.admin().put(&path, &body).await.expect_status(200);
    tunnel.get("/upload").await.expect_status(200);
    let bearer = stack.upstream.last().field("authorization");
    assert_eq!(bearer, format!("Bearer {}", pairs[0].0.text()));
    scene.stack.finish().await;
}

#[tokio::test]
async fn two_injectors_rotate_a_refresh_token_once_and_share_what_came_of_it() {
    const VENDOR: &str = "api.linear.app";
    let fleet = Fleet::builder()
        .nodes(1, 2)
        .token_endpoint(AUTH)
        .start()
        .await;
    let first = fleet.secret("rt_");
    let pairs = rotating(&fleet, fleet.tokens(), &first, 3600);
    let spec = json!({
        "hosts": [VENDOR],
        "make": [{ "key": "TOKEN", "grant": "refresh_token", "url": format!("https://{AUTH}/token"),
                   "client_id": "public-client", "refresh_token": "${REFRESH_TOKEN}" }],
        "inject": [{ "header": "authorization", "value": "Bearer ${TOKEN}" }],
    });
    let entries = json!({ "REFRESH_TOKEN": first.text() });
    let access = fleet.custom_access("shared", &entries, &spec, &first).await;
    let token = fleet.workflow_lease(&access).await;
    let mut tunnels = Vec::new();
    for number in 0..16 {
        let ends = fleet.by(0, number % 2);
        tunnels.push(ends.tunnel(VENDOR, &token).await);
    }
    for reply in race(tunnels, "/upload").await {
        reply.expect_status(200);
    }
    assert_eq!(fleet.tokens().asked().len(), 1);
    let bearer = format!("Bearer {}", pairs[0].0.text());
    for request in fleet.upstream.requests() {
        assert_eq!(request.field("authorization"), bearer);
    }
    fleet.finish().await;
}
