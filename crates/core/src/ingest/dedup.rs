//! How a redelivery of an event will be known. Pure; the rule is `docs/semantics.md`, 5.

use std::time::Duration;

use crate::event::{Dedup, Fingerprint, KeyKind, OnDuplicateFailed};
use crate::ids::Name;

/// What is known about an event's identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity<'a> {
    /// Its source.
    pub source: &'a Name,
    /// The sender's id.
    pub id: Option<&'a str>,
    /// How much the check of the sender vouches for.
    pub vouched: Vouched,
    /// The event's type.
    pub event_type: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// An `Idempotency-Key` header.
    pub idempotency_key: Option<&'a str>,
    /// For how long a digest counts.
    pub replay_window: Duration,
}

/// What the sender's check covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vouched {
    /// The signature covers the id.
    Id,
    /// The signature covers the body, but not the id.
    Body,
    /// A token, or nothing: anybody who has it may have changed both.
    Nothing,
}

/// Which rule to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule<'a> {
    Auto,
    Id,
    Body,
    Off,
    /// What the operator's expression gave.
    Key(&'a str),
}

/// The fingerprints to look for and to keep.
pub(super) fn fingerprints(who: Identity<'_>, rule: Rule<'_>, on_failed: OnDuplicateFailed) -> Dedup {
    let of = |kind, key: &[u8]| Fingerprint::of(who.source, kind, key);
    let by_id = who.id.map(|id| of(KeyKind::Id, id.as_bytes()));
    let window = Some(who.replay_window).filter(|w| !w.is_zero());
    // Of the body alone: a type that stands in an unsigned header is as easily changed as an id.
    let replayed = || of(KeyKind::Digest, blake3::hash(who.body).as_bytes());
    let (key, replay) = match rule {
        Rule::Off => (None, None),
        Rule::Id => (by_id, None),
        Rule::Body => (Some(of(KeyKind::TypeAndBody, &digest(who.event_type, who.body))), None),
        Rule::Key(text) => (Some(of(KeyKind::Expression, text.as_bytes())), None),
        Rule::Auto => match (who.vouched, by_id) {
            (Vouched::Id, Some(id)) => (Some(id), None),
            (Vouched::Id | Vouched::Body, id) => (id, window.map(|w| (replayed(), w))),
            (Vouched::Nothing, Some(id)) => (Some(id), None),
            (Vouched::Nothing, None) => (who.idempotency_key.map(|k| of(KeyKind::Idempotency, k.as_bytes())), None),
        },
    };
    Dedup { key, replay, on_failed }
}

fn digest(event_type: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(&(event_type.len() as u64).to_le_bytes());
    hash.update(event_type.as_bytes());
    hash.update(body);
    *hash.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who<'a>(id: Option<&'static str>, vouched: Vouched, source: &'a Name) -> Identity<'a> {
        Identity {
            source,
            id,
            vouched,
            event_type: "push",
            body: b"{}",
            idempotency_key: None,
            replay_window: Duration::from_secs(600),
        }
    }

    fn auto(who: Identity<'_>) -> Dedup {
        fingerprints(who, Rule::Auto, OnDuplicateFailed::Answer)
    }

    #[test]
    fn a_signed_id_is_the_key_alone() {
        let s = Name::new("s").unwrap();
        let d = auto(who(Some("1"), Vouched::Id, &s));
        assert!(d.key.is_some() && d.replay.is_none());
    }

    #[test]
    fn an_id_that_the_signature_does_not_cover_is_joined_by_the_digest() {
        let s = Name::new("s").unwrap();
        let first = auto(who(Some("1"), Vouched::Body, &s));
        let forged_id = auto(who(Some("2"), Vouched::Body, &s));
        assert_ne!(first.key, forged_id.key);
        assert_eq!(first.replay, forged_id.replay);
        assert!(first.replay.is_some());
        let other_type = auto(Identity { event_type: "release", ..who(Some("3"), Vouched::Body, &s) });
        assert_eq!(first.replay, other_type.replay, "the type is not signed either");
    }

    #[test]
    fn a_signature_without_an_id_is_known_by_the_digest_within_the_window() {
        let s = Name::new("s").unwrap();
        let d = auto(who(None, Vouched::Body, &s));
        assert!(d.key.is_none() && d.replay.is_some());
    }

    #[test]
    fn without_a_signature_only_an_id_or_an_idempotency_key_counts() {
        let s = Name::new("s").unwrap();
        let nothing = auto(who(None, Vouched::Nothing, &s));
        assert_eq!((nothing.key, nothing.replay), (None, None));
        let keyed = auto(Identity { idempotency_key: Some("k"), ..who(None, Vouched::Nothing, &s) });
        assert!(keyed.key.is_some() && keyed.replay.is_none());
        let with_id = auto(Identity { idempotency_key: Some("k"), ..who(Some("1"), Vouched::Nothing, &s) });
        assert_eq!(with_id.key, auto(who(Some("1"), Vouched::Nothing, &s)).key);
    }

    #[test]
    fn type_and_body_cannot_be_shifted_into_each_other() {
        assert_ne!(digest("ab", b"c"), digest("a", b"bc"));
    }
}
