//! An identity provider vouches for people at their terminals and for agents without keys, over TLS and by the guarded way out.

use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::people::{PASSWORD, Terminal};
use crate::support::canary::Canary;
use crate::support::identity_provider::{CLIENT, IdentityProvider};
use crate::support::stack::binary;
use crate::support::{Reply, Stack, wait};

const HOST: &str = "id.example.org";

#[track_caller]
fn refused_by_api(reply: Reply, status: u16, code: &str) {
    let reply = reply.expect_status(status);
    assert_eq!(reply.code(), code);
}

async fn stack(host: &'static str, issuer: &str) -> (Stack, IdentityProvider) {
    let home = tempfile::tempdir().unwrap();
    let secret = Canary::new("oidc_client_");
    let file = home.path().join("secret");
    std::fs::write(&file, secret.text()).unwrap();
    let stack = Stack::builder()
        .token_endpoint(host)
        .variable("CLAVIGER_OIDC_ISSUER", issuer)
        .variable("CLAVIGER_OIDC_CLIENT_ID", CLIENT)
        .variable(
            "CLAVIGER_OIDC_CLIENT_SECRET_FILE",
            file.display().to_string(),
        )
        .variable("CLAVIGER_OIDC_ALLOWED_DOMAINS", "example.org")
        .start()
        .await;
    stack.watch(secret);
    let provider = IdentityProvider::at(stack.tokens(), host);
    (stack, provider)
}

/// Runs a command that shows a page of the provider and waits, while somebody signs in there; the page, and what the command did.
async fn by_provider(
    provider: &IdentityProvider,
    who: &str,
    mut command: Command,
) -> (String, Output) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let shown = lines.next_line().await.unwrap().unwrap();
    let page = shown.split("https://").nth(1);
    let page = page.unwrap_or_else(|| panic!("no page: {shown}"));
    let page = format!("https://{page}");
    provider.sign_in(&page, who).await.expect_status(200);
    let output = wait::within("the command to end", child.wait_with_output()).await;
    (page, output.unwrap())
}

#[tokio::test]
async fn a_colleague_signs_in_by_the_identity_provider() {
    let (stack, provider) = stack(HOST, "https://id.example.org").await;
    let ada = Terminal::new(&stack);

    let login = || ada.command(&["login", "--oidc"]);
    let (_, refused) = by_provider(&provider, "ada", login()).await;
    assert_eq!(refused.status.code(), Some(1));

    let invite = ["member", "invite", "ada@example.org", "--role", "auditor"];
    stack.cli(&invite).await.expect_success();
    let (page, done) = by_provider(&provider, "ada", login()).await;
    assert!(
        page.starts_with("https://id.example.org/authorize?"),
        "{page}"
    );
    assert!(done.status.success(), "{done:?}");
    let me = ada.json(&["whoami"]).await;
    assert_eq!(me["email"], "ada@example.org");
    assert_eq!(me["role"], "auditor");
    assert_eq!(me["auth_method"], "oidc");
    ada.run(&["logout"]).await.expect_success();
    let ended = ada.run(&["whoami"]).await;
    assert_eq!(ended.status, Some(1), "{ended:#?}");
    stack.finish().await;
}

#[tokio::test]
async fn an_account_that_was_there_before_is_linked_by_its_owner() {
    let (stack, provider) = stack(HOST, "https://id.example.org").await;
    stack.watch_token(PASSWORD);
    let email = ["account", "email", "owner@example.org"];
    stack.cli(&email).await.expect_success();
    let owner = Terminal::new(&stack);
    let password = owner.file("password", PASSWORD);
    let choose = ["account", "password", "--new-password-file", &password];
    stack.cli(&choose).await.expect_success();

    let login = || owner.command(&["login", "--oidc"]);
    let (_, refused) = by_provider(&provider, "owner", login()).await;
    assert_eq!(refused.status.code(), Some(1));
    let link = stack.command(&["account", "link", "--password-file", &password]);
    let (_, linked) = by_provider(&provider, "owner", link).await;
    assert!(linked.status.success(), "{linked:?}");

    let (_, done) = by_provider(&provider, "owner", login()).await;
    assert!(done.status.success(), "{done:?}");
    assert_eq!(owner.json(&["whoami"]).await["role"], "owner");
    // What the provider's word began ends with the link, and nothing begins by it again.
    stack.cli(&["account", "unlink"]).await.expect_success();
    let ended = owner.run(&["whoami"]).await;
    assert_eq!(ended.status, Some(1), "{ended:#?}");
    let (_, refused) = by_provider(&provider, "owner", login()).await;
    assert_eq!(refused.status.code(), Some(1));
    stack.finish().await;
}

