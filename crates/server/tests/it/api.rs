//! Who may use the API, and what it says of agents, sources, triggers, runs and decisions.

use std::time::Duration;

use doorbell_core::Secret;
use doorbell_server::Options;
use serde_json::{Value, json};

use crate::world::{TOKEN, World, short, until};

#[tokio::test]
async fn nothing_but_health_and_documents_opens_without_the_token() {
    let world = World::new().await;
    let good = format!("Bearer {TOKEN}");
    let cases: &[(&[(&str, &str)], bool)] = &[
        (&[], false),
        (&[("authorization", "Bearer wrong")], false),
        (&[("authorization", "Bearer ")], false),
        (&[("authorization", "Bearer test-token-and-more")], false),
        (&[("authorization", "Bearer test-toke")], false),
        (&[("authorization", "Basic dGVzdC10b2tlbg==")], false),
        (&[("authorization", TOKEN)], false),
        (&[("authorization", &good), ("authorization", "Bearer other")], false),
        (&[("cookie", "token=test-token")], false),
        (&[("authorization", &good)], true),
        (&[("authorization", "bearer test-token")], true),
    ];
    for path in [
        "/agents",
        "/runs",
        "/runs/x/log",
        "/events",
        "/decisions",
        "/stats",
        "/no-such-call",
        "/agents?token=test-token",
    ] {
        for (headers, open) in cases {
            let answer = world.call("GET", &format!("/api/v1{path}"), headers, "").await;
            // After so many of them the answer is 429, which opens nothing either.
            let said = answer.status;
            assert_eq!(!matches!(said, 401 | 429), *open, "{path} {headers:?} {said}");
            if !open {
                assert_eq!(answer.header("content-type"), Some("application/problem+json"));
                let code = answer.json()["code"].as_str().unwrap().to_owned();
                assert_eq!((said == 401, code == "unauthorized"), (code != "failed_auth_limited", said == 401));
            }
        }
    }
    for (method, path) in [("POST", "/agents/script/pause"), ("POST", "/events"), ("POST", "/runs/x/cancel")] {
        assert!(matches!(world.call(method, &format!("/api/v1{path}"), &[], "").await.status, 401 | 429));
    }
    for path in ["/health", "/ready", "/openapi.json", "/docs", "/docs/page.js", "/docs/page.css", "/metrics"] {
        assert_eq!(world.call("GET", path, &[], "").await.status, 200, "{path}");
    }
    for header in [("x-forwarded-for", "127.0.0.1"), ("origin", "https://evil.example"), ("host", "evil.example")] {
        let answer = world.call("GET", "/metrics", &[header], "").await;
        assert!(matches!(answer.status, 401 | 429), "loopback for somebody else is not loopback: {header:?}");
    }
}

#[tokio::test]
async fn an_empty_token_opens_nothing() {
    let world = World::with(Options { ..Options::new(Secret::new("")) }).await;
    for value in ["Bearer ", "Bearer", "Bearer  "] {
        assert_eq!(world.call("GET", "/api/v1/runs", &[("authorization", value)], "").await.status, 401);
    }
}

