//! What a request to an object store copies from: a second target, which a field of its own names (threats.md B15).
//!
//! Spec: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>,
//! <https://cloud.google.com/storage/docs/xml-api/reference-headers>

use std::borrow::Cow;

use http::{HeaderMap, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::inject::sigv4::endpoint::{Bucket, is_aws, s3_host};

/// The object that a request names as the source of what it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// The field that names it, in lower case.
    pub field: &'static str,
    /// Its bucket; none where the field holds another name than `BUCKET/KEY`, such as an ARN.
    pub bucket: Option<String>,
    /// Whether it names a version.
    pub has_version: bool,
    /// Whether the object ceases to be where it was.
    pub is_moved: bool,
    /// The field's text, which is percent-encoded once.
    text: String,
}

/// Where a GET of a source would be sent: one host, and the paths that are spellings of the one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The canonical host.
    pub host: String,
    /// At least one path, the last of them as SDKs write it.
    pub paths: Vec<String>,
}

/// Why it is not known which object a request copies. Each text names the next action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// Two fields, or one in a spelling that some servers take for it.
    #[error(
        "the request names what it copies twice, or in a field that servers read in two ways; name it once, in {0}"
    )]
    Twice(&'static str),
    /// One field, which does not say it for sure.
    #[error("{field} does not tell which object is copied, and the lease is bound to some: {why}")]
    Untold {
        /// The field.
        field: &'static str,
        /// What is odd about it, and what to send.
        why: &'static str,
    },
}

impl CopySource {
    /// Reads what a request copies from its head, or from its query, where presigned URLs carry fields.
    ///
    /// # Errors
    /// [`CopyError::Twice`].
    pub fn read(headers: &HeaderMap, query: Option<&str>) -> Result<Option<Self>, CopyError> {
        let in_head = headers.iter().filter_map(|(name, value)| {
            let field = Field::named(name.as_str())?;
            let is_exact = name.as_str() == field.name;
            Some((field, is_exact, value.to_str().ok().map(Cow::Borrowed)))
        });
        let mut found = in_head.chain(fields_of(query.unwrap_or_default()));
        let Some((field, is_exact, text)) = found.next() else {
            return Ok(None);
        };
        if !is_exact || found.next().is_some() {
            return Err(CopyError::Twice(field.name));
        }
        Ok(Some(Self::of(field, &text.unwrap_or_default())))
    }

