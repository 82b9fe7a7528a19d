//! What the agent's environment holds instead of keys: texts of the right shape that open nothing.

use crate::template::Template;

impl Template {
    /// Variable and placeholder, for every variable of [`Template::env`].
    ///
    /// A placeholder has the prefix and the length that SDKs check, and the word `claviger`, so that neither a person nor
    /// a secret scanner takes it for a key.
    pub fn placeholders(&self) -> Vec<(String, String)> {
        self.env()
            .iter()
            .map(|(variable, key)| (variable.clone(), self.placeholder(key)))
            .collect()
    }

    fn placeholder(&self, key: &str) -> String {
        self.placeholders
            .get(key)
            .map_or_else(|| DEFAULT.to_owned(), Clone::clone)
    }
}

/// Whether a text is one of ours: it holds the word `claviger`, or where only a UUID has the shape, one that no generator makes.
pub fn is_placeholder(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    lower.contains("claviger") || lower.contains(UUID)
}

/// The beginning of the UUIDs that are placeholders: `claviger` as hexadecimal digits can spell it.
const UUID: &str = "c1a519e4-0000-4000-8000-";
/// Where the provider's keys have no shape.
const DEFAULT: &str = "claviger-placeholder-00000000000000000000";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalog;

    #[test]
    fn every_variable_of_every_template_has_a_placeholder_of_ours() {
        for template in Catalog::builtin().iter() {
            for (variable, text) in template.placeholders() {
                assert!(
                    is_placeholder(&text),
                    "{}: {variable}={text}",
                    template.name()
                );
            }
        }
    }

    #[test]
    fn placeholders_have_the_shape_that_sdks_check() {
        let catalog = Catalog::builtin();
        let of = |provider: &str, variable: &str| {
            let all = catalog.get(provider).unwrap().placeholders();
            all.into_iter()
                .find(|(name, _)| name == variable)
                .map(|(_, text)| text)
                .unwrap()
        };
        assert!(of("openai", "OPENAI_API_KEY").starts_with("sk-"));
        assert!(of("anthropic", "ANTHROPIC_API_KEY").starts_with("sk-ant-"));
        assert!(of("stripe", "STRIPE_API_KEY").starts_with("sk_test_"));
        assert_eq!(of("github", "GITHUB_TOKEN").len(), 40);
        assert_eq!(of("aws", "AWS_ACCESS_KEY_ID").len(), 20);
        assert_eq!(of("aws", "AWS_SECRET_ACCESS_KEY").len(), 40);
        assert!(of("slack", "SLACK_BOT_TOKEN").starts_with("xoxb-"));
    }

    #[test]
    fn a_key_is_not_a_placeholder() {
        assert!(!is_placeholder("sk-proj-abcdef"));
        assert!(!is_placeholder("c1a519e4-8d2f-4b6a-9c3e-1f2a3b4c5d6e"));
        assert!(is_placeholder("xaat-C1A519E4-0000-4000-8000-000000000000"));
    }
}
