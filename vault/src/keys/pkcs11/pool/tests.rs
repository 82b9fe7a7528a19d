//! The threads alone, with calls that hang for as long as a test wants.

use std::sync::{
    atomic::{AtomicUsize, Ordering},
    mpsc,
};

use super::*;

const LIMITS: Limits = Limits {
    threads: 2,
    deadline: Duration::from_millis(100),
    give_up_after: Duration::from_millis(300),
};

/// A pool whose seats are counted, and a gate that hanging calls wait at.
struct Bench {
    pool: Pool<Seat>,
    seats: Arc<AtomicUsize>,
    gate: Gate,
}

struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Clone)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn wait(&self) {
        let mut open = self.0.0.lock();
        while !*open {
            self.0.1.wait(&mut open);
        }
    }

    fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }
}

fn bench() -> Bench {
    let seats = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seats);
    let pool = Pool::new(LIMITS, move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Seat(Arc::clone(&counted))
    });
    Bench {
        pool,
        seats,
        gate: Gate(Arc::new((Mutex::new(false), Condvar::new()))),
    }
}

impl Bench {
    async fn quick(&self) -> Result<u8, NoAnswer> {
        self.pool.call(LIMITS.deadline, |_| 7).await
    }

    async fn hanging(&self) -> Result<(), NoAnswer> {
        let gate = self.gate.clone();
        self.pool.call(LIMITS.deadline, move |_| gate.wait()).await
    }

    /// As `hanging`, with nobody who waits for it.
    fn submit_hanging(&self) -> Result<(), NoAnswer> {
        let gate = self.gate.clone();
        self.pool.submit(Box::new(move |_| gate.wait()))
    }

    /// Makes every thread hang.
    async fn hang_all(&self) {
        for _ in 0..LIMITS.threads {
            assert_eq!(self.hanging().await, Err(NoAnswer::Late));
        }
    }

    async fn until(&self, condition: impl Fn(&Gauge) -> bool) -> Gauge {
        let started = Instant::now();
        loop {
            let gauge = self.pool.gauge();
            if condition(&gauge) {
                return gauge;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "{gauge:?}");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn calls_in_turn_are_answered_by_threads_that_stay() {
    let bench = bench();
    for _ in 0..20 {
        assert_eq!(bench.quick().await, Ok(7));
    }
    bench.until(|gauge| gauge.busy == 0).await;
    let threads = bench.pool.gauge().threads;
    assert!((1..=LIMITS.threads).contains(&threads), "{threads}");
}

#[tokio::test]
async fn a_call_that_hangs_is_left_at_the_deadline_and_the_runtime_goes_on() {
    let bench = bench();
    let started = Instant::now();
    let (hanging, other) = tokio::join!(bench.hanging(), async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        started.elapsed()
    });
    assert_eq!(hanging, Err(NoAnswer::Late));
    assert!(other < LIMITS.deadline, "{other:?}");
    assert_eq!(
        bench.quick().await,
        Ok(7),
        "the other thread is there for it"
    );
    bench.gate.open();
}

#[tokio::test]
async fn callers_are_refused_at_once_while_every_thread_hangs() {
    let bench = bench();
    bench.hang_all().await;
    bench.until(|gauge| gauge.hanging == LIMITS.threads).await;
    let started = Instant::now();
    let refused = bench.quick().await;
    assert!(
        matches!(refused, Err(NoAnswer::Hanging(since)) if since > LIMITS.deadline),
        "{refused:?}"
    );
    assert!(started.elapsed() < LIMITS.deadline);
    bench.gate.open();
    bench.until(|gauge| gauge.busy == 0).await;
    assert_eq!(bench.quick().await, Ok(7), "and it closes by itself");
}

#[tokio::test]
async fn threads_that_hang_are_replaced_once_and_end_when_they_return() {
    let bench = bench();
    let mut most = 0;
    let started = Instant::now();
    while started.elapsed() < 4 * LIMITS.give_up_after {
        bench.hanging().await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(5)).await;
        most = most.max(bench.pool.gauge().threads);
    }
    assert_eq!(most, 2 * LIMITS.threads);
    assert!(bench.seats.load(Ordering::SeqCst) <= 2 * LIMITS.threads);
    bench.gate.open();
    bench.until(|gauge| gauge.threads == LIMITS.threads).await;
    assert_eq!(bench.quick().await, Ok(7));
}

#[tokio::test]
async fn a_call_whose_caller_has_gone_does_not_run() {
    let bench = bench();
    for _ in 0..LIMITS.threads {
        bench.submit_hanging().unwrap();
    }
    let (sender, ran) = mpsc::channel();
    let late = bench
        .pool
        .call(Duration::ZERO, move |_| sender.send(()))
        .await;
    assert_eq!(late, Err(NoAnswer::Late));
    bench.gate.open();
    assert_eq!(bench.quick().await, Ok(7));
    assert!(ran.try_recv().is_err());
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let bench = bench();
    let mut refused = None;
    for _ in 0..=MAX_QUEUE + 2 * LIMITS.threads {
        refused = refused.or(bench.submit_hanging().err());
    }
    assert!(
        matches!(refused, Some(NoAnswer::Crowded | NoAnswer::Hanging(_))),
        "{refused:?}"
    );
    bench.gate.open();
}

#[tokio::test]
async fn a_panic_costs_its_own_call() {
    let bench = bench();
    // Telling of a panic with its backtrace takes as long as the machine likes.
    let patient = std::time::Duration::from_secs(30);
    let call = bench.pool.call(patient, |_| -> u8 { panic!("oh") });
    assert_eq!(call.await, Err(NoAnswer::Broken));
    assert_eq!(bench.quick().await, Ok(7));
}

#[tokio::test]
async fn the_threads_end_with_the_pool() {
    let bench = bench();
    bench.quick().await.unwrap();
    drop(bench.pool);
    let started = Instant::now();
    while bench.seats.load(Ordering::SeqCst) > 0 {
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
}
