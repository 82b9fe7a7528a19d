//! `form` and `json`: a field of the body at a declared place. The rest of the body stays byte by byte.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::query;
use crate::template::JsonPointer;

/// The largest body into which a field is set, in bytes.
pub const LONGEST_FILLED_BODY: usize = 1024 * 1024;

/// A field with its value, ready to be set.
pub(super) enum Field {
    /// `name=value`, percent-encoded, beside the name.
    Form {
        name: String,
        pair: Zeroizing<String>,
    },
    /// The value as a JSON string, quotes included.
    Json {
        pointer: JsonPointer,
        text: Zeroizing<String>,
    },
}

/// Why a body takes no credential. Its texts name the place, never what stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldRefusal {
    /// The body is not of the kind in which the provider reads its key.
    #[error(
        "the provider reads its credential in {slot} of the body; send the body as {wanted}, uncompressed"
    )]
    ContentType {
        /// The slot.
        slot: String,
        /// The media type.
        wanted: &'static str,
    },
    /// The body is no JSON, or one of its objects names a member twice.
    #[error(
        "the body is not strict JSON ({why}); send one JSON object in which no member is named twice"
    )]
    NotStrictJson {
        /// What is wrong, without the body's text.
        why: &'static str,
    },
    /// The object that should hold the field is not there.
    #[error("the body has no object that could hold {slot}; send the objects on the way to it")]
    NoParent {
        /// The slot.
        slot: String,
    },
    /// The body is no text.
    #[error("the body is not UTF-8 text; send it as {wanted}")]
    NotText {
        /// The media type.
        wanted: &'static str,
    },
}

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

impl Field {
    pub(super) fn form(name: &str, value: &[u8]) -> Self {
        Self::Form {
            name: name.to_owned(),
            pair: query::pair(name, value),
        }
    }

    /// `value` is UTF-8 without controls, as [`why_not_a_field_value`] says.
    pub(super) fn json(pointer: &JsonPointer, value: &[u8]) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(value.len() * 2 + 2));
        text.push('"');
        for character in String::from_utf8_lossy(value).chars() {
            if matches!(character, '"' | '\\') {
                text.push('\\');
            }
            text.push(character);
        }
        text.push('"');
        Self::Json {
            pointer: pointer.clone(),
            text,
        }
    }

    /// The body with the field set once.
    pub(super) fn fill(&self, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, FieldRefusal> {
        let wanted = self.media_type();
        let text = std::str::from_utf8(body).map_err(|_| FieldRefusal::NotText { wanted })?;
        match self {
            Self::Form { name, pair } => Ok(fill_form(text, name, pair)),
            Self::Json {
                pointer,
                text: value,
            } => fill_json(text, pointer, value),
        }
    }

    /// Whether a body of this Content-Type is one in which the field stands.
    pub(super) fn takes(&self, content_type: &str) -> bool {
        let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let media_type = media_type.trim().to_ascii_lowercase();
        let is_kind = match self {
            Self::Form { .. } => media_type == FORM,
            Self::Json { .. } => {
                let suffixed = media_type.strip_prefix("application/");
                media_type == JSON || suffixed.is_some_and(|kind| kind.ends_with("+json"))
            }
        };
        is_kind && is_utf8(parameters)
    }

    pub(super) fn media_type(&self) -> &'static str {
        match self {
            Self::Form { .. } => FORM,
            Self::Json { .. } => JSON,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form { name, .. } => write!(f, "the form field `{name}`"),
            Self::Json { pointer, .. } => write!(f, "the JSON field `{pointer}`"),
        }
    }
}

/// No parameter but `charset=utf-8`: in another charset a server would read other fields than we do.
fn is_utf8(parameters: &str) -> bool {
    let mut parameters = parameters.split(';').map(str::trim);
    parameters.all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        parameter.is_empty()
            || (name.eq_ignore_ascii_case("charset")
                && value.trim_matches('"').eq_ignore_ascii_case("utf-8"))
    })
}

