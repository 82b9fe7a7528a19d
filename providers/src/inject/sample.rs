//! What a template does to a request, in words and with names of keys alone: for people who write templates.

use std::fmt;

use crate::template::{Inject, KeyUse, Piece, Template, Text};

/// What a template would do to one request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Sample {
    /// The slots that are taken from the agent.
    pub emptied: Vec<String>,
    /// The slots that are filled.
    pub filled: Vec<Filled>,
}

/// A slot that is filled.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Filled {
    /// ``the header `authorization` ``.
    pub slot: String,
    /// `Bearer ${KEY}`: names of keys, never a value.
    pub value: String,
    /// Whether it is left out when the set lacks a key.
    pub optional: bool,
}

impl Template {
    /// What happens to a request to this host and path. `host` is canonical; `path` has no query.
    pub fn sample(&self, host: &str, path: &str) -> Sample {
        let headers = self.secret_slots();
        let headers = headers.iter().map(|name| format!("the header `{name}`"));
        let parameters = super::query_slots(self).into_iter();
        let parameters = parameters.map(|name| format!("the query parameter `{name}`"));
        let cookies = super::cookie_slots(self).into_iter();
        let cookies = cookies.map(|name| format!("the cookie `{name}`"));
        let all_cookies = (!self.passes_cookies()).then(|| "the agent's cookies".to_owned());
        let applied = self.injections().iter();
        let applied = applied.filter(|injection| injection.applies(host, path));
        Sample {
            emptied: headers
                .chain(parameters)
                .chain(cookies)
                .chain(all_cookies)
                .collect(),
            filled: applied.map(|one| self.filled(&one.inject)).collect(),
        }
    }

    fn filled(&self, inject: &Inject) -> Filled {
        let is_optional = |key: &&str| self.keys().get(*key) == Some(&KeyUse::Optional);
        // What signs is signed with or without a session token.
        let signs = matches!(inject, Inject::SigV4(_));
        Filled {
            slot: inject.slot(),
            value: inject.shape(),
            optional: !signs && inject.keys().iter().any(is_optional),
        }
    }
}

impl Inject {
    /// What the slot is filled with, by the names of its keys.
    pub fn shape(&self) -> String {
        match self {
            Self::Header { value, .. }
            | Self::Query { value, .. }
            | Self::Cookie { value, .. }
            | Self::Form { value, .. }
            | Self::Json { value, .. } => value.to_string(),
            Self::Basic { user, password } => format!("{user}:{password}"),
            Self::Path(slot) => slot.to_string(),
            Self::SigV4(keys) => format!(
                "signed by ${{{}}} with ${{{}}}",
                keys.access_key_id, keys.secret_access_key
            ),
            Self::ClientCertificate(keys) => {
                format!("${{{}}} with ${{{}}}", keys.certificate, keys.key)
            }
            Self::Hmac(signature) => format!("signed with ${{{}}}", signature.key),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces().iter().try_for_each(|piece| match piece {
            Piece::Literal(text) => f.write_str(text),
            Piece::Key(key) => write!(f, "${{{key}}}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Catalog;

    #[test]
    fn a_sample_names_slots_and_keys() {
        let datadog = Catalog::builtin().get("datadog").unwrap();
        let sample = datadog.sample("api.datadoghq.com", "/api/v1/monitor");
        let emptied = [
            "the header `dd-api-key`",
            "the header `dd-application-key`",
            "the header `authorization`",
            "the query parameter `api_key`",
            "the query parameter `application_key`",
            "the agent's cookies",
        ];
        assert_eq!(sample.emptied, emptied);
        let filled: Vec<_> = sample
            .filled
            .iter()
            .map(|one| (one.slot.as_str(), one.value.as_str(), one.optional))
            .collect();
        let expected = [
            ("the header `dd-api-key`", "${DD_API_KEY}", false),
            ("the header `dd-application-key`", "${DD_APP_KEY}", true),
        ];
        assert_eq!(filled, expected);
    }

    #[test]
    fn nothing_is_filled_where_no_injection_applies() {
        let github = Catalog::builtin().get("github").unwrap();
        assert!(github.sample("github.com", "/o/r").filled.is_empty());
        let git = github.sample("github.com", "/o/r.git/info/refs");
        assert_eq!(git.filled[0].value, "x-access-token:${GITHUB_TOKEN}");
    }
}
