//! The README's path, by the command line alone: serve, store, agent, grant, run.

use crate::support::Stack;
use crate::support::stack::built;

/// Stores a Stripe key and grants it to a new agent, as the README says.
async fn prepare(stack: &Stack) -> String {
    let secret = stack.secret("sk_live_");
    let value = format!("STRIPE_SECRET_KEY={}", secret.text());
    let put = stack
        .cli(&["set", "put", "stripe/prod/billing-bot", &value])
        .await
        .expect_success();
    assert!(!format!("{put:?}").contains(secret.text()));
    let agent = stack
        .cli(&["agent", "create", "billing-bot", "--json"])
        .await
        .expect_success();
    let created: serde_json::Value = serde_json::from_str(&agent.stdout).unwrap();
    let key = created["api_key"].as_str().unwrap();
    assert!(key.starts_with("ocv_"), "{created}");
    stack.watch_token(key);
    stack
        .cli(&[
            "grant",
            "create",
            "--agent",
            "billing-bot",
            "--set",
            "stripe/prod/billing-bot",
            "--actions",
            "proxy_use,mint_workflow_lease",
            "--expires",
            "8h",
        ])
        .await
        .expect_success();
    secret.text().to_owned()
}

#[tokio::test]
async fn from_set_put_to_run_curl() {
    let stack = Stack::start().await;
    let secret = prepare(&stack).await;

    let ran = stack
        .cli(&[
            "run",
            "--set",
            "stripe/prod/billing-bot",
            "--",
            "curl",
            "-sS",
            "https://api.stripe.com/v1/balance",
        ])
        .await
        .expect_success();

    assert!(ran.stdout.contains("/v1/balance"), "{ran:#?}");
    assert_eq!(
        stack.upstream.last().field("authorization"),
        format!("Bearer {secret}")
    );
    stack.finish().await;
}

#[tokio::test]
async fn run_revokes_its_lease_at_the_end() {
    let stack = Stack::start().await;
    prepare(&stack).await;
    let ran = stack
        .cli(&[
            "run",
            "--lease-in-env",
            "--set",
            "stripe/prod/billing-bot",
            "--",
            "sh",
            "-c",
            "echo $HTTPS_PROXY",
        ])
        .await;
    let proxy = ran.expect_success().stdout.trim().to_owned();
    let token = proxy
        .split_once("lease:")
        .and_then(|(_, rest)| rest.split_once('@'))
        .unwrap()
        .0
        .to_owned();
    stack.watch_token(&token);

    let (reply, _) = stack
        .connect("api.stripe.com:443", &crate::support::tunnel::basic(&token))
        .await;

    reply.expect_refusal(407, "lease_revoked");
    stack.finish().await;
}

#[tokio::test]
async fn run_gives_its_child_proxy_and_trust_and_no_key() {
    let stack = Stack::start().await;
    let secret = prepare(&stack).await;
    let mut command = stack.command(&["run", "--set", "stripe/prod/billing-bot", "--", "env"]);
    command
        .env("CLAVIGER_KEY", &stack.admin_key)
        .env_remove("CLAVIGER_KEY_FILE")
        .env("STRIPE_API_KEY", "sk-real-one")
        .env("OPENAI_API_KEY", "sk-real-two");
    let ran = stack.run(command).await.expect_success();

    let value = |name: &str| {
        ran.stdout
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}=")))
    };
    for name in [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        let url = value(name).unwrap_or_else(|| panic!("{name} is missing"));
        let port = url.strip_prefix("http://127.0.0.1:");
        assert!(
            port.is_some_and(|port| port.parse::<u16>().is_ok()),
            "{name}={url}"
        );
    }
    assert!(!ran.stdout.contains("clv_"), "{ran:#?}");
    for name in ["NO_PROXY", "no_proxy"] {
        let list = value(name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(list.split(',').all(|host| host.contains("127.")
            || host.contains("localhost")
            || host.contains("::1")));
    }
    for name in [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "AWS_CA_BUNDLE",
        "PIP_CERT",
        "CARGO_HTTP_CAINFO",
        "DENO_CERT",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "NODE_EXTRA_CA_CERTS",
    ] {
        assert!(value(name).is_some(), "{name} is missing");
    }
    assert_eq!(value("NODE_USE_ENV_PROXY"), Some("1"));
    assert_eq!(value("GIT_TERMINAL_PROMPT"), Some("0"));
    assert_eq!(value("GIT_HTTP_PROXY_AUTHMETHOD"), Some("basic"));
    assert!(value("JAVA_TOOL_OPTIONS").is_some_and(|options| options.contains("trustStore")));
    assert!(
        value("STRIPE_API_KEY").is_some_and(|key| key != "sk-real-one" && key.starts_with("sk_"))
    );
    for key in [
        secret.as_str(),
        &stack.admin_key,
        "ocv_",
        "sk-real-one",
        "sk-real-two",
    ] {
        assert!(
            !ran.stdout.contains(key),
            "a key is in the child's environment"
        );
    }
    stack.finish().await;
}

#[tokio::test]
async fn run_passes_the_exit_status_on() {
    let stack = Stack::start().await;
    prepare(&stack).await;

    let ran = stack
        .cli(&[
            "run",
            "--set",
            "stripe/prod/billing-bot",
            "--",
            "sh",
            "-c",
            "exit 42",
        ])
        .await;
    assert_eq!(ran.status, Some(42), "{ran:#?}");
    let ran = stack
        .cli(&["run", "--set", "stripe/prod/no-such-set", "--", "true"])
        .await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("hint:"), "{ran:#?}");

    stack.finish().await;
}

