use super::*;
use crate::fixtures::{NOW, plan, target, template};

fn nominate(names: &str) -> Result<(), Refusal> {
    let value = HeaderValue::from_str(names).unwrap();
    check_nominations(&HeaderMap::from_iter([(CONNECTION, value)]), None)
}

#[test]
fn connection_names_only_what_may_end_here() {
    for names in [
        "close",
        "keep-alive, upgrade",
        "x-trace, , te",
        "a,b,c,d,e,f,g,h",
    ] {
        assert!(nominate(names).is_ok(), "{names}");
    }
    for names in [
        "Host",
        "close, content-length",
        "authorization",
        "X-Api-Key",
        "x_api_key",
        "x-forwarded-host",
        "cookie",
        "no token",
        "a,b,c,d,e,f,g,h,i",
    ] {
        let refusal = nominate(names).unwrap_err();
        assert_eq!(refusal.code, Code::AmbiguousRequest, "{names}");
    }
}

/// A plan that puts its credential into a cookie and into the query, besides the header of every plan for Stripe.
fn acme() -> Plan {
    let text = r#"
strip = ["x-acme-token"]
strip_query = ["token"]
[[inject]]
header = "x-acme-key"
value = "Key ${KEY}"
[[inject]]
query = "key"
value = "${KEY}"
paths = ["/q/**"]
[[inject]]
cookie = "sid"
value = "${KEY}"
paths = ["/c/**"]
"#;
    plan(&template("api.acme.com", text), &[("KEY", "secret0123")])
}

fn stripe() -> Plan {
    let template = providers::Catalog::builtin().get("stripe").unwrap();
    plan(
        &template,
        &[("STRIPE_SECRET_KEY", "sk_live_0123456789abcdef")],
    )
}

