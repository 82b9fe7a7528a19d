//! A 401 to a credential that was made: it is made anew, and a request that may be repeated is sent once more.
//!
//! One use is at most one send (threats.md A20), so what is sent again is another use: decided, counted and recorded by the
//! ledger before it leaves, under the same request id. What only one use allows, a lease for one request or a person's approval,
//! is not sent again.

use http::Method;
use leases::authorize::Permit;
use leases::scope::Kind;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use providers::usage::Asking;

use crate::context::RequestContext;
use crate::pipeline::Pipeline;
use crate::record;
use crate::refuse::Refusal;
use crate::served::Served;
use crate::spend;

/// Whether a request is sent a second time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resend {
    /// Not by now.
    #[default]
    Open,
    /// As soon as Pingora has put the first answer away.
    Due,
    /// It was; there is no third time.
    Done,
}

impl Resend {
    /// Whether it is due, which is told once.
    pub(crate) fn take(&mut self) -> bool {
        let is_due = *self == Self::Due;
        if is_due {
            *self = Self::Done;
        }
        is_due
    }
}

impl Pipeline {
    /// Hears that the provider answered 401, and gives the credential up if it was made and is not new itself. `true` if the
    /// request is to be sent again: then that is recorded, and the context holds the new use and its credential.
    pub(crate) async fn turned_down(
        &self,
        session: &mut Session,
        answer: &ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<bool, Refusal> {
        let (Some(used), Some(permit), Some(target), Some(credential)) =
            (&ctx.used, &ctx.permit, &ctx.target, &ctx.credential)
        else {
            return Ok(false);
        };
        let is_given_up = self.opener.give_up(used, permit, credential);
        if !is_given_up || ctx.resend != Resend::Open || !may_repeat(session, permit) {
            return Ok(false);
        }
        let method = session.req_header().method.as_str();
        let tunnel = ctx.link().and_then(|link| link.tunnel.as_ref());
        let served = Served::of(permit, tunnel, || self.template(permit));
        let template = served.template();
        let asking = Asking {
            method,
            path: &target.path,
            body: None,
            length: Some(0),
        };
        let estimate = spend::estimate(&self.catalog.borrow(), template, &asking);
        let ledger = self.store.ledger();
        let again = async {
            record::count(&self.store, permit).await?;
            let (keys, facts) = (served.usable_keys(), ctx.facts(method));
            record::record_use(ledger, permit, keys, None, estimate, facts).await
        };
        // Where another use is refused, the agent gets the 401.
        let Ok(again) = again.await else {
            return Ok(false);
        };
        let spending = self.spending(&again, template, method);
        let opened = self.opener.open(&again, permit, target).await;
        if let Some(spending) = &mut ctx.spending {
            spending.begin(answer);
            spending.part(None, true);
        }
        ctx.status = Some(answer.status.as_u16());
        record::record_outcome(ledger, &self.metrics, ctx, 0, 0);
        (ctx.used, ctx.spending, ctx.status) = (Some(again), spending, None);
        ctx.credential = Some(opened?);
        // The addresses are tried from the first on.
        ctx.attempts = u32::from(ctx.upstream_h2_only);
        ctx.resend = Resend::Due;
        Ok(true)
    }
}

/// Whether a request may be sent twice: its method is idempotent (RFC 9110 section 9.2.2), it has no body that would have to be
/// kept, and neither its lease nor an approval is for one use.
fn may_repeat(session: &mut Session, permit: &Permit) -> bool {
    let method = &session.req_header().method;
    let is_idempotent = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(method);
    let rule = permit.binding().scope.approval.as_ref();
    let is_approved = rule.is_some_and(|rule| rule.asks(method.as_str()));
    is_idempotent
        && !is_approved
        && permit.lease().kind() == Kind::Workflow
        && session.is_body_empty()
        && !session.is_upgrade_req()
}
