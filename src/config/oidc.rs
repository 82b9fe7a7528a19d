//! `[oidc]`: the identity provider that vouches for people.

use std::path::PathBuf;

use control_plane::{Issuer, OidcSignUp, RedirectUrl, canonical_email};

use super::one;

/// `[oidc]`: without an issuer there is none, and people sign in by passwords and keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oidc {
    pub(crate) issuer: Option<Issuer>,
    pub(crate) client_id: Option<String>,
    /// Holds the client's secret; none given means a public client.
    pub(crate) client_secret_file: Option<PathBuf>,
    /// This API's callback as browsers reach it; none given means terminals alone.
    pub(crate) redirect_url: Option<RedirectUrl>,
    pub(crate) allowed_domains: Vec<String>,
    pub(crate) allowed_emails: Vec<String>,
    pub(crate) sign_up: OidcSignUp,
}

impl Oidc {
    /// What no setting shows alone: the one that misses another, and the sentence.
    pub(super) fn mistake(&self) -> Option<(&'static str, &'static str)> {
        let rest = [
            ("oidc.client_id", self.client_id.is_some()),
            ("oidc.client_secret_file", self.client_secret_file.is_some()),
            ("oidc.redirect_url", self.redirect_url.is_some()),
            ("oidc.allowed_domains", !self.allowed_domains.is_empty()),
            ("oidc.allowed_emails", !self.allowed_emails.is_empty()),
            ("oidc.sign_up", self.sign_up != OidcSignUp::default()),
        ];
        let orphan = rest.into_iter().find(|(_, is_set)| *is_set);
        match (&self.issuer, &self.client_id, orphan) {
            (None, _, Some((key, _))) => Some((
                key,
                "is of no use without oidc.issuer: name the identity provider, or leave this out",
            )),
            (Some(_), None, _) => Some((
                "oidc.issuer",
                "needs oidc.client_id: what this installation is to the provider",
            )),
            _ => None,
        }
    }
}

/// An issuer, or `google`.
pub(super) fn issuer(values: &[&str]) -> Result<Issuer, String> {
    let text = match one(values)? {
        "google" => Issuer::GOOGLE,
        text => text,
    };
    Issuer::parse(text).map_err(|error| format!("`{}` {error}", super::quoted(text)))
}

pub(super) fn client_id(values: &[&str]) -> Result<String, String> {
    let text = one(values)?;
    let is_good =
        (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_good
        .then(|| text.to_owned())
        .ok_or_else(|| "is 1 to 255 characters of ASCII without spaces".to_owned())
}

pub(super) fn redirect_url(values: &[&str]) -> Result<RedirectUrl, String> {
    let text = one(values)?;
    RedirectUrl::parse(text).map_err(|error| format!("`{}` {error}", super::quoted(text)))
}

/// A domain in the one spelling that emails have here.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let canonical = canonical_email(&format!("a@{text}"));
    let domain = canonical.and_then(|email| Some(email.split_once('@')?.1.to_owned()));
    let is_whole = domain.filter(|domain| domain.contains('.'));
    is_whole.ok_or_else(|| format!("`{}` is no domain, as example.org", super::quoted(text)))
}

pub(super) fn email(text: &str) -> Result<String, String> {
    canonical_email(text)
        .ok_or_else(|| format!("`{}` is no email, as ada@example.org", super::quoted(text)))
}

pub(super) fn sign_up(values: &[&str]) -> Result<OidcSignUp, String> {
    match one(values)? {
        "invited" => Ok(OidcSignUp::Invited),
        "open" => Ok(OidcSignUp::Open),
        text => Err(format!(
            "`{}` is neither invited nor open",
            super::quoted(text)
        )),
    }
}

pub(super) const fn sign_up_word(sign_up: OidcSignUp) -> &'static str {
    match sign_up {
        OidcSignUp::Invited => "invited",
        OidcSignUp::Open => "open",
    }
}
