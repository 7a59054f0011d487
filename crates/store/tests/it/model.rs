//! Any series of calls leaves `SQLite` and the reference in the same state, and gives the same answers on the way.

use std::sync::Arc;
use std::time::Duration;

use doorbell_core::decision::Kind;
use doorbell_core::event::{Admission, Dedup, NewEvent, OnDuplicateFailed, Receipt};
use doorbell_core::lane::{LaneId, LaneOf};
use doorbell_core::ports::{Claim, PageFrom, PageRequest, Retention, RunQuery, Stale, Store};
use doorbell_core::run::{Counts, LaneEffect, Lease, NewRun, State, Transition};
use doorbell_core::{Clock, EventId, RunId};
use doorbell_store::conformance::{DAY, all, clock, event, name, print, run};
use doorbell_store::{MemoryStore, SqliteOptions, SqliteStore};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Arrival {
    key: Option<u8>,
    body: Option<u8>,
    accepted: bool,
    retry_failed: bool,
    lanes: Vec<(Option<u8>, bool, u8)>,
    max_queued: Option<u32>,
}

#[derive(Clone, Debug)]
enum Call {
    Accept(Vec<Arrival>),
    Claim { limit: usize, free_a: u32, free_t: u32, free_u: u32 },
    Finish { which: usize, to: u8, hold: bool, delay_s: u8, counts: bool },
    Renew { which: usize },
    Defer { which: usize },
    Cancel { which: usize },
    Retry { which: usize },
    Replay { which: usize, lane: Option<u8> },
    Stale { dead: bool },
    Advance { seconds: u32 },
    Sweep,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let key = || prop::option::of(0u8..4);
    let lanes = prop::collection::vec((prop::option::weighted(0.8, 0u8..3), any::<bool>(), 0u8..20), 1..3);
    (key(), key(), prop::bool::weighted(0.85), any::<bool>(), lanes, prop::option::weighted(0.2, 1u32..8)).prop_map(
        |(key, body, accepted, retry_failed, lanes, max_queued)| Arrival {
            key,
            body,
            accepted,
            retry_failed,
            lanes,
            max_queued,
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    let which = || 0usize..64;
    prop_oneof![
        4 => prop::collection::vec(arrival(), 1..3).prop_map(Call::Accept),
        6 => (1usize..4, 0u32..4, 0u32..4, 0u32..4)
            .prop_map(|(limit, free_a, free_t, free_u)| Call::Claim { limit, free_a, free_t, free_u }),
        8 => (which(), 0u8..6, any::<bool>(), 0u8..30, any::<bool>())
            .prop_map(|(which, to, hold, delay_s, counts)| Call::Finish { which, to, hold, delay_s, counts }),
        1 => which().prop_map(|which| Call::Renew { which }),
        1 => which().prop_map(|which| Call::Defer { which }),
        2 => which().prop_map(|which| Call::Cancel { which }),
        2 => which().prop_map(|which| Call::Retry { which }),
        1 => (which(), prop::option::of(0u8..3)).prop_map(|(which, lane)| Call::Replay { which, lane }),
        1 => any::<bool>().prop_map(|dead| Call::Stale { dead }),
        4 => prop_oneof![5 => 0u32..40, 1 => Just(200_000u32)].prop_map(|seconds| Call::Advance { seconds }),
        1 => Just(Call::Sweep),
    ]
}

/// One store with what its caller remembers.
struct Side {
    store: Arc<dyn Store>,
    clock: Clock,
    leases: Vec<Lease>,
    events: Vec<EventId>,
}

fn pick<T: Copy>(list: &[T], which: usize) -> Option<T> {
    // The latest are the likeliest to matter.
    list.iter().rev().nth(which % list.len().max(1)).copied()
}

fn retention() -> Retention {
    Retention { events: 3 * DAY, ignored: DAY, decisions: 2 * DAY, dedup: 5 * DAY, ring: 5 }
}

impl Side {
    fn new_run(&self, lane: Option<u8>, u: bool, delay_s: u8) -> NewRun {
        let trigger = name(if u { "u" } else { "t" });
        let key = lane.map(|lane| format!("lane {lane}"));
        // Lanes are shared by both triggers.
        let id = key.as_ref().map(|key| LaneId::of(&name("a"), LaneOf::Shared("s"), key));
        let due = self.clock.now() + Duration::from_secs(delay_s.saturating_sub(10).into());
        NewRun { trigger, lane: id, ..run(key.as_deref(), due) }
    }

    async fn carry_out(&mut self, call: &Call) -> String {
        let now = self.clock.now();
        let store = self.store.clone();
        let run_at = |which: usize, most: u64| RunId::new(1 + which as u64 % most, store.tag());
        match call {
            Call::Accept(arrivals) => {
                let events = arrivals.iter().map(|arrival| self.arrive(arrival)).collect();
                let receipts = store.accept(Admission { at: now, events }).await;
                for receipt in receipts.iter().flatten() {
                    if let Receipt::Stored { event, .. } = receipt {
                        self.events.push(*event);
                    }
                }
                format!("{receipts:?}")
            }
            Call::Claim { limit, free_a, free_t, free_u } => {
                let claim = Claim {
                    now,
                    lease_until: now + Duration::from_secs(60),
                    holder: 7,
                    limit: *limit,
                    agents: vec![(name("a"), *free_a)],
                    triggers: vec![(name("t"), *free_t), (name("u"), *free_u)],
                };
                let claimed = store.claim(claim).await.unwrap();
                self.leases.extend(claimed.work.iter().map(|work| work.lease));
                format!("{claimed:?}")
            }
            Call::Finish { which, to, hold, delay_s, counts } => {
                let Some(lease) = pick(&self.leases, *which % 5) else { return String::new() };
                let transition = Transition {
                    to: State::from_code(if *to == 1 { 3 } else { *to }).unwrap(),
                    due_at: now + Duration::from_secs((*delay_s).into()),
                    counts: if *counts { Counts::Yes } else { Counts::No },
                    lane: if *hold { LaneEffect::Hold } else { LaneEffect::Release },
                    why: Some("why".into()),
                    error: (*to == 4).then(|| "error".into()),
                    output: (*to == 3).then(|| "output".into()),
                    steps: None,
                    usage: Default::default(),
                    approval: None,
                };
                format!("{:?}", store.finish(lease, transition, now).await)
            }
            Call::Renew { which } => {
                let Some(lease) = pick(&self.leases, *which) else { return String::new() };
                format!("{:?}", store.renew(vec![lease], now + Duration::from_secs(90)).await)
            }
            Call::Defer { which } => {
                let Some(lease) = pick(&self.leases, *which % 5) else { return String::new() };
                format!("{:?}", store.defer(lease, now + Duration::from_secs(600)).await)
            }
            Call::Cancel { which } => format!("{:?}", store.cancel(run_at(*which, 30), "me".into(), now).await),
            Call::Retry { which } => format!("{:?}", store.retry(run_at(*which, 30), "me".into(), now).await),
            Call::Replay { which, lane } => {
                let Some(event) = pick(&self.events, *which) else { return String::new() };
                format!("{:?}", store.replay(event, vec![self.new_run(*lane, false, 0)], now).await)
            }
            Call::Stale { dead: true } => format!("{:?}", store.stale(Stale::NotHeldBy(8), 5).await),
            Call::Stale { dead: false } => format!("{:?}", store.stale(Stale::LapsedBefore(now), 5).await),
            Call::Advance { seconds } => {
                self.clock.advance(Duration::from_secs((*seconds).into()));
                String::new()
            }
            Call::Sweep => {
                let (mut events, mut runs, mut decisions) = (0, 0, 0);
                loop {
                    // Prints past their time may be deleted later: they are no hits meanwhile.
                    let swept = store.sweep(retention(), now).await.unwrap();
                    events += swept.events;
                    runs += swept.runs;
                    decisions += swept.decisions;
                    if !swept.more {
                        return format!("{events} {runs} {decisions}");
                    }
                }
            }
        }
    }

    fn arrive(&self, arrival: &Arrival) -> NewEvent {
        let runs = arrival
            .lanes
            .iter()
            .map(|(lane, u, delay_s)| NewRun { max_queued: arrival.max_queued, ..self.new_run(*lane, *u, *delay_s) });
        NewEvent {
            verdict: if arrival.accepted { Kind::Accepted } else { Kind::Ignored },
            dedup: Dedup {
                key: arrival.key.map(|key| print(&format!("key {key}"))),
                replay: arrival.body.map(|body| (print(&format!("body {body}")), Duration::from_secs(30))),
                on_failed: if arrival.retry_failed { OnDuplicateFailed::Retry } else { OnDuplicateFailed::Answer },
            },
            ..event(if arrival.accepted { runs.collect() } else { vec![] })
        }
    }

    async fn everything(&self) -> String {
        let store = &self.store;
        let mut text = format!(
            "{:#?}{:#?}{:#?}",
            store.events(Default::default(), all(500)).await.unwrap(),
            store.decisions(Default::default(), all(500)).await.unwrap(),
            // A queue whose runs are all gone is not told of by the reference.
            store
                .stats()
                .await
                .unwrap()
                .into_iter()
                .filter(|s| s.queued + s.running + s.waiting > 0)
                .collect::<Vec<_>>(),
        );
        let runs = store.runs(RunQuery::default(), all(500)).await.unwrap().items;
        for run in &runs {
            text += &format!("{:#?}", store.run(run.id).await.unwrap());
        }
        let waiting = RunQuery { states: vec![State::Waiting], ..RunQuery::default() };
        let page = PageRequest { limit: 3, from: PageFrom::After(2) };
        text + &format!("{:#?}", store.runs(waiting, page).await.unwrap())
    }
}

/// With one thread every admission goes through the queue; with two, who comes alone goes to the desk.
fn runtime(threads: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_series_of_calls_means_the_same_in_sqlite_and_in_memory(
        calls in prop::collection::vec(call(), 1..80),
        threads in 1..=2usize,
    ) {
        runtime(threads).block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let side = |store: Arc<dyn Store>, clock| Side { store, clock, leases: vec![], events: vec![] };
            let (one, two) = (clock(), clock());
            let mut reference = side(MemoryStore::new(&one), one);
            let options = SqliteOptions { reserve_bytes: 0, retention: retention(), ..SqliteOptions::default() };
            let path = directory.path().join("d.db");
            let mut sqlite = side(SqliteStore::open(&path, options.clone(), &two).unwrap(), two);
            reference.store.sweep(retention(), reference.clock.now()).await.unwrap();
            for call in &calls {
                let (said, expected) = (sqlite.carry_out(call).await, reference.carry_out(call).await);
                prop_assert_eq!(said, expected, "after {:?}", call);
            }
            let (is, expected) = (sqlite.everything().await, reference.everything().await);
            prop_assert_eq!(&is, &expected);
            // What is in memory follows from what is on disk.
            sqlite.store.close().await;
            sqlite.store = SqliteStore::open(&path, options, &sqlite.clock).unwrap();
            prop_assert_eq!(&sqlite.everything().await, &expected);
            let claim = Call::Claim { limit: 9, free_a: 9, free_t: 9, free_u: 9 };
            prop_assert_eq!(sqlite.carry_out(&claim).await, reference.carry_out(&claim).await);
            sqlite.store.close().await;
            Ok(())
        })?;
    }
}
