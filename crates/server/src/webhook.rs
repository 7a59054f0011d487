//! The webhook ingress: from a request on a source's path to the door's answer. The hot path of the program: no router,
//! no boxed layer, no span, no copy of the body.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::ingest::{self, Answer, No, Ring, Taken};
use doorbell_core::ports::Notice;
use doorbell_core::provider;
use doorbell_core::source::{Respond, Source, Webhook};
use http::{HeaderValue, Method, Request, Response, header};
use hyper::body::Incoming;
use tokio::sync::broadcast;

use crate::body::{self, Body};
use crate::front::Front;
use crate::{peer, reply, wait};

/// What a sender is asked to wait while we stop: another process is up by then.
const STOPPING: Duration = Duration::from_secs(5);

/// Answers one request to `source`, which listens on the request's path.
pub(crate) async fn ring(
    front: &Front,
    source: &Arc<Source>,
    socket: IpAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    let remote = Some(peer::real(socket, &head.headers, &front.options.trusted_proxies));
    let refuse = |no: No, reason: String| async move {
        ingest::refuse_early(&front.house, Some(&source.name), remote, no, reason).await;
        reply::refusal(no)
    };
    let Some(webhook) = source.webhook() else {
        return refuse(No::NotFound, "this source takes no webhooks".into()).await;
    };
    if front.status.is_stopping() {
        let mut response = refuse(No::Unavailable(STOPPING), "the program is stopping".into()).await;
        end_connection(&mut response);
        return response;
    }
    if head.method != Method::POST && webhook.verifier.greets(&head.method) {
        return greet(front, source, webhook, &head, remote).await;
    }
    if head.method != Method::POST {
        return refuse(No::Method, format!("a {} came, and this source takes POST", head.method)).await;
    }
    let is_refused_unread = ingest::is_refused_unread(&front.house, source, remote);
    let rule = body::Rule { limit: webhook.max_body, timeouts: &front.options.timeouts, budget: &front.budget };
    // A stranger's body is not worth its memory: the door says the same no without it.
    let whole = match is_refused_unread {
        true => body::Whole::default(),
        false => match body::read(&head.headers, incoming, rule).await {
            Ok(whole) => whole,
            Err(error) => {
                let mut response = refuse(error.no(), error.to_string()).await;
                // What is left of the body would have to be read to reach the next request.
                end_connection(&mut response);
                return response;
            }
        },
    };
    let query = head.uri.query().unwrap_or_default();
    let url = public_url(webhook, query);
    let ring = Ring {
        request: provider::Request {
            method: &head.method,
            url: url.as_deref(),
            path: head.uri.path(),
            query,
            headers: &head.headers,
            body: &whole.bytes,
        },
        remote,
    };
    // Subscribed before the event is there: a run that ends at once is not missed.
    let waiting = match webhook.respond {
        Respond::Accepted => None,
        Respond::Result(limit) => Some((front.house.store.notices(), limit)),
    };
    match ingest::admit(&front.house, source, ring).await {
        Answer::Taken(taken) => answer(front, &taken, waiting).await,
        Answer::Handshake(answer) => reply::handshake(answer),
        Answer::Refused(refused) => reply::refusal(refused.no),
    }
}

/// A sender's question by `GET`, `HEAD` or `OPTIONS`: whether this address is ours. Such a request carries no event, and its
/// body is not read.
async fn greet(
    front: &Front,
    source: &Arc<Source>,
    webhook: &Webhook,
    head: &http::request::Parts,
    remote: Option<IpAddr>,
) -> Response<Body> {
    let query = head.uri.query().unwrap_or_default();
    let url = public_url(webhook, query);
    let nothing = bytes::Bytes::new();
    let request = provider::Request {
        method: &head.method,
        url: url.as_deref(),
        path: head.uri.path(),
        query,
        headers: &head.headers,
        body: &nothing,
    };
    match ingest::greet(&front.house, source, Ring { request, remote }).await {
        Answer::Handshake(answer) => reply::handshake(answer),
        Answer::Refused(refused) => reply::refusal(refused.no),
        Answer::Taken(taken) => answer(front, &taken, None).await,
    }
}

async fn answer(
    front: &Front,
    taken: &[Taken],
    waiting: Option<(broadcast::Receiver<Notice>, Duration)>,
) -> Response<Body> {
    // A batch is answered at once: its sender wants to know what was taken, not what came of it.
    if let (Some((notices, limit)), [one]) = (waiting, taken) {
        let stopping = front.status.stopping().cancelled();
        let ended = tokio::select! {
            ended = Box::pin(wait::result(&front.house, one, notices, limit)) => ended,
            () = stopping => None,
        };
        if let Some(response) = ended {
            return response;
        }
        let entry = reply::Entry::of(one);
        let is_unfinished = |t: &Taken| match t {
            Taken::Accepted { .. } => true,
            Taken::Duplicate { runs, .. } => runs.iter().any(|(.., state)| !state.is_final()),
            Taken::Ignored { .. } => false,
        };
        let status = if is_unfinished(one) { http::StatusCode::ACCEPTED } else { entry.http_status() };
        return reply::json(status, &entry);
    }
    let entry = reply::Entry::of_all(taken);
    reply::json(entry.http_status(), &entry)
}

/// The URL as the sender knows it, from the configuration: what a request says of its host is the sender's to choose.
fn public_url<'w>(webhook: &'w Webhook, query: &str) -> Option<std::borrow::Cow<'w, str>> {
    let url = webhook.public_url.as_deref()?;
    Some(if query.is_empty() { url.into() } else { format!("{url}?{query}").into() })
}

fn end_connection(response: &mut Response<Body>) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}
