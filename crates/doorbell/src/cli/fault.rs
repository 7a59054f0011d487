//! Failures of commands: what happened, what to do about it, and the exit code that scripts see. Commands return
//! `anyhow::Error`; a [`Fault`] in its chain carries the advice and the code, and [`report`] prints the whole as one block.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use owo_colors::OwoColorize as _;

use super::screen::{Closed, Screen};

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// It did not work, or the answer is no.
    Failed,
    /// It was called wrongly.
    Usage,
    /// There is no Doorbell to talk to.
    NotReachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::NotReachable => Self::from(3),
        }
    }
}

/// A failure with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Fault {
    what: String,
    advice: Option<String>,
    exit: Exit,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    /// Something did not work.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), advice: None, exit: Exit::Failed, cause: None }
    }

    /// The command was called wrongly.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what) }
    }

    /// Nobody answers.
    pub(crate) fn not_reachable(what: impl Into<String>) -> Self {
        Self { exit: Exit::NotReachable, ..Self::new(what) }
    }

    /// How a command that fails with it ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Adds what to do next.
    #[must_use]
    pub(crate) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Adds what caused it.
    #[must_use]
    pub(crate) fn cause(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }
}

/// Prints a failure on standard error and says how the process ends. A reader that went away (`| head`) is no failure.
pub(crate) fn report(error: &anyhow::Error, no_colour: bool) -> ExitCode {
    if error.chain().any(|e| e.is::<Closed>()) {
        return ExitCode::SUCCESS;
    }
    let colour = !no_colour && std::io::stderr().is_terminal();
    let (text, exit) = describe(error);
    let screen = Screen::of_errors();
    let wrap = |line| screen.wrapped(line, if line.starts_with(' ') { BECAUSE.len() } else { 0 }) + "\n";
    let mut text: String = text.lines().map(wrap).collect();
    if colour {
        // After it is wrapped: colours take no room.
        text = text.replacen(LABEL, &LABEL.red().bold().to_string(), 1);
    }
    // Nobody is left to be told if standard error is closed too.
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
    exit.into()
}

/// A failure on one line, for a list of several.
pub(crate) fn describe_short(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Before what happened.
const LABEL: &str = "error:";
/// Before a cause; what it goes on with stands below.
const BECAUSE: &str = "  because: ";

/// The whole block with its exit code.
pub(super) fn describe(error: &anyhow::Error) -> (String, Exit) {
    let mut text = format!("{LABEL} {error}\n");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Several crates repeat their cause in their own text.
        if !said.contains(&cause) {
            text.push_str(&format!("{BECAUSE}{}\n", cause.replace('\n', "\n           ")));
        }
        said.push_str(&cause);
    }
    let fault = error.chain().find_map(|e| e.downcast_ref::<Fault>());
    if let Some(advice) = fault.and_then(|f| f.advice.as_ref()) {
        text.push_str(&format!("\n{advice}\n"));
    }
    (text, fault.map_or(Exit::Failed, |f| f.exit))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_failure_is_one_block_with_its_causes_and_what_to_do() {
        let fault = Fault::not_reachable("nobody answers at http://127.0.0.1:1")
            .cause("connection refused")
            .advice("Start it.");
        let (text, exit) = describe(&anyhow::Error::from(fault));
        assert_eq!(text, "error: nobody answers at http://127.0.0.1:1\n  because: connection refused\n\nStart it.\n");
        assert_eq!(exit, Exit::NotReachable);
    }

    #[test]
    fn advice_and_exit_code_survive_added_context() {
        let error = Err::<(), _>(Fault::usage("no such thing").advice("Look.")).context("cannot go on").unwrap_err();
        let (text, exit) = describe(&error);
        assert_eq!(text, "error: cannot go on\n  because: no such thing\n\nLook.\n");
        assert_eq!(exit, Exit::Usage);
    }

    #[test]
    fn what_was_said_is_not_said_twice() {
        let error = anyhow::anyhow!("refused").context("it was refused");
        assert_eq!(describe(&error).0, "error: it was refused\n");
    }
}
