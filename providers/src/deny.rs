//! `[[deny]]`: endpoints that hand out new credentials, refused unless the grant names them (threats.md C15), and methods that
//! a path alone does not name.

use std::fmt;

use percent_encoding::percent_decode_str;

use crate::host::HostRule;
use crate::template::Template;

/// Endpoints that hand out or show credentials, and so are denied by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    pub(crate) why: String,
    pub(crate) hosts: Vec<HostRule>,
    pub(crate) methods: Vec<String>,
    pub(crate) by_method: bool,
    pub(crate) paths: Vec<DeniedPath>,
}

/// A path that a template denies, in every spelling that some server takes for it.
///
/// Grammar: as a grant's path. `*` stands for any characters of one segment (alone for one that is not empty), `**` for any
/// number of segments. Case does not count, nor do percent-escapes, path parameters (`;x`), a slash at the end and a format
/// suffix (`.json`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedPath {
    text: String,
    segments: Box<[Segment]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// `**`.
    Deep,
    /// Characters in lower case, in which `*` stands for any number of them.
    Part(Box<[u8]>),
}

/// A request that a template denies, with what would allow it. Its text is made for the caller.
#[derive(Debug, Clone, Copy)]
pub struct Denied<'t> {
    template: &'t str,
    why: &'t str,
    path: &'t DeniedPath,
    /// What the grant must list, where its paths alone do not name the endpoint.
    method: Option<&'t str>,
}

impl Template {
    /// What denies a request, unless the grant names the endpoint.
    ///
    /// `host` is canonical and `path` has no query. `named` are the grant's own paths that match the request; one of them
    /// names the endpoint if all that it means lies within the denied path. So `/v1/keys` and `/v1/*` (where `/v1/*` is what
    /// is denied) do, and `/**`, which is no mention of anything, does not.
    pub fn denied<'t, 'g, N: Iterator<Item = &'g str>>(
        &'t self,
        host: &str,
        method: &str,
        path: &str,
        named: impl Fn() -> N,
    ) -> Option<Denied<'t>> {
        self.denials
            .iter()
            .filter(|denial| !denial.by_method && denial.is_about(host, method))
            .flat_map(|denial| denial.paths.iter().map(move |path| (denial, path)))
            .find(|(_, denied)| denied.matches(path) && !named().any(|glob| denied.holds(glob)))
            .map(|(denial, path)| Denied {
                template: &self.name,
                why: &denial.why,
                path,
                method: None,
            })
    }

    /// What denies a request to a grant that limits its paths and does not list the method.
    ///
    /// GitHub reads, changes and deletes a repository at one path. Who allows the path, and no more, means the reading. A
    /// grant without paths allows everything and is not asked.
    pub fn denied_unlisted<'t>(
        &'t self,
        host: &str,
        method: &str,
        path: &str,
    ) -> Option<Denied<'t>> {
        let by_method = |denial: &&Denial| denial.by_method && denial.is_about(host, method);
        let denial = self.denials.iter().filter(by_method);
        let mut paths = denial.flat_map(|denial| denial.paths.iter().map(move |it| (denial, it)));
        let (denial, path) = paths.find(|(_, denied)| denied.matches(path))?;
        Some(Denied {
            template: &self.name,
            why: &denial.why,
            path,
            method: denial
                .methods
                .iter()
                .find(|known| *known == method)
                .map(String::as_str),
        })
    }

    /// The denied endpoints, in the order of the file.
    pub fn denials(&self) -> &[Denial] {
        &self.denials
    }
}

impl Denial {
    /// What the endpoints do, as the end of a sentence: `makes API keys`.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The hosts meant; empty is every host of the template.
    pub fn hosts(&self) -> &[HostRule] {
        &self.hosts
    }

    /// The methods meant; empty is all.
    pub fn methods(&self) -> &[String] {
        &self.methods
    }

