//! Reads a request's body whole, within its cap and its time, before anything looks into it; and the one body type of
//! our answers.
//!
//! The common body is small and comes with its head in one packet: then it stays the piece of memory it was read into,
//! and no timer is made.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use doorbell_core::ingest::No;
use futures::FutureExt as _;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::conn::InFlight;
use crate::options::Timeouts;

/// Bodies up to this many bytes are not counted against [`Budget`]: the connection cap bounds them.
const SMALL: usize = 64 * 1024;
/// The unit of the budget.
const UNIT: usize = 1024;

/// Why a body was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the body is longer than the limit of {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body has a content encoding; only identity is taken")]
    Encoded,
    #[error("the body did not come within {limit:?}")]
    TooSlow { limit: Duration },
    #[error("the body broke off, or its framing is wrong")]
    Broken,
    #[error("too many large bodies at once")]
    Busy,
}

impl BodyError {
    /// The no that it makes.
    pub(crate) fn no(self) -> No {
        match self {
            Self::TooLarge { .. } => No::TooLarge,
            Self::Encoded => No::MediaType,
            Self::TooSlow { .. } | Self::Broken => No::Unreadable,
            Self::Busy => No::Unavailable(Duration::from_secs(2)),
        }
    }
}

/// Bytes of large bodies that may be held at once, over all connections.
#[derive(Debug)]
pub(crate) struct Budget(std::sync::Arc<Semaphore>);

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(std::sync::Arc::new(Semaphore::new((bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// A place for `bytes` more, added to what is held already.
    fn grow(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), BodyError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(|_| BodyError::Busy)?;
        let more = std::sync::Arc::clone(&self.0).try_acquire_many_owned(units).map_err(|_| BodyError::Busy)?;
        match held {
            Some(permit) => permit.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }
}

/// A body read whole; gives its share of the budget back when dropped.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    _held: Option<OwnedSemaphorePermit>,
}

/// How a body is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule<'a> {
    /// The longest, in bytes.
    pub limit: usize,
    pub timeouts: &'a Timeouts,
    pub budget: &'a Budget,
}

/// Whether a body may be so long that it counts against the budget.
pub(crate) fn may_be_large<B: http_body::Body>(body: &B) -> bool {
    body.size_hint().upper().is_none_or(|most| most > SMALL as u64)
}

/// Reads a whole body. A length that the head promises beyond the limit, or a content encoding, is refused unread.
pub(crate) async fn read<B>(headers: &HeaderMap, mut body: B, rule: Rule<'_>) -> Result<Whole, BodyError>
where
    B: http_body::Body<Data = Bytes> + Unpin,
{
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(BodyError::Encoded);
    }
    let too_large = BodyError::TooLarge { limit: rule.limit };
    if body.size_hint().lower() > rule.limit as u64 {
        return Err(too_large);
    }
    let mut reader = Reader { deadline: None, rule };
    let first = match reader.next(&mut body).await? {
        None => return Ok(Whole { bytes: Bytes::new(), _held: None }),
        Some(piece) if piece.len() > rule.limit => return Err(too_large),
        Some(piece) if body.is_end_stream() => return Ok(Whole { bytes: piece, _held: None }),
        Some(piece) => piece,
    };
    // What the head promises is memory that the peer has not paid for yet: it only says where to stop growing.
    let rest = body.size_hint().exact().and_then(|rest| usize::try_from(rest).ok());
    let most = rest.map_or(rule.limit, |rest| rule.limit.min(first.len() + rest));
    let mut whole = Vec::with_capacity(most.min(SMALL).max(first.len()));
    whole.extend_from_slice(&first);
    drop(first);
    let (mut held, mut counted) = (None, SMALL);
    while let Some(piece) = reader.next(&mut body).await? {
        let length = whole.len() + piece.len();
        if length > rule.limit {
            return Err(too_large);
        }
        if length > counted {
            // What is counted is what is taken. With a promise the peer has paid for an eighth of it: each buffer that was
            // outgrown lies about for a while, so there are few. Without one the buffer doubles.
            let step = if rest.is_some() { counted.saturating_mul(7) } else { counted };
            let more = (length - counted).max(step.min(most.saturating_sub(counted)));
            rule.budget.grow(&mut held, more)?;
            counted += more;
        }
        if length > whole.capacity() {
            whole.reserve_exact(counted.min(most.max(length)) - whole.len());
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Whole { bytes: whole.into(), _held: held })
}

struct Reader<'a> {
    /// Set by the first wait.
    deadline: Option<Instant>,
    rule: Rule<'a>,
}

impl Reader<'_> {
    /// The next piece of data; none at the end. Trailers are skipped.
    async fn next<B>(&mut self, body: &mut B) -> Result<Option<Bytes>, BodyError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        loop {
            let frame = match body.frame().now_or_never() {
                Some(frame) => frame,
                None => self.wait(body).await?,
            };
            match frame {
                None => return Ok(None),
                Some(Err(_)) => return Err(BodyError::Broken),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => return Ok(Some(data)),
                    Err(_) => {}
                },
            }
        }
    }

    async fn wait<B>(&mut self, body: &mut B) -> Result<Option<Result<Frame<Bytes>, B::Error>>, BodyError>
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let now = Instant::now();
        let times = self.rule.timeouts;
        let deadline = *self.deadline.get_or_insert(now + times.body_total);
        let (until, limit) = match now + times.body_idle {
            idle if idle < deadline => (idle, times.body_idle),
            _ => (deadline, times.body_total),
        };
        tokio::time::timeout_at(until, body.frame()).await.map_err(|_| BodyError::TooSlow { limit })
    }
}

