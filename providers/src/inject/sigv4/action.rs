//! Which action a request takes, and which actions hand out credentials.
//!
//! AWS's services take an action's name from one of four places: `X-Amz-Target` (JSON), `Action` in the query or in a form
//! (Query and EC2), the path of an RPC, or method and path (REST, S3). Only the place that the service itself looks at
//! counts, and a request that names an action in two places has none (threats.md B15).
//!
//! Spec: <https://smithy.io/2.0/aws/protocols/index.html>

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Method};

use super::s3::S3Request;
use super::{SigV4Refusal, is_s3};

/// A request whose action is to be told.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'r> {
    /// The service of its signature.
    pub service: &'r str,
    /// The method.
    pub method: &'r Method,
    /// The canonical host.
    pub host: &'r str,
    /// The path as sent.
    pub path: &'r str,
    /// The query as sent, without its `?`.
    pub query: Option<&'r str>,
    /// The headers as the agent sent them.
    pub headers: &'r HeaderMap,
    /// The whole body; none where it is not read, as with S3.
    pub body: &'r [u8],
}

/// Whether the action of a request has to be known although its grant names none: the service has some that hand out
/// credentials.
pub fn may_mint(service: &str) -> bool {
    is_s3(service)
        || MINTING.iter().any(|(of, _)| *of == service)
        || MINTING_PATHS.iter().any(|(of, ..)| *of == service)
}

/// Whether a grant's pattern, `Name`, `Pre*` or `*`, covers an action of the service that hands out credentials.
pub fn may_mint_by(service: &str, pattern: &str) -> bool {
    let start = pattern.strip_suffix('*');
    let covers = |action: &str| start.map_or(pattern == action, |start| action.starts_with(start));
    let of_service = MINTING.iter().filter(|(of, _)| *of == service);
    let by_path = MINTING_PATHS.iter().filter(|rule| rule.0 == service);
    let mut names = of_service
        .flat_map(|(_, actions)| actions.iter().copied())
        .chain(by_path.map(|rule| rule.3));
    names.any(covers) || (service == "sts" && (start.is_some() || mints(service, pattern)))
}

/// Whether a body is needed to tell the action.
pub fn needs_body(service: &str) -> bool {
    !is_s3(service)
}

/// Whether an action hands out credentials.
fn mints(service: &str, action: &str) -> bool {
    if service == "sts" {
        return !STS_WITHOUT_CREDENTIALS.contains(&action);
    }
    let is_rest = |rule: &(&str, _, _, &str)| rule.0 == service && rule.3 == action;
    MINTING
        .iter()
        .any(|(of, actions)| *of == service && actions.contains(&action))
        || MINTING_PATHS.iter().any(is_rest)
}

