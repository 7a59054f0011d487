//! The wire contracts of other systems: their clients ring here unchanged. Asked by `front` for what no source's path
//! takes; switched on by `[contracts.NAME]`.
//!
//! A contract is a dress, one file each: it finds which trigger a path means, brings the request to the door like every
//! other ([`crate::webhook::ask`]), and says the door's answer in its own words. It decides nothing that the door decides, and it
//! makes no event itself. What each one answers, and where it differs from its document, is in `docs/contracts.md`.

mod aether;
pub mod agentex;
pub(crate) mod almyty;
mod call;
mod datalayer;
mod promptise;
pub mod show;

use std::net::SocketAddr;
use std::sync::Arc;

use doorbell_core::Name;
use doorbell_core::agent::Agent;
use doorbell_core::house::Catalog;
use doorbell_core::source::Source;
use doorbell_core::trigger::Trigger;
use http::{Request, Response};
use hyper::body::Incoming;

pub use aether::{Aether, Pattern, STANDING_PATHS};
pub use almyty::CONTRACT;
pub use datalayer::{Datalayer, names_a_host};
pub use promptise::Promptise;

use agentex::Agentex;

use crate::body::Body;
use crate::conn::Door;
use crate::front::Front;
use crate::peer;
use crate::webhook::Arrived;

/// What is served, as resolved from the configuration.
#[derive(Debug, Default)]
pub struct Contracts {
    served: Vec<Served>,
    agentex: Option<Agentex>,
}

impl Contracts {
    /// These, in the order of the file.
    pub fn new(served: Vec<Served>) -> Self {
        Self { served, agentex: None }
    }

    /// Also the agents of Agentex.
    #[must_use]
    pub fn with_agentex(mut self, agentex: Option<Agentex>) -> Self {
        self.agentex = agentex;
        self
    }

    /// The addresses that contracts are served on, each once: the caller opens them and serves them with
    /// [`crate::Server::serve_contracts`].
    pub fn listens(&self) -> Vec<SocketAddr> {
        let mut all: Vec<SocketAddr> = self.listeners().collect();
        all.sort();
        all.dedup();
        all
    }

    fn listeners(&self) -> impl Iterator<Item = SocketAddr> {
        self.served.iter().filter_map(|s| s.listen).chain(self.agentex.iter().filter_map(|a| a.listen))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.served.is_empty() && self.agentex.is_none()
    }

    /// Goes on where the limits of those before stand.
    pub(crate) fn adopt(&self, old: &Self) {
        if let (Some(new), Some(old)) = (&self.agentex, &old.agentex) {
            new.adopt(old);
        }
    }

    fn at(&self, door: Door) -> impl Iterator<Item = &Served> {
        self.served.iter().filter(move |s| s.listen == door)
    }
}

/// One thing that a contract serves: an agent's webhook, a trigger's endpoint.
#[derive(Debug)]
pub struct Served {
    /// What the contract's clients call it.
    pub id: String,
    /// The trigger that it rings.
    pub trigger: Name,
    /// The listener that it is served on; none: the main one.
    pub listen: Option<SocketAddr>,
    /// Who may read what the contract shows without authentication.
    pub reading: Reading,
    /// Whose wire, and what that needs.
    pub wire: Wire,
}

/// Who may read what a contract's document shows without authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Whoever holds the admin token, or an API key that may read the agent.
    Token,
    /// Everybody: the operator wrote `auth = "none"`.
    Open,
}

/// Whose wire.
#[derive(Debug)]
pub enum Wire {
    /// Datalayer agent-runtimes, `triggers.webhook`.
    Datalayer(Datalayer),
    /// Aether Forge: ticks by webhook.
    Aether(Aether),
    /// almyty: webhooks of agents, and their executions.
    Almyty,
    /// Promptise Foundry, `WebhookTrigger`.
    Promptise(Promptise),
}

/// What a served thing stands for in the configuration as it is now.
struct Found {
    source: Arc<Source>,
    agent: Arc<Agent>,
}

impl Served {
    /// The paths that it answers on its listener: no two may have one.
    pub fn paths(&self) -> Vec<String> {
        match &self.wire {
            Wire::Datalayer(_) => vec![format!("/api/v1/agents/{}/webhook", self.id)],
            Wire::Almyty => vec![format!("/agents/{}/webhook", self.id)],
            Wire::Promptise(Promptise { path, .. }) | Wire::Aether(Aether { path, .. }) => vec![path.clone()],
        }
    }

    /// None while a reload has taken one of them away.
    fn find(&self, catalog: &Catalog) -> Option<Found> {
        let trigger: &Arc<Trigger> = catalog.triggers.get(&self.trigger)?;
        let source = Arc::clone(catalog.sources.get(&trigger.source)?);
        let agent = Arc::clone(catalog.agents.get(&trigger.agent)?);
        Some(Found { source, agent })
    }
}

