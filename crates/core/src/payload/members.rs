//! The members of a JSON object, each as the sender's own text: what an envelope of another form (`CloudEvents`) is opened with.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{Unreadable, project};

/// The members of the object that `text` is, which share its memory; of a repeated key the last. The whole text is checked
/// first, since serde_json's raw slices are checked less strictly. None if it is no object.
pub(super) fn of(text: &Bytes) -> Result<Option<BTreeMap<String, Bytes>>, Unreadable> {
    project::json(text, &super::Paths::default())?;
    let utf8 = std::str::from_utf8(text).map_err(|e| Unreadable::NotUtf8 { offset: e.valid_up_to() })?;
    if !utf8.trim_start().starts_with('{') {
        return Ok(None);
    }
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(utf8).map_err(|e| project::unreadable(utf8, &e))?;
    Ok(Some(members.into_iter().map(|(name, value)| (name, text.slice_ref(value.get().as_bytes()))).collect()))
}
