//! Where an attempt's output goes while it comes: gathered here, put into the store in batches, so that a chatty agent
//! costs few commits and a reader of the log still sees it within a moment.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::ports::{Child, OutputSink, Piece, Store, Stream};
use crate::run::Lease;

/// Pieces waiting for the store; an agent that is faster waits for it.
const PENDING_PIECES: usize = 64;
/// One commit takes at most this many bytes of log.
const BATCH_BYTES: usize = 256 * 1024;
/// How long a piece waits for company.
const GATHER: Duration = Duration::from_millis(100);

/// The sink given to a runner. The writing task starts with the first piece: most short attempts print nothing.
pub(super) struct StoreSink {
    store: Arc<dyn Store>,
    lease: Lease,
    clock: Clock,
    writer: tokio::sync::Mutex<Option<Writer>>,
}

struct Writer {
    pieces: mpsc::Sender<Message>,
    task: JoinHandle<()>,
}

enum Message {
    Piece(Piece),
    Flush(oneshot::Sender<()>),
}

impl StoreSink {
    pub(super) fn new(store: Arc<dyn Store>, lease: Lease, clock: Clock) -> Arc<Self> {
        Arc::new(Self { store, lease, clock, writer: tokio::sync::Mutex::new(None) })
    }

    /// Puts everything that was written into the store; called before the attempt is finished, so that a finished run's
    /// log is whole.
    pub(super) async fn flush(&self) {
        let mut guard = self.writer.lock().await;
        let Some(writer) = guard.take() else { return };
        let (done, wait) = oneshot::channel();
        if writer.pieces.send(Message::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
        drop(writer.pieces);
        let _ = writer.task.await;
    }
}

#[async_trait]
impl OutputSink for StoreSink {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        let piece = Piece { at: self.clock.now(), stream, bytes };
        let pieces = {
            let mut guard = self.writer.lock().await;
            let writer = guard.get_or_insert_with(|| {
                let (pieces, incoming) = mpsc::channel(PENDING_PIECES);
                let task = tokio::spawn(write_out(Arc::clone(&self.store), self.lease, incoming));
                Writer { pieces, task }
            });
            writer.pieces.clone()
        };
        let _ = pieces.send(Message::Piece(piece)).await;
    }

    async fn child(&self, child: Child) {
        if let Err(error) = self.store.note_child(self.lease, child).await {
            tracing::warn!(run.id = %self.lease.run, %error, "could not note a child process; after a crash it is found by its environment only");
        }
    }
}

async fn write_out(store: Arc<dyn Store>, lease: Lease, mut incoming: mpsc::Receiver<Message>) {
    let mut batch = Vec::new();
    let mut waiting = Vec::new();
    while let Some(first) = incoming.recv().await {
        let mut bytes = take(first, &mut batch, &mut waiting);
        let gather = tokio::time::sleep(GATHER);
        tokio::pin!(gather);
        while waiting.is_empty() && bytes < BATCH_BYTES {
            tokio::select! {
                () = &mut gather => break,
                next = incoming.recv() => match next {
                    Some(message) => bytes += take(message, &mut batch, &mut waiting),
                    None => break,
                },
            }
        }
        let pieces = std::mem::take(&mut batch);
        if !pieces.is_empty()
            && let Err(error) = store.append_log(lease, pieces).await
        {
            tracing::warn!(run.id = %lease.run, %error, "part of a run's log could not be stored");
        }
        for done in waiting.drain(..) {
            let _ = done.send(());
        }
    }
}

fn take(message: Message, batch: &mut Vec<Piece>, waiting: &mut Vec<oneshot::Sender<()>>) -> usize {
    match message {
        Message::Piece(piece) => {
            let len = piece.bytes.len();
            batch.push(piece);
            len
        }
        Message::Flush(done) => {
            waiting.push(done);
            0
        }
    }
}