/// What became of a request.
pub(crate) enum Said {
    /// This is its answer.
    Answer(Response<Body>),
    /// No contract has this path, and it came to the main listener.
    NotOurs(Request<Incoming>),
}

/// Where a path leads.
enum Place<'c> {
    Agentex(&'c Agentex, agentex::Ask),
    Aether(aether::Ask),
    Datalayer(String),
    Almyty(String, almyty::Ask),
    Promptise(promptise::Ask),
}

/// Answers a request whose path is a contract's.
pub(crate) async fn serve(
    front: &Front,
    contracts: Arc<Contracts>,
    door: Door,
    socket: std::net::IpAddr,
    request: Request<Incoming>,
) -> Said {
    let place = place(&contracts, door, request.uri().path());
    let Some(place) = place else {
        if door.is_none() {
            return Said::NotOurs(request);
        }
        let remote = peer::real(socket, request.headers(), &front.options.trusted_proxies);
        return Said::Answer(front.nothing_here(remote, request.uri().path()).await.map(Body::axum));
    };
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let remote = peer::real(socket, &head.headers, &front.options.trusted_proxies);
    let via = peer::via(socket, &front.options.trusted_proxies);
    let arrived = Arrived { head, body, remote, via };
    Said::Answer(match place {
        Place::Agentex(own, ask) => agentex::answer(front, own, ask, socket, arrived).await,
        Place::Aether(ask) => {
            let mut here: Vec<_> = contracts.aether(door).collect();
            if matches!(ask, aether::Ask::Endpoint) {
                here.retain(|(_, own)| own.path == path);
            }
            aether::answer(front, ask, &here, arrived).await
        }
        Place::Datalayer(id) => {
            let served = contracts.at(door).find_map(|s| match &s.wire {
                Wire::Datalayer(own) if s.id == id => Some((s, own)),
                _ => None,
            });
            datalayer::answer(front, served, contracts.reading(door), &id, arrived).await
        }
        Place::Almyty(id, ask) => {
            let served = contracts.at(door).find(|s| matches!(s.wire, Wire::Almyty) && s.id == id);
            almyty::answer(front, served, ask, arrived).await
        }
        Place::Promptise(ask) => {
            let mut here: Vec<_> = contracts.promptise(door).collect();
            if matches!(ask, promptise::Ask::Trigger) {
                here.retain(|(_, own)| own.path == path);
            }
            promptise::answer(front, ask, &here, arrived).await
        }
    })
}

impl Contracts {
    fn promptise(&self, door: Door) -> impl Iterator<Item = (&Served, &Promptise)> {
        self.at(door).filter_map(|s| match &s.wire {
            Wire::Promptise(own) => Some((s, own)),
            _ => None,
        })
    }

    fn aether(&self, door: Door) -> impl Iterator<Item = (&Served, &Aether)> {
        self.at(door).filter_map(|s| match &s.wire {
            Wire::Aether(own) => Some((s, own)),
            _ => None,
        })
    }

    /// Who may read what names nothing that is served: nobody without a token, unless all of the listener is open.
    fn reading(&self, door: Door) -> Reading {
        let open = self.at(door).all(|s| s.reading == Reading::Open);
        if open { Reading::Open } else { Reading::Token }
    }
}

fn place<'c>(contracts: &'c Contracts, door: Door, path: &str) -> Option<Place<'c>> {
    if let Some(own) = contracts.agentex.as_ref().filter(|own| own.listen == door)
        && let Some(ask) = agentex::read(own, path)
    {
        return Some(Place::Agentex(own, ask));
    }
    let has_datalayer = contracts.at(door).any(|s| matches!(s.wire, Wire::Datalayer(_)));
    if let Some(id) = datalayer::id(path).filter(|_| has_datalayer) {
        return Some(Place::Datalayer(id.to_owned()));
    }
    let has_almyty = contracts.at(door).any(|s| matches!(s.wire, Wire::Almyty));
    if let Some((id, ask)) = almyty::read(path).filter(|_| has_almyty) {
        return Some(Place::Almyty(id.to_owned(), ask));
    }
    if contracts.promptise(door).any(|(_, own)| own.path == path) {
        return Some(Place::Promptise(promptise::Ask::Trigger));
    }
    if contracts.aether(door).any(|(_, own)| own.path == path) {
        return Some(Place::Aether(aether::Ask::Endpoint));
    }
    // On the main listener these are Doorbell's own.
    if door.is_some() && contracts.aether(door).next().is_some() {
        return aether::Ask::standing(path).map(Place::Aether);
    }
    let has_promptise = door.is_some() && contracts.promptise(door).next().is_some();
    match path {
        "/health" if has_promptise => Some(Place::Promptise(promptise::Ask::Health)),
        "/status" if has_promptise => Some(Place::Promptise(promptise::Ask::Status)),
        _ => None,
    }
}
