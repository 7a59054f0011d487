//! What senders ask before they send, and what they are answered: every `[[handshakes]]` of a preset has a row here.

use std::collections::BTreeSet;
use std::sync::Arc;

use doorbell_core::Secret;
use doorbell_core::provider::{self, Answer, Order, Verifier, VerifyOptions};
use http::{HeaderMap, Method};

use crate::{NOW, Rung, headers, secrets, whole};

const SECRET: &str = "public|private";

/// `method`, query, headers, body; then status, body and headers of the answer.
type Row = (
    &'static str,
    Method,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    u16,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const TEXT: &[(&str, &str)] = &[("content-type", "text/plain"), ("x-content-type-options", "nosniff")];
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const ALLOWED: &[(&str, &str)] =
    &[("allow", "POST"), ("webhook-allowed-origin", "eventgrid.azure.net"), ("webhook-allowed-rate", "*")];
const ORIGIN: &[(&str, &str)] = &[("webhook-request-origin", "eventgrid.azure.net"), ("webhook-request-rate", "120")];

/// Those that nobody signs.
const GREETINGS: &[Row] = &[
    (
        "meta",
        Method::GET,
        "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=v3rify",
        &[],
        "",
        200,
        "1158201444",
        TEXT,
    ),
    (
        "strava",
        Method::GET,
        "key=x&hub.mode=subscribe&hub.challenge=15f7d1a91c1f40f8&hub.verify_token=v3rify",
        &[],
        "",
        200,
        r#"{"hub.challenge":"15f7d1a91c1f40f8"}"#,
        JSON,
    ),
    (
        "websub",
        Method::GET,
        "hub.mode=unsubscribe&hub.topic=v3rify&hub.challenge=abc&hub.lease_seconds=864000",
        &[],
        "",
        200,
        "abc",
        TEXT,
    ),
    ("dropbox", Method::GET, "challenge=5w1ML9ZbEcQ", &[], "", 200, "5w1ML9ZbEcQ", TEXT),
    ("nylas", Method::GET, "challenge=bc609b38-c81f", &[], "", 200, "bc609b38-c81f", TEXT),
    (
        "okta",
        Method::GET,
        "",
        &[("x-okta-verification-challenge", "my verification challenge")],
        "",
        200,
        r#"{"verification":"my verification challenge"}"#,
        JSON,
    ),
    // HMAC-SHA256 of `abc` with the key `public|private`, by Python's hmac.
    (
        "x-twitter",
        Method::GET,
        "crc_token=abc",
        &[],
        "",
        200,
        r#"{"response_token":"sha256=DsF6WriwfZICToPc/uPZEh6+wSGgQ03hrKcgfOjXg5g="}"#,
        JSON,
    ),
    (
        "braintree",
        Method::GET,
        "bt_challenge=20f9f8ed05f77439fe955c977e4c8a53",
        &[],
        "",
        200,
        "public|3077328431565fee44b856ee88190b8a2abd06e4",
        TEXT,
    ),
    ("trello", Method::HEAD, "", &[], "", 200, "", &[]),
    ("azure-event-grid", Method::OPTIONS, "", ORIGIN, "", 200, "", ALLOWED),
    ("cloudevents", Method::OPTIONS, "", ORIGIN, "", 200, "", ALLOWED),
    (
        "microsoft-graph",
        Method::POST,
        "validationToken=Validation%3A+Testing+client",
        &[],
        "",
        200,
        "Validation: Testing client",
        TEXT,
    ),
    (
        "monday",
        Method::POST,
        "",
        JSON,
        r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmd"}"#,
        200,
        r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmd"}"#,
        JSON,
    ),
    (
        "woocommerce",
        Method::POST,
        "",
        &[("content-type", "application/x-www-form-urlencoded")],
        "webhook_id=42",
        200,
        "",
        &[],
    ),
];

/// Those inside a request that passed the check.
const CHECKED: &[Row] = &[
    ("slack", Method::POST, "", JSON, r#"{"type":"url_verification","challenge":"3eZbrw1a"}"#, 200, "3eZbrw1a", TEXT),
    ("discord-interactions", Method::POST, "", JSON, r#"{"type":1}"#, 200, r#"{"type":1}"#, JSON),
    ("discord-events", Method::POST, "", JSON, r#"{"version":1,"type":0}"#, 204, "", &[]),
    (
        "twitch",
        Method::POST,
        "",
        &[("twitch-eventsub-message-type", "webhook_callback_verification")],
        r#"{"challenge":"pogchamp-kappa"}"#,
        200,
        "pogchamp-kappa",
        TEXT,
    ),
    (
        "azure-event-grid",
        Method::POST,
        "",
        &[("aeg-event-type", "SubscriptionValidation")],
        r#"[{"eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{"validationCode":"512d38b6"}}]"#,
        200,
        r#"{"validationResponse":"512d38b6"}"#,
        JSON,
    ),
    // HMAC-SHA256 of `qgg8` with the key `public|private`, by Python's hmac.
    (
        "zoom",
        Method::POST,
        "",
        JSON,
        r#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8"}}"#,
        200,
        r#"{"plainToken":"qgg8","encryptedToken":"f87227f5beb4936672f26755d319bdb714f9ce97ecf67748c86dd5ab20170129"}"#,
        JSON,
    ),
];

fn verifier(id: &str) -> Verifier {
    let preset = provider::get(id).unwrap();
    let options = VerifyOptions { verify_token: Some(Secret::new("v3rify")), ..VerifyOptions::default() };
    let own = preset.vectors.iter().find(|v| v.refused.is_none()).unwrap();
    let made = Verifier::new(Arc::clone(preset), &secrets(&[SECRET]), options.clone());
    // A key of a form of its own: the vector's.
    made.or_else(|_| Verifier::new(Arc::clone(preset), &secrets(&own.secrets), options)).unwrap()
}

fn rung(row: &Row) -> Rung {
    let (_, method, query, head, body, ..) = row;
    let pairs: Vec<(String, String)> = head.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let url = Some(format!("https://door.example.com/hooks/x?{query}"));
    Rung { method: method.clone(), url, headers: headers(&pairs), body: (*body).into() }
}

fn holds(row: &Row, answer: Option<Answer>) {
    let (id, _, _, _, _, status, body, head) = row;
    let answer = answer.unwrap_or_else(|| panic!("{id} is not answered"));
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (*status, *body), "{id}");
    for (name, value) in *head {
        assert_eq!(answer.headers.get(*name).map(|v| v.as_bytes()), Some(value.as_bytes()), "{id}: {name}");
    }
}

#[test]
fn a_sender_that_cannot_sign_yet_is_answered_what_it_wants() {
    for row in GREETINGS {
        let verifier = verifier(row.0);
        let rung = rung(row);
        assert!(rung.verify(&verifier, NOW).is_err() || rung.method != Method::POST, "{}", row.0);
        assert!(verifier.preset().greets(&rung.method), "{}", row.0);
        holds(row, rung.with(|r| verifier.greeting(r)));
    }
}

#[test]
fn a_handshake_that_is_signed_is_answered_after_the_check_alone() {
    for row in CHECKED {
        let verifier = verifier(row.0);
        let rung = rung(row);
        assert_eq!(rung.with(|r| verifier.greeting(r)), None, "{} without the check", row.0);
        let checked = provider::Verified::unauthenticated();
        holds(row, rung.with(|r| verifier.handshake(r, &whole(verifier.preset(), &rung), &checked)));
    }
}

#[test]
fn every_handshake_of_every_preset_is_tried_here() {
    let of = |rows: &'static [Row], order| rows.iter().map(move |row| (row.0, row.1.to_string(), format!("{order:?}")));
    let tried: BTreeSet<_> = of(GREETINGS, Order::Unsigned).chain(of(CHECKED, Order::Verified)).collect();
    let mut known = BTreeSet::new();
    for (id, preset) in provider::presets() {
        for h in &preset.handshakes {
            known.insert((id.as_str(), h.method.to_string(), format!("{:?}", h.order)));
        }
    }
    assert_eq!(known, tried);
}

#[test]
fn a_greeting_with_anything_else_in_it_is_no_greeting() {
    let cases: &[(&str, Method, &str, &str)] = &[
        ("meta", Method::GET, "hub.mode=subscribe&hub.challenge=1&hub.verify_token=another", ""),
        ("meta", Method::GET, "hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=v3rify", ""),
        ("websub", Method::GET, "hub.mode=subscribe&hub.topic=another&hub.challenge=abc", ""),
        ("microsoft-graph", Method::POST, "validationtoken=x", r#"{"value":[]}"#),
        ("monday", Method::POST, "", r#"{"event":{"type":"create_item"}}"#),
        ("woocommerce", Method::POST, "", r#"{"id":1}"#),
        ("github", Method::GET, "challenge=1", ""),
        // What a body would be: the answer would be its signature.
        ("x-twitter", Method::GET, "crc_token=%7B%22a%22%3A1%7D", ""),
        ("braintree", Method::GET, "bt_challenge=PG5vdGlmaWNhdGlvbj48L25vdGlmaWNhdGlvbj4", ""),
        ("braintree", Method::GET, "bt_challenge=", ""),
    ];
    for (id, method, query, body) in cases {
        let rung = Rung {
            method: method.clone(),
            url: Some(format!("https://door.example.com/hooks/x?{query}")),
            headers: HeaderMap::new(),
            body: (*body).into(),
        };
        let verifier = verifier(id);
        assert_eq!(rung.with(|r| verifier.greeting(r)), None, "{id} {query} {body}");
    }
}

#[test]
fn only_a_head_request_is_answered_whatever_it_holds() {
    for (id, preset) in provider::presets() {
        for handshake in &preset.handshakes {
            assert!(!handshake.when.is_empty() || handshake.method == Method::HEAD, "{id}");
            assert!(handshake.order == Order::Unsigned || handshake.method == Method::POST, "{id}");
        }
    }
}
