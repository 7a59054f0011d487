//! What an expression of the operator may see of one event: the four names `event`, `data`, `headers` and `query` of
//! filters, lane keys and prompts. The door makes one from the request, the worker from the stored event; both read
//! the body through [`crate::payload`].

use serde_json::Value;

use crate::Timestamp;

/// The four names. Cheap to copy; borrows all it shows.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// `event`
    pub event: EventFacts<'a>,
    /// `data`: the body, projected to at least the paths that the expression reads.
    pub data: &'a Value,
    /// `headers`: lower-case names and values, as far as the source's allow-list stores them. The last of a repeated
    /// name counts.
    pub headers: &'a [(String, String)],
    /// `query`: decoded names and values. The last of a repeated name counts.
    pub query: &'a [(String, String)],
}

/// The members of `event`. What an event does not have is missing, not empty: reading it is an error, and `has(…)` in
/// filters or `is defined` in templates asks first.
#[derive(Debug, Clone, Copy)]
pub struct EventFacts<'a> {
    /// `event.id`: the sender's id of it.
    pub id: Option<&'a str>,
    /// `event.source`: the name of the source.
    pub source: &'a str,
    /// `event.type`
    pub kind: &'a str,
    /// `event.subject`
    pub subject: Option<&'a str>,
    /// `event.actor`: who did it, as the preset finds it.
    pub actor: Option<&'a str>,
    /// `event.time`: RFC 3339 text, as `timestamp(event.time)` in filters wants it.
    pub time: Timestamp,
    /// `event.verified`
    pub verified: bool,
}

/// One member of `event`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fact<'a> {
    Text(&'a str),
    Time(Timestamp),
    Truth(bool),
}

impl<'a> EventFacts<'a> {
    /// The names of the members, in the order of the documentation.
    pub const NAMES: [&'static str; 7] = ["id", "source", "type", "subject", "actor", "time", "verified"];

    /// The member called `name`; none if there is no such member or the event does not have it.
    pub(crate) fn get(&self, name: &str) -> Option<Fact<'a>> {
        match name {
            "id" => self.id.map(Fact::Text),
            "source" => Some(Fact::Text(self.source)),
            "type" => Some(Fact::Text(self.kind)),
            "subject" => self.subject.map(Fact::Text),
            "actor" => self.actor.map(Fact::Text),
            "time" => Some(Fact::Time(self.time)),
            "verified" => Some(Fact::Truth(self.verified)),
            _ => None,
        }
    }
}

/// The names that an expression may use; the only ones there are.
pub(crate) const NAMES: [&str; 4] = ["event", "data", "headers", "query"];
