use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use providers::{Catalog, Host, Scheme};

use super::*;
use crate::body::Held;
use crate::normalize::Target;

const DYNAMODB: &str = "dynamodb.us-east-1.amazonaws.com";

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::try_from(*name).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}

fn target(host: &str, path: &str) -> Target {
    Target {
        scheme: Scheme::Https,
        host: Host::parse(host).unwrap(),
        port: 443,
        path: path.into(),
        written: path.into(),
        query: None,
        has_encoded_slash: false,
    }
}

fn bound_by(provider: &str, fields: &[(&str, &str)]) -> BoundHead {
    let template: Option<Arc<Template>> = Catalog::builtin().get(provider);
    let target = target("api.stripe.com", "/v1/refunds");
    read_post(&target, fields, template.as_deref())
}

fn read_post(target: &Target, fields: &[(&str, &str)], template: Option<&Template>) -> BoundHead {
    let request = Request {
        method: &Method::POST,
        target,
        headers: &headers(fields),
        body: &Held::default(),
    };
    read(&request, template)
}

fn bound(fields: &[(&str, &str)]) -> [u8; 32] {
    bound_by("stripe", fields).sha256
}

fn signature(service: &str, region: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIAPLACEHOLDER/20250101/{region}/{service}/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={}",
        "0".repeat(64)
    )
}

fn asked_of_aws(fields: &[(&str, &str)]) -> BoundHead {
    let template = Catalog::builtin().get("aws");
    read_post(&target(DYNAMODB, "/"), fields, template.as_deref())
}

#[test]
fn what_a_provider_may_read_as_an_order_is_bound() {
    let base = [("accept", "*/*"), ("dropbox-api-arg", "{\"path\":\"/a\"}")];
    let first = bound(&base);
    let changed = [
        ("accept", "*/*"),
        ("dropbox-api-arg", "{\"path\":\"/payroll\"}"),
    ];
    assert_ne!(bound(&changed), first);
    assert_ne!(bound(&base[..1]), first);
    for field in [
        ("x-amz-acl", "public-read"),
        ("x-amz-copy-source", "/bucket/private"),
        ("x-anything", ""),
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
        ("range", "bytes=0-1"),
        ("if-match", "*"),
        ("cookie", "account=2"),
        ("accept", "text/html"),
        ("stripe-version", "2020-01-01"),
        // Another spelling of what is left out.
        ("user_agent", "a"),
        ("idempotency_key", "a"),
        // A field that it names ends here, so the request is another one.
        ("connection", "dropbox-api-arg"),
    ] {
        let more = [&base[..], &[field]].concat();
        assert_ne!(bound(&more), first, "{field:?}");
    }
}

#[test]
fn values_cannot_change_places() {
    let different = [
        bound(&[("a", "1"), ("b", "2")]),
        bound(&[("a", "2"), ("b", "1")]),
        bound(&[("a", "1"), ("a", "2")]),
        bound(&[("a", "2"), ("a", "1")]),
        bound(&[("a", "1, 2")]),
        bound(&[("a", "1b2")]),
    ];
    let distinct: std::collections::HashSet<_> = different.iter().collect();
    assert_eq!(distinct.len(), different.len());
}

