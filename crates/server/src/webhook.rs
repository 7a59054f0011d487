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
use crate::{local, peer, reply, wait};

/// What a sender is asked to wait while we stop: another process is up by then.
pub(crate) const STOPPING: Duration = Duration::from_secs(5);

/// A request on its way to the door.
pub(crate) struct Arrived {
    pub(crate) head: http::request::Parts,
    pub(crate) body: Incoming,
    /// The real peer.
    pub(crate) remote: IpAddr,
    /// Who handed it to us.
    pub(crate) via: provider::Via,
}

/// What the door said, and how the connection goes on.
pub(crate) struct Asked {
    pub(crate) answer: Answer,
    /// Whether what is left of the request would have to be read to reach the next one.
    pub(crate) ends_connection: bool,
}

/// Answers one request to `source`, which listens on the request's path.
pub(crate) async fn ring(
    front: &Front,
    source: &Arc<Source>,
    socket: IpAddr,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let remote = peer::real(socket, &head.headers, &front.options.trusted_proxies);
    let via = peer::via(socket, &front.options.trusted_proxies);
    // Some senders take one text alone for a yes.
    let wanted = source.webhook().and_then(|w| w.preset.reply.as_deref());
    // Subscribed before the event is there: a run that ends at once is not missed.
    let waiting = match source.webhook().map(|w| w.respond) {
        Some(Respond::Result(limit)) => Some((front.house.store.notices(), limit)),
        Some(Respond::Accepted) | None => None,
    };
    let asked = ask(front, source, Arrived { head, body, remote, via }, None).await;
    let mut response = match asked.answer {
        Answer::Taken(_) if wanted.is_some() => reply::said(wanted.unwrap_or_default()),
        Answer::Taken(taken) => answer(front, &taken, waiting).await,
        Answer::Handshake(answer) => reply::handshake(answer),
        Answer::Refused(refused) => reply::refusal(refused.no),
    };
    if asked.ends_connection {
        end_connection(&mut response);
    }
    response
}

/// Brings one request to the door of `source`: the native wire and the contracts both ask here, and dress the answer.
/// `verifier` stands in for the source's own, where a wire chooses the check by what the request carries.
pub(crate) async fn ask(
    front: &Front,
    source: &Arc<Source>,
    arrived: Arrived,
    verifier: Option<&provider::Verifier>,
) -> Asked {
    let Arrived { head, body, remote, via } = arrived;
    let remote = Some(remote);
    let refuse = |no: No, reason: String| async move {
        Answer::Refused(ingest::refuse_early(&front.house, Some(&source.name), remote, no, reason).await)
    };
    let stays = |answer| Asked { answer, ends_connection: false };
    let Some(webhook) = source.webhook() else {
        return stays(refuse(No::NotFound, "this source takes no webhooks".into()).await);
    };
    if front.status.is_stopping() {
        let answer = refuse(No::Unavailable(STOPPING), "the program is stopping".into()).await;
        return Asked { answer, ends_connection: true };
    }
    if head.method != Method::POST && webhook.preset.greets(&head.method) {
        return stays(greet(front, source, webhook, &head, remote).await);
    }
    if head.method != Method::POST {
        return stays(refuse(No::Method, format!("a {} came, and this source takes POST", head.method)).await);
    }
    // A source that checks nobody is still not for every page that somebody on this machine opens.
    if matches!(webhook.preset.scheme, provider::Scheme::None)
        && remote.is_some_and(|remote| local::is_a_strange_page(remote, via, &head.headers))
    {
        let reason = "a page of another site asked in a browser on this machine, and this source checks nobody";
        return stays(refuse(No::AddressNotAllowed, reason.into()).await);
    }
    // A stranger's body is not worth its memory.
    if ingest::is_refused_unread(&front.house, source, remote) {
        let why = ("address_not_allowed", "refused unread".into());
        let refused = ingest::turn_away(&front.house, source, remote, No::AddressNotAllowed, why).await;
        return Asked { answer: Answer::Refused(refused), ends_connection: body::may_be_large(&body) };
    }
    if body::may_be_large(&body) {
        let nothing = bytes::Bytes::new();
        let read = Read { head: &head, body: &nothing, remote, via, verifier };
        let refused = with_ring(source, read, async |ring| ingest::refuse_by_head(&front.house, source, ring).await);
        if let Some(refused) = refused.await {
            return Asked { answer: Answer::Refused(refused), ends_connection: true };
        }
    }
    let rule = body::Rule { limit: webhook.max_body, timeouts: &front.options.timeouts, budget: &front.budget };
    let whole = match body::read(&head.headers, body, rule).await {
        Ok(whole) => whole,
        Err(error) => {
            let answer = refuse(error.no(), error.to_string()).await;
            return Asked { answer, ends_connection: true };
        }
    };
    let read = Read { head: &head, body: &whole.bytes, remote, via, verifier };
    stays(ask_read(front, source, read).await)
}

