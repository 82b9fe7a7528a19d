//! Steps 1 and 3 for a request: which form it came in, where it goes, and whose lease it bears.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderName;
use http::header::{COOKIE, PROXY_AUTHORIZATION};
use leases::mint::Binding;
use leases::verify::VerifiedLease;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use providers::host::Authority;
use store::Store;
use store::ledger::{Holding, Standing};
use time::OffsetDateTime;

use crate::authenticate::{invalid, missing, proxy_token};
use crate::context::{Link, RequestContext};
use crate::normalize::{self, RawTarget, Target};
use crate::pipeline::Pipeline;
use crate::refuse::{Code, Door, Refusal};
use crate::strays;

/// The path under which the gateway form is served.
const GATEWAY: &str = "/gateway/";

/// Reads the form of the request, its lease and its target. The lease is noted as soon as it is verified, so
/// that whatever is refused later can be told of it.
pub(crate) fn enter(
    pipeline: &Pipeline,
    session: &Session,
    ctx: &mut RequestContext,
) -> Result<Target, Refusal> {
    let request = session.req_header();
    let raw = RawTarget::of(request)?;
    let link = ctx.link.as_ref().map(Arc::clone);
    let link = link.as_deref().and_then(Link::in_digest);
    if let Some(tunnel) = link.and_then(|link| link.tunnel.as_ref()) {
        ctx.door = Door::Inside;
        ctx.lease = Some(Arc::clone(&tunnel.lease));
        pipeline.authenticator.check_root_key(&tunnel.lease)?;
        strays::check_target(&raw)?;
        return normalize::inside(&tunnel.endpoint, request);
    }
    strays::check_target(&raw)?;
    let client = link.map_or_else(unlinked, |link| Ok(link.client))?;
    if raw.is_absolute() {
        let fields = request.headers.get_all(PROXY_AUTHORIZATION);
        let token = proxy_token(fields.iter().map(http::HeaderValue::as_bytes))?;
        ctx.lease = Some(pipeline.authenticator.verify(&token, client)?);
        let host = link.and_then(|link| link.host_as_sent.lock().take());
        return normalize::absolute(request, host.as_deref());
    }
    ctx.door = Door::Gateway;
    gateway(pipeline, request, &raw, ctx, client)
}

/// `/gateway/<provider>/path`: the lease stands where the provider's own key would.
fn gateway(
    pipeline: &Pipeline,
    request: &RequestHeader,
    &RawTarget { path, query, .. }: &RawTarget<'_>,
    ctx: &mut RequestContext,
    client: IpAddr,
) -> Result<Target, Refusal> {
    let rest = path.strip_prefix(GATEWAY).ok_or_else(|| {
        Refusal::new(
            Code::NotFound,
            "this is a proxy: set HTTPS_PROXY to it, or call /gateway/<provider>/<path>; its API listens on another address",
        )
    })?;
    let (provider, _) = rest.split_once('/').unwrap_or((rest, ""));
    let path = &rest[provider.len()..];
    let path = if path.is_empty() { "/" } else { path };
    let template = pipeline.catalog.borrow().get(provider).ok_or_else(|| {
        Refusal::new(
            Code::NotFound,
            "there is no provider of this name; `GET /v1/providers` on the API address lists them",
        )
    })?;
    // Of two values one server reads the first and another the last. Cookies may come in crumbs.
    let is_given_twice = |slot: &HeaderName| {
        *slot != COOKIE && request.headers.get_all(slot).iter().nth(1).is_some()
    };
    if template.secret_slots().iter().any(is_given_twice) {
        return Err(invalid());
    }
    let token = template
        .gateway_lease(&request.headers)
        .ok_or_else(missing)?;
    ctx.lease = Some(pipeline.authenticator.verify(&token, client)?);
    let base = template.gateway_base().ok_or_else(|| {
        Refusal::new(Code::NotFound, "this provider has no single base URL; set HTTPS_PROXY instead of using the gateway form")
    })?;
    let authority = base.strip_prefix("https://").unwrap_or(&base);
    let authority = Authority::parse(authority)
        .map_err(|error| Refusal::new(Code::NotFound, error.to_string()))?;
    normalize::method(request)?;
    normalize::gateway(authority.host, authority.port.unwrap_or(443), path, query)
}