impl Asking<'_> {
    /// The actions that the request takes, without the service; none if they cannot be told.
    ///
    /// Where not `all` are asked for, but those that hand out credentials alone, S3's others are left out.
    ///
    /// # Errors
    /// [`SigV4Refusal::TwoActions`].
    pub fn actions(&self, all: bool) -> Result<Option<Vec<String>>, SigV4Refusal> {
        if is_s3(self.service) {
            return Ok(match self.s3().mints() {
                Some(action) => Some(vec![action.to_owned()]),
                None if all => self.s3().actions(),
                None => None,
            });
        }
        let named = self.named()?;
        Ok(match named {
            Some(action) => Some(vec![action]),
            None => self.by_path().map(|action| vec![action.to_owned()]),
        })
    }

    /// The credentials that it would hand out, as `sts:AssumeRole`; `sts:*` if an action that may cannot be told.
    ///
    /// `actions` are what [`Asking::actions`] told, and `is_named` says whether the grant names one.
    pub fn unnamed_minting(
        &self,
        actions: Option<&[String]>,
        is_named: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let service = self.service;
        let Some(actions) = actions else {
            // S3 and services of paths mint by what is known alone.
            let has_names = !is_s3(service) && MINTING.iter().any(|(of, _)| *of == service);
            return (has_names && !is_named("*")).then(|| format!("{service}:*"));
        };
        actions
            .iter()
            .find(|action| mints(service, action) && !is_named(action))
            .map(|action| format!("{service}:{action}"))
    }

    /// The buckets that it names, if all can be told.
    pub fn buckets(&self) -> Option<Vec<String>> {
        self.s3().buckets()
    }

    fn s3(&self) -> S3Request<'_> {
        S3Request {
            method: self.method,
            host: self.host,
            path: self.path,
            query: self.query,
            headers: self.headers,
        }
    }

    /// The one name that the request says in the places where this service looks.
    fn named(&self) -> Result<Option<String>, SigV4Refusal> {
        let protocol = QUERY.iter().find(|(of, _)| *of == self.service);
        let mut names = self.targets();
        names.extend(self.actions_of(self.query.unwrap_or_default()));
        if self.may_be_form() {
            names.extend(
                std::str::from_utf8(self.body)
                    .map_or(vec![Name::Odd], |form| self.actions_of(form)),
            );
        }
        names.extend(self.rpc());
        let [one] = names.as_slice() else {
            return if names.is_empty() {
                Ok(None)
            } else {
                Err(SigV4Refusal::TwoActions)
            };
        };
        let is_looked_at = match (one, protocol) {
            (Name::Odd, _) => return Err(SigV4Refusal::TwoActions),
            (Name::Action(_), Some(_)) => self.is_plain_query(),
            (Name::Action(_), None) | (Name::Target(_), Some((_, false))) => false,
            (Name::Target(_), Some((_, true)) | None) => self.is_post() && self.path == "/",
            (Name::Rpc(_), _) => self.is_post(),
        };
        Ok(one.text().filter(|_| is_looked_at).map(str::to_owned))
    }

    /// Whether it is a POST to a service of AWS's own.
    fn is_post(&self) -> bool {
        self.method == Method::POST && !CUSTOMERS.contains(&self.service)
    }

    /// The `Action` parameters of a query or a form; where they count, in all spellings.
    fn actions_of(&self, text: &str) -> Vec<Name> {
        let counts = QUERY.iter().any(|(of, _)| *of == self.service);
        let pairs = form_urlencoded::parse(text.as_bytes());
        pairs
            .filter_map(|(name, value)| match name.as_ref() {
                "Action" => Some(Name::of(&value, Name::Action)),
                other => {
                    (counts && other.trim().eq_ignore_ascii_case("action")).then_some(Name::Odd)
                }
            })
            .collect()
    }

    /// The actions in `X-Amz-Target`, in all its spellings.
    fn targets(&self) -> Vec<Name> {
        let is_target = |name: &str| name.replace('_', "-") == TARGET;
        let fields = self.headers.iter();
        fields
            .filter(|(name, _)| is_target(name.as_str()))
            .map(|(name, value)| match value.to_str() {
                Ok(text) if name == TARGET => target_of(text),
                _ => Name::Odd,
            })
            .collect()
    }

    /// The action of an RPC's path, `/service/NAME/operation/ACTION`.
    fn rpc(&self) -> Option<Name> {
        let mut segments = self.path.strip_prefix("/service/")?.split('/');
        let [Some(_), Some("operation"), Some(action), None] =
            std::array::from_fn(|_| segments.next())
        else {
            return None;
        };
        Some(Name::of(action, Name::Rpc))
    }

    /// Whether some service may read the body as a form.
    fn may_be_form(&self) -> bool {
        let is_other = |text: &str| {
            [
                "application/json",
                "application/x-amz-json",
                "application/cbor",
            ]
            .iter()
            .any(|other| text.starts_with(other))
        };
        let content_type = self.headers.get(CONTENT_TYPE);
        !self.body.is_empty()
            && !content_type
                .and_then(|value| value.to_str().ok())
                .is_some_and(is_other)
            && (QUERY.iter().any(|(of, _)| *of == self.service) || is_form(self.headers))
    }

    /// Whether a Query service reads the request as we do: its body is a plain form, or there is none.
    fn is_plain_query(&self) -> bool {
        let is_readable = !self.headers.contains_key(CONTENT_ENCODING)
            && (self.body.is_empty() || is_form(self.headers))
            && !self.body.contains(&b';')
            && !self.query.unwrap_or_default().contains(';');
        is_readable && (self.path == "/" || self.service == "sqs")
    }

    /// The action of a REST service, where it is one that hands out credentials.
    fn by_path(&self) -> Option<&'static str> {
        let whole = percent_encoding::percent_decode_str(self.path).decode_utf8_lossy();
        // An escaped slash is part of a segment here, and a service that took it for a slash is not to be missed.
        let is_meant = |rule: &&(&str, &str, &str, &str)| {
            self.method.as_str() == rule.1
                && (is_path(rule.2, self.path) || is_path(rule.2, &whole))
        };
        let of_service = MINTING_PATHS.iter().filter(|rule| rule.0 == self.service);
        of_service.filter(is_meant).map(|rule| rule.3).next()
    }
}

