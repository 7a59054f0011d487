//! What only the `process` kind promises: environment, stdin, exit codes, caps, and that nothing a program does with its
//! pipes hangs an attempt.

use std::time::Duration;

use doorbell_core::attempt::{Failure, Outcome, Success};
use doorbell_core::ports::{Child, OutputSink, Stream};
use serde_json::{Value, json};

use crate::support::{Try, build, context, script, script_with, until};

async fn output_of(text: &str, more: Value, one: Try) -> String {
    match one.outcome(&script_with(text, more)).await {
        Outcome::Succeeded(Success { output, .. }) => String::from_utf8_lossy(&output).into_owned(),
        other => panic!("{other:?}"),
    }
}

async fn failure_of(text: &str) -> Failure {
    match Try::new().outcome(&script(text)).await {
        Outcome::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_environment_is_the_allow_list_and_the_run_and_nothing_else() {
    let one = Try::new();
    let run = one.attempt.envelope.run.id;
    let event = one.attempt.envelope.event.id;
    let settings = json!({"command": ["env"], "env": ["GIVEN", "NOT_SET"], "set_env": {"MORE": {"env": "m"}}});
    let Outcome::Succeeded(success) = one.outcome(&build("process", settings)).await else { panic!() };
    let text = String::from_utf8(success.output.to_vec()).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    let wanted = format!(
        "DOORBELL_AGENT=reviewer\nDOORBELL_API=http://127.0.0.1:8080\nDOORBELL_ATTEMPT=2\nDOORBELL_EVENT_ID={event}\n\
         DOORBELL_HOPS=3\nDOORBELL_KEY=o/r#7\nDOORBELL_RUN_ID={run}\nDOORBELL_RUN_TOKEN=run-token\nGIVEN=yes\nMORE=m"
    );
    assert_eq!(lines, wanted.lines().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_payload_reaches_stdin_only() {
    let nasty = "$(touch /tmp/x) `id` ; rm -rf / \u{0} --flag";
    let text = "tr '\\0' '\\n' </proc/$$/cmdline; tr '\\0' '\\n' </proc/$$/environ";
    let seen = output_of(text, json!({}), Try::with(json!({ "title": nasty }), nasty)).await;
    assert!(!seen.contains("touch") && !seen.contains("--flag"), "{seen}");
}

#[tokio::test]
async fn stdin_is_the_envelope_the_prompt_or_the_body() {
    let one = || Try::with(json!({"a": "ä\u{0}"}), "say ä");
    let envelope = output_of("cat", json!({}), one()).await;
    let envelope: Value = serde_json::from_str(&envelope).unwrap();
    assert_eq!(envelope["run"]["attempt"], 2);
    assert_eq!(envelope["event"]["data"], json!({"a": "ä\u{0}"}));
    assert_eq!(output_of("cat", json!({"stdin": "prompt"}), one()).await, "say ä");
    assert_eq!(output_of("cat", json!({"stdin": "data"}), one()).await, r#"{"a":"ä\u0000"}"#);
    let text = Try::with(json!("plain \"text\"\n"), "");
    assert_eq!(output_of("cat", json!({"stdin": "data"}), text).await, "plain \"text\"\n");
}

#[tokio::test]
async fn binary_bodies_come_as_they_were_and_joined_ones_as_a_list() {
    let mut binary = Try::new();
    let mut envelope = (*binary.attempt.envelope).clone();
    envelope.event.data = None;
    envelope.event.data_base64 = Some("AP8K".into());
    binary.attempt.envelope = envelope.clone().into();
    let settings = json!({"stdin": "data"});
    assert_eq!(output_of("od -An -tx1", settings.clone(), binary).await.trim(), "00 ff 0a");

    let mut joined = Try::new();
    envelope.events = vec![joined.attempt.envelope.event.clone(), envelope.event.clone()];
    joined.attempt.envelope = envelope.into();
    assert_eq!(output_of("cat", settings, joined).await, r#"[{"n":1},"AP8K"]"#);
}

#[tokio::test]
async fn exit_codes_say_whether_to_try_again() {
    for (code, retry) in [(1, true), (2, true), (75, true), (78, false), (127, true)] {
        let failure = failure_of(&format!("echo some; printf 'why\\033[2J' >&2; exit {code}")).await;
        assert_eq!(failure.retry, retry, "{code}");
        assert!(failure.error.contains(&code.to_string()), "{}", failure.error);
        assert!(failure.error.ends_with("why\\u{1b}[2J"), "{}", failure.error);
        assert_eq!(failure.output.as_deref(), Some(&b"some\n"[..]));
    }
    let killed = failure_of("kill -SEGV $$").await;
    assert!(killed.retry && killed.error.contains("SIGSEGV"), "{}", killed.error);
}

#[tokio::test]
async fn a_verdict_counts_only_with_exit_code_zero_but_for_what_was_spent() {
    let failure = failure_of(r#"echo '{"doorbell":{"status":"succeeded","usage":{"tokens":9}}}'; exit 78"#).await;
    assert_eq!((failure.retry, failure.usage.tokens), (false, Some(9)));
}

#[tokio::test]
async fn output_and_log_are_streamed_and_kept_apart() {
    let one = Try::new();
    let Outcome::Succeeded(success) = one.outcome(&script("echo out; echo err >&2")).await else { panic!() };
    assert_eq!(success.output, "out\n");
    assert_eq!(one.sink.text(Stream::Output), "out\n");
    assert_eq!(one.sink.text(Stream::Log), "err\n");
    assert_eq!(one.sink.children.lock().unwrap().len(), 1);
}

/// Looks, while it is told of the child, whether that has read its input.
struct Watching {
    file: std::path::PathBuf,
    seen: std::sync::Mutex<String>,
}

#[async_trait::async_trait]
impl OutputSink for Watching {
    async fn write(&self, _: Stream, _: bytes::Bytes) {}
    async fn child(&self, child: Child) {
        // Asleep after its first word: it waits for input. With input it would say more.
        let asleep =
            || std::fs::read_to_string(format!("/proc/{}/stat", child.pid)).is_ok_and(|stat| stat.contains(") S "));
        let words = || std::fs::read_to_string(&self.file).ok().filter(|text| !text.is_empty());
        let seen = until("it waits", || words().filter(|text| asleep() || text.lines().count() > 1)).await;
        *self.seen.lock().unwrap() = seen;
    }
}

#[tokio::test]
async fn a_child_is_noted_before_it_gets_input() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seen");
    let sink = std::sync::Arc::new(Watching { file: file.clone(), seen: Default::default() });
    let mut one = Try::new();
    one.attempt.sink = sink.clone();
    let text = r#"echo ready >>"$SEEN"; read -r line && echo "$line" >>"$SEEN"; echo done"#;
    let settings = json!({"set_env": {"SEEN": file.to_str().unwrap()}});
    assert_eq!(output_of(text, settings, one).await, "done\n");
    assert_eq!(*sink.seen.lock().unwrap(), "ready\n");
    assert!(std::fs::read_to_string(&file).unwrap().contains("do it"), "and gets it then");
}

#[tokio::test]
async fn a_flood_is_cut_at_the_caps_and_noted_once_each() {
    let one = Try::new();
    let flood = "head -c 100000000 /dev/zero & head -c 30000000 /dev/zero >&2; wait; echo end >&2";
    let runner = script_with(flood, json!({"max_output": "10 KiB", "max_log": 1000}));
    let Outcome::Succeeded(success) = one.outcome(&runner).await else { panic!() };
    assert_eq!(success.output.len(), 10 * 1024);
    assert_eq!(one.sink.text(Stream::Output).len(), 10 * 1024);
    assert_eq!(one.sink.text(Stream::Log).len(), 1000);
    assert_eq!(one.sink.notes(), 2, "{}", one.sink.text(Stream::Note));
}

#[tokio::test]
async fn a_verdict_that_was_cut_off_is_no_success() {
    let text =
        r#"printf '{"doorbell":{"status":"failed","output":"'; head -c 5000 /dev/zero | tr '\0' x; printf '"}}'"#;
    let outcome = Try::new().outcome(&script_with(text, json!({"max_output": 1000}))).await;
    assert!(matches!(&outcome, Outcome::Failed(f) if f.error.contains("max_output")), "{outcome:?}");
}

#[tokio::test]
async fn input_that_nobody_reads_or_that_is_refused_is_no_failure() {
    let big = || Try::with(json!("x".repeat(4 << 20)), "");
    assert_eq!(output_of("echo done", json!({}), big()).await, "done\n");
    assert_eq!(output_of("exec 0<&-; echo done", json!({}), big()).await, "done\n");
    assert_eq!(output_of("head -c 3 >/dev/null; echo done", json!({"stdin": "data"}), big()).await, "done\n");
}

#[tokio::test]
async fn big_input_and_big_output_flow_at_the_same_time() {
    let seen =
        output_of("cat", json!({"stdin": "data", "max_output": "5 MiB"}), Try::with(json!("x".repeat(4 << 20)), ""))
            .await;
    assert_eq!(seen.len(), 4 << 20);
}

#[tokio::test]
async fn a_child_that_holds_the_pipes_does_not_hang_the_attempt() {
    let begun = std::time::Instant::now();
    assert_eq!(output_of("sleep 1000 & echo done", json!({}), Try::new()).await, "done\n");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn output_of_a_child_that_ends_soon_after_its_parent_is_kept() {
    assert_eq!(
        output_of("{ cat /proc/self/stat >/dev/null; echo late; } & exit 0", json!({}), Try::new()).await,
        "late\n"
    );
}

#[tokio::test]
async fn paths_start_at_the_configuration_file() {
    let dir = tempfile::tempdir_in(".").unwrap();
    std::fs::create_dir(dir.path().join("work")).unwrap();
    let program = dir.path().join("agent.sh");
    std::fs::write(&program, "#!/bin/sh\nbasename \"$PWD\"\n").unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut context = context();
    context.base_dir = std::path::Path::new(".").join(dir.path().file_name().unwrap());
    let settings = json!({"command": ["./agent.sh"], "cwd": "work", "env": ["PATH"]});
    let runner =
        doorbell_agents::build("process", settings.as_object().unwrap(), &context).unwrap_or_else(|f| panic!("{f:?}"));
    let outcome = Try::new().outcome(&runner).await;
    assert!(matches!(&outcome, Outcome::Succeeded(s) if s.output == "work\n"), "{outcome:?}");
}

#[tokio::test]
async fn a_program_that_is_missing_says_so_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    let cases = [
        ("no-such-program-anywhere", "is not in the path"),
        ("./no/such", "is not there"),
        (plain.to_str().unwrap(), "is not executable"),
    ];
    for (program, why) in cases {
        let outcome = Try::new().outcome(&build("process", json!({"command": [program]}))).await;
        assert!(matches!(&outcome, Outcome::Failed(f) if f.retry && f.error.contains(why)), "{program}: {outcome:?}");
    }
    let outcome = Try::new().outcome(&build("process", json!({"command": ["env"], "cwd": "/no/such"}))).await;
    assert!(matches!(&outcome, Outcome::Failed(f) if f.error.contains("no directory")), "{outcome:?}");
}

#[tokio::test]
async fn a_nul_in_the_key_cannot_start_a_program() {
    let mut one = Try::new();
    let mut envelope = (*one.attempt.envelope).clone();
    envelope.run.key = Some("a\0b".into());
    one.attempt.envelope = envelope.into();
    let outcome = one.outcome(&script("echo no")).await;
    assert!(matches!(&outcome, Outcome::Failed(f) if !f.retry), "{outcome:?}");
}
