//! One error type at the edge: a code and a text for the caller, a cause for the log.

#![warn(clippy::wildcard_enum_match_arm)]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use store::{
    AGENT_KEYS, AccountError, CreateAgentError, CreateGrantError, CreateLeaseError,
    CreatePolicyError, CreateShareError, CreateVaultError, DeleteVaultError, EnrolmentError,
    LedgerError, LinkError, OverQuota, PatchAgentError, Pause, ReadSecretError, Resource,
    RotateIdentityError, RotateKeyError, SettingsError, StoreError, VerifyError, WriteSecretError,
    WriteSetError,
};
use vault::{KeyError, OpenError, SealError};

use crate::ca::CaError;
use crate::keys::KeyChestError;
use crate::oidc::ProviderError;
use crate::operator_templates::OperatorTemplatesError;
use crate::problem::{Code, Problem};
use crate::timestamp;

/// A refusal on its way to the caller.
#[derive(Debug)]
pub struct ApiError {
    code: Code,
    detail: String,
    retry_after: Option<Duration>,
    /// Id and status of the approval that is missing.
    approval: Option<(String, String)>,
    cause: Option<Cause>,
}

/// The full cause of a refusal: it travels to the log, never to the caller.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

/// Whom a refusal concerns; the closed label of metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is malformed or names what does not exist.
    Caller,
    /// The caller may not do this.
    Denied,
    /// A limit was reached.
    Limit,
    /// The key provider or the store does not answer.
    Unavailable,
    /// A defect or a broken invariant.
    Internal,
}

impl ErrorKind {
    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Denied => "denied",
            Self::Limit => "limit",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    pub(crate) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied,
            StatusCode::TOO_MANY_REQUESTS => Self::Limit,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            status if status.is_server_error() => Self::Internal,
            _ => Self::Caller,
        }
    }
}

impl ApiError {
    /// A refusal with its text: what happened, to which thing, the next action.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after: None,
            approval: None,
            cause: None,
        }
    }

    /// Something failed here; the caller learns the request id and no more.
    pub fn internal(cause: impl Error + Send + Sync + 'static) -> Self {
        let detail = "this failed on the server; its log has the cause under the id in `instance`";
        Self::new(Code::Internal, detail).because(cause)
    }

    pub(crate) fn not_found(what: &str, id: &str) -> Self {
        let id = crate::text::excerpt(id);
        Self::new(
            Code::NotFound,
            format!("there is no {what} {id}; list what there is, or check the id"),
        )
    }

    pub(crate) fn invalid(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(Code::InvalidRequest, format!("{field}: {problem}"))
    }

    /// Adds the cause, for the log alone.
    #[must_use]
    pub fn because(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    /// Adds `Retry-After`, rounded up to a whole second.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Names the approval that is missing, and how it stands.
    #[must_use]
    pub(crate) fn waits_for(mut self, id: String, status: String) -> Self {
        self.approval = Some((id, status));
        self
    }

    /// The approval that is missing, and how it stands.
    #[cfg(test)]
    pub(crate) fn approval(&self) -> Option<(&str, &str)> {
        let (id, status) = self.approval.as_ref()?;
        Some((id, status))
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The text for the caller.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Whom it concerns.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::of(self.code.status())
    }
}

/// The edge of the store: what a caller learns of it.
impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Closed => {
                let detail = "the store does not answer, so nothing was changed; look at GET /v1/health and try again";
                Self::new(Code::StoreUnavailable, detail).because(error)
            }
            StoreError::Conflict { what } => Self::new(
                Code::Conflict,
                format!("{what} is taken or changed meanwhile; read it again and repeat the call"),
            ),
            StoreError::BadCursor => {
                Self::invalid("cursor", "is not one of this list; start again without it")
            }
            StoreError::Corrupt { .. } => Self::internal(error),
            other => Self::internal(other),
        }
    }
}

/// The edge of identity providers. Which one, and what is wrong with it, the log says: a caller may not have proved anything yet.
impl From<ProviderError> for ApiError {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Silent { .. }
            | ProviderError::Document { .. }
            | ProviderError::Failed(_) => {
                let detail = "the identity provider does not answer as it should, so nobody can be recognised by it now; try again in half a minute";
                Self::new(Code::IdentityProviderUnavailable, detail)
                    .retry_after(Duration::from_secs(30))
                    .because(error)
            }
            ProviderError::Busy => {
                let detail = "too many sign-ins wait for identity providers; try again in a moment";
                Self::new(Code::Overloaded, detail)
                    .retry_after(Duration::from_secs(1))
                    .because(error)
            }
        }
    }
}

