//! Datalayer agent-runtimes, `triggers.webhook`: `POST|GET /api/v1/agents/{id}/webhook`, `WebhookTriggerConfig`,
//! `WebhookResponse`, `WebhookInfo`. The run is started and the answer given at once; theirs waits for the whole run.

use std::net::IpAddr;

use doorbell_core::allowed::Allowed;
use doorbell_core::ingest::{Answer, No, Refused, Taken};
use http::{HeaderMap, Method, Response, StatusCode, Uri, header};
use serde::Serialize;

use super::call::{Asker, may_read, refused, shown, status, with_allow, with_wait};
use super::{Reading, Served};
use crate::body::Body;
use crate::front::Front;
use crate::reply;
use crate::wait::first_run;
use crate::webhook::{self, Arrived};

/// `WebhookTriggerConfig`, less what the trigger and its source say: the agent, the secret.
#[derive(Debug)]
pub struct Datalayer {
    /// The host that the sender says it is, if it has to say so.
    pub event_source: Option<String>,
    /// Shown by `WebhookInfo`.
    pub description: String,
    /// Whether it takes events.
    pub enabled: bool,
    /// Addresses and networks of the real peer that may send.
    pub allowed: Allowed,
}

#[derive(Serialize)]
struct WebhookResponse<'a> {
    status: &'static str,
    agent_id: &'a str,
    workflow_id: Option<String>,
    message: String,
}

#[derive(Serialize)]
struct WebhookInfo<'a> {
    webhook_url: String,
    agent_id: &'a str,
    methods: [&'static str; 1],
    content_type: &'static str,
    event_source: &'a str,
    description: &'a str,
}

#[derive(Serialize)]
struct Detail {
    detail: String,
}

/// The agent's id of a path that is this contract's.
pub(super) fn id(path: &str) -> Option<&str> {
    path.strip_prefix("/api/v1/agents/")?.strip_suffix("/webhook").filter(|id| !id.is_empty() && !id.contains('/'))
}

