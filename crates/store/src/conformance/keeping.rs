//! Lists, decisions and retention [4, 7].

use super::*;
use doorbell_core::decision::{Check, NewDecision};
use doorbell_core::ports::{DecisionQuery, EventQuery, Retention, RunQuery, Swept};

/// Sweeps until nothing is left to do.
async fn sweep(b: &Bench, retention: Retention) -> Swept {
    let mut sum = Swept::default();
    loop {
        let swept = b.store.sweep(retention, b.now()).await.unwrap();
        sum.events += swept.events;
        sum.runs += swept.runs;
        sum.decisions += swept.decisions;
        sum.dedup += swept.dedup;
        if !swept.more {
            return sum;
        }
    }
}

fn refusal(b: &Bench, source: Option<&str>, reason: &str) -> NewDecision {
    NewDecision {
        at: b.now(),
        source: source.map(name),
        kind: Kind::Rejected,
        code: "signature_mismatch".into(),
        reason: reason.to_owned().into(),
        checks: vec![Check::failed("signature", "a signature that fits", "another")],
        event: None,
        remote: Some([192, 0, 2, 9].into()),
    }
}

pub async fn lists_are_newest_first_and_page_both_ways(b: Bench) {
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.insert(0, b.queue(None).await);
    }
    let page = async |from| {
        let page = b.store.runs(RunQuery::default(), PageRequest { limit: 3, from }).await.unwrap();
        (page.items.iter().map(|run| run.id).collect::<Vec<_>>(), page.next, page.prev)
    };
    let (first, next, prev) = page(PageFrom::Start).await;
    assert_eq!((&first[..], prev), (&ids[..3], None));
    let (second, next, prev) = page(PageFrom::Before(next.unwrap())).await;
    assert_eq!(second, ids[3..6]);
    assert_eq!(page(PageFrom::After(prev.unwrap())).await.0, first);
    let (third, next, prev) = page(PageFrom::Before(next.unwrap())).await;
    assert_eq!((&third[..], next), (&ids[6..], None));
    let (back, _, further) = page(PageFrom::After(prev.unwrap())).await;
    assert_eq!(back, second);
    assert_eq!(page(PageFrom::After(further.unwrap())).await.0, first);
    // Those nearest to the place, not the newest of all.
    assert_eq!(page(PageFrom::After(ids[6].seq)).await.0, ids[3..6]);
    assert_eq!(page(PageFrom::After(ids[3].seq)).await.2, None);
}

pub async fn lists_can_be_filtered(b: Bench) {
    let a = b.stored(NewEvent { event_type: "issues".into(), ..event(vec![run(Some("Key"), b.now())]) }).await;
    b.clock.advance(MINUTE);
    let later = b.now();
    let u = NewRun { trigger: name("u"), agent: name("b"), title: "Review #7".into(), ..run(None, later) };
    let c = b.stored(NewEvent { source: name("other"), ..event(vec![u]) }).await;
    let d = b.stored(event(vec![])).await.0;
    let work = b.take(a.1[0]).await;
    b.end(work.lease, b.to(State::Failed)).await;
    let events = async |query| -> Vec<EventId> {
        b.store.events(query, all(10)).await.unwrap().items.iter().map(|e| e.id).collect()
    };
    let no_event = EventQuery::default;
    assert_eq!(events(EventQuery { source: Some(name("other")), ..no_event() }).await, [c.0]);
    assert_eq!(events(EventQuery { source: Some(name("never-seen")), ..no_event() }).await, []);
    assert_eq!(events(EventQuery { event_type: Some("issues".into()), ..no_event() }).await, [a.0]);
    assert_eq!(events(EventQuery { verdict: Some(Kind::Ignored), ..no_event() }).await, [d]);
    assert_eq!(events(EventQuery { since: Some(later), ..no_event() }).await, [d, c.0]);
    assert_eq!(events(EventQuery { until: Some(later), ..no_event() }).await, [a.0]);
    assert_eq!(events(EventQuery { q: Some("ISSUE".into()), ..no_event() }).await, [a.0]);
    assert_eq!(events(EventQuery { q: Some("d-1".into()), ..no_event() }).await, [d, c.0, a.0]);
    let runs = async |query| -> Vec<RunId> {
        b.store.runs(query, all(10)).await.unwrap().items.iter().map(|r| r.id).collect()
    };
    let no_run = RunQuery::default;
    let (first, second) = (a.1[0], c.1[0]);
    assert_eq!(runs(RunQuery { agent: Some(name("b")), ..no_run() }).await, [second]);
    assert_eq!(runs(RunQuery { triggers: vec![name("t"), name("x")], ..no_run() }).await, [first]);
    assert_eq!(runs(RunQuery { states: vec![State::Failed], ..no_run() }).await, [first]);
    assert_eq!(runs(RunQuery { states: vec![State::Failed, State::Queued], ..no_run() }).await, [second, first]);
    assert_eq!(runs(RunQuery { event_type: Some("issues".into()), ..no_run() }).await, [first]);
    assert_eq!(runs(RunQuery { since: Some(later), ..no_run() }).await, [second]);
    assert_eq!(runs(RunQuery { q: Some("#7".into()), ..no_run() }).await, [second]);
    assert_eq!(runs(RunQuery { q: Some("key".into()), ..no_run() }).await, [first]);
}