/// A request whose body was read.
pub(crate) struct Read<'r> {
    pub(crate) head: &'r http::request::Parts,
    pub(crate) body: &'r bytes::Bytes,
    /// The real peer.
    pub(crate) remote: Option<IpAddr>,
    /// Who brought it.
    pub(crate) via: provider::Via,
    /// Stands in for the source's own.
    pub(crate) verifier: Option<&'r provider::Verifier>,
}

/// As [`ask`], for a contract that has read the body to know which check the request needs.
pub(crate) async fn ask_read(front: &Front, source: &Arc<Source>, read: Read<'_>) -> Answer {
    with_ring(source, read, async |ring| ingest::admit(&front.house, source, ring).await).await
}

async fn with_ring<T>(source: &Source, read: Read<'_>, work: impl AsyncFnOnce(Ring<'_>) -> T) -> T {
    let Read { head, body, remote, via, verifier } = read;
    let query = head.uri.query().unwrap_or_default();
    let url = source.webhook().and_then(|webhook| public_url(webhook, query));
    let request = provider::Request {
        method: &head.method,
        url: url.as_deref(),
        path: source.webhook().map_or(head.uri.path(), |webhook| path(webhook, head)),
        query,
        headers: &head.headers,
        body,
        via,
    };
    work(Ring { request, remote, verifier }).await
}

/// A sender's question by `GET`, `HEAD` or `OPTIONS`: whether this address is ours. Such a request carries no event, and its
/// body is not read.
async fn greet(
    front: &Front,
    source: &Arc<Source>,
    webhook: &Webhook,
    head: &http::request::Parts,
    remote: Option<IpAddr>,
) -> Answer {
    let query = head.uri.query().unwrap_or_default();
    let url = public_url(webhook, query);
    let nothing = bytes::Bytes::new();
    let request = provider::Request {
        method: &head.method,
        url: url.as_deref(),
        path: path(webhook, head),
        query,
        headers: &head.headers,
        body: &nothing,
        via: provider::Via::Anybody,
    };
    ingest::greet(&front.house, source, Ring { request, remote, verifier: None }).await
}

async fn answer(
    front: &Front,
    taken: &[Taken],
    waiting: Option<(broadcast::Receiver<Notice>, Duration)>,
) -> Response<Body> {
    // A batch is answered at once: its sender wants to know what was taken, not what came of it.
    if let (Some((notices, limit)), [one]) = (waiting, taken) {
        let closing = front.status.closing().cancelled();
        let ended = tokio::select! {
            ended = Box::pin(wait::result(&front.house, one, notices, limit)) => ended,
            () = closing => None,
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

/// The request's path; of a source whose token is in it only what stands behind the source's own.
fn path<'h>(webhook: &Webhook, head: &'h http::request::Parts) -> &'h str {
    let whole = head.uri.path();
    match webhook.preset.has_token_in_path() {
        true => whole.strip_prefix(webhook.path.as_str()).unwrap_or_default(),
        false => whole,
    }
}

/// The URL as the sender knows it, from the configuration: what a request says of its host is the sender's to choose.
fn public_url<'w>(webhook: &'w Webhook, query: &str) -> Option<std::borrow::Cow<'w, str>> {
    let url = webhook.public_url.as_deref()?;
    Some(if query.is_empty() { url.into() } else { format!("{url}?{query}").into() })
}

pub(crate) fn end_connection(response: &mut Response<Body>) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}
