//! What people ask of a store: lists and their pages, how queues stand, how long things are kept.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::decision::Kind;
use crate::ids::{EventId, Name};
use crate::run::State;

/// Which events.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// From this source.
    pub source: Option<Name>,
    /// Of this type.
    pub event_type: Option<String>,
    /// With this verdict.
    pub verdict: Option<Kind>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
    /// Whose type, subject or sender's id contains this text.
    pub q: Option<String>,
}

/// Which runs.
#[derive(Clone, Debug, Default)]
pub struct RunQuery {
    /// Of this agent.
    pub agent: Option<Name>,
    /// Of one of these triggers; empty: of any.
    pub triggers: Vec<Name>,
    /// In one of these states; empty: in any.
    pub states: Vec<State>,
    /// On this event.
    pub event: Option<EventId>,
    /// On events of this type.
    pub event_type: Option<String>,
    /// Made at or after.
    pub since: Option<Timestamp>,
    /// Made before.
    pub until: Option<Timestamp>,
    /// Whose title, key or error contains this text.
    pub q: Option<String>,
}

/// Which decisions.
#[derive(Clone, Debug, Default)]
pub struct DecisionQuery {
    /// About this source.
    pub source: Option<Name>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// On this event.
    pub event: Option<EventId>,
    /// Made at or after.
    pub since: Option<Timestamp>,
    /// Made before.
    pub until: Option<Timestamp>,
    /// Whose reason or code contains this text.
    pub q: Option<String>,
}

/// Which part of a list: keyed on the thing's place, so that a page stays cheap however deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// At most this many.
    pub limit: usize,
    /// From where.
    pub from: PageFrom,
}

/// Where a page begins. Items always come newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFrom {
    /// The newest.
    Start,
    /// Older than this place.
    Before(u64),
    /// The nearest that are newer than this place.
    After(u64),
}

/// Part of a list, newest first.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The things.
    pub items: Vec<T>,
    /// Ask `Before` this for older ones; none: there are none.
    pub next: Option<u64>,
    /// Ask `After` this for newer ones; none: this is the start.
    pub prev: Option<u64>,
}

/// How one queue stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// The agent.
    pub agent: Name,
    /// The trigger.
    pub trigger: Name,
    /// Runs queued, due or not.
    pub queued: u64,
    /// Runs running.
    pub running: u64,
    /// Runs waiting for a person.
    pub waiting: u64,
    /// The due time of the oldest run that could be claimed, if any.
    pub oldest_due: Option<Timestamp>,
}

/// How long things are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events with their final runs and logs.
    pub events: Duration,
    /// Ignored events and those whose filter failed.
    pub ignored: Duration,
    /// Decisions that made no event.
    pub decisions: Duration,
    /// Dedup keys.
    pub dedup: Duration,
    /// Decisions of unverified requests kept for each source.
    pub ring: u32,
}

impl Default for Retention {
    fn default() -> Self {
        let day = Duration::from_secs(86_400);
        Self { events: 30 * day, ignored: 3 * day, decisions: 14 * day, dedup: 90 * day, ring: 1000 }
    }
}

/// What a sweep deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Events.
    pub events: u64,
    /// Runs.
    pub runs: u64,
    /// Decisions.
    pub decisions: u64,
    /// Dedup keys.
    pub dedup: u64,
    /// Whether something is left to do now.
    pub more: bool,
}
