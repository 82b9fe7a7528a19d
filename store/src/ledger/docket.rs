//! What a ledger's thread keeps from batch to batch, whatever the database, and its round of work.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::leases::id::{AgentId, LeaseId, UseId};
use ::leases::scope::Kind;

use super::book::{Book, Rows};
use super::pace::Pace;
use super::queue::{MAX_OUTCOMES, Waiting, Wake};
use super::record::{Sink, Writer};
use super::{Hold, LedgerError, Outcome, RecordedUse, Shared, UseRefusal, UseRequest};
use crate::chain::Heads;

/// How often display counts and the place to recover from are written.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// The most leases, and the most agents, whose counts are written at a time: rows that lie anywhere in their tables, and
/// uses wait meanwhile.
const MAX_NOTED: usize = 512;
/// How long to wait before held outcomes are tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// Rough size of a record in the log, for the keeper to know when to look.
const RECORD_BYTES: u64 = 1_200;

/// Who commits: the part that each database has of its own.
pub(super) trait Clerk {
    fn docket(&mut self) -> &mut Docket;

    /// Decides, records and commits the jobs and the outcomes that are held, and ends with
    /// [`Docket::settle`] or [`Docket::refuse`].
    fn commit(&mut self, waiting: &mut Vec<Waiting>, batch: &mut Batch, is_noting: bool);

    /// May follow each round.
    fn rest(&mut self) {}

    /// Writes a last time, and that the ledger ended in order.
    fn finish(self);
}

/// Works until the queue ends.
pub(super) fn run(mut clerk: impl Clerk) {
    let _end = EndOnDrop(Arc::clone(&clerk.docket().shared));
    let mut waiting = Vec::new();
    let mut batch = Batch::default();
    loop {
        let wake = clerk.docket().take(&mut waiting);
        if let Some(is_noting) = clerk.docket().is_due(&mut waiting) {
            clerk.commit(&mut waiting, &mut batch, is_noting);
        }
        clerk.rest();
        if wake == Wake::End {
            break;
        }
    }
    clerk.finish();
}

/// Ends queue and keeper with the thread, also when it panics: uses are then refused at once, and
/// not only after their deadline.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.queue.end();
        self.0.keeper.end();
    }
}

/// The thread's memory.
pub(super) struct Docket {
    pub(super) shared: Arc<Shared>,
    pub(super) heads: Arc<Heads>,
    /// Uses without an outcome, and their places in the chain.
    pub(super) open_uses: HashMap<UseId, u64>,
    /// Outcomes not committed yet.
    pub(super) held: VecDeque<Outcome>,
    pub(super) book: Book,
    pub(super) writer: Writer,
    pub(super) counts: Counts,
    retry_at: Option<Instant>,
    note_at: Instant,
    /// How often the time is written when nothing happens.
    idle_note_every: Duration,
    /// The most outcomes that one batch records.
    pub(super) max_outcomes: usize,
    pace: Pace,
}

/// Counts for display that are written now and then, a part at a time.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// The part that is written now, until it is known to be.
    part: Tally,
    /// Whose turn comes before that of `since`, so that each comes.
    due: Tally,
    since: Tally,
}

/// What there is to write of uses.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// How many more uses a lease has.
    pub(super) leases: HashMap<LeaseId, i64>,
    /// When an agent was last at work.
    pub(super) agents: HashMap<AgentId, i64>,
}

/// What a batch came to, to be told once it is committed.
#[derive(Default)]
pub(super) struct Batch {
    answers: Vec<Answer>,
    /// Uses recorded in this batch, and their places in the chain.
    pub(super) uses: Vec<(UseId, u64)>,
    refusals: u64,
    records: u64,
    /// How many of the held outcomes it records.
    pub(super) outcomes: usize,
}

enum Answer {
    Use(Result<RecordedUse, UseRefusal>),
    Refusal,
    Probe,
}

