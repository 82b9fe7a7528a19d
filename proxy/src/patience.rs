//! How slow an agent may be: a body that it sends, or an answer that it reads, moves at a least rate or is ended.
//!
//! Only the time in which the agent is waited for counts. A provider that is silent, as with events and long polls, costs
//! the agent nothing, and neither does one that takes its time with an upload. Idle bounds stand beside this: they end
//! who does nothing at all, and this ends who does as little as keeps them quiet (threats.md H2).

use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::refuse::{Code, Refusal};

/// The least rate at which bodies and answers move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeastRate {
    /// Bytes a second, on average while the agent is waited for; none is no bound.
    pub bytes_per_second: Option<NonZeroU32>,
    /// Over how long the average is taken. The first part of a body has as much time again.
    pub over: Duration,
}

impl Default for LeastRate {
    fn default() -> Self {
        Self {
            // Far below the slowest modem, and far above what keeps an idle bound quiet.
            bytes_per_second: NonZeroU32::new(256),
            over: Duration::from_secs(30),
        }
    }
}

/// The agent was waited for for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent is slower than the least rate of {bytes_per_second} bytes a second")]
pub(crate) struct TooSlow {
    bytes_per_second: u32,
}

impl From<TooSlow> for Refusal {
    fn from(slow: TooSlow) -> Self {
        Self::new(
            Code::TooSlow,
            format!("{slow} (limits.least_bytes_per_second); send and read without long pauses"),
        )
    }
}

/// What is left of the patience with one body or answer. Waiting takes of it, and bytes that move give back.
pub(crate) struct Patience {
    rate: LeastRate,
    left: Duration,
    /// Since when the agent is waited for.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(crate) const fn new(rate: LeastRate) -> Self {
        Self {
            rate,
            left: rate.over.saturating_mul(2),
            since: None,
            timer: None,
        }
    }

    /// Counts this moment as waiting. Ready once it was too long; the task is woken by then.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<TooSlow> {
        let Some(slow) = self.slow() else {
            return Poll::Pending;
        };
        if self.since.is_none() {
            let now = Instant::now();
            self.since = Some(now);
            let end = now + self.left;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(end),
                None => self.timer = Some(Box::pin(sleep_until(end))),
            }
        }
        let timer = self.timer.as_mut().expect("set with the wait's beginning");
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(slow)
    }

    /// So many bytes moved, and nothing is waited for any more.
    pub(crate) fn pass(&mut self, bytes: usize) {
        if let Some(since) = self.since.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        self.earn(bytes);
    }

    /// Waits for the agent.
    pub(crate) async fn wait<F: Future>(&mut self, agent: F) -> Result<F::Output, TooSlow> {
        let Some(slow) = self.slow() else {
            return Ok(agent.await);
        };
        let since = Instant::now();
        let done = timeout(self.left, agent).await;
        self.left = self.left.saturating_sub(since.elapsed());
        done.map_err(|_| slow)
    }

    fn earn(&mut self, bytes: usize) {
        let Some(rate) = self.rate.bytes_per_second else {
            return;
        };
        let seconds = bytes as u64 / u64::from(rate.get());
        let rest = bytes as u64 % u64::from(rate.get());
        let nanos = rest * 1_000_000_000 / u64::from(rate.get());
        let earned = Duration::from_secs(seconds) + Duration::from_nanos(nanos);
        // A fast beginning does not pay for any slowness later.
        let more = self.left.saturating_add(earned).min(self.rate.over);
        self.left = self.left.max(more);
    }

    fn slow(&self) -> Option<TooSlow> {
        let rate = self.rate.bytes_per_second?;
        Some(TooSlow {
            bytes_per_second: rate.get(),
        })
    }
}

