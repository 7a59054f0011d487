//! Starts an agent's program: finds it, gives it its environment and nothing else of ours, and makes it the leader of a
//! session of its own, so that it has no terminal to ask and its group can be signalled as one. Called by `process`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use doorbell_core::attempt::{Attempt, Failure, Outcome, Usage};
use doorbell_core::ports::Child;
use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessSession};
use rustix::io::Errno;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use super::Settings;
use super::tree::{Stat, Tree};

/// Where a program without a slash is looked for if the agent has no `PATH`: what execvp(3) does.
const DEFAULT_PATH: &str = "/usr/bin:/bin";

/// The first process of an attempt, and its tree. Dropped before [`Leader::release`], it kills the tree.
pub(super) struct Leader {
    process: Box<dyn ChildWrapper>,
    pub(super) noted: Child,
    pub(super) tree: Tree,
    held: bool,
}

/// Our ends of the agent's pipes.
pub(super) struct Pipes {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Leader {
    /// Its end. Also takes it off the process table.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    pub(super) fn pipes(&mut self) -> Pipes {
        Pipes {
            stdin: self.process.stdin().take(),
            stdout: self.process.stdout().take(),
            stderr: self.process.stderr().take(),
        }
    }

    /// The tree has ended; nothing is left to kill.
    pub(super) fn release(mut self) {
        self.held = false;
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if !self.held {
            return;
        }
        // The attempt's future was dropped (a panic, a runtime that stops). The group at once, the rest by a thread: it
        // waits, and a drop must not.
        if let Some(pid) = self.process.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let tree = self.tree.clone();
        let _ = std::thread::Builder::new().name("doorbell-kill".into()).spawn(move || tree.kill());
    }
}

/// How long a run rests when this machine is short of something.
const SHORTAGE: Duration = Duration::from_secs(2);

/// Starts the program. A failure says what to do; it is tried again, since programs come and go while they are deployed.
pub(super) fn start(settings: &Settings, attempt: &Attempt) -> Result<Leader, Outcome> {
    let failed = |error| Outcome::Failed(Failure { error, retry: true, ..Failure::default() });
    let program = settings.program().map_err(failed)?;
    if !settings.cwd.is_dir() {
        return Err(failed(format!("there is no directory {} to start the agent in: make it", settings.cwd.display())));
    }
    let mut command = Command::new(&program);
    command
        .args(&settings.command[1..])
        .current_dir(&settings.cwd)
        .env_clear()
        .envs(&settings.environment)
        .envs(settings.set_env.iter().map(|(name, value)| (name, value.expose())))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    tell_run(&mut command, attempt);
    let mut wrap = CommandWrap::from(command);
    wrap.wrap(ProcessSession);
    // Only the wrapper's start is wanted: waiting for the tree is ours, by start times instead of by group.
    let process = wrap.spawn().map_err(|e| unstartable(&program, &e))?.into_inner();
    lead(process, attempt).ok_or_else(|| failed(format!("{} ended before it could be noted", program.display())))
}

/// The facts of the run. The payload is no part of it: an environment is seen by every child and in crash reports.
fn tell_run(command: &mut Command, attempt: &Attempt) {
    let run = &attempt.envelope.run;
    command
        .env("DOORBELL_RUN_ID", run.id.to_string())
        .env("DOORBELL_EVENT_ID", attempt.envelope.event.id.to_string())
        .env("DOORBELL_ATTEMPT", run.attempt.to_string())
        .env("DOORBELL_AGENT", run.agent.as_str())
        .env("DOORBELL_HOPS", run.hops.to_string())
        .env("DOORBELL_KEY", run.key.as_deref().unwrap_or_default())
        .env("DOORBELL_RUN_TOKEN", attempt.run_token.expose());
    if let Some(api) = &attempt.api_url {
        command.env("DOORBELL_API", api);
    }
}

fn lead(mut process: Box<dyn ChildWrapper>, attempt: &Attempt) -> Option<Leader> {
    use std::os::fd::AsRawFd;
    let pid = process.id()?;
    // It was not waited for yet, so it is there, at least as a zombie.
    let started = Stat::of(pid.cast_signed())?.started;
    let noted = Child { pid, started };
    let ends = [
        process.stdin().as_ref().map(AsRawFd::as_raw_fd),
        process.stdout().as_ref().map(AsRawFd::as_raw_fd),
        process.stderr().as_ref().map(AsRawFd::as_raw_fd),
    ];
    let pipes = ends.into_iter().flatten().filter_map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok());
    let tree = Tree::of(noted, attempt.envelope.run.id, pipes.collect());
    Some(Leader { process, noted, tree, held: true })
}

/// What a shortage of ours (files, processes, memory) says is not the agent's fault: the run comes back, uncounted.
fn unstartable(program: &Path, error: &io::Error) -> Outcome {
    let program = program.display();
    let short = [Errno::MFILE, Errno::NFILE, Errno::AGAIN, Errno::NOMEM].map(|e| Some(e.raw_os_error()));
    if short.contains(&error.raw_os_error()) {
        let why = format!("{program} cannot be started for now: {error}");
        return Outcome::Snoozed { after: SHORTAGE, why, usage: Usage::default() };
    }
    let (error, retry) = match error.kind() {
        io::ErrorKind::InvalidInput => (format!("{program} cannot be started: a NUL byte in its environment"), false),
        io::ErrorKind::NotFound => {
            (format!("{program} cannot be started: the interpreter named in its first line is missing"), true)
        }
        _ => (format!("{program} cannot be started: {error}"), true),
    };
    Outcome::Failed(Failure { error, retry, ..Failure::default() })
}

/// Finds a program as execvp(3) would, but for relative entries of the path: what a directory holds must not decide what
/// is run. Says what is wrong and what to do.
pub(super) fn find(program: &Path, path: Option<&OsStr>) -> Result<PathBuf, String> {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return match (program.is_file(), executable(program)) {
            (false, _) => Err(format!(
                "the agent's program {} is not there: put it there or correct `command`",
                program.display()
            )),
            (true, false) => Err(format!("the agent's program {0} is not executable: chmod +x {0}", program.display())),
            (true, true) => Ok(program.to_owned()),
        };
    }
    let path = path.map_or_else(|| OsString::from(DEFAULT_PATH), OsStr::to_owned);
    let found = std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|p| executable(p));
    found.ok_or_else(|| {
        format!(
            "the agent's program `{}` is not in the path {}: install it, or give its whole path in `command`",
            program.display(),
            path.display()
        )
    })
}

fn executable(program: &Path) -> bool {
    program.is_file() && rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_ok()
}
