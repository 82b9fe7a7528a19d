//! What a request asks of Amazon S3: its buckets, and its actions by their names in IAM.
//!
//! Spec: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>

use http::{HeaderMap, Method};

use super::endpoint::{Bucket, s3_host};
use crate::copy::{CopySource, is_bucket};

/// A request to S3, taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct S3Request<'r> {
    pub(super) method: &'r Method,
    /// The canonical host.
    pub(super) host: &'r str,
    pub(super) path: &'r str,
    pub(super) query: Option<&'r str>,
    pub(super) headers: &'r HeaderMap,
}

/// The object's key in a path at one of S3's hosts, as it stands there. S3 takes keys as they are: an empty segment or one
/// of dots is a part of the name.
///
/// `None` for other hosts, and for a path whose first segment should be a bucket and is none.
pub fn object_key<'p>(host: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix('/')?;
    if s3_host(host)? != Bucket::InPath {
        return Some(rest);
    }
    let (bucket, key) = rest.split_once('/')?;
    let is_named = is_bucket(bucket) && bucket.bytes().any(|byte| byte != b'.');
    is_named.then_some(key)
}

/// What the path and the host name.
struct Place<'r> {
    bucket: Option<&'r str>,
    has_key: bool,
}

impl<'r> S3Request<'r> {
    /// The buckets that it reads or writes, if all can be told; none for a list of all buckets.
    pub(super) fn buckets(&self) -> Option<Vec<String>> {
        let mut buckets: Vec<String> = self
            .place()?
            .bucket
            .map(str::to_owned)
            .into_iter()
            .collect();
        if let Some(source) = CopySource::read(self.headers, self.query).ok()? {
            buckets.push(source.bucket?);
        }
        Some(buckets)
    }

    /// The actions that it takes, if all can be told.
    pub(super) fn actions(&self) -> Option<Vec<String>> {
        let place = self.place()?;
        let query = Query::read(self.query)?;
        let main = match (place.bucket, place.has_key) {
            (None, _) => (self.method == Method::GET && query.subresource.is_none())
                .then_some("ListAllMyBuckets")?,
            (Some(_), false) => bucket_action(self.method, query.subresource)?,
            (Some(_), true) => object_action(self.method, &query)?,
        };
        let mut actions = vec![main];
        if let Some(source) = CopySource::read(self.headers, self.query).ok()? {
            actions.push(if source.has_version {
                "GetObjectVersion"
            } else {
                "GetObject"
            });
            if source.is_moved {
                actions.push("DeleteObject");
            }
        }
        if query.subresource == Some("attributes") {
            actions.push("GetObject");
        }
        let implied = |name: &str| IMPLIED.iter().find(|(start, _)| name.starts_with(start));
        let names = self.headers.keys().map(http::HeaderName::as_str);
        for (_, action) in names
            .chain(query.others.iter().map(String::as_str))
            .filter_map(implied)
        {
            actions.push(if place.has_key || *action != "PutObjectAcl" {
                action
            } else {
                "PutBucketAcl"
            });
        }
        actions.sort_unstable();
        actions.dedup();
        Some(actions.into_iter().map(str::to_owned).collect())
    }

    /// Whether it asks for credentials of S3's own.
    pub(super) fn mints(&self) -> Option<&'static str> {
        if self
            .path
            .to_ascii_lowercase()
            .contains("/accessgrantsinstance/dataaccess")
        {
            return Some("GetDataAccess");
        }
        let mut names = self.query.unwrap_or_default().split(['&', ';']);
        let asks = names.any(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            percent_encoding::percent_decode_str(name).eq(b"session".iter().copied())
        });
        asks.then_some("CreateSession")
    }

    fn place(&self) -> Option<Place<'r>> {
        let rest = self.path.strip_prefix('/')?;
        match s3_host(self.host)? {
            Bucket::InHost(bucket) => Some(Place {
                bucket: Some(bucket),
                has_key: !rest.is_empty(),
            }),
            Bucket::InPath if rest.is_empty() => Some(Place {
                bucket: None,
                has_key: false,
            }),
            Bucket::InPath => {
                let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
                Some(Place {
                    bucket: Some(bucket).filter(|name| is_bucket(name))?.into(),
                    has_key: !key.is_empty(),
                })
            }
        }
    }
}

