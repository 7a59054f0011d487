//! The filters that make texts. `replace` and `join` make one longer than anything that went in, and `map` can hand the
//! same long text of the event to any of them once for each element of a list (`map('default', data.t, true)`). So all
//! that they make in one rendering is counted, and over a bound the rendering fails: an allocation that cannot be had
//! ends the whole process, and nothing can catch that.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value as Jinja, filters};

/// Bytes that the filters of one rendering may make in all.
const GROWTH_BYTES_MAX: usize = 64 << 20;
/// About what an element of a list takes beside its text.
const ITEM_BYTES: usize = 48;

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

/// Counts a text that was just made; for filters whose text is about as long as what went in.
pub(super) fn made(text: impl Into<String>) -> Result<String, Error> {
    let text = text.into();
    grow(text.len())?;
    Ok(text)
}

/// The text with a first letter in upper case, and the others in lower.
pub(super) fn capitalize(text: Cow<'_, str>) -> Result<String, Error> {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    made(first + &letters.as_str().to_lowercase())
}

/// The text without blanks, or without `chars`, at both ends.
pub(super) fn trim(text: Cow<'_, str>, chars: Option<Cow<'_, str>>) -> Result<String, Error> {
    made(chars.map_or_else(|| text.trim(), |chars| text.trim_matches(|c| chars.contains(c))))
}

/// The parts of a text.
pub(super) fn split(text: &Jinja, by: Option<Arc<str>>, splits_max: Option<i64>) -> Result<Jinja, Error> {
    grow(text.as_str().map_or(0, str::len))?;
    parts(filters::split(text, by, splits_max)?)
}

/// The lines of a text.
pub(super) fn lines(text: &Jinja) -> Result<Jinja, Error> {
    grow(text.as_str().map_or(0, str::len))?;
    parts(filters::lines(text)?)
}

fn parts(list: Jinja) -> Result<Jinja, Error> {
    grow(list.len().unwrap_or(0).saturating_mul(ITEM_BYTES))?;
    Ok(list)
}

/// A value as a text.
pub(super) fn string(state: &State<'_, '_>, value: &Jinja) -> Result<Jinja, Error> {
    counted(filters::string(state, value)?)
}

/// A text or a list from its end to its beginning.
pub(super) fn reverse(value: &Jinja) -> Result<Jinja, Error> {
    counted(filters::reverse(value)?)
}

fn counted(value: Jinja) -> Result<Jinja, Error> {
    grow(value.as_str().map_or(0, str::len))?;
    Ok(value)
}

/// The sum of numbers. With a text to start from it would make one text of a whole list, over and over.
pub(super) fn sum(
    state: &State<'_, '_>,
    values: Jinja,
    attribute: Option<&str>,
    start: Option<Jinja>,
    named: Kwargs,
) -> Result<Jinja, Error> {
    let starts = [start.clone(), named.peek::<Option<Jinja>>("start")?];
    if starts.iter().flatten().any(|start| start.kind() != ValueKind::Number) {
        return Err(Error::new(ErrorKind::InvalidOperation, "a sum starts from a number"));
    }
    filters::sum(state, values, attribute, start, named)
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
