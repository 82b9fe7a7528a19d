//! Signing in by an identity provider (OpenID Connect): begin, come back with its answer, link an identity to an account.

pub(crate) mod callback;
pub(crate) mod google;
pub(crate) mod link;
pub(crate) mod start;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use leases::id::{OrgId, UserId};
use serde::Serialize;
use store::NewOidcLogin;
use utoipa::ToSchema;
use zeroize::Zeroize;

use crate::AppState;
use crate::error::ApiError;
use crate::oidc::{Flow, OidcOptions, ProviderError, RedirectUrl, is_terminal};
use crate::problem::Code;

/// A sign-in that has begun.
#[derive(Serialize, ToSchema)]
pub(crate) struct Begun {
    /// Where a browser signs in at the provider.
    authorization_url: String,
    /// What the provider's answer is brought back with. It is shown to nobody.
    flow: String,
    /// Seconds.
    expires_in: u64,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.authorization_url.zeroize();
        self.flow.zeroize();
    }
}

/// The provider of this installation.
fn configured(state: &AppState) -> Result<&Arc<OidcOptions>, ApiError> {
    state.people.oidc.as_ref().ok_or_else(|| {
        let detail = "no identity provider vouches for people here; sign in with a password or a key, or ask the operator to configure one (oidc.issuer)";
        ApiError::new(Code::OidcNotConfigured, detail)
    })
}

/// Begins a sign-in: its secret for whoever asked, its hash for the store, and the rest for the provider.
async fn begin(
    state: &AppState,
    redirect_uri: Option<String>,
    link_to: Option<(OrgId, UserId)>,
) -> Result<Begun, ApiError> {
    let options = configured(state)?;
    let own = options.redirect_url.as_ref().map(RedirectUrl::as_str);
    let redirect_uri = match redirect_uri {
        Some(uri) if is_terminal(&uri) || Some(uri.as_str()) == own => uri,
        Some(_) => {
            return Err(ApiError::invalid(
                "redirect_uri",
                "must be http://127.0.0.1:PORT/... of the terminal that asks, or the one that the operator has configured",
            ));
        }
        None => own.map(str::to_owned).ok_or_else(no_browsers)?,
    };
    let provider = state
        .providers
        .get(&state.outbound, &options.issuer, None, state.clock.now())
        .await?;
    let flow = Flow::generate();
    let query = [
        ("response_type", "code"),
        ("client_id", &options.client_id),
        ("redirect_uri", &redirect_uri),
        ("scope", "openid email profile"),
        ("state", &flow.state()),
        ("nonce", &flow.nonce()),
        ("code_challenge", &flow.challenge()),
        ("code_challenge_method", "S256"),
    ];
    let mut url = authorization_endpoint(
        options,
        provider.endpoints.authorization_endpoint.as_deref(),
    )?;
    url.push(if url.contains('?') { '&' } else { '?' });
    let written = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    url.push_str(&written);
    let new = NewOidcLogin {
        flow_hash: *flow.hash(),
        redirect_uri,
        lifetime: LIFETIME,
        link_to,
    };
    if !state.store.oidc_logins().begin(new).await? {
        let detail =
            "as many sign-ins wait for the identity provider as may at once; try again in a minute";
        return Err(ApiError::new(Code::RateLimited, detail).retry_after(Duration::from_mins(1)));
    }
    Ok(Begun {
        authorization_url: url,
        flow: flow.reveal().to_owned(),
        expires_in: LIFETIME.as_secs(),
    })
}

/// A browser is sent there, so it is a web page and nothing else that a URL may start.
fn authorization_endpoint(
    options: &OidcOptions,
    endpoint: Option<&str>,
) -> Result<String, ApiError> {
    let wrong = |problem| ProviderError::Document {
        issuer: options.issuer.clone(),
        problem,
    };
    let endpoint = endpoint.ok_or_else(|| wrong("names no authorization endpoint"))?;
    let is_web = endpoint.starts_with("https://") || endpoint.starts_with("http://");
    let is_plain = endpoint.bytes().all(|byte| byte.is_ascii_graphic()) && !endpoint.contains('#');
    if is_web && is_plain {
        Ok(endpoint.to_owned())
    } else {
        Err(wrong("names an authorization endpoint that is no web page").into())
    }
}

fn no_browsers() -> ApiError {
    let detail = "this installation signs in terminals alone, with `claviger login --oidc`; its operator opens it to browsers by oidc.redirect_url";
    ApiError::new(Code::OidcNotConfigured, detail)
}

/// The secret of a sign-in as a browser holds it. Sent to these paths alone, hidden from scripts, and with nothing that another
/// site causes but the provider's redirect.
fn cookie(flow: &str, is_secure: bool, lifetime: Duration) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    let seconds = lifetime.as_secs();
    format!(
        "{COOKIE}={flow}; Path=/v1/auth/oidc; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"
    )
}

/// The one cookie of that name. Two of them could be of two sign-ins, so two are none.
fn presented_cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter();
    let texts = lines.filter_map(|line| line.to_str().ok());
    let mut found = texts
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

const COOKIE: &str = "claviger_signin";
/// Ten minutes to sign in at the provider.
const LIFETIME: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_cookies_one_is_read_and_two_are_none() {
        let headers = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            headers
        };
        let read = |lines: &[&str]| presented_cookie(&headers(lines)).map(str::to_owned);
        assert_eq!(read(&["a=b; claviger_signin=x"]).as_deref(), Some("x"));
        assert_eq!(read(&["claviger_signin=x; claviger_signin=y"]), None);
        assert_eq!(read(&["claviger_signin=x", "claviger_signin=x"]), None);
        assert_eq!(read(&["claviger_signin2=x", "xclaviger_signin=y"]), None);
    }

    #[test]
    fn a_cookie_is_for_these_paths_and_no_script() {
        let written = cookie("signin_x", true, LIFETIME);
        for part in [
            "Path=/v1/auth/oidc",
            "HttpOnly",
            "SameSite=Lax",
            "Secure",
            "Max-Age=600",
        ] {
            assert!(written.contains(part), "{written}");
        }
        assert!(!cookie("signin_x", false, LIFETIME).contains("Secure"));
    }
}
