//! Keeps secrets out of swap, where the operating system allows it.
//!
//! What stays in memory for a while is locked: opened secrets, KEKs, PINs. What lives for one call is not, since locking
//! takes longer than such a call. The operating system locks whole pages and does not count how often, so pages are
//! counted here. Where the limit on locked memory (`RLIMIT_MEMLOCK`) is reached, or locking is not allowed at all,
//! everything goes on, and one warning says so.

use std::{
    collections::HashMap,
    fmt, io, ptr,
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

/// The pages that are locked, by number.
static PAGES: LazyLock<Mutex<HashMap<usize, Page>>> = LazyLock::new(Mutex::default);
static WARNED: AtomicBool = AtomicBool::new(false);

struct Page {
    holders: usize,
    _guard: region::LockGuard,
}

/// Secrets may be written to swap.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "secrets in memory may be written to swap: the operating system does not lock them ({reason}); raise the limit on locked memory (`ulimit -l`, `LimitMEMLOCK=` of systemd), or turn swap off"
)]
pub struct NotLocked {
    reason: String,
}

/// Whether memory can be locked, tried with one page. For a warning at the start.
///
/// # Errors
/// [`NotLocked`] with the operating system's reason.
pub fn check() -> Result<(), NotLocked> {
    let probe = vec![0u8; region::page::size()];
    let locked = region::lock(probe.as_ptr(), probe.len());
    locked.map(drop).map_err(|error| NotLocked::of(&error))
}

/// Bytes that are locked at the moment, in whole pages.
pub fn locked_bytes() -> usize {
    PAGES.lock().len() * region::page::size()
}

/// Pages that stay in memory for as long as this lives.
pub(crate) struct PageLock {
    pages: std::ops::Range<usize>,
}

impl PageLock {
    /// Locks the pages of `bytes`, which must neither move nor be freed while the lock lives. `None` where that is not allowed.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        Self::of_range(bytes.as_ptr().addr(), bytes.len())
    }

    fn of_range(start: usize, len: usize) -> Option<Self> {
        if len == 0 {
            return None;
        }
        let size = region::page::size();
        let pages = start / size..(start + len).div_ceil(size);
        let mut table = PAGES.lock();
        // What is locked so far is unlocked again if one page fails.
        let mut lock = Self {
            pages: pages.start..pages.start,
        };
        for page in pages {
            if let Err(error) = hold(&mut table, page, size) {
                drop(table);
                drop(lock);
                warn_once(&NotLocked::of(&error));
                return None;
            }
            lock.pages.end = page + 1;
        }
        Some(lock)
    }
}

impl Drop for PageLock {
    fn drop(&mut self) {
        let mut table = PAGES.lock();
        for page in self.pages.clone() {
            if let Some(found) = table.get_mut(&page) {
                found.holders -= 1;
                if found.holders == 0 {
                    table.remove(&page);
                }
            }
        }
    }
}

impl fmt::Debug for PageLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageLock(..)")
    }
}

impl NotLocked {
    fn of(error: &region::Error) -> Self {
        let reason = match error {
            region::Error::SystemCall(error) => io::Error::to_string(error),
            other => other.to_string(),
        };
        Self { reason }
    }
}

fn hold(table: &mut HashMap<usize, Page>, page: usize, size: usize) -> region::Result<()> {
    if let Some(found) = table.get_mut(&page) {
        found.holders += 1;
        return Ok(());
    }
    let guard = region::lock(ptr::without_provenance::<u8>(page * size), size)?;
    table.insert(
        page,
        Page {
            holders: 1,
            _guard: guard,
        },
    );
    Ok(())
}

fn warn_once(not_locked: &NotLocked) {
    if !WARNED.swap(true, Ordering::Relaxed) {
        tracing::warn!("{not_locked}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Whether the kernel says that the page of this address is locked.
    fn is_locked(address: usize) -> bool {
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().unwrap_or_default();
            if let Some((start, end)) = range.split_once('-') {
                let bound = |text| usize::from_str_radix(text, 16).unwrap();
                inside = (bound(start)..bound(end)).contains(&address);
            } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.split_whitespace().any(|flag| flag == "lo");
            }
        }
        false
    }

    #[test]
    fn pages_are_locked_until_the_last_holder_lets_go() {
        let size = region::page::size();
        let buffer = vec![1u8; 64 * size];
        // Well inside, so that no other test has anything on these pages.
        let start = (buffer.as_ptr().addr() / size + 8) * size;
        assert!(!is_locked(start));
        let first = PageLock::of_range(start + size - 1, 2).unwrap();
        let second = PageLock::of_range(start, 1).unwrap();
        assert!(is_locked(start) && is_locked(start + size));
        assert!(!is_locked(start + 2 * size));
        assert!(locked_bytes() >= 2 * size);
        drop(first);
        assert!(is_locked(start) && !is_locked(start + size));
        drop(second);
        assert!(!is_locked(start));
    }

    #[test]
    fn what_cannot_be_locked_is_left_as_it_was() {
        // The first page of all is never mapped.
        assert!(PageLock::of_range(0, 1).is_none());
        assert!(WARNED.load(Ordering::Relaxed));
        assert!(!PAGES.lock().contains_key(&0));
        assert!(PageLock::of(&[]).is_none());
    }

    #[test]
    fn memory_can_be_locked_here() {
        check().unwrap();
    }

    #[test]
    fn the_warning_names_the_remedy() {
        let error = NotLocked::of(&region::Error::UnmappedRegion);
        assert!(error.to_string().contains("LimitMEMLOCK="), "{error}");
    }
}
