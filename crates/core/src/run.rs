//! A run: one agent working on one event. The durable unit of work, its states, and [`decide`]: what follows from what
//! an attempt said. The store moves runs from state to state; only this file says to which.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::attempt::{Approval, Outcome, Usage};
use crate::clock::{Clock, Timestamp};
use crate::ids::{EventId, Name, RunId};
use crate::lane::{LaneId, Passing};
use crate::retry::Retries;

/// Where a run stands. `docs/states.md` draws the moves; a test compares the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for its due time, its lane and a free place.
    Queued,
    /// An attempt holds a lease on it.
    Running,
    /// Waits for a person's yes, or for input.
    Waiting,
    /// Ended well.
    Succeeded,
    /// Ended badly for good.
    Failed,
    /// Ended by a person.
    Cancelled,
}

impl State {
    /// Every state, in the order of their codes; the first three are not final.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Waiting, Self::Succeeded, Self::Failed, Self::Cancelled];

    /// Whether nothing more will happen by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The word used in the API and in the console.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The number kept in the store; final states are 3 and above.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The state behind a number of [`State::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for State {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            let words: Vec<_> = Self::ALL.iter().map(|s| s.as_str()).collect();
            format!("`{text}` is not a run state; known: {}", words.join(", "))
        })
    }
}

/// A run on its way into the store, with its event.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Who is to run.
    pub agent: Name,
    /// Which trigger wanted it.
    pub trigger: Name,
    /// The lane key as rendered, for people and for the agent.
    pub key: Option<String>,
    /// Its lane; none: a lane of its own.
    pub lane: Option<LaneId>,
    /// A short line on what it is about.
    pub title: String,
    /// Not before this time.
    pub due_at: Timestamp,
    /// Refuse the whole request if this many runs of the trigger are queued already.
    pub max_queued: Option<u32>,
    /// Something a person should know, such as a lane key that could not be rendered.
    pub flag: Option<String>,
}

/// The right to work on a run: the run and the fencing token of this attempt. A finish with an old token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The run.
    pub run: RunId,
    /// Counts the leases ever given on it; starts at 1.
    pub token: u64,
}

/// One move of a run, for its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// When.
    pub at: Timestamp,
    /// To which state.
    pub to: State,
    /// The attempt that was being made, 0 before the first.
    pub attempt: u32,
    /// Why, in a few words: `retry after exit code 1`, `cancelled by admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A run as the store gives it back. Lists leave `output` empty.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The event it works on.
    pub event: EventId,
    /// The event's source.
    pub source: Name,
    /// The event's type.
    pub event_type: String,
    /// Who runs.
    pub agent: Name,
    /// Which trigger wanted it.
    pub trigger: Name,
    /// The lane key as rendered.
    pub key: Option<String>,
    /// Its lane; none: a lane of its own.
    pub lane: Option<LaneId>,
    /// A short line on what it is about.
    pub title: String,
    /// Where it stands.
    pub state: State,
    /// The run in front of it in its lane, while that holds it.
    pub behind: Option<RunId>,
    /// Attempts that counted so far (a snooze does not).
    pub attempt: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Not before this time, while queued.
    pub due_at: Timestamp,
    /// When the last attempt began.
    pub started_at: Option<Timestamp>,
    /// When it came to its final state.
    pub finished_at: Option<Timestamp>,
    /// The fencing token of the last lease; 0 before the first.
    pub lease: u64,
    /// When the lease lapses, while running.
    pub lease_until: Option<Timestamp>,
    /// Whether somebody asked to cancel it, while running.
    pub cancelling: bool,
    /// Every move, oldest first; the middle of a very long history is left out.
    pub moves: Vec<Move>,
    /// What went wrong last.
    pub error: Option<String>,
    /// What a person should know.
    pub flag: Option<String>,
    /// Steps the agent reported.
    pub steps: Option<u64>,
    /// What it used, over all attempts.
    pub usage: Usage,
    /// What it waits for, while waiting.
    pub approval: Option<Approval>,
    /// The result as the agent gave it; none in lists.
    pub output: Option<Bytes>,
}

/// How `decide` may end or delay a run. From the agent as it is when the attempt is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How often and when to try again.
    pub retries: Retries,
    /// How long a run may live unfinished, from its making.
    pub max_age: Duration,
    /// Whether others of the lane pass while it waits for a retry or an approval.
    pub passing: Passing,
}

