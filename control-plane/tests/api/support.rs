//! The world of a test: two organisations with a person and an agent each, and a hand-turned clock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::leases::clock::{Clock, ManualClock, SystemClock};
use ::leases::id::{OrgId, VaultId};
use ::providers::Catalog;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use control_plane::{
    ApiKey, AppState, ControlPlane, DeliveryOptions, InjectorUrl, KeyChest, KeyHolder, KeyRing,
    Limits, Metrics, OutboundOptions, Parts, PeopleOptions, RotationOptions, Signers, Start, app,
    bootstrap,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::{Actor, Location, NewUser, NewVault, Role, Store, StoreOptions};
use tempfile::TempDir;
use test_postgres::{Database, Server};
use time::macros::datetime;
use tokio::sync::watch;
use tower::ServiceExt;
use vault::{KeyWrapper, Protection, SoftwareKeys, Vault};

use crate::doubles::PaperCa;

/// When every test begins.
pub(crate) const START: time::OffsetDateTime = datetime!(2026-11-22 07:00 UTC);

/// What stands where a value would be found if one leaked.
pub(crate) const CANARY: &str = "sk_live_canary_4f1b9c07d2e84a63b5a1c9e0f7d31b22";

/// Who sends a request.
#[derive(Debug, Clone)]
pub(crate) struct Who(pub(crate) Option<String>);

/// [`nobody`], for as long as it takes.
pub(crate) static NOBODY: Who = Who(None);

/// Nobody: no credential at all.
pub(crate) fn nobody() -> Who {
    Who(None)
}

/// Whoever holds this credential.
pub(crate) fn holder(credential: impl Into<String>) -> Who {
    Who(Some(credential.into()))
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text))
    }

    pub(crate) fn field(&self, pointer: &str) -> String {
        let body = self.json();
        let found = body.pointer(pointer).and_then(Value::as_str);
        found
            .unwrap_or_else(|| panic!("no text at {pointer}: {}", self.text))
            .to_owned()
    }

    /// Asserts success and gives the body.
    #[track_caller]
    pub(crate) fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// Asserts a proper refusal and gives its detail.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(
            self.headers[header::CONTENT_TYPE],
            "application/problem+json",
            "{}",
            self.text
        );
        let body = self.json();
        assert_eq!(body["error"], code, "{}", self.text);
        assert_eq!(body["status"], status);
        // The seeds' clients know two by their bare names alone.
        if matches!(code, "resource_limit_exceeded" | "approval_required") {
            assert_eq!(body["type"], code);
        } else {
            assert_eq!(body["type"], format!("/v1/problems/{code}"));
        }
        assert!(
            body["title"]
                .as_str()
                .is_some_and(|title| !title.is_empty())
        );
        assert!(
            body["instance"]
                .as_str()
                .is_some_and(|id| id.starts_with("urn:uuid:")),
            "{}",
            self.text
        );
        assert_eq!(
            self.headers.contains_key(header::WWW_AUTHENTICATE),
            status == 401
        );
        assert_eq!(
            self.headers.contains_key(header::RETRY_AFTER),
            status == 429 || status == 503
        );
        body["detail"].as_str().expect("a detail").to_owned()
    }
}

/// An organisation with people.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) org: OrgId,
    pub(crate) admin: Who,
}

/// Where a world's database is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Base {
    #[default]
    File,
    Postgres,
}

/// What a world is made of, beside what every world has.
#[derive(Default)]
pub(crate) struct Setup {
    pub(crate) base: Base,
    pub(crate) limits: Limits,
    /// Software keys in the world's directory, unless said otherwise.
    pub(crate) wrapper: Option<Arc<dyn KeyWrapper>>,
    pub(crate) signers: Signers,
    /// Whether the limit on requests of an address holds, which most tests would run into.
    pub(crate) paced: bool,
    /// As many sign-ins as a test makes, unless said otherwise.
    pub(crate) people: Option<PeopleOptions>,
    /// Whom the plane may ask: nothing on this machine, unless said otherwise.
    pub(crate) outbound: OutboundOptions,
    /// How it tells the trail.
    pub(crate) delivery: DeliveryOptions,
}

/// A control plane as it starts.
pub(crate) struct Plane {
    pub(crate) state: AppState,
    pub(crate) chest: KeyChest,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) admin_key: Option<String>,
}

