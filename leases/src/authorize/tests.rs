use std::net::IpAddr;

use biscuit_auth::{BlockBuilder, UnverifiedBiscuit};
use time::Duration;

use super::*;
use crate::{
    Narrowing, PathGlob, Scope, Token,
    fixtures::{
        NOW, binding, decide, github, hosts, mint_request, minted, narrowed, request, root, scope,
        stripe, verified,
    },
    mint,
};

/// A lease to which a block of this source was appended by another tool.
fn with_block(token: &Token, source: &str) -> Token {
    with_builder(token, BlockBuilder::new().code(source).unwrap())
}

fn with_builder(token: &Token, block: BlockBuilder) -> Token {
    let biscuit = UnverifiedBiscuit::from(token.present().bytes()).unwrap();
    Token::from_bytes(&biscuit.append(block).unwrap().to_vec().unwrap()).unwrap()
}

fn unlimited() -> Token {
    minted(vec![stripe(Scope::default())])
}

fn limited(json: &str) -> Token {
    minted(vec![stripe(scope(json))])
}

fn grant_denial(token: &Token, request: &AccessRequest<'_>) -> (Dimension, String) {
    match decide(token, request).unwrap_err() {
        Denial::Grant { what, allowed } => (what, allowed),
        other => panic!("{other:?}"),
    }
}

