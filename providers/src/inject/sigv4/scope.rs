//! What an agent's own signature says: for which region and service it wants to sign, and how its body enters.

use http::header::{AUTHORIZATION, CONTENT_ENCODING};
use http::{HeaderMap, HeaderName};
use time::Date;
use time::macros::format_description;

use super::streamed::Streamed;
use super::{ALGORITHM, CONTENT_SHA256, SigV4Refusal, UNSIGNED, endpoint, is_s3};

/// What an agent's own (dummy) signature says that it wants to sign for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentScope {
    /// The date of the agent's scope. It is not used: our own clock signs.
    pub date: Date,
    /// `us-east-1`.
    pub region: String,
    /// `s3`.
    pub service: String,
    /// The lower-case names that the agent signed.
    pub signed_headers: Vec<String>,
    /// How the body enters the signature.
    pub payload: Payload,
}

/// How the agent's request says that its body enters the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// `UNSIGNED-PAYLOAD`: kept as declared.
    Unsigned,
    /// A SHA-256 in `x-amz-content-sha256` that the upstream checks (Amazon S3): kept as declared.
    Declared(String),
    /// It comes in AWS's own chunks, which are signed anew as they pass (Amazon S3).
    Streamed(Streamed),
    /// The body must be hashed.
    Hash,
}

impl AgentScope {
    /// Reads the scope of the agent's request, before its slots are stripped.
    ///
    /// # Errors
    /// [`SigV4Refusal`]: missing, presigned, chunked, 4A or malformed.
    pub fn read(headers: &HeaderMap, path_and_query: &str) -> Result<Self, SigV4Refusal> {
        if is_presigned(path_and_query) {
            return Err(SigV4Refusal::Presigned);
        }
        let text = one(headers, AUTHORIZATION, "it stands twice")?.ok_or(SigV4Refusal::Missing)?;
        let (algorithm, parameters) = text.split_once(' ').unwrap_or((text, ""));
        if algorithm != ALGORITHM {
            let is_word = algorithm.len() <= 40
                && algorithm
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-');
            // A scheme alone: what has no blank after it may be a key.
            let named = is_word && !parameters.is_empty();
            return Err(SigV4Refusal::Algorithm(
                if named { algorithm } else { "unknown" }.to_owned(),
            ));
        }
        let [credential, signed_headers, signature] = parameters_of(parameters)?;
        if signature.len() != 64 || !signature.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(SigV4Refusal::Malformed(
                "the signature is not 64 hexadecimal digits",
            ));
        }
        let (date, region, service) = scope_of(credential)?;
        let payload = Payload::read(headers, service)?;
        let signed_headers = signed_headers
            .split(';')
            .map(str::to_ascii_lowercase)
            .collect();
        Ok(Self {
            date,
            region: region.to_owned(),
            service: service.to_owned(),
            signed_headers,
            payload,
        })
    }

    /// Whether the body must be hashed before the head can be sent.
    pub fn needs_body(&self) -> bool {
        self.payload == Payload::Hash
    }
}

impl Payload {
    fn read(headers: &HeaderMap, service: &str) -> Result<Self, SigV4Refusal> {
        let declared = one(
            headers,
            HeaderName::from_static(CONTENT_SHA256),
            "x-amz-content-sha256 stands twice",
        )?;
        if let Some(name) = declared.filter(|text| text.starts_with("STREAMING-")) {
            if !is_s3(service) {
                return Err(SigV4Refusal::Chunked(shown(name)));
            }
            return Streamed::read(name, headers).map(Self::Streamed);
        }
        if is_aws_chunked(headers) {
            return Err(SigV4Refusal::Malformed(
                "Content-Encoding says aws-chunked and x-amz-content-sha256 does not say how",
            ));
        }
        match declared {
            None => Ok(Self::Hash),
            Some(UNSIGNED) => Ok(Self::Unsigned),
            Some(text) if is_sha256(text) => Ok(if is_s3(service) {
                Self::Declared(text.to_owned())
            } else {
                Self::Hash
            }),
            Some(_) => Err(SigV4Refusal::Malformed(
                "x-amz-content-sha256 is neither a SHA-256 nor UNSIGNED-PAYLOAD",
            )),
        }
    }
}

fn is_aws_chunked(headers: &HeaderMap) -> bool {
    let encodings = headers.get_all(CONTENT_ENCODING).iter();
    encodings
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("aws-chunked"))
}

/// What an agent wrote, for a message.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

/// The one value of a header, if it stands at all.
pub(super) fn one<'h>(
    headers: &'h HeaderMap,
    name: HeaderName,
    twice: &'static str,
) -> Result<Option<&'h str>, SigV4Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(SigV4Refusal::Malformed(twice));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| SigV4Refusal::Malformed("it is not ASCII text"))
}

/// Credential, `SignedHeaders` and Signature, each exactly once.
fn parameters_of(text: &str) -> Result<[&str; 3], SigV4Refusal> {
    let mut found = [None; 3];
    for pair in text.split(',') {
        let (name, value) = pair
            .trim()
            .split_once('=')
            .ok_or(SigV4Refusal::Malformed("it is not a list of name=value"))?;
        let place = match name {
            "Credential" => &mut found[0],
            "SignedHeaders" => &mut found[1],
            "Signature" => &mut found[2],
            _ => return Err(SigV4Refusal::Malformed("it holds an unknown parameter")),
        };
        if place.replace(value).is_some() {
            return Err(SigV4Refusal::Malformed("a parameter stands twice"));
        }
    }
    let [Some(credential), Some(signed), Some(signature)] = found else {
        return Err(SigV4Refusal::Malformed(
            "Credential, SignedHeaders or Signature is missing",
        ));
    };
    Ok([credential, signed, signature])
}

/// Date, region and service of `AKID/20150830/us-east-1/service/aws4_request`.
fn scope_of(credential: &str) -> Result<(Date, &str, &str), SigV4Refusal> {
    let parts: Vec<&str> = credential.split('/').collect();
    let [_, date, region, service, "aws4_request"] = parts[..] else {
        return Err(SigV4Refusal::Malformed(
            "the credential is not KEY/DATE/REGION/SERVICE/aws4_request",
        ));
    };
    let date = Date::parse(date, format_description!("[year][month][day]"));
    let date =
        date.map_err(|_| SigV4Refusal::Malformed("the date of the credential is not YYYYMMDD"))?;
    if !endpoint::is_scope_word(region) || !endpoint::is_scope_word(service) {
        return Err(SigV4Refusal::Malformed(
            "the region or the service of the credential is not a name",
        ));
    }
    Ok((date, region, service))
}

/// Whether the query holds a signature, of this version or of version 2.
fn is_presigned(path_and_query: &str) -> bool {
    let query = path_and_query
        .split_once('?')
        .map_or("", |(_, query)| query);
    query.split('&').any(|pair| {
        let name = percent_encoding::percent_decode_str(pair.split('=').next().unwrap_or_default());
        let name: Vec<u8> = name.map(|byte| byte.to_ascii_lowercase()).collect();
        PRESIGNED.iter().any(|other| name == other.as_bytes())
    })
}

const PRESIGNED: [&str; 5] = [
    "x-amz-signature",
    "x-amz-credential",
    "x-amz-algorithm",
    "x-amz-security-token",
    "awsaccesskeyid",
];

fn is_sha256(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
