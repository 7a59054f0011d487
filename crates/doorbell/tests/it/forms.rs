//! Deliveries that come as forms, or that are about no repository: Slack's slash commands and buttons, GitHub's form encoding and
//! its organisation's hooks. Through the real program to the agent, with the labels that filters and lanes rely on.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use aws_lc_rs::hmac;
use doorbell_core::Clock;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::world::{Door, HttpAgent, SECRET};

const FORM: &str = "application/x-www-form-urlencoded";

async fn door(agent: &HttpAgent) -> Door {
    let mut text = format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n[agents.worker]\nrunner = \"http\"\nurl = \"{}\"\n",
        agent.url()
    );
    for provider in ["slack", "github"] {
        text += &format!(
            "[triggers.{provider}]\nagent = \"worker\"\nprovider = \"{provider}\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
             key = \"{{{{ event.subject }}}}\"\n"
        );
    }
    Door::start(&text).await
}

fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

fn mac(parts: &[&str]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()));
    parts.iter().for_each(|part| context.update(part.as_bytes()));
    hex::encode(context.sign())
}

fn slack(door: &Door, body: &str) -> RequestBuilder {
    let now = Clock::system().now().secs().to_string();
    let signature = format!("v0={}", mac(&["v0:", &now, ":", body]));
    let request = door.http.post(door.url("/hooks/slack")).header("content-type", FORM);
    request.header("x-slack-request-timestamp", now).header("x-slack-signature", signature).body(body.to_owned())
}

fn github(door: &Door, id: &str, event: &str, media: &str, body: &str) -> RequestBuilder {
    let request = door.http.post(door.url("/hooks/github")).header("content-type", media);
    let request = request.header("x-github-delivery", id).header("x-github-event", event);
    request.header("x-hub-signature-256", format!("sha256={}", mac(&[body]))).body(body.to_owned())
}

/// Sends it, lets it run, and gives what the agent was told of the event and the run's key.
async fn ran(door: &Door, agent: &HttpAgent, request: RequestBuilder) -> (Value, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let said: Value = answer.json().await.unwrap();
    assert_eq!(status, 202, "{said}");
    door.run_ended(said["run_id"].as_str().unwrap()).await;
    let envelope = agent.envelopes().pop().unwrap();
    assert!(!envelope.to_string().contains("old-token"), "Slack's old token reached the agent: {envelope}");
    (envelope["event"].clone(), envelope["run"]["key"].clone())
}

