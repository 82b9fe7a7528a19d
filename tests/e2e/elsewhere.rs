//! Another organisation of the same installation: what is not its own is to it as if it never existed, and nothing reaches a provider.

use serde_json::{Value, json};

use crate::people::PASSWORD;
use crate::support::api::Api;
use crate::support::{Reply, Stack};

const URL: &str = "https://api.stripe.com/v1/balance";

/// What is another's, beside what is nobody's.
struct Pair<'a> {
    others: &'a str,
    nobodys: &'a str,
}

impl Pair<'_> {
    /// Both get this one refusal, which tells neither from the other.
    async fn expect_alike(
        &self,
        (status, code): (u16, &str),
        ask: impl AsyncFn(&str) -> Reply,
    ) -> Value {
        let mut told = Vec::new();
        for named in [self.others, self.nobodys] {
            let reply = ask(named).await.expect_problem(status, code);
            let mut problem = reply.json();
            problem["instance"] = Value::Null;
            let detail = problem["detail"].as_str().unwrap();
            problem["detail"] = json!(detail.replace(named, "ID"));
            told.push(problem);
        }
        assert_eq!(told[0], told[1]);
        told.remove(0)
    }
}

/// An id of the same kind that nothing has.
fn unused(id: &str) -> String {
    let (rest, last) = id.split_at(id.len() - 1);
    let other = if last == "0" { "1" } else { "0" };
    format!("{rest}{other}")
}

/// An owner and an agent of an organisation of their own.
async fn strangers(stack: &Stack) -> [Api; 2] {
    stack.watch_token(PASSWORD);
    let nobody = stack.api("");
    let account = json!({ "email": "eve@elsewhere.example", "password": PASSWORD });
    let signed_up = nobody.post("/v1/auth/signup", &account).await;
    signed_up.expect_status(201);
    let signed_in = nobody.post("/v1/auth/token", &account).await;
    let signed_in = signed_in.expect_status(200).json();
    let owner = stack.api(signed_in["access_token"].as_str().unwrap());
    let made = owner.post("/v1/agents", &json!({ "name": "eve" })).await;
    let made = made.expect_status(201).json();
    let key = made["api_key"].as_str().unwrap();
    stack.watch_token(key);
    [owner, stack.api(key)]
}

async fn open() -> Stack {
    let stack = Stack::builder().variable("CLAVIGER_SIGN_UP", "open");
    stack.start().await
}

#[tokio::test]
async fn leases_and_sets_of_another_organisation_are_not_there() {
    let stack = open().await;
    let access = stack.stripe().await;
    let (token, lease) = stack.workflow_lease_with_id(&access).await;
    let unused_lease = unused(&lease);
    let leases = Pair {
        others: &lease,
        nobodys: &unused_lease,
    };
    let unused_set = unused(&access.set);
    let sets = Pair {
        others: &access.set,
        nobodys: &unused_set,
    };
    // Genuine, and with its signature broken.
    let forged = unused(&token);
    stack.watch_token(&forged);
    let tokens = Pair {
        others: &token,
        nobodys: &forged,
    };

    let strangers = strangers(&stack).await;
    let me = strangers[1].get("/v1/agents/me").await.json()["id"].clone();
    // An owner says for which agent, an agent need not.
    for (stranger, agent) in strangers.iter().zip([&me, &Value::Null]) {
        let by_id = async |id: &str| {
            let body = json!({ "lease_id": id, "target": { "url": URL } });
            stranger.post("/v1/vault/proxy", &body).await
        };
        leases.expect_alike((404, "not_found"), by_id).await;
        let by_token = async |token: &str| {
            let body = json!({ "lease_token": token, "target": { "url": URL } });
            stranger.post("/v1/vault/proxy", &body).await
        };
        tokens.expect_alike((401, "lease_invalid"), by_token).await;
        let by_profile = async |token: &str| {
            let body = json!({ "request_lease_token": token, "secret_set_id": access.set, "profile": "stripe",
                "request": { "url": URL } });
            stranger.post("/v1/vault/proxy/request", &body).await
        };
        tokens
            .expect_alike((401, "lease_invalid"), by_profile)
            .await;
        for method in ["GET", "DELETE"] {
            let at_id = async |id: &str| {
                let path = format!("/v1/vault/leases/{id}");
                if method == "GET" {
                    stranger.get(&path).await
                } else {
                    stranger.delete(&path).await
                }
            };
            leases.expect_alike((404, "not_found"), at_id).await;
        }
        let evaluate = async |id: &str| {
            let body = json!({ "secret_set_id": id, "action": "proxy", "agent_id": agent });
            stranger.post("/v1/vault/policy/eval", &body).await
        };
        let mint = async |id: &str| {
            let body = json!({ "secret_set_id": id, "agent_id": agent });
            stranger.post("/v1/vault/leases", &body).await
        };
        sets.expect_alike((404, "not_found"), evaluate).await;
        sets.expect_alike((404, "not_found"), mint).await;
    }
    assert_eq!(stack.upstream.count(), 0);

    // To its own agent it is all there, as it was.
    let body = json!({ "lease_id": lease, "target": { "url": URL } });
    let own = stack.api(&access.agent_key);
    own.post("/v1/vault/proxy", &body).await.expect_status(200);
    stack.finish().await;
}

