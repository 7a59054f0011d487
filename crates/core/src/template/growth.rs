//! The filters whose output an event could make longer than anything that went in: `replace` and `join`. All that they
//! make in one rendering is counted, also inside `map`, and over a bound the rendering fails: an allocation that cannot
//! be had ends the whole process, and nothing can catch that.

use std::borrow::Cow;
use std::cell::Cell;

use minijinja::{Error, ErrorKind, Value as Jinja};

/// Bytes that the filters of one rendering may make in all.
const GROWTH_BYTES_MAX: usize = 8 << 20;

thread_local! {
    static GROWN: Cell<usize> = const { Cell::new(0) };
}

/// A rendering begins on this thread.
pub(super) fn begin() {
    GROWN.set(0);
}

fn grow(bytes: usize) -> Result<(), Error> {
    let grown = GROWN.get().saturating_add(bytes);
    GROWN.set(grown);
    if grown > GROWTH_BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidOperation, "the filters make too long a text of this event"));
    }
    Ok(())
}

/// Every `from` becomes `to`.
pub(super) fn replace(text: &Jinja, from: &str, to: &str) -> Result<String, Error> {
    let text = plain(text);
    let times = text.matches(from).count();
    grow(text.len().saturating_add(times.saturating_mul(to.len())))?;
    Ok(text.replace(from, to))
}

/// The items of a list in one text, with `between` between them.
pub(super) fn join(list: &Jinja, between: Option<&str>) -> Result<String, Error> {
    let between = between.unwrap_or_default();
    let mut text = String::new();
    for (n, item) in list.try_iter()?.enumerate() {
        let before = text.len();
        if n > 0 {
            grow(between.len())?;
            text.push_str(between);
        }
        text.push_str(&plain(&item));
        grow(text.len() - before)?;
    }
    Ok(text)
}

/// A text as it is, anything else as it prints.
fn plain(value: &Jinja) -> Cow<'_, str> {
    value.as_str().map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed)
}
