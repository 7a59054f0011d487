//! What the official SDKs sign is passed on to an agent of Agentex, and nothing else is: GitHub's 329 published payloads, and
//! Slack's events, commands, interactions and question.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use serde_json::{Value, json};

use super::vendors::by_id;
use super::{PARALLEL, Request, now, sdk};
use crate::contracts::agentex::World;

fn secret(provider: &str) -> &'static str {
    by_id(provider).secret
}

/// Whose delivery it is: the name that its key has.
fn name(payload: &Value) -> Option<&str> {
    let places = [
        "/repository/full_name",
        "/organization/login",
        "/enterprise/slug",
        "/installation/account/login",
        "/sponsorship/sponsorable/login",
    ];
    places.iter().find_map(|place| payload.pointer(place)?.as_str())
}

fn at(agent: &str, mut request: Request) -> Request {
    request.path = format!("/agents/forward/name/{agent}/hook");
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn every_payload_that_github_publishes_is_passed_on_as_it_is() {
    let (world, examples) = tokio::join!(World::start(""), sdk::examples(secret("github")));
    let payloads: Vec<Value> = examples.iter().map(|e| serde_json::from_slice(&e.body).unwrap()).collect();
    for name in payloads.iter().filter_map(name).collect::<BTreeSet<_>>() {
        let new =
            json!({"agent_name": "reviewer", "name": name, "api_key_type": "github", "api_key": secret("github")});
        world.key(new).await;
    }
    let send = |(i, example): (usize, &sdk::Example)| {
        let request = at("reviewer", super::delivery("-", i, example));
        let door = &world.door;
        async move { request.send(door).await }
    };
    let said: Vec<(u16, String)> =
        futures::stream::iter(examples.iter().enumerate().map(send)).buffered(PARALLEL).collect().await;
    let mut of_nobody = BTreeSet::new();
    for ((example, payload), (status, text)) in examples.iter().zip(&payloads).zip(&said) {
        match name(payload) {
            Some(_) => assert_eq!(*status, 200, "{}: {text}", example.name),
            None => {
                assert_eq!(*status, 400, "{}: {text}", example.name);
                of_nobody.insert(example.name.as_str());
            }
        }
    }
    assert_eq!(of_nobody, BTreeSet::from(OF_NOBODY), "deliveries of an app, which name nobody");
    let mut sent: Vec<&[u8]> =
        examples.iter().zip(&said).filter(|(_, (status, _))| *status == 200).map(|(e, _)| e.body.as_slice()).collect();
    let seen = world.agent.seen();
    let mut seen: Vec<&[u8]> = seen.iter().map(|s| s.body.as_slice()).collect();
    sent.sort_unstable();
    seen.sort_unstable();
    assert!(sent == seen, "the agent got other bodies than were sent");
}

/// Whose payloads hold nothing that a key could be called after.
const OF_NOBODY: [&str; 3] = ["github_app_authorization", "marketplace_purchase", "security_advisory"];

#[tokio::test(flavor = "multi_thread")]
async fn what_slacks_sdk_signs_is_passed_on_once_its_app_is_known() {
    let (world, signed) = tokio::join!(World::start(""), sdk::signed(now()));
    let new = |name: &str, value: &str| json!({"agent_name": "reviewer", "name": name, "api_key_type": "slack", "api_key": value});
    world.key(new("A123ABC456", secret("slack"))).await;
    let slack: Vec<_> = signed.iter().filter(|s| s.provider == "slack").collect();
    assert_eq!(slack.len(), 4);
    let mut passed = 0;
    for one in &slack {
        let (status, text) = at("reviewer", one.request.clone()).send(&world.door).await;
        assert_eq!(status, 200, "{}: {text}", one.name);
        match &one.challenge {
            Some(challenge) => assert_eq!(text, *challenge),
            None => passed += 1,
        }
        for (what, request, wanted) in
            [("stale", &one.stale, 400), ("future", &one.future, 400), ("another secret", &one.other_secret, 401)]
        {
            let (status, text) = at("reviewer", request.clone()).send(&world.door).await;
            assert_eq!(status, wanted, "{} {what}: {text}", one.name);
        }
        let mut body = one.request.body.clone();
        body.push(b' ');
        let (status, text) = at("reviewer", one.request.with_body(body)).send(&world.door).await;
        assert_eq!(status, 401, "{} altered: {text}", one.name);
        let (status, _) = at("slow", one.request.clone()).send(&world.door).await;
        assert_eq!(status, 401, "{}: to an agent without its key", one.name);
    }
    assert_eq!(world.agent.seen().len(), passed);
}
