//! What is in a request: its signature, its body, its copies. Used by `must_pass`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
