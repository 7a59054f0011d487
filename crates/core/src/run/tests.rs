//! The table of `decide`, and the agreement of `docs/states.md` with the code.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::attempt::{Failure, Success};

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn policy() -> Policy {
    Policy {
        retries: Retries { max: 2, backoff: Duration::from_secs(10), max_backoff: Duration::from_secs(60) },
        max_age: Duration::from_secs(3600),
        passing: Passing::default(),
    }
}

fn attempt(n: u32) -> Standing {
    Standing { attempt: n, created_at: NOW }
}

fn failure(retry: bool) -> Outcome {
    Outcome::Failed(Failure { error: "exit code 1".into(), retry, ..Failure::default() })
}

fn decided(standing: Standing, outcome: Outcome) -> Transition {
    decide(standing, outcome, &policy(), &Clock::by_hand(NOW))
}

#[test]
fn a_success_is_final_and_keeps_the_result() {
    let output = Bytes::from_static(b"done");
    let t = decided(attempt(1), Outcome::Succeeded(Success { output: output.clone(), ..Success::default() }));
    assert_eq!((t.to, t.lane, t.output), (State::Succeeded, LaneEffect::Release, Some(output)));
}

#[test]
fn a_failure_is_tried_again_until_the_attempts_are_used_up() {
    for n in 1..=2 {
        let t = decided(attempt(n), failure(true));
        assert_eq!((t.to, t.counts, t.lane), (State::Queued, Counts::Yes, LaneEffect::Hold));
        assert!(t.due_at >= NOW + Duration::from_secs(5));
    }
    let last = decided(attempt(3), failure(true));
    assert_eq!((last.to, last.lane), (State::Failed, LaneEffect::Release));
    assert_eq!(last.error.as_deref(), Some("exit code 1 (attempt 3 of 3)"));
}

#[test]
fn a_failure_for_good_is_not_tried_again() {
    assert_eq!(decided(attempt(1), failure(false)).to, State::Failed);
}

#[test]
fn the_agents_own_retry_after_wins_over_the_backoff() {
    let failure = Failure { retry: true, retry_after: Some(Duration::from_secs(30)), ..Failure::default() };
    assert_eq!(decided(attempt(1), Outcome::Failed(failure)).due_at, NOW + Duration::from_secs(30));
}

#[test]
fn a_snooze_consumes_no_attempt_and_is_not_limited_by_them() {
    let snooze = Outcome::Snoozed { after: Duration::from_secs(7), why: "later".into(), usage: Usage::default() };
    let t = decided(attempt(99), snooze);
    assert_eq!((t.to, t.counts, t.due_at), (State::Queued, Counts::No, NOW + Duration::from_secs(7)));
    assert_eq!(t.error, None);
}

#[test]
fn no_pause_makes_a_run_too_old_and_behind_its_max_age_there_is_none() {
    let long = Duration::from_secs(7200);
    let snooze = Outcome::Snoozed { after: long, why: "later".into(), usage: Usage::default() };
    let failure = Outcome::Failed(Failure { retry: true, retry_after: Some(long), ..Failure::default() });
    let oldest = NOW + policy().max_age;
    for pause in [snooze, failure] {
        let fresh = decided(attempt(1), pause.clone());
        assert_eq!(
            (fresh.to, fresh.due_at),
            (State::Queued, oldest),
            "one attempt more, when it is as old as it may get"
        );
        let again = decide(attempt(1), pause, &policy(), &Clock::by_hand(fresh.due_at));
        assert_eq!(again.to, State::Failed, "which is the last");
        assert!(again.error.unwrap().ends_with("(and it is older than its max_age of 3600s)"));
    }
}

#[test]
fn a_timeout_and_a_lost_attempt_are_failures_that_are_tried_again() {
    for outcome in [Outcome::TimedOut { after: Duration::from_secs(1) }, Outcome::Lost { why: "crash".into() }] {
        assert_eq!(decided(attempt(1), outcome.clone()).to, State::Queued);
        assert_eq!(decided(attempt(3), outcome).to, State::Failed);
    }
}

#[test]
fn a_cancelled_attempt_ends_the_run_whatever_is_left() {
    assert_eq!(decided(attempt(1), Outcome::Cancelled { why: "by hand".into() }).to, State::Cancelled);
}

#[test]
fn waiting_holds_the_lane_unless_it_may_be_passed() {
    let ask = || Outcome::Waiting(Approval { title: "May I?".into(), detail: None }, Usage::default());
    assert_eq!(decided(attempt(1), ask()).lane, LaneEffect::Hold);
    let mut passes = policy();
    passes.passing.on_wait = true;
    assert_eq!(decide(attempt(1), ask(), &passes, &Clock::by_hand(NOW)).lane, LaneEffect::Release);
    passes.passing = Passing { on_retry: true, on_wait: false };
    assert_eq!(decide(attempt(1), failure(true), &passes, &Clock::by_hand(NOW)).lane, LaneEffect::Release);
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let span = (0u64..100_000).prop_map(Duration::from_secs);
    prop_oneof![
        Just(Outcome::Succeeded(Success::default())),
        (any::<bool>(), proptest::option::of(span.clone()))
            .prop_map(|(retry, retry_after)| { Outcome::Failed(Failure { retry, retry_after, ..Failure::default() }) }),
        span.clone().prop_map(|after| Outcome::Snoozed { after, why: String::new(), usage: Usage::default() }),
        Just(Outcome::Waiting(Approval { title: "t".into(), detail: None }, Usage::default())),
        span.prop_map(|after| Outcome::TimedOut { after }),
        Just(Outcome::Cancelled { why: String::new() }),
        Just(Outcome::Lost { why: String::new() }),
    ]
}

proptest! {
    #[test]
    fn no_outcome_leaves_a_run_running_and_every_final_state_releases_its_lane(
        outcome in any_outcome(), n in 1u32..50, max in 0u32..50, age_s in 0i64..10_000, on_retry: bool, on_wait: bool,
    ) {
        let mut policy = policy();
        policy.retries.max = max;
        policy.passing = Passing { on_retry, on_wait };
        let standing = Standing { attempt: n, created_at: Timestamp::from_secs(NOW.secs() - age_s) };
        let t = decide(standing, outcome, &policy, &Clock::by_hand(NOW));
        prop_assert_ne!(t.to, State::Running);
        prop_assert!(!t.to.is_final() || t.lane == LaneEffect::Release);
        prop_assert!(t.due_at >= NOW);
        if t.to == State::Queued {
            prop_assert!(NOW < standing.created_at + policy.max_age, "or it would never end");
            prop_assert!(t.due_at <= standing.created_at + policy.max_age);
            prop_assert!(t.counts == Counts::No || n <= max);
        }
    }
}

#[test]
fn the_page_of_states_names_every_state_and_no_other() {
    let page = include_str!("../../../../docs/states.md");
    let named: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|rest| rest.split('`').next()).collect();
    let known: Vec<&str> = State::ALL.iter().map(|s| s.as_str()).collect();
    assert_eq!(named, known);
}
