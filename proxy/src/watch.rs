//! Ends live streams whose lease has ended: a long answer, an upload or a WebSocket outlives its use's record.
//!
//! Every request is decided by the ledger, so only streams that last need watching. They are cut within a second of
//! their lease's expiry or revocation (threats.md A13). Expiry needs no database and waits for none: one timer sweeps
//! the streams by the clock, while another asks the ledger about all of them at once. A stream of which nothing good
//! was heard for three seconds is cut by the sweep, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use leases::authorize::Permit;
use leases::clock::Clock;
use leases::verify::VerifiedLease;
use parking_lot::Mutex;
use store::ledger::{Ledger, LedgerError, Standing};
use time::OffsetDateTime;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::door::holding;
use crate::refuse::Code;
use crate::stream::Cut;

/// From one sweep to the next.
const SWEEP: Duration = Duration::from_millis(250);
/// From one question to the ledger to the next.
const ASK: Duration = Duration::from_millis(500);
/// How long a stream goes on after its last good answer. Whether its lease stands cannot be known then, which after a
/// while is a no.
const MAX_UNHEARD: Duration = Duration::from_secs(3);

/// A stream under watch; dropping it ends the watch.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: Arc<Stream>,
}

#[derive(Debug)]
struct Stream {
    lease: Arc<VerifiedLease>,
    permit: Option<Permit>,
    connection: Arc<Cut>,
    cut: AtomicU8,
    /// When the last question that had a good answer was asked.
    heard: Mutex<Instant>,
}

const LIVE: u8 = 0;
const EXPIRED: u8 = 1;
const REVOKED: u8 = 2;
const DENIED: u8 = 3;
const UNKNOWN: u8 = 4;
/// It ended by itself: its connection may carry another's request by now.
const OVER: u8 = 5;

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

impl Drop for Watched {
    fn drop(&mut self) {
        self.stream.leave(OVER);
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
        permit: Option<&Permit>,
        connection: &Arc<Cut>,
    ) -> Watched {
        let stream = Arc::new(Stream {
            lease: Arc::clone(lease),
            permit: permit.cloned(),
            connection: Arc::clone(connection),
            cut: AtomicU8::new(LIVE),
            heard: Mutex::new(Instant::now()),
        });
        self.streams.lock().push(Arc::downgrade(&stream));
        Watched { stream }
    }

    /// Looks after the streams for as long as it is polled.
    pub(crate) async fn run(self: Arc<Self>, ledger: Ledger, clock: Arc<dyn Clock>) {
        self.keep(&*clock, |live| ask(live, ledger.clone())).await;
    }

    async fn keep<F>(&self, clock: &dyn Clock, ask: impl Fn(Vec<Arc<Stream>>) -> F)
    where
        F: Future<Output = Result<Vec<Standing>, LedgerError>>,
    {
        tokio::join!(self.keep_sweeping(clock), self.keep_asking(ask));
    }

    async fn keep_sweeping(&self, clock: &dyn Clock) {
        let mut ticks = ticks(SWEEP);
        loop {
            ticks.tick().await;
            self.sweep(clock.now(), Instant::now());
        }
    }

    async fn keep_asking<F>(&self, ask: impl Fn(Vec<Arc<Stream>>) -> F)
    where
        F: Future<Output = Result<Vec<Standing>, LedgerError>>,
    {
        let mut ticks = ticks(ASK);
        loop {
            ticks.tick().await;
            self.look(&ask).await;
        }
    }

    /// Cuts the streams whose end needs no question.
    fn sweep(&self, now: OffsetDateTime, at: Instant) {
        for stream in self.live() {
            if stream.lease.effective_expiry() <= now {
                stream.end(EXPIRED);
            } else if at.saturating_duration_since(*stream.heard.lock()) >= MAX_UNHEARD {
                stream.end(UNKNOWN);
            }
        }
    }

