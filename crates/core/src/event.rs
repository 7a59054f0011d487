//! An event: an accepted, immutable fact. What the sender said, who it was, how that was verified, and when.
//!
//! `ingest` makes [`NewEvent`]s, the store gives them a place (and so an id) and keeps them, the worker reads them back
//! to run an agent. The attributes follow `CloudEvents` 1.0: id, source, type, subject, time, data.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::decision::{Check, Kind};
use crate::ids::{EventId, Name, RunId};
use crate::run::{NewRun, State};

/// What is known of an event beside its body. Kept as one compact record, since nothing searches in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The sender's own id of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<String>,
    /// Who did it, as the sender tells (`CloudEvents` extension).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// When it happened, as the sender tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// How the sender was verified: `github hmac-sha256, secret 1`. None if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_by: Option<String>,
    /// The headers that the allow-list keeps, lower case, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The query, decoded, without what the preset marks as secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<(String, String)>,
    /// How many runs it comes from, one after the other ([`crate::loop_guard`]).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hops: u32,
    /// Every check the door made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// A word for programs on why it was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// A sentence for people on why it was not accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// 128 bits that stand for (source, dedup key): two events with the same fingerprint are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of a key within a source. `kind` keeps ids, digests and idempotency keys apart.
    pub fn of(source: &Name, kind: KeyKind, key: &[u8]) -> Self {
        let mut hash = blake3::Hasher::new();
        hash.update(source.as_str().as_bytes());
        hash.update(&[0, kind as u8]);
        hash.update(key);
        let mut out = [0; 16];
        out.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Self(out)
    }
}

/// What a dedup key was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The sender's id.
    Id = 1,
    /// A digest of the body.
    Digest = 2,
    /// An `Idempotency-Key` header.
    Idempotency = 3,
    /// What a CEL expression gave.
    Expression = 4,
    /// A digest of event type and body.
    TypeAndBody = 5,
}

/// How a redelivery of this event would be known. See `docs/semantics.md`, rule 5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dedup {
    /// Seen within the retention of dedup keys: a duplicate.
    pub key: Option<Fingerprint>,
    /// Seen within this window: a duplicate too (a captured delivery under a fresh id).
    pub replay: Option<(Fingerprint, Duration)>,
    /// Whether the redelivery of an event whose run failed for good retries that run.
    pub on_failed: OnDuplicateFailed,
}

/// What a redelivery does when the event's run has failed for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDuplicateFailed {
    /// Answers with the failed run.
    #[default]
    Answer,
    /// Retries that run.
    Retry,
}

/// An event on its way into the store, with the runs it starts.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// `Accepted` (then it has runs), `Ignored` or `FilterError`.
    pub verdict: Kind,
    /// Where it came in.
    pub source: Name,
    /// Its type, such as `pull_request`; empty if the sender tells none.
    pub event_type: String,
    /// What it is about, such as `octo/repo#7`.
    pub subject: Option<String>,
    /// Who sent it.
    pub remote: Option<IpAddr>,
    /// The rest.
    pub facts: Facts,
    /// How its redelivery would be known.
    pub dedup: Dedup,
    /// How the body is to be read (the code of `payload::Body`).
    pub body_format: u8,
    /// The body as it came.
    pub body: Bytes,
    /// One for each trigger that wants it.
    pub runs: Vec<NewRun>,
}

/// The events of one request, to be committed together or not at all.
#[derive(Clone, Debug)]
pub struct Admission {
    /// When the door decided.
    pub at: Timestamp,
    /// One, or several where the sender batches.
    pub events: Vec<NewEvent>,
}

/// What the store made of one [`NewEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Committed.
    Stored {
        /// Its id.
        event: EventId,
        /// Its runs, in the order of [`NewEvent::runs`].
        runs: Vec<RunId>,
    },
    /// Known already.
    Duplicate {
        /// The first one's id.
        event: EventId,
        /// The first one's runs: trigger, run, present state.
        runs: Vec<(Name, RunId, State)>,
        /// Which check knew it: its key, or the digest within the replay window.
        by: SeenBy,
    },
}

/// Which of an event's fingerprints was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenBy {
    /// Its key.
    Key,
    /// The digest of its body: a known delivery under a fresh id.
    Replay,
}

/// An event as the store gives it back. Lists leave `body` empty.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Where it came in.
    pub source: Name,
    /// What the door said: accepted, ignored or `filter_error`.
    pub verdict: Kind,
    /// Its type.
    pub event_type: String,
    /// What it is about.
    pub subject: Option<String>,
    /// Who sent it.
    pub remote: Option<IpAddr>,
    /// The rest.
    pub facts: Facts,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// How the body is to be read.
    pub body_format: u8,
    /// The body as it came; none in lists, and once retention took it.
    pub body: Option<Bytes>,
    /// Length of the body in bytes.
    pub body_len: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_keeps_sources_and_kinds_of_key_apart() {
        let (a, b) = (Name::new("a").unwrap(), Name::new("b").unwrap());
        let print = |s, k| Fingerprint::of(s, k, b"1");
        assert_eq!(print(&a, KeyKind::Id), print(&a, KeyKind::Id));
        assert_ne!(print(&a, KeyKind::Id), print(&b, KeyKind::Id));
        assert_ne!(print(&a, KeyKind::Id), print(&a, KeyKind::Digest));
    }
}
