//! The whole tree of a process: everything an agent started, also what left its process group. Called by `process` when an
//! attempt ends, and at a start after a crash.
//!
//! A process belongs to the tree if it is the leader, is in the leader's group or session, carries the run's id in its
//! environment (a daemon that called `setsid` and whose parents are gone has nothing else), holds one of the attempt's
//! pipes, is a descendant of one that belongs, or did belong when last looked at. Only a daemon that cleared its
//! environment *and* closed its pipes *and* lost its parents before anybody looked escapes; that takes a cgroup or a
//! supervisor process to catch.
//!
//! Signals go through a pidfd whose start time was checked after opening, so that a number that was given to another
//! process in between is never hit. Linux only: it reads `/proc`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use doorbell_core::RunId;
use doorbell_core::ports::Child;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use tokio::time::Instant;

/// How long to wait for killed processes to be gone. Longer only if the kernel itself holds one (state D).
const KILL_WAIT: Duration = Duration::from_secs(10);
/// Between two looks: short at first, since most processes end at once.
const LOOK_FIRST: Duration = Duration::from_millis(2);
const LOOK_LAST: Duration = Duration::from_millis(50);

/// What is known of a process. From proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: i32,
    pub(super) state: u8,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// Clock ticks since boot.
    pub(super) started: u64,
}

impl Stat {
    /// Reads a line of `/proc/<pid>/stat`. The second field is the program's name in parentheses, and may itself hold
    /// spaces, parentheses and line breaks: the fields that follow begin behind the *last* parenthesis.
    fn parse(line: &[u8]) -> Option<Self> {
        let open = line.iter().position(|b| *b == b'(')?;
        let close = line.iter().rposition(|b| *b == b')')?;
        let pid = std::str::from_utf8(&line[..open]).ok()?.trim().parse().ok()?;
        let rest = std::str::from_utf8(line.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        // `started` is field 22; `session` was field 6.
        let started = fields.nth(15)?.parse().ok()?;
        Some(Self { pid, state, parent, group, session, started })
    }

    /// The process with this number now, if any.
    pub(super) fn of(pid: i32) -> Option<Self> {
        Self::parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// A zombie has ended; only its parent has not asked yet.
    fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// What identifies the processes of one attempt.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    /// The first process, which leads a group and a session. None after a crash if it is gone: its number may have been
    /// given away since.
    leader: Option<Child>,
    /// No member is older, in clock ticks since boot.
    since: u64,
    /// `DOORBELL_RUN_ID=…`, as in an environment.
    marker: Vec<u8>,
    /// The attempt's pipes, as `/proc/<pid>/fd` shows them.
    pipes: Vec<PathBuf>,
    /// Members seen so far, by number and start.
    known: HashSet<(i32, u64)>,
}

impl Tree {
    /// The tree of a process that was just started by us and not yet waited for.
    pub(super) fn of(leader: Child, run: RunId, pipes: Vec<PathBuf>) -> Self {
        Self { leader: Some(leader), since: leader.started, marker: marker(run), pipes, known: HashSet::new() }
    }

    /// The tree of a process of an earlier Doorbell. If the leader is gone, only the run's id counts.
    pub(super) fn left_behind(child: Option<Child>, run: RunId) -> Self {
        let alive = child.filter(|c| Stat::of(signed(c.pid)).is_some_and(|now| now.started == c.started));
        Self {
            leader: alive,
            since: child.map_or(0, |c| c.started),
            marker: marker(run),
            pipes: Vec::new(),
            known: HashSet::new(),
        }
    }

    /// Ends every process of the tree: SIGTERM, and SIGKILL to what is left after `grace`. Returns when none is left.
    pub(super) async fn end(&mut self, grace: Duration) {
        let asked = Instant::now();
        let mut told = HashSet::new();
        let mut pause = LOOK_FIRST;
        loop {
            let members = self.look().await;
            if members.is_empty() {
                return;
            }
            let spent = asked.elapsed();
            if spent >= grace + KILL_WAIT {
                let pids: Vec<i32> = members.iter().map(|m| m.pid).collect();
                tracing::error!(process.ids = ?pids, "Processes of an agent cannot be killed; the kernel holds them");
                return;
            }
            for member in &members {
                if spent >= grace {
                    signal(member, Signal::KILL);
                } else if told.insert((member.pid, member.started)) {
                    signal(member, Signal::TERM);
                    // A stopped process acts on SIGTERM only when it goes on.
                    signal(member, Signal::CONT);
                }
            }
            tokio::time::sleep(if spent < grace { pause.min(grace - spent) } else { pause }).await;
            pause = (pause * 2).min(LOOK_LAST);
        }
    }

    /// Kills the tree without waiting for anything but the processes; for a thread of its own.
    pub(super) fn kill(mut self) {
        let mut pause = LOOK_FIRST;
        let mut waited = Duration::ZERO;
        while waited < KILL_WAIT {
            let members = self.members();
            if members.is_empty() {
                return;
            }
            members.iter().for_each(|m| signal(m, Signal::KILL));
            std::thread::sleep(pause);
            waited += pause;
            pause = (pause * 2).min(LOOK_LAST);
        }
    }

    /// The living members. Reads `/proc`, off the async threads.
    async fn look(&mut self) -> Vec<Stat> {
        let mut tree = self.clone();
        match tokio::task::spawn_blocking(move || (tree.members(), tree.known)).await {
            Ok((members, known)) => {
                self.known = known;
                members
            }
            // The runtime is shutting down: look from here.
            Err(_) => self.members(),
        }
    }

    fn members(&mut self) -> Vec<Stat> {
        let own = signed(std::process::id());
        let own_exe = std::fs::read_link("/proc/self/exe").ok();
        let all: Vec<Stat> = processes().filter(|p| p.started >= self.since && p.pid != own && p.pid > 1).collect();
        let mut found: HashSet<i32> = HashSet::new();
        for process in &all {
            if self.known.contains(&(process.pid, process.started))
                || self.near(process)
                || carries(process.pid, &self.marker)
                || self.holds_pipe(process.pid, own_exe.as_deref())
            {
                found.insert(process.pid);
            }
        }
        loop {
            let before = found.len();
            found.extend(all.iter().filter(|p| found.contains(&p.parent)).map(|p| p.pid).collect::<Vec<_>>());
            if found.len() == before {
                break;
            }
        }
        let members: Vec<Stat> = all.into_iter().filter(|p| found.contains(&p.pid)).collect();
        for member in members.iter().filter(|m| m.ended() && m.parent == own) {
            self.collect(member);
        }
        self.known = members.iter().map(|m| (m.pid, m.started)).collect();
        members.into_iter().filter(|m| !m.ended()).collect()
    }

    /// The leader, and who is in its group or session.
    fn near(&self, process: &Stat) -> bool {
        let Some(leader) = self.leader else { return false };
        let pid = signed(leader.pid);
        if process.pid == pid {
            return process.started == leader.started;
        }
        process.group == pid || process.session == pid
    }

    /// Waits for a member that lost its parents and was given to us (in a container Doorbell may be the first process).
    /// The leader is waited for by its `Child`.
    fn collect(&self, zombie: &Stat) {
        if self.leader.is_none_or(|l| signed(l.pid) != zombie.pid) {
            let _ = rustix::process::waitpid(Pid::from_raw(zombie.pid), WaitOptions::NOHANG);
        }
    }

    fn holds_pipe(&self, pid: i32, own_exe: Option<&Path>) -> bool {
        // Between fork and exec a child of ours for another run holds copies of all our pipes. It still has our program
        // then; this must be asked before the pipes.
        if self.pipes.is_empty() || std::fs::read_link(format!("/proc/{pid}/exe")).ok().as_deref() == own_exe {
            return false;
        }
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|to| self.pipes.contains(&to))
    }
}

fn marker(run: RunId) -> Vec<u8> {
    format!("DOORBELL_RUN_ID={run}").into_bytes()
}

fn signed(pid: u32) -> i32 {
    i32::try_from(pid).unwrap_or(0)
}

/// Every process that can be seen.
fn processes() -> impl Iterator<Item = Stat> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter_map(Stat::of)
}

