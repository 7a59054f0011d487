//! Aether Forge: the page's `/trigger` and `/github`, and what its health server tells.

use serde_json::{Value, json};

use super::{Row, check, config, row, send, sign};
use crate::world::{Door, HttpAgent, TOKEN, eventually, free_addr};

const RULES: &str = r#"
breaker = { failures = 2, reset = "1h" }

[triggers.alerts]
agent = "worker"
auth = "none"
respond = "result"
respond_timeout = "WAIT"
filter = "!has(data.skip)"

[triggers.signed]
agent = "worker"
auth = "hmac"
header = "X-Webhook-Signature"
secret = { env = "TEST_SECRET" }

[triggers.hub]
agent = "worker"
provider = "github"
secret = { env = "TEST_SECRET" }
filter = "event.type == 'push'"

[contracts.aether]
OWN
[contracts.aether.serve.alerts]
trigger = "alerts"
[contracts.aether.serve.signed]
trigger = "signed"
path = "/signed"
input = "queueEvent"
[contracts.aether.serve.hub]
trigger = "hub"
pattern = "github"
"#;

fn rules(wait: &str, own: &str) -> String {
    RULES.replace("WAIT", wait).replace("OWN", own)
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path}\nContent-Type: application/json\n{headers}\n{body}")
}

fn tick(status: &str, steps: u64, pending: Value) -> Value {
    json!({ "tick": "*", "status": status, "steps": steps, "pendingApprovals": pending })
}

fn verdict(member: &Value) -> String {
    json!({ "doorbell": member }).to_string()
}

