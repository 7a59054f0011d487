//! Agents: who can be run, and the switch that holds their runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use doorbell_core::agent::Agent;
use doorbell_core::breaker;
use doorbell_core::house::House;
use doorbell_core::ports::{Flag, QueueStats};
use doorbell_core::{Name, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::list::List;
use super::params::Params;
use crate::front::Front;
use crate::problem::Problem;

/// Who can be run.
#[derive(Serialize, ToSchema)]
#[schema(as = Agent)]
pub(crate) struct AgentShown {
    #[schema(value_type = String)]
    name: Name,
    /// How it is run: `process`, `http`, …
    runner: String,
    /// How it stands: `ready`, `paused`, `breaker_open` (its runs are held), `breaker_half_open` (one is let go to see).
    state: &'static str,
    /// Whether its runs are held by an operator.
    paused: bool,
    /// Its breaker; null if it has none.
    breaker: Option<BreakerShown>,
    /// Attempts at once.
    concurrency: u32,
    /// How long one attempt may take.
    timeout_seconds: u64,
    queued: u64,
    running: u64,
    waiting: u64,
    /// Its settings as configured, without secrets.
    settings: serde_json::Value,
}

/// Whether an agent that keeps failing is given runs.
#[derive(Serialize, ToSchema)]
#[schema(as = Breaker)]
pub(crate) struct BreakerShown {
    /// `closed` (runs go), `open` (they are held) or `half_open` (one goes, to see).
    state: &'static str,
    /// Failures since the last good end.
    failures: u32,
    /// Until when it is open.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
}

impl AgentShown {
    fn of(agent: &Agent, house: &House, stats: &[QueueStats]) -> Self {
        let sum = |of: fn(&QueueStats) -> u64| stats.iter().filter(|s| s.agent == agent.name).map(of).sum();
        Self {
            name: agent.name.clone(),
            runner: agent.kind.clone(),
            state: match house.breaker(agent) {
                _ if house.is_paused(agent) => "paused",
                Some((breaker::State::Open(_), _)) => "breaker_open",
                Some((breaker::State::HalfOpen, _)) => "breaker_half_open",
                Some((breaker::State::Closed, _)) | None => "ready",
            },
            paused: house.is_paused(agent),
            breaker: house.breaker(agent).map(|(state, failures)| BreakerShown {
                state: state.as_str(),
                failures,
                until: match state {
                    breaker::State::Open(until) => Some(until),
                    breaker::State::Closed | breaker::State::HalfOpen => None,
                },
            }),
            concurrency: agent.concurrency,
            timeout_seconds: agent.time_limit.as_secs(),
            queued: sum(|s| s.queued),
            running: sum(|s| s.running),
            waiting: sum(|s| s.waiting),
            settings: agent.shown.clone(),
        }
    }
}

/// Agents, by name
#[utoipa::path(get, path = "/agents", tag = "agents", params(
    ("q" = Option<String>, Query, description = "Whose name contains this"),
    ("limit" = Option<u32>, Query, description = "At most this many: 1 to 500, else 50"),
    ("cursor" = Option<String>, Query, description = "`next` or `prev` of another page"),
), responses((status = 200, body = List<AgentShown>)))]
pub(crate) async fn list(
    State(front): State<Arc<Front>>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<AgentShown>>, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let (q, page) = (params.text("q")?.unwrap_or_default(), params.page()?);
    params.end()?;
    let stats = front.house.store.stats().await?;
    let catalog = front.house.catalog();
    let named = catalog.agents.values().filter(|a| a.name.as_str().contains(&q));
    Ok(Json(List::cut(named.map(|agent| AgentShown::of(agent, &front.house, &stats)).collect(), page)))
}

/// One agent
#[utoipa::path(get, path = "/agents/{name}", tag = "agents", params(("name" = String, Path)),
    responses((status = 200, body = AgentShown)))]
pub(crate) async fn show(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<AgentShown>, Problem> {
    let agent = find(&front, &name)?;
    let stats = front.house.store.stats().await?;
    Ok(Json(AgentShown::of(&agent, &front.house, &stats)))
}

/// Holds the agent's runs: they are accepted and queued, not run
///
/// Survives restarts, and wins over the file.
#[utoipa::path(post, path = "/agents/{name}/pause", tag = "agents", params(("name" = String, Path)),
    responses((status = 200, body = AgentShown)))]
pub(crate) async fn pause(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<AgentShown>, Problem> {
    set_paused(&front, &name, Switch::On).await
}

/// Lets the agent's runs go again
///
/// Closes its breaker too.
#[utoipa::path(post, path = "/agents/{name}/resume", tag = "agents", params(("name" = String, Path)),
    responses((status = 200, body = AgentShown)))]
pub(crate) async fn resume(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<AgentShown>, Problem> {
    front.house.close_breaker(&*find(&front, &name)?).await?;
    set_paused(&front, &name, Switch::Off).await
}

enum Switch {
    On,
    Off,
}

async fn set_paused(front: &Front, name: &str, paused: Switch) -> Result<Json<AgentShown>, Problem> {
    let agent = find(front, name)?;
    let paused = matches!(paused, Switch::On);
    front.house.set_flag(Flag::AgentPaused(agent.name.clone()), paused).await?;
    tracing::info!(agent = %agent.name, paused, "An agent was switched through the API");
    let stats = front.house.store.stats().await?;
    Ok(Json(AgentShown::of(&agent, &front.house, &stats)))
}

fn find(front: &Front, name: &str) -> Result<Arc<Agent>, Problem> {
    let found = front.house.catalog().agents.get(&Name::new(name)?).cloned();
    found.ok_or_else(|| Problem::not_found(format!("there is no agent `{name}`")))
}
