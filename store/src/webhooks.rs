//! Webhooks: where an organisation has its audit trail told to. The signing secret is a sealed key, `webhook/<id>`.

use ::leases::id::{OrgId, WebhookId};
use time::OffsetDateTime;

use crate::db::{Change, Row, WriteTx, count, id, json, query, stored, time, to_json};
use crate::sinks::{self, Sink};
use crate::timekeeper::{at, millis};
use crate::{Actor, NewEvent, NewSealedKey, Page, PageRequest, Store, StoreError, sealed_keys};

/// The most webhooks of one organisation.
pub const MAX_WEBHOOKS: i64 = 50;
/// So many deliveries of each webhook are kept, the latest.
pub const KEPT_DELIVERIES: u64 = 100;

/// A webhook, and how far it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Its organisation.
    pub org: OrgId,
    /// Where deliveries go.
    pub url: String,
    /// Patterns of the actions that it is told of.
    pub events: Vec<String>,
    /// Free text.
    pub description: Option<String>,
    /// Whether it is told anything.
    pub is_active: bool,
    /// Why the service stopped telling it.
    pub disabled_reason: Option<String>,
    /// The version of its signing secret.
    pub secret_version: u64,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
    /// How far it was told.
    pub sink: Sink,
}

/// A webhook to be made.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    /// Its id, to which its secret is sealed.
    pub id: WebhookId,
    /// Where deliveries go.
    pub url: String,
    /// Patterns of actions.
    pub events: Vec<String>,
    /// Free text.
    pub description: Option<String>,
    /// Its signing secret, sealed under [`secret_name`].
    pub secret: NewSealedKey,
}

/// What of a webhook changes.
#[derive(Debug, Clone, Default)]
pub struct WebhookPatch {
    /// Another URL.
    pub url: Option<String>,
    /// Other patterns, as a whole.
    pub events: Option<Vec<String>>,
    /// Another text; `Some(None)` for none.
    pub description: Option<Option<String>>,
    /// Whether it is told anything. One that is told again goes on where it was.
    pub is_active: Option<bool>,
}

/// One delivery, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Counts the events that the webhook was told of, from 1 up.
    pub number: u64,
    /// The event, and the `webhook-id` of each attempt.
    pub event_id: String,
    /// The event's action.
    pub action: String,
    /// How often it was tried.
    pub attempts: u64,
    /// When it was last tried.
    pub attempted_at: OffsetDateTime,
    /// How long that took, in milliseconds.
    pub duration_ms: u64,
    /// What the receiver answered; `None` when there was no answer.
    pub status: Option<u16>,
    /// Why it is no success; `None` when it is one.
    pub error: Option<String>,
}

/// Why a webhook is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateWebhookError {
    /// The organisation has as many as it may.
    #[error("the organisation has {MAX_WEBHOOKS} webhooks already")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The webhooks of a store.
#[derive(Debug, Clone, Copy)]
pub struct Webhooks<'a> {
    pub(crate) store: &'a Store,
}

