use super::*;

fn read(secret: &str, text: &str, end: End) -> Spelling {
    let readings = Escapes::of(secret.as_bytes())
        .iter()
        .map(|escapes| escapes.read(secret.as_bytes(), text.as_bytes(), end));
    readings
        .max_by_key(|spelling| match spelling {
            Spelling::Whole(length) => length + 1,
            Spelling::Beginning => 1,
            Spelling::Other => 0,
        })
        .unwrap()
}

#[test]
fn each_byte_may_be_spelled_in_its_own_way() {
    let text = "a%5F&lowbar;\\u0062=5f%255fz and more";
    let spelled = text.len() - " and more".len();
    assert_eq!(read("a__b__z", text, End::Final), Spelling::Whole(spelled));
}

#[test]
fn a_secret_of_escapes_is_read_as_it_stands_and_as_it_is_escaped() {
    for (secret, text) in [
        ("a%25b/", "a%25b/"),
        ("a%25b/", "a%2525b%2F"),
        ("a%25b/", "a%252525b%252F"),
        ("a%25b/", "a%25b\\/"),
        ("a&amp;b", "a&amp;b"),
        ("a&amp;b", "a&amp;amp;b"),
        ("a=3Db", "a=3Db"),
        ("a=3Db", "a=3D3Db"),
        ("a\\\\b\"", "a\\\\b\""),
        ("a\\\\b\"", "a\\\\\\\\b\\\""),
        ("a\\b\"", "a\\\\\\\\b\\\\\\\""),
    ] {
        assert_eq!(
            read(secret, text, End::Final),
            Spelling::Whole(text.len()),
            "{secret} {text}"
        );
    }
}

#[test]
fn every_beginning_is_one_while_more_may_follow() {
    let text = "a%5F&lowbar;\\u0062=5f%25%35%66&amp;#x00007A;";
    assert_eq!(
        read("a__b__z", text, End::Open),
        Spelling::Whole(text.len())
    );
    for cut in 0..text.len() {
        assert_eq!(
            read("a__b__z", &text[..cut], End::Open),
            Spelling::Beginning,
            "{cut}"
        );
        // Without its semicolon the last number is one all the same.
        let last = match text.len() - cut {
            1 => Spelling::Whole(cut),
            _ => Spelling::Other,
        };
        assert_eq!(read("a__b__z", &text[..cut], End::Final), last, "{cut}");
    }
}

#[test]
fn what_spells_another_byte_is_none() {
    for text in [
        "%74",
        "%2574",
        "&#116;",
        "&#x74;",
        "&#1150;",
        "&#x730;",
        "&#00000115;",
        "&lowbar;",
        "=74",
        "\\u0074",
        "\\u0173",
        "\\\\\\\\u0073",
        "&#1155 ",
        "&#x73f;",
        "S",
    ] {
        assert_eq!(read("s", text, End::Open), Spelling::Other, "{text}");
    }
}

#[test]
fn a_number_without_its_semicolon_ends_with_its_digits() {
    for text in [
        "&#115&#107",
        "&#x73&#x6b",
        "&amp;#115&#0107",
        "&#115k",
        "&#115;&#107",
    ] {
        let spaced = format!("{text} ");
        let whole = Spelling::Whole(text.len());
        assert_eq!(read("sk", &spaced, End::Open), whole, "{text}");
        assert_eq!(read("sk", text, End::Final), whole, "{text}");
    }
    assert_eq!(read("sk", "&#115&#107", End::Open), Spelling::Beginning);
    assert_eq!(read("sk", "&#115&#10", End::Open), Spelling::Beginning);
    assert_eq!(read("sk", "&#1151&#107", End::Open), Spelling::Other);
}

#[test]
fn no_byte_takes_more_than_is_said() {
    let text = "s\r\n\r\ndata: &amp;#x0000073;";
    assert_eq!(text.len() - 1, LONGEST_BYTE);
    let secret = "0123s";
    let text = format!("0123{}", &text[1..]);
    assert_eq!(read(secret, &text, End::Final), Spelling::Whole(text.len()));
}

#[test]
fn names_are_sorted_by_their_byte() {
    assert!(NAMES.is_sorted_by_key(|(byte, _)| byte));
    assert_eq!(names(b'_').collect::<Vec<_>>(), ["lowbar", "UnderBar"]);
    assert_eq!(names(b'a').count(), 0);
}
