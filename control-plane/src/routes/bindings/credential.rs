//! The credential of a binding: given with the call, or taken from a secret by its path.

use std::collections::BTreeMap;
use std::fmt;

use leases::id::{BindingId, OrgId, VaultId};
use leases::policy::Permission;
use leases::secret_path::SecretPath;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use store::{Actor, Binding, Gone, NewEvent, ReadSecretError, Source};
use utoipa::ToSchema;
use vault::Secret;

use super::limits::{AuthType, CREDENTIAL, Config, PASSWORD, USERNAME};
use crate::AppState;
use crate::auth::{Caller, Person};
use crate::context::RequestContext;
use crate::entries::Entries;
use crate::error::ApiError;
use crate::routes::secret_sets::update::{self, Change};
use crate::routes::secrets::{check_may_open, open_row};
use crate::vault_access::VaultAccess;

/// A credential in the seeds' clients' shapes: a text, or an object such as `{token}` or `{username, password}`.
#[derive(Debug)]
pub(crate) enum Credential {
    Text(Secret),
    Fields(BTreeMap<String, Secret>),
}

impl<'de> Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Credential;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text or an object of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Credential, E> {
                Ok(Credential::Text(Secret::from(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Credential, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    fields.insert(name, map.next_value()?);
                }
                Ok(Credential::Fields(fields))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl Credential {
    /// The entries of the binding's set.
    pub(super) fn entries(self, auth: AuthType) -> Result<Entries, ApiError> {
        let invalid = |problem: &str| ApiError::invalid("credential", problem);
        let (user, password) = match (auth, self) {
            (AuthType::Bearer | AuthType::Header | AuthType::Query, Self::Text(text)) => {
                return Ok(one(CREDENTIAL, text));
            }
            (AuthType::Bearer | AuthType::Header | AuthType::Query, Self::Fields(mut fields)) => {
                let found = ["token", "value", "key", "api_key"]
                    .iter()
                    .find_map(|name| fields.remove(*name));
                return match found {
                    Some(text) if fields.is_empty() => Ok(one(CREDENTIAL, text)),
                    _ => Err(invalid("must be a text, or an object with `token` alone")),
                };
            }
            (AuthType::Basic, Self::Text(text)) => {
                let pair = text.expose_str().and_then(|text| text.split_once(':'));
                let (user, password) =
                    pair.ok_or_else(|| invalid("must be `user:password`, or an object of both"))?;
                (
                    Secret::from(user.to_owned()),
                    Secret::from(password.to_owned()),
                )
            }
            (AuthType::Basic, Self::Fields(mut fields)) => {
                match (fields.remove("username"), fields.remove("password")) {
                    (Some(user), Some(password)) if fields.is_empty() => (user, password),
                    _ => return Err(invalid("must have `username` and `password` alone")),
                }
            }
        };
        Ok(Entries(BTreeMap::from([
            (USERNAME.to_owned(), Some(user)),
            (PASSWORD.to_owned(), Some(password)),
        ])))
    }
}

fn one(key: &str, value: Secret) -> Entries {
    Entries(BTreeMap::from([(key.to_owned(), Some(value))]))
}

/// Where a credential comes from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum CredentialSource {
    /// From here.
    Inline {
        #[schema(value_type = Option<Object>)]
        value: Option<Credential>,
    },
    /// From a secret, each time as it is then.
    VaultRef {
        /// A vault's id or name.
        vault_id: String,
        path: String,
    },
}

/// What a call says of the credential, once it was looked at.
pub(super) struct Given {
    pub(super) credential: Credential,
    pub(super) source: Option<Source>,
}

/// The one credential that a call gives.
pub(super) async fn given(
    state: &AppState,
    caller: &Caller,
    credential: Option<Credential>,
    source: Option<CredentialSource>,
) -> Result<Given, ApiError> {
    let inline = |credential| Given {
        credential,
        source: None,
    };
    match (credential, source) {
        (Some(credential), None | Some(CredentialSource::Inline { value: None })) => {
            Ok(inline(credential))
        }
        (None, Some(CredentialSource::Inline { value: Some(value) })) => Ok(inline(value)),
        (None, Some(CredentialSource::VaultRef { vault_id, path })) => {
            refer(state, caller, &vault_id, &path).await
        }
        (None, None | Some(CredentialSource::Inline { value: None })) => Err(ApiError::invalid(
            "credential",
            "is missing; send `credential`, or `credential_source` with type vault_ref",
        )),
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "credential_source",
            "comes with another credential; send one of them",
        )),
    }
}

/// Takes a secret by its path, which the person who refers to it must be let read.
async fn refer(
    state: &AppState,
    caller: &Caller,
    vault: &str,
    path: &str,
) -> Result<Given, ApiError> {
    let path = SecretPath::parse(path)
        .map_err(|error| ApiError::invalid("credential_source.path", error))?;
    let access = VaultAccess::find(state, caller, vault).await?;
    access.permit(&path, Permission::Read).await?;
    let place = (&access.vault.id, &path);
    let (value, version) = take(
        state,
        caller.org(),
        place,
        (&caller.context, &caller.actor()),
    )
    .await?;
    Ok(Given {
        credential: Credential::Text(value),
        source: Some(Source {
            vault: access.vault.id.clone(),
            path: path.to_string(),
            version,
        }),
    })
}

