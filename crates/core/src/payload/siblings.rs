//! What stands beside the list of a batch: short values of the whole request (Meta's `object`), which each of its events
//! keeps, so that filters and agents know of them when the batch has been taken apart.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::members;
use super::{Unreadable, project};

/// How long names and values may be in sum: they are kept once for each event of the batch.
const BYTES_MAX: usize = 256;

/// The texts, numbers and truth values beside the list called `list` in the object that `text` is, in the order of their
/// names, for as long as there is room.
pub(super) fn of(text: &Bytes, list: &str) -> Result<Vec<(String, Bytes)>, Unreadable> {
    let members = members::of(text)?.unwrap_or_default();
    let is_scalar = |value: &Bytes| !matches!(value.first(), Some(b'{' | b'[' | b'n') | None);
    let mut room = BYTES_MAX;
    let beside = members.into_iter().filter(|(name, value)| name != list && is_scalar(value));
    Ok(beside
        .filter(|(name, value)| {
            let left = room.checked_sub(name.len() + value.len());
            room = left.unwrap_or(room);
            left.is_some()
        })
        .collect())
}

/// The object that `element` is, with those siblings that it has no member of its own for; none if there is nothing to add.
pub(super) fn joined(element: &Bytes, siblings: &[(String, Bytes)]) -> Result<Option<Bytes>, Unreadable> {
    let Some(own) = members::of(element)? else { return Ok(None) };
    let added: BTreeMap<&str, &Bytes> = siblings
        .iter()
        .filter(|(name, _)| !own.contains_key(name))
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let text = std::str::from_utf8(element).map_err(|e| Unreadable::NotUtf8 { offset: e.valid_up_to() })?;
    let (Some(inside), false) = (text.trim_start().strip_prefix('{'), added.is_empty()) else { return Ok(None) };
    let mut joined = Vec::with_capacity(element.len() + 2 * BYTES_MAX);
    for (name, value) in added {
        joined.push(if joined.is_empty() { b'{' } else { b',' });
        // A name may hold what has to be escaped.
        serde_json::to_writer(&mut joined, name).map_err(|e| project::unreadable(text, &e))?;
        joined.push(b':');
        joined.extend_from_slice(value);
    }
    if !own.is_empty() {
        joined.push(b',');
    }
    joined.extend_from_slice(inside.as_bytes());
    Ok(Some(joined.into()))
}
