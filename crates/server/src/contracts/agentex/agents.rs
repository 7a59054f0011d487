//! The routes of agents: `POST /agents/register`, as an agent's SDK calls it when it starts, and the ones that tell of agents. An
//! agent's id is its name.

use std::net::IpAddr;

use doorbell_core::Name;
use doorbell_core::ingest;
use doorbell_core::ports::StoreError;
use doorbell_core::registration::Registration;
use doorbell_core::vault::VaultError;
use http::{Method, Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::call;
use super::access::{Covers, Want, check};
use super::registry;
use super::{Agentex, book, keys, say};
use crate::body::Body;
use crate::front::Front;
use crate::webhook::Arrived;

/// Where agents are.
pub const AGENTS: &str = "/agents";
/// Where they register themselves.
pub const REGISTER: &str = "/agents/register";
/// What an agent says of itself is a page at most; a build's description is the largest part of it.
const BODY_BYTES_MAX: usize = 256 * 1024;
const DESCRIPTION_BYTES_MAX: usize = 4096;
const METADATA_BYTES_MAX: usize = 128 * 1024;
/// Agents that registered themselves: each may hold places and a door.
const AGENTS_MAX: usize = 1000;
/// How an agent is spoken to; `agentic` is what `async` was called before.
const ACP_TYPES: &[&str] = &["sync", "async", "agentic"];
const INPUT_TYPES: &[&str] = &["text", "json"];

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Ask {
    List,
    Register,
    Named(String),
    Id(String),
}

type Told = Result<Response<Body>, Box<Response<Body>>>;

/// What an agent says. Members that are not known are let be: an SDK that is newer must not fail at its start.
#[derive(Deserialize)]
struct Said {
    name: String,
    description: String,
    acp_url: String,
    acp_type: String,
    agent_id: Option<String>,
    registration_metadata: Option<Map<String, Value>>,
    agent_input_type: Option<String>,
}

/// What is asked, if the path is one of these.
pub(super) fn read(path: &str) -> Option<Ask> {
    match path.strip_prefix(AGENTS)? {
        "" | "/" => Some(Ask::List),
        "/register" => Some(Ask::Register),
        rest => match rest.strip_prefix("/name/") {
            Some(name) if !name.contains('/') => Some(Ask::Named(keys::decoded(name))),
            Some(_) => None,
            None => rest.strip_prefix('/').filter(|id| !id.contains('/')).map(|id| Ask::Id(keys::decoded(id))),
        },
    }
}

/// Answers one request.
pub(super) async fn answer(front: &Front, own: &Agentex, ask: Ask, socket: IpAddr, arrived: Arrived) -> Response<Body> {
    if own.registering.is_none() {
        return say::failed(StatusCode::NOT_FOUND, "Not Found");
    }
    let Arrived { head, body, remote, .. } = arrived;
    let want = match (&ask, &head.method) {
        (Ask::List | Ask::Named(_) | Ask::Id(_), &Method::GET) => Want::Look,
        (Ask::Register, &Method::POST) | (Ask::Named(_) | Ask::Id(_), &Method::DELETE) => Want::Register,
        (Ask::List, _) => return say::method("GET"),
        (Ask::Register, _) => return say::method("POST"),
        _ => return say::method("DELETE, GET"),
    };
    let covers = match check(front, own, want, socket, &head).await {
        Ok(covers) => covers,
        Err(response) => return *response,
    };
    let told = match (ask, &head.method) {
        (Ask::List, _) => list(front, own, &covers).await,
        (Ask::Register, _) => match keys::text(front, &head, body, BODY_BYTES_MAX).await {
            Ok(said) => register(front, own, &covers, said, remote).await,
            Err(response) => Err(response),
        },
        (Ask::Named(name) | Ask::Id(name), &Method::GET) => show(front, own, &covers, &name).await,
        (Ask::Named(name) | Ask::Id(name), _) => remove(front, own, &covers, &name, remote).await,
    };
    told.unwrap_or_else(|response| *response)
}

fn failed<T>(status: StatusCode, text: &str) -> Result<T, Box<Response<Body>>> {
    Err(Box::new(say::failed(status, text)))
}

fn invalid<T>(text: &str) -> Result<T, Box<Response<Body>>> {
    Err(Box::new(say::invalid(text)))
}

fn broken(error: VaultError) -> Box<Response<Body>> {
    Box::new(match error {
        VaultError::Store(error) => say::broken(&error),
        other => say::broken(&StoreError::Unavailable(other.to_string())),
    })
}

fn no_agent<T>(name: &str) -> Result<T, Box<Response<Body>>> {
    failed(StatusCode::NOT_FOUND, &format!("Agent {} not found.", call::shown(name)))
}

async fn register(front: &Front, own: &Agentex, covers: &Covers, said: Said, remote: IpAddr) -> Told {
    let Some(registering) = &own.registering else { return failed(StatusCode::NOT_FOUND, "Not Found") };
    let Ok(name) = Name::new(&said.name) else {
        return invalid("`name` has 1 to 63 of `a-z`, `0-9` and `-`, and does not begin with `-`");
    };
    if !covers.lets(&name) {
        return failed(StatusCode::FORBIDDEN, "Forbidden: this key is for another agent");
    }
    if said.agent_id.as_ref().is_some_and(|id| id != name.as_str()) {
        return failed(
            StatusCode::NOT_FOUND,
            "No agent has this agent_id. An agent's id is its name here: leave it out.",
        );
    }
    if said.description.len() > DESCRIPTION_BYTES_MAX {
        return invalid(&format!("`description` has at most {DESCRIPTION_BYTES_MAX} bytes"));
    }
    if !ACP_TYPES.contains(&said.acp_type.as_str()) {
        return invalid(&format!("`acp_type` is one of: {}", ACP_TYPES.join(", ")));
    }
    if said.agent_input_type.as_ref().is_some_and(|t| !INPUT_TYPES.contains(&t.as_str())) {
        return invalid(&format!("`agent_input_type` is one of: {}", INPUT_TYPES.join(", ")));
    }
    if let Err(why) = (registering.judge)(&said.acp_url) {
        return invalid(&format!("`acp_url` is not taken: {why}"));
    }
    let _turn = front.agents_turn.lock().await;
    check_free(front, own, &name)?;
    let kept = front.house.store.registrations().await.map_err(|e| broken(e.into()))?;
    let before = kept.iter().find(|agent| agent.name == name);
    if before.is_none() && kept.len() >= AGENTS_MAX {
        let text = format!("There are {AGENTS_MAX} registered agents already: delete one that is gone.");
        return failed(StatusCode::CONFLICT, &text);
    }
    // What an earlier registration said of its build stays, where this one says nothing of it.
    let mut metadata = before.and_then(metadata).unwrap_or_default();
    metadata.extend(said.registration_metadata.unwrap_or_default());
    let metadata = (!metadata.is_empty()).then(|| Value::Object(metadata).to_string());
    if metadata.as_ref().is_some_and(|text| text.len() > METADATA_BYTES_MAX) {
        return invalid(&format!("`registration_metadata` has at most {METADATA_BYTES_MAX} bytes as JSON"));
    }
    let moved = before.is_none_or(|before| before.acp_url != said.acp_url);
    let now = front.house.clock.now();
    let agent = Registration {
        name,
        acp_url: said.acp_url,
        acp_type: if said.acp_type == "agentic" { "async".into() } else { said.acp_type },
        description: said.description,
        input_type: said.agent_input_type,
        metadata,
        created_at: now,
        registered_at: now,
    };
    if before.is_none() {
        // Keys that somebody of this name left behind, an agent that the file named for one, are not this one's.
        end_keys(front, &agent.name).await?;
        registry::forget_secret(front, &agent.name).await.map_err(broken)?;
    }
    let (agent, secret) = registry::keep(front, agent).await.map_err(broken)?;
    // Its path may hold a token.
    let host = agent.acp_url.parse::<Uri>().ok().and_then(|url| url.authority().map(ToString::to_string));
    let reason = match (&before, moved) {
        (None, _) => "the agent registered itself, with the host",
        (Some(_), true) => "the agent registered itself again, with another URL, of the host",
        (Some(_), false) => "the agent registered itself again, with the host",
    };
    let reason = format!("{reason} {}", host.as_deref().unwrap_or("-"));
    ingest::note_agent(&front.house, &agent.name, remote, ("registered", reason)).await;
    if moved {
        tracing::info!(agent = %agent.name, host, "An agent registered itself; requests are passed on there");
    }
    let mut told = shown(&agent);
    told["agent_api_key"] = json!(secret.expose());
    Ok(crate::reply::json(StatusCode::OK, &told))
}

/// A name that decisions or the configuration know as something else is not taken.
fn check_free(front: &Front, own: &Agentex, name: &Name) -> Result<(), Box<Response<Body>>> {
    if own.agents.contains_key(name) {
        let text = format!(
            "Agent {name} stands in the configuration, which wins: take [contracts.agentex.agents.{name}] out of it, or \
             register under another name."
        );
        return failed(StatusCode::CONFLICT, &text);
    }
    if front.house.catalog().sources.contains_key(name) {
        let text = format!("{name} is the name of a source: register under another name.");
        return failed(StatusCode::CONFLICT, &text);
    }
    Ok(())
}

fn metadata(agent: &Registration) -> Option<Map<String, Value>> {
    agent.metadata.as_deref().and_then(|text| serde_json::from_str(text).ok())
}

fn shown(agent: &Registration) -> Value {
    json!({
        "id": agent.name, "name": agent.name, "description": agent.description, "status": "Ready",
        "acp_type": agent.acp_type, "status_reason": "Agent registered successfully.",
        "created_at": agent.created_at, "updated_at": agent.registered_at, "registered_at": agent.registered_at,
        "registration_metadata": metadata(agent), "agent_input_type": agent.input_type, "production_deployment_id": null,
    })
}

/// What is told of an agent of the configuration: what it is for stands nowhere.
fn configured(name: &Name) -> Value {
    json!({
        "id": name, "name": name, "description": "", "status": "Ready", "acp_type": "async",
        "status_reason": "It stands in the configuration.", "created_at": null, "updated_at": null,
        "registered_at": null, "registration_metadata": null, "agent_input_type": null, "production_deployment_id": null,
    })
}

async fn list(front: &Front, own: &Agentex, covers: &Covers) -> Told {
    let kept = front.house.store.registrations().await.map_err(|e| broken(e.into()))?;
    let mut agents: Vec<(&Name, Value)> = own.agents.keys().map(|name| (name, configured(name))).collect();
    agents.extend(kept.iter().filter(|a| !own.agents.contains_key(&a.name)).map(|a| (&a.name, shown(a))));
    agents.retain(|(name, _)| covers.lets(name));
    agents.sort_by(|a, b| a.0.cmp(b.0));
    let agents: Vec<Value> = agents.into_iter().map(|(_, shown)| shown).collect();
    Ok(crate::reply::json(StatusCode::OK, &agents))
}

async fn show(front: &Front, own: &Agentex, covers: &Covers, name: &str) -> Told {
    let Some(name) = Name::new(name).ok().filter(|name| covers.lets(name)) else { return no_agent(name) };
    if own.agents.contains_key(&name) {
        return Ok(crate::reply::json(StatusCode::OK, &configured(&name)));
    }
    match front.house.store.registration(name.clone()).await.map_err(|e| broken(e.into()))? {
        Some(agent) => Ok(crate::reply::json(StatusCode::OK, &shown(&agent))),
        None => no_agent(name.as_str()),
    }
}

/// Ends every key under a name.
async fn end_keys(front: &Front, name: &Name) -> Result<(), Box<Response<Body>>> {
    for entry in book::all(front).await.map_err(|e| broken(e.into()))? {
        if entry.agent == *name {
            book::remove(front, &entry).await.map_err(broken)?;
        }
    }
    Ok(())
}

async fn remove(front: &Front, own: &Agentex, covers: &Covers, asked: &str, remote: IpAddr) -> Told {
    let Some(registering) = &own.registering else { return failed(StatusCode::NOT_FOUND, "Not Found") };
    let Some(name) = Name::new(asked).ok().filter(|name| covers.lets(name)) else { return no_agent(asked) };
    if own.agents.contains_key(&name) {
        let text = format!("Agent {name} stands in the configuration: take it out there.");
        return failed(StatusCode::CONFLICT, &text);
    }
    let _turn = front.agents_turn.lock().await;
    if front.house.store.registration(name.clone()).await.map_err(|e| broken(e.into()))?.is_none() {
        return no_agent(asked);
    }
    // Whoever takes the name next is another agent: no key of this one opens it. First, so that a crash leaves none behind.
    end_keys(front, &name).await?;
    match registry::remove(front, registering, &name).await {
        Ok(()) => {}
        Err(VaultError::Store(StoreError::NotFound(_))) => return no_agent(asked),
        Err(error) => return Err(broken(error)),
    }
    ingest::note_agent(&front.house, &name, remote, ("unregistered", "deleted, with its keys".into())).await;
    tracing::info!(agent = %name, "A registered agent was deleted, with its keys");
    let said = json!({ "id": name, "message": format!("Agent '{name}' deleted successfully") });
    Ok(crate::reply::json(StatusCode::OK, &said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_agents_are_told_from_what_lies_below_them() {
        assert_eq!(read("/agents"), Some(Ask::List));
        assert_eq!(read("/agents/register"), Some(Ask::Register));
        assert_eq!(read("/agents/name/reviewer"), Some(Ask::Named("reviewer".into())));
        assert_eq!(read("/agents/reviewer"), Some(Ask::Id("reviewer".into())));
        for path in ["/agentsx", "/agents/reviewer/rpc", "/agents/name/reviewer/rpc", "/agents/a/executions", "/api"] {
            assert_eq!(read(path), None, "{path}");
        }
    }
}
