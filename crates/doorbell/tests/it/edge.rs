//! The door's edge through the real program: who may send from where, how much, and what ends a loop.

use serde_json::{Value, json};

use crate::world::{Door, HttpAgent, TOKEN, eventually, github};

fn config(agent: &HttpAgent, server_keys: &str, trigger_keys: &str) -> String {
    format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n{server_keys}\n\
         [agents.worker]\nrunner = \"http\"\nurl = \"{}\"\nretries = {{ max = 0 }}\n\
         [triggers.ring]\nagent = \"worker\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n{trigger_keys}\n",
        agent.url()
    )
}

/// What the door said: status, `Retry-After`, body.
struct Said {
    status: u16,
    retry_after: Option<u64>,
    body: Value,
}

async fn send(request: reqwest::RequestBuilder) -> Said {
    let answer = request.send().await.unwrap();
    let retry_after = answer.headers().get("retry-after").and_then(|v| v.to_str().unwrap().parse().ok());
    Said { status: answer.status().as_u16(), retry_after, body: answer.json().await.unwrap_or_default() }
}

fn delivery(door: &Door, id: &str, body: &str) -> reqwest::RequestBuilder {
    github(&door.url("/hooks/ring"), &door.http, id, "push", body.as_bytes())
}

fn forged(door: &Door) -> reqwest::RequestBuilder {
    delivery(door, "forged", "{}").header("x-hub-signature-256", "sha256=00")
}

/// The codes of the decisions, newest first, once there are as many.
async fn codes(door: &Door, count: usize) -> Vec<String> {
    eventually(&format!("{count} decisions"), || async {
        let found = door.all("/decisions").await;
        let codes: Vec<String> = found.iter().map(|d| d["code"].as_str().unwrap().to_owned()).collect();
        (codes.len() >= count).then_some(codes)
    })
    .await
}

