//! The `[verify]` table of a preset: from its keys to a sound [`Scheme`]. Called by `parse`.

use super::parse::{place, told};
use super::read::{At, Section};
use super::scheme::{
    Algorithm, ENCODINGS, Encoding, HASHES, Hash, KEY_FORMS, KeyForm, Scheme, Signed, TIME_UNITS, TimeUnit,
    TimestampPlace, TimestampRule,
};
use super::signed::{Piece, Template};

#[derive(Clone, Copy)]
enum SchemeWord {
    Hmac,
    Digest,
    Ed25519,
    Token,
    Basic,
    None,
}

const SCHEMES: [(&str, SchemeWord); 6] = [
    ("hmac", SchemeWord::Hmac),
    ("digest", SchemeWord::Digest),
    ("ed25519", SchemeWord::Ed25519),
    ("token", SchemeWord::Token),
    ("basic", SchemeWord::Basic),
    ("none", SchemeWord::None),
];

/// Reads the table; the faults are told to the section's report.
pub(super) fn verify(section: Section<'_, '_>) -> Option<Scheme> {
    section.required("scheme", "\"hmac\"")?;
    let word = section.word("scheme", &SCHEMES)?;
    let scheme = match word {
        SchemeWord::Hmac => signed(&section, hash(&section).map(Algorithm::Hmac)),
        SchemeWord::Digest => signed(&section, hash(&section).map(Algorithm::Digest)),
        SchemeWord::Ed25519 => signed(&section, Some(Algorithm::Ed25519)),
        SchemeWord::Token => {
            let prefix = section.text("prefix").map(|t| t.value).unwrap_or_default();
            let at = section.required("token", "\"header:x-api-key\"").and_then(|t| place(&section, t));
            at.map(|place| Scheme::Token { place, prefix })
        }
        SchemeWord::Basic => Some(Scheme::Basic),
        SchemeWord::None => Some(Scheme::None),
    };
    section.finish();
    scheme
}

fn hash(section: &Section<'_, '_>) -> Option<Hash> {
    section.required("hash", "\"sha256\"")?;
    section.word("hash", &HASHES)
}

fn signed(section: &Section<'_, '_>, algorithm: Option<Algorithm>) -> Option<Scheme> {
    // Every key is asked for before the first `?`, so that all faults are found.
    let at = section.required("signature", "\"header:x-signature\"").and_then(|t| place(section, t));
    let encoding: Option<Encoding> =
        section.required("encoding", "\"hex\"").and_then(|_| section.word("encoding", &ENCODINGS));
    let key: Option<KeyForm> = section.required("secret", "\"raw\"").and_then(|_| section.word("secret", &KEY_FORMS));
    let prefix = section.text("prefix").map(|t| t.value).unwrap_or_default();
    let separator = section.text("separator").and_then(|t| {
        if t.value.is_empty() {
            section.fault(t.offset, "an empty `separator` separates nothing: write \",\" or \" \", or leave it out");
        }
        (!t.value.is_empty()).then_some(t.value)
    });
    let template_at = section.required("signed", "\"{body}\"");
    let template_offset = template_at.as_ref().map_or(section.offset, |t| t.offset);
    let template = template_at.and_then(|t| told(section, t.offset, Template::parse(&t.value)));
    let timestamp = timestamp(section, template.as_ref(), separator.is_some());
    let (algorithm, template) = (algorithm?, template?);
    if template.has(&Piece::Timestamp) && timestamp.is_none() {
        section.fault(template_offset, "`{ts}` is signed but `timestamp` does not say where it stands: add it");
    }
    match (algorithm, template.has(&Piece::Secret)) {
        (Algorithm::Digest(_), false) => {
            section.fault(template_offset, "a digest without `{secret}` proves nothing: add it to `signed`");
        }
        (Algorithm::Hmac(_) | Algorithm::Ed25519, true) => {
            section.fault(template_offset, "`{secret}` belongs to the scheme \"digest\" only: take it out of `signed`");
        }
        _ => {}
    }
    let place = at?;
    Some(Scheme::Signed(Box::new(Signed {
        algorithm,
        key: key?,
        place,
        separator,
        prefix,
        encoding: encoding?,
        template,
        timestamp,
    })))
}

fn timestamp(section: &Section<'_, '_>, template: Option<&Template>, list: bool) -> Option<TimestampRule> {
    let text = section.text("timestamp");
    let unit: Option<TimeUnit> = section.word("timestamp_unit", &TIME_UNITS);
    let tolerance = section.duration("tolerance");
    let text = text?;
    let place = match text.value.strip_prefix("signature:") {
        Some(prefix) => {
            if !list {
                section.fault(text.offset, "a timestamp in the signature needs a `separator`, such as \",\"");
            }
            TimestampPlace::InSignature(prefix.to_owned())
        }
        None => TimestampPlace::At(place(section, At { offset: text.offset, value: text.value.clone() })?),
    };
    let signed =
        template.is_none_or(|t| t.has(&Piece::Timestamp) || matches!(&place, TimestampPlace::At(at) if t.covers(at)));
    if !signed {
        section.fault(text.offset, "the timestamp is not signed, so anybody can renew it: add `{ts}` to `signed`");
    }
    if !section.has("timestamp_unit") {
        section.fault(text.offset, "`timestamp_unit` is missing: add `timestamp_unit = \"s\"`, \"ms\" or \"rfc3339\"");
    }
    if !section.has("tolerance") {
        section.fault(text.offset, "`tolerance` is missing: add for example `tolerance = \"300s\"`");
    }
    Some(TimestampRule { place, unit: unit?, tolerance: tolerance?.value })
}
