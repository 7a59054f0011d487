//! A run's log, read in pages and followed.

use std::time::Duration;

use serde_json::json;

use crate::world::{Client, TOKEN, World, short, until};

async fn follow(world: &World, run: &str, last: Option<&str>) -> Client {
    let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
    let mut client = world.connect().await;
    let head = format!(
        "GET /api/v1/runs/{run}/log HTTP/1.1\r\nhost: d\r\nauthorization: Bearer {TOKEN}\r\naccept: text/event-stream\r\n{last}\r\n"
    );
    client.write(head.as_bytes()).await;
    client
}

async fn until_text(client: &mut Client, wanted: &str) -> String {
    let read = async {
        while !client.text().contains(wanted) {
            assert!(client.more().await.is_some(), "ended before `{wanted}`: {}", client.text());
        }
    };
    tokio::time::timeout(crate::world::PATIENCE, read)
        .await
        .unwrap_or_else(|_| panic!("no `{wanted}` in {}", client.text()));
    client.text()
}

#[tokio::test]
async fn a_log_is_followed_to_its_end_and_resumed_after_a_cut() {
    let world = World::new().await;
    let worker = world.work().await;
    let event = r#"{"source":"direct","type":"gate"}"#;
    let run = world.api("POST", "/events", event).await.json()["run_id"].as_str().unwrap().to_owned();
    let mut first = follow(&world, &run, None).await;
    let text = until_text(&mut first, "first").await;
    assert!(text.contains("200 OK") && text.contains("text/event-stream"), "{text}");
    assert!(text.contains("id: 1\nevent: log\ndata: {"), "{text}");
    until_text(&mut first, "\n:\n\n").await;
    drop(first);

    world.script.gate.notify_one();
    world.until_state(&run, "succeeded").await;
    let mut second = follow(&world, &run, Some("1")).await;
    let text = until_text(&mut second, "event: end").await;
    assert!(text.contains("id: 2\n") && !text.contains("id: 1\n"), "{text}");
    until_text(&mut second, "\"state\":\"succeeded\"").await;
    // The stream ends by itself, and the connection goes on.
    until_text(&mut second, "0\r\n\r\n").await;

    let page = world.get(&format!("/runs/{run}/log?limit=1")).await;
    assert_eq!(
        (&page["items"][0]["text"], &page["next"], &page["state"]),
        (&json!("first\n"), &json!(1), &json!("succeeded"))
    );
    let rest = world.get(&format!("/runs/{run}/log?after=1")).await;
    assert_eq!(rest["items"][0]["base64"], "c2Vjb25kIP8K", "bytes that are no text");
    assert_eq!(rest["items"][0]["stream"], "output");
    worker.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn followers_have_a_limit_and_end_when_the_program_stops() {
    let mut options = short();
    options.limits.followers = 1;
    let world = World::with(options).await;
    let run = world.call("POST", "/hooks/open", &[], "x").await.json()["run_id"].as_str().unwrap().to_owned();
    let mut one = follow(&world, &run, None).await;
    until_text(&mut one, "the log follows").await;
    let mut two = follow(&world, &run, None).await;
    assert_eq!(two.answer().await.unwrap().status, 503);
    drop(one);
    let mut three = until(|| async {
        let mut client = follow(&world, &run, None).await;
        client.more().await;
        client.text().contains("200 OK").then_some(client)
    })
    .await;
    world.stop.cancel();
    three.ends().await;
    assert!(!three.text().contains("event: end"), "the run is not over: the reader must come back");
    let bad = World::new().await;
    let mut odd = follow(&bad, "run_0000000001zzzzzzzz", Some("x")).await;
    assert_eq!(odd.answer().await.unwrap().status, 404);
}
