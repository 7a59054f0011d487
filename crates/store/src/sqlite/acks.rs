//! The way of an admission: straight to the desk if nobody is there, so that a single sender waits for the disk and for
//! no other thread; otherwise through a thread that brings all who wait there together, so that one fsync does for many.
//! What the ack log cannot take goes on to the writer of the tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use doorbell_core::event::Receipt;
use doorbell_core::ports::StoreError;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot};

use super::accept::{self, Prepared};
use super::desk::{Desk, SharedDesk, Wish};
use super::thread::Watch;
use super::writer::{Answer, Effects, Job, Reply, Settle, Step, WAITING_MAX};
use super::{Shared, tell};

/// No batch holds more wishes; larger ones would make the first caller wait for the last.
const BATCH_MAX: usize = 512;
/// A batch is not held open longer for others to join.
const GATHER_MAX: Duration = Duration::from_micros(500);
/// A batch of so many shows that more come than are served one by one.
const CROWD: usize = 4;

/// Somebody who waits for an admission.
struct Asked {
    wish: Wish,
    reply: Reply<Prepared, Vec<Receipt>>,
}

impl AsMut<Wish> for Asked {
    fn as_mut(&mut self) -> &mut Wish {
        &mut self.wish
    }
}

/// Where admissions are asked for.
pub(super) struct Acks {
    shared: Arc<Shared>,
    desk: Arc<SharedDesk>,
    steps: mpsc::WeakSender<Box<dyn Step>>,
    queue: mpsc::Sender<Asked>,
    line: Arc<Line>,
}

/// What callers see of the thread.
#[derive(Default)]
struct Line {
    /// Wishes it was handed and has not answered.
    waiting: AtomicUsize,
    /// Its last batch was large.
    crowded: AtomicBool,
}

impl Acks {
    /// Starts the thread; it ends once this is dropped.
    pub(super) fn start(
        shared: Arc<Shared>,
        desk: Arc<SharedDesk>,
        steps: mpsc::Sender<Box<dyn Step>>,
    ) -> Result<Self, StoreError> {
        let (queue, asked) = mpsc::channel(WAITING_MAX);
        let line = Arc::new(Line::default());
        let acks = Self { shared, desk, steps: steps.downgrade(), queue, line };
        let thread = Thread { shared: acks.shared.clone(), desk: acks.desk.clone(), steps, line: acks.line.clone() };
        std::thread::Builder::new()
            .name("doorbell-acks".into())
            .spawn(move || thread.run(asked))
            .map_err(|e| StoreError::Unavailable(format!("cannot start a thread: {e}")))?;
        Ok(acks)
    }

    /// Admits new events, and waits until they are on disk.
    pub(super) async fn admit(&self, prepared: Prepared) -> Result<Vec<Receipt>, StoreError> {
        if let Some(error) = self.shared.fatal.get() {
            return Err(error.clone());
        }
        let prepared = match self.at_once(prepared) {
            Ok(outcome) => return outcome,
            Err(prepared) => prepared,
        };
        let (reply, answer) = oneshot::channel();
        let place = self.queue.reserve().await.map_err(|_| StoreError::Closed)?;
        self.line.waiting.fetch_add(1, Ordering::Relaxed);
        place.send(Asked { wish: Wish::new(prepared), reply });
        answer.await.map_err(|_| StoreError::Closed)?.result
    }

    /// Goes to the desk on the caller's thread, if nobody else is there or on the way, and if it takes so little that
    /// this thread may wait for it. Waking two threads would take longer than the commit itself. The wish comes back if
    /// the thread or the tables must see to it.
    fn at_once(&self, prepared: Prepared) -> Result<Result<Vec<Receipt>, StoreError>, Prepared> {
        let line = &self.line;
        if line.waiting.load(Ordering::Relaxed) > 0 || line.crowded.load(Ordering::Relaxed) || !others_go_on() {
            return Err(prepared);
        }
        let Some(mut guard) = self.desk.try_lock() else { return Err(prepared) };
        let Some(desk) = guard.as_mut().filter(|desk| desk.is_quick(&prepared)) else { return Err(prepared) };
        let mut wish = [Wish::new(prepared)];
        let after = serve(desk, &mut wish, &self.shared);
        drop(guard);
        if after.wants_rows
            && let Some(steps) = self.steps.upgrade()
        {
            ask_for_rows(&steps);
        }
        tell(&self.shared, after.effects);
        let [wish] = wish;
        wish.outcome.ok_or(wish.input)
    }
}

