//! Doorbell as a library: agents that are Rust functions, events from the program itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use doorbell::core::run::State;
use doorbell::{BuildError, Call, Doorbell, EmitError, Event, Failed, Provider, Trigger};
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
