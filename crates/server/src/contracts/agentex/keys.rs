//! The seven routes of keys, `/agent_api_keys`. A key's value is in the answer that makes it, and never again. An agent's id
//! is its name, and a key's id is that of `doorbell keys`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use doorbell_core::ports::StoreError;
use doorbell_core::vault::VaultError;
use doorbell_core::{Name, Secret, forward};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::access::{Covers, Want, check};
use super::book::{self, Entry, KEY_NAME_MAX, KeyType, New};
use super::{Agentex, FORWARD, KEYS, registry, say};
use crate::body::{self, Body};
use crate::front::Front;
use crate::webhook::{self, Arrived};

/// A key to make is a few lines.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// A value that somebody chose may be guessed if it is shorter; the contract's page shows none that is chosen.
const EXTERNAL_BYTES_MIN: usize = 16;
/// A secret that signs is guessed from one delivery if it is short: each guess costs whoever has it one HMAC. The one of the
/// contract's page has 12.
const SIGNING_BYTES_MIN: usize = 8;
const VALUE_BYTES_MAX: usize = 4096;
/// Keys on a page.
const PAGE: (usize, usize) = (50, 1000);

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Ask {
    Keys,
    Trigger,
    Named(String),
    Id(String),
}

type Told = Result<Response<Body>, Box<Response<Body>>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    agent_id: Option<String>,
    agent_name: Option<String>,
    name: String,
    api_key_type: Option<String>,
    api_key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Trigger {
    agent_name: String,
    source: Option<String>,
    name: String,
    forward_path: String,
    secret: Option<String>,
    base_url: Option<String>,
}

/// What is asked, if the path is one of these.
pub(super) fn read(path: &str) -> Option<Ask> {
    let rest = path.strip_prefix(KEYS)?;
    match rest.strip_prefix('/') {
        None if rest.is_empty() => Some(Ask::Keys),
        None => None,
        Some("") => Some(Ask::Keys),
        Some("webhook-trigger") => Some(Ask::Trigger),
        // Names of repositories have a slash.
        Some(rest) => Some(match rest.strip_prefix("name/") {
            Some(name) => Ask::Named(decoded(name)),
            None => Ask::Id(decoded(rest)),
        }),
    }
}

pub(super) fn decoded(text: &str) -> String {
    let pair = format!("n={}", text.replace('+', "%2B").replace('&', "%26"));
    form_urlencoded::parse(pair.as_bytes()).next().map_or_else(String::new, |(_, value)| value.into_owned())
}

/// Answers one request.
pub(super) async fn answer(front: &Front, own: &Agentex, ask: Ask, socket: IpAddr, arrived: Arrived) -> Response<Body> {
    let Arrived { head, body, .. } = arrived;
    let want = match (&ask, head.method.as_str()) {
        (Ask::Keys, "GET" | "POST") | (Ask::Trigger, "POST" | "GET" | "DELETE") => head.method.clone(),
        (Ask::Named(_) | Ask::Id(_), "GET" | "DELETE") => head.method.clone(),
        (Ask::Keys, _) => return say::method("GET, POST"),
        (Ask::Trigger, _) => return say::method("DELETE, GET, POST"),
        _ => return say::method("DELETE, GET"),
    };
    let want = if want == Method::GET { Want::Look } else { Want::Manage };
    let covers = match check(front, own, want, socket, &head).await {
        Ok(covers) => covers,
        Err(response) => return *response,
    };
    let agents = match registry::names(front, own).await {
        Ok(agents) => agents,
        Err(error) => return say::broken(&error),
    };
    let told = match (ask, &head.method) {
        (Ask::Keys, &Method::GET) => list(front, &agents, &covers, &head).await,
        (Ask::Keys, _) => match text(front, &head, body, BODY_BYTES_MAX).await {
            Ok(new) => create(front, own, &agents, new).await,
            Err(response) => Err(response),
        },
        (Ask::Trigger, &Method::POST) => match text(front, &head, body, BODY_BYTES_MAX).await {
            Ok(new) => trigger(front, own, &agents, new).await,
            Err(response) => Err(response),
        },
        // A key's id is never this word.
        (Ask::Trigger, _) => no_key("webhook-trigger"),
        (Ask::Named(name), method) => match named(front, &agents, &covers, &name, &head).await {
            Ok(entry) if *method == Method::DELETE => {
                let said = format!("Agent API key with name '{name}' deleted");
                delete(front, &entry, &said).await
            }
            Ok(entry) => Ok(crate::reply::json(StatusCode::OK, &shown(&entry))),
            Err(response) => Err(response),
        },
        (Ask::Id(id), method) => match by_id(front, &agents, &covers, &id).await {
            Ok(entry) if *method == Method::DELETE => {
                let said = format!("Agent API key with ID {id} deleted");
                delete(front, &entry, &said).await
            }
            Ok(entry) => Ok(crate::reply::json(StatusCode::OK, &shown(&entry))),
            Err(response) => Err(response),
        },
    };
    told.unwrap_or_else(|response| *response)
}

