//! Who people are to identity providers: an account is found by issuer and subject, and never by an email alone.

use ::leases::id::{OrgId, UserId};
use time::OffsetDateTime;

use crate::credentials::{self, AccountError, NewPerson};
use crate::db::{Change, Row, WriteTx, id, query, time};
use crate::invitations;
use crate::users::{self, Role, User};
use crate::{Actor, NewEvent, Store, StoreError};

/// Whom a provider vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identified {
    /// The provider's issuer.
    pub issuer: String,
    /// Who it is there: never given to anybody else (OpenID Connect Core 1.0, section 5.7).
    pub subject: String,
    /// Canonical, and verified by the provider.
    pub email: Option<String>,
}

/// What a person is to a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The provider's issuer.
    pub issuer: String,
    /// Who it is there.
    pub subject: String,
    /// What the provider vouched for at the last sign-in, canonical.
    pub email: Option<String>,
    /// When it was linked.
    pub created_at: OffsetDateTime,
    /// When it last signed in.
    pub used_at: OffsetDateTime,
}

/// Why an identity is not linked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It is another person's.
    #[error("the identity is another person's")]
    Taken,
    /// There is no such person.
    #[error("there is no such person")]
    Missing,
    /// The person has as many as one may.
    #[error("the person has {0} identities")]
    Full(i64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The identities of a store.
#[derive(Debug, Clone, Copy)]
pub struct Identities<'a> {
    pub(crate) store: &'a Store,
}

impl Identities<'_> {
    /// The person of an identity.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, issuer: &str, subject: &str) -> Result<Option<User>, StoreError> {
        let row = query(
            "SELECT u.* FROM identities i JOIN users u ON u.id = i.user_id \
             WHERE i.issuer = $1 AND i.subject = $2 AND u.removed_at IS NULL",
        )
        .bind(issuer)
        .bind(subject)
        .fetch_optional(self.store.pool())
        .await?;
        row.as_ref().map(users::read).transpose()
    }

    /// The identities of a person, in the order of their issuers.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of(&self, org: &OrgId, user: &UserId) -> Result<Vec<Identity>, StoreError> {
        let rows = query(
            "SELECT * FROM identities WHERE org_id = $1 AND user_id = $2 ORDER BY issuer, subject",
        )
        .bind(org.as_str())
        .bind(user.as_str())
        .fetch_all(self.store.pool())
        .await?;
        rows.iter().map(read).collect()
    }

    /// Notes a sign-in, and what the provider vouches for now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn touch(&self, org: &OrgId, who: &Identified) -> Result<(), StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        query(
            "UPDATE identities SET email = $1, used_at = $2 \
             WHERE issuer = $3 AND subject = $4 AND org_id = $5",
        )
        .bind(&who.email)
        .bind(tx.now())
        .bind(&who.issuer)
        .bind(&who.subject)
        .bind(org.as_str())
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Links an identity to a person, who has asked for it; once more is as good as once.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn link(
        &self,
        org: &OrgId,
        user: &UserId,
        who: &Identified,
        actor: &Actor,
    ) -> Result<User, LinkError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let person = users::get_in(&mut tx, org, user).await?;
        let person = person.ok_or(LinkError::Missing)?;
        match owner(&mut tx, who).await? {
            Some(owner) if owner == *user => return Ok(person),
            Some(_) => return Err(LinkError::Taken),
            None => {}
        }
        let held: Option<i64> =
            query("SELECT COUNT(*) FROM identities WHERE org_id = $1 AND user_id = $2")
                .bind(org.as_str())
                .bind(user.as_str())
                .fetch_value(tx.conn())
                .await?;
        if held.unwrap_or(0) >= MAX_HELD {
            return Err(LinkError::Full(MAX_HELD));
        }
        // Of two people at once, the key decides.
        insert(&mut tx, &person, who)
            .await
            .map_err(|error| match error {
                StoreError::Conflict { .. } => LinkError::Taken,
                other => LinkError::Store(other),
            })?;
        let event = NewEvent {
            action: "user.link_identity",
            keys: vec![user.to_string(), who.issuer.clone()],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(person)
    }

    /// Ends all identities of a person, and with them every session: which of them a provider's word began is not told apart. How many
    /// identities there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn unlink(
        &self,
        org: &OrgId,
        user: &UserId,
        actor: &Actor,
    ) -> Result<u64, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let ended = query("DELETE FROM identities WHERE org_id = $1 AND user_id = $2")
            .bind(org.as_str())
            .bind(user.as_str())
            .execute(tx.conn())
            .await?;
        if ended > 0 {
            users::end_sessions(&mut tx, user).await?;
            let event = NewEvent {
                action: "user.unlink_identities",
                keys: vec![user.to_string()],
                ..NewEvent::default()
            };
            tx.append(org, actor, &event).await?;
            tx.commit().await?;
        }
        Ok(ended)
    }

    /// Accepts the open invitation of an organisation to the email that a provider vouches for: makes its person, who signs in
    /// by the provider alone. `None` without such an invitation, and where somebody has the email or the identity.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accept(
        &self,
        org: &OrgId,
        who: &Identified,
        display_name: Option<String>,
        actor: impl FnOnce(&UserId) -> Actor,
    ) -> Result<Option<User>, StoreError> {
        let Some(email) = &who.email else {
            return Ok(None);
        };
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(invitation) = invitations::open_for(&mut tx, org, email).await? else {
            return Ok(None);
        };
        let made = make(&mut tx, org, who, (display_name, invitation.role)).await?;
        let Some(user) = made else {
            return Ok(None);
        };
        invitations::settle(&mut tx, org, &invitation, &actor(&user.id)).await?;
        tx.commit().await?;
        Ok(Some(user))
    }

    /// Makes a person who signs in by a provider alone. `None` where the provider vouches for no email, and where somebody has
    /// the email or the identity.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create(
        &self,
        org: &OrgId,
        who: &Identified,
        (display_name, role): (Option<String>, Role),
        actor: &Actor,
    ) -> Result<Option<User>, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(user) = make(&mut tx, org, who, (display_name, role)).await? else {
            return Ok(None);
        };
        let event = NewEvent {
            action: "user.create",
            keys: vec![user.id.to_string(), user.role.as_str().to_owned()],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(Some(user))
    }
}