    /// The methods by which a lease has to allow the object.
    pub fn methods(&self) -> &'static [&'static str] {
        if self.is_moved {
            &["GET", "DELETE"]
        } else {
            &["GET"]
        }
    }

    /// Where a GET of the object would go, in the way in which the request itself names its bucket at its canonical `host`.
    ///
    /// # Errors
    /// [`CopyError::Untold`].
    pub fn place(&self, host: &str) -> Result<Place, CopyError> {
        let untold = |why| CopyError::Untold {
            field: self.field,
            why,
        };
        let bucket = self
            .bucket
            .as_deref()
            .ok_or_else(|| untold("it is no BUCKET/KEY; name the bucket and not an ARN"))?;
        let keys = self.keys().map_err(untold)?;
        let style = addressing(host, bucket).ok_or_else(|| {
            untold("the host does not say where its buckets stand; send it to the store's own host")
        })?;
        // Whose bucket a move's source begins with is its own, or the beginning of a key.
        if self.is_moved && style != Bucket::InHost(bucket) {
            return Err(untold(
                "an object is moved within the bucket of the host; name it as BUCKET/KEY",
            ));
        }
        let (host, prefix) = match style {
            Bucket::InHost(own) if own == bucket => (host.to_owned(), String::new()),
            Bucket::InHost(own) => (format!("{bucket}{}", &host[own.len()..]), String::new()),
            Bucket::InPath => (host.to_owned(), format!("/{bucket}")),
        };
        let paths = keys.into_iter().map(|key| format!("{prefix}/{key}"));
        Ok(Place {
            host,
            paths: paths.collect(),
        })
    }

    /// As a message names the object: as it is written, and no longer than a line.
    pub fn shown(&self) -> String {
        let text = self.text.strip_prefix('/').unwrap_or(&self.text);
        text.chars()
            .take(LONGEST_SHOWN)
            .flat_map(char::escape_debug)
            .collect()
    }

    fn of(field: &'static Field, text: &str) -> Self {
        let (place, version) = text.split_once('?').unwrap_or((text, ""));
        let place = percent_decode_str(place).decode_utf8().ok();
        let bucket = place.as_deref().and_then(|place| {
            let (bucket, key) = object(place).split_once('/')?;
            (is_bucket(bucket) && !key.is_empty()).then(|| bucket.to_owned())
        });
        Self {
            field: field.name,
            bucket,
            has_version: version.contains(VERSION),
            is_moved: field.is_moved,
            text: text.to_owned(),
        }
    }

    /// The key as paths name it: as it is written here, and as SDKs write it.
    fn keys(&self) -> Result<Vec<String>, &'static str> {
        let (place, version) = match self.text.split_once('?') {
            Some((place, version)) => (place, Some(version)),
            None => (self.text.as_str(), None),
        };
        if !version.is_none_or(is_version) {
            return Err(
                "more than a version follows its question mark; write %3F for one of a key",
            );
        }
        if place.contains('+') {
            return Err("it holds a plus sign, which may stand for a blank; write %2B or %20");
        }
        if has_odd_escape(place) {
            return Err("it holds a malformed percent-escape; encode it once, as SDKs do");
        }
        let decoded = percent_decode_str(place).decode_utf8();
        let decoded = decoded.map_err(|_| "it does not decode to UTF-8")?;
        let (_, key) = object(&decoded)
            .split_once('/')
            .ok_or("it is no BUCKET/KEY")?;
        if key.contains(VERSION_MARK) {
            return Err("its key holds `?versionId=`, which may be taken for a version");
        }
        let canonical = utf8_percent_encode(key, &ESCAPED).to_string();
        let written = object(place).split_once('/').map(|(_, key)| key);
        let is_spelling =
            |written: &&str| *written != canonical && percent_decode_str(written).eq(key.bytes());
        let mut keys: Vec<String> = Vec::with_capacity(2);
        keys.extend(written.filter(is_spelling).map(str::to_owned));
        keys.push(canonical);
        Ok(keys)
    }
}

/// A glob of the objects of which a request names some in its body, where limits on paths do not see them; none where it names
/// none there, as far as its head tells.
///
/// Keys to be deleted and forms of uploads at a bucket, and parts that Google Cloud Storage composes.
pub fn objects_in_body(
    method: &Method,
    host: &str,
    path: &str,
    query: Option<&str>,
) -> Option<String> {
    let has = |wanted: &str| {
        query.unwrap_or_default().split(['&', ';']).any(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            percent_decode_str(name).eq(wanted.bytes())
        })
    };
    let is_post = method == Method::POST;
    let google = google_host(host);
    if google == Some(Bucket::InPath)
        && is_post
        && let Some(objects) = composed(path)
    {
        return Some(format!("{objects}/**"));
    }
    let is_composed = google.is_some() && method == Method::PUT && has("compose");
    let rest = path.strip_prefix('/')?;
    let (prefix, key) = match s3_host(host).or(google)? {
        Bucket::InHost(_) => (String::new(), rest),
        Bucket::InPath => {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            (format!("/{bucket}"), key)
        }
    };
    let is_listed = is_post && (key.is_empty() || has("delete"));
    (is_listed || is_composed).then(|| format!("{prefix}/**"))
}

/// The objects' path in that of a composition by the JSON API, `/storage/v1/b/BUCKET/o/OBJECT/compose`.
fn composed(path: &str) -> Option<&str> {
    let bucket = path.strip_prefix("/storage/v1/b/")?;
    let (objects, _) = path
        .strip_suffix("/compose")
        .filter(|_| bucket.contains("/o/"))?
        .rsplit_once('/')?;
    Some(objects)
}

