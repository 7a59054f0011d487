//! A sender whose key has to be fetched, with a client that stands for its hosts: let in with the key, turned away with a wrong
//! signature, and neither while the key cannot be had.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use doorbell_core::ports::{Fetch, FetchError, FetchLimits};
use doorbell_core::provider::{self, Vector};

use crate::world::{World, until};

/// Amazon: what is below `/away/` is not there.
#[derive(Debug, Default)]
pub(crate) struct Amazon {
    asked: Mutex<Vec<String>>,
}

#[async_trait]
impl Fetch for Amazon {
    async fn fetch(&self, request: http::Request<Bytes>, _: FetchLimits) -> Result<http::Response<Bytes>, FetchError> {
        let url = request.uri().to_string();
        self.asked.lock().unwrap().push(url.clone());
        if url.contains("/away/") {
            return Err(FetchError::Refused("away".to_owned()));
        }
        let key = vector("v2 valid").key.clone().unwrap();
        Ok(http::Response::new(Bytes::from(key)))
    }
}

impl Amazon {
    fn asked(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|url| url.contains(part)).count()
    }
}

fn vector(note: &str) -> &'static Vector {
    provider::get("aws-sns").unwrap().vectors.iter().find(|v| v.note == note).unwrap()
}

async fn ring(world: &World, body: &str) -> u16 {
    let headers = [("content-type", "text/plain; charset=UTF-8")];
    world.call("POST", "/hooks/sns", &headers, body).await.status
}

fn body(note: &str) -> String {
    String::from_utf8(vector(note).body.clone()).unwrap()
}

