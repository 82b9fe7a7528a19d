//! `GET /v1/audit/tail`

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use leases::id::OrgId;
use store::EventFilter;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::EventQuery;
use crate::AppState;
use crate::auth::{self, Person};
use crate::error::ApiError;
use crate::extract::Params;
use crate::people::address_rules;
use crate::problem::{Code, Problem};
use crate::server::Stopping;

/// How many may follow at once.
pub(crate) const MAX_TAILS: usize = 64;
/// Between two looks at the trail, which are also looks at the caller's credential.
const LOOK: Duration = Duration::from_millis(500);
const FULL_FOR: Duration = Duration::from_secs(10);

/// Follows the trail as server-sent events: each event as JSON in `data`, from now on, or from behind the `id` that
/// `Last-Event-ID` or `cursor` names. Ends with the credential that opened it.
#[utoipa::path(get, path = "/v1/audit/tail", tag = "audit", operation_id = "tailAudit",
    params(EventQuery, ("Last-Event-ID" = Option<String>, Header, description = "The `id` of the last event seen")),
    responses((status = 200, body = String, content_type = "text/event-stream"), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    stopping: Option<Extension<Stopping>>,
    headers: HeaderMap,
    Params(query): Params<EventQuery>,
) -> Result<Response, ApiError> {
    let (filter, page) = query.split()?;
    let Ok(permit) = Arc::clone(&state.tails).try_acquire_owned() else {
        let detail = format!(
            "{MAX_TAILS} others follow the trail already; ask again later, or read GET /v1/audit/events"
        );
        return Err(ApiError::new(Code::RateLimited, detail).retry_after(FULL_FOR));
    };
    let seen = headers.get("last-event-id").map(|id| id.to_str());
    let seen = seen.transpose().map_err(|_| {
        ApiError::invalid(
            "Last-Event-ID",
            "is not one of this feed's ids; leave it out to begin with what comes next",
        )
    })?;
    let begun = state
        .store
        .audit()
        .after(&person.org, &filter, seen.or(page.cursor.as_deref()))
        .await?;
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tail = Tail {
        state,
        org: person.org,
        client: person.actor.client_ip,
        filter,
        headers,
        stopping: stopping.map(|Extension(stopping)| stopping),
        looks,
        place: String::new(),
        ready: VecDeque::new(),
        _permit: permit,
    };
    tail.take(begun);
    if tail.ready.is_empty() {
        // A place without an event: whoever breaks off before the first one goes on from here.
        tail.ready.push_back(Message::default().id(&tail.place));
    }
    let messages = stream::unfold(tail, |mut tail| async move {
        let next = tail.next().await?;
        Some((Ok::<_, Infallible>(next), tail))
    });
    Ok(Sse::new(messages)
        .keep_alive(KeepAlive::default())
        .into_response())
}

struct Tail {
    state: AppState,
    org: OrgId,
    client: Option<IpAddr>,
    filter: EventFilter,
    /// With the caller's credential, which is asked for again at every look.
    headers: HeaderMap,
    stopping: Option<Stopping>,
    looks: Interval,
    place: String,
    ready: VecDeque<Message>,
    _permit: OwnedSemaphorePermit,
}

impl Tail {
    /// `None` ends the feed; its reader comes back and says where it was.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            let stopped = async {
                match &mut self.stopping {
                    Some(stopping) => stopping.begun().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.looks.tick() => {}
                () = stopped => return None,
            }
            if !self.is_let_in().await.unwrap_or(false) {
                return None;
            }
            let found = self
                .state
                .store
                .audit()
                .after(&self.org, &self.filter, Some(&self.place))
                .await;
            match found {
                Ok(found) => self.take(found),
                Err(error) => {
                    tracing::warn!(error = %error, "the trail could not be read for one who follows it");
                    return None;
                }
            }
        }
    }

    /// Whether whoever opened the feed could open it now.
    async fn is_let_in(&self) -> Result<bool, ApiError> {
        address_rules::check(&self.state, &self.org, self.client).await?;
        auth::is_person(&self.state, &self.headers).await
    }

    /// Events that were found together have one place behind them, which comes with the last one.
    fn take(&mut self, found: store::Followed) {
        let last = found.events.len().saturating_sub(1);
        for (index, event) in found.events.iter().enumerate() {
            let Ok(text) = serde_json::to_string(event) else {
                continue;
            };
            let message = Message::default().data(text);
            self.ready.push_back(if index == last {
                message.id(&found.place)
            } else {
                message
            });
        }
        self.place = found.place;
    }
}
