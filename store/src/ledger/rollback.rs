//! A rollback that a start finds: streams that are not what their signed heads say, and the records that tell of it.

use ::leases::id::EventId;

use crate::Restored;
use crate::chain::{Head, Heads, Link};
use crate::epoch::ACTION;
use crate::event::{Draft, rfc3339};
use crate::timekeeper::at;

/// Streams of this node that the database does not hold as they were signed.
#[derive(Debug)]
pub(super) struct Rollback {
    losses: Vec<Loss>,
}

/// One such stream.
#[derive(Debug)]
pub(super) struct Loss {
    /// Its name.
    pub(super) stream: String,
    /// Where its records end in the database.
    pub(super) found: u64,
    /// Its signed head; `None` where every signed head is gone.
    pub(super) signed: Option<u64>,
}

/// A record of the epoch, linked to the head of its stream.
#[derive(Debug)]
pub(super) struct EpochRecord {
    pub(super) position: i64,
    pub(super) org: String,
    pub(super) prev: Link,
    pub(super) link: Link,
    pub(super) body: String,
}

/// An epoch that has begun.
#[derive(Debug)]
pub(super) struct Began {
    pub(super) restored: Restored,
    /// How many this node has begun by now.
    pub(super) epochs: u64,
}

impl Rollback {
    /// `None` if nothing was lost.
    pub(super) fn of(losses: Vec<Loss>) -> Option<Self> {
        (!losses.is_empty()).then_some(Self { losses })
    }

    /// One record for each organisation in each stream that lost some. It follows the signed head and not the last
    /// record in the database, so the gap stays, and with it the hash that the lost records have to lead to. The stream
    /// then ends behind its signed head, and the next start finds nothing amiss.
    pub(super) fn records(
        &self,
        node: &str,
        heads: &Heads,
        mut orgs: Vec<String>,
        now: i64,
    ) -> Vec<EpochRecord> {
        if orgs.is_empty() {
            // A database from before its first organisation: the stream has to go on all the same.
            orgs.push(String::new());
        }
        let mut records = Vec::new();
        for loss in &self.losses {
            let head = heads
                .each()
                .into_iter()
                .find(|head| *head.stream.name == *loss.stream);
            let Some(head) = head else { continue };
            let mut link = head.get();
            for org in &orgs {
                let record = loss.record(node, head, link, org, now);
                link = record.link;
                records.push(record);
            }
        }
        records
    }

    /// Says in the log what happened and what to do.
    pub(super) fn tell(&self, restored: &Restored) {
        let mut restored_to = String::from("before its first record");
        if let Some(time) = restored.restored_to {
            rfc3339(&mut restored_to, crate::timekeeper::millis(time));
        }
        for loss in &self.losses {
            tracing::error!(
                stream = loss.stream,
                found = loss.found,
                signed = loss.signed,
                "the audit stream is not the one whose head was signed"
            );
        }
        tracing::error!(
            restored_to,
            ended_leases = restored.ended_leases,
            "the database was put back to an earlier state: every lease was revoked; make again what was changed \
             since then, above all revocations of agents, grants and keys; `claviger audit verify` names the lost records"
        );
    }
}

impl Loss {
    fn record(&self, node: &str, head: &Head, prev: Link, org: &str, now: i64) -> EpochRecord {
        let id = EventId::new(at(now));
        let mut created_at = String::new();
        rfc3339(&mut created_at, now);
        let draft = Draft {
            id: id.as_str(),
            stream: &head.stream.name,
            seq: prev.seq + 1,
            created_at: &created_at,
            org_id: org,
            action: ACTION,
            actor_type: crate::ActorKind::System.as_str(),
            actor_id: node,
            found_seq: Some(self.found),
            signed_seq: self.signed,
            ..Draft::default()
        };
        let mut body = String::new();
        draft.write(&mut body);
        let link = prev.next(&body);
        EpochRecord {
            position: head.stream.position(link.seq),
            org: org.to_owned(),
            prev,
            link,
            body,
        }
    }
}

/// Moves the heads to the last records that were committed.
pub(super) fn settle(heads: &Heads, records: &[EpochRecord]) {
    for head in heads.each() {
        let of_stream = records
            .iter()
            .rfind(|record| head.stream.holds(record.position));
        if let Some(last) = of_stream {
            head.set(last.link);
        }
    }
}
