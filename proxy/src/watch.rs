//! Ends live streams whose lease has ended: a long answer, an upload or a WebSocket outlives its use's record.
//!
//! Every request is decided by the ledger, so only streams that last need watching. They are looked at twice
//! a second and cut within a second of their lease's expiry or revocation (threats.md A13).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use leases::clock::Clock;
use leases::id::GrantId;
use leases::verify::VerifiedLease;
use parking_lot::Mutex;
use store::ledger::{Ledger, Standing};
use tokio::sync::watch;

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

impl Watched {
    /// Why the stream was cut, if it was.
    pub(crate) fn cut_for(&self) -> Option<Code> {
        match self.stream.cut.load(Ordering::Acquire) {
            EXPIRED => Some(Code::LeaseExpired),
            REVOKED => Some(Code::LeaseRevoked),
            _ => None,
        }
    }
}

/// The streams under watch.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    streams: Mutex<Vec<std::sync::Weak<Stream>>>,
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

    /// Looks at the streams until `shutdown`.
    pub(crate) async fn run(
        self: Arc<Self>,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.look(&ledger, clock.as_ref()),
                _ = shutdown.wait_for(|down| *down) => return,
            }
        }
    }

    fn look(&self, ledger: &Ledger, clock: &dyn Clock) {
        let live: Vec<Arc<Stream>> = {
            let mut streams = self.streams.lock();
            streams.retain(|stream| stream.strong_count() > 0);
            streams
                .iter()
                .filter_map(std::sync::Weak::upgrade)
                .collect()
        };
        if live.is_empty() {
            return;
        }
        let now = clock.now();
        let (expired, standing): (Vec<_>, Vec<_>) = live
            .into_iter()
            .partition(|stream| stream.lease.effective_expiry() <= now);
        for stream in expired {
            stream.end(EXPIRED);
        }
        for stream in standing {
            match ledger.standing(&holding(&stream.lease, stream.grant.as_ref())) {
                Ok(Standing::Good) => {}
                Ok(_) => stream.end(REVOKED),
                // Whether they still stand cannot be known, and new requests are refused meanwhile.
                Err(error) => {
                    tracing::warn!(%error, "live streams could not be checked for revocation");
                    return;
                }
            }
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
