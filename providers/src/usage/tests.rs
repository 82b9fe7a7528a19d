//! Answers in the shapes that the vendors document, as JSON and as streams.

use super::*;

/// Reads an answer that arrives in parts.
fn metered(format: Format, media: &str, parts: &[&[u8]]) -> Meter {
    let mut meter = Meter::new(format, Some(media));
    for part in parts {
        meter.push(part);
    }
    meter.finish();
    meter
}

/// Reads an answer in every two parts that it has, and expects the same of all.
fn read(format: Format, media: &str, answer: &str) -> Usage {
    let whole = metered(format, media, &[answer.as_bytes()]);
    let usage = whole.usage().expect("a usage");
    for split in 0..answer.len() {
        let (first, second) = answer.as_bytes().split_at(split);
        let parts = metered(format, media, &[first, second]);
        assert_eq!(parts.usage(), Some(usage.clone()), "split at {split}");
        assert_eq!(
            parts.tally.is_final, whole.tally.is_final,
            "split at {split}"
        );
    }
    let bytes: Vec<&[u8]> = answer.as_bytes().chunks(1).collect();
    assert_eq!(metered(format, media, &bytes).usage(), Some(usage.clone()));
    assert!(whole.tally.is_final, "nothing more is to be expected");
    usage
}

fn told(model: &str, input: u64, cached: u64, output: u64) -> Usage {
    Usage {
        model: Some(model.to_owned()),
        input,
        cached,
        output,
        ..Usage::default()
    }
}

const JSON: &str = "application/json; charset=utf-8";
const EVENTS: &str = "text/event-stream; charset=utf-8";

#[test]
fn only_data_fields_of_events_are_read() {
    let answer = "d: {\"usage\":{\"prompt_tokens\":99,\"completion_tokens\":99}}\n\
        dat: {\"usage\":{\"prompt_tokens\":99,\"completion_tokens\":99}}\n\
        database: {\"usage\":{\"prompt_tokens\":99,\"completion_tokens\":99}}\n\n\
        data:{\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12}}\n\n";
    assert_eq!(
        read(Format::OpenAi, EVENTS, answer),
        told("gpt-4o", 9, 0, 12)
    );
}

#[test]
fn openai_chat() {
    let answer = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1741569952,"model":"gpt-4.1-2025-04-14",
        "choices":[{"index":0,"message":{"role":"assistant","content":"{\"usage\":{\"prompt_tokens\":1}} \\","refusal":null},
        "logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,
        "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}},
        "service_tier":"default"}"#;
    assert_eq!(
        read(Format::OpenAi, JSON, answer),
        told("gpt-4.1-2025-04-14", 15, 4, 10)
    );
}

#[test]
fn openai_chat_stream_with_usage_in_its_last_chunk() {
    let answer = "data: {\"id\":\"c\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\n\n\
        data: {\"id\":\"c\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello \\\"you\\\"\"}}],\"usage\":null}\n\n\
        data: {\"id\":\"c\",\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":12,\"total_tokens\":21}}\n\n\
        data: [DONE]\n\n";
    assert_eq!(
        read(Format::OpenAi, EVENTS, answer),
        told("gpt-4o-mini-2024-07-18", 9, 0, 12)
    );
    let returns = answer.replace('\n', "\r\n");
    assert_eq!(
        read(Format::OpenAi, EVENTS, &returns),
        told("gpt-4o-mini-2024-07-18", 9, 0, 12)
    );
}

#[test]
fn openai_responses() {
    let answer = r#"{"id":"resp_1","object":"response","status":"completed","model":"gpt-5-2025-08-07","metadata":{"usage":"x"},
        "output":[{"type":"message","content":[{"type":"output_text","text":"Hi","annotations":[]}]}],
        "usage":{"input_tokens":36,"input_tokens_details":{"cached_tokens":6},"output_tokens":87,
        "output_tokens_details":{"reasoning_tokens":64},"total_tokens":123}}"#;
    assert_eq!(
        read(Format::OpenAi, JSON, answer),
        told("gpt-5-2025-08-07", 30, 6, 87)
    );
    let stream = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"r\",\"model\":\"gpt-5-2025-08-07\",\"usage\":null}}\n\n\
        event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n\
        event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":\"r\",\"model\":\"gpt-5-2025-08-07\",\
        \"usage\":{\"input_tokens\":36,\"input_tokens_details\":{\"cached_tokens\":6},\"output_tokens\":87,\"total_tokens\":123}}}\n\n";
    assert_eq!(
        read(Format::OpenAi, EVENTS, stream),
        told("gpt-5-2025-08-07", 30, 6, 87)
    );
}

