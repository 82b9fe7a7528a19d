//! People at their terminals: an owner invites, a colleague signs in and out, and what lies on disk is for them alone.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::Stack;
use crate::support::stack::{Ran, binary};

pub(crate) const PASSWORD: &str = "Correct-horse7battery";
const NEXT_PASSWORD: &str = "Another-horse8battery";

/// A person with a home directory of their own, and no key.
pub(crate) struct Terminal<'a> {
    stack: &'a Stack,
    home: tempfile::TempDir,
}

impl<'a> Terminal<'a> {
    pub(crate) fn new(stack: &'a Stack) -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { stack, home }
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self.stack.command(arguments);
        command
            .env_remove("CLAVIGER_KEY_FILE")
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path().join("config"))
            .env("XDG_DATA_HOME", self.home.path().join("data"));
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        self.stack.run(self.command(arguments)).await
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let ran = self.run(&all).await.expect_success();
        serde_json::from_str(&ran.stdout).unwrap()
    }

    fn logins(&self) -> PathBuf {
        self.home.path().join("config/claviger/logins.json")
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_colleague_is_invited_signs_in_works_and_signs_out() {
    let stack = Stack::start().await;
    stack.watch_token(PASSWORD);
    let ada = Terminal::new(&stack);
    let password = ada.file("password", PASSWORD);

    // Nobody is signed in, and there is no key of a server on that machine.
    let ran = ada.run(&["whoami"]).await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("hint:"), "{ran:#?}");
    assert!(ran.stderr.contains("claviger login"), "{ran:#?}");

    let invited = stack
        .cli(&["member", "invite", "Ada@Example.org", "--role", "member"])
        .await
        .expect_success();
    let token = ada.file("invitation", &invited.stdout);
    let accept = [
        "member",
        "accept",
        "--token-file",
        &token,
        "--password-file",
        &password,
    ];
    ada.run(&accept).await.expect_success();
    let again = ada.run(&accept).await;
    assert_eq!(again.status, Some(1), "{again:#?}");

    let login = [
        "login",
        "--email",
        "ada@example.org",
        "--password-file",
        &password,
    ];
    let ran = ada.run(&login).await.expect_success();
    assert!(ran.stdout.contains("ada@example.org"), "{ran:#?}");
    assert_eq!(mode(&ada.logins()), 0o600);
    assert_eq!(mode(ada.logins().parent().unwrap()), 0o700);
    assert_eq!(ada.json(&["whoami"]).await["role"], "member");
    ada.run(&["agent", "create", "bot"]).await.expect_success();

    // A member manages nobody.
    let refused = ada
        .run(&["member", "role", "ada@example.org", "owner"])
        .await;
    assert_eq!(refused.status, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("hint:"), "{refused:#?}");

    // A file that others can read is not used.
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(ada.logins(), open).unwrap();
    let refused = ada.run(&["whoami"]).await;
    assert!(refused.stderr.contains("chmod 600"), "{refused:#?}");
    let closed = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(ada.logins(), closed).unwrap();

    // What was kept ends with the sign-in, not with the file alone.
    let kept = std::fs::read_to_string(ada.logins()).unwrap();
    ada.run(&["logout"]).await.expect_success();
    assert!(
        !std::fs::read_to_string(ada.logins())
            .unwrap()
            .contains("1ck_")
    );
    std::fs::write(ada.logins(), kept).unwrap();
    let refused = ada.run(&["whoami"]).await;
    assert_eq!(refused.status, Some(1), "{refused:#?}");

    let owner = stack.cli(&["member", "list"]).await.expect_success();
    assert!(owner.stdout.contains("ada@example.org"), "{owner:#?}");
    let removed = stack.cli(&["member", "remove", "ada@example.org"]).await;
    removed.expect_success();
    let refused = ada.run(&login).await;
    assert_eq!(refused.status, Some(1), "{refused:#?}");
    stack.finish().await;
}

