//! Pingora's phases, each calling one step. The reading order is the order of a request's life.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, MAX_FORWARDS, TE};
use http::{HeaderMap, HeaderValue, StatusCode};
use leases::approval::ApprovalRule;
use leases::authorize::Permit;
use leases::clock::Clock;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use providers::template::Template;
use providers::usage::Asking;
use store::Store;
use store::ledger::{RecordedUse, Refused, RequestFacts};

use crate::account;
use crate::answer::Asked;
use crate::authenticate::Authenticator;
use crate::body::{Held, HeldBodies};
use crate::context::{Link, RequestContext};
use crate::copy::Copying;
use crate::credential::Opener;
use crate::door;
use crate::form::FormNames;
use crate::head::{self, HeadError};
use crate::limits::Load;
use crate::meter::RefusalMeter;
use crate::metrics::Metrics;
use crate::normalize::{self, Target};
use crate::patience::too_slow;
use crate::refuse::{Code, Door, Refusal};
use crate::scrub::{ResponseScrub, clean_fields};
use crate::served::Served;
use crate::setback::Setbacks;
use crate::spend::{Budgeted, Spending};
use crate::stream::chunk_error;
use crate::upstream::{Protocol, UpstreamTimeouts, Upstreams};
use crate::watch::Watcher;
use crate::{answer, approval, body, inject, permit, record, spend, upstream};

/// How long an idle connection from an agent is kept, in seconds.
const KEEPALIVE: u64 = 60;
/// How long a single read or write on the agent's side may stall.
const DOWNSTREAM_STALL: Duration = Duration::from_mins(1);
/// The same for a WebSocket, which may be silent for long.
const UPGRADED_STALL: Duration = Duration::from_hours(1);
/// How long the rest of a refused request's body is read, so that the agent sees the answer.
const DRAIN: Duration = Duration::from_secs(5);
/// How much of a refused request's body is worth reading to keep the connection.
const DRAINED_BODY: u64 = 1024 * 1024;

/// The request path.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Store,
    pub(crate) authenticator: Authenticator,
    pub(crate) catalog: tokio::sync::watch::Receiver<Arc<providers::catalog::Catalog>>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) setbacks: Setbacks,
    pub(crate) opener: Opener,
    pub(crate) watcher: Arc<Watcher>,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: RefusalMeter,
    pub(crate) timeouts: UpstreamTimeouts,
    pub(crate) held_bodies: HeldBodies,
    pub(crate) load: Load,
    pub(crate) budgeted: Budgeted,
}

