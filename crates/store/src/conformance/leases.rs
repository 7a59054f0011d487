//! Claims, leases and their ends (semantics 13).

use super::*;
use doorbell_core::ports::{Child, LeaseStatus, Piece, Stale, Stream};

pub async fn a_claim_counts_the_attempt_and_gives_run_and_event(b: Bench) {
    let (id, runs) = b.stored(event(vec![run(Some("x"), b.now())])).await;
    let work = b.take(runs[0]).await;
    assert_eq!((work.run.state, work.run.attempt, work.run.lease), (State::Running, 1, 1));
    assert_eq!(work.lease, Lease { run: runs[0], token: 1 });
    assert_eq!((work.run.started_at, work.run.lease_until), (Some(b.now()), Some(b.now() + MINUTE)));
    assert_eq!((work.event.id, work.event.body), (id, Some(Bytes::from_static(br#"{"a":1}"#))));
}

pub async fn runs_are_claimed_by_due_time_over_all_queues(b: Bench) {
    let mut ids = Vec::new();
    for (trigger, later) in [("t", 3), ("u", 1), ("t", 2), ("u", 0)] {
        let due_at = b.now() + later * MINUTE;
        let new = NewRun { trigger: name(trigger), ..run(None, due_at) };
        ids.push(b.stored(event(vec![new])).await.1[0]);
    }
    b.clock.advance(2 * MINUTE);
    assert_eq!(b.claim_ids(2).await, [ids[3], ids[1]]);
    assert_eq!(b.claim_ids(2).await, [ids[2]]);
}

pub async fn a_claim_keeps_to_the_free_places(b: Bench) {
    for (agent, trigger) in [("a", "t"), ("a", "u"), ("b", "t"), ("b", "u"), ("a", "t"), ("b", "u")] {
        b.stored(event(vec![NewRun { agent: name(agent), trigger: name(trigger), ..run(None, b.now()) }])).await;
    }
    let places = |list: &[(&str, u32)]| list.iter().map(|(n, free)| (name(n), *free)).collect::<Vec<_>>();
    let claim = |agents: &[(&str, u32)], triggers: &[(&str, u32)]| Claim {
        agents: places(agents),
        triggers: places(triggers),
        ..b.claim_for(10)
    };
    let held = b.store.claim(claim(&[("a", 0)], &[("t", 9), ("u", 9)])).await.unwrap();
    assert!(held.work.is_empty() && held.next_due.is_none());
    let work = b.store.claim(claim(&[("a", 2), ("b", 9)], &[("t", 9), ("u", 1)])).await.unwrap().work;
    let got: Vec<_> = work.iter().map(|w| (w.run.agent.as_str(), w.run.trigger.as_str())).collect();
    assert_eq!(got, [("a", "t"), ("a", "u"), ("b", "t")]);
}

pub async fn a_claim_tells_when_the_next_run_falls_due(b: Bench) {
    assert_eq!(b.claim(1).await.next_due, None);
    b.stored(event(vec![run(None, b.now() + MINUTE)])).await;
    assert_eq!(b.claim(1).await.next_due, Some(b.now() + MINUTE));
    b.queue(None).await;
    b.queue(None).await;
    let claimed = b.claim(1).await;
    assert_eq!((claimed.work.len(), claimed.next_due), (1, Some(b.now())));
    let claimed = b.claim(5).await;
    assert_eq!((claimed.work.len(), claimed.next_due), (1, Some(b.now() + MINUTE)));
}

pub async fn a_finish_with_an_old_token_changes_nothing(b: Bench) {
    let id = b.queue(None).await;
    let old = b.take(id).await.lease;
    b.end(old, b.again(Duration::ZERO, LaneEffect::Hold)).await;
    let new = b.take(id).await.lease;
    assert_eq!(new.token, 2);
    for token in [0, 1, 3] {
        let lease = Lease { run: id, token };
        assert_eq!(b.end(lease, b.to(State::Failed)).await, Finished::Fenced);
    }
    let run = b.show(id).await;
    assert_eq!((run.state, run.lease, run.finished_at), (State::Running, 2, None));
    b.succeed(new).await;
}

pub async fn a_finish_after_the_lease_lapsed_counts_until_somebody_else_has_it(b: Bench) {
    let (first, second) = (b.queue(None).await, b.queue(None).await);
    let works = b.claim(2).await.work;
    b.clock.advance(2 * MINUTE);
    b.succeed(works[0].lease).await;
    // The reaper was faster with the second.
    let stale = b.store.stale(Stale::LapsedBefore(b.now()), 10).await.unwrap();
    assert_eq!(stale.iter().map(|s| s.lease.run).collect::<Vec<_>>(), [second]);
    b.end(stale[0].lease, b.again(Duration::ZERO, LaneEffect::Hold)).await;
    assert_eq!(b.end(works[1].lease, b.to(State::Succeeded)).await, Finished::Fenced);
    assert_eq!((b.state(first).await, b.state(second).await), (State::Succeeded, State::Queued));
}

pub async fn a_second_finish_is_fenced(b: Bench) {
    let id = b.queue(None).await;
    let work = b.take(id).await;
    b.succeed(work.lease).await;
    assert_eq!(b.end(work.lease, b.to(State::Failed)).await, Finished::Fenced);
    assert_eq!(b.state(id).await, State::Succeeded);
    let unknown = Lease { run: RunId::new(999, b.store.tag()), token: 1 };
    assert_eq!(b.end(unknown, b.to(State::Failed)).await, Finished::Fenced);
}

pub async fn two_claimers_never_get_the_same_run(b: Bench) {
    for _ in 0..60 {
        b.queue(None).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for holder in 0..12 {
        let (store, claim) = (b.store.clone(), Claim { holder, ..b.claim_for(5) });
        tasks.spawn(async move { store.claim(claim).await.unwrap().work });
    }
    let mut ids: Vec<RunId> = tasks.join_all().await.into_iter().flatten().map(|work| work.run.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 60);
}

pub async fn renewing_tells_held_cancelled_and_lost_apart(b: Bench) {
    for _ in 0..3 {
        b.queue(None).await;
    }
    let leases: Vec<Lease> = b.claim(3).await.work.iter().map(|work| work.lease).collect();
    b.store.cancel(leases[1].run, "me".into(), b.now()).await.unwrap();
    b.succeed(leases[2]).await;
    let until = b.now() + 5 * MINUTE;
    let renewals = b.store.renew(leases.clone(), until).await.unwrap();
    assert_eq!(renewals.iter().map(|r| r.lease).collect::<Vec<_>>(), leases);
    let statuses: Vec<_> = renewals.iter().map(|r| r.status).collect();
    assert_eq!(statuses, [LeaseStatus::Held, LeaseStatus::CancelAsked, LeaseStatus::Lost]);
    assert_eq!(b.show(leases[0].run).await.lease_until, Some(until));
    b.clock.advance(2 * MINUTE);
    assert!(b.store.stale(Stale::LapsedBefore(b.now()), 10).await.unwrap().is_empty());
}

pub async fn a_snooze_does_not_count(b: Bench) {
    let id = b.queue(None).await;
    for token in 1..4 {
        let work = b.take(id).await;
        assert_eq!((work.run.attempt, work.lease.token), (1, token));
        let snooze = Transition { counts: Counts::No, error: None, ..b.again(Duration::ZERO, LaneEffect::Hold) };
        b.end(work.lease, snooze).await;
        assert_eq!(b.show(id).await.attempt, 0);
    }
}

pub async fn a_lapsed_lease_is_stale(b: Bench) {
    let id = b.queue(Some("x")).await;
    let work = b.take(id).await;
    b.clock.advance(MINUTE);
    assert!(b.store.stale(Stale::LapsedBefore(b.now()), 10).await.unwrap().is_empty());
    b.clock.advance(Duration::from_millis(1));
    let stale = b.store.stale(Stale::LapsedBefore(b.now()), 10).await.unwrap().remove(0);
    assert_eq!((stale.lease, stale.attempt, stale.deferred, stale.cancelling), (work.lease, 1, false, false));
    assert_eq!((stale.agent, stale.trigger, stale.created_at), (name("a"), name("t"), work.run.created_at));
    assert_eq!(b.end(stale.lease, b.to(State::Failed)).await, Finished::Done);
    assert!(b.store.stale(Stale::LapsedBefore(b.now()), 10).await.unwrap().is_empty());
}

pub async fn a_dead_holders_runs_are_stale_at_once_but_for_deferred_ones(b: Bench) {
    for _ in 0..4 {
        b.queue(None).await;
    }
    let works = b.claim(3).await.work;
    b.store.defer(works[0].lease, b.now() + DAY).await.unwrap();
    let ours = b.store.claim(Claim { holder: 8, ..b.claim_for(1) }).await.unwrap().work.remove(0);
    let stale = b.store.stale(Stale::NotHeldBy(8), 10).await.unwrap();
    assert_eq!(stale.iter().map(|s| s.lease).collect::<Vec<_>>(), [works[1].lease, works[2].lease]);
    assert_eq!(b.store.stale(Stale::NotHeldBy(8), 1).await.unwrap().len(), 1);
    let stale = b.store.stale(Stale::NotHeldBy(HOLDER), 10).await.unwrap();
    assert_eq!(stale.iter().map(|s| s.lease).collect::<Vec<_>>(), [ours.lease]);
}

pub async fn a_holder_with_a_new_number_does_not_own_the_old_ones_runs(b: Bench) {
    let id = b.queue(None).await;
    let old = b.take(id).await;
    let stale = b.store.stale(Stale::NotHeldBy(HOLDER + 1), 10).await.unwrap().remove(0);
    b.end(stale.lease, b.again(Duration::ZERO, LaneEffect::Hold)).await;
    let new = b.store.claim(Claim { holder: HOLDER + 1, ..b.claim_for(1) }).await.unwrap().work.remove(0);
    // The same number used again gives the old lease no right.
    assert_eq!(b.end(old.lease, b.to(State::Failed)).await, Finished::Fenced);
    assert_eq!(b.store.renew(vec![old.lease], b.now() + DAY).await.unwrap()[0].status, LeaseStatus::Lost);
    b.succeed(new.lease).await;
}

pub async fn a_deferred_lease_holds_until_its_time(b: Bench) {
    let id = b.queue(None).await;
    let work = b.take(id).await;
    let until = b.now() + 60 * MINUTE;
    assert_eq!(b.store.defer(work.lease, until).await.unwrap(), Finished::Done);
    let old = Lease { token: 9, ..work.lease };
    assert_eq!(b.store.defer(old, until).await.unwrap(), Finished::Fenced);
    b.clock.advance(60 * MINUTE);
    assert!(b.store.stale(Stale::LapsedBefore(b.now()), 10).await.unwrap().is_empty());
    b.clock.advance(Duration::from_millis(1));
    assert!(b.store.stale(Stale::LapsedBefore(b.now()), 10).await.unwrap()[0].deferred);
    b.succeed(work.lease).await;
}

pub async fn children_are_told_to_the_reaper_and_forgotten_at_the_end(b: Bench) {
    let id = b.queue(None).await;
    let work = b.take(id).await;
    let children = [Child { pid: 10, started: 100 }, Child { pid: 11, started: 101 }];
    for child in children {
        b.store.note_child(work.lease, child).await.unwrap();
    }
    let stale = b.store.stale(Stale::NotHeldBy(0), 10).await.unwrap().remove(0);
    assert_eq!(stale.children, children);
    b.end(work.lease, b.again(Duration::ZERO, LaneEffect::Hold)).await;
    let late = b.store.note_child(work.lease, children[0]).await;
    assert!(matches!(late, Err(StoreError::Conflict(_))));
    b.take(id).await;
    assert!(b.store.stale(Stale::NotHeldBy(0), 10).await.unwrap()[0].children.is_empty());
}

fn piece(b: &Bench, text: &str) -> Piece {
    Piece { at: b.now(), stream: Stream::Log, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

pub async fn log_pieces_are_numbered_over_all_attempts(b: Bench) {
    let id = b.queue(None).await;
    for attempt in 1..=2 {
        let work = b.take(id).await;
        for text in ["x", "y"] {
            let pieces = vec![piece(&b, text), Piece { stream: Stream::Output, ..piece(&b, "z") }];
            b.store.append_log(work.lease, pieces).await.unwrap();
        }
        if attempt == 1 {
            b.end(work.lease, b.again(Duration::ZERO, LaneEffect::Hold)).await;
        }
    }
    let log = b.store.log(id, 0, 100).await.unwrap();
    assert_eq!(log.iter().map(|p| p.n).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert_eq!(log.iter().map(|p| p.attempt).collect::<Vec<_>>(), [1, 1, 1, 1, 2, 2, 2, 2]);
    assert_eq!((&log[1].bytes[..], log[1].stream), (&b"z"[..], Stream::Output));
    let part = b.store.log(id, 3, 2).await.unwrap();
    assert_eq!(part, log[3..5]);
}

pub async fn a_fenced_attempt_cannot_write_to_the_log(b: Bench) {
    let id = b.queue(None).await;
    let work = b.take(id).await;
    b.succeed(work.lease).await;
    let late = b.store.append_log(work.lease, vec![piece(&b, "x")]).await;
    assert!(matches!(late, Err(StoreError::Conflict(_))));
    assert!(b.store.log(id, 0, 10).await.unwrap().is_empty());
}

pub async fn what_an_attempt_used_adds_up(b: Bench) {
    let id = b.queue(None).await;
    let usage = Usage { tokens: Some(100), cost_usd: Some(0.5) };
    let work = b.take(id).await;
    b.end(work.lease, Transition { usage, ..b.again(Duration::ZERO, LaneEffect::Hold) }).await;
    let work = b.take(id).await;
    b.end(work.lease, Transition { usage, steps: Some(3), ..b.to(State::Succeeded) }).await;
    let run = b.show(id).await;
    assert_eq!(run.usage, Usage { tokens: Some(200), cost_usd: Some(1.0) });
    assert_eq!((run.steps, run.output.as_deref(), run.error), (Some(3), Some(&b"done"[..]), None));
}

pub async fn every_move_is_in_the_history(b: Bench) {
    let id = b.queue(None).await;
    b.clock.advance(MINUTE);
    let work = b.take(id).await;
    b.end(work.lease, b.again(MINUTE, LaneEffect::Hold)).await;
    assert_eq!(b.show(id).await.error.as_deref(), Some("it broke"));
    b.clock.advance(MINUTE);
    let work = b.take(id).await;
    b.end(work.lease, b.to(State::Failed)).await;
    let run = b.show(id).await;
    let moves: Vec<_> = run.moves.iter().map(|m| (m.to, m.attempt)).collect();
    use State::{Failed, Queued, Running};
    assert_eq!(moves, [(Queued, 0), (Running, 1), (Queued, 1), (Running, 2), (Failed, 2)]);
    assert_eq!(run.moves[0].at, run.created_at);
    assert_eq!((run.moves[2].why.as_deref(), run.moves[4].at), (Some("tries again"), b.now()));
    assert_eq!((run.finished_at, run.lease_until), (Some(b.now()), None));
}
