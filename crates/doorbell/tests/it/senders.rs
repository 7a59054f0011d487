//! Real senders: what the official SDKs of seventeen senders sign or accept is let in, once, and whatever anybody makes of
//! it without the secret is not; the SDKs are asked about each of these too. Every payload that GitHub publishes
//! reaches the agent as it is.
//!
//! The npm packages of GitHub, Stripe, Svix, Standard Webhooks, Twilio, WorkOS and Contentful sign themselves. Those of
//! Slack, SendGrid, Discord, Razorpay, Shopify, LINE, Linear, Mux, Paddle and Pusher only check: there node's crypto
//! signs, and what it signed counts once the package has accepted it (`tests/senders/vendors.mjs`). So our engine is
//! held to the senders' words and not to our reading of them. Without node the tests fail and say what to run; they are never skipped.

mod forwarded;
mod sdk;
mod stricter;
mod tampered;
mod vendors;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::OpenOptionsExt as _;

use doorbell_core::Clock;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::world::{Door, HttpAgent, SECRET, eventually};
use sdk::{PUBLIC_URL, Request, Signed};
use tampered::Tampered;
use vendors::{VENDORS, by_id};

/// How many requests are under way at once where the order does not matter.
const PARALLEL: usize = 8;

fn now() -> i64 {
    Clock::system().now().secs()
}

fn head(agent: &HttpAgent) -> String {
    format!(
        "[server]\nlisten = \"{{addr}}\"\ndata_dir = \"data\"\n\
         [agents.worker]\nrunner = \"http\"\nurl = \"{}\"\nconcurrency = 16\n",
        agent.url()
    )
}

/// A server with a source for every sender, its secret in a file that only its owner may read.
async fn door_for_all(agent: &HttpAgent) -> Door {
    let mut config = head(agent).replace("data_dir", &format!("public_url = \"{PUBLIC_URL}\"\ndata_dir"));
    for vendor in &VENDORS {
        let (id, more) = (vendor.id, vendor.config);
        config += &format!(
            "[triggers.{id}]\nagent = \"worker\"\nprovider = \"{id}\"\nsecret = {{ file = \"{id}.secret\" }}\n{more}"
        );
    }
    let mut door = Door::prepare(&config);
    for vendor in &VENDORS {
        use std::io::Write as _;
        let file = door.path().join(format!("{}.secret", vendor.id));
        let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(file).unwrap();
        file.write_all(vendor.secret.as_bytes()).unwrap();
    }
    door.launch().await;
    door
}

/// Everything done to every request; `signed` holds all requests of all senders.
fn all_tampered(signed: &[Signed]) -> Vec<(String, Tampered)> {
    let mut all = Vec::new();
    for (i, one) in signed.iter().enumerate() {
        let others = signed.iter().cycle().skip(i + 1);
        let another = others.take(signed.len()).find(|s| s.provider == one.provider && s.name != one.name).unwrap();
        let variants = tampered::all(one, another);
        assert!(variants.len() > 30, "only {} for {} {}", variants.len(), one.provider, one.name);
        let named = |t: Tampered| (format!("{} {}: {}", one.provider, one.name, t.what), t);
        all.extend(variants.into_iter().map(named));
    }
    all
}

