//! From a template and opened secrets to the slots of a request, prepared once per version of a set.

pub mod sigv4;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use vault::Secret;
use zeroize::Zeroizing;

use crate::scrub::Scrubber;
use crate::template::Template;

pub use sigv4::SigV4;

/// What one version of a secret set puts into requests. It holds secrets: its Debug shows names alone, and its
/// memory is zeroized when the last header made of it is dropped.
pub struct Plan {
    template: Arc<Template>,
}

/// Why a plan cannot be prepared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// A required key is not in the set.
    #[error("the set has no `{key}`, which `{template}` needs; add it with `claviger set put`")]
    MissingKey {
        /// The template.
        template: String,
        /// The key.
        key: String,
    },
    /// A required key is not among the keys that the grant allows.
    #[error(
        "the grant does not allow `{key}`, which `{template}` needs; ask for a grant that includes it"
    )]
    KeyNotAllowed {
        /// The template.
        template: String,
        /// The key.
        key: String,
    },
    /// A value cannot stand in its slot (a line break in a header, a colon in a Basic user).
    #[error("the value of `{key}` cannot stand in {slot}: {why}; store it again without that")]
    BadValue {
        /// The key.
        key: String,
        /// The slot.
        slot: String,
        /// What is wrong, never the value.
        why: &'static str,
    },
}

/// What the plan must know of a request's body before it can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyNeed {
    /// Nothing: the body streams.
    None,
    /// Its SHA-256, unless [`sigv4::AgentScope::needs_body`] says that the agent declared it. A longer body is refused.
    HashUpTo(usize),
}

/// A query after the agent's credentials were taken out and ours put in.
#[derive(PartialEq, Eq)]
pub struct RewrittenQuery(Option<Zeroizing<String>>);

impl Plan {
    /// Prepares the slots of a template from the secrets of one set version.
    ///
    /// `allowed` says which keys the grant lets travel. A key that the template never sends is not taken in.
    ///
    /// # Errors
    /// [`PrepareError`]: a missing or disallowed required key, or a value that cannot stand in its slot.
    pub fn prepare(
        template: &Arc<Template>,
        allowed: impl Fn(&str) -> bool,
        secrets: BTreeMap<String, Arc<Secret>>,
    ) -> Result<Self, PrepareError> {
        let _ = (template, allowed("x"), secrets);
        unimplemented!()
    }

    /// The template that it was prepared from.
    pub fn template(&self) -> &Arc<Template> {
        &self.template
    }

    /// The header slots: what the agent brought in them is removed first. See [`Plan::is_slot`] for their twins.
    pub fn strip(&self) -> &[HeaderName] {
        unimplemented!()
    }

    /// Whether a header's name is a slot or a twin of one: case, and `_` for `-`, and such at the ends, do not count.
    pub fn is_slot(&self, header_name: &str) -> bool {
        let _ = header_name;
        unimplemented!()
    }

    /// The query parameters that are removed from the agent's request.
    pub fn strip_query(&self) -> &[String] {
        unimplemented!()
    }

    /// The headers that are set on this host and path, each once, marked sensitive.
    ///
    /// `host` is canonical; `path` has no query.
    pub fn headers<'a>(
        &'a self,
        host: &'a str,
        path: &'a str,
    ) -> impl Iterator<Item = &'a (HeaderName, HeaderValue)> + 'a {
        let _ = (host, path);
        [].iter()
    }

    /// The query as it must be sent: the agent's credentials removed, ours added. `None` if it stays as it is,
    /// byte by byte. `query` has no question mark.
    pub fn rewrite_query(
        &self,
        host: &str,
        path: &str,
        query: Option<&str>,
    ) -> Option<RewrittenQuery> {
        let _ = (host, path, query);
        unimplemented!()
    }

    /// Whether the query holds a credential on this host and path; then no Referer is sent, and nothing logs it.
    pub fn has_query_credential(&self) -> bool {
        unimplemented!()
    }

    /// The signer, for templates that sign; then [`Plan::headers`] is empty.
    pub fn sigv4(&self) -> Option<&SigV4> {
        unimplemented!()
    }

    /// Takes the injected secrets out of responses.
    pub fn scrubber(&self) -> &Arc<Scrubber> {
        unimplemented!()
    }

    /// What must be known of the body before the head can be sent.
    pub fn reads_body(&self) -> BodyNeed {
        unimplemented!()
    }

    /// The names of the keys whose values travel, for the audit.
    pub fn keys(&self) -> &Arc<[String]> {
        unimplemented!()
    }
}

impl RewrittenQuery {
    /// The query without its question mark, or nothing if no query is left.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_deref().map(String::as_str)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("template", &self.template.name())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RewrittenQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RewrittenQuery(..)")
    }
}

/// Whether a request header steers a server's routing behind the back of the policy (`X-Original-URL`,
/// `X-Forwarded-Host`, `X-HTTP-Method-Override`, `Forwarded` …) in any spelling. Such fields are never forwarded.
pub fn is_routing_header(name: &str) -> bool {
    let _ = name;
    unimplemented!()
}

pub(crate) fn slots(template: &Template) -> Vec<HeaderName> {
    let _ = template;
    unimplemented!()
}
