//! The one reader of request bodies.
//!
//! The door reads a body with [`Body::read`] and projects from it what filters, lane keys and presets ask for; the
//! worker rebuilds the same body from the store with [`Body::restore`] when a run is rendered. Both go through the code
//! of this module, so that the check of a sender, the filter, the key, the prompt and the agent never see two different
//! readings of one body (two readings of one text are how signed webhooks get smuggled past their checks).
//!
//! The rules of a reading, the same everywhere:
//! * of a repeated object key the last one counts;
//! * a lone UTF-16 surrogate (`\ud800`) reads as U+FFFD;
//! * a number outside the range of a double, a depth of 128 and more, and text that is not UTF-8 are unreadable;
//! * a leading byte order mark is skipped; zero bytes are [`Format::Empty`] whatever the content type says.
//!
//! Whole numbers beyond 64 bits become the nearest double in filters and templates; the agent gets them digit for digit,
//! because [`Body::data`] hands on the sender's own text.

mod duplicates;
mod members;
pub mod multipart;
mod paths;
mod project;
mod siblings;
mod split;
mod surrogates;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::value::{RawValue, Value};

pub use paths::Paths;
pub use split::BATCH_MAX;

/// How deep a JSON document may nest: serde_json's own limit, so that a projection and a full parse agree.
pub const DEPTH_MAX: usize = 128;

/// The highest place in a form at which a pair may hold JSON ([`Format::FormJson`]).
const FORM_JSON_PAIR_MAX: usize = 200;

/// How a source's bodies are to be read; from the provider's preset or the source's table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PayloadRule {
    /// What the body is.
    pub kind: PayloadKind,
    /// The form field that holds JSON, such as `payload` at GitHub and Slack. A form without the field stays a form; a body
    /// in parts without it is unreadable.
    pub form_json: Option<String>,
}

/// What a source says that its bodies are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PayloadKind {
    /// The content type decides; without one JSON if it parses as an object or array, else text, else binary.
    #[default]
    Auto,
    /// JSON whatever the content type says (SNS sends it as `text/plain`).
    Json,
    /// A form whatever the content type says.
    Form,
    /// Text whatever the content type says.
    Text,
    /// JSON of any kind if it can be read as such, else text, whatever the content type says: a body that is not JSON is
    /// no fault (Promptise).
    JsonOrText,
    /// JSON in the one field [`PayloadRule::form_json`] of `multipart/form-data` (RFC 7578), which is all that is kept of
    /// it; under any other content type JSON (Dropbox Sign).
    Multipart,
}

/// What a body was read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// No bytes.
    Empty,
    /// JSON.
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// A form whose pair at this place (counted from 0) holds JSON. The place, not the name, so that a stored body
    /// reads the same after the source's configuration has changed.
    FormJson {
        /// The place of the pair.
        pair: u8,
    },
    /// UTF-8 text.
    Text,
    /// Anything else.
    Binary,
}

impl Format {
    /// One byte for the store; [`Format::from_code`] reads it back. Codes are never reused.
    pub fn code(self) -> u8 {
        match self {
            Self::Empty => 0,
            Self::Json => 1,
            Self::Form => 2,
            Self::Text => 3,
            Self::Binary => 4,
            Self::FormJson { pair } => 16_u8.saturating_add(pair),
        }
    }

    /// The format of a stored code; none for a code that no version has written.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Empty),
            1 => Some(Self::Json),
            2 => Some(Self::Form),
            3 => Some(Self::Text),
            4 => Some(Self::Binary),
            16.. if usize::from(code - 16) <= FORM_JSON_PAIR_MAX => Some(Self::FormJson { pair: code - 16 }),
            _ => None,
        }
    }
}

