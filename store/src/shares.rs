//! Shares: one version of a secret for one recipient, or for whoever has a link, as often and as long as their maker said.
//!
//! A share to an email may lead to a person of another organisation: whoever a share is for is asked beside the organisation
//! that it belongs to.

use std::time::Duration;

use ::leases::id::{AgentId, OrgId, SecretId, ShareId, UserId, VaultId};
use time::OffsetDateTime;

use crate::db::{
    Change, Row, Value, WriteTx, built, count, id, json, optional_time, query, stored, time,
    to_json,
};
use crate::secrets;
use crate::timekeeper::{at, millis};
use crate::{
    Actor, ActorKind, NewEvent, OpenedRow, Page, PageRequest, PasswordDigest, Store, StoreError,
    User,
};

/// Shares that an organisation makes within [`SHARES_PER`], on however many nodes.
pub const MAX_SHARES: u64 = 10;
/// The span of [`MAX_SHARES`].
pub const SHARES_PER: Duration = Duration::from_mins(1);
/// Passphrases that are tried at one share without a right one. Then it stays closed.
pub const MAX_TRIES: u64 = 10;

/// For whom a share is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipient {
    /// A person of the organisation.
    User(UserId),
    /// An agent of the organisation.
    Agent(AgentId),
    /// Whoever has the email, in canonical form.
    Email(String),
    /// Whoever has the link.
    Anyone,
    /// The person who made the agent that shares.
    Creator(UserId),
}

impl Recipient {
    /// The word in JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Agent(_) => "agent",
            Self::Email(_) => "external_email",
            Self::Anyone => "anyone_with_link",
            Self::Creator(_) => "creator",
        }
    }

    /// The id of the person or agent.
    pub fn id(&self) -> Option<&str> {
        match self {
            Self::User(id) | Self::Creator(id) => Some(id.as_str()),
            Self::Agent(id) => Some(id.as_str()),
            Self::Email(_) | Self::Anyone => None,
        }
    }

    /// The email.
    pub fn email(&self) -> Option<&str> {
        match self {
            Self::Email(email) => Some(email),
            Self::User(_) | Self::Agent(_) | Self::Anyone | Self::Creator(_) => None,
        }
    }
}

/// A share, without what its link says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Its id.
    pub id: ShareId,
    /// The organisation whose secret it is.
    pub org: OrgId,
    /// The version that it gives.
    pub secret: SecretId,
    /// The vault that the secret lies in.
    pub vault: VaultId,
    /// The secret's path.
    pub path: String,
    /// The version's number.
    pub version: u64,
    /// For whom it was made.
    pub recipient: Recipient,
    /// Of a share to an email: who claimed it.
    pub claimed_by: Option<UserId>,
    /// What a right passphrase matches.
    pub passphrase: Option<PasswordDigest>,
    /// From which networks it opens, as their maker's library writes them; an empty list for all.
    pub networks: Vec<String>,
    /// How often it opens; `None` for any number of times.
    pub max_accesses: Option<u64>,
    /// How often it was opened.
    pub accesses: u64,
    /// Id of who made it.
    pub created_by: String,
    /// Whether an agent made it.
    pub is_by_agent: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
    /// When its recipient accepted it.
    pub accepted_at: Option<OffsetDateTime>,
    /// When its recipient declined it.
    pub declined_at: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
    /// When it was last opened.
    pub last_accessed_at: Option<OffsetDateTime>,
}

impl Share {
    /// Whether it is for this person or agent, and for nobody else.
    pub fn is_for(&self, principal: &str) -> bool {
        let claimed = self.claimed_by.as_ref().map(UserId::as_str);
        self.recipient.id().or(claimed) == Some(principal)
    }
}

/// A share to be made.
#[derive(Debug, Clone)]
pub struct NewShare {
    /// The version that it gives.
    pub secret: SecretId,
    /// For whom.
    pub recipient: Recipient,
    /// SHA-256 of what its link says, where it has one.
    pub link_hash: Option<[u8; 32]>,
    /// What a right passphrase matches.
    pub passphrase: Option<PasswordDigest>,
    /// From which networks it opens; an empty list for all.
    pub networks: Vec<String>,
    /// How often it opens.
    pub max_accesses: Option<u64>,
    /// When it ends by itself.
    pub expires_at: OffsetDateTime,
}

/// Why nothing is shared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateShareError {
    /// The organisation has no such version, or its secret was deleted or disabled.
    #[error("there is no such secret")]
    NoSecret,
    /// The organisation has no such person or agent.
    #[error("there is no such recipient")]
    NoRecipient,
    /// The organisation made [`MAX_SHARES`] within [`SHARES_PER`]; the wait.
    #[error("{MAX_SHARES} shares were made within {SHARES_PER:?}")]
    TooMany(Duration),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The shares of a store.
