//! Datalayer agent-runtimes: `webhook_trigger` and `webhook_info`.

use serde_json::{Value, json};

use super::{check, config, row, send, sign};
use crate::world::{Door, HttpAgent, TOKEN, eventually, free_addr};

const RULES: &str = r#"
[triggers.tickets]
agent = "worker"
auth = "hmac"
header = "X-Webhook-Signature"
prefix = "sha256="
secret = { env = "TEST_SECRET" }
filter = "!has(data.skip)"

[triggers.open]
agent = "worker"
auth = "none"

[contracts.datalayer]
LISTEN

[contracts.datalayer.serve.helpdesk]
trigger = "tickets"
event_source = "https://helpdesk.example.com"
description = "A ticket was opened"
allowed_ips = ["192.0.2.0/24"]
metadata = { team = "support" }

[contracts.datalayer.serve.off]
trigger = "tickets"
enabled = false

[contracts.datalayer.serve.anybody]
trigger = "open"

[contracts.datalayer.serve.near]
trigger = "open"
allowed_ips = ["127.0.0.0/8"]

[contracts.datalayer.serve.far]
trigger = "open"
allowed_ips = ["192.0.2.1"]
"#;

fn post(id: &str, headers: &str, body: &str) -> String {
    format!("POST /api/v1/agents/{id}/webhook\nContent-Type: application/json\n{headers}\n{body}")
}

fn triggered(id: &str) -> Value {
    json!({ "status": "triggered", "agent_id": id, "workflow_id": "*", "message": "Agent triggered successfully" })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_document_gets_its_answer() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, &RULES.replace("LISTEN", ""))).await;
    let signed = |body: &str| format!("X-Webhook-Signature: sha256={}\n", sign(body));
    let from = |said: &str, body: &str| format!("X-Webhook-Source: {said}\n{}", signed(body));
    let body = r#"{"ticket":1}"#;
    let refused = || json!({ "detail": "Unauthorized event source" });
    let rows = [
        row(
            "none registered",
            post("nobody", "", "{}"),
            404,
            json!({"detail": "No webhook trigger registered for agent 'nobody'"}),
        ),
        row(
            "disabled",
            post("off", &signed(body), body),
            403,
            json!({"detail": "Webhook trigger for agent 'off' is disabled"}),
        ),
        row(
            "from its source",
            post("helpdesk", &from("https://helpdesk.example.com", body), body),
            200,
            triggered("helpdesk"),
        ),
        row(
            "by the browser's header, and a body that was there before",
            post("helpdesk", &format!("Origin: https://helpdesk.example.com\n{}", signed(body)), body),
            200,
            json!({"status": "triggered", "agent_id": "helpdesk", "workflow_id": "*", "message": "This event has triggered the agent before"}),
        ),
        row("no source", post("helpdesk", &signed(body), body), 403, refused()),
        row(
            "a longer host",
            post("helpdesk", &from("https://helpdesk.example.com.evil.io", body), body),
            403,
            refused(),
        ),
        row("an address in a header", post("helpdesk", &from("192.0.2.1", body), body), 403, refused()),
        row(
            "not signed",
            post("helpdesk", "Origin: https://helpdesk.example.com\n", body),
            401,
            json!({"detail": "the request could not be verified"}),
        ),
        row(
            "nobody wanted it",
            post("helpdesk", &from("helpdesk.example.com", r#"{"skip":1}"#), r#"{"skip":1}"#),
            200,
            json!({"status": "ignored", "agent_id": "helpdesk", "workflow_id": null, "message": "*"}),
        ),
        row("opened by name", post("anybody", "", r#"{"n":1}"#), 200, triggered("anybody")),
        row("an address of a network", post("near", "", r#"{"n":2}"#), 200, triggered("near")),
        row("another address", post("far", "X-Forwarded-For: 192.0.2.1\n", r#"{"n":3}"#), 403, refused()),
        row("not JSON", post("anybody", "", "{oops"), 400, json!({"detail": "*"})),
        row(
            "another method",
            "PUT /api/v1/agents/helpdesk/webhook\n\n{}",
            405,
            json!({"detail": "Method Not Allowed"}),
        ),
        row("told to nobody", "GET /api/v1/agents/helpdesk/webhook", 401, json!({"detail": "Not authenticated"})),
        row(
            "told to the owner",
            format!("GET /api/v1/agents/helpdesk/webhook\nAuthorization: Bearer {TOKEN}"),
            200,
            json!({
                "webhook_url": "/api/v1/agents/helpdesk/webhook", "agent_id": "helpdesk", "methods": ["POST"],
                "content_type": "application/json", "event_source": "https://helpdesk.example.com",
                "description": "A ticket was opened",
            }),
        ),
    ];
    check(&door, &door.url(""), &rows).await;
    let calls = eventually("three runs", || async { Some(agent.envelopes()).filter(|c| c.len() == 3) }).await;
    assert!(calls.iter().any(|c| c["event"]["data"] == json!({"ticket": 1})), "{calls:?}");
    // Every no is in the record, with its reason.
    let reasons = eventually("the refusals", || async {
        let all = door.all("/decisions").await;
        let reasons: Vec<String> = all.iter().filter_map(|d| d["reason"].as_str().map(str::to_owned)).collect();
        let told = ["nobody", "is disabled", "evil.io", "came from 127.0.0.1"];
        told.iter().all(|t| reasons.iter().any(|r| r.contains(t))).then_some(reasons)
    })
    .await;
    assert!(!reasons.is_empty());
    // The API beside it is as it was.
    assert_eq!(door.api("/agents/worker").await["name"], "worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_of_its_own_serves_the_contract_and_nothing_else() {
    let agent = HttpAgent::start().await;
    let own = free_addr();
    let keys = format!("listen = \"{own}\"\nauth = \"none\"");
    let door = Door::start(&config(&agent, &RULES.replace("LISTEN", &keys))).await;
    let base = format!("http://{own}");
    let rows = [
        row("there", post("anybody", "", r#"{"n":1}"#), 200, triggered("anybody")),
        row(
            "told to everybody",
            "GET /api/v1/agents/nobody/webhook",
            200,
            json!({
                "webhook_url": "/api/v1/agents/nobody/webhook", "agent_id": "nobody", "methods": ["POST"],
                "content_type": "application/json", "event_source": "", "description": "",
            }),
        ),
    ];
    check(&door, &base, &rows).await;
    for path in ["/health", "/ready", "/metrics", "/api/v1/stats", "/hooks/open", "/docs", "/"] {
        assert_eq!(
            send(&door.http, &base, &format!("GET {path}\nAuthorization: Bearer {TOKEN}")).await.status,
            404,
            "{path}"
        );
        assert_eq!(send(&door.http, &base, &format!("POST {path}\n\n{{}}")).await.status, 404, "{path}");
    }
    assert_eq!(send(&door.http, &door.url(""), &post("anybody", "", "{}")).await.status, 401, "only there");
}
