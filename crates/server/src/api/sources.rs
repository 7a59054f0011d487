//! Sources: the ways in.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use doorbell_core::Name;
use doorbell_core::house::House;
use doorbell_core::source::Source;
use serde::Serialize;
use utoipa::ToSchema;

use super::list::List;
use super::params::Params;
use crate::front::Front;
use crate::problem::Problem;

/// A way in.
#[derive(Serialize, ToSchema)]
#[schema(as = Source)]
pub(crate) struct SourceShown {
    #[schema(value_type = String)]
    name: Name,
    /// `webhook`, `event`, …
    kind: &'static str,
    /// The path it listens on, if it is a webhook.
    path: Option<String>,
    /// How its sender signs and labels requests.
    provider: Option<String>,
    /// Whether it takes requests: switched on, and with a trigger that is.
    enabled: bool,
    /// Which triggers take its events.
    #[schema(value_type = Vec<String>)]
    triggers: Vec<Name>,
    /// Its settings as configured, without secrets.
    settings: serde_json::Value,
}

impl SourceShown {
    fn of(source: &Source, house: &House) -> Self {
        let is_on = source.triggers.is_empty() || source.triggers.iter().any(|t| house.is_enabled(t));
        Self {
            name: source.name.clone(),
            kind: source.kind(),
            path: source.webhook().map(|w| w.path.clone()),
            provider: source.webhook().map(|w| w.preset.id.to_string()),
            enabled: source.enabled && is_on,
            triggers: source.triggers.iter().map(|t| t.name.clone()).collect(),
            settings: source.shown.clone(),
        }
    }
}

/// Sources, by name
#[utoipa::path(get, path = "/sources", tag = "sources", params(
    ("q" = Option<String>, Query, description = "Whose name contains this"),
    ("limit" = Option<u32>, Query, description = "At most this many: 1 to 500, else 50"),
    ("cursor" = Option<String>, Query, description = "`next` or `prev` of another page"),
), responses((status = 200, body = List<SourceShown>)))]
pub(crate) async fn list(
    State(front): State<Arc<Front>>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<SourceShown>>, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let (q, page) = (params.text("q")?.unwrap_or_default(), params.page()?);
    params.end()?;
    let catalog = front.house.catalog();
    let named = catalog.sources.values().filter(|s| s.name.as_str().contains(&q));
    Ok(Json(List::cut(named.map(|source| SourceShown::of(source, &front.house)).collect(), page)))
}

/// One source
#[utoipa::path(get, path = "/sources/{name}", tag = "sources", params(("name" = String, Path)),
    responses((status = 200, body = SourceShown)))]
pub(crate) async fn show(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<SourceShown>, Problem> {
    let found = front.house.catalog().sources.get(&Name::new(&name)?).cloned();
    let source = found.ok_or_else(|| Problem::not_found(format!("there is no source `{name}`")))?;
    Ok(Json(SourceShown::of(&source, &front.house)))
}
