//! Placeholders of ours that stand where nothing is replaced (threats.md C11): refused with a hint, so that nobody wonders
//! why the provider turns the text down.

use aho_corasick::AhoCorasick;

use super::Plan;
use crate::template::{Inject, Template};

/// Finds the placeholders of a template.
pub(super) struct Finder {
    texts: AhoCorasick,
    /// By the pattern's number.
    keys: Vec<String>,
}

/// A placeholder outside its slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the placeholder of {key} stands in {place}, where nothing is put in its place; it belongs into {slot}"
)]
pub struct Misplaced {
    /// The key that it stands for.
    pub key: String,
    /// Where it was found.
    pub place: String,
    /// Where it is replaced.
    pub slot: String,
}

/// The head of a request, as the agent wrote it.
#[derive(Debug, Clone, Copy)]
pub struct AgentHead<'a> {
    /// The canonical host.
    pub host: &'a str,
    /// The path with `*` in its slot.
    pub path: &'a str,
    /// The query without its question mark.
    pub query: Option<&'a str>,
    /// The fields.
    pub headers: &'a http::HeaderMap,
}

impl Finder {
    /// `None` where `run` hands out no placeholder, and where a signature stands over what the agent wrote: its form is
    /// judged by the signer.
    pub(super) fn of(template: &Template) -> Option<Self> {
        let signs = |inject: &Inject| matches!(inject, Inject::SigV4(_));
        if template.injections().iter().any(|one| signs(&one.inject)) {
            return None;
        }
        let mut texts: Vec<(String, String)> = template
            .placeholders()
            .into_iter()
            .filter_map(|(variable, text)| Some((text, template.env().get(&variable)?.clone())))
            .collect();
        texts.sort_unstable();
        texts.dedup_by(|a, b| a.0 == b.0);
        if texts.is_empty() {
            return None;
        }
        let (texts, keys): (Vec<_>, Vec<_>) = texts.into_iter().unzip();
        let texts = AhoCorasick::new(texts).ok()?;
        Some(Self { texts, keys })
    }

    fn find(&self, text: &[u8]) -> Option<&str> {
        let found = self.texts.find(text)?;
        Some(self.keys[found.pattern().as_usize()].as_str())
    }
}

impl Plan {
    /// A placeholder in the head outside the slots.
    ///
    /// # Errors
    /// The first one that is found, and where it belongs.
    pub fn check_placeholders(&self, head: &AgentHead<'_>) -> Result<(), Misplaced> {
        let Some(finder) = &self.placeholders else {
            return Ok(());
        };
        let misplaced = |key: &str, place: String| {
            let slot = self.slot_of(key);
            Err(Misplaced {
                key: key.to_owned(),
                place,
                slot,
            })
        };
        if let Some(key) = finder.find(head.path.as_bytes()) {
            return misplaced(key, "the path".to_owned());
        }
        // The slots are emptied anyway, so only what is found at all is looked at more closely.
        if let Some(query) = head
            .query
            .filter(|query| finder.find(query.as_bytes()).is_some())
        {
            let kept = super::query::rewrite(Some(query), &self.strip_query, [].into_iter());
            let kept = kept.as_ref().map_or(query, |kept| kept.as_str());
            if let Some(key) = finder.find(kept.as_bytes()) {
                return misplaced(key, "the query".to_owned());
            }
        }
        for (name, value) in head.headers {
            let Some(key) = finder.find(value.as_bytes()) else {
                continue;
            };
            if !self.drops(name.as_str(), value.as_bytes(), finder) {
                return misplaced(key, format!("the header `{name}`"));
            }
        }
        Ok(())
    }

    /// Whether what the agent wrote in this field does not leave.
    fn drops(&self, name: &str, value: &[u8], finder: &Finder) -> bool {
        if name == "cookie" {
            let kept =
                super::cookie::rewrite([value].into_iter(), &self.strip_cookies, [].into_iter());
            return match kept {
                super::Cookies::Unchanged => false,
                super::Cookies::Removed => true,
                super::Cookies::Set(kept) => finder.find(kept.as_bytes()).is_none(),
            };
        }
        self.is_slot(name)
            || matches!(
                name,
                "authorization" | "proxy-authorization" | "x-api-key" | "api-key"
            )
            || (name == "referer" && self.has_url_credential())
    }

    /// Where a key is set, in words.
    fn slot_of(&self, key: &str) -> String {
        let injections = self.template.injections().iter();
        let slots: Vec<String> = injections
            .filter(|injection| injection.inject.keys().contains(&key))
            .map(|injection| injection.inject.slot())
            .collect();
        slots.join(" or ")
    }
}
