//! Accepting and dedup [4-7, 11, 12].

use super::*;
use doorbell_core::event::{OnDuplicateFailed, SeenBy};
use doorbell_core::ports::{DecisionQuery, RunQuery};

pub async fn an_accepted_event_reads_back_with_its_body_and_runs(b: Bench) {
    let new = NewEvent { remote: Some("2001:db8::1".parse().unwrap()), ..keyed("k", vec![run(Some("x"), b.now())]) };
    let (id, runs) = b.stored(new.clone()).await;
    let event = b.store.event(id).await.unwrap();
    assert_eq!((event.source, event.verdict, event.event_type), (new.source, Kind::Accepted, new.event_type));
    assert_eq!((event.subject, event.remote, event.facts), (new.subject, new.remote, new.facts));
    assert_eq!((event.body, event.body_len, event.body_format), (Some(new.body), 7, 1));
    assert_eq!(event.received_at, b.now());
    let run = b.show(runs[0]).await;
    assert_eq!((run.event, run.state, run.attempt, run.lease), (id, State::Queued, 0, 0));
    assert_eq!((run.agent, run.trigger, run.source), (name("a"), name("t"), name("s")));
    assert_eq!((run.key.as_deref(), run.title.as_str(), run.event_type.as_str()), (Some("x"), "x", "push"));
    assert_eq!((run.created_at, run.due_at, run.moves.len()), (b.now(), b.now(), 1));
}

pub async fn several_events_of_one_request_get_receipts_in_order(b: Bench) {
    b.stored(keyed("2", vec![run(None, b.now())])).await;
    let two = || vec![run(None, b.now()), NewRun { trigger: name("u"), ..run(None, b.now()) }];
    let receipts = b.admit(vec![keyed("1", two()), keyed("2", two()), event(vec![])]).await.unwrap();
    assert!(matches!(&receipts[0], Receipt::Stored { runs, .. } if runs.len() == 2));
    assert!(matches!(&receipts[1], Receipt::Duplicate { runs, .. } if runs.len() == 1));
    assert!(matches!(&receipts[2], Receipt::Stored { runs, .. } if runs.is_empty()));
}

pub async fn a_redelivery_gets_the_first_ones_ids_and_state(b: Bench) {
    let (first, runs) = b.stored(keyed("k", vec![run(None, b.now())])).await;
    let work = b.take(runs[0]).await;
    b.succeed(work.lease).await;
    let receipt = b.admit(vec![keyed("k", vec![run(None, b.now())])]).await.unwrap().remove(0);
    let runs = vec![(name("t"), runs[0], State::Succeeded)];
    assert_eq!(receipt, Receipt::Duplicate { event: first, runs, by: SeenBy::Key });
}

pub async fn a_hundred_copies_at_once_make_one_run(b: Bench) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (store, at) = (b.store.clone(), b.now());
        tasks.spawn(async move {
            let admission = Admission { at, events: vec![keyed("k", vec![run(None, at)])] };
            store.accept(admission).await.unwrap().remove(0)
        });
    }
    let receipts = tasks.join_all().await;
    let stored = receipts.iter().filter_map(|r| match r {
        Receipt::Stored { event, .. } => Some(*event),
        Receipt::Duplicate { .. } => None,
    });
    let [winner] = stored.collect::<Vec<_>>()[..] else { panic!("not one winner: {receipts:?}") };
    assert!(receipts.iter().all(|r| match r {
        Receipt::Stored { .. } => true,
        Receipt::Duplicate { event, runs, .. } => *event == winner && runs.len() == 1,
    }));
    assert_eq!(b.store.runs(RunQuery::default(), all(10)).await.unwrap().items.len(), 1);
}

pub async fn of_copies_in_one_request_the_first_wins(b: Bench) {
    let copy = || keyed("k", vec![run(None, b.now())]);
    let receipts = b.admit(vec![copy(), copy(), copy()]).await.unwrap();
    let Receipt::Stored { event: first, runs } = &receipts[0] else { panic!("{receipts:?}") };
    let duplicate =
        Receipt::Duplicate { event: *first, runs: vec![(name("t"), runs[0], State::Queued)], by: SeenBy::Key };
    assert_eq!(receipts[1..], [duplicate.clone(), duplicate]);
}

pub async fn a_body_seen_within_the_replay_window_is_a_duplicate_and_after_it_is_not(b: Bench) {
    let delivery = |id: &str| NewEvent {
        dedup: Dedup { key: Some(print(id)), replay: Some((print("body"), 10 * MINUTE)), ..Dedup::default() },
        ..event(vec![run(None, b.now())])
    };
    let (first, _) = b.stored(delivery("1")).await;
    b.clock.advance(10 * MINUTE);
    let receipt = b.admit(vec![delivery("2")]).await.unwrap().remove(0);
    assert!(matches!(receipt, Receipt::Duplicate { event, by: SeenBy::Replay, .. } if event == first));
    b.clock.advance(Duration::from_millis(1));
    let (second, _) = b.stored(delivery("3")).await;
    b.clock.advance(10 * MINUTE);
    let receipt = b.admit(vec![delivery("4")]).await.unwrap().remove(0);
    assert!(matches!(receipt, Receipt::Duplicate { event, .. } if event == second));
}

