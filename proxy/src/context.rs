//! What one request has learned so far. Each step fills its part, and the end reads all of them.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use leases::authorize::Permit;
use leases::verify::VerifiedLease;
use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::Session;
use providers::inject::sigv4::{AgentScope, PayloadHash, StreamedBody};
use providers::template::Template;
use store::ledger::{RecordedUse, RequestFacts};
use tokio::sync::OwnedSemaphorePermit;

use crate::credential::Credential;
use crate::form::FormNames;
use crate::limits::Place;
use crate::normalize::{Endpoint, Target, scheme_name};
use crate::refuse::{Door, Refusal};
use crate::resend::Resend;
use crate::scrub::ResponseScrub;
use crate::served::Served;
use crate::spend::Spending;
use crate::stream::Cut;
use crate::upstream::Addresses;
use crate::watch::Watched;

/// The connection that a request came over.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: IpAddr,
    pub(crate) cut: Arc<Cut>,
    pub(crate) tunnel: Option<Tunnel>,
    /// The id that its request has already, where another plane handed it in.
    pub(crate) request_id: Option<String>,
    /// Where that plane is told how often the credential was masked in the answer.
    pub(crate) masked: Option<Arc<AtomicUsize>>,
    /// What Host said in the request under way, where Pingora was given the absolute target's spelling of it.
    pub(crate) host_as_sent: Mutex<Option<String>>,
}

/// A tunnel that a lease opened to one endpoint.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) endpoint: Endpoint,
    pub(crate) lease: Arc<VerifiedLease>,
    /// What it takes up of its holder's limits.
    pub(crate) place: Place,
    /// What serves its requests: one host is one set of the lease.
    pub(crate) served: OnceLock<Arc<Served>>,
    /// The templates that put a credential into paths of its host; mostly none.
    pub(crate) path_slots: OnceLock<Box<[Arc<Template>]>>,
}

impl Link {
    pub(crate) fn new(client: IpAddr, cut: Arc<Cut>, tunnel: Option<Tunnel>) -> Self {
        Self {
            client,
            cut,
            tunnel,
            request_id: None,
            masked: None,
            host_as_sent: Mutex::default(),
        }
    }

    /// The link of a connection whose request is known as `request_id`.
    pub(crate) fn handed(
        client: IpAddr,
        cut: Arc<Cut>,
        request_id: String,
        masked: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            request_id: Some(request_id),
            masked: Some(masked),
            ..Self::new(client, cut, None)
        }
    }

    /// The link of a session. Every connection that Pingora serves for us carries one.
    pub(crate) fn of(session: &Session) -> Option<Arc<ProxyDigest>> {
        session.digest()?.proxy_digest.as_ref().map(Arc::clone)
    }

    pub(crate) fn in_digest(digest: &ProxyDigest) -> Option<&Self> {
        digest.user_data.as_ref()?.downcast_ref()
    }
}

/// A request from accept to audit.
#[derive(Debug)]
pub(crate) struct RequestContext {
    pub(crate) request_id: String,
    pub(crate) started: Instant,
    pub(crate) door: Door,
    pub(crate) link: Option<Arc<ProxyDigest>>,
    pub(crate) target: Option<Target>,
    pub(crate) lease: Option<Arc<VerifiedLease>>,
    pub(crate) permit: Option<Permit>,
    pub(crate) addresses: Option<Addresses>,
    pub(crate) used: Option<RecordedUse>,
    pub(crate) credential: Option<Arc<Credential>>,
    pub(crate) signing: Option<(AgentScope, PayloadHash)>,
    /// What reads the names of a form's fields as they pass.
    pub(crate) form: Option<FormNames>,
    /// What a body that is streamed in AWS's own chunks passes on its way.
    pub(crate) streamed_body: Option<StreamedBody>,
    /// A body that was read to be hashed, to be sent as a whole.
    pub(crate) held_body: Option<Bytes>,
    /// The room that it takes, given back with the request's end.
    pub(crate) held_room: Option<OwnedSemaphorePermit>,
    pub(crate) scrub: Option<ResponseScrub>,
    /// Of a use on a budget.
    pub(crate) spending: Option<Spending>,
    /// What it takes up of the limits of its holder and of this process.
    pub(crate) place: Option<Place>,
    pub(crate) watched: Option<Watched>,
    pub(crate) attempts: u32,
    pub(crate) resend: Resend,
    pub(crate) dialled: Option<SocketAddr>,
    pub(crate) upstream_h2_only: bool,
    /// What its connections over HTTP/2 have in common, where HTTP/1.1 would do as well.
    pub(crate) h2_way: Option<u64>,
    pub(crate) status: Option<u16>,
    pub(crate) refusal: Option<Refusal>,
}

impl RequestContext {
    pub(crate) fn new(request_id: String) -> Self {
        Self {
            request_id,
            started: Instant::now(),
            door: Door::Proxy,
            link: None,
            target: None,
            lease: None,
            permit: None,
            addresses: None,
            used: None,
            credential: None,
            signing: None,
            form: None,
            streamed_body: None,
            held_body: None,
            held_room: None,
            scrub: None,
            spending: None,
            place: None,
            watched: None,
            attempts: 0,
            resend: Resend::Open,
            dialled: None,
            upstream_h2_only: false,
            h2_way: None,
            status: None,
            refusal: None,
        }
    }

