//! Identity keys: others know an agent by them, and their private halves are for whom people let.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::Stack;
use crate::vaults::revealed;

const VAULT: &str = "__agent-keys";

/// The agent's record as the command line shows it.
async fn shown(stack: &Stack) -> Value {
    let shown = stack.cli(&["--json", "agent", "show", "signer"]).await;
    serde_json::from_str(&shown.expect_success().stdout).unwrap()
}

/// What a private key holds, which has its public half in it; the sweep looks for its text from here on.
async fn opened(stack: &Stack, path: &str) -> Vec<u8> {
    let get = ["secret", "get", path, "--vault", VAULT, "--reveal"];
    let pem = revealed(stack, &get).await;
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    // In either format the private number stands in the middle.
    stack.watch_token(lines[lines.len() / 2]);
    STANDARD.decode(lines.concat()).unwrap()
}

async fn refused(stack: &Stack, arguments: &[&str], why: &str) {
    let refused = stack.cli(arguments).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains(why), "{refused:?}");
}

#[tokio::test]
async fn an_agent_is_known_by_keys_that_people_open_and_rotate() {
    let stack = Stack::start().await;
    refused(&stack, &["vault", "create", VAULT], "the service's own").await;
    let (agent, key) = stack.agent("signer").await;
    let bot = stack.api(&key);
    let first = shown(&stack).await;
    for (kind, field) in [("ssh", "ssh_public_key"), ("ecdh", "ecdh_public_key")] {
        let path = format!("agents/{agent}/{kind}/private_key");
        let private = opened(&stack, &path).await;
        let public = STANDARD.decode(first[field].as_str().unwrap()).unwrap();
        assert!(
            private.windows(public.len()).any(|part| part == public),
            "{kind}"
        );
        let secret = format!("/v1/vaults/{VAULT}/secrets/{path}");
        bot.get(&secret).await.expect_status(404);
        let delete = ["secret", "delete", &path, "--vault", VAULT];
        refused(&stack, &delete, "rotate-identity-keys").await;
    }
    let rotate = format!("/v1/agents/{agent}/rotate-identity-keys");
    bot.post(&rotate, &json!({})).await.expect_status(403);

    let rotated = ["agent", "rotate-identity-keys", "signer"];
    let rotated = stack.cli(&rotated).await.expect_success().stdout;
    let second = shown(&stack).await;
    assert_ne!(first["ssh_public_key"], second["ssh_public_key"]);
    assert!(rotated.contains(second["ssh_public_key"].as_str().unwrap()));
    let path = format!("agents/{agent}/ssh/private_key");
    opened(&stack, &path).await;

    // The agent's end is theirs.
    stack
        .cli(&["agent", "revoke", "signer"])
        .await
        .expect_success();
    let get = ["secret", "get", &path, "--vault", VAULT, "--reveal"];
    refused(&stack, &get, "deleted").await;
    stack.finish_without_traffic().await;
}
