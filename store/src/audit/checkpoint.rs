//! The checkpoint file: the chain's heads, signed, outside the database.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::{CheckpointSigner, SignedHeads};
use crate::chain::{Heads, Link};
use crate::event::rfc3339;

/// Signed before the heads, so that the key's signatures mean nothing elsewhere.
const CONTEXT: &[u8] = b"claviger audit checkpoint v1\n";
/// A checkpoint names a handful of streams; anything larger is not one.
const MAX_BYTES: u64 = 1024 * 1024;

/// Heads of streams that this process does not write, by name; they stay in the file as they are.
pub(crate) type Carried = BTreeMap<String, SignedHead>;

/// The head of one stream in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedHead {
    seq: u64,
    hash: String,
}

/// What is signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    written_at: String,
    heads: BTreeMap<String, SignedHead>,
}

/// The file as it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checkpoint {
    statement: Statement,
    key: String,
    signature: String,
}

impl Checkpoint {
    fn new(
        signer: &CheckpointSigner,
        heads: &Heads,
        links: [Link; 2],
        carried: Carried,
        at: i64,
    ) -> Self {
        let mut statement = Statement {
            written_at: String::new(),
            heads: carried,
        };
        rfc3339(&mut statement.written_at, at);
        for (head, link) in heads.each().into_iter().zip(links) {
            let stated = SignedHead {
                seq: link.seq,
                hash: hex::encode(link.hash),
            };
            statement.heads.insert(head.stream.name.to_string(), stated);
        }
        Self {
            key: hex::encode(signer.public()),
            signature: hex::encode(signer.key.sign(&message(&statement)).to_bytes()),
            statement,
        }
    }

    /// Reads the file, if there is one, and checks that it is signed by the key it names.
    ///
    /// Whether that key is to be trusted is the caller's question.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, String> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let size = file.metadata().map_err(|error| error.to_string())?.len();
        if size > MAX_BYTES {
            return Err(format!("it has {size} bytes"));
        }
        let checkpoint: Self =
            serde_json::from_reader(io::BufReader::new(file)).map_err(|error| error.to_string())?;
        checkpoint.check()?;
        Ok(Some(checkpoint))
    }

    /// This file and all that were set aside because the chain did not agree with them.
    pub(crate) fn read_all(path: &Path) -> Result<Vec<Self>, (PathBuf, String)> {
        let with_path = |path: &Path| {
            let path = path.to_owned();
            move |reason| (path, reason)
        };
        let mut found = Vec::new();
        found.extend(Self::read(path).map_err(with_path(path))?);
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(found);
        };
        let prefix = format!("{}.disputed-", name.to_string_lossy());
        let Ok(entries) = fs::read_dir(directory) else {
            return Ok(found);
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let path = entry.path();
                found.extend(Self::read(&path).map_err(with_path(&path))?);
            }
        }
        Ok(found)
    }

    /// Reads a file of published heads, one a line, each signed by the key it names; `take` is called for every one.
    ///
    /// A line that breaks off is what a crash left of one, and says nothing.
    pub(crate) fn read_lines(
        path: &Path,
        mut take: impl FnMut(&Self),
    ) -> Result<(), (PathBuf, String)> {
        let failed = |reason: String| (path.to_owned(), reason);
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        let mut lines = io::BufReader::new(file);
        for number in 1_u64.. {
            let mut line = String::new();
            let read = lines
                .by_ref()
                .take(MAX_BYTES)
                .read_line(&mut line)
                .map_err(|error| failed(format!("line {number}: {error}")))?;
            if read == 0 {
                break;
            }
            if line.trim().is_empty() {
                continue;
            }
            let checkpoint: Self = match serde_json::from_str(line.trim_end()) {
                Ok(checkpoint) => checkpoint,
                Err(error) if error.is_eof() => continue,
                Err(error) => return Err(failed(format!("line {number}: {error}"))),
            };
            checkpoint
                .check()
                .map_err(|reason| failed(format!("line {number}: {reason}")))?;
            take(&checkpoint);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let key = self.key().ok_or("its key is none")?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| "its key is none")?;
        let mut signature = [0; 64];
        hex::decode_to_slice(&self.signature, &mut signature)
            .map_err(|_| "its signature is none")?;
        key.verify_strict(
            &message(&self.statement),
            &Signature::from_bytes(&signature),
        )
        .map_err(|_| "its signature does not fit")?;
        if self
            .statement
            .heads
            .values()
            .all(|head| head.link().is_some())
        {
            Ok(())
        } else {
            Err("a hash in it is none".to_owned())
        }
    }

    /// The key that signed it.
    pub(crate) fn key(&self) -> Option<[u8; 32]> {
        let mut key = [0; 32];
        hex::decode_to_slice(&self.key, &mut key).ok()?;
        Some(key)
    }

    /// The signed head of a stream.
    pub(crate) fn head(&self, stream: &str) -> Option<Link> {
        self.statement.heads.get(stream)?.link()
    }

    /// All signed heads.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (&str, Link)> {
        self.statement
            .heads
            .iter()
            .filter_map(|(stream, head)| Some((stream.as_str(), head.link()?)))
    }

    /// The signed heads of streams other than these.
    pub(crate) fn others(&self, streams: &[String]) -> Carried {
        let mut others = self.statement.heads.clone();
        others.retain(|stream, _| !streams.contains(stream));
        others
    }

    /// Sets the file aside as evidence, where verification still finds it.
    pub(crate) fn keep_as_disputed(&self, path: &Path) -> io::Result<()> {
        let digits: String = self
            .statement
            .written_at
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        fs::rename(
            path,
            crate::open::beside(path, &format!(".disputed-{digits}")),
        )
    }
}

impl SignedHead {
    fn link(&self) -> Option<Link> {
        let mut hash = [0; 32];
        hex::decode_to_slice(&self.hash, &mut hash).ok()?;
        Some(Link {
            seq: self.seq,
            hash,
        })
    }
}

/// The signed bytes: the context, then the statement as `serde_json` writes it.
fn message(statement: &Statement) -> Vec<u8> {
    let mut message = CONTEXT.to_vec();
    serde_json::to_writer(&mut message, statement)
        .expect("strings and numbers always have a JSON form");
    message
}

/// Signs the heads as they are now. `None` while there is no record.
pub(crate) fn sign(signer: &CheckpointSigner, heads: &Heads, at: i64) -> Option<SignedHeads> {
    let links = heads.each().map(crate::chain::Head::get);
    let node = &*heads.control.stream.name;
    let node = node.strip_suffix("/control").unwrap_or(node);
    let records = links.iter().map(|link| link.seq).sum();
    let checkpoint = Checkpoint::new(signer, heads, links, Carried::new(), at);
    let line = serde_json::to_string(&checkpoint).ok()?;
    (records > 0).then_some(SignedHeads {
        line,
        node: node.to_owned(),
        written_at: checkpoint.statement.written_at,
        records,
    })
}

/// Signs `links` and puts them in the file's place at once: a reader sees the old file or the new.
pub(crate) fn write(
    path: &Path,
    signer: &CheckpointSigner,
    heads: &Heads,
    links: [Link; 2],
    carried: &Carried,
    at: i64,
) -> io::Result<()> {
    let checkpoint = Checkpoint::new(signer, heads, links, carried.clone(), at);
    let temporary = crate::open::beside(path, ".new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    serde_json::to_writer_pretty(&mut file, &checkpoint)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    // The rename is only durable with its directory.
    path.parent().map_or(Ok(()), |directory| {
        let directory = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        File::open(directory)?.sync_all()
    })
}
