//! How much may be under way in this process, for all and for each agent and org: tunnels, requests, bytes a second.
//!
//! This protects the process, and its other agents. Budgets that hold over all nodes are the ledger's. What has no limit
//! is not counted.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leases::id::{AgentId, OrgId};
use leases::verify::VerifiedLease;
use parking_lot::Mutex;

use crate::patience::LeastRate;
use crate::refuse::{Code, Refusal};

/// So many accounts are kept before those that nobody uses are let go.
const KEPT: usize = 1024;
/// What may pass at once, in time at the full rate.
const BURST: Duration = Duration::from_secs(1);
/// When a refused agent may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What may be under way in this process at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of agents.
    pub connections: usize,
    /// Requests of all agents.
    pub requests: u32,
    /// For each agent.
    pub agent: Share,
    /// For each org, its agents together.
    pub org: Share,
    /// How slow a body or the reading of an answer may be.
    pub least_rate: LeastRate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // An idle one costs at most 64 KiB.
            connections: 10_000,
            // Far more than a machine serves well; it bounds memory when HTTP/2 connections fill up.
            requests: 50_000,
            agent: Share::default(),
            org: Share::default(),
            least_rate: LeastRate::default(),
        }
    }
}

/// What one agent, or one org, may have of this process. What is not set has no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Tunnels open at once.
    pub tunnels: Option<NonZeroU32>,
    /// Requests under way at once.
    pub requests: Option<NonZeroU32>,
    /// Bytes of bodies a second, both ways together. What is faster is slowed down.
    pub bytes_per_second: Option<NonZeroU32>,
}

impl Share {
    const fn is_unlimited(&self) -> bool {
        self.tunnels.is_none() && self.requests.is_none() && self.bytes_per_second.is_none()
    }
}

/// What is under way.
#[derive(Debug)]
pub(crate) struct Load {
    limits: Limits,
    requests: Arc<AtomicU32>,
    agents: Mutex<HashMap<AgentId, Arc<Account>>>,
    orgs: Mutex<HashMap<OrgId, Arc<Account>>>,
}

/// An agent and its org, as far as they have limits.
#[derive(Debug, Clone)]
pub(crate) struct Party {
    accounts: [Option<Arc<Account>>; 2],
}

/// What one of them has under way.
#[derive(Debug)]
struct Account {
    whose: Whose,
    share: Share,
    tunnels: AtomicU32,
    requests: AtomicU32,
    pace: Option<Pace>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Agent,
    Org,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Tunnel,
    Request,
}

/// A tunnel or request that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    party: Party,
    what: What,
    /// The count of all requests, where this is one.
    all: Option<Arc<AtomicU32>>,
}

impl Load {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            requests: Arc::default(),
            agents: Mutex::default(),
            orgs: Mutex::default(),
        }
    }

    pub(crate) const fn least_rate(&self) -> LeastRate {
        self.limits.least_rate
    }

    /// The accounts of a lease's holder; none of what has no limit.
    pub(crate) fn party(&self, lease: &VerifiedLease) -> Party {
        let Limits { agent, org, .. } = self.limits;
        let account = |whose, share: Share| move || Account::new(whose, share);
        let agent = (!agent.is_unlimited())
            .then(|| find(&self.agents, lease.agent(), account(Whose::Agent, agent)));
        let org =
            (!org.is_unlimited()).then(|| find(&self.orgs, lease.org(), account(Whose::Org, org)));
        Party {
            accounts: [agent, org],
        }
    }

    /// A place for a tunnel.
    pub(crate) fn tunnel(party: Party) -> Result<Place, Refusal> {
        Place::take(party, What::Tunnel, None)
    }

    /// A place for a request.
    pub(crate) fn request(&self, party: Party) -> Result<Place, Refusal> {
        if !enter(&self.requests, self.limits.requests) {
            let detail = format!(
                "{} requests are under way here, which is the limit (limits.requests); try again",
                self.limits.requests
            );
            return Err(refusal(Code::Overloaded, detail));
        }
        Place::take(party, What::Request, Some(Arc::clone(&self.requests)))
    }
}

