//! By what an agent authenticates.

use std::fmt;
use std::str::FromStr;

use crate::StoreError;

/// By what an agent authenticates: one method at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuthMethod {
    /// A key (`ocv_`), itself or exchanged for a token.
    #[default]
    ApiKey,
    /// A client certificate of TLS, exchanged for a token that is bound to it (RFC 8705).
    Mtls,
    /// A token of the operator's identity provider, exchanged for one of ours.
    OidcClientCredentials,
    /// An Ed25519 signature on each request.
    SignedRequest,
}

impl AuthMethod {
    /// Every method.
    pub const ALL: [Self; 4] = [
        Self::ApiKey,
        Self::Mtls,
        Self::OidcClientCredentials,
        Self::SignedRequest,
    ];

    /// The method as it is stored and as it stands in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Mtls => "mtls",
            Self::OidcClientCredentials => "oidc_client_credentials",
            Self::SignedRequest => "signed_request",
        }
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuthMethod {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let mut all = Self::ALL.into_iter();
        all.find(|method| method.as_str() == text)
            .ok_or(StoreError::Corrupt {
                what: "agent's auth method",
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_read_as_it_is_written_and_no_other_text_is() {
        for method in AuthMethod::ALL {
            assert_eq!(method.as_str().parse::<AuthMethod>().unwrap(), method);
        }
        for text in ["", "API_KEY", "mtls ", "password"] {
            assert!(text.parse::<AuthMethod>().is_err(), "{text:?}");
        }
    }
}
