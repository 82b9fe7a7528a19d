//! Secrets by their paths in a vault. A value goes out to whom role or policy lets read it, and every time on record.

pub(crate) mod delete;
pub(crate) mod disable;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod open;
pub(crate) mod put;
pub(crate) mod restore;
pub(crate) mod rotate;
pub(crate) mod version;
pub(crate) mod versions;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::response::Response;
use leases::id::{OrgId, SecretId, VaultId};
use leases::policy::Permission;
use leases::secret_path::SecretPath;
use serde::Serialize;
use serde_json::{Value, json};
use store::{NewEvent, NewSecret, OpenedRow, SecretVersion, WriteSecretError};
use time::OffsetDateTime;
use utoipa::ToSchema;
use vault::{KekId, RowBinding, Secret};

use crate::AppState;
use crate::auth::Caller;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::forward;
use crate::plaintext::{self, Plaintext};
use crate::problem::Code;
use crate::timestamp::Timestamp;
use crate::vault_access::VaultAccess;
use open::OpenRow;

/// A version of a secret, without its value.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SecretView {
    /// The id of this version.
    #[schema(value_type = String, example = "sec_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: SecretId,
    #[schema(value_type = String)]
    vault_id: VaultId,
    #[schema(example = "payments/stripe/api-key")]
    path: String,
    /// `generic` for an entry of a secret set.
    r#type: String,
    /// From 1 up. Of a secret set's entry the newest at its path; the set's version says which one is in use.
    version: u64,
    #[schema(value_type = Object)]
    metadata: Value,
    /// What the writer says of its rotation; nothing is rotated by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    rotation_policy: Option<Value>,
    expires_at: Option<Timestamp>,
    /// How often this version may be read; absent for any number of times.
    max_access_count: Option<u64>,
    /// How often it was read.
    access_count: u64,
    is_disabled: bool,
    created_by: Option<String>,
    created_at: Timestamp,
    /// Always false: no client holds a key of its own to a vault.
    cmek_encrypted: bool,
    /// The secret set whose entry this is: its value is used and never read here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "stripe/prod/billing-bot")]
    secret_set: Option<String>,
}

impl From<SecretVersion> for SecretView {
    fn from(version: SecretVersion) -> Self {
        Self {
            secret_set: version.set_name().map(str::to_owned),
            id: version.id,
            vault_id: version.vault,
            path: version.path,
            r#type: version.kind.unwrap_or_else(|| GENERIC.to_owned()),
            version: version.version,
            metadata: version.metadata.unwrap_or_else(|| json!({})),
            rotation_policy: version.rotation_policy,
            expires_at: version.expires_at.map(Timestamp),
            max_access_count: version.max_reads,
            access_count: version.reads,
            is_disabled: version.disabled_at.is_some(),
            created_by: version.created_by,
            created_at: version.created_at.into(),
            cmek_encrypted: false,
        }
    }
}

/// A version of a secret with its value.
#[derive(Serialize, ToSchema)]
pub(crate) struct SecretValue {
    #[serde(flatten)]
    secret: SecretView,
    #[schema(value_type = String)]
    value: Plaintext,
}

/// A vault, by id or name, and what stands behind it in the path, percent-decoded: `%2F` is a slash.
#[derive(Debug)]
pub(crate) struct Place {
    vault: String,
    rest: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Place {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        path.map(|Path((vault, rest))| Self { vault, rest })
            .map_err(|error| {
                ApiError::invalid("path", "is not UTF-8; percent-encode it as UTF-8").because(error)
            })
    }
}

impl Place {
    /// The path of a secret. It is taken as it is: none is brought into form.
    fn path(&self) -> Result<SecretPath, ApiError> {
        path_of(&self.rest)
    }

    /// The path of a secret and the version behind it.
    fn path_and_version(&self) -> Result<(SecretPath, u64), ApiError> {
        version_of(&self.rest)
    }
}

fn path_of(text: &str) -> Result<SecretPath, ApiError> {
    SecretPath::parse(text).map_err(|error| ApiError::invalid("path", error))
}

fn version_of(text: &str) -> Result<(SecretPath, u64), ApiError> {
    let (path, number) = text.rsplit_once('/').unwrap_or(("", text));
    let path = path_of(path)?;
    // One spelling: no sign, no leading zero.
    let version = number
        .parse()
        .ok()
        .filter(|version: &u64| version.to_string() == number);
    let version = version.filter(|version| *version > 0);
    let version = version.ok_or_else(|| ApiError::not_found("version", number))?;
    Ok((path, version))
}

fn not_found(path: &SecretPath) -> ApiError {
    ApiError::not_found("secret", path.as_str())
}

/// The types that the seeds' documents and clients name.
const TYPES: [&str; 10] = [
    GENERIC,
    "password",
    "api_key",
    "certificate",
    "private_key",
    "ssh_key",
    "env",
    "file",
    "note",
    "env_bundle",
];
pub(super) const GENERIC: &str = "generic";

fn check_type(kind: Option<String>) -> Result<Option<String>, ApiError> {
    match kind {
        Some(kind) if !TYPES.contains(&kind.as_str()) => Err(ApiError::invalid(
            "type",
            format_args!("must be one of {}", TYPES.join(", ")),
        )),
        kind => Ok(kind),
    }
}

