//! Path globs: `*` within one segment, `**` over segments, nothing else.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::form::Form;

/// The most bytes of a glob.
pub const MAX_GLOB_BYTES: usize = 512;
/// The most segments of a glob.
pub const MAX_GLOB_SEGMENTS: usize = 64;

/// Why a text is no path glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// It does not begin with `/`.
    #[error("path `{0}` does not begin with `/`")]
    NoSlash(String),
    /// It has too many bytes or segments.
    #[error("a path glob has at most {MAX_GLOB_BYTES} bytes and {MAX_GLOB_SEGMENTS} segments")]
    TooLong,
    /// `//` inside, or a segment `.` or `..`.
    #[error("path `{0}` has an empty segment, or a segment `.` or `..`, which no request has")]
    Segment(String),
    /// `**` beside other characters, or twice in a row.
    #[error("path `{0}`: `**` stands for whole segments, and once in a row")]
    DoubleStar(String),
    /// A character that no normalised path has, or that other grammars give a meaning.
    #[error(
        "path `{glob}` holds `{found}`; a glob knows `*` and `**`, all else is literal, and `?`, `#`, `[`, `]`, `{{`, `}}` and `\\` are none of a path"
    )]
    Character {
        /// The text.
        glob: String,
        /// The character.
        found: char,
    },
    /// A percent-encoding that a normalised path does not hold.
    #[error(
        "path `{0}` has a percent-encoding that no normalised path has: two upper-case digits, and not of a letter, digit, `-`, `.`, `_`, `~`, `/`, `\\` or NUL"
    )]
    Percent(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Segment {
    /// `**`: any number of segments, also none.
    Deep,
    /// A segment's characters, in which `*` stands for any number of characters but `/`.
    Part(Box<str>),
}

/// Paths that a grant or a lease allows.
///
/// Grammar: `/`, then segments divided by `/`. A segment `**` stands for any number of segments, also none, so
/// `/v1/**` means `/v1`, `/v1/` and all below. A segment `*` stands for one segment that is not empty; beside other
/// characters `*` stands for any number of characters but `/`. All else is literal and in the case that it has. The
/// path is matched as a whole, without the query. Bounds: 512 bytes, 64 segments; matching takes at most the
/// path's length times the glob's.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PathGlob {
    segments: Box<[Segment]>,
    text: Arc<str>,
}

impl PathGlob {
    /// Reads a glob.
    ///
    /// # Errors
    /// [`GlobError`] for what the grammar does not hold.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.len() > MAX_GLOB_BYTES {
            return Err(GlobError::TooLong);
        }
        check_characters(text)?;
        let inner = text
            .strip_prefix('/')
            .ok_or_else(|| GlobError::NoSlash(text.to_owned()))?;
        let segments: Vec<_> = inner.split('/').collect();
        if segments.len() > MAX_GLOB_SEGMENTS {
            return Err(GlobError::TooLong);
        }
        for (at, segment) in segments.iter().enumerate() {
            let is_last = at + 1 == segments.len();
            if matches!(*segment, "." | "..") || (segment.is_empty() && !is_last) {
                return Err(GlobError::Segment(text.to_owned()));
            }
            let doubled = *segment == "**" && segments.get(at + 1) == Some(&"**");
            if doubled || (segment.contains("**") && *segment != "**") {
                return Err(GlobError::DoubleStar(text.to_owned()));
            }
        }
        Ok(Self {
            segments: segments
                .into_iter()
                .map(|segment| match segment {
                    "**" => Segment::Deep,
                    part => Segment::Part(part.into()),
                })
                .collect(),
            text: text.into(),
        })
    }

    /// Whether the path is meant. It comes normalised and without its query.
    pub fn matches(&self, path: &str) -> bool {
        let Some(inner) = path.strip_prefix('/') else {
            return false;
        };
        match_segments(&self.segments, inner)
    }

    /// Whether all that `other` means is meant by this one. It may say no where the answer is yes, never the reverse.
    pub fn covers(&self, other: &Self) -> bool {
        if self == other || (!other.text.contains('*') && self.matches(&other.text)) {
            return true;
        }
        match self.form() {
            // A prefix that holds no wildcard stands at the front of all that the other means.
            Form::Under(prefix) => other.literal_prefix().starts_with(prefix.as_str()),
            Form::Is(_) | Form::Like(_) => false,
        }
    }

    /// The glob's text, which is its one spelling.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The characters before the first segment that holds a wildcard, with the `/` after them.
    fn literal_prefix(&self) -> &str {
        let end = self.text.find('*').unwrap_or(self.text.len());
        let slash = self.text[..end].rfind('/').map_or(0, |at| at + 1);
        // `/v1/**` also means `/v1`, which does not begin with `/v1/`; but then `/v1/` covers it as its own form does.
        &self.text[..slash]
    }

    /// The glob as Datalog tests it.
    pub(crate) fn form(&self) -> Form {
        let Some(star) = self.text.find('*') else {
            return Form::Is(self.text.to_string());
        };
        if &self.text[star..] == "**" {
            return Form::Under(self.text[..star].to_owned());
        }
        let mut regex = String::from("^");
        for segment in &self.segments {
            match segment {
                Segment::Deep => regex.push_str(DEEP),
                Segment::Part(part) if **part == *"*" => {
                    regex.push('/');
                    regex.push_str(WHOLE);
                }
                Segment::Part(part) => {
                    regex.push('/');
                    for c in part.chars() {
                        match c {
                            '*' => regex.push_str(PIECE),
                            '.' | '+' | '$' | '(' | ')' => regex.extend(['\\', c]),
                            c => regex.push(c),
                        }
                    }
                }
            }
        }
        regex.push('$');
        Form::Like(regex)
    }

    /// The glob whose [`Self::form`] this is.
    pub(crate) fn from_form(form: &Form) -> Option<Self> {
        let text = match form {
            Form::Is(text) => text.clone(),
            Form::Under(prefix) => format!("{prefix}**"),
            Form::Like(regex) => {
                let mut rest = regex.strip_prefix('^')?.strip_suffix('$')?;
                let mut text = String::new();
                while let Some(c) = rest.chars().next() {
                    if let Some(after) = rest.strip_prefix(DEEP) {
                        text.push_str("/**");
                        rest = after;
                    } else if let Some(after) = rest
                        .strip_prefix(WHOLE)
                        .or_else(|| rest.strip_prefix(PIECE))
                    {
                        text.push('*');
                        rest = after;
                    } else if c == '\\' {
                        rest = &rest[1..];
                        text.push(rest.chars().next()?);
                        rest = &rest[rest.chars().next()?.len_utf8()..];
                    } else {
                        text.push(c);
                        rest = &rest[c.len_utf8()..];
                    }
                }
                text
            }
        };
        let glob = Self::parse(&text).ok()?;
        (glob.form() == *form).then_some(glob)
    }
}

