//! Requests to an agent that has a trigger in the place of a server: durable runs, checked with the agent's keys.

use serde_json::{Value, json};

use super::super::send;
use super::forward::{JSON, REPO, get};
use super::{World, github, now, slack};
use crate::world::{eventually, github as native};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_a_trigger_gets_durable_runs_and_no_copy() {
    let world = World::start("").await;
    let key = world.external("queue").await;
    for (name, kind, secret) in [("acme/x", "github", "repository-secret"), ("A1", "slack", "slack-secret-of-one")] {
        world.key(json!({"agent_name": "queue", "name": name, "api_key_type": kind, "api_key": secret})).await;
    }
    let hub = github("queue", "repository-secret", JSON, REPO);
    let hub = hub.replace("X-GitHub-Event: push", "X-GitHub-Event: push\nX-GitHub-Delivery: d-1");
    let event = r#"{"api_app_id":"A1","token":"old","event_id":"Ev1","event":{"type":"app_mention"}}"#;
    let slacks = |body: &str| slack("queue", "slack-secret-of-one", now(), JSON, body);
    let first = world.send(&hub).await;
    assert_eq!(first.status, 202, "{}", first.text);
    let again = world.send(&hub).await;
    assert_eq!(again.status, 202, "{}", again.text);
    assert_eq!(again.json()["run_id"], first.json()["run_id"], "a redelivery is the first one");

    for (what, request, status) in [
        ("slack", slacks(event), 202),
        ("slack again, under another time", slacks(event), 202),
        (
            "a key",
            format!("POST /agents/forward/name/queue/x\nx-agent-api-key: {key}\nContent-Type: {JSON}\n\n{{\"n\":1}}"),
            202,
        ),
        ("a wrong key", "POST /agents/forward/name/queue/x\nx-agent-api-key: no\n\n{}".to_owned(), 401),
        ("a wrong signature", github("queue", "nobody", JSON, REPO), 401),
        ("nothing", "POST /agents/forward/name/queue/x\n\n{}".to_owned(), 403),
        ("by GET", get("queue", "x", &key), 405),
        ("at its native path", format!("POST /hooks/queued\nx-agent-api-key: {key}\n\n{{}}"), 401),
        (
            "the trigger's own check",
            native(
                &world.door.url("/agents/forward/name/own-check/x"),
                &world.door.http,
                "d-9",
                "push",
                REPO.as_bytes(),
            )
            .build()
            .map(|r| {
                format!(
                    "POST {}\n{}\n{REPO}",
                    r.url().path(),
                    r.headers().iter().map(|(n, v)| format!("{n}: {}\n", v.to_str().unwrap())).collect::<String>()
                )
            })
            .unwrap(),
            202,
        ),
    ] {
        let said = send(&world.door.http, &world.base(), &request).await;
        assert_eq!(said.status, status, "{what}: {}", said.text);
    }
    let asks = r#"{"type":"url_verification","challenge":"3eZbrw1a"}"#;
    assert_eq!(world.send(&slacks(asks)).await.text, "3eZbrw1a");
    let calls = eventually("four runs", || async { Some(world.worker.envelopes()).filter(|c| c.len() == 4) }).await;
    let types: Vec<&str> = calls.iter().map(|c| c["event"]["type"].as_str().unwrap_or("-")).collect();
    assert!(types.contains(&"push") && types.contains(&"app_mention"), "{types:?}");
    assert!(!Value::from(calls).to_string().contains("\"old\""), "Slack's old token is taken out");
}
