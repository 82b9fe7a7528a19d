//! Stand-ins of the vendors' own calls, in the vendors' shapes: what their SDKs ask, and what they read from the answer.

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Answer, Recorded};

/// The answer of the vendor whom the request's host names; none where it has no such call.
pub(super) fn answer(request: &Recorded) -> Option<Answer> {
    let call = (
        request.authority.as_str(),
        request.method.as_str(),
        request.path(),
    );
    let (slot, answer): (&str, fn(&Recorded) -> Answer) = match call {
        ("api.openai.com", "POST", "/v1/chat/completions") => ("authorization", chat_completion),
        ("api.stripe.com", "POST", "/v1/charges") => ("authorization", charge),
        ("api.anthropic.com", "POST", "/v1/messages") => ("x-api-key", message),
        ("api.github.com", "GET", "/repos/acme/widgets") => ("authorization", repository),
        ("api.github.com", "GET", "/repos/acme/widgets/issues") => ("authorization", issues),
        ("api.github.com", "POST", "/repos/acme/widgets/issues") => ("authorization", new_issue),
        ("generativelanguage.googleapis.com", "POST", path)
            if path.ends_with(":generateContent") =>
        {
            ("x-goog-api-key", content)
        }
        ("generativelanguage.googleapis.com", "POST", path)
            if path.ends_with(":streamGenerateContent") =>
        {
            ("x-goog-api-key", streamed_content)
        }
        ("slack.com", "POST", "/api/chat.postMessage") => ("authorization", posted_message),
        ("slack.com", _, "/api/conversations.list") => ("authorization", conversations),
        _ => return None,
    };
    if request.fields(slot).is_empty() {
        let error = json!({ "type": "authentication_error", "message": "no key" });
        let refusal = json!({ "ok": false, "message": "Requires authentication", "error": error });
        return Some(Answer::json(401, &refusal));
    }
    Some(answer(request))
}

/// The words that every model here says, as they come.
const WORDS: [&str; 3] = ["hello", " from", " upstream"];

/// A body of JSON, or nothing.
fn asked(request: &Recorded) -> Value {
    serde_json::from_slice(&request.body()).unwrap_or_default()
}

/// The field of a form.
fn form_field(request: &Recorded, name: &str) -> Option<String> {
    let form = String::from_utf8_lossy(&request.body()).into_owned();
    let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(field, _)| *field == name)?;
    let spaced = value.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy();
    Some(decoded.into_owned())
}

/// Server-sent events, each a piece of its own.
fn events(events: Vec<String>) -> Answer {
    let (sender, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        for event in events {
            if sender.send(Bytes::from(event)).await.is_err() {
                return;
            }
        }
    });
    Answer::Pieces {
        status: 200,
        fields: vec![("content-type".into(), "text/event-stream".into())],
        pieces,
    }
}

/// `OpenAI`'s chat completions, whole or as events.
fn chat_completion(request: &Recorded) -> Answer {
    let asked = asked(request);
    let model = &asked["model"];
    if asked["stream"] == true {
        let delta = |word: &&str| {
            let choice = json!({ "index": 0, "delta": { "content": word }, "finish_reason": null });
            let chunk = json!({
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model,
                "choices": [choice],
            });
            format!("data: {chunk}\n\n")
        };
        let usage = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [],
            "usage": { "prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4 },
        });
        let is_asked = asked["stream_options"]["include_usage"] == true;
        let usage = is_asked.then(|| format!("data: {usage}\n\n"));
        let end = "data: [DONE]\n\n".to_owned();
        return events(WORDS.iter().map(delta).chain(usage).chain([end]).collect());
    }
    // A model that writes as much as it may.
    let is_long = asked["metadata"]["length"] == "longest";
    let written = asked["max_completion_tokens"].as_u64().filter(|_| is_long);
    let written = written.unwrap_or(3);
    Answer::json(
        200,
        &json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
            "choices": [{
                "index": 0, "finish_reason": "stop", "logprobs": null,
                "message": { "role": "assistant", "content": WORDS.concat(), "refusal": null },
            }],
            "usage": { "prompt_tokens": 1, "completion_tokens": written, "total_tokens": written + 1 },
        }),
    )
}

/// Stripe's charges.
fn charge(request: &Recorded) -> Answer {
    let amount = form_field(request, "amount").and_then(|amount| amount.parse::<u64>().ok());
    Answer::json(
        200,
        &json!({ "id": "ch_1", "object": "charge", "amount": amount, "currency": "usd", "paid": true }),
    )
}

