//! What Aether's health server tells, on a listener of the contract's own: `/health`, `/ready`, `/status`, `/ticks` and
//! `/metrics`, for the one agent that the listener's endpoints ring. Theirs has no authentication; here it takes a token
//! unless the contract says `auth = "none"`.

use std::fmt::Write as _;

use doorbell_core::Timestamp;
use doorbell_core::agent::Agent;
use doorbell_core::house::House;
use doorbell_core::lists::{PageFrom, PageRequest, RunQuery};
use doorbell_core::ports::StoreError;
use doorbell_core::run::{Run, State};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use super::{held, plain, result};
use crate::body::Body;
use crate::contracts::Served;
use crate::contracts::call::{Asker, may_read};
use crate::front::Front;
use crate::reply;
use crate::status::Phase;

/// Ticks in `/ticks`, and those that the average of steps is over.
const TICKS_MAX: usize = 100;
/// Ticks are counted up to here: a count reads every one of them.
const COUNTED_MAX: usize = 1000;
/// Ticks that came to where a result is told.
const ENDED: [State; 4] = [State::Succeeded, State::Failed, State::Cancelled, State::Waiting];

/// Answers one of the standing paths for the agent that `served` rings.
pub(super) async fn answer(front: &Front, path: &str, served: &Served, asker: Asker<'_>) -> Response<Body> {
    let found = served.find(&front.house.catalog());
    if !may_read(front, served.reading, asker, found.as_ref().map(|f| &f.agent.name)).await {
        return told(StatusCode::UNAUTHORIZED, &json!({ "error": "unauthorized" }));
    }
    let Some(found) = found else {
        let gone = json!({ "ready": false, "reason": "trigger removed" });
        return told(StatusCode::SERVICE_UNAVAILABLE, &gone);
    };
    let said = match path {
        "/health" => Ok(told(StatusCode::OK, &json!({ "alive": true }))),
        "/ready" => Ok(ready(front, &found.agent).await),
        "/status" => status(front, &found.agent).await,
        "/ticks" => ticks(front, &found.agent).await,
        _ => metrics(front, &found.agent).await,
    };
    said.unwrap_or_else(|error| told(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": error.to_string() })))
}

async fn ready(front: &Front, agent: &Agent) -> Response<Body> {
    match not_ready(front, agent).await {
        None => told(StatusCode::OK, &json!({ "ready": true, "reason": "ok" })),
        Some(reason) => told(StatusCode::SERVICE_UNAVAILABLE, &json!({ "ready": false, "reason": reason })),
    }
}

async fn not_ready(front: &Front, agent: &Agent) -> Option<String> {
    match front.status.phase() {
        Phase::Starting => return Some("warming up".into()),
        Phase::Stopping => return Some("stopping".into()),
        Phase::Running => {}
    }
    if let Some(why) = held(&front.house, agent) {
        return Some(why.into());
    }
    front.probe.health(front).await.err().map(|why| format!("store: {why}"))
}

async fn status(front: &Front, agent: &Agent) -> Result<Response<Body>, StoreError> {
    let house = &front.house;
    let ended = newest(house, agent, COUNTED_MAX).await?;
    let word = match front.status.phase() {
        Phase::Starting => "initialized",
        Phase::Stopping => "stopping",
        Phase::Running if house.is_broken(agent) => "circuit_breaker_cooldown",
        Phase::Running => "running",
    };
    let now = house.clock.now();
    let up = i64::try_from(house.clock.uptime().as_secs()).unwrap_or_default();
    let status = json!({
        "status": word, "environment": null, "artifact_set": agent.name, "ticks_completed": ended.len(),
        "last_tick": ended.first().map(result), "started_at": Timestamp::from_secs(now.secs() - up),
    });
    Ok(told(StatusCode::OK, &status))
}

/// Oldest first, as theirs keeps them.
async fn ticks(front: &Front, agent: &Agent) -> Result<Response<Body>, StoreError> {
    let newest = newest(&front.house, agent, TICKS_MAX).await?;
    let ticks: Vec<Value> = newest.iter().rev().map(result).collect();
    Ok(told(StatusCode::OK, &ticks))
}

async fn metrics(front: &Front, agent: &Agent) -> Result<Response<Body>, StoreError> {
    let newest = newest(&front.house, agent, TICKS_MAX).await?;
    let waiting: u64 =
        front.house.store.stats().await?.iter().filter(|s| s.agent == agent.name).map(|s| s.waiting).sum();
    let mut text = String::new();
    if let Some(own) = &front.options.metrics {
        let rendered = own.render();
        let count = |states: &[State]| attempts(&rendered, agent, states);
        line(&mut text, "aether_ticks_total", "counter", count(&ENDED));
        line(&mut text, "aether_ticks_failed_total", "counter", count(&[State::Failed, State::Cancelled]));
    }
    #[allow(clippy::cast_precision_loss, reason = "steps of a hundred runs are fewer than 2^52")]
    let average = match newest.len() {
        0 => 0.0,
        ticks => newest.iter().filter_map(|run| run.steps).sum::<u64>() as f64 / ticks as f64,
    };
    line(&mut text, "aether_steps_per_tick_avg", "gauge", average);
    let running = u8::from(front.status.phase() == Phase::Running);
    line(&mut text, "aether_agent_running", "gauge", running);
    line(&mut text, "aether_agent_ready", "gauge", u8::from(not_ready(front, agent).await.is_none()));
    line(&mut text, "aether_pending_approvals", "gauge", waiting);
    let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(plain(StatusCode::OK, text, media))
}

fn line(text: &mut String, name: &str, kind: &str, value: impl std::fmt::Display) {
    // Writing into a string has no way to fail.
    let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
}

/// How many attempts of the agent since the start led to one of these states, out of the program's own metrics: counts
/// over the store would go down as runs are deleted.
fn attempts(rendered: &str, agent: &Agent, states: &[State]) -> u64 {
    let of = format!("agent=\"{}\"", agent.name);
    let counts = rendered.lines().filter_map(|line| {
        let (labels, count) = line.strip_prefix("doorbell_attempts_total{")?.split_once("} ")?;
        let is_in = |state: &State| labels.split(',').any(|label| label == format!("state=\"{}\"", state.as_str()));
        let is_ours = labels.split(',').any(|label| label == of) && states.iter().any(is_in);
        is_ours.then(|| count.trim().parse::<u64>().ok()).flatten()
    });
    counts.sum()
}

/// The agent's ticks that have a result, newest first.
async fn newest(house: &House, agent: &Agent, limit: usize) -> Result<Vec<Run>, StoreError> {
    let query = RunQuery { agent: Some(agent.name.clone()), states: ENDED.to_vec(), ..RunQuery::default() };
    Ok(house.store.runs(query, PageRequest { limit, from: PageFrom::Start }).await?.items)
}

fn told(code: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    reply::json(code, value)
}