/// Opens the newest version of a secret. The read is counted and on record first.
async fn take(
    state: &AppState,
    org: &OrgId,
    (vault, path): (&VaultId, &SecretPath),
    (context, actor): (&RequestContext, &Actor),
) -> Result<(Secret, u64), ApiError> {
    check_may_open(state).await?;
    let event = NewEvent {
        action: "secret.read",
        ..NewEvent::default()
    };
    let secrets = state.store.secrets();
    let taken = secrets
        .take_read(org, vault, path, None, event, actor)
        .await?;
    let taken = taken.ok_or_else(|| ApiError::not_found("secret", path.as_str()))?;
    let value = open_row(state, context, (org, vault, path), &taken).await?;
    Ok((value, taken.version.version))
}

/// Makes a binding's credential what the secret that it refers to holds now, before it is used.
pub(super) async fn refresh(
    state: &AppState,
    context: &RequestContext,
    binding: Binding,
) -> Result<Binding, ApiError> {
    let Some(source) = &binding.source else {
        return Ok(binding);
    };
    let path = SecretPath::parse(&source.path).map_err(ApiError::internal)?;
    let secrets = state.store.secrets();
    let head = secrets.head(&binding.org, &source.vault, &path).await?;
    let head = head.ok_or_else(|| ApiError::not_found("secret", path.as_str()))?;
    let gone = |gone| Err(ReadSecretError::Gone(gone).into());
    if head.deleted_at.is_some() {
        return gone(Gone::Deleted);
    }
    let Some(current) = head.current else {
        return gone(Gone::Disabled);
    };
    let now = state.clock.now();
    if current.expires_at.is_some_and(|end| end <= now) {
        return gone(Gone::Expired);
    }
    if current.version == source.version {
        return Ok(binding);
    }
    let actor = Actor::system(binding.id.as_str());
    let place = (&source.vault, &path);
    let (value, version) = take(state, &binding.org, place, (context, &actor)).await?;
    let config = config_of(&binding)?;
    let source = Source {
        version,
        ..source.clone()
    };
    put(
        state,
        &binding,
        Credential::Text(value),
        config.auth_type,
        &actor,
    )
    .await?;
    let binding = Binding {
        source: Some(source),
        ..binding
    };
    let id = binding.id.clone();
    let bindings = state.store.bindings();
    let written = bindings.update(binding, &actor).await?;
    written.ok_or_else(|| not_there(&id))
}

/// Stores a credential as the next version of the binding's set.
pub(super) async fn put(
    state: &AppState,
    binding: &Binding,
    credential: Credential,
    auth: AuthType,
    actor: &Actor,
) -> Result<(), ApiError> {
    let (values, _) = credential.entries(auth)?.split()?;
    let change = Change {
        values,
        dropped: Vec::new(),
        custom: None,
    };
    let person = Person {
        org: binding.org.clone(),
        actor: actor.clone(),
        is_admin: false,
    };
    update::apply(state, &person, &binding.set, change).await?;
    Ok(())
}

/// What a binding's row says of where it leads.
pub(super) fn config_of(binding: &Binding) -> Result<Config, ApiError> {
    serde_json::from_value(binding.config.clone()).map_err(ApiError::internal)
}

fn not_there(id: &BindingId) -> ApiError {
    ApiError::not_found("binding", id.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(credential: &str, auth: AuthType) -> Option<Vec<String>> {
        let credential: Credential = serde_json::from_str(credential).unwrap();
        let entries = credential.entries(auth).ok()?;
        Some(entries.0.into_keys().collect())
    }

    #[test]
    fn a_credential_comes_in_the_shapes_of_the_seeds() {
        for one in [
            r#""tok_1""#,
            r#"{"token":"tok_1"}"#,
            r#"{"api_key":"tok_1"}"#,
        ] {
            assert_eq!(
                keys(one, AuthType::Bearer).unwrap(),
                ["CREDENTIAL"],
                "{one}"
            );
        }
        for two in [r#""a:b:c""#, r#"{"username":"a","password":"b"}"#] {
            assert_eq!(
                keys(two, AuthType::Basic).unwrap(),
                ["PASSWORD", "USERNAME"],
                "{two}"
            );
        }
    }

    #[test]
    fn any_other_shape_is_refused() {
        for (text, auth) in [
            (r#"{"token":"a","extra":"b"}"#, AuthType::Header),
            (r#"{"secret":"a"}"#, AuthType::Query),
            ("{}", AuthType::Bearer),
            (r#""no colon""#, AuthType::Basic),
            (r#"{"username":"a"}"#, AuthType::Basic),
        ] {
            assert_eq!(keys(text, auth), None, "{text}");
        }
    }
}
