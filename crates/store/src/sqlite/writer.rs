//! What the writing thread is asked to do: a step with its input, its work and the caller who waits. `session` is the
//! thread itself.

use doorbell_core::StoreTag;
use doorbell_core::ports::{Notice, StoreError};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::book::Book;
use super::dedup::Prints;
use super::errors::Fail;
use super::lane::Lanes;
use super::{Shared, accept, dedup};

/// Steps that may wait for the writer before callers wait to hand theirs over.
pub(super) const WAITING_MAX: usize = 2048;

/// What a step works with.
pub(super) struct Tx<'t, 'c> {
    pub(super) conn: &'c Connection,
    pub(super) hot: &'t mut Hot<'c>,
    pub(super) prints: &'t mut Prints,
    pub(super) book: &'t mut Book,
    pub(super) effects: &'t mut Effects,
    pub(super) shared: &'t Shared,
    /// Disk space is short: what may wait is refused.
    pub(super) short: bool,
    /// Rows are owed that find no room: nothing may be given a number, which would come after theirs.
    pub(super) stuck: bool,
}

impl Tx<'_, '_> {
    /// The store's tag.
    pub(super) fn tag(&self) -> StoreTag {
        self.shared.identity.tag
    }

    /// Refuses what would be given a number while rows with lower ones are owed.
    pub(super) fn refuse_stuck(&self) -> Result<(), StoreError> {
        match self.stuck {
            true => Err(StoreError::Unavailable("the disk is full; make room, then try again".into())),
            false => Ok(()),
        }
    }
}

/// What the thread that writes rows keeps by it: statements of the accepting path, prepared once, and who is in which lane.
pub(super) struct Hot<'c> {
    pub(super) accept: accept::Statements<'c>,
    pub(super) prints: dedup::Writes<'c>,
    pub(super) lanes: Lanes,
}

/// What is told to the world once the transaction is on disk.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) notices: Vec<Notice>,
    /// Something became claimable.
    pub(super) ready: bool,
}

impl Effects {
    /// Adds what a later transaction told.
    pub(super) fn append(&mut self, later: Self) {
        self.notices.extend(later.notices);
        self.ready |= later.ready;
    }
}

/// One caller's wish.
pub(super) trait Step: Send {
    /// Carries it out inside the transaction. May be called again after a rollback.
    fn run(&mut self, tx: &mut Tx<'_, '_>) -> rusqlite::Result<()>;
    /// It could not be carried out.
    fn fail(&mut self, error: StoreError);
    /// Tells the caller, after the commit.
    fn answer(self: Box<Self>);
    /// Whether the writer stops after this.
    fn closes(&self) -> bool {
        false
    }
    /// Whether it only wants what is owed, or was noted, to be written: it waits for no disk.
    fn only_settles(&self) -> bool {
        false
    }
}

/// What carries a step out.
pub(super) type Work<I, O> = fn(&mut Tx<'_, '_>, &I) -> Result<O, Fail>;

/// A step with its input, its work and the caller who waits.
pub(super) struct Job<I, O> {
    input: I,
    work: Work<I, O>,
    result: Option<Result<O, StoreError>>,
    reply: Reply<I, O>,
}

/// Where a caller waits for the answer.
pub(super) type Reply<I, O> = oneshot::Sender<Answer<I, O>>;

/// What became of a job, and its input back: its memory came from the caller's thread, and is cheapest to free there.
pub(super) struct Answer<I, O> {
    pub(super) result: Result<O, StoreError>,
    pub(super) _input: I,
}

impl<I, O> Job<I, O> {
    /// A job and where its answer arrives.
    pub(super) fn new(input: I, work: Work<I, O>) -> (Box<Self>, oneshot::Receiver<Answer<I, O>>) {
        let (reply, answer) = oneshot::channel();
        (Box::new(Self::with(input, work, reply)), answer)
    }

    /// A job of a caller who waits already.
    pub(super) fn with(input: I, work: Work<I, O>, reply: Reply<I, O>) -> Self {
        Self { input, work, result: None, reply }
    }
}

impl<I: Send + 'static, O: Send + 'static> Step for Job<I, O> {
    fn run(&mut self, tx: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
        match (self.work)(tx, &self.input) {
            Ok(value) => self.result = Some(Ok(value)),
            Err(Fail::Refused(error)) => self.result = Some(Err(error)),
            Err(Fail::Sql(error)) => return Err(error),
        }
        Ok(())
    }

    fn fail(&mut self, error: StoreError) {
        self.result = Some(Err(error));
    }

    fn answer(self: Box<Self>) {
        // A caller that went away has nothing to learn.
        let result = self.result.unwrap_or(Err(StoreError::Closed));
        let _ = self.reply.send(Answer { result, _input: self.input });
    }
}

/// Makes the writer write its notes and the rows that are owed, and tells whoever waits for that.
pub(super) struct Settle(pub(super) Option<oneshot::Sender<()>>);

impl Step for Settle {
    fn run(&mut self, _: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
        Ok(())
    }
    fn fail(&mut self, _: StoreError) {}
    fn answer(self: Box<Self>) {
        if let Some(waiting) = self.0 {
            let _ = waiting.send(());
        }
    }
    fn only_settles(&self) -> bool {
        true
    }
}

/// Makes the writer stop after what is already waiting.
pub(super) struct Close;

impl Step for Close {
    fn run(&mut self, _: &mut Tx<'_, '_>) -> rusqlite::Result<()> {
        Ok(())
    }
    fn fail(&mut self, _: StoreError) {}
    fn answer(self: Box<Self>) {}
    fn closes(&self) -> bool {
        true
    }
}
