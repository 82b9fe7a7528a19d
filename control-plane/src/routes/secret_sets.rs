//! Secret sets: the named values of one provider account. Values go in and never come back from here.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod rollback;
pub(crate) mod update;
pub(crate) mod versions;

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use leases::id::{OrgId, SetId};
use serde::Serialize;
use serde_json::Value;
use store::{NewSet, NextVersions, Sealed, SecretSet, WriteSetError};
use utoipa::ToSchema;
use vault::{KekId, RowBinding, Secret};

use crate::AppState;
use crate::auth::Person;
use crate::entries::{self, Entries};
use crate::error::ApiError;
use crate::problem::Code;
use crate::templates;
use crate::text::{SEGMENT_RULE, is_segment};
use crate::timestamp::Timestamp;

/// A secret set, without values.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SecretSetView {
    #[schema(value_type = String, example = "set_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: SetId,
    provider: String,
    environment: String,
    name: String,
    /// From 1 up; a rollback makes a new one.
    version: u64,
    /// Names of the entries.
    keys: Vec<String>,
    /// What a `custom` set says of hosts and injections.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    custom: Option<Value>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// What was stored and may not be what was meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl SecretSetView {
    fn new(set: SecretSet, warnings: Vec<String>) -> Self {
        Self {
            id: set.id,
            provider: set.provider,
            environment: set.environment,
            name: set.name,
            version: set.version,
            keys: set.keys,
            custom: set.custom,
            created_at: set.created_at.into(),
            updated_at: set.updated_at.into(),
            warnings,
        }
    }
}

impl SecretSetView {
    /// Its id.
    pub(crate) fn id(&self) -> &SetId {
        &self.id
    }
}

impl From<SecretSet> for SecretSetView {
    fn from(set: SecretSet) -> Self {
        Self::new(set, Vec::new())
    }
}

/// `provider/environment/name`, checked.
pub(crate) struct SetName {
    provider: String,
    environment: String,
    name: String,
}

impl SetName {
    pub(crate) fn check(
        provider: String,
        environment: String,
        name: String,
    ) -> Result<Self, ApiError> {
        for (field, text) in [
            ("provider", &provider),
            ("environment", &environment),
            ("name", &name),
        ] {
            if !is_segment(text) {
                return Err(ApiError::invalid(
                    field,
                    format_args!("must be {SEGMENT_RULE}"),
                ));
            }
        }
        Ok(Self {
            provider,
            environment,
            name,
        })
    }

    fn taken(&self) -> ApiError {
        let detail = format!(
            "a secret set {}/{}/{} exists; change it with PUT /v1/vault/secret-sets/{{id}}, or choose another name",
            self.provider, self.environment, self.name
        );
        ApiError::new(Code::NameTaken, detail)
    }
}