/// The door's own look at the lease: one that ended is asked for anew, before anything else is said.
pub(crate) async fn check_standing(
    store: &Store,
    lease: &VerifiedLease,
    binding: Option<&Binding>,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    if lease.effective_expiry() <= now {
        return Err(Refusal::new(
            Code::LeaseExpired,
            format!("lease {} has expired; mint a new one", lease.lease()),
        ));
    }
    let standing = store
        .ledger()
        .standing(&holding(lease, binding))
        .await
        .map_err(|error| {
            tracing::error!(lease.id = %lease.lease(), %error, "the ledger could not be asked at the door");
            Refusal::new(Code::LedgerUnavailable, "the lease could not be checked; try again, and see /v1/health")
        })?;
    match standing {
        Standing::Good => Ok(()),
        Standing::Revoked | Standing::Unknown => Err(Refusal::new(
            Code::LeaseRevoked,
            format!("lease {} was revoked; mint a new one", lease.lease()),
        )),
        Standing::GrantRevoked => Err(Refusal::new(
            Code::GrantDenied,
            "the grant behind this lease was revoked; ask for a new grant",
        )),
        Standing::SetGone => Err(Refusal::new(
            Code::GrantDenied,
            "the secret set of this lease was deleted; ask for a grant on another",
        )),
        Standing::AgentInactive => Err(Refusal::new(
            Code::GrantDenied,
            "the agent of this lease is not active; ask an administrator to activate it",
        )),
    }
}

/// A verified lease as the ledger is asked about it, with what serves a request once one has selected it.
pub(crate) fn holding<'a>(lease: &'a VerifiedLease, binding: Option<&'a Binding>) -> Holding<'a> {
    Holding {
        org: lease.org(),
        lease: lease.lease(),
        agent: lease.agent(),
        grant: binding.map(|binding| &binding.grant),
        set: binding.map(|binding| &binding.set),
        revocation_ids: lease.revocation_ids(),
    }
}

/// A session without a link was not made by our listener.
pub(crate) fn unlinked() -> Result<IpAddr, Refusal> {
    Err(Refusal::new(
        Code::AmbiguousRequest,
        "the connection is not one of this listener's",
    ))
}

#[cfg(test)]
mod tests {
    use store::AgentPatch;
    use time::Duration;

    use super::*;
    use crate::fixtures::{NOW, World, person};

    /// What ends a lease before its time.
    #[derive(Debug, Clone, Copy)]
    enum End {
        Lease,
        Grant,
        Set,
        Agent,
    }

    async fn bring_about(end: End, world: &World) {
        let (store, lease, binding) = (&world.store, &world.lease, world.binding());
        let (org, by) = (lease.org(), person());
        match end {
            End::Lease => drop(
                store
                    .leases()
                    .revoke(org, lease.lease(), &by)
                    .await
                    .unwrap(),
            ),
            End::Grant => drop(
                store
                    .grants()
                    .revoke(org, &binding.grant, &by)
                    .await
                    .unwrap(),
            ),
            End::Set => assert!(
                store
                    .secret_sets()
                    .delete(org, &binding.set, &by)
                    .await
                    .unwrap()
            ),
            End::Agent => {
                let patch = AgentPatch {
                    is_active: Some(false),
                    ..AgentPatch::default()
                };
                let agents = store.agents();
                agents.patch(org, lease.agent(), patch, &by).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_lease_that_ended_does_not_pass_the_door() {
        for (end, code, hint) in [
            (End::Lease, Code::LeaseRevoked, "mint a new one"),
            (End::Grant, Code::GrantDenied, "ask for a new grant"),
            (End::Set, Code::GrantDenied, "ask for a grant on another"),
            (End::Agent, Code::GrantDenied, "activate it"),
        ] {
            let world = World::new().await;
            let check = async || {
                let binding = Some(world.binding());
                check_standing(&world.store, &world.lease, binding, NOW).await
            };
            assert_eq!(check().await, Ok(()), "before {end:?}");
            bring_about(end, &world).await;
            let refusal = check().await.unwrap_err();
            assert_eq!(refusal.code, code, "{end:?}");
            assert!(refusal.detail.contains(hint), "{}", refusal.detail);
        }
    }

    #[tokio::test]
    async fn a_lease_passes_the_door_until_the_second_of_its_end() {
        let world = World::new().await;
        let end = world.lease.effective_expiry();
        let check = async |now| {
            let checked = check_standing(&world.store, &world.lease, None, now).await;
            checked.map_err(|refusal| refusal.code)
        };
        assert_eq!(check(end - Duration::SECOND).await, Ok(()));
        for now in [end, end + Duration::DAY] {
            assert_eq!(check(now).await, Err(Code::LeaseExpired), "{now}");
        }
    }
}
