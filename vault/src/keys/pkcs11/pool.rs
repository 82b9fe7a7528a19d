//! The threads that call the module, one session each: few, bounded, and never waited for beyond a deadline.
//!
//! A module's call cannot be interrupted. A thread that hangs in one is given up on after a while and another takes its
//! place, for as many threads as there are places and no more; when the call returns after all, its thread ends. While
//! every thread hangs, callers are refused at once: the breaker is open until one of them returns.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// How many calls may wait for a thread.
const MAX_QUEUE: usize = 1024;
/// How long the pool's end waits for threads that are not in a call, and so for no time that anyone would notice.
const LEAVE_WITHIN: Duration = Duration::from_millis(250);

/// The threads. `S` is what each keeps between calls; it is made in the thread and dropped there.
pub(super) struct Pool<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    limits: Limits,
    make: Box<dyn Fn() -> S + Send + Sync>,
    state: Mutex<State<S>>,
    work: Condvar,
    left: Condvar,
}

/// Bounds of a [`Pool`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Threads that take calls. As many again may hang.
    pub(super) threads: usize,
    /// How long a caller waits.
    pub(super) deadline: Duration,
    /// After how long in one call a thread is given up on.
    pub(super) give_up_after: Duration,
}

struct State<S> {
    queue: VecDeque<Job<S>>,
    crew: HashMap<u64, Post>,
    idle: usize,
    next_id: u64,
    closed: bool,
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// One thread.
#[derive(Default)]
struct Post {
    busy_since: Option<Instant>,
    given_up: bool,
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The deadline has passed.
    Late,
    /// Every thread hangs, for at least this long.
    Hanging(Duration),
    /// Too many calls wait.
    Crowded,
    /// The thread could not be started, or its call panicked.
    Broken,
}

/// What the threads are at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gauge {
    pub(super) threads: usize,
    pub(super) busy: usize,
    pub(super) hanging: usize,
    pub(super) queued: usize,
}

impl<S: 'static> Pool<S> {
    pub(super) fn new(limits: Limits, make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        let state = State {
            queue: VecDeque::new(),
            crew: HashMap::new(),
            idle: 0,
            next_id: 0,
            closed: false,
        };
        let shared = Shared {
            limits,
            make: Box::new(make),
            state: Mutex::new(state),
            work: Condvar::new(),
            left: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Runs `work` in one of the threads. If the caller goes away before a thread takes it, it does not run.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let (sender, answer) = oneshot::channel();
        let job = move |seat: &mut S| {
            if !sender.is_closed() {
                // The caller may have gone meanwhile.
                sender.send(work(seat)).ok();
            }
        };
        self.submit(Box::new(job))?;
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(NoAnswer::Broken),
            Err(_) => Err(NoAnswer::Late),
        }
    }

    pub(super) fn gauge(&self) -> Gauge {
        let state = self.shared.state.lock();
        let now = Instant::now();
        let busy = state.crew.values().filter_map(|post| post.busy_since);
        Gauge {
            threads: state.crew.len(),
            busy: busy.clone().count(),
            hanging: busy
                .filter(|since| now.duration_since(*since) > self.shared.limits.deadline)
                .count(),
            queued: state.queue.len(),
        }
    }

    fn submit(&self, job: Job<S>) -> Result<(), NoAnswer> {
        let mut state = self.shared.state.lock();
        if state.queue.len() >= state.idle {
            let limits = &self.shared.limits;
            match state.room(limits, Instant::now()) {
                Room::ForAThread => self.hire(&mut state)?,
                Room::InTheQueue => {}
                Room::None(since) => return Err(NoAnswer::Hanging(since)),
            }
        }
        if state.queue.len() >= MAX_QUEUE {
            return Err(NoAnswer::Crowded);
        }
        state.queue.push_back(job);
        self.shared.work.notify_one();
        Ok(())
    }

    fn hire(&self, state: &mut State<S>) -> Result<(), NoAnswer> {
        let id = state.next_id;
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name(format!("pkcs11-{id}"))
            .spawn(move || shared.serve(id))
            .map_err(|_| NoAnswer::Broken)?;
        state.next_id += 1;
        state.crew.insert(id, Post::default());
        // It counts as idle from here on, so that the job about to be queued hires nobody else.
        state.idle += 1;
        Ok(())
    }
}

impl<S> Pool<S> {
    /// Takes no more calls, and waits a moment for the threads to put away what they keep.
    pub(super) fn close(&self) {
        let mut state = self.shared.state.lock();
        state.closed = true;
        state.queue.clear();
        self.shared.work.notify_all();
        // Modules crash when the process exits while a thread is in one of their calls, and closing a session is one.
        let until = Instant::now() + LEAVE_WITHIN;
        while !state.crew.is_empty() {
            if self.shared.left.wait_until(&mut state, until).timed_out() {
                return;
            }
        }
    }
}

impl<S> Drop for Pool<S> {
    fn drop(&mut self) {
        self.close();
    }
}

enum Room {
    ForAThread,
    InTheQueue,
    None(Duration),
}

impl<S> State<S> {
    /// Where another job finds room, when no thread is idle for it.
    fn room(&mut self, limits: &Limits, now: Instant) -> Room {
        let given_up = self.crew.values().filter(|post| post.given_up).count();
        if self.crew.len() - given_up < limits.threads {
            return Room::ForAThread;
        }
        let live = self.crew.values_mut().filter(|post| !post.given_up);
        let busy_for = |post: &Post| {
            let since = post.busy_since;
            since.map_or(Duration::ZERO, |since| now.duration_since(since))
        };
        let (mut longest, mut shortest) = (None::<(Duration, &mut Post)>, Duration::MAX);
        for post in live {
            let time = busy_for(post);
            shortest = shortest.min(time);
            if longest.as_ref().is_none_or(|(most, _)| time > *most) {
                longest = Some((time, post));
            }
        }
        match longest {
            Some((time, post)) if time > limits.give_up_after && given_up < limits.threads => {
                post.given_up = true;
                Room::ForAThread
            }
            _ if shortest > limits.deadline => Room::None(shortest),
            _ => Room::InTheQueue,
        }
    }
}

impl<S> Shared<S> {
    /// A thread's life.
    fn serve(&self, id: u64) {
        let mut seat = (self.make)();
        while let Some(job) = self.next_job(id) {
            // A panic in one call costs that call, and the seat, whose state nobody knows any more.
            if catch_unwind(AssertUnwindSafe(|| job(&mut seat))).is_err() {
                seat = (self.make)();
            }
            if !self.finished(id) {
                break;
            }
        }
        drop(seat);
        self.state.lock().crew.remove(&id);
        self.left.notify_all();
    }

    fn next_job(&self, id: u64) -> Option<Job<S>> {
        let mut state = self.state.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.queue.pop_front() {
                state.idle -= 1;
                if let Some(post) = state.crew.get_mut(&id) {
                    post.busy_since = Some(Instant::now());
                }
                return Some(job);
            }
            self.work.wait(&mut state);
        }
    }

    /// Whether the thread stays: one that was given up on has a successor.
    fn finished(&self, id: u64) -> bool {
        let mut state = self.state.lock();
        let Some(post) = state.crew.get_mut(&id) else {
            return false;
        };
        post.busy_since = None;
        let stays = !post.given_up;
        if stays {
            state.idle += 1;
        }
        stays
    }
}

#[cfg(test)]
mod tests;