fn fill_form(body: &str, name: &str, pair: &str) -> Zeroizing<Vec<u8>> {
    let without = query::without(body, &[name]);
    let kept = without.as_deref().unwrap_or(body);
    let mut parts: Vec<&str> = kept.split('&').filter(|pair| !pair.is_empty()).collect();
    parts.push(pair);
    Zeroizing::new(parts.join("&").into_bytes())
}

fn fill_json(
    body: &str,
    pointer: &JsonPointer,
    value: &str,
) -> Result<Zeroizing<Vec<u8>>, FieldRefusal> {
    let not_strict = |why| FieldRefusal::NotStrictJson { why };
    let mut reader = serde_json::Deserializer::from_str(body);
    Strict
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| not_strict(why(&error)))?;
    let no_parent = || FieldRefusal::NoParent {
        slot: format!("the JSON field `{pointer}`"),
    };
    let (last, parents) = pointer
        .names()
        .split_last()
        .expect("a pointer names a member");
    let mut object: &RawValue =
        serde_json::from_str(body).map_err(|error| not_strict(why(&error)))?;
    for name in parents {
        object = members(object)
            .and_then(|mut members| members.remove(name.as_str()))
            .ok_or_else(no_parent)?;
    }
    let members = members(object).ok_or_else(no_parent)?;
    let (at, end, name) = if let Some(old) = members.get(last.as_str()) {
        let at = offset(body, old);
        (at, at + old.get().len(), None)
    } else {
        let at = offset(body, object) + 1;
        (at, at, Some(last))
    };
    let name = name.map(|name| serde_json::Value::from(name.as_str()).to_string() + ":");
    let comma = if name.is_some() && !members.is_empty() {
        ","
    } else {
        ""
    };
    let parts = [
        &body[..at],
        name.as_deref().unwrap_or(""),
        value,
        comma,
        &body[end..],
    ];
    // `concat` sizes its buffer once, so no half-filled copy is left behind.
    Ok(Zeroizing::new(parts.concat().into_bytes()))
}

/// The members of an object as they are written; `None` if it is none.
fn members(object: &RawValue) -> Option<BTreeMap<Cow<'_, str>, &RawValue>> {
    serde_json::from_str(object.get()).ok()
}

/// Where a part of `body` begins in it.
fn offset(body: &str, part: &RawValue) -> usize {
    part.get().as_ptr() as usize - body.as_ptr() as usize
}

/// What serde says of a document, without the document's text.
fn why(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Data => TWICE,
        serde_json::error::Category::Eof => "it breaks off",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
            "it cannot be parsed"
        }
    }
}

const TWICE: &str = "an object names a member twice";

/// Reads any JSON and refuses an object that names a member twice, at any depth: servers differ in which one counts.
/// Depth is bounded by the parser, at 128.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
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

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<Name<'de>>()? {
            if !names.insert(name.0) {
                return Err(de::Error::custom(TWICE));
            }
            map.next_value_seed(Self)?;
        }
        Ok(())
    }
}