/// Makes a set from checked parts: what `create` and `import` share.
pub(crate) async fn store_new(
    state: &AppState,
    person: &Person,
    name: SetName,
    entries: Entries,
    custom: Option<Value>,
) -> Result<SecretSetView, ApiError> {
    let (values, dropped) = entries.split()?;
    if values.is_empty() || !dropped.is_empty() {
        return Err(ApiError::invalid(
            "entries",
            "a new set needs at least one key, and each key a string",
        ));
    }
    let keys: Vec<String> = values.iter().map(|(key, _)| key.clone()).collect();
    let spec = custom.clone().map(templates::read_spec).transpose()?;
    let template = templates::resolve(
        &state.catalog(),
        &name.provider,
        &name.name,
        spec.as_ref(),
        &keys,
    )?;
    let warnings = warnings(&template, &keys, &values);

    for _ in 0..WRITE_ATTEMPTS {
        let sealed = seal(state, &person.org, &name, &values).await?;
        let new = NewSet {
            kek_id: Some(sealed.kek_id),
            provider: name.provider.clone(),
            environment: name.environment.clone(),
            name: name.name.clone(),
            entries: sealed.entries,
            custom: custom.clone(),
        };
        match state
            .store
            .secret_sets()
            .create(&person.org, new, &person.actor)
            .await
        {
            Ok(set) => return Ok(SecretSetView::new(set, warnings)),
            // A set of that name was deleted or made meanwhile: seal for the versions as they are now.
            Err(WriteSetError::Moved) => {}
            Err(WriteSetError::NameTaken) => return Err(name.taken()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(WriteSetError::Moved.into())
}

/// Values as they were sealed.
struct SealedValues {
    /// The key that they are sealed under.
    kek_id: String,
    entries: Vec<(String, Sealed)>,
}

/// Seals values for the rows that they will lie in.
async fn seal(
    state: &AppState,
    org: &OrgId,
    name: &SetName,
    values: &[(String, Secret)],
) -> Result<SealedValues, ApiError> {
    let keys: Vec<String> = values.iter().map(|(key, _)| key.clone()).collect();
    let sets = state.store.secret_sets();
    let next = sets
        .next_versions(org, &name.provider, &name.environment, &name.name, &keys)
        .await?;
    let kek = KekId::parse(&next.kek_id).map_err(ApiError::internal)?;
    let mut sealed = BTreeMap::new();
    let mut open: Vec<&(String, Secret)> = values.iter().collect();
    while !open.is_empty() {
        let sealing: Vec<_> = open
            .iter()
            .map(|(key, secret)| seal_one(state, org, &next, &kek, key, secret))
            .collect();
        let seals: Vec<Sealed> = stream::iter(sealing)
            .buffered(SEALED_AT_ONCE)
            .try_collect()
            .await?;
        let seals = open.iter().map(|(key, _)| key.clone()).zip(seals);
        sealed.extend(seals);
        // Many keys by a slow provider take longer than a rotation waits for writers: what was sealed before it is sealed again.
        let version = |key: &String| state.vault.kek_version(&sealed[key].bytes);
        let newest = sealed.keys().map(version).max().flatten();
        open = values
            .iter()
            .filter(|(key, _)| version(key) < newest)
            .collect();
    }
    Ok(SealedValues {
        kek_id: next.kek_id,
        entries: sealed.into_iter().collect(),
    })
}

async fn seal_one(
    state: &AppState,
    org: &OrgId,
    next: &NextVersions,
    kek: &KekId,
    key: &str,
    secret: &Secret,
) -> Result<Sealed, ApiError> {
    let place = next.entries.get(key);
    let (path, version) = place.ok_or_else(|| {
        ApiError::internal(std::io::Error::other("the store named no row for a key"))
    })?;
    let row = RowBinding {
        org: org.as_str(),
        vault: next.vault.as_str(),
        path,
        version: *version,
    };
    let bytes = state.vault.seal(kek, secret, &row).await?;
    Ok(Sealed {
        path: path.clone(),
        version: *version,
        bytes,
    })
}

/// What is stored and may not be what was meant.
fn warnings(
    template: &providers::Template,
    keys: &[String],
    values: &[(String, Secret)],
) -> Vec<String> {
    let mut warnings = entries::warnings(values);
    let sent = |key: &String| {
        template
            .injections()
            .iter()
            .any(|slot| slot.carries_whole(key))
    };
    let unfit = values
        .iter()
        .filter(|(key, value)| sent(key) && entries::is_unfit_for_a_header(value));
    warnings.extend(unfit.map(|(key, _)| {
        format!("{key} has a line break, a control character or a space at an end, which no header carries: {} can inject nothing by it", template.name())
    }));
    for (key, used) in template.keys() {
        if *used == providers::KeyUse::Required && !keys.contains(key) {
            warnings.push(format!(
                "{} needs {key}, which the set does not have: nothing can be injected",
                template.name()
            ));
        }
    }
    for key in keys
        .iter()
        .filter(|key| !template.keys().contains_key(*key))
        // What was made is stored beside what it was made of, where it must last.
        .filter(|key| !template.recipes().iter().any(|made| made.key() == *key))
    {
        warnings.push(format!(
            "{} has no use for {key}: it is stored and never sent",
            template.name()
        ));
    }
    warnings
}

/// How often a write is tried again when another writer was first.
const WRITE_ATTEMPTS: usize = 3;
/// Calls to the key provider at once: the sessions that a PKCS#11 provider has by default.
const SEALED_AT_ONCE: usize = 4;
