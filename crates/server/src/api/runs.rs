//! Runs: looking at them, cancelling and retrying them, and the call back of an asynchronous agent.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, RawQuery, State};
use doorbell_core::attempt::{Approval, Usage};
use doorbell_core::house::{Catalog, House};
use doorbell_core::ports::{QueueStats, RunQuery};
use doorbell_core::run::{Move, Run, State as RunState};
use doorbell_core::worker::{self, CompleteError};
use doorbell_core::{Name, RunId, Timestamp};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::json::Raw;
use super::list::List;
use super::params::Params;
use crate::auth::Caller;
use crate::front::Front;
use crate::problem::Problem;
use crate::{auth, reply};

/// One agent working on one event.
#[derive(Serialize, ToSchema)]
#[schema(as = Run)]
pub(crate) struct RunShown {
    #[schema(value_type = String, example = "run_0000000001abcdefgh")]
    pub id: RunId,
    /// A short line made from the event.
    title: String,
    #[schema(value_type = String)]
    agent: Name,
    #[schema(value_type = String)]
    source: Name,
    #[schema(value_type = String)]
    trigger: Name,
    /// The kind of the source: `webhook`, `event`, …; null if the source is no longer configured.
    trigger_kind: Option<&'static str>,
    #[schema(value_type = String)]
    event_id: doorbell_core::EventId,
    event_type: String,
    /// The lane key as rendered.
    key: Option<String>,
    /// The lane, as a number in hex; null: a lane of its own.
    lane: Option<String>,
    /// `queued running waiting succeeded failed cancelled`
    #[schema(value_type = String)]
    state: RunState,
    /// What a queued run waits for: `agent_missing`, `trigger_missing`, `agent_paused`, `breaker`, `lane:<run>`, a
    /// time, `max_concurrent` (the trigger's runs at once) or `concurrency` (the agent's).
    held_by: Option<String>,
    /// Attempts that counted so far.
    attempt: u32,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    due_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    started_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    finished_at: Option<Timestamp>,
    /// Whether somebody asked to cancel it while it runs.
    cancelling: bool,
    /// Every move, oldest first.
    #[schema(value_type = Vec<Transition>)]
    transitions: Vec<Move>,
    /// The result: JSON if it is, else a string; null in lists.
    #[schema(value_type = Option<serde_json::Value>)]
    output: Option<Box<RawValue>>,
    /// What went wrong last.
    error: Option<String>,
    /// What a person should know, such as a lane key that could not be rendered.
    flag: Option<String>,
    /// Steps the agent reported.
    steps: Option<u64>,
    #[schema(value_type = UsageShown)]
    usage: Usage,
    /// What it waits for, while waiting.
    #[schema(value_type = Vec<ApprovalShown>)]
    pending_approvals: Vec<Approval>,
}

/// One move of a run.
#[derive(ToSchema)]
#[allow(dead_code, reason = "the schema of core's Move")]
pub(crate) struct Transition {
    #[schema(format = DateTime)]
    at: String,
    to: String,
    /// The attempt that was being made, 0 before the first.
    attempt: u32,
    why: Option<String>,
}

/// What an agent used.
#[derive(ToSchema)]
#[schema(as = Usage)]
#[allow(dead_code, reason = "the schema of core's Usage")]
pub(crate) struct UsageShown {
    tokens: Option<u64>,
    cost_usd: Option<f64>,
}

/// What a run waits for.
#[derive(ToSchema)]
#[schema(as = Approval)]
#[allow(dead_code, reason = "the schema of core's Approval")]
pub(crate) struct ApprovalShown {
    title: String,
    detail: Option<serde_json::Value>,
}

impl RunShown {
    pub(crate) fn of(run: Run, house: &House, catalog: &Catalog, stats: &[QueueStats]) -> Self {
        let held_by = held_by(&run, house, catalog, stats);
        Self {
            trigger_kind: catalog.sources.get(&run.source).map(|s| s.kind()),
            held_by,
            lane: run.lane.map(|lane| format!("{:016x}", lane.0)),
            output: run.output.as_deref().map(reply::output),
            pending_approvals: run
                .approval
                .filter(|_| run.state == RunState::Waiting)
                .map(|asked| Approval { detail: asked.detail.map(reply::shallow), ..asked })
                .into_iter()
                .collect(),
            id: run.id,
            title: run.title,
            agent: run.agent,
            source: run.source,
            trigger: run.trigger,
            event_id: run.event,
            event_type: run.event_type,
            key: run.key,
            state: run.state,
            attempt: run.attempt,
            created_at: run.created_at,
            due_at: run.due_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            cancelling: run.cancelling,
            transitions: run.moves,
            error: run.error,
            flag: run.flag,
            steps: run.steps,
            usage: run.usage,
        }
    }
}

