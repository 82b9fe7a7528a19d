//! `PUT /v1/vault/secret-sets/{id}`

use axum::extract::State;
use leases::id::SetId;
use serde::Deserialize;
use serde_json::Value;
use store::{SecretSet, SetChange, WriteSetError};
use utoipa::ToSchema;
use vault::Secret;

use super::{SecretSetView, SetName, WRITE_ATTEMPTS, seal, warnings};
use crate::AppState;
use crate::auth::Person;
use crate::entries::{Entries, MAX_ENTRIES};
use crate::error::ApiError;
use crate::extract::{Id, Json};
use crate::problem::Problem;
use crate::templates;

/// What the next version changes; further fields of the seeds' clients are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct UpdateSecretSet {
    /// `{KEY: value}`; `null` drops a key, a key that is not named stays.
    #[serde(default)]
    #[schema(value_type = std::collections::BTreeMap<String, Option<String>>)]
    entries: Entries,
    /// Puts other hosts and injections in place of a `custom` set's.
    #[schema(value_type = Option<Object>)]
    custom: Option<Value>,
}

/// Stores the next version of a secret set. The next request through the injector uses it.
#[utoipa::path(put, path = "/v1/vault/secret-sets/{id}", tag = "secret sets", operation_id = "updateSecretSet", request_body = UpdateSecretSet,
    params(("id" = String, Path)), responses((status = 200, body = SecretSetView), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
    Json(body): Json<UpdateSecretSet>,
) -> Result<axum::Json<SecretSetView>, ApiError> {
    let set_id: SetId = id.parse("secret set")?;
    let (values, dropped) = body.entries.split()?;
    if values.is_empty() && dropped.is_empty() && body.custom.is_none() {
        return Err(ApiError::invalid(
            "entries",
            "changes nothing; name a key with its new value, or null to drop it",
        ));
    }
    let change = Change {
        values,
        dropped,
        custom: body.custom,
    };
    apply(&state, &person, &set_id, change)
        .await
        .map(axum::Json)
}

/// Stores the next version of a set.
pub(crate) async fn apply(
    state: &AppState,
    person: &Person,
    set_id: &SetId,
    change: Change,
) -> Result<SecretSetView, ApiError> {
    let not_found = || ApiError::not_found("secret set", set_id.as_str());
    for _ in 0..WRITE_ATTEMPTS {
        let set = state.store.secret_sets().get(&person.org, set_id).await?;
        let set = set.ok_or_else(not_found)?;
        let warnings = change.check(state, &set)?;
        match change.write(state, person, set).await {
            Ok(Some(set)) => return Ok(SecretSetView::new(set, warnings)),
            Ok(None) => return Err(not_found()),
            // Another writer was first: look at the set again and seal anew.
            Err(Failure::Write(WriteSetError::Moved)) => {}
            Err(Failure::Write(error)) => return Err(error.into()),
            Err(Failure::Seal(error)) => return Err(error),
        }
    }
    Err(WriteSetError::Moved.into())
}

/// What the next version of a set changes.
pub(crate) struct Change {
    pub(crate) values: Vec<(String, Secret)>,
    pub(crate) dropped: Vec<String>,
    pub(crate) custom: Option<Value>,
}

enum Failure {
    Seal(ApiError),
    Write(WriteSetError),
}

impl Change {
    /// Checks the version that would come of it, as a whole.
    fn check(&self, state: &AppState, set: &SecretSet) -> Result<Vec<String>, ApiError> {
        let missing = self.dropped.iter().find(|key| !set.keys.contains(key));
        if let Some(key) = missing {
            return Err(ApiError::invalid(
                "entries",
                format_args!("the set has no key {key} to drop; leave it out"),
            ));
        }
        let mut keys: Vec<String> = set
            .keys
            .iter()
            .filter(|key| !self.dropped.contains(key))
            .cloned()
            .collect();
        keys.extend(
            self.values
                .iter()
                .map(|(key, _)| key.clone())
                .filter(|key| !set.keys.contains(key)),
        );
        if keys.is_empty() || keys.len() > MAX_ENTRIES {
            return Err(ApiError::invalid(
                "entries",
                format_args!(
                    "a set has 1 to {MAX_ENTRIES} keys; this would leave {}",
                    keys.len()
                ),
            ));
        }
        let custom = self.custom.clone().or_else(|| set.custom.clone());
        let spec = custom.map(templates::read_spec).transpose()?;
        let template = templates::resolve(
            &state.catalog(),
            &set.provider,
            &set.name,
            spec.as_ref(),
            &keys,
        )?;
        Ok(warnings(&template, &keys, &self.values))
    }

    async fn write(
        &self,
        state: &AppState,
        person: &Person,
        set: SecretSet,
    ) -> Result<Option<SecretSet>, Failure> {
        let id = set.id;
        let name = SetName {
            provider: set.provider,
            environment: set.environment,
            name: set.name,
        };
        let sealed = seal(state, &person.org, &name, &self.values)
            .await
            .map_err(Failure::Seal)?;
        let change = SetChange {
            put: sealed.entries,
            drop: self.dropped.clone(),
            custom: self.custom.clone(),
            kek_id: Some(sealed.kek_id),
        };
        state
            .store
            .secret_sets()
            .update(&person.org, &id, change, &person.actor)
            .await
            .map_err(Failure::Write)
    }
}
