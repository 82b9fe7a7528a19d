//! Leases: verification and authorization.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use leases::clock::{Clock as _, SystemClock};
use leases::{
    AccessRequest, Action, AgentId, Binding, GrantId, HostPattern, Keys, Kind, LeaseId,
    MintRequest, Minted, Narrowing, OrgId, PathGlob, RootKeyPair, RootPublicKeys, Scheme, Scope,
    SetId, Token, attenuate, authorize, mint, verify,
};
use time::{Duration, OffsetDateTime};

use crate::measure::Report;

const HOST: &str = "api.stripe.com";

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let root = RootKeyPair::generate(1);
    let keys = RootPublicKeys::new(vec![root.public()]);
    let request = workflow_lease(now)?;
    let lease = mint(&root, &request)?.token;
    let narrowing = Narrowing {
        hosts: vec![HostPattern::parse(HOST)?],
        paths: vec![PathGlob::parse("/v1/**")?],
        ..Narrowing::default()
    };
    let narrowed = attenuate(&lease.present(), &narrowing, now)?;

    report.each("mint", || mint(&root, &request));
    for (name, token) in [("", &lease), (", narrowed once", &narrowed)] {
        let presented = token.present();
        report.each(&format!("verify{name}"), || verify(&presented, &keys));
        decide(report, name, token, &keys, now)?;
    }
    Ok(())
}

fn decide(
    report: &mut Report,
    name: &str,
    token: &Token,
    keys: &RootPublicKeys,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let lease = Arc::new(verify(&token.present(), keys)?);
    // A path that was not seen before is decided anew.
    let mut number = 0_u64;
    report.each(&format!("authorize, first{name}"), || {
        number += 1;
        authorize(&lease, &access(&format!("/v1/charges/{number}")), now)
    });
    authorize(&lease, &access("/v1/charges"), now)?;
    report.each(&format!("authorize, remembered{name}"), || {
        authorize(&lease, &access("/v1/charges"), now)
    });
    Ok(())
}

fn access(path: &str) -> AccessRequest<'_> {
    AccessRequest {
        action: Action::ProxyUse,
        scheme: Scheme::Https,
        host: HOST,
        port: 443,
        method: "GET",
        path,
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

fn workflow_lease(now: OffsetDateTime) -> anyhow::Result<MintRequest> {
    let scope = Scope {
        methods: vec!["GET".to_owned(), "POST".to_owned()],
        paths: vec![PathGlob::parse("/v1/**")?],
        ..Scope::default()
    };
    Ok(MintRequest {
        org: OrgId::new(now),
        agent: AgentId::new(now),
        lease: LeaseId::new(now),
        kind: Kind::Workflow,
        action: Action::ProxyUse,
        bindings: vec![Binding {
            set: SetId::new(now),
            grant: GrantId::new(now),
            provider: "stripe".to_owned(),
            hosts: vec![
                HostPattern::parse(HOST)?,
                HostPattern::parse("files.stripe.com")?,
            ],
            keys: Keys::All,
            scope,
        }],
        issued_at: now,
        expires_at: now + Duration::hours(1),
    })
}

/// A lease on the set and grant of a store.
pub(crate) fn lease_on(
    org: &OrgId,
    agent: &AgentId,
    set: &SetId,
    grant: &GrantId,
    now: OffsetDateTime,
) -> anyhow::Result<(MintRequest, Minted)> {
    let mut request = workflow_lease(now)?;
    (request.org, request.agent) = (org.clone(), agent.clone());
    (request.bindings[0].set, request.bindings[0].grant) = (set.clone(), grant.clone());
    let minted = mint(&RootKeyPair::generate(1), &request)?;
    Ok((request, minted))
}
