//! Which key ring, at which endpoint, with whose credentials.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use http::Uri;

use super::GcpKmsError;
use crate::KEY_DEADLINE;

/// How to reach Cloud KMS, and where the installation's keys are in it.
#[derive(Debug, Clone)]
pub struct GcpKmsOptions {
    /// The key ring of this installation: `projects/P/locations/L/keyRings/R`.
    pub key_ring: String,
    /// Another endpoint than `https://cloudkms.googleapis.com`: a regional or private one. `http` is for a loopback
    /// address alone.
    pub endpoint: Option<String>,
    /// Whose credentials it uses.
    pub credentials: Credentials,
    /// How long one operation may take. Then the answer is `Unavailable`.
    pub deadline: Duration,
}

impl GcpKmsOptions {
    /// This key ring, at the public endpoint, with the application-default credentials.
    pub fn new(key_ring: impl Into<String>) -> Self {
        Self {
            key_ring: key_ring.into(),
            endpoint: None,
            credentials: Credentials::ApplicationDefault,
            deadline: KEY_DEADLINE,
        }
    }
}

/// Whose credentials calls of Cloud KMS carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The application-default ones: the file that `GOOGLE_APPLICATION_CREDENTIALS` names, else those of
    /// `gcloud auth application-default login`, else those of the machine by its metadata server, which is how GCE, GKE
    /// and Cloud Run give a workload its identity. Spec: AIP-4110.
    ApplicationDefault,
    /// This JSON file: the configuration of a workload identity (`external_account`, AIP-4117), a service account's key,
    /// an impersonated service account, or a user's credentials.
    File(PathBuf),
    /// None. Only an `http` endpoint on a loopback address is asked without credentials.
    Anonymous,
}

/// A key ring's resource name.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyRing(String);

impl KeyRing {
    pub(super) fn parse(name: &str) -> Result<Self, GcpKmsError> {
        let is_id = |id: &str| {
            !id.is_empty()
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
        };
        let parts: Vec<&str> = name.split('/').collect();
        match parts.as_slice() {
            ["projects", project, "locations", location, "keyRings", ring]
                if is_id(project) && is_id(location) && is_id(ring) =>
            {
                Ok(Self(name.to_owned()))
            }
            _ => Err(GcpKmsError::KeyRingName {
                given: name.to_owned(),
            }),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// `projects/P/locations/L`, in which it is.
    pub(super) fn location(&self) -> &str {
        self.0.split("/keyRings/").next().unwrap_or_default()
    }

    /// `R`.
    pub(super) fn id(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The key of this id in it.
    pub(super) fn key(&self, id: &str) -> String {
        format!("{}/cryptoKeys/{id}", self.0)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Refuses an endpoint to which keys or tokens would go in the clear, and anonymous calls of a real service.
pub(super) fn check_endpoint(
    endpoint: Option<&str>,
    credentials: &Credentials,
) -> Result<(), GcpKmsError> {
    let mut in_clear = false;
    if let Some(given) = endpoint {
        let bad = || GcpKmsError::Endpoint {
            given: given.to_owned(),
        };
        let uri: Uri = given.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(bad());
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(authority.host()) => in_clear = true,
            _ => return Err(bad()),
        }
    }
    if *credentials == Credentials::Anonymous && !in_clear {
        return Err(GcpKmsError::AnonymousEndpoint);
    }
    Ok(())
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ring_is_a_full_resource_name() {
        let ring = KeyRing::parse("projects/p-1/locations/europe-west3/keyRings/claviger").unwrap();
        assert_eq!(ring.location(), "projects/p-1/locations/europe-west3");
        assert_eq!(ring.id(), "claviger");
        assert_eq!(
            ring.key("kek-a"),
            "projects/p-1/locations/europe-west3/keyRings/claviger/cryptoKeys/kek-a"
        );
        for bad in [
            "",
            "claviger",
            "projects/p/locations/l/keyRings/",
            "projects/p/locations/l/keyRings/r/cryptoKeys/k",
            "projects/p/locations/l/keyrings/r",
            "projects/p/locations/../keyRings/r?x",
            "/projects/p/locations/l/keyRings/r",
        ] {
            assert!(KeyRing::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plain_http_goes_to_a_loopback_address_only() {
        let check = |endpoint| check_endpoint(Some(endpoint), &Credentials::ApplicationDefault);
        for good in [
            "https://cloudkms.googleapis.com",
            "https://cloudkms.europe-west3.rep.googleapis.com/",
            "http://127.0.0.1:8080",
            "http://127.8.9.1",
            "http://[::1]:8080",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "cloudkms.googleapis.com",
            "http://cloudkms.googleapis.com",
            "http://10.0.0.1",
            "http://localhost:8080",
            "http://127.0.0.1@example.org",
            "https://user:word@example.org",
            "https://example.org/?a=b",
            "ftp://127.0.0.1",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nobody_calls_a_real_service_anonymously() {
        let check = |endpoint| check_endpoint(endpoint, &Credentials::Anonymous);
        assert!(check(Some("http://127.0.0.1:1")).is_ok());
        for real in [None, Some("https://127.0.0.1:1")] {
            assert!(
                matches!(check(real), Err(GcpKmsError::AnonymousEndpoint)),
                "{real:?}"
            );
        }
    }
}
