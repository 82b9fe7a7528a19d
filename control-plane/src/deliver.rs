//! Telling the trail to others: webhooks of organisations, and the operator's collector of logs.
//!
//! Each receiver has a row with its place in the trail (`store::Sink`). Whichever control plane finds something behind the place
//! claims the row, tells event by event, and moves the place on: at once when an attempt failed, else each second. So nothing is
//! left out over crashes, what was told within the last second may be told again, and only one node tells at a time. Each receiver
//! has a task of its own: one that is slow keeps neither another one waiting nor a use, which never waits for any of this.

mod otlp;
mod webhook;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Uri};
use leases::id::OrgId;
use parking_lot::Mutex;
use store::{Delivery, Event, Sink, Step, StoreError, Webhook};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(crate) use self::webhook::{Pattern, SigningSecret, attempt_test};

use self::otlp::Collector;
use self::webhook::Signed;
use crate::AppState;
use crate::keys::KeyChestError;
use crate::metrics::Told;

/// How the trail is told.
#[derive(Debug, Clone)]
pub struct DeliveryOptions {
    /// How often a control plane looks for what is to be told.
    pub look: Duration,
    /// Waited after the first failed attempt, and twice that after each further one.
    pub first_retry: Duration,
    /// The longest wait between two attempts.
    pub longest_retry: Duration,
    /// A webhook is given up when its attempts have failed for so long.
    pub give_up: Duration,
    /// The operator's collector of logs.
    pub collector: Option<CollectorOptions>,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            look: Duration::from_secs(1),
            // A restart of the receiver is over by then, or by the next few.
            first_retry: Duration::from_secs(5),
            longest_retry: Duration::from_hours(1),
            // Longer than a weekend on which nobody looks.
            give_up: Duration::from_hours(3 * 24),
            collector: None,
        }
    }
}

/// A collector that takes OTLP logs over HTTP.
#[derive(Clone)]
pub struct CollectorOptions {
    /// Where logs are posted to, whole: `https://collector.example/v1/logs`.
    pub url: Uri,
    /// Sent along, such as its credential.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl std::fmt::Debug for CollectorOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers may be credentials, and a URL may hold one.
        f.debug_struct("CollectorOptions").finish_non_exhaustive()
    }
}

/// Tells what is to be told until `shutdown` says so.
pub(crate) async fn work(state: AppState, mut shutdown: watch::Receiver<bool>) {
    let look = state.delivery.look;
    let teller = Arc::new(Teller::new(state));
    let mut under_way = UnderWay::default();
    let mut failing = false;
    let mut looks = tokio::time::interval(look);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            // A sender that is gone means the same.
            _ = shutdown.wait_for(|down| *down) => return,
        }
        under_way.reap();
        let looked = teller.look(&mut under_way).await;
        if let (Err(error), false) = (&looked, failing) {
            // Told once: it is tried again in a moment, for hours if need be.
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "the trail is not told to webhooks and collectors; it goes on by itself"
            );
        }
        failing = looked.is_err();
    }
}

/// Looks once, and waits until all that is to be told was tried.
pub(crate) async fn once(state: &AppState) -> Result<(), StoreError> {
    let teller = Arc::new(Teller::new(AppState::clone(state)));
    let mut under_way = UnderWay::default();
    teller.look(&mut under_way).await?;
    while under_way.tasks.join_next().await.is_some() {}
    Ok(())
}

/// The receivers that are being told something.
#[derive(Default)]
struct UnderWay {
    names: HashSet<String>,
    tasks: JoinSet<String>,
}

impl UnderWay {
    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            match ended {
                Ok(name) => {
                    self.names.remove(&name);
                }
                // Whose it was is not known, so all that are gone are taken up again at the next look.
                Err(_) if self.tasks.is_empty() => self.names.clear(),
                Err(_) => {}
            }
        }
    }
}

struct Teller {
    state: AppState,
    collector: Option<Collector>,
    /// By receiver: how far its place was read on without finding anything for it.
    read: Mutex<HashMap<String, Read>>,
    /// Receivers that could not be told at the last look, for reasons of this side.
    failing: Mutex<HashSet<String>>,
    /// Attempts at once.
    places: Semaphore,
}

/// What lies between the two places is nothing for the receiver.
#[derive(Debug, Clone, Default)]
struct Read {
    durable: String,
    to: String,
    /// Events between the two.
    skipped: usize,
}

/// Why a receiver is told nothing now. It is tried again at the next look.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the signing secret cannot be opened")]
    Secret(#[from] KeyChestError),
}

