use base64::engine::general_purpose::STANDARD as PADDED;
use http::HeaderValue;

use super::*;
use crate::Catalog;

fn lease(provider: &str, pairs: &[(&str, &str)]) -> Option<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    Catalog::builtin()
        .get(provider)
        .unwrap()
        .gateway_lease(&headers)
}

#[test]
fn the_lease_stands_in_the_providers_own_slot() {
    for (provider, name, value) in [
        ("openai", "authorization", "Bearer clv_x"),
        ("openai", "authorization", "bearer  clv_x"),
        ("anthropic", "x-api-key", "clv_x"),
        ("anthropic", "authorization", "Bearer clv_x"),
        ("gemini", "x-goog-api-key", "clv_x"),
        ("github", "authorization", "token clv_x"),
        ("gitlab", "private-token", "clv_x"),
        ("linear", "authorization", "clv_x"),
        ("datadog", "dd-application-key", "clv_x"),
        ("aws", "x-amz-security-token", "clv_x"),
        (
            "aws",
            "authorization",
            "AWS4-HMAC-SHA256 Credential=clv_x/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0",
        ),
    ] {
        assert_eq!(
            lease(provider, &[(name, value)]).as_deref(),
            Some("clv_x"),
            "{provider} {name}: {value}"
        );
    }
}

#[test]
fn the_lease_stands_in_either_half_of_basic() {
    for pair in [
        "ACsid:clv_x",
        "x-access-token:clv_x",
        "clv_x:",
        "clv_x:unused",
    ] {
        for encoded in [
            PADDED.encode(pair),
            PADDED.encode(pair).trim_end_matches('=').to_owned(),
        ] {
            let value = format!("Basic {encoded}");
            assert_eq!(
                lease("twilio", &[("authorization", &value)]).as_deref(),
                Some("clv_x"),
                "{pair}"
            );
            assert_eq!(
                lease("stripe", &[("authorization", &value)]).as_deref(),
                Some("clv_x"),
                "{pair}"
            );
        }
    }
}

#[test]
fn the_lease_is_found_beside_other_texts() {
    assert_eq!(
        lease(
            "datadog",
            &[
                ("dd-api-key", "placeholder"),
                ("dd-application-key", "clv_x")
            ]
        )
        .as_deref(),
        Some("clv_x")
    );
    assert_eq!(
        lease(
            "anthropic",
            &[
                ("x-api-key", "placeholder"),
                ("authorization", "Bearer clv_x")
            ]
        )
        .as_deref(),
        Some("clv_x")
    );
}

#[test]
fn a_text_that_is_no_lease_is_given_for_judgement() {
    assert_eq!(
        lease("openai", &[("authorization", "Bearer sk-agents-own")]).as_deref(),
        Some("sk-agents-own")
    );
}

#[test]
fn other_headers_are_not_looked_at() {
    assert_eq!(
        lease("openai", &[("x-api-key", "clv_x"), ("cookie", "clv_x")]),
        None
    );
    assert_eq!(lease("anthropic", &[]), None);
    assert_eq!(lease("twilio", &[("authorization", "Basic !!!")]), None);
    assert_eq!(lease("openai", &[("authorization", "Bearer ")]), None);
}

#[test]
fn the_base_is_the_first_host() {
    let base = |provider: &str| Catalog::builtin().get(provider).unwrap().gateway_base();
    assert_eq!(base("stripe").as_deref(), Some("https://api.stripe.com"));
    assert_eq!(base("github").as_deref(), Some("https://api.github.com"));
    assert_eq!(base("aws"), None);
}
