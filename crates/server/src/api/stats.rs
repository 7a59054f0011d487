//! What is queued and running now, by agent and trigger.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use doorbell_core::{Name, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use super::params::Params;
use crate::front::Front;
use crate::problem::Problem;

/// All queues.
#[derive(Serialize, ToSchema)]
pub(crate) struct Stats {
    queued: u64,
    running: u64,
    waiting: u64,
    queues: Vec<Queue>,
    /// Why the last reload of the configuration did not take effect; the one before stays.
    config: Option<String>,
}

/// One queue.
#[derive(Serialize, ToSchema)]
pub(crate) struct Queue {
    #[schema(value_type = String)]
    agent: Name,
    #[schema(value_type = String)]
    trigger: Name,
    queued: u64,
    running: u64,
    waiting: u64,
    /// The due time of the oldest run that could start.
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest_due: Option<Timestamp>,
    /// How long that is ago.
    oldest_due_seconds: Option<u64>,
}

/// What is queued, running and waiting
#[utoipa::path(get, path = "/stats", tag = "stats", responses((status = 200, body = Stats)))]
pub(crate) async fn stats(State(front): State<Arc<Front>>, RawQuery(query): RawQuery) -> Result<Json<Stats>, Problem> {
    Params::read(query.as_deref())?.end()?;
    let stats = front.house.store.stats().await?;
    let now = front.house.clock.now();
    Ok(Json(Stats {
        queued: stats.iter().map(|s| s.queued).sum(),
        running: stats.iter().map(|s| s.running).sum(),
        waiting: stats.iter().map(|s| s.waiting).sum(),
        config: front.status.reload_fault().map(|why| why.to_string()),
        queues: stats
            .into_iter()
            .map(|s| Queue {
                oldest_due_seconds: s.oldest_due.map(|due| now.since(due).as_secs()),
                agent: s.agent,
                trigger: s.trigger,
                queued: s.queued,
                running: s.running,
                waiting: s.waiting,
                oldest_due: s.oldest_due,
            })
            .collect(),
    }))
}