impl Docket {
    pub(super) fn new(
        shared: Arc<Shared>,
        heads: Arc<Heads>,
        left: Left,
        idle_note_every: Duration,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            heads,
            open_uses: left.open_uses,
            held: left.outcomes,
            book: Book::default(),
            writer: Writer::new(),
            counts: Counts::default(),
            retry_at: None,
            note_at: now,
            idle_note_every,
            max_outcomes: usize::MAX,
            pace: Pace::new(now),
        }
    }

    fn take(&mut self, waiting: &mut Vec<Waiting>) -> Wake {
        let (due, linger) = (self.due(), self.pace.linger());
        self.shared.queue.take(waiting, &mut self.held, due, linger)
    }

    /// When there is something to do even without a job.
    fn due(&self) -> Instant {
        let note = self.note_due();
        if self.held.is_empty() {
            note
        } else {
            note.min(self.retry_at.unwrap_or_else(Instant::now))
        }
    }

    fn note_due(&self) -> Instant {
        if self.counts.is_empty() {
            self.note_at + self.idle_note_every
        } else {
            self.note_at
        }
    }

    /// Whether a batch is to be made, and if so whether counts are to be noted with it.
    fn is_due(&mut self, waiting: &mut Vec<Waiting>) -> Option<bool> {
        // A caller who gave up before its job was taken has had no effect.
        waiting.retain(|job| !job.is_abandoned());
        self.bound_held();
        let now = Instant::now();
        let is_noting = now >= self.note_due();
        let holds = !self.held.is_empty() && self.retry_at.is_none_or(|retry| now >= retry);
        (!waiting.is_empty() || holds || is_noting).then_some(is_noting)
    }

    /// Loses the newest held outcomes when there are too many: the next start finds their uses.
    fn bound_held(&mut self) {
        let lost = self.held.len().saturating_sub(MAX_OUTCOMES);
        if lost > 0 {
            self.held.truncate(MAX_OUTCOMES);
            let lost = u64::try_from(lost).unwrap_or(u64::MAX);
            let lost_outcomes = &self.shared.stats.lost_outcomes;
            lost_outcomes.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Decides the jobs and makes the records of the batch, those of held outcomes last.
    pub(super) fn append<E>(
        &mut self,
        waiting: &[Waiting],
        batch: &mut Batch,
        rows: &mut impl Rows<Error = E>,
        sink: &mut impl Sink<Error = E>,
    ) -> Result<(), E> {
        let Self {
            book,
            writer,
            heads,
            held,
            ..
        } = self;
        let stream = &heads.ledger.stream;
        batch.outcomes = held.len().min(self.max_outcomes);
        for outcome in held.iter().take(batch.outcomes) {
            book.settle(rows, outcome)?;
        }
        for job in waiting {
            match job {
                Waiting::Use(request, _) => {
                    let decided = book.decide(rows, request, writer.now)?;
                    let answer = match decided {
                        Ok(opening) => {
                            let recorded = writer.record_use(stream, sink, request, opening)?;
                            batch.uses.push((recorded.use_id.clone(), writer.link.seq));
                            writer.record_approval(stream, sink, request, &recorded)?;
                            Ok(recorded)
                        }
                        Err(refusal) => {
                            writer.record_use_refusal(stream, sink, request, &refusal)?;
                            batch.refusals += 1;
                            Err(refusal)
                        }
                    };
                    batch.answers.push(Answer::Use(answer));
                }
                Waiting::Refusal(refused, _) => {
                    writer.record_refusal(stream, sink, refused)?;
                    batch.refusals += 1;
                    batch.answers.push(Answer::Refusal);
                }
                Waiting::Probe(_) => batch.answers.push(Answer::Probe),
            }
        }
        for outcome in held.iter().take(batch.outcomes) {
            writer.record_outcome(stream, sink, outcome)?;
        }
        batch.records = u64::try_from(waiting.len() + batch.outcomes).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Where a recovery would begin once this batch is committed.
    pub(super) fn open_from(&self, batch: &Batch) -> u64 {
        let recorded = self.held.iter().take(batch.outcomes);
        let settled: HashSet<&UseId> = recorded.map(|outcome| &outcome.use_id).collect();
        self.open_uses
            .iter()
            .map(|(id, seq)| (id, *seq))
            .chain(batch.uses.iter().map(|(id, seq)| (id, *seq)))
            .filter(|(id, _)| !settled.contains(id))
            .map(|(_, seq)| seq)
            .min()
            .unwrap_or(self.writer.link.seq + 1)
    }

    /// The outcomes of the uses that a batch allowed, should their callers never hear of them.
    pub(super) fn unheard(waiting: &[Waiting], batch: &Batch) -> VecDeque<Outcome> {
        let told = waiting.iter().zip(&batch.answers);
        told.filter_map(|pair| match pair {
            (Waiting::Use(request, _), Answer::Use(Ok(recorded))) => {
                Some(abandoned(request, recorded))
            }
            _ => None,
        })
        .collect()
    }

    /// Counts were noted.
    pub(super) fn noted(&mut self) {
        self.note_at = Instant::now() + NOTE_EVERY;
    }

    /// After a commit: moves the head, counts, and tells the callers.
    pub(super) fn settle(&mut self, waiting: &mut Vec<Waiting>, batch: &mut Batch, began: Instant) {
        self.heads.ledger.set(self.writer.link);
        self.retry_at = None;
        self.settle_outcomes(batch.outcomes);
        let stats = &self.shared.stats;
        stats
            .held_outcomes
            .store(self.held.len(), Ordering::Relaxed);
        self.pace.note(batch.uses.len(), Instant::now());
        let uses = u64::try_from(batch.uses.len()).unwrap_or(u64::MAX);
        stats.committed(uses, batch.refusals, began.elapsed());
        self.shared.keeper.wrote((batch.records + 4) * RECORD_BYTES);
        self.open_uses.extend(batch.uses.drain(..));
        for (job, answer) in waiting.drain(..).zip(batch.answers.drain(..)) {
            self.tell(job, answer);
        }
    }

    /// The first `count` of the held outcomes are recorded.
    pub(super) fn settle_outcomes(&mut self, count: usize) {
        let count = count.min(self.held.len());
        for outcome in self.held.drain(..count) {
            self.open_uses.remove(&outcome.use_id);
        }
    }

    fn tell(&mut self, job: Waiting, answer: Answer) {
        match (job, answer) {
            (Waiting::Use(request, sender), Answer::Use(decided)) => {
                if decided.is_ok() {
                    self.counts.used(&request, self.writer.now);
                }
                if let Err(Ok(unheard)) = sender.send(decided) {
                    // Its caller gave up meanwhile and sends nothing: the use stays consumed.
                    self.held.push_back(abandoned(&request, &unheard));
                }
            }
            (Waiting::Refusal(_, sender), Answer::Refusal) => {
                // A caller that no longer listens does not need to know.
                let _unheard = sender.send(Ok(()));
            }
            (Waiting::Probe(sender), Answer::Probe) => drop(sender.send(())),
            (Waiting::Use(..) | Waiting::Refusal(..) | Waiting::Probe(_), _) => {
                unreachable!("answers are made in the order of their jobs")
            }
        }
    }

    /// After a batch that was not committed: refuses the callers and keeps the outcomes.
    pub(super) fn refuse(&mut self, waiting: &mut Vec<Waiting>, message: &str, is_busy: bool) {
        let stats = &self.shared.stats;
        stats.failed(message, is_busy);
        stats
            .held_outcomes
            .store(self.held.len(), Ordering::Relaxed);
        self.book.clear();
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        self.note_at = self.note_at.max(Instant::now() + RETRY_AFTER);
        for job in waiting.drain(..) {
            // A caller that no longer listens does not need to know.
            match job {
                Waiting::Use(_, sender) => {
                    let refusal = UseRefusal::Unavailable(message.to_owned());
                    drop(sender.send(Err(refusal)));
                }
                Waiting::Refusal(_, sender) => {
                    drop(sender.send(Err(LedgerError::Unavailable(message.to_owned()))));
                }
                Waiting::Probe(sender) => drop(sender),
            }
        }
    }
}

fn abandoned(request: &UseRequest, recorded: &RecordedUse) -> Outcome {
    Outcome {
        use_id: recorded.use_id.clone(),
        org: request.org.clone(),
        lease: request.lease.clone(),
        agent: request.agent.clone(),
        set: request.set.clone(),
        grant: request.grant.clone(),
        request_id: request.request.request_id.clone(),
        status: None,
        error: Some("abandoned".to_owned()),
        bytes_up: 0,
        bytes_down: 0,
        duration_ms: 0,
        attempts: 0,
        address: None,
        spent: recorded.hold.map(Hold::given_back),
        reflections: 0,
    }
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.answers.clear();
        self.uses.clear();
        self.refusals = 0;
        self.records = 0;
        self.outcomes = 0;
    }
}

impl Counts {
    fn is_empty(&self) -> bool {
        self.part.is_empty() && self.due.is_empty() && self.since.is_empty()
    }

    /// What to write next, the same until one of the following is called.
    pub(super) fn next(&mut self) -> &Tally {
        if self.part.is_empty() {
            if self.due.is_empty() {
                std::mem::swap(&mut self.due, &mut self.since);
            }
            let Tally { leases, agents } = &mut self.due;
            self.part = Tally {
                leases: leases.extract_if(|_, _| true).take(MAX_NOTED).collect(),
                agents: agents.extract_if(|_, _| true).take(MAX_NOTED).collect(),
            };
        }
        &self.part
    }

    /// All that is left becomes the next part.
    pub(super) fn gather(&mut self) {
        for tally in [&mut self.due, &mut self.since] {
            self.part.add(std::mem::take(tally));
        }
    }

    /// The part is written.
    pub(super) fn noted(&mut self) {
        self.part = Tally::default();
    }

    /// Of the part, these are written. The others wait for another turn, so that they keep nobody.
    pub(super) fn noted_these(&mut self, leases: &[LeaseId], agents: &[AgentId]) {
        let mut rest = std::mem::take(&mut self.part);
        for lease in leases {
            rest.leases.remove(lease);
        }
        for agent in agents {
            rest.agents.remove(agent);
        }
        self.since.add(rest);
    }

    fn used(&mut self, request: &UseRequest, now: i64) {
        if request.kind == Kind::Workflow {
            add(&mut self.since.leases, &request.lease, 1);
        }
        latest(&mut self.since.agents, &request.agent, now);
    }
}

impl Tally {
    fn is_empty(&self) -> bool {
        self.leases.is_empty() && self.agents.is_empty()
    }

    fn add(&mut self, other: Self) {
        for (lease, uses) in other.leases {
            add(&mut self.leases, &lease, uses);
        }
        for (agent, used_at) in other.agents {
            latest(&mut self.agents, &agent, used_at);
        }
    }
}

fn add(leases: &mut HashMap<LeaseId, i64>, lease: &LeaseId, more: i64) {
    if let Some(uses) = leases.get_mut(lease) {
        *uses += more;
    } else {
        leases.insert(lease.clone(), more);
    }
}

fn latest(agents: &mut HashMap<AgentId, i64>, agent: &AgentId, at: i64) {
    if let Some(used_at) = agents.get_mut(agent) {
        *used_at = at.max(*used_at);
    } else {
        agents.insert(agent.clone(), at);
    }
}

/// What the last run left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Uses without an outcome, and their places in the chain.
    pub(super) open_uses: HashMap<UseId, u64>,
    /// The outcomes that they now get.
    pub(super) outcomes: VecDeque<Outcome>,
}

