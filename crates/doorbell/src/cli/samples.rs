//! Deliveries to send when nobody gives one: real-looking payloads of a few senders, the presets' own test requests for
//! the others. Used by `send` and `demo`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use doorbell_core::payload::multipart;
use doorbell_core::provider::{Confidence, Format, Piece, Place, Preset, Template, TimestampPlace, Vector, Wanted};
use serde_json::{Map, Value, json};
use url::form_urlencoded;

/// A payload with its type.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// The event's type, as the sender calls it.
    pub event_type: String,
    /// The body; of a form an object of its fields, or the JSON in the field that holds it.
    pub body: Value,
    /// Whether this sender sends it as a form.
    pub is_form: bool,
}

impl Sample {
    /// The body as this sender writes it, before anything of the signature is put into it.
    pub(super) fn written(&self, preset: &Preset) -> Bytes {
        if self.is_form { form(preset, &self.body).into() } else { self.body.to_string().into() }
    }
}

/// The media type of a form.
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// A form with these fields, or with the JSON in the one field that this sender puts it in.
pub(super) fn form(preset: &Preset, body: &Value) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    match (&preset.payload.form_json, body) {
        (Some(field), json) => form.append_pair(field, &json.to_string()),
        (None, Value::Object(fields)) => form.extend_pairs(
            fields.iter().map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned))),
        ),
        (None, other) => form.append_pair("data", &other.to_string()),
    };
    form.finish()
}

/// Provider, event type, payload.
const PAYLOADS: &[(&str, &str, &str)] = &[
    ("github", "pull_request", include_str!("demo/payloads/github-pull-request.json")),
    ("github", "push", include_str!("demo/payloads/github-push.json")),
    ("github", "ping", include_str!("demo/payloads/github-ping.json")),
    ("stripe", "invoice.payment_failed", include_str!("demo/payloads/stripe-invoice-payment-failed.json")),
    ("slack", "app_mention", include_str!("demo/payloads/slack-app-mention.json")),
    ("standard-webhooks", "customer.created", include_str!("demo/payloads/standard-customer-created.json")),
];

/// Which types of a sender there are payloads of; the rest has to come from a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoSample(pub Vec<String>);

/// A payload as this sender makes it, of the given type. It holds `id` where the sender puts its ids, so that no two
/// samples are taken for the same.
///
/// # Errors
/// [`NoSample`] if this sender has types and we have no payload of this one: a body of another type would be a lie that
/// filters and agents fall for.
pub(super) fn of(preset: &Preset, event_type: Option<&str>, id: &str) -> Result<Sample, NoSample> {
    let known = known(preset);
    let mut sample = match event_type {
        None => known.into_iter().next().unwrap_or_else(|| plain(preset, UNTYPED)),
        // A general method, or a sender of the file's own, has no types that we know of: any will do.
        Some(wanted) if preset.confidence == Confidence::Own => {
            let mut sample = known.into_iter().next().unwrap_or_else(|| plain(preset, wanted));
            wanted.clone_into(&mut sample.event_type);
            put_type(preset, &mut sample.body, wanted);
            sample
        }
        Some(wanted) => match known.iter().position(|s| s.event_type == wanted) {
            Some(at) => known.into_iter().nth(at).unwrap_or_else(|| plain(preset, wanted)),
            None => {
                let mut types: Vec<String> = known.into_iter().map(|s| s.event_type).collect();
                types.retain(|t| t != UNTYPED);
                types.sort_unstable();
                types.dedup();
                return Err(NoSample(types));
            }
        },
    };
    // Where the id is not in the body, the body still has to differ: some senders' repeats are told by it.
    if !put_id(preset, &mut sample.body, id) {
        each_event(preset, &mut sample.body, |event, at| put(event, &["doorbell_sample".to_owned()], &nth(id, at)));
    }
    put_signed_fields(preset, &mut sample.body, id);
    Ok(sample)
}

/// The type of a payload that has none.
const UNTYPED: &str = "sample";

/// For a sender that nothing is known of but its rule.
fn plain(preset: &Preset, event_type: &str) -> Sample {
    let event = json!({"message": "A sample by doorbell send"});
    let body = match &preset.payload.batch {
        None => event,
        Some(path) => path.iter().rev().fold(json!([event]), |inner, step| json!({ step: inner })),
    };
    Sample { event_type: event_type.to_owned(), body, is_form: preset.payload.format == Format::Form }
}