fn request(raw: &str, version: Version, fields: &[(&'static str, &str)]) -> RequestHeader {
    let mut request = RequestHeader::build("GET", raw.as_bytes(), None).unwrap();
    request.set_version(version);
    for (name, value) in fields {
        request.append_header(*name, *value).unwrap();
    }
    request
}

/// The target of a request, and its fields in the order of their names, after the injection.
fn leaving(mut request: RequestHeader, plan: &Plan, url: &str) -> (String, Vec<String>) {
    inject(&mut request, plan, &target(url), None, false, NOW).unwrap();
    let raw = String::from_utf8(request.raw_path().to_vec()).unwrap();
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<String> = request.headers.iter().map(line).collect();
    lines.sort();
    (raw, lines)
}

/// Its fields but for those that every request leaves with.
fn fields(request: RequestHeader, plan: &Plan, url: &str) -> Vec<String> {
    const ALWAYS: [&str; 3] = ["accept-encoding: identity", "host: ", "x-acme-key: "];
    let (_, mut lines) = leaving(request, plan, url);
    lines.retain(|line| !ALWAYS.iter().any(|start| line.starts_with(start)));
    lines
}

#[test]
fn the_target_leaves_as_it_was_decided_on_with_the_credential_in_its_place() {
    let telegram = providers::Catalog::builtin().get("telegram").unwrap();
    let telegram = plan(&telegram, &[("TELEGRAM_BOT_TOKEN", "123:secret")]);
    let (stripe, acme) = (stripe(), acme());
    for (plan, raw, url, sent) in [
        (
            &stripe,
            "/v1?a=%20",
            "https://api.stripe.com/v1?a=%20",
            "/v1?a=%20",
        ),
        (
            &stripe,
            "https://api.stripe.com/v1?a=1",
            "https://api.stripe.com/v1?a=1",
            "/v1?a=1",
        ),
        (
            &stripe,
            "/gateway/stripe/v1",
            "https://api.stripe.com/v1",
            "/v1",
        ),
        (
            &stripe,
            "/gateway/stripe/v1?a=1",
            "https://api.stripe.com/v1?a=1",
            "/v1?a=1",
        ),
        (
            &acme,
            "/q/x",
            "https://api.acme.com/q/x",
            "/q/x?key=secret0123",
        ),
        (
            &acme,
            "/q/x?key=mine&a=1",
            "https://api.acme.com/q/x?key=mine&a=1",
            "/q/x?a=1&key=secret0123",
        ),
        (
            &acme,
            "/x?token=mine&a=1",
            "https://api.acme.com/x?token=mine&a=1",
            "/x?a=1",
        ),
        (
            &telegram,
            "/botX/getMe",
            "https://api.telegram.org/botX/getMe",
            "/bot123:secret/getMe",
        ),
        (
            &telegram,
            "/botX/getMe?a=1",
            "https://api.telegram.org/botX/getMe?a=1",
            "/bot123:secret/getMe?a=1",
        ),
    ] {
        let (left, fields) = leaving(request(raw, Version::HTTP_11, &[]), plan, url);
        assert_eq!(left, sent, "{raw}");
        let host = format!("host: {}", target(url).host);
        assert!(fields.contains(&host), "{raw}: {fields:?}");
    }
}

#[test]
fn over_http2_the_target_keeps_its_authority() {
    for (plan, path, sent) in [
        (stripe(), "/v1", "/v1"),
        (acme(), "/q/x", "/q/x?key=secret0123"),
    ] {
        let url = format!("https://api.acme.com{path}");
        let mut request = request("/", Version::HTTP_2, &[]);
        request.set_uri(Uri::try_from(&url).unwrap());
        inject(&mut request, &plan, &target(&url), None, false, NOW).unwrap();
        assert_eq!(
            request.uri.to_string(),
            format!("https://api.acme.com{sent}")
        );
    }
}

#[test]
fn one_host_leaves_however_it_was_spelled() {
    for (sent, url, left) in [
        (
            &["api.acme.com"][..],
            "https://api.acme.com/x",
            "api.acme.com",
        ),
        (&[], "https://api.acme.com/x", "api.acme.com"),
        (
            &["API.acme.com:443"],
            "https://api.acme.com/x",
            "api.acme.com",
        ),
        (
            &["api.acme.com"],
            "https://api.acme.com:8443/x",
            "api.acme.com:8443",
        ),
        (
            &["api.acme.com"],
            "http://api.acme.com:443/x",
            "api.acme.com:443",
        ),
        (&["localhost"], "http://[2001:db8::1]/x", "[2001:db8::1]"),
    ] {
        let sent: Vec<_> = sent.iter().map(|host| ("host", *host)).collect();
        let (_, lines) = leaving(request("/x", Version::HTTP_11, &sent), &acme(), url);
        let hosts: Vec<_> = lines
            .iter()
            .filter(|line| line.starts_with("host:"))
            .collect();
        assert_eq!(hosts, [&format!("host: {left}")], "{url}");
    }
}

#[test]
fn what_the_agent_brought_in_credential_slots_stays_here() {
    for name in [
        "authorization",
        "Proxy-Authorization",
        "x-api-key",
        "X_Api_Key",
        "api_key",
        "x-acme-key",
        "x_acme_key",
        "x-acme-token",
        "proxy-connection",
        "keep-alive",
        "x-forwarded-host",
        "expect",
        "referer",
        "range",
        "if-range",
    ] {
        let given = request("/x", Version::HTTP_11, &[(name, "mine")]);
        let left = fields(given, &acme(), "https://api.acme.com/x");
        assert_eq!(left, Vec::<String>::new(), "{name}");
    }
    let (_, left) = leaving(
        request(
            "/x",
            Version::HTTP_11,
            &[("accept-encoding", "gzip"), ("x-acme-key", "mine")],
        ),
        &acme(),
        "https://api.acme.com/x",
    );
    let ours = [
        "accept-encoding: identity",
        "host: api.acme.com",
        "x-acme-key: Key secret0123",
    ];
    assert_eq!(left, ours);
}

#[test]
fn other_fields_leave_as_they_came() {
    for (name, value) in [
        ("x-api-keys", "1"),
        ("x_trace", "1"),
        ("connection", "close"),
        ("te", "trailers"),
    ] {
        let given = request("/x", Version::HTTP_11, &[(name, value)]);
        let left = fields(given, &acme(), "https://api.acme.com/x");
        assert_eq!(left, [format!("{name}: {value}")]);
    }
    let given = request(
        "/v1",
        Version::HTTP_11,
        &[("referer", "https://a.example/")],
    );
    let left = fields(given, &stripe(), "https://api.stripe.com/v1");
    assert!(
        left.contains(&"referer: https://a.example/".to_owned()),
        "{left:?}"
    );
    let given = request("/x", Version::HTTP_11, &[("grpc-accept-encoding", "gzip")]);
    let left = fields(given, &acme(), "https://api.acme.com/x");
    assert_eq!(
        left,
        ["grpc-accept-encoding: identity"],
        "compressed messages cannot be scanned"
    );
}

#[test]
fn no_extension_of_a_websocket_leaves() {
    for (is_upgrade, left) in [(true, None), (false, Some("permessage-deflate"))] {
        let fields = [("sec-websocket-extensions", "permessage-deflate")];
        let mut request = request("/x", Version::HTTP_11, &fields);
        let target = target("https://api.acme.com/x");
        inject(&mut request, &acme(), &target, None, is_upgrade, NOW).unwrap();
        let value = request.headers.get("sec-websocket-extensions");
        assert_eq!(value.map(|value| value.to_str().unwrap()), left);
    }
}

#[test]
fn cookies_leave_in_one_field_with_ours_in_place_of_the_agents() {
    let (plain, slot) = ("https://api.acme.com/x", "https://api.acme.com/c/x");
    for (version, url, crumbs, left) in [
        (Version::HTTP_11, plain, &[][..], &[][..]),
        (Version::HTTP_11, plain, &["a=1"], &["a=1"]),
        (Version::HTTP_11, plain, &["a=1", "b=2"], &["a=1; b=2"]),
        (Version::HTTP_11, plain, &["sid=mine"], &[]),
        (Version::HTTP_11, slot, &[], &["sid=secret0123"]),
        (
            Version::HTTP_11,
            slot,
            &["a=1", "sid=mine"],
            &["a=1; sid=secret0123"],
        ),
    ] {
        let path = url.trim_start_matches("https://api.acme.com");
        let crumbs: Vec<_> = crumbs.iter().map(|crumb| ("cookie", *crumb)).collect();
        let left_here = fields(request(path, version, &crumbs), &acme(), url);
        let left: Vec<_> = left
            .iter()
            .map(|cookie| format!("cookie: {cookie}"))
            .collect();
        assert_eq!(left_here, left, "{crumbs:?} {url}");
    }
    // A plan that lets cookies pass leaves crumbs alone where the protocol takes them; others leave none.
    let pass = "cookies = \"pass\"\n[[inject]]\nheader = \"x-key\"\nvalue = \"${KEY}\"\n";
    let pass = plan(&template("api.acme.com", pass), &[("KEY", "secret0123")]);
    for (plan, version, left) in [
        (&pass, Version::HTTP_2, 2),
        (&pass, Version::HTTP_11, 1),
        (&stripe(), Version::HTTP_2, 0),
        (&stripe(), Version::HTTP_11, 0),
    ] {
        let mut request = request("/v1", version, &[("cookie", "a=1"), ("cookie", "b=2")]);
        let target = target("https://api.acme.com/v1");
        inject(&mut request, plan, &target, None, false, NOW).unwrap();
        assert_eq!(request.headers.get_all(COOKIE).iter().count(), left);
    }
}

#[test]
fn a_request_for_aws_leaves_with_our_signature_or_not_at_all() {
    let aws = providers::Catalog::builtin().get("aws").unwrap();
    let secrets = [
        ("AWS_ACCESS_KEY_ID", "AKIAREAL000000000000"),
        (
            "AWS_SECRET_ACCESS_KEY",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYREALKEY00",
        ),
    ];
    let plan = plan(&aws, &secrets);
    let agents = format!(
        "AWS4-HMAC-SHA256 Credential=AKIACLAVIGERPLACEHLD/20261122/us-east-1/sts/aws4_request, \
        SignedHeaders=host;x-amz-date, Signature={}",
        "0".repeat(64)
    );
    let given = || {
        let fields = [
            ("host", "sts.us-east-1.amazonaws.com"),
            ("authorization", agents.as_str()),
            ("x-amz-date", "20261122T070000Z"),
            ("range", "bytes=0-9"),
        ];
        request("/?Action=GetCallerIdentity", Version::HTTP_11, &fields)
    };
    let target = target("https://sts.us-east-1.amazonaws.com/?Action=GetCallerIdentity");
    let mut signed = given();
    let scope = AgentScope::read(&signed.headers, None).unwrap();
    let signing = (scope, PayloadHash::of(b""));
    let body = inject(&mut signed, &plan, &target, Some(&signing), false, NOW).unwrap();
    assert!(body.is_none());
    let signature = signed.headers["authorization"].to_str().unwrap();
    let start =
        "AWS4-HMAC-SHA256 Credential=AKIAREAL000000000000/20261122/us-east-1/sts/aws4_request";
    assert!(signature.starts_with(start), "{signature}");
    assert_eq!(
        signed.headers["range"], "bytes=0-9",
        "stored objects live on ranges"
    );

    let refusal = inject(&mut given(), &plan, &target, None, false, NOW).unwrap_err();
    assert_eq!(refusal.code, Code::GrantDenied);
}

#[test]
fn a_placeholder_outside_its_slot_is_refused() {
    const PLACEHOLDER: &str = "sk_test_clavigerplaceholder00000";
    let url = "https://api.stripe.com/v1";
    for (name, url, is_fine) in [
        ("authorization", url.to_owned(), true),
        ("x-other", url.to_owned(), false),
        ("authorization", format!("{url}/{PLACEHOLDER}"), false),
        ("authorization", format!("{url}?key={PLACEHOLDER}"), false),
    ] {
        let value = format!("Bearer {PLACEHOLDER}");
        let given = request("/v1", Version::HTTP_11, &[(name, &value)]);
        let checked = check_placeholders(&given.headers, &stripe(), &target(&url));
        let expected = if is_fine {
            Ok(())
        } else {
            Err(Code::AmbiguousRequest)
        };
        assert_eq!(
            checked.map_err(|refusal| refusal.code),
            expected,
            "{name} {url}"
        );
    }
}

#[test]
fn a_declared_length_follows_the_body() {
    for (given, left) in [(&[("content-length", "3")][..], Some("5")), (&[], None)] {
        let mut request = request("/x", Version::HTTP_11, given);
        set_length(&mut request, &Bytes::from_static(b"12345"));
        let length = request.headers.get("content-length");
        assert_eq!(length.map(|length| length.to_str().unwrap()), left);
    }
}

#[test]
fn a_keyed_hash_covers_the_request_as_it_leaves() {
    let acme = template(
        "api.acme.com",
        r#"
[[inject]]
hmac = { key = "${KEY}", over = "{method} {host}{target} {body}", header = "x-sign" }
"#,
    );
    let plan = plan(&acme, &[("KEY", "secret0123")]);
    let target = target("https://api.acme.com:8443/x?a=1");
    let mut given = request("/x?a=1", Version::HTTP_11, &[("x-sign", "mine")]);
    sign_hmacs(&mut given, &plan, &target, b"body", NOW);
    // HMAC-SHA256 with the key over `GET api.acme.com:8443/x?a=1 body`, by Python's `hmac`.
    let tag = "9437dba25c99394ce0b28a184a762b3ac61ef264614de9d3470d71f910abaa2e";
    assert_eq!(given.headers["x-sign"], tag);

    let mut given = request("/v1", Version::HTTP_11, &[("x-sign", "mine")]);
    sign_hmacs(&mut given, &stripe(), &target, b"body", NOW);
    assert_eq!(given.headers["x-sign"], "mine", "nothing of Stripe's");
}
