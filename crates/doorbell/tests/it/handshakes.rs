//! What senders ask before they send, over real sockets: by `GET`, `HEAD`, `OPTIONS`, and by a `POST` that nobody signs. And what
//! comes of secrets that travel inside a delivery.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Door, SECRET, eventually};

/// One source for each way of asking.
fn config() -> String {
    let mut text = "[server]\nlisten = \"{addr}\"\ndata_dir = \"data\"\npublic_url = \"https://door.example.com\"\n\
        [agents.a]\nrunner = \"process\"\ncommand = [\"sh\", \"-c\", \"cat > got\"]\nenv = [\"PATH\"]\n"
        .to_owned();
    for provider in ["meta", "dropbox", "trello", "cloudevents", "microsoft-graph", "figma", "github"] {
        let token = if provider == "meta" { "verify_token = { env = \"TEST_SECRET\" }\n" } else { "" };
        text.push_str(&format!(
            "[triggers.{provider}]\nagent = \"a\"\nprovider = \"{provider}\"\nsecret = {{ env = \"TEST_SECRET\" }}\n{token}"
        ));
    }
    text
}

struct Said {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: String,
}

async fn ask(door: &Door, method: Method, path: &str, headers: &[(&str, &str)]) -> Said {
    let mut request = door.http.request(method, door.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    Said { status: answer.status().as_u16(), headers: answer.headers().clone(), body: answer.text().await.unwrap() }
}

async fn decisions(door: &Door, query: &str) -> Vec<Value> {
    let url = door.url(&format!("/api/v1/decisions?{query}"));
    let list: Value = door.http.get(url).bearer_auth(crate::world::TOKEN).send().await.unwrap().json().await.unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn a_sender_s_question_is_answered_and_a_stranger_s_is_not() {
    let door = Door::start(&config()).await;
    let secret: String = url_escaped(SECRET);

    let right = format!("/hooks/meta?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={secret}");
    let said = ask(&door, Method::GET, &right, &[]).await;
    assert_eq!((said.status, said.body.as_str()), (200, "1158201444"));
    assert_eq!(
        (&said.headers["content-type"], &said.headers["x-content-type-options"]),
        (&"text/plain".parse().unwrap(), &"nosniff".parse().unwrap())
    );
    let wrong = "/hooks/meta?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=guess";
    let said = ask(&door, Method::GET, wrong, &[]).await;
    assert_eq!(said.status, 401);
    assert!(!said.body.contains("1158201444"));
    let told = eventually("the wrong token is told", || async {
        decisions(&door, "source=meta&kind=rejected").await.into_iter().next()
    })
    .await;
    assert_eq!(told["checks"][0]["wanted"], "the source's `verify_token`", "{told}");
    assert!(told["reason"].as_str().unwrap().contains("another token"), "{told}");

    let said = ask(&door, Method::GET, "/hooks/dropbox?challenge=5w1ML9ZbEcQ", &[]).await;
    assert_eq!((said.status, said.body.as_str()), (200, "5w1ML9ZbEcQ"));
    let said = ask(&door, Method::HEAD, "/hooks/trello", &[]).await;
    assert_eq!((said.status, said.body.as_str()), (200, ""));
    let origin = [("webhook-request-origin", "eventemitter.example.com")];
    let said = ask(&door, Method::OPTIONS, "/hooks/cloudevents", &origin).await;
    assert_eq!(
        (said.status, &said.headers["webhook-allowed-origin"]),
        (200, &"eventemitter.example.com".parse().unwrap())
    );
    let said = ask(&door, Method::POST, "/hooks/microsoft-graph?validationToken=Validation%3A+Test", &[]).await;
    assert_eq!((said.status, said.body.as_str()), (200, "Validation: Test"));

    // Whoever has nothing to ask is refused as ever.
    for path in ["/hooks/github", "/hooks/github?challenge=1", "/hooks/trello"] {
        assert_eq!(ask(&door, Method::GET, path, &[]).await.status, 405, "{path}");
    }
    assert_eq!(ask(&door, Method::GET, "/hooks/dropbox", &[]).await.status, 401);
    assert_eq!(ask(&door, Method::POST, "/hooks/dropbox?challenge=1", &[]).await.status, 401);

    eventually("all are recorded", || async {
        let answered = decisions(&door, "kind=handshake").await.len();
        let refused = decisions(&door, "q=handshake&kind=rejected").await.len();
        (answered == 5 && refused == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_secret_inside_a_delivery_reaches_neither_agent_nor_api() {
    let door = Door::start(&config()).await;
    let figma = json!({"event_type": "FILE_UPDATE", "webhook_id": "22", "timestamp": "2025-10-09T08:53:20Z", "passcode": SECRET});
    let answer = door.http.post(door.url("/hooks/figma")).json(&figma).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let got = eventually("the agent is run", || async {
        std::fs::read_to_string(door.path().join("got")).ok().filter(|text| text.contains("FILE_UPDATE"))
    })
    .await;
    assert!(!got.contains(SECRET), "{got}");

    let graph = |states: &[&str]| {
        let value: Vec<Value> =
            states.iter().enumerate().map(|(i, s)| json!({"id": format!("n{i}"), "clientState": s})).collect();
        door.http.post(door.url("/hooks/microsoft-graph")).json(&json!({ "value": value })).send()
    };
    let answer = graph(&[SECRET, SECRET]).await.unwrap();
    assert_eq!(answer.status(), 202);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["events"].as_array().map(Vec::len), Some(2), "{answer}");
    assert_eq!(graph(&[SECRET, "guess"]).await.unwrap().status(), 401);

    let url = door.url("/api/v1/events?source=microsoft-graph");
    let list: Value = door.http.get(url).bearer_auth(crate::world::TOKEN).send().await.unwrap().json().await.unwrap();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    for item in items {
        let url = door.url(&format!("/api/v1/events/{}", item["id"].as_str().unwrap()));
        let shown = door.http.get(url).bearer_auth(crate::world::TOKEN).send().await.unwrap().text().await.unwrap();
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

fn url_escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
