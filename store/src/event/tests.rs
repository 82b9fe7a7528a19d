use std::collections::BTreeSet;

use proptest::prelude::*;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;

fn full<'a>(keys: &'a [String], path: &'a str) -> Draft<'a> {
    Draft {
        id: "evt_1",
        stream: "n/ledger",
        seq: 18_446_744_073_709_551_615,
        created_at: "2026-11-22T07:00:01.234Z",
        org_id: "org_1",
        action: "lease.outcome",
        decision: Decision::Deny,
        error: Some("upstream_timeout"),
        actor_type: "agent",
        actor_id: "agt_1",
        agent_id: Some("agt_1"),
        lease_id: Some("lse_1"),
        grant_id: Some("grt_1"),
        secret_set_id: Some("set_1"),
        secret_version: Some(3),
        keys,
        use_id: Some("use_1"),
        request_id: Some("r"),
        client_ip: Some([127, 0, 0, 1].into()),
        method: Some("GET"),
        scheme: Some("https"),
        host: Some("api.stripe.com"),
        port: Some(443),
        address: Some([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()),
        path: Some(path),
        status: Some(200),
        bytes_up: Some(0),
        bytes_down: Some(7),
        duration_ms: Some(10),
        attempts: Some(1),
        preset: Some("read-only"),
        found_seq: Some(5),
        signed_seq: Some(9),
        reason: Some("an incident"),
        approval_id: Some("apr_1"),
        vault_id: Some("vlt_1"),
        policy_id: Some("pol_1"),
        hold: Some(Hold {
            since: 1,
            amount: Amount {
                tokens: 2,
                usd_micros: 3,
            },
        }),
        tokens_in: Some(4),
        tokens_out: Some(5),
        usd_micros: Some(6),
        content_sha256: Some("00ff"),
        reflections: Some(8),
    }
}

#[test]
fn the_canonical_text_holds_every_field_in_its_order() {
    let keys = ["A".to_owned(), "B".to_owned()];
    let mut body = String::new();
    full(&keys, "/v1/x").write(&mut body);
    let event: Event = serde_json::from_str(&body).unwrap();
    let again = serde_json::to_string(&event).unwrap();
    assert_eq!(again.replace("\"prev_hash\":\"\",\"hash\":\"\",", ""), body);
    let told: serde_json::Value = serde_json::from_str(&again).unwrap();
    let told: BTreeSet<&str> = told
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(told, BTreeSet::from(Event::FIELDS));
}

#[test]
fn absent_fields_are_left_out() {
    let mut body = String::from("left over");
    Draft {
        id: "evt_1",
        stream: "n/control",
        seq: 1,
        ..Draft::default()
    }
    .write(&mut body);
    assert_eq!(
        body,
        "{\"id\":\"evt_1\",\"stream\":\"n/control\",\"seq\":1,\"created_at\":\"\",\"org_id\":\"\",\"action\":\"\",\"decision\":\"allow\",\"actor_type\":\"\",\"actor_id\":\"\"}"
    );
}

#[test]
fn line_breaks_and_terminal_controls_never_stand_in_the_text() {
    let mut body = String::new();
    full(&[], "/\r\n\u{1b}[31m\u{9b}2J\u{7f}\"\\é").write(&mut body);
    assert!(!body.chars().any(char::is_control), "{body}");
    let event: Event = serde_json::from_str(&body).unwrap();
    assert_eq!(event.path.unwrap(), "/\r\n\u{1b}[31m\u{9b}2J\u{7f}\"\\é");
}

proptest! {
    #[test]
    fn any_text_is_read_back(path in any::<String>(), key in any::<String>()) {
        let keys = [key];
        let mut body = String::new();
        full(&keys, &path).write(&mut body);
        let event: Event = serde_json::from_str(&body).unwrap();
        prop_assert_eq!(event.path.unwrap(), path);
        prop_assert_eq!(&event.keys, &keys);
    }

    #[test]
    fn any_time_is_written_as_the_time_crate_writes_it(millis in -62_167_219_200_000_i64..253_402_300_799_999) {
        let mut text = String::new();
        rfc3339(&mut text, millis);
        let expected = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap();
        prop_assert_eq!(OffsetDateTime::parse(&text, &Rfc3339).unwrap(), expected);
        prop_assert_eq!(text.len(), 24);
    }
}