#[test]
fn openai_embeddings_behind_a_long_body() {
    let vector = vec!["-0.0023"; 20_000].join(",");
    let answer = format!(
        "{{\"object\":\"list\",\"data\":[{{\"object\":\"embedding\",\"index\":0,\"embedding\":[{vector}]}}],\
         \"model\":\"text-embedding-3-small\",\"usage\":{{\"prompt_tokens\":8,\"total_tokens\":8}}}}"
    );
    let parts: Vec<&[u8]> = answer.as_bytes().chunks(1_000).collect();
    let meter = metered(Format::OpenAi, JSON, &parts);
    assert_eq!(meter.usage(), Some(told("text-embedding-3-small", 8, 0, 0)));
    assert!(meter.tally.is_final);
}

#[test]
fn anthropic_messages() {
    let answer = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929",
        "content":[{"type":"tool_use","input":{"usage":{"input_tokens":1,"output_tokens":999999}}}],"stop_reason":"end_turn",
        "usage":{"input_tokens":2095,"cache_creation_input_tokens":2051,"cache_read_input_tokens":2052,
        "cache_creation":{"ephemeral_5m_input_tokens":51,"ephemeral_1h_input_tokens":2000},"output_tokens":503,
        "service_tier":"standard"}}"#;
    let usage = read(Format::Anthropic, JSON, answer);
    let expected = Usage {
        written: 51,
        written_long: 2_000,
        ..told("claude-sonnet-4-5-20250929", 2_095, 2_052, 503)
    };
    assert_eq!(usage, expected);
    assert_eq!(usage.all_input(), 2_095 + 2_051 + 2_052);
}

const ANTHROPIC_STREAM: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-haiku-4-5-20251001\",\
    \"content\":[],\"usage\":{\"input_tokens\":25,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":7,\"output_tokens\":1}}}\n\n\
    event: ping\ndata: {\"type\": \"ping\"}\n\n\
    event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hello\"}}\n\n\
    event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":15}}\n\n\
    event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[test]
fn anthropic_messages_stream() {
    let expected = told("claude-haiku-4-5-20251001", 25, 7, 15);
    assert_eq!(read(Format::Anthropic, EVENTS, ANTHROPIC_STREAM), expected);
    // DeepSeek, xAI and others speak so beside OpenAI's way.
    assert_eq!(read(Format::OpenAi, EVENTS, ANTHROPIC_STREAM), expected);
}

#[test]
fn gemini_generate_content() {
    let answer = r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"finishReason":"STOP"}],
        "usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":40,"candidatesTokenCount":12,"thoughtsTokenCount":30,
        "toolUsePromptTokenCount":5,"totalTokenCount":147,"promptTokensDetails":[{"modality":"TEXT","tokenCount":100}]},
        "modelVersion":"gemini-2.5-flash"}"#;
    let expected = told("gemini-2.5-flash", 65, 40, 42);
    assert_eq!(read(Format::Gemini, JSON, answer), expected);
    let first = r#"{"candidates":[{"content":{"parts":[{"text":"H"}]}}],"usageMetadata":{"promptTokenCount":100,"totalTokenCount":100},"modelVersion":"gemini-2.5-flash"}"#;
    let events = format!(
        "data: {first}\r\n\r\ndata: {}\r\n\r\n",
        answer.replace('\n', "")
    );
    assert_eq!(read(Format::Gemini, EVENTS, &events), expected);
    let array = format!("[{first}\n,\n{answer}]");
    assert_eq!(read(Format::Gemini, JSON, &array), expected);
}

#[test]
fn cohere_chat_in_both_versions() {
    let answer = r#"{"id":"c","message":{"role":"assistant","content":[{"type":"text","text":"Hi"}]},"finish_reason":"COMPLETE",
        "usage":{"billed_units":{"input_tokens":5.0,"output_tokens":18.0},"tokens":{"input_tokens":71.0,"output_tokens":18.0}}}"#;
    let expected = Usage {
        model: None,
        ..told("", 71, 0, 18)
    };
    assert_eq!(read(Format::Cohere, JSON, answer), expected);
    let stream = "event: content-delta\ndata: {\"type\":\"content-delta\",\"delta\":{\"message\":{\"content\":{\"text\":\"Hi\"}}}}\n\n\
        event: message-end\ndata: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"COMPLETE\",\"usage\":{\"billed_units\":{\"input_tokens\":5,\"output_tokens\":18},\"tokens\":{\"input_tokens\":71,\"output_tokens\":18}}}}\n\n";
    assert_eq!(read(Format::Cohere, EVENTS, stream), expected);
    let old = "{\"event_type\":\"text-generation\",\"text\":\"Hi\"}\n{\"event_type\":\"stream-end\",\"response\":{\"meta\":{\"billed_units\":{\"input_tokens\":71,\"output_tokens\":18}}}}\n";
    assert_eq!(
        read(Format::Cohere, "application/stream+json", old),
        expected
    );
}

