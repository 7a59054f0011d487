//! The least that an honest door does: it checks the signature, puts the bytes on disk, many requests in one fsync, and
//! answers. No JSON, no dedup, no rows, no runs, no console. What this cannot reach on a machine, nothing that does its
//! work can; the ratio beside it tells a limit of the machine from a cost of ours.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use aws_lc_rs::hmac;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use tokio::sync::{mpsc, oneshot};

use crate::client::SECRET;
use crate::door;

/// The file is written over from its beginning when it is full, as long as it is made at the start.
const FILE_BYTES: u64 = 4 * 1024 * 1024;
const BATCH_MAX: usize = 512;
/// A batch of so many shows that more come than are served one by one.
const CROWD: usize = 4;

/// Where bodies go.
struct Log {
    file: File,
    at: u64,
    buffer: Vec<u8>,
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).open(&path)?;
        // Nobody else needs its name, and nothing is left behind.
        std::fs::remove_file(path)?;
        file.write_all_at(&vec![0; FILE_BYTES as usize], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0, buffer: Vec::new() })
    }

    fn commit<'b>(&mut self, bodies: impl Iterator<Item = &'b Bytes>) -> io::Result<()> {
        self.buffer.clear();
        bodies.for_each(|body| self.buffer.extend_from_slice(body));
        if self.at + self.buffer.len() as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.file.sync_data()
    }
}

struct Asked {
    body: Bytes,
    done: oneshot::Sender<bool>,
}

struct Floor {
    key: hmac::Key,
    log: Mutex<Log>,
    queue: mpsc::Sender<Asked>,
    waiting: AtomicUsize,
    crowded: AtomicBool,
}

impl Floor {
    fn verify(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let tag = headers.get("x-hub-signature-256").and_then(|v| v.as_bytes().strip_prefix(b"sha256="));
        let Some(tag) = tag.and_then(|tag| hex::decode(tag).ok()) else { return false };
        hmac::verify(&self.key, body, &tag).is_ok()
    }

    /// On the caller's thread if he is alone, as the real door does, otherwise with others.
    async fn keep(&self, body: Bytes) -> bool {
        if self.waiting.load(Ordering::Relaxed) == 0
            && !self.crowded.load(Ordering::Relaxed)
            && let Ok(mut log) = self.log.try_lock()
        {
            return log.commit(std::iter::once(&body)).is_ok();
        }
        let (done, kept) = oneshot::channel();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.queue.send(Asked { body, done }).await.is_ok() && kept.await.unwrap_or(false)
    }

    /// The thread that brings many together.
    fn run(&self, mut asked: mpsc::Receiver<Asked>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while asked.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            std::thread::yield_now();
            while let Ok(one) = asked.try_recv() {
                batch.push(one);
            }
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            let is_kept = log.commit(batch.iter().map(|asked| &asked.body)).is_ok();
            drop(log);
            self.crowded.store(batch.len() >= CROWD, Ordering::Relaxed);
            self.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
            for Asked { done, .. } in batch.drain(..) {
                // Who went away has nothing to learn.
                let _ = done.send(is_kept);
            }
        }
    }
}

async fn hook(State(floor): State<Arc<Floor>>, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
    if !floor.verify(&headers, &body) {
        return (StatusCode::UNAUTHORIZED, "{\"status\":\"rejected\"}");
    }
    match floor.keep(body).await {
        true => (StatusCode::ACCEPTED, "{\"status\":\"accepted\"}"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"rejected\"}"),
    }
}

/// Serves until it is killed; prints where it listens.
#[allow(clippy::print_stdout, reason = "tells its parent where it listens")]
pub(crate) async fn serve() -> anyhow::Result<()> {
    let path = door::data_home()?.join(format!("floor-{}", std::process::id()));
    let (queue, asked) = mpsc::channel(4096);
    let floor = Arc::new(Floor {
        key: hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()),
        log: Mutex::new(Log::open(path).context("making the file that the floor writes")?),
        queue,
        waiting: AtomicUsize::new(0),
        crowded: AtomicBool::new(false),
    });
    let thread = Arc::clone(&floor);
    std::thread::Builder::new().name("floor-log".into()).spawn(move || thread.run(asked))?;
    let app = axum::Router::new().route("/hooks/bench", axum::routing::post(hook)).with_state(floor);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
