//! Decisions: what the door said to each request, and every check it made. The answer to "why did my agent not run?".

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use doorbell_core::DecisionId;
use doorbell_core::decision::Decision;
use doorbell_core::ports::{DecisionQuery, PageFrom, PageRequest};
use serde::Serialize;
use utoipa::ToSchema;

use super::list::List;
use super::params::Params;
use crate::front::Front;
use crate::problem::Problem;

/// What the door said to one request. Serialised by core.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct DecisionShown(Decision);

/// What the door said to one request.
#[derive(ToSchema)]
#[schema(as = Decision)]
#[allow(dead_code, reason = "the schema of core's Decision")]
pub(crate) struct DecisionSchema {
    id: String,
    /// The source asked for; null if the path belongs to none.
    source: Option<String>,
    /// `accepted duplicate ignored filter_error limited rejected unreadable handshake unavailable forwarded`
    kind: String,
    /// A stable word for programs.
    code: String,
    /// One sentence for a person.
    reason: String,
    /// Every check made, in order.
    checks: Vec<CheckShown>,
    /// The event it made or speaks of.
    event_id: Option<String>,
    /// Who asked.
    remote: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
}

/// One check.
#[derive(ToSchema)]
#[schema(as = Check)]
#[allow(dead_code, reason = "the schema of core's Check")]
pub(crate) struct CheckShown {
    name: String,
    passed: bool,
    /// What would have passed; never a secret.
    wanted: Option<String>,
    /// What was there; never a secret.
    seen: Option<String>,
}

impl utoipa::PartialSchema for DecisionShown {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        DecisionSchema::schema()
    }
}

impl ToSchema for DecisionShown {
    fn name() -> std::borrow::Cow<'static, str> {
        DecisionSchema::name()
    }

    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        DecisionSchema::schemas(schemas);
    }
}

/// Decisions, newest first
#[utoipa::path(get, path = "/decisions", tag = "decisions", params(
    ("source" = Option<String>, Query, description = "About this source"),
    ("kind" = Option<String>, Query, description = "Of this kind"),
    ("event" = Option<String>, Query, description = "On this event"),
    ("since" = Option<String>, Query, description = "Made at or after this RFC 3339 time"),
    ("until" = Option<String>, Query, description = "Made before this time"),
    ("q" = Option<String>, Query, description = "Whose reason or code contains this"),
    ("limit" = Option<u32>, Query, description = "At most this many: 1 to 500, else 50"),
    ("cursor" = Option<String>, Query, description = "`next` or `prev` of another page"),
), responses((status = 200, body = List<DecisionShown>)))]
pub(crate) async fn list(
    State(front): State<Arc<Front>>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<DecisionShown>>, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let wanted = DecisionQuery {
        source: params.parsed("source")?,
        kind: params.parsed("kind")?,
        event: params.parsed("event")?,
        since: params.time("since")?,
        until: params.time("until")?,
        q: params.text("q")?,
    };
    let page = params.page()?;
    params.end()?;
    let page = front.house.store.decisions(wanted, page).await?;
    Ok(Json(List::of(page, DecisionShown)))
}

/// One decision
#[utoipa::path(get, path = "/decisions/{id}", tag = "decisions", params(("id" = String, Path)),
    responses((status = 200, body = DecisionShown)))]
pub(crate) async fn show(
    State(front): State<Arc<Front>>,
    Path(id): Path<String>,
) -> Result<Json<DecisionShown>, Problem> {
    let id: DecisionId = id.parse()?;
    // Decisions stand in their order of commit, so the first one before the next place is this one, if it is still kept.
    let here = PageRequest { limit: 1, from: PageFrom::Before(id.seq.saturating_add(1)) };
    let page = front.house.store.decisions(DecisionQuery::default(), here).await?;
    let found = page.items.into_iter().find(|decision| decision.id == id);
    found
        .map(|decision| Json(DecisionShown(decision)))
        .ok_or_else(|| Problem::not_found(format!("there is no decision {id}")))
}
