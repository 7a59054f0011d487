//! One connection: HTTP/1.1, or HTTP/2 where TLS agreed on it, under a watch that ends it when the peer is too slow.
//!
//! hyper's own header time-out starts only with the first byte in some set-ups, counts idle time as head time, and costs
//! a timer a request. So the watch sits between hyper and the socket: reads and requests leave marks, and one coarse
//! timer a connection compares them with the limits.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::options::Timeouts;
use crate::server::Ending;

/// What a connection is at. The order of the numbers means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// Nothing came yet.
    New = 0,
    /// Between two requests.
    Idle = 1,
    /// In a request's head.
    Head = 2,
}

/// Why a watch ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    FirstByte,
    Head,
    Idle,
    Write,
}

impl Cut {
    /// The label in the metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::FirstByte => "first_byte",
            Self::Head => "head",
            Self::Idle => "idle",
            Self::Write => "write",
        }
    }
}

/// The marks of one connection.
#[derive(Debug)]
pub(crate) struct Watch {
    began: Instant,
    /// Requests being worked on or answered.
    in_flight: AtomicU32,
    /// What it is at while there are none, and since when: `ms << 2 | At`.
    mark: AtomicU64,
    /// Since when the peer takes nothing of our answer, in ms + 1; 0: it takes.
    blocked: AtomicU64,
}

/// One request's place in the count of its connection.
pub(crate) struct InFlight(Arc<Watch>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.set(At::Idle, self.0.now());
        }
    }
}

