use proptest::prelude::*;

use super::*;

fn glob(text: &str) -> PathGlob {
    PathGlob::parse(text).unwrap()
}

#[test]
fn globs_match_what_their_grammar_says() {
    for (text, path, expected) in [
        ("/v1/charges", "/v1/charges", true),
        ("/v1/charges", "/v1/charges/", false),
        ("/v1/charges", "/v1/Charges", false),
        ("/v1/charges", "/v1/charges/ch_1", false),
        ("/v1/charges/*", "/v1/charges/ch_1", true),
        ("/v1/charges/*", "/v1/charges/", false),
        ("/v1/charges/*", "/v1/charges", false),
        ("/v1/charges/*", "/v1/charges/ch_1/refund", false),
        ("/repos/*/issues", "/repos/a/issues", true),
        ("/repos/*/issues", "/repos/a/b/issues", false),
        ("/repos/*/issues", "/repos/a%2Fb/issues", true),
        ("/repos/*/issues", "/repos//issues", false),
        ("/v1/ch_*", "/v1/ch_", true),
        ("/v1/ch_*", "/v1/ch_1", true),
        ("/v1/ch_*", "/v1/ch_1/x", false),
        ("/v1/*_*x", "/v1/a_b_xx", true),
        ("/v1/*_*x", "/v1/a_b_xy", false),
        ("/v1/**", "/v1", true),
        ("/v1/**", "/v1/", true),
        ("/v1/**", "/v1/a/b/c", true),
        ("/v1/**", "/v10", false),
        ("/v1/**", "/v1x/a", false),
        ("/**", "/", true),
        ("/**", "/a/b", true),
        ("/", "/", true),
        ("/", "/a", false),
        ("/a/**/z", "/a/z", true),
        ("/a/**/z", "/a/b/c/z", true),
        ("/a/**/z", "/a/b/c/z/y", false),
        ("/a/**/b/**/c", "/a/x/b/y/b/c", true),
        ("/a.b", "/aXb", false),
        ("/a+(b)$", "/a+(b)$", true),
        ("/a", "a", false),
        ("/a", "", false),
        ("/**", "", false),
        ("/v1/x", "/v1/x?y=1", false),
    ] {
        assert_eq!(glob(text).matches(path), expected, "{text} {path}");
    }
}

#[test]
fn what_the_grammar_does_not_hold_is_refused() {
    for text in [
        "", "v1", "*", "**", "/a//b", "//", "/./a", "/a/..", "/a/../b", "/a**", "/**a", "/***",
        "/**/**", "/a?b", "/[a-z]", "/{a,b}", "/a#b", "/a\\b", "/a b", "/ä", "/a\0", "/a\"b",
        "/a<b", "/a^b", "/a|b", "/a`b", "/%", "/%2", "/%2f", "/%2F", "/%5C", "/%00", "/%41",
        "/%2e", "/%zz", "/%7e", "/%C3%B",
    ] {
        assert!(PathGlob::parse(text).is_err(), "{text:?}");
    }
    assert!(PathGlob::parse(&format!("/{}", "a".repeat(512))).is_err());
    assert!(PathGlob::parse(&"/a".repeat(65)).is_err());
    assert!(PathGlob::parse(&"/a".repeat(64)).is_ok());
    assert!(PathGlob::parse("/%C3%BC/%20x").is_ok());
}

#[test]
fn errors_name_the_path() {
    assert_eq!(
        PathGlob::parse("/a/../b").unwrap_err().to_string(),
        "path `/a/../b` has an empty segment, or a segment `.` or `..`, which no request has"
    );
}

#[test]
fn stars_without_end_take_no_time_without_end() {
    let stars = glob(&format!("/{}b", "*a".repeat(200)));
    assert!(!stars.matches(&format!("/{}", "a".repeat(8000))));
    let deep = glob(&format!("{}/b", "/**/a".repeat(30)));
    assert!(!deep.matches(&"/a".repeat(4000)));
}

/// Whether bytes match, by trying everything.
fn reference_part(pattern: &[u8], segment: &[u8]) -> bool {
    match (pattern.split_first(), segment.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            reference_part(rest, segment)
                || segment
                    .split_first()
                    .is_some_and(|(_, after)| reference_part(pattern, after))
        }
        (Some((byte, rest)), Some((other, after))) => byte == other && reference_part(rest, after),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn reference(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) => {
            reference(rest, path)
                || path
                    .split_first()
                    .is_some_and(|(_, after)| reference(pattern, after))
        }
        (Some((part, rest)), Some((segment, after))) => {
            (*part != "*" || !segment.is_empty())
                && reference_part(part.as_bytes(), segment.as_bytes())
                && reference(rest, after)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

pub(crate) fn any_glob() -> impl Strategy<Value = PathGlob> {
    let segment = prop_oneof![
        3 => "[ab*.]{1,3}".prop_filter("a segment", |s| !s.contains("**") && s != "." && s != ".."),
        1 => Just("**".to_owned()),
        1 => Just("*".to_owned()),
    ];
    (proptest::collection::vec(segment, 1..5), any::<bool>()).prop_map(|(mut segments, ends)| {
        segments.dedup_by(|a, b| a == "**" && b == "**");
        if ends {
            segments.push(String::new());
        }
        glob(&format!("/{}", segments.join("/")))
    })
}

fn any_path() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab.]{0,3}", 1..6)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

proptest! {
    #[test]
    fn matching_is_what_trying_everything_says(glob in any_glob(), path in any_path()) {
        let segments: Vec<_> = glob.as_str()[1..].split('/').collect();
        let expected = reference(&segments, &path[1..].split('/').collect::<Vec<_>>());
        prop_assert_eq!(glob.matches(&path), expected);
    }

    #[test]
    fn what_a_glob_covers_it_matches(left in any_glob(), right in any_glob(), path in any_path()) {
        prop_assert!(left.covers(&left));
        if left.covers(&right) && right.matches(&path) {
            prop_assert!(left.matches(&path), "{:?} {:?}", left, right);
        }
    }

    #[test]
    fn a_glob_is_read_back_from_its_text_and_from_its_form(glob in any_glob()) {
        prop_assert_eq!(&PathGlob::parse(glob.as_str()).unwrap(), &glob);
        prop_assert_eq!(PathGlob::from_form(&glob.form()), Some(glob));
    }

    #[test]
    fn reading_never_panics(text in "\\PC{0,40}", regex in "[\\^$.*\\[\\]()?:+a/\\\\ä]{0,30}") {
        let _ = PathGlob::parse(&text);
        let _ = PathGlob::from_form(&Form::Like(format!("^{regex}$")));
        let _ = PathGlob::from_form(&Form::Under(regex));
    }
}
