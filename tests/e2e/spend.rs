//! Budgets: what a model's provider may cost, by what its answers tell.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::support::scene::Access;
use crate::support::tunnel::Tunnel;
use crate::support::wire::Reply;
use crate::support::{Stack, wait};

const HOST: &str = "api.openai.com";
const CHAT: &str = "/v1/chat/completions";

/// OpenAI for a new agent on a budget.
async fn openai(stack: &Stack, spend: &Value) -> Access {
    let secret = stack.secret("sk-proj-");
    let grant = json!({ "constraints": { "spend": spend } });
    let entries = json!({ "OPENAI_API_KEY": secret.text() });
    stack.access("openai", &entries, &secret, &grant).await
}

/// Asks a model that costs 2 dollars for a million tokens of input and 8 for output. The answer tells one and three.
async fn chat(tunnel: &mut Tunnel, more: &Value) -> Reply {
    let mut body =
        json!({ "model": "gpt-4.1", "messages": [{ "role": "user", "content": "hello" }] });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let body = body.to_string();
    let fields = ["Content-Type: application/json"];
    let reply = tunnel.request("POST", CHAT, &fields, body.as_bytes()).await;
    reply.unwrap()
}

/// The outcomes of this agent's uses, once there are so many.
async fn outcomes(stack: &Stack, agent: &str, count: usize) -> Vec<Value> {
    wait::until("the outcomes", async || {
        let mut events = stack.events().await;
        events.retain(|event| event["action"] == "lease.outcome" && event["agent_id"] == agent);
        (events.len() == count).then_some(events)
    })
    .await
}

#[tokio::test]
async fn an_agent_spends_its_budget_and_is_refused_while_another_goes_on() {
    let stack = Stack::start().await;
    let access = openai(
        &stack,
        &json!({ "tokens": 10, "usd": "25.00", "per_seconds": 3_600 }),
    )
    .await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;

    tunnel.get("/v1/models").await.expect_status(200);
    chat(&mut tunnel, &json!({})).await.expect_status(200);
    let stream = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let streamed = chat(&mut tunnel, &stream).await.expect_status(200);
    assert!(streamed.text().contains("[DONE]"), "{}", streamed.text());
    chat(&mut tunnel, &json!({})).await.expect_status(200);
    let refusal = chat(&mut tunnel, &json!({})).await;
    let refusal = refusal.expect_refusal(429, "spend_exceeded");

    let wait: u64 = refusal.field("retry-after").unwrap().parse().unwrap();
    assert!((3_000..=3_600).contains(&wait), "{wait}");
    let detail = refusal.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.starts_with(
            "the grant's budget of 10 tokens is spent (12 tokens); it begins anew at 20"
        ),
        "{detail}"
    );
    let mut tunnel = stack.tunnel(HOST, &token).await;
    let read = tunnel.get("/v1/models").await;
    read.expect_refusal(429, "spend_exceeded");
    assert_eq!(stack.upstream.count(), 4);

    let shown = stack
        .admin()
        .get(&format!("/v1/vault/grants/{}", access.grant))
        .await;
    let shown = shown.expect_status(200).json();
    let limits = json!({ "tokens": 10, "usd": "25.00", "per_seconds": 3_600 });
    assert_eq!(shown["constraints"]["spend"], limits);
    assert_eq!(shown["spent"]["tokens"], 12, "{shown}");
    assert_eq!(shown["spent"]["usd"], "0.000078", "{shown}");
    assert_eq!(shown["spent"]["held_tokens"], 0, "{shown}");
    let outcomes = outcomes(&stack, &access.agent, 4).await;
    let charged = |outcome: &Value| {
        ["tokens_in", "tokens_out", "usd_micros"].map(|name| outcome[name].as_u64().unwrap())
    };
    let charged: Vec<_> = outcomes.iter().map(charged).collect();
    assert_eq!(charged, [[0, 0, 0], [1, 3, 26], [1, 3, 26], [1, 3, 26]]);

    let (other, other_key) = stack.agent("other").await;
    let other = Access {
        grant: stack.grant(&other, &access.set, &json!({})).await,
        agent: other,
        agent_key: other_key,
        ..access
    };
    let token = stack.workflow_lease(&other).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;
    chat(&mut tunnel, &json!({})).await.expect_status(200);
    let free = self::outcomes(&stack, &other.agent, 1).await;
    assert_eq!(free[0]["tokens_in"], Value::Null, "no budget, no count");
    stack.finish().await;
}

