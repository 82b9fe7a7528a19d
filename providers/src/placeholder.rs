//! What the agent's environment holds instead of keys: texts of the right shape that open nothing.

use crate::template::Template;

impl Template {
    /// Variable and placeholder, for every variable of [`Template::env`].
    pub fn placeholders(&self) -> Vec<(String, String)> {
        unimplemented!()
    }
}

/// Whether a text is one of ours.
pub fn is_placeholder(text: &str) -> bool {
    text.to_ascii_lowercase().contains("claviger")
}
