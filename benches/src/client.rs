//! The load: keep-alive connections that each send a signed GitHub delivery, wait for the answer, and send the next.
//! The same client drives the bare handler and Doorbell, so that its own cost is in both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use aws_lc_rs::hmac;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The secret that the measured source is set up with.
pub(crate) const SECRET: &str = "a bench secret of some length";

/// What one round gave.
#[derive(Debug)]
pub(crate) struct Load {
    /// Answers in a second.
    pub rate: f64,
    /// Answer times, sorted.
    pub latencies: Vec<Duration>,
}

impl Load {
    /// The answer time below which `share` of the answers lie.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (last as f64 * share) as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

/// What to send, and where.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub addr: SocketAddr,
    pub path: String,
    pub status: u16,
}

/// How much to send: whichever comes first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub connections: usize,
    pub time: Duration,
    pub requests: u64,
    /// When to send: without, each connection sends as soon as it has its answer.
    pub pace: Option<Pace>,
}

/// An open loop: requests are due at a fixed rate, evenly over the connections, whether or not the server keeps up. One that
/// is due while its connection still waits counts from when it was due, so that a stall is not hidden by sending less.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Requests a second, over all connections.
    pub rate: f64,
}

impl Pace {
    /// When the `n`th request of connection `at` of `connections` is due, after the beginning.
    fn due(self, at: usize, connections: usize, n: u64) -> Duration {
        #[allow(clippy::cast_precision_loss)]
        Duration::from_secs_f64((n as f64 * connections as f64 + at as f64) / self.rate)
    }
}

/// Makes distinct deliveries: body, id and signature differ in each.
pub(crate) struct Deliveries {
    key: hmac::Key,
    before: String,
    after: String,
    next: AtomicU64,
    salt: u64,
}

impl Deliveries {
    /// `salt` keeps the deliveries of two rounds apart.
    pub(crate) fn new(salt: u64) -> Self {
        let text = include_str!("../data/pull_request.json");
        let (before, after) = text.split_once("@@NUMBER@@").unwrap_or((text, ""));
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        Self { key, before: before.into(), after: after.into(), next: AtomicU64::new(1), salt }
    }

    /// The next delivery, as bytes of an HTTP/1.1 request.
    fn request(&self, target: &Target, out: &mut Vec<u8>) {
        use std::io::Write as _;
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        // Body and id differ also between the rounds: the same body under a fresh id would be a replay.
        let number = format!("{:013}", (self.salt % 9_000) * 1_000_000_000 + n);
        let mut context = hmac::Context::with_key(&self.key);
        for part in [self.before.as_bytes(), number.as_bytes(), self.after.as_bytes()] {
            context.update(part);
        }
        let mut hex_tag = [0u8; 64];
        let _ = hex::encode_to_slice(context.sign().as_ref(), &mut hex_tag);
        let tag = std::str::from_utf8(&hex_tag).unwrap_or_default();
        let length = self.before.len() + number.len() + self.after.len();
        out.clear();
        let _ = write!(
            out,
            "POST {} HTTP/1.1\r\nhost: door.example.com\r\nuser-agent: GitHub-Hookshot/044aadd\r\naccept: */*\r\n\
             content-type: application/json\r\nx-github-event: pull_request\r\nx-github-hook-id: 1\r\n\
             x-github-delivery: {:016x}-{n:016x}\r\nx-hub-signature-256: sha256={tag}\r\ncontent-length: {length}\r\n\r\n\
             {}{number}{}",
            target.path, self.salt, self.before, self.after
        );
    }
}

/// Sends until the amount is reached.
pub(crate) async fn drive(target: &Target, amount: Amount, salt: u64) -> anyhow::Result<Load> {
    let deliveries = Arc::new(Deliveries::new(salt));
    let began = Instant::now();
    let mut tasks = Vec::new();
    let sent = Arc::new(AtomicU64::new(0));
    for at in 0..amount.connections {
        let (target, deliveries, sent) = (target.clone(), Arc::clone(&deliveries), Arc::clone(&sent));
        tasks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(target.addr).await.context("connecting")?;
            stream.set_nodelay(true)?;
            let (mut request, mut answer) = (Vec::with_capacity(4096), vec![0u8; 8192]);
            let mut latencies = Vec::with_capacity(1 << 14);
            while began.elapsed() < amount.time && sent.fetch_add(1, Ordering::Relaxed) < amount.requests {
                deliveries.request(&target, &mut request);
                let start = match amount.pace {
                    Some(pace) => wait(began + pace.due(at, amount.connections, latencies.len() as u64)).await,
                    None => Instant::now(),
                };
                stream.write_all(&request).await?;
                let status = read_answer(&mut stream, &mut answer).await?;
                latencies.push(start.elapsed());
                if status != target.status {
                    bail!(
                        "answered {status} instead of {}: {}",
                        target.status,
                        String::from_utf8_lossy(&answer[..200])
                    );
                }
            }
            anyhow::Ok(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let took = began.elapsed();
    latencies.sort_unstable();
    #[allow(clippy::cast_precision_loss)]
    let rate = latencies.len() as f64 / took.as_secs_f64();
    Ok(Load { rate, latencies })
}

/// Waits until `due`; gives the moment from which the answer's time counts. The timer wakes up to a millisecond late, which is
/// the client's fault and not the server's.
async fn wait(due: Instant) -> Instant {
    if Instant::now() >= due {
        return due;
    }
    tokio::time::sleep_until(due.into()).await;
    Instant::now()
}

/// Reads one answer with a content length; gives its status.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<u16> {
    let mut filled = 0;
    loop {
        let n = stream.read(&mut buffer[filled..]).await?;
        if n == 0 {
            bail!("the server closed the connection");
        }
        filled += n;
        let Some(head) = find(&buffer[..filled], b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head])?;
        let length: usize = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .and_then(|(_, value)| value.trim().parse().ok())
            .unwrap_or(0);
        if filled >= head + 4 + length {
            return text.get(9..12).and_then(|s| s.parse().ok()).context("no status line");
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
