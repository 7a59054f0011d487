//! How a redelivery of an event will be known. Pure; the rule is `docs/semantics.md`, 5.

use std::time::Duration;

use crate::event::{Dedup, Fingerprint, KeyKind, OnDuplicateFailed};
use crate::ids::Name;
use crate::provider::is_readable;

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
    /// What a digest is taken of: the body in the spelling that the signature knows, with what is signed beside it.
    pub body: &'a [u8],
    /// What a captured delivery is known by: the same, but for the first event of a batch all of it.
    pub replayed: &'a [u8],
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
    // What could not be read whole names nothing: two different ones would be one.
    let by_id = who.id.filter(|id| is_readable(id)).map(|id| of(KeyKind::Id, id.as_bytes()));
    let is_signed = who.vouched != Vouched::Nothing;
    // Beside every key, one from a signed id too: under another content type, which nobody signs, the same body gives
    // another id or none, and an expression another text. Only the digest is the same in every reading.
    let window = Some(who.replay_window).filter(|w| is_signed && !w.is_zero());
    let replay = window.map(|w| (of(KeyKind::Digest, blake3::hash(who.replayed).as_bytes()), w));
    // A type in an unsigned header is as easily changed as an id; one that is signed is in what the digest is taken of.
    let event_type = if is_signed { "" } else { who.event_type };
    let by_request = || {
        let key = who.idempotency_key.filter(|key| !is_signed && is_readable(key));
        key.map(|key| of(KeyKind::Idempotency, key.as_bytes()))
    };
    let key = match rule {
        Rule::Off => return Dedup { key: None, replay: None, on_failed },
        Rule::Id => by_id,
        Rule::Body => Some(of(KeyKind::TypeAndBody, &digest(event_type, who.body))),
        Rule::Key(text) if is_readable(text) => Some(of(KeyKind::Expression, text.as_bytes())),
        Rule::Auto | Rule::Key(_) => by_id.or_else(by_request),
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
            replayed: b"{}",
            idempotency_key: None,
            replay_window: Duration::from_secs(600),
        }
    }

    fn auto(who: Identity<'_>) -> Dedup {
        fingerprints(who, Rule::Auto, OnDuplicateFailed::Answer)
    }

    #[test]
    fn whatever_is_read_in_a_signed_body_its_digest_is_kept_too() {
        let s = Name::new("s").unwrap();
        let rules = [Rule::Auto, Rule::Id, Rule::Body, Rule::Key("k")];
        let by = |rule, who| fingerprints(who, rule, OnDuplicateFailed::Answer);
        // Under another content type there is no id to be read, and no expression's text.
        let unread = auto(who(None, Vouched::Body, &s));
        for rule in rules {
            for vouched in [Vouched::Id, Vouched::Body] {
                let first = by(rule, who(Some("1"), vouched, &s));
                assert!(first.key.is_some() && first.replay.is_some(), "{rule:?} {vouched:?}");
                assert_eq!(first.replay, unread.replay, "{rule:?} {vouched:?}");
                let no_window = Identity { replay_window: Duration::ZERO, ..who(Some("1"), vouched, &s) };
                assert_eq!(by(rule, no_window).replay, None, "the owner switched it off: {rule:?}");
            }
            assert_eq!(by(rule, who(Some("1"), Vouched::Nothing, &s)).replay, None, "{rule:?}");
        }
        let off = by(Rule::Off, who(Some("1"), Vouched::Id, &s));
        assert_eq!((off.key, off.replay), (None, None));
    }

    #[test]
    fn by_body_the_type_counts_only_where_nothing_is_signed() {
        let s = Name::new("s").unwrap();
        let key = |vouched, event_type| {
            let who = Identity { event_type, ..who(Some("1"), vouched, &s) };
            fingerprints(who, Rule::Body, OnDuplicateFailed::Answer).key
        };
        assert_eq!(key(Vouched::Body, "push"), key(Vouched::Body, "release"));
        assert_eq!(key(Vouched::Body, "push"), key(Vouched::Id, "release"));
        assert_ne!(key(Vouched::Nothing, "push"), key(Vouched::Nothing, "release"));
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
    fn what_could_not_be_read_whole_names_no_event() {
        let s = Name::new("s").unwrap();
        for vouched in [Vouched::Id, Vouched::Body, Vouched::Nothing] {
            let without = Identity { idempotency_key: Some("k"), ..who(None, vouched, &s) };
            let unread = Identity { id: Some("caf\u{fffd}-1"), ..without };
            assert_eq!(auto(unread), auto(without), "{vouched:?}: as if there were none");
            let by_expression = fingerprints(without, Rule::Key("caf\u{fffd}"), OnDuplicateFailed::Answer);
            assert_eq!(by_expression, auto(without), "{vouched:?}: as if it had failed");
        }
        let keyed = Identity { idempotency_key: Some("\u{fffd}"), ..who(None, Vouched::Nothing, &s) };
        assert_eq!(auto(keyed).key, None);
        assert_eq!(
            fingerprints(who(Some("\u{fffd}"), Vouched::Nothing, &s), Rule::Id, OnDuplicateFailed::Answer).key,
            None
        );
    }

    #[test]
    fn type_and_body_cannot_be_shifted_into_each_other() {
        assert_ne!(digest("ab", b"c"), digest("a", b"bc"));
    }
}
