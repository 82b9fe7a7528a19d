//! `claviger providers`: what is known, what is wrong in a file, and what a template does to a request.

use serde_json::{Value, json};

use crate::support::Stack;

const ACME: &str = r#"
name  = "acme"
hosts = ["api.acme.example"]
keys  = { ACME_KEY = "required" }
env   = { ACME_KEY = "ACME_KEY" }

[[inject]]
header = "x-acme-key"
value  = "${ACME_KEY}"

[[deny]]
why   = "makes keys"
paths = ["/v1/keys"]

[presets.read-only]
about   = "Reads"
methods = ["GET"]
"#;

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn a_template_added_over_rest_is_listed_shown_denies_and_offers_its_preset() {
    let stack = Stack::start().await;
    let body = json!({ "template": ACME });
    let added = stack.admin().post("/v1/providers", &body).await;
    added.expect_status(201);

    let listed = stack.cli(&["providers", "list"]).await.expect_success();
    let line = listed.stdout.lines().find(|line| line.starts_with("acme"));
    let line = line.unwrap_or_else(|| panic!("{}", listed.stdout));
    assert!(
        line.contains("api.acme.example") && line.contains("ACME_KEY"),
        "{line}"
    );
    assert!(listed.stdout.lines().count() > 60);

    let shown = stack.cli(&["providers", "show", "acme", "--json"]).await;
    let shown = object(&shown.expect_success().stdout);
    assert_eq!(shown["deny"][0]["paths"], json!(["/v1/keys"]));
    assert_eq!(shown["presets"]["read-only"]["methods"], json!(["GET"]));

    let unknown = stack.cli(&["providers", "show", "nobody"]).await;
    assert_eq!(unknown.status, Some(1));
    assert!(unknown.stderr.contains("hint:"), "{}", unknown.stderr);
    stack.finish().await;
}

#[tokio::test]
async fn check_reports_every_mistake_with_its_line_and_fails() {
    let stack = Stack::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (good, bad) = (
        directory.path().join("good.toml"),
        directory.path().join("bad.toml"),
    );
    std::fs::write(&good, ACME).unwrap();
    let mistaken = ACME
        .replace("x-acme-key", "cookie")
        .replace("[\"/v1/keys\"]", "[\"v1/keys\"]");
    std::fs::write(&bad, mistaken).unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());

    let ran = stack
        .cli(&["providers", "check", good])
        .await
        .expect_success();
    assert!(ran.stdout.contains("acme is good"), "{}", ran.stdout);

    let ran = stack.cli(&["providers", "check", good, bad]).await;
    assert_eq!(ran.status, Some(1));
    for line in [
        "bad.toml:8: inject[0].header: ",
        "bad.toml:13: deny[0].paths[0]: ",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    assert!(
        ran.stderr.contains("2 mistakes in 2 templates"),
        "{}",
        ran.stderr
    );

    let ran = stack.cli(&["providers", "check", bad, "--json"]).await;
    assert_eq!(ran.status, Some(1));
    let report = object(&ran.stdout);
    assert_eq!(report["files"][0]["mistakes"][0]["line"], 8);

    assert_eq!(stack.cli(&["providers", "check"]).await.status, Some(2));
    stack.finish().await;
}

#[tokio::test]
async fn test_shows_slots_by_the_names_of_their_keys() {
    let stack = Stack::start().await;
    let arguments = [
        "providers",
        "test",
        "stripe",
        "POST",
        "https://api.stripe.com/v1/ephemeral_keys",
    ];
    let ran = stack.cli(&arguments).await.expect_success();
    for text in [
        "Bearer ${STRIPE_SECRET_KEY}",
        "(if the set has it)",
        "denied",
    ] {
        assert!(ran.stdout.contains(text), "{text}: {}", ran.stdout);
    }
    let elsewhere = stack
        .cli(&["providers", "test", "stripe", "https://example.com/"])
        .await;
    assert_eq!(elsewhere.status, Some(1));
    assert!(
        elsewhere.stderr.contains("sends no credential"),
        "{}",
        elsewhere.stderr
    );
    stack.finish().await;
}