impl From<LinkError> for ApiError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Taken => Self::new(
                Code::IdentityTaken,
                "this identity is linked to another account; sign in with it, or unlink it there first",
            ),
            LinkError::Missing => crate::auth::unauthenticated(),
            LinkError::Full(_) => Self::new(
                Code::Conflict,
                format!("{error}, which are as many as one may; unlink them first"),
            ),
            LinkError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::EmailTaken => Self::new(
                Code::NameTaken,
                "the email is taken; choose another one, or sign in with it",
            ),
            AccountError::Moved => Self::new(
                Code::Conflict,
                "the password was changed by somebody else at the same time; nothing was done",
            ),
            AccountError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<CreateAgentError> for ApiError {
    fn from(error: CreateAgentError) -> Self {
        match error {
            CreateAgentError::NameTaken => Self::new(
                Code::NameTaken,
                "an agent of that name exists; choose another name",
            ),
            CreateAgentError::Settings(error) => error.into(),
            CreateAgentError::Moved => Self::new(Code::Conflict, MOVED),
            CreateAgentError::Limit(over) => over.into(),
            CreateAgentError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<PatchAgentError> for ApiError {
    fn from(error: PatchAgentError) -> Self {
        match error {
            PatchAgentError::NameTaken => Self::new(
                Code::NameTaken,
                "an agent of that name exists; choose another name",
            ),
            PatchAgentError::Settings(error) => error.into(),
            PatchAgentError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<RotateKeyError> for ApiError {
    fn from(error: RotateKeyError) -> Self {
        match error {
            RotateKeyError::NoKey(_) => Self::new(Code::WrongAuthMethod, error.to_string()),
            RotateKeyError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<RotateIdentityError> for ApiError {
    fn from(error: RotateIdentityError) -> Self {
        match error {
            RotateIdentityError::Moved => Self::new(Code::Conflict, MOVED),
            RotateIdentityError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<SettingsError> for ApiError {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::NoVault(id) => Self::not_found("vault", id.as_str()),
            SettingsError::Incomplete(_) | SettingsError::Superfluous(_) => {
                Self::invalid("auth_method", error)
            }
            SettingsError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<EnrolmentError> for ApiError {
    fn from(error: EnrolmentError) -> Self {
        match error {
            EnrolmentError::Settled(_) => Self::new(
                Code::EnrolmentSettled,
                format!("{error}; the agent asks anew with POST /v1/agents/enroll"),
            ),
            EnrolmentError::Agent(error) => error.into(),
            EnrolmentError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<CreateGrantError> for ApiError {
    fn from(error: CreateGrantError) -> Self {
        match error {
            CreateGrantError::NoAgent(id) => Self::not_found("agent", id.as_str()),
            CreateGrantError::NoSet(id) => Self::not_found("secret set", id.as_str()),
            CreateGrantError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<CreateLeaseError> for ApiError {
    fn from(error: CreateLeaseError) -> Self {
        match error {
            // Revoked between the look at the grants and the commit: the store looked again.
            CreateLeaseError::AgentInactive(_)
            | CreateLeaseError::GrantGone(_)
            | CreateLeaseError::SetGone(_)
            | CreateLeaseError::OutlivesGrant { .. }
            | CreateLeaseError::OutlivesAgent { .. } => Self::new(
                Code::GrantDenied,
                format!("{error}; ask a person for a new grant"),
            ),
            CreateLeaseError::ParentGone(_) => Self::new(
                Code::LeaseRevoked,
                format!(
                    "{error}: it was revoked or has ended; mint another with POST /v1/vault/leases"
                ),
            ),
            CreateLeaseError::Paused(pause) => paused(*pause),
            CreateLeaseError::CutOff => Self::new(
                Code::Conflict,
                "every lease was revoked while this one was made, so it was not; mint again",
            ),
            CreateLeaseError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<WriteSetError> for ApiError {
    fn from(error: WriteSetError) -> Self {
        match error {
            WriteSetError::NameTaken => Self::new(
                Code::NameTaken,
                "a secret set of that name exists; choose another name",
            ),
            WriteSetError::PrefixTaken(prefix) => Self::new(
                Code::NameTaken,
                format!(
                    "secrets are stored under {prefix} in the default vault, which the set would take over; delete them first, or choose another name"
                ),
            ),
            WriteSetError::Moved => Self::new(
                Code::Conflict,
                "the secret set was changed by others each time; read it again and repeat the call",
            ),
            WriteSetError::NoSuchVersion(version) => {
                Self::not_found("version", &version.to_string())
            }
            WriteSetError::Empty => Self::invalid("entries", "a secret set needs at least one key"),
            WriteSetError::NoVault => Self::internal(error),
            WriteSetError::Limit(over) => over.into(),
            WriteSetError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<CreateVaultError> for ApiError {
    fn from(error: CreateVaultError) -> Self {
        match error {
            CreateVaultError::NameTaken => Self::new(
                Code::NameTaken,
                "a vault of that name exists; choose another name",
            ),
            CreateVaultError::Reserved => Self::new(
                Code::VaultReserved,
                format!("the name {AGENT_KEYS} is the service's own; choose another name"),
            ),
            CreateVaultError::Limit(over) => over.into(),
            CreateVaultError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<DeleteVaultError> for ApiError {
    fn from(error: DeleteVaultError) -> Self {
        match error {
            DeleteVaultError::Default => Self::new(
                Code::VaultInUse,
                "the default vault is not deleted, for keys of the service lie in it; delete the secrets and sets that you mean",
            ),
            DeleteVaultError::Reserved => Self::new(
                Code::VaultReserved,
                "the identity keys of agents lie in this vault, and it stays; an agent's keys are deleted with the agent",
            ),
            DeleteVaultError::InUse(sets) => Self::new(
                Code::VaultInUse,
                format!("{sets} secret sets lie in this vault; delete them first"),
            ),
            DeleteVaultError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<ReadSecretError> for ApiError {
    fn from(error: ReadSecretError) -> Self {
        match error {
            ReadSecretError::Gone(gone) => Self::new(
                Code::SecretGone,
                format!("the secret is no longer to be had: {gone}; store a new version with PUT"),
            ),
            ReadSecretError::SetEntry(set) => Self::new(
                Code::ExportDenied,
                format!(
                    "this is an entry of the secret set {set}, whose values are used through the injector; export them under a lease whose action is export_plaintext"
                ),
            ),
            ReadSecretError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<WriteSecretError> for ApiError {
    fn from(error: WriteSecretError) -> Self {
        match error {
            WriteSecretError::Moved => Self::new(
                Code::Conflict,
                "the secret was changed by others each time; read it again and repeat the call",
            ),
            WriteSecretError::SetEntry(set) => Self::new(
                Code::SecretSetEntry,
                format!(
                    "this path belongs to the secret set {set}; change it with PUT /v1/vault/secret-sets/{{id}} (`claviger set put {set}`), or choose another path"
                ),
            ),
            WriteSecretError::Reserved => Self::new(
                Code::VaultReserved,
                "the service alone writes to this vault, where the identity keys of agents lie; an agent gets others with POST /v1/agents/{id}/rotate-identity-keys, and they are deleted with it",
            ),
            WriteSecretError::Limit(over) => over.into(),
            WriteSecretError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<CreatePolicyError> for ApiError {
    fn from(error: CreatePolicyError) -> Self {
        match error {
            CreatePolicyError::NoVault(id) => Self::not_found("vault", id.as_str()),
            CreatePolicyError::NoPrincipal(principal) => {
                Self::not_found(principal.kind(), principal.id())
            }
            CreatePolicyError::TooMany => {
                Self::invalid("vault_id", format_args!("{error}; delete some first"))
            }
            CreatePolicyError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<OverQuota> for ApiError {
    fn from(over: OverQuota) -> Self {
        let next = match over.resource {
            Resource::Vaults | Resource::Secrets | Resource::Agents => {
                "delete what is not needed, or ask the operator for more"
            }
            Resource::Requests => {
                "this month's are used up, and the next month begins anew; ask the operator for more"
            }
        };
        Self::new(Code::ResourceLimitExceeded, format!("{over}; {next}"))
    }
}

impl From<CreateShareError> for ApiError {
    fn from(error: CreateShareError) -> Self {
        match error {
            CreateShareError::NoSecret => Self::new(
                Code::NotFound,
                "there is no such secret any more; list what there is",
            ),
            CreateShareError::NoRecipient => Self::new(
                Code::NotFound,
                "there is no such recipient; list members or agents, or check the id",
            ),
            CreateShareError::TooMany(wait) => Self::new(
                Code::RateLimited,
                format!("{error} in this organisation; wait as long as Retry-After says"),
            )
            .retry_after(wait),
            CreateShareError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}

impl From<LedgerError> for ApiError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Overloaded => Self::new(
                Code::Overloaded,
                "too many events wait for the ledger; try again in a second",
            ),
            LedgerError::Unavailable(_) => unrecorded(error),
            other => unrecorded(other),
        }
    }
}

impl From<VerifyError> for ApiError {
    fn from(error: VerifyError) -> Self {
        Self::internal(error)
    }
}

/// The edge of the vault.
impl From<SealError> for ApiError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::TooLong { .. } => Self::invalid("entries", error),
            SealError::Key(_) => key_unavailable(error),
            SealError::WrappedLen(_) => Self::internal(error),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(error: KeyError) -> Self {
        key_unavailable(error)
    }
}

impl From<OpenError> for ApiError {
    fn from(error: OpenError) -> Self {
        match error {
            // The same answer as for a key provider that is away: whoever altered the row learns nothing. The log has the difference.
            OpenError::Tampered
            | OpenError::UnknownVersion { .. }
            | OpenError::UnknownKek { .. }
            | OpenError::Key(_) => key_unavailable(error),
        }
    }
}

impl From<KeyChestError> for ApiError {
    fn from(error: KeyChestError) -> Self {
        match error {
            KeyChestError::Store(error) => error.into(),
            KeyChestError::Open { .. }
            | KeyChestError::Seal { .. }
            | KeyChestError::NoSigner { .. }
            | KeyChestError::Signer { .. } => key_unavailable(error),
            KeyChestError::NoVault(_)
            | KeyChestError::Missing { .. }
            | KeyChestError::Foreign { .. }
            | KeyChestError::Malformed { .. } => Self::internal(error),
        }
    }
}

impl From<CaError> for ApiError {
    fn from(error: CaError) -> Self {
        match error {
            CaError::Keys(error) => error.into(),
            CaError::Make(_) | CaError::Mismatch => Self::internal(error),
        }
    }
}

impl From<OperatorTemplatesError> for ApiError {
    fn from(error: OperatorTemplatesError) -> Self {
        match error {
            OperatorTemplatesError::NameTaken(_) => Self::new(Code::NameTaken, error.to_string()),
            OperatorTemplatesError::Full => Self::invalid("template", error),
            OperatorTemplatesError::Template { .. } => Self::internal(error),
            OperatorTemplatesError::Chest(error) => error.into(),
        }
    }
}

/// Who stopped it, why, and what starts it again.
fn paused(pause: Pause) -> ApiError {
    let Pause { agent, press } = pause;
    let (whose, option) = agent.map_or_else(
        || ("of this organisation".to_owned(), String::new()),
        |agent| (format!("of agent {agent}"), format!(" --agent {agent}")),
    );
    let who = press.name.as_deref().unwrap_or(&press.by);
    let detail = format!(
        "minting leases {whose} was paused by {who} at {}: {}; an admin resumes it with `claviger kill-switch resume{option} --reason TEXT` \
         (POST /v1/identity/kill-switch/minting)",
        timestamp::format(press.at),
        press.reason
    );
    ApiError::new(Code::MintingPaused, detail)
}

fn unrecorded(error: LedgerError) -> ApiError {
    let detail = "this could not be recorded, so nothing was done; look at GET /v1/health";
    ApiError::new(Code::LedgerUnavailable, detail).because(error)
}

fn key_unavailable(error: impl Error + Send + Sync + 'static) -> ApiError {
    let detail = "the key provider did not seal, open or sign this; look at GET /v1/health/hsm and try again";
    ApiError::new(Code::KeyUnavailable, detail).because(error)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (id, status) = self.approval.unzip();
        let problem = Problem {
            approval_request_id: id,
            approval_status: status,
            ..Problem::new(self.code, self.detail)
        };
        let mut response = problem.into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after.or(default_wait(self.code)) {
            headers.insert(header::RETRY_AFTER, whole_seconds(after).into());
        }
        if self.code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, challenge(self.code));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

/// A client that is told "later" must learn when (RFC 9110, section 10.2.3).
fn default_wait(code: Code) -> Option<Duration> {
    let status = code.status();
    let waits =
        status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE;
    waits.then_some(Duration::from_secs(1))
}

fn whole_seconds(wait: Duration) -> u64 {
    let partial = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(partial).max(1)
}

/// RFC 6750, section 3: the challenge names an error only when a token was presented.
fn challenge(code: Code) -> HeaderValue {
    if code == Code::LeaseInvalid || code == Code::CertificateRequired {
        HeaderValue::from_static(r#"Bearer realm="claviger", error="invalid_token""#)
    } else if code == Code::InvalidDpopProof {
        // RFC 9449, section 7.1.
        HeaderValue::from_static(
            r#"DPoP realm="claviger", error="invalid_dpop_proof", algs="ES256 EdDSA""#,
        )
    } else {
        HeaderValue::from_static(r#"Bearer realm="claviger""#)
    }
}

const MOVED: &str = "the agent's identity keys, or the vault that they lie in, were changed by others each time; nothing was done, repeat the call";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_rounded_up_to_a_whole_second() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(2_001)), 3);
        assert_eq!(whole_seconds(Duration::ZERO), 1);
    }

    #[test]
    fn a_401_has_a_challenge_and_a_429_a_wait() {
        let refused = ApiError::new(Code::Unauthenticated, "no").into_response();
        assert!(refused.headers().contains_key(header::WWW_AUTHENTICATE));
        let limited = ApiError::new(Code::RateLimited, "no").into_response();
        assert_eq!(limited.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn a_cause_never_reaches_the_body() {
        let error = ApiError::internal(std::io::Error::other("the private cause"));
        assert!(!error.detail().contains("private"));
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
