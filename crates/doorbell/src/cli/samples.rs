//! Deliveries to send when nobody gives one: real-looking payloads of a few senders, the presets' own test requests for
//! the others. Used by `send` and `demo`.

use doorbell_core::provider::{Piece, Place, Preset, Template};
use serde_json::{Value, json};

/// A payload with its type.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// The event's type, as the sender calls it.
    pub event_type: String,
    /// The body.
    pub body: Value,
}

/// Provider, event type, payload.
const PAYLOADS: &[(&str, &str, &str)] = &[
    ("github", "pull_request", include_str!("demo/payloads/github-pull-request.json")),
    ("stripe", "invoice.payment_failed", include_str!("demo/payloads/stripe-invoice-payment-failed.json")),
    ("slack", "app_mention", include_str!("demo/payloads/slack-app-mention.json")),
    ("standard-webhooks", "customer.created", include_str!("demo/payloads/standard-customer-created.json")),
];

/// A payload as this sender makes it, of the given type if there is one of it. It holds `id` where the sender puts its
/// ids, so that no two samples are taken for the same.
pub(super) fn of(preset: &Preset, event_type: Option<&str>, id: &str) -> Sample {
    let wanted = |t: &str| event_type.is_none_or(|e| e == t);
    let own = PAYLOADS.iter().find(|(provider, t, _)| *provider == preset.id && wanted(t));
    let own = own
        .and_then(|(_, t, text)| Some(Sample { event_type: (*t).to_owned(), body: serde_json::from_str(text).ok()? }));
    let mut sample = own.or_else(|| from_vectors(preset, event_type)).unwrap_or_else(|| Sample {
        event_type: event_type.unwrap_or("sample").to_owned(),
        body: json!({"message": "A sample by doorbell send"}),
    });
    if let Some(event_type) = event_type {
        event_type.clone_into(&mut sample.event_type);
        put_label(&mut sample.body, &preset.event.event_type, event_type);
    }
    // Where the id is not in the body, the body still has to differ: some senders' repeats are told by it.
    if !put_label(&mut sample.body, &preset.event.id, id) {
        put(&mut sample.body, &["doorbell_sample".to_owned()], id);
    }
    sample
}

/// The first good test request with a JSON object, of that type if there is one.
fn from_vectors(preset: &Preset, event_type: Option<&str>) -> Option<Sample> {
    let good = preset.vectors.iter().filter(|v| v.refused.is_none()).filter_map(|v| {
        let body: Value = serde_json::from_slice(&v.body).ok().filter(Value::is_object)?;
        let event_type = v.labels.iter().find(|(k, _)| k == "type").map_or("sample", |(_, t)| t).to_owned();
        Some(Sample { event_type, body })
    });
    let samples: Vec<Sample> = good.collect();
    let of_type = samples.iter().find(|s| event_type.is_none_or(|t| t == s.event_type));
    of_type.or(samples.first()).cloned()
}

/// Puts `text` where the first of the templates looks, if that is in the body.
pub(super) fn put_label(body: &mut Value, templates: &[Template], text: &str) -> bool {
    match templates.first().map(Template::pieces) {
        Some([Piece::At(Place::Body(path))]) => put(body, path, text),
        _ => false,
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
            assert_ne!(of(preset, None, "a").body, of(preset, None, "b").body, "{}", preset.id);
        }
    }

    #[test]
    fn a_sample_has_the_type_that_was_asked_for() {
        let stripe = of(provider::get("stripe").unwrap(), Some("charge.refunded"), "evt_9");
        assert_eq!(
            (stripe.body["type"].as_str(), stripe.body["id"].as_str()),
            (Some("charge.refunded"), Some("evt_9"))
        );
        let github = of(provider::get("github").unwrap(), Some("push"), "d-9");
        assert_eq!(github.event_type, "push");
    }
}
