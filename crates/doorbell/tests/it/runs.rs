//! What becomes of runs, through the real program: retries, holds, lanes, cancel, deadlines, call backs, restarts.

use serde_json::{Value, json};

use crate::world::{Door, HttpAgent, TOKEN, eventually, github};

/// A server with one HTTP agent behind one GitHub source.
fn config(agent: &HttpAgent, agent_keys: &str, trigger_keys: &str) -> String {
    format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n\
         [agents.worker]\nrunner = \"http\"\nurl = \"{}\"\nretries = {{ max = 2, backoff = \"20ms\", max_backoff = \"50ms\" }}\n{agent_keys}\n\
         [triggers.ring]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n{trigger_keys}\n",
        agent.url()
    )
}

/// Rings once; the answer must be 202. Gives the run's id.
async fn ring(door: &Door, id: &str, body: &str) -> String {
    let answer = github(&door.url("/hooks/ring"), &door.http, id, "push", body.as_bytes()).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let json: Value = answer.json().await.unwrap();
    assert_eq!(json["status"], "accepted");
    json["run_id"].as_str().unwrap().to_owned()
}

fn states(run: &Value) -> Vec<&str> {
    run["transitions"].as_array().unwrap().iter().map(|t| t["to"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_keeps_failing_uses_its_attempts_and_can_be_retried_by_hand() {
    let agent = HttpAgent::start().await;
    agent.answer(500, "no");
    let door = Door::start(&config(&agent, "", "")).await;
    let id = ring(&door, "d1", "{}").await;
    let run = door.run_ended(&id).await;
    assert_eq!((run["state"].as_str(), run["attempt"].as_u64()), (Some("failed"), Some(3)));
    assert_eq!(agent.calls().iter().map(|c| c.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(agent.calls().iter().all(|c| c.run == id), "the run id is stable over attempts");
    let told = door.log();
    let again = told.lines().find(|line| line.contains("the run is tried again")).unwrap_or(&told);
    assert!(again.contains("the agent answered 500: no") && again.contains("due_at="), "{again}");
    agent.answer(200, "{\"fixed\":true}");
    assert_eq!(door.api_post(&format!("/runs/{id}/retry"), json!({})).await.0, 200);
    let run = eventually("the retried run succeeds", || async {
        let run = door.api(&format!("/runs/{id}")).await;
        (run["state"] == "succeeded").then_some(run)
    })
    .await;
    assert_eq!(run["output"], json!({"fixed": true}));
    assert_eq!(states(&run).last(), Some(&"succeeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_error_fails_for_good_and_a_429_with_retry_after_snoozes() {
    let agent = HttpAgent::start().await;
    agent.answer(422, "never");
    let door = Door::start(&config(&agent, "", "")).await;
    let id = ring(&door, "d1", "{}").await;
    let run = door.run_ended(&id).await;
    assert_eq!((run["state"].as_str(), run["attempt"].as_u64()), (Some("failed"), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_and_the_decision_says_what_was_wanted() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "paused = true", "max_queued = 1")).await;
    ring(&door, "d1", "{}").await;
    let answer = github(&door.url("/hooks/ring"), &door.http, "d2", "push", b"{\"n\":2}").send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let refused = door.api("/decisions?kind=unavailable").await;
    let checks = refused["items"][0]["checks"].as_array().unwrap();
    let failed: Vec<_> = checks.iter().filter(|check| check["passed"] == false).collect();
    assert_eq!(failed.len(), 1, "{refused}");
    assert_eq!((failed[0]["name"].as_str(), failed[0]["wanted"].as_str()), (Some("store"), Some("room in the queue")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_agent_holds_its_runs_and_resumes_them_also_after_a_restart() {
    let agent = HttpAgent::start().await;
    let mut door = Door::start(&config(&agent, "", "")).await;
    assert_eq!(door.api_post("/agents/worker/pause", json!({})).await.0, 200);
    let id = ring(&door, "d1", "{}").await;
    door.kill();
    door.launch().await;
    let run = door.api(&format!("/runs/{id}")).await;
    assert_eq!((run["state"].as_str(), run["held_by"].as_str()), (Some("queued"), Some("agent_paused")));
    assert!(agent.calls().is_empty());
    assert_eq!(door.api_post("/agents/worker/resume", json!({})).await.0, 200);
    assert_eq!(door.run_ended(&id).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_tells_whether_its_trigger_or_its_agent_has_no_place() {
    for (concurrency, cap, said) in [(4, 1, "max_concurrent"), (1, 4, "concurrency")] {
        let agent = HttpAgent::start().await;
        // It will call back, and does not: the run stays at work.
        agent.answer(202, "");
        let keys = (format!("concurrency = {concurrency}"), format!("max_concurrent = {cap}"));
        let door = Door::start(&config(&agent, &keys.0, &keys.1)).await;
        ring(&door, "d1", "{}").await;
        eventually("the first is at work", || async { (!agent.calls().is_empty()).then_some(()) }).await;
        let second = ring(&door, "d2", "{\"n\":2}").await;
        assert_eq!(door.api(&format!("/runs/{second}")).await["held_by"], said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_lane_holds_its_own_runs_and_no_others() {
    let agent = HttpAgent::start().await;
    agent.answer(500, "no");
    let keys = "concurrency = 4";
    let mut text = config(&agent, keys, "key = \"{{ data.lane }}\"");
    text = text.replace("backoff = \"20ms\", max_backoff = \"50ms\"", "backoff = \"1h\", max_backoff = \"1h\"");
    let door = Door::start(&text).await;
    let head = ring(&door, "d1", "{\"lane\":\"a\"}").await;
    eventually("the head has failed once", || async { (!agent.calls().is_empty()).then_some(()) }).await;
    agent.answer(200, "{}");
    let behind = ring(&door, "d2", "{\"lane\":\"a\",\"n\":2}").await;
    let other = ring(&door, "d3", "{\"lane\":\"b\"}").await;
    assert_eq!(door.run_ended(&other).await["state"], "succeeded");
    let held = door.api(&format!("/runs/{behind}")).await;
    assert_eq!(held["held_by"], format!("lane:{head}"));
    // Cancelling the head lets the next one go.
    assert_eq!(door.api_post(&format!("/runs/{head}/cancel"), json!({})).await.0, 200);
    assert_eq!(door.run_ended(&behind).await["state"], "succeeded");
    assert_eq!(door.run_ended(&head).await["state"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_and_a_cancel_kill_the_whole_process_tree() {
    let script = "echo $$ > pids; (setsid sleep 300 & echo $! >> pids; wait) & trap '' TERM; sleep 300 & echo $! >> pids; wait; sleep 300";
    let text = |limit: &str| {
        format!(
            "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n[agents.worker]\nrunner = \"process\"\n\
             command = [\"/bin/sh\", \"-c\", \"{script}\"]\nenv = [\"PATH\"]\ntimeout = \"{limit}\"\nkill_grace = \"200ms\"\nretries = {{ max = 0 }}\n\
             [triggers.ring]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n"
        )
    };
    for (limit, cancel, state) in [("500ms", false, "failed"), ("5m", true, "cancelled")] {
        let door = Door::start(&text(limit)).await;
        let id = ring(&door, "d1", "{}").await;
        let pids = eventually("the tree stands", || async {
            let text = std::fs::read_to_string(door.path().join("pids")).ok()?;
            let pids: Vec<u32> = text.lines().filter_map(|l| l.parse().ok()).collect();
            (pids.len() == 3).then_some(pids)
        })
        .await;
        if cancel {
            assert_eq!(door.api_post(&format!("/runs/{id}/cancel"), json!({})).await.0, 200);
        }
        assert_eq!(door.run_ended(&id).await["state"], state);
        let alive: Vec<u32> = pids.into_iter().filter(|pid| is_sleeping_or_running(*pid)).collect();
        assert!(alive.is_empty(), "still alive: {alive:?}");
    }
}

/// Whether a process exists and is not a zombie.
fn is_sleeping_or_running(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z') && !rest.starts_with('X'))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_calls_back_may_do_so_once_also_after_a_restart() {
    let agent = HttpAgent::start().await;
    agent.answer(202, "");
    let mut door = Door::start(&config(&agent, "", "")).await;
    let id = ring(&door, "d1", "{}").await;
    let envelope = eventually("the agent was called", || async { agent.envelopes().pop() }).await;
    let token = envelope["http_headers"]["doorbell-run-token"].as_str().unwrap().to_owned();
    eventually("the call back is awaited", || async {
        // A restart before the 202 was noted would be a lost attempt: wait until it is noted.
        let run = door.api(&format!("/runs/{id}")).await;
        (run["state"] == "running").then_some(())
    })
    .await;
    tokio::task::yield_now().await;
    door.kill();
    door.launch().await;
    let complete = |token: String, body: Value| {
        let request = door.http.post(door.url(&format!("/api/v1/runs/{id}/complete"))).bearer_auth(token).json(&body);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let verdict = json!({"status": "succeeded", "output": {"answer": 42}});
    assert_eq!(complete("drt_forged".into(), verdict.clone()).await, 401);
    assert_eq!(complete(TOKEN.into(), verdict.clone()).await, 401, "the admin token is no run token");
    let latest = agent.envelopes().pop().unwrap()["http_headers"]["doorbell-run-token"].as_str().unwrap().to_owned();
    assert_eq!(complete(latest.clone(), verdict.clone()).await, 200);
    let run = door.run_ended(&id).await;
    assert_eq!((run["state"].as_str(), &run["output"]), (Some("succeeded"), &json!({"answer": 42})));
    assert_eq!(complete(latest, verdict).await, 409, "a second call back is stale");
    let _ = token;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_stop_lets_a_running_attempt_end_and_loses_nothing() {
    let script = "cat > /dev/null; touch started; while [ ! -e go ]; do sleep 0.05; done; echo done";
    let text = format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\nshutdown_grace = \"30s\"\n[agents.worker]\nrunner = \"process\"\n\
         command = [\"/bin/sh\", \"-c\", \"{script}\"]\nenv = [\"PATH\"]\n\
         [triggers.ring]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n"
    );
    let mut door = Door::start(&text).await;
    let id = ring(&door, "d1", "{}").await;
    eventually("it runs", || async { door.path().join("started").exists().then_some(()) }).await;
    let go = door.path().join("go");
    let stopped = tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        std::fs::write(go, "").unwrap();
    });
    assert_eq!(door.terminate().await, Some(0));
    stopped.await.unwrap();
    door.launch().await;
    let run = door.run_ended(&id).await;
    assert_eq!((run["state"].as_str(), run["attempt"].as_u64()), (Some("succeeded"), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_makes_a_new_run_also_for_another_agent_and_a_dry_run_makes_none() {
    let agent = HttpAgent::start().await;
    let text = format!("{}[agents.other]\nrunner = \"http\"\nurl = \"{}\"\n", config(&agent, "", ""), agent.url());
    let door = Door::start(&text).await;
    let first = ring(&door, "d1", "{\"n\":1}").await;
    let event = door.run_ended(&first).await["event_id"].as_str().unwrap().to_owned();
    let (status, plan) = door.api_post(&format!("/events/{event}/replay"), json!({"dry_run": true})).await;
    assert_eq!(status, 200, "{plan}");
    assert_eq!(door.all("/runs").await.len(), 1);
    let (status, made) = door.api_post(&format!("/events/{event}/replay"), json!({"agent": "other"})).await;
    assert!(matches!(status, 200 | 202), "{status} {made}");
    let run = eventually("the replay ended", || async {
        let runs = door.all("/runs").await;
        runs.into_iter().find(|r| r["agent"] == "other" && r["state"] == "succeeded")
    })
    .await;
    assert_ne!(run["id"], first.as_str());
    assert_eq!(run["event_id"], event.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_data_refuses_and_names_the_first() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "", "")).await;
    let mut second =
        Door::prepare(&config(&agent, "", "").replace("\"data\"", &format!("{:?}", door.path().join("data"))));
    second.spawn();
    assert_eq!(second.wait().await, Some(1));
    assert!(second.log().contains(&door.pid().to_string()), "{}", second.log());
}
