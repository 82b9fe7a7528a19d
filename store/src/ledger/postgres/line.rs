//! The ledger's connection, and its right to write the stream.

use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::calls::{self, Answer, CallError, Decided, Noted, Pen, Resumed};
use super::epoch::{self, Owner};
use super::rows::FreshRows;
use crate::chain::{Heads, Link, Stream};
use crate::ledger::book::Wanted;
use crate::ledger::docket::Tally;
use crate::ledger::rollback::{Began, Loss, Rollback};
use crate::location::PostgresUrl;

/// The hashes at both heads, and where the ledger's stream ends.
const ENDS: &str =
    "SELECT audit_stream_link($1, $2), audit_stream_link($3, $4), audit_stream_end($3)";

/// The way to the database.
pub(super) struct Line {
    pub(super) url: PostgresUrl,
    pub(super) node: String,
    pub(super) run: Arc<str>,
    pub(super) stream: Stream,
    /// Names this connection to the stream: what an earlier one has sent can no longer be written.
    pub(super) writer: String,
    pub(super) connections: u64,
    pub(super) client: Option<Client>,
}

impl Line {
    pub(super) fn is_up(&self) -> bool {
        self.client
            .as_ref()
            .is_some_and(|client| !client.is_closed())
    }

    /// Gives the connection up, with whatever is under way on it.
    pub(super) fn drop(&mut self) {
        self.client = None;
    }

    fn client(&self) -> Result<&Client, CallError> {
        self.client.as_ref().ok_or_else(|| {
            let gone = std::io::Error::from(std::io::ErrorKind::NotConnected);
            CallError::Connect(gone.into())
        })
    }

    fn pen(&self) -> Pen<'_> {
        Pen {
            node: &self.node,
            run: &self.run,
            stream: self.stream.number,
            writer: &self.writer,
        }
    }

    /// Connects anew and takes up the stream; `None` if another process has it. Tells whether the record at `link` is
    /// there, which from then on cannot change.
    pub(super) async fn resume(&mut self, link: Link) -> Result<Option<Resumed>, CallError> {
        self.drop();
        let client = crate::postgres::connect(&self.url).await?;
        self.connections += 1;
        self.writer = format!("{}.{}", self.run, self.connections);
        let resumed = calls::resume(&client, &self.pen(), link).await?;
        self.client = Some(client);
        Ok(resumed)
    }

    /// Whether the last records that this process committed are there no more; the ledger's stream then goes on behind
    /// its head, with what tells of it.
    pub(super) async fn rollback(&self, heads: &Heads) -> Result<Option<Rollback>, CallError> {
        let [control, ledger] = heads.each().map(|head| (head.stream.number, head.get()));
        let (control_seq, ledger_seq) = (control.1.seq.cast_signed(), ledger.1.seq.cast_signed());
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
            (&control.0, Type::INT8),
            (&control_seq, Type::INT8),
            (&ledger.0, Type::INT8),
            (&ledger_seq, Type::INT8),
        ];
        let row = self.client()?.query_typed_one(ENDS, &values).await?;
        let is_there = |link: Link, column: usize| {
            let stored: Option<&[u8]> = row.try_get(column)?;
            Ok::<_, CallError>(link.seq == 0 || stored == Some(&link.hash[..]))
        };
        if is_there(control.1, 0)? && is_there(ledger.1, 1)? {
            return Ok(None);
        }
        let end: Option<i64> = row.try_get(2)?;
        Ok(Rollback::of(vec![Loss {
            stream: heads.ledger.stream.name.to_string(),
            found: end.map_or(0, Stream::seq),
            signed: Some(ledger.1.seq),
        }]))
    }

    /// Ends every lease and tells of it.
    pub(super) async fn begin_epoch(
        &self,
        heads: &Heads,
        rollback: &Rollback,
        now: i64,
    ) -> Result<Began, CallError> {
        let owner = Owner {
            node: &self.node,
            run: &self.run,
            writer: &self.writer,
        };
        epoch::begin(self.client()?, owner, heads, rollback, now).await
    }

    pub(super) async fn rows(&self, wanted: &Wanted) -> Result<FreshRows, CallError> {
        calls::rows(self.client()?, wanted).await
    }

    pub(super) async fn commit(&self, decided: &Decided<'_>) -> Result<Answer, CallError> {
        calls::commit(self.client()?, &self.pen(), decided).await
    }

    pub(super) async fn note(
        &self,
        now: i64,
        open_from: u64,
        counts: &Tally,
    ) -> Result<Option<Noted>, CallError> {
        calls::note(self.client()?, &self.pen(), now, open_from, counts).await
    }

    /// Where the stream's last record lies.
    pub(super) async fn last_position(&self) -> Result<Option<i64>, CallError> {
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 1] =
            [(&self.stream.number, Type::INT8)];
        let row = self
            .client()?
            .query_typed_one("SELECT audit_stream_end($1)", &values)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Notes that the node ended in order.
    pub(super) async fn end(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        let values: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&self.node, Type::TEXT), (&&*self.run, Type::TEXT)];
        let ended = client.query_typed("SELECT node_end($1, $2)", &values);
        match tokio::time::timeout(super::BATCH_AWAY, ended).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the ledger could not note that it ended in order");
            }
            Err(_) => tracing::warn!("the ledger could not note in time that it ended in order"),
        }
    }
}
