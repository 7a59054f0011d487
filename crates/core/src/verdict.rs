//! The verdict an agent may print: one JSON object with a `doorbell` member (`docs/interface.md`, section 4). Read from
//! the output of a process that exited with 0, from the body of a 2xx answer and from an asynchronous agent's call back.
//!
//! What looks like a verdict and cannot be read is a failure for good, never a success: the agent may have said "failed".
//! Not tried again, because it ran to its end and would most likely say the same once more, with its effects twice.

use std::fmt;
use std::time::Duration;

use crate::attempt::{Approval, Failure, Outcome, Success, Usage};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::excerpt;

/// No `retry_after` of an agent delays a run longer than this; the run's `max_age` bounds it further.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 86_400);

/// What an agent's output says.
#[derive(Debug)]
pub enum Said {
    /// No verdict: the output is the result.
    Plain,
    /// A verdict, or the failure to make sense of one.
    Verdict(Outcome),
}

/// Reads an agent's output; `cut` if the output was longer and its end is missing.
pub fn read(output: &[u8], cut: bool) -> Said {
    let mut seen = Seen::default();
    let mut json = serde_json::Deserializer::from_slice(output);
    let whole = Member(&mut seen).deserialize(&mut json).and_then(|()| json.end());
    match (seen.times, whole) {
        (0, Err(_)) if hides(output, cut) => Said::Verdict(unreadable(match cut {
            true => "the output is one JSON object longer than `max_output`, and what was cut off may be a verdict",
            false => "the output begins as a JSON object with a `doorbell` member, and is none",
        })),
        (0, _) => Said::Plain,
        (1, Ok(())) => Said::Verdict(seen.value.map_or_else(|| unreadable("it is empty"), |raw| judge(&raw))),
        (_, Ok(())) => Said::Verdict(unreadable("the `doorbell` member is there more than once")),
        (_, Err(_)) if cut => Said::Verdict(unreadable("it is longer than `max_output`")),
        (_, Err(e)) => Said::Verdict(unreadable(&format!("the output is not one JSON object: {e}"))),
    }
}

/// Whether an object that could not be read to its end, and showed no verdict so far, may hold one.
fn hides(output: &[u8], cut: bool) -> bool {
    let text = String::from_utf8_lossy(output);
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0');
    text.starts_with('{') && (cut || text.contains("\"doorbell\""))
}

/// The verdict of a call back: what a process would print, or only the value of its `doorbell` member.
pub fn completion(body: &[u8]) -> Outcome {
    match (read(body, false), serde_json::from_slice::<&RawValue>(body)) {
        (Said::Verdict(outcome), _) => outcome,
        (Said::Plain, Ok(raw)) => judge(raw),
        (Said::Plain, Err(e)) => unreadable(&e.to_string()),
    }
}

/// What a verdict says was used, whatever else it says: what was spent counts also where the exit code decides.
pub fn usage(output: &[u8]) -> Usage {
    match read(output, false) {
        Said::Verdict(Outcome::Succeeded(s)) => s.usage,
        Said::Verdict(Outcome::Failed(f)) => f.usage,
        Said::Verdict(Outcome::Waiting(_, usage)) => usage,
        Said::Verdict(_) | Said::Plain => Usage::default(),
    }
}

/// A wish to be tried again after so many seconds, made sane: negative ones and no-numbers are none, long ones are cut.
pub fn retry_after(seconds: f64) -> Option<Duration> {
    (seconds >= 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(RETRY_AFTER_MAX).min(RETRY_AFTER_MAX))
}

#[derive(Deserialize)]
struct Spoken<'a> {
    status: String,
    #[serde(borrow, default)]
    output: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    retry_after: Option<f64>,
    #[serde(default)]
    approval: Option<Value>,
    #[serde(default)]
    steps: Option<u64>,
    #[serde(default)]
    usage: Option<Usage>,
}