/// Every payload of this sender, the best first: our own, then the preset's good test requests with events in them.
fn known(preset: &Preset) -> Vec<Sample> {
    let own = PAYLOADS.iter().filter(|(provider, ..)| *provider == preset.id);
    let own = own.filter_map(|(_, t, text)| {
        Some(Sample { event_type: (*t).to_owned(), body: serde_json::from_str(text).ok()?, is_form: false })
    });
    let good = preset.vectors.iter().filter(|v| v.refused.is_none()).filter_map(|v| {
        let is_form = is_form(preset, v);
        let body = body_of(preset, v, is_form)?;
        let event_type = v.labels.iter().find(|(k, _)| k == "type").map_or(UNTYPED, |(_, t)| t).to_owned();
        (has_events(preset, &body) && !is_question(preset, &body)).then_some(Sample { event_type, body, is_form })
    });
    let mut all: Vec<Sample> = own.chain(good).collect();
    all.sort_by_key(|sample| sample.is_form);
    all
}

fn media(vector: &Vector) -> Option<&str> {
    vector.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type")).map(|(_, value)| value.as_str())
}

fn is_form(preset: &Preset, vector: &Vector) -> bool {
    let says_so = || media(vector).is_some_and(|media| media.starts_with(FORM));
    preset.payload.format == Format::Form || (preset.payload.format == Format::Auto && says_so())
}

/// The body of a test request, if it can be sent as this sender's.
fn body_of(preset: &Preset, vector: &Vector, is_form: bool) -> Option<Value> {
    let json = |bytes: &[u8]| serde_json::from_slice(bytes).ok();
    match &preset.payload.form_json {
        Some(field) if is_form => {
            let mut fields = form_urlencoded::parse(&vector.body);
            fields.find(|(name, _)| name == field).and_then(|(_, text)| json(text.as_bytes()))
        }
        None if is_form => {
            let fields: Map<String, Value> = form_urlencoded::parse(&vector.body)
                .map(|(name, value)| (name.into_owned(), Value::from(value.into_owned())))
                .collect();
            Some(Value::Object(fields))
        }
        Some(field) if preset.payload.format == Format::Multipart => {
            let body = Bytes::from(vector.body.clone());
            let part = multipart::part(&body, media(vector), field).ok()?;
            json(&part.unwrap_or(body))
        }
        _ => json(&vector.body),
    }
}

/// Whether it is an object, or holds a list of them where this sender's requests do.
fn has_events(preset: &Preset, body: &Value) -> bool {
    let mut events = 0;
    let mut body = body.clone();
    let all = each_event(preset, &mut body, |event, _| {
        events += 1;
        event.is_object()
    });
    all && events > 0
}

/// Whether it asks for an answer instead of telling something.
fn is_question(preset: &Preset, body: &Value) -> bool {
    let told = |place: &Place, wanted: &Wanted| match (place, wanted) {
        (Place::Body(path), Wanted::Text(text)) => match walk(body, path) {
            Some(Value::String(said)) => said == text,
            Some(Value::Number(number)) => number.to_string() == text.as_str(),
            _ => false,
        },
        (Place::Body(path), _) => walk(body, path).is_some(),
        _ => false,
    };
    let asks = |h: &doorbell_core::provider::Handshake| {
        h.method == http::Method::POST && h.when.iter().all(|(place, wanted)| told(place, wanted))
    };
    preset.handshakes.iter().any(asks)
}

