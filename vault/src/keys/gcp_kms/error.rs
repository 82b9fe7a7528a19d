//! What goes wrong with Cloud KMS: what an operator must put right, and what one call met.

use std::path::PathBuf;

use google_cloud_gax::error::{Error, rpc::Code};

use super::PROVIDER;
use crate::keys::{KekId, KeyError};

/// The longest text of the service that an error repeats, in characters.
const MAX_TEXT: usize = 300;
const CREDENTIALS_HINT: &str = "run `gcloud auth application-default login`, give this machine or workload a service \
                                account, or name a credentials file";

/// What must be put right before Cloud KMS can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GcpKmsError {
    /// The key ring's name is not a resource name.
    #[error("{given:?} is not a key ring; use the form projects/P/locations/L/keyRings/R")]
    KeyRingName {
        /// The name as given.
        given: String,
    },
    /// The endpoint is no URL, or would have keys travel in the clear.
    #[error(
        "{given:?} cannot be the endpoint of Cloud KMS; use an https URL, or http with a loopback address for a test"
    )]
    Endpoint {
        /// The endpoint as given.
        given: String,
    },
    /// Calls without credentials are for a double on this machine.
    #[error(
        "Cloud KMS takes no anonymous calls; configure credentials (anonymous is for an http endpoint on loopback)"
    )]
    AnonymousEndpoint,
    /// The credentials file cannot be used.
    #[error("cannot use the credentials file {}: {reason}", path.display())]
    CredentialsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// There are no credentials, or they are not accepted.
    #[error("no usable credentials for Cloud KMS: {reason}; {CREDENTIALS_HINT}")]
    Credentials {
        /// What happened.
        reason: String,
    },
    /// The key ring does not exist, or was not made because that is not permitted.
    #[error(
        "key ring {key_ring} does not exist; run `gcloud kms keyrings create {id} --location {location}` in its project, \
         or grant these credentials cloudkms.keyRings.create, by which it is made with the first vault",
        id = key_ring.rsplit('/').next().unwrap_or_default(),
        location = key_ring.split('/').nth(3).unwrap_or_default()
    )]
    KeyRingMissing {
        /// Its resource name.
        key_ring: String,
    },
    /// The service refuses an operation on a signing key or on the key ring.
    #[error("Cloud KMS refuses to use {resource}: {reason}")]
    Refused {
        /// The resource's name.
        resource: String,
        /// What it said, and what to do.
        reason: String,
    },
}

/// What one call met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    NotFound,
    Exists,
    /// Not permitted.
    Denied(String),
    /// The key's state does not allow it.
    State(String),
    /// The service does not accept the request: for a decryption, the ciphertext or its AAD.
    Invalid(String),
    /// No usable credentials.
    Credentials(String),
    /// Trying again may help.
    Passing(String),
}

impl Fault {
    /// Whether the same call is worth a second try right away.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Passing(_))
    }

    /// The fault as an error of an operation on `kek`, whose key in Cloud KMS is `resource`.
    pub(super) fn of_kek(self, kek: &KekId, resource: &str) -> KeyError {
        let denied = |reason| KeyError::Denied {
            provider: PROVIDER,
            kek: kek.clone(),
            reason,
        };
        match self {
            Self::NotFound => KeyError::UnknownKek { kek: kek.clone() },
            Self::Denied(text) => denied(with_hint(&text, &permission_hint(resource))),
            Self::State(text) => denied(with_hint(&text, &state_hint(resource))),
            Self::Exists => denied("it exists already".to_owned()),
            Self::Invalid(text) => denied(text),
            Self::Credentials(reason) => GcpKmsError::Credentials { reason }.into(),
            Self::Passing(reason) => unavailable(reason),
        }
    }

    /// The fault as an error of an operation on something else than a KEK.
    pub(super) fn of_resource(self, resource: &str) -> KeyError {
        let reason = match self {
            Self::Credentials(reason) => return GcpKmsError::Credentials { reason }.into(),
            Self::Passing(reason) => return unavailable(reason),
            Self::NotFound => "it does not exist".to_owned(),
            Self::Exists => "it exists already".to_owned(),
            Self::Denied(text) => with_hint(&text, &permission_hint(resource)),
            Self::State(text) => with_hint(&text, &state_hint(resource)),
            Self::Invalid(text) => text,
        };
        GcpKmsError::Refused {
            resource: resource.to_owned(),
            reason,
        }
        .into()
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if error.is_authentication() {
            return Self::Passing("the access token could not be had".to_owned());
        }
        if let Some(status) = error.status() {
            return Self::of_code(status.code, readable(&status.message));
        }
        Self::Passing(match error.http_status_code() {
            Some(401) => return Self::Credentials("HTTP status 401".to_owned()),
            Some(403) => return Self::Denied("HTTP status 403".to_owned()),
            // A body that is not the API's own is somebody else's page, and not worth a line of the log.
            Some(status) => format!("HTTP status {status} without the API's own error"),
            None if error.is_timeout() => "the connection timed out".to_owned(),
            None if error.is_connect() => "it cannot be reached".to_owned(),
            None if error.is_deserialization() => "its answer is not the API's".to_owned(),
            None => "the connection broke".to_owned(),
        })
    }
}

