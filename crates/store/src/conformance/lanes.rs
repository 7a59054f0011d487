//! Lanes [8-10].

use super::*;
use LaneEffect::{Hold, Release};

pub async fn a_lane_goes_one_at_a_time_and_in_order(b: Bench) {
    let runs = [b.queue(Some("x")).await, b.queue(Some("x")).await, b.queue(Some("x")).await];
    for run in runs {
        let work = b.take(run).await;
        assert!(b.claim_ids(10).await.is_empty());
        b.succeed(work.lease).await;
    }
}

pub async fn lanes_go_in_parallel(b: Bench) {
    let (x, y) = (b.queue(Some("x")).await, b.queue(Some("y")).await);
    b.queue(Some("x")).await;
    assert_eq!(b.claim_ids(10).await, [x, y]);
}

pub async fn runs_without_a_lane_go_in_parallel(b: Bench) {
    let (x, y) = (b.queue(None).await, b.queue(None).await);
    assert_eq!(b.claim_ids(10).await, [x, y]);
}

pub async fn two_claimers_on_one_lane_get_one_run(b: Bench) {
    for _ in 0..10 {
        b.queue(Some("x")).await;
    }
    for _ in 0..10 {
        let mut tasks = tokio::task::JoinSet::new();
        for holder in 0..8 {
            let (store, claim) = (b.store.clone(), Claim { holder, ..b.claim_for(10) });
            tasks.spawn(async move { store.claim(claim).await.unwrap().work });
        }
        let work: Vec<Work> = tasks.join_all().await.into_iter().flatten().collect();
        assert_eq!(work.len(), 1);
        b.succeed(work[0].lease).await;
    }
}

pub async fn a_retry_keeps_its_place_before_the_others(b: Bench) {
    let (first, second) = (b.queue(Some("x")).await, b.queue(Some("x")).await);
    let work = b.take(first).await;
    b.end(work.lease, b.again(MINUTE, Hold)).await;
    let claimed = b.claim(10).await;
    assert!(claimed.work.is_empty());
    assert_eq!(claimed.next_due, Some(b.now() + MINUTE));
    b.clock.advance(MINUTE);
    let work = b.take(first).await;
    assert_eq!(work.run.attempt, 2);
    b.succeed(work.lease).await;
    b.take(second).await;
}

pub async fn a_passing_retry_lets_the_next_one_by(b: Bench) {
    let (first, second) = (b.queue(Some("x")).await, b.queue(Some("x")).await);
    let work = b.take(first).await;
    b.end(work.lease, b.again(MINUTE, Release)).await;
    let work = b.take(second).await;
    b.succeed(work.lease).await;
    b.clock.advance(MINUTE);
    b.take(first).await;
}

pub async fn a_passed_run_that_falls_due_waits_for_the_running_one(b: Bench) {
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(b.queue(Some("x")).await);
    }
    for run in &runs[..2] {
        let work = b.take(*run).await;
        b.end(work.lease, b.again(MINUTE, Release)).await;
    }
    let third = b.take(runs[2]).await;
    b.clock.advance(MINUTE);
    assert!(b.claim_ids(10).await.is_empty());
    b.succeed(third.lease).await;
    // The fourth has been due the longest, then the passed ones in their order.
    for run in [runs[3], runs[0], runs[1]] {
        let claimed = b.claim(10).await.work;
        assert_eq!(claimed.iter().map(|w| w.run.id).collect::<Vec<_>>(), [run]);
        b.succeed(claimed[0].lease).await;
    }
}

pub async fn a_passed_run_that_runs_and_holds_stops_the_others_again(b: Bench) {
    let (first, second, third) = (b.queue(Some("x")).await, b.queue(Some("x")).await, b.queue(Some("x")).await);
    let work = b.take(first).await;
    b.end(work.lease, b.again(MINUTE, Release)).await;
    let work = b.take(second).await;
    b.end(work.lease, b.again(MINUTE, Release)).await;
    b.clock.advance(2 * MINUTE);
    // The third has been due longest; then the first comes back, and now holds.
    let work = b.take(third).await;
    b.end(work.lease, b.again(10 * MINUTE, Hold)).await;
    let work = b.take(first).await;
    b.end(work.lease, b.again(MINUTE, Hold)).await;
    assert!(b.claim_ids(10).await.is_empty());
    b.clock.advance(MINUTE);
    let work = b.take(first).await;
    b.succeed(work.lease).await;
    b.take(second).await;
}