#[tokio::test]
async fn an_agent_with_its_own_key_runs_by_itself() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let mut command = stack.command(&[
        "run",
        "--set",
        "stripe/test/stripe-bot",
        "--",
        "curl",
        "-sS",
        "https://api.stripe.com/v1/x",
    ]);
    command
        .env_remove("CLAVIGER_KEY_FILE")
        .env("CLAVIGER_KEY", &access.agent_key);

    stack.run(command).await.expect_success();

    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn leases_are_minted_listed_inspected_and_revoked_by_command() {
    let stack = Stack::start().await;
    prepare(&stack).await;
    let minted = stack
        .cli(&[
            "lease",
            "mint",
            "--set",
            "stripe/prod/billing-bot",
            "--agent",
            "billing-bot",
            "--kind",
            "workflow",
            "--ttl",
            "10m",
        ])
        .await
        .expect_success();
    let token = minted.stdout.trim().to_owned();
    stack.watch_token(&token);
    assert!(
        token.starts_with("clv_") && !token.contains(char::is_whitespace),
        "{minted:#?}"
    );
    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);

    let listed = stack
        .cli(&["lease", "list", "--json"])
        .await
        .expect_success();
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
    let id = listed["leases"][0]["id"]
        .as_str()
        .or(listed["leases"][0]["lease_id"].as_str())
        .unwrap()
        .to_owned();
    stack.cli(&["lease", "inspect", &id]).await.expect_success();
    stack.cli(&["lease", "revoke", &id]).await.expect_success();

    let (reply, _) = stack
        .connect("api.stripe.com:443", &crate::support::tunnel::basic(&token))
        .await;
    reply.expect_refusal(407, "lease_revoked");
    stack.finish().await;
}

#[tokio::test]
async fn a_wrong_command_is_2_and_a_refused_one_is_1_with_a_hint() {
    let stack = Stack::start().await;

    assert_eq!(stack.cli(&["no-such-command"]).await.status, Some(2));
    assert_eq!(stack.cli(&["set", "put"]).await.status, Some(2));
    let refused = stack.cli(&["set", "show", "stripe/prod/none"]).await;
    assert_eq!(refused.status, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("hint:"), "{refused:#?}");
    for command in [
        "serve", "set", "agent", "grant", "lease", "run", "audit", "doctor", "explain",
    ] {
        let help = stack.cli(&[command, "--help"]).await.expect_success();
        assert!(!help.stdout.is_empty());
    }

    stack.finish().await;
}

#[tokio::test]
async fn doctor_and_explain_and_ca_answer() {
    let stack = Stack::start().await;
    prepare(&stack).await;

    stack.cli(&["doctor"]).await.expect_success();
    let explained = stack
        .cli(&["explain", "https://api.stripe.com/v1/balance"])
        .await
        .expect_success();
    assert!(explained.stdout.contains("stripe"), "{explained:#?}");
    let ca = stack.cli(&["ca"]).await.expect_success();
    assert!(
        ca.stdout.contains("BEGIN CERTIFICATE") || ca.stdout.contains("ca.pem"),
        "{ca:#?}"
    );

    stack.finish().await;
}

/// The README's own commands, in a shell, on the machine of the server: no key and no data directory is named.
const SCRIPT: &str = r#"
set -eu
printf %s "$SECRET" | claviger set put openai/prod/assistant OPENAI_API_KEY=-
unset SECRET
claviger agent create helper >agent.txt
claviger grant create --agent helper --set openai/prod/assistant --actions proxy_use,mint_workflow_lease
claviger run --agent helper --set openai/prod/assistant -- \
  curl -sS --fail https://api.openai.com/v1/models -H "Authorization: Bearer ${OPENAI_API_KEY:-none}"
claviger audit list
TOKEN=$(claviger lease mint --agent helper --set openai/prod/assistant)
curl -sS --fail -x "http://lease:$TOKEN@$PROXY" --cacert "$(claviger ca)" https://api.openai.com/v1/models
TOKEN=$(claviger lease mint --agent helper --set openai/prod/assistant)
NARROW=$(echo "$TOKEN" | claviger lease narrow --method GET --path '/v1/models' --ttl 30s)
curl -sS --fail -x "http://lease:$NARROW@$PROXY" --cacert "$(claviger ca)" https://api.openai.com/v1/models
claviger audit verify
"#;

#[tokio::test]
async fn the_readmes_commands_work_as_they_stand() {
    let stack = Stack::builder().default_data().start().await;
    let secret = stack.secret("sk-proj-");
    let mut shell = tokio::process::Command::new("sh");
    let path = std::env::join_paths(
        std::iter::once(built().parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    shell
        .args(["-c", SCRIPT])
        .current_dir(stack.home.path())
        .env_clear()
        .env("HOME", stack.home.path())
        .env("PATH", path.unwrap())
        .env("SECRET", secret.text())
        .env("CLAVIGER_URL", format!("http://{}", stack.api_addr))
        .env("PROXY", stack.proxy_addr.to_string());

    stack.run(shell).await.expect_success();

    assert_eq!(stack.upstream.count(), 3);
    for request in stack.upstream.requests() {
        assert_eq!(
            request.field("authorization"),
            format!("Bearer {}", secret.text())
        );
    }
    stack.finish().await;
}
