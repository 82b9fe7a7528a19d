//! What a set of AWS was needed for beyond hosts, methods and paths, as far as these tell.
//!
//! The audit trail keeps no query, no field and no body. So an action that they would name is not known here, and said so.

use std::collections::BTreeSet;

use http::{HeaderMap, Method};
use providers::sigv4::{Asking, SignedAt, has_buckets, may_mint_by, object_key};

use super::Request;

/// The limits of a grant that takes the requests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AwsNeeds {
    services: BTreeSet<String>,
    /// None where a request was for any region.
    regions: Option<BTreeSet<String>>,
    /// None where a request was of no bucket that can be told.
    buckets: Option<BTreeSet<String>>,
    /// None where what hands out credentials would be among them.
    actions: Option<BTreeSet<String>>,
    /// The services of which no action can be told.
    whole: BTreeSet<String>,
}

/// What one request tells.
struct Told {
    at: SignedAt,
    /// Of S3: the bucket.
    bucket: Option<String>,
    is_s3: bool,
    /// `s3:GetObject`, or all of a service: `dynamodb:*`.
    actions: Vec<String>,
}

impl AwsNeeds {
    /// Reads requests; none if one of them is for no service of AWS's.
    pub(super) fn of(requests: &BTreeSet<Request>) -> Option<Self> {
        let told = requests.iter().map(Told::of).collect::<Option<Vec<_>>>()?;
        let mints = |told: &Told| {
            let mut services = told.at.services.iter();
            !told.is_s3 && services.any(|service| may_mint_by(service, "*"))
        };
        let of_s3 = || told.iter().filter(|told| told.is_s3);
        Some(Self {
            services: all(&told, |told| told.at.services.clone()),
            regions: told.iter().map(|told| told.at.region.clone()).collect(),
            buckets: of_s3()
                .map(|told| told.bucket.clone())
                .collect::<Option<BTreeSet<_>>>()
                .filter(|buckets| !buckets.is_empty()),
            actions: (!told.is_empty() && !told.iter().any(mints))
                .then(|| all(&told, |told| told.actions.clone())),
            whole: all(&told, |told| {
                let services = told.at.services.first().filter(|_| !told.is_s3);
                services.cloned().into_iter().collect()
            }),
        })
    }

    /// Whether a grant with these limits takes a request to one of the seen hosts.
    pub(super) fn take(&self, request: &Request) -> bool {
        let Some(told) = Told::of(request) else {
            return false;
        };
        let has_bucket = match (&self.buckets, told.is_s3) {
            (Some(buckets), true) => told.bucket.is_some_and(|bucket| buckets.contains(&bucket)),
            _ => true,
        };
        let names = |actions: &BTreeSet<String>| told.actions.iter().all(|it| actions.contains(it));
        has_bucket && self.actions.as_ref().is_none_or(names)
    }

    /// The options of `grant create`.
    pub(super) fn options(&self) -> Vec<String> {
        let lists = [
            ("--aws-service", Some(&self.services)),
            ("--aws-region", self.regions.as_ref()),
            ("--aws-bucket", self.buckets.as_ref()),
            ("--aws-action", self.actions.as_ref()),
        ];
        let lists = lists
            .into_iter()
            .filter_map(|(name, values)| Some((name, values?)));
        lists
            .flat_map(|(name, values)| {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                [name.to_owned(), super::quoted(&values.join(","))]
            })
            .collect()
    }

    /// What the options take beside what was seen, in words.
    pub(super) fn notes(&self) -> Vec<String> {
        let whole: Vec<&str> = self.whole.iter().map(String::as_str).collect();
        let mut notes = Vec::new();
        if !whole.is_empty() {
            notes.push(format!(
                "it takes every operation of {} on these paths: `POST /` names none, and the audit trail keeps no bodies; {}",
                whole.join(", "),
                if self.actions.is_some() {
                    format!("name those that are needed in the place of {}:*", whole[0])
                } else {
                    "with --aws-action it takes those alone that you name, as what hands out credentials must be".to_owned()
                }
            ));
        }
        if self.services.iter().any(|service| has_buckets(service)) {
            if self.actions.is_some() {
                notes.push(
                    "its actions of s3 are those of plain requests: a refusal names what queries and fields need besides (tags, versions, copies)"
                        .to_owned(),
                );
            }
            if self.buckets.is_none() {
                notes.push(
                    "it takes every bucket: a request was of none that can be told".to_owned(),
                );
            }
        }
        notes
    }
}

impl Told {
    fn of(request: &Request) -> Option<Self> {
        let Request { method, path, .. } = request;
        let host = request.host();
        let at = SignedAt::of(host)?;
        let service = at.services.first()?;
        if !has_buckets(service) {
            let all_of = |service: &String| format!("{service}:*");
            return Some(Self {
                actions: at.services.iter().map(all_of).collect(),
                bucket: None,
                is_s3: false,
                at,
            });
        }
        let asking = Asking {
            service,
            method: &Method::from_bytes(method.as_bytes()).ok()?,
            host,
            path,
            query: None,
            headers: &HeaderMap::new(),
            body: &[],
        };
        let plain = asking.actions(true).ok().flatten();
        let has_key = object_key(host, path).is_some_and(|key| !key.is_empty());
        // A POST is told by its query: the parts of an upload, or a list of keys to delete.
        let posted = if has_key { "PutObject" } else { "DeleteObject" };
        let actions = plain.unwrap_or_else(|| vec![posted.to_owned()]);
        let actions = actions.iter().map(|action| format!("{service}:{action}"));
        Some(Self {
            actions: actions.collect(),
            bucket: asking.buckets().and_then(|mut named| named.pop()),
            is_s3: true,
            at,
        })
    }
}

fn all(told: &[Told], of: impl Fn(&Told) -> Vec<String>) -> BTreeSet<String> {
    told.iter().flat_map(of).collect()
}
