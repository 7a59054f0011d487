//! almyty: a webhook that is switched on over HTTP, and its executions.

use serde_json::{Value, json};

use super::{Said, check, config, row, send};
use crate::world::{Door, HttpAgent, TOKEN, eventually};
use aws_lc_rs::hmac;

const RULES: &str = r#"
[triggers.inbox]
agent = "worker"
auth = "contract"
RATE

[triggers.open]
agent = "worker"
auth = "none"

[contracts.almyty.serve.helper]
trigger = "inbox"
[contracts.almyty.serve.anybody]
trigger = "open"
"#;

fn patch(enabled: bool) -> String {
    format!(
        "PATCH /agents/helper\nAuthorization: Bearer {TOKEN}\nContent-Type: application/json\n\n\
         {{ \"webhookEnabled\": {enabled} }}"
    )
}

fn signature(secret: &str, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex::encode(hmac::sign(&key, body.as_bytes()).as_ref())
}

fn post(id: &str, header: &str, body: &str) -> String {
    format!("POST /agents/{id}/webhook\nContent-Type: application/json\n{header}\n{body}")
}

fn failed(code: &str) -> Value {
    json!({ "success": false, "error": { "code": code, "message": "*" } })
}

fn running() -> Value {
    json!({ "success": true, "data": { "executionId": "*", "status": "running" } })
}