/// Anthropic's messages, whole or as events.
fn message(request: &Recorded) -> Answer {
    let asked = asked(request);
    let message = |content: Value, stop: Value| {
        json!({
            "id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"], "content": content,
            "stop_reason": stop, "stop_sequence": null, "usage": { "input_tokens": 1, "output_tokens": 3 },
        })
    };
    if asked["stream"] != true {
        let content = json!([{ "type": "text", "text": WORDS.concat() }]);
        return Answer::json(200, &message(content, json!("end_turn")));
    }
    let event = |event: &Value| {
        let name = event["type"].as_str().unwrap_or_default();
        format!("event: {name}\ndata: {event}\n\n")
    };
    let deltas = WORDS.map(|word| {
        json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": word } })
    });
    let start = [
        json!({ "type": "message_start", "message": message(json!([]), Value::Null) }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        json!({ "type": "ping" }),
    ];
    let ends = json!({ "stop_reason": "end_turn", "stop_sequence": null });
    let end = [
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": ends, "usage": { "output_tokens": 3 } }),
        json!({ "type": "message_stop" }),
    ];
    events(start.iter().chain(&deltas).chain(&end).map(event).collect())
}

/// Gemini's content, whole.
fn content(_: &Recorded) -> Answer {
    Answer::json(200, &candidates(&WORDS.concat()))
}

/// The same as events, for `?alt=sse`.
fn streamed_content(_: &Recorded) -> Answer {
    let event = |word: &str| format!("data: {}\r\n\r\n", candidates(word));
    events(WORDS.map(event).to_vec())
}

fn candidates(text: &str) -> Value {
    json!({
        "candidates": [{
            "content": { "role": "model", "parts": [{ "text": text }] }, "finishReason": "STOP", "index": 0,
        }],
        "usageMetadata": { "promptTokenCount": 1, "candidatesTokenCount": 3, "totalTokenCount": 4 },
        "modelVersion": "gemini-test", "responseId": "response-1",
    })
}

/// GitHub's repository, by what clients follow from it.
fn repository(_: &Recorded) -> Answer {
    Answer::json(
        200,
        &json!({
            "id": 1, "node_id": "R_1", "name": "widgets", "full_name": "acme/widgets", "private": true,
            "url": "https://api.github.com/repos/acme/widgets",
            "issues_url": "https://api.github.com/repos/acme/widgets/issues{/number}",
            "owner": { "id": 1, "login": "acme", "type": "Organization" },
        }),
    )
}

/// GitHub's issues on two pages, the second of which the first one's `Link` names.
fn issues(request: &Recorded) -> Answer {
    let is_last = request.target.contains("page=2");
    let issues = json!([issue(if is_last { 2 } else { 1 }, "a widget squeaks")]);
    let mut answer = Answer::json(200, &issues);
    if let (false, Answer::Full { fields, .. }) = (is_last, &mut answer) {
        let next = "https://api.github.com/repos/acme/widgets/issues?page=2";
        fields.push((
            "link".into(),
            format!("<{next}>; rel=\"next\", <{next}>; rel=\"last\""),
        ));
    }
    answer
}

fn new_issue(request: &Recorded) -> Answer {
    let title = asked(request)["title"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    Answer::json(201, &issue(3, &title))
}

fn issue(number: u32, title: &str) -> Value {
    json!({
        "id": 100 + number, "node_id": format!("I_{number}"), "number": number, "title": title, "state": "open",
        "url": format!("https://api.github.com/repos/acme/widgets/issues/{number}"),
        "user": { "id": 1, "login": "octocat", "type": "User" }, "labels": [], "comments": 0,
        "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "closed_at": null,
    })
}

/// Slack's answer to a message, which its SDKs send as a form or as JSON.
fn posted_message(request: &Recorded) -> Answer {
    let channel = form_field(request, "channel");
    let text = form_field(request, "text");
    let asked = asked(request);
    let said =
        |form: Option<String>, name: &str| form.map_or_else(|| asked[name].clone(), Value::from);
    let (channel, text) = (said(channel, "channel"), said(text, "text"));
    Answer::json(
        200,
        &json!({
            "ok": true, "channel": channel, "ts": "1700000000.000100",
            "message": { "type": "message", "text": text, "user": "U1", "ts": "1700000000.000100" },
        }),
    )
}

/// Slack's channels, all on one page.
fn conversations(_: &Recorded) -> Answer {
    let channels = json!([{ "id": "C1", "name": "general", "is_channel": true }]);
    let metadata = json!({ "next_cursor": "" });
    Answer::json(
        200,
        &json!({ "ok": true, "channels": channels, "response_metadata": metadata }),
    )
}
