//! Every seal of a vault in one order, for rotations: the values of secrets in all their versions,
//! those of deleted secrets too, then the keys of the service.

use ::leases::id::{OrgId, VaultId};

use crate::db::{Change, Row, WriteTx, count, query, stored};
use crate::{Store, StoreError};

/// Before a key's name this gives the path that its seal is bound to.
pub const KEY_PATH: &str = "__keys/";

/// What a seal protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SealKind {
    /// One version of a secret's value.
    Secret,
    /// One version of a key of the service, in the default vault.
    Key,
}

/// Which seal: all that it is bound to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealRef {
    /// Its organisation.
    pub org: OrgId,
    /// The vault whose key protects it.
    pub vault: VaultId,
    /// What it protects.
    pub kind: SealKind,
    /// The path that it is bound to: the secret's, or [`KEY_PATH`] and the key's name.
    pub path: String,
    /// The version that it is bound to.
    pub version: u64,
}

/// A seal and its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SealRow {
    /// Which one.
    pub seal: SealRef,
    /// The envelope.
    pub sealed: Vec<u8>,
}

/// Other bytes for a seal, if it still has these.
#[derive(Clone, PartialEq, Eq)]
pub struct Swap {
    /// Which one.
    pub seal: SealRef,
    /// The envelope as it was read.
    pub old: Vec<u8>,
    /// The envelope to put in its place.
    pub new: Vec<u8>,
}

impl std::fmt::Debug for SealRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SealRow").field(&self.seal).finish()
    }
}

impl std::fmt::Debug for Swap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Swap").field(&self.seal).finish()
    }
}

/// The seals of a store.
#[derive(Debug, Clone, Copy)]
pub struct Seals<'a> {
    pub(crate) store: &'a Store,
}

impl Seals<'_> {
    /// At most `limit` seals of a vault after `after`, in order; fewer only at the end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn page(
        &self,
        org: &OrgId,
        vault: &VaultId,
        after: Option<&SealRef>,
        limit: u32,
    ) -> Result<Vec<SealRow>, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        if after.is_none_or(|after| after.kind == SealKind::Secret) {
            rows = self.secrets(org, vault, after, limit).await?;
        }
        if rows.len() < limit {
            let after = after.filter(|after| after.kind == SealKind::Key);
            let keys = self.keys(org, vault, after, limit - rows.len()).await?;
            rows.extend(keys);
        }
        Ok(rows)
    }

    /// How many seals a vault has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count(&self, org: &OrgId, vault: &VaultId) -> Result<u64, StoreError> {
        let found: Option<i64> = counting(org, vault).fetch_value(self.store.pool()).await?;
        Ok(found.unwrap_or(0).cast_unsigned())
    }

    /// Puts new bytes in the place of old ones, all in one transaction, and gives the number of
    /// seals changed. A seal whose bytes are others by now, or which is gone, stays as it is.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed.
    pub async fn swap(&self, swaps: &[Swap]) -> Result<u64, StoreError> {
        let mut tx = self.store.write(Change::Seals).await?;
        let swapped = swap(&mut tx, swaps).await?;
        tx.commit().await?;
        Ok(swapped)
    }

    async fn secrets(
        &self,
        org: &OrgId,
        vault: &VaultId,
        after: Option<&SealRef>,
        limit: usize,
    ) -> Result<Vec<SealRow>, StoreError> {
        let rows = query(
            "SELECT path, version, sealed FROM secret_versions \
             WHERE org_id = $1 AND vault_id = $2 AND (path, version) > ($3, $4) \
             ORDER BY path, version LIMIT $5",
        )
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(after.map_or("", |after| &after.path))
        .bind(after.map_or(0, |after| stored(after.version)))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(self.store.pool())
        .await?;
        rows.iter()
            .map(|row| read(row, org, vault, SealKind::Secret, ""))
            .collect()
    }

    async fn keys(
        &self,
        org: &OrgId,
        vault: &VaultId,
        after: Option<&SealRef>,
        limit: usize,
    ) -> Result<Vec<SealRow>, StoreError> {
        let rows = query(
            "SELECT k.name AS path, k.version, k.sealed FROM sealed_keys k \
             JOIN vaults v ON v.org_id = k.org_id AND v.name = 'default' \
             WHERE k.org_id = $1 AND v.id = $2 AND (k.name, k.version) > ($3, $4) \
             ORDER BY k.name, k.version LIMIT $5",
        )
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(after.map_or("", SealRef::key_name))
        .bind(after.map_or(0, |after| stored(after.version)))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(self.store.pool())
        .await?;
        rows.iter()
            .map(|row| read(row, org, vault, SealKind::Key, KEY_PATH))
            .collect()
    }
}