    /// Asks about all streams, and cuts those whose lease does not stand.
    async fn look<F>(&self, ask: impl Fn(Vec<Arc<Stream>>) -> F)
    where
        F: Future<Output = Result<Vec<Standing>, LedgerError>>,
    {
        let live = self.live();
        if live.is_empty() {
            return;
        }
        let asked = Instant::now();
        match ask(live.clone()).await {
            Ok(standings) => {
                for (stream, standing) in live.iter().zip(standings) {
                    stream.hear(standing, asked);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "live streams could not be checked for revocation");
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
}

/// One standing for each stream, in their order.
async fn ask(live: Vec<Arc<Stream>>, ledger: Ledger) -> Result<Vec<Standing>, LedgerError> {
    let runtime = tokio::runtime::Handle::current();
    // Reads of a file are short but many, so they stay off the threads that serve requests.
    let asked = tokio::task::spawn_blocking(move || {
        let holdings: Vec<_> = live
            .iter()
            .map(|stream| holding(&stream.lease, stream.permit.as_ref().map(Permit::binding)))
            .collect();
        runtime.block_on(ledger.standings(&holdings))
    });
    let unavailable = |error: tokio::task::JoinError| LedgerError::Unavailable(error.to_string());
    asked.await.map_err(unavailable)?
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

impl Stream {
    fn hear(&self, standing: Standing, asked: Instant) {
        match standing {
            Standing::Good => *self.heard.lock() = asked,
            Standing::Revoked | Standing::Unknown => self.end(REVOKED),
            Standing::GrantRevoked | Standing::SetGone | Standing::AgentInactive => {
                self.end(DENIED);
            }
        }
    }

    fn end(&self, why: u8) {
        if self.leave(why) {
            tracing::info!(lease.id = %self.lease.lease(), "cut a live stream: its lease ended");
            self.connection.cut();
        }
    }

    /// Whether it was live until now.
    fn leave(&self, why: u8) -> bool {
        let left = self
            .cut
            .compare_exchange(LIVE, why, Ordering::AcqRel, Ordering::Acquire);
        left.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use leases::clock::ManualClock;
    use leases::scope::HostPattern;
    use leases::{
        Action, AgentId, Binding, GrantId, Keys, Kind, LeaseId, MintRequest, OrgId, PresentedToken,
        RootKeyPair, RootPublicKeys, Scope, SetId, mint, verify,
    };
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-11-22 07:00 UTC);
    const HOUR: Duration = Duration::from_hours(1);

    fn lease(lasts: Duration) -> Arc<VerifiedLease> {
        let root = RootKeyPair::generate(1);
        let binding = Binding {
            set: SetId::new(START),
            grant: GrantId::new(START),
            provider: "stripe".to_owned(),
            hosts: vec![HostPattern::parse("api.stripe.com").unwrap()],
            keys: Keys::All,
            scope: Scope::default(),
        };
        let request = MintRequest {
            org: OrgId::new(START),
            agent: AgentId::new(START),
            lease: LeaseId::new(START),
            kind: Kind::Workflow,
            action: Action::ProxyUse,
            bindings: vec![binding],
            issued_at: START,
            expires_at: START + lasts,
        };
        let minted = mint(&root, &request).unwrap();
        let token = PresentedToken::parse(minted.token.as_str()).unwrap();
        let keys = RootPublicKeys::new(vec![root.public()]);
        Arc::new(verify(&token, &keys).unwrap())
    }

    fn begin(watcher: &Watcher, lasts: Duration) -> (Watched, Arc<Cut>) {
        let connection = Arc::<Cut>::default();
        let stream = watcher.watch(&lease(lasts), None, &connection);
        (stream, connection)
    }

    fn refuse() -> Result<Vec<Standing>, LedgerError> {
        Err(LedgerError::Unavailable("away".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_lease_ends_its_stream_while_the_ledger_says_nothing() {
        let watcher = Watcher::default();
        let (short, cut) = begin(&watcher, Duration::from_secs(2));
        let (long, _) = begin(&watcher, HOUR);
        let clock = ManualClock::new(START);
        let keep = watcher.keep(&clock, |_| std::future::pending());
        let story = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(short.cut_for(), None);
            clock.advance(Duration::from_secs(2));
            tokio::time::sleep(SWEEP * 2).await;
            assert_eq!(short.cut_for(), Some(Code::LeaseExpired));
            assert!(cut.is_done());
            assert_eq!(long.cut_for(), None);
        };
        tokio::select! {
            () = keep => unreachable!("it goes on"),
            () = story => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn three_seconds_after_the_last_good_answer_a_stream_ends_however_the_ledger_fails() {
        for hangs in [false, true] {
            let watcher = Watcher::default();
            let (old, _) = begin(&watcher, HOUR);
            let clock = ManualClock::new(START);
            let is_away = std::sync::atomic::AtomicBool::new(false);
            let keep = watcher.keep(&clock, |live| {
                let is_away = is_away.load(Ordering::Relaxed);
                async move {
                    match (is_away, hangs) {
                        (false, _) => Ok(vec![Standing::Good; live.len()]),
                        (true, false) => refuse(),
                        (true, true) => {
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            refuse()
                        }
                    }
                }
            });
            let story = async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                is_away.store(true, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                let (new, _) = begin(&watcher, HOUR);
                tokio::time::sleep(Duration::from_millis(900)).await;
                assert_eq!(old.cut_for(), None);
                tokio::time::sleep(Duration::from_millis(900)).await;
                assert_eq!(old.cut_for(), Some(Code::LedgerUnavailable));
                assert_eq!(new.cut_for(), None, "its use was recorded since");
                is_away.store(false, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(10)).await;
                assert_eq!(new.cut_for(), None, "the ledger is back");
            };
            tokio::select! {
                () = keep => unreachable!("it goes on"),
                () = story => {}
            }
        }
    }

    #[tokio::test]
    async fn each_stream_ends_by_its_own_standing_and_all_are_asked_about_at_once() {
        let watcher = Watcher::default();
        let told = [
            (Standing::Good, None),
            (Standing::Revoked, Some(Code::LeaseRevoked)),
            (Standing::Unknown, Some(Code::LeaseRevoked)),
            (Standing::GrantRevoked, Some(Code::GrantDenied)),
            (Standing::SetGone, Some(Code::GrantDenied)),
            (Standing::AgentInactive, Some(Code::GrantDenied)),
        ];
        let streams = told.map(|_| begin(&watcher, HOUR));
        watcher
            .look(|live| {
                assert_eq!(live.len(), told.len());
                std::future::ready(Ok(told.map(|(standing, _)| standing).to_vec()))
            })
            .await;
        for ((standing, code), (stream, connection)) in told.iter().zip(&streams) {
            assert_eq!(stream.cut_for(), *code, "{standing:?}");
            assert_eq!(connection.is_done(), code.is_some(), "{standing:?}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_ended_while_the_ledger_was_asked_keeps_its_connection() {
        let watcher = Watcher::default();
        let (stream, connection) = begin(&watcher, HOUR);
        let stream = Mutex::new(Some(stream));
        watcher
            .look(|_| {
                stream.lock().take();
                std::future::ready(Ok(vec![Standing::Revoked]))
            })
            .await;
        assert!(!connection.is_done());
    }
}
