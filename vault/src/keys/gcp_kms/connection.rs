//! The client of Cloud KMS: when it is made, how long a call may take, and what is tried again.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use google_cloud_auth::credentials::{
    self, anonymous, external_account, impersonated, service_account, user_account,
};
use google_cloud_gax::retry_policy::NeverRetry;
use google_cloud_kms_v1::client::KeyManagementService;
use http::Extensions;
use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::Mutex,
    task::spawn_blocking,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Credentials, GcpKmsError,
    error::{Fault, readable},
};
use crate::aead::fill_random;

/// How soon after an attempt to make the client, or after a client whose credentials failed, the next one is made.
const REMAKE_AFTER: Duration = Duration::from_secs(2);
/// The pause before the second try, in milliseconds: at least the first, and at random up to the sum of both.
const PAUSE: (u64, u64) = (50, 150);

/// The client and its credentials, made on the first call and anew when the credentials have failed for good.
pub(super) struct Connection {
    endpoint: Option<String>,
    credentials: Credentials,
    deadline: Duration,
    session: RwLock<Option<Session>>,
    making: Mutex<Option<(Instant, Fault)>>,
}

#[derive(Clone)]
struct Session {
    kms: KeyManagementService,
    credentials: credentials::Credentials,
    made_at: Instant,
}

impl Connection {
    /// Reads the credentials file, so that a mistake in it shows at once. Nothing is asked of the network.
    pub(super) async fn new(
        endpoint: Option<String>,
        credentials: Credentials,
        deadline: Duration,
    ) -> Result<Arc<Self>, GcpKmsError> {
        if let Credentials::File(path) = &credentials {
            let path = path.clone();
            let read = spawn_blocking(move || read_file(&path).map(drop)).await;
            read.unwrap_or_else(|error| {
                Err(GcpKmsError::Credentials {
                    reason: error.to_string(),
                })
            })?;
        }
        Ok(Arc::new(Self {
            endpoint,
            credentials,
            deadline,
            session: RwLock::new(None),
            making: Mutex::new(None),
        }))
    }

    /// The beginning of an operation, whose calls end together when its time is over.
    pub(super) fn operation(self: &Arc<Self>) -> Operation {
        Operation {
            connection: Arc::clone(self),
            ends: Instant::now() + self.deadline,
            may_retry: AtomicBool::new(true),
        }
    }

    async fn session(self: &Arc<Self>) -> Result<Session, Fault> {
        if let Some(session) = self.session.read().clone() {
            return Ok(session);
        }
        // A task of its own: one whose caller gave up goes on, so that slow credentials are there for the next caller.
        let connection = Arc::clone(self);
        let made = tokio::spawn(async move { connection.make().await }).await;
        made.unwrap_or_else(|error| Err(Fault::Passing(error.to_string())))
    }

