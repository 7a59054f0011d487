//! `GET|POST /agents/forward/name/{agent}/{path}`: the check, then the agent's own server, whose answer is handed on as it
//! comes. Nothing is tried again: the agent may have done its work.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use doorbell_core::forward::{self, Checked};
use doorbell_core::ingest::{self, Answer, No, Passed, Refused, Ring, Taken};
use doorbell_core::ports::{FetchError, FetchLimits, Pieces};
use doorbell_core::provider;
use doorbell_core::source::Source;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::super::call::{refused, shown, status, with_wait};
use super::gate::{Gate, Turned, gate, mismatch};
use super::places::Place;
use super::{AcpAgent, Agentex, Forward, Mode, registry, say};
use crate::body::{self, Body, Whole};
use crate::front::Front;
use crate::reply;
use crate::webhook::{self, Arrived, STOPPING};

/// When to come again while all places of an agent are taken.
const FULL: std::time::Duration = std::time::Duration::from_secs(2);

pub(super) async fn answer(front: &Front, own: &Agentex, name: &str, path: &str, arrived: Arrived) -> Response<Body> {
    let (remote, method) = (arrived.remote, &arrived.head.method);
    if !matches!(*method, Method::GET | Method::POST) {
        let reason = format!("a {method} came to be forwarded; GET and POST are");
        refused(front, None, remote, No::Method, reason).await;
        return say::method("GET, POST");
    }
    let agent = match registry::find(front, own, name).await {
        Ok(Some(agent)) => agent,
        Ok(None) => {
            let text = format!("Agent {} not found or has no ACP URL.", shown(name));
            refused(front, None, remote, No::NotFound, text.clone()).await;
            return say::detail(StatusCode::NOT_FOUND, &text);
        }
        Err(error) => {
            let no = No::Unavailable(STOPPING);
            refused(front, None, remote, no, format!("the registered agents cannot be read: {error}")).await;
            return say::no(no);
        }
    };
    match &agent.mode {
        Mode::Forward(to) => pass(front, &agent, to, path, arrived).await,
        Mode::Queue(trigger) => {
            let catalog = front.house.catalog();
            let source = catalog.triggers.get(trigger).and_then(|t| catalog.sources.get(&t.source)).cloned();
            match source {
                Some(source) => queue(front, &agent, &source, arrived).await,
                None => {
                    let text = format!("Agent {name} not found or has no ACP URL.");
                    refused(front, None, remote, No::NotFound, "a reload took the agent's trigger away").await;
                    say::detail(StatusCode::NOT_FOUND, &text)
                }
            }
        }
    }
}

/// A request whose body was read, for the check.
struct Read {
    head: http::request::Parts,
    whole: Whole,
    remote: IpAddr,
    via: provider::Via,
}

/// Whether a body may come in a content coding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    /// It is passed on as it came.
    Any,
    /// Somebody has to read it.
    None,
}

impl Coding {
    /// What is passed on by a key nobody reads here; what is signed is read for the key's name.
    fn of_forward(headers: &HeaderMap) -> Self {
        if is_signed(headers) { Self::None } else { Self::Any }
    }
}

fn is_signed(headers: &HeaderMap) -> bool {
    headers.contains_key("x-hub-signature-256") || headers.contains_key("x-slack-signature")
}

/// How a request of an agent is read.
#[derive(Clone, Copy)]
struct How<'a> {
    coding: Coding,
    /// Whose keys it is checked with; none: the trigger's own check stands in the file.
    agent: Option<&'a AcpAgent>,
}

/// Reads the body within its cap; a stranger's is not read at all: neither that of an address that is not let in, nor that of
/// a credential in the head that opens nothing. With the check that it has to pass.
async fn read(
    front: &Front,
    source: &Arc<Source>,
    arrived: Arrived,
    how: How<'_>,
) -> Result<(Read, Option<Gate>), Response<Body>> {
    let How { coding, agent } = how;
    let Arrived { head, body, remote, via } = arrived;
    let ends = |mut response: Response<Body>| {
        webhook::end_connection(&mut response);
        response
    };
    if front.status.is_stopping() {
        refused(front, Some(&source.name), remote, No::Unavailable(STOPPING), "the program is stopping").await;
        return Err(ends(say::no(No::Unavailable(STOPPING))));
    }
    if ingest::is_refused_unread(&front.house, source, Some(remote)) {
        let why = ("address_not_allowed", "refused unread".into());
        let refused = ingest::turn_away(&front.house, source, Some(remote), No::AddressNotAllowed, why).await;
        return Err(ends(say::no(refused.no)));
    }
    let by_head = agent.filter(|_| !is_signed(&head.headers));
    let mut gate = None;
    if let Some(agent) = by_head {
        let asked = (&head.headers, &Bytes::new());
        gate = Some(gated(front, agent, source, remote, asked).await.map_err(ends)?);
    }
    let limit = source.webhook().map_or(0, |w| w.max_body);
    let rule = body::Rule { limit, timeouts: &front.options.timeouts, budget: &front.budget };
    let unsaid = HeaderMap::new();
    let headers = if coding == Coding::Any { &unsaid } else { &head.headers };
    let whole = match body::read(headers, body, rule).await {
        Ok(whole) => whole,
        Err(error) => {
            refused(front, Some(&source.name), remote, error.no(), error.to_string()).await;
            return Err(ends(say::no(error.no())));
        }
    };
    if let (None, Some(agent)) = (&gate, agent) {
        gate = Some(gated(front, agent, source, remote, (&head.headers, &whole.bytes)).await?);
    }
    Ok((Read { head, whole, remote, via }, gate))
}