/// The body, read as the document's JSON.
pub(super) async fn text<T: DeserializeOwned>(
    front: &Front,
    head: &Parts,
    body: hyper::body::Incoming,
    limit: usize,
) -> Result<T, Box<Response<Body>>> {
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    // A form on a web page can send every other type without asking.
    if !content_type.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("application/json")) {
        let mut response = say::invalid("send JSON, with Content-Type: application/json");
        webhook::end_connection(&mut response);
        return Err(Box::new(response));
    }
    let rule = body::Rule { limit, timeouts: &front.options.timeouts, budget: &front.budget };
    let whole = body::read(&head.headers, body, rule).await.map_err(|error| {
        let no = error.no();
        let mut response = say::failed(super::super::call::status(no), no.told());
        webhook::end_connection(&mut response);
        Box::new(response)
    })?;
    serde_json::from_slice(&whole.bytes).map_err(|error| Box::new(say::invalid(&error.to_string())))
}

/// The one agent that is named by id or by name.
fn agent(agents: &BTreeSet<Name>, id: Option<&str>, name: Option<&str>) -> Result<Name, Box<Response<Body>>> {
    let asked = match (id, name) {
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return bad("Either agent_id or agent_name must be provided."),
        (Some(_), Some(_)) => return bad("Only one of agent_id and agent_name can be provided."),
    };
    known(agents, asked)
}

fn known(agents: &BTreeSet<Name>, asked: &str) -> Result<Name, Box<Response<Body>>> {
    let found = agents.get(asked).cloned();
    found.ok_or_else(|| {
        let text = format!("Agent {} not found.", super::super::call::shown(asked));
        Box::new(say::failed(StatusCode::NOT_FOUND, &text))
    })
}

fn bad<T>(text: &str) -> Result<T, Box<Response<Body>>> {
    Err(Box::new(say::failed(StatusCode::BAD_REQUEST, text)))
}

fn invalid<T>(text: &str) -> Result<T, Box<Response<Body>>> {
    Err(Box::new(say::invalid(text)))
}

fn no_key<T>(what: &str) -> Result<T, Box<Response<Body>>> {
    let text = format!("Agent API key {} not found.", super::super::call::shown(what));
    Err(Box::new(say::failed(StatusCode::NOT_FOUND, &text)))
}

fn broken(error: &VaultError) -> Box<Response<Body>> {
    Box::new(match error {
        VaultError::Store(StoreError::Conflict(_)) => {
            say::failed(StatusCode::CONFLICT, "This agent has an API key of this name and type already.")
        }
        VaultError::Store(error) => say::broken(error),
        other => say::broken(&StoreError::Unavailable(other.to_string())),
    })
}

fn shown(entry: &Entry) -> Value {
    json!({
        "id": entry.key.id.to_string(), "agent_id": entry.agent, "created_at": entry.key.created_at,
        "name": entry.name, "api_key_type": entry.kind.as_str(),
    })
}

/// The value of a parameter, if it is there once.
fn param(head: &Parts, name: &str) -> Result<Option<String>, Box<Response<Body>>> {
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let mut all = form_urlencoded::parse(query).filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    match (all.next(), all.next()) {
        (_, Some(_)) => invalid(&format!("`{name}` stands there twice")),
        (value, None) => Ok(value),
    }
}

fn number(head: &Parts, name: &str, default: usize, most: usize) -> Result<usize, Box<Response<Body>>> {
    match param(head, name)? {
        None => Ok(default),
        Some(text) => match text.parse().ok().filter(|n| (1..=most).contains(n)) {
            Some(n) => Ok(n),
            None => invalid(&format!("`{name}` is a number from 1 to {most}")),
        },
    }
}

