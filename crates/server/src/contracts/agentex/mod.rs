//! Scale Agentex: requests to an agent's own routes, passed on after the check (`/agents/forward/name/{agent}/{path}`), and
//! the keys that they are checked with (`/agent_api_keys`); where it is switched on, agents register themselves (`/agents`).
//!
//! ```text
//! forward  one request to an agent       gate     which of the agent's keys it has to be checked with    places  how many at once
//! keys     the seven routes of keys      access   who may use them      book  keys as they are kept      say     answers
//! agents   registering, and who is there          registry  agents that registered themselves
//! ```
//!
//! A forward is an audited synchronous proxy and no run: nothing of it is stored but the decision. An agent with a trigger
//! gets durable runs instead. Rule 16 of `docs/semantics.md`.

mod access;
mod agents;
pub(crate) mod book;
mod forward;
mod gate;
mod keys;
mod places;
mod registry;
mod say;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use doorbell_core::ingest;
use doorbell_core::ports::{Fetch, Reach};
use doorbell_core::source::Source;
use doorbell_core::{Name, Secret};
use http::{Response, Uri};

use crate::body::Body;
use crate::front::Front;
use crate::webhook::Arrived;

pub use agents::{AGENTS, REGISTER};
pub use book::sweep;
pub use places::Places;
pub use registry::{DoorOf, Judge, Registering};

/// Where forwards begin.
pub const FORWARD: &str = "/agents/forward/name/";
/// Where keys are.
pub const KEYS: &str = "/agent_api_keys";

/// What is served, as resolved from the configuration.
pub struct Agentex {
    /// The listener; none: the main one.
    pub listen: Option<SocketAddr>,
    /// Who may use the routes of keys.
    pub access: Access,
    /// What `x-selected-account-id` has to be, if anything.
    pub account: Option<String>,
    /// The URL that `webhook-trigger` answers with, unless the request says another.
    pub public_url: Option<String>,
    /// The agents.
    pub agents: BTreeMap<Name, Arc<AcpAgent>>,
    /// How agents register themselves; none: they do not.
    pub registering: Option<Registering>,
}

/// Who may use the routes of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The holder of the admin token; an API key that may read the agent looks.
    Token,
    /// Also whoever asks from this machine, by a name of this machine, and is no page of a browser.
    Loopback,
}

/// An agent that is an HTTP server.
pub struct AcpAgent {
    /// Its name.
    pub name: Name,
    /// Its door: limits, addresses, the longest body.
    pub source: Arc<Source>,
    /// What becomes of a request.
    pub mode: Mode,
}

/// What becomes of a request.
pub enum Mode {
    /// It is passed on at once.
    Forward(Forward),
    /// It becomes an event of this trigger's source.
    Queue(Name),
}

/// How requests are passed on.
pub struct Forward {
    /// The agent's base URL.
    pub acp_url: Uri,
    /// What the proof is signed with, the newest first.
    pub secrets: Vec<Secret>,
    /// For the head of an answer, and between two pieces of it.
    pub time_limit: Duration,
    /// Requests at once.
    pub places: Arc<Places>,
    /// The way there.
    pub fetch: Arc<dyn Fetch>,
    /// Which addresses it may lead to.
    pub reach: Reach,
}

impl std::fmt::Debug for Agentex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agentex").field("agents", &self.agents.keys()).finish_non_exhaustive()
    }
}

impl Agentex {
    /// Goes on where the limits of the configuration before stand.
    pub(super) fn adopt(&self, old: &Self) {
        for (name, agent) in &self.agents {
            if let Some(old) = old.agents.get(name) {
                agent.source.adopt(&old.source);
                if let (Mode::Forward(new), Mode::Forward(old)) = (&agent.mode, &old.mode) {
                    new.places.adopt(&old.places);
                }
            }
        }
        if let (Some(new), Some(old)) = (&self.registering, &old.registering) {
            new.adopt(old);
        }
    }
}

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The agent's name and the path behind it, as they came.
    Forward(String, String),
    Keys(keys::Ask),
    Agents(agents::Ask),
}

/// What is asked, if the path is this contract's.
pub(super) fn read(own: &Agentex, path: &str) -> Option<Ask> {
    if let Some((agent, rest)) = path.strip_prefix(FORWARD).and_then(|rest| rest.split_once('/')) {
        return Some(Ask::Forward(agent.to_owned(), rest.to_owned()));
    }
    let of_agents = || own.registering.as_ref().and_then(|_| agents::read(path)).map(Ask::Agents);
    keys::read(path).map(Ask::Keys).or_else(of_agents)
}

/// Answers one request.
pub(super) async fn answer(front: &Front, own: &Agentex, ask: Ask, socket: IpAddr, arrived: Arrived) -> Response<Body> {
    match ask {
        Ask::Forward(agent, path) => forward::answer(front, own, &agent, &path, arrived).await,
        Ask::Keys(ask) => {
            let remote = arrived.remote;
            recorded(front, remote, keys::answer(front, own, ask, socket, arrived).await).await
        }
        Ask::Agents(ask) => {
            let remote = arrived.remote;
            recorded(front, remote, agents::answer(front, own, ask, socket, arrived).await).await
        }
    }
}

/// An answer of these routes, whose no is recorded: whoever makes keys and agents makes what opens doors.
async fn recorded(front: &Front, remote: IpAddr, mut response: Response<Body>) -> Response<Body> {
    if let Some(say::Reason(reason)) = response.extensions_mut().remove() {
        let (no, code) = say::no_of(response.status());
        ingest::refuse_call(&front.house, Some(remote), no, (code, reason.into())).await;
    }
    response
}