/// The check that the request has to pass, or the answer to one that carries nothing to check.
async fn gated(
    front: &Front,
    agent: &AcpAgent,
    source: &Source,
    remote: IpAddr,
    (headers, body): (&HeaderMap, &Bytes),
) -> Result<Gate, Response<Body>> {
    match gate(front, &agent.name, headers, body).await {
        Ok(gate) => Ok(gate),
        Err(Turned { no, status, told, code, reason }) => {
            let refused = ingest::turn_away(&front.house, source, Some(remote), no, (code, reason)).await;
            // Not this no, but one that goes before it: an address, a limit on failures.
            Err(if refused.no == no { with_wait(say::detail(status, &told), no) } else { say::no(refused.no) })
        }
    }
}

fn ring<'r>(read: &'r Read, gate: &'r Gate) -> Ring<'r> {
    let request = provider::Request {
        method: &read.head.method,
        url: None,
        path: read.head.uri.path(),
        query: read.head.uri.query().unwrap_or_default(),
        headers: &read.head.headers,
        body: &read.whole.bytes,
        via: read.via,
    };
    Ring { request, remote: Some(read.remote), verifier: Some(&gate.verifier) }
}

fn not_let_by(agent: &AcpAgent, gate: &Gate, refused: &Refused) -> Response<Body> {
    match refused.no {
        No::NotVerified => say::detail(StatusCode::UNAUTHORIZED, &mismatch(gate.kind, &agent.name)),
        no => say::no(no),
    }
}

