//! The thread beside the ledger's: what may be slow and must not keep a use waiting.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;

use super::Shared;
use crate::CheckpointSigner;
use crate::audit::checkpoint::{Carried, write};
use crate::chain::{Heads, Link};
use crate::open::Lock;

/// How often the keeper looks. A head is signed at most this, and the time to write it, after it
/// moved.
const TICK: Duration = Duration::from_millis(500);
/// So much written since the last copy calls for the next.
const COPY_BYTES: u64 = 4 * 1024 * 1024;
/// After so long the log is copied however little it holds.
const COPY_AFTER: Duration = Duration::from_secs(30);
/// A log of so many pages is started anew even under load: 16 MiB.
const RESTART_PAGES: i64 = 4_096;
/// Rough size of a change of the control plane in the log.
const CHANGE_BYTES: u64 = 16 * 1024;

/// What the ledger's thread and handles tell the keeper, and it them.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    signer: Mutex<Option<Arc<CheckpointSigner>>>,
    /// Whether the checkpoint was written in this run, and so has to be there.
    has_signed: AtomicBool,
    written: AtomicU64,
    wants_log_restart: AtomicBool,
    ended: Mutex<bool>,
    wake: Condvar,
}

impl Keeper {
    pub(super) fn sign_with(&self, signer: CheckpointSigner) {
        *self.signer.lock() = Some(Arc::new(signer));
        self.wake.notify_one();
    }

    pub(super) fn signer(&self) -> Option<Arc<CheckpointSigner>> {
        self.signer.lock().clone()
    }

    pub(super) fn checkpoint_key(&self) -> Option<[u8; 32]> {
        self.signer.lock().as_ref().map(|signer| signer.public())
    }

    /// Whether a checkpoint was written in this run.
    pub(super) fn has_signed(&self) -> bool {
        self.has_signed.load(Relaxed)
    }

    /// So many bytes, roughly, went into the log.
    pub(super) fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Relaxed);
    }

    /// Whether the ledger's thread is to copy the rest of the log; asked once.
    pub(super) fn wants_log_restart(&self) -> bool {
        self.wants_log_restart.load(Relaxed) && self.wants_log_restart.swap(false, Relaxed)
    }

    /// Signs a last time and ends the thread.
    pub(super) fn end(&self) {
        *self.ended.lock() = true;
        self.wake.notify_one();
    }
}

/// The thread's state.
pub(super) struct Keeping {
    pub(super) shared: Arc<Shared>,
    pub(super) heads: Arc<Heads>,
    /// The file's own connection, where the log is copied; Postgres keeps its own log.
    pub(super) db: Option<Connection>,
    pub(super) checkpoint: PathBuf,
    /// Signed heads of streams that this process does not write.
    pub(super) carried: Carried,
    pub(super) _lock: Option<Arc<Lock>>,
}

impl Keeping {
    /// Works until the ledger's thread has ended.
    pub(super) fn run(self) {
        let mut signed_links = [Link::START; 2];
        let mut changes = self.heads.control.get().seq;
        let mut copied_at = Instant::now();
        loop {
            let ended = {
                let mut ended = self.shared.keeper.ended.lock();
                if !*ended {
                    self.shared.keeper.wake.wait_for(&mut ended, TICK);
                }
                *ended
            };
            self.sign(&mut signed_links);
            let control = self.heads.control.get().seq;
            self.shared
                .keeper
                .wrote(control.saturating_sub(changes) * CHANGE_BYTES);
            changes = control;
            if ended {
                // The last one out leaves no log behind, unless someone still reads.
                self.copy("PRAGMA wal_checkpoint(TRUNCATE)");
                return;
            }
            self.keep_log_short(&mut copied_at);
        }
    }

    /// Signs the heads if they moved since they were last signed.
    fn sign(&self, signed_links: &mut [Link; 2]) {
        let Some(key) = self.shared.keeper.signer() else {
            return;
        };
        let links = self.heads.each().map(crate::chain::Head::get);
        if links == *signed_links {
            return;
        }
        let at = self.shared.time.now();
        match write(
            &self.checkpoint,
            &key,
            &self.heads,
            links,
            &self.carried,
            at,
        ) {
            Ok(()) => {
                *signed_links = links;
                self.shared.keeper.has_signed.store(true, Relaxed);
            }
            Err(error) => tracing::error!(%error, "the audit checkpoint could not be written"),
        }
    }

    /// Copies the log into the database when it has grown. This needs no lock that a writer needs.
    fn keep_log_short(&self, copied_at: &mut Instant) {
        let written = self.shared.keeper.written.load(Relaxed);
        let is_due = written >= COPY_BYTES || (written > 0 && copied_at.elapsed() >= COPY_AFTER);
        if !is_due {
            return;
        }
        self.shared.keeper.written.fetch_sub(written, Relaxed);
        *copied_at = Instant::now();
        let pages = self.copy("PRAGMA wal_checkpoint(PASSIVE)");
        if pages > RESTART_PAGES {
            // Writers never rest, so none ever finds the log wholly copied. The ledger's thread
            // keeps them out for the moment that the rest takes.
            self.shared.keeper.wants_log_restart.store(true, Relaxed);
        }
    }

    /// Gives the number of pages in the log.
    fn copy(&self, pragma: &str) -> i64 {
        let Some(db) = &self.db else {
            return 0;
        };
        db.query_row(pragma, [], |row| row.get(1))
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "the log could not be copied into the database");
                0
            })
    }
}