/// Why a body cannot be read. None of them goes away when the same request is sent again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// 415.
    #[error("bodies of type `{0}` are not read: send JSON, a URL-encoded form, text or one binary body")]
    MediaType(String),
    /// The body is declared as JSON or text and is not UTF-8.
    #[error("the body is not UTF-8 at byte {offset}: send JSON and text as UTF-8")]
    NotUtf8 {
        /// Bytes from the start of the body.
        offset: usize,
    },
    /// Not JSON by the rules of this module.
    #[error("the body is not JSON that can be read: {reason} at byte {offset}")]
    Json {
        /// What the parser says.
        reason: String,
        /// Bytes from the start of the JSON text (of the form field's value, where the JSON is in a form).
        offset: usize,
    },
    /// A form that says twice, or too late, what its JSON is.
    #[error("the form's field `{field}` {fault}: send it once, among the first {FORM_JSON_PAIR_MAX} fields")]
    FormField {
        /// The field's name.
        field: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A body in parts, and not one of them is the JSON.
    #[error("the body is multipart and its field `{field}` cannot be read: {fault}")]
    Part {
        /// The field's name.
        field: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A batch was to be split where there is no list.
    #[error("{}", not_a_list(.path))]
    NotAList {
        /// The path, joined with `.`; empty for the body itself.
        path: String,
    },
    /// A batch of more events than are taken at once.
    #[error("the body holds {count} events, and at most {BATCH_MAX} are taken in one request: send them in several")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A stored body carries a code that this version does not know.
    #[error("the stored body has the unknown format code {0}: it was written by a newer version")]
    UnknownFormat(u8),
}

fn not_a_list(path: &str) -> String {
    match path {
        "" => "the body is not a list, and this sender's events come as one".to_owned(),
        path => format!("the body has no list at `{path}` to split into events"),
    }
}

impl Unreadable {
    /// The HTTP status that says it: 415 for a media type, 413 for too many events, else 400.
    pub fn http_status(&self) -> u16 {
        match self {
            Self::MediaType(_) => 415,
            Self::TooMany { .. } => 413,
            _ => 400,
        }
    }
}

/// A body and what it was read as. Cheap to clone.
///
/// [`Body::read`] decides the format; the grammar of JSON is checked by the first [`Body::project`], which the door
/// always calls (with empty [`Paths`] if nobody asks for anything), so that the check and the projection are one pass.
#[derive(Debug, Clone)]
pub struct Body {
    format: Format,
    raw: Bytes,
    /// The JSON text, without byte order mark and lone surrogates; empty where the format is not JSON.
    json: Bytes,
}

/// What an event's `data` is to the agent.
#[derive(Debug)]
pub enum Data {
    /// The envelope's `data`: a JSON text.
    Json(Box<RawValue>),
    /// The envelope's `data_base64`: bytes that are not text, as in the JSON form of CloudEvents.
    Base64(String),
}

impl Data {
    /// The text that stands in the envelope: JSON, or base64.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Json(raw) => raw.get(),
            Self::Base64(text) => text,
        }
    }
}

impl Body {
    /// Decides what the bytes are. Does not parse JSON, except without a content type: see the type.
    pub fn read(raw: Bytes, content_type: Option<&str>, rule: &PayloadRule) -> Result<Self, Unreadable> {
        let media = content_type.map(essence).filter(|t| !t.is_empty());
        let any = rule.kind == PayloadKind::JsonOrText;
        if let (PayloadKind::Multipart, Some(field)) = (rule.kind, rule.form_json.as_deref()) {
            return Self::in_part(raw, content_type, field);
        }
        if let Some(t) = media.filter(|t| !any && starts_with_ignore_case(t, "multipart/")) {
            return Err(Unreadable::MediaType(t.chars().take(100).collect()));
        }
        if raw.is_empty() {
            return Ok(Self::plain(Format::Empty, raw));
        }
        match rule.kind {
            PayloadKind::Json | PayloadKind::Multipart => Self::json(raw),
            PayloadKind::Form => Self::form(raw, rule),
            PayloadKind::Text => Ok(Self::text(raw)),
            PayloadKind::JsonOrText => Ok(match Self::json(raw.clone()) {
                Ok(body) if body.project(&Paths::default()).is_ok() => body,
                _ => Self::text(raw),
            }),
            PayloadKind::Auto => match media.map_or(Media::Unsaid, media_of) {
                Media::Json => Self::json(raw),
                // The type is not signed, the body is: nobody may have JSON read as a form whose fields stand in its texts.
                Media::Form if begins_as_json(&raw) => Self::json(raw),
                Media::Form => Self::form(raw, rule),
                Media::Text => Ok(Self::text(raw)),
                Media::Other => Ok(Self::plain(Format::Binary, raw)),
                Media::Unsaid => Ok(Self::guess(raw)),
            },
        }
    }

    /// Rebuilds a body from what the store kept: [`Format::code`] and [`Body::raw`].
    pub fn restore(code: u8, raw: Bytes) -> Result<Self, Unreadable> {
        let format = Format::from_code(code).ok_or(Unreadable::UnknownFormat(code))?;
        match format {
            Format::Json => Self::json(raw),
            Format::FormJson { pair } => Self::form_json(raw, pair),
            _ => Ok(Self::plain(format, raw)),
        }
    }

