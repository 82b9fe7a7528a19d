//! The body of every refusal (RFC 9457) and the closed list of its codes.

use axum::Json;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;

/// An `application/problem+json` body (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Where this kind of problem is described: a path on this server.
    #[schema(example = "/v1/problems/not_found")]
    pub r#type: String,
    /// Short and the same for every occurrence.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened, to which thing, and the next action.
    pub detail: String,
    /// `urn:uuid:<request id>`; the log has the cause under the same id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// Stable code in `snake_case`.
    #[schema(example = "not_found")]
    pub error: String,
    /// With `approval_required`: the approval to wait for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_request_id: Option<String>,
    /// How that approval stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_status: Option<String>,
}

impl Problem {
    /// The media type of RFC 9457, section 6.1.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    pub(crate) fn new(code: Code, detail: String) -> Self {
        Self {
            r#type: type_of(code),
            title: code.title().to_owned(),
            status: code.status().as_u16(),
            detail,
            instance: String::new(),
            error: code.as_str().to_owned(),
            approval_request_id: None,
            approval_status: None,
        }
    }
}

/// Where the code is described. The seeds' clients know two by their bare names alone.
fn type_of(code: Code) -> String {
    if matches!(code, Code::ResourceLimitExceeded | Code::ApprovalRequired) {
        code.as_str().to_owned()
    } else {
        format!("/v1/problems/{}", code.as_str())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let media_type = HeaderValue::from_static(Self::MEDIA_TYPE);
        let mut response =
            (status, [(header::CONTENT_TYPE, media_type)], Json(&self)).into_response();
        // The middleware adds `instance`, so it needs the parsed body again.
        response.extensions_mut().insert(self);
        response
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:ident, $title:literal, $help:literal;)*) => {
        /// The stable `error` codes of this API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $help] $variant,)*
        }

        impl Code {
            /// Every code, in the order of their statuses.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code as it stands in `error`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The HTTP status that goes with the code.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// The `title`: the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// What the code means and what to do about it.
            pub fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

codes! {
    InvalidJson = "invalid_json", BAD_REQUEST, "The body is not valid JSON",
        "The body is not JSON in UTF-8, has a key twice, or is nested too deeply. The detail has line and column.";
    InvalidRequest = "invalid_request", BAD_REQUEST, "The request has an invalid field",
        "A field, query parameter or header is missing, has the wrong type or an unacceptable value. The detail names it.";
    UnknownField = "unknown_field", BAD_REQUEST, "The request has an unknown field",
        "A field is not known here. A mistyped limit would widen access, so nothing was done. The detail names the field and those that exist.";
    WeakPassword = "weak_password", BAD_REQUEST, "The password is not good enough",
        "At least 12 and at most 128 characters, with an upper-case letter, a lower-case letter, a digit and a special character, without one character three times in a row, and without three in sequence. The detail names what is missing.";
    InvalidCode = "invalid_code", BAD_REQUEST, "The code is not right",
        "A code of a second factor is taken once, and within half a minute of its time. After five tries the next waits for a quarter of an hour.";
    AuthorizationPending = "authorization_pending", BAD_REQUEST, "Nobody has let the device in yet",
        "Ask again after the interval (RFC 8628, section 3.5).";
    SlowDown = "slow_down", BAD_REQUEST, "The device asks too often",
        "Wait five seconds longer between two questions from now on (RFC 8628, section 3.5).";
    AccessDenied = "access_denied", BAD_REQUEST, "The device was not let in",
        "Somebody denied it. Begin again with POST /v1/auth/device/code (RFC 8628, section 3.5).";
    ExpiredToken = "expired_token", BAD_REQUEST, "The device waited too long",
        "The device's code has ended, or was used. Begin again with POST /v1/auth/device/code (RFC 8628, section 3.5).";
    AmbiguousRequest = "ambiguous_request", BAD_REQUEST, "The request to the provider can be read in two ways",
        "Nothing is repaired: what two programs could read in two ways is not sent. The detail says what to write instead.";
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "Authentication is required",
        "The credential is missing, malformed, unknown, expired or revoked: one answer for all. Send `Authorization: Bearer` with a personal key (1ck_), an agent's key (ocv_) or a token of POST /v1/auth/token or /v1/auth/agent-token.";
    TimestampOutOfRange = "timestamp_out_of_range", UNAUTHORIZED, "The request was signed at another time",
        "X-Clawb-Timestamp must be within 5 minutes of the server's time, in milliseconds since 1970. Set the clock and sign again.";
    ReplayDetected = "replay_detected", UNAUTHORIZED, "The nonce was used before",
        "Each signed request carries a nonce of its own, and is taken once, on whichever node it arrives. Sign it anew.";
    InvalidDpopProof = "invalid_dpop_proof", UNAUTHORIZED, "The proof of possession does not fit",
        "The token is bound to a key (RFC 9449): each request with it carries a `DPoP` header with a JWT of type dpop+jwt, signed by that key, with its own jti, the request's htm and htu, and a fresh iat. The detail says what does not fit.";
    CertificateRequired = "certificate_required", UNAUTHORIZED, "The token is bound to a client certificate",
        "The token was issued over TLS with a client certificate (RFC 8705), and is good over connections with the same one alone. No header stands for it.";
    LeaseMissing = "lease_missing", UNAUTHORIZED, "A lease is required",
        "This call takes a lease as `Authorization: Bearer clv_...`. Mint one with POST /v1/vault/leases.";
    LeaseInvalid = "lease_invalid", UNAUTHORIZED, "The lease is not valid",
        "The lease is malformed or was not minted here: one answer for all. Mint a new one with POST /v1/vault/leases.";
    Forbidden = "forbidden", FORBIDDEN, "This principal may not do this",
        "Agents mint, list and revoke their own leases and export under an export lease; everything else is for people.";
    AddressDenied = "address_denied", FORBIDDEN, "Calls from this address are not taken",
        "The organisation's address rules (GET /v1/security/ip-rules) do not let this address in. The address is that of the connection; headers that claim another are not believed.";
    SignUpClosed = "sign_up_closed", FORBIDDEN, "Nobody can sign up here",
        "This installation makes accounts by invitation. Ask an owner or an admin for one; its operator opens it with `people.sign_up = \"open\"`.";
    IdentityNotAdmitted = "identity_not_admitted", FORBIDDEN, "The identity is not admitted here",
        "The identity provider vouched for somebody whom this installation does not let in: by its allowed domains and emails, for want of a verified email, or for want of an account and of an invitation. The detail says which.";
    LastOwner = "last_owner", FORBIDDEN, "The organisation would have no owner",
        "There is always one owner. Make somebody else an owner first.";
    GrantDenied = "grant_denied", FORBIDDEN, "No grant allows this",
        "The agent holds no active grant on the secret set that allows the action and keys asked for. A person creates one with POST /v1/vault/grants.";
    MintingPaused = "minting_paused", FORBIDDEN, "Minting is paused",
        "An admin stopped the minting of leases, for the organisation or for this agent. The detail says who, why and how it is resumed. Leases that were minted before are as good as they were.";
    ExportDenied = "export_denied", FORBIDDEN, "The lease does not allow an export",
        "Plaintext needs a lease whose action is `export_plaintext`, from a grant that holds it.";
    LeaseExpired = "lease_expired", FORBIDDEN, "The lease has expired",
        "Mint a new lease with POST /v1/vault/leases.";
    LeaseRevoked = "lease_revoked", FORBIDDEN, "The lease was revoked",
        "Somebody revoked this lease or a block of it. Mint a new one with POST /v1/vault/leases.";
    LeaseConsumed = "lease_consumed", FORBIDDEN, "The lease has been used",
        "A request lease is used once. Mint a new one, or a workflow lease for many uses.";
    LeaseScope = "lease_scope", FORBIDDEN, "The lease was narrowed and does not cover this",
        "Whoever handed on this lease narrowed it. Ask for a wider one.";
    InjectionDenied = "injection_denied", FORBIDDEN, "The key does not go there",
        "Where a key goes is for the provider's template, or a custom set's own declaration, to say. Leave `injection` out, or write exactly what stands there.";
    DestinationBlocked = "destination_blocked", FORBIDDEN, "The address may not be reached",
        "The host leads to an address on this machine, in a private network or of a metadata service. The operator lifts this for a network with `--allow-address`; nothing lifts it for metadata services.";
    PlaintextDenied = "plaintext_denied", FORBIDDEN, "No credential over cleartext",
        "Write https:// in the URL. A grant can allow cleartext for a provider whose template names http:// hosts.";
    UpgradeDenied = "upgrade_denied", FORBIDDEN, "The request asks for another protocol",
        "This API sends plain requests. A WebSocket goes through the injector itself: set `HTTPS_PROXY` to it.";
    ApprovalRequired = "approval_required", FORBIDDEN, "A person has to approve this request",
        "The grant lets this request pass only with a person's approval. `approval_request_id` names it: a person decides with POST /v1/approvals/{id}/approve or `claviger approval approve`, then the same request passes once.";
    ResourceLimitExceeded = "resource_limit_exceeded", FORBIDDEN, "The organization may have no more of these",
        "The operator of this installation says how many vaults, secrets, agents and requests a month an organization may have. GET /v1/usage shows how it stands; delete what is not needed, or ask the operator.";
    PolicyDenied = "policy_denied", FORBIDDEN, "No policy allows this",
        "An agent reads, writes, deletes and rotates secrets only as policies on the vault let it, and a policy may take from a person what their role gives. POST /v1/policies/explain says which policy decides; a person makes one with POST /v1/vaults/{id}/policies.";
    NotFound = "not_found", NOT_FOUND, "There is no such thing",
        "The path or the id does not exist, or belongs to somebody else. Lists show what there is.";
    OidcNotConfigured = "oidc_not_configured", NOT_FOUND, "No identity provider vouches for people here",
        "This installation signs people in by passwords and keys. Its operator names an identity provider in the section `oidc` of the configuration.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The path does not take this method",
        "The `Allow` header lists the methods of this path.";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request took too long to arrive",
        "The body must arrive within 30 s. Send it again.";
    TooSlow = "too_slow", REQUEST_TIMEOUT, "The exchange was too slow",
        "A body moved slower than the least rate.";
    NameTaken = "name_taken", CONFLICT, "The name is taken",
        "Another one of this name exists. Choose another name or change the existing one.";
    WrongAuthMethod = "wrong_auth_method", CONFLICT, "The agent authenticates by another method",
        "Only an agent whose `auth_method` is `api_key` has a key. PATCH /v1/agents/{id} changes the method, or what it verifies by.";
    Conflict = "conflict", CONFLICT, "Somebody else changed it at the same time",
        "Nothing was changed. Read it again and repeat the call.";
    IdentityNotLinked = "identity_not_linked", CONFLICT, "The account exists, and this identity is not linked to it",
        "An account has the email that the identity provider vouches for. Whoever owns it signs in to it as before and links the identity, with POST /v1/auth/oidc/link or `claviger account link`: an email alone takes no account over.";
    IdentityTaken = "identity_taken", CONFLICT, "The identity is another account's",
        "An identity is linked to one account. Unlink it there with DELETE /v1/auth/oidc/link, or sign in with it.";
    ApprovalSettled = "approval_settled", CONFLICT, "The approval was decided or has expired",
        "A decision is made once, and in time. The detail says how it stands; the agent asks anew by repeating its request.";
    EnrolmentSettled = "enrolment_settled", CONFLICT, "The enrolment was decided before",
        "An enrolment becomes an agent once, or is turned away for good. The detail says which.";
    SecretSetEntry = "secret_set_entry", CONFLICT, "The path belongs to a secret set",
        "What lies under a secret set's prefix is changed with the set, by PUT /v1/vault/secret-sets/{id}, so that every version of the set is whole. Its values are used through the injector or exported under a lease, and never read by their paths.";
    VaultInUse = "vault_in_use", CONFLICT, "The vault is in use",
        "The default vault always exists, and a vault is deleted only when no secret set lies in it.";
    VaultReserved = "vault_reserved", CONFLICT, "The vault is the service's own",
        "The service makes the vault `__agent-keys` with an organisation's first agent and keeps agents' identity keys there. Nobody else makes, deletes or writes to a vault of this name; people read in it, and agents as policies let them.";
    WouldShutOut = "would_shut_out", CONFLICT, "This would shut you out",
        "With this change nobody would get in any more: the address rules would not take the address that you call from, or the account would have nothing to sign in with. The detail says what to do first; for address rules `force` does it all the same.";
    RotationRunning = "rotation_running", CONFLICT, "A rotation of this vault runs",
        "One rotation at a time. GET /v1/keys/rotations/{id} shows how far it is; ask again when it is done.";
    ProviderNotConfigured = "provider_not_configured", CONFLICT, "The server lacks a key provider for this",
        "A move to another key provider needs both: the new one as the server's key provider, and the old one beside it, on every node. Configure them, restart, and ask again.";
    IdempotencyConflict = "idempotency_conflict", CONFLICT, "The Idempotency-Key was used for something else",
        "The key belongs to another request of yours, or that request is still running. Use a fresh key for a new request.";
    SecretGone = "secret_gone", GONE, "The secret is no longer to be had",
        "It was deleted, disabled, has expired, or was read as often as it may be; the detail says which. Store a new version with PUT, or take a deletion back with POST /v1/vaults/{id}/secret-restore/{path}.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large",
        "Bodies are at most 5 MB; calls that need little take less. The detail has the bound.";
    UriTooLong = "uri_too_long", URI_TOO_LONG, "The URL is too long",
        "The target of a request to a provider is bounded. Send what is long in its body.";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body must be JSON",
        "Send `Content-Type: application/json` and no Content-Encoding.";
    AuthorityMismatch = "authority_mismatch", MISDIRECTED_REQUEST, "The request names two hosts",
        "Host and URL must name one host. Leave Host out.";
    AmbiguousHosts = "ambiguous_hosts", UNPROCESSABLE_ENTITY, "Two secret sets claim the same host",
        "The host decides which set of a lease is used, so two sets of one lease must not share a host. Mint one lease for each, or narrow a grant's hosts.";
    InvalidTtl = "invalid_ttl", UNPROCESSABLE_ENTITY, "The lifetime is out of bounds",
        "A request lease lives 1 s to 15 min, a workflow lease 1 s to 24 h, and none longer than its grant.";
    UnknownProvider = "unknown_provider", UNPROCESSABLE_ENTITY, "No template has this provider's name",
        "GET /v1/providers lists the known ones. For any other API use provider `custom` with hosts and inject, or add a template with POST /v1/providers.";
    InvalidTemplate = "invalid_template", UNPROCESSABLE_ENTITY, "The provider template has mistakes",
        "The detail lists every mistake with its line and field.";
    ApprovalLimit = "approval_limit", TOO_MANY_REQUESTS, "Too many requests wait for approval",
        "At most 32 requests of an agent wait at once, and 32 questions. Have some of them decided, or wait as long as `Retry-After` says.";
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests",
        "Wait as long as `Retry-After` says.";
    SpendExceeded = "spend_exceeded", TOO_MANY_REQUESTS, "The budget is spent",
        "The grant's `constraints.spend` is used up. The detail says how much, and when it begins anew.";
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The header fields are too large",
        "The fields of a request to a provider are bounded in number and size.";
    Internal = "internal", INTERNAL_SERVER_ERROR, "Something failed here",
        "Not the caller's fault. The log has the cause under the request id in `instance`.";
    BindingTypeUnsupported = "binding_type_unsupported", BAD_REQUEST, "Bindings of this type are not served",
        "An injector speaks HTTP: bindings are `http` or `graphql`. Other protocols have no place into which a credential could be put without the agent seeing it.";
    UpstreamConnect = "upstream_connect", BAD_GATEWAY, "The provider cannot be reached",
        "Nothing was sent. Try again, and look at the network of the injector.";
    UpstreamTls = "upstream_tls", BAD_GATEWAY, "The provider's certificate was not accepted",
        "Nothing was sent. `--upstream-ca` adds a root that the injector trusts.";
    UpstreamProtocol = "upstream_protocol", BAD_GATEWAY, "The provider did not answer with proper HTTP",
        "The answer broke off, was withheld, or was none. The audit trail says what was sent and how it ended.";
    AnswerTooLarge = "answer_too_large", BAD_GATEWAY, "The provider's answer is too large for this call",
        "The request was done. Answers through this API are at most 5 MB; for larger ones set `HTTPS_PROXY` to the injector, which streams.";
    LedgerUnavailable = "ledger_unavailable", SERVICE_UNAVAILABLE, "Nothing can be recorded",
        "The database cannot be written, so nothing is done that must be on record. Look at GET /v1/health and the disk.";
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, "The store is unavailable",
        "The database does not answer. Try again in a moment.";
    KeyUnavailable = "key_unavailable", SERVICE_UNAVAILABLE, "The key provider is unavailable",
        "Secrets cannot be sealed or opened. Look at GET /v1/health/hsm.";
    InjectorUnavailable = "injector_unavailable", SERVICE_UNAVAILABLE, "No injector takes the request",
        "This process has no injector, and none that it was told of answers. Look at GET /v1/health of the injectors, or set `server.injectors`.";
    IdentityProviderUnavailable = "identity_provider_unavailable", SERVICE_UNAVAILABLE, "The identity provider is unavailable",
        "The identity provider does not answer, or not as it should, so nobody can be recognised by it. The server's log has the cause. Try again after `Retry-After`.";
    ClockBehind = "clock_behind", SERVICE_UNAVAILABLE, "The server's clock is wrong",
        "The clock stands behind what was recorded before, so the end of a lease would mean nothing. Set the server's clock.";
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too much is going on",
        "Try again after `Retry-After`.";
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT, "The provider did not answer in time",
        "The request may have been done. For what takes long set `HTTPS_PROXY` to the injector.";
}

impl Code {
    /// Finds a code by its text.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

/// What a code means: the page behind a problem's `type`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemPage {
    error: String,
    title: String,
    status: u16,
    help: String,
}

/// Explains an error code.
#[utoipa::path(get, path = "/v1/problems/{code}", tag = "system", security(()),
    params(("code" = String, Path, description = "An error code")),
    responses((status = 200, body = ProblemPage), (status = 404, body = Problem)))]
pub(crate) async fn describe(Path(code): Path<String>) -> Result<Json<ProblemPage>, ApiError> {
    let code = Code::parse(&code).ok_or_else(|| ApiError::not_found("error code", &code))?;
    Ok(Json(ProblemPage {
        error: code.as_str().to_owned(),
        title: code.title().to_owned(),
        status: code.status().as_u16(),
        help: code.help().to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_unique_and_is_found_by_its_text() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert!(code.help().ends_with('.'), "{code:?}");
        }
    }

    #[test]
    fn what_the_seeds_clients_compare_is_the_bare_name() {
        let type_of = |code| Problem::new(code, String::new()).r#type;
        assert_eq!(type_of(Code::ApprovalRequired), "approval_required");
        assert_eq!(
            type_of(Code::ResourceLimitExceeded),
            "resource_limit_exceeded"
        );
        assert_eq!(type_of(Code::NotFound), "/v1/problems/not_found");
    }

    #[test]
    fn an_unknown_code_is_none() {
        assert_eq!(Code::parse("no_such_code"), None);
    }
}
