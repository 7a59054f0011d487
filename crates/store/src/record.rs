//! A run as both stores move it. What a claim, a finish, a cancel and a retry change in a run's row is said here once;
//! the stores only find rows, keep lanes in order and write. Nothing here decides: that is `doorbell_core::run::decide`.

use bytes::Bytes;
use doorbell_core::attempt::{Approval, Usage};
use doorbell_core::decision::{Check, Decision, Kind, NewDecision};
use doorbell_core::event::{Event, NewEvent, SeenBy};
use doorbell_core::lane::LaneId;
use doorbell_core::ports::{Child, Claim, Stale, StaleRun, StoreError};
use doorbell_core::run::{Counts, LaneEffect, Lease, Move, NewRun, State, Transition};
use doorbell_core::{DecisionId, EventId, Name, RunId, StoreTag, Timestamp};

use crate::moves;

/// No error text of a run is longer, in bytes; what agents print belongs in the log.
const ERROR_BYTES_MAX: usize = 16 * 1024;

/// The part of a run that moves.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) event: u64,
    /// Number of the (agent, trigger) pair. Used by the `SQLite` store only.
    pub(crate) queue: u32,
    pub(crate) state: State,
    /// Its lane must move before it can be claimed. Kept by the `SQLite` store only.
    pub(crate) blocked: bool,
    /// Others of its lane may pass while it is queued or waiting.
    pub(crate) passed: bool,
    pub(crate) due_at: Timestamp,
    /// Its place in the lane: `seq`, until a retry by hand sends it to the tail.
    pub(crate) ord: u64,
    pub(crate) lane: Option<LaneId>,
    pub(crate) created_at: Timestamp,
    pub(crate) attempt: u32,
    pub(crate) lease: u64,
    pub(crate) holder: u64,
    pub(crate) lease_until: Option<Timestamp>,
    pub(crate) deferred: bool,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) steps: Option<u64>,
    pub(crate) usage: Usage,
    pub(crate) cancel_by: Option<String>,
    pub(crate) children: Vec<Child>,
    pub(crate) approval: Option<Approval>,
    pub(crate) error: Option<String>,
    pub(crate) moves: Vec<Move>,
}

/// What becomes of the output kept so far.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Keep,
    Set(Bytes),
    Clear,
}

impl Record {
    /// As it is when it is made.
    pub(crate) fn new(seq: u64, event: u64, new: &NewRun, at: Timestamp) -> Self {
        Self {
            seq,
            event,
            queue: 0,
            state: State::Queued,
            blocked: false,
            passed: false,
            due_at: new.due_at,
            ord: seq,
            lane: new.lane,
            created_at: at,
            attempt: 0,
            lease: 0,
            holder: 0,
            lease_until: None,
            deferred: false,
            started_at: None,
            finished_at: None,
            steps: None,
            usage: Usage::default(),
            cancel_by: None,
            children: Vec::new(),
            approval: None,
            error: None,
            moves: Vec::new(),
        }
    }

    /// A holder takes it. The caller saw to lane and due time.
    pub(crate) fn claim(&mut self, claim: &Claim) {
        self.state = State::Running;
        self.blocked = false;
        self.passed = false;
        self.attempt = self.attempt.saturating_add(1);
        self.lease += 1;
        self.holder = claim.holder;
        self.lease_until = Some(claim.lease_until);
        self.deferred = false;
        self.started_at = Some(claim.now);
        self.approval = None;
        self.moved(claim.now, None);
    }

    /// Whether `token` is the right to work on it now.
    pub(crate) fn held_with(&self, token: u64) -> bool {
        self.state == State::Running && self.lease == token
    }

    /// The attempt ended. A run that somebody asked to cancel does not come back for another attempt.
    pub(crate) fn finish(&mut self, t: &Transition, now: Timestamp) -> Output {
        let cancelled = (!t.to.is_final()).then(|| self.cancel_by.take()).flatten();
        self.state = if cancelled.is_some() { State::Cancelled } else { t.to };
        let why = cancelled.map(|by| format!("cancelled by {by}")).or_else(|| t.why.clone());
        self.moved(now, why);
        if t.counts == Counts::No {
            self.attempt = self.attempt.saturating_sub(1);
        }
        self.leave_lease();
        self.due_at = if self.state == State::Queued { t.due_at } else { self.due_at };
        self.finished_at = self.state.is_final().then_some(now);
        self.passed = !self.state.is_final() && self.lane.is_some() && t.lane == LaneEffect::Release;
        if let Some(error) = &t.error {
            let mut error = error.clone();
            moves::cut(&mut error, ERROR_BYTES_MAX);
            self.error = Some(error);
        } else if self.state == State::Succeeded {
            self.error = None;
        }
        self.steps = t.steps.or(self.steps);
        self.usage = self.usage.plus(t.usage);
        self.approval = if self.state == State::Waiting { t.approval.clone() } else { None };
        t.output.clone().map_or(Output::Keep, Output::Set)
    }