/// An action's name, by the place where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Target(String),
    Action(String),
    Rpc(String),
    /// A spelling that one reader may take for a name and another not.
    Odd,
}

impl Name {
    fn of(text: &str, place: fn(String) -> Self) -> Self {
        let is_name = (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_name {
            place(text.to_owned())
        } else {
            Self::Odd
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Target(text) | Self::Action(text) | Self::Rpc(text) => Some(text),
            Self::Odd => None,
        }
    }
}

/// The action of `DynamoDB_20120810.GetItem`.
fn target_of(text: &str) -> Name {
    let (of, action) = text.rsplit_once('.').unwrap_or(("", text));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    if of.bytes().all(is_plain) {
        Name::of(action, Name::Target)
    } else {
        Name::Odd
    }
}

/// Whether the body is a form in UTF-8: in another charset, other bytes would name the action.
fn is_form(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    value.to_str().is_ok_and(|text| {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
            && parts.all(|part| part.eq_ignore_ascii_case("charset=utf-8"))
    })
}

/// Whether a path is the pattern, in which `*` is one segment; case, escapes and a final slash do not count.
fn is_path(pattern: &str, path: &str) -> bool {
    let mut segments = path.trim_end_matches('/').split('/');
    let is_same = pattern.split('/').all(|expected| {
        segments.next().is_some_and(|found| {
            let found = percent_encoding::percent_decode_str(found).decode_utf8_lossy();
            expected == "*" || expected.eq_ignore_ascii_case(&found)
        })
    });
    is_same && segments.next().is_none()
}

const TARGET: &str = "x-amz-target";

/// The services that take `Action` from a query or a form, and whether they take JSON, too.
const QUERY: [(&str, bool); 17] = [
    ("autoscaling", false),
    ("cloudformation", false),
    ("cloudsearch", false),
    ("ec2", false),
    ("elasticache", false),
    ("elasticbeanstalk", false),
    ("elasticloadbalancing", false),
    ("iam", false),
    ("importexport", false),
    ("monitoring", true),
    ("rds", false),
    ("redshift", false),
    ("sdb", false),
    ("ses", false),
    ("sns", false),
    ("sqs", true),
    ("sts", false),
];

/// Services whose requests customers' own programs read: what names an action elsewhere names none here.
const CUSTOMERS: [&str; 8] = [
    "aoss",
    "appsync",
    "es",
    "execute-api",
    "lambda",
    "mediastore",
    "neptune-db",
    "vpc-lattice-svcs",
];

/// Of STS, what hands out nothing.
const STS_WITHOUT_CREDENTIALS: [&str; 3] = [
    "DecodeAuthorizationMessage",
    "GetAccessKeyInfo",
    "GetCallerIdentity",
];

/// The actions that hand out credentials or give somebody else's key access, by name.
const MINTING: [(&str, &[&str]); 17] = [
    ("sts", &[]),
    (
        "iam",
        &[
            "ChangePassword",
            "CreateAccessKey",
            "CreateLoginProfile",
            "CreateServiceSpecificCredential",
            "CreateVirtualMFADevice",
            "ResetServiceSpecificCredential",
            "UpdateLoginProfile",
            "UploadSSHPublicKey",
            "UploadSigningCertificate",
        ],
    ),
    (
        "cognito-identity",
        &[
            "GetCredentialsForIdentity",
            "GetOpenIdToken",
            "GetOpenIdTokenForDeveloperIdentity",
        ],
    ),
    (
        "cognito-idp",
        &[
            "AdminInitiateAuth",
            "AdminRespondToAuthChallenge",
            "CreateUserPoolClient",
            "GetTokensFromRefreshToken",
            "InitiateAuth",
            "RespondToAuthChallenge",
        ],
    ),
    ("ec2", &["CreateKeyPair", "GetPasswordData"]),
    (
        "ec2-instance-connect",
        &["SendSSHPublicKey", "SendSerialConsoleSSHPublicKey"],
    ),
    ("ecr", &["GetAuthorizationToken"]),
    ("ecr-public", &["GetAuthorizationToken"]),
    ("elasticmapreduce", &["GetClusterSessionCredentials"]),
    (
        "gamelift",
        &[
            "GetComputeAccess",
            "GetComputeAuthToken",
            "GetInstanceAccess",
            "RequestUploadCredentials",
        ],
    ),
    (
        "lightsail",
        &[
            "CreateBucketAccessKey",
            "CreateKeyPair",
            "DownloadDefaultKeyPair",
            "GetInstanceAccessDetails",
            "GetRelationalDatabaseMasterUserPassword",
        ],
    ),
    (
        "redshift",
        &["GetClusterCredentials", "GetClusterCredentialsWithIAM"],
    ),
    ("redshift-serverless", &["GetCredentials"]),
    (
        "sagemaker",
        &[
            "CreatePresignedDomainUrl",
            "CreatePresignedNotebookInstanceUrl",
        ],
    ),
    ("ssm", &["CreateActivation", "StartSession"]),
    ("s3", &["CreateSession", "GetDataAccess"]),
    ("s3express", &["CreateSession"]),
];

/// The same for services whose actions are method and path.
const MINTING_PATHS: [(&str, &str, &str, &str); 19] = [
    ("airflow", "POST", "/clitoken/*", "CreateCliToken"),
    ("airflow", "POST", "/webtoken/*", "CreateWebLoginToken"),
    ("apigateway", "POST", "/apikeys", "CreateApiKey"),
    ("appsync", "POST", "/v1/apis/*/apikeys", "CreateApiKey"),
    (
        "codeartifact",
        "POST",
        "/v1/authorization-token",
        "GetAuthorizationToken",
    ),
    ("connect", "GET", "/user/federate/*", "GetFederationToken"),
    (
        "emr-containers",
        "POST",
        "/virtualclusters/*/endpoints/*/credentials",
        "GetManagedEndpointSessionCredentials",
    ),
    ("geo", "POST", "/metadata/v0/keys", "CreateKey"),
    (
        "grafana",
        "POST",
        "/workspaces/*/apikeys",
        "CreateWorkspaceApiKey",
    ),
    (
        "grafana",
        "POST",
        "/workspaces/*/serviceaccounts/*/tokens",
        "CreateWorkspaceServiceAccountToken",
    ),
    ("iot", "POST", "/certificates", "CreateCertificateFromCsr"),
    (
        "iot",
        "POST",
        "/keys-and-certificate",
        "CreateKeysAndCertificate",
    ),
    (
        "iot",
        "POST",
        "/provisioning-templates/*/provisioning-claim",
        "CreateProvisioningClaim",
    ),
    (
        "lakeformation",
        "POST",
        "/AssumeDecoratedRoleWithSAML",
        "AssumeDecoratedRoleWithSAML",
    ),
    (
        "lakeformation",
        "POST",
        "/GetTemporaryDataLocationCredentials",
        "GetTemporaryDataLocationCredentials",
    ),
    (
        "lakeformation",
        "POST",
        "/GetTemporaryGluePartitionCredentials",
        "GetTemporaryGluePartitionCredentials",
    ),
    (
        "lakeformation",
        "POST",
        "/GetTemporaryGlueTableCredentials",
        "GetTemporaryGlueTableCredentials",
    ),
    ("rolesanywhere", "POST", "/sessions", "CreateSession"),
    ("sso-oauth", "POST", "/token", "CreateTokenWithIAM"),
];

#[cfg(test)]
mod tests;
