//! What the sender of a webhook is answered: `docs/interface.md`, section 3. Small JSON, written once into one buffer.

use std::time::Duration;

use doorbell_core::ingest::{No, Taken};
use doorbell_core::provider;
use doorbell_core::run::State;
use doorbell_core::{EventId, Name, RunId};
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use serde_json::value::{RawValue, Value};

use crate::body::Body;

/// Longer than most answers, so that writing one does not grow the buffer.
const USUAL: usize = 192;
/// How deep JSON from outside may be nested inside an answer; deeper it is a string. Common parsers stop at 128 levels,
/// ours among them, and the answer around it has a few of its own.
const DEPTH_MAX: usize = 100;

/// One event's part of an answer; of a single event the whole.
#[derive(Debug, Serialize)]
pub(crate) struct Entry<'a> {
    pub status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Entry<'a>>,
}

/// One run's part, where several triggers took the event.
#[derive(Debug, Serialize)]
pub(crate) struct RunEntry<'a> {
    pub trigger: &'a Name,
    pub run_id: RunId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Box<RawValue>>,
}

impl<'a> Entry<'a> {
    pub(crate) fn bare(status: &'static str) -> Self {
        let (event_id, run_id, state, reason, output) = (None, None, None, None, None);
        Self { status, event_id, run_id, state, reason, output, runs: Vec::new(), events: Vec::new() }
    }

    pub(crate) fn of(taken: &'a Taken) -> Self {
        match taken {
            Taken::Accepted { event, runs } => Self {
                event_id: Some(*event),
                run_id: runs.first().map(|(_, run)| *run),
                runs: match runs.len() {
                    0 | 1 => Vec::new(),
                    _ => runs
                        .iter()
                        .map(|(trigger, run)| RunEntry { trigger, run_id: *run, state: None, output: None })
                        .collect(),
                },
                ..Self::bare("accepted")
            },
            Taken::Duplicate { event, runs } => Self {
                event_id: Some(*event),
                run_id: runs.first().map(|(_, run, _)| *run),
                state: runs.first().map(|(.., state)| *state),
                runs: match runs.len() {
                    0 | 1 => Vec::new(),
                    _ => runs
                        .iter()
                        .map(|(trigger, run, state)| RunEntry {
                            trigger,
                            run_id: *run,
                            state: Some(*state),
                            output: None,
                        })
                        .collect(),
                },
                ..Self::bare("duplicate")
            },
            Taken::Ignored { event, reason } => {
                Self { event_id: Some(*event), reason: Some(reason), ..Self::bare("ignored") }
            }
        }
    }

    /// Of a whole request: one event as itself, several as a list under what became of the best of them.
    pub(crate) fn of_all(taken: &'a [Taken]) -> Self {
        if let [one] = taken {
            return Self::of(one);
        }
        let events: Vec<Entry<'a>> = taken.iter().map(Entry::of).collect();
        let best = ["accepted", "duplicate", "ignored"]
            .iter()
            .find_map(|status| events.iter().find(|e| e.status == *status))
            .map(|e| (e.status, e.event_id, e.run_id));
        match best {
            Some((status, event_id, run_id)) => Self { event_id, run_id, events, ..Self::bare(status) },
            // A batch of nothing: verified, and nothing to do.
            None => Self { reason: Some("empty_batch"), ..Self::bare("ignored") },
        }
    }

    /// 202 while there is work to come, 200 else.
    pub(crate) fn http_status(&self) -> StatusCode {
        if self.status == "accepted" { StatusCode::ACCEPTED } else { StatusCode::OK }
    }
}