    /// What the body was read as.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The bytes, as they came; this and the format's code are what is stored.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// Checks the whole body and builds only what lies at `paths`; everything else is missing from the answer.
    ///
    /// A list on the way to a path keeps its length, with null in the places that nobody asked for. Errors are those of
    /// a full parse, wherever in the body they are.
    pub fn project(&self, paths: &Paths) -> Result<Value, Unreadable> {
        match self.format {
            Format::Json | Format::FormJson { .. } => project::json(&self.json, paths),
            Format::Form => Ok(form_value(&self.raw, paths)),
            Format::Text if paths.wants_root() => Ok(Value::String(String::from_utf8_lossy(&self.raw).into_owned())),
            Format::Text | Format::Empty | Format::Binary => Ok(Value::Null),
        }
    }

    /// The whole body: JSON as it is, a form as an object of strings (lists where a field repeats), text as a string,
    /// nothing and binary as null.
    pub fn value(&self) -> Result<Value, Unreadable> {
        self.project(&Paths::all())
    }

    /// What the agent gets. JSON is the sender's own text, unless that has repeated keys or lone surrogates: then it is
    /// the same text with the earlier copies cut out and U+FFFD in place of the surrogates, so that no agent's parser
    /// can choose another reading than the filter's. Walks the body: call it off the answering path.
    pub fn data(&self) -> Data {
        let json = match self.format {
            Format::Json | Format::FormJson { .. } => {
                std::str::from_utf8(&self.json).ok().and_then(duplicates::without).and_then(|text| {
                    // A body that no `project` has accepted falls through to base64.
                    RawValue::from_string(text.trim().to_owned()).ok()
                })
            }
            Format::Form => serde_json::value::to_raw_value(&form_value(&self.raw, &Paths::all())).ok(),
            Format::Text => std::str::from_utf8(&self.raw).ok().and_then(|t| serde_json::value::to_raw_value(t).ok()),
            Format::Empty => serde_json::value::to_raw_value(&()).ok(),
            Format::Binary => None,
        };
        match json {
            Some(raw) => Data::Json(raw),
            None => Data::Base64(base64::engine::general_purpose::STANDARD.encode(&self.raw)),
        }
    }

    /// Splits a batch: each element of the list at `path` becomes a JSON body of its own, the sender's text for it.
    /// The whole document is checked first.
    pub fn split(&self, path: &[String]) -> Result<Vec<Self>, Unreadable> {
        if !matches!(self.format, Format::Json | Format::FormJson { .. }) {
            return Err(Unreadable::NotAList { path: path.join(".") });
        }
        project::json(&self.json, &Paths::default())?;
        let parts = split::elements(&self.json, path)?;
        Ok(parts.into_iter().map(|part| Self { format: Format::Json, raw: part.clone(), json: part }).collect())
    }

    /// The short values beside the list at `path`, if that is a member of the body itself; for [`Body::beside`].
    pub fn siblings(&self, path: &[String]) -> Result<Vec<(String, Bytes)>, Unreadable> {
        match (self.format, path) {
            (Format::Json | Format::FormJson { .. }, [list]) => siblings::of(&self.json, list),
            _ => Ok(Vec::new()),
        }
    }

    /// This element of a batch with what stood beside the list; what it has itself stays. None if that is all of it.
    pub fn beside(&self, siblings: &[(String, Bytes)]) -> Result<Option<Self>, Unreadable> {
        if siblings.is_empty() || self.format != Format::Json {
            return Ok(None);
        }
        let joined = siblings::joined(&self.json, siblings)?;
        Ok(joined.map(|text| Self { format: Format::Json, raw: text.clone(), json: text }))
    }

    /// The members of a JSON object, each the sender's text for it; none if the body is none. Checks the whole document.
    pub fn members(&self) -> Result<Option<BTreeMap<String, Bytes>>, Unreadable> {
        match self.format {
            Format::Json => members::of(&self.json),
            _ => Ok(None),
        }
    }

    fn plain(format: Format, raw: Bytes) -> Self {
        Self { format, raw, json: Bytes::new() }
    }

    fn json(raw: Bytes) -> Result<Self, Unreadable> {
        let json = readable_json(&raw)?;
        Ok(Self { format: Format::Json, raw, json })
    }

    fn in_part(raw: Bytes, content_type: Option<&str>, field: &str) -> Result<Self, Unreadable> {
        let part = multipart::part(&raw, content_type, field);
        let json = part.map_err(|fault| Unreadable::Part { field: field.to_owned(), fault })?.unwrap_or(raw);
        if json.is_empty() { Ok(Self::plain(Format::Empty, json)) } else { Self::json(json) }
    }

