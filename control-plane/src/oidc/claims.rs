//! What a token says, as far as anything here asks for it.

use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// The claims of a token (RFC 7519, OpenID Connect Core 1.0, RFC 9068).
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) sub: String,
    pub(crate) aud: Audience,
    pub(crate) exp: i64,
    pub(crate) iat: Option<i64>,
    pub(crate) nbf: Option<i64>,
    /// The authorised party: the client that the token was given to.
    pub(crate) azp: Option<String>,
    /// The same in access tokens (RFC 9068), and by the names of two vendors.
    pub(crate) client_id: Option<String>,
    pub(crate) cid: Option<String>,
    pub(crate) appid: Option<String>,
    pub(crate) nonce: Option<String>,
    pub(crate) email: Option<String>,
    #[serde(default, deserialize_with = "truth")]
    pub(crate) email_verified: bool,
    pub(crate) name: Option<String>,
    /// The domain of a Google Workspace.
    pub(crate) hd: Option<String>,
}

/// For whom a token is.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    pub(crate) fn holds(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }

    /// Whether it is for somebody else as well.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Many(many) if many.len() != 1)
    }
}

impl Claims {
    /// Whether every name that the token gives its client is this one, and there is one: of a token without any, its subject.
    pub(crate) fn is_of_client(&self, client: &str) -> bool {
        let names = [&self.azp, &self.client_id, &self.cid, &self.appid];
        let mut names = names.into_iter().flatten().peekable();
        if names.peek().is_none() {
            return self.sub == client;
        }
        names.all(|name| name == client)
    }
}

/// Some providers write `"true"`. Everything else is no.
fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Bool(bool),
        Text(String),
        Nothing(()),
    }
    let written = Written::deserialize(deserializer);
    let written = written.map_err(|_| D::Error::custom("email_verified is neither"))?;
    Ok(match written {
        Written::Bool(is_verified) => is_verified,
        Written::Text(text) => text == "true",
        Written::Nothing(()) => false,
    })
}
