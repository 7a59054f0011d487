//! `CloudEvents` 1.0 over HTTP: binary, structured and batched requests become events one to one. Asked by `read` for sources
//! whose preset takes them; the media type and the `ce-*` headers tell the form, nothing is guessed from a body.
//!
//! Rules: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>, `bindings/http-protocol-binding.md` and
//! `formats/json-format.md`. Attributes are kept as `ce-*` headers whatever form they came in, so that one filter reads all.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_PAD_INDIFFERENT;
use bytes::Bytes;
use http::{HeaderMap, header};

use crate::Timestamp;
use crate::payload::{Body, PayloadKind, PayloadRule, Unreadable};
use crate::provider::{LABEL_BYTES_MAX, Labels, is_readable, is_secret_name};

/// The most attributes of one event. The specification has nine; extensions come on top.
const ATTRIBUTES_MAX: usize = 64;
/// The longest value of one. The specification asks for no event over 64 KiB; ids and URLs are far shorter.
const VALUE_BYTES_MAX: usize = 4096;

/// How a request says that it carries events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// Attributes in headers, the data as the body.
    Binary,
    /// One JSON object.
    Structured,
    /// A JSON list of them.
    Batch,
}

/// Why a request is no event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is declared as events in a format that is not read.
    Format(String),
    /// It breaks a rule of the specification.
    Invalid(String),
    /// Its JSON or its data cannot be read.
    Unreadable(Unreadable),
}

/// One event.
#[derive(Debug)]
pub(super) struct Event {
    /// What it is called. The id is source and id, which together name one event.
    pub labels: Labels,
    /// Its attributes as headers, and the content type of its data.
    pub headers: Vec<(String, String)>,
    /// Its data.
    pub body: Body,
    /// The text of it that came, for telling redeliveries.
    pub as_sent: Bytes,
}

/// The form of a request by its head; none if it does not say that it carries `CloudEvents`.
pub(super) fn form(headers: &HeaderMap) -> Result<Option<Form>, Wrong> {
    let media = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |v| v.as_bytes());
    let media = media.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let is = |name: &str| media.eq_ignore_ascii_case(name.as_bytes());
    if is("application/cloudevents+json") {
        return Ok(Some(Form::Structured));
    }
    if is("application/cloudevents-batch+json") {
        return Ok(Some(Form::Batch));
    }
    const FAMILY: &[u8] = b"application/cloudevents";
    if media.len() >= FAMILY.len() && media[..FAMILY.len()].eq_ignore_ascii_case(FAMILY) {
        return Err(Wrong::Format(String::from_utf8_lossy(media).chars().take(100).collect()));
    }
    let is_binary = ["ce-specversion", "ce-id", "ce-source", "ce-type"].iter().any(|name| headers.contains_key(*name));
    Ok(is_binary.then_some(Form::Binary))
}

/// The events of a request of this form.
pub(super) fn read(form: Form, headers: &HeaderMap, raw: &Bytes, rule: &PayloadRule) -> Result<Vec<Event>, Wrong> {
    let json = || Body::read(raw.clone(), None, &PayloadRule { kind: PayloadKind::Json, form_json: None });
    match form {
        Form::Binary => Ok(vec![binary(headers, raw, rule)?]),
        Form::Structured => Ok(vec![structured(&json()?)?]),
        Form::Batch => {
            let of_element = |(at, element): (usize, Body)| {
                structured(&element).map_err(|wrong| match wrong {
                    Wrong::Invalid(why) => Wrong::Invalid(format!("element {at} of the batch: {why}")),
                    other => other,
                })
            };
            json()?.split(&[])?.into_iter().enumerate().map(of_element).collect()
        }
    }
}

impl From<Unreadable> for Wrong {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(unreadable)
    }
}

fn binary(headers: &HeaderMap, raw: &Bytes, rule: &PayloadRule) -> Result<Event, Wrong> {
    let mut attributes = BTreeMap::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        let value = percent_decoded(value.as_bytes()).ok_or_else(|| invalid(name, "is no UTF-8 text"))?;
        if attributes.insert(name.to_owned(), value).is_some() {
            return Err(invalid(name, "is there twice"));
        }
    }
    let media = headers.get(header::CONTENT_TYPE).map(|v| String::from_utf8_lossy(v.as_bytes()));
    let body = Body::read(raw.clone(), media.as_deref(), rule)?;
    attributes.remove("datacontenttype");
    let mut event = event(attributes, body, raw.clone(), media.map(Cow::into_owned))?;
    // The headers are not what is signed.
    event.labels.id_signed = false;
    Ok(event)
}