#[tokio::test]
async fn an_answer_that_tells_nothing_is_charged_by_its_length() {
    let stack = Stack::start().await;
    let access = openai(&stack, &json!({ "tokens": 1_000_000 })).await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;

    let reply = chat(&mut tunnel, &json!({ "stream": true }))
        .await
        .expect_status(200);
    let refused = tunnel
        .request("POST", "/status/404", &[], b"{}")
        .await
        .unwrap();
    refused.expect_status(404);

    let outcomes = outcomes(&stack, &access.agent, 2).await;
    let down = reply.text().len().div_ceil(4);
    let up = outcomes[0]["bytes_up"].as_u64().unwrap().div_ceil(4);
    assert_eq!(outcomes[0]["tokens_in"], up, "{}", outcomes[0]);
    assert_eq!(outcomes[0]["tokens_out"], down, "{}", outcomes[0]);
    assert!(
        outcomes[0]["usd_micros"].as_u64() > Some(0),
        "{}",
        outcomes[0]
    );
    assert_eq!(outcomes[1]["tokens_out"], 0, "{}", outcomes[1]);
    stack.finish().await;
}

#[tokio::test]
async fn a_budget_for_the_grants_whole_life_names_no_time_to_wait_for() {
    let stack = Stack::start().await;
    let access = openai(&stack, &json!({ "usd": "0.000001" })).await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;

    chat(&mut tunnel, &json!({})).await.expect_status(200);
    let refusal = chat(&mut tunnel, &json!({})).await;
    let refusal = refusal.expect_refusal(429, "spend_exceeded");

    assert_eq!(refusal.field("retry-after"), None);
    let detail = refusal.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("0.000001 USD") && detail.contains("whole life"),
        "{detail}"
    );
    stack.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_50_racers_no_more_pass_than_their_own_bounds_leave_room_for() {
    const RACERS: usize = 50;
    const BUDGET: u64 = 20_000;
    for (bound, most) in [(100_000, 100_001), (6_000, 6_001)] {
        let stack = Stack::start().await;
        let access = openai(&stack, &json!({ "tokens": BUDGET })).await;
        let token = stack.workflow_lease(&access).await;
        let more = json!({ "max_completion_tokens": bound, "metadata": { "length": "longest" } });
        let barrier = Arc::new(Barrier::new(RACERS));
        let mut racers = Vec::new();
        for _ in 0..RACERS {
            let mut tunnel = stack.tunnel(HOST, &token).await;
            let (barrier, more) = (Arc::clone(&barrier), more.clone());
            racers.push(tokio::spawn(async move {
                barrier.wait().await;
                chat(&mut tunnel, &more).await
            }));
        }
        let mut passed = 0;
        for racer in racers {
            let reply = racer.await.expect("no racer panics");
            if reply.status == 200 {
                passed += 1;
            } else {
                reply.expect_refusal(429, "spend_exceeded");
            }
        }
        assert!(passed > 0);
        let outcomes = outcomes(&stack, &access.agent, passed).await;
        let spent = |outcome: &Value| {
            ["tokens_in", "tokens_out"].map(|name| outcome[name].as_u64().unwrap())
        };
        let spent: u64 = outcomes.iter().flat_map(spent).sum();
        assert!(spent < BUDGET + most, "{bound}: {passed} spent {spent}");
        let shown = stack
            .admin()
            .get(&format!("/v1/vault/grants/{}", access.grant))
            .await;
        let shown = shown.expect_status(200).json();
        assert_eq!(shown["spent"]["tokens"], spent, "{shown}");
        assert_eq!(shown["spent"]["held_tokens"], 0, "{shown}");
        stack.finish().await;
    }
}