fn with_header(request: reqwest::RequestBuilder, name: &str, value: &str) -> reqwest::RequestBuilder {
    request.header(name, value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_name_lets_in_what_it_resolves_to_and_no_header_helps() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "", "allowed_sources = [\"localhost\"]")).await;
    assert_eq!(send(delivery(&door, "d1", "{}")).await.status, 202);
    let text = config(&agent, "", "allowed_sources = [\"door.invalid\", \"192.0.2.0/24\"]");
    let door = Door::start(&text).await;
    for header in ["x-forwarded-for", "forwarded", "x-real-ip", "x-webhook-source", "origin", "host"] {
        for value in ["192.0.2.1", "door.invalid"] {
            let said = send(with_header(delivery(&door, "d1", "{}"), header, value)).await;
            assert_eq!(said.status, 403, "{header}: {value}");
        }
    }
    // Refusals are written behind.
    let seen = eventually("the refusals are recorded", || async {
        Some(door.all("/decisions").await).filter(|seen| !seen.is_empty())
    })
    .await;
    assert!(seen.iter().all(|d| d["code"] == "address_not_allowed"), "{seen:?}");
    let checks = &seen.first().unwrap()["checks"];
    assert_eq!(
        (checks[0]["wanted"].as_str(), checks[0]["seen"].as_str()),
        (Some("192.0.2.0/24, door.invalid"), Some("127.0.0.1"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_rings_nothing_that_checks_nobody() {
    let agent = HttpAgent::start().await;
    let text = config(&agent, "", "")
        .replace("provider = \"github\"\nsecret = { env = \"TEST_SECRET\" }", "auth = \"none\"")
        + "[contracts.aether.serve.door]\ntrigger = \"ring\"\npath = \"/trigger\"\n";
    let door = Door::start(&text).await;
    for path in ["/hooks/ring", "/trigger"] {
        for origin in ["http://evil.example", "null"] {
            let said = send(door.http.post(door.url(path)).header("origin", origin).body("{}")).await;
            assert_eq!(said.status, 403, "{path} {origin}");
        }
    }
    let told = eventually("the noes are recorded", || async {
        Some(door.all("/decisions").await).filter(|seen| seen.len() == 4)
    })
    .await;
    assert!(told.iter().all(|d| d["reason"].as_str().unwrap().contains("a page of another site")), "{told:?}");
    let own = door.http.post(door.url("/hooks/ring")).header("origin", "http://localhost:3000").body("{\"n\":1}");
    assert_eq!(send(own).await.status, 200, "the contract has it wait for the run");
    assert_eq!(send(door.http.post(door.url("/hooks/ring")).body("{\"n\":2}")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_signs_another_url_is_told_which_one_was_checked() {
    let agent = HttpAgent::start().await;
    let text = config(&agent, "public_url = \"https://door.example.com\"", "").replace("\"github\"", "\"twilio\"");
    let door = Door::start(&text).await;
    let request = door
        .http
        .post(door.url("/hooks/ring?token=hidden"))
        .header("x-twilio-signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let said = send(request.header("content-type", "application/x-www-form-urlencoded").body("A=1")).await;
    assert_eq!(said.status, 401);
    let told = eventually("it is recorded", || async { door.all("/decisions").await.into_iter().next() }).await;
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("`https://door.example.com/hooks/ring` (server.public_url)"), "{told}");
    assert!(!told.to_string().contains("hidden"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_answers_429_with_the_seconds_to_wait_and_is_recorded() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "", "rate_limit = \"2/h\"")).await;
    for id in ["d1", "d2"] {
        assert_eq!(send(delivery(&door, id, &format!("{{\"n\":\"{id}\"}}"))).await.status, 202);
    }
    let said = send(delivery(&door, "d3", "{\"n\":3}")).await;
    assert_eq!((said.status, said.body["code"].as_str()), (429, Some("rate_limited")));
    assert!((1790..=1800).contains(&said.retry_after.unwrap()), "{:?}", said.retry_after);
    // Nobody without the secret uses the share up, and nobody learns of it.
    assert_eq!(send(forged(&door)).await.status, 401);
    let codes = codes(&door, 4).await;
    assert!(codes.contains(&"rate_limited".to_owned()), "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_and_the_whole_server_have_limits_of_their_own() {
    let agent = HttpAgent::start().await;
    let keys = "rate_limit_per_address = \"1/h\"";
    let server = "rate_limit = \"3/h\"\ntrusted_proxies = [\"127.0.0.1\"]";
    let door = Door::start(&config(&agent, server, keys)).await;
    let from =
        |ip: &str, id: &str| with_header(delivery(&door, id, &format!("{{\"n\":\"{id}\"}}")), "x-forwarded-for", ip);
    assert_eq!(send(from("192.0.2.1", "a1")).await.status, 202);
    for n in 0..5 {
        assert_eq!(send(from("192.0.2.1", &format!("b{n}"))).await.status, 429);
    }
    // What the first address was refused has taken nothing of the server's share.
    assert_eq!(send(from("192.0.2.2", "a2")).await.status, 202);
    assert_eq!(send(from("2001:db8::1", "a3")).await.status, 202);
    let said = send(from("192.0.2.4", "a4")).await;
    assert_eq!((said.status, said.retry_after.is_some()), (429, true));
    let codes = codes(&door, 9).await;
    assert_eq!(codes.iter().filter(|c| *c == "address_rate_limited").count(), 5, "{codes:?}");
    assert_eq!(codes.iter().filter(|c| *c == "server_rate_limited").count(), 1, "{codes:?}");
}

/// OpenClaw's GHSA-6rmx-gvvg-vh6j: a limit on failures that everybody behind one address shares locked the real sender out.
#[tokio::test(flavor = "multi_thread")]
async fn failed_checks_are_limited_and_a_good_signature_from_the_same_address_always_passes() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "", "failed_auth_limit = \"3/h\"")).await;
    for _ in 0..3 {
        assert_eq!(send(forged(&door)).await.status, 401);
    }
    for n in 0..20 {
        let said = send(forged(&door)).await;
        assert_eq!((said.status, said.retry_after.is_some()), (429, true));
        assert_eq!(send(delivery(&door, &format!("d{n}"), &format!("{{\"n\":{n}}}"))).await.status, 202);
    }
    // Of a series of them the first is recorded; the others are only counted.
    let codes = codes(&door, 24).await;
    let count = |code: &str| codes.iter().filter(|c| *c == code).count();
    let seen =
        (count("signature_malformed") + count("signature_mismatch"), count("failed_auth_limited"), count("accepted"));
    assert_eq!(seen, (3, 1, 20), "{codes:?}");
    let metrics = door.http.get(door.url("/metrics")).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|l| l.starts_with("doorbell_rejects_total") && l.contains("failed_auth_limited"));
    assert!(line.is_some_and(|l| l.ends_with(" 20")), "{line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_gives_nobody_a_fresh_share() {
    let agent = HttpAgent::start().await;
    let text = config(&agent, "", "rate_limit = \"1/h\"");
    let door = Door::start(&text).await;
    assert_eq!(send(delivery(&door, "d1", "{}")).await.status, 202);
    let more = format!("{text}\n[triggers.other]\nsource = \"ring\"\nagent = \"worker\"\n")
        .replace("{addr}", &door.addr.to_string());
    // A trigger with a source of its own name cannot share it, so the source is written out.
    let more = more.replace("[triggers.ring]\nagent = \"worker\"\n", "[sources.ring]\n");
    std::fs::write(door.path().join("doorbell.toml"), more).unwrap();
    eventually("the new file is taken", || async {
        let found = door.http.get(door.url("/api/v1/triggers/other")).bearer_auth(TOKEN).send().await.unwrap();
        (found.status() == 200).then_some(())
    })
    .await;
    assert_eq!(send(delivery(&door, "d2", "{\"n\":2}")).await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn hops_are_handed_on_and_capped() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "max_hops = 2", "")).await;
    let said = send(with_header(delivery(&door, "d1", "{}"), "doorbell-hops", "2")).await;
    assert_eq!(said.status, 202);
    door.run_ended(said.body["run_id"].as_str().unwrap()).await;
    let told = agent.envelopes().remove(0);
    assert_eq!((told["run"]["hops"].as_u64(), told["http_headers"]["doorbell-hops"].as_str()), (Some(3), Some("3")));
    for over in ["3", "many"] {
        let said = send(with_header(delivery(&door, "d2", "{\"n\":2}"), "doorbell-hops", over)).await;
        assert_eq!((said.status, said.body["code"].as_str()), (508, Some("too_many_hops")), "{over}");
    }
    let event = json!({"source": "ring", "type": "x", "data": {}});
    let request = door.http.post(door.url("/api/v1/events")).bearer_auth(TOKEN).json(&event);
    assert_eq!(send(with_header(request, "doorbell-hops", "3")).await.status, 508);
    let codes = codes(&door, 4).await;
    assert_eq!(codes.iter().filter(|c| *c == "too_many_hops").count(), 3, "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_own_actor_did_starts_nothing() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "", "ignore_actors = [\"helper[bot]\"]")).await;
    let by = |actor: &str, id: &str| delivery(&door, id, &json!({"sender": {"login": actor}}).to_string());
    let said = send(by("helper[bot]", "d1")).await;
    assert_eq!(
        (said.status, said.body["status"].as_str(), said.body["reason"].as_str()),
        (200, Some("ignored"), Some("own_actor"))
    );
    for (n, other) in ["helper", "not-helper[bot]", "HELPER[bot]"].iter().enumerate() {
        assert_eq!(send(by(other, &format!("o{n}"))).await.status, 202, "{other}");
    }
    let event = door.api(&format!("/events/{}", said.body["event_id"].as_str().unwrap())).await;
    assert!(event["reason"].as_str().unwrap().contains("ignore_actors"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_in_one_lane_is_capped_and_the_others_go_on() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "", "key = \"{{ data.lane }}\"\nstorm_cap = \"2/h\"")).await;
    let ring = |lane: &str, n: u32| delivery(&door, &format!("{lane}{n}"), &json!({"lane": lane, "n": n}).to_string());
    assert_eq!(send(ring("a", 1)).await.status, 202);
    // A redelivery starts no run, so it takes nothing.
    for _ in 0..5 {
        assert_eq!(send(ring("a", 1)).await.body["status"], "duplicate");
    }
    assert_eq!(send(ring("a", 2)).await.status, 202);
    let said = send(ring("a", 3)).await;
    assert_eq!((said.status, said.body["reason"].as_str()), (200, Some("storm")));
    assert_eq!(send(ring("b", 1)).await.status, 202);
    // Nothing is lost: the event is there, and a person may replay it.
    let event = said.body["event_id"].as_str().unwrap();
    let (status, replayed) = door.api_post(&format!("/events/{event}/replay"), json!({})).await;
    assert!((200..300).contains(&status), "{status} {replayed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_keeps_failing_is_left_alone_and_one_run_finds_out_when_it_works_again() {
    let agent = HttpAgent::start().await;
    agent.answer(500, "no");
    let text = config(&agent, "ready_includes_breakers = true", "");
    let text =
        text.replace("retries = { max = 0 }", "retries = { max = 0 }\nbreaker = { failures = 2, reset = \"5s\" }");
    let mut door = Door::start(&text).await;
    let ring = |n: u32| send(delivery(&door, &format!("d{n}"), &format!("{{\"n\":{n}}}")));
    for n in 0..2 {
        let run = ring(n).await.body["run_id"].as_str().unwrap().to_owned();
        assert_eq!(door.run_ended(&run).await["state"], "failed");
    }
    // A good event is taken all the same; its run is held.
    let mut held = Vec::new();
    for n in 2..5 {
        let said = ring(n).await;
        assert_eq!(said.status, 202);
        held.push(said.body["run_id"].as_str().unwrap().to_owned());
    }
    // One of them may have been let go by now on a slow machine; then it failed, and the breaker is open again.
    let last = door.api(&format!("/runs/{}", held[2])).await;
    assert_eq!(last["held_by"], "breaker", "{last}");
    let shown = door.api("/agents/worker").await;
    assert_eq!(shown["breaker"]["state"], "open", "{shown}");
    assert!(shown["breaker"]["failures"].as_u64() >= Some(2) && shown["breaker"]["until"].is_string(), "{shown}");
    let ready = door.http.get(door.url("/ready")).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.unwrap().contains("agent `worker` keeps failing"));
    // Open also after a restart: nothing is run that the breaker held, until one run is let go to see.
    door.kill();
    agent.answer(200, "{}");
    let before = agent.calls().len();
    door.spawn();
    eventually("the program is up", || async { door.http.get(door.url("/health")).send().await.ok() }).await;
    for run in &held[1..] {
        assert_eq!(door.run_ended(run).await["state"], "succeeded");
    }
    assert!(agent.calls().len() > before);
    assert_eq!(door.api("/agents/worker").await["breaker"]["state"], "closed");
    assert_eq!(door.http.get(door.url("/ready")).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_let_go_and_will_call_back_holds_no_other() {
    let agent = HttpAgent::start().await;
    agent.answer(500, "no");
    let keys = "retries = { max = 0 }\nconcurrency = 8\nbreaker = { failures = 1, reset = \"1s\" }";
    let door = Door::start(&config(&agent, "", "").replace("retries = { max = 0 }", keys)).await;
    let ring = |n: u32| send(delivery(&door, &format!("d{n}"), &format!("{{\"n\":{n}}}")));
    let first = ring(0).await.body["run_id"].as_str().unwrap().to_owned();
    assert_eq!(door.run_ended(&first).await["state"], "failed");
    agent.answer(202, "");
    for n in 1..4 {
        assert_eq!(ring(n).await.status, 202);
    }
    eventually("all of them to be handed over", || async { (agent.calls().len() == 4).then_some(()) }).await;
    assert_eq!(door.api("/agents/worker").await["breaker"]["state"], "half_open", "nobody has said yet that it works");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_breaker_answers_503_where_a_trigger_rejects_and_a_person_closes_it() {
    let agent = HttpAgent::start().await;
    agent.answer(500, "no");
    let text = config(&agent, "", "when_full = \"reject\"");
    let text =
        text.replace("retries = { max = 0 }", "retries = { max = 0 }\nbreaker = { failures = 1, reset = \"1h\" }");
    let mut door = Door::start(&text).await;
    let run = send(delivery(&door, "d0", "{}")).await.body["run_id"].as_str().unwrap().to_owned();
    assert_eq!(door.run_ended(&run).await["state"], "failed");
    let refused = |n: u32| send(delivery(&door, &format!("d{n}"), &format!("{{\"n\":{n}}}")));
    let said = refused(1).await;
    assert_eq!((said.status, said.body["code"].as_str()), (503, Some("unavailable")));
    assert!((3590..=3600).contains(&said.retry_after.unwrap()), "{:?}", said.retry_after);
    assert!(codes(&door, 2).await.contains(&"breaker_open".to_owned()));
    door.kill();
    door.launch().await;
    assert_eq!(send(delivery(&door, "d2", "{\"n\":2}")).await.status, 503, "an open breaker survives a crash");
    agent.answer(200, "{}");
    assert_eq!(door.api_post("/agents/worker/resume", json!({})).await.0, 200);
    let said = send(delivery(&door, "d3", "{\"n\":3}")).await;
    assert_eq!(said.status, 202);
    assert_eq!(door.run_ended(said.body["run_id"].as_str().unwrap()).await["state"], "succeeded");
}

async fn with_key(door: &Door, method: &str, path: &str, key: &str, body: Value) -> (u16, Value) {
    let request = door.http.request(method.parse().unwrap(), door.url(&format!("/api/v1{path}"))).bearer_auth(key);
    let request = if method == "POST" { request.json(&body) } else { request };
    let said = send(request).await;
    (said.status, said.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_its_agents_things_and_no_more() {
    let agent = HttpAgent::start().await;
    let text = config(&agent, "", "");
    let text = format!(
        "{text}\n[agents.other]\nrunner = \"http\"\nurl = \"{}\"\n[sources.direct]\nkind = \"event\"\n\
         [triggers.direct-other]\nsource = \"direct\"\nagent = \"other\"\n[sources.own]\nkind = \"event\"\n\
         [triggers.own-worker]\nsource = \"own\"\nagent = \"worker\"\n",
        agent.url()
    );
    let door = Door::start(&text).await;
    let mine = send(delivery(&door, "d1", "{}")).await.body["run_id"].as_str().unwrap().to_owned();
    let put = json!({"source": "direct", "type": "x"});
    let theirs = door.api_post("/events", put.clone()).await.1["run_id"].as_str().unwrap().to_owned();
    let new = json!({"name": "ci", "agent": "worker", "scopes": ["read", "send"]});
    let (status, made) = door.api_post("/keys", new.clone()).await;
    assert_eq!((status, made["scopes"].clone()), (201, json!(["read", "send"])), "{made}");
    let key = made["key"].as_str().unwrap();
    let ask = async |method: &str, path: &str| with_key(&door, method, path, key, json!({})).await;
    assert_eq!(ask("GET", "/agents/worker").await.0, 200);
    assert_eq!(ask("GET", &format!("/runs/{mine}")).await.0, 200);
    assert_eq!(ask("GET", "/triggers/ring").await.0, 200);
    // The other agent's things are as if they were not there; lists are cut down, and cannot be widened.
    for hidden in [
        "/agents/other".to_owned(),
        format!("/runs/{theirs}"),
        format!("/runs/{theirs}/log"),
        "/triggers/direct-other".into(),
    ] {
        assert_eq!(ask("GET", &hidden).await.0, 404, "{hidden}");
    }
    let (status, runs) = ask("GET", "/runs?limit=10").await;
    assert_eq!(
        (status, runs["items"].as_array().unwrap().len(), runs["items"][0]["id"].as_str()),
        (200, 1, Some(&*mine))
    );
    for wider in ["/runs?agent=other", "/runs?agent=worker&agent=other", "/runs?%61gent=other"] {
        assert!(ask("GET", wider).await.0 >= 400, "{wider}");
    }
    for house in ["/agents", "/sources", "/events", "/decisions", "/stats", "/keys"] {
        assert_eq!(ask("GET", house).await.0, 403, "{house}");
    }
    // What it has no scope for.
    for operate in ["/agents/worker/pause".to_owned(), "/triggers/ring/disable".into(), format!("/runs/{mine}/retry")] {
        assert_eq!(ask("POST", &operate).await.0, 403, "{operate}");
    }
    for admin in ["/keys".to_owned(), format!("/keys/{}/rotate", made["id"].as_str().unwrap())] {
        assert_eq!(with_key(&door, "POST", &admin, key, new.clone()).await.0, 403, "{admin}");
    }
    // It rings its own agent and nobody else.
    assert_eq!(with_key(&door, "POST", "/events", key, put).await.0, 404);
    assert_eq!(with_key(&door, "POST", "/events", key, json!({"source": "own", "type": "x"})).await.0, 202);
    assert_eq!(
        door.http
            .get(door.url("/metrics"))
            .bearer_auth(key)
            .header("x-forwarded-for", "192.0.2.1")
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_kept_as_a_hash_rotated_with_an_overlap_and_revoked_at_once() {
    let agent = HttpAgent::start().await;
    let mut door = Door::start(&config(&agent, "", "")).await;
    let new = json!({"name": "ci", "scopes": ["read"]});
    let made = door.api_post("/keys", new.clone()).await.1;
    assert_eq!(door.api_post("/keys", new).await.0, 409);
    let (id, first) = (made["id"].as_str().unwrap().to_owned(), made["key"].as_str().unwrap().to_owned());
    let opens = async |door: &Door, key: &str| with_key(door, "GET", "/stats", key, Value::Null).await.0;
    assert_eq!(opens(&door, &first).await, 200);
    for wrong in [&first[..first.len() - 1], "dbk_abcdefghijkm_x", "", "dbk_"] {
        assert_eq!(opens(&door, wrong).await, 401, "{wrong}");
    }
    let rotate = json!({"overlap_seconds": 3600});
    let second = door.api_post(&format!("/keys/{id}/rotate"), rotate).await.1["key"].as_str().unwrap().to_owned();
    assert_eq!((opens(&door, &first).await, opens(&door, &second).await), (200, 200));
    let third = door.api_post(&format!("/keys/{id}/rotate"), json!({"overlap_seconds": 0})).await.1["key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!((opens(&door, &first).await, opens(&door, &second).await, opens(&door, &third).await), (401, 401, 200));
    eventually("its use is noted", || async {
        door.api(&format!("/keys/{id}")).await["last_used_at"].is_string().then_some(())
    })
    .await;
    // Neither the list nor the disk holds a key.
    let listed = door.api("/keys").await.to_string();
    door.kill();
    for file in std::fs::read_dir(door.path().join("data")).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file())
    {
        let bytes = std::fs::read(&file).unwrap();
        for key in [&first, &second, &third] {
            let secret = &key.as_bytes()[17..];
            assert!(!bytes.windows(secret.len()).any(|w| w == secret), "a key stands in {}", file.display());
            assert!(!listed.contains(&key[17..]));
        }
    }
    door.launch().await;
    assert_eq!(opens(&door, &third).await, 200);
    assert_eq!(door.api_post(&format!("/keys/{id}/revoke"), json!({})).await.0, 200);
    assert_eq!(opens(&door, &third).await, 401);
    assert_eq!(door.api_post(&format!("/keys/{id}/revoke"), json!({})).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_on_the_command_line_and_the_key_alone_is_printed() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent, "", "")).await;
    let doorbell = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_doorbell"));
        command.args(args).env("DOORBELL_URL", door.url("")).env("DOORBELL_ADMIN_TOKEN", TOKEN);
        let output = command.current_dir(door.path()).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        said
    };
    let key = doorbell(&["keys", "create", "ci", "--agent", "worker", "--scope", "read,operate", "--expires", "30d"]);
    let key = key.trim();
    assert!(key.starts_with("dbk_") && !key.contains(char::is_whitespace), "{key}");
    assert_eq!(with_key(&door, "POST", "/agents/worker/pause", key, json!({})).await.0, 200);
    let list = doorbell(&["keys", "list", "--json"]);
    let shown: Value = serde_json::from_str(list.lines().next().unwrap()).unwrap();
    assert_eq!((shown["name"].as_str(), shown["scopes"].clone()), (Some("ci"), json!(["read", "operate"])));
    let id = shown["id"].as_str().unwrap();
    let rotated = doorbell(&["keys", "rotate", id, "--overlap", "0s"]);
    assert_eq!(with_key(&door, "GET", "/agents/worker", key, Value::Null).await.0, 401);
    assert_eq!(with_key(&door, "GET", "/agents/worker", rotated.trim(), Value::Null).await.0, 200);
    assert!(doorbell(&["keys", "show", id]).contains("ci"));
    doorbell(&["keys", "revoke", id]);
    assert_eq!(with_key(&door, "GET", "/agents/worker", rotated.trim(), Value::Null).await.0, 401);
}
