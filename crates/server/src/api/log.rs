//! A run's log: a page of it in JSON, or followed to its end as server-sent events. A reader that was cut off goes on
//! where it was with `Last-Event-ID`; the pieces are numbered over all attempts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use doorbell_core::ports::{LogPiece, StoreError, Stream};
use doorbell_core::run::State as RunState;
use doorbell_core::{RunId, Timestamp};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::params::Params;
use crate::front::Front;
use crate::problem::Problem;

/// Pieces read from the store at once while following.
const PIECES: usize = 100;

/// A piece of output or log.
#[derive(Serialize, ToSchema)]
pub(crate) struct PieceShown {
    /// Its number in the run, from 1; the event's id when followed.
    n: u64,
    attempt: u32,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `output`, `log` or `note`
    #[schema(value_type = String)]
    stream: Stream,
    /// What was printed, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Else in base64: also where a piece begins or ends within a character.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Part of a run's log.
#[derive(Serialize, ToSchema)]
pub(crate) struct Log {
    /// Oldest first.
    items: Vec<PieceShown>,
    /// Give this as `after` for what comes next.
    next: u64,
    /// Where the run stood before the log was read: if it is final, an empty page is the end.
    #[schema(value_type = String)]
    state: RunState,
}

impl PieceShown {
    fn of(piece: LogPiece) -> Self {
        let (text, base64) = match std::str::from_utf8(&piece.bytes) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(&piece.bytes))),
        };
        Self { n: piece.n, attempt: piece.attempt, at: piece.at, stream: piece.stream, text, base64 }
    }
}

/// A run's log
///
/// With `Accept: text/event-stream` it is followed until the run is final: events `log` with the piece's number as id,
/// then `end` with the state. `Last-Event-ID` goes on after that piece.
#[utoipa::path(get, path = "/runs/{id}/log", tag = "runs", params(
    ("id" = String, Path),
    ("after" = Option<u64>, Query, description = "Only pieces after this number"),
    ("limit" = Option<u32>, Query, description = "At most this many: 1 to 500, else 50; not when followed"),
    ("Last-Event-ID" = Option<u64>, Header, description = "When followed: wins over `after`"),
), responses((status = 200, description = "Part of the log, or a stream of it",
              content((Log = "application/json"), (String = "text/event-stream")))))]
pub(crate) async fn read(
    State(front): State<Arc<Front>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id: RunId = id.parse()?;
    let mut params = Params::read(query.as_deref())?;
    let (after, limit) = (params.parsed::<u64>("after")?.unwrap_or(0), params.limit()?);
    params.end()?;
    let wants_stream = headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|v| v.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("text/event-stream")));
    let run = front.house.store.run(id).await?;
    if wants_stream {
        let after = last_event_id(&headers)?.unwrap_or(after);
        return follow(&front, id, after);
    }
    let pieces = front.house.store.log(id, after, limit).await?;
    let next = pieces.last().map_or(after, |piece| piece.n);
    let items = pieces.into_iter().map(PieceShown::of).collect();
    Ok(Json(Log { items, next, state: run.state }).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id").filter(|v| !v.is_empty()) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|v| v.trim().parse().ok());
    number.map(Some).ok_or_else(|| Problem::bad("Last-Event-ID is not the number of a piece of this log"))
}

fn follow(front: &Arc<Front>, run: RunId, after: u64) -> Result<Response, Problem> {
    let place = Place::take(front)?;
    let follower = Follower {
        front: Arc::clone(front),
        run,
        after,
        ready: VecDeque::from([Bytes::from_static(b": the log follows\n\n")]),
        ended: false,
        looked_last: false,
        spoke: Instant::now(),
        _place: place,
    };
    let stream = futures::stream::unfold(follower, |mut follower| async move {
        follower.next().await.map(|piece| (Ok::<_, std::convert::Infallible>(piece), follower))
    });
    let mut response = axum::body::Body::from_stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// One of the places for followers, given back when dropped.
struct Place(Arc<Front>);

impl Place {
    fn take(front: &Arc<Front>) -> Result<Self, Problem> {
        let place = Self(Arc::clone(front));
        let before = front.followers.fetch_add(1, Ordering::AcqRel);
        if before >= front.options.limits.followers {
            // Dropping the place takes the count back.
            return Err(Problem::later("busy", "too many readers follow logs at once; read it in pages instead"));
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.followers.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Follower {
    front: Arc<Front>,
    run: RunId,
    after: u64,
    ready: VecDeque<Bytes>,
    ended: bool,
    /// We close: there was a last look.
    looked_last: bool,
    spoke: Instant,
    _place: Place,
}

impl Follower {
    /// The next event, or none at the end: the run is final, or we stop (the reader comes back with `Last-Event-ID`).
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.spoke = Instant::now();
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.look().await {
                tracing::debug!(run.id = %self.run, %error, "A followed log could not be read; the reader is sent away to come back");
                return None;
            }
            if !self.ready.is_empty() || self.ended {
                continue;
            }
            if self.looked_last {
                return None;
            }
            let times = &self.front.options.timeouts;
            tokio::select! {
                // The run may have ended since the last look, which is why we close now.
                () = self.front.status.closing().cancelled() => self.looked_last = true,
                () = tokio::time::sleep(times.follow) => {}
            }
            if self.spoke.elapsed() >= times.heartbeat {
                self.ready.push_back(Bytes::from_static(b":\n\n"));
            }
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        // The state first: a run that is final writes nothing more, so an empty page after that is the end.
        let state = self.front.house.store.run(self.run).await?.state;
        let pieces = self.front.house.store.log(self.run, self.after, PIECES).await?;
        if pieces.is_empty() && state.is_final() {
            self.ended = true;
            self.ready.push_back(Bytes::from(format!("event: end\ndata: {{\"state\":\"{state}\"}}\n\n")));
        }
        for piece in pieces {
            self.after = piece.n;
            let n = piece.n;
            let data = serde_json::to_string(&PieceShown::of(piece)).unwrap_or_default();
            self.ready.push_back(Bytes::from(format!("id: {n}\nevent: log\ndata: {data}\n\n")));
        }
        Ok(())
    }
}
