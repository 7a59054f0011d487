//! The world of the tests: a house with some sources and a scripted agent, served on port 0, and a client that writes
//! and reads bytes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use doorbell_core::agent::Agent;
use doorbell_core::allowed::Allowed;
use doorbell_core::attempt::{Attempt, Failure, Outcome, Stop, Success};
use doorbell_core::filter::Filter;
use doorbell_core::house::{Catalog, House};
use doorbell_core::lane::Passing;
use doorbell_core::limits::Limits;
use doorbell_core::payload::Paths;
use doorbell_core::ports::{Retention, Runner, Stream, Verdict};
use doorbell_core::provider::{self, Verifier, VerifyOptions};
use doorbell_core::retry::Retries;
use doorbell_core::seal::{MasterKey, MasterKeys};
use doorbell_core::source::{DedupRule, Respond, Source, Way, Webhook};
use doorbell_core::trigger::{Trigger, WhenFull};
use doorbell_core::vault::Vault;
use doorbell_core::worker::{Worker, WorkerOptions};
use doorbell_core::{Clock, Name, Secret};
use doorbell_server::{Ending, Options, Server, Status, Timeouts};
use doorbell_store::MemoryStore;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub(crate) const TOKEN: &str = "test-token";
pub(crate) const SECRET: &str = "it's a secret to everybody";
/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub(crate) house: Arc<House>,
    pub(crate) status: Arc<Status>,
    pub(crate) address: SocketAddr,
    pub(crate) script: Arc<Script>,
    pub(crate) stop: CancellationToken,
    pub(crate) serving: tokio::task::JoinHandle<()>,
}

/// The agent does what the event's type says.
#[derive(Default)]
pub(crate) struct Script {
    /// Run tokens of attempts that will call back.
    pub(crate) tokens: Mutex<Vec<String>>,
    /// Lets attempts of type `gate` go.
    pub(crate) gate: tokio::sync::Notify,
}

#[async_trait]
impl Runner for Script {
    fn calls_back(&self) -> bool {
        true
    }

