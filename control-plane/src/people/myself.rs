//! The extractor of what concerns a person's own account, and of what takes an owner or an admin.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use leases::id::{OrgId, UserId};
use store::{Actor, Role, User};

use crate::AppState;
use crate::auth::{Caller, Principal, unauthenticated};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::problem::Code;

/// A person who acts on their own account: an auditor too, but for a key that reads alone.
#[derive(Debug, Clone)]
pub(crate) struct Myself {
    pub(crate) org: OrgId,
    pub(crate) id: UserId,
    pub(crate) role: Role,
    pub(crate) actor: Actor,
    pub(crate) context: RequestContext,
}

impl Myself {
    /// The person's row.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] if the person was removed while the request was on its way.
    pub(crate) async fn user(&self, state: &AppState) -> Result<User, ApiError> {
        let user = state.store.users().get(&self.org, &self.id).await?;
        user.ok_or_else(unauthenticated)
    }
}

impl FromRequestParts<AppState> for Myself {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(unauthenticated)?;
        if caller.means.reads_only() && !parts.method.is_safe() {
            let detail = "this key reads alone; sign in, or use a key with all scopes";
            return Err(ApiError::new(Code::Forbidden, detail));
        }
        let actor = caller.actor();
        match caller.principal {
            Principal::Person { org, id, role } => Ok(Self {
                org,
                id,
                role,
                actor,
                context: caller.context,
            }),
            Principal::Agent { id, .. } => {
                let detail = format!(
                    "agent {id} is no person, and this concerns people's accounts; ask a person"
                );
                Err(ApiError::new(Code::Forbidden, detail))
            }
        }
    }
}

/// A person who manages people: an owner or an admin.
#[derive(Debug, Clone)]
pub(crate) struct Manager(pub(crate) Myself);

impl FromRequestParts<AppState> for Manager {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let myself = Myself::from_request_parts(parts, state).await?;
        if myself.role.is_admin() {
            return Ok(Self(myself));
        }
        let detail = format!(
            "a person with the role {} manages neither people nor webhooks; ask an owner or an admin",
            myself.role.as_str()
        );
        Err(ApiError::new(Code::Forbidden, detail))
    }
}
