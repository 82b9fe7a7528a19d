//! The ledger's own counts, taken over when somebody asks for metrics.

use prometheus::{Counter, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use store::ledger::LedgerHealth;

/// Upper bounds of the classes in [`LedgerHealth::batch_sizes`].
const AT_MOST: [&str; 11] = [
    "1", "2", "4", "8", "16", "32", "64", "128", "256", "512", "more",
];

/// Metrics that the ledger counts by itself.
#[derive(Debug, Clone)]
pub(super) struct LedgerMetrics {
    uses: IntCounter,
    refusals: IntCounter,
    batches: IntCounter,
    batch_sizes: IntCounterVec,
    commit_seconds: Counter,
    write_errors: IntCounter,
    busy: IntCounter,
    lost_outcomes: IntCounter,
    clock_steps: IntCounter,
    unclean_starts: IntCounter,
    restore_epoch: IntCounter,
    queue_length: IntGauge,
    held_outcomes: IntGauge,
}

impl LedgerMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let sizes = Opts::new(
            "ledger_batch_sizes_total",
            "Transactions of the ledger by how many uses they had, at most.",
        );
        let batch_sizes = IntCounterVec::new(sizes, &["at_most"])?;
        registry.register(Box::new(batch_sizes.clone()))?;
        let commit_seconds = Counter::new(
            "ledger_commit_seconds_total",
            "Seconds that the ledger's transactions took, from begin to synced.",
        )?;
        registry.register(Box::new(commit_seconds.clone()))?;
        Ok(Self {
            uses: counter("ledger_uses_total", "Uses committed.")?,
            refusals: counter("ledger_refusals_total", "Refusals committed.")?,
            batches: counter("ledger_batches_total", "Transactions committed.")?,
            batch_sizes,
            commit_seconds,
            write_errors: counter("audit_write_errors", "Transactions that failed.")?,
            busy: counter("store_busy", "Transactions that found the database locked.")?,
            lost_outcomes: counter(
                "ledger_lost_outcomes_total",
                "Outcomes lost because too many were held back.",
            )?,
            clock_steps: counter(
                "clock_step",
                "Times that the clock was seen behind what was seen before.",
            )?,
            unclean_starts: counter(
                "unclean_starts",
                "Starts that found the store not closed in order.",
            )?,
            restore_epoch: counter(
                "restore_epoch",
                "Epochs that this node began because the database had been put back to an earlier state.",
            )?,
            queue_length: gauge("ledger_queue_length", "Jobs that wait for the ledger now.")?,
            held_outcomes: gauge(
                "ledger_held_outcomes",
                "Outcomes held back until the database takes them.",
            )?,
        })
    }

    /// Takes over what the ledger counted.
    pub(super) fn take(&self, health: &LedgerHealth) {
        let take = |counter: &IntCounter, value: u64| {
            counter.reset();
            counter.inc_by(value);
        };
        take(&self.uses, health.uses);
        take(&self.refusals, health.refusals);
        take(&self.batches, health.batches);
        take(&self.write_errors, health.write_errors);
        take(&self.busy, health.busy);
        take(&self.lost_outcomes, health.lost_outcomes);
        take(&self.clock_steps, health.clock_steps);
        take(&self.unclean_starts, health.unclean_starts);
        take(&self.restore_epoch, health.restore_epochs);
        for (at_most, value) in AT_MOST.into_iter().zip(health.batch_sizes) {
            take(&self.batch_sizes.with_label_values(&[at_most]), value);
        }
        self.commit_seconds.reset();
        let micros = std::time::Duration::from_micros(health.commit_micros);
        self.commit_seconds.inc_by(micros.as_secs_f64());
        let set =
            |gauge: &IntGauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.queue_length, health.queue_length);
        set(&self.held_outcomes, health.held_outcomes);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder as _, TextEncoder};

    use super::*;

    #[test]
    fn the_exposition_tells_what_the_ledger_counted() {
        let registry = Registry::new();
        let metrics = LedgerMetrics::register(&registry).unwrap();
        let mut health = LedgerHealth {
            uses: 40,
            batches: 3,
            write_errors: 1,
            unclean_starts: 2,
            restore_epochs: 1,
            queue_length: 5,
            commit_micros: 1_500_000,
            ..LedgerHealth::default()
        };
        health.batch_sizes[4] = 3;
        metrics.take(&health);
        metrics.take(&health);
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&registry.gather(), &mut text)
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "ledger_uses_total 40",
            "ledger_batches_total 3",
            "ledger_batch_sizes_total{at_most=\"16\"} 3",
            "ledger_commit_seconds_total 1.5",
            "audit_write_errors 1",
            "unclean_starts 2",
            "restore_epoch 1",
            "ledger_queue_length 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
    }
}
