//! The answers of the ingress: `docs/interface.md`, section 3.

use std::time::Duration;

use serde_json::json;

use crate::world::{World, short, signed, until};

#[tokio::test]
async fn an_event_is_accepted_then_a_duplicate_with_the_first_ones_ids() {
    let world = World::new().await;
    let first = world.deliver("github", "d-1", "issues", r#"{"n":2}"#).await;
    assert_eq!(first.status, 202);
    let one = first.json();
    assert_eq!(one["status"], "accepted");
    assert!(one.get("runs").is_none(), "one trigger, one run: {one}");
    let again = world.deliver("github", "d-1", "issues", r#"{"n":2}"#).await;
    assert_eq!(again.status, 200);
    let expected = json!({"status":"duplicate","event_id":one["event_id"],"run_id":one["run_id"],"state":"queued"});
    assert_eq!(again.json(), expected);
}

#[tokio::test]
async fn two_ids_that_cannot_be_read_whole_are_two_events() {
    let world = World::new().await;
    let send = async |head: &str, id: &[u8], body: &str| {
        let head = format!("POST {head}content-length: {}\r\n", body.len());
        let bytes = [head.as_bytes(), id, b"\r\n\r\n", body.as_bytes()].concat();
        let mut client = world.connect().await;
        client.write(&bytes).await;
        client.answer().await.unwrap()
    };
    for (id, body) in [(&b"caf\xe9-1"[..], r#"{"n":2}"#), (b"caf\xe8-1", r#"{"n":3}"#)] {
        let head: String = signed("unused", "issues", body)
            .iter()
            .filter(|(name, _)| name != "x-github-delivery")
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let id = [b"x-github-delivery: ", id].concat();
        assert_eq!(send(&format!("/hooks/github HTTP/1.1\r\nhost: d\r\n{head}"), &id, body).await.status, 202);
        let again = send(&format!("/hooks/github HTTP/1.1\r\nhost: d\r\n{head}"), &id, body).await;
        assert_eq!(again.json()["status"], "duplicate", "the digest knows it");
        let key = [b"idempotency-key: ", &id[19..]].concat();
        assert_eq!(send("/hooks/open HTTP/1.1\r\nhost: d\r\n", &key, body).await.status, 202);
    }
}

#[tokio::test]
async fn several_triggers_are_listed_and_nobodys_event_is_ignored() {
    let world = World::new().await;
    let both = world.deliver("github", "d-1", "push", r#"{"n":2}"#).await.json();
    assert_eq!(both["runs"].as_array().unwrap().len(), 2, "{both}");
    assert_eq!(both["runs"][0]["trigger"], "github");
    assert_eq!(both["run_id"], both["runs"][0]["run_id"]);
    let none = world.deliver("github", "d-2", "issues", r#"{"n":1}"#).await;
    assert_eq!(none.status, 200);
    assert_eq!((&none.json()["status"], &none.json()["reason"]), (&json!("ignored"), &json!("filter")));
}

#[tokio::test]
async fn a_batch_of_nothing_is_answered_as_one_and_recorded_once() {
    let world = World::new().await;
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let answer = world.call("POST", "/hooks/open", &batch, "[]").await;
    assert_eq!((answer.status, answer.json()), (200, json!({"status":"ignored","reason":"empty_batch"})));
    let decisions = world.get("/decisions").await["items"].clone();
    assert_eq!(decisions.as_array().unwrap().len(), 1, "{decisions}");
    assert_eq!((&decisions[0]["kind"], &decisions[0]["code"]), (&json!("ignored"), &json!("empty_batch")));
    assert_eq!(world.get("/events").await["items"], json!([]));
    let id = decisions[0]["id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/decisions/{id}")).await["source"], "open");
}

#[tokio::test]
async fn every_cause_of_a_401_is_told_alike_and_recorded_apart() {
    let world = World::new().await;
    let good = signed("d", "push", "{}");
    let without: Vec<_> = good.iter().filter(|(n, _)| n != "x-hub-signature-256").cloned().collect();
    let other = signed("d", "push", "{\"a\":1}");
    let mut answers = Vec::new();
    for headers in [&without, &other] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let answer = world.call("POST", "/hooks/github", &headers, "{}").await;
        assert_eq!(answer.status, 401);
        answers.push(answer.body);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&answers[0]).unwrap(),
        json!({"status":"error","code":"not_verified","message":"the request could not be verified"})
    );
    let decisions = world.get("/decisions?kind=rejected").await;
    let reasons: std::collections::HashSet<_> =
        decisions["items"].as_array().unwrap().iter().map(|d| d["code"].to_string()).collect();
    assert_eq!(reasons.len(), 2, "{decisions}");
}

#[tokio::test]
async fn unknown_and_switched_off_look_the_same_from_outside() {
    let world = World::new().await;
    let strip = |a: crate::world::Answer| {
        let mut head: Vec<String> = a.head.lines().filter(|l| !l.starts_with("date")).map(str::to_owned).collect();
        head.sort();
        (head, a.body)
    };
    let unknown = strip(world.call("POST", "/hooks/nobody", &[], "{}").await);
    let off = strip(world.call("POST", "/hooks/off", &[], "{}").await);
    assert_eq!(unknown, off);
    assert_eq!(unknown.1, r#"{"status":"error","code":"not_found","message":"there is nothing here"}"#);
}

#[tokio::test]
async fn refusals_carry_the_headers_that_tell_what_to_do() {
    let world = World::new().await;
    assert_eq!(world.call("PUT", "/hooks/open", &[], "").await.header("allow"), Some("POST"));
    let gzip = world.call("POST", "/hooks/open", &[("content-encoding", "gzip")], "x").await;
    assert_eq!(gzip.header("accept-encoding"), Some("identity"));
    world.status.set_stopping();
    let stopping = world.call("POST", "/hooks/open", &[], "x").await;
    assert_eq!((stopping.status, stopping.header("connection")), (503, Some("close")));
    assert!(stopping.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let world = World::new().await;
    let body = "x".repeat(1000);
    assert_eq!(world.call("POST", "/hooks/open", &[("content-type", "text/plain")], &body).await.status, 202);
    let event = world.get("/events").await["items"][0].clone();
    assert_eq!(event["body_bytes"], 1000);
    let id = event["id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/events/{id}")).await["data"], body);
}

#[tokio::test]
async fn the_sender_is_whom_a_trusted_proxy_names_and_else_the_peer() {
    for (trusted, expected) in [(vec![], "127.0.0.1"), (vec!["127.0.0.0/8".parse().unwrap()], "203.0.113.7")] {
        let world = World::with(doorbell_server::Options { trusted_proxies: trusted, ..short() }).await;
        world.call("POST", "/hooks/open", &[("x-forwarded-for", "6.6.6.6, 203.0.113.7")], "x").await;
        assert_eq!(world.get("/events").await["items"][0]["remote"], expected);
    }
}

#[tokio::test]
async fn a_sender_that_waits_gets_the_result_and_a_duplicate_joins() {
    let world = World::new().await;
    let worker = world.work().await;
    let good = world.deliver("result", "d-1", "fine", "{}").await;
    assert_eq!(good.status, 200);
    let result = good.json();
    assert_eq!((&result["status"], &result["output"]), (&json!("succeeded"), &json!({"answer": 42})));
    let again = world.deliver("result", "d-1", "fine", "{}").await;
    assert_eq!(again.json(), result, "a redelivery gets the stored result");
    let bad = world.deliver("result", "d-2", "bad", "{\"n\":2}").await;
    assert_eq!(bad.status, 200);
    assert_eq!((&bad.json()["status"], &bad.json()["output"]), (&json!("failed"), &json!("oh no")));

    // Two copies of one delivery wait for one run.
    let first = world.deliver("result", "d-3", "gate", "{\"n\":3}");
    let second = world.deliver("result", "d-3", "gate", "{\"n\":3}");
    let open = async {
        until(|| async {
            let running = world.get("/runs?state=running").await;
            let decisions = world.get("/decisions?kind=duplicate").await;
            let seen = decisions["items"].as_array().unwrap().len() >= 2;
            (running["items"].as_array().unwrap().len() == 1 && seen).then_some(())
        })
        .await;
        world.script.gate.notify_one();
    };
    let (first, second, ()) = tokio::join!(first, second, open);
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.json(), second.json());
    worker.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_sender_that_waits_in_vain_gets_a_202_and_loses_nothing() {
    let world = World::new().await;
    let late = world.deliver("impatient", "d-1", "hang", "{}").await;
    assert_eq!(late.status, 202);
    assert_eq!(late.json()["status"], "accepted");
    let again = world.deliver("impatient", "d-1", "hang", "{}").await;
    assert_eq!((again.status, &again.json()["status"]), (202, &json!("duplicate")));
}
