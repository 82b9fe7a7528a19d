//! Credentials: where they come from, and what is said when they fail.

use std::{fs, path::Path};

use http::StatusCode;
use serde_json::json;
use tempfile::TempDir;

use super::*;

const TOKEN: &str = "ya29.canary-access-token";
const SUBJECT: &str = "canary-subject-token";

/// A workload identity: the workload's own token in a file, for which the token service gives an access token.
fn workload_identity(double: &KmsDouble, dir: &Path) -> Credentials {
    let subject = dir.join("token");
    fs::write(&subject, SUBJECT).unwrap();
    let config = json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/token", double.endpoint()),
        "credential_source": { "file": subject },
    });
    file(dir, &config.to_string())
}

fn file(dir: &Path, content: &str) -> Credentials {
    let path = dir.join("credentials.json");
    fs::write(&path, content).unwrap();
    Credentials::File(path)
}

async fn open_with(
    double: &KmsDouble,
    credentials: Credentials,
) -> Result<Arc<GcpKmsKeys>, KeyError> {
    let options = GcpKmsOptions {
        credentials,
        ..options(double)
    };
    GcpKmsKeys::open(options).await
}

#[tokio::test]
async fn a_workload_identity_is_exchanged_for_a_token() {
    let (double, dir) = (KmsDouble::start().unwrap(), TempDir::new().unwrap());
    double.require_token(TOKEN);
    let credentials = workload_identity(&double, dir.path());
    let keys = open_with(&double, credentials).await.unwrap();
    let kek = keys.create_kek("vlt_a").await.unwrap();
    let dek = Dek::generate().unwrap();
    let wrapped = keys.wrap(&kek, &dek, AAD).await.unwrap();
    keys.unwrap(&kek, &wrapped, AAD).await.unwrap();
    assert_eq!(double.count(Call::Token), 1);
    let anonymous = open(&double).await.unwrap_err_of(&kek, &wrapped).await;
    assert!(anonymous.contains("no usable credentials"), "{anonymous}");
    for shown in [format!("{keys:?}"), format!("{:?}", keys.signer())] {
        assert!(
            !shown.contains(TOKEN) && !shown.contains(SUBJECT),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_refused_identity_says_what_to_do_and_shows_no_token() {
    let (double, dir) = (KmsDouble::start().unwrap(), TempDir::new().unwrap());
    double.require_token(TOKEN);
    double.fault(Call::Token, Action::Deny);
    let credentials = workload_identity(&double, dir.path());
    let keys = open_with(&double, credentials).await.unwrap();
    let refused = keys.check().await;
    let shown = format!("{refused:?} {}", text(&refused));
    assert!(shown.contains("no usable credentials"), "{shown}");
    assert!(
        shown.contains("gcloud auth application-default login"),
        "{shown}"
    );
    assert!(
        !shown.contains(TOKEN) && !shown.contains(SUBJECT),
        "{shown}"
    );
    assert!(!shown.contains("body="), "{shown}");
}

#[tokio::test]
async fn credentials_that_are_put_right_serve_without_a_restart() {
    let (double, dir) = (KmsDouble::start().unwrap(), TempDir::new().unwrap());
    double.require_token(TOKEN);
    double.fault(Call::Token, Action::Deny);
    let credentials = workload_identity(&double, dir.path());
    let keys = open_with(&double, credentials).await.unwrap();
    text(&keys.check().await);
    double.clear();
    let served = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while keys.create_kek("vlt_a").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    served.await.unwrap();
    // A token that is revoked before its time is exchanged for another one.
    double.require_token("ya29.another");
    let served = tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while keys.create_kek("vlt_a").await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    served.await.unwrap();
}

#[tokio::test]
async fn a_token_service_that_is_away_is_unavailable() {
    let (double, dir) = (KmsDouble::start().unwrap(), TempDir::new().unwrap());
    double.require_token(TOKEN);
    double.fault(Call::Token, Action::Status(StatusCode::SERVICE_UNAVAILABLE));
    let credentials = workload_identity(&double, dir.path());
    let keys = open_with(&double, credentials).await.unwrap();
    let refused = keys.check().await;
    assert!(is_unavailable(&refused), "{refused:?}");
    assert!(text(&refused).contains("token"));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_refused_at_once() {
    let (double, dir) = (KmsDouble::start().unwrap(), TempDir::new().unwrap());
    let missing = Credentials::File(dir.path().join("missing.json"));
    let refused = text(&open_with(&double, missing).await);
    assert!(
        refused.contains("missing.json") && refused.contains("correct the path"),
        "{refused}"
    );
    for (content, hint) in [
        ("not JSON, but canary-secret", "not JSON"),
        (r#"{"private_key": "canary-secret"}"#, "type"),
        (r#"{"type": "gdch_service_account"}"#, "external_account"),
    ] {
        let refused = open_with(&double, file(dir.path(), content)).await;
        let shown = format!("{refused:?} {}", text(&refused));
        assert!(shown.contains(hint), "{shown}");
        assert!(!shown.contains("canary-secret"), "{shown}");
    }
    // What is JSON of a known type and yet not whole shows when it is first used.
    let incomplete = file(dir.path(), r#"{"type": "service_account"}"#);
    let keys = open_with(&double, incomplete).await.unwrap();
    let refused = text(&keys.check().await);
    assert!(refused.contains("no usable credentials"), "{refused}");
}

impl GcpKmsKeys {
    async fn unwrap_err_of(&self, kek: &KekId, wrapped: &[u8]) -> String {
        text(&self.unwrap(kek, wrapped, AAD).await)
    }
}
