//! Events: looking at them, and replaying one by today's configuration.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use doorbell_core::decision::{Check, Kind};
use doorbell_core::envelope;
use doorbell_core::event::Event;
use doorbell_core::house::Catalog;
use doorbell_core::payload::Body as Payload;
use doorbell_core::ports::{EventQuery, PageFrom, PageRequest, RunQuery};
use doorbell_core::replay::{self, Replay};
use doorbell_core::{EventId, Name, RunId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::json::Body;
use super::list::List;
use super::params::Params;
use super::runs::RunShown;
use crate::front::Front;
use crate::problem::Problem;
use crate::reply;

/// Runs shown with an event; more are found through `/runs?event=`.
const RUNS_SHOWN: usize = 100;

/// An accepted fact, without its body.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventShown {
    #[schema(value_type = String, example = "evt_0000000001abcdefgh")]
    id: EventId,
    #[schema(value_type = String)]
    source: Name,
    /// The event's type, as the sender names it.
    r#type: String,
    subject: Option<String>,
    actor: Option<String>,
    /// The sender's own id of it.
    sender_id: Option<String>,
    /// When it happened as the sender tells, else when it was accepted.
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
    /// `accepted`, `ignored` or `filter_error`
    #[schema(value_type = String)]
    decision: Kind,
    /// Why it was not accepted.
    reason: Option<String>,
    /// Whether the sender was verified.
    verified: bool,
    /// How: `github hmac-sha256, secret 1`.
    verified_by: Option<String>,
    /// Who sent it.
    #[schema(value_type = Option<String>)]
    remote: Option<std::net::IpAddr>,
    /// Length of the body in bytes.
    body_bytes: u64,
}

/// An event with everything that is kept of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventDetail {
    #[serde(flatten)]
    event: EventShown,
    /// The body: JSON as it came, a form as an object, text as a string.
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<Box<RawValue>>,
    /// The body in base64, where it is not text.
    data_base64: Option<String>,
    /// Whether retention took the body.
    body_expired: bool,
    #[schema(value_type = serde_json::Value)]
    headers: serde_json::Map<String, serde_json::Value>,
    #[schema(value_type = serde_json::Value)]
    query: serde_json::Map<String, serde_json::Value>,
    /// Every check that the door made, in order.
    #[schema(value_type = Vec<super::decisions::CheckShown>)]
    checks: Vec<Check>,
    /// The runs on it, newest first.
    runs: Vec<RunShown>,
}

impl EventShown {
    fn of(event: &Event) -> Self {
        let facts = &event.facts;
        Self {
            id: event.id,
            source: event.source.clone(),
            r#type: event.event_type.clone(),
            subject: event.subject.clone(),
            actor: facts.actor.clone(),
            sender_id: facts.sender_id.clone(),
            time: facts.time.unwrap_or(event.received_at),
            received_at: event.received_at,
            decision: event.verdict,
            reason: facts.reason.clone(),
            verified: facts.verified_by.is_some(),
            verified_by: facts.verified_by.clone(),
            remote: event.remote,
            body_bytes: event.body_len,
        }
    }
}

/// Events, newest first, without bodies
#[utoipa::path(get, path = "/events", tag = "events", params(
    ("source" = Option<String>, Query, description = "From this source"),
    ("event_type" = Option<String>, Query, description = "Of this type"),
    ("decision" = Option<String>, Query, description = "`accepted`, `ignored` or `filter_error`"),
    ("since" = Option<String>, Query, description = "Accepted at or after this RFC 3339 time"),
    ("until" = Option<String>, Query, description = "Accepted before this time"),
    ("q" = Option<String>, Query, description = "Whose type, subject or sender's id contains this"),
    ("limit" = Option<u32>, Query, description = "At most this many: 1 to 500, else 50"),
    ("cursor" = Option<String>, Query, description = "`next` or `prev` of another page"),
), responses((status = 200, body = List<EventShown>)))]
pub(crate) async fn list(
    State(front): State<Arc<Front>>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<EventShown>>, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let wanted = EventQuery {
        source: params.parsed("source")?,
        event_type: params.text("event_type")?,
        verdict: params.parsed("decision")?,
        since: params.time("since")?,
        until: params.time("until")?,
        q: params.text("q")?,
    };
    let page = params.page()?;
    params.end()?;
    let page = front.house.store.events(wanted, page).await?;
    Ok(Json(List::of(page, |event| EventShown::of(&event))))
}