#[derive(Debug, Clone, Copy)]
pub struct Shares<'a> {
    pub(crate) store: &'a Store,
}

impl Shares<'_> {
    /// Makes a share, if the organisation has not made too many just now.
    ///
    /// # Errors
    /// [`CreateShareError`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewShare,
        actor: &Actor,
    ) -> Result<Share, CreateShareError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        check_pace(&mut tx, org).await?;
        let now = tx.now();
        let secret = secrets::by_id(tx.conn(), org, &new.secret, now).await?;
        let secret = secret.ok_or(CreateShareError::NoSecret)?;
        if !has_recipient(&mut tx, org, &new.recipient).await? {
            return Err(CreateShareError::NoRecipient);
        }
        let now = at(tx.now());
        let share = Share {
            id: ShareId::new(now),
            org: org.clone(),
            secret: secret.id,
            vault: secret.vault,
            path: secret.path,
            version: secret.version,
            recipient: new.recipient,
            claimed_by: None,
            passphrase: new.passphrase,
            networks: new.networks,
            max_accesses: new.max_accesses,
            accesses: 0,
            created_by: actor.id.clone(),
            is_by_agent: actor.kind == ActorKind::Agent,
            created_at: now,
            expires_at: new.expires_at,
            accepted_at: None,
            declined_at: None,
            revoked_at: None,
            last_accessed_at: None,
        };
        insert(&mut tx, &share, new.link_hash, actor).await?;
        record(&mut tx, &share, "share.create", actor).await?;
        tx.commit().await?;
        Ok(share)
    }

    /// One share of an organisation, however it stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, share: &ShareId) -> Result<Option<Share>, StoreError> {
        let row = query("SELECT * FROM shares WHERE org_id = $1 AND id = $2")
            .bind(org.as_str())
            .bind(share.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// One share that is for this person or agent, of whichever organisation, however it stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_for(
        &self,
        principal: &str,
        share: &ShareId,
    ) -> Result<Option<Share>, StoreError> {
        let row = query("SELECT * FROM shares WHERE recipient_id = $1 AND id = $2")
            .bind(principal)
            .bind(share.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The share whose link says what has this SHA-256, of whichever organisation, however it stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_by_link(&self, link_hash: &[u8; 32]) -> Result<Option<Share>, StoreError> {
        let row = query("SELECT * FROM shares WHERE link_hash = $1")
            .bind(&link_hash[..])
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// What a person or agent has shared, or the whole organisation, in the order it was made. However it stands.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outbound(
        &self,
        org: &OrgId,
        created_by: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Share>, StoreError> {
        let limit = page.bounded_limit();
        let of_whom = created_by.map_or("", |_| "AND created_by = $4 ");
        let mut select = built(format!(
            "SELECT * FROM shares WHERE org_id = $1 AND id > $2 {of_whom}ORDER BY id LIMIT $3"
        ))
        .bind(org.as_str())
        .bind(page.after_id()?)
        .bind(limit + 1);
        if let Some(created_by) = created_by {
            select = select.bind(created_by);
        }
        let rows = select.fetch_all(self.store.pool()).await?;
        let shares = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(shares, limit, |share: &Share| {
            share.id.as_str()
        }))
    }

    /// What was shared with a person or agent and can still be accepted or opened, in the order it was made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn inbound(
        &self,
        principal: &str,
        page: &PageRequest,
    ) -> Result<Page<Share>, StoreError> {
        let limit = page.bounded_limit();
        let rows = query(
            "SELECT * FROM shares WHERE recipient_id = $1 AND id > $2 AND expires_at > $3 \
             AND revoked_at IS NULL AND declined_at IS NULL \
             AND (max_accesses IS NULL OR accesses < max_accesses) ORDER BY id LIMIT $4",
        )
        .bind(principal)
        .bind(page.after_id()?)
        .bind(self.store.inner.time.now())
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let shares = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(shares, limit, |share: &Share| {
            share.id.as_str()
        }))
    }

    /// Gives a person who signs in what was shared with their email and claimed by nobody.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim(&self, user: &User, actor: &Actor) -> Result<(), StoreError> {
        let Some(email) = user.email.as_deref() else {
            return Ok(());
        };
        let waiting = query(UNCLAIMED)
            .bind(email)
            .bind(self.store.inner.time.now())
            .fetch_optional(self.store.pool())
            .await?;
        if waiting.is_none() {
            return Ok(());
        }
        let mut tx = self.store.write(Change::Event).await?;
        let rows = query(CLAIM)
            .bind(email)
            .bind(tx.now())
            .bind(user.id.as_str())
            .fetch_all(tx.conn())
            .await?;
        let claimed: Vec<Share> = rows.iter().map(read).collect::<Result<_, _>>()?;
        for share in &claimed {
            record(&mut tx, share, "share.claim", actor).await?;
        }
        tx.commit().await
    }

    /// Whether the share's organisation vouches that the person has the email that it was shared with: somebody there invited
    /// that email, and this person accepted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_vouched(&self, share: &Share, user: &UserId) -> Result<bool, StoreError> {
        let Some(email) = share.recipient.email() else {
            return Ok(true);
        };
        let invited = query(
            "SELECT 1 FROM invitations i JOIN users u ON u.id = i.accepted_by \
             AND u.org_id = i.org_id AND u.email = i.email \
             WHERE i.org_id = $1 AND i.email = $2 AND i.accepted_by = $3",
        )
        .bind(share.org.as_str())
        .bind(email)
        .bind(user.as_str())
        .fetch_optional(self.store.pool())
        .await?;
        Ok(invited.is_some())
    }

    /// Accepts what can still be opened, for a person or agent. One of an email becomes this person's, if nobody has accepted
    /// it. Again changes nothing. False when there is none that can be accepted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn accept(
        &self,
        share: &Share,
        principal: &str,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        self.settle(ACCEPT, share, principal, ("share.accept", actor))
            .await
    }

    /// Declines a share, for a person or agent: it opens no more. Again changes nothing. False when there is none to decline.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn decline(
        &self,
        share: &Share,
        principal: &str,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        self.settle(DECLINE, share, principal, ("share.decline", actor))
            .await
    }

    async fn settle(
        &self,
        statement: &'static str,
        share: &Share,
        principal: &str,
        (action, actor): (&'static str, &Actor),
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Event).await?;
        let changed = query(statement)
            .bind(tx.now())
            .bind(share.org.as_str())
            .bind(share.id.as_str())
            .bind(principal)
            .execute(tx.conn())
            .await?;
        if changed == 0 {
            let is_so = query(
                "SELECT accepted_at, declined_at FROM shares WHERE org_id = $1 AND id = $2 \
                 AND recipient_id = $3 AND revoked_at IS NULL AND expires_at > $4",
            )
            .bind(share.org.as_str())
            .bind(share.id.as_str())
            .bind(principal)
            .bind(tx.now())
            .fetch_optional(tx.conn())
            .await?;
            let Some(row) = is_so else {
                return Ok(false);
            };
            let is_declined = row.try_get::<Option<i64>>("declined_at")?.is_some();
            let is_accepted = row.try_get::<Option<i64>>("accepted_at")?.is_some();
            return Ok(if action == "share.accept" {
                is_accepted && !is_declined
            } else {
                is_declined
            });
        }
        record(&mut tx, share, action, actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Ends a share: of `created_by`, or of anybody in the organisation. False when there is none that is not revoked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke(
        &self,
        org: &OrgId,
        share: &ShareId,
        created_by: Option<&str>,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Event).await?;
        let of_whom = created_by.map_or("", |_| " AND created_by = $4");
        let mut update = built(format!(
            "UPDATE shares SET revoked_at = $1 WHERE org_id = $2 AND id = $3 \
             AND revoked_at IS NULL{of_whom} RETURNING *"
        ))
        .bind(tx.now())
        .bind(org.as_str())
        .bind(share.as_str());
        if let Some(created_by) = created_by {
            update = update.bind(created_by);
        }
        let Some(row) = update.fetch_optional(tx.conn()).await? else {
            return Ok(false);
        };
        record(&mut tx, &read(&row)?, "share.revoke", actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Counts a passphrase before it is compared, so that tries at once count as well. False once [`MAX_TRIES`] were made since
    /// one was right: then nothing may be compared.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count_try(&self, share: &Share) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Seals).await?;
        let counted = query(
            "UPDATE shares SET tries = tries + 1 WHERE org_id = $1 AND id = $2 AND tries < $3",
        )
        .bind(share.org.as_str())
        .bind(share.id.as_str())
        .bind(stored(MAX_TRIES))
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(counted == 1)
    }

    /// Counts and records one opening of a share, which is one read of its version, and gives what is to be opened for it.
    /// `None` when the share or its version has ended, or its maker may share no more: an agent that is inactive, a person who
    /// was removed or reads no values.
    ///
    /// There are two events: `secret.export`, which it is, and `share.access`, whose `keys` end with who made the share.
    ///
    /// Counts, record and checks are one transaction, so of any number who open at once exactly `max_accesses` get the value,
    /// on any number of nodes, and nobody gets it without a record.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was counted.
    pub async fn open(
        &self,
        share: &Share,
        agent: Option<&AgentId>,
        actor: &Actor,
    ) -> Result<Option<(u64, OpenedRow)>, StoreError> {
        let mut tx = self.store.write(Change::Event).await?;
        let accesses: Option<i64> = query(OPEN)
            .bind(tx.now())
            .bind(share.org.as_str())
            .bind(share.id.as_str())
            .fetch_value(tx.conn())
            .await?;
        let Some(accesses) = accesses else {
            return Ok(None);
        };
        let Some(opened) = secrets::take(&mut tx, &share.org, &share.secret).await? else {
            return Ok(None);
        };
        let event = NewEvent {
            agent_id: agent.cloned(),
            ..event(share, "secret.export")
        };
        tx.append(&share.org, actor, &event).await?;
        let mut told = NewEvent {
            action: ACCESS,
            ..event
        };
        told.keys.push(share.created_by.clone());
        tx.append(&share.org, actor, &told).await?;
        tx.commit().await?;
        Ok(Some((accesses.unsigned_abs(), opened)))
    }
}

const WHAT: &str = "share";
/// Beside the export that an opening is: whose share it was, for webhooks that tell its maker.
const ACCESS: &str = "share.access";
const UNCLAIMED: &str = "SELECT 1 FROM shares WHERE recipient_email = $1 AND recipient_id IS NULL \
    AND expires_at > $2 AND revoked_at IS NULL LIMIT 1";
const CLAIM: &str = "UPDATE shares SET recipient_id = $3 WHERE recipient_email = $1 \
    AND recipient_id IS NULL AND expires_at > $2 AND revoked_at IS NULL RETURNING *";
/// The caller has made sure that one of an email is this person's.
const ACCEPT: &str = "UPDATE shares SET accepted_at = $1, recipient_id = $4 \
    WHERE org_id = $2 AND id = $3 AND accepted_at IS NULL AND declined_at IS NULL \
    AND revoked_at IS NULL AND expires_at > $1 \
    AND (recipient_id = $4 OR recipient_type = 'external_email')";
const DECLINE: &str = "UPDATE shares SET declined_at = $1 \
    WHERE org_id = $2 AND id = $3 AND declined_at IS NULL AND revoked_at IS NULL \
    AND expires_at > $1 AND recipient_id = $4";
/// The statement carries the conditions, so that it needs no lock but that of its row.
const OPEN: &str = "UPDATE shares SET accesses = accesses + 1, last_accessed_at = $1, tries = 0 \
    WHERE org_id = $2 AND id = $3 AND expires_at > $1 AND revoked_at IS NULL AND declined_at IS NULL \
    AND (recipient_type = 'anyone_with_link' OR accepted_at IS NOT NULL) \
    AND (max_accesses IS NULL OR accesses < max_accesses) \
    AND (EXISTS (SELECT 1 FROM users u WHERE u.org_id = $2 AND u.id = shares.created_by \
            AND u.removed_at IS NULL AND u.role <> 'auditor') \
        OR EXISTS (SELECT 1 FROM agents a WHERE a.org_id = $2 AND a.id = shares.created_by \
            AND a.is_active = 1 AND a.deleted_at IS NULL)) \
    RETURNING accesses";

/// Refuses an organisation that made too many shares just now. Exact, since shares are made one after the other.
async fn check_pace(tx: &mut WriteTx<'_>, org: &OrgId) -> Result<(), CreateShareError> {
    let span = i64::try_from(SHARES_PER.as_millis()).unwrap_or(i64::MAX);
    let rows = query(
        "SELECT created_at FROM shares WHERE org_id = $1 AND created_at > $2 \
         ORDER BY created_at DESC LIMIT $3",
    )
    .bind(org.as_str())
    .bind(tx.now() - span)
    .bind(stored(MAX_SHARES))
    .fetch_all(tx.conn())
    .await?;
    match rows.last() {
        Some(oldest) if rows.len() as u64 >= MAX_SHARES => {
            let ends = oldest.try_get::<i64>("created_at")? + span;
            let wait = u64::try_from(ends - tx.now()).unwrap_or(0);
            Err(CreateShareError::TooMany(Duration::from_millis(wait)))
        }
        _ => Ok(()),
    }
}

async fn has_recipient(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    recipient: &Recipient,
) -> Result<bool, StoreError> {
    let statement = match recipient {
        Recipient::User(_) | Recipient::Creator(_) => {
            "SELECT 1 FROM users WHERE org_id = $1 AND id = $2 AND removed_at IS NULL"
        }
        Recipient::Agent(_) => {
            "SELECT 1 FROM agents WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL"
        }
        Recipient::Email(_) | Recipient::Anyone => return Ok(true),
    };
    let found = query(statement)
        .bind(org.as_str())
        .bind(recipient.id().unwrap_or_default())
        .fetch_optional(tx.conn())
        .await?;
    Ok(found.is_some())
}

async fn insert(
    tx: &mut WriteTx<'_>,
    share: &Share,
    link_hash: Option<[u8; 32]>,
    actor: &Actor,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO shares (id, org_id, secret_id, vault_id, path, version, recipient_type, \
         recipient_id, recipient_email, link_hash, passphrase, tries, networks, max_accesses, accesses, \
         created_by, created_by_type, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, $12, $13, 0, $14, $15, $16, $17)",
    )
    .bind(share.id.as_str())
    .bind(share.org.as_str())
    .bind(share.secret.as_str())
    .bind(share.vault.as_str())
    .bind(&share.path)
    .bind(stored(share.version))
    .bind(share.recipient.kind())
    .bind(share.recipient.id().map(str::to_owned))
    .bind(share.recipient.email().map(str::to_owned))
    .bind(Value::Bytes(link_hash.map(|hash| hash.to_vec())))
    .bind(share.passphrase.as_ref().map(|digest| digest.0.clone()))
    .bind(to_json(&share.networks, WHAT)?)
    .bind(share.max_accesses.map(stored))
    .bind(&share.created_by)
    .bind(actor.kind.as_str())
    .bind(tx.now())
    .bind(millis(share.expires_at))
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn record(
    tx: &mut WriteTx<'_>,
    share: &Share,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    tx.append(&share.org, actor, &event(share, action)).await?;
    Ok(())
}

/// What all events of a share say of it: the path, then its id.
pub fn event(share: &Share, action: &'static str) -> NewEvent {
    let agent = match &share.recipient {
        Recipient::Agent(id) => Some(id.clone()),
        Recipient::User(_) | Recipient::Email(_) | Recipient::Anyone | Recipient::Creator(_) => {
            None
        }
    };
    NewEvent {
        action,
        agent_id: agent,
        vault_id: Some(share.vault.clone()),
        secret_version: Some(share.version),
        keys: vec![share.path.clone(), share.id.to_string()],
        ..NewEvent::default()
    }
}

fn read(row: &Row) -> Result<Share, StoreError> {
    let email: Option<String> = row.try_get("recipient_email")?;
    let claimed_by: Option<&str> = row.try_get("recipient_id")?;
    let claimed_by = claimed_by.filter(|_| email.is_some());
    let corrupt = || StoreError::Corrupt { what: WHAT };
    let recipient = match (row.try_get::<&str>("recipient_type")?, email) {
        ("user", None) => Recipient::User(id(row, "recipient_id", WHAT)?),
        ("agent", None) => Recipient::Agent(id(row, "recipient_id", WHAT)?),
        ("creator", None) => Recipient::Creator(id(row, "recipient_id", WHAT)?),
        ("external_email", Some(email)) => Recipient::Email(email),
        ("anyone_with_link", None) => Recipient::Anyone,
        _ => return Err(corrupt()),
    };
    let passphrase: Option<String> = row.try_get("passphrase")?;
    let max_accesses: Option<i64> = row.try_get("max_accesses")?;
    Ok(Share {
        id: id(row, "id", WHAT)?,
        org: id(row, "org_id", WHAT)?,
        secret: id(row, "secret_id", WHAT)?,
        vault: id(row, "vault_id", WHAT)?,
        path: row.try_get("path")?,
        version: count(row, "version")?,
        claimed_by: claimed_by
            .map(|id| id.parse().map_err(|_| corrupt()))
            .transpose()?,
        recipient,
        passphrase: passphrase.map(PasswordDigest),
        networks: json(row, "networks", WHAT)?,
        max_accesses: max_accesses.map(i64::unsigned_abs),
        accesses: count(row, "accesses")?,
        created_by: row.try_get("created_by")?,
        is_by_agent: row.try_get::<&str>("created_by_type")? == "agent",
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
        accepted_at: optional_time(row, "accepted_at")?,
        declined_at: optional_time(row, "declined_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
        last_accessed_at: optional_time(row, "last_accessed_at")?,
    })
}

#[cfg(test)]
mod tests;