/// The body of an answer: a piece of memory, or what the router made. Holds its request's place in the connection's
/// count until it is sent.
pub(crate) struct Body {
    inner: Inner,
    _in_flight: Option<InFlight>,
}

enum Inner {
    Full(Bytes),
    Axum(axum::body::Body),
}

impl Body {
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        Self { inner: Inner::Full(bytes.into()), _in_flight: None }
    }

    pub(crate) fn axum(body: axum::body::Body) -> Self {
        Self { inner: Inner::Axum(body), _in_flight: None }
    }

    pub(crate) fn hold(&mut self, in_flight: InFlight) {
        self._in_flight = Some(in_flight);
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match &mut self.get_mut().inner {
            Inner::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Axum(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Full(bytes) => bytes.is_empty(),
            Inner::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Axum(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::{Full, StreamBody};

    fn rule<'a>(limit: usize, timeouts: &'a Timeouts, budget: &'a Budget) -> Rule<'a> {
        Rule { limit, timeouts, budget }
    }

    fn pieces(n: usize, size: usize) -> impl http_body::Body<Data = Bytes, Error = std::io::Error> + Unpin {
        let piece = Bytes::from(vec![b'x'; size]);
        StreamBody::new(stream::iter((0..n).map(move |_| Ok(Frame::data(piece.clone())))))
    }

    #[tokio::test]
    async fn a_body_of_one_piece_is_not_copied() {
        let (times, budget) = (Timeouts::default(), Budget::new(1 << 20));
        let piece = Bytes::from(vec![1; 2048]);
        let whole = read(&HeaderMap::new(), Full::new(piece.clone()), rule(4096, &times, &budget)).await.unwrap();
        assert_eq!(whole.bytes.as_ptr(), piece.as_ptr());
    }

    #[tokio::test]
    async fn the_limit_is_kept_to_the_byte() {
        let (times, budget) = (Timeouts::default(), Budget::new(1 << 20));
        let read = |n, size, limit| {
            let (times, budget) = (&times, &budget);
            async move { read(&HeaderMap::new(), pieces(n, size), rule(limit, times, budget)).await.map(|w| w.bytes.len()) }
        };
        assert_eq!(read(4, 100, 400).await, Ok(400));
        assert_eq!(read(4, 100, 399).await, Err(BodyError::TooLarge { limit: 399 }));
        assert_eq!(read(1, 100, 99).await, Err(BodyError::TooLarge { limit: 99 }));
        assert_eq!(read(0, 100, 0).await, Ok(0));
    }

    #[tokio::test]
    async fn large_bodies_share_a_budget_and_give_it_back() {
        let (times, budget) = (Timeouts::default(), Budget::new(300 * 1024));
        let one = read(&HeaderMap::new(), pieces(20, 10 * 1024), rule(1 << 20, &times, &budget)).await.unwrap();
        let two = read(&HeaderMap::new(), pieces(20, 10 * 1024), rule(1 << 20, &times, &budget)).await;
        assert_eq!(two.map(|w| w.bytes.len()).unwrap_err(), BodyError::Busy);
        drop(one);
        assert!(read(&HeaderMap::new(), pieces(20, 10 * 1024), rule(1 << 20, &times, &budget)).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_takes_no_more_memory_than_it_is_long_and_no_more_than_is_counted() {
        let times = Timeouts::default();
        let of = |n: usize, size: usize| Promised(pieces(n, size), (n * size) as u64);
        let budget = Budget::new(1 << 20);
        // A last buffer of twice the length would not fit in.
        let whole = read(&HeaderMap::new(), of(90, 10 * 1024), rule(1 << 20, &times, &budget)).await.unwrap();
        assert_eq!(whole.bytes.len(), 90 * 10 * 1024);
        let left = budget.0.available_permits() * UNIT;
        assert!(left >= (1 << 20) - whole.bytes.len(), "{left} left");
        assert!(left <= (1 << 20) - whole.bytes.len() + SMALL + UNIT, "{left} left");
    }

    /// A body that says how long it is.
    struct Promised<B>(B, u64);

    impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for Promised<B> {
        type Data = Bytes;
        type Error = B::Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
            let frame = Pin::new(&mut self.0).poll_frame(cx);
            if let Poll::Ready(Some(Ok(frame))) = &frame {
                self.1 -= frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            frame
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.1)
        }
    }

    #[tokio::test]
    async fn a_content_encoding_is_refused_unread() {
        let (times, budget) = (Timeouts::default(), Budget::new(1 << 20));
        for (value, refused) in [("gzip", true), ("identity", false), ("Identity", false), ("identity, gzip", true)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, value.parse().unwrap());
            let outcome = read(&headers, Full::new(Bytes::from_static(b"{}")), rule(99, &times, &budget)).await;
            assert_eq!(outcome.is_err_and(|e| e == BodyError::Encoded), refused, "{value}");
        }
    }
}