/// Whether the environment a process was started with holds `marker`. Unreadable (another user's, or ended): no.
fn carries(pid: i32, marker: &[u8]) -> bool {
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|e| e == marker))
}

/// Sends a signal to exactly this process. One that is gone, or is not ours to signal, is left.
fn signal(process: &Stat, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else { return };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => {
            if Stat::of(process.pid).is_some_and(|now| now.started == process.started) {
                let _ = rustix::process::pidfd_send_signal(fd, signal);
            }
        }
        // Before Linux 5.3, or a sandbox that forbids it.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
            if Stat::of(process.pid).is_some_and(|now| now.started == process.started) {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(name: &str) -> String {
        let rest = "S 7 42 43 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 1";
        format!("42 ({name}) {rest}\n")
    }

    #[test]
    fn a_program_cannot_forge_its_fields_with_its_name() {
        let right = Stat { pid: 42, state: b'S', parent: 7, group: 42, session: 43, started: 987_654 };
        for name in ["sh", "a b", "evil) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 0 0 0 0 1 (x", "))((", ") R 1", "a\nb", ""] {
            assert_eq!(Stat::parse(line(name).as_bytes()), Some(right), "{name}");
        }
    }

    #[test]
    fn a_line_that_is_cut_off_is_no_process() {
        let whole = line("sh");
        let needed = whole.find("987654").unwrap();
        for end in 0..needed {
            assert_eq!(Stat::parse(&whole.as_bytes()[..end]), None, "{end}");
        }
        assert_eq!(Stat::parse(b"\xff (x) S"), None);
    }

    #[test]
    fn this_very_process_can_be_read() {
        let own = Stat::of(signed(std::process::id())).unwrap();
        assert!(own.started > 0 && own.parent > 0);
        assert!(processes().any(|p| p.pid == own.pid));
    }

    proptest! {
        #[test]
        fn any_name_leaves_the_fields_as_they_are(name in "\\PC{0,15}") {
            let stat = Stat::parse(line(&name).as_bytes());
            prop_assert_eq!(stat.map(|s| (s.pid, s.parent, s.started)), Some((42, 7, 987_654)));
        }

        #[test]
        fn no_line_is_too_strange_to_read(line: Vec<u8>) {
            let _ = Stat::parse(&line);
        }
    }
}
