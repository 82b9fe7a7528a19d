//! Reading JSON from strangers: bounded, one meaning, and no value echoed in a mistake's text.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::error::ApiError;
use crate::problem::Code;
use crate::text::excerpt;

/// Parses a body.
///
/// The text must be UTF-8, at most 32 levels deep, with at most 100,000 values, and must not have a key twice in one object:
/// two readers of a doubled key may each take the other one.
///
/// # Errors
/// [`Code::InvalidJson`] if it is not such a text, [`Code::UnknownField`] or [`Code::InvalidRequest`] with the field's path if it does
/// not have the shape of `T`. No text repeats a value of the body.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(body).map_err(not_utf8)?;
    check_shape(text)?;
    // Serde would take a list for an object, its values in the order of the fields, and see no unknown one.
    if !text.trim_start().starts_with('{') {
        let detail = "the body is no object; send its fields by name";
        return Err(ApiError::new(Code::InvalidRequest, detail));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        wrong_shape(&path, &error.into_inner())
    })
}

fn not_utf8(error: std::str::Utf8Error) -> ApiError {
    let at = error.valid_up_to();
    ApiError::new(
        Code::InvalidJson,
        format!("the body is not UTF-8 at byte {at}; send JSON in UTF-8"),
    )
}

fn check_shape(text: &str) -> Result<(), ApiError> {
    let mut values = 0;
    let mut reader = serde_json::Deserializer::from_str(text);
    let shape = Shape {
        depth: 0,
        values: &mut values,
    };
    shape
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| {
            let detail = format!(
                "the body is not acceptable JSON: {}; mend it and send it again",
                without_values(&error.to_string())
            );
            ApiError::new(Code::InvalidJson, detail)
        })
}

/// Turns serde's text into ours. serde quotes what it found (`invalid type: string "sk_live_..."`), so only what it expected is kept.
fn wrong_shape(path: &str, error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    let code = if text.starts_with("unknown field") {
        Code::UnknownField
    } else {
        Code::InvalidRequest
    };
    let place = if path == "." {
        String::new()
    } else {
        format!("{}: ", path.escape_default())
    };
    let text = without_values(&text);
    let says_what_to_send = text.contains("expected") || text.starts_with("missing field");
    let hint = if says_what_to_send {
        ""
    } else {
        "; GET /openapi.json says what it takes"
    };
    ApiError::new(code, format!("{place}{text}{hint}"))
}

fn without_values(text: &str) -> String {
    let quotes_input = text.starts_with("invalid type")
        || text.starts_with("invalid value")
        || text.starts_with("invalid length");
    match text.rsplit_once(", expected ") {
        Some((_, expected)) if quotes_input => format!("expected {expected}"),
        _ => text.to_owned(),
    }
}

/// Walks a document without keeping anything but the keys of the objects it is in.
struct Shape<'a> {
    depth: usize,
    values: &'a mut usize,
}

impl Shape<'_> {
    fn enter<E: de::Error>(&mut self) -> Result<Shape<'_>, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!(
                "nested deeper than {MAX_DEPTH} levels"
            )));
        }
        Ok(Shape {
            depth: self.depth + 1,
            values: &mut *self.values,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Shape<'_> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        *self.values += 1;
        if *self.values > MAX_VALUES {
            return Err(de::Error::custom(format_args!(
                "more than {MAX_VALUES} values"
            )));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shape<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.enter()?)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(de::Error::custom(format_args!(
                    "duplicate key {}",
                    excerpt(&key)
                )));
            }
            seen.insert(key);
            map.next_value_seed(self.enter()?)?;
        }
        Ok(())
    }
}

/// A field that may be absent (`None`), `null` (`Some(None)`) or a value.
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things in a PATCH"
)]
pub(crate) fn nullable<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: de::Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// A list of names that may be absent, for all there are, and is not empty: whoever computed an empty one meant none.
pub(crate) fn names<'de, D: de::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<String>, D::Error> {
    let names = Vec::deserialize(deserializer)?;
    if names.is_empty() {
        let expected = "a list of one name or more; leave the field out for all of them";
        return Err(de::Error::invalid_length(0, &expected));
    }
    Ok(names)
}

const MAX_DEPTH: usize = 32;
const MAX_VALUES: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        #[expect(dead_code, reason = "only its parsing is of interest")]
        name: String,
        #[serde(default)]
        #[expect(dead_code, reason = "only its parsing is of interest")]
        list: Vec<u32>,
    }

    fn refused(body: &[u8]) -> (Code, String) {
        let error = parse::<Thing>(body).expect_err("must be refused");
        (error.code(), error.detail().to_owned())
    }

    #[test]
    fn a_proper_body_is_read() {
        parse::<Thing>(br#"{"name": "a", "list": [1, 2]}"#).unwrap();
    }

    #[test]
    fn an_unknown_field_is_named() {
        let (code, detail) = refused(br#"{"name": "a", "org_id": "org_x"}"#);
        assert_eq!(code, Code::UnknownField);
        assert!(
            detail.contains("`org_id`") && !detail.contains("org_x"),
            "{detail}"
        );
    }

    #[test]
    fn a_mistake_names_the_path_and_repeats_no_value() {
        let (code, detail) = refused(br#"{"name": {"hunter2": 1}, "list": []}"#);
        assert_eq!(code, Code::InvalidRequest);
        assert_eq!(detail, "name: expected a string at line 1 column 9");
        let (_, detail) = refused(br#"{"name": "a", "list": [1, "sk_live_hunter2, expected x"]}"#);
        assert!(detail.starts_with("list[1]: expected u32"), "{detail}");
        for whole in [&br#""sk_live_hunter2""#[..], br#"["sk_live_hunter2", []]"#] {
            let (code, detail) = refused(whole);
            assert_eq!(code, Code::InvalidRequest);
            assert!(!detail.contains("hunter2"), "{detail}");
        }
    }

    #[test]
    fn a_doubled_key_is_refused_at_any_depth() {
        let (code, detail) = refused(br#"{"name": "a", "x": [{"k": 1, "k": 2}]}"#);
        assert_eq!(code, Code::InvalidJson);
        assert!(detail.contains("duplicate key `k`"), "{detail}");
    }

    #[test]
    fn bombs_are_refused_without_a_stack_overflow() {
        let deep = "[".repeat(100_000);
        assert_eq!(refused(deep.as_bytes()).0, Code::InvalidJson);
        let wide = format!("[{}1]", "1,".repeat(MAX_VALUES));
        let (code, detail) = refused(wide.as_bytes());
        assert_eq!(code, Code::InvalidJson);
        assert!(detail.contains("more than 100000 values"), "{detail}");
    }

    #[test]
    fn text_that_is_no_json_is_refused() {
        for body in [
            &b"\xff\xfe"[..],
            b"",
            b"{",
            b"{} {}",
            br#"{"name": "\ud800"}"#,
            b"{\"name\": \"a\x00\"}",
        ] {
            assert_eq!(
                refused(body).0,
                Code::InvalidJson,
                "{}",
                body.escape_ascii()
            );
        }
    }
}
