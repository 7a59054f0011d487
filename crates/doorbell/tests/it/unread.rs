//! Bodies that are not read: a credential in the head that opens nothing is refused before a large body comes.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{Door, HttpAgent, SECRET, TOKEN, eventually};

/// Sends a head that promises a large body, and nothing of the body; the status that is answered.
async fn promised(door: &Door, path: &str, header: &str) -> String {
    let mut socket = TcpStream::connect(door.addr).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: {}\r\n{header}\r\ncontent-length: 20000000\r\n\r\n", door.addr);
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The connection is closed: what is left of the request is not waited for.
    socket.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_good_credential_in_the_head_sends_no_large_body() {
    let agent = HttpAgent::start().await;
    let mut config = format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\nbody_timeout = \"3s\"\n\
         [agents.worker]\nrunner = \"http\"\nurl = \"{}\"\n\
         [contracts.agentex.agents.reviewer]\nacp_url = \"{}\"\n",
        agent.url(),
        agent.url(),
    );
    for (name, auth) in [("bearer", "bearer"), ("key", "api-key")] {
        config += &format!(
            "[triggers.{name}]\nagent = \"worker\"\nauth = \"{auth}\"\nmax_body = \"25 MiB\"\n\
             secret = {{ env = \"TEST_SECRET\" }}\n"
        );
    }
    config += "header = \"x-api-key\"\n";
    let door = Door::start(&config).await;
    for (path, header) in [
        ("/hooks/bearer", "authorization: Bearer wrong"),
        ("/hooks/bearer", "x-nothing: 1"),
        ("/hooks/key", "x-api-key: wrong"),
        ("/agents/forward/name/reviewer/x", "x-agent-api-key: wrong"),
    ] {
        assert_eq!(promised(&door, path, header).await, "401", "{path} {header}\n{}", door.log());
    }
    assert_eq!(promised(&door, "/agents/forward/name/reviewer/x", "x-nothing: 1").await, "403");
    let codes = eventually("each is recorded", || async {
        let all = door.all("/decisions").await;
        (all.len() >= 5).then(|| all.iter().map(|d| d["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>())
    })
    .await;
    assert_eq!((codes.len(), codes.iter().filter(|c| *c == "credential_mismatch").count()), (5, 3), "{codes:?}");
    // Whose credential is good is waited for, and a large body is taken whole.
    assert_eq!(promised(&door, "/hooks/bearer", &format!("authorization: Bearer {SECRET}")).await, "400");
    let large = json!({"a": "x".repeat(200_000)}).to_string();
    let sent = door.http.post(door.url("/hooks/bearer")).bearer_auth(SECRET).body(large.clone()).send().await.unwrap();
    assert_eq!(sent.status(), 202);
    let new = json!({"agent_name": "reviewer", "name": "ours"});
    let made = door.http.post(door.url("/agent_api_keys")).header("x-api-key", TOKEN).json(&new).send().await.unwrap();
    let made: serde_json::Value = made.json().await.unwrap();
    let forward = door.http.post(door.url("/agents/forward/name/reviewer/x")).body(large);
    let sent = forward.header("x-agent-api-key", made["api_key"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(sent.status(), 200);
}
