//! The routes of keys: the document's own curl lines, who may use them, and what is kept.

use serde_json::{Value, json};

use super::super::{check, row};
use super::{World, github};
use crate::world::TOKEN;

/// The curl lines of the document, in its order, with the names of a test in their placeholders.
const CURLS: &str = r#"
curl http://localhost:5003/agent_api_keys?agent_name=reviewer
curl -X POST $HOST/agent_api_keys \
  -H "Content-Type: application/json" \
  -d '{
    "agent_name": "reviewer",
    "name": "mysecretkey"
  }'
curl -X POST $HOST/agent_api_keys \
  -H "Content-Type: application/json" \
  -d '{
    "agent_name": "reviewer",
    "name": "scaleapi/scale-agentex",
    "api_key_type": "github"
  }'
curl -X POST $HOST/agent_api_keys \
  -H "Content-Type: application/json" \
  -d '{
    "agent_name": "reviewer",
    "name": "scaleapi/another",
    "api_key_type": "github",
    "api_key": "existingsecret"
  }'
curl -X POST $HOST/agent_api_keys \
  -H "Content-Type: application/json" \
  -d '{
    "agent_name": "reviewer",
    "name": "A123ABC456",
    "api_key_type": "slack",
    "api_key": "abcdefg12345"
  }'
curl -X DELETE $HOST/agent_api_keys/API_KEY_ID
curl https://agentex.sgp.scale.com/agent_api_keys?agent_name=reviewer \
  -H "x-api-key: <SGP API KEY>" \
  -H "x-selected-account-id: <SGP ACCOUNT ID>"
"#;

/// The curl lines, as requests written out.
fn curls() -> Vec<String> {
    let mut requests = Vec::new();
    for line in CURLS.replace("\\\n", " ").split("curl ").skip(1) {
        let (mut method, mut path, mut headers, mut body) =
            ("GET".to_owned(), String::new(), String::new(), String::new());
        let mut words = words(line).into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "-X" => method = words.next().unwrap(),
                "-H" => headers += &format!("{}\n", words.next().unwrap()),
                "-d" => body = words.next().unwrap(),
                url => path = url[url.find("/agent_api_keys").unwrap()..].to_owned(),
            }
        }
        requests.push(format!("{method} {path}\n{headers}\n{body}"));
    }
    requests
}

/// A shell's words, with quotes of both kinds.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

fn made(name: &str, kind: &str, value: &str) -> Value {
    json!({ "id": "*", "agent_id": "reviewer", "created_at": "*", "name": name, "api_key_type": kind, "api_key": value })
}

fn listed(name: &str, kind: &str) -> Value {
    json!({ "id": "*", "agent_id": "reviewer", "created_at": "*", "name": name, "api_key_type": kind })
}

pub(super) fn failed(code: u16) -> Value {
    json!({ "message": "*", "code": code, "data": null })
}

