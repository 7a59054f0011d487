//! A Rust function as an agent, for programs that embed Doorbell:
//!
//! ```
//! use doorbell_agents::native::{Call, Error, native};
//!
//! let greeter = native(|call: Call| async move {
//!     if call.envelope.prompt.is_empty() {
//!         return Err(Error::permanent("nothing to say"));
//!     }
//!     Ok(format!("hello, {}", call.envelope.prompt))
//! });
//! # let _: std::sync::Arc<dyn doorbell_core::ports::Runner> = greeter;
//! ```
//!
//! The function's future is dropped at the time limit and when the attempt is to stop, so it must hold nothing that a drop
//! at an `.await` would break; and it must not block the thread, or neither can take hold of it.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use doorbell_core::attempt::{Approval, Attempt, Envelope, Failure, Outcome, Stop, Success, Usage};
use doorbell_core::ports::{OutputSink, Runner, Stream, Verdict};
use futures::FutureExt;
use serde::Serialize;

use doorbell_core::excerpt;
use doorbell_core::verdict::RETRY_AFTER_MAX;

/// What the function is called with.
#[derive(Clone)]
pub struct Call {
    /// The run, its event and the prompt.
    pub envelope: Arc<Envelope>,
    sink: Arc<dyn OutputSink>,
    spent: Arc<Mutex<(Usage, Option<u64>)>>,
}

impl Call {
    /// Adds to the run's log; waits if the store is slower.
    pub async fn log(&self, line: impl Into<String>) {
        self.sink.write(Stream::Log, Bytes::from(line.into())).await;
    }

    /// Adds to what the attempt used. Counts also if the function fails.
    pub fn spent(&self, usage: Usage) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.0 = spent.0.plus(usage);
    }

    /// Counts a step.
    pub fn step(&self) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.1 = Some(spent.1.unwrap_or(0).saturating_add(1));
    }
}

/// Why the function did not succeed. Made by `?` from any error (then the run is tried again by its agent's policy), or by
/// one of the constructors that say otherwise.
#[derive(Debug)]
pub struct Error(Cause);

#[derive(Debug)]
enum Cause {
    Failed { why: String, retry: bool, after: Option<Duration> },
    Waiting(Approval),
}

impl Error {
    /// Failed; trying again does not help.
    pub fn permanent(why: impl Into<String>) -> Self {
        Self(Cause::Failed { why: why.into(), retry: false, after: None })
    }

    /// Failed; try again by policy.
    pub fn again(why: impl Into<String>) -> Self {
        Self(Cause::Failed { why: why.into(), retry: true, after: None })
    }

    /// Failed; try again after this time (at most [`RETRY_AFTER_MAX`]).
    pub fn retry_after(why: impl Into<String>, after: Duration) -> Self {
        Self(Cause::Failed { why: why.into(), retry: true, after: Some(after.min(RETRY_AFTER_MAX)) })
    }

    /// No failure: it needs a person's yes before it goes on. The function is called again after that.
    pub fn needs_approval(approval: Approval) -> Self {
        Self(Cause::Waiting(approval))
    }
}

// `Error` itself is no `std::error::Error`, so this covers everything that is, and `anyhow::Error` and texts as well.
impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Error {
    fn from(error: E) -> Self {
        let error = error.into();
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(e) = cause {
            why = format!("{why}: {e}");
            cause = e.source();
        }
        Self::again(why)
    }
}

/// Makes a runner of an async function. What it returns becomes the run's output as JSON. A panic in it is a failure
/// that is tried again.
pub fn native<F, Fut, T, E>(function: F) -> Arc<dyn Runner>
where
    F: Fn(Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Serialize + Send + 'static,
    E: Into<Error> + Send + 'static,
{
    Arc::new(Native { function })
}

struct Native<F> {
    function: F,
}

#[async_trait]
impl<F, Fut, T, E> Runner for Native<F>
where
    F: Fn(Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Serialize + Send + 'static,
    E: Into<Error> + Send + 'static,
{
    async fn run(&self, attempt: Attempt) -> Verdict {
        let call = Call { envelope: attempt.envelope.clone(), sink: attempt.sink.clone(), spent: Arc::default() };
        let spent = call.spent.clone();
        let work = AssertUnwindSafe(async {
            let result = (self.function)(call).await.map_err(Into::into)?;
            serde_json::to_vec(&result).map_err(|e| Error::permanent(format!("its result is not JSON: {e}")))
        });
        let ended = tokio::select! {
            ended = work.catch_unwind() => ended,
            () = tokio::time::sleep(attempt.time_limit) => return Outcome::TimedOut { after: attempt.time_limit }.into(),
            reason = attempt.stop.asked() => return Stop::outcome(reason).into(),
        };
        let (usage, steps) = *spent.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: &str, retry, retry_after| {
            Outcome::Failed(Failure { error: excerpt::head(error), retry, retry_after, output: None, usage })
        };
        match ended {
            Ok(Ok(output)) => Outcome::Succeeded(Success { output: output.into(), steps, usage }),
            Ok(Err(Error(Cause::Waiting(approval)))) => Outcome::Waiting(approval, usage),
            Ok(Err(Error(Cause::Failed { why, retry, after }))) => failed(&why, retry, after),
            Err(panic) => failed(&format!("the agent panicked: {}", message(panic.as_ref())), true, None),
        }
        .into()
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "no message",
    }
}
