//! Step 5: the use is committed before anything is sent, and its end is committed after.

use std::sync::Arc;

use leases::authorize::Permit;
use store::ledger::{ApprovedUse, Ledger, Outcome, RecordedUse, RequestFacts, UseRequest};
use store::{Amount, Store};

use crate::context::RequestContext;
use crate::metrics::Metrics;
use crate::refuse::{Code, Refusal};

/// Counts the request for its organisation, and refuses it when the month's requests are used up. In memory: nothing is written.
pub(crate) async fn count(store: &Store, permit: &Permit) -> Result<(), Refusal> {
    let lease = permit.lease();
    let counted = store.requests().admit(lease.org(), false).await;
    let counted = counted.map_err(|error| {
        tracing::error!(lease.id = %lease.lease(), %error, "the organisation's requests could not be asked for");
        Refusal::new(
            Code::LedgerUnavailable,
            "the organisation's requests could not be counted; try again, and see /v1/health",
        )
    })?;
    counted.map(|_| ()).map_err(|over| {
        let next = "this month's are used up; ask the operator for more";
        Refusal::new(Code::ResourceLimitExceeded, format!("{over}; {next}"))
    })
}

/// Asks the ledger to re-check the lease, count and record the use. What comes back is committed.
pub(crate) async fn record_use(
    ledger: &Ledger,
    permit: &Permit,
    keys: Arc<[String]>,
    approval: Option<ApprovedUse>,
    estimate: Amount,
    request: RequestFacts,
) -> Result<RecordedUse, Refusal> {
    let lease = permit.lease();
    let binding = permit.binding();
    let request = UseRequest {
        org: lease.org().clone(),
        lease: lease.lease().clone(),
        agent: lease.agent().clone(),
        set: binding.set.clone(),
        grant: binding.grant.clone(),
        kind: lease.kind(),
        action: permit.action(),
        revocation_ids: lease.shared_revocation_ids(),
        expires_at: lease.effective_expiry(),
        keys,
        approval,
        estimate,
        request,
    };
    Ok(ledger.record_use(request).await?)
}

/// Queues how a recorded use ended.
pub(crate) fn record_outcome(
    ledger: &Ledger,
    metrics: &Metrics,
    ctx: &RequestContext,
    bytes_up: u64,
    bytes_down: u64,
) {
    let (Some(used), Some(permit)) = (&ctx.used, &ctx.permit) else {
        return;
    };
    let (lease, binding) = (permit.lease(), permit.binding());
    let spent = ctx.spending.as_ref().map(|spending| {
        let (settled, charge) = spending.settle(bytes_up);
        metrics.count_tokens(spending.provider(), charge);
        settled
    });
    ledger.record_outcome(Outcome {
        use_id: used.use_id().clone(),
        org: lease.org().clone(),
        lease: lease.lease().clone(),
        agent: lease.agent().clone(),
        set: binding.set.clone(),
        grant: binding.grant.clone(),
        request_id: ctx.request_id.clone(),
        status: ctx.status,
        error: ctx
            .refusal
            .as_ref()
            .map(|refusal| refusal.code.as_str().to_owned()),
        bytes_up,
        bytes_down,
        duration_ms: u64::try_from(ctx.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        attempts: ctx.attempts,
        address: ctx.dialled.map(|address| address.ip()),
        spent,
        reflections: ctx.reflections() as u64,
    });
}
