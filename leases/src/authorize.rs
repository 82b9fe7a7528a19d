//! Authorization: a verified lease and a request become a permit, or a denial that says why.

use std::{fmt, net::IpAddr, sync::Arc};

use time::OffsetDateTime;

use crate::{
    clock::rfc3339,
    evaluate::evaluate,
    glob::PathGlob,
    host::{HostPattern, Scheme, without_brackets},
    limit::{Limit, is_client_in, listed},
    mint::Binding,
    scope::{Action, Scope, is_forbidden_method},
    verify::VerifiedLease,
};

/// The request to be decided on.
#[derive(Debug, Clone, Copy)]
pub struct AccessRequest<'a> {
    /// What is to be done.
    pub action: Action,
    /// How the host is reached.
    pub scheme: Scheme,
    /// The canonical host: lower-case A-labels or an address, no final dot.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The method, as it will be sent.
    pub method: &'a str,
    /// The path, as it will be sent: normalised, without the query.
    pub path: &'a str,
    /// The client's address.
    pub client_ip: IpAddr,
}

/// What a limit is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// The host and its port.
    Host,
    /// The method.
    Method,
    /// The path.
    Path,
    /// The client's address.
    Client,
    /// The time.
    Time,
    /// The key of the set.
    Key,
    /// The action.
    Action,
    /// A check in Datalog whose meaning is not one of the others.
    Other,
}

/// Why a lease does not allow a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The lease, or a block that narrows it, has ended: `lease_expired`.
    #[error("the lease expired at {}; mint a new one", rfc3339(*at))]
    Expired {
        /// When.
        at: OffsetDateTime,
    },
    /// A block after the authority block does not allow it: `lease_scope`.
    #[error("the lease was narrowed: {detail}")]
    Scope {
        /// The block; the authority block is 0.
        block: usize,
        /// What it limits.
        what: Dimension,
        /// Text for the caller.
        detail: String,
    },
    /// The grant does not allow it: `grant_denied`.
    #[error("{what} is outside the grant (allowed: {allowed}); ask for a grant that includes it")]
    Grant {
        /// What is outside.
        what: Dimension,
        /// What is allowed.
        allowed: String,
    },
    /// The credential would leave without TLS: `plaintext_denied`.
    #[error(
        "a credential is not sent without TLS; use https (a grant with `cleartext` lifts this for a provider whose template names http:// hosts)"
    )]
    Plaintext,
    /// The decision took more work than is allowed. Counted apart: under load it is no fault of the caller.
    #[error("the lease's checks took more work than is allowed")]
    Limits,
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Method => "method",
            Self::Path => "path",
            Self::Client => "client",
            Self::Time => "time",
            Self::Key => "key",
            Self::Action => "action",
            Self::Other => "request",
        })
    }
}

/// Proof that this lease allows this request. Only [`authorize`] and [`authorize_export`] make it.
#[derive(Debug, Clone)]
pub struct Permit {
    lease: Arc<VerifiedLease>,
    binding: usize,
    action: Action,
}

impl Permit {
    /// The lease.
    pub const fn lease(&self) -> &Arc<VerifiedLease> {
        &self.lease
    }

    /// The set that serves the request, and its grant.
    pub fn binding(&self) -> &Binding {
        &self.lease.bindings()[self.binding]
    }

    /// What may be done.
    pub const fn action(&self) -> Action {
        self.action
    }

    /// Whether the lease is bound to hosts, paths or buckets beyond what the set's provider is, by its grant or by a block that
    /// narrows it. A check whose meaning is not known counts as such a bound.
    pub fn limits_targets(&self) -> bool {
        let scope = &self.binding().scope;
        let narrows =
            |limit: &Limit| matches!(limit.dimension(), Dimension::Host | Dimension::Path);
        !scope.hosts.is_empty()
            || !scope.paths.is_empty()
            || !scope.aws.buckets.is_empty()
            || self
                .lease
                .blocks()
                .iter()
                .any(|block| !block.others.is_empty() || block.limits.iter().any(narrows))
    }

    /// Whether the lease's limits on paths, in its grant and in every block, take all that a glob means. It may say no where the
    /// answer is yes, never the reverse: to a check whose meaning is not known it says no.
    pub fn covers_paths(&self, glob: &PathGlob) -> bool {
        let covers =
            |paths: &[PathGlob]| paths.is_empty() || paths.iter().any(|path| path.covers(glob));
        let takes = |limit: &Limit| match limit {
            Limit::Paths(paths) => covers(paths),
            Limit::Hosts(_) | Limit::Methods(_) | Limit::Clients(_) | Limit::Before(_) => true,
        };
        covers(&self.binding().scope.paths)
            && self
                .lease
                .blocks()
                .iter()
                .all(|block| block.others.is_empty() && block.limits.iter().all(takes))
    }
}

/// The most bytes of a path that is decided on.
pub const MAX_PATH_BYTES: usize = 4096;

