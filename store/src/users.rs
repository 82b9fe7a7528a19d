//! People and the digests of their personal keys.

use ::leases::id::{OrgId, UserId};
use time::OffsetDateTime;

use crate::db::{Change, Row, WriteTx, id, query, time};
use crate::timekeeper::at;
use crate::{Actor, NewEvent, Page, PageRequest, Store, StoreError};

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything in the organisation.
    Admin,
    /// Everything but people and keys of the service.
    Member,
    /// Reads alone.
    Auditor,
}

impl Role {
    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Auditor => "auditor",
        }
    }

    /// The role of that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Admin, Self::Member, Self::Auditor]
            .into_iter()
            .find(|role| role.as_str() == text)
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
            created_at,
        };
        query(INSERT)
            .bind(user.id.as_str())
            .bind(org.as_str())
            .bind(&user.name)
            .bind(user.role.as_str())
            .bind(tx.now())
            .execute(tx.conn())
            .await?;
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
        let rows = query("SELECT * FROM users WHERE org_id = $1 AND id > $2 ORDER BY id LIMIT $3")
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
        let mut tx = self.store.write(Change::Org(org)).await?;
        let added = query(
            "INSERT INTO user_keys (key_hash, org_id, user_id, created_at) \
             SELECT $1, org_id, id, $2 FROM users WHERE org_id = $3 AND id = $4",
        )
        .bind(&key_hash[..])
        .bind(tx.now())
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(tx.conn())
        .await?;
        if added == 0 {
            return Ok(false);
        }
        let event = NewEvent {
            action: "user.create_key",
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(true)
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

    /// The person whose live personal key has this SHA-256.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_by_key_hash(
        &self,
        key_hash: &[u8; 32],
    ) -> Result<Option<(OrgId, User)>, StoreError> {
        let row = query(
            "SELECT u.* FROM user_keys k JOIN users u ON u.id = k.user_id \
             WHERE k.key_hash = $1 AND k.revoked_at IS NULL",
        )
        .bind(&key_hash[..])
        .fetch_optional(self.store.pool())
        .await?;
        let user = row.as_ref().map(read).transpose()?;
        Ok(user.map(|user| (user.org.clone(), user)))
    }
}

const GET: &str = "SELECT * FROM users WHERE org_id = $1 AND id = $2";
const INSERT: &str =
    "INSERT INTO users (id, org_id, name, role, created_at) VALUES ($1, $2, $3, $4, $5)";

async fn is_taken(tx: &mut WriteTx<'_>, org: &OrgId, name: &str) -> Result<bool, StoreError> {
    let taken = query("SELECT 1 FROM users WHERE org_id = $1 AND name = $2")
        .bind(org.as_str())
        .bind(name)
        .fetch_optional(tx.conn())
        .await?;
    Ok(taken.is_some())
}

fn read(row: &Row) -> Result<User, StoreError> {
    Ok(User {
        id: id(row, "id", "user")?,
        org: id(row, "org_id", "user")?,
        name: row.try_get("name")?,
        role: Role::parse(row.try_get("role")?).ok_or(StoreError::Corrupt { what: "user" })?,
        created_at: time(row, "created_at")?,
    })
}
