//! Shares: one version of a secret for a person, an agent, an email, or whoever has a link. Opening one is an export.

pub(crate) mod accept;
pub(crate) mod access;
pub(crate) mod create;
pub(crate) mod decline;
pub(crate) mod get;
pub(crate) mod inbound;
pub(crate) mod open;
pub(crate) mod outbound;
pub(crate) mod revoke;

mod opening;

use leases::id::{SecretId, ShareId, UserId, VaultId};
use serde::Serialize;
use store::{Recipient, Share};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::{Caller, Principal};
use crate::error::ApiError;
use crate::extract::Id;
use crate::people::one_time::{self, Purpose};
use crate::problem::Code;
use crate::timestamp::Timestamp;

/// A share, without the value and without what its link says.
#[derive(Debug, Serialize, ToSchema)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the fields that the seeds' clients read"
)]
pub(crate) struct ShareView {
    #[schema(value_type = String, example = "shr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: ShareId,
    /// The version that it gives.
    #[schema(value_type = String)]
    secret_id: SecretId,
    #[schema(value_type = String)]
    vault_id: VaultId,
    /// Null to whoever has not accepted a share to an email that nobody vouches for.
    secret_path: Option<String>,
    version: u64,
    /// `user`, `agent`, `external_email`, `anyone_with_link` or `creator`.
    recipient_type: &'static str,
    recipient_id: Option<String>,
    recipient_email: Option<String>,
    /// Always true: whoever opens it holds the value.
    export: bool,
    has_passphrase: bool,
    ip_allowlist: Vec<String>,
    access_count: u64,
    /// Null for any number of times.
    max_access_count: Option<u64>,
    last_accessed_at: Option<Timestamp>,
    created_by: String,
    created_at: Timestamp,
    expires_at: Timestamp,
    is_expired: bool,
    is_accepted: bool,
    is_declined: bool,
    is_revoked: bool,
}

impl ShareView {
    fn new(share: Share, now: OffsetDateTime) -> Self {
        let claimed_by = share.claimed_by.as_ref().map(UserId::as_str);
        Self {
            recipient_type: share.recipient.kind(),
            recipient_id: share.recipient.id().or(claimed_by).map(str::to_owned),
            recipient_email: share.recipient.email().map(str::to_owned),
            id: share.id,
            secret_id: share.secret,
            vault_id: share.vault,
            secret_path: Some(share.path),
            version: share.version,
            export: true,
            has_passphrase: share.passphrase.is_some(),
            ip_allowlist: share.networks,
            access_count: share.accesses,
            max_access_count: share.max_accesses,
            last_accessed_at: share.last_accessed_at.map(Timestamp),
            created_by: share.created_by,
            created_at: share.created_at.into(),
            expires_at: share.expires_at.into(),
            is_expired: share.expires_at <= now,
            is_accepted: share.accepted_at.is_some(),
            is_declined: share.declined_at.is_some(),
            is_revoked: share.revoked_at.is_some(),
        }
    }

    /// As its recipient sees it: not what is in it, while it waits for the link that went to the email.
    async fn to_recipient(
        state: &AppState,
        share: Share,
        caller: &Caller,
    ) -> Result<Self, ApiError> {
        let is_known = share.accepted_at.is_some() || is_vouched(state, &share, caller).await?;
        let mut view = Self::new(share, state.clock.now());
        view.secret_path = view.secret_path.filter(|_| is_known);
        Ok(view)
    }
}

/// A page of shares.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShareList {
    shares: Vec<ShareView>,
    next_cursor: Option<String>,
}

/// A share as it was named, and whether by what its link says.
struct Named {
    share: Share,
    is_by_link: bool,
}

/// The share that a path names: by what its link says, or by an id that is this caller's to use.
async fn find(
    state: &AppState,
    id: &str,
    caller: Option<&Caller>,
) -> Result<Option<Named>, ApiError> {
    let shares = state.store.shares();
    if let Some(hash) = one_time::presented(Purpose::Share, id) {
        let share = shares.find_by_link(&hash).await?;
        return Ok(share.map(|share| Named {
            share,
            is_by_link: true,
        }));
    }
    let (Ok(id), Some(caller)) = (ShareId::parse(id), caller) else {
        return Ok(None);
    };
    let share = shares.get_for(caller.principal.id(), &id).await?;
    Ok(share.map(|share| Named {
        share,
        is_by_link: false,
    }))
}

/// The share that its recipient is to accept or decline.
async fn find_received(state: &AppState, id: &Id, caller: &Caller) -> Result<Named, ApiError> {
    let named = find(state, &id.0, Some(caller)).await?;
    let named = named.ok_or_else(unknown)?;
    let is_mine = match &named.share.recipient {
        Recipient::Anyone => false,
        Recipient::Email(email) if named.is_by_link => has_email(state, caller, email).await?,
        Recipient::User(_) | Recipient::Agent(_) | Recipient::Creator(_) | Recipient::Email(_) => {
            named.share.is_for(caller.principal.id())
        }
    };
    if is_mine { Ok(named) } else { Err(unknown()) }
}

/// Whether the caller is a person with this email.
async fn has_email(state: &AppState, caller: &Caller, email: &str) -> Result<bool, ApiError> {
    let Principal::Person { org, id, .. } = &caller.principal else {
        return Ok(false);
    };
    let user = state.store.users().get(org, id).await?;
    Ok(user.is_some_and(|user| user.email.as_deref() == Some(email)))
}

/// Whether the caller is known to be whom a share is for without its link.
async fn is_vouched(state: &AppState, share: &Share, caller: &Caller) -> Result<bool, ApiError> {
    match &caller.principal {
        Principal::Person { id, .. } => Ok(state.store.shares().is_vouched(share, id).await?),
        Principal::Agent { .. } => Ok(true),
    }
}

/// The one answer to whoever names no share of theirs. It does not repeat what was named: that may be a link.
fn unknown() -> ApiError {
    let detail = "there is no such share for this caller; list them with GET /v1/shares/inbound or /v1/shares/outbound";
    ApiError::new(Code::NotFound, detail)
}
