//! A bucket that speaks the protocol of S3, asked by requests signed with AWS Signature Version 4.

use std::path::PathBuf;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue, Request, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use store::SignedHeads;
use time::OffsetDateTime;

use super::{PublishError, name_of, read_credentials};

/// A bucket, and who may write to it.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Before the names of all objects, without a slash at either end; may be empty.
    pub prefix: String,
    /// As `eu-central-1`.
    pub region: String,
    /// Of a server other than Amazon's: the bucket is then the first part of the path.
    pub endpoint: Option<Uri>,
    /// Holds `aws_access_key_id`, `aws_secret_access_key` and perhaps `aws_session_token`, a line each, as AWS's own tools write
    /// them. It is read at each time, so it may be replaced.
    pub credentials_file: PathBuf,
}

impl Bucket {
    /// A signed request that puts `body` under a name of its own.
    pub(super) fn request(
        &self,
        heads: &SignedHeads,
        body: Bytes,
        now: OffsetDateTime,
    ) -> Result<Request<Bytes>, PublishError> {
        let uri = self.uri(&name_of(heads))?;
        let identity = self.identity()?;
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(SystemTime::from(now))
            .settings(settings)
            .build()
            .map_err(|_| PublishError::Request("the signature lacks a part"))?
            .into();
        let text = uri.to_string();
        let signable =
            SignableRequest::new("PUT", &text, std::iter::empty(), SignableBody::Bytes(&body))
                .map_err(|_| PublishError::Request("the bucket's name is none of a URI's"))?;
        let (instructions, _) = sign(signable, &parameters)
            .map_err(|_| PublishError::Request("it cannot be signed"))?
            .into_parts();
        let mut request = Request::new(body);
        *request.uri_mut() = uri;
        for (name, value) in instructions.headers() {
            let header = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_str(value),
            );
            let (Ok(name), Ok(mut value)) = header else {
                return Err(PublishError::Request("the credentials are no header's"));
            };
            value.set_sensitive(true);
            request.headers_mut().insert(name, value);
        }
        Ok(request)
    }

    fn uri(&self, name: &str) -> Result<Uri, PublishError> {
        let key = match self.prefix.as_str() {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        };
        let key = utf8_percent_encode(&key, IN_KEY);
        let uri = match &self.endpoint {
            Some(endpoint) => {
                let base = endpoint.to_string();
                format!("{}/{}/{key}", base.trim_end_matches('/'), self.name)
            }
            None => format!(
                "https://{}.s3.{}.amazonaws.com/{key}",
                self.name, self.region
            ),
        };
        uri.parse()
            .map_err(|_| PublishError::Request("the bucket's name is none of a URI's"))
    }

    fn identity(&self) -> Result<Identity, PublishError> {
        let text = read_credentials(&self.credentials_file)?;
        let text = text.expose_str().unwrap_or_default();
        let field = |wanted: &str| {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            let mut found = lines.filter(|(name, _)| name.trim() == wanted);
            found.next().map(|(_, value)| value.trim().to_owned())
        };
        let missing = |what| PublishError::NoCredentials {
            path: self.credentials_file.clone(),
            what,
        };
        let id = field("aws_access_key_id").ok_or_else(|| missing("aws_access_key_id"))?;
        let secret =
            field("aws_secret_access_key").ok_or_else(|| missing("aws_secret_access_key"))?;
        let token = field("aws_session_token");
        Ok(Credentials::new(id, secret, token, None, "claviger").into())
    }
}

/// What stands in a key of an object as it is.
const IN_KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn bucket(credentials_file: PathBuf, endpoint: Option<&str>) -> Bucket {
        Bucket {
            name: "heads".to_owned(),
            prefix: "claviger/prod".to_owned(),
            region: "eu-central-1".to_owned(),
            endpoint: endpoint.map(|uri| uri.parse().unwrap()),
            credentials_file,
        }
    }

    fn heads() -> SignedHeads {
        SignedHeads {
            line: "{}".to_owned(),
            node: "n 1".to_owned(),
            written_at: "2026-11-22T07:00:01.234Z".to_owned(),
            records: 3,
        }
    }

    #[test]
    fn an_object_is_put_signed_under_a_name_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials");
        let lines = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret-canary\naws_session_token=token-canary\n";
        std::fs::write(&file, lines).unwrap();
        let now = datetime!(2026-11-22 07:00:02 UTC);
        let ask =
            |endpoint| bucket(file.clone(), endpoint).request(&heads(), Bytes::from("{}\n"), now);
        let request = ask(None).unwrap();
        assert_eq!(
            request.uri().to_string(),
            "https://heads.s3.eu-central-1.amazonaws.com/claviger/prod/n%201/20261122T070001234Z.json"
        );
        let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-amz-date"), "20261122T070002Z");
        assert_eq!(header("x-amz-security-token"), "token-canary");
        let authorization = header("authorization");
        assert!(
            authorization.starts_with(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261122/eu-central-1/s3/aws4_request, "
            ),
            "{authorization}"
        );
        assert!(
            authorization.contains(
                "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token"
            )
        );
        assert!(!format!("{request:?}").contains("canary"));
        let request = ask(Some("http://127.0.0.1:9000/")).unwrap();
        assert_eq!(
            request.uri().to_string(),
            "http://127.0.0.1:9000/heads/claviger/prod/n%201/20261122T070001234Z.json"
        );
    }

    #[test]
    fn credentials_that_are_not_there_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("credentials");
        let ask = || {
            let bucket = bucket(file.clone(), None);
            let now = datetime!(2026-11-22 07:00:02 UTC);
            let asked = bucket.request(&heads(), Bytes::new(), now);
            asked.unwrap_err().to_string()
        };
        assert!(ask().contains("cannot read"));
        std::fs::write(&file, "aws_access_key_id = A\n").unwrap();
        assert!(ask().contains("holds no aws_secret_access_key"));
    }
}
