//! Deliveries to send when nobody gives one: real-looking payloads of a few senders, the presets' own test requests for
//! the others. Used by `send` and `demo`.

use doorbell_core::provider::{Confidence, Piece, Place, Preset, Template};
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
        None => known.into_iter().next().unwrap_or_else(|| plain("sample")),
        // A general method, or a sender of the file's own, has no types that we know of: any will do.
        Some(wanted) if preset.confidence == Confidence::Own => {
            let mut sample = known.into_iter().next().unwrap_or_else(|| plain(wanted));
            wanted.clone_into(&mut sample.event_type);
            put_label(&mut sample.body, &preset.event.event_type, wanted);
            sample
        }
        Some(wanted) => match known.iter().position(|s| s.event_type == wanted) {
            Some(at) => known.into_iter().nth(at).unwrap_or_else(|| plain(wanted)),
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
    if !put_label(&mut sample.body, &preset.event.id, id) {
        put(&mut sample.body, &["doorbell_sample".to_owned()], id);
    }
    Ok(sample)
}

/// The type of a payload that has none.
const UNTYPED: &str = "sample";

fn plain(event_type: &str) -> Sample {
    Sample { event_type: event_type.to_owned(), body: json!({"message": "A sample by doorbell send"}) }
}

/// Every payload of this sender, the best first: our own, then the preset's good test requests with a JSON object.
fn known(preset: &Preset) -> Vec<Sample> {
    let own = PAYLOADS.iter().filter(|(provider, ..)| *provider == preset.id);
    let own = own.filter_map(|(_, t, text)| {
        Some(Sample { event_type: (*t).to_owned(), body: serde_json::from_str(text).ok()? })
    });
    let good = preset.vectors.iter().filter(|v| v.refused.is_none()).filter_map(|v| {
        let body: Value = serde_json::from_slice(&v.body).ok().filter(Value::is_object)?;
        let event_type = v.labels.iter().find(|(k, _)| k == "type").map_or(UNTYPED, |(_, t)| t).to_owned();
        Some(Sample { event_type, body })
    });
    own.chain(good).collect()
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
