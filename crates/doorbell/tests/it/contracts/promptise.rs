//! Promptise Foundry: `WebhookTrigger` and `/health`.

use serde_json::{Value, json};

use super::{Said, check, config, row, send, sign};
use crate::world::{Door, HttpAgent, SECRET, TOKEN, eventually, free_addr};

const RULES: &str = r#"
[triggers.plain]
agent = "worker"
auth = "none"
filter = "!(type(data) == map && has(data.skip))"

[triggers.generic]
agent = "worker"
auth = "hmac"
header = "X-Webhook-Signature"
prefix = "sha256="
secret = { env = "TEST_SECRET" }
max_body = 100

[triggers.hub]
agent = "worker"
provider = "github"
secret = { env = "TEST_SECRET" }

[triggers.stripe]
agent = "worker"
provider = "stripe"
secret = { env = "TEST_SECRET" }

[triggers.telegram]
agent = "worker"
provider = "telegram"
secret = { env = "TEST_SECRET" }

[triggers.far]
agent = "worker"
auth = "none"
allowed_sources = ["192.0.2.0/24"]

[triggers.full]
agent = "worker"
auth = "none"
max_queued = 1

[contracts.promptise]
listen = "SHARED"
auth = "none"
[contracts.promptise.serve.plain]
trigger = "plain"
path = "/api/events"
listen = "ALONE"
[contracts.promptise.serve.generic]
trigger = "generic"
path = "/generic"
[contracts.promptise.serve.hub]
trigger = "hub"
path = "/github"
[contracts.promptise.serve.stripe]
trigger = "stripe"
path = "/stripe"
[contracts.promptise.serve.telegram]
trigger = "telegram"
path = "/telegram"
[contracts.promptise.serve.far]
trigger = "far"
[contracts.promptise.serve.full]
trigger = "full"
path = "/full"
"#;

struct Stage {
    agent: HttpAgent,
    door: Door,
    /// One trigger, with a port of its own.
    alone: String,
    port: u16,
    /// The rest.
    shared: String,
}

async fn stage() -> Stage {
    let agent = HttpAgent::start().await;
    let (alone, shared) = (free_addr(), free_addr());
    let rules = RULES.replace("ALONE", &alone.to_string()).replace("SHARED", &shared.to_string());
    let door = Door::start(&config(&agent, &rules)).await;
    Stage { agent, door, alone: format!("http://{alone}"), port: alone.port(), shared: format!("http://{shared}") }
}

fn accepted() -> Value {
    json!({ "status": "accepted", "event_id": "*" })
}

fn error(message: &str) -> Value {
    json!({ "status": "error", "message": message })
}

