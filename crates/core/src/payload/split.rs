//! Finds the elements of a batch: the list at a path, each element as the slice of the text it stands in. Called for a
//! text that the projection has already checked whole, since serde_json's raw slices are checked less strictly.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Unreadable, project};

/// The most events of one request. Each is labelled, filtered and made ready by itself, while others wait for the thread.
pub const BATCH_MAX: usize = 10_000;

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
    let mut reader = serde_json::Deserializer::from_str(list);
    let (parts, count) = reader.deserialize_seq(Parts).map_err(|e| project::unreadable(list, &e))?;
    if count > BATCH_MAX {
        return Err(Unreadable::TooMany { count });
    }
    Ok(parts.into_iter().map(|part| text.slice_ref(part.get().as_bytes())).collect())
}

/// The elements of a list, and how many there are: those over the limit are counted only, since they take many times the
/// room of their text.
struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut parts = Vec::new();
        while parts.len() < BATCH_MAX {
            match list.next_element()? {
                Some(part) => parts.push(part),
                None => {
                    let count = parts.len();
                    return Ok((parts, count));
                }
            }
        }
        let mut count = parts.len();
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok((parts, count))
    }
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
