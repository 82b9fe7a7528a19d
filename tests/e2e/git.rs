//! `git clone` and `git push` over HTTPS, with a token that git never holds.

use std::path::Path;

use serde_json::json;
use tokio::process::Command;

use crate::support::{Access, Stack};

async fn git(stack: &Stack, dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .args([
            "-c",
            "user.name=Tester",
            "-c",
            "user.email=tester@example.org",
        ])
        .args(arguments)
        .env("HOME", stack.home.path());
    stack.run(command).await.expect_success().stdout
}

/// A bare repository `acme/widgets.git` with one commit, served as github.com does.
async fn hosted(stack: &Stack) {
    let root = stack.home.path().join("hosted");
    let seed = stack.home.path().join("seed");
    std::fs::create_dir_all(root.join("acme")).unwrap();
    std::fs::create_dir_all(&seed).unwrap();
    git(stack, &seed, &["init", "-q", "-b", "main"]).await;
    std::fs::write(seed.join("README"), "widgets\n").unwrap();
    git(stack, &seed, &["add", "."]).await;
    git(stack, &seed, &["commit", "-q", "-m", "Begin"]).await;
    let bare = root.join("acme/widgets.git");
    git(
        stack,
        &seed,
        &["clone", "-q", "--bare", ".", bare.to_str().unwrap()],
    )
    .await;
    git(stack, &bare, &["config", "http.receivepack", "true"]).await;
    stack.upstream.serve_git(&root);
}

async fn github(stack: &Stack) -> Access {
    let secret = stack.secret("ghp_");
    stack
        .access(
            "github",
            &json!({ "GITHUB_TOKEN": secret.text() }),
            &secret,
            &json!({}),
        )
        .await
}

/// Runs git below `claviger run`, in `dir`.
async fn run_git(stack: &Stack, dir: &Path, arguments: &[&str]) {
    let mut all = vec!["run", "--set", "github/test/github-bot", "--", "git"];
    all.extend([
        "-c",
        "user.name=Tester",
        "-c",
        "user.email=tester@example.org",
    ]);
    all.extend(arguments);
    let mut command = stack.command(&all);
    command.current_dir(dir);
    stack.run(command).await.expect_success();
}

#[tokio::test]
async fn clone_commit_and_push() {
    let stack = Stack::start().await;
    hosted(&stack).await;
    github(&stack).await;
    let home = stack.home.path().to_owned();
    // Another proxy in the user's own settings does not lead past the port of `run`.
    let settings = "[http]\n\tproxy = http://127.0.0.1:1\n";
    std::fs::write(home.join(".gitconfig"), settings).unwrap();

    run_git(
        &stack,
        &home,
        &["clone", "-q", "https://github.com/acme/widgets.git", "work"],
    )
    .await;
    let work = home.join("work");
    assert_eq!(
        std::fs::read_to_string(work.join("README")).unwrap(),
        "widgets\n"
    );
    std::fs::write(work.join("more"), "more\n".repeat(50_000)).unwrap();
    run_git(&stack, &work, &["add", "."]).await;
    run_git(&stack, &work, &["commit", "-q", "-m", "Add more"]).await;
    run_git(&stack, &work, &["push", "-q", "origin", "main"]).await;

    let log = git(
        &stack,
        &home.join("hosted/acme/widgets.git"),
        &["log", "--format=%s", "main"],
    )
    .await;
    assert_eq!(log, "Add more\nBegin\n");
    for request in stack.upstream.requests() {
        assert!(
            request.field("authorization").starts_with("Basic "),
            "{:?}",
            request.names()
        );
    }
    let config = std::fs::read_to_string(work.join(".git/config")).unwrap();
    assert!(
        !config.contains("clv_") && !config.contains("ghp_"),
        "{config}"
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_grant_that_reads_one_repository_neither_pushes_nor_reads_another() {
    let stack = Stack::start().await;
    hosted(&stack).await;
    let secret = stack.secret("ghp_");
    let constraints = json!({ "constraints": { "paths": [
        "/acme/widgets.git/info/refs", "/acme/widgets.git/git-upload-pack",
    ] } });
    stack
        .access(
            "github",
            &json!({ "GITHUB_TOKEN": secret.text() }),
            &secret,
            &constraints,
        )
        .await;
    let home = stack.home.path().to_owned();

    run_git(
        &stack,
        &home,
        &["clone", "-q", "https://github.com/acme/widgets.git", "work"],
    )
    .await;
    let work = home.join("work");
    std::fs::write(work.join("more"), "more\n").unwrap();
    run_git(&stack, &work, &["add", "."]).await;
    run_git(&stack, &work, &["commit", "-q", "-m", "Add more"]).await;
    for arguments in [
        &["push", "-q", "origin", "main"][..],
        &[
            "clone",
            "-q",
            "https://github.com/acme/secrets.git",
            "other",
        ],
    ] {
        let mut all = vec!["run", "--set", "github/test/github-bot", "--", "git"];
        all.extend(arguments);
        let mut command = stack.command(&all);
        command.current_dir(&work);
        let ran = stack.run(command).await;
        assert_ne!(ran.status, Some(0), "{ran:#?}");
    }

    let log = git(
        &stack,
        &home.join("hosted/acme/widgets.git"),
        &["log", "--format=%s", "main"],
    )
    .await;
    assert_eq!(log, "Begin\n");
    stack.finish().await;
}