    /// Whether a grant that limits its paths must list the method, whatever its paths are. One without paths is not bound by it.
    pub const fn is_by_method(&self) -> bool {
        self.by_method
    }

    /// The paths meant, at least one.
    pub fn paths(&self) -> &[DeniedPath] {
        &self.paths
    }

    fn is_about(&self, host: &str, method: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|known| known == method))
            && (self.hosts.is_empty() || self.hosts.iter().any(|rule| rule.matches_name(host)))
    }
}

impl DeniedPath {
    /// Takes a checked text: see `load::rules`.
    pub(crate) fn new(text: &str) -> Self {
        let segment = |segment: &str| match segment {
            "**" => Segment::Deep,
            part => Segment::Part(part.to_ascii_lowercase().into_bytes().into()),
        };
        Self {
            segments: inner(text).split('/').map(segment).collect(),
            text: text.to_owned(),
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a request's path, without its query, is one of those meant.
    ///
    /// Nothing is allocated, and time is bounded by the product of both lengths.
    pub fn matches(&self, path: &str) -> bool {
        path.starts_with('/') && match_segments(&self.segments, inner(path))
    }

    /// Whether all that a grant's path glob means is denied by this path. It may say no where the answer is yes, never the
    /// reverse.
    pub fn holds(&self, glob: &str) -> bool {
        // The glob is matched as if it were a path: then its stars stand where stars of this pattern take them.
        // `**` may be no segment at all, or many, so no other pattern takes it.
        self.text.eq_ignore_ascii_case(glob)
            || (!glob.split('/').any(|segment| segment == "**") && self.matches(glob))
    }
}

/// A path without the slashes at its ends.
fn inner(path: &str) -> &str {
    path.trim_end_matches('/').trim_start_matches('/')
}

/// Greedy, with one step back to the last `**`.
fn match_segments(pattern: &[Segment], path: &str) -> bool {
    let mut rest = Some(path);
    let mut at = 0;
    let mut retry: Option<(usize, Option<&str>)> = None;
    loop {
        match (pattern.get(at), rest) {
            (Some(Segment::Deep), _) => {
                at += 1;
                retry = Some((at, rest));
                continue;
            }
            (None, None) => return true,
            (Some(Segment::Part(part)), Some(path)) => {
                let (segment, after) = split(path);
                if match_part(part, segment, after.is_none()) {
                    at += 1;
                    rest = after;
                    continue;
                }
            }
            (None, Some(_)) | (Some(Segment::Part(_)), None) => {}
        }
        // What stands here does not fit: the last `**` takes one segment more.
        let Some((next, Some(path))) = retry else {
            return false;
        };
        at = next;
        rest = split(path).1;
        retry = Some((next, rest));
    }
}

fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('/')
        .map_or((path, None), |(segment, after)| (segment, Some(after)))
}

/// Greedy, with one step back to the last `*`.
fn match_part(pattern: &[u8], segment: &str, is_last: bool) -> bool {
    let mut rest = plain(segment);
    if pattern == b"*" {
        return rest.next().is_some();
    }
    let mut at = 0;
    let mut retry = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, rest.clone()));
            continue;
        }
        let here = rest.clone();
        match (pattern.get(at), rest.next()) {
            (None, None) => return true,
            (None, Some(_)) if is_last && is_format_suffix(here) => return true,
            (Some(expected), Some(found)) if *expected == found => {
                at += 1;
                continue;
            }
            (Some(_) | None, _) => {}
        }
        let Some((next, mut from)) = retry else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        at = next;
        rest = from.clone();
        retry = Some((next, from));
    }
}

/// A segment as a lenient server reads it: decoded, without path parameters, in lower case.
fn plain(segment: &str) -> impl Iterator<Item = u8> + Clone {
    percent_decode_str(segment)
        .take_while(|byte| *byte != b';')
        .map(|byte| byte.to_ascii_lowercase())
}

