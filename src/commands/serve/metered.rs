//! Key providers, counted: every operation by its result, and how long it took.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use vault::keys::KekInfo;
use vault::{Dek, KekId, KeyError, KeyWrapper};

/// The counters of all key providers of this process.
#[derive(Clone, Debug)]
pub(crate) struct KeyMetrics {
    operations: IntCounterVec,
    duration: HistogramVec,
}

impl KeyMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            operations: IntCounterVec::new(
                Opts::new(
                    "kek_ops",
                    "Operations of key providers by result: ok, or why not.",
                ),
                &["provider", "op", "result"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "kek_op_duration_seconds",
                    "How long a key provider took over one DEK, in seconds.",
                )
                .buckets(prometheus::exponential_buckets(0.000_01, 4.0, 11)?),
                &["provider", "op"],
            )?,
        };
        registry.register(Box::new(metrics.operations.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        Ok(metrics)
    }

    /// The same provider, counted.
    pub(crate) fn count(&self, inner: Arc<dyn KeyWrapper>) -> Arc<dyn KeyWrapper> {
        Arc::new(Metered {
            inner,
            metrics: self.clone(),
        })
    }
}

#[derive(Debug)]
struct Metered {
    inner: Arc<dyn KeyWrapper>,
    metrics: KeyMetrics,
}

impl Metered {
    async fn counted<T>(
        &self,
        op: &'static str,
        call: impl Future<Output = Result<T, KeyError>>,
    ) -> Result<T, KeyError> {
        let provider = self.inner.provider();
        // A call that its caller gives up, as at a deadline, is counted too.
        let mut ending = Ending {
            operations: &self.metrics.operations,
            labels: [provider, op, "abandoned"],
        };
        let began = Instant::now();
        let result = call.await;
        let took = began.elapsed().as_secs_f64();
        let duration = &self.metrics.duration;
        duration.with_label_values(&[provider, op]).observe(took);
        ending.labels[2] = result.as_ref().map_or_else(word, |_| "ok");
        result
    }
}

/// Counts when the call ends, however it ends.
struct Ending<'a> {
    operations: &'a IntCounterVec,
    labels: [&'static str; 3],
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.operations.with_label_values(&self.labels).inc();
    }
}

const fn word(error: &KeyError) -> &'static str {
    match error {
        KeyError::Tampered { .. } => "tampered",
        KeyError::UnknownKek { .. } | KeyError::UnknownSigningKey { .. } => "unknown_key",
        KeyError::Unavailable { .. } => "unavailable",
        KeyError::Denied { .. } => "denied",
        _ => "error",
    }
}

#[async_trait]
impl KeyWrapper for Metered {
    fn provider(&self) -> &'static str {
        self.inner.provider()
    }

    async fn create_kek(&self, vault: &str) -> Result<KekId, KeyError> {
        self.counted("create", self.inner.create_kek(vault)).await
    }

    async fn wrap(&self, kek: &KekId, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.counted("wrap", self.inner.wrap(kek, dek, aad)).await
    }

    async fn unwrap(&self, kek: &KekId, wrapped: &[u8], aad: &[u8]) -> Result<Dek, KeyError> {
        self.counted("unwrap", self.inner.unwrap(kek, wrapped, aad))
            .await
    }

    async fn rotate_kek(&self, kek: &KekId) -> Result<u64, KeyError> {
        self.counted("rotate", self.inner.rotate_kek(kek)).await
    }

    async fn describe(&self, kek: &KekId) -> Result<KekInfo, KeyError> {
        self.counted("describe", self.inner.describe(kek)).await
    }

    async fn current_version(&self, kek: &KekId) -> Result<u64, KeyError> {
        self.inner.current_version(kek).await
    }

    fn wrapped_version(&self, wrapped: &[u8]) -> Option<u64> {
        self.inner.wrapped_version(wrapped)
    }

    async fn check(&self) -> Result<(), KeyError> {
        self.counted("check", self.inner.check()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault::{Protection, SoftwareKeys};

    #[tokio::test]
    async fn operations_are_counted_by_their_result() {
        let dir = tempfile::tempdir().unwrap();
        let keys = SoftwareKeys::open(&dir.path().join("keys"), Protection::File).unwrap();
        let registry = Registry::new();
        let metrics = KeyMetrics::register(&registry).unwrap();
        let keys = metrics.count(Arc::new(keys));
        let kek = keys.create_kek("vlt_1").await.unwrap();
        let dek = Dek::generate().unwrap();
        let wrapped = keys.wrap(&kek, &dek, b"row").await.unwrap();
        keys.unwrap(&kek, &wrapped, b"row").await.unwrap();
        keys.unwrap(&kek, &wrapped, b"another row")
            .await
            .unwrap_err();
        let count = |op: &str, result: &str| {
            let labels = ["software", op, result];
            metrics.operations.with_label_values(&labels).get()
        };
        assert_eq!((count("wrap", "ok"), count("unwrap", "ok")), (1, 1));
        assert_eq!(count("unwrap", "tampered"), 1);
    }
}
