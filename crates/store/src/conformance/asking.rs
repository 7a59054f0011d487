//! What people ask for: cancel, retry, replay, flags; and what waiters are told.

use super::*;
use doorbell_core::ports::{EventQuery, Flag, Notice, RunQuery};

pub async fn cancelling_a_queued_or_waiting_run_ends_it_at_once(b: Bench) {
    let id = b.queue(None).await;
    assert_eq!(b.store.cancel(id, "me".into(), b.now()).await.unwrap(), State::Cancelled);
    let run = b.show(id).await;
    assert_eq!((run.state, run.finished_at), (State::Cancelled, Some(b.now())));
    assert_eq!(run.moves.last().unwrap().why.as_deref(), Some("cancelled by me"));
    assert!(b.claim_ids(10).await.is_empty());
    let id = b.queue(None).await;
    let work = b.take(id).await;
    b.end(work.lease, b.waiting(LaneEffect::Hold)).await;
    assert_eq!(b.show(id).await.approval.unwrap().title, "may I?");
    assert_eq!(b.store.cancel(id, "me".into(), b.now()).await.unwrap(), State::Cancelled);
    assert_eq!(b.show(id).await.approval, None);
}

pub async fn cancelling_a_running_run_asks_its_attempt_to_end(b: Bench) {
    let id = b.queue(Some("x")).await;
    let next = b.queue(Some("x")).await;
    let work = b.take(id).await;
    let mut notices = b.store.notices();
    assert_eq!(b.store.cancel(id, "me".into(), b.now()).await.unwrap(), State::Running);
    assert_eq!(notices.recv().await.unwrap(), Notice::CancelAsked(id));
    assert!(b.show(id).await.cancelling);
    assert!(b.claim_ids(10).await.is_empty());
    b.end(work.lease, b.to(State::Cancelled)).await;
    let run = b.show(id).await;
    assert_eq!((run.state, run.cancelling), (State::Cancelled, false));
    b.take(next).await;
}

pub async fn a_cancelled_attempt_does_not_come_back_as_a_retry(b: Bench) {
    let id = b.queue(None).await;
    let work = b.take(id).await;
    b.store.cancel(id, "me".into(), b.now()).await.unwrap();
    b.end(work.lease, b.again(Duration::ZERO, LaneEffect::Hold)).await;
    assert_eq!(b.state(id).await, State::Cancelled);
}

pub async fn an_ended_run_cannot_be_cancelled(b: Bench) {
    let id = b.queue(None).await;
    let work = b.take(id).await;
    b.succeed(work.lease).await;
    let refused = b.store.cancel(id, "me".into(), b.now()).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))));
    let id = b.queue(None).await;
    for _ in 0..2 {
        assert_eq!(b.store.cancel(id, "me".into(), b.now()).await.unwrap(), State::Cancelled);
    }
    assert_eq!(b.show(id).await.moves.len(), 2);
}

pub async fn only_a_failed_or_cancelled_run_can_be_retried(b: Bench) {
    let id = b.queue(None).await;
    let refused = b.store.retry(id, "me".into(), b.now()).await;
    assert!(matches!(refused, Err(StoreError::Conflict(_))));
    let work = b.take(id).await;
    assert!(b.store.retry(id, "me".into(), b.now()).await.is_err());
    b.succeed(work.lease).await;
    assert!(b.store.retry(id, "me".into(), b.now()).await.is_err());
    let id = b.queue(None).await;
    b.store.cancel(id, "me".into(), b.now()).await.unwrap();
    b.store.retry(id, "me".into(), b.now()).await.unwrap();
    b.take(id).await;
}

pub async fn a_retried_run_has_fresh_attempts(b: Bench) {
    let id = b.queue(None).await;
    let work = b.take(id).await;
    b.end(work.lease, b.to(State::Failed)).await;
    b.clock.advance(MINUTE);
    b.store.retry(id, "me".into(), b.now()).await.unwrap();
    let run = b.show(id).await;
    assert_eq!((run.state, run.attempt, run.finished_at, run.due_at), (State::Queued, 0, None, b.now()));
    let work = b.take(id).await;
    assert_eq!((work.run.attempt, work.lease.token), (1, 2));
}

pub async fn a_replay_makes_new_runs_of_the_stored_event(b: Bench) {
    let (id, first) = b.stored(event(vec![run(Some("x"), b.now())])).await;
    let (ignored, _) = b.stored(event(vec![])).await;
    let replayed = b.store.replay(id, vec![run(Some("x"), b.now())], b.now()).await.unwrap();
    assert_ne!(replayed, first);
    let of_event = RunQuery { event: Some(id), ..RunQuery::default() };
    let runs = b.store.runs(of_event, all(10)).await.unwrap().items;
    assert_eq!(runs.iter().map(|r| r.id).collect::<Vec<_>>(), [replayed[0], first[0]]);
    let work = b.take(first[0]).await;
    b.succeed(work.lease).await;
    assert_eq!(b.take(replayed[0]).await.event.id, id);
    let woken = b.store.replay(ignored, vec![run(None, b.now())], b.now()).await.unwrap();
    assert_eq!(b.take(woken[0]).await.event.id, ignored);
    let full = NewRun { max_queued: Some(0), ..run(None, b.now()) };
    assert!(matches!(b.store.replay(id, vec![full], b.now()).await, Err(StoreError::QueueFull { .. })));
}

