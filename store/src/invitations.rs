//! Invitations to an organisation: digests of tokens that were shown once, to be accepted once.

use ::leases::id::{InvitationId, OrgId, UserId};
use time::OffsetDateTime;

use crate::credentials::{self, AccountError, NewAccount, PasswordDigest};
use crate::db::{Change, Row, WriteTx, id, optional_time, query, time};
use crate::timekeeper::{at, millis};
use crate::users::{self, Role, User};
use crate::{Actor, ActorKind, NewEvent, Page, PageRequest, Store, StoreError};

/// An invitation, without what it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// Canonical.
    pub email: String,
    /// The role that its acceptance gives.
    pub role: Role,
    /// Who invites.
    pub invited_by: UserId,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
    /// When it was accepted.
    pub accepted_at: Option<OffsetDateTime>,
}

/// An invitation to be made.
#[derive(Debug, Clone)]
pub struct NewInvitation {
    /// Canonical.
    pub email: String,
    /// The role that its acceptance gives.
    pub role: Role,
    /// SHA-256 of the token.
    pub token_hash: [u8; 32],
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
}

/// Who accepts an invitation.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// What the person likes to be called.
    pub display_name: Option<String>,
    /// The digest of the password.
    pub password: PasswordDigest,
    /// Where the request came from.
    pub client_ip: Option<std::net::IpAddr>,
    /// The request, as logs and problem bodies name it.
    pub request_id: Option<String>,
}

/// Why nobody is invited.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// Whoever invites manages no people, or not any more.
    #[error("only owners and admins invite")]
    NotAdmin,
    /// The role has more rights than whoever invites.
    #[error("the role {} is above the one of whoever invites", .0.as_str())]
    Raises(Role),
    /// The email is a member's.
    #[error("the email is a member's")]
    Member,
    /// The organisation has too many open invitations.
    #[error("the organisation has {0} open invitations")]
    Full(i64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The invitations of a store.
#[derive(Debug, Clone, Copy)]
pub struct Invitations<'a> {
    pub(crate) store: &'a Store,
}

impl Invitations<'_> {
    /// Makes an invitation; an earlier open one to the same email ends. `by` is looked at in the same transaction.
    ///
    /// # Errors
    /// [`InviteError`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewInvitation,
        by: &UserId,
        actor: &Actor,
    ) -> Result<Invitation, InviteError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let inviter = users::get_in(&mut tx, org, by).await?;
        let inviter = inviter.filter(|user| user.role.is_admin());
        let inviter = inviter.ok_or(InviteError::NotAdmin)?;
        if new.role > inviter.role {
            return Err(InviteError::Raises(new.role));
        }
        let member = query("SELECT 1 FROM users WHERE org_id = $1 AND email = $2")
            .bind(org.as_str())
            .bind(&new.email)
            .fetch_optional(tx.conn())
            .await?;
        if member.is_some() {
            return Err(InviteError::Member);
        }
        query(
            "UPDATE invitations SET revoked_at = $1 WHERE org_id = $2 AND email = $3 \
             AND accepted_at IS NULL AND revoked_at IS NULL",
        )
        .bind(tx.now())
        .bind(org.as_str())
        .bind(&new.email)
        .execute(tx.conn())
        .await?;
        let open: Option<i64> = query(
            "SELECT COUNT(*) FROM invitations WHERE org_id = $1 AND accepted_at IS NULL \
             AND revoked_at IS NULL AND expires_at > $2",
        )
        .bind(org.as_str())
        .bind(tx.now())
        .fetch_value(tx.conn())
        .await?;
        if open.unwrap_or(0) >= MAX_OPEN {
            return Err(InviteError::Full(MAX_OPEN));
        }
        let created_at = at(tx.now());
        let invitation = Invitation {
            id: InvitationId::new(created_at),
            email: new.email,
            role: new.role,
            invited_by: by.clone(),
            created_at,
            expires_at: new.expires_at,
            accepted_at: None,
        };
        query(
            "INSERT INTO invitations (id, org_id, email, role, token_hash, invited_by, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(invitation.id.as_str())
        .bind(org.as_str())
        .bind(&invitation.email)
        .bind(invitation.role.as_str())
        .bind(&new.token_hash[..])
        .bind(by.as_str())
        .bind(tx.now())
        .bind(millis(invitation.expires_at))
        .execute(tx.conn())
        .await?;
        let event = NewEvent {
            action: "invitation.create",
            keys: vec![
                invitation.id.to_string(),
                invitation.role.as_str().to_owned(),
            ],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(invitation)
    }

    /// Invitations that can still be accepted, in the order they were made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        org: &OrgId,
        page: &PageRequest,
    ) -> Result<Page<Invitation>, StoreError> {
        let limit = page.bounded_limit();
        let rows = query(
            "SELECT * FROM invitations WHERE org_id = $1 AND id > $2 AND accepted_at IS NULL \
             AND revoked_at IS NULL AND expires_at > $3 ORDER BY id LIMIT $4",
        )
        .bind(org.as_str())
        .bind(page.after_id()?)
        .bind(self.store.inner.time.now())
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let invitations = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(
            invitations,
            limit,
            |invitation: &Invitation| invitation.id.as_str(),
        ))
    }

    /// Ends an invitation. False when there is no such open one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke(
        &self,
        org: &OrgId,
        id: &InvitationId,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let revoked = query(
            "UPDATE invitations SET revoked_at = $1 WHERE org_id = $2 AND id = $3 \
             AND accepted_at IS NULL AND revoked_at IS NULL",
        )
        .bind(tx.now())
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(tx.conn())
        .await?;
        if revoked == 0 {
            return Ok(false);
        }
        let event = NewEvent {
            action: "invitation.revoke",
            keys: vec![id.to_string()],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The organisation of an invitation that can be accepted now, for the rules on where its caller comes from.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn org_of(&self, token_hash: &[u8; 32]) -> Result<Option<OrgId>, StoreError> {
        let row = query(OPEN)
            .bind(&token_hash[..])
            .bind(self.store.inner.time.now())
            .fetch_optional(self.store.pool())
            .await?;
        row.map(|row| id(&row, "org_id", "invitation")).transpose()
    }

    /// Accepts an invitation, once: makes its person. `None` when no open invitation has this token, when whoever invited
    /// may not give that role any more, or when somebody has the email: one answer for all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accept(
        &self,
        token_hash: &[u8; 32],
        by: Acceptance,
    ) -> Result<Option<User>, StoreError> {
        let Some(org) = self.org_of(token_hash).await? else {
            return Ok(None);
        };
        let mut tx = self.store.write(Change::Org(&org)).await?;
        // Asked again: it may have been accepted or ended meanwhile.
        let row = query(OPEN)
            .bind(&token_hash[..])
            .bind(tx.now())
            .fetch_optional(tx.conn())
            .await?;
        let Some(invitation) = row.as_ref().map(read).transpose()? else {
            return Ok(None);
        };
        if !stands(&mut tx, &org, &invitation).await? {
            return Ok(None);
        }
        let new = NewAccount {
            email: invitation.email.clone(),
            display_name: by.display_name,
            role: invitation.role,
            password: by.password,
        };
        let user = match credentials::insert(&mut tx, &org, new).await {
            Ok(user) => user,
            Err(AccountError::Store(error)) => return Err(error),
            Err(_) => return Ok(None),
        };
        let actor = Actor {
            kind: ActorKind::User,
            id: user.id.to_string(),
            client_ip: by.client_ip,
            request_id: by.request_id,
        };
        settle(&mut tx, &org, &invitation, &actor).await?;
        tx.commit().await?;
        Ok(Some(user))
    }
}

