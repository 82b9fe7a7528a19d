//! A provider's code becomes its token (RFC 6749, section 4.1.3; RFC 7636, section 4.5).

use axum::body::Bytes;
use axum::http::{HeaderValue, Request, Uri, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use thiserror::Error;
use vault::Secret;
use zeroize::Zeroizing;

use super::{Flow, OidcOptions, Provider, ProviderError};
use crate::outbound::{Bounds, Outbound};

/// Why a code gives no token.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum CodeError {
    /// The provider does not know it, or it was redeemed before, or it is another sign-in's.
    #[error("the provider refused the code")]
    Refused,
    /// The provider, or what it was told of this installation, is at fault.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

#[derive(Deserialize)]
struct Answer {
    id_token: Secret,
}

#[derive(Deserialize)]
struct Problem {
    error: String,
}

/// Redeems a code, by the proof that it was asked for here.
///
/// # Errors
/// [`CodeError`].
pub(crate) async fn redeem(
    (outbound, provider): (&Outbound, &Provider),
    options: &OidcOptions,
    (code, redirect_uri): (&Secret, &str),
    flow: &Flow,
) -> Result<Secret, CodeError> {
    let wrong = |problem| ProviderError::Document {
        issuer: options.issuer.clone(),
        problem,
    };
    let code = code.expose_str().unwrap_or_default();
    let verifier = flow.verifier();
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", redirect_uri),
        ("code_verifier", verifier.as_str()),
    ];
    let basic = match &options.client_secret {
        Some(secret) if by_header(provider) => Some(authorization(&options.client_id, secret)),
        Some(secret) => {
            form.push(("client_id", &options.client_id));
            form.push(("client_secret", secret.as_str()));
            None
        }
        None => {
            form.push(("client_id", &options.client_id));
            None
        }
    };
    let endpoint = provider.endpoints.token_endpoint.as_deref();
    let endpoint = endpoint.ok_or_else(|| wrong("names no token endpoint"))?;
    let uri: Uri = endpoint
        .parse()
        .map_err(|_| wrong("names a token endpoint that cannot be read"))?;
    let mut request = Request::post(uri)
        .header("accept", "application/json")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Bytes::from(encode(&form)))
        .map_err(|_| wrong("names a token endpoint that cannot be asked"))?;
    if let Some(basic) = basic {
        request.headers_mut().insert(header::AUTHORIZATION, basic);
    }
    let answer = outbound.send(request, Bounds::default()).await;
    let answer = answer.map_err(|cause| ProviderError::Silent {
        issuer: options.issuer.clone(),
        cause,
    })?;
    if answer.status() == 200 {
        let read = serde_json::from_slice::<Answer>(answer.body());
        let read = read.map_err(|_| wrong("answered a code without an id_token"))?;
        return Ok(read.id_token);
    }
    let problem = serde_json::from_slice::<Problem>(answer.body());
    if problem.is_ok_and(|problem| problem.error == "invalid_grant") {
        return Err(CodeError::Refused);
    }
    Err(wrong("refuses this installation: check oidc.client_id and oidc.client_secret_file").into())
}

/// The default of OpenID Connect Discovery 1.0, section 3.
fn by_header(provider: &Provider) -> bool {
    let methods = &provider.endpoints.token_endpoint_auth_methods_supported;
    methods
        .as_ref()
        .is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"))
}

/// RFC 6749, section 2.3.1: both are written as in a form.
fn authorization(client_id: &str, secret: &str) -> HeaderValue {
    let written = |text: &str| -> Zeroizing<String> {
        Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect())
    };
    let pair = Zeroizing::new(format!(
        "{}:{}",
        written(client_id).as_str(),
        written(secret).as_str()
    ));
    let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
    let mut basic = HeaderValue::from_str(&basic).expect("base64 is plain ASCII");
    basic.set_sensitive(true);
    basic
}

fn encode(form: &[(&str, &str)]) -> String {
    let mut written = form_urlencoded::Serializer::new(String::new());
    written.extend_pairs(form);
    written.finish()
}