impl SealRef {
    fn key_name(&self) -> &str {
        self.path.strip_prefix(KEY_PATH).unwrap_or(&self.path)
    }

    /// Its place in the order, as a rotation's row has it.
    pub(crate) fn to_place(&self) -> String {
        let kind = match self.kind {
            SealKind::Secret => 's',
            SealKind::Key => 'k',
        };
        format!("{kind}/{}/{}", self.version, self.path)
    }

    /// The seal at a place that [`SealRef::to_place`] gave.
    pub(crate) fn at_place(org: &OrgId, vault: &VaultId, place: &str) -> Option<Self> {
        let mut parts = place.splitn(3, '/');
        let kind = match parts.next()? {
            "s" => SealKind::Secret,
            "k" => SealKind::Key,
            _ => return None,
        };
        Some(Self {
            org: org.clone(),
            vault: vault.clone(),
            kind,
            version: parts.next()?.parse().ok()?,
            path: parts.next()?.to_owned(),
        })
    }
}

/// Asks for the number of a vault's seals.
pub(crate) fn counting(org: &OrgId, vault: &VaultId) -> crate::db::Query {
    query(
        "SELECT (SELECT COUNT(*) FROM secret_versions WHERE org_id = $1 AND vault_id = $2) \
         + (SELECT COUNT(*) FROM sealed_keys k JOIN vaults v \
            ON v.org_id = k.org_id AND v.name = 'default' WHERE k.org_id = $1 AND v.id = $2)",
    )
    .bind(org.as_str())
    .bind(vault.as_str())
}

/// Swaps inside a change. In the seals' order, so that two who swap never wait for each other in
/// a circle.
pub(crate) async fn swap(tx: &mut WriteTx<'_>, swaps: &[Swap]) -> Result<u64, StoreError> {
    let mut swaps: Vec<&Swap> = swaps.iter().collect();
    swaps.sort_by(|one, other| one.seal.cmp(&other.seal));
    let mut swapped = 0;
    for swap in swaps {
        let seal = &swap.seal;
        let update = match seal.kind {
            SealKind::Secret => query(
                "UPDATE secret_versions SET sealed = $1 WHERE org_id = $2 AND vault_id = $3 \
                 AND path = $4 AND version = $5 AND sealed = $6",
            )
            .bind(&swap.new)
            .bind(seal.org.as_str())
            .bind(seal.vault.as_str())
            .bind(&seal.path),
            SealKind::Key => query(
                "UPDATE sealed_keys SET sealed = $1 WHERE org_id = $2 \
                 AND name = $3 AND version = $4 AND sealed = $5",
            )
            .bind(&swap.new)
            .bind(seal.org.as_str())
            .bind(seal.key_name()),
        };
        swapped += update
            .bind(stored(seal.version))
            .bind(&swap.old)
            .execute(tx.conn())
            .await?;
    }
    Ok(swapped)
}

fn read(
    row: &Row,
    org: &OrgId,
    vault: &VaultId,
    kind: SealKind,
    prefix: &str,
) -> Result<SealRow, StoreError> {
    Ok(SealRow {
        seal: SealRef {
            org: org.clone(),
            vault: vault.clone(),
            kind,
            path: format!("{prefix}{}", row.try_get::<&str>("path")?),
            version: count(row, "version")?,
        },
        sealed: row.try_get("sealed")?,
    })
}
