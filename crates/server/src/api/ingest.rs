//! `POST /events`: an event put in by whoever holds the token, without a webhook.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use doorbell_core::ingest::{self, DirectError, DirectEvent};
use doorbell_core::{Name, Timestamp, loop_guard};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::json::Body;
use crate::auth::Caller;
use crate::front::Front;
use crate::problem::Problem;
use crate::{access, body, reply};

/// An event to put in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEvent {
    /// Which source's triggers get it.
    #[schema(value_type = String)]
    source: Name,
    /// Its type.
    r#type: String,
    subject: Option<String>,
    /// Who did it.
    actor: Option<String>,
    /// Your own id of it: a second one with the same id is a duplicate.
    id: Option<String>,
    /// When it happened.
    #[schema(value_type = Option<String>, format = DateTime)]
    time: Option<Timestamp>,
    /// Any JSON.
    #[schema(value_type = Option<serde_json::Value>)]
    data: Option<Box<RawValue>>,
}

/// What became of it.
#[derive(ToSchema)]
#[allow(dead_code, reason = "the schema of the ingress' answer")]
pub(crate) struct Taken {
    /// `accepted`, `duplicate` or `ignored`
    status: String,
    event_id: String,
    /// The first run; missing if there is none.
    run_id: Option<String>,
    /// Of a duplicate: where its run stands.
    state: Option<String>,
    /// Why it was ignored.
    reason: Option<String>,
    /// All runs, where there are several.
    runs: Option<Vec<TakenRun>>,
}

/// One run of several.
#[derive(ToSchema)]
#[allow(dead_code, reason = "the schema of the ingress' answer")]
pub(crate) struct TakenRun {
    trigger: String,
    run_id: String,
    state: Option<String>,
}

/// Puts an event in
///
/// Answered like a webhook: 202 queued, 200 seen before or wanted by nobody. An `Idempotency-Key` counts where there is
/// no `id`.
#[utoipa::path(post, path = "/events", tag = "events", request_body = NewEvent,
    params(("Idempotency-Key" = Option<String>, Header, description = "Deduplicated on, if there is no `id`")),
    responses((status = 202, description = "Queued", body = Taken),
              (status = 200, description = "Seen before, or wanted by nobody", body = Taken)))]
pub(crate) async fn put_in(
    State(front): State<Arc<Front>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Body(new): Body<NewEvent>,
) -> Result<Response, Problem> {
    if front.status.is_stopping() {
        return Err(Problem::later("stopping", "the program is stopping; send it again to the next one"));
    }
    let house = &front.house;
    let source = house.catalog().sources.get(&new.source).cloned();
    let source = source.ok_or_else(|| Problem::not_found(format!("there is no source `{}`", new.source)))?;
    if let Caller::Key(key) = &caller {
        access::may_send(key, &source)?;
    }
    let key = match headers.get("idempotency-key").map(|v| v.to_str()) {
        Some(Err(_)) => return Err(Problem::bad("the Idempotency-Key is not plain text")),
        Some(Ok("")) => return Err(Problem::bad("the Idempotency-Key is empty")),
        Some(Ok(key)) => Some(key.to_owned()),
        None => None,
    };
    let data =
        new.data.map_or_else(|| Bytes::from_static(b"null"), |raw| Bytes::from(String::from(Box::<str>::from(raw))));
    let event = DirectEvent {
        id: new.id,
        event_type: new.r#type,
        subject: new.subject,
        actor: new.actor,
        time: new.time,
        data,
        content_type: Some("application/json".into()),
        idempotency_key: key,
        hops: loop_guard::hops(&headers),
    };
    match ingest::admit_direct(house, &source, event).await {
        Ok(taken) => {
            let entry = reply::Entry::of(&taken);
            let response = reply::json(entry.http_status(), &entry);
            Ok(response.map(|b: body::Body| axum::body::Body::new(b)).into_response())
        }
        Err(DirectError::Unreadable(why)) => Err(Problem::bad(format!("`data` cannot be read: {why}"))),
        Err(DirectError::Refused(refused)) => Err(Problem::refused(&refused)),
    }
}
