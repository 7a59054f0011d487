//! The defects that made other gateways unsafe, one row each, through the real program. A row says what came and what the answer and
//! the record have to be.
//!
//! Rows that have a test of their own elsewhere: failed-auth lockout of good senders (`edge`), `ignore_actors` and `[bot]`
//! look-alikes (`edge`), a signature that is there and never computed (`senders`, the tampered requests), content-type confusion of
//! parsers (`forms`, `senders`), SSRF by addresses and names (`doorbell-net`), a rotated secret (`lifecycle`: a changed secret file),
//! symlinks and pipes as configuration (`config::world`).
//!
//! Rows that need what is not built: a callback URL given by a request (no request can give one: addresses stand in the
//! configuration), dashboards (there is no page yet; the API is a row below), a sandbox around an agent's own tools such as
//! `/proc/self/environ` (the agent's environment is the list in `env`; a sandbox comes later).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use futures::future::join_all;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::world::{Door, HttpAgent, SECRET, TOKEN, eventually, github};

fn config(agent: &HttpAgent) -> String {
    format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n\
         [agents.worker]\nrunner = \"http\"\nurl = \"{}\"\nconcurrency = 4\nretries = {{ max = 0 }}\n\
         [triggers.ring]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
         key = \"{{{{ data.lane }}}}\"\n\
         [triggers.other]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
         key = \"{{{{ data.lane }}}}\"\nmax_body = \"1KiB\"\n\
         [triggers.stripe]\nagent = \"worker\"\nprovider = \"stripe\"\nsecret = {{ env = \"TEST_SECRET\" }}\n",
        agent.url()
    )
}

fn delivery(door: &Door, id: &str, body: &str) -> RequestBuilder {
    github(&door.url("/hooks/ring"), &door.http, id, "push", body.as_bytes())
}

