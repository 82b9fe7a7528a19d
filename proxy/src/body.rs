//! What is asked of a request's body: to be read before its head leaves, for a person's approval, for a signature over its hash
//! or for a field that is set in it, or to be signed again in AWS's own chunks as it passes.
//!
//! Pingora replays a body that was read early only from its own small retry buffer. The buffer is turned on
//! for the last part alone, and the body filter puts the whole body in that part's place.

mod fill;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use pingora::proxy::Session;
use providers::inject::sigv4::{
    AgentScope, LONGEST_SIGNED_CHUNK, Payload, PayloadHash, SigV4Refusal, StreamedBody,
    StreamedError,
};
use providers::inject::{BodyNeed, SigV4};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::aws::{self, refused};
use crate::context::RequestContext;
use crate::normalize::Target;
use crate::patience::too_slow;
use crate::refuse::{Code, Refusal};
use crate::stream::chunk_error;

/// What Pingora's retry buffer holds.
const REPLAYED: usize = 64 * 1024;

/// The most bytes of a body that a person approves.
const APPROVED: usize = 1024 * 1024;

/// How long a body that is to be hashed may take.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// The memory that bodies read to be hashed may take.
#[derive(Debug)]
pub(crate) struct HeldBodies {
    one: usize,
    room: Arc<Semaphore>,
}

impl HeldBodies {
    /// At most `one` byte count for a body and `all` for all of them.
    pub(crate) fn new(one: usize, all: usize) -> Self {
        Self {
            one,
            room: Arc::new(Semaphore::new(all)),
        }
    }

    /// Room for the body of a request, whose length is what its head says.
    fn take(&self, session: &Session, bound: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let length = content_length(session).unwrap_or(bound.min(REPLAYED));
        self.take_bytes(length.min(bound))
    }

    fn take_bytes(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.room)
            .try_acquire_many_owned(bytes)
            .map_err(|_| Refusal {
                retry_after: Some(Duration::from_secs(1)),
                ..Refusal::new(
                    Code::Overloaded,
                    "too many bodies are being hashed at once; try again in a second",
                )
            })
    }
}

/// A body that was read before anything was decided, and the room that it takes. There is none where nothing was sent.
#[derive(Debug, Default)]
pub(crate) struct Held {
    body: Option<Bytes>,
    room: Option<OwnedSemaphorePermit>,
}

/// What of a body an approval is bound to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digested {
    pub(crate) sha256: [u8; 32],
    pub(crate) bytes: u64,
}

