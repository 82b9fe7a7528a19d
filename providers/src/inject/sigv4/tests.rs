use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use time::macros::datetime;
use vault::Secret;

use super::*;
use crate::{Catalog, CustomSpec, Plan};

const NOW: OffsetDateTime = datetime!(2015-08-30 12:36:00 UTC);
/// The session token of the public test suite.
const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

fn plan(more: &[(&str, &str)]) -> Plan {
    let template = Catalog::builtin().get("aws").unwrap();
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        (
            "AWS_SECRET_ACCESS_KEY",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        ),
    ];
    let secrets = keys.iter().chain(more);
    let secrets: BTreeMap<String, Arc<Secret>> = secrets
        .map(|(key, value)| {
            (
                (*key).to_owned(),
                Arc::new(Secret::from((*value).to_owned())),
            )
        })
        .collect();
    Plan::prepare(&template, |_| true, secrets).unwrap()
}

fn agent_authorization(region: &str, service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIACLAVIGERPLACEHLD/20260101/{region}/{service}/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={}",
        "0".repeat(64)
    )
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        )
    };
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        headers.append(name, value);
    }
    headers
}

fn scope(region: &str, service: &str, more: &[(&str, &str)]) -> AgentScope {
    let authorization = agent_authorization(region, service);
    AgentScope::read(
        &headers(&[&[("authorization", authorization.as_str())], more].concat()),
        None,
    )
    .unwrap()
}

fn value<'h>(signed: &'h [(HeaderName, HeaderValue)], name: &str) -> Option<&'h str> {
    signed
        .iter()
        .find(|(other, _)| other == name)
        .map(|(_, value)| value.to_str().unwrap())
}

/// Signs as the public suite does, for `service` on a host that names none.
fn suite(
    method: &str,
    path: &str,
    token: Option<&str>,
    more: &[(&str, &str)],
    payload: &PayloadHash,
) -> String {
    let plan = plan(
        &token
            .map(|token| ("AWS_SESSION_TOKEN", token))
            .into_iter()
            .collect::<Vec<_>>(),
    );
    let headers = headers(more);
    let request = Signable {
        method,
        host: "example.amazonaws.com",
        path_and_query: path,
        headers: &headers,
        payload,
    };
    let signed = plan
        .sigv4()
        .unwrap()
        .sign_checked(&request, &scope("us-east-1", "service", &[]), NOW)
        .unwrap()
        .headers;
    assert_eq!(value(&signed, "x-amz-date"), Some("20150830T123600Z"));
    assert_eq!(value(&signed, "x-amz-security-token"), token);
    value(&signed, "authorization").unwrap().to_owned()
}

#[test]
fn the_cases_of_the_public_suite_are_signed_as_expected() {
    let unreserved = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let cases: Vec<(&str, String, &str)> = vec![
        (
            "GET",
            "/".into(),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "GET",
            "/example/..".into(),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "GET",
            "/example1/example2/../..".into(),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "GET",
            "/./".into(),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "GET",
            "//".into(),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            "GET",
            "/./example".into(),
            "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
        ),
        (
            "GET",
            "//example//".into(),
            "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
        ),
        (
            "GET",
            format!("/{unreserved}"),
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
        (
            "GET",
            "/?Param1=value1".into(),
            "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
        ),
        (
            "GET",
            "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1".into(),
            "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
        ),
        (
            "GET",
            "/?Param2=value2&Param1=value1".into(),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "GET",
            format!("/?{unreserved}={unreserved}"),
            "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
        ),
        (
            "GET",
            "/?%E1%88%B4=bar".into(),
            "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
        ),
        (
            "POST",
            "/".into(),
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            "POST",
            "/?Param1=value1".into(),
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        ),
    ];
    for (method, path, signature) in cases {
        let authorization = suite(method, &path, None, &[], &PayloadHash::Empty);
        let expected = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={signature}"
        );
        assert_eq!(authorization, expected, "{method} {path}");
    }
}

