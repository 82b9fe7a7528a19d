use super::*;

fn scope(json: &str) -> Scope {
    serde_json::from_str(json).unwrap()
}

#[test]
fn the_constraints_object_is_read_and_written() {
    let json = r#"{"hosts":["api.stripe.com","*.example.com:8443"],"methods":["GET"],"paths":["/v1/**"],"cidrs":["10.0.0.0/8"],"time_window":{"after":"08:00","before":"20:00","timezone":"UTC"},"cleartext":true,"aws":{"services":["s3"],"presigned":true}}"#;
    assert_eq!(serde_json::to_string(&scope(json)).unwrap(), json);
    assert_eq!(serde_json::to_string(&Scope::default()).unwrap(), "{}");
    assert!(scope("{}").is_unlimited());
    assert!(scope(r#"{"time_window": null, "hosts": []}"#).is_unlimited());
    assert!(!scope(r#"{"cleartext": true}"#).is_unlimited());
}

#[test]
fn every_mistake_names_its_field() {
    let long = format!(r#"{{"methods": [{}]}}"#, vec!["\"GET\""; 65].join(","));
    for (json, expected) in [
        (r#"{"host": ["a.com"]}"#, "unknown field `host`"),
        (r#"{"hosts": "a.com"}"#, "hosts: "),
        (
            r#"{"hosts": ["a.com", "B.com"]}"#,
            "hosts[1]: host `B.com` holds `B`",
        ),
        (r#"{"hosts": ["*"]}"#, "hosts[0]: host `*` is every host"),
        (
            r#"{"methods": ["get"]}"#,
            "methods[0]: method `get` is written in upper case",
        ),
        (
            r#"{"methods": ["TRACE"]}"#,
            "methods[0]: method TRACE is never allowed",
        ),
        (
            r#"{"methods": ["connect"]}"#,
            "methods[0]: method CONNECT is never allowed",
        ),
        (
            r#"{"methods": ["FETCH"]}"#,
            "methods[0]: `FETCH` is no method",
        ),
        (
            r#"{"methods": ["GET "]}"#,
            "methods[0]: `GET ` is no method",
        ),
        (
            r#"{"paths": ["v1"]}"#,
            "paths[0]: path `v1` does not begin with `/`",
        ),
        (
            r#"{"cidrs": ["10.0.0.0/33"]}"#,
            "cidrs[0]: `10.0.0.0/33` is no network",
        ),
        (r#"{"cidrs": ["10.0.0.1/8"]}"#, "did you mean 10.0.0.0/8?"),
        (
            r#"{"time_window": {"after": "x", "before": "08:00"}}"#,
            "time_window: `x` is no time of day",
        ),
        (long.as_str(), "methods: at most 64 entries"),
    ] {
        let error = serde_json::from_str::<Scope>(json).unwrap_err().to_string();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn a_single_address_is_a_network_of_one() {
    assert_eq!(parse_cidr("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
    assert_eq!(
        parse_cidr("2001:db8::1").unwrap().to_string(),
        "2001:db8::1/128"
    );
}

#[test]
fn a_scope_takes_clients_of_its_networks_or_all() {
    for (json, client, is_taken) in [
        ("{}", "192.0.2.1", true),
        (
            r#"{"cidrs": ["10.0.0.0/8", "192.0.2.0/24"]}"#,
            "192.0.2.1",
            true,
        ),
        (r#"{"cidrs": ["10.0.0.0/8"]}"#, "192.0.2.1", false),
        (r#"{"cidrs": ["10.0.0.0/8"]}"#, "::ffff:10.1.2.3", true),
    ] {
        let client = client.parse().unwrap();
        assert_eq!(
            scope(json).takes_client(client),
            is_taken,
            "{json} {client}"
        );
    }
}

#[test]
fn keys_are_a_star_or_a_list() {
    let keys: Keys = serde_json::from_str("\"*\"").unwrap();
    assert!(keys.allows("ANY"));
    assert_eq!(serde_json::to_string(&keys).unwrap(), "\"*\"");
    let keys: Keys = serde_json::from_str(r#"["A", "B"]"#).unwrap();
    assert!(keys.allows("A") && !keys.allows("a") && !keys.allows("*"));
    assert_eq!(serde_json::to_string(&keys).unwrap(), r#"["A","B"]"#);
    assert!(!Keys::Only(vec!["*".to_owned()]).allows("A"));
    for json in ["\"A\"", "{}", "1", "[1]"] {
        let error = serde_json::from_str::<Keys>(json).unwrap_err().to_string();
        assert!(
            error.contains("keys are \"*\" or a list of names"),
            "{json}: {error}"
        );
    }
}

#[test]
fn keys_are_shown_as_they_are_written() {
    let only = Keys::Only(vec!["A".to_owned(), "B".to_owned()]);
    assert_eq!([Keys::All.to_string(), only.to_string()], ["*", "A, B"]);
}

#[test]
fn kinds_and_actions_are_read_and_written() {
    for action in Action::ALL {
        assert_eq!(action.as_str().parse::<Action>().unwrap(), action);
        assert_eq!(
            serde_json::to_string(&action).unwrap(),
            format!("\"{action}\"")
        );
    }
    for kind in Kind::ALL {
        assert_eq!(kind.as_str().parse::<Kind>().unwrap(), kind);
        assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{kind}\""));
    }
    let error = "use".parse::<Action>().unwrap_err().to_string();
    assert_eq!(
        error,
        "`use` is no action; known are proxy_use, mint_workflow_lease, export_plaintext, read, write, delete"
    );
}

#[test]
fn a_narrower_scope_is_known() {
    let parent = r#"{"hosts": ["*.github.com"], "methods": ["GET", "POST"], "paths": ["/repos/**"], "cidrs": ["10.0.0.0/8"]}"#;
    for (child, expected) in [
        (parent, true),
        (
            r#"{"hosts": ["api.github.com"], "methods": ["GET"], "paths": ["/repos/a/*"], "cidrs": ["10.1.0.0/16"]}"#,
            true,
        ),
        (
            r#"{"hosts": ["api.github.com"], "methods": ["GET"], "paths": ["/repos/a/*"]}"#,
            false,
        ),
        (
            r#"{"hosts": ["github.com"], "methods": ["GET"], "paths": ["/repos/a"], "cidrs": ["10.1.0.0/16"]}"#,
            false,
        ),
        (
            r#"{"hosts": ["api.github.com"], "methods": ["PUT"], "paths": ["/repos/a"], "cidrs": ["10.1.0.0/16"]}"#,
            false,
        ),
        (
            r#"{"hosts": ["api.github.com"], "methods": ["GET"], "paths": ["/user"], "cidrs": ["10.1.0.0/16"]}"#,
            false,
        ),
        (
            r#"{"hosts": ["api.github.com"], "methods": ["GET"], "paths": ["/repos/a"], "cidrs": ["11.0.0.0/8"]}"#,
            false,
        ),
    ] {
        assert_eq!(scope(child).narrows(&scope(parent)), expected, "{child}");
    }
    assert!(scope(parent).narrows(&Scope::default()));
    assert!(!Scope::default().narrows(&scope(parent)));
    assert!(!scope(r#"{"cleartext": true}"#).narrows(&Scope::default()));
    let window = scope(r#"{"time_window": {"after": "08:00", "before": "20:00"}}"#);
    assert!(window.narrows(&window) && window.narrows(&Scope::default()));
    assert!(!Scope::default().narrows(&window));
}
