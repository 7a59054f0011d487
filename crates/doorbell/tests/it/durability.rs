//! Loss: load, SIGKILL at a random moment, restart, over and over. What was accepted runs, once for each delivery, and in
//! order within a lane; what the agent's programs left behind is gone.
//!
//! A few rounds by default; `DOORBELL_TEST_LONG=1` makes it hundreds, `DOORBELL_TEST_ROUNDS=n` any number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Call, Door, HttpAgent, PATIENCE, github};

const LANES: u64 = 7;
const SENDERS: u64 = 16;

#[allow(clippy::disallowed_methods, reason = "a test takes its length from the environment")]
fn rounds(short: usize, long: usize) -> usize {
    let set = std::env::var("DOORBELL_TEST_ROUNDS").ok().and_then(|n| n.parse().ok());
    let default = if std::env::var("DOORBELL_TEST_LONG").is_ok() { long } else { short };
    set.unwrap_or(default)
}

/// What the senders know: delivery id to the ids they were answered with.
#[derive(Default)]
struct Acked(std::sync::Mutex<BTreeMap<u64, (String, String)>>);

/// Sends deliveries, one at a time and in order within its lane, until told to stop. An unanswered delivery is sent
/// again with the same id, as a provider would, before the next one of its lane.
async fn sender(lane: u64, url: String, http: reqwest::Client, shared: Arc<Shared>) {
    while !shared.stop.load(Ordering::SeqCst) {
        let n = shared.next.fetch_add(1, Ordering::SeqCst);
        let body = format!("{{\"n\":{n},\"lane\":\"lane-{lane}\"}}");
        loop {
            let answer = github(&url, &http, &format!("delivery-{n}"), "push", body.as_bytes()).send().await;
            if let Ok(answer) = answer
                && let status @ (200 | 202) = answer.status().as_u16()
                && let Ok(json) = answer.json::<Value>().await
            {
                let id = |name: &str| json[name].as_str().unwrap_or("").to_owned();
                assert!(status == 202 || json["status"] == "duplicate", "{json}");
                shared.acked.0.lock().unwrap().insert(n, (id("event_id"), id("run_id")));
                break;
            }
            if shared.give_up.load(Ordering::SeqCst) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[derive(Default)]
struct Shared {
    next: AtomicU64,
    stop: AtomicBool,
    give_up: AtomicBool,
    acked: Acked,
}

fn config(agent: &str) -> String {
    format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\nshutdown_grace = \"5s\"\n\
         [agents.worker]\n{agent}\nconcurrency = 8\ntimeout = \"60s\"\n\
         retries = {{ max = 1000000, backoff = \"10ms\", max_backoff = \"50ms\" }}\n\
         [triggers.ring]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
         key = \"{{{{ data.lane }}}}\"\n"
    )
}

async fn torture(agent: &str, rounds: usize) -> (Door, Arc<Shared>) {
    let mut door = Door::start(&config(agent)).await;
    let shared = Arc::new(Shared::default());
    let url = door.url("/hooks/ring");
    let senders: Vec<_> = (0..SENDERS)
        .map(|i| tokio::spawn(sender(i % LANES, url.clone(), door.http.clone(), Arc::clone(&shared))))
        .collect();
    for round in 0..rounds {
        // Chance is what is tested here; the kill moments need no seed to be told apart.
        let chance = u64::from(std::process::id()) ^ (shared.next.load(Ordering::SeqCst) << 7) ^ (round as u64) << 3;
        let pause = chance.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 55;
        tokio::time::sleep(Duration::from_millis(20 + pause)).await;
        door.kill();
        door.launch().await;
    }
    shared.stop.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.await.unwrap();
    }
    drained(&door).await;
    (door, shared)
}

/// Waits until nothing is queued or running, for as long as it gets less: after many rounds there is much to do.
async fn drained(door: &Door) {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    loop {
        let health: Value = door.http.get(door.url("/health")).send().await.unwrap().json().await.unwrap();
        let left = health["queued"].as_u64().unwrap() + health["running"].as_u64().unwrap();
        if left == 0 {
            return;
        }
        if left < least {
            (least, since) = (left, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{left} runs are left, and it gets no less");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `calls` in the order in which the agent saw them.
async fn verify(door: &Door, shared: &Shared, calls: &[Call]) {
    let acked = shared.acked.0.lock().unwrap().clone();
    assert!(acked.len() > 20, "only {} deliveries were accepted: nothing was tested", acked.len());
    let runs = door.all("/runs").await;
    let mut per_event: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for run in &runs {
        per_event.entry(run["event_id"].as_str().unwrap()).or_default().push(run);
    }
    let called: BTreeSet<&str> = calls.iter().map(|c| c.run.as_str()).collect();
    let mut events = BTreeSet::new();
    for (n, (event, run)) in &acked {
        let made = per_event.get(event.as_str()).unwrap_or_else(|| panic!("delivery {n}: accepted, then lost"));
        assert_eq!(made.len(), 1, "delivery {n} made several runs");
        assert_eq!(made[0]["id"], run.as_str(), "delivery {n}");
        assert_eq!(made[0]["state"], "succeeded", "delivery {n}: {}", made[0]);
        assert!(called.contains(run.as_str()), "delivery {n}: succeeded without a call");
        assert!(events.insert(event.clone()), "two deliveries in one event");
    }
    let mut first: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for call in calls {
        if seen.insert(call.run.as_str()) {
            first.entry(call.key.as_deref().unwrap_or("")).or_default().push(&call.run);
        }
    }
    for (lane, order) in first {
        // Ids sort in the order of commit.
        assert!(order.is_sorted(), "order within {lane} was not kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_or_run_twice_over_kills_with_an_http_agent() {
    let agent = HttpAgent::start().await;
    let toml = format!("runner = \"http\"\nurl = \"{}\"", agent.url());
    let (door, shared) = torture(&toml, rounds(10, 200)).await;
    verify(&door, &shared, &agent.calls()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_or_run_twice_over_kills_with_a_process_agent() {
    // Appends of one short line are atomic. It lingers, so that kills find it alive.
    let script =
        "cat >/dev/null; echo \\\"$DOORBELL_RUN_ID $DOORBELL_ATTEMPT $DOORBELL_KEY\\\" >> calls; sleep 0.02; echo done";
    let toml = format!("runner = \"process\"\ncommand = [\"/bin/sh\", \"-c\", \"{script}\"]\nenv = [\"PATH\"]");
    let (door, shared) = torture(&toml, rounds(8, 150)).await;
    let text = std::fs::read_to_string(door.path().join("calls")).unwrap();
    let calls: Vec<Call> = text
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or("").to_owned();
            let (run, attempt, key) = (word(), word(), word());
            Call { run, attempt: attempt.parse().unwrap_or(0), key: Some(key), event: String::new() }
        })
        .collect();
    verify(&door, &shared, &calls).await;
    let left = descendants_of_runs(&calls);
    assert!(left.is_empty(), "processes of agents are still alive: {left:?}");
}

/// Living processes that carry one of the runs' ids in their environment.
fn descendants_of_runs(calls: &[Call]) -> Vec<u32> {
    let mut left = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(environ) = std::fs::read(entry.path().join("environ")) else { continue };
        let text = String::from_utf8_lossy(&environ);
        if calls.iter().any(|c| text.split('\0').any(|v| v.strip_prefix("DOORBELL_RUN_ID=") == Some(c.run.as_str()))) {
            left.push(pid);
        }
    }
    left
}
