//! Promptise Foundry, `WebhookTrigger`: `POST <path>` and `GET /health`, in its order of checks and with its answers; and the
//! fields of its `status()` over HTTP, which it has in Python only.

use doorbell_core::house::House;
use doorbell_core::ingest::{self, Answer, No, Refused, Taken};
use doorbell_core::lists::{EventQuery, PageFrom, PageRequest, QueueStats, RunQuery};
use doorbell_core::ports::StoreError;
use doorbell_core::provider::Scheme;
use doorbell_core::run::State;
use doorbell_core::source::Source;
use http::{HeaderValue, Method, Response, StatusCode, Uri, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::call::{Asker, may_read, refused, status, with_allow, with_wait};
use super::{Found, Reading, Served};
use crate::body::Body;
use crate::front::Front;
use crate::local::is_loopback_host;
use crate::reply;
use crate::webhook::{self, Arrived};

/// What a sender is asked to wait while events cannot be taken, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("30");
/// Things are counted up to here: `status` is for people, and a count reads every one of them.
const COUNTED_MAX: usize = 1000;

/// One webhook trigger.
#[derive(Debug)]
pub struct Promptise {
    /// Where it listens.
    pub path: String,
    /// The port of its listener.
    pub port: u16,
    /// Whether its listener can be reached from this machine alone.
    pub is_loopback: bool,
}

/// What a path of this contract asks for.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    /// The endpoint of one trigger.
    Trigger,
    /// `GET /health`.
    Health,
    /// `GET /status`.
    Status,
}

#[derive(Serialize)]
struct Told<'a> {
    status: &'static str,
    message: &'a str,
}

#[derive(Serialize)]
struct Event {
    status: &'static str,
    event_id: Option<String>,
}

