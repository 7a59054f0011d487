//! Secrets that the server keeps: stored ones, those that senders hand over, those in a path, and the key that seals them.
//! Through the real program, over restarts; and no secret in what it writes or tells.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use crate::program;
use crate::world::{Door, TOKEN, eventually};

const STORED: &str = "a-stored-secret-that-nobody-may-read";
const NEXT: &str = "the-next-stored-secret-of-the-source";
const HANDED: &str = "b537207f20cbfa02357cf448134da559";

fn config(sources: &str) -> String {
    format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n\
         [agents.a]\nrunner = \"process\"\ncommand = [\"sh\", \"-c\", \"cat >> got\"]\nenv = [\"PATH\"]\n{sources}"
    )
}

/// What a command that must work prints, on both streams.
fn told(door: &Door, args: &[&str], stdin: &str) -> String {
    let (code, said) = program::said(program::at(door, args, stdin));
    assert_eq!(code, Some(0), "{args:?}: {said}");
    said
}

fn mac(secret: &str, body: &str) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes()).as_ref())
}

async fn github(door: &Door, secret: &str, id: &str) -> u16 {
    let body = json!({ "action": id }).to_string();
    let request = door.http.post(door.url("/hooks/github")).header("content-type", "application/json");
    let request = request.header("x-github-event", "push").header("x-github-delivery", id);
    let request = request.header("x-hub-signature-256", format!("sha256={}", mac(secret, &body)));
    request.body(body).send().await.unwrap().status().as_u16()
}