/// Whether the agent's slowness is why a connection failed.
pub(crate) fn too_slow(error: &pingora::Error) -> Option<TooSlow> {
    let cause = error.root_cause();
    let inside = || {
        let io = cause.downcast_ref::<std::io::Error>()?;
        io.get_ref()?.downcast_ref().copied()
    };
    cause.downcast_ref().copied().or_else(inside)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use tokio::time::sleep;

    use super::*;

    const RATE: LeastRate = LeastRate {
        bytes_per_second: NonZeroU32::new(100),
        over: Duration::from_secs(10),
    };

    /// An agent that moves `bytes` every second, until it is too slow or `most` seconds are over.
    async fn seconds(bytes: usize, most: u64) -> u64 {
        let mut patience = Patience::new(RATE);
        for second in 0..most {
            if patience.wait(sleep(Duration::from_secs(1))).await.is_err() {
                return second;
            }
            patience.pass(bytes);
        }
        most
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_rate_goes_on_and_who_does_not_is_ended() {
        assert_eq!(seconds(100, 1000).await, 1000);
        assert_eq!(seconds(0, 1000).await, 20);
        // Ten seconds of the beginning, and then half of each second.
        assert!((28..=31).contains(&seconds(50, 1000).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_beginning_does_not_pay_for_an_end_that_never_comes() {
        let mut patience = Patience::new(RATE);
        patience.pass(1_000_000_000);
        let start = Instant::now();
        assert!(patience.wait(pending::<()>()).await.is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(20));
        let mut patience = Patience::new(RATE);
        let _ = patience.wait(sleep(Duration::from_secs(15))).await;
        patience.pass(1_000_000_000);
        let start = Instant::now();
        assert!(patience.wait(pending::<()>()).await.is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_in_which_the_agent_is_waited_for_counts() {
        let mut patience = Patience::new(RATE);
        sleep(Duration::from_hours(1)).await;
        let over = poll_fn(|cx| Poll::Ready(patience.poll_over(cx).is_ready())).await;
        assert!(!over);
        sleep(Duration::from_secs(19)).await;
        patience.pass(0);
        sleep(Duration::from_hours(1)).await;
        let start = Instant::now();
        poll_fn(|cx| patience.poll_over(cx)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_give_back_the_time_that_they_take_at_the_rate() {
        for (bytes, seconds) in [
            (0, 10.0),
            (1, 10.01),
            (150, 11.5),
            (100, 11.0),
            (999, 19.99),
            (5_000, 20.0),
        ] {
            let mut patience = Patience::new(LeastRate {
                over: Duration::from_secs(20),
                ..RATE
            });
            // Of the forty seconds of the beginning, ten are left.
            let _ = patience.wait(sleep(Duration::from_secs(30))).await;
            patience.pass(bytes);
            let start = Instant::now();
            assert!(patience.wait(pending::<()>()).await.is_err());
            let waited = start.elapsed();
            let expected = Duration::from_secs_f64(seconds);
            assert!(
                waited.abs_diff(expected) <= Duration::from_millis(1),
                "{bytes}: {waited:?}"
            );
        }
    }

    #[test]
    fn the_agents_slowness_is_told_from_other_failures_of_a_connection() {
        use pingora::{Error, ErrorType::ReadError};

        let slow = TooSlow {
            bytes_per_second: 256,
        };
        let io = std::io::Error::other(slow);
        for (cause, found) in [
            (Error::because(ReadError, "read", slow), Some(slow)),
            (Error::because(ReadError, "read", io), Some(slow)),
            (
                Error::because(ReadError, "read", std::io::Error::other("gone")),
                None,
            ),
            (Error::new(ReadError), None),
        ] {
            assert_eq!(too_slow(&cause), found, "{cause}");
        }
        let refusal = Refusal::from(slow);
        assert_eq!(refusal.code, Code::TooSlow);
        assert!(
            refusal.detail.contains("256 bytes a second"),
            "{}",
            refusal.detail
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nobody_is_too_slow() {
        let mut patience = Patience::new(LeastRate {
            bytes_per_second: None,
            ..RATE
        });
        assert!(patience.wait(sleep(Duration::from_hours(1))).await.is_ok());
        let over = poll_fn(|cx| Poll::Ready(patience.poll_over(cx).is_ready())).await;
        assert!(!over);
    }
}
