//! Emails and passwords of people. A password is here as its argon2id digest alone.

use std::fmt;

use ::leases::id::{OrgId, UserId};

use crate::db::{Change, WriteTx, query};
use crate::timekeeper::at;
use crate::users::{self, Role, User};
use crate::{Actor, NewEvent, Store, StoreError};

/// An argon2id digest in the PHC string format.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordDigest(pub String);

impl fmt::Debug for PasswordDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordDigest(..)")
    }
}

/// A person with an email and a password, to be made.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Canonical.
    pub email: String,
    /// What the person likes to be called.
    pub display_name: Option<String>,
    /// What the person may do.
    pub role: Role,
    /// The digest of the password.
    pub password: PasswordDigest,
}

/// What to change of a person; an absent field stays as it is.
#[derive(Debug, Clone, Default)]
pub struct ProfilePatch {
    /// Canonical, and nobody else's in the installation.
    pub email: Option<String>,
    /// What the person likes to be called.
    pub display_name: Option<String>,
}

/// Why a person's account is not made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// Somebody has this email.
    #[error("the email is taken")]
    EmailTaken,
    /// The password was changed by somebody else meanwhile.
    #[error("the password was changed meanwhile")]
    Moved,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The credentials of a store.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    pub(crate) store: &'a Store,
}

