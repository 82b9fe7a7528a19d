//! The trail as OTLP logs, over HTTP with protobuf bodies (OTLP specification 1.x, "OTLP/HTTP").

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, header};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost_otlp::Message as _;
use serde_json::Value;
use store::{Decision, Event};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{CollectorOptions, Failed};
use crate::AppState;
use crate::outbound::Bounds;

/// The operator's collector of logs.
pub(super) struct Collector {
    options: CollectorOptions,
}

impl Collector {
    pub(super) fn new(options: CollectorOptions) -> Self {
        Self { options }
    }

    /// Posts events as one request, which the collector takes as a whole or not.
    pub(super) async fn attempt(&self, state: &AppState, events: &[Event]) -> Result<(), Failed> {
        let now = state.clock.now();
        let body = request(events, now).encode_to_vec();
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.options.url.clone();
        let headers = request.headers_mut();
        headers.extend(self.options.headers.iter().cloned());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        let bounds = Bounds {
            deadline: DEADLINE,
            ..Bounds::default()
        };
        let answer = state.outbound.send(request, bounds).await;
        let answer = answer.map_err(|error| Failed {
            status: None,
            error: error.to_string(),
            retry_after: None,
            is_gone: false,
        })?;
        super::webhook::judge(answer.status().as_u16(), answer.headers())?;
        let answered = ExportLogsServiceResponse::decode(answer.body().as_ref());
        let partial = answered.ok().and_then(|answered| answered.partial_success);
        // By the specification these are not to be sent again.
        if let Some(partial) = partial.filter(|partial| partial.rejected_log_records > 0) {
            tracing::warn!(
                rejected = partial.rejected_log_records,
                "the collector took the trail but for {} events, which it calls malformed",
                partial.rejected_log_records
            );
        }
        Ok(())
    }
}

/// Events as the body of a request.
fn request(events: &[Event], now: OffsetDateTime) -> ExportLogsServiceRequest {
    let observed = nanoseconds(now);
    let scope = ScopeLogs {
        scope: Some(InstrumentationScope {
            name: "claviger.audit".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        }),
        log_records: events.iter().map(|event| record(event, observed)).collect(),
        ..ScopeLogs::default()
    };
    let service = [
        ("service.name", "claviger"),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let logs = ResourceLogs {
        resource: Some(Resource {
            attributes: service
                .into_iter()
                .map(|(name, value)| attribute(name, Any::StringValue(value.to_owned())))
                .collect(),
            ..Resource::default()
        }),
        scope_logs: vec![scope],
        ..ResourceLogs::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![logs],
    }
}

/// One event: its text as the body, its fields as attributes.
fn record(event: &Event, observed: u64) -> LogRecord {
    let at = OffsetDateTime::parse(&event.created_at, &Rfc3339);
    let (severity, text) = match event.decision {
        Decision::Allow => (SeverityNumber::Info, "INFO"),
        Decision::Deny => (SeverityNumber::Warn, "WARN"),
    };
    let told = serde_json::to_value(event).unwrap_or_default();
    LogRecord {
        time_unix_nano: at.map_or(observed, nanoseconds),
        observed_time_unix_nano: observed,
        severity_number: severity.into(),
        severity_text: text.to_owned(),
        event_name: format!("claviger.{}", event.action),
        attributes: attributes(event, &told),
        body: Some(AnyValue {
            value: Some(Any::StringValue(told.to_string())),
        }),
        ..LogRecord::default()
    }
}

fn attributes(event: &Event, told: &Value) -> Vec<KeyValue> {
    let fields = told.as_object().into_iter().flatten();
    let mut attributes: Vec<KeyValue> = fields
        .filter_map(|(field, value)| Some(attribute(&name_of(field), any(value)?)))
        .collect();
    if event.actor_type == "user" {
        attributes.push(attribute(
            "user.id",
            Any::StringValue(event.actor_id.clone()),
        ));
    }
    attributes
}

/// The name of a field among OpenTelemetry's semantic conventions, or else one of our own.
fn name_of(field: &str) -> String {
    let common = COMMON.iter().find(|(ours, _)| *ours == field);
    common.map_or_else(
        || format!("claviger.{field}"),
        |(_, name)| (*name).to_owned(),
    )
}

fn any(value: &Value) -> Option<Any> {
    Some(match value {
        Value::String(text) => Any::StringValue(text.clone()),
        Value::Bool(is_set) => Any::BoolValue(*is_set),
        Value::Number(number) => Any::IntValue(number.as_i64()?),
        Value::Array(items) => Any::ArrayValue(ArrayValue {
            values: items
                .iter()
                .map(|item| AnyValue { value: any(item) })
                .collect(),
        }),
        Value::Null | Value::Object(_) => return None,
    })
}

fn attribute(name: &str, value: Any) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn nanoseconds(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos()).unwrap_or(0)
}

