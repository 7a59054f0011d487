//! Aether Forge, "Trigger an Agent from a Webhook": `POST /trigger`, which answers with the tick, and `POST /github`, which
//! answers in words. What its health server tells is in [`health`]. A tick is a run; the caller waits for the stored run, so
//! a time-out or a crash loses nothing, and a redelivery joins the wait.

mod health;

use std::time::Duration;

use doorbell_core::agent::Agent;
use doorbell_core::house::House;
use doorbell_core::ingest::{Answer, No, Refused, Taken};
use doorbell_core::ports::Notice;
use doorbell_core::run::{Run, State};
use doorbell_core::source::Respond;
use doorbell_core::{Name, RunId};
use http::{HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast;

use super::call::{Asker, refused, status, with_allow, with_wait};
use super::{Found, Served};
use crate::body::Body;
use crate::front::Front;
use crate::webhook::{self, Arrived};
use crate::{reply, wait};

/// What a listener of a contract's own tells of itself; no endpoint may have one of these paths.
pub const STANDING_PATHS: [&str; 5] = ["/health", "/ready", "/status", "/ticks", "/metrics"];

/// One endpoint.
#[derive(Debug)]
pub struct Aether {
    /// Where it listens.
    pub path: String,
    /// What it answers.
    pub pattern: Pattern,
}

/// Which of the page's recipes an endpoint follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Pattern 1: the tick of each request.
    Trigger,
    /// Pattern 3: `ok`, or `Forbidden`.
    Github,
}

/// What a path of this contract asks for.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    /// An endpoint.
    Endpoint,
    /// One of [`STANDING_PATHS`].
    Standing(&'static str),
}

impl Ask {
    /// What a path on a listener of the contract's own asks, if it is no endpoint's.
    pub(super) fn standing(path: &str) -> Option<Self> {
        STANDING_PATHS.into_iter().find(|own| *own == path).map(Self::Standing)
    }
}

/// The fields that the recipe takes from a `TickResult`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tick {
    /// None: nothing ran.
    tick: Option<u64>,
    status: &'static str,
    steps: u64,
    pending_approvals: Vec<String>,
}

/// Answers a request for `ask`; `here` are the endpoints of the listener, or the one whose path it is.
pub(super) async fn answer(front: &Front, ask: Ask, here: &[(&Served, &Aether)], arrived: Arrived) -> Response<Body> {
    let method = &arrived.head.method;
    match (ask, here.first()) {
        (Ask::Endpoint, Some((served, own))) if method == Method::POST => ring(front, served, own, arrived).await,
        (Ask::Standing(path), Some((served, _))) if method == Method::GET => {
            health::answer(front, path, served, Asker::of(&arrived)).await
        }
        (Ask::Endpoint, _) => with_allow(failed(No::Method), "POST"),
        (Ask::Standing(_), _) => with_allow(failed(No::Method), "GET"),
    }
}

async fn ring(front: &Front, served: &Served, own: &Aether, arrived: Arrived) -> Response<Body> {
    let remote = arrived.remote;
    let Some(found) = served.find(&front.house.catalog()) else {
        refused(front, None, remote, No::NotFound, "a reload took away the trigger that this contract rings").await;
        return no(own.pattern, No::NotFound);
    };
    // Subscribed before the event is there: a run that ends at once is not missed.
    let notices = front.house.store.notices();
    let asked = webhook::ask(front, &found.source, arrived, None).await;
    let mut response = match (asked.answer, own.pattern) {
        (Answer::Taken(taken), Pattern::Trigger) => tick(front, served, &found, &taken, notices).await,
        (Answer::Taken(_), Pattern::Github) => words(StatusCode::OK, "ok"),
        (Answer::Handshake(answer), _) => reply::handshake(answer),
        (Answer::Refused(Refused { no: which, .. }), pattern) => no(pattern, which),
    };
    if asked.ends_connection {
        webhook::end_connection(&mut response);
    }
    response
}

