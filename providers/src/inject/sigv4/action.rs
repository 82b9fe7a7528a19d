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
///
/// Judged from the outputs of the service models of botocore: what holds a key, a password, a token or an address that logs in.
const MINTING: [(&str, &[&str]); 34] = [
    ("sts", &[]),
    (
        "IoTSecuredTunneling",
        &["OpenTunnel", "RotateTunnelAccessToken"],
    ),
    ("acm", &["ExportCertificate"]),
    (
        "appstream",
        &[
            "CreateAppBlockBuilderStreamingURL",
            "CreateImageBuilderStreamingURL",
            "CreateStreamingURL",
        ],
    ),
    (
        "athena",
        &["CreatePresignedNotebookUrl", "GetSessionEndpoint"],
    ),
    ("codebuild", &["CreateWebhook", "UpdateWebhook"]),
    (
        "codepipeline",
        &[
            "GetJobDetails",
            "GetThirdPartyJobDetails",
            "PollForJobs",
            "PollForThirdPartyJobs",
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
            "AddUserPoolClientSecret",
            "AdminInitiateAuth",
            "AdminRespondToAuthChallenge",
            "AdminSetUserPassword",
            "AssociateSoftwareToken",
            "CreateUserPoolClient",
            "DescribeIdentityProvider",
            "DescribeUserPoolClient",
            "GetClientToken",
            "GetDerivedToken",
            "GetTokensFromRefreshToken",
            "InitiateAuth",
            "ListUserPoolClientSecrets",
            "RespondToAuthChallenge",
            "UpdateUserPoolClient",
        ],
    ),
    ("devicefarm", &["CreateTestGridUrl"]),
    ("ds", &["ResetUserPassword"]),
    (
        "ec2",
        &[
            "CreateKeyPair",
            "CreateVpnConnection",
            "DescribeVpnConnections",
            "ExportVerifiedAccessInstanceClientConfiguration",
            "GetPasswordData",
            "GetVpnConnectionDeviceSampleConfiguration",
            "ImportKeyPair",
        ],
    ),
    (
        "ec2-instance-connect",
        &["SendSSHPublicKey", "SendSerialConsoleSSHPublicKey"],
    ),
    ("ecr", &["GetAuthorizationToken"]),
    ("ecr-public", &["GetAuthorizationToken"]),
    ("ecs", &["ExecuteCommand"]),
    (
        "elasticmapreduce",
        &[
            "GetClusterSessionCredentials",
            "GetOnClusterAppUIPresignedURL",
            "GetPersistentAppUIPresignedURL",
            "GetSessionEndpoint",
        ],
    ),
    (
        "gamelift",
        &[
            "CreateBuild",
            "GetComputeAccess",
            "GetComputeAuthToken",
            "GetInstanceAccess",
            "RequestUploadCredentials",
        ],
    ),
    ("glue", &["GetDashboardUrl"]),
    (
        "iam",
        &[
            "ChangePassword",
            "CreateAccessKey",
            "CreateLoginProfile",
            "CreateServiceSpecificCredential",
            "CreateVirtualMFADevice",
            "ResetServiceSpecificCredential",
            "SendDelegationToken",
            "UpdateLoginProfile",
            "UploadSSHPublicKey",
            "UploadSigningCertificate",
        ],
    ),
    ("license-manager", &["CreateToken", "GetAccessToken"]),
    (
        "lightsail",
        &[
            "CreateBucketAccessKey",
            "CreateContainerServiceRegistryLogin",
            "CreateGUISessionAccessDetails",
            "CreateKeyPair",
            "DownloadDefaultKeyPair",
            "GetInstanceAccessDetails",
            "GetRelationalDatabaseMasterUserPassword",
            "ImportKeyPair",
        ],
    ),
    (
        "redshift",
        &[
            "GetClusterCredentials",
            "GetClusterCredentialsWithIAM",
            "GetIdentityCenterAuthToken",
        ],
    ),
    (
        "redshift-serverless",
        &["GetCredentials", "GetIdentityCenterAuthToken"],
    ),
    (
        "route53domains",
        &[
            "RetrieveDomainAuthCode",
            "TransferDomainToAnotherAwsAccount",
        ],
    ),
    ("s3", &["CreateSession", "GetDataAccess"]),
    ("s3express", &["CreateSession"]),
    (
        "sagemaker",
        &[
            "CreatePartnerAppPresignedUrl",
            "CreatePresignedDomainUrl",
            "CreatePresignedNotebookInstanceUrl",
            "StartSession",
        ],
    ),
    ("snowball", &["GetJobManifest", "GetJobUnlockCode"]),
    (
        "ssm",
        &[
            "CreateActivation",
            "GetAccessToken",
            "ResumeSession",
            "StartSession",
        ],
    ),
    ("storagegateway", &["DescribeChapCredentials"]),
    ("transfer", &["ImportSshPublicKey"]),
    ("wafv2", &["CreateAPIKey"]),
    ("workmail", &["AssumeImpersonationRole", "ResetPassword"]),
];