fn find<Id: Hash + Eq + Clone>(
    accounts: &Mutex<HashMap<Id, Arc<Account>>>,
    id: &Id,
    open: impl FnOnce() -> Account,
) -> Arc<Account> {
    let mut accounts = accounts.lock();
    if let Some(account) = accounts.get(id) {
        return Arc::clone(account);
    }
    if accounts.len() >= KEPT {
        accounts.retain(|_, account| Arc::strong_count(account) > 1 || account.is_in_debt());
    }
    let account = Arc::new(open());
    accounts.insert(id.clone(), Arc::clone(&account));
    account
}

impl Place {
    fn take(party: Party, what: What, all: Option<Arc<AtomicU32>>) -> Result<Self, Refusal> {
        let full = party.accounts.iter().flatten().position(|account| {
            let (count, limit) = account.of(what);
            !enter(count, limit.map_or(u32::MAX, NonZeroU32::get))
        });
        let Some(full) = full else {
            return Ok(Self { party, what, all });
        };
        let refusal = party
            .accounts
            .iter()
            .flatten()
            .nth(full)
            .map(|account| account.refusal(what));
        for account in party.accounts.iter().flatten().take(full) {
            leave(account.of(what).0);
        }
        if let Some(all) = all {
            leave(&all);
        }
        Err(refusal.expect("it was found at this place"))
    }

    /// Counts bytes of a body, and says for how long they are to wait.
    pub(crate) fn pass(&self, bytes: usize) -> Option<Duration> {
        let accounts = self.party.accounts.iter().flatten();
        accounts
            .filter_map(|account| account.pace.as_ref()?.pass(bytes))
            .max()
    }

    pub(crate) const fn party(&self) -> &Party {
        &self.party
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for account in self.party.accounts.iter().flatten() {
            leave(account.of(self.what).0);
        }
        if let Some(all) = &self.all {
            leave(all);
        }
    }
}

/// Counts one more, unless that is too many.
fn enter(count: &AtomicU32, limit: u32) -> bool {
    let more = |count: u32| (count < limit).then(|| count + 1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        .is_ok()
}

fn leave(count: &AtomicU32) {
    count.fetch_sub(1, Ordering::Relaxed);
}

impl Account {
    fn new(whose: Whose, share: Share) -> Self {
        Self {
            whose,
            share,
            tunnels: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            pace: share.bytes_per_second.map(Pace::new),
        }
    }

    const fn of(&self, what: What) -> (&AtomicU32, Option<NonZeroU32>) {
        match what {
            What::Tunnel => (&self.tunnels, self.share.tunnels),
            What::Request => (&self.requests, self.share.requests),
        }
    }

    fn is_in_debt(&self) -> bool {
        self.pace.as_ref().is_some_and(Pace::is_in_debt)
    }

    fn refusal(&self, what: What) -> Refusal {
        let limit = self.of(what).1.map_or(u32::MAX, NonZeroU32::get);
        let (holder, key) = match self.whose {
            Whose::Agent => ("this agent", "agent"),
            Whose::Org => ("the agents of this org", "org"),
        };
        let (things, name) = match what {
            What::Tunnel => ("tunnels open", "tunnels"),
            What::Request => ("requests under way", "requests"),
        };
        let detail = format!(
            "{holder} may have {limit} {things} here at once (limits.{name}_per_{key}); end one and try again, or ask an operator for more"
        );
        refusal(Code::RateLimited, detail)
    }
}

fn refusal(code: Code, detail: String) -> Refusal {
    Refusal {
        retry_after: Some(RETRY_AFTER),
        ..Refusal::new(code, detail)
    }
}

/// A rate that a flow is held to: each part takes its time at the rate, behind those before it.
///
/// Parts have passed when they are counted, so this can be in debt, which a limiter of the `governor` crate cannot.
#[derive(Debug)]
struct Pace {
    bytes_per_second: NonZeroU32,
    since: Instant,
    /// When all that was counted has had its time, in nanoseconds from `since`.
    until: AtomicU64,
}

impl Pace {
    fn new(bytes_per_second: NonZeroU32) -> Self {
        Self {
            bytes_per_second,
            since: Instant::now(),
            until: AtomicU64::new(0),
        }
    }

    fn pass(&self, bytes: usize) -> Option<Duration> {
        self.pass_at(self.since.elapsed(), bytes)
    }

    fn pass_at(&self, now: Duration, bytes: usize) -> Option<Duration> {
        let cost = (bytes as u64).saturating_mul(NANOS) / u64::from(self.bytes_per_second.get());
        let now = nanos(now);
        let behind = |until: u64| Some(until.max(now).saturating_add(cost));
        let before = self
            .until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, behind)
            .expect("it is always given a value");
        let until = before.max(now).saturating_add(cost);
        let wait = until.saturating_sub(now.saturating_add(nanos(BURST)));
        (wait > 0).then(|| Duration::from_nanos(wait))
    }

    fn is_in_debt(&self) -> bool {
        self.until.load(Ordering::Relaxed) > nanos(self.since.elapsed())
    }
}

