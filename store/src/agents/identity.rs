//! Identity keys: the key pairs by which an agent is known to others.
//!
//! The public halves stand on the agent's record. The private ones are sealed before they come here, as secrets of a vault to which
//! the service alone writes; both change in one transaction, so that the halves always belong together.

use ::leases::id::{AgentId, OrgId, VaultId};
use ::leases::secret_path::SecretPath;

use super::{Agent, Agents, find};
use crate::db::{Change, Row, Value, WriteTx, id, query};
use crate::secrets::{self, NewSecret, NextVersion, SecretVersion, WriteSecretError};
use crate::timekeeper::at;
use crate::vaults::{AGENT_KEYS, NewVault, Vault, ensure_agent_keys};
use crate::{Actor, NewEvent, StoreError};

/// The public halves of an agent's identity keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityKeys {
    /// Ed25519 (RFC 8032), for SSH.
    pub ssh: [u8; 32],
    /// P-256, an uncompressed point (SEC 1, 2.3.3): `0x04`, then the coordinates. For agreement of keys (ECDH).
    pub ecdh: [u8; 65],
}

/// Where an agent's identity keys will lie: what their seals are to be bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityPlace {
    /// Whose they are.
    pub agent: AgentId,
    /// The vault of identity keys.
    pub vault: VaultId,
    /// That vault's key.
    pub kek_id: String,
    /// The version of either.
    pub version: u64,
}

impl IdentityPlace {
    /// The path of the private SSH key.
    pub fn ssh_path(&self) -> SecretPath {
        path(&self.agent, "ssh")
    }

    /// The path of the private ECDH key.
    pub fn ecdh_path(&self) -> SecretPath {
        path(&self.agent, "ecdh")
    }
}

/// Identity keys to be stored.
#[derive(Debug, Clone)]
pub struct NewIdentity {
    /// What the seals are bound to. The vault is made if there is none.
    pub place: IdentityPlace,
    /// The public halves.
    pub public: IdentityKeys,
    /// The envelope of the private SSH key.
    pub ssh_sealed: Vec<u8>,
    /// The envelope of the private ECDH key.
    pub ecdh_sealed: Vec<u8>,
}

/// Why an agent gets no new identity keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateIdentityError {
    /// Others were made, or the vault was made or got another key, meanwhile: ask for the place again and seal anew.
    #[error("the identity keys changed meanwhile")]
    Moved,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Agents<'_> {
    /// Where the next identity keys of an agent will lie; `None` while the organisation has no vault for them. Whether there is
    /// such an agent is not asked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn identity_place(
        &self,
        org: &OrgId,
        agent: &AgentId,
    ) -> Result<Option<IdentityPlace>, StoreError> {
        let Some(vault) = self.store.vaults().agent_keys(org).await? else {
            return Ok(None);
        };
        let secrets = self.store.secrets();
        let next = secrets
            .next_version(org, &vault, &path(agent, "ssh"))
            .await?;
        Ok(Some(IdentityPlace {
            agent: agent.clone(),
            vault: next.vault,
            kek_id: next.kek_id,
            version: next.version,
        }))
    }

    /// Puts other identity keys in place of an agent's; `None` when there is no such agent. The private halves before stay as
    /// earlier versions.
    ///
    /// # Errors
    /// [`RotateIdentityError`]; nothing was changed.
    pub async fn rotate_identity(
        &self,
        org: &OrgId,
        new: NewIdentity,
        actor: &Actor,
    ) -> Result<Option<Agent>, RotateIdentityError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(mut agent) = find(&mut tx, org, &new.place.agent).await? else {
            return Ok(None);
        };
        agent.identity = Some(new.public);
        agent.updated_at = at(tx.now());
        let [ssh, ecdh] = values(agent.identity);
        query(
            "UPDATE agents SET ssh_public_key = $1, ecdh_public_key = $2, updated_at = $3 \
             WHERE org_id = $4 AND id = $5",
        )
        .bind_all([ssh, ecdh])
        .bind(tx.now())
        .bind(org.as_str())
        .bind(agent.id.as_str())
        .execute(tx.conn())
        .await?;
        let stored = new.store(&mut tx, org, actor).await?;
        stored.record(&mut tx, org, actor).await?;
        super::record(&mut tx, &agent, "agent.rotate_identity_keys", actor).await?;
        tx.commit().await?;
        Ok(Some(agent))
    }
}

