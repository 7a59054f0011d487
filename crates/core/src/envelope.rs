//! What an agent is told: the envelope of one attempt, built from the stored run and event and the trigger's prompt.
//! The worker builds it for an attempt, the API for a dry run.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::attempt::{Envelope, EventFacts, RunFacts};
use crate::clock::{Clock, Timestamp};
use crate::event::Event;
use crate::fence::Fence;
use crate::loop_guard;
use crate::payload::{Body, Data};
use crate::run::Run;
use crate::scope::{self, Scope};
use crate::template::Template;
use crate::trigger::{Input, Trigger};

/// The envelope of an attempt at `run` that ends at `deadline`.
///
/// # Errors
/// A sentence on why the prompt could not be rendered; the same event and trigger fail again.
pub fn for_run(
    run: &Run,
    event: &Event,
    trigger: &Trigger,
    deadline: Timestamp,
    clock: &Clock,
) -> Result<Envelope, String> {
    let facts = RunFacts {
        id: run.id,
        attempt: run.attempt,
        agent: run.agent.clone(),
        trigger: run.trigger.clone(),
        key: run.key.clone(),
        deadline,
        hops: loop_guard::next(event.facts.hops),
    };
    build(facts, event, trigger, clock)
}

/// The envelope with these facts of a run: what [`for_run`] would tell, without a run.
///
/// # Errors
/// As [`for_run`].
pub fn build(run: RunFacts, event: &Event, trigger: &Trigger, clock: &Clock) -> Result<Envelope, String> {
    let body = event.body.clone().unwrap_or_default();
    let body = Body::restore(event.body_format, body).map_err(|e| e.to_string())?;
    let data = body.data();
    let prompt = prompt(event, &body, &data, trigger, clock)?;
    let event = told_with(event, data);
    let scenario_inputs = trigger.input.as_ref().map(|input| inputs(input, &event)).unwrap_or_default();
    Ok(Envelope { run, event, prompt, events: Vec::new(), scenario_inputs })
}

/// The event under the names that its agent knows. What is not text is null there: the event's own `data_base64` has it.
fn inputs(input: &Input, event: &EventFacts) -> BTreeMap<String, Box<RawValue>> {
    let data = event.data.clone().unwrap_or_default();
    match input {
        Input::Data(name) => BTreeMap::from([(name.clone(), data)]),
        Input::Typed(name) => {
            let kind = serde_json::value::to_raw_value(&event.event_type).unwrap_or_default();
            BTreeMap::from([(name.clone(), kind), ("payload".to_owned(), data)])
        }
    }
}

/// An event as agents and the API are told it.
pub fn told(event: &Event, body: &Body) -> EventFacts {
    told_with(event, body.data())
}

fn told_with(event: &Event, data: Data) -> EventFacts {
    let (data, data_base64) = match data {
        Data::Json(raw) => (Some(raw), None),
        Data::Base64(text) => (None, Some(text)),
    };
    EventFacts {
        id: event.id,
        source: event.source.clone(),
        event_type: event.event_type.clone(),
        subject: event.subject.clone(),
        actor: event.facts.actor.clone(),
        time: event.facts.time.unwrap_or(event.received_at),
        verified: event.facts.verified_by.is_some(),
        data,
        data_base64,
        headers: object(&event.facts.headers),
        query: object(&event.facts.query),
    }
}

/// The scope in which filters, keys and prompts see a stored event; `data` is its body, projected or whole.
pub fn scope<'a>(event: &'a Event, data: &'a Value) -> Scope<'a> {
    Scope {
        event: scope::EventFacts {
            id: event.facts.sender_id.as_deref(),
            source: event.source.as_str(),
            kind: &event.event_type,
            subject: event.subject.as_deref(),
            actor: event.facts.actor.as_deref(),
            time: event.facts.time.unwrap_or(event.received_at),
            verified: event.facts.verified_by.is_some(),
        },
        data,
        headers: &event.facts.headers,
        query: &event.facts.query,
    }
}

fn prompt(event: &Event, body: &Body, data: &Data, trigger: &Trigger, clock: &Clock) -> Result<String, String> {
    let fence = Fence::new(clock.random());
    // Only a template looks into the body.
    let value = match trigger.prompt {
        Some(_) => body.value().map_err(|e| e.to_string())?,
        None => Value::Null,
    };
    let shown = cut(shown(data), trigger.max_payload_chars);
    fenced(&fence, trigger.prompt.as_ref(), &scope(event, &value), &shown)
}