#[tokio::test]
async fn while_a_key_cannot_be_had_a_request_is_neither_let_in_nor_turned_away() {
    let amazon = Arc::new(Amazon::default());
    let world = World::with_sns(Arc::clone(&amazon)).await;
    assert_eq!(ring(&world, &body("v2 valid")).await, 202);
    assert_eq!(ring(&world, &body("v2 valid")).await, 200, "a duplicate, by the signed id");
    assert_eq!(ring(&world, &body("tampered")).await, 401);
    assert_eq!(amazon.asked(".pem"), 1, "the key is kept");

    let host = "https://sns.us-west-2.amazonaws.com";
    let away = body("v2 valid").replace(host, &format!("{host}/away"));
    for _ in 0..3 {
        assert_eq!(ring(&world, &away).await, 503);
    }
    assert_eq!(amazon.asked("/away/"), 1, "asked for once a minute");
    for elsewhere in ["https://sns.us-west-2.amazonaws.com.evil", "https://sns.eu-north-9.amazonaws.com"] {
        assert_eq!(ring(&world, &body("v2 valid").replace(host, elsewhere)).await, 401);
        assert_eq!(amazon.asked(elsewhere), 0, "{elsewhere}");
    }
    until(|| async {
        let decisions = world.get("/decisions?kind=unavailable").await;
        let items = decisions["items"].as_array().unwrap();
        items.iter().any(|d| d["code"] == "key_unavailable").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_subscription_is_confirmed_at_amazon_after_the_check() {
    let amazon = Arc::new(Amazon::default());
    let world = World::with_sns(Arc::clone(&amazon)).await;
    let asked = body("subscription confirmation");
    assert_eq!(ring(&world, &asked.replace("MyTopic", "Another")).await, 401);
    assert_eq!(amazon.asked("ConfirmSubscription"), 0);
    assert_eq!(ring(&world, &asked).await, 200);
    assert_eq!(amazon.asked("ConfirmSubscription"), 1);
}

/// Travis' own host: what it answers, and how often it was asked.
#[derive(Debug, Default)]
struct Travis {
    document: Mutex<Option<String>>,
    asked: Mutex<usize>,
}

#[async_trait]
impl Fetch for Travis {
    async fn fetch(&self, request: http::Request<Bytes>, _: FetchLimits) -> Result<http::Response<Bytes>, FetchError> {
        assert_eq!(request.uri(), "https://api.travis-ci.com/config");
        *self.asked.lock().unwrap() += 1;
        let document = self.document.lock().unwrap().clone();
        document.map(|d| http::Response::new(d.into())).ok_or_else(|| FetchError::Refused("away".to_owned()))
    }
}

async fn travis(world: &World, note: &str) -> u16 {
    let vector = provider::get("travis").unwrap().vectors.iter().find(|v| v.note == note).unwrap();
    let headers: Vec<_> = vector.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let body = String::from_utf8(vector.body.clone()).unwrap();
    world.call("POST", "/hooks/published", &headers, &body).await.status
}

#[tokio::test]
async fn a_published_key_lets_in_what_it_signed_for_this_source() {
    let host = Arc::new(Travis::default());
    let key = provider::get("travis").unwrap().vectors[0].key.clone();
    *host.document.lock().unwrap() = key;
    let world = World::with_published("travis", host.clone()).await;
    assert_eq!(travis(&world, "a delivery").await, 202);
    assert_eq!(travis(&world, "a delivery").await, 200, "known by its id");
    for bad in ["another state", "a second payload", "no signature"] {
        assert_eq!(travis(&world, bad).await, 401, "{bad}");
    }
    assert_eq!(*host.asked.lock().unwrap(), 1, "a forgery is no reason to ask again within the minute");
}

#[tokio::test]
async fn without_a_published_key_nobody_is_let_in_or_turned_away() {
    for document in [None, Some("{}"), Some("<html>")] {
        let host = Arc::new(Travis::default());
        *host.document.lock().unwrap() = document.map(str::to_owned);
        let world = World::with_published("travis", host.clone()).await;
        for note in ["a delivery", "another state"] {
            assert_eq!(travis(&world, note).await, 503, "{document:?} {note}");
        }
        assert_eq!(*host.asked.lock().unwrap(), 1, "{document:?}");
    }
}

/// Plaid's API: what was asked, and what it answers.
#[derive(Debug, Default)]
struct Plaid {
    asked: Mutex<Vec<serde_json::Value>>,
    answer: Mutex<Option<(u16, String)>>,
}

#[async_trait]
impl Fetch for Plaid {
    async fn fetch(&self, request: http::Request<Bytes>, _: FetchLimits) -> Result<http::Response<Bytes>, FetchError> {
        assert_eq!(request.method(), http::Method::POST);
        assert_eq!(request.uri(), "https://production.plaid.com/webhook_verification_key/get");
        assert_eq!(request.headers()["content-type"], "application/json");
        self.asked.lock().unwrap().push(serde_json::from_slice(request.body()).unwrap());
        let answer = self.answer.lock().unwrap().clone();
        let (status, body) = answer.ok_or_else(|| FetchError::Refused("away".to_owned()))?;
        Ok(http::Response::builder().status(status).body(body.into()).unwrap())
    }
}

impl Plaid {
    fn answering(status: u16, body: &str) -> Arc<Self> {
        let plaid = Self::default();
        *plaid.answer.lock().unwrap() = Some((status, body.to_owned()));
        Arc::new(plaid)
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

const KID: &str = "bfbd5111-8e33-4643-8ced-b2e642a72f3c";

/// A delivery signed now with `key` over `signed`, rung with `sent`.
async fn plaid(world: &World, key: &EcdsaKeyPair, kid: &str, [signed, sent]: [&str; 2]) -> u16 {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let now = world.house.clock.now().secs();
    let digest = hex::encode(digest::digest(&digest::SHA256, signed.as_bytes()));
    let header = part(serde_json::json!({"alg": "ES256", "kid": kid, "typ": "JWT"}));
    let message = format!("{header}.{}", part(serde_json::json!({"iat": now, "request_body_sha256": digest})));
    let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    let headers = [("plaid-verification", token.as_str()), ("content-type", "application/json")];
    world.call("POST", "/hooks/published", &headers, sent).await.status
}

fn key_pair() -> (EcdsaKeyPair, String) {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = key.public_key().as_ref();
    let part = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
    let jwk = serde_json::json!({"key": {
        "alg": "ES256", "crv": "P-256", "kid": KID, "kty": "EC", "use": "sig", "x": part(1), "y": part(33),
        "created_at": 1_560_466_143, "expired_at": null,
    }});
    (key, jwk.to_string())
}

const NO_SUCH_KEY: &str = r#"{"error_type": "INVALID_INPUT", "error_code": "INVALID_WEBHOOK_VERIFICATION_KEY_ID"}"#;
const ITEM: [&str; 2] = [r#"{"webhook_type": "ITEM"}"#; 2];

#[tokio::test]
async fn a_key_is_asked_for_by_name_with_the_source_s_credentials() {
    let (key, jwk) = key_pair();
    let host = Plaid::answering(200, &jwk);
    let world = World::with_published("plaid", host.clone()).await;
    assert_eq!(plaid(&world, &key, KID, ITEM).await, 202);
    assert_eq!(plaid(&world, &key, KID, ["{}", "{ }"]).await, 401, "another body");
    assert_eq!(plaid(&world, &key_pair().0, KID, ITEM).await, 401, "another key");
    let asked = host.asked.lock().unwrap().clone();
    assert_eq!(asked, [serde_json::json!({"client_id": "client", "secret": "plaid-s3cret", "key_id": KID})]);
    let told = world.get("/decisions").await.to_string();
    assert!(!told.contains("plaid-s3cret"), "{told}");
}

#[tokio::test]
async fn while_plaid_does_not_give_a_key_nobody_is_let_in_or_turned_away() {
    let bad_keys = r#"{"error_code": "INVALID_API_KEYS", "error_message": "not plaid-s3cret"}"#;
    for (status, body) in [(400, bad_keys), (500, "{}"), (200, "<html>"), (404, NO_SUCH_KEY), (302, "")] {
        let host = Plaid::answering(status, body);
        let world = World::with_published("plaid", host.clone()).await;
        for _ in 0..3 {
            assert_eq!(plaid(&world, &key_pair().0, KID, ITEM).await, 503, "{status} {body}");
        }
        assert_eq!(host.asked(), 1, "asked for once a minute");
        let told = until(|| async {
            let told = world.get("/decisions?kind=unavailable").await.to_string();
            told.contains("key_unavailable").then_some(told)
        })
        .await;
        assert!(!told.contains("s3cret"), "{told}");
        assert_eq!(told.contains("400 INVALID_API_KEYS"), status == 400, "{told}");
    }
}

#[tokio::test]
async fn names_of_no_key_do_not_make_us_flood_the_sender() {
    let host = Plaid::answering(400, NO_SUCH_KEY);
    let world = World::with_published("plaid", host.clone()).await;
    let (key, _) = key_pair();
    for kid in ["", "../../item/get", "a b", &"a".repeat(65)] {
        assert_eq!(plaid(&world, &key, kid, ITEM).await, 401, "{kid}");
    }
    assert_eq!(host.asked(), 0, "no key is called so");
    for _ in 0..3 {
        assert_eq!(plaid(&world, &key, KID, ITEM).await, 401);
    }
    assert_eq!(host.asked(), 1, "that there is none is kept for a minute");
    let mut answers = Vec::new();
    for n in 0..50 {
        answers.push(plaid(&world, &key, &format!("bfbd5111-{n}"), ITEM).await);
    }
    assert_eq!(host.asked(), 32, "so many are asked for in a minute, whoever names them");
    assert_eq!((answers[0], answers[49]), (401, 503), "those beyond them may be right");
}

/// A host that cannot be reached, and how often it was asked.
#[derive(Debug, Default)]
struct Away(Mutex<usize>);

#[async_trait]
impl Fetch for Away {
    async fn fetch(&self, _: http::Request<Bytes>, _: FetchLimits) -> Result<http::Response<Bytes>, FetchError> {
        *self.0.lock().unwrap() += 1;
        Err(FetchError::Refused("away".to_owned()))
    }
}

#[tokio::test]
async fn what_no_key_could_make_good_is_turned_away_without_one() {
    let host = Arc::new(Away::default());
    let world = World::with_published("google-pubsub", host.clone()).await;
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = |header: &str| format!("Bearer {}.{}.{}", part(header), part("{}"), part("x"));
    let ring = async |value: Option<&str>| {
        let headers: Vec<_> = value.map(|value| ("authorization", value)).into_iter().collect();
        world.call("POST", "/hooks/published", &headers, "{}").await.status
    };
    let (none, crit) = (token(r#"{"alg": "none", "kid": "1"}"#), token(r#"{"alg": "RS256", "crit": ["x"]}"#));
    for bad in [None, Some("Basic YTpi"), Some("Bearer nonsense"), Some("Bearer a.b.c"), Some(&*none), Some(&*crit)] {
        assert_eq!(ring(bad).await, 401, "{bad:?}");
    }
    assert_eq!(*host.0.lock().unwrap(), 0, "nobody is asked on their account");
    assert_eq!(ring(Some(&token(r#"{"alg": "RS256", "kid": "1"}"#))).await, 503);
    assert_eq!(*host.0.lock().unwrap(), 1);
}
