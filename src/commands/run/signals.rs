//! Signals on their way to the wrapped program.
//!
//! A terminal sends its signals to the whole foreground group, so the program has them already; what was sent to this
//! process alone is passed on. Linux tells the two apart.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A signal that reached this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    signal: Signal,
    by_terminal: bool,
}

const FORWARDED: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGWINCH,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Passes the signal on, unless the terminal did.
pub(super) fn forward(received: Received, to: u32) {
    if received.by_terminal {
        return;
    }
    if let Ok(id) = i32::try_from(to) {
        // A program that has just ended needs no signal.
        let _ = kill(Pid::from_raw(id), received.signal);
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use anyhow::Context as _;
    use nix::libc;
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    use tokio::sync::mpsc;

    use super::{FORWARDED, Received};

    /// The signals, held back from their default actions and read one by one.
    #[derive(Debug)]
    pub(in super::super) struct Signals {
        received: mpsc::Receiver<Received>,
    }

    impl Signals {
        /// Holds the signals back on this thread and on those it starts; a child starts without the hold.
        pub(in super::super) fn hold() -> anyhow::Result<Self> {
            let set: SigSet = FORWARDED.into_iter().collect();
            set.thread_block().context("cannot hold signals back")?;
            let source =
                SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("cannot read signals")?;
            let (sender, received) = mpsc::channel(16);
            // It waits in the kernel, and ends with the process.
            std::thread::Builder::new()
                .name("signals".to_owned())
                .spawn(move || read(&source, &sender))
                .context("cannot wait for signals")?;
            Ok(Self { received })
        }

        /// The next signal, with who sent it.
        pub(in super::super) async fn next(&mut self) -> anyhow::Result<Received> {
            self.received
                .recv()
                .await
                .context("signals are read no longer")
        }
    }

    fn read(source: &SignalFd, sender: &mpsc::Sender<Received>) {
        loop {
            match source.read_signal() {
                Ok(Some(info)) => {
                    let signal = i32::try_from(info.ssi_signo)
                        .ok()
                        .and_then(|number| Signal::try_from(number).ok());
                    let Some(signal) = signal else { continue };
                    if sender
                        .blocking_send(Received {
                            signal,
                            by_terminal: info.ssi_code == libc::SI_KERNEL,
                        })
                        .is_err()
                    {
                        return;
                    }
                }
                Ok(None) | Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::io::IsTerminal as _;

    use nix::sys::signal::Signal;
    use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

    use super::{FORWARDED, Received};

    /// The signals, caught in place of their default actions.
    #[derive(Debug)]
    pub(in super::super) struct Signals {
        streams: Vec<(Signal, Stream)>,
    }

    impl Signals {
        /// Nothing needs to happen before the runtime starts.
        pub(in super::super) fn hold() -> anyhow::Result<Self> {
            Ok(Self {
                streams: Vec::new(),
            })
        }

        /// The next signal. Who sent it is not told here: on a terminal, its own are taken for its own.
        pub(in super::super) async fn next(&mut self) -> anyhow::Result<Received> {
            if self.streams.is_empty() {
                for kind in FORWARDED {
                    self.streams
                        .push((kind, signal(SignalKind::from_raw(kind as i32))?));
                }
            }
            let received = std::future::poll_fn(|cx| {
                for (kind, stream) in &mut self.streams {
                    if stream.poll_recv(cx).is_ready() {
                        return std::task::Poll::Ready(*kind);
                    }
                }
                std::task::Poll::Pending
            })
            .await;
            let from_terminal = [
                Signal::SIGINT,
                Signal::SIGQUIT,
                Signal::SIGWINCH,
                Signal::SIGHUP,
            ]
            .contains(&received);
            Ok(Received {
                signal: received,
                by_terminal: from_terminal && std::io::stdin().is_terminal(),
            })
        }
    }
}

pub(super) use platform::Signals;