impl Plane {
    async fn start(
        store: &Store,
        vault: &Vault,
        catalog: &watch::Sender<Arc<Catalog>>,
        clock: &Arc<dyn Clock>,
        signers: Signers,
        (limits, people): (Limits, Option<PeopleOptions>),
        (injectors, outbound, delivery): (Vec<InjectorUrl>, OutboundOptions, DeliveryOptions),
    ) -> Self {
        let found = bootstrap(&Start {
            store,
            vault,
            clock: clock.as_ref(),
            signers,
            node: "local",
        })
        .await
        .unwrap();
        let keys = Arc::new(found.keys);
        let state = ControlPlane::new(Parts {
            store: store.clone(),
            vault: vault.clone(),
            catalog: catalog.clone(),
            clock: Arc::clone(clock),
            keys: Arc::clone(&keys),
            jwt: found.jwt,
            chest: found.chest.clone(),
            ca: Some(Arc::new(PaperCa)),
            ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            injectors,
            outbound,
            delivery,
            inject: None,
            rotation: RotationOptions {
                batch: 16,
                look: Duration::from_millis(2),
                settle: Duration::ZERO,
                ..RotationOptions::default()
            },
            people: people.unwrap_or_else(|| PeopleOptions {
                sign_in_burst: 1000.try_into().unwrap(),
                ..PeopleOptions::default()
            }),
            metrics: Metrics::new(prometheus::Registry::new()).unwrap(),
            limits,
        });
        Self {
            state,
            chest: found.chest,
            keys,
            admin_key: found.admin_key.map(|key| key.reveal().to_owned()),
        }
    }
}

fn unpaced(limits: &Limits) -> Limits {
    Limits {
        requests_per_second: None,
        ..limits.clone()
    }
}

/// Opens a database as a node, and makes its schema.
pub(crate) async fn open(
    location: Location,
    dir: &Path,
    node: &str,
    clock: &Arc<dyn Clock>,
) -> Store {
    let checkpoint = dir.join(format!("{node}.checkpoint"));
    let options = StoreOptions {
        node: node.to_owned(),
        ..StoreOptions::at(location, checkpoint, Arc::clone(clock))
    };
    Store::migrate(&options.location).await.unwrap();
    Store::open(options).await.unwrap()
}

/// The embedded key provider.
pub(crate) fn software(dir: &Path) -> Arc<dyn KeyWrapper> {
    Arc::new(SoftwareKeys::open(dir, Protection::File).unwrap())
}

