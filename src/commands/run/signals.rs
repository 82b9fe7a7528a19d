//! Signals on their way to the wrapped program.
//!
//! A terminal sends its signals to the whole foreground group, so the program has them already; what was sent to this
//! process alone is passed on. Linux tells the two apart.

use std::task::Poll;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

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

/// The signals of this process, none of which ends it before the program has ended.
#[derive(Debug)]
pub(super) struct Signals {
    origin: platform::Origin,
    caught: Vec<(Signal, Stream)>,
}

impl Signals {
    /// Holds the signals back. To be called while this is the process's only thread, inside a runtime.
    pub(super) fn hold() -> anyhow::Result<Self> {
        let origin = platform::Origin::hold()?;
        let catch = |kind: Signal| {
            let stream =
                signal(SignalKind::from_raw(kind as i32)).context("cannot catch signals")?;
            anyhow::Ok((kind, stream))
        };
        Ok(Self {
            origin,
            caught: wanted().into_iter().map(catch).collect::<Result<_, _>>()?,
        })
    }

    /// Starts a program that gets every signal as if it had been started by a shell.
    ///
    /// A child inherits what its parent's thread holds back, so nothing is held back for this moment; what arrives in
    /// it is caught.
    pub(super) fn spawning<T>(&self, spawn: impl FnOnce() -> T) -> anyhow::Result<T> {
        self.origin.released(spawn)
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> anyhow::Result<Received> {
        let caught = &mut self.caught;
        let any = std::future::poll_fn(|cx| {
            let ready = caught
                .iter_mut()
                .find_map(|(kind, stream)| stream.poll_recv(cx).is_ready().then_some(*kind));
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        tokio::select! {
            signal = any => Ok(Received { signal, by_terminal: platform::may_be_terminals(signal) }),
            received = self.origin.next() => received,
        }
    }
}

/// Those that the caller did not have ignored, as `nohup` does with SIGHUP: the program inherits that.
fn wanted() -> Vec<Signal> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = mask
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    FORWARDED
        .into_iter()
        .filter(|signal| ignored & (1 << (*signal as i32 - 1)) == 0)
        .collect()
}

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
    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    use tokio::sync::mpsc;

    use super::Received;

    /// The signals, blocked on every thread and read one by one with their origin.
    #[derive(Debug)]
    pub(super) struct Origin {
        set: SigSet,
        received: mpsc::Receiver<Received>,
    }

    impl Origin {
        pub(super) fn hold() -> anyhow::Result<Self> {
            let set: SigSet = super::wanted().into_iter().collect();
            set.thread_block().context("cannot hold signals back")?;
            let source =
                SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("cannot read signals")?;
            let (sender, received) = mpsc::channel(16);
            // It waits in the kernel, and ends with the process.
            let thread = std::thread::Builder::new().name("signals".to_owned());
            thread
                .spawn(move || read(&source, &sender))
                .context("cannot wait for signals")?;
            Ok(Self { set, received })
        }

        pub(super) fn released<T>(&self, action: impl FnOnce() -> T) -> anyhow::Result<T> {
            self.set
                .thread_unblock()
                .context("cannot let signals through")?;
            let outcome = action();
            self.set
                .thread_block()
                .context("cannot hold signals back")?;
            Ok(outcome)
        }

        pub(super) async fn next(&mut self) -> anyhow::Result<Received> {
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
                    let number = i32::try_from(info.ssi_signo).ok();
                    let Some(signal) = number.and_then(|number| Signal::try_from(number).ok())
                    else {
                        continue;
                    };
                    let by_terminal = info.ssi_code == libc::SI_KERNEL;
                    if sender
                        .blocking_send(Received {
                            signal,
                            by_terminal,
                        })
                        .is_err()
                    {
                        return;
                    }
                }
                Ok(None) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Caught while nothing is held back, so without an origin; twice is better than never.
    pub(super) fn may_be_terminals(_: Signal) -> bool {
        false
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use std::io::IsTerminal as _;

    use nix::sys::signal::Signal;

    use super::Received;

    /// Nobody tells the origin here.
    #[derive(Debug)]
    pub(super) struct Origin;

    impl Origin {
        pub(super) fn hold() -> anyhow::Result<Self> {
            Ok(Self)
        }

        pub(super) fn released<T>(&self, action: impl FnOnce() -> T) -> anyhow::Result<T> {
            Ok(action())
        }

        pub(super) async fn next(&mut self) -> anyhow::Result<Received> {
            std::future::pending().await
        }
    }

    /// On a terminal, its own signals are taken for its own.
    pub(super) fn may_be_terminals(signal: Signal) -> bool {
        let of_terminals = [
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGWINCH,
            Signal::SIGHUP,
        ];
        of_terminals.contains(&signal) && std::io::stdin().is_terminal()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use tokio::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_program_starts_with_no_signal_held_back() {
        let signals = Signals::hold().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "kill -TERM $$; exit 0"]);
        let mut child = signals.spawning(|| command.spawn()).unwrap().unwrap();
        assert_eq!(
            child.wait().await.unwrap().signal(),
            Some(Signal::SIGTERM as i32)
        );
    }

    #[tokio::test]
    async fn a_signal_to_this_process_alone_is_passed_on() {
        let mut signals = Signals::hold().unwrap();
        let mut command = Command::new("sleep");
        let mut child = signals
            .spawning(|| command.arg("60").spawn())
            .unwrap()
            .unwrap();
        kill(Pid::this(), Signal::SIGUSR1).unwrap();
        let received = signals.next().await.unwrap();
        assert_eq!(
            (received.signal, received.by_terminal),
            (Signal::SIGUSR1, false)
        );
        forward(received, child.id().unwrap());
        assert_eq!(
            child.wait().await.unwrap().signal(),
            Some(Signal::SIGUSR1 as i32)
        );
    }
}