impl NewIdentity {
    /// Stores the private halves, in a transaction that is alone in the organisation. What it gives is to be recorded at the end.
    pub(super) async fn store(
        self,
        tx: &mut WriteTx<'_>,
        org: &OrgId,
        actor: &Actor,
    ) -> Result<StoredIdentity, RotateIdentityError> {
        let vault = NewVault {
            id: self.place.vault.clone(),
            kek_id: self.place.kek_id.clone(),
        };
        let made = ensure_agent_keys(tx, org, vault).await?;
        let mut versions = Vec::with_capacity(2);
        for (path, kind, sealed) in [
            (self.place.ssh_path(), "ssh_key", self.ssh_sealed),
            (self.place.ecdh_path(), "private_key", self.ecdh_sealed),
        ] {
            let new = NewSecret {
                place: NextVersion {
                    vault: self.place.vault.clone(),
                    kek_id: self.place.kek_id.clone(),
                    path,
                    version: self.place.version,
                },
                sealed,
                kind: kind.to_owned(),
                metadata: None,
                rotation_policy: None,
                expires_at: None,
                max_reads: None,
            };
            versions.push(secrets::write(tx, org, new, actor).await?);
        }
        Ok(StoredIdentity { made, versions })
    }
}

/// Private halves that were stored, and the vault if it was made for them.
pub(super) struct StoredIdentity {
    made: Option<Vault>,
    versions: Vec<SecretVersion>,
}

impl StoredIdentity {
    pub(super) async fn record(
        &self,
        tx: &mut WriteTx<'_>,
        org: &OrgId,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        if let Some(vault) = &self.made {
            crate::vaults::record(tx, vault, "vault.create", actor).await?;
        }
        for version in &self.versions {
            secrets::record(tx, org, version, "secret.write", actor).await?;
        }
        Ok(())
    }
}

/// Private halves that were marked as deleted: vault, path and newest version of each.
pub(super) struct RemovedIdentity(Vec<(VaultId, String, i64)>);

impl RemovedIdentity {
    pub(super) async fn record(
        &self,
        tx: &mut WriteTx<'_>,
        org: &OrgId,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        for (vault, path, newest) in &self.0 {
            let event = NewEvent {
                action: "secret.delete",
                vault_id: Some(vault.clone()),
                keys: vec![path.clone()],
                secret_version: Some(newest.unsigned_abs()),
                ..NewEvent::default()
            };
            tx.append(org, actor, &event).await?;
        }
        Ok(())
    }
}

/// Marks an agent's private halves as deleted. What it gives is to be recorded at the end.
pub(super) async fn remove(
    tx: &mut WriteTx<'_>,
    agent: &Agent,
) -> Result<RemovedIdentity, StoreError> {
    if agent.identity.is_none() {
        return Ok(RemovedIdentity(Vec::new()));
    }
    let rows = query(
        "UPDATE secrets SET deleted_at = $1 WHERE org_id = $2 AND vault_id IN \
         (SELECT id FROM vaults WHERE org_id = $2 AND name = $3 AND created_by IS NULL) \
         AND path IN ($4, $5) AND deleted_at IS NULL RETURNING vault_id, path, version",
    )
    .bind(tx.now())
    .bind(agent.org.as_str())
    .bind(AGENT_KEYS)
    .bind(path(&agent.id, "ssh").as_str())
    .bind(path(&agent.id, "ecdh").as_str())
    .fetch_all(tx.conn())
    .await?;
    let removed = rows.iter().map(|row| {
        Ok((
            id(row, "vault_id", "agent")?,
            row.try_get("path")?,
            row.try_get("version")?,
        ))
    });
    removed.collect::<Result<_, _>>().map(RemovedIdentity)
}

impl From<WriteSecretError> for RotateIdentityError {
    fn from(error: WriteSecretError) -> Self {
        match error {
            WriteSecretError::Moved => Self::Moved,
            WriteSecretError::Store(error) => Self::Store(error),
            // No set lies in this vault, nothing in it is counted, and it is the service that writes.
            WriteSecretError::SetEntry(_)
            | WriteSecretError::Reserved
            | WriteSecretError::Limit(_) => Self::Store(StoreError::Corrupt { what: AGENT_KEYS }),
        }
    }
}

/// The values of the columns, in the order of the statements that write them.
pub(super) fn values(public: Option<IdentityKeys>) -> [Value; 2] {
    [
        Value::Bytes(public.map(|public| public.ssh.to_vec())),
        Value::Bytes(public.map(|public| public.ecdh.to_vec())),
    ]
}

pub(super) fn read(row: &Row) -> Result<Option<IdentityKeys>, StoreError> {
    let ssh: Option<&[u8]> = row.try_get("ssh_public_key")?;
    let ecdh: Option<&[u8]> = row.try_get("ecdh_public_key")?;
    match (ssh, ecdh) {
        (None, None) => Ok(None),
        (Some(ssh), Some(ecdh)) => Ok(Some(IdentityKeys {
            ssh: ssh.try_into().map_err(|_| CORRUPT)?,
            ecdh: ecdh.try_into().map_err(|_| CORRUPT)?,
        })),
        (Some(_), None) | (None, Some(_)) => Err(CORRUPT),
    }
}

fn path(agent: &AgentId, key: &str) -> SecretPath {
    SecretPath::parse(&format!("agents/{agent}/{key}/private_key"))
        .expect("an agent's id is a segment of a path")
}

const CORRUPT: StoreError = StoreError::Corrupt { what: "agent" };

#[cfg(test)]
mod tests;
