//! What waits for the ledger's thread, and how the thread is woken as seldom as can be.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{LedgerError, Outcome, RecordedUse, Refused, UseRefusal, UseRequest};

/// More waiting uses than this would wait past their deadline anyway.
const MAX_WAITING: usize = 8_192;
/// Outcomes kept while the database takes nothing; later ones are counted as lost.
pub(super) const MAX_OUTCOMES: usize = 65_536;
/// One transaction's share, so that its commit stays short.
const MAX_BATCH: usize = 1_024;
/// How long an outcome waits for a use to share a commit with.
const LINGER: Duration = Duration::from_millis(20);

/// A job whose caller waits.
#[derive(Debug)]
pub(super) enum Waiting {
    Use(UseRequest, oneshot::Sender<Result<RecordedUse, UseRefusal>>),
    Refusal(Refused, oneshot::Sender<Result<(), LedgerError>>),
    /// Nothing but the transaction, to see whether it can be made.
    Probe(oneshot::Sender<()>),
}

impl Waiting {
    /// Whether the caller gave up, so that nothing needs to be recorded.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Use(_, answer) => answer.is_closed(),
            Self::Refusal(_, answer) => answer.is_closed(),
            Self::Probe(answer) => answer.is_closed(),
        }
    }
}

/// Why a job is not taken.
#[derive(Debug, Clone, Copy)]
pub(super) enum NotQueued {
    Full,
    Ended,
}

/// Jobs on their way to the thread.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Waiting>,
    outcomes: VecDeque<Outcome>,
    /// When the first of `outcomes` came.
    outcomes_since: Option<Instant>,
    sleep: Sleep,
    ended: bool,
}

/// What has to wake the thread.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Sleep {
    /// Nothing: it looks by itself.
    #[default]
    Awake,
    /// A waiting caller. It looks for outcomes by itself within [`LINGER`].
    Light,
    /// Anything.
    Deep,
}

/// Why the thread is to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// There are jobs, or a time that it asked for has come.
    Work,
    /// The store is closed: write what there is and end.
    End,
}

impl Queue {
    /// Adds a job whose caller waits.
    pub(super) fn push(&self, job: Waiting) -> Result<(), NotQueued> {
        let mut state = self.state.lock();
        if state.ended {
            return Err(NotQueued::Ended);
        }
        if state.waiting.len() >= MAX_WAITING {
            return Err(NotQueued::Full);
        }
        state.waiting.push(job);
        let sleep = state.sleep;
        drop(state);
        if sleep != Sleep::Awake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Adds an outcome; false if there are too many.
    pub(super) fn push_outcome(&self, outcome: Outcome) -> bool {
        let mut state = self.state.lock();
        if state.outcomes.len() >= MAX_OUTCOMES {
            return false;
        }
        if state.outcomes.is_empty() {
            state.outcomes_since = Some(Instant::now());
        }
        state.outcomes.push_back(outcome);
        let sleep = state.sleep;
        drop(state);
        if sleep == Sleep::Deep {
            self.wake.notify_one();
        }
        true
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> usize {
        let state = self.state.lock();
        state.waiting.len() + state.outcomes.len()
    }

    /// Takes no more jobs, and has the thread end after those there are.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.wake.notify_one();
    }

    /// Waits until there is something to do, at the latest until `due`, and takes it. Jobs wait
    /// `linger` longer for others to come.
    pub(super) fn take(
        &self,
        waiting: &mut Vec<Waiting>,
        outcomes: &mut VecDeque<Outcome>,
        due: Instant,
        linger: Option<Duration>,
    ) -> Wake {
        let mut state = self.state.lock();
        // Right after a batch its outcomes are about to come: a light sleep spares their callers
        // the system call that wakes a thread.
        let mut next_sleep = Sleep::Light;
        while state.waiting.is_empty() && !state.ended {
            let now = Instant::now();
            let due = state
                .outcomes_since
                .map_or(due, |since| due.min(since + LINGER));
            if due <= now {
                break;
            }
            let until = match next_sleep {
                Sleep::Deep => due,
                Sleep::Awake | Sleep::Light => due.min(now + LINGER),
            };
            state.sleep = next_sleep;
            let timed_out = self.wake.wait_until(&mut state, until).timed_out();
            state.sleep = Sleep::Awake;
            if timed_out {
                next_sleep = Sleep::Deep;
            }
        }
        if let Some(linger) = linger
            && !state.waiting.is_empty()
            && !state.ended
        {
            // It is not asleep meanwhile, so that those who come need no system call to wake it.
            drop(state);
            std::thread::sleep(linger);
            state = self.state.lock();
        }
        if state.waiting.len() > MAX_BATCH {
            waiting.extend(state.waiting.drain(..MAX_BATCH));
        } else {
            std::mem::swap(waiting, &mut state.waiting);
        }
        outcomes.append(&mut state.outcomes);
        state.outcomes_since = None;
        if state.ended && state.waiting.is_empty() {
            Wake::End
        } else {
            Wake::Work
        }
    }
}

#[cfg(test)]
mod tests {
    use ::leases::clock::{Clock as _, SystemClock};
    use ::leases::id::OrgId;

    use super::*;
    use crate::testing::facts;

    fn job(answer: oneshot::Sender<Result<(), LedgerError>>) -> Waiting {
        let refused = Refused {
            org: OrgId::new(SystemClock.now()),
            error: "grant_denied".to_owned(),
            agent: None,
            lease: None,
            set: None,
            grant: None,
            request: facts(),
        };
        Waiting::Refusal(refused, answer)
    }

    #[test]
    fn a_full_queue_takes_no_more_and_gives_a_bounded_batch() {
        let queue = Queue::default();
        for _ in 0..MAX_WAITING {
            queue.push(job(oneshot::channel().0)).unwrap();
        }
        let refused = queue.push(job(oneshot::channel().0));
        assert!(matches!(refused, Err(NotQueued::Full)));
        let mut waiting = Vec::new();
        let wake = queue.take(&mut waiting, &mut VecDeque::new(), Instant::now(), None);
        assert_eq!((wake, waiting.len()), (Wake::Work, MAX_BATCH));
        queue.push(job(oneshot::channel().0)).unwrap();
    }

    #[test]
    fn an_ended_queue_gives_out_what_it_holds_and_then_the_end() {
        let queue = Queue::default();
        for _ in 0..=MAX_BATCH {
            queue.push(job(oneshot::channel().0)).unwrap();
        }
        queue.end();
        let refused = queue.push(job(oneshot::channel().0));
        assert!(matches!(refused, Err(NotQueued::Ended)));
        let take = || queue.take(&mut Vec::new(), &mut VecDeque::new(), Instant::now(), None);
        assert_eq!(take(), Wake::Work);
        assert_eq!(take(), Wake::End);
    }
}
