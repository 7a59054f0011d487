//! Triggers: which events start which agent, and the switch that closes one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use doorbell_core::Name;
use doorbell_core::house::{Catalog, House};
use doorbell_core::ports::Flag;
use doorbell_core::trigger::Trigger;
use serde::Serialize;
use utoipa::ToSchema;

use super::list::List;
use super::params::Params;
use crate::contracts::show::ServedAt;
use crate::front::Front;
use crate::problem::Problem;

/// Which events start which agent.
#[derive(Serialize, ToSchema)]
#[schema(as = Trigger)]
pub(crate) struct TriggerShown {
    #[schema(value_type = String)]
    name: Name,
    #[schema(value_type = String)]
    source: Name,
    #[schema(value_type = String)]
    agent: Name,
    /// The kind of its source; null if that is missing.
    kind: Option<&'static str>,
    /// The wire contracts that ring it: `datalayer/helpdesk`, the contract and what its clients call it.
    contracts: Vec<String>,
    /// Whether it takes events.
    enabled: bool,
    /// Runs at once; null: only the agent's concurrency.
    max_concurrent: Option<u32>,
    /// Runs that may be queued.
    max_queued: Option<u32>,
    /// Its filter, key, prompt and the rest as configured.
    settings: serde_json::Value,
}

impl TriggerShown {
    fn of(trigger: &Trigger, house: &House, catalog: &Catalog, served: &[ServedAt]) -> Self {
        let rings = |s: &&ServedAt| s.trigger.as_ref() == Some(&trigger.name);
        Self {
            contracts: served.iter().filter(rings).map(ServedAt::name).collect(),
            name: trigger.name.clone(),
            source: trigger.source.clone(),
            agent: trigger.agent.clone(),
            kind: catalog.sources.get(&trigger.source).map(|s| s.kind()),
            enabled: house.is_enabled(trigger),
            max_concurrent: trigger.max_concurrent,
            max_queued: trigger.max_queued,
            settings: trigger.shown.clone(),
        }
    }
}

/// Triggers, by name
#[utoipa::path(get, path = "/triggers", tag = "triggers", params(
    ("agent" = Option<String>, Query, description = "Of this agent"),
    ("source" = Option<String>, Query, description = "Of this source"),
    ("q" = Option<String>, Query, description = "Whose name contains this"),
    ("limit" = Option<u32>, Query, description = "At most this many: 1 to 500, else 50"),
    ("cursor" = Option<String>, Query, description = "`next` or `prev` of another page"),
), responses((status = 200, body = List<TriggerShown>)))]
pub(crate) async fn list(
    State(front): State<Arc<Front>>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<TriggerShown>>, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let agent: Option<Name> = params.parsed("agent")?;
    let source: Option<Name> = params.parsed("source")?;
    let (q, page) = (params.text("q")?.unwrap_or_default(), params.page()?);
    params.end()?;
    let catalog = front.house.catalog();
    let wanted = catalog.triggers.values().filter(|t| {
        t.name.as_str().contains(&q)
            && agent.as_ref().is_none_or(|a| *a == t.agent)
            && source.as_ref().is_none_or(|s| *s == t.source)
    });
    let served = front.served();
    Ok(Json(List::cut(
        wanted.map(|trigger| TriggerShown::of(trigger, &front.house, &catalog, &served)).collect(),
        page,
    )))
}

/// One trigger
#[utoipa::path(get, path = "/triggers/{name}", tag = "triggers", params(("name" = String, Path)),
    responses((status = 200, body = TriggerShown)))]
pub(crate) async fn show(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<TriggerShown>, Problem> {
    let catalog = front.house.catalog();
    Ok(Json(TriggerShown::of(find(&catalog, &name)?, &front.house, &catalog, &front.served())))
}

/// Lets the trigger take events again
#[utoipa::path(post, path = "/triggers/{name}/enable", tag = "triggers", params(("name" = String, Path)),
    responses((status = 200, body = TriggerShown)))]
pub(crate) async fn enable(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<TriggerShown>, Problem> {
    switch(&front, &name, Switch::On).await
}

/// Closes the trigger: events no longer start runs of it
///
/// Survives restarts, and wins over the file. A source whose triggers are all closed answers 404.
#[utoipa::path(post, path = "/triggers/{name}/disable", tag = "triggers", params(("name" = String, Path)),
    responses((status = 200, body = TriggerShown)))]
pub(crate) async fn disable(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<TriggerShown>, Problem> {
    switch(&front, &name, Switch::Off).await
}

enum Switch {
    On,
    Off,
}

async fn switch(front: &Front, name: &str, to: Switch) -> Result<Json<TriggerShown>, Problem> {
    let catalog = front.house.catalog();
    let trigger = find(&catalog, name)?;
    let disabled = matches!(to, Switch::Off);
    front.house.set_flag(Flag::TriggerDisabled(trigger.name.clone()), disabled).await?;
    tracing::info!(trigger = %trigger.name, disabled, "A trigger was switched through the API");
    Ok(Json(TriggerShown::of(trigger, &front.house, &catalog, &front.served())))
}

fn find<'c>(catalog: &'c Catalog, name: &str) -> Result<&'c Arc<Trigger>, Problem> {
    let found = catalog.triggers.get(&Name::new(name)?);
    found.ok_or_else(|| Problem::not_found(format!("there is no trigger `{name}`")))
}
