//! Requests to an agent: who is let by, what reaches it, and what comes back.

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::{check, row, send};
use super::upstream::{GZIPPED, Seen};
use super::{World, detail, github, now, slack};
use crate::world::{SECRET, TOKEN, eventually};

pub(super) const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
pub(super) const REPO: &str = r#"{"repository":{"full_name":"acme/x"},"n":1}"#;

fn form(json: &str) -> String {
    format!("payload={}", form_urlencoded::byte_serialize(json.as_bytes()).collect::<String>())
}

fn success() -> Value {
    json!({ "message": "Success" })
}

pub(super) fn get(agent: &str, path: &str, key: &str) -> String {
    format!("GET /agents/forward/name/{agent}/{path}\nx-agent-api-key: {key}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_let_by_with_the_first_proof_that_it_carries() {
    let world = World::start("").await;
    let external = world.external("reviewer").await;
    let other = world.external("slow").await;
    for (name, kind, secret) in [
        ("acme/x", "github", "repository-secret"),
        ("acme", "github", "organisation-secret"),
        ("A1", "slack", "slack-secret-of-one"),
        ("A2", "slack", "slack-secret-of-two"),
    ] {
        world.key(json!({"agent_name": "reviewer", "name": name, "api_key_type": kind, "api_key": secret})).await;
    }
    let hook =
        |headers: &str, body: &str| format!("POST /agents/forward/name/reviewer/code_changes\n{headers}\n{body}");
    let keyed = |name: &str, value: &str| hook(&format!("{name}: {value}\n"), "{}");
    let hub = |secret: &str, body: &str| github("reviewer", secret, JSON, body);
    let org = r#"{"organization":{"login":"acme"},"action":"member_added"}"#;
    let owned = r#"{"repository":{"full_name":"acme/y"},"organization":{"login":"acme"}}"#;
    let foreign = r#"{"repository":{"full_name":"evil/y"},"organization":{"login":"acme"}}"#;
    let app = r#"{"api_app_id":"A1","type":"event_callback","event_id":"Ev1"}"#;
    let asks = r#"{"type":"url_verification","challenge":"3eZbrw1a","token":"x"}"#;
    let bad = |kind: &str| detail(&format!("Invalid {kind} webhook signature"));
    let no_key = || detail("Invalid API key for agent ID reviewer.");
    let slacks = |secret: &str, at: i64, body: &str| slack("reviewer", secret, at, JSON, body);
    let rows = [
        row(
            "no agent of the name",
            "POST /agents/forward/name/nobody/x\n\n{}",
            404,
            detail("Agent nobody not found or has no ACP URL."),
        ),
        row("nothing", hook("", "{}"), 403, detail("Missing authentication for forward request.")),
        row(
            "an unknown path is not told to strangers",
            "GET /agents/forward/name/reviewer/zzz",
            403,
            detail("Missing authentication for forward request."),
        ),
        row(
            "the admin's token is no agent's key",
            keyed("Authorization", &format!("Bearer {TOKEN}")),
            403,
            detail("Missing authentication for forward request."),
        ),
        row("an external key", keyed("X-Agent-API-Key", &external), 200, success()),
        row("by GET", get("reviewer", "code_changes", &external), 200, success()),
        row("as AgentKey", keyed("Authorization", &format!("AgentKey {external}")), 200, success()),
        row("in other letters", keyed("Authorization", &format!("agentkey   {external}")), 200, success()),
        row(
            "an empty AgentKey",
            keyed("Authorization", "AgentKey "),
            403,
            detail("Missing authentication for forward request."),
        ),
        row("a wrong key", keyed("X-Agent-API-Key", "nonsense"), 401, no_key()),
        row("a wrong AgentKey", keyed("Authorization", "AgentKey nonsense"), 401, no_key()),
        row("another agent's", keyed("X-Agent-API-Key", &other), 401, no_key()),
        row("a secret that signs is no key", keyed("X-Agent-API-Key", "repository-secret"), 401, no_key()),
        row(
            "the key before the signature",
            hub("repository-secret", REPO).replace("X-GitHub-Event: push", "x-agent-api-key: no"),
            401,
            no_key(),
        ),
        row("github", hub("repository-secret", REPO), 200, success()),
        row("github, a form", github("reviewer", "repository-secret", FORM, &form(REPO)), 200, success()),
        row("github, no repository", hub("organisation-secret", org), 200, success()),
        row("github, of an organisation's repository", hub("organisation-secret", owned), 200, success()),
        row("github, of somebody else's", hub("organisation-secret", foreign), 401, bad("GitHub")),
        row("github, another's secret", hub("organisation-secret", REPO), 401, bad("GitHub")),
        row(
            "github, no such key, told alike",
            hub("x", r#"{"repository":{"full_name":"acme/z"}}"#),
            401,
            bad("GitHub"),
        ),
        row("github, nothing", hub("repository-secret", ""), 400, detail("Empty payload in GitHub webhook.")),
        row(
            "github, not JSON",
            hub("repository-secret", "{oops"),
            400,
            detail("Failed to parse GitHub webhook payload as JSON."),
        ),
        row(
            "github, a list",
            hub("repository-secret", "[1]"),
            400,
            detail("Failed to parse GitHub webhook payload as JSON."),
        ),
        row(
            "github, of nobody",
            hub("repository-secret", "{}"),
            400,
            detail("GitHub webhook payload missing repository info."),
        ),
        row(
            "github, of no name",
            hub("repository-secret", r#"{"repository":{}}"#),
            400,
            detail("GitHub webhook payload missing repository name."),
        ),
        row("slack", slacks("slack-secret-of-one", now(), app), 200, success()),
        row(
            "slack, a command",
            slack("reviewer", "slack-secret-of-two", now(), FORM, "command=%2Fgo&api_app_id=A2&text=a+b"),
            200,
            success(),
        ),
        row("slack, an interaction", slack("reviewer", "slack-secret-of-one", now(), FORM, &form(app)), 200, success()),
        row("slack, another app's secret", slacks("slack-secret-of-two", now(), app), 401, bad("Slack")),
        row(
            "slack, an app that is not known",
            slacks("slack-secret-of-one", now(), r#"{"api_app_id":"A3"}"#),
            401,
            bad("Slack"),
        ),
        row(
            "slack, too old",
            slacks("slack-secret-of-one", now() - 400, app),
            400,
            detail("Slack webhook request has bad timestamp."),
        ),
        row(
            "slack, too new",
            slacks("slack-secret-of-one", now() + 400, app),
            400,
            detail("Slack webhook request has bad timestamp."),
        ),
        row(
            "slack, of no app",
            slacks("slack-secret-of-one", now(), "{}"),
            400,
            detail("Slack webhook payload missing API app ID."),
        ),
        row(
            "slack, not JSON",
            slacks("slack-secret-of-one", now(), "{oops"),
            400,
            detail("Invalid Slack verification request."),
        ),
        row(
            "slack, no time",
            hook("X-Slack-Signature: v0=00\n", app),
            401,
            detail("Missing X-Slack-Request-Timestamp header."),
        ),
        row(
            "slack, no number",
            hook("X-Slack-Signature: v0=00\nX-Slack-Request-Timestamp: x\n", app),
            400,
            detail("Invalid X-Slack-Request-Timestamp header value."),
        ),
        row(
            "slack asks, unsigned",
            hook(&format!("X-Slack-Request-Timestamp: {}\n", now()), asks),
            403,
            detail("Missing authentication for forward request."),
        ),
        row("slack asks, badly signed", slacks("nobody", now(), asks), 401, bad("Slack")),
        row("another method", "PUT /agents/forward/name/reviewer/x\n\n{}", 405, detail("Method Not Allowed")),
        row("another method", "DELETE /agents/forward/name/reviewer/x", 405, detail("Method Not Allowed")),
        row(
            "an upgrade",
            format!("{}\nConnection: upgrade\nUpgrade: websocket", get("reviewer", "x", &external)),
            400,
            detail("Upgrades are not forwarded."),
        ),
        row("an address that is not let in", get("far", "x", "k"), 403, detail("this address may not send here")),
    ];
    check(&world.door, &world.base(), &rows).await;
    let let_by = rows.iter().filter(|r| r.status == 200).count();
    assert_eq!(world.agent.seen().len(), let_by, "nothing else reached the agent");
    let challenge = world.send(&slacks("slack-secret-of-two", now(), asks)).await;
    assert_eq!((challenge.status, challenge.text.as_str()), (200, "3eZbrw1a"));
    assert!(challenge.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    assert_eq!(world.agent.seen().len(), let_by, "a question is not passed on");
    recorded(&world, &rows.iter().map(|r| r.status).collect::<Vec<_>>()).await;
}

/// Each request has its decision, and none tells a secret.
async fn recorded(world: &World, statuses: &[u16]) {
    let passed = statuses.iter().filter(|s| **s == 200).count();
    let decisions = world.door.all("/decisions?source=reviewer&kind=forwarded").await;
    assert_eq!(decisions.len(), passed, "on disk before the answer");
    assert!(
        decisions
            .iter()
            .all(|d| d["code"] == "forwarded" && d["reason"].as_str().unwrap().contains("the agent answered 200"))
    );
    let whys =
        ["credential_missing", "credential_mismatch", "no_key", "signature_mismatch", "timestamp_stale", "unreadable"];
    let all = eventually("the refusals", || async {
        let all = world.door.all("/decisions").await;
        (whys.iter().all(|why| all.iter().any(|d| d["code"] == *why)) && all.len() > statuses.len()).then_some(all)
    })
    .await;
    assert!(all.iter().any(|d| d["kind"] == "handshake"));
    let text = Value::from(all).to_string();
    assert!(!text.contains("-secret"), "a secret in a decision");
    assert!(text.contains("no github key named `acme/z`"));
}

/// What the document tells an agent to do with a request.
pub(super) fn proof(seen: &Seen, secret: &str) -> Result<String, &'static str> {
    let digest = digest::digest(&digest::SHA256, &seen.body);
    if seen.header("content-digest") != format!("sha-256=:{}:", STANDARD.encode(digest.as_ref())) {
        return Err("another body");
    }
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let parameters = seen.header("signature-input").strip_prefix("doorbell=").unwrap();
    let base = format!(
        "\"@method\": {}\n\"@path\": {path}\n\"@query\": ?{query}\n\"content-digest\": {}\n\"doorbell-agent\": {}\n\
         \"doorbell-checked\": {}\n\"@signature-params\": {parameters}",
        seen.method,
        seen.header("content-digest"),
        seen.header("doorbell-agent"),
        seen.header("doorbell-checked"),
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = STANDARD.encode(hmac::sign(&key, base.as_bytes()).as_ref());
    if seen.header("signature") != format!("doorbell=:{tag}:") {
        return Err("another signature");
    }
    let created = parameters.split(';').find_map(|p| p.strip_prefix("created=")).unwrap();
    assert!(created.parse::<i64>().unwrap().abs_diff(now()) < 60, "{parameters}");
    Ok(seen.header("doorbell-checked").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_gets_the_request_without_its_credentials_and_with_our_proof() {
    let world = World::start("").await;
    let key = world.external("reviewer").await;
    let body = "\u{0}any bytes \u{fffd}";
    let request = format!(
        "POST /agents/forward/name/reviewer/a/b%20c/%C3%BC?x=1&y=%22'&x=2\nX-Agent-API-Key: {key}\nAuthorization: Bearer other\n\
         Cookie: c=1\nX-API-Key: k\nX-Selected-Account-Id: a\nConnection: X-Mine\nX-Mine: 1\nTE: trailers\n\
         X-Forwarded-For: 10.0.0.1\nDoorbell-Agent: another\nSignature: doorbell=:AAAA:\nSignature-Input: doorbell=()\n\
         Content-Digest: sha-256=:AAAA:\nContent-Type: text/x-own\nContent-Encoding: x-own\nX-Kept: yes\n\n{body}"
    );
    assert_eq!(world.send(&request).await.status, 200);
    let seen = world.agent.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/base/a/b%20c/%C3%BC?x=1&y=%22%27&x=2"));
    assert_eq!(seen.body, body.as_bytes());
    for gone in [
        "x-agent-api-key",
        "authorization",
        "cookie",
        "x-api-key",
        "x-selected-account-id",
        "x-mine",
        "te",
        "connection",
    ] {
        assert!(!seen.headers.contains_key(gone), "{gone}: {seen:?}");
    }
    assert_eq!(seen.header("host"), world.agent.addr.to_string());
    assert_eq!(
        (seen.header("x-kept"), seen.header("content-type"), seen.header("content-encoding")),
        ("yes", "text/x-own", "x-own")
    );
    assert_eq!((seen.header("x-forwarded-for"), seen.header("doorbell-hops")), ("127.0.0.1", "1"));
    assert_eq!(seen.header("doorbell-agent"), "reviewer");
    let by = proof(&seen, SECRET).unwrap();
    let id = world.door.all("/keys").await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(by, format!("external {id}"));
    assert!(proof(&Seen { body: b"x".to_vec(), ..seen.clone() }, SECRET).is_err());
    assert!(proof(&Seen { target: "/base/other".into(), ..seen.clone() }, SECRET).is_err());
    assert!(proof(&Seen { method: "GET".into(), ..seen.clone() }, SECRET).is_err());
    assert!(proof(&seen, "another secret").is_err());
    // Handed on too often.
    let looped = format!("{}\nDoorbell-Hops: 9", get("reviewer", "x", &key));
    assert_eq!(world.send(&looped).await.status, 508);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_agents_base() {
    let world = World::start("").await;
    let key = world.external("reviewer").await;
    let paths = [
        "../x",
        "a/../../x",
        "%2e%2e/x",
        "a/%2e%2e%2fx",
        "..%2f..%2fx",
        "%252e%252e%252fx",
        "..;/x",
        "a%5c..%5cx",
        "a\\..\\x",
        "%00",
        "a%",
    ];
    for path in paths {
        // Written by hand: a client would tidy it up.
        let mut socket = tokio::net::TcpStream::connect(world.door.addr).await.unwrap();
        let request = format!(
            "GET /agents/forward/name/reviewer/{path} HTTP/1.1\r\nhost: door\r\nx-agent-api-key: {key}\r\nconnection: close\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 400"), "{path}: {text}");
    }
    assert!(world.agent.seen().is_empty(), "{:?}", world.agent.seen());
    // An encoded slash stays one.
    assert_eq!(world.send(&get("reviewer", "a%2Fb", &key)).await.status, 200);
    assert_eq!(world.agent.last().target, "/base/a%2Fb");
    let bare = world.send("GET /agents/forward/name/reviewer").await;
    assert_eq!(bare.status, 404, "{}", bare.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_as_the_agent_gave_it() {
    let world = World::start("").await;
    let key = world.external("reviewer").await;
    let said = world.send(&get("reviewer", "teapot", &key)).await;
    assert_eq!((said.status, said.text.as_str()), (418, "no coffee"));
    assert_eq!(said.headers["x-own"], "1");
    for gone in ["x-inner", "keep-alive"] {
        assert!(!said.headers.contains_key(gone), "{gone}: {:?}", said.headers);
    }
    let request = |path: &str| {
        let url = world.door.url(&format!("/agents/forward/name/reviewer/{path}"));
        world.door.http.get(url).header("x-agent-api-key", &key).header("accept-encoding", "gzip")
    };
    let gzip = request("gzip").send().await.unwrap();
    assert_eq!(gzip.headers()["content-encoding"], "gzip");
    assert_eq!(gzip.headers()["content-length"], GZIPPED.len().to_string());
    assert_eq!(gzip.bytes().await.unwrap(), GZIPPED);
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let said = client.execute(request("redirect").build().unwrap()).await.unwrap();
    assert_eq!((said.status().as_u16(), said.headers()["location"].to_str().unwrap()), (302, "http://192.0.2.1/"));
    // The first piece is here while the agent still works on the second.
    let mut pieces = request("stream").send().await.unwrap().bytes_stream();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "one\n");
    world.agent.go_on.notify_one();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "two\n");
    assert!(pieces.next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_away_or_too_slow_is_502_or_504() {
    let world = World::start("").await;
    let told = |code: u16| json!({ "message": "*", "code": code, "data": null });
    let (gone, broken, slow) =
        (world.external("gone").await, world.external("breaking").await, world.external("slow").await);
    let rows = [
        row("nobody listens", get("gone", "x", &gone), 502, told(502)),
        row("it hangs up", get("breaking", "x", &broken), 502, told(502)),
        row("it does not answer", get("slow", "slow", &slow), 504, told(504)),
        row("it answers in time", get("slow", "x", &slow), 200, success()),
    ];
    check(&world.door, &world.base(), &rows).await;
    for request in [get("gone", "x", &gone), get("breaking", "x", &broken)] {
        let text = world.send(&request).await.text;
        assert!(!text.contains("127.0.0.1") && !text.to_lowercase().contains("error"), "{text}");
    }
    // Half an answer is no whole one.
    let cutting = world.external("cutting").await;
    for (agent, path, key) in [("cutting", "x", &cutting), ("slow", "stall", &slow)] {
        let url = world.door.url(&format!("/agents/forward/name/{agent}/{path}"));
        let answer = world.door.http.get(url).header("x-agent-api-key", key).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.is_err(), "{agent}");
    }
    let codes = world.door.all("/decisions?kind=forwarded").await;
    for code in ["agent_unreachable", "agent_timed_out"] {
        assert!(codes.iter().any(|d| d["code"] == code), "{codes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_nobody_locks_the_sender_out() {
    let world = World::start("").await;
    let key = world.external("limited").await;
    let post = |key: &str, body: &str| format!("POST /agents/forward/name/limited/x\nx-agent-api-key: {key}\n\n{body}");
    assert_eq!(world.send(&post("nonsense", "1")).await.status, 401);
    let said = world.send(&post("nonsense", "1")).await;
    assert_eq!(said.status, 429, "{}", said.text);
    assert!(said.headers.contains_key("retry-after"));
    assert_eq!(world.send(&post(&key, &"x".repeat(1025))).await.status, 413);
    assert_eq!(world.send(&post(&key, &"x".repeat(1024))).await.status, 200, "the good key is let by");
    let said = world.send(&post(&key, "2")).await;
    assert_eq!((said.status, said.headers.contains_key("retry-after")), (429, true), "over rate_limit");
    assert_eq!(world.agent.seen().len(), 1);
    // One at a time.
    let slow = world.external("slow").await;
    let one = get("slow", "stall", &slow);
    let url = world.door.url("/agents/forward/name/slow/stream");
    let held = world.door.http.get(url).header("x-agent-api-key", &slow).send().await.unwrap();
    let said = world.send(&one).await;
    assert_eq!((said.status, said.headers.contains_key("retry-after")), (429, true), "{}", said.text);
    drop(held);
    let again = get("slow", "x", &slow);
    eventually("the place to be free", || async { (world.send(&again).await.status == 200).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_hangs_up_leaves_its_record() {
    let world = World::start("").await;
    let key = world.external("slow").await;
    let mut socket = tokio::net::TcpStream::connect(world.door.addr).await.unwrap();
    let request =
        format!("GET /agents/forward/name/slow/slow HTTP/1.1\r\nhost: door\r\nx-agent-api-key: {key}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    eventually("it to reach the agent", || async { (!world.agent.seen().is_empty()).then_some(()) }).await;
    socket.set_zero_linger().unwrap();
    drop(socket);
    eventually("its record", || async {
        let all = world.door.all("/decisions?source=slow&kind=forwarded").await;
        (all.len() == 1 && all[0]["code"] == "agent_timed_out").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_listener_of_its_own_nothing_else_answers() {
    let own = crate::world::free_addr();
    let world = World::start(&format!("listen = \"{own}\"\nauth = \"loopback\"")).await;
    let base = format!("http://{own}");
    let rows = [
        row("keys", "GET /agent_api_keys?agent_name=reviewer", 200, json!([])),
        row(
            "forwards",
            "GET /agents/forward/name/reviewer/x",
            403,
            detail("Missing authentication for forward request."),
        ),
    ];
    check(&world.door, &base, &rows).await;
    for path in ["/health", "/api/v1/stats", "/hooks/queued", "/agents/forward/name", "/agents/reviewer", "/"] {
        let said = send(&world.door.http, &base, &format!("GET {path}\nAuthorization: Bearer {TOKEN}")).await;
        assert_eq!(said.status, 404, "{path}");
    }
    for path in ["/agent_api_keys?agent_name=reviewer", "/agents/forward/name/reviewer/x"] {
        let said = world.send(&format!("GET {path}\nx-api-key: {TOKEN}")).await;
        assert!(said.status == 404 && said.json()["detail"].is_null(), "only there: {} {}", said.status, said.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_gives_no_fresh_places() {
    let world = World::start("").await;
    let file = world.door.path().join("doorbell.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("timeout = \"300ms\"", "timeout = \"30s\"");
    let with = |more: &str| format!("{text}\n[contracts.agentex.agents.{more}]\nacp_url = \"http://192.0.2.1\"\n");
    // What was loaded is known by an agent that is there.
    let loaded = async |name: &str| {
        let call = format!("GET /agent_api_keys?agent_name={name}\nx-api-key: {TOKEN}");
        eventually("the new file is taken", || async { (world.send(&call).await.status == 200).then_some(()) }).await;
    };
    std::fs::write(&file, with("one-more")).unwrap();
    loaded("one-more").await;
    let key = world.external("slow").await;
    let url = format!("{}/agents/forward/name/slow/stream", world.base());
    let ask = || world.door.http.get(&url).header("x-agent-api-key", &key).send();
    let first = ask().await.unwrap();
    assert_eq!((first.status().as_u16(), ask().await.unwrap().status().as_u16()), (200, 429));
    std::fs::write(&file, with("another")).unwrap();
    loaded("another").await;
    assert_eq!(ask().await.unwrap().status(), 429, "the one under way still has its place");
    world.agent.go_on.notify_one();
    assert!(first.text().await.unwrap().ends_with("two\n"));
    world.agent.go_on.notify_one();
    eventually("its place is free", || async { (ask().await.unwrap().status() == 200).then_some(()) }).await;
}
