//! almyty: agents that are rung by `POST /agents/{id}/webhook`, switched on by `PATCH /agents/{id}`, their executions looked at
//! under `/agents/{id}/executions`. A specification that nobody had built: the page is the only source.
//!
//! The secret is made from the store's own key and the id of an API key that has no rights, so what is kept is that key's
//! hash as of every other; revoking the key ends the webhook.

use std::sync::Arc;

use doorbell_core::ingest::{Answer, No, Refused};
use doorbell_core::keys::{self, Key, Kind};
use doorbell_core::lists::{PageFrom, PageRequest, RunQuery};
use doorbell_core::ports::StoreError;
use doorbell_core::provider::{self, Verifier, VerifyOptions};
use doorbell_core::run::{Run, State};
use doorbell_core::source::Webhook;
use doorbell_core::{Name, RunId, Secret};
use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::{Asker, may_read, refused, status, with_allow, with_wait};
use super::{Found, Reading, Served};
use crate::body::{self, Body};
use crate::front::Front;
use crate::wait::first_run;
use crate::webhook::{self, Arrived};
use crate::{auth, reply};

/// What the preset of `auth = "contract"` is called: the secret is made here, not in the file.
pub const CONTRACT: &str = "contract";
/// The header of a signature.
const SIGNATURE: &str = "x-webhook-signature";
/// A change is a few words.
const PATCH_BYTES_MAX: usize = 4096;
/// Executions on a page, and how deep pages go: deeper ones are under `/api/v1/runs`.
const PAGE: (usize, usize) = (20, 100);
const DEEPEST: usize = 1000;

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Agent,
    Webhook,
    Executions,
    Execution(String),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Change {
    webhook_enabled: bool,
}

/// The agent's id and what is asked, if the path is this contract's.
pub(super) fn read(path: &str) -> Option<(&str, Ask)> {
    let mut parts = path.strip_prefix("/agents/")?.split('/');
    let id = parts.next().filter(|id| !id.is_empty())?;
    let ask = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => Ask::Agent,
        (Some("webhook"), None, _) => Ask::Webhook,
        (Some("executions"), None, _) => Ask::Executions,
        (Some("executions"), Some(execution), None) => Ask::Execution(execution.to_owned()),
        _ => return None,
    };
    Some((id, ask))
}

/// Answers one request.
pub(super) async fn answer(front: &Front, served: Option<&Served>, ask: Ask, arrived: Arrived) -> Response<Body> {
    let found = served.and_then(|s| Some((s, s.find(&front.house.catalog())?)));
    let method = arrived.head.method.clone();
    match (ask, found) {
        (Ask::Webhook, Some((served, found))) if method == Method::POST => ring(front, served, &found, arrived).await,
        (Ask::Webhook, None) if method == Method::POST => {
            refused(front, None, arrived.remote, No::NotFound, "no agent of this id is served by the contract almyty")
                .await;
            no(No::NotFound)
        }
        (Ask::Agent, found) if method == Method::PATCH => patch(front, found, arrived).await,
        (Ask::Executions, found) if method == Method::GET => executions(front, found, &arrived).await,
        (Ask::Execution(id), found) if method == Method::GET => execution(front, found, &id, Asker::of(&arrived)).await,
        (Ask::Webhook, _) => with_allow(no(No::Method), "POST"),
        (Ask::Agent, _) => with_allow(no(No::Method), "PATCH"),
        _ => with_allow(no(No::Method), "GET"),
    }
}

async fn ring(front: &Front, served: &Served, found: &Found, arrived: Arrived) -> Response<Body> {
    let source = &found.source;
    let verifier = match source.webhook() {
        Some(webhook) if webhook.preset.id == CONTRACT => match verifier(front, served, found, webhook, &arrived).await
        {
            Ok(Some(verifier)) => Some(verifier),
            Ok(None) => {
                let reason = format!("the webhook of agent `{}` is not enabled", served.id);
                refused(front, Some(&source.name), arrived.remote, No::NotFound, reason).await;
                return no(No::NotFound);
            }
            Err(error) => return broken(&error),
        },
        _ => None,
    };
    let asked = webhook::ask(front, source, arrived, verifier.as_ref()).await;
    let mut response = match asked.answer {
        Answer::Taken(taken) => {
            let run = first_run(&taken).map(|run| run.to_string());
            let word = if run.is_some() { "running" } else { "ignored" };
            told(StatusCode::OK, json!({ "executionId": run, "status": word }))
        }
        Answer::Handshake(answer) => reply::handshake(answer),
        Answer::Refused(Refused { no: which, .. }) => no(which),
    };
    if asked.ends_connection {
        webhook::end_connection(&mut response);
    }
    response
}

