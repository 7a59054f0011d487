//! `runner = "process"`: an agent that is a program. Made by the configuration through [`KIND`], called by the worker.
//!
//! The program gets the envelope on stdin, says its result on stdout and its log on stderr, and its exit code or a verdict
//! tells how it went (`docs/interface.md`, section 4). Nothing of the payload reaches its arguments or its environment. An
//! attempt ends only when its whole process tree has: see `tree` for what belongs to it.
//!
//! The order of an attempt: start (`spawn`), note the child, write stdin while both outputs are read (`output`), and
//! whichever comes first of its exit, the time limit and a stop; then end what is left, give the pipes a last call, judge.

mod ending;
mod input;
mod output;
mod settings;
mod spawn;
mod tree;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use doorbell_core::RunId;
use doorbell_core::attempt::{Attempt, Failure, Outcome, Stop, StopReason};
use doorbell_core::excerpt;
use doorbell_core::ports::{Child, Runner, Stream, Verdict};
use futures::FutureExt;
use futures::future::{Fuse, FusedFuture};
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio_util::sync::CancellationToken;

use crate::Kind;
use output::{Keep, Kept, Reading};
use spawn::{Leader, Pipes};
use tree::Tree;

pub use input::Stdin;
pub use settings::Settings;

/// The entry in [`KINDS`](crate::KINDS).
pub const KIND: Kind = Kind {
    name: "process",
    about: "an agent that is a program: one process a run",
    settings: settings::SETTINGS,
    build: |given, context| Ok(Arc::new(Process { settings: Settings::read(given, context)? })),
};

/// How long pipes may stay open behind a program that exited: for a `tee` at its end, not for a daemon.
const DRAIN: Duration = Duration::from_millis(500);
/// An agent that is a program.
pub struct Process {
    settings: Settings,
}

/// What came first.
enum Ended {
    Exited(std::io::Result<ExitStatus>),
    Stopped(StopReason),
    TimeUp,
}

#[async_trait]
impl Runner for Process {
    async fn run(&self, attempt: Attempt) -> Verdict {
        if let Some(reason) = attempt.stop.reason() {
            return Stop::outcome(reason).into();
        }
        let input = match self.settings.stdin.of(&attempt.envelope) {
            Ok(input) => input,
            Err(error) => return Outcome::Failed(Failure { error, ..Failure::default() }).into(),
        };
        match spawn::start(&self.settings, &attempt) {
            Ok(leader) => self.attend(&attempt, leader, input).await.into(),
            Err(outcome) => outcome.into(),
        }
    }

    async fn reap(&self, run: RunId, children: &[Child]) {
        for child in children {
            Tree::left_behind(Some(*child), run).end(self.settings.kill_grace).await;
        }
        // A child that was started but not yet noted has got no input; it still carries the run's id.
        Tree::left_behind(None, run).end(self.settings.kill_grace).await;
    }
}

impl Process {
    async fn attend(&self, attempt: &Attempt, mut leader: Leader, input: Vec<u8>) -> Outcome {
        let limit = tokio::time::sleep(attempt.time_limit);
        tokio::pin!(limit);
        let talk = Talk { out: Mutex::default(), log: Mutex::default(), last_call: CancellationToken::new() };
        let pipes = leader.pipes();
        let talking = talk.hold(self, attempt, leader.noted, pipes, input).fuse();
        tokio::pin!(talking);

        let first = async {
            tokio::select! {
                biased;
                status = leader.wait() => Ended::Exited(status),
                reason = attempt.stop.asked() => Ended::Stopped(reason),
                () = &mut limit => Ended::TimeUp,
            }
        };
        let ended = alongside(first, talking.as_mut()).await;
        let grace = match ended {
            // Another worker may begin the same run at any moment.
            Ended::Stopped(StopReason::LeaseLost) => Duration::ZERO,
            _ => self.settings.kill_grace,
        };
        if matches!(ended, Ended::Exited(_)) && !talking.is_terminated() {
            let _ = tokio::time::timeout(DRAIN, talking.as_mut()).await;
        }
        alongside(leader.tree.end(grace), talking.as_mut()).await;
        talk.last_call.cancel();
        if !talking.is_terminated() {
            // Nobody writes any more. What is in the pipes may still wait for a slow sink, within the time limit.
            let bound = async {
                tokio::select! { () = &mut limit => {}, _ = attempt.stop.asked() => {} }
                tokio::time::sleep(2 * DRAIN).await;
            };
            tokio::select! { () = talking.as_mut() => {}, () = bound => {} }
        }
        // After a kill: off the process table. It is dead, so this is at once.
        let _ = tokio::time::timeout(DRAIN, leader.wait()).await;
        leader.release();
        match ended {
            Ended::Exited(Ok(status)) => ending::judge(status, talk.out.take(), talk.log.take()),
            Ended::Exited(Err(e)) => failed(format!("the end of the agent's process cannot be learned: {e}")),
            Ended::Stopped(reason) => Stop::outcome(reason),
            Ended::TimeUp => Outcome::TimedOut { after: attempt.time_limit },
        }
    }
}

/// Awaits `work` while the exchange over the pipes goes on.
async fn alongside<T>(work: impl Future<Output = T>, talking: Pin<&mut Fuse<impl Future<Output = ()>>>) -> T {
    let never = async {
        talking.await;
        std::future::pending::<T>().await
    };
    tokio::select! {
        biased;
        done = work => done,
        done = never => done,
    }
}

/// The exchange over the pipes, and what is kept of it: outside the future, so that it survives when that is given up.
struct Talk {
    out: Mutex<Kept>,
    log: Mutex<Kept>,
    last_call: CancellationToken,
}

impl Talk {
    async fn hold(&self, process: &Process, attempt: &Attempt, child: Child, pipes: Pipes, input: Vec<u8>) {
        let sink = &*attempt.sink;
        let out = Reading {
            stream: Stream::Output,
            cap: process.settings.max_output,
            keep: Keep::Beginning,
            sink,
            last_call: &self.last_call,
            kept: &self.out,
        };
        let log = Reading {
            stream: Stream::Log,
            cap: process.settings.max_log,
            keep: Keep::End(4 * excerpt::EXCERPT),
            kept: &self.log,
            ..out
        };
        sink.child(child).await;
        tokio::join!(self.feed(pipes.stdin, &input), out.read(pipes.stdout, DRAIN), log.read(pipes.stderr, DRAIN));
    }

    /// Writes all and closes. An agent that does not want its input closes early or never reads: neither is a failure.
    async fn feed(&self, stdin: Option<ChildStdin>, input: &[u8]) {
        let Some(mut stdin) = stdin else { return };
        tokio::select! {
            _ = stdin.write_all(input) => {}
            () = self.last_call.cancelled() => {}
        }
    }
}

trait Take {
    fn take(&self) -> Kept;
}

impl Take for Mutex<Kept> {
    fn take(&self) -> Kept {
        std::mem::take(&mut *self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn failed(error: String) -> Outcome {
    Outcome::Failed(Failure { error, retry: true, ..Failure::default() })
}
