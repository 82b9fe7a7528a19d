//! The end of every sign-in: the address, the second factor, the record, and then the token.

use leases::id::KeyId;
use serde::Serialize;
use store::{Actor, ActorKind, NewEvent, User};
use utoipa::ToSchema;
use zeroize::Zeroize;

use super::address_rules;
use crate::AppState;
use crate::auth::{self, Principal};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::jwt::{MFA_LIFETIME, PersonToken, TOKEN_LIFETIME};
use crate::problem::Code;

/// A token, or what is missing for one.
#[derive(Serialize, ToSchema)]
pub(crate) struct SignedIn {
    /// A JWT, signed by Ed25519. Empty while a code is missing.
    access_token: String,
    /// `Bearer`
    token_type: &'static str,
    /// Seconds.
    expires_in: u64,
    /// Whether POST /v1/auth/mfa/verify comes next.
    #[serde(skip_serializing_if = "Option::is_none")]
    mfa_required: Option<bool>,
    /// What that call takes beside the code. It opens nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    mfa_token: Option<String>,
}

impl Drop for SignedIn {
    fn drop(&mut self) {
        self.access_token.zeroize();
        self.mfa_token.zeroize();
    }
}

/// Signs in a person whose first factor was right: a password, or an identity provider's word.
///
/// # Errors
/// [`Code::AddressDenied`], which [`hide_address`] hides; what the store or the signing key say.
pub(crate) async fn by_first_factor(
    state: &AppState,
    user: &User,
    context: &RequestContext,
) -> Result<SignedIn, ApiError> {
    address_rules::check(state, &user.org, context.client_ip).await?;
    let factors = state.store.second_factors();
    if !factors.is_enabled(&user.org, &user.id).await? {
        return complete(state, user, None, context).await;
    }
    let jwt = &state.minting()?.jwt;
    let ticket = jwt
        .issue_mfa(&token_of(user, None), state.clock.now())
        .await?;
    Ok(SignedIn {
        access_token: String::new(),
        token_type: "Bearer",
        expires_in: MFA_LIFETIME.as_secs(),
        mfa_required: Some(true),
        mfa_token: Some(ticket.to_string()),
    })
}

/// Gives a person the token, once it is on record: without the record there is none.
///
/// # Errors
/// [`Code::AddressDenied`]; what the store or the signing key say.
pub(crate) async fn complete(
    state: &AppState,
    user: &User,
    key: Option<&KeyId>,
    context: &RequestContext,
) -> Result<SignedIn, ApiError> {
    address_rules::check(state, &user.org, context.client_ip).await?;
    let event = NewEvent {
        action: "auth.success",
        keys: key.map(ToString::to_string).into_iter().collect(),
        ..NewEvent::default()
    };
    let audit = state.store.audit();
    audit
        .append(&user.org, event, &actor(user, context))
        .await?;
    claim_shares(state, user, context).await;
    let jwt = &state.minting()?.jwt;
    let token = jwt
        .issue_person(&token_of(user, key), state.clock.now())
        .await?;
    Ok(SignedIn {
        access_token: token.to_string(),
        token_type: "Bearer",
        expires_in: TOKEN_LIFETIME.as_secs(),
        mfa_required: None,
        mfa_token: None,
    })
}

/// Gives the person what was shared with their email. A sign-in does not wait for a store that has no room for it.
async fn claim_shares(state: &AppState, user: &User, context: &RequestContext) {
    let shares = state.store.shares();
    if let Err(error) = shares.claim(user, &actor(user, context)).await {
        tracing::warn!(error = %error, "what was shared with an email was not claimed");
    }
}

/// The one answer to a sign-in that is refused, whatever was wrong with it.
pub(crate) async fn refuse(
    state: &AppState,
    context: &RequestContext,
    why: &'static str,
    detail: &'static str,
) -> ApiError {
    worded(auth::refuse(state, context, why).await, detail)
}

/// Turns the refusal of an address into that of a wrong credential: from where nobody is let in, nobody learns that it was right.
/// The organisation's record says what it was.
pub(crate) async fn hide_address(
    state: &AppState,
    user: &User,
    context: &RequestContext,
    refused: ApiError,
    detail: &'static str,
) -> ApiError {
    if refused.code() != Code::AddressDenied {
        return refused;
    }
    let principal = Principal::Person {
        org: user.org.clone(),
        id: user.id.clone(),
        role: user.role,
    };
    let hidden = auth::refuse_address(state, context, &principal, &refused).await;
    worded(hidden, detail)
}

/// The refusal of somebody whom an identity provider vouches for: counted and recorded as that of a wrong credential.
pub(crate) async fn turn_away(
    state: &AppState,
    context: &RequestContext,
    why: &'static str,
    refused: ApiError,
) -> ApiError {
    let counted = auth::refuse(state, context, why).await;
    if counted.code() == Code::Unauthenticated {
        refused
    } else {
        counted
    }
}

fn worded(refused: ApiError, detail: &'static str) -> ApiError {
    if refused.code() == Code::Unauthenticated {
        ApiError::new(Code::Unauthenticated, detail)
    } else {
        refused
    }
}

/// The person as the audit trail names it, before there is a caller.
pub(crate) fn actor(user: &User, context: &RequestContext) -> Actor {
    Actor {
        kind: ActorKind::User,
        id: user.id.to_string(),
        client_ip: context.client_ip,
        request_id: Some(context.id.clone()),
    }
}

fn token_of(user: &User, key: Option<&KeyId>) -> PersonToken {
    PersonToken {
        org: user.org.clone(),
        user: user.id.clone(),
        epoch: user.session_epoch,
        key: key.cloned(),
    }
}