pub async fn flags_are_kept(b: Bench) {
    assert!(b.store.flags().await.unwrap().is_empty());
    let mut notices = b.store.notices();
    let (paused, disabled) = (Flag::AgentPaused(name("a")), Flag::TriggerDisabled(name("t")));
    b.store.set_flag(disabled.clone(), true, b.now()).await.unwrap();
    assert_eq!(notices.recv().await.unwrap(), Notice::Flags);
    b.store.set_flag(paused.clone(), true, b.now()).await.unwrap();
    b.store.set_flag(paused.clone(), false, b.now()).await.unwrap();
    assert_eq!(b.store.flags().await.unwrap(), [(paused, false), (disabled, true)]);
}

pub async fn what_is_not_there_is_not_found(b: Bench) {
    let (event, runs) = b.stored(event(vec![run(None, b.now())])).await;
    let elsewhere = doorbell_core::StoreTag::new(b.store.tag().get() + 1);
    for run in [RunId::new(99, b.store.tag()), RunId::new(runs[0].seq, elsewhere)] {
        assert!(matches!(b.store.run(run).await, Err(StoreError::NotFound(_))));
        assert!(matches!(b.store.log(run, 0, 1).await, Err(StoreError::NotFound(_))));
        assert!(matches!(b.store.cancel(run, "me".into(), b.now()).await, Err(StoreError::NotFound(_))));
        assert!(matches!(b.store.retry(run, "me".into(), b.now()).await, Err(StoreError::NotFound(_))));
    }
    for id in [EventId::new(99, b.store.tag()), EventId::new(event.seq, elsewhere)] {
        assert!(matches!(b.store.event(id).await, Err(StoreError::NotFound(_))));
        assert!(matches!(b.store.replay(id, vec![], b.now()).await, Err(StoreError::NotFound(_))));
        let query = RunQuery { event: Some(id), ..RunQuery::default() };
        assert!(b.store.runs(query, all(10)).await.unwrap().items.is_empty());
    }
}

pub async fn waiters_are_woken(b: Bench) {
    let ready = b.store.ready();
    let mut notices = b.store.notices();
    let first = b.queue(Some("x")).await;
    ready.notified().await;
    b.queue(Some("x")).await;
    let work = b.take(first).await;
    b.succeed(work.lease).await;
    ready.notified().await;
    let mut seen = Vec::new();
    while seen.last() != Some(&Notice::Moved(first, State::Succeeded)) {
        seen.push(notices.recv().await.unwrap());
    }
    assert_eq!(seen[0], Notice::Moved(first, State::Running), "that a run is new is no notice");
}

pub async fn a_closed_store_says_so(b: Bench) {
    let id = b.queue(None).await;
    b.store.close().await;
    assert!(matches!(b.admit(vec![event(vec![])]).await, Err(StoreError::Closed)));
    assert!(matches!(b.store.run(id).await, Err(StoreError::Closed)));
    assert!(matches!(b.store.events(EventQuery::default(), all(1)).await, Err(StoreError::Closed)));
    assert!(matches!(b.store.health().await, Err(StoreError::Closed)));
    b.store.close().await;
}

pub async fn stats_count_what_stands_where(b: Bench) {
    b.store.health().await.unwrap();
    let running = b.queue(Some("x")).await;
    b.take(running).await;
    let due = b.now();
    b.clock.advance(MINUTE);
    b.queue(Some("x")).await;
    b.queue(None).await;
    b.stored(event(vec![NewRun { agent: name("b"), ..run(None, b.now() + DAY) }])).await;
    let waiting = b.stored(event(vec![NewRun { trigger: name("u"), ..run(None, due) }])).await.1[0];
    let work = b.take(waiting).await;
    b.end(work.lease, b.waiting(LaneEffect::Hold)).await;
    let stats = b.store.stats().await.unwrap();
    let seen: Vec<_> = stats
        .iter()
        .map(|s| (s.agent.as_str(), s.trigger.as_str(), s.queued, s.running, s.waiting, s.oldest_due))
        .collect();
    let expected =
        [("a", "t", 2, 1, 0, Some(b.now())), ("a", "u", 0, 0, 1, None), ("b", "t", 1, 0, 0, Some(b.now() + DAY))];
    assert_eq!(seen, expected);
}
