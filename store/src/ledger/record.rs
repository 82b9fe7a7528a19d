//! The ledger's records: their text, ids and links. Where they go is the database's part.

use ::leases::id::{AgentId, LeaseId, UseId};
use ulid::Ulid;

use super::book::Opening;
use super::{Outcome, RecordedUse, Refused, RequestFacts, UseRefusal, UseRequest};
use crate::chain::{Link, Stream};
use crate::event::{Decision, Draft, rfc3339};
use crate::timekeeper::at;

/// Takes records in the order of the chain.
pub(super) trait Sink {
    /// Why it does not.
    type Error;

    /// Takes the next record.
    fn append(&mut self, record: &Record<'_>) -> Result<(), Self::Error>;
}

/// A record at the end of the chain: its text, and what columns copy of it.
pub(super) struct Record<'a> {
    pub(super) position: i64,
    pub(super) at: i64,
    pub(super) draft: &'a Draft<'a>,
    pub(super) prev_hash: &'a [u8; 32],
    pub(super) hash: &'a [u8; 32],
    pub(super) body: &'a str,
}

/// Makes records, in buffers that are used again and again.
pub(super) struct Writer {
    pub(super) link: Link,
    pub(super) now: i64,
    created_at: String,
    created_at_of: i64,
    body: String,
    id: String,
    ulid: Ulid,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            link: Link::START,
            now: 0,
            created_at: String::new(),
            created_at_of: i64::MIN,
            body: String::with_capacity(1_024),
            id: String::with_capacity(32),
            ulid: Ulid::nil(),
        }
    }

    /// Takes up the chain at `link`, for records made at `now`.
    pub(super) fn begin(&mut self, link: Link, now: i64) {
        self.link = link;
        self.now = now;
        if self.created_at_of != now {
            self.created_at_of = now;
            rfc3339(&mut self.created_at, now);
        }
    }

    pub(super) fn record_use<S: Sink>(
        &mut self,
        stream: &Stream,
        sink: &mut S,
        request: &UseRequest,
        opening: Opening,
    ) -> Result<RecordedUse, S::Error> {
        self.next_id();
        let use_id = UseId::parse(&format!("{}{}", UseId::PREFIX, &self.id[4..]))
            .expect("a ULID after the prefix is an id");
        let draft = Draft {
            action: "lease.use",
            secret_version: Some(opening.version),
            use_id: Some(use_id.as_str()),
            keys: &opening.keys,
            hold: opening.hold,
            ..use_draft(request)
        };
        self.link_up(stream, sink, &draft)?;
        Ok(RecordedUse {
            use_id,
            set: request.set.clone(),
            secret_set_version: opening.version,
            keys: opening.keys,
            at: at(self.now),
            hold: opening.hold,
        })
    }

    /// That a use used its approval up, if it had to.
    pub(super) fn record_approval<S: Sink>(
        &mut self,
        stream: &Stream,
        sink: &mut S,
        request: &UseRequest,
        recorded: &RecordedUse,
    ) -> Result<(), S::Error> {
        if request.approval.is_none() {
            return Ok(());
        }
        self.next_id();
        let draft = Draft {
            action: "approval.consume",
            use_id: Some(recorded.use_id.as_str()),
            keys: &[],
            ..use_draft(request)
        };
        self.link_up(stream, sink, &draft)
    }

    pub(super) fn record_use_refusal<S: Sink>(
        &mut self,
        stream: &Stream,
        sink: &mut S,
        request: &UseRequest,
        refusal: &UseRefusal,
    ) -> Result<(), S::Error> {
        self.next_id();
        let draft = Draft {
            action: "lease.refuse",
            decision: Decision::Deny,
            error: Some(refusal.code()),
            ..use_draft(request)
        };
        self.link_up(stream, sink, &draft)
    }

    pub(super) fn record_refusal<S: Sink>(
        &mut self,
        stream: &Stream,
        sink: &mut S,
        refused: &Refused,
    ) -> Result<(), S::Error> {
        self.next_id();
        let agent = refused.agent.as_ref().map(AgentId::as_str);
        let draft = Draft {
            action: "lease.refuse",
            decision: Decision::Deny,
            error: Some(&refused.error),
            org_id: refused.org.as_str(),
            actor_type: if agent.is_some() { "agent" } else { "system" },
            actor_id: agent.unwrap_or("injector"),
            agent_id: agent,
            lease_id: refused.lease.as_ref().map(LeaseId::as_str),
            grant_id: refused.grant.as_ref().map(AsRef::as_ref),
            secret_set_id: refused.set.as_ref().map(AsRef::as_ref),
            ..request_draft(&refused.request)
        };
        self.link_up(stream, sink, &draft)
    }

    pub(super) fn record_outcome<S: Sink>(
        &mut self,
        stream: &Stream,
        sink: &mut S,
        outcome: &Outcome,
    ) -> Result<(), S::Error> {
        self.next_id();
        let draft = Draft {
            action: "lease.outcome",
            error: outcome.error.as_deref(),
            org_id: outcome.org.as_str(),
            actor_type: "agent",
            actor_id: outcome.agent.as_str(),
            agent_id: Some(outcome.agent.as_str()),
            lease_id: Some(outcome.lease.as_str()),
            grant_id: Some(outcome.grant.as_str()),
            secret_set_id: Some(outcome.set.as_str()),
            use_id: Some(outcome.use_id.as_str()),
            request_id: Some(&outcome.request_id),
            address: outcome.address,
            status: outcome.status,
            bytes_up: Some(outcome.bytes_up),
            bytes_down: Some(outcome.bytes_down),
            duration_ms: Some(outcome.duration_ms),
            attempts: Some(outcome.attempts),
            tokens_in: outcome.spent.map(|spent| spent.tokens_in),
            tokens_out: outcome.spent.map(|spent| spent.tokens_out),
            usd_micros: outcome.spent.map(|spent| spent.usd_micros),
            reflections: Some(outcome.reflections).filter(|found| *found > 0),
            ..Draft::default()
        };
        self.link_up(stream, sink, &draft)
    }

    /// Puts the draft at the end of the chain.
    fn link_up<S: Sink>(
        &mut self,
        stream: &Stream,
        sink: &mut S,
        draft: &Draft<'_>,
    ) -> Result<(), S::Error> {
        let draft = Draft {
            id: &self.id,
            stream: &stream.name,
            seq: self.link.seq + 1,
            created_at: &self.created_at,
            ..*draft
        };
        draft.write(&mut self.body);
        let next = self.link.next(&self.body);
        sink.append(&Record {
            position: stream.position(next.seq),
            at: self.now,
            draft: &draft,
            prev_hash: &self.link.hash,
            hash: &next.hash,
            body: &self.body,
        })?;
        self.link = next;
        Ok(())
    }

    /// The next event's id: within a millisecond the one before plus one, so that ids sort by
    /// their place and the system is asked for random bits once a millisecond.
    fn next_id(&mut self) {
        let millis = u64::try_from(self.now).unwrap_or(0);
        self.ulid = if self.ulid.timestamp_ms() == millis {
            self.ulid.increment()
        } else {
            None
        }
        .unwrap_or_else(|| {
            let mut random = [0; 16];
            getrandom::fill(&mut random)
                .expect("the operating system has a source of random bytes");
            // The top bit stays clear: room to count up.
            Ulid::from_parts(millis, u128::from_be_bytes(random) >> 49)
        });
        self.id.clear();
        self.id.push_str("evt_");
        self.id
            .push_str(self.ulid.array_to_str(&mut [0; ulid::ULID_LEN]));
    }
}

fn use_draft(request: &UseRequest) -> Draft<'_> {
    Draft {
        org_id: request.org.as_str(),
        actor_type: "agent",
        actor_id: request.agent.as_str(),
        agent_id: Some(request.agent.as_str()),
        lease_id: Some(request.lease.as_str()),
        grant_id: Some(request.grant.as_str()),
        secret_set_id: Some(request.set.as_str()),
        keys: &request.keys,
        approval_id: request
            .approval
            .as_ref()
            .map(|approval| approval.id.as_str()),
        ..request_draft(&request.request)
    }
}

fn request_draft(request: &RequestFacts) -> Draft<'_> {
    // An export goes to no host.
    let is_sent = !request.host.is_empty();
    Draft {
        request_id: Some(&request.request_id),
        client_ip: Some(request.client_ip),
        method: Some(&request.method),
        scheme: is_sent.then_some(request.scheme),
        host: is_sent.then_some(&request.host),
        port: is_sent.then_some(request.port),
        address: request.address,
        path: Some(&request.path),
        ..Draft::default()
    }
}
