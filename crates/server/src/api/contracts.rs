//! Contracts: what of other systems' wires is served here, where, and what answers.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};

use super::list::List;
use super::params::Params;
use crate::contracts::show::{ServedAt, all};
use crate::front::Front;
use crate::problem::Problem;

/// What wire contracts serve, in the order of the file; then agents that registered themselves
#[utoipa::path(get, path = "/contracts", tag = "sources", params(
    ("q" = Option<String>, Query, description = "Whose contract or id contains this"),
    ("limit" = Option<u32>, Query, description = "At most this many: 1 to 500, else 50"),
    ("cursor" = Option<String>, Query, description = "`next` or `prev` of another page"),
), responses((status = 200, body = List<ServedAt>)))]
pub(crate) async fn list(
    State(front): State<Arc<Front>>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<ServedAt>>, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let (q, page) = (params.text("q")?.unwrap_or_default(), params.page()?);
    params.end()?;
    let mut served = all(&front).await?;
    served.retain(|s| s.name().contains(&q));
    Ok(Json(List::cut(served, page)))
}