pub(super) fn invalid() -> Value {
    json!({ "status_code": 10422, "message": "*", "data": null })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_curl_lines_of_the_document_work_as_they_stand_there() {
    let world = World::start("auth = \"loopback\"\naccount_id = \"acc-1\"").await;
    let (door, base) = (&world.door, world.base());
    let curls = curls();
    assert_eq!(curls.len(), 7, "{curls:#?}");
    let rows = [
        row("list", &curls[0], 200, json!([])),
        row("general", &curls[1], 200, made("mysecretkey", "external", "*")),
        row("github", &curls[2], 200, made("scaleapi/scale-agentex", "github", "*")),
        row("github, an existing secret", &curls[3], 200, made("scaleapi/another", "github", "existingsecret")),
        row("slack", &curls[4], 200, made("A123ABC456", "slack", "abcdefg12345")),
        row("once more", &curls[1], 409, failed(409)),
        row("one that is not there", &curls[5], 404, failed(404)),
    ];
    check(door, &base, &rows).await;
    let deployed = curls[6].replace("<SGP API KEY>", TOKEN);
    let all = json!([
        listed("mysecretkey", "external"),
        listed("scaleapi/scale-agentex", "github"),
        listed("scaleapi/another", "github"),
        listed("A123ABC456", "slack"),
    ]);
    let rows = [
        row("deployed", deployed.replace("<SGP ACCOUNT ID>", "acc-1"), 200, all),
        row("another account", deployed.replace("<SGP ACCOUNT ID>", "acc-2"), 403, failed(403)),
        row("another key", curls[6].replace("<SGP ACCOUNT ID>", "acc-1"), 401, failed(401)),
        row(
            "by name",
            "GET /agent_api_keys/name/mysecretkey?agent_name=reviewer",
            200,
            listed("mysecretkey", "external"),
        ),
        row(
            "by a name with a slash",
            "GET /agent_api_keys/name/scaleapi%2Fanother?agent_id=reviewer&api_key_type=github",
            200,
            listed("scaleapi/another", "github"),
        ),
        row(
            "by name, of another type",
            "GET /agent_api_keys/name/mysecretkey?agent_name=reviewer&api_key_type=slack",
            404,
            failed(404),
        ),
        row(
            "a page",
            "GET /agent_api_keys?agent_name=reviewer&limit=3&page_number=2",
            200,
            json!([listed("A123ABC456", "slack")]),
        ),
        row("of another agent", "GET /agent_api_keys?agent_name=slow", 200, json!([])),
    ];
    check(door, &base, &rows).await;
    let list = world.send(&curls[0]).await.json();
    let id = list[0]["id"].as_str().unwrap();
    let rows = [
        row("by id", format!("GET /agent_api_keys/{id}"), 200, listed("mysecretkey", "external")),
        row("delete", curls[5].replace("API_KEY_ID", id), 200, json!(format!("Agent API key with ID {id} deleted"))),
        row("and the name is free", &curls[1], 200, made("mysecretkey", "external", "*")),
        row(
            "delete by name",
            "DELETE /agent_api_keys/name/scaleapi/another?agent_name=reviewer&api_key_type=github",
            200,
            json!("Agent API key with name 'scaleapi/another' deleted"),
        ),
        row(
            "it is gone",
            "DELETE /agent_api_keys/name/scaleapi/another?agent_name=reviewer&api_key_type=github",
            404,
            failed(404),
        ),
    ];
    check(door, &base, &rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_key_is_told_so_and_nothing_is_made() {
    let world = World::start("auth = \"loopback\"").await;
    let post = |body: &str| format!("POST /agent_api_keys\nContent-Type: application/json\n\n{body}");
    let trigger =
        |body: Value| format!("POST /agent_api_keys/webhook-trigger\nContent-Type: application/json\n\n{body}");
    let rows = [
        row("no agent", post(r#"{"name":"x"}"#), 400, failed(400)),
        row("two agents", post(r#"{"name":"x","agent_name":"reviewer","agent_id":"reviewer"}"#), 400, failed(400)),
        row("another agent", post(r#"{"name":"x","agent_name":"nobody"}"#), 404, failed(404)),
        row("no name", post(r#"{"agent_name":"reviewer"}"#), 422, invalid()),
        row("an empty name", post(r#"{"agent_name":"reviewer","name":" "}"#), 422, invalid()),
        row("a slip", post(r#"{"agent_name":"reviewer","name":"x","api_key_typ":"github"}"#), 422, invalid()),
        row("another type", post(r#"{"agent_name":"reviewer","name":"x","api_key_type":"gitlab"}"#), 422, invalid()),
        row(
            "the agent's own",
            post(r#"{"agent_name":"reviewer","name":"x","api_key_type":"internal"}"#),
            422,
            invalid(),
        ),
        row("guessable", post(r#"{"agent_name":"reviewer","name":"x","api_key":"short"}"#), 422, invalid()),
        row(
            "an empty secret",
            post(r#"{"agent_name":"reviewer","name":"x","api_key_type":"github","api_key":""}"#),
            400,
            failed(400),
        ),
        row("not JSON", post("{oops"), 422, invalid()),
        row("a form", "POST /agent_api_keys\nContent-Type: text/plain\n\n{}", 422, invalid()),
        row("no agent", "GET /agent_api_keys", 400, failed(400)),
        row("a bad page", "GET /agent_api_keys?agent_name=reviewer&limit=1001", 422, invalid()),
        row("another method", "PUT /agent_api_keys\n\n{}", 405, json!({"detail": "Method Not Allowed"})),
        row("another method", "POST /agent_api_keys/key_a\n\n{}", 405, json!({"detail": "Method Not Allowed"})),
        row(
            "slack without its secret",
            trigger(json!({"agent_name": "reviewer", "source": "slack", "name": "A1", "forward_path": "x"})),
            400,
            failed(400),
        ),
        row(
            "another source",
            trigger(json!({"agent_name": "reviewer", "source": "gitlab", "name": "A1", "forward_path": "x"})),
            400,
            failed(400),
        ),
        row(
            "a control character",
            trigger(json!({"agent_name": "reviewer", "name": "A1", "forward_path": "x\r\ny"})),
            400,
            failed(400),
        ),
        row(
            "a way up",
            trigger(json!({"agent_name": "reviewer", "name": "A1", "forward_path": "../x"})),
            400,
            failed(400),
        ),
        row(
            "an empty secret",
            trigger(json!({"agent_name": "reviewer", "name": "A1", "forward_path": "x", "secret": ""})),
            400,
            failed(400),
        ),
        row(
            "no agent of the name",
            trigger(json!({"agent_name": "nobody", "name": "A1", "forward_path": "x"})),
            404,
            failed(404),
        ),
    ];
    check(&world.door, &world.base(), &rows).await;
    assert_eq!(world.send("GET /agent_api_keys?agent_name=reviewer").await.json(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_trigger_is_a_key_and_the_url_to_paste() {
    let world = World::start("auth = \"loopback\"").await;
    let trigger =
        |body: Value| format!("POST /agent_api_keys/webhook-trigger\nContent-Type: application/json\n\n{body}");
    let told = |source: &str, secret: &str, path: &str, url: Value| {
        json!({
            "key_id": "*", "agent_name": "reviewer", "source": source, "name": "*", "secret": secret,
            "webhook_path": path, "webhook_url": url,
        })
    };
    let path = "/agents/forward/name/reviewer/code_changes";
    let rows = [
        row(
            "github",
            trigger(json!({"agent_name": "reviewer", "name": "acme/one", "forward_path": "/code_changes"})),
            200,
            told("github", "*", path, Value::Null),
        ),
        row(
            "with a base",
            trigger(json!({"agent_name": "reviewer", "source": "slack", "name": "A1", "secret": "abcdefg12345",
                "forward_path": "a b/ü", "base_url": "https://door.example.com/"})),
            200,
            told(
                "slack",
                "abcdefg12345",
                "/agents/forward/name/reviewer/a%20b/%C3%BC",
                json!("https://door.example.com/agents/forward/name/reviewer/a%20b/%C3%BC"),
            ),
        ),
        row(
            "once more",
            trigger(json!({"agent_name": "reviewer", "name": "acme/one", "forward_path": "x"})),
            409,
            failed(409),
        ),
    ];
    check(&world.door, &world.base(), &rows).await;
    let new = json!({"agent_name": "reviewer", "name": "acme/two", "forward_path": "code_changes"});
    let secret = world.send(&trigger(new)).await.json()["secret"].as_str().unwrap().to_owned();
    let body = r#"{"repository":{"full_name":"acme/two"}}"#;
    assert_eq!(world.send(&github("reviewer", &secret, "application/json", body)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_for_whoever_may_and_for_no_web_page() {
    let world = World::start("").await;
    let (door, base) = (&world.door, world.base());
    let key = |scopes: Value, agent: Value| async move {
        let new = json!({"name": format!("{scopes}{agent}"), "agent": agent, "scopes": scopes});
        door.api_post("/keys", new).await.1["key"].as_str().unwrap().to_owned()
    };
    let (reads, sends) = (key(json!(["read"]), Value::Null).await, key(json!(["send", "operate"]), Value::Null).await);
    let external = world.external("reviewer").await;
    let secret = world.key(json!({"agent_name": "reviewer", "name": "acme/x", "api_key_type": "github"})).await;
    let list = |header: &str| format!("GET /agent_api_keys?agent_name=reviewer\n{header}\n");
    let post = |header: &str| {
        format!(
            "POST /agent_api_keys\nContent-Type: application/json\n{header}\n{{\"agent_name\":\"reviewer\",\"name\":\"n\"}}"
        )
    };
    let both = json!([super::keys::listed("ours", "external"), listed("acme/x", "github")]);
    let rows = [
        row("nobody, also on this machine", list(""), 401, failed(401)),
        row("nobody makes", post(""), 401, failed(401)),
        row("a slip", list("x-api-key: nonsense\n"), 401, failed(401)),
        row("an identity is no proof", list("x-agent-identity: reviewer\n"), 401, failed(401)),
        row("an agent's key is no key of ours", list(&format!("x-api-key: {external}\n")), 403, failed(403)),
        row("nor is it as the agent's", list(&format!("x-agent-api-key: {external}\n")), 401, failed(401)),
        row("nor is a secret that signs", list(&format!("x-api-key: {secret}\n")), 401, failed(401)),
        row("one that reads, looks", list(&format!("x-api-key: {reads}\n")), 200, both.clone()),
        row("one that reads, makes none", post(&format!("x-api-key: {reads}\n")), 403, failed(403)),
        row("one that sends, sees none", list(&format!("x-api-key: {sends}\n")), 403, failed(403)),
        row("the owner, as a bearer too", list(&format!("Authorization: Bearer {TOKEN}\n")), 200, both),
        row("the owner makes", post(&format!("x-api-key: {TOKEN}\n")), 200, made("n", "external", "*")),
    ];
    check(door, &base, &rows).await;
    // A key of the API with the name that one of ours would have is still none.
    let new = json!({"name": "agentex external mine", "agent": "worker", "scopes": ["read"]});
    let alike = door.api_post("/keys", new).await.1["key"].as_str().unwrap().to_owned();
    let call = format!("GET /agents/forward/name/worker/x\nx-agent-api-key: {alike}");
    assert_eq!(world.send(&call).await.status, 401);
    let list = format!("GET /agent_api_keys?agent_name=worker\nx-api-key: {TOKEN}");
    assert_eq!(world.send(&list).await.json(), json!([]));
    // What a key opens elsewhere is what it opened before.
    assert_eq!(world.send(&format!("GET /api/v1/stats\nAuthorization: Bearer {external}")).await.status, 403);
    let open = World::start("auth = \"loopback\"").await;
    let list = |header: &str| format!("GET /agent_api_keys?agent_name=reviewer\n{header}\n");
    let rows = [
        row("here", list(""), 200, json!([])),
        row("a page elsewhere", list("Origin: https://evil.example\n"), 403, failed(403)),
        row("a page of this machine", list("Origin: http://localhost:3000\n"), 403, failed(403)),
        row("a page, as browsers say", list("Sec-Fetch-Site: cross-site\n"), 403, failed(403)),
        row("a name that leads here", list("Host: evil.example\n"), 401, failed(401)),
        row("a proxy on this machine", list("X-Forwarded-For: 192.0.2.1\n"), 401, failed(401)),
        row("a wrong key is not nobody", list("x-api-key: nonsense\n"), 401, failed(401)),
    ];
    check(&open.door, &open.base(), &rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_are_made_at_once_one_is_and_what_signs_is_kept_sealed() {
    let mut world = World::start("").await;
    let new = json!({"agent_name": "reviewer", "name": "acme/x", "api_key_type": "github"});
    let request = format!("POST /agent_api_keys\nContent-Type: application/json\nx-api-key: {TOKEN}\n\n{new}");
    let said = futures::future::join_all((0..8).map(|_| world.send(&request))).await;
    let mut statuses: Vec<u16> = said.iter().map(|s| s.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
    let secret = said.iter().find(|s| s.status == 200).unwrap().json()["api_key"].as_str().unwrap().to_owned();
    let external = world.external("reviewer").await;
    let body = r#"{"repository":{"full_name":"acme/x"}}"#;
    let ring = github("reviewer", &secret, "application/json", body);
    let call = format!("GET /agents/forward/name/reviewer/x\nx-agent-api-key: {external}");
    assert_eq!((world.send(&ring).await.status, world.send(&call).await.status), (200, 200));
    world.door.kill();
    for file in std::fs::read_dir(world.door.path().join("data")).unwrap().flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        for value in [&secret, &external] {
            let found = bytes.windows(value.len()).any(|w| w == value.as_bytes());
            assert!(!found, "{} holds a key in the clear", file.path().display());
        }
    }
    world.door.launch().await;
    assert_eq!((world.send(&ring).await.status, world.send(&call).await.status), (200, 200), "after a restart");
    // Ended in either place, they open nothing from then on.
    let keys = world.door.all("/keys").await;
    let id = |name: &str| keys.iter().find(|k| k["name"] == name).unwrap()["id"].as_str().unwrap().to_owned();
    let revoke = format!("/keys/{}/revoke", id("agentex github acme/x"));
    assert_eq!(world.door.api_post(&revoke, json!({})).await.0, 200);
    assert_eq!(world.send(&ring).await.status, 401);
    let delete = format!("DELETE /agent_api_keys/{}\nx-api-key: {TOKEN}\n", id("agentex external ours"));
    assert_eq!(world.send(&delete).await.status, 200);
    assert_eq!(world.send(&call).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_signs_gets_another_secret_with_an_overlap_and_takes_no_short_one() {
    let world = World::start("").await;
    let door = &world.door;
    let old = world.key(json!({"agent_name": "reviewer", "name": "acme/x", "api_key_type": "github"})).await;
    let slack = json!({"agent_name": "reviewer", "name": "A1", "api_key_type": "slack", "api_key": "abcdefg12345"});
    world.key(slack).await;
    let keys = door.all("/keys").await;
    let id = |name: &str| keys.iter().find(|k| k["name"] == name).unwrap()["id"].as_str().unwrap().to_owned();
    let (github_id, slack_id) = (id("agentex github acme/x"), id("agentex slack A1"));
    let rotate = |id: &str, how: Value| {
        let path = format!("/keys/{id}/rotate");
        async move { door.api_post(&path, how).await }
    };
    let (status, made) = rotate(&github_id, json!({})).await;
    let new = made["key"].as_str().unwrap().to_owned();
    assert!(status == 200 && new != old && made["overlap_until"].is_string(), "{status} {made}");
    let body = r#"{"repository":{"full_name":"acme/x"}}"#;
    let ring = async |secret: &str| world.send(&github("reviewer", secret, "application/json", body)).await.status;
    assert_eq!((ring(&old).await, ring(&new).await), (200, 200), "both are good meanwhile");
    let (status, made) = rotate(&github_id, json!({"overlap_seconds": 0})).await;
    let newest = made["key"].as_str().unwrap().to_owned();
    assert_eq!((status, ring(&old).await, ring(&new).await, ring(&newest).await), (200, 401, 401, 200));
    // The value of the row itself opens nothing: only the signature does.
    let call = format!("GET /agents/forward/name/reviewer/x\nx-agent-api-key: {newest}");
    assert_eq!(world.send(&call).await.status, 401);
    assert_eq!(rotate(&slack_id, json!({})).await.0, 400, "Slack makes it");
    assert_eq!(rotate(&slack_id, json!({"key": "short"})).await.0, 400);
    let (status, made) = rotate(&slack_id, json!({"key": "the-next-one-of-slack"})).await;
    assert_eq!((status, made["key"].as_str()), (200, Some("the-next-one-of-slack")));
    let event = r#"{"api_app_id":"A1","type":"event_callback","event_id":"Ev1"}"#;
    for secret in ["abcdefg12345", "the-next-one-of-slack"] {
        let request = super::slack("reviewer", secret, super::now(), "application/json", event);
        assert_eq!(world.send(&request).await.status, 200, "{secret}");
    }
    let plain = door.api_post("/keys", json!({"name": "ci", "scopes": ["read"]})).await.1;
    let chosen = rotate(plain["id"].as_str().unwrap(), json!({"key": "chosen-by-somebody"})).await;
    assert_eq!(chosen.0, 400, "{}", chosen.1);
    let post = |path: &str, body: Value| {
        format!("POST /agent_api_keys{path}\nContent-Type: application/json\nx-api-key: {TOKEN}\n\n{body}")
    };
    let short = |kind: &str| json!({"agent_name": "reviewer", "name": "s", "api_key_type": kind, "api_key": "1234567"});
    let trigger = json!({"agent_name": "reviewer", "name": "s", "secret": "x", "forward_path": "x"});
    let listed = format!("GET /agent_api_keys?agent_name=queue&agent_nmae=x\nx-api-key: {TOKEN}");
    let rows = [
        row("github, short", post("", short("github")), 422, invalid()),
        row("slack, short", post("", short("slack")), 422, invalid()),
        row("a trigger's, short", post("/webhook-trigger", trigger), 422, invalid()),
        row("a parameter that nobody knows is let be", listed, 200, json!([])),
    ];
    check(door, &world.base(), &rows).await;
    let noes = crate::world::eventually("the noes are recorded", || async {
        let all = door.all("/decisions").await;
        let noes: Vec<Value> = all.into_iter().filter(|d| d["code"] == "invalid").collect();
        (noes.len() == 3).then_some(noes)
    })
    .await;
    assert!(noes.iter().all(|d| d["reason"].as_str().unwrap().contains("at least 8 bytes")), "{noes:?}");
}
