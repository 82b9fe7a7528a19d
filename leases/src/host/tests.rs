use proptest::prelude::*;

use super::*;

fn pattern(text: &str) -> HostPattern {
    HostPattern::parse(text).unwrap()
}

#[test]
fn a_name_matches_itself_on_its_port() {
    let stripe = pattern("api.stripe.com");
    assert!(stripe.matches("api.stripe.com", 443));
    assert!(!stripe.matches("api.stripe.com", 8443));
    assert!(!stripe.matches("api.stripe.com", 80));
    assert!(stripe.matches_by(Scheme::Http, "api.stripe.com", 80));
    assert!(!stripe.matches_by(Scheme::Http, "api.stripe.com", 443));
    let other_port = pattern("api.stripe.com:8443");
    assert!(other_port.matches("api.stripe.com", 8443));
    assert!(!other_port.matches("api.stripe.com", 443));
}

#[test]
fn no_prefix_or_suffix_of_a_name_passes_for_the_name() {
    for (allowed, host) in [
        ("api.openai.com", "api.openai.com.evil.io"),
        ("api.openai.com", "evilapi.openai.com"),
        ("api.openai.com", "openai.com"),
        ("api.openai.com", "api.openai.com."),
        ("api.openai.com", "API.openai.com"),
        ("*.github.com", "github.com"),
        ("*.github.com", "a.b.github.com"),
        ("*.github.com", ".github.com"),
        ("*.github.com", "evilgithub.com"),
        ("*.github.com", "a.github.com.evil.io"),
        ("**.github.com", "github.com"),
        ("**.github.com", "evilgithub.com"),
        ("**.github.com", "a..github.com"),
        ("**.github.com", ".github.com"),
        ("s3.*.amazonaws.com", "s3.amazonaws.com"),
        ("s3.*.amazonaws.com", "s3.a.b.amazonaws.com"),
        ("*.*.example.com", "a.example.com"),
        ("**.a.com", "a.com.b.com"),
    ] {
        assert!(!pattern(allowed).matches(host, 443), "{allowed} {host}");
    }
}

#[test]
fn only_a_pattern_without_wildcards_means_one_host() {
    for (text, exact) in [
        ("api.stripe.com", Some("api.stripe.com")),
        ("api.stripe.com:8443", Some("api.stripe.com")),
        ("[2001:db8::1]", Some("2001:db8::1")),
        ("*.stripe.com", None),
    ] {
        assert_eq!(pattern(text).exact(), exact, "{text}");
    }
}

#[test]
fn wildcards_stand_for_whole_labels() {
    for (allowed, host) in [
        ("*.github.com", "api.github.com"),
        ("**.github.com", "api.github.com"),
        ("**.github.com", "a.b.c.github.com"),
        ("s3.*.amazonaws.com", "s3.eu-west-1.amazonaws.com"),
        (
            "**.s3.*.amazonaws.com",
            "my.bucket.s3.eu-west-1.amazonaws.com",
        ),
        ("**.s3.**.com", "s3.s3.s3.com"),
        ("a.**.b.**.c", "a.b.b.b.c"),
        ("**.x.com", "x.com.x.com"),
    ] {
        assert!(pattern(allowed).matches(host, 443), "{allowed} {host}");
    }
}

#[test]
fn addresses_match_in_their_one_spelling() {
    assert!(pattern("192.0.2.1").matches("192.0.2.1", 443));
    assert!(pattern("[2001:db8::1]").matches("2001:db8::1", 443));
    assert!(pattern("[2001:db8::1]:8443").matches("[2001:db8::1]", 8443));
    assert!(!pattern("[2001:db8::1]").matches("2001:db8:0::1", 443));
    assert!(!pattern("**.x.com").matches("2001:db8::1", 443));
}

#[test]
fn every_other_spelling_is_refused() {
    for text in [
        "",
        ".",
        "a..b",
        ".a.com",
        "a.com.",
        "API.stripe.com",
        "a b.com",
        "a_b.com",
        "ä.com",
        "a.com/x",
        "a.com?",
        "user@a.com",
        "a。com",
        "a.com:",
        "a.com:0",
        "a.com:0443",
        "a.com:+443",
        "a.com:65536",
        "a.com:x",
        "a.com:443:443",
        "-a.com",
        "a-.com",
        "a*.com",
        "*a.com",
        "***.com",
        "a.*",
        "a.**",
        "*",
        "**",
        "*:443",
        "1.2.3",
        "01.2.3.4",
        "1.2.3.256",
        "127.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "*.2.3.4",
        "**.1",
        "a.0x1",
        "[::1",
        "::1",
        "[::01]",
        "[0:0:0:0:0:0:0:1]",
        "[1.2.3.4]",
        "[fe80::1%eth0]",
        "[::1]x",
        "a\0.com",
    ] {
        assert!(HostPattern::parse(text).is_err(), "{text:?}");
    }
    assert!(HostPattern::parse(&format!("{}.com", "a".repeat(64))).is_err());
    assert!(HostPattern::parse(&format!("{}com", "aaaaaaa.".repeat(32))).is_err());
    assert!(HostPattern::parse(&format!("{}.com", "a".repeat(63))).is_ok());
}