async fn list(front: &Front, agents: &BTreeSet<Name>, covers: &Covers, head: &Parts) -> Told {
    let agent = agent(agents, param(head, "agent_id")?.as_deref(), param(head, "agent_name")?.as_deref())?;
    if !covers.lets(&agent) {
        let text = format!("Agent {agent} not found.");
        return Err(Box::new(say::failed(StatusCode::NOT_FOUND, &text)));
    }
    let (limit, page) = (number(head, "limit", PAGE.0, PAGE.1)?, number(head, "page_number", 1, usize::MAX)?);
    let entries = book::all(front).await.map_err(|e| broken(&e.into()))?;
    let mine = entries.iter().filter(|e| e.agent == agent);
    let keys: Vec<Value> = mine.skip((page - 1).saturating_mul(limit)).take(limit).map(shown).collect();
    Ok(crate::reply::json(StatusCode::OK, &keys))
}

async fn by_id(
    front: &Front,
    agents: &BTreeSet<Name>,
    covers: &Covers,
    id: &str,
) -> Result<Entry, Box<Response<Body>>> {
    let entries = book::all(front).await.map_err(|e| broken(&e.into()))?;
    let found = entries.into_iter().find(|e| e.key.id.to_string() == id);
    match found.filter(|e| covers.lets(&e.agent) && agents.contains(&e.agent)) {
        Some(entry) => Ok(entry),
        None => no_key(id),
    }
}

async fn named(
    front: &Front,
    agents: &BTreeSet<Name>,
    covers: &Covers,
    name: &str,
    head: &Parts,
) -> Result<Entry, Box<Response<Body>>> {
    let agent = agent(agents, param(head, "agent_id")?.as_deref(), param(head, "agent_name")?.as_deref())?;
    let kind = kind(param(head, "api_key_type")?.as_deref())?;
    let entries = book::all(front).await.map_err(|e| broken(&e.into()))?;
    let fits = |e: &Entry| e.agent == agent && e.kind == kind && e.name == name && covers.lets(&e.agent);
    match entries.into_iter().find(fits) {
        Some(entry) => Ok(entry),
        None => no_key(name),
    }
}

async fn delete(front: &Front, entry: &Entry, said: &str) -> Told {
    book::remove(front, entry).await.map_err(|e| broken(&e))?;
    Ok(crate::reply::json(StatusCode::OK, &json!(said)))
}

fn kind(word: Option<&str>) -> Result<KeyType, Box<Response<Body>>> {
    match word {
        None => Ok(KeyType::External),
        Some("internal") => {
            invalid("`internal` keys are not made here: the agent is given `secret` in the configuration")
        }
        Some(word) => match word.parse() {
            Ok(kind) => Ok(kind),
            Err(()) => invalid("`api_key_type` is external, github or slack"),
        },
    }
}

fn good_name(name: &str) -> Result<(), Box<Response<Body>>> {
    if name.trim().is_empty() || name.len() > KEY_NAME_MAX || name.chars().any(char::is_control) {
        return invalid(&format!("`name` has 1 to {KEY_NAME_MAX} bytes and no control characters"));
    }
    Ok(())
}

pub(super) fn good_value(kind: KeyType, value: &str) -> Result<(), Box<Response<Body>>> {
    if value.trim().is_empty() {
        return bad("An empty secret checks nothing.");
    }
    if kind == KeyType::External && value.len() < EXTERNAL_BYTES_MIN {
        return invalid(&format!("`api_key` has at least {EXTERNAL_BYTES_MIN} bytes; leave it out to have one made"));
    }
    if value.len() < SIGNING_BYTES_MIN {
        let text =
            format!("a secret that signs has at least {SIGNING_BYTES_MIN} bytes; make one with: openssl rand -hex 32");
        return invalid(&text);
    }
    // What cannot stand in a header, or is mended on its way there, would never be found equal.
    let is_plain = value.bytes().all(|b| b.is_ascii_graphic() || (b == b' ' && kind != KeyType::External));
    if value.len() > VALUE_BYTES_MAX || !is_plain || value.trim() != value {
        return invalid(&format!("the value has at most {VALUE_BYTES_MAX} printable ASCII characters"));
    }
    Ok(())
}

