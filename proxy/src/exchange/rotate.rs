//! Refresh tokens that are replaced by their use: asked for by one process at a time, stored before the new token is used.
//!
//! The store is what processes meet in. Whoever makes the token claims it there, and stores what came of it as a new version
//! of the set: the refresh token under its own key, and the access token, with its end, under the key that is made. Others
//! find both there, also after a restart, and ask nobody. A process that is killed between the endpoint's answer and its
//! commit loses what nobody else knows; until then the earlier refresh token stands.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use leases::id::{OrgId, SetId};
use providers::exchange::{MadeKey, Recipe};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use store::secret_sets::{SealedEntry, SetChange, SetContents};
use store::{Actor, Idempotency, Sealed, WriteSetError};
use time::OffsetDateTime;
use tokio::time::Instant;
use vault::{KekId, RowBinding, Secret};
use zeroize::Zeroizing;

use super::{Desk, Job, Token, unavailable};
use crate::refuse::{Code, Refusal};

/// Under what a claim is filed.
const CLAIMANT: &str = "injector";
/// How long another process's making is waited for: its question's deadline, and its writing.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the store is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a write is tried when another writer was first or the store did not answer.
const WRITE_ATTEMPTS: u32 = 5;
/// The part of a token's time with which it is no longer handed out as it is, but made anew.
const LEAST_LEFT: f64 = 0.2;

/// What lies sealed under the made key.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    /// The version of the entry of the refresh token beside it. Another one was stored by somebody else, for another account
    /// perhaps.
    beside: u64,
    made_at: i64,
    ends_at: i64,
    #[serde(borrow)]
    token: Cow<'a, str>,
}

/// A refresh token and the access token beside it, as the store has them.
struct Found {
    contents: SetContents,
    /// The version of the refresh token's entry.
    version: u64,
    refresh: Arc<Secret>,
    token: Option<Token>,
}

impl Desk {
    /// The stored token, or else a new one.
    pub(super) async fn make_by_refresh(&self, job: &Job, entry: &str) -> Result<Token, Refusal> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let found = self.find(job, entry).await?;
            if let Some(token) = found.token {
                return Ok(token);
            }
            if self.claim(job).await? {
                let made = self.refresh(job, entry).await;
                self.release(job).await;
                return made;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(unavailable(
            "another process makes this credential and has not ended; nothing was sent to the provider, so try again",
        ))
    }

    /// Refreshes under a claim. Somebody may have done so between the look and the claim.
    async fn refresh(&self, job: &Job, entry: &str) -> Result<Token, Refusal> {
        let found = self.find(job, entry).await?;
        if let Some(token) = found.token {
            return Ok(token);
        }
        let mut secrets = job.secrets.clone();
        secrets.insert(entry.to_owned(), Arc::clone(&found.refresh));
        let job = Job {
            occasion: job.occasion.clone(),
            recipe: job.recipe.clone(),
            secrets,
        };
        let (made_at, now) = (Instant::now(), self.clock.now());
        let mut made = self.make_now(&job).await?;
        if let Some(rotated) = made.rotated.take() {
            self.keep(&job, entry, &found, &made, &rotated, now).await?;
        }
        Ok(Token {
            value: Arc::new(made.value),
            made_at,
            lifetime: made.lifetime,
        })
    }

    /// What the current version of the set holds, whichever version the use was recorded with: an earlier one's refresh token
    /// may have been replaced.
    async fn find(&self, job: &Job, entry: &str) -> Result<Found, Refusal> {
        let (org, set) = (&job.occasion.org, &job.occasion.set);
        let unreadable = |error: &dyn std::fmt::Display| {
            tracing::error!(secret_set.id = %set, %error, "a secret set could not be read");
            unavailable("the secret set could not be read; try again")
        };
        let sets = self.store.secret_sets();
        let current = sets
            .get(org, set)
            .await
            .map_err(|error| unreadable(&error))?;
        let current = current.ok_or_else(deleted)?;
        let contents = sets.contents(org, set, current.version).await;
        let contents = contents.map_err(|error| unreadable(&error))?;
        let contents = contents.ok_or_else(deleted)?;
        let sealed = |key: &str| contents.entries.iter().find(|one| one.key == key);
        let refresh = sealed(entry).ok_or_else(|| {
            Refusal::new(
                Code::GrantDenied,
                format!("the set has no `{entry}`; add it with `claviger set put`"),
            )
        })?;
        let version = refresh.version;
        let refresh = Arc::new(self.open(org, refresh).await?);
        let token = match sealed(job.recipe.key()) {
            Some(stored) => self.stored(org, stored, version).await?,
            None => None,
        };
        Ok(Found {
            contents,
            version,
            refresh,
            token,
        })
    }