/// What `decide` must know of a run.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Attempts that counted, this one included.
    pub attempt: u32,
    /// When the run was made.
    pub created_at: Timestamp,
}

/// What the store is to make of a run when an attempt ends: the next state and what goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// The next state.
    pub to: State,
    /// When to try again, if queued; else the time of the move.
    pub due_at: Timestamp,
    /// Whether this attempt counts; a snooze does not.
    pub counts: Counts,
    /// Whether the lane's next may go while this run is not final.
    pub lane: LaneEffect,
    /// Why, for the run's history.
    pub why: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// The result.
    pub output: Option<Bytes>,
    /// Steps the agent reported.
    pub steps: Option<u64>,
    /// What this attempt used.
    pub usage: Usage,
    /// What it now waits for.
    pub approval: Option<Approval>,
}

/// Whether an attempt counts against the retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// It does.
    Yes,
    /// It was snoozed, or never began.
    No,
}

/// What a move means for the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneEffect {
    /// Still the head: the next one waits.
    Hold,
    /// The next one may go.
    Release,
}

/// What follows from what an attempt said. Pure: the same facts and dice give the same answer.
///
/// A cancelled attempt ends the run; a snooze comes back without counting; a failure that may be tried again comes back
/// after the backoff until attempts or age run out (no pause reaches beyond the age); a lost one (crash, lapsed lease) is a failure that may be tried again.
pub fn decide(standing: Standing, outcome: Outcome, policy: &Policy, clock: &Clock) -> Transition {
    let now = clock.now();
    let hold = |passes: bool| if passes { LaneEffect::Release } else { LaneEffect::Hold };
    let mut next = Transition {
        to: State::Failed,
        due_at: now,
        counts: Counts::Yes,
        lane: LaneEffect::Release,
        why: None,
        error: None,
        output: None,
        steps: None,
        usage: Usage::default(),
        approval: None,
    };
    let again = match outcome {
        Outcome::Succeeded(result) => {
            next.to = State::Succeeded;
            next.output = Some(result.output);
            next.steps = result.steps;
            next.usage = result.usage;
            return next;
        }
        Outcome::Waiting(approval, usage) => {
            next.to = State::Waiting;
            next.lane = hold(policy.passing.on_wait);
            next.why = Some(format!("waits for: {}", approval.title));
            next.approval = Some(approval);
            next.usage = usage;
            return next;
        }
        Outcome::Cancelled { why } => {
            next.to = State::Cancelled;
            next.why = Some(why);
            return next;
        }
        Outcome::Snoozed { after, why, usage } => {
            next.counts = Counts::No;
            next.usage = usage;
            Again { after: Some(after), error: why, limited: false }
        }
        Outcome::Failed(failure) => {
            next.usage = failure.usage;
            next.output = failure.output;
            if !failure.retry {
                next.error = Some(failure.error);
                return next;
            }
            Again { after: failure.retry_after, error: failure.error, limited: true }
        }
        Outcome::TimedOut { after } => {
            Again { after: None, error: format!("no result within its timeout of {after:?}"), limited: true }
        }
        Outcome::Lost { why } => Again { after: None, error: why, limited: true },
    };
    let delay = again.after.unwrap_or_else(|| policy.retries.delay(standing.attempt, clock.random()));
    if again.limited && standing.attempt > policy.retries.max {
        next.error = Some(match policy.retries.max {
            0 => again.error,
            max => format!("{} (attempt {} of {})", again.error, standing.attempt, max + 1),
        });
        return next;
    }
    // A pause ends at the latest with the run's age, so that it does not itself end the run: there is one attempt more then,
    // and none behind that. Nobody looks at the age before an attempt, so each pause that is cut comes back here.
    let oldest = standing.created_at + policy.max_age;
    if now >= oldest {
        next.error = Some(format!("{} (and it is older than its max_age of {:?})", again.error, policy.max_age));
        return next;
    }
    next.to = State::Queued;
    next.due_at = (now + delay).min(oldest);
    next.lane = hold(policy.passing.on_retry);
    next.why = Some(match again.limited {
        true => format!("tries again after: {}", again.error),
        false => format!("snoozed: {}", again.error),
    });
    next.error = again.limited.then_some(again.error);
    next
}

struct Again {
    after: Option<Duration>,
    error: String,
    limited: bool,
}

#[cfg(test)]
mod tests;
