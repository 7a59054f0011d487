//! Identifiers: what a thing is called in answers, URLs, logs and the agent's envelope.
//!
//! An id is the thing's place in the store's commit order plus a tag of the store, written in Crockford base32 behind a
//! prefix: `run_00000004q2` + `9x2m4qzr`. So ids sort in the order of commit, need no index and no bytes of their own in
//! the store, and ids of two stores never meet. They are not secrets: knowing one grants nothing.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SEQ_CHARS: usize = 10;
const STORE_CHARS: usize = 8;

/// The tag of one store, drawn at random when the store is made; 40 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreTag(u64);

impl StoreTag {
    /// Keeps the low 40 bits of `random`.
    pub fn new(random: u64) -> Self {
        Self(random & 0xff_ffff_ffff)
    }

    /// The 40 bits as a number, for the store to keep.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// What an id names; carries the prefix.
pub trait Named {
    /// The text in front of every id of this kind, with its underscore.
    const PREFIX: &'static str;
}

/// An id of a `T`: its place in the commit order, and the store that gave it.
pub struct Id<T> {
    /// The place in the store's order; starts at 1.
    pub seq: u64,
    /// The store that gave it.
    pub store: StoreTag,
    of: PhantomData<fn() -> T>,
}

impl<T> Id<T> {
    /// The id of the thing at `seq` in `store`.
    pub fn new(seq: u64, store: StoreTag) -> Self {
        Self { seq, store, of: PhantomData }
    }
}

/// Marks ids of events.
pub struct OfEvent;
/// Marks ids of runs.
pub struct OfRun;
/// Marks ids of decisions. An event and the decision that made it share their place.
pub struct OfDecision;

impl Named for OfEvent {
    const PREFIX: &'static str = "evt_";
}
impl Named for OfRun {
    const PREFIX: &'static str = "run_";
}
impl Named for OfDecision {
    const PREFIX: &'static str = "dec_";
}

/// `evt_…`
pub type EventId = Id<OfEvent>;
/// `run_…`
pub type RunId = Id<OfRun>;
/// `dec_…`
pub type DecisionId = Id<OfDecision>;

impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq && self.store == other.store
    }
}
impl<T> Eq for Id<T> {}
impl<T> std::hash::Hash for Id<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.seq.hash(state);
    }
}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.seq, self.store).cmp(&(other.seq, other.store))
    }
}

impl<T: Named> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; SEQ_CHARS + STORE_CHARS];
        encode(self.seq, &mut text[..SEQ_CHARS]);
        encode(self.store.0, &mut text[SEQ_CHARS..]);
        f.write_str(T::PREFIX)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl<T: Named> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of this kind: it should be `{prefix}` and 18 letters or digits")]
pub struct BadId {
    text: String,
    prefix: &'static str,
}

impl<T: Named> FromStr for Id<T> {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { text: text.chars().take(64).collect(), prefix: T::PREFIX };
        let rest = text.strip_prefix(T::PREFIX).ok_or_else(bad)?.as_bytes();
        if rest.len() != SEQ_CHARS + STORE_CHARS {
            return Err(bad());
        }
        let seq = decode(&rest[..SEQ_CHARS]).ok_or_else(bad)?;
        let store = decode(&rest[SEQ_CHARS..]).ok_or_else(bad)?;
        Ok(Self::new(seq, StoreTag::new(store)))
    }
}

impl<T: Named> Serialize for Id<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de, T: Named> Deserialize<'de> for Id<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn encode(mut value: u64, out: &mut [u8]) {
    for place in out.iter_mut().rev() {
        *place = ALPHABET[(value & 31) as usize];
        value >>= 5;
    }
}

fn decode(text: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for byte in text {
        let digit = ALPHABET.iter().position(|a| a == byte)?;
        value = (value << 5) | digit as u64;
    }
    Some(value)
}

/// A name from the configuration: an agent, a source or a trigger. `[a-z0-9][a-z0-9-]{0,62}`; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(std::sync::Arc<str>);

/// The text cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: use 1 to 63 of a-z, 0-9 and -, starting with a letter or digit")]
pub struct BadName(String);

impl Name {
    /// Checks the form.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let bytes = text.as_bytes();
        let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = (1..=63).contains(&bytes.len()) && word(&bytes[0]) && bytes.iter().all(|b| word(b) || *b == b'-');
        if good { Ok(Self(text.into())) } else { Err(BadName(text.chars().take(80).collect())) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}
impl Serialize for Name {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_sorts_by_its_place() {
        let tag = StoreTag::new(0x1234_5678_9abc);
        let first = RunId::new(9, tag);
        let second = RunId::new(1_000_000, tag);
        assert_eq!(first.to_string().parse::<RunId>(), Ok(first));
        assert_eq!(first.to_string().len(), 22);
        assert!(first.to_string() < second.to_string());
    }

    #[test]
    fn an_id_of_another_kind_or_shape_is_refused() {
        let id = EventId::new(7, StoreTag::new(1)).to_string();
        assert!(id.parse::<RunId>().is_err());
        assert!("run_".parse::<RunId>().is_err());
        assert!("run_uuuuuuuuuuuuuuuuuu".parse::<RunId>().is_err());
    }

    #[test]
    fn a_name_is_lower_case_words() {
        for good in ["a", "github-prs", "0x", &"a".repeat(63)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a/b", "ä", &"a".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }
}