/// What a queued run waits for.
fn held_by(run: &Run, house: &House, catalog: &Catalog, stats: &[QueueStats]) -> Option<String> {
    if run.state != RunState::Queued {
        return None;
    }
    let Some(agent) = catalog.agents.get(&run.agent) else { return Some("agent_missing".into()) };
    let Some(trigger) = catalog.triggers.get(&run.trigger) else { return Some("trigger_missing".into()) };
    if house.is_paused(agent) {
        return Some("agent_paused".into());
    }
    if house.is_broken(agent) {
        return Some("breaker".into());
    }
    if let Some(front) = run.behind {
        return Some(format!("lane:{front}"));
    }
    if run.due_at > house.clock.now() {
        return Some(run.due_at.to_string());
    }
    let running = |fits: &dyn Fn(&&QueueStats) -> bool| stats.iter().filter(fits).map(|s| s.running).sum::<u64>();
    let has_place = running(&|s| s.agent == agent.name) < u64::from(agent.concurrency);
    let is_full = |cap: u32| running(&|s| s.trigger == trigger.name) >= u64::from(cap);
    Some(if has_place && trigger.max_concurrent.is_some_and(is_full) { "max_concurrent" } else { "concurrency" }.into())
}

/// Runs, newest first
///
/// Without outputs.
#[utoipa::path(get, path = "/runs", tag = "runs", params(
    ("agent" = Option<String>, Query, description = "Of this agent"),
    ("trigger" = Option<String>, Query, description = "Of these triggers, with commas"),
    ("trigger_kind" = Option<String>, Query, description = "Of triggers whose source is of this kind"),
    ("state" = Option<String>, Query, description = "In one of these states, with commas"),
    ("event" = Option<String>, Query, description = "On this event"),
    ("event_type" = Option<String>, Query, description = "On events of this type"),
    ("since" = Option<String>, Query, description = "Made at or after this RFC 3339 time"),
    ("until" = Option<String>, Query, description = "Made before this time"),
    ("q" = Option<String>, Query, description = "Whose title, key or error contains this"),
    ("limit" = Option<u32>, Query, description = "At most this many: 1 to 500, else 50"),
    ("cursor" = Option<String>, Query, description = "`next` or `prev` of another page"),
), responses((status = 200, body = List<RunShown>)))]
pub(crate) async fn list(
    State(front): State<Arc<Front>>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<RunShown>>, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let mut wanted = RunQuery {
        agent: params.parsed("agent")?,
        triggers: params.several("trigger")?,
        states: params.several("state")?,
        event: params.parsed("event")?,
        event_type: params.text("event_type")?,
        since: params.time("since")?,
        until: params.time("until")?,
        q: params.text("q")?,
    };
    let kind = params.text("trigger_kind")?;
    let page = params.page()?;
    params.end()?;
    let catalog = front.house.catalog();
    if let Some(kind) = kind {
        let is_of_kind = |source: &Name| catalog.sources.get(source).is_some_and(|s| s.kind() == kind);
        let named = std::mem::take(&mut wanted.triggers);
        let of_kind = catalog.triggers.values().filter(|t| is_of_kind(&t.source)).map(|t| t.name.clone());
        wanted.triggers = of_kind.filter(|name| named.is_empty() || named.contains(name)).collect();
        // To the store no trigger at all would mean any.
        if wanted.triggers.is_empty() {
            return Ok(Json(List::empty()));
        }
    }
    let page = front.house.store.runs(wanted, page).await?;
    let stats = front.house.store.stats().await?;
    Ok(Json(List::of(page, |run| RunShown::of(run, &front.house, &catalog, &stats))))
}

