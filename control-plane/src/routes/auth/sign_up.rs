//! `POST /v1/auth/signup`

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use leases::id::{OrgId, VaultId};
use serde::{Deserialize, Serialize};
use store::{AccountError, Actor, NewAccount, NewVault, Role};
use tokio::time::Instant;
use utoipa::ToSchema;
use vault::Secret;

use super::check_display_name;
use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Json;
use crate::people::{SignUp, email, password};
use crate::problem::{Code, Problem};

/// Whoever wants an organisation of their own.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewOwner {
    email: String,
    /// At least 12 characters of four kinds; `weak_password` says which rule is broken.
    #[schema(value_type = String)]
    password: Secret,
    display_name: Option<String>,
}

/// The same for an email that was free and for one that was not.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignedUp {
    message: &'static str,
    /// In its canonical form.
    email: String,
}

/// Makes an organisation and its owner, where the installation is open.
///
/// The answer is the same, and comes after the same time, when the email is taken: then nothing is made.
#[utoipa::path(post, path = "/v1/auth/signup", tag = "auth", operation_id = "signUp", security(()), request_body = NewOwner,
    responses((status = 201, body = SignedUp), (status = 400, body = Problem), (status = 403, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    Json(body): Json<NewOwner>,
) -> Result<(StatusCode, Answer<SignedUp>), ApiError> {
    if state.people.sign_up == SignUp::Closed {
        let detail = "nobody can sign up here; ask an owner or an admin for an invitation";
        return Err(ApiError::new(Code::SignUpClosed, detail));
    }
    let answered_at = Instant::now() + ANSWERED_AFTER;
    state.people.limits.source(context.client_ip)?;
    let email = email::required(&body.email)?;
    check_display_name(body.display_name.as_deref())?;
    password::check(&body.password)?;
    let new = NewAccount {
        password: state.people.hasher.hash(&body.password).await?,
        email: email.clone(),
        display_name: body.display_name,
        role: Role::Owner,
    };
    if state.store.credentials().find(&email).await?.is_none() {
        make(&state, new, &context).await?;
    }
    tokio::time::sleep_until(answered_at).await;
    let answer = SignedUp {
        message: "if the email was free, its account is ready; sign in with POST /v1/auth/token",
        email,
    };
    Ok((StatusCode::CREATED, Answer(answer)))
}

async fn make(state: &AppState, new: NewAccount, context: &RequestContext) -> Result<(), ApiError> {
    let actor = Actor {
        client_ip: context.client_ip,
        request_id: Some(context.id.clone()),
        ..Actor::system("sign-up")
    };
    let org = make_org(state, &new.email, &actor).await?;
    match state.store.credentials().create(&org, new, &actor).await {
        // Taken meanwhile: the organisation stays behind, empty and without anybody.
        Ok(_) | Err(AccountError::EmailTaken) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes an organisation with its vault, and nobody in it yet.
pub(crate) async fn make_org(
    state: &AppState,
    name: &str,
    actor: &Actor,
) -> Result<OrgId, ApiError> {
    let org = state.store.orgs().create(name, actor).await?.id;
    let id = VaultId::new(state.clock.now());
    // The key first: a vault row without a key could never be written to, a key without a row harms nobody.
    let kek_id = state.vault.wrapper().create_kek(id.as_str()).await?;
    let kek_id = kek_id.to_string();
    let vaults = state.store.vaults();
    vaults.ensure_default(&org, NewVault { id, kek_id }).await?;
    Ok(org)
}

/// Longer than making an organisation takes, so that the time says nothing.
const ANSWERED_AFTER: Duration = Duration::from_millis(750);
