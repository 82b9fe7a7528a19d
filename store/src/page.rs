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
            Some(cursor) if is_id(cursor) => Ok(cursor),
            Some(_) => Err(StoreError::BadCursor),
        }
    }
}

/// Whether a text has the shape of an id: a word, `_`, and a ULID. What has not would sort before or behind every id, and the
/// page be the first or an empty one.
fn is_id(text: &str) -> bool {
    text.split_once('_').is_some_and(|(kind, ulid)| {
        !kind.is_empty()
            && kind.len() <= 8
            && kind.bytes().all(|byte| byte.is_ascii_lowercase())
            && ulid.len() == ulid::ULID_LEN
            && ulid::Ulid::from_string(ulid).is_ok()
    })
}

impl<T> Page<T> {
    /// One page of two that go on from one place and have one limit.
    #[must_use]
    pub fn merge(self, other: Self, request: &PageRequest, id: impl Fn(&T) -> &str) -> Self {
        let has_more = self.next_cursor.is_some() || other.next_cursor.is_some();
        let mut items = self.items;
        items.extend(other.items);
        items.sort_by(|one, another| id(one).cmp(id(another)));
        let page = Self::from_overfull(items, request.bounded_limit(), &id);
        // A page that has more is full, so there is a last item.
        let last = page.items.last().filter(|_| has_more);
        let last = last.map(|last| id(last).to_owned());
        Self {
            next_cursor: page.next_cursor.or(last),
            items: page.items,
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_an_id_or_nothing() {
        assert!(is_id("agt_01ARZ3NDEKTSV4RRFFQ69G5FAV"));
        for text in [
            "",
            "x",
            "eyJhIjoxfQ",
            "agt_",
            "agt_01ARZ3NDEKTSV4RRFFQ69G5FA",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "_01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "agt_../../../../../../../../..",
        ] {
            assert!(!is_id(text), "{text}");
        }
    }

    /// Walks two lists together.
    fn walk(one: &[&'static str], other: &[&'static str], limit: u32) -> Vec<Vec<&'static str>> {
        let mut request = PageRequest {
            limit,
            cursor: None,
        };
        let mut pages = Vec::new();
        loop {
            let page = |list: &[&'static str]| {
                let after = request.cursor.as_deref().unwrap_or_default();
                let rest = list.iter().copied().filter(|id| *id > after);
                let rest = rest.take(limit as usize + 1).collect();
                Page::from_overfull(rest, request.bounded_limit(), |id: &&'static str| id)
            };
            let merged = page(one).merge(page(other), &request, |id| id);
            pages.push(merged.items);
            match merged.next_cursor {
                None => return pages,
                cursor => request.cursor = cursor,
            }
        }
    }

    #[test]
    fn two_lists_are_paged_as_one() {
        let (odd, even) = (["a", "c", "e"], ["b", "d", "f"]);
        let two: [&[&str]; 3] = [&["a", "b"], &["c", "d"], &["e", "f"]];
        assert_eq!(walk(&odd, &even, 2), two);
        assert_eq!(walk(&even, &odd, 2), two);
        assert_eq!(walk(&odd, &even, 6), [["a", "b", "c", "d", "e", "f"]]);
        assert_eq!(walk(&["a", "b", "c"], &[], 2), [vec!["a", "b"], vec!["c"]]);
        assert_eq!(walk(&[], &["a", "b"], 2), [["a", "b"]]);
        assert_eq!(walk(&[], &[], 2), [Vec::<&str>::new()]);
    }
}
