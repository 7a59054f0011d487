//! The wire contracts through the real program: tables of requests as the documents write them, and what comes back.

mod aether;
pub mod agentex;
mod almyty;
mod datalayer;
mod promptise;

use aws_lc_rs::hmac;
use serde_json::Value;

use crate::world::{Door, HttpAgent, SECRET};

/// One request as it stands in a document (head, empty line, body) and what is answered: status, and JSON in which `"*"`
/// stands for any value.
pub struct Row {
    pub what: &'static str,
    pub request: String,
    pub status: u16,
    pub answer: Value,
}

pub fn row(what: &'static str, request: impl Into<String>, status: u16, answer: Value) -> Row {
    Row { what, request: request.into(), status, answer }
}

/// What came back.
pub struct Said {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Said {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

/// Sends a request that is written out; `base` is where to.
pub async fn send(http: &reqwest::Client, base: &str, request: &str) -> Said {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let mut lines = head.lines();
    let (method, path) = lines.next().unwrap().split_once(' ').unwrap();
    let mut sent = http.request(method.parse().unwrap(), format!("{base}{path}")).body(body.to_owned());
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        sent = sent.header(name, value);
    }
    let answer = sent.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Said { status, headers, text: answer.text().await.unwrap() }
}

/// Sends each and compares.
pub async fn check(door: &Door, base: &str, rows: &[Row]) {
    for row in rows {
        let said = send(&door.http, base, &row.request).await;
        let shown = format!("{}\n{}\n-> {} {}", row.what, row.request, said.status, said.text);
        assert_eq!(said.status, row.status, "{shown}\n{}", door.log());
        assert!(fits(&row.answer, &said.json()), "{shown}\nwanted {}", row.answer);
    }
}

fn fits(wanted: &Value, seen: &Value) -> bool {
    match (wanted, seen) {
        (Value::String(any), seen) if any == "*" => !seen.is_null(),
        (Value::Object(wanted), Value::Object(seen)) => {
            wanted.len() == seen.len() && wanted.iter().all(|(k, v)| seen.get(k).is_some_and(|s| fits(v, s)))
        }
        (Value::Array(wanted), Value::Array(seen)) => {
            wanted.len() == seen.len() && wanted.iter().zip(seen).all(|(w, s)| fits(w, s))
        }
        (wanted, seen) => wanted == seen,
    }
}

/// The hex of the HMAC-SHA256 of a body under the secret of the tests.
pub fn sign(body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hex::encode(hmac::sign(&key, body.as_bytes()).as_ref())
}

/// A server with one agent; the rest of the file is the test's.
pub fn config(agent: &HttpAgent, rest: &str) -> String {
    format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n\
         [agents.worker]\nrunner = \"http\"\nurl = \"{}\"\nretries = {{ max = 0 }}\n{rest}",
        agent.url()
    )
}
