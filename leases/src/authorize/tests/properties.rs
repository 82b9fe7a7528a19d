//! Random leases, chains of narrowings and requests: no child does more than its parent, and what is tested natively is
//! what Biscuit's authorizer says.

use proptest::prelude::*;

use super::*;
use crate::{
    HostPattern, Narrowing, PathGlob, TimeWindow,
    evaluate::evaluate,
    fixtures::{binding, hosts},
    scope::parse_cidr,
};

fn some<T: Clone + std::fmt::Debug + 'static>(items: Vec<T>) -> impl Strategy<Value = Vec<T>> {
    let most = items.len().min(3);
    prop_oneof![Just(vec![]), proptest::sample::subsequence(items, 1..=most)]
}

fn any_hosts() -> impl Strategy<Value = Vec<HostPattern>> {
    some(hosts(&[
        "a.x.com",
        "b.x.com",
        "*.x.com",
        "**.x.com",
        "*.*.x.com",
        "a.*.com",
        "a.x.com:8443",
        "*.x.com:80",
        "192.0.2.1",
    ]))
}

fn any_methods() -> impl Strategy<Value = Vec<String>> {
    some(["GET", "POST", "DELETE"].map(str::to_owned).to_vec())
}

fn any_paths() -> impl Strategy<Value = Vec<PathGlob>> {
    let globs = [
        "/", "/**", "/a", "/a/*", "/a/**", "/a/b", "/*/b", "/**/b", "/a/*b", "/a.b", "/a/",
    ];
    some(globs.map(|glob| PathGlob::parse(glob).unwrap()).to_vec())
}

fn any_cidrs() -> impl Strategy<Value = Vec<ipnet::IpNet>> {
    let nets = [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "0.0.0.0/0",
        "::/0",
        "2001:db8::/32",
        "::ffff:10.0.0.0/104",
    ];
    some(nets.map(|net| parse_cidr(net).unwrap()).to_vec())
}

fn any_window() -> impl Strategy<Value = Option<TimeWindow>> {
    let windows = [
        r#"{"after": "06:00", "before": "07:30"}"#,
        r#"{"after": "22:00", "before": "08:00", "timezone": "-05:30"}"#,
        r#"{"after": "05:00", "before": "09:00", "days": ["sun", "wed"]}"#,
        r#"{"after": "23:00", "before": "10:00", "timezone": "+02:00", "days": ["sat", "sun"]}"#,
    ];
    proptest::option::of(proptest::sample::select(
        windows
            .map(|json| serde_json::from_str::<TimeWindow>(json).unwrap())
            .to_vec(),
    ))
}

fn any_scope() -> impl Strategy<Value = Scope> {
    (
        any_hosts(),
        any_methods(),
        any_paths(),
        any_cidrs(),
        any_window(),
        any::<bool>(),
    )
        .prop_map(
            |(hosts, methods, paths, cidrs, time_window, cleartext)| Scope {
                hosts,
                methods,
                paths,
                cidrs,
                time_window,
                cleartext,
                ..Scope::default()
            },
        )
}

/// A lease of two sets with hosts of their own, if the scopes leave them any.
fn any_lease() -> impl Strategy<Value = Token> {
    let x = any_hosts().prop_filter("a template has hosts", |hosts| !hosts.is_empty());
    (x, any_scope(), any_scope()).prop_filter_map(
        "a lease that is minted",
        |(template, first, second)| {
            let mut x = binding("x", &["a.x.com"], first);
            x.hosts = template;
            let y = binding("y", &["a.y.com", "*.z.com"], second);
            let mint = |bindings| {
                crate::mint(
                    &crate::fixtures::root(),
                    &crate::fixtures::mint_request(bindings),
                )
            };
            let minted = mint(vec![x.clone(), y]).or_else(|_| mint(vec![x]));
            minted.ok().map(|minted| minted.token)
        },
    )
}

fn any_narrowing() -> impl Strategy<Value = Narrowing> {
    let end = proptest::option::of(1_i64..90);
    (any_hosts(), any_methods(), any_paths(), any_cidrs(), end)
        .prop_map(|(hosts, methods, paths, cidrs, end)| Narrowing {
            hosts,
            methods,
            paths,
            cidrs,
            expires_at: end.map(|minutes| NOW + Duration::minutes(minutes)),
        })
        .prop_filter("it narrows", |narrowing| *narrowing != Narrowing::default())
}

/// Checks that this crate does not write.
fn any_other_check() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "check if host($h), $h.ends_with(\"x.com\")",
        "check if method($m), {\"GET\", \"POST\"}.contains($m)",
        "reject if path($p), $p.contains(\"b\")",
        "check if time($t), 2026-11-22T07:20:00Z > $t",
        "check if minute(1440, $m), $m < 440",
        "check if right($s, \"proxy_use\"), set($s)",
        "check if true || false",
        "check if path($p), $p > 1",
    ])
}

#[derive(Debug, Clone)]
struct Request {
    scheme: Scheme,
    host: &'static str,
    port: u16,
    method: &'static str,
    path: &'static str,
    client_ip: IpAddr,
    minutes: i64,
}

impl Request {
    fn access(&self) -> AccessRequest<'_> {
        AccessRequest {
            action: Action::ProxyUse,
            scheme: self.scheme,
            host: self.host,
            port: self.port,
            method: self.method,
            path: self.path,
            client_ip: self.client_ip,
        }
    }

    fn now(&self) -> OffsetDateTime {
        NOW + Duration::minutes(self.minutes)
    }
}