/// All that a test works with.
pub(crate) struct World {
    pub(crate) app: Router,
    pub(crate) state: AppState,
    pub(crate) chest: KeyChest,
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) catalog: watch::Sender<Arc<Catalog>>,
    /// The first organisation.
    pub(crate) home: Tenant,
    /// Another one, which must never see anything of the first.
    pub(crate) other: Tenant,
    /// Every answer so far.
    pub(crate) seen: Mutex<Vec<String>>,
    pub(crate) dir: TempDir,
    _postgres: Option<Database<'static>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::of(Setup::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::of(Setup {
            limits,
            ..Setup::default()
        })
        .await
    }

    pub(crate) async fn of(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The functions of a server's ledger live by the server's clock.
        let (start, postgres) = match setup.base {
            Base::File => (START, None),
            Base::Postgres => (SystemClock.now(), Some(Server::shared().database())),
        };
        let clock = Arc::new(ManualClock::new(start - Duration::from_secs(1)));
        let shared: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
        let location = match &postgres {
            None => Location::Sqlite(dir.path().join("claviger.db")),
            Some(database) => Location::parse(&database.url()).unwrap(),
        };
        let store = open(location, dir.path(), "local", &shared).await;
        let wrapper = setup
            .wrapper
            .unwrap_or_else(|| software(&dir.path().join("keys")));
        let vault = Vault::new(wrapper);
        let catalog = watch::Sender::new(Arc::new(Catalog::builtin()));
        let plane = Plane::start(
            &store,
            &vault,
            &catalog,
            &shared,
            setup.signers,
            (
                if setup.paced {
                    setup.limits
                } else {
                    unpaced(&setup.limits)
                },
                setup.people,
            ),
            (Vec::new(), setup.outbound, setup.delivery),
        )
        .await;
        let admin = holder(plane.admin_key.expect("the first start makes a key"));
        // Later than the first organisation, as in life.
        clock.set(start);
        let other = second_tenant(&store, &vault).await;
        let home = Tenant {
            org: plane.chest.org().clone(),
            admin,
        };
        Self {
            app: app(Arc::clone(&plane.state)),
            state: plane.state,
            chest: plane.chest,
            store,
            vault,
            clock,
            keys: plane.keys,
            catalog,
            home,
            other,
            seen: Mutex::default(),
            dir,
            _postgres: postgres,
        }
    }

    /// The same database as another node has it; of a file the same store, for that is one process's.
    pub(crate) async fn node(&self, name: &str) -> Store {
        match self.store.location() {
            Location::Sqlite(_) => self.store.clone(),
            location @ Location::Postgres(_) => {
                let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
                open(location.clone(), self.dir.path(), name, &clock).await
            }
        }
    }

    /// Another control plane on the same database, with a key provider and signers of its own.
    pub(crate) async fn plane(
        &self,
        vault: &Vault,
        signers: Signers,
        injectors: Vec<InjectorUrl>,
    ) -> Plane {
        let ways = (injectors, OutboundOptions::default());
        self.plane_with("second", vault, signers, ways).await
    }

    /// Another control plane, which may ask others.
    pub(crate) async fn plane_with(
        &self,
        node: &str,
        vault: &Vault,
        signers: Signers,
        (injectors, outbound): (Vec<InjectorUrl>, OutboundOptions),
    ) -> Plane {
        let store = self.node(node).await;
        let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(&self.clock);
        Plane::start(
            &store,
            vault,
            &self.catalog,
            &clock,
            signers,
            (unpaced(&Limits::default()), None),
            (injectors, outbound, DeliveryOptions::default()),
        )
        .await
    }

    /// The same world, asked through another plane.
    pub(crate) fn through(&mut self, plane: &Plane) {
        self.app = app(Arc::clone(&plane.state));
        self.state = Arc::clone(&plane.state);
    }

    /// Takes up what other processes changed, as a server does every few seconds.
    pub(crate) async fn follow(&self) {
        ControlPlane::follow_once(&self.state).await.unwrap();
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Answer {
        if request
            .extensions()
            .get::<ConnectInfo<SocketAddr>>()
            .is_none()
        {
            request
                .extensions_mut()
                .insert(ConnectInfo(SocketAddr::from(([192, 0, 2, 7], 4711))));
        }
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        // A feed has no end to wait for; `feed` reads it.
        let is_feed = parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind == "text/event-stream");
        let bytes = if is_feed {
            Bytes::new()
        } else {
            body.collect().await.unwrap().to_bytes()
        };
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        self.seen
            .lock()
            .unwrap()
            .push(format!("{:?} {text}", parts.headers));
        Answer {
            status: parts.status,
            headers: parts.headers,
            text,
        }
    }

    /// Opens a feed of server-sent events, from behind the one of that id.
    pub(crate) async fn feed(&self, path: &str, actor: &Who, seen: Option<&str>) -> Feed {
        let mut request = request(Method::GET, path, actor, None);
        if let Some(seen) = seen {
            let seen = seen.parse().unwrap();
            request.headers_mut().insert("last-event-id", seen);
        }
        let response = self.app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Feed {
            body: response.into_body(),
            ready: VecDeque::new(),
        }
    }

    pub(crate) async fn get(&self, path: &str, actor: &Who) -> Answer {
        self.send(request(Method::GET, path, actor, None)).await
    }

    pub(crate) async fn delete(&self, path: &str, actor: &Who) -> Answer {
        self.send(request(Method::DELETE, path, actor, None)).await
    }

    pub(crate) async fn post(&self, path: &str, actor: &Who, body: Value) -> Answer {
        self.send(request(Method::POST, path, actor, Some(body)))
            .await
    }

    pub(crate) async fn put(&self, path: &str, actor: &Who, body: Value) -> Answer {
        self.send(request(Method::PUT, path, actor, Some(body)))
            .await
    }

    pub(crate) async fn patch(&self, path: &str, actor: &Who, body: Value) -> Answer {
        self.send(request(Method::PATCH, path, actor, Some(body)))
            .await
    }

    /// Makes an agent; its id and key.
    pub(crate) async fn agent(&self, person: &Who, name: &str) -> (String, Who) {
        let answer = self.post("/v1/agents", person, json!({"name": name})).await;
        (answer.field("/agent/id"), holder(answer.field("/api_key")))
    }

    /// Makes a stripe set; its id.
    pub(crate) async fn stripe_set(&self, person: &Who, name: &str) -> String {
        let body = json!({"provider": "stripe", "environment": "prod", "name": name, "entries": {"STRIPE_SECRET_KEY": CANARY}});
        self.post("/v1/vault/secret-sets", person, body)
            .await
            .field("/id")
    }

    /// Makes a grant with further fields; its id.
    pub(crate) async fn grant(&self, person: &Who, agent: &str, set: &str, more: Value) -> String {
        let mut body = json!({"agent_id": agent, "secret_set_id": set});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let answer = self.post("/v1/vault/grants", person, body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.field("/id")
    }

    /// An agent with a grant on a stripe set.
    pub(crate) async fn granted(&self, more: Value) -> Granted {
        let (agent_id, agent) = self.agent(&self.home.admin, "billing-bot").await;
        let set_id = self.stripe_set(&self.home.admin, "billing-bot").await;
        let grant_id = self.grant(&self.home.admin, &agent_id, &set_id, more).await;
        Granted {
            agent_id,
            agent,
            set_id,
            grant_id,
        }
    }

    /// Mints a lease; its id and token.
    pub(crate) async fn lease(&self, agent: &Who, body: Value) -> (String, String) {
        let answer = self.post("/v1/vault/leases", agent, body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        (answer.field("/lease_id"), answer.field("/token"))
    }

    /// The actions of all events of the home organisation, oldest first.
    pub(crate) async fn events(&self, query: &str) -> Vec<Value> {
        let answer = self
            .get(&format!("/v1/audit/export{query}"), &self.home.admin)
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer
            .text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A feed of server-sent events.
pub(crate) struct Feed {
    body: Body,
    ready: VecDeque<Message>,
}

/// One message of a feed.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) data: String,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

impl Feed {
    /// The next message; `None` when the feed ends.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        while self.ready.is_empty() {
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame())
                .await
                .expect("a message or the end within 20 s")?;
            let bytes = frame.unwrap().into_data().unwrap();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            for message in text.split("\n\n").filter(|text| !text.is_empty()) {
                let field = |name: &str| {
                    let mut lines = message.lines();
                    lines
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or("")
                        .trim()
                        .to_owned()
                };
                self.ready.push_back(Message {
                    id: field("id:"),
                    data: field("data:"),
                });
            }
        }
        self.ready.pop_front()
    }

    /// The next message that carries an event.
    pub(crate) async fn event(&mut self) -> Message {
        loop {
            let message = self.next().await.expect("the feed goes on");
            if !message.data.is_empty() {
                return message;
            }
        }
    }
}

