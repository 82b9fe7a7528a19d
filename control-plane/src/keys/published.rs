//! Public halves of signing keys, sealed on their own: who may not mint still knows for certain whose signatures to take.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;
use vault::Secret;

use super::chest::{KeyChest, KeyChestError, NewKey, bootstrap_actor};
use super::period::{OVERLAP, Periods, Publication};
use super::signing::Signers;

/// The public halves of one key, opened once each.
#[derive(Debug)]
pub(crate) struct Published {
    name: &'static str,
    lifetime: Duration,
    opened: Mutex<BTreeMap<u64, [u8; 32]>>,
}

/// What holds for a key at one time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Period {
    /// The version that signs.
    pub(crate) signing: u64,
    /// The versions whose signatures are taken, newest first.
    pub(crate) verifying: Vec<(u64, [u8; 32])>,
}

impl Published {
    /// Of the key `name`, whose signatures mean nothing after `lifetime`.
    pub(crate) fn new(name: &'static str, lifetime: Duration) -> Self {
        Self {
            name,
            lifetime,
            opened: Mutex::default(),
        }
    }

    /// What holds now. One read of the store, and an unwrap for each version that was not met before.
    ///
    /// `signers` serve where this process may not unwrap: a provider knows the public halves of its keys.
    pub(crate) async fn period(
        &self,
        chest: &KeyChest,
        signers: Option<&Signers>,
        now: OffsetDateTime,
    ) -> Result<Period, KeyChestError> {
        let missing = || KeyChestError::Missing {
            name: self.name.to_owned(),
        };
        let mut rows = chest.rows(&public_name(self.name)).await?;
        rows.reverse();
        let published: Vec<Publication> = rows.iter().map(Publication::of).collect();
        let periods = Periods {
            published: &published,
            overlap: OVERLAP,
            lifetime: self.lifetime,
        };
        let signing = periods.signing(now).ok_or_else(missing)?;
        let live = periods.verifying(now);
        let mut verifying = Vec::with_capacity(live.len());
        for version in live {
            let row = rows.iter().find(|row| row.version == version);
            let row = row.ok_or_else(missing)?.clone();
            verifying.push((version, self.open(row, chest, signers).await?));
        }
        Ok(Period { signing, verifying })
    }

    async fn open(
        &self,
        row: store::SealedKey,
        chest: &KeyChest,
        signers: Option<&Signers>,
    ) -> Result<[u8; 32], KeyChestError> {
        let version = row.version;
        let known = self.opened.lock().get(&version).copied();
        if let Some(public) = known {
            return Ok(public);
        }
        let public = match (chest.open(row).await, signers) {
            (Ok(opened), _) => {
                opened
                    .secret
                    .expose()
                    .try_into()
                    .map_err(|_| KeyChestError::Malformed {
                        name: public_name(self.name),
                    })?
            }
            (Err(error), Some(signers)) if error.is_denied() => {
                self.ask(version, chest, signers).await?
            }
            (Err(error), _) => return Err(error),
        };
        self.opened.lock().insert(version, public);
        Ok(public)
    }

    async fn ask(
        &self,
        version: u64,
        chest: &KeyChest,
        signers: &Signers,
    ) -> Result<[u8; 32], KeyChestError> {
        let mut rows = chest.rows(self.name).await?.into_iter();
        let row = rows.find(|row| row.version == version);
        let row = row.ok_or_else(|| KeyChestError::Missing {
            name: self.name.to_owned(),
        })?;
        Ok(chest.signing_key(self.name, row, signers).await?.public())
    }
}

impl KeyChest {
    /// Publishes the public halves of those versions that have none yet: after a crash between the two, and of installations
    /// that are older than this. A key signs only after it was published.
    pub(crate) async fn publish(
        &self,
        name: &'static str,
        signers: &Signers,
    ) -> Result<(), KeyChestError> {
        let public_name = public_name(name);
        let published = self.next_version(&public_name).await? - 1;
        let mut rows = self.rows(name).await?;
        rows.reverse();
        for row in rows.into_iter().filter(|row| row.version > published) {
            let version = row.version;
            let public = self.signing_key(name, row, signers).await?.public();
            let new = NewKey {
                secret: Secret::new(public.to_vec()),
                public: public.to_vec(),
            };
            match self
                .put(&public_name, version, new, &bootstrap_actor())
                .await
            {
                Ok(_) => {}
                // Another process was first, with the same key.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The name under which the public halves of a key lie.
pub(crate) fn public_name(name: &str) -> String {
    format!("{name}-public")
}