fn judge(raw: &RawValue) -> Outcome {
    let spoken: Spoken<'_> = match serde_json::from_str(raw.get()) {
        Ok(spoken) => spoken,
        Err(e) => return unreadable(&e.to_string()),
    };
    let usage = spoken.usage.unwrap_or_default();
    if usage.cost_usd.is_some_and(|cost| !cost.is_finite() || cost < 0.0) {
        return unreadable("`usage.cost_usd` must not be negative");
    }
    let output = spoken.output.map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()));
    let failed = |retry| {
        let error = spoken.error.as_deref().map_or_else(|| "the agent said that it failed".to_owned(), excerpt::head);
        let retry_after = spoken.retry_after.filter(|_| retry).and_then(retry_after);
        Outcome::Failed(Failure { error, retry, retry_after, output: output.clone(), usage })
    };
    match spoken.status.as_str() {
        "succeeded" => {
            Outcome::Succeeded(Success { output: output.clone().unwrap_or_default(), steps: spoken.steps, usage })
        }
        "failed" => failed(false),
        "retry" => failed(true),
        "waiting" => Outcome::Waiting(approval(spoken.approval), usage),
        other => {
            let other = excerpt::head(other);
            let mut outcome =
                unreadable(&format!("its status is `{other}`; it must be `succeeded`, `failed`, `retry` or `waiting`"));
            if let Outcome::Failed(failure) = &mut outcome {
                failure.usage = usage;
            }
            outcome
        }
    }
}

/// An approval without a title still waits: the agent asked for a person.
fn approval(given: Option<Value>) -> Approval {
    let (title, detail) = match given {
        Some(Value::Object(mut table)) => (table.remove("title"), table.remove("detail")),
        Some(Value::String(title)) => (Some(Value::String(title)), None),
        _ => (None, None),
    };
    let title = title.as_ref().and_then(Value::as_str).map(excerpt::head).filter(|t| !t.is_empty());
    Approval { title: title.unwrap_or_else(|| "the agent asks for an approval".to_owned()), detail }
}

fn unreadable(why: &str) -> Outcome {
    Outcome::Failed(Failure {
        error: format!("the agent's verdict cannot be read: {why}; correct the agent, then retry the run"),
        retry: false,
        ..Failure::default()
    })
}

/// The `doorbell` members met so far; kept outside the value so that they outlive a syntax error behind them.
#[derive(Default)]
struct Seen {
    times: u32,
    value: Option<Box<RawValue>>,
}

