//! Step 1: one canonical target. What policy sees is, byte for byte, what is forwarded.
//!
//! Nothing is repaired: a target that two programs could read in two ways is refused (threats.md B5-B8, B12).

use std::sync::Arc;

use http::{HeaderMap, Version};
use leases::authorize::MAX_PATH_BYTES;
use pingora::http::RequestHeader;
use providers::host::{Authority, Host, Scheme};
use providers::method;
use providers::template::Template;

use crate::refuse::{Code, Refusal};

/// Where a request goes, in canonical form.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// The path without its query, as policy and audit see it: with `*` for what a template puts a credential in place of.
    pub(crate) path: Arc<str>,
    /// The path as the agent wrote it.
    pub(crate) written: Arc<str>,
    /// The query without its `?`.
    pub(crate) query: Option<Arc<str>>,
    /// Whether the path holds `%2F`, which only some providers' templates allow.
    pub(crate) has_encoded_slash: bool,
}

impl Target {
    /// What policy sees of it as a URL: without the query.
    pub(crate) fn url(&self) -> String {
        let Self {
            scheme, host, port, ..
        } = self;
        let port = match port {
            port if *port == default_port(*scheme) => String::new(),
            port => format!(":{port}"),
        };
        format!("{}://{host}{port}{}", scheme_name(*scheme), self.path)
    }

    fn new(endpoint: Endpoint, path: &str, query: Option<&str>) -> Result<Self, Refusal> {
        if path.len() > MAX_PATH_BYTES {
            return Err(Refusal::new(
                Code::UriTooLong,
                format!(
                    "the path is longer than {MAX_PATH_BYTES} bytes, the most that leases are asked about; put what is long into the query or the body"
                ),
            ));
        }
        let has_encoded_slash = check_path(path, endpoint.host.as_str())?;
        if let Some(query) = query {
            check_query(query)?;
        }
        let path: Arc<str> = path.into();
        Ok(Self {
            scheme: endpoint.scheme,
            host: endpoint.host,
            port: endpoint.port,
            path: Arc::clone(&path),
            written: path,
            query: query.map(Into::into),
            has_encoded_slash,
        })
    }

    /// Another path, and perhaps another host, that is reached as this one is: what a field of the request names.
    pub(crate) fn beside(&self, host: &str, path: &str) -> Result<Self, Refusal> {
        let endpoint = Endpoint {
            scheme: self.scheme,
            host: parse_authority(host)?.host,
            port: self.port,
        };
        Self::new(endpoint, path, None)
    }

    /// Hides what the agent wrote where one of these templates puts a credential into the path, so that grants and the
    /// audit trail name such paths in one form.
    pub(crate) fn mask<'t>(&mut self, templates: impl Iterator<Item = &'t Arc<Template>>) {
        let mut masked =
            templates.filter_map(|template| template.mask_path(self.host.as_str(), &self.written));
        if let Some(path) = masked.next() {
            self.path = path.into();
        }
    }

    /// Refuses an encoded slash where the template does not say that it is part of a segment.
    pub(crate) fn check_encoded_slash(&self, template: Option<&Template>) -> Result<(), Refusal> {
        if self.has_encoded_slash && !template.is_some_and(Template::allows_encoded_slash) {
            return Err(ambiguous(providers::path::ENCODED_SLASH));
        }
        Ok(())
    }
}

/// An endpoint that a tunnel was opened to.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host,
    pub(crate) port: u16,
}

impl Endpoint {
    /// Whether a Host without a port means this endpoint. Cleartext inside a tunnel to port 443 is meant, too, so that
    /// it is refused for being cleartext.
    fn is_common_port(&self) -> bool {
        self.port == default_port(self.scheme) || (self.scheme == Scheme::Http && self.port == 443)
    }

    /// Reads the target of a CONNECT: a host and, always, a port. Its scheme is known with the first bytes inside.
    pub(crate) fn of_connect(target: &str) -> Result<Self, Refusal> {
        let authority = parse_authority(target)?;
        let port = authority
            .port
            .ok_or_else(|| ambiguous("CONNECT names no port; write CONNECT host:443"))?;
        Ok(Self {
            scheme: Scheme::Https,
            host: authority.host,
            port,
        })
    }

