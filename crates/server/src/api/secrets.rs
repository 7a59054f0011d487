//! Stored secrets: set, rotated and removed with the admin token. What was set is shown by nothing, not even once.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use doorbell_core::house::House;
use doorbell_core::ports::StoreError;
use doorbell_core::provider::{BadSecret, SECRET_BYTES_MIN};
use doorbell_core::seal::{Earlier, SECRET_BYTES_MAX, SecretName};
use doorbell_core::vault::SecretInfo;
use doorbell_core::{Name, Secret, Timestamp};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::Body;
use super::list::List;
use super::params::Params;
use crate::front::Front;
use crate::problem::Problem;

/// How long earlier values are good after a rotation, unless told otherwise.
const OVERLAP: Duration = Duration::from_secs(86_400);
/// A longer overlap is no rotation.
const OVERLAP_MAX: Duration = Duration::from_secs(90 * 86_400);
/// Of the configuration's secrets.
const NAMESPACE: &str = "user";

/// A stored secret, without the secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Secret)]
pub(crate) struct SecretShown {
    /// As the configuration calls it: `{ stored = "NAME" }`.
    name: String,
    /// When its newest value was set.
    #[schema(value_type = String, format = DateTime)]
    set_at: Timestamp,
    /// Until when the values before are good too.
    #[schema(value_type = Option<String>, format = DateTime)]
    overlap_until: Option<Timestamp>,
    /// Sources that take it.
    #[schema(value_type = Vec<String>)]
    sources: Vec<Name>,
}

impl SecretShown {
    fn of(info: &SecretInfo, house: &House) -> Self {
        let catalog = house.catalog();
        let takes = |webhook: &doorbell_core::source::Webhook| webhook.verifier.stored().any(|name| *name == info.name);
        let sources = catalog.sources.values().filter(|s| s.webhook().is_some_and(takes));
        Self {
            name: info.name.within(NAMESPACE).unwrap_or_default().to_owned(),
            set_at: info.made_at,
            overlap_until: info.earlier_until.iter().max().copied(),
            sources: sources.map(|s| s.name.clone()).collect(),
        }
    }
}

/// A secret to keep.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSecret {
    /// 1 to 63 of `a-z`, `0-9` and `-`.
    #[schema(value_type = String)]
    name: Name,
    /// The secret itself.
    value: String,
    /// Keeps a value that is too short, or that no source could use, all the same.
    #[serde(default)]
    force: bool,
}

/// Another value for a secret.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewValue {
    /// The secret itself.
    value: String,
    /// How long the values before stay good beside it: 0 to 7776000, left out: a day.
    overlap_seconds: Option<u64>,
    /// Keeps a value that is too short, or that no source could use, all the same.
    #[serde(default)]
    force: bool,
}

/// A secret that is no more.
#[derive(Serialize, ToSchema)]
pub(crate) struct Removed {
    name: String,
    removed: bool,
}

/// Stored secrets, by name; never what they are
#[utoipa::path(get, path = "/secrets", tag = "secrets", params(
    ("q" = Option<String>, Query, description = "Whose name contains this"),
    ("limit" = Option<u32>, Query, description = "At most this many: 1 to 500, else 50"),
    ("cursor" = Option<String>, Query, description = "`next` or `prev` of another page"),
), responses((status = 200, body = List<SecretShown>)))]
pub(crate) async fn list(
    State(front): State<Arc<Front>>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<SecretShown>>, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let (q, page) = (params.text("q")?.unwrap_or_default(), params.page()?);
    params.end()?;
    let all = front.house.vault().list(NAMESPACE).await?;
    let shown = all.iter().map(|info| SecretShown::of(info, &front.house)).filter(|s| s.name.contains(&q));
    Ok(Json(List::cut(shown.collect(), page)))
}

/// Keeps a secret; a value that it has already is replaced at once
#[utoipa::path(post, path = "/secrets", tag = "secrets", request_body = NewSecret,
    responses((status = 201, description = "Kept", body = SecretShown)))]
pub(crate) async fn set(
    State(front): State<Arc<Front>>,
    Body(new): Body<NewSecret>,
) -> Result<(StatusCode, Json<SecretShown>), Problem> {
    let name = SecretName::user(&new.name);
    let value = value(&front, &name, new.value, new.force)?;
    let shown = put(&front, &name, &value, Earlier::Removed).await?;
    tracing::info!(secret = %new.name, "A secret was set");
    Ok((StatusCode::CREATED, Json(shown)))
}

