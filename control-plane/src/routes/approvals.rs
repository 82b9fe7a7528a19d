//! Approvals: requests of agents that wait for a person, one request each, and questions that agents and people ask one.

pub(crate) mod approve;
pub(crate) mod ask;
pub(crate) mod decide;
pub(crate) mod deny;
pub(crate) mod get;
pub(crate) mod list;

use leases::id::{AgentId, ApprovalId, GrantId, LeaseId, SetId};
use serde::{Deserialize, Serialize};
use store::approvals::{Approval, ApprovalStatus, DecideError, ShownField, Verdict};
use store::consents::{Consent, DecideConsentError};
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;
use crate::problem::Code;
use crate::text::is_label;
use crate::timestamp::Timestamp;

/// A request that needs a person's approval. It says what is asked for and never what stands in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalView {
    #[schema(value_type = String, example = "apr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: ApprovalId,
    /// `pending`, `approved`, `rejected`, `expired` or `consumed`.
    status: &'static str,
    #[schema(value_type = String)]
    agent_id: AgentId,
    #[schema(value_type = String)]
    grant_id: GrantId,
    #[schema(value_type = String)]
    secret_set_id: SetId,
    /// The lease of the first attempt.
    #[schema(value_type = String)]
    lease_id: LeaseId,
    method: String,
    /// `https` or `http`.
    scheme: String,
    host: String,
    port: u16,
    /// Without the query, which the approval is bound to by its digest.
    path: String,
    /// SHA-256 of the query's text, lower-case hex, if there is a query.
    #[serde(skip_serializing_if = "Option::is_none")]
    query_sha256: Option<String>,
    /// SHA-256 of the body, lower-case hex.
    body_sha256: String,
    body_bytes: u64,
    /// What is asked of AWS, if it is AWS and can be told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["dynamodb:DeleteTable"]))]
    aws_actions: Vec<String>,
    /// The fields of the head that it is bound to: all that go on, but for those of the transport, of the library that asks and of the
    /// try. None in an approval from before heads were bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<Vec<HeadFieldView>>,
    created_at: Timestamp,
    /// Until when it waits, or is good once it is approved.
    expires_at: Timestamp,
    /// Id of the person who decided.
    decided_by: Option<String>,
    decided_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// When its request was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumed_at: Option<Timestamp>,
}

/// A field of the head, with its value, or its digest where that may be a credential, is long or is no plain text.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HeadFieldView {
    /// In lower case; `(aws scope)` is what the AWS signature says of region and service.
    #[schema(example = "x-amz-target")]
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "DynamoDB_20120810.DeleteTable")]
    value: Option<String>,
    /// SHA-256 of the value, lower-case hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

impl From<ShownField> for HeadFieldView {
    fn from(field: ShownField) -> Self {
        Self {
            name: field.name,
            value: field.value,
            sha256: field.sha256,
        }
    }
}

impl From<Approval> for ApprovalView {
    fn from(approval: Approval) -> Self {
        let head = approval.head.map(|head| (head.actions, head.fields));
        let (aws_actions, fields) = head.unzip();
        let head = fields.map(|fields| fields.into_iter().map(Into::into).collect());
        Self {
            id: approval.id,
            status: approval.status.as_str(),
            agent_id: approval.agent_id,
            grant_id: approval.grant_id,
            secret_set_id: approval.secret_set_id,
            lease_id: approval.lease_id,
            method: approval.method,
            scheme: approval.scheme,
            host: approval.host,
            port: approval.port,
            path: approval.path,
            query_sha256: approval.query_sha256.map(hex::encode),
            body_sha256: hex::encode(approval.body_sha256),
            body_bytes: approval.body_bytes,
            aws_actions: aws_actions.unwrap_or_default(),
            head,
            created_at: approval.created_at.into(),
            expires_at: approval.expires_at.into(),
            decided_by: approval.decided_by,
            decided_at: approval.decided_at.map(Timestamp),
            reason: approval.reason,
            consumed_at: approval.consumed_at.map(Timestamp),
        }
    }
}