    /// Whether an authority from inside the tunnel, such as a Host field, names this endpoint.
    pub(crate) fn agrees(&self, authority: &str) -> Result<(), Refusal> {
        if authority == self.host.as_str() && self.port == default_port(self.scheme) {
            return Ok(());
        }
        let named = parse_authority(authority)?;
        if named.host == self.host
            && named
                .port
                .map_or(self.is_common_port(), |port| port == self.port)
        {
            return Ok(());
        }
        Err(Refusal::new(
            Code::AuthorityMismatch,
            format!(
                "the request names {} beside {}:{}; send each request to the one host that it names",
                named.host, self.host, self.port
            ),
        ))
    }
}

/// The parts of a request target as the agent wrote it (RFC 9112 section 3.2, RFC 9113 section 8.3.1).
///
/// Pingora's URI keeps only the path of an absolute-form target, so HTTP/1 is read from the raw target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawTarget<'a> {
    scheme: Option<&'a str>,
    pub(crate) authority: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
}

impl<'a> RawTarget<'a> {
    pub(crate) fn of(request: &'a RequestHeader) -> Result<Self, Refusal> {
        if request.version == Version::HTTP_2 {
            let uri = &request.uri;
            return Ok(Self {
                scheme: uri.scheme_str(),
                authority: uri.authority().map(http::uri::Authority::as_str),
                path: uri.path(),
                query: uri.query(),
            });
        }
        let raw = std::str::from_utf8(request.raw_path()).map_err(|_| {
            ambiguous("the request target holds bytes that must be percent-encoded")
        })?;
        Self::parse(raw)
    }

    pub(crate) fn parse(raw: &'a str) -> Result<Self, Refusal> {
        if raw == "*" || raw.starts_with('/') {
            let (path, query) = split_query(raw);
            return Ok(Self {
                scheme: None,
                authority: None,
                path,
                query,
            });
        }
        let (scheme, rest) = raw
            .split_once("://")
            .ok_or_else(|| ambiguous("the request target is neither a path nor an absolute URL"))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (path, query) = split_query(&rest[end..]);
        Ok(Self {
            scheme: Some(scheme),
            authority: Some(&rest[..end]),
            path: if path.is_empty() { "/" } else { path },
            query,
        })
    }

    /// Whether the proxy itself is addressed by a full URL.
    pub(crate) fn is_absolute(&self) -> bool {
        self.scheme.is_some()
    }

    /// Whether the target stands on the wire as path and query alone.
    pub(crate) fn is_origin_form(&self) -> bool {
        self.authority.is_none()
    }

    pub(crate) fn scheme(&self) -> Result<Scheme, Refusal> {
        match self.scheme {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => Ok(Scheme::Https),
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => Ok(Scheme::Http),
            _ => Err(ambiguous(
                "the scheme of the request target is not http or https",
            )),
        }
    }
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    text.split_once('?')
        .map_or((text, None), |(path, query)| (path, Some(query)))
}

/// The target of a request inside a tunnel: its path, once its authority agrees with the tunnel's.
pub(crate) fn inside(tunnel: &Endpoint, request: &RequestHeader) -> Result<Target, Refusal> {
    method(request)?;
    let raw = RawTarget::of(request)?;
    if raw.path == "*" && request.method != http::Method::OPTIONS {
        return Err(ambiguous("only OPTIONS takes the target `*`"));
    }
    if let Some(authority) = raw.authority {
        if raw.scheme()? != tunnel.scheme {
            return Err(ambiguous(
                "the scheme of the request target is not the tunnel's",
            ));
        }
        tunnel.agrees(authority)?;
    }
    match host_field(&request.headers)? {
        Some(host) => tunnel.agrees(host)?,
        None if request.version == Version::HTTP_2 && raw.authority.is_some() => {}
        None if request.version == Version::HTTP_10 => {}
        None => {
            return Err(ambiguous(
                "the request names no host; send exactly one Host field",
            ));
        }
    }
    Target::new(tunnel.clone(), raw.path, raw.query)
}

/// The target of an absolute-form request: its own authority, with which Host must agree (RFC 9112 section 3.2.2).
/// `host` is what Host said where the request at hand has it in another spelling.
pub(crate) fn absolute(request: &RequestHeader, host: Option<&str>) -> Result<Target, Refusal> {
    method(request)?;
    let raw = RawTarget::of(request)?;
    let scheme = raw.scheme()?;
    let authority = parse_authority(raw.authority.unwrap_or_default())?;
    let endpoint = Endpoint {
        scheme,
        host: authority.host,
        port: authority.port.unwrap_or(default_port(scheme)),
    };
    let field = host_field(&request.headers)?;
    if let Some(host) = host.or(field) {
        endpoint.agrees(host)?;
    }
    Target::new(endpoint, raw.path, raw.query)
}

