//! What is done now and then, by whoever comes by when it is due.

use std::sync::atomic::{AtomicI64, Ordering};

/// When something was last done, in milliseconds of the store's time.
#[derive(Debug, Default)]
pub(crate) struct Due(AtomicI64);

impl Due {
    /// Whether it is to be done again, and by the caller: of all who ask at the same time, one is told so.
    pub(crate) fn take(&self, now: i64, every_ms: i64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        now - last >= every_ms
            && self
                .0
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}
