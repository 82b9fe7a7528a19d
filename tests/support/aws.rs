//! A grant on an AWS key, and botocore's word on what was signed with it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::canary::{Canary, random_text};
use super::upstream::Recorded;
use super::{Access, Stack, wait};

/// An AWS key in a set, and a grant on it.
pub(crate) struct Aws {
    pub(crate) access: Access,
    pub(crate) key_id: String,
    pub(crate) session: Option<Canary>,
}

/// What a signature was made for.
pub(crate) struct SignedScope {
    pub(crate) date_time: String,
    /// `DATE/REGION/SERVICE/aws4_request`; of version 4A without the region.
    pub(crate) scope: String,
    pub(crate) signature: String,
    signed_headers: Vec<String>,
}

impl Aws {
    /// A key for `us-east-1`, and a grant with these fields on top of the usual ones.
    pub(crate) async fn grant(stack: &Stack, with_session: bool, grant: &Value) -> Self {
        let secret = stack.watch(Canary::with_symbols("aws"));
        let key_id = format!(
            "AKIA{}",
            random_text(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
        );
        stack.mark(&key_id);
        let mut entries = json!({
            "AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret.text(), "AWS_REGION": "us-east-1",
        });
        let session = with_session.then(|| stack.watch(Canary::with_symbols("session")));
        if let Some(session) = &session {
            entries["AWS_SESSION_TOKEN"] = json!(session.text());
        }
        let access = stack.access("aws", &entries, &secret, grant).await;
        Self {
            access,
            key_id,
            session,
        }
    }

    /// Checks with botocore that each request was signed with this key, and with nothing of the agent's.
    pub(crate) async fn expect_signed(&self, requests: &[Arc<Recorded>]) {
        let calls: Vec<Value> = requests.iter().map(|request| self.call(request)).collect();
        let mut command = Command::new(python());
        command.arg(script("sigv4_oracle.py"));
        let oracle = ask(command, &json!(calls)).await;
        for (request, expected) in requests.iter().zip(oracle.as_array().unwrap()) {
            let what = format!("{} {}", request.method, request.target);
            let authorization = request.field("authorization");
            assert_eq!(&authorization, expected.as_str().unwrap(), "{what}");
            assert!(authorization.contains(&format!("Credential={}/", self.key_id)));
            match &self.session {
                Some(session) => assert_eq!(request.field("x-amz-security-token"), session.text()),
                None => assert!(request.fields("x-amz-security-token").is_empty(), "{what}"),
            }
        }
    }

    /// Checks every signature of a body in AWS's own chunks.
    #[track_caller]
    pub(crate) fn expect_chunks_signed(&self, request: &Recorded) {
        let SignedScope {
            date_time,
            scope,
            signature,
            ..
        } = SignedScope::of(request);
        let chunked = request.chunked();
        assert!(chunked.is_whole());
        chunked.expect_signed(self.access.secret.text(), &date_time, &scope, &signature);
    }

    fn call(&self, request: &Recorded) -> Value {
        let signed = SignedScope::of(request);
        let (region, service) = match signed.scope.split('/').collect::<Vec<_>>()[..] {
            [_, region, service, _] => (region, service),
            [_, service, _] => ("", service),
            _ => panic!("an odd scope: {}", signed.scope),
        };
        let set_by_signer = ["host", "x-amz-date", "x-amz-security-token"];
        let headers: serde_json::Map<String, Value> = signed
            .signed_headers
            .iter()
            .filter(|name| !set_by_signer.contains(&name.as_str()))
            .map(|name| (name.clone(), json!(request.field(name))))
            .collect();
        json!({
            "method": request.method,
            "url": format!("https://{}{}", request.authority, request.target),
            "headers": headers,
            // S3 is told the hash by the head.
            "body": if service == "s3" { String::new() } else { STANDARD.encode(request.body()) },
            "date": signed.date_time,
            "key_id": self.key_id,
            "secret": self.access.secret.text(),
            "session": self.session.as_ref().map(Canary::text),
            "region": region,
            "service": service,
            "authorization": request.field("authorization"),
        })
    }
}

impl SignedScope {
    #[track_caller]
    pub(crate) fn of(request: &Recorded) -> Self {
        let authorization = request.field("authorization");
        let part = |name: &str| {
            let (_, rest) = authorization.split_once(&format!("{name}=")).unwrap();
            rest.split(',').next().unwrap().to_owned()
        };
        let credential = part("Credential");
        let (_, scope) = credential.split_once('/').unwrap();
        Self {
            date_time: request.field("x-amz-date"),
            scope: scope.to_owned(),
            signature: part("Signature"),
            signed_headers: part("SignedHeaders")
                .split(';')
                .map(str::to_owned)
                .collect(),
        }
    }
}

/// What an SDK with placeholder keys sends to be signed in its place.
pub(crate) fn dummy_signature(service: &str, region: &str) -> String {
    format!(
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIAPLACEHOLDER/20250101/{region}/{service}/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature={}\r\nX-Amz-Date: 20250101T000000Z",
        "0".repeat(64)
    )
}

/// Runs a command with `input` on stdin and reads JSON from stdout.
pub(crate) async fn ask(mut command: Command, input: &Value) -> Value {
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_string();
    let feed = async {
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let run = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = tokio::time::timeout(wait::patience() * 3, run)
        .await
        .unwrap()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        &input[..input.len().min(2000)]
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn python() -> String {
    std::env::var("CLAVIGER_TEST_PYTHON")
        .expect("CLAVIGER_TEST_PYTHON is not set; hint: start these tests by tests/run e2e")
}

pub(crate) fn script(name: &str) -> String {
    format!("{}/tests/sdk/{name}", env!("CARGO_MANIFEST_DIR"))
}
