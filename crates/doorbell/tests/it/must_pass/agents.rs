//! What reaches an agent, and what a payload cannot reach through it. Used by `must_pass`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{config, delivery, said};
use crate::world::{Door, HttpAgent, SECRET, TOKEN, eventually, github};

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_reaches_no_secret_and_no_template() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let hostile = json!({"lane": "{{ env.TEST_SECRET }} {{ secret }}", "text": "${TEST_SECRET} $(id)"});
    let (_, first) = said(delivery(&door, "t", &hostile.to_string())).await;
    door.run_ended(first["run_id"].as_str().unwrap()).await;
    let envelope = agent.envelopes().pop().unwrap();
    assert_eq!(envelope["run"]["key"], hostile["lane"], "text of a payload is never a template");
    assert!(!envelope.to_string().contains(SECRET) && !envelope.to_string().contains(TOKEN));
}

/// A run that waits for its retry holds its lane. The same key of another trigger is another lane.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_one_trigger_touches_no_lane_of_another() {
    let agent = HttpAgent::start().await;
    agent.answer(500, "not now");
    let retries = "retries = { max = 1, backoff = \"1h\", max_backoff = \"1h\" }";
    let door = Door::start(&config(&agent).replace("retries = { max = 0 }", retries)).await;
    let lane = |n: u32| json!({"lane": "shared", "n": n}).to_string();
    let (_, stuck) = said(delivery(&door, "l1", &lane(1))).await;
    let stuck = stuck["run_id"].as_str().unwrap();
    eventually("the first one waits for its retry", || async {
        let run = door.api(&format!("/runs/{stuck}")).await;
        (run["state"] == "queued" && run["attempt"] == 1).then_some(())
    })
    .await;
    agent.answer(200, "{}");
    let (_, behind) = said(delivery(&door, "l2", &lane(2))).await;
    let other = github(&door.url("/hooks/other"), &door.http, "l3", "push", lane(3).as_bytes());
    let (_, other) = said(other).await;
    let run = door.run_ended(other["run_id"].as_str().unwrap()).await;
    assert_eq!((&run["state"], &run["key"]), (&json!("succeeded"), &json!("shared")), "{run}");
    for id in [stuck, behind["run_id"].as_str().unwrap()] {
        let run = door.api(&format!("/runs/{id}")).await;
        assert_eq!((&run["state"], &run["key"]), (&json!("queued"), &json!("shared")), "{run}");
    }
}

/// Tells what it was started with, and what it can find out about the one who started it.
const AGENT: &str = r#"#!/bin/sh
printf '%s\n' "$@" > arguments
env | sed 's/=.*//' | sort > variables
env > environment
cat > stdin
cat "/proc/$PPID/environ" > parent 2> /dev/null
exit 0
"#;

fn process(command: &str) -> String {
    format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n\
         [agents.worker]\nrunner = \"process\"\ncommand = {command}\nretries = {{ max = 0 }}\n\
         [triggers.ring]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
         key = \"{{{{ data.repo }}}}\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_becomes_no_argument_no_variable_and_no_file() {
    let mut door = Door::prepare(&process(r#"["sh", "agent.sh", "--fixed", "{{ data.repo }}", "$(touch owned)"]"#));
    std::fs::write(door.path().join("agent.sh"), AGENT).unwrap();
    door.launch().await;
    let read = |name: &str| std::fs::read_to_string(door.path().join(name)).unwrap();
    let mut variables = BTreeSet::new();
    let hostile = ["--upload-pack=touch owned", "; touch owned", "$(touch owned)", "`touch owned`", "../../owned", "-"];
    for (n, repo) in hostile.iter().enumerate() {
        let body = json!({"repo": repo, "script": "../agent.sh", "LD_PRELOAD": repo, "n": n}).to_string();
        let (status, answer) = said(delivery(&door, &format!("d{n}"), &body)).await;
        assert_eq!(status, 202, "{repo}: {answer}");
        let run = door.run_ended(answer["run_id"].as_str().unwrap()).await;
        assert_eq!((&run["state"], &run["key"]), (&json!("succeeded"), &json!(repo)), "{run}");
        assert_eq!(read("arguments"), "--fixed\n{{ data.repo }}\n$(touch owned)\n", "what the file says, as it is");
        assert!(read("stdin").contains(&json!(repo).to_string()), "{repo} travels on stdin");
        variables.insert(read("variables"));
        let environment = read("environment");
        for secret in [SECRET, TOKEN, "LD_PRELOAD"] {
            assert!(!environment.contains(secret), "{environment}");
        }
        // Root may read everything: there the kernel would not have said no.
        if !rustix::process::getuid().is_root() {
            assert_eq!(read("parent"), "", "the server's own environment is open to its agents");
        }
    }
    assert_eq!(variables.len(), 1, "the names of variables do not depend on the payload: {variables:?}");
    let files: BTreeSet<_> = std::fs::read_dir(door.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    let known = [
        "agent.sh",
        "arguments",
        "banner",
        "data",
        "doorbell.toml",
        "environment",
        "log",
        "parent",
        "stdin",
        "variables",
    ];
    assert_eq!(files, known.iter().map(Into::into).collect(), "a payload made a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_asks_for_secrets_is_refused_or_empty() {
    let agent = HttpAgent::start().await;
    let asking = |asked: &str| {
        let trigger =
            "[triggers.asking]\nagent = \"worker\"\nprovider = \"github\"\nsecret = { env = \"TEST_SECRET\" }\n";
        let prompt = format!("{trigger}prompt = '''said: {asked} <'''\n[triggers.stripe]");
        config(&agent).replace("[triggers.stripe]", &prompt)
    };
    for asked in [
        "{{ env.TEST_SECRET }}",
        "{{ secret }}",
        "{{ secrets }}",
        "{{ config.server.admin_token }}",
        "{{ headers['x-hub-signature-256'] }}",
        "{{ data.__class__ }}",
        "{{ self }}",
        "{% include 'doorbell.toml' %}",
        "{% import 'data/admin.token' as t %}",
    ] {
        let mut door = Door::prepare(&asking(asked));
        door.spawn();
        let is_ready = eventually("it is ready or has ended", || async {
            let answer = door.http.get(door.url("/ready")).send().await;
            let refused = door.log().contains("nothing was started");
            if answer.is_ok_and(|a| a.status() == 200) { Some(true) } else { refused.then_some(false) }
        })
        .await;
        if !is_ready {
            assert_eq!(door.wait().await, Some(1), "{asked}");
            continue;
        }
        let calls = agent.calls().len();
        let (status, answer) = said(github(&door.url("/hooks/asking"), &door.http, "d", "push", b"{}")).await;
        assert_eq!(status, 202, "{asked}: {answer}");
        door.run_ended(answer["run_id"].as_str().unwrap()).await;
        // A template that asks for what is not there fails the run.
        let told = agent.envelopes().split_off(calls);
        let text = Value::from(told).to_string();
        assert!(!text.contains(SECRET) && !text.contains(TOKEN) && !text.contains("sha256="), "{asked}: {text}");
    }
}