async fn ready(door: &Door) -> Value {
    let answer = door.http.get(door.url("/ready")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// Every file below `dir`, as bytes.
fn bytes_below(dir: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.path().is_dir() {
            true => all.extend(bytes_below(&entry.path())),
            false => all.extend(std::fs::read(entry.path()).unwrap_or_default()),
        }
    }
    all
}

/// No secret in any file of the directory (store, log, agent's input), nor in what the API tells.
async fn nowhere(door: &Door, secrets: &[&str]) {
    let mut all = bytes_below(door.path());
    for path in ["/decisions", "/events", "/runs", "/sources", "/secrets", "/stats"] {
        all.extend(door.api(path).await.to_string().into_bytes());
    }
    for item in door.all("/decisions").await.iter().chain(&door.all("/events").await) {
        let noun = if item["id"].as_str().unwrap().starts_with("dec_") { "decisions" } else { "events" };
        all.extend(door.api(&format!("/{noun}/{}", item["id"].as_str().unwrap())).await.to_string().into_bytes());
    }
    let metrics = door.http.get(door.url("/metrics")).bearer_auth(TOKEN).send().await.unwrap().bytes().await.unwrap();
    all.extend(metrics);
    for secret in secrets {
        assert!(!all.windows(secret.len()).any(|w| w == secret.as_bytes()), "{secret} was written somewhere");
    }
}

#[tokio::test]
async fn a_stored_secret_is_set_rotated_and_removed_while_the_server_runs() {
    let sources = "[triggers.github]\nagent = \"a\"\nprovider = \"github\"\nsecret = { stored = \"github\" }\n";
    let mut door = Door::start(&config(sources)).await;
    // Without its secret the source lets nobody in, good or bad, and says so.
    assert_eq!((github(&door, STORED, "1").await, github(&door, "", "2").await), (503, 503));
    let why = ready(&door).await["sources"][0].as_str().unwrap().to_owned();
    assert!(why.contains("source `github`") && why.contains("doorbell secrets set github"), "{why}");
    assert!(door.log().contains("doorbell secrets set github"), "{}", door.log());
    eventually("the refusals are recorded", || async {
        let list = door.all("/decisions?source=github").await;
        (list.len() == 2 && list.iter().all(|d| d["code"] == "secret_missing")).then_some(())
    })
    .await;

    told(&door, &["secrets", "set", "github"], &format!("{STORED}\n"));
    assert_eq!((github(&door, STORED, "3").await, github(&door, NEXT, "4").await), (202, 401));
    assert_eq!(ready(&door).await["sources"], json!([]));
    let list = told(&door, &["secrets"], "");
    assert!(list.contains("github"), "{list}");

    // It is there after a restart, and so is a rotation under way.
    told(&door, &["secrets", "rotate", "github", "--overlap", "1h"], NEXT);
    door.kill();
    door.launch().await;
    assert_eq!((github(&door, STORED, "5").await, github(&door, NEXT, "6").await), (202, 202));
    told(&door, &["secrets", "rotate", "github", "--overlap", "0s"], &format!("{NEXT}2"));
    assert_eq!((github(&door, STORED, "7").await, github(&door, NEXT, "8").await), (401, 401));
    assert_eq!(github(&door, &format!("{NEXT}2"), "9").await, 202);

    told(&door, &["secrets", "remove", "github"], "");
    assert_eq!(github(&door, &format!("{NEXT}2"), "10").await, 503);
    let again = program::at(&door, &["secrets", "remove", "github"], "");
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(program::at(&door, &["secrets", "rotate", "github"], "x").status.code(), Some(1));
    assert_eq!(program::at(&door, &["secrets", "set", "github"], "\n").status.code(), Some(2));
    nowhere(&door, &[STORED, NEXT]).await;
}

#[tokio::test]
async fn the_secret_before_ends_with_its_overlap() {
    let sources = "[triggers.github]\nagent = \"a\"\nprovider = \"github\"\nsecret = { stored = \"github\" }\n";
    let door = Door::start(&config(sources)).await;
    told(&door, &["secrets", "set", "github"], STORED);
    assert_eq!(github(&door, STORED, "1").await, 202);
    told(&door, &["secrets", "rotate", "github", "--overlap", "2s"], NEXT);
    // The check was made anew with both, and nothing but the time changes from here.
    assert_eq!(github(&door, NEXT, "2").await, 202);
    let mut n = 2;
    let ids = std::iter::from_fn(|| {
        n += 1;
        Some(n.to_string())
    });
    let ids = std::sync::Mutex::new(ids);
    eventually("the secret before ends", || async {
        let id = ids.lock().unwrap().next().unwrap();
        (github(&door, STORED, &id).await == 401).then_some(())
    })
    .await;
    assert_eq!(github(&door, NEXT, "last").await, 202);
}

#[tokio::test]
async fn what_needs_a_stored_secret_says_where_it_comes_from() {
    let sources = "[triggers.github]\nagent = \"a\"\nprovider = \"github\"\nsecret = { stored = \"github\" }\n\
                   [triggers.asana]\nagent = \"a\"\nprovider = \"asana\"\n";
    let door = Door::start(&config(sources)).await;
    let check = told(&door, &["check"], "");
    assert!(check.contains("doorbell secrets set github") && check.contains("doorbell sources pair asana"), "{check}");
    for (trigger, why) in [("github", "not there yet"), ("asana", "has not handed over")] {
        let sent = program::at(&door, &["send", trigger], "");
        let said = String::from_utf8(sent.stderr).unwrap();
        assert!(sent.status.code() == Some(1) && said.contains(why), "{said}");
    }
    assert_eq!(door.api_post("/sources/github/pair", json!({})).await.0, 409);
    assert_eq!(door.api_post("/sources/nobody/pair", json!({})).await.0, 404);
    assert_eq!(door.api_post("/sources/asana/pair", json!({"minutes": 11})).await.0, 400);
    assert_eq!(door.api_post("/secrets", json!({"name": "Upper", "value": "x"})).await.0, 400);
}

async fn asana(door: &Door, body: &str, headers: &[(&str, &str)]) -> reqwest::Response {
    let mut request = door.http.post(door.url("/hooks/asana")).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.to_owned()).send().await.unwrap()
}