impl Credentials<'_> {
    /// The person of a canonical email, and the digest of the password if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(
        &self,
        email: &str,
    ) -> Result<Option<(User, Option<PasswordDigest>)>, StoreError> {
        let row = query(
            "SELECT u.*, p.digest FROM users u LEFT JOIN passwords p ON p.user_id = u.id \
             WHERE u.email = $1 AND u.removed_at IS NULL",
        )
        .bind(email)
        .fetch_optional(self.store.pool())
        .await?;
        row.map(|row| {
            let digest = row.try_get::<Option<String>>("digest")?;
            Ok((users::read(&row)?, digest.map(PasswordDigest)))
        })
        .transpose()
    }

    /// The digest of a person's password.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn password(
        &self,
        org: &OrgId,
        id: &UserId,
    ) -> Result<Option<PasswordDigest>, StoreError> {
        let digest = query("SELECT digest FROM passwords WHERE org_id = $1 AND user_id = $2")
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_value::<String>(self.store.pool())
            .await?;
        Ok(digest.map(PasswordDigest))
    }

    /// Makes a person with an email and a password.
    ///
    /// # Errors
    /// [`AccountError::EmailTaken`], [`AccountError::Store`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewAccount,
        actor: &Actor,
    ) -> Result<User, AccountError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let user = insert(&mut tx, org, new).await?;
        let event = NewEvent {
            action: "user.create",
            keys: vec![user.id.to_string(), user.role.as_str().to_owned()],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// Sets a person's password and ends all sessions. `was` is the digest that the caller has verified: if it is not that
    /// one any more, nothing changes. The person as it is afterwards; `None` when there is no such person.
    ///
    /// # Errors
    /// [`AccountError::Moved`], [`AccountError::Store`].
    pub async fn set_password(
        &self,
        org: &OrgId,
        id: &UserId,
        was: Option<&PasswordDigest>,
        password: &PasswordDigest,
        actor: &Actor,
    ) -> Result<Option<User>, AccountError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        if users::get_in(&mut tx, org, id).await?.is_none() {
            return Ok(None);
        }
        let is: Option<String> =
            query("SELECT digest FROM passwords WHERE org_id = $1 AND user_id = $2")
                .bind(org.as_str())
                .bind(id.as_str())
                .fetch_value(tx.conn())
                .await?;
        if is.as_ref() != was.map(|was| &was.0) {
            return Err(AccountError::Moved);
        }
        write_password(&mut tx, org, id, password).await?;
        users::end_sessions(&mut tx, id).await?;
        let user = users::get_in(&mut tx, org, id).await?;
        let event = NewEvent {
            action: "user.change_password",
            keys: vec![id.to_string()],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// Changes a person's email or name. `None` when there is no such person.
    ///
    /// # Errors
    /// [`AccountError::EmailTaken`], [`AccountError::Store`].
    pub async fn patch(
        &self,
        org: &OrgId,
        id: &UserId,
        patch: ProfilePatch,
        actor: &Actor,
    ) -> Result<Option<User>, AccountError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(user) = users::get_in(&mut tx, org, id).await? else {
            return Ok(None);
        };
        if let Some(email) = &patch.email
            && user.email.as_ref() != Some(email)
            && is_taken(&mut tx, email).await?
        {
            return Err(AccountError::EmailTaken);
        }
        let mut keys = vec![id.to_string()];
        let named = [
            ("email", &patch.email),
            ("display_name", &patch.display_name),
        ];
        keys.extend(
            named
                .iter()
                .filter(|(_, value)| value.is_some())
                .map(|(name, _)| (*name).to_owned()),
        );
        // Whoever is called by the email is called by the new one: the old one is free again.
        let name = match (&patch.email, &user.email) {
            (Some(new), Some(old)) if *old == user.name => new.clone(),
            _ => user.name.clone(),
        };
        let changed = User {
            name,
            email: patch.email.or(user.email),
            display_name: patch.display_name.or(user.display_name),
            ..user
        };
        query(
            "UPDATE users SET email = $1, display_name = $2, name = $3 WHERE org_id = $4 AND id = $5",
        )
        .bind(&changed.email)
        .bind(&changed.display_name)
        .bind(&changed.name)
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(tx.conn())
        .await
        .map_err(taken_meanwhile)?;
        let event = NewEvent {
            action: "user.update",
            keys,
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(Some(changed))
    }
}

/// Writes a new person with an email and a password.
pub(crate) async fn insert(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: NewAccount,
) -> Result<User, AccountError> {
    let person = NewPerson {
        email: new.email,
        display_name: new.display_name,
        role: new.role,
    };
    let user = insert_person(tx, org, person).await?;
    write_password(tx, org, &user.id, &new.password).await?;
    Ok(user)
}

/// A person with an email, whatever it signs in with.
pub(crate) struct NewPerson {
    pub(crate) email: String,
    pub(crate) display_name: Option<String>,
    pub(crate) role: Role,
}

/// Writes a new person with an email, which has nothing to sign in with yet.
pub(crate) async fn insert_person(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: NewPerson,
) -> Result<User, AccountError> {
    let is_named = users::is_taken(tx, org, &new.email).await?;
    if is_named || is_taken(tx, &new.email).await? {
        return Err(AccountError::EmailTaken);
    }
    let created_at = at(tx.now());
    let user = User {
        id: UserId::new(created_at),
        org: org.clone(),
        name: new.email.clone(),
        role: new.role,
        email: Some(new.email),
        display_name: new.display_name,
        session_epoch: 0,
        created_at,
    };
    // Of two organisations at once, the index decides.
    users::insert(tx, &user).await.map_err(taken_meanwhile)?;
    Ok(user)
}

async fn write_password(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    id: &UserId,
    password: &PasswordDigest,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO passwords (user_id, org_id, digest, changed_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (user_id) DO UPDATE SET digest = excluded.digest, changed_at = excluded.changed_at",
    )
    .bind(id.as_str())
    .bind(org.as_str())
    .bind(&password.0)
    .bind(tx.now())
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn is_taken(tx: &mut WriteTx<'_>, email: &str) -> Result<bool, StoreError> {
    let taken = query("SELECT 1 FROM users WHERE email = $1")
        .bind(email)
        .fetch_optional(tx.conn())
        .await?;
    Ok(taken.is_some())
}

fn taken_meanwhile(error: StoreError) -> AccountError {
    match error {
        StoreError::Conflict { .. } => AccountError::EmailTaken,
        other => AccountError::Store(other),
    }
}