fn stripe(body: &str, ago: i64) -> String {
    let at = doorbell_core::Clock::system().now().secs() - ago;
    format!(
        "POST /stripe\nContent-Type: application/json\nStripe-Signature: t={at},v1={}\n\n{body}",
        sign(&format!("{at}.{body}"))
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_answers_as_the_document_says() {
    let stage = stage().await;
    let base = &stage.alone;
    let id = format!("webhook-{}/api/events", stage.port);
    let rows = [
        row(
            "health",
            "GET /health",
            200,
            json!({"status": "healthy", "reason": null, "trigger_id": id, "queue_size": 0}),
        ),
        row("json", "POST /api/events?a=1\nContent-Type: application/json\nX-Trace: t1\n\n{\"n\":1}", 202, accepted()),
        row(
            "text that says that it is JSON",
            "POST /api/events\nContent-Type: application/json\n\nhello",
            202,
            accepted(),
        ),
        row("a number", "POST /api/events\nContent-Type: text/plain\n\n42", 202, accepted()),
        row("filtered", "POST /api/events\n\n{\"skip\":1}", 200, json!({"status": "ignored", "event_id": "*"})),
        row(
            "another site's page",
            "POST /api/events\nOrigin: https://evil.example\n\n{}",
            403,
            error("Cross-origin request refused"),
        ),
        row("a page of nowhere", "POST /api/events\nOrigin: null\n\n{}", 403, error("Cross-origin request refused")),
        row("a name that was rebound", "POST /api/events\nHost: evil.example\n\n{}", 421, error("Misdirected request")),
        row("a page of this machine", "POST /api/events\nOrigin: http://localhost:3000\n\n{\"n\":2}", 202, accepted()),
        row("another method", "GET /api/events", 405, Value::Null),
    ];
    check(&stage.door, base, &rows).await;
    let seen = eventually("four runs", || async { Some(stage.agent.envelopes()).filter(|e| e.len() == 4) }).await;
    for data in [json!({"n": 1}), json!("hello"), json!(42), json!({"n": 2})] {
        assert!(seen.iter().any(|e| e["event"]["data"] == data), "{data}: {seen:?}");
    }
    assert_eq!(send(&stage.door.http, base, "POST /other\n\n{}").await.status, 404);
    let status = send(&stage.door.http, base, &format!("GET /status\nAuthorization: Bearer {TOKEN}")).await;
    assert_eq!(status.status, 200, "{}", status.text);
    let told = status.json();
    assert_eq!(
        (&told["name"], &told["state"], &told["filtered_count"]),
        (&json!("plain"), &json!("running"), &json!(1))
    );
    assert_eq!(send(&stage.door.http, base, "GET /status").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scheme_lets_in_what_is_signed_and_nothing_else() {
    let Stage { agent, door, shared: base, .. } = &stage().await;
    let wrong = || error("Missing or invalid signature");
    let body = r#"{"id":"evt_1","n":1}"#;
    let signed = |path: &str, header: &str, value: &str| format!("POST {path}\n{header}: {value}\n\n{body}");
    let hex = sign(body);
    let rows = [
        row("generic", signed("/generic", "X-Webhook-Signature", &format!("sha256={hex}")), 202, accepted()),
        row("the same again", signed("/generic", "X-Webhook-Signature", &format!("sha256={hex}")), 202, accepted()),
        row("without the word", signed("/generic", "X-Webhook-Signature", &hex), 401, wrong()),
        row("none", "POST /generic\n\n{}", 401, wrong()),
        row("of another body", "POST /generic\nX-Webhook-Signature: sha256=00\n\n{}", 401, wrong()),
        row(
            "too long",
            format!("POST /generic\n\n{}", "x".repeat(101)),
            413,
            error("Request body too large (limit 100 bytes)"),
        ),
        row("github", signed("/github", "X-Hub-Signature-256", &format!("sha256={hex}")), 202, accepted()),
        row("github, wrong", signed("/github", "X-Hub-Signature-256", "sha256=00"), 401, wrong()),
        row("stripe", stripe(body, 0), 202, accepted()),
        row("stripe, old", stripe(body, 301), 401, wrong()),
        row(
            "telegram",
            format!("POST /telegram\nX-Telegram-Bot-Api-Secret-Token: {SECRET}\n\n{{\"update_id\":1}}"),
            202,
            accepted(),
        ),
        row("telegram, wrong", "POST /telegram\nX-Telegram-Bot-Api-Secret-Token: x\n\n{}", 401, wrong()),
        row(
            "a strange address, before its host",
            "POST /webhook\nHost: evil.example\n\n{}",
            403,
            error("Source not allowed"),
        ),
    ];
    check(door, base, &rows).await;
    eventually("one run of each", || async { (agent.calls().len() == 4).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_503_and_a_long_event_is_cut_in_the_prompt() {
    let Stage { agent, door, shared: base, alone, .. } = &stage().await;
    let long = "x".repeat(30_000);
    let settings = door.api("/triggers/plain").await["settings"].clone();
    assert_eq!(settings["max_payload_chars"], 20_000, "as in force: {settings}");
    let said = send(&door.http, alone, &format!("POST /api/events\n\n{long}")).await;
    assert_eq!(said.status, 202, "{}", said.text);
    let seen = eventually("a run", || async { agent.envelopes().pop() }).await;
    let prompt = seen["prompt"].as_str().unwrap();
    assert!(prompt.contains(&"x".repeat(20_000)) && !prompt.contains(&"x".repeat(20_001)), "{}", prompt.len());
    assert_eq!(seen["event"]["data"], json!(long), "the envelope has all of it");
    assert_eq!(door.api_post("/agents/worker/pause", json!({})).await.0, 200);
    assert_eq!(send(&door.http, base, "POST /full\n\n{\"n\":1}").await.status, 202);
    let Said { status, headers, text } = send(&door.http, base, "POST /full\n\n{\"n\":2}").await;
    assert_eq!((status, headers.get("retry-after").unwrap().to_str().unwrap()), (503, "30"), "{text}");
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), error("queue full"));
    let health = eventually("the queue to show", || async {
        let health = send(&door.http, base, "GET /health").await.json();
        (health["queue_size"] == 1).then_some(health)
    })
    .await;
    assert_eq!(health["status"], "healthy");
}