async fn make(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    who: &Identified,
    (display_name, role): (Option<String>, Role),
) -> Result<Option<User>, StoreError> {
    let Some(email) = who.email.clone() else {
        return Ok(None);
    };
    if owner(tx, who).await?.is_some() {
        return Ok(None);
    }
    let new = NewPerson {
        email,
        display_name,
        role,
    };
    let user = match credentials::insert_person(tx, org, new).await {
        Ok(user) => user,
        Err(AccountError::Store(error)) => return Err(error),
        Err(_) => return Ok(None),
    };
    insert(tx, &user, who).await?;
    Ok(Some(user))
}

async fn owner(tx: &mut WriteTx<'_>, who: &Identified) -> Result<Option<UserId>, StoreError> {
    let row = query("SELECT user_id FROM identities WHERE issuer = $1 AND subject = $2")
        .bind(&who.issuer)
        .bind(&who.subject)
        .fetch_optional(tx.conn())
        .await?;
    row.map(|row| id(&row, "user_id", "identity")).transpose()
}

async fn insert(tx: &mut WriteTx<'_>, user: &User, who: &Identified) -> Result<(), StoreError> {
    query(
        "INSERT INTO identities (issuer, subject, org_id, user_id, email, created_at, used_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $6)",
    )
    .bind(&who.issuer)
    .bind(&who.subject)
    .bind(user.org.as_str())
    .bind(user.id.as_str())
    .bind(&who.email)
    .bind(tx.now())
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn read(row: &Row) -> Result<Identity, StoreError> {
    Ok(Identity {
        issuer: row.try_get("issuer")?,
        subject: row.try_get("subject")?,
        email: row.try_get("email")?,
        created_at: time(row, "created_at")?,
        used_at: time(row, "used_at")?,
    })
}

/// An installation has one provider; it may have had others.
const MAX_HELD: i64 = 8;