impl Watch {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            in_flight: AtomicU32::new(0),
            mark: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
        })
    }

    /// A request's head is whole.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }

    pub(crate) fn at(&self) -> At {
        match self.mark.load(Ordering::Acquire) & 3 {
            0 => At::New,
            1 => At::Idle,
            _ => At::Head,
        }
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// Whether a limit is over now.
    pub(crate) fn over(&self, times: &Timeouts) -> Option<Cut> {
        self.over_at(self.now(), times)
    }

    fn over_at(&self, now: u64, times: &Timeouts) -> Option<Cut> {
        let blocked = self.blocked.load(Ordering::Acquire);
        if blocked > 0 && now.saturating_sub(blocked - 1) >= millis(times.write) {
            return Some(Cut::Write);
        }
        if self.is_busy() {
            return None;
        }
        let mark = self.mark.load(Ordering::Acquire);
        let (limit, cut) = match mark & 3 {
            0 => (times.first_byte, Cut::FirstByte),
            1 => (times.idle, Cut::Idle),
            _ => (times.head, Cut::Head),
        };
        (now.saturating_sub(mark >> 2) >= millis(limit)).then_some(cut)
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    fn set(&self, at: At, now: u64) {
        self.mark.store(now << 2 | at as u64, Ordering::Release);
    }

    fn read_something(&self, protocol: Protocol) {
        // HTTP/2 sends frames of its own between requests; there the idle limit holds until a request comes.
        let next = match protocol {
            Protocol::Http1 => At::Head,
            Protocol::Http2 => At::Idle,
        };
        if !self.is_busy() && matches!((self.at(), protocol), (At::New, _) | (At::Idle, Protocol::Http1)) {
            self.set(next, self.now());
        }
    }

    fn write_blocks(&self) {
        let _ = self.blocked.compare_exchange(0, self.now() + 1, Ordering::AcqRel, Ordering::Acquire);
    }

    fn write_moves(&self) {
        if self.blocked.load(Ordering::Relaxed) != 0 {
            self.blocked.store(0, Ordering::Release);
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Which listener a connection came to: none is the main one, else the address that a wire contract is served on.
pub(crate) type Door = Option<std::net::SocketAddr>;

/// Who is connected, and how.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) peer: IpAddr,
    pub(crate) door: Door,
    pub(crate) watch: Arc<Watch>,
}

/// A socket that leaves marks.
pub(crate) struct Watched<T> {
    io: T,
    watch: Arc<Watch>,
    protocol: Protocol,
}

impl<T> Watched<T> {
    pub(crate) fn new(io: T, watch: Arc<Watch>, protocol: Protocol) -> Self {
        Self { io, watch, protocol }
    }

    fn mark_write<R>(&self, outcome: Poll<R>) -> Poll<R> {
        match &outcome {
            Poll::Pending => self.watch.write_blocks(),
            Poll::Ready(_) => self.watch.write_moves(),
        }
        outcome
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            this.watch.read_something(this.protocol);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, buf);
        self.mark_write(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.mark_write(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.mark_write(outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(cx);
        self.mark_write(outcome)
    }
}

/// The shape of our hyper service.
pub(crate) trait Serves:
    hyper::service::Service<
        http::Request<hyper::body::Incoming>,
        Response = http::Response<crate::body::Body>,
        Error = std::convert::Infallible,
        Future: Send + 'static,
    > + 'static
{
}

impl<S> Serves for S where
    S: hyper::service::Service<
            http::Request<hyper::body::Incoming>,
            Response = http::Response<crate::body::Body>,
            Error = std::convert::Infallible,
            Future: Send + 'static,
        > + 'static
{
}

/// A hyper connection that can be asked to end after the request it is at.
pub(crate) trait Graceful: Future<Output = hyper::Result<()>> {
    /// Asks.
    fn ask_to_end(self: Pin<&mut Self>);
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// By itself: the peer closed, or asked us to, or a request was not HTTP.
    Closed(hyper::Result<()>),
    /// By the watch.
    Cut(Cut),
    /// Because we stop.
    Stopped,
}

/// Drives a connection to its end. A soft ending lets the request under way end and then closes; a hard one closes at once.
pub(crate) async fn drive<C: Graceful>(connection: C, watch: &Watch, times: &Timeouts, ending: &Ending) -> End {
    let mut connection = pin!(connection);
    let mut tick = pin!(tokio::time::sleep(times.tick()));
    let mut stop = pin!(ending.soft.cancelled());
    let mut hard = pin!(ending.hard.cancelled());
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            outcome = &mut connection => return End::Closed(outcome),
            () = &mut hard => return End::Stopped,
            () = &mut stop, if !stopping => {
                stopping = true;
                if !watch.is_busy() && watch.at() == At::New {
                    return End::Stopped;
                }
                connection.as_mut().ask_to_end();
            }
            () = &mut tick => {
                if let Some(cut) = watch.over(times) {
                    return End::Cut(cut);
                }
                tick.as_mut().reset(Instant::now() + times.tick());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_phase_has_its_own_limit_and_work_has_none() {
        let s = Duration::from_secs;
        let times = Timeouts { first_byte: s(5), head: s(10), idle: s(60), write: s(30), ..Timeouts::default() };
        let watch = Watch::new();
        let over = |secs: u64| watch.over_at(secs * 1000, &times);
        assert_eq!((over(4), over(5)), (None, Some(Cut::FirstByte)));
        watch.read_something(Protocol::Http1);
        assert_eq!((over(9), over(11)), (None, Some(Cut::Head)));
        let mark = watch.mark.load(Ordering::Acquire);
        watch.read_something(Protocol::Http1);
        assert_eq!(watch.mark.load(Ordering::Acquire), mark, "a drip does not extend the head's time");
        let request = watch.begin();
        assert_eq!(over(1000), None);
        drop(request);
        assert_eq!((over(59), over(61)), (None, Some(Cut::Idle)));
        let _request = watch.begin();
        watch.write_blocks();
        let blocked = watch.blocked.load(Ordering::Acquire);
        watch.write_blocks();
        assert_eq!(watch.blocked.load(Ordering::Acquire), blocked, "asking again does not extend the time to write");
        assert_eq!((over(29), over(31)), (None, Some(Cut::Write)));
        watch.write_moves();
        assert_eq!(over(31), None);
    }

    #[tokio::test]
    async fn http_2_frames_between_requests_do_not_start_a_head() {
        let watch = Watch::new();
        watch.read_something(Protocol::Http2);
        assert_eq!(watch.at(), At::Idle);
        watch.read_something(Protocol::Http2);
        assert_eq!(watch.at(), At::Idle);
    }
}
