//! `.env` texts, read and written by one set of rules: what is written is read back as it was.

use std::collections::BTreeSet;

use vault::Secret;
use zeroize::Zeroizing;

use crate::text::{KEY_RULE, excerpt, is_key};

/// What is wrong with a `.env` text. It names the line, counted from 1, and never the text of a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DotenvError {
    /// It is no UTF-8.
    #[error("is not UTF-8; save it as UTF-8")]
    NotUtf8,
    /// It has more keys than one set takes.
    #[error("has more than {MAX_ENTRIES} keys; take them in several files")]
    TooMany,
    /// A name that no environment takes.
    #[error("line {line}: {} is not a key; use {KEY_RULE}", excerpt(key))]
    NoKey {
        /// Where.
        line: usize,
        /// The name.
        key: String,
    },
    /// Which of the two is meant nobody can tell.
    #[error("line {line}: {key} is set twice; keep one")]
    Twice {
        /// Of the second one.
        line: usize,
        /// The name.
        key: String,
    },
    /// A line that cannot be read.
    #[error("line {line} {problem}")]
    Line {
        /// Where.
        line: usize,
        /// What is wrong and how it is written.
        problem: &'static str,
    },
}

/// Reads a `.env` text: `KEY=VALUE` lines, `export`, `#` comments, single and double quotes (over several lines too).
///
/// In double quotes `\n`, `\r`, `\t`, `\"`, `\\` and `\$` are escapes; a value without quotes ends at ` #` and at the line's end. At most 200
/// keys, sorted by name.
///
/// # Errors
/// [`DotenvError`], for the first mistake.
pub fn parse(text: &Secret) -> Result<Vec<(String, Secret)>, DotenvError> {
    let text = text.expose_str().ok_or(DotenvError::NotUtf8)?;
    let mut reader = Reader {
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        line: 0,
    };
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    while let Some((line, key, secret)) = reader.next_entry()? {
        if entries.len() == MAX_ENTRIES {
            return Err(DotenvError::TooMany);
        }
        if !is_key(&key) {
            return Err(DotenvError::NoKey { line, key });
        }
        if !seen.insert(key.clone()) {
            return Err(DotenvError::Twice { line, key });
        }
        entries.push((key, secret));
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(entries)
}

/// Writes `KEY=VALUE` with a line end, which [`parse`] reads as the same value: bare where every reader agrees on it, else in single
/// quotes, and in double quotes where those cannot hold it.
pub fn line(key: &str, value: &str) -> Zeroizing<String> {
    // Enough for a value that is all escapes, so no half of it stays behind in a buffer that grew.
    let mut line = Zeroizing::new(String::with_capacity(key.len() + 2 * value.len() + 4));
    line.push_str(key);
    line.push('=');
    let is_bare = !value.is_empty() && value.chars().all(is_plain);
    if is_bare {
        line.push_str(value);
    } else if value.chars().any(|char| matches!(char, '\'' | '\n' | '\r')) {
        line.push('"');
        for char in value.chars() {
            match char {
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                '\t' => line.push_str("\\t"),
                '"' | '\\' | '$' => line.extend(['\\', char]),
                char => line.push(char),
            }
        }
        line.push('"');
    } else {
        line.push('\'');
        line.push_str(value);
        line.push('\'');
    }
    line.push('\n');
    line
}

fn is_plain(char: char) -> bool {
    char.is_ascii_alphanumeric() || "-_./:@%+,=".contains(char)
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl Reader<'_> {
    fn next_entry(&mut self) -> Result<Option<(usize, String, Secret)>, DotenvError> {
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
    fn quoted(&mut self, quote: char, start: usize) -> Result<Secret, DotenvError> {
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

    fn mistake(&self, problem: &'static str) -> DotenvError {
        DotenvError::Line {
            line: self.line,
            problem,
        }
    }
}

/// Keys in one text, as in one set.
pub(crate) const MAX_ENTRIES: usize = 200;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let entries =
            parse(&Secret::new(text.as_bytes().to_vec())).map_err(|error| error.to_string())?;
        let shown = |secret: Secret| secret.expose_str().unwrap().to_owned();
        Ok(entries
            .into_iter()
            .map(|(key, secret)| (key, shown(secret)))
            .collect())
    }

    fn one(text: &str) -> String {
        let mut all = read(text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0).1
    }

    #[test]
    fn lines_comments_and_export_are_read() {
        let all = read("# comment\n\nexport A=1\r\n  B = two words # note\nC=x=y#z\n").unwrap();
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
            ("A=\"\n\n\"\n1B=2", "line 4: `1B` is not a key"),
        ] {
            let error = read(text).expect_err(text);
            assert!(
                error.contains(expected) && !error.contains("hunter2"),
                "{error}"
            );
        }
        let many: Vec<String> = (0..=MAX_ENTRIES).map(|n| format!("A{n}=1")).collect();
        let many = many.join("\n");
        assert!(read(&many).expect_err("too many").contains("more than 200"));
    }

    #[test]
    fn a_value_is_quoted_where_readers_could_differ() {
        let written = |value| line("A", value).to_string();
        assert_eq!(written("sk_live-1/2="), "A=sk_live-1/2=\n");
        assert_eq!(written(""), "A=''\n");
        assert_eq!(written("$HOME #1"), "A='$HOME #1'\n");
        assert_eq!(written("it's\n$x"), "A=\"it's\\n\\$x\"\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in prop::collection::vec(any::<String>(), 1..8), quirks in "['\"\\\\$# \n\r\t=]{0,12}") {
            let mut expected: Vec<(String, String)> = values.into_iter().enumerate().map(|(n, value)| (format!("KEY_{n}"), value)).collect();
            expected.push(("QUIRKS".to_owned(), quirks));
            let text: String = expected.iter().map(|(key, value)| line(key, value).to_string()).collect();
            prop_assert_eq!(read(&text).unwrap(), expected);
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            drop(read(&text));
        }
    }
}