/// `**` in a regular expression.
const DEEP: &str = "(?:/[^/]*)*";
/// A segment `*` in a regular expression.
const WHOLE: &str = "[^/]+";
/// `*` beside other characters in a regular expression.
const PIECE: &str = "[^/]*";

fn check_characters(text: &str) -> Result<(), GlobError> {
    // RFC 3986 section 3.3: pchar is unreserved, sub-delims, `:`, `@` and percent-encodings.
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c);
    if let Some(found) = text.chars().find(|c| !is_path(*c)) {
        return Err(GlobError::Character {
            glob: text.to_owned(),
            found,
        });
    }
    for encoded in text.split('%').skip(1) {
        let value = encoded
            .get(..2)
            .filter(|digits| {
                digits
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
            })
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let is_canonical = value
            .is_some_and(|byte| !byte.is_ascii_alphanumeric() && !b"-._~/\\\0".contains(&byte));
        if !is_canonical {
            return Err(GlobError::Percent(text.to_owned()));
        }
    }
    Ok(())
}

/// Greedy, with one step back to the last `**`.
fn match_segments(pattern: &[Segment], path: &str) -> bool {
    let mut rest = Some(path);
    let mut at = 0;
    let mut retry: Option<(usize, Option<&str>)> = None;
    loop {
        match (pattern.get(at), rest) {
            (Some(Segment::Deep), _) => {
                retry = Some((at + 1, rest));
                at += 1;
                continue;
            }
            (None, None) => return true,
            (Some(Segment::Part(part)), Some(path)) => {
                let (segment, after) = split_segment(path);
                if match_part(part.as_bytes(), segment.as_bytes()) {
                    at += 1;
                    rest = after;
                    continue;
                }
            }
            (None, Some(_)) | (Some(Segment::Part(_)), None) => {}
        }
        // What stands here does not fit: the last `**` takes one segment more.
        match retry {
            Some((next, Some(path))) => {
                let (_, after) = split_segment(path);
                at = next;
                rest = after;
                retry = Some((next, after));
            }
            _ => return false,
        }
    }
}

fn split_segment(path: &str) -> (&str, Option<&str>) {
    path.split_once('/')
        .map_or((path, None), |(segment, after)| (segment, Some(after)))
}

/// Greedy, with one step back to the last `*`.
fn match_part(pattern: &[u8], segment: &[u8]) -> bool {
    if pattern == b"*" {
        return !segment.is_empty();
    }
    let (mut at, mut on) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while on < segment.len() {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at + 1, on));
            at += 1;
        } else if pattern.get(at) == Some(&segment[on]) {
            at += 1;
            on += 1;
        } else if let Some((next, from)) = retry {
            at = next;
            on = from + 1;
            retry = Some((next, on));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PathGlob({})", self.text)
    }
}

impl FromStr for PathGlob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, GlobError> {
        Self::parse(text)
    }
}

impl Serialize for PathGlob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for PathGlob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