/// Checks what this request carries: the secret itself, or a signature with or without `sha256=`. None: not enabled.
async fn verifier(
    front: &Front,
    served: &Served,
    found: &Found,
    webhook: &Webhook,
    arrived: &Arrived,
) -> Result<Option<Verifier>, StoreError> {
    let Some(key) = key_of(front, served, &found.agent.name).await? else { return Ok(None) };
    let (secret, _) = keys::derived_secret(&key.id, &front.house.store.token_key());
    if !key.admits(secret.expose(), front.house.clock.now()) {
        return Ok(None);
    }
    let headers = &arrived.head.headers;
    let signature = headers.get(SIGNATURE).map(|v| v.to_str().unwrap_or_default());
    let preset = match signature {
        // Whoever sends both means the one that covers the body.
        Some(text) if text.starts_with("sha256=") => webhook.preset.with_settings(&[("prefix", "sha256=")]).ok(),
        Some(_) => Some((*webhook.preset).clone()),
        None => provider::get("bearer").map(|p| (**p).clone()),
    };
    let made = preset.and_then(|preset| Verifier::new(Arc::new(preset), &[secret], VerifyOptions::default()).ok());
    Ok(made)
}

async fn patch(front: &Front, found: Option<(&Served, Found)>, arrived: Arrived) -> Response<Body> {
    // It makes a credential: no API key does.
    if !auth::is_admin(front, &arrived.head.headers) {
        let _ = auth::unauthorized(front, Some(arrived.remote));
        return unauthorized();
    }
    let Some((served, found)) = found else { return no(No::NotFound) };
    let rule = body::Rule { limit: PATCH_BYTES_MAX, timeouts: &front.options.timeouts, budget: &front.budget };
    let whole = match body::read(&arrived.head.headers, arrived.body, rule).await {
        Ok(whole) => whole,
        Err(error) => {
            let mut response = no(error.no());
            webhook::end_connection(&mut response);
            return response;
        }
    };
    let change: Change = match serde_json::from_slice(&whole.bytes) {
        Ok(change) => change,
        Err(error) => {
            let text = format!("send {{\"webhookEnabled\": true}} or false: {error}");
            return failed(StatusCode::BAD_REQUEST, "bad_request", &text);
        }
    };
    let is_made_here = found.source.webhook().is_some_and(|w| w.preset.id == CONTRACT);
    if !is_made_here {
        let text = "this trigger's check stands in the configuration: give it auth = \"contract\" to switch it here";
        return failed(StatusCode::CONFLICT, "conflict", text);
    }
    match set_enabled(front, served, &found.agent.name, change).await {
        Ok(secret) => {
            let path = format!("/agents/{}/webhook", served.id);
            let base = found.source.webhook().and_then(|w| w.public_url.as_deref()?.strip_suffix(w.path.as_str()));
            let mut data = json!({ "id": served.id, "webhookEnabled": change.webhook_enabled });
            if change.webhook_enabled {
                data["webhookUrl"] = json!(format!("{}{path}", base.unwrap_or_default()));
            }
            if let Some(secret) = secret {
                data["webhookSecret"] = json!(secret.expose());
            }
            told(StatusCode::OK, data)
        }
        Err(error) => broken(&error),
    }
}

/// Makes or removes the key. The secret of one that is made now: it is shown once.
async fn set_enabled(
    front: &Front,
    served: &Served,
    agent: &Name,
    change: Change,
) -> Result<Option<Secret>, StoreError> {
    let house = &front.house;
    match (key_of(front, served, agent).await?, change.webhook_enabled) {
        (Some(_), true) | (None, false) => Ok(None),
        (Some(key), false) => house.store.remove_key(key.id).await.map(|()| None),
        (None, true) => {
            let id = keys::new_id(&house.clock);
            let (secret, hash) = keys::derived_secret(&id, &house.store.token_key());
            let key = Key {
                id,
                agent: Some(agent.clone()),
                name: key_name(served),
                kind: Kind::External,
                rights: Vec::new(),
                created_at: house.clock.now(),
                expires_at: None,
                last_used_at: None,
                hash,
                before: None,
            };
            house.store.add_key(key).await.map(|()| Some(secret))
        }
    }
}

const KEY_NAME: &str = "almyty webhook ";

/// Whether a key is the secret of such a webhook: it is made of the key's id, so there is only the one.
pub(crate) fn is_webhooks(key: &Key) -> bool {
    key.rights.is_empty() && key.name.starts_with(KEY_NAME)
}

fn key_name(served: &Served) -> String {
    format!("{KEY_NAME}{}", served.id)
}

async fn key_of(front: &Front, served: &Served, agent: &Name) -> Result<Option<Key>, StoreError> {
    let name = key_name(served);
    let keys = front.house.store.keys().await?;
    // One that a person made under this name is not ours: it has rights.
    let ours = |k: &Key| k.name == name && k.agent.as_ref() == Some(agent) && k.rights.is_empty();
    Ok(keys.into_iter().find(ours))
}

