use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{console::obey, wire::crc32c};

const RING: &str = "projects/p/locations/l/keyRings/r";
const KEY: &str = "projects/p/locations/l/keyRings/r/cryptoKeys/k";

/// Sends a request as any client would, and gives the status and the JSON of its answer.
async fn send(double: &KmsDouble, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let address = double.endpoint().replace("http://", "");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "{method} /v1/{path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or("0");
    (
        status.parse().unwrap(),
        serde_json::from_str(body).unwrap_or_default(),
    )
}

async fn with_key() -> KmsDouble {
    let double = KmsDouble::start().unwrap();
    let ring = "projects/p/locations/l/keyRings?keyRingId=r";
    assert_eq!(send(&double, "POST", ring, &json!({})).await.0, 200);
    let key = json!({ "purpose": "ENCRYPT_DECRYPT" });
    let path = format!("{RING}/cryptoKeys?cryptoKeyId=k");
    assert_eq!(send(&double, "POST", &path, &key).await.0, 200);
    double
}

#[tokio::test]
async fn it_encrypts_and_decrypts_with_checksums() {
    let double = with_key().await;
    let plaintext = json!({
        "plaintext": wire::encode(b"secret"),
        "plaintextCrc32c": crc32c(b"secret").to_string(),
        "additionalAuthenticatedData": wire::encode(b"row"),
    });
    let (status, sealed) = send(&double, "POST", &format!("{KEY}:encrypt"), &plaintext).await;
    assert_eq!(status, 200, "{sealed}");
    assert_eq!(sealed["name"], format!("{KEY}/cryptoKeyVersions/1"));
    assert_eq!(sealed["verifiedPlaintextCrc32c"], true);
    assert_eq!(sealed["verifiedAdditionalAuthenticatedDataCrc32c"], false);
    let mut question = json!({
        "ciphertext": sealed["ciphertext"],
        "ciphertextCrc32c": sealed["ciphertextCrc32c"],
        "additionalAuthenticatedData": wire::encode(b"row"),
    });
    let decrypt = format!("{KEY}:decrypt");
    let (status, opened) = send(&double, "POST", &decrypt, &question).await;
    assert_eq!(
        (status, &opened["plaintext"]),
        (200, &plaintext["plaintext"])
    );
    question["additionalAuthenticatedData"] = wire::encode(b"another row");
    let (status, refused) = send(&double, "POST", &decrypt, &question).await;
    assert_eq!(
        (status, &refused["error"]["status"]),
        (400, &json!("INVALID_ARGUMENT"))
    );
    question["ciphertextCrc32c"] = json!("1");
    let (_, refused) = send(&double, "POST", &decrypt, &question).await;
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("ciphertext_crc32c"), "{message}");
    assert_eq!(double.count(Call::Decrypt), 3);
}

#[tokio::test]
async fn versions_come_in_pages() {
    let double = with_key().await;
    let path = format!("{KEY}/cryptoKeyVersions");
    for _ in 0..3 {
        send(&double, "POST", &path, &json!({})).await;
    }
    let (_, page) = send(&double, "GET", &path, &Value::Null).await;
    assert_eq!(page["cryptoKeyVersions"].as_array().unwrap().len(), 3);
    let next = format!(
        "{path}?pageToken={}",
        page["nextPageToken"].as_str().unwrap()
    );
    let (_, page) = send(&double, "GET", &next, &Value::Null).await;
    assert_eq!(page["cryptoKeyVersions"].as_array().unwrap().len(), 1);
    assert_eq!(page.get("nextPageToken"), None);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let double = with_key().await;
    for path in [
        "projects/p/locations/l/keyRings/other",
        "projects/p/locations/l/keyRings/r/cryptoKeys/other",
        "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/2",
        "anything/else",
    ] {
        let (status, _) = send(&double, "GET", path, &Value::Null).await;
        assert_eq!(status, 404, "{path}");
    }
    let again = format!("{RING}/cryptoKeys?cryptoKeyId=k");
    let (status, _) = send(&double, "POST", &again, &json!({ "purpose": 1 })).await;
    assert_eq!(status, 409);
}

#[tokio::test]
async fn the_console_sets_faults_and_states() {
    let double = with_key().await;
    let look = || async { send(&double, "GET", KEY, &Value::Null).await.0 };
    for (command, status) in [
        ("fault get-crypto-key deny x1", 403),
        ("clear", 200),
        ("fault any status=429", 429),
        ("fault get-crypto-key unauthenticated x1", 401),
        ("clear", 200),
    ] {
        assert_eq!(obey(&double, command).await, "ok", "{command}");
        assert_eq!(look().await, status, "{command}");
    }
    assert_eq!(obey(&double, "requests get-crypto-key").await, "5");
    let destroy = format!("state {KEY}/cryptoKeyVersions/1 destroyed");
    assert_eq!(obey(&double, &destroy).await, "ok");
    let body = json!({ "plaintext": "AAAA" });
    let (_, refused) = send(&double, "POST", &format!("{KEY}:encrypt"), &body).await;
    assert_eq!(refused["error"]["status"], "FAILED_PRECONDITION");
    assert!(obey(&double, "log").await.contains("\"encrypt\""));
    assert_eq!(obey(&double, "forget").await, "ok");
    assert_eq!(obey(&double, "requests").await, "0");
    for bad in [
        "",
        "explode",
        "fault encrypt",
        "fault x deny",
        "fault any deny 3",
        "state a b",
    ] {
        assert!(obey(&double, bad).await.starts_with("error "), "{bad}");
    }
}

#[tokio::test]
async fn it_goes_down_and_comes_up_at_the_same_address() {
    let double = with_key().await;
    let address = double.endpoint().replace("http://", "");
    assert_eq!(obey(&double, "down").await, "ok");
    let refused = tokio::time::timeout(Duration::from_secs(5), async {
        while TcpStream::connect(&address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    refused.await.unwrap();
    assert_eq!(obey(&double, "up").await, "ok");
    assert_eq!(send(&double, "GET", KEY, &Value::Null).await.0, 200);
}
