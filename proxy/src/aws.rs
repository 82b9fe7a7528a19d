//! What a request asks of AWS, against what its grant says of AWS (threats.md B15, C15, C16).

use http::{HeaderMap, Method};
use leases::aws::AwsCall;
use leases::scope::AwsScope;
use providers::inject::sigv4::{
    AgentScope, Asking, SigV4Refusal, has_buckets, may_mint, needs_body,
};
use time::OffsetDateTime;

use crate::normalize::Target;
use crate::refuse::{Code, Refusal};

/// Whether the body is needed to tell what the request asks, beyond what its signature needs.
pub(crate) fn reads_body(bounds: &AwsScope, service: &str) -> bool {
    asks_action(bounds, service) && needs_body(service)
}

/// A signature in the query is taken where the grant says so, and for its own time.
pub(crate) fn allow_presigned(
    bounds: &AwsScope,
    scope: &AgentScope,
    now: OffsetDateTime,
) -> Result<(), SigV4Refusal> {
    match &scope.presigned {
        None => Ok(()),
        Some(_) if !bounds.presigned => Err(SigV4Refusal::Presigned),
        Some(presigned) => presigned.check(now),
    }
}

/// Decides on what the request asks of AWS. `body` is the whole one where [`reads_body`] says that it is needed.
pub(crate) fn allow(
    bounds: &AwsScope,
    scope: &AgentScope,
    target: &Target,
    method: &Method,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Refusal> {
    let asks_action = asks_action(bounds, &scope.service);
    if !asks_action && bounds.is_default() {
        return Ok(());
    }
    let asking = asking(scope, target, method, headers, body);
    let actions = if asks_action {
        let told = asking.actions(!bounds.actions.is_empty());
        told.map_err(|error| refused(&error))?
    } else {
        None
    };
    if !bounds.is_default() {
        check_bounds(bounds, scope, &asking, actions.as_deref())?;
    }
    let is_named = |action: &str| bounds.names_action(&scope.service, action);
    match asking.unnamed_minting(actions.as_deref(), is_named) {
        Some(action) => Err(refused(&SigV4Refusal::Mints { action })),
        None => Ok(()),
    }
}

fn check_bounds(
    bounds: &AwsScope,
    scope: &AgentScope,
    asking: &Asking<'_>,
    actions: Option<&[String]>,
) -> Result<(), Refusal> {
    let buckets = if bounds.buckets.is_empty() {
        None
    } else {
        asking.buckets()
    };
    let call = AwsCall {
        service: &scope.service,
        regions: &scope.regions_at(asking.host),
        has_buckets: has_buckets(&scope.service),
        buckets: buckets.as_deref(),
        actions,
    };
    bounds
        .allows(&call)
        .map_err(|denial| Refusal::new(Code::GrantDenied, denial.to_string()))
}

/// Whether the action has to be told: the grant lists some, or the service has some that hand out credentials.
fn asks_action(bounds: &AwsScope, service: &str) -> bool {
    !bounds.actions.is_empty() || may_mint(service)
}

pub(crate) fn refused(error: &SigV4Refusal) -> Refusal {
    let code = match error {
        SigV4Refusal::BodyTooLarge { .. } => Code::BodyTooLarge,
        SigV4Refusal::Malformed(_) | SigV4Refusal::Unsignable(_) | SigV4Refusal::TwoActions => {
            Code::AmbiguousRequest
        }
        _ => Code::GrantDenied,
    };
    Refusal::new(code, error.to_string())
}
/// What a request asks of AWS, as the template's rules read it.
pub(crate) fn asking<'r>(
    scope: &'r AgentScope,
    target: &'r Target,
    method: &'r Method,
    headers: &'r HeaderMap,
    body: &'r [u8],
) -> Asking<'r> {
    Asking {
        service: &scope.service,
        method,
        host: target.host.as_str(),
        path: &target.path,
        query: target.query.as_deref(),
        headers,
        body,
    }
}