impl Webhooks<'_> {
    /// Makes a webhook and stores its secret, both or neither. It is told what is recorded from now on, its own making first.
    ///
    /// # Errors
    /// [`CreateWebhookError`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewWebhook,
        actor: &Actor,
    ) -> Result<Webhook, CreateWebhookError> {
        // Before the change begins, so that nothing of it lies before the place.
        let place = self.store.audit().end().await?;
        let mut tx = self.store.write(Change::Org(org)).await?;
        let held: Option<i64> = query("SELECT COUNT(*) FROM webhooks WHERE org_id = $1")
            .bind(org.as_str())
            .fetch_value(tx.conn())
            .await?;
        if held.unwrap_or(0) >= MAX_WEBHOOKS {
            return Err(CreateWebhookError::TooMany);
        }
        query(
            "INSERT INTO webhooks (id, org_id, url, events, description, is_active, secret_version, \
             created_by, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8, $8)",
        )
        .bind(new.id.as_str())
        .bind(org.as_str())
        .bind(&new.url)
        .bind(to_json(&new.events, WHAT)?)
        .bind(&new.description)
        .bind(stored(new.secret.version))
        .bind(&actor.id)
        .bind(tx.now())
        .execute(tx.conn())
        .await?;
        sinks::insert(&mut tx, new.id.as_str(), org, &place).await?;
        let webhook = find(&mut tx, org, &new.id).await?;
        let webhook = webhook.ok_or(StoreError::Corrupt { what: WHAT })?;
        record(&mut tx, org, &new.id, "webhook.create", None, actor).await?;
        sealed_keys::put_next(&mut tx, org, new.secret, actor).await?;
        tx.commit().await?;
        Ok(webhook)
    }

    /// One webhook.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, id: &WebhookId) -> Result<Option<Webhook>, StoreError> {
        let row = query(GET)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Webhooks in the order they were made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, org: &OrgId, page: &PageRequest) -> Result<Page<Webhook>, StoreError> {
        let limit = page.bounded_limit();
        let rows = query(
            "SELECT * FROM webhooks JOIN audit_sinks ON sink = id \
             WHERE webhooks.org_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        )
        .bind(org.as_str())
        .bind(page.after_id()?)
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let webhooks = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(webhooks, limit, |webhook: &Webhook| {
            webhook.id.as_str()
        }))
    }

    /// Those of all organisations that may be told something now, by this node: active, not before their next attempt, and not
    /// another node's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due(&self) -> Result<Vec<Webhook>, StoreError> {
        let rows = query(
            "SELECT * FROM webhooks JOIN audit_sinks ON sink = id WHERE is_active = 1 \
             AND retry_at <= $1 AND (held_until <= $1 OR holder = $2) ORDER BY id",
        )
        .bind(self.store.inner.time.now())
        .bind(self.store.sinks().holder())
        .fetch_all(self.store.pool())
        .await?;
        rows.iter().map(read).collect()
    }

    /// Changes a webhook. Whatever failed before is tried anew. `None` when there is no such webhook.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn patch(
        &self,
        org: &OrgId,
        id: &WebhookId,
        patch: WebhookPatch,
        actor: &Actor,
    ) -> Result<Option<Webhook>, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(mut webhook) = find(&mut tx, org, id).await? else {
            return Ok(None);
        };
        webhook.url = patch.url.unwrap_or(webhook.url);
        webhook.events = patch.events.unwrap_or(webhook.events);
        webhook.description = patch.description.unwrap_or(webhook.description);
        webhook.is_active = patch.is_active.unwrap_or(webhook.is_active);
        webhook.updated_at = at(tx.now());
        if webhook.is_active {
            webhook.disabled_reason = None;
        }
        query(
            "UPDATE webhooks SET url = $1, events = $2, description = $3, is_active = $4, \
             disabled_reason = $5, updated_at = $6 WHERE org_id = $7 AND id = $8",
        )
        .bind(&webhook.url)
        .bind(to_json(&webhook.events, WHAT)?)
        .bind(&webhook.description)
        .bind(i64::from(webhook.is_active))
        .bind(&webhook.disabled_reason)
        .bind(tx.now())
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(tx.conn())
        .await?;
        query(
            "UPDATE audit_sinks SET attempts = 0, retry_at = 0, failing_since = NULL WHERE sink = $1",
        )
        .bind(id.as_str())
        .execute(tx.conn())
        .await?;
        record(&mut tx, org, id, "webhook.update", None, actor).await?;
        tx.commit().await?;
        let sink = Sink {
            attempts: 0,
            retry_at: at(0),
            failing_since: None,
            ..webhook.sink
        };
        Ok(Some(Webhook { sink, ..webhook }))
    }

    /// Stores the next version of the signing secret and signs with it from now on. `None` when there is no such webhook; then
    /// nothing was stored.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Conflict`] if somebody else made that version, or the vault has another key by now.
    pub async fn set_secret(
        &self,
        org: &OrgId,
        id: &WebhookId,
        secret: NewSealedKey,
        actor: &Actor,
    ) -> Result<Option<Webhook>, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        query(
            "UPDATE webhooks SET secret_version = $1, updated_at = $2 \
             WHERE org_id = $3 AND id = $4 AND secret_version < $1",
        )
        .bind(stored(secret.version))
        .bind(tx.now())
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(tx.conn())
        .await?;
        let Some(webhook) = find(&mut tx, org, id).await? else {
            return Ok(None);
        };
        sealed_keys::put_next(&mut tx, org, secret, actor).await?;
        record(&mut tx, org, id, "webhook.rotate_secret", None, actor).await?;
        tx.commit().await?;
        Ok(Some(webhook))
    }

    /// Stops telling a webhook that does not answer, and says so in the trail. False when it was stopped or is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn disable(
        &self,
        org: &OrgId,
        id: &WebhookId,
        reason: &str,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let disabled = query(
            "UPDATE webhooks SET is_active = 0, disabled_reason = $1, updated_at = $2 \
             WHERE org_id = $3 AND id = $4 AND is_active = 1",
        )
        .bind(reason)
        .bind(tx.now())
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(tx.conn())
        .await?;
        if disabled == 0 {
            return Ok(false);
        }
        let actor = Actor::system("webhooks");
        record(&mut tx, org, id, DISABLED, Some(reason), &actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Deletes a webhook with its deliveries and its secret. False when there is no such webhook.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(
        &self,
        org: &OrgId,
        id: &WebhookId,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let deleted = query("DELETE FROM webhooks WHERE org_id = $1 AND id = $2")
            .bind(org.as_str())
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
        if deleted == 0 {
            return Ok(false);
        }
        query("DELETE FROM audit_sinks WHERE org_id = $1 AND sink = $2")
            .bind(org.as_str())
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
        query("DELETE FROM webhook_deliveries WHERE org_id = $1 AND webhook_id = $2")
            .bind(org.as_str())
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
        query("DELETE FROM sealed_keys WHERE org_id = $1 AND name = $2")
            .bind(org.as_str())
            .bind(secret_name(id))
            .execute(tx.conn())
            .await?;
        record(&mut tx, org, id, "webhook.delete", None, actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The latest deliveries of a webhook, newest first; at most [`KEPT_DELIVERIES`] are kept.
    ///
    /// # Errors
    /// [`StoreError`], [`StoreError::BadCursor`].
    pub async fn deliveries(
        &self,
        org: &OrgId,
        id: &WebhookId,
        page: &PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        let limit = page.bounded_limit();
        let before = match page.cursor.as_deref() {
            None => i64::MAX,
            Some(cursor) => cursor.parse().map_err(|_| StoreError::BadCursor)?,
        };
        let rows = query(
            "SELECT * FROM webhook_deliveries WHERE org_id = $1 AND webhook_id = $2 AND number < $3 \
             ORDER BY number DESC LIMIT $4",
        )
        .bind(org.as_str())
        .bind(id.as_str())
        .bind(before)
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let deliveries: Vec<(String, Delivery)> = rows
            .iter()
            .map(|row| read_delivery(row).map(|delivery| (delivery.number.to_string(), delivery)))
            .collect::<Result<_, _>>()?;
        let page = Page::from_overfull(deliveries, limit, |(number, _)| number);
        Ok(Page {
            items: page
                .items
                .into_iter()
                .map(|(_, delivery)| delivery)
                .collect(),
            next_cursor: page.next_cursor,
        })
    }
}

/// The action of the event that tells that the service gave a webhook up. Webhooks are not told of it.
pub const DISABLED: &str = "webhook.disabled";

/// Under this name a webhook's secret lies among the sealed keys.
pub fn secret_name(id: &WebhookId) -> String {
    format!("webhook/{id}")
}

const WHAT: &str = "webhook";
const GET: &str = "SELECT * FROM webhooks JOIN audit_sinks ON sink = id \
    WHERE webhooks.org_id = $1 AND id = $2";

/// Keeps deliveries in the webhook's ring.
pub(crate) async fn keep(
    tx: &mut WriteTx<'_>,
    sink: &Sink,
    deliveries: &[Delivery],
) -> Result<(), StoreError> {
    let kept = usize::try_from(KEPT_DELIVERIES).unwrap_or(usize::MAX);
    let first = deliveries.len().saturating_sub(kept);
    for delivery in &deliveries[first..] {
        query(
            "INSERT INTO webhook_deliveries (webhook_id, slot, org_id, number, event_id, action, attempts, \
             attempted_at, duration_ms, status, error) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
             ON CONFLICT (webhook_id, slot) DO UPDATE SET number = excluded.number, \
             event_id = excluded.event_id, action = excluded.action, attempts = excluded.attempts, \
             attempted_at = excluded.attempted_at, duration_ms = excluded.duration_ms, \
             status = excluded.status, error = excluded.error",
        )
        .bind(&sink.name)
        .bind(stored(delivery.number % KEPT_DELIVERIES))
        .bind(sink.org.as_str())
        .bind(stored(delivery.number))
        .bind(&delivery.event_id)
        .bind(&delivery.action)
        .bind(stored(delivery.attempts))
        .bind(millis(delivery.attempted_at))
        .bind(stored(delivery.duration_ms))
        .bind(delivery.status.map(i64::from))
        .bind(&delivery.error)
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}

async fn find(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    id: &WebhookId,
) -> Result<Option<Webhook>, StoreError> {
    let row = query(GET)
        .bind(org.as_str())
        .bind(id.as_str())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(read).transpose()
}

async fn record(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    id: &WebhookId,
    action: &'static str,
    reason: Option<&str>,
    actor: &Actor,
) -> Result<(), StoreError> {
    let event = NewEvent {
        action,
        keys: vec![id.to_string()],
        reason: reason.map(str::to_owned),
        ..NewEvent::default()
    };
    tx.append(org, actor, &event).await?;
    Ok(())
}

fn read(row: &Row) -> Result<Webhook, StoreError> {
    let sink = sinks::read(row)?;
    Ok(Webhook {
        id: id(row, "id", WHAT)?,
        org: sink.org.clone(),
        url: row.try_get("url")?,
        events: json(row, "events", WHAT)?,
        description: row.try_get("description")?,
        is_active: row.try_get::<i64>("is_active")? == 1,
        disabled_reason: row.try_get("disabled_reason")?,
        secret_version: count(row, "secret_version")?,
        created_by: row.try_get("created_by")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        sink,
    })
}

fn read_delivery(row: &Row) -> Result<Delivery, StoreError> {
    let status: Option<i64> = row.try_get("status")?;
    Ok(Delivery {
        number: count(row, "number")?,
        event_id: row.try_get("event_id")?,
        action: row.try_get("action")?,
        attempts: count(row, "attempts")?,
        attempted_at: time(row, "attempted_at")?,
        duration_ms: count(row, "duration_ms")?,
        status: status.and_then(|status| u16::try_from(status).ok()),
        error: row.try_get("error")?,
    })
}

#[cfg(test)]
mod tests;
