//! Step 5a: what a grant lets pass only with a person's approval. The approval is looked for, or asked for; the ledger uses
//! it up together with the use.

mod head;

use std::time::Duration;

use http::{HeaderMap, Method};
use leases::approval::ApprovalRule;
use leases::authorize::Permit;
use leases::id::ApprovalId;
use providers::template::Template;
use store::approvals::{Approval, ApprovalStatus, AskError, Asked};
use store::ledger::{ApprovedUse, RequestFacts};
use store::{Actor, ActorKind, Store};

use crate::body::Held;
use crate::normalize::Target;
use crate::refuse::{Code, Refusal};

/// When an agent may ask again whether it was decided.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What a refusal names of the approval that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) id: ApprovalId,
    pub(crate) status: ApprovalStatus,
}

/// A request as it came, of which all that goes on is bound.
#[derive(Debug)]
pub(crate) struct Request<'r> {
    pub(crate) method: &'r Method,
    pub(crate) target: &'r Target,
    pub(crate) headers: &'r HeaderMap,
    pub(crate) body: &'r Held,
}

/// The approval of exactly this request. Without one, the request is put up for a decision and refused.
pub(crate) async fn find(
    store: &Store,
    permit: &Permit,
    rule: &ApprovalRule,
    template: Option<&Template>,
    request: &Request<'_>,
    facts: &RequestFacts,
) -> Result<ApprovedUse, Refusal> {
    let (lease, binding) = (permit.lease(), permit.binding());
    let target = request.target;
    let body = request.body.digest();
    let head = head::read(request, template);
    let asked = Asked {
        agent: lease.agent().clone(),
        grant: binding.grant.clone(),
        set: binding.set.clone(),
        lease: lease.lease().clone(),
        method: facts.method.clone(),
        scheme: facts.scheme,
        host: facts.host.to_string(),
        port: facts.port,
        path: facts.path.clone(),
        path_as_sent: target.written.to_string(),
        query: target.query.as_deref().map(str::to_owned),
        body_sha256: body.sha256,
        body_bytes: body.bytes,
        head_sha256: head.sha256,
        head: head.shown,
        pending: Duration::from_secs(rule.pending_seconds.into()),
        ttl: Duration::from_secs(rule.ttl_seconds.into()),
    };
    let actor = Actor {
        kind: ActorKind::Agent,
        id: lease.agent().to_string(),
        client_ip: Some(facts.client_ip),
        request_id: Some(facts.request_id.clone()),
    };
    let approval = store
        .approvals()
        .ask(lease.org(), &asked, &actor)
        .await
        .map_err(not_asked)?;
    if approval.status == ApprovalStatus::Approved {
        return Ok(ApprovedUse {
            id: approval.id,
            expires_at: approval.expires_at,
        });
    }
    Err(missing(approval))
}

fn missing(approval: Approval) -> Refusal {
    let request = format!("{} {}{}", approval.method, approval.host, approval.path);
    let id = &approval.id;
    let (detail, retry_after) = if approval.status == ApprovalStatus::Rejected {
        let reason = approval.reason.as_deref();
        let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
        let detail = format!(
            "{request} was rejected{reason}, see GET /v1/approvals/{id}; do without it, or talk to the person who decided"
        );
        (detail, None)
    } else {
        let detail = format!(
            "{request} waits for a person's approval: `claviger approval approve {id}` (POST /v1/approvals/{id}/approve); \
             send the same request, with the same head and body, once it is approved"
        );
        (detail, Some(ASK_AGAIN))
    };
    Refusal {
        retry_after,
        approval: Some(Missing {
            id: approval.id,
            status: approval.status,
        }),
        ..Refusal::new(Code::ApprovalRequired, detail)
    }
}

fn not_asked(error: AskError) -> Refusal {
    match error {
        AskError::TooMany { retry_after } => Refusal {
            retry_after: Some(retry_after),
            ..Refusal::new(
                Code::ApprovalLimit,
                format!("{error}; have some of them decided, or wait as Retry-After says"),
            )
        },
        error => {
            tracing::error!(%error, "a request could not be put up for approval");
            Refusal {
                retry_after: Some(Duration::from_secs(2)),
                ..Refusal::new(
                    Code::LedgerUnavailable,
                    "the request could not be put up for approval, so nothing was forwarded; try again, and see /v1/health",
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use store::approvals::{MAX_PENDING, Verdict};

    use super::*;
    use crate::fixtures::{CHARGES, World, facts, person, target};

    async fn ask(world: &World, body: &str) -> Result<ApprovedUse, Refusal> {
        let (rule, target) = (ApprovalRule::default(), target(CHARGES));
        let request = Request {
            method: &Method::POST,
            target: &target,
            headers: &HeaderMap::new(),
            body: &Held::of(Bytes::copy_from_slice(body.as_bytes())),
        };
        let permit = world.permit();
        find(&world.store, &permit, &rule, None, &request, &facts()).await
    }

    async fn decide(world: &World, id: &ApprovalId, verdict: Verdict, reason: Option<&str>) {
        let (approvals, org) = (world.store.approvals(), world.lease.org());
        let decided = approvals.decide(org, id, verdict, reason, &person()).await;
        assert!(decided.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_request_waits_for_its_approval_and_for_no_other() {
        let world = World::new().await;
        let refusal = ask(&world, "amount=1").await.unwrap_err();
        let missing = refusal.approval.clone().unwrap();
        assert_eq!(refusal.code, Code::ApprovalRequired);
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(5)));
        assert_eq!(missing.status, ApprovalStatus::Pending);
        let said = [
            "POST api.stripe.com/v1/charges waits for a person's approval".to_owned(),
            format!("`claviger approval approve {}`", missing.id),
        ];
        assert!(
            said.iter().all(|said| refusal.detail.contains(said)),
            "{}",
            refusal.detail
        );

        decide(&world, &missing.id, Verdict::Approve, None).await;
        assert_eq!(ask(&world, "amount=1").await.unwrap().id, missing.id);
        let other = ask(&world, "amount=1000")
            .await
            .unwrap_err()
            .approval
            .unwrap();
        assert_ne!(other.id, missing.id);
    }

    #[tokio::test]
    async fn who_was_rejected_is_told_why_and_not_to_try_again() {
        let world = World::new().await;
        let missing = ask(&world, "").await.unwrap_err().approval.unwrap();
        decide(&world, &missing.id, Verdict::Reject, Some("too much")).await;
        let refusal = ask(&world, "").await.unwrap_err();
        assert_eq!(refusal.approval.unwrap().status, ApprovalStatus::Rejected);
        assert_eq!(refusal.retry_after, None);
        assert!(
            refusal.detail.contains("was rejected (too much)"),
            "{}",
            refusal.detail
        );
    }

    #[tokio::test]
    async fn an_agent_puts_up_so_many_requests_and_no_more() {
        let world = World::new().await;
        for number in 0..MAX_PENDING {
            let refusal = ask(&world, &number.to_string()).await.unwrap_err();
            assert_eq!(refusal.code, Code::ApprovalRequired, "{number}");
        }
        let refusal = ask(&world, "one more").await.unwrap_err();
        assert_eq!(refusal.code, Code::ApprovalLimit);
        assert!(refusal.retry_after.is_some() && refusal.approval.is_none());
        world.store.close().await;
        let refusal = ask(&world, "one more").await.unwrap_err();
        assert_eq!(refusal.code, Code::LedgerUnavailable);
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(2)));
    }
}