#[tokio::test]
async fn asana_hands_over_its_secret_while_the_source_is_open_and_at_no_other_time() {
    let mut door = Door::start(&config("[triggers.asana]\nagent = \"a\"\nprovider = \"asana\"\n")).await;
    let offer = [("x-hook-secret", HANDED)];
    let body = r#"{"events":[{"action":"added","resource":{"gid":"1"}}]}"#;
    assert_eq!(asana(&door, "", &offer).await.status(), 401);
    assert_eq!(asana(&door, body, &[("x-hook-signature", &mac(HANDED, body))]).await.status(), 503);

    // Open, over a restart, for one secret.
    let said = told(&door, &["sources", "pair", "asana", "--minutes", "10"], "");
    assert!(said.contains("asana takes the secret"), "{said}");
    door.kill();
    door.launch().await;
    assert!(door.api("/sources/asana").await["pairing_until"].is_string());
    let signed = [("x-hook-signature", "00"), ("x-hook-secret", HANDED)];
    assert_eq!(asana(&door, body, &signed).await.status(), 503, "a delivery is no offer");
    let answer = asana(&door, "", &offer).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["x-hook-secret"]), (200, &HANDED.parse().unwrap()));
    assert_eq!(door.api("/sources/asana").await["pairing_until"], Value::Null);

    // From then on it is the secret, also after a restart, and a stranger's is refused.
    assert_eq!(asana(&door, body, &[("x-hook-signature", &mac(HANDED, body))]).await.status(), 202);
    door.kill();
    door.launch().await;
    let body = r#"{"events":[{"action":"changed","resource":{"gid":"2"}}]}"#;
    assert_eq!(asana(&door, body, &[("x-hook-signature", &mac(HANDED, body))]).await.status(), 202);
    let stranger = "ffffffffffffffffffffffffffffffff";
    let refused = asana(&door, "", &[("x-hook-secret", stranger)]).await;
    assert!(refused.status() == 401 && !refused.headers().contains_key("x-hook-secret"));
    assert_eq!(asana(&door, body, &[("x-hook-signature", &mac(stranger, body))]).await.status(), 401);
    eventually("offers are recorded", || async {
        let all = door.all("/decisions?source=asana").await;
        let count = |code: &str| all.iter().filter(|d| d["code"] == code).count();
        (count("pairing_refused") == 2 && count("paired") == 1).then_some(())
    })
    .await;

    // A second webhook has a secret of its own; closing and forgetting.
    told(&door, &["sources", "pair", "asana", "--keep"], "");
    let second = "0123456789abcdef0123456789abcdef";
    assert_eq!(asana(&door, "", &[("x-hook-secret", second)]).await.status(), 200);
    for (n, secret) in [(3, HANDED), (4, second)] {
        let body = format!(r#"{{"events":[{{"action":"added","resource":{{"gid":"{n}"}}}}]}}"#);
        assert_eq!(asana(&door, &body, &[("x-hook-signature", &mac(secret, &body))]).await.status(), 202);
    }
    told(&door, &["sources", "pair", "asana"], "");
    told(&door, &["sources", "close-pairing", "asana"], "");
    assert_eq!(asana(&door, "", &offer).await.status(), 401);
    told(&door, &["sources", "unpair", "asana"], "");
    assert_eq!(asana(&door, body, &[("x-hook-signature", &mac(HANDED, body))]).await.status(), 503);
    nowhere(&door, &[HANDED, second, stranger]).await;
}

#[tokio::test]
async fn notion_hands_over_its_token_in_the_body() {
    let mut door = Door::start(&config("[triggers.notion]\nagent = \"a\"\nprovider = \"notion\"\n")).await;
    let token = "secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl";
    let offer = json!({ "verification_token": token }).to_string();
    let post = async |door: &Door, body: &str, signature: Option<String>| {
        let mut request = door.http.post(door.url("/hooks/notion")).header("content-type", "application/json");
        if let Some(signature) = signature {
            request = request.header("x-notion-signature", format!("sha256={signature}"));
        }
        request.body(body.to_owned()).send().await.unwrap().status().as_u16()
    };
    assert_eq!(post(&door, &offer, None).await, 401);
    told(&door, &["sources", "pair", "notion"], "");
    assert_eq!(post(&door, &offer, None).await, 200);
    assert_eq!(post(&door, &offer, None).await, 401);
    door.kill();
    door.launch().await;
    let body = json!({"id": "evt_1", "type": "page.created"}).to_string();
    assert_eq!(post(&door, &body, Some(mac(token, &body))).await, 202);
    assert_eq!(post(&door, &body, Some(mac("guess", &body))).await, 401);
    // Notion wants to see it: on this machine, for whoever may read the files.
    let shown = program::at(&door, &["sources", "reveal", "notion"], "");
    assert_eq!(String::from_utf8(shown.stdout).unwrap().trim(), token);
    assert_eq!(program::at(&door, &["sources", "reveal", "nobody"], "").status.code(), Some(1));
    nowhere(&door, &[token]).await;
}

