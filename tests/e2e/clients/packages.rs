//! What fetches packages and files: each from a private registry, whose credential it does not have.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::sdk::{environment, script};
use crate::support::Stack;
use crate::support::stack::Ran;

/// A private registry, and the set whose credential opens it.
pub(super) struct Registry {
    stack: Stack,
    host: &'static str,
    /// Where the client works.
    pub(super) dir: PathBuf,
    /// What the registry has to see in Authorization.
    credential: String,
}

impl Registry {
    /// A registry at `host` that takes HTTP Basic.
    pub(super) async fn basic(host: &'static str) -> Self {
        let inject = json!({ "basic": { "user": "bot", "password": "${REGISTRY_TOKEN}" } });
        Self::open(host, "REGISTRY_TOKEN", &inject, |token| {
            format!("Basic {}", STANDARD.encode(format!("bot:{token}")))
        })
        .await
    }

    /// A registry at `host` whose Authorization is `before` and the token, kept under `key`.
    async fn token(host: &'static str, key: &str, before: &str) -> Self {
        let inject = json!({ "header": "authorization", "value": format!("{before}${{{key}}}") });
        Self::open(host, key, &inject, |token| format!("{before}{token}")).await
    }

    async fn open(
        host: &'static str,
        key: &str,
        inject: &Value,
        credential: impl FnOnce(&str) -> String,
    ) -> Self {
        let stack = Stack::builder().host(host).start().await;
        let secret = stack.secret("reg_");
        let spec = json!({ "hosts": [host], "inject": [inject] });
        stack
            .custom_access("registry", &json!({ key: secret.text() }), &spec, &secret)
            .await;
        let dir = stack.home.path().join("work");
        std::fs::create_dir(&dir).unwrap();
        Self {
            credential: credential(secret.text()),
            stack,
            host,
            dir,
        }
    }

    /// Serves what `packages.py` makes for this kind of registry.
    pub(super) async fn serve(&self, kind: &str) {
        let mut maker = Command::new(environment("CLAVIGER_TEST_PYTHON"));
        maker.arg(script("packages.py")).args([kind, self.host]);
        let made = self.stack.run(maker).await.expect_success();
        let files: Value = serde_json::from_str(&made.stdout).unwrap();
        for (path, file) in files.as_object().unwrap() {
            let bytes = STANDARD.decode(file["base64"].as_str().unwrap()).unwrap();
            let content_type = file["type"].as_str().unwrap();
            self.stack.upstream.serve_file(path, content_type, bytes);
        }
    }

    /// Puts a file among the client's own.
    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Runs the words of `line` below `claviger run`.
    pub(super) async fn run(&self, line: &str) -> Ran {
        self.run_with(&[], line).await
    }

    /// The same with these variables in its environment.
    async fn run_with(&self, variables: &[(&str, String)], line: &str) -> Ran {
        let mut arguments = vec!["run", "--set", "custom/test/registry", "--"];
        arguments.extend(line.split_whitespace());
        let mut command = self.stack.command(&arguments);
        command
            .current_dir(&self.dir)
            .envs(variables.iter().cloned());
        self.stack.run(command).await.expect_success()
    }

    /// Ends the story: `paths` were asked for, and nothing without the credential.
    pub(super) async fn finish(self, paths: &[&str]) {
        let requests = self.stack.upstream.requests();
        for path in paths {
            let asked = requests.iter().any(|request| request.path() == *path);
            assert!(asked, "{path} was not asked for");
        }
        for request in requests {
            assert_eq!(request.field("authorization"), self.credential);
        }
        self.stack.finish().await;
    }
}

#[tokio::test]
async fn wget_fetches_a_private_file() {
    let registry = Registry::basic("files.acme.example").await;
    let report = b"quarterly figures\n".to_vec();
    let upstream = &registry.stack.upstream;
    upstream.serve_file("/report.txt", "text/plain", report.clone());

    registry
        .run("wget --no-verbose https://files.acme.example/report.txt")
        .await;

    let fetched = std::fs::read(registry.dir.join("report.txt")).unwrap();
    assert_eq!(fetched, report);
    registry.finish(&["/report.txt"]).await;
}

