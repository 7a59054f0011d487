//! A world for the real program: its binary in a process of its own, a configuration and data in a temporary directory,
//! an HTTP agent that remembers every call, and senders that sign as GitHub does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub const SECRET: &str = "It's a Secret to Everybody";
pub const TOKEN: &str = "test-admin-token-test-admin-token";

/// How long a condition may take to come true before the test fails: generous, for two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something; fails the test with `what` otherwise.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An address that nobody listens on, kept for the restarts of one test.
pub fn free_addr() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The program with its directory. Killed hard when dropped.
pub struct Door {
    pub dir: tempfile::TempDir,
    pub addr: SocketAddr,
    child: Option<Child>,
    pub http: reqwest::Client,
}

impl Door {
    /// Writes `config` (with `{addr}` replaced) and starts.
    pub async fn start(config: &str) -> Self {
        let door = Self::prepare(config);
        let mut door = door;
        door.launch().await;
        door
    }

    /// Writes the configuration without starting.
    pub fn prepare(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addr = free_addr();
        std::fs::write(dir.path().join("doorbell.toml"), config.replace("{addr}", &addr.to_string())).unwrap();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Self { dir, addr, child: None, http }
    }

    /// Starts (again) on the same data and waits until it is ready.
    pub async fn launch(&mut self) {
        self.spawn();
        let (http, url) = (self.http.clone(), self.url("/ready"));
        let began = Instant::now();
        loop {
            if http.get(&url).send().await.is_ok_and(|r| r.status() == 200) {
                return;
            }
            let exited = self.child.as_mut().and_then(|c| c.try_wait().unwrap());
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(exited.is_none(), "it ended: {exited:?}\n{}", log());
            assert!(began.elapsed() < PATIENCE, "not ready:\n{}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts without waiting.
    pub fn spawn(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_doorbell"))
            .args(["serve", "-c", "doorbell.toml"])
            .current_dir(self.dir.path())
            .env("DOORBELL_ADMIN_TOKEN", TOKEN)
            .env("TEST_SECRET", SECRET)
            .env("EMPTY_SECRET", "")
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(self.dir.path().join("banner")).unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// kill -9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM, and the exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait().await
    }

    /// Waits until it ends by itself; the exit code.
    pub async fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// GET of the API, which must answer 200.
    pub async fn api(&self, path: &str) -> Value {
        let answer = self.http.get(self.url(&format!("/api/v1{path}"))).bearer_auth(TOKEN).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// POST to the API: status and body.
    pub async fn api_post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.post(self.url(&format!("/api/v1{path}"))).bearer_auth(TOKEN).json(&body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// All items of a list, page by page.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page = self.api(&format!("{path}{sign}limit=500{next}")).await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(cursor) => next = format!("&cursor={cursor}"),
                None => return items,
            }
        }
    }

    /// The run, once it is in a final state.
    pub async fn run_ended(&self, id: &str) -> Value {
        eventually(&format!("{id} ends"), || async {
            let run = self.api(&format!("/runs/{id}")).await;
            matches!(run["state"].as_str(), Some("succeeded" | "failed" | "cancelled")).then_some(run)
        })
        .await
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.end_agents();
    }
}

impl Door {
    /// Agents outlive a server that was killed, and no next one comes to end them.
    fn end_agents(&self) {
        let Ok(dir) = self.path().canonicalize() else { return };
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let is_ours = std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&dir));
            let pid = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            if let Some(pid) = pid.filter(|_| is_ours) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// A delivery signed as GitHub signs it.
pub fn github(door_url: &str, http: &reqwest::Client, id: &str, event: &str, body: &[u8]) -> reqwest::RequestBuilder {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hex::encode(hmac::sign(&key, body).as_ref());
    http.post(door_url)
        .header("content-type", "application/json")
        .header("x-github-event", event)
        .header("x-github-delivery", id)
        .header("x-hub-signature-256", format!("sha256={tag}"))
        .body(body.to_vec())
}

/// One call of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub run: String,
    pub attempt: u64,
    pub key: Option<String>,
    pub event: String,
}

/// An HTTP agent that remembers its calls, and answers what it was told to.
pub struct HttpAgent {
    pub addr: SocketAddr,
    calls: Arc<Mutex<Vec<(Call, Value)>>>,
    answers: Arc<Mutex<HashMap<String, (u16, String)>>>,
}

impl HttpAgent {
    pub async fn start() -> Self {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let answers: Arc<Mutex<HashMap<String, (u16, String)>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (noted, told) = (Arc::clone(&calls), Arc::clone(&answers));
        let app = axum::Router::new().fallback(move |request: axum::extract::Request| {
            let (noted, told) = (Arc::clone(&noted), Arc::clone(&told));
            async move {
                let path = request.uri().path().to_owned();
                let headers: serde_json::Map<String, Value> = request
                    .headers()
                    .iter()
                    .map(|(k, v)| (k.to_string(), Value::from(String::from_utf8_lossy(v.as_bytes()).into_owned())))
                    .collect();
                let bytes = axum::body::to_bytes(request.into_body(), 64 << 20).await.unwrap_or_default();
                let mut envelope: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                envelope["http_headers"] = Value::Object(headers);
                let call = Call {
                    run: envelope["run"]["id"].as_str().unwrap_or("").into(),
                    attempt: envelope["run"]["attempt"].as_u64().unwrap_or(0),
                    key: envelope["run"]["key"].as_str().map(Into::into),
                    event: envelope["event"]["id"].as_str().unwrap_or("").into(),
                };
                noted.lock().unwrap().push((call, envelope));
                let (status, body) = told.lock().unwrap().get(&path).cloned().unwrap_or((200, "{\"ok\":true}".into()));
                (axum::http::StatusCode::from_u16(status).unwrap(), body)
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { addr, calls, answers }
    }

    pub fn url(&self) -> String {
        format!("http://{}/agent", self.addr)
    }

    /// What `/agent` answers from now on.
    pub fn answer(&self, status: u16, body: &str) {
        self.answers.lock().unwrap().insert("/agent".into(), (status, body.into()));
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }

    pub fn envelopes(&self) -> Vec<Value> {
        self.calls.lock().unwrap().iter().map(|(_, envelope)| envelope.clone()).collect()
    }
}