/// The target of a gateway request: the provider's host, and the path behind `/gateway/<provider>`.
pub(crate) fn gateway(
    host: Host,
    port: u16,
    path: &str,
    query: Option<&str>,
) -> Result<Target, Refusal> {
    let endpoint = Endpoint {
        scheme: Scheme::Https,
        host,
        port,
    };
    Target::new(endpoint, path, query)
}

fn check_query(query: &str) -> Result<(), Refusal> {
    providers::path::check_query(query).map_err(|odd| ambiguous(odd.as_str()))
}

/// Refuses a query that names another method than the request's (threats.md B10).
pub(crate) fn check_named_method(query: Option<&str>, method: &str) -> Result<(), Refusal> {
    method::check_query(query, method).map_err(|other| ambiguous(other.to_string()))
}

pub(crate) fn method(request: &RequestHeader) -> Result<(), Refusal> {
    check_method(request.method.as_str())
}

/// Only methods of a short list are proxied.
pub(crate) fn check_method(method: &str) -> Result<(), Refusal> {
    method::check(method).map_err(|other| Refusal::new(Code::MethodNotAllowed, other.to_string()))
}

/// Refuses a path that a server may read otherwise than the policy does. Says whether it holds `%2F`.
fn check_path(path: &str, host: &str) -> Result<bool, Refusal> {
    providers::path::check(path, host).map_err(|odd| ambiguous(odd.as_str()))
}

/// The one Host field, if there is one.
fn host_field(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut all = headers.get_all(http::header::HOST).iter();
    let first = all.next();
    if all.next().is_some() {
        return Err(ambiguous("Host is given twice"));
    }
    first
        .map(|value| {
            value
                .to_str()
                .map_err(|_| ambiguous("Host is not visible ASCII"))
        })
        .transpose()
}

pub(crate) fn parse_authority(text: &str) -> Result<Authority, Refusal> {
    Authority::parse(text).map_err(|error| ambiguous(error.to_string()))
}

pub(crate) fn default_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Https => 443,
        Scheme::Http => 80,
    }
}

pub(crate) fn scheme_name(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Https => "https",
        Scheme::Http => "http",
    }
}

