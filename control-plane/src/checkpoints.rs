//! Publishing the trail's signed heads where whoever writes the database cannot reach them: a file, a URL, a bucket.
//!
//! Each is one line of JSON. Whoever holds the lines finds a trail that was cut, or a database that was put back to an earlier
//! state: `claviger audit verify --checkpoints FILE`. It runs on every node, for each signs the heads of its own streams.

mod s3;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, Uri, header};
use leases::clock::Clock;
use store::{SignedHeads, Store};
use thiserror::Error;
use tokio::sync::watch;
use vault::Secret;
use zeroize::Zeroizing;

use crate::outbound::{Bounds, Outbound, OutboundError, OutboundOptions};

pub use self::s3::Bucket;

/// Where signed heads are published.
#[derive(Debug, Clone, Default)]
pub struct CheckpointOptions {
    /// Lines are appended to this file, each synced. It is made 0600.
    pub file: Option<PathBuf>,
    /// Each line is put to this place.
    pub target: Option<CheckpointTarget>,
    /// How often; nothing is published while nothing new is on record.
    pub every: Duration,
}

/// Where lines are put by HTTP.
#[derive(Debug, Clone)]
pub enum CheckpointTarget {
    /// A URL as it stands, such as a presigned one, or, if its path ends with a slash, a name of each line's own below it.
    Url {
        /// The URL.
        url: Uri,
        /// Holds the bearer token, if it asks for one. It is read at each time, so it may be replaced.
        token_file: Option<PathBuf>,
    },
    /// A bucket that speaks the protocol of S3: a name of each line's own below its prefix.
    Bucket(Bucket),
}

/// Why a head was not published. The next one is, and says more.
#[derive(Debug, Error)]
enum PublishError {
    #[error("cannot append to {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {path}")]
    Credentials {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} holds no {what}")]
    NoCredentials { path: PathBuf, what: &'static str },
    #[error("the request cannot be made: {0}")]
    Request(&'static str),
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    #[error("the store of objects answered {0}")]
    Refused(u16),
}

/// Publishes the signed heads until `shutdown` says so, and a last time into the file then.
pub async fn publish_checkpoints(
    (store, clock): (Store, Arc<dyn Clock>),
    options: CheckpointOptions,
    outbound: OutboundOptions,
    mut shutdown: watch::Receiver<bool>,
) {
    if options.file.is_none() && options.target.is_none() {
        return;
    }
    let mut publisher = Publisher {
        outbound: Outbound::new(outbound),
        clock,
        in_file: Place::default(),
        at_target: Place::default(),
        options,
    };
    loop {
        if let Some(heads) = store.audit().signed_heads() {
            publisher.publish(&heads).await;
        }
        tokio::select! {
            () = tokio::time::sleep(publisher.options.every) => {}
            // A sender that is gone means the same.
            _ = shutdown.wait_for(|down| *down) => break,
        }
    }
    publisher.options.target = None;
    if let Some(heads) = store.audit().signed_heads() {
        publisher.publish(&heads).await;
    }
}

struct Publisher {
    options: CheckpointOptions,
    outbound: Outbound,
    clock: Arc<dyn Clock>,
    in_file: Place,
    at_target: Place,
}

/// What a place has.
#[derive(Default)]
struct Place {
    records: u64,
    is_failing: bool,
}

impl Place {
    fn is_behind(&self, heads: &SignedHeads) -> bool {
        self.records != heads.records
    }

    fn take(&mut self, heads: &SignedHeads, published: Result<(), PublishError>) {
        match published {
            Ok(()) => {
                if self.is_failing {
                    tracing::info!("the audit trail's heads are published again");
                }
                self.records = heads.records;
                self.is_failing = false;
            }
            Err(error) => {
                if !self.is_failing {
                    // Told once: it is tried again with the next one.
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the audit trail's heads are not published; a trail that is cut meanwhile would not be found"
                    );
                }
                self.is_failing = true;
            }
        }
    }
}

impl Publisher {
    async fn publish(&mut self, heads: &SignedHeads) {
        if let Some(file) = self
            .options
            .file
            .clone()
            .filter(|_| self.in_file.is_behind(heads))
        {
            let line = heads.line.clone();
            let appended = tokio::task::spawn_blocking(move || {
                append(&file, &line).map_err(|source| PublishError::File { path: file, source })
            });
            let appended = appended
                .await
                .unwrap_or(Err(PublishError::Request("it broke down")));
            self.in_file.take(heads, appended);
        }
        if let Some(target) = self
            .options
            .target
            .clone()
            .filter(|_| self.at_target.is_behind(heads))
        {
            let put = self.put(&target, heads).await;
            self.at_target.take(heads, put);
        }
    }