const NANOS: u64 = 1_000_000_000;

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use leases::MintRequest;

    use super::*;
    use crate::fixtures::{NOW, mint_request, verified};

    fn party(agent: &Share, org: &Share) -> Party {
        Party {
            accounts: [
                Some(Arc::new(Account::new(Whose::Agent, *agent))),
                Some(Arc::new(Account::new(Whose::Org, *org))),
            ],
        }
    }

    fn load(requests: u32) -> Load {
        Load::new(Limits {
            requests,
            ..Limits::default()
        })
    }

    fn share(tunnels: u32, requests: u32) -> Share {
        Share {
            tunnels: NonZeroU32::new(tunnels),
            requests: NonZeroU32::new(requests),
            bytes_per_second: None,
        }
    }

    #[test]
    fn a_place_is_given_back_when_it_is_dropped() {
        let (load, party) = (load(10), party(&share(2, 1), &Share::default()));
        let tunnels = [Load::tunnel(party.clone()), Load::tunnel(party.clone())];
        assert!(tunnels.iter().all(Result::is_ok));
        let refusal = Load::tunnel(party.clone()).unwrap_err();
        assert_eq!(refusal.code, Code::RateLimited);
        assert!(refusal.detail.contains("limits.tunnels_per_agent"));
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(1)));
        let request = load.request(party.clone()).unwrap();
        assert!(load.request(party.clone()).is_err());
        drop((tunnels, request));
        assert!(Load::tunnel(party.clone()).is_ok());
        assert!(load.request(party).is_ok());
    }

    #[test]
    fn a_place_refused_for_the_org_is_not_kept_from_the_agent_nor_from_all() {
        let (load, party) = (load(2), party(&share(9, 9), &share(1, 1)));
        let held = (Load::tunnel(party.clone()), load.request(party.clone()));
        for _ in 0..20 {
            let refusal = load.request(party.clone()).unwrap_err();
            assert!(refusal.detail.contains("limits.requests_per_org"));
            assert!(Load::tunnel(party.clone()).is_err());
        }
        drop(held);
        assert!(Load::tunnel(party.clone()).is_ok());
        assert!(load.request(party).is_ok());
        assert_eq!(load.requests.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn beyond_what_all_may_have_the_process_is_overloaded() {
        let load = load(1);
        let none = Party {
            accounts: [None, None],
        };
        let held = load.request(none.clone()).unwrap();
        assert_eq!(
            load.request(none.clone()).unwrap_err().code,
            Code::Overloaded
        );
        drop(held);
        assert!(load.request(none).is_ok());
    }

    #[test]
    fn a_flow_is_held_to_its_rate_after_a_burst() {
        let pace = Pace::new(NonZeroU32::new(1_000).unwrap());
        let at = Duration::from_millis;
        assert_eq!(pace.pass_at(at(0), 1_000), None);
        assert_eq!(pace.pass_at(at(0), 500), Some(at(500)));
        assert_eq!(pace.pass_at(at(500), 500), Some(at(500)));
        assert_eq!(pace.pass_at(at(10_000), 1_000), None);
        assert_eq!(pace.pass_at(at(10_000), 1), Some(at(1)));
    }

    #[test]
    fn what_has_a_limit_has_an_account_for_each_agent_and_for_its_org() {
        let lease = verified(&mint_request());
        for (agent, org) in [
            (share(1, 1), Share::default()),
            (Share::default(), share(1, 1)),
        ] {
            let load = Load::new(Limits {
                agent,
                org,
                ..Limits::default()
            });
            let held = load.request(load.party(&lease)).unwrap();
            let again = load.request(load.party(&lease)).unwrap_err();
            assert_eq!(again.code, Code::RateLimited, "{agent:?} {org:?}");
            let colleague = MintRequest {
                agent: AgentId::new(NOW),
                org: lease.org().clone(),
                ..mint_request()
            };
            let colleague = load.request(load.party(&verified(&colleague)));
            assert_eq!(colleague.is_ok(), org == Share::default(), "the same org's");
            let stranger = load.party(&verified(&mint_request()));
            assert!(load.request(stranger).is_ok(), "another org's");
            drop(held);
            assert!(load.request(load.party(&lease)).is_ok());
        }
    }

    #[test]
    fn a_body_waits_for_the_slower_of_its_agent_and_its_org() {
        let bytes = |rate: u32| Share {
            bytes_per_second: NonZeroU32::new(rate),
            ..Share::default()
        };
        let load = load(1);
        let (fast, slow) = (bytes(1_000_000), bytes(1_000));
        for (agent, org) in [(&fast, &slow), (&slow, &fast)] {
            let place = load.request(party(agent, org)).unwrap();
            assert_eq!(place.pass(1), None, "within the burst");
            let wait = place.pass(10_000).unwrap();
            let nine_seconds = Duration::from_secs(8)..Duration::from_secs(10);
            assert!(nine_seconds.contains(&wait), "{wait:?}");
        }
        let place = load
            .request(party(&share(1, 1), &Share::default()))
            .unwrap();
        assert_eq!(
            place.pass(1_000_000_000),
            None,
            "without a rate nothing waits"
        );
    }

    #[test]
    fn slowness_is_judged_by_the_rate_that_was_set() {
        let least_rate = LeastRate {
            bytes_per_second: None,
            over: Duration::from_secs(7),
        };
        let load = Load::new(Limits {
            least_rate,
            ..Limits::default()
        });
        assert_eq!(load.least_rate(), least_rate);
    }

    #[test]
    fn one_limit_is_a_limit() {
        let some = NonZeroU32::new(1);
        let none = Share::default();
        for share in [
            Share {
                tunnels: some,
                ..none
            },
            Share {
                requests: some,
                ..none
            },
            Share {
                bytes_per_second: some,
                ..none
            },
        ] {
            assert!(!share.is_unlimited(), "{share:?}");
        }
        let unlimited = Share {
            tunnels: None,
            requests: None,
            bytes_per_second: None,
        };
        assert!(unlimited.is_unlimited());
    }

    #[test]
    fn of_those_that_are_gone_only_debtors_are_remembered() {
        let slow = Share {
            bytes_per_second: NonZeroU32::new(1),
            ..Share::default()
        };
        let accounts = Mutex::default();
        let find = |id: usize| find(&accounts, &id, || Account::new(Whose::Agent, slow));
        let here = find(0);
        let debtor = find(1);
        debtor.pace.as_ref().unwrap().pass(1_000_000);
        drop(debtor);
        for id in 2..KEPT {
            find(id);
        }
        assert_eq!(accounts.lock().len(), KEPT, "few enough to keep all");
        find(KEPT);
        let kept = accounts.lock();
        assert!(kept.contains_key(&0) && kept.contains_key(&1));
        assert_eq!(kept.len(), 3, "those two and the last");
        assert_eq!(Arc::strong_count(&here), 2);
    }
}
