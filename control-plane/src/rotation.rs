//! Rotation of KEKs: a worker that wraps anew what an older key wrapped, while everything goes on.
//!
//! A rotation is a row that says which seals were looked at. Each batch puts new bytes in the place of those that were read and
//! moves the row on in one transaction, and only from where the worker found it: so a worker that dies leaves nothing half done,
//! another one goes on where it was, and of two at once one is turned away. Who is turned away, or sees the row move, leaves it
//! to the other. Old versions of a KEK go on unwrapping, so whoever read a seal before its swap still opens it.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use store::rotations::{Rotation, RotationKind, RotationStep};
use store::seals::{SealRef, SealRow, Swap};
use store::{Actor, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;
use vault::{KekId, OpenError, RewrapError, RowBinding};

use crate::{AppState, ControlPlane};

/// How the worker goes about it.
#[derive(Debug, Clone, Copy)]
pub struct RotationOptions {
    /// Seals of one batch.
    pub batch: u32,
    /// Calls to the key provider at once.
    pub at_once: usize,
    /// How often a control plane looks for a rotation that nobody works at.
    pub look: Duration,
    /// How long writers that chose their key before the rotation have to finish.
    pub settle: Duration,
}

impl Default for RotationOptions {
    fn default() -> Self {
        Self {
            // Small enough that a crash repeats little, large enough that commits do not dominate.
            batch: 64,
            // The sessions that a PKCS#11 provider has by default: more would only wait in its queue, before injections.
            at_once: 4,
            look: Duration::from_secs(2),
            // A write takes at most a few wraps of 2 s each between its look at the vault and its commit.
            settle: Duration::from_secs(10),
        }
    }
}

/// Works at rotations until `shutdown` says so.
pub(crate) async fn work(state: AppState, mut shutdown: watch::Receiver<bool>) {
    let mut worker = Worker::default();
    let mut failing = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(state.rotation.look) => {}
            () = state.rotation_wanted.notified() => worker.own = true,
            // A sender that is gone means the same.
            _ = shutdown.wait_for(|down| *down) => return,
        }
        let looked = tokio::select! {
            looked = worker.look(&state) => looked,
            _ = shutdown.wait_for(|down| *down) => return,
        };
        if let (Err(error), false) = (&looked, failing) {
            // Told once: it is tried again in a moment, for hours if need be.
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "a rotation of keys stands still; it goes on by itself"
            );
        }
        failing = looked.is_err();
    }
}

/// Why a rotation stands still. It goes on by itself when the cause is gone.
#[derive(Debug, thiserror::Error)]
enum WorkError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{} version {} is not sealed anew", .seal.path, .seal.version)]
    Seal {
        seal: Box<SealRef>,
        #[source]
        source: RewrapError,
    },
    #[error("the rotation names a key that is none")]
    BadKek,
    #[error(
        "none of many seals in a row opens, so the key provider rather has other keys than the ones that sealed; restore its keys, or correct its configuration"
    )]
    NothingOpens,
}

/// What the worker of this process remembers.
#[derive(Debug, Default)]
struct Worker {
    /// Rotations met before: where they stood, and since when this process knows of them.
    met: Vec<(Rotation, Instant)>,
    /// Whether one was started here, so that no other process is at it yet.
    own: bool,
}

impl Worker {
    /// Looks at every rotation that runs, and goes on with those that nobody else moves.
    async fn look(&mut self, state: &AppState) -> Result<(), WorkError> {
        let running = state.store.rotations().running().await?;
        state.metrics.rotations(&running);
        if running.is_empty() || !state.rights().await.unwrap {
            // Nothing to do, or for a plane that may unwrap.
            self.met.clear();
            return Ok(());
        }
        let own = std::mem::take(&mut self.own);
        let before = std::mem::take(&mut self.met);
        for rotation in running {
            let known = before.iter().find(|(met, _)| met.id == rotation.id);
            let since = known.map_or_else(Instant::now, |(_, since)| *since);
            let stands = known.is_some_and(|(met, _)| *met == rotation);
            self.met.push((rotation.clone(), since));
            if stands || own {
                let went = Job {
                    state,
                    rotation,
                    since,
                }
                .run()
                .await;
                self.forget_place(went?);
            }
        }
        Ok(())
    }

    /// Where this process left a rotation, so that it does not take its own work for another's.
    fn forget_place(&mut self, left: Rotation) {
        if let Some((met, _)) = self.met.iter_mut().find(|(met, _)| met.id == left.id) {
            *met = left;
        }
    }
}

/// What became of one seal.
enum Outcome {
    Swap(Swap),
    /// It is under the new key.
    Keep,
    /// It does not open.
    Skip,
}

/// What became of many.
#[derive(Default)]
struct Renewed {
    swaps: Vec<Swap>,
    skipped: u64,
}

/// One rotation, as far as this process takes it now.
struct Job<'a> {
    state: &'a ControlPlane,
    rotation: Rotation,
    since: Instant,
}

