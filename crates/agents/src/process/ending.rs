//! What the end of a process means: exit code, signal, and the verdict that it printed. Called by `process` when the tree
//! has ended.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use doorbell_core::attempt::{Failure, Outcome, Success};
use doorbell_core::excerpt;

use super::output::Kept;
use doorbell_core::verdict::{self, Said};

/// EX_TEMPFAIL and EX_CONFIG of sysexits.h.
const EXIT_RETRY: i32 = 75;
const EXIT_FOR_GOOD: i32 = 78;

/// What the end of the process means. A verdict counts only with exit code 0, but for what it says was used.
pub(super) fn judge(status: ExitStatus, out: Kept, log: Kept) -> Outcome {
    if status.success() {
        return match verdict::read(&out.bytes, out.cut) {
            Said::Verdict(outcome) => outcome,
            Said::Plain => Outcome::Succeeded(Success { output: out.bytes.into(), ..Success::default() }),
        };
    }
    let (how, retry) = match (status.code(), status.signal()) {
        (Some(EXIT_RETRY), _) => ("asked to be tried again (exit code 75)".to_owned(), true),
        (Some(EXIT_FOR_GOOD), _) => ("failed for good (exit code 78)".to_owned(), false),
        (Some(code), _) => (format!("exited with code {code}"), true),
        (None, signal) => (format!("was ended by {}", signal_name(signal.unwrap_or(0))), true),
    };
    let error = match excerpt::tail(&log.bytes) {
        words if words.is_empty() => format!("the agent {how} and logged nothing"),
        words => format!("the agent {how}; its log ends: {words}"),
    };
    let usage = verdict::usage(&out.bytes);
    let output = (!out.bytes.is_empty()).then(|| out.bytes.into());
    Outcome::Failed(Failure { error, retry, retry_after: None, output, usage })
}

/// Names as in signal(7), for the ones that end a process; the numbers are those of most Linux machines.
fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL (often: out of memory)",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}
