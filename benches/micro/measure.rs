//! Timing: batches of some milliseconds for about a second, of which the median counts.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::support::{Table, time};

/// How long one batch takes: long enough for the clock, short enough for a median that a busy neighbour cannot move.
const BATCH: Duration = Duration::from_millis(5);
/// How long one line of the table takes.
const TOTAL: Duration = Duration::from_millis(800);

/// The table that grows by a line with each measurement.
pub(crate) struct Report(Table);

impl Report {
    pub(crate) fn new() -> Self {
        Self(Table::new(1, &["part", "time", "per second"]))
    }

    /// Measures `work`.
    pub(crate) fn each<T>(&mut self, part: &str, mut work: impl FnMut() -> T) {
        self.batches(part, |calls| {
            let start = Instant::now();
            for _ in 0..calls {
                black_box(work());
            }
            start.elapsed()
        });
    }

    /// Measures what `batch` does in so many calls; it answers with the time that they took.
    pub(crate) fn batches(&mut self, part: &str, mut batch: impl FnMut(u32) -> Duration) {
        let calls = calibrate(&mut batch);
        let deadline = Instant::now() + TOTAL;
        let mut times = Vec::new();
        while times.len() < 3 || Instant::now() < deadline {
            times.push(batch(calls));
        }
        times.sort_unstable();
        let one = times[times.len() / 2].as_secs_f64() / f64::from(calls);
        self.0.row(vec![
            part.to_owned(),
            time(Duration::from_secs_f64(one)),
            format!("{:.0}", 1.0 / one),
        ]);
    }

    pub(crate) fn table(&self) -> &Table {
        &self.0
    }
}

/// How many calls fill a batch; finding out also warms caches and the branch predictor.
fn calibrate(batch: &mut impl FnMut(u32) -> Duration) -> u32 {
    let mut calls = 1;
    loop {
        if batch(calls) >= BATCH || calls >= 1 << 24 {
            return calls;
        }
        calls *= 2;
    }
}
