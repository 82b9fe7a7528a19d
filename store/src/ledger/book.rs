//! The rows that decide about uses, and the decision.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use ::leases::RevocationId;
use ::leases::id::{AgentId, ApprovalId, GrantId, LeaseId, OrgId, SetId};
use ::leases::scope::Kind;

use super::budget::{Budget, Spending, Window as BudgetWindow};
use super::queue::Waiting;
use super::{Hold, Holding, Outcome, UseRefusal, UseRequest};
use crate::timekeeper::{at, millis};

/// Rows kept between batches; above this they are read anew.
const MAX_ROWS: usize = 8_192;

/// Where the rows come from, and where a single use is used up.
pub(super) trait Rows {
    /// Why a row cannot be read.
    type Error;

    fn lease(&mut self, id: &LeaseId) -> Result<Option<LeaseRow>, Self::Error>;
    fn agent(&mut self, id: &AgentId) -> Result<Option<AgentRow>, Self::Error>;
    fn set(&mut self, id: &SetId) -> Result<Option<SetRow>, Self::Error>;
    fn grant(&mut self, id: &GrantId) -> Result<Option<GrantRow>, Self::Error>;
    /// When a block was revoked on its own.
    fn block(&mut self, id: &RevocationId, org: &OrgId) -> Result<Option<i64>, Self::Error>;
    /// Uses up a single-use lease; false if it was used before.
    fn consume(&mut self, lease: &LeaseId) -> Result<bool, Self::Error>;
    /// Uses up an approval that is good at `now`; false if there is none of this id, or no longer.
    fn use_approval(&mut self, id: &ApprovalId, org: &OrgId, now: i64)
    -> Result<bool, Self::Error>;
}

/// The rows read so far, and the decision.
///
/// Rows are kept from batch to batch for as long as the version they stand on is the database's: a
/// number that changes whenever a row may have changed. It is compared in the transaction that
/// records what was decided, so that this is always decided by the rows as they stand then.
#[derive(Debug, Default)]
pub(super) struct Book {
    version: Option<i64>,
    has_revoked_blocks: bool,
    leases: HashMap<LeaseId, Option<LeaseRow>>,
    agents: HashMap<AgentId, Option<AgentRow>>,
    sets: HashMap<SetId, Option<SetRow>>,
    grants: HashMap<GrantId, Option<GrantRow>>,
    blocks: HashMap<RevocationId, Option<i64>>,
    /// Grants whose windows this batch changed.
    counted: Vec<Counted>,
    /// What this batch does to budgets.
    spending: Spending,
    /// Single-use leases that this batch used up.
    consumed: Vec<LeaseId>,
    /// Approvals that this batch used up.
    approved: Vec<ApprovalId>,
    /// Approvals that somebody else used up.
    gone: HashSet<ApprovalId>,
    /// The earliest end of what this batch allowed.
    good_until: i64,
    /// The latest time that a rate's window may begin at, if there is a better clock than this machine's.
    latest_window: Option<i64>,
}

#[derive(Debug)]
pub(super) struct LeaseRow {
    pub(super) org: String,
    pub(super) agent: String,
    pub(super) is_single_use: bool,
    pub(super) expires_at: i64,
    pub(super) revoked_at: Option<i64>,
    pub(super) uses: i64,
    /// The number of the last cut-off before it was minted.
    pub(super) cut_off: i64,
}

#[derive(Debug)]
pub(super) struct AgentRow {
    pub(super) org: String,
    pub(super) is_active: bool,
    pub(super) cut_off: CutOff,
}

/// The latest revocation of everything that an agent is under: leases with a lower number are revoked.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct CutOff {
    pub(super) number: i64,
    pub(super) at: i64,
}

#[derive(Debug)]
pub(super) struct SetRow {
    pub(super) org: String,
    pub(super) version: i64,
    pub(super) is_deleted: bool,
    /// Names of the current version's entries, sorted.
    pub(super) keys: Arc<[String]>,
}

/// What is opened for a use that is allowed.
#[derive(Debug)]
pub(super) struct Opening {
    /// The version of the secret set.
    pub(super) version: u64,
    /// Names of its entries among those that the request may use.
    pub(super) keys: Arc<[String]>,
    /// What the use holds of its grant's budget.
    pub(super) hold: Option<Hold>,
}

