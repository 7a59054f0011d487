//! `CloudEvents` 1.0 over HTTP in their three forms, through the real program: one event for each, known again by source and
//! id, read by filters alike, and refused with the reason where they break a rule.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::world::{Door, HttpAgent, SECRET, eventually};

/// A source for each method that takes them; the filter looks at an attribute, in whatever form it came.
fn config(agent: &HttpAgent) -> String {
    let mut text = format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n[agents.worker]\nrunner = \"http\"\nurl = \"{}\"\n",
        agent.url()
    );
    let ways = [
        ("ce", "provider = \"cloudevents\""),
        ("bearer", "auth = \"bearer\""),
        ("hmac", "auth = \"hmac\""),
        ("plain", "provider = \"github\""),
    ];
    for (name, way) in ways {
        text += &format!(
            "[triggers.{name}]\nagent = \"worker\"\n{way}\nsecret = {{ env = \"TEST_SECRET\" }}\n\
             filter = 'event.type != \"unwanted\" && (!(\"ce-tenant\" in headers) || headers[\"ce-tenant\"] == \"blue\")'\n"
        );
    }
    text
}

fn post(door: &Door, source: &str, media: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
    let request = door.http.post(door.url(&format!("/hooks/{source}"))).bearer_auth(SECRET);
    request.header("content-type", media).body(body)
}

async fn said(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

fn event(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/shop#orders", "type": "order.made", "subject": "order 1",
        "time": "2025-10-09T08:53:20Z", "tenant": "blue", "data": {"n": 1}
    })
}

fn binary(door: &Door, source: &str, id: &str, body: &'static str) -> RequestBuilder {
    let mut request = post(door, source, "application/json", body);
    let attributes = [
        ("specversion", "1.0"),
        ("id", id),
        ("source", "/shop#orders"),
        ("type", "order.made"),
        ("subject", "order%201"),
        ("time", "2025-10-09T08:53:20Z"),
        ("tenant", "blue"),
    ];
    for (name, value) in attributes {
        request = request.header(format!("ce-{name}"), value);
    }
    request
}

const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
const BATCH: &str = "application/cloudevents-batch+json";