/// One run, with its output
#[utoipa::path(get, path = "/runs/{id}", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = RunShown)))]
pub(crate) async fn show(State(front): State<Arc<Front>>, Path(id): Path<String>) -> Result<Json<RunShown>, Problem> {
    let run = front.house.store.run(id.parse()?).await?;
    let stats = front.house.store.stats().await?;
    Ok(Json(RunShown::of(run, &front.house, &front.house.catalog(), &stats)))
}

/// Where a run stands after a verb.
#[derive(Serialize, ToSchema)]
pub(crate) struct Moved {
    #[schema(value_type = String)]
    id: RunId,
    /// A running run that is cancelled is still `running` until its attempt has ended.
    #[schema(value_type = String)]
    state: RunState,
}

/// Cancels a run
///
/// A queued or waiting one at once, a running one as soon as its attempt has ended.
#[utoipa::path(post, path = "/runs/{id}/cancel", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = Moved)))]
pub(crate) async fn cancel(
    State(front): State<Arc<Front>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Moved>, Problem> {
    let id: RunId = id.parse()?;
    let state = front.house.store.cancel(id, caller.name(), front.house.clock.now()).await?;
    tracing::info!(run.id = %id, %state, "A run was cancelled through the API");
    Ok(Json(Moved { id, state }))
}

/// Queues a failed or cancelled run again, with fresh attempts, at the tail of its lane
#[utoipa::path(post, path = "/runs/{id}/retry", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = Moved)))]
pub(crate) async fn retry(
    State(front): State<Arc<Front>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Moved>, Problem> {
    let id: RunId = id.parse()?;
    front.house.store.retry(id, caller.name(), front.house.clock.now()).await?;
    tracing::info!(run.id = %id, "A run was retried through the API");
    Ok(Json(Moved { id, state: RunState::Queued }))
}

/// The verdict of an agent that answered 202 and works on its own
///
/// With the run token it was given; the body is the same verdict that a process prints.
#[utoipa::path(post, path = "/runs/{id}/complete", tag = "runs", params(("id" = String, Path)),
    request_body = serde_json::Value, responses((status = 200, body = Moved)))]
pub(crate) async fn complete(
    State(front): State<Arc<Front>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    request: axum::extract::Request,
) -> Result<Json<Moved>, Problem> {
    let invalid = |detail: String| Problem::new(StatusCode::UNAUTHORIZED, "bad_run_token", detail);
    let token = auth::bearer(&headers).ok_or_else(|| {
        invalid("send `Authorization: Bearer <run token>` with the token the attempt was given".into())
    })?;
    let id: RunId = id.parse().map_err(|_| invalid("the run token is not valid".into()))?;
    // Before the body is read: nobody without a token makes us hold one.
    let house = &front.house;
    house.tokens().read(token, id, house.clock.now()).map_err(token_problem)?;
    let Raw(whole) = Raw::read(request, &front).await?;
    // Not JSON of a verdict's form: the agent may send it again. What has the form and makes no sense is a failure.
    serde_json::from_slice::<VerdictForm>(&whole.bytes).ok().filter(VerdictForm::is_one).ok_or_else(|| {
        Problem::bad("the body is not a verdict: send {\"status\":\"succeeded\",\"output\":…} before the deadline")
    })?;
    let outcome = doorbell_core::verdict::completion(&whole.bytes);
    match worker::complete(house, id, token, outcome).await {
        Ok(state) => Ok(Json(Moved { id, state })),
        Err(CompleteError::Token(e)) => Err(token_problem(e)),
        Err(no @ (CompleteError::Stale | CompleteError::Running)) => Err(Problem::conflict(no.to_string())),
        Err(CompleteError::Store(e)) => Err(e.into()),
    }
}

/// A stale token is a 409, for the agent to know that the run went on without it; others are 401.
fn token_problem(why: doorbell_core::run_token::BadToken) -> Problem {
    use doorbell_core::run_token::BadToken::{Expired, Forged, OtherRun};
    match why {
        Expired => Problem::conflict(why.to_string()),
        Forged | OtherRun => Problem::new(StatusCode::UNAUTHORIZED, "bad_run_token", why.to_string()),
    }
}

/// What tells a verdict from anything else.
#[derive(serde::Deserialize)]
struct VerdictForm {
    doorbell: Option<serde::de::IgnoredAny>,
    status: Option<serde::de::IgnoredAny>,
}

impl VerdictForm {
    fn is_one(&self) -> bool {
        self.doorbell.is_some() || self.status.is_some()
    }
}
