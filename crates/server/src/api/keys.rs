//! API keys: made, rotated and revoked with the admin token. A key is shown in the answer that makes it, and never again.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use doorbell_core::keys::{self, Key, KeyId, Kind, NAME_MAX, Right};
use doorbell_core::ports::StoreError;
use doorbell_core::{Name, Secret, Timestamp};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::Body;
use super::list::List;
use super::params::Params;
use crate::contracts::agentex::book;
use crate::contracts::almyty;
use crate::front::Front;
use crate::problem::Problem;

/// How long the secret before is good after a rotation, unless told otherwise: long enough to put the new one everywhere.
const OVERLAP: Duration = Duration::from_secs(86_400);
/// A longer overlap is no rotation.
const OVERLAP_MAX: Duration = Duration::from_secs(90 * 86_400);

/// An API key, without the key.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyShown {
    #[schema(value_type = String)]
    id: String,
    /// The one agent whose things it opens; null: all of them.
    #[schema(value_type = Option<String>)]
    agent: Option<Name>,
    name: String,
    /// `external` (somebody outside holds it) or `internal` (the agent).
    r#type: &'static str,
    /// `read`, `send`, `operate`, `register`.
    scopes: Vec<&'static str>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// To within a minute.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    /// Until when the secret before the last rotation is good too.
    #[schema(value_type = Option<String>, format = DateTime)]
    overlap_until: Option<Timestamp>,
}

impl KeyShown {
    fn of(key: Key, now: Timestamp) -> Self {
        Self {
            id: key.id.to_string(),
            agent: key.agent,
            name: key.name,
            r#type: key.kind.as_str(),
            scopes: key.rights.iter().map(|r| r.as_str()).collect(),
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            overlap_until: key.before.map(|(_, until)| until).filter(|until| now < *until),
        }
    }
}

/// An API key with the key: this one time.
#[derive(Serialize, ToSchema)]
pub(crate) struct KeyMade {
    #[serde(flatten)]
    shown: KeyShown,
    /// What its holder sends as `Authorization: Bearer`. It is kept nowhere: note it now.
    key: String,
}

/// A key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// What people call it: unique for each agent and type.
    name: String,
    /// The one agent whose things it opens; left out: all of them.
    #[schema(value_type = Option<String>)]
    agent: Option<Name>,
    /// `external` (left out: this) or `internal`.
    r#type: Option<String>,
    /// One or more of `read`, `send`, `operate`, `register`.
    scopes: Vec<String>,
    /// From when on it opens nothing; left out: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

/// How a key is rotated.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotation {
    /// How long the present secret stays good beside the new one: 0 to 7776000, left out: a day.
    overlap_seconds: Option<u64>,
    /// The next secret, where somebody else makes it: of a key that a wire contract checks signatures with.
    key: Option<String>,
}

/// A key that is no more.
#[derive(Serialize, ToSchema)]
pub(crate) struct Revoked {
    id: String,
    revoked: bool,
}

/// API keys, oldest first
#[utoipa::path(get, path = "/keys", tag = "keys", params(
    ("agent" = Option<String>, Query, description = "Of this agent"),
    ("q" = Option<String>, Query, description = "Whose name contains this"),
    ("limit" = Option<u32>, Query, description = "At most this many: 1 to 500, else 50"),
    ("cursor" = Option<String>, Query, description = "`next` or `prev` of another page"),
), responses((status = 200, body = List<KeyShown>)))]
pub(crate) async fn list(
    State(front): State<Arc<Front>>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<KeyShown>>, Problem> {
    let mut params = Params::read(query.as_deref())?;
    let agent: Option<Name> = params.parsed("agent")?;
    let (q, page) = (params.text("q")?.unwrap_or_default(), params.page()?);
    params.end()?;
    let now = front.house.clock.now();
    let keys = front.house.store.keys().await?.into_iter();
    let wanted = keys.filter(|k| k.name.contains(&q) && (agent.is_none() || k.agent == agent));
    Ok(Json(List::cut(wanted.map(|key| KeyShown::of(key, now)).collect(), page)))
}

/// One API key
#[utoipa::path(get, path = "/keys/{id}", tag = "keys", params(("id" = String, Path)),
    responses((status = 200, body = KeyShown)))]
pub(crate) async fn show(State(front): State<Arc<Front>>, Path(id): Path<String>) -> Result<Json<KeyShown>, Problem> {
    let id = read(&id)?;
    let found = front.house.store.key(id.clone()).await?;
    let key = found.ok_or_else(|| StoreError::NotFound(format!("key {id}")))?;
    Ok(Json(KeyShown::of(key, front.house.clock.now())))
}

/// Makes an API key
///
/// The answer holds the key itself, this one time: only a hash of it is kept.
#[utoipa::path(post, path = "/keys", tag = "keys", request_body = NewKey,
    responses((status = 201, description = "Made", body = KeyMade)))]
