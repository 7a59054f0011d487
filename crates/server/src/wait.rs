//! `respond = "result"`: the sender waits for the stored run. Nothing hangs on the wait: a crash or a time-out loses
//! nothing, and a redelivery joins it (`docs/semantics.md`, 15).

use std::collections::HashMap;
use std::time::Duration;

use doorbell_core::house::House;
use doorbell_core::ingest::Taken;
use doorbell_core::ports::Notice;
use doorbell_core::run::{Run, State};
use doorbell_core::{Name, RunId};
use http::{Response, StatusCode};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::body::Body;
use crate::reply::{self, Entry, RunEntry};

/// A missed notice costs at most this much.
const POLL: Duration = Duration::from_millis(500);

/// Waits until every run that `taken` made or met has ended, at most `limit`; none if they have not. `notices` were
/// subscribed to before the event was accepted.
pub(crate) async fn result(
    house: &House,
    taken: &Taken,
    notices: broadcast::Receiver<Notice>,
    limit: Duration,
) -> Option<Response<Body>> {
    let (event, runs): (_, Vec<(&Name, RunId)>) = match taken {
        Taken::Accepted { event, runs } => (*event, runs.iter().map(|(t, r)| (t, *r)).collect()),
        Taken::Duplicate { event, runs } => (*event, runs.iter().map(|(t, r, _)| (t, *r)).collect()),
        Taken::Ignored { .. } => return None,
    };
    let wanted = runs.iter().map(|(_, r)| *r).collect();
    let mut ended = Ended { house, wanted, is_enough: State::is_final, found: HashMap::new() };
    if ended.wanted.is_empty() || !ended.wait(notices, Instant::now() + limit).await {
        return None;
    }
    let of = |run: &RunId| ended.found.get(run);
    let first = of(&runs.first()?.1)?;
    let mut entry = Entry {
        event_id: Some(event),
        run_id: Some(first.id),
        state: Some(first.state),
        output: output(first),
        ..Entry::bare(word(first.state))
    };
    if runs.len() > 1 {
        for (trigger, run_id) in runs.iter().copied() {
            let found = of(&run_id);
            let (state, output) = (found.map(|r| r.state), found.and_then(output));
            entry.runs.push(RunEntry { trigger, run_id, state, output });
        }
    }
    Some(reply::json(StatusCode::OK, &entry))
}

/// The run once it has ended or waits for a person; after `limit` as it is then. None: the store does not tell.
pub(crate) async fn settled(
    house: &House,
    run: RunId,
    notices: broadcast::Receiver<Notice>,
    limit: Duration,
) -> Option<Run> {
    let is_enough = |state: State| state.is_final() || state == State::Waiting;
    let mut ended = Ended { house, wanted: vec![run], is_enough, found: HashMap::new() };
    match ended.wait(notices, Instant::now() + limit).await {
        true => ended.found.remove(&run),
        false => house.store.run(run).await.ok(),
    }
}

/// The first run that was made or met.
pub(crate) fn first_run(taken: &[Taken]) -> Option<RunId> {
    match taken.first()? {
        Taken::Accepted { runs, .. } => runs.first().map(|(_, run)| *run),
        Taken::Duplicate { runs, .. } => runs.first().map(|(_, run, _)| *run),
        Taken::Ignored { .. } => None,
    }
}

/// Ended badly is ended badly, also if it was a person who ended it; `state` tells.
fn word(state: State) -> &'static str {
    if state == State::Succeeded { "succeeded" } else { "failed" }
}

fn output(run: &Run) -> Option<Box<serde_json::value::RawValue>> {
    run.output.as_deref().map(reply::output)
}

struct Ended<'h> {
    house: &'h House,
    wanted: Vec<RunId>,
    /// Whether a run in this state has come to where the caller wants it.
    is_enough: fn(State) -> bool,
    found: HashMap<RunId, Run>,
}

impl Ended<'_> {
    async fn wait(&mut self, mut notices: broadcast::Receiver<Notice>, until: Instant) -> bool {
        self.look().await;
        while self.found.len() < self.wanted.len() {
            let next_look = (Instant::now() + POLL).min(until);
            let moved = async {
                loop {
                    match notices.recv().await {
                        Ok(Notice::Moved(run, state)) if (self.is_enough)(state) && self.wanted.contains(&run) => {
                            return;
                        }
                        Ok(_) => {}
                        Err(RecvError::Lagged(_)) => return,
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            let timed_out = tokio::time::timeout_at(next_look, moved).await.is_err();
            self.look().await;
            if timed_out && Instant::now() >= until {
                break;
            }
        }
        self.found.len() == self.wanted.len()
    }

    /// Takes up what has ended. What cannot be read now is looked at again.
    async fn look(&mut self) {
        for run in &self.wanted {
            if self.found.contains_key(run) {
                continue;
            }
            match self.house.store.run(*run).await {
                Ok(found) if (self.is_enough)(found.state) => {
                    self.found.insert(*run, found);
                }
                _ => {}
            }
        }
    }
}