pub async fn a_key_older_than_the_dedup_retention_is_no_hit(b: Bench) {
    let delivery = || keyed("k", vec![run(None, b.now())]);
    let (first, _) = b.stored(delivery()).await;
    b.clock.advance(90 * DAY);
    let receipt = b.admit(vec![delivery()]).await.unwrap().remove(0);
    assert!(matches!(receipt, Receipt::Duplicate { event, .. } if event == first));
    b.clock.advance(Duration::from_millis(1));
    let (second, _) = b.stored(delivery()).await;
    assert_ne!(first, second);
}

pub async fn a_redelivery_of_an_ignored_event_is_evaluated_afresh(b: Bench) {
    for verdict in [Kind::Ignored, Kind::FilterError] {
        b.stored(NewEvent { verdict, ..keyed("k", vec![]) }).await;
    }
    let (id, runs) = b.stored(keyed("k", vec![run(None, b.now())])).await;
    assert_eq!(runs.len(), 1);
    let receipt = b.admit(vec![NewEvent { verdict: Kind::Ignored, ..keyed("k", vec![]) }]).await.unwrap().remove(0);
    assert!(matches!(receipt, Receipt::Duplicate { event, .. } if event == id));
}

pub async fn a_redelivery_of_a_failed_event_retries_it_if_so_asked(b: Bench) {
    let (_, runs) = b.stored(keyed("k", vec![run(None, b.now())])).await;
    let work = b.take(runs[0]).await;
    b.end(work.lease, b.to(State::Failed)).await;
    let answer = b.admit(vec![keyed("k", vec![])]).await.unwrap().remove(0);
    assert!(matches!(answer, Receipt::Duplicate { runs, .. } if runs[0].2 == State::Failed));
    let mut again = keyed("k", vec![run(None, b.now())]);
    again.dedup.on_failed = OnDuplicateFailed::Retry;
    let answer = b.admit(vec![again]).await.unwrap().remove(0);
    assert!(matches!(answer, Receipt::Duplicate { runs, .. } if runs[0].2 == State::Queued));
    assert_eq!(b.take(runs[0]).await.run.attempt, 1);
}

pub async fn a_full_queue_refuses_the_whole_request(b: Bench) {
    let limited = || NewRun { max_queued: Some(2), ..run(None, b.now()) };
    b.stored(event(vec![limited()])).await;
    let refused = b.admit(vec![event(vec![limited()]), event(vec![limited()])]).await;
    assert!(matches!(refused, Err(StoreError::QueueFull { trigger, limit: 2 }) if trigger == name("t")));
    assert_eq!(b.store.events(Default::default(), all(10)).await.unwrap().items.len(), 1);
    b.stored(event(vec![limited()])).await;
    assert!(b.admit(vec![event(vec![limited()])]).await.is_err());
    // One place is free again as soon as a run leaves the queue.
    b.claim(1).await;
    b.stored(event(vec![limited()])).await;
}

pub async fn a_duplicate_does_not_count_against_a_full_queue(b: Bench) {
    let limited = || NewRun { max_queued: Some(1), ..run(None, b.now()) };
    b.stored(keyed("k", vec![limited()])).await;
    let receipt = b.admit(vec![keyed("k", vec![limited()])]).await.unwrap().remove(0);
    assert!(matches!(receipt, Receipt::Duplicate { .. }));
}

pub async fn a_duplicate_leaves_a_decision_that_names_the_first_event(b: Bench) {
    let (first, _) = b.stored(keyed("k", vec![run(None, b.now())])).await;
    b.admit(vec![keyed("k", vec![])]).await.unwrap();
    let query = DecisionQuery { kind: Some(Kind::Duplicate), ..DecisionQuery::default() };
    let decisions = b.store.decisions(query, all(10)).await.unwrap().items;
    assert_eq!(decisions.len(), 1);
    assert_eq!(decisions[0].event_id, Some(first));
    assert!(!decisions[0].checks.last().unwrap().passed);
}

pub async fn large_and_empty_bodies_come_back_as_they_were(b: Bench) {
    let noise: Vec<u8> = (0..100_000).map(|_| b.clock.random() as u8).collect();
    for body in [Vec::new(), vec![b'x'; 300_000], noise] {
        let body = Bytes::from(body);
        let (id, _) = b.stored(NewEvent { body: body.clone(), ..event(vec![]) }).await;
        let event = b.store.event(id).await.unwrap();
        assert_eq!(event.body_len, body.len() as u64);
        assert!(event.body.unwrap() == body);
    }
}
