//! A sender whose key has to be fetched, with a client that stands for its hosts: let in with the key, turned away with a wrong
//! signature, and neither while the key cannot be had.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
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
