//! `GET /v1/usage`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use time::{Month, OffsetDateTime, UtcOffset};
use utoipa::ToSchema;

use super::UseLevel;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::timestamp::Timestamp;

/// What the caller's organisation has and asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Requests of this month, in UTC: calls of this API by somebody who is known, and uses of leases. Those of other nodes are
    /// known to about ten seconds.
    requests: UseLevel,
    /// When the count begins anew.
    requests_reset_at: Timestamp,
    /// Vaults that somebody made.
    vaults: UseLevel,
    /// Secrets that are not deleted, entries of secret sets among them.
    secrets: UseLevel,
    agents: UseLevel,
}

/// Shows what the caller's organisation has and asked for, and how much of it there may be.
#[utoipa::path(get, path = "/v1/usage", tag = "usage", operation_id = "getUsage",
    responses((status = 200, body = Usage)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
) -> Result<Json<Usage>, ApiError> {
    let quotas = state.store.quotas();
    let (quota, held) = (
        quotas.of(&person.org).await?,
        quotas.holdings(&person.org).await?,
    );
    let standing = state.store.requests().standing(&person.org).await?;
    Ok(Json(Usage {
        requests: standing.into(),
        requests_reset_at: next_month(state.clock.now()).into(),
        vaults: UseLevel::new(held.vaults, quota.vaults),
        secrets: UseLevel::new(held.secrets, quota.secrets),
        agents: UseLevel::new(held.agents, quota.agents),
    }))
}

/// The first of the next month, in UTC.
fn next_month(now: OffsetDateTime) -> OffsetDateTime {
    let today = now.to_offset(UtcOffset::UTC).date();
    let year = today.year() + i32::from(today.month() == Month::December);
    let first = today
        .replace_day(1)
        .and_then(|first| first.replace_month(today.month().next()))
        .and_then(|first| first.replace_year(year));
    first.map_or(now, |first| first.midnight().assume_utc())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_month_ends_where_the_next_begins() {
        for (now, expected) in [
            (
                datetime!(2026-11-22 07:00 UTC),
                datetime!(2026-12-01 00:00 UTC),
            ),
            (
                datetime!(2026-12-31 23:59 UTC),
                datetime!(2027-01-01 00:00 UTC),
            ),
            (
                datetime!(2028-01-31 12:00 UTC),
                datetime!(2028-02-01 00:00 UTC),
            ),
            (
                datetime!(2026-12-01 01:00 +2),
                datetime!(2026-12-01 00:00 UTC),
            ),
        ] {
            assert_eq!(next_month(now), expected);
        }
    }
}