fn structured(whole: &Body) -> Result<Event, Wrong> {
    let mut members =
        whole.members()?.ok_or_else(|| Wrong::Invalid("an event is a JSON object, and this is none".to_owned()))?;
    let (data, data_base64) = (members.remove("data"), members.remove("data_base64"));
    let mut attributes = BTreeMap::new();
    for (name, text) in members {
        let value = match serde_json::from_slice(&text) {
            // Null is the same as not there.
            Ok(serde_json::Value::Null) => continue,
            Ok(serde_json::Value::String(text)) => text,
            Ok(serde_json::Value::Bool(_) | serde_json::Value::Number(_)) if !REQUIRED.contains(&&*name) => {
                String::from_utf8_lossy(&text).into_owned()
            }
            _ => return Err(invalid(&name, "is no text")),
        };
        attributes.insert(name, value);
    }
    let media = attributes.remove("datacontenttype");
    let body = body_of(data, data_base64, media.as_deref())?;
    event(attributes, body, whole.raw().clone(), media)
}

/// The data of an event in JSON: a JSON value, or bytes in base64. Of a media type that is not JSON a text is the data itself.
fn body_of(data: Option<Bytes>, data_base64: Option<Bytes>, media: Option<&str>) -> Result<Body, Wrong> {
    let auto = PayloadRule::default();
    let text = |bytes: &Bytes| serde_json::from_slice::<String>(bytes).ok();
    let json = |data: Bytes| Body::read(data, Some("application/json"), &auto);
    Ok(match (data, data_base64) {
        (Some(_), Some(_)) => return Err(Wrong::Invalid("`data` and `data_base64` are both there".to_owned())),
        (None, None) => Body::read(Bytes::new(), None, &auto)?,
        (None, Some(encoded)) => {
            let bytes = text(&encoded).and_then(|text| STANDARD_PAD_INDIFFERENT.decode(text).ok());
            Body::read(bytes.ok_or_else(|| invalid("data_base64", "is no base64"))?.into(), media, &auto)?
        }
        (Some(data), None) => match (media.filter(|m| !is_json(m)), text(&data)) {
            (Some(media), Some(text)) => Body::read(text.into(), Some(media), &auto)?,
            _ => json(data)?,
        },
    })
}

fn is_json(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

fn event(
    attributes: BTreeMap<String, String>,
    body: Body,
    as_sent: Bytes,
    media: Option<String>,
) -> Result<Event, Wrong> {
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(Wrong::Invalid(format!("it has more than {ATTRIBUTES_MAX} attributes")));
    }
    for (name, value) in &attributes {
        // Capitals are against the rules too; senders that write them mean no harm, and headers have none.
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(invalid(name, "cannot be the name of an attribute: letters and digits only"));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(invalid(name, "is longer than 4096 bytes"));
        }
        if value.chars().any(char::is_control) {
            return Err(invalid(name, "holds a control character"));
        }
    }
    let required = |name: &str| {
        attributes.get(name).map(String::as_str).filter(|v| !v.is_empty()).ok_or_else(|| invalid(name, "is missing"))
    };
    if required("specversion")? != "1.0" {
        return Err(invalid("specversion", "is not 1.0"));
    }
    let (id, source, event_type) = (required("id")?, required("source")?, required("type")?);
    if source.contains(char::is_whitespace) {
        return Err(invalid("source", "is no URI reference: it holds a space"));
    }
    if attributes.get("subject").is_some_and(String::is_empty) {
        return Err(invalid("subject", "is empty: leave it out"));
    }
    let time = match attributes.get("time") {
        Some(text) => Some(Timestamp::parse(text).ok_or_else(|| invalid("time", "is not written as RFC 3339 says"))?),
        None => None,
    };
    let labels = Labels {
        // A source holds no space, so no two pairs give one text. What is too long is known by its digest, as ever.
        id: Some(format!("{source} {id}")).filter(|id| is_readable(id)).map(whole_or_digest),
        id_signed: true,
        event_type: Some(short(event_type)),
        subject: attributes.get("subject").map(|s| short(s)),
        actor: None,
        time,
    };
    let kept = attributes.into_iter().filter(|(name, _)| !is_secret_name(name));
    let mut headers: Vec<_> = kept.map(|(name, value)| (format!("ce-{}", name.to_ascii_lowercase()), value)).collect();
    headers.extend(media.map(|media| (header::CONTENT_TYPE.as_str().to_owned(), short(&media))));
    Ok(Event { labels, headers, body, as_sent })
}

