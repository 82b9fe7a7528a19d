//! The audit chain: appending to it, reading it, and finding what was done to it.

use std::path::{Path, PathBuf};

use ::leases::id::{AgentId, LeaseId, OrgId, SetId};
use futures::stream::BoxStream;
use time::OffsetDateTime;

use crate::db::{Change, Pool};
use crate::{Actor, Event, Location, NewEvent, Page, PageRequest, Store, StoreError};

pub(crate) mod checkpoint;
mod list;
mod told;
mod verify;

/// Under this name the public key that signs checkpoints is looked for among the sealed keys.
pub const CHECKPOINT_KEY: &str = "audit-checkpoint";

/// Which events to list; an absent field does not limit.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Of this secret set.
    pub secret_set_id: Option<SetId>,
    /// Of this agent.
    pub agent_id: Option<AgentId>,
    /// Of this lease.
    pub lease_id: Option<LeaseId>,
    /// Of this action, e.g. `lease.use`.
    pub action: Option<String>,
    /// By this actor.
    pub actor_id: Option<String>,
    /// With this text in this field of the record, for ids that are no column of their own.
    pub field: Option<(&'static str, String)>,
    /// Not before this time.
    pub from: Option<OffsetDateTime>,
    /// Before this time.
    pub to: Option<OffsetDateTime>,
}

/// What was appended since the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// Oldest first.
    pub events: Vec<Event>,
    /// Behind them: from here the next look goes on. Digits, `.` and `_` alone.
    pub place: String,
}

/// What was appended behind a place, for whoever takes it event by event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    /// Each stream's in its order.
    pub steps: Vec<Step>,
    /// Behind all of them.
    pub end: String,
}

/// An event, and the place behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The event.
    pub event: Event,
    /// From here it goes on once this event is dealt with.
    pub place: String,
}

/// Signs the heads of the chain: an Ed25519 key that the caller seals like its other keys.
pub struct CheckpointSigner {
    key: ed25519_dalek::SigningKey,
}

impl CheckpointSigner {
    /// A signer from the 32 secret bytes of an Ed25519 key.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self {
            key: ed25519_dalek::SigningKey::from_bytes(seed),
        }
    }

    /// The public key, 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }
}

impl std::fmt::Debug for CheckpointSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CheckpointSigner(..)")
    }
}

/// The heads of a process's streams at one moment, signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHeads {
    /// `{"statement":{"written_at":…,"heads":{STREAM:{"seq":…,"hash":…}}},"key":…,"signature":…}` without a line break. The
    /// signature (Ed25519, hex) is over `claviger audit checkpoint v1`, a line break, and the statement's text as it stands.
    pub line: String,
    /// The node whose streams these are.
    pub node: String,
    /// When they were signed, RFC 3339 in UTC with milliseconds.
    pub written_at: String,
    /// Records in all of the streams: it grows with every record.
    pub records: u64,
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BadReason {
    /// The text of the record is not the one that was hashed.
    Edited,
    /// The record is not there although later ones are.
    Missing,
    /// Another record stands in its place.
    OutOfOrder,
    /// The stream ends before a head that was signed or is in memory.
    Truncated,
    /// A copied column differs from the record's text.
    ColumnDiffers,
    /// It does not follow the record before it: one of the two stands in for another.
    Unlinked,
    /// All records link, and the signed head is another: history was written anew.
    Rewritten,
    /// The checkpoint's signature is not by the trusted key.
    BadSignature,
    /// Heads were signed, and no signed head is at hand: whether records are missing at the end cannot be told.
    Unanchored,
}

impl BadReason {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edited => "edited",
            Self::Missing => "missing",
            Self::OutOfOrder => "out_of_order",
            Self::Truncated => "truncated",
            Self::ColumnDiffers => "column_differs",
            Self::Unlinked => "unlinked",
            Self::Rewritten => "rewritten",
            Self::BadSignature => "bad_signature",
            Self::Unanchored => "unanchored",
        }
    }
}

