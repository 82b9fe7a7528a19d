//! The calls: check, do, answer.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::{
    call::Call,
    fault::{Action, Faults},
    keys::{Keys, Purpose, version_name},
    wire::{Refusal, bytes_field, checked_field, crc32c, encode, enum_field, int64},
};

/// A version list's page, kept short so that tests of it need few versions.
const PAGE: usize = 3;
/// The fields of bytes that answers have, with their checksums.
const CHECKED: [(&str, &str); 4] = [
    ("ciphertext", "ciphertextCrc32c"),
    ("plaintext", "plaintextCrc32c"),
    ("signature", "signatureCrc32c"),
    ("pem", "pemCrc32c"),
];
/// What says that the service verified a request's checksum.
const VERIFIED: [&str; 3] = [
    "verifiedPlaintextCrc32c",
    "verifiedAdditionalAuthenticatedDataCrc32c",
    "verifiedDataCrc32c",
];

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which call it was.
    pub call: Call,
    /// The resource that it named: the parent, where the call makes or lists.
    pub name: String,
    /// Its query, by name.
    pub query: BTreeMap<String, String>,
    /// Its `Authorization` header.
    pub authorization: Option<String>,
    /// Its JSON; null if it had none.
    pub body: Value,
}

/// The service's state.
#[derive(Default)]
pub(crate) struct Service {
    pub(crate) keys: Arc<Mutex<Keys>>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) requests: Mutex<Vec<Request>>,
    pub(crate) token: Mutex<Option<String>>,
    first_answers: Mutex<HashMap<Call, Value>>,
}

type Answer = Response<Full<Bytes>>;

impl Service {
    /// The same keys with nothing else in common.
    pub(crate) fn beside(&self) -> Self {
        Self {
            keys: Arc::clone(&self.keys),
            ..Self::default()
        }
    }

    /// Answers a request. An error closes the connection.
    pub(crate) async fn answer(&self, head: &Parts, body: Bytes) -> io::Result<Answer> {
        let mut request = read(head, &body);
        self.requests.lock().push(request.clone());
        let fault = self.faults.lock().meet(request.call);
        match fault {
            Some(Action::Delay(time)) => wait(time).await,
            Some(Action::HangUp) => return Err(io::Error::other("hang up on demand")),
            Some(Action::Garbage) => return Ok(page()),
            Some(Action::DamageRequest) => damage_request(&mut request.body),
            _ => {}
        }
        let outcome = match &fault {
            Some(Action::Deny) => Err(Refusal::denied(&request.call.permission(), &request.name)),
            Some(Action::Unauthenticated) => Err(Refusal::unauthenticated()),
            Some(Action::Status(code)) => Err(Refusal::of_status(*code)),
            _ => self.serve(&request),
        };
        Ok(match outcome {
            Ok(answer) => {
                let answer = self.falsify(&request, answer, fault);
                respond(StatusCode::OK, &answer)
            }
            Err(refusal) => respond(refusal.http, &refusal.body()),
        })
    }

    fn serve(&self, request: &Request) -> Result<Value, Refusal> {
        if request.call == Call::Token {
            return Ok(self.give_token());
        }
        if let Some(token) = self.token.lock().as_deref() {
            let wanted = format!("Bearer {token}");
            if request.authorization.as_deref() != Some(wanted.as_str()) {
                return Err(Refusal::unauthenticated());
            }
        }
        let mut keys = self.keys.lock();
        let name = request.name.as_str();
        match request.call {
            Call::CreateKeyRing => {
                let id = request.query_value("keyRingId")?;
                keys.create_ring(&format!("{name}/keyRings/{id}"))
            }
            Call::GetKeyRing => keys.ring(name),
            Call::CreateCryptoKey => {
                let id = request.query_value("cryptoKeyId")?;
                let purpose = purpose(&request.body)?;
                keys.create_key(name, &format!("{name}/cryptoKeys/{id}"), purpose)
            }
            Call::GetCryptoKey => keys.key(name),
            Call::CreateCryptoKeyVersion => keys.create_version(name),
            Call::GetCryptoKeyVersion => keys.version(name),
            Call::ListCryptoKeyVersions => {
                let versions = keys.versions(name)?;
                Ok(page_of(&versions, request.query.get("pageToken")))
            }
            Call::UpdatePrimaryVersion => {
                let number = request.body["cryptoKeyVersionId"].as_str();
                let number = number.and_then(|id| id.parse().ok());
                let number = number.ok_or_else(|| Refusal::invalid("cryptoKeyVersionId"))?;
                keys.set_primary(name, number)
            }
            Call::Destroy => keys.set_state(name, crate::keys::VersionState::DestroyScheduled),
            Call::GetPublicKey => public_key(&keys, name),
            Call::Encrypt => encrypt(&keys, request),
            Call::Decrypt => decrypt(&keys, request),
            Call::AsymmetricSign => sign(&keys, request),
            Call::Token | Call::Unknown => Err(Refusal::not_found(name)),
        }
    }

