//! `/health` (alive, with the sizes of the queues) and `/ready` (takes work, or why not). Open to everybody, so both ask
//! the store at most about once a second, however often they are asked. What `/ready` knows in detail (files, names, what the
//! store said) it tells programs on this machine and whoever may read the API; everybody else gets codes.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use doorbell_core::keys::Right;
use doorbell_core::ports::{QueueStats, StoreError};
use http::{HeaderMap, StatusCode, Uri, Version};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::auth::{self, Caller};
use crate::front::Front;
use crate::local::{is_from_a_page, is_on_this_machine};
use crate::peer::{self, Peer};
use crate::status::Phase;

/// How long an answer of the store is passed on.
const FRESH: Duration = Duration::from_secs(1);
/// A store that does not answer within this time is down.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The last answer to a question, and when it was given.
type Last<T> = Mutex<Option<(Instant, Result<T, String>)>>;

/// The store's last answers. One request asks, the others wait for it.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    health: Last<()>,
    stats: Last<Arc<Vec<QueueStats>>>,
}

impl Probe {
    pub(crate) async fn health(&self, front: &Front) -> Result<(), String> {
        fresh(&self.health, front.house.store.health()).await
    }

    pub(crate) async fn stats(&self, front: &Front) -> Result<Arc<Vec<QueueStats>>, String> {
        fresh(&self.stats, async { front.house.store.stats().await.map(Arc::new) }).await
    }
}

async fn fresh<T: Clone>(last: &Last<T>, ask: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    let mut last = last.lock().await;
    if let Some((at, answer)) = &*last
        && at.elapsed() < FRESH
    {
        return answer.clone();
    }
    let answer = match tokio::time::timeout(ANSWER_WITHIN, ask).await {
        Ok(answer) => answer.map_err(|e| e.to_string()),
        Err(_) => Err(format!("the store did not answer within {ANSWER_WITHIN:?}")),
    };
    *last = Some((Instant::now(), answer.clone()));
    answer
}

/// Alive.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`: whoever reads this got an answer.
    #[schema(example = "ok")]
    status: &'static str,
    /// The program's version.
    version: String,
    /// Runs queued; null while the store does not tell.
    queued: Option<u64>,
    /// Runs running.
    running: Option<u64>,
    /// Runs waiting for a person.
    waiting: Option<u64>,
}

/// Alive, and how much there is to do
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = Health)))]
pub(crate) async fn health(State(front): State<Arc<Front>>) -> Json<Health> {
    let stats = front.probe.stats(&front).await.ok();
    let sum = |of: fn(&QueueStats) -> u64| stats.as_ref().map(|all| all.iter().map(of).sum());
    Json(Health {
        status: "ok",
        version: front.options.version.clone(),
        queued: sum(|s| s.queued),
        running: sum(|s| s.running),
        waiting: sum(|s| s.waiting),
    })
}

/// Whether it takes work.
#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    /// `ready` or `not_ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// Why not; empty if ready. `starting`, `stopping`, `store` or `breaker`; behind a colon the details, for those who get them.
    reasons: Vec<String>,
    /// Why the last reload of the configuration did not take effect (the one before stays), or only `refused`; null if it did.
    config: Option<String>,
    /// Sources that let nobody in, or not everybody, because a secret is not there: which and why, or only the codes.
    sources: Vec<String>,
}

/// Who is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Everything.
    Details,
    /// Codes, which name nothing.
    Codes,
}

impl Told {
    fn reason(self, code: &str, details: &str) -> String {
        match self {
            Self::Details => format!("{code}: {details}"),
            Self::Codes => code.to_owned(),
        }
    }
}

/// Who asks: a program on this machine, a token that may read everything, or anybody.
async fn told(front: &Front, peer: Peer, line: (&Uri, Version), headers: &HeaderMap) -> Told {
    let via = peer::via(peer.socket, &front.options.trusted_proxies);
    if is_on_this_machine(peer.socket, via, line, headers) && !is_from_a_page(headers) {
        return Told::Details;
    }
    match auth::who(front, Some(peer.remote), headers).await {
        Ok(Some(Caller::Admin)) => Told::Details,
        Ok(Some(Caller::Key(key))) if key.agent.is_none() && key.may(Right::Read) => Told::Details,
        Ok(Some(Caller::Key(_))) | Err(_) => Told::Codes,
        Ok(None) => {
            if auth::bearer(headers).is_some() {
                // Counted like everywhere: else tokens could be tried here without end.
                let _ = auth::unauthorized(front, Some(peer.remote));
            }
            Told::Codes
        }
    }
}

/// Takes work, or 503 with the reasons
///
/// Details only for programs on this machine and for tokens that may read everything; codes for everybody else.
#[utoipa::path(get, path = "/ready", tag = "health",
    responses((status = 200, body = Ready), (status = 503, description = "Not now, and why", body = Ready)))]
pub(crate) async fn ready(
    State(front): State<Arc<Front>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
) -> Response {
    let told = told(&front, peer, (&uri, version), &headers).await;
    let mut reasons = Vec::new();
    match front.status.phase() {
        Phase::Starting => reasons.push("starting".to_owned()),
        Phase::Running => {}
        Phase::Stopping => reasons.push("stopping".to_owned()),
    }
    if let Err(why) = front.probe.health(&front).await {
        reasons.push(told.reason("store", &why));
    }
    if front.options.ready_includes_breakers {
        let catalog = front.house.catalog();
        let broken = catalog.agents.values().filter(|agent| front.house.is_broken(agent));
        reasons.extend(broken.map(|agent| told.reason("breaker", &format!("agent `{}` keeps failing", agent.name))));
        reasons.dedup();
    }
    let (code, status) = match reasons.is_empty() {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    let config = front.status.reload_fault().map(|why| match told {
        Told::Details => why.to_string(),
        Told::Codes => "refused".to_owned(),
    });
    let without = front.house.sources_without_secret().await;
    let mut sources: Vec<String> = without
        .into_iter()
        .map(|(source, why)| match told {
            Told::Details => format!("source `{source}`: {why}"),
            Told::Codes => why.code.to_owned(),
        })
        .collect();
    if told == Told::Codes {
        sources.sort();
        sources.dedup();
    }
    (code, Json(Ready { status, reasons, config, sources })).into_response()
}
