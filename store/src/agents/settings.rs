//! How an agent authenticates, and the bounds of what it gets by that.

use ::leases::id::{OrgId, VaultId};
use time::OffsetDateTime;

use super::{AgentOidc, AuthMethod, oidc};
use crate::StoreError;
use crate::db::{Row, Value, WriteTx, json, optional_time, query, to_json};
use crate::timekeeper::millis;

/// How an agent authenticates, and the bounds of what it gets by that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentSettings {
    /// By what it authenticates.
    pub auth_method: AuthMethod,
    /// The Ed25519 key by which it signs requests; [`AuthMethod::SignedRequest`] alone has one.
    pub public_key: Option<[u8; 32]>,
    /// SHA-256 of its certificate's DER; [`AuthMethod::Mtls`] alone has one.
    pub client_cert_fingerprint: Option<[u8; 32]>,
    /// The identity provider whose tokens it shows; [`AuthMethod::OidcClientCredentials`] alone has one.
    pub oidc: Option<AgentOidc>,
    /// How many seconds its tokens live; `None` for the usual time.
    pub token_ttl_seconds: Option<u32>,
    /// The vaults beyond which it reaches nothing, whatever grants and policies say; `None` for no such bound.
    pub vault_ids: Option<Vec<VaultId>>,
    /// When it ends by itself, with its key, its tokens and its leases.
    pub expires_at: Option<OffsetDateTime>,
}

/// What of the settings changes; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct SettingsPatch {
    /// Another method, with what it takes. What the one before took is forgotten.
    pub auth_method: Option<AuthMethod>,
    /// Another Ed25519 key.
    pub public_key: Option<[u8; 32]>,
    /// Another certificate.
    pub client_cert_fingerprint: Option<[u8; 32]>,
    /// Another identity provider, or the same otherwise: the whole of it.
    pub oidc: Option<AgentOidc>,
    /// Another audience at the provider that it has then; `Some(None)` for the installation's.
    pub oidc_audience: Option<Option<String>>,
    /// Another lifetime of tokens; `Some(None)` for the usual one.
    pub token_ttl_seconds: Option<Option<u32>>,
    /// Other vaults; `Some(None)` lifts the bound.
    pub vault_ids: Option<Option<Vec<VaultId>>>,
    /// Another end; `Some(None)` for none.
    pub expires_at: Option<Option<OffsetDateTime>>,
}

/// Why settings are not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The method lacks what it verifies by.
    #[error("an agent that authenticates by {0} needs {need}", need = needed(*.0))]
    Incomplete(AuthMethod),
    /// What was given belongs to another method.
    #[error("an agent that authenticates by {0} has no such thing")]
    Superfluous(AuthMethod),
    /// The organisation has no such vault.
    #[error("no vault {0}")]
    NoVault(VaultId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn needed(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::ApiKey => "a key",
        AuthMethod::Mtls => "a client_cert_fingerprint",
        AuthMethod::OidcClientCredentials => "an issuer and a client id",
        AuthMethod::SignedRequest => "a public_key",
    }
}

impl AgentSettings {
    /// What the settings are with a patch. What another method took is gone.
    pub(super) fn with(&self, patch: SettingsPatch) -> Result<Self, SettingsError> {
        let auth_method = patch.auth_method.unwrap_or(self.auth_method);
        let kept = |method| auth_method == method;
        let public_key = self.public_key.filter(|_| kept(AuthMethod::SignedRequest));
        let certificate = self.client_cert_fingerprint;
        let certificate = certificate.filter(|_| kept(AuthMethod::Mtls));
        let oidc = self.oidc.clone();
        let oidc = oidc.filter(|_| kept(AuthMethod::OidcClientCredentials));
        let oidc = match (patch.oidc.or(oidc), patch.oidc_audience) {
            (oidc, None) => oidc,
            (Some(oidc), Some(audience)) => Some(AgentOidc { audience, ..oidc }),
            (None, Some(_)) if kept(AuthMethod::OidcClientCredentials) => {
                return Err(SettingsError::Incomplete(auth_method));
            }
            (None, Some(_)) => return Err(SettingsError::Superfluous(auth_method)),
        };
        Ok(Self {
            auth_method,
            public_key: patch.public_key.or(public_key),
            client_cert_fingerprint: patch.client_cert_fingerprint.or(certificate),
            oidc,
            token_ttl_seconds: patch.token_ttl_seconds.unwrap_or(self.token_ttl_seconds),
            vault_ids: patch.vault_ids.unwrap_or_else(|| self.vault_ids.clone()),
            expires_at: patch.expires_at.unwrap_or(self.expires_at),
        })
    }

