//! Every kind behaves alike: the same acts, the same outcomes.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use doorbell_agents::native::{self, Call};
use doorbell_core::attempt::{Approval, Failure, Outcome, StopReason, Success, Usage};
use doorbell_core::ports::Runner;
use serde_json::{Value, json};

use crate::http::serve;
use crate::support::{Try, build, script_with};

/// What the agent is to do.
#[derive(Clone, Copy, Debug)]
enum Act {
    Succeed,
    Fail,
    FailForGood,
    AskToRetry,
    AskForApproval,
    SayStrangeThings,
    SayNothing,
    Hang,
}

const STRANGE: &str = "ä😀\u{0}\u{202e}\u{1b}[31m\u{fffd}\r\n";

fn verdict_of(act: Act) -> Option<Value> {
    Some(match act {
        Act::Succeed => {
            json!({"status": "succeeded", "output": {"a": 1}, "steps": 3, "usage": {"tokens": 12, "cost_usd": 0.5}})
        }
        Act::FailForGood => json!({"status": "failed", "error": "no such repository"}),
        Act::AskToRetry => json!({"status": "retry", "retry_after": 30, "usage": {"tokens": 12}}),
        Act::AskForApproval => json!({"status": "waiting", "approval": {"title": "Deploy?"}}),
        _ => return None,
    })
}

fn process(act: Act) -> Arc<dyn Runner> {
    let said = verdict_of(act).map(|verdict| json!({"doorbell": verdict}).to_string());
    let (text, said) = match act {
        Act::Fail => ("echo broken >&2; exit 3", String::new()),
        Act::Hang => ("exec sleep 1000", String::new()),
        Act::SayStrangeThings => ("printf 'ä😀\\000\u{202e}\u{1b}[31m\u{fffd}\\r\\n'", String::new()),
        Act::SayNothing => ("", String::new()),
        _ => ("printf %s \"$SAID\"", said.unwrap()),
    };
    script_with(text, json!({"set_env": {"SAID": said}}))
}

async fn http(act: Act) -> Arc<dyn Runner> {
    let answer = move || async move {
        let json = [(header::CONTENT_TYPE, "application/json")];
        let answer: Response = match act {
            Act::Fail => (StatusCode::INTERNAL_SERVER_ERROR, "broken").into_response(),
            Act::Hang => std::future::pending().await,
            Act::SayStrangeThings => STRANGE.into_response(),
            Act::SayNothing => StatusCode::NO_CONTENT.into_response(),
            _ => (json, json!({"doorbell": verdict_of(act)}).to_string()).into_response(),
        };
        answer
    };
    let at = serve(axum::Router::new().route("/", axum::routing::post(answer))).await;
    build("http", json!({"url": format!("http://{at}/")}))
}

fn native(act: Act) -> Arc<dyn Runner> {
    native::native(move |call: Call| async move {
        match act {
            Act::Succeed => {
                (0..3).for_each(|_| call.step());
                call.spent(Usage { tokens: Some(12), cost_usd: Some(0.5) });
                Ok(json!({"a": 1}))
            }
            Act::Fail => Err(std::io::Error::other("broken").into()),
            Act::FailForGood => Err(native::Error::permanent("no such repository")),
            Act::AskToRetry => {
                call.spent(Usage { tokens: Some(12), cost_usd: None });
                Err(native::Error::retry_after("later", Duration::from_secs(30)))
            }
            Act::AskForApproval => {
                Err(native::Error::needs_approval(Approval { title: "Deploy?".into(), detail: None }))
            }
            Act::SayStrangeThings => Ok(json!(STRANGE)),
            Act::SayNothing => Ok(Value::Null),
            Act::Hang => std::future::pending().await,
        }
    })
}