    fn text(raw: Bytes) -> Self {
        let format = if std::str::from_utf8(&raw).is_ok() { Format::Text } else { Format::Binary };
        Self::plain(format, raw)
    }

    fn form(raw: Bytes, rule: &PayloadRule) -> Result<Self, Unreadable> {
        let Some(field) = rule.form_json.as_deref() else { return Ok(Self::plain(Format::Form, raw)) };
        let fault = |fault| Unreadable::FormField { field: field.to_owned(), fault };
        let mut places =
            form_urlencoded::parse(&raw).enumerate().filter(|(_, (name, _))| name == field).map(|(i, _)| i);
        let Some(place) = places.next() else { return Ok(Self::plain(Format::Form, raw)) };
        if places.next().is_some() {
            // Which one counts would be a matter of taste, and the sender's check and ours could differ in it.
            return Err(fault("stands there more than once"));
        }
        let pair = u8::try_from(place).ok().filter(|p| usize::from(*p) <= FORM_JSON_PAIR_MAX);
        Self::form_json(raw, pair.ok_or_else(|| fault("comes too late"))?)
    }

    fn form_json(raw: Bytes, pair: u8) -> Result<Self, Unreadable> {
        let found = form_urlencoded::parse(&raw).nth(usize::from(pair)).map(|(_, value)| value.into_owned());
        let text = found.ok_or(Unreadable::FormField { field: format!("#{pair}"), fault: "is missing" })?;
        let json = readable_json(&Bytes::from(text))?;
        Ok(Self { format: Format::FormJson { pair }, raw, json })
    }

    fn guess(raw: Bytes) -> Self {
        let first = raw.iter().find(|b| !b.is_ascii_whitespace() && !matches!(b, 0xef | 0xbb | 0xbf));
        if matches!(first, Some(b'{' | b'['))
            && let Ok(body) = Self::json(raw.clone())
            && body.project(&Paths::default()).is_ok()
        {
            return body;
        }
        Self::text(raw)
    }
}

enum Media {
    Json,
    Form,
    Text,
    Other,
    Unsaid,
}

fn media_of(essence: &str) -> Media {
    let is = |name: &str| essence.eq_ignore_ascii_case(name);
    if is("application/json") || is("text/json") || ends_with_ignore_case(essence, "+json") {
        Media::Json
    } else if is("application/x-www-form-urlencoded") {
        Media::Form
    } else if starts_with_ignore_case(essence, "text/")
        || is("application/xml")
        || is("application/yaml")
        || ends_with_ignore_case(essence, "+xml")
        || ends_with_ignore_case(essence, "+yaml")
    {
        Media::Text
    } else {
        Media::Other
    }
}

fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

fn starts_with_ignore_case(text: &str, head: &str) -> bool {
    text.as_bytes().get(..head.len()).is_some_and(|t| t.eq_ignore_ascii_case(head.as_bytes()))
}

fn ends_with_ignore_case(text: &str, tail: &str) -> bool {
    let at = text.len().checked_sub(tail.len());
    at.and_then(|at| text.as_bytes().get(at..)).is_some_and(|t| t.eq_ignore_ascii_case(tail.as_bytes()))
}

/// UTF-8, no byte order mark, no lone surrogates; copies only if there are some.
fn readable_json(raw: &Bytes) -> Result<Bytes, Unreadable> {
    std::str::from_utf8(raw).map_err(|e| Unreadable::NotUtf8 { offset: e.valid_up_to() })?;
    let text = if raw.starts_with(b"\xef\xbb\xbf") { raw.slice(3..) } else { raw.clone() };
    Ok(match surrogates::mended(&text) {
        Some(mended) => mended.into(),
        None => text,
    })
}

/// Whether it begins as JSON's objects and lists do. No serialiser of forms writes a bare `{` or `[`; `curl -d` sends JSON
/// under a form's type unless told otherwise.
fn begins_as_json(raw: &[u8]) -> bool {
    matches!(raw.trim_ascii_start().first(), Some(b'{' | b'['))
}

fn form_value(raw: &[u8], paths: &Paths) -> Value {
    let mut object = serde_json::Map::new();
    if paths.is_empty() {
        return Value::Object(object);
    }
    for (name, value) in form_urlencoded::parse(raw) {
        if !paths.wants_root() && paths.child(&name).is_none() {
            continue;
        }
        let value = Value::String(value.into_owned());
        match object.get_mut(name.as_ref()) {
            None => {
                object.insert(name.into_owned(), value);
            }
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Value::Object(object)
}