/// Who is told.
enum Receiver {
    Webhook(Webhook),
    Collector(Sink),
}

impl Receiver {
    fn sink(&self) -> &Sink {
        match self {
            Self::Webhook(webhook) => &webhook.sink,
            Self::Collector(sink) => sink,
        }
    }

    /// Whose events it is told: those of its organisation, or, for the operator's, of all.
    fn org(&self) -> Option<&OrgId> {
        match self {
            Self::Webhook(webhook) => Some(&webhook.org),
            Self::Collector(_) => None,
        }
    }

    fn wants(&self, event: &Event) -> bool {
        match self {
            // What telling itself records would be told of, and recorded, for ever.
            Self::Webhook(webhook) => {
                event.action != store::webhooks::DISABLED
                    && webhook
                        .events
                        .iter()
                        .any(|pattern| webhook::matches(pattern, &event.action))
            }
            Self::Collector(_) => true,
        }
    }
}

/// One attempt that failed.
#[derive(Debug)]
pub(crate) struct Failed {
    /// What was answered, if anything was.
    pub(crate) status: Option<u16>,
    /// Why, without a word of the answer.
    pub(crate) error: String,
    /// How long the receiver asks to be left alone.
    pub(crate) retry_after: Option<Duration>,
    /// Whether the receiver wants no more of it.
    pub(crate) is_gone: bool,
}

impl Teller {
    fn new(state: AppState) -> Self {
        let collector = state.delivery.collector.clone().map(Collector::new);
        Self {
            state,
            collector,
            read: Mutex::default(),
            failing: Mutex::default(),
            places: Semaphore::new(ATTEMPTS_AT_ONCE),
        }
    }

    /// Begins to tell every receiver for whom there may be something new.
    async fn look(self: &Arc<Self>, under_way: &mut UnderWay) -> Result<(), StoreError> {
        self.begin().await?;
        let store = &self.state.store;
        let end = store.audit().end().await?;
        let mut due = Vec::new();
        let webhooks = store.webhooks().due().await?;
        // Secrets open only where this plane may unwrap; others tell then.
        if !webhooks.is_empty() && self.state.rights().await.unwrap {
            due.extend(webhooks.into_iter().map(Receiver::Webhook));
        }
        if self.collector.is_some() {
            let collector = store.sinks().due(COLLECTOR).await?;
            due.extend(collector.map(Receiver::Collector));
        }
        for receiver in due {
            let name = receiver.sink().name.clone();
            if under_way.names.contains(&name) || self.has_read(receiver.sink()).to == end {
                continue;
            }
            under_way.names.insert(name.clone());
            let teller = Arc::clone(self);
            under_way.tasks.spawn(async move {
                let told = teller.tell(receiver).await;
                teller.note_failure(&name, told);
                name
            });
        }
        Ok(())
    }