fn any_request() -> impl Strategy<Value = Request> {
    let scheme = prop_oneof![4 => Just(Scheme::Https), 1 => Just(Scheme::Http)];
    let host = proptest::sample::select(vec![
        "a.x.com",
        "a.x.com",
        "b.x.com",
        "a.b.x.com",
        "x.com",
        "a.y.com",
        "a.z.com",
        "192.0.2.1",
        "evil.io",
    ]);
    let port = prop_oneof![4 => Just(443_u16), 1 => Just(80), 1 => Just(8443)];
    let method = proptest::sample::select(vec!["GET", "POST", "DELETE", "get"]);
    let path = proptest::sample::select(vec![
        "/", "/a", "/a/", "/a/b", "/a/bb", "/b", "/x/y/b", "/aXb", "/a.b", "*",
    ]);
    let client = proptest::sample::select(vec![
        "10.1.2.3",
        "10.2.0.1",
        "192.0.2.9",
        "::1",
        "2001:db8::7",
        "::ffff:10.1.0.1",
    ]);
    (scheme, host, port, method, path, client, 0_i64..70).prop_map(
        |(scheme, host, port, method, path, client, minutes)| Request {
            scheme,
            host,
            port,
            method,
            path,
            client_ip: client.parse().unwrap(),
            minutes,
        },
    )
}

/// What the native tests say, without Datalog.
fn native(lease: &VerifiedLease, request: &Request) -> Result<usize, Denial> {
    let (access, now) = (request.access(), request.now());
    check_end(lease, now)?;
    let (at, binding) = choose(lease, &access)?;
    check_grant(binding, &access, now)?;
    check_blocks(lease, |limit| limit.allows(&access, now))?;
    Ok(at)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// The token alone carries the limits: Biscuit's authorizer, asked for each set, allows what is allowed natively.
    #[test]
    fn datalog_and_the_native_tests_agree(
        parent in any_lease(),
        narrowings in proptest::collection::vec(any_narrowing(), 0..3),
        requests in proptest::collection::vec(any_request(), 12),
    ) {
        let token = narrowings.iter().fold(parent, |token, narrowing| narrowed(&token, narrowing));
        let lease = verified(&token);
        for request in &requests {
            let allowed: Vec<_> = lease.bindings().iter().enumerate()
                .filter(|(_, binding)| evaluate(&lease, binding, &request.access(), request.now()).is_ok())
                .map(|(at, _)| at)
                .collect();
            let expected: Vec<_> = native(&lease, request).into_iter().collect();
            prop_assert_eq!(&allowed, &expected, "{:?} {:?}", request, native(&lease, request));
        }
    }

    #[test]
    fn a_child_never_does_more_than_its_parent(
        parent in any_lease(),
        narrowings in proptest::collection::vec(any_narrowing(), 1..4),
        other in proptest::option::of(any_other_check()),
        requests in proptest::collection::vec(any_request(), 12),
    ) {
        let mut chain = vec![parent];
        for narrowing in &narrowings {
            chain.push(narrowed(&chain[chain.len() - 1], narrowing));
        }
        if let Some(source) = other {
            chain.push(with_block(&chain[chain.len() - 1], source));
        }
        let leases: Vec<_> = chain.iter().map(verified).collect();
        for request in &requests {
            let decisions: Vec<_> = leases.iter()
                .map(|lease| authorize(lease, &request.access(), request.now()).map(|permit| permit.binding().set.clone()))
                .collect();
            for pair in decisions.windows(2) {
                // What the child allows, the parent allows, by the same set.
                if let Ok(set) = &pair[1] {
                    prop_assert_eq!(pair[0].as_ref(), Ok(set), "{:?}", request);
                }
            }
        }
        for pair in leases.windows(2) {
            prop_assert!(pair[1].effective_expiry() <= pair[0].effective_expiry());
        }
    }

    /// A decision from memory is the decision that would be made, at any time and in any order.
    #[test]
    fn remembered_decisions_are_the_ones_that_would_be_made(
        token in any_lease(),
        narrowing in any_narrowing(),
        other in proptest::option::of(any_other_check()),
        request in any_request(),
        minutes in proptest::collection::vec(0_i64..70, 8),
    ) {
        let token = narrowed(&token, &narrowing);
        let token = other.map_or(token.clone(), |source| with_block(&token, source));
        let warm = verified(&token);
        for minutes in minutes {
            let request = Request { minutes, ..request.clone() };
            let remembered = authorize(&warm, &request.access(), request.now()).map(|permit| permit.binding);
            let fresh = authorize(&verified(&token), &request.access(), request.now()).map(|permit| permit.binding);
            prop_assert_eq!(remembered, fresh);
        }
    }

    /// CONNECT refuses no host to which a request would be allowed.
    #[test]
    fn connect_refuses_nothing_that_a_request_may(
        parent in any_lease(),
        narrowing in any_narrowing(),
        requests in proptest::collection::vec(any_request(), 12),
    ) {
        let lease = verified(&narrowed(&parent, &narrowing));
        for request in &requests {
            if let Ok(permit) = authorize(&lease, &request.access(), request.now()) {
                let covered = covers_host(&lease, request.host, request.port, request.now());
                prop_assert_eq!(covered, Ok(permit.binding()));
            }
        }
    }
}