#[test]
fn every_host_is_said_on_purpose_only() {
    assert!(matches!(HostPattern::parse("**"), Err(HostError::Any(_))));
    let any = HostPattern::parse_any("*").unwrap();
    assert_eq!(any.as_str(), "**");
    assert!(any.matches("a.b.c", 443) && any.matches("::1", 443) && !any.matches("a", 22));
    assert!(any.overlaps(&pattern("a.com")) && pattern("[::1]").overlaps(&any));
    assert!(any.covers(&pattern("*.a.com")) && !pattern("*.a.com").covers(&any));
    assert_eq!(HostPattern::from_form(&any.form(), 0), Some(any));
}

#[test]
fn any_depth_covers_what_lies_at_least_one_label_below() {
    let all = pattern("**.a.com");
    for below in ["b.a.com", "*.a.com", "**.a.com", "*.b.a.com", "**.b.a.com"] {
        assert!(all.covers(&pattern(below)), "{below}");
    }
    for beside in ["a.com", "*.com", "**.com", "*.b.com"] {
        assert!(!all.covers(&pattern(beside)), "{beside}");
    }
    assert!(!pattern("*.a.com").covers(&all) && !pattern("b.a.com").covers(&pattern("*.a.com")));
}

#[test]
fn errors_name_the_host() {
    let error = HostPattern::parse("API.stripe.com")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "host `API.stripe.com` holds `A`: write lower-case letters, digits and `-`, names of other scripts as `xn--…`"
    );
}

#[test]
fn the_more_specific_pattern_has_the_greater_rank() {
    let ranks = [
        "**.com",
        "**.github.com",
        "*.api.github.com",
        "api.github.com",
    ]
    .map(|text| pattern(text).specificity());
    assert!(ranks.is_sorted());
}

#[test]
fn overlaps_are_found_between_wildcards() {
    for (left, right, expected) in [
        ("a.com", "a.com", true),
        ("a.com", "b.com", false),
        ("a.com", "a.com:8443", false),
        ("a.com:443", "a.com", true),
        ("a.com:80", "a.com", true),
        ("a.com:80", "a.com:443", false),
        ("*.a.com", "**.a.com", true),
        ("*.a.com", "*.*.a.com", false),
        ("**.a.com", "*.*.a.com", true),
        ("x.**.com", "**.y.com", true),
        ("*.b.com", "a.*.com", true),
        ("**.a.com", "**.b.com", false),
    ] {
        assert_eq!(
            pattern(left).overlaps(&pattern(right)),
            expected,
            "{left} {right}"
        );
        assert_eq!(
            pattern(right).overlaps(&pattern(left)),
            expected,
            "{right} {left}"
        );
    }
}

/// Few labels, so that patterns and hosts meet often.
fn any_label() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("a-b")]
}

fn any_host() -> impl Strategy<Value = String> {
    proptest::collection::vec(any_label(), 1..6).prop_map(|labels| labels.join("."))
}

fn any_pattern() -> impl Strategy<Value = HostPattern> {
    let label = prop_oneof![3 => any_label(), 1 => Just("*"), 1 => Just("**")];
    let port = prop_oneof![Just(""), Just(":443"), Just(":80"), Just(":8443")];
    (proptest::collection::vec(label, 0..5), any_label(), port).prop_map(
        |(mut labels, last, port)| {
            labels.push(last);
            pattern(&format!("{}{port}", labels.join(".")))
        },
    )
}

/// Whether labels match, by trying everything.
fn reference(pattern: &[&str], host: &[&str]) -> bool {
    match (pattern.split_first(), host.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), Some((_, after))) => {
            reference(rest, after) || reference(pattern, after)
        }
        (Some((&"*", rest)), Some((_, after))) => reference(rest, after),
        (Some((name, rest)), Some((label, after))) => name == label && reference(rest, after),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

proptest! {
    #[test]
    fn matching_is_what_trying_everything_says(pattern in any_pattern(), host in any_host()) {
        let text = pattern.as_str().split(':').next().unwrap();
        let labels: Vec<_> = text.split('.').collect();
        let expected = reference(&labels, &host.split('.').collect::<Vec<_>>());
        prop_assert_eq!(pattern.matches_name(&host), expected);
    }

    #[test]
    fn patterns_that_match_one_host_overlap(left in any_pattern(), right in any_pattern(), host in any_host()) {
        for (scheme, port) in [(Scheme::Https, 443), (Scheme::Http, 80), (Scheme::Https, 8443), (Scheme::Https, 80)] {
            if left.matches_by(scheme, &host, port) && right.matches_by(scheme, &host, port) {
                prop_assert!(left.overlaps(&right) && right.overlaps(&left));
            }
        }
    }

    #[test]
    fn what_a_pattern_covers_it_matches(left in any_pattern(), right in any_pattern(), host in any_host()) {
        prop_assert!(left.covers(&left));
        if left.covers(&right) && right.matches_name(&host) {
            prop_assert!(left.matches_name(&host));
        }
    }

    #[test]
    fn a_pattern_is_read_back_from_its_text_and_from_its_form(pattern in any_pattern()) {
        prop_assert_eq!(&HostPattern::parse(pattern.as_str()).unwrap(), &pattern);
        prop_assert_eq!(HostPattern::from_form(&pattern.form(), pattern.port().unwrap_or(0)), Some(pattern));
    }

    #[test]
    fn reading_never_panics(text in "\\PC{0,40}", regex in "[\\^$.*\\[\\]()?:+a\\\\]{0,30}") {
        let _ = HostPattern::parse(&text);
        let _ = HostPattern::from_form(&Form::Like(regex.clone()), 0);
        let _ = HostPattern::from_form(&Form::Under(regex), 0);
    }
}
