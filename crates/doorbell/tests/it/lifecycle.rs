//! Starting, reloading and stopping, through the real program; `check` and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::world::{Door, eventually, github};

/// A server with one process agent behind one GitHub source. The agent ends once the file `go` is there.
fn config(server_keys: &str) -> String {
    format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n{server_keys}\n\
         [agents.worker]\nrunner = \"process\"\ncommand = [\"./agent.sh\"]\nenv = [\"PATH\"]\nretries = {{ backoff = \"10ms\" }}\n\
         [triggers.ring]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n"
    )
}

async fn door(server_keys: &str) -> Door {
    let mut door = Door::prepare(&config(server_keys));
    write_program(
        &door,
        "agent.sh",
        "#!/bin/sh\necho started >> started\nwhile [ ! -e go ]; do sleep 0.02; done\necho '{\"ok\":true}'\n",
    );
    door.launch().await;
    door
}

fn write_program(door: &Door, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = door.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn signal(door: &Door, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(door.pid()).unwrap()).unwrap(), signal).unwrap();
}

async fn ring(door: &Door, hook: &str, id: &str) -> (u16, Value) {
    let answer = github(&door.url(hook), &door.http, id, "push", b"{}").send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

/// Rings, and waits until the agent has begun.
async fn begin(door: &Door) -> String {
    let (status, answer) = ring(door, "/hooks/ring", "d1").await;
    assert_eq!(status, 202, "{answer}");
    eventually("the agent begins", || async { door.path().join("started").exists().then_some(()) }).await;
    answer["run_id"].as_str().unwrap().to_owned()
}

async fn reload_fault(door: &Door) -> Option<String> {
    let ready: Value = door.http.get(door.url("/ready")).send().await.ok()?.json().await.ok()?;
    ready["config"].as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_keeps_the_old_one_and_a_right_one_replaces_it() {
    let door = door("").await;
    let file = door.path().join("doorbell.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{good}promt = \"x\"\n")).unwrap();
    let fault = eventually("the fault is told", || reload_fault(&door)).await;
    assert!(fault.contains("Did you mean `prompt`?"), "{fault}");
    assert_eq!(ring(&door, "/hooks/ring", "d1").await.0, 202);
    let more = "[triggers.other]\nagent = \"worker\"\nprovider = \"github\"\nsecret = { env = \"TEST_SECRET\" }\n";
    // Replaced rather than written, as editors do.
    std::fs::write(door.path().join("next"), format!("{good}{more}")).unwrap();
    std::fs::rename(door.path().join("next"), &file).unwrap();
    eventually("the new way in is there", || async {
        (ring(&door, "/hooks/other", "d2").await.0 == 202).then_some(())
    })
    .await;
    assert_eq!(reload_fault(&door).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_emptied_closes_no_way_in_unless_sighup_says_so() {
    let door = door("").await;
    let file = door.path().join("doorbell.toml");
    let server = std::fs::read_to_string(&file).unwrap().split("[agents").next().unwrap().to_owned();
    std::fs::write(&file, server).unwrap();
    let fault = eventually("the fault is told", || reload_fault(&door)).await;
    assert!(fault.contains("the file names no source; send SIGHUP if that is meant"), "{fault}");
    assert_eq!(ring(&door, "/hooks/ring", "d1").await.0, 202);
    signal(&door, Signal::HUP);
    eventually("it is taken", || async { (ring(&door, "/hooks/ring", "d2").await.0 == 404).then_some(()) }).await;
    assert_eq!(reload_fault(&door).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_configuration_again() {
    let door = door("").await;
    // Nothing changed, so only the signal can be the cause.
    assert!(!door.log().contains("was read again"));
    signal(&door, Signal::HUP);
    eventually("it is read again", || async { door.log().contains("was read again").then_some(()) }).await;
    assert_eq!(reload_fault(&door).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_file_counts_without_a_restart() {
    let text = config("")
        .replace("provider = \"github\"", "auth = \"bearer\"")
        .replace("{ env = \"TEST_SECRET\" }", "{ file = \"hook\" }");
    let mut door = Door::prepare(&text);
    std::fs::write(door.path().join("hook"), "the-old-token\n").unwrap();
    write_program(&door, "agent.sh", "#!/bin/sh\n");
    door.launch().await;
    let door = &door;
    let ring = |token: &'static str| async move {
        let request =
            door.http.post(door.url("/hooks/ring")).bearer_auth(token).header("content-type", "application/json");
        request.body("{}").send().await.unwrap().status().as_u16()
    };
    assert_eq!(ring("the-old-token").await, 202);
    std::fs::write(door.path().join("hook"), "the-new-token-is-longer\n").unwrap();
    eventually("the new token opens", || async { (ring("the-new-token-is-longer").await == 202).then_some(()) }).await;
    assert_eq!(ring("the-old-token").await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_data_is_refused_and_told_who_has_it() {
    let door = door("").await;
    let second = serve(&door).env("DOORBELL_LISTEN", "127.0.0.1:0").output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("in use by process {}", door.pid())), "{told}");
    assert_eq!(ring(&door, "/hooks/ring", "d1").await.0, 202, "the first one is not disturbed");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_a_running_agent_end_and_exits_with_0() {
    let mut door = door("").await;
    let run = begin(&door).await;
    signal(&door, Signal::TERM);
    eventually("it refuses", || async {
        let answer = github(&door.url("/hooks/ring"), &door.http, "d2", "push", b"{}").send().await;
        (answer.unwrap().status() == 503).then_some(())
    })
    .await;
    // Whoever waits for the run can look at it, and hears of its end.
    let ready = door.http.get(door.url("/ready")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("stopping"));
    assert_eq!(door.api(&format!("/runs/{run}")).await["state"], "running");
    let follow = format!("/api/v1/runs/{run}/log");
    let followed =
        door.http.get(door.url(&follow)).bearer_auth(crate::world::TOKEN).header("accept", "text/event-stream");
    let followed = followed.send().await.unwrap();
    std::fs::write(door.path().join("go"), "").unwrap();
    let followed = followed.text().await.unwrap();
    assert!(followed.contains("event: end") && followed.contains("succeeded"), "{followed}");
    assert_eq!(door.wait().await, Some(0), "{}", door.log());
    door.launch().await;
    let run = door.run_ended(&run).await;
    assert_eq!((run["state"].as_str(), run["attempt"].as_u64()), (Some("succeeded"), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_agents_at_once_and_they_run_again_after_the_next_start() {
    let mut door = door("shutdown_grace = \"1h\"").await;
    let run = begin(&door).await;
    signal(&door, Signal::TERM);
    eventually("the first signal is heard", || async { door.log().contains("is closing").then_some(()) }).await;
    let told = format!(
        "waiting up to 1h for 1 run at work ({run}). Ctrl-C or SIGTERM again does not wait: it ends it at once"
    );
    assert!(door.log().contains(&told), "{}", door.log());
    assert!(door.log().contains("an attempt started"), "{}", door.log());
    signal(&door, Signal::TERM);
    assert_eq!(door.wait().await, Some(0), "{}", door.log());
    std::fs::write(door.path().join("go"), "").unwrap();
    door.launch().await;
    let run = door.run_ended(&run).await;
    assert_eq!(run["state"], "succeeded", "{run}");
    let started = std::fs::read_to_string(door.path().join("started")).unwrap();
    assert_eq!(started.lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_stop_is_bounded_by_its_grace() {
    let mut door = door("shutdown_grace = \"200ms\"").await;
    begin(&door).await;
    let began = std::time::Instant::now();
    assert_eq!(door.terminate().await, Some(0), "{}", door.log());
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_wrong_configuration_starts_nothing_and_leaves_nothing() {
    let door = Door::prepare("[server]\nlisten = \"{addr}\"\ndata_dir = \"data\"\n[agents.a]\nrunner = \"proces\"\n");
    let out = serve(&door).output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(told.starts_with("doorbell.toml:5:10: error: agents.a.runner: there is no runner `proces`"), "{told}");
    assert!(told.contains("\nerror: doorbell.toml cannot be used: nothing was started\n"), "{told}");
    assert!(!door.path().join("data").exists());
}

#[test]
fn a_fault_of_the_environment_is_not_blamed_on_the_file() {
    let door = Door::prepare("[server]\n[agents.a]\nrunner = \"process\"\ncommand = [\"no-such-program\"]\n");
    let out = serve(&door).env("DOORBELL_LISTEN", "8080").output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        told.starts_with("environment variable DOORBELL_LISTEN: error: `8080` is not an address with a port"),
        "{told}"
    );
    assert!(!told.contains("error: doorbell.toml:"), "{told}");
}

#[test]
fn one_role_alone_is_refused_until_there_is_a_store_for_it() {
    for flag in ["--accept-only", "--work-only"] {
        let door = Door::prepare("");
        let out = serve(&door).arg(flag).output().unwrap();
        assert_eq!(out.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&out.stderr).contains("needs PostgreSQL"));
        let help = command(&door).args(["serve", "--help"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&help.stdout).contains(flag), "what cannot be used is not offered");
    }
}

#[test]
fn check_tells_every_fault_and_its_exit_code_says_whether_there_is_one() {
    let door = Door::prepare("[agents.a]\nrunner = \"proces\"\ntimeout = \"soon\"\n");
    let check = |args: &[&str]| {
        let out = command(&door).arg("check").args(args).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (code, told) = check(&[]);
    assert_eq!(code, Some(1));
    assert!(told.contains("agents.a.runner") && told.contains("agents.a.timeout"), "{told}");
    let (code, json) = check(&["--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, json["ok"].as_bool(), json["errors"].as_u64()), (Some(1), Some(false), Some(2)));
    assert_eq!(json["faults"][0]["line"], 2);
    let (code, schema) = check(&["--schema"]);
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!((code, schema["title"].as_str()), (Some(0), Some("doorbell.toml")));
}

#[test]
fn check_warns_of_a_file_that_makes_a_doorbell_without_work() {
    let door = Door::prepare("[server]\n");
    let out = command(&door).arg("check").output().unwrap();
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{told}");
    assert!(told.contains("names no agent") && told.contains("names no source"), "{told}");
}

fn command(door: &Door) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.current_dir(door.path()).env("TEST_SECRET", crate::world::SECRET).stdin(Stdio::null());
    command
}

fn serve(door: &Door) -> Command {
    let mut command = command(door);
    command.arg("serve");
    command
}
