//! Logs: lines to stderr through a buffer that never makes a request wait, and a panic hook that prints no values.

mod line;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::{Condvar, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::failure::Failure;

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Keeps the log flowing; when it is dropped, all lines written so far are out.
#[derive(Debug)]
pub(crate) struct Telemetry {
    sink: Sink,
    flusher: Option<JoinHandle<()>>,
}

/// Starts the log of this process. `filter` is in `RUST_LOG`'s language.
///
/// # Errors
/// A filter that cannot be read; a subscriber that is already set.
pub(crate) fn start(filter: &str, format: LogFormat) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::new(format!("the log filter `{filter}` cannot be read: {error}"))
            .hint("write it as info, or as info,proxy=debug")
    })?;
    let sink = Sink::default();
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(sink.clone())
        .with_ansi(false);
    let lines = match format {
        LogFormat::Text => lines
            .fmt_fields(line::Fields)
            .event_format(line::Line)
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(
            lines
                .with_filter(filter_fn(may_be_told))
                .with_filter(filter),
        )
        .try_init()
        .map_err(|error| anyhow::anyhow!("the log cannot start: {error}"))?;
    hook_panics(sink.clone());
    let flusher =
        flush_in_background(sink.clone(), io::stderr()).context("the log's thread cannot start")?;
    Ok(Telemetry {
        sink,
        flusher: Some(flusher),
    })
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.sink.shared.closing.store(true, Ordering::Release);
        self.sink.shared.wake.notify_one();
        if let Some(flusher) = self.flusher.take() {
            let _ = flusher.join();
        }
    }
}

/// Below info, HTTP libraries print whole requests, credentials with them, so no filter lets that through: what is more
/// detailed comes from our own crates, which print none. Release builds leave it out at compile time as well.
fn may_be_told(metadata: &Metadata<'_>) -> bool {
    const OURS: [&str; 7] = [
        "claviger",
        "control_plane",
        "leases",
        "providers",
        "proxy",
        "store",
        "vault",
    ];
    let origin = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= Level::INFO || OURS.contains(&origin)
}

/// Lines on their way out. Writers append under a lock that is never held across a system call, so a stalled reader
/// of stderr costs lines, which are counted, and never the time of a request.
#[derive(Clone, Debug, Default)]
struct Sink {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Vec<u8>>,
    wake: Condvar,
    lost: AtomicU64,
    closing: AtomicBool,
}

/// At most this many bytes wait; what comes beyond is counted and dropped.
const CAPACITY: usize = 4 * 1024 * 1024;
/// From here on the flusher is woken before its time.
const EAGER: usize = 64 * 1024;
/// A line is out at the latest after this.
const INTERVAL: Duration = Duration::from_millis(100);

impl Sink {
    fn append(&self, line: &[u8]) {
        let mut pending = self.shared.pending.lock();
        if pending.len() + line.len() > CAPACITY {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        pending.extend_from_slice(line);
        if pending.len() >= EAGER {
            self.shared.wake.notify_one();
        }
    }

    /// Writes out what waits. `spare` is an empty buffer that the writers go on with meanwhile.
    fn drain(&self, spare: &mut Vec<u8>, to: &mut impl Write) {
        std::mem::swap(&mut *self.shared.pending.lock(), spare);
        let lost = self.shared.lost.swap(0, Ordering::Relaxed);
        // There is no third place to tell that stderr is gone.
        let _ = to.write_all(spare);
        if lost > 0 {
            let _ = writeln!(to, "{lost} log lines lost: stderr is read too slowly");
        }
        let _ = to.flush();
        spare.clear();
    }
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.append(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn flush_in_background(
    sink: Sink,
    mut to: impl Write + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            let mut spare = Vec::with_capacity(EAGER);
            loop {
                let closing = {
                    let mut pending = sink.shared.pending.lock();
                    // Checked under the lock: a close between the check and the wait would cost one interval.
                    if pending.len() < EAGER && !sink.shared.closing.load(Ordering::Acquire) {
                        sink.shared.wake.wait_for(&mut pending, INTERVAL);
                    }
                    sink.shared.closing.load(Ordering::Acquire)
                };
                sink.drain(&mut spare, &mut to);
                if closing {
                    return;
                }
            }
        })
}

/// A panic's payload may carry a value, so the log gets its place in the source and a fixed text alone.
fn hook_panics(sink: Sink) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic
            .location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        tracing::error!(target: "claviger::panic", "panicked at {place}; the payload is withheld, please report this place");
        // The process may end before the next interval.
        sink.drain(&mut Vec::new(), &mut io::stderr().lock());
    }));
}

/// For commands that keep no log: the same withholding hook, straight to stderr.
pub(crate) fn withhold_panic_payloads() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let _ = writeln!(
            io::stderr().lock(),
            "claviger panicked at {place}; please report this place"
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn closing_the_log_brings_every_line_out_in_order() {
        let (sink, kept) = (Sink::default(), Kept::default());
        let flusher = flush_in_background(sink.clone(), kept.clone()).unwrap();
        for number in 0..1_000 {
            sink.append(format!("{number}\n").as_bytes());
        }
        drop(Telemetry {
            sink,
            flusher: Some(flusher),
        });
        let lines = String::from_utf8(kept.0.lock().clone()).unwrap();
        assert!(
            lines
                .lines()
                .map(|line| line.parse::<u32>().unwrap())
                .eq(0..1_000)
        );
    }

    #[test]
    fn lines_beyond_the_capacity_are_counted_and_told() {
        let (sink, mut kept) = (Sink::default(), Kept::default());
        sink.append(&vec![b'a'; CAPACITY]);
        sink.append(b"one too many\n");
        sink.append(b"two too many\n");
        sink.drain(&mut Vec::new(), &mut kept);
        assert!(
            String::from_utf8(kept.0.lock().clone())
                .unwrap()
                .ends_with("2 log lines lost: stderr is read too slowly\n")
        );
        sink.append(b"back\n");
        sink.drain(&mut Vec::new(), &mut kept);
        assert!(kept.0.lock().ends_with(b"back\n"));
    }

    #[test]
    fn details_of_other_peoples_crates_are_never_told() {
        let sink = Sink::default();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(sink.clone())
            .with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(
            lines
                .with_filter(filter_fn(may_be_told))
                .with_filter(EnvFilter::new("trace")),
        );
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "h2::frame", "canary-1");
            tracing::debug!(target: "proxying", "canary-2");
            tracing::debug!(target: "proxy::inject", "ours");
            tracing::info!(target: "h2", "theirs");
        });
        let told = String::from_utf8(sink.shared.pending.lock().clone()).unwrap();
        assert!(!told.contains("canary"), "{told}");
        assert!(told.contains("ours") && told.contains("theirs"), "{told}");
    }

    #[test]
    fn control_characters_in_fields_are_escaped() {
        let sink = Sink::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(sink.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(
                agent = "a\u{1b}[31m\nforged line",
                "hello {}",
                "\u{1b}[2Jthere"
            );
        });
        let line = String::from_utf8(sink.shared.pending.lock().clone()).unwrap();
        assert!(!line.contains('\u{1b}'), "{line:?}");
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    }
}