#[cfg(test)]
mod tests {
    use ::leases::clock::{Clock as _, SystemClock};

    use super::*;

    fn counted(leases: &[LeaseId]) -> Counts {
        let mut counts = Counts::default();
        for lease in leases {
            add(&mut counts.since.leases, lease, 1);
        }
        counts
    }

    fn ids(count: usize) -> Vec<LeaseId> {
        let now = SystemClock.now();
        (0..count).map(|_| LeaseId::new(now)).collect()
    }

    #[test]
    fn counts_of_many_leases_are_written_in_parts_and_each_has_its_turn() {
        let leases = ids(3 * MAX_NOTED);
        let mut counts = counted(&leases);
        let mut written = HashMap::new();
        for _ in 0..3 {
            let part = &counts.next().leases;
            assert_eq!(part.len(), MAX_NOTED);
            written.extend(part.clone());
            counts.noted();
            // Those that are used all the time do not keep the others from theirs.
            for lease in written.keys() {
                add(&mut counts.since.leases, lease, 1);
            }
        }
        assert_eq!(written.len(), leases.len());
    }

    #[test]
    fn what_was_not_written_is_tried_again_and_what_was_counted_since_is_added() {
        let leases = ids(2);
        let mut counts = counted(&leases);
        assert_eq!(counts.next().leases.len(), 2);
        add(&mut counts.since.leases, &leases[1], 5);
        assert_eq!(counts.next().leases[&leases[1]], 1, "until it is known");
        counts.noted_these(&leases[..1], &[]);
        assert_eq!(counts.next().leases, [(leases[1].clone(), 6)].into());
        counts.noted();
        assert!(counts.is_empty());
    }

    #[test]
    fn the_last_part_has_all_that_is_left() {
        let leases = ids(2 * MAX_NOTED);
        let mut counts = counted(&leases);
        counts.next();
        add(&mut counts.since.leases, &leases[0], 1);
        counts.gather();
        let uses: i64 = counts.next().leases.values().sum();
        assert_eq!(uses, i64::try_from(leases.len()).unwrap() + 1);
        counts.noted();
        assert!(counts.is_empty());
    }
}
