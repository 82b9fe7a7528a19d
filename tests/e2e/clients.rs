//! The client matrix: programs and libraries as people install them, each below `claviger run` and otherwise unchanged.
//!
//! curl, git, `requests` and the SDKs of `OpenAI` and Stripe have modules of their own; see also README.md, "Providers".

use serde_json::json;

use crate::sdk;
use crate::support::Stack;

mod java;
mod node;
mod packages;
mod python;

/// Who runs a script.
#[derive(Clone, Copy)]
enum Language {
    Java,
    Python,
    Node,
}

/// A provider whose sets need one key alone.
struct Provider {
    name: &'static str,
    key: &'static str,
    /// The header that carries the key.
    slot: &'static str,
    /// What stands there before the key.
    before: &'static str,
}

const STRIPE: Provider = Provider::bearer("stripe", "STRIPE_SECRET_KEY");
const GITHUB: Provider = Provider::bearer("github", "GITHUB_TOKEN");
const SLACK: Provider = Provider::bearer("slack", "SLACK_BOT_TOKEN");
const ANTHROPIC: Provider = Provider {
    name: "anthropic",
    key: "ANTHROPIC_API_KEY",
    slot: "x-api-key",
    before: "",
};
const GEMINI: Provider = Provider {
    name: "gemini",
    key: "GEMINI_API_KEY",
    slot: "x-goog-api-key",
    before: "",
};

/// What a program says that has asked a model, and then again for a stream.
const BOTH_WAYS: [&str; 2] = [
    "whole: hello from upstream",
    "streamed: hello from upstream",
];

impl Provider {
    const fn bearer(name: &'static str, key: &'static str) -> Self {
        Self {
            name,
            key,
            slot: "authorization",
            before: "Bearer ",
        }
    }

    /// The story of a script: it makes `calls` requests, all of which bear the key at the provider, and says `said`.
    async fn is_called(&self, language: Language, script: &str, calls: usize, said: &[&str]) {
        let stack = Stack::start().await;
        let secret = stack.secret("key-");
        let entries = json!({ self.key: secret.text() });
        stack.access(self.name, &entries, &secret, &json!({})).await;

        let set = format!("{0}/test/{0}-bot", self.name);
        let ran = match language {
            Language::Java => java::program(&stack, &set, script).await,
            Language::Python => sdk::python(&stack, &set, script).await,
            Language::Node => sdk::node(&stack, &set, script).await,
        };

        for said in said {
            assert!(ran.stdout.contains(said), "{said}: {ran:#?}");
        }
        assert_eq!(stack.upstream.count(), calls);
        for request in stack.upstream.requests() {
            let credential = format!("{}{}", self.before, secret.text());
            assert_eq!(request.field(self.slot), credential);
        }
        stack.finish().await;
    }
}
