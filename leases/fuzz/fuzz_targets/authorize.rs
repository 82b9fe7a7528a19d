//! A lease with any Datalog appended, and any request: no panic, bounded time, and no child does more than its parent.
#![no_main]

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use arbitrary::Arbitrary;
use biscuit_auth::{BlockBuilder, UnverifiedBiscuit};
use leases::{
    AccessRequest, Action, AgentId, Binding, GrantId, HostPattern, Keys, Kind, LeaseId,
    MintRequest, OrgId, PresentedToken, RootKeyPair, RootPublicKeys, Scheme, Scope, SetId,
    VerifiedLease, authorize, covers_host, mint, verify,
};
use libfuzzer_sys::fuzz_target;
use time::{Duration, OffsetDateTime, macros::datetime};

const NOW: OffsetDateTime = datetime!(2026-11-22 07:00 UTC);

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    blocks: Vec<&'a str>,
    is_https: bool,
    host: &'a str,
    port: u16,
    method: &'a str,
    path: &'a str,
    client: [u8; 16],
    seconds: u16,
}

struct Parent {
    keys: RootPublicKeys,
    token: String,
    lease: Arc<VerifiedLease>,
}

static PARENT: LazyLock<Parent> = LazyLock::new(|| {
    let root = RootKeyPair::generate(1);
    let keys = RootPublicKeys::new(vec![root.public()]);
    let request = MintRequest {
        org: OrgId::new(NOW),
        agent: AgentId::new(NOW),
        lease: LeaseId::new(NOW),
        kind: Kind::Workflow,
        action: Action::ProxyUse,
        bindings: vec![Binding {
            set: SetId::new(NOW),
            grant: GrantId::new(NOW),
            provider: "custom".to_owned(),
            hosts: vec![HostPattern::parse("**.x.com").expect("a pattern")],
            keys: Keys::All,
            scope: Scope::default(),
        }],
        issued_at: NOW,
        expires_at: NOW + Duration::hours(1),
    };
    let token = mint(&root, &request).expect("a lease").token;
    let lease = Arc::new(verify(&token.present(), &keys).expect("our own lease"));
    Parent {
        keys,
        token: token.as_str().to_owned(),
        lease,
    }
});

/// Appends blocks by the library, as a holder would. Sources that are no Datalog are left out.
fn append(token: &str, sources: &[&str]) -> Option<PresentedToken> {
    let mut biscuit = UnverifiedBiscuit::from_base64(token.strip_prefix("clv_")?).ok()?;
    for source in sources.iter().take(8) {
        if let Ok(block) = BlockBuilder::new().code(source) {
            biscuit = biscuit.append(block).ok()?;
        }
    }
    let text = biscuit.to_base64().ok()?;
    PresentedToken::parse(&format!("clv_{}", text.trim_end_matches('='))).ok()
}

fuzz_target!(|input: Input<'_>| {
    let Some(child) = append(&PARENT.token, &input.blocks) else {
        return;
    };
    let Ok(child) = verify(&child, &PARENT.keys) else {
        return;
    };
    let child = Arc::new(child);
    let request = AccessRequest {
        action: Action::ProxyUse,
        scheme: if input.is_https {
            Scheme::Https
        } else {
            Scheme::Http
        },
        host: input.host,
        port: input.port,
        method: input.method,
        path: input.path,
        client_ip: IpAddr::from(input.client),
    };
    let now = NOW + Duration::seconds(input.seconds.into());
    let first = authorize(&child, &request, now);
    // From memory, if it was remembered: the same answer.
    assert_eq!(first.is_ok(), authorize(&child, &request, now).is_ok());
    if first.is_ok() {
        assert!(authorize(&PARENT.lease, &request, now).is_ok());
        assert!(covers_host(&child, input.host, input.port, now).is_ok());
    }
    assert!(child.effective_expiry() <= PARENT.lease.effective_expiry());
});
