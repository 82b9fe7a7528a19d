//! Signatures in the query: presigned URLs.
//!
//! They are taken only where the grant says so. Their parameters are taken out of the query, and the request is signed by
//! header, so no URL that leaves holds anything of a credential.
//!
//! Spec: <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>

use std::borrow::Cow;

use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime, PrimitiveDateTime};

use super::SigV4Refusal;
use super::scope::{Algorithm, Parts, shown};

/// A signature in the query, which is good for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presigned {
    /// When the agent signed.
    pub from: OffsetDateTime,
    /// When it ends.
    pub until: OffsetDateTime,
    /// What the query holds beside the signature, byte for byte.
    pub query: Option<String>,
}

/// The signature's parameters as the query has them.
pub(super) struct Found<'q> {
    algorithm: Algorithm,
    values: [Option<Cow<'q, str>>; NAMES.len()],
    rest: Vec<&'q str>,
}

/// The parameters, by the places that they have in [`Found::values`].
const NAMES: [&str; 9] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
    "x-amz-region-set",
    "x-amz-content-sha256",
];

/// The names of signatures of version 2.
const VERSION_2: [&str; 1] = ["awsaccesskeyid"];

/// The longest that a presigned URL may be good for: a week, as with AWS.
const LONGEST: u32 = 7 * 24 * 3600;
/// How far ahead of our clock an agent's may be, as with AWS.
const SKEW: Duration = Duration::minutes(15);

/// Finds a signature in a query.
///
/// # Errors
/// [`SigV4Refusal::Algorithm`] or [`SigV4Refusal::Malformed`] for a signature that is none.
pub(super) fn read(query: &str) -> Result<Option<Found<'_>>, SigV4Refusal> {
    let mut values = [const { None }; NAMES.len()];
    let mut rest = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name)?.to_ascii_lowercase();
        if VERSION_2.contains(&name.as_str()) {
            return Err(SigV4Refusal::Algorithm("AWS, version 2".to_owned()));
        }
        let Some(at) = NAMES.iter().position(|known| *known == name) else {
            rest.push(pair);
            continue;
        };
        if values[at].replace(decoded(value)?).is_some() {
            return Err(SigV4Refusal::Malformed(
                "a parameter of the signature in the query stands twice",
            ));
        }
    }
    if values.iter().all(Option::is_none) {
        return Ok(None);
    }
    let name = values[0].as_deref().ok_or(SigV4Refusal::Malformed(
        "the signature in the query has no X-Amz-Algorithm",
    ))?;
    let algorithm = Algorithm::of(name).ok_or_else(|| SigV4Refusal::Algorithm(shown(name)))?;
    Ok(Some(Found {
        algorithm,
        values,
        rest,
    }))
}

fn decoded(text: &str) -> Result<Cow<'_, str>, SigV4Refusal> {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| SigV4Refusal::Malformed("the query does not decode to UTF-8"))
}

impl Found<'_> {
    pub(super) fn parts(&self) -> Parts<'_> {
        Parts {
            algorithm: self.algorithm,
            credential: self.text(1),
            signed_headers: self.text(4),
            signature: self.text(5),
            region_set: self.values[7].as_deref(),
            is_presigned: true,
            content_sha256: self.values[8].as_deref(),
        }
    }

    /// Reads when the signature is good, and what the query holds beside it. `date` is the credential's.
    pub(super) fn check(&self, date: Date) -> Result<Presigned, SigV4Refusal> {
        let format = format_description!("[year][month][day]T[hour][minute][second]Z");
        let from = PrimitiveDateTime::parse(self.text(2), format)
            .ok()
            .filter(|moment| moment.date() == date)
            .ok_or(SigV4Refusal::Malformed(
                "X-Amz-Date is not YYYYMMDD'T'HHMMSS'Z' on the credential's date",
            ))?
            .assume_utc();
        let expires = self
            .text(3)
            .parse()
            .ok()
            .filter(|seconds| (1..=LONGEST).contains(seconds))
            .ok_or(SigV4Refusal::Malformed(
                "X-Amz-Expires is not 1 to 604800 seconds",
            ))?;
        Ok(Presigned {
            from,
            until: from + Duration::seconds(expires.into()),
            query: Some(self.rest.join("&")).filter(|rest| !rest.is_empty()),
        })
    }

    fn text(&self, at: usize) -> &str {
        self.values[at].as_deref().unwrap_or_default()
    }
}

impl Presigned {
    /// Checks that the agent's signature is good at `now`.
    ///
    /// # Errors
    /// [`SigV4Refusal::PresignedTime`].
    pub fn check(&self, now: OffsetDateTime) -> Result<(), SigV4Refusal> {
        if self.from - SKEW <= now && now < self.until {
            Ok(())
        } else {
            Err(SigV4Refusal::PresignedTime)
        }
    }
}
