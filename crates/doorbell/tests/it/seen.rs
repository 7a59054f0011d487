//! What people and probes are shown of a server: how it stands, what it serves, and why a value is not kept. Through the real
//! program.

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::program;
use crate::world::{Door, SECRET, TOKEN, eventually};

const AGENT: &str = "[server]\nlisten = \"{addr}\"\ndata_dir = \"data\"\n\
                     [agents.worker]\nrunner = \"process\"\ncommand = [\"sh\", \"-c\", \"cat > got\"]\nenv = [\"PATH\"]\n";

/// Exit code and both streams.
fn said(door: &Door, args: &[&str], stdin: &str) -> (Option<i32>, String) {
    program::said(program::at(door, args, stdin))
}

async fn ready(door: &Door, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut request = door.http.get(door.url("/ready"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn what_is_wrong_is_told_in_detail_only_on_this_machine_and_to_tokens_that_may_read_all() {
    let source = "[triggers.github]\nagent = \"worker\"\nprovider = \"github\"\nsecret = { stored = \"github\" }\n";
    let door = Door::start(&format!("{AGENT}{source}")).await;
    std::fs::write(door.path().join("doorbell.toml"), "[server]\nlisten = 7\n").unwrap();
    eventually("the reload is refused", || async { ready(&door, &[]).await.1["config"].as_str().map(drop) }).await;
    let key = async |body: Value| {
        let (status, made) = door.api_post("/keys", body).await;
        assert_eq!(status, 201, "{made}");
        format!("Bearer {}", made["key"].as_str().unwrap())
    };
    let (all, one) = (
        key(json!({ "name": "all", "scopes": ["read"] })).await,
        key(json!({ "name": "one", "scopes": ["read"], "agent": "worker" })).await,
    );
    let admin = format!("Bearer {TOKEN}");
    let far = ("x-forwarded-for", "203.0.113.7");
    for (who, headers, is_told) in [
        ("a program on this machine", vec![], true),
        ("the admin, from far", vec![far, ("authorization", admin.as_str())], true),
        ("a key that reads all, from far", vec![far, ("authorization", all.as_str())], true),
        ("a key of one agent, from far", vec![far, ("authorization", one.as_str())], false),
        ("a token that opens nothing, from far", vec![far, ("authorization", "Bearer guessed")], false),
        ("somebody far", vec![far], false),
        ("by another name", vec![("host", "door.example.com")], false),
        ("a page in a browser on this machine", vec![("origin", "http://evil.example")], false),
    ] {
        let (status, shown) = ready(&door, &headers).await;
        assert_eq!((status, &shown["status"]), (200, &json!("ready")), "{who}");
        let text = shown.to_string();
        assert_eq!(text.contains("doorbell.toml") && text.contains("source `github`"), is_told, "{who}: {text}");
        if !is_told {
            let bare = json!({ "status": "ready", "reasons": [], "config": "refused", "sources": ["secret_missing"] });
            assert_eq!(shown, bare, "{who}");
        }
    }
}

#[tokio::test]
async fn a_value_that_is_certainly_wrong_is_not_kept_and_the_answer_says_why() {
    let triggers =
        [("github", "github"), ("hooks", "standard-webhooks"), ("game", "discord-interactions"), ("mail", "sendgrid")];
    let triggers = triggers.map(|(name, provider)| {
        format!(
            "[triggers.{name}]\nagent = \"worker\"\nprovider = \"{provider}\"\nsecret = {{ stored = \"{name}\" }}\n"
        )
    });
    let door = Door::start(&format!("{AGENT}{}", triggers.concat())).await;
    for (name, value, code, why) in [
        ("github", "x", 1, "it has 1 byte"),
        ("github", "", 2, "no secret was given"),
        ("github", "  \n", 2, "no secret was given"),
        ("github", " 0123456789abcdef0123456789abcdef", 1, "begins or ends with a blank"),
        ("hooks", "whsec_&&&&&&&&&&&&&&&&&&&&&&&&", 1, "`whsec_` and base64"),
        ("hooks", "whsec_MfKQ9r8G", 1, "it has 6 bytes"),
        ("game", "no-hex-at-all-but-long-enough", 1, "hex digits"),
        ("game", "0123456789abcdef0123456789abcdef", 1, "a public key of 32 bytes"),
        ("mail", "0123456789abcdef0123456789abcde!", 1, "-----BEGIN PUBLIC KEY-----"),
        ("nobodys", "short", 1, "it has 5 bytes"),
    ] {
        let (exit, text) = said(&door, &["secrets", "set", name], value);
        assert_eq!(exit, Some(code), "{name} {value:?}: {text}");
        assert!(text.contains(why), "{name} {value:?}: {text}");
        assert!(code == 2 || text.contains("--force"), "{name} {value:?}: {text}");
        assert!(value.len() < 2 || !text.contains(value), "it is never repeated: {text}");
    }
    assert_eq!(door.all("/secrets").await.len(), 0);
    // Its owner may know better; and a rotation is held to the same.
    assert_eq!(said(&door, &["secrets", "set", "github", "--force"], "x").0, Some(0));
    assert_eq!(said(&door, &["secrets", "rotate", "github"], "y").0, Some(1));
    assert_eq!(said(&door, &["secrets", "rotate", "github"], "0123456789abcdef0123456789abcdef\n").0, Some(0));
    assert_eq!(said(&door, &["secrets", "set", "hooks"], "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").0, Some(0));
}

#[tokio::test]
async fn a_secret_that_was_handed_over_stands_in_for_the_one_that_the_file_names() {
    let source = "[triggers.asana]\nagent = \"worker\"\nprovider = \"asana\"\nsecret = { stored = \"asana\" }\n";
    let door = Door::start(&format!("{AGENT}{source}")).await;
    let (exit, text) = said(&door, &["sources", "pair", "asana"], "");
    assert_eq!(exit, Some(0), "{text}");
    let handed = door.http.post(door.url("/hooks/asana")).header("x-hook-secret", "b537207f20cbfa02357cf448134da559");
    assert_eq!(handed.body("{}").send().await.unwrap().status(), 200);
    assert_eq!(ready(&door, &[]).await.1["sources"], json!([]));
    assert_eq!(door.api("/sources/asana").await["state"], "enabled");
    let (_, text) = said(&door, &["decisions"], "");
    assert!(text.contains("paired") && text.contains("127.0.0.1"), "{text}");
    for (source, why) in [("nope", "There are: asana."), ("asana", HANDED)] {
        let (_, text) = said(&door, &["sources", "reveal", source], "");
        assert!(text.contains(why), "{text}");
    }
    let (exit, text) = said(&door, &["secrets", "remove", "nope"], "");
    assert!(exit == Some(1) && text.contains("there is no stored secret `nope`") && !text.contains("user/"), "{text}");
}

const HANDED: &str = "b537207f20cbfa02357cf448134da559";

#[tokio::test]
async fn what_contracts_serve_is_shown_wherever_one_would_look() {
    let own = crate::world::free_addr();
    let config = format!(
        "{AGENT}
[triggers.tickets]
agent = \"worker\"
auth = \"hmac\"
secret = {{ env = \"TEST_SECRET\" }}
[triggers.alm]
agent = \"worker\"
auth = \"contract\"
[triggers.later]
agent = \"worker\"
provider = \"github\"
secret = {{ stored = \"later\" }}
[contracts.datalayer.serve.helpdesk]
trigger = \"tickets\"
[contracts.almyty.serve.alm-agent]
trigger = \"alm\"
[contracts.aether]
listen = \"{own}\"
[contracts.aether.serve.alerts]
trigger = \"tickets\"
[contracts.agentex.agents.reviewer]
acp_url = \"http://127.0.0.1:9\"
secret = {{ env = \"TEST_SECRET\" }}
"
    );
    let door = Door::start(&config).await;
    // It answers before it has said so.
    let banner = eventually("it says what it serves", || async {
        let banner = std::fs::read_to_string(door.path().join("banner")).unwrap();
        banner.contains("DOORBELL_LOG").then_some(banner)
    })
    .await;
    let (_, sources) = said(&door, &["sources"], "");
    let (_, triggers) = said(&door, &["triggers"], "");
    let (_, agents) = said(&door, &["agents"], "");
    let (_, contracts) = said(&door, &["contracts"], "");
    for (what, shown, wanted) in [
        (
            "banner",
            &banner,
            vec![
                format!("{}  (helpdesk -> tickets)", door.url("/api/v1/agents/helpdesk/webhook")),
                format!("{}  (alm-agent -> alm)", door.url("/agents/alm-agent/webhook")),
                format!("http://{own}/trigger  (alerts -> tickets)"),
                format!(
                    "{}  (reviewer -> passed on to http://127.0.0.1:9/)",
                    door.url("/agents/forward/name/reviewer/")
                ),
                door.url("/agent_api_keys"),
            ],
        ),
        (
            "sources",
            &sources,
            vec![
                format!("/hooks/tickets, /api/v1/agents/helpdesk/webhook, {own}/trigger"),
                "/agents/alm-agent/webhook".to_owned(),
                "secret_missing".to_owned(),
            ],
        ),
        ("triggers", &triggers, vec!["datalayer/helpdesk, aether/alerts".to_owned(), "almyty/alm-agent".to_owned()]),
        ("agents", &agents, vec!["http://127.0.0.1:9/".to_owned(), "reviewer".to_owned()]),
        (
            "contracts",
            &contracts,
            vec!["helpdesk".to_owned(), own.to_string(), "/agents/forward/name/reviewer/".to_owned()],
        ),
    ] {
        for part in wanted {
            assert!(shown.contains(&part), "{what} shows no `{part}`:\n{shown}");
        }
        // It is there, and lets nobody in: only the contract knows the keys.
        assert!(!shown.contains("/hooks/alm"), "{what}:\n{shown}");
    }
    let forward = door.all("/contracts?q=reviewer").await;
    assert_eq!(
        forward,
        [json!({
            "contract": "agentex", "id": "reviewer", "listen": null, "path": "/agents/forward/name/reviewer/",
            "trigger": null, "agent": null, "forwards_to": "http://127.0.0.1:9/", "by": "file",
        })]
    );
}

#[tokio::test]
async fn the_same_body_without_an_id_is_not_said_to_have_had_another() {
    let source = "[triggers.tickets]\nagent = \"worker\"\nauth = \"hmac\"\nsecret = { env = \"TEST_SECRET\" }\n";
    let door = Door::start(&format!("{AGENT}{source}")).await;
    let body = r#"{"n":1}"#;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), body.as_bytes());
    let ring = async |id: Option<&str>| {
        let mut request = door.http.post(door.url("/hooks/tickets")).header("content-type", "application/json");
        if let Some(id) = id {
            request = request.header("x-event-id", id);
        }
        request.header("x-signature", hex::encode(tag.as_ref())).body(body).send().await.unwrap().status().as_u16()
    };
    assert_eq!((ring(None).await, ring(None).await, ring(Some("2")).await), (202, 200, 200));
    let list = door.all("/decisions?kind=duplicate").await;
    let reasons: Vec<&str> = list.iter().map(|d| d["reason"].as_str().unwrap()).collect();
    assert!(reasons[0].contains("under another id") && reasons[1].contains("no id of the sender's"), "{reasons:?}");
}
