use biscuit_auth::builder::BlockBuilder;
use time::{Duration, macros::datetime};

use super::*;
use crate::{
    fixtures::{NOW, hosts, request},
    scope::parse_cidr,
};

fn check(source: &str) -> Check {
    BlockBuilder::new().code(source).unwrap().checks.remove(0)
}

fn all() -> Vec<Limit> {
    let paths =
        ["/v1", "/v1/**", "/**", "/v1/*/x", "/a.b*"].map(|glob| PathGlob::parse(glob).unwrap());
    let nets = ["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0", "192.0.2.1"]
        .map(|net| parse_cidr(net).unwrap());
    vec![
        Limit::Hosts(hosts(&[
            "api.stripe.com",
            "*.x.com:8443",
            "**.x.com",
            "[::1]",
            "192.0.2.1:80",
        ])),
        Limit::Methods(vec!["GET".to_owned(), "POST".to_owned()]),
        Limit::Paths(paths.to_vec()),
        Limit::Clients(nets.to_vec()),
        Limit::Before(NOW),
    ]
}

#[test]
fn a_limit_is_known_again_by_the_check_that_says_it() {
    for limit in all() {
        assert_eq!(Limit::read(&limit.write()), Some(limit));
    }
}

#[test]
fn an_end_is_known_as_other_tools_write_it() {
    let end = datetime!(2026-11-22 08:00 UTC);
    for (source, expected) in [
        ("check if time($t), $t < 2026-11-22T08:00:00Z", Some(end)),
        (
            "check if time($time), $time <= 2026-11-22T08:00:00Z",
            Some(end + Duration::SECOND),
        ),
        ("check if time($t), $t > 2026-11-22T08:00:00Z", None),
        ("check if time($t), $u < 2026-11-22T08:00:00Z", None),
        (
            "check if time($t), $t < 2026-11-22T08:00:00Z, $t < 2026-11-22T09:00:00Z",
            None,
        ),
        ("check if time($t), $t < 2026-11-22T08:00:00Z or true", None),
        ("check all time($t), $t < 2026-11-22T08:00:00Z", None),
        ("reject if time($t), $t < 2026-11-22T08:00:00Z", None),
        ("check if other($t), $t < 2026-11-22T08:00:00Z", None),
    ] {
        // The parser refuses variables that no predicate binds; then there is nothing to know.
        let Ok(block) = BlockBuilder::new().code(source) else {
            continue;
        };
        let expected = expected.map(Limit::Before);
        assert_eq!(Limit::read(&block.checks[0]), expected, "{source}");
    }
}

#[test]
fn a_check_that_says_a_little_more_is_not_known() {
    for source in [
        "check if method(\"GET\"), path(\"/\")",
        "check if method(\"GET\"), 1 > 2",
        "check all method(\"GET\")",
        "reject if method(\"GET\")",
        "check if method($m)",
        "check if method(1)",
        "check if path($p), $p.starts_with(\"/v1/\")",
        "check if path($p), ($p + \"/\").starts_with(\"/v1\")",
        "check if path($p), ($p + \"x\").starts_with(\"/v1/\")",
        "check if path($p), $p.matches(\"^/v1/.*$\")",
        "check if path($p), $p.matches(\"/v1/[^/]+\")",
        "check if path($p), $p.ends_with(\"/v1/\")",
        "check if path(\"v1\")",
        "check if at(\"api.stripe.com\", 99999)",
        "check if at(\"API.stripe.com\", 0)",
        "check if at($h, 0), $h.ends_with(\"stripe.com\")",
        "check if at($h, 0), $h.starts_with(\".stripe.com\")",
        "check if at(\"api.stripe.com\", $p)",
        "check if client_net($n), $n.starts_with(\"4:2\")",
        "check if client_net($n), $n.starts_with(\"10.0.0\")",
        "check if host(\"api.stripe.com\")",
        "check if true",
    ] {
        assert_eq!(Limit::read(&check(source)), None, "{source}");
    }
}

#[test]
fn a_limit_allows_what_it_names() {
    let [hosts, methods, paths, clients, before] = <[Limit; 5]>::try_from(all()).unwrap();
    let base = request();
    let earlier = NOW - Duration::SECOND;
    for limit in [&hosts, &methods, &clients] {
        assert!(limit.allows(&base, NOW), "{limit}");
    }
    assert!(
        !paths.allows(
            &AccessRequest {
                path: "/v2",
                ..base
            },
            NOW
        ) || paths.allowed().contains("/**")
    );
    assert!(before.allows(&base, earlier) && !before.allows(&base, NOW));
    assert!(!hosts.allows(
        &AccessRequest {
            host: "x.com",
            ..base
        },
        NOW
    ));
    assert!(!methods.allows(
        &AccessRequest {
            method: "PUT",
            ..base
        },
        NOW
    ));
}

#[test]
fn a_limit_is_shown_in_words() {
    let shown: Vec<_> = all().iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "host api.stripe.com, *.x.com:8443, **.x.com, [::1], 192.0.2.1:80",
            "method GET, POST",
            "path /v1, /v1/**, /**, /v1/*/x, /a.b*",
            "client 10.0.0.0/8, 2001:db8::/32, 0.0.0.0/0, 192.0.2.1/32",
            "before 2026-11-22T07:00:00Z",
        ]
    );
    assert_eq!(
        listed(&(0..10).collect::<Vec<_>>()),
        "0, 1, 2, 3, 4, 5, 6, 7, 2 more"
    );
}
