//! Agents that register themselves, as their SDK does when they start: who may, what is kept, and how they are reached.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::{Said, check, row};
use super::World;
use super::forward::{get, proof};
use super::keys::{failed, invalid};
use crate::world::{TOKEN, eventually};

const ON: &str = "register = \"token\"\nregister_networks = [\"127.0.0.0/8\"]";

/// What an SDK sends at the start of an agent.
fn agent(name: &str, url: &str) -> Value {
    json!({
        "name": name, "description": format!("Generic description for agent: {name}"), "acp_url": url,
        "acp_type": "async", "principal_context": null, "registration_metadata": {"build": 1},
    })
}

fn register(header: &str, body: &Value) -> String {
    format!("POST /agents/register\nContent-Type: application/json\n{header}\n\n{body}")
}

fn basic(password: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("doorbell:{password}")))
}

fn shown(name: &str) -> Value {
    json!({
        "id": name, "name": name, "description": "*", "status": "Ready", "acp_type": "async", "status_reason": "*",
        "created_at": "*", "updated_at": "*", "registered_at": "*", "registration_metadata": {"build": 1},
        "agent_input_type": null, "production_deployment_id": null,
    })
}

fn made(name: &str) -> Value {
    let mut made = shown(name);
    made["agent_api_key"] = json!("*");
    made
}

fn owner(method_and_path: &str) -> String {
    format!("{method_and_path}\nx-api-key: {TOKEN}")
}