/// A member's name, borrowed where it holds no escape.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// Why a key's value cannot stand in a body's field, if it cannot.
pub(super) fn why_not_a_field_value(value: &[u8]) -> Option<&'static str> {
    match std::str::from_utf8(value) {
        Err(_) => Some("it is not UTF-8"),
        Ok("") => Some("it is empty"),
        Ok(text) if text.chars().any(char::is_control) => {
            Some("it holds a line break or another control character")
        }
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(names: &[&str]) -> JsonPointer {
        JsonPointer(names.iter().map(|&name| name.to_owned()).collect())
    }

    fn json(names: &[&str], body: &str) -> Result<String, FieldRefusal> {
        let field = Field::json(&pointer(names), b"K\"\\");
        let filled = field.fill(body.as_bytes())?;
        Ok(String::from_utf8(filled.to_vec()).unwrap())
    }

    #[test]
    fn a_body_that_is_no_text_is_told_what_it_should_be() {
        for (field, wanted) in [
            (
                Field::form("key", b"k"),
                "application/x-www-form-urlencoded",
            ),
            (Field::json(&pointer(&["key"]), b"k"), "application/json"),
        ] {
            let refusal = field.fill(b"\xff").unwrap_err();
            assert!(refusal.to_string().contains(wanted), "{refusal}");
        }
    }

    #[test]
    fn a_field_takes_any_text_without_controls() {
        for value in ["k", "K\"\\ &=+", "caf\u{e9}"] {
            assert_eq!(why_not_a_field_value(value.as_bytes()), None, "{value}");
        }
        for value in [&b""[..], b"a\nb", b"a\0", b"\xff"] {
            assert!(why_not_a_field_value(value).is_some(), "{value:?}");
        }
    }

    #[test]
    fn a_json_member_is_set_and_the_rest_stays_byte_by_byte() {
        for (names, body, filled) in [
            (
                &["key"][..],
                r#"{"key": "x", "n": 1.10}"#,
                r#"{"key": "K\"\\", "n": 1.10}"#,
            ),
            (
                &["key"],
                r#"{"n":12345678901234567890123}"#,
                r#"{"key":"K\"\\","n":12345678901234567890123}"#,
            ),
            (&["key"], "{}", r#"{"key":"K\"\\"}"#),
            (
                &["key"],
                r#" {"a":1 , "key":{"b":[1,2]}} "#,
                r#" {"a":1 , "key":"K\"\\"} "#,
            ),
            (
                &["a", "b"],
                r#"{"a":{"c":null}}"#,
                r#"{"a":{"b":"K\"\\","c":null}}"#,
            ),
            (
                &["a", "b"],
                r#"{"a":{"\u0062":1}}"#,
                r#"{"a":{"\u0062":"K\"\\"}}"#,
            ),
        ] {
            assert_eq!(json(names, body).unwrap(), filled);
        }
    }

    #[test]
    fn what_is_not_strict_json_is_refused() {
        for body in [
            "",
            "nonsense",
            r#"{"key":1"#,
            r#"{"key":1} x"#,
            "\u{feff}{}",
            r#"{"key":1,"key":2}"#,
            r#"{"key":1,"k\u0065y":2}"#,
            r#"{"a":[{"b":1,"b":2}]}"#,
        ] {
            let refusal = json(&["key"], body).unwrap_err();
            assert!(
                matches!(refusal, FieldRefusal::NotStrictJson { .. }),
                "{body}"
            );
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(json(&["key"], &deep).is_err());
    }

    #[test]
    fn a_body_without_the_object_is_refused() {
        for body in ["[]", "1", "\"key\"", r#"{"a":[]}"#, "{}"] {
            let refusal = json(&["a", "b"], body).unwrap_err();
            assert!(matches!(refusal, FieldRefusal::NoParent { .. }), "{body}");
        }
    }

    #[test]
    fn a_form_field_is_set_once_and_the_others_stay() {
        let field = Field::form("api_key", b"a b&c");
        for (body, filled) in [
            ("", "api_key=a%20b%26c"),
            ("x=1&y=a+b%20", "x=1&y=a+b%20&api_key=a%20b%26c"),
            ("api_key=p&x=1", "x=1&api_key=a%20b%26c"),
            (
                "API_KEY=p&api%5Fkey=q&api_key[]=r&+api_key=s&x",
                "x&api_key=a%20b%26c",
            ),
        ] {
            let out = field.fill(body.as_bytes()).unwrap();
            assert_eq!(std::str::from_utf8(&out).unwrap(), filled);
        }
        assert!(matches!(
            field.fill(b"x=\xff"),
            Err(FieldRefusal::NotText { .. })
        ));
    }

    #[test]
    fn only_the_declared_media_type_in_utf_8_is_taken() {
        let (form, json) = (Field::form("k", b"v"), Field::json(&pointer(&["k"]), b"v"));
        for kind in [
            "application/x-www-form-urlencoded",
            "Application/X-WWW-Form-Urlencoded; charset=UTF-8",
        ] {
            assert!(form.takes(kind) && !json.takes(kind));
        }
        for kind in [
            "application/json",
            "application/vnd.api+json; charset=\"utf-8\"",
        ] {
            assert!(json.takes(kind) && !form.takes(kind));
        }
        for kind in [
            "text/plain",
            "application/json; charset=utf-16",
            "multipart/form-data; boundary=x",
            "",
        ] {
            assert!(!json.takes(kind) && !form.takes(kind), "{kind}");
        }
    }
}