    /// The stored access token, if it belongs to the refresh token and has time left.
    async fn stored(
        &self,
        org: &OrgId,
        entry: &SealedEntry,
        beside: u64,
    ) -> Result<Option<Token>, Refusal> {
        let opened = self.open(org, entry).await?;
        let Ok(stored) = serde_json::from_slice::<Stored<'_>>(opened.expose()) else {
            return Ok(None);
        };
        let now = self.clock.now().unix_timestamp();
        let (whole, left) = (stored.ends_at - stored.made_at, stored.ends_at - now);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a day in seconds is far below 2^52"
        )]
        let is_old = left as f64 <= whole as f64 * LEAST_LEFT;
        if stored.beside != beside || is_old || self.was_turned_down(&stored.token) {
            return Ok(None);
        }
        Ok(Some(Token {
            value: Arc::new(Secret::from(Zeroizing::new(
                stored.token.as_bytes().to_vec(),
            ))),
            made_at: Instant::now(),
            lifetime: Duration::from_secs(u64::try_from(left).unwrap_or(0)),
        }))
    }

    /// Stores the new refresh token and the access token beside it, durably, before anybody uses either.
    async fn keep(
        &self,
        job: &Job,
        entry: &str,
        found: &Found,
        made: &MadeKey,
        rotated: &Secret,
        now: OffsetDateTime,
    ) -> Result<(), Refusal> {
        for attempt in 1..=WRITE_ATTEMPTS {
            match self.write(job, entry, found, made, rotated, now).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::error!(secret_set.id = %job.occasion.set, attempt, %error, "a new refresh token could not be stored yet");
                }
            }
            if self
                .find(job, entry)
                .await
                .is_ok_and(|now| now.version != found.version)
            {
                return Err(unavailable(
                    "the refresh token was stored anew by an operator meanwhile; try again",
                ));
            }
            tokio::time::sleep(LOOK_EVERY * attempt * attempt).await;
        }
        Err(unavailable(
            "the new refresh token could not be stored, so its access token is not used; try again, and see /v1/health",
        ))
    }

    async fn write(
        &self,
        job: &Job,
        entry: &str,
        found: &Found,
        made: &MadeKey,
        rotated: &Secret,
        now: OffsetDateTime,
    ) -> Result<(), WriteError> {
        let (org, set, contents) = (&job.occasion.org, &job.occasion.set, &found.contents);
        let keys = [entry.to_owned(), job.recipe.key().to_owned()];
        let sets = self.store.secret_sets();
        let next = sets
            .next_versions(
                org,
                &contents.provider,
                &contents.environment,
                &contents.name,
                &keys,
            )
            .await?;
        let (path, version) = &next.entries[entry];
        if *version != found.version + 1 {
            return Err(WriteSetError::Moved.into());
        }
        let made_at = now.unix_timestamp();
        let lifetime = i64::try_from(made.lifetime.as_secs()).unwrap_or(0);
        let stored = Stored {
            beside: *version,
            made_at,
            ends_at: made_at + lifetime,
            token: Cow::Borrowed(made.value.expose_str().unwrap_or_default()),
        };
        // With room for all of it, so that no half-written copy is left behind.
        let mut text = Zeroizing::new(Vec::with_capacity(2 * made.value.len() + 128));
        serde_json::to_writer(&mut *text, &stored).expect("numbers and a text are JSON");
        let stored = Secret::from(text);
        let kek = KekId::parse(&next.kek_id).map_err(|_| WriteError::Kek)?;
        let mut put = Vec::new();
        let (stored_path, stored_version) = &next.entries[job.recipe.key()];
        for (key, path, version, secret) in [
            (entry, path, version, rotated),
            (job.recipe.key(), stored_path, stored_version, &stored),
        ] {
            let row = RowBinding {
                org: org.as_str(),
                vault: next.vault.as_str(),
                path,
                version: *version,
            };
            let sealed = Sealed {
                path: path.clone(),
                version: *version,
                bytes: self.vault.seal(&kek, secret, &row).await?,
            };
            put.push((key.to_owned(), sealed));
        }
        let change = SetChange {
            put,
            drop: Vec::new(),
            custom: None,
            kek_id: Some(next.kek_id),
        };
        let actor = Actor::system(CLAIMANT);
        match sets.update(org, set, change, &actor).await? {
            Some(_) => Ok(()),
            None => Err(WriteError::Deleted),
        }
    }

    /// Whether this making is ours alone now, over all processes.
    async fn claim(&self, job: &Job) -> Result<bool, Refusal> {
        let (org, name) = (
            &job.occasion.org,
            claim_name(&job.occasion.set, &job.recipe),
        );
        let hash = Sha256::digest(name.as_bytes()).into();
        let claims = self.store.idempotency();
        match claims.begin(org, CLAIMANT, &name, &hash).await {
            Ok(claimed) => Ok(claimed == Idempotency::Fresh),
            Err(error) => {
                tracing::error!(secret_set.id = %job.occasion.set, %error, "the making of a token could not be claimed");
                Err(unavailable(
                    "the making of the credential could not be claimed; try again, and see /v1/health",
                ))
            }
        }
    }

    async fn release(&self, job: &Job) {
        let (org, name) = (
            &job.occasion.org,
            claim_name(&job.occasion.set, &job.recipe),
        );
        let claims = self.store.idempotency();
        if let Err(error) = claims.abandon(org, CLAIMANT, &name).await {
            // It ends by itself after a minute.
            tracing::warn!(secret_set.id = %job.occasion.set, %error, "a claim could not be given back");
        }
    }

    async fn open(&self, org: &OrgId, entry: &SealedEntry) -> Result<Secret, Refusal> {
        let row = RowBinding {
            org: org.as_str(),
            vault: entry.vault.as_str(),
            path: &entry.path,
            version: entry.version,
        };
        self.vault.open(&entry.sealed, &row).await.map_err(|error| {
            tracing::error!(secret.path = %entry.path, secret.version = entry.version, %error, "a secret did not open");
            unavailable("the key provider did not open the credential; try again, and see /v1/health")
        })
    }
}

/// Why a new refresh token was not stored yet.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error(transparent)]
    Store(#[from] WriteSetError),
    #[error(transparent)]
    Seal(#[from] vault::SealError),
    #[error("the vault's key has no proper name")]
    Kek,
    #[error("the secret set was deleted")]
    Deleted,
}

fn claim_name(set: &SetId, recipe: &Recipe) -> String {
    format!("make/{set}/{}", recipe.key())
}

fn deleted() -> Refusal {
    Refusal::new(
        Code::GrantDenied,
        "the secret set of this lease was deleted",
    )
}
