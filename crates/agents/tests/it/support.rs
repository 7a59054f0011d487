//! What the tests share: an attempt to hand over, a sink that remembers, a place to wait on a condition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use doorbell_agents::{Context, SettingFault};
use doorbell_core::attempt::{Attempt, Envelope, EventFacts, Outcome, RunFacts, Stop};
use doorbell_core::ports::{Child, OutputSink, Runner, Stream, Verdict};
use doorbell_core::{Clock, EventId, Name, RunId, Secret, StoreTag, Timestamp};
use serde_json::{Value, json};

/// Longer than any test should take: a hang fails here.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_760_000_000);

#[derive(Default)]
pub(crate) struct Sink {
    pieces: Mutex<Vec<(Stream, Bytes)>>,
    pub(crate) children: Mutex<Vec<Child>>,
}

impl Sink {
    pub(crate) fn text(&self, of: Stream) -> String {
        let pieces = self.pieces.lock().unwrap();
        let bytes: Vec<u8> = pieces.iter().filter(|(s, _)| *s == of).flat_map(|(_, b)| b.to_vec()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn notes(&self) -> usize {
        self.pieces.lock().unwrap().iter().filter(|(s, _)| *s == Stream::Note).count()
    }
}

#[async_trait]
impl OutputSink for Sink {
    async fn write(&self, stream: Stream, piece: Bytes) {
        self.pieces.lock().unwrap().push((stream, piece));
    }
    async fn child(&self, child: Child) {
        self.children.lock().unwrap().push(child);
    }
}

/// One attempt, its sink and its stop.
pub(crate) struct Try {
    pub(crate) attempt: Attempt,
    pub(crate) sink: Arc<Sink>,
    pub(crate) stop: Stop,
}

/// A run id of its own for each test: leftovers are found by it, and tests run side by side.
pub(crate) fn run_id() -> RunId {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    RunId::new(n, StoreTag::new(u64::from(std::process::id())))
}

impl Try {
    pub(crate) fn new() -> Self {
        Self::with(json!({"n": 1}), "do it")
    }

    pub(crate) fn with(data: Value, prompt: &str) -> Self {
        let name = |text: &str| Name::new(text).unwrap();
        let event = EventFacts {
            id: EventId::new(1, StoreTag::new(7)),
            source: name("github"),
            event_type: "push".into(),
            subject: None,
            actor: None,
            time: NOW,
            verified: true,
            data: Some(serde_json::value::to_raw_value(&data).unwrap()),
            data_base64: None,
            headers: Default::default(),
            query: Default::default(),
        };
        let run = RunFacts {
            id: run_id(),
            attempt: 2,
            agent: name("reviewer"),
            trigger: name("prs"),
            key: Some("o/r#7".into()),
            deadline: NOW,
            hops: 3,
        };
        let (sink, stop) = (Arc::new(Sink::default()), Stop::default());
        let attempt = Attempt {
            envelope: Arc::new(Envelope {
                run,
                event,
                prompt: prompt.into(),
                events: Vec::new(),
                scenario_inputs: Default::default(),
            }),
            time_limit: PATIENCE,
            run_token: Secret::new("run-token"),
            api_url: Some("http://127.0.0.1:8080".into()),
            sink: sink.clone(),
            stop: stop.clone(),
        };
        Self { attempt, sink, stop }
    }

    pub(crate) fn within(mut self, limit: Duration) -> Self {
        self.attempt.time_limit = limit;
        self
    }

    pub(crate) async fn verdict(&self, runner: &Arc<dyn Runner>) -> Verdict {
        tokio::time::timeout(2 * PATIENCE, runner.run(self.attempt.clone())).await.expect("the runner hangs")
    }

    pub(crate) async fn outcome(&self, runner: &Arc<dyn Runner>) -> Outcome {
        match self.verdict(runner).await {
            Verdict::Ended(outcome) => outcome,
            Verdict::Deferred => panic!("deferred"),
        }
    }
}

pub(crate) fn context() -> Context {
    let environment = [("PATH", "/usr/bin:/bin"), ("GIVEN", "yes"), ("KEPT_BACK", "no")];
    Context {
        base_dir: "/".into(),
        environment: Arc::new(environment.map(|(k, v)| (k.into(), v.into())).into_iter().collect::<BTreeMap<_, _>>()),
        fetch: Arc::new(doorbell_net::Client::new().unwrap()),
        clock: Clock::by_hand(NOW),
        secret: Arc::new(|value| {
            let text = value.as_str().or_else(|| value.get("env")?.as_str());
            text.map(Secret::new).ok_or_else(|| SettingFault::new("", "this is no secret", "Write { env = \"NAME\" }."))
        }),
    }
}

pub(crate) fn build(kind: &str, settings: Value) -> Arc<dyn Runner> {
    let settings = settings.as_object().unwrap();
    doorbell_agents::build(kind, settings, &context()).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// A shell script as an agent.
pub(crate) fn script(text: &str) -> Arc<dyn Runner> {
    script_with(text, json!({}))
}

pub(crate) fn script_with(text: &str, more: Value) -> Arc<dyn Runner> {
    let mut settings = json!({"command": ["/bin/sh", "-c", text], "env": ["PATH"], "kill_grace": "300ms"});
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    build("process", settings)
}

/// Waits until the condition gives something.
pub(crate) async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let watch = async {
        loop {
            if let Some(found) = condition() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, watch).await.unwrap_or_else(|_| panic!("waited in vain until {what}"))
}