    /// Somebody cancels it. The state it is in afterwards, or why that cannot be.
    pub(crate) fn cancel(&mut self, id: RunId, by: &str, now: Timestamp) -> Result<State, StoreError> {
        match self.state {
            State::Queued | State::Waiting => {
                self.state = State::Cancelled;
                self.finished_at = Some(now);
                self.blocked = false;
                self.passed = false;
                self.approval = None;
                self.moved(now, Some(format!("cancelled by {by}")));
            }
            State::Running => {
                self.cancel_by.get_or_insert_with(|| by.to_owned());
            }
            State::Cancelled => {}
            State::Succeeded | State::Failed => {
                return Err(StoreError::Conflict(format!("run {id} has {}: it cannot be cancelled", self.state)));
            }
        }
        Ok(self.state)
    }

    /// Queued again with fresh attempts at place `ord` of its lane.
    pub(crate) fn retry(&mut self, id: RunId, ord: u64, why: String, now: Timestamp) -> Result<Output, StoreError> {
        if !matches!(self.state, State::Failed | State::Cancelled) {
            return Err(StoreError::Conflict(format!(
                "run {id} is {}: only a failed or cancelled run can be retried",
                self.state
            )));
        }
        self.state = State::Queued;
        self.moved(now, Some(why));
        self.ord = ord;
        self.passed = false;
        self.attempt = 0;
        self.due_at = now;
        self.finished_at = None;
        self.cancel_by = None;
        Ok(Output::Clear)
    }

    fn leave_lease(&mut self) {
        self.lease_until = None;
        self.deferred = false;
        self.cancel_by = None;
        self.children.clear();
    }

    fn moved(&mut self, at: Timestamp, why: Option<String>) {
        moves::push(&mut self.moves, Move { at, to: self.state, attempt: self.attempt, why });
    }
}

/// Whether a print kept at `at` still counts at `now`.
pub(crate) fn within(at: Timestamp, now: Timestamp, window: std::time::Duration) -> bool {
    now.since(at) <= window
}

/// What is recorded of a redelivery.
pub(crate) fn duplicate_decision(event: &NewEvent, first: EventId, by: SeenBy, at: Timestamp) -> NewDecision {
    let (code, reason, seen) = match by {
        SeenBy::Key => ("duplicate", "this delivery was seen before: its key is known", "its key"),
        SeenBy::Replay if event.facts.sender_id.is_none() => (
            "replayed_body",
            "this body was seen a short time ago, and no id of the sender's tells the two apart; replay the first event if it is meant twice",
            "its body",
        ),
        SeenBy::Replay => (
            "replayed_body",
            "this body was seen a short time ago under another id; replay the first event if it is meant twice",
            "its body",
        ),
    };
    let mut checks = event.facts.checks.clone();
    checks.push(Check::failed("dedup", "a delivery not seen before", format!("{seen} is known from {first}")));
    NewDecision {
        at,
        source: Some(event.source.clone()),
        kind: Kind::Duplicate,
        code: code.into(),
        reason: reason.into(),
        checks,
        event: Some(first),
        remote: event.remote,
    }
}

impl Record {
    /// Whether it runs without anybody working on it.
    pub(crate) fn is_stale(&self, which: Stale) -> bool {
        self.state == State::Running
            && match which {
                Stale::LapsedBefore(time) => self.lease_until.is_none_or(|until| until < time),
                Stale::NotHeldBy(holder) => self.holder != holder && !self.deferred,
            }
    }

    /// What the reaper is told of it.
    pub(crate) fn into_stale(self, tag: StoreTag, agent: Name, trigger: Name) -> StaleRun {
        StaleRun {
            lease: Lease { run: RunId::new(self.seq, tag), token: self.lease },
            agent,
            trigger,
            attempt: self.attempt,
            created_at: self.created_at,
            deferred: self.deferred,
            cancelling: self.cancel_by.is_some(),
            children: self.children,
        }
    }

    /// Every move, the making of the run first.
    pub(crate) fn history(&self) -> Vec<Move> {
        let made = Move { at: self.created_at, to: State::Queued, attempt: 0, why: None };
        std::iter::once(made).chain(self.moves.iter().cloned()).collect()
    }
}

/// The decision that an event is at the same time.
pub(crate) fn decision_of(event: Event) -> Decision {
    let (code, reason) = match event.verdict {
        Kind::FilterError => ("filter_error", "a filter could not be evaluated"),
        Kind::Ignored => ("filter", "no trigger wanted it"),
        _ => ("accepted", "stored, and its runs are queued"),
    };
    Decision {
        id: DecisionId::new(event.id.seq, event.id.store),
        source: Some(event.source),
        kind: event.verdict,
        code: event.facts.code.unwrap_or_else(|| code.into()),
        reason: event.facts.reason.unwrap_or_else(|| reason.into()),
        checks: event.facts.checks,
        event_id: Some(event.id),
        remote: event.remote,
        created_at: event.received_at,
    }
}
