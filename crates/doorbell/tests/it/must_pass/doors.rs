//! What is open to whom: secrets, keys, limits, paths, names. Used by `must_pass`.

use serde_json::{Value, json};

use super::{config, delivery, hmac, said};
use crate::world::{Door, HttpAgent, SECRET, TOKEN, eventually, github};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_open_without_its_key_and_nothing_secret_is_logged() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    for path in
        ["/api/v1/events", "/api/v1/runs", "/api/v1/decisions", "/api/v1/sources", "/api/v1/keys", "/api/v1/stats"]
    {
        assert_eq!(door.http.get(door.url(path)).send().await.unwrap().status(), 401, "{path}");
        let guess = door.http.get(door.url(path)).bearer_auth("").send().await.unwrap();
        assert_eq!(guess.status(), 401, "{path}");
    }
    let hidden = "tok-in-a-url-tok-in-a-url";
    let request = github(&door.url(&format!("/hooks/nowhere?token={hidden}")), &door.http, "d", "push", b"{}");
    assert_eq!(said(request).await.0, 404);
    let request = delivery(&door, "d", "{}").query(&[("token", hidden)]).header("x-hub-signature-256", "sha256=00");
    assert_eq!(said(request).await.0, 401);
    let decisions =
        eventually("both are recorded", || async { Some(door.all("/decisions").await).filter(|d| d.len() == 2) }).await;
    let told = format!("{}{}", door.log(), Value::from(decisions));
    for secret in [hidden, SECRET, TOKEN] {
        assert!(!told.contains(secret), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_a_check_or_with_an_empty_secret_does_not_start() {
    let agent = HttpAgent::start().await;
    for (what, change) in [
        ("nothing says how", ("provider = \"stripe\"\nsecret = { env = \"TEST_SECRET\" }\n", "path = \"/hooks/s\"\n")),
        ("no secret", ("provider = \"stripe\"\nsecret = { env = \"TEST_SECRET\" }\n", "provider = \"stripe\"\n")),
        (
            "an empty variable",
            (
                "provider = \"stripe\"\nsecret = { env = \"TEST_SECRET\" }\n",
                "provider = \"stripe\"\nsecret = { env = \"EMPTY_SECRET\" }\n",
            ),
        ),
        (
            "an empty file",
            (
                "provider = \"stripe\"\nsecret = { env = \"TEST_SECRET\" }\n",
                "provider = \"stripe\"\nsecret = { file = \"empty\" }\n",
            ),
        ),
        (
            "a blank one beside a good one",
            (
                "provider = \"stripe\"\nsecret = { env = \"TEST_SECRET\" }\n",
                "provider = \"stripe\"\nsecret = [{ env = \"TEST_SECRET\" }, { file = \"blank\" }]\n",
            ),
        ),
        (
            "a secret that is not set",
            (
                "provider = \"stripe\"\nsecret = { env = \"TEST_SECRET\" }\n",
                "provider = \"stripe\"\nsecret = { env = \"NOT_SET\" }\n",
            ),
        ),
    ] {
        let text = config(&agent).replace(change.0, change.1);
        let mut door = Door::prepare(&text);
        std::fs::write(door.path().join("empty"), "").unwrap();
        std::fs::write(door.path().join("blank"), " \n").unwrap();
        door.spawn();
        assert_eq!(door.wait().await, Some(1), "{what}: {}", door.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_was_replaced_opens_nothing() {
    let agent = HttpAgent::start().await;
    let (env, file) = ("secret = { env = \"TEST_SECRET\" }\nkey", "secret = { file = \"hook\" }\nkey");
    let mut door = Door::prepare(&config(&agent).replacen(env, file, 1));
    std::fs::write(door.path().join("hook"), SECRET).unwrap();
    door.launch().await;
    let door = &door;
    let ring = |secret: &'static str, n: u32| async move {
        let body = json!({"n": n}).to_string();
        let tag = hex::encode(hmac(secret.as_bytes(), body.as_bytes()));
        let mut request = delivery(door, &format!("d{n}"), &body).build().unwrap();
        request.headers_mut().insert("x-hub-signature-256", format!("sha256={tag}").parse().unwrap());
        door.http.execute(request).await.unwrap().status().as_u16()
    };
    let new = "the one that came after the first";
    assert_eq!((ring(SECRET, 1).await, ring(new, 2).await), (202, 401));
    std::fs::write(door.path().join("hook"), new).unwrap();
    eventually("the new one opens", || async { (ring(new, 3).await < 300).then_some(()) }).await;
    assert_eq!(ring(SECRET, 4).await, 401, "the old one still opens");
    assert_eq!(ring(SECRET, 1).await, 401, "not even what it signed when it was valid");
}

/// The forger and the sender come from one address, as they do behind a NAT.
#[tokio::test(flavor = "multi_thread")]
async fn forgeries_from_the_sender_s_own_address_lock_nobody_out() {
    let agent = HttpAgent::start().await;
    let text = config(&agent).replace("[triggers.other]", "failed_auth_limit = \"2/h\"\n[triggers.other]");
    let door = Door::start(&text).await;
    for n in 0..50 {
        let forged = delivery(&door, "f", "{}").body(format!("{{\"n\":{n}}}"));
        assert_eq!(said(forged).await.0, if n < 2 { 401 } else { 429 });
    }
    for n in 0..20 {
        assert_eq!(said(delivery(&door, &format!("d{n}"), &json!({"n": n}).to_string())).await.0, 202);
    }
    let elsewhere = github(&door.url("/hooks/other"), &door.http, "o", "push", b"{}");
    assert_eq!(said(elsewhere).await.0, 202, "another source from the same address");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_looks_like_ours_is_not_ours() {
    let agent = HttpAgent::start().await;
    let text = config(&agent).replace("[triggers.other]", "ignore_actors = [\"door[bot]\"]\n[triggers.other]");
    let door = Door::start(&text).await;
    let by = |actor: &Value, n: usize| {
        delivery(&door, &format!("a{n}"), &json!({"sender": {"login": actor}, "n": n}).to_string())
    };
    assert_eq!(said(by(&json!("door[bot]"), 0)).await.1["reason"], "own_actor");
    let others = [
        json!("door"),
        json!("door[bot] "),
        json!(" door[bot]"),
        json!("x-door[bot]"),
        json!("door[bot][bot]"),
        json!("Door[bot]"),
        json!("door\u{ff3b}bot]"),
        json!("door[bot]\u{200b}"),
        json!(["door[bot]"]),
        json!({"login": "door[bot]"}),
        Value::Null,
    ];
    for (n, actor) in others.iter().enumerate() {
        let (status, answer) = said(by(actor, n + 1)).await;
        assert_eq!((status, &answer["status"]), (202, &json!("accepted")), "{actor} is somebody else: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_climbs_leads_nowhere() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    for path in [
        "/hooks/..%2fapi%2fv1%2fevents",
        "/hooks/ring/..%2f..%2f..%2fetc%2fpasswd",
        "//hooks/ring",
        "/hooks//ring",
        "/hooks/ring/",
        "/HOOKS/RING",
        "/hooks/ring%00",
        "/hooks/r%69ng",
        "/ui/..%2fdata%2fadmin.token",
        "/doorbell.toml",
        "/data/admin.token",
    ] {
        let (status, _) = said(github(&door.url(path), &door.http, "p", "push", b"{}")).await;
        assert_eq!(status, 404, "POST {path}");
        let answer = door.http.get(door.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 404, "GET {path}");
    }
    assert!(door.all("/events").await.is_empty() && agent.calls().is_empty());
}