    async fn run(&self, attempt: Attempt) -> Verdict {
        let event = &attempt.envelope.event;
        let success =
            || Outcome::Succeeded(Success { output: Bytes::from_static(b"{\"answer\":42}"), ..Success::default() });
        match event.event_type.as_str() {
            "bad" => {
                let failure = Failure {
                    error: "it broke".into(),
                    output: Some(Bytes::from_static(b"oh no")),
                    ..Failure::default()
                };
                Outcome::Failed(failure).into()
            }
            "hang" => Stop::outcome(attempt.stop.asked().await).into(),
            "later" => {
                self.tokens.lock().unwrap().push(attempt.run_token.expose().to_owned());
                Verdict::Deferred
            }
            "gate" => {
                attempt.sink.write(Stream::Log, Bytes::from_static(b"first\n")).await;
                self.gate.notified().await;
                attempt.sink.write(Stream::Output, Bytes::from_static(b"second \xff\n")).await;
                success().into()
            }
            _ => success().into(),
        }
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Short enough for a test that waits for them, long enough for a slow machine to never meet them by accident.
pub(crate) fn short() -> Options {
    Options {
        timeouts: times(Duration::from_secs(5)),
        limits: doorbell_server::Limits { api_body: 10_000, ..doorbell_server::Limits::default() },
        version: "1.2.3-test".into(),
        ..Options::new(Secret::new(TOKEN))
    }
}

/// For tests that wait until a peer was too slow.
pub(crate) fn hasty() -> Options {
    let ms = Duration::from_millis;
    let timeouts = Timeouts { body_total: ms(800), idle: ms(1500), ..times(ms(400)) };
    Options { timeouts, ..short() }
}

fn times(all: Duration) -> Timeouts {
    Timeouts {
        handshake: all,
        first_byte: all,
        head: all,
        body_idle: all,
        body_total: all,
        idle: all,
        write: all,
        follow: Duration::from_millis(10),
        heartbeat: Duration::from_millis(50),
    }
}

fn trigger(name_: &str, source: &str, filter: Option<&str>) -> Arc<Trigger> {
    Arc::new(Trigger {
        name: name(name_),
        source: name(source),
        agent: name("script"),
        filter: filter.map(|text| Filter::compile(text).unwrap()),
        key: None,
        lane: None,
        prompt: None,
        passing: Passing::default(),
        max_concurrent: None,
        when_full: WhenFull::Hold,
        max_queued: None,
        storm_cap: None,
        max_payload_chars: None,
        input: None,
        enabled: true,
        shown: serde_json::json!({ "filter": filter }),
    })
}

fn source(name_: &str, preset: Option<&str>, respond: Respond, filters: &[Option<&str>]) -> Source {
    let preset = preset.map(|id| Arc::clone(provider::get(id).unwrap()));
    let mut paths = Paths::default();
    let way = match preset {
        None => Way::Direct,
        Some(preset) => {
            preset.body_paths().iter().for_each(|path| paths.insert(path));
            let secrets = match preset.id.as_str() {
                "github" => vec![Secret::new(SECRET)],
                "aws-sns" => vec![Secret::new("arn:aws:sns:us-west-2:123456789012:MyTopic")],
                "travis" => vec![Secret::new("acme/doorbell")],
                "plaid" => vec![Secret::new("client:plaid-s3cret")],
                "google-pubsub" => vec![Secret::new("push@project.iam.gserviceaccount.com")],
                _ => vec![],
            };
            Way::Webhook(Box::new(Webhook {
                path: format!("/hooks/{name_}"),
                public_url: None,
                verifier: Verifier::new(Arc::clone(&preset), &secrets, VerifyOptions::default()).unwrap().into(),
                keys: None,
                payload: preset.payload.rule(),
                secret_in_body: false,
                kept_headers: preset.kept_headers(),
                preset,
                allowed: Allowed::default(),
                limits: Limits::default(),
                max_body: 1000,
                respond,
            }))
        }
    };
    let triggers: Vec<_> = filters
        .iter()
        .enumerate()
        .map(|(i, filter)| trigger(&if i == 0 { name_.to_owned() } else { format!("{name_}-{i}") }, name_, *filter))
        .collect();
    for filter in triggers.iter().filter_map(|t| t.filter.as_ref()) {
        paths.union(filter.paths());
    }
    Source {
        name: name(name_),
        way,
        triggers,
        paths,
        dedup: DedupRule::Auto,
        replay_window: Duration::from_secs(600),
        on_duplicate_failed: doorbell_core::event::OnDuplicateFailed::Answer,
        ignore_actors: Vec::new(),
        max_hops: 8,
        enabled: true,
        shown: serde_json::json!({}),
    }
}

pub(crate) fn catalog(script: &Arc<Script>) -> Catalog {
    let agent = Agent {
        name: name("script"),
        kind: "native".into(),
        runner: Arc::clone(script) as Arc<dyn Runner>,
        time_limit: Duration::from_secs(60),
        concurrency: 4,
        paused: false,
        retries: Retries { max: 0, ..Retries::default() },
        max_age: Duration::from_secs(3600),
        breaker: None,
        shown: serde_json::json!({ "command": ["true"] }),
    };
    let other = Agent { name: name("other"), ..agent.clone() };
    let result = Respond::Result(Duration::from_secs(5));
    let mut off = source("off", Some("none"), Respond::Accepted, &[None]);
    off.enabled = false;
    let mut fenced = source("fenced", Some("none"), Respond::Accepted, &[None]);
    if let Way::Webhook(webhook) = &mut fenced.way {
        webhook.allowed = Allowed::new(vec!["192.0.2.0/24".parse().unwrap()], Vec::new());
    }
    let sources = vec![
        source("open", Some("none"), Respond::Accepted, &[None]),
        source("github", Some("github"), Respond::Accepted, &[Some("data.n > 1"), Some("event.type == 'push'")]),
        source("result", Some("github"), result, &[None]),
        source("impatient", Some("github"), Respond::Result(Duration::from_millis(50)), &[None]),
        source("direct", None, Respond::Accepted, &[None]),
        off,
        fenced,
    ];
    Catalog::new(vec![agent, other], sources, Retention::default())
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(short()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::tls(options, None).await
    }

    pub(crate) async fn tls(options: Options, tls: Option<doorbell_server::Tls>) -> Self {
        let script = Arc::new(Script::default());
        let catalog = catalog(&script);
        Self::of(options, tls, script, catalog).await
    }

    /// With one source more, `sns`, whose keys come from `hosts`.
    pub(crate) async fn with_sns(hosts: Arc<crate::keys::Amazon>) -> Self {
        let script = Arc::new(Script::default());
        let mut sns = source("sns", Some("aws-sns"), Respond::Accepted, &[None]);
        if let Way::Webhook(webhook) = &mut sns.way {
            webhook.keys = Some(Arc::new(provider::KeyCache::new(hosts)));
        }
        let agents = catalog(&script).agents.values().map(|agent| (**agent).clone()).collect();
        let catalog = Catalog::new(agents, vec![sns], Retention::default());
        Self::of(short(), None, script, catalog).await
    }

    /// A server with one source of a sender that publishes its key.
    pub(crate) async fn with_published(provider: &str, hosts: Arc<dyn doorbell_core::ports::Fetch>) -> Self {
        let script = Arc::new(Script::default());
        let mut source = source("published", Some(provider), Respond::Accepted, &[None]);
        if let Way::Webhook(webhook) = &mut source.way {
            webhook.keys = Some(Arc::new(provider::KeyCache::new(hosts)));
        }
        let agents = catalog(&script).agents.values().map(|agent| (**agent).clone()).collect();
        Self::of(short(), None, script, Catalog::new(agents, vec![source], Retention::default())).await
    }

    async fn of(options: Options, tls: Option<doorbell_server::Tls>, script: Arc<Script>, catalog: Catalog) -> Self {
        let clock = Clock::system();
        let store = MemoryStore::new(&clock);
        let master = Secret::new("0123456789abcdef".repeat(4));
        let keys = Arc::new(MasterKeys::new(MasterKey::parse(&master).unwrap(), Vec::new()));
        let vault = Vault::open(Arc::clone(&store) as _, clock.clone(), keys).await.unwrap();
        let house = House::open(store, clock, catalog, vault).await.unwrap();
        let (status, stop) = (Status::new(), CancellationToken::new());
        status.set_running();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(Arc::clone(&house), options, Arc::clone(&status));
        let ending = Ending { soft: stop.clone(), ..Ending::default() };
        let patience = ending.clone();
        tokio::spawn(async move {
            patience.soft.cancelled().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            patience.hard.cancel();
        });
        let serving = tokio::spawn(async move { server.serve(listener, tls, ending).await });
        Self { house, status, address, script, stop, serving }
    }

    /// Starts to work on what comes in.
    pub(crate) async fn work(&self) -> Worker {
        Worker::start(Arc::clone(&self.house), WorkerOptions::default()).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), left: Vec::new() }
    }

