//! Where a request goes: a path that a source listens on goes straight to the ingress, everything else to the router
//! with the API, health and the documents.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use axum::Router;
use doorbell_core::house::House;
use doorbell_core::ingest::{self, No};
use doorbell_core::provider::PATH_TOKEN_BYTES_MIN;
use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use tower::ServiceExt as _;

use crate::auth::{Failures, Uses};
use crate::body::{Body, Budget};
use crate::conn::{Door, Line, Serves};
use crate::contracts::show::ServedAt;
use crate::contracts::{self, Contracts};
use crate::health::Probe;
use crate::options::Options;
use crate::peer::{self, Peer};
use crate::status::Status;
use crate::webhook::STOPPING;
use crate::{api, reply, webhook};

/// What every request needs.
pub(crate) struct Front {
    pub(crate) house: Arc<House>,
    pub(crate) options: Options,
    pub(crate) status: Arc<Status>,
    pub(crate) budget: Budget,
    pub(crate) probe: Probe,
    /// The wires of other systems that are served.
    pub(crate) contracts: ArcSwap<Contracts>,
    /// Held while agents of Agentex register or are deleted and while their keys are made, one at a time: each looks at what
    /// the others change.
    pub(crate) agents_turn: tokio::sync::Mutex<()>,
    /// When the use of each API key was last written down.
    pub(crate) uses: Uses,
    /// Tokens that opened nothing, by address.
    pub(crate) failures: Failures,
    /// Readers that follow a log now.
    pub(crate) followers: AtomicUsize,
    /// Made once: a look-up by name for each request would cost more than the record.
    ack_seconds: metrics::Histogram,
    router: std::sync::OnceLock<Router>,
}

impl Front {
    pub(crate) fn new(house: Arc<House>, options: Options, status: Arc<Status>) -> Arc<Self> {
        let front = Arc::new(Self {
            budget: Budget::new(options.limits.bodies_at_once),
            probe: Probe::default(),
            contracts: ArcSwap::default(),
            agents_turn: tokio::sync::Mutex::default(),
            uses: Uses::default(),
            failures: Failures::default(),
            followers: AtomicUsize::new(0),
            ack_seconds: metrics::histogram!("doorbell_ack_seconds"),
            router: std::sync::OnceLock::new(),
            house,
            options,
            status,
        });
        let _ = front.router.set(api::router(Arc::clone(&front)));
        front
    }

    /// The service of one connection. A plain function: the future it makes is kept in place by hyper, without a box.
    pub(crate) fn service(self: &Arc<Self>, line: Line) -> impl Serves + use<> {
        let front = Arc::clone(self);
        hyper::service::service_fn(move |request: Request<Incoming>| {
            let in_flight = line.watch.begin();
            let (front, socket, door) = (Arc::clone(&front), line.peer, line.door);
            async move {
                let mut response = front.serve(door, socket, request).await;
                response.body_mut().hold(in_flight);
                Ok::<_, Infallible>(response)
            }
        })
    }

    async fn serve(self: Arc<Self>, door: Door, socket: IpAddr, request: Request<Incoming>) -> Response<Body> {
        let catalog = self.house.catalog();
        if let Err((no, reason)) = check_head(&request) {
            let source = catalog.source_at(request.uri().path()).filter(|_| door.is_none()).map(|source| &source.name);
            let remote = peer::real(socket, request.headers(), &self.options.trusted_proxies);
            ingest::refuse_early(&self.house, source, Some(remote), no, reason).await;
            let mut response = reply::refusal(no);
            // Nobody can be sure where the next request begins.
            webhook::end_connection(&mut response);
            return response;
        }
        if door.is_none()
            && let Some(source) = catalog.source_at(request.uri().path())
        {
            let began = tokio::time::Instant::now();
            let keeps_a_secret = source.webhook().is_some_and(|webhook| webhook.preset.pairing.is_some());
            let response = match keeps_a_secret {
                // An event is one step of the store, whoever waits for it.
                false => webhook::ring(&self, source, socket, request).await,
                true => {
                    let (front, source) = (Arc::clone(&self), Arc::clone(source));
                    to_its_end(async move { webhook::ring(&front, &source, socket, request).await }).await
                }
            };
            self.ack_seconds.record(began.elapsed().as_secs_f64());
            return response;
        }
        drop(catalog);
        let contracts = self.contracts.load_full();
        to_its_end(async move {
            if contracts.is_empty() {
                return self.route(socket, request).await;
            }
            match contracts::serve(&self, contracts, door, socket, request).await {
                contracts::Said::Answer(response) => response,
                contracts::Said::NotOurs(request) => self.route(socket, request).await,
            }
        })
        .await
    }