/// Looks for the `doorbell` member of an object and skips all others without building them.
struct Member<'s>(&'s mut Seen);

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "doorbell" {
                self.0.times += 1;
                self.0.value = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(text: &str) -> Outcome {
        match read(text.as_bytes(), false) {
            Said::Verdict(outcome) => outcome,
            Said::Plain => panic!("no verdict in {text}"),
        }
    }

    fn failure(text: &str) -> Failure {
        match outcome(text) {
            Outcome::Failed(failure) => failure,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn output_without_the_member_is_plain() {
        for text in [
            "",
            "hello",
            "{}",
            "[1]",
            "{\"a\":{\"doorbell\":{\"status\":\"failed\"}}}",
            "\"doorbell\"",
            "\u{0}",
            "{\"a\":",
        ] {
            assert!(matches!(read(text.as_bytes(), false), Said::Plain), "{text}");
        }
        assert!(matches!(read(b"a log line that was cut", true), Said::Plain));
    }

    #[test]
    fn a_success_carries_output_steps_and_usage() {
        let text = r#" {"x":1,"doorbell":{"status":"succeeded","output":{"a": [1.0, "ä\u0000"]},"steps":3,"usage":{"tokens":1200,"cost_usd":0.02}}} "#;
        let usage = Usage { tokens: Some(1200), cost_usd: Some(0.02) };
        let output = Bytes::from(r#"{"a": [1.0, "ä\u0000"]}"#);
        assert_eq!(outcome(text), Outcome::Succeeded(Success { output, steps: Some(3), usage }));
    }

    #[test]
    fn failed_is_for_good_and_retry_is_not() {
        let bad = failure(r#"{"doorbell":{"status":"failed","error":"no\nway","retry_after":3,"output":"x"}}"#);
        assert_eq!((bad.error.as_str(), bad.retry, bad.retry_after), ("no\\nway", false, None));
        assert_eq!(bad.output, Some(Bytes::from("\"x\"")));
        let again = failure(r#"{"doorbell":{"status":"retry","retry_after":1.5}}"#);
        assert_eq!((again.retry, again.retry_after), (true, Some(Duration::from_millis(1500))));
    }

    #[test]
    fn absurd_waits_are_made_sane() {
        for (given, taken) in [("-1", None), ("0", Some(Duration::ZERO)), ("1e300", Some(RETRY_AFTER_MAX))] {
            let text = format!(r#"{{"doorbell":{{"status":"retry","retry_after":{given}}}}}"#);
            assert_eq!(failure(&text).retry_after, taken, "{given}");
        }
    }

    #[test]
    fn waiting_needs_no_title() {
        let full = outcome(r#"{"doorbell":{"status":"waiting","approval":{"title":"Deploy?","detail":{"a":1}}}}"#);
        let approval = Approval { title: "Deploy?".into(), detail: Some(serde_json::json!({"a": 1})) };
        assert_eq!(full, Outcome::Waiting(approval, Usage::default()));
        let bare = outcome(r#"{"doorbell":{"status":"waiting"}}"#);
        assert!(matches!(bare, Outcome::Waiting(a, _) if !a.title.is_empty()));
    }

    #[test]
    fn a_verdict_that_cannot_be_read_is_never_a_success() {
        for text in [
            r#"{"doorbell":{"status":"done"}}"#,
            r#"{"doorbell":{}}"#,
            r#"{"doorbell":null}"#,
            r#"{"doorbell":7}"#,
            r#"{"doorbell":{"status":"succeeded"},"doorbell":{"status":"failed"}}"#,
            r#"{"doorbell":{"status":"succeeded"}} bye"#,
            r#"{"doorbell":{"status":"succeeded"}"#,
            r#"{"doorbell":{"status":"succeeded","steps":-1}}"#,
            r#"{"doorbell":{"status":"succeeded","usage":{"cost_usd":-1}}}"#,
            r#"{"doorbell":{"status":"succeeded","usage":{"tokens":"many"}}}"#,
        ] {
            let failure = failure(text);
            assert!(!failure.retry && failure.error.contains("verdict"), "{text}: {failure:?}");
        }
        assert!(matches!(read(br#"{"doorbell":{"status":"fai"#, true), Said::Verdict(Outcome::Failed(_))));
        assert!(matches!(read(br#"{"log":"cut before the verdict"#, true), Said::Verdict(Outcome::Failed(_))));
        let slips: [&[u8]; 4] = [
            br#"{"\ud800":1,"doorbell":{"status":"failed"}}"#,
            b"{\"\xff\":1,\"doorbell\":{\"status\":\"failed\"}}",
            br#"{"a":1,,"doorbell":{"status":"failed"}}"#,
            b"\xef\xbb\xbf{\"doorbell\":{\"status\":\"failed\"}}",
        ];
        for slip in slips {
            assert!(
                matches!(read(slip, false), Said::Verdict(Outcome::Failed(_))),
                "{}",
                String::from_utf8_lossy(slip)
            );
        }
    }

    #[test]
    fn what_was_spent_is_read_whatever_the_verdict() {
        for status in ["succeeded", "failed", "retry", "waiting", "odd"] {
            let text = format!(r#"{{"doorbell":{{"status":"{status}","usage":{{"tokens":5}}}}}}"#);
            assert_eq!(usage(text.as_bytes()).tokens, Some(5), "{status}");
        }
    }

    proptest! {
        #[test]
        fn no_output_is_too_strange_to_read(bytes: Vec<u8>, cut: bool) {
            let _ = read(&bytes, cut);
            let _ = usage(&bytes);
        }

        #[test]
        fn only_a_whole_verdict_that_says_so_is_a_success(status in prop_oneof![Just("succeeded".to_owned()), "[a-z]{1,9}"], other: String, end in 0usize..400, cut: bool) {
            let whole = serde_json::json!({"a": other, "doorbell": {"status": status, "output": other}}).to_string();
            let given = &whole.as_bytes()[..end.min(whole.len())];
            if let Said::Verdict(Outcome::Succeeded(_)) = read(given, cut) {
                prop_assert!(status == "succeeded" && given.len() == whole.len());
            }
        }
    }
}