    async fn make(&self) -> Result<Session, Fault> {
        let mut failed = self.making.lock().await;
        if let Some(session) = self.session.read().clone() {
            return Ok(session);
        }
        if let Some((at, fault)) = &*failed
            && at.elapsed() < REMAKE_AFTER
        {
            return Err(fault.clone());
        }
        let (endpoint, credentials) = (self.endpoint.clone(), self.credentials.clone());
        let runtime = Handle::current();
        // Reading files and the system's certificates is blocking work.
        let made = spawn_blocking(move || runtime.block_on(new_session(endpoint, credentials)));
        let made = made
            .await
            .unwrap_or_else(|error| Err(Fault::Passing(error.to_string())));
        match made {
            Ok(session) => {
                *failed = None;
                *self.session.write() = Some(session.clone());
                Ok(session)
            }
            Err(fault) => {
                *failed = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    /// Lets go of a session whose credentials failed: the client library never asks for a token again after an answer
    /// that it takes for final, and goes on with a token that was revoked until it expires.
    fn let_go(&self, failed: &Session) {
        let mut session = self.session.write();
        if session
            .as_ref()
            .is_some_and(|now| now.made_at == failed.made_at)
            && failed.made_at.elapsed() >= REMAKE_AFTER
        {
            *session = None;
        }
    }
}

/// One operation: one or several calls with one deadline, in all of which one call is tried a second time.
pub(super) struct Operation {
    connection: Arc<Connection>,
    ends: Instant,
    may_retry: AtomicBool,
}

impl Operation {
    /// Does a call, and a second time if what it met may pass.
    pub(super) async fn call<T, F>(
        &self,
        ask: impl Fn(KeyManagementService) -> F + Send + Sync,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>> + Send,
    {
        let remaining = self.ends.saturating_duration_since(Instant::now());
        // A connection that hangs leaves time for a second one.
        let first_ends = if self.may_retry.load(Ordering::Relaxed) {
            Instant::now() + remaining.mul_f64(0.6)
        } else {
            self.ends
        };
        let first = self.attempt(&ask, first_ends).await;
        match first {
            Err(fault) if fault.is_passing() && self.may_retry.swap(false, Ordering::Relaxed) => {
                tracing::debug!("Cloud KMS: trying again after {fault:?}");
                sleep(pause()).await;
                self.attempt(&ask, self.ends).await
            }
            done => done,
        }
    }

    /// Does a call that must not be done twice.
    pub(super) async fn call_once<T, F>(
        &self,
        ask: impl Fn(KeyManagementService) -> F + Send + Sync,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>> + Send,
    {
        self.attempt(&ask, self.ends).await
    }

    async fn attempt<T, F>(
        &self,
        ask: &(impl Fn(KeyManagementService) -> F + Send + Sync),
        ends: Instant,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>> + Send,
    {
        let late = |what: &str| {
            let time = self.connection.deadline;
            Fault::Passing(format!("{what} within {} s", time.as_secs_f32()))
        };
        let session = timeout_at(ends, self.connection.session())
            .await
            .map_err(|_| late("no credentials"))??;
        // The client asks for the same token once more and finds it cached. Asked for here, its lack is not taken for
        // a fault of Cloud KMS.
        let token = timeout_at(ends, session.credentials.headers(Extensions::new()))
            .await
            .map_err(|_| late("no access token"))?;
        let answer = match token {
            Ok(_) => timeout_at(ends, ask(session.kms.clone()))
                .await
                .map_err(|_| late("no answer"))?,
            Err(error) if error.is_transient() => {
                Err(Fault::Passing(without_body(&error.to_string())))
            }
            Err(error) => Err(Fault::Credentials(without_body(&error.to_string()))),
        };
        if let Err(Fault::Credentials(_)) = answer {
            self.connection.let_go(&session);
        }
        answer
    }
}

async fn new_session(endpoint: Option<String>, credentials: Credentials) -> Result<Session, Fault> {
    install_crypto();
    let credentials = new_credentials(&credentials)?;
    let mut builder = KeyManagementService::builder()
        .with_credentials(credentials.clone())
        // What may be tried again is decided here, where an answer whose checksum is wrong counts too.
        .with_retry_policy(NeverRetry);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let kms = builder
        .build()
        .await
        .map_err(|error| Fault::Credentials(readable(&error.to_string())))?;
    Ok(Session {
        kms,
        credentials,
        made_at: Instant::now(),
    })
}

/// The client takes the process's provider of cryptography, and panics where there is none.
fn install_crypto() {
    if CryptoProvider::get_default().is_none() {
        // An error means that another thread was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

fn new_credentials(which: &Credentials) -> Result<credentials::Credentials, Fault> {
    let built = match which {
        Credentials::Anonymous => return Ok(anonymous::Builder::new().build()),
        Credentials::ApplicationDefault => credentials::Builder::default().build(),
        Credentials::File(path) => {
            let json = read_file(path).map_err(|error| Fault::Credentials(error.to_string()))?;
            match kind(&json) {
                "external_account" => external_account::Builder::new(json).build(),
                "impersonated_service_account" => impersonated::Builder::new(json).build(),
                "authorized_user" => user_account::Builder::new(json).build(),
                _ => service_account::Builder::new(json).build(),
            }
        }
    };
    built.map_err(|error| Fault::Credentials(readable(&error.to_string())))
}

/// The JSON of a credentials file whose kind is known.
fn read_file(path: &Path) -> Result<Value, GcpKmsError> {
    let bad = |reason: String| GcpKmsError::CredentialsFile {
        path: path.to_owned(),
        reason,
    };
    let bytes = std::fs::read(path)
        .map_err(|error| bad(format!("{error}; correct the path, or make it readable")))?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|_| {
        bad("it is not JSON; create it by `gcloud iam`, or download it anew".into())
    })?;
    match kind(&json) {
        "external_account"
        | "impersonated_service_account"
        | "authorized_user"
        | "service_account" => Ok(json),
        other => Err(bad(format!(
            "its type {:?} is not known; use external_account, service_account, impersonated_service_account or \
             authorized_user",
            readable(other)
        ))),
    }
}

fn kind(json: &Value) -> &str {
    json["type"].as_str().unwrap_or_default()
}

/// A credentials error's text without what the token endpoint answered, which may repeat what it was sent.
fn without_body(text: &str) -> String {
    readable(text.split(", body=<").next().unwrap_or_default())
}

fn pause() -> Duration {
    let (least, spread) = PAUSE;
    let mut random = [0; 2];
    // Without randomness the pause is the shortest one.
    let _ = fill_random(&mut random);
    let random = u64::from(u16::from_be_bytes(random));
    Duration::from_millis(least + random * spread / u64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_short_and_differ() {
        let pauses: Vec<_> = std::iter::repeat_with(pause).take(50).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| (50..=200).contains(&pause.as_millis()))
        );
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
    }

    #[test]
    fn a_token_endpoints_answer_is_not_repeated() {
        assert_eq!(
            without_body("failed to exchange token, body=<ya29.secret>"),
            "failed to exchange token"
        );
    }
}
