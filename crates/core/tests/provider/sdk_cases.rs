//! 188 requests, signed and altered with the senders' own SDKs, in `tests/data/sdk_cases.json`: `valid` is what a door should
//! decide. Where it is stricter than an SDK (a timestamp ahead, no window at all) the case says the door's.

use std::sync::Arc;

use doorbell_core::Timestamp;
use doorbell_core::provider::{self, SnsMessage, Verifier, VerifyOptions};
use http::Method;
use serde_json::Value;

use crate::{Rung, headers, secrets, whole};

fn text(case: &Value, key: &str) -> Option<String> {
    case[key].as_str().map(str::to_owned)
}

fn rung(case: &Value) -> Rung {
    let pairs: Vec<(String, String)> = case["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    Rung {
        method: text(case, "method").map_or(Method::POST, |m| m.parse().unwrap()),
        url: text(case, "url"),
        headers: headers(&pairs),
        body: text(case, "body").unwrap_or_default().into(),
    }
}

#[test]
fn what_the_official_sdks_sign_passes_and_what_is_altered_does_not() {
    let all = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sdk_cases.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&all).unwrap();
    assert_eq!(cases.len(), 188);
    let mut wrong = Vec::new();
    for case in &cases {
        let (id, preset) = (case["id"].as_str().unwrap(), case["preset"].as_str().unwrap());
        // Amazon's key has to be fetched; the case brings it. The topic that the message names stands for the owner's.
        if preset == "aws-sns" {
            let topic = SnsMessage::read(case["body"].as_str().unwrap().as_bytes()).map(|m| m.topic().to_owned());
            let texts = [topic.unwrap_or_else(|_| "arn:aws:sns:us-west-2:123456789012:MyTopic".to_owned())];
            let preset = Arc::clone(provider::get(preset).unwrap());
            let verifier = Verifier::new(preset, &secrets(&texts), VerifyOptions::default()).unwrap();
            let verdict = rung(case).verify_with(&verifier, case["secrets"][0].as_str().unwrap(), crate::NOW);
            if verdict.is_ok() != case["valid"].as_bool().unwrap() {
                wrong.push(format!("{id}: {verdict:?}"));
            }
            continue;
        }
        let preset = provider::get(preset).unwrap_or_else(|| panic!("no preset `{preset}`"));
        let texts: Vec<&str> = case["secrets"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
        let verifier = Verifier::new(Arc::clone(preset), &secrets(&texts), VerifyOptions::default()).unwrap();
        let rung = rung(case);
        if rung.method == Method::GET {
            let answer = rung.with(|r| verifier.greeting(r)).unwrap_or_else(|| panic!("{id} is not answered"));
            assert_eq!(Some(answer.body.as_str()), case["answer"].as_str(), "{id}");
            continue;
        }
        let verdict = rung.verify(&verifier, Timestamp::from_secs(case["now"].as_i64().unwrap()));
        if verdict.is_ok() != case["valid"].as_bool().unwrap() {
            wrong.push(format!("{id}: {verdict:?}"));
        }
        if let (Ok(checked), false) = (&verdict, case["answer"].is_null()) {
            let answer = rung.with(|r| verifier.handshake(r, &whole(preset, &rung), checked)).unwrap();
            assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap(), case["answer"], "{id}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