#[tokio::test]
async fn a_lease_of_ones_own_covers_no_set_of_another_organisation() {
    let stack = open().await;
    let access = stack.stripe().await;
    let [owner, agent] = strangers(&stack).await;
    let secret = stack.secret("sk_live_");
    let set = json!({ "provider": "stripe", "environment": "test", "name": "eve",
        "entries": { "STRIPE_SECRET_KEY": secret.text() } });
    let set = owner.post("/v1/vault/secret-sets", &set).await;
    let set = set.expect_status(201).json()["id"].clone();
    let me = agent.get("/v1/agents/me").await.expect_status(200).json();
    let grant = json!({ "agent_id": me["id"], "secret_set_id": set });
    let granted = owner.post("/v1/vault/grants", &grant).await;
    granted.expect_status(201);
    let minted = json!({ "secret_set_id": set });
    let minted = agent.post("/v1/vault/leases", &minted).await;
    let minted = minted.expect_status(201).json();
    let token = minted["token"].as_str().unwrap();
    stack.watch_token(token);

    let unused_set = unused(&access.set);
    let sets = Pair {
        others: &access.set,
        nobodys: &unused_set,
    };
    let ask = async |set: &str| {
        let body = json!({ "request_lease_token": token, "secret_set_id": set, "request": { "url": URL } });
        agent.post("/v1/vault/proxy/request", &body).await
    };
    sets.expect_alike((403, "grant_denied"), ask).await;
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn bindings_of_another_organisation_are_not_there() {
    let stack = open().await;
    let secret = stack.secret("tok_");
    let (agent, key) = stack.agent("bot").await;
    let binding = json!({ "name": "api", "binding_type": "http", "credential": secret.text(),
        "config": { "base_url": "https://api.notion.com", "auth_type": "bearer" } });
    let path = format!("/v1/agents/{agent}/bindings");
    let made = stack.admin().post(&path, &binding).await;
    let made = made.expect_status(201).json();
    let id = made["id"].as_str().unwrap();
    let unused_agent = unused(&agent);
    let agents = Pair {
        others: &agent,
        nobodys: &unused_agent,
    };

    let strangers = strangers(&stack).await;
    for stranger in &strangers {
        for named in ["api", id] {
            let execute = async |agent: &str| {
                let body = json!({ "binding": named, "params": { "path": "/v1/x" } });
                let path = format!("/v1/agents/{agent}/execute");
                stranger.post(&path, &body).await
            };
            agents.expect_alike((404, "not_found"), execute).await;
        }
        for rest in ["bindings", "bindings/api", "executions"] {
            let look =
                async |agent: &str| stranger.get(&format!("/v1/agents/{agent}/{rest}")).await;
            agents.expect_alike((404, "not_found"), look).await;
        }
    }
    // Nor by the stranger's own agent, to whom the id is nobody's.
    let [owner, eve] = &strangers;
    let me = eve.get("/v1/agents/me").await.expect_status(200).json();
    let me = me["id"].as_str().unwrap();
    let unused_binding = unused(id);
    let bindings = Pair {
        others: id,
        nobodys: &unused_binding,
    };
    let execute = async |id: &str| {
        let body = json!({ "binding": id, "params": { "path": "/v1/x" } });
        eve.post(&format!("/v1/agents/{me}/execute"), &body).await
    };
    bindings.expect_alike((404, "not_found"), execute).await;
    let end = async |id: &str| {
        owner
            .delete(&format!("/v1/agents/{me}/bindings/{id}"))
            .await
    };
    bindings.expect_alike((404, "not_found"), end).await;
    assert_eq!(stack.upstream.count(), 0);

    let body = json!({ "binding": "api", "params": { "path": "/v1/x" } });
    let path = format!("/v1/agents/{agent}/execute");
    let done = stack.api(&key).post(&path, &body).await;
    assert_eq!(done.expect_status(200).json()["status"], "completed");
    stack.finish().await;
}
