//! Shares: a colleague, an agent, somebody by a link: each gets the value as often as was said, and nobody else gets a word.

use std::fs::File;

use serde_json::{Value, json};

use crate::support::canary::Canary;
use crate::support::{Stack, wait};
use crate::webhooks::Receiver;

const PASSPHRASE: &str = "a walrus on a bicycle";

/// Stores a value by the command line.
async fn put(stack: &Stack, path: &str) -> Canary {
    let value = stack.secret("key-");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), value.text()).unwrap();
    let file = file.path().to_str().unwrap();
    let arguments = ["secret", "put", path, "--file", file];
    stack.cli(&arguments).await.expect_success();
    value
}

/// Shares by the command line; the answer, and what opens it.
async fn share(stack: &Stack, arguments: &[&str]) -> (Value, String) {
    let mut all = vec!["--json", "share", "create", "--expires", "1h"];
    all.extend(arguments);
    // What it prints may be a link, which the leak sweep looks for.
    let output = stack.command(&all).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let url = made["share_url"].as_str().unwrap();
    let says = url.strip_prefix("/v1/share/").unwrap().to_owned();
    if says.starts_with("share_") {
        stack.watch_token(&says);
    }
    (made, says)
}

/// Opens a share by the command line as nobody in particular, by a link on standard input.
async fn open(stack: &Stack, link: &str, more: &[&str]) -> std::process::Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{link}\n")).unwrap();
    let mut arguments = vec!["share", "open", "-"];
    arguments.extend(more);
    let mut command = stack.command(&arguments);
    command.stdin(File::open(file.path()).unwrap());
    command.output().await.unwrap()
}