async fn said(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// Sets a header of a request that is made already.
fn with(door: &Door, request: RequestBuilder, name: &'static str, value: &[u8]) -> RequestBuilder {
    let mut request = request.build().unwrap();
    request.headers_mut().insert(name, reqwest::header::HeaderValue::from_bytes(value).unwrap());
    RequestBuilder::from_parts(door.http.clone(), request)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_send_is_refused_with_its_cause() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let signature = "x-hub-signature-256";
    let wrong = |value: &[u8]| with(&door, delivery(&door, "d", "{}"), signature, value);
    let unsigned = |path: &str| door.http.post(door.url(path)).header("content-type", "application/json").body("{}");
    let rows: Vec<(&str, RequestBuilder, u16, &str)> = vec![
        ("verification is opt-in", unsigned("/hooks/ring"), 401, "signature_missing"),
        ("an empty signature", wrong(b"sha256="), 401, "signature_malformed"),
        (
            "a signature that is not ASCII crashes the compare",
            wrong(b"sha256=\xff\xfe\xc3\xa9"),
            401,
            "signature_malformed",
        ),
        ("a signature of another length", wrong(b"sha256=00"), 401, "signature_malformed"),
        (
            "the old SHA-1 alone",
            with(&door, unsigned("/hooks/ring"), "x-hub-signature", b"sha1=00"),
            401,
            "signature_missing",
        ),
        (
            "an empty secret's signature",
            wrong(format!("sha256={}", hex::encode(hmac(b"", b"{}"))).as_bytes()),
            401,
            "signature_mismatch",
        ),
        (
            "the timestamp stripped, to get an older version of the scheme",
            with(
                &door,
                unsigned("/hooks/stripe"),
                "stripe-signature",
                format!("v1={}", hex::encode(hmac(SECRET.as_bytes(), b"{}"))).as_bytes(),
            ),
            401,
            "timestamp_missing",
        ),
        ("the body is changed", delivery(&door, "d", "{}").body("{\"a\":1}"), 401, "signature_mismatch"),
        ("a path that nobody listens on", unsigned("/hooks/none"), 404, "not_found"),
        (
            "a body before the check",
            github(&door.url("/hooks/other"), &door.http, "d", "push", &[b'1'; 5000]),
            413,
            "too_large",
        ),
    ];
    for (what, request, status, code) in rows {
        let (answered, body) = said(request).await;
        assert_eq!(answered, status, "{what}: {body}");
        eventually(&format!("{what}: a decision {code}"), || async {
            let newest = door.all("/decisions").await.into_iter().max_by_key(|d| d["id"].as_str().map(str::to_owned));
            newest.filter(|d| d["code"] == code)
        })
        .await;
    }
    assert!(door.all("/events").await.is_empty() && agent.calls().is_empty());
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    aws_lc_rs::hmac::sign(&key, text).as_ref().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_body_is_read_in_one_way_or_not_at_all() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    for (what, body) in [
        ("a number beyond a double", "{\"n\":1e999}".to_owned()),
        ("a depth that overflows parsers", deep),
        ("two documents", "{} {}".to_owned()),
        ("a raw NUL in a text", "{\"a\":\"\u{0}\"}".to_owned()),
        ("no JSON under a JSON type", "a=1".to_owned()),
    ] {
        assert_eq!(said(delivery(&door, what, &body)).await.0, 400, "{what}");
    }
    // A key that is no plain text is none: the run goes in a lane of its own.
    for (what, body, data, key) in [
        ("repeated keys", r#"{"lane":"a","lane":"b"}"#, json!({"lane": "b"}), json!("b")),
        ("an escaped NUL", r#"{"lane":"n\u0000"}"#, json!({"lane": "n\u{0}"}), Value::Null),
        ("a lone surrogate", r#"{"lane":"s\ud800"}"#, json!({"lane": "s\u{fffd}"}), json!("s\u{fffd}")),
    ] {
        let (status, answer) = said(delivery(&door, what, body)).await;
        assert_eq!(status, 202, "{what}: {answer}");
        door.run_ended(answer["run_id"].as_str().unwrap()).await;
        let envelope = agent.envelopes().pop().unwrap();
        assert_eq!((&envelope["event"]["data"], &envelope["run"]["key"]), (&data, &key), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_copies_at_once_are_one_event_and_a_captured_one_with_a_fresh_id_is_none() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let copies = join_all((0..100).map(|_| said(delivery(&door, "same", "{\"lane\":\"x\"}")))).await;
    assert_eq!(copies.iter().filter(|(status, _)| *status == 202).count(), 1);
    assert!(copies.iter().all(|(status, body)| *status == 202 || body["status"] == "duplicate"));
    let (status, replayed) = said(delivery(&door, "fresh", "{\"lane\":\"x\"}")).await;
    assert_eq!((status, replayed["status"].as_str()), (200, Some("duplicate")), "the id is not signed, the body is");
    assert_eq!(door.all("/events").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_reaches_no_secret_no_other_lane_and_no_template() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let hostile = json!({"lane": "{{ env.TEST_SECRET }} {{ secret }}", "text": "${TEST_SECRET} $(id)"});
    let (_, first) = said(delivery(&door, "t", &hostile.to_string())).await;
    door.run_ended(first["run_id"].as_str().unwrap()).await;
    let envelope = agent.envelopes().pop().unwrap();
    assert_eq!(envelope["run"]["key"], hostile["lane"], "text of a payload is never a template");
    assert!(!envelope.to_string().contains(SECRET) && !envelope.to_string().contains(TOKEN));
    // The same key from another source is another lane: a payload cannot take over a run that is not its own.
    let lane = json!({"lane": "shared"}).to_string();
    let (_, one) = said(delivery(&door, "l1", &lane)).await;
    let (_, two) = said(github(&door.url("/hooks/other"), &door.http, "l2", "push", lane.as_bytes())).await;
    for id in [&one["run_id"], &two["run_id"]] {
        let run = door.run_ended(id.as_str().unwrap()).await;
        assert_eq!(run["key"], "shared", "{run}");
    }
    assert_ne!(one["run_id"], two["run_id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_open_without_its_key_and_nothing_secret_is_logged() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    for path in
        ["/api/v1/events", "/api/v1/runs", "/api/v1/decisions", "/api/v1/sources", "/api/v1/keys", "/api/v1/stats"]
    {
        assert_eq!(door.http.get(door.url(path)).send().await.unwrap().status(), 401, "{path}");
        let guess = door.http.get(door.url(path)).bearer_auth("").send().await.unwrap();
        assert_eq!(guess.status(), 401, "{path}");
    }
    let hidden = "tok-in-a-url-tok-in-a-url";
    let request = github(&door.url(&format!("/hooks/nowhere?token={hidden}")), &door.http, "d", "push", b"{}");
    assert_eq!(said(request).await.0, 404);
    let request = delivery(&door, "d", "{}").query(&[("token", hidden)]).header("x-hub-signature-256", "sha256=00");
    assert_eq!(said(request).await.0, 401);
    let decisions =
        eventually("both are recorded", || async { Some(door.all("/decisions").await).filter(|d| d.len() == 2) }).await;
    let told = format!("{}{}", door.log(), Value::from(decisions));
    for secret in [hidden, SECRET, TOKEN] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_a_check_or_with_an_empty_secret_does_not_start() {
    let agent = HttpAgent::start().await;
    for (what, change) in [
        ("nothing says how", ("provider = \"stripe\"\nsecret = { env = \"TEST_SECRET\" }\n", "path = \"/hooks/s\"\n")),
        ("no secret", ("provider = \"stripe\"\nsecret = { env = \"TEST_SECRET\" }\n", "provider = \"stripe\"\n")),
        (
            "a secret that is not set",
            (
                "provider = \"stripe\"\nsecret = { env = \"TEST_SECRET\" }\n",
                "provider = \"stripe\"\nsecret = { env = \"NOT_SET\" }\n",
            ),
        ),
    ] {
        let text = config(&agent).replace(change.0, change.1);
        let mut door = Door::prepare(&text);
        door.spawn();
        assert_eq!(door.wait().await, Some(1), "{what}: {}", door.log());
    }
}