/// What asks for much, or does not tell, runs alone in a small budget; what is held beyond what was spent comes back.
#[tokio::test]
async fn a_request_whose_bound_is_not_told_keeps_others_waiting() {
    let stack = Stack::start().await;
    let access = openai(&stack, &json!({ "tokens": 20_000 })).await;
    let token = stack.workflow_lease(&access).await;
    let body = r#"{"model":"gpt-4.1","messages":[]}"#;
    let chunked = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n",
        body.len()
    );
    let mut first = stack.tunnel(HOST, &token).await;
    first.wire.send(&chunked).await.unwrap();
    let mut other = stack.tunnel(HOST, &token).await;
    let detail = wait::until("the first one's use", async || {
        let reply = chat(&mut other, &json!({})).await;
        (reply.status != 200).then(|| reply.expect_refusal(429, "spend_exceeded").json())
    })
    .await;
    assert!(detail.to_string().contains("held"), "{detail}");
    first.wire.send("0\r\n\r\n").await.unwrap();
    first.wire.reply("POST").await.unwrap().expect_status(200);
    wait::until("what was held is given back", async || {
        let reply = chat(&mut other, &json!({})).await;
        (reply.status == 200).then_some(())
    })
    .await;
    stack.finish().await;
}

#[tokio::test]
async fn a_websocket_is_not_opened_on_a_budget() {
    let stack = Stack::start().await;
    let access = openai(&stack, &json!({ "tokens": 1_000_000 })).await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;

    let fields = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let refused = tunnel.request("GET", "/websocket", &fields, b"").await;
    refused.unwrap().expect_refusal(403, "upgrade_denied");

    assert_eq!(stack.upstream.count(), 0);
    let outcomes = outcomes(&stack, &access.agent, 1).await;
    assert_eq!(outcomes[0]["tokens_in"], 0, "{}", outcomes[0]);
    stack.finish().await;
}

#[tokio::test]
async fn what_could_not_be_bounded_is_no_budget() {
    let stack = Stack::start().await;
    let stripe = stack.stripe().await;
    let spend = json!({ "tokens": 1 });
    let body = json!({
        "agent_id": stripe.agent, "secret_set_id": stripe.set, "constraints": { "spend": spend },
    });
    let refused = stack.admin().post("/v1/vault/grants", &body).await;
    let refused = refused.expect_status(400);
    assert!(
        refused.text().contains("provider stripe"),
        "{}",
        refused.text()
    );

    let access = openai(&stack, &spend).await;
    let body = json!({
        "agent_id": access.agent, "secret_set_id": access.set, "constraints": { "spend": spend },
        "allowed_actions": ["proxy_use", "export_plaintext"],
    });
    let refused = stack.admin().post("/v1/vault/grants", &body).await;
    let refused = refused.expect_status(400);
    assert!(
        refused.text().contains("export_plaintext"),
        "{}",
        refused.text()
    );
    stack.finish().await;
}

#[tokio::test]
async fn the_command_line_sets_a_budget_and_shows_what_was_spent() {
    let stack = Stack::start().await;
    let access = openai(&stack, &json!({ "tokens": 1 })).await;
    let agent = access.agent.as_str();
    let made = [
        "grant",
        "create",
        "--agent",
        agent,
        "--set",
        "openai/test/openai-bot",
    ];
    let made = [&made[..], &["--spend", "25usd,1000000tokens/1d", "--json"]].concat();
    let made = stack.cli(&made).await.expect_success();
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let spend = json!({ "tokens": 1_000_000, "usd": "25.00", "per_seconds": 86_400 });
    assert_eq!(made["constraints"]["spend"], spend, "{made}");

    let shown = stack
        .cli(&["grant", "show", &access.grant, "--json"])
        .await
        .expect_success();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["spent"]["tokens"], 0, "{shown}");
    stack.finish().await;
}