/// The whole prompt: the operator's part (or a plain sentence where there is none) and the fenced event, where the
/// operator put it or at the end.
fn fenced(fence: &Fence, template: Option<&Template>, scope: &Scope<'_>, shown: &str) -> Result<String, String> {
    let block = fence.block(shown);
    let Some(template) = template else {
        let kind = if scope.event.kind.is_empty() { "event" } else { scope.event.kind };
        let line = format!("An event arrived: {} from source {}.", fence.value(kind), scope.event.source);
        return Ok(format!("{line}\n\n{block}"));
    };
    let text = template.render_prompt(scope, fence, &block).map_err(|e| format!("the prompt's template: {e}"))?;
    Ok(if template.places_payload() { text } else { format!("{}\n\n{block}", text.trim_end()) })
}

/// The body as text.
fn shown(data: &Data) -> Cow<'_, str> {
    match data {
        Data::Json(raw) if raw.get().starts_with('"') => match serde_json::from_str::<String>(raw.get()) {
            Ok(text) => Cow::Owned(text),
            Err(_) => Cow::Borrowed(raw.get()),
        },
        Data::Json(raw) => Cow::Borrowed(raw.get()),
        Data::Base64(text) => {
            format!("(binary data, {} characters of base64 in the envelope's data_base64)", text.len()).into()
        }
    }
}

/// At most so many characters of it, and a line that says so.
fn cut(text: Cow<'_, str>, limit: Option<usize>) -> Cow<'_, str> {
    let Some((limit, (end, _))) = limit.and_then(|limit| Some((limit, text.char_indices().nth(limit)?))) else {
        return text;
    };
    format!("{}\n(cut after {limit} characters; the envelope has the whole event)", &text[..end]).into()
}

/// Names and values as an object; the values of a repeated name are joined with `, `, as in HTTP.
fn object(pairs: &[(String, String)]) -> serde_json::Map<String, Value> {
    let mut map = serde_json::Map::new();
    for (name, value) in pairs {
        match map.get_mut(name) {
            Some(Value::String(all)) => {
                all.push_str(", ");
                all.push_str(value);
            }
            _ => {
                map.insert(name.clone(), Value::String(value.clone()));
            }
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::payload::PayloadRule;
    use crate::scope::EventFacts;

    fn prompt(template: Option<&str>, body: &str) -> Result<String, String> {
        let body = Body::read(Bytes::from(body.to_owned()), Some("application/json"), &PayloadRule::default()).unwrap();
        let data = body.value().map_err(|e| e.to_string())?;
        let event = EventFacts {
            id: None,
            source: "s",
            kind: "push",
            subject: None,
            actor: None,
            time: crate::Timestamp::from_secs(0),
            verified: true,
        };
        let scope = Scope { event, data: &data, headers: &[], query: &[] };
        let template = template.map(|t| Template::compile(t).unwrap());
        fenced(&Fence::new(0xabc), template.as_ref(), &scope, &shown(&body.data()))
    }

    #[test]
    fn the_event_stands_fenced_at_the_end_or_where_the_operator_put_it() {
        let end = prompt(Some("Look at {{ data.n }}."), "{\"n\":1}").unwrap();
        assert!(end.starts_with("Look at 1.\n\n"), "{end}");
        assert!(end.ends_with("<untrusted-0000000000000abc>\n{\"n\":1}\n</untrusted-0000000000000abc>"), "{end}");
        let placed = prompt(Some("{{ payload }}\nNow look."), "{\"n\":1}").unwrap();
        assert!(placed.ends_with("Now look.") && placed.matches("{\"n\":1}").count() == 1, "{placed}");
        assert!(prompt(None, "{}").unwrap().contains("push"));
    }

    #[test]
    fn a_value_with_room_for_an_instruction_gets_a_fence_of_its_own() {
        let body = json!({"number": 7, "title": "Fix it", "body": "line\nline"}).to_string();
        let text = prompt(Some("{{ data.number }} {{ data.title }}: {{ data.body }}"), &body).unwrap();
        let (open, close) = ("<untrusted-0000000000000abc>", "</untrusted-0000000000000abc>");
        assert!(text.starts_with(&format!("7 {open}Fix it{close}: \n{open}\nline\nline\n{close}")), "{text}");
    }

    #[test]
    fn a_template_that_does_not_fit_says_so() {
        assert!(prompt(Some("{{ data.missing }}"), "{}").unwrap_err().contains("does not have"));
    }

    proptest! {
        #[test]
        fn nothing_from_outside_opens_or_closes_a_fence(text in "(?s)([<＜]?[ /\\\\]{0,2}(?i:untrusted)|[\\PC\u{200b}\u{e0041}\n<>/-]){0,40}") {
            let body = serde_json::to_string(&json!({ "a": text })).unwrap();
            let prompt = prompt(Some("{{ data.a }}"), &body).unwrap();
            let tags = prompt.matches("<untrusted-").count() + prompt.matches("</untrusted-").count();
            let ours = prompt.matches("<untrusted-0000000000000abc>").count() + prompt.matches("</untrusted-0000000000000abc>").count();
            prop_assert_eq!(tags, ours);
            prop_assert!(ours == 2 || ours == 4, "{}", ours);
        }
    }
}