pub(crate) async fn create(
    State(front): State<Arc<Front>>,
    Body(new): Body<NewKey>,
) -> Result<(StatusCode, Json<KeyMade>), Problem> {
    let house = &front.house;
    let now = house.clock.now();
    if new.name.trim().is_empty() || new.name.len() > NAME_MAX || new.name.chars().any(char::is_control) {
        return Err(Problem::bad(format!("`name` must have 1 to {NAME_MAX} bytes and no control characters")));
    }
    if new.expires_at.is_some_and(|at| at <= now) {
        return Err(Problem::bad("`expires_at` is over already"));
    }
    let mut rights = Vec::new();
    for scope in &new.scopes {
        rights.push(scope.parse::<Right>().map_err(|why| Problem::bad(format!("`scopes`: {why}")))?);
    }
    rights.sort_unstable();
    rights.dedup();
    if rights.is_empty() {
        return Err(Problem::bad("`scopes` names nothing that the key may do: read, send, operate, register"));
    }
    if let Some(agent) = &new.agent {
        check_agent(&front, agent, &rights).await?;
    }
    let kind = match &new.r#type {
        None => Kind::External,
        Some(word) => word.parse().map_err(|why| Problem::bad(format!("`type`: {why}")))?,
    };
    let id = keys::new_id(&house.clock);
    let (secret, hash) = keys::new_secret(&id, &house.clock);
    let key = Key {
        id,
        agent: new.agent,
        name: new.name,
        kind,
        rights,
        created_at: now,
        expires_at: new.expires_at,
        last_used_at: None,
        hash,
        before: None,
    };
    house.store.add_key(key.clone()).await?;
    tracing::info!(key = %key.id, name = key.name, "An API key was made");
    let made = KeyMade { shown: KeyShown::of(key, now), key: secret.expose().to_owned() };
    Ok((StatusCode::CREATED, Json(made)))
}

/// Whether a key may be for this agent: one of the house; one of the contract `agentex`, whose routes take `read` and
/// `register`; and with `register` also one that is to come, which registers itself with this key.
async fn check_agent(front: &Front, agent: &Name, rights: &[Right]) -> Result<(), Problem> {
    if front.house.catalog().agents.contains_key(agent) {
        return Ok(());
    }
    let is_of_contract = rights.iter().all(|right| matches!(right, Right::Read | Right::Register));
    if is_of_contract && rights.contains(&Right::Register) {
        return Ok(());
    }
    let kept = front.house.store.registration(agent.clone()).await?;
    if !front.contracts.load().has_agent(agent, kept.as_ref()) {
        return Err(Problem::not_found(format!("there is no agent `{agent}`")));
    }
    if is_of_contract {
        return Ok(());
    }
    Err(Problem::bad(format!(
        "`scopes`: `{agent}` is an agent of the contract agentex, for which there are `read` and `register`"
    )))
}

/// Gives a key another secret; the present one stays good for a while
///
/// The answer holds the new key, this one time. Of two rotations within the overlap only the last two secrets are good.
#[utoipa::path(post, path = "/keys/{id}/rotate", tag = "keys", params(("id" = String, Path)), request_body = Rotation,
    responses((status = 200, body = KeyMade)))]
pub(crate) async fn rotate(
    State(front): State<Arc<Front>>,
    Path(id): Path<String>,
    Body(how): Body<Rotation>,
) -> Result<Json<KeyMade>, Problem> {
    let id = read(&id)?;
    let overlap = how.overlap_seconds.map_or(OVERLAP, Duration::from_secs);
    if overlap > OVERLAP_MAX {
        return Err(Problem::bad(format!("`overlap_seconds` is at most {}", OVERLAP_MAX.as_secs())));
    }
    let now = front.house.clock.now();
    let present = front.house.store.key(id.clone()).await?;
    let present = present.ok_or_else(|| StoreError::NotFound(format!("key {id}")))?;
    if almyty::is_webhooks(&present) {
        return Err(Problem::conflict(
            "this is the secret of a webhook of the contract almyty, which has one at a time: switch the webhook off and on \
             for another (PATCH /agents/{id})",
        ));
    }
    let (is_given, until) = (how.key.is_some(), now + overlap);
    let signing = book::Rotation { value: how.key.map(Secret::new), until };
    let (key, secret) = match book::rotate(&front, &present, signing).await {
        Some(rotated) => rotated.map_err(|why| match why {
            book::NotRotated::Bad(text) => Problem::bad(text),
            book::NotRotated::Vault(error) => error.into(),
        })?,
        None if is_given => {
            return Err(Problem::bad("`key` is only for keys that a wire contract checks signatures with"));
        }
        None => {
            let (secret, hash) = keys::new_secret(&id, &front.house.clock);
            (front.house.store.rotate_key(id, hash, until).await?, secret)
        }
    };
    tracing::info!(key = %key.id, name = key.name, overlap_s = overlap.as_secs(), "An API key was rotated");
    Ok(Json(KeyMade { shown: KeyShown::of(key, now), key: secret.expose().to_owned() }))
}

/// Ends a key, at once and for good
#[utoipa::path(post, path = "/keys/{id}/revoke", tag = "keys", params(("id" = String, Path)),
    responses((status = 200, body = Revoked)))]
pub(crate) async fn revoke(State(front): State<Arc<Front>>, Path(id): Path<String>) -> Result<Json<Revoked>, Problem> {
    let id = read(&id)?;
    let kept = front.house.store.key(id.clone()).await?;
    match kept.as_ref().map(|key| book::revoke(&front, key)) {
        Some(revoke) => match revoke.await {
            Some(ended) => ended?,
            None => front.house.store.remove_key(id.clone()).await?,
        },
        None => return Err(StoreError::NotFound(format!("key {id}")).into()),
    }
    tracing::info!(key = %id, "An API key was revoked");
    Ok(Json(Revoked { id: id.to_string(), revoked: true }))
}

fn read(id: &str) -> Result<KeyId, Problem> {
    id.parse().map_err(|why: keys::BadKeyId| Problem::not_found(why.to_string()))
}