async fn all(act: Act) -> [(&'static str, Arc<dyn Runner>); 3] {
    [("process", process(act)), ("http", http(act).await), ("native", native(act))]
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_success_carries_output_steps_and_usage() {
    for (kind, runner) in all(Act::Succeed).await {
        let usage = Usage { tokens: Some(12), cost_usd: Some(0.5) };
        let success = Success { output: r#"{"a":1}"#.into(), steps: Some(3), usage };
        assert_eq!(Try::new().outcome(&runner).await, Outcome::Succeeded(success), "{kind}");
    }
}

#[tokio::test]
async fn a_failure_is_tried_again_and_says_why() {
    for (kind, runner) in all(Act::Fail).await {
        let failure = failure(Try::new().outcome(&runner).await);
        assert!(failure.retry && failure.error.contains("broken"), "{kind}: {failure:?}");
    }
}

#[tokio::test]
async fn a_failure_for_good_is_not_tried_again() {
    for (kind, runner) in all(Act::FailForGood).await {
        let failure = failure(Try::new().outcome(&runner).await);
        assert!(!failure.retry && failure.error.contains("no such repository"), "{kind}: {failure:?}");
    }
}

#[tokio::test]
async fn an_agent_may_say_when_to_try_again() {
    for (kind, runner) in all(Act::AskToRetry).await {
        let failure = failure(Try::new().outcome(&runner).await);
        assert!(failure.retry, "{kind}");
        assert_eq!(failure.retry_after, Some(Duration::from_secs(30)), "{kind}");
        assert_eq!(failure.usage.tokens, Some(12), "{kind}: what was spent counts also in a failure");
    }
}

#[tokio::test]
async fn an_agent_may_wait_for_a_person() {
    for (kind, runner) in all(Act::AskForApproval).await {
        let outcome = Try::new().outcome(&runner).await;
        let approval = Approval { title: "Deploy?".into(), detail: None };
        assert_eq!(outcome, Outcome::Waiting(approval, Usage::default()), "{kind}");
    }
}

#[tokio::test]
async fn strange_output_comes_back_byte_for_byte() {
    for (kind, runner) in all(Act::SayStrangeThings).await {
        let Outcome::Succeeded(success) = Try::new().outcome(&runner).await else { panic!("{kind}") };
        let wanted = if kind == "native" { json!(STRANGE).to_string() } else { STRANGE.to_owned() };
        assert_eq!(success.output, wanted.as_bytes(), "{kind}");
    }
}

#[tokio::test]
async fn no_output_is_a_success() {
    for (kind, runner) in all(Act::SayNothing).await {
        assert!(matches!(Try::new().outcome(&runner).await, Outcome::Succeeded(_)), "{kind}");
    }
}

#[tokio::test]
async fn an_attempt_ends_by_itself_at_its_time_limit() {
    let limit = Duration::from_millis(100);
    for (kind, runner) in all(Act::Hang).await {
        let outcome = Try::new().within(limit).outcome(&runner).await;
        assert_eq!(outcome, Outcome::TimedOut { after: limit }, "{kind}");
    }
}

#[tokio::test]
async fn a_stop_ends_an_attempt_and_its_reason_decides_the_outcome() {
    for reason in [StopReason::Cancelled, StopReason::LeaseLost, StopReason::Shutdown] {
        for (kind, runner) in all(Act::Hang).await {
            let one = Try::new();
            let (outcome, ()) = tokio::join!(one.outcome(&runner), async { one.stop.ask(reason) });
            assert_eq!(outcome, doorbell_core::attempt::Stop::outcome(reason), "{kind}");
        }
    }
}

#[tokio::test]
async fn a_panic_of_a_function_is_a_failure_that_is_tried_again() {
    let runner = native::native(|call: Call| async move {
        assert!(call.envelope.prompt.is_empty(), "not prepared for this");
        Ok::<_, native::Error>(())
    });
    let failure = failure(Try::new().outcome(&runner).await);
    assert!(failure.retry && failure.error.contains("not prepared for this"), "{failure:?}");
}