/// Decides on a request.
///
/// The lease's limits are tested one by one, so that a denial can say which one it is; what they allow, Biscuit's
/// authorizer decides once more over the whole token, with every check that it holds. Both have to agree. A permit is
/// remembered in the lease until its next end or time window passes.
///
/// # Errors
/// [`Denial`].
pub fn authorize(
    lease: &Arc<VerifiedLease>,
    request: &AccessRequest<'_>,
    now: OffsetDateTime,
) -> Result<Permit, Denial> {
    let binding = match lease.memory().recall(request, now) {
        Some(binding) => binding,
        None => decide(lease, request, now)?,
    };
    Ok(Permit {
        lease: Arc::clone(lease),
        binding,
        action: request.action,
    })
}

fn decide(
    lease: &VerifiedLease,
    request: &AccessRequest<'_>,
    now: OffsetDateTime,
) -> Result<usize, Denial> {
    check_end(lease, now)?;
    check_action(lease, request.action)?;
    if request.path.len() > MAX_PATH_BYTES {
        return Err(Denial::Limits);
    }
    let (at, binding) = choose(lease, request)?;
    check_grant(binding, request, now)?;
    check_blocks(lease, |limit| limit.allows(request, now))?;
    evaluate(lease, binding, request, now)?;
    let is_predictable = lease
        .blocks()
        .iter()
        .flat_map(|block| &block.others)
        .all(|other| !other.is_timed);
    if is_predictable {
        let until = match &binding.scope.time_window {
            Some(window) => window.next_change(now).min(lease.effective_expiry()),
            None => lease.effective_expiry(),
        };
        lease.memory().remember(request, at, now, until);
    }
    Ok(at)
}

/// Decides at CONNECT whether a host may be reached at all: by host and time only.
///
/// It answers for TLS and for cleartext, whether or not the grant allows that: a client that opens a tunnel for cleartext
/// hides the answer to CONNECT from its caller, so its requests are denied one by one. Checks whose meaning is not known
/// wait for the request, too.
///
/// # Errors
/// [`Denial`].
pub fn covers_host<'a>(
    lease: &'a VerifiedLease,
    host: &str,
    port: u16,
    now: OffsetDateTime,
) -> Result<&'a Binding, Denial> {
    check_end(lease, now)?;
    let host = without_brackets(host);
    let serves = |binding: &&Binding| {
        [Scheme::Https, Scheme::Http]
            .into_iter()
            .any(|scheme| allows_host(binding, scheme, host, port))
    };
    let binding = lease
        .bindings()
        .iter()
        .find(serves)
        .ok_or_else(|| host_denial(lease, host))?;
    check_window(binding, now)?;
    check_blocks(lease, |limit| match limit {
        Limit::Hosts(hosts) => [Scheme::Https, Scheme::Http].into_iter().any(|scheme| {
            hosts
                .iter()
                .any(|pattern| pattern.matches_by(scheme, host, port))
        }),
        Limit::Before(end) => now < *end,
        Limit::Methods(_) | Limit::Paths(_) | Limit::Clients(_) => true,
    })?;
    Ok(binding)
}

/// Decides on an export, which is no request to a host: one permit for each set that the lease binds.
///
/// The grants' networks and times hold. A grant that asks for approval gives none: what is approved is one request. A lease
/// that a block narrows to hosts, methods, paths or by a check whose meaning
/// is not known gets none: nobody could hold the plaintext to that.
///
/// # Errors
/// [`Denial`].
pub fn authorize_export(
    lease: &Arc<VerifiedLease>,
    client_ip: IpAddr,
    now: OffsetDateTime,
) -> Result<Vec<Permit>, Denial> {
    check_end(lease, now)?;
    check_action(lease, Action::ExportPlaintext)?;
    for binding in lease.bindings() {
        check_client(binding, client_ip)?;
        check_window(binding, now)?;
        if binding.scope.approval.is_some() {
            return Err(Denial::Grant {
                what: Dimension::Action,
                allowed: "requests that a person approves".to_owned(),
            });
        }
    }
    check_blocks(lease, |limit| match limit {
        Limit::Clients(nets) => is_client_in(nets, client_ip),
        Limit::Before(end) => now < *end,
        Limit::Hosts(_) | Limit::Methods(_) | Limit::Paths(_) => false,
    })?;
    if let Some(at) = lease
        .blocks()
        .iter()
        .position(|block| !block.others.is_empty())
    {
        return Err(Denial::Scope {
            block: at + 1,
            what: Dimension::Other,
            detail: format!(
                "block {} holds a check on requests; use the lease that it was narrowed from",
                at + 1
            ),
        });
    }
    let permit = |binding| Permit {
        lease: Arc::clone(lease),
        binding,
        action: Action::ExportPlaintext,
    };
    Ok((0..lease.bindings().len()).map(permit).collect())
}