/// What a version is to say of itself.
#[derive(Debug, Clone)]
struct About {
    kind: String,
    metadata: Option<Value>,
    rotation_policy: Option<Value>,
    expires_at: Option<OffsetDateTime>,
    max_reads: Option<u64>,
}

/// Seals and stores the next version of a secret.
async fn write(
    state: &AppState,
    access: &VaultAccess<'_>,
    path: &SecretPath,
    value: &Secret,
    about: About,
    action: &'static str,
) -> Result<SecretView, ApiError> {
    let org = access.caller.org();
    let (vaults, secrets) = (state.store.vaults(), state.store.secrets());
    let id = access.vault.id.as_str();
    for _ in 0..WRITE_ATTEMPTS {
        // Each time anew: its key may be another by now.
        let vault = vaults.get(org, id).await?;
        let vault = vault.ok_or_else(|| ApiError::not_found("vault", id))?;
        let place = secrets.next_version(org, &vault, path).await?;
        let kek = KekId::parse(&place.kek_id).map_err(ApiError::internal)?;
        let row = RowBinding {
            org: org.as_str(),
            vault: id,
            path: path.as_str(),
            version: place.version,
        };
        let sealed = state.vault.seal(&kek, value, &row).await?;
        let about = about.clone();
        let new = NewSecret {
            place,
            sealed,
            kind: about.kind,
            metadata: about.metadata,
            rotation_policy: about.rotation_policy,
            expires_at: about.expires_at,
            max_reads: about.max_reads,
        };
        match secrets.put(org, new, action, &access.caller.actor()).await {
            Ok(version) => return Ok(version.into()),
            // Another writer was first: seal for the version after theirs.
            Err(WriteSecretError::Moved) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(WriteSecretError::Moved.into())
}

/// Gives out a value, if the caller may read it and a read is left. The read is counted and on record before anything is opened.
async fn read(
    state: &AppState,
    caller: &Caller,
    vault: &str,
    path: &SecretPath,
    version: Option<u64>,
) -> Result<Response, ApiError> {
    let access = VaultAccess::find(state, caller, vault).await?;
    let policy = access.permit(path, Permission::Read).await?;
    check_may_open(state).await?;
    let event = NewEvent {
        action: "secret.read",
        agent_id: caller.agent().cloned(),
        policy_id: policy,
        ..NewEvent::default()
    };
    let (org, id) = (caller.org(), &access.vault.id);
    let secrets = state.store.secrets();
    let taken = secrets
        .take_read(org, id, path, version, event, &caller.actor())
        .await?;
    let taken = taken.ok_or_else(|| not_found(path))?;
    let opened = open_row(state, &caller.context, (org, id, path), &taken).await?;
    let value = Plaintext(opened);
    let secret = SecretView::from(taken.version);
    let about = [Some(&secret.metadata), secret.rotation_policy.as_ref()];
    let about = about.into_iter().flatten();
    let capacity =
        4096 + value.json_len() + about.map(|object| object.to_string().len()).sum::<usize>();
    plaintext::respond(&SecretValue { secret, value }, capacity)
}

/// Opens what was counted and recorded: here, or by an injector where this plane may not.
pub(crate) async fn open_row(
    state: &AppState,
    context: &RequestContext,
    (org, vault, path): (&OrgId, &VaultId, &SecretPath),
    taken: &OpenedRow,
) -> Result<Secret, ApiError> {
    let version = taken.version.version;
    if state.may_open().await {
        let row = RowBinding {
            org: org.as_str(),
            vault: vault.as_str(),
            path: path.as_str(),
            version,
        };
        return Ok(state.vault.open(&taken.sealed, &row).await?);
    }
    let row = OpenRow {
        org: org.clone(),
        vault: vault.clone(),
        path: path.to_string(),
        version,
    };
    forward::open(state, context, &row).await
}

/// Refuses before a read is counted, where nobody could open what it counted.
pub(crate) async fn check_may_open(state: &AppState) -> Result<(), ApiError> {
    if !state.injectors.is_empty() || state.may_open().await {
        return Ok(());
    }
    let detail = "this control plane's key provider lets it seal and not open, and no injector is configured to open for it; set `server.injectors`, ask a control plane that may unwrap, or put the values into a secret set and export them under a lease";
    Err(ApiError::new(Code::KeyUnavailable, detail))
}

/// How often a write is tried again when another writer was first.
const WRITE_ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_behind_its_path_in_one_spelling() {
        let (path, version) = version_of("a/b/12").unwrap();
        assert_eq!((path.as_str(), version), ("a/b", 12));
        for bad in [
            "12",
            "/12",
            "a/",
            "a/0",
            "a/012",
            "a/+1",
            "a/-1",
            "a/x",
            "a//1",
            "../1",
            "a/99999999999999999999",
        ] {
            assert!(version_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_types_are_a_closed_list() {
        assert!(check_type(Some("env_bundle".to_owned())).is_ok());
        assert!(check_type(None).is_ok());
        assert!(check_type(Some("Generic".to_owned())).is_err());
    }
}