/// Sends what must be refused, one at a time; all are answered alike. Gives the code to be recorded and what was done,
/// for each source in the order of sending.
async fn refused(door: &Door, all: &[(String, Tampered)]) -> BTreeMap<String, Vec<(&'static str, String)>> {
    let mut expected: BTreeMap<String, Vec<(&'static str, String)>> = BTreeMap::new();
    let mut answers = BTreeSet::new();
    for (what, tampered) in all {
        let (status, text) = tampered.request.send(door).await;
        assert_eq!(status, 401, "{what}: {text}");
        answers.insert(text);
        let source = tampered.request.source().to_owned();
        expected.entry(source).or_default().push((tampered.code, what.clone()));
    }
    assert_eq!(answers.len(), 1, "the answer tells causes apart: {answers:?}");
    expected
}

/// One decision for each refused request, in order, each with the cause; no secret and no signature in any.
async fn recorded(door: &Door, expected: &BTreeMap<String, Vec<(&'static str, String)>>, signed: &[Signed]) {
    let mut odd = Vec::new();
    for (source, expected) in expected {
        // Decisions on what was not verified are written behind, into a ring of 1,000 a source.
        assert!(expected.len() < 1000, "{source}: more than the ring holds");
        let path = format!("/decisions?source={source}&kind=rejected");
        let mut decisions = eventually(&format!("{} decisions of {source}", expected.len()), || async {
            let decisions = door.all(&path).await;
            (decisions.len() >= expected.len()).then_some(decisions)
        })
        .await;
        decisions.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
        assert_eq!(decisions.len(), expected.len(), "{source}: one decision for each request");
        for (decision, (code, what)) in decisions.iter().zip(expected) {
            if decision["code"] != *code {
                odd.push(format!("{what}: {} instead of {code}", decision["code"]));
            }
            assert_eq!(decision["event_id"], Value::Null, "{what}: {decision}");
            assert!(decision["reason"].as_str().unwrap().starts_with("not verified: "), "{what}: {decision}");
            let check = decision["checks"].as_array().unwrap().last().unwrap();
            assert_eq!((&check["name"], &check["passed"]), (&json!("signature"), &json!(false)), "{what}");
            assert!(check["wanted"].is_string() && check["seen"].is_string(), "{what}: {check}");
        }
        let text = Value::from(decisions).to_string();
        for vendor in &VENDORS {
            assert!(!text.contains(vendor.secret), "{source}: a secret in a decision");
        }
        for one in signed {
            let value = one.request.header(by_id(&one.provider).shape.signature);
            assert!(!text.contains(value), "{source}: a signature that was right in a decision");
        }
    }
    assert!(odd.is_empty(), "{} with another code:\n{}", odd.len(), odd.join("\n"));
}

/// The senders' own SDKs accept what was signed, and refuse what we refuse, but for the list in `stricter`.
async fn sdks_refuse(at: i64, all: &[(String, Tampered)], signed: &[Signed]) {
    let good = signed.iter().map(|one| &one.request);
    let changed = all.iter().map(|(_, tampered)| &tampered.request);
    let verdicts = sdk::accepted(at, good.chain(changed)).await;
    let (of_good, of_changed) = verdicts.split_at(signed.len());
    for (one, accepted) in signed.iter().zip(of_good) {
        assert!(accepted, "the SDK of {} refuses {}", one.provider, one.name);
    }
    let accepted = all.iter().zip(of_changed).filter(|(_, accepted)| **accepted);
    stricter::compare(&accepted.map(|((_, t), _)| (t.request.source(), t.what)).collect());
}

/// Sends a request that must be taken: the answer.
async fn taken(door: &Door, request: &Request, wanted: (u16, &str)) -> Value {
    let (status, text) = request.send(door).await;
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{status} {text}: {e}"));
    assert_eq!((status, answer["status"].as_str()), (wanted.0, Some(wanted.1)), "{request:?}: {text}");
    answer
}

/// Every event has one run, which one call of the agent ended; gives what the agent was told of each event, by its id.
async fn told(door: &Door, agent: &HttpAgent, events: usize) -> HashMap<String, Value> {
    eventually("every run ends", || async {
        let health: Value = door.http.get(door.url("/health")).send().await.ok()?.json().await.ok()?;
        (health["queued"] == 0 && health["running"] == 0).then_some(())
    })
    .await;
    assert_eq!(door.all("/events").await.len(), events);
    let runs = door.all("/runs").await;
    assert_eq!(runs.len(), events, "one run for each event");
    assert!(runs.iter().all(|run| run["state"] == "succeeded" && run["attempt"] == 1), "{runs:?}");
    let envelopes = agent.envelopes();
    assert_eq!(envelopes.len(), events, "one call of the agent for each event");
    let told: HashMap<_, _> = envelopes
        .into_iter()
        .map(|mut envelope| (envelope["event"]["id"].as_str().unwrap().to_owned(), envelope["event"].take()))
        .collect();
    assert_eq!(told.len(), events, "each call is about another event");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_a_signed_request_it_is_refused_and_the_cause_is_recorded() {
    let agent = HttpAgent::start().await;
    let at = now();
    let (signed, door) = tokio::join!(sdk::signed(at), door_for_all(&agent));
    let all = all_tampered(&signed);
    let expected = refused(&door, &all).await;
    assert_eq!(expected.values().map(Vec::len).sum::<usize>(), all.len());
    recorded(&door, &expected, &signed).await;
    assert!(door.all("/events").await.is_empty(), "a refused request made an event");
    assert!(door.all("/runs").await.is_empty(), "a refused request made a run");
    assert!(agent.calls().is_empty());
    sdks_refuse(at, &all, &signed).await;
    // A forgery takes nothing away from the real one: its id is still free.
    let real: Vec<&Signed> = signed.iter().filter(|s| s.challenge.is_none()).collect();
    for one in &real {
        taken(&door, &one.request, (202, "accepted")).await;
    }
    // Once the real one is known, a forgery with its id hears nothing of it.
    let again: Vec<(String, Tampered)> = all.into_iter().filter(|(_, t)| t.code == "signature_mismatch").collect();
    refused(&door, &again).await;
    told(&door, &agent, real.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_official_sdks_sign_runs_once_and_is_a_duplicate_when_it_comes_again() {
    let agent = HttpAgent::start().await;
    let (signed, door) = tokio::join!(sdk::signed(now()), door_for_all(&agent));
    let mut events = Vec::new();
    for one in signed.iter().filter(|s| s.challenge.is_none()) {
        let answer = taken(&door, &one.request, (202, "accepted")).await;
        events.push((one, answer["event_id"].clone(), answer["run_id"].clone()));
    }
    for (one, event, run) in &events {
        let again = taken(&door, &one.request, (200, "duplicate")).await;
        assert_eq!((&again["event_id"], &again["run_id"]), (event, run), "{} {}", one.provider, one.name);
    }
    let told = told(&door, &agent, events.len()).await;
    for (one, event, _) in &events {
        let told = &told[event.as_str().unwrap()];
        let (event_type, data) = one.event.as_ref().unwrap();
        assert_eq!(told["type"], *event_type, "{} {}", one.provider, one.name);
        assert_eq!(told["data"], *data, "{} {}", one.provider, one.name);
        assert_eq!((&told["source"], &told["verified"]), (&json!(one.provider), &json!(true)));
        let kept = told["headers"].to_string();
        assert!(!kept.contains("signature"), "the agent has no use for the signature: {kept}");
    }
    for provider in VENDORS.iter().map(|vendor| vendor.id) {
        let of = |kind: &str| format!("/decisions?source={provider}&kind={kind}");
        let sent = events.iter().filter(|(one, ..)| one.provider == provider).count();
        assert_eq!(door.all(&of("accepted")).await.len(), sent, "{provider}");
        assert_eq!(door.all(&of("duplicate")).await.len(), sent, "{provider}");
        assert_eq!(door.all(&of("rejected")).await.len(), 0, "{provider}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_is_answered_when_it_is_signed_and_makes_no_event() {
    let agent = HttpAgent::start().await;
    let (signed, door) = tokio::join!(sdk::signed(now()), door_for_all(&agent));
    let handshakes: Vec<&Signed> = signed.iter().filter(|s| s.challenge.is_some()).collect();
    assert_eq!(handshakes.len(), 2, "Slack's and Discord's");
    for one in handshakes {
        assert_eq!(one.request.send(&door).await, (200, one.challenge.clone().unwrap()));
        assert_eq!(one.request.without(by_id(&one.provider).shape.signature).send(&door).await.0, 401);
        let path = format!("/decisions?source={}&kind=handshake", one.provider);
        assert_eq!(door.all(&path).await.len(), 1, "{}", one.provider);
    }
    assert!(door.all("/events").await.is_empty());
}

/// Twilio signs a form's fields, not its bytes. Whoever captured a delivery can write it otherwise under the same signature,
/// as often as there are ways to write a form; all of them are the first one again.
#[tokio::test(flavor = "multi_thread")]
async fn a_captured_form_that_is_written_otherwise_is_known_again() {
    let agent = HttpAgent::start().await;
    let (signed, door) = tokio::join!(sdk::signed(now()), door_for_all(&agent));
    let sms = &signed.iter().find(|one| one.provider == "twilio" && one.name == "sms").unwrap().request;
    let first = taken(&door, sms, (202, "accepted")).await;
    let text = std::str::from_utf8(&sms.body).unwrap();
    let mut fields: Vec<&str> = text.split('&').collect();
    fields.reverse();
    let spellings = [
        tampered::rewritten(sms, text),
        fields.join("&"),
        format!("&{text}&&"),
        format!("{text}&{}", fields[0]),
        text.replace("Body=c", "Body=%63"),
        text.replace("%C3%A9", "%c3%a9"),
        // What Twilio signs has nothing between a name and its value.
        text.replace("From=%2B15550100", "From%2B=15550100"),
    ];
    for spelling in spellings {
        assert_ne!(spelling, text);
        let again = taken(&door, &sms.with_body(spelling), (200, "duplicate")).await;
        assert_eq!((&again["event_id"], &again["run_id"]), (&first["event_id"], &first["run_id"]));
    }
    told(&door, &agent, 1).await;
}

/// An example as a delivery to a source.
fn delivery(source: &str, id: usize, example: &sdk::Example) -> Request {
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", &example.name),
        ("x-github-delivery", &format!("0b989ba4-242f-11e5-81e1-{id:012}")),
        ("x-hub-signature-256", &example.signature),
    ];
    Request {
        path: format!("/hooks/{source}"),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: example.body.clone(),
    }
}

/// Sends every example to a source, each under an id of its own: status, event id and run id, in their order.
async fn deliver(door: &Door, source: &str, examples: &[sdk::Example]) -> Vec<(u16, String, String)> {
    let one = |(i, example): (usize, &sdk::Example)| {
        let request = delivery(source, i, example);
        async move {
            let (status, text) = request.send(door).await;
            let answer: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            let id = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{status} {text}")).to_owned();
            (status, id("event_id"), id("run_id"))
        }
    };
    futures::stream::iter(examples.iter().enumerate().map(one)).buffered(PARALLEL).collect().await
}

/// GitHub's bodies name no delivery, and its signature does not cover the id that stands in a header. So within
/// `replay_window` a body of the same type under another id is taken for a captured delivery that somebody sends again,
/// and is recorded as a duplicate (`docs/semantics.md`, rule 5). 5 of GitHub's 329 examples repeat an earlier one byte
/// for byte, so the source `windowed`, with the default of ten minutes, shows the rule; `plain` switches the window off,
/// and there every example is an event of its own.
#[tokio::test(flavor = "multi_thread")]
async fn every_payload_that_github_publishes_reaches_the_agent_as_it_is() {
    let agent = HttpAgent::start().await;
    let config = format!(
        "{}[sources.plain]\nkind = \"webhook\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
         replay_window = \"0s\"\n\
         [sources.windowed]\nkind = \"webhook\"\nprovider = \"github\"\nsecret = {{ env = \"TEST_SECRET\" }}\n\
         [triggers.plain]\nsource = \"plain\"\nagent = \"worker\"\n\
         [triggers.windowed]\nsource = \"windowed\"\nagent = \"worker\"\n",
        head(&agent)
    );
    let (examples, door) = tokio::join!(sdk::examples(SECRET), Door::start(&config));
    assert_eq!(examples.len(), 329, "the version in tests/senders/package-lock.json has 329");

    let plain = deliver(&door, "plain", &examples).await;
    assert!(plain.iter().all(|(status, ..)| *status == 202), "{plain:?}");
    assert_eq!(plain.iter().map(|(_, event, _)| event).collect::<BTreeSet<_>>().len(), 329);
    let again = deliver(&door, "plain", &examples).await;
    let as_duplicates: Vec<_> = plain.iter().map(|(_, event, run)| (200, event.clone(), run.clone())).collect();
    assert_eq!(again, as_duplicates, "the same delivery again is the first one's duplicate");

    let windowed = deliver(&door, "windowed", &examples).await;
    let mut known = HashMap::new();
    for (example, (_, event, run)) in examples.iter().zip(&windowed) {
        let ids = known.entry((&example.name, &example.body)).or_insert((event, run));
        assert_eq!(*ids, (event, run), "two {} of one body are one event here", example.name);
    }
    let fresh = windowed.iter().filter(|(status, ..)| *status == 202).count();
    assert_eq!((fresh, known.len()), (324, 324));
    let duplicates = |source: &str| format!("/decisions?source={source}&kind=duplicate");
    assert_eq!(door.all(&duplicates("windowed")).await.len(), 5);
    assert_eq!(door.all(&duplicates("plain")).await.len(), 329);

    let told = told(&door, &agent, 329 + 324).await;
    for (i, example) in examples.iter().enumerate() {
        let payload: Value = serde_json::from_slice(&example.body).unwrap();
        for (_, event, _) in [&plain[i], &windowed[i]] {
            let told = &told[event];
            assert_eq!(told["type"], example.name, "example {i}");
            assert_eq!(told["data"], payload, "example {i}, {}", example.name);
        }
    }
}
