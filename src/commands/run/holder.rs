//! The lease of one run: minted at its start, renewed ahead of its end, revoked when the program has ended.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use leases::clock::{Clock as _, SystemClock};
use parking_lot::Mutex;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::super::{Context, lease};
use crate::client::{Client, segment, text};

/// After a renewal that failed, the next try.
const RETRY: Duration = Duration::from_secs(5);
/// A lease with less than this left is not worth renewing in a hurry.
const LEAST_WAIT: Duration = Duration::from_millis(500);

/// A lease as it was minted. The token is printed nowhere.
pub(super) struct Lease {
    pub(super) id: String,
    pub(super) token: Zeroizing<String>,
    expires_at: OffsetDateTime,
    /// The same by this process's own clock.
    pub(super) ends: Instant,
    /// Half of its life: a new one is minted then, so that what is open has as long again to come to an end.
    renew_in: Duration,
}

/// Mints, renews and revokes.
pub(super) struct Holder<'a> {
    context: &'a Context,
    mint: lease::Mint,
    current: watch::Sender<Arc<Lease>>,
    /// Every lease of this run that may still live, by id and end.
    minted: Mutex<Vec<(String, OffsetDateTime)>>,
}

impl<'a> Holder<'a> {
    /// Mints the first lease.
    pub(super) async fn begin(
        context: &'a Context,
        client: &Client,
        mint: lease::Mint,
    ) -> anyhow::Result<Self> {
        let first = Lease::mint(client, &mint).await?;
        let minted = Mutex::new(vec![(first.id.clone(), first.expires_at)]);
        Ok(Self {
            context,
            mint,
            current: watch::Sender::new(Arc::new(first)),
            minted,
        })
    }

    /// The lease to show, as it is now and as it will be.
    pub(super) fn leases(&self) -> watch::Receiver<Arc<Lease>> {
        self.current.subscribe()
    }

    /// The ids of all leases that this run had.
    pub(super) fn ids(&self) -> Vec<String> {
        self.minted
            .lock()
            .iter()
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Mints the next lease when half of the last one's life is over, for as long as it is polled.
    pub(super) async fn renew(&self) -> Infallible {
        let mut wait = self.current.borrow().renew_in;
        let mut has_warned = false;
        loop {
            tokio::time::sleep(wait).await;
            wait = match self.renewed().await {
                Ok(wait) => {
                    has_warned = false;
                    wait
                }
                Err(error) => {
                    if !has_warned {
                        self.context.output.warn(format!(
                            "the lease could not be renewed and ends at {}: {error:#}",
                            instant(self.current.borrow().expires_at)
                        ));
                    }
                    has_warned = true;
                    RETRY
                }
            };
        }
    }

    async fn renewed(&self) -> anyhow::Result<Duration> {
        // A client of its own: an agent's token does not live as long as a run.
        let client = self.context.connection.client().await?;
        let lease = Lease::mint(&client, &self.mint).await?;
        self.minted
            .lock()
            .push((lease.id.clone(), lease.expires_at));
        let wait = lease.renew_in;
        self.current.send_replace(Arc::new(lease));
        Ok(wait)
    }

    /// Revokes what still lives. Best effort: the program's status is what the caller waits for, and leases end by
    /// themselves.
    pub(super) async fn end(self) {
        let now = SystemClock.now();
        let living: Vec<_> = self
            .minted
            .into_inner()
            .into_iter()
            .filter(|(_, expires_at)| *expires_at > now)
            .collect();
        let client = self.context.connection.client().await;
        for (id, expires_at) in living {
            let revoked = match &client {
                Ok(client) => {
                    let path = format!("/v1/vault/leases/{}", segment(&id));
                    client
                        .delete(&path)
                        .await
                        .map_err(|error| format!("{error:#}"))
                }
                Err(error) => Err(format!("{error:#}")),
            };
            if let Err(error) = revoked {
                self.context.output.warn(format!(
                    "lease {id} is not revoked and lives until {}: {error}",
                    instant(expires_at)
                ));
            }
        }
    }
}

impl Lease {
    async fn mint(client: &Client, mint: &lease::Mint) -> anyhow::Result<Self> {
        let answer = lease::request(client, mint).await?;
        let expires_at = OffsetDateTime::parse(text(&answer, "expires_at"), &Rfc3339)?;
        // A grant may end it earlier than was asked for.
        let left = Duration::try_from(expires_at - SystemClock.now()).unwrap_or_default();
        Ok(Self {
            id: text(&answer, "lease_id").to_owned(),
            token: Zeroizing::new(text(&answer, "token").to_owned()),
            expires_at,
            ends: Instant::now() + left,
            renew_in: (left / 2).max(LEAST_WAIT),
        })
    }
}

fn instant(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}