#[derive(Debug)]
pub(super) struct GrantRow {
    pub(super) org: String,
    pub(super) agent: String,
    pub(super) set: String,
    pub(super) expires_at: Option<i64>,
    pub(super) is_revoked: bool,
    /// So many requests in so many milliseconds.
    pub(super) rate: Option<(i64, i64)>,
    pub(super) window: Window,
    pub(super) budget: Option<Budget>,
}

/// The current window of a rate: when it began and how many uses it has.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Window {
    pub(super) started_at: i64,
    pub(super) used: i64,
}

/// What a batch did to a grant's window.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) grant: GrantId,
    /// How many uses it counted.
    pub(super) uses: i64,
    before: Window,
}

/// Ids of rows that decide about uses and are not kept.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) leases: HashSet<LeaseId>,
    pub(super) agents: HashSet<AgentId>,
    pub(super) sets: HashSet<SetId>,
    pub(super) grants: HashSet<GrantId>,
    pub(super) blocks: HashSet<RevocationId>,
}

impl Wanted {
    /// What decides about these jobs and is not kept.
    pub(super) fn missing(book: &Book, waiting: &[Waiting]) -> Self {
        let mut wanted = Self::default();
        for request in uses(waiting) {
            book.want(request, &mut wanted);
        }
        wanted
    }

    /// What tells the standing of a lease.
    pub(super) fn of_holding(holding: &Holding<'_>) -> Self {
        Self {
            leases: [holding.lease.clone()].into(),
            agents: [holding.agent.clone()].into(),
            sets: holding.set.cloned().into_iter().collect(),
            grants: holding.grant.cloned().into_iter().collect(),
            blocks: holding.revocation_ids.iter().copied().collect(),
        }
    }

    /// All that decides about these jobs.
    pub(super) fn all(book: &Book, waiting: &[Waiting]) -> Self {
        let mut wanted = Self::default();
        for request in uses(waiting) {
            wanted.leases.insert(request.lease.clone());
            wanted.agents.insert(request.agent.clone());
            wanted.sets.insert(request.set.clone());
            wanted.grants.insert(request.grant.clone());
            if book.has_revoked_blocks {
                wanted.blocks.extend(request.revocation_ids.iter().copied());
            }
        }
        wanted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty()
            && self.agents.is_empty()
            && self.sets.is_empty()
            && self.grants.is_empty()
            && self.blocks.is_empty()
    }
}

impl Book {
    /// Forgets everything, after a transaction that was rolled back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether the rows kept stand on `version`, and are few enough to go on with.
    pub(super) fn stands_on(&self, version: i64) -> bool {
        let rows = [
            self.leases.len(),
            self.agents.len(),
            self.sets.len(),
            self.grants.len(),
            self.blocks.len(),
            self.gone.len(),
        ];
        self.version == Some(version) && rows.iter().sum::<usize>() < MAX_ROWS
    }

    /// Forgets all rows and begins anew on `version`.
    pub(super) fn begin(&mut self, version: i64, has_revoked_blocks: bool) {
        self.clear();
        self.version = Some(version);
        self.has_revoked_blocks = has_revoked_blocks;
    }

    /// Windows begin no later than at `latest`, whatever the time is.
    pub(super) const fn begin_windows_by(&mut self, latest: i64) {
        self.latest_window = Some(latest);
    }

    /// To be called first for each batch.
    pub(super) fn begin_batch(&mut self) {
        self.counted.clear();
        self.spending.clear();
        self.consumed.clear();
        self.approved.clear();
        self.good_until = i64::MAX;
    }