/// A query's parameters: the one that says which part of a bucket or object is meant, and the others.
struct Query<'q> {
    subresource: Option<&'q str>,
    has_version: bool,
    has_upload: bool,
    others: Vec<String>,
}

impl<'q> Query<'q> {
    /// `None` if a parameter is not known, or two say which part is meant.
    fn read(query: Option<&'q str>) -> Option<Self> {
        let mut read = Self {
            subresource: None,
            has_version: false,
            has_upload: false,
            others: Vec::new(),
        };
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next().unwrap_or_default();
            match name {
                "versionId" => read.has_version = true,
                "uploadId" => read.has_upload = true,
                name if SUBRESOURCES.contains(&name) => {
                    if read.subresource.is_some_and(|other| other != name) {
                        return None;
                    }
                    read.subresource = Some(name);
                }
                name if PARAMETERS.contains(&name) || name.starts_with("response-") => {}
                name => match name.to_ascii_lowercase() {
                    other if other.starts_with("x-amz-") => read.others.push(other),
                    _ => return None,
                },
            }
        }
        Some(read)
    }
}

fn bucket_action(method: &Method, subresource: Option<&str>) -> Option<&'static str> {
    let Some(subresource) = subresource else {
        return match *method {
            Method::GET | Method::HEAD => Some("ListBucket"),
            Method::PUT => Some("CreateBucket"),
            Method::DELETE => Some("DeleteBucket"),
            _ => None,
        };
    };
    if subresource == "delete" {
        return (method == Method::POST).then_some("DeleteObject");
    }
    let row = BUCKET.iter().find(|(name, ..)| *name == subresource)?;
    named(method, row.1, row.2, row.3)
}

fn object_action(method: &Method, query: &Query<'_>) -> Option<&'static str> {
    match (query.subresource, query.has_upload) {
        (None, true) => match *method {
            Method::GET => Some("ListMultipartUploadParts"),
            Method::PUT | Method::POST => Some("PutObject"),
            Method::DELETE => Some("AbortMultipartUpload"),
            _ => None,
        },
        (None, false) => match (method, query.has_version) {
            (&Method::GET | &Method::HEAD, false) => Some("GetObject"),
            (&Method::GET | &Method::HEAD, true) => Some("GetObjectVersion"),
            (&Method::PUT, false) => Some("PutObject"),
            (&Method::DELETE, false) => Some("DeleteObject"),
            (&Method::DELETE, true) => Some("DeleteObjectVersion"),
            _ => None,
        },
        (Some(_), true) => None,
        (Some("uploads"), false) => (method == Method::POST).then_some("PutObject"),
        (Some("restore"), false) => (method == Method::POST).then_some("RestoreObject"),
        (Some("select"), false) => (method == Method::POST).then_some("GetObject"),
        (Some(name), false) => {
            let is_meant =
                |row: &&(&str, bool, _, _, _)| row.0 == name && row.1 == query.has_version;
            let row = OBJECT.iter().find(is_meant)?;
            named(method, row.2, row.3, row.4)
        }
    }
}

fn named(
    method: &Method,
    get: &'static str,
    put: &'static str,
    delete: &'static str,
) -> Option<&'static str> {
    let name = match *method {
        Method::GET | Method::HEAD => get,
        Method::PUT => put,
        Method::DELETE => delete,
        _ => "",
    };
    (!name.is_empty()).then_some(name)
}

/// Fields that need an action of their own beside the request's.
const IMPLIED: [(&str, &str); 6] = [
    ("x-amz-acl", "PutObjectAcl"),
    ("x-amz-grant-", "PutObjectAcl"),
    ("x-amz-tagging", "PutObjectTagging"),
    ("x-amz-object-lock-legal-hold", "PutObjectLegalHold"),
    ("x-amz-object-lock-", "PutObjectRetention"),
    (
        "x-amz-bypass-governance-retention",
        "BypassGovernanceRetention",
    ),
];

/// Parameters that change nothing about which action it is.
const PARAMETERS: [&str; 21] = [
    "list-type",
    "prefix",
    "delimiter",
    "marker",
    "max-keys",
    "continuation-token",
    "fetch-owner",
    "start-after",
    "encoding-type",
    "key-marker",
    "version-id-marker",
    "upload-id-marker",
    "max-uploads",
    "part-number-marker",
    "max-parts",
    "max-buckets",
    "bucket-region",
    "partNumber",
    "select-type",
    "id",
    "x-id",
];

