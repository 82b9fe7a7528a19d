//! The usual cast: a secret set, an agent and a grant, ready to mint leases from.

use serde_json::{Value, json};

use super::canary::Canary;
use super::ends::Ends;

/// A set, an agent and the grant that joins them.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) set: String,
    pub(crate) agent: String,
    pub(crate) agent_key: String,
    pub(crate) grant: String,
    pub(crate) secret: Canary,
}

/// What a grant allows when a test says nothing else.
const ACTIONS: [&str; 2] = ["proxy_use", "mint_workflow_lease"];

/// Longer than any story takes, the long ones too; the most that a lease may have is a day.
const LONG: u64 = 12 * 3_600;

impl Ends {
    /// Stripe with a fresh key, and a grant without constraints.
    pub(crate) async fn stripe(&self) -> Access {
        self.stripe_with(&json!({})).await
    }

    /// Stripe with a fresh key, and a grant with these fields on top of the usual ones.
    pub(crate) async fn stripe_with(&self, grant: &Value) -> Access {
        let secret = self.secret("sk_live_");
        self.access(
            "stripe",
            &json!({ "STRIPE_SECRET_KEY": secret.text() }),
            &secret,
            grant,
        )
        .await
    }

    /// Stripe with a fresh key for another agent, whose name and set this is.
    pub(crate) async fn stripe_of(&self, name: &str) -> Access {
        let secret = self.secret("sk_live_");
        let entries = json!({ "STRIPE_SECRET_KEY": secret.text() });
        let set = self.put_set("stripe", name, &entries).await;
        let (agent, agent_key) = self.agent(name).await;
        let grant = self.grant(&agent, &set, &json!({})).await;
        Access {
            set,
            agent,
            agent_key,
            grant,
            secret,
        }
    }

    /// A set of `provider` with these entries, a new agent, and a grant with these fields on top of the usual ones.
    pub(crate) async fn access(
        &self,
        provider: &str,
        entries: &Value,
        secret: &Canary,
        grant: &Value,
    ) -> Access {
        let set = self
            .put_set(provider, &format!("{provider}-bot"), entries)
            .await;
        let (agent, agent_key) = self.agent(&format!("{provider}-agent")).await;
        let grant = self.grant(&agent, &set, grant).await;
        Access {
            set,
            agent,
            agent_key,
            grant,
            secret: secret.clone(),
        }
    }

    /// A `custom` set with these entries and this spec, a new agent, and a grant.
    pub(crate) async fn custom_access(
        &self,
        name: &str,
        entries: &Value,
        custom: &Value,
        secret: &Canary,
    ) -> Access {
        let set = self.put_custom_set(name, entries, custom).await;
        let (agent, agent_key) = self.agent(&format!("{name}-agent")).await;
        let grant = self.grant(&agent, &set, &json!({})).await;
        Access {
            set,
            agent,
            agent_key,
            grant,
            secret: secret.clone(),
        }
    }

    /// A new agent and its key.
    pub(crate) async fn agent(&self, name: &str) -> (String, String) {
        let made = self
            .admin()
            .post("/v1/agents", &json!({ "name": name }))
            .await
            .expect_status(201)
            .json();
        let key = made["api_key"]
            .as_str()
            .expect("a new agent has a key")
            .to_owned();
        self.watch_token(&key);
        (
            made["agent"]["id"]
                .as_str()
                .expect("an agent has an id")
                .to_owned(),
            key,
        )
    }

    /// A grant with these fields on top of the usual ones.
    pub(crate) async fn grant(&self, agent: &str, set: &str, more: &Value) -> String {
        let mut body =
            json!({ "agent_id": agent, "secret_set_id": set, "allowed_actions": ACTIONS });
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        let grant = self
            .admin()
            .post("/v1/vault/grants", &body)
            .await
            .expect_status(201)
            .json();
        grant["id"].as_str().expect("a grant has an id").to_owned()
    }

    /// A lease for one request.
    pub(crate) async fn request_lease(&self, access: &Access) -> String {
        self.mint(
            &json!({ "secret_set_id": access.set, "agent_id": access.agent, "kind": "request" }),
        )
        .await
    }

    /// A lease for one request that is still good when a story has stopped and started its server a few times.
    pub(crate) async fn long_request_lease(&self, access: &Access) -> String {
        self.mint(&json!({
            "secret_set_id": access.set, "agent_id": access.agent, "kind": "request", "ttl_seconds": 900,
        }))
        .await
    }

    /// A lease for many requests.
    pub(crate) async fn workflow_lease(&self, access: &Access) -> String {
        let body = json!({
            "secret_set_id": access.set, "agent_id": access.agent, "kind": "workflow", "ttl_seconds": LONG,
        });
        self.mint(&body).await
    }

    /// A lease for many requests, and its id.
    pub(crate) async fn workflow_lease_with_id(&self, access: &Access) -> (String, String) {
        let body = json!({
            "secret_set_id": access.set, "agent_id": access.agent, "kind": "workflow", "ttl_seconds": LONG,
        });
        let minted = self
            .admin()
            .post("/v1/vault/leases", &body)
            .await
            .expect_status(201)
            .json();
        let token = minted["token"]
            .as_str()
            .expect("a minted lease has a token")
            .to_owned();
        self.watch_token(&token);
        (
            token,
            minted["lease_id"]
                .as_str()
                .expect("a minted lease has an id")
                .to_owned(),
        )
    }
}
