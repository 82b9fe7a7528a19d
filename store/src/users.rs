//! People and the digests of their personal keys.

use ::leases::id::{OrgId, UserId};
use time::OffsetDateTime;

use crate::db::{Change, Row, WriteTx, count, id, query, time};
use crate::timekeeper::at;
use crate::{Actor, NewEvent, NewPersonalKey, Page, PageRequest, Store, StoreError};

/// What a person may do, from the least right to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Reads alone.
    Auditor,
    /// Everything but people and keys of the service.
    Member,
    /// Everything but what concerns owners.
    Admin,
    /// Everything in the organisation. There is always one.
    Owner,
}

impl Role {
    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The role of that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Auditor, Self::Member, Self::Admin, Self::Owner]
            .into_iter()
            .find(|role| role.as_str() == text)
    }

    /// Whether it manages people and keys of the service.
    pub const fn is_admin(self) -> bool {
        matches!(self, Self::Admin | Self::Owner)
    }
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its organisation.
    pub org: OrgId,
    /// Unique in the organisation.
    pub name: String,
    /// What the person may do.
    pub role: Role,
    /// Canonical, and unique in the installation; a person with a key alone has none.
    pub email: Option<String>,
    /// What the person likes to be called.
    pub display_name: Option<String>,
    /// Goes up when a password or the role changes: a session of an earlier one has ended.
    pub session_epoch: u64,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A person to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Unique in the organisation.
    pub name: String,
    /// What the person may do.
    pub role: Role,
}

/// Why a person is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateUserError {
    /// The name is taken in this organisation.
    #[error("a user of that name exists")]
    NameTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The people of a store.
#[derive(Debug, Clone, Copy)]
pub struct Users<'a> {
    pub(crate) store: &'a Store,
}

impl Users<'_> {
    /// Makes a person.
    ///
    /// # Errors
    /// [`CreateUserError::NameTaken`], [`CreateUserError::Store`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewUser,
        actor: &Actor,
    ) -> Result<User, CreateUserError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        if is_taken(&mut tx, org, &new.name).await? {
            return Err(CreateUserError::NameTaken);
        }
        let created_at = at(tx.now());
        let user = User {
            id: UserId::new(created_at),
            org: org.clone(),
            name: new.name,
            role: new.role,
            email: None,
            display_name: None,
            session_epoch: 0,
            created_at,
        };
        insert(&mut tx, &user).await?;
        let event = NewEvent {
            action: "user.create",
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(user)
    }

    /// One person.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, id: &UserId) -> Result<Option<User>, StoreError> {
        let row = query(GET)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// People in the order they were made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, org: &OrgId, page: &PageRequest) -> Result<Page<User>, StoreError> {
        let limit = page.bounded_limit();
        let rows = query(
            "SELECT * FROM users WHERE org_id = $1 AND id > $2 AND removed_at IS NULL \
             ORDER BY id LIMIT $3",
        )
        .bind(org.as_str())
        .bind(page.after_id()?)
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let users = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(users, limit, |user: &User| {
            user.id.as_str()
        }))
    }

    /// Adds a personal key by the SHA-256 of its text. False when there is no such person.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Conflict`] if the key exists.
    pub async fn add_key(
        &self,
        org: &OrgId,
        id: &UserId,
        key_hash: &[u8; 32],
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let new = NewPersonalKey {
            hash: *key_hash,
            name: "first key".to_owned(),
            prefix: String::new(),
            reads_only: false,
            expires_at: None,
            is_session: false,
        };
        let made = self.store.personal_keys().create(org, id, new, actor).await;
        Ok(made?.is_some())
    }

    /// Ends every personal key of a person. False when there is no such person.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_keys(
        &self,
        org: &OrgId,
        id: &UserId,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let found = query(GET)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(tx.conn())
            .await?;
        if found.is_none() {
            return Ok(false);
        }
        query(
            "UPDATE user_keys SET revoked_at = $1 \
             WHERE org_id = $2 AND user_id = $3 AND revoked_at IS NULL",
        )
        .bind(tx.now())
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(tx.conn())
        .await?;
        let event = NewEvent {
            action: "user.revoke_keys",
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// A person who was removed is nobody.
pub(crate) const GET: &str =
    "SELECT * FROM users WHERE org_id = $1 AND id = $2 AND removed_at IS NULL";

/// One person, as the change that asks finds it.
pub(crate) async fn get_in(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    id: &UserId,
) -> Result<Option<User>, StoreError> {
    let row = query(GET)
        .bind(org.as_str())
        .bind(id.as_str())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(read).transpose()
}

/// Writes a new person's row.
pub(crate) async fn insert(tx: &mut WriteTx<'_>, user: &User) -> Result<(), StoreError> {
    query(
        "INSERT INTO users (id, org_id, name, role, email, display_name, session_epoch, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, 0, $7)",
    )
    .bind(user.id.as_str())
    .bind(user.org.as_str())
    .bind(&user.name)
    .bind(user.role.as_str())
    .bind(&user.email)
    .bind(&user.display_name)
    .bind(tx.now())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Ends every session of a person: tokens, keys that stand for one, and identities that a session began to link.
pub(crate) async fn end_sessions(tx: &mut WriteTx<'_>, id: &UserId) -> Result<(), StoreError> {
    for statement in [
        "UPDATE users SET session_epoch = session_epoch + 1 WHERE id = $1",
        "DELETE FROM oidc_logins WHERE user_id = $1",
    ] {
        query(statement)
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
    }
    Ok(())
}

pub(crate) async fn is_taken(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    name: &str,
) -> Result<bool, StoreError> {
    let taken = query("SELECT 1 FROM users WHERE org_id = $1 AND name = $2")
        .bind(org.as_str())
        .bind(name)
        .fetch_optional(tx.conn())
        .await?;
    Ok(taken.is_some())
}

pub(crate) fn read(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: id(row, "id", "user")?,
        org: id(row, "org_id", "user")?,
        name: row.try_get("name")?,
        role: Role::parse(row.try_get("role")?).ok_or(StoreError::Corrupt { what: "user" })?,
        email: row.try_get("email")?,
        display_name: row.try_get("display_name")?,
        session_epoch: count(row, "session_epoch")?,
        created_at: time(row, "created_at")?,
    })
}