impl Held {
    #[cfg(test)]
    pub(crate) fn of(body: Bytes) -> Self {
        Self {
            body: Some(body),
            room: None,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    pub(crate) fn digest(&self) -> Digested {
        let body = self.bytes();
        Digested {
            sha256: Sha256::digest(body).into(),
            bytes: body.len() as u64,
        }
    }

    pub(crate) fn into_parts(self) -> (Option<Bytes>, Option<OwnedSemaphorePermit>) {
        (self.body, self.room)
    }
}

/// Reads the body of a request that asks for approval: before the ledger is asked, for it is a part of what is approved.
pub(crate) async fn hold_for_approval(
    bounds: &HeldBodies,
    session: &mut Session,
) -> Result<Held, Refusal> {
    let too_large = || {
        Refusal::new(
            Code::BodyTooLarge,
            format!(
                "a person approves this request with its body, which may have {APPROVED} bytes, or {REPLAYED} if its length is not \
                 declared; send a shorter one, or ask for a grant without approval"
            ),
        )
    };
    if session.is_upgrade_req() {
        return check_bare(session).map(|()| Held::default());
    }
    if session.is_body_empty() {
        return Ok(Held::default());
    }
    if content_length(session).is_some_and(|length| length > APPROVED) {
        return Err(too_large());
    }
    let room = bounds.take(session, APPROVED)?;
    let held = read_held(session, room, APPROVED).await;
    held.map_err(|refusal| match refusal.code {
        Code::BodyTooLarge => too_large(),
        _ => refusal,
    })
}

/// Reads a body before the use is recorded.
async fn read_held(
    session: &mut Session,
    room: OwnedSemaphorePermit,
    bound: usize,
) -> Result<Held, Refusal> {
    answer_expectation(session).await?;
    // It is answered once.
    session.req_header_mut().remove_header(&EXPECT);
    let body = tokio::time::timeout(READ_DEADLINE, read_body(session, bound))
        .await
        .map_err(|_| gone())??;
    Ok(Held {
        body: Some(body).filter(|body| !body.is_empty()),
        room: Some(room),
    })
}

/// Reads the body of a request that may spend of a budget, for it says how much. `None` where that is not told in time or needs too
/// much room: such a one is streamed, and taken to ask for much.
pub(crate) async fn hold_for_estimate(
    bounds: &HeldBodies,
    session: &mut Session,
) -> Result<Option<Held>, Refusal> {
    if session.is_upgrade_req() || session.is_body_empty() {
        return Ok(Some(Held::default()));
    }
    let length = content_length(session).filter(|length| *length <= bounds.one);
    let Some(Ok(room)) = length.map(|length| bounds.take_bytes(length)) else {
        return Ok(None);
    };
    read_held(session, room, bounds.one).await.map(Some)
}

/// Behind a handshake come the messages, so a body of its own could not be told from these.
fn check_bare(session: &Session) -> Result<(), Refusal> {
    let headers = &session.req_header().headers;
    let is_bare = !headers.contains_key(TRANSFER_ENCODING)
        && headers
            .get(CONTENT_LENGTH)
            .is_none_or(|length| length.as_bytes() == b"0");
    if is_bare {
        return Ok(());
    }
    Err(Refusal::new(
        Code::AmbiguousRequest,
        "a WebSocket handshake that a person approves has no body; send it without one",
    ))
}

/// The body and the room that it takes, of which both may be `held` already.
async fn whole_body(
    bounds: &HeldBodies,
    session: &mut Session,
    held: Held,
    bound: usize,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
    if let Some(body) = held.body {
        return if body.len() > bound {
            Err(too_large(bound))
        } else {
            Ok((body, held.room))
        };
    }
    if content_length(session).is_some_and(|length| length > bound) {
        return Err(too_large(bound));
    }
    answer_expectation(session).await?;
    let room = bounds.take(session, bound)?;
    let body = tokio::time::timeout(READ_DEADLINE, read_body(session, bound))
        .await
        .map_err(|_| gone())??;
    Ok((body, Some(room)))
}

/// Reads the agent's signature scope, and the body where its hash is signed, and decides on what is asked of AWS.
pub(crate) async fn hold_if_signed(
    bounds: &HeldBodies,
    session: &mut Session,
    ctx: &mut RequestContext,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let (Some(credential), Some(target), Some(permit)) =
        (&ctx.credential, &ctx.target, &ctx.permit)
    else {
        return Ok(());
    };
    let Some(sigv4) = credential.plan.sigv4() else {
        let has_body = ctx.held_body.is_some() || !session.is_body_empty();
        if has_body && fill::is_due(&credential.plan, target) {
            return fill::hold(bounds, session, ctx).await;
        }
        return answer_expectation(session).await;
    };
    let granted = &permit.binding().scope.aws;
    let scope = read_scope(sigv4, session, target)?;
    aws::allow_presigned(granted, &scope, now).map_err(|error| refused(&error))?;
    let bound = match credential.plan.reads_body() {
        BodyNeed::HashUpTo(bound) => bound.min(bounds.one),
        BodyNeed::None | BodyNeed::FillUpTo(_) => 0,
    };
    let allow = |session: &Session, body: &[u8]| {
        let head = session.req_header();
        aws::allow(granted, &scope, target, &head.method, &head.headers, body)
    };
    let reads = (scope.needs_body() || aws::reads_body(granted, &scope.service))
        && (ctx.held_body.is_some() || !session.is_body_empty());
    let payload = if reads {
        let held = Held {
            body: ctx.held_body.take(),
            room: ctx.held_room.take(),
        };
        let (body, room) = whole_body(bounds, session, held, bound).await?;
        allow(session, &body)?;
        let hash = Sha256::digest(&body).into();
        ctx.held_body = Some(body);
        ctx.held_room = room;
        PayloadHash::Sha256(hash)
    } else {
        allow(session, &[])?;
        if let Payload::Streamed(streamed) = &scope.payload
            && streamed.form.is_signed()
            && ctx.held_body.is_none()
        {
            let length = content_length(session).unwrap_or(LONGEST_SIGNED_CHUNK);
            ctx.held_room = Some(bounds.take_bytes(length.min(LONGEST_SIGNED_CHUNK))?);
        }
        answer_expectation(session).await?;
        PayloadHash::Empty
    };
    ctx.signing = Some((scope, payload));
    Ok(())
}

/// Passes a part of a streamed body, and behind its end the last chunk.
pub(crate) fn restream(
    streamed: &mut StreamedBody,
    part: Option<Bytes>,
    is_end: bool,
) -> Result<Bytes, Refusal> {
    let passed = streamed.push(&part.unwrap_or_default()).map_err(odd)?;
    if !is_end {
        return Ok(passed);
    }
    let last = streamed.finish().map_err(odd)?;
    Ok([passed, last].concat().into())
}

fn odd(error: StreamedError) -> Refusal {
    Refusal::new(
        Code::AmbiguousRequest,
        format!(
            "{error}; send the payload in AWS's chunks of at most 1 MiB as its head declares them"
        ),
    )
}

fn read_scope(sigv4: &SigV4, session: &Session, target: &Target) -> Result<AgentScope, Refusal> {
    let headers = &session.req_header().headers;
    let scope =
        AgentScope::read(headers, target.query.as_deref()).map_err(|error| refused(&error))?;
    sigv4
        .check(&scope, target.host.as_str())
        .map_err(|error| refused(&error))?;
    Ok(scope)
}

/// An agent that waits for `100 Continue` gets it from us: the use is recorded, so its body is wanted.
async fn answer_expectation(session: &mut Session) -> Result<(), Refusal> {
    let expects = session
        .req_header()
        .headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if expects {
        session
            .as_downstream_mut()
            .write_continue_response()
            .await
            .map_err(|_| gone())?;
    }
    Ok(())
}

fn content_length(session: &Session) -> Option<usize> {
    let value = session.req_header().headers.get(CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

async fn read_body(session: &mut Session, bound: usize) -> Result<Bytes, Refusal> {
    let length = content_length(session);
    if length.is_some_and(|length| length > bound) {
        return Err(too_large(bound));
    }
    // Without a length the last part cannot be told in advance, so the whole body must fit the buffer.
    let bound = if length.is_some() {
        bound
    } else {
        bound.min(REPLAYED)
    };
    let mut body = BytesMut::with_capacity(length.unwrap_or(0).min(bound));
    loop {
        let rest = length.map_or(0, |length| length.saturating_sub(body.len()));
        if rest <= REPLAYED {
            session.as_downstream_mut().enable_retry_buffering();
        }
        let Some(chunk) = session
            .as_downstream_mut()
            .read_request_body()
            .await
            .map_err(|error| {
                let slow = too_slow(&error).map(Refusal::from);
                let odd = || chunk_error(&error).map(Refusal::from);
                slow.or_else(odd).unwrap_or_else(gone)
            })?
        else {
            break;
        };
        body.extend_from_slice(&chunk);
        if body.len() > bound {
            return Err(too_large(bound));
        }
    }
    if !body.is_empty() && session.get_retry_buffer().is_none() {
        return Err(too_large(bound));
    }
    Ok(body.freeze())
}

/// The one Content-Type, if it is text.
fn content_type(session: &Session) -> Option<&str> {
    let mut fields = session.req_header().headers.get_all(CONTENT_TYPE).iter();
    let first = fields.next()?;
    first.to_str().ok().filter(|_| fields.next().is_none())
}

fn too_large(limit: usize) -> Refusal {
    Refusal::new(
        Code::BodyTooLarge,
        SigV4Refusal::BodyTooLarge { limit }.to_string(),
    )
}

fn gone() -> Refusal {
    Refusal::new(Code::AmbiguousRequest, "the body broke off before its end")
}