/// A question to a person about something that who asks does itself. It opens nothing here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConsentView {
    #[schema(value_type = String, example = "apr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: ApprovalId,
    /// `pending`, `approved`, `rejected` or `expired`.
    status: &'static str,
    /// What is asked for, in the words of who asks, as are the four below: nobody has checked them.
    #[schema(example = "deploy")]
    action: String,
    #[schema(example = "service")]
    target_type: String,
    #[schema(example = "web")]
    target_id: String,
    summary: String,
    reason: Option<String>,
    /// Id of who asks.
    requested_by: String,
    /// `agent` or `user`.
    requested_by_type: String,
    created_at: Timestamp,
    /// Until when it waits, or is good once it is approved.
    expires_at: Timestamp,
    /// Id of the person who decided.
    decided_by: Option<String>,
    decided_at: Option<Timestamp>,
    /// Why that person decided so.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_reason: Option<String>,
}

impl From<Consent> for ConsentView {
    fn from(consent: Consent) -> Self {
        let question = consent.question;
        Self {
            id: consent.id,
            status: consent.status.as_str(),
            action: question.action,
            target_type: question.target_type,
            target_id: question.target_id,
            summary: question.summary,
            reason: question.reason,
            requested_by: consent.asked_by,
            requested_by_type: consent.asked_by_type,
            created_at: consent.created_at.into(),
            expires_at: consent.expires_at.into(),
            decided_by: consent.decided_by,
            decided_at: consent.decided_at.map(Timestamp),
            decision_reason: consent.decision_reason,
        }
    }
}

/// Either: a request that waits for approval, or a question.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum EitherView {
    Request(Box<ApprovalView>),
    Question(Box<ConsentView>),
}

impl EitherView {
    fn id(&self) -> &str {
        match self {
            Self::Request(request) => request.id.as_str(),
            Self::Question(question) => question.id.as_str(),
        }
    }
}

impl From<Approval> for EitherView {
    fn from(approval: Approval) -> Self {
        Self::Request(Box::new(approval.into()))
    }
}

impl From<Consent> for EitherView {
    fn from(consent: Consent) -> Self {
        Self::Question(Box::new(consent.into()))
    }
}

/// Why a person decided so.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Because {
    /// For the audit trail, and for the agent whose request is rejected.
    reason: Option<String>,
}

fn check_reason(reason: Option<&str>) -> Result<(), ApiError> {
    if reason.is_none_or(|reason| is_label(reason, MAX_REASON)) {
        return Ok(());
    }
    let problem = format_args!("must be 1 to {MAX_REASON} characters and no control characters");
    Err(ApiError::invalid("reason", problem))
}

/// Decides, once.
async fn settle(
    state: &AppState,
    person: &Person,
    id: &Id,
    verdict: Verdict,
    reason: Option<&str>,
) -> Result<axum::Json<EitherView>, ApiError> {
    check_reason(reason)?;
    let approval: ApprovalId = id.parse("approval")?;
    let approvals = state.store.approvals();
    let decided = approvals
        .decide(&person.org, &approval, verdict, reason, &person.actor)
        .await
        .map_err(|error| match error {
            DecideError::Settled(one) => settled(&one.id, one.decided_by.as_deref(), one.status),
            DecideError::Store(error) => error.into(),
            other => ApiError::internal(other),
        })?;
    if let Some(decided) = decided {
        return Ok(axum::Json(decided.into()));
    }
    let consents = state.store.consents();
    let decided = consents
        .decide(&person.org, &approval, verdict, reason, &person.actor)
        .await
        .map_err(|error| match error {
            DecideConsentError::Settled(one) => {
                settled(&one.id, one.decided_by.as_deref(), one.status)
            }
            DecideConsentError::Store(error) => error.into(),
            other => ApiError::internal(other),
        })?;
    let decided = decided.ok_or_else(|| ApiError::not_found("approval", &id.0))?;
    Ok(axum::Json(decided.into()))
}

fn settled(id: &ApprovalId, decided_by: Option<&str>, status: ApprovalStatus) -> ApiError {
    let detail = match (decided_by, status) {
        (_, ApprovalStatus::Expired) => {
            format!("approval {id} has expired; who asked asks anew by repeating the request")
        }
        (Some(by), status) => format!(
            "approval {id} is {} (decided by {by}), and a decision is made once",
            status.as_str()
        ),
        (None, status) => format!("approval {id} is {}", status.as_str()),
    };
    ApiError::new(Code::ApprovalSettled, detail)
}

const MAX_REASON: usize = 256;
