//! Places in a request, written `header:x-github-event`, `query:id`, `form:command` or `body:repository.full_name`.
//!
//! Presets name places for the signature, the timestamp, the labels, the handshakes and the secrets to take out. There
//! are two ways to read one: [`Place::exact`] for what decides over trust (exactly one value, its bytes untouched) and
//! [`Place::text`] for labels (the first value, as text, bytes that are no UTF-8 replaced).

use std::borrow::Cow;
use std::fmt;

use http::HeaderName;
use serde_json::Value;

use super::Request;

/// Where in a request a value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A header.
    Header(HeaderName),
    /// A parameter of the query.
    Query(String),
    /// A field of an `application/x-www-form-urlencoded` body.
    Form(String),
    /// A path into the JSON body: keys of objects, or places in lists counted from 0.
    Body(Vec<String>),
    /// What stands in the path behind the source's own path: a token. Only the scheme's own token may stand there.
    Path,
}

/// Why a value that decides over trust could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NotExact {
    Missing,
    Repeated,
}

impl Place {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((kind, name)) = text.split_once(':') else {
            return Err(format!("`{text}` is not a place: write `header:…`, `body:…`, `query:…` or `form:…`"));
        };
        if name.is_empty() {
            return Err(format!("`{text}` names nothing: add a name after the colon"));
        }
        match kind {
            "header" => HeaderName::from_bytes(name.as_bytes())
                .map(Self::Header)
                .map_err(|_| format!("`{name}` cannot be the name of a header")),
            "query" => Ok(Self::Query(name.to_owned())),
            "form" => Ok(Self::Form(name.to_owned())),
            "body" => {
                let path: Vec<String> = name.split('.').map(str::to_owned).collect();
                if path.iter().any(String::is_empty) {
                    return Err(format!("`{text}` has an empty step: write for example `body:event.type`"));
                }
                Ok(Self::Body(path))
            }
            other => Err(format!("`{other}:` is not a kind of place: use header, body, query or form")),
        }
    }

    /// The one value, as it came. `body` is the parsed body, needed for [`Place::Body`] only.
    pub(super) fn exact<'r>(&self, request: &Request<'r>, body: Option<&'r Value>) -> Result<Cow<'r, [u8]>, NotExact> {
        match self {
            Self::Header(name) => {
                let mut values = request.headers.get_all(name).into_iter();
                let first = values.next().ok_or(NotExact::Missing)?;
                if values.next().is_some() {
                    return Err(NotExact::Repeated);
                }
                Ok(Cow::Borrowed(first.as_bytes()))
            }
            Self::Query(name) => one_field(request.query.as_bytes(), name),
            Self::Form(name) => one_field(request.body, name),
            Self::Body(path) => {
                let value = body.and_then(|b| walk(b, path)).ok_or(NotExact::Missing)?;
                match scalar(value).ok_or(NotExact::Missing)? {
                    Cow::Borrowed(s) => Ok(Cow::Borrowed(s.as_bytes())),
                    Cow::Owned(s) => Ok(Cow::Owned(s.into_bytes())),
                }
            }
            Self::Path => behind(request.path).map(|part| Cow::Borrowed(part.as_bytes())).ok_or(NotExact::Missing),
        }
    }

    /// The first value as text; none if it is absent, empty, null, an object or a list.
    pub fn text<'r>(&self, request: &Request<'r>, view: &'r Value) -> Option<Cow<'r, str>> {
        let text = match self {
            Self::Header(name) => String::from_utf8_lossy(request.headers.get(name)?.as_bytes()),
            Self::Query(name) => first_field(request.query.as_bytes(), name)?,
            Self::Form(name) => first_field(request.body, name)?,
            Self::Body(path) => scalar(walk(view, path)?)?,
            // Never a label, which is kept.
            Self::Path => return None,
        };
        (!text.is_empty()).then_some(text)
    }

    /// The bytes in which the value stands, as they came: the header's, or for the others all that they are read from.
    pub(crate) fn raw<'r>(&self, request: &Request<'r>) -> &'r [u8] {
        match self {
            Self::Header(name) => request.headers.get(name).map_or(&[], |value| value.as_bytes()),
            Self::Query(_) => request.query.as_bytes(),
            Self::Path => request.path.as_bytes(),
            Self::Form(_) | Self::Body(_) => request.body,
        }
    }

    /// The path, if this place is in the JSON body.
    pub fn body_path(&self) -> Option<&[String]> {
        match self {
            Self::Body(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Query(name) => write!(f, "query parameter {name}"),
            Self::Form(name) => write!(f, "form field {name}"),
            Self::Body(path) => write!(f, "body field {}", path.join(".")),
            Self::Path => f.write_str("the path, behind the source's own"),
        }
    }
}

/// The one part of a path.
fn behind(path: &str) -> Option<&str> {
    path.strip_prefix('/').filter(|part| !part.is_empty() && !part.contains('/'))
}

fn one_field<'r>(encoded: &'r [u8], name: &str) -> Result<Cow<'r, [u8]>, NotExact> {
    let mut values = form_urlencoded::parse(encoded).filter(|(key, _)| key == name);
    let (_, first) = values.next().ok_or(NotExact::Missing)?;
    if values.next().is_some() {
        return Err(NotExact::Repeated);
    }
    Ok(match first {
        Cow::Borrowed(s) => Cow::Borrowed(s.as_bytes()),
        Cow::Owned(s) => Cow::Owned(s.into_bytes()),
    })
}

fn first_field<'r>(encoded: &'r [u8], name: &str) -> Option<Cow<'r, str>> {
    form_urlencoded::parse(encoded).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The value at a path: keys of objects, or places in lists counted from 0.
pub(super) fn walk<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |here, step| match here {
        Value::Object(map) => map.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        _ => None,
    })
}

fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(s) => Some(Cow::Borrowed(s)),
        Value::Number(n) => Some(Cow::Owned(n.to_string())),
        Value::Bool(b) => Some(Cow::Borrowed(if *b { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
