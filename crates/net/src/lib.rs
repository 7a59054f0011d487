//! The one way out over HTTP: [`Client`] implements `core::ports::Fetch` for whoever calls another machine (runners,
//! certificates and JWKS, deliveries, forwarding). One place, because each caller would otherwise have to remember that
//! a URL from outside may point inwards, that a redirect may lead there, and that an answer may never end.
//!
//! What it holds to: http and https only; no name and password in a URL; no proxy from the environment; redirects are
//! returned, never followed; one time limit from connecting to the last byte; a cap on the answer while it comes; and for
//! [`Reach::Public`] only addresses that [`guard`] allows, both as literals and behind names.

pub mod guard;
mod resolve;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use doorbell_core::ports::{Fetch, FetchError, FetchLimits, Pieces, Reach};
use futures::StreamExt as _;
use guard::Allowed;
use ipnet::IpNet;
use reqwest::Url;
use url::Host;

use resolve::{Guarded, Lookup, NotPublic};

/// A host that does not take the connection in this time is taken as not there, whatever the exchange's limit.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Shorter than the 5 s after which Node's HTTP server, the shortest of the common ones, closes an idle connection: a
/// request on a connection that is just being closed fails without need.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// Idle connections kept for each host: enough for an agent's concurrency, bounded against a host that never closes.
const IDLE_PER_HOST: usize = 128;

/// The client could not be made (no usable TLS roots on this machine); nothing can be called.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be made; are CA certificates installed?")]
pub struct BuildError(#[source] reqwest::Error);

/// Chooses aws-lc-rs for all of rustls in this process, first in `main` and in tests. Harmless to call again.
pub fn install_crypto() {
    // An error only says that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The guarded client. Two pools, so that a connection opened with [`Reach::Any`] never serves [`Reach::Public`]. Cheap to
/// clone.
#[derive(Clone)]
pub struct Client {
    public: reqwest::Client,
    any: reqwest::Client,
    lookup: Lookup,
    allowed: Allowed,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes the client, with the machine's resolver and CA certificates.
    pub fn new() -> Result<Self, BuildError> {
        Self::with_lookup(resolve::system())
    }

    fn with_lookup(lookup: Lookup) -> Result<Self, BuildError> {
        install_crypto();
        let (any, allowed) = (builder().build().map_err(BuildError)?, Allowed::default());
        Ok(Self { public: guarded(&lookup, &allowed)?, any, lookup, allowed })
    }

    fn pool(&self, reach: Reach) -> &reqwest::Client {
        match reach {
            Reach::Public => &self.public,
            Reach::Any => &self.any,
        }
    }

    async fn exchange(
        &self,
        request: reqwest::Request,
        limits: FetchLimits,
    ) -> Result<http::Response<Bytes>, FetchError> {
        let host = host_of(request.url());
        let mut response = self.pool(limits.reach).execute(request).await.map_err(|e| failure(&host, &e))?;
        let too_large = || FetchError::TooLarge { host: host.clone(), limit: limits.max_body };
        if response.content_length().is_some_and(|n| n > limits.max_body as u64) {
            return Err(too_large());
        }
        let mut body = Bytes::new();
        let mut joined = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(|e| failure(&host, &e))? {
            if body.len() + joined.len() + piece.len() > limits.max_body {
                return Err(too_large());
            }
            // Most answers come in one piece, which is then handed on as it is.
            if body.is_empty() && joined.is_empty() {
                body = piece;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut body));
                joined.extend_from_slice(&piece);
            }
        }
        let mut answer = http::Response::new(if joined.is_empty() { body } else { joined.freeze() });
        *answer.status_mut() = response.status();
        *answer.version_mut() = response.version();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

#[async_trait]
impl Fetch for Client {
    fn reaching(&self, networks: &[IpNet]) -> Option<Arc<dyn Fetch>> {
        let allowed = Allowed::also(networks);
        let public = guarded(&self.lookup, &allowed).ok()?;
        Some(Arc::new(Self { public, allowed, ..self.clone() }))
    }

    async fn fetch(
        &self,
        request: http::Request<Bytes>,
        limits: FetchLimits,
    ) -> Result<http::Response<Bytes>, FetchError> {
        let request = readable(request)?;
        admit(request.url(), limits.reach, &self.allowed)?;
        let host = host_of(request.url());
        tokio::time::timeout(limits.time_limit, self.exchange(request, limits))
            .await
            .unwrap_or(Err(FetchError::TimedOut { host, limit: limits.time_limit }))
    }

    async fn stream(
        &self,
        request: http::Request<Bytes>,
        limits: FetchLimits,
    ) -> Result<http::Response<Pieces>, FetchError> {
        let request = readable(request)?;
        admit(request.url(), limits.reach, &self.allowed)?;
        let (host, limit) = (host_of(request.url()), limits.time_limit);
        let late = |host: &str| FetchError::TimedOut { host: host.to_owned(), limit };
        let sent = tokio::time::timeout(limit, self.pool(limits.reach).execute(request));
        let mut response = sent.await.map_err(|_| late(&host))?.map_err(|e| failure(&host, &e))?;
        let (status, version) = (response.status(), response.version());
        let headers = std::mem::take(response.headers_mut());
        let pieces =
            futures::stream::unfold((response, host, limits.max_body), move |(mut from, host, left)| async move {
                let piece = match tokio::time::timeout(limit, from.chunk()).await {
                    Err(_) => Err(FetchError::TimedOut { host: host.clone(), limit }),
                    Ok(Err(error)) => Err(failure(&host, &error)),
                    Ok(Ok(None)) => return None,
                    Ok(Ok(Some(piece))) if piece.len() > left => {
                        Err(FetchError::TooLarge { host: host.clone(), limit: limits.max_body })
                    }
                    Ok(Ok(Some(piece))) => Ok(piece),
                };
                let left = left.saturating_sub(piece.as_ref().map_or(0, Bytes::len));
                Some((piece, (from, host, left)))
            });
        // Whoever reads on after a fault would wait for a connection that is gone.
        let pieces = pieces.scan(false, |failed, piece| {
            let go_on = !std::mem::replace(failed, piece.is_err());
            std::future::ready(go_on.then_some(piece))
        });
        let mut answer = http::Response::new(pieces.boxed());
        (*answer.status_mut(), *answer.version_mut(), *answer.headers_mut()) = (status, version, headers);
        Ok(answer)
    }
}

fn readable(request: http::Request<Bytes>) -> Result<reqwest::Request, FetchError> {
    reqwest::Request::try_from(request).map_err(|_| FetchError::Refused("the address is not a URL; correct it".into()))
}

/// A pool of its own: a connection that one list allowed serves no other.
fn guarded(lookup: &Lookup, allowed: &Allowed) -> Result<reqwest::Client, BuildError> {
    let resolver = Guarded(lookup.clone(), allowed.clone());
    builder().dns_resolver(Arc::new(resolver)).build().map_err(BuildError)
}

fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_LIMIT)
        .pool_idle_timeout(IDLE_LIMIT)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .user_agent(concat!("doorbell/", env!("CARGO_PKG_VERSION")))
}

