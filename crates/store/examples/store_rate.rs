//! How fast the `SQLite` store accepts, claims and finishes on this machine. Run with
//! `cargo run --release --example store_rate -- [DIRECTORY] [SECONDS]`; every event has a 2 KB body and two fingerprints.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a measuring tool")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use doorbell_core::decision::{Check, Kind};
use doorbell_core::event::{Admission, Dedup, Facts, Fingerprint, KeyKind, NewEvent};
use doorbell_core::lane::{LaneId, LaneOf};
use doorbell_core::ports::{Claim, Store};
use doorbell_core::run::{Counts, LaneEffect, NewRun, State, Transition};
use doorbell_core::{Clock, Name};
use doorbell_store::{SqliteOptions, SqliteStore};

/// A body like a code host's: JSON that compresses to about a third.
fn body(n: u64) -> Bytes {
    let mut text =
        format!(r#"{{"action":"opened","number":{n},"repository":{{"full_name":"octo/repo-{}"}},"items":["#, n % 97);
    let mut word = n;
    while text.len() < 1990 {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text += &format!(r#"{{"id":{},"url":"https://api.example.com/x/{}"}},"#, word >> 40, word >> 50);
    }
    text += "null]}";
    Bytes::from(text)
}

fn event(n: u64, clock: &Clock, keyed: bool, names: &[Name; 3]) -> Admission {
    let [source, agent, trigger] = names;
    let key = keyed.then(|| format!("octo/repo#{}", n % 10_000));
    let now = clock.now();
    let digest = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let new = NewEvent {
        verdict: Kind::Accepted,
        source: source.clone(),
        event_type: "pull_request".into(),
        subject: Some("octo/repo#7".into()),
        remote: Some([192, 0, 2, 1].into()),
        facts: Facts {
            sender_id: Some(format!("72d3162e-cc78-11e3-81ab-{n:012}")),
            verified_by: Some("github hmac-sha256, secret 1".into()),
            headers: vec![
                ("content-type".into(), "application/json".into()),
                ("user-agent".into(), "GitHub-Hookshot/044aadd".into()),
                ("x-github-event".into(), "pull_request".into()),
            ],
            checks: vec![Check::passed("address"), Check::passed("signature"), Check::passed("rate_limit")],
            ..Facts::default()
        },
        dedup: Dedup {
            key: Some(Fingerprint::of(source, KeyKind::Id, &n.to_le_bytes())),
            replay: Some((Fingerprint::of(source, KeyKind::Digest, &digest), Duration::from_secs(600))),
            ..Dedup::default()
        },
        body_format: 1,
        body: body(n),
        runs: vec![NewRun {
            agent: agent.clone(),
            trigger: trigger.clone(),
            lane: key.as_ref().map(|key| LaneId::of(agent, LaneOf::Trigger(trigger), key)),
            key,
            title: "Review pull request 7 of octo/repo".into(),
            due_at: now,
            max_queued: None,
            flag: None,
        }],
    };
    Admission { at: now, events: vec![new] }
}

/// CPU seconds of the threads of this process, by name.
fn cpu() -> Vec<(String, f64)> {
    let mut list = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let (name, rest) = (stat.split(['(', ')']).nth(1).unwrap().to_owned(), stat.rsplit(')').next().unwrap());
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        list.push((name, ticks / 100.0));
    }
    list
}

fn cpu_of(name: &str) -> f64 {
    cpu().iter().filter(|(n, _)| n.starts_with(name)).map(|(_, s)| s).sum()
}

struct World {
    store: Arc<SqliteStore>,
    clock: Clock,
    names: [Name; 3],
    next: Arc<AtomicU64>,
}

impl World {
    async fn accept_for(&self, tasks: usize, keyed: bool, time: Duration) -> f64 {
        let begun = Instant::now();
        let writer = (cpu_of("doorbell-writer"), cpu_of("doorbell-checkp"), cpu_of("tokio"));
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..tasks {
            let (store, clock, names, next) =
                (self.store.clone(), self.clock.clone(), self.names.clone(), self.next.clone());
            set.spawn(async move {
                let mut slowest = Duration::ZERO;
                let mut count = 0u64;
                while begun.elapsed() < time {
                    let admission = event(next.fetch_add(1, Ordering::Relaxed), &clock, keyed, &names);
                    let sent = Instant::now();
                    store.accept(admission).await.unwrap();
                    slowest = slowest.max(sent.elapsed());
                    count += 1;
                }
                (count, slowest)
            });
        }
        let done = set.join_all().await;
        let (count, slowest) = (done.iter().map(|d| d.0).sum::<u64>() as f64, done.iter().map(|d| d.1).max().unwrap());
        let seconds = begun.elapsed().as_secs_f64();
        let each = |name, before| (cpu_of(name) - before) * 1e6 / count;
        println!(
            "accept {tasks:>4} tasks {}: {:>7.0}/s, slowest {:>5.1} ms, cpu us each: writer {:.1} checkpoint {:.1} tasks {:.1}",
            if keyed { "keyed  " } else { "unkeyed" },
            count / seconds,
            slowest.as_secs_f64() * 1e3,
            each("doorbell-writer", writer.0),
            each("doorbell-checkp", writer.1),
            each("tokio", writer.2),
        );
        count / seconds
    }

    async fn fill(&self, to: u64, keyed: bool) {
        while self.next.load(Ordering::Relaxed) < to {
            let mut set = tokio::task::JoinSet::new();
            for _ in 0..64 {
                let first = event(self.next.fetch_add(1, Ordering::Relaxed), &self.clock, keyed, &self.names);
                let mut events = first.events;
                for _ in 0..99 {
                    events.extend(
                        event(self.next.fetch_add(1, Ordering::Relaxed), &self.clock, keyed, &self.names).events,
                    );
                }
                let store = self.store.clone();
                let at = first.at;
                set.spawn(async move { store.accept(Admission { at, events }).await.unwrap() });
            }
            set.join_all().await;
        }
    }

    async fn work_for(&self, time: Duration) {
        let begun = Instant::now();
        let writer = cpu_of("doorbell-writer");
        let mut count = 0u64;
        while begun.elapsed() < time {
            let now = self.clock.now();
            let claim = Claim {
                now,
                lease_until: now + Duration::from_secs(60),
                holder: 1,
                limit: 64,
                agents: vec![(self.names[1].clone(), 1000)],
                triggers: vec![(self.names[2].clone(), 1000)],
            };
            let work = self.store.claim(claim).await.unwrap().work;
            if work.is_empty() {
                break;
            }
            let mut set = tokio::task::JoinSet::new();
            for item in work {
                let store = self.store.clone();
                let transition = Transition {
                    to: State::Succeeded,
                    due_at: now,
                    counts: Counts::Yes,
                    lane: LaneEffect::Release,
                    why: None,
                    error: None,
                    output: Some(Bytes::from_static(b"done")),
                    steps: None,
                    usage: Default::default(),
                    approval: None,
                };
                set.spawn(async move { store.finish(item.lease, transition, now).await.unwrap() });
            }
            count += set.join_all().await.len() as u64;
        }
        let each = (cpu_of("doorbell-writer") - writer) * 1e6 / count.max(1) as f64;
        println!(
            "claim + finish, 64 at a time: {:.0}/s, writer {each:.1} us each",
            count as f64 / begun.elapsed().as_secs_f64()
        );
    }
}

fn open(directory: &std::path::Path, file: &str) -> World {
    let clock = Clock::system();
    let path = directory.join(file);
    let store = SqliteStore::open(path, SqliteOptions::default(), &clock).unwrap();
    let names = [Name::new("github").unwrap(), Name::new("reviewer").unwrap(), Name::new("prs").unwrap()];
    World { store, clock, names, next: Arc::new(AtomicU64::new(1)) }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| "target/store-rate".into()));
    let time = Duration::from_secs(arguments.next().and_then(|s| s.parse().ok()).unwrap_or(5));
    let fill: u64 = arguments.next().and_then(|s| s.parse().ok()).unwrap_or(1_000_000);
    std::fs::create_dir_all(&directory).unwrap();
    for keyed in [false, true] {
        let file = format!("rate-{}-{keyed}.db", std::process::id());
        let world = open(&directory, &file);
        println!("-- empty store");
        for tasks in [1, 64, 256] {
            world.accept_for(tasks, keyed, time).await;
        }
        world.work_for(time).await;
        for queued in [200_000, fill] {
            world.fill(queued, keyed).await;
            println!("-- {queued} accepted");
            world.accept_for(64, keyed, time).await;
            world.work_for(time).await;
        }
        world.store.close().await;
        let size = std::fs::metadata(directory.join(&file)).unwrap().len();
        println!("file: {:.0} bytes an event", size as f64 / world.next.load(Ordering::Relaxed) as f64);
        for suffix in ["", "-wal", "-shm", ".lock", ".reserve"] {
            let _ = std::fs::remove_file(directory.join(format!("{file}{suffix}")));
        }
    }
}