async fn codes(world: &World, wanted: usize) -> Vec<String> {
    eventually("the noes are recorded", || async {
        let mut all = world.door.all("/decisions").await;
        // Who came and went is on disk before its answer; noes are written behind.
        all.retain(|d| d["kind"] != "handshake");
        (all.len() >= wanted).then(|| all.iter().map(|d| d["code"].as_str().unwrap().to_owned()).collect())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_registers_itself_and_is_reached_by_its_name_after_a_restart_too() {
    let mut world = World::start(ON).await;
    let url = world.agent.url();
    let scoped = json!({"name": "deploy", "scopes": ["register"]});
    let scoped = world.door.api_post("/keys", scoped).await.1["key"].as_str().unwrap().to_owned();
    let rows = [
        row("not there yet", get("late", "x", "k"), 404, json!({"detail": "Agent late not found or has no ACP URL."})),
        row("nobody", register("x-nothing: 1", &agent("late", &url)), 401, failed(401)),
        row("a wrong password", register(&basic("nonsense"), &agent("late", &url)), 401, failed(401)),
        row("as the SDK sends it", register(&basic(&scoped), &agent("late", &url)), 200, made("late")),
        row("the owner looks", owner("GET /agents/late"), 200, shown("late")),
        row("by name", owner("GET /agents/name/late"), 200, shown("late")),
    ];
    check(&world.door, &world.base(), &rows).await;
    let all = world.send(&owner("GET /agents")).await.json();
    let names: Vec<&str> = all.as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"late") && names.contains(&"reviewer") && names.is_sorted(), "{names:?}");
    // Registering again tells the same secret, and keeps what an earlier build said.
    let mut again = agent("late", &url);
    again["registration_metadata"] = json!({"card": {"x": 1}});
    again["a_newer_sdk_says"] = json!("more");
    let said = world.send(&register(&basic(TOKEN), &again)).await;
    let secret = |said: &Said| said.json()["agent_api_key"].as_str().unwrap().to_owned();
    let first = world.send(&register(&basic(&scoped), &agent("late", &url))).await;
    assert_eq!(said.json()["registration_metadata"], json!({"build": 1, "card": {"x": 1}}));
    assert_eq!(secret(&said), secret(&first));
    // Its senders are checked as those of every agent are, and it is told so with the secret it was given.
    let key = world.external("late").await;
    assert_eq!(world.send(&get("late", "code_changes?a=1", "wrong")).await.status, 401);
    assert_eq!(world.send(&get("late", "code_changes?a=1", &key)).await.status, 200);
    let seen = world.agent.last();
    assert_eq!(seen.target, "/base/code_changes?a=1");
    assert!(proof(&seen, &secret(&first)).is_ok());
    world.door.kill();
    for file in std::fs::read_dir(world.door.path().join("data")).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        let value = secret(&first);
        assert!(!bytes.windows(value.len()).any(|w| w == value.as_bytes()), "{} holds it", file.path().display());
    }
    world.door.launch().await;
    assert_eq!(world.send(&get("late", "x", &key)).await.status, 200, "after a restart");
    assert!(proof(&world.agent.last(), &secret(&first)).is_ok());
    let gone = json!({"id": "late", "message": "Agent 'late' deleted successfully"});
    let rows = [
        row("who only looks, ends none", "DELETE /agents/late", 401, failed(401)),
        row("ended", owner("DELETE /agents/name/late"), 200, gone),
        row("once more", owner("DELETE /agents/late"), 404, failed(404)),
        row("nor is it reached", get("late", "x", &key), 404, json!({"detail": "*"})),
        row("another takes the name", register(&basic(TOKEN), &agent("late", &url)), 200, made("late")),
        row("whose door the old key does not open", get("late", "x", &key), 401, json!({"detail": "*"})),
    ];
    check(&world.door, &world.base(), &rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_stands_in_nobodys_place_and_leads_to_no_address_that_is_not_allowed() {
    let world = World::start(ON).await;
    let url = world.agent.url();
    let with = |name: &str, member: &str, value: Value| {
        let mut said = agent(name, &url);
        said[member] = value;
        register(&basic(TOKEN), &said)
    };
    let bound = json!({"name": "own", "agent": "to-come", "scopes": ["register"]});
    let (status, said) = world.door.api_post("/keys", bound).await;
    assert_eq!(status, 201, "{said}");
    let bound = said["key"].as_str().unwrap().to_owned();
    for (agent, scopes, status) in [
        ("to-come", json!(["register", "read"]), 201),
        ("to-come", json!(["read"]), 404),
        ("to-come", json!(["register", "send"]), 404),
        ("reviewer", json!(["read"]), 201),
        ("reviewer", json!(["operate"]), 400),
    ] {
        let said = world.door.api_post("/keys", json!({"name": "k", "agent": agent, "scopes": scopes})).await;
        assert_eq!(said.0, status, "{agent} {scopes}: {}", said.1);
    }
    let reads = json!({"name": "reads", "scopes": ["read"]});
    let reads = world.door.api_post("/keys", reads).await.1["key"].as_str().unwrap().to_owned();
    let rows = [
        row("one of the file", with("reviewer", "description", json!("")), 409, failed(409)),
        row("a source's name", with("queued", "description", json!("")), 409, failed(409)),
        row("an inner address", with("late", "acp_url", json!("http://10.0.0.1:8000")), 422, invalid()),
        row("the cloud's", with("late", "acp_url", json!("http://169.254.169.254/")), 422, invalid()),
        row("another scheme", with("late", "acp_url", json!("ftp://127.0.0.1/")), 422, invalid()),
        row("a password", with("late", "acp_url", json!("http://a:b@127.0.0.1/")), 422, invalid()),
        row("a name that is none", with("Late", "description", json!("")), 422, invalid()),
        row("another type", with("late", "acp_type", json!("acp")), 422, invalid()),
        row("another id", with("late", "agent_id", json!("0b5e1f9c")), 404, failed(404)),
        row("no JSON", "POST /agents/register\nContent-Type: text/plain\n\n{}", 401, failed(401)),
        row("a key for another", register(&basic(&bound), &agent("late", &url)), 403, failed(403)),
        row("the one that it is for", register(&basic(&bound), &agent("to-come", &url)), 200, made("to-come")),
        row(
            "which it ends",
            format!("DELETE /agents/to-come\nx-api-key: {bound}"),
            200,
            json!({"id": "to-come", "message": "*"}),
        ),
        row("and no other", format!("DELETE /agents/reviewer\nx-api-key: {bound}"), 404, failed(404)),
        row("a key that reads", register(&basic(&reads), &agent("late", &url)), 403, failed(403)),
        row("a password is no key elsewhere", format!("GET /agents\n{}", basic(TOKEN)), 401, failed(401)),
        row("one of the file is not deleted", owner("DELETE /agents/reviewer"), 409, failed(409)),
        row("another method", owner("PATCH /agents/reviewer"), 405, json!({"detail": "Method Not Allowed"})),
    ];
    check(&world.door, &world.base(), &rows).await;
    let codes = codes(&world, rows.iter().filter(|row| row.status != 200).count()).await;
    for code in ["conflict", "invalid", "not_found", "not_verified", "not_allowed", "method_not_allowed"] {
        assert!(codes.iter().any(|c| c == code), "{code}: {codes:?}");
    }
    // A name is judged by what it leads to, when it is called.
    let named = world.send(&with("named", "acp_url", json!("http://metadata.invalid/"))).await;
    assert_eq!(named.status, 200);
    let key = world.external("named").await;
    assert_eq!(world.send(&get("named", "x", &key)).await.status, 502);
    let off = World::start("").await;
    let said = off.send(&register(&basic(TOKEN), &agent("late", &url))).await;
    assert_eq!(said.status, 404, "{}", said.text);
    let open = World::start("register = \"loopback\"").await;
    let rows = [
        row("here", register("x-nothing: 1", &agent("late", "https://example.com")), 200, made("late")),
        row("a page", register("Origin: http://evil.example", &agent("x", "https://example.com")), 403, failed(403)),
        row(
            "a name that leads here",
            register("Host: evil.example", &agent("x", "https://example.com")),
            401,
            failed(401),
        ),
        row("keys are still the owner's", "GET /agent_api_keys?agent_name=late", 401, failed(401)),
        row("private, and no network is named", register("x-nothing: 1", &agent("late", &url)), 422, invalid()),
    ];
    check(&open.door, &open.base(), &rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_a_name_is_opened_by_no_key_that_was_left_under_it() {
    let world = World::start(ON).await;
    let url = world.agent.url();
    let file = world.door.path().join("doorbell.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let status = async |request: String| world.send(&request).await.status;
    let there = |name: &str| owner(&format!("GET /agents/{name}"));
    std::fs::write(&file, format!("{text}\n[contracts.agentex.agents.conf]\nacp_url = \"{url}\"\n")).unwrap();
    eventually("it stands in the file", || async { (status(there("conf")).await == 200).then_some(()) }).await;
    let key = world.external("conf").await;
    assert_eq!(status(get("conf", "x", &key)).await, 200);
    std::fs::write(&file, &text).unwrap();
    eventually("it was taken out", || async { (status(there("conf")).await == 404).then_some(()) }).await;
    assert_eq!(status(register(&basic(TOKEN), &agent("conf", &url))).await, 200);
    assert_eq!(status(get("conf", "x", &key)).await, 401, "a key of the agent that the file named");

    // Keys are made, the agent is deleted and registers again, all at once.
    for round in 0..5 {
        let new = |n: u32| {
            let body = json!({"agent_name": "conf", "name": format!("k{round}-{n}"), "api_key_type": "external"});
            format!("POST /agent_api_keys\nContent-Type: application/json\nx-api-key: {TOKEN}\n\n{body}")
        };
        let (delete, again) = (owner("DELETE /agents/conf"), register(&basic(TOKEN), &agent("conf", &url)));
        let news: Vec<String> = (0..6).map(new).collect();
        let making = futures::future::join_all(news.iter().map(|request| world.send(request)));
        let (made, _, _) = tokio::join!(making, world.send(&delete), world.send(&again));
        let keys: Vec<String> =
            made.iter().filter_map(|said| said.json()["api_key"].as_str().map(str::to_owned)).collect();
        let said = status(get("conf", "x", "nobodys")).await;
        assert!([401, 404].contains(&said), "registered with its secret, or not at all: {said}");
        // Whatever came first: after one more end and beginning none of them opens, and the agent is reached.
        status(delete).await;
        assert_eq!(status(again).await, 200);
        for key in keys {
            assert_eq!(status(get("conf", "x", &key)).await, 401);
        }
        let key = world.external("conf").await;
        assert_eq!(status(get("conf", "x", &key)).await, 200, "its forwards are signed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_registered_itself_is_seen_and_its_coming_and_going_are_decisions() {
    let world = World::start(ON).await;
    let url = world.agent.url();
    let contracts = async || world.door.all("/contracts").await;
    let late = |all: Vec<Value>| all.into_iter().find(|c| c["id"] == "late");
    assert_eq!(late(contracts().await), None);
    for _ in 0..2 {
        assert_eq!(world.send(&register(&basic(TOKEN), &agent("late", &url))).await.status, 200);
    }
    let shown = late(contracts().await).unwrap();
    let wanted = json!({
        "contract": "agentex", "id": "late", "listen": null, "path": "/agents/forward/name/late/", "trigger": null,
        "agent": null, "forwards_to": url, "by": "registered",
    });
    assert_eq!(shown, wanted);
    assert!(contracts().await.iter().any(|c| c["id"] == "reviewer" && c["by"] == "file"));
    // Whose keys a key with `read` for it may look at, as for one of the file.
    world.external("late").await;
    let key = json!({"name": "look", "agent": "late", "scopes": ["read"]});
    let (status, said) = world.door.api_post("/keys", key).await;
    assert_eq!(status, 201, "{said}");
    let look = format!("GET /agent_api_keys?agent_name=late\nx-api-key: {}", said["key"].as_str().unwrap());
    let said = world.send(&look).await;
    assert_eq!((said.status, said.json().as_array().unwrap().len()), (200, 1), "{}", said.text);
    assert_eq!(world.send(&owner("DELETE /agents/late")).await.status, 200);
    assert_eq!(late(contracts().await), None);
    let told = world.door.all("/decisions?source=late").await;
    let told: Vec<_> = told.iter().map(|d| (d["kind"].as_str().unwrap(), d["code"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [("handshake", "unregistered"), ("handshake", "registered"), ("handshake", "registered")],
        "newest first"
    );
}
