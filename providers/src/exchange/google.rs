//! Google service accounts: a signed assertion for an access token (RFC 7523, as Google's "OAuth 2.0 for server to server").

use http::HeaderValue;
use http::header::ACCEPT;
use serde::Deserialize;
use time::OffsetDateTime;
use vault::Secret;

use super::jwt::{Algorithm, Claims, compact};
use super::oauth2::{Form, JWT_BEARER};
use super::{Inputs, Maker, RecipeError, TokenRequest, TokenUrl, text_keys};
use crate::template::Text;

/// A service account by the JSON file that its keys come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceAccount {
    pub(crate) url: TokenUrl,
    /// The key that holds the file.
    pub(crate) account: String,
    /// What is asked for; the last of them is taken when the set says nothing.
    pub(crate) scope: Option<Text>,
    pub(crate) default_scope: String,
    /// The person that the account stands for (domain-wide delegation).
    pub(crate) subject: Option<Text>,
}

/// What of the file is needed.
#[derive(Deserialize)]
struct File {
    client_email: String,
    private_key: Secret,
    private_key_id: Option<String>,
}

/// The most that Google grants.
const LIFETIME: time::Duration = time::Duration::hours(1);

impl ServiceAccount {
    pub(super) fn inputs(&self) -> Vec<&str> {
        let mut keys = text_keys(
            self.scope
                .iter()
                .chain(&self.subject)
                .chain([&self.url.path]),
        );
        keys.push(&self.account);
        keys
    }

    pub(super) fn ask(
        &self,
        maker: &Maker<'_, impl Inputs>,
        now: OffsetDateTime,
    ) -> Result<Option<TokenRequest>, RecipeError> {
        let Some(file) = maker.secret(&self.account) else {
            return Ok(None);
        };
        let file: File = serde_json::from_slice(file.expose()).map_err(|_| {
            maker.bad(
                &self.account,
                "it is not the JSON file of a service account's key",
            )
        })?;
        let scope = maker.fill_optional(self.scope.as_ref())?;
        let subject = maker.fill_optional(self.subject.as_ref())?;
        let audience = self.url.to_text();
        let claims = Claims {
            issuer: Some(&file.client_email),
            subject: subject.as_ref().map(|subject| subject.as_str()),
            audience: Some(&audience),
            scope: Some(
                scope
                    .as_ref()
                    .map_or(self.default_scope.as_str(), |scope| scope.as_str()),
            ),
            is_unique: false,
            lifetime: LIFETIME,
        };
        let key_id = file.private_key_id.as_deref();
        let jwt = compact(
            Algorithm::Rs256,
            file.private_key.expose(),
            key_id,
            &claims,
            now,
        )
        .map_err(|why| maker.bad(&self.account, why))?;
        let mut form = Form::default();
        form.set("grant_type", JWT_BEARER);
        form.set("assertion", &jwt);
        let Some(path) = maker.endpoint(&self.url)? else {
            return Ok(None);
        };
        let accept = (ACCEPT, HeaderValue::from_static("application/json"));
        Ok(Some(form.request(&self.url, path, vec![accept])))
    }
}