fn scope_denial(token: &Token, request: &AccessRequest<'_>) -> (usize, Dimension) {
    match decide(token, request).unwrap_err() {
        Denial::Scope { block, what, .. } => (block, what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_within_the_lease_gets_a_permit() {
    let lease = verified(&unlimited());
    let permit = authorize(&lease, &request(), NOW).unwrap();
    assert_eq!(permit.binding(), &lease.bindings()[0]);
    assert_eq!(permit.action(), Action::ProxyUse);
    assert!(Arc::ptr_eq(permit.lease(), &lease));
}

#[test]
fn a_permit_says_whether_its_lease_is_bound_to_targets() {
    let permit = |token: &Token| decide(token, &request()).unwrap();
    let by_path = Narrowing {
        paths: vec![PathGlob::parse("/v1/**").unwrap()],
        ..Narrowing::default()
    };
    let by_method = Narrowing {
        methods: vec!["GET".to_owned()],
        ..Narrowing::default()
    };
    let odd = with_block(&unlimited(), r#"check if path("/v1/charges"), true;"#);
    for (token, is_bound, all, below) in [
        (unlimited(), false, true, true),
        (limited(r#"{"methods": ["GET"]}"#), false, true, true),
        (
            limited(r#"{"hosts": ["api.stripe.com"]}"#),
            true,
            true,
            true,
        ),
        (limited(r#"{"aws": {"buckets": ["b"]}}"#), true, true, true),
        (limited(r#"{"paths": ["/v1/**"]}"#), true, false, true),
        (limited(r#"{"paths": ["/v1/charges"]}"#), true, false, false),
        (narrowed(&unlimited(), &by_method), false, true, true),
        (narrowed(&unlimited(), &by_path), true, false, true),
        (odd, true, false, false),
    ] {
        let permit = permit(&token);
        let covers = |glob| permit.covers_paths(&PathGlob::parse(glob).unwrap());
        let said = (permit.limits_targets(), covers("/**"), covers("/v1/**"));
        assert_eq!(said, (is_bound, all, below), "{token:?}");
    }
}

#[test]
fn the_host_decides_which_set_serves() {
    let token = minted(vec![stripe(Scope::default()), github(Scope::default())]);
    for (host, provider) in [
        ("api.stripe.com", "stripe"),
        ("api.github.com", "github"),
        ("raw.githubusercontent.com", "github"),
    ] {
        let permit = decide(&token, &AccessRequest { host, ..request() }).unwrap();
        assert_eq!(permit.binding().provider, provider);
    }
}

#[test]
fn limits_of_one_set_do_not_hold_for_another() {
    let token = minted(vec![
        stripe(scope(
            r#"{"methods": ["GET"], "paths": ["/v1/charges"], "cidrs": ["10.0.0.0/8"], "hosts": ["api.stripe.com"],
            "time_window": {"after": "06:00", "before": "08:00"}}"#,
        )),
        github(Scope::default()),
    ]);
    let post = AccessRequest {
        method: "POST",
        path: "/user",
        client_ip: IpAddr::from([192, 0, 2, 1]),
        ..request()
    };
    assert_eq!(grant_denial(&token, &post).0, Dimension::Method);
    assert!(decide(&token, &request()).is_ok());
    let github = AccessRequest {
        host: "api.github.com",
        ..post
    };
    assert!(decide(&token, &github).is_ok());
}

#[test]
fn a_host_outside_the_lease_is_denied_and_the_allowed_ones_are_named() {
    for host in [
        "api.openai.com",
        "stripe.com",
        "evil-api.stripe.com",
        "api.stripe.com.evil.io",
        "api.stripe.com.",
        "API.stripe.com",
        "",
    ] {
        assert_eq!(
            grant_denial(&unlimited(), &AccessRequest { host, ..request() }),
            (
                Dimension::Host,
                "api.stripe.com, files.stripe.com".to_owned()
            ),
            "{host}"
        );
    }
}

#[test]
fn a_granted_host_on_another_port_is_denied() {
    for port in [8443, 22, 25, 80, 0] {
        let odd = AccessRequest { port, ..request() };
        assert_eq!(grant_denial(&unlimited(), &odd).0, Dimension::Host);
    }
}

#[test]
fn a_host_of_the_template_outside_the_grant_is_denied() {
    let token = limited(r#"{"hosts": ["api.stripe.com"]}"#);
    assert!(decide(&token, &request()).is_ok());
    let files = AccessRequest {
        host: "files.stripe.com",
        ..request()
    };
    assert_eq!(
        grant_denial(&token, &files),
        (Dimension::Host, "api.stripe.com".to_owned())
    );
}

#[test]
fn a_host_of_the_grant_outside_the_template_is_denied() {
    let token = limited(r#"{"hosts": ["**.com"]}"#);
    assert!(decide(&token, &request()).is_ok());
    let evil = AccessRequest {
        host: "evil.com",
        ..request()
    };
    assert_eq!(grant_denial(&token, &evil).0, Dimension::Host);
}

#[test]
fn a_method_outside_the_grant_is_denied() {
    let token = limited(r#"{"methods": ["GET", "HEAD"]}"#);
    assert!(decide(&token, &request()).is_ok());
    for method in ["POST", "get", "GET ", ""] {
        assert_eq!(
            grant_denial(
                &token,
                &AccessRequest {
                    method,
                    ..request()
                }
            ),
            (Dimension::Method, "GET, HEAD".to_owned())
        );
    }
}

#[test]
fn trace_and_connect_are_denied_without_any_limit() {
    for method in ["TRACE", "CONNECT", "TRACK"] {
        let forbidden = AccessRequest {
            method,
            ..request()
        };
        assert_eq!(grant_denial(&unlimited(), &forbidden).0, Dimension::Method);
    }
}

#[test]
fn a_path_outside_the_grant_is_denied() {
    let token = limited(r#"{"paths": ["/v1/charges", "/v1/refunds/**", "/v1/*/lines"]}"#);
    for path in [
        "/v1/charges",
        "/v1/refunds",
        "/v1/refunds/re_1/x",
        "/v1/in_1/lines",
    ] {
        assert!(
            decide(&token, &AccessRequest { path, ..request() }).is_ok(),
            "{path}"
        );
    }
    for path in [
        "/v1/charges/",
        "/v1/Charges",
        "/v1/refundsx",
        "/v1/a/b/lines",
        "/",
        "",
    ] {
        let outside = AccessRequest { path, ..request() };
        assert_eq!(grant_denial(&token, &outside).0, Dimension::Path, "{path}");
    }
}

#[test]
fn an_empty_path_is_denied_without_any_limit() {
    let empty = AccessRequest {
        path: "",
        ..request()
    };
    assert_eq!(grant_denial(&unlimited(), &empty).0, Dimension::Path);
}

#[test]
fn a_client_outside_the_grant_is_denied() {
    let token = limited(r#"{"cidrs": ["10.0.0.0/8", "2001:db8::/32"]}"#);
    for client in ["10.255.0.1", "::ffff:10.0.0.1", "2001:db8:ffff::1"] {
        let client_ip = client.parse().unwrap();
        assert!(
            decide(
                &token,
                &AccessRequest {
                    client_ip,
                    ..request()
                }
            )
            .is_ok(),
            "{client}"
        );
    }
    for client in [
        "11.0.0.1",
        "127.0.0.1",
        "::1",
        "2001:db9::1",
        "::ffff:11.0.0.1",
    ] {
        let client_ip = client.parse().unwrap();
        let outside = AccessRequest {
            client_ip,
            ..request()
        };
        assert_eq!(
            grant_denial(&token, &outside).0,
            Dimension::Client,
            "{client}"
        );
    }
}

#[test]
fn a_time_outside_the_grants_window_is_denied() {
    let token =
        limited(r#"{"time_window": {"after": "06:00", "before": "07:30", "timezone": "UTC"}}"#);
    let lease = verified(&token);
    assert!(authorize(&lease, &request(), NOW).is_ok());
    assert!(authorize(&lease, &request(), NOW + Duration::minutes(29)).is_ok());
    assert_eq!(
        authorize(&lease, &request(), NOW + Duration::minutes(30)).unwrap_err(),
        Denial::Grant {
            what: Dimension::Time,
            allowed: "06:00 to 07:30 UTC".to_owned()
        }
    );
    // The clock may step back into the window, and the decision is made anew.
    assert!(authorize(&lease, &request(), NOW - Duration::minutes(30)).is_ok());
    assert!(authorize(&lease, &request(), NOW - Duration::minutes(61)).is_err());
}

#[test]
fn another_action_than_the_leases_is_denied() {
    let export = AccessRequest {
        action: Action::ExportPlaintext,
        ..request()
    };
    assert_eq!(
        grant_denial(&unlimited(), &export),
        (Dimension::Action, "proxy_use".to_owned())
    );
}

#[test]
fn cleartext_is_denied_unless_the_grant_allows_it() {
    let clear = AccessRequest {
        scheme: Scheme::Http,
        port: 80,
        ..request()
    };
    assert_eq!(decide(&unlimited(), &clear).unwrap_err(), Denial::Plaintext);
    let on_443 = AccessRequest { port: 443, ..clear };
    assert_eq!(
        decide(&unlimited(), &on_443).unwrap_err(),
        Denial::Plaintext
    );
    let allowed = limited(r#"{"cleartext": true}"#);
    assert!(decide(&allowed, &clear).is_ok());
    assert!(decide(&allowed, &request()).is_ok());
    assert_eq!(decide(&allowed, &on_443).unwrap_err(), Denial::Plaintext);
    let elsewhere = AccessRequest {
        host: "evil.com",
        ..clear
    };
    assert_eq!(grant_denial(&unlimited(), &elsewhere).0, Dimension::Host);
    // One set's cleartext is not another's.
    let both = minted(vec![
        stripe(scope(r#"{"cleartext": true}"#)),
        github(Scope::default()),
    ]);
    let github = AccessRequest {
        host: "api.github.com",
        ..clear
    };
    assert_eq!(decide(&both, &github).unwrap_err(), Denial::Plaintext);
}

#[test]
fn an_expired_lease_is_denied_to_the_second() {
    let lease = verified(&unlimited());
    let end = lease.expires_at();
    assert!(authorize(&lease, &request(), end - Duration::milliseconds(1)).is_ok());
    for now in [end, end + Duration::hours(1)] {
        assert_eq!(
            authorize(&lease, &request(), now).unwrap_err(),
            Denial::Expired { at: end }
        );
    }
}

#[test]
fn an_expiry_says_when_and_what_to_do() {
    let text = Denial::Expired { at: NOW }.to_string();
    assert_eq!(
        text,
        "the lease expired at 2026-11-22T07:00:00Z; mint a new one"
    );
}

#[test]
fn a_childs_passed_expiry_is_an_expiry() {
    let end = NOW + Duration::minutes(5);
    let child = narrowed(
        &unlimited(),
        &Narrowing {
            expires_at: Some(end),
            ..Narrowing::default()
        },
    );
    let lease = verified(&child);
    assert!(authorize(&lease, &request(), end - Duration::seconds(1)).is_ok());
    assert_eq!(
        authorize(&lease, &request(), end).unwrap_err(),
        Denial::Expired { at: end }
    );
}

#[test]
fn what_a_block_narrows_is_denied_by_that_block() {
    let child = narrowed(
        &unlimited(),
        &Narrowing {
            methods: vec!["GET".to_owned(), "POST".to_owned()],
            hosts: hosts(&["api.stripe.com"]),
            ..Narrowing::default()
        },
    );
    let grandchild = narrowed(
        &child,
        &Narrowing {
            paths: vec![PathGlob::parse("/v1/charges/*").unwrap()],
            cidrs: vec!["10.0.0.0/8".parse().unwrap()],
            ..Narrowing::default()
        },
    );
    let good = AccessRequest {
        path: "/v1/charges/ch_1",
        ..request()
    };
    assert!(decide(&grandchild, &good).is_ok());
    for (bad, denial) in [
        (
            AccessRequest {
                method: "PUT",
                ..good
            },
            (1, Dimension::Method),
        ),
        (
            AccessRequest {
                host: "files.stripe.com",
                ..good
            },
            (1, Dimension::Host),
        ),
        (
            AccessRequest {
                path: "/v1/charges",
                ..good
            },
            (2, Dimension::Path),
        ),
        (
            AccessRequest {
                client_ip: IpAddr::from([11, 0, 0, 1]),
                ..good
            },
            (2, Dimension::Client),
        ),
    ] {
        assert_eq!(scope_denial(&grandchild, &bad), denial);
        assert!(decide(&unlimited(), &bad).is_ok());
    }
    assert_eq!(
        decide(
            &grandchild,
            &AccessRequest {
                method: "PUT",
                ..good
            }
        )
        .unwrap_err()
        .to_string(),
        "the lease was narrowed: method is outside block 1 (allowed: GET, POST); use the lease that it was narrowed from"
    );
}

#[test]
fn a_block_that_is_wider_widens_nothing() {
    let token = limited(r#"{"methods": ["GET"], "hosts": ["api.stripe.com"]}"#);
    let wider = narrowed(
        &token,
        &Narrowing {
            hosts: hosts(&["**.com"]),
            methods: vec!["GET".to_owned(), "POST".to_owned()],
            expires_at: Some(NOW + Duration::days(365)),
            ..Narrowing::default()
        },
    );
    assert!(decide(&wider, &request()).is_ok());
    let post = AccessRequest {
        method: "POST",
        ..request()
    };
    assert_eq!(grant_denial(&wider, &post).0, Dimension::Method);
    let files = AccessRequest {
        host: "files.stripe.com",
        ..request()
    };
    assert_eq!(grant_denial(&wider, &files).0, Dimension::Host);
    let lease = verified(&wider);
    assert_eq!(lease.effective_expiry(), lease.expires_at());
}

#[test]
fn checks_of_other_tools_are_decided_by_datalog() {
    for (source, bad, what) in [
        (
            "check if host($h), $h.starts_with(\"api.\")",
            AccessRequest {
                host: "files.stripe.com",
                ..request()
            },
            Dimension::Host,
        ),
        (
            "check if method($m), {\"GET\", \"HEAD\"}.contains($m)",
            AccessRequest {
                method: "POST",
                ..request()
            },
            Dimension::Method,
        ),
        (
            "reject if path($p), $p.starts_with(\"/v1/refunds\")",
            AccessRequest {
                path: "/v1/refunds/1",
                ..request()
            },
            Dimension::Path,
        ),
        (
            "check all path($p), $p.matches(\"^/v1/c.*$\")",
            AccessRequest {
                path: "/v1/refunds/1",
                ..request()
            },
            Dimension::Path,
        ),
        (
            "check if client_ip(\"10.1.2.3\")",
            AccessRequest {
                client_ip: IpAddr::from([10, 1, 2, 4]),
                ..request()
            },
            Dimension::Client,
        ),
        (
            "check if host($h), method($m), $h == \"api.stripe.com\" && $m == \"GET\"",
            AccessRequest {
                method: "POST",
                ..request()
            },
            Dimension::Other,
        ),
    ] {
        let token = with_block(&unlimited(), source);
        assert!(decide(&token, &request()).is_ok(), "{source}");
        assert_eq!(scope_denial(&token, &bad), (1, what), "{source}");
    }
}

#[test]
fn a_check_that_cannot_be_evaluated_denies() {
    for source in [
        "check if path($p), $p > 1",
        "check if 1 / 0 > 0",
        "check if 9223372036854775807 + 1 > 0",
        "check if unknown($x)",
        "check if false",
    ] {
        assert_eq!(
            scope_denial(&with_block(&unlimited(), source), &request()).0,
            1,
            "{source}"
        );
    }
}

#[test]
fn a_denial_by_datalog_shows_no_control_characters() {
    let path = biscuit_auth::builder::string("\n\u{1b}[31m");
    let predicate = biscuit_auth::builder::pred("path", &[path]);
    let block = BlockBuilder {
        checks: vec![biscuit_auth::builder::check(
            &[predicate],
            biscuit_auth::builder::CheckKind::All,
        )],
        ..BlockBuilder::default()
    };
    let token = with_builder(&unlimited(), block);
    let text = decide(&token, &request()).unwrap_err().to_string();
    assert!(text.contains("check all path"), "{text:?}");
    assert!(text.chars().all(|c| !c.is_control()), "{text:?}");
}

#[test]
fn a_path_that_is_too_long_meets_the_limit() {
    let path = format!("/{}", "a".repeat(MAX_PATH_BYTES));
    let long = AccessRequest {
        path: &path,
        ..request()
    };
    assert_eq!(decide(&unlimited(), &long).unwrap_err(), Denial::Limits);
}

#[test]
fn a_repeated_request_is_remembered_and_another_one_is_not() {
    let lease = verified(&limited(r#"{"paths": ["/v1/**"]}"#));
    assert_eq!(lease.memory().len(), 0);
    for _ in 0..3 {
        authorize(&lease, &request(), NOW).unwrap();
        assert_eq!(lease.memory().len(), 1);
    }
    assert_eq!(lease.memory().recall(&request(), NOW), Some(0));
    let base = request();
    for other in [
        AccessRequest {
            action: Action::Read,
            ..base
        },
        AccessRequest {
            scheme: Scheme::Http,
            ..base
        },
        AccessRequest {
            host: "files.stripe.com",
            ..base
        },
        AccessRequest { port: 8443, ..base },
        AccessRequest {
            method: "POST",
            ..base
        },
        AccessRequest {
            path: "/v1/charges/",
            ..base
        },
        AccessRequest {
            client_ip: IpAddr::from([10, 1, 2, 4]),
            ..base
        },
    ] {
        assert_eq!(lease.memory().recall(&other, NOW), None);
    }
}

#[test]
fn a_remembered_decision_ends_with_the_window_and_with_the_lease() {
    let window = r#"{"time_window": {"after": "06:00", "before": "07:30"}}"#;
    for (json, end) in [
        (window, NOW + Duration::minutes(30)),
        ("{}", NOW + Duration::hours(1)),
    ] {
        let lease = verified(&limited(json));
        authorize(&lease, &request(), NOW).unwrap();
        let recall = |now| lease.memory().recall(&request(), now);
        assert_eq!(recall(end - Duration::milliseconds(1)), Some(0));
        assert_eq!(recall(end), None);
        assert_eq!(recall(NOW - Duration::milliseconds(1)), None);
    }
}

#[test]
fn a_decision_that_an_unknown_check_of_time_made_is_not_remembered() {
    let until = "2026-11-22T07:01:00Z";
    for (source, remembered) in [
        (format!("check if time($t), {until} > $t"), 0),
        ("check if minute(1440, $m), $m < 421".to_owned(), 0),
        (format!("check if time($t), $t < {until}"), 1),
        ("check if path($p), $p.starts_with(\"/v1\")".to_owned(), 1),
    ] {
        let lease = verified(&with_block(&unlimited(), &source));
        authorize(&lease, &request(), NOW).unwrap();
        assert_eq!(lease.memory().len(), remembered, "{source}");
        if source.contains('<') || source.contains('>') {
            assert!(authorize(&lease, &request(), NOW + Duration::minutes(1)).is_err());
        }
    }
}

#[test]
fn denials_are_not_remembered_and_memory_is_bounded() {
    let lease = verified(&limited(r#"{"paths": ["/ok/**"]}"#));
    for n in 0..2000 {
        let path = format!("/{}/{n}", if n % 2 == 0 { "ok" } else { "no" });
        let numbered = AccessRequest {
            path: &path,
            ..request()
        };
        assert_eq!(authorize(&lease, &numbered, NOW).is_ok(), n % 2 == 0);
    }
    assert!((100..=512).contains(&lease.memory().len()));
    let path = format!("/ok/{}", "a".repeat(600));
    let long = AccessRequest {
        path: &path,
        ..request()
    };
    authorize(&lease, &long, NOW).unwrap();
    assert_eq!(lease.memory().recall(&long, NOW), None);
}

#[test]
fn connect_is_answered_by_host_and_time_alone() {
    let token = limited(
        r#"{"hosts": ["api.stripe.com"], "methods": ["POST"], "paths": ["/x"], "cidrs": ["192.0.2.0/24"],
            "time_window": {"after": "06:00", "before": "07:30"}}"#,
    );
    let lease = verified(&token);
    let covers = |host, port, now| {
        covers_host(&lease, host, port, now).map(|binding| binding.provider.as_str())
    };
    assert_eq!(covers("api.stripe.com", 443, NOW), Ok("stripe"));
    for (host, port) in [
        ("files.stripe.com", 443),
        ("api.stripe.com", 8443),
        ("files.stripe.com", 80),
        ("evil.io", 443),
    ] {
        let denial = covers(host, port, NOW).unwrap_err();
        assert!(
            matches!(
                denial,
                Denial::Grant {
                    what: Dimension::Host,
                    ..
                }
            ),
            "{denial:?}"
        );
    }
    let denial = covers("api.stripe.com", 443, NOW + Duration::minutes(30)).unwrap_err();
    assert!(matches!(
        denial,
        Denial::Grant {
            what: Dimension::Time,
            ..
        }
    ));
    let denial = covers("api.stripe.com", 443, NOW + Duration::hours(1)).unwrap_err();
    assert!(matches!(denial, Denial::Expired { .. }));
}

#[test]
fn connect_sees_what_blocks_narrow() {
    let child = narrowed(
        &unlimited(),
        &Narrowing {
            hosts: hosts(&["files.stripe.com"]),
            methods: vec!["POST".to_owned()],
            expires_at: Some(NOW + Duration::minutes(1)),
            ..Narrowing::default()
        },
    );
    let lease = verified(&child);
    assert!(covers_host(&lease, "files.stripe.com", 443, NOW).is_ok());
    assert!(matches!(
        covers_host(&lease, "api.stripe.com", 443, NOW),
        Err(Denial::Scope {
            block: 1,
            what: Dimension::Host,
            ..
        })
    ));
    assert!(matches!(
        covers_host(&lease, "files.stripe.com", 443, NOW + Duration::minutes(1)),
        Err(Denial::Expired { .. })
    ));
}

#[test]
fn connect_to_the_cleartext_port_is_answered_and_its_requests_are_denied() {
    let lease = verified(&unlimited());
    assert!(covers_host(&lease, "api.stripe.com", 80, NOW).is_ok());
    assert!(covers_host(&lease, "api.stripe.com", 8080, NOW).is_err());
    assert!(covers_host(&lease, "evil.com", 80, NOW).is_err());
    let clear = verified(&limited(r#"{"cleartext": true}"#));
    assert!(covers_host(&clear, "api.stripe.com", 80, NOW).is_ok());
    assert!(covers_host(&clear, "api.stripe.com", 443, NOW).is_ok());
}

#[test]
fn addresses_are_hosts_with_and_without_brackets() {
    let token = minted(vec![binding(
        "custom",
        &["[2001:db8::1]:8443", "192.0.2.1"],
        Scope::default(),
    )]);
    for (host, port) in [
        ("[2001:db8::1]", 8443),
        ("2001:db8::1", 8443),
        ("192.0.2.1", 443),
    ] {
        assert!(
            decide(
                &token,
                &AccessRequest {
                    host,
                    port,
                    ..request()
                }
            )
            .is_ok(),
            "{host}"
        );
        assert!(covers_host(&verified(&token), host, port, NOW).is_ok());
    }
}

#[test]
fn many_threads_get_one_answer() {
    let lease = verified(&limited(r#"{"paths": ["/v1/**"]}"#));
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for n in 0..200 {
                    let path = format!("/v{}/{}", n % 3, n % 7);
                    let numbered = AccessRequest {
                        path: &path,
                        ..request()
                    };
                    assert_eq!(authorize(&lease, &numbered, NOW).is_ok(), n % 3 == 1);
                }
            });
        }
    });
}

fn export_lease(json: &str) -> Token {
    let mut request = mint_request(vec![stripe(scope(json)), github(Scope::default())]);
    request.action = Action::ExportPlaintext;
    mint(&root(), &request).unwrap().token
}

fn export(token: &Token, minutes: i64) -> Result<usize, Denial> {
    let client_ip = IpAddr::from([10, 1, 2, 3]);
    let now = NOW + Duration::minutes(minutes);
    authorize_export(&verified(token), client_ip, now).map(|permits| permits.len())
}

#[test]
fn an_export_lease_gets_a_permit_for_each_set() {
    let token = export_lease(r#"{"hosts": ["api.stripe.com"], "cidrs": ["10.0.0.0/8"]}"#);
    assert_eq!(export(&token, 0), Ok(2));
    assert!(matches!(export(&token, 60), Err(Denial::Expired { .. })));
    // The door for requests stays closed to it.
    assert_eq!(grant_denial(&token, &request()).0, Dimension::Action);
}

#[test]
fn an_export_is_held_to_the_grants_networks_and_times() {
    let elsewhere = export_lease(r#"{"cidrs": ["192.0.2.0/24"]}"#);
    assert!(matches!(
        export(&elsewhere, 0),
        Err(Denial::Grant {
            what: Dimension::Client,
            ..
        })
    ));
    let early = export_lease(r#"{"time_window": {"after": "06:00", "before": "07:30"}}"#);
    assert_eq!(export(&early, 29), Ok(2));
    assert!(matches!(
        export(&early, 30),
        Err(Denial::Grant {
            what: Dimension::Time,
            ..
        })
    ));
    assert!(matches!(
        export(&unlimited(), 0),
        Err(Denial::Grant {
            what: Dimension::Action,
            ..
        })
    ));
}

#[test]
fn an_export_lease_that_is_narrowed_to_requests_exports_nothing() {
    let token = export_lease("{}");
    let timed = Narrowing {
        cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        expires_at: Some(NOW + Duration::minutes(5)),
        ..Narrowing::default()
    };
    assert_eq!(export(&narrowed(&token, &timed), 0), Ok(2));
    assert!(matches!(
        export(&narrowed(&token, &timed), 5),
        Err(Denial::Expired { .. })
    ));
    let by_host = Narrowing {
        hosts: hosts(&["api.stripe.com"]),
        ..Narrowing::default()
    };
    assert!(matches!(
        export(&narrowed(&token, &by_host), 0),
        Err(Denial::Scope {
            block: 1,
            what: Dimension::Host,
            ..
        })
    ));
    assert!(matches!(
        export(&with_block(&token, "check if true"), 0),
        Err(Denial::Scope {
            block: 1,
            what: Dimension::Other,
            ..
        })
    ));
}

mod properties;

#[test]
fn a_rule_on_approval_is_kept_by_every_narrower_lease() {
    let token = limited(r#"{"approval": {"methods": ["GET"], "ttl_seconds": 60}}"#);
    let narrower = narrowed(
        &token,
        &Narrowing {
            methods: vec!["GET".to_owned()],
            ..Narrowing::default()
        },
    );
    for token in [&token, &narrower] {
        let permit = decide(token, &request()).unwrap();
        let rule = permit.binding().scope.approval.as_ref().unwrap();
        assert!(rule.asks("GET") && !rule.asks("POST"));
        assert_eq!((rule.ttl_seconds, rule.pending_seconds), (60, 300));
    }
}

#[test]
fn a_grant_that_asks_for_approval_exports_nothing() {
    let refused = export(&export_lease(r#"{"approval": true}"#), 0).unwrap_err();
    let Denial::Grant { what, allowed } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(what, Dimension::Action);
    assert!(allowed.contains("a person approves"), "{allowed}");
}