impl Job<'_> {
    /// Goes on until it is done, another process takes over, or the key provider is away. Gives where it stands.
    async fn run(mut self) -> Result<Rotation, WorkError> {
        if self.name_new_key().await? {
            // Writers may have chosen the old key until now.
            self.since = Instant::now();
        }
        while let Some(last) = self.step().await? {
            if !last {
                return Ok(self.rotation);
            }
        }
        if self.since.elapsed() < self.state.rotation.settle {
            return Ok(self.rotation);
        }
        let skipped = loop {
            let pass = self.pass().await?;
            if pass.swaps.is_empty() {
                break pass.skipped;
            }
        };
        self.finish(skipped).await?;
        Ok(self.rotation)
    }

    /// A move to another provider: new values go there first, then the old ones follow. True when they went elsewhere before.
    async fn name_new_key(&self) -> Result<bool, WorkError> {
        let RotationKind::Migrate { to } = &self.rotation.kind else {
            return Ok(false);
        };
        let vaults = self.state.store.vaults();
        let all = vaults.list(&self.rotation.org).await?;
        let moved = all
            .iter()
            .any(|vault| vault.id == self.rotation.vault && vault.kek_id == *to);
        if moved {
            return Ok(false);
        }
        let actor = Actor::system("rotation");
        vaults
            .set_kek(&self.rotation.org, &self.rotation.vault, to, &actor)
            .await?;
        Ok(true)
    }

    /// One batch from where the rotation stands. `None` at the end of the seals; false when another process was first.
    async fn step(&mut self) -> Result<Option<bool>, WorkError> {
        let rows = self.page(self.rotation.reached.as_ref()).await?;
        let Some(last) = rows.last() else {
            return Ok(None);
        };
        let step = RotationStep {
            reached: Some(last.seal.clone()),
            seen: rows.len() as u64,
            swaps: self.renew(rows).await?.swaps,
        };
        let rotations = self.state.store.rotations();
        match rotations.advance(&self.rotation, &step).await? {
            Some(moved) => {
                self.rotation = moved;
                self.state
                    .metrics
                    .rotations(std::slice::from_ref(&self.rotation));
                Ok(Some(true))
            }
            None => Ok(Some(false)),
        }
    }

    /// A pass over all seals for what writers sealed by the old key meanwhile. Gives what it swapped and how many do not open.
    async fn pass(&self) -> Result<Renewed, WorkError> {
        let mut all = Renewed::default();
        let mut after = None;
        loop {
            let rows = self.page(after.as_ref()).await?;
            let Some(last) = rows.last() else {
                return Ok(all);
            };
            after = Some(last.seal.clone());
            let renewed = self.renew(rows).await?;
            self.state.store.seals().swap(&renewed.swaps).await?;
            all.skipped += renewed.skipped;
            all.swaps.extend(renewed.swaps);
        }
    }

    async fn page(&self, after: Option<&SealRef>) -> Result<Vec<SealRow>, StoreError> {
        let (org, vault) = (&self.rotation.org, &self.rotation.vault);
        let batch = self.state.rotation.batch;
        self.state
            .store
            .seals()
            .page(org, vault, after, batch)
            .await
    }

    /// Those of a batch that are not under the new key yet, with their new bytes.
    async fn renew(&self, rows: Vec<SealRow>) -> Result<Renewed, WorkError> {
        let looked = rows.len();
        let outcomes: Vec<Outcome> = stream::iter(rows)
            .map(|row| self.renew_one(row))
            .buffered(self.state.rotation.at_once.max(1))
            .try_collect()
            .await?;
        let mut renewed = Renewed::default();
        for outcome in outcomes {
            match outcome {
                Outcome::Swap(swap) => renewed.swaps.push(swap),
                Outcome::Skip => renewed.skipped += 1,
                Outcome::Keep => {}
            }
        }
        if looked >= A_HANDFUL && renewed.skipped == looked as u64 {
            return Err(WorkError::NothingOpens);
        }
        Ok(renewed)
    }

    async fn renew_one(&self, row: SealRow) -> Result<Outcome, WorkError> {
        let SealRow { seal, sealed: old } = row;
        let binding = RowBinding {
            org: seal.org.as_str(),
            vault: seal.vault.as_str(),
            path: &seal.path,
            version: seal.version,
        };
        let vault = &self.state.vault;
        // Not what this process takes for the current version: that may be older than the rotation.
        let target = self.rotation.target_version;
        let renewed = match &self.rotation.kind {
            RotationKind::Rewrap => vault.rewrap(&old, &binding, target).await,
            RotationKind::Migrate { to } => {
                let to = KekId::parse(to).map_err(|_| WorkError::BadKek)?;
                vault.reseal(&old, &binding, &to, target).await
            }
        };
        match renewed {
            Ok(None) => Ok(Outcome::Keep),
            Ok(Some(new)) => Ok(Outcome::Swap(Swap { seal, old, new })),
            // Nobody will ever open this one, under whatever key: it must not hold up all others.
            Err(RewrapError::Open(
                error @ (OpenError::Tampered | OpenError::UnknownVersion { .. }),
            )) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "{} version {} was altered and stays as it is",
                    seal.path,
                    seal.version
                );
                Ok(Outcome::Skip)
            }
            Err(source) => Err(WorkError::Seal {
                seal: Box::new(seal),
                source,
            }),
        }
    }

    async fn finish(&mut self, skipped: u64) -> Result<(), WorkError> {
        let (org, id) = (&self.rotation.org, &self.rotation.id);
        let actor = Actor::system("rotation");
        let rotations = self.state.store.rotations();
        if let Some(done) = rotations.finish(org, id, skipped, &actor).await? {
            let vault = &self.rotation.vault;
            if skipped == 0 {
                tracing::info!("the rotation {id} of vault {vault} is done");
            } else {
                tracing::error!(
                    "the rotation {id} of vault {vault} has ended and left out {skipped} seals that do not open; keep the old key until they are restored"
                );
            }
            self.state.metrics.rotation_ended(&done);
            self.rotation = done;
        }
        self.state.metrics.rotations(&rotations.running().await?);
        Ok(())
    }
}

/// Single seals are altered; when this many fail in a batch and none opens, it is the key that is wrong.
const A_HANDFUL: usize = 8;
