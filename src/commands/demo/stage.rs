//! How the story looks: chapters, commands, checks, and the count at the end.

use serde_json::json;

use crate::failure::Failure;
use crate::output::{Output, Tone, clean};

/// Prints the story and keeps count of what went as it should.
#[derive(Debug)]
pub(super) struct Stage {
    output: Output,
    chapter: String,
    passed: usize,
    failed: Vec<String>,
}

impl Stage {
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            chapter: String::new(),
            passed: 0,
            failed: Vec::new(),
        }
    }

    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) fn title(&self, text: &str) {
        self.line(&format!("\n{}", self.output.paint(Tone::Strong, text)));
    }

    pub(super) fn chapter(&mut self, text: &str) {
        text.clone_into(&mut self.chapter);
        self.line(&format!("\n{}", self.output.paint(Tone::Strong, text)));
    }

    /// The command that does by hand what the story just did.
    pub(super) fn command(&self, text: &str) {
        self.line(&self.output.paint(Tone::Accent, &format!("  $ {text}")));
    }

    /// One step: what should be, whether it is, and what was seen.
    pub(super) fn check(&mut self, what: &str, holds: bool, seen: &str) {
        let seen = clean(seen);
        if self.output.is_json() {
            self.output.value(
                &json!({ "chapter": self.chapter, "step": what, "ok": holds, "seen": seen }),
            );
        }
        let mark = if holds {
            self.output.paint(Tone::Good, "ok")
        } else {
            self.output.paint(Tone::Bad, "FAILED")
        };
        self.line(&format!(
            "  {mark}  {what}  {}",
            self.output.paint(Tone::Quiet, &seen)
        ));
        if holds {
            self.passed += 1;
        } else {
            self.failed.push(what.to_owned());
        }
    }

    /// A remark on the step before.
    pub(super) fn aside(&self, text: &str) {
        if !text.is_empty() {
            self.line(
                &self
                    .output
                    .paint(Tone::Quiet, &format!("      {}", clean(text))),
            );
        }
    }

    /// Two sides of one thing, in columns.
    pub(super) fn beside(&self, titles: (&str, &str), rows: &[(String, String)]) {
        let width = rows
            .iter()
            .map(|(left, _)| left.chars().count())
            .max()
            .unwrap_or(0)
            .max(titles.0.len());
        self.line(&self.output.paint(
            Tone::Quiet,
            &format!("      {:width$}   {}", titles.0, titles.1),
        ));
        for (left, right) in rows {
            self.line(&format!(
                "      {:width$}   {}",
                clean(left),
                self.output.paint(Tone::Warn, &clean(right))
            ));
        }
    }

    pub(super) fn line(&self, text: &str) {
        if !self.output.is_json() {
            self.output.say(text.trim_end());
        }
    }

    /// The count, and what to do next.
    ///
    /// # Errors
    /// A [`Failure`] that names the steps that did not do what they should.
    pub(super) fn end(self) -> anyhow::Result<()> {
        let total = self.passed + self.failed.len();
        if !self.failed.is_empty() {
            let reason = format!(
                "{} of {total} steps did not do what they should: {}",
                self.failed.len(),
                self.failed.join("; ")
            );
            return Err(Failure::new(reason)
                .code("demo_failed")
                .hint("please report it with the output above")
                .into());
        }
        if self.output.is_json() {
            self.output.value(&json!({ "ok": true, "steps": total }));
            return Ok(());
        }
        self.line(&format!(
            "\n{}",
            self.output.paint(
                Tone::Good,
                &format!("All {total} steps did what they should.")
            )
        ));
        self.line(NEXT);
        Ok(())
    }
}

const NEXT: &str = "
With a key of yours:
  claviger serve &
  claviger set put openai/dev/me OPENAI_API_KEY=-
  claviger agent create me
  claviger grant create --agent me --set openai/dev/me --actions proxy_use,mint_workflow_lease
  claviger run --set openai/dev/me -- curl https://api.openai.com/v1/models";

/// A key's first and last characters, enough to know it by and no use to anyone.
pub(super) fn mask(key: &str) -> String {
    let shown = 4;
    match (
        key.get(..8),
        key.len().checked_sub(shown).and_then(|at| key.get(at..)),
    ) {
        (Some(start), Some(end)) if key.len() >= 24 => format!("{start}{}{end}", "*".repeat(8)),
        _ => "*".repeat(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_key_shows_its_ends_and_a_short_one_nothing() {
        assert_eq!(mask("sk_test_0123456789abcdef0123"), "sk_test_********0123");
        assert_eq!(mask("short"), "********");
    }

    #[test]
    fn one_failed_step_fails_the_story() {
        let mut stage = Stage::new(Output::new(true));
        stage.check("first", true, "");
        stage.check("second", false, "");
        let error = stage.end().unwrap_err().to_string();
        assert_eq!(error, "1 of 2 steps did not do what they should: second");
    }
}