async fn executions(front: &Front, found: Option<(&Served, Found)>, arrived: &Arrived) -> Response<Body> {
    let agent = found.as_ref().map(|(_, f)| &f.agent.name);
    if !may_read(front, Reading::Token, Asker::of(arrived), agent).await {
        return unauthorized();
    }
    let Some((served, found)) = found else { return no(No::NotFound) };
    let (mut page, mut limit, mut wanted, mut states) = (1, PAGE.0, None, Vec::new());
    for (name, value) in form_urlencoded::parse(arrived.head.uri.query().unwrap_or_default().as_bytes()) {
        let number = value.parse::<usize>().ok().filter(|n| *n > 0);
        match (name.as_ref(), number) {
            ("page", Some(n)) => page = n,
            ("limit", Some(n)) => limit = n.min(PAGE.1),
            ("trigger", _) => wanted = Some(value.into_owned()),
            ("status", _) => match states_of(&value) {
                Some(found) => states = found,
                None => {
                    let text = "status is one of pending, running, waiting_approval, completed, failed, cancelled";
                    return failed(StatusCode::BAD_REQUEST, "bad_request", text);
                }
            },
            _ => {
                let text = "this call takes page and limit (from 1), trigger and status";
                return failed(StatusCode::BAD_REQUEST, "bad_request", text);
            }
        }
    }
    let fits = wanted.as_deref().is_none_or(|w| w == trigger_word(front, &served.trigger));
    let end = page.saturating_mul(limit);
    if !fits || end > DEEPEST {
        return told(StatusCode::OK, json!([]));
    }
    // Other triggers may start the same agent: those runs are not of what is served here.
    let triggers = vec![served.trigger.clone()];
    let query = RunQuery { agent: Some(found.agent.name.clone()), triggers, states, ..RunQuery::default() };
    match front.house.store.runs(query, PageRequest { limit: end, from: PageFrom::Start }).await {
        Ok(runs) => {
            let shown: Vec<Value> = runs.items.iter().skip(end - limit).map(|run| shown(front, served, run)).collect();
            told(StatusCode::OK, json!(shown))
        }
        Err(error) => broken(&error),
    }
}

async fn execution(front: &Front, found: Option<(&Served, Found)>, id: &str, asker: Asker<'_>) -> Response<Body> {
    let agent = found.as_ref().map(|(_, f)| &f.agent.name);
    if !may_read(front, Reading::Token, asker, agent).await {
        return unauthorized();
    }
    let (Some((served, found)), Ok(id)) = (found, id.parse::<RunId>()) else { return no(No::NotFound) };
    match front.house.store.run(id).await {
        Ok(run) if run.agent == found.agent.name && run.trigger == served.trigger => {
            told(StatusCode::OK, shown(front, served, &run))
        }
        Ok(_) | Err(StoreError::NotFound(_)) => no(No::NotFound),
        Err(error) => broken(&error),
    }
}

fn shown(front: &Front, served: &Served, run: &Run) -> Value {
    let output = run.output.as_deref().map(|bytes| serde_json::from_str::<Value>(reply::output(bytes).get()).ok());
    json!({
        "executionId": run.id, "agentId": served.id, "trigger": trigger_word(front, &run.trigger),
        "status": status_word(run.state), "output": output.flatten(), "error": run.error,
        "createdAt": run.created_at, "startedAt": run.started_at, "completedAt": run.finished_at,
    })
}

/// `webhook`, or `api` where events come in without one.
fn trigger_word(front: &Front, trigger: &Name) -> &'static str {
    let catalog = front.house.catalog();
    let source = catalog.triggers.get(trigger).and_then(|t| catalog.sources.get(&t.source));
    if source.is_some_and(|s| s.webhook().is_some()) { "webhook" } else { "api" }
}

fn status_word(state: State) -> &'static str {
    match state {
        State::Queued => "pending",
        State::Running => "running",
        State::Waiting => "waiting_approval",
        State::Succeeded => "completed",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

fn states_of(word: &str) -> Option<Vec<State>> {
    let found: Vec<State> = State::ALL.into_iter().filter(|s| status_word(*s) == word).collect();
    (!found.is_empty()).then_some(found)
}

fn told(code: StatusCode, data: Value) -> Response<Body> {
    reply::json(code, &json!({ "success": true, "data": data }))
}

fn failed(code: StatusCode, word: &str, message: &str) -> Response<Body> {
    reply::json(code, &json!({ "success": false, "error": { "code": word, "message": message } }))
}

fn no(no: No) -> Response<Body> {
    with_wait(failed(status(no), no.code(), no.told()), no)
}

fn unauthorized() -> Response<Body> {
    failed(StatusCode::UNAUTHORIZED, "unauthorized", "send a token that may do this as Authorization: Bearer")
}

fn broken(error: &StoreError) -> Response<Body> {
    tracing::warn!(%error, "The store could not answer a contract");
    no(No::Unavailable(std::time::Duration::from_secs(5)))
}
