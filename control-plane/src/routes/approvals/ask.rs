//! `POST /v1/approvals/request`

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use store::approvals::{AskError, MAX_PENDING};
use store::consents::Question;
use utoipa::ToSchema;

use super::{ConsentView, check_reason};
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::{Code, Problem};
use crate::text::is_label;

/// A question to a person.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// What the caller wants to do, at most 128 characters.
    #[schema(example = "deploy")]
    action: String,
    /// The kind of thing that it is done to, at most 64 characters.
    #[schema(example = "service")]
    target_type: String,
    /// Which one, at most 256 characters.
    #[schema(example = "web")]
    target_id: String,
    /// The question in a sentence, at most 1024 characters.
    summary: String,
    /// Why, at most 256 characters.
    reason: Option<String>,
}

impl Ask {
    fn check(self) -> Result<Question, ApiError> {
        let bounded = [
            ("action", &self.action, 128),
            ("target_type", &self.target_type, 64),
            ("target_id", &self.target_id, 256),
            ("summary", &self.summary, 1024),
        ];
        for (field, text, most) in bounded {
            if !is_label(text, most) {
                let problem =
                    format_args!("must be 1 to {most} characters and no control characters");
                return Err(ApiError::invalid(field, problem));
            }
        }
        check_reason(self.reason.as_deref())?;
        Ok(Question {
            action: self.action,
            target_type: self.target_type,
            target_id: self.target_id,
            summary: self.summary,
            reason: self.reason,
        })
    }
}

/// Asks a person for approval of something that the caller does itself. It is listed and decided beside the requests that wait, and
/// never stands for the approval of one.
#[utoipa::path(post, path = "/v1/approvals/request", tag = "approvals", operation_id = "requestApproval", request_body = Ask,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 202, body = ConsentView), (status = 400, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<Ask>,
) -> Result<(StatusCode, axum::Json<ConsentView>), ApiError> {
    let question = body.check()?;
    let consents = state.store.consents();
    let asked = consents.ask(caller.org(), question, &caller.actor()).await;
    let asked = asked.map_err(|error| match error {
        AskError::TooMany { retry_after } => {
            let detail = format!(
                "{MAX_PENDING} questions of yours wait for a person; have some of them decided (`claviger approval list`), or wait as long as Retry-After says"
            );
            ApiError::new(Code::ApprovalLimit, detail).retry_after(retry_after)
        }
        AskError::Store(error) => error.into(),
        other => ApiError::internal(other),
    })?;
    Ok((StatusCode::ACCEPTED, axum::Json(asked.into())))
}