impl Pipeline {
    /// Steps 1 to 7 up to the open credential. What returns `Ok` may be forwarded.
    async fn admit(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<(), Refusal> {
        if is_h2(session) {
            check_h2_head(session)?;
        }
        let now = self.clock.now();
        let mut target = door::enter(self, session, ctx)?;
        self.mask_path(&mut target, ctx);
        let method = session.req_header().method.as_str().to_owned();
        let client = ctx
            .link()
            .map_or_else(door::unlinked, |link| Ok(link.client))?;
        ctx.target = Some(target);
        let target = ctx.target.as_ref().expect("set above");
        let lease = ctx
            .lease
            .as_ref()
            .expect("the door lets nobody in without a lease");
        if ctx.door != Door::Inside {
            door::check_standing(&self.store, lease, None, now).await?;
        }
        let permit = permit::permit(lease, target, &method, client, now)?;
        let tunnel = ctx.link().and_then(|link| link.tunnel.as_ref());
        let served = Served::of(&permit, tunnel, || self.template(&permit));
        served.check_denials(&permit, target, &method)?;
        let copying = Copying {
            permit: &permit,
            served: &served,
            target,
            method: &session.req_header().method,
            headers: &session.req_header().headers,
            client_ip: client,
        };
        copying.check(now)?;
        normalize::check_named_method(target.query.as_deref(), &method)?;
        if target.has_encoded_slash {
            target.check_encoded_slash(served.template())?;
        }
        check_max_forwards(&session.req_header().headers)?;
        check_upgrade(session, ctx)?;
        let form = FormNames::of(session.req_header())?;
        inject::check_nominations(&session.req_header().headers, None)?;
        let party = match tunnel {
            Some(tunnel) => tunnel.place.party().clone(),
            None => self.load.party(lease),
        };
        ctx.place = Some(self.load.request(party)?);
        ctx.addresses = Some(self.upstreams.addresses(&target.host, target.port).await?);
        let facts = ctx.facts(&method);
        let template = served.template();
        let asks = |rule: &&ApprovalRule| rule.asks(&method);
        let rule = permit.binding().scope.approval.as_ref().filter(asks);
        if rule.is_some() {
            // Nobody is to be asked for what the ledger would refuse all the same.
            let binding = Some(permit.binding());
            door::check_standing(&self.store, lease, binding, now).await?;
        }
        let asked = (template, method.as_str());
        let held = self.early_body(session, &permit, rule, asked).await?;
        let approval = match (rule, &held) {
            (Some(rule), Some(body)) => {
                let request = session.req_header();
                let request = approval::Request {
                    method: &request.method,
                    target,
                    headers: &request.headers,
                    body,
                };
                Some(approval::find(&self.store, &permit, rule, template, &request, &facts).await?)
            }
            _ => None,
        };
        let asking = Asking {
            method: &method,
            path: &target.path,
            body: held.as_ref().map(Held::bytes),
            length: declared_length(session),
        };
        let estimate = spend::estimate(&self.catalog.borrow(), template, &asking);
        (ctx.held_body, ctx.held_room) = held.map(Held::into_parts).unwrap_or_default();
        (ctx.form, ctx.permit) = (form, Some(permit));
        let permit = ctx.permit.as_ref().expect("set above");
        let keys = served.usable_keys();
        record::count(&self.store, permit).await?;
        let ledger = self.store.ledger();
        let used = record::record_use(ledger, permit, keys, approval, estimate, facts).await?;
        ctx.used = Some(used);
        let used = ctx.used.as_ref().expect("set above");
        self.budgeted
            .note(&permit.binding().grant, used.hold().is_some());
        ctx.spending = self.spending(used, template, &method);
        check_metered(session, ctx)?;
        let credential = self.opener.open(used, permit, target).await;
        let credential = credential.map_err(|refusal| refusal.after_use(lease))?;
        inject::check_nominations(&session.req_header().headers, Some(&credential.plan))?;
        inject::check_placeholders(&session.req_header().headers, &credential.plan, target)?;
        ctx.credential = Some(credential);
        body::hold_if_signed(&self.held_bodies, session, ctx, now).await
    }

    /// Reads the body of a request of which more has to be known than its head, before the use is recorded: what a person approves, and
    /// what it may spend of a budget. `None` if nothing has to be known, or nothing could be.
    async fn early_body(
        &self,
        session: &mut Session,
        permit: &Permit,
        rule: Option<&ApprovalRule>,
        (template, method): (Option<&Template>, &str),
    ) -> Result<Option<Held>, Refusal> {
        if rule.is_some() {
            let held = body::hold_for_approval(&self.held_bodies, session).await?;
            return Ok(Some(held));
        }
        if spend::is_told_by_body(template, method)
            && self.budgeted.may_hold(&permit.binding().grant)
        {
            return body::hold_for_estimate(&self.held_bodies, session).await;
        }
        Ok(None)
    }

    /// What a use spends, if it holds part of a budget.
    pub(crate) fn spending(
        &self,
        used: &RecordedUse,
        template: Option<&Template>,
        method: &str,
    ) -> Option<Spending> {
        let hold = used.hold()?;
        Some(Spending::new(
            hold,
            &self.catalog.borrow(),
            template,
            method,
        ))
    }

    /// Puts `*` in place of what stands in a path's slot, before policy sees the path. A `custom` set's template is not
    /// known yet: there policy and audit see what the agent wrote, which is no secret either.
    fn mask_path(&self, target: &mut Target, ctx: &RequestContext) {
        let tunnel = ctx.link().and_then(|link| link.tunnel.as_ref());
        let Some(tunnel) = tunnel else {
            let host = target.host.to_shared();
            return target.mask(self.catalog.borrow().with_path_slots(&host));
        };
        let templates = tunnel.path_slots.get_or_init(|| {
            let catalog = self.catalog.borrow();
            let templates = catalog.with_path_slots(target.host.as_str());
            templates.map(Arc::clone).collect()
        });
        target.mask(templates.iter());
    }

    /// The provider's template; a `custom` set has none here.
    pub(crate) fn template(&self, permit: &Permit) -> Option<Arc<Template>> {
        self.catalog.borrow().get(&permit.binding().provider)
    }

    /// Answers with a refusal and records it. The connection is kept where nothing of the request is left unread.
    async fn refuse(&self, session: &mut Session, ctx: &mut RequestContext, refusal: Refusal) {
        let (head, body) = refusal.respond(ctx.door, &ctx.request_id);
        ctx.status = Some(head.status.as_u16());
        self.record_refusal(session, ctx, &refusal).await;
        ctx.refusal = Some(refusal);
        if is_answered(session) {
            return;
        }
        let unread = !session.is_body_done()
            && declared_length(session).is_none_or(|length| length > DRAINED_BODY);
        // Behind a CONNECT the bytes have no framing, so nothing after it can be read as a request.
        if unread || session.req_header().method == http::Method::CONNECT {
            session.set_keepalive(None);
        }
        let is_head = session.req_header().method == http::Method::HEAD;
        let sent = match session.write_response_header(Box::new(head), is_head).await {
            Ok(()) if !is_head => session.write_response_body(Some(body), true).await,
            other => other,
        };
        if sent.is_err() {
            session.set_keepalive(None);
        }
    }

    /// Refusals that the ledger did not decide itself are recorded here, and those after a use as its outcome.
    async fn record_refusal(&self, session: &Session, ctx: &RequestContext, refusal: &Refusal) {
        // The permit is noted right before the ledger is asked.
        if ctx.permit.is_some() {
            return;
        }
        let Some(lease) = &ctx.lease else {
            return;
        };
        let refused = Refused {
            org: lease.org().clone(),
            error: refusal.code.as_str().to_owned(),
            agent: Some(lease.agent().clone()),
            lease: Some(lease.lease().clone()),
            set: None,
            grant: None,
            request: RequestFacts {
                address: refusal.address,
                ..ctx.facts(session.req_header().method.as_str())
            },
        };
        self.write_refusal(refused).await;
    }

    /// Commits a refusal's record, within what its lease may write.
    pub(crate) async fn write_refusal(&self, refused: Refused) {
        if refused
            .lease
            .as_ref()
            .is_some_and(|lease| !self.refusals.admits(lease))
        {
            self.metrics.unrecorded_refusals.inc();
            return;
        }
        let request_id = refused.request.request_id.clone();
        if let Err(error) = self.store.ledger().record_refusal(refused).await {
            tracing::error!(request.id = request_id, %error, "a refusal could not be recorded");
        }
    }

    /// Ends this send of the request if it is to be sent again; Pingora then asks for a peer once more.
    async fn hear_401(
        &self,
        session: &mut Session,
        head: &ResponseHeader,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        let end = match self.turned_down(session, head, ctx).await {
            Ok(false) => return Ok(()),
            Ok(true) => "to be sent again",
            Err(refusal) => {
                ctx.refusal = Some(refusal);
                "no new credential"
            }
        };
        Err(Error::explain(ErrorType::InternalError, end).into_up())
    }

    fn watch(&self, ctx: &mut RequestContext) {
        if ctx.watched.is_some() {
            return;
        }
        if let (Some(lease), Some(link)) = (&ctx.lease, ctx.link()) {
            let permit = ctx.permit.as_ref();
            ctx.watched = Some(self.watcher.watch(lease, permit, &link.cut));
        }
    }
}

/// Ends a request amid its body, of which the rest does not leave.
fn refuse_body(ctx: &mut RequestContext, refusal: Refusal) -> pingora::Result<()> {
    ctx.refusal = Some(refusal);
    // It is the agent's: with another source, Pingora waits for an HTTP/2 upstream to answer what never ends.
    Err(Error::explain(ErrorType::InternalError, "the body is refused").into_down())
}

/// The pipeline as Pingora owns it: shared with the listener's front.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub(crate) Arc<Pipeline>);

impl std::ops::Deref for Shared {
    type Target = Pipeline;