    /// Decides about a use, and counts it if it is allowed.
    pub(super) fn decide<R: Rows>(
        &mut self,
        rows: &mut R,
        request: &UseRequest,
        now: i64,
    ) -> Result<Result<Opening, UseRefusal>, R::Error> {
        if let Err(refusal) = self.check_lease(rows, request, now)? {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.check_agent(rows, request)? {
            return Ok(Err(refusal));
        }
        let mut opening = match self.check_set(rows, request)? {
            Ok(opening) => opening,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Err(refusal) = self.check_grant(rows, request, now)? {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.use_approval(rows, request, now)? {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.consume(rows, request)? {
            return Ok(Err(refusal));
        }
        self.count(request, now);
        opening.hold = self.hold(request, now);
        self.note_end(request);
        Ok(Ok(opening))
    }

    /// The windows that this batch changed.
    pub(super) fn windows(&self) -> impl Iterator<Item = (&Counted, &GrantRow)> {
        self.counted.iter().filter_map(|counted| {
            let row = self.grants.get(&counted.grant)?.as_ref()?;
            Some((counted, row))
        })
    }

    fn check_lease<R: Rows>(
        &mut self,
        rows: &mut R,
        request: &UseRequest,
        now: i64,
    ) -> Result<Result<(), UseRefusal>, R::Error> {
        let row = kept(&mut self.leases, &request.lease, || {
            rows.lease(&request.lease)
        })?;
        let Some(lease) = row.as_ref() else {
            return Ok(Err(UseRefusal::Unknown));
        };
        // A genuine token that does not match its row is as unknown as one without a row.
        if lease.org != request.org.as_str() || lease.agent != request.agent.as_str() {
            return Ok(Err(UseRefusal::Unknown));
        }
        if let Some(revoked_at) = lease.revoked_at {
            let at = at(revoked_at);
            return Ok(Err(UseRefusal::LeaseRevoked { at }));
        }
        let ends_at = at(lease.expires_at).min(request.expires_at);
        let is_used_up = is_single_use(lease, request) && lease.uses > 0;
        if let Some(revoked_at) = self.revoked_block(rows, request)? {
            let at = at(revoked_at);
            return Ok(Err(UseRefusal::LeaseRevoked { at }));
        }
        if ends_at <= at(now) {
            return Ok(Err(UseRefusal::LeaseExpired { at: ends_at }));
        }
        if is_used_up {
            return Ok(Err(UseRefusal::LeaseConsumed));
        }
        Ok(Ok(()))
    }

    /// When any block of the token was revoked on its own.
    fn revoked_block<R: Rows>(
        &mut self,
        rows: &mut R,
        request: &UseRequest,
    ) -> Result<Option<i64>, R::Error> {
        if !self.has_revoked_blocks {
            return Ok(None);
        }
        for block in request.revocation_ids.iter() {
            let revoked_at = *kept(&mut self.blocks, block, || rows.block(block, &request.org))?;
            if revoked_at.is_some() {
                return Ok(revoked_at);
            }
        }
        Ok(None)
    }

    fn check_agent<R: Rows>(
        &mut self,
        rows: &mut R,
        request: &UseRequest,
    ) -> Result<Result<(), UseRefusal>, R::Error> {
        let row = kept(&mut self.agents, &request.agent, || {
            rows.agent(&request.agent)
        })?;
        let agent = row
            .as_ref()
            .filter(|agent| agent.is_active && agent.org == request.org.as_str());
        let Some(agent) = agent else {
            return Ok(Err(UseRefusal::AgentInactive));
        };
        let lease = self.leases.get(&request.lease).and_then(Option::as_ref);
        if lease.is_some_and(|lease| lease.cut_off >= agent.cut_off.number) {
            return Ok(Ok(()));
        }
        let at = at(agent.cut_off.at);
        Ok(Err(UseRefusal::LeaseRevoked { at }))
    }

    fn check_set<R: Rows>(
        &mut self,
        rows: &mut R,
        request: &UseRequest,
    ) -> Result<Result<Opening, UseRefusal>, R::Error> {
        let row = kept(&mut self.sets, &request.set, || rows.set(&request.set))?;
        let opening = row
            .as_ref()
            .filter(|set| !set.is_deleted && set.org == request.org.as_str())
            .and_then(|set| {
                Some(Opening {
                    version: u64::try_from(set.version).ok()?,
                    keys: set.named(&request.keys),
                    hold: None,
                })
            });
        Ok(opening.ok_or(UseRefusal::SetGone))
    }

    fn check_grant<R: Rows>(
        &mut self,
        rows: &mut R,
        request: &UseRequest,
        now: i64,
    ) -> Result<Result<(), UseRefusal>, R::Error> {
        let row = kept(&mut self.grants, &request.grant, || {
            rows.grant(&request.grant)
        })?;
        let grant = row.as_ref().filter(|grant| {
            !grant.is_revoked
                && grant.org == request.org.as_str()
                && grant.agent == request.agent.as_str()
                && grant.set == request.set.as_str()
        });
        let Some(grant) = grant else {
            return Ok(Err(UseRefusal::GrantRevoked));
        };
        if grant.expires_at.is_some_and(|ends_at| ends_at <= now) {
            return Ok(Err(UseRefusal::GrantExpired));
        }
        let now = self.latest_window.map_or(now, |latest| now.min(latest));
        if let Some(Err(over)) = grant.budget.as_ref().map(|budget| budget.check(now)) {
            return Ok(Err(UseRefusal::SpendExceeded(over)));
        }
        let Some((requests, per_ms)) = grant.rate else {
            return Ok(Ok(()));
        };
        let window = grant.window.at(now, per_ms);
        if window.used < requests {
            return Ok(Ok(()));
        }
        let left = window.started_at.saturating_add(per_ms) - now;
        Ok(Err(UseRefusal::RateLimited {
            retry_after: Duration::from_millis(u64::try_from(left).unwrap_or(0)),
        }))
    }

    /// Uses up the request's approval. It comes before the lease, of which is known by now that it is not used: a use that is
    /// refused for its approval leaves the lease as it is.
    fn use_approval<R: Rows>(
        &mut self,
        rows: &mut R,
        request: &UseRequest,
        now: i64,
    ) -> Result<Result<(), UseRefusal>, R::Error> {
        let Some(approval) = &request.approval else {
            return Ok(Ok(()));
        };
        let id = &approval.id;
        if approval.expires_at <= at(now)
            || self.gone.contains(id)
            || self.approved.contains(id)
            || !rows.use_approval(id, &request.org, now)?
        {
            return Ok(Err(UseRefusal::ApprovalGone));
        }
        self.approved.push(id.clone());
        Ok(Ok(()))
    }

    /// Uses up a single-use lease. The statement's own condition decides, whatever is remembered.
    fn consume<R: Rows>(
        &mut self,
        rows: &mut R,
        request: &UseRequest,
    ) -> Result<Result<(), UseRefusal>, R::Error> {
        let Some(Some(lease)) = self.leases.get_mut(&request.lease) else {
            return Ok(Err(UseRefusal::Unknown));
        };
        if !is_single_use(lease, request) {
            return Ok(Ok(()));
        }
        lease.uses += 1;
        if !rows.consume(&request.lease)? {
            return Ok(Err(UseRefusal::LeaseConsumed));
        }
        self.consumed.push(request.lease.clone());
        Ok(Ok(()))
    }

    /// Counts a use in its grant's window.
    fn count(&mut self, request: &UseRequest, now: i64) {
        let Some(Some(grant)) = self.grants.get_mut(&request.grant) else {
            return;
        };
        let Some((_, per_ms)) = grant.rate else {
            return;
        };
        let now = self.latest_window.map_or(now, |latest| now.min(latest));
        let before = grant.window;
        grant.window = before.at(now, per_ms);
        grant.window.used += 1;
        let known = self.counted.iter_mut();
        match known.rev().find(|counted| counted.grant == request.grant) {
            Some(counted) => counted.uses += 1,
            None => self.counted.push(Counted {
                grant: request.grant.clone(),
                uses: 1,
                before,
            }),
        }
    }

    /// Holds what a use may spend of its grant's budget.
    fn hold(&mut self, request: &UseRequest, now: i64) -> Option<Hold> {
        let grant = self.grants.get_mut(&request.grant)?.as_mut()?;
        let budget = grant.budget.as_mut()?;
        let now = self.latest_window.map_or(now, |latest| now.min(latest));
        let spending = &mut self.spending;
        Some(spending.hold(&request.grant, budget, request.estimate, now))
    }

    /// Counts what a use spent in place of what it held. To be called before the batch's uses are decided.
    pub(super) fn settle<R: Rows>(
        &mut self,
        rows: &mut R,
        outcome: &Outcome,
    ) -> Result<(), R::Error> {
        let Some(settled) = &outcome.spent else {
            return Ok(());
        };
        let grant = &outcome.grant;
        let row = kept(&mut self.grants, grant, || rows.grant(grant))?;
        let budget = row.as_mut().and_then(|row| row.budget.as_mut());
        self.spending.settle(grant, budget, settled);
        Ok(())
    }

    /// What this batch does to budgets.
    pub(super) const fn spending(&self) -> &Spending {
        &self.spending
    }

    /// The windows of budgets that this batch changed.
    pub(super) fn budget_windows(&self) -> impl Iterator<Item = (&GrantId, &BudgetWindow)> {
        self.spending.grants().filter_map(|grant| {
            let row = self.grants.get(grant)?.as_ref()?;
            Some((grant, &row.budget.as_ref()?.window))
        })
    }

    /// The windows of budgets as all nodes share them.
    pub(super) fn set_budget_windows(
        &mut self,
        windows: impl IntoIterator<Item = (GrantId, BudgetWindow)>,
    ) {
        for (grant, window) in windows {
            let row = self.grants.get_mut(&grant).and_then(Option::as_mut);
            if let Some(budget) = row.and_then(|row| row.budget.as_mut()) {
                budget.window = window;
            }
        }
    }

    /// Remembers when a use that was allowed would no longer be.
    fn note_end(&mut self, request: &UseRequest) {
        let lease = self.leases.get(&request.lease).and_then(Option::as_ref);
        let grant = self.grants.get(&request.grant).and_then(Option::as_ref);
        let ends = [
            Some(millis(request.expires_at)),
            lease.map(|lease| lease.expires_at),
            grant.and_then(|grant| grant.expires_at),
            request
                .approval
                .as_ref()
                .map(|approval| millis(approval.expires_at)),
        ];
        let earliest = ends.into_iter().flatten().min().unwrap_or(i64::MAX);
        self.good_until = self.good_until.min(earliest);
    }
}

fn uses(waiting: &[Waiting]) -> impl Iterator<Item = &UseRequest> {
    waiting.iter().filter_map(|job| match job {
        Waiting::Use(request, _) => Some(request),
        Waiting::Refusal(..) | Waiting::Probe(_) => None,
    })
}

/// What a database needs that decides first and checks later.
impl Book {
    /// The version that the rows stand on.
    pub(super) const fn version(&self) -> Option<i64> {
        self.version
    }

    /// Forgets all if it is too much.
    pub(super) fn bound(&mut self) {
        if !self.version.is_some_and(|version| self.stands_on(version)) {
            self.clear();
        }
    }

    /// Forgets the grants of these jobs of whose budgets nothing is left but what uses under way hold: they may have given
    /// it back on another node. What was spent stays spent.
    pub(super) fn forget_held(&mut self, waiting: &[Waiting], now: i64) {
        for request in uses(waiting) {
            let row = self.grants.get(&request.grant).and_then(Option::as_ref);
            let budget = row.and_then(|row| row.budget.as_ref());
            let over = budget.and_then(|budget| budget.check(now).err());
            if over.is_some_and(|over| over.spent < over.limit) {
                self.grants.remove(&request.grant);
            }
        }
    }

    /// Adds what decides about a use and is not kept.
    fn want(&self, request: &UseRequest, wanted: &mut Wanted) {
        want(&self.leases, &request.lease, &mut wanted.leases);
        want(&self.agents, &request.agent, &mut wanted.agents);
        want(&self.sets, &request.set, &mut wanted.sets);
        want(&self.grants, &request.grant, &mut wanted.grants);
        if self.has_revoked_blocks || self.version.is_none() {
            for block in request.revocation_ids.iter() {
                want(&self.blocks, block, &mut wanted.blocks);
            }
        }
    }

    /// Remembers, until [`Book::forget_absent`], that what is not among the rows read is not there.
    pub(super) fn keep_absent(&mut self, asked: &Wanted) {
        absent(&mut self.leases, &asked.leases);
        absent(&mut self.agents, &asked.agents);
        absent(&mut self.sets, &asked.sets);
        absent(&mut self.grants, &asked.grants);
        absent(&mut self.blocks, &asked.blocks);
    }

    /// Remembers which blocks are not revoked. Unlike other absence it lasts, since a revocation changes the version.
    pub(super) fn keep_whole_blocks(&mut self, asked: &Wanted) {
        absent(&mut self.blocks, &asked.blocks);
    }

    /// Keeps rows that were read on the version of this book.
    pub(super) fn keep(&mut self, row: Read) {
        match row {
            Read::Lease(id, row) => drop(self.leases.insert(id, Some(row))),
            Read::Agent(id, row) => drop(self.agents.insert(id, Some(row))),
            Read::Set(id, row) => drop(self.sets.insert(id, Some(row))),
            Read::Grant(id, row) => drop(self.grants.insert(id, Some(row))),
            Read::Block(id, revoked_at) => drop(self.blocks.insert(id, revoked_at)),
        }
    }

    /// Forgets which rows are absent: making one does not change the version.
    pub(super) fn forget_absent(&mut self) {
        self.leases.retain(|_, row| row.is_some());
        self.agents.retain(|_, row| row.is_some());
        self.sets.retain(|_, row| row.is_some());
        self.grants.retain(|_, row| row.is_some());
    }

    /// Takes back what the last batch used up and counted, since it was not committed.
    pub(super) fn take_back(&mut self) {
        for lease in self.consumed.drain(..) {
            if let Some(Some(row)) = self.leases.get_mut(&lease) {
                row.uses -= 1;
            }
        }
        self.approved.clear();
        for counted in self.counted.drain(..) {
            if let Some(Some(row)) = self.grants.get_mut(&counted.grant) {
                row.window = counted.before;
            }
        }
        let before = self.spending.take_back();
        self.set_budget_windows(before);
    }

    /// Single-use leases that this batch uses up.
    pub(super) fn consumed(&self) -> &[LeaseId] {
        &self.consumed
    }

    /// Approvals that this batch uses up.
    pub(super) fn approved(&self) -> &[ApprovalId] {
        &self.approved
    }

    /// Somebody else used these approvals.
    pub(super) fn approvals_gone(&mut self, ids: Vec<ApprovalId>) {
        self.gone.extend(ids);
    }

    /// The earliest end of what this batch allows.
    pub(super) const fn good_until(&self) -> i64 {
        self.good_until
    }

    /// Somebody else used this lease.
    pub(super) fn was_used(&mut self, lease: &LeaseId) {
        if let Some(Some(row)) = self.leases.get_mut(lease) {
            row.uses = row.uses.max(1);
        }
    }

    /// The windows of grants as all nodes share them.
    pub(super) fn set_windows(&mut self, windows: Vec<(GrantId, i64, i64)>) {
        for (grant, started_at, used) in windows {
            if let Some(Some(row)) = self.grants.get_mut(&grant) {
                row.window = Window { started_at, used };
            }
        }
    }
}

/// A row that was read.
#[derive(Debug)]
pub(super) enum Read {
    Lease(LeaseId, LeaseRow),
    Agent(AgentId, AgentRow),
    Set(SetId, SetRow),
    Grant(GrantId, GrantRow),
    /// When the block was revoked, if it was.
    Block(RevocationId, Option<i64>),
}

fn want<K: Clone + Eq + Hash, V>(rows: &HashMap<K, V>, key: &K, wanted: &mut HashSet<K>) {
    if !rows.contains_key(key) {
        wanted.insert(key.clone());
    }
}

impl SetRow {
    /// The names of the set that are among `usable`, or all when nothing is said.
    fn named(&self, usable: &[String]) -> Arc<[String]> {
        let is_usable = |key: &&String| usable.is_empty() || usable.contains(key);
        if self.keys.iter().all(|key| is_usable(&key)) {
            return Arc::clone(&self.keys);
        }
        self.keys.iter().filter(is_usable).cloned().collect()
    }
}

impl Window {
    /// The window as it stands at `now`: a new one if the last is over or none began.
    const fn at(self, now: i64, per_ms: i64) -> Self {
        if self.used == 0 || now >= self.started_at.saturating_add(per_ms) {
            Self {
                started_at: now,
                used: 0,
            }
        } else {
            self
        }
    }
}

/// Row and token agree unless one was tampered with; then the stricter holds.
fn is_single_use(lease: &LeaseRow, request: &UseRequest) -> bool {
    lease.is_single_use || request.kind == Kind::Request
}

/// The row of `key`, loaded if it is not there yet.
fn kept<'a, K: Clone + Eq + Hash, V, E>(
    rows: &'a mut HashMap<K, V>,
    key: &K,
    load: impl FnOnce() -> Result<V, E>,
) -> Result<&'a mut V, E> {
    if !rows.contains_key(key) {
        rows.insert(key.clone(), load()?);
    }
    Ok(rows.get_mut(key).expect("inserted above if it was missing"))
}

fn absent<K: Clone + Eq + Hash, V>(rows: &mut HashMap<K, Option<V>>, asked: &HashSet<K>) {
    for key in asked {
        if !rows.contains_key(key) {
            rows.insert(key.clone(), None);
        }
    }
}