    pub(crate) fn link(&self) -> Option<&Link> {
        Link::in_digest(self.link.as_deref()?)
    }

    /// How often the credential was found in the answer so far, and masked.
    pub(crate) fn reflections(&self) -> usize {
        self.scrub.as_ref().map_or(0, ResponseScrub::reflections)
    }

    /// Tells a plane that handed the request in what was masked, before the part of the answer is sent that it stood in.
    pub(crate) fn tell_masked(&self) {
        if let Some(masked) = self.link().and_then(|link| link.masked.as_ref()) {
            masked.store(self.reflections(), Ordering::Relaxed);
        }
    }

    /// What the audit trail tells of this request.
    pub(crate) fn facts(&self, method: &str) -> RequestFacts {
        let client_ip = self
            .link()
            .map_or(IpAddr::from([0, 0, 0, 0]), |link| link.client);
        let target = self.target.as_ref();
        let endpoint = self
            .link()
            .and_then(|link| link.tunnel.as_ref())
            .map(|t| &t.endpoint);
        RequestFacts {
            request_id: self.request_id.clone(),
            client_ip,
            method: method.to_owned(),
            scheme: target
                .map(|t| t.scheme)
                .or(endpoint.map(|e| e.scheme))
                .map_or("https", scheme_name),
            host: target
                .map(|t| t.host.to_shared())
                .or(endpoint.map(|e| e.host.to_shared()))
                .unwrap_or_default(),
            port: target
                .map(|t| t.port)
                .or(endpoint.map(|e| e.port))
                .unwrap_or(0),
            address: self.addresses.as_ref().and_then(Addresses::of_provider),
            path: target.map_or_else(String::new, |t| t.path.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use pingora::http::ResponseHeader;

    use super::*;
    use crate::fixtures::{CHARGES, mint_request, plan, target, verified};
    use crate::limits::{Limits, Load};

    const SECRET: &str = "sk_live_0123456789abcdef";

    /// A request over a connection.
    fn over(link: Link) -> RequestContext {
        let response = ResponseHeader::build(200, None).unwrap();
        RequestContext {
            link: Some(Arc::new(ProxyDigest::new(
                Box::new(response),
                Some(Box::new(link)),
            ))),
            ..RequestContext::new("the-id".to_owned())
        }
    }

    #[test]
    fn who_handed_a_request_in_is_told_of_every_mask() {
        let masked = Arc::new(AtomicUsize::new(0));
        let link = Link::handed(
            [192, 0, 2, 1].into(),
            Arc::default(),
            "its-id".to_owned(),
            Arc::clone(&masked),
        );
        let mut ctx = over(link);
        assert_eq!(ctx.link().unwrap().request_id.as_deref(), Some("its-id"));
        assert_eq!(ctx.reflections(), 0);
        let template = providers::Catalog::builtin().get("stripe").unwrap();
        let plan = plan(&template, &[("STRIPE_SECRET_KEY", SECRET)]);
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.append_header("x-echo", SECRET).unwrap();
        head.append_header("x-again", SECRET).unwrap();
        ctx.scrub = Some(ResponseScrub::begin(&mut head, &plan, false, false).unwrap());
        assert_eq!(masked.load(Ordering::Relaxed), 0, "not told yet");
        ctx.tell_masked();
        assert_eq!((masked.load(Ordering::Relaxed), ctx.reflections()), (2, 2));
    }

    #[test]
    fn the_audit_trail_tells_what_is_known_by_then() {
        let told = |ctx: &RequestContext| {
            let facts = ctx.facts("POST");
            assert_eq!(
                (facts.request_id.as_str(), facts.method.as_str()),
                ("the-id", "POST")
            );
            let url = format!(
                "{}://{}:{}{}",
                facts.scheme, facts.host, facts.port, facts.path
            );
            (facts.client_ip.to_string(), url)
        };
        let of = |client: &str, url: &str| (client.to_owned(), url.to_owned());
        let unlinked = RequestContext::new("the-id".to_owned());
        assert_eq!(told(&unlinked), of("0.0.0.0", "https://:0"));

        let load = Load::new(Limits::default());
        let lease = verified(&mint_request());
        let tunnel = Tunnel {
            endpoint: Endpoint::of_connect("files.stripe.com:8443").unwrap(),
            place: Load::tunnel(load.party(&lease)).unwrap(),
            lease,
            served: OnceLock::new(),
            path_slots: OnceLock::new(),
        };
        let link = Link::new([192, 0, 2, 1].into(), Arc::default(), Some(tunnel));
        let mut ctx = over(link);
        assert_eq!(told(&ctx), of("192.0.2.1", "https://files.stripe.com:8443"));
        ctx.target = Some(target(&CHARGES.replace("https", "http")));
        let url = "http://api.stripe.com:80/v1/charges";
        assert_eq!(told(&ctx), of("192.0.2.1", url));
    }
}