    /// Tells of a failure once: it is tried again at each look, for hours if need be.
    fn note_failure(&self, name: &str, told: Result<(), TellError>) {
        let mut failing = self.failing.lock();
        match told {
            Ok(()) => {
                failing.remove(name);
            }
            Err(error) => {
                if failing.insert(name.to_owned()) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        sink = name,
                        "{name} is not told of the trail; it goes on by itself"
                    );
                }
            }
        }
    }

    /// Notes the collector, so that it is told what is recorded from now on.
    async fn begin(&self) -> Result<(), StoreError> {
        if self.collector.is_none() {
            return Ok(());
        }
        let (sinks, org) = (self.state.store.sinks(), &self.state.home_org);
        sinks.ensure(COLLECTOR, org).await
    }

    /// How far there is nothing for a receiver.
    fn has_read(&self, sink: &Sink) -> Read {
        let read = self.read.lock().get(&sink.name).cloned();
        read.filter(|read| read.durable == sink.place)
            .unwrap_or_else(|| Read {
                durable: sink.place.clone(),
                to: sink.place.clone(),
                skipped: 0,
            })
    }

    /// Tells a receiver all that there is for it, or until an attempt fails.
    async fn tell(&self, mut receiver: Receiver) -> Result<(), TellError> {
        let store = &self.state.store;
        loop {
            let Read { to, skipped, .. } = self.has_read(receiver.sink());
            let found = store.audit().steps(receiver.org(), &to).await?;
            let all = found.steps.len();
            let wanted: Vec<Step> = found
                .steps
                .into_iter()
                .filter(|step| receiver.wants(&step.event))
                .collect();
            if wanted.is_empty() && skipped + all < MANY {
                self.note(receiver.sink(), &found.end, skipped + all);
                if all == 0 {
                    return Ok(());
                }
                continue;
            }
            if !store.sinks().claim(receiver.sink()).await? {
                return Ok(());
            }
            let told = match &receiver {
                Receiver::Webhook(webhook) => {
                    self.tell_webhook(webhook, wanted, &found.end).await?
                }
                Receiver::Collector(sink) => self.tell_collector(sink, wanted, &found.end).await?,
            };
            let Some(told) = told else {
                return Ok(());
            };
            receiver = told;
        }
    }

    fn note(&self, sink: &Sink, to: &str, skipped: usize) {
        let read = Read {
            durable: sink.place.clone(),
            to: to.to_owned(),
            skipped,
        };
        self.read.lock().insert(sink.name.clone(), read);
    }

    /// Tells a webhook event by event. Gives it as it stands then, or `None` when it is to be left alone.
    async fn tell_webhook(
        &self,
        webhook: &Webhook,
        wanted: Vec<Step>,
        end: &str,
    ) -> Result<Option<Receiver>, TellError> {
        let sinks = self.state.store.sinks();
        let secrets = webhook::secrets(
            &self.state,
            &webhook.org,
            &webhook.id,
            webhook.secret_version,
        )
        .await?;
        let mut signed = Signed {
            webhook: webhook.clone(),
            secrets,
        };
        let mut told = Telling::new(signed.webhook.sink.clone());
        for step in wanted {
            let begun = Instant::now();
            let attempt = {
                let _place = self.places.acquire().await;
                signed.attempt(&self.state, &step.event).await
            };
            let now = self.state.clock.now();
            self.state.metrics.told(Told::Webhook, attempt.is_ok());
            told.take(&step, &attempt, (now, begun.elapsed()));
            if let Err(failed) = attempt {
                told.next.retry_at = now + self.wait(told.next.attempts, failed.retry_after);
                if sinks
                    .advance(&told.sink, &told.next, &told.deliveries)
                    .await?
                {
                    self.give_up(&signed.webhook, &told.next, &failed, now)
                        .await?;
                }
                return Ok(None);
            }
            if told.is_due() {
                if !sinks
                    .advance(&told.sink, &told.next, &told.deliveries)
                    .await?
                {
                    return Ok(None);
                }
                told.saved();
                // Somebody may have stopped it, or moved it elsewhere.
                let Some(fresh) = self.fresh(&signed.webhook).await? else {
                    return Ok(None);
                };
                signed.webhook = fresh;
            }
        }
        end.clone_into(&mut told.next.place);
        if !sinks
            .advance(&told.sink, &told.next, &told.deliveries)
            .await?
        {
            return Ok(None);
        }
        Ok(self.fresh(&signed.webhook).await?.map(Receiver::Webhook))
    }

    /// The webhook as it is now, if it is to be told anything.
    async fn fresh(&self, webhook: &Webhook) -> Result<Option<Webhook>, StoreError> {
        let fresh = self
            .state
            .store
            .webhooks()
            .get(&webhook.org, &webhook.id)
            .await?;
        Ok(fresh.filter(|fresh| fresh.is_active))
    }

    /// Stops telling a webhook that wants no more, or that has failed for too long.
    async fn give_up(
        &self,
        webhook: &Webhook,
        sink: &Sink,
        failed: &Failed,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let patience = self.state.delivery.give_up;
        let is_over = sink
            .failing_since
            .is_some_and(|since| now - since >= patience);
        let reason = match (failed.is_gone, is_over) {
            (true, _) => "it answered 410 Gone".to_owned(),
            (false, true) => format!(
                "{} attempts over {} h failed; the last: {}",
                sink.attempts,
                patience.as_secs() / 3600,
                failed.error
            ),
            (false, false) => return Ok(()),
        };
        let webhooks = self.state.store.webhooks();
        if webhooks.disable(&webhook.org, &webhook.id, &reason).await? {
            tracing::warn!(
                webhook = webhook.id.as_str(),
                "webhook {} is given up: {reason}",
                webhook.id
            );
        }
        Ok(())
    }

    /// Tells the collector as much as one request takes.
    async fn tell_collector(
        &self,
        sink: &Sink,
        mut wanted: Vec<Step>,
        end: &str,
    ) -> Result<Option<Receiver>, TellError> {
        let Some(collector) = &self.collector else {
            return Ok(None);
        };
        let sinks = self.state.store.sinks();
        let end = match wanted.get(EVENTS_AT_ONCE) {
            Some(_) => wanted[EVENTS_AT_ONCE - 1].place.clone(),
            None => end.to_owned(),
        };
        wanted.truncate(EVENTS_AT_ONCE);
        let events: Vec<Event> = wanted.into_iter().map(|step| step.event).collect();
        let mut next = sink.clone();
        let attempt = if events.is_empty() {
            Ok(())
        } else {
            let attempt = collector.attempt(&self.state, &events).await;
            self.state.metrics.told(Told::Collector, attempt.is_ok());
            attempt
        };
        let now = self.state.clock.now();
        match attempt {
            Ok(()) => {
                succeeded(&mut next, events.len() as u64, now);
                next.place = end;
                let moved = sinks.advance(sink, &next, &[]).await?;
                Ok(moved.then_some(Receiver::Collector(next)))
            }
            Err(failed) => {
                if next.attempts == 0 {
                    // Told once: it is tried again and again, for days if need be, and nothing is left out.
                    tracing::warn!("the collector does not take the trail: {}", failed.error);
                }
                next.attempts += 1;
                next.failing_since.get_or_insert(now);
                next.retry_at = now + self.wait(next.attempts, failed.retry_after);
                next.error = Some(failed.error);
                sinks.advance(sink, &next, &[]).await?;
                Ok(None)
            }
        }
    }

    /// How long to wait after so many failed attempts: twice as long each time, less a part by chance, so that receivers that
    /// failed together are not tried together.
    fn wait(&self, attempts: u64, asked: Option<Duration>) -> Duration {
        let options = &self.state.delivery;
        let doublings = u32::try_from(attempts.saturating_sub(1))
            .unwrap_or(u32::MAX)
            .min(20);
        let longest = options
            .first_retry
            .saturating_mul(1 << doublings)
            .min(options.longest_retry);
        let [chance] = crate::context::random::<1>();
        let wait = longest.mul_f64(1.0 - f64::from(chance) / 512.0);
        asked.map_or(wait, |asked| {
            asked.clamp(wait, options.longest_retry.max(wait))
        })
    }
}