fn invalid(name: &str, why: &str) -> Wrong {
    let name: String = name.chars().take(64).flat_map(char::escape_default).collect();
    Wrong::Invalid(format!("`{name}` {why}"))
}

fn short(text: &str) -> String {
    text[..text.floor_char_boundary(LABEL_BYTES_MAX)].to_owned()
}

fn whole_or_digest(text: String) -> String {
    if text.len() <= LABEL_BYTES_MAX { text } else { format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex()) }
}

/// A header's value (HTTP binding, 3.1.3.2): what is not printable ASCII comes as `%XX` of its UTF-8.
fn percent_decoded(value: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| first == b'%');
        let byte = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            // A sign that stands for itself: older senders do not encode it.
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(json: &str) -> Result<Event, Wrong> {
        let raw = Bytes::copy_from_slice(json.as_bytes());
        read(Form::Structured, &HeaderMap::new(), &raw, &PayloadRule::default()).map(|mut events| events.remove(0))
    }

    #[test]
    fn the_media_type_tells_the_form_and_nothing_else_does() {
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            form(&headers)
        };
        assert_eq!(of("content-type", "Application/CloudEvents+JSON; charset=utf-8"), Ok(Some(Form::Structured)));
        assert_eq!(of("content-type", "application/cloudevents-batch+json"), Ok(Some(Form::Batch)));
        assert_eq!(of("ce-specversion", "1.0"), Ok(Some(Form::Binary)));
        assert_eq!(of("ce-id", "1"), Ok(Some(Form::Binary)), "to be refused, not to be taken for something else");
        assert_eq!(of("content-type", "application/json"), Ok(None));
        assert!(matches!(of("content-type", "application/cloudevents+avro"), Err(Wrong::Format(_))));
    }

    #[test]
    fn two_pairs_of_source_and_id_never_give_one_key() {
        let key = |source: &str, id: &str| {
            let json = format!("{{\"specversion\":\"1.0\",\"type\":\"t\",\"source\":\"{source}\",\"id\":\"{id}\"}}");
            one(&json).unwrap().labels.id.unwrap()
        };
        assert_ne!(key("/a#b", "c"), key("/a", "b#c"));
        assert_ne!(key("/a", "b c"), key("/a/b", "c"));
        let long = "x".repeat(300);
        assert_ne!(key("/a", &format!("{long}1")), key("/a", &format!("{long}2")));
    }

    #[test]
    fn a_batch_over_the_limit_is_refused_whole() {
        let one = "{\"specversion\":\"1.0\",\"type\":\"t\",\"source\":\"/\",\"id\":\"1\"}";
        let raw = Bytes::from(format!("[{}]", vec![one; 10_001].join(",")));
        let wrong = read(Form::Batch, &HeaderMap::new(), &raw, &PayloadRule::default()).unwrap_err();
        assert_eq!(wrong, Wrong::Unreadable(Unreadable::TooMany { count: 10_001 }));
    }

    #[test]
    fn data_is_what_its_media_type_says() {
        let data = |rest: &str| {
            let json = format!("{{\"specversion\":\"1.0\",\"type\":\"t\",\"source\":\"/\",\"id\":\"1\"{rest}}}");
            one(&json).unwrap().body.data().as_str().to_owned()
        };
        assert_eq!(data(""), "null");
        assert_eq!(data(r#","data":{"b":1.50, "a":2}"#), r#"{"b":1.50, "a":2}"#, "the sender's own text");
        assert_eq!(data(r#","data":"text""#), "\"text\"");
        assert_eq!(data(r#","datacontenttype":"text/plain","data":"{}""#), "\"{}\"");
        assert_eq!(data(r#","datacontenttype":"application/json","data_base64":"eyJhIjoxfQ==""#), "{\"a\":1}");
        assert_eq!(data(r#","datacontenttype":"image/png","data_base64":"/w==""#), "/w==");
    }

    #[test]
    fn a_value_in_a_header_may_be_percent_encoded() {
        assert_eq!(percent_decoded(b"Euro%20%E2%82%AC").as_deref(), Some("Euro \u{20ac}"));
        assert_eq!(percent_decoded(b"100%").as_deref(), Some("100%"));
        assert_eq!(percent_decoded(b"%ff"), None);
    }
}
