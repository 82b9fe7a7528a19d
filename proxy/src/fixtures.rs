//! What the tests of this crate share: targets, plans, and a store in which an agent holds a lease.

use std::collections::BTreeMap;
use std::sync::Arc;

use leases::{
    AccessRequest, Action, AgentId, Binding, GrantId, HostPattern, Keys, Kind, LeaseId,
    MintRequest, OrgId, Permit, RootKeyPair, RootPublicKeys, Scope, SetId, VaultId, VerifiedLease,
    authorize, clock::ManualClock, mint, verify,
};
use pingora::http::RequestHeader;
use providers::inject::Plan;
use providers::template::Template;
use store::{
    Actor, ActorKind, NewAgent, NewGrant, NewLease, NewSet, NewVault, RequestFacts, Sealed, Spend,
    Store, StoreOptions,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime, macros::datetime};
use vault::Secret;

use crate::normalize::{self, Target};

/// A Sunday.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-22 07:00 UTC);
/// What an agent asks for in most tests.
pub(crate) const CHARGES: &str = "https://api.stripe.com/v1/charges";
const KEY: &str = "STRIPE_SECRET_KEY";

/// The target of this URL.
pub(crate) fn target(url: &str) -> Target {
    let request = RequestHeader::build("GET", url.as_bytes(), None).unwrap();
    normalize::absolute(&request, None).unwrap()
}

/// A template of one host from what else its file says; its one key is `KEY`.
pub(crate) fn template(host: &str, rest: &str) -> Arc<Template> {
    let text = format!(
        "name = \"acme\"\ndocs = \"https://example.com\"\nhosts = [\"{host}\"]\nkeys = {{ KEY = \"required\" }}\n{rest}"
    );
    Arc::new(providers::load::parse_template("acme.toml", &text).unwrap())
}

/// What a template makes of these secrets.
pub(crate) fn plan(template: &Arc<Template>, secrets: &[(&str, &str)]) -> Plan {
    let secret =
        |&(key, value): &(&str, &str)| (key.to_owned(), Arc::new(Secret::from(value.to_owned())));
    let secrets: BTreeMap<_, _> = secrets.iter().map(secret).collect();
    Plan::prepare(template, |_| true, secrets).unwrap()
}

/// A lease for Stripe that lasts an hour.
pub(crate) fn mint_request() -> MintRequest {
    let binding = Binding {
        set: SetId::new(NOW),
        grant: GrantId::new(NOW),
        provider: "stripe".to_owned(),
        hosts: vec![HostPattern::parse("api.stripe.com").unwrap()],
        keys: Keys::All,
        scope: Scope::default(),
    };
    MintRequest {
        org: OrgId::new(NOW),
        agent: AgentId::new(NOW),
        lease: LeaseId::new(NOW),
        kind: Kind::Workflow,
        action: Action::ProxyUse,
        bindings: vec![binding],
        issued_at: NOW,
        expires_at: NOW + Duration::hours(1),
    }
}

/// The lease of that request.
pub(crate) fn verified(request: &MintRequest) -> Arc<VerifiedLease> {
    let root = RootKeyPair::generate(1);
    let token = mint(&root, request).unwrap().token;
    let keys = RootPublicKeys::new(vec![root.public()]);
    Arc::new(verify(&token.present(), &keys).unwrap())
}

/// A store with one organisation, whose agent holds a recorded lease for one set.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) lease: Arc<VerifiedLease>,
    _directory: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_budget(None).await
    }

    pub(crate) async fn with_budget(spend: Option<Spend>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(NOW));
        let options = StoreOptions::new(directory.path().join("claviger.db"), clock);
        let store = Store::open(options).await.unwrap();
        let org = store.orgs().create("acme", &person()).await.unwrap().id;
        let agent = NewAgent {
            name: "builder".to_owned(),
            ..NewAgent::default()
        };
        let agent = store.agents().create(&org, agent, &person()).await;
        let agent = agent.unwrap().id;
        let set = create_set(&store, &org).await;
        let grant = NewGrant {
            agent_id: agent.clone(),
            secret_set_id: set.clone(),
            allowed_actions: vec![Action::ProxyUse, Action::MintWorkflowLease],
            allowed_keys: Keys::All,
            expires_at: None,
            constraints: Scope::default(),
            preset: None,
            rate: None,
            spend,
        };
        let grant = store.grants().create(&org, grant, &person()).await;
        let mut request = mint_request();
        (request.org, request.agent) = (org, agent);
        (request.bindings[0].set, request.bindings[0].grant) = (set, grant.unwrap().id);
        let lease = verified(&request);
        record_lease(&store, &lease).await;
        Self {
            store,
            lease,
            _directory: directory,
        }
    }

    pub(crate) fn binding(&self) -> &Binding {
        &self.lease.bindings()[0]
    }

    /// Proof that the lease allows a POST to [`CHARGES`].
    pub(crate) fn permit(&self) -> Permit {
        let request = AccessRequest {
            action: Action::ProxyUse,
            scheme: leases::Scheme::Https,
            host: "api.stripe.com",
            port: 443,
            method: "POST",
            path: "/v1/charges",
            client_ip: [127, 0, 0, 1].into(),
        };
        authorize(&self.lease, &request, NOW).unwrap()
    }
}

async fn create_set(store: &Store, org: &OrgId) -> SetId {
    let vault = NewVault {
        id: VaultId::new(NOW),
        kek_id: "kek".to_owned(),
    };
    store.vaults().ensure_default(org, vault).await.unwrap();
    let sets = store.secret_sets();
    let keys = [KEY.to_owned()];
    let next = sets
        .next_versions(org, "stripe", "prod", "bot", &keys)
        .await;
    let (path, version) = next.unwrap().entries[KEY].clone();
    let bytes = b"sealed".to_vec();
    let set = NewSet {
        provider: "stripe".to_owned(),
        environment: "prod".to_owned(),
        name: "bot".to_owned(),
        entries: vec![(
            KEY.to_owned(),
            Sealed {
                path,
                version,
                bytes,
            },
        )],
        custom: None,
        kek_id: None,
    };
    sets.create(org, set, &person()).await.unwrap().id
}

async fn record_lease(store: &Store, lease: &VerifiedLease) {
    let binding = &lease.bindings()[0];
    let record = NewLease {
        id: lease.lease().clone(),
        agent_id: lease.agent().clone(),
        kind: lease.kind(),
        action: lease.action(),
        sets: vec![(binding.set.clone(), binding.grant.clone())],
        issued_at: lease.issued_at(),
        expires_at: lease.expires_at(),
        revocation_id: lease.revocation_ids()[0],
        cut_off: 0,
        keys: Keys::All,
        parent: None,
    };
    let recorded = store.leases().create(lease.org(), record, &person()).await;
    recorded.unwrap();
}

pub(crate) fn person() -> Actor {
    Actor {
        kind: ActorKind::User,
        id: "usr_01K3ZZZZZZZZZZZZZZZZZZZZZZ".to_owned(),
        client_ip: None,
        request_id: None,
    }
}

/// What the audit trail tells of a POST to [`CHARGES`].
pub(crate) fn facts() -> RequestFacts {
    RequestFacts {
        request_id: "01998bd4-0000-7000-8000-000000000000".to_owned(),
        client_ip: [127, 0, 0, 1].into(),
        method: "POST".to_owned(),
        scheme: "https",
        host: "api.stripe.com".into(),
        port: 443,
        address: None,
        path: "/v1/charges".to_owned(),
    }
}