fn walk<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |here, step| match here {
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

/// Does it to each event of a body; whether all said yes. None if there is no list where one should be.
fn each_event(preset: &Preset, body: &mut Value, mut act: impl FnMut(&mut Value, usize) -> bool) -> bool {
    let Some(path) = &preset.payload.batch else { return act(body, 0) };
    let list = path.iter().try_fold(body, |here, step| here.get_mut(step)).and_then(Value::as_array_mut);
    let Some(list) = list else { return false };
    list.iter_mut().enumerate().fold(true, |all, (at, event)| act(event, at) && all)
}

/// The id of one of several events.
fn nth(id: &str, at: usize) -> String {
    if at == 0 { id.to_owned() } else { format!("{id}-{at}") }
}

/// Puts the id where the preset looks for one, if that is in the body and not something that the sender makes of it.
pub(super) fn put_id(preset: &Preset, body: &mut Value, id: &str) -> bool {
    let made = |place: &Place| {
        let time = preset.scheme.signed().and_then(|s| s.timestamp.as_ref()).map(|t| &t.place);
        matches!(time, Some(TimestampPlace::At(at)) if at == place) || preset.credentials().contains(place)
    };
    let of_event = |piece: &&Piece| {
        let (Piece::At(place) | Piece::Optional(place) | Piece::Lower(place)) = piece else { return false };
        matches!(place, Place::Body(_) | Place::Form(_)) && !made(place)
    };
    let first = preset.event.id.first().and_then(|t| t.pieces().iter().find(of_event));
    let Some(Piece::At(place) | Piece::Optional(place) | Piece::Lower(place)) = first else { return false };
    each_event(preset, body, |event, at| put_at(event, place, &nth(id, at)))
}

/// Puts the type where the preset looks for it, if that is in the body.
pub(super) fn put_type(preset: &Preset, body: &mut Value, event_type: &str) -> bool {
    match preset.event.event_type.first().map(Template::pieces) {
        Some([Piece::At(place)]) => each_event(preset, body, |event, _| put_at(event, place, event_type)),
        _ => false,
    }
}

/// Where a form's field is all that is signed, it is all that tells two deliveries apart. Braintree's: XML in base64, and
/// longer than what a handshake may ask us to sign.
fn put_signed_fields(preset: &Preset, body: &mut Value, id: &str) {
    let templates = preset.scheme.signed().map(|s| s.templates.as_slice()).unwrap_or_default();
    for piece in templates.iter().flat_map(Template::pieces) {
        if let Piece::At(place @ Place::Form(_)) = piece {
            let text = format!(
                "<notification><kind>sample</kind><subject>A sample by doorbell send</subject><id>{id}</id></notification>\n"
            );
            put_at(body, place, &STANDARD.encode(text));
        }
    }
}

fn put_at(body: &mut Value, place: &Place, text: &str) -> bool {
    match place {
        Place::Body(path) => put(body, path, text),
        Place::Form(name) => put(body, std::slice::from_ref(name), text),
        Place::Header(_) | Place::Query(_) | Place::Path => false,
    }
}

fn put(body: &mut Value, path: &[String], text: &str) -> bool {
    let Some((last, way)) = path.split_last() else { return false };
    let mut at = body;
    for step in way {
        let Some(members) = at.as_object_mut() else { return false };
        at = members.entry(step.clone()).or_insert_with(|| json!({}));
    }
    match at.as_object_mut() {
        Some(members) => {
            members.insert(last.clone(), json!(text));
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use doorbell_core::provider;

    use super::*;

    #[test]
    fn every_payload_is_json_of_a_known_sender() {
        for (id, event_type, text) in PAYLOADS {
            assert!(provider::get(id).is_some(), "{id}");
            assert!(serde_json::from_str::<Value>(text).unwrap().is_object(), "{id} {event_type}");
        }
    }

    #[test]
    fn two_samples_of_one_sender_differ() {
        for preset in provider::presets().values() {
            assert_ne!(of(preset, None, "a").unwrap().body, of(preset, None, "b").unwrap().body, "{}", preset.id);
        }
    }

    #[test]
    fn a_sample_has_the_type_that_was_asked_for_or_there_is_none() {
        let get = |id: &str| provider::get(id).unwrap();
        let push = of(get("github"), Some("push"), "d-9").unwrap();
        assert_eq!((push.event_type.as_str(), push.body["ref"].as_str()), ("push", Some("refs/heads/main")));
        assert_eq!(push.body.get("pull_request"), None);
        assert_eq!(of(get("github"), None, "d-9").unwrap().event_type, "pull_request");
        let NoSample(types) = of(get("github"), Some("release"), "d-9").unwrap_err();
        assert_eq!(types, ["ping", "pull_request", "push"]);
        let stripe = of(get("stripe"), Some("invoice.payment_failed"), "evt_9").unwrap();
        assert_eq!(
            (stripe.body["type"].as_str(), stripe.body["id"].as_str()),
            (Some("invoice.payment_failed"), Some("evt_9"))
        );
        assert!(of(get("stripe"), Some("charge.refunded"), "evt_9").is_err());
        assert_eq!(of(get("bearer"), Some("build.done"), "1").unwrap().event_type, "build.done");
    }
}