    fn deref(&self) -> &Pipeline {
        &self.0
    }
}

#[async_trait]
impl ProxyHttp for Shared {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new(leases::request_id(self.clock.now()))
    }

    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {
        // No module: compression beside a secret tells of it (BREACH), and caching crosses agents.
    }

    async fn early_request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        ctx.link = Link::of(session);
        if let Some(known) = ctx.link().and_then(|link| link.request_id.clone()) {
            ctx.request_id = known;
        }
        // An agent's own `Keep-Alive: timeout=` may not lengthen ours, and without one Pingora waits for ever.
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(KEEPALIVE));
        }
        let stall = if session.is_upgrade_req() {
            UPGRADED_STALL
        } else {
            DOWNSTREAM_STALL
        };
        session.set_read_timeout(Some(stall));
        session.set_write_timeout(Some(stall));
        session.set_total_drain_timeout(Some(DRAIN));
        Ok(())
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> pingora::Result<bool> {
        match self.admit(session, ctx).await {
            Ok(()) => Ok(false),
            Err(refusal) => {
                self.refuse(session, ctx, refusal).await;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> pingora::Result<Box<HttpPeer>> {
        let (Some(target), Some(addresses), Some(permit)) =
            (&ctx.target, &ctx.addresses, &ctx.permit)
        else {
            return Err(Error::explain(ErrorType::InternalError, "no permit"));
        };
        let attempt = if ctx.upstream_h2_only {
            ctx.attempts - 1
        } else {
            ctx.attempts
        };
        let address = addresses
            .get(attempt as usize)
            .ok_or_else(|| Error::explain(ErrorType::ConnectError, "no address is left to try"))?;
        let protocol = if ctx.upstream_h2_only {
            Protocol::Http2Only
        } else if is_h2(session) {
            Protocol::Http2
        } else if session.is_upgrade_req() {
            Protocol::WebSocket
        } else {
            Protocol::Http1
        };
        ctx.attempts += 1;
        ctx.dialled = Some(address);
        let group = account::group(permit.lease().org());
        let mut peer = upstream::peer(
            address,
            target.scheme,
            &target.host,
            protocol,
            group,
            self.timeouts,
        );
        let credential = ctx.credential.as_ref();
        if let Some(client) = credential.and_then(|c| c.client(target.host.as_str())) {
            client.present(&mut peer);
        }
        let to = (&target.host, target.port);
        self.upstreams
            .route(&mut peer, addresses, to, protocol, self.timeouts);
        if protocol == Protocol::Http2 {
            let way = self
                .setbacks
                .way(peer.group_key, target.host.as_str(), target.port);
            peer.group_key = self.setbacks.group(peer.group_key, way, Instant::now());
            ctx.h2_way = Some(way);
        }
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        let (Some(credential), Some(target), Some(_recorded)) =
            (&ctx.credential, &ctx.target, &ctx.used)
        else {
            return Err(Error::explain(ErrorType::InternalError, "no recorded use"));
        };
        if request.version == http::Version::HTTP_2 && wants_trailers(session) {
            // Pingora takes it for hop-by-hop, as it is in HTTP/1; gRPC servers ask for it.
            request.insert_header(TE, "trailers")?;
        }
        let now = self.clock.now();
        let injected = inject::inject(
            request,
            &credential.plan,
            target,
            ctx.signing.as_ref(),
            session.is_upgrade_req(),
            now,
        );
        ctx.streamed_body = injected.map_err(|refusal| {
            ctx.refusal = Some(refusal);
            Error::explain(ErrorType::InternalError, "refused at injection")
        })?;
        // A body that is signed anew as it passes has the length that the signature says.
        if let Some(body) = &ctx.held_body
            && ctx.streamed_body.is_none()
        {
            inject::set_length(request, body);
        }
        let body = ctx.held_body.as_deref().unwrap_or_default();
        inject::sign_hmacs(request, &credential.plan, target, body, now);
        if let Some(spending) = &mut ctx.spending {
            spending.send();
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        if let Some(held) = ctx.held_body.take() {
            *body = Some(held);
        }
        if let Some(form) = &mut ctx.form
            && let Err(refusal) = form.read(body.as_deref(), end)
        {
            return refuse_body(ctx, refusal);
        }
        if let Some(streamed) = &mut ctx.streamed_body {
            match body::restream(streamed, body.take(), end) {
                Ok(signed) => *body = Some(signed),
                Err(refusal) => return refuse_body(ctx, refusal),
            }
        }
        if !end {
            self.watch(ctx);
        }
        if let Some(wait) = pace(ctx, body.as_ref()) {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        head: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> pingora::Result<()> {
        if head.status == StatusCode::UNAUTHORIZED {
            self.hear_401(session, head, ctx).await?;
        }
        let Some(credential) = &ctx.credential else {
            return Err(Error::explain(ErrorType::InternalError, "no credential"));
        };
        let asked = Asked {
            upgrade: session.is_upgrade_req(),
            part: credential.plan.sigv4().is_some(),
        };
        answer::check(head, asked).map_err(|refusal| {
            ctx.refusal = Some(refusal);
            Error::explain(ErrorType::InvalidHTTPHeader, "the answer is odd").into_up()
        })?;
        answer::drop_hop_by_hop(head);
        answer::drop_cookies(head, &credential.plan);
        let is_upgrade = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let has_body = session.req_header().method != http::Method::HEAD
            && !matches!(
                head.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let scrub = ResponseScrub::begin(head, &credential.plan, is_upgrade, has_body).map_err(
            |refusal| {
                ctx.refusal = Some(refusal);
                Error::explain(ErrorType::InternalError, "the answer is withheld").into_up()
            },
        )?;
        ctx.scrub = Some(scrub);
        ctx.tell_masked();
        if let Some(spending) = &mut ctx.spending {
            spending.begin(head);
        }
        ctx.status = Some(head.status.as_u16());
        if is_upgrade {
            // A WebSocket may stay silent for long, and must not outlive its lease meanwhile.
            self.watch(ctx);
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut RequestContext,
    ) -> pingora::Result<Option<Duration>> {
        if !end {
            self.watch(ctx);
        }
        if let Some(scrub) = &mut ctx.scrub {
            *body = scrub.body(body.take(), end).map_err(|refusal| {
                ctx.refusal = Some(refusal);
                Error::explain(
                    ErrorType::InternalError,
                    "the rest of the answer is withheld",
                )
                .into_up()
            })?;
        }
        ctx.tell_masked();
        if let Some(spending) = &mut ctx.spending {
            spending.part(body.as_ref(), end);
        }
        Ok(pace(ctx, body.as_ref()))
    }

    async fn response_trailer_filter(
        &self,
        _: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut RequestContext,
    ) -> pingora::Result<Option<Bytes>> {
        if let Some(credential) = &ctx.credential {
            answer::drop_trailing_cookies(trailers, &credential.plan);
            let found = clean_fields(trailers, credential.plan.scrubber());
            if let Some(scrub) = &mut ctx.scrub {
                scrub.count(found);
            }
        }
        // Pingora sends what is returned here in the trailers' place; only an answer whose last bytes look like the
        // beginning of the credential needs it.
        let rest = ctx.scrub.as_mut().map_or(Ok(None), ResponseScrub::rest);
        let rest = rest.map_err(|refusal| {
            ctx.refusal = Some(refusal);
            Error::explain(
                ErrorType::InternalError,
                "the rest of the answer is withheld",
            )
            .into_up()
        })?;
        ctx.tell_masked();
        if let Some(spending) = &mut ctx.spending {
            spending.part(rest.as_ref(), true);
        }
        Ok(rest)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        _: &mut Session,
        mut error: Box<Error>,
        ctx: &mut RequestContext,
        _: bool,
    ) -> Box<Error> {
        // A provider that asks for HTTP/1.1 (`HTTP_1_1_REQUIRED`) is another case, and keeps it.
        if let (ErrorType::InvalidH2, Some(way)) = (error.etype(), ctx.h2_way) {
            self.setbacks.note(way, Instant::now());
        }
        // One use is at most one send (threats.md A20). Bytes may have left by now, so nothing is tried again but as another use.
        error.set_retry(ctx.resend.take());
        error
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        ctx: &mut RequestContext,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Nothing was sent yet, so the next checked address may be tried.
        let tls = matches!(
            error.etype(),
            ErrorType::TLSHandshakeFailure | ErrorType::HandshakeError
        );
        if tls && !ctx.upstream_h2_only && upstream::wants_h2(&error) {
            ctx.upstream_h2_only = true;
            error.set_retry(true);
        } else {
            let more = ctx
                .addresses
                .as_ref()
                .is_some_and(|a| a.get(ctx.attempts as usize).is_some());
            error.set_retry(more && !ctx.upstream_h2_only && upstream::is_connect_failure(&error));
        }
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut RequestContext,
    ) -> FailToProxy {
        let refusal = ctx.refusal.take().unwrap_or_else(|| {
            if let Some(odd) = chunk_error(error) {
                odd.into()
            } else if let Some(slow) = too_slow(error) {
                slow.into()
            } else if account::is_agent_gone(error) {
                Refusal::new(
                    Code::AgentGone,
                    "the agent closed its connection before the end",
                )
            } else {
                upstream::refusal(error)
            }
        });
        let status = refusal.status(ctx.door);
        if account::is_agent_gone(error) || is_answered(session) {
            ctx.refusal = Some(refusal);
        } else {
            self.refuse(session, ctx, refusal).await;
            if !session.is_body_done() {
                // What is left unread must not reset the connection under the answer.
                session.as_downstream_mut().shutdown().await;
            }
        }
        FailToProxy {
            error_code: status,
            can_reuse_downstream: false,
        }
    }

    async fn logging(
        &self,
        session: &mut Session,
        error: Option<&Error>,
        ctx: &mut RequestContext,
    ) {
        if let Some(code) = ctx
            .watched
            .as_ref()
            .and_then(crate::watch::Watched::cut_for)
        {
            ctx.refusal = Some(Refusal::new(
                code,
                "the lease ended while its answer was streaming",
            ));
        }
        let (up, down) = (
            session.body_bytes_read() as u64,
            session.body_bytes_sent() as u64,
        );
        record::record_outcome(self.store.ledger(), &self.metrics, ctx, up, down);
        account::finish(&self.metrics, session, ctx, error);
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestContext, _: &Error) -> bool {
        // The one line a request is written by `account`; Pingora's would carry the target's query.
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &RequestContext,
        _: &Error,
        _: pingora::proxy::ProxyWarnLogContext,
    ) -> bool {
        true
    }

    fn request_summary(&self, _: &Session, ctx: &RequestContext) -> String {
        format!("request {}", ctx.request_id)
    }
}

/// How long a part of a body waits for the rate of its agent or org.
fn pace(ctx: &RequestContext, part: Option<&Bytes>) -> Option<Duration> {
    ctx.place.as_ref()?.pass(part?.len())
}

/// Whether the agent speaks HTTP/2. Pingora's own question is about its own sessions.
fn is_h2(session: &Session) -> bool {
    session.req_header().version == http::Version::HTTP_2
}

/// Whether the agent takes trailers, over HTTP/2, where that may be said end to end.
fn wants_trailers(session: &Session) -> bool {
    let te = session.req_header().headers.get(TE);
    is_h2(session) && te.is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// Whether a final answer, or the switch to another protocol, went out.
fn is_answered(session: &Session) -> bool {
    session.response_written().is_some_and(|head| {
        !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS
    })
}

/// The bounds on an HTTP/2 head. An HTTP/1 head was read, strictly, before Pingora saw it.
fn check_h2_head(session: &Session) -> Result<(), Refusal> {
    if session.req_header().headers.len() > head::MAX_FIELDS {
        return Err(HeadError::TooLarge.into());
    }
    let mut names = session.req_header().headers.keys();
    if names.any(|name| head::is_framing_twin(name.as_str().as_bytes())) {
        return Err(HeadError::FramingTwin.into());
    }
    check_h2_length(&session.req_header().headers)?;
    let target = session
        .req_header()
        .uri
        .path_and_query()
        .map_or(0, |p| p.as_str().len());
    if target > head::MAX_TARGET {
        return Err(HeadError::TargetTooLong.into());
    }
    Ok(())
}

/// The `h2` library judges the lengths that it can read, and leaves the others to us: to a provider that speaks HTTP/1.1 they
/// would frame the body.
fn check_h2_length(headers: &HeaderMap) -> Result<(), HeadError> {
    let mut lengths = headers.get_all(http::header::CONTENT_LENGTH).iter();
    let is_plain = lengths
        .next()
        .is_none_or(|length| head::content_length(length.as_bytes()).is_some());
    if is_plain && lengths.next().is_none() {
        return Ok(());
    }
    Err(HeadError::ContentLength)
}

/// A request that may go no further asks for us and not for the provider (RFC 9110 section 7.6.2), and would show what we
/// add to it.
fn check_max_forwards(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_last = |value: &HeaderValue| value.as_bytes().iter().all(|digit| *digit == b'0');
    if headers.get_all(MAX_FORWARDS).iter().any(is_last) {
        return Err(Refusal::new(
            Code::MethodNotAllowed,
            "Max-Forwards: 0 ends here, and nothing is answered to it; leave the field out",
        ));
    }
    Ok(())
}

/// Only WebSocket upgrades pass; a request that asks for another is refused, not stripped of the wish.
fn check_upgrade(session: &Session, ctx: &RequestContext) -> Result<(), Refusal> {
    let headers = &session.req_header().headers;
    let Some(upgrade) = headers.get(http::header::UPGRADE) else {
        return Ok(());
    };
    let is_websocket = upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")
        && session.req_header().method == http::Method::GET
        && headers.get_all(http::header::UPGRADE).iter().count() == 1;
    if is_websocket && !is_h2(session) && ctx.target.is_some() {
        return check_handshake(headers);
    }
    Err(Refusal::new(
        Code::UpgradeDenied,
        "only WebSocket upgrades are proxied; send the request without Upgrade",
    ))
}

/// A provider that took less than the whole handshake (RFC 6455 section 4.2.1) for one would speak frames to an agent that
/// expects none, or the other way round.
fn check_handshake(headers: &HeaderMap) -> Result<(), Refusal> {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    let asks = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let has_key = one("sec-websocket-key").is_some_and(|key| {
        let key = STANDARD.decode(key.as_bytes().trim_ascii());
        key.is_ok_and(|key| key.len() == 16)
    });
    let is_13 = one("sec-websocket-version").is_some_and(|version| version == "13");
    if asks && has_key && is_13 {
        return Ok(());
    }
    Err(Refusal::new(
        Code::AmbiguousRequest,
        "the WebSocket handshake is not whole; send `Connection: Upgrade`, one Sec-WebSocket-Key of 16 bytes and `Sec-WebSocket-Version: 13`",
    ))
}

/// A WebSocket tells nothing of its cost while it is open, so that it could spend any number of budgets.
fn check_metered(session: &Session, ctx: &RequestContext) -> Result<(), Refusal> {
    if ctx.spending.is_some() && session.is_upgrade_req() {
        return Err(Refusal::new(
            Code::UpgradeDenied,
            "this grant has a budget, and what a WebSocket costs cannot be told; use requests, or ask for a grant without `spend`",
        ));
    }
    Ok(())
}

/// The body's length where the head tells it; zero when there is none.
fn declared_length(session: &Session) -> Option<u64> {
    let headers = &session.req_header().headers;
    if headers.contains_key(http::header::TRANSFER_ENCODING) {
        return None;
    }
    match headers.get(http::header::CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok(),
        None if is_h2(session) => None,
        None => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_handshake_is_whole_or_none() {
        const WHOLE: [(&str, &str); 3] = [
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ];
        let check = |fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_str(value).unwrap());
            }
            check_handshake(&headers).map_err(|refusal| refusal.code)
        };
        assert_eq!(check(&WHOLE), Ok(()));
        for (place, value) in [
            (0, "keep-alive"),
            (0, "upgraded"),
            (1, ""),
            (1, "dGhlIHNhbXBsZQ=="),
            (1, "not base64"),
            (2, "12"),
            (2, "13, 8"),
        ] {
            let mut fields = WHOLE;
            fields[place].1 = value;
            assert_eq!(check(&fields), Err(Code::AmbiguousRequest), "{value:?}");
            let without: Vec<_> = WHOLE
                .iter()
                .copied()
                .filter(|field| field.0 != WHOLE[place].0)
                .collect();
            assert_eq!(check(&without), Err(Code::AmbiguousRequest), "{place}");
            if place > 0 {
                let twice = [&WHOLE[..], &WHOLE[place..=place]].concat();
                assert_eq!(check(&twice), Err(Code::AmbiguousRequest), "{place}");
            }
        }
    }

    #[test]
    fn an_http2_length_has_one_spelling_as_in_http1() {
        let check = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("content-length", HeaderValue::from_static(value));
            }
            check_h2_length(&headers)
        };
        for values in [&[][..], &["0"], &["5"], &["18446744073709551615"]] {
            assert_eq!(check(values), Ok(()), "{values:?}");
        }
        for values in [
            &[""][..],
            &["00"],
            &["005"],
            &["+5"],
            &["5,5"],
            &["18446744073709551616"],
            &["5", "5"],
            &["5", ""],
        ] {
            assert_eq!(check(values), Err(HeadError::ContentLength), "{values:?}");
        }
    }
}
