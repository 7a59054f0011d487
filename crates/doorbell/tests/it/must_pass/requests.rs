//! What is in a request: its signature, its body, its copies. Used by `must_pass`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use doorbell_core::Clock;
use futures::future::join_all;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{config, delivery, hmac, said, with};
use crate::world::{Door, HttpAgent, SECRET, eventually, github};

#[tokio::test(flavor = "multi_thread")]
async fn what_strangers_send_is_refused_with_its_cause() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let signature = "x-hub-signature-256";
    let wrong = |value: &[u8]| with(&door, delivery(&door, "d", "{}"), signature, value);
    let unsigned = |path: &str| door.http.post(door.url(path)).header("content-type", "application/json").body("{}");
    let rows: Vec<(&str, RequestBuilder, u16, &str)> = vec![
        ("verification is opt-in", unsigned("/hooks/ring"), 401, "signature_missing"),
        ("an empty signature", wrong(b"sha256="), 401, "signature_malformed"),
        (
            "a signature that is not ASCII crashes the compare",
            wrong(b"sha256=\xff\xfe\xc3\xa9"),
            401,
            "signature_malformed",
        ),
        (
            "a signature that looks right and that nobody made",
            wrong(format!("sha256={}", "5".repeat(64)).as_bytes()),
            401,
            "signature_mismatch",
        ),
        ("a signature of another length", wrong(b"sha256=00"), 401, "signature_malformed"),
        (
            "the old SHA-1 alone",
            with(&door, unsigned("/hooks/ring"), "x-hub-signature", b"sha1=00"),
            401,
            "signature_missing",
        ),
        (
            "an empty secret's signature",
            wrong(format!("sha256={}", hex::encode(hmac(b"", b"{}"))).as_bytes()),
            401,
            "signature_mismatch",
        ),
        (
            "the timestamp stripped, to get an older version of the scheme",
            with(
                &door,
                unsigned("/hooks/stripe"),
                "stripe-signature",
                format!("v1={}", hex::encode(hmac(SECRET.as_bytes(), b"{}"))).as_bytes(),
            ),
            401,
            "timestamp_missing",
        ),
        ("the body is changed", delivery(&door, "d", "{}").body("{\"a\":1}"), 401, "signature_mismatch"),
        ("a path that nobody listens on", unsigned("/hooks/none"), 404, "not_found"),
        (
            "a body before the check",
            github(&door.url("/hooks/other"), &door.http, "d", "push", &[b'1'; 5000]),
            413,
            "too_large",
        ),
    ];
    for (what, request, status, code) in rows {
        let (answered, body) = said(request).await;
        assert_eq!(answered, status, "{what}: {body}");
        eventually(&format!("{what}: a decision {code}"), || async {
            let newest = door.all("/decisions").await.into_iter().max_by_key(|d| d["id"].as_str().map(str::to_owned));
            newest.filter(|d| d["code"] == code)
        })
        .await;
    }
    assert!(door.all("/events").await.is_empty() && agent.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_body_is_read_in_one_way_or_not_at_all() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let deep = format!("{}{}", "[".repeat(129), "]".repeat(129));
    for (what, body) in [
        ("a number beyond a double", "{\"n\":1e999}".to_owned()),
        ("a depth that overflows parsers", deep),
        ("two documents", "{} {}".to_owned()),
        ("a raw NUL in a text", "{\"a\":\"\u{0}\"}".to_owned()),
        ("no JSON under a JSON type", "a=1".to_owned()),
    ] {
        assert_eq!(said(delivery(&door, what, &body)).await.0, 400, "{what}");
    }
    // A key that is no plain text is none: the run goes in a lane of its own.
    for (what, body, data, key) in [
        ("repeated keys", r#"{"lane":"a","lane":"b"}"#, json!({"lane": "b"}), json!("b")),
        ("an escaped NUL", r#"{"lane":"n\u0000"}"#, json!({"lane": "n\u{0}"}), Value::Null),
        ("a lone surrogate", r#"{"lane":"s\ud800"}"#, json!({"lane": "s\u{fffd}"}), json!("s\u{fffd}")),
    ] {
        let (status, answer) = said(delivery(&door, what, body)).await;
        assert_eq!(status, 202, "{what}: {answer}");
        door.run_ended(answer["run_id"].as_str().unwrap()).await;
        let envelope = agent.envelopes().pop().unwrap();
        assert_eq!((&envelope["event"]["data"], &envelope["run"]["key"]), (&data, &key), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_copies_at_once_are_one_event_and_a_captured_one_with_a_fresh_id_is_none() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let copies = join_all((0..100).map(|_| said(delivery(&door, "same", "{\"lane\":\"x\"}")))).await;
    assert_eq!(copies.iter().filter(|(status, _)| *status == 202).count(), 1);
    assert!(copies.iter().all(|(status, body)| *status == 202 || body["status"] == "duplicate"));
    let (status, replayed) = said(delivery(&door, "fresh", "{\"lane\":\"x\"}")).await;
    assert_eq!((status, replayed["status"].as_str()), (200, Some("duplicate")), "the id is not signed, the body is");
    assert_eq!(door.all("/events").await.len(), 1);
}

/// The type is not signed. Under another one the body is read as it was meant, or as one piece, or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_content_type_changes_no_reading() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&config(&agent)).await;
    let media = [
        "text/plain",
        "text/html; charset=utf-7",
        "application/octet-stream",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json, application/x-www-form-urlencoded",
        "",
    ];
    for (n, media) in media.iter().enumerate() {
        let body = json!({"lane": "a&lane=b", "files": {"path": "/etc/passwd"}, "n": n}).to_string();
        let request = delivery(&door, &format!("d{n}"), &body);
        let (status, answer) = said(with(&door, request, "content-type", media.as_bytes())).await;
        if status != 202 {
            assert!([400, 415].contains(&status), "{media}: {status} {answer}");
            continue;
        }
        door.run_ended(answer["run_id"].as_str().unwrap()).await;
        let envelope = agent.envelopes().pop().unwrap();
        assert_ne!(envelope["run"]["key"], "b", "{media}: {envelope}");
        let data = &envelope["event"]["data"];
        let encoded = STANDARD.encode(&body);
        let is_whole = data["n"] == n || data.as_str() == Some(&body) || envelope["event"]["data_base64"] == encoded;
        assert!(is_whole, "{media}: neither the JSON, nor its text, nor its bytes: {envelope}");
    }
}

/// SNS names the address of its certificate in the message, and the address that confirms a subscription.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_message_names_is_not_fetched() {
    let agent = HttpAgent::start().await;
    let sns = "provider = \"aws-sns\"\nsecret = { file = \"topic\" }\n";
    let text = config(&agent).replace("provider = \"stripe\"\nsecret = { env = \"TEST_SECRET\" }\n", sns);
    let topic = "arn:aws:sns:eu-west-1:123456789012:door";
    let mut door = Door::prepare(&text);
    std::fs::write(door.path().join("topic"), topic).unwrap();
    door.launch().await;
    let here = agent.addr;
    let pem = "SimpleNotificationService-0.pem";
    for url in [
        format!("http://{here}/{pem}"),
        format!("https://{here}/{pem}"),
        format!("https://sns.eu-west-1.amazonaws.com@{here}/{pem}"),
        format!("https://sns.eu-west-1.amazonaws.com.localhost:{}/{pem}", here.port()),
        format!("https://169.254.169.254/latest/{pem}"),
        format!("http://sns.eu-west-1.amazonaws.com/{pem}"),
        "file:///etc/passwd".to_owned(),
    ] {
        let message = json!({
            "Type": "SubscriptionConfirmation", "MessageId": "m", "Token": "t", "TopicArn": topic, "Message": "m",
            "SubscribeURL": url, "Timestamp": "2026-11-21T08:53:20.000Z", "SignatureVersion": "2",
            "Signature": "T8mQTF3DxtcWZ7HReBMULQ==", "SigningCertURL": url
        });
        let request = door.http.post(door.url("/hooks/stripe")).header("content-type", "text/plain");
        let (status, answer) = said(request.body(message.to_string())).await;
        assert_eq!(status, 401, "{url}: {answer}");
    }
    assert!(agent.calls().is_empty(), "somebody else's address was asked");
    assert!(door.all("/events").await.is_empty());
}

/// Slack, GitHub under each rule of telling copies, Standard Webhooks, and Meta for its batches.
async fn many_doors(agent: &HttpAgent) -> Door {
    let mut text = format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n[agents.worker]\nrunner = \"http\"\nurl = \"{}\"\n",
        agent.url()
    );
    let ours = "{ env = \"TEST_SECRET\" }";
    for (name, provider, secret, more) in [
        ("slack", "slack", ours, ""),
        ("auto", "github", ours, ""),
        ("expression", "github", ours, "dedup = \"string(data.id)\"\n"),
        ("body", "github", ours, "dedup = \"body\"\n"),
        ("id", "github", ours, "dedup = \"id\"\n"),
        ("standard", "standard-webhooks", "{ file = \"whsec\" }", ""),
        ("meta", "meta", ours, "verify_token = { env = \"TEST_SECRET\" }\n"),
    ] {
        text += &format!("[triggers.{name}]\nagent = \"worker\"\nprovider = \"{provider}\"\nsecret = {secret}\n{more}");
    }
    let mut door = Door::prepare(&text);
    std::fs::write(door.path().join("whsec"), format!("whsec_{}", STANDARD.encode(SECRET))).unwrap();
    door.launch().await;
    door
}

fn slack(door: &Door, at: i64, media: &str, body: &str) -> RequestBuilder {
    let signature = hex::encode(hmac(SECRET.as_bytes(), format!("v0:{at}:{body}").as_bytes()));
    let request = door.http.post(door.url("/hooks/slack")).header("content-type", media);
    let request = request.header("x-slack-request-timestamp", at.to_string());
    request.header("x-slack-signature", format!("v0={signature}")).body(body.to_owned())
}

fn standard(door: &Door, (id, at): (&str, i64), media: &str, body: &str) -> RequestBuilder {
    let signature = STANDARD.encode(hmac(SECRET.as_bytes(), format!("{id}.{at}.{body}").as_bytes()));
    let request = door.http.post(door.url("/hooks/standard")).header("content-type", media);
    let request = request.header("webhook-id", id).header("webhook-timestamp", at.to_string());
    request.header("webhook-signature", format!("v1,{signature}")).body(body.to_owned())
}

/// The content type, the event's type and most ids are not signed: none of them makes a captured delivery a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_captured_delivery_runs_once_under_every_type_and_rule() {
    const FORM: &str = "application/x-www-form-urlencoded";
    const MEDIA: [&str; 5] = ["text/plain", "application/octet-stream", "application/xml", "image/png", FORM];
    let agent = HttpAgent::start().await;
    let door = many_doors(&agent).await;
    let now = Clock::system().now().secs();
    let ran = |(status, answer): (u16, Value), what: &str| assert_eq!(status, 202, "{what}: {answer}");
    let known = |(status, answer): (u16, Value), what: &str| {
        assert_eq!((status, answer["status"].as_str()), (200, Some("duplicate")), "{what}: {answer}");
    };
    // An event whose id stands in its JSON, and a command, which is a form: as one piece of text it has none.
    let event = json!({"type": "event_callback", "event_id": "Ev1", "event": {"type": "x"}}).to_string();
    for (media, body) in [("application/json", &*event), (FORM, "command=%2Fgo&trigger_id=1.2.3")] {
        ran(said(slack(&door, now, media, body)).await, body);
        for other in MEDIA {
            known(said(slack(&door, now, other, body)).await, other);
        }
    }
    for rule in ["auto", "expression", "body", "id"] {
        let url = door.url(&format!("/hooks/{rule}"));
        let form = format!("payload=%7B%22id%22%3A%22{rule}%22%7D");
        for (media, body) in [("application/json", json!({"id": 1}).to_string()), (FORM, form)] {
            let send = |id: &str, event: &str, media: &str| {
                let request = github(&url, &door.http, &format!("{id} {body}"), event, body.as_bytes());
                said(with(&door, request, "content-type", media.as_bytes()))
            };
            ran(send("first", "push", media).await, rule);
            for other in MEDIA {
                known(send(&format!("fresh {other}"), "push", other).await, rule);
            }
            known(send("first", "release", media).await, rule);
            known(send("fresh", "release", media).await, rule);
        }
    }
    // An id in a header that is signed tells equal bodies apart: nobody can give a captured delivery another one.
    for id in ["msg_1", "msg_2"] {
        ran(said(standard(&door, (id, now), "application/json", "{}")).await, id);
        known(said(standard(&door, (id, now), "text/plain", "{}")).await, id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_too_many_events_is_refused_with_the_limit() {
    let agent = HttpAgent::start().await;
    let door = many_doors(&agent).await;
    let entries = (0..10_001).map(|n| format!("{{\"id\":\"{n}\"}}")).collect::<Vec<_>>().join(",");
    let body = format!("{{\"object\":\"page\",\"entry\":[{entries}]}}");
    let signature = hex::encode(hmac(SECRET.as_bytes(), body.as_bytes()));
    let request = door.http.post(door.url("/hooks/meta")).header("content-type", "application/json");
    let (status, answer) = said(request.header("x-hub-signature-256", format!("sha256={signature}")).body(body)).await;
    assert_eq!(status, 413, "{answer}");
    let decision = eventually("a decision too_many_events", || async {
        door.all("/decisions").await.into_iter().find(|d| d["code"] == "too_many_events")
    })
    .await;
    assert!(decision["reason"].as_str().unwrap().contains("at most 10000"), "{decision}");
    assert!(door.all("/events").await.is_empty() && agent.calls().is_empty());
}