/// The tick of the first event; a request to this endpoint holds one.
async fn tick(
    front: &Front,
    served: &Served,
    found: &Found,
    taken: &[Taken],
    notices: broadcast::Receiver<Notice>,
) -> Response<Body> {
    let Some(id) = run_of(taken, &served.trigger) else {
        let tick = Tick { tick: None, status: "ignored", steps: 0, pending_approvals: Vec::new() };
        return reply::json(StatusCode::OK, &tick);
    };
    let limit = match found.source.webhook().map(|w| w.respond) {
        Some(Respond::Result(limit)) => limit,
        Some(Respond::Accepted) | None => Duration::ZERO,
    };
    let settled = tokio::select! {
        run = Box::pin(wait::settled(&front.house, id, notices, limit)) => run,
        () = front.status.closing().cancelled() => front.house.store.run(id).await.ok(),
    };
    // A store that does not tell now has the event all the same: it was committed.
    let (state, steps) = settled.as_ref().map_or((State::Queued, None), |run| (run.state, run.steps));
    let tick = Tick {
        tick: Some(id.seq),
        status: session_status(state),
        steps: steps.unwrap_or_default(),
        pending_approvals: pending(id, state),
    };
    let code = if state.is_final() || state == State::Waiting { StatusCode::OK } else { StatusCode::ACCEPTED };
    reply::json(code, &tick)
}

/// The run of this trigger that the request made or met.
fn run_of(taken: &[Taken], trigger: &Name) -> Option<RunId> {
    match taken.first()? {
        Taken::Accepted { runs, .. } => runs.iter().find(|(of, _)| of == trigger).map(|(_, run)| *run),
        Taken::Duplicate { runs, .. } => runs.iter().find(|(of, ..)| of == trigger).map(|(_, run, _)| *run),
        Taken::Ignored { .. } => None,
    }
}

/// A session's status. A run that is not being worked on now (it is queued, held, or will be tried again) is paused, and one
/// that waits for a person is on hold: theirs told both as complete.
fn session_status(state: State) -> &'static str {
    match state {
        State::Queued => "paused",
        State::Running => "running",
        State::Waiting => "hold",
        State::Succeeded => "complete",
        State::Failed | State::Cancelled => "failed",
    }
}

/// The ids of the requests that wait for a person: a run has one at most, and its id is the run's.
fn pending(run: RunId, state: State) -> Vec<String> {
    (state == State::Waiting).then(|| run.to_string()).into_iter().collect()
}

/// A `TickResult`, less what tells of the inside of an agent.
fn result(run: &Run) -> serde_json::Value {
    json!({
        "tick_number": run.id.seq, "timestamp": run.finished_at.unwrap_or(run.created_at),
        "session_status": session_status(run.state), "steps_executed": run.steps.unwrap_or_default(),
        "pending_approvals": pending(run.id, run.state),
    })
}

/// Why the agent's ticks are not run now, in the words of their `/ready`.
fn held(house: &House, agent: &Agent) -> Option<&'static str> {
    if house.is_broken(agent) {
        return Some("circuit breaker open");
    }
    house.is_paused(agent).then_some("kill switch active")
}

fn no(pattern: Pattern, no: No) -> Response<Body> {
    let response = match (pattern, no) {
        (Pattern::Trigger, no) => return failed(no),
        (Pattern::Github, No::NotVerified) => words(StatusCode::FORBIDDEN, "Forbidden"),
        (Pattern::Github, no) => words(status(no), no.told()),
    };
    with_wait(response, no)
}

fn failed(no: No) -> Response<Body> {
    with_wait(reply::json(status(no), &json!({ "error": no.told() })), no)
}

fn words(code: StatusCode, text: &str) -> Response<Body> {
    plain(code, text, HeaderValue::from_static("text/plain; charset=utf-8"))
}

fn plain(code: StatusCode, text: impl Into<Vec<u8>>, media: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::full(text.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}