const SUBRESOURCES: [&str; 32] = [
    "accelerate",
    "acl",
    "analytics",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "session",
    "tagging",
    "torrent",
    "uploads",
    "versioning",
    "versions",
    "website",
];

/// Of a bucket: GET, PUT and DELETE.
const BUCKET: [(&str, &str, &str, &str); 24] = [
    (
        "accelerate",
        "GetAccelerateConfiguration",
        "PutAccelerateConfiguration",
        "",
    ),
    ("acl", "GetBucketAcl", "PutBucketAcl", ""),
    (
        "analytics",
        "GetAnalyticsConfiguration",
        "PutAnalyticsConfiguration",
        "PutAnalyticsConfiguration",
    ),
    ("cors", "GetBucketCORS", "PutBucketCORS", "PutBucketCORS"),
    (
        "encryption",
        "GetEncryptionConfiguration",
        "PutEncryptionConfiguration",
        "PutEncryptionConfiguration",
    ),
    (
        "intelligent-tiering",
        "GetIntelligentTieringConfiguration",
        "PutIntelligentTieringConfiguration",
        "PutIntelligentTieringConfiguration",
    ),
    (
        "inventory",
        "GetInventoryConfiguration",
        "PutInventoryConfiguration",
        "PutInventoryConfiguration",
    ),
    (
        "lifecycle",
        "GetLifecycleConfiguration",
        "PutLifecycleConfiguration",
        "PutLifecycleConfiguration",
    ),
    ("location", "GetBucketLocation", "", ""),
    ("logging", "GetBucketLogging", "PutBucketLogging", ""),
    (
        "metrics",
        "GetMetricsConfiguration",
        "PutMetricsConfiguration",
        "PutMetricsConfiguration",
    ),
    (
        "notification",
        "GetBucketNotification",
        "PutBucketNotification",
        "",
    ),
    (
        "object-lock",
        "GetBucketObjectLockConfiguration",
        "PutBucketObjectLockConfiguration",
        "",
    ),
    (
        "ownershipControls",
        "GetBucketOwnershipControls",
        "PutBucketOwnershipControls",
        "PutBucketOwnershipControls",
    ),
    (
        "policy",
        "GetBucketPolicy",
        "PutBucketPolicy",
        "DeleteBucketPolicy",
    ),
    ("policyStatus", "GetBucketPolicyStatus", "", ""),
    (
        "publicAccessBlock",
        "GetBucketPublicAccessBlock",
        "PutBucketPublicAccessBlock",
        "PutBucketPublicAccessBlock",
    ),
    (
        "replication",
        "GetReplicationConfiguration",
        "PutReplicationConfiguration",
        "PutReplicationConfiguration",
    ),
    (
        "requestPayment",
        "GetBucketRequestPayment",
        "PutBucketRequestPayment",
        "",
    ),
    ("session", "CreateSession", "", ""),
    (
        "tagging",
        "GetBucketTagging",
        "PutBucketTagging",
        "PutBucketTagging",
    ),
    ("uploads", "ListBucketMultipartUploads", "", ""),
    (
        "versioning",
        "GetBucketVersioning",
        "PutBucketVersioning",
        "",
    ),
    ("versions", "ListBucketVersions", "", ""),
];

/// Of an object, without and with a version: GET, PUT and DELETE.
const OBJECT: [(&str, bool, &str, &str, &str); 9] = [
    ("acl", false, "GetObjectAcl", "PutObjectAcl", ""),
    (
        "acl",
        true,
        "GetObjectVersionAcl",
        "PutObjectVersionAcl",
        "",
    ),
    ("attributes", false, "GetObjectAttributes", "", ""),
    ("attributes", true, "GetObjectVersionAttributes", "", ""),
    (
        "legal-hold",
        false,
        "GetObjectLegalHold",
        "PutObjectLegalHold",
        "",
    ),
    (
        "retention",
        false,
        "GetObjectRetention",
        "PutObjectRetention",
        "",
    ),
    (
        "tagging",
        false,
        "GetObjectTagging",
        "PutObjectTagging",
        "DeleteObjectTagging",
    ),
    (
        "tagging",
        true,
        "GetObjectVersionTagging",
        "PutObjectVersionTagging",
        "DeleteObjectVersionTagging",
    ),
    ("torrent", false, "GetObjectTorrent", "", ""),
];

#[cfg(test)]
mod tests;
