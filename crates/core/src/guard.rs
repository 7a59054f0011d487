//! Compiles an operator's expression where it can do no harm: on a thread with a stack that no parser overruns, with
//! panics caught and an end to the waiting. Filters and templates are compiled through here when the configuration is
//! resolved or the API makes a trigger, never on the way of an event.
//!
//! Why a thread: cel's ANTLR parser took 170 KiB of stack for each nested bracket in a debug build, and an overrun stack
//! aborts the process, which nothing can catch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

/// 64 MiB of address space; pages are only used when touched.
const STACK_BYTES: usize = 64 << 20;

/// A good expression compiles in milliseconds; parsers have been known to take exponential time for a bad one.
const WAIT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Guarded {
    #[error("the parser failed on it (a defect of the parser): write it in another way")]
    Panicked,
    #[error("the parser did not finish within 5 seconds: make it simpler")]
    TooSlow,
    #[error("no thread could be started to compile it: try again when the machine is less busy")]
    NoThread,
}

/// Runs `job` on a thread of its own and waits for it. A job that takes too long is left alone: it holds its thread
/// until it ends, and its answer is dropped.
pub(crate) fn on_large_stack<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, Guarded> {
    let (tell, told) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("compile".into()).stack_size(STACK_BYTES);
    thread
        .spawn(move || {
            // Nobody listens after the time is up.
            let _ = tell.send(catch_unwind(AssertUnwindSafe(job)));
        })
        .map_err(|_| Guarded::NoThread)?;
    match told.recv_timeout(WAIT) {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Guarded::Panicked),
        Err(_) => Err(Guarded::TooSlow),
    }
}

/// Runs `job`, which may borrow, on a thread with the same large stack and waits for it to end. None if no thread could
/// be started or the job panicked.
pub(crate) fn with_large_stack<T: Send>(job: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("evaluate".into()).stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, job).ok()?.join().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_a_deep_recursion_fits() {
        fn deep(n: u32) -> u32 {
            let room = std::hint::black_box([n as u8; 1024]);
            if n == 0 { u32::from(room[5]) } else { deep(n - 1) + 1 }
        }
        assert_eq!(on_large_stack(|| deep(20_000)), Ok(20_000));
        assert_eq!(
            on_large_stack(|| if true {
                panic!("test: this is meant to happen")
            }),
            Err(Guarded::Panicked)
        );
    }
}