#[tokio::test]
async fn googles_own_token_is_taken_once_and_of_a_hosted_domain_alone() {
    let host = "accounts.google.com";
    let (stack, google) = stack(host, "google").await;
    let invite = ["member", "invite", "ada@example.org"];
    stack.cli(&invite).await.expect_success();
    let claims = json!({"aud": CLIENT, "azp": CLIENT, "sub": "1", "email": "ada@example.org", "email_verified": true});
    let nobody = stack.api("");
    let post = async |body: &Value| loop {
        let reply = nobody.post("/v1/auth/google", body).await;
        if reply.status != 429 {
            break reply;
        }
        tokio::time::sleep(reply.retry_after()).await;
    };
    let ask = async |claims: &Value| {
        let body = json!({"id_token": google.sign(claims)});
        (post(&body).await, body)
    };
    let (refused, _) = ask(&claims).await;
    refused_by_api(refused, 403, "identity_not_admitted");
    let mut hosted = claims;
    hosted["hd"] = json!("example.org");
    let (signed_in, body) = ask(&hosted).await;
    let signed_in = signed_in.expect_status(200).json();
    let session = stack.api(signed_in["access_token"].as_str().unwrap());
    let me = session.get("/v1/auth/me").await.expect_status(200).json();
    assert_eq!(me["email"], "ada@example.org");
    let again = post(&body).await;
    refused_by_api(again, 401, "unauthenticated");
    for (field, value) in [
        ("aud", json!("another-app")),
        ("iss", json!("accounts.google.com")),
        ("nonce", json!("of a browser")),
    ] {
        let mut wrong = hosted.clone();
        wrong[field] = value;
        let (refused, _) = ask(&wrong).await;
        refused_by_api(refused, 401, "unauthenticated");
    }
    stack.finish().await;
}

#[tokio::test]
async fn an_agent_without_a_key_works_by_its_providers_token_until_it_is_stopped() {
    let (stack, provider) = stack(HOST, "https://id.example.org").await;
    let access = stack.stripe().await;
    let create = [
        "--json",
        "agent",
        "create",
        "ci",
        "--auth",
        "oidc",
        "--oidc-issuer",
        &provider.issuer,
        "--oidc-client-id",
        "ci@clients",
    ];
    let made = stack.cli(&create).await.expect_success();
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let agent = made["agent"]["id"].as_str().unwrap();
    stack.grant(agent, &access.set, &json!({})).await;
    let rotate = stack.cli(&["agent", "rotate-key", "ci"]).await;
    assert_eq!(rotate.status, Some(1), "{rotate:#?}");
    assert!(
        rotate.stderr.contains("oidc_client_credentials"),
        "{rotate:#?}"
    );

    let nobody = stack.api("");
    let exchange = async |claims: Value| {
        let body = json!({"agent_id": agent, "oidc_token": provider.sign(&claims)});
        nobody.post("/v1/auth/agent-token", &body).await
    };
    let claims = json!({"aud": "claviger", "sub": "ci@clients", "azp": "ci@clients"});
    let refused = exchange(json!({"aud": "another", "sub": "ci@clients"})).await;
    refused_by_api(refused, 401, "unauthenticated");
    let token = exchange(claims.clone()).await.expect_status(200).json();
    let token = token["access_token"].as_str().unwrap();
    stack.watch_token(token);
    let body = json!({"secret_set_id": access.set, "kind": "workflow", "ttl_seconds": 300});
    let minted = stack.api(token).post("/v1/vault/leases", &body).await;
    let minted = minted.expect_status(201).json();
    let lease = minted["token"].as_str().unwrap();
    stack.watch_token(lease);
    let used = stack.get("api.stripe.com", "/v1/balance", lease).await;
    used.expect_status(200);
    // Another audience at the same provider, and the usual one again.
    for (audience, shown) in [("vault", json!("vault")), ("", Value::Null)] {
        let update = [
            "--json",
            "agent",
            "update",
            "ci",
            "--oidc-audience",
            audience,
        ];
        let updated = stack.cli(&update).await.expect_success();
        let updated: Value = serde_json::from_str(&updated.stdout).unwrap();
        assert_eq!(updated["oidc_audience"], shown, "{updated}");
        assert_eq!(updated["oidc_client_id"], "ci@clients");
        let expected = if audience.is_empty() { 200 } else { 401 };
        exchange(claims.clone()).await.expect_status(expected);
    }
    let update = [
        "agent",
        "update",
        "stripe-agent",
        "--oidc-audience",
        "vault",
    ];
    let refused = stack.cli(&update).await;
    assert_eq!(refused.status, Some(1), "{refused:#?}");
    stack.cli(&["agent", "revoke", "ci"]).await.expect_success();
    let refused = exchange(claims).await;
    refused_by_api(refused, 401, "unauthenticated");
    stack.finish().await;
}

#[tokio::test]
async fn an_installation_without_a_provider_says_so_and_a_half_one_does_not_start() {
    let stack = Stack::start().await;
    let refused = Terminal::new(&stack).run(&["login", "--oidc"]).await;
    assert_eq!(refused.status, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("hint:"), "{refused:#?}");
    let mut check = binary(stack.home.path());
    check
        .args(["config", "check"])
        .env("CLAVIGER_OIDC_ISSUER", "https://id.example.org");
    let half = stack.run(check).await;
    assert_eq!(half.status, Some(1), "{half:#?}");
    assert!(half.stderr.contains("oidc.client_id"), "{half:#?}");
    // Issuers of agents may not be where nobody may send this server.
    let create = [
        "agent",
        "create",
        "ci",
        "--auth",
        "oidc",
        "--oidc-issuer",
        "https://169.254.169.254",
        "--oidc-client-id",
        "ci",
    ];
    let blocked = stack.cli(&create).await;
    assert_eq!(blocked.status, Some(1), "{blocked:#?}");
    let usage = stack
        .cli(&["agent", "create", "ci", "--auth", "oidc"])
        .await;
    assert_eq!(usage.status, Some(2), "{usage:#?}");
    stack.finish().await;
}