#[tokio::test]
async fn a_store_sealed_with_another_key_refuses_to_start_and_says_which_as_a_check_does() {
    let sources = "[triggers.github]\nagent = \"a\"\nprovider = \"github\"\nsecret = { stored = \"github\" }\n";
    let mut door = Door::start(&config(sources)).await;
    told(&door, &["secrets", "set", "github"], STORED);
    let file = door.path().join("data/master.key");
    let old = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let new = "fedcba9876543210".repeat(4);
    let checked = |door: &Door, words: &[&str]| {
        let output = program::at(door, &["check"], "");
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(i32::from(!words.is_empty())), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        assert!(!said.contains(old.trim()) && !said.contains(&new), "{said}");
    };
    // Beside the running server, which goes on.
    checked(&door, &[]);
    std::fs::write(&file, &new).unwrap();
    checked(&door, &["doorbell.toml:1:1: error: server.master_key: ", "another master key", "1 of them"]);
    assert_eq!(github(&door, STORED, "0").await, 202);
    std::fs::write(&file, &old).unwrap();
    assert_eq!(door.terminate().await, Some(0));
    let mode = |mode: u32| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    let refuses = async |door: &mut Door, words: &[&str]| {
        let before = door.log().len();
        door.spawn();
        assert_eq!(door.wait().await, Some(1));
        let log = door.log()[before..].to_owned();
        assert!(words.iter().all(|word| log.contains(word)), "{words:?}: {log}");
        assert!(!log.contains(old.trim()) && !log.contains(&new), "{log}");
        checked(door, words);
    };
    std::fs::write(&file, &new).unwrap();
    refuses(&mut door, &["another master key", "1 of them"]).await;
    std::fs::remove_file(&file).unwrap();
    refuses(&mut door, &["1 sealed secret", "no master key", "backup"]).await;
    std::fs::write(&file, &old).unwrap();
    mode(0o644);
    refuses(&mut door, &["chmod 600"]).await;
    mode(0o600);

    // Rotated: the new key first, the old one beside it for one start.
    let written = std::fs::read_to_string(door.path().join("doorbell.toml")).unwrap();
    let place = door.path().join("doorbell.toml");
    let with = |keys: &str| {
        let text = written.replace("data_dir = \"data\"\n", &format!("data_dir = \"data\"\nmaster_key = {keys}\n"));
        std::fs::write(&place, text).unwrap();
    };
    std::fs::write(door.path().join("new.key"), &new).unwrap();
    std::fs::set_permissions(door.path().join("new.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    with("[{ file = \"new.key\" }, { file = \"data/master.key\" }]");
    door.launch().await;
    assert_eq!(github(&door, STORED, "1").await, 202);
    assert_eq!(door.terminate().await, Some(0));
    with("{ file = \"new.key\" }");
    door.launch().await;
    assert_eq!(github(&door, STORED, "2").await, 202);
}

#[tokio::test]
async fn a_token_in_the_path_lets_in_and_is_told_nowhere() {
    let token = "tok-0123456789abcdef0123456789abcdef";
    let sources = "[triggers.tool]\nagent = \"a\"\nauth = \"path-token\"\nsecret = { file = \"token\" }\n\
                   [triggers.other]\nagent = \"a\"\nauth = \"path-token\"\nsecret = { stored = \"other\" }\n\
                   [triggers.github]\nagent = \"a\"\nprovider = \"github\"\nsecret = { stored = \"other\" }\n";
    let mut door = Door::prepare(&config(sources));
    let file = door.path().join("token");
    std::fs::write(&file, token).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    door.launch().await;
    let other = "other-0123456789abcdef0123456789abcdef";
    told(&door, &["secrets", "set", "other"], other);
    let wrong = token.replace('0', "1");
    let (short, long) = (&token[..35], format!("{token}0"));
    let table = [
        (format!("/hooks/tool/{token}"), 202),
        (format!("/hooks/other/{other}"), 202),
        (format!("/hooks/tool/{other}"), 401),
        (format!("/hooks/other/{token}"), 401),
        (format!("/hooks/tool/{wrong}"), 401),
        (format!("/hooks/tool/{short}"), 401),
        (format!("/hooks/tool/{long}"), 401),
        ("/hooks/tool".to_owned(), 401),
        ("/hooks/tool/".to_owned(), 401),
        (format!("/hooks/tool?token={token}"), 401),
        (format!("/hooks/tool//{token}"), 404),
        (format!("/hooks/tool/{token}/"), 404),
        (format!("/hooks/tool/{token}/more"), 404),
        (format!("/hooks/tol/{token}"), 404),
        (format!("/{token}"), 404),
        // The path of a source that takes no token ends where it ends.
        (format!("/hooks/github/{other}"), 404),
    ];
    for (n, (path, status)) in table.iter().enumerate() {
        let answer = door.http.post(door.url(path)).json(&json!({ "n": n })).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), *status, "{path}");
        let headers = format!("{:?}", answer.headers());
        let said = headers + &answer.text().await.unwrap();
        assert!(![token, other, &wrong].iter().any(|t| said.contains(t)), "{path}: {said}");
    }
    assert_eq!(door.http.get(door.url(&table[0].0)).send().await.unwrap().status(), 405);
    eventually("all of them are recorded", || async {
        let all = door.all("/decisions").await;
        let count = |code: &str| all.iter().filter(|d| d["code"] == code).count();
        (count("credential_mismatch") == 5 && count("credential_missing") == 3 && count("not_found") == 6).then_some(())
    })
    .await;
    eventually("the agent has run", || async {
        std::fs::read_to_string(door.path().join("got")).ok().filter(|got| got.matches("\"n\"").count() >= 2)
    })
    .await;
    let sent = told(&door, &["send", "tool"], "");
    assert!(sent.contains("202") && !sent.contains(token), "{sent}");
    // The one place where it has to be.
    std::fs::remove_file(&file).unwrap();
    nowhere(&door, &[token, other, &wrong, short]).await;
}

#[tokio::test]
async fn a_backup_has_no_key_and_without_it_is_restored_without_its_secrets() {
    let sources = "[triggers.github]\nagent = \"a\"\nprovider = \"github\"\nsecret = { stored = \"github\" }\n";
    let mut door = Door::start(&config(sources)).await;
    told(&door, &["secrets", "set", "github"], STORED);
    assert_eq!(github(&door, STORED, "1").await, 202);
    told(&door, &["backup", "copy.db"], "");
    assert_eq!(door.terminate().await, Some(0));
    let key = std::fs::read_to_string(door.path().join("data/master.key")).unwrap();
    let copy = std::fs::read(door.path().join("copy.db")).unwrap();
    let holds = |bytes: &[u8]| copy.windows(bytes.len()).any(|w| w == bytes);
    assert!(!holds(key.trim().as_bytes()) && !holds(&hex::decode(key.trim()).unwrap()) && !holds(STORED.as_bytes()));

    // With the key it is as before.
    std::fs::rename(door.path().join("data"), door.path().join("old")).unwrap();
    told(&door, &["restore", "copy.db"], "");
    door.spawn();
    assert_eq!(door.wait().await, Some(1), "a restored store without its key does not start");
    std::fs::copy(door.path().join("old/master.key"), door.path().join("data/master.key")).unwrap();
    door.launch().await;
    assert_eq!(github(&door, STORED, "2").await, 202);
    assert_eq!(door.terminate().await, Some(0));

    // Without it everything but the secrets.
    std::fs::remove_dir_all(door.path().join("data")).unwrap();
    let said = told(&door, &["restore", "copy.db", "--without-secrets"], "");
    assert!(said.contains("Stored secrets left out: 1."), "{said}");
    door.launch().await;
    assert_eq!(github(&door, STORED, "3").await, 503);
    assert_eq!(door.all("/events").await.len(), 1);
    told(&door, &["secrets", "set", "github"], NEXT);
    assert_eq!(github(&door, NEXT, "4").await, 202);
}
