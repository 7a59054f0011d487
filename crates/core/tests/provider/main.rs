//! The provider engine against every preset file: the files' own vectors, tampered requests, and random ones.
//! `conformance` holds what a file says, `tampered` what no file has to say because it holds for all.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod conformance;
mod handshakes;
mod sdk_cases;
mod tampered;
mod traps;

use bytes::Bytes;
use doorbell_core::payload::multipart;
use doorbell_core::provider::{Format, Preset, Refusal, Request, Verified, Verifier};
use doorbell_core::{Secret, Timestamp};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

/// The time at which everything here is signed.
const NOW: Timestamp = Timestamp::from_secs(1_760_000_000);

/// A request that owns its parts.
#[derive(Clone, Debug)]
struct Rung {
    method: Method,
    url: Option<String>,
    headers: HeaderMap,
    body: Bytes,
}

impl Rung {
    fn new(headers: HeaderMap, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, url: None, headers, body: body.into() }
    }

    fn with<T>(&self, use_it: impl FnOnce(&Request<'_>) -> T) -> T {
        let target = self.url.as_deref().and_then(|u| u.splitn(4, '/').nth(3)).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        use_it(&Request {
            method: &self.method,
            url: self.url.as_deref(),
            path: &format!("/{path}"),
            query,
            headers: &self.headers,
            body: &self.body,
            via: doorbell_core::provider::Via::Anybody,
        })
    }

    fn verify(&self, verifier: &Verifier, now: Timestamp) -> Result<Verified, Refusal> {
        self.with(|request| verifier.verify(request, now))
    }

    /// As the door does it where the key has to be fetched, with what stands at its address.
    fn verify_with(&self, verifier: &Verifier, key: &str, now: Timestamp) -> Result<Verified, Refusal> {
        self.with(|request| {
            verifier.key_url(request)?.expect("an address of a key");
            verifier.verify_with(request, key.as_bytes(), now)
        })
    }

    /// The header's value with `change` made to it.
    fn header(mut self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let name: HeaderName = name.parse().unwrap();
        let mut value = self.headers.get(&name).map(|v| v.as_bytes().to_vec()).unwrap_or_default();
        change(&mut value);
        self.headers.insert(name, HeaderValue::from_bytes(&value).unwrap());
        self
    }
}

fn headers(pairs: &[(String, String)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn secrets(texts: &[impl AsRef<str>]) -> Vec<Secret> {
    texts.iter().map(|t| Secret::new(t.as_ref())).collect()
}

/// What the labels of a request's first event are read from, as the door makes it.
fn view(preset: &Preset, rung: &Rung) -> Value {
    let whole = whole(preset, rung);
    let Some(path) = &preset.payload.batch else { return whole };
    let list = path.iter().fold(&whole, |here, step| &here[step.as_str()]);
    list[0].clone()
}

/// The parsed body, as the door makes it: the JSON, or a form's fields, or the JSON in the form's named field.
fn whole(preset: &Preset, rung: &Rung) -> Value {
    if preset.payload.format == Format::Multipart {
        let media = rung.headers.get("content-type").map(|t| t.to_str().unwrap());
        let part = multipart::part(&rung.body, media, preset.payload.form_json.as_deref().unwrap());
        return serde_json::from_slice(&part.ok().flatten().unwrap_or_default()).unwrap_or_default();
    }
    let form = rung.headers.get("content-type").is_some_and(|t| t.as_bytes().starts_with(b"application/x-www-form"));
    let form = preset.payload.format == Format::Form || (preset.payload.format == Format::Auto && form);
    if !form {
        return serde_json::from_slice(&rung.body).unwrap_or_default();
    }
    let mut fields = serde_json::Map::new();
    for (name, value) in form_urlencoded::parse(&rung.body) {
        if preset.payload.form_json.as_deref() == Some(&*name) {
            return serde_json::from_str(&value).unwrap_or_default();
        }
        fields.insert(name.into_owned(), Value::from(value.into_owned()));
    }
    Value::Object(fields)
}
