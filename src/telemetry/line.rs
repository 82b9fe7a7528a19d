//! The text form of a log line, written without the detours of a general formatter: there is one for each request.
//!
//! `2026-11-22T08:41:00.123Z  INFO refused GET api.stripe.com: lease_expired request.id=… outcome=denied …`

use std::fmt::{self, Write as _};

use leases::clock::{Clock as _, SystemClock};
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes lines.
#[derive(Debug, Default)]
pub(super) struct Line;

/// Writes fields as `name=value`, separated by a space each.
#[derive(Debug, Default)]
pub(super) struct Fields;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(512);
        timestamp(&mut line, SystemClock.now());
        line.push_str(level(*event.metadata().level()));
        for span in context.event_scope().into_iter().flatten() {
            line.push_str(span.name());
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                line.push('{');
                line.push_str(&fields.fields);
                line.push('}');
            }
            line.push_str(": ");
        }
        let mut values = Values {
            message: String::with_capacity(64),
            fields: String::with_capacity(448),
        };
        event.record(&mut values);
        line.push_str(&values.message);
        line.push_str(&values.fields);
        line.push('\n');
        writer.write_str(&line)
    }
}

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        mut writer: Writer<'w>,
        fields: R,
    ) -> fmt::Result {
        let mut values = Values::default();
        fields.record(&mut values);
        writer.write_str(values.fields.trim_start())
    }
}

/// The values of one event or span, as text.
#[derive(Default)]
struct Values {
    message: String,
    fields: String,
}

impl Values {
    fn name(&mut self, field: &Field) {
        self.fields.push(' ');
        self.fields.push_str(field.name());
        self.fields.push('=');
    }
}

impl Visit for Values {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        escaped(&mut self.fields, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        let _ = write!(self.fields, "{value}");
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.name(field);
        let _ = write!(self.fields, "{value:.3}");
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let from = self.message.len();
            let _ = write!(self.message, "{value:?}");
            clean(&mut self.message, from);
            return;
        }
        self.name(field);
        let from = self.fields.len();
        let _ = write!(self.fields, "{value:?}");
        clean(&mut self.fields, from);
    }
}

/// Adds a value, with control characters escaped so that no value can forge a line or steer a terminal.
fn escaped(out: &mut String, value: &str) {
    if value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        out.push_str(value);
        return;
    }
    for character in value.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
}

/// Escapes what was written from `from` on, if need be.
fn clean(text: &mut String, from: usize) {
    if text[from..]
        .bytes()
        .all(|byte| (0x20..0x7f).contains(&byte))
    {
        return;
    }
    let written = text.split_off(from);
    escaped(text, &written);
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => " ERROR ",
        Level::WARN => "  WARN ",
        Level::INFO => "  INFO ",
        Level::DEBUG => " DEBUG ",
        Level::TRACE => " TRACE ",
    }
}

/// RFC 3339 with milliseconds, in UTC.
fn timestamp(out: &mut String, now: OffsetDateTime) {
    let (date, time) = (now.date(), now.time());
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339() {
        let mut text = String::new();
        timestamp(
            &mut text,
            time::macros::datetime!(2026-01-02 03:04:05.006 UTC),
        );
        assert_eq!(text, "2026-01-02T03:04:05.006Z");
    }

    #[test]
    fn control_characters_are_escaped_and_other_text_is_kept() {
        let mut text = String::new();
        escaped(&mut text, "a\u{1b}[2J\r\nb\u{9b}é");
        assert_eq!(text, "a\\u{1b}[2J\\r\\nb\\u{9b}é");
        let mut written = "kept \n".to_owned();
        written.push_str("new\n");
        clean(&mut written, 6);
        assert_eq!(written, "kept \nnew\\n");
    }
}
