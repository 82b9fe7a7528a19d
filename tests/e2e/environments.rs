//! Secrets as an environment: out of a vault into a file or a program and back, and never where they were not asked for.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::Stack;

/// What a command prints that is asked for values: it is not among what the leak sweep reads.
async fn revealed(stack: &Stack, arguments: &[&str]) -> String {
    let mut command = stack.command(arguments);
    let output = command.stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_file_goes_into_a_vault_and_comes_out_as_it_was() {
    let stack = Stack::start().await;
    let (plain, odd) = (stack.secret("key-"), stack.secret("key-"));
    // Outside of the home that the sweep searches: these files hold the values by intent.
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join(".env");
    let quoted = format!("it's \\\"{}\\\"\\n\\$HOME", odd.text());
    let text = format!("# web\nexport PLAIN={}\nODD=\"{quoted}\"\n", plain.text());
    std::fs::write(&file, text).unwrap();
    let expected =
        json!({ "PLAIN": plain.text(), "ODD": format!("it's \"{}\"\n$HOME", odd.text()) });
    let file = file.to_str().unwrap();

    let dry = ["env", "push", file, "--prefix", "web/prod", "--dry-run"];
    let would = stack.cli(&dry).await.expect_success();
    assert!(
        would
            .stdout
            .contains("would store below web/prod: new ODD, PLAIN"),
        "{would:?}"
    );
    let none = stack.cli(&["env", "pull", "--prefix", "web/prod"]).await;
    assert_eq!(none.status, Some(1));
    assert!(none.stderr.contains("hint: "), "{none:?}");

    let push = ["env", "push", file, "--prefix", "web/prod"];
    stack.cli(&push).await.expect_success();
    let again = stack.cli(&push).await.expect_success();
    assert!(
        again.stdout.contains("next version of ODD, PLAIN"),
        "{again:?}"
    );

    let pull = ["env", "pull", "--prefix", "web/prod/", "--format"];
    let document = revealed(&stack, &[&pull[..], &["json"]].concat()).await;
    assert_eq!(serde_json::from_str::<Value>(&document).unwrap(), expected);
    let script = revealed(&stack, &[&pull[..], &["shell"]].concat()).await;
    let shell = std::process::Command::new("sh")
        .args(["-c", &format!("{script}printf %s \"$ODD\"")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(shell.stdout).unwrap(), expected["ODD"]);

    // Into a file: nobody else's to read, and the same once it is stored again.
    let out = place.path().join("out.env");
    let out = out.to_str().unwrap();
    let wrote = stack
        .cli(&["env", "pull", "--prefix", "web/prod", "--output", out])
        .await
        .expect_success();
    assert!(wrote.stdout.contains("ODD, PLAIN"), "{wrote:?}");
    assert_eq!(
        std::fs::metadata(out).unwrap().permissions().mode() & 0o777,
        0o600
    );
    stack
        .cli(&["env", "push", out, "--prefix", "web/copy"])
        .await
        .expect_success();
    let copy = ["env", "pull", "--prefix", "web/copy", "--format", "json"];
    let copy = revealed(&stack, &copy).await;
    assert_eq!(serde_json::from_str::<Value>(&copy).unwrap(), expected);

    // Each value taken is a read on record.
    let events = stack.events().await;
    let reads = events
        .iter()
        .filter(|event| event["action"] == "secret.read");
    assert_eq!(reads.count(), 8);
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn a_program_gets_the_values_in_its_environment_and_gives_its_status() {
    let stack = Stack::start().await;
    let value = stack.secret("key-");
    let admin = stack.admin();
    let vault = "/v1/vaults/default/secrets";
    for (path, body) in [
        (
            "web/db-url",
            json!({ "value": value.text(), "max_access_count": 1 }),
        ),
        (
            "web/more",
            json!({ "value": "ONE=1\nTWO='two'\n", "type": "env_bundle" }),
        ),
    ] {
        admin
            .put(&format!("{vault}/{path}"), &body)
            .await
            .expect_status(201);
    }
    let length = value.text().len().to_string();
    let script = "test ${#db_url} = $0 && test $ONE$TWO = 1two && test -z \"$CLAVIGER_KEY_FILE$CLAVIGER_URL\" && exit 7";

    let run = [
        "env", "run", "--prefix", "web", "--", "sh", "-c", script, &length,
    ];
    let ran = stack.cli(&run).await;
    assert_eq!(ran.status, Some(7), "{ran:?}");
    assert!(
        ran.stderr.contains("warning: ") && ran.stderr.contains("`claviger run`"),
        "{ran:?}"
    );

    // The secret was to be read once, and no program starts with a part of its environment.
    let marker = tempfile::tempdir().unwrap();
    let marker = marker.path().join("started");
    let late = [
        "env",
        "run",
        "--prefix",
        "web",
        "--",
        "touch",
        marker.to_str().unwrap(),
    ];
    let late = stack.cli(&late).await;
    assert_eq!(late.status, Some(1));
    assert!(late.stderr.contains("web/db-url"), "{late:?}");
    assert!(!marker.exists());
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn the_keys_of_a_set_come_out_where_a_grant_exports_them_alone() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let pull = [
        "env",
        "pull",
        "--set",
        "stripe/test/stripe-bot",
        "--format",
        "json",
    ];
    let refused = stack.cli(&pull).await;
    assert_eq!(refused.status, Some(1));
    assert!(refused.stderr.contains("hint: "), "{refused:?}");
    // Beside it the vault's view names them and leaves them out.
    let whole = stack.cli(&["env", "pull"]).await;
    assert!(whole.stderr.contains("entries of secret sets"), "{whole:?}");
    assert_eq!(whole.status, Some(1));

    let export = json!({ "allowed_actions": ["export_plaintext"] });
    stack.grant(&access.agent, &access.set, &export).await;
    let document: Value = serde_json::from_str(&revealed(&stack, &pull).await).unwrap();
    assert_eq!(document["STRIPE_SECRET_KEY"], access.secret.text());
    stack.finish_without_traffic().await;
}
