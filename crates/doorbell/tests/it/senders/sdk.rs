//! The senders' own SDKs, run by node from `tests/senders`, and requests as they sign them. Used by `senders`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::vendors::{TOLERANCE, VENDORS, Vendor};
use crate::world::Door;

/// What to do when the SDKs cannot be run. Nothing is skipped for their lack: a skipped proof looks like a passed one.
const REMEDY: &str = "run `./do test`, which installs node (20 or newer) and, with npm, the senders' SDKs";

/// Our address as the senders know it: some sign it.
pub(super) const PUBLIC_URL: &str = "https://door.example.com";

/// A request, whoever made it: the headers in their order, so that one can stand there twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The header's value; it has to be there.
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str()).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// The source whose path it is for.
    pub(super) fn source(&self) -> &str {
        self.path.split('?').next().unwrap().strip_prefix("/hooks/").unwrap()
    }

    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let mut changed = self.without(name);
        changed.headers.push((name.to_owned(), value.to_owned()));
        changed
    }

    /// With one more header of a name that may be there already.
    pub(super) fn adding(&self, name: &str, value: &str) -> Self {
        let mut changed = self.clone();
        changed.headers.push((name.to_owned(), value.to_owned()));
        changed
    }

    pub(super) fn without(&self, name: &str) -> Self {
        let mut changed = self.clone();
        changed.headers.retain(|(n, _)| n != name);
        changed
    }

    pub(super) fn with_body(&self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self.clone() }
    }

    /// Sends it; the status and the text.
    pub(super) async fn send(&self, door: &Door) -> (u16, String) {
        let mut request = door.http.post(door.url(&self.path)).body(self.body.clone());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }
}

/// A request that an SDK signed, beside the same one signed in ways that must not count.
pub(super) struct Signed {
    pub provider: String,
    pub name: String,
    /// Signed now, with the source's secret.
    pub request: Request,
    /// Signed too long ago.
    pub stale: Request,
    /// Signed for a time that has not come.
    pub future: Request,
    /// Signed now, with a secret that is not the source's.
    pub other_secret: Request,
    /// The event's type and data as an agent should see them; none for a handshake.
    pub event: Option<(String, Value)>,
    /// What a handshake wants to hear.
    pub challenge: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    round: String,
    provider: String,
    name: String,
    path: String,
    headers: serde_json::Map<String, Value>,
    body_base64: String,
    event: Option<Told>,
    challenge: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    event_type: String,
    data: Option<Value>,
}

impl Line {
    fn request(&self) -> Request {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Request {
            path: self.path.clone(),
            headers: self.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
            body: STANDARD.decode(&self.body_base64).unwrap(),
        }
    }
}

/// Every request of `tests/senders/requests.mjs`, signed by the SDKs at `now` (seconds since 1970).
pub(super) async fn signed(now: i64) -> Vec<Signed> {
    let round = |name: &str, at: i64, secret: fn(&Vendor) -> &'static str| {
        let secrets: BTreeMap<_, _> = VENDORS.iter().map(|vendor| (vendor.id, secret(vendor))).collect();
        json!({"round": name, "at": at, "secrets": secrets})
    };
    let rounds = [
        round("true", now, |vendor| vendor.secret),
        round("stale", now - TOLERANCE - 1, |vendor| vendor.secret),
        round("future", now + 2 * TOLERANCE, |vendor| vendor.secret),
        round("other secret", now, |vendor| vendor.other_secret),
    ];
    let lines: Vec<Line> = node("sign.mjs", &json!({"base": PUBLIC_URL, "rounds": rounds})).await;
    let find = |round: &str, like: &Line| {
        let same = |l: &&Line| l.round == round && l.provider == like.provider && l.name == like.name;
        lines.iter().find(same).unwrap().request()
    };
    let of = |line: &Line| Signed {
        provider: line.provider.clone(),
        name: line.name.clone(),
        request: line.request(),
        stale: find("stale", line),
        future: find("future", line),
        other_secret: find("other secret", line),
        event: line.event.as_ref().map(|told| (told.event_type.clone(), data(line, told))),
        challenge: line.challenge.clone(),
    };
    let signed: Vec<Signed> = lines.iter().filter(|l| l.round == "true").map(of).collect();
    for vendor in &VENDORS {
        assert!(signed.iter().filter(|s| s.provider == vendor.id).count() >= 2, "too few requests of {}", vendor.id);
    }
    signed
}

/// What the SDK of the source's sender says to each request at `now`.
pub(super) async fn accepted(now: i64, requests: impl Iterator<Item = &Request>) -> Vec<bool> {
    #[derive(Deserialize)]
    struct Line {
        accepted: bool,
    }
    let one = |request: &Request| {
        json!({
            "provider": request.source(),
            "path": request.path,
            "headers": request.headers,
            "body_base64": STANDARD.encode(&request.body),
        })
    };
    let secrets: BTreeMap<_, _> = VENDORS.iter().map(|vendor| (vendor.id, vendor.secret)).collect();
    let requests: Vec<Value> = requests.map(one).collect();
    let input = json!({"base": PUBLIC_URL, "at": now, "secrets": secrets, "requests": requests});
    node("check.mjs", &input).await.into_iter().map(|line: Line| line.accepted).collect()
}

/// The data as an agent should see it: what the sender says, without the token that Slack still sends along.
fn data(line: &Line, told: &Told) -> Value {
    let mut data = told.data.clone().unwrap_or_else(|| serde_json::from_slice(&line.request().body).unwrap());
    if line.provider == "slack" {
        assert!(data["token"].is_string());
        data["token"] = "[removed]".into();
    }
    data
}

/// One of GitHub's examples, signed by GitHub's library.
pub(super) struct Example {
    /// The event's type.
    pub name: String,
    pub signature: String,
    pub body: Vec<u8>,
}

/// Every example payload that GitHub publishes, signed with `secret`.
pub(super) async fn examples(secret: &str) -> Vec<Example> {
    #[derive(Deserialize)]
    struct Line {
        name: String,
        signature: String,
        body_base64: String,
    }
    let lines: Vec<Line> = node("examples.mjs", &json!({ "secret": secret })).await;
    let decoded =
        |l: Line| Example { name: l.name, signature: l.signature, body: STANDARD.decode(l.body_base64).unwrap() };
    lines.into_iter().map(decoded).collect()
}

fn senders_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/senders")
}

/// Runs one of the scripts and reads the lines it prints.
async fn node<T: serde::de::DeserializeOwned>(script: &str, input: &Value) -> Vec<T> {
    let dir = senders_dir();
    assert!(dir.join("node_modules").is_dir(), "the senders' SDKs are not in tests/senders/node_modules: {REMEDY}");
    let mut child = tokio::process::Command::new("node")
        .arg(script)
        .current_dir(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|e| panic!("node cannot be started ({e}): {REMEDY}"));
    let mut stdin = child.stdin.take().unwrap();
    // A script that ends before it has read everything tells why below.
    let _ = stdin.write_all(input.to_string().as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tests/senders/{script} failed; {REMEDY}:\n{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