/// What can be judged from the URL alone. The resolver judges the rest: a literal address never reaches it.
fn admit(url: &Url, reach: Reach, allowed: &Allowed) -> Result<(), FetchError> {
    let refuse = |why: String| Err(FetchError::Refused(why));
    if !matches!(url.scheme(), "http" | "https") {
        return refuse(format!("only http and https can be called, not `{}`", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse(format!("the URL for {} carries a name or password; send them in a header", host_of(url)));
    }
    let literal = match url.host() {
        Some(Host::Ipv4(ip)) => Some(ip.into()),
        Some(Host::Ipv6(ip)) => Some(ip.into()),
        Some(Host::Domain(_)) => None,
        None => return refuse("the URL names no host".into()),
    };
    match (reach, literal.map(|ip| (ip, allowed.call(ip)))) {
        (Reach::Public, Some((ip, Err(what)))) => refuse(format!("{ip} may not be called: it is {what}")),
        _ => Ok(()),
    }
}

/// Host and port only: paths and queries may carry secrets.
fn host_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "no host".to_owned(),
    }
}

fn failure(host: &str, error: &reqwest::Error) -> FetchError {
    let mut why = String::new();
    // The outermost message is left out: it repeats the URL.
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        if let Some(refusal) = e.downcast_ref::<NotPublic>() {
            return FetchError::Refused(refusal.to_string());
        }
        let text = e.to_string();
        if !why.ends_with(&text) {
            why = if why.is_empty() { text } else { format!("{why}: {text}") };
        }
        cause = e.source();
    }
    if why.is_empty() {
        why = "the request could not be sent".to_owned();
    }
    match error.is_connect() {
        true => FetchError::Connect { host: host.to_owned(), why },
        false => FetchError::Broken { host: host.to_owned(), why },
    }
}

#[cfg(test)]
mod tests;
