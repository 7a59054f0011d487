//! Putting events in, looking at them, and replaying them.

use serde_json::json;

use crate::world::{TOKEN, World};

#[tokio::test]
async fn an_event_is_put_in_once() {
    let world = World::new().await;
    let event = r#"{"source":"direct","type":"note","subject":"s","id":"n-1","data":{"a":[1,2]},"time":"2026-01-31T12:00:00Z"}"#;
    let first = world.api("POST", "/events", event).await;
    assert_eq!(first.status, 202, "{}", first.body);
    let again = world.api("POST", "/events", event).await;
    assert_eq!((again.status, &again.json()["status"]), (200, &json!("duplicate")));
    assert_eq!(again.json()["event_id"], first.json()["event_id"]);
    let shown = world.get(&format!("/events/{}", first.json()["event_id"].as_str().unwrap())).await;
    assert_eq!(shown["data"], json!({"a": [1, 2]}));
    assert_eq!((&shown["type"], &shown["subject"], &shown["sender_id"]), (&json!("note"), &json!("s"), &json!("n-1")));
    assert_eq!(shown["time"], "2026-01-31T12:00:00.000Z");
    assert_eq!(shown["runs"][0]["id"], first.json()["run_id"]);
}

#[tokio::test]
async fn an_idempotency_key_counts_where_there_is_no_id() {
    let world = World::new().await;
    let bearer = format!("Bearer {TOKEN}");
    let put = |key: &'static str| {
        let (world, bearer) = (&world, bearer.clone());
        async move {
            let headers = [("authorization", bearer.as_str()), ("idempotency-key", key)];
            world.call("POST", "/api/v1/events", &headers, r#"{"source":"direct","type":"t"}"#).await.json()["status"]
                .clone()
        }
    };
    assert_eq!(put("k1").await, "accepted");
    assert_eq!(put("k1").await, "duplicate");
    assert_eq!(put("k2").await, "accepted");
}

#[tokio::test]
async fn wrong_events_are_named_and_not_stored() {
    let world = World::new().await;
    let long = format!(r#"{{"source":"direct","type":"t","data":"{}"}}"#, "x".repeat(10_000));
    for (body, status, word) in [
        ("", 400, "source"),
        ("{", 400, "EOF"),
        (r#"{"source":"direct"}"#, 400, "type"),
        (r#"{"source":"direct","type":"t","dta":1}"#, 400, "dta"),
        (r#"{"source":"DIRECT","type":"t"}"#, 400, "DIRECT"),
        (r#"{"source":"nobody","type":"t"}"#, 404, "nobody"),
        (r#"{"source":"direct","type":"t","time":"noon"}"#, 400, "noon"),
        (long.as_str(), 413, "10000"),
    ] {
        let answer = world.api("POST", "/events", body).await;
        assert_eq!(answer.status, status, "{body:.60}: {}", answer.body);
        assert!(answer.json()["detail"].as_str().unwrap().contains(word), "{}", answer.body);
    }
    assert!(world.get("/events").await["items"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn an_ignored_event_can_be_replayed_by_naming_a_trigger() {
    let world = World::new().await;
    let ignored = world.deliver("github", "d-1", "issues", r#"{"n":1}"#).await.json();
    let event = ignored["event_id"].as_str().unwrap();
    let replay = |body: &'static str| {
        let (world, path) = (&world, format!("/events/{event}/replay"));
        async move { world.api("POST", &path, body).await }
    };
    let plain = replay("").await;
    assert_eq!(plain.status, 409, "its filters still say no: {}", plain.body);
    let dry = replay(r#"{"trigger":"github","dry_run":true}"#).await;
    assert_eq!(dry.status, 200, "{}", dry.body);
    assert_eq!(dry.json()["runs"], json!([{"run_id":null,"agent":"script","trigger":"github","key":null}]));
    assert!(world.get("/runs").await["items"].as_array().unwrap().is_empty(), "a dry run makes nothing");
    let done = replay(r#"{"trigger":"github","agent":"other"}"#).await.json();
    let run = world.get(&format!("/runs/{}", done["runs"][0]["run_id"].as_str().unwrap())).await;
    assert_eq!((&run["agent"], &run["trigger"], &run["event_id"]), (&json!("other"), &json!("github"), &json!(event)));
    for (body, status) in [
        (r#"{"trigger":"open"}"#, 409),
        (r#"{"trigger":"none"}"#, 409),
        (r#"{"agent":"none"}"#, 409),
        (r#"{"agnet":"other"}"#, 400),
        ("[]", 400),
        (r#"["other"]"#, 400),
        ("null", 400),
        ("  ", 400),
    ] {
        assert_eq!(replay(body).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn a_replay_asks_the_filters_again() {
    let world = World::new().await;
    let accepted = world.deliver("github", "d-1", "push", r#"{"n":2}"#).await.json();
    let path = format!("/events/{}/replay", accepted["event_id"].as_str().unwrap());
    let again = world.api("POST", &path, "{}").await.json();
    assert_eq!(again["runs"].as_array().unwrap().len(), 2, "{again}");
    world.api("POST", "/triggers/github-1/disable", "").await;
    let fewer = world.api("POST", &path, "{}").await.json();
    assert_eq!(fewer["runs"].as_array().unwrap().len(), 1, "{fewer}");
}