    async fn put(
        &self,
        target: &CheckpointTarget,
        heads: &SignedHeads,
    ) -> Result<(), PublishError> {
        let body = Bytes::from(format!("{}\n", heads.line));
        let mut request = match target {
            CheckpointTarget::Url { url, token_file } => {
                let mut request = Request::new(body);
                *request.uri_mut() = below(url, heads)?;
                if let Some(file) = token_file {
                    let bearer = bearer(file)?;
                    request.headers_mut().insert(header::AUTHORIZATION, bearer);
                }
                request
            }
            CheckpointTarget::Bucket(bucket) => bucket.request(heads, body, self.clock.now())?,
        };
        *request.method_mut() = Method::PUT;
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        let answer = self.outbound.send(request, Bounds::default()).await?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(PublishError::Refused(answer.status().as_u16()))
        }
    }
}

/// The name of a line among others: the node, and when the heads were signed, in letters and digits.
fn name_of(heads: &SignedHeads) -> String {
    let digits = heads.written_at.chars().filter(char::is_ascii_alphanumeric);
    format!("{}/{}.json", heads.node, digits.collect::<String>())
}

/// The URL itself, or a name below it if it ends with a slash.
fn below(url: &Uri, heads: &SignedHeads) -> Result<Uri, PublishError> {
    if !url.path().ends_with('/') || url.query().is_some() {
        return Ok(url.clone());
    }
    let named = format!("{url}{}", name_of(heads));
    named
        .parse()
        .map_err(|_| PublishError::Request("the URL takes no name"))
}

fn bearer(file: &Path) -> Result<HeaderValue, PublishError> {
    let text = read_credentials(file)?;
    let token = text.expose_str().unwrap_or_default().trim();
    let line = Zeroizing::new(format!("Bearer {token}"));
    let mut bearer = HeaderValue::from_str(&line)
        .ok()
        .filter(|_| !token.is_empty())
        .ok_or_else(|| PublishError::NoCredentials {
            path: file.to_owned(),
            what: "bearer token",
        })?;
    bearer.set_sensitive(true);
    Ok(bearer)
}

fn read_credentials(file: &Path) -> Result<Secret, PublishError> {
    let read = std::fs::read(file).map(Secret::new);
    read.map_err(|source| PublishError::Credentials {
        path: file.to_owned(),
        source,
    })
}

/// Appends a line and waits until it is on stable storage. What a crash left of a line before is ended first.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .mode(0o600)
        .open(path)?;
    let mut text = String::with_capacity(line.len() + 2);
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            text.push('\n');
        }
    }
    text.push_str(line);
    text.push('\n');
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let directory = path.parent().filter(|_| is_new);
    directory.map_or(Ok(()), |directory| {
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        File::open(directory)?.sync_all()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn heads() -> SignedHeads {
        SignedHeads {
            line: "{}".to_owned(),
            node: "n1".to_owned(),
            written_at: "2026-11-22T07:00:01.234Z".to_owned(),
            records: 3,
        }
    }

    #[test]
    fn lines_are_appended_for_the_owner_alone_and_half_a_line_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("heads.jsonl");
        append(&path, "{\"a\":1}").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"brok").unwrap();
        append(&path, "{\"b\":2}").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"a\":1}\n{\"brok\n{\"b\":2}\n");
        assert!(append(&directory.path().join("none/heads"), "{}").is_err());
    }

    #[test]
    fn a_url_is_taken_as_it_stands_unless_it_ends_with_a_slash() {
        for (url, asked) in [
            ("https://h.example/x?sig=1", "https://h.example/x?sig=1"),
            ("https://h.example/x/?sig=1", "https://h.example/x/?sig=1"),
            ("https://h.example/x", "https://h.example/x"),
            (
                "https://h.example/x/",
                "https://h.example/x/n1/20261122T070001234Z.json",
            ),
        ] {
            let uri: Uri = url.parse().unwrap();
            assert_eq!(below(&uri, &heads()).unwrap().to_string(), asked);
        }
    }

    #[test]
    fn a_token_is_read_from_its_file_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(
            bearer(&path)
                .unwrap_err()
                .to_string()
                .contains("cannot read")
        );
        std::fs::write(&path, "\n").unwrap();
        assert!(
            bearer(&path)
                .unwrap_err()
                .to_string()
                .contains("no bearer token")
        );
        std::fs::write(&path, "canary-token\n").unwrap();
        let header = bearer(&path).unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer canary-token");
        assert!(!format!("{header:?}").contains("canary"));
    }
}
