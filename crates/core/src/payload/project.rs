//! One pass over a JSON text that checks all of it and builds only what was asked for.
//!
//! A skipped part goes through the same `deserialize_any` as a built one, so that both obey one grammar: serde_json's
//! own way of skipping lets numbers out of range, broken escapes and any depth pass, and then the filter would accept
//! what the renderer cannot read. Skipping allocates nothing.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::{Map, Number, Value};

use super::{Paths, Unreadable};

/// Checks `text` and builds what lies at `paths`.
pub(super) fn json(text: &[u8], paths: &Paths) -> Result<Value, Unreadable> {
    let text = std::str::from_utf8(text).map_err(|e| Unreadable::NotUtf8 { offset: e.valid_up_to() })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Want::of(paths).deserialize(&mut reader).map_err(|e| unreadable(text, &e))?;
    reader.end().map_err(|e| unreadable(text, &e))?;
    Ok(value)
}

/// The parser's complaint, with the place counted in bytes.
pub(super) fn unreadable(text: &str, error: &serde_json::Error) -> Unreadable {
    let line = error.line().saturating_sub(1);
    let start = match line {
        0 => 0,
        n => text.bytes().enumerate().filter(|(_, b)| *b == b'\n').nth(n - 1).map_or(text.len(), |(i, _)| i + 1),
    };
    let full = error.to_string();
    let reason = full.rsplit_once(" at line ").map_or(full.as_str(), |(reason, _)| reason);
    // The parser may quote from the body; it never needs more than this to be understood.
    let reason = reason.chars().take(120).collect();
    Unreadable::Json { reason, offset: (start + error.column().saturating_sub(1)).min(text.len()) }
}

#[derive(Clone, Copy)]
enum Want<'p> {
    Nothing,
    Part(&'p Paths),
    Whole,
}

impl<'p> Want<'p> {
    fn of(paths: &'p Paths) -> Self {
        match paths {
            p if p.wants_root() => Self::Whole,
            p if p.is_empty() => Self::Nothing,
            p => Self::Part(p),
        }
    }

    fn scalar<E>(self, value: impl FnOnce() -> Value) -> Result<Value, E> {
        Ok(match self {
            Self::Nothing => Value::Null,
            // A scalar where a path goes on is built too: what reads it then fails as it would on the full value.
            Self::Part(_) | Self::Whole => value(),
        })
    }
}

impl<'de> DeserializeSeed<'de> for Want<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Want<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        self.scalar(|| Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        self.scalar(|| Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        self.scalar(|| Value::Number(v.into()))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        let number = Number::from_f64(v).ok_or_else(|| E::custom("number out of range"))?;
        self.scalar(|| Value::Number(number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        self.scalar(|| Value::String(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        match self {
            Self::Nothing => {
                while seq.next_element_seed(Self::Nothing)?.is_some() {}
                Ok(Value::Null)
            }
            Self::Whole => {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element_seed(Self::Whole)? {
                    list.push(item);
                }
                Ok(Value::Array(list))
            }
            Self::Part(paths) => {
                let mut list = Vec::new();
                loop {
                    let want = place_in(paths, list.len());
                    match seq.next_element_seed(want)? {
                        Some(item) => list.push(item),
                        None => return Ok(Value::Array(list)),
                    }
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        match self {
            Self::Nothing => {
                while map.next_key_seed(SkippedKey)?.is_some() {
                    map.next_value_seed(Self::Nothing)?;
                }
                Ok(Value::Null)
            }
            Self::Whole => {
                let mut object = Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = map.next_value_seed(Self::Whole)?;
                    object.insert(key, value);
                }
                Ok(Value::Object(object))
            }
            Self::Part(paths) => {
                let mut object = Map::new();
                while let Some(found) = map.next_key_seed(WantedKey(paths))? {
                    match found {
                        None => drop(map.next_value_seed(Self::Nothing)?),
                        Some((key, below)) => {
                            let value = map.next_value_seed(Want::of(below))?;
                            object.insert(key.to_owned(), value);
                        }
                    }
                }
                Ok(Value::Object(object))
            }
        }
    }
}

fn place_in(paths: &Paths, place: usize) -> Want<'_> {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = place;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let name = std::str::from_utf8(&digits[at..]).unwrap_or_default();
    paths.child(name).map_or(Want::Nothing, |(_, below)| Want::of(below))
}

struct SkippedKey;

impl<'de> DeserializeSeed<'de> for SkippedKey {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for SkippedKey {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

struct WantedKey<'p>(&'p Paths);

impl<'de, 'p> DeserializeSeed<'de> for WantedKey<'p> {
    type Value = Option<(&'p str, &'p Paths)>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_str(self)
    }
}

impl<'p> Visitor<'_> for WantedKey<'p> {
    type Value = Option<(&'p str, &'p Paths)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.child(key))
    }
}
