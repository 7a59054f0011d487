//! What the door said to one request, with every check it made: the answer to "why did my agent not run?".
//!
//! `ingest` makes decisions, the store keeps them, the API shows them. A decision never holds a secret, a signature
//! that would have been right, or a body.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::ids::{DecisionId, EventId, Name};

/// What the door said. See `docs/semantics.md`, rule 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Stored, and at least one run queued.
    Accepted,
    /// Seen before; answered with the first one's ids.
    Duplicate,
    /// Stored, but no trigger wanted it.
    Ignored,
    /// Stored, but a filter could not be evaluated, and no other trigger wanted it.
    FilterError,
    /// Too many requests.
    Limited,
    /// Not allowed in: address, signature, or no such way in.
    Rejected,
    /// Verified or not, the body could not be read.
    Unreadable,
    /// A provider's proof-of-endpoint request, answered.
    Handshake,
    /// A good request that could not be taken: queue full, store unable to write, stopping.
    Unavailable,
    /// Passed on to an agent's own server at once, and its answer handed back; no event was made.
    Forwarded,
}

impl Kind {
    /// Every kind, in the order of their codes.
    pub const ALL: [Self; 10] = [
        Self::Accepted,
        Self::Duplicate,
        Self::Ignored,
        Self::FilterError,
        Self::Limited,
        Self::Rejected,
        Self::Unreadable,
        Self::Handshake,
        Self::Unavailable,
        Self::Forwarded,
    ];

    /// The word used in the API, in metrics and in the console.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::FilterError => "filter_error",
            Self::Limited => "limited",
            Self::Rejected => "rejected",
            Self::Unreadable => "unreadable",
            Self::Handshake => "handshake",
            Self::Unavailable => "unavailable",
            Self::Forwarded => "forwarded",
        }
    }

    /// The number kept in the store.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind behind a number of [`Kind::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|k| k.as_str() == text).ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|k| k.as_str()).collect();
            format!("`{text}` is not a decision; known: {}", words.join(", "))
        })
    }
}

/// One check the door made, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked: `address`, `signature`, `rate_limit`, `body`, `filter:<trigger>`, `dedup`, …
    pub name: Cow<'static, str>,
    /// Whether it passed.
    pub passed: bool,
    /// What would have passed; never a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Cow<'static, str>>,
    /// What was there; never a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Cow<'static, str>>,
}

impl Check {
    /// A check that passed.
    pub fn passed(name: impl Into<Cow<'static, str>>) -> Self {
        Self { name: name.into(), passed: true, wanted: None, seen: None }
    }

    /// A check that failed: what was wanted and what was seen.
    pub fn failed(
        name: impl Into<Cow<'static, str>>,
        wanted: impl Into<Cow<'static, str>>,
        seen: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { name: name.into(), passed: false, wanted: Some(wanted.into()), seen: Some(seen.into()) }
    }

    /// Adds what was seen.
    #[must_use]
    pub fn seeing(mut self, seen: impl Into<Cow<'static, str>>) -> Self {
        self.seen = Some(seen.into());
        self
    }
}

/// A decision about a request that made no event: refused, limited, a duplicate, a handshake, …
///
/// Decisions that did make an event (`accepted`, `ignored`, `filter_error`) are kept with that event.
#[derive(Clone, Debug)]
pub struct NewDecision {
    /// When the door decided.
    pub at: Timestamp,
    /// The source asked for; none if the path belongs to no source.
    pub source: Option<Name>,
    /// What the door said.
    pub kind: Kind,
    /// A stable word for programs, such as `signature_mismatch`; see `docs/decision-codes.md`.
    pub code: Cow<'static, str>,
    /// One sentence for a person.
    pub reason: Cow<'static, str>,
    /// Every check made, in order.
    pub checks: Vec<Check>,
    /// The event it speaks of, for a duplicate.
    pub event: Option<EventId>,
    /// Who asked.
    pub remote: Option<IpAddr>,
}

/// A decision as the store gives it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Its id.
    pub id: DecisionId,
    /// The source asked for.
    pub source: Option<Name>,
    /// What the door said.
    pub kind: Kind,
    /// A stable word for programs.
    pub code: String,
    /// One sentence for a person.
    pub reason: String,
    /// Every check made, in order.
    pub checks: Vec<Check>,
    /// The event it made or speaks of.
    pub event_id: Option<EventId>,
    /// Who asked.
    pub remote: Option<IpAddr>,
    /// When.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_from_its_word_and_its_code() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse::<Kind>(), Ok(kind));
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        assert_eq!(Kind::from_code(10), None);
    }
}
