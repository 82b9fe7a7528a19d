//! What a command says when it cannot do its work: one line of reason and the next action.

use std::fmt;
use std::time::Duration;

/// A refusal or a fault, worded for the person at the terminal.
#[derive(Debug)]
pub(crate) struct Failure {
    reason: String,
    hint: Option<String>,
    code: Option<String>,
    wait: Option<Duration>,
    is_usage: bool,
}

impl Failure {
    /// A failure whose reason is one line: what happened, to which thing.
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: None,
            code: None,
            wait: None,
            is_usage: false,
        }
    }

    /// Adds the next action.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the stable code that the server gave.
    pub(crate) fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    /// Says when the same may pass.
    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.hint = Some(format!("wait {} s and try again", wait.as_secs()));
        self.wait = Some(wait);
        self
    }

    /// Marks a command that was written wrongly.
    pub(crate) fn usage(mut self) -> Self {
        self.is_usage = true;
        self
    }

    pub(crate) fn is_usage(&self) -> bool {
        self.is_usage
    }

    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn next_action(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub(crate) fn wait(&self) -> Option<Duration> {
        self.wait
    }

    pub(crate) fn error_code(&self) -> Option<&str> {
        self.code.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Failure {}