async fn create(front: &Front, own: &Agentex, agents: &BTreeSet<Name>, new: Create) -> Told {
    let agent = agent(agents, new.agent_id.as_deref(), new.agent_name.as_deref())?;
    let kind = kind(new.api_key_type.as_deref())?;
    good_name(&new.name)?;
    if let Some(value) = &new.api_key {
        good_value(kind, value)?;
    }
    let (entry, value) = made((front, own), &agent, kind, &new.name, new.api_key).await?;
    let mut told = shown(&entry);
    told["api_key"] = json!(value.expose());
    Ok(crate::reply::json(StatusCode::OK, &told))
}

async fn made(
    (front, own): (&Front, &Agentex),
    agent: &Name,
    kind: KeyType,
    name: &str,
    value: Option<String>,
) -> Result<(Entry, Secret), Box<Response<Body>>> {
    let _turn = front.agents_turn.lock().await;
    // It was there before the body was read; a key must not wait for whoever takes the name next.
    let agents = registry::names(front, own).await.map_err(|e| broken(&e.into()))?;
    known(&agents, agent.as_str())?;
    let new = New { agent, kind, name, value: value.map(Secret::new) };
    book::add(front, new).await.map_err(|e| broken(&e))
}

/// A key and the URL to paste at the sender, in one call.
async fn trigger(front: &Front, own: &Agentex, agents: &BTreeSet<Name>, new: Trigger) -> Told {
    let kind = match new.source.as_deref().unwrap_or("github") {
        "github" => KeyType::Github,
        "slack" => KeyType::Slack,
        _ => return bad("`source` is github or slack."),
    };
    if kind == KeyType::Slack && new.secret.is_none() {
        return bad("Slack makes its signing secret itself: send it as `secret`.");
    }
    good_name(&new.name)?;
    if let Some(secret) = &new.secret {
        good_value(kind, secret)?;
    }
    let path = encoded(new.forward_path.trim_start_matches('/'));
    if new.forward_path.chars().any(char::is_control)
        || forward::target(&Uri::from_static("http://agent"), &path, None).is_err()
    {
        return bad("`forward_path` cannot be forwarded.");
    }
    let base = new.base_url.as_deref().filter(|b| !b.is_empty()).or(own.public_url.as_deref());
    if let Some(base) = base
        && !base.parse::<Uri>().is_ok_and(|u| matches!(u.scheme_str(), Some("http" | "https")) && u.query().is_none())
    {
        return bad("`base_url` is no http or https URL.");
    }
    let agent = known(agents, &new.agent_name)?;
    let (entry, value) = made((front, own), &agent, kind, &new.name, new.secret).await?;
    let path = format!("{FORWARD}{agent}/{path}");
    let url = base.map(|base| format!("{}{path}", base.trim_end_matches('/')));
    let told = json!({
        "key_id": entry.key.id.to_string(), "agent_name": agent, "source": kind.as_str(), "name": entry.name,
        "secret": value.expose(), "webhook_path": path, "webhook_url": url,
    });
    Ok(crate::reply::json(StatusCode::OK, &told))
}

/// A path as a URL writes it (RFC 3986, section 2.3), its slashes kept.
fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => text.push(char::from(byte)),
            other => {
                let _ = write!(text, "%{other:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart_and_names_may_have_slashes() {
        let named = |name: &str| Some(Ask::Named(name.to_owned()));
        assert_eq!(read("/agent_api_keys"), Some(Ask::Keys));
        assert_eq!(read("/agent_api_keys/webhook-trigger"), Some(Ask::Trigger));
        assert_eq!(read("/agent_api_keys/key_a"), Some(Ask::Id("key_a".into())));
        assert_eq!(read("/agent_api_keys/name/scaleapi/scale-agentex"), named("scaleapi/scale-agentex"));
        assert_eq!(read("/agent_api_keys/name/scaleapi%2Fscale-agentex"), named("scaleapi/scale-agentex"));
        assert_eq!(read("/agent_api_keys/name/a+b%20c&d%26e"), named("a+b c&d&e"));
        assert_eq!((read("/agent_api_keysx"), read("/agents")), (None, None));
        assert_eq!(encoded("a b/ü%?"), "a%20b/%C3%BC%25%3F");
    }
}
