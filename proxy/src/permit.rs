//! Step 4: does this lease allow this request, and with which secret set?

use std::net::IpAddr;
use std::sync::Arc;

use leases::authorize::{AccessRequest, Dimension, Permit, authorize};
use leases::scope::Action;
use leases::verify::VerifiedLease;
use providers::host::Scheme;
use time::OffsetDateTime;

use crate::normalize::Target;
use crate::refuse::{Code, Refusal};

/// Asks the lease. The answer is a pure function of lease, request and time, and the lease remembers it.
pub(crate) fn permit(
    lease: &Arc<VerifiedLease>,
    target: &Target,
    method: &str,
    client_ip: IpAddr,
    now: OffsetDateTime,
) -> Result<Permit, Refusal> {
    if lease.action() != Action::ProxyUse {
        return Err(Refusal::new(
            Code::GrantDenied,
            format!(
                "this lease is for {}, not for requests; mint one with action proxy_use",
                lease.action().as_str()
            ),
        ));
    }
    let request = AccessRequest {
        action: Action::ProxyUse,
        scheme: lease_scheme(target.scheme),
        host: target.host.as_str(),
        port: target.port,
        method,
        path: &target.path,
        client_ip,
    };
    authorize(lease, &request, now).map_err(|denial| {
        Refusal::of_denial(&denial, |what| match what {
            Dimension::Host => format!("{}:{}", target.host, target.port),
            Dimension::Method => method.to_owned(),
            Dimension::Path => target.path.to_string(),
            Dimension::Client => client_ip.to_string(),
            Dimension::Time => now.to_string(),
            Dimension::Key | Dimension::Action | Dimension::Other => String::new(),
        })
        .explained(method, &target.url())
    })
}

fn lease_scheme(scheme: Scheme) -> leases::Scheme {
    match scheme {
        Scheme::Https => leases::Scheme::Https,
        Scheme::Http => leases::Scheme::Http,
    }
}

#[cfg(test)]
mod tests {
    use leases::{MintRequest, PathGlob, Scope};

    use super::*;
    use crate::fixtures::{CHARGES, NOW, mint_request, target, verified};

    fn ask(request: &MintRequest, method: &str, url: &str) -> Result<Permit, Refusal> {
        let client = [127, 0, 0, 1].into();
        permit(&verified(request), &target(url), method, client, NOW)
    }

    #[test]
    fn a_refusal_names_what_lies_outside_and_the_command_that_explains_it() {
        let mut narrow = mint_request();
        narrow.bindings[0].scope = Scope {
            paths: vec![PathGlob::parse("/v1/charges/**").unwrap()],
            ..Scope::default()
        };
        assert!(ask(&narrow, "GET", CHARGES).is_ok());
        for (url, code, said) in [
            (
                "https://api.stripe.com/v1/refunds?a=1",
                Code::GrantDenied,
                "path /v1/refunds is outside",
            ),
            (
                "https://api.example.com/v1/charges",
                Code::GrantDenied,
                "host api.example.com:443 is outside",
            ),
            (
                "http://api.stripe.com/v1/charges",
                Code::PlaintextDenied,
                "clear",
            ),
        ] {
            let refusal = ask(&narrow, "GET", url).unwrap_err();
            assert_eq!(refusal.code, code, "{url}");
            assert!(refusal.detail.contains(said), "{}", refusal.detail);
            let explains = refusal.detail.contains("`claviger explain GET https://");
            assert_eq!(explains, code == Code::GrantDenied, "{}", refusal.detail);
        }
    }

    #[test]
    fn a_lease_for_something_else_sends_no_request() {
        let other = MintRequest {
            action: Action::ExportPlaintext,
            ..mint_request()
        };
        let refusal = ask(&other, "GET", CHARGES).unwrap_err();
        assert_eq!(refusal.code, Code::GrantDenied);
        assert!(
            refusal.detail.contains("not for requests"),
            "{}",
            refusal.detail
        );
    }
}