/// A field that names a source.
struct Field {
    name: &'static str,
    /// Whether the object ceases to be where it was.
    is_moved: bool,
}

impl Field {
    /// The field that some server may read under this name: in any case, with `_` for `-`.
    fn named(name: &str) -> Option<&'static Self> {
        let is_same = |field: &&Self| {
            let pairs = field.name.bytes().zip(name.bytes());
            field.name.len() == name.len()
                && pairs.into_iter().all(|(known, found)| {
                    known == found.to_ascii_lowercase() || (known == b'-' && found == b'_')
                })
        };
        FIELDS.iter().find(is_same)
    }
}

/// The fields that stand in a query, each with its text after one decoding. There, case does not count.
fn fields_of(query: &str) -> impl Iterator<Item = (&'static Field, bool, Option<Cow<'_, str>>)> {
    query.split(['&', ';']).filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode_str(name).decode_utf8_lossy();
        let field = Field::named(name.trim())?;
        let is_exact = name.eq_ignore_ascii_case(field.name);
        // A form's decoding would make a blank of it, a URL's leaves it.
        let text = percent_decode_str(value).decode_utf8().ok();
        Some((field, is_exact, text.filter(|_| !value.contains('+'))))
    })
}

/// Where a host's requests name their bucket; none where that is not known.
fn addressing<'h>(host: &'h str, bucket: &str) -> Option<Bucket<'h>> {
    if let Some(style) = s3_host(host).or_else(|| google_host(host)) {
        return Some(style);
    }
    // Another store of S3's kind has its buckets in the path, unless the host looks like one bucket's own.
    let is_own = host
        .strip_prefix(bucket)
        .is_some_and(|rest| rest.starts_with('.'));
    let is_known = is_aws(host) || host.ends_with(GOOGLE);
    (!is_known && !is_own).then_some(Bucket::InPath)
}

/// Reads a host of Google Cloud Storage's for objects, in all regions or in one (`storage.us-east1.rep.googleapis.com`).
fn google_host(host: &str) -> Option<Bucket<'_>> {
    let labels = host.strip_suffix(GOOGLE)?;
    let labels = match labels.strip_suffix(".rep") {
        Some(regional) => regional.rsplit_once('.')?.0,
        None => labels,
    };
    STORES
        .iter()
        .find_map(|store| match labels.strip_suffix(store)? {
            "" => Some(Bucket::InPath),
            rest => rest.strip_suffix('.').map(Bucket::InHost),
        })
}

/// What a source's text names, without the slash that it may begin with.
fn object(place: &str) -> &str {
    place.strip_prefix('/').unwrap_or(place)
}

/// Whether a name is a bucket's by its characters.
pub(crate) fn is_bucket(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.bytes().all(plain)
}

fn is_version(query: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    query
        .strip_prefix(VERSION)
        .and_then(|rest| rest.strip_prefix('='))
        .is_some_and(|version| !version.is_empty() && version.bytes().all(plain))
}

fn has_odd_escape(text: &str) -> bool {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    !text.split('%').skip(1).all(is_escape)
}

const FIELDS: [Field; 3] = [
    Field {
        name: "x-amz-copy-source",
        is_moved: false,
    },
    Field {
        name: "x-amz-rename-source",
        is_moved: true,
    },
    Field {
        name: "x-goog-copy-source",
        is_moved: false,
    },
];

const VERSION: &str = "versionId";
const VERSION_MARK: &str = "?versionId=";

/// The most characters of a source in a message.
const LONGEST_SHOWN: usize = 200;

const GOOGLE: &str = ".googleapis.com";
/// The labels of Google Cloud Storage's XML API.
const STORES: [&str; 2] = ["storage", "commondatastorage"];

/// What SDKs escape in a path that they sign: all but RFC 3986's unreserved characters and the slash.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

#[cfg(test)]
mod tests;