/// A request whose answer is words.
async fn words(door: &Door, what: &str, request: &str, status: u16, text: &str) {
    let said = send(&door.http, &door.url(""), request).await;
    assert_eq!((said.status, said.text.as_str()), (status, text), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_answers_with_its_tick_and_the_agent_finds_the_event_by_its_name() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, &rules("30s", ""))).await;
    agent.answer(200, &verdict(&json!({ "status": "succeeded", "output": "done", "steps": 4 })));
    let alert = r#"{"event":"price_alert","token":"ETH","threshold":2500}"#;
    let form =
        format!("POST /trigger\nContent-Type: application/x-www-form-urlencoded\nIdempotency-Key: k1\n\n{alert}");
    let signed = format!("X-Webhook-Signature: {}\n", sign(alert));
    let error = || json!({ "error": "*" });
    let rows: [Row; 8] = [
        row("the page's call", post("/trigger", "", alert), 200, tick("complete", 4, json!([]))),
        row("whatever its content type", form.clone(), 200, tick("complete", 4, json!([]))),
        row("the same again", form, 200, tick("complete", 4, json!([]))),
        row(
            "nobody wanted it",
            post("/trigger", "", r#"{"skip":1}"#),
            200,
            json!({ "tick": null, "status": "ignored", "steps": 0, "pendingApprovals": [] }),
        ),
        row("not JSON", post("/trigger", "", "{oops"), 400, error()),
        row("another method", "GET /trigger", 405, error()),
        row("signed", post("/signed", &signed, alert), 200, tick("complete", 4, json!([]))),
        row("not signed", post("/signed", "", alert), 401, error()),
    ];
    check(&door, &door.url(""), &rows).await;
    let seen = agent.envelopes();
    let inputs: Vec<&Value> = seen.iter().map(|e| &e["scenario_inputs"]).collect();
    let event: Value = serde_json::from_str(alert).unwrap();
    let webhook = json!({ "webhookEvent": event });
    assert_eq!(inputs, [&webhook, &webhook, &json!({ "queueEvent": event })], "the redelivery ran nothing");
    // A person has to look: theirs said `complete` and threw the session away.
    agent.answer(200, &verdict(&json!({ "status": "waiting", "approval": { "title": "Sell?" } })));
    let said = send(&door.http, &door.url(""), &post("/trigger", "", r#"{"n":1}"#)).await;
    let run = door.all("/runs?state=waiting").await[0]["id"].as_str().unwrap().to_owned();
    let wanted = tick("hold", 0, json!([run]));
    assert_eq!(
        (said.status, &said.json()["status"], &said.json()["pendingApprovals"]),
        (200, &json!("hold"), &wanted["pendingApprovals"])
    );
    // On the server's own address its own words stay.
    assert_eq!(send(&door.http, &door.url(""), "GET /status").await.status, 404);
    assert_eq!(send(&door.http, &door.url(""), "GET /health").await.json()["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_longer_than_the_caller_waits_is_told_as_it_is() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, &rules("100ms", ""))).await;
    // It will call back: the run is at work, and nobody knows its steps.
    agent.answer(202, "");
    let rows = [row("at work", post("/trigger", "", r#"{"n":1}"#), 202, tick("running", 0, json!([])))];
    check(&door, &door.url(""), &rows).await;
    // One at a time: the second one waits for its turn.
    let rows = [row("its turn has not come", post("/trigger", "", r#"{"n":2}"#), 202, tick("paused", 0, json!([])))];
    check(&door, &door.url(""), &rows).await;
    assert_eq!(agent.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn github_is_answered_in_words() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, &rules("30s", ""))).await;
    let body = r#"{"ref":"refs/heads/main"}"#;
    let hub = |kind: &str, id: &str, body: &str, signature: &str| {
        let headers = format!("X-GitHub-Event: {kind}\nX-GitHub-Delivery: {id}\nX-Hub-Signature-256: {signature}\n");
        post("/github", &headers, body)
    };
    let good = format!("sha256={}", sign(body));
    words(&door, "a push", &hub("push", "d1", body, &good), 200, "ok").await;
    words(&door, "the same again", &hub("push", "d1", body, &good), 200, "ok").await;
    words(&door, "what nobody wants", &hub("issues", "d2", "{}", &format!("sha256={}", sign("{}"))), 200, "ok").await;
    words(&door, "wrong", &hub("push", "d3", body, "sha256=00"), 403, "Forbidden").await;
    words(&door, "none", &post("/github", "X-GitHub-Event: push\n", body), 403, "Forbidden").await;
    let seen = eventually("the push to run", || async { agent.envelopes().pop() }).await;
    assert_eq!(seen["scenario_inputs"], json!({ "githubEvent": "push", "payload": { "ref": "refs/heads/main" } }));
    assert_eq!(agent.calls().len(), 1);
    let refused = eventually("the refusals", || async {
        let all = door.all("/decisions?kind=rejected").await;
        (all.len() == 2).then_some(all)
    })
    .await;
    assert!(refused.iter().all(|d| d["source"] == "hub" && d["reason"].is_string()), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_breaker_is_open_events_are_503_and_so_is_ready() {
    let agent = HttpAgent::start().await;
    let own = free_addr();
    let keys = format!("listen = \"{own}\"\nauth = \"none\"");
    let door = Door::start(&config(&agent, &rules("30s", &keys))).await;
    let base = format!("http://{own}");
    agent.answer(200, &verdict(&json!({ "status": "succeeded", "steps": 3 })));
    let ready = |ready: bool, reason: &str| json!({ "ready": ready, "reason": reason });
    let began = [
        row("alive", "GET /health", 200, json!({ "alive": true })),
        row("ready", "GET /ready", 200, ready(true, "ok")),
        row("no tick yet", "GET /ticks", 200, json!([])),
        row("a tick", post("/trigger", "", r#"{"n":1}"#), 200, tick("complete", 3, json!([]))),
        row("another method", "POST /ready\n\n{}", 405, json!({ "error": "*" })),
        row(
            "nothing else is there",
            "GET /api/v1/runs",
            404,
            json!({ "status": "error", "code": "*", "message": "*" }),
        ),
    ];
    check(&door, &base, &began).await;
    agent.answer(400, "no");
    let failed =
        |n: u32| row("it fails", post("/trigger", "", &format!("{{\"f\":{n}}}")), 200, tick("failed", 0, json!([])));
    check(&door, &base, &[failed(1), failed(2)]).await;
    // The tick is told when the run ends, and the end is counted after that.
    crate::world::eventually("the second failure is counted", || async {
        (send(&door.http, &base, "GET /ready").await.status == 503).then_some(())
    })
    .await;
    let open = [
        row("open", post("/trigger", "", r#"{"f":3}"#), 503, json!({ "error": "*" })),
        row("not ready", "GET /ready", 503, ready(false, "circuit breaker open")),
    ];
    check(&door, &base, &open).await;
    let said = send(&door.http, &base, &post("/trigger", "", r#"{"f":4}"#)).await;
    assert!(said.headers.contains_key("retry-after"));
    let status = send(&door.http, &base, "GET /status").await.json();
    assert_eq!(
        (
            &status["status"],
            &status["artifact_set"],
            &status["ticks_completed"],
            &status["last_tick"]["session_status"]
        ),
        (&json!("circuit_breaker_cooldown"), &json!("worker"), &json!(3), &json!("failed")),
        "{status}"
    );
    assert!(status["started_at"].is_string() && status["environment"].is_null(), "{status}");
    let ticks = send(&door.http, &base, "GET /ticks").await.json();
    let told: Vec<(&str, u64)> = ticks
        .as_array()
        .unwrap()
        .iter()
        .map(|t| (t["session_status"].as_str().unwrap(), t["steps_executed"].as_u64().unwrap()))
        .collect();
    assert_eq!(told, [("complete", 3), ("failed", 0), ("failed", 0)]);
    let metrics = send(&door.http, &base, "GET /metrics").await.text;
    for line in [
        "aether_ticks_total 3",
        "aether_ticks_failed_total 2",
        "aether_steps_per_tick_avg 1",
        "aether_agent_running 1",
        "aether_agent_ready 0",
        "aether_pending_approvals 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "{line} is not in:\n{metrics}");
    }
    // A person says that it works again, and another one stops it.
    assert_eq!(door.api_post("/agents/worker/resume", json!({})).await.0, 200);
    agent.answer(200, "{}");
    check(&door, &base, &[row("again", post("/trigger", "", r#"{"n":2}"#), 200, tick("complete", 0, json!([])))]).await;
    assert_eq!(door.api_post("/agents/worker/pause", json!({})).await.0, 200);
    check(&door, &base, &[row("stopped", "GET /ready", 503, ready(false, "kill switch active"))]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_auth_none_a_listener_tells_nobody_how_its_agent_is() {
    let agent = HttpAgent::start().await;
    let own = free_addr();
    let door = Door::start(&config(&agent, &rules("30s", &format!("listen = \"{own}\"")))).await;
    let base = format!("http://{own}");
    for path in ["/health", "/ready", "/status", "/ticks", "/metrics"] {
        let rows = [row("nobody", format!("GET {path}"), 401, json!({ "error": "unauthorized" }))];
        check(&door, &base, &rows).await;
        let with = format!("GET {path}\nAuthorization: Bearer {TOKEN}");
        assert_eq!(send(&door.http, &base, &with).await.status, 200, "{path}");
    }
}
