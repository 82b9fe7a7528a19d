//! GitHub Apps: a JWT of the app for a token of one installation, narrowed to repositories and permissions.
//!
//! <https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app>

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::jwt::{Algorithm, Claims, SigningKey};
use super::oauth2::sensitive;
use super::{Inputs, Maker, RecipeError, TokenRequest, TokenUrl, text_keys};
use crate::template::Text;

/// An installation of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GithubApp {
    /// Its path holds the installation's id.
    pub(crate) url: TokenUrl,
    /// The app's id or client id.
    pub(crate) app: Text,
    /// The key that holds the app's private key.
    pub(crate) private_key: String,
    /// The key that lists repositories by name, comma-separated.
    pub(crate) repositories: Option<String>,
    /// The key that lists permissions, comma-separated: `contents:read,issues:write`.
    pub(crate) permissions: Option<String>,
}

/// GitHub takes at most ten minutes, and its clock may be behind ours.
const LIFETIME: time::Duration = time::Duration::minutes(9);
/// Names in one list.
const MOST: usize = 500;

impl GithubApp {
    pub(super) fn inputs(&self) -> Vec<&str> {
        let mut keys = text_keys([&self.app, &self.url.path]);
        let optional = self.repositories.iter().chain(&self.permissions);
        keys.extend(optional.map(String::as_str));
        keys.push(&self.private_key);
        keys
    }

    pub(super) fn ask(
        &self,
        maker: &Maker<'_, impl Inputs>,
        now: OffsetDateTime,
    ) -> Result<Option<TokenRequest>, RecipeError> {
        let (Some(app), Some(path)) = (maker.fill(&self.app)?, maker.endpoint(&self.url)?) else {
            return Ok(None);
        };
        let key = SigningKey {
            algorithm: Algorithm::Rs256,
            key: self.private_key.clone(),
            id: None,
        };
        let claims = Claims {
            issuer: Some(&app),
            subject: None,
            audience: None,
            scope: None,
            is_unique: false,
            lifetime: LIFETIME,
        };
        let Some(jwt) = key.sign(maker, &claims, now)? else {
            return Ok(None);
        };
        let body = self.narrowing(maker)?.to_string();
        let bearer = Zeroizing::new(["Bearer ", jwt.as_str()].concat().into_bytes());
        Ok(Some(TokenRequest {
            host: self.url.host.clone(),
            port: self.url.port,
            path,
            headers: vec![
                (AUTHORIZATION, sensitive(bearer)),
                (
                    ACCEPT,
                    HeaderValue::from_static("application/vnd.github+json"),
                ),
                (CONTENT_TYPE, HeaderValue::from_static("application/json")),
                // GitHub refuses requests without one.
                (USER_AGENT, HeaderValue::from_static("claviger")),
                (
                    HeaderName::from_static("x-github-api-version"),
                    HeaderValue::from_static("2022-11-28"),
                ),
            ],
            body: Zeroizing::new(body.into_bytes()),
        }))
    }

    /// What the token is narrowed to. A list that is there and names nothing would mean everything to GitHub, so it is a
    /// mistake.
    fn narrowing(&self, maker: &Maker<'_, impl Inputs>) -> Result<Value, RecipeError> {
        let mut body = Map::new();
        if let Some((key, names)) = list(maker, self.repositories.as_ref())? {
            let is_name = |name: &&str| {
                name.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
            };
            if !names.iter().all(|name| is_name(&name.as_str())) {
                return Err(maker.bad(
                    key,
                    "it lists repositories by name, without their owner, comma-separated",
                ));
            }
            body.insert("repositories".to_owned(), json!(names));
        }
        if let Some((key, pairs)) = list(maker, self.permissions.as_ref())? {
            let mut permissions = Map::new();
            for pair in pairs {
                let (name, level) = pair
                    .split_once(':')
                    .filter(|(_, level)| matches!(*level, "read" | "write" | "admin"))
                    .ok_or_else(|| {
                        maker.bad(key, "it lists permissions as `contents:read,issues:write`")
                    })?;
                permissions.insert(name.to_owned(), level.into());
            }
            body.insert("permissions".to_owned(), Value::Object(permissions));
        }
        Ok(Value::Object(body))
    }
}

/// The words of a comma-separated list, with the name of its key.
fn list<'k>(
    maker: &Maker<'_, impl Inputs>,
    key: Option<&'k String>,
) -> Result<Option<(&'k str, Vec<String>)>, RecipeError> {
    let Some((key, value)) = key.and_then(|key| Some((key, maker.secret(key)?))) else {
        return Ok(None);
    };
    let text = value
        .expose_str()
        .ok_or_else(|| maker.bad(key, "it is not UTF-8"))?;
    let words: Vec<String> = text
        .split(',')
        .map(|word| word.trim().to_owned())
        .filter(|word| !word.is_empty())
        .collect();
    if words.is_empty() || words.len() > MOST {
        return Err(maker.bad(key, "it lists nothing, or more than 500 names"));
    }
    Ok(Some((key.as_str(), words)))
}
