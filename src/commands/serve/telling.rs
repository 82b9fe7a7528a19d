//! Where the audit trail goes beside the database: what the configuration says of it, read.

use control_plane::{
    Bucket, CheckpointOptions, CheckpointTarget, CollectorOptions, DeliveryOptions,
};
use http::{HeaderName, HeaderValue, Uri};
use reqwest::Url;

use super::custody::read_secret;
use crate::config::{CheckpointUrl, Config};
use crate::failure::Failure;

/// Where signed heads are published.
///
/// # Errors
/// A [`Failure`] that names the setting that is missing.
pub(super) fn checkpoints(config: &Config) -> Result<CheckpointOptions, Failure> {
    let audit = &config.audit;
    let target = match &audit.checkpoint_url {
        None => None,
        Some(CheckpointUrl::Https(url)) => Some(CheckpointTarget::Url {
            url: uri("audit.checkpoint_url", url)?,
            token_file: audit.checkpoint_token_file.clone(),
        }),
        Some(CheckpointUrl::Bucket { name, prefix }) => Some(CheckpointTarget::Bucket(Bucket {
            name: name.clone(),
            prefix: prefix.clone(),
            region: audit.checkpoint_region.clone(),
            endpoint: audit
                .checkpoint_endpoint
                .as_ref()
                .map(|endpoint| uri("audit.checkpoint_endpoint", endpoint))
                .transpose()?,
            credentials_file: audit.checkpoint_credentials_file.clone().ok_or_else(|| {
                Failure::new("a bucket for checkpoints takes credentials, and none are configured")
                    .code("config_invalid")
                    .hint("name a file with aws_access_key_id and aws_secret_access_key as audit.checkpoint_credentials_file")
            })?,
        })),
    };
    Ok(CheckpointOptions {
        file: audit.checkpoint_file.clone(),
        target,
        every: audit.checkpoint_every,
    })
}

/// How the trail is told to webhooks and to a collector.
///
/// # Errors
/// A [`Failure`] that names the setting that is wrong.
pub(super) fn delivery(config: &Config) -> Result<DeliveryOptions, Failure> {
    let collector = config.telemetry.endpoint.as_ref().map(|endpoint| {
        let base = endpoint.as_str().trim_end_matches('/');
        let url = format!("{base}/v1/logs").parse();
        Ok::<_, Failure>(CollectorOptions {
            url: url.map_err(|_| not_askable("telemetry.endpoint"))?,
            headers: headers(config)?,
        })
    });
    Ok(DeliveryOptions {
        give_up: config.webhooks.give_up_after,
        collector: collector.transpose()?,
        ..DeliveryOptions::default()
    })
}

fn uri(setting: &str, url: &Url) -> Result<Uri, Failure> {
    url.as_str().parse().map_err(|_| not_askable(setting))
}

fn not_askable(setting: &str) -> Failure {
    Failure::new(format!("{setting} is no URL that can be asked"))
        .code("config_invalid")
        .hint("write it as https://collector.example:4318")
}

/// The headers for the collector: `NAME: VALUE` a line.
fn headers(config: &Config) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
    let Some(file) = &config.telemetry.headers_file else {
        return Ok(Vec::new());
    };
    let hint = "name a file with `NAME: VALUE` lines as telemetry.headers_file";
    let text = read_secret(file, "collector's headers", hint)?;
    let lines = text.expose_str().unwrap_or_default().lines();
    let lines = lines
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            header(line).ok_or_else(|| {
                // The line may be a credential, so it is not repeated.
                let line = index + 1;
                Failure::new(format!("line {line} of {} is no header", file.display()))
                    .code("config_invalid")
                    .hint(hint)
            })
        })
        .collect()
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
    let mut value = HeaderValue::from_str(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::Loaded;

    fn config(text: &str) -> Config {
        let file = Some((std::path::Path::new("claviger.toml"), text));
        let loaded = Loaded::from_sources(file, &[], &Vec::new());
        loaded.unwrap().config
    }

    #[test]
    fn a_bucket_without_credentials_is_refused() {
        let refused = checkpoints(&config("[audit]\ncheckpoint_url = \"s3://heads/x\""));
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("takes credentials"), "{refused}");
        let none = checkpoints(&Config::default()).unwrap();
        assert!(none.file.is_none() && none.target.is_none());
    }

    #[test]
    fn logs_go_below_the_endpoint_with_the_files_headers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("headers");
        let with = |lines: &str| {
            std::fs::write(&path, lines).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            delivery(&config(&format!(
                "[telemetry]\nendpoint = \"https://c.example:4318/\"\nheaders_file = \"{}\"",
                path.display()
            )))
        };
        let collector = with("x-api-key: k\n\nx-tenant: t\n")
            .unwrap()
            .collector
            .unwrap();
        assert_eq!(collector.url.to_string(), "https://c.example:4318/v1/logs");
        assert_eq!(collector.headers.len(), 2);
        let refused = with("x-api-key: k\ncanary without a colon\n")
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("line 2") && !refused.contains("canary"),
            "{refused}"
        );
    }
}
