//! Step 5: the use is committed before anything is sent, and its end is committed after.

use std::sync::Arc;

use leases::authorize::Permit;
use leases::scope::Keys;
use providers::template::Template;
use store::ledger::{Ledger, Outcome, RecordedUse, RequestFacts, UseRequest};

use crate::context::{RequestContext, Tunnel};
use crate::refuse::Refusal;

/// Asks the ledger to re-check the lease, count and record the use. What comes back is committed.
pub(crate) async fn record_use(
    ledger: &Ledger,
    permit: &Permit,
    keys: Arc<[String]>,
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
        request,
    };
    Ok(ledger.record_use(request).await?)
}

/// The names that may be used: what the template sends, of what the grant allows. Empty means all, which is what a
/// `custom` set says of itself. The ledger records those of them that the set has.
///
/// `template` is asked for once a tunnel: one host is one set of its lease.
pub(crate) fn usable_keys(
    permit: &Permit,
    tunnel: Option<&Tunnel>,
    template: impl Fn() -> Option<Arc<Template>>,
) -> Arc<[String]> {
    let binding = permit.binding();
    let usable = || usable(&binding.keys, template().as_deref());
    let Some(tunnel) = tunnel else {
        return usable();
    };
    let (set, keys) = tunnel
        .usable_keys
        .get_or_init(|| (binding.set.clone(), usable()));
    if *set == binding.set {
        return Arc::clone(keys);
    }
    usable()
}

fn usable(allowed: &Keys, template: Option<&Template>) -> Arc<[String]> {
    let sent = template.map(Template::sent_keys);
    match (allowed, sent) {
        (Keys::All, None) => Arc::from([]),
        (Keys::All, Some(sent)) => sent.into(),
        (Keys::Only(names), None) => names.as_slice().into(),
        (Keys::Only(names), Some(sent)) => {
            sent.into_iter().filter(|key| names.contains(key)).collect()
        }
    }
}

/// Queues how a recorded use ended.
pub(crate) fn record_outcome(
    ledger: &Ledger,
    ctx: &RequestContext,
    bytes_up: u64,
    bytes_down: u64,
) {
    let (Some(used), Some(permit)) = (&ctx.used, &ctx.permit) else {
        return;
    };
    let (lease, binding) = (permit.lease(), permit.binding());
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
    });
}