    fn give_token(&self) -> Value {
        let token = self.token.lock().clone().unwrap_or_else(|| "any".into());
        json!({
            "access_token": token,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3600,
        })
    }

    /// Turns the service's answer into the one that the fault asks for.
    fn falsify(&self, request: &Request, answer: Value, fault: Option<Action>) -> Value {
        let first = self
            .first_answers
            .lock()
            .entry(request.call)
            .or_insert_with(|| answer.clone())
            .clone();
        let mut answer = answer;
        match fault {
            Some(Action::DamageAnswer) => damage_answer(&mut answer),
            Some(Action::DamageChecksum) => {
                for (field, checksum) in CHECKED {
                    if let Ok(bytes) = bytes_of(&answer, field)
                        && answer.get(checksum).is_some()
                    {
                        answer[checksum] = int64(crc32c(&bytes) ^ 1);
                    }
                }
            }
            Some(Action::OmitChecksum) => remove(&mut answer, CHECKED.map(|(_, sum)| sum)),
            Some(Action::DenyChecksum) => remove(&mut answer, VERIFIED),
            Some(Action::NameVersion(number)) => {
                let name = answer["name"].as_str().unwrap_or_default();
                let key = name.split("/cryptoKeyVersions/").next();
                answer["name"] = version_name(key.unwrap_or_default(), number).into();
            }
            Some(Action::NameKey(other)) => {
                let name = answer["name"].as_str().unwrap_or_default();
                let version = name.split_once("/cryptoKeyVersions/");
                answer["name"] = match version {
                    Some((_, number)) if !other.contains("/cryptoKeyVersions/") => {
                        format!("{other}/cryptoKeyVersions/{number}").into()
                    }
                    _ => other.into(),
                };
            }
            Some(Action::Replay) => answer = first,
            _ => {}
        }
        answer
    }
}

impl Request {
    fn query_value(&self, name: &str) -> Result<&str, Refusal> {
        let value = self.query.get(name).map(String::as_str);
        value
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Refusal::invalid(format!("{name} is missing")))
    }
}

fn read(head: &Parts, body: &Bytes) -> Request {
    let (call, name) = Call::of(&head.method, head.uri.path());
    let query = head.uri.query().unwrap_or_default();
    let query = query.split('&').filter_map(|pair| pair.split_once('='));
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let authorization = head.headers.get(header::AUTHORIZATION);
    Request {
        call,
        name,
        query: query
            .map(|(name, value)| (decode(name), decode(value)))
            .collect(),
        authorization: authorization.map(|value| String::from_utf8_lossy(value.as_bytes()).into()),
        body: serde_json::from_slice(body).unwrap_or_default(),
    }
}

fn purpose(body: &Value) -> Result<Purpose, Refusal> {
    let purposes = [(1, "ENCRYPT_DECRYPT"), (5, "ASYMMETRIC_SIGN")];
    let algorithms = [(1, "GOOGLE_SYMMETRIC_ENCRYPTION"), (40, "EC_SIGN_ED25519")];
    let algorithm = enum_field(&body["versionTemplate"], "algorithm", &algorithms);
    match (enum_field(body, "purpose", &purposes), algorithm) {
        (1, 0 | 1) => Ok(Purpose::EncryptDecrypt),
        (5, 40) => Ok(Purpose::SignEd25519),
        _ => Err(Refusal::invalid("the algorithm does not fit the purpose")),
    }
}

