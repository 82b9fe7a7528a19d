//! Which version of a key wraps: what this process knows of it, and for how long.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a version is taken for the current one without asking.
const FRESH: Duration = Duration::from_secs(5);

/// The current versions of keys, by the keys' ids.
#[derive(Default)]
pub(super) struct Versions(Mutex<HashMap<String, Known>>);

#[derive(Clone, Copy)]
struct Known {
    number: u32,
    learned_at: Instant,
}

impl Versions {
    /// The version, if it is known and not old.
    pub(super) fn fresh(&self, key: &str) -> Option<u32> {
        let known = self.0.lock().get(key).copied()?;
        (known.learned_at.elapsed() < FRESH).then_some(known.number)
    }

    /// The version that was known last.
    pub(super) fn last(&self, key: &str) -> Option<u32> {
        self.0.lock().get(key).map(|known| known.number)
    }

    pub(super) fn learn(&self, key: &str, number: u32) {
        let known = Known {
            number,
            learned_at: Instant::now(),
        };
        self.0.lock().insert(key.to_owned(), known);
    }

    pub(super) fn forget(&self, key: &str) {
        self.0.lock().remove(key);
    }
}
