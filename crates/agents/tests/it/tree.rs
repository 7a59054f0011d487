//! After an attempt nothing of it is alive, whatever it did to stay.

use std::path::Path;
use std::time::Duration;

use doorbell_core::attempt::{Outcome, StopReason};
use doorbell_core::ports::{Child, Runner};
use serde_json::json;

use crate::support::{Try, script, script_with, until};

/// Each way to stay notes its number in the file `$PIDS` when it is ready.
const IGNORES_TERM: &str = r#"sh -c 'trap "" TERM; echo $$ >>"$PIDS"; while :; do sleep 1; done' &"#;
const OWN_SESSION: &str = r#"setsid sh -c 'echo $$ >>"$PIDS"; exec sleep 1000' &"#;
const DAEMON: &str = r#"(setsid sh -c '(trap "" TERM HUP; sh -c "echo \$PPID" >>"$PIDS"; while :; do sleep 1; done) &' </dev/null >/dev/null 2>&1 &)"#;
const CLEARED_BUT_HOLDS_PIPES: &str =
    r#"(env -i /usr/bin/setsid /bin/sh -c 'echo $$ >>'"$PIDS"'; exec /bin/sleep 1000' &)"#;
const STOPPED: &str = r#"sh -c 'echo $$ >>"$PIDS"; kill -STOP $$; sleep 1000' &"#;
/// Found only while its parent lives: no environment, no pipes, no group and no session of ours.
const CLEARED_OF_ALL: &str =
    r#"env -i /usr/bin/setsid /bin/sh -c 'echo $$ >>'"$PIDS"'; exec /bin/sleep 1000' </dev/null >/dev/null 2>&1 &"#;

const ALL: [&str; 5] = [IGNORES_TERM, OWN_SESSION, DAEMON, CLEARED_BUT_HOLDS_PIPES, STOPPED];

fn noted(file: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

/// A zombie is dead: it only waits for whoever adopted it.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with(['Z', 'X']))
}

fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn assert_gone(file: &Path, count: usize) {
    let pids = noted(file);
    assert_eq!(pids.len(), count);
    for pid in pids {
        assert!(
            !alive(pid),
            "process {pid} is still there: {:?}",
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
        );
    }
}

fn file() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pids");
    (dir, path)
}

fn stays(ways: &[&str], then: &str, file: &Path) -> std::sync::Arc<dyn Runner> {
    script_with(&format!("{}\n{then}", ways.join("\n")), json!({"set_env": {"PIDS": file.to_str().unwrap()}}))
}

#[tokio::test]
async fn a_stop_ends_every_kind_of_descendant() {
    for reason in [StopReason::Cancelled, StopReason::LeaseLost] {
        let (_dir, file) = file();
        let ways = [&ALL[..], &[CLEARED_OF_ALL]].concat();
        let runner = stays(&ways, "trap '' TERM; while :; do sleep 1; done", &file);
        let one = Try::new();
        let (outcome, ()) = tokio::join!(one.outcome(&runner), async {
            until("all are ready", || (noted(&file).len() == ways.len()).then_some(())).await;
            one.stop.ask(reason);
        });
        assert_eq!(outcome, doorbell_core::attempt::Stop::outcome(reason));
        assert_gone(&file, ways.len());
    }
}