async fn enable(door: &Door) -> String {
    let said = send(&door.http, &door.url(""), &patch(true)).await;
    assert_eq!(said.status, 200, "{}", said.text);
    let data = said.json()["data"].clone();
    assert_eq!((&data["webhookEnabled"], &data["webhookUrl"]), (&json!(true), &json!("/agents/helper/webhook")));
    data["webhookSecret"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_document_gets_its_answer() {
    let agent = HttpAgent::start().await;
    let mut door = Door::start(&config(&agent, &RULES.replace("RATE", ""))).await;
    let (base, http) = (door.url(""), door.http.clone());
    let input = r#"{ "message": "Process this incoming data", "payload": { "key": "value" } }"#;
    let hello = r#"{"message":"Hello"}"#;
    let before = [
        row("not enabled", post("helper", "", input), 404, failed("not_found")),
        row("by nobody", "PATCH /agents/helper\n\n{\"webhookEnabled\":true}", 401, failed("unauthorized")),
        row("nobody", post("nobody", "", input), 404, failed("not_found")),
        row("opened by name", post("anybody", "", input), 200, running()),
    ];
    check(&door, &base, &before).await;
    let secret = enable(&door).await;
    let signed = |value: String| post("helper", &format!("X-Webhook-Signature: {value}\n"), hello);
    let bearer = |secret: &str| post("helper", &format!("Authorization: Bearer {secret}\n"), hello);
    let good = signature(&secret, hello);
    let rows = [
        row(
            "shown once",
            patch(true),
            200,
            json!({"success": true, "data": {
            "id": "helper", "webhookEnabled": true, "webhookUrl": "/agents/helper/webhook"}}),
        ),
        row("bearer", bearer(&secret), 200, running()),
        row("a signature", signed(format!("sha256={good}")), 200, running()),
        row("a bare one, which is the same event", signed(good.clone()), 200, running()),
        row("of another length", signed("sha256=00".into()), 401, failed("not_verified")),
        row("of another body", signed(signature(&secret, "x")), 401, failed("not_verified")),
        row("the admin's token", bearer(TOKEN), 401, failed("not_verified")),
        row("no proof", post("helper", "", hello), 401, failed("not_verified")),
        row(
            "a wrong signature beside the secret",
            post("helper", &format!("Authorization: Bearer {secret}\nX-Webhook-Signature: 00\n"), hello),
            401,
            failed("not_verified"),
        ),
        row(
            "at its native path",
            format!("POST /hooks/inbox\nAuthorization: Bearer {secret}\n\n{hello}"),
            401,
            json!({
            "status": "error", "code": "not_verified", "message": "*"}),
        ),
        row("another method", "GET /agents/helper/webhook", 405, failed("method_not_allowed")),
        row(
            "another change",
            format!("PATCH /agents/helper\nAuthorization: Bearer {TOKEN}\n\n{{\"name\":\"x\"}}"),
            400,
            failed("bad_request"),
        ),
        row("executions told to nobody", "GET /agents/helper/executions", 401, failed("unauthorized")),
        row(
            "the secret reads nothing",
            format!("GET /agents/helper/executions\nAuthorization: Bearer {secret}"),
            401,
            failed("unauthorized"),
        ),
    ];
    check(&door, &base, &rows).await;
    let poll = |path: String| format!("GET /agents/helper/executions{path}\nAuthorization: Bearer {TOKEN}");
    let sent = send(&http, &base, &bearer(&secret)).await.json();
    let id = sent["data"]["executionId"].as_str().unwrap().to_owned();
    let done = eventually("the execution to end", || async {
        let said = send(&http, &base, &poll(format!("/{id}"))).await.json();
        (said["data"]["status"] == "completed").then_some(said)
    })
    .await;
    assert_eq!(
        (&done["data"]["trigger"], &done["data"]["output"]),
        (&json!("webhook"), &json!({"ok": true})),
        "{done}"
    );
    let count = |said: Said| said.json()["data"].as_array().map(Vec::len).unwrap();
    // Two by bearer, one signed; that of another trigger of the same agent is not among them.
    eventually("all to end", || async {
        (count(send(&http, &base, &poll("?trigger=webhook&status=completed".into())).await) == 3).then_some(())
    })
    .await;
    assert_eq!(count(send(&http, &base, &poll("?page=2&limit=2".into())).await), 1);
    let anybody = format!("GET /agents/anybody/executions/{id}\nAuthorization: Bearer {TOKEN}");
    assert_eq!(send(&http, &base, &anybody).await.status, 404, "another trigger's");
    assert_eq!(count(send(&http, &base, &poll("?trigger=schedule".into())).await), 0);
    assert_eq!(count(send(&http, &base, &poll("?status=failed".into())).await), 0);
    assert_eq!(send(&http, &base, &poll("/run_nothing".into())).await.status, 404);
    // It survives a restart, and ends with a PATCH or with its key.
    door.kill();
    door.launch().await;
    assert_eq!(send(&http, &base, &bearer(&secret)).await.status, 200);
    assert_eq!(send(&http, &base, &patch(false)).await.status, 200);
    assert_eq!(send(&http, &base, &bearer(&secret)).await.status, 404);
    let next = enable(&door).await;
    assert_ne!(next, secret);
    assert_eq!(send(&http, &base, &bearer(&secret)).await.status, 401, "the old one opens nothing");
    let keys = door.all("/keys").await;
    assert_eq!((keys.len(), &keys[0]["scopes"]), (1, &json!([])), "{keys:?}");
    let key = keys[0]["id"].as_str().unwrap();
    assert_eq!(door.api_post(&format!("/keys/{key}/revoke"), json!({})).await.0, 200);
    assert_eq!(send(&http, &base, &bearer(&next)).await.status, 404);
    // It has one secret at a time: the key API says so and changes nothing.
    let last = enable(&door).await;
    assert_eq!(send(&http, &base, &bearer(&last)).await.status, 200);
    let keys = door.all("/keys").await;
    let key = keys.iter().find(|k| k["revoked_at"].is_null()).unwrap()["id"].as_str().unwrap();
    assert_eq!(door.api_post(&format!("/keys/{key}/rotate"), json!({"overlap_seconds": 0})).await.0, 409);
    assert_eq!(send(&http, &base, &bearer(&last)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_hundred_a_minute_or_ten_at_once_is_429_with_the_time_to_wait() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, &RULES.replace("RATE", ""))).await;
    let secret = enable(&door).await;
    let base = door.url("");
    let ring = |n: u32| post("helper", &format!("Authorization: Bearer {secret}\n"), &format!("{{\"n\":{n}}}"));
    assert_eq!(door.api_post("/agents/worker/pause", json!({})).await.0, 200);
    // All at once: none may be let in by a place that another has taken.
    let asked: Vec<String> = (0..60).map(&ring).collect();
    let said = futures::future::join_all(asked.iter().map(|one| send(&door.http, &base, one))).await;
    assert_eq!(said.iter().filter(|one| one.status == 200).count(), 10);
    assert!(said.iter().all(|one| matches!(one.status, 200 | 429)));
    let full = send(&door.http, &base, &ring(60)).await;
    assert_eq!((full.status, &full.json()["error"]["code"]), (429, &json!("too_many_runs")), "{}", full.text);
    assert!(full.headers.contains_key("retry-after"));
    let mut last = full;
    for n in 61..=200 {
        last = send(&door.http, &base, &ring(n)).await;
        assert_eq!(last.status, 429, "{n}: {}", last.text);
    }
    assert_eq!(last.json()["error"]["code"], "rate_limited", "{}", last.text);
    assert!(last.headers.contains_key("retry-after"));
}