    /// One call on a connection of its own.
    pub(crate) async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut client = self.connect().await;
        client.write(request(method, path, headers, body).as_bytes()).await;
        client.answer().await.expect("an answer")
    }

    /// With the token.
    pub(crate) async fn api(&self, method: &str, path: &str, body: &str) -> Answer {
        let token = format!("Bearer {TOKEN}");
        self.call(method, &format!("/api/v1{path}"), &[("authorization", &token)], body).await
    }

    /// A GET of the API that must work.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.api("GET", path, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    }

    /// A signed delivery of GitHub.
    pub(crate) async fn deliver(&self, source: &str, id: &str, event_type: &str, body: &str) -> Answer {
        let headers = signed(id, event_type, body);
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        self.call("POST", &format!("/hooks/{source}"), &headers, body).await
    }

    /// Waits until a run is in `state`.
    pub(crate) async fn until_state(&self, run: &str, state: &str) -> Value {
        until(|| async {
            let found = self.get(&format!("/runs/{run}")).await;
            (found["state"] == state).then_some(found)
        })
        .await
    }
}

/// Waits until `look` sees something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain");
        tokio::task::yield_now().await;
    }
}

pub(crate) fn signed(id: &str, event_type: &str, body: &str) -> Vec<(String, String)> {
    let body = Bytes::from(body.to_owned());
    let mut headers = http::HeaderMap::new();
    headers.insert("content-type", "application/json".parse().unwrap());
    let draft = provider::Draft {
        method: &http::Method::POST,
        url: None,
        path: "/",
        query: "",
        id,
        event_type,
        headers,
        body: &body,
    };
    let preset = provider::get("github").unwrap();
    let parts = provider::sign(preset, &Secret::new(SECRET), draft, Clock::system().now()).unwrap();
    parts.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect()
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let host = if headers.iter().any(|(n, _)| *n == "host") { "" } else { "host: localhost\r\n" };
    let headers: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\n{host}content-length: {}\r\n{headers}\r\n{body}", body.len())
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    left: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|l| l.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.trim())
    }
}

impl Client {
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        // The server may have closed already; what it answered is what counts.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next answer; none if the connection is closed without one.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        tokio::time::timeout(PATIENCE, self.read_answer()).await.expect("an answer or an end in time")
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.left.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.left[..end]).into_owned();
        self.left.drain(..end + 4);
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        let answer = Answer { status, head, body: String::new() };
        let length: usize = answer.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
        // An answer to HEAD tells the length of a body that never comes.
        while self.left.len() < length && self.more().await.is_some() {}
        let body = self.left.drain(..length.min(self.left.len())).collect();
        Some(Answer { body: String::from_utf8(body).unwrap(), ..answer })
    }

    /// Reads more; none at the end.
    pub(crate) async fn more(&mut self) -> Option<()> {
        let mut buffer = [0; 4096];
        let n = self.stream.read(&mut buffer).await.unwrap_or(0);
        self.left.extend_from_slice(&buffer[..n]);
        (n > 0).then_some(())
    }

    /// What was read and not yet taken, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.left).into_owned()
    }

    /// Whether the server closes the connection.
    pub(crate) async fn ends(&mut self) {
        let end = async { while self.more().await.is_some() {} };
        tokio::time::timeout(PATIENCE, end).await.expect("the connection ends");
    }
}
