//! Sources: the ways in.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use doorbell_core::house::House;
use doorbell_core::provider::PAIRING_MAX;
use doorbell_core::seal::{KeepEarlier, SecretName};
use doorbell_core::source::Source;
use doorbell_core::{Name, Timestamp};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::Body;
use super::list::List;
use super::params::Params;
use crate::contracts::show::{ServedAt, addresses};
use crate::front::Front;
use crate::problem::Problem;

/// How long a source stands open, unless told otherwise: the time to click through a sender's settings.
const PAIRING_MINUTES: u64 = 5;

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
    /// Where its events come in: paths of the server's address, behind the address where a contract has a listener of its
    /// own. A path that lets nobody in (`auth = "contract"`) is left out.
    addresses: Vec<String>,
    /// Whether it takes requests: switched on, and with a trigger that is.
    enabled: bool,
    /// How it stands: `enabled`, `disabled`, or on and letting nobody in, since its secret is not there or cannot be used:
    /// `secret_missing`, `secret_unusable`, `secret_unreadable` (`not_ready` says more).
    state: &'static str,
    /// Which triggers take its events.
    #[schema(value_type = Vec<String>)]
    triggers: Vec<Name>,
    /// Why it lets nobody in yet: a secret that is not there; null if it can check its sender.
    not_ready: Option<String>,
    /// Until when its sender may hand over a secret; null if it stands not open for that.
    #[schema(value_type = Option<String>, format = DateTime)]
    pairing_until: Option<Timestamp>,
    /// Its settings as configured, without secrets.
    settings: serde_json::Value,
}

/// How a source is opened for pairing.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Opening {
    /// For how long: 1 to 10, left out: 5.
    minutes: Option<u64>,
    /// Whether secrets that were handed over before stay good: for a sender with several webhooks, each with a secret of its
    /// own. Left out: they do not.
    #[serde(default)]
    keep: bool,
}

impl SourceShown {
    async fn of(source: &Source, house: &House, served: &[ServedAt]) -> Self {
        let not_ready = match source.webhook() {
            Some(webhook) => {
                let present = webhook.verifier.now(house.vault(), house.clock.now()).await;
                present.verifier().err().cloned()
            }
            None => None,
        };
        let has_trigger = source.triggers.is_empty() || source.triggers.iter().any(|t| house.is_enabled(t));
        let enabled = source.enabled && has_trigger;
        Self {
            name: source.name.clone(),
            kind: source.kind(),
            path: source.webhook().map(|w| w.path.clone()),
            provider: source.webhook().map(|w| w.preset.id.to_string()),
            addresses: addresses(source, served),
            enabled,
            state: match (enabled, &not_ready) {
                (false, _) => "disabled",
                (true, Some(why)) => why.code,
                (true, None) => "enabled",
            },
            triggers: source.triggers.iter().map(|t| t.name.clone()).collect(),
            not_ready: not_ready.map(|why| why.reason),
            pairing_until: house.open_for_pairing(&source.name).map(|pairing| pairing.until),
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
    let served = front.served();
    let shown = join_all(named.map(|source| SourceShown::of(source, &front.house, &served))).await;
    Ok(Json(List::cut(shown, page)))
}

/// One source
#[utoipa::path(get, path = "/sources/{name}", tag = "sources", params(("name" = String, Path)),
    responses((status = 200, body = SourceShown)))]
pub(crate) async fn show(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<SourceShown>, Problem> {
    Ok(Json(SourceShown::of(&*source(&front, &name)?, &front.house, &front.served()).await))
}

/// Opens a source, so that its sender may hand over its secret
///
/// For senders that send their secret in the first request (Asana, Notion). The first secret that comes is taken and sealed,
/// and the source is closed again; at any other time what is offered is refused.
#[utoipa::path(post, path = "/sources/{name}/pair", tag = "sources", params(("name" = String, Path)),
    request_body = Opening, responses((status = 200, body = SourceShown)))]
pub(crate) async fn pair(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
    Body(how): Body<Opening>,
) -> Result<Json<SourceShown>, Problem> {
    let source = pairing_source(&front, &name)?;
    let minutes = how.minutes.unwrap_or(PAIRING_MINUTES);
    let span = Duration::from_secs(minutes.saturating_mul(60));
    if minutes == 0 || span > PAIRING_MAX {
        return Err(Problem::bad(format!("`minutes` is 1 to {}", PAIRING_MAX.as_secs() / 60)));
    }
    let earlier = if how.keep { KeepEarlier::Yes } else { KeepEarlier::No };
    let open = front.house.open_pairing(&source.name, span, earlier).await?;
    tracing::info!(source = %source.name, until = %open.until, "A source was opened for pairing");
    Ok(Json(SourceShown::of(&source, &front.house, &front.served()).await))
}

/// Closes a source for pairing; a secret that was taken stays
#[utoipa::path(post, path = "/sources/{name}/pair/close", tag = "sources", params(("name" = String, Path)),
    responses((status = 200, body = SourceShown)))]
pub(crate) async fn close_pairing(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<SourceShown>, Problem> {
    let source = pairing_source(&front, &name)?;
    front.house.close_pairing(&source.name).await?;
    tracing::info!(source = %source.name, "A source was closed for pairing");
    Ok(Json(SourceShown::of(&source, &front.house, &front.served()).await))
}

/// Forgets what the sender handed over, and closes the source for pairing
#[utoipa::path(post, path = "/sources/{name}/unpair", tag = "sources", params(("name" = String, Path)),
    responses((status = 200, body = SourceShown)))]
pub(crate) async fn unpair(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<SourceShown>, Problem> {
    let source = pairing_source(&front, &name)?;
    front.house.close_pairing(&source.name).await?;
    front.house.vault().remove(&SecretName::pairing(&source.name)).await?;
    tracing::info!(source = %source.name, "The secret that a sender handed over was removed");
    Ok(Json(SourceShown::of(&source, &front.house, &front.served()).await))
}

fn source(front: &Front, name: &str) -> Result<Arc<Source>, Problem> {
    let found = front.house.catalog().sources.get(&Name::new(name)?).cloned();
    found.ok_or_else(|| Problem::not_found(format!("there is no source `{name}`")))
}

/// A source whose sender hands over its secret.
fn pairing_source(front: &Front, name: &str) -> Result<Arc<Source>, Problem> {
    let source = source(front, name)?;
    let pairs = source.webhook().is_some_and(|webhook| webhook.preset.pairing.is_some());
    let why = "the sender of this source hands over no secret: name where it is in the source's `secret`";
    if pairs { Ok(source) } else { Err(Problem::conflict(why)) }
}
