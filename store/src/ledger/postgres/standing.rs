//! Whether leases still stand, asked over a connection beside the ledger's.

use std::sync::Arc;
use std::time::Duration;

use ::leases::id::GrantId;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::ledger::{Holding, LedgerError, Standing};
use crate::location::PostgresUrl;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(1);

/// One connection for all who ask: their questions follow each other without waiting for answers.
#[derive(Debug)]
pub(in crate::ledger) struct Reader {
    url: PostgresUrl,
    client: tokio::sync::Mutex<Option<Arc<Client>>>,
}

impl Reader {
    pub(super) fn new(url: PostgresUrl) -> Self {
        Self {
            url,
            client: tokio::sync::Mutex::default(),
        }
    }

    pub(in crate::ledger) async fn standing(
        &self,
        holding: &Holding<'_>,
    ) -> Result<Standing, LedgerError> {
        let asked = tokio::time::timeout(DEADLINE, self.ask(holding));
        if let Ok(answer) = asked.await {
            answer
        } else {
            self.client.lock().await.take();
            Err(LedgerError::Unavailable(format!(
                "no answer within {DEADLINE:?}"
            )))
        }
    }

    async fn ask(&self, holding: &Holding<'_>) -> Result<Standing, LedgerError> {
        let unavailable =
            |error: &dyn std::error::Error| LedgerError::Unavailable(error.to_string());
        let first = self.client().await.map_err(|error| unavailable(&error))?;
        match read(&first, holding).await {
            // It was open for long and may have broken since it was last used.
            Err(error) if error.as_db_error().is_none() || first.is_closed() => {
                self.give_up(&first).await;
                let second = self.client().await.map_err(|error| unavailable(&error))?;
                read(&second, holding)
                    .await
                    .map_err(|error| unavailable(&error))
            }
            answer => answer.map_err(|error| unavailable(&error)),
        }
    }

    async fn client(&self) -> Result<Arc<Client>, crate::DatabaseError> {
        let mut slot = self.client.lock().await;
        match &*slot {
            Some(client) if !client.is_closed() => Ok(Arc::clone(client)),
            _ => {
                let client = Arc::new(crate::postgres::connect(&self.url).await?);
                *slot = Some(Arc::clone(&client));
                Ok(client)
            }
        }
    }

    async fn give_up(&self, broken: &Arc<Client>) {
        let mut slot = self.client.lock().await;
        if slot
            .as_ref()
            .is_some_and(|client| Arc::ptr_eq(client, broken))
        {
            *slot = None;
        }
    }
}

async fn read(client: &Client, holding: &Holding<'_>) -> Result<Standing, tokio_postgres::Error> {
    let (lease, org, agent) = (
        holding.lease.as_str(),
        holding.org.as_str(),
        holding.agent.as_str(),
    );
    let grant = holding.grant.map(GrantId::as_str);
    let blocks: Vec<&[u8]> = holding
        .revocation_ids
        .iter()
        .map(|block| &block.as_bytes()[..])
        .collect();
    let values: [(&(dyn ToSql + Sync), Type); 5] = [
        (&lease, Type::TEXT),
        (&org, Type::TEXT),
        (&agent, Type::TEXT),
        (&grant, Type::TEXT),
        (&blocks, Type::BYTEA_ARRAY),
    ];
    let Some(row) = client.query_typed_opt(STANDING, &values).await? else {
        return Ok(Standing::Unknown);
    };
    let (is_revoked, is_active, is_granted): (bool, bool, bool) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    Ok(if is_revoked {
        Standing::Revoked
    } else if !is_active {
        Standing::AgentInactive
    } else if !is_granted {
        Standing::GrantRevoked
    } else {
        Standing::Good
    })
}

const STANDING: &str = "SELECT l.revoked_at IS NOT NULL OR EXISTS (SELECT 1 FROM revoked_blocks b \
        WHERE b.revocation_id = ANY ($5) AND b.org_id = l.org_id), \
    a.is_active = 1 AND a.deleted_at IS NULL, \
    $4 IS NULL OR EXISTS (SELECT 1 FROM grants g \
        WHERE g.id = $4 AND g.org_id = l.org_id AND g.revoked_at IS NULL) \
    FROM leases l JOIN agents a ON a.id = l.agent_id \
    WHERE l.id = $1 AND l.org_id = $2 AND l.agent_id = $3";