#[tokio::test(flavor = "multi_thread")]
async fn the_three_forms_make_the_same_event_once() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    for source in ["ce", "bearer"] {
        let (status, first) = said(binary(&door, source, "1", "{\"n\":1}")).await;
        assert_eq!(status, 202, "{source}: {first}");
        let (status, again) = said(post(&door, source, STRUCTURED, event("1").to_string())).await;
        assert_eq!((status, again["status"].as_str()), (200, Some("duplicate")), "{source}: {again}");
        assert_eq!(again["event_id"], first["event_id"], "the same source and id in another form");
        let list = json!([event("1"), event("2"), event("3"), event("2")]).to_string();
        let (status, all) = said(post(&door, source, BATCH, list)).await;
        assert_eq!(status, 202, "{all}");
        let states: Vec<_> = all["events"].as_array().unwrap().iter().map(|e| e["status"].as_str().unwrap()).collect();
        assert_eq!(states, ["duplicate", "accepted", "accepted", "duplicate"]);
        door.run_ended(first["run_id"].as_str().unwrap()).await;
    }
    // One and the same to the agent, whatever form it came in.
    let seen = eventually("all have run", || async { Some(agent.envelopes()).filter(|e| e.len() == 6) }).await;
    for envelope in seen {
        let event = &envelope["event"];
        assert_eq!(
            (event["type"].as_str(), event["subject"].as_str(), event["time"].as_str()),
            (Some("order.made"), Some("order 1"), Some("2025-10-09T08:53:20.000Z")),
            "{event}"
        );
        assert_eq!(event["data"], json!({"n": 1}), "{event}");
        assert!(!envelope.to_string().contains(SECRET));
    }
    let events = door.all("/events").await;
    let kept = door.api(&format!("/events/{}", events[0]["id"].as_str().unwrap())).await;
    assert!(kept.to_string().contains("/shop#orders "), "source and id together: {kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_comes_as_its_media_type_says_and_filters_read_attributes_of_every_form() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let with = |id: &str, more: Value| {
        let mut event = event(id);
        event.as_object_mut().unwrap().remove("data");
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event.to_string()
    };
    for (id, more, key, wanted) in [
        ("bytes", json!({"datacontenttype": "image/png", "data_base64": "/wAA"}), "data_base64", json!("/wAA")),
        (
            "json",
            json!({"datacontenttype": "application/json", "data_base64": "eyJhIjoxfQ=="}),
            "data",
            json!({"a": 1}),
        ),
        ("text", json!({"datacontenttype": "text/plain", "data": "{}"}), "data", json!("{}")),
        ("nothing", json!({}), "data", Value::Null),
    ] {
        let (status, said) = said(post(&door, "ce", STRUCTURED, with(id, more))).await;
        assert_eq!(status, 202, "{id}: {said}");
        door.run_ended(said["run_id"].as_str().unwrap()).await;
        assert_eq!(agent.envelopes().pop().unwrap()["event"][key], wanted, "{id}");
    }
    let other = with("other", json!({"tenant": "red"}));
    assert_eq!(said(post(&door, "ce", STRUCTURED, other)).await.1["status"], "ignored");
    let unwanted = with("unwanted", json!({"type": "unwanted"}));
    assert_eq!(said(post(&door, "ce", STRUCTURED, unwanted)).await.1["status"], "ignored");
    let red = binary(&door, "bearer", "red", "{}").build().unwrap();
    let mut headers = red.headers().clone();
    headers.insert("ce-tenant", "red".parse().unwrap());
    let red = door.http.post(door.url("/hooks/bearer")).headers(headers).body("{}");
    assert_eq!(said(red).await.1["status"], "ignored");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_event_is_refused_and_recorded_and_makes_nothing() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let without = |name: &str| {
        let mut event = event("1");
        event.as_object_mut().unwrap().remove(name);
        event.to_string()
    };
    let with = |name: &str, value: Value| {
        let mut event = event("1");
        event[name] = value;
        event.to_string()
    };
    let mut bad = Vec::new();
    for name in ["specversion", "id", "source", "type"] {
        bad.push((STRUCTURED, without(name), name));
        bad.push((STRUCTURED, with(name, json!("")), name));
        bad.push((STRUCTURED, with(name, json!({})), name));
        bad.push((STRUCTURED, with(name, json!(1)), name));
    }
    bad.extend([
        (STRUCTURED, with("specversion", json!("0.3")), "specversion"),
        (STRUCTURED, with("time", json!("yesterday")), "time"),
        (STRUCTURED, with("source", json!("a b")), "source"),
        (STRUCTURED, with("subject", json!("")), "subject"),
        (STRUCTURED, with("data_base64", json!("e30=")), "both"),
        (STRUCTURED, with("x-tension", json!("a\nb")), "control"),
        (STRUCTURED, with("n", json!("x".repeat(5000))), "4096"),
        (STRUCTURED, json!([event("1")]).to_string(), "object"),
        (BATCH, json!([event("8"), {"id": "9"}]).to_string(), "element 1"),
        ("application/json", event("1").to_string(), "application/cloudevents+json"),
    ]);
    let count = bad.len();
    for (media, body, part) in bad {
        let (status, said) = said(post(&door, "ce", media, body.clone())).await;
        assert_eq!(status, 400, "{body}: {said}");
        let decisions = door.all("/decisions?source=ce&kind=unreadable").await;
        let newest = decisions.iter().max_by_key(|d| d["id"].as_str().map(str::to_owned)).unwrap();
        assert_eq!(newest["code"], "invalid_cloudevent", "{newest}");
        assert!(newest["reason"].as_str().unwrap().contains(part), "{part}: {newest}");
    }
    assert_eq!(door.all("/decisions?source=ce&kind=unreadable").await.len(), count);
    assert_eq!(said(post(&door, "ce", BATCH, event("1").to_string())).await.0, 400, "a batch is a list");
    assert_eq!(said(post(&door, "ce", "application/cloudevents+avro", "x")).await.0, 415);
    assert_eq!(said(post(&door, "bearer", "application/cloudevents+json", "{}")).await.0, 400);
    let half = post(&door, "bearer", "application/json", "{}").header("ce-id", "1");
    assert_eq!(said(half).await.0, 400, "half of the attributes is not taken for a plain body");
    let twice = binary(&door, "ce", "1", "{}").header("ce-id", "2");
    assert_eq!(said(twice).await.0, 400);
    assert_eq!(door.all("/events").await.len(), 0, "nothing came of any, also not of the good half of a batch");
    // Whoever has no secret learns nothing, whatever the form.
    let stranger = door.http.post(door.url("/hooks/ce")).header("content-type", STRUCTURED).body("{}");
    assert_eq!(said(stranger).await.0, 401);
    // An empty batch is allowed by the specification, and is nothing.
    assert_eq!(said(post(&door, "ce", BATCH, "[]")).await.0, 200);
    assert!(agent.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_signature_the_attributes_of_the_body_are_signed_and_those_of_headers_are_not() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let signed = |request: RequestBuilder, body: &str| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
        request.header("x-signature", hex::encode(aws_lc_rs::hmac::sign(&key, body.as_bytes())))
    };
    let body = event("1").to_string();
    assert_eq!(said(signed(post(&door, "hmac", STRUCTURED, body.clone()), &body)).await.0, 202);
    let forged = event("2").to_string();
    assert_eq!(said(signed(post(&door, "hmac", STRUCTURED, forged), &body)).await.0, 401);
    // A captured delivery with a fresh id in its headers is the same delivery.
    assert_eq!(said(signed(binary(&door, "hmac", "b1", "{\"n\":9}"), "{\"n\":9}")).await.0, 202);
    let replayed = said(signed(binary(&door, "hmac", "b2", "{\"n\":9}"), "{\"n\":9}")).await;
    assert_eq!((replayed.0, replayed.1["status"].as_str()), (200, Some("duplicate")));
    // Nor is a batch another event as a plain body: nobody signs the type.
    let list = json!([event("3"), event("4")]).to_string();
    let (status, first) = said(signed(post(&door, "hmac", BATCH, list.clone()), &list)).await;
    assert_eq!((status, first["events"].as_array().map(Vec::len)), (202, Some(2)), "{first}");
    for media in ["application/json", "text/plain", "application/octet-stream"] {
        let replayed = said(signed(post(&door, "hmac", media, list.clone()), &list)).await;
        assert_eq!((replayed.0, replayed.1["status"].as_str()), (200, Some("duplicate")), "{media}: {}", replayed.1);
        assert_eq!(replayed.1["event_id"], first["events"][0]["event_id"], "{media}");
    }
    let again = said(signed(post(&door, "hmac", BATCH, list.clone()), &list)).await;
    let states: Vec<_> = again.1["events"].as_array().unwrap().iter().map(|e| e["status"].as_str().unwrap()).collect();
    assert_eq!(states, ["duplicate", "duplicate"]);
}