fn encrypt(keys: &Keys, request: &Request) -> Result<Value, Refusal> {
    let (plaintext, sum) = checked_field(&request.body, "plaintext", "plaintextCrc32c")?;
    let (aad, aad_sum) = aad(&request.body)?;
    let (number, ciphertext) = keys.encrypt(&request.name, &plaintext, &aad)?;
    let key = request.name.split("/cryptoKeyVersions/").next();
    Ok(json!({
        "name": version_name(key.unwrap_or_default(), number),
        "ciphertext": encode(&ciphertext),
        "ciphertextCrc32c": int64(crc32c(&ciphertext)),
        "verifiedPlaintextCrc32c": sum,
        "verifiedAdditionalAuthenticatedDataCrc32c": aad_sum,
        "protectionLevel": 1,
    }))
}

fn decrypt(keys: &Keys, request: &Request) -> Result<Value, Refusal> {
    let (ciphertext, _) = checked_field(&request.body, "ciphertext", "ciphertextCrc32c")?;
    let (aad, _) = aad(&request.body)?;
    let (_, used_primary, plaintext) = keys.decrypt(&request.name, &ciphertext, &aad)?;
    Ok(json!({
        "plaintext": encode(&plaintext),
        "plaintextCrc32c": int64(crc32c(&plaintext)),
        "usedPrimary": used_primary,
        "protectionLevel": 1,
    }))
}

fn aad(body: &Value) -> Result<(Vec<u8>, bool), Refusal> {
    checked_field(
        body,
        "additionalAuthenticatedData",
        "additionalAuthenticatedDataCrc32c",
    )
}

fn sign(keys: &Keys, request: &Request) -> Result<Value, Refusal> {
    let (data, sum) = checked_field(&request.body, "data", "dataCrc32c")?;
    let signature = keys.sign(&request.name, &data)?;
    Ok(json!({
        "name": request.name,
        "signature": encode(&signature),
        "signatureCrc32c": int64(crc32c(&signature)),
        "verifiedDataCrc32c": sum,
        "protectionLevel": 1,
    }))
}

fn public_key(keys: &Keys, name: &str) -> Result<Value, Refusal> {
    let pem = keys.public_key(name)?;
    Ok(json!({
        "name": name,
        "pem": pem,
        "pemCrc32c": int64(crc32c(pem.as_bytes())),
        "algorithm": 40,
        "protectionLevel": 1,
    }))
}

fn page_of(versions: &[Value], token: Option<&String>) -> Value {
    let start: usize = token.and_then(|token| token.parse().ok()).unwrap_or(0);
    let end = versions.len().min(start + PAGE);
    let mut answer = json!({
        "cryptoKeyVersions": versions[start.min(end)..end],
        "totalSize": versions.len(),
    });
    if end < versions.len() {
        answer["nextPageToken"] = end.to_string().into();
    }
    answer
}

fn damage_request(body: &mut Value) {
    for field in ["plaintext", "ciphertext", "data"] {
        if let Ok(mut bytes) = bytes_field(body, field)
            && let Some(first) = bytes.first_mut()
        {
            *first ^= 1;
            body[field] = encode(&bytes);
        }
    }
}

fn damage_answer(answer: &mut Value) {
    if let Some(pem) = answer["pem"].as_str() {
        answer["pem"] = pem.replace("PUBLIC", "PUBLIK").into();
        return;
    }
    for (field, _) in CHECKED {
        if let Ok(mut bytes) = bytes_field(answer, field)
            && let Some(last) = bytes.last_mut()
        {
            *last ^= 1;
            answer[field] = encode(&bytes);
        }
    }
}

fn bytes_of(answer: &Value, field: &str) -> Result<Vec<u8>, Refusal> {
    match (field, answer.get(field)) {
        ("pem", Some(Value::String(pem))) => Ok(pem.clone().into_bytes()),
        _ => bytes_field(answer, field),
    }
}

fn remove<const N: usize>(answer: &mut Value, fields: [&str; N]) {
    if let Some(object) = answer.as_object_mut() {
        object.retain(|name, _| !fields.contains(&name.as_str()));
    }
}

async fn wait(time: Duration) {
    tokio::time::sleep(time).await;
}

fn respond(status: StatusCode, body: &Value) -> Answer {
    answer(status, "application/json; charset=UTF-8", body.to_string())
}

fn page() -> Answer {
    answer(
        StatusCode::OK,
        "text/html",
        "<html><title>Sign in</title></html>".to_owned(),
    )
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}
