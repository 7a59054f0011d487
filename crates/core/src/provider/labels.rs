//! What a sender calls its event: id, type, subject, actor and time, read by the preset's selectors. Called at the door
//! once a request is verified (for a batch once per event); the labels become the event's attributes.
//!
//! Labels come from outside, so they are short and hold no control characters. An id that had to be changed for that is
//! replaced by its digest: two different ids must never become one. For the same reason an id in which something could
//! not be read is none ([`is_readable`]).

use serde_json::Value;

use super::Request;
use super::preset::Preset;
use super::scheme::Scheme;
use super::select::Place;
use super::signed::{Piece, Template};
use super::sns;
use crate::Timestamp;

/// The longest label, in bytes.
pub const LABEL_BYTES_MAX: usize = 256;

/// The labels of one event.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Labels {
    /// The sender's id of the delivery or event.
    pub id: Option<String>,
    /// Whether the signature covers the id: only then nobody else can give a captured delivery a fresh one.
    pub id_signed: bool,
    /// What happened.
    pub event_type: Option<String>,
    /// What it happened to.
    pub subject: Option<String>,
    /// Who did it.
    pub actor: Option<String>,
    /// When it happened.
    pub time: Option<Timestamp>,
}

impl Preset {
    /// Reads the labels. `view` is the parsed body, or one event of a batch; it may hold no more than
    /// [`Preset::body_paths`]. For a form it is the JSON in the preset's form field, or an object of the fields.
    pub fn labels(&self, request: &Request<'_>, view: &Value) -> Labels {
        let first = |templates: &[Template]| {
            templates.iter().find_map(|t| t.text(request, view, |value, text| text.push_str(value)))
        };
        let short = |templates: &[Template]| first(templates).map(|t| clean(&t)).filter(|t| !t.is_empty());
        let id = self.event.id.iter().find_map(|t| {
            let text = t.text(request, view, |value, text| text.push_str(value))?;
            is_readable(&text).then(|| (unique(text), self.signs(t)))
        });
        let (id, id_signed) = id.map_or((None, false), |(id, signed)| (Some(id), signed));
        Labels {
            id,
            id_signed,
            event_type: short(&self.event.event_type),
            subject: short(&self.event.subject),
            actor: short(&self.event.actor),
            time: first(&self.event.time).and_then(|t| time_of(&t)),
        }
    }

    /// Whether the signature covers every place that `label` is made from.
    fn signs(&self, label: &Template) -> bool {
        let covers = |place: &Place| match &self.scheme {
            Scheme::Signed(signed) => signed.places.contains(place) || signed.templates.iter().all(|t| t.covers(place)),
            Scheme::Jwt(rule) => rule.body.is_some() && matches!(place, Place::Body(_) | Place::Form(_)),
            Scheme::Sns => place.body_path().is_some_and(sns::is_signed),
            Scheme::Token { .. } | Scheme::Basic | Scheme::ClientCert(_) | Scheme::None => false,
        };
        label.pieces().iter().all(|piece| match piece {
            Piece::Literal(_) => true,
            Piece::At(place) | Piece::Optional(place) | Piece::Lower(place) => covers(place),
            _ => false,
        })
    }
}

/// Whether all of a text could be read. Bytes that are no UTF-8 and lone surrogates are U+FFFD in what we read, all of
/// them: `caf\xe9` and `caf\xe8` look alike, so such a text names nothing.
pub(crate) fn is_readable(text: &str) -> bool {
    !text.contains(char::REPLACEMENT_CHARACTER)
}

fn clean(text: &str) -> String {
    let mut kept: String = text.chars().filter(|c| !c.is_control()).collect();
    kept.truncate(kept.floor_char_boundary(LABEL_BYTES_MAX));
    kept
}

fn unique(text: String) -> String {
    let plain = text.len() <= LABEL_BYTES_MAX && !text.chars().any(char::is_control);
    if plain { text } else { format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex()) }
}

/// RFC 3339, or a number: seconds up to the year 5138, milliseconds above.
fn time_of(text: &str) -> Option<Timestamp> {
    const SECONDS_MAX: i64 = 100_000_000_000;
    match text.split('.').next().unwrap_or_default().parse::<i64>() {
        Ok(n) if (0..SECONDS_MAX).contains(&n) => Some(Timestamp::from_secs(n)),
        Ok(n) if n >= SECONDS_MAX => Some(Timestamp::from_millis(n)),
        _ => Timestamp::parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_short_and_printable() {
        assert_eq!(clean("a\nb\u{7}c"), "abc");
        let long = "é".repeat(200);
        assert_eq!(clean(&long).len(), 256);
    }

    #[test]
    fn two_different_ids_never_become_one() {
        assert_eq!(unique("evt_1".into()), "evt_1");
        let long = "x".repeat(300);
        assert_ne!(unique(format!("{long}1")), unique(format!("{long}2")));
        assert_ne!(unique("a\nb".into()), unique("ab".into()));
        assert!(unique(long).len() <= LABEL_BYTES_MAX);
    }

    #[test]
    fn a_time_is_seconds_milliseconds_or_rfc_3339() {
        let t = Some(Timestamp::from_secs(1_760_000_000));
        for text in ["1760000000", "1760000000.000100", "1760000000000", "2025-10-09T08:53:20Z"] {
            assert_eq!(time_of(text), t, "{text}");
        }
        assert_eq!(time_of("yesterday"), None);
        assert_eq!(time_of("-5"), None);
    }
}