pub async fn a_run_behind_one_just_claimed_is_not_what_comes_due_next(b: Bench) {
    let first = b.queue(Some("x")).await;
    let work = b.take(first).await;
    b.end(work.lease, b.again(MINUTE, Release)).await;
    // It joins a lane whose only run waits for its time, so nothing holds it back but its own time.
    b.stored(event(vec![run(Some("x"), b.now() + 2 * MINUTE)])).await;
    b.stored(event(vec![run(None, b.now() + 3 * MINUTE)])).await;
    b.clock.advance(MINUTE);
    let claimed = b.claim(10).await;
    assert_eq!(claimed.work.iter().map(|w| w.run.id).collect::<Vec<_>>(), [first]);
    assert_eq!(claimed.next_due, Some(b.now() + 2 * MINUTE), "the second waits for the first, not for its time");
}

pub async fn a_waiting_run_holds_its_lane_unless_it_passes(b: Bench) {
    for (lane, passes) in [("x", Hold), ("y", Release)] {
        let (first, second) = (b.queue(Some(lane)).await, b.queue(Some(lane)).await);
        let work = b.take(first).await;
        b.end(work.lease, b.waiting(passes)).await;
        assert_eq!(b.state(first).await, State::Waiting);
        assert_eq!(b.claim_ids(10).await, if passes == Hold { vec![] } else { vec![second] });
    }
}

pub async fn a_failed_head_releases_its_lane(b: Bench) {
    let (first, second) = (b.queue(Some("x")).await, b.queue(Some("x")).await);
    let work = b.take(first).await;
    b.end(work.lease, b.to(State::Failed)).await;
    b.take(second).await;
}

pub async fn a_cancelled_head_releases_its_lane(b: Bench) {
    let (first, second) = (b.queue(Some("x")).await, b.queue(Some("x")).await);
    b.store.cancel(first, "me".into(), b.now()).await.unwrap();
    b.take(second).await;
    let (waiting, next) = (b.queue(Some("y")).await, b.queue(Some("y")).await);
    let work = b.take(waiting).await;
    b.end(work.lease, b.waiting(Hold)).await;
    assert!(b.claim_ids(10).await.is_empty());
    b.store.cancel(waiting, "me".into(), b.now()).await.unwrap();
    b.take(next).await;
}

pub async fn a_stuck_lane_starves_nobody(b: Bench) {
    let head = b.queue(Some("stuck")).await;
    b.take(head).await;
    for _ in 0..100 {
        b.admit((0..100).map(|_| event(vec![run(Some("stuck"), b.now())])).collect()).await.unwrap();
    }
    b.clock.advance(MINUTE);
    let others = [b.queue(Some("y")).await, b.queue(None).await];
    assert_eq!(b.claim_ids(10).await, others);
}

pub async fn a_retry_by_hand_joins_the_tail(b: Bench) {
    let (first, second, third) = (b.queue(Some("x")).await, b.queue(Some("x")).await, b.queue(Some("x")).await);
    let work = b.take(first).await;
    b.end(work.lease, b.to(State::Failed)).await;
    let running = b.take(second).await;
    b.store.retry(first, "me".into(), b.now()).await.unwrap();
    let fourth = b.queue(Some("x")).await;
    b.succeed(running.lease).await;
    for run in [third, first, fourth] {
        let work = b.take(run).await;
        b.succeed(work.lease).await;
    }
}

pub async fn a_queued_run_says_whom_it_is_behind(b: Bench) {
    let (first, second) = (b.queue(Some("x")).await, b.queue(Some("x")).await);
    assert_eq!(b.show(first).await.behind, None);
    assert_eq!(b.show(second).await.behind, Some(first));
    let work = b.take(first).await;
    assert_eq!(b.show(second).await.behind, Some(first));
    b.end(work.lease, b.again(MINUTE, Release)).await;
    assert_eq!(b.show(second).await.behind, None);
    b.take(second).await;
    assert_eq!(b.show(first).await.behind, Some(second));
}