/// Fields that mean what a semantic convention (1.37) means.
const COMMON: [(&str, &str); 11] = [
    ("method", "http.request.method"),
    ("scheme", "url.scheme"),
    ("host", "server.address"),
    ("port", "server.port"),
    ("path", "url.path"),
    ("address", "network.peer.address"),
    ("client_ip", "client.address"),
    ("status", "http.response.status_code"),
    ("error", "error.type"),
    ("bytes_up", "http.request.body.size"),
    ("bytes_down", "http.response.body.size"),
];
const PROTOBUF: &str = "application/x-protobuf";
/// A collector takes a batch of some hundred events; as long as OTLP's exporters wait.
const DEADLINE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        serde_json::from_str(
            r#"{"id":"evt_1","stream":"n/ledger","seq":7,"created_at":"2026-11-22T07:00:01.234Z","org_id":"org_1",
            "action":"lease.refuse","decision":"deny","error":"grant_denied","actor_type":"user","actor_id":"usr_1",
            "keys":["A","B"],"method":"GET","scheme":"https","host":"api.stripe.com","port":443,"path":"/v1/x",
            "client_ip":"127.0.0.1","status":403}"#,
        )
        .unwrap()
    }

    fn of(record: &LogRecord, name: &str) -> Any {
        let found = record.attributes.iter().find(|found| found.key == name);
        found
            .and_then(|found| found.value.clone()?.value)
            .unwrap_or_else(|| panic!("no attribute {name}"))
    }

    #[test]
    fn an_event_is_a_record_with_the_conventions_names() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let encoded = request(&[event()], now).encode_to_vec();
        let decoded = ExportLogsServiceRequest::decode(encoded.as_slice()).unwrap();
        let scope = &decoded.resource_logs[0].scope_logs[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, "claviger.audit");
        let record = &scope.log_records[0];
        assert_eq!(record.event_name, "claviger.lease.refuse");
        assert_eq!(record.time_unix_nano, 1_795_330_801_234_000_000);
        assert_eq!(record.severity_number(), SeverityNumber::Warn);
        let text = |text: &str| Any::StringValue(text.to_owned());
        for (name, value) in [
            ("server.address", text("api.stripe.com")),
            ("server.port", Any::IntValue(443)),
            ("http.request.method", text("GET")),
            ("http.response.status_code", Any::IntValue(403)),
            ("error.type", text("grant_denied")),
            ("client.address", text("127.0.0.1")),
            ("user.id", text("usr_1")),
            ("claviger.id", text("evt_1")),
            ("claviger.seq", Any::IntValue(7)),
        ] {
            assert_eq!(of(record, name), value, "{name}");
        }
        assert!(
            matches!(of(record, "claviger.keys"), Any::ArrayValue(keys) if keys.values.len() == 2)
        );
        let Some(Any::StringValue(body)) = record.body.clone().and_then(|body| body.value) else {
            panic!("a body of text");
        };
        assert_eq!(serde_json::from_str::<Event>(&body).unwrap(), event());
    }

    #[test]
    fn every_field_has_one_name() {
        let mut names: Vec<String> = Event::FIELDS.iter().map(|field| name_of(field)).collect();
        assert!(names.contains(&"claviger.policy_id".to_owned()));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), Event::FIELDS.len());
        assert!(
            COMMON
                .iter()
                .all(|(field, _)| Event::FIELDS.contains(field))
        );
    }
}