fn labels(event: &Value) -> [Option<&str>; 3] {
    ["type", "subject", "actor"].map(|label| event[label].as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slash_command_is_its_fields_and_a_button_is_the_json_in_its_payload() {
    let agent = HttpAgent::start().await;
    let door = door(&agent).await;
    let command = form(&[
        ("token", "old-token"),
        ("team_id", "T1"),
        ("channel_id", "C1"),
        ("user_id", "U1"),
        ("command", "/deploy"),
        ("text", "now & \u{e9}"),
        ("trigger_id", "1.2.3"),
    ]);
    let (event, key) = ran(&door, &agent, slack(&door, &command)).await;
    assert_eq!((labels(&event), &key), ([Some("/deploy"), Some("C1"), Some("U1")], &json!("C1")), "{event}");
    assert_eq!(event["data"]["text"], "now & \u{e9}");

    let payload = json!({
        "type": "block_actions", "token": "old-token", "trigger_id": "4.5.6",
        "user": {"id": "U2"}, "channel": {"id": "C2"}, "actions": [{"action_id": "go"}]
    });
    let button = form(&[("payload", &payload.to_string())]);
    let (event, key) = ran(&door, &agent, slack(&door, &button)).await;
    assert_eq!((labels(&event), &key), ([Some("block_actions"), Some("C2"), Some("U2")], &json!("C2")), "{event}");
    assert_eq!(event["data"]["actions"][0]["action_id"], "go");

    // The same again is known by its trigger id, which is signed.
    for body in [&command, &button] {
        let again: Value = slack(&door, body).send().await.unwrap().json().await.unwrap();
        assert_eq!(again["status"], "duplicate", "{again}");
    }
    let two = format!("{button}&{}", form(&[("payload", "{}")]));
    assert_eq!(slack(&door, &two).send().await.unwrap().status(), 400, "nobody knows which of two payloads is meant");
    let changed = slack(&door, &command).body(command.replace("deploy", "destroy"));
    assert_eq!(changed.send().await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn github_as_a_form_is_the_same_event_as_in_json() {
    let agent = HttpAgent::start().await;
    let door = door(&agent).await;
    let payload = json!({
        "action": "opened", "number": 7, "sender": {"login": "ada"},
        "repository": {"full_name": "acme/door"}, "pull_request": {"title": "a + b & c"}
    });
    let text = payload.to_string();
    let encoded = form(&[("payload", &text)]);
    let (by_form, key) = ran(&door, &agent, github(&door, "d1", "pull_request", FORM, &encoded)).await;
    let json = text.replace("opened", "reopened");
    let (by_json, same) = ran(&door, &agent, github(&door, "d2", "pull_request", "application/json", &json)).await;
    assert_eq!(labels(&by_form), [Some("pull_request"), Some("acme/door#7"), Some("ada")]);
    assert_eq!((labels(&by_form), key), (labels(&by_json), same), "one lane for both");
    assert_eq!(by_form["data"], payload);
    // What is signed is the form as it came: the JSON's own signature does not do.
    let request = github(&door, "d3", "pull_request", FORM, &text).body(encoded);
    assert_eq!(request.send().await.unwrap().status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_organisation_sends_is_about_the_organisation() {
    let agent = HttpAgent::start().await;
    let door = door(&agent).await;
    let body = json!({"action": "member_added", "organization": {"login": "acme"}, "sender": {"login": "ada"}});
    let request = github(&door, "o1", "organization", "application/json", &body.to_string());
    let (event, key) = ran(&door, &agent, request).await;
    assert_eq!(labels(&event), [Some("organization"), Some("acme"), Some("ada")]);
    assert_eq!(key, "acme");
    // Of a repository of the organisation it is about the repository.
    let body = json!({"organization": {"login": "acme"}, "repository": {"full_name": "acme/door"}, "sender": {"login": "ada"}});
    let request = github(&door, "o2", "repository", "application/json", &body.to_string());
    let (event, _) = ran(&door, &agent, request).await;
    assert_eq!(labels(&event), [Some("repository"), Some("acme/door"), Some("ada")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_meta_s_says_what_object_it_is_of() {
    let agent = HttpAgent::start().await;
    let door = Door::start(&format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n[agents.worker]\nrunner = \"http\"\nurl = \"{}\"\n\
         [triggers.meta]\nagent = \"worker\"\nprovider = \"meta\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
         verify_token = {{ env = \"TEST_SECRET\" }}\nfilter = \"data.object == 'page'\"\n",
        agent.url()
    ))
    .await;
    let post = |object: &str, note: &str| {
        let entry = json!({"id": "thing_1", "note": note, "changes": [{"field": "feed"}]});
        let body = json!({"object": object, "entry": [entry]}).to_string();
        let request = door.http.post(door.url("/hooks/meta")).header("content-type", "application/json");
        request.header("x-hub-signature-256", format!("sha256={}", mac(&[&body]))).body(body)
    };
    let (event, _) = ran(&door, &agent, post("page", "a")).await;
    assert_eq!(
        (&event["type"], &event["data"]["object"], &event["data"]["id"]),
        (&json!("feed"), &json!("page"), &json!("thing_1"))
    );
    let said: Value = post("instagram", "b").send().await.unwrap().json().await.unwrap();
    assert_eq!(said["status"], "ignored", "{said}");
    // The same entry is the same event, whatever stands beside the list: what tells them apart is their own.
    let said: Value = post("page", "a").send().await.unwrap().json().await.unwrap();
    assert_eq!(said["status"], "duplicate", "{said}");
}

/// Dropbox Sign's own shape: JSON in one field of a body in parts, signed with time and type alone.
fn dropbox_sign(door: &Door, title: &str, boundary: &str) -> RequestBuilder {
    let now = Clock::system().now().secs().to_string();
    let hash = mac(&[&now, "signature_request_signed"]);
    let event = json!({"event_type": "signature_request_signed", "event_time": now, "event_hash": hash});
    let json = json!({"event": event, "signature_request": {"signature_request_id": "sr_1", "title": title}});
    let body =
        format!("--{boundary}\r\nContent-Disposition: form-data; name=\"json\"\r\n\r\n{json}\r\n--{boundary}--\r\n");
    let media = format!("multipart/form-data; boundary={boundary}");
    door.http.post(door.url("/hooks/dropbox-sign")).header("content-type", media).body(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn json_in_a_part_is_an_event_without_its_proof_and_the_sender_hears_its_one_text() {
    let agent = HttpAgent::start().await;
    let config = format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n[agents.worker]\nrunner = \"http\"\nurl = \"{}\"\n\
         [triggers.dropbox-sign]\nagent = \"worker\"\nprovider = \"dropbox-sign\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
         [triggers.plain]\nagent = \"worker\"\nauth = \"none\"\n",
        agent.url()
    );
    let door = Door::start(&config).await;
    let said = async |request: RequestBuilder| {
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let yes = (200, "Hello API Event Received".to_owned());
    let first = dropbox_sign(&door, "Contract", "a1");
    let again = first.try_clone().unwrap();
    assert_eq!(said(first).await, yes);
    assert_eq!(said(again).await, yes, "a redelivery is taken as well");
    let events = door.all("/events").await;
    assert_eq!((events.len(), door.all("/decisions?kind=duplicate").await.len()), (1, 1));
    let event = door.api(&format!("/events/{}", events[0]["id"].as_str().unwrap())).await;
    assert_eq!((event["type"].as_str(), event["subject"].as_str()), (Some("signature_request_signed"), Some("sr_1")));
    door.run_ended(event["runs"][0]["id"].as_str().unwrap()).await;
    let told = agent.envelopes().pop().unwrap();
    assert_eq!(told["event"]["data"]["signature_request"]["title"], "Contract", "{told}");
    assert_eq!(
        told["event"]["data"]["event"]["event_hash"], "[removed]",
        "it is right for any body of this time and type"
    );

    let forged = dropbox_sign(&door, "Contract", "a1").build().unwrap();
    let text = String::from_utf8(forged.body().unwrap().as_bytes().unwrap().to_vec()).unwrap();
    let forged = text.replace("signature_request_signed", "signature_request_declined");
    let media = "multipart/form-data; boundary=a1";
    let post = |source: &str, body: String| door.http.post(door.url(source)).header("content-type", media).body(body);
    assert_eq!(said(post("/hooks/dropbox-sign", forged)).await.0, 401, "the type is signed");
    assert_eq!(said(post("/hooks/plain", text)).await.0, 415, "nobody else's bodies are taken apart");
    assert_eq!(door.all("/events").await.len(), 1);
}
