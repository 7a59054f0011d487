//! The accept loop over a listener that the caller opened: connection cap, TLS handshake, one task a connection, and an
//! end that is soft first and hard when the caller says so.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::conn::{At, Cut, Door, End, Graceful, Line, Protocol, Serves, Watch, Watched, drive};
use crate::front::Front;
use crate::server::Ending;
use crate::tls::Tls;

/// How long the loop waits after an accept that failed, doubled up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));
/// HTTP/2 peers are asked for a sign of life this often, and have the other time to give it.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(20));
/// What hyper reads ahead of a body. Not less than the 8 KiB it insists on.
const READ_BUFFER: usize = 64 * 1024;

/// Everything one listener needs.
pub(crate) struct Listening {
    pub(crate) front: Arc<Front>,
    pub(crate) door: Door,
    pub(crate) places: Arc<Semaphore>,
    pub(crate) tls: Option<Tls>,
    pub(crate) ending: Ending,
    pub(crate) connections: TaskTracker,
}

/// Accepts until told to close, then waits for the connections, which are cut when told so.
pub(crate) async fn listen(listener: TcpListener, listening: Listening) {
    let listening = Arc::new(listening);
    let mut pause = BACKOFF.0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = listening.ending.soft.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = BACKOFF.0;
                welcome(&listening, stream, peer);
            }
            // The peer was gone before we looked: no reason to wait.
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                // Mostly: out of file descriptors. Connections that end give some back, so waiting helps.
                metrics::counter!("doorbell_accept_errors_total").increment(1);
                tracing::warn!(%error, "Could not accept a connection; trying again shortly");
                tokio::select! {
                    () = listening.ending.soft.cancelled() => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
    drop(listener);
    listening.connections.close();
    tokio::select! {
        () = listening.connections.wait() => return,
        () = listening.ending.hard.cancelled() => {}
    }
    let left = listening.connections.len();
    tracing::warn!(connections = left, "Connections were still open after the patience for stopping; they are cut");
    listening.connections.wait().await;
}

fn is_peers_fault(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn welcome(listening: &Arc<Listening>, stream: TcpStream, peer: SocketAddr) {
    let Ok(place) = Arc::clone(&listening.places).try_acquire_owned() else {
        metrics::counter!("doorbell_connections_refused_total").increment(1);
        tracing::debug!(peer = %peer, "Closed a new connection: the cap is reached");
        return;
    };
    metrics::counter!("doorbell_connections_total").increment(1);
    let listening = Arc::clone(listening);
    let tracker = listening.connections.clone();
    tracker.spawn(async move {
        let _open = Open::new(place);
        connection(&listening, stream, peer).await;
    });
}

/// A connection's place, and its share of the gauge.
struct Open(#[allow(dead_code, reason = "given back when dropped")] OwnedSemaphorePermit);

impl Open {
    fn new(place: OwnedSemaphorePermit) -> Self {
        metrics::gauge!("doorbell_connections_open").increment(1.0);
        Self(place)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::gauge!("doorbell_connections_open").decrement(1.0);
    }
}

async fn connection(listening: &Listening, stream: TcpStream, peer: SocketAddr) {
    // Answers are one small write: nothing gains from waiting for more.
    let _ = stream.set_nodelay(true);
    let Some(tls) = &listening.tls else {
        return http1(listening, stream, peer).await;
    };
    let handshake = tokio::time::timeout(listening.front.options.timeouts.handshake, tls.acceptor().accept(stream));
    let stream = tokio::select! {
        biased;
        () = listening.ending.soft.cancelled() => return,
        outcome = handshake => outcome,
    };
    match stream {
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => http2(listening, stream, peer).await,
        Ok(Ok(stream)) => http1(listening, stream, peer).await,
        Ok(Err(error)) => {
            metrics::counter!("doorbell_handshake_errors_total", "why" => "failed").increment(1);
            tracing::debug!(peer = %peer, %error, "A TLS handshake failed");
        }
        Err(_) => metrics::counter!("doorbell_handshake_errors_total", "why" => "slow").increment(1),
    }
}

macro_rules! graceful {
    ($connection:ty) => {
        impl<I, S> Graceful for $connection
        where
            I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
            S: Serves,
        {
            fn ask_to_end(self: Pin<&mut Self>) {
                self.graceful_shutdown();
            }
        }
    };
}

graceful!(http1::Connection<I, S>);
graceful!(http2::Connection<I, S, TokioExecutor>);

async fn http1<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(listening: &Listening, stream: T, peer: SocketAddr) {
    let line = Line { peer: peer.ip(), door: listening.door, watch: Watch::new() };
    let watched = Watched::new(stream, Arc::clone(&line.watch), Protocol::Http1);
    let limits = &listening.front.options.limits;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A sender that shuts its sending side after the request still waits for the answer.
        .half_close(true)
        .max_buf_size(READ_BUFFER.max(limits.head_bytes))
        .max_header_size(limits.head_bytes)
        .max_headers(limits.headers)
        .serve_connection(TokioIo::new(watched), listening.front.service(line.clone()));
    let end = drive(connection, &line.watch, &listening.front.options.timeouts, &listening.ending).await;
    tell(&listening.front, &line, &end).await;
}

async fn http2<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(listening: &Listening, stream: T, peer: SocketAddr) {
    let line = Line { peer: peer.ip(), door: listening.door, watch: Watch::new() };
    let watched = Watched::new(stream, Arc::clone(&line.watch), Protocol::Http2);
    let limits = &listening.front.options.limits;
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .serve_connection(TokioIo::new(watched), listening.front.service(line.clone()));
    let end = drive(connection, &line.watch, &listening.front.options.timeouts, &listening.ending).await;
    tell(&listening.front, &line, &end).await;
}

/// Counts how a connection ended, and records heads that never became a request.
async fn tell(front: &Front, line: &Line, end: &End) {
    match end {
        End::Closed(Ok(())) | End::Stopped => {}
        End::Cut(cut) => {
            metrics::counter!("doorbell_connections_cut_total", "why" => cut.as_str()).increment(1);
            if *cut == Cut::Head {
                front.note_head(line.peer, "the request's head did not come in time").await;
            }
        }
        End::Closed(Err(error)) if error.is_parse_too_large() => {
            front.note_head(line.peer, "the request's head is too large, or has too many headers").await;
        }
        End::Closed(Err(error)) if error.is_parse() => {
            front.note_head(line.peer, "the request's head is not HTTP/1.1").await
        }
        End::Closed(Err(error)) if error.is_incomplete_message() && line.watch.at() == At::Head => {
            front.note_head(line.peer, "the connection was closed within a request's head").await;
        }
        End::Closed(Err(error)) => tracing::debug!(peer = %line.peer, %error, "A connection broke off"),
    }
}