#[test]
fn a_client_that_repeats_its_request_is_known_again() {
    let lease = format!("{}{}", leases::token::PREFIX, "Ab-_".repeat(40));
    let lease = |name: &'static str| (name, format!("Bearer {lease}"));
    let first = bound(&[("accept", "*/*"), ("cookie", "a=1; b=2")]);
    for field in [
        ("host", "api.stripe.com"),
        ("content-length", "0"),
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive, TE"),
        ("te", "trailers"),
        ("expect", "100-continue"),
        ("accept-encoding", "gzip"),
        ("user-agent", "stripe-python/12"),
        ("x-stripe-client-telemetry", "{\"last_request_metrics\":1}"),
        ("x-stainless-retry-count", "1"),
        ("amz-sdk-request", "attempt=2; max=3"),
        ("amz-sdk-invocation-id", "1"),
        ("date", "Sun, 22 Nov 2026 07:00:00 GMT"),
        ("x-amz-date", "20261122T070000Z"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        ("x-datadog-trace-id", "1"),
        ("x-request-id", "1"),
        ("idempotency-key", "a new one each time"),
        // What is dropped in any case, and the provider's own slots.
        ("proxy-authorization", "Bearer x"),
        ("authorization", "Bearer placeholder"),
        ("x_api_key", "placeholder"),
        ("x-forwarded-host", "a.example"),
        ("stripe-account", "acct_other"),
        ("stripe_account", "acct_other"),
        // A lease.
        (lease("x-lease").0, &lease("x-lease").1),
    ] {
        let more = [("accept", "*/*"), ("cookie", "a=1; b=2"), field];
        assert_eq!(bound(&more), first, "{field:?}");
    }
    // The crumbs of HTTP/2, and the order of the fields.
    let crumbs = [("cookie", "a=1"), ("cookie", "b=2"), ("accept", "*/*")];
    assert_eq!(bound(&crumbs), first);
}

#[test]
fn a_field_of_which_one_value_bears_a_lease_is_dropped_whole() {
    let lease = format!("{}{}", leases::token::PREFIX, "Ab-_".repeat(40));
    let dropped = bound(&[("x-acl", "private"), ("x-acl", &lease)]);
    assert_eq!(dropped, bound(&[]));
    assert_ne!(dropped, bound(&[("x-acl", "private")]));
}

#[test]
fn a_custom_set_binds_all_that_is_not_known_to_be_dropped() {
    let fields = [("stripe-account", "placeholder")];
    let custom = bound_by("custom", &fields);
    assert_ne!(custom.sha256, bound_by("custom", &[]).sha256);
    assert_eq!(bound(&fields), bound(&[]));
}

#[test]
fn what_is_asked_of_aws_is_named_and_bound() {
    let asked = |operation: &str, service: &str, region: &str, date: &str| {
        let target = format!("DynamoDB_20120810.{operation}");
        asked_of_aws(&[
            ("authorization", &signature(service, region)),
            ("x-amz-date", date),
            ("x-amz-security-token", date),
            ("x-amz-target", &target),
        ])
    };
    let (first, second) = ("20250101T000000Z", "20250101T000007Z");
    let describe = asked("DescribeTable", "dynamodb", "us-east-1", first);
    assert_eq!(describe.shown.actions, ["dynamodb:DescribeTable"]);
    let again = asked("DescribeTable", "dynamodb", "us-east-1", second);
    assert_eq!(again.sha256, describe.sha256);
    let delete = asked("DeleteTable", "dynamodb", "us-east-1", first);
    assert_eq!(delete.shown.actions, ["dynamodb:DeleteTable"]);
    let others = [
        delete,
        asked("DescribeTable", "dynamodb", "eu-west-1", first),
        asked("DescribeTable", "dax", "us-east-1", first),
    ];
    for other in others {
        assert_ne!(other.sha256, describe.sha256, "{other:?}");
    }
    let names: Vec<_> = describe.shown.fields.iter().map(|one| &one.name).collect();
    assert_eq!(names, ["x-amz-target", AWS_SCOPE]);
}

#[test]
fn a_person_sees_values_but_never_what_may_be_a_credential_or_is_not_plain_text() {
    let long = "l".repeat(LONGEST_SHOWN + 1);
    let fields = [
        ("dropbox-api-arg", "{\"path\":\"/a\"}"),
        ("x-auth-token", "hidden"),
        ("x-session", "hidden"),
        ("cookie", "hidden=1"),
        ("x-forward", "Bearer hidden"),
        ("x-long", &long),
        ("x-odd", "caf\u{e9} \u{202e}"),
    ];
    let shown = bound_by("stripe", &fields).shown;
    assert!(shown.actions.is_empty());
    assert_eq!(shown.fields.len(), fields.len());
    for field in &shown.fields {
        let is_shown = field.name == "dropbox-api-arg";
        assert_eq!(field.value.is_some(), is_shown, "{field:?}");
        assert_eq!(field.sha256.is_some(), !is_shown, "{field:?}");
    }
    let text = format!("{shown:?}");
    assert!(!text.contains("hidden"), "{text}");
    let value = shown.fields.iter().find(|one| one.name == "x-forward");
    let digest = hex::encode(Sha256::digest("Bearer hidden"));
    assert_eq!(value.unwrap().sha256.as_deref(), Some(digest.as_str()));
}

#[test]
fn what_is_shown_of_a_head_is_bounded() {
    let name = format!("x-{}", "n".repeat(200));
    let value = "v".repeat(LONGEST_SHOWN);
    let mut fields: Vec<(String, &str)> = (0..40).map(|at| (format!("x-{at}"), &*value)).collect();
    fields.push((name, "short"));
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (&**name, *value))
        .collect();
    let shown = bound_by("stripe", &fields).shown;
    let whole: usize = shown
        .fields
        .iter()
        .flat_map(|one| &one.value)
        .map(String::len)
        .sum();
    assert_eq!(whole, SHOWN);
    assert_eq!(shown.fields.len(), fields.len());
    assert!(
        shown
            .fields
            .iter()
            .all(|one| one.name.len() <= LONGEST_NAME)
    );
}