/// The first record of a stream that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// The stream.
    pub stream: String,
    /// The record's place.
    pub seq: u64,
    /// What is wrong.
    pub reason: BadReason,
    /// The same in a sentence.
    pub why: String,
}

/// What was found in one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamReport {
    /// The stream.
    pub stream: String,
    /// How many records it holds.
    pub events: u64,
    /// Place of its last record.
    pub head_seq: u64,
    /// Hash of its last record, lower-case hex.
    pub head_hash: String,
    /// The signed head, if a checkpoint names this stream.
    pub checkpoint_seq: Option<u64>,
    /// The first bad record.
    pub first_bad: Option<BadRecord>,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Every stream.
    pub streams: Vec<StreamReport>,
    /// The first bad record of all.
    pub first_bad: Option<BadRecord>,
    /// The key that signed the checkpoint, lower-case hex; `None` without a checkpoint.
    pub checkpoint_key: Option<String>,
    /// Secret sets whose stored version is below one that the chain recorded.
    pub rolled_back: Vec<RolledBack>,
    /// Secrets by path and policies whose rows are other than the chain recorded.
    pub put_back: Vec<PutBack>,
}

/// A secret set whose rows were put back to an earlier state behind the store's back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The set's id.
    pub secret_set_id: String,
    /// The highest version that the chain recorded.
    pub recorded: u64,
    /// The version in the database.
    pub stored: u64,
}

/// A secret by path or a policy whose rows were put back to an earlier state, or written, behind the store's back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutBack {
    /// `secret` or `policy`.
    pub kind: &'static str,
    /// Its organisation's id.
    pub org_id: String,
    /// Its vault's id.
    pub vault_id: String,
    /// The secret's path, or the policy's id.
    pub name: String,
    /// What is wrong with it, in a sentence.
    pub why: String,
}

impl VerifyReport {
    /// Whether nothing bad was found.
    pub const fn is_intact(&self) -> bool {
        self.first_bad.is_none() && self.rolled_back.is_empty() && self.put_back.is_empty()
    }
}

/// Why a verification could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The database cannot be read.
    #[error("cannot read {database}: {reason}")]
    Database {
        /// The database.
        database: String,
        /// What it says.
        reason: String,
    },
    /// The checkpoint cannot be read.
    #[error("cannot read the audit checkpoint {path}: {reason}")]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// How to verify a database that no server has open, or one that some other process has.
#[derive(Debug, Clone, Default)]
pub struct OfflineOptions {
    /// The public key that must have signed the checkpoint. Without it, the key in the database
    /// is trusted, which whoever can write the database could have put there.
    pub trusted_key: Option<[u8; 32]>,
    /// Heads that were published while the server ran, a signed one a line ([`Audit::signed_heads`]), and kept where whoever
    /// writes the database could not reach them: the chain has to hold every one of them.
    pub published: Option<PathBuf>,
}

/// Verifies the chain in a database against the checkpoint file, without opening it as a store.
///
/// Needs bounded memory: records are read in pages. The database may be in use.
///
/// # Errors
/// [`VerifyError`] if either cannot be read.
pub async fn verify_offline(
    location: &Location,
    checkpoint_path: &Path,
    options: &OfflineOptions,
) -> Result<VerifyReport, VerifyError> {
    let pool = match location {
        Location::Sqlite(path) => {
            let pool = crate::open::read_only(path).await;
            Pool::Sqlite(pool.map_err(|error| VerifyError::Database {
                database: location.to_string(),
                reason: crate::db::chain_of(&error),
            })?)
        }
        Location::Postgres(url) => Pool::Postgres(crate::postgres::Pool::new(url.clone())),
    };
    let report = verify::verify(verify::Evidence {
        location: location.clone(),
        pool: pool.clone(),
        checkpoint: checkpoint_path.to_owned(),
        trusted_key: options.trusted_key,
        published: options.published.clone(),
        expects_signed: None,
        in_memory: std::collections::BTreeMap::new(),
    })
    .await;
    pool.close().await;
    report
}

