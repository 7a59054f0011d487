//! Lists: `{"items", "next", "prev"}` with opaque cursors. A cursor is a direction and a place, so a page stays where it
//! is while new things come in above it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use doorbell_core::ports::{Page, PageFrom};
use serde::Serialize;
use utoipa::ToSchema;

/// Part of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The things, newest first (agents, sources and triggers by name).
    pub items: Vec<T>,
    /// Give this as `cursor` for what comes after; null at the end.
    pub next: Option<String>,
    /// Give this as `cursor` for what comes before; null at the start.
    pub prev: Option<String>,
}

impl<T> List<T> {
    /// A page of the store, each item shown by `show`.
    pub(crate) fn of<S>(page: Page<S>, show: impl FnMut(S) -> T) -> Self {
        Self {
            items: page.items.into_iter().map(show).collect(),
            next: page.next.map(|place| cursor(b'b', place)),
            prev: page.prev.map(|place| cursor(b'a', place)),
        }
    }

    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self { items: Vec::new(), next: None, prev: None }
    }

    /// Part of what the configuration holds, in memory and in a fixed order; a place is an index.
    pub(crate) fn cut(all: Vec<T>, request: doorbell_core::ports::PageRequest) -> Self {
        let index = |place: u64| usize::try_from(place).unwrap_or(usize::MAX).min(all.len());
        let (from, to) = match request.from {
            PageFrom::Start => (0, request.limit.min(all.len())),
            PageFrom::Before(place) => (index(place), index(place).saturating_add(request.limit).min(all.len())),
            PageFrom::After(place) => (index(place).saturating_sub(request.limit), index(place)),
        };
        let (next, prev) = (to < all.len(), from > 0);
        Self {
            items: all.into_iter().skip(from).take(to - from).collect(),
            next: next.then(|| cursor(b'b', to as u64)),
            prev: prev.then(|| cursor(b'a', from as u64)),
        }
    }
}

fn cursor(direction: u8, place: u64) -> String {
    let mut bytes = [direction; 9];
    bytes[1..].copy_from_slice(&place.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What a cursor says; none if this server did not make it.
pub(super) fn read_cursor(text: &str) -> Option<PageFrom> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let [direction, place @ ..] = <[u8; 9]>::try_from(bytes).ok()?;
    let place = u64::from_be_bytes(place);
    // Stores count in 63 bits.
    if place > i64::MAX.unsigned_abs() {
        return None;
    }
    match direction {
        b'b' => Some(PageFrom::Before(place)),
        b'a' => Some(PageFrom::After(place)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_core::ports::PageRequest;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        assert_eq!(read_cursor(&cursor(b'b', 7)), Some(PageFrom::Before(7)));
        assert_eq!(read_cursor(&cursor(b'a', 0)), Some(PageFrom::After(0)));
        for bad in ["", "7", "AAAA", &cursor(b'c', 7), &cursor(b'a', u64::MAX), "b=======", &cursor(b'a', 1)[1..]] {
            assert_eq!(read_cursor(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn only_what_was_given_out_is_read(text in "\\PC{0,20}", place in 0..=i64::MAX.unsigned_abs()) {
            if let Some(from) = read_cursor(&text) {
                let again = match from {
                    PageFrom::Before(place) => cursor(b'b', place),
                    PageFrom::After(place) => cursor(b'a', place),
                    PageFrom::Start => String::new(),
                };
                proptest::prop_assert_eq!(again, text);
            }
            proptest::prop_assert_eq!(read_cursor(&cursor(b'b', place)), Some(PageFrom::Before(place)));
        }
    }

    #[test]
    fn cursors_walk_a_list_in_memory_to_its_end_and_back() {
        let all: Vec<u32> = (0..7).collect();
        let page = |from| List::cut(all.clone(), PageRequest { limit: 3, from });
        let (mut seen, mut from) = (Vec::new(), PageFrom::Start);
        let last = loop {
            let page = page(from);
            seen.extend(page.items);
            match page.next {
                Some(next) => from = read_cursor(&next).unwrap(),
                None => break page.prev,
            }
        };
        assert_eq!(seen, all);
        let before = page(read_cursor(&last.unwrap()).unwrap());
        assert_eq!(before.items, [3, 4, 5]);
        assert!(page(PageFrom::Before(99)).items.is_empty());
    }
}