/// Gives a secret another value; those before stay good for a while
#[utoipa::path(post, path = "/secrets/{name}/rotate", tag = "secrets", params(("name" = String, Path)),
    request_body = NewValue, responses((status = 200, body = SecretShown)))]
pub(crate) async fn rotate(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
    Body(new): Body<NewValue>,
) -> Result<Json<SecretShown>, Problem> {
    let overlap = new.overlap_seconds.map_or(OVERLAP, Duration::from_secs);
    if overlap > OVERLAP_MAX {
        return Err(Problem::bad(format!("`overlap_seconds` is at most {}", OVERLAP_MAX.as_secs())));
    }
    let name = SecretName::user(&Name::new(&name)?);
    if front.house.vault().get(&name).await?.is_empty() {
        return Err(not_there(&name));
    }
    let value = value(&front, &name, new.value, new.force)?;
    let until = front.house.clock.now() + overlap;
    let shown = put(&front, &name, &value, Earlier::Until(until)).await?;
    tracing::info!(secret = shown.name, overlap_s = overlap.as_secs(), "A secret was rotated");
    Ok(Json(shown))
}

/// Removes a secret with all its values: what needs it lets nobody in from then on
#[utoipa::path(post, path = "/secrets/{name}/remove", tag = "secrets", params(("name" = String, Path)),
    responses((status = 200, body = Removed)))]
pub(crate) async fn remove(
    State(front): State<Arc<Front>>,
    Path(name): Path<String>,
) -> Result<Json<Removed>, Problem> {
    let name = Name::new(&name)?;
    front.house.vault().remove(&SecretName::user(&name)).await?;
    tracing::info!(secret = %name, "A secret was removed");
    Ok(Json(Removed { name: name.to_string(), removed: true }))
}

/// The value, unless it is certainly a mistake: then the source would let nobody in, or everybody who guesses.
fn value(front: &Front, name: &SecretName, value: String, force: bool) -> Result<Secret, Problem> {
    let value = Secret::new(value);
    let text = value.expose();
    if text.trim().is_empty() || text.len() > SECRET_BYTES_MAX {
        return Err(Problem::bad(format!("`value` must have 1 to {SECRET_BYTES_MAX} bytes, and not only blanks")));
    }
    match unfit(front, name, &value).filter(|_| !force) {
        None => Ok(value),
        Some(why) => {
            let detail = format!("nothing was kept: {why}");
            Err(Problem::new(StatusCode::BAD_REQUEST, "secret_unfit", detail))
        }
    }
}

/// Why a value cannot be meant.
fn unfit(front: &Front, name: &SecretName, value: &Secret) -> Option<String> {
    let text = value.expose();
    if text.starts_with([' ', '\t']) || text.ends_with([' ', '\t']) {
        return Some("the value begins or ends with a blank, which hardly belongs to it".to_owned());
    }
    let catalog = front.house.catalog();
    let mut takes = catalog
        .sources
        .values()
        .filter_map(|source| Some((source, source.webhook()?)))
        .filter(|(_, webhook)| webhook.verifier.stored().any(|stored| stored == name))
        .peekable();
    if takes.peek().is_none() && text.len() < SECRET_BYTES_MIN {
        return Some(too_short(text.len()));
    }
    takes.find_map(|(source, webhook)| {
        let wanted = match webhook.verifier.try_secret(value).err()? {
            BadSecret::Short { bytes, .. } => too_short(bytes),
            BadSecret::Unreadable { wanted, .. } => wanted.to_owned(),
            BadSecret::Empty { .. } => "it is empty".to_owned(),
            other => other.to_string(),
        };
        let preset = &webhook.preset;
        let called = preset.docs.secret_name.as_ref().map(|called| format!(" ({} calls it \"{called}\")", preset.name));
        Some(format!("source `{}` cannot use this value: {wanted}{}", source.name, called.unwrap_or_default()))
    })
}

fn too_short(bytes: usize) -> String {
    let noun = if bytes == 1 { "byte" } else { "bytes" };
    format!(
        "it has {bytes} {noun}, and with fewer than {SECRET_BYTES_MIN} it may be guessed, if it is not a part of a longer one"
    )
}

async fn put(front: &Front, name: &SecretName, value: &Secret, earlier: Earlier) -> Result<SecretShown, Problem> {
    let vault = front.house.vault();
    vault.put(name, value, earlier).await?;
    let kept = vault.list(NAMESPACE).await?;
    let info = kept.iter().find(|info| info.name == *name).ok_or_else(|| not_there(name))?;
    Ok(SecretShown::of(info, &front.house))
}

fn not_there(name: &SecretName) -> Problem {
    StoreError::NotFound(name.to_string()).into()
}
