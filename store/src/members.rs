//! Who belongs to an organisation, and with which right: changes that nobody may make to raise themselves.

use ::leases::id::{OrgId, UserId};

use crate::db::{Change, WriteTx, query};
use crate::users::{self, Role, User};
use crate::{Actor, NewEvent, Store, StoreError};

/// Why a member is not changed or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemberError {
    /// There is no such person in the organisation.
    #[error("there is no such member")]
    Missing,
    /// Whoever asks manages no people, or not any more.
    #[error("only owners and admins manage people")]
    NotAdmin,
    /// The member has more rights than whoever asks.
    #[error("the member is {}, which is above the role of whoever asks", .0.as_str())]
    Above(Role),
    /// The role has more rights than whoever asks.
    #[error("the role {} is above the one of whoever asks", .0.as_str())]
    Raises(Role),
    /// Whoever asks means themselves.
    #[error("nobody decides about their own role")]
    Oneself,
    /// The organisation would have no owner.
    #[error("the organisation would have no owner")]
    LastOwner,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The members of a store's organisations.
#[derive(Debug, Clone, Copy)]
pub struct Members<'a> {
    pub(crate) store: &'a Store,
}

impl Members<'_> {
    /// Gives a member another role, which ends the member's sessions. `by` is looked at again in the same transaction.
    ///
    /// # Errors
    /// [`MemberError`].
    pub async fn set_role(
        &self,
        org: &OrgId,
        id: &UserId,
        role: Role,
        by: &UserId,
        actor: &Actor,
    ) -> Result<User, MemberError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let (member, manager) = both(&mut tx, org, id, by).await?;
        if id == by {
            return Err(MemberError::Oneself);
        }
        if role > manager.role {
            return Err(MemberError::Raises(role));
        }
        if member.role == role {
            return Ok(member);
        }
        keep_an_owner(&mut tx, &member, role).await?;
        query("UPDATE users SET role = $1 WHERE org_id = $2 AND id = $3")
            .bind(role.as_str())
            .bind(org.as_str())
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
        users::end_sessions(&mut tx, id).await?;
        let event = NewEvent {
            action: "user.change_role",
            keys: vec![id.to_string(), role.as_str().to_owned()],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(User {
            role,
            session_epoch: member.session_epoch + 1,
            ..member
        })
    }

    /// Removes a member: password, second factor, keys and sessions end at once, and the email is free again.
    ///
    /// # Errors
    /// [`MemberError`]; never [`MemberError::Oneself`], for whoever manages people may leave.
    pub async fn remove(
        &self,
        org: &OrgId,
        id: &UserId,
        by: &UserId,
        actor: &Actor,
    ) -> Result<(), MemberError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let (member, _) = both(&mut tx, org, id, by).await?;
        keep_an_owner(&mut tx, &member, Role::Auditor).await?;
        for statement in [
            "DELETE FROM passwords WHERE org_id = $1 AND user_id = $2",
            "DELETE FROM second_factors WHERE org_id = $1 AND user_id = $2",
            "DELETE FROM recovery_codes WHERE org_id = $1 AND user_id = $2",
            "DELETE FROM device_logins WHERE org_id = $1 AND user_id = $2",
            "DELETE FROM identities WHERE org_id = $1 AND user_id = $2",
            "DELETE FROM oidc_logins WHERE org_id = $1 AND user_id = $2",
        ] {
            query(statement)
                .bind(org.as_str())
                .bind(id.as_str())
                .execute(tx.conn())
                .await?;
        }
        for statement in [
            "UPDATE user_keys SET revoked_at = $1 \
             WHERE org_id = $2 AND user_id = $3 AND revoked_at IS NULL",
            "UPDATE users SET removed_at = $1, name = id, email = NULL, display_name = NULL, \
             session_epoch = session_epoch + 1 WHERE org_id = $2 AND id = $3",
        ] {
            query(statement)
                .bind(tx.now())
                .bind(org.as_str())
                .bind(id.as_str())
                .execute(tx.conn())
                .await?;
        }
        let event = NewEvent {
            action: "user.remove",
            keys: vec![id.to_string()],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// The member and who manages it, as they are in this change, if the one may manage the other.
async fn both(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    id: &UserId,
    by: &UserId,
) -> Result<(User, User), MemberError> {
    let manager = users::get_in(tx, org, by).await?;
    let manager = manager.filter(|user| user.role.is_admin());
    let manager = manager.ok_or(MemberError::NotAdmin)?;
    let member = users::get_in(tx, org, id).await?;
    let member = member.ok_or(MemberError::Missing)?;
    if member.role > manager.role {
        return Err(MemberError::Above(member.role));
    }
    Ok((member, manager))
}

/// Alone in the organisation, so that two owners who demote each other at once leave one.
async fn keep_an_owner(
    tx: &mut WriteTx<'_>,
    member: &User,
    becomes: Role,
) -> Result<(), MemberError> {
    if member.role != Role::Owner || becomes == Role::Owner {
        return Ok(());
    }
    let other = query(
        "SELECT 1 FROM users WHERE org_id = $1 AND role = 'owner' AND id <> $2 AND removed_at IS NULL LIMIT 1",
    )
    .bind(member.org.as_str())
    .bind(member.id.as_str())
    .fetch_optional(tx.conn())
    .await?;
    other.map(drop).ok_or(MemberError::LastOwner)
}
