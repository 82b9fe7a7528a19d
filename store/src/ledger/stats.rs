//! The ledger's counters.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use super::LedgerHealth;
use super::rollback::Began;
use crate::Restored;

#[derive(Debug, Default)]
pub(super) struct Stats {
    last_error: Mutex<Option<String>>,
    pub(super) held_outcomes: AtomicUsize,
    pub(super) lost_outcomes: AtomicU64,
    batches: AtomicU64,
    uses: AtomicU64,
    refusals: AtomicU64,
    write_errors: AtomicU64,
    busy: AtomicU64,
    batch_sizes: [AtomicU64; 11],
    commit_micros: AtomicU64,
    pub(super) unclean_starts: AtomicU64,
    pub(super) restore_epochs: AtomicU64,
    pub(super) restored: Mutex<Option<Restored>>,
    pub(super) clock_skew_ms: AtomicI64,
    pub(super) is_fenced: AtomicBool,
}

impl Stats {
    /// Counts a committed batch.
    pub(super) fn committed(&self, uses: u64, refusals: u64, took: Duration) {
        self.batches.fetch_add(1, Relaxed);
        self.uses.fetch_add(uses, Relaxed);
        self.refusals.fetch_add(refusals, Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commit_micros.fetch_add(micros, Relaxed);
        if uses > 0 {
            let bucket = uses.next_power_of_two().trailing_zeros() as usize;
            self.batch_sizes[bucket.min(self.batch_sizes.len() - 1)].fetch_add(1, Relaxed);
        }
        let mut last_error = self.last_error.lock();
        if last_error.take().is_some() {
            tracing::info!("the ledger writes again");
        }
    }

    /// Counts a batch that failed. Only the first of a row is logged.
    pub(super) fn failed(&self, error: &str, is_busy: bool) {
        self.write_errors.fetch_add(1, Relaxed);
        if is_busy {
            self.busy.fetch_add(1, Relaxed);
        }
        let mut last_error = self.last_error.lock();
        if last_error.is_none() {
            tracing::error!(error, "the ledger cannot write: uses are refused");
        }
        *last_error = Some(error.to_owned());
    }

    /// Notes that this run began an epoch.
    pub(super) fn began_epoch(&self, began: Began) {
        self.restore_epochs.store(began.epochs, Relaxed);
        *self.restored.lock() = Some(began.restored);
    }

    /// Whether the last batch succeeded.
    pub(super) fn is_good(&self) -> bool {
        self.last_error.lock().is_none()
    }

    pub(super) fn read(&self) -> LedgerHealth {
        LedgerHealth {
            last_error: self.last_error.lock().clone(),
            queue_length: 0,
            held_outcomes: self.held_outcomes.load(Relaxed),
            lost_outcomes: self.lost_outcomes.load(Relaxed),
            batches: self.batches.load(Relaxed),
            uses: self.uses.load(Relaxed),
            refusals: self.refusals.load(Relaxed),
            write_errors: self.write_errors.load(Relaxed),
            busy: self.busy.load(Relaxed),
            batch_sizes: std::array::from_fn(|index| self.batch_sizes[index].load(Relaxed)),
            commit_micros: self.commit_micros.load(Relaxed),
            clock_steps: 0,
            unclean_starts: self.unclean_starts.load(Relaxed),
            restore_epochs: self.restore_epochs.load(Relaxed),
            restored: self.restored.lock().clone(),
            clock_skew_ms: self.clock_skew_ms.load(Relaxed),
            is_fenced: self.is_fenced.load(Relaxed),
        }
    }
}