fn printed(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn a_link_opens_as_often_as_was_said_and_every_time_is_on_record() {
    let stack = Stack::start().await;
    stack.watch_token(PASSPHRASE);
    let value = put(&stack, "db/password").await;
    let words = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(words.path(), format!("{PASSPHRASE}\n")).unwrap();
    let words = ["--passphrase-file", words.path().to_str().unwrap()];
    let twice = [&["db/password", "--link", "--max-reads", "2"], &words[..]].concat();
    let (made, link) = share(&stack, &twice).await;
    assert_eq!(made["id"], link.as_str());
    assert_eq!(made["export"], true);

    // Without its passphrase it is closed; with it, it opens twice.
    let refused = open(&stack, &link, &[]).await;
    assert_eq!(refused.status.code(), Some(1));
    let url = format!("http://{}/v1/share/{link}", stack.api_addr);
    assert_eq!(
        printed(&open(&stack, &url, &words).await).trim_end(),
        value.text()
    );
    assert_eq!(
        printed(&open(&stack, &link, &words).await).trim_end(),
        value.text()
    );
    let used_up = open(&stack, &link, &words).await;
    assert_eq!(used_up.status.code(), Some(1));
    assert_eq!(used_up.stderr, refused.stderr);
    let stderr = String::from_utf8(used_up.stderr).unwrap();
    assert!(stderr.contains("hint:"), "{stderr}");

    // Others can read a command line, so a link is none of its words.
    let named = stack.command(&["share", "open", "share_x"]);
    let named = stack.run(named).await;
    assert_eq!(named.status, Some(2));
    assert!(named.stderr.contains("pipe a link in"), "{named:?}");
    let elsewhere = open(&stack, "https://vault.example/v1/share/share_x", &[]).await;
    assert_eq!(elsewhere.status.code(), Some(1));

    // Another one, and its end.
    let (made, link) = share(&stack, &["db/password", "--link"]).await;
    let id = made["share_id"].as_str().unwrap();
    let listed = stack.cli(&["share", "list"]).await.expect_success();
    assert!(listed.stdout.contains(id) && listed.stdout.contains("EXPORT"));
    printed(&open(&stack, &link, &[]).await);
    let revoked = stack.cli(&["share", "revoke", id]).await;
    revoked.expect_success();
    assert_eq!(open(&stack, &link, &[]).await.status.code(), Some(1));
    let shown = stack.cli(&["share", "show", id]).await.expect_success();
    assert!(shown.stdout.contains("is_revoked"), "{shown:?}");

    let events = stack.events().await;
    let opened = events
        .iter()
        .filter(|event| event["action"] == "secret.export" && event["decision"] == "allow");
    assert_eq!(opened.count(), 3);
    let refused: Vec<&str> = events
        .iter()
        .filter(|event| event["decision"] == "deny")
        .filter_map(|event| event["error"].as_str())
        .collect();
    for why in ["share_passphrase", "share_exhausted", "share_revoked"] {
        assert!(refused.contains(&why), "{refused:?}");
    }
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn an_agent_hands_what_it_found_to_its_person_and_gets_what_is_exported_to_it() {
    let mut stack = Stack::start().await;
    let (agent, agent_key) = stack.agent("finder").await;
    let found = put(&stack, "found/token").await;
    let other = put(&stack, "other/token").await;
    let policy = [
        "policy",
        "create",
        "--vault",
        "default",
        "--agent",
        "finder",
        "--path",
        "found/**",
        "--permissions",
        "read",
    ];
    stack.cli(&policy).await.expect_success();
    let bot = stack.api(&agent_key);
    let admin = stack.admin();
    let listed = admin.get("/v1/vaults/default/secrets").await.json();
    let id_of = |path: &str| {
        let secrets = listed["secrets"].as_array().unwrap();
        let secret = secrets.iter().find(|secret| secret["path"] == path);
        secret.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let ask = json!({"recipient_type": "creator", "expires_at": "2999-01-01T00:00:00Z"});
    let path = format!("/v1/secrets/{}/share", id_of("found/token"));
    bot.post(&path, &ask).await.expect_status(400);
    let ask = json!({"recipient_type": "creator", "expires_at": soon()});
    let made = bot.post(&path, &ask).await.expect_status(201).json();
    let others = format!("/v1/secrets/{}/share", id_of("other/token"));
    bot.post(&others, &ask).await.expect_status(404);
    let id = made["id"].as_str().unwrap().to_owned();

    // The person accepts, and opens it after a restart as well.
    let inbound = stack.cli(&["share", "list", "--inbound"]).await;
    assert!(inbound.expect_success().stdout.contains(&id));
    let early = stack.cli(&["share", "open", &id]).await;
    assert_eq!(early.status, Some(1));
    stack.cli(&["share", "accept", &id]).await.expect_success();
    stack.stop().await;
    stack.start_again().await;
    let opened = stack
        .command(&["share", "open", &id])
        .output()
        .await
        .unwrap();
    assert_eq!(printed(&opened).trim_end(), found.text());

    // To an agent it is an export, which has to be said.
    let plain = [
        "share",
        "create",
        "other/token",
        "--agent",
        "finder",
        "--expires",
        "1h",
    ];
    let refused = stack.cli(&plain).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("export_plaintext"), "{refused:?}");
    let (made, _) = share(&stack, &["other/token", "--agent", "finder", "--export"]).await;
    let id = made["id"].as_str().unwrap();
    let bot = stack.api(&agent_key);
    let accept = format!("/v1/shares/{id}/accept");
    bot.post(&accept, &json!({})).await.expect_status(204);
    let opened = bot.reveal(&format!("/v1/share/{id}")).await;
    let opened = opened.expect_status(200);
    assert_eq!(opened.field("cache-control"), Some("no-store"));
    assert_eq!(opened.json()["value"], other.text());
    stack.cli(&["share", "decline", id]).await;
    let events = stack.events().await;
    let exports: Vec<&Value> = events
        .iter()
        .filter(|event| event["action"] == "secret.export" && event["decision"] == "allow")
        .collect();
    assert_eq!(exports.len(), 2);
    assert_eq!(exports[1]["agent_id"], agent.as_str());
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn whoever_made_a_share_is_told_of_each_opening() {
    let stack = Stack::start().await;
    let receiver = Receiver::start().await;
    let hook = [
        "webhook",
        "create",
        &receiver.url("/shares"),
        "--event",
        "share.access",
    ];
    stack.cli(&hook).await.expect_success();
    let value = put(&stack, "db/password").await;
    let (made, link) = share(&stack, &["db/password", "--link", "--max-reads", "2"]).await;
    for _ in 0..2 {
        let opened = open(&stack, &link, &[]).await;
        assert_eq!(printed(&opened).trim_end(), value.text());
    }
    assert_eq!(open(&stack, &link, &[]).await.status.code(), Some(1));

    wait::until("both openings", async || {
        (receiver.got().len() == 2).then_some(())
    })
    .await;
    let me = stack.admin().get("/v1/auth/me").await.expect_status(200);
    let maker = me.json()["id"].clone();
    for told in receiver.got() {
        let told = told.json();
        assert_eq!(told["type"], "share.access");
        let event = &told["data"];
        assert_eq!(
            event["keys"],
            json!(["db/password", made["share_id"], maker])
        );
        assert_eq!(event["decision"], "allow");
        assert!(!told.to_string().contains(value.text()));
    }
    let events = stack.events().await;
    let exports = events
        .iter()
        .filter(|event| event["action"] == "secret.export" && event["decision"] == "allow");
    assert_eq!(exports.count(), 2);
    stack.finish_without_traffic().await;
}

/// In half an hour.
fn soon() -> String {
    use time::format_description::well_known::Rfc3339;
    let at = time::OffsetDateTime::now_utc() + time::Duration::minutes(30);
    at.format(&Rfc3339).unwrap()
}
