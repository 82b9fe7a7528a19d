//! Which identity provider vouches for people here, and for whom it may.

use std::fmt;
use std::net::IpAddr;

use axum::http::Uri;
use thiserror::Error;
use zeroize::Zeroizing;

use super::Issuer;

/// The identity provider of an installation.
#[derive(Clone)]
pub struct OidcOptions {
    /// The provider.
    pub issuer: Issuer,
    /// What this installation is to it.
    pub client_id: String,
    /// What it proves that by; a public client has none, and leans on PKCE alone.
    pub client_secret: Option<Zeroizing<String>>,
    /// Where the provider sends browsers back to: this API's `/v1/auth/oidc/callback` as browsers reach it. Without it terminals
    /// alone sign in, by addresses of their own machine.
    pub redirect_url: Option<RedirectUrl>,
    /// Domains of emails, in lower case, of which each is let in. With neither domains nor emails everybody is whom the
    /// provider vouches for.
    pub allowed_domains: Vec<String>,
    /// Emails, canonical, that are let in beside those of the domains.
    pub allowed_emails: Vec<String>,
    /// What becomes of those who have no account.
    pub sign_up: OidcSignUp,
}

/// What becomes of somebody whom the provider vouches for and who has no account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OidcSignUp {
    /// An open invitation to the email is accepted; without one there is none.
    #[default]
    Invited,
    /// The same, and whoever is not invited gets an organisation of their own.
    Open,
}

/// Where a provider sends an answer: a URL without fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectUrl(String);

/// Why a text is no such URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "must be https://HOST/v1/auth/oidc/callback as browsers reach this API, or http:// on this machine"
)]
pub struct InvalidRedirect;

impl OidcOptions {
    /// Whether the provider is Google, whose emails of other domains may outlive their owners (it vouches for a domain by `hd`).
    pub(crate) fn is_google(&self) -> bool {
        self.issuer.as_str() == Issuer::GOOGLE
    }

    /// Whether everybody is let in.
    pub(crate) fn lets_everybody_in(&self) -> bool {
        self.allowed_domains.is_empty() && self.allowed_emails.is_empty()
    }

    /// Whether the owner of a verified email is let in. `hosted` is the domain that the provider itself manages for it.
    pub(crate) fn lets_in(&self, email: &str, hosted: Option<&str>) -> bool {
        let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
        let is_named = self.allowed_emails.iter().any(|allowed| allowed == email);
        let is_of_domain = self.allowed_domains.iter().any(|allowed| allowed == domain);
        let is_vouched = !self.is_google() || hosted.is_some_and(|hosted| hosted == domain);
        self.lets_everybody_in() || is_named || (is_of_domain && is_vouched)
    }
}

impl RedirectUrl {
    /// Reads what an operator configures.
    ///
    /// # Errors
    /// [`InvalidRedirect`].
    pub fn parse(text: &str) -> Result<Self, InvalidRedirect> {
        let uri = plain(text).ok_or(InvalidRedirect)?;
        let is_safe = uri.scheme_str() == Some("https") || is_loopback(&uri);
        if is_safe && uri.path() == CALLBACK && uri.query().is_none() {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidRedirect)
        }
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether browsers reach it by TLS, so that a cookie is never sent without.
    pub(crate) fn is_secure(&self) -> bool {
        self.0.starts_with("https://")
    }
}

/// Whether a terminal on its own machine may be sent an answer there (RFC 8252, section 7.3): an address and no name, for
/// names are what others may answer for.
pub(crate) fn is_terminal(text: &str) -> bool {
    plain(text).is_some_and(|uri| is_loopback(&uri) && uri.query().is_none())
}

fn plain(text: &str) -> Option<Uri> {
    let is_plain = text.len() <= MAX_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && !text.contains(['#', '@', '\\', '"']);
    is_plain.then(|| text.parse().ok()).flatten()
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let address = host.parse::<IpAddr>();
    uri.scheme_str() == Some("http") && address.is_ok_and(|address| address.is_loopback())
}

impl fmt::Debug for OidcOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OidcOptions")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .field("sign_up", &self.sign_up)
            .finish_non_exhaustive()
    }
}

const CALLBACK: &str = "/v1/auth/oidc/callback";
const MAX_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn options(issuer: &str, domains: &[&str], emails: &[&str]) -> OidcOptions {
        OidcOptions {
            issuer: Issuer::parse(issuer).unwrap(),
            client_id: "claviger".to_owned(),
            client_secret: Some(Zeroizing::new("canary".to_owned())),
            redirect_url: None,
            allowed_domains: domains.iter().map(ToString::to_string).collect(),
            allowed_emails: emails.iter().map(ToString::to_string).collect(),
            sign_up: OidcSignUp::Invited,
        }
    }

    #[test]
    fn domains_and_emails_let_in_and_nothing_like_them_does() {
        let some = options(
            "https://id.example.org",
            &["example.org"],
            &["eve@else.example"],
        );
        assert!(some.lets_in("ada@example.org", None));
        assert!(some.lets_in("eve@else.example", None));
        for other in [
            "ada@else.example",
            "ada@sub.example.org",
            "ada@example.org.else.example",
            "ada@xexample.org",
        ] {
            assert!(!some.lets_in(other, None), "{other}");
        }
        assert!(options("https://id.example.org", &[], &[]).lets_in("ada@any.example", None));
    }

    #[test]
    fn google_vouches_for_a_domain_that_it_hosts_alone() {
        let google = options(Issuer::GOOGLE, &["example.org"], &["eve@else.example"]);
        assert!(google.lets_in("ada@example.org", Some("example.org")));
        assert!(!google.lets_in("ada@example.org", None));
        assert!(!google.lets_in("ada@example.org", Some("else.example")));
        assert!(google.lets_in("eve@else.example", None));
    }

    #[test]
    fn an_answer_goes_to_this_api_or_to_an_address_of_the_terminal() {
        for good in [
            "https://keys.example.org/v1/auth/oidc/callback",
            "http://127.0.0.1:8181/v1/auth/oidc/callback",
        ] {
            assert_eq!(RedirectUrl::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "http://keys.example.org/v1/auth/oidc/callback",
            "https://keys.example.org/",
            "https://keys.example.org/v1/auth/oidc/callback?next=x",
            "https://ada@keys.example.org/v1/auth/oidc/callback",
            "/v1/auth/oidc/callback",
        ] {
            assert_eq!(RedirectUrl::parse(bad), Err(InvalidRedirect), "{bad}");
        }
        assert!(is_terminal("http://127.0.0.1:40123/callback"));
        assert!(is_terminal("http://[::1]:40123/callback"));
        for bad in [
            "http://localhost:40123/callback",
            "https://127.0.0.1:40123/callback",
            "http://127.0.0.1.evil.example/callback",
            "http://127.0.0.1@evil.example/callback",
            "http://evil.example/callback",
            "http://127.0.0.1:40123/callback?x=1",
            "claviger://callback",
        ] {
            assert!(!is_terminal(bad), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", options("https://id.example.org", &[], &[]));
        assert!(!text.contains("canary"), "{text}");
    }
}