    /// Whether an agent that authenticated by `before` would still do so: if not, what it got by that ends.
    pub(super) fn authenticates_like(&self, before: &Self) -> bool {
        self.auth_method == before.auth_method
            && self.public_key == before.public_key
            && self.client_cert_fingerprint == before.client_cert_fingerprint
            && self.oidc == before.oidc
    }

    /// Whether a vault is out of reach that was not before.
    pub(super) fn reaches_less_than(&self, before: &Self) -> bool {
        match (&self.vault_ids, &before.vault_ids) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(now), Some(before)) => before.iter().any(|vault| !now.contains(vault)),
        }
    }

    /// Whether method and means go together, and every vault is there.
    pub(super) async fn check(
        &self,
        tx: &mut WriteTx<'_>,
        org: &OrgId,
    ) -> Result<(), SettingsError> {
        let method = self.auth_method;
        let means = [
            (AuthMethod::SignedRequest, self.public_key.is_some()),
            (AuthMethod::Mtls, self.client_cert_fingerprint.is_some()),
            (AuthMethod::OidcClientCredentials, self.oidc.is_some()),
        ];
        for (of, is_there) in means {
            match (of == method, is_there) {
                (true, false) => return Err(SettingsError::Incomplete(method)),
                (false, true) => return Err(SettingsError::Superfluous(method)),
                (true, true) | (false, false) => {}
            }
        }
        for vault in self.vault_ids.iter().flatten() {
            let found =
                query("SELECT 1 FROM vaults WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL")
                    .bind(org.as_str())
                    .bind(vault.as_str())
                    .fetch_optional(tx.conn())
                    .await?;
            if found.is_none() {
                return Err(SettingsError::NoVault(vault.clone()));
            }
        }
        Ok(())
    }

    /// The values of the columns, in the order of the statements that write them.
    pub(super) fn values(&self) -> Result<[Value; 9], StoreError> {
        let bytes = |digest: Option<[u8; 32]>| Value::Bytes(digest.map(Vec::from));
        let vaults = self.vault_ids.as_ref();
        let vaults = vaults.map(|ids| to_json(ids, "agent")).transpose()?;
        let oidc = self.oidc.as_ref();
        Ok([
            self.auth_method.as_str().into(),
            bytes(self.public_key),
            bytes(self.client_cert_fingerprint),
            oidc.map(|oidc| oidc.issuer.clone()).into(),
            oidc.map(|oidc| oidc.client_id.clone()).into(),
            oidc.and_then(|oidc| oidc.audience.clone()).into(),
            self.token_ttl_seconds.map(i64::from).into(),
            vaults.into(),
            self.expires_at.map(millis).into(),
        ])
    }

    pub(super) fn read(row: &Row) -> Result<Self, StoreError> {
        let seconds: Option<i64> = row.try_get("token_ttl_seconds")?;
        let vaults: Option<&str> = row.try_get("vault_ids")?;
        Ok(Self {
            auth_method: row.try_get::<&str>("auth_method")?.parse()?,
            public_key: digest(row, "public_key")?,
            client_cert_fingerprint: digest(row, "client_cert_fingerprint")?,
            oidc: oidc::read(row)?,
            token_ttl_seconds: seconds
                .map(u32::try_from)
                .transpose()
                .map_err(|_| CORRUPT)?,
            vault_ids: vaults
                .map(|_| json(row, "vault_ids", "agent"))
                .transpose()?,
            expires_at: optional_time(row, "expires_at")?,
        })
    }
}

fn digest(row: &Row, column: &str) -> Result<Option<[u8; 32]>, StoreError> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    bytes
        .map(|bytes| bytes.try_into().map_err(|_| CORRUPT))
        .transpose()
}

const CORRUPT: StoreError = StoreError::Corrupt { what: "agent" };