/// Whether other tasks have another thread to go on with while this one waits for the disk.
fn others_go_on() -> bool {
    let Ok(handle) = Handle::try_current() else { return false };
    handle.runtime_flavor() == RuntimeFlavor::MultiThread && handle.metrics().num_workers() > 1
}

/// What is left to do once nobody holds the desk any more.
struct After {
    effects: Effects,
    wants_rows: bool,
}

fn serve<W: AsMut<Wish>>(desk: &mut Desk, wishes: &mut [W], shared: &Shared) -> After {
    desk.serve(wishes, shared);
    After { effects: std::mem::take(&mut desk.effects), wants_rows: desk.wants_rows() }
}

/// A full channel is no loss: whatever is next in it writes what is owed.
fn ask_for_rows(steps: &mpsc::Sender<Box<dyn Step>>) {
    drop(steps.try_send(Box::new(Settle(None))));
}

struct Thread {
    shared: Arc<Shared>,
    desk: Arc<SharedDesk>,
    steps: mpsc::Sender<Box<dyn Step>>,
    line: Arc<Line>,
}

impl Thread {
    fn run(self, mut asked: mpsc::Receiver<Asked>) {
        let _watch = Watch(&self.shared);
        let mut batch: Vec<Asked> = Vec::with_capacity(BATCH_MAX);
        while asked.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            gather(&mut asked, &mut batch);
            let after = self.serve(&mut batch);
            let count = batch.len();
            self.line.crowded.store(count >= CROWD, Ordering::Relaxed);
            self.line.waiting.fetch_sub(count, Ordering::Relaxed);
            // Senders first: each wake-up before theirs takes the processor from their answers. Workers may hear late that
            // there is work.
            for Asked { wish, reply } in batch.drain(..) {
                self.answer(wish, reply);
            }
            if let Some(After { effects, wants_rows }) = after {
                if wants_rows {
                    ask_for_rows(&self.steps);
                }
                tell(&self.shared, effects);
            }
        }
    }

    fn serve(&self, batch: &mut [Asked]) -> Option<After> {
        let said = self.desk.lock(&self.shared);
        let error = match said {
            Ok(mut desk) => match desk.as_mut() {
                Some(desk) => return Some(serve(desk, batch, &self.shared)),
                None => StoreError::Closed,
            },
            Err(error) => error,
        };
        batch.iter_mut().for_each(|asked| asked.wish.outcome = Some(Err(error.clone())));
        None
    }

    fn answer(&self, wish: Wish, reply: Reply<Prepared, Vec<Receipt>>) {
        match wish.outcome {
            // A caller that went away has nothing to learn.
            Some(result) => drop(reply.send(Answer { result, _input: wish.input })),
            // A closed channel drops the reply, which tells the caller.
            None => drop(self.steps.blocking_send(Box::new(Job::with(wish.input, accept::accept, reply)))),
        }
    }
}

/// While the processor is busy with others that are about to ask, lets them: one fsync then does for all. With nobody else
/// to run this costs nothing.
fn gather(asked: &mut mpsc::Receiver<Asked>, batch: &mut Vec<Asked>) {
    let begun = Instant::now();
    loop {
        let before = batch.len();
        std::thread::yield_now();
        while batch.len() < BATCH_MAX
            && let Ok(one) = asked.try_recv()
        {
            batch.push(one);
        }
        if batch.len() == before || batch.len() == BATCH_MAX || begun.elapsed() > GATHER_MAX {
            return;
        }
    }
}
