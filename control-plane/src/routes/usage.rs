//! What an organisation has and asked for, and how much of it there may be. The operator says how much; nobody here can.

pub(crate) mod billing;
pub(crate) mod get;

use serde::Serialize;
use store::Standing;
use utoipa::ToSchema;

use crate::meter::percent;

/// How much of something is used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UseLevel {
    used: u64,
    /// Null for any number.
    limit: Option<u64>,
    /// Of the limit, a whole number; null without one.
    percent: Option<u64>,
}

impl UseLevel {
    fn new(used: u64, limit: Option<u64>) -> Self {
        Self {
            used,
            limit,
            percent: limit.map(|limit| percent(used, limit)),
        }
    }
}

impl From<Standing> for UseLevel {
    fn from(Standing { used, limit }: Standing) -> Self {
        Self::new(used, limit)
    }
}