fn check_end(lease: &VerifiedLease, now: OffsetDateTime) -> Result<(), Denial> {
    let at = lease.effective_expiry();
    if now < at {
        Ok(())
    } else {
        Err(Denial::Expired { at })
    }
}

fn check_action(lease: &VerifiedLease, action: Action) -> Result<(), Denial> {
    if action == lease.action() {
        Ok(())
    } else {
        Err(Denial::Grant {
            what: Dimension::Action,
            allowed: lease.action().to_string(),
        })
    }
}

/// The binding that serves the host. Minting refuses leases in which there could be two.
fn choose<'a>(
    lease: &'a VerifiedLease,
    request: &AccessRequest<'_>,
) -> Result<(usize, &'a Binding), Denial> {
    let AccessRequest { host, port, .. } = *request;
    let bindings = || lease.bindings().iter().enumerate();
    let by = |scheme| bindings().find(|(_, binding)| allows_host(binding, scheme, host, port));
    match (request.scheme, by(request.scheme)) {
        (Scheme::Https, Some(found)) => Ok(found),
        (Scheme::Http, Some(found)) if found.1.scope.cleartext => Ok(found),
        (Scheme::Http, Some(_)) => Err(Denial::Plaintext),
        // Cleartext to a port that is meant for TLS: the missing TLS is what is wrong, not the host.
        (Scheme::Http, None) if by(Scheme::Https).is_some() => Err(Denial::Plaintext),
        (_, None) => Err(host_denial(lease, host)),
    }
}

fn allows_host(binding: &Binding, scheme: Scheme, host: &str, port: u16) -> bool {
    let matches = |hosts: &[HostPattern]| {
        hosts
            .iter()
            .any(|pattern| pattern.matches_by(scheme, host, port))
    };
    matches(&binding.hosts) && (binding.scope.hosts.is_empty() || matches(&binding.scope.hosts))
}

/// Names the hosts of the set that comes nearest: the one whose template has the name, or else all.
fn host_denial(lease: &VerifiedLease, host: &str) -> Denial {
    let has_name = |binding: &&Binding| binding.hosts.iter().any(|host_| host_.matches_name(host));
    let near: Vec<_> = lease.bindings().iter().filter(has_name).collect();
    let bindings = if near.is_empty() {
        lease.bindings().iter().collect()
    } else {
        near
    };
    let hosts: Vec<_> = bindings
        .into_iter()
        .flat_map(|binding| match binding.scope.hosts.as_slice() {
            [] => &binding.hosts,
            limited => limited,
        })
        .collect();
    Denial::Grant {
        what: Dimension::Host,
        allowed: listed(&hosts),
    }
}

fn check_grant(
    binding: &Binding,
    request: &AccessRequest<'_>,
    now: OffsetDateTime,
) -> Result<(), Denial> {
    let Scope { methods, paths, .. } = &binding.scope;
    let deny = |what, allowed| Err(Denial::Grant { what, allowed });
    // Nothing can be sent to no path; `*` is one, of OPTIONS.
    if request.path.is_empty() {
        return deny(Dimension::Path, "paths that are not empty".to_owned());
    }
    if is_forbidden_method(request.method) {
        return deny(
            Dimension::Method,
            "methods that do not reflect or tunnel".to_owned(),
        );
    }
    if !methods.is_empty() && !methods.iter().any(|method| method == request.method) {
        return deny(Dimension::Method, listed(methods));
    }
    if !paths.is_empty() && !paths.iter().any(|path| path.matches(request.path)) {
        return deny(Dimension::Path, listed(paths));
    }
    check_client(binding, request.client_ip)?;
    check_window(binding, now)
}

fn check_client(binding: &Binding, client_ip: IpAddr) -> Result<(), Denial> {
    let cidrs = &binding.scope.cidrs;
    if cidrs.is_empty() || is_client_in(cidrs, client_ip) {
        return Ok(());
    }
    Err(Denial::Grant {
        what: Dimension::Client,
        allowed: listed(cidrs),
    })
}

fn check_window(binding: &Binding, now: OffsetDateTime) -> Result<(), Denial> {
    match &binding.scope.time_window {
        Some(window) if !window.contains(now) => Err(Denial::Grant {
            what: Dimension::Time,
            allowed: window.to_string(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Tests the limits whose meaning is known, from the oldest block to the youngest.
fn check_blocks(lease: &VerifiedLease, allows: impl Fn(&Limit) -> bool) -> Result<(), Denial> {
    for (at, block) in lease.blocks().iter().enumerate() {
        if let Some(limit) = block.limits.iter().find(|limit| !allows(limit)) {
            let (block, what) = (at + 1, limit.dimension());
            return Err(Denial::Scope {
                block,
                what,
                detail: format!(
                    "{what} is outside block {block} (allowed: {}); use the lease that it was narrowed from",
                    limit.allowed()
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