/// Slack's question, after the check, as plain text that no browser takes for anything else.
fn challenge(text: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(text.to_owned()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn pass(front: &Front, agent: &Arc<AcpAgent>, to: &Forward, path: &str, arrived: Arrived) -> Response<Body> {
    let (source, remote) = (&agent.source, arrived.remote);
    if arrived.head.headers.contains_key(header::UPGRADE) {
        let reason = "it asks for another protocol (a WebSocket?), and forwards are single requests";
        refused(front, Some(&source.name), remote, No::Unreadable, reason).await;
        return say::detail(StatusCode::BAD_REQUEST, "Upgrades are not forwarded.");
    }
    let target = match forward::target(&to.acp_url, path, arrived.head.uri.query()) {
        Ok(target) => target,
        Err(bad) => {
            refused(front, Some(&source.name), remote, No::Unreadable, bad.to_string()).await;
            return say::detail(StatusCode::BAD_REQUEST, "This path cannot be forwarded.");
        }
    };
    let coding = Coding::of_forward(&arrived.head.headers);
    let (read, gate) = match read(front, source, arrived, How { coding, agent: Some(agent) }).await {
        Ok((read, Some(gate))) => (read, gate),
        Ok((_, None)) => return say::no(No::NotVerified),
        Err(response) => return response,
    };
    let Passed { checks, hops, secret } = match ingest::let_by(&front.house, source, ring(&read, &gate)).await {
        Ok(passed) => passed,
        Err(refused) => return not_let_by(agent, &gate, &refused),
    };
    if let Some(text) = &gate.challenge {
        ingest::answered(&front.house, source, Some(remote), checks).await;
        return challenge(text);
    }
    let Some(place) = to.places.take() else {
        let reason = format!("agent `{}` has as many requests as `max_concurrent` allows", agent.name);
        refused(front, Some(&source.name), remote, No::Full(FULL), reason).await;
        return with_wait(
            say::detail(status(No::Full(FULL)), "too many requests at once; send it again later"),
            No::Full(FULL),
        );
    };
    let key = secret.and_then(|at| gate.keys.get(at));
    if let Some(key) = key {
        front.uses.note(front, key, front.house.clock.now());
    }
    let by = format!("{}{}", gate.kind.as_str(), key.map_or_else(String::new, |key| format!(" {}", key.id)));
    let mut headers = forward::onward(&read.head.headers, Some(remote), hops);
    let (method, body) = (&read.head.method, &read.whole.bytes);
    let checked = Checked { method, target: &target, body, agent: agent.name.as_str(), by: &by };
    forward::prove(&mut headers, &checked, &to.secrets, &front.house.clock);
    let mut request = http::Request::new(body.clone());
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method.clone(), target, headers);
    let limits = FetchLimits { time_limit: to.time_limit, max_body: usize::MAX, reach: to.reach };
    let (fetch, house, source) = (Arc::clone(&to.fetch), Arc::clone(&front.house), Arc::clone(source));
    let (what, clock) = (format!("{} {}", read.head.method, shown(path)), front.house.clock.clone());
    // In a task of its own: a sender that resets its HTTP/2 stream, or a hard stop of the connection, drops this future, and
    // must not leave a forward without its record.
    let exchange = tokio::spawn(async move {
        let _held = read;
        let began = clock.uptime();
        let outcome = fetch.stream(request, limits).await;
        let took = clock.uptime().saturating_sub(began).as_millis();
        let (code, reason) = match &outcome {
            Ok(answer) => ("forwarded", format!("{what} by {by}: the agent answered {} in {took} ms", answer.status())),
            Err(FetchError::TimedOut { .. }) => ("agent_timed_out", format!("{what} by {by}: no answer in {took} ms")),
            Err(error) => ("agent_unreachable", format!("{what} by {by}: {error}")),
        };
        ingest::passed_on(&house, &source, Some(remote), checks, (code, reason)).await;
        outcome
    });
    match exchange.await {
        Ok(Ok(answer)) => handed_on(answer, place),
        Ok(Err(error)) => failure(&error),
        Err(_) => say::failed(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error"),
    }
}

/// The agent's answer, byte for byte; its place is free when the last byte is gone.
fn handed_on(answer: Response<Pieces>, place: Place) -> Response<Body> {
    let (head, pieces) = answer.into_parts();
    if head.status.is_informational() {
        return failure(&FetchError::Refused("the agent answered with another protocol".into()));
    }
    let pieces = pieces.map(move |piece| {
        let _held = &place;
        piece
    });
    let mut response = Response::new(Body::axum(axum::body::Body::from_stream(pieces)));
    (*response.status_mut(), *response.headers_mut()) = (head.status, forward::back(head.status, &head.headers));
    response
}

/// What went wrong between us and the agent, without what is nobody's business: no address, no cause.
fn failure(error: &FetchError) -> Response<Body> {
    match error {
        FetchError::TimedOut { .. } => {
            say::failed(StatusCode::GATEWAY_TIMEOUT, "The agent did not answer in time; it may have taken the request.")
        }
        FetchError::Connect { .. } => {
            say::failed(StatusCode::BAD_GATEWAY, "The agent cannot be reached; send it again later.")
        }
        FetchError::Broken { .. } | FetchError::TooLarge { .. } | FetchError::Refused(_) => {
            say::failed(StatusCode::BAD_GATEWAY, "The exchange with the agent failed; it may have taken the request.")
        }
    }
}

/// An agent with a trigger: the request becomes an event of its source, and a durable run.
async fn queue(front: &Front, agent: &AcpAgent, source: &Arc<Source>, arrived: Arrived) -> Response<Body> {
    if arrived.head.method != Method::POST {
        refused(front, Some(&source.name), arrived.remote, No::Method, "an agent with a trigger takes POST").await;
        return say::method("POST");
    }
    let is_ours = source.webhook().is_some_and(|w| w.preset.id == super::super::CONTRACT);
    let how = How { coding: Coding::None, agent: is_ours.then_some(agent) };
    let (read, gate) = match read(front, source, arrived, how).await {
        Ok(read) => read,
        Err(response) => return response,
    };
    if let Some((gate, text)) = gate.as_ref().and_then(|g| Some((g, g.challenge.as_ref()?))) {
        return match ingest::let_by(&front.house, source, ring(&read, gate)).await {
            Ok(passed) => {
                ingest::answered(&front.house, source, Some(read.remote), passed.checks).await;
                challenge(text)
            }
            Err(refused) => not_let_by(agent, gate, &refused),
        };
    }
    let verifier = gate.as_ref().map(|g| &g.verifier);
    let Read { head, whole, remote, via } = &read;
    let asked = webhook::Read { head, body: &whole.bytes, remote: Some(*remote), via: *via, verifier };
    match webhook::ask_read(front, source, asked).await {
        Answer::Taken(taken) => {
            if let Some([key]) = gate.as_ref().map(|g| g.keys.as_slice()) {
                front.uses.note(front, key, front.house.clock.now());
            }
            let entry = reply::Entry::of_all(&taken);
            let is_run = taken.iter().any(|t| !matches!(t, Taken::Ignored { .. }));
            reply::json(if is_run { StatusCode::ACCEPTED } else { StatusCode::OK }, &entry)
        }
        Answer::Handshake(answer) => reply::handshake(answer),
        Answer::Refused(refused) => match &gate {
            Some(gate) => not_let_by(agent, gate, &refused),
            None => say::no(refused.no),
        },
    }
}