pub async fn lists_carry_no_bodies_and_no_outputs(b: Bench) {
    let id = b.queue(None).await;
    let work = b.take(id).await;
    b.succeed(work.lease).await;
    assert_eq!(b.store.runs(RunQuery::default(), all(1)).await.unwrap().items[0].output, None);
    let events = b.store.events(EventQuery::default(), all(1)).await.unwrap().items;
    assert_eq!((events[0].body.clone(), events[0].body_len), (None, 7));
}

pub async fn decisions_of_events_and_others_are_one_list(b: Bench) {
    let (accepted, _) = b.stored(keyed("k", vec![run(None, b.now())])).await;
    b.store.record(refusal(&b, None, "no such way in")).await.unwrap();
    let mut ignored = event(vec![]);
    ignored.facts.reason = Some("no trigger wanted it".into());
    let (ignored, _) = b.stored(ignored).await;
    b.admit(vec![keyed("k", vec![])]).await.unwrap();
    let list = async |query| b.store.decisions(query, all(10)).await.unwrap().items;
    let everything = list(DecisionQuery::default()).await;
    let seen: Vec<_> = everything.iter().map(|d| (d.kind, d.event_id)).collect();
    let expected = [
        (Kind::Duplicate, Some(accepted)),
        (Kind::Ignored, Some(ignored)),
        (Kind::Rejected, None),
        (Kind::Accepted, Some(accepted)),
    ];
    assert_eq!(seen, expected);
    assert_eq!(everything[1].reason, "no trigger wanted it");
    assert_eq!((everything[2].code.as_str(), everything[2].checks.len()), ("signature_mismatch", 1));
    let of_event = DecisionQuery { event: Some(accepted), ..DecisionQuery::default() };
    assert_eq!(list(of_event).await.len(), 2);
    let found = list(DecisionQuery { q: Some("way in".into()), ..DecisionQuery::default() }).await;
    assert_eq!(found.len(), 1);
    assert_eq!(list(DecisionQuery { source: Some(name("s")), ..DecisionQuery::default() }).await.len(), 3);
    let page = PageRequest { limit: 2, from: PageFrom::Start };
    let first = b.store.decisions(DecisionQuery::default(), page).await.unwrap();
    let page = PageRequest { limit: 2, from: PageFrom::Before(first.next.unwrap()) };
    let second = b.store.decisions(DecisionQuery::default(), page).await.unwrap();
    assert_eq!((second.items[0].kind, second.next), (Kind::Rejected, None));
    let page = PageRequest { limit: 2, from: PageFrom::After(second.prev.unwrap()) };
    assert_eq!(b.store.decisions(DecisionQuery::default(), page).await.unwrap().items, first.items);
}