impl Fault {
    fn of_code(code: Code, message: String) -> Self {
        match code {
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::Exists,
            Code::PermissionDenied => Self::Denied(message),
            Code::FailedPrecondition => Self::State(message),
            Code::Unauthenticated => Self::Credentials(message),
            // The request was damaged on its way, says the service; the next one may arrive whole.
            Code::InvalidArgument if message.to_ascii_lowercase().contains("checksum") => {
                Self::Passing(format!("the request arrived damaged: {message}"))
            }
            // What the service does not implement says nothing of what was sent: that is an outage.
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid(message),
            other => Self::Passing(format!("{}: {message}", other.name())),
        }
    }
}

pub(super) fn unavailable(reason: String) -> KeyError {
    KeyError::Unavailable {
        provider: PROVIDER,
        reason,
    }
}

/// A text of the service without control characters, cut to a bound.
pub(super) fn readable(text: &str) -> String {
    let text = text.chars().filter(|letter| !letter.is_control());
    text.take(MAX_TEXT).collect()
}

fn with_hint(text: &str, hint: &str) -> String {
    format!("{}; {hint}", text.trim_end_matches('.'))
}

fn permission_hint(resource: &str) -> String {
    format!(
        "grant these credentials roles/cloudkms.cryptoKeyEncrypterDecrypter (cryptoKeyEncrypter where they only store, \
         signerVerifier for signing keys, admin where they create or rotate) on {resource}"
    )
}

fn state_hint(resource: &str) -> String {
    format!(
        "`gcloud kms keys versions list` shows the versions of {resource}; enable or restore that one, or rotate the key \
         if it is lost"
    )
}

#[cfg(test)]
mod tests {
    use google_cloud_gax::error::rpc::Status;

    use super::*;

    fn fault(code: Code, message: &str) -> Fault {
        let status = Status::default().set_code(code).set_message(message);
        Error::service(status).into()
    }

    #[test]
    fn only_passing_faults_are_tried_again() {
        let passing = [
            Code::Unavailable,
            Code::ResourceExhausted,
            Code::Internal,
            Code::Unknown,
            Code::Aborted,
            Code::DeadlineExceeded,
            Code::Cancelled,
            Code::DataLoss,
            Code::Unimplemented,
        ];
        for code in passing {
            assert!(fault(code, "later").is_passing(), "{code:?}");
        }
        let lasting = [
            Code::PermissionDenied,
            Code::FailedPrecondition,
            Code::NotFound,
            Code::AlreadyExists,
            Code::InvalidArgument,
            Code::Unauthenticated,
        ];
        for code in lasting {
            assert!(!fault(code, "no").is_passing(), "{code:?}");
        }
    }

    #[test]
    fn a_request_damaged_on_its_way_is_no_tampering() {
        let message =
            "The checksum in field ciphertext_crc32c did not match the data in field ciphertext.";
        assert!(fault(Code::InvalidArgument, message).is_passing());
    }

    #[test]
    fn the_services_texts_are_cut_and_stripped() {
        let Fault::Denied(text) = fault(Code::PermissionDenied, &"\u{1b}[31mno\n".repeat(1000))
        else {
            panic!("another fault");
        };
        assert!(text.len() <= MAX_TEXT, "{}", text.len());
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }

    #[test]
    fn messages_say_what_to_do() {
        let missing = GcpKmsError::KeyRingMissing {
            key_ring: "projects/p/locations/europe-west3/keyRings/claviger".to_owned(),
        };
        let text = missing.to_string();
        assert!(
            text.contains("gcloud kms keyrings create claviger --location europe-west3"),
            "{text}"
        );
        let kek = KekId::parse("gcp-kms:a").unwrap();
        let text = Fault::Denied("no.".to_owned()).of_kek(&kek, "keys/k");
        assert!(text.to_string().contains("grant these"), "{text}");
        let text = Fault::State("x is DESTROYED.".to_owned()).of_kek(&kek, "keys/k");
        assert!(text.to_string().contains("restore"), "{text}");
        let text = Fault::Credentials("expired".to_owned()).of_kek(&kek, "keys/k");
        assert!(
            text.to_string()
                .contains("gcloud auth application-default login"),
            "{text}"
        );
    }
}
