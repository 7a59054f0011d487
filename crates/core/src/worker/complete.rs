//! The call back of an asynchronous agent: its verdict, with the run token it was given.

use super::attempt::{End, Ended, conclude, held_policy};
use crate::attempt::Outcome;
use crate::house::House;
use crate::ids::RunId;
use crate::ports::StoreError;
use crate::run::{Standing, State};
use crate::run_token::BadToken;

/// Why a call back changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum CompleteError {
    /// The token is not good for this run.
    #[error(transparent)]
    Token(#[from] BadToken),
    /// The attempt is no longer the run's: it was cancelled, timed out, or tried again. Sending it again does not help.
    #[error("this attempt is over: the run has moved on, and the result was dropped")]
    Stale,
    /// The agent is still running under our eyes: what it prints and how it ends is its verdict.
    #[error("agents of this kind do not call back: print the verdict and exit")]
    Running,
    /// The store; sending it again may help.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Ends the attempt that `token` speaks for.
///
/// # Errors
/// See [`CompleteError`].
pub async fn complete(house: &House, run: RunId, token: &str, outcome: Outcome) -> Result<State, CompleteError> {
    let lease = house.tokens().read(token, run, house.clock.now())?;
    let found = house.store.run(run).await?;
    if found.lease != lease.token || found.state != State::Running {
        return Err(CompleteError::Stale);
    }
    let catalog = house.catalog();
    let passing = catalog.triggers.get(&found.trigger).map(|t| t.passing).unwrap_or_default();
    if catalog.agents.get(&found.agent).is_some_and(|agent| !agent.runner.calls_back()) {
        return Err(CompleteError::Running);
    }
    let policy = catalog.agents.get(&found.agent).map_or_else(held_policy, |agent| agent.policy(passing));
    let standing = Standing { attempt: found.attempt, created_at: found.created_at };
    let agent = catalog.agents.get(&found.agent).map(AsRef::as_ref);
    match conclude(house, End { agent, lease, standing, policy: &policy }, outcome).await {
        Ended::As(state, _) => {
            tracing::info!(run.id = %run, agent = %found.agent, %state, "an agent called back: its attempt ended");
            Ok(state)
        }
        Ended::Fenced => Err(CompleteError::Stale),
        Ended::Unknown => Err(StoreError::Closed.into()),
    }
}
