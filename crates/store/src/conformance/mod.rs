//! The contract of [`Store`] as tests: one suite for every store. A store's test file calls [`conformance!`](crate::conformance!)
//! with a function that makes a fresh [`Bench`]; each rule is then a test of its own, named after the rule.
//!
//! Rules come from the documentation of the trait and from `docs/semantics.md` (numbers in brackets).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, reason = "a test suite")]
#![allow(missing_docs, reason = "the name of each test says its rule")]

pub mod accepting;
pub mod asking;
pub mod edge;
pub mod keeping;
pub mod lanes;
pub mod leases;
pub mod secrets;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbell_core::attempt::{Approval, Usage};
use doorbell_core::decision::Kind;
use doorbell_core::event::{Admission, Dedup, Facts, Fingerprint, KeyKind, NewEvent, Receipt};
use doorbell_core::lane::{LaneId, LaneOf};
use doorbell_core::ports::{Claim, Claimed, Finished, PageFrom, PageRequest, Store, StoreError, Work};
use doorbell_core::run::{Counts, LaneEffect, Lease, NewRun, Run, State, Transition};
use doorbell_core::{Clock, EventId, Name, RunId, Timestamp};

/// A fresh store to test, with its clock, which stands still until moved.
pub struct Bench {
    pub store: Arc<dyn Store>,
    pub clock: Clock,
    /// What must live as long as the test: a temporary directory.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// A clock for a [`Bench`].
pub fn clock() -> Clock {
    Clock::by_hand(Timestamp::from_secs(1_800_000_000))
}

pub const MINUTE: Duration = Duration::from_secs(60);
pub const DAY: Duration = Duration::from_secs(86_400);
/// The holder that the suite claims as.
pub const HOLDER: u64 = 7;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A run of agent `a` by trigger `t`, in the lane `key` if there is one.
pub fn run(key: Option<&str>, at: Timestamp) -> NewRun {
    NewRun {
        agent: name("a"),
        trigger: name("t"),
        key: key.map(Into::into),
        lane: key.map(|key| LaneId::of(&name("a"), LaneOf::Trigger(&name("t")), key)),
        title: key.unwrap_or("no key").into(),
        due_at: at,
        max_queued: None,
        flag: None,
    }
}

pub fn print(key: &str) -> Fingerprint {
    Fingerprint::of(&name("s"), KeyKind::Id, key.as_bytes())
}

/// An accepted event of source `s` with these runs and nothing that its redelivery would be known by.
pub fn event(runs: Vec<NewRun>) -> NewEvent {
    NewEvent {
        verdict: if runs.is_empty() { Kind::Ignored } else { Kind::Accepted },
        source: name("s"),
        event_type: "push".into(),
        subject: Some("octo/repo".into()),
        remote: Some([192, 0, 2, 1].into()),
        facts: Facts { sender_id: Some("d-1".into()), ..Facts::default() },
        dedup: Dedup::default(),
        body_format: 1,
        body: Bytes::from_static(br#"{"a":1}"#),
        runs,
    }
}

/// The same with a dedup key.
pub fn keyed(key: &str, runs: Vec<NewRun>) -> NewEvent {
    NewEvent { dedup: Dedup { key: Some(print(key)), ..Dedup::default() }, ..event(runs) }
}

pub fn all(limit: usize) -> PageRequest {
    PageRequest { limit, from: PageFrom::Start }
}

impl Bench {
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub async fn admit(&self, events: Vec<NewEvent>) -> Result<Vec<Receipt>, StoreError> {
        self.store.accept(Admission { at: self.now(), events }).await
    }

    /// Accepts one event; its id and its runs.
    pub async fn stored(&self, event: NewEvent) -> (EventId, Vec<RunId>) {
        match self.admit(vec![event]).await.unwrap().remove(0) {
            Receipt::Stored { event, runs } => (event, runs),
            other => panic!("expected a new event, got {other:?}"),
        }
    }

    /// Accepts one event with one run, due now, in the lane `key`.
    pub async fn queue(&self, key: Option<&str>) -> RunId {
        self.stored(event(vec![run(key, self.now())])).await.1[0]
    }

    pub fn claim_for(&self, limit: usize) -> Claim {
        let places = |names: &[&str]| names.iter().map(|n| (name(n), 1000)).collect();
        Claim {
            now: self.now(),
            lease_until: self.now() + MINUTE,
            holder: HOLDER,
            limit,
            agents: places(&["a", "b"]),
            triggers: places(&["t", "u"]),
        }
    }

    pub async fn claim(&self, limit: usize) -> Claimed {
        self.store.claim(self.claim_for(limit)).await.unwrap()
    }

    /// Claims up to `limit`; the runs in the order given.
    pub async fn claim_ids(&self, limit: usize) -> Vec<RunId> {
        self.claim(limit).await.work.into_iter().map(|work| work.run.id).collect()
    }

    /// Claims exactly this run.
    pub async fn take(&self, run: RunId) -> Work {
        let mut work = self.claim(1).await.work;
        assert_eq!(work.iter().map(|work| work.run.id).collect::<Vec<_>>(), [run]);
        work.remove(0)
    }

    pub async fn end(&self, lease: Lease, transition: Transition) -> Finished {
        self.store.finish(lease, transition, self.now()).await.unwrap()
    }

    pub async fn succeed(&self, lease: Lease) {
        assert_eq!(self.end(lease, self.to(State::Succeeded)).await, Finished::Done);
    }

    pub async fn state(&self, run: RunId) -> State {
        self.show(run).await.state
    }

    pub async fn show(&self, run: RunId) -> Run {
        self.store.run(run).await.unwrap()
    }

    /// A transition to a final state.
    pub fn to(&self, to: State) -> Transition {
        Transition {
            to,
            due_at: self.now(),
            counts: Counts::Yes,
            lane: LaneEffect::Release,
            why: None,
            error: (to == State::Failed).then(|| "it broke".into()),
            output: (to == State::Succeeded).then(|| Bytes::from_static(b"done")),
            steps: None,
            usage: Usage::default(),
            approval: None,
        }
    }

    /// Back to the queue, due after `delay`.
    pub fn again(&self, delay: Duration, lane: LaneEffect) -> Transition {
        Transition {
            due_at: self.now() + delay,
            lane,
            error: Some("it broke".into()),
            why: Some("tries again".into()),
            ..self.to(State::Queued)
        }
    }

    /// Waiting for a person.
    pub fn waiting(&self, lane: LaneEffect) -> Transition {
        let approval = Some(Approval { title: "may I?".into(), detail: None });
        Transition { lane, approval, ..self.to(State::Waiting) }
    }
}

/// Makes every rule of the suite a test. `$make` is an async function that gives a fresh [`Bench`].
#[macro_export]
macro_rules! conformance {
    ($make:ident) => {
        $crate::conformance!(@ $make, accepting: [
            an_accepted_event_reads_back_with_its_body_and_runs,
            several_events_of_one_request_get_receipts_in_order,
            a_redelivery_gets_the_first_ones_ids_and_state,
            a_hundred_copies_at_once_make_one_run,
            of_copies_in_one_request_the_first_wins,
            a_body_seen_within_the_replay_window_is_a_duplicate_and_after_it_is_not,
            a_key_older_than_the_dedup_retention_is_no_hit,
            a_redelivery_of_an_ignored_event_is_evaluated_afresh,
            a_redelivery_of_a_failed_event_retries_it_if_so_asked,
            a_full_queue_refuses_the_whole_request,
            a_duplicate_leaves_a_decision_that_names_the_first_event,
            a_duplicate_does_not_count_against_a_full_queue,
            large_and_empty_bodies_come_back_as_they_were,
        ]);
        $crate::conformance!(@ $make, leases: [
            a_claim_counts_the_attempt_and_gives_run_and_event,
            runs_are_claimed_by_due_time_over_all_queues,
            a_claim_keeps_to_the_free_places,
            a_claim_tells_when_the_next_run_falls_due,
            a_finish_with_an_old_token_changes_nothing,
            a_finish_after_the_lease_lapsed_counts_until_somebody_else_has_it,
            a_second_finish_is_fenced,
            two_claimers_never_get_the_same_run,
            renewing_tells_held_cancelled_and_lost_apart,
            a_snooze_does_not_count,
            a_lapsed_lease_is_stale,
            a_dead_holders_runs_are_stale_at_once_but_for_deferred_ones,
            a_holder_with_a_new_number_does_not_own_the_old_ones_runs,
            a_deferred_lease_holds_until_its_time,
            children_are_told_to_the_reaper_and_forgotten_at_the_end,
            log_pieces_are_numbered_over_all_attempts,
            a_fenced_attempt_cannot_write_to_the_log,
            what_an_attempt_used_adds_up,
            every_move_is_in_the_history,
        ]);
        $crate::conformance!(@ $make, lanes: [
            a_lane_goes_one_at_a_time_and_in_order,
            lanes_go_in_parallel,
            runs_without_a_lane_go_in_parallel,
            two_claimers_on_one_lane_get_one_run,
            a_retry_keeps_its_place_before_the_others,
            a_passing_retry_lets_the_next_one_by,
            a_passed_run_that_falls_due_waits_for_the_running_one,
            a_run_behind_one_just_claimed_is_not_what_comes_due_next,
            a_passed_run_that_runs_and_holds_stops_the_others_again,
            a_waiting_run_holds_its_lane_unless_it_passes,
            a_failed_head_releases_its_lane,
            a_cancelled_head_releases_its_lane,
            a_stuck_lane_starves_nobody,
            a_retry_by_hand_joins_the_tail,
            a_queued_run_says_whom_it_is_behind,
        ]);
        $crate::conformance!(@ $make, asking: [
            cancelling_a_queued_or_waiting_run_ends_it_at_once,
            cancelling_a_running_run_asks_its_attempt_to_end,
            a_cancelled_attempt_does_not_come_back_as_a_retry,
            an_ended_run_cannot_be_cancelled,
            only_a_failed_or_cancelled_run_can_be_retried,
            a_retried_run_has_fresh_attempts,
            a_replay_makes_new_runs_of_the_stored_event,
            flags_are_kept,
            what_is_not_there_is_not_found,
            waiters_are_woken,
            a_closed_store_says_so,
            stats_count_what_stands_where,
        ]);
        $crate::conformance!(@ $make, keeping: [
            lists_are_newest_first_and_page_both_ways,
            lists_can_be_filtered,
            lists_carry_no_bodies_and_no_outputs,
            decisions_of_events_and_others_are_one_list,
            noted_decisions_arrive_and_keep_to_their_ring,
            a_sweep_takes_old_events_with_their_final_runs,
            a_sweep_keeps_unfinished_runs_and_their_events,
            ignored_events_go_earlier,
            dedup_keys_outlive_events,
            numbers_are_not_given_again_after_a_sweep,
        ]);
        $crate::conformance!(@ $make, edge: [
            how_breakers_stand_is_kept,
            an_agent_that_registers_again_keeps_its_first_time,
            a_key_is_kept_found_rotated_and_removed,
            of_keys_with_one_name_made_at_once_one_is_made,
        ]);
        $crate::conformance!(@ $make, secrets: [
            a_secret_is_kept_under_its_name_newest_first,
            earlier_values_go_or_stay_until_their_overlap_is_over,
            of_secrets_with_one_name_made_at_once_one_is_made,
            a_secret_sealed_anew_stays_in_its_place,
            expired_values_are_swept,
            a_paired_secret_is_taken_once_and_only_while_its_source_is_open,
        ]);
    };
    (@ $make:ident, $module:ident: [$($rule:ident,)*]) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    $crate::conformance::$module::$rule(super::$make().await).await;
                }
            )*
        }
    };
}