/// `.json`, `.xml`: many frameworks route `/keys.json` as `/keys`.
fn is_format_suffix(mut rest: impl Iterator<Item = u8>) -> bool {
    rest.next() == Some(b'.') && rest.all(|byte| byte.is_ascii_alphanumeric())
}

impl fmt::Display for Denied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            template,
            why,
            path,
            method,
        } = self;
        if let Some(method) = method {
            return write!(
                f,
                "the template {template} denies {method} of `{}`, which {why}, to a grant that limits its paths, unless its methods list it; ask for a grant whose methods hold {method}",
                path.as_str()
            );
        }
        write!(
            f,
            "the template {template} denies an endpoint that {why}, unless the grant names it; ask for a grant whose paths hold `{}`, beside `/**` if all others shall stay allowed",
            path.as_str()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_template;

    fn denied(pattern: &str) -> DeniedPath {
        DeniedPath::new(pattern)
    }

    #[test]
    fn a_denied_path_is_denied_in_every_spelling_that_some_server_takes() {
        for path in [
            "/v1/ephemeral_keys",
            "/v1/ephemeral_keys/",
            "/V1/Ephemeral_Keys",
            "/v1/ephemeral%5Fkeys",
            "/%76%31/ephemeral%5fkeys",
            "/v1/ephemeral_keys;jsessionid=1",
            "/v1;a/ephemeral_keys%3Bb",
            "/v1/ephemeral_keys.json",
        ] {
            assert!(denied("/v1/ephemeral_keys").matches(path), "{path}");
        }
        for path in [
            "/v1/ephemeral_key",
            "/v1/ephemeral_keys2",
            "/v1/ephemeral_keys/ek_1",
            "/v1/x/ephemeral_keys",
            "/v1",
            "/",
            "*",
            "/v1/ephemeral_keys.a-b",
        ] {
            assert!(!denied("/v1/ephemeral_keys").matches(path), "{path}");
        }
    }

    #[test]
    fn stars_stand_for_characters_and_double_stars_for_segments() {
        for (pattern, path) in [
            (
                "/app/installations/*/access_tokens",
                "/app/installations/7/access_tokens",
            ),
            ("/**/api_keys", "/api_keys"),
            ("/**/api_keys", "/v1/a/b/api_keys"),
            ("/v1/keys/**", "/v1/keys"),
            ("/v1/keys/**", "/v1/keys/a/b"),
            ("/v1/*:generate*", "/v1/x%3AgenerateAccessToken"),
            ("/v1/accounts/*/tokens", "/v1/accounts/tokens/tokens"),
            ("/a*b*c", "/aXbYbZc"),
        ] {
            assert!(denied(pattern).matches(path), "{pattern} {path}");
        }
        for (pattern, path) in [
            (
                "/app/installations/*/access_tokens",
                "/app/installations/access_tokens",
            ),
            (
                "/app/installations/*/access_tokens",
                "/app/installations/7/8/access_tokens",
            ),
            ("/v1/keys/**", "/v1/keyss"),
            ("/v1/*:generate*", "/v1/x:list"),
            ("/a*b*c", "/aXbY"),
        ] {
            assert!(!denied(pattern).matches(path), "{pattern} {path}");
        }
    }

    #[test]
    fn only_a_glob_that_lies_within_a_denied_path_names_it() {
        for (pattern, glob) in [
            ("/v1/keys", "/v1/keys"),
            (
                "/app/installations/*/access_tokens",
                "/app/installations/*/access_tokens",
            ),
            (
                "/app/installations/*/access_tokens",
                "/app/installations/7/access_tokens",
            ),
            ("/v1/keys/**", "/v1/keys/**"),
            ("/v1/keys/**", "/v1/keys/*"),
            ("/v1/keys/**", "/v1/keys"),
        ] {
            assert!(denied(pattern).holds(glob), "{pattern} {glob}");
        }
        for (pattern, glob) in [
            ("/v1/keys", "/**"),
            ("/v1/keys", "/v1/**"),
            ("/v1/keys", "/v1/*"),
            ("/v1/keys", "/v1/key*"),
            ("/v1/*/token", "/v1/**"),
            ("/v1/*", "/v1/**"),
            ("/v1/*", "/**"),
            ("/v1/keys/**", "/v1/*"),
            ("/v1/keys", "/v1/keys.*"),
        ] {
            assert!(!denied(pattern).holds(glob), "{pattern} {glob}");
        }
    }

    const TEMPLATE: &str = r#"
name  = "acme"
hosts = ["api.acme.example", "auth.acme.example"]
keys  = { ACME_KEY = "required" }

[[inject]]
header = "x-key"
value  = "${ACME_KEY}"

[[deny]]
why     = "makes API keys"
methods = ["POST"]
paths   = ["/v1/keys"]

[[deny]]
why   = "hands out access tokens"
hosts = ["auth.acme.example"]
paths = ["/token"]
"#;

    #[test]
    fn a_rule_is_about_its_own_hosts_and_methods() {
        let template = parse_template("acme.toml", TEMPLATE).unwrap();
        let is_denied = |method: &str, host: &str, path: &str, named: &[&'static str]| {
            let named = named.to_vec();
            template
                .denied(host, method, path, || named.clone().into_iter())
                .is_some()
        };
        assert!(is_denied("POST", "api.acme.example", "/v1/keys", &[]));
        assert!(is_denied("POST", "api.acme.example", "/v1/keys", &["/**"]));
        assert!(!is_denied("GET", "api.acme.example", "/v1/keys", &[]));
        assert!(!is_denied(
            "POST",
            "api.acme.example",
            "/v1/keys",
            &["/**", "/v1/keys"]
        ));
        assert!(is_denied("GET", "auth.acme.example", "/token", &[]));
        assert!(!is_denied("GET", "api.acme.example", "/token", &[]));
    }

    #[test]
    fn a_denial_says_what_the_endpoint_does_and_which_path_allows_it() {
        let template = parse_template("acme.toml", TEMPLATE).unwrap();
        let denied = template
            .denied("api.acme.example", "POST", "/V1/keys", std::iter::empty)
            .unwrap();
        assert_eq!(
            denied.to_string(),
            "the template acme denies an endpoint that makes API keys, unless the grant names it; ask for a grant whose paths hold `/v1/keys`, beside `/**` if all others shall stay allowed"
        );
    }

    #[test]
    fn a_method_that_a_path_does_not_name_is_denied_apart() {
        let text = format!(
            "{TEMPLATE}\n[[deny]]\nwhy = \"deletes a site\"\nmethods = [\"DELETE\"]\nby_method = true\npaths = [\"/v1/sites/*\"]\n"
        );
        let template = parse_template("acme.toml", &text).unwrap();
        let of_methods = template.denials().iter().map(Denial::is_by_method);
        assert!(
            of_methods.eq([false, false, true]),
            "{:?}",
            template.denials()
        );
        let host = "api.acme.example";
        let none = template.denied(host, "DELETE", "/v1/sites/a", std::iter::empty);
        assert!(none.is_none(), "{none:?}");
        for (method, path) in [("GET", "/v1/sites/a"), ("DELETE", "/v1/sites/a/pages")] {
            assert!(template.denied_unlisted(host, method, path).is_none());
        }
        let denied = template.denied_unlisted(host, "DELETE", "/v1/Sites/a/");
        assert_eq!(
            denied.unwrap().to_string(),
            "the template acme denies DELETE of `/v1/sites/*`, which deletes a site, to a grant that limits its paths, unless its methods list it; ask for a grant whose methods hold DELETE"
        );
    }

    #[test]
    fn many_stars_take_no_longer_than_the_product_of_the_lengths() {
        let pattern = denied(&("/**/a*a*a*b".repeat(8) + "/c"));
        assert!(!pattern.matches(&"/aaaaaaaaaaaaaaaa".repeat(200)));
    }
}