#[test]
fn groq_deepseek_mistral_moonshot_and_xai_have_their_own_places() {
    let groq = "data: {\"model\":\"llama-3.1-8b-instant\",\"choices\":[{\"delta\":{}}],\"x_groq\":{\"id\":\"r\",\"usage\":{\"queue_time\":0.02,\"prompt_tokens\":18,\"completion_tokens\":55,\"total_tokens\":73}}}\n\ndata: [DONE]\n\n";
    assert_eq!(
        read(Format::OpenAi, EVENTS, groq),
        told("llama-3.1-8b-instant", 18, 0, 55)
    );
    let deepseek = r#"{"model":"deepseek-chat","usage":{"prompt_tokens":160,"completion_tokens":10,"total_tokens":170,"prompt_cache_hit_tokens":128,"prompt_cache_miss_tokens":32}}"#;
    assert_eq!(
        read(Format::OpenAi, JSON, deepseek),
        told("deepseek-chat", 32, 128, 10)
    );
    let mistral = "data: {\"model\":\"mistral-small-2506\",\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":4,\"total_tokens\":13,\"completion_tokens\":9}}\n\ndata: [DONE]\n\n";
    assert_eq!(
        read(Format::OpenAi, EVENTS, mistral),
        told("mistral-small-2506", 4, 0, 9)
    );
    let moonshot = "data: {\"model\":\"kimi-k2\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":13,\"total_tokens\":32}}]}\n\n";
    assert_eq!(
        read(Format::OpenAi, EVENTS, moonshot),
        told("kimi-k2", 19, 0, 13)
    );
    let xai = r#"{"model":"grok-4-0709","usage":{"prompt_tokens":32,"completion_tokens":9,"total_tokens":141,"completion_tokens_details":{"reasoning_tokens":100}}}"#;
    assert_eq!(
        read(Format::OpenAi, JSON, xai),
        told("grok-4-0709", 32, 0, 109),
        "with its reasoning"
    );
    let voyage = r#"{"object":"list","data":[],"model":"voyage-3","usage":{"total_tokens":10}}"#;
    assert_eq!(
        read(Format::OpenAi, JSON, voyage),
        told("voyage-3", 10, 0, 0)
    );
}

#[test]
fn openrouter_tells_what_it_cost() {
    let answer = r#"{"model":"anthropic/claude-sonnet-4","usage":{"prompt_tokens":194,"completion_tokens":2,"total_tokens":196,"cost":1.4e-05,"cost_details":{"upstream_inference_cost":null}}}"#;
    let usage = read(Format::OpenRouter, JSON, answer);
    assert_eq!(usage.cost_micros, Some(14));
    let own_key = answer.replace("null", "0.25");
    assert_eq!(
        read(Format::OpenRouter, JSON, &own_key).cost_micros,
        Some(250_000)
    );
    assert_eq!(
        read(Format::OpenAi, JSON, answer).cost_micros,
        None,
        "only of a reseller"
    );
}

fn post(bytes_up: u64) -> Exchange<'static> {
    Exchange {
        method: "POST",
        bytes_up,
        status: 200,
        has_ended: true,
    }
}

fn charged(meter: &Meter, exchange: &Exchange<'_>) -> (u64, u64) {
    let charge = meter.charge(exchange, &Prices::builtin(), "openai");
    assert_eq!(
        charge.usd_micros > 0,
        charge.tokens_in + charge.tokens_out > 0
    );
    (charge.tokens_in, charge.tokens_out)
}

#[test]
fn what_reports_nothing_is_charged_a_token_for_four_bytes_both_ways() {
    let stream = "data: {\"model\":\"gpt-4o\",\"choices\":[{\"delta\":{\"content\":\"Hi\"}}]}\n\ndata: [DONE]\n\n";
    let meter = metered(Format::OpenAi, EVENTS, &[stream.as_bytes()]);
    let down = (stream.len() as u64).div_ceil(4);
    assert_eq!(charged(&meter, &post(401)), (101, down));
    let sound = metered(Format::OpenAi, "audio/mpeg", &[&[0; 4_000]]);
    assert_eq!(charged(&sound, &post(40)), (10, 1_000));
    let page = metered(Format::OpenAi, JSON, &[b"<html>"]);
    assert_eq!(charged(&page, &post(0)), (0, 2));
}