    async fn route(&self, socket: IpAddr, request: Request<Incoming>) -> Response<Body> {
        let Some(router) = self.router.get() else { return reply::refusal(No::NotFound) };
        let remote = peer::real(socket, request.headers(), &self.options.trusted_proxies);
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Peer { socket: socket.to_canonical(), remote });
        let answer = match router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        answer.map(Body::axum)
    }

    /// What wire contracts serve.
    pub(crate) fn served(&self) -> Vec<ServedAt> {
        self.contracts.load().shown(&self.house.catalog())
    }

    /// The one answer for every path that nobody listens on, noted.
    pub(crate) async fn nothing_here(&self, remote: IpAddr, path: &str) -> Response<axum::body::Body> {
        let path: String = without_tokens(path).chars().take(200).flat_map(char::escape_default).collect();
        ingest::refuse_early(&self.house, None, Some(remote), No::NotFound, format!("no source listens on `{path}`"))
            .await;
        reply::refusal(No::NotFound).map(axum::body::Body::new)
    }

    /// Notes a request whose head never became one.
    pub(crate) async fn note_head(&self, peer: IpAddr, reason: &'static str) {
        ingest::refuse_early(&self.house, None, Some(peer.to_canonical()), No::Unreadable, reason).await;
    }
}

/// What hyper lets through and RFC 9112 does not: a transfer coding beside `chunked`, which nobody would undo (section 6.1),
/// and more than one `Host` (section 3.2), of which two servers may believe one each.
fn check_head<B>(request: &Request<B>) -> Result<(), (No, &'static str)> {
    if request.version() > http::Version::HTTP_11 {
        return Ok(());
    }
    let headers = request.headers();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_plain = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(|first| !is_plain(first)) || codings.next().is_some() {
        return Err((No::TransferCoding, "a transfer coding other than chunked; only that is taken"));
    }
    if headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err((No::Unreadable, "there is more than one Host header"));
    }
    Ok(())
}

/// Carries a request out in a task of its own, so that a caller who hangs up cannot stop it between a change in the store and
/// what has to follow from it in memory.
async fn to_its_end(work: impl Future<Output = Response<Body>> + Send + 'static) -> Response<Body> {
    match tokio::spawn(work).await {
        Ok(response) => response,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => reply::refusal(No::Unavailable(STOPPING)),
        },
    }
}

/// A path that nobody listens on, for its record. It may hold the token of a source that is spelled wrongly or gone, so no part
/// that is long enough for one is shown.
fn without_tokens(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.len() < PATH_TOKEN_BYTES_MIN { part } else { "***" });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_begun_is_brought_to_its_end_though_its_caller_hangs_up() {
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut work = Box::pin(to_its_end(async move {
            let _ = wait.await;
            let _ = tell.send(());
            reply::refusal(No::NotFound)
        }));
        assert!(futures::poll!(&mut work).is_pending());
        drop(work);
        let _ = go.send(());
        assert!(told.await.is_ok());
    }

    #[test]
    fn what_may_be_a_token_is_not_shown() {
        for (path, shown) in [
            ("/hooks/githbu", "/hooks/githbu"),
            ("/hooks/githbu/0123456789abcdef", "/hooks/githbu/***"),
            ("/0123456789abcdef", "/***"),
            ("/hooks/x/0123456789abcdef/", "/hooks/x/***/"),
            ("/hooks/x/0123456789abcde", "/hooks/x/0123456789abcde"),
            ("/hooks/x/%30123456789abcdef", "/hooks/x/***"),
            ("", ""),
        ] {
            assert_eq!(without_tokens(path), shown, "{path}");
        }
    }
}
