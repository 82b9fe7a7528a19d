//! Secret values on their way in: from the body straight into [`Secret`], never through a `String` that stays behind.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use vault::Secret;

use crate::dotenv;
use crate::error::ApiError;
use crate::text::{KEY_RULE, excerpt, is_key};

/// `{KEY: value}`; in an update `null` drops the key.
#[derive(Debug, Default)]
pub(crate) struct Entries(pub(crate) BTreeMap<String, Option<Secret>>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Entries;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of keys and string values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if entries.len() == MAX_ENTRIES {
                        return Err(de::Error::custom(format_args!(
                            "more than {MAX_ENTRIES} keys"
                        )));
                    }
                    entries.insert(key, map.next_value()?);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// Keys with their values, sorted by key.
pub(crate) type Values = Vec<(String, Secret)>;

impl Entries {
    /// Splits into what to store and what to drop.
    ///
    /// # Errors
    /// If a key is no name, or a value is empty or too long to be sealed.
    pub(crate) fn split(self) -> Result<(Values, Vec<String>), ApiError> {
        let mut kept = Vec::new();
        let mut dropped = Vec::new();
        for (key, value) in self.0 {
            check_key("entries", &key)?;
            match value {
                Some(secret) => kept.push((key, secret)),
                None => dropped.push(key),
            }
        }
        check_values(&kept)?;
        Ok((kept, dropped))
    }
}

/// Refuses what is no name of an entry.
pub(crate) fn check_key(field: &str, key: &str) -> Result<(), ApiError> {
    if is_key(key) {
        return Ok(());
    }
    Err(ApiError::invalid(
        field,
        format_args!("{} is not a key; use {KEY_RULE}", excerpt(key)),
    ))
}

fn check_values(entries: &[(String, Secret)]) -> Result<(), ApiError> {
    for (key, secret) in entries {
        let length = secret.len();
        if length == 0 {
            return Err(ApiError::invalid(
                &format!("entries.{key}"),
                "the value is empty; leave the key out instead",
            ));
        }
        if length > MAX_VALUE {
            return Err(ApiError::invalid(
                &format!("entries.{key}"),
                format_args!("the value has {length} bytes; at most {MAX_VALUE} are taken"),
            ));
        }
    }
    Ok(())
}

/// Says which values are too short to be found again in an upstream's answer.
pub(crate) fn warnings(entries: &[(String, Secret)]) -> Vec<String> {
    let short = entries
        .iter()
        .filter(|(_, secret)| secret.len() < MIN_SCRUBBED);
    short
        .map(|(key, _)| {
            format!("{key} is shorter than {MIN_SCRUBBED} bytes: it is injected, but not removed from answers that echo it")
        })
        .collect()
}

/// Whether a value cannot stand in a header field (RFC 9110 section 5.5): a file was stored with its line end, or two lines for one.
pub(crate) fn is_unfit_for_a_header(value: &Secret) -> bool {
    let bytes = value.expose();
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(bytes.first())
        || is_space(bytes.last())
        || bytes
            .iter()
            .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
}

/// The entries of a `.env` text (see [`dotenv::parse`]).
///
/// # Errors
/// Names the line of the first mistake, never its text.
pub(crate) fn parse_dotenv(text: &Secret) -> Result<Entries, ApiError> {
    let entries = dotenv::parse(text).map_err(|error| ApiError::invalid("dotenv", error))?;
    let entries = entries.into_iter();
    Ok(Entries(
        entries.map(|(key, secret)| (key, Some(secret))).collect(),
    ))
}

/// Keys in one set.
pub(crate) const MAX_ENTRIES: usize = dotenv::MAX_ENTRIES;
const MAX_VALUE: usize = vault::envelope::MAX_SECRET_LEN;
/// Below this length a match in a body would be chance (providers' scrubber has the same bound).
const MIN_SCRUBBED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn dotenv(text: &str) -> Result<Vec<(String, String)>, String> {
        let entries = parse_dotenv(&Secret::new(text.as_bytes().to_vec()));
        let (kept, _) = entries
            .and_then(Entries::split)
            .map_err(|error| error.detail().to_owned())?;
        Ok(kept
            .into_iter()
            .map(|(key, secret)| (key, secret.expose_str().unwrap().to_owned()))
            .collect())
    }

    #[test]
    fn an_empty_value_is_refused() {
        let detail = dotenv("A=").expect_err("empty");
        assert!(detail.contains("entries.A: the value is empty"), "{detail}");
        let detail = dotenv("A=1\nhunter2").expect_err("no key");
        assert!(
            detail.starts_with("dotenv: line 2 has no `=`") && !detail.contains("hunter2"),
            "{detail}"
        );
    }

    #[test]
    fn null_drops_a_key_and_numbers_are_refused() {
        let entries: Entries = crate::json::parse(br#"{"A": "x", "B": null}"#).unwrap();
        let (kept, dropped) = entries.split().unwrap();
        assert_eq!((kept.len(), dropped), (1, vec!["B".to_owned()]));
        let error = crate::json::parse::<Entries>(br#"{"A": 17}"#).expect_err("a number");
        assert!(error.detail().contains("string"), "{}", error.detail());
    }

    #[test]
    fn debug_shows_no_value() {
        let entries: Entries = crate::json::parse(br#"{"A": "hunter2hunter2"}"#).unwrap();
        assert!(!format!("{entries:?}").contains("hunter2"));
    }

    #[test]
    fn short_values_are_warned_about() {
        let (kept, _) = dotenv_entries("A=short\nB=long-enough-to-be-scrubbed");
        let warnings = warnings(&kept);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("A is shorter") && !warnings[0].contains("=short"));
    }

    fn dotenv_entries(text: &str) -> (Vec<(String, Secret)>, Vec<String>) {
        parse_dotenv(&Secret::new(text.as_bytes().to_vec()))
            .unwrap()
            .split()
            .unwrap()
    }
}