/// One event: its data, its headers, the checks made, and its runs
#[utoipa::path(get, path = "/events/{id}", tag = "events", params(("id" = String, Path)),
    responses((status = 200, body = EventDetail)))]
pub(crate) async fn show(
    State(front): State<Arc<Front>>,
    Path(id): Path<String>,
) -> Result<Json<EventDetail>, Problem> {
    let house = &front.house;
    let event = house.store.event(id.parse()?).await?;
    let catalog = house.catalog();
    let query = RunQuery { event: Some(event.id), ..RunQuery::default() };
    let runs = house.store.runs(query, PageRequest { limit: RUNS_SHOWN, from: PageFrom::Start }).await?;
    let stats = house.store.stats().await?;
    let bytes = event.body.clone();
    let body = Payload::restore(event.body_format, bytes.clone().unwrap_or_default()).map_err(|why| {
        let detail = format!("the event's body cannot be read back: {why}");
        Problem::new(http::StatusCode::INTERNAL_SERVER_ERROR, "unreadable", detail)
    })?;
    let told = envelope::told(&event, &body);
    Ok(Json(EventDetail {
        data: told.data.filter(|_| bytes.is_some()).map(|raw| reply::data(&raw)),
        data_base64: told.data_base64.filter(|_| bytes.is_some()),
        body_expired: bytes.is_none(),
        headers: told.headers,
        query: told.query,
        checks: event.facts.checks.clone(),
        runs: runs.items.into_iter().map(|run| RunShown::of(run, house, &catalog, &stats)).collect(),
        event: EventShown::of(&event),
    }))
}

/// How to replay an event.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReplayAsk {
    /// Run this agent in place of each trigger's own.
    #[schema(value_type = Option<String>)]
    agent: Option<Name>,
    /// Start this trigger, whatever its filter says.
    #[schema(value_type = Option<String>)]
    trigger: Option<Name>,
    /// Only say what would start.
    dry_run: bool,
}

/// What a replay started, or would.
#[derive(Serialize, ToSchema)]
pub(crate) struct Replayed {
    #[schema(value_type = String)]
    event_id: EventId,
    dry_run: bool,
    runs: Vec<ReplayedRun>,
}

/// One run of a replay.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReplayedRun {
    /// Null in a dry run.
    #[schema(value_type = Option<String>)]
    run_id: Option<RunId>,
    #[schema(value_type = String)]
    agent: Name,
    #[schema(value_type = String)]
    trigger: Name,
    key: Option<String>,
}

/// Starts new runs of a stored event, by today's configuration
///
/// Filters are asked again, unless a trigger is named. Events that were ignored can be replayed too.
#[utoipa::path(post, path = "/events/{id}/replay", tag = "events", params(("id" = String, Path)),
    request_body = ReplayAsk, responses((status = 200, body = Replayed)))]
pub(crate) async fn replay(
    State(front): State<Arc<Front>>,
    Path(id): Path<String>,
    Body(ask): Body<ReplayAsk>,
) -> Result<Json<Replayed>, Problem> {
    let house = &front.house;
    let event = house.store.event(id.parse()?).await?;
    let catalog: Arc<Catalog> = house.catalog();
    let wanted = Replay { agent: ask.agent, trigger: ask.trigger };
    let runs = replay::plan(house, &catalog, &event, &wanted).map_err(|why| Problem::conflict(why.to_string()))?;
    let mut shown: Vec<ReplayedRun> = runs
        .iter()
        .map(|run| ReplayedRun {
            run_id: None,
            agent: run.agent.clone(),
            trigger: run.trigger.clone(),
            key: run.key.clone(),
        })
        .collect();
    if !ask.dry_run {
        let ids = house.store.replay(event.id, runs, house.clock.now()).await?;
        for (run, id) in shown.iter_mut().zip(ids) {
            run.run_id = Some(id);
        }
        tracing::info!(event.id = %event.id, runs = shown.len(), "An event was replayed through the API");
    }
    Ok(Json(Replayed { event_id: event.id, dry_run: ask.dry_run, runs: shown }))
}
