//! What of the audit trail leaves the process: signed heads, logs for a collector, webhooks.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;

use super::{duration, one};

/// `[audit]`: where the trail's signed heads are published.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "they are named as the settings are"
)]
pub(crate) struct Audit {
    /// A line for each is appended here.
    pub(crate) checkpoint_file: Option<PathBuf>,
    /// Each is put here.
    pub(crate) checkpoint_url: Option<CheckpointUrl>,
    /// Holds the bearer token for an `https` URL.
    pub(crate) checkpoint_token_file: Option<PathBuf>,
    /// Holds the keys for a bucket.
    pub(crate) checkpoint_credentials_file: Option<PathBuf>,
    pub(crate) checkpoint_region: String,
    /// Of a bucket's server other than Amazon's.
    pub(crate) checkpoint_endpoint: Option<Url>,
    pub(crate) checkpoint_every: Duration,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            checkpoint_file: None,
            checkpoint_url: None,
            checkpoint_token_file: None,
            checkpoint_credentials_file: None,
            checkpoint_region: "us-east-1".to_owned(),
            checkpoint_endpoint: None,
            // So much of the trail could be cut unseen; a year of them is some hundred megabytes on a busy node.
            checkpoint_every: Duration::from_mins(1),
        }
    }
}

/// A place that takes signed heads by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointUrl {
    Https(Url),
    /// `s3://BUCKET/PREFIX`.
    Bucket {
        name: String,
        prefix: String,
    },
}

impl CheckpointUrl {
    /// As it may be shown: a query is often what makes a presigned URL good.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Https(url) => {
                let mut url = url.clone();
                if url.query().is_some() {
                    url.set_query(Some("..."));
                }
                url.to_string()
            }
            Self::Bucket { name, prefix } => format!("s3://{name}/{prefix}"),
        }
    }
}

/// `[telemetry]`: the collector of OpenTelemetry logs that gets the trail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Telemetry {
    /// Its base URL; logs go to `v1/logs` below it.
    pub(crate) endpoint: Option<Url>,
    /// Holds headers that are sent along, `NAME: VALUE` a line.
    pub(crate) headers_file: Option<PathBuf>,
}

/// `[webhooks]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Webhooks {
    /// A webhook is given up when its attempts have failed for so long.
    pub(crate) give_up_after: Duration,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            give_up_after: control_plane::DeliveryOptions::default().give_up,
        }
    }
}

pub(super) fn checkpoint_url(values: &[&str]) -> Result<CheckpointUrl, String> {
    // It may be presigned, so no message repeats it.
    let shape =
        "is no place for checkpoints, as https://store.example/claviger/ or s3://BUCKET/PREFIX";
    let text = one(values)?;
    if let Some(place) = text.strip_prefix("s3://") {
        let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
        let is_name =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        let is_good = (3..=63).contains(&name.len()) && name.bytes().all(is_name);
        return is_good
            .then(|| CheckpointUrl::Bucket {
                name: name.to_owned(),
                prefix: prefix.trim_matches('/').to_owned(),
            })
            .ok_or_else(|| shape.to_owned());
    }
    match Url::parse(text) {
        Ok(url)
            if matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none() =>
        {
            Ok(CheckpointUrl::Https(url))
        }
        _ => Err(shape.to_owned()),
    }
}

pub(super) fn region(values: &[&str]) -> Result<String, String> {
    let text = one(values)?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=32).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("is no region, as eu-central-1".to_owned())
    }
}

pub(super) fn checkpoint_every(values: &[&str]) -> Result<Duration, String> {
    match duration(values)? {
        every if (Duration::from_secs(1)..=Duration::from_hours(24)).contains(&every) => Ok(every),
        _ => Err("is 1s to 24h".to_owned()),
    }
}

pub(super) fn give_up_after(values: &[&str]) -> Result<Duration, String> {
    match duration(values)? {
        after if (Duration::from_mins(1)..=Duration::from_hours(30 * 24)).contains(&after) => {
            Ok(after)
        }
        _ => Err("is 1m to 30d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_for_checkpoints_are_read_and_shown_without_their_query() {
        let read = |text: &str| checkpoint_url(&[text]);
        let bucket = read("s3://heads/claviger/prod/").unwrap();
        assert_eq!(bucket.shown(), "s3://heads/claviger/prod");
        assert_eq!(read("s3://heads").unwrap().shown(), "s3://heads/");
        let presigned = read("https://s.example/x?X-Amz-Signature=canary").unwrap();
        assert_eq!(presigned.shown(), "https://s.example/x?...");
        for bad in [
            "",
            "s3://",
            "s3://H/x",
            "ftp://s.example/",
            "https://u:canary@s.example/",
            "/var/heads",
        ] {
            let refused = read(bad).unwrap_err();
            assert!(!refused.contains("canary"), "{refused}");
        }
    }

    #[test]
    fn bounds_are_kept() {
        assert!(checkpoint_every(&["0s"]).is_err() && checkpoint_every(&["25h"]).is_err());
        assert!(give_up_after(&["5s"]).is_err() && give_up_after(&["31d"]).is_err());
        assert_eq!(give_up_after(&["3d"]).unwrap(), Duration::from_hours(72));
        assert!(region(&["eu-central-1"]).is_ok() && region(&["EU/x"]).is_err());
    }
}
