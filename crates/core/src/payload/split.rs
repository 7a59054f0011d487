//! Finds the elements of a batch: the list at a path, each element as the slice of the text it stands in. Called for a
//! text that the projection has already checked whole, since serde_json's raw slices are checked less strictly.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Unreadable, project};

/// The elements of the list at `path`, which share the memory of `text`.
pub(super) fn elements(text: &Bytes, path: &[String]) -> Result<Vec<Bytes>, Unreadable> {
    let not_a_list = || Unreadable::NotAList { path: path.join(".") };
    let utf8 = std::str::from_utf8(text).map_err(|e| Unreadable::NotUtf8 { offset: e.valid_up_to() })?;
    let mut list: &str = utf8;
    for name in path {
        let mut reader = serde_json::Deserializer::from_str(list);
        if !list.trim_start().starts_with('{') {
            return Err(not_a_list());
        }
        let found = Member(name).deserialize(&mut reader).map_err(|e| project::unreadable(list, &e))?;
        list = found.ok_or_else(not_a_list)?.get();
    }
    if !list.trim_start().starts_with('[') {
        return Err(not_a_list());
    }
    let parts: Vec<&RawValue> = serde_json::from_str(list).map_err(|e| project::unreadable(list, &e))?;
    Ok(parts.into_iter().map(|part| text.slice_ref(part.get().as_bytes())).collect())
}

/// The last member of an object with this name.
struct Member<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            if key == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