/// Answers a request to the webhook of agent `id`.
pub(super) async fn answer(
    front: &Front,
    served: Option<(&Served, &Datalayer)>,
    reading: Reading,
    id: &str,
    arrived: Arrived,
) -> Response<Body> {
    match arrived.head.method {
        Method::POST => trigger(front, served, id, arrived).await,
        Method::GET => info(front, served, reading, id, Asker::of(&arrived)).await,
        _ => with_allow(detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"), "GET, POST"),
    }
}

async fn trigger(front: &Front, served: Option<(&Served, &Datalayer)>, id: &str, arrived: Arrived) -> Response<Body> {
    let remote = arrived.remote;
    let Some((served, own)) = served else {
        let text = format!("No webhook trigger registered for agent '{}'", shown(id));
        refused(front, None, remote, No::NotFound, text.clone()).await;
        return detail(StatusCode::NOT_FOUND, text);
    };
    let found = served.find(&front.house.catalog());
    let source = found.as_ref().map(|f| &f.source.name);
    if !own.enabled {
        let text = format!("Webhook trigger for agent '{id}' is disabled");
        refused(front, source, remote, No::NotFound, text.clone()).await;
        return detail(StatusCode::FORBIDDEN, text);
    }
    if let Err(why) = own.check_source(&arrived.head.headers, remote) {
        refused(front, source, remote, No::AddressNotAllowed, why).await;
        return detail(StatusCode::FORBIDDEN, "Unauthorized event source");
    }
    let Some(found) = &found else {
        let text = format!("Agent '{id}' not found in registry");
        refused(front, None, remote, No::NotFound, text.clone()).await;
        return detail(StatusCode::NOT_FOUND, text);
    };
    // Here it is a name that senders give themselves, and was looked at.
    let mut arrived = arrived;
    arrived.head.headers.remove(header::ORIGIN);
    let asked = webhook::ask(front, &found.source, arrived, None).await;
    let mut response = match asked.answer {
        Answer::Taken(taken) => taken_response(id, &taken),
        Answer::Handshake(answer) => reply::handshake(answer),
        Answer::Refused(refused) => no(id, &refused),
    };
    if asked.ends_connection {
        webhook::end_connection(&mut response);
    }
    response
}

fn taken_response(id: &str, taken: &[Taken]) -> Response<Body> {
    let (status, workflow_id, message) = match taken.first() {
        Some(Taken::Accepted { .. }) => ("triggered", first_run(taken), "Agent triggered successfully".to_owned()),
        Some(Taken::Duplicate { .. }) => {
            ("triggered", first_run(taken), "This event has triggered the agent before".to_owned())
        }
        Some(Taken::Ignored { reason, .. }) => ("ignored", None, format!("The event was stored and ignored: {reason}")),
        None => ("ignored", None, "The request holds no events".to_owned()),
    };
    let workflow_id = workflow_id.map(|run| run.to_string());
    reply::json(StatusCode::OK, &WebhookResponse { status, agent_id: id, workflow_id, message })
}

fn no(id: &str, refused: &Refused) -> Response<Body> {
    let text = match (refused.no, refused.code.as_ref()) {
        (No::NotFound, "disabled") => {
            let text = format!("Webhook trigger for agent '{id}' is disabled");
            return detail(StatusCode::FORBIDDEN, text);
        }
        (No::AddressNotAllowed, _) => "Unauthorized event source",
        (no, _) => no.told(),
    };
    with_wait(detail(status(refused.no), text), refused.no)
}

async fn info(
    front: &Front,
    served: Option<(&Served, &Datalayer)>,
    reading: Reading,
    id: &str,
    asker: Asker<'_>,
) -> Response<Body> {
    let found = served.and_then(|(served, _)| served.find(&front.house.catalog()));
    let reading = served.map_or(reading, |(served, _)| served.reading);
    if !may_read(front, reading, asker, found.as_ref().map(|f| &f.agent.name)).await {
        return detail(StatusCode::UNAUTHORIZED, "Not authenticated");
    }
    let own = served.map(|(_, own)| own);
    let info = WebhookInfo {
        webhook_url: format!("/api/v1/agents/{id}/webhook"),
        agent_id: id,
        methods: ["POST"],
        content_type: "application/json",
        event_source: own.and_then(|o| o.event_source.as_deref()).unwrap_or_default(),
        description: own.map_or("", |o| &o.description),
    };
    reply::json(StatusCode::OK, &info)
}

impl Datalayer {
    /// Whether the request comes from where it may. What it says of itself counts for `event_source` alone, host against
    /// host, and addresses are the real peer's: a header names no address.
    fn check_source(&self, headers: &HeaderMap, remote: IpAddr) -> Result<(), String> {
        if self.event_source.is_none() && self.allowed.is_everybody() {
            return Ok(());
        }
        if !self.allowed.is_everybody() && self.allowed.lets_in(remote) {
            return Ok(());
        }
        let said = headers.get("x-webhook-source").or_else(|| headers.get(header::ORIGIN));
        let said = said.and_then(|v| v.to_str().ok());
        let wanted = self.event_source.as_deref().and_then(host);
        if wanted.is_some() && said.and_then(host) == wanted {
            return Ok(());
        }
        let said = said.map_or_else(|| "nothing".to_owned(), shown);
        Err(format!("the request says that it is from {said} and came from {remote}; neither is let in"))
    }
}

/// The host of a URL, or a bare host name; in lower case.
fn host(text: &str) -> Option<String> {
    let uri: Uri = text.trim().parse().ok()?;
    uri.host().filter(|h| !h.is_empty()).map(str::to_ascii_lowercase)
}

fn detail(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    reply::json(status, &Detail { detail: text.into() })
}

/// Whether a text names a host to compare with: for `check`.
pub fn names_a_host(text: &str) -> bool {
    host(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(event_source: Option<&str>, nets: &[&str]) -> Datalayer {
        let nets = nets.iter().map(|n| n.parse().unwrap()).collect();
        Datalayer {
            event_source: event_source.map(str::to_owned),
            description: String::new(),
            enabled: true,
            allowed: Allowed::new(nets, Vec::new()),
        }
    }

    #[test]
    fn a_source_is_a_whole_host_and_an_address_is_the_peers() {
        let (peer, other): (IpAddr, IpAddr) = ("192.0.2.7".parse().unwrap(), "198.51.100.1".parse().unwrap());
        let ask = |own: &Datalayer, said: Option<(&'static str, &str)>, from| {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = said {
                headers.insert(name, value.parse().unwrap());
            }
            own.check_source(&headers, from).is_ok()
        };
        for event_source in ["https://helpdesk.example.com", "helpdesk.example.com", "https://HELPDESK.example.com/x"] {
            let own = own(Some(event_source), &[]);
            for good in ["https://helpdesk.example.com", "helpdesk.example.com", "https://helpdesk.example.com:8443/a"]
            {
                assert!(ask(&own, Some(("origin", good)), other), "{event_source} {good}");
                assert!(ask(&own, Some(("x-webhook-source", good)), other), "{event_source} {good}");
            }
            for bad in [
                "https://helpdesk.example.com.evil.io",
                "https://helpdesk.example.com@evil.io",
                "example.com",
                "xhelpdesk.example.com",
                "192.0.2.7",
                "",
            ] {
                assert!(!ask(&own, Some(("origin", bad)), other), "{event_source} {bad}");
            }
            assert!(!ask(&own, None, other));
        }
        let nets = own(None, &["192.0.2.0/24"]);
        assert!(ask(&nets, None, peer) && !ask(&nets, None, other));
        assert!(!ask(&nets, Some(("x-webhook-source", "192.0.2.7")), other), "a header names no address");
        assert!(ask(&own(None, &[]), None, other));
    }
}
