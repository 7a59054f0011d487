//! Doorbell as a library: agents that are Rust functions, events from the program itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use doorbell::core::run::State;
use doorbell::{BuildError, Call, Doorbell, EmitError, Event, Failed, Provider, Trigger, WebhookTrigger};
use serde_json::json;

fn echo(dir: &tempfile::TempDir) -> doorbell::Builder {
    Doorbell::builder()
        .agent("echo", |call: Call| async move { Ok::<_, Failed>(json!({"type": call.envelope.event.event_type})) })
        .events("app")
        .data_dir(dir.path())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_runs_the_function_and_the_same_id_again_is_a_duplicate() {
    let dir = tempfile::tempdir().unwrap();
    let doorbell = echo(&dir).start().await.unwrap();
    let first = doorbell.emit("app", Event::new("made", &json!({"n": 1})).id("e1")).await.unwrap();
    let run = doorbell.wait(first.runs[0]).await.unwrap();
    assert_eq!((run.state, run.output.as_deref()), (State::Succeeded, Some(br#"{"type":"made"}"#.as_slice())));
    let again = doorbell.emit("app", Event::new("made", &json!({"n": 1})).id("e1")).await.unwrap();
    assert_eq!((again.duplicate, again.event, again.runs), (true, first.event, first.runs));
    assert!(matches!(doorbell.emit("nowhere", Event::new("x", &())).await, Err(EmitError::NoSource(_))));
    doorbell.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_runs_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let held = Trigger::new("app", "echo").filter("event.type == \"wanted\"");
    let doorbell = echo(&dir).trigger("app", held.clone()).start().await.unwrap();
    let ignored = doorbell.emit("app", Event::new("other", &json!({}))).await.unwrap();
    assert!(ignored.runs.is_empty());
    let wanted = doorbell.emit("app", Event::new("wanted", &json!({}))).await.unwrap();
    doorbell.stop().await;
    let doorbell = echo(&dir).trigger("app", held).start().await.unwrap();
    assert_eq!(doorbell.wait(wanted.runs[0]).await.unwrap().state, State::Succeeded);
    doorbell.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_failure_is_not_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let doorbell = Doorbell::builder()
        .agent("no", move |_: Call| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Err::<(), _>(Failed::permanent("never")) }
        })
        .events("app")
        .data_dir(dir.path())
        .start()
        .await
        .unwrap();
    let rung = doorbell.emit("app", Event::new("x", &json!({}))).await.unwrap();
    let run = doorbell.wait(rung.runs[0]).await.unwrap();
    assert_eq!((run.state, run.error.as_deref()), (State::Failed, Some("never")));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    doorbell.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_data_directory_has_one_doorbell() {
    let dir = tempfile::tempdir().unwrap();
    let first = echo(&dir).start().await.unwrap();
    let second = echo(&dir).start().await;
    assert!(matches!(second, Err(BuildError::Start(_))), "{second:?}");
    first.stop().await;
    echo(&dir).start().await.unwrap().stop().await;
}

#[tokio::test]
async fn every_fault_of_a_builder_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let failed = echo(&dir)
        .webhook("Bad Name", Provider::github("s"))
        .webhook("slip", Provider::named("githb", "s"))
        .trigger("t", Trigger::new("nowhere", "nobody").filter("evnt.type == 1"))
        .start()
        .await
        .unwrap_err()
        .to_string();
    for wanted in [
        "`Bad Name` is not a name",
        "Did you mean `github`?",
        "no source `nowhere`",
        "no agent `nobody`",
        "no variable `evnt`",
    ] {
        assert!(failed.contains(wanted), "{wanted} is not in:\n{failed}");
    }
    assert!(!dir.path().join("doorbell.db").exists());
}

/// POSTs to the agent's webhook as its sender does: status and body.
async fn post(doorbell: &Doorbell, agent: &str, token: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
    let url = format!("{}/api/v1/agents/{agent}/webhook", doorbell.url());
    let answer = reqwest::Client::new().post(url).bearer_auth(token).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

const TOKEN: &str = "a-secret-of-a-good-length";

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_trigger_is_registered_while_it_runs_replaced_and_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let doorbell = echo(&dir).start().await.unwrap();
    assert_eq!(post(&doorbell, "echo", TOKEN, &json!({"n": 0})).await.0, 401, "nothing is served yet");
    let trigger = WebhookTrigger::new("echo", Provider::bearer(TOKEN));
    let trigger = trigger.description("A ticket").metadata("team", "support").event_source("https://desk.example.com");
    let trigger = trigger.allowed_ip("127.0.0.0/8");
    let info = doorbell.register_webhook_trigger(trigger.clone()).await.unwrap();
    assert_eq!((info.path().as_str(), info.metadata["team"].as_str()), ("/api/v1/agents/echo/webhook", "support"));
    assert_eq!(doorbell.webhook_trigger("echo").await, Some(info));
    assert_eq!(doorbell.webhook_trigger("other").await, None);
    let (status, said) = post(&doorbell, "echo", TOKEN, &json!({"n": 1})).await;
    assert_eq!((status, &said["status"], &said["agent_id"]), (200, &json!("triggered"), &json!("echo")));
    let run = doorbell.wait(said["workflow_id"].as_str().unwrap().parse().unwrap()).await.unwrap();
    assert_eq!(run.state, State::Succeeded);
    assert_eq!(post(&doorbell, "echo", "another-secret-of-a-good-length", &json!({"n": 2})).await.0, 401);
    // Another one in its place: of another secret, then of other addresses, then switched off.
    let next = "the-next-secret-of-good-length";
    doorbell.register_webhook_trigger(WebhookTrigger::new("echo", Provider::bearer(next))).await.unwrap();
    assert_eq!(post(&doorbell, "echo", TOKEN, &json!({"n": 3})).await.0, 401, "the old secret opens nothing");
    assert_eq!(post(&doorbell, "echo", next, &json!({"n": 3})).await.0, 200);
    let far = WebhookTrigger::new("echo", Provider::bearer(next)).allowed_ip("192.0.2.1");
    doorbell.register_webhook_trigger(far).await.unwrap();
    assert_eq!(post(&doorbell, "echo", next, &json!({"n": 4})).await.0, 403);
    doorbell.register_webhook_trigger(WebhookTrigger::new("echo", Provider::bearer(next)).disabled()).await.unwrap();
    assert_eq!(post(&doorbell, "echo", next, &json!({"n": 4})).await.0, 403);
    assert!(doorbell.unregister_webhook_trigger("echo").await.unwrap());
    assert!(!doorbell.unregister_webhook_trigger("echo").await.unwrap());
    assert_ne!(post(&doorbell, "echo", next, &json!({"n": 5})).await.0, 200);
    // What the builder was given works as before.
    assert_eq!(doorbell.emit("app", Event::new("made", &json!({}))).await.unwrap().runs.len(), 1);
    doorbell.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_webhook_trigger_that_was_taken_away_finish_and_then_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let doorbell = Doorbell::builder()
        .agent("slow", move |_: Call| {
            let gate = held.clone();
            async move {
                gate.acquire().await.map_err(|e| Failed::permanent(e.to_string()))?.forget();
                Ok::<_, Failed>("done")
            }
        })
        .agent("other", |_: Call| async { Ok::<_, Failed>("done") })
        .data_dir(dir.path())
        .start()
        .await
        .unwrap();
    doorbell.register_webhook_trigger(WebhookTrigger::new("slow", Provider::bearer(TOKEN))).await.unwrap();
    let mut runs = Vec::new();
    for n in 0..3 {
        let (status, said) = post(&doorbell, "slow", TOKEN, &json!({ "n": n })).await;
        assert_eq!(status, 200, "{said}");
        runs.push(said["workflow_id"].as_str().unwrap().parse().unwrap());
    }
    assert!(doorbell.unregister_webhook_trigger("slow").await.unwrap());
    assert_ne!(post(&doorbell, "slow", TOKEN, &json!({"n": 3})).await.0, 200, "no way in");
    let url = format!("{}/hooks/webhook-slow", doorbell.url());
    assert_eq!(reqwest::Client::new().post(url).bearer_auth(TOKEN).body("{}").send().await.unwrap().status(), 404);
    gate.add_permits(runs.len());
    for run in runs {
        assert_eq!(doorbell.wait(run).await.unwrap().state, State::Succeeded, "one was running, two were queued");
    }
    assert!(doorbell.house().catalog().triggers.contains_key("webhook-slow"));
    doorbell.register_webhook_trigger(WebhookTrigger::new("other", Provider::bearer(TOKEN))).await.unwrap();
    assert!(!doorbell.house().catalog().triggers.contains_key("webhook-slow"), "the next change takes it out");
    doorbell.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_registration_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let doorbell = echo(&dir).events("webhook-mine").start().await.unwrap();
    doorbell.register_webhook_trigger(WebhookTrigger::new("echo", Provider::bearer(TOKEN))).await.unwrap();
    let before = doorbell.webhook_trigger("echo").await;
    let wrong = |trigger: WebhookTrigger| async {
        let error = doorbell.register_webhook_trigger(trigger).await.unwrap_err().to_string();
        assert_eq!(doorbell.webhook_trigger("echo").await, before, "{error}");
        assert_eq!(post(&doorbell, "echo", TOKEN, &json!({ "after": error })).await.0, 200, "{error}");
        error
    };
    let new = |agent: &str| WebhookTrigger::new(agent, Provider::bearer(TOKEN));
    for (trigger, wanted) in [
        (new("nobody"), "no agent `nobody`"),
        (new("Bad Name"), "is not a name"),
        (new("mine"), "was not registered"),
        (new("echo").allowed_ip("192.0.2.300"), "192.0.2.300"),
        (new("echo").event_source("a b"), "names no host"),
        (WebhookTrigger::new("echo", Provider::named("githb", "s")), "Did you mean `github`?"),
        (WebhookTrigger::new("echo", Provider::bearer("")), "secret"),
    ] {
        let error = wrong(trigger).await;
        assert!(error.contains(wanted), "{wanted} is not in:\n{error}");
    }
    doorbell.stop().await;
}