#[tokio::test]
async fn a_terminal_is_let_in_by_somebody_who_is_signed_in_and_a_new_password_ends_it() {
    let stack = Stack::start().await;
    stack.watch_token(PASSWORD);
    stack.watch_token(NEXT_PASSWORD);
    let email = stack.cli(&["account", "email", "owner@example.org"]).await;
    email.expect_success();
    let ada = Terminal::new(&stack);
    let password = ada.file("password", PASSWORD);
    let next = ada.file("next", NEXT_PASSWORD);
    let choose = ["account", "password", "--new-password-file", &password];
    stack.cli(&choose).await.expect_success();

    let mut waiting = ada
        .command(&["login"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = {
        use tokio::io::AsyncBufReadExt as _;
        tokio::io::BufReader::new(waiting.stderr.take().unwrap()).lines()
    };
    let shown = lines.next_line().await.unwrap().unwrap();
    let code = shown
        .split("--approve ")
        .nth(1)
        .unwrap()
        .trim_end_matches('`');
    let approved = stack.cli(&["login", "--approve", code]).await;
    approved.expect_success();
    assert!(waiting.wait().await.unwrap().success());
    assert_eq!(ada.json(&["whoami"]).await["email"], "owner@example.org");

    let change = [
        "account",
        "password",
        "--password-file",
        &password,
        "--new-password-file",
        &next,
    ];
    stack.cli(&change).await.expect_success();
    let ended = ada.run(&["whoami"]).await;
    assert_eq!(ended.status, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("claviger login"), "{ended:#?}");
    // The owner's own key lives on.
    stack.cli(&["whoami"]).await.expect_success();
    stack.finish().await;
}

#[tokio::test]
async fn an_operator_opens_what_address_rules_shut_for_everybody() {
    let mut stack = Stack::start().await;
    let shut = ["ip-rule", "block", "127.0.0.0/8", "--force"];
    stack.cli(&shut).await.expect_success();
    let refused = stack.cli(&["whoami"]).await;
    assert_eq!(refused.status, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("address"), "{refused:#?}");

    let data = stack.data.display().to_string();
    let clear = ["ip-rule", "clear", "--data", &data];
    // On the server's machine, where no server is asked.
    let offline = |more: &[&str]| {
        let mut command = binary(stack.home.path());
        command.args(clear).args(more);
        command
    };
    let (all, one) = (
        offline(&[]),
        offline(&["--org", "org_01K3ABCDEFGHJKMNPQRSTVWXYZ"]),
    );
    let busy = stack.run(offline(&[])).await;
    assert_eq!(busy.status, Some(1), "{busy:#?}");
    assert!(busy.stderr.contains("hint:"), "{busy:#?}");
    stack.stop().await;
    let other = stack.run(one).await;
    assert_eq!(other.status, Some(1), "{other:#?}");
    let ran = stack.run(all).await.expect_success();
    assert!(ran.stdout.contains("removed 1 address rules"), "{ran:#?}");
    stack.start_again().await;

    stack.cli(&["whoami"]).await.expect_success();
    let events = stack.events().await;
    let told = events
        .iter()
        .find(|event| event["action"] == "ip_rule.clear");
    let told = told.expect("the trail tells of it");
    assert_eq!(told["actor_id"], "operator");
    assert_eq!(told["keys"][0], "block 127.0.0.0/8");
    stack.finish().await;
}

#[tokio::test]
async fn keys_and_rules_are_managed_from_the_terminal() {
    let stack = Stack::start().await;
    let create = ["--json", "personal-key", "create", "reader", "--read-only"];
    let made = stack.cli(&create).await.expect_success();
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let key = made["api_key"].as_str().unwrap();
    let mut agent = stack.command(&["agent", "create", "bot"]);
    agent
        .env_remove("CLAVIGER_KEY_FILE")
        .env("CLAVIGER_KEY", key);
    let refused = stack.run(agent).await;
    assert_eq!(refused.status, Some(1), "{refused:#?}");
    let id = made["key"]["id"].as_str().unwrap();
    let revoke = ["personal-key", "revoke", id];
    stack.cli(&revoke).await.expect_success();
    let listed = stack.cli(&["personal-key", "list"]).await.expect_success();
    assert!(!listed.stdout.contains("reader"), "{listed:#?}");

    let shut_out = stack.cli(&["ip-rule", "block", "127.0.0.0/8"]).await;
    assert_eq!(shut_out.status, Some(1), "{shut_out:#?}");
    assert!(shut_out.stderr.contains("force"), "{shut_out:#?}");
    let allow = ["ip-rule", "allow", "127.0.0.0/8", "--description", "here"];
    stack.cli(&allow).await.expect_success();
    let listed = stack.cli(&["ip-rule", "list"]).await.expect_success();
    assert!(listed.stdout.contains("127.0.0.0/8"), "{listed:#?}");
    stack.finish().await;
}
