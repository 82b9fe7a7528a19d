//! Requests of an organisation in a month: counted in memory, and written now and then.
//!
//! No request waits for a count. Each process adds to its own row of the month every [`FLUSH`] and reads what all have written, so a
//! limit is exact within a process, and over several it is passed by at most what the others admit between two looks. What was
//! counted since the last write is lost with a process that is killed; the organisation is not charged for it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ::leases::id::OrgId;
use parking_lot::Mutex;
use time::UtcOffset;

use crate::db::{Change, query, stored};
use crate::quotas::{OverQuota, Resource};
use crate::timekeeper::at;
use crate::{Store, StoreError};

/// How often counts are written and read.
pub const FLUSH: Duration = Duration::from_secs(10);

/// How often a count is looked for that is put away each time.
const LOOKS: usize = 4;

/// How an organisation stands in a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Requests so far, as far as this process knows.
    pub used: u64,
    /// How many there may be.
    pub limit: Option<u64>,
}

/// The counts of this process.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    tallies: Mutex<HashMap<(OrgId, Month), Tally>>,
}

/// Year and month as one number: 202611. A number, since every use asks for it.
type Month = u32;

#[derive(Debug, Clone, Default)]
struct Tally {
    /// What all processes have written.
    written: u64,
    /// What this one has not.
    unwritten: u64,
    /// Whether `written` and `limit` were read.
    is_known: bool,
    limit: Option<u64>,
}

impl Tally {
    const fn standing(&self) -> Standing {
        Standing {
            used: self.written.saturating_add(self.unwritten),
            limit: self.limit,
        }
    }
}

/// The requests of a store.
#[derive(Debug, Clone, Copy)]
pub struct Requests<'a> {
    pub(crate) store: &'a Store,
}

impl Requests<'_> {
    /// Counts a request if there is room for it. `must_pass` is for what may never be refused, such as a revocation.
    ///
    /// # Errors
    /// [`OverQuota`] inside, when the month's requests are used up; [`StoreError`] when nothing is known of the organisation yet
    /// and the store does not answer.
    pub async fn admit(
        &self,
        org: &OrgId,
        must_pass: bool,
    ) -> Result<Result<Standing, OverQuota>, StoreError> {
        for _ in 0..LOOKS {
            self.know(org).await?;
            let mut tallies = self.store.inner.requests.tallies.lock();
            let tally = tallies.get_mut(&(org.clone(), self.month()));
            // It may have been put away since, or a month have begun.
            let Some(tally) = tally.filter(|tally| tally.is_known) else {
                continue;
            };
            let Standing { used, limit } = tally.standing();
            return match limit {
                Some(limit) if used >= limit && !must_pass => Ok(Err(OverQuota {
                    resource: Resource::Requests,
                    limit,
                })),
                _ => {
                    tally.unwritten += 1;
                    Ok(Ok(tally.standing()))
                }
            };
        }
        let what = "the count of requests";
        Err(StoreError::Conflict { what })
    }

    /// Takes a count back: the request was one that had been counted before.
    pub fn uncount(&self, org: &OrgId) {
        let mut tallies = self.store.inner.requests.tallies.lock();
        if let Some(tally) = tallies.get_mut(&(org.clone(), self.month())) {
            // What was written meanwhile stays counted.
            tally.unwritten = tally.unwritten.saturating_sub(1);
        }
    }

    /// How an organisation stands in this month.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn standing(&self, org: &OrgId) -> Result<Standing, StoreError> {
        self.know(org).await?;
        let tallies = self.store.inner.requests.tallies.lock();
        let unknown = Standing {
            used: 0,
            limit: None,
        };
        let tally = tallies.get(&(org.clone(), self.month()));
        Ok(tally.map_or(unknown, Tally::standing))
    }

    /// Writes what was counted, and reads what all processes wrote for those who asked. What cannot be written is kept for the next
    /// time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn flush(&self) -> Result<(), StoreError> {
        let counted: Vec<((OrgId, Month), u64)> = {
            let mut tallies = self.store.inner.requests.tallies.lock();
            let taken = tallies.iter_mut().filter(|(_, tally)| tally.unwritten > 0);
            taken
                .map(|(place, tally)| {
                    let counted = std::mem::take(&mut tally.unwritten);
                    // Seen by everybody who asks meanwhile.
                    tally.written += counted;
                    (place.clone(), counted)
                })
                .collect()
        };
        if let Err(error) = self.write(&counted).await {
            let mut tallies = self.store.inner.requests.tallies.lock();
            for (place, counted) in counted {
                let tally = tallies.entry(place).or_default();
                tally.written = tally.written.saturating_sub(counted);
                tally.unwritten += counted;
            }
            return Err(error);
        }
        let month = self.month();
        let busy: HashSet<&OrgId> = counted
            .iter()
            .filter(|((_, of), _)| *of == month)
            .map(|((org, _), _)| org)
            .collect();
        {
            let mut tallies = self.store.inner.requests.tallies.lock();
            // Of one that was quiet, and of an earlier month, the next request reads anew.
            tallies.retain(|(org, of), tally| {
                tally.unwritten > 0 || (*of == month && busy.contains(org))
            });
        }
        for org in busy {
            self.read(org).await?;
        }
        Ok(())
    }

    async fn write(&self, counted: &[((OrgId, Month), u64)]) -> Result<(), StoreError> {
        if counted.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.write(Change::Seals).await?;
        for ((org, month), counted) in counted {
            query(
                "INSERT INTO org_requests (org_id, month, node, requests) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (org_id, month, node) DO UPDATE \
                 SET requests = org_requests.requests + excluded.requests",
            )
            .bind(org.as_str())
            .bind(text_of(*month))
            .bind(self.node())
            .bind(stored(*counted))
            .execute(tx.conn())
            .await?;
        }
        tx.commit().await
    }

    /// Makes sure that this month's count and limit of an organisation are at hand.
    async fn know(&self, org: &OrgId) -> Result<(), StoreError> {
        let is_known = {
            let tallies = self.store.inner.requests.tallies.lock();
            let tally = tallies.get(&(org.clone(), self.month()));
            tally.is_some_and(|tally| tally.is_known)
        };
        if is_known {
            return Ok(());
        }
        self.read(org).await
    }

    async fn read(&self, org: &OrgId) -> Result<(), StoreError> {
        let month = self.month();
        let written: Option<i64> = query(
            "SELECT CAST(COALESCE(SUM(requests), 0) AS BIGINT) FROM org_requests \
             WHERE org_id = $1 AND month = $2",
        )
        .bind(org.as_str())
        .bind(text_of(month))
        .fetch_value(self.store.pool())
        .await?;
        let limit = self.store.quotas().of(org).await?.requests_per_month;
        let mut tallies = self.store.inner.requests.tallies.lock();
        let tally = tallies.entry((org.clone(), month)).or_default();
        tally.written = written.unwrap_or(0).unsigned_abs();
        tally.limit = limit;
        tally.is_known = true;
        Ok(())
    }

    fn month(self) -> Month {
        let now = at(self.store.inner.time.now()).to_offset(UtcOffset::UTC);
        now.year().unsigned_abs() * 100 + u32::from(u8::from(now.month()))
    }

    /// This process, as its audit streams name it.
    fn node(&self) -> &str {
        let stream = &self.store.inner.heads.control.stream.name;
        stream.rsplit_once('/').map_or(stream, |(node, _)| node)
    }
}

/// A month as it is stored: `2026-11`.
fn text_of(month: Month) -> String {
    format!("{:04}-{:02}", month / 100, month % 100)
}

#[cfg(test)]
mod tests;