/// The audit chain of a store.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    pub(crate) store: &'a Store,
}

impl Audit<'_> {
    /// Appends an event that belongs to no other change, e.g. `auth.failure`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn append(
        &self,
        org: &OrgId,
        event: NewEvent,
        actor: &Actor,
    ) -> Result<Event, StoreError> {
        let mut tx = self.store.write(Change::Event).await?;
        let written = tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(written)
    }

    /// Events, newest first. A filtered page may be short although more follow.
    ///
    /// # Errors
    /// [`StoreError`], [`StoreError::BadCursor`].
    pub async fn list(
        &self,
        org: &OrgId,
        filter: &EventFilter,
        page: &PageRequest,
    ) -> Result<Page<Event>, StoreError> {
        list::newest_first(self.store, org, filter, page).await
    }

    /// All events that pass the filter, oldest first, read as they are taken.
    pub fn export(
        &self,
        org: &OrgId,
        filter: &EventFilter,
    ) -> BoxStream<'static, Result<Event, StoreError>> {
        list::oldest_first(self.store.clone(), org.clone(), filter.clone())
    }

    /// What was appended behind a place, which is [`Followed::place`] of the time before; `None` begins where the trail ends now.
    /// At most 500 events of each stream at a time.
    ///
    /// # Errors
    /// [`StoreError`], [`StoreError::BadCursor`].
    pub async fn after(
        &self,
        org: &OrgId,
        filter: &EventFilter,
        place: Option<&str>,
    ) -> Result<Followed, StoreError> {
        list::after(self.store, org, filter, place).await
    }

    /// The same event by event: of an organisation, or, for what an operator runs, of all. An empty place is before the first
    /// record.
    ///
    /// # Errors
    /// [`StoreError`], [`StoreError::BadCursor`].
    pub async fn steps(&self, org: Option<&OrgId>, place: &str) -> Result<Steps, StoreError> {
        list::steps(self.store, org, place).await
    }

    /// The place where the trail ends now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end(&self) -> Result<String, StoreError> {
        list::end(self.store).await
    }

    /// The id of a bad record, if it is one of this organisation's that can still be read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn id_of_bad(
        &self,
        org: &OrgId,
        bad: &BadRecord,
    ) -> Result<Option<String>, StoreError> {
        list::id_at(self.store, org, (&bad.stream, bad.seq)).await
    }

    /// Verifies every stream against memory and the signed heads.
    ///
    /// # Errors
    /// [`VerifyError`] if it could not be done.
    pub async fn verify(&self) -> Result<VerifyReport, VerifyError> {
        let inner = &self.store.inner;
        verify::verify(verify::Evidence {
            location: inner.location.clone(),
            pool: inner.pool.clone(),
            checkpoint: inner.checkpoint.clone(),
            trusted_key: inner.ledger.checkpoint_key(),
            published: None,
            expects_signed: Some(inner.ledger.has_signed()),
            in_memory: inner
                .heads
                .each()
                .map(|head| (head.stream.name.to_string(), head.get()))
                .into(),
        })
        .await
    }

    /// This process's heads as they were last committed, signed: one line of JSON, to be kept where whoever writes the
    /// database cannot reach it. `None` before [`start_checkpoints`](Self::start_checkpoints), and while nothing is on record.
    pub fn signed_heads(&self) -> Option<SignedHeads> {
        let inner = &self.store.inner;
        let signer = inner.ledger.signer()?;
        checkpoint::sign(&signer, &inner.heads, inner.time.now())
    }

    /// From now on, signs the heads into the checkpoint file at most 1 s after they move, and at close.
    pub fn start_checkpoints(&self, signer: CheckpointSigner) {
        self.store.inner.ledger.sign_with(signer);
    }
}

#[cfg(test)]
mod tests;
