//! The issuer of an identity provider: a URL that is compared letter by letter.

use std::fmt;

use axum::http::Uri;
use thiserror::Error;

/// An issuer (OpenID Connect Discovery 1.0, section 3): `https://`, a host, perhaps a port and a path, and nothing else; at most
/// 512 bytes of ASCII. `http://` is taken as well, for the outbound policy lets it reach this machine alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Issuer(String);

/// Why a text is no issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "is no issuer; write it as the provider names itself, like https://id.example.org, without a query or a fragment"
)]
pub struct InvalidIssuer;

impl Issuer {
    /// Google's, which `google` stands for in the configuration.
    pub const GOOGLE: &'static str = "https://accounts.google.com";

    /// Reads an issuer. Nothing is made equal: a slash more names another one.
    ///
    /// # Errors
    /// [`InvalidIssuer`].
    pub fn parse(text: &str) -> Result<Self, InvalidIssuer> {
        let is_plain = text.len() <= MAX_BYTES
            && text.bytes().all(|byte| byte.is_ascii_graphic())
            && !text.contains(['?', '#', '@', '\\', '"']);
        let uri: Uri = text.parse().map_err(|_| InvalidIssuer)?;
        let is_web = matches!(uri.scheme_str(), Some("https" | "http"));
        if is_plain && is_web && uri.host().is_some_and(|host| !host.is_empty()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidIssuer)
        }
    }

    /// The issuer as its tokens name it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it describes itself (OpenID Connect Discovery 1.0, section 4).
    pub(crate) fn document(&self) -> String {
        let base = self.0.strip_suffix('/').unwrap_or(&self.0);
        format!("{base}/.well-known/openid-configuration")
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const MAX_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_describes_itself_below_its_path() {
        for (issuer, document) in [
            (
                "https://id.example.org",
                "https://id.example.org/.well-known/openid-configuration",
            ),
            (
                "https://id.example.org/",
                "https://id.example.org/.well-known/openid-configuration",
            ),
            (
                "https://id.example.org:8443/realms/a",
                "https://id.example.org:8443/realms/a/.well-known/openid-configuration",
            ),
        ] {
            let read = Issuer::parse(issuer).unwrap();
            assert_eq!(read.as_str(), issuer);
            assert_eq!(read.document(), document);
        }
    }

    #[test]
    fn what_hides_something_is_no_issuer() {
        for bad in [
            "",
            "id.example.org",
            "ftp://id.example.org",
            "file:///etc/passwd",
            "https://",
            "https://user:password@id.example.org",
            "https://id.example.org?x=1",
            "https://id.example.org#x",
            "https://id.example.org/ a",
            "https://id.example.org\n.evil.example",
            "https://\u{456}d.example.org",
            &format!("https://id.example.org/{}", "a".repeat(500)),
        ] {
            assert_eq!(Issuer::parse(bad), Err(InvalidIssuer), "{bad:?}");
        }
    }
}