pub async fn noted_decisions_arrive_and_keep_to_their_ring(b: Bench) {
    for n in 0..30 {
        b.store.note(refusal(&b, Some("s"), &format!("number {n}")));
        b.store.note(refusal(&b, None, "no such way in"));
    }
    b.store.record(refusal(&b, Some("s"), "recorded")).await.unwrap();
    let list = async |source: Option<&str>| {
        let query = DecisionQuery { source: source.map(name), ..DecisionQuery::default() };
        b.store.decisions(query, all(100)).await.unwrap().items
    };
    // A commit of our own takes the notes along, or comes after them.
    b.store.record(refusal(&b, Some("s"), "recorded")).await.unwrap();
    assert_eq!(list(None).await.len(), 62);
    let swept = sweep(&b, Retention { ring: 10, ..Retention::default() }).await;
    assert_eq!(swept.decisions, 40);
    let left = list(Some("s")).await;
    assert_eq!(left.iter().filter(|d| d.reason == "recorded").count(), 2);
    assert!(left.iter().any(|d| d.reason == "number 29") && !left.iter().any(|d| d.reason == "number 19"));
}

pub async fn a_sweep_takes_old_events_with_their_final_runs(b: Bench) {
    let (id, runs) = b.stored(keyed("k", vec![run(None, b.now())])).await;
    let work = b.take(runs[0]).await;
    b.succeed(work.lease).await;
    b.store.record(refusal(&b, None, "old")).await.unwrap();
    b.clock.advance(30 * DAY);
    let (young, _) = b.stored(event(vec![run(None, b.now())])).await;
    assert_eq!(sweep(&b, Retention::default()).await.events, 0);
    b.clock.advance(Duration::from_millis(1));
    let swept = sweep(&b, Retention::default()).await;
    assert_eq!((swept.events, swept.runs), (1, 1));
    assert!(matches!(b.store.event(id).await, Err(StoreError::NotFound(_))));
    assert!(matches!(b.store.run(runs[0]).await, Err(StoreError::NotFound(_))));
    b.store.event(young).await.unwrap();
    assert_eq!(b.store.decisions(DecisionQuery::default(), all(10)).await.unwrap().items.len(), 1);
}

pub async fn a_sweep_keeps_unfinished_runs_and_their_events(b: Bench) {
    let (queued, runs) = b.stored(event(vec![run(None, b.now()), run(None, b.now())])).await;
    let work = b.take(runs[0]).await;
    b.succeed(work.lease).await;
    let (ignored, _) = b.stored(event(vec![])).await;
    b.store.replay(ignored, vec![run(None, b.now())], b.now()).await.unwrap();
    b.clock.advance(400 * DAY);
    assert_eq!(sweep(&b, Retention::default()).await.events, 0);
    b.store.event(queued).await.unwrap();
    assert_eq!(b.state(runs[0]).await, State::Succeeded);
    for work in b.claim(10).await.work {
        b.succeed(work.lease).await;
    }
    assert_eq!(sweep(&b, Retention::default()).await.events, 2);
}

pub async fn ignored_events_go_earlier(b: Bench) {
    b.queue(None).await;
    let (ignored, _) = b.stored(event(vec![])).await;
    b.clock.advance(3 * DAY + Duration::from_millis(1));
    assert_eq!(sweep(&b, Retention::default()).await.events, 1);
    assert!(b.store.event(ignored).await.is_err());
}

pub async fn dedup_keys_outlive_events(b: Bench) {
    let (id, runs) = b.stored(keyed("k", vec![run(None, b.now())])).await;
    let work = b.take(runs[0]).await;
    b.succeed(work.lease).await;
    b.clock.advance(31 * DAY);
    assert_eq!(sweep(&b, Retention::default()).await.events, 1);
    let receipt = b.admit(vec![keyed("k", vec![run(None, b.now())])]).await.unwrap().remove(0);
    assert!(matches!(receipt, Receipt::Duplicate { event, runs, .. } if event == id && runs.is_empty()));
    b.clock.advance(100 * DAY);
    assert_eq!(sweep(&b, Retention::default()).await.dedup, 1);
}

pub async fn numbers_are_not_given_again_after_a_sweep(b: Bench) {
    let (event_id, runs) = b.stored(event(vec![run(None, b.now())])).await;
    let work = b.take(runs[0]).await;
    b.succeed(work.lease).await;
    b.clock.advance(31 * DAY);
    sweep(&b, Retention::default()).await;
    let (next, next_runs) = b.stored(event(vec![run(None, b.now())])).await;
    assert!(next > event_id && next_runs[0] > runs[0]);
}
