//! Organisations: the isolation boundary that every other row belongs to.

use ::leases::id::OrgId;
use time::OffsetDateTime;

use crate::db::{Change, Row, WriteTx, id, query, time};
use crate::timekeeper::at;
use crate::{Actor, NewEvent, Store, StoreError};

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Org {
    /// Its id.
    pub id: OrgId,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// The organisations of a store.
#[derive(Debug, Clone, Copy)]
pub struct Orgs<'a> {
    pub(crate) store: &'a Store,
}

impl Orgs<'_> {
    /// The organisation made first, which this makes, as `name`, when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ensure_first_org(&self, name: &str) -> Result<Org, StoreError> {
        let mut tx = self.store.write(Change::Installation).await?;
        let first = query(FIRST).fetch_optional(tx.conn()).await?;
        if let Some(row) = first {
            return read(&row);
        }
        let org = insert(&mut tx, name, &Actor::system("bootstrap")).await?;
        tx.commit().await?;
        Ok(org)
    }

    /// Makes another organisation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create(&self, name: &str, actor: &Actor) -> Result<Org, StoreError> {
        let mut tx = self.store.write(Change::Installation).await?;
        let org = insert(&mut tx, name, actor).await?;
        tx.commit().await?;
        Ok(org)
    }

    /// The organisation made first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn first(&self) -> Result<Option<Org>, StoreError> {
        let row = query(FIRST).fetch_optional(self.store.pool()).await?;
        row.as_ref().map(read).transpose()
    }

    /// One organisation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId) -> Result<Option<Org>, StoreError> {
        let row = query("SELECT id, name, created_at FROM orgs WHERE id = $1")
            .bind(org.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }
}

const FIRST: &str = "SELECT id, name, created_at FROM orgs ORDER BY created_at, id LIMIT 1";

async fn insert(tx: &mut WriteTx<'_>, name: &str, actor: &Actor) -> Result<Org, StoreError> {
    let created_at = at(tx.now());
    let org = Org {
        id: OrgId::new(created_at),
        name: name.to_owned(),
        created_at,
    };
    query("INSERT INTO orgs (id, name, created_at) VALUES ($1, $2, $3)")
        .bind(org.id.as_str())
        .bind(&org.name)
        .bind(tx.now())
        .execute(tx.conn())
        .await?;
    let event = NewEvent {
        action: "org.create",
        ..NewEvent::default()
    };
    tx.append(&org.id, actor, &event).await?;
    Ok(org)
}

fn read(row: &Row) -> Result<Org, StoreError> {
    Ok(Org {
        id: id(row, "id", "organisation")?,
        name: row.try_get("name")?,
        created_at: time(row, "created_at")?,
    })
}
