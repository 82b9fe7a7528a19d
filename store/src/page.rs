//! Lists in pages: a bounded number of items and an opaque place to go on from.

use crate::StoreError;

/// The most items one page may hold.
pub const MAX_LIMIT: u32 = 200;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most `limit` items. A filtered list may give fewer although more follow.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end of the list.
    pub next_cursor: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// How many items, 1 to 200; values outside are brought inside.
    pub limit: u32,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self {
            limit: 50,
            cursor: None,
        }
    }
}

impl PageRequest {
    /// The limit, brought inside its bounds.
    pub(crate) fn bounded_limit(&self) -> i64 {
        i64::from(self.limit.clamp(1, MAX_LIMIT))
    }

    /// The id after which the page begins; ids sort by time of creation.
    pub(crate) fn after_id(&self) -> Result<&str, StoreError> {
        match self.cursor.as_deref() {
            None => Ok(""),
            Some(cursor)
                if cursor.len() <= 64
                    && cursor
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
            {
                Ok(cursor)
            }
            Some(_) => Err(StoreError::BadCursor),
        }
    }
}

impl<T> Page<T> {
    /// A page from up to `limit + 1` items in order of their ids.
    pub(crate) fn from_overfull(mut items: Vec<T>, limit: i64, id: impl Fn(&T) -> &str) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let next_cursor = (items.len() > limit).then(|| {
            items.truncate(limit);
            items.last().map(|last| id(last).to_owned())
        });
        Self {
            items,
            next_cursor: next_cursor.flatten(),
        }
    }
}
