//! Client certificates behind a proxy, through the real program: who is believed, and what is recorded of the rest.

use serde_json::json;

use crate::contracts::{Said, send};
use crate::world::{Door, HttpAgent, eventually};

const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn config(agent: &HttpAgent, trusted: &str) -> String {
    format!(
        r#"
[server]
listen = "{{addr}}"
data_dir = "data"
trusted_proxies = ["{trusted}"]

[agents.worker]
runner = "http"
url = "{}"

[triggers.mesh]
agent = "worker"
auth = "client-cert"
client_cert = {{ form = "xfcc", sans = ["uri:spiffe://partner/hooks"], fingerprints = ["{HASH}"] }}

[triggers.bank]
agent = "worker"
auth = "client-cert"
client_cert = {{ form = "headers", subjects = ["CN=bank,O=Bank"] }}
"#,
        agent.url()
    )
}

async fn post(door: &Door, path: &str, headers: &[(&str, &str)], body: &str) -> Said {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    send(&door.http, &door.url(""), &format!("POST {path}\nContent-Type: application/json\n{lines}\n{body}")).await
}

fn xfcc(value: &str) -> Vec<(&str, &str)> {
    vec![("X-Forwarded-Client-Cert", value)]
}

fn verified(word: &str) -> Vec<(&str, &str)> {
    vec![("X-SSL-Client-Verify", word), ("X-SSL-Client-S-DN", "CN=bank,O=Bank")]
}

async fn refusals(door: &Door, count: usize) -> Vec<(String, bool)> {
    eventually("the refusals", || async {
        let all = door.all("/decisions?kind=rejected").await;
        (all.len() == count).then(|| {
            let code = |d: &serde_json::Value| (d["code"].as_str().unwrap().to_owned(), d["reason"].is_string());
            all.iter().rev().map(code).collect()
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_tells_of_a_certificate_and_what_is_not_listed_stays_out() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "127.0.0.1")).await;
    let good = format!("By=spiffe://us;Hash={HASH};Subject=\"CN=x\";URI=spiffe://partner/hooks");
    let of_another = good.replace("partner", "other");
    let appended = format!("{good},{of_another}");
    assert_eq!(post(&door, "/hooks/mesh", &xfcc(&good), r#"{"n":1}"#).await.status, 202);
    assert_eq!(post(&door, "/hooks/bank", &verified("SUCCESS"), r#"{"n":2}"#).await.status, 202);
    let twice = [xfcc(&good), xfcc(&good)].concat();
    let refused = [
        ("/hooks/mesh", xfcc(&of_another), "certificate_mismatch"),
        ("/hooks/mesh", xfcc(&appended), "credential_malformed"),
        ("/hooks/mesh", twice, "part_repeated"),
        ("/hooks/mesh", vec![], "credential_missing"),
        ("/hooks/bank", verified("FAILED:certificate has expired"), "certificate_refused"),
        ("/hooks/bank", vec![("X-SSL-Client-S-DN", "CN=bank,O=Bank")], "credential_missing"),
        (
            "/hooks/bank",
            vec![("X-SSL-Client-Verify", "SUCCESS"), ("X-SSL-Client-S-DN", "CN=bank")],
            "certificate_mismatch",
        ),
    ];
    for (path, headers, code) in &refused {
        let said = post(&door, path, headers, "{}").await;
        assert_eq!((said.status, &said.json()["code"]), (401, &json!("not_verified")), "{code}: {}", said.text);
    }
    let wanted: Vec<(String, bool)> = refused.iter().map(|(.., code)| ((*code).to_owned(), true)).collect();
    assert_eq!(refusals(&door, wanted.len()).await, wanted);
    let seen = eventually("two runs", || async { Some(agent.envelopes()).filter(|all| all.len() == 2) }).await;
    assert!(seen.iter().all(|e| e["event"]["verified"] == true), "{seen:?}");
    assert!(!serde_json::to_string(&seen).unwrap().contains("spiffe"), "what the proof was is not handed on");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_headers_from_anybody_else_let_nobody_in() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "192.0.2.1")).await;
    let good = format!("Hash={HASH};URI=spiffe://partner/hooks");
    let forged = [("X-Forwarded-Client-Cert", good.as_str()), ("X-Forwarded-For", "192.0.2.1")];
    assert_eq!(post(&door, "/hooks/mesh", &forged, "{}").await.status, 401);
    let forged = [("X-SSL-Client-Verify", "SUCCESS"), ("X-SSL-Client-S-DN", "CN=bank,O=Bank")];
    assert_eq!(post(&door, "/hooks/bank", &forged, "{}").await.status, 401);
    let codes: Vec<String> = refusals(&door, 2).await.into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["not_from_proxy", "not_from_proxy"]);
    assert!(agent.calls().is_empty());
}
