mod bulk;
mod public;

use super::*;

fn canonical(text: &str) -> String {
    Host::parse(text)
        .unwrap_or_else(|e| panic!("{text}: {e}"))
        .to_string()
}

#[test]
fn equal_spellings_of_a_name_have_one_form() {
    for text in [
        "api.example.com",
        "API.Example.COM",
        "api.example.com.",
        "ａpi.example.com",
        "api。example.com",
    ] {
        assert_eq!(canonical(text), "api.example.com", "{text}");
    }
    for text in [
        "bücher.example",
        "BÜCHER.example",
        "xn--bcher-kva.example",
        "XN--BCHER-KVA.EXAMPLE.",
    ] {
        assert_eq!(canonical(text), "xn--bcher-kva.example", "{text}");
    }
    assert_eq!(canonical("faß.example"), "xn--fa-hia.example");
    assert_eq!(
        canonical("r3---sn-abc.example.com"),
        "r3---sn-abc.example.com"
    );
    assert_eq!(canonical("localhost"), "localhost");
}

#[test]
fn what_is_not_a_name_is_refused() {
    let long_label = format!("{}.com", "a".repeat(64));
    let long_name = vec!["abcdefgh"; 29].join(".");
    for text in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a.com..",
        "a b",
        "a_b.com",
        "-a.com",
        "a-.com",
        "a\0.com",
        "a\r\n.com",
        "a%2ecom",
        "*",
        "a.com/x",
        "user@a.com",
        "a.com?",
        "a\\b",
        "a,b",
        "xn--a.com",
        "xn--example-.com",
        "exam\u{200d}ple.com",
        &long_label,
        &long_name,
    ] {
        assert!(Host::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_label_that_decodes_to_ascii_is_refused() {
    // RUSTSEC-2024-0421: `xn--example-` once decoded to `example`.
    assert!(matches!(
        Host::parse("xn--example-.com"),
        Err(HostError::NotAName(_))
    ));
}

#[test]
fn only_canonical_addresses_are_hosts() {
    for text in ["127.0.0.1", "8.8.8.8", "255.255.255.255"] {
        assert_eq!(Host::parse(text).unwrap().ip().unwrap().to_string(), text);
    }
    for text in ["2001:db8::1", "::1", "::", "::ffff:1.2.3.4", "fe80::1"] {
        assert_eq!(canonical(text), text);
        assert_eq!(canonical(&format!("[{text}]")), text);
    }
    for text in [
        "127.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.0.0.01",
        "1.2.3.256",
        "1.2.3.4.5",
        "1.2.3",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "example.1",
        "example.0x",
        "0x",
        "[127.0.0.1]",
        "[::1",
        "::1]",
        "[::1]x",
        "2001:DB8::1",
        "2001:0db8::1",
        "0:0:0:0:0:0:0:1",
        "2001:db8::1:0:0:0",
        "fe80::1%eth0",
        "fe80::1%25eth0",
        "::ffff:0102:0304",
        "[example.com]",
        "[]",
        ":",
    ] {
        assert!(
            matches!(Host::parse(text), Err(HostError::OddAddress(_))),
            "{text}: {:?}",
            Host::parse(text)
        );
    }
}

#[test]
fn a_port_has_one_spelling() {
    assert_eq!(Authority::parse("a.com:443").unwrap().port, Some(443));
    assert_eq!(Authority::parse("a.com").unwrap().port, None);
    assert_eq!(
        Authority::parse("[::1]:8443").unwrap().to_string(),
        "[::1]:8443"
    );
    assert_eq!(Authority::parse("[::1]").unwrap().to_string(), "[::1]");
    for text in [
        "a.com:",
        "a.com:0",
        "a.com:0443",
        "a.com:65536",
        "a.com:65979",
        "a.com:+443",
        "a.com:4 4",
        "a.com:x",
        "a.com:４４３",
    ] {
        assert!(
            matches!(Authority::parse(text), Err(HostError::Port(_))),
            "{text}"
        );
    }
    for text in ["::1:443", "::1", "[::1", "[::1]443", "a:1:2", "[a.com]:443"] {
        assert!(
            matches!(Authority::parse(text), Err(HostError::OddAddress(_))),
            "{text}"
        );
    }
    assert!(matches!(
        Authority::parse("u:p@a.com"),
        Err(HostError::Port(_))
    ));
    assert!(matches!(
        Authority::parse("u@a.com:443"),
        Err(HostError::Extra(_))
    ));
}

#[test]
fn a_rule_matches_whole_labels_at_its_port_and_scheme() {
    let rule = |text: &str| HostRule::parse(text).unwrap();
    assert!(rule("api.openai.com").matches(Scheme::Https, "api.openai.com", 443));
    for (scheme, host, port) in [
        (Scheme::Http, "api.openai.com", 443),
        (Scheme::Https, "api.openai.com", 8443),
        (Scheme::Https, "api.openai.com.evil.io", 443),
        (Scheme::Https, "evilapi.openai.com", 443),
        (Scheme::Https, "openai.com", 443),
    ] {
        assert!(
            !rule("api.openai.com").matches(scheme, host, port),
            "{host}:{port}"
        );
    }
    assert!(rule("http://a.example.com").matches(Scheme::Http, "a.example.com", 80));
    assert!(rule("https://A.example.com:8443").matches(Scheme::Https, "a.example.com", 8443));
    assert!(rule("*.github.com").matches_name("api.github.com"));
    for host in [
        "github.com",
        "a.b.github.com",
        "evilgithub.com",
        ".github.com",
        "api.github.com.evil",
    ] {
        assert!(!rule("*.github.com").matches_name(host), "{host}");
    }
    assert!(rule("**.amazonaws.com").matches_name("b.s3.eu-west-1.amazonaws.com"));
    assert!(!rule("**.amazonaws.com").matches_name("amazonaws.com"));
    assert_eq!(rule("**.Amazonaws.com").pattern(), "**.amazonaws.com");
    assert_eq!(rule("http://*.a.com:81").to_string(), "http://*.a.com:81");
}

#[test]
fn a_wildcard_stands_only_as_the_first_label_of_a_longer_name() {
    for text in [
        "*",
        "**",
        "*.com",
        "**.com",
        "a.*.com",
        "a*.b.com",
        "***.a.com",
        "*.1.2.3.4",
        "*.*.a.com",
    ] {
        assert!(HostRule::parse(text).is_err(), "{text}");
    }
    assert!(matches!(
        HostRule::parse("ftp://a.com"),
        Err(HostError::Scheme(_))
    ));
    assert!(matches!(
        HostRule::parse("https://a.com/"),
        Err(HostError::Extra(_))
    ));
}

#[test]
fn rules_overlap_when_a_host_is_meant_by_both() {
    let overlap = |a: &str, b: &str| {
        let (a, b) = (HostRule::parse(a).unwrap(), HostRule::parse(b).unwrap());
        assert_eq!(a.overlaps(&b), b.overlaps(&a));
        a.overlaps(&b)
    };
    assert!(overlap("a.x.com", "a.x.com"));
    assert!(overlap("*.x.com", "a.x.com"));
    assert!(overlap("**.x.com", "*.x.com"));
    assert!(overlap("**.x.com", "*.b.x.com"));
    assert!(overlap("**.b.x.com", "**.x.com"));
    assert!(!overlap("*.x.com", "*.b.x.com"));
    assert!(!overlap("*.x.com", "x.com"));
    assert!(!overlap("**.x.com", "**.evilx.com"));
}

#[test]
fn an_error_escapes_what_it_quotes() {
    let text = Host::parse("a\u{1b}[31m\n.com").unwrap_err().to_string();
    assert!(!text.contains('\u{1b}') && !text.contains('\n'), "{text}");
}

proptest::proptest! {
    #[test]
    fn the_canonical_form_is_its_own(text in "\\PC{0,40}") {
        if let Ok(host) = Host::parse(&text) {
            proptest::prop_assert_eq!(Host::parse(host.as_str()).unwrap(), host);
        }
    }

    #[test]
    fn an_authority_reads_back(name in "[a-z0-9.:\\[\\]-]{1,30}", port in 1u16..) {
        if let Ok(authority) = Authority::parse(&format!("{name}:{port}")) {
            proptest::prop_assert_eq!(Authority::parse(&authority.to_string()).unwrap(), authority);
        }
    }
}