/// The same for services whose actions are method and path.
const MINTING_PATHS: [(&str, &str, &str, &str); 75] = [
    (
        "account-access",
        "GET",
        "/access/credentials",
        "GetRoleCredentials",
    ),
    ("airflow", "POST", "/clitoken/*", "CreateCliToken"),
    ("airflow", "POST", "/webtoken/*", "CreateWebLoginToken"),
    (
        "amplifyuibuilder",
        "POST",
        "/tokens/*",
        "ExchangeCodeForToken",
    ),
    (
        "amplifyuibuilder",
        "POST",
        "/tokens/*/refresh",
        "RefreshToken",
    ),
    ("apigateway", "POST", "/apikeys", "CreateApiKey"),
    (
        "apigateway",
        "POST",
        "/usageplans/*/keys",
        "CreateUsagePlanKey",
    ),
    ("apigateway", "GET", "/apikeys/*", "GetApiKey"),
    ("apigateway", "GET", "/apikeys", "GetApiKeys"),
    (
        "apigateway",
        "GET",
        "/usageplans/*/keys/*",
        "GetUsagePlanKey",
    ),
    (
        "apigateway",
        "GET",
        "/usageplans/*/keys",
        "GetUsagePlanKeys",
    ),
    ("apigateway", "PATCH", "/apikeys/*", "UpdateApiKey"),
    ("appsync", "POST", "/v1/apis/*/apikeys", "CreateApiKey"),
    ("appsync", "GET", "/v1/apis/*/apikeys", "ListApiKeys"),
    ("appsync", "POST", "/v1/apis/*/apikeys/*", "UpdateApiKey"),
    (
        "awsssoportal",
        "GET",
        "/federation/credentials",
        "GetRoleCredentials",
    ),
    (
        "bedrock-agentcore",
        "POST",
        "/identities/api-key",
        "GetResourceApiKey",
    ),
    (
        "bedrock-agentcore",
        "POST",
        "/identities/oauth2/token",
        "GetResourceOauth2Token",
    ),
    (
        "bedrock-agentcore",
        "POST",
        "/identities/payment/token",
        "GetResourcePaymentToken",
    ),
    (
        "bedrock-agentcore",
        "POST",
        "/identities/GetWorkloadAccessToken",
        "GetWorkloadAccessToken",
    ),
    (
        "bedrock-agentcore",
        "POST",
        "/identities/GetWorkloadAccessTokenForJWT",
        "GetWorkloadAccessTokenForJWT",
    ),
    (
        "bedrock-agentcore",
        "POST",
        "/identities/GetWorkloadAccessTokenForUserId",
        "GetWorkloadAccessTokenForUserId",
    ),
    ("chime", "POST", "/accounts/*/bots", "CreateBot"),
    (
        "chime",
        "POST",
        "/accounts/*/bots/*",
        "RegenerateSecurityToken",
    ),
    (
        "codeartifact",
        "POST",
        "/v1/authorization-token",
        "GetAuthorizationToken",
    ),
    (
        "codecatalyst",
        "PUT",
        "/v1/accessTokens",
        "CreateAccessToken",
    ),
    ("connect", "GET", "/user/federate/*", "GetFederationToken"),
    (
        "datazone",
        "GET",
        "/v2/domains/*/connections/*",
        "GetConnection",
    ),
    (
        "datazone",
        "GET",
        "/v2/domains/*/environments/*/credentials",
        "GetEnvironmentCredentials",
    ),
    (
        "deadline",
        "GET",
        "/2023-10-12/farms/*/fleets/*/read-roles",
        "AssumeFleetRoleForRead",
    ),
    (
        "deadline",
        "GET",
        "/2023-10-12/farms/*/fleets/*/workers/*/fleet-roles",
        "AssumeFleetRoleForWorker",
    ),
    (
        "deadline",
        "GET",
        "/2023-10-12/farms/*/queues/*/read-roles",
        "AssumeQueueRoleForRead",
    ),
    (
        "deadline",
        "GET",
        "/2023-10-12/farms/*/queues/*/user-roles",
        "AssumeQueueRoleForUser",
    ),
    (
        "deadline",
        "GET",
        "/2023-10-12/farms/*/fleets/*/workers/*/queue-roles",
        "AssumeQueueRoleForWorker",
    ),
    (
        "eks-auth",
        "POST",
        "/clusters/*/assume-role-for-pod-identity",
        "AssumeRoleForPodIdentity",
    ),
    (
        "emr-containers",
        "POST",
        "/virtualclusters/*/endpoints/*/credentials",
        "GetManagedEndpointSessionCredentials",
    ),
    (
        "emr-serverless",
        "GET",
        "/applications/*/jobruns/*/dashboard",
        "GetDashboardForJobRun",
    ),
    (
        "emr-serverless",
        "GET",
        "/applications/*/dashboard",
        "GetResourceDashboard",
    ),
    (
        "emr-serverless",
        "GET",
        "/applications/*/sessions/*/endpoint",
        "GetSessionEndpoint",
    ),
    ("geo", "POST", "/metadata/v0/keys", "CreateKey"),
    ("geo", "GET", "/metadata/v0/keys/*", "DescribeKey"),
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
        "iotmanagedintegrations",
        "POST",
        "/provisioning-profiles",
        "CreateProvisioningProfile",
    ),
    ("ivs", "POST", "/BatchGetStreamKey", "BatchGetStreamKey"),
    ("ivs", "POST", "/CreateChannel", "CreateChannel"),
    (
        "ivs",
        "POST",
        "/CreateParticipantToken",
        "CreateParticipantToken",
    ),
    ("ivs", "POST", "/CreateStage", "CreateStage"),
    ("ivs", "POST", "/CreateStreamKey", "CreateStreamKey"),
    ("ivs", "POST", "/GetStreamKey", "GetStreamKey"),
    ("ivschat", "POST", "/CreateChatToken", "CreateChatToken"),
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
        "/GetTemporaryGlueFunctionCredentials",
        "GetTemporaryGlueFunctionCredentials",
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
    ("managedblockchain", "POST", "/accessors", "CreateAccessor"),
    ("managedblockchain", "GET", "/accessors/*", "GetAccessor"),
    (
        "mediapackage",
        "PUT",
        "/channels/*/credentials",
        "RotateChannelCredentials",
    ),
    (
        "mediapackage",
        "PUT",
        "/channels/*/ingest_endpoints/*/credentials",
        "RotateIngestEndpointCredentials",
    ),
    (
        "pca-connector-scep",
        "POST",
        "/challenges",
        "CreateChallenge",
    ),
    (
        "pca-connector-scep",
        "GET",
        "/challengePasswords/*",
        "GetChallengePassword",
    ),
    (
        "qbusiness",
        "POST",
        "/applications/*/experiences/*/anonymous-url",
        "CreateAnonymousWebExperienceUrl",
    ),
    (
        "quicksight",
        "POST",
        "/accounts/*/embed-url/anonymous-user",
        "GenerateEmbedUrlForAnonymousUser",
    ),
    (
        "quicksight",
        "POST",
        "/accounts/*/embed-url/registered-user",
        "GenerateEmbedUrlForRegisteredUser",
    ),
    (
        "quicksight",
        "POST",
        "/accounts/*/embed-url/registered-user-with-identity",
        "GenerateEmbedUrlForRegisteredUserWithIdentity",
    ),
    (
        "quicksight",
        "GET",
        "/accounts/*/dashboards/*/embed-url",
        "GetDashboardEmbedUrl",
    ),
    (
        "quicksight",
        "GET",
        "/accounts/*/session-embed-url",
        "GetSessionEmbedUrl",
    ),
    ("rolesanywhere", "POST", "/sessions", "CreateSession"),
    ("signin", "POST", "/v1/token", "CreateOAuth2Token"),
    ("sso-oauth", "POST", "/token", "CreateTokenWithIAM"),
    ("sso-oauth", "POST", "/client/register", "RegisterClient"),
];

#[cfg(test)]
mod tests;