/// What installs `acme-widgets` into `site` from a private index.
async fn installs_from_a_private_index(installer: &str) {
    let registry = Registry::basic("pypi.acme.example").await;
    registry.serve("pypi").await;

    let index = "https://pypi.acme.example/simple/";
    let line = format!("{installer} --index-url {index} --target site acme-widgets");
    registry.run(&line).await;

    assert!(registry.dir.join("site/acme_widgets.py").exists());
    let wheel = "/files/acme_widgets-1.0.0-py3-none-any.whl";
    registry.finish(&["/simple/acme-widgets/", wheel]).await;
}

#[tokio::test]
async fn pip_installs_from_a_private_index() {
    let python = environment("CLAVIGER_TEST_PYTHON");
    installs_from_a_private_index(&format!("{python} -m pip install")).await;
}

#[tokio::test]
async fn uv_installs_from_a_private_index() {
    let python = environment("CLAVIGER_TEST_PYTHON");
    let uv = Path::new(&python).with_file_name("uv");
    let installer = format!("{} pip install --python {python}", uv.display());
    installs_from_a_private_index(&installer).await;
}

#[tokio::test]
async fn npm_views_and_packs_from_a_private_registry() {
    let registry = Registry::token("npm.acme.example", "NPM_TOKEN", "Bearer ").await;
    registry.serve("npm").await;
    // Another proxy, or other roots, in the user's own settings would lead past the port of `run`.
    registry.write(
        ".npmrc",
        "registry=https://npm.acme.example/\nhttps-proxy=http://127.0.0.1:1/\ncafile=/nowhere.pem\n",
    );

    let shown = registry.run("npm view acme-widgets version").await;
    registry.run("npm pack acme-widgets").await;

    assert_eq!(shown.stdout.trim(), "1.0.0");
    assert!(registry.dir.join("acme-widgets-1.0.0.tgz").exists());
    let paths = ["/acme-widgets", "/acme-widgets/-/acme-widgets-1.0.0.tgz"];
    registry.finish(&paths).await;
}

#[tokio::test]
async fn cargo_fetches_from_a_private_registry() {
    // cargo sends the token as it is, and reads it from this variable, where `run` puts a placeholder.
    let key = "CARGO_REGISTRIES_ACME_TOKEN";
    let registry = Registry::token("crates.acme.example", key, "").await;
    registry.serve("cargo").await;
    registry.write("src/lib.rs", "");
    registry.write(
        "Cargo.toml",
        "[package]\nname = \"shop\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\
         [dependencies]\nacme-widgets = { version = \"1\", registry = \"acme\" }\n",
    );
    registry.write(
        ".cargo/config.toml",
        "[registries.acme]\nindex = \"sparse+https://crates.acme.example/index/\"\n\
         [registry]\nglobal-credential-providers = [\"cargo:token\"]\n\
         [http]\nproxy = \"127.0.0.1:1\"\n",
    );

    let rustup_home = ("RUSTUP_HOME", rustup_home());
    registry.run_with(&[rustup_home], "cargo fetch").await;

    let lock = std::fs::read_to_string(registry.dir.join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"acme-widgets\""), "{lock}");
    let index = ["/index/config.json", "/index/ac/me/acme-widgets"];
    let download = "/dl/acme-widgets/1.0.0/download";
    registry.finish(&[&index[..], &[download]].concat()).await;
}

/// Where rustup keeps the toolchains, which it does not find by the story's own HOME. Another cargo does not look at it.
fn rustup_home() -> String {
    let usual = || format!("{}/.rustup", std::env::var("HOME").unwrap_or_default());
    std::env::var("RUSTUP_HOME").unwrap_or_else(|_| usual())
}
