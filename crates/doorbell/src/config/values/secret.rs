//! The place of a secret, which is never the secret itself.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::super::section::{Here, Value, as_table};

/// Where a secret is; never the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretAt {
    /// An environment variable.
    Env(String),
    /// A file.
    File(String),
    /// Doorbell's own sealed store.
    Stored(String),
    /// Written wrongly, and told: kept so that nobody takes it for not written.
    Unreadable,
}

/// What every wrongly written secret is told.
const SECRET_ADVICE: &str = "Write { env = \"NAME\" }, { file = \"path\" } or { stored = \"name\" }; a list of them while a secret is being changed.";

impl Value for SecretAt {
    fn read(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<Self> {
        Some(place(value, here).unwrap_or(Self::Unreadable))
    }
}

fn place(value: &Spanned<DeValue<'_>>, here: &Here<'_>) -> Option<SecretAt> {
    let offset = value.span().start;
    // The value may be the secret itself: it is never repeated in a message.
    if !value.get_ref().is_table() {
        here.wrong(offset, "a secret does not stand in this file, only where to find it does", SECRET_ADVICE);
        return None;
    }
    let table = as_table(value, here)?;
    let mut entries = table.iter();
    let (Some((key, place)), None) = (entries.next(), entries.next()) else {
        here.wrong(offset, "a secret has exactly one place", SECRET_ADVICE);
        return None;
    };
    let Some(place) = place.get_ref().as_str().map(str::to_owned).filter(|p| !p.is_empty()) else {
        here.wrong(offset, "the place of a secret is a text that is not empty", SECRET_ADVICE);
        return None;
    };
    let word: &str = key.get_ref();
    match word {
        "env" => Some(SecretAt::Env(place)),
        "file" => Some(SecretAt::File(place)),
        "stored" => Some(SecretAt::Stored(place)),
        _ => {
            here.wrong(key.span().start, format!("`{word}` is not a place that secrets come from"), SECRET_ADVICE);
            None
        }
    }
}

schema!(SecretAt, "Secret", {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
    "properties": {"env": {"type": "string"}, "file": {"type": "string"}, "stored": {"type": "string"}}});
