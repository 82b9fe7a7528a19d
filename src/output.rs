//! Everything that reaches the terminal: results on stdout, all else on stderr, JSON for machines.

use std::io::{self, IsTerminal as _, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::failure::Failure;

/// How this process speaks: for people or for machines, with colours or without.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    colour: bool,
}

/// What a piece of text means, so that one place decides how it looks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    /// Titles.
    Strong,
    /// Secondary text.
    Quiet,
    /// Something went as it should.
    Good,
    /// Something did not.
    Bad,
    /// Worth a second look.
    Warn,
    /// A value that the eye should find.
    Accent,
}

#[expect(
    clippy::unused_self,
    reason = "whoever holds an `Output` may speak; how is decided here"
)]
impl Output {
    /// Colours appear only on a terminal, and never with `NO_COLOR` (<https://no-color.org>) or `--json`.
    pub(crate) fn new(json: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            json,
            colour: !json && !refused && io::stdout().is_terminal(),
        }
    }

    /// Whether the caller asked for JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// One line of result on stdout.
    pub(crate) fn say(self, line: impl AsRef<str>) {
        write_line(&mut io::stdout().lock(), line.as_ref());
    }

    /// Text on stdout as it is, without a line end of its own.
    pub(crate) fn raw(self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        // A reader that went away (`| head`) is no failure of ours.
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// One line on stderr, for people; silent with `--json`.
    pub(crate) fn note(self, line: impl AsRef<str>) {
        if !self.json {
            write_line(&mut io::stderr().lock(), line.as_ref());
        }
    }

    /// One line on stderr that machines get as well.
    pub(crate) fn warn(self, line: impl AsRef<str>) {
        write_line(
            &mut io::stderr().lock(),
            &format!("warning: {}", clean(line.as_ref())),
        );
    }

    /// A JSON document on one line of stdout.
    pub(crate) fn value(self, value: &Value) {
        write_line(&mut io::stdout().lock(), &value.to_string());
    }

    /// The object itself for machines, a sentence for people.
    /// What the answer warns of goes to stderr; machines find it in the object.
    pub(crate) fn done(self, value: &Value, sentence: impl AsRef<str>) {
        let warnings = value.get("warnings").and_then(Value::as_array);
        for warning in warnings.into_iter().flatten().filter_map(Value::as_str) {
            self.note(format!("warning: {}", clean(warning)));
        }
        if self.json {
            self.value(value);
        } else {
            self.say(sentence);
        }
    }

    /// A list: an object with one field for machines, a table for people.
    pub(crate) fn list(self, plural: &str, columns: &[(&str, &str)], rows: &[Value]) {
        if self.json {
            return self.value(&json!({ plural: rows }));
        }
        if rows.is_empty() {
            return self.note(format!("no {}", plural.replace('_', " ")));
        }
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|(title, _)| *title));
        for row in rows {
            table.add_row(
                columns
                    .iter()
                    .map(|(_, field)| cell(row.pointer(&pointer(field)).unwrap_or(&Value::Null))),
            );
        }
        for line in table.lines() {
            self.say(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        }
    }

    /// One thing: the object for machines, aligned `field  value` lines for people.
    pub(crate) fn fields(self, value: &Value) {
        if self.json {
            return self.value(value);
        }
        for line in lines_of(value, "") {
            self.say(line);
        }
    }

    /// The one exit of every error: a line of reason, a line of hint.
    pub(crate) fn failure(self, error: &anyhow::Error) {
        let failure = error.downcast_ref::<Failure>();
        let reason = failure.map_or_else(
            || format!("{error:#}"),
            |failure| failure.reason().to_owned(),
        );
        let hint = failure
            .and_then(Failure::next_action)
            .unwrap_or("`claviger doctor` looks for the cause");
        let code = failure.and_then(Failure::error_code);
        let mut stderr = io::stderr().lock();
        if self.json {
            let document =
                json!({ "error": code.unwrap_or("failed"), "detail": reason, "hint": hint });
            write_line(&mut stderr, &document.to_string());
        } else {
            write_line(&mut stderr, &format!("error: {}", clean_lines(&reason)));
            write_line(&mut stderr, &format!("hint: {}", clean_lines(hint)));
        }
    }

    /// Text in its tone, plain where colours are off.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Strong => "1",
            Tone::Quiet => "2",
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Warn => "33",
            Tone::Accent => "36",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Escapes control characters, so that a name from the server cannot drive the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, character| {
            if is_control(character) {
                out.extend(character.escape_unicode());
            } else {
                out.push(character);
            }
            out
        })
}

fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// C0, DEL, C1, and the marks that turn the direction of a line.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Aligned `field  value` lines; what lies deeper is indented under its field.
fn lines_of(value: &Value, indent: &str) -> Vec<String> {
    let Some(object) = value.as_object() else {
        return vec![format!("{indent}{}", cell(value))];
    };
    let width = object.keys().map(String::len).max().unwrap_or(0);
    let deeper = format!("{indent}  ");
    let mut lines = Vec::new();
    for (field, value) in object.iter().filter(|(_, value)| !value.is_null()) {
        match value {
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for item in items {
                    lines.push(format!("{indent}{field}"));
                    lines.extend(lines_of(item, &deeper));
                }
            }
            Value::Object(fields) if !fields.is_empty() => {
                lines.push(format!("{indent}{field}"));
                lines.extend(lines_of(value, &deeper));
            }
            _ => lines.push(format!("{indent}{field:width$}  {}", cell(value))),
        }
    }
    lines
}

fn pointer(field: &str) -> String {
    format!("/{}", field.replace('.', "/"))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => clean(text),
        Value::Array(items)
            if items
                .iter()
                .all(|item| !item.is_object() && !item.is_array()) =>
        {
            items.iter().map(cell).collect::<Vec<_>>().join(",")
        }
        other => clean(&other.to_string()),
    }
}

fn write_line(to: &mut impl io::Write, line: &str) {
    // A reader that went away (`| head`) is no failure of ours.
    let _ = writeln!(to, "{line}").and_then(|()| to.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_reach_the_terminal_escaped() {
        assert_eq!(
            clean("a\u{1b}[31mb\r\n\u{202e}c"),
            "a\\u{1b}[31mb\\u{d}\\u{a}\\u{202e}c"
        );
    }

    #[test]
    fn cells_join_lists_and_dash_what_is_absent() {
        assert_eq!(cell(&json!(["A", "B"])), "A,B");
        assert_eq!(cell(&Value::Null), "-");
        assert_eq!(cell(&json!({"a": 1})), "{\"a\":1}");
    }

    #[test]
    fn what_lies_deeper_is_indented_under_its_field() {
        let value = json!({ "id": "x", "limits": { "hosts": ["a", "b"] }, "blocks": [{ "n": 1 }, { "n": 2 }], "none": {} });
        let lines = lines_of(&value, "");
        assert_eq!(
            lines,
            [
                "blocks",
                "  n  1",
                "blocks",
                "  n  2",
                "id      x",
                "limits",
                "  hosts  a,b",
                "none    {}"
            ]
        );
    }

    #[test]
    fn text_stays_plain_where_colours_are_off() {
        let output = Output {
            json: true,
            colour: false,
        };
        assert_eq!(output.paint(Tone::Bad, "no"), "no");
    }
}