/// Answers a request for `ask`; `here` are the triggers of the listener, or the one whose path it is.
pub(super) async fn answer(
    front: &Front,
    ask: Ask,
    here: &[(&Served, &Promptise)],
    arrived: Arrived,
) -> Response<Body> {
    let method = &arrived.head.method;
    match (ask, here.first()) {
        (Ask::Trigger, Some((served, own))) if method == Method::POST => ring(front, served, own, arrived).await,
        (Ask::Health, Some(_)) if method == Method::GET => health(front, here, Asker::of(&arrived)).await,
        (Ask::Status, Some(_)) if method == Method::GET => status_of(front, here, Asker::of(&arrived)).await,
        (Ask::Trigger, _) => with_allow(plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"), "POST"),
        _ => with_allow(plain(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed"), "GET"),
    }
}

async fn ring(front: &Front, served: &Served, own: &Promptise, arrived: Arrived) -> Response<Body> {
    let remote = arrived.remote;
    let Some(found) = served.find(&front.house.catalog()) else {
        refused(front, None, remote, No::NotFound, "a reload took away the trigger that this contract rings").await;
        return unavailable("trigger removed");
    };
    let source = &found.source;
    if let Err((code, text)) = check_browser(own, source, &arrived, &front.house) {
        refused(front, Some(&source.name), remote, No::AddressNotAllowed, text).await;
        return told(code, "error", text);
    }
    let limit = source.webhook().map_or(0, |w| w.max_body);
    let asked = webhook::ask(front, source, arrived, None).await;
    let mut response = match asked.answer {
        Answer::Taken(taken) => event(&taken),
        Answer::Handshake(answer) => reply::handshake(answer),
        Answer::Refused(refused) => no(&refused, limit),
    };
    if asked.ends_connection {
        webhook::end_connection(&mut response);
    }
    response
}

/// An endpoint without a check on a loopback address is meant for this machine. A browser on it that was led elsewhere would
/// reach it too (DNS rebinding, a form on another site), so host and origin have to be of this machine as well.
fn check_browser(
    own: &Promptise,
    source: &Source,
    arrived: &Arrived,
    house: &House,
) -> Result<(), (StatusCode, &'static str)> {
    let is_open = source.webhook().is_some_and(|w| matches!(w.preset.scheme, Scheme::None));
    // A strange address is refused as such, before this.
    if !is_open || !own.is_loopback || ingest::is_refused_unread(house, source, Some(arrived.remote)) {
        return Ok(());
    }
    let head = &arrived.head;
    let text = |name| head.headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap_or_default());
    let host = head.uri.authority().map(|a| a.as_str()).or_else(|| text(header::HOST));
    if !host.and_then(|h| h.parse::<Uri>().ok()).is_some_and(|uri| is_loopback_host(&uri)) {
        return Err((StatusCode::MISDIRECTED_REQUEST, "Misdirected request"));
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let uri = origin.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    match uri.is_some_and(|uri| is_loopback_host(&uri)) {
        true => Ok(()),
        false => Err((StatusCode::FORBIDDEN, "Cross-origin request refused")),
    }
}

fn event(taken: &[Taken]) -> Response<Body> {
    let (code, status, event) = match taken.first() {
        // Of a redelivery as of the first: the sender asked for no more than to have it taken once.
        Some(Taken::Accepted { event, .. } | Taken::Duplicate { event, .. }) => {
            (StatusCode::ACCEPTED, "accepted", Some(event))
        }
        Some(Taken::Ignored { event, .. }) => (StatusCode::OK, "ignored", Some(event)),
        None => (StatusCode::OK, "ignored", None),
    };
    reply::json(code, &Event { status, event_id: event.map(ToString::to_string) })
}

fn no(refused: &Refused, limit: usize) -> Response<Body> {
    let code = status(refused.no);
    match (refused.no, refused.code.as_ref()) {
        (No::AddressNotAllowed, _) => told(code, "error", "Source not allowed"),
        (No::TooLarge, _) => told(code, "error", &format!("Request body too large (limit {limit} bytes)")),
        (No::NotVerified, _) => told(code, "error", "Missing or invalid signature"),
        (No::NotFound, _) => unavailable("trigger stopped"),
        // The document's own words.
        (No::Unavailable(_), "queue_full") => with_pause(told(code, "error", "queue full")),
        (No::Unavailable(_), "breaker_open") => unavailable("process failed"),
        (No::Unavailable(_), "stopping") => unavailable("process stopped"),
        (No::Unavailable(_), _) => unavailable(refused.no.told()),
        (no, _) => with_wait(told(code, "error", no.told()), no),
    }
}

async fn health(front: &Front, here: &[(&Served, &Promptise)], asker: Asker<'_>) -> Response<Body> {
    if !is_let_in(front, here, asker, None).await {
        return unauthorized();
    }
    let catalog = front.house.catalog();
    let stats = front.probe.stats(front).await;
    let mut reason = stats.as_ref().err().cloned();
    let mut queued = 0;
    for (served, _) in here {
        let Some(found) = served.find(&catalog) else {
            reason.get_or_insert_with(|| "trigger removed".into());
            continue;
        };
        queued += stats
            .iter()
            .flat_map(|all| all.iter())
            .filter(|s| s.trigger == served.trigger)
            .map(|s| s.queued)
            .sum::<u64>();
        if let Some(why) = held(front, &found) {
            reason.get_or_insert_with(|| why.into());
        }
    }
    if front.status.is_stopping() {
        reason = Some("process stopped".into());
    }
    let (code, status) = match reason {
        None => (StatusCode::OK, "healthy"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let answer = json!({ "status": status, "reason": reason, "trigger_id": trigger_id(here), "queue_size": queued });
    reply::json(code, &answer)
}

/// Why the agent is not run now, in their words.
fn held(front: &Front, found: &Found) -> Option<&'static str> {
    if front.house.is_broken(&found.agent) {
        return Some("process failed");
    }
    let is_off = !found.source.enabled || found.source.triggers.iter().all(|t| !front.house.is_enabled(t));
    is_off.then_some("trigger stopped")
}

/// `webhook-9090/events`; of several triggers on one port the port alone.
fn trigger_id(here: &[(&Served, &Promptise)]) -> String {
    match here {
        [(_, own)] => format!("webhook-{}{}", own.port, own.path),
        _ => here.first().map(|(_, own)| format!("webhook-{}", own.port)).unwrap_or_default(),
    }
}

async fn status_of(front: &Front, here: &[(&Served, &Promptise)], asker: Asker<'_>) -> Response<Body> {
    // Counts cost a read each, and tell of the inside: for holders of a token whatever the contract's `auth` says.
    if !is_let_in(front, here, asker, Some(Reading::Token)).await {
        return unauthorized();
    }
    match all_status(front, here).await {
        Ok(mut all) => match all.len() {
            1 => reply::json(StatusCode::OK, &all.remove(0)),
            _ => reply::json(StatusCode::OK, &json!({ "process_count": all.len(), "processes": all })),
        },
        Err(error) => unavailable(&error.to_string()),
    }
}

async fn all_status(front: &Front, here: &[(&Served, &Promptise)]) -> Result<Vec<Value>, StoreError> {
    let stats = front.house.store.stats().await?;
    let mut all = Vec::new();
    for (served, own) in here {
        let Some(found) = served.find(&front.house.catalog()) else { continue };
        all.push(one_status(front, served, own, &found, &stats).await?);
    }
    Ok(all)
}

async fn one_status(
    front: &Front,
    served: &Served,
    own: &Promptise,
    found: &Found,
    stats: &[QueueStats],
) -> Result<Value, StoreError> {
    let (house, agent) = (&front.house, &found.agent);
    let mine = || stats.iter().filter(|s| s.trigger == served.trigger);
    let queued: u64 = mine().map(|s| s.queued).sum();
    let failures = house.breaker(agent).map_or(0, |(_, failures)| failures);
    let paused = house.is_paused(agent);
    let state = match (house.is_broken(agent), paused, front.status.is_stopping()) {
        (_, _, true) => "stopping",
        (true, ..) => "failed",
        (_, true, _) => "suspended",
        _ => "running",
    };
    let runs = |states: &[State]| RunQuery {
        triggers: vec![served.trigger.clone()],
        states: states.to_vec(),
        ..RunQuery::default()
    };
    let invoked = count_runs(house, runs(&[State::Running, State::Waiting, State::Succeeded, State::Failed])).await?;
    let failed = count_runs(house, runs(&[State::Failed])).await?;
    let ignored = EventQuery {
        source: Some(found.source.name.clone()),
        verdict: Some(doorbell_core::decision::Kind::Ignored),
        ..EventQuery::default()
    };
    let page = PageRequest { limit: COUNTED_MAX, from: PageFrom::Start };
    let filtered = house.store.events(ignored, page).await?.items.len();
    Ok(json!({
        "name": served.id, "process_id": agent.name, "state": state, "invocation_count": invoked,
        "consecutive_failures": failures, "restart_count": 0, "journal_enabled": true, "trigger_count": 1,
        "suspend_reason": paused.then_some("paused"), "queue_size": queued, "dead_letter_count": failed,
        "filtered_count": filtered, "pending_retries": count_retries(house, runs(&[State::Queued])).await?,
        "uptime_seconds": house.clock.uptime().as_secs(),
        "triggers": [{
            "id": format!("webhook-{}{}", own.port, own.path), "type": "webhook", "source": found.source.name,
            "pending_events": queued,
        }],
    }))
}

async fn count_runs(house: &House, query: RunQuery) -> Result<usize, StoreError> {
    let page = PageRequest { limit: COUNTED_MAX, from: PageFrom::Start };
    Ok(house.store.runs(query, page).await?.items.len())
}

/// Queued runs that were tried before.
async fn count_retries(house: &House, query: RunQuery) -> Result<usize, StoreError> {
    let page = PageRequest { limit: COUNTED_MAX, from: PageFrom::Start };
    Ok(house.store.runs(query, page).await?.items.iter().filter(|run| run.attempt > 0).count())
}

/// Whether the caller may read of all of them.
async fn is_let_in(front: &Front, here: &[(&Served, &Promptise)], asker: Asker<'_>, strict: Option<Reading>) -> bool {
    for (served, _) in here {
        let found = served.find(&front.house.catalog());
        let reading = strict.unwrap_or(served.reading);
        if !may_read(front, reading, asker, found.as_ref().map(|f| &f.agent.name)).await {
            return false;
        }
    }
    true
}

fn told(code: StatusCode, status: &'static str, message: &str) -> Response<Body> {
    reply::json(code, &Told { status, message })
}

fn unauthorized() -> Response<Body> {
    told(StatusCode::UNAUTHORIZED, "error", "Unauthorized")
}

fn unavailable(message: &str) -> Response<Body> {
    with_pause(told(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message))
}

fn with_pause(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

fn plain(code: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::full(text.as_bytes().to_vec()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