#[tokio::test]
async fn wrong_questions_are_named() {
    let world = World::new().await;
    for (path, status, word) in [
        ("/runs?agnet=x", 400, "agnet"),
        ("/runs?state=done", 400, "state"),
        ("/runs?limit=0", 400, "limit"),
        ("/runs?cursor=zzz", 400, "cursor"),
        ("/runs?since=now", 400, "since"),
        ("/runs?event=run_x", 400, "event"),
        ("/events?decision=maybe", 400, "decision"),
        ("/decisions?kind=maybe", 400, "kind"),
        ("/stats?x=1", 400, "x"),
        ("/agents/none", 404, "none"),
        ("/agents/NONE", 404, "NONE"),
        ("/runs/run_1", 404, "run_1"),
        ("/runs/run_000000000zzzzzzzzz", 404, "run"),
        ("/events/evt_0000000001zzzzzzzz", 404, "event"),
        ("/nothing", 404, "/nothing"),
    ] {
        let answer = world.api("GET", path, "").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        let problem = answer.json();
        assert!(problem["detail"].as_str().unwrap().contains(word), "{path}: {problem}");
        assert_eq!(problem["retry"], false);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    assert_eq!(world.api("DELETE", "/runs", "").await.status, 405);
}

#[tokio::test]
async fn cursors_walk_a_list_to_its_end_and_back_while_it_grows() {
    let world = World::new().await;
    for i in 0..7 {
        world.call("POST", "/hooks/open", &[], &format!("event {i}")).await;
    }
    for noun in ["runs", "events", "decisions"] {
        let all = world.get(&format!("/{noun}?limit=500")).await;
        let ids = |page: &Value| -> Vec<String> {
            page["items"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect()
        };
        let all = ids(&all);
        assert!(all.windows(2).all(|w| w[0] > w[1]), "newest first");
        let mut page = world.get(&format!("/{noun}?limit=3")).await;
        let first = ids(&page);
        let mut seen = first.clone();
        let mut second = None;
        while let Some(next) = page["next"].as_str() {
            page = world.get(&format!("/{noun}?limit=3&cursor={next}")).await;
            second.get_or_insert(page.clone());
            seen.extend(ids(&page));
        }
        assert_eq!(seen, all, "{noun}");
        let back = second.unwrap()["prev"].as_str().unwrap().to_owned();
        assert_eq!(ids(&world.get(&format!("/{noun}?limit=3&cursor={back}")).await), first, "{noun}");
        world.call("POST", "/hooks/open", &[], &format!("one more {noun}")).await;
    }
}

#[tokio::test]
async fn runs_are_found_by_what_they_are() {
    let world = World::new().await;
    world.deliver("github", "a", "push", r#"{"n":2}"#).await;
    world.api("POST", "/events", r#"{"source":"direct","type":"note","data":1}"#).await;
    for (query, expected) in [
        ("", 3),
        ("?agent=script", 3),
        ("?agent=other", 0),
        ("?trigger=github", 1),
        ("?trigger=github,github-1", 2),
        ("?trigger_kind=webhook", 2),
        ("?trigger_kind=event", 1),
        ("?trigger_kind=event&trigger=github", 0),
        ("?trigger_kind=schedule", 0),
        ("?state=queued", 3),
        ("?state=running,failed", 0),
        ("?event_type=push", 2),
        ("?since=2000-01-01T00:00:00Z", 3),
        ("?until=2000-01-01T00:00:00Z", 0),
    ] {
        let found = world.get(&format!("/runs{query}")).await;
        assert_eq!(found["items"].as_array().unwrap().len(), expected, "{query}: {found}");
    }
}

#[tokio::test]
async fn a_run_tells_what_holds_it() {
    let world = World::new().await;
    let run = world.call("POST", "/hooks/open", &[], "x").await.json()["run_id"].as_str().unwrap().to_owned();
    let held = || async { world.get(&format!("/runs/{run}")).await["held_by"].clone() };
    assert_eq!(held().await, "concurrency");
    let paused = world.api("POST", "/agents/script/pause", "").await;
    assert_eq!((paused.status, &paused.json()["paused"]), (200, &json!(true)));
    assert_eq!(held().await, "agent_paused");
    assert_eq!(world.api("POST", "/agents/script/resume", "").await.json()["paused"], false);
    assert_eq!(held().await, "concurrency");
    world.house.swap_catalog(doorbell_core::house::Catalog::default());
    assert_eq!(held().await, "agent_missing");
    let shown = world.get(&format!("/runs/{run}")).await;
    assert_eq!(shown["trigger_kind"], Value::Null);
    for field in [
        "id",
        "title",
        "agent",
        "source",
        "trigger",
        "event_id",
        "key",
        "lane",
        "state",
        "attempt",
        "created_at",
        "due_at",
        "started_at",
        "finished_at",
        "transitions",
        "output",
        "error",
        "steps",
        "usage",
        "pending_approvals",
    ] {
        assert!(shown.get(field).is_some(), "{field} is missing: {shown}");
    }
}

#[tokio::test]
async fn a_disabled_trigger_closes_its_door() {
    let world = World::new().await;
    assert_eq!(world.api("POST", "/triggers/open/disable", "").await.json()["enabled"], false);
    assert_eq!(world.call("POST", "/hooks/open", &[], "x").await.status, 404);
    assert_eq!(world.get("/sources/open").await["enabled"], false);
    assert_eq!(world.api("POST", "/triggers/open/enable", "").await.json()["enabled"], true);
    assert_eq!(world.call("POST", "/hooks/open", &[], "x").await.status, 202);
}

#[tokio::test]
async fn runs_are_cancelled_and_retried() {
    let world = World::new().await;
    let run = world.call("POST", "/hooks/open", &[], "x").await.json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(world.api("POST", &format!("/runs/{run}/retry"), "").await.status, 409, "it is queued already");
    let cancelled = world.api("POST", &format!("/runs/{run}/cancel"), "").await;
    assert_eq!((cancelled.status, &cancelled.json()["state"]), (200, &json!("cancelled")));
    let retried = world.api("POST", &format!("/runs/{run}/retry"), "").await;
    assert_eq!((retried.status, &retried.json()["state"]), (200, &json!("queued")));
    let worker = world.work().await;
    let done = world.until_state(&run, "succeeded").await;
    assert_eq!(done["output"], json!({"answer": 42}));
    assert!(done["finished_at"].is_string());
    assert_eq!(world.api("POST", &format!("/runs/{run}/cancel"), "").await.status, 409);
    worker.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn an_agent_calls_back_with_its_own_token_and_only_once() {
    let world = World::new().await;
    let worker = world.work().await;
    let event = r#"{"source":"direct","type":"later"}"#;
    let run = world.api("POST", "/events", event).await.json()["run_id"].as_str().unwrap().to_owned();
    let token = until(|| async { world.script.tokens.lock().unwrap().pop() }).await;
    let complete = |token: String, body: &'static str| {
        let (world, path) = (&world, format!("/api/v1/runs/{run}/complete"));
        async move { world.call("POST", &path, &[("authorization", &format!("Bearer {token}"))], body).await }
    };
    let verdict = r#"{"doorbell":{"status":"succeeded","output":"done","steps":2}}"#;
    assert_eq!(complete(TOKEN.to_owned(), verdict).await.status, 401, "the admin token speaks for no run");
    assert_eq!(complete(format!("{token}x"), verdict).await.status, 401);
    assert_eq!(complete(token.clone(), "hello").await.status, 400);
    let done = complete(token.clone(), verdict).await;
    assert_eq!((done.status, &done.json()["state"]), (200, &json!("succeeded")), "{}", done.body);
    assert_eq!(world.get(&format!("/runs/{run}")).await["output"], "done");
    let late = complete(token, verdict).await;
    assert_eq!((late.status, &late.json()["code"]), (409, &json!("conflict")));
    worker.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_decision_says_what_was_checked() {
    let world = World::new().await;
    world.call("POST", "/hooks/github", &[("x-github-event", "push")], "{}").await;
    world.deliver("github", "d", "push", r#"{"n":2}"#).await;
    let rejected = &world.get("/decisions?kind=rejected").await["items"][0];
    assert_eq!((&rejected["source"], &rejected["remote"]), (&json!("github"), &json!("127.0.0.1")));
    assert_eq!(rejected["checks"][0]["name"], "signature");
    assert_eq!(rejected["checks"][0]["passed"], false);
    let text = world.get("/decisions").await.to_string();
    assert!(!text.contains(crate::world::SECRET), "{text}");
    let accepted = &world.get("/decisions?kind=accepted&source=github").await["items"][0];
    let event = accepted["event_id"].as_str().unwrap();
    assert_eq!(world.get(&format!("/decisions?event={event}")).await["items"][0]["id"], accepted["id"]);
}

#[tokio::test]
async fn catalogs_are_listed_by_name_without_secrets() {
    let world = World::new().await;
    let agents = world.get("/agents?limit=1").await;
    assert_eq!(agents["items"][0]["name"], "other");
    let next = agents["next"].as_str().unwrap();
    assert_eq!(world.get(&format!("/agents?limit=1&cursor={next}")).await["items"][0]["name"], "script");
    assert_eq!(world.get("/sources?q=git").await["items"][0]["path"], "/hooks/github");
    assert_eq!(world.get("/triggers?source=github").await["items"].as_array().unwrap().len(), 2);
    assert_eq!(world.get("/triggers/github").await["settings"]["filter"], "data.n > 1");
    let stats = world.get("/stats").await;
    assert_eq!(stats["queued"], 0);
    let mut options = short();
    options.version = "x".into();
    assert!(!format!("{options:?}").contains(TOKEN));
}

#[tokio::test]
async fn tokens_that_open_nothing_are_limited_and_a_good_one_among_them_is_let_in() {
    let world = World::new().await;
    let made = serde_json::json!({ "name": "reader", "scopes": ["read"] }).to_string();
    let json = ("content-type", "application/json");
    let admin = format!("Bearer {TOKEN}");
    let made = world.call("POST", "/api/v1/keys", &[("authorization", &admin), json], &made).await;
    let made: Value = serde_json::from_str(&made.body).unwrap();
    let good = format!("Bearer {}", made["key"].as_str().unwrap());
    let with = |token: &str| {
        let token = token.to_owned();
        let world = &world;
        async move { world.call("GET", "/api/v1/runs", &[("authorization", &token)], "").await }
    };
    assert_eq!(with(&good).await.status, 200, "{made}");
    // The form of a key, and not a key: each is looked up.
    let (head, tail) = good.split_at(good.len() - 4);
    let bad = format!("{head}{}", tail.chars().rev().map(|c| if c == 'x' { 'y' } else { 'x' }).collect::<String>());
    let mut said = Vec::new();
    for _ in 0..40 {
        let answer = with(&bad).await;
        said.push(answer.status);
        if answer.status == 429 {
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=2).contains(&seconds), "{seconds}");
        }
        assert_eq!(with(&good).await.status, 200);
        assert_eq!(with(&admin).await.status, 200);
    }
    let first = said.iter().position(|status| *status == 429).unwrap();
    assert!(first >= 30 && said[..first].iter().all(|status| *status == 401), "{said:?}");
    assert_eq!(with("Bearer x").await.status, 429, "of whatever form");
}