#[tokio::test]
async fn a_program_that_ends_leaves_nothing_behind() {
    for way in ALL {
        let (_dir, file) = file();
        let runner = stays(&[way], r#"while ! [ -s "$PIDS" ]; do :; done; echo done"#, &file);
        let outcome = Try::new().outcome(&runner).await;
        assert!(matches!(&outcome, Outcome::Succeeded(s) if s.output == "done\n"), "{way}: {outcome:?}");
        assert_gone(&file, 1);
    }
}

#[tokio::test]
async fn orphans_that_are_given_to_us_do_not_stay_as_zombies() {
    // As the first process of a container, where orphans come to Doorbell. Harmless to the other tests.
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).unwrap();
    let (_dir, file) = file();
    let outcome = Try::new().outcome(&stays(&[DAEMON], r#"while ! [ -s "$PIDS" ]; do :; done"#, &file)).await;
    assert!(matches!(outcome, Outcome::Succeeded(_)), "{outcome:?}");
    assert_eq!(noted(&file).into_iter().filter_map(started).count(), 0, "a zombie is left");
}

#[tokio::test]
async fn at_the_time_limit_the_tree_ends_and_a_grace_is_given() {
    let (_dir, file) = file();
    let more = json!({"set_env": {"PIDS": file.to_str().unwrap()}, "kill_grace": "20s"});
    let runner = script_with(r#"trap 'echo $$ >>"$PIDS"; exit 0' TERM; while :; do sleep 0.01; done"#, more);
    let limit = Duration::from_millis(500);
    let outcome = Try::new().within(limit).outcome(&runner).await;
    assert_eq!(outcome, Outcome::TimedOut { after: limit }, "a good exit after the limit is still too late");
    assert_eq!(noted(&file).len(), 1, "the program was told before it was killed");
    assert_gone(&file, 1);
}

#[tokio::test]
async fn a_stopped_program_hears_that_it_is_to_end() {
    let (_dir, file) = file();
    let more = json!({"set_env": {"PIDS": file.to_str().unwrap()}, "kill_grace": "20s"});
    let runner =
        script_with(r#"trap 'echo $$ >>"$PIDS"; exit 0' TERM; kill -STOP $$; while :; do sleep 1; done"#, more);
    let limit = Duration::from_millis(500);
    assert_eq!(Try::new().within(limit).outcome(&runner).await, Outcome::TimedOut { after: limit });
    assert_gone(&file, 1);
}

#[tokio::test]
async fn a_dropped_attempt_kills_its_tree() {
    let (_dir, file) = file();
    let runner = stays(&[DAEMON, OWN_SESSION], "while :; do sleep 1; done", &file);
    let one = Try::new();
    tokio::select! {
        outcome = one.outcome(&runner) => panic!("{outcome:?}"),
        () = until("both are ready", || (noted(&file).len() == 2).then_some(())) => {}
    }
    until("both are gone", || noted(&file).iter().all(|pid| !alive(*pid)).then_some(())).await;
}

#[tokio::test]
async fn what_a_crash_left_behind_is_reaped_by_number_start_and_run() {
    let (_dir, file) = file();
    let one = Try::new();
    let run = one.attempt.envelope.run.id;
    // As an earlier Doorbell would have left it: a leader with a group, and a daemon that only the run's id tells.
    let mut leader = std::process::Command::new("/usr/bin/setsid")
        .args(["/bin/sh", "-c", &format!("{DAEMON}\necho $$ >>\"$PIDS\"; env -i /bin/sleep 1000")])
        .env("PIDS", &file)
        .env("DOORBELL_RUN_ID", run.to_string())
        .spawn()
        .unwrap();
    until("both are ready", || (noted(&file).len() == 2).then_some(())).await;
    let pid = leader.id();
    let child = Child { pid, started: started(pid).unwrap() };
    let runner = script("true");
    runner.reap(run, &[child]).await;
    runner.reap(run, &[child]).await;
    leader.wait().unwrap();
    assert_gone(&file, 2);
}

#[tokio::test]
async fn a_process_that_only_has_the_number_of_a_lost_child_is_left_alone() {
    let one = Try::new();
    let run = one.attempt.envelope.run.id;
    let (_dir, file) = file();
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", r#"sleep 1000 & echo $! >>"$PIDS"; wait"#]).env("PIDS", &file);
    // A group of its own with somebody in it, as the lost child had.
    let mut other = std::os::unix::process::CommandExt::process_group(&mut shell, 0).spawn().unwrap();
    let member = until("it is ready", || noted(&file).first().copied()).await;
    let pid = other.id();
    let mistaken = Child { pid, started: started(pid).unwrap() - 1 };
    script("true").reap(run, &[mistaken]).await;
    assert!(alive(pid) && alive(member));
    std::process::Command::new("kill").arg(member.to_string()).status().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn runs_side_by_side_do_not_end_each_other() {
    let (_dir, file) = file();
    let one = Try::new();
    let slow = stays(&[], r#"echo $$ >>"$PIDS"; while [ -e "$PIDS" ]; do sleep 0.01; done; echo done"#, &file);
    let (outcome, ()) = tokio::join!(one.outcome(&slow), async {
        until("it runs", || (!noted(&file).is_empty()).then_some(())).await;
        let others = (0..20).map(|_| async { Try::new().outcome(&script("sleep 1000 & echo ok")).await });
        for outcome in futures::future::join_all(others).await {
            assert!(matches!(outcome, Outcome::Succeeded(_)), "{outcome:?}");
        }
        std::fs::remove_file(&file).unwrap();
    });
    assert!(matches!(&outcome, Outcome::Succeeded(s) if s.output == "done\n"), "{outcome:?}");
}