fn ambiguous(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(Code::AmbiguousRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, host: Option<&str>) -> RequestHeader {
        let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        if let Some(host) = host {
            request.append_header("host", host).unwrap();
        }
        request
    }

    fn tunnel() -> Endpoint {
        Endpoint::of_connect("api.example.com:443").unwrap()
    }

    #[test]
    fn equal_spellings_of_the_tunnels_host_agree() {
        for host in [
            "api.example.com",
            "API.example.com",
            "api.example.com:443",
            "api.example.com.",
        ] {
            inside(&tunnel(), &request("/v1", Some(host))).unwrap();
        }
    }

    #[test]
    fn another_host_in_a_tunnel_is_a_mismatch() {
        for host in [
            "evil.example.com",
            "api.example.com:8443",
            "api.example.com.evil.io",
        ] {
            let refusal = inside(&tunnel(), &request("/v1", Some(host))).unwrap_err();
            assert_eq!(refusal.code, Code::AuthorityMismatch, "{host}");
        }
        let refusal = inside(
            &tunnel(),
            &request("https://b.example.com/v1", Some("api.example.com")),
        )
        .unwrap_err();
        assert_eq!(refusal.code, Code::AuthorityMismatch);
    }

    #[test]
    fn a_host_without_a_port_means_the_usual_one() {
        let tunnel = |scheme, port| Endpoint {
            scheme,
            port,
            ..tunnel()
        };
        for (scheme, port, host, agrees) in [
            (Scheme::Https, 443, "api.example.com", true),
            (Scheme::Https, 8443, "api.example.com", false),
            (Scheme::Https, 8443, "API.example.com", false),
            (Scheme::Https, 8443, "api.example.com:8443", true),
            (Scheme::Https, 80, "Api.example.com", false),
            (Scheme::Http, 80, "Api.example.com", true),
            (Scheme::Http, 443, "Api.example.com", true),
            (Scheme::Http, 8080, "Api.example.com", false),
            (Scheme::Http, 443, "api.example.com:80", false),
        ] {
            let checked = tunnel(scheme, port).agrees(host).map_err(|r| r.code);
            let expected = if agrees {
                Ok(())
            } else {
                Err(Code::AuthorityMismatch)
            };
            assert_eq!(checked, expected, "{host} at {port}");
        }
    }

    #[test]
    fn a_tunnel_is_opened_to_a_host_and_a_port() {
        let endpoint = Endpoint::of_connect("API.example.com:8443").unwrap();
        assert_eq!(
            (endpoint.host.as_str(), endpoint.port),
            ("api.example.com", 8443)
        );
        for target in ["api.example.com", "https://api.example.com:443", "", ":443"] {
            let refusal = Endpoint::of_connect(target).unwrap_err();
            assert_eq!(refusal.code, Code::AmbiguousRequest, "{target:?}");
        }
    }

    #[test]
    fn the_host_may_be_left_out_only_where_the_protocol_says_it_otherwise() {
        let of = |version, uri: Option<&str>, host: Option<&str>| {
            let mut request = request("/v1", host);
            request.set_version(version);
            if let Some(uri) = uri {
                request.set_uri(uri.parse().unwrap());
            }
            let target = inside(&tunnel(), &request).map_err(|refusal| refusal.code)?;
            Ok(target.written.to_string())
        };
        let host = "api.example.com";
        for (version, uri, host, expected) in [
            (Version::HTTP_10, None, None, Ok("/v1")),
            (Version::HTTP_11, None, None, Err(Code::AmbiguousRequest)),
            (
                Version::HTTP_2,
                Some("https://api.example.com/v2"),
                None,
                Ok("/v2"),
            ),
            (
                Version::HTTP_2,
                Some("https://api.example.com/v2"),
                Some(host),
                Ok("/v2"),
            ),
            (
                Version::HTTP_2,
                Some("/v2"),
                None,
                Err(Code::AmbiguousRequest),
            ),
            (
                Version::HTTP_2,
                Some("http://api.example.com/v2"),
                None,
                Err(Code::AmbiguousRequest),
            ),
            (
                Version::HTTP_2,
                Some("https://b.example.com/v2"),
                Some(host),
                Err(Code::AuthorityMismatch),
            ),
            (
                Version::HTTP_2,
                Some("https://api.example.com/v2"),
                Some("b.example.com"),
                Err(Code::AuthorityMismatch),
            ),
        ] {
            assert_eq!(
                of(version, uri, host),
                expected.map(str::to_owned),
                "{version:?} {uri:?} {host:?}"
            );
        }
        let mut twice = request("/v1", Some(host));
        twice.append_header("host", host).unwrap();
        let refusal = inside(&tunnel(), &twice).unwrap_err();
        assert_eq!(refusal.code, Code::AmbiguousRequest);
    }

    #[test]
    fn only_options_asks_about_a_whole_server() {
        let of = |method: &str| {
            let mut request = request("*", Some("api.example.com"));
            request.set_method(method.parse().unwrap());
            inside(&tunnel(), &request).map_err(|refusal| refusal.code)
        };
        assert_eq!(of("GET").err(), Some(Code::AmbiguousRequest));
        assert_eq!(&*of("OPTIONS").unwrap().path, "*");
    }

    #[test]
    fn a_full_url_says_where_it_goes_and_host_agrees_with_it() {
        let of = |url: &str, host: Option<&str>, as_sent: Option<&str>| {
            absolute(&request(url, host), as_sent).map_err(|refusal| refusal.code)
        };
        for (url, host, port, path, query, seen) in [
            (
                "https://API.example.com/v1?a=1",
                None,
                443,
                "/v1",
                Some("a=1"),
                "https://api.example.com/v1",
            ),
            (
                "http://api.example.com",
                Some("api.example.com"),
                80,
                "/",
                None,
                "http://api.example.com/",
            ),
            (
                "HTTP://api.example.com?a",
                None,
                80,
                "/",
                Some("a"),
                "http://api.example.com/",
            ),
            (
                "https://api.example.com:80/",
                Some("api.example.com:80"),
                80,
                "/",
                None,
                "https://api.example.com:80/",
            ),
            (
                "http://api.example.com:443/",
                None,
                443,
                "/",
                None,
                "http://api.example.com:443/",
            ),
        ] {
            let target = of(url, host, None).unwrap();
            assert_eq!(
                (target.port, &*target.path, target.query.as_deref()),
                (port, path, query),
                "{url}"
            );
            assert_eq!(target.url(), seen);
        }
        let url = "https://api.example.com/v1";
        for (url, host, as_sent, code) in [
            (url, Some("b.example.com"), None, Code::AuthorityMismatch),
            (
                url,
                Some("api.example.com"),
                Some("b.example.com"),
                Code::AuthorityMismatch,
            ),
            ("ftp://api.example.com/", None, None, Code::AmbiguousRequest),
            ("https:///v1", None, None, Code::AmbiguousRequest),
        ] {
            assert_eq!(of(url, host, as_sent).unwrap_err(), code, "{url} {host:?}");
        }
        assert!(of(url, Some("b.example.com"), Some("api.example.com")).is_ok());
    }

    #[test]
    fn a_target_stands_on_the_wire_as_a_path_or_as_a_url() {
        for (raw, is_absolute, is_origin_form, path, query) in [
            ("/v1?a=1?b", false, true, "/v1", Some("a=1?b")),
            ("/http://x", false, true, "/http://x", None),
            ("*", false, true, "*", None),
            ("https://a.example", true, false, "/", None),
            ("https://a.example?a", true, false, "/", Some("a")),
        ] {
            let target = RawTarget::parse(raw).unwrap();
            let form = (target.is_absolute(), target.is_origin_form());
            assert_eq!(form, (is_absolute, is_origin_form), "{raw}");
            assert_eq!((target.path, target.query), (path, query), "{raw}");
        }
        for raw in ["v1", "", "api.example.com:443"] {
            let refusal = RawTarget::parse(raw).unwrap_err();
            assert_eq!(refusal.code, Code::AmbiguousRequest, "{raw}");
        }
    }

    #[test]
    fn policy_sees_a_mask_where_a_credential_stands_in_the_path() {
        let catalog = providers::Catalog::builtin();
        let telegram = catalog.get("telegram").unwrap();
        for (url, seen) in [
            ("https://api.telegram.org/bot123:abc/getMe", "/bot*/getMe"),
            ("https://api.telegram.org/other", "/other"),
            ("https://api.telegram.org/v1/bot123:abc", "/v1/bot123:abc"),
        ] {
            let mut target = absolute(&request(url, None), None).unwrap();
            target.mask([&telegram].into_iter());
            assert_eq!(&*target.path, seen);
            assert!(url.ends_with(&*target.written), "{}", target.written);
        }
    }

    #[test]
    fn odd_hosts_are_ambiguous() {
        for host in [
            "a, b",
            "",
            "user@api.example.com",
            "api.example.com/x",
            "api.example.com:0443",
            "api.example.com:",
        ] {
            let refusal = inside(&tunnel(), &request("/v1", Some(host))).unwrap_err();
            assert_eq!(refusal.code, Code::AmbiguousRequest, "{host:?}");
        }
        let refusal = inside(&tunnel(), &request("/v1", None)).unwrap_err();
        assert_eq!(refusal.code, Code::AmbiguousRequest);
    }

    #[test]
    fn ordinary_paths_pass_unchanged() {
        for path in [
            "/",
            "/v1/charges",
            "/a%20b",
            "/caf%C3%A9",
            "/v1/files/a.b..c/",
            "/x;y=1",
            "/.well-known/x",
            "/..a/%2e%2e%2e/...;x",
            "/.%2e.%3bx/x%3b..",
            "/100%25",
            "/100%25/2e",
            "/100%25%20",
        ] {
            let target = inside(&tunnel(), &request(path, Some("api.example.com"))).unwrap();
            assert_eq!(&*target.path, path);
        }
    }

    #[test]
    fn a_query_passes_as_it_is_or_not_at_all() {
        let target = |query: &str| {
            let path = format!("/v1?{query}");
            inside(&tunnel(), &request(&path, Some("api.example.com")))
        };
        let plain = "a=%C3%A9&b[]=x&c=%252e;d";
        assert_eq!(target(plain).unwrap().query.as_deref(), Some(plain));
        let refusal = target("a=caf\u{e9}").unwrap_err();
        assert_eq!(refusal.code, Code::AmbiguousRequest);
    }

    #[test]
    fn a_path_that_no_lease_is_asked_about_is_too_long() {
        let path = |length: usize| format!("/{}", "a".repeat(length - 1));
        let target = |path: &str| inside(&tunnel(), &request(path, Some("api.example.com")));
        assert!(target(&path(MAX_PATH_BYTES)).is_ok());
        let refusal = target(&path(MAX_PATH_BYTES + 1)).unwrap_err();
        assert_eq!(refusal.code, Code::UriTooLong);
        assert!(refusal.detail.contains("4096"), "{}", refusal.detail);
        let query = format!("/a?{}", path(MAX_PATH_BYTES));
        assert!(target(&query).is_ok());
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        let paths = [
            "/v1/../admin",
            "/v1/./x",
            "/..",
            "/v1/%2e%2e/admin",
            "/v1/%2E./admin",
            "/v1/..;/admin",
            "//x",
            "/a//b",
            "/a%5cb",
            "/a%00",
            "/a%0d%0a",
            "/a%252e",
            "/a%25%32%65",
            "/a%252%65",
            "/a%25%32e",
            "/v1/%25%32%65%25%32%65%25%32%66admin",
            "/v1/..%3b/admin",
            "/v1/..%3Bx/admin",
            "/v1/%2e%2e%3b/admin",
            "/v1/%2e.%3bx=1/admin",
            "/v1/.%3b/admin",
            "/%c0%ae",
            "/a%zz",
            "/a%",
            "/a%2",
        ];
        for path in paths {
            let refusal = check_path(path, "api.example.com").unwrap_err();
            assert_eq!(refusal.code, Code::AmbiguousRequest, "{path}");
        }
        assert!(check_path("/a\\b", "api.example.com").is_err());
    }

    #[test]
    fn keys_at_amazon_s3_are_taken_as_they_stand() {
        let (by_path, by_host) = (
            "s3.us-east-1.amazonaws.com",
            "data.s3.us-east-1.amazonaws.com",
        );
        for path in [
            "/data/a//b",
            "/data/./a",
            "/data/a/../b",
            "/data/a/b/../..",
            "/data//",
        ] {
            assert_eq!(check_path(path, by_path), Ok(false), "{path}");
        }
        assert_eq!(check_path("//a", by_host), Ok(false));
        for (path, host) in [
            ("/data/../other/key", by_path),
            ("/data/a/../../b", by_path),
            ("/data/a//../../b", by_path),
            ("//data/key", by_path),
            ("/../data/key", by_path),
            ("/data/%2e%2e/key", by_path),
            ("/data/a/..;x/key", by_path),
            ("/../key", by_host),
            ("/data/a%2Fb//c", by_path),
            ("/a//b", "sqs.us-east-1.amazonaws.com"),
            ("/a//b", "1.s3-control.us-east-1.amazonaws.com"),
        ] {
            assert!(check_path(path, host).is_err(), "{host}{path}");
        }
    }

    #[test]
    fn an_encoded_slash_passes_only_where_the_template_says_so() {
        let catalog = providers::Catalog::builtin();
        for path in ["/a%2fb", "/a%2Fb"] {
            let target = inside(&tunnel(), &request(path, Some("api.example.com"))).unwrap();
            assert!(target.check_encoded_slash(None).is_err(), "{path}");
            assert!(
                target
                    .check_encoded_slash(catalog.get("stripe").as_deref())
                    .is_err(),
                "{path}"
            );
            assert!(
                target
                    .check_encoded_slash(catalog.get("gitlab").as_deref())
                    .is_ok(),
                "{path}"
            );
        }
        for path in [
            "/a%2f..%2fb",
            "/a%2f%2e%2e",
            "/%2f.%2F",
            "/%2f%2fx",
            "/%2fx",
        ] {
            assert!(check_path(path, "api.example.com").is_err(), "{path}");
        }
    }

    #[test]
    fn methods_outside_the_list_are_refused() {
        for name in ["TRACE", "CONNECT", "get", "PRI", "TRACK"] {
            let request = RequestHeader::build(name, b"/", None).unwrap();
            let refusal = method(&request).unwrap_err();
            assert_eq!(refusal.code, Code::MethodNotAllowed, "{name}");
            assert!(
                refusal
                    .detail
                    .starts_with(&format!("{name} is not proxied"))
            );
        }
        let long = check_method(&"X".repeat(1_000)).unwrap_err();
        assert!(
            long.detail
                .starts_with(&format!("{} is not", "X".repeat(32)))
        );
        for name in method::PROXIED.split(", ") {
            assert_eq!(check_method(name), Ok(()));
        }
    }
}