/// An agent that may use a set.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) agent_id: String,
    pub(crate) agent: Who,
    pub(crate) set_id: String,
    pub(crate) grant_id: String,
}

async fn second_tenant(store: &Store, vault: &Vault) -> Tenant {
    let actor = Actor::system("test");
    let org = store.orgs().create("other", &actor).await.unwrap().id;
    let id = VaultId::new(START);
    let kek = vault.wrapper().create_kek(id.as_str()).await.unwrap();
    store
        .vaults()
        .ensure_default(
            &org,
            NewVault {
                id,
                kek_id: kek.to_string(),
            },
        )
        .await
        .unwrap();
    let admin = person(store, &org, "other-admin", Role::Admin).await;
    Tenant { org, admin }
}

/// Makes a person with a key.
pub(crate) async fn person(store: &Store, org: &OrgId, name: &str, role: Role) -> Who {
    let actor = Actor::system("test");
    let user = store
        .users()
        .create(
            org,
            NewUser {
                name: name.to_owned(),
                role,
            },
            &actor,
        )
        .await
        .unwrap();
    let key = ApiKey::generate(KeyHolder::Person);
    assert!(
        store
            .users()
            .add_key(org, &user.id, &key.hash(), &actor)
            .await
            .unwrap()
    );
    holder(key.reveal())
}

/// A request, as any HTTP client would send it.
pub(crate) fn request(
    method: Method,
    path: &str,
    actor: &Who,
    body: Option<Value>,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(credential) = &actor.0 {
        request = request.header(header::AUTHORIZATION, format!("Bearer {credential}"));
    }
    match body {
        Some(body) => request
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
            .unwrap(),
        None => request.body(Body::empty()).unwrap(),
    }
}

/// A password by the rules.
pub(crate) const PASSWORD: &str = "Correct-horse7battery";

impl World {
    /// A person of the home organisation, who was invited and has signed in: the id and the session.
    pub(crate) async fn person(&self, email: &str, role: &str) -> (String, Who) {
        let body = json!({"email": email, "role": role});
        let owner = &self.home.admin;
        let invited = self.post("/v1/org/invitations", owner, body).await;
        let body = json!({"token": invited.field("/token"), "password": PASSWORD});
        let accepted = self
            .post("/v1/auth/accept-invitation", &nobody(), body)
            .await;
        let session = holder(accepted.field("/access_token"));
        let id = self.get("/v1/auth/me", &session).await.field("/id");
        (id, session)
    }
}