/// How far a webhook was told, and what of it is not stored yet.
struct Telling {
    /// As it is stored.
    sink: Sink,
    /// As it is.
    next: Sink,
    deliveries: Vec<Delivery>,
    saved_at: Instant,
}

impl Telling {
    fn new(sink: Sink) -> Self {
        Self {
            next: sink.clone(),
            sink,
            deliveries: Vec::new(),
            saved_at: Instant::now(),
        }
    }

    fn take(
        &mut self,
        step: &Step,
        attempt: &Result<u16, Failed>,
        (now, took): (OffsetDateTime, Duration),
    ) {
        let next = &mut self.next;
        let (attempts, number) = (next.attempts + 1, next.delivered + 1);
        let (status, error) = match attempt {
            Ok(status) => {
                succeeded(next, 1, now);
                step.place.clone_into(&mut next.place);
                (Some(*status), None)
            }
            Err(failed) => {
                next.attempts = attempts;
                next.failing_since.get_or_insert(now);
                next.error = Some(failed.error.clone());
                (failed.status, Some(failed.error.clone()))
            }
        };
        self.deliveries.push(Delivery {
            number,
            event_id: step.event.id.clone(),
            action: step.event.action.clone(),
            attempts,
            attempted_at: now,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            status,
            error,
        });
    }

    /// Whether what was told is to be stored: a write a second, however fast the receiver is.
    fn is_due(&self) -> bool {
        self.saved_at.elapsed() >= SAVE_EVERY
    }

    fn saved(&mut self) {
        self.sink = self.next.clone();
        self.deliveries.clear();
        self.saved_at = Instant::now();
    }
}

fn succeeded(sink: &mut Sink, events: u64, now: OffsetDateTime) {
    sink.attempts = 0;
    sink.failing_since = None;
    sink.error = None;
    if events > 0 {
        sink.delivered += events;
        sink.delivered_at = Some(now);
    }
}

/// The name of the operator's collector among the receivers.
const COLLECTOR: &str = "otlp";
/// Connections of this process to receivers.
const ATTEMPTS_AT_ONCE: usize = 256;
/// After so many events that are nothing for a receiver its place is stored, so that no restart reads them all again.
const MANY: usize = 10_000;
/// Events of one request to the collector: some hundred kilobytes.
const EVENTS_AT_ONCE: usize = 512;
const SAVE_EVERY: Duration = Duration::from_secs(1);
