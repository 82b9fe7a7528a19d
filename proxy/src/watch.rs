//! Ends live streams whose lease has ended: a long answer, an upload or a WebSocket outlives its use's record.
//!
//! Every request is decided by the ledger, so only streams that last need watching. They are looked at twice
//! a second and cut within a second of their lease's expiry or revocation (threats.md A13).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use leases::clock::Clock;
use leases::id::GrantId;
use leases::verify::VerifiedLease;
use parking_lot::Mutex;
use store::ledger::{Ledger, Standing};
use time::OffsetDateTime;

use crate::door::holding;
use crate::refuse::Code;
use crate::stream::Cut;

const PERIOD: Duration = Duration::from_millis(500);

/// A stream under watch; dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: Arc<Stream>,
}

#[derive(Debug)]
struct Stream {
    lease: Arc<VerifiedLease>,
    grant: Option<GrantId>,
    connection: Arc<Cut>,
    cut: AtomicU8,
}

const LIVE: u8 = 0;
const EXPIRED: u8 = 1;
const REVOKED: u8 = 2;
const DENIED: u8 = 3;
const UNKNOWN: u8 = 4;

/// Looks that may fail in a row before streams are cut unseen: three seconds.
const MAX_FAILURES: u32 = 6;

impl Watched {
    /// Why the stream was cut, if it was.
    pub(crate) fn cut_for(&self) -> Option<Code> {
        match self.stream.cut.load(Ordering::Acquire) {
            EXPIRED => Some(Code::LeaseExpired),
            REVOKED => Some(Code::LeaseRevoked),
            DENIED => Some(Code::GrantDenied),
            UNKNOWN => Some(Code::LedgerUnavailable),
            _ => None,
        }
    }
}

/// The streams under watch.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    streams: Mutex<Vec<std::sync::Weak<Stream>>>,
    failures: AtomicU32,
}

impl Watcher {
    /// Watches a stream until the answer is dropped.
    pub(crate) fn watch(
        &self,
        lease: &Arc<VerifiedLease>,
        grant: Option<&GrantId>,
        connection: &Arc<Cut>,
    ) -> Watched {
        let stream = Arc::new(Stream {
            lease: Arc::clone(lease),
            grant: grant.cloned(),
            connection: Arc::clone(connection),
            cut: AtomicU8::new(LIVE),
        });
        self.streams.lock().push(Arc::downgrade(&stream));
        Watched { stream }
    }

    /// Looks at the streams for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>, ledger: Ledger, clock: Arc<dyn Clock>) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let live = self.live();
            if live.is_empty() {
                continue;
            }
            let (watcher, ledger, now) = (Arc::clone(&self), ledger.clone(), clock.now());
            let runtime = tokio::runtime::Handle::current();
            // Reads of a file are short but many, so they stay off the threads that serve requests.
            let looked = tokio::task::spawn_blocking(move || {
                runtime.block_on(watcher.look(live, &ledger, now));
            })
            .await;
            if looked.is_err() {
                tracing::error!("the watch over live streams panicked");
            }
        }
    }

    fn live(&self) -> Vec<Arc<Stream>> {
        let mut streams = self.streams.lock();
        streams.retain(|stream| stream.strong_count() > 0);
        streams
            .iter()
            .filter_map(std::sync::Weak::upgrade)
            .collect()
    }

    async fn look(&self, live: Vec<Arc<Stream>>, ledger: &Ledger, now: OffsetDateTime) {
        let mut failed = None;
        for stream in live {
            if stream.lease.effective_expiry() <= now {
                stream.end(EXPIRED);
                continue;
            }
            let holding = holding(&stream.lease, stream.grant.as_ref());
            match ledger.standing(&holding).await {
                Ok(Standing::Good) => {}
                Ok(Standing::Revoked | Standing::Unknown) => stream.end(REVOKED),
                Ok(Standing::GrantRevoked | Standing::AgentInactive) => stream.end(DENIED),
                // Whether it still stands cannot be known; after a while that is a no.
                Err(_) if self.failures.load(Ordering::Relaxed) >= MAX_FAILURES => {
                    stream.end(UNKNOWN);
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%error, "live streams could not be checked for revocation");
            }
            None => self.failures.store(0, Ordering::Relaxed),
        }
    }
}

impl Stream {
    fn end(&self, why: u8) {
        if self.cut.swap(why, Ordering::AcqRel) == LIVE {
            tracing::info!(lease.id = %self.lease.lease(), "cut a live stream: its lease ended");
            self.connection.cut();
        }
    }
}