#[test]
fn the_session_token_is_signed_as_the_public_suite_expects() {
    let short = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
    for (method, token, signature) in [
        (
            "GET",
            short,
            "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        ),
        (
            "POST",
            TOKEN,
            "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
        ),
    ] {
        let authorization = suite(method, "/", Some(token), &[], &PayloadHash::Empty);
        assert!(authorization.ends_with(&format!(
            "SignedHeaders=host;x-amz-date;x-amz-security-token, Signature={signature}"
        )));
    }
}

#[test]
fn a_form_is_signed_as_the_public_suite_expects() {
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let authorization = suite("POST", "/", None, &form, &PayloadHash::of(b"Param1=value1"));
    assert!(authorization.ends_with(
        "SignedHeaders=content-type;host;x-amz-date, Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
    ));
}

/// A request, and what botocore 1.43 signs for it with the same keys and clock.
struct Recorded {
    method: Method,
    host: &'static str,
    path: &'static str,
    region: &'static str,
    service: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static [u8],
    token: Option<&'static str>,
    signed: &'static str,
    sha256: Option<&'static str>,
}

fn recorded() -> [Recorded; 5] {
    [
        Recorded {
            method: Method::POST,
            host: "dynamodb.us-east-1.amazonaws.com",
            path: "/",
            region: "us-east-1",
            service: "dynamodb",
            headers: &[
                ("content-type", "application/x-amz-json-1.0"),
                ("x-amz-target", "DynamoDB_20120810.ListTables"),
            ],
            body: b"{}",
            token: None,
            signed: "SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=75214f17608dbd636679e18f6f89744844ae96fcd228b8147167152488d817de",
            sha256: None,
        },
        Recorded {
            method: Method::PUT,
            host: "bucket.s3.eu-central-1.amazonaws.com",
            path: "/a%20b/%E1%88%B4//../x%2By~z?partNumber=1&uploadId=a%2Fb%20c",
            region: "eu-central-1",
            service: "s3",
            headers: &[
                ("content-type", "text/plain"),
                ("x-amz-meta-a", "  two   blanks "),
            ],
            body: b"hello",
            token: None,
            signed: "SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-meta-a, Signature=8adf1cc2c255f1abecc600eb55520710f77d3668d5a41e914e09836bffb2aa24",
            sha256: Some("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        },
        Recorded {
            method: Method::GET,
            host: "s3.us-west-2.amazonaws.com",
            path: "/bucket/key",
            region: "us-west-2",
            service: "s3",
            headers: &[],
            body: b"",
            token: Some("SESSION/TOKEN+=="),
            signed: "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, Signature=9181784af714dffd9967f5ce94afb049d0f2b50e7005cbbeebc468ac5d5f824d",
            sha256: Some("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        },
        Recorded {
            method: Method::PUT,
            host: "s3.us-west-2.amazonaws.com",
            path: "/bucket/key",
            region: "us-west-2",
            service: "s3",
            headers: &[("x-amz-content-sha256", "UNSIGNED-PAYLOAD")],
            body: b"never read",
            token: None,
            signed: "SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature=292dd8be72b5a34d3936e40f1d11ffe6ecf8b098fef4d15b7dffb937e37fc9fe",
            sha256: Some("UNSIGNED-PAYLOAD"),
        },
        Recorded {
            method: Method::GET,
            host: "lambda.us-east-1.amazonaws.com",
            path: "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Af/./x",
            region: "us-east-1",
            service: "lambda",
            headers: &[],
            body: b"",
            token: None,
            signed: "SignedHeaders=host;x-amz-date, Signature=904f107fa139508245a89bc9cddf1ac052ce4958f3161d953fc6e4310c9a9691",
            sha256: None,
        },
    ]
}

#[test]
fn a_body_is_read_only_where_its_hash_is_not_declared() {
    let hash = hex::encode([7; 32]);
    for (service, declared, needs_body) in [
        ("dynamodb", None, true),
        ("dynamodb", Some(hash.as_str()), true),
        ("s3", Some(hash.as_str()), false),
        ("s3", Some("UNSIGNED-PAYLOAD"), false),
    ] {
        let field = declared.map(|declared| ("x-amz-content-sha256", declared));
        let scope = scope("us-east-1", service, field.as_slice());
        assert_eq!(scope.needs_body(), needs_body, "{service} {declared:?}");
    }
    for (service, expected) in [("s3", true), ("s3express", true), ("dynamodb", false)] {
        assert_eq!(has_buckets(service), expected, "{service}");
    }
}

#[test]
fn requests_are_signed_as_botocore_signs_them() {
    for case in recorded() {
        let plan = plan(
            &case
                .token
                .map(|token| ("AWS_SESSION_TOKEN", token))
                .into_iter()
                .collect::<Vec<_>>(),
        );
        let scope = scope(case.region, case.service, case.headers);
        let payload = if scope.needs_body() {
            PayloadHash::of(case.body)
        } else {
            PayloadHash::Unsigned
        };
        let headers = headers(case.headers);
        let request = Signable {
            method: case.method.as_str(),
            host: case.host,
            path_and_query: case.path,
            headers: &headers,
            payload: &payload,
        };
        let signed = plan
            .sigv4()
            .unwrap()
            .sign(&request, &scope, NOW)
            .unwrap()
            .headers;
        let authorization = value(&signed, "authorization").unwrap();
        assert!(
            authorization.ends_with(case.signed),
            "{}: {authorization}",
            case.host
        );
        assert_eq!(
            value(&signed, "x-amz-content-sha256"),
            case.sha256,
            "{}",
            case.host
        );
        assert!(signed.iter().all(|(_, value)| value.is_sensitive()));
    }
}

#[test]
fn a_hash_that_s3_checks_is_kept_as_declared_and_another_service_hashes_the_body() {
    let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let declared = [("x-amz-content-sha256", sha256)];
    assert_eq!(
        scope("us-east-1", "s3", &declared).payload,
        Payload::Declared(sha256.to_owned())
    );
    let glacier = scope("us-east-1", "glacier", &declared);
    assert_eq!(glacier.payload, Payload::Hash);
    let headers = headers(&declared);
    let payload = PayloadHash::of(b"another body");
    let host = "glacier.us-east-1.amazonaws.com";
    let request = Signable {
        method: "PUT",
        host,
        path_and_query: "/",
        headers: &headers,
        payload: &payload,
    };
    let signed = plan(&[])
        .sigv4()
        .unwrap()
        .sign(&request, &glacier, NOW)
        .unwrap()
        .headers;
    assert_eq!(
        value(&signed, "x-amz-content-sha256"),
        Some(hex::encode(Sha256::digest(b"another body")).as_str())
    );
}

#[test]
fn a_body_that_was_not_hashed_is_not_signed() {
    let scope = scope("us-east-1", "dynamodb", &[]);
    let headers = HeaderMap::new();
    let request = Signable {
        method: "POST",
        host: "dynamodb.us-east-1.amazonaws.com",
        path_and_query: "/",
        headers: &headers,
        payload: &PayloadHash::Unsigned,
    };
    assert!(matches!(
        plan(&[]).sigv4().unwrap().sign(&request, &scope, NOW),
        Err(SigV4Refusal::Unsignable(_))
    ));
}

#[test]
fn the_agents_own_date_token_and_key_do_not_enter_the_signature() {
    let agent = headers(&[
        ("x-amz-date", "20990101T000000Z"),
        ("x-amz-security-token", "agent"),
        ("authorization", &agent_authorization("us-east-1", "sts")),
    ]);
    let scope = AgentScope::read(&agent, None).unwrap();
    assert_eq!(
        (scope.region(), scope.service.as_str()),
        ("us-east-1", "sts")
    );
    assert_eq!(scope.signed_headers, ["host", "x-amz-date"]);
    let request = Signable {
        method: "POST",
        host: "sts.amazonaws.com",
        path_and_query: "/",
        headers: &agent,
        payload: &PayloadHash::Empty,
    };
    let plan = plan(&[]);
    let signed = plan
        .sigv4()
        .unwrap()
        .sign(&request, &scope, NOW)
        .unwrap()
        .headers;
    let clean = Signable {
        headers: &HeaderMap::new(),
        ..request
    };
    assert_eq!(
        signed,
        plan.sigv4()
            .unwrap()
            .sign(&clean, &scope, NOW)
            .unwrap()
            .headers
    );
    assert_eq!(value(&signed, "x-amz-security-token"), None);
}

#[test]
fn every_x_amz_header_is_signed() {
    let more = [
        ("x-amz-acl", "private"),
        ("x-amz-meta-b", "1"),
        ("x-amz-meta-b", "2"),
        ("x-amzn-trace-id", "t"),
        ("accept", "*/*"),
    ];
    let authorization = suite("PUT", "/", None, &more, &PayloadHash::Empty);
    assert!(
        authorization.contains("SignedHeaders=host;x-amz-acl;x-amz-date;x-amz-meta-b, "),
        "{authorization}"
    );
}

#[test]
fn the_scope_agrees_with_the_host() {
    let plan = plan(&[]);
    let check = |service: &str, region: &str, host: &str| {
        plan.sigv4()
            .unwrap()
            .check(&scope(region, service, &[]), host)
    };
    for (service, region, host) in [
        ("s3", "us-west-2", "s3.us-west-2.amazonaws.com"),
        ("s3", "eu-central-1", "bucket.s3.eu-central-1.amazonaws.com"),
        ("dynamodb", "us-east-1", "dynamodb.us-east-1.amazonaws.com"),
        ("iam", "us-east-1", "iam.amazonaws.com"),
        ("sts", "us-east-1", "sts.amazonaws.com"),
        ("s3", "sa-east-1", "bucket.s3-accelerate.amazonaws.com"),
        (
            "bedrock",
            "us-east-1",
            "bedrock-runtime.us-east-1.amazonaws.com",
        ),
    ] {
        assert_eq!(check(service, region, host), Ok(()), "{host}");
    }
    for (service, region, host) in [
        ("iam", "us-west-2", "s3.us-west-2.amazonaws.com"),
        ("s3", "us-east-1", "s3.us-west-2.amazonaws.com"),
        ("s3", "us-east-1", "dynamodb.us-east-1.amazonaws.com"),
        ("iam", "eu-west-1", "iam.amazonaws.com"),
        ("iam", "eu-west-1", "iam.s3.eu-west-1.amazonaws.com"),
    ] {
        assert!(
            matches!(
                check(service, region, host),
                Err(SigV4Refusal::Mismatch { .. })
            ),
            "{host}"
        );
    }
    let server = check("elb", "us-east-1", "name-1.us-east-1.elb.amazonaws.com");
    assert!(matches!(server, Err(SigV4Refusal::Unsignable(_))));
    let text = check("s3", "us-east-1", "s3.us-west-2.amazonaws.com")
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "the request is signed for region us-east-1, and s3.us-west-2.amazonaws.com is region us-west-2; \
         configure the SDK's region and endpoint to agree"
    );
}

#[test]
fn a_set_may_be_bound_to_regions() {
    let plan = plan(&[("AWS_REGION", "eu-west-1, eu-central-1")]);
    let check = |service: &str, region: &str, host: &str| {
        plan.sigv4()
            .unwrap()
            .check(&scope(region, service, &[]), host)
    };
    assert_eq!(
        check("s3", "eu-central-1", "s3.eu-central-1.amazonaws.com"),
        Ok(())
    );
    assert_eq!(check("iam", "us-east-1", "iam.amazonaws.com"), Ok(()));
    let refusal = check("s3", "us-west-2", "s3.us-west-2.amazonaws.com").unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "region `us-west-2` is outside this set (allowed: eu-west-1, eu-central-1); ask for one that includes it"
    );
    assert!(check("s3", "us-west-2", "b.s3-accelerate.amazonaws.com").is_err());
}

#[test]
fn a_custom_host_signs_for_what_the_set_lists() {
    let spec: CustomSpec = serde_json::from_value(serde_json::json!({
        "hosts": ["minio.example:9000"],
        "inject": [{ "sigv4": {
            "access_key_id": "${ID}", "secret_access_key": "${SECRET}", "regions": ["us-east-1"], "services": ["s3"],
        }}],
    }))
    .unwrap();
    let template = Arc::new(spec.to_template("custom/x", ["ID", "SECRET"]).unwrap());
    let secrets = ["ID", "SECRET"].map(|key| {
        (
            key.to_owned(),
            Arc::new(Secret::from("0123456789abcdef".to_owned())),
        )
    });
    let plan = Plan::prepare(&template, |_| true, secrets.into()).unwrap();
    let check = |service, region| {
        plan.sigv4()
            .unwrap()
            .check(&scope(region, service, &[]), "minio.example")
    };
    assert_eq!(check("s3", "us-east-1"), Ok(()));
    assert!(matches!(
        check("iam", "us-east-1"),
        Err(SigV4Refusal::NotAllowed {
            what: "service",
            ..
        })
    ));
    assert!(matches!(
        check("s3", "eu-west-1"),
        Err(SigV4Refusal::NotAllowed { what: "region", .. })
    ));
}

#[test]
fn forms_that_cannot_be_signed_again_are_refused() {
    let good = agent_authorization("us-east-1", "s3");
    let read = |pairs: &[(&str, &str)]| AgentScope::read(&headers(pairs), None).unwrap_err();
    assert_eq!(read(&[]), SigV4Refusal::Missing);
    let unknown = [
        ("authorization", good.as_str()),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-EVENTS"),
    ];
    assert!(matches!(read(&unknown), SigV4Refusal::Chunked(_)));
    let elsewhere = agent_authorization("us-east-1", "glacier");
    let refusal = read(&[
        ("authorization", &elsewhere),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-decoded-content-length", "5"),
    ]);
    assert!(matches!(refusal, SigV4Refusal::Chunked(_)), "{refusal}");
    let chunked = [
        ("authorization", good.as_str()),
        ("content-encoding", "gzip, aws-chunked"),
    ];
    assert!(matches!(read(&chunked), SigV4Refusal::Malformed(_)));
    for (text, name) in [
        (good.replace("AWS4-HMAC-SHA256", "AWS4-X"), "AWS4-X"),
        ("AWS AKID:sig=".to_owned(), "AWS"),
        ("sk-secret".to_owned(), "unknown"),
    ] {
        let refusal = read(&[("authorization", &text)]);
        assert_eq!(refusal, SigV4Refusal::Algorithm(name.to_owned()));
    }
}

fn agent_4a(region_set: &str) -> [(&'static str, String); 2] {
    let authorization = format!(
        "AWS4-ECDSA-P256-SHA256 Credential=AKIACLAVIGERPLACEHLD/20260101/s3/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-region-set, Signature={}",
        "30".repeat(71)
    );
    [
        ("authorization", authorization),
        ("x-amz-region-set", region_set.to_owned()),
    ]
}

fn scope_4a(region_set: &str, more: &[(&str, &str)]) -> Result<AgentScope, SigV4Refusal> {
    let agent = agent_4a(region_set);
    let mut pairs: Vec<(&str, &str)> = agent.iter().map(|(n, v)| (*n, v.as_str())).collect();
    pairs.extend(more);
    AgentScope::read(&headers(&pairs), None)
}

#[test]
fn version_4a_is_read_with_its_set_of_regions() {
    let scope = scope_4a("us-east-1, us-west-2", &[]).unwrap();
    assert_eq!(scope.algorithm, Algorithm::V4a);
    assert_eq!(scope.regions, ["us-east-1", "us-west-2"]);
    assert_eq!(scope.service, "s3");
    assert!(scope_4a("*", &[]).is_ok());
    for set in ["", "us east", "us-east-1,", "us-*"] {
        assert!(
            matches!(scope_4a(set, &[]), Err(SigV4Refusal::Malformed(_))),
            "{set}"
        );
    }
    let streamed = [
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("x-amz-decoded-content-length", "5"),
    ];
    assert!(matches!(
        scope_4a("*", &streamed),
        Err(SigV4Refusal::Chunked(_))
    ));
    let no_set = agent_4a("*")[0].1.clone();
    let refusal = AgentScope::read(&headers(&[("authorization", &no_set)]), None);
    assert!(matches!(refusal, Err(SigV4Refusal::Malformed(_))));
}

#[test]
fn the_regions_of_version_4a_agree_with_host_and_set() {
    let check = |set: &str, host: &str, more: &[(&str, &str)]| {
        let scope = scope_4a(set, &[]).unwrap();
        plan(more).sigv4().unwrap().check(&scope, host)
    };
    let (mrap, regional) = (
        "a.mrap.accesspoint.s3-global.amazonaws.com",
        "bucket.s3.us-east-1.amazonaws.com",
    );
    let bound = [("AWS_REGION", "us-east-1")];
    assert_eq!(check("*", mrap, &[]), Ok(()));
    assert_eq!(check("*", regional, &bound), Ok(()));
    assert_eq!(check("us-east-1", mrap, &bound), Ok(()));
    assert!(matches!(
        check("*", mrap, &bound),
        Err(SigV4Refusal::NotAllowed { .. })
    ));
    assert!(matches!(
        check("us-east-1,eu-west-1", regional, &[]),
        Err(SigV4Refusal::Mismatch { .. })
    ));
}

#[test]
fn version_4a_is_signed_with_what_verifies_under_the_derived_key() {
    let plan = plan(&[("AWS_SESSION_TOKEN", TOKEN)]);
    let scope = scope_4a("*", &[]).unwrap();
    let request = Signable {
        method: "GET",
        host: "a.mrap.accesspoint.s3-global.amazonaws.com",
        path_and_query: "/key%20with%20blank?list-type=2",
        headers: &headers(&[("x-amz-meta-a", "b")]),
        payload: &PayloadHash::Empty,
    };
    let signed = plan
        .sigv4()
        .unwrap()
        .sign(&request, &scope, NOW)
        .unwrap()
        .headers;
    assert_eq!(value(&signed, "x-amz-region-set"), Some("*"));
    let authorization = value(&signed, "authorization").unwrap();
    let start = "AWS4-ECDSA-P256-SHA256 Credential=AKIDEXAMPLE/20150830/s3/aws4_request, SignedHeaders=\
                 host;x-amz-content-sha256;x-amz-date;x-amz-meta-a;x-amz-region-set;x-amz-security-token, Signature=30";
    assert!(authorization.starts_with(start), "{authorization}");
}

const PRESIGNED: &str = "X-Amz-Algorithm=AWS4-HMAC-SHA256\
    &X-Amz-Credential=AKIACLAVIGERPLACEHLD%2F20150830%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20150830T120000Z\
    &X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn a_presigned_url_is_read_and_its_parameters_are_taken_out() {
    let query = format!("versionId=1&{PRESIGNED}&X-Amz-Security-Token=agent&response-expires=%20");
    let scope = AgentScope::read(&HeaderMap::new(), Some(&query)).unwrap();
    assert_eq!(
        (scope.region(), scope.service.as_str()),
        ("us-east-1", "s3")
    );
    assert_eq!(scope.payload, Payload::Unsigned);
    let presigned = scope.presigned.unwrap();
    assert_eq!(
        presigned.query.as_deref(),
        Some("versionId=1&response-expires=%20")
    );
    let alone = AgentScope::read(&HeaderMap::new(), Some(PRESIGNED)).unwrap();
    assert_eq!(alone.presigned.unwrap().query, None);
    let other = PRESIGNED.replace("%2Fs3%2F", "%2Fsqs%2F");
    let other = AgentScope::read(&HeaderMap::new(), Some(&other)).unwrap();
    assert_eq!(other.payload, Payload::Hash);
}

#[test]
fn a_presigned_url_is_good_for_its_time_alone() {
    let scope = AgentScope::read(&HeaderMap::new(), Some(PRESIGNED)).unwrap();
    let presigned = scope.presigned.unwrap();
    for (now, is_good) in [
        (datetime!(2015-08-30 11:44:59 UTC), false),
        (datetime!(2015-08-30 11:45:00 UTC), true),
        (datetime!(2015-08-30 12:59:59 UTC), true),
        (datetime!(2015-08-30 13:00:00 UTC), false),
        (datetime!(2026-01-01 00:00:00 UTC), false),
    ] {
        assert_eq!(presigned.check(now).is_ok(), is_good, "{now}");
    }
}

#[test]
fn a_malformed_presigned_url_is_refused() {
    let read = |query: &str| AgentScope::read(&HeaderMap::new(), Some(query));
    for (from, to) in [
        ("X-Amz-Expires=3600", "X-Amz-Expires=0"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=604801"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=-1"),
        ("X-Amz-Expires=3600", "X-Amz-Expires=3600&x-amz-expires=1"),
        ("&X-Amz-Expires=3600", ""),
        ("X-Amz-Date=20150830T120000Z", "X-Amz-Date=20150831T120000Z"),
        ("X-Amz-Date=20150830T120000Z", "X-Amz-Date=now"),
        ("%2Faws4_request", ""),
        ("X-Amz-Signature=00", "X-Amz-Signature=zz"),
        ("&X-Amz-Signature=", "&X-Amz-Sig="),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256&", ""),
        ("SignedHeaders=host", "SignedHeaders=%FF"),
    ] {
        assert!(PRESIGNED.contains(from));
        let refusal = read(&PRESIGNED.replacen(from, to, 1));
        assert!(
            matches!(refusal, Err(SigV4Refusal::Malformed(_))),
            "{to}: {refusal:?}"
        );
    }
    for query in [
        "AWSAccessKeyId=AKIA&Signature=x&Expires=1",
        "X-Amz-Algorithm=AWS4-X",
    ] {
        assert!(
            matches!(read(query), Err(SigV4Refusal::Algorithm(_))),
            "{query}"
        );
    }
    assert!(matches!(
        read("X%2DAmz%2DSignature=00"),
        Err(SigV4Refusal::Malformed(_))
    ));
    let header = agent_authorization("us-east-1", "s3");
    let both = AgentScope::read(&headers(&[("authorization", &header)]), Some(PRESIGNED));
    assert!(matches!(both, Err(SigV4Refusal::Malformed(_))));
}

#[test]
fn a_malformed_authorization_is_refused() {
    let good = agent_authorization("us-east-1", "s3");
    let (authorization, twice) = (
        ("authorization", good.as_str()),
        ("authorization", good.as_str()),
    );
    let malformed = |pairs: &[(&str, &str)]| {
        assert!(
            matches!(
                AgentScope::read(&headers(pairs), None),
                Err(SigV4Refusal::Malformed(_))
            ),
            "{pairs:?}"
        );
    };
    malformed(&[authorization, twice]);
    malformed(&[authorization, ("x-amz-content-sha256", "ABC")]);
    malformed(&[
        authorization,
        ("x-amz-content-sha256", UNSIGNED),
        ("x-amz-content-sha256", UNSIGNED),
    ]);
    for (from, to) in [
        ("Signature=0", "Signature=g"),
        ("Signature=0", "Signature="),
        ("Signature=", "Signature=0, Signature="),
        ("SignedHeaders=", "Signed="),
        ("SignedHeaders=host;x-amz-date, ", ""),
        ("/20260101/", "/20261301/"),
        ("/20260101/", "/2026/"),
        ("/us-east-1/", "/us east/"),
        ("/us-east-1/", "//"),
        ("/aws4_request", "/aws4"),
        ("/s3/", "/s3/s3/"),
    ] {
        assert!(good.contains(from));
        malformed(&[("authorization", &good.replacen(from, to, 1))]);
    }
}

#[test]
fn the_key_of_a_stream_is_derived_as_aws_documents_it() {
    let plan = plan(&[]);
    let credentials = plan.sigv4().unwrap().credentials();
    let key = signing_key(credentials, &scope("us-east-1", "iam", &[]), NOW);
    // The example of "Signature Version 4: calculating the signing key" in AWS's general reference.
    let expected = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9";
    assert_eq!(hex::encode(*key), expected);
}

#[test]
fn debug_shows_no_key() {
    let plan = plan(&[("AWS_SESSION_TOKEN", TOKEN)]);
    let text = format!("{:?} {:?}", plan, plan.sigv4());
    assert!(
        !text.contains("AKID") && !text.contains("wJalr") && !text.contains("AQoD"),
        "{text}"
    );
}

proptest::proptest! {
    #[test]
    fn no_authorization_makes_the_reader_panic(text in "[ -~]{0,120}", query in "(X-Amz-[A-Z][a-z]{3,9}=[ -~]{0,20}&){0,4}[ -~]{0,40}") {
        let _ = AgentScope::read(&headers(&[("authorization", &text)]), None);
        let _ = AgentScope::read(&headers(&[("authorization", &format!("AWS4-HMAC-SHA256 {text}"))]), None);
        let _ = AgentScope::read(&HeaderMap::new(), Some(&query));
    }
}