/// Any answer in JSON.
pub(crate) fn json(status: StatusCode, entry: &impl Serialize) -> Response<Body> {
    let mut text = Vec::with_capacity(USUAL);
    // Writing plain structs into memory has no way to fail.
    let _ = serde_json::to_writer(&mut text, entry);
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The one text that a sender takes for a yes.
pub(crate) fn said(text: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(text.to_owned()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// What a provider's handshake wants to hear.
pub(crate) fn handshake(answer: provider::Answer) -> Response<Body> {
    let mut response = Response::new(Body::full(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

#[derive(Serialize)]
struct Told {
    status: &'static str,
    code: &'static str,
    message: &'static str,
}

/// A no: one text for each status, whatever the cause.
pub(crate) fn refusal(no: No) -> Response<Body> {
    let status = StatusCode::from_u16(no.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &Told { status: "error", code: no.code(), message: no.told() });
    let headers = response.headers_mut();
    if let Some(wait) = no.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    match no {
        No::Method => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        No::MediaType => {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        _ => {}
    }
    response
}

/// For `Retry-After`: rounded up, at least one.
pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// An agent's output as JSON: itself if every reader of the answer can read it, else a string.
pub(crate) fn output(bytes: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(bytes);
    let whole = text.trim();
    // Parsed whole: a raw value may hold lone surrogates and numbers without measure, which parsers refuse.
    let readable = serde_json::from_str(whole).is_ok_and(|value| is_within(&value, DEPTH_MAX));
    let raw = if readable { RawValue::from_string(whole.to_owned()).ok() } else { None };
    raw.or_else(|| serde_json::value::to_raw_value(&text).ok()).unwrap_or_default()
}

/// An event's data: itself if every reader of the answer can read it, else its text as a string.
pub(crate) fn data(raw: &RawValue) -> Box<RawValue> {
    output(raw.get().as_bytes())
}

/// A part of an answer that came from an agent: itself, or its text if it is nested too deep.
pub(crate) fn shallow(value: Value) -> Value {
    if is_within(&value, DEPTH_MAX) { value } else { Value::String(value.to_string()) }
}

fn is_within(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth > 0 && items.iter().all(|item| is_within(item, depth - 1)),
        Value::Object(members) => depth > 0 && members.values().all(|item| is_within(item, depth - 1)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_core::StoreTag;

    fn text(taken: &[Taken]) -> (u16, String) {
        let entry = Entry::of_all(taken);
        (entry.http_status().as_u16(), serde_json::to_string(&entry).unwrap())
    }

    fn ids(n: u64) -> (EventId, RunId) {
        (EventId::new(n, StoreTag::new(1)), RunId::new(n, StoreTag::new(1)))
    }

    #[test]
    fn the_answers_have_the_shapes_of_the_interface() {
        let ((e1, r1), (e2, r2)) = (ids(1), ids(2));
        let (t, u) = (Name::new("t").unwrap(), Name::new("u").unwrap());
        let one = Taken::Accepted { event: e1, runs: vec![(t.clone(), r1)] };
        assert_eq!(
            text(std::slice::from_ref(&one)),
            (202, format!(r#"{{"status":"accepted","event_id":"{e1}","run_id":"{r1}"}}"#))
        );
        let two = Taken::Accepted { event: e1, runs: vec![(t.clone(), r1), (u, r2)] };
        let runs = format!(r#"[{{"trigger":"t","run_id":"{r1}"}},{{"trigger":"u","run_id":"{r2}"}}]"#);
        assert_eq!(
            text(&[two]),
            (202, format!(r#"{{"status":"accepted","event_id":"{e1}","run_id":"{r1}","runs":{runs}}}"#))
        );
        let again = Taken::Duplicate { event: e2, runs: vec![(t, r2, State::Failed)] };
        let duplicate = format!(r#"{{"status":"duplicate","event_id":"{e2}","run_id":"{r2}","state":"failed"}}"#);
        assert_eq!(text(std::slice::from_ref(&again)), (200, duplicate.clone()));
        let ignored = Taken::Ignored { event: e2, reason: "filter" };
        assert_eq!(text(&[ignored]), (200, format!(r#"{{"status":"ignored","event_id":"{e2}","reason":"filter"}}"#)));
        let accepted = format!(r#"{{"status":"accepted","event_id":"{e1}","run_id":"{r1}"}}"#);
        assert_eq!(
            text(&[again, one]),
            (
                202,
                format!(
                    r#"{{"status":"accepted","event_id":"{e1}","run_id":"{r1}","events":[{duplicate},{accepted}]}}"#
                )
            )
        );
        assert_eq!(text(&[]), (200, r#"{"status":"ignored","reason":"empty_batch"}"#.into()));
    }

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(whole_seconds(Duration::from_millis(ms)), seconds);
        }
    }

    #[test]
    fn an_output_is_json_if_it_can_be_and_else_a_string() {
        for (bytes, json) in
            [(&b"{\"a\":1}\n"[..], "{\"a\":1}"), (b"hello", "\"hello\""), (b"", "\"\""), (b"a\xff", "\"a\u{fffd}\"")]
        {
            assert_eq!(output(bytes).get(), json);
        }
    }

    #[test]
    fn what_a_parser_of_the_answer_would_refuse_is_a_string() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let (fair, deep) = (nested(DEPTH_MAX), nested(DEPTH_MAX + 1));
        assert_eq!(output(fair.as_bytes()).get(), fair);
        for text in [deep.as_str(), &nested(100_000), r#"{"a":"\ud800"}"#, r#"{"\udc00":1}"#, "1e999"] {
            let shown: Value = serde_json::from_str(output(text.as_bytes()).get()).unwrap();
            assert_eq!(shown.as_str(), Some(text), "{text:.40}");
        }
    }
}
