//! Secret values on their way in: from the body straight into [`Secret`], never through a `String` that stays behind.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use vault::Secret;

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

/// Reads a `.env` text: `KEY=VALUE` lines, `export`, `#` comments, single and double quotes (over several lines too).
///
/// # Errors
/// Names the line of the first mistake, never its text.
pub(crate) fn parse_dotenv(text: &Secret) -> Result<Entries, ApiError> {
    let text = text
        .expose_str()
        .ok_or_else(|| ApiError::invalid("dotenv", "is not UTF-8"))?;
    let mut entries = BTreeMap::new();
    let mut reader = Dotenv {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 0,
    };
    while let Some((line, key, secret)) = reader.next_entry()? {
        if entries.len() == MAX_ENTRIES {
            return Err(ApiError::invalid(
                "dotenv",
                format_args!("more than {MAX_ENTRIES} keys"),
            ));
        }
        check_key(&format!("dotenv line {line}"), &key)?;
        if entries.contains_key(&key) {
            return Err(ApiError::invalid(
                "dotenv",
                format_args!("line {line}: {key} is set twice; keep one"),
            ));
        }
        entries.insert(key, Some(secret));
    }
    Ok(Entries(entries))
}

struct Dotenv<'a> {
    rest: &'a str,
    line: usize,
}

impl Dotenv<'_> {
    fn next_entry(&mut self) -> Result<Option<(usize, String, Secret)>, ApiError> {
        while !self.rest.is_empty() {
            let (line, after) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
            self.line += 1;
            let text = line.trim();
            if text.is_empty() || text.starts_with('#') {
                self.rest = after;
                continue;
            }
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| self.mistake("has no `=`; write KEY=VALUE"))?;
            let key = key
                .trim()
                .strip_prefix("export ")
                .unwrap_or(key.trim())
                .trim()
                .to_owned();
            let value = value.trim_start();
            let start = self.line;
            let quote = value
                .chars()
                .next()
                .filter(|char| matches!(char, '"' | '\''));
            let secret = if let Some(quote) = quote {
                self.quoted(quote, line.len() - value.len() + 1)?
            } else {
                self.rest = after;
                let bare = value.split_once(" #").map_or(value, |(value, _)| value);
                Secret::new(bare.trim_end().as_bytes().to_vec())
            };
            return Ok(Some((start, key, secret)));
        }
        Ok(None)
    }

    /// Reads up to the closing quote; in double quotes `\n`, `\r`, `\t`, `\"`, `\\` and `\$` are escapes.
    fn quoted(&mut self, quote: char, start: usize) -> Result<Secret, ApiError> {
        let body = &self.rest[start..];
        // The capacity is enough for the whole value, so no half of it stays behind in a buffer that grew.
        let mut value = zeroize::Zeroizing::new(Vec::with_capacity(body.len()));
        let mut chars = body.char_indices();
        while let Some((at, char)) = chars.next() {
            let char = match char {
                _ if char == quote => {
                    let line = &body[at + 1..];
                    let (tail, after) = line.split_once('\n').unwrap_or((line, ""));
                    if !(tail.trim().is_empty() || tail.trim().starts_with('#')) {
                        return Err(self.mistake("has text after the closing quote"));
                    }
                    self.line += body[..at].matches('\n').count();
                    self.rest = after;
                    return Ok(Secret::new(value.to_vec()));
                }
                '\\' if quote == '"' => match chars.next().map(|(_, escaped)| escaped) {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(escaped @ ('"' | '\\' | '$')) => escaped,
                    _ => {
                        return Err(self.mistake(
                            r#"has an unknown escape; \n, \r, \t, \", \\ and \$ are known"#,
                        ));
                    }
                },
                char => char,
            };
            value.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Err(self.mistake("opens a quote that is never closed"))
    }

    fn mistake(&self, problem: &str) -> ApiError {
        ApiError::invalid("dotenv", format_args!("line {} {problem}", self.line))
    }
}

/// Keys in one set.
pub(crate) const MAX_ENTRIES: usize = 200;
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

    fn one(text: &str) -> String {
        let mut all = dotenv(text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0).1
    }

    #[test]
    fn lines_comments_and_export_are_read() {
        let all = dotenv("# comment\n\nexport A=1\r\n  B = two words # note\nC=x=y#z\n").unwrap();
        let expected = [("A", "1"), ("B", "two words"), ("C", "x=y#z")];
        assert_eq!(
            all,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn quotes_keep_what_is_in_them() {
        assert_eq!(one("A='it is \\n # raw'"), "it is \\n # raw");
        assert_eq!(one("A=\"a\\nb \\\"q\\\" \\\\\" # note"), "a\nb \"q\" \\");
        assert_eq!(
            one("A=\"-----BEGIN\nbody\n-----END\"\n"),
            "-----BEGIN\nbody\n-----END"
        );
    }

    #[test]
    fn a_mistake_names_its_line_and_not_its_text() {
        for (text, expected) in [
            ("A=1\nhunter2", "line 2 has no `=`"),
            ("A=\"hunter2", "line 1 opens a quote"),
            ("A=\"x\" hunter2", "line 1 has text after"),
            ("A=\"\\q\"", "line 1 has an unknown escape"),
            ("A=1\nA=2", "line 2: A is set twice"),
            ("A=\"\n\n\"\n1B=2", "dotenv line 4: `1B` is not a key"),
            ("A=", "entries.A: the value is empty"),
        ] {
            let detail = dotenv(text).expect_err(text);
            assert!(
                detail.contains(expected) && !detail.contains("hunter2"),
                "{detail}"
            );
        }
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