#[test]
fn a_refused_request_and_one_that_only_reads_cost_nothing_unless_they_say_so() {
    let error = metered(
        Format::OpenAi,
        JSON,
        &[br#"{"error":{"message":"no such model"}}"#],
    );
    let refused = Exchange {
        status: 404,
        ..post(400)
    };
    assert_eq!(charged(&error, &refused), (0, 0));
    let list = metered(Format::OpenAi, JSON, &[br#"{"data":[{"id":"gpt-4o"}]}"#]);
    let read = Exchange {
        method: "GET",
        ..post(0)
    };
    assert_eq!(charged(&list, &read), (0, 0));
    let background =
        br#"{"model":"gpt-4o","status":"completed","usage":{"input_tokens":3,"output_tokens":4}}"#;
    let background = metered(Format::OpenAi, JSON, &[background]);
    assert_eq!(charged(&background, &read), (3, 4));
}

#[test]
fn a_stream_that_breaks_off_is_charged_what_it_reported_or_its_length() {
    let cut = ANTHROPIC_STREAM.find("event: message_delta").unwrap();
    let cut = &ANTHROPIC_STREAM[..cut];
    let meter = metered(Format::Anthropic, EVENTS, &[cut.as_bytes()]);
    let down = (cut.len() as u64).div_ceil(4);
    let cut_off = Exchange {
        has_ended: false,
        ..post(80)
    };
    assert_eq!(charged(&meter, &cut_off), (32, down));
    assert_eq!(
        charged(&meter, &post(80)),
        (32, down),
        "it never told its end"
    );
    let whole = metered(Format::Anthropic, EVENTS, &[ANTHROPIC_STREAM.as_bytes()]);
    assert_eq!(charged(&whole, &post(80)), (32, 15));
}

#[test]
fn what_a_use_holds_follows_its_length_and_what_it_asks_for() {
    let prices = Prices::builtin();
    let held = |method, path, body: Option<&str>, length| {
        let asking = Asking {
            method,
            path,
            body: body.map(str::as_bytes),
            length,
        };
        let held = estimate(&prices, "openai", Format::OpenAi, &asking);
        (held.tokens_in, held.tokens_out, held.usd_micros)
    };
    let chat = "/v1/chat/completions";
    let body = r#"{"model":"gpt-4o","max_tokens":100000,"n":2}"#;
    let (input, output, usd) = held("POST", chat, Some(body), None);
    assert_eq!((input, output), (11, 200_000));
    // 2.50 and 10 dollars for a million.
    assert_eq!(usd, (11_u64 * 25).div_ceil(10) + 2_000_000);
    // A model that is not known, or is not the body's to say, costs what the most expensive one does.
    let deployment = "/openai/deployments/mine/chat/completions";
    let dearest = (11 * 150) + 200_000 * 600;
    assert_eq!(held("POST", deployment, Some(body), None).2, dearest);

    let unread = held("POST", chat, None, Some(4_001));
    assert_eq!((unread.0, unread.1), (1_001, 1_048_576));
    let unread = held("POST", chat, None, None);
    assert_eq!((unread.0, unread.1), (HELD_INPUT, 1_048_576));
    let bare = held("POST", chat, None, Some(0));
    assert_eq!((bare.0, bare.1), (0, 4_096));
    assert_eq!(held("GET", chat, Some(body), None), (0, 0, 0));
}

#[test]
fn every_format_is_read_by_its_name() {
    for (name, format) in Format::ALL {
        assert_eq!(name.parse(), Ok(format));
        assert_eq!(format.to_string(), name);
    }
    assert!("tokens".parse::<Format>().is_err());
}

proptest::proptest! {
    #[test]
    fn whatever_an_answer_holds_is_read_alike_however_it_is_cut(
        body in proptest::collection::vec(
            proptest::prop_oneof![
                proptest::prelude::Just(b"{\"usage\":{\"prompt_tokens\":".to_vec()),
                proptest::prelude::Just(b"data: ".to_vec()),
                proptest::prelude::Just(b"\r\n\r\n".to_vec()),
                proptest::prelude::Just(b"12,\"total_tokens\":99}}".to_vec()),
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4),
            ],
            0..12,
        ),
        size in 1_usize..9,
    ) {
        let body = body.concat();
        for (_, format) in Format::ALL {
            for media in [JSON, EVENTS] {
                let whole = metered(format, media, &[&body]);
                let parts: Vec<&[u8]> = body.chunks(size).collect();
                proptest::prop_assert_eq!(metered(format, media, &parts).usage(), whole.usage());
            }
        }
    }
}