/// The open invitation of an organisation to an email, if whoever made it may still give its role.
pub(crate) async fn open_for(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    email: &str,
) -> Result<Option<Invitation>, StoreError> {
    let row = query(
        "SELECT * FROM invitations WHERE org_id = $1 AND email = $2 AND accepted_at IS NULL \
         AND revoked_at IS NULL AND expires_at > $3 ORDER BY id DESC LIMIT 1",
    )
    .bind(org.as_str())
    .bind(email)
    .bind(tx.now())
    .fetch_optional(tx.conn())
    .await?;
    let Some(invitation) = row.as_ref().map(read).transpose()? else {
        return Ok(None);
    };
    let stands = stands(tx, org, &invitation).await?;
    Ok(stands.then_some(invitation))
}

/// Whether whoever made an invitation may still give its role.
async fn stands(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    invitation: &Invitation,
) -> Result<bool, StoreError> {
    let inviter = users::get_in(tx, org, &invitation.invited_by).await?;
    Ok(inviter.is_some_and(|user| user.role.is_admin() && user.role >= invitation.role))
}

/// Marks an invitation as accepted, by the person that was made for it.
pub(crate) async fn settle(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    invitation: &Invitation,
    person: &Actor,
) -> Result<(), StoreError> {
    query(
        "UPDATE invitations SET accepted_at = $1, accepted_by = $2 WHERE org_id = $3 AND id = $4",
    )
    .bind(tx.now())
    .bind(&person.id)
    .bind(org.as_str())
    .bind(invitation.id.as_str())
    .execute(tx.conn())
    .await?;
    let event = NewEvent {
        action: "invitation.accept",
        keys: vec![
            invitation.id.to_string(),
            invitation.role.as_str().to_owned(),
        ],
        ..NewEvent::default()
    };
    tx.append(org, person, &event).await?;
    Ok(())
}

const OPEN: &str = "SELECT * FROM invitations WHERE token_hash = $1 AND accepted_at IS NULL \
    AND revoked_at IS NULL AND expires_at > $2";
/// More would be a list of addresses and not of colleagues.
const MAX_OPEN: i64 = 1_000;

fn read(row: &Row) -> Result<Invitation, StoreError> {
    let what = "invitation";
    Ok(Invitation {
        id: id(row, "id", what)?,
        email: row.try_get("email")?,
        role: Role::parse(row.try_get("role")?).ok_or(StoreError::Corrupt { what })?,
        invited_by: id(row, "invited_by", what)?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
        accepted_at: optional_time(row, "accepted_at")?,
    })
}
